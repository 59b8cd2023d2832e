"""How a sink is named, in `[anchors] sinks` and after `--sink`.

    file:/mnt/second/anchors                a directory on another volume; it must exist
    witness:https://witness.example <VKEY>  a witness and its verifier key
    rfc3161:https://tsa.example ca.pem      a time-stamping authority and its root's certificate
    s3://bucket/prefix                      a bucket with object lock

Light, because every command reads the configuration; `opening` makes sinks of these names.
"""

from __future__ import annotations

from typing import NamedTuple

from holdfast.core.errors import BadInput

_SHAPES = {
    "file": "file:DIRECTORY",
    "witness": "witness:URL VKEY",
    "rfc3161": "rfc3161:URL CERTIFICATES.pem",
    "s3": "s3://BUCKET/PREFIX",
}


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
    try:
        text.encode()
    except UnicodeEncodeError as why:
        raise BadInput(
            f"sink {text!r} cannot be kept as a name: it is not UTF-8", hint="choose another path"
        ) from why
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
