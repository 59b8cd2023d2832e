"""What reaches a book and what comes out of it: orders, and the events that `matching.MarketBook` answers with.

Prices are YES prices in 1/10,000 dollar, quantities 1/100 contract, times market time in UTC ns, unless a class says
otherwise. Values only; which of them happen is `matching`'s to decide.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.signals import BookSide, Side, TimeInForce
from holdfast.venues.paper.events import MarketStatus


class SelfTrade(StrEnum):
    """What gives way when an account meets itself (Kalshi's words)."""

    TAKER_AT_CROSS = "taker_at_cross"
    MAKER = "maker"


class RejectCode(StrEnum):
    """Why an order never entered the book."""

    MARKET_NOT_ACTIVE = "market_not_active"
    PRICE_OFF_GRID = "price_off_grid"
    BAD_COUNT = "bad_count"
    BAD_EXPIRATION = "bad_expiration"
    POST_ONLY_WOULD_CROSS = "post_only_would_cross"


class CancelReason(StrEnum):
    """Why contracts left the book unexecuted."""

    REQUESTED = "requested"
    IOC_REMAINDER = "ioc_remainder"
    FOK_UNFILLED = "fok_unfilled"
    SELF_TRADE = "self_trade"
    MARKET_CLOSED = "market_closed"


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as it reaches the book.

    Attributes:
        order_id: The exchange's id; never used twice in one book.
        account: Who; self-trade prevention compares it.
        side: BID buys YES, ASK sells it.
        price: YES limit.
        qty: Contracts, in 1/100, positive.
        expiration_ns: A GTC order is gone from this moment on, UTC ns; 0 for never.
    """

    order_id: str
    account: str
    side: BookSide
    price: PriceE4
    qty: QtyE2
    tif: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    self_trade: SelfTrade = SelfTrade.TAKER_AT_CROSS
    expiration_ns: int = 0


class Rejected(msgspec.Struct, frozen=True):
    """The order never entered; nothing executed."""

    order_id: str
    account: str
    code: RejectCode
    ts_ns: int


class Fill(msgspec.Struct, frozen=True):
    """One execution of one of our orders.

    Attributes:
        side: Of the order on the YES book.
        price: YES price.
        qty: Executed now, positive.
        leaves: Still open afterwards (before a later Canceled or Rested of the same call).
        counter: Order id of the other side, or "" where the market outside took it.
        trade_no: 1, 2, 3 ... per book; the two fills of one trade between accounts share it.
    """

    order_id: str
    account: str
    side: BookSide
    price: PriceE4
    qty: QtyE2
    leaves: QtyE2
    is_taker: bool
    counter: str
    trade_no: int
    ts_ns: int


class Rested(msgspec.Struct, frozen=True):
    """What was left of the order now rests, *ahead* external contracts before it."""

    order_id: str
    account: str
    leaves: QtyE2
    ahead: QtyE2
    ts_ns: int


class Canceled(msgspec.Struct, frozen=True):
    """*qty* contracts left the book unexecuted; the order is closed."""

    order_id: str
    account: str
    qty: QtyE2
    reason: CancelReason
    ts_ns: int


class Expired(msgspec.Struct, frozen=True):
    """The order reached its expiration with *qty* contracts left; it is closed."""

    order_id: str
    account: str
    qty: QtyE2
    ts_ns: int


class BookChange(msgspec.Struct, frozen=True, gc=False):
    """The public size at one price moved: what `orderbook_delta` tells.

    Attributes:
        side, price: Bids of YES or of NO, price of that side, as on the wire.
        delta: Signed, never 0.
        size: Public size there after it.
    """

    ticker: str
    side: Side
    price: PriceE4
    delta: QtyE2
    size: QtyE2
    ts_ns: int


class BookReset(msgspec.Struct, frozen=True, gc=False):
    """The public book was replaced as a whole: publish `public_levels()` anew; it may be empty."""

    ticker: str
    ts_ns: int


class TradePrint(msgspec.Struct, frozen=True, gc=False):
    """A public trade: recorded ones under their own id, ours under "<ticker>:<trade_no>"."""

    ticker: str
    trade_id: str
    taker_side: Side
    yes_price: PriceE4
    qty: QtyE2
    ts_ns: int


class StatusChange(msgspec.Struct, frozen=True, gc=False):
    """The market entered *status*."""

    ticker: str
    status: MarketStatus
    result: Side | None
    ts_ns: int


BookEvent = Rejected | Fill | Rested | Canceled | Expired | BookChange | BookReset | TradePrint | StatusChange
