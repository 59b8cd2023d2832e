"""What a start does with the log that it finds: a decision table, and the repair of a torn tail.

Let s be the lowest sequence that is not present as a valid line in its place. Let m be the highest sequence
known to have been durable: the highest of `synced` in any valid line of any segment, of the head, of the size of
the newest valid checkpoint, of the high-water mark kept outside the log, and of the marks of anchors.

| m against s   | from s on                  | head said closed | verdict   |
| ------------- | -------------------------- | ---------------- | --------- |
| m >= s        | anything                   | either           | CORRUPT   |
| m = s - 1     | only filler                | either           | INTACT    |
| m = s - 1     | anything else              | yes              | CORRUPT   |
| m = s - 1     | anything else              | no               | TORN      |
| m < s - 1     | anything                   | yes              | CORRUPT   |
| m < s - 1     | anything                   | no               | TORN      |

* CORRUPT: something that was durable is gone or changed. Nothing is touched; `AuditCorruption` names s, the
  file and the offset. A forged line can make us refuse, never delete.
* INTACT: nothing is repaired and nothing is written.
* TORN: what a crash leaves. The tail is copied to `quarantine/<segment>-<offset>-<sha256, 16 hex>` and synced;
  it is overwritten with filler to the end of the allocation and synced; every kept byte after m is written
  again in its place and synced, because what reads back from the page cache may not be on the disk; then a
  RECOVERY record names the copy. An empty tail is not copied. Every step may be repeated: a copy that no
  RECOVERY names gets one at the next start, an unnamed copy that is not whole is made anew or removed.

Before a clean close ends, everything is synced and the files are cut, and before a start changes anything the
head durably stops saying "closed"; so after a clean close every bad or missing line, and every line beyond the
head, is corruption.

A log whose records do not have the root that a checkpoint, the high-water mark or an anchor names for its size is
CORRUPT, whatever m is; nothing is signed before the newest checkpoint's root was met again. A log that went back to
an older copy of itself has m >= s by its high-water mark: it is refused like any other that lost records.

Some damage needs no m: a segment whose first record does not fit the records before it (its root, its log id,
its kind), and a sealed segment that cannot be read back, are corruption wherever they stand.

Assumed of the disk: a sector of 512 bytes that is being rewritten holds its old or its new content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from hashlib import sha256
from operator import itemgetter
from typing import NamedTuple, cast

import msgspec

from holdfast.audit.anchor import Mark
from holdfast.audit.format import (
    FILLER,
    MAX_RECORD_BYTES,
    LineFacts,
    SegmentName,
    decode_facts,
    decode_line,
    facts_in_place,
    parse_segment_name,
)
from holdfast.audit.head import HeadMark, HeadState
from holdfast.audit.pruned import read_pruned
from holdfast.audit.schemas import RecordType, SegmentDetails
from holdfast.audit.seal import read_members
from holdfast.audit.storage import Directory, File
from holdfast.audit.tree import Frontier
from holdfast.core.errors import AuditCorruption, BadInput

QUARANTINE = "quarantine"
MAX_TAIL_BYTES = 1 << 30
"""No tail is longer: what is not synced is in one segment, and that is rotated long before."""
_CHUNK = 1 << 20
_HOLE = b"\0"
_JOURNAL_OWN = frozenset({RecordType.SEGMENT, RecordType.KEY, RecordType.RECOVERY})


class Verdict(Enum):
    """What a found log is."""

    INTACT = "intact"
    TORN = "torn"
    CORRUPT = "corrupt"


def decide(first_missing: int, known_durable: int, *, only_filler: bool, closed: bool) -> Verdict:
    """The table above.

    Args:
        first_missing: s.
        known_durable: m.
        only_filler: Whether nothing but newlines stands behind the last valid line, in any segment.
        closed: Whether the head says that the last writer closed the log.
    """
    if known_durable >= first_missing:
        return Verdict.CORRUPT
    if known_durable == first_missing - 1 and only_filler:
        return Verdict.INTACT
    return Verdict.CORRUPT if closed else Verdict.TORN


class Tail(NamedTuple):
    """What stands in one segment behind its last valid line.

    Attributes:
        segment: File name.
        offset: Where it begins.
        content: Its bytes without the filler and holes at its end; empty where there are only those.
        only_filler: Whether it is newlines and nothing else.
    """

    segment: str
    offset: int
    content: bytes
    only_filler: bool


class SegmentFacts(NamedTuple):
    """One segment of the valid part of the log.

    Attributes:
        name: Its file name, taken apart.
        first_ts: `ts` of its SEGMENT record.
        last_seq: The sequence of its last valid line.
        end: Bytes of it that hold valid lines.
    """

    name: SegmentName
    first_ts: int
    last_seq: int
    end: int


class Scan:
    """Everything a start needs to know about the segments of a log; made by `scan`.

    Attributes:
        first_missing: s, from 1.
        synced: The highest `synced` of any valid line, in its place or not; 0 without lines.
        bookmark: Where reading began; None for the log's first record.
        last_ts: `ts` of the last valid line in its place; 0 without lines.
        place: File name and offset where s should stand.
        only_filler: Whether nothing but filler stands from there on.
        reason: Why the line there is not valid, or "".
        segments: Those with at least one valid line in its place, in order.
        tails: What stands behind the valid part, in order; empty segments included.
        frontier: The tree over all valid lines.
        log_id: 32 hexadecimal digits, or "" for a log without records.
        named_quarantine: Quarantine files that RECOVERY records name.
        awaited: Marks beyond the valid part, largest first.
    """

    def __init__(self) -> None:
        self.first_missing = 1
        self.synced = 0
        self.bookmark: Bookmark | None = None
        self.last_ts = 0
        self.place: tuple[str, int] = ("", 0)
        self.only_filler = True
        self.reason = ""
        self.segments: list[SegmentFacts] = []
        self.tails: list[Tail] = []
        self.frontier = Frontier()
        self.log_id = ""
        self.named_quarantine: set[str] = set()
        self.awaited: list[Mark] = []


def log_segments(directory: Directory) -> list[SegmentName]:
    """The segments of the log in order of first sequence, each once: the raw one where both forms exist."""
    chosen: dict[tuple[int, str], SegmentName] = {}
    for entry in directory.names():
        name = parse_segment_name(entry)
        if name is None:
            continue
        key = (name.first_seq, entry.removesuffix(".gz"))
        if key not in chosen or not name.sealed:
            chosen[key] = name
    return [chosen[key] for key in sorted(chosen)]


def read_all(file: File) -> bytes:
    """The content of *file*.

    Raises:
        AuditCorruption: It is longer than any file of a log that is read whole.
    """
    size, parts, offset = file.size(), list[bytes](), 0
    if size > MAX_TAIL_BYTES:
        raise AuditCorruption(
            f"audit log damaged: {file.name!r} is {size} bytes long, longer than any writer makes it",
            file=file.name,
            offset=MAX_TAIL_BYTES,
            hint="nothing was changed; compare it with a copy",
        )
    while offset < size:
        part = file.pread(min(size - offset, 8 * _CHUNK), offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


class Bookmark(NamedTuple):
    """A place behind which a scan may begin; `bookmark.py` says when.

    Attributes:
        log_id: Of the log.
        segment: The raw file it is in.
        size: The sequence of the last line before it.
        offset: Where that line ends.
        frontier: The tree over everything before it.
        first_ts: `ts` of the segment's first record.
        last_ts: `ts` of the last line before it.
        quarantine: Copies of tails that RECOVERY records before it name.
    """

    log_id: str
    segment: SegmentName
    size: int
    offset: int
    frontier: Frontier
    first_ts: int
    last_ts: int
    quarantine: frozenset[str]


def scan(directory: Directory, marks: Iterable[Mark] = (), bookmark: Bookmark | None = None) -> Scan:
    """Read every segment of the log in *directory*, or all behind *bookmark*, and say what is there.

    Nothing is changed.

    Of the valid part no more than a piece is in memory at a time, of a compressed file no more than a member.

    Args:
        directory: The log.
        marks: Roots that the tree must have at their sizes.
        bookmark: Where to begin; None begins at the first record that was not pruned.

    Raises:
        AuditCorruption: Damage that needs no judgement, see the head of this file.
    """
    found = Scan()
    segments = log_segments(directory)
    skipped = _begin(found, directory, segments, bookmark)
    found.awaited = sorted((mark for mark in marks if mark.size >= found.frontier.size), key=_smallest_last)
    _extend(found, [], "")
    broken = False
    for name in segments[skipped:]:
        start = bookmark.offset if bookmark is not None and name == bookmark.segment else 0
        file = directory.open(name.name)
        try:
            first_ts = bookmark.first_ts if bookmark is not None and start else None
            end = 0 if broken else _scan_segment(found, name, file, start, first_ts)
            if name.sealed:
                continue
            kept, only_filler = _read_tail(found, name, file, end)
        finally:
            file.close()
        if not broken:
            found.place = (name.name, end)
        if kept:
            found.reason = found.reason or _why_not(kept, found.first_missing)
            _note_stray_lines(found, kept)
        broken = broken or bool(kept) or not only_filler
        found.only_filler = found.only_filler and only_filler
        if broken or end == 0:
            found.tails.append(Tail(name.name, end, kept, only_filler))
    return found


def _read_tail(found: Scan, name: SegmentName, file: File, start: int) -> tuple[bytes, bool]:
    """What stands in *file* from *start* on, without the filler and holes at its end; whether filler alone does.

    Filler and holes are passed over and not kept, since a file can claim to have any number of them.

    Raises:
        AuditCorruption: It is longer than what any crash leaves.
    """
    size = file.size()
    if size - start > MAX_TAIL_BYTES:
        raise _damage(name, found.first_missing, start, f"{size - start} bytes follow that are no records")
    end, has_holes = start, False
    for offset in range(start, size, _CHUNK):
        block = file.pread(min(_CHUNK, size - offset), offset)
        content = block.rstrip(FILLER + _HOLE)
        if content:
            end = offset + len(content)
        has_holes = has_holes or _HOLE in block
    return file.pread(end - start, start) if end > start else b"", end == start and not has_holes


def _begin(found: Scan, directory: Directory, segments: list[SegmentName], bookmark: Bookmark | None) -> int:
    """Set *found* to where the scan begins; how many of *segments* are passed over."""
    pruned = read_pruned(directory)
    found.named_quarantine |= pruned.quarantine
    if bookmark is None:
        found.first_missing = pruned.next_seq
        found.frontier = pruned.frontier.copy()
        return 0
    found.first_missing = bookmark.size + 1
    found.bookmark = bookmark
    found.synced = bookmark.size
    found.log_id = bookmark.log_id
    found.frontier = bookmark.frontier.copy()
    found.last_ts = bookmark.last_ts
    found.named_quarantine |= bookmark.quarantine
    passed = [name for name in segments if name.first_seq < bookmark.segment.first_seq]
    ends = [name.first_seq - 1 for name in segments[1 : len(passed) + 1]]
    found.segments = [SegmentFacts(name, 0, end, 0) for name, end in zip(passed, ends, strict=True)]
    return len(passed)


def _smallest_last(mark: Mark) -> int:
    return -mark.size


def _scan_segment(found: Scan, name: SegmentName, file: File, start: int, first_ts: int | None) -> int:
    """Take the valid lines at the start of *file* into *found*; return where they end.

    Args:
        found: Gets them.
        name: The segment.
        file: It, open.
        start: Where to begin: 0, or behind a bookmark.
        first_ts: `ts` of its first record, where a bookmark knows it.

    Raises:
        AuditCorruption: A compressed segment that is not valid to its last byte.
    """
    if not start and name.first_seq != found.first_missing:
        found.reason = f"the next segment begins with sequence {name.first_seq}"
        if name.sealed:
            raise _damage(name, found.first_missing, 0, found.reason)
        return 0
    end = start
    for piece in (content for _, content in read_members(file)) if name.sealed else _line_pieces(file, start):
        if not end:
            first_ts = _take_first_line(found, name, piece)
        taken = 0 if first_ts is None else _take_lines(found, name, piece, end)
        end += taken
        if taken < len(piece):
            if name.sealed:
                raise _damage(name, found.first_missing, end, _why_not(piece[taken:], found.first_missing))
            break
    if first_ts is not None:
        found.segments.append(SegmentFacts(name, first_ts, found.first_missing - 1, end))
    return end


def _line_pieces(file: File, offset: int) -> Iterator[bytes]:
    """The lines of a raw file from *offset* on, about a chunk at a time; what follows the last newline is left out."""
    rest = b""
    while len(rest) <= MAX_RECORD_BYTES and (block := file.pread(_CHUNK, offset)):
        offset += len(block)
        cut = block.rfind(FILLER) + 1
        if cut:
            yield rest + block[:cut]
            rest = b""
        rest += block[cut:]


def _take_lines(found: Scan, name: SegmentName, piece: bytes, offset: int) -> int:
    """Take the valid lines in their place at the start of *piece*, which stands at *offset*; return their bytes."""
    first = expected = found.first_missing
    synced, last_ts, size = found.synced, found.last_ts, 0
    leaves: list[bytes] = []
    # No record is empty: filler is not taken apart into its thousands of empty lines.
    for line in piece[: piece.find(FILLER + FILLER) + 1 or None].split(FILLER):
        facts = facts_in_place(line, expected)
        if facts is None:
            break
        if facts.type in _JOURNAL_OWN and (offset or size):
            _note_own_record(found, name, facts, line, offset + size)
        if facts.synced > synced:  # noqa: PLR1730  a call of max() costs here
            synced = facts.synced
        last_ts = facts.ts
        leaves.append(sha256(b"\0" + line).digest())
        size += len(line) + 1
        expected += 1
    found.synced, found.last_ts = synced, last_ts
    found.first_missing = first + len(leaves)
    _extend(found, leaves, name.name)
    return size


def _extend(found: Scan, leaves: list[bytes], file: str) -> None:
    """Put *leaves*, read from *file*, behind the tree, holding it against the marks on the way."""
    start, done = found.frontier.size, 0
    while found.awaited and found.awaited[-1].size <= start + len(leaves):
        mark = found.awaited.pop()
        found.frontier.extend(leaves[done : mark.size - start])
        done = mark.size - start
        if found.frontier.root() != mark.root:
            raise AuditCorruption(
                f"audit log damaged: its first {mark.size} records do not have the root that {mark.source} names",
                sequence=mark.size,
                file=file,
                hint="nothing was changed; these are not the records that were signed: compare it with a copy",
            )
    found.frontier.extend(leaves[done:])


def _take_first_line(found: Scan, name: SegmentName, piece: bytes) -> int | None:
    """The time in the SEGMENT record at the start of a file, once it is known to fit; None where there is none."""
    line = piece[: piece.index(FILLER)] if FILLER in piece else b""
    try:
        facts = decode_facts(line)
    except BadInput:
        return None
    if facts.seq != found.first_missing:
        return None
    _check_first_line(found, name, facts, line)
    return facts.ts


def _why_not(content: bytes, expected: int) -> str:
    """Why the line at the start of *content* is not the valid one with sequence *expected*."""
    line, newline, _ = content.partition(FILLER)
    try:
        facts = decode_facts(line)
    except BadInput as why:
        return str(why)
    if facts.seq != expected:
        return f"found sequence {facts.seq}"
    return "not in its place" if newline else "cut before its newline"


def _note_own_record(found: Scan, name: SegmentName, facts: LineFacts, line: bytes, offset: int) -> None:
    if facts.type == RecordType.SEGMENT:
        raise _damage(name, facts.seq, offset, "a SEGMENT record inside a segment")
    if facts.type == RecordType.KEY:
        if facts.seq != name.first_seq + 1:
            raise _damage(name, facts.seq, offset, "a KEY record that is not the second of its segment")
        return
    try:
        named = decode_line(line).details.get("quarantine")
    except BadInput as why:
        raise _damage(name, facts.seq, offset, str(why)) from why
    if isinstance(named, list):
        found.named_quarantine.update(str(one) for one in cast("list[object]", named))


def _damage(name: SegmentName, sequence: int, offset: int, reason: str) -> AuditCorruption:
    return AuditCorruption(
        f"audit log damaged: sequence {sequence} in {name.name!r} at byte {offset}: {reason}",
        sequence=sequence,
        file=name.name,
        offset=offset,
    )


def _check_first_line(found: Scan, name: SegmentName, facts: LineFacts, line: bytes) -> None:
    """Refuse a segment whose first record does not continue the log before it."""
    if facts.type != RecordType.SEGMENT:
        raise _damage(name, facts.seq, 0, f"the first record is {facts.type}, expected SEGMENT")
    try:
        details = msgspec.convert(decode_line(line).details, SegmentDetails)
    except (BadInput, msgspec.ValidationError) as why:
        raise _damage(name, facts.seq, 0, f"SEGMENT record without its keys: {why}") from why
    if found.log_id not in {"", details.log_id}:
        raise _damage(name, facts.seq, 0, f"log id {details.log_id} is not {found.log_id}")
    if details.root != found.frontier.root().hex():
        raise _damage(name, facts.seq, 0, "its root is not the root of the records before it")
    found.log_id = details.log_id


def _note_stray_lines(found: Scan, content: bytes) -> None:
    """Learn `synced` from valid lines behind the first bad place: they prove that it was durable."""
    for line in content.split(FILLER):
        if line:
            try:
                found.synced = max(found.synced, decode_facts(line.lstrip(_HOLE)).synced)
            except BadInput:
                continue


class Repair(NamedTuple):
    """What `repair` did, for the RECOVERY record.

    Attributes:
        tail_bytes: Bytes of torn tail, filler not counted.
        quarantine: Names of the copies made.
    """

    tail_bytes: int
    quarantine: list[str]


def repair(directory: Directory, found: Scan, known_durable: int) -> Repair:
    """Make a torn log whole: copy the tail away, clear it, rewrite what is kept and not known durable.

    Every write is synced before the next step begins; running it again from any point gives the same log.
    """
    copies = [_copy_to_quarantine(directory, tail) for tail in found.tails if tail.content]
    for tail in found.tails:
        _clear(directory, tail)
    _rewrite_kept(directory, found, known_durable)
    last = found.place[0]
    for tail in found.tails:
        name = parse_segment_name(tail.segment)
        # A segment behind the torn one is filler now; it stays only where the next record may begin it.
        if tail.offset == 0 and name is not None and name.first_seq != found.first_missing:
            directory.unlink(tail.segment)
    if last:
        directory.sync()
    return Repair(sum(len(tail.content) for tail in found.tails), copies)


def _write_fully(file: File, content: bytes, offset: int) -> None:
    for start in range(0, len(content), _CHUNK):
        part = content[start : start + _CHUNK]
        if file.pwrite(part, offset + start) != len(part):
            raise OSError(f"short write to {file.name!r}")


def quarantine_name(tail: Tail) -> str:
    """The name of the copy of *tail*: where it stood and what it holds."""
    return f"{tail.segment}-{tail.offset}-{sha256(tail.content).hexdigest()[:16]}"


def _copy_to_quarantine(directory: Directory, tail: Tail) -> str:
    name = quarantine_name(tail)
    target = directory.subdirectory(QUARANTINE)
    try:
        try:
            file = target.create(name)
        except FileExistsError:
            file = target.open(name, writable=True)
        try:
            file.truncate(0)
            _write_fully(file, tail.content, 0)
            file.fsync()
        finally:
            file.close()
        target.sync()
    finally:
        target.close()
    return name


def _clear(directory: Directory, tail: Tail) -> None:
    if tail.only_filler:
        return
    file = directory.open(tail.segment, writable=True)
    try:
        _write_fully(file, FILLER * (file.size() - tail.offset), tail.offset)
        file.fdatasync()
    finally:
        file.close()


def _rewrite_kept(directory: Directory, found: Scan, known_durable: int) -> None:
    for segment in found.segments:
        if segment.last_seq <= known_durable or segment.name.sealed:
            continue
        file = directory.open(segment.name.name, writable=True)
        try:
            mark = found.bookmark
            is_here = mark is not None and mark.segment == segment.name
            begin, seq = (mark.offset, mark.size + 1) if mark and is_here else (0, segment.name.first_seq)
            content = file.pread(segment.end - begin, begin)
            start = 0
            while seq <= known_durable:
                start = content.index(FILLER, start) + 1
                seq += 1
            _write_fully(file, content[start:], begin + start)
            file.fdatasync()
        finally:
            file.close()


def unnamed_quarantine(directory: Directory, named: set[str]) -> list[str]:
    """Whole quarantine files that no RECOVERY record names; those that are not whole are removed.

    A copy that is not whole was cut short by a crash, before anything was cleared: its tail is still in place
    or was copied anew.
    """
    if QUARANTINE not in directory.names():
        return []
    unnamed: list[str] = []
    target = directory.subdirectory(QUARANTINE)
    try:
        for name in sorted(set(target.names()) - named):
            file = target.open(name)
            try:
                digest = sha256(read_all(file)).hexdigest()[:16]
            finally:
                file.close()
            if name.endswith(f"-{digest}"):
                unnamed.append(name)
            else:
                target.unlink(name)
        target.sync()
    finally:
        target.close()
    return unnamed


def judge(found: Scan, head: HeadMark | None, marks: Iterable[Mark] = ()) -> tuple[Verdict, int]:
    """The verdict over a scanned log, its head and *marks*, and m.

    Raises:
        AuditCorruption: The verdict is CORRUPT.
    """
    known, who = max(
        (found.synced, "its own lines"),
        (0 if head is None else head.sequence, "its head"),
        *((mark.size, mark.source) for mark in marks),
        key=itemgetter(0),
    )
    closed = head is not None and head.state is HeadState.CLOSED
    verdict = decide(found.first_missing, known, only_filler=found.only_filler, closed=closed)
    if verdict is Verdict.CORRUPT:
        file, offset = found.place
        if not file and head is not None:
            file = head.segment
        reason = found.reason or (
            "missing" if known >= found.first_missing else "beyond the head of a closed log"
        )
        raise AuditCorruption(
            f"audit log damaged: sequence {found.first_missing} in {file!r} at byte {offset}: {reason}"
            f" (durable up to {known}, says {who})",
            sequence=found.first_missing,
            file=file,
            offset=offset,
            hint="the log stays readable; nothing was changed; compare it with a copy",
        )
    if verdict is Verdict.INTACT:
        _refuse_strays(found)
    return verdict, known


def _refuse_strays(found: Scan) -> None:
    """Refuse an empty segment that is not the next one: a log that went on beside it would never verify."""
    empty = [tail.segment for tail in found.tails if not tail.offset]
    for name in empty:
        parsed = parse_segment_name(name)
        if parsed is not None and (parsed.first_seq != found.first_missing or name != empty[0]):
            reason = f"an empty segment where only one for sequence {found.first_missing} belongs"
            raise _damage(parsed, parsed.first_seq, 0, reason)
