"""holdfast: the safety runtime between a trading strategy and real money.

The names below are the public surface. Each is imported when it is first used, so that `import holdfast`,
`--help` and the log verbs cost nothing they do not need. `audit_logger`, `registry` and the four breakers are
the process-wide ones, built on first use from `holdfast.toml` and the environment.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from holdfast.audit.logger import AuditLogger
    from holdfast.audit.wal import WriteAheadLog
    from holdfast.breaker.breaker import TradingCircuitBreaker
    from holdfast.breaker.config import CircuitBreakerConfig
    from holdfast.breaker.registry import BreakerRegistry
    from holdfast.core.errors import (
        AuditCorruption,
        AuditError,
        AuditWriteError,
        BadInput,
        CircuitBreakerOpenError,
        ConfigError,
        OrderDenied,
        TradingError,
        VenueAnswerUnknown,
        VenueError,
        VenueRejected,
        VenueUnreachable,
    )
    from holdfast.core.signals import Signal
    from holdfast.defaults import (
        audit_logger,
        gemini_breaker,
        kalshi_breaker,
        polymarket_breaker,
        registry,
        sportradar_breaker,
    )
    from holdfast.execution.desk import OptionsDesk
    from holdfast.execution.engine import OrderExecutionEngine
    from holdfast.execution.entry import EntryWorkflow
    from holdfast.execution.monitoring import PositionMonitoringWorkflow
    from holdfast.execution.router import AsyncOrderRouter, OrderRouter
    from holdfast.execution.strategy import Strategy
    from holdfast.lake.tables import RiskEventsTable
    from holdfast.risk.event_logger import RiskEventLogger
    from holdfast.risk.events import RiskEvent, RiskEventType
    from holdfast.risk.limits import RiskLimitsConfig
    from holdfast.risk.manager import RiskManager
    from holdfast.risk.portfolio import PortfolioLimitsChecker
    from holdfast.risk.stop_manager import TrailingStopManager
    from holdfast.risk.stop_rules import TrailingStopConfig
    from holdfast.risk.trailing_stop import TrailingStop
    from holdfast.venues.kalshi.blocking import KalshiClient
    from holdfast.venues.kalshi.client import AsyncKalshiClient

_ERRORS = "holdfast.core.errors"
_DEFAULTS = "holdfast.defaults"
_HOME = {
    "AsyncKalshiClient": "holdfast.venues.kalshi.client",
    "AsyncOrderRouter": "holdfast.execution.router",
    "AuditCorruption": _ERRORS,
    "AuditError": _ERRORS,
    "AuditLogger": "holdfast.audit.logger",
    "AuditWriteError": _ERRORS,
    "BadInput": _ERRORS,
    "BreakerRegistry": "holdfast.breaker.registry",
    "CircuitBreakerConfig": "holdfast.breaker.config",
    "CircuitBreakerOpenError": _ERRORS,
    "ConfigError": _ERRORS,
    "EntryWorkflow": "holdfast.execution.entry",
    "KalshiClient": "holdfast.venues.kalshi.blocking",
    "OptionsDesk": "holdfast.execution.desk",
    "OrderDenied": _ERRORS,
    "OrderExecutionEngine": "holdfast.execution.engine",
    "OrderRouter": "holdfast.execution.router",
    "PortfolioLimitsChecker": "holdfast.risk.portfolio",
    "PositionMonitoringWorkflow": "holdfast.execution.monitoring",
    "RiskEvent": "holdfast.risk.events",
    "RiskEventLogger": "holdfast.risk.event_logger",
    "RiskEventType": "holdfast.risk.events",
    "RiskEventsTable": "holdfast.lake.tables",
    "RiskLimitsConfig": "holdfast.risk.limits",
    "RiskManager": "holdfast.risk.manager",
    "Signal": "holdfast.core.signals",
    "Strategy": "holdfast.execution.strategy",
    "TradingCircuitBreaker": "holdfast.breaker.breaker",
    "TradingError": _ERRORS,
    "TrailingStop": "holdfast.risk.trailing_stop",
    "TrailingStopConfig": "holdfast.risk.stop_rules",
    "TrailingStopManager": "holdfast.risk.stop_manager",
    "VenueAnswerUnknown": _ERRORS,
    "VenueError": _ERRORS,
    "VenueRejected": _ERRORS,
    "VenueUnreachable": _ERRORS,
    "WriteAheadLog": "holdfast.audit.wal",
    "audit_logger": _DEFAULTS,
    "gemini_breaker": _DEFAULTS,
    "kalshi_breaker": _DEFAULTS,
    "polymarket_breaker": _DEFAULTS,
    "registry": _DEFAULTS,
    "sportradar_breaker": _DEFAULTS,
}

__all__ = [
    "AsyncKalshiClient",
    "AsyncOrderRouter",
    "AuditCorruption",
    "AuditError",
    "AuditLogger",
    "AuditWriteError",
    "BadInput",
    "BreakerRegistry",
    "CircuitBreakerConfig",
    "CircuitBreakerOpenError",
    "ConfigError",
    "EntryWorkflow",
    "KalshiClient",
    "OptionsDesk",
    "OrderDenied",
    "OrderExecutionEngine",
    "OrderRouter",
    "PortfolioLimitsChecker",
    "PositionMonitoringWorkflow",
    "RiskEvent",
    "RiskEventLogger",
    "RiskEventType",
    "RiskEventsTable",
    "RiskLimitsConfig",
    "RiskManager",
    "Signal",
    "Strategy",
    "TradingCircuitBreaker",
    "TradingError",
    "TrailingStop",
    "TrailingStopConfig",
    "TrailingStopManager",
    "VenueAnswerUnknown",
    "VenueError",
    "VenueRejected",
    "VenueUnreachable",
    "WriteAheadLog",
    "audit_logger",
    "gemini_breaker",
    "kalshi_breaker",
    "polymarket_breaker",
    "registry",
    "sportradar_breaker",
]


def __getattr__(name: str) -> Any:
    """Import *name* from where it lives."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
