"""How often the gateway may be written to: fewer messages a second than it takes, some of them kept for cancels.

The gateway takes 50 messages a second and ends the connection of whoever insists. The library holds back what is
beyond 45 and sends it later, by itself: an order held back there would leave after every check of ours. This
bucket is smaller than that, so that the library never holds anything back.
"""

from __future__ import annotations

from holdfast.core.clock import NANOS, Clock

PER_SECOND = 40
FOR_CANCELS = 10


class Pace:
    """A bucket of messages, refilled by time.

    Args:
        clock: In which a second is the gateway's second: the machine's own.
        per_second: Messages a second, and at most at once.
        for_cancels: Of these, what only cancels may take.
    """

    def __init__(self, clock: Clock, *, per_second: int = PER_SECOND, for_cancels: int = FOR_CANCELS) -> None:
        self._clock = clock
        self._most_ns = per_second * NANOS
        self._rate = per_second
        self._kept_ns = for_cancels * NANOS
        # A message is a second of credit at rate one: integers, and no drift.
        self._credit_ns = self._most_ns
        self._read_ns = clock.monotonic_ns()
        self._held_until_ns = 0

    def take(self, *, cancel: bool = False) -> bool:
        """One message may go now."""
        now_ns = self._clock.monotonic_ns()
        self._credit_ns = min(self._most_ns, self._credit_ns + (now_ns - self._read_ns) * self._rate)
        self._read_ns = now_ns
        if not cancel and now_ns < self._held_until_ns:
            return False
        if self._credit_ns < NANOS + (0 if cancel else self._kept_ns):
            return False
        self._credit_ns -= NANOS
        return True

    def hold(self, secs: float = 1.0) -> None:
        """The gateway complained: nothing but cancels for *secs*."""
        self._held_until_ns = self._clock.monotonic_ns() + round(secs * NANOS)
