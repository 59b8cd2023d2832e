"""One sealed segment read from its first byte to its last, before it is entrusted to an archive or to a directory.

Promise: `examine` decompresses with bounds (a gzip member of at most 128 KiB, no more raw bytes than the caller
allows), checks each line's form, CRC and place in the sequence, and the root that the segment's first record
claims over all records before it. What it returns was computed from these bytes alone.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

import msgspec

from holdfast.audit.format import (
    LineFacts,
    decode_facts,
    facts_in_place,
    leaf_hash,
    parse_segment_name,
)
from holdfast.audit.schemas import (
    KeyDetails,
    RecordType,
    RecoveryDetails,
    SealedDetails,
    SegmentDetails,
)
from holdfast.audit.seal import read_blocks, read_members
from holdfast.audit.storage import Directory
from holdfast.audit.tree import Frontier
from holdfast.core.errors import AuditCorruption, BadInput


class Examined(NamedTuple):
    """What one segment's bytes say.

    Attributes:
        segment: The raw file's name.
        first_seq: Its first sequence.
        last_seq: Its last sequence.
        last_ts_ns: The latest time of a record in it.
        log_id: The log's.
        origin: As its first record says.
        raw_sha256: Of the raw bytes.
        raw_bytes: How many.
        gzip_sha256: Of the compressed file.
        gzip_bytes: Its length.
        key: What its KEY record says, or None.
        quarantine: The names its RECOVERY records give, in order.
        sealed: What its SEALED records say, of earlier segments.
    """

    segment: str
    first_seq: int
    last_seq: int
    last_ts_ns: int
    log_id: str
    origin: str
    raw_sha256: str
    raw_bytes: int
    gzip_sha256: str
    gzip_bytes: int
    key: KeyDetails | None
    quarantine: list[str]
    sealed: dict[str, SealedDetails]


def examine(directory: Directory, name: str, before: Frontier, *, max_raw_bytes: int) -> Examined:
    """What the compressed segment *name* in *directory* holds; *before* takes in its records.

    Args:
        directory: Where it lies.
        name: Its file's name, `.log.gz`.
        before: The tree over every record before it.
        max_raw_bytes: More raw bytes are damage, and are not read.

    Raises:
        AuditCorruption: It is not an orderly segment; the message names the sequence and the offset.
    """
    parsed = parse_segment_name(name)
    if parsed is None or not parsed.sealed:
        raise BadInput(f"not a sealed segment: {name!r}")
    reader = _Reader(name, parsed.first_seq, before)
    file = directory.open(name)
    try:
        raw, size = sha256(), 0
        for offset, piece in read_members(file):
            size += len(piece)
            if size > max_raw_bytes:
                raise reader.damaged(offset, f"holds more than {max_raw_bytes} bytes")
            raw.update(piece)
            reader.take(piece, offset)
        packed, packed_bytes = sha256(), 0
        for block in read_blocks(file):
            packed.update(block)
            packed_bytes += len(block)
    finally:
        file.close()
    start = reader.start
    if start is None:
        raise reader.damaged(0, "holds no record")
    return Examined(
        segment=name.removesuffix(".gz"),
        first_seq=parsed.first_seq,
        last_seq=reader.expected - 1,
        last_ts_ns=reader.last_ts_ns,
        log_id=start.log_id,
        origin=start.origin,
        raw_sha256=raw.hexdigest(),
        raw_bytes=size,
        gzip_sha256=packed.hexdigest(),
        gzip_bytes=packed_bytes,
        key=reader.key,
        quarantine=reader.quarantine,
        sealed=reader.sealed,
    )


class _Reader:
    """The lines of one segment, in order."""

    def __init__(self, name: str, first_seq: int, frontier: Frontier) -> None:
        self.name = name
        self.first_seq = first_seq
        self.expected = first_seq
        self.frontier = frontier
        self.start: SegmentDetails | None = None
        self.key: KeyDetails | None = None
        self.quarantine: list[str] = []
        self.sealed: dict[str, SealedDetails] = {}
        self.last_ts_ns = 0

    def damaged(self, offset: int, why: str) -> AuditCorruption:
        return AuditCorruption(
            f"audit log damaged: sequence {self.expected} in {self.name!r} at byte {offset}: {why}",
            sequence=self.expected,
            file=self.name,
            offset=offset,
        )

    def take(self, piece: bytes, offset: int) -> None:
        if not piece.endswith(b"\n"):
            raise self.damaged(offset, "the last line has no end")
        lines = piece[:-1].split(b"\n")
        for line in lines:
            facts = facts_in_place(line, self.expected)
            if facts is None:
                raise self.damaged(offset, _why_not(line, self.expected))
            self.last_ts_ns = max(self.last_ts_ns, facts.ts)
            if self.start is None or facts.type in _OWN:
                self._take_own(facts, offset)
            self.expected += 1
        self.frontier.extend([leaf_hash(line) for line in lines])

    def _take_own(self, facts: LineFacts, offset: int) -> None:
        try:
            if facts.seq == self.first_seq:
                self.start = msgspec.json.decode(facts.details, type=SegmentDetails)
                if facts.type != RecordType.SEGMENT or self.start.first_seq != self.first_seq:
                    raise self.damaged(offset, "the first line is not this segment's SEGMENT record")
                if self.start.root != self.frontier.root().hex():
                    raise self.damaged(offset, "SEGMENT names another root than the records before it have")
            elif facts.type == RecordType.KEY and facts.seq == self.first_seq + 1:
                self.key = msgspec.json.decode(facts.details, type=KeyDetails)
            elif facts.type == RecordType.RECOVERY:
                self.quarantine += msgspec.json.decode(facts.details, type=RecoveryDetails).quarantine
            elif facts.type == RecordType.SEALED:
                claim = msgspec.json.decode(facts.details, type=SealedDetails)
                self.sealed[claim.segment] = claim
        except msgspec.ValidationError as why:
            raise self.damaged(offset, f"{facts.type} does not fit its schema: {why}") from why


_OWN = frozenset({RecordType.SEGMENT, RecordType.KEY, RecordType.RECOVERY, RecordType.SEALED})


def _why_not(line: bytes, expected: int) -> str:
    try:
        return f"sequence {decode_facts(line).seq} stands where {expected} belongs"
    except BadInput as why:
        return str(why)
