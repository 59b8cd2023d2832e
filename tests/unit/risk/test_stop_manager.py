import asyncio
import inspect
import logging
import random

import msgspec
import pytest

from holdfast.audit.format import Record
from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput, DuplicateStop
from holdfast.risk.events import RiskEventType, details_of
from holdfast.risk.stop_manager import TrailingStopManager
from holdfast.risk.stop_rules import BreakEven, GiveBack, PercentTrail, TimeTightening, TrailingStopConfig
from holdfast.risk.trailing_stop import TrailingStopAction

ACTION = TrailingStopAction


def updated(manager, premiums):
    return asyncio.run(manager.update_stops(premiums))


class Heard:
    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)


@pytest.mark.contract("B3")
def test_the_founding_example_works():
    """Two stops, one premium missing, one unknown: each known one answers, the others are skipped."""
    manager = TrailingStopManager()
    stop = manager.add_trailing_stop("abc123", 100.0)
    manager.add_trailing_stop(execution_id="ghi789", entry_premium=50.0)
    assert stop.entry_premium == 100.0
    results = updated(manager, {"abc123": 103.0, "def456": 98.0})
    assert results == {"abc123": (101.455, ACTION.ACTIVATE)}
    results = updated(manager, {"abc123": 101.0, "ghi789": None})
    assert [exec_id for exec_id, (_, action) in results.items() if action is ACTION.TRIGGER] == ["abc123"]
    assert manager.triggered == ("abc123",)
    assert manager.remove_stop("abc123") is stop
    assert (manager.triggered, manager.get_stop("abc123"), manager.remove_stop("abc123")) == ((), None, None)


@pytest.mark.contract("B3")
def test_the_fixed_signatures_stand():
    """event_logger, execution_id, entry_premium and premiums stand first, under these names."""
    first = next(iter(inspect.signature(TrailingStopManager).parameters.values()))
    assert (first.name, first.default) == ("event_logger", None)
    assert list(inspect.signature(TrailingStopManager.add_trailing_stop).parameters)[1:4] == [
        "execution_id",
        "entry_premium",
        "config",
    ]
    assert inspect.iscoroutinefunction(TrailingStopManager.update_stops)
    assert not inspect.iscoroutinefunction(TrailingStopManager.reset_stop)


@pytest.mark.contract("B3")
def test_adding_twice_is_refused_by_name():
    """A second stop of one execution raises, and the first one stays as it is."""
    manager = TrailingStopManager()
    stop = manager.add_trailing_stop("ic-1", 100)
    stop.update(103)
    with pytest.raises(DuplicateStop, match="execution 'ic-1' has one already"):
        manager.add_trailing_stop("ic-1", 50)
    with pytest.raises(ValueError, match="already"):
        manager.add_trailing_stop("ic-1", 50)
    assert manager.get_stop("ic-1") is stop
    assert stop.stop_premium == 101.455


@pytest.mark.contract("B3")
@pytest.mark.contract("B8")
def test_adding_removing_and_resetting_are_events_too():
    """ADD, ACTIVATE, RESET and REMOVE are told in order, each once."""
    heard = Heard()
    manager = TrailingStopManager(heard)
    manager.add_trailing_stop("ic-1", 100, symbol="SPY")
    manager.update_prices({"ic-1": 1_030_000})
    stop = manager.reset_stop("ic-1")
    assert (stop.highest_premium, stop.stop_premium, stop.is_active) == (100, None, False)
    manager.remove_stop("ic-1")
    manager.remove_stop("ic-1")
    assert [(one.event_type, one.action, one.new_state) for one in heard.events] == [
        (RiskEventType.TRAILING_STOP_ADD, "ADD", "waiting"),
        (RiskEventType.TRAILING_STOP_ACTIVATE, "ACTIVATE", "trailing"),
        (RiskEventType.TRAILING_STOP_RESET, "RESET", "waiting"),
        (RiskEventType.TRAILING_STOP_REMOVE, "REMOVE", "waiting"),
    ]
    with pytest.raises(BadInput, match="'ic-1' has no stop"):
        manager.reset_stop("ic-1")


@pytest.mark.contract("B3")
def test_a_short_is_stopped_by_a_rising_premium():
    """With sign -1 the stop lies above the lowest premium."""
    manager = TrailingStopManager()
    stop = manager.add_trailing_stop("ic-1", "1.20", sign=-1)
    actions = [manager.update_prices({"ic-1": price})["ic-1"] for price in (12_300, 11_700, 11_000, 11_165)]
    assert actions == [ACTION.HOLD, ACTION.ACTIVATE, ACTION.UPDATE, ACTION.TRIGGER]
    assert (stop.stop_premium, stop.highest_premium) == (1.1165, 1.1)


@pytest.mark.contract("B3")
def test_a_premium_that_cannot_be_read_hides_no_trigger(caplog):
    """NaN for one stop is said once and passed over; the other stop triggers in the same call."""
    manager = TrailingStopManager()
    for name in ("bad", "good"):
        manager.add_trailing_stop(name, 100)
        manager.update_prices({name: 1_030_000})
    for _ in range(2):
        results = updated(manager, {"bad": float("nan"), "good": 101.0})
    assert "bad" not in results
    assert manager.triggered == ("good",)
    assert "not a finite number" in manager.unusable["bad"]
    assert len(caplog.records) == 1
    updated(manager, {"bad": 103.0})
    assert manager.unusable == {}


@pytest.mark.contract("B3")
def test_a_stop_on_a_closed_position_is_refused_by_name():
    """Whoever knows the positions is asked; a closed one gets no stop."""
    manager = TrailingStopManager(is_open=lambda execution_id: execution_id == "open")
    manager.add_trailing_stop("open", 100)
    with pytest.raises(BadInput, match="the position of execution 'closed' is closed"):
        manager.add_trailing_stop("closed", 100)
    assert list(manager.stops) == ["open"]


def test_a_quote_moves_longs_by_the_bid_and_shorts_by_the_ask():
    """One tick updates every stop of its symbol on the executable side; a missing side holds, other symbols too."""
    manager = TrailingStopManager()
    for name, sign, symbol in (("long", 1, "SPY"), ("short", -1, "SPY"), ("other", 1, "QQQ")):
        manager.add_trailing_stop(name, 100, sign=sign, symbol=symbol)
    told = manager.update_ticks("SPY", 1_030_000, 1_031_000)
    assert [(stop.execution_id, action) for stop, action in told] == [("long", ACTION.ACTIVATE)]
    told = manager.update_ticks("SPY", None, 970_000)
    assert [(stop.execution_id, action) for stop, action in told] == [("short", ACTION.ACTIVATE)]
    assert manager.update_ticks("IWM", 1, 1) == []
    assert not manager.stops["other"].is_active
    manager.remove_stop("long")
    assert manager.update_ticks("SPY", 1, 970_000) == []


@pytest.mark.contract("B2")
def test_a_trail_inside_the_spread_is_warned_about(caplog):
    """At adding and at activation, a trail narrower than 1.5 spreads is warned about, and the ADD says so."""
    heard = Heard()
    manager = TrailingStopManager(heard)
    with caplog.at_level(logging.WARNING, "holdfast.risk.stops"):
        manager.add_trailing_stop("a", 1, symbol="SPY", spread=200)
        manager.add_trailing_stop("b", 1, symbol="QQQ", spread=100)
        manager.update_ticks("QQQ", 10_300, 10_500)
    assert [record.message[:12] for record in caplog.records] == ["stop of 'a' ", "stop of 'b' "]
    assert "150 % of the spread 0.0200 USD" in heard.events[0].metadata["warning"]
    assert "warning" not in heard.events[1].metadata


SEED = 11
RULES = (
    (),
    (PercentTrail(300, "entry"), BreakEven(500)),
    (TimeTightening(1000, 100, 40),),
    (GiveBack(3000),),
)


def life(manager, clock, steps):
    """Play *steps* to *manager*; what each did."""
    told = []
    for what, execution_id, value, secs in steps:
        clock.advance(secs)
        if what == "add":
            sign, rules, floor = value
            if execution_id not in manager.stops:
                config = TrailingStopConfig(rules=rules, hard_floor_pct=floor, negative_premiums=True)
                manager.add_trailing_stop(execution_id, 100, config, sign=sign, symbol="SPY")
        elif what == "remove":
            manager.remove_stop(execution_id)
        elif what == "reset":
            if execution_id in manager.stops:
                manager.reset_stop(execution_id)
        else:
            told.append(manager.update_prices({execution_id: value}))
    return told


def random_life(rng, length):
    steps, prices = [], {}
    for _ in range(length):
        name = f"e{rng.randrange(4)}"
        what = rng.choices(["add", "remove", "reset", "price"], [2, 0.3, 1, 20])[0]
        value = None
        if what == "add":
            value = (rng.choice([1, -1]), rng.choice(RULES), rng.choice([None, 20]))
        elif what == "price":
            prices[name] = prices.get(name, 1_000_000) + rng.randrange(-25_000, 25_001)
            value = prices[name]
        steps.append((what, name, value, rng.randrange(3)))
    return steps


@pytest.mark.contract("B3")
@pytest.mark.invariant("I7")
@pytest.mark.invariant("I12")
def test_killed_anywhere_the_restored_stops_go_on_as_the_lost_ones(tmp_path):
    """From the journal alone, cut behind any premium, every later action is that of the life without a crash."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    steps = random_life(rng, 900)
    clock = ManualClock()
    with WriteAheadLog(tmp_path / "log", clock=clock) as wal:
        log = AuditLogger(wal)

        class ToLog:
            def emit(self, event):
                log.record(
                    "RISK_EVENT", msgspec.to_builtins(details_of(event)), component=event.component, level=0
                )

        manager = TrailingStopManager(ToLog(), clock=clock)
        written = []
        for step in steps:
            life(manager, clock, [step])
            written.append((wal.last_seq, clock.now_ns()))
        records = list(wal.records())
    kinds = {record.details.get("event_type") for record in records}
    assert {
        f"trailing_stop_{one}" for one in ("add", "activate", "update", "trigger", "remove", "reset")
    } < kinds
    assert len(records) > 100
    for killed in range(0, len(steps) - 60, 4):
        seq, now_ns = written[killed]
        clock_a, clock_b = ManualClock(), ManualClock(now_ns)
        untouched, restored = TrailingStopManager(clock=clock_a), TrailingStopManager(clock=clock_b)
        life(untouched, clock_a, steps[: killed + 1])
        assert restored.restore(records[:seq]) == len(untouched.stops)
        assert set(restored.triggered) == set(untouched.triggered)
        for name, stop in untouched.stops.items():
            entry, _, level, anchor = stop.levels()
            other = restored.stops[name].levels()
            assert (entry, level, anchor) == (other[0], other[2], other[3])
        rest = steps[killed + 1 : killed + 61]
        assert life(restored, clock_b, rest) == life(untouched, clock_a, rest)


@pytest.mark.contract("B3")
def test_a_best_premium_that_moved_nothing_is_no_secret_of_the_lost_stop():
    """A stop that tightens with time trails behind the best premium of its last event, restored or not."""
    config = TrailingStopConfig(rules=(TimeTightening(1000, 100, 90),))
    told = []
    for crash in (None, 2, 3):
        clock, heard = ManualClock(), Heard()
        manager = TrailingStopManager(heard, clock=clock)
        manager.add_trailing_stop("x", 100, config)
        stops = []
        for number, price in enumerate((1_100_000, 1_103_000, 1_090_000, 1_090_000)):
            if number == crash:
                records = [
                    Record(
                        seq=n, synced=0, ts=0, type="RISK_EVENT", user="", component=one.component,
                        details=msgspec.to_builtins(details_of(one)),
                    )
                    for n, one in enumerate(heard.events, start=1)
                ]  # fmt: skip
                manager = TrailingStopManager(heard, clock=clock)
                manager.restore(records)
            clock.advance(20 if number > 1 else 0)
            manager.update_prices({"x": price})
            stops.append(manager.stops["x"].stop)
        told.append(stops)
    assert told[0] == told[1] == told[2]
    assert len(set(told[0])) == 3


@pytest.mark.contract("B3")
def test_restore_refuses_what_no_stop_ever_said(tmp_path):
    """A record without its configuration, and a second restore, are refused by name."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock()) as wal:
        wal.append(
            "RISK_EVENT",
            {"event_type": "trailing_stop_update", "execution_id": "unknown"},
            component="trailing_stop",
        )
        wal.append("NOTE", {})
        wal.append(
            "RISK_EVENT", {"event_type": "trailing_stop_add", "execution_id": "x"}, component="trailing_stop"
        )
        records = list(wal.records())
    manager = TrailingStopManager()
    assert manager.restore(records[:3]) == 0
    with pytest.raises(BadInput, match="record 4 is no event of a trailing stop"):
        manager.restore(records)
    manager.add_trailing_stop("x", 1)
    with pytest.raises(BadInput, match="1 stops are there already"):
        manager.restore([])
