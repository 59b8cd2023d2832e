"""How a sink is named, in `[anchors] sinks` and after `--sink`.

    file:/mnt/second/anchors                a directory on another volume; it must exist
    witness:https://witness.example <VKEY>  a witness and its verifier key
    rfc3161:https://tsa.example ca.pem      a time-stamping authority and its root's certificate
    s3://bucket/prefix                      a bucket with object lock

Light: imports no sink before one is opened, because every command reads the configuration.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast.core.clock import Clock
from holdfast.core.errors import BadInput

if TYPE_CHECKING:
    from holdfast.anchors.receipts import Receipts
    from holdfast.anchors.sink import AnchorSink

_SHAPES = {
    "file": "file:DIRECTORY",
    "witness": "witness:URL VKEY",
    "rfc3161": "rfc3161:URL CERTIFICATES.pem",
    "s3": "s3://BUCKET/PREFIX",
}
_TRUSTED = {"witness", "rfc3161"}


class SinkSpec(NamedTuple):
    """A sink's name, taken apart.

    Attributes:
        kind: "file", "witness", "rfc3161" or "s3".
        address: A path or a URL.
        trust: What its answers are verified by: a verifier key, a file of certificates, or "".
    """

    kind: str
    address: str
    trust: str = ""


def parse_sink(text: str) -> SinkSpec:
    """The sink that *text* names.

    Raises:
        BadInput: It names none; the message says what is expected.
    """
    kind, _, rest = text.partition(":")
    shape = _SHAPES.get(kind)
    if shape is None:
        import difflib  # noqa: PLC0415  only where something is wrong

        near = difflib.get_close_matches(kind, _SHAPES, n=1)
        expected = _SHAPES[near[0]] if near else ", ".join(_SHAPES.values())
        raise BadInput(f"sink {text!r} is of no known kind", hint=f"expected {expected}")
    if kind == "s3":
        if not rest.startswith("//") or not rest.strip("/"):
            raise BadInput(f"sink {text!r} names no bucket", hint=f"expected {shape}")
        return SinkSpec(kind, text)
    if kind == "file":
        if not rest:
            raise BadInput(f"sink {text!r} names no directory", hint=f"expected {shape}")
        return SinkSpec(kind, rest)
    address, _, trust = rest.partition(" ")
    if not address or not trust.strip():
        raise BadInput(f"sink {text!r} is not complete", hint=f"expected {shape}")
    return SinkSpec(kind, address, trust.strip())


def open_sink(
    spec: SinkSpec, receipts: Receipts, clock: Clock, *, environ: Mapping[str, str] | None = None
) -> AnchorSink:
    """The sink that *spec* names.

    Raises:
        BadInput: Its address or what it is verified by cannot be used, or a library it needs is not installed.
    """
    try:
        return _OPEN[spec.kind](spec, receipts, clock, os.environ if environ is None else environ)
    except ModuleNotFoundError as why:
        raise BadInput(
            f"sink {spec.kind} needs {why.name}", hint="pip install 'holdfast[anchors,archive]'"
        ) from why


def _file(spec: SinkSpec, receipts: Receipts, clock: Clock, environ: Mapping[str, str]) -> AnchorSink:
    del receipts, clock, environ
    from holdfast.anchors.file import FileSink  # noqa: PLC0415

    return FileSink(Path(spec.address))


def _witness(spec: SinkSpec, receipts: Receipts, clock: Clock, environ: Mapping[str, str]) -> AnchorSink:
    del clock, environ
    from holdfast.anchors.witness_client import WitnessSink  # noqa: PLC0415
    from holdfast.audit.note import VerifierKey  # noqa: PLC0415

    return WitnessSink(spec.address, VerifierKey.parse(spec.trust), receipts.newest)


def _rfc3161(spec: SinkSpec, receipts: Receipts, clock: Clock, environ: Mapping[str, str]) -> AnchorSink:
    del receipts, clock, environ
    from holdfast.anchors.rfc3161 import TimestampSink  # noqa: PLC0415

    return TimestampSink(spec.address, Path(spec.trust))


def _s3(spec: SinkSpec, receipts: Receipts, clock: Clock, environ: Mapping[str, str]) -> AnchorSink:
    from holdfast.anchors.s3 import ObjectLockSink  # noqa: PLC0415

    return ObjectLockSink(spec.address, environ, receipts.newest, clock)


_OPEN: Mapping[str, Callable[[SinkSpec, Receipts, Clock, Mapping[str, str]], AnchorSink]] = {
    "file": _file,
    "witness": _witness,
    "rfc3161": _rfc3161,
    "s3": _s3,
}
