"""The venue's books read into ours, where the venue is late, forgetful or lies."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from support.execution import OTHER, TICKER, MemoryLog, drain, signal, world

from holdfast.core.clock import NANOS
from holdfast.core.errors import CircuitBreakerOpenError
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import Fill, OrderStatus
from holdfast.core.signals import BookSide
from holdfast.execution.trader import RouteStatus
from holdfast.execution.venue import (
    Ack,
    DedupProfile,
    FillSeen,
    MarketChanged,
    NotSent,
    OrderSeen,
    StreamGap,
    VenueOrder,
)
from holdfast.risk.claims import CLAIM
from holdfast.testing.venue import Play


def go(coroutine):
    return asyncio.run(coroutine)


def elsewhere(*, trade_id: str, ts_ns: int, qty: int = 100) -> Fill:
    """A fill of somebody else's order E1."""
    return Fill(
        trade_id=trade_id,
        order_id="E1",
        ticker=TICKER,
        side=BookSide.BID,
        price=PriceE4(5600),
        qty=QtyE2(qty),
        fee=MoneyE6(0),
        is_taker=True,
        ts_ns=ts_ns,
    )


def theirs(*, filled: int, leaves: int, status: OrderStatus = OrderStatus.WORKING) -> OrderSeen:
    """Somebody else's order E1 of 10 contracts."""
    return OrderSeen(
        VenueOrder(
            order_id="E1",
            client_order_id="theirs",
            ticker=TICKER,
            side=BookSide.BID,
            yes_price=PriceE4(5600),
            filled=QtyE2(filled),
            leaves=QtyE2(leaves),
            initial=QtyE2(10_00),
            status=status,
        )
    )


async def let_time_pass(w, secs: int) -> None:
    for _ in range(secs):
        w.clock.advance(1)
        await w.trader.tick(w.clock.now_ns())


@pytest.mark.invariant("I3")
def test_an_external_order_counts_with_what_the_venue_lists_as_open():
    """Of an order adopted half filled exactly the open part is counted, late fills or not, until it has ended."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.handle(theirs(filled=4_00, leaves=6_00))
        await w.trader.handle(FillSeen(elsewhere(trade_id="X1", ts_ns=w.clock.now_ns(), qty=4_00)))
        assert w.account.working(TICKER) == (6_00, 0)
        assert w.account.portfolio.position(TICKER) == 4_00
        await w.trader.handle(theirs(filled=7_00, leaves=3_00))
        assert w.account.working(TICKER) == (3_00, 0)
        assert not w.trader.ledger.claims
        await w.trader.handle(theirs(filled=7_00, leaves=0, status=OrderStatus.CANCELED))
        assert w.account.working(TICKER) == (0, 0)
        assert not w.account.open_orders()
        again = world(log=MemoryLog(w.log.lines), clock=w.clock, venue=w.venue)
        again.trader._starting.replay()
        assert again.account.snapshot() == w.account.snapshot()

    go(run())


@pytest.mark.invariant("I2")
def test_fills_that_never_come_are_alarmed_and_hide_no_drift():
    """A claim without fills keeps its quantity reserved, is alarmed once, and positions are compared all the same."""

    async def run():
        w = world()
        await w.trader.start()

        async def claims_only(play, intent):
            return Ack(order_id="L1", filled=QtyE2(10_00), remaining=QtyE2(0))

        w.venue._play = claims_only
        await w.trader.route(signal(key="a"))
        w.venue._positions[OTHER] = QtyE2(50_00)
        await let_time_pass(w, 300)
        assert w.account.working(TICKER) == (10_00, 0)
        assert w.log.violations().count("fills_missing") == 1
        assert w.account.holds.snapshot() == {"drift": "CANCEL_ONLY"}

    go(run())


@pytest.mark.parametrize("restarts", [False, True])
def test_a_zombie_is_hunted_until_it_has_ended(restarts: bool):
    """A zombie whose first cancel did not go out is cancelled again, after a restart too."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue.script(Play.REJECT)
        name = (await w.trader.route(signal(key="a", tif="gtc", price=50))).client_order_id
        w.venue._accept(w.venue.arrived[0])
        cancel = w.venue.cancel

        async def limited(**_):
            return NotSent(reason="429")

        w.venue.cancel = limited
        await drain(w)
        assert w.account.orders[name].status is OrderStatus.WORKING
        w.venue.cancel = cancel
        if restarts:
            w = world(log=w.log, clock=w.clock, venue=w.venue)
            await w.trader.start()
        await let_time_pass(w, 3)
        assert w.account.orders[name].status is OrderStatus.CANCELED
        assert w.account.working(TICKER) == (0, 0)

    go(run())


@pytest.mark.invariant("I2")
def test_a_correction_from_the_future_hides_no_later_fill():
    """A corrected execution is dated as every other fill is: nobody knows a time that has not come."""

    async def run():
        w = world()
        await w.trader.start()
        told = elsewhere(trade_id="X1", ts_ns=w.clock.now_ns())
        told = msgspec.structs.replace(told, revision=1)
        w.venue.trade_elsewhere(told)
        await w.trader.handle(FillSeen(told))
        century_ns = w.clock.now_ns() + 100 * 365 * 86_400 * NANOS
        anew = msgspec.structs.replace(told, price=PriceE4(told.price + 100), revision=2, ts_ns=century_ns)
        await w.trader.handle(FillSeen(anew))
        assert "execution_corrected" in w.log.violations()
        assert w.account.last_fill_ns <= w.clock.now_ns()

    go(run())


def test_a_fill_from_the_future_hides_no_later_one():
    """Fills are read although the venue dated an earlier one centuries ahead."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.handle(FillSeen(elsewhere(trade_id="X1", ts_ns=9 * 10**18)))
        w.venue.mute = True
        w.venue.trade_elsewhere(elsewhere(trade_id="X2", ts_ns=w.clock.now_ns()))
        await w.trader.handle(StreamGap(reason="test", private=True))
        assert w.account.portfolio.position(TICKER) == 2_00

    go(run())


@pytest.mark.invariant("I3")
def test_no_fill_of_before_the_first_start_is_booked_on_top_of_the_opening_position():
    """However many fills came shortly before the first start, reading them again moves nothing."""

    async def run():
        w = world()
        for number in range(1_100):
            w.venue.trade_elsewhere(elsewhere(trade_id=f"X{number}", ts_ns=w.clock.now_ns() - NANOS))
        undated = elsewhere(trade_id="undated", ts_ns=0)
        w.venue.trade_elsewhere(undated)
        w.venue._backlog.clear()
        await w.trader.start()
        await w.trader.handle(StreamGap(reason="test", private=True))
        await w.trader.handle(FillSeen(undated))
        assert w.account.portfolio.position(TICKER) == 1_101_00 == w.venue.books_position(TICKER)

    go(run())


@pytest.mark.invariant("I2")
@pytest.mark.parametrize(
    ("tif", "changes"),
    [
        ("ioc", {"filled": QtyE2(99_00)}),
        ("gtc", {"filled": QtyE2(99_00)}),
        ("ioc", {"remaining": QtyE2(10_00)}),
    ],
)
def test_an_acknowledgement_that_contradicts_the_order_is_looked_up(tif: str, changes: dict[str, QtyE2]):
    """More counted than ordered, or an immediate order left resting, is not believed: the books tell how it ended."""

    async def run():
        w = world()
        await w.trader.start()
        play = w.venue._play

        async def lies(kind, intent):
            return msgspec.structs.replace(await play(kind, intent), **changes)

        w.venue._play = lies
        price = 56 if "filled" in changes else 50
        name = (await w.trader.route(signal(key="a", tif=tif, price=price))).client_order_id
        await let_time_pass(w, 3)
        ended = OrderStatus.FILLED if "filled" in changes else OrderStatus.CANCELED
        assert w.account.orders[name].status is ended
        assert not w.trader.ledger.claims
        assert w.account.working(TICKER) == (0, 0)

    go(run())


@pytest.mark.invariant("I3")
def test_an_external_order_that_its_owner_makes_larger_counts_in_full():
    """What the venue lists as open of somebody else's order counts, also when it is more than before."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.handle(theirs(filled=0, leaves=10_00))
        await w.trader.handle(theirs(filled=0, leaves=90_00))
        assert w.account.working(TICKER) == (90_00, 0)
        again = world(log=MemoryLog(w.log.lines), clock=w.clock, venue=w.venue)
        again.trader._starting.replay()
        assert again.account.snapshot() == w.account.snapshot()

    go(run())


@pytest.mark.invariant("I2")
@pytest.mark.parametrize(
    ("changes", "violation"),
    [
        ({"ticker": OTHER}, "fill_mismatch"),
        ({"side": BookSide.ASK}, "fill_mismatch"),
        ({"order_id": "V99"}, "fill_mismatch"),
    ],
)
def test_a_fill_that_cannot_be_the_orders_leaves_its_reservation(changes: dict[str, object], violation: str):
    """A fill under our name of another market, side or order moves the position, is alarmed, and frees nothing."""

    async def run():
        w = world()
        await w.trader.start()
        name = (await w.trader.route(signal(key="a", tif="gtc", price=50))).client_order_id
        fill = msgspec.structs.replace(
            elsewhere(trade_id="X1", ts_ns=w.clock.now_ns()),
            **({"order_id": w.account.orders[name].order_id, "client_order_id": name} | changes),
        )
        await w.trader.handle(FillSeen(fill))
        assert w.account.working(TICKER) == (10_00, 0)
        assert w.account.portfolio.position(fill.ticker) == fill.delta
        assert w.log.violations() == [violation]

    go(run())


@pytest.mark.invariant("I2")
def test_a_fill_after_the_end_of_its_order_is_booked_and_alarmed():
    """A fill of an order that the venue had cancelled moves the position and is told to people."""

    async def run():
        w = world()
        await w.trader.start()
        name = (await w.trader.route(signal(key="a", tif="gtc", price=50))).client_order_id
        await w.trader.cancel(name)
        order_id = w.account.orders[name].order_id
        late = msgspec.structs.replace(
            elsewhere(trade_id="X1", ts_ns=w.clock.now_ns()), order_id=order_id, client_order_id=name
        )
        await w.trader.handle(FillSeen(late))
        assert w.account.portfolio.position(TICKER) == 1_00
        assert w.log.violations() == ["fill_after_end"]

    go(run())


@pytest.mark.invariant("I3")
def test_a_second_order_under_our_name_counts_and_is_cancelled():
    """Where the venue works an order twice, both count until the second one is cancelled; a person is told."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal(key="a", tif="gtc", price=50))
        w.venue.dedup = DedupProfile.NONE
        w.venue._accept(w.venue.arrived[0])
        listed = [one.shown() for one in w.venue._orders]
        w.trader.ledger.saw_order(listed[1], evidence="test")
        assert w.account.working(TICKER) == (20_00, 0)
        await drain(w)
        assert [one.status for one in w.venue._orders] == [OrderStatus.WORKING, OrderStatus.CANCELED]
        assert w.account.working(TICKER) == (10_00, 0)
        assert w.log.violations() == ["doubled_order"]

    go(run())


@pytest.mark.invariant("I3")
def test_a_second_order_under_our_name_is_still_canceled_after_a_restart():
    """A kill between the discovery of the second order and its cancel leaves no order to work twice."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal(key="a", tif="gtc", price=50))
        w.venue.dedup = DedupProfile.NONE
        w.venue._accept(w.venue.arrived[0])
        w.trader.ledger.saw_order(w.venue._orders[1].shown(), evidence="test")
        await w.trader.ledger.write()
        again = world(log=MemoryLog(w.log.lines), clock=w.clock, venue=w.venue)
        await again.trader.start()
        assert again.account.working(TICKER) == (20_00, 0)
        await again.trader.tick(w.clock.now_ns())
        assert [one.status for one in w.venue._orders] == [OrderStatus.WORKING, OrderStatus.CANCELED]
        assert again.account.working(TICKER) == (10_00, 0)
        assert again.trader.ledger.zombies == {}

    go(run())


def test_a_wall_clock_that_steps_back_hides_no_drift():
    """Fills that are waited for stop excusing a difference after their time, whatever the wall clock does."""

    async def run():
        w = world()
        await w.trader.start()

        async def claims_only(play, intent):
            return Ack(order_id="L1", filled=QtyE2(10_00), remaining=QtyE2(0))

        w.venue._play = claims_only
        await w.trader.route(signal(key="a"))
        await let_time_pass(w, 1)
        w.clock.step_wall_secs(-86_400)
        w.venue._positions[OTHER] = QtyE2(50_00)
        await let_time_pass(w, 300)
        assert w.account.holds.snapshot() == {"drift": "CANCEL_ONLY"}

    go(run())


@pytest.mark.invariant("I3")
def test_a_session_opens_with_cash_and_positions_of_one_moment():
    """A fill booked while the day's opening prices are read is in both what is held and what was paid."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal(key="a", count=10))
        await drain(w)
        w.clock.advance(86_400)
        read = w.venue.book

        async def sells_meanwhile(ticker):
            fill = elsewhere(trade_id="E1-1", ts_ns=w.clock.now_ns(), qty=5_00)
            await w.trader.books.saw_fill(msgspec.structs.replace(fill, side=BookSide.ASK))
            return await read(ticker)

        w.venue.book = sells_meanwhile
        await w.trader.books.do_due()
        assert w.account.session.opened_ns == w.clock.now_ns()
        assert w.account.portfolio.positions == {TICKER: 5_00}
        assert w.account.session.value == w.account.portfolio.cash + 5_00 * 5500
        assert w.gate.daily_pnl() == 0

    go(run())


@pytest.mark.invariant("I5")
def test_an_exit_is_not_refused_for_rules_that_an_open_breaker_hides():
    """The rules of what is held are read though the breaker is open, also after they were forgotten."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal(key="a", count=10))
        await drain(w)
        read = w.venue.instrument

        async def guarded(ticker, *, regardless=False):
            if not regardless:
                raise CircuitBreakerOpenError("open", breaker="b", retry_after_secs=1.0)
            return await read(ticker)

        w.venue.instrument, w.venue.is_breaker_open, w.venue.is_readable = guarded, True, False
        await w.trader.books.market_changed(MarketChanged(ticker=TICKER, status="active"))
        assert TICKER not in w.trader.market.instruments
        w.venue.is_readable = True
        out = await w.trader.route(signal(key="b", action="sell", count=10, price=55))
        assert (out.status, out.reason) == (RouteStatus.SUBMITTED, "")
        other = await w.trader.route(signal(key="c", ticker=OTHER))
        assert other.status is RouteStatus.BREAKER_OPEN

    go(run())


def test_a_fill_told_twice_at_once_replaces_one_claim():
    """Two tellings of one execution, both waiting for its order to be read, take the place of one claimed ending."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal(key="a", count=10))
        await drain(w)
        w.venue.script(Play.VANISHED)
        await w.trader.route(signal(key="b", action="sell", count=1, price=55))
        sold = msgspec.structs.replace(
            elsewhere(trade_id="E9", ts_ns=w.clock.now_ns()), order_id="E9", side=BookSide.ASK
        )
        for name in ("claim-1", "claim-2"):
            w.trader.books.reconciled(
                "periodic", CLAIM, explained=True, ours=TICKER, theirs=name, amount="known", option=TICKER
            )
            w.trader.ledger.saw_fill(msgspec.structs.replace(sold, trade_id=name, order_id=""), None)
        read = w.venue.order

        async def slowly(order_id):
            await asyncio.sleep(0)
            return await read(order_id)

        w.venue.order = slowly
        await asyncio.gather(w.trader.books.saw_fill(sold), w.trader.books.saw_fill(sold))
        assert w.account.portfolio.positions == {TICKER: 8_00}

    go(run())
