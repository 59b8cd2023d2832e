"""The exit ladder: one exit at a time, a new name for each, and an end only when the position is flat."""

import itertools

import msgspec
import pytest
from support.desk import option

from holdfast.core.errors import IllegalTransition
from holdfast.core.instruments import PriceRange
from holdfast.core.options import Right
from holdfast.core.signals import Action
from holdfast.execution.exits import (
    AT_WORK,
    RUNGS,
    TRANSITIONS,
    ExitEvent,
    ExitState,
    Ladder,
    Rung,
    exit_limit,
)
from holdfast.execution.leaving import Piece


def ladder(*events):
    made = Ladder()
    for event in events:
        made.on(event)
    return made


@pytest.mark.parametrize(("state", "event"), list(itertools.product(ExitState, ExitEvent)))
def test_every_pair_moves_as_the_table_says_or_raises(state, event):
    """A pair that is not in the table is refused by name and moves nothing."""
    one = Ladder(state=state)
    if (state, event) in TRANSITIONS:
        assert one.on(event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=event.value):
            one.on(event)
        assert one.state is state


@pytest.mark.invariant("I2")
def test_nothing_goes_out_while_an_exit_is_at_work_or_unknown():
    """A second exit can be named neither beside a working one nor beside one whose answer was lost."""
    for state in (*AT_WORK, ExitState.WATCHING, ExitState.BARRED, ExitState.FLAT):
        with pytest.raises(IllegalTransition, match="no exit may go out"):
            Ladder(state=state).name_attempt()


def test_flat_follows_from_no_state_with_an_exit_at_work():
    """The ladder is over only once nothing of it can execute any more."""
    assert all((state, ExitEvent.FLAT) not in TRANSITIONS for state in AT_WORK)


def test_each_proven_end_leads_to_the_next_rung_under_a_new_name():
    """Rungs go from gentle to the last one, which repeats; no name is used twice."""
    one = ladder(ExitEvent.DEMANDED)
    names, rungs = [], []
    for _ in range(6):
        rungs.append(one.rung.name)
        names.append(one.name_attempt())
        one.on(ExitEvent.SENT)
        one.on(ExitEvent.ENDED)
    assert rungs == ["touch", "wider", "widest", "worst", "worst", "worst"]
    assert names == [f"exit-{number}" for number in range(1, 7)]


def test_an_unknown_exit_holds_the_ladder_until_evidence_comes():
    """LOST leads only to FOUND, another LOST or a proven end."""
    one = ladder(ExitEvent.DEMANDED, ExitEvent.SENT, ExitEvent.LOST)
    assert one.on(ExitEvent.DEMANDED) is ExitState.UNKNOWN
    assert one.on(ExitEvent.FOUND) is ExitState.WORKING
    assert one.on(ExitEvent.LOST) is ExitState.UNKNOWN
    assert one.on(ExitEvent.ENDED) is ExitState.DUE


def test_a_barred_exit_stays_demanded():
    """Where exits are barred the demand is latched, and is due again once allowed."""
    one = ladder(ExitEvent.DEMANDED)
    one.name_attempt()
    one.on(ExitEvent.BARRED)
    assert one.is_demanded
    assert one.on(ExitEvent.DEMANDED) is ExitState.BARRED
    assert one.on(ExitEvent.ALLOWED) is ExitState.DUE
    assert one.name_attempt() == "exit-2"


def limit(rung, **changes):
    facts = {"sells": True, "touch": 500, "worst": 100, "tick": 100} | changes
    return exit_limit(rung, **facts)


def test_limits_go_further_beyond_the_touch_with_every_rung():
    """A sale asks less and less, a purchase bids more and more, never beyond the worst."""
    sales = [limit(rung, touch=50_000, worst=100) for rung in RUNGS]
    assert sales == [49_500, 47_500, 40_000, 100]
    buys = [limit(rung, sells=False, touch=50_000, worst=200_000) for rung in RUNGS]
    assert buys == [50_500, 52_500, 60_000, 200_000]


def test_a_credit_structure_is_left_at_a_negative_price():
    """Selling a condor that costs 0.70 to close asks less and less, down to its width."""
    prices = [limit(rung, touch=-7_000, worst=-50_000) for rung in RUNGS]
    assert prices == [-7_100, -7_400, -8_400, -50_000]


def test_limits_lie_on_the_grid_rounded_away_from_the_touch():
    """A collar that falls between two ticks is widened to the next one."""
    assert limit(Rung("x", collar_bp=150), touch=50_000) == 49_200
    assert limit(Rung("x", collar_bp=150), sells=False, touch=50_000, worst=10**6) == 50_800


@pytest.mark.invariant("I5")
@pytest.mark.parametrize(("action", "touch"), [(Action.BUY, 29_500), (Action.SELL, 31_000)])
def test_an_exit_that_crosses_into_other_steps_stays_on_the_grid(action, touch):
    """Nickels below three dollars, dimes above: a collar from one into the other gives no price that is refused."""
    grid = (PriceRange(500, 30_000, 500), PriceRange(30_000, 10**9, 1_000))
    one = msgspec.structs.replace(option(Right.CALL, 500), price_ranges=grid)
    piece = Piece(one.ticker, action, 100, {one.ticker: 100 if action is Action.SELL else -100})
    for rung in RUNGS:
        sent = piece.order(one, touch, rung)
        assert one.check_price(sent.limit) is None, rung
        assert (sent.limit >= touch) if action is Action.BUY else (sent.limit <= touch)


def test_without_a_touch_only_the_last_rung_has_a_price():
    """No price is made up for a side that nobody shows."""
    assert [limit(rung, touch=None) for rung in RUNGS] == [None, None, None, 100]
