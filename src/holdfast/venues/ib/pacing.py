"""How often the gateway may be written to: fewer messages a second than it takes, shares of them kept for what matters.

The gateway takes 50 messages a second and ends the connection of whoever insists. The library holds back what is
beyond 45 and sends it later, by itself: an order held back there would leave after every check of ours. This
bucket is smaller than that. Subscriptions leave room for orders, and orders leave room for cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from holdfast.core.clock import NANOS, Clock

PER_SECOND = 40


class Message(Enum):
    """What is written."""

    DATA = "data"
    ORDER = "order"
    CANCEL = "cancel"


KEPT: Mapping[Message, int] = {Message.DATA: 20, Message.ORDER: 10, Message.CANCEL: 0}
"""What each kind leaves in the bucket for those after it."""


class Pace:
    """A bucket of messages, refilled by time.

    Args:
        clock: In which a second is the gateway's second: the machine's own.
        per_second: Messages a second, and at most at once.
    """

    def __init__(self, clock: Clock, *, per_second: int = PER_SECOND) -> None:
        self._clock = clock
        self._rate = per_second
        # A message is a second of credit at rate one: integers, and no drift.
        self._credit_ns = self._most_ns = per_second * NANOS
        self._read_ns = clock.monotonic_ns()
        self._held_until_ns = 0

    def take(self, message: Message) -> bool:
        """Whether one such message may go now; it is taken out where it may."""
        now_ns = self._clock.monotonic_ns()
        self._credit_ns = min(self._most_ns, self._credit_ns + (now_ns - self._read_ns) * self._rate)
        self._read_ns = now_ns
        if now_ns < self._held_until_ns and message is not Message.CANCEL:
            return False
        if self._credit_ns < (1 + KEPT[message]) * NANOS:
            return False
        self._credit_ns -= NANOS
        return True

    def hold(self, secs: float = 1.0) -> None:
        """The gateway complained: nothing but cancels for *secs*."""
        self._held_until_ns = self._clock.monotonic_ns() + round(secs * NANOS)
