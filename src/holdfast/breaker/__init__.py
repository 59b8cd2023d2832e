"""Stop calling what is failing: one breaker per dependency, opened by failures, closed by probes.

The names below are imported when they are first used; the process-wide `registry` is a name of the face, because here
it is a module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.core.lazy import names_of

if TYPE_CHECKING:
    from holdfast.breaker.breaker import TradingCircuitBreaker
    from holdfast.breaker.config import CircuitBreakerConfig
    from holdfast.breaker.registry import BreakerRegistry
    from holdfast.core.errors import CircuitBreakerOpenError
    from holdfast.defaults import (
        gemini_breaker,
        kalshi_breaker,
        polymarket_breaker,
        sportradar_breaker,
    )

_HOME = {
    "BreakerRegistry": "holdfast.breaker.registry",
    "CircuitBreakerConfig": "holdfast.breaker.config",
    "CircuitBreakerOpenError": "holdfast.core.errors",
    "TradingCircuitBreaker": "holdfast.breaker.breaker",
    "gemini_breaker": "holdfast.defaults",
    "kalshi_breaker": "holdfast.defaults",
    "polymarket_breaker": "holdfast.defaults",
    "sportradar_breaker": "holdfast.defaults",
}

__all__ = [
    "BreakerRegistry",
    "CircuitBreakerConfig",
    "CircuitBreakerOpenError",
    "TradingCircuitBreaker",
    "gemini_breaker",
    "kalshi_breaker",
    "polymarket_breaker",
    "sportradar_breaker",
]

__getattr__ = names_of(__name__, _HOME)
