"""What waits for one table's next commit, and how far the table is with each journal.

Promise: a row waits here only while the table's watermark does not cover it. After a lost commit, or one whose
outcome nobody knows, the table itself is asked before the next one, and what it covers is dropped here.
"""

from __future__ import annotations

from holdfast.lake.columns import Made, joined
from holdfast.lake.commit import Lost, Span, TableWriter


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
        self._waiting: list[tuple[str, Made]] = []  # with the journal's id, as they were read
        self._unsure = False

    def __len__(self) -> int:
        """How many rows wait."""
        return sum(len(made.seqs) for _, made in self._waiting)

    def begin(self, log_id: str, now_ns: int) -> None:
        """Ask the table how far it is with journal *log_id*."""
        self.watermarks[log_id] = self.writer.watermark(log_id)
        self.told_ns = now_ns

    def take(self, log_id: str, made: Made, now_ns: int) -> None:
        """Let rows of journal *log_id* wait, but those that the table has."""
        made = made.behind(self.watermarks[log_id])
        if not made.seqs:
            return
        if not self._waiting:
            self.since_ns = now_ns
        self._waiting.append((log_id, made))

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
        self.writer.commit(joined((made.rows for _, made in self._waiting), self.writer.table), spans)
        self._unsure = False
        for span in spans:
            self.watermarks[span.log_id] = span.last
        self._waiting = []
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
        left = ((log_id, made.behind(self.watermarks[log_id])) for log_id, made in self._waiting)
        self._waiting = [(log_id, made) for log_id, made in left if made.seqs]
        self.since_ns = now_ns  # a rival is at work: let it
        self._unsure = False
        return back

    def drop(self, log_id: str) -> None:
        """Let the rows of journal *log_id* go."""
        self._waiting = [(one, made) for one, made in self._waiting if one != log_id]

    def _spans(self, reached: dict[str, Reached]) -> list[Span]:
        spans: list[Span] = []
        for log_id, at in reached.items():
            first = self.watermarks[log_id] + 1
            if at.seq >= first:
                leaves = [leaf for one, made in self._waiting if one == log_id for leaf in made.leaves]
                spans.append(Span(log_id, first, at.seq, at.epoch, leaves, at.leaf))
        return spans
