"""A lost exit at the paper venues, over real sockets: it ends where the venue takes no name twice, and only there."""

from __future__ import annotations

import asyncio

import pytest
from support.broker import CALL, START_NS, WIDE, WrittenFeed, basic_quotes, desk_on_broker, minute
from support.exchange import START_NS as OPEN_NS
from support.exchange import TICKER, quiet_feed
from support.kalshi import desk_on_exchange

from holdfast.core.clock import ManualClock
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import Action, Side, Signal, TimeInForce
from holdfast.execution.trader import Trader
from holdfast.execution.venue import DedupProfile
from holdfast.venues.broker.faults import Faults, read_script
from holdfast.venues.paper.faults import Fault, ScriptedFault
from holdfast.venues.paper.limits import RequestClass

NONE, OPEN_ONLY, ALL = DedupProfile
BARE_500 = ScriptedFault(fault=Fault.ERROR_BEFORE, classes=(RequestClass.CREATE,), count=1)


def wish(ticker, action, cents, key):
    return Signal(
        ticker=ticker,
        side=Side.YES,
        action=action,
        count=QtyE2(200),
        price=PriceE4(cents * 100),
        tif=TimeInForce.IOC,
        key=key,
        reduce_only=action is Action.SELL,
    )


async def in_and_lost_out(desk, ticker, *, entry, leave, lose, secs=(1, 2, 4, 8)):
    """Two contracts in; their exit meets what *lose* does; then time passes. The exit, and how often it was posted."""
    trader = Trader(desk.venue, log=desk.log, clock=desk.clock, limits=WIDE, user="test")
    assert await trader.start()
    await trader.route(wish(ticker, Action.BUY, entry, "in"))
    await trader.books.read_fills_quietly()
    assert trader.account.portfolio.position(ticker) == 200
    lose()
    result = await trader.route(wish(ticker, Action.SELL, leave, "out"))
    order = trader.account.orders[result.client_order_id]
    assert order.status is OrderStatus.UNKNOWN
    for one in secs:
        desk.clock.advance(one)
        await trader.tick(desk.clock.now_ns())
    posts = [
        record
        for record in desk.log.wal.query(event_type="API_CALL")
        if record.details["method"] == "POST"
        and record.details.get("client_order_id") == order.client_order_id
    ]
    theirs = await desk.venue.positions()
    assert trader.account.portfolio.position(ticker) == theirs.get(ticker, 0)
    assert await trader.stop() == ([] if order.status.is_closed else [order])
    return order, len(posts), theirs.get(ticker, 0)


@pytest.mark.contract("A16", "A21")
@pytest.mark.invariant("I2", "I5")
@pytest.mark.parametrize(
    ("word", "posts"),
    [("orders_500", 2), ("orders_500_after", 1), ("orders_garbage", 1), ("drop_next_order", 1)],
)
def test_a_lost_exit_ends_at_the_option_broker(tmp_path, word, posts):
    """After a bare 500 the same order goes again and closes the position; what was carried out goes once."""

    async def course():
        written = WrittenFeed(minutes=[minute(n, basic_quotes()) for n in range(4)])
        async with desk_on_broker(tmp_path, written, timeout_secs=0.5) as desk:
            faults = desk.server.faults

            def lose():
                desk.server.faults = Faults(0, script=read_script(f"0:{word}=1", START_NS))

            assert not faults.met
            found = await in_and_lost_out(desk, CALL.ticker, entry=325, leave=305, lose=lose)
            names = [row.request.client_order_id for row in desk.server.engine.orders.values()]
            assert len(names) == len(set(names)) == 2
            return found

    order, posted, left = asyncio.run(course())
    assert (order.status, posted, left) == (OrderStatus.FILLED, posts, 0)


@pytest.mark.contract("A16", "A21")
@pytest.mark.invariant("I2")
@pytest.mark.parametrize(
    ("declared", "kept"),
    [(ALL, ALL), (OPEN_ONLY, ALL), (OPEN_ONLY, OPEN_ONLY), (NONE, OPEN_ONLY), (NONE, NONE)],
)
def test_a_lost_exit_goes_again_only_where_the_venue_is_declared_to_take_no_name_twice(
    tmp_path, declared, kept
):
    """What the adapter declares decides, not what the exchange happens to do: the default profile sends once."""

    async def course():
        options = {"dedup": kept}
        async with desk_on_exchange(
            tmp_path, quiet_feed(), clock=ManualClock(OPEN_NS), exchange_options=options
        ) as desk:
            desk.venue.dedup = declared
            return await in_and_lost_out(
                desk, TICKER, entry=45, leave=40, lose=lambda: desk.exchange.faults.script.add(BARE_500)
            )

    order, posted, left = asyncio.run(course())
    goes = declared is ALL
    assert (order.status, posted, left) == (
        (OrderStatus.FILLED, 2, 0) if goes else (OrderStatus.UNKNOWN, 1, 200)
    )
