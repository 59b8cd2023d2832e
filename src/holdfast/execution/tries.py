"""Trying again what could not be read: each thing for itself, at growing intervals, 1 s to 32 s.

Limits: it counts tries and knows no reasons; what is unread stays unknown meanwhile, and unknown refuses.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import msgspec

from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import CircuitBreakerOpenError, VenueError

_T = TypeVar("_T")
_DOUBLINGS = 5


class Try(msgspec.Struct):
    """How often something was tried, and when it may be tried again (clock monotonic ns).

    Attributes:
        next_ns, tries: As above.
        absences: How often in a row an order was proven absent.
        alarmed: Whether a person was told.
    """

    next_ns: int = 0
    tries: int = 0
    absences: int = 0
    alarmed: bool = False


class Tries:
    """Everything that is tried again, by name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, Try] = {}

    def of(self, what: str) -> Try:
        """How *what* went so far."""
        return self._known.setdefault(what, Try())

    def is_due(self, what: str) -> bool:
        """Whether *what* should be tried again now; each try doubles the wait."""
        known, now_ns = self.of(what), self._clock.monotonic_ns()
        if now_ns < known.next_ns:
            return False
        known.next_ns = now_ns + (NANOS << min(known.tries, _DOUBLINGS))
        known.tries += 1
        return True

    def forget(self, what: str) -> None:
        """*what* went well, or concerns nobody any more."""
        self._known.pop(what, None)


async def quietly(reading: Awaitable[_T]) -> _T | None:
    """None when the venue could not be read now; what is unread stays unknown, and unknown refuses."""
    try:
        return await reading
    except (VenueError, CircuitBreakerOpenError):
        return None
