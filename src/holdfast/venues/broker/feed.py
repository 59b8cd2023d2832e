"""What an options market does, as values: the only words between a feed (recorded or seeded) and the broker.

A feed is the market *without us*, minute by minute. A minute's quotes are known at its close and not before: a
`Minute` carries the moment of its close, and the broker learns of it then. Prices, quantities and times are integers
(`PriceE4`, `QtyE2`, UTC nanoseconds). An absent side is 0, never a price.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec

from holdfast.core.clock import NANOS
from holdfast.core.instruments import InstrumentKind
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.options import OptionTerms

MINUTE_NS = 60 * NANOS
OPTION_FEE = MoneyE6(650_000)
"""What a retail broker asks per contract and side: $0.65."""
OPTION_MULTIPLIER = 100
_NEW_YORK = ZoneInfo("America/New_York")


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One contract or stock that can be traded.

    Attributes:
        ticker: OCC symbol, or the stock's own.
        terms: Of an option; None of a stock.
        multiplier: Units of the underlying per contract.
        tick: Prices are multiples of it.
        fee: Per contract and side.
    """

    ticker: str
    terms: OptionTerms | None = None
    multiplier: int = 1
    tick: PriceE4 = PriceE4(100)
    fee: MoneyE6 = MoneyE6(0)

    @property
    def kind(self) -> InstrumentKind:
        """Option or stock."""
        return InstrumentKind.STOCK if self.terms is None else InstrumentKind.OPTION

    @property
    def underlying(self) -> str:
        """The symbol it depends on."""
        return self.ticker if self.terms is None else self.terms.underlying


class Sensitivities(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Greeks as a feed tells them, per unit of the underlying, in 1/1,000,000; see `core.greeks`."""

    delta_e6: int
    gamma_e6: int
    vega_e6: int
    theta_e6: int
    iv_e6: int


class Quote(msgspec.Struct, frozen=True, gc=False):
    """Best bid and ask of one contract at the close of a minute.

    Attributes:
        bid, ask: 0 where nobody bids or offers.
        bid_size, ask_size: Displayed, 1/100 contract.
        greeks: Where the feed has them.
    """

    ticker: str
    bid: PriceE4
    bid_size: QtyE2
    ask: PriceE4
    ask_size: QtyE2
    greeks: Sensitivities | None = None


class Spot(msgspec.Struct, frozen=True, gc=False):
    """The price of an underlying at the close of a minute.

    Attributes:
        source: "trade", "parity" (put-call parity of the quotes) or "seeded".
    """

    symbol: str
    price: PriceE4
    source: str


class Minute(msgspec.Struct, frozen=True, gc=False):
    """Everything that one minute showed, known from *ts_ns* on: the moment of its close."""

    ts_ns: int
    quotes: tuple[Quote, ...]
    spots: tuple[Spot, ...]


class Feed(Protocol):
    """A finite stream of minutes in time order; iterating starts from the beginning each time.

    Attributes:
        listings: Everything that is quoted, in a fixed order.
        start_ns: Market time before the first minute's close.
        recorded: Every day of a recording, yyyymmdd, with its underlyings, played or not; empty where none is one.
    """

    @property
    def listings(self) -> tuple[Listing, ...]:
        """Everything that is quoted."""
        ...

    @property
    def start_ns(self) -> int:
        """Market time at which the feed begins."""
        ...

    @property
    def recorded(self) -> Mapping[int, tuple[str, ...]]:
        """Every day of a recording with its underlyings."""
        ...

    def __iter__(self) -> Iterator[Minute]: ...

    def describe(self) -> str:
        """One line for people: what is played, how much of it, when."""
        ...


def closing_ns(day: date) -> int:
    """When options of that day stop trading and their payoff is fixed: 16:00 in New York, 13:00 on half days.

    Half days of the exchanges: 3 July, the day after Thanksgiving and 24 December, where trading takes place. Source:
    NYSE trading calendar.
    """
    thanksgiving = date(day.year, 11, 1) + timedelta(days=(3 - date(day.year, 11, 1).weekday()) % 7 + 21)
    is_half = (day.month, day.day) in {(7, 3), (12, 24)} or day == thanksgiving + timedelta(days=1)
    close = datetime.combine(day, time(13 if is_half else 16), _NEW_YORK)
    return int(close.timestamp()) * NANOS


def opening_ns(day: date) -> int:
    """When trading begins: 9:30 in New York."""
    return int(datetime.combine(day, time(9, 30), _NEW_YORK).timestamp()) * NANOS


def day_of(ts_ns: int) -> date:
    """The trading day in New York of a UTC time."""
    return datetime.fromtimestamp(ts_ns // NANOS, _NEW_YORK).date()
