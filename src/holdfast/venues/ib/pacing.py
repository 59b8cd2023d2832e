"""How often the gateway may be written to: fewer messages a second than it takes, shares of them kept for what matters.

The gateway takes 50 messages a second and ends the connection of whoever insists. Every message of ours takes its turn
here, the few of a handshake apart: in no second are there more than `MOST + PER_SECOND`. The library's own limit is off
(`library.prepared`): it would hold an order back and send it later, after every check of ours.

Subscriptions leave room for orders, orders for reads, and reads for cancels. An order that finds no room is not sent;
subscriptions and reads wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum

from holdfast.core.clock import NANOS, Clock

PER_SECOND = 25
MOST = 20
"""At once, after a pause."""
PAUSE_SECS = 0.05


class Message(Enum):
    """What is written."""

    DATA = "data"
    ORDER = "order"
    READ = "read"
    CANCEL = "cancel"


KEPT: Mapping[Message, int] = {Message.DATA: 12, Message.ORDER: 8, Message.READ: 4, Message.CANCEL: 0}
"""What each kind leaves in the bucket for those after it."""


class Pace:
    """A bucket of messages, refilled by time.

    Args:
        clock: In which a second is the gateway's second: the machine's own.
        sleep: Waits for a turn, on the same clock.
    """

    def __init__(self, clock: Clock, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        # A message is a second of credit at rate one: integers, and no drift.
        self._credit_ns = self._most_ns = MOST * NANOS
        self._read_ns = clock.monotonic_ns()
        self._held_until_ns = 0

    def take(self, message: Message) -> bool:
        """Whether one such message may go now; it is taken out where it may."""
        now_ns = self._clock.monotonic_ns()
        self._credit_ns = min(self._most_ns, self._credit_ns + (now_ns - self._read_ns) * PER_SECOND)
        self._read_ns = now_ns
        if now_ns < self._held_until_ns and message is not Message.CANCEL:
            return False
        if self._credit_ns < (1 + KEPT[message]) * NANOS:
            return False
        self._credit_ns -= NANOS
        return True

    async def turn(self, message: Message) -> None:
        """Return when one such message may go; it is taken out."""
        while not self.take(message):
            await self._sleep(PAUSE_SECS)

    def hold(self, secs: float = 1.0) -> None:
        """The gateway complained: nothing but cancels for *secs*."""
        self._held_until_ns = self._clock.monotonic_ns() + round(secs * NANOS)
