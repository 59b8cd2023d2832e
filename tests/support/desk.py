"""A small option chain on SPY at 500, and a trader over a fake venue that lists it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import msgspec
from support.execution import MemoryLog, drain

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.greeks import MODEL, Greeks
from holdfast.core.instruments import PREMIUM_CENTS, Instrument, InstrumentKind
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.options import OptionTerms, Right
from holdfast.execution.desk import DeskRisk, OptionsDesk, Schedule
from holdfast.execution.executions import Execution
from holdfast.execution.quotes import QuoteBoard
from holdfast.execution.reference import ReferenceInput
from holdfast.execution.structures import Quoted, Structure, StructurePlan, pick
from holdfast.execution.trader import Trader
from holdfast.execution.venue import GreeksSeen
from holdfast.risk.events import RiskEvent, details_of
from holdfast.risk.limits import RiskLimits
from holdfast.risk.stop_manager import TrailingStopManager
from holdfast.risk.stop_rules import TrailingStopConfig
from holdfast.testing.venue import FakeVenue

NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * NANOS
EXPIRY = 20261218
EXPIRES_NS = int(datetime(2026, 12, 18, 21, 0, tzinfo=UTC).timestamp()) * NANOS
SPOT = 500.0
VOLATILITY = 0.2


def option_ticker_of(instrument: Instrument) -> str:
    assert instrument.option is not None
    return instrument.option.ticker


SHARES = Instrument(
    venue="fake", ticker="SPY", kind=InstrumentKind.STOCK, multiplier=1, price_ranges=PREMIUM_CENTS
)


def option(right: Right, strike: int, **changes: Any) -> Instrument:
    """One contract on SPY; strike in dollars."""
    terms = OptionTerms(
        underlying="SPY",
        root="SPY",
        expiry=EXPIRY,
        right=right,
        strike=PriceE4(strike * 10_000),
        expires_ns=EXPIRES_NS,
    )
    return Instrument(
        venue="fake",
        ticker=terms.ticker,
        event="SPY",
        kind=InstrumentKind.OPTION,
        option=terms,
        multiplier=100,
        price_ranges=PREMIUM_CENTS,
        close_ns=EXPIRES_NS,
        fee_per_contract=MoneyE6(650_000),
        **changes,
    )


def worth(
    right: Right, strike: int, spot: float = SPOT, years: float = 28 / 365
) -> tuple[float, float, float]:
    """Price, delta and gamma by Black and Scholes without interest."""
    spread = VOLATILITY * math.sqrt(years)
    d1 = (math.log(spot / strike) + spread * spread / 2) / spread
    delta, within = ((1 + math.erf(x / math.sqrt(2))) / 2 for x in (d1, d1 - spread))
    call = spot * delta - strike * within
    gamma = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi) / (spot * spread)
    return (call, delta, gamma) if right is Right.CALL else (call - spot + strike, delta - 1, gamma)


def quoted(right: Right, strike: int, spot: float = SPOT) -> Quoted:
    """One contract with a spread of four cents around its worth."""
    price, delta, gamma = worth(right, strike, spot)
    mid = max(3, round(price * 100))
    greeks = Greeks(
        delta_e6=round(delta * 1e6),
        gamma_e6=round(gamma * 1e6),
        vega_e6=500_000,
        theta_e6=-50_000,
        iv_e6=200_000,
        source=MODEL,
        as_of_ns=0,
    )
    return Quoted(option(right, strike), PriceE4((mid - 2) * 100), PriceE4((mid + 2) * 100), greeks)


@lru_cache(maxsize=8)
def chain(spot: float = SPOT) -> tuple[Quoted, ...]:
    """Strikes from 440 to 560 in steps of 5, both rights."""
    return tuple(quoted(right, strike, spot) for right in Right for strike in range(440, 561, 5))


def desk_world(
    *,
    clock: ManualClock | None = None,
    venue: FakeVenue | None = None,
    log: MemoryLog | None = None,
    limits: RiskLimits | None = None,
    stop: TrailingStopConfig | None = None,
    with_stops: bool = True,
    **desk: Any,
) -> SimpleNamespace:
    """A desk over the fake venue with the chain quoted 10 x 10; give clock, venue and log again for a restart."""
    clock = clock or ManualClock(NOW_NS)
    if venue is None:
        venue = FakeVenue(
            clock, [*(one.instrument for one in chain()), SHARES], cash=MoneyE6(100_000_000_000)
        )
    log = log or MemoryLog()
    events = Events(log)
    board = QuoteBoard()

    async def no_sleep(_secs: float) -> None:
        return

    trader = Trader(
        venue,
        log=log,
        clock=clock,
        sleep=no_sleep,
        strategies=[board],
        limits=limits or RiskLimits(max_position=QtyE2(100_00), max_order_value=MoneyE6(5_000_000_000)),
    )
    stops = None
    if with_stops:
        stops = TrailingStopManager(
            events,
            clock=clock,
            config=stop,
            is_open=lambda name: made.engine.executions.is_held(name),  # noqa: PLW0108  made below
        )
    settings = {
        "chains": {"SPY": [one.instrument for one in chain()]},
        "reference": ReferenceInput(),  # nothing known: the desk enters nothing by itself
        "schedule": Schedule(entry_secs=10**6),
    } | desk
    made = OptionsDesk(
        trader, board, clock=clock, risk=DeskRisk(trailing_stops=stops), event_logger=events, **settings
    )
    return SimpleNamespace(
        clock=clock, venue=venue, log=log, trader=trader, desk=made, engine=made.engine, board=board,
        stops=stops, events=events, account=trader.account,
    )  # fmt: skip


class Events:
    """An event logger that keeps what it is told and writes it into the journal at once."""

    def __init__(self, log: MemoryLog) -> None:
        self.told: list[Any] = []
        self._log = log

    def emit(self, event: Any) -> None:
        self.told.append(event)
        if isinstance(event, RiskEvent):
            self._log.record("RISK_EVENT", msgspec.to_builtins(details_of(event)), component=event.component)

    def kinds(self, prefix: str = "") -> list[str]:
        return [event.event_type.value for event in self.told if event.event_type.value.startswith(prefix)]


def quote(w: SimpleNamespace, ticker: str, bid: int | None, ask: int | None, size: int = 1000) -> None:
    """Show one contract's book; prices in 1/10,000 dollar."""
    w.venue.set_book(
        ticker,
        bids=[] if bid is None else [(bid, size)],
        asks=[] if ask is None else [(ask, size)],
    )


def quote_chain(w: SimpleNamespace, spot: float = SPOT, *, but: tuple[str, ...] = ()) -> None:
    """Show the whole chain as it is with the underlying at *spot*, and its Greeks."""
    for one in chain(spot):
        ticker = one.instrument.ticker
        if ticker in but:
            continue
        quote(w, ticker, one.bid, one.ask)
        if one.greeks is not None:
            fresh = msgspec.structs.replace(one.greeks, as_of_ns=w.clock.monotonic_ns())
            w.venue.put_event(GreeksSeen(ticker, fresh, w.clock.now_ns()))


async def tick(w: SimpleNamespace, secs: int = 15) -> None:
    """Let time move, deal with everything the venue said, and let the desk work."""
    w.clock.advance(secs)
    await drain(w)
    await w.trader.tick(w.clock.now_ns())
    await drain(w)


def condor(w: SimpleNamespace) -> Structure:
    """The condor that the chain offers."""
    found = pick(StructurePlan(), chain(), today=NOW.date())
    assert isinstance(found, Structure)
    return found


async def entered(w: SimpleNamespace, name: str = "iron_condor-SPY-1", **options: Any) -> Execution:
    """A condor, entered and attended."""
    await w.trader.start()
    quote_chain(w)
    await tick(w)
    structure = condor(w)
    quotes = {ticker: (one.bid, one.ask) for ticker, one in w.board.quotes.items()}
    price = structure.entry_price(quotes)
    await w.engine.open(structure, execution_id=name, limit=price, **options)
    quote_chain(w)
    await tick(w)
    return w.engine.executions.known[name]


def flat_world(w: SimpleNamespace) -> bool:
    """Whether the account holds and works nothing."""
    return not w.account.portfolio.positions and not w.account.open_orders()
