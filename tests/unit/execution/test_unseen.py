"""Endings that the venue tells by positions alone: booked once, through restarts, and replaced when they are told after all."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import desk
from support.contracts import EXPIRES_NS, NOW_NS, SPY, call, condor, fill, option_world, put, wish
from support.execution import MemoryLog, drain

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.errors import BadInput
from holdfast.core.money import MoneyE6, PriceE4
from holdfast.core.options import ExerciseStyle, SettlementStyle
from holdfast.core.orders import FillCause
from holdfast.core.signals import BookSide
from holdfast.execution.replay import replay_log
from holdfast.execution.trader import RouteStatus, Trader
from holdfast.execution.venue import UnderlyingSeen
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits
from holdfast.risk.stop_rules import PercentTrail, TrailingStopConfig
from holdfast.testing.venue import Play

LEGS = [put(470), put(480), call(520), call(530)]
STOP = TrailingStopConfig(10, 8, 1, rules=(PercentTrail(800, "entry"),), negative_premiums=True)
AFTER_NS = EXPIRES_NS + 2 * 3_600 * NANOS


def held(w: SimpleNamespace) -> dict[str, int]:
    return {ticker: qty // 100 for ticker, qty in w.account.portfolio.positions.items()}


def endings(w: SimpleNamespace) -> list[tuple[str, str, str]]:
    return [(x["ticker"], x["cause"], x["price"]) for x in w.log.of("TRADE") if "cause" in x]


def alarms(w: SimpleNamespace) -> list[dict[str, Any]]:
    return [x["details"] for x in w.log.of("RISK_VIOLATION") if x["violation_type"] == "ended_unseen"]


def restarted(w: SimpleNamespace) -> SimpleNamespace:
    """Another trader on the same journal and venue."""
    log = MemoryLog(w.log.lines)

    async def no_sleep(_secs: float) -> None:
        return

    made = Trader(w.venue, log=log, clock=w.clock, limits=w.gate.limits, sleep=no_sleep)
    return SimpleNamespace(
        clock=w.clock, venue=w.venue, log=log, trader=made, account=made.account, gate=made.gate
    )


async def ticks(w: SimpleNamespace, times: int = 4, secs: int = 61) -> None:
    for _ in range(times):
        w.clock.advance(secs)
        for ticker in [*w.account.portfolio.positions, SPY.ticker]:
            w.venue.set_book(ticker, bids=[(10_000, 10**6)], asks=[(11_000, 10**6)])
        await drain(w)
        await w.trader.tick(w.clock.now_ns())


def agreed(w: SimpleNamespace) -> None:
    """Positions and cash are the venue's, everything may leave, and the log alone says the same."""
    assert w.account.portfolio.positions == w.venue._positions
    assert w.account.portfolio.cash == w.venue._cash
    assert w.account.holds.state is TradingState.ACTIVE
    done = replay_log(w.log.records())
    assert done.holds_together, (done.differing, done.contradictions)
    assert done.account.snapshot() == w.account.snapshot()


async def holding_a_condor(w: SimpleNamespace, count: int = 1) -> None:
    await w.trader.start()
    await w.trader.route(wish(condor(), "buy", count, 0.2, key="in"))
    await drain(w)
    await ticks(w, 1)


def expired(w: SimpleNamespace, spot: int, *, told: bool = False) -> None:
    w.clock.set_now_ns(AFTER_NS)
    for leg in LEGS:
        w.venue.end_option(leg.ticker, spot * 10_000, told=told)


@pytest.mark.contract("B12")
@pytest.mark.parametrize("restart", ["none", "before", "between", "after"])
@pytest.mark.parametrize("is_told_late", [False, True])
def test_a_condor_whose_end_nobody_told_ends_once_through_restarts(restart, is_told_late):
    """One leg assigned and three worthless, by positions alone: booked once, and executions told afterwards count in its place."""

    async def run() -> SimpleNamespace:
        w = option_world(*LEGS, clock=ManualClock(NOW_NS))
        await holding_a_condor(w)
        expired(w, 475)
        if restart == "before":  # and by then no venue lists what expired
            w.venue._instruments = {SPY.ticker: SPY}
            w = restarted(w)
            assert not await w.trader.start()
        await ticks(w, 1)
        assert len(endings(w)) == (5 if restart == "before" else 0)
        if restart == "between":
            w = restarted(w)
            await w.trader.start()
        await ticks(w)
        agreed(w)
        if restart == "after":
            w = restarted(w)
            assert await w.trader.start()
        if is_told_late:
            w.venue.tell_endings()
            await ticks(w)
        agreed(w)
        result = await w.trader.route(wish(SPY, "sell", 100, 1, key="out"))
        assert result.status is RouteStatus.SUBMITTED
        return w

    w = asyncio.run(run())
    assert {(x["ticker"], x["cause"], x["amount"]) for x in alarms(w)} == {
        (leg.ticker, "assignment" if leg == put(480) else "expiration", "known") for leg in LEGS
    }
    assert len(alarms(w)) == 4
    causes = [cause for _, cause, _ in endings(w)]
    assert len(causes) == (15 if is_told_late else 5)
    assert ("SPY", "assignment", "480.0000") in endings(w)
    ids = [x["trade_id"] for x in w.log.of("TRADE")]
    assert len(set(ids)) == len(ids)


def test_an_order_may_leave_again_though_nobody_looked():
    """Before it is explained nothing leaves; once it is, an increasing order does."""

    async def run() -> None:
        w = option_world(*LEGS, clock=ManualClock(NOW_NS))
        await holding_a_condor(w)
        expired(w, 475)
        w = restarted(w)
        assert not await w.trader.start()
        refused = await w.trader.route(wish(SPY, "buy", 1, 1.1, key="early"))
        assert (refused.status, refused.reason) == (RouteStatus.DENIED, "state_cancel_only")
        await ticks(w)
        agreed(w)
        result = await w.trader.route(wish(SPY, "buy", 1, 1.1, key="now"))
        assert result.status is RouteStatus.SUBMITTED

    asyncio.run(run())


def test_a_price_seen_at_the_expiry_tells_what_happened_even_after_a_restart():
    """All legs gone and no share moved: worthless, since the underlying stood between the short legs."""

    async def run() -> SimpleNamespace:
        w = option_world(*LEGS, clock=ManualClock(NOW_NS))
        await holding_a_condor(w)
        w.clock.set_now_ns(EXPIRES_NS)
        w.venue.put_event(UnderlyingSeen("SPY", PriceE4(5_000_000), EXPIRES_NS))
        await drain(w)
        await w.trader.tick(w.clock.now_ns())
        w = restarted(w)
        expired(w, 500)
        await w.trader.start()
        await ticks(w)
        agreed(w)
        return w

    w = asyncio.run(run())
    assert {(x["cause"], x["amount"]) for x in alarms(w)} == {("expiration", "known")}
    assert held(w) == {}


def test_what_an_ended_structure_paid_is_not_invented():
    """No price was seen: positions agree, exits may leave and nothing that increases, until a person says what it paid."""

    async def run() -> SimpleNamespace:
        w = option_world(*LEGS, clock=ManualClock(NOW_NS))
        await holding_a_condor(w)
        expired(w, 460)
        await ticks(w)
        assert held(w) == {}
        assert w.account.holds.state is TradingState.REDUCING
        w = restarted(w)
        assert not await w.trader.start()
        assert w.account.holds.state is TradingState.REDUCING
        with pytest.raises(BadInput, match="no claimed ending"):
            await w.trader.books.settle_option("SPY", PriceE4(1), who="me", why="statement")
        for leg in LEGS:
            paid = leg.option.payoff(PriceE4(4_600_000))
            await w.trader.books.settle_option(leg.ticker, paid, who="me", why="statement")
        agreed(w)
        w.venue.tell_endings()  # as shares at the strikes, in place of what the person said
        await ticks(w)
        agreed(w)
        return w

    w = asyncio.run(run())
    assert {x["amount"] for x in alarms(w)} == {"unknown"}
    assert {x["venue_balance"] for x in alarms(w)} == {"98977.40"}


CASH = {"settlement": SettlementStyle.CASH}


@pytest.mark.parametrize("paid_at", [470, 471])
def test_cash_is_claimed_from_the_price_seen_and_corrected_when_it_is_told(paid_at):
    """The payoff of what was seen at expiry is booked; the execution told later counts at its own price."""
    option = put(480, **CASH)
    option = msgspec.structs.replace(
        option, option=msgspec.structs.replace(option.option, style=ExerciseStyle.EUROPEAN)
    )

    async def run() -> SimpleNamespace:
        w = option_world(option, clock=ManualClock(NOW_NS))
        w.venue.trade_elsewhere(fill(option, BookSide.ASK, 2, 1, trade_id="before"))
        await w.trader.start()
        await ticks(w, 1)
        w.clock.set_now_ns(EXPIRES_NS)
        w.venue.put_event(UnderlyingSeen("SPY", PriceE4(4_700_000), EXPIRES_NS))
        await drain(w)
        await w.trader.tick(w.clock.now_ns())
        w.clock.set_now_ns(AFTER_NS)
        w.venue.end_option(option.ticker, paid_at * 10_000, told=False)
        before = w.account.portfolio.cash
        await ticks(w)
        assert (before - w.account.portfolio.cash) == 2 * 100 * 10 * 1_000_000
        assert [x["amount"] for x in alarms(w)] == ["claimed"]
        assert w.account.holds.state is TradingState.ACTIVE
        w.venue.tell_endings()
        await ticks(w)
        return w

    agreed(asyncio.run(run()))


def test_early_assignments_one_after_the_other_are_each_booked():
    """Two short puts assigned on two days before their expiry: two hundred shares, ids of their own, and none of it twice."""

    async def run() -> SimpleNamespace:
        w = option_world(put(480), clock=ManualClock(NOW_NS))
        w.venue.trade_elsewhere(fill(put(480), BookSide.ASK, 2, 1, trade_id="before"))
        await w.trader.start()
        for left in (1, 0):
            w.venue.end_option(put(480).ticker, 4_500_000, qty=100, told=False)
            await ticks(w)
            assert held(w) == {**({put(480).ticker: -1} if left else {}), "SPY": 200 - 100 * left}
            agreed(w)
        w.venue.tell_endings()
        await ticks(w)
        agreed(w)
        return w

    assert len(endings(asyncio.run(run()))) == 12


def test_a_trade_after_an_early_assignment_counts_beside_it():
    """Buying the other short put back is a trade of its own, not the assignment told late."""

    async def run() -> SimpleNamespace:
        w = option_world(put(480), clock=ManualClock(NOW_NS))
        w.venue.trade_elsewhere(fill(put(480), BookSide.ASK, 2, 1, trade_id="before"))
        await w.trader.start()
        w.venue.end_option(put(480).ticker, 4_500_000, qty=100, told=False)
        await ticks(w)
        await w.trader.route(wish(put(480), "buy", 1, 1.1, key="back"))
        await ticks(w, 2)
        assert held(w) == {"SPY": 100}
        return w

    agreed(asyncio.run(run()))


def test_a_difference_that_several_endings_explain_stays_one():
    """A hundred shares came and two contracts went that one assignment cannot tell apart: nothing is booked, and it is said why."""

    async def run() -> SimpleNamespace:
        w = option_world(*LEGS, clock=ManualClock(NOW_NS))
        await holding_a_condor(w, count=2)
        w.clock.set_now_ns(AFTER_NS)
        for leg in LEGS:
            w.venue.end_option(leg.ticker, 5_000_000, told=False)
        w.venue.trade_elsewhere(fill(SPY, BookSide.BID, 100, 1, trade_id="unseen"))
        w.venue._fills.pop()
        w.venue._backlog.pop()
        await ticks(w)
        return w

    w = asyncio.run(run())
    assert len(held(w)) == 4
    assert w.account.holds.state is TradingState.CANCEL_ONLY
    said = [x["unexplained"] for x in w.log.of("RECONCILE") if "unexplained" in x]
    assert said[-1] == {"SPY": "several ways in which it may have ended"}
    assert alarms(w) == []


def test_nothing_is_explained_while_an_order_there_is_unknown():
    """The order may have closed the position: until it is found, an ending is not assumed."""
    option = put(480)

    async def run() -> SimpleNamespace:
        w = option_world(option, clock=ManualClock(NOW_NS))
        w.venue.trade_elsewhere(fill(option, BookSide.ASK, 1, 1, trade_id="before"))
        await w.trader.start()
        await ticks(w, 1)
        w.venue.script(Play.VANISHED)
        await w.trader.route(wish(option, "buy", 1, 1.1, key="lost"))
        w.venue.end_option(option.ticker, 4_500_000, told=False)
        await ticks(w)
        assert endings(w) == []
        return w

    w = asyncio.run(run())
    assert w.account.holds.state is TradingState.CANCEL_ONLY


def test_causes_are_those_of_the_side_held():
    """A long one is exercised, a short one assigned."""

    async def run(count: int) -> SimpleNamespace:
        w = option_world(put(480), clock=ManualClock(NOW_NS))
        side = BookSide.BID if count > 0 else BookSide.ASK
        w.venue.trade_elsewhere(fill(put(480), side, 1, 1, trade_id="before"))
        await w.trader.start()
        w.venue.end_option(put(480).ticker, 4_500_000, told=False)
        await ticks(w)
        agreed(w)
        return w

    assert {cause for _, cause, _ in endings(asyncio.run(run(1)))} == {FillCause.EXERCISE.value}
    assert {cause for _, cause, _ in endings(asyncio.run(run(-1)))} == {FillCause.ASSIGNMENT.value}


@pytest.mark.contract("B13")
@pytest.mark.parametrize("restart", [False, True])
def test_a_desk_that_held_to_expiry_lets_go_of_its_stop_and_sells_the_shares(restart):
    """Assigned unseen on the short put: the shares are sold once, the stop is removed, and the next entry may leave."""

    async def run() -> SimpleNamespace:
        wide = RiskLimits(max_exit_value=MoneyE6(10**12))
        w = desk.desk_world(stop=STOP, limits=wide)
        one = await desk.entered(w)
        legs = [ticker for ticker, _ in one.legs]
        short = max(ticker for ticker in legs if "P" in ticker[9:])
        spot = int(short[-8:]) * 10 - 30_000  # three dollars in the money, the wing worthless
        expires_ns = w.trader.market.instruments[short].option.expires_ns
        w.clock.set_now_ns(expires_ns + 7_200 * NANOS)
        for ticker in legs:
            w.venue.end_option(ticker, spot, told=False)
        assert w.stops.stops != {}
        if restart:
            w.venue._queue = None
            w = desk.desk_world(
                stop=STOP, limits=wide, clock=w.clock, venue=w.venue, log=MemoryLog(w.log.lines)
            )
            await w.trader.start()
        for _ in range(8):
            desk.quote(w, "SPY", spot, spot + 100, size=10**6)
            await desk.tick(w, 60)
        assert desk.flat_world(w)
        assert w.stops.stops == {}
        assert w.account.holds.state is TradingState.ACTIVE
        return w

    w = asyncio.run(run())
    sold = [order for order in w.log.of("ORDER") if order["ticker"] == "SPY"]
    assert [(order["action"], order["quantity"]) for order in sold] == [("sell", "100.00")]
    assert len(alarms(w)) == 4


@given(
    held_by=st.lists(st.integers(-2, 2), min_size=4, max_size=4).filter(any),
    spot=st.sampled_from((460, 475, 500, 525, 540)),
    is_seen=st.booleans(),
    when=st.sampled_from(("never", "after", "restart")),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=30, deadline=None)
def test_random_books_agree_with_the_venue_whenever_its_executions_come(held_by, spot, is_seen, when, order):
    """With a price seen everything is explained; without, what was booked is never wrong unsaid; told executions set all right."""

    async def run() -> None:
        w = option_world(*LEGS, clock=ManualClock(NOW_NS))
        for leg, count in zip(LEGS, held_by, strict=True):
            if count:
                side = BookSide.BID if count > 0 else BookSide.ASK
                w.venue.trade_elsewhere(fill(leg, side, abs(count), 1, trade_id=leg.ticker))
        await w.trader.start()
        await ticks(w, 1)
        if is_seen:
            w.clock.set_now_ns(EXPIRES_NS)
            w.venue.put_event(UnderlyingSeen("SPY", PriceE4(spot * 10_000), EXPIRES_NS))
            await drain(w)
            await w.trader.tick(w.clock.now_ns())
        w.clock.set_now_ns(AFTER_NS)
        for leg, count in zip(LEGS, held_by, strict=True):
            if count:
                w.venue.end_option(leg.ticker, spot * 10_000, told=False)
        await ticks(w)
        is_sure = {x["amount"] for x in alarms(w)} == {"known"}
        assert is_sure or not is_seen
        if is_sure:
            agreed(w)
        elif w.account.holds.state is not TradingState.CANCEL_ONLY:
            assert w.account.portfolio.positions == w.venue._positions
        if when == "never":
            return
        if when == "restart":
            w = restarted(w)
            await w.trader.start()
        order.shuffle(w.venue._untold)
        w.venue.tell_endings()
        await ticks(w)
        agreed(w)

    asyncio.run(run())


def test_shares_that_come_a_moment_after_their_option_went_are_waited_for():
    """A difference counts once it has stood: a put that goes half a minute before its shares was assigned, not worthless."""

    async def run() -> SimpleNamespace:
        w = option_world(put(480), clock=ManualClock(NOW_NS))
        w.venue.trade_elsewhere(fill(put(480), BookSide.ASK, 1, 1, trade_id="before"))
        await w.trader.start()
        await ticks(w, 1)
        w.clock.set_now_ns(AFTER_NS)
        w.venue.end_option(put(480).ticker, 4_500_000, told=False)
        shares = w.venue._positions.pop("SPY")
        w = restarted(w)
        await w.trader.start()
        await ticks(w, 3, secs=10)
        assert endings(w) == []
        w.venue._positions["SPY"] = shares
        await ticks(w, 5, secs=30)
        return w

    w = asyncio.run(run())
    agreed(w)
    assert {cause for _, cause, _ in endings(w)} == {"assignment"}


def test_a_claim_hides_no_execution_that_is_older():
    """Executions are read since the venue's newest one: a claim, dated when it was noticed, is none."""

    async def run() -> SimpleNamespace:
        w = option_world(put(480), clock=ManualClock(NOW_NS))
        w.venue.trade_elsewhere(fill(put(480), BookSide.ASK, 1, 1, trade_id="before"))
        await w.trader.start()
        before = w.account.last_fill_ns
        w.venue.end_option(put(480).ticker, 4_500_000, told=False)
        await ticks(w)
        assert len(endings(w)) == 2
        assert w.account.last_fill_ns == before
        return w

    agreed(asyncio.run(run()))
