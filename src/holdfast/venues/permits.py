"""Leave to call, as every adapter gives and settles it: at a breaker, or past it and counted all the same."""

from __future__ import annotations

from typing import Protocol

from holdfast.breaker.breaker import Permit, TradingCircuitBreaker
from holdfast.breaker.machine import Verdict


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
