"""Where a start may begin to read: behind the newest checkpoint, instead of at the log's first record.

Promise: a bookmark is used only where it changes no verdict that a crash can bring about. The high-water mark keeps
the tree at its checkpoint and where its last line ends; that checkpoint must stand in the log's own history, that
line must be there with its sequence, every older mark must be one of the history's checkpoints, every quarantined
tail must be named by the RECOVERY record behind its place, and the first segment must be there. What the newest
checkpoint says is met again by what is read from there on. Anything else, and the log is read from its first record.

Limits: records before the bookmark are not looked at by a start. Damage in them is what `verify` finds.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from holdfast.audit.anchor import Mark
from holdfast.audit.format import FILLER, MAX_RECORD_BYTES, SegmentName, decode_line, facts_in_place
from holdfast.audit.highwater import WaterMark
from holdfast.audit.history import history_name
from holdfast.audit.pruned import read_pruned
from holdfast.audit.recovery import QUARANTINE, Bookmark, read_all
from holdfast.audit.schemas import RecordType
from holdfast.audit.seal import read_members
from holdfast.audit.storage import Directory, File
from holdfast.core.errors import BadInput

_COPY = re.compile(r"(audit_\d{8}_\d{6}_\d{12}\.log)-(\d{1,18})-[0-9a-f]{16}", re.ASCII)
_LINES_BEHIND = 8  # SEGMENT, KEY and a few that were written beside the RECOVERY record


def find_bookmark(
    home: Directory,
    log_id: str,
    segments: Sequence[SegmentName],
    water: WaterMark | None,
    marks: Iterable[Mark],
) -> Bookmark | None:
    """Where to begin, or None for the log's first record; changes nothing."""
    if water is None or water.frontier is None:
        return None
    size = water.checkpoint.size
    segment = _holding(segments, size)
    if (
        segment is None
        or segments[0].first_seq != read_pruned(home).next_seq
        or segment.sealed
        or not _has(home, segment, water.note)
    ):
        return None
    line = _line_before(home, segment, water.end_offset)
    facts = facts_in_place(line, size)
    first = facts_in_place(_line_at(home, segment), segment.first_seq)
    if facts is None or first is None or first.type != RecordType.SEGMENT:
        return None
    if not all(mark.size >= size or _is_ours(home, segments, water, mark) for mark in marks):
        return None
    named = _named_copies(home, segments, segment, water.end_offset)
    if named is None:
        return None
    return Bookmark(log_id, segment, size, water.end_offset, water.frontier, first.ts, facts.ts, named)


def _holding(segments: Sequence[SegmentName], sequence: int) -> SegmentName | None:
    """The segment that must hold *sequence*."""
    return next((name for name in reversed(segments) if name.first_seq <= sequence), None)


def _has(home: Directory, segment: SegmentName, text: bytes) -> bool:
    """Whether the history of *segment* holds *text*."""
    try:
        file = home.open(history_name(segment.name))
    except FileNotFoundError:
        return False
    try:
        return text in read_all(file)
    finally:
        file.close()


def _line_before(home: Directory, segment: SegmentName, end: int) -> bytes:
    """The line whose newline is the byte before offset *end*, or b""."""
    file = home.open(segment.name)
    try:
        start = max(0, end - MAX_RECORD_BYTES - 2)
        content = file.pread(end - start, start)
    finally:
        file.close()
    whole = len(content) == end - start and content[-1:] == FILLER
    return content[:-1].rpartition(FILLER)[2] if whole else b""


def _line_at(home: Directory, segment: SegmentName) -> bytes:
    """The first line of a raw segment, or b""."""
    file = home.open(segment.name)
    try:
        return file.pread(MAX_RECORD_BYTES + 1, 0).partition(FILLER)[0]
    finally:
        file.close()


def _is_ours(home: Directory, segments: Sequence[SegmentName], water: WaterMark, mark: Mark) -> bool:
    """Whether an older mark is one of the log's own checkpoints."""
    segment = _holding(segments, mark.size)
    text = b"%b\n%d\n%b\n\n" % (water.checkpoint.origin.encode(), mark.size, b64encode(mark.root))
    return segment is not None and _has(home, segment, text)


# ------------------------------------------------------------------ quarantined tails


def _named_copies(
    home: Directory, segments: Sequence[SegmentName], segment: SegmentName, offset: int
) -> frozenset[str] | None:
    """The copies of tails from before *offset* of *segment*, if a RECOVERY record names each; None where one does not."""
    if QUARANTINE not in home.names():
        return frozenset()
    folder = home.subdirectory(QUARANTINE)
    try:
        copies = folder.names()
    finally:
        folder.close()
    named: set[str] = set()
    for copy in copies:
        match = _COPY.fullmatch(copy)
        if match is None:
            return None
        if match[1] == segment.name and int(match[2]) >= offset:
            continue  # its RECOVERY record, if there is one, is among what will be read
        if not _is_named(home, segments, copy, match[1], int(match[2])):
            return None
        named.add(copy)
    return frozenset(named)


def _is_named(home: Directory, segments: Sequence[SegmentName], copy: str, raw: str, offset: int) -> bool:
    """Whether one of the first records behind the tail's place is the RECOVERY record that names its copy."""
    place = next((index for index, name in enumerate(segments) if name.name.removesuffix(".gz") == raw), None)
    if place is None:
        return False
    lines = [*islice(_lines(home, segments[place], offset), _LINES_BEHIND)]
    if len(lines) < _LINES_BEHIND and place + 1 < len(segments):
        lines += islice(_lines(home, segments[place + 1], 0), _LINES_BEHIND)
    for line in lines:
        try:
            record = decode_line(line)
        except BadInput:
            return False
        named = record.details.get("quarantine")
        if record.type == RecordType.RECOVERY and isinstance(named, list) and copy in named:
            return True
    return False


def _lines(home: Directory, segment: SegmentName, offset: int) -> Iterator[bytes]:
    """The lines of a segment from raw offset *offset* on."""
    file = home.open(segment.name)
    try:
        rest = b""
        for piece in _pieces(file, offset, sealed=segment.sealed):
            *whole, rest = (rest + piece).split(FILLER)
            for line in whole:
                if not line:
                    return  # filler
                yield line
    finally:
        file.close()


def _pieces(file: File, offset: int, *, sealed: bool) -> Iterator[bytes]:
    if not sealed:
        while block := file.pread(1 << 17, offset):
            yield block
            offset += len(block)
        return
    skip = offset
    for _, raw in read_members(file):
        if skip < len(raw):
            yield raw[skip:]
        skip = max(0, skip - len(raw))
