"""The flusher: the one thread that writes and syncs what nobody waits for.

Promise: without any waiter, buffered records are written within 10 ms and unsynced ones synced within 100 ms; a
record of an event loop's task is served as soon as it is queued; filler lies ahead of the lines; a UTC day that
is over ends its segment. Whatever stops this thread poisons the log.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from holdfast.audit.clockwatch import ClockWatch, Reading
from holdfast.audit.commit import IDLE_SECS
from holdfast.audit.format import LINE_OVERHEAD, encode_details
from holdfast.audit.keeper import Keeper
from holdfast.audit.schemas import RecordType
from holdfast.core.errors import AuditError

if TYPE_CHECKING:
    from holdfast.audit.seal import Sealer

_WRITE_WITHIN_SECS = 0.01
_SYNC_EVERY_ROUNDS = 9


class Flusher(Keeper):
    """A log with its flusher; `_stopping` and the `_wake` event end it."""

    _flusher: threading.Thread | None = None
    _sealer: Sealer | None = None
    _clock_watch: ClockWatch

    def _run_flusher(self) -> None:
        rounds = 0
        try:
            while self._state == "open" and not self._stopping:
                with self._mutex:
                    # A batch that is led has waiters: whatever became of their leader, they are served.
                    pending = self._batch.led or self._queue.last_seq > self._durable
                    idle = self._flusher_idle = not (pending or self._wanted or self._segment.filler_wanted)
                kicked = self._wake.wait(IDLE_SECS if idle else _WRITE_WITHIN_SECS)
                self._wake.clear()
                with self._mutex:
                    wanted, self._wanted = self._wanted, False
                if idle and kicked and not wanted:
                    continue  # somebody began to write; give it the 10 ms to gather
                rounds = self._flush(rounds, wanted=wanted)
        except AuditError:
            pass  # poisoned: whoever waited has been told
        except BaseException as why:  # noqa: BLE001  a task ends here, and poisons
            self._poison(why)
        if self._state == "poisoned":
            self._poison(AuditError(self._failure))
            self._let_go()
            self._tell_poisoned()

    def _flush(self, rounds: int, *, wanted: bool) -> int:
        """One round of the flusher; returns for how many rounds something has been unsynced."""
        self._watch_clock()
        if wanted and self._batch.led:
            self._commit()
        elif self._queue.items:
            self._write_out(self._queue.last_seq)
        else:
            with self._io:
                self._hash_written()
            self.tick()
        if self._rotated and self._sealer is not None:
            self._tell_sealer(self._sealer)
        if self._segment.filler_wanted or self._segment.space_low:
            self._segment.fill_ahead(self._sync, lambda: self._state == "open")
        if self._written <= self._durable and not self._batch.led:
            return 0
        if rounds + 1 < _SYNC_EVERY_ROUNDS:
            return rounds + 1
        self.sync()
        return 0

    def _watch_clock(self) -> None:
        """Queue a CLOCK_STEP record where the wall clock was stepped since the last round."""
        clock = self._clock
        step = self._clock_watch.look(Reading(clock.monotonic_ns(), clock.now_ns(), clock.monotonic_ns()))
        if step is not None:
            with self._mutex:
                if self._state == "open":
                    middle = self._middle(RecordType.CLOCK_STEP, "", "journal")
                    body = encode_details(step.details())
                    bound = len(middle) + len(body) + LINE_OVERHEAD
                    self._queue.add(clock.now_ns(), middle, body, bound, None)

    def _tell_sealer(self, sealer: Sealer) -> None:
        with self._io:
            rotated, self._rotated = self._rotated, []
        for name in rotated:
            sealer.rotated(name)

    def tick(self) -> None:
        """Rotate if the UTC day of the current segment is over; also done once a second while idle."""
        with self._mutex:
            now = self._clock.now_ns()
            if self._state != "open" or not self._queue.day_is_over(now):
                return
            self._queue.plan_segment(now)
        self.sync()

    def sync(self) -> None:
        """Return once everything appended before is synced.

        Raises:
            AuditWriteError: The write or sync failed, now or before.
        """
        if self._state == "poisoned" or self._is_forked():
            raise self._refusal()
        if self._state == "open":
            self._commit()
