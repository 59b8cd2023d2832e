"""Leave to call, as every adapter gives and settles it: at a breaker, or past it and counted all the same.

Beside it the two rules that hold for every call to a venue once it has ended: what only a person can mend latches the
breaker, and which calls fail because their record could not be written.
"""

from __future__ import annotations

from typing import Protocol

from holdfast.breaker.breaker import Permit, TradingCircuitBreaker
from holdfast.breaker.machine import Verdict
from holdfast.core.errors import AuditError, AuditWriteError


class Counted(Protocol):
    """Where a call's verdict goes."""

    def settle(self, verdict: Verdict, reason: str = "") -> None:
        """Hear how the call ended."""
        ...


class Observer:
    """Counts, at *breaker* and its parents, a call that goes whatever the breaker says."""

    def __init__(self, breaker: TradingCircuitBreaker) -> None:
        self._breaker = breaker

    def settle(self, verdict: Verdict, reason: str = "") -> None:
        """Tell the breaker."""
        self._breaker.observe(verdict, reason)


class PlacePermit:
    """Leave to place one order; settled by the placement, or given back."""

    def __init__(self, counted: Permit | Observer) -> None:
        self._counted: Permit | Observer | None = counted

    def settle(self, verdict: Verdict, reason: str = "") -> None:
        """Tell the breakers how the placement ended; only the first word is heard."""
        counted, self._counted = self._counted, None
        if counted is not None:
            counted.settle(verdict, reason)

    def ignored(self) -> None:
        """Give it back: nothing was sent, nothing is counted."""
        counted, self._counted = self._counted, None
        if isinstance(counted, Permit):
            counted.withdraw()


def settle(
    permit: Counted, breaker: TradingCircuitBreaker, verdict: Verdict, error: str, *, component: str
) -> None:
    """Tell how a call ended; one that only a person can mend counts as a failure and latches *breaker*.

    *breaker* is the venue's own, not a keyed child below it: a person releases one, by its name.
    """
    if verdict is Verdict.LATCH:
        permit.settle(Verdict.FAILURE, error)
        breaker.latch(error, component)
    else:
        permit.settle(verdict, error)


def fails_its_call(error: AuditError, *, is_read: bool) -> bool:
    """Whether a call whose record met *error* fails with it: a read does, where the log was never opened.

    The answer of a cancel or a placement must reach its caller, and a poisoned log still lets people look: whoever
    watches the log has halted new risk by now. A log that never opened is a mistake to tell.
    """
    return is_read and not isinstance(error, AuditWriteError)
