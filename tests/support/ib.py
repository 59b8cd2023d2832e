"""An account at a fake Interactive Brokers gateway: two listed contracts, quotes, and an adapter over them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from support.execution import MemoryLog, opened_account

from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.options import combo_ticker
from holdfast.core.signals import Action, Intent, Side, Signal, TimeInForce
from holdfast.execution.trader import Trader
from holdfast.execution.venue import FillSeen, PlaceAnswer, StreamGap
from holdfast.risk.gate import Gate
from holdfast.risk.limits import RiskLimits
from holdfast.testing.ib import FakeIB
from holdfast.testing.ib_gateway import FakeGateway
from holdfast.venues.ib.adapter import IB_API, IBVenue
from holdfast.venues.ib.placing import numbers_reserved

OPENED_NS = 1_763_650_800 * NANOS
"""Thursday 2025-11-20, 15:00 UTC: ten in the morning in New York."""
CALL = "SPY251219C00650000"
PUT = "SPY251219P00650000"
LOWER_PUT = "SPY251219P00630000"
SPREAD = combo_ticker([(PUT, -1), (LOWER_PUT, 1)])


def gateway(clock: ManualClock | None = None, **options: Any) -> FakeGateway:
    """SPY, three of its options and an SPXW contract, quoted."""
    made = FakeGateway(clock or ManualClock(OPENED_NS), **options)
    made.list_stock("SPY")
    made.quote("SPY", bid=659.98, ask=660.02, bid_size=500, ask_size=500)
    for ticker, bid, ask in ((CALL, 15.0, 15.1), (PUT, 10.0, 10.1), (LOWER_PUT, 6.0, 6.1)):
        made.list_option(ticker, underlying="SPY")
        made.quote(ticker, bid=bid, ask=ask, bid_size=1_000, ask_size=1_000)
        made.greeks(ticker, spot=660.0)
    return made


async def no_sleep(_secs: float) -> None:
    await asyncio.sleep(0)


def world(
    *,
    at: FakeGateway | None = None,
    clock: ManualClock | None = None,
    log: MemoryLog | None = None,
    timeout_secs: float = 5.0,
    **options: Any,
) -> SimpleNamespace:
    """A gateway, a client of it, and the adapter, whose waits are short: the machine's time passes while it waits."""
    clock = clock or ManualClock(OPENED_NS)
    at = at or gateway(clock)
    log = log or MemoryLog()
    breaker = TradingCircuitBreaker(IB_API, name="ib_api", clock=clock)
    wall = ManualClock()

    async def sleep(secs: float) -> None:
        wall.advance(secs)
        await asyncio.sleep(0)

    settings: dict[str, Any] = {
        "clock": clock,
        "wall_clock": wall,
        "timeout_secs": timeout_secs,
        "commission_wait_secs": 0.02,
        "sleep": sleep,
        "breaker": breaker,
        "numbers_from": numbers_reserved(log.records()),
    }
    settings |= options
    venue = IBVenue(FakeIB(at), audit=log, **settings)
    return SimpleNamespace(clock=clock, wall=wall, at=at, log=log, venue=venue, breaker=breaker, made=0)


def play(scenario: Callable[[SimpleNamespace], Coroutine[Any, Any, None]], **options: Any) -> SimpleNamespace:
    """Run *scenario* on a fresh world and close it."""

    async def run() -> SimpleNamespace:
        w = world(**options)
        failures: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(repr(context)))
        try:
            await scenario(w)
        finally:
            await w.venue.close()
        assert not failures, failures
        return w

    return asyncio.run(run())


WIDE = RiskLimits.of(max_position_size=10_000, max_order_value=10_000_000, max_daily_loss=10_000_000)
"""Limits that refuse nothing here: the adapter is under test, not the gate."""


async def intent_of(
    w: SimpleNamespace,
    ticker: str = CALL,
    *,
    action: str = "buy",
    count: int = 1,
    price: float = 15.1,
    tif: TimeInForce = TimeInForce.IOC,
    name: str = "",
    **signal: Any,
) -> Intent:
    """An intent for *ticker*, named in sequence."""
    w.made += 1
    name = name or f"hf-{w.made}"
    wish = Signal(
        ticker=ticker,
        side=Side.YES,
        action=Action(action),
        count=QtyE2(count * 100),
        price=PriceE4(round(price * 10_000)),
        tif=tif,
        **signal,
    )
    return Intent(client_order_id=name, key=name, signal=wish, instrument=await w.venue.instrument(ticker))


async def be_quick(w: SimpleNamespace, secs: float = 0.05) -> None:
    """Know the contracts, then wait for answers no longer than *secs*: for what is never answered."""
    for ticker in (CALL, PUT, LOWER_PUT):
        await w.venue.instrument(ticker)
    w.venue._calls.timeout_secs = secs


async def place(w: SimpleNamespace, ticker: str = CALL, **wish: Any) -> tuple[PlaceAnswer, Intent]:
    """Place one order through an admission of a gate."""
    intent = await intent_of(w, ticker, **wish)
    return await send(w, intent), intent


async def send(w: SimpleNamespace, intent: Intent) -> PlaceAnswer:
    """Admit *intent* at a gate of its own and place it."""
    gate = Gate(opened_account(cash="10000000.00", liquidation="10000000.00"), WIDE, clock=w.clock)
    decision = gate.admit(intent)
    assert decision.admission is not None, decision.reason
    permit = w.venue.placement_permit(intent.ticker, reducing=False)
    return await w.venue.place(intent, decision.admission, permit)


class Listener:
    """Follows the stream beside a scenario."""

    def __init__(self, w, *tickers):
        self.seen = []
        self._task = asyncio.create_task(self._listen(w.venue.events(tickers)))

    async def _listen(self, events):
        async for event in events:
            self.seen.append(event)

    def fills(self):
        return [event.fill for event in self.seen if isinstance(event, FillSeen)]

    def gaps(self):
        return [event for event in self.seen if isinstance(event, StreamGap)]

    async def until(self, met):
        async with asyncio.timeout(5):
            while not met():
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0)

    async def settle(self):
        for _ in range(60):
            await asyncio.sleep(0)


def trader(w: SimpleNamespace, **options: Any) -> Trader:
    """A trader over the adapter, with limits that refuse nothing."""
    settings: dict[str, Any] = {"limits": WIDE, "sleep": no_sleep, "tick_secs": 0.001, "retries": 0} | options
    return Trader(w.venue, log=w.log, clock=w.clock, **settings)
