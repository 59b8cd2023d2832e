"""Combinations, exercises and assignments on the order path: every leg booked once, whatever the venue does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from support.contracts import (
    EXPIRES_NS,
    NOW_NS,
    SPY,
    call,
    combo,
    condor,
    fill,
    option_world,
    put,
    wish,
)
from support.execution import MemoryLog, drain, move_to

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.instruments import Instrument
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.options import SettlementStyle
from holdfast.core.orders import Fill, FillCause, OrderStatus
from holdfast.core.signals import BookSide, Side
from holdfast.execution.replay import replay_log
from holdfast.execution.trader import RouteStatus
from holdfast.execution.venue import Canceled, FillSeen, OrderSeen, VenueOrder, VenueTime
from holdfast.risk.account import Account
from holdfast.risk.halt import TradingState
from holdfast.risk.order import Order
from holdfast.testing.venue import Play

LEGS = [put(470), put(480), call(520), call(530)]
ENTRY = {"instrument": condor(), "action": "buy", "count": 2, "price": 0.2}


def entry(**changes: Any) -> Any:
    """Two condors, at prices at which the legs of the world trade: 1.10 a wing, 1.00 a short leg."""
    return wish(**(ENTRY | changes))


def replayed(w: SimpleNamespace) -> Account:
    """The account by the log alone; decisions must replay too."""
    done = replay_log(w.log.records())
    assert done.holds_together, (done.differing, done.contradictions)
    assert done.account.snapshot() == w.account.snapshot()
    return done.account


def held(w: SimpleNamespace) -> dict[str, int]:
    return {ticker: qty // 100 for ticker, qty in w.account.portfolio.positions.items()}


WHOLE = {LEGS[0].ticker: 2, LEGS[1].ticker: -2, LEGS[2].ticker: -2, LEGS[3].ticker: 2}


@pytest.mark.contract("B12")
def test_a_combination_is_one_order_and_books_its_legs() -> None:
    """Four leg fills make one filled order, four positions and the cash of all legs and fees; the log says the same."""
    w = option_world(*LEGS)

    async def run() -> None:
        await w.trader.start()
        result = await w.trader.route(entry(key="a"))
        assert result.status is RouteStatus.SUBMITTED
        await drain(w)

    asyncio.run(run())
    (order,) = w.account.orders.values()
    assert (order.status, order.filled, order.leg_filled) == (OrderStatus.FILLED, 200, (200,) * 4)
    assert held(w) == WHOLE
    fees = 8 * 650_000
    assert w.account.portfolio.cash == 10**11 - 2 * 20_000_000 - fees
    assert w.account.portfolio.cash == w.venue._cash
    (written,) = w.log.of("ORDER")
    assert (written["multiplier"], written["legs"]) == (100, [list(leg) for leg in order.legs])
    assert [trade["multiplier"] for trade in w.log.of("TRADE")] == [100] * 4
    assert "cause" not in w.log.of("TRADE")[0]
    assert w.log.violations() == []
    replayed(w)


@pytest.mark.contract("B12")
def test_a_partial_combination_keeps_its_legs_apart_until_they_are_whole() -> None:
    """A leg that fills first moves its position at once; the order counts whole units and what is left still works."""
    w = option_world(*LEGS)

    async def run() -> None:
        await w.trader.start()
        result = await w.trader.route(entry(key="a", price=0.1, tif="gtc"))
        name = result.client_order_id
        order = w.account.orders[name]
        for count, (leg, price) in enumerate(zip(LEGS, (1, 1, 1, 1.1), strict=True), start=1):
            w.venue.fill_leg(name, leg.ticker, 100, round(price * 10_000))
            await drain(w)
            assert order.filled == (100 if count == 4 else 0)
            assert order.is_even is (count == 4)
            assert w.account.working(leg.ticker) == ((100, 0) if leg in {LEGS[0], LEGS[3]} else (0, 100))
        assert held(w) == {ticker: qty // 2 for ticker, qty in WHOLE.items()}
        assert isinstance(await w.trader.cancel(name), Canceled)
        assert (order.status, order.filled, order.released) == (OrderStatus.CANCELED, 100, 100)
        assert all(w.account.working(leg.ticker) == (0, 0) for leg in LEGS)
        assert w.account.reserved == 0

    asyncio.run(run())
    assert w.log.violations() == []
    replayed(w)


@pytest.mark.contract("B12")
def test_a_combination_whose_leg_was_rejected_is_alarmed_as_uneven() -> None:
    """The first leg done and the others refused: the leg is held, the order ended, and a person is told."""
    w = option_world(*LEGS)
    w.venue.script(Play.LEG_REJECTED)

    async def run() -> None:
        await w.trader.start()
        await w.trader.route(entry(key="a"))
        await drain(w)

    asyncio.run(run())
    (order,) = w.account.orders.values()
    assert (order.status, order.filled, order.released) == (OrderStatus.CANCELED, 0, 200)
    first = order.legs[0][0]
    assert w.account.portfolio.positions == {first: -200}
    assert w.log.violations() == ["combination_uneven"]
    alarm = next(v for v in w.log.of("RISK_VIOLATION") if v["violation_type"] == "combination_uneven")
    assert alarm["current_value"].startswith(f"2.00 {first}, 0.00 ")
    assert w.account.reserved == 0
    replayed(w)


@pytest.mark.invariant("I2")
@pytest.mark.parametrize("how", ["canceled", "looked up", "told too late"])
def test_an_uneven_end_is_known_as_such_however_it_is_learned(how: str) -> None:
    """A leg that filled unseen is booked before the end is taken over; one told after the end is alarmed as late too."""
    clock = ManualClock(NOW_NS)
    w = option_world(*LEGS, clock=clock)
    w.venue.script(Play.LOST if how == "looked up" else Play.NORMAL)

    async def run() -> Order:
        await w.trader.start()
        w.venue.mute = how == "looked up"
        result = await w.trader.route(entry(key="a", price=0.1, tif="gtc"))
        await drain(w)
        w.venue.mute = True
        w.venue.fill_leg(result.client_order_id, put(480).ticker, 200, 10_000)
        order: Order = w.account.orders[result.client_order_id]
        (listed,) = await w.venue.open_orders()
        if how == "canceled":
            await w.trader.cancel(order.client_order_id)
        else:
            await w.venue.cancel(order_id=listed.order_id, ticker=listed.ticker)
        if how == "looked up":
            clock.advance(2)
            await w.trader.tick(clock.now_ns())
        if how == "told too late":
            closed = await w.venue.order(listed.order_id)
            await w.trader.handle(OrderSeen(closed))
            assert order.status is OrderStatus.CANCELED
            await w.trader.handle(FillSeen(w.venue._fills[-1]))
        return order

    order = asyncio.run(run())
    assert (order.status, order.filled, order.released) == (OrderStatus.CANCELED, 0, 200)
    assert held(w) == {put(480).ticker: -2}
    late = ["fill_after_end"] if how == "told too late" else []
    assert w.log.violations() == [*late, "combination_uneven"]
    replayed(w)


@pytest.mark.contract("A16")
@pytest.mark.invariant("I2")
@pytest.mark.parametrize("play", [Play.LOST, Play.CUT])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_combination_whose_answer_is_lost_is_found_with_all_its_legs(play: Play, restarts: bool) -> None:
    """No answer, or a stream cut after the first leg: the venue's books tell, each leg is booked once, nothing is resent."""
    clock, log = ManualClock(NOW_NS), MemoryLog()
    w = option_world(*LEGS, log=log, clock=clock)
    w.venue.script(play)

    async def run() -> None:
        await w.trader.start()
        result = await w.trader.route(entry(key="a"))
        assert result.status is RouteStatus.UNKNOWN
        order = w.account.orders[result.client_order_id]
        assert w.account.reserved == order.reserved
        assert all(sum(w.account.working(leg.ticker)) == 200 for leg in LEGS)

    asyncio.run(run())
    if restarts:
        w.venue._queue = None
        w.venue._backlog.clear()
        again = option_world(*LEGS, log=log, clock=clock)
        move_to(again.trader, w.venue)
        again.venue = w.venue
        w = again
    watcher = w.trader.observer = Watcher(w)

    async def settle() -> None:
        await w.trader.start()
        if play is Play.CUT:
            await drain(w)
        clock.advance(2)
        await w.trader.tick(clock.now_ns())

    asyncio.run(settle())
    (order,) = w.account.orders.values()
    assert (order.status, order.filled) == (OrderStatus.FILLED, 200)
    assert [what for what, _ in watcher.told if what != "fill"] == ["end", "time"]
    assert ("end", order.client_order_id) in watcher.told
    assert held(w) == WHOLE
    assert len(w.venue.arrived) == 1
    assert len(w.log.of("TRADE")) == 4
    assert w.log.violations() == []
    assert w.account.holds.state is TradingState.ACTIVE
    replayed(w)


@pytest.mark.invariant("I2")
def test_a_combination_is_proven_absent_once_a_leg_has_expired() -> None:
    """An immediate combination that never arrived stays UNKNOWN and reserved until nothing of it can trade any more."""
    clock = ManualClock(NOW_NS)
    w = option_world(*LEGS, clock=clock)
    w.venue.script(Play.VANISHED)

    async def run() -> None:
        await w.trader.start()
        name = (await w.trader.route(entry(key="a"))).client_order_id
        order = w.account.orders[name]
        for _ in range(8):
            clock.advance(60)
            await w.trader.tick(clock.now_ns())
        assert order.status is OrderStatus.UNKNOWN
        clock.set_now_ns(EXPIRES_NS + 61 * NANOS)
        for _ in range(3):
            clock.advance(60)
            await w.trader.tick(clock.now_ns())
        assert order.status is OrderStatus.NEVER_ARRIVED
        assert w.account.reserved == 0

    asyncio.run(run())


ENDINGS = [
    (put(480), -2, 4_700_000, FillCause.ASSIGNMENT, {SPY.ticker: 200}, -200 * 480),
    (call(520), -1, 5_250_000, FillCause.ASSIGNMENT, {SPY.ticker: -100}, 100 * 520),
    (put(480), 1, 4_700_000, FillCause.EXERCISE, {SPY.ticker: -100}, 100 * 480),
    (call(520), 1, 5_250_000, FillCause.EXERCISE, {SPY.ticker: 100}, -100 * 520),
    (call(520), -1, 5_200_000, FillCause.EXPIRATION, {}, 0),
    (put(480, settlement=SettlementStyle.CASH), -1, 4_700_000, FillCause.ASSIGNMENT, {}, -100 * 10),
    (call(520, settlement=SettlementStyle.CASH), 2, 5_250_000, FillCause.EXERCISE, {}, 200 * 5),
]


@pytest.mark.contract("B12")
@pytest.mark.parametrize(("option", "count", "spot", "cause", "after", "dollars"), ENDINGS)
@pytest.mark.parametrize("streamed", [True, False])
def test_the_end_of_an_option_explains_the_position_that_it_leaves(  # noqa: PLR0917  one row of the table
    option: Instrument,
    count: int,
    spot: int,
    cause: FillCause,
    after: dict[str, int],
    dollars: int,
    streamed: bool,
) -> None:
    """Exercise, assignment and expiry come as external fills with their cause, told or read, and no drift is left."""
    clock = ManualClock(NOW_NS)
    w = option_world(option, clock=clock)

    async def run() -> int:
        side = BookSide.BID if count > 0 else BookSide.ASK
        w.venue.trade_elsewhere(fill(option, side, abs(count), 1, trade_id="before"))
        await w.trader.start()
        cash: int = w.account.portfolio.cash
        w.venue.mute = not streamed
        w.venue.end_option(option.ticker, spot)
        w.venue.mute = False
        if streamed:
            await drain(w)
        for _ in range(3):
            clock.advance(61)
            await w.trader.tick(clock.now_ns())
        return w.account.portfolio.cash - cash

    assert asyncio.run(run()) == dollars * 1_000_000
    assert held(w) == after
    ends = [trade for trade in w.log.of("TRADE") if "cause" in trade]
    assert {trade["cause"] for trade in ends} == {cause.value}
    assert len(ends) == (2 if after else 1)
    assert {trade["external"] for trade in ends} == {True}
    assert cause.value in {record["what"] for record in w.log.of("RECONCILE")}
    assert w.account.holds.state is TradingState.ACTIVE
    assert w.venue._cash == w.account.portfolio.cash
    replayed(w)


def test_an_early_assignment_of_a_part_leaves_the_rest() -> None:
    """One of two short puts is assigned: one stays short, a hundred shares are held, and the stock can be sold."""
    w = option_world(put(480), put(470))

    async def run() -> None:
        await w.trader.start()
        await w.trader.route(wish(combo((put(470), 1), (put(480), -1)), "buy", 2, 0.1))
        await drain(w)
        w.venue.end_option(put(480).ticker, 4_500_000, qty=100)
        await drain(w)
        assert held(w) == {put(470).ticker: 2, put(480).ticker: -1, "SPY": 100}
        sold = await w.trader.route(wish(SPY, "sell", 100, 1))
        assert sold.status is RouteStatus.SUBMITTED
        await drain(w)
        assert w.account.orders[sold.client_order_id].status is OrderStatus.FILLED

    asyncio.run(run())
    assert held(w) == {put(470).ticker: 2, put(480).ticker: -1}
    replayed(w)


def test_somebody_elses_combination_works_in_every_leg() -> None:
    """An adopted combination counts in the markets of its legs until the venue no longer lists it."""
    w = option_world(*LEGS)
    listed = VenueOrder(
        order_id="X1",
        client_order_id="",
        ticker=condor().ticker,
        side=BookSide.BID,
        yes_price=PriceE4(-30_000),
        filled=QtyE2(0),
        leaves=QtyE2(300),
        initial=QtyE2(300),
        status=OrderStatus.WORKING,
        multiplier=100,
    )

    async def run() -> None:
        await w.trader.start()
        await w.trader.handle(OrderSeen(listed))
        assert w.account.working(put(470).ticker) == (300, 0)
        assert w.account.working(put(480).ticker) == (0, 300)
        closed = msgspec.structs.replace(listed, leaves=QtyE2(0), status=OrderStatus.CANCELED)
        await w.trader.handle(OrderSeen(closed))
        assert all(w.account.working(leg.ticker) == (0, 0) for leg in LEGS)

    asyncio.run(run())
    replayed(w)


def test_a_leg_that_fills_beyond_its_share_is_booked_alarmed_and_stops_entries() -> None:
    """Three contracts of a leg in an order of two: the third moves the position and trading is held to cancels."""
    w = option_world(*LEGS)

    async def run() -> None:
        await w.trader.start()
        result = await w.trader.route(entry(key="a", price=0.1, tif="gtc"))
        w.venue.fill_leg(result.client_order_id, put(470).ticker, 300, 10_000)
        await drain(w)

    asyncio.run(run())
    (order,) = w.account.orders.values()
    assert (order.leg_filled, order.overfilled) == ((0, 0, 200, 0), 100)
    assert held(w) == {put(470).ticker: 3}
    assert "overfill" in w.log.violations()
    assert w.account.holds.state is TradingState.CANCEL_ONLY
    replayed(w)


@pytest.mark.parametrize(("side", "reason"), [(Side.NO, "bad_input")])
def test_an_option_has_no_side_no(side: Side, reason: str) -> None:
    """A wish for the side no of an option is denied and recorded, and nothing is sent."""
    w = option_world(*LEGS)

    async def run() -> None:
        await w.trader.start()
        denied = await w.trader.route(wish(put(480), "buy", 1, 0.5, side=side))
        assert (denied.status, denied.reason) == (RouteStatus.DENIED, reason)

    asyncio.run(run())
    assert w.venue.arrived == []


def test_a_restart_values_what_it_holds_by_its_multiplier() -> None:
    """After a restart options are worth their quotes times a hundred, and the opening cash has no collateral for shorts."""
    log, clock = MemoryLog(), ManualClock(NOW_NS)
    w = option_world(*LEGS, log=log, clock=clock)
    w.venue.trade_elsewhere(fill(put(480), BookSide.ASK, 2, 1, trade_id="before"))

    async def run(trader: Any) -> int | None:
        assert await trader.start()
        value: int | None = trader.gate.value()
        return value

    first = asyncio.run(run(w.trader))
    assert first == w.venue._cash - 2 * 110_000_000
    again = option_world(*LEGS, log=log, clock=clock)
    move_to(again.trader, w.venue)
    asyncio.run(run(again.trader))
    again.market = again.trader.market
    for ticker in again.account.portfolio.positions:
        again.market.saw_book(ticker, PriceE4(10_000), PriceE4(11_000), 0, streamed=True)
    assert again.gate.value() == first


class Watcher:
    """Remembers what an observer is told, and what the log held then."""

    def __init__(self, w: SimpleNamespace) -> None:
        self.w = w
        self.told: list[tuple[str, Any]] = []
        self.quiet_before: list[int] = []

    async def on_time(self, now_ns: int) -> None:
        assert now_ns not in [at for what, at in self.told if what == "time"]
        assert list(self.w.venue.quiet) == self.quiet_before
        self.told.append(("time", now_ns))

    async def on_own_fill(self, fill: Fill, order: Order) -> None:
        assert fill.trade_id in [trade["trade_id"] for trade in self.w.log.of("TRADE")]
        self.told.append(("fill", (fill.ticker, order.client_order_id)))

    async def on_order_ended(self, order: Order) -> None:
        name, updates = order.client_order_id, self.w.log.of("ORDER_UPDATE")
        assert [one["status"] for one in updates if one["client_order_id"] == name][-1] == order.status
        self.told.append(("end", order.client_order_id))


@pytest.mark.contract("B13")
def test_an_observer_hears_of_time_fills_and_ends_once_each() -> None:
    """Each leg fill, the end of each order also when a lookup proves it, and each time once, before the venue goes on."""
    clock = ManualClock(NOW_NS)
    w = option_world(*LEGS, clock=clock, on_time=clock.set_now_ns)
    watcher = Watcher(w)
    w.trader.observer = watcher
    w.venue.script(Play.NORMAL, Play.LOST, Play.REJECT)

    async def run() -> list[str]:
        await w.trader.start()
        names = [(await w.trader.route(entry(key=key))).client_order_id for key in "abc"]
        await drain(w)
        at_ns = NOW_NS + 2 * NANOS
        for n in (1, 2):
            await w.trader.handle(VenueTime(n=n, ts_ns=at_ns))
            watcher.quiet_before = list(w.venue.quiet)
        await w.trader.handle(VenueTime(n=3, ts_ns=at_ns + NANOS))
        return names

    names = asyncio.run(run())
    assert sorted(name for what, name in watcher.told if what == "end") == sorted(names)
    fills = [facts for what, facts in watcher.told if what == "fill"]
    assert len(fills) == len(set(fills)) == 8
    assert [at for what, at in watcher.told if what == "time"] == [NOW_NS + 2 * NANOS, NOW_NS + 3 * NANOS]
    assert w.venue.quiet == [1, 2, 3]
