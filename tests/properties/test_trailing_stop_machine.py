import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.stops import ModelStop

from holdfast.risk.stop_manager import TrailingStopManager
from holdfast.risk.stop_rules import DistanceTrail, TrailingStopConfig
from holdfast.risk.trailing_stop import TRANSITIONS, StopState, TrailingStop, TrailingStopAction

ENTRIES = st.integers(1, 10**7)
MOVES = st.lists(st.integers(-800, 900), min_size=1, max_size=40)
PERCENTAGES = st.tuples(st.integers(2, 3_000), st.integers(1, 2_000), st.integers(1, 1_000)).filter(
    lambda three: three[1] < three[0]
)


def config_of(percentages):
    activation, trailing, min_move = (one / 100 for one in percentages)
    return TrailingStopConfig(activation, trailing, min_move, negative_premiums=True)


def path(entry, moves):
    """Premiums from *entry* on, each a move in basis points of the entry, one unit at least."""
    premium = entry
    for move in moves:
        premium += move * abs(entry) // 10_000 + (move > 0) - (move < 0)
        yield premium


def text(price):
    return f"{'-' if price < 0 else ''}{abs(price) // 10_000}.{abs(price) % 10_000:04d}"


@pytest.mark.contract("B2")
@pytest.mark.invariant("I11")
@given(
    entry=ENTRIES,
    moves=MOVES,
    percentages=PERCENTAGES,
    sign=st.sampled_from([1, -1]),
    mirror=st.sampled_from([1, -1]),
)
def test_a_stop_does_what_its_description_says(entry, moves, percentages, sign, mirror):
    """Longs and shorts, over positive and negative premiums, act and stand as the model that counts in fractions."""
    entry *= mirror
    model = ModelStop(entry, *percentages, sign=sign)
    stop = TrailingStop("x", text(entry), config_of(percentages), sign=sign)
    for premium in path(entry, moves):
        assert (stop.update_price(premium).value, stop.stop, stop.best) == (
            model.update(premium),
            model.stop,
            model.best,
        )


@pytest.mark.contract("B2")
@given(entry=ENTRIES, moves=MOVES, percentages=PERCENTAGES)
def test_a_short_is_a_mirrored_long(entry, moves, percentages):
    """Negated premiums with the other sign cause the same actions, and the negated stop."""
    config = config_of(percentages)
    long = TrailingStop("x", text(entry), config)
    short = TrailingStop("x", text(-entry), config, sign=-1)
    for premium in path(entry, moves):
        assert long.update_price(premium) is short.update_price(-premium)
        assert (long.stop is None and short.stop is None) or long.stop == -short.stop


@pytest.mark.contract("B2")
@given(entry=ENTRIES, moves=MOVES, distance=st.integers(1, 10**5), floor=st.integers(1, 100))
def test_a_stop_only_tightens_and_triggers_once_at_or_beyond_itself(entry, moves, distance, floor):
    """No premium ever loosens a stop; TRIGGER comes once, at or beyond the stop, by the arrows of the table alone."""
    config = TrailingStopConfig(
        rules=(DistanceTrail(distance),), hard_floor_pct=floor, negative_premiums=True
    )
    stop = TrailingStop("x", text(entry), config)
    triggers = 0
    for premium in path(entry, moves):
        before, was = stop.stop, stop.state
        action = stop.update_price(premium)
        assert stop.stop >= before
        if stop.state is not was:
            assert stop.state in {target for (state, _), target in TRANSITIONS.items() if state is was}
        if action is TrailingStopAction.TRIGGER:
            triggers += 1
            assert premium <= before == stop.stop
        elif was is not StopState.TRIGGERED:
            assert premium > before
    assert triggers == (stop.state is StopState.TRIGGERED)


@pytest.mark.contract("B3")
@given(entry=ENTRIES, moves=MOVES, others=st.integers(0, 3))
def test_a_tick_does_to_each_stop_what_its_own_update_does(entry, moves, others):
    """A stop among others on one instrument acts as one that is alone."""
    manager = TrailingStopManager()
    for number in range(others + 1):
        manager.add_trailing_stop(str(number), text(entry + 7 * number), symbol="SPY")
    alone = [TrailingStop("x", text(entry + 7 * number)) for number in range(others + 1)]
    for premium in path(entry, moves):
        told = {stop.execution_id: action for stop, action in manager.update_ticks("SPY", premium, premium)}
        acted = {str(n): stop.update_price(premium) for n, stop in enumerate(alone)}
        assert told == {
            name: action for name, action in acted.items() if action is not TrailingStopAction.HOLD
        }
