"""What the account was worth over the last day, so that a loss just before midnight is not forgotten just after.

A fold over valuations (cash and every position at the executable side, deposits taken out). The base of the
rolling P&L is the newest valuation that is at least 24 hours old, or the oldest known while there is none: a
journal younger than a day counts from its beginning.
"""

from __future__ import annotations

from collections import deque

from holdfast.core.clock import NANOS
from holdfast.core.money import MoneyE6

WINDOW_NS = 24 * 3600 * NANOS
VALUATION_SECS = 900
"""Between two valuations; the window's beginning is known to this precision."""


class RollingValue:
    """The account's value, deposits taken out, over a little more than the window."""

    def __init__(self) -> None:
        self._values: deque[tuple[int, MoneyE6]] = deque()

    def note(self, at_ns: int, value: MoneyE6) -> None:
        """At *at_ns* (UTC) the account was worth *value* without deposits; an earlier time than known is ignored."""
        values = self._values
        if values and at_ns < values[-1][0]:
            return
        values.append((at_ns, value))
        while len(values) > 1 and values[1][0] <= at_ns - WINDOW_NS:
            values.popleft()

    def base(self, now_ns: int) -> MoneyE6 | None:
        """What the rolling P&L at *now_ns* counts from; None before any valuation."""
        base: MoneyE6 | None = None
        for at_ns, value in self._values:
            if base is not None and at_ns > now_ns - WINDOW_NS:
                break
            base = value
        return base

    @property
    def newest_ns(self) -> int:
        """When the last valuation was taken, UTC ns; 0 before any."""
        return self._values[-1][0] if self._values else 0

    def snapshot(self) -> tuple[tuple[int, MoneyE6], ...]:
        """All that is known, oldest first."""
        return tuple(self._values)
