"""Kalshi's answers and messages, read into values: pure functions.

Promise: a parser returns a complete value or raises `VenueAnswerUnknown`, never anything else and never a
half-filled value. Fields this code does not know are tolerated; those it needs must be there, in today's
fixed-point form ("10.00" contracts, "0.5600" dollars). The older integer cents and counts are never read. An
answer that carries an `error` is no answer, whatever its status code.

All prices leave here on the YES leg, all numbers as integers in a named unit, all times as UTC nanoseconds.

Limits: shapes and texts are checked, not what they say together; whether an answer fits our books is execution's.

Source: research 05, sections 1 and 2; docs.kalshi.com (OpenAPI 3.26, AsyncAPI 2.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from holdfast.core.errors import BadInput, VenueAnswerUnknown
from holdfast.core.fees import MAKER_RATES_E4, TAKER_RATE_E4, KalshiFees
from holdfast.core.instruments import PriceRange
from holdfast.core.money import (
    ONE_CONTRACT_E2,
    ONE_DOLLAR_E4,
    MoneyE6,
    PriceE4,
    QtyE2,
    complement,
    parse_money,
    parse_price,
    parse_qty,
)
from holdfast.core.orders import Fill, OrderStatus
from holdfast.core.signals import BookSide
from holdfast.execution.venue import Ack, Book, Canceled, Level, MarketChanged, PublicTrade, VenueOrder
from holdfast.venues.kalshi.values import (
    Balance,
    EventFacts,
    ExchangeStatus,
    Market,
    Page,
    Position,
    SeriesFees,
    Settlement,
)

T = TypeVar("T")
W = TypeVar("W")

_ORDER_STATUS: Mapping[str, OrderStatus] = {
    "resting": OrderStatus.WORKING,
    "canceled": OrderStatus.CANCELED,
    "executed": OrderStatus.FILLED,
}
_HUNDREDTH = QtyE2(1)
_NANOS_PER_SEC = 1_000_000_000
_NANOS_PER_MS = 1_000_000


class ErrorBody(NamedTuple):
    """What a non-2xx answer said."""

    code: str
    message: str


class _Wire(msgspec.Struct, kw_only=True):
    error: Any = None


class _PageWire(_Wire, kw_only=True):
    cursor: str | None = None

    def page(self, rows: list[W], value: Callable[[W], T]) -> Page[T]:
        return Page([value(row) for row in rows], self.cursor or "")


_Decoder = msgspec.json.Decoder


def decode(decoder: _Decoder[T], body: bytes | bytearray | memoryview | msgspec.Raw, what: str) -> T:
    """*body* through *decoder*.

    Raises:
        VenueAnswerUnknown: Not JSON, not the expected shape, or an essential field is missing.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VenueAnswerUnknown(f"{what} cannot be read: {str(error)[:200]}") from None


class _Reader(Generic[W]):
    """Reads one kind of answer: first its shape, then what its texts mean.

    Args:
        what: Its name in an error.
        shape: The fields it must have.
    """

    def __init__(self, what: str, shape: type[W]) -> None:
        self._what = what
        self._decoder = _Decoder(shape)

    def read(self, body: bytes | msgspec.Raw, value: Callable[[W], T]) -> T:
        """What *value* makes of the answer.

        Raises:
            VenueAnswerUnknown: It cannot be read, carries an error, or *value* finds what cannot be.
        """
        wire = decode(self._decoder, body, self._what)
        if isinstance(wire, _Wire) and wire.error is not None:
            raise VenueAnswerUnknown(f"{self._what} carries an error: {_text(wire.error)}")
        try:
            return value(wire)
        except (BadInput, ValueError, OverflowError) as error:
            raise VenueAnswerUnknown(f"{self._what} cannot be read: {_text(error)}") from None


def _text(value: Any) -> str:
    return "".join(char if char.isprintable() else "?" for char in str(value))[:200]


def _time_ns(text: str | None) -> int:
    """An RFC 3339 time in UTC ns, 0 for none."""
    if not text:
        return 0
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * _NANOS_PER_SEC + moment.microsecond * 1000


def _moment_ns(ts_ms: int | None, text: str | None) -> int:
    """A time told in milliseconds, else as text, in UTC ns."""
    return ts_ms * _NANOS_PER_MS if ts_ms is not None else _time_ns(text)


def _positive_qty(text: str, what: str) -> QtyE2:
    qty = parse_qty(text, what)
    if qty < 0:
        raise BadInput(f"{what} {text!r} is negative")
    return qty


def _yes_price(text: str, what: str = "price") -> PriceE4:
    price = parse_price(text, what)
    if not 0 <= price <= ONE_DOLLAR_E4:
        raise BadInput(f"{what} {text!r} is outside 0 to 1 dollar")
    return price


def book_side(book: str | None, outcome: str | None, side: str | None, action: str | None) -> BookSide:
    """The side of the YES book from today's fields, else from the older pair of outcome and action.

    Raises:
        BadInput: Nothing that says which.
    """
    if book in {"bid", "ask"}:
        return BookSide.BID if book == "bid" else BookSide.ASK
    if outcome in {"yes", "no"}:
        return BookSide.BID if outcome == "yes" else BookSide.ASK
    if side in {"yes", "no"} and action in {"buy", "sell"}:
        return BookSide.BID if (side == "yes") == (action == "buy") else BookSide.ASK
    raise BadInput("neither book_side nor outcome_side nor side with action says which side it was")


def _mapping(value: object) -> dict[str, object] | None:
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def parse_error(status: int, body: bytes) -> ErrorBody:
    """Code and message of a non-2xx answer; never raises.

    The envelope is {"error": {"code", "message", ...}}, a 429 says {"error": "too many requests"}, a body that
    cannot be decoded is answered without the envelope, and a gateway in front may say anything at all.
    """
    fallback = ErrorBody(f"http_{status}", "")
    try:
        found: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return fallback
    said = _mapping(found)
    if said is not None and "error" in said:
        found = said["error"]
        said = _mapping(found)
    if isinstance(found, str):
        return ErrorBody(_text(found).lower().replace(" ", "_") or fallback.code, _text(found))
    if said is None:
        return fallback
    code, message, details = said.get("code"), said.get("message", said.get("msg")), said.get("details")
    text = _text(message) if isinstance(message, str) else ""
    if isinstance(details, str) and details and details != text:
        text = f"{text}: {_text(details)}" if text else _text(details)
    return ErrorBody(_text(code) if isinstance(code, str) and code else fallback.code, text)


class _CreatedWire(_Wire, kw_only=True):
    order_id: str
    fill_count: str
    remaining_count: str
    client_order_id: str | None = None
    ts_ms: int = 0


_CREATED = _Reader("acknowledgement", _CreatedWire)


def parse_created(body: bytes, client_order_id: str) -> Ack:
    """The acknowledgement of the order *client_order_id*."""
    return _CREATED.read(body, lambda wire: _ack(wire, client_order_id))


def _ack(wire: _CreatedWire, client_order_id: str) -> Ack:
    if not wire.order_id:
        raise BadInput("order_id is empty")
    if wire.client_order_id and wire.client_order_id != client_order_id:
        raise BadInput(f"it is for another order, {wire.client_order_id[:80]!r}")
    return Ack(
        order_id=wire.order_id,
        filled=_positive_qty(wire.fill_count, "fill_count"),
        remaining=_positive_qty(wire.remaining_count, "remaining_count"),
        ts_ns=wire.ts_ms * _NANOS_PER_MS,
    )


class _CanceledWire(_Wire, kw_only=True):
    reduced_by: str


_CANCELED = _Reader("cancel answer", _CanceledWire)


def parse_canceled(body: bytes) -> Canceled:
    """What a cancel took off the book."""
    return _CANCELED.read(body, lambda wire: Canceled(released=_positive_qty(wire.reduced_by, "reduced_by")))


class _OrderWire(msgspec.Struct, kw_only=True):
    order_id: str
    ticker: str
    status: str
    yes_price_dollars: str
    fill_count_fp: str
    remaining_count_fp: str
    initial_count_fp: str
    client_order_id: str | None = None
    book_side: str | None = None
    outcome_side: str | None = None
    side: str | None = None
    action: str | None = None
    created_time: str | None = None
    created_ts_ms: int | None = None
    last_update_reason: str | None = None


def _order(wire: _OrderWire) -> VenueOrder:
    status = _ORDER_STATUS.get(wire.status)
    if status is None:
        raise BadInput(f"order status {wire.status[:40]!r} is unknown")
    if status is OrderStatus.CANCELED and wire.last_update_reason == "ExpiryCancel":
        status = OrderStatus.EXPIRED
    if not wire.order_id:
        raise BadInput("order_id is empty")
    return VenueOrder(
        order_id=wire.order_id,
        client_order_id=wire.client_order_id or "",
        ticker=wire.ticker,
        side=book_side(wire.book_side, wire.outcome_side, wire.side, wire.action),
        yes_price=_yes_price(wire.yes_price_dollars),
        filled=_positive_qty(wire.fill_count_fp, "fill_count_fp"),
        leaves=_positive_qty(wire.remaining_count_fp, "remaining_count_fp"),
        initial=_positive_qty(wire.initial_count_fp, "initial_count_fp"),
        status=status,
        created_ns=_moment_ns(wire.created_ts_ms, wire.created_time),
    )


class _OneOrder(_Wire, kw_only=True):
    order: _OrderWire


class _Orders(_PageWire, kw_only=True):
    orders: list[_OrderWire]


_ONE_ORDER = _Reader("order", _OneOrder)
_ORDERS = _Reader("orders", _Orders)
_STREAM_ORDER = _Reader("order message", _OrderWire)


def parse_order(body: bytes) -> VenueOrder:
    """One order."""
    return _ONE_ORDER.read(body, lambda wire: _order(wire.order))


def parse_orders(body: bytes) -> Page[VenueOrder]:
    """A page of orders."""
    return _ORDERS.read(body, lambda wire: wire.page(wire.orders, _order))


def parse_stream_order(msg: bytes | msgspec.Raw) -> VenueOrder:
    """One order as the user_orders channel tells it."""
    return _STREAM_ORDER.read(msg, _order)


class _FillWire(msgspec.Struct, kw_only=True):
    trade_id: str
    order_id: str
    count_fp: str
    yes_price_dollars: str
    fee_cost: str
    is_taker: bool
    ticker: str | None = None
    market_ticker: str | None = None
    client_order_id: str | None = None
    book_side: str | None = None
    outcome_side: str | None = None
    side: str | None = None
    action: str | None = None
    created_time: str | None = None
    ts_ms: int | None = None


def _fill(wire: _FillWire) -> Fill:
    ticker = wire.market_ticker or wire.ticker
    qty = parse_qty(wire.count_fp, "count_fp")
    if not ticker or not wire.trade_id or not wire.order_id or qty <= 0:
        raise BadInput("a fill lacks its market, trade or order, or counts nothing")
    return Fill(
        trade_id=wire.trade_id,
        order_id=wire.order_id,
        client_order_id=wire.client_order_id or "",
        ticker=ticker,
        side=book_side(wire.book_side, wire.outcome_side, wire.side, wire.action),
        price=_yes_price(wire.yes_price_dollars),
        qty=qty,
        fee=parse_money(wire.fee_cost, "fee_cost"),
        is_taker=wire.is_taker,
        ts_ns=_moment_ns(wire.ts_ms, wire.created_time),
    )


class _Fills(_PageWire, kw_only=True):
    fills: list[_FillWire]


_FILLS = _Reader("fills", _Fills)
_STREAM_FILL = _Reader("fill message", _FillWire)


def parse_fills(body: bytes) -> Page[Fill]:
    """A page of our fills."""
    return _FILLS.read(body, lambda wire: wire.page(wire.fills, _fill))


def parse_stream_fill(msg: bytes | msgspec.Raw) -> Fill:
    """One of our fills as the fill channel tells it."""
    return _STREAM_FILL.read(msg, _fill)


class _TradeWire(msgspec.Struct, kw_only=True):
    trade_id: str
    yes_price_dollars: str
    count_fp: str
    ticker: str | None = None
    market_ticker: str | None = None
    taker_book_side: str | None = None
    taker_outcome_side: str | None = None
    taker_side: str | None = None
    created_time: str | None = None
    ts_ms: int | None = None


def _trade(wire: _TradeWire) -> PublicTrade:
    ticker = wire.market_ticker or wire.ticker
    if not ticker:
        raise BadInput("a trade lacks its market")
    return PublicTrade(
        ticker=ticker,
        trade_id=wire.trade_id,
        yes_price=_yes_price(wire.yes_price_dollars),
        qty=_positive_qty(wire.count_fp, "count_fp"),
        taker_side=book_side(wire.taker_book_side, wire.taker_outcome_side, wire.taker_side, "buy"),
        ts_ns=_moment_ns(wire.ts_ms, wire.created_time),
    )


class _Trades(_PageWire, kw_only=True):
    trades: list[_TradeWire]


_TRADES = _Reader("trades", _Trades)
_STREAM_TRADE = _Reader("trade message", _TradeWire)


def parse_trades(body: bytes) -> Page[PublicTrade]:
    """A page of public trades."""
    return _TRADES.read(body, lambda wire: wire.page(wire.trades, _trade))


def parse_stream_trade(msg: bytes | msgspec.Raw) -> PublicTrade:
    """A public trade as the trade channel tells it."""
    return _STREAM_TRADE.read(msg, _trade)


class _BalanceWire(_Wire, kw_only=True):
    balance_dollars: str
    updated_ts: int = 0


_BALANCE = _Reader("balance", _BalanceWire)


def _balance(wire: _BalanceWire) -> Balance:
    return Balance(
        balance=parse_money(wire.balance_dollars, "balance_dollars"),
        updated_ns=wire.updated_ts * _NANOS_PER_SEC,
    )


def parse_balance(body: bytes) -> Balance:
    """Cash available; the integer `balance` beside it is never read."""
    return _BALANCE.read(body, _balance)


class _PositionWire(msgspec.Struct, kw_only=True):
    ticker: str
    position_fp: str
    market_exposure_dollars: str | None = None
    realized_pnl_dollars: str | None = None
    fees_paid_dollars: str | None = None


class _Positions(_PageWire, kw_only=True):
    market_positions: list[_PositionWire]


_POSITIONS = _Reader("positions", _Positions)


def _money_or_none(text: str | None, what: str) -> MoneyE6 | None:
    return None if text is None else parse_money(text, what)


def _position(wire: _PositionWire) -> Position:
    return Position(
        ticker=wire.ticker,
        quantity=parse_qty(wire.position_fp, "position_fp"),
        exposure=_money_or_none(wire.market_exposure_dollars, "market_exposure_dollars"),
        realized_pnl=_money_or_none(wire.realized_pnl_dollars, "realized_pnl_dollars"),
        fees_paid=_money_or_none(wire.fees_paid_dollars, "fees_paid_dollars"),
    )


def parse_positions(body: bytes) -> Page[Position]:
    """A page of positions, flat ones included as the venue lists them."""
    return _POSITIONS.read(body, lambda wire: wire.page(wire.market_positions, _position))


class _SettlementWire(msgspec.Struct, kw_only=True):
    ticker: str
    market_result: str
    yes_count_fp: str
    no_count_fp: str
    settled_time: str
    fee_cost: str
    event_ticker: str = ""


class _Settlements(_PageWire, kw_only=True):
    settlements: list[_SettlementWire]


_SETTLEMENTS = _Reader("settlements", _Settlements)


def _settlement(wire: _SettlementWire) -> Settlement:
    return Settlement(
        ticker=wire.ticker,
        event_ticker=wire.event_ticker,
        result=wire.market_result,
        yes_count=_positive_qty(wire.yes_count_fp, "yes_count_fp"),
        no_count=_positive_qty(wire.no_count_fp, "no_count_fp"),
        fee=parse_money(wire.fee_cost, "fee_cost"),
        settled_ns=_time_ns(wire.settled_time),
    )


def parse_settlements(body: bytes) -> Page[Settlement]:
    """A page of settlements."""
    return _SETTLEMENTS.read(body, lambda wire: wire.page(wire.settlements, _settlement))


class _StatusWire(_Wire, kw_only=True):
    exchange_active: bool
    trading_active: bool


_STATUS = _Reader("exchange status", _StatusWire)


def _status(wire: _StatusWire) -> ExchangeStatus:
    return ExchangeStatus(exchange_active=wire.exchange_active, trading_active=wire.trading_active)


def parse_status(body: bytes) -> ExchangeStatus:
    """Whether the venue is up and trades."""
    return _STATUS.read(body, _status)


class _RangeWire(msgspec.Struct, kw_only=True):
    start: str
    end: str
    step: str


class _MarketWire(msgspec.Struct, kw_only=True):
    ticker: str
    event_ticker: str
    status: str
    price_ranges: list[_RangeWire]
    result: str | None = None
    title: str | None = None
    yes_sub_title: str | None = None
    yes_bid_dollars: str | None = None
    yes_ask_dollars: str | None = None
    yes_bid_size_fp: str | None = None
    yes_ask_size_fp: str | None = None
    last_price_dollars: str | None = None
    volume_fp: str | None = None
    open_interest_fp: str | None = None
    fractional_trading_enabled: bool = False
    open_time: str | None = None
    close_time: str | None = None


def _best(text: str | None, what: str) -> PriceE4 | None:
    """A best price; the venue writes an empty side as 0 or 1 dollar."""
    if text is None:
        return None
    price = _yes_price(text, what)
    return price if 0 < price < ONE_DOLLAR_E4 else None


def _range(wire: _RangeWire) -> PriceRange:
    stretch = PriceRange(
        _yes_price(wire.start, "start"), _yes_price(wire.end, "end"), parse_price(wire.step, "step")
    )
    if stretch.step <= 0 or stretch.end < stretch.start:
        raise BadInput(f"price range {wire.start[:20]!r} to {wire.end[:20]!r} by {wire.step[:20]!r} is empty")
    return stretch


def _market(wire: _MarketWire) -> Market:
    if not wire.price_ranges or not wire.ticker:
        raise BadInput("a market lacks its ticker or tick grid")
    return Market(
        ticker=wire.ticker,
        event_ticker=wire.event_ticker,
        status=wire.status,
        result=wire.result or "",
        title=wire.title or "",
        yes_title=wire.yes_sub_title or "",
        yes_bid=_best(wire.yes_bid_dollars, "yes_bid_dollars"),
        yes_ask=_best(wire.yes_ask_dollars, "yes_ask_dollars"),
        yes_bid_qty=_positive_qty(wire.yes_bid_size_fp or "0", "yes_bid_size_fp"),
        yes_ask_qty=_positive_qty(wire.yes_ask_size_fp or "0", "yes_ask_size_fp"),
        last_price=_best(wire.last_price_dollars, "last_price_dollars"),
        volume=_positive_qty(wire.volume_fp or "0", "volume_fp"),
        open_interest=_positive_qty(wire.open_interest_fp or "0", "open_interest_fp"),
        price_ranges=tuple(_range(one) for one in wire.price_ranges),
        qty_step=_HUNDREDTH if wire.fractional_trading_enabled else ONE_CONTRACT_E2,
        open_ns=_time_ns(wire.open_time),
        close_ns=_time_ns(wire.close_time),
    )


class _OneMarket(_Wire, kw_only=True):
    market: _MarketWire


class _Markets(_PageWire, kw_only=True):
    markets: list[_MarketWire]


_ONE_MARKET = _Reader("market", _OneMarket)
_MARKETS = _Reader("markets", _Markets)


def parse_market(body: bytes) -> Market:
    """One market."""
    return _ONE_MARKET.read(body, lambda wire: _market(wire.market))


def parse_markets(body: bytes) -> Page[Market]:
    """A page of markets."""
    return _MARKETS.read(body, lambda wire: wire.page(wire.markets, _market))


class _EventWire(msgspec.Struct, kw_only=True):
    event_ticker: str
    series_ticker: str
    mutually_exclusive: bool = False


class _OneEvent(_Wire, kw_only=True):
    event: _EventWire


_ONE_EVENT = _Reader("event", _OneEvent)


def _event(wire: _EventWire) -> EventFacts:
    return EventFacts(
        event_ticker=wire.event_ticker,
        series_ticker=wire.series_ticker,
        mutually_exclusive=wire.mutually_exclusive,
    )


def parse_event(body: bytes) -> EventFacts:
    """One event."""
    return _ONE_EVENT.read(body, lambda wire: _event(wire.event))


class _SeriesWire(msgspec.Struct, kw_only=True):
    fee_type: str
    fee_multiplier: float | int | str = 1


class _OneSeries(_Wire, kw_only=True):
    series: _SeriesWire


_ONE_SERIES = _Reader("series", _OneSeries)


def _series(wire: _SeriesWire) -> SeriesFees:
    schedule = KalshiFees.of(wire.fee_type, wire.fee_multiplier)
    maker_rate = MAKER_RATES_E4[schedule.fee_type]
    return SeriesFees(
        taker_fee_ppm=_ppm(TAKER_RATE_E4, schedule.multiplier_e4),
        maker_fee_ppm=_ppm(maker_rate, schedule.multiplier_e4),
    )


def parse_series(body: bytes) -> SeriesFees:
    """What one series charges; `flat`, for which no amount is published, is unreadable."""
    return _ONE_SERIES.read(body, lambda wire: _series(wire.series))


def _ppm(rate_e4: int, multiplier_e4: int) -> int:
    """Rate x multiplier in parts per million, rounded up."""
    return -(-rate_e4 * multiplier_e4 // 100)


_Pairs = list[tuple[str, str]]


class _Sides(msgspec.Struct, kw_only=True):
    yes_dollars: _Pairs | None = None
    no_dollars: _Pairs | None = None


class _BookWire(_Wire, kw_only=True):
    orderbook_fp: _Sides


_BOOK = _Reader("order book", _BookWire)


def read_pairs(pairs: _Pairs | None) -> list[tuple[PriceE4, QtyE2]]:
    """Price and quantity of each level of one leg's bids; prices strictly inside 0 to 1, no price twice.

    Raises:
        BadInput: A level that cannot be.
    """
    levels: dict[PriceE4, QtyE2] = {}
    for price_text, qty_text in pairs or ():
        price, qty = parse_price(price_text), parse_qty(qty_text)
        if not 0 < price < ONE_DOLLAR_E4 or qty < 0 or price in levels:
            raise BadInput(f"book level {price_text[:20]!r} of {qty_text[:20]!r} contracts cannot be")
        levels[price] = qty
    return [(price, qty) for price, qty in levels.items() if qty]


def _book(wire: _Sides, ticker: str, alive_ns: int) -> Book:
    bids = sorted(read_pairs(wire.yes_dollars), reverse=True)
    asks = sorted((complement(price), qty) for price, qty in read_pairs(wire.no_dollars))
    return Book(
        ticker=ticker,
        bids=tuple(Level(price, qty) for price, qty in bids),
        asks=tuple(Level(price, qty) for price, qty in asks),
        alive_ns=alive_ns,
    )


def parse_book(body: bytes, ticker: str, alive_ns: int) -> Book:
    """A book on the YES leg: a NO bid at q is an ask at 1 - q."""
    return _BOOK.read(body, lambda wire: _book(wire.orderbook_fp, ticker, alive_ns))


# --- the stream -------------------------------------------------------------------------------------------


class Envelope(msgspec.Struct, kw_only=True):
    """What every frame says about itself; `msg` waits, unread, for the parser of its type."""

    type: str
    id: int | None = None
    sid: int | None = None
    seq: int | None = None
    msg: msgspec.Raw = msgspec.Raw(b"{}")


class SnapshotMessage(msgspec.Struct, kw_only=True):
    """A whole book; an empty side is left out."""

    market_ticker: str
    yes_dollars_fp: _Pairs | None = None
    no_dollars_fp: _Pairs | None = None


class DeltaMessage(msgspec.Struct, kw_only=True):
    """A change of one level, not its new size."""

    market_ticker: str
    price_dollars: str
    delta_fp: str
    side: str
    ts_ms: int = 0


class SubscribedMessage(msgspec.Struct, kw_only=True):
    """The answer to one channel of a subscribe command."""

    channel: str
    sid: int


class StreamError(msgspec.Struct, kw_only=True):
    """A command, or a whole subscription, failed."""

    code: int
    msg: str = ""


class TickMessage(msgspec.Struct, kw_only=True):
    """A venue that owns the market's clock tells the time."""

    n: int
    ts_ns: int
    final: bool = False


ENVELOPE = _Decoder(Envelope)
SNAPSHOT = _Decoder(SnapshotMessage)
DELTA = _Decoder(DeltaMessage)
SUBSCRIBED = _Decoder(SubscribedMessage)
STREAM_ERROR = _Decoder(StreamError)
TICK = _Decoder(TickMessage)


class _LifecycleWire(msgspec.Struct, kw_only=True):
    event_type: str
    market_ticker: str
    result: str | None = None
    determination_ts: int | None = None
    settled_ts: int | None = None
    ts_ms: int | None = None


_LIFECYCLE = _Reader("lifecycle message", _LifecycleWire)
_LIFECYCLE_STATUS: Mapping[str, str] = {
    "created": "initialized",
    "activated": "active",
    "deactivated": "inactive",
    "settled": "finalized",
}


def _market_changed(wire: _LifecycleWire) -> MarketChanged:
    seconds = wire.settled_ts or wire.determination_ts or 0
    return MarketChanged(
        ticker=wire.market_ticker,
        status=_LIFECYCLE_STATUS.get(wire.event_type, wire.event_type),
        result=wire.result or "",
        ts_ns=wire.ts_ms * _NANOS_PER_MS if wire.ts_ms is not None else seconds * _NANOS_PER_SEC,
    )


def parse_lifecycle(msg: bytes | msgspec.Raw) -> MarketChanged:
    """A market's change; an event type without a market status is passed on under its own name."""
    return _LIFECYCLE.read(msg, _market_changed)
