"""What a market does, as values: the only words between a feed (recorded or seeded) and the matching.

A feed is the market *without us*: it never learns of our orders, and `matching.MarketBook` works out what they
would have met. Prices, quantities and times are integers (`PriceE4`, `QtyE2`, UTC nanoseconds). Limits:
a feed says what was seen when it was seen; it carries no event before the moment at which a
participant could have known it, and no result before the market was determined.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol

import msgspec

from holdfast.core.instruments import CENT_GRID, PriceRange
from holdfast.core.money import ONE_DOLLAR_E4, PriceE4, QtyE2
from holdfast.core.signals import Side

Levels = tuple[tuple[PriceE4, QtyE2], ...]
"""Pairs of price and resting quantity; both positive, no price twice, in any order."""


class FeedKind(StrEnum):
    """What a feed shows, which decides how orders fill on it."""

    DEPTH = "depth"
    PRINTS = "prints"


class MarketStatus(StrEnum):
    """Kalshi's market states, in the order a market passes through them (source: research 05, 1.2)."""

    INITIALIZED = "initialized"
    INACTIVE = "inactive"
    ACTIVE = "active"
    CLOSED = "closed"
    DETERMINED = "determined"
    FINALIZED = "finalized"


class FeeType(StrEnum):
    """How a series charges (source: research 05, 1.5)."""

    QUADRATIC = "quadratic"
    QUADRATIC_WITH_MAKER_FEES = "quadratic_with_maker_fees"


class MarketSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is fixed about one market.

    Attributes:
        ticker: The market; unique in a feed.
        event_ticker: The event it belongs to.
        series_ticker: The series of that event.
        title: What is asked, one line.
        yes_title: What YES means.
        open_ns: When trading begins, UTC ns; 0 where the feed begins with it open.
        close_ns: When trading is scheduled to end, UTC ns; a `Lifecycle` event ends it, often earlier. On a tape
            it follows from the ticker alone where that holds a date, so that it gives nothing away.
        price_ranges: The tick grid, stretches of (start, end, step).
        qty_step: Smallest step of a count, in 1/100 contract; 100 = whole contracts.
        fee_type: Whether makers pay.
        taker_fee_ppm, maker_fee_ppm: Rate of the quadratic fee in parts per million, multiplier included;
            the maker's is charged only where `fee_type` says so.
        mutually_exclusive: At most one market of the event pays.
        initial_status: ACTIVE, or INITIALIZED where a `Lifecycle` event opens it.
    """

    ticker: str
    event_ticker: str
    series_ticker: str
    title: str
    yes_title: str = ""
    open_ns: int = 0
    close_ns: int
    price_ranges: tuple[PriceRange, ...] = CENT_GRID
    qty_step: QtyE2 = QtyE2(100)
    fee_type: FeeType = FeeType.QUADRATIC
    taker_fee_ppm: int = 70_000
    maker_fee_ppm: int = 17_500
    mutually_exclusive: bool = False
    initial_status: MarketStatus = MarketStatus.ACTIVE

    def is_price(self, price: PriceE4) -> bool:
        """Whether *price* is strictly between 0 and 1 dollar and on the tick grid."""
        return 0 < price < ONE_DOLLAR_E4 and any(stretch.holds(price) for stretch in self.price_ranges)

    def is_count(self, qty: QtyE2) -> bool:
        """Whether *qty* is positive and a whole number of steps."""
        return qty > 0 and qty % self.qty_step == 0


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """The whole external book of one market; replaces what was known of it.

    Attributes:
        yes_bids: Price of YES and quantity.
        no_bids: Price of NO and quantity; a NO bid at q is a YES ask at 1 - q.
    """

    ticker: str
    ts_ns: int
    yes_bids: Levels
    no_bids: Levels


class Delta(msgspec.Struct, frozen=True, gc=False):
    """A change, not a level: the size resting at *price* on the bids of *side* moves by *delta*.

    Attributes:
        side: Whose bids.
        price: In dollars of that side, as on the wire (a NO bid at q is a YES ask at 1 - q).
        delta: Signed, never 0.
    """

    ticker: str
    ts_ns: int
    side: Side
    price: PriceE4
    delta: QtyE2


class Print(msgspec.Struct, frozen=True, gc=False):
    """A public trade between others.

    Attributes:
        trade_id: Unique in the feed.
        taker_side: YES when the taker bought YES (lifted the ask), NO when it bought NO (hit the bid).
        yes_price: The price, always of YES.
        qty: Contracts, in 1/100.
    """

    ticker: str
    ts_ns: int
    trade_id: str
    taker_side: Side
    yes_price: PriceE4
    qty: QtyE2


class Lifecycle(msgspec.Struct, frozen=True, gc=False):
    """The market enters *status*; *result* is None until DETERMINED and "yes" or "no" from then on."""

    ticker: str
    ts_ns: int
    status: MarketStatus
    result: Side | None = None


MarketEvent = Snapshot | Delta | Print | Lifecycle


class Feed(Protocol):
    """A finite stream of market events in time order.

    Iterating starts from the beginning each time and yields the same events each time. `ts_ns` never
    decreases. Times may jump far ahead (a tape over several days): whoever plays a feed decides what a
    pause means.

    Attributes:
        markets: Every market that appears, in a fixed order.
        kind: Whether books or only prints are shown.
        start_ns: Market time at which the feed begins, not after its first event.
    """

    @property
    def markets(self) -> tuple[MarketSpec, ...]:
        """Every market that appears."""
        ...

    @property
    def kind(self) -> FeedKind:
        """Books, or prints only."""
        ...

    @property
    def start_ns(self) -> int:
        """Market time before the first event."""
        ...

    def __iter__(self) -> Iterator[MarketEvent]: ...

    def describe(self) -> str:
        """One line for people: what is played, how much of it, when."""
        ...
