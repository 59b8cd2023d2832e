"""The walk over the sequence: what comes next, what is damage, what lies beyond the head.

Damage comes in runs: a run begins at the first line that is not the one expected and ends at the next record that
stands in its place. A run is one problem, named by the first sequence it took. What is wrong beyond the head is
kept apart, as the tail: whether it is a writer at work, a torn tail or damage is known only at the end.

Promise: plain bookkeeping, no I/O. One course goes through a whole log, or through one segment alone in a child
process; the latter counts only where nothing at all was wrong (`is_plain`).
"""

from __future__ import annotations

from typing import NamedTuple

from holdfast.audit.head import HEAD_NAME, HeadMark, HeadState

MAX_PROBLEMS = 1000
"""More problems are counted, not kept."""


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        sequence: The record concerned, or 0 where none is.
        file: Its file's name.
        offset: Byte offset in the raw file; in a compressed one, of the gzip member.
        reason: What is wrong, one sentence.
    """

    sequence: int
    file: str
    offset: int
    reason: str

    def order(self) -> tuple[int, int, str, int]:
        """The order in which problems are named first: by sequence, then by kind of file, name and offset.

        Problems without sequence come behind all others.
        """
        return (self.sequence or 1 << 63, _kind(self.file), self.file, self.offset)

    def __str__(self) -> str:
        """As the command line prints it."""
        named = f"sequence {self.sequence} in " if self.sequence else ""
        return f"{named}{self.file!r} at byte {self.offset}: {self.reason}"


def _kind(file: str) -> int:
    """The place of a file's kind among the others: head, segments, histories, and what else lies there."""
    if file.endswith((".log", ".log.gz", ".pruned")):
        return 1
    for kind, ending in ((2, ".checkpoints"), (4, ".idx")):
        if file.endswith(ending) and file.startswith("audit_"):
            return kind
    return {HEAD_NAME: 0, "checkpoint": 3, "tile": 5, "quarantine": 6, "run": 7}.get(
        file.partition("/")[0], 8
    )


class Course:
    """Where in the sequence a verification stands, and what it found wrong on the way.

    Args:
        mark: The head as it was when verification began.
        expected: The first sequence of the walk.

    Attributes:
        mark: The same.
        expected: The sequence that comes next.
        total: Valid records in their place so far.
        corrupted: Records that are damaged, missing or out of place.
        highest_synced: The highest `synced` of any valid line.
        problems: What is wrong, in the order found, at most `MAX_PROBLEMS`.
        problem_count: How many there were.
        run_open: Whether the walk stands inside a run of damage.
        tail: What is wrong beyond the head.
        filler: Where the last file that held lines went over into filler.
        last_place: File and offset where the walk stands.
    """

    def __init__(self, mark: HeadMark | None, expected: int = 1) -> None:
        self.mark = mark
        self.expected = expected
        self.total = 0
        self.corrupted = 0
        self.highest_synced = 0
        self.problems: list[Problem] = []
        self.problem_count = 0
        self.run_open = False
        self.tail: list[Problem] = []
        self.filler: tuple[str, int] | None = None
        self.last_place: tuple[str, int] = (HEAD_NAME, 0)

    @property
    def promised(self) -> int:
        """The highest sequence that the head promises."""
        return self.mark.sequence if self.mark is not None else 0

    @property
    def durable(self) -> int:
        """Up to where what is wrong is damage; everywhere, where the head that would say so is lost."""
        return self.mark.sequence if self.mark is not None else 1 << 62

    @property
    def is_closed(self) -> bool:
        """Whether the last writer ended in order."""
        return self.mark is not None and self.mark.state is HeadState.CLOSED

    @property
    def is_plain(self) -> bool:
        """Whether nothing was wrong so far, beyond the head included."""
        return not (self.problem_count or self.tail or self.run_open or self.corrupted)

    def note(self, sequence: int, file: str, offset: int, reason: str) -> None:
        """Something is wrong."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(sequence, file, offset, reason))

    def damage(self, file: str, offset: int, reason: str, *, again: bool = False) -> None:
        """The expected record is not there; *again*: say so even inside a run of damage."""
        if self.expected > self.durable:
            if len(self.tail) < MAX_PROBLEMS:
                self.tail.append(Problem(self.expected, file, offset, reason))
        elif again or not self.run_open:
            self.note(self.expected, file, offset, reason)
            self.run_open = True

    def skip_to(self, sequence: int) -> None:
        """The records before *sequence* are lost; a run of damage ends here."""
        self.corrupted += sequence - self.expected
        self.expected = sequence
        self.run_open = False

    def take(self, count: int) -> None:
        """The next *count* records stand in their place."""
        self.expected += count
        self.total += count
        self.run_open = False

    def enter(self, first_seq: int, file: str) -> None:
        """A file begins; what should stand before its first sequence does not follow any more."""
        if first_seq == self.expected:
            return
        if first_seq < self.expected or self.expected > self.durable:
            self.damage(file, 0, f"begins at sequence {first_seq} where {self.expected} belongs")
            return
        if not self.run_open:
            self.damage(file, 0, f"missing: the next file begins at sequence {first_seq}")
        if first_seq <= self.durable:
            self.skip_to(first_seq)

    def end(self) -> None:
        """The last file is read: what the head promises beyond it is missing."""
        if self.expected <= self.promised:
            if not self.run_open:
                self.damage(*self.last_place, f"missing: the head promises records up to {self.promised}")
            self.corrupted += self.promised - self.expected + 1
