"""What waits for one table's next commit, and how far the table is with each journal.

Promise: a row waits here only while the table's watermark does not cover it. After a lost commit, or one whose
outcome nobody knows, the table itself is asked before the next one, and what it covers is dropped here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from holdfast.lake.commit import Lost, Span, TableWriter
from holdfast.lake.rows import Row


class Reached:
    """How far one journal was read.

    Attributes:
        seq: The sequence of the last record that was read.
        epoch: The first sequence of its segment.
        leaf: Its leaf hash.
    """

    __slots__ = ("epoch", "leaf", "seq")

    def __init__(self, seq: int = 0, epoch: int = 0, leaf: bytes = b"") -> None:
        self.seq = seq
        self.epoch = epoch
        self.leaf = leaf


class Made(NamedTuple):
    """Rows of one table from one piece of a journal.

    Attributes:
        seqs: Their sequences, ascending.
        rows: They.
        leaves: The leaf hashes of their records.
    """

    seqs: list[int]
    rows: list[Row]
    leaves: list[bytes]


class Sink:
    """A table, and what waits for its next commit.

    Args:
        writer: Commits to it.

    Attributes:
        writer: As given.
        watermarks: By log id, the sequence up to which the table holds that journal's rows, as it said last.
        since_ns: When the oldest waiting row was read, monotonic.
        told_ns: When the last commit was made, monotonic.
    """

    def __init__(self, writer: TableWriter) -> None:
        self.writer = writer
        self.watermarks: dict[str, int] = {}
        self.since_ns = 0
        self.told_ns = 0
        self._rows: list[Row] = []
        self._places: list[tuple[str, int]] = []  # of each row: journal, sequence
        self._leaves: list[bytes] = []
        self._unsure = False

    def __len__(self) -> int:
        """How many rows wait."""
        return len(self._rows)

    def begin(self, log_id: str, now_ns: int) -> None:
        """Ask the table how far it is with journal *log_id*."""
        self.watermarks[log_id] = self.writer.watermark(log_id)
        self.told_ns = now_ns

    def take(self, log_id: str, made: Made, now_ns: int) -> None:
        """Let rows of journal *log_id* wait, but those that the table has."""
        covered = self.watermarks[log_id]
        skip = 0 if made.seqs[0] > covered else sum(seq <= covered for seq in made.seqs)
        if skip == len(made.seqs):
            return
        if not self._rows:
            self.since_ns = now_ns
        self._rows += made.rows[skip:]
        self._leaves += made.leaves[skip:]
        self._places += [(log_id, seq) for seq in made.seqs[skip:]]

    def untold(self, reached: dict[str, Reached]) -> int:
        """How many records were read that the table does not cover."""
        return sum(max(at.seq - self.watermarks[log_id], 0) for log_id, at in reached.items())

    def commit(self, reached: dict[str, Reached], now_ns: int) -> bool:
        """Commit what waits, and that the journals were read as far as *reached*; whether a commit was made.

        Raises:
            Lost: Others were faster, or nobody knows; `resync` before the next one.
            OSError: The disk refused; likewise.
            LakeError: The store refused; likewise.
        """
        if self._unsure:
            raise Lost("the outcome of the commit before is not known")
        spans = self._spans(reached)
        if not spans:
            return False
        self._unsure = True
        self.writer.commit(self._rows, spans)
        self._unsure = False
        for span in spans:
            self.watermarks[span.log_id] = span.last
        self._keep(())
        self.told_ns = now_ns
        return True

    def resync(self, now_ns: int) -> set[str]:
        """Open the table anew and drop what it covers; the journals whose watermark went back, to be read again."""
        self.writer.open()
        back: set[str] = set()
        for log_id, before in self.watermarks.items():
            now = self.writer.watermark(log_id)
            if now < before:
                back.add(log_id)
            self.watermarks[log_id] = now
        self.drop(lambda log_id, seq: seq <= self.watermarks[log_id])
        self.since_ns = now_ns  # a rival is at work: let it
        self._unsure = False
        return back

    def drop(self, gone: Callable[[str, int], bool]) -> None:
        """Let the rows go whose journal and sequence are *gone*."""
        self._keep([at for at, place in enumerate(self._places) if not gone(*place)])

    def _keep(self, places: Collection[int]) -> None:
        self._rows = [self._rows[at] for at in places]
        self._leaves = [self._leaves[at] for at in places]
        self._places = [self._places[at] for at in places]

    def _spans(self, reached: dict[str, Reached]) -> list[Span]:
        spans: list[Span] = []
        for log_id, at in reached.items():
            first = self.watermarks[log_id] + 1
            if at.seq >= first:
                own = zip(self._leaves, self._places, strict=True)
                leaves = [leaf for leaf, place in own if place[0] == log_id]
                spans.append(Span(log_id, first, at.seq, at.epoch, leaves, at.leaf))
        return spans
