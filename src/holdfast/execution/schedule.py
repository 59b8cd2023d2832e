"""When recurring work is due, in market time that may jump.

A task is due at its first question and then once per period, counted from the first: however far time jumps (a
recording's night, a machine that slept), one question finds it due once, never once per period missed. Time that
repeats or steps back makes nothing due.

Limits: a schedule knows no sessions; whoever asks decides whether a market is open.
"""

from __future__ import annotations

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput

ENTRY_SECS = 3600
MONITOR_SECS = 30
EXIT_SECS = 60


class Every:
    """Due once per period.

    Args:
        period_secs: Length of the period, whole seconds, at least 1.
        last_ns: When it was done last, UTC ns, for work that a restart must not do again at once; None is never.
    """

    def __init__(self, period_secs: int, *, last_ns: int | None = None) -> None:
        if period_secs < 1:
            raise BadInput(f"period of {period_secs} s is below 1 s", hint="give whole seconds, 1 or more")
        self.period_ns = period_secs * NANOS
        self._next_ns: int | None = None if last_ns is None else last_ns + self.period_ns

    def is_waiting(self, now_ns: int) -> bool:
        """Whether the work is not due yet at *now_ns*; asking does nothing."""
        return self._next_ns is not None and now_ns < self._next_ns

    def is_due(self, now_ns: int) -> bool:
        """Whether the work is due at *now_ns* (UTC); asking counts as doing it."""
        due_ns = self._next_ns
        if due_ns is None:
            self._next_ns = now_ns + self.period_ns
            return True
        if now_ns < due_ns:
            return False
        self._next_ns = now_ns + self.period_ns - (now_ns - due_ns) % self.period_ns
        return True
