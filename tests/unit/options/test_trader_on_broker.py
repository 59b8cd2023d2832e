"""A trader at the paper option broker: its books and the broker's stay equal, through faults and expiry."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.broker import (
    CLOSE_NS,
    START_NS,
    STOCK,
    WIDE,
    WrittenFeed,
    desk_on_broker,
    minute,
    option,
    quote,
)

from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.orders import FillCause, OrderStatus
from holdfast.core.signals import Action, Side, Signal, TimeInForce
from holdfast.execution.strategy import Strategy
from holdfast.execution.trader import Trader
from holdfast.venues.broker.faults import Fault, Faults, read_script
from holdfast.venues.broker.feed import MINUTE_NS

LAST = (CLOSE_NS - START_NS) // MINUTE_NS
CALL = option("C", 450, expiry=20230908, expires_ns=CLOSE_NS)
HIGH = option("C", 455, expiry=20230908, expires_ns=CLOSE_NS)
VERTICAL = f"+1*{CALL.ticker},-1*{HIGH.ticker}"


LIMITS = replace(WIDE, allow_short_on_expiry_day=True)


class Buyer(Strategy):
    """Buys *ticker* once, a minute after the start."""

    name = "buyer"

    def __init__(self, ticker, price, count=100, action=Action.BUY):
        self.wish = Signal(
            ticker=ticker,
            side=Side.YES,
            action=action,
            count=QtyE2(count),
            price=PriceE4(price * 100),
            tif=TimeInForce.IOC,
            key="once",
        )

    def on_tick(self, now_ns):
        if now_ns >= START_NS + MINUTE_NS and self.wish is not None:
            wish, self.wish = self.wish, None
            return (wish,)
        return ()


def quotes():
    return [
        quote(STOCK, 45_010, 45_011, size=5_000, greeks=None),
        quote(CALL, 310, 320),
        quote(HIGH, 100, 110),
    ]


def feed(*, spot=45_210, last=LAST + 1, tail=8):
    minutes = [minute(n, quotes(), spot=spot) for n in (*range(4), *range(last - tail, last + 1))]
    return WrittenFeed((STOCK, CALL, HIGH), minutes)


def run(tmp_path, strategy, written, **options):
    async def course():
        async with desk_on_broker(tmp_path, written, **options) as desk:
            trader = Trader(
                desk.venue,
                log=desk.log,
                clock=desk.clock,
                limits=LIMITS,
                strategies=[strategy],
                on_time=desk.clock.set_now_ns,
                user="test",
            )
            await trader.start()
            await asyncio.wait_for(
                trader.run(desk.venue.events([CALL.ticker, HIGH.ticker, VERTICAL, "SPY"])), 30
            )
            theirs = await desk.venue.positions()
            records = desk.log.wal.query()
            await trader.stop()
            return trader, theirs, desk.server, records

    return asyncio.run(course())


@pytest.mark.contract("A21")
@pytest.mark.invariant("I13")
def test_a_vertical_is_bought_and_both_legs_are_exercised_and_assigned_into_nothing(tmp_path):
    """Spot ends between the strikes: the long leg becomes stock, the short one is gone; the books agree to the cent."""
    trader, theirs, server, records = run(tmp_path, Buyer(VERTICAL, 225), feed())
    held = dict(trader.account.portfolio.positions)
    assert held == theirs == {"SPY": 10_000}
    causes = [e.cause for e in server.books().executions]
    assert causes == [FillCause.TRADE] * 2 + [FillCause.EXERCISE] * 2 + [FillCause.EXPIRATION]
    (order,) = [one for one in trader.account.orders.values() if not one.external]
    assert (order.status, order.filled) == (OrderStatus.FILLED, 100)
    trades = [record.details for record in records if record.event_type == "TRADE"]
    assert len(trades) == 5
    assert {one.get("cause", "trade") for one in trades} == {"trade", "exercise", "expiration"}


@pytest.mark.contract("A16")
@pytest.mark.parametrize(
    "word", ["drop_next_order", "disconnect_mid_combo", "orders_500_after", "orders_garbage"]
)
def test_whatever_happens_to_the_answer_the_books_agree_at_the_end(tmp_path, word):
    """The order is found by its name, its fills are booked once, nothing is sent again."""
    faults = Faults(0, script=read_script(f"0:{word}=1", START_NS))
    written = feed(last=40, tail=36)
    trader, theirs, server, _ = run(
        tmp_path, Buyer(VERTICAL, 225), written, server_options={"faults": faults}, timeout_secs=0.5
    )
    held = dict(trader.account.portfolio.positions)
    assert held == theirs == {CALL.ticker: 100, HIGH.ticker: -100}
    assert len(server.engine.orders) == 1
    (order,) = [one for one in trader.account.orders.values() if not one.external]
    assert order.status is OrderStatus.FILLED
    assert sum(faults.met.values()) == 1
    assert Fault.DROP not in faults.met or word == "drop_next_order"
