r"""The file format of the audit log, version 1: one JSON object per line.

A record is one line of UTF-8, its keys always in this order, without spaces between tokens:

    {"crc":"1481ad42","seq":7,"synced":5,"ts":1763634000123456789,"type":"STATE","user":"ops","component":"gate","details":{"from":"ACTIVE","to":"HALTED","reason":"test","who":"ops"}}

* `crc`: CRC-32 (ISO-HDLC, the one of zlib and gzip) as 8 lower-case hexadecimal digits, over the bytes after
  its comma up to and including the closing brace.
* `seq`: the sequence, 1, 2, 3 ... over all files and restarts.
* `synced`: the highest sequence covered by a completed fdatasync when the line was written; always < `seq`.
* `ts`: UTC, nanoseconds since 1970, as the clock named in the segment's first record told it; fits in a signed
  64-bit integer, as the indexes hold it.
* `type`, `user`, `component`: strings; `type` is one of `schemas.RecordType` or of a later version.
* `details`: an object; `schemas` publishes one schema per type. No money as float, no NaN, no infinity; written
  with at most `MAX_NESTING` objects and lists inside one another.

The leaf of a record, and its entry for tools that follow C2SP, is the whole line without its newline; its
leaf hash is SHA-256(0x00 || line) and its leaf index is seq - 1. A leaf hash is computed, never stored in the
line. A line is at most `MAX_RECORD_BYTES` long.

Files are named `audit_YYYYMMDD_HHMMSS_<first sequence, 12 digits>.log` (sealed: `.log.gz`, the same bytes
compressed) and ordered by first sequence, never by time. Their first line is a SEGMENT record. After the last
line a file that is being written holds filler: newlines, nothing else.

A line is valid if and only if it begins with `{"crc":"`, 8 lower-case hexadecimal digits and `","seq":`, ends
with `}`, its CRC is the one of its bytes, it is at most 65,000 bytes long, it is one JSON object whose eight
keys have the types above, and `seq` is at least 1 and above `synced`. Keys that a reader does not know are
kept: in `details` by `Record`, anywhere else by whoever copies the line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from math import isfinite
from typing import Annotated, Any, NamedTuple, cast
from zlib import crc32

import msgspec

from holdfast.core.clock import NANOS, utc
from holdfast.core.errors import BadInput

FORMAT_VERSION = 1
MAX_RECORD_BYTES = 65_000
MAX_NESTING = 64
"""Objects and lists inside one another in a record's details, at most, so that every reader's stack holds them."""
FILLER = b"\n"

CRC_END = 18
"""Where the bytes covered by the CRC begin: behind `{"crc":"01234567",`."""
LINE_OVERHEAD = CRC_END + len('"seq":,"synced":,"ts":') + 3 * 20 + len("}\n")
"""What a line takes, at most, besides its middle and its details, its newline included."""


_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One record as read back.

    Attributes:
        seq: Its sequence, from 1.
        synced: The highest durable sequence when it was written.
        ts: UTC nanoseconds since 1970.
        type: The record type's name, known to this version or not.
        user: Who caused it, or "".
        component: Which part wrote it, or "".
        details: As written, unknown keys included.
    """

    seq: int
    synced: int
    ts: _Int64
    type: str
    user: str
    component: str
    details: dict[str, Any]


class LineFacts(msgspec.Struct, frozen=True, gc=False):
    """What recovery and verification need of a line; cheaper to decode than a `Record`."""

    seq: int
    synced: int
    ts: _Int64
    type: str
    user: str
    component: str
    details: msgspec.Raw


class SegmentName(NamedTuple):
    """A segment's file name, taken apart.

    Attributes:
        name: The whole file name.
        first_seq: The sequence of its first line.
        created_ns: The time in the name, UTC nanoseconds; informative only.
        sealed: Whether it is compressed (`.log.gz`).
    """

    name: str
    first_seq: int
    created_ns: int
    sealed: bool


_CLOSING_BRACE = ord("}")
_encode = msgspec.json.Encoder().encode
_decode_record = msgspec.json.Decoder(Record).decode
_decode_facts = msgspec.json.Decoder(LineFacts).decode
_decode_all_facts = msgspec.json.Decoder(LineFacts).decode_lines
_SEGMENT_NAME = re.compile(r"audit_(\d{8}_\d{6})_(\d{12})\.log(\.gz)?", re.ASCII)
_LINE_START = re.compile(rb'\{"crc":"([0-9a-f]{8})","seq":[1-9]').match


def _refuse_unwritable(value: object, path: str, depth: int = MAX_NESTING) -> None:
    """Raise where *value* holds what JSON, or this log, cannot say."""
    if isinstance(value, float):
        if not isfinite(value):
            raise BadInput(f"{path} is {value!r}, which no record may hold")
    elif isinstance(value, Mapping | list | tuple):
        if not depth:
            raise BadInput(f"details are nested deeper than {MAX_NESTING} levels")
        for place, inner in _inside(cast("Mapping[object, object] | Sequence[object]", value), path):
            _refuse_unwritable(inner, place, depth - 1)
    elif isinstance(value, set | frozenset):
        raise BadInput(f"{path} is a set, whose order no replay repeats; write a sorted list")
    elif type(value) not in _SCALARS:
        # A struct, a dataclass, an enum member: the encoder writes what it holds, NaN as null and all.
        # Something encoded before is refused here: nobody looked at its bytes.
        plain: object = msgspec.to_builtins(value)
        if type(plain) in {float, dict, list}:
            _refuse_unwritable(plain, path, depth)


def _inside(value: Mapping[object, object] | Sequence[object], path: str) -> Iterator[tuple[str, object]]:
    """What *value* holds, each with the place it stands in."""
    if not isinstance(value, Mapping):
        for index, inner in enumerate(value):
            yield f"{path}[{index}]", inner
        return
    for key, inner in value.items():
        if not isinstance(key, str):
            raise BadInput(f"{path} has the key {key!r} of type {type(key).__name__}, expected text")
        yield f"{path}.{key}", inner


_SCALARS = frozenset({str, int, bool, type(None)})
_all_text = frozenset({str}).issuperset


def is_plain(value: object, depth: int = MAX_NESTING) -> bool:
    """Whether *value* is made of nothing but what every record is made of, by exact types.

    False says only that `_refuse_unwritable` has to look: it knows every type, and where in the value it is.
    """
    kind = type(value)
    if kind is dict:
        fields = cast("dict[object, object]", value)
        if not _all_text(map(type, fields)):
            return False
        inner: Collection[object] = fields.values()
    elif kind is list:
        inner = cast("list[object]", value)
    elif kind is float:
        return isfinite(cast("float", value))
    else:
        return kind in _SCALARS
    for item in inner:  # a generator for each of many short lists would cost more than the look itself
        if type(item) not in _SCALARS and not (depth > 1 and is_plain(item, depth - 1)):
            return False
    return True


def encode_details(details: Mapping[str, Any]) -> bytes:
    """*details* as the JSON object that a line carries, keys in the order given.

    Raises:
        BadInput: A key is not text, a number is NaN or infinite, or a value has no JSON form.
    """
    try:
        if not is_plain(details):
            _refuse_unwritable(details, "details")
        return _encode(details)
    except BadInput:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as why:
        raise BadInput(f"details cannot be written as JSON: {why}") from why


def line_middle(type_: str, user: str, component: str) -> bytes:
    """The part of a line between its numbers and its details; the writer keeps it for the next line like it.

    Raises:
        BadInput: One of them is not text, or not valid Unicode; no reader would take such a line.
    """
    for name, value in (("type", type_), ("user", user), ("component", component)):
        if not isinstance(cast("object", value), str):
            raise BadInput(f"{name} {value!r} is not text")
    try:
        return b',"type":%b,"user":%b,"component":%b,"details":' % (
            _encode(type_),
            _encode(user),
            _encode(component),
        )
    except (TypeError, ValueError) as why:
        raise BadInput(f"type, user or component cannot be written as JSON: {why}") from why


def line_bound(middle: bytes, details_json: bytes) -> int:
    """The most bytes that a line of these parts takes, its newline included, whatever its numbers."""
    return len(middle) + len(details_json) + LINE_OVERHEAD


def type_of_middle(middle: bytes) -> str:
    """The record type in what `line_middle` made."""
    type_: str = msgspec.json.decode(middle[8 : middle.index(b',"user":')])
    return type_


def assemble_line(seq: int, synced: int, ts: int, middle: bytes, details_json: bytes) -> bytes:
    """The line of these parts, without newline."""
    body = b'"seq":%d,"synced":%d,"ts":%d%b%b}' % (seq, synced, ts, middle, details_json)
    return b'{"crc":"%08x",%b' % (crc32(body), body)


def encode_line(  # noqa: PLR0917  the parts in the order of the line
    seq: int, synced: int, ts: int, type_: str, user: str, component: str, details_json: bytes
) -> bytes:
    """One line, without its newline; *details_json* comes from `encode_details`.

    Raises:
        BadInput: The line would be longer than `MAX_RECORD_BYTES`, or a string is not valid Unicode.
    """
    line = assemble_line(seq, synced, ts, line_middle(type_, user, component), details_json)
    if len(line) > MAX_RECORD_BYTES:
        raise BadInput(f"record refused: {len(line)} bytes > {MAX_RECORD_BYTES} bytes (type={type_})")
    return line


def _check_bytes(line: bytes) -> None:
    start = _LINE_START(line)
    if start is None or line[-1:] != b"}":
        raise BadInput("not a record line")
    if int(start[1], 16) != crc32(line[CRC_END:]):
        raise BadInput("crc does not match")
    if len(line) > MAX_RECORD_BYTES:
        raise BadInput(f"line too long: {len(line)} bytes > {MAX_RECORD_BYTES} bytes")


def decode_line(line: bytes) -> Record:
    """The record of a valid *line* (without newline).

    Raises:
        BadInput: The line is not valid; the message says in what way.
    """
    _check_bytes(line)
    try:
        record = _decode_record(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise BadInput(f"not a record: {why}") from why
    if not 0 <= record.synced < record.seq:
        raise BadInput(f"synced {record.synced} is not below seq {record.seq}")
    return record


def decode_facts(line: bytes) -> LineFacts:
    """The numbers and names of a valid *line*, its details checked but not taken apart.

    Raises:
        BadInput: The line is not valid; the message says in what way.
    """
    _check_bytes(line)
    return _facts(line)


def facts_in_place(line: bytes, sequence: int) -> LineFacts | None:
    """As `decode_facts`, where *line* is the valid one with *sequence*; None where it is anything else.

    For whoever reads a whole log: it costs half of what `decode_facts` does, and gives no reason.
    """
    if not line.startswith(b'{"crc":"%08x","seq":%d,' % (crc32(line[CRC_END:]), sequence)):
        return None
    if line[-1] != _CLOSING_BRACE or len(line) > MAX_RECORD_BYTES:
        return None
    try:
        facts = _facts(line)
    except BadInput:
        return None
    return facts if facts.seq == sequence else None


def all_facts_in_place(lines: Sequence[bytes], first: int) -> list[LineFacts] | None:
    """As `facts_in_place` for consecutive *lines* from sequence *first* on; None where one is anything else.

    One decoding for all of them costs a third.
    """
    for sequence, line in enumerate(lines, first):
        if not line.startswith(b'{"crc":"%08x","seq":%d,' % (crc32(line[CRC_END:]), sequence)):
            return None
        if line[-1] != _CLOSING_BRACE or len(line) > MAX_RECORD_BYTES:
            return None
    text = b"\n".join(lines)
    try:
        facts = _decode_all_facts(text)
        if not text.isascii():
            text.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # No JSON value holds `}`, newline, `{`: each of them stands in one line, and each line holds one at least.
    if len(facts) != len(lines):
        return None
    for sequence, one in enumerate(facts, first):
        if one.seq != sequence or not 0 <= one.synced < sequence or bytes(one.details)[:1] != b"{":
            return None
    return facts


def record_in_place(line: bytes, sequence: int) -> Record | None:
    """As `decode_line`, where *line* is the valid one with *sequence*; None where it is anything else."""
    if not line.startswith(b'{"crc":"%08x","seq":%d,' % (crc32(line[CRC_END:]), sequence)):
        return None
    if line[-1] != _CLOSING_BRACE or len(line) > MAX_RECORD_BYTES:
        return None
    try:
        record = _decode_record(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if record.seq == sequence and 0 <= record.synced < sequence else None


def _facts(line: bytes) -> LineFacts:
    try:
        facts = _decode_facts(line)
        if not line.isascii():
            line.decode()  # the decoder passes over the strings of raw details
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise BadInput(f"not a record: {why}") from why
    if bytes(facts.details)[:1] != b"{":
        raise BadInput("not a record: details is not an object")
    if not 0 <= facts.synced < facts.seq:
        raise BadInput(f"synced {facts.synced} is not below seq {facts.seq}")
    return facts


def leaf_hash(line: bytes) -> bytes:
    """SHA-256(0x00 || *line*): the record's leaf in the RFC 9162 tree."""
    return sha256(b"\0" + line).digest()


def segment_name(ts_ns: int, first_seq: int) -> str:
    """The name of the segment created at *ts_ns* whose first line has sequence *first_seq*."""
    return f"audit_{utc(ts_ns):%Y%m%d_%H%M%S}_{first_seq:012d}.log"


@lru_cache(maxsize=4096)  # every look into the directory asks again
def parse_segment_name(name: str) -> SegmentName | None:
    """*name* taken apart, or None where it is not a segment's name."""
    match = _SEGMENT_NAME.fullmatch(name)
    if match is None or int(match[2]) < 1:
        return None
    try:
        created = datetime.strptime(match[1], "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return SegmentName(name, int(match[2]), int(created.timestamp()) * NANOS, match[3] is not None)
