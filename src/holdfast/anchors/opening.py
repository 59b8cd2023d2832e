"""Makes sinks of their names; each imports its library only when one of its kind is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from holdfast.anchors.receipts import Receipts
from holdfast.anchors.sink import AnchorSink
from holdfast.anchors.source import LogSource
from holdfast.anchors.spec import SinkSpec, parse_sink
from holdfast.anchors.submit import Anchorer
from holdfast.audit.keys import KeyHome
from holdfast.core.clock import Clock
from holdfast.core.errors import BadInput
from holdfast.core.extras import how_to_install


def anchor_by(
    directory: Path, home: KeyHome, sinks: Sequence[str], clock: Clock
) -> Callable[[bytes], None] | None:
    """What a writer has its ANCHORED records confirmed by, or None where no sink is named.

    The sinks are opened when the first such record asks for them, so that a log that has none pays nothing.

    Args:
        directory: The log.
        home: Where its keys and receipts are.
        sinks: As `[anchors] sinks` names them.
        clock: From when receipts count.
    """
    if not sinks:
        return None

    @cache
    def anchorer() -> Anchorer:
        receipts = Receipts(home)
        opened = [open_sink(parse_sink(name), receipts, clock) for name in sinks]
        return Anchorer(LogSource(directory, home), opened, receipts, clock=clock)

    return lambda note: anchorer().confirm(note)


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
            f"sink {spec.kind} needs {why.name}", hint=how_to_install("anchors", "archive")
        ) from why


def _file(spec: SinkSpec, receipts: Receipts, clock: Clock, environ: Mapping[str, str]) -> AnchorSink:
    del receipts, clock, environ
    from holdfast.anchors.file import FileSink  # noqa: PLC0415  only a sink that is named costs its library

    return FileSink(Path(spec.address))


def _witness(spec: SinkSpec, receipts: Receipts, clock: Clock, environ: Mapping[str, str]) -> AnchorSink:
    del clock, environ
    from holdfast.anchors.witness_client import WitnessSink  # noqa: PLC0415  as above
    from holdfast.audit.note import VerifierKey  # noqa: PLC0415  as above

    return WitnessSink(spec.address, VerifierKey.parse(spec.trust), receipts.newest)


def _rfc3161(spec: SinkSpec, receipts: Receipts, clock: Clock, environ: Mapping[str, str]) -> AnchorSink:
    del receipts, clock, environ
    from holdfast.anchors.rfc3161 import TimestampSink  # noqa: PLC0415  as above

    return TimestampSink(spec.address, Path(spec.trust))


def _s3(spec: SinkSpec, receipts: Receipts, clock: Clock, environ: Mapping[str, str]) -> AnchorSink:
    from holdfast.anchors.s3 import ObjectLockSink  # noqa: PLC0415  as above

    return ObjectLockSink(spec.address, environ, receipts.newest, clock)


_OPEN: Mapping[str, Callable[[SinkSpec, Receipts, Clock, Mapping[str, str]], AnchorSink]] = {
    "file": _file,
    "witness": _witness,
    "rfc3161": _rfc3161,
    "s3": _s3,
}
