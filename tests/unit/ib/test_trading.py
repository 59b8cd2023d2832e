"""A whole trader over Interactive Brokers: lost answers are looked up by name, and nothing goes twice."""

from __future__ import annotations

import asyncio

import pytest
from support.execution import MemoryLog
from support.ib import CALL, LOWER_PUT, OPENED_NS, PUT, SPREAD, be_quick, gateway, play, trader, world

from holdfast.core.clock import ManualClock
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import Action, Side, Signal, TimeInForce
from holdfast.execution.replay import replay_log
from holdfast.execution.trader import RouteStatus
from holdfast.testing.ib_gateway import Play


def wish(
    ticker: str,
    price: int,
    *,
    count: int = 1,
    tif: TimeInForce = TimeInForce.GTC,
    key: str = "",
    sell: bool = False,
) -> Signal:
    return Signal(
        ticker=ticker,
        side=Side.YES,
        action=Action.SELL if sell else Action.BUY,
        count=QtyE2(count * 100),
        price=PriceE4(price),
        tif=tif,
        key=key,
    )


async def ticks(w, made, times: int = 6) -> None:
    for _ in range(times):
        w.clock.advance(40)
        await made.tick(w.clock.now_ns())


@pytest.mark.contract("B15")
@pytest.mark.contract("A21")
def test_a_trade_goes_from_the_signal_to_the_position():
    """An immediate order trades, its fill is booked with its cost, and the position is the broker's."""

    async def scenario(w):
        made = trader(w)
        assert await made.start()
        result = await made.route(wish(CALL, 151_000, count=2, tif=TimeInForce.IOC, key="one"))
        assert result.status is RouteStatus.SUBMITTED
        assert made.account.portfolio.position(CALL) == 200
        (trade,) = w.log.of("TRADE")
        assert (trade["price"], trade["fee"]) == ("15.1000", "1.30")
        assert w.at.position(CALL) == 2

    play(scenario)


@pytest.mark.contract("B15")
def test_a_combination_is_booked_by_its_legs():
    """A spread sold for a credit leaves a position in each leg, and the order filled."""

    async def scenario(w):
        made = trader(w)
        assert await made.start()
        result = await made.route(wish(SPREAD, -39_000, tif=TimeInForce.IOC, key="spread"))
        assert result.status is RouteStatus.SUBMITTED
        assert {name: int(qty) for name, qty in made.account.portfolio.positions.items()} == {
            PUT: -100,
            LOWER_PUT: 100,
        }
        order = made.account.orders[result.client_order_id]
        assert order.status is OrderStatus.FILLED
        await ticks(w, made, 2)
        assert made.account.portfolio.positions == await w.venue.positions()

    play(scenario)


@pytest.mark.contract("B15")
@pytest.mark.invariant("I2")
@pytest.mark.parametrize("spoilt", [Play.TAKEN, Play.SILENT, Play.STUCK])
def test_an_order_whose_answer_is_lost_is_found_by_its_name(spoilt):
    """An unknown order is looked up by its reference and works again; it left once."""

    async def scenario(w):
        made = trader(w)
        assert await made.start()
        await be_quick(w)
        w.at.script(spoilt)
        result = await made.route(wish(CALL, 10_000, key="lost"))
        assert result.status is RouteStatus.UNKNOWN
        w.venue._calls.timeout_secs = 5
        await ticks(w, made)
        order = made.account.orders[result.client_order_id]
        assert order.status is OrderStatus.WORKING
        assert order.order_id == str(w.at.order_of(order.client_order_id).permanent)
        assert [one.orderRef for one in w.at.arrived] == [order.client_order_id]
        again = await made.route(wish(CALL, 10_000, key="lost"))
        assert again.repeated
        assert len(w.at.arrived) == 1

    play(scenario)


@pytest.mark.invariant("I2")
def test_an_order_that_never_arrived_stays_unknown_until_its_expiration_proves_it():
    """A lost resting order keeps its reservation until it can no longer arrive; then it never arrived."""

    async def scenario(w):
        made = trader(w, resting_secs=600)
        assert await made.start()
        w.at.script(Play.LOST)
        result = await made.route(wish(CALL, 10_000, key="lost"))
        order = made.account.orders[result.client_order_id]
        await ticks(w, made)
        assert order.status is OrderStatus.UNKNOWN
        assert order.leaves == 100
        w.clock.advance(600)
        await ticks(w, made)
        assert order.status is OrderStatus.NEVER_ARRIVED
        assert not w.at.arrived

    play(scenario)


@pytest.mark.contract("B15")
def test_what_traded_during_a_cut_is_booked_after_it():
    """A fill that the gateway never told is booked from its executions, once, and the position agrees."""

    async def scenario(w):
        made = trader(w)
        assert await made.start()
        running = asyncio.create_task(made.run(w.venue.events((CALL,))))
        result = await made.route(wish(CALL, 10_000, count=3, key="rests"))
        w.at.cut_link()
        w.at.fill(result.client_order_id, 2)
        await asyncio.sleep(0)
        w.at.restore_link()
        async with asyncio.timeout(5):
            while made.account.portfolio.position(CALL) != 200:
                await made.ledger.changed()
        order = made.account.orders[result.client_order_id]
        assert (order.filled, order.status) == (200, OrderStatus.WORKING)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    play(scenario)


@pytest.mark.contract("B15")
def test_a_second_order_under_one_name_is_alarmed_and_canceled():
    """The twin that a modification in a cut leaves behind is found by its reference, alarmed and canceled."""

    async def scenario(w):
        made = trader(w)
        assert await made.start()
        result = await made.route(wish(CALL, 10_000, count=2, key="twin"))
        w.at.double(result.client_order_id)
        await made.books.read_orders_quietly()
        await ticks(w, made)
        assert "doubled_order" in w.log.violations()
        assert not any(order.leaves for order in w.at.orders.values())

    play(scenario)


@pytest.mark.invariant("I13")
def test_a_restart_goes_on_where_the_journal_ended():
    """A new run replays the journal, books what was missed, and its order takes no number of an older one."""
    log, clock = MemoryLog(), ManualClock(OPENED_NS)
    at = gateway(clock)

    async def first() -> str:
        w = world(at=at, clock=clock, log=log)
        made = trader(w)
        assert await made.start()
        result = await made.route(wish(CALL, 10_000, count=2, key="one"))
        await w.venue.close()
        return result.client_order_id

    async def second(name: str) -> None:
        w = world(at=at, clock=clock, log=log)
        made = trader(w)
        assert await made.start()
        assert made.account.portfolio.position(CALL) == 200
        assert made.account.orders[name].status is OrderStatus.FILLED
        await made.route(wish(CALL, 10_000, key="two"))
        numbers = [order.orderId for order in at.arrived]
        assert len(set(numbers)) == len(numbers) == 2
        await w.venue.close()

    name = asyncio.run(first())
    at.restart(next_number=1)
    at.fill(name)
    asyncio.run(second(name))


@pytest.mark.contract("B15")
@pytest.mark.parametrize("shares", [None, 1.0])
def test_a_corrected_execution_moves_position_and_cash_to_what_it_is_now(shares):
    """Price, and count, of a correction take the first one's place, once, told by the stream or after a restart."""
    log, clock = MemoryLog(), ManualClock(OPENED_NS)
    at = gateway(clock)

    def agrees(made) -> bool:
        held = made.account.portfolio
        assert replay_log(log.records()).account.snapshot() == made.account.snapshot()
        return held.position(CALL) == at.position(CALL) * 100 and held.cash == round(at.cash * 1_000_000)

    async def told_by_the_stream() -> None:
        w = world(at=at, clock=clock, log=log)
        made = trader(w)
        assert await made.start()
        result = await made.route(wish(CALL, 151_000, count=2, tif=TimeInForce.IOC, key="one"))
        assert agrees(made)
        (first,) = await w.venue.fills(since_ns=0)
        running = asyncio.create_task(made.run(w.venue.events((CALL,))))
        await asyncio.sleep(0)
        at.correct(at.executions[0].execution.execId, price=15.05, shares=shares)
        async with asyncio.timeout(5):
            while "execution_corrected" not in log.violations():
                await made.ledger.changed()
        await made.books.read_fills_quietly()
        await made.books.saw_fill(first)
        assert agrees(made)
        order = made.account.orders[result.client_order_id]
        assert (order.filled, order.overfilled, order.status) == (200, 0, OrderStatus.FILLED)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await w.venue.close()

    async def told_after_a_restart() -> None:
        at.correct(at.executions[-1].execution.execId, price=15.2, shares=shares)
        w = world(at=at, clock=clock, log=log)
        made = trader(w)
        assert await made.start()
        assert agrees(made)
        await made.books.read_fills_quietly()
        assert agrees(made)
        await w.venue.close()

    asyncio.run(told_by_the_stream())
    asyncio.run(told_after_a_restart())
    assert log.violations() == ["execution_corrected"] * 2
    (alarm, _) = [one["details"] for one in log.of("RISK_VIOLATION")]
    assert (alarm["quantity_before"], alarm["quantity"]) == ("2.00", "2.00" if shares is None else "1.00")
