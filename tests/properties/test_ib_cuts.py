"""A trader at Interactive Brokers under random cuts, lost answers, repetitions and restarts of the gateway."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ib import CALL, PUT, be_quick, gateway, trader, world

from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import Action, Side, Signal, TimeInForce
from holdfast.testing.ib_gateway import Play

STEPS = st.one_of(
    st.tuples(
        st.just("order"),
        st.sampled_from([CALL, PUT]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([Play.NORMAL, *Play]),
    ),
    st.tuples(st.just("fill"), st.integers(0, 5), st.integers(1, 2)),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.sampled_from(
        [("cut",), ("back",), ("lost data",), ("drop",), ("restart",), ("repeat",), ("correct",), ("tick",)]
    ),
)


@pytest.mark.slow
@pytest.mark.contract("B15")
@pytest.mark.invariant("I2")
@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, min_size=3, max_size=16), reports=st.sampled_from(["after", "late", "never"]))
def test_positions_are_the_brokers_and_no_order_leaves_twice(steps, reports):
    """Whatever is cut, lost, repeated or corrected: in the end our positions are the broker's, and each name left once."""
    asyncio.run(run(steps, reports))


async def run(steps, reports) -> None:
    at = gateway()
    at.commissions = reports
    w = world(at=at, clock=at.clock, commission_wait_secs=0.0)
    made = trader(w, resting_secs=3_000)
    await made.start()
    await be_quick(w, 0.01)
    running = asyncio.create_task(made.run(w.venue.events((CALL, PUT))))
    routing = set()
    begun = [("order", CALL, False, False, Play.NORMAL), ("order", PUT, True, False, Play.NORMAL)]
    for step in (*begun, *steps):
        await act(w, made, step, routing)
        for _ in range(12):
            await asyncio.sleep(0)
    at.restore_link()
    at.tell_commissions()
    w.venue._calls.timeout_secs = 5
    await asyncio.wait(routing, timeout=5) if routing else None
    for _ in range(6):
        w.clock.advance(40)
        await made.tick(w.clock.now_ns())
    await made.books.read_orders_quietly()
    await made.books.read_fills_quietly()
    ours = {name: int(qty) for name, qty in made.account.portfolio.positions.items()}
    theirs = {name: 100 * at.position(name) for name in (CALL, PUT) if at.position(name)}
    assert ours == theirs
    names = Counter(order.orderRef for order in at.arrived)
    assert set(names.values()) <= {1}
    numbers = Counter(order.orderId for order in at.arrived)
    assert set(numbers.values()) <= {1}
    live = {order.order.orderRef for order in at.orders.values() if order.leaves}
    for order in made.account.orders.values():
        assert order.filled + order.leaves + order.released == order.quantity
        if order.client_order_id in live:
            assert order.is_open
        if order.status in {OrderStatus.REJECTED, OrderStatus.NOT_SENT}:
            assert order.client_order_id not in live
    w.venue._feed.end()
    await asyncio.wait_for(running, 5)
    await made.stop()
    await w.venue.close()


async def act(w, made, step, routing) -> None:
    match step:
        case ("order", ticker, rests, sells, play):
            w.at._plays.clear()
            w.at.script(play)
            far, near = (500_000, 50_000) if sells else (10_000, 200_000)
            signal = Signal(
                ticker=ticker,
                side=Side.YES,
                action=Action.SELL if sells else Action.BUY,
                count=QtyE2(200),
                price=PriceE4(far if rests else near),
                tif=TimeInForce.GTC if rests else TimeInForce.IOC,
            )
            task = asyncio.create_task(made.route(signal))
            routing.add(task)
        case ("fill", nth, count):
            live = [order for order in w.at.orders.values() if order.leaves]
            if live:
                order = live[nth % len(live)]
                w.at.execute(order, min(count, order.leaves), float(order.order.lmtPrice))
        case ("cancel", nth):
            mine = [order for order in made.account.open_orders() if not order.external]
            if mine:
                routing.add(asyncio.create_task(made.cancel(mine[nth % len(mine)].client_order_id)))
        case ("cut",):
            w.at.cut_link()
        case ("back",):
            w.at.restore_link()
        case ("lost data",):
            w.at.restore_link(data_lost=True)
        case ("drop",):
            w.at.drop_sockets()
        case ("restart",):
            w.at.restart(next_number=1)
        case ("repeat",):
            w.at.repeat_executions()
        case ("correct",):
            told = w.at.executions[-1].execution
            w.at.correct(told.execId, price=told.price)
        case ("tick",):
            w.clock.advance(40)
