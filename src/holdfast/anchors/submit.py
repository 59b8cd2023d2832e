"""Submitting: one log's newest checkpoint to each of its sinks, in time and again after a failure.

Promise: before anything is sent the checkpoint is held against every receipt kept, so that a log that went back is
never anchored again. A receipt is kept before it is reported. A sink that cannot be asked is asked again after 1, 2,
4 … 300 s, its own failures counted for itself; one that refused, in the usual time. A sink that has the newest
checkpoint is left alone.

Time comes from the clock; nothing here waits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from holdfast.anchors.receipts import Receipts
from holdfast.anchors.sink import AnchorSink, Outcome, Receipt, Submission, follows
from holdfast.anchors.source import LogSource
from holdfast.audit.anchor import Mark
from holdfast.audit.note import parse_checkpoint, parse_note
from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import AnchorUnreachable, AuditCorruption

EVERY_SECS = 60
FIRST_WAIT_SECS = 1.0
LONGEST_WAIT_SECS = 300.0


@dataclass(frozen=True)
class Turn:
    """When a sink is asked next.

    Attributes:
        due_ns: By the monotonic clock.
        failures: How often in a row it could not be asked.
        anchored: The size it has.
    """

    due_ns: int = 0
    failures: int = 0
    anchored: int = 0

    def after(self, receipt: Receipt, now_ns: int, every_secs: float, jitter: float) -> Turn:
        """The next turn, once the sink gave *receipt*; *jitter* is from 0 to 1."""
        if receipt.outcome is not Outcome.UNKNOWN:
            anchored = receipt.size if receipt.outcome is Outcome.ANCHORED else self.anchored
            return Turn(now_ns + round(every_secs * NANOS), 0, anchored)
        wait = min(LONGEST_WAIT_SECS, FIRST_WAIT_SECS * 2.0 ** min(self.failures, 20))
        return replace(
            self, due_ns=now_ns + round(wait * (1 + jitter / 4) * NANOS), failures=self.failures + 1
        )


class Anchorer:
    """The sinks of one log and their turns.

    Args:
        source: The log.
        sinks: Where its checkpoints go.
        receipts: Where what they confirm is kept.
        clock: When, and from when receipts count.
        every_secs: How often a sink is given a newer checkpoint.
        jitter: From 0 to 1, drawn for every wait after a failure.
    """

    def __init__(
        self,
        source: LogSource,
        sinks: Sequence[AnchorSink],
        receipts: Receipts,
        *,
        clock: Clock,
        every_secs: float = EVERY_SECS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._sinks = sinks
        self._receipts = receipts
        self._clock = clock
        self._every_secs = every_secs
        self._jitter = jitter
        self._turns = [Turn() for _ in sinks]

    def step(self) -> list[Receipt]:
        """Ask every sink whose turn it is; their answers, kept where they are good.

        Raises:
            AuditCorruption: A receipt remembers what the log does not hold.
            BadInput: The log has no checkpoint, or a receipt cannot be read.
        """
        now = self._clock.monotonic_ns()
        due = [index for index, turn in enumerate(self._turns) if turn.due_ns <= now]
        if not due:
            return []
        submission = self._checked(self._source.newest())
        answers: list[Receipt] = []
        for index in due:
            if self._turns[index].anchored == submission.checkpoint.size:
                self._turns[index] = replace(self._turns[index], due_ns=now + round(self._every_secs * NANOS))
                continue
            receipt = self._submit(self._sinks[index], submission)
            turn = self._turns[index]
            self._turns[index] = turn.after(receipt, now, self._every_secs, self._jitter())
            answers.append(receipt)
        return answers

    def wait_secs(self) -> float:
        """How long until the next turn; 0 where it is now."""
        due = min((turn.due_ns for turn in self._turns), default=0)
        return max(0.0, (due - self._clock.monotonic_ns()) / NANOS)

    def confirm(self, note: bytes) -> None:
        """Return once at least one sink has the checkpoint *note*, or a newer one, and none contradicts it.

        The log's newest checkpoint is what goes out: it covers the same records, and by its key in force.

        Raises:
            AnchorUnreachable: No sink took it.
            AuditCorruption: A sink or a receipt remembers what the log does not hold, or the log forgot *note*.
        """
        submission = self._checked(self._source.newest())
        asked = parse_checkpoint(parse_note(note).text)
        if why := follows(submission, Mark(asked.size, asked.root, "the writer")):
            raise went_back(why)
        answers = [self._submit(sink, submission) for sink in self._sinks]
        for receipt in answers:
            if receipt.outcome is Outcome.WENT_BACK:
                raise went_back(receipt.why)
        if not any(receipt.outcome is Outcome.ANCHORED for receipt in answers):
            told = "; ".join(f"{receipt.sink}: {receipt.why}" for receipt in answers)
            raise AnchorUnreachable(
                f"checkpoint of size {submission.checkpoint.size} is not anchored: {told or 'no sink is configured'}",
                hint="the record itself is durable; see [anchors] in holdfast.toml",
            )

    def _checked(self, submission: Submission) -> Submission:
        for mark in self._receipts.marks(submission.log_id):
            if mark.size > submission.checkpoint.size:
                submission = self._source.newest()  # another process may have signed and anchored meanwhile
            if why := follows(submission, mark):
                raise went_back(why)
        return submission

    def _submit(self, sink: AnchorSink, submission: Submission) -> Receipt:
        receipt = sink.submit(submission)
        if receipt.outcome is Outcome.WENT_BACK and receipt.known_size > submission.checkpoint.size:
            newer = self._source.newest()  # likewise
            if newer.checkpoint.size > submission.checkpoint.size:
                receipt = sink.submit(newer)
                submission = newer
        if receipt.outcome is Outcome.ANCHORED:
            self._receipts.keep(submission.log_id, receipt, self._clock.now_ns())
        return receipt


def went_back(why: str) -> AuditCorruption:
    """The alarm, as an error."""
    return AuditCorruption(
        f"log went back: {why}",
        hint="restore the log from its archive, or find out who exchanged it; do not go on writing it",
    )
