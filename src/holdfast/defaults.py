"""The process-wide log, registry and breakers, each built on first use.

Where a fixed signature leaves them out (`KalshiClient()`, `OrderRouter(client)`, `RiskManager()`), the
constructor asks here. The log is the configured directory (`logs/audit` unless `holdfast.toml` says
otherwise); reading it takes no lock, the first record does. The four breakers stand in the registry from
its first use.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.config import Config, key_home, load_config, people_home
from holdfast.core.clock import Clock, SystemClock

if TYPE_CHECKING:
    from holdfast.audit.logger import AuditLogger
    from holdfast.breaker.breaker import TradingCircuitBreaker
    from holdfast.breaker.registry import BreakerRegistry
    from holdfast.risk.limits import RiskLimits

    audit_logger: AuditLogger
    registry: BreakerRegistry
    kalshi_breaker: TradingCircuitBreaker
    polymarket_breaker: TradingCircuitBreaker
    sportradar_breaker: TradingCircuitBreaker
    gemini_breaker: TradingCircuitBreaker

_BREAKERS = {
    "kalshi_breaker": "kalshi_api",
    "polymarket_breaker": "polymarket_api",
    "sportradar_breaker": "sportradar_api",
    "gemini_breaker": "gemini_api",
}
_lock = threading.RLock()  # a forked child takes a new one: see the end of this file
_built: dict[str, object] = {}
_built_by = 0


def default_clock() -> Clock:
    """The machine's clock."""
    return SystemClock()


def default_config() -> Config:
    """`holdfast.toml` of the working directory, read once."""
    with _lock:
        config = _kept("config")
        if not isinstance(config, Config):
            config = load_config()
            _built["config"] = config
        return config


def configured_limits() -> RiskLimits | None:
    """The limits of `holdfast.toml`, or None where it sets none."""
    config = default_config()
    return config.limits.risk_limits() if config.explicit_limits else None


def default_audit_logger() -> AuditLogger:
    """The log of this process, in the configured directory."""
    from holdfast.anchors.marks import anchor_marks  # noqa: PLC0415  reading defaults must not cost the log
    from holdfast.audit.keys import KeyHome  # noqa: PLC0415  as above
    from holdfast.audit.logger import AuditLogger  # noqa: PLC0415  as above
    from holdfast.audit.people import PersonalData  # noqa: PLC0415  as above
    from holdfast.audit.wal import WriteAheadLog  # noqa: PLC0415  as above

    with _lock:
        logger = _kept("audit_logger")
        if not isinstance(logger, AuditLogger):
            config = default_config()
            # Where the first key of a log was made is said once, where a programme looks for warnings.
            keys = KeyHome(key_home(), tell=logging.getLogger("holdfast.audit").warning)
            marks = anchor_marks(keys, config.anchors.sinks)
            wal = WriteAheadLog(Path(config.paths.audit), clock=default_clock(), keys=keys, marks=marks)
            atexit.register(wal.close)
            logger = AuditLogger(
                wal,
                user=config.kalshi.member_id or config.kalshi.key_id or "unknown",
                personal=PersonalData(people_home(), config.audit.personal_fields),
            )
            _built["audit_logger"] = logger
        return logger


def default_registry() -> BreakerRegistry:
    """The breakers of this process, the four presets among them."""
    from holdfast.breaker.registry import BreakerRegistry, standard_registry  # noqa: PLC0415  as above

    with _lock:
        breakers = _kept("registry")
        if not isinstance(breakers, BreakerRegistry):
            breakers = standard_registry(clock=default_clock(), audit=default_audit_logger())
            _built["registry"] = breakers
        return breakers


def _kept(name: str) -> object:
    """What this process built under *name*; a forked child starts anew and never writes its parent's log."""
    global _built_by  # noqa: PLW0603  the one place that remembers whose objects these are
    if _built_by != os.getpid():
        _built.clear()
        _built_by = os.getpid()
    return _built.get(name)


def __getattr__(name: str) -> object:
    if name == "audit_logger":
        return default_audit_logger()
    if name == "registry":
        return default_registry()
    if name in _BREAKERS:
        return default_registry().get(_BREAKERS[name])
    raise AttributeError(f"module 'holdfast.defaults' has no attribute {name!r}")


def _renew_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock, and nobody is left to release it."""
    global _lock  # noqa: PLW0603  the child's own from here on
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)
