"""One segment read from its first to its last byte: its lines, its leaves, its checkpoint history, its index.

Promise: `check_segment` computes everything from the bytes and reports what was computed; what follows from it for
the whole log (roots, keys, SEALED claims) is the caller's to judge, because a segment alone cannot know. It may
therefore run in a child process, one segment here and the next one there: `SegmentHelpers` keeps such children,
which are started by exec, take no lock and decide nothing. Whatever a child cannot say is computed by the caller.

Limits: memory stays within a few pieces of the file, plus one number and hash for each checkpoint and for each 256
records (and every leaf hash of one segment where tiles lie beside it). A file is given up after `MAX_BARREN_BYTES`
without a record, and after `MAX_DAMAGED_MEMBERS`, so that no file can keep its reader busy for ever.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import IO, NamedTuple
from zlib import crc32

import msgspec

from holdfast.audit.format import (
    CRC_END,
    FILLER,
    FORMAT_VERSION,
    MAX_RECORD_BYTES,
    Record,
    SegmentName,
    decode_line,
)
from holdfast.audit.head import HeadMark
from holdfast.audit.history import history_name
from holdfast.audit.index import Index, index_name
from holdfast.audit.logfiles import open_segment
from holdfast.audit.schemas import KeyDetails, SegmentDetails
from holdfast.audit.seal import find_member, read_blocks, read_members, salvage_member
from holdfast.audit.storage import Directory, File, LocalStorage
from holdfast.audit.tree import Span, SpanNode
from holdfast.audit.verify_course import Course
from holdfast.audit.verify_history import HistoryFault, HistoryNote, HistoryReader, SegmentKey
from holdfast.core.errors import AuditCorruption, BadInput, TradingError

MAX_BARREN_BYTES = 64 << 20
"""After so many bytes without a record, the rest of a file is not read; a line, or a member, counts for at least 256."""
MAX_DAMAGED_MEMBERS = 64
"""After so many damaged gzip members, the rest of a file is not read."""
TILE_LEAVES = 256

_PIECE = 32 << 10  # about a hundred lines: what is decoded from them stays below the collector's threshold
_BRACE = b"}"
_OWN_TYPES = frozenset({"SEGMENT", "KEY", "SEALED", "RECOVERY", "PRUNED"})


class _PlainRecord(Record, frozen=True, kw_only=True, gc=False):
    """A record that lives for one piece of a file."""


_decode_records = msgspec.json.Decoder(_PlainRecord).decode_lines


class OwnRecord(msgspec.Struct, array_like=True, frozen=True):
    """A record by which the log speaks of itself.

    Attributes:
        seq: Its sequence.
        offset: Where a problem with it is placed.
        number: Its number in the file, from 1.
        type: SEGMENT, KEY, SEALED, RECOVERY or PRUNED.
        details: As JSON.
    """

    seq: int
    offset: int
    number: int
    type: str
    details: bytes


class Stop(msgspec.Struct, array_like=True, frozen=True):
    """A tree size at which the caller compares roots: a checkpoint's or an anchor's.

    Attributes:
        size: How many records.
        nodes: How many of the segment's `nodes` lie before it.
        note: The checkpoint, or None where only an anchor has this size.
        alone: Whether the key of the segment's own KEY record signed it, and no other key.
    """

    size: int
    nodes: int
    note: HistoryNote | None = None
    alone: bool = False


class SegmentFacts(msgspec.Struct, array_like=True):
    """What was computed from one segment's bytes.

    Attributes:
        file: The file that was read.
        sealed: Whether it is compressed.
        readable: Whether every gzip member could be read.
        first_seq: As its name says.
        last_seq: Of its last record in its place; 0 where there is none.
        records: How many stand in their place.
        synced: The highest `synced` in them.
        raw_sha256: Of a compressed segment's content, else "".
        raw_bytes: Bytes of lines and filler.
        gzip_sha256: Of the compressed file, else "".
        gzip_bytes: Its length.
        members: How many gzip members.
        last_offset: Where reading ended.
        filler_at: Where it goes over into filler, or -1.
        own: The log's own records.
        nodes: The perfect subtrees over its leaves, left to right, none above a tile's.
        leaves: All leaf hashes, where they were asked for.
        stops: Where roots are compared.
        history: Whether it has a checkpoint history.
        history_end: Bytes of that up to the end of its last valid note.
        history_filler: Bytes of filler behind it.
        history_faults: What is wrong in it.
        history_torn: What stands behind the last valid note and may be a torn one.
        beyond: The first checkpoint that is larger than the segment.
        second_offset: Where its second record stands.
        uncovered: Sequence, time and place of the first record behind the last checkpoint, or of the first record.
        head_ts: Time of the record where the head ends, if it is here.
        index_sha256: Of the index file, or "".
        index_bytes: Its length.
        index_fault: Offset and reason where it is not the segment's index.
    """

    file: str
    sealed: bool
    first_seq: int
    readable: bool = True
    last_seq: int = 0
    records: int = 0
    synced: int = 0
    raw_sha256: str = ""
    raw_bytes: int = 0
    gzip_sha256: str = ""
    gzip_bytes: int = 0
    members: int = 0
    last_offset: int = 0
    filler_at: int = -1
    own: list[OwnRecord] = []
    nodes: list[SpanNode] = []
    leaves: bytes = b""
    stops: list[Stop] = []
    history: bool = False
    history_end: int = 0
    history_filler: int = 0
    history_faults: list[HistoryFault] = []
    history_torn: HistoryFault | None = None
    beyond: HistoryNote | None = None
    second_offset: int = 0
    uncovered: tuple[int, int, int] | None = None
    head_ts: int | None = None
    index_sha256: str = ""
    index_bytes: int = 0
    index_fault: tuple[int, str] | None = None


class Task(msgspec.Struct, frozen=True):
    """What is asked about one segment.

    Attributes:
        name: Its file name; it may be compressed by the time it is read.
        first_seq: As the name says.
        created_ns: As the name says.
        sealed: Whether the name is a compressed segment's.
        anchors: Tree sizes, ascending, at which the caller compares roots.
        leaves: Whether the leaf hashes are wanted.
    """

    name: str
    first_seq: int
    created_ns: int
    sealed: bool
    anchors: list[int]
    leaves: bool

    @property
    def segment(self) -> SegmentName:
        """The name, taken apart."""
        return SegmentName(self.name, self.first_seq, self.created_ns, self.sealed)


def check_segment(
    directory: Directory, task: Task, course: Course, progress: Callable[[int], None]
) -> SegmentFacts | None:
    """Check one segment as the next part of *course*; None where its file cannot be read, which is damage.

    Args:
        directory: The log.
        task: Which segment.
        course: The walk so far; it is moved on.
        progress: Called with the number of bytes of the file that were read since the last call.

    Raises:
        BadInput: The segment is of a newer format.
    """
    try:
        file, sealed = open_segment(directory, task.segment)
    except OSError as why:
        reason = "missing" if isinstance(why, FileNotFoundError) else f"cannot be read: {why}"
        course.damage(task.name, 0, reason)
        return None
    history = _open_if_there(directory, history_name(task.name), course)
    index = _open_if_there(directory, index_name(task.name), course) if sealed else None
    try:
        return _SegmentCheck(task, course, _Files(file, sealed, history, index)).run(progress)
    except OSError as why:
        course.damage(file.name, 0, f"cannot be read: {why}")
        return None
    finally:
        for one in (file, history, index):
            if one is not None:
                one.close()


class _Files(NamedTuple):
    """What is read of one segment: its lines, whether they are compressed, its checkpoints, its index."""

    file: File
    sealed: bool
    history: File | None
    block_index: File | None


def _open_if_there(directory: Directory, name: str, course: Course) -> File | None:
    """The file, or None where there is none, or where it cannot be opened, which is a problem."""
    try:
        return directory.open(name)
    except FileNotFoundError:
        return None
    except OSError as why:
        course.note(0, name, 0, f"cannot be read: {why}")
        return None


class _Beginning:
    """A file as if it ended at *end*, so that a search in a file of any claimed size ends too."""

    def __init__(self, file: File, end: int) -> None:
        self._file = file
        self._end = end

    def pread(self, size: int, offset: int) -> bytes:
        """As `File.pread`."""
        return self._file.pread(max(0, min(size, self._end - offset)), offset)


class _Leaves:
    """A segment's leaves, reduced tile by tile to the perfect subtrees they fill."""

    def __init__(self, start: int, *, keep: bool) -> None:
        self.size = start
        self.nodes: list[SpanNode] = []
        self.kept: list[bytes] | None = [] if keep else None
        self._span = Span(start)

    def extend(self, leaves: list[bytes]) -> None:
        if self.kept is not None:
            self.kept += leaves
        at = 0
        while at < len(leaves):
            part = leaves[at : at + TILE_LEAVES - self.size % TILE_LEAVES]
            self._span.extend(part)
            at += len(part)
            self.size += len(part)
            if self.size % TILE_LEAVES == 0:
                self.cut()

    def cut(self) -> int:
        """Let no subtree span this place; how many nodes lie before it."""
        if self._span.size:
            self.nodes += self._span.nodes()
            self._span = Span(self.size)
        return len(self.nodes)


class _SegmentCheck:
    """The reading of one segment."""

    def __init__(self, task: Task, course: Course, files: _Files) -> None:
        self.course = course
        self.file = files.file
        self.sealed = files.sealed
        self.facts = SegmentFacts(self.file.name, self.sealed, task.first_seq)
        self.history = HistoryReader(files.history)
        self.offset = 0  # in the raw file, of the line at hand
        self.member = 0  # where its gzip member begins
        self.lines = 0  # that are not filler
        self.barren = 0  # bytes since the last record
        self.whole_so_far = True  # whether every record since the first stood in its place
        self.leaves = _Leaves(task.first_seq - 1, keep=task.leaves)
        self.anchors = deque(task.anchors)
        self.note = self.history.next()
        self.key: SegmentKey | None = None
        self.raw_digest = sha256()
        self.index_file = files.block_index
        self.index = Index(task.first_seq) if self.index_file is not None else None

    @property
    def place(self) -> int:
        """The offset that a problem names."""
        return self.member if self.sealed else self.offset

    def run(self, progress: Callable[[int], None]) -> SegmentFacts:
        course, facts = self.course, self.facts
        course.enter(facts.first_seq, self.file.name)
        self.whole_so_far = course.expected == facts.first_seq
        rest = b""
        for piece, read in self._sealed_pieces() if self.sealed else self._raw_pieces():
            rest = self._check_lines(rest + piece)
            progress(read)
            if len(rest) > 2 * MAX_RECORD_BYTES:
                self._bad(f"no line end for {len(rest)} bytes")
                self.offset, rest = self.offset + len(rest), b""
            self.barren += max(len(piece), 256)
            if self.barren > MAX_BARREN_BYTES:
                self._bad(f"no record for {self.barren} bytes; the rest of the file was not read")
                facts.readable = False
                break
        if rest:
            self._bad("the last line has no end")
            self.offset += len(rest)
        if facts.filler_at >= 0 and self.lines:
            course.filler = (self.file.name, facts.filler_at)
        facts.last_offset, facts.raw_bytes = self.place, self.offset
        course.last_place = (self.file.name, self.place)
        self.leaves.cut()
        facts.nodes = self.leaves.nodes
        facts.leaves = b"".join(self.leaves.kept or [])
        self._end_history()
        if self.sealed and facts.readable:
            self._hash_sealed()
        return facts

    # -- the file in pieces ------------------------------------------------------------------------------------

    def _raw_pieces(self) -> Iterator[tuple[bytes, int]]:
        offset = 0
        while piece := self.file.pread(_PIECE, offset):
            offset += len(piece)
            yield piece, len(piece)

    def _sealed_pieces(self) -> Iterator[tuple[bytes, int]]:
        """The members' contents; of a damaged member, what can still be read of it."""
        start: int | None = 0
        damaged, done = 0, 0
        while start is not None:
            try:
                for began, piece in read_members(self.file, start=start):
                    self._begin_member(began)
                    self.raw_digest.update(piece)
                    if not piece:  # no index has a block without records, and there may be any number of them
                        self.index = None
                    yield piece, max(0, began - done)
                    done = max(done, began)
                start = None
            except AuditCorruption as why:
                damaged += 1
                self.facts.readable = False
                self.index = None
                self.member = why.offset
                reason = str(why).rpartition(": ")[2]
                content, complete = salvage_member(self.file, why.offset)
                yield content, 0
                if complete:
                    self.course.note(
                        0, self.file.name, why.offset, f"gzip member damaged around its lines: {reason}"
                    )
                else:
                    self.course.damage(self.file.name, why.offset, f"gzip member damaged: {reason}")
                if damaged == MAX_DAMAGED_MEMBERS:
                    self._bad(f"{damaged} damaged gzip members; the rest of the file was not read")
                    return
                start = find_member(_Beginning(self.file, why.offset + MAX_BARREN_BYTES), why.offset + 1)
        yield b"", max(0, self.file.size() - done)

    def _begin_member(self, began: int) -> None:
        self.member = began
        self.facts.members += 1
        if self.index is not None:
            self.index.begin_block(self.offset, began)

    def _hash_sealed(self) -> None:
        """The hashes that a SEALED record is held against."""
        facts, digest = self.facts, sha256()
        for block in read_blocks(self.file):
            digest.update(block)
            facts.gzip_bytes += len(block)
        facts.gzip_sha256 = digest.hexdigest()
        facts.raw_sha256 = self.raw_digest.hexdigest()
        if self.index_file is None:
            return
        expected = b""
        if self.index is not None:
            try:
                size = self.index.ending_bytes
                ending = self.index_file.pread(size, max(0, self.index_file.size() - size))
                expected = self.index.encode(self.raw_digest.digest(), like=ending)
            except (ValueError, OverflowError, struct.error):
                self.index = None
        actual = self.index_file.pread(max(len(expected), 1 << 20) + 1, 0)
        facts.index_bytes = self.index_file.size()
        facts.index_sha256 = sha256(actual).hexdigest()
        if actual != expected and self.index is not None:
            facts.index_fault = (_first_difference(actual, expected), "it is not the index of its segment")

    # -- lines -------------------------------------------------------------------------------------------------

    def _check_lines(self, data: bytes) -> bytes:
        """Check every whole line of *data*; what follows the last newline."""
        body = data.rstrip(FILLER)
        filler = len(data) - len(body)
        if filler:
            rest, filler = b"", filler - (1 if body else 0)
        else:
            body, _, rest = body.rpartition(FILLER)
        if body:
            self._check_whole_lines(body.split(FILLER))
        if filler:
            if self.facts.filler_at < 0:
                self.facts.filler_at = self.offset
            self.offset += filler
        return rest

    def _check_whole_lines(self, lines: list[bytes]) -> None:
        """Take plain records many at once; around a line that is none, fewer, down to a close look at it alone."""
        at, size = 0, len(lines)
        while at < len(lines):
            stop = self._next_stop()
            part = lines[at : at + min(size, stop - self.course.expected + 1 if stop else size)]
            records = self._plain_records(part)
            if records is not None:
                self._take_plain(part, records)
                at += len(part)
                size *= 2
            elif len(part) > 1:
                size = len(part) // 2
            else:
                self._check_line(part[0])
                at += 1

    def _plain_records(self, lines: list[bytes]) -> Sequence[Record] | None:
        """What *lines* say, where every one of them is an ordinary record in its place.

        This is `decode_line`, and what `_check_line` looks at, for what nearly all lines are.
        """
        course, first = self.course, self.course.expected
        if not self.lines or course.tail or course.filler is not None or self.facts.filler_at >= 0:
            return None
        # Lists, where generators would cost a fifth of the whole.
        in_place = [
            line.startswith(b'{"crc":"%08x","seq":%d,' % (crc32(line[CRC_END:]), seq))
            for line, seq in zip(lines, count(first))
        ]
        if not all(in_place):
            return None
        try:
            records = _decode_records(FILLER.join(lines))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if [record.seq for record in records] != [*range(first, first + len(lines))]:
            return None
        sound = [0 <= record.synced < record.seq and record.type not in _OWN_TYPES for record in records]
        ended = [line.endswith(_BRACE) for line in lines]
        return records if all(sound) and all(ended) and max(map(len, lines)) <= MAX_RECORD_BYTES else None

    def _take_plain(self, lines: list[bytes], records: Sequence[Record]) -> None:
        course, facts = self.course, self.facts
        self._take_into_index(records)
        self._note_begin(records[0])
        facts.synced = max(facts.synced, *[record.synced for record in records])
        course.highest_synced = max(course.highest_synced, facts.synced)
        if self.whole_so_far:
            self.leaves.extend([sha256(b"\0" + line).digest() for line in lines])
        course.take(len(lines))
        facts.last_seq = course.expected - 1
        facts.records += len(lines)
        self.lines += len(lines)
        self.offset += sum(map(len, lines)) + len(lines)
        self.barren = 0
        last = records[-1]
        if last.seq == self._next_stop(last.seq):
            self._stop_at(last.seq, last.ts)

    def _note_begin(self, record: Record) -> None:
        """*record* is the next one; where it stands may have to be named."""
        if self.facts.uncovered is None:
            self.facts.uncovered = (record.seq, record.ts, self.place)
        if self.lines == 1:
            self.facts.second_offset = self.place

    def _take_into_index(self, records: Sequence[Record]) -> None:
        """Compute the index anew, as long as every line stands in its place."""
        if self.index is None:
            return
        if not self.whole_so_far:
            self.index = None
            return
        try:
            self.index.take_records(records)
        except (ValueError, OverflowError):
            self.index = None

    def _check_line(self, line: bytes) -> None:
        course, facts = self.course, self.facts
        if not line:
            if facts.filler_at < 0:
                facts.filler_at = self.offset
            self.offset += 1
            return
        try:
            record = decode_line(line)
        except (BadInput, RecursionError) as why:
            self._bad(str(why) if isinstance(why, BadInput) else "nested too deep")
            self.offset += len(line) + 1
            return
        if facts.filler_at >= 0 or course.filler is not None:
            self._filler_before_a_line()
        in_place = record.seq == course.expected and not course.tail
        place = self.place
        if not self.lines or (in_place and record.type in _OWN_TYPES):
            self._check_own(record)
        if self.lines == 1:
            facts.second_offset = place
        self.lines += 1
        self.offset += len(line) + 1
        facts.synced = max(facts.synced, record.synced)
        course.highest_synced = max(course.highest_synced, record.synced)
        if not in_place:
            self._out_of_place(record, len(line) + 1)
            return
        self._take_line(line, record, place)

    def _take_line(self, line: bytes, record: Record, place: int) -> None:
        """*line* is the record that belongs here."""
        course, facts = self.course, self.facts
        self._take_into_index([record])
        facts.uncovered = facts.uncovered or (record.seq, record.ts, place)
        if self.whole_so_far and self.leaves.size == record.seq - 1:
            self.leaves.extend([sha256(b"\0" + line).digest()])
        course.take(1)
        facts.last_seq = record.seq
        facts.records += 1
        self.barren = 0
        if record.seq == self._next_stop(record.seq):
            self._stop_at(record.seq, record.ts)

    def _bad(self, reason: str) -> None:
        """The line at hand is not a record."""
        if self.facts.filler_at >= 0:
            self._filler_before_a_line()
        self.whole_so_far = False
        self.barren += 256
        self.course.damage(self.file.name, self.place, reason)

    def _filler_before_a_line(self) -> None:
        course = self.course
        if self.facts.filler_at >= 0:
            course.damage(self.file.name, self.facts.filler_at, "filler before the last line")
        elif course.filler is not None:
            name, offset = course.filler
            if course.expected > course.durable:
                course.damage(name, offset, "filler in a segment that others follow")
            else:
                course.note(0, name, offset, "filler in a segment that others follow")
        self.facts.filler_at, course.filler = -1, None

    def _out_of_place(self, record: Record, size: int) -> None:
        """A valid line, but not the one that belongs here."""
        course = self.course
        self.whole_so_far = False
        place = self.place if self.sealed else self.offset - size
        if record.seq <= course.expected or record.seq > course.durable:
            course.damage(
                self.file.name,
                place,
                f"sequence {record.seq} stands where {course.expected} belongs",
                again=True,
            )
            return
        if not course.run_open:
            course.damage(self.file.name, place, f"missing: sequence {record.seq} stands in its place")
        course.skip_to(record.seq)
        course.take(1)
        self.facts.last_seq = record.seq
        self.facts.records += 1
        self.barren = 0

    # -- the places where something else is compared -----------------------------------------------------------

    def _next_stop(self, least: int = 0) -> int:
        """The next sequence from *least*, or from the one that comes next, where the plain way pauses; or 0."""
        least = least or self.course.expected
        while self.note is not None and self.note.size < least:
            if self.note.size < self.facts.first_seq:
                self.history.doubt(self.note, f"checkpoint of size {self.note.size} lies before its segment")
            else:
                self._is_signed_alone(self.note)  # its record is bad, the note may be good
            self.note = self.history.next()
        while self.anchors and self.anchors[0] < least:
            self.anchors.popleft()
        stops = [self.course.durable] if self.course.durable >= least else []
        if self.note is not None:
            stops.append(self.note.size)
        if self.anchors:
            stops.append(self.anchors[0])
        return min(stops, default=0)

    def _stop_at(self, sequence: int, ts: int) -> None:
        """The record with *sequence*, of time *ts*, was taken just now."""
        facts, note = self.facts, self.note
        if sequence == self.course.durable:
            facts.head_ts = ts
            self._check_head_end()
        if note is not None and note.size == sequence:
            alone = self._is_signed_alone(note)
            if alone is None:
                note = None
            else:
                facts.uncovered = None
            self.note = self.history.next()
        else:
            note, alone = None, False
        if self.whole_so_far and (note is not None or sequence in self.anchors):
            facts.stops.append(Stop(sequence, self.leaves.cut(), note, bool(alone)))

    def _is_signed_alone(self, note: HistoryNote) -> bool | None:
        """Whether the segment's own key alone signed *note*; None where its signature is wrong."""
        try:
            alone = self.key is not None and self.key.signs_alone(note)
        except BadInput as why:
            self.history.doubt(note, str(why))
            return None
        self.history.accept(note)
        return alone

    def _end_history(self) -> None:
        """Read the history to its end and keep what is known of it."""
        facts, history = self.facts, self.history
        while self.note is not None:
            valid = self.note.size >= facts.first_seq and self._is_signed_alone(self.note) is not None
            if valid and self.note.size >= self.course.expected:
                facts.beyond = facts.beyond or self.note
            self.note = history.next()
        history.finish()
        facts.history = history.exists
        facts.history_end = history.end
        facts.history_filler = history.filler
        facts.history_faults = history.faults
        facts.history_torn = history.torn

    def _check_head_end(self) -> None:
        mark = self.course.mark
        if mark is None:
            return
        name = self.file.name.removesuffix(".gz")
        if (mark.segment.removesuffix(".gz"), mark.end_offset) != (name, self.offset):
            self.course.note(
                mark.sequence,
                self.file.name,
                self.place,
                f"ends at byte {self.offset} of {name!r}, the head says {mark.end_offset} of {mark.segment!r}",
            )

    # -- the log's own records ---------------------------------------------------------------------------------

    def _check_own(self, record: Record) -> None:
        """The first line of a file, and the journal's own records anywhere."""
        try:
            if record.type == "SEGMENT" or not self.lines:
                why = self._segment_fault(record)
                if why:
                    self.course.damage(self.file.name, self.place, why, again=True)
            elif record.type == "KEY" and self.lines == 1:
                from holdfast.audit.note import VerifierKey  # noqa: PLC0415  unsigned logs do without

                details = msgspec.convert(record.details, KeyDetails)
                with contextlib.suppress(BadInput):  # the caller says what is wrong with it
                    self.key = SegmentKey(VerifierKey.parse(details.vkey))
        except msgspec.ValidationError as why:
            self.course.damage(
                self.file.name, self.place, f"{record.type} does not fit its schema: {why}", again=True
            )
            return
        if record.type in _OWN_TYPES:
            self.facts.own.append(
                OwnRecord(
                    record.seq, self.place, self.lines + 1, record.type, msgspec.json.encode(record.details)
                )
            )

    def _segment_fault(self, record: Record) -> str:
        """What is wrong with a file's first line, or with a SEGMENT record, as far as the file alone can tell."""
        if record.type != "SEGMENT":
            return f"the first line is {record.type}, not SEGMENT"
        if self.lines:
            return "SEGMENT is not the first line of its file"
        claim = msgspec.convert(record.details, SegmentDetails)
        if claim.format_ > FORMAT_VERSION:
            raise BadInput(
                f"{self.file.name!r} is of format {claim.format_}, this reads {FORMAT_VERSION}",
                hint="use the version that wrote it, or a newer one",
            )
        if claim.format_ != FORMAT_VERSION:
            return f"format {claim.format_} is not known, this reads {FORMAT_VERSION}"
        self.history.origin = f"{claim.origin}/{claim.log_id}"
        if not record.seq == claim.first_seq == self.facts.first_seq:
            return f"SEGMENT says first sequence {claim.first_seq}, the file's name {self.facts.first_seq}"
        return ""


def _first_difference(one: bytes, other: bytes) -> int:
    """Where two different byte strings begin to differ."""
    if one.startswith(other) or other.startswith(one):
        return min(len(one), len(other))
    low, high = 0, min(len(one), len(other))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if one[low:middle] != other[low:middle] else (middle, high)
    return low


# -- child processes -------------------------------------------------------------------------------------------


class _Answer(msgspec.Struct, array_like=True):
    """What a child says: how many more bytes it read, or the facts of the segment asked about."""

    read: int
    done: bool = False
    facts: SegmentFacts | None = None


_LENGTH = struct.Struct("<I")
_AHEAD = 2
"""How many segments per child may lie finished and unused."""


class SegmentHelpers:
    """Child processes that check segments ahead of the caller, each in its own order of work.

    Args:
        directory: The log.
        mark: Its head.
        tasks: What is asked, in the order in which the answers will be used.
        jobs: How many children.
        progress: Called from threads of this process with bytes read.
    """

    def __init__(
        self,
        directory: Path,
        mark: HeadMark | None,
        tasks: Sequence[Task],
        jobs: int,
        progress: Callable[[int], None],
    ) -> None:
        self._tasks = tasks
        self._progress = progress
        self._changed = threading.Condition()
        self._answers: dict[int, SegmentFacts | None] = {}
        self._next = 0  # the next task to hand out
        self._used = 0  # how many answers were taken
        self._ended = False
        self._jobs = jobs
        self._children = [self._start(directory, mark) for _ in range(jobs)]
        self._threads = [
            threading.Thread(target=self._serve, args=(child,), name="holdfast-verify", daemon=True)
            for child in self._children
        ]
        for thread in self._threads:
            thread.start()

    def answer(self, index: int) -> SegmentFacts | None:
        """What was computed for task *index*; None where no child can say, or something is wrong there."""
        with self._changed:
            self._used = index
            self._changed.notify_all()
            while index not in self._answers and (index < self._next or self._is_alive()):
                self._changed.wait(1.0)
            self._used = index + 1
            self._changed.notify_all()
            return self._answers.pop(index, None)

    def close(self) -> None:
        """End the children."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for child in self._children:
            child.kill()
            child.wait()
        for thread in self._threads:
            thread.join()
        for child in self._children:
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    @staticmethod
    def _start(directory: Path, mark: HeadMark | None) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", "holdfast.audit.verify_segments", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            close_fds=True,
        )
        if child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.write(msgspec.json.encode(mark) + b"\n")
        return child

    def _is_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _serve(self, child: subprocess.Popen[bytes]) -> None:
        """Give *child* one task after the other; runs in a thread of its own."""
        while (index := self._take()) is not None:
            facts = None
            with contextlib.suppress(OSError, msgspec.MsgspecError, ValueError):
                facts = self._ask(child, self._tasks[index])
            with self._changed:
                self._answers[index] = facts
                self._changed.notify_all()
            if child.poll() is not None:
                return

    def _take(self) -> int | None:
        with self._changed:
            while not self._ended and self._next < len(self._tasks):
                if self._next < self._used + _AHEAD * self._jobs:
                    self._next += 1
                    return self._next - 1
                self._changed.wait()
        return None

    def _ask(self, child: subprocess.Popen[bytes], task: Task) -> SegmentFacts | None:
        if child.stdin is None or child.stdout is None:
            return None
        child.stdin.write(msgspec.json.encode(task) + b"\n")
        child.stdin.flush()
        while len(head := child.stdout.read(_LENGTH.size)) == _LENGTH.size:
            answer = msgspec.msgpack.decode(child.stdout.read(_LENGTH.unpack(head)[0]), type=_Answer)
            self._progress(answer.read)
            if answer.done:
                return answer.facts
        return None


def main(argv: list[str]) -> int:
    """Answer the tasks on stdin about the log *argv[0]*; None for a segment that is not in order."""
    directory = LocalStorage().directory(Path(argv[0]), create=False)
    mark = msgspec.json.decode(sys.stdin.buffer.readline(), type=HeadMark | None)
    out = sys.stdout.buffer
    for line in sys.stdin.buffer:
        task = msgspec.json.decode(line, type=Task)
        course = Course(mark, task.first_seq)
        facts = None
        with contextlib.suppress(TradingError, OSError):
            facts = check_segment(directory, task, course, lambda read: _say(out, _Answer(read)))
        _say(out, _Answer(0, done=True, facts=facts if course.is_plain else None))
    directory.close()
    return 0


def _say(out: IO[bytes], answer: _Answer) -> None:
    data = msgspec.msgpack.encode(answer)
    out.write(_LENGTH.pack(len(data)) + data)
    out.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
