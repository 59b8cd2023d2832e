import json
from pathlib import Path

import pytest

from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditError, BadInput, IllegalTransition
from holdfast.risk.events import RiskEventType
from holdfast.risk.stop_rules import DistanceTrail, TimeTightening, TrailingStopConfig
from holdfast.risk.trailing_stop import (
    TRANSITIONS,
    StopSignal,
    StopState,
    TrailingStop,
    TrailingStopAction,
)

VECTORS = json.loads((Path(__file__).parents[3] / "vectors/stops/trailing.json").read_text(encoding="utf-8"))


class Heard:
    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)


def config_of(values):
    return TrailingStopConfig.from_json({**TrailingStopConfig().to_json(), "rules": [], **values})


@pytest.mark.contract("B2")
@pytest.mark.invariant("I11")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_published_vectors_are_exact(vector):
    """Each step of each published vector has its action and its stop, to the last of four places."""
    clock = ManualClock()
    start = clock.now_ns()
    stop = TrailingStop("x", vector["entry"], config_of(vector["config"]), sign=vector["sign"], clock=clock)
    for step in vector["steps"]:
        clock.set_now_ns(start + step.get("secs", 0) * 1_000_000_000)
        told = stop.update(step["premium"])
        stands = None if step["stop"] is None else float(step["stop"])
        assert (told.action.value, told.stop_premium) == (step["action"], stands), step


@pytest.mark.contract("B2")
def test_the_contracts_vectors_hold_for_dollars_as_float():
    """Entry 100: 101 HOLD, 103 ACTIVATE 101.455, 103.5 HOLD, 105 UPDATE 103.425, 104 HOLD, 103 TRIGGER."""
    stop = TrailingStop("ic-1", 100.0)
    told = [stop.update(premium) for premium in (101.0, 103.0, 103.5, 105.0, 104.0, 103.0)]
    action = TrailingStopAction
    assert told == [
        (None, action.HOLD),
        (101.455, action.ACTIVATE),
        (101.455, action.HOLD),
        (103.425, action.UPDATE),
        (103.425, action.HOLD),
        (103.425, action.TRIGGER),
    ]
    stop_premium, last = told[-1]
    assert (stop_premium, last) == (told[-1].stop_premium, told[-1].action)


@pytest.mark.contract("B2")
def test_a_stop_triggers_once_and_stays_so():
    """After its TRIGGER every premium is a HOLD and moves nothing, until a reset returns it to the entry."""
    stop = TrailingStop("x", 100)
    for premium in (103, 101):
        stop.update(premium)
    assert stop.is_triggered
    for premium in (0, 500, 101):
        assert stop.update(premium) == (101.455, TrailingStopAction.HOLD)
    assert stop.highest_premium == 103
    stop.reset()
    assert (stop.state, stop.stop_premium, stop.highest_premium) == (StopState.WAITING, None, 100)
    assert stop.update(103).action is TrailingStopAction.ACTIVATE


@pytest.mark.contract("B2")
@pytest.mark.parametrize(
    ("premium", "words"),
    [
        (float("nan"), "premium nan refused: not a finite number"),
        (float("inf"), "premium inf refused: not a finite number"),
        (float("-inf"), "premium -inf refused: not a finite number"),
        (-0.01, r"premium -0\.01 refused: negative"),
        (1e9, "refused: more than a hundred million dollars"),
        (True, "refused: a truth value is no number"),
        ("1.00001", r"premium '1\.00001' has more than 4 decimal places"),
        ("much", "premium 'much' is not a plain decimal number"),
    ],
)
def test_a_premium_that_cannot_be_used_is_refused_by_name_and_changes_nothing(premium, words):
    """NaN, infinities, negative, absurd and unreadable premiums raise, say which, and leave the stop as it was."""
    stop = TrailingStop("ic-1", 100)
    stop.update(103)
    before = stop.levels()
    with pytest.raises(BadInput, match=words):
        stop.update(premium)
    assert stop.levels() == before


@pytest.mark.contract("B2")
@pytest.mark.invariant("I11")
@pytest.mark.parametrize(
    ("premium", "price"),
    [
        (101.455, 1_014_550),
        (0.1 + 0.2, 3_000),
        (1.1999999999999997, 12_000),
        (1e-05, 0),
        (0.0, 0),
        ("0.0001", 1),
        (7, 70_000),
    ],
)
def test_a_float_is_read_by_its_shortest_text(premium, price):
    """Dollars as float are read as they are written, to the nearest 1/10,000; noise of a sum is no premium."""
    assert TrailingStop("x", 100).read(premium) == price


def test_zero_is_a_price_unless_the_configuration_says_otherwise():
    """A worthless option triggers; `refuse_zero` raises, as the published code did."""
    assert (
        TrailingStop("x", 1, TrailingStopConfig(hard_floor_pct=50)).update(0).action
        is TrailingStopAction.TRIGGER
    )
    with pytest.raises(BadInput, match="zero, which this configuration refuses"):
        TrailingStop("x", 1, TrailingStopConfig(refuse_zero=True)).update(0)


@pytest.mark.parametrize(
    ("entry", "sign", "words"),
    [(0, 1, "a percentage of nothing"), (-1, 1, "negative"), (1, 0, "sign 0"), (float("nan"), 1, "finite")],
)
def test_an_entry_that_cannot_be_used_is_refused(entry, sign, words):
    """No stop is made of a zero, negative or unknown entry premium, or without a side."""
    with pytest.raises(BadInput, match=words):
        TrailingStop("x", entry, sign=sign)


@pytest.mark.contract("B2")
def test_each_arrow_of_the_table_is_told_as_one_event_and_a_hold_is_not():
    """ACTIVATE, UPDATE and TRIGGER are events with states, premiums and stop; HOLD tells nothing."""
    heard = Heard()
    stop = TrailingStop("ic-1", 100, event_logger=heard, symbol="SPY")
    for premium in (101, 103, 103.5, 105, 103, 103):
        stop.update(premium)
    told = [
        (
            one.event_type,
            one.old_state,
            one.new_state,
            one.current_premium,
            one.highest_premium,
            one.stop_premium,
        )
        for one in heard.events
    ]
    assert told == [
        (RiskEventType.TRAILING_STOP_ACTIVATE, "waiting", "trailing", 1_030_000, 1_030_000, 1_014_550),
        (RiskEventType.TRAILING_STOP_UPDATE, "trailing", "trailing", 1_050_000, 1_050_000, 1_034_250),
        (RiskEventType.TRAILING_STOP_TRIGGER, "trailing", "triggered", 1_030_000, 1_050_000, 1_034_250),
    ]
    assert {(one.component, one.execution_id, one.symbol, one.entry_premium) for one in heard.events} == {
        ("trailing_stop", "ic-1", "SPY", 1_000_000)
    }


@pytest.mark.contract("B2")
@pytest.mark.parametrize("trouble", [OSError(28, "no space"), AuditError("no log"), KeyError("of its own")])
def test_a_listener_that_raises_changes_no_decision(trouble):
    """The action is returned and the stop latched although the event logger failed; the failure is counted."""

    class Broken:
        def emit(self, event):
            raise trouble

    stop = TrailingStop("x", 100, event_logger=Broken())
    assert [stop.update(premium).action.value for premium in (103, 101)] == ["ACTIVATE", "TRIGGER"]
    assert (stop.is_triggered, stop.listener_errors) == (True, 2)


def test_the_table_is_complete():
    """Every state can be reset; a pair that is not in the table raises."""
    assert {state for state, signal in TRANSITIONS if signal is StopSignal.RESET} == set(StopState)
    assert {state for state, _ in TRANSITIONS} == set(StopState)
    stop = TrailingStop("x", 100)
    with pytest.raises(IllegalTransition):
        stop._follow(StopSignal.MOVED)


def test_a_trail_inside_the_spread_is_said():
    """A trail narrower than one and a half spreads is named with both figures; a wider one is not."""
    stop = TrailingStop("ic-1", 1)
    assert stop.too_tight_for(101) == "stop of 'ic-1' trails by 0.0150 USD < 150 % of the spread 0.0101 USD"
    assert stop.too_tight_for(100) == ""
    assert TrailingStop("x", 1, TrailingStopConfig(rules=(DistanceTrail(1),))).too_tight_for(0) == ""


@pytest.mark.invariant("I12")
def test_time_tightens_only_with_the_given_clock():
    """The age of a stop is read from the clock it was given, and starts again at a reset."""
    clock = ManualClock()
    config = TrailingStopConfig(rules=(TimeTightening(1000, 100, 100),))
    stop = TrailingStop("x", 100, config, clock=clock)
    stop.update(110)
    assert stop.update(110).action is TrailingStopAction.HOLD
    clock.advance(100)
    assert stop.update(110) == (108.9, TrailingStopAction.UPDATE)
    stop.reset()
    stop.update(110)
    assert stop.stop_premium == 99
