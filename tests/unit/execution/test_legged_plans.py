"""Legs one by one over a fake venue: the plan stands from before the first leg until everything is in, or out again."""

import asyncio

import pytest
from support.desk import condor, desk_world, entered, flat_world, quote, quote_chain, tick
from support.execution import MemoryLog

from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import Action, Side, Signal
from holdfast.execution.exits import ExitState
from holdfast.execution.legging import LeggingPolicy
from holdfast.execution.outcomes import Outcome
from holdfast.execution.replay import replay_log
from holdfast.execution.trader import RouteStatus
from holdfast.risk.limits import RiskLimits
from holdfast.risk.plans import Plan
from holdfast.testing.venue import Play

LEGS = LeggingPolicy(leg_timeout_secs=60)
NAME = "iron_condor-SPY-1"
NARROW = RiskLimits(max_position=QtyE2(1_00), max_order_value=MoneyE6(5_000_000_000))


def go(coroutine):
    return asyncio.run(coroutine)


async def begun(w, **options):
    """A condor whose first leg has left."""
    await w.trader.start()
    quote_chain(w)
    await tick(w)
    result = await w.engine.open(condor(w), execution_id=NAME, limit=PriceE4(0), **options)
    return result, w.engine.executions.known.get(NAME)


def a_short_leg():
    return next(leg.ticker for leg in condor(None).legs if leg.ratio < 0)


def plans(w):
    return [(line["event"], line["reason"]) for line in w.log.of("PLAN")]


async def somebody_sells(w, ticker, count=1, key="other"):
    """An order that is not the desk's."""
    signal = Signal(
        ticker=ticker,
        side=Side.YES,
        action=Action.SELL,
        count=QtyE2(count * 100),
        price=PriceE4(100),
        key=key,
    )
    return await w.trader.route(signal)


@pytest.mark.contract("B12")
@pytest.mark.invariant("I3")
def test_another_order_between_two_legs_cannot_take_the_room_of_the_rest():
    """The short leg that is still to come has its position reserved; it comes in, and then the plan is given back."""

    async def run():
        w = desk_world(legging=LEGS, limits=NARROW)
        result, one = await begun(w)
        assert result.outcome is Outcome.FILLED
        assert w.account.plans.set_aside() > 0
        other = await somebody_sells(w, a_short_leg())
        assert (other.status, other.reason) == (RouteStatus.DENIED, "position_limit_exceeded")
        for _ in range(5):
            quote_chain(w)
            await tick(w, 5)
        assert one.is_balanced
        assert plans(w) == [("reserved", ""), ("given_back", "complete")]
        assert w.account.plans.live == {}

    go(run())


async def leaning():
    """Somebody wants to sell a naked call beside a long one that is only passing through."""
    w = desk_world(legging=LEGS)
    _, one = await begun(w)
    naked = next(leg.ticker for leg in condor(w).legs if leg.ratio < 0 and "C" in leg.ticker[9:])
    while not any("C" in ticker[9:] for ticker in one.held):
        quote_chain(w)
        await tick(w, 5)
    other = await somebody_sells(w, naked, key="between two legs")
    assert (other.status, other.reason) == (RouteStatus.DENIED, "unbounded_loss")
    w.engine.demand(one, rule="Person", demanded=True)
    other = await somebody_sells(w, naked, key="on the way out")
    assert (other.status, other.reason) == (RouteStatus.DENIED, "unbounded_loss")
    for _ in range(4):
        quote_chain(w)
        await tick(w)
    assert flat_world(w)
    assert plans(w) == [("reserved", ""), ("unwinding", "Person"), ("given_back", "flat")]


@pytest.mark.invariant("I3")
def test_nobody_leans_on_a_leg_that_may_leave_again():
    """Between two legs and on the way out, a naked call is not covered by the long one that leaves again."""
    go(leaning())


@pytest.mark.invariant("I3")
def test_a_plan_that_forgets_its_way_out_is_caught(monkeypatch):
    """Were only the legs to come reserved, the naked call would be let in."""
    monkeypatch.setattr(Plan, "ways", Plan.ways_in)
    with pytest.raises(AssertionError):
        go(leaning())


@pytest.mark.contract("B12")
@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        ("late", "LegTimeout"),
        ("rejected", "LegRejected"),
        ("part", "LegPartlyFilled"),
        ("refused", "LegRefused"),
    ],
)
def test_a_leg_that_fails_starts_the_unwinding_and_the_plan_holds_until_flat(spoil, rule):
    """Late, rejected, filled in part or refused: what is there leaves again, and only then is the plan given back."""

    async def run():
        w = desk_world(legging=LEGS)
        _, one = await begun(w, units=QtyE2(2_00))
        second = next(leg for leg in condor(w).legs if leg.ratio > 0 and leg.ticker not in one.held).ticker
        for turn in range(14):
            quote_chain(w, but=(second,))
            if spoil == "late":
                quote(w, second, 100, None)
            elif turn == 0:
                if spoil == "rejected":
                    w.venue.script(Play.REJECT)
                if spoil == "refused":
                    w.trader.gate.set_limits(RiskLimits(max_order_value=MoneyE6(1_000_000), version=2))
                bid, ask = quoted_of(w, second)
                quote(w, second, bid, ask, size=100 if spoil == "part" else 1000)
            if one.ladder.is_demanded and not flat_world(w):
                assert w.account.plans.live[NAME].is_unwinding
                assert w.account.plans.set_aside() > 0 or w.account.reserved > 0
            await tick(w, 10)
        assert one.ladder.rule == rule
        assert flat_world(w)
        assert one.ladder.state is ExitState.FLAT
        assert plans(w) == [("reserved", ""), ("unwinding", rule), ("given_back", "flat")]

    go(run())


def quoted_of(w, ticker):
    quote = w.board.quotes[ticker]
    return quote.bid, quote.ask


@pytest.mark.contract("B12")
@pytest.mark.parametrize("legs_in", [0, 1, 2, 4])
def test_a_plan_lives_through_a_restart_until_it_is_unwound(legs_in):
    """Replay alone restores it, before anything increasing may leave; the engine then unwinds, or finds it whole."""

    async def run():
        w = desk_world(legging=LEGS, limits=NARROW)
        if legs_in == 0:
            await w.trader.start()
            quote_chain(w)
            await tick(w)
            w.engine._legged.next_leg_in = cut_short
            with pytest.raises(ConnectionError):
                await w.engine.open(condor(w), execution_id=NAME, limit=PriceE4(0))
        else:
            await begun(w)
            for _ in range(legs_in - 1):
                quote_chain(w)
                await tick(w, 5)
        before = {name: plan.snapshot() for name, plan in w.account.plans.live.items()}
        await w.trader.ledger.write()
        w.venue._queue = None
        w.venue._plays.clear()
        after = desk_world(
            clock=w.clock, venue=w.venue, log=MemoryLog(w.log.lines), legging=LEGS, limits=NARROW
        )
        await after.trader.start()
        assert {name: plan.snapshot() for name, plan in after.account.plans.live.items()} == before
        if legs_in in {1, 2}:
            assert (await somebody_sells(after, a_short_leg())).status is RouteStatus.DENIED
        for _ in range(6):
            quote_chain(after)
            await tick(after)
        assert after.account.plans.live == {}
        assert flat_world(after) is (legs_in < 4)
        if legs_in in {1, 2}:
            assert plans(after)[-2:] == [("unwinding", "EntryCutShort"), ("given_back", "flat")]
        done = replay_log(after.log.wal.records())
        assert done.holds_together, (done.differing, done.contradictions)

    go(run())


async def cut_short(*_):
    raise ConnectionError("the process dies here")


@pytest.mark.invariant("I3")
def test_an_unknown_leg_keeps_its_plan():
    """No answer is no end: what is there may leave, and what may yet come stays reserved until the books tell."""

    async def run():
        w = desk_world(legging=LEGS, limits=NARROW)
        _, one = await begun(w)
        w.venue.script(Play.LATE)
        for _ in range(10):
            quote_chain(w)
            await tick(w, 10)
        assert len(one.entries) == 2
        assert w.account.orders[one.entries[-1]].status is OrderStatus.UNKNOWN
        assert ("given_back", "flat") not in plans(w)
        assert w.account.plans.live[NAME].counts()[1].entering == 1_00

    go(run())


def test_a_structure_as_one_combination_needs_no_plan():
    """What the venue fills as one is reserved as one order."""

    async def run():
        w = desk_world()
        await entered(w)
        assert w.log.of("PLAN") == []
        assert all("plan" not in line for line in w.log.of("ORDER"))

    go(run())


def test_a_plan_is_not_taken_for_abandoned_while_its_first_leg_is_on_its_way():
    """Time that moves while the journal takes the plan gives nothing back."""

    async def run():
        w = desk_world(legging=LEGS)
        await w.trader.start()
        quote_chain(w)
        await tick(w)
        write = w.trader.ledger.write

        async def slow():
            w.trader.ledger.write = write
            await w.engine.step(w.clock.now_ns())
            return await write()

        w.trader.ledger.write = slow
        await w.engine.open(condor(w), execution_id=NAME, limit=PriceE4(0))
        assert plans(w) == [("reserved", "")]
        assert w.account.orders
        assert all(order.plan == NAME for order in w.account.orders.values())

    go(run())
