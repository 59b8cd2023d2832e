"""The options desk itself over Interactive Brokers: in as one combination, watched, stopped, out."""

from __future__ import annotations

import asyncio

import pytest
from support.desk import NOW_NS, chain, condor, desk_world
from support.execution import MemoryLog
from support.ib import Listener, world

from holdfast.core.clock import ManualClock
from holdfast.execution.exits import ExitState
from holdfast.risk.stop_rules import PercentTrail, TrailingStopConfig
from holdfast.testing.ib_gateway import FakeGateway, Play

STOP = TrailingStopConfig(10, 8, 1, rules=(PercentTrail(800, "entry"),), negative_premiums=True)
TICKERS = [one.instrument.ticker for one in chain()]


def quote(at: FakeGateway, *, decayed: float = 1.0) -> None:
    """The whole chain with its Greeks; *decayed* is what is left of every option's worth."""
    for one in chain():
        ticker = one.instrument.ticker
        bid, ask = (max(1, round(price * decayed / 100)) / 100 for price in (one.bid, one.ask))
        at.quote(ticker, bid=bid, ask=max(ask, bid + 0.01), bid_size=1_000, ask_size=1_000)
        greeks = one.greeks
        at.greeks(ticker, delta=greeks.delta_e6 / 1e6, gamma=greeks.gamma_e6 / 1e6, spot=500.0)


class Run:
    """A desk whose stream is read by hand."""

    def __init__(self, clock: ManualClock, at: FakeGateway) -> None:
        self.log = MemoryLog()
        self.ib = world(at=at, clock=clock, log=self.log)
        self.w = desk_world(clock=clock, venue=self.ib.venue, log=self.log, stop=STOP)
        self.heard = Listener(self.ib, *TICKERS)

    async def tick(self, secs: int = 30) -> None:
        self.w.clock.advance(secs)
        self.ib.wall.advance(secs)
        await self.drain()
        await self.w.trader.tick(self.w.clock.now_ns())
        await self.drain()

    async def all_shown(self) -> None:
        """Until every subscription, made anew after a lost connection, has told its prices."""
        await self.heard.until(lambda: len(self.ib.venue._feed._shown) == len(TICKERS))

    async def drain(self) -> None:
        await self.heard.settle()
        while self.heard.seen:
            await self.w.trader.handle(self.heard.seen.pop(0))
            await asyncio.sleep(0)


@pytest.mark.contract("B15")
@pytest.mark.contract("B13")
@pytest.mark.parametrize("entry", [Play.NORMAL, Play.TAKEN])
def test_a_condor_goes_in_is_stopped_and_comes_out_at_the_broker(entry):
    """Entry as one bag, its stop on the net credit, trigger, exit; also when the entry's answer was lost."""

    async def run():
        clock = ManualClock(NOW_NS)
        at = FakeGateway(clock)
        at.list_stock("SPY")
        for ticker in TICKERS:
            at.list_option(ticker, underlying="SPY")
        quote(at)
        desk = Run(clock, at)
        w = desk.w
        assert await w.trader.start()
        await desk.all_shown()
        await desk.tick()
        structure = condor(w)
        quotes = {ticker: (one.bid, one.ask) for ticker, one in w.board.quotes.items()}
        at.script(entry)
        await w.engine.open(structure, execution_id="one", limit=structure.entry_price(quotes))
        for _ in range(4):
            quote(at)
            await desk.tick()
        one = w.engine.executions.known["one"]
        assert one.is_balanced
        assert sorted(w.account.portfolio.positions.values()) == [-100, -100, 100, 100]
        assert [order.order.orderRef for order in at.orders.values()] == [at.arrived[0].orderRef]
        await desk.all_shown()
        for decayed in (0.5, 0.5, 0.4, 0.4, 0.9, 0.9, 0.9, 0.9):
            quote(at, decayed=decayed)
            await desk.tick()
        assert one.ladder.state is ExitState.FLAT
        assert w.account.portfolio.positions == {}
        assert not any(at.holdings.values())
        assert [order["intent"] for order in desk.log.of("ORDER")] == ["one/open", "one/exit-1"]
        assert len(at.arrived) == 2
        await desk.ib.venue.close()

    asyncio.run(run())
