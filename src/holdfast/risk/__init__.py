"""Decide; never send. The account as a fold over the journal, the limits, and the one gate.

The names below are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.core.lazy import names_of

if TYPE_CHECKING:
    from holdfast.breaker.breaker import TradingCircuitBreaker
    from holdfast.breaker.config import CircuitBreakerConfig
    from holdfast.risk.event_logger import RiskEventLogger
    from holdfast.risk.events import RiskEvent, RiskEventType
    from holdfast.risk.limits import RiskLimits, RiskLimitsConfig
    from holdfast.risk.manager import RiskManager
    from holdfast.risk.portfolio import AccountRisk, PortfolioLimitsChecker, PortfolioRisk, RiskCalculator
    from holdfast.risk.stop_manager import TrailingStopManager
    from holdfast.risk.stop_rules import TrailingStopConfig
    from holdfast.risk.trailing_stop import TrailingStop, TrailingStopAction

_HOME = {
    "AccountRisk": "holdfast.risk.portfolio",
    "CircuitBreakerConfig": "holdfast.breaker.config",
    "PortfolioLimitsChecker": "holdfast.risk.portfolio",
    "PortfolioRisk": "holdfast.risk.portfolio",
    "RiskCalculator": "holdfast.risk.portfolio",
    "RiskEvent": "holdfast.risk.events",
    "RiskEventLogger": "holdfast.risk.event_logger",
    "RiskEventType": "holdfast.risk.events",
    "RiskLimits": "holdfast.risk.limits",
    "RiskLimitsConfig": "holdfast.risk.limits",
    "RiskManager": "holdfast.risk.manager",
    "TradingCircuitBreaker": "holdfast.breaker.breaker",
    "TrailingStop": "holdfast.risk.trailing_stop",
    "TrailingStopAction": "holdfast.risk.trailing_stop",
    "TrailingStopConfig": "holdfast.risk.stop_rules",
    "TrailingStopManager": "holdfast.risk.stop_manager",
}

__all__ = [
    "AccountRisk",
    "CircuitBreakerConfig",
    "PortfolioLimitsChecker",
    "PortfolioRisk",
    "RiskCalculator",
    "RiskEvent",
    "RiskEventLogger",
    "RiskEventType",
    "RiskLimits",
    "RiskLimitsConfig",
    "RiskManager",
    "TradingCircuitBreaker",
    "TrailingStop",
    "TrailingStopAction",
    "TrailingStopConfig",
    "TrailingStopManager",
]

__getattr__ = names_of(__name__, _HOME)
