"""Expiry, exercise and assignment at Interactive Brokers: they show in positions, and no execution tells of them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from support.execution import MemoryLog
from support.ib import OPENED_NS, gateway, trader, world

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.options import combo_ticker
from holdfast.core.signals import Action, Side, Signal, TimeInForce
from holdfast.execution.replay import replay_log
from holdfast.execution.trader import RouteStatus
from holdfast.risk.halt import TradingState

EXPIRY_NS = int(datetime(2025, 12, 19, 16, 0, tzinfo=ZoneInfo("America/New_York")).timestamp()) * NANOS
MONDAY_NS = EXPIRY_NS + (2 * 86_400 + 18 * 3_600) * NANOS
LEGS = {
    "SPY251219P00630000": (1, 6.0),
    "SPY251219P00650000": (-1, 10.0),
    "SPY251219C00670000": (-1, 9.0),
    "SPY251219C00690000": (1, 4.0),
}
CONDOR = combo_ticker([(ticker, ratio) for ticker, (ratio, _) in LEGS.items()])


def at_the_broker(clock: ManualClock) -> Any:
    made = gateway(clock)
    for ticker, (_, bid) in LEGS.items():
        if ticker not in {"SPY251219P00630000", "SPY251219P00650000"}:
            made.list_option(ticker, underlying="SPY")
        made.quote(ticker, bid=bid, ask=bid + 0.1, bid_size=1_000, ask_size=1_000)
        made.greeks(ticker, spot=660.0)
    return made


def wish(ticker: str, action: str, price: float, *, count: int = 1, key: str) -> Signal:
    return Signal(
        ticker=ticker,
        side=Side.YES,
        action=Action(action),
        count=QtyE2(count * 100),
        price=PriceE4(round(price * 10_000)),
        tif=TimeInForce.IOC,
        key=key,
    )


async def ticks(w: Any, made: Any, times: int = 4) -> None:
    for _ in range(times):
        w.clock.advance(61)
        await made.tick(w.clock.now_ns())


@pytest.mark.contract("B15")
@pytest.mark.parametrize("is_listed", [True, False])
def test_a_condor_that_ends_over_a_weekend_lets_the_desk_trade_again(is_listed):
    """Two legs worthless or three, one assigned, known after a restart by positions alone; executions told later count in their place."""

    async def run() -> MemoryLog:
        clock, log = ManualClock(OPENED_NS), MemoryLog()
        at = at_the_broker(clock)
        w = world(at=at, clock=clock, log=log)
        made = trader(w)
        assert await made.start()
        result = await made.route(wish(CONDOR, "buy", -8.0, key="in"))
        assert result.status is RouteStatus.SUBMITTED
        assert len(made.account.portfolio.positions) == 4
        await ticks(w, made, 1)
        await made.stop()
        await w.venue.close()

        clock.set_now_ns(MONDAY_NS)
        for ticker in LEGS:
            at.end_option(ticker, shares=100 if ticker == "SPY251219P00650000" else 0)
            if not is_listed:
                at.delist(ticker)
        at.quote("SPY", bid=639.98, ask=640.02, bid_size=500, ask_size=500)

        w = world(at=at, clock=clock, log=log)
        made = trader(w)
        assert not await made.start()
        assert made.account.holds.state is TradingState.CANCEL_ONLY
        await ticks(w, made)
        assert made.account.portfolio.positions == await w.venue.positions() == {"SPY": 100_00}
        assert made.account.portfolio.cash == await w.venue.balance()
        assert made.account.holds.state is TradingState.ACTIVE
        assert log.violations().count("ended_unseen") == 4
        await made.stop()
        await w.venue.close()

        w = world(at=at, clock=clock, log=log)
        made = trader(w)
        assert await made.start()
        cash = made.account.portfolio.cash
        if is_listed:
            at.tell_endings()
            await made.books.read_fills_quietly()
            assert len([one for one in log.of("TRADE") if "/undone/" in one["trade_id"]]) == 5
            assert made.account.portfolio.positions == {"SPY": 100_00}
            assert made.account.portfolio.cash == cash
        sold = await made.route(wish("SPY", "sell", 639.98, count=100, key="out"))
        assert sold.status is RouteStatus.SUBMITTED
        await ticks(w, made, 2)
        assert made.account.portfolio.positions == {}
        assert replay_log(log.records()).account.snapshot() == made.account.snapshot()
        await w.venue.close()
        return log

    log = asyncio.run(run())
    causes = {one["ticker"]: one["cause"] for one in log.of("TRADE") if "cause" in one}
    assert causes.pop("SPY") == causes.pop("SPY251219P00650000") == "assignment"
    assert set(causes.values()) == {"expiration"}
    assert log.violations().count("ended_unseen") == 4


@pytest.mark.contract("B15")
def test_an_early_assignment_is_seen_while_trading_goes_on():
    """A short put becomes shares overnight, before its expiry: the trader books it and never stops at a drift."""

    async def run() -> None:
        clock = ManualClock(OPENED_NS)
        w = world(at=at_the_broker(clock), clock=clock)
        made = trader(w)
        assert await made.start()
        await made.route(wish("SPY251219P00650000", "sell", 10.0, count=2, key="in"))
        await ticks(w, made, 1)
        w.at.end_option("SPY251219P00650000", shares=100, count=1)
        for _ in range(4):
            await ticks(w, made, 1)
            assert made.account.holds.state is TradingState.ACTIVE
        assert made.account.portfolio.positions == {"SPY251219P00650000": -100, "SPY": 100_00}
        assert made.account.portfolio.cash == await w.venue.balance()
        for delivered in ("SPY251219P00650000", "SPY"):  # at the strike, whatever anybody says
            with pytest.raises(BadInput, match="no claimed ending"):
                await made.books.settle_option(delivered, PriceE4(1), who="me", why="statement")
        await w.venue.close()

    asyncio.run(run())
