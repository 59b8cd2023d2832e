"""Searching the log by its indexes, which are trusted only as far as the log vouches for them.

Promise: a search returns exactly what a reading of every line would, in order; each line it returns, and each it
had to look at, is checked like any other, and `AuditCorruption` names the first that is damaged. What it did not
have to look at it says nothing about: that is `verify`.

An index file counts only where its SHA-256 is the one in the log's own SEALED record of that segment. That record
stands in a later segment, so trust is walked backwards from the segment that is being written, whose lines are
read and indexed here, as are those of every segment without a trusted file. All of it is kept for the next search,
which reads only what has been appended since.

Limits: one `Searcher` keeps at most `INDEX_BYTES` of index files and `LINE_BYTES` of lines, besides the indexes that
it made itself, about 20 bytes a record. Time bounds leave out whole blocks by their lowest and highest time; a clock
that was stepped back makes blocks overlap and costs time, never a record. Pruned records are taken to be older than
every record that is still here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from holdfast.audit.format import Record, SegmentName, facts_in_place, record_in_place
from holdfast.audit.head import HeadMark
from holdfast.audit.index import Conditions, Index, Pick, index_name
from holdfast.audit.logfiles import (
    Batch,
    Stretch,
    damaged_line,
    durable_mark,
    endless_line,
    missing,
    open_log,
    open_segment,
    refuse_pruned,
    stretches,
)
from holdfast.audit.schemas import RecordType, SealedDetails
from holdfast.audit.seal import CUT_BYTES, MEMBER_BYTES, read_blocks, read_members
from holdfast.audit.storage import Directory, File, Storage
from holdfast.core.errors import BadInput

INDEX_BYTES = 256 << 20
"""Index files kept in memory, at most; those used longest ago go first."""
LINE_BYTES = 32 << 20
"""Lines kept in memory, at most; then it begins anew."""

_READ_BYTES = 1 << 20
_SPARSE = 8
"""Lines are kept where a block gave at most one in so many: the others cost more memory than reading costs time."""
_SEALED = Conditions(types=frozenset({str(RecordType.SEALED)}))


class Match(NamedTuple):
    """A record that a search found.

    Attributes:
        record: It.
        line: The bytes it is stored as, without newline.
    """

    record: Record
    line: bytes


class _Known:
    """What is known of one segment.

    Attributes:
        name: The raw file's name.
        index: Its index, or None while it is not needed.
        sealed: Whether that index says where the gzip members are.
        end: Where in the raw file the lines end that the index knows.
        searched: How many of its records have been searched for SEALED.
        times: Lowest and highest time of a segment that does not grow any more.
    """

    __slots__ = ("end", "index", "name", "sealed", "searched", "times")

    def __init__(self, name: str) -> None:
        self.name = name
        self.index: Index | None = None
        self.sealed = False
        self.end = 0
        self.searched = 0
        self.times: tuple[int, int] | None = None


class Searcher:
    """Searches one log, and remembers; safe for many threads."""

    def __init__(self, path: Path, storage: Storage | None) -> None:
        """Search the log in *path*."""
        self._path = path
        self._storage = storage
        self._lock = threading.RLock()
        self._forget(None)

    def _forget(self, mark: HeadMark | None) -> None:
        self._seen = mark
        self._known: dict[int, _Known] = {}
        self._claims: dict[str, tuple[int, str]] = {}  # raw segment name -> sequence of SEALED, index SHA-256
        self._files: dict[int, int] = {}  # first sequence -> bytes, the ones used longest ago first
        self._lines: dict[int, bytes] = {}
        self._line_bytes = 0

    def matches(
        self,
        wanted: Conditions,
        max_results: int | None = None,
        *,
        newest_first: bool = False,
        missing_ok: bool = False,
        between: tuple[int, int] | None = None,
    ) -> Iterator[Match]:
        """The matching records, in sequence order or backwards, as far as the log is durable now.

        With *between*, only those from its first to its second sequence, both included.

        Raises:
            BadInput: There is no such directory, unless *missing_ok*.
            InArchive: Records that may match were pruned.
            AuditCorruption: Something that had to be read is damaged.
        """
        directory = open_log(self._path, self._storage, missing_ok=missing_ok)
        if directory is None:
            return
        try:
            if max_results == 0:
                return
            left = max_results
            for match in self._all(directory, wanted, between, newest_first=newest_first):
                yield match
                if left is not None:
                    left -= 1
                    if left == 0:
                        return
        finally:
            directory.close()

    def durable(self) -> int:
        """The highest sequence that the log's head says is durable; 0 where there is none.

        Raises as `matches` does.
        """
        directory = open_log(self._path, self._storage, missing_ok=False)
        if directory is None:
            return 0
        try:
            mark = durable_mark(directory)
            return 0 if mark is None else mark.sequence
        finally:
            directory.close()

    def types(self, *, missing_ok: bool = False) -> set[str]:
        """Every record type that occurs in the part of the log that is here."""
        directory = open_log(self._path, self._storage, missing_ok=missing_ok)
        if directory is None:
            return set()
        try:
            with self._lock:
                return {
                    key[0]
                    for stretch in self._look(directory)
                    for key in self._index_of(directory, stretch).all_keys()
                }
        finally:
            directory.close()

    def _all(
        self,
        directory: Directory,
        wanted: Conditions,
        between: tuple[int, int] | None,
        *,
        newest_first: bool,
    ) -> Iterator[Match]:
        with self._lock:
            plan = self._look(directory)
        first_seq, last_seq = between or (1, plan[-1].segment.first_seq + plan[-1].records if plan else 0)
        if not newest_first:
            self._refuse_pruned(directory, plan, wanted, first_seq)
        for stretch in reversed(plan) if newest_first else plan:
            begin = stretch.segment.first_seq
            if begin <= last_seq and first_seq < begin + stretch.records:
                numbers = range(max(first_seq - begin, 0), min(last_seq - begin + 1, stretch.records))
                yield from self._in_segment(directory, stretch, wanted, numbers, newest_first=newest_first)
        if newest_first:
            self._refuse_pruned(directory, plan, wanted, first_seq)

    def _refuse_pruned(
        self, directory: Directory, plan: list[Stretch], wanted: Conditions, first_seq: int
    ) -> None:
        if not plan or first_seq >= plan[0].segment.first_seq:
            return
        if wanted.start_ns is not None:
            with self._lock:
                first = next(self._read_numbers(directory, plan[0], Conditions(), [0]))
            if first.record.ts <= wanted.start_ns:
                return
        refuse_pruned(directory, plan, first_seq)

    # -- what is there, and what may be trusted; all with the lock held ------------------------------------------

    def _look(self, directory: Directory) -> list[Stretch]:
        """The log as its head describes it now; afterwards every claim on an index is known."""
        mark = durable_mark(directory)  # before the files: what it names is in them
        if self._seen is not None and (
            mark is None or mark.writes < self._seen.writes or mark.sequence < self._seen.sequence
        ):
            self._forget(mark)  # another log stands there now
        self._seen = mark
        if mark is None or not mark.sequence:
            return []
        plan = stretches(directory, mark)
        for segment, _ in plan:
            known = self._known.get(segment.first_seq)
            if segment.sealed and known is not None and not known.sealed:
                known.index = None  # made when it was raw; the file is smaller
        first_sealed = next((at for at, stretch in enumerate(plan) if stretch.segment.sealed), len(plan))
        for stretch in reversed(plan[first_sealed + 1 :]):
            self._learn_claims(directory, stretch)
        return plan

    def _learn_claims(self, directory: Directory, stretch: Stretch) -> None:
        """Read the SEALED records of this segment that were not read yet."""
        known = self._known_of(stretch.segment)
        if known.searched >= stretch.records:
            return
        index = self._index_of(directory, stretch)
        unread = range(known.searched, stretch.records)
        numbers = index.select(_SEALED, unread)
        if numbers:
            for match in self._read_numbers(directory, stretch, _SEALED, numbers):
                try:
                    claim = msgspec.convert(match.record.details, SealedDetails)
                except msgspec.ValidationError:
                    continue  # nothing to trust; verify names it
                # Where a crash made a segment be sealed twice, the later record counts.
                if match.record.seq > self._claims.get(claim.segment, (0, ""))[0]:
                    self._claims[claim.segment] = (match.record.seq, claim.index_sha256)
        known.searched = stretch.records

    def _known_of(self, segment: SegmentName) -> _Known:
        name = segment.name.removesuffix(".gz")
        known = self._known.get(segment.first_seq)
        if known is None or known.name != name:
            known = self._known[segment.first_seq] = _Known(name)
        return known

    def _index_of(self, directory: Directory, stretch: Stretch) -> Index:
        """The segment's index: the one remembered, the trusted file, or one made from its lines."""
        segment, records = stretch
        known = self._known_of(segment)
        index = known.index
        if index is None or index.records < records or (segment.sealed and not known.sealed):
            index = self._read_index(directory, known, segment.first_seq, records) if segment.sealed else None
            if index is None:
                index = self._make_index(directory, known, stretch)
        if segment.first_seq in self._files:
            self._files[segment.first_seq] = self._files.pop(segment.first_seq)
        return index

    def _read_index(self, directory: Directory, known: _Known, first_seq: int, records: int) -> Index | None:
        """The index from its file, if the log vouches for it."""
        _, claim = self._claims.get(known.name, (0, ""))
        content = _content(directory, index_name(known.name)) if claim else b""
        if not content or sha256(content).hexdigest() != claim:
            return None
        try:
            index = Index.decode(content)
        except BadInput:
            return None  # what the log vouches for is no index; verify names it
        if index.first_seq != first_seq or index.records < records:
            return None
        known.index, known.sealed = index, True
        self._files[first_seq] = len(content)
        self._make_room()
        return index

    def _make_room(self) -> None:
        total = sum(self._files.values())
        for first_seq in list(self._files)[:-1]:
            if total <= INDEX_BYTES:
                return
            total -= self._files.pop(first_seq)
            self._known[first_seq].index = None

    def _make_index(self, directory: Directory, known: _Known, stretch: Stretch) -> Index:
        """The index of the segment's lines, read as far as they are new.

        Raises:
            AuditCorruption: A line is damaged, or not there.
        """
        segment, records = stretch
        try:
            file, sealed = open_segment(directory, segment)
        except FileNotFoundError:
            raise missing(segment.first_seq, segment.name) from None
        try:
            if known.index is None or known.sealed or sealed:
                known.index, known.end = Index(segment.first_seq), 0
            index = known.index
            try:
                if sealed:
                    _index_members(index, file, records)
                else:
                    known.end = _index_lines(index, file, known.end, records)
            except BaseException:
                known.index = None  # half of a batch may be in it
                raise
            known.sealed = sealed
            return index
        finally:
            file.close()

    # -- reading -----------------------------------------------------------------------------------------------

    def _in_segment(
        self,
        directory: Directory,
        stretch: Stretch,
        wanted: Conditions,
        numbers: range,
        *,
        newest_first: bool,
    ) -> Iterator[Match]:
        with self._lock:
            known = self._known_of(stretch.segment)
            if known.times is not None and not wanted.may_lie_within(*known.times):
                return
            index = self._index_of(directory, stretch)
            if known.sealed:
                known.times = index.times
            chosen = index.select(wanted, numbers)
            picks = self._remembered(stretch.segment.first_seq, chosen) or list(index.by_block(chosen))
            source = _Source(self, directory, stretch, index, sealed=known.sealed)
        if chosen:
            yield from self._read(source, wanted, picks, newest_first=newest_first)

    def _remembered(self, first_seq: int, numbers: Sequence[int]) -> list[Pick]:
        """All of *numbers* as if from one block, where every line of them is remembered; else nothing."""
        if not 0 < len(numbers) <= len(self._lines) or first_seq + numbers[0] not in self._lines:
            return []
        if not all(first_seq + number in self._lines for number in numbers):
            return []
        return [Pick(0, numbers, len(numbers) * _SPARSE)]

    def _read_numbers(
        self, directory: Directory, stretch: Stretch, wanted: Conditions, numbers: Sequence[int]
    ) -> Iterator[Match]:
        """The records with these *numbers*, which are known to have the type that is wanted."""
        index = self._index_of(directory, stretch)
        sealed = self._known_of(stretch.segment).sealed
        source = _Source(self, directory, stretch, index, sealed=sealed)
        return self._read(source, wanted, list(index.by_block(numbers)), newest_first=False)

    def _read(
        self, source: _Source, wanted: Conditions, picks: list[Pick], *, newest_first: bool
    ) -> Iterator[Match]:
        """What *picks* lead to and *wanted* accepts."""
        # The id as it stands in a line; most lines are put aside by one search for it. A line with a backslash
        # may spell it otherwise.
        needle = b"" if wanted.order_id is None else msgspec.json.encode(wanted.order_id)
        first_seq = source.first_seq
        narrows = any(bound is not None for bound in (wanted.order_id, wanted.start_ns, wanted.end_ns))
        try:
            for pick in reversed(picks) if newest_first else picks:
                lines = self._lines_of(source, pick)
                pairs = list(zip(pick.numbers, lines, strict=True))
                for number, line in reversed(pairs) if newest_first else pairs:
                    sequence = first_seq + number
                    if needle and needle not in line and b"\\" not in line:
                        if facts_in_place(line, sequence) is None:
                            raise damaged_line(source.batch_with(number), sequence)
                        continue
                    record = record_in_place(line, sequence)
                    if record is None or not wanted.has_key(record.type, record.user, record.component):
                        raise damaged_line(source.batch_with(number), sequence)
                    if not narrows or wanted.accepts(record.ts, record.details):
                        yield Match(record, line)
        finally:
            source.close()

    def _lines_of(self, source: _Source, pick: Pick) -> list[bytes]:
        """The lines of *pick*, remembered or read."""
        if len(pick.numbers) * _SPARSE > pick.beside:
            return source.lines(pick.numbers)
        first_seq, kept = source.first_seq, self._lines
        lines = [kept.get(first_seq + number, b"") for number in pick.numbers]
        if all(lines):
            return lines
        lines = source.lines(pick.numbers)
        size = sum(map(len, lines))
        with self._lock:
            if self._line_bytes + size > LINE_BYTES:
                self._lines.clear()
                self._line_bytes = 0
            self._line_bytes += size
            kept.update(zip((first_seq + number for number in pick.numbers), lines, strict=True))
        return lines

    def sealed_meanwhile(self, directory: Directory, stretch: Stretch) -> Index:
        """The index of a segment that was raw when it was listed and is compressed now."""
        segment = stretch.segment
        with self._lock:
            self._look(directory)  # its SEALED record is durable by now
            return self._index_of(
                directory, stretch._replace(segment=segment._replace(name=segment.name + ".gz", sealed=True))
            )


class _Source:
    """Reads lines of one segment by their numbers, a block at a time."""

    def __init__(
        self, searcher: Searcher, directory: Directory, stretch: Stretch, index: Index, *, sealed: bool
    ) -> None:
        self.first_seq = stretch.segment.first_seq
        self._searcher = searcher
        self._directory = directory
        self._stretch = stretch
        self._index = index
        self._sealed = sealed
        self._file: File | None = None
        self._file_sealed = False
        self._batch = Batch(0, [], "", 0, sealed=False)

    def lines(self, numbers: Sequence[int]) -> list[bytes]:
        """The lines with these ascending *numbers*."""
        found: list[bytes] = []
        for number in numbers:
            at = self.first_seq + number - self._batch.first_seq
            if not 0 <= at < len(self._batch.lines):
                at = self.first_seq + number - self.batch_with(number).first_seq
            found.append(self._batch.lines[at])
        return found

    def batch_with(self, number: int) -> Batch:
        """The block that holds line *number*.

        Raises:
            AuditCorruption: It has fewer lines than the index says, or cannot be read.
        """
        file = self._file or self._open()
        block, following = self._index.block_with(number)
        if self._file_sealed:
            offset = block.gzip_offset
            size = following.gzip_offset - offset if following is not None else MEMBER_BYTES
            _, piece = next(read_members(file, start=offset, step=max(size, 1)), (0, b""))
        else:
            offset = block.raw_offset
            size = following.raw_offset - offset if following is not None else MEMBER_BYTES
            piece = file.pread(size, offset)
        lines = piece.split(b"\n", block.records)[:-1]  # what follows the last newline is no line
        self._batch = Batch(self.first_seq + block.first, lines, file.name, offset, self._file_sealed)
        if number - block.first >= len(lines):
            raise missing(self.first_seq + block.first + len(lines), file.name)
        return self._batch

    def _open(self) -> File:
        try:
            file, self._file_sealed = open_segment(self._directory, self._stretch.segment)
        except FileNotFoundError:
            raise missing(self.first_seq, self._stretch.segment.name) from None
        self._file = file
        if self._file_sealed and not self._sealed:
            self._index = self._searcher.sealed_meanwhile(self._directory, self._stretch)
        return file

    def close(self) -> None:
        """Give up the file."""
        if self._file is not None:
            self._file.close()


def _content(directory: Directory, name: str) -> bytes:
    """A whole file; empty where it is not there or cannot be read."""
    try:
        file = directory.open(name)
        try:
            return b"".join(read_blocks(file))
        finally:
            file.close()
    except OSError:
        return b""


# -- indexing what no trusted file does ---------------------------------------------------------------------------


def _index_members(index: Index, file: File, records: int) -> None:
    """Index the first *records* lines of a compressed segment, a block for each gzip member."""
    raw_offset = 0
    for offset, piece in read_members(file):
        index.begin_block(raw_offset, offset)
        left = records - index.records
        lines = piece[:-1].split(b"\n", left)[:left]
        _take(index, Batch(index.first_seq + index.records, lines, file.name, offset, sealed=True))
        raw_offset += len(piece)
        if index.records == records:
            return
    raise missing(index.first_seq + index.records, file.name)


def _index_lines(index: Index, file: File, end: int, records: int) -> int:
    """Index a raw segment up to its line number *records*, from offset *end* on; where the lines end now.

    Blocks are cut as the sealer cuts its members.
    """
    while index.records < records:
        data = file.pread(_READ_BYTES, end)
        start, cut = 0, data.rfind(b"\n") + 1
        if not cut:
            if len(data) > MEMBER_BYTES:
                raise endless_line(file, end)
            raise missing(index.first_seq + index.records, file.name)
        while start < cut and index.records < records:
            room = index.blocks[-1].raw_offset + CUT_BYTES - end if index.blocks else 0
            stop = data.rfind(b"\n", start, start + room) + 1 if room > 0 else 0
            if not stop:
                index.begin_block(end)
                stop = data.rfind(b"\n", start, start + CUT_BYTES) + 1 or data.find(b"\n", start) + 1
            left = records - index.records
            lines = data[start : stop - 1].split(b"\n", left)
            if len(lines) > left:
                del lines[left:]
                stop = start + sum(map(len, lines)) + left
            _take(index, Batch(index.first_seq + index.records, lines, file.name, end, sealed=False))
            end += stop - start
            start = stop
    return end


def _take(index: Index, batch: Batch) -> None:
    try:
        index.take(batch.lines)
    except BadInput as why:
        raise damaged_line(batch, index.first_seq + index.records) from why
