"""A paper option broker for tests: a feed written down minute by minute, the server in the test's own loop, a desk."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import AuditEntry
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import CircuitBreakerConfig
from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.instruments import PREMIUM_CENTS, Instrument
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.options import ExerciseStyle, OptionTerms, Right, SettlementStyle
from holdfast.core.signals import Action, BookSide, Intent, Side, Signal, TimeInForce
from holdfast.risk.gate import Admission, Gate
from holdfast.risk.limits import RiskLimits
from holdfast.venues.broker.engine import Engine
from holdfast.venues.broker.feed import MINUTE_NS, Listing, Minute, Quote, Sensitivities, Spot
from holdfast.venues.broker.orders import OrderRequest
from holdfast.venues.broker.server import BrokerServer, Endpoints
from holdfast.venues.options.adapter import OptionsVenue

START_NS = 1_694_179_800 * NANOS
"""Friday, 8 September 2023, 9:30 in New York."""
CLOSE_NS = START_NS + 390 * MINUTE_NS
MONTH_NS = START_NS + 28 * 1440 * MINUTE_NS
GREEKS = Sensitivities(500_000, 20_000, 300_000, -50_000, 180_000)
WIDE = RiskLimits(
    max_position=QtyE2(10**12),
    max_order_value=MoneyE6(10**15),
    max_exit_value=MoneyE6(10**15),
    max_daily_loss=MoneyE6(10**15),
)


def option(
    right: str = "C",
    strike: int = 450,
    *,
    underlying: str = "SPY",
    expiry: int = 20231006,
    expires_ns: int = MONTH_NS,
    settlement: str = "physical",
) -> Listing:
    """One contract at $0.65 a side; SPX-like ones settle in cash."""
    is_cash = settlement == "cash"
    terms = OptionTerms(
        underlying=underlying,
        root="SPXW" if underlying == "SPX" else underlying,
        expiry=expiry,
        right=Right(right),
        strike=PriceE4(strike * 10_000),
        style=ExerciseStyle.EUROPEAN if is_cash else ExerciseStyle.AMERICAN,
        settlement=SettlementStyle(settlement),
        expires_ns=expires_ns,
    )
    return Listing(ticker=terms.ticker, terms=terms, multiplier=100, fee=MoneyE6(650_000))


STOCK = Listing(ticker="SPY")
CALL, HIGH_CALL = option("C", 450), option("C", 455)
PUT, LOW_PUT = option("P", 450), option("P", 445)
VERTICAL = f"+1*{CALL.ticker},-1*{HIGH_CALL.ticker}"
BASIC = (STOCK, CALL, HIGH_CALL, PUT, LOW_PUT)


def quote(
    listing: Listing | str,
    bid: int,
    ask: int,
    *,
    size: int = 10,
    bid_size: int | None = None,
    greeks: Sensitivities | None = GREEKS,
) -> Quote:
    """Prices in cents, sizes in contracts."""
    ticker = listing if isinstance(listing, str) else listing.ticker
    return Quote(
        ticker,
        PriceE4(bid * 100),
        QtyE2(100 * (size if bid_size is None else bid_size)),
        PriceE4(ask * 100),
        QtyE2(100 * size),
        greeks,
    )


def basic_quotes() -> list[Quote]:
    return [
        quote(STOCK, 45_010, 45_011, size=5_000, greeks=None),
        quote(CALL, 310, 320),
        quote(HIGH_CALL, 100, 110),
        quote(PUT, 290, 300),
        quote(LOW_PUT, 120, 130),
    ]


def minute(n: int, quotes: Sequence[Quote], *, spot: int = 45_010, symbol: str = "SPY") -> Minute:
    """The minute that closed *n* minutes after the start; *spot* in cents."""
    return Minute(START_NS + n * MINUTE_NS, tuple(quotes), (Spot(symbol, PriceE4(spot * 100), "trade"),))


@dataclass
class WrittenFeed:
    """A feed written down; its first minute is known at the start."""

    listings: tuple[Listing, ...] = BASIC
    minutes: Sequence[Minute] = ()
    start_ns: int = START_NS

    def __iter__(self) -> Iterator[Minute]:
        return iter(self.minutes or [minute(n, basic_quotes()) for n in range(60)])

    def describe(self) -> str:
        return f"written feed of {len(self.listings)} contracts"


def rules_of(listing: Listing) -> Instrument:
    """A listing as the port describes it."""
    return Instrument(
        venue="options",
        ticker=listing.ticker,
        kind=listing.kind,
        option=listing.terms,
        multiplier=listing.multiplier,
        price_ranges=PREMIUM_CENTS,
        fee_per_contract=listing.fee,
        close_ns=0 if listing.terms is None else listing.terms.expires_ns,
    )


_NUMBERS = itertools.count(1)


def wish(
    ticker: str = CALL.ticker,
    side: BookSide = BookSide.BID,
    price: int = 320,
    qty: int = 1,
    *,
    name: str = "",
    tif: TimeInForce = TimeInForce.GTC,
    **more: Any,
) -> OrderRequest:
    """An order as the broker hears it; price in cents."""
    return OrderRequest(
        client_order_id=name or f"w-{next(_NUMBERS)}",
        ticker=ticker,
        side=side,
        price=PriceE4(price * 100),
        qty=QtyE2(qty * 100),
        tif=tif,
        **more,
    )


def engine(
    minutes: Sequence[Minute] = (), *, listings: tuple[Listing, ...] = BASIC, **options: Any
) -> Engine:
    """An engine that knows the first of *minutes*; the rest is the test's to apply."""
    feed = WrittenFeed(listings, minutes)
    made = Engine(feed, **options)
    made.apply(next(iter(feed)))
    made.drain()
    return made


@contextlib.asynccontextmanager
async def serving(feed: Any = None, **options: Any) -> AsyncIterator[tuple[BrokerServer, Endpoints]]:
    """A broker in this loop, its time held until somebody follows."""
    server = BrokerServer(feed or WrittenFeed(), **({"speed": None} | options))
    endpoints = await server.start()
    try:
        yield server, endpoints
    finally:
        await server.stop()


@dataclass
class Desk:
    """One account at the broker."""

    venue: OptionsVenue
    clock: ManualClock
    log: AuditLogger
    breaker: TradingCircuitBreaker
    server: BrokerServer | None = None
    naps: list[float] = field(default_factory=list)

    def calls(self) -> list[tuple[str, str, int]]:
        """Method, endpoint and status of every recorded call."""
        found: list[AuditEntry] = self.log.wal.query(event_type="API_CALL") if self.log.wal.last_seq else []
        return [(e.details["method"], e.details["endpoint"], e.details["status_code"]) for e in found]

    async def intent(
        self, name: str, ticker: str = CALL.ticker, *, price: int = 320, qty: int = 1, **more: Any
    ) -> Intent:
        """A wish with the rules of its contract; price in cents."""
        rules = await self.venue.instrument(ticker, regardless=True)
        signal = Signal(
            ticker=ticker,
            side=Side.YES,
            action=more.pop("action", Action.BUY),
            count=QtyE2(qty * 100),
            price=PriceE4(price * 100),
            tif=more.pop("tif", TimeInForce.GTC),
            **more,
        )
        return Intent(client_order_id=name, key=name, signal=signal, instrument=rules)

    def admission(self, intent: Intent) -> Admission:
        """Leave from a gate of its own with very wide limits."""
        from support.execution import opened_account

        decision = Gate(opened_account(), WIDE, clock=self.clock).admit(intent)
        assert decision.admission is not None, decision.reason
        return decision.admission

    async def place(self, intent: Intent, *, reducing: bool = False) -> Any:
        permit = self.venue.placement_permit(intent.ticker, reducing=reducing)
        return await self.venue.place(intent, self.admission(intent), permit)

    async def follow(
        self, tickers: Sequence[str], until: Callable[[Any], bool], *, steps: bool = True
    ) -> list[Any]:
        """Events until one of them satisfies *until*, time released after each tick where *steps*."""
        seen: list[Any] = []

        async def listen() -> None:
            async for event in self.venue.events(tickers):
                seen.append(event)
                if until(event):
                    return
                if type(event).__name__ == "VenueTime":
                    self.clock.set_now_ns(event.ts_ns)
                    if steps:
                        await self.venue.quiescent(event.n)

        await asyncio.wait_for(listen(), 20)
        return seen


@contextlib.asynccontextmanager
async def desk_at(endpoints: Endpoints, log_dir: Path, **options: Any) -> AsyncIterator[Desk]:
    """A desk whose adapter talks to *endpoints*."""
    clock = options.pop("clock", None) or ManualClock(START_NS)
    naps: list[float] = []

    async def sleep(secs: float) -> None:
        naps.append(secs)
        await asyncio.sleep(0.001)

    wal = WriteAheadLog(log_dir / "audit", clock=clock, seal=False)
    wal.open()
    log = AuditLogger(wal)
    config = options.pop("config", None) or CircuitBreakerConfig(3, 60, 2, 30, 30)
    breaker = TradingCircuitBreaker(config, name="options_api", clock=clock)
    settings: dict[str, Any] = {"rng": random.Random(1), "sleep": sleep, "timeout_secs": 5.0}
    venue = OptionsVenue(
        endpoints.ws, endpoints.token, clock=clock, breaker=breaker, audit=log, **(settings | options)
    )
    try:
        yield Desk(venue, clock, log, breaker, naps=naps)
    finally:
        await venue.close()
        wal.close()


@contextlib.asynccontextmanager
async def desk_on_broker(
    log_dir: Path, feed: Any = None, *, server_options: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Desk]:
    """A desk on a broker in this loop."""
    async with (
        serving(feed, **(server_options or {})) as (server, endpoints),
        desk_at(endpoints, log_dir, **options) as desk,
    ):
        desk.server = server
        yield desk
