"""A journal as the projector reads it: from any sequence on, in pieces, up to what is durable now.

Promise: every line is given once, checked and in its place, with the segment it stands in, through rotation,
sealing and restarts of the writer; nothing is given before the head says that it is durable. What cannot be gone on
with is named: a log that went back, another log under the same path, records that were pruned before they were
read, damage.

Limits: no lock is taken and nothing is changed. A segment that became `.log.gz` is read from its beginning once,
also where only its end is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from holdfast.audit.format import (
    LineFacts,
    SegmentName,
    all_facts_in_place,
    decode_facts,
    facts_in_place,
)
from holdfast.audit.head import HEAD_NAME
from holdfast.audit.logfiles import (
    Batch,
    Stretch,
    damaged_line,
    durable_mark,
    endless_line,
    missing,
    open_log,
    open_segment,
    refuse_newer,
    refuse_pruned,
    stretches,
)
from holdfast.audit.schemas import SegmentDetails
from holdfast.audit.seal import MEMBER_BYTES, read_members
from holdfast.audit.storage import Directory, File, Storage
from holdfast.core.errors import AuditCorruption, BadInput

_READ_BYTES = 1 << 20
_FEW = 256
"""Up to so many lines are read in one small piece: a live log's end is mostly filler."""


class Piece(NamedTuple):
    """Consecutive lines of one segment.

    Attributes:
        epoch: The segment's first sequence.
        first_seq: The sequence of the first line.
        lines: As stored, without newline, checked.
        facts: What each line says.
    """

    epoch: int
    first_seq: int
    lines: list[bytes]
    facts: list[LineFacts]

    @property
    def last_seq(self) -> int:
        """The sequence of the last line."""
        return self.first_seq + len(self.lines) - 1


class JournalReader:
    """Reads one log forward.

    Args:
        path: The log's directory; it must exist, but need not hold a record yet.
        storage: Where it lies; the machine's disks by default.

    Attributes:
        path: The log's directory.
        log_id: Its id; "" until it holds a record.
        next_seq: The sequence that comes next.
        durable: The highest durable sequence when it was looked at last.
    """

    def __init__(self, path: Path, storage: Storage | None = None) -> None:
        self.path = path
        self.log_id = ""
        self.next_seq = 1
        self.durable = 0
        self._storage = storage
        self._segment: _OpenSegment | None = None

    def look(self) -> int:
        """The highest durable sequence now; the first look at a record learns the log's id.

        Raises:
            BadInput: There is no such directory, or the log is of a newer format.
            AuditCorruption: The log went back, or its head is damaged.
        """
        directory = self._open()
        try:
            mark = durable_mark(directory)
            durable = mark.sequence if mark is not None else 0
            if durable < self.durable:
                raise went_back(durable, self.durable, str(self.path))
            if durable and not self.log_id:
                refuse_newer(directory)
                self.log_id = self._read_log_id(directory)
            self.durable = durable
        finally:
            directory.close()
        return durable

    def seek(self, seq: int) -> None:
        """Go on with sequence *seq*.

        Raises:
            InArchive: It was pruned.
        """
        if seq != self.next_seq:
            self._leave()
            self.next_seq = seq
        if self.durable:
            directory = self._open()
            try:
                mark = durable_mark(directory)
                if mark is not None:
                    refuse_pruned(directory, stretches(directory, mark), seq)
            finally:
                directory.close()

    def read(self, most: int) -> Piece | None:
        """The next lines of one segment, at most *most* and at most about a megabyte; None where all are read.

        Raises:
            InArchive: They were pruned meanwhile.
            AuditCorruption: The log is damaged, or is another one now.
        """
        while self.next_seq <= self.durable:
            segment = self._segment or self._enter()
            most_here = min(most, self.durable - self.next_seq + 1)
            lines = segment.lines(self.next_seq, most_here, self.durable)
            if lines:
                piece = self._checked(segment, lines)
                self.next_seq += len(lines)
                return piece
            self._leave()
            if self._enter().epoch <= segment.epoch:
                raise missing(self.next_seq, segment.name)
        return None

    def last_line(self, seq: int) -> bytes | None:
        """The line of sequence *seq* as it is stored, without newline; None where it was pruned."""
        other = JournalReader(self.path, self._storage)
        other.look()
        try:
            other.seek(seq)
        except BadInput:
            return None
        piece = other.read(1)
        other.close()
        return piece.lines[0] if piece is not None else None

    def close(self) -> None:
        """Give up what is open."""
        self._leave()

    # -- inside -------------------------------------------------------------------------------------------------

    def _open(self) -> Directory:
        opened = open_log(self.path, self._storage, missing_ok=False)
        assert opened is not None  # noqa: S101  missing_ok says so
        return opened

    def _read_log_id(self, directory: Directory) -> str:
        mark = durable_mark(directory)
        plan: list[Stretch] = stretches(directory, mark) if mark is not None else []
        if not plan:
            raise AuditCorruption("audit log damaged: its head names records and no file holds any")
        segment = _OpenSegment(directory, plan[0].segment)
        try:
            return segment.log_id()
        finally:
            segment.close()

    def _enter(self) -> _OpenSegment:
        """Open the segment that holds the next line."""
        directory = self._open()
        try:
            mark = durable_mark(directory)
            if mark is None or mark.sequence < self.durable:
                raise went_back(0 if mark is None else mark.sequence, self.durable, str(self.path))
            plan = stretches(directory, mark)
            refuse_pruned(directory, plan, self.next_seq)
            for segment, count in plan:
                if segment.first_seq <= self.next_seq < segment.first_seq + count:
                    break
            else:
                raise missing(self.next_seq, "")
            opened = _OpenSegment(directory, segment)
        finally:
            directory.close()
        self._segment = opened
        if opened.log_id() != self.log_id:
            raise AuditCorruption(
                f"audit log replaced: {str(self.path)!r} was log {self.log_id}, and is {opened.log_id()} now",
                file=opened.name,
                hint="start again; the rows of the old log stay, those of the new one are added",
            )
        return opened

    def _leave(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _checked(self, segment: _OpenSegment, lines: list[bytes]) -> Piece:
        first = self.next_seq
        facts = all_facts_in_place(lines, first)
        if facts is None:
            bad = (seq for seq, line in enumerate(lines, first) if facts_in_place(line, seq) is None)
            batch = Batch(first, lines, segment.name, segment.offset, sealed=segment.sealed)
            raise damaged_line(batch, next(bad, first))
        return Piece(segment.epoch, first, lines, facts)


class _OpenSegment:
    """One segment's file and how far it was read.

    Attributes:
        epoch: Its first sequence.
        name: The file's name.
        sealed: Whether the file is compressed.
        offset: Where the lines given last begin, or their gzip member.
    """

    def __init__(self, directory: Directory, segment: SegmentName) -> None:
        try:
            self._file, self.sealed = open_segment(directory, segment)
        except FileNotFoundError:
            raise missing(segment.first_seq, segment.name) from None
        self.epoch = segment.first_seq
        self.name = self._file.name
        self.offset = 0
        self._end = 0  # of the raw file: where the lines end that were taken from it
        self._ready: list[bytes] = []  # lines read and not given, in reverse
        self._at = segment.first_seq  # the sequence of the last of `_ready`
        self._members: Iterator[tuple[int, bytes]] | None = read_members(self._file) if self.sealed else None

    def log_id(self) -> str:
        """What the segment's first record says."""
        if self.sealed:
            _, data = next(read_members(self._file), (0, b""))
        else:
            data = self._file.pread(_READ_BYTES // 8, 0)
        try:
            facts = decode_facts(data.partition(b"\n")[0])
            details = msgspec.json.decode(facts.details, type=SegmentDetails)
        except (BadInput, msgspec.ValidationError) as why:
            raise AuditCorruption(
                f"audit log damaged: {self.name!r} does not begin as a segment does: {why}",
                sequence=self.epoch,
                file=self.name,
            ) from why
        return details.log_id

    def lines(self, seq: int, most: int, durable: int) -> list[bytes]:
        """Lines from *seq* on, at most *most*, as far as they are in the file; none at its end.

        Nothing behind *durable* is kept: a recovery may write it anew.
        """
        while self._ready or self._more(durable):
            passed = min(seq - self._at, len(self._ready))
            if passed:
                del self._ready[-passed:]
                self._at += passed
                continue
            taken = self._ready[: -most - 1 : -1]
            del self._ready[-len(taken) :]
            self._at += len(taken)
            return taken
        return []

    def _more(self, durable: int) -> bool:
        if self._members is None:
            ready = self._raw_lines(durable - self._at + 1)
        else:
            self.offset, data = next(self._members, (0, b""))
            ready = data[:-1].split(b"\n") if data else []
        ready.reverse()
        self._ready = ready
        return bool(ready)

    def _raw_lines(self, most: int) -> list[bytes]:
        """The next lines of a raw file, at most *most*; none at the filler or at the end."""
        file: File = self._file
        data = file.pread(_READ_BYTES if most > _FEW else MEMBER_BYTES, self._end)
        if data[:1] == b"\n":
            return []
        # Filler reaches to the end of its file, so that what does not end with some holds none.
        cut = len(data.rstrip(b"\n")) + 1 if data.endswith(b"\n\n") else data.rfind(b"\n") + 1
        if not cut:
            if len(data) >= MEMBER_BYTES:
                raise endless_line(file, self._end)
            return []
        lines = data[: cut - 1].split(b"\n")
        if len(lines) > most:
            del lines[most:]
            cut = sum(map(len, lines)) + most
        self.offset = self._end
        self._end += cut
        return lines

    def close(self) -> None:
        """Give up the file."""
        self._file.close()


def went_back(durable: int, seen: int, where: str) -> AuditCorruption:
    """A log that ends before a sequence that was durable."""
    return AuditCorruption(
        f"audit log damaged: the head of {where!r} says {durable}, though sequence {seen} was durable",
        sequence=durable + 1,
        file=HEAD_NAME,
        hint="it was cut, or a copy was put in its place; compare it with an archive, then rebuild the lake",
    )
