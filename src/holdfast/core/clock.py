"""Time as an argument.

Deadlines and waits use `monotonic_ns`; records use `now_ns` (UTC). Whoever needs time takes a `Clock`; only
the composition root and the defaults choose `SystemClock`. A venue that owns the market's time (the paper
exchange) is followed by a `ManualClock` that its messages set.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Protocol

NANOS = 1_000_000_000


class Clock(Protocol):
    """Where time comes from.

    Attributes:
        source: What the log's SEGMENT records name as their clock, for instance "system".
    """

    @property
    def source(self) -> str:
        """The name of this clock in the log."""
        ...

    def now_ns(self) -> int:
        """UTC, nanoseconds since 1970."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that never run backwards; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clocks."""

    source = "system"

    def now_ns(self) -> int:
        """UTC, nanoseconds since 1970."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC."""
        return time.monotonic_ns()


class ManualClock:
    """A clock that moves only when told: for tests, and for following a venue's market time.

    `advance` and `set_now_ns` move both readings forward; wall time alone may be stepped back with
    `step_wall_secs`, as a time server does. Safe to read from any thread.
    """

    def __init__(self, now_ns: int = 1_763_634_000 * NANOS, *, source: str = "manual") -> None:
        self.source = source
        self._now_ns = now_ns
        self._monotonic_ns = 0
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        """UTC, nanoseconds since 1970."""
        return self._now_ns

    def monotonic_ns(self) -> int:
        """Nanoseconds since this clock was made."""
        return self._monotonic_ns

    def advance(self, secs: float) -> None:
        """Move both readings *secs* seconds forward; negative values are refused."""
        if secs < 0:
            raise ValueError(f"time does not run backwards: {secs}")
        self.set_now_ns(self._now_ns + round(secs * NANOS))

    def set_now_ns(self, now_ns: int) -> None:
        """Move both readings forward so that `now_ns()` is *now_ns*; an earlier time changes nothing."""
        with self._lock:
            forward = max(0, now_ns - self._now_ns)
            self._now_ns += forward
            self._monotonic_ns += forward

    def step_wall_secs(self, secs: float) -> None:
        """Step the wall reading alone, either way, as a time server does."""
        with self._lock:
            self._now_ns += round(secs * NANOS)


def utc(ns: int) -> datetime:
    """*ns* nanoseconds since 1970 as an aware UTC datetime, cut to microseconds."""
    secs, rest = divmod(ns, NANOS)
    return datetime.fromtimestamp(secs, UTC).replace(microsecond=rest // 1000)


def iso_utc(ns: int) -> str:
    """*ns* as ISO 8601 with milliseconds and Z: "2026-11-20T10:20:00.123Z"."""
    return utc(ns).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ns % NANOS // 1_000_000:03d}Z"
