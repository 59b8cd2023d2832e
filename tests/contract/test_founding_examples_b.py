"""The options desk's founding usage, as the contract writes it: every layer by name, with and without an event logger."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from support.desk import chain, desk_world, quote_chain, tick
from support.execution import MemoryLog

from holdfast import (
    CircuitBreakerConfig,
    CircuitBreakerOpenError,
    EntryWorkflow,
    OrderExecutionEngine,
    PortfolioLimitsChecker,
    PositionMonitoringWorkflow,
    RiskEventType,
    RiskLimitsConfig,
    RiskManager,
    TradingCircuitBreaker,
    TrailingStop,
    TrailingStopConfig,
    TrailingStopManager,
)
from holdfast.core.clock import ManualClock
from holdfast.core.errors import DuplicateStop
from holdfast.execution.reference import ReferenceInput
from holdfast.risk.limits import RiskLimits
from holdfast.risk.portfolio import PortfolioRisk


class Events(list[Any]):
    """An event logger in memory."""

    def emit(self, event: Any, /) -> None:
        self.append(event)

    def types(self) -> list[str]:
        return [getattr(event, "event_type", None) or event.kind for event in self]


class Portfolio:
    """A risk calculator as a desk writes one: Greeks per symbol, exposure, equity, as-of."""

    def __init__(self, **risk: Any) -> None:
        given: dict[str, Any] = {"delta": {}, "gamma": {}, "exposure": {}, "equity": 100_000, "as_of_ns": 0}
        self.risk = PortfolioRisk.of(**(given | risk))

    def portfolio_risk(self) -> PortfolioRisk:
        return self.risk


class OwnFills:
    """A trader's observer that tells an engine its fills, as the desk does."""

    def __init__(self, engine: OrderExecutionEngine) -> None:
        self._engine = engine

    async def on_time(self, now_ns: int) -> None:
        await self._engine.step(now_ns)

    async def on_own_fill(self, fill: Any, order: Any) -> None:
        self._engine.saw_fill(fill, order)

    async def on_order_ended(self, order: Any) -> None:
        return


@pytest.fixture(params=[True, False], ids=["with events", "without"])
def events(request):
    """An event logger, and none: every layer works with both."""
    return Events() if request.param else None


@pytest.mark.contract("B1", "B7")
def test_the_breaker_opens_on_broker_errors_and_comes_back(events):
    """Five failures open it; after 300 s three successes close it; a reset by hand closes it at once."""
    clock = ManualClock()
    breaker = TradingCircuitBreaker(CircuitBreakerConfig(), events, clock=clock)
    for _ in range(5):
        breaker.record_failure()
    with pytest.raises(CircuitBreakerOpenError), breaker:
        pass
    clock.advance(300)
    for _ in range(3):
        with breaker:
            pass
    assert breaker.get_state() == "closed"
    for _ in range(5):
        breaker.record_failure()
    breaker.reset()
    assert breaker.get_state() == "closed"
    if events is not None:
        assert {"circuit_breaker_state_change", "circuit_breaker_failure", "circuit_breaker_success"} < set(
            events.types()
        )
        assert "circuit_breaker_manual_reset" in events.types()


VECTORS = [
    (
        None,
        [
            (101, "HOLD", None),
            (103, "ACTIVATE", 101.455),
            (103.5, "HOLD", 101.455),
            (105, "UPDATE", 103.425),
            (104, "HOLD", 103.425),
            (103, "TRIGGER", 103.425),
        ],
    ),
    (
        TrailingStopConfig(activation_pct=5.0, trailing_pct=3.0, min_move_pct=1.0),
        [(105, "ACTIVATE", 101.85), (106, "HOLD", 101.85), (107, "UPDATE", 103.79)],
    ),
]


@pytest.mark.contract("B2", "B7")
@pytest.mark.parametrize(("config", "steps"), VECTORS, ids=["default", "5/3/1"])
def test_the_published_premiums_give_the_published_actions(config, steps, events):
    """Entry 100: each premium, given as float, gives the action and the stop that the contract prints."""
    stop = TrailingStop("exec-1", 100.0, config, event_logger=events)
    for premium, action, level in steps:
        stop_premium, done = stop.update(float(premium))
        assert (done.name, stop_premium) == (action, level)


@pytest.mark.contract("B3", "B7")
def test_the_manager_keeps_a_stop_per_execution(events):
    """A second add raises, a missing premium is skipped, a reset begins anew, a removed stop says nothing more."""
    manager = TrailingStopManager(events)
    manager.add_trailing_stop("exec-1", 100.0)
    manager.add_trailing_stop("exec-2", 2.5, sign=-1)
    with pytest.raises(DuplicateStop):
        manager.add_trailing_stop("exec-1", 100.0)
    first = asyncio.run(manager.update_stops({"exec-1": 103.0}))
    assert first["exec-1"].action.name == "ACTIVATE"
    assert "exec-2" not in first
    manager.reset_stop("exec-1")
    assert asyncio.run(manager.update_stops({"exec-1": 101.0}))["exec-1"].action.name == "HOLD"
    manager.remove_stop("exec-1")
    assert asyncio.run(manager.update_stops({"exec-1": 90.0})) == {}
    if events is not None:
        assert events.types() == [
            RiskEventType.TRAILING_STOP_ADD,
            RiskEventType.TRAILING_STOP_ADD,
            RiskEventType.TRAILING_STOP_ACTIVATE,
            RiskEventType.TRAILING_STOP_RESET,
            RiskEventType.TRAILING_STOP_REMOVE,
        ]


@pytest.mark.contract("B4", "B5", "B6", "B7")
def test_the_limits_allow_refuse_warn_and_tell_what_is_left(events):
    """The answer unpacks into two; the defaults refuse a third percent of equity and a delta above 50."""
    limits = RiskLimitsConfig(50, 10, 0.02, 20, 0.05, None)
    checker = PortfolioLimitsChecker(Portfolio(delta={"SPY": 15.0}), limits, events, clock=ManualClock())

    async def ask() -> None:
        allowed, reason = await checker.check_entry_allowed(
            new_position_delta=5.0, symbol="SPY", position_value=2_000.0, new_position_gamma=0.1
        )
        assert (allowed, reason) == (True, None)
        allowed, reason = await checker.check_entry_allowed(5.1, "SPY", 2_000.0)
        assert not allowed
        assert "symbol_delta" in str(reason)
        allowed, reason = await checker.check_entry_allowed(5.0, "SPY", 3_000.0)
        assert not allowed
        assert "concentration" in str(reason)
        assert await checker.check_portfolio_health() == []
        capacity = await checker.get_remaining_capacity("SPY")
        assert (capacity["delta"], capacity["symbol_delta"]) == (35.0, 5.0)
        assert set(capacity) == {"delta", "symbol_delta", "exposure", "position_count"}

    asyncio.run(ask())
    if events is not None:
        assert events.types() == [
            RiskEventType.PORTFOLIO_LIMIT_CHECK,
            RiskEventType.PORTFOLIO_LIMIT_REJECTION,
            RiskEventType.PORTFOLIO_LIMIT_REJECTION,
        ]


@pytest.mark.contract("B9")
def test_the_risk_manager_holds_all_three_layers():
    """One object: breaker, stops and limits are there from the start, each the same at every look, told to one logger."""
    events = Events()
    manager = RiskManager(user_id="desk", audit_logger=MemoryLog(), event_logger=events, clock=ManualClock())
    assert isinstance(manager.circuit_breaker, TradingCircuitBreaker)
    assert isinstance(manager.trailing_stops, TrailingStopManager)
    assert isinstance(manager.portfolio_limits, PortfolioLimitsChecker)
    assert manager.circuit_breaker is manager.circuit_breaker
    assert manager.portfolio_limits is manager.portfolio_limits
    assert manager.portfolio_limits.limits == manager.limits.portfolio == RiskLimitsConfig()
    manager.circuit_breaker.record_failure()
    manager.trailing_stops.add_trailing_stop("exec-1", 100.0)
    refused = asyncio.run(manager.portfolio_limits.check_entry_allowed(60, "SPY", 0))
    assert str(refused.reason).startswith("equity_unknown") or str(refused.reason).startswith(
        "portfolio_delta"
    )
    assert events.types() == [
        "circuit_breaker_failure",
        RiskEventType.TRAILING_STOP_ADD,
        RiskEventType.PORTFOLIO_LIMIT_REJECTION,
    ]
    assert manager.check_risk({"ticker": "KXTEST-1", "count": 1, "price": 50, "side": "yes"})


@pytest.mark.contract("B9")
def test_a_layer_may_be_brought_or_left_out():
    """A manager takes breaker, stops and limits as given; limits without a portfolio switch that layer off."""
    stops, events = TrailingStopManager(), Events()
    own = PortfolioLimitsChecker(Portfolio(), RiskLimitsConfig(25), events, clock=ManualClock())
    manager = RiskManager(
        audit_logger=MemoryLog(), trailing_stops=stops, portfolio_limits=own, clock=ManualClock()
    )
    assert manager.trailing_stops is stops
    assert manager.portfolio_limits is own
    assert manager.limits.portfolio == RiskLimitsConfig(25)
    alone = RiskManager(audit_logger=MemoryLog(), event_logger=events, clock=ManualClock())
    asked = alone.portfolio_limits
    assert asked is not None
    alone.gate.set_limits(RiskLimits(portfolio=RiskLimitsConfig(7), version=9))
    assert asked.limits == RiskLimitsConfig(7)
    assert not asyncio.run(asked.check_entry_allowed(8, "SPY", 0)).allowed
    assert (events[-1].limits_version, events[-1].limit_value) == (9, "7.00")
    without = RiskManager(audit_logger=MemoryLog(), limits=RiskLimits(), clock=ManualClock())
    assert without.portfolio_limits is None


@pytest.mark.contract("B9", "B10", "B11", "B12")
@pytest.mark.parametrize("logs", [True, False], ids=["with events", "without"])
def test_one_risk_manager_is_injected_into_engine_and_workflows(logs):
    """The same manager, bound to the trader's gate, is asked by the entry and driven by the monitoring workflow."""

    async def day() -> None:
        w = desk_world(with_stops=False)
        events = w.events if logs else None
        manager = RiskManager(
            audit_logger=w.log,
            limits=RiskLimits(portfolio=RiskLimitsConfig(), version=2),
            clock=w.clock,
            event_logger=events,
        )
        manager.bind(w.trader.gate, w.trader.gate.market.instruments.__getitem__)
        assert w.trader.gate.limits.portfolio == RiskLimitsConfig()
        assert manager.portfolio_limits is not None
        assert manager.portfolio_limits.risk_calc.gate is w.trader.gate
        engine = OrderExecutionEngine(w.trader, w.board, clock=w.clock, event_logger=events)
        entry = EntryWorkflow(
            engine, ReferenceInput.by_hand(iv_rank="60", vix="16"), risk_manager=manager, event_logger=events
        )
        monitoring = PositionMonitoringWorkflow(
            engine, clock=w.clock, risk_manager=manager, event_logger=events
        )
        w.trader.observer = OwnFills(engine)
        await w.trader.start()
        quote_chain(w)
        await tick(w)
        before = w.account.snapshot()
        outcome = await entry.consider("SPY", chain(), w.clock.now_ns())
        assert outcome.entered, outcome
        assert w.account.snapshot() != before
        quote_chain(w)
        await tick(w)
        (name,) = engine.executions.known
        monitoring.attend(engine.executions.known[name])
        assert set(manager.trailing_stops.stops) == {name}
        if logs:
            assert "portfolio_limit_check" in w.events.kinds("portfolio_limit")
            assert "trailing_stop_add" in w.events.kinds("trailing_stop")

    asyncio.run(day())


FOUNDING = """
    import asyncio, time
    from holdfast import (
        CircuitBreakerConfig, PortfolioLimitsChecker, RiskEventLogger, RiskLimitsConfig, TradingCircuitBreaker,
        TrailingStopManager,
    )
    from holdfast.risk import PortfolioRisk

    class RiskCalculator:
        def portfolio_risk(self):
            return PortfolioRisk.of(delta={"SPY": 15.0}, gamma={"SPY": 0.5}, exposure={"SPY": 1000}, equity=100_000,
                                    as_of_ns=time.monotonic_ns())

    async def main():
        logger = RiskEventLogger()
        await logger.initialize()
        breaker = TradingCircuitBreaker(CircuitBreakerConfig(), event_logger=logger)
        stops = TrailingStopManager(event_logger=logger)
        limits = PortfolioLimitsChecker(RiskCalculator(), RiskLimitsConfig(), event_logger=logger)
        breaker.record_failure()
        stops.add_trailing_stop("exec-1", 100.0)
        await stops.update_stops({"exec-1": 103.0})
        allowed, reason = await limits.check_entry_allowed(new_position_delta=10.0, symbol="SPY", position_value=500.0)
        print(allowed, reason)
        await logger.flush()
        await logger.close()

    asyncio.run(main())
"""

READING = """
    from deltalake import DeltaTable
    rows = DeltaTable("data/lake/risk_events").to_pyarrow_table().to_pylist()
    for row in rows:
        print(row["event_type"], row["component"], row["execution_id"], row["limit_type"], row["stop_premium"])
"""


@pytest.mark.contract("B7", "B8", "B13")
@pytest.mark.slow
def test_the_founding_script_runs_as_written_and_its_events_are_in_the_lake(tmp_path):
    """A logger made once and handed to all three; after close every event is a row of data/lake/risk_events."""

    def run(script: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert run(FOUNDING) == ["False symbol_delta 25.00 shares > 20.00 shares (symbol=SPY)"]
    assert run(READING) == [
        "circuit_breaker_failure circuit_breaker None None None",
        "trailing_stop_add trailing_stop exec-1 None None",
        "trailing_stop_activate trailing_stop exec-1 None 101.455",
        "portfolio_limit_rejection portfolio_limits None symbol_delta None",
    ]
