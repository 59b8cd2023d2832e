"""What Kalshi says, as values: one frozen type per kind of answer.

Promise: prices are on the YES leg, numbers are integers in a named unit, times are UTC nanoseconds; None, "" or 0
stand where the venue does not say, as each type tells. `wire.py` makes them.

Limits: orders, fills, trades and books have the port's own types (execution/venue.py, core/orders.py).
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from holdfast.core.fees import MAKER_RATES_E4, TAKER_RATE_E4
from holdfast.core.instruments import PriceRange
from holdfast.core.money import ONE_CONTRACT_E2, MoneyE6, PriceE4, QtyE2

T = TypeVar("T")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the venue said, as one value; fields can be read by name or, as older callers do, by index."""

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None


class Page(NamedTuple, Generic[T]):
    """One page of a list; an empty *cursor* means that it was the last."""

    items: list[T]
    cursor: str


class Balance(Answer, frozen=True, kw_only=True):
    """Cash available for trading.

    Attributes:
        balance: Dollars.
        updated_ns: When the venue last changed it, UTC ns, or 0.
    """

    balance: MoneyE6
    updated_ns: int = 0


class ExchangeStatus(Answer, frozen=True, kw_only=True):
    """Whether the venue is up, and whether it trades."""

    exchange_active: bool
    trading_active: bool


class Market(Answer, frozen=True, kw_only=True):
    """One market with its best prices.

    Attributes:
        ticker, event_ticker: Its names.
        status: The venue's word: initialized, inactive, active, closed, determined, disputed, amended, finalized.
        result: "yes", "no", or "" while undetermined.
        title, yes_title: For people.
        yes_bid, yes_ask: Best prices on the YES leg; None for an empty side.
        yes_bid_qty, yes_ask_qty: Quantity there; 0 where the venue does not say.
        last_price: Of the last trade; None before the first.
        volume, open_interest: In contracts.
        price_ranges: The tick grid.
        qty_step: 1 where fractions of a contract trade, else 100.
        open_ns, close_ns: When trading begins and ends; 0 where the venue does not say.
    """

    ticker: str
    event_ticker: str
    status: str
    result: str
    price_ranges: tuple[PriceRange, ...]
    title: str = ""
    yes_title: str = ""
    yes_bid: PriceE4 | None = None
    yes_ask: PriceE4 | None = None
    yes_bid_qty: QtyE2 = QtyE2(0)
    yes_ask_qty: QtyE2 = QtyE2(0)
    last_price: PriceE4 | None = None
    volume: QtyE2 = QtyE2(0)
    open_interest: QtyE2 = QtyE2(0)
    qty_step: QtyE2 = ONE_CONTRACT_E2
    open_ns: int = 0
    close_ns: int = 0


class EventFacts(Answer, frozen=True, kw_only=True):
    """What an event says about its markets together."""

    event_ticker: str
    series_ticker: str
    mutually_exclusive: bool


class SeriesFees(Answer, frozen=True, kw_only=True):
    """What a series charges, in parts per million of price x (1 - price)."""

    taker_fee_ppm: int
    maker_fee_ppm: int


DEAREST_FEES = SeriesFees(taker_fee_ppm=TAKER_RATE_E4 * 100, maker_fee_ppm=max(MAKER_RATES_E4.values()) * 100)
"""The dearest published model at multiplier 1, for a series the venue does not describe."""


class Position(Answer, frozen=True, kw_only=True):
    """One market's position.

    Attributes:
        ticker: The market.
        quantity: Signed YES contracts; negative is long NO.
        exposure, realized_pnl, fees_paid: As the venue counts them, dollars; None where it does not say.
    """

    ticker: str
    quantity: QtyE2
    exposure: MoneyE6 | None = None
    realized_pnl: MoneyE6 | None = None
    fees_paid: MoneyE6 | None = None


class Settlement(Answer, frozen=True, kw_only=True):
    """How one market ended for us.

    Attributes:
        result: "yes", "no", "scalar" or "void".
        yes_count, no_count: Contracts of each leg held then.
        fee: Paid for them in all.
        settled_ns: When, UTC ns.
    """

    ticker: str
    event_ticker: str
    result: str
    yes_count: QtyE2
    no_count: QtyE2
    fee: MoneyE6
    settled_ns: int
