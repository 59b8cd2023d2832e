"""Whether the wall clock was stepped: wall time held against a clock that nobody sets.

Promise: a step of more than half a second between two looks is seen once, with its size; the slow correction by
which a time server steers a clock, at most 0.05 %, never is. A machine that slept is a step forward: the
monotonic clock stood still.

Pure: the readings are arguments. The order of records is by sequence; a CLOCK_STEP record only says that their
times do not tell it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from holdfast.core.clock import NANOS

STEP_NS = NANOS // 2
"""A difference beyond this is a step; a time server itself steps only beyond 0.128 s."""


class Reading(NamedTuple):
    """Both clocks, read at one moment.

    Attributes:
        before_ns: The monotonic clock before the wall clock was read.
        wall_ns: UTC, nanoseconds since 1970.
        after_ns: The monotonic clock after it.
    """

    before_ns: int
    wall_ns: int
    after_ns: int


class Step(NamedTuple):
    """The wall clock was stepped.

    Attributes:
        before_ns: What it should have shown.
        after_ns: What it showed.
    """

    before_ns: int
    after_ns: int

    def details(self) -> dict[str, Any]:
        """The details of the CLOCK_STEP record."""
        return {
            "before_ns": self.before_ns,
            "after_ns": self.after_ns,
            "step_ns": self.after_ns - self.before_ns,
        }


class ClockWatch:
    """Remembers one reading and holds the next against it."""

    def __init__(self) -> None:
        self._last: Reading | None = None

    def look(self, reading: Reading) -> Step | None:
        """The step since the last look, or None.

        A reading that took long says nothing about when the wall clock was read; it is passed over.
        """
        if reading.after_ns - reading.before_ns > STEP_NS // 10:
            return None
        last, self._last = self._last, reading
        if last is None:
            return None
        expected = last.wall_ns + reading.before_ns - last.before_ns
        return Step(expected, reading.wall_ns) if abs(reading.wall_ns - expected) > STEP_NS else None


def step_at_start(last_ts: int, now_ns: int) -> Step | None:
    """The step back that a start sees: the last record, of *last_ts*, is of the future; 0 where there is none."""
    return Step(last_ts, now_ns) if last_ts and last_ts - now_ns > STEP_NS else None
