"""The signatures that the founding documents fix: one table, one test.

New parameters may only be keywords with defaults; a parameter without a default may gain one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any

import pytest

import holdfast
from holdfast.audit.query import AuditEntry
from holdfast.core.clock import SystemClock

REQUIRED = Parameter.empty
ANY = object()

# What is called, then its fixed parameters: positional ones in order, "*" before those that are keywords alone.
SIGNATURES: list[tuple[str, list[str], Callable[..., Any], dict[str, Any]]] = [
    (
        "KalshiClient",
        ["A1"],
        holdfast.KalshiClient,
        {
            "api_key": None,
            "private_key_path": None,
            "*": "",
            "base_url": ANY,
            "member_id": None,
            "timeout": 30.0,
        },
    ),
    ("KalshiClient.from_env", ["A1"], holdfast.KalshiClient.from_env, {}),
    ("KalshiClient.close", ["A1"], holdfast.KalshiClient.close, {"self": REQUIRED}),
    (
        "KalshiClient.get_market_data",
        ["A1"],
        holdfast.KalshiClient.get_market_data,
        {"self": REQUIRED, "ticker": REQUIRED},
    ),
    (
        "KalshiClient.place_order",
        ["A1", "A2"],
        holdfast.KalshiClient.place_order,
        {
            "self": REQUIRED,
            "ticker": REQUIRED,
            "side": REQUIRED,
            "count": REQUIRED,
            "price": REQUIRED,
            "*": "",
            "action": "buy",
        },
    ),
    ("KalshiClient.get_balance", ["A1"], holdfast.KalshiClient.get_balance, {"self": REQUIRED}),
    ("KalshiClient.get_markets", ["A1"], holdfast.KalshiClient.get_markets, {"self": REQUIRED}),
    (
        "KalshiClient.get_market",
        ["A1"],
        holdfast.KalshiClient.get_market,
        {"self": REQUIRED, "ticker": REQUIRED},
    ),
    ("OrderRouter", ["A7"], holdfast.OrderRouter, {"client": REQUIRED, "risk_manager": None}),
    (
        "OrderRouter.route_order",
        ["A7"],
        holdfast.OrderRouter.route_order,
        {"self": REQUIRED, "order": REQUIRED},
    ),
    (
        "AsyncOrderRouter.route_order",
        ["A7"],
        holdfast.AsyncOrderRouter.route_order,
        {"self": REQUIRED, "order": REQUIRED},
    ),
    (
        "RiskManager",
        ["A9"],
        holdfast.RiskManager,
        {
            "max_position_size": 100,
            "max_daily_loss": 1000,
            "user_id": "unknown",
            "*": "",
            "event_logger": None,
        },
    ),
    (
        "RiskLimitsConfig",
        ["B5"],
        holdfast.RiskLimitsConfig,
        {
            "max_portfolio_delta": 50,
            "max_portfolio_gamma": 10,
            "max_single_position_pct": 0.02,
            "max_per_symbol_delta": 20,
            "max_correlated_pct": 0.05,
            "total_exposure_cap": None,
        },
    ),
    (
        "PortfolioLimitsChecker",
        ["B4"],
        holdfast.PortfolioLimitsChecker,
        {"risk_calc": REQUIRED, "limits": REQUIRED, "event_logger": None},
    ),
    (
        "PortfolioLimitsChecker.check_entry_allowed",
        ["B4"],
        holdfast.PortfolioLimitsChecker.check_entry_allowed,
        {
            "self": REQUIRED,
            "new_position_delta": REQUIRED,
            "symbol": REQUIRED,
            "position_value": REQUIRED,
            "*": "",
            "new_position_gamma": None,
        },
    ),
    (
        "PortfolioLimitsChecker.check_portfolio_health",
        ["B6"],
        holdfast.PortfolioLimitsChecker.check_portfolio_health,
        {"self": REQUIRED},
    ),
    (
        "PortfolioLimitsChecker.get_remaining_capacity",
        ["B6"],
        holdfast.PortfolioLimitsChecker.get_remaining_capacity,
        {"self": REQUIRED, "symbol": REQUIRED},
    ),
    (
        "TrailingStop",
        ["B2"],
        holdfast.TrailingStop,
        {
            "execution_id": REQUIRED,
            "entry_premium": REQUIRED,
            "config": None,
            "*": "",
            "sign": 1,
            "event_logger": None,
        },
    ),
    ("TrailingStop.update", ["B2"], holdfast.TrailingStop.update, {"self": REQUIRED, "premium": REQUIRED}),
    (
        "TrailingStopConfig",
        ["B2"],
        holdfast.TrailingStopConfig,
        {"activation_pct": 2.0, "trailing_pct": 1.5, "min_move_pct": 0.5},
    ),
    ("TrailingStopManager", ["B3"], holdfast.TrailingStopManager, {"event_logger": None}),
    (
        "TrailingStopManager.add_trailing_stop",
        ["B3"],
        holdfast.TrailingStopManager.add_trailing_stop,
        {"self": REQUIRED, "execution_id": REQUIRED, "entry_premium": REQUIRED},
    ),
    (
        "TrailingStopManager.update_stops",
        ["B3"],
        holdfast.TrailingStopManager.update_stops,
        {"self": REQUIRED, "premiums": REQUIRED},
    ),
    (
        "TrailingStopManager.remove_stop",
        ["B3"],
        holdfast.TrailingStopManager.remove_stop,
        {"self": REQUIRED, "execution_id": REQUIRED},
    ),
    (
        "TrailingStopManager.reset_stop",
        ["B3"],
        holdfast.TrailingStopManager.reset_stop,
        {"self": REQUIRED, "execution_id": REQUIRED},
    ),
    ("RiskEventLogger", ["B7"], holdfast.RiskEventLogger, {}),
    ("RiskEventLogger.initialize", ["B7"], holdfast.RiskEventLogger.initialize, {"self": REQUIRED}),
    ("RiskEventLogger.flush", ["B7"], holdfast.RiskEventLogger.flush, {"self": REQUIRED}),
    ("RiskEventLogger.close", ["B7"], holdfast.RiskEventLogger.close, {"self": REQUIRED}),
    (
        "EntryWorkflow",
        ["B10"],
        holdfast.EntryWorkflow,
        {"engine": REQUIRED, "reference": REQUIRED, "*": "", "risk_manager": None, "event_logger": None},
    ),
    (
        "PositionMonitoringWorkflow",
        ["B11"],
        holdfast.PositionMonitoringWorkflow,
        {"engine": REQUIRED, "*": "", "clock": REQUIRED, "risk_manager": None, "event_logger": None},
    ),
    (
        "OrderExecutionEngine",
        ["B12"],
        holdfast.OrderExecutionEngine,
        {"trader": REQUIRED, "board": REQUIRED, "*": "", "clock": REQUIRED, "event_logger": None},
    ),
    (
        "RiskManager.check_risk",
        ["A9"],
        holdfast.RiskManager.check_risk,
        {"self": REQUIRED, "signal": REQUIRED},
    ),
    (
        "audit_logger.log_order",
        ["A10"],
        holdfast.AuditLogger.log_order,
        dict.fromkeys(
            ["self", "user_id", "order_id", "side", "order_type", "quantity", "price"],
            REQUIRED,
        ),
    ),
    (
        "audit_logger.log_trade",
        ["A10"],
        holdfast.AuditLogger.log_trade,
        dict.fromkeys(["self", "user_id", "order_id", "side", "quantity", "price", "market"], REQUIRED),
    ),
    (
        "audit_logger.log_risk_violation",
        ["A10"],
        holdfast.AuditLogger.log_risk_violation,
        dict.fromkeys(["self", "user_id", "violation_type", "current_value", "limit", "details"], REQUIRED),
    ),
    (
        "audit_logger.log_api_call",
        ["A10"],
        holdfast.AuditLogger.log_api_call,
        dict.fromkeys(
            ["self", "user_id", "api", "endpoint", "method", "status_code", "latency_ms"],
            REQUIRED,
        ),
    ),
    (
        "audit_logger.wal.query",
        ["A12"],
        holdfast.WriteAheadLog.query,
        {
            "self": REQUIRED,
            "start_time": None,
            "end_time": None,
            "event_type": None,
            "user_id": None,
            "max_results": None,
        },
    ),
    (
        "audit_logger.wal.verify_integrity",
        ["A13"],
        holdfast.WriteAheadLog.verify_integrity,
        {"self": REQUIRED},
    ),
    ("registry.get_all_stats", ["A6"], holdfast.BreakerRegistry.get_all_stats, {"self": REQUIRED}),
    ("kalshi_breaker.reset", ["A3"], holdfast.TradingCircuitBreaker.reset, {"self": REQUIRED}),
    ("kalshi_breaker.get_state", ["A3"], holdfast.TradingCircuitBreaker.get_state, {"self": REQUIRED}),
    ("kalshi_breaker.get_stats", ["A6"], holdfast.TradingCircuitBreaker.get_stats, {"self": REQUIRED}),
    (
        "TradingCircuitBreaker",
        ["A3", "B1"],
        holdfast.TradingCircuitBreaker,
        {"config": REQUIRED, "event_logger": None},
    ),
    (
        "TradingCircuitBreaker.record_failure",
        ["B1"],
        holdfast.TradingCircuitBreaker.record_failure,
        {"self": REQUIRED},
    ),
    (
        "TradingCircuitBreaker.record_success",
        ["B1"],
        holdfast.TradingCircuitBreaker.record_success,
        {"self": REQUIRED},
    ),
    (
        "CircuitBreakerConfig",
        ["A4", "B1"],
        holdfast.CircuitBreakerConfig,
        {
            "failure_threshold": 5,
            "failure_window_secs": 60,
            "half_open_max_tries": 3,
            "open_timeout_secs": 300,
            "half_open_timeout_secs": 30,
        },
    ),
]


@pytest.mark.contract(
    "A1",
    "A2",
    "A3",
    "A4",
    "A6",
    "A7",
    "A9",
    "A10",
    "A12",
    "A13",
    "B1",
    "B2",
    "B3",
    "B4",
    "B5",
    "B6",
    "B7",
    "B10",
    "B11",
    "B12",
)
@pytest.mark.parametrize(
    ("function", "fixed"), [(row[2], row[3]) for row in SIGNATURES], ids=[row[0] for row in SIGNATURES]
)
def test_a_fixed_signature_stands(function, fixed):
    """Fixed parameters keep name, order, kind and default; whatever is new is a keyword with a default."""
    parameters = inspect.signature(function).parameters
    kind = Parameter.POSITIONAL_OR_KEYWORD
    positional: list[str] = []
    for name, default in fixed.items():
        if name == "*":
            kind = Parameter.KEYWORD_ONLY
            continue
        assert name in parameters
        assert parameters[name].kind is kind, name
        if default not in {REQUIRED, ANY}:
            assert parameters[name].default == default, name
        if kind is Parameter.POSITIONAL_OR_KEYWORD:
            positional.append(name)
    takes = [name for name, found in parameters.items() if found.kind is Parameter.POSITIONAL_OR_KEYWORD]
    assert takes[: len(positional)] == positional
    for name, found in parameters.items():
        if name not in fixed and found.kind is not Parameter.VAR_KEYWORD:
            assert found.default is not REQUIRED, f"{name} is new and has no default"


def test_the_table_marks_only_rows_of_the_test():
    """Each row number of the table is one that the test carries."""
    (carried,) = [mark.args for mark in test_a_fixed_signature_stands.pytestmark if mark.name == "contract"]
    assert {number for row in SIGNATURES for number in row[1]} == set(carried)


@pytest.mark.contract("A12", "A13")
def test_entries_and_reports_keep_their_fields(tmp_path):
    """A query's entry has its six fixed members, and verify_integrity its three fixed keys."""
    log = holdfast.WriteAheadLog(tmp_path / "log", clock=SystemClock())
    try:
        holdfast.AuditLogger(log, user="desk").log_api_call("desk", "kalshi", "markets", "GET", 200, 1.5)
        (entry,) = log.query(event_type="API_CALL")
        assert isinstance(entry, AuditEntry)
        assert (entry.event_type, entry.user_id, entry.sequence) == ("API_CALL", "desk", 2)
        assert entry.timestamp.tzinfo is not None
        assert entry.details["status_code"] == 200
        assert entry.to_dict()["details"] == dict(entry.details)
        report = log.verify_integrity()
        assert {"total_entries", "corrupted_entries", "integrity_ok"} <= set(report)
        assert (report["total_entries"], report["corrupted_entries"], report["integrity_ok"]) == (2, 0, True)
    finally:
        log.close()


@pytest.mark.contract("A6")
def test_stats_keep_their_keys():
    """Each breaker's stats have the four fixed keys, the state in lower case."""
    breaker = holdfast.TradingCircuitBreaker(None)
    stats = breaker.get_stats()
    assert {"state", "total_calls", "failed_calls", "success_rate"} <= set(stats)
    assert stats["state"] == breaker.get_state() == "closed"
    assert f"{stats['success_rate']:.2%}" == "0.00%"


@pytest.mark.contract("B3", "B4", "B6", "B7")
def test_what_the_options_desk_awaits_is_awaited():
    """B's surface is asynchronous where the contract says so, and synchronous elsewhere."""
    awaited = [
        holdfast.PortfolioLimitsChecker.check_entry_allowed,
        holdfast.PortfolioLimitsChecker.check_portfolio_health,
        holdfast.PortfolioLimitsChecker.get_remaining_capacity,
        holdfast.TrailingStopManager.update_stops,
        holdfast.RiskEventLogger.initialize,
        holdfast.RiskEventLogger.flush,
        holdfast.RiskEventLogger.close,
    ]
    direct = [
        holdfast.TrailingStop.update,
        holdfast.TrailingStopManager.add_trailing_stop,
        holdfast.TrailingStopManager.remove_stop,
        holdfast.TrailingStopManager.reset_stop,
        holdfast.TradingCircuitBreaker.record_failure,
    ]
    assert all(inspect.iscoroutinefunction(function) for function in awaited)
    assert not any(inspect.iscoroutinefunction(function) for function in direct)


@pytest.mark.contract("B8")
def test_the_event_types_are_the_contracts():
    """Thirteen types of three components, by value."""
    assert [kind.value for kind in holdfast.RiskEventType] == [
        *(f"circuit_breaker_{what}" for what in ("state_change", "failure", "success", "manual_reset")),
        *(f"trailing_stop_{what}" for what in ("add", "activate", "update", "trigger", "remove", "reset")),
        *(f"portfolio_limit_{what}" for what in ("check", "rejection", "warning")),
    ]
