"""Whatever the venue does to the desk's exits: never two at work, never too much, never over to the other side."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.desk import chain, condor, desk_world, flat_world, quote, quote_chain, tick
from support.execution import MemoryLog

from holdfast.core.money import QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.execution.exits import AT_WORK, ExitEvent, ExitState, Ladder
from holdfast.execution.legging import LeggingPolicy
from holdfast.execution.reconcile import LATENESS_SECS
from holdfast.execution.venue import DedupProfile
from holdfast.testing.venue import Play

PLAYS = st.sampled_from([p for p in Play if p is not Play.HANG])
COMBO_ONLY = {Play.LEG_REJECTED, Play.CUT}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("quotes"), st.sampled_from([480, 495, 500, 505, 520]), st.integers(1, 4)),
        st.tuples(st.just("play"), PLAYS, st.none()),
        st.tuples(st.just("demand"), st.none(), st.none()),
        st.tuples(st.just("tick"), st.sampled_from([5, 30, 61]), st.none()),
        st.tuples(st.just("arrive"), st.none(), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
        st.tuples(st.just("mute"), st.booleans(), st.none()),
    ),
    min_size=3,
    max_size=14,
)


def check(w, entered):
    """What must hold at every moment."""
    working = [order for order in w.account.open_orders() if "/exit-" in order.key]
    by_execution = [order.key.rsplit("/", 1)[0] for order in working]
    assert len(by_execution) == len(set(by_execution)), "two exits of one execution at work"
    sent = [intent.client_order_id for intent in w.venue.arrived]
    listed = [one.intent.client_order_id for one in w.venue._orders]
    names = listed if w.venue.dedup is DedupProfile.ALL else sent
    assert len(names) == len(set(names)), "a second order was made"
    assert len({(i.client_order_id, i.content_digest()) for i in w.venue.arrived}) == len(set(sent))
    for ticker, qty in w.venue._positions.items():
        assert qty * entered.get(ticker, 0) > 0, f"{ticker} flipped to {qty}"
        assert abs(qty) <= abs(entered[ticker]), f"{ticker} grew to {qty}"


async def scenario(steps, *, legged, dedup=DedupProfile.OPEN_ONLY):
    options = {"legging": LeggingPolicy(leg_timeout_secs=120) if legged else None}
    w = desk_world(**options)
    w.venue.dedup = dedup
    waited = {}
    await w.trader.start()
    quote_chain(w)
    await tick(w)
    structure = condor(w)
    price = structure.entry_price({t: (q.bid, q.ask) for t, q in w.board.quotes.items()})
    entered = {leg.ticker: leg.ratio * 300 for leg in structure.legs}
    await w.engine.open(structure, execution_id="iron_condor-SPY-1", limit=price, units=QtyE2(300))
    for _ in range(6 if legged else 1):
        quote_chain(w)
        await tick(w, 5)
    check(w, entered)
    for kind, first, second in steps:
        if kind == "quotes":
            for one in chain(first):
                quote(w, one.instrument.ticker, one.bid, one.ask, size=100 * second)
        elif kind == "play" and not (legged and first in COMBO_ONLY):
            w.venue.script(first)
        elif kind == "demand" and w.engine.executions.live():
            await w.engine.exit("iron_condor-SPY-1", rule="TrailingStop", demanded=True)
        elif kind == "tick":
            waited = {
                intent.client_order_id: waited.get(intent.client_order_id, 0) + first
                for intent in w.venue._late
            }
            if (
                dedup is DedupProfile.ALL
            ):  # a refused repetition ends an order that cannot arrive any more: it cannot
                w.venue._late[:] = [i for i in w.venue._late if waited[i.client_order_id] <= LATENESS_SECS]
            await tick(w, first)
        elif kind == "arrive":
            w.venue.arrive()
        elif kind == "mute":
            w.venue.mute = first
        elif kind == "restart":
            w.venue._queue = None
            w = desk_world(clock=w.clock, venue=w.venue, log=MemoryLog(w.log.lines), **options)
            await w.trader.start()
        check(w, entered)
    await settle(w, entered)


async def settle(w, entered):
    """Everything late arrives, the venue is well again, and a stop demands: the end is flat, or UNKNOWN and held."""
    w.venue._plays.clear()
    w.venue.mute = False
    if w.venue.dedup is DedupProfile.ALL:
        w.venue.arrive()
    await tick(w)
    for one in w.engine.executions.live():
        w.engine.demand(one, rule="TrailingStop", demanded=True)
    for _ in range(14):
        w.venue.arrive()
        quote_chain(w)
        await tick(w, 61)
        check(w, entered)
    unknown = [order for order in w.account.open_orders() if order.status is OrderStatus.UNKNOWN]
    if w.venue.dedup is DedupProfile.ALL:
        assert not [order for order in unknown if "/exit-" in order.key], "an exit did not end"
    if unknown:  # an immediate order that never arrived stays unknown, and the ladder held
        assert all(order.key.startswith("iron_condor-SPY-1/") for order in unknown)
        assert len([order for order in unknown if "/exit-" in order.key]) <= 1
    else:
        assert flat_world(w)
        assert all(one.ladder.state is ExitState.FLAT for one in w.engine.executions.known.values())


@pytest.mark.invariant("I2")
@pytest.mark.invariant("I5")
@pytest.mark.invariant("I12")
@pytest.mark.invariant("I13")
@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_a_combination_is_never_over_closed_nor_exited_twice(steps):
    """Rejects, lost and late answers, broken streams, partial fills and restarts in any order."""
    asyncio.run(scenario(steps, legged=False))


@pytest.mark.invariant("I2")
@pytest.mark.invariant("I5")
@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(STEPS)
def test_legs_one_by_one_are_never_over_closed_nor_exited_twice(steps):
    """The same where the venue has no combinations."""
    asyncio.run(scenario(steps, legged=True))


@pytest.mark.invariant("I2", "I5")
@pytest.mark.contract("A16")
@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(STEPS, st.booleans())
def test_every_exit_ends_where_the_venue_takes_no_name_twice(steps, legged):
    """There a lost exit goes again as itself, and the ladder behind it goes on."""
    asyncio.run(scenario(steps, legged=legged, dedup=DedupProfile.ALL))


@pytest.mark.invariant("I12")
@settings(max_examples=15, deadline=None)
@given(STEPS)
def test_the_same_world_gives_the_same_orders(steps):
    """Time, quotes and answers alone decide: two runs send the same bytes."""
    calm = [step for step in steps if step[0] in {"quotes", "play", "demand", "tick"}]

    async def sent():
        w = desk_world()
        await w.trader.start()
        quote_chain(w)
        await tick(w)
        structure = condor(w)
        price = structure.entry_price({t: (q.bid, q.ask) for t, q in w.board.quotes.items()})
        await w.engine.open(structure, execution_id="iron_condor-SPY-1", limit=price)
        for kind, first, second in calm:
            if kind == "quotes":
                for one in chain(first):
                    quote(w, one.instrument.ticker, one.bid, one.ask, size=100 * second)
            elif kind == "play":
                w.venue.script(first)
            elif kind == "demand":
                await w.engine.exit("iron_condor-SPY-1", rule="TrailingStop", demanded=True)
            else:
                await tick(w, first)
        return [(i.client_order_id, i.signal) for i in w.venue.arrived]

    assert asyncio.run(sent()) == asyncio.run(sent())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(ExitEvent), max_size=30))
def test_no_history_of_events_puts_two_exits_to_work(events):
    """Between two SENT there is always an ENDED, whatever events come."""
    ladder, at_work = Ladder(), 0
    for event in events:
        before = ladder.state
        try:
            ladder.on(event)
        except Exception:  # noqa: BLE001  an illegal pair moves nothing
            assert ladder.state is before
            continue
        at_work += (event is ExitEvent.SENT) - (event is ExitEvent.ENDED)
        assert at_work == (ladder.state in AT_WORK)
