"""The paper broker's wire as a client reads it, version 1: requests out, whole values or a named error in. Pure.

Frames are JSON. Every answer is checked before it becomes a value: an unknown word, a missing field or a number that
cannot be is `VenueAnswerUnknown`, and for a placement that is `Unknown`.

Source: venues/broker/wire.py describes the same wire; neither reads the other's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from holdfast.core.errors import BadInput, VenueAnswerUnknown
from holdfast.core.instruments import (
    COMBO_CENTS,
    PREMIUM_CENTS,
    ComboLeg,
    Instrument,
    InstrumentKind,
    PriceRange,
)
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.options import OptionTerms
from holdfast.core.orders import Fill, FillCause, OrderStatus
from holdfast.core.signals import BookSide, Intent
from holdfast.execution.venue import Ack, VenueOrder

VERSION: Final = 1
VENUE: Final = "options"
_HIGHEST: Final = PriceE4(10**9)

T = TypeVar("T")


class Frame(msgspec.Struct):
    """Any frame: `t` says which, the rest stays raw."""

    t: str
    id: int = 0
    r: msgspec.Raw = msgspec.Raw(b"null")
    status: Any = None
    code: str = ""
    message: str = ""
    msg: msgspec.Raw = msgspec.Raw(b"null")
    q: msgspec.Raw = msgspec.Raw(b"[]")
    u: list[tuple[str, int, str]] = []
    n: int = 0
    ts_ns: int = 0
    final: bool = False
    ticker: str = ""
    v: int = 0


QuoteRow = tuple[str, Any, Any, Any, Any, tuple[int, int, int, int, int] | None]
DatedRow = tuple[str, Any, Any, Any, Any, tuple[int, int, int, int, int] | None, int]


class _Order(msgspec.Struct):
    order_id: str
    client_order_id: str
    ticker: str
    side: BookSide
    price_e4: int
    qty_e2: int
    filled_e2: int
    leaves_e2: int
    state: str
    multiplier: int
    created_ns: int


class _Execution(msgspec.Struct):
    exec_id: str
    order_id: str
    client_order_id: str
    ticker: str
    side: BookSide
    price_e4: int
    qty_e2: int
    fee_e6: int
    multiplier: int
    is_taker: bool
    cause: FillCause
    ts_ns: int


class Holdings(msgspec.Struct):
    """The account: cash, what may still be bought with, signed positions."""

    cash_e6: int
    buying_power_e6: int
    positions: dict[str, int]


class _Listing(msgspec.Struct):
    ticker: str
    kind: InstrumentKind
    multiplier: int
    tick_e4: int
    fee_e6: int
    status: str
    terms: OptionTerms | None = None


class _Released(msgspec.Struct):
    released_e2: int


_STATES: Final = {
    "working": OrderStatus.WORKING,
    "filled": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELED,
    "expired": OrderStatus.EXPIRED,
}
_FRAME = msgspec.json.Decoder(Frame)
_QUOTES = msgspec.json.Decoder(list[QuoteRow])
_DATED = msgspec.json.Decoder(list[DatedRow])
_ORDER = msgspec.json.Decoder(_Order)
_MAYBE_ORDER = msgspec.json.Decoder(_Order | None)
_ORDERS = msgspec.json.Decoder(list[_Order])
_EXECUTION = msgspec.json.Decoder(_Execution)
_EXECUTIONS = msgspec.json.Decoder(list[_Execution])
_HOLDINGS = msgspec.json.Decoder(Holdings)
_LISTING = msgspec.json.Decoder(_Listing)
_LISTINGS = msgspec.json.Decoder(list[_Listing])
_RELEASED = msgspec.json.Decoder(_Released)


def request(number: int, op: str, params: dict[str, Any]) -> str:
    """One request."""
    return msgspec.json.encode({"id": number, "op": op, "p": params}).decode()


def place_params(intent: Intent) -> dict[str, Any]:
    """The order that *intent* asks for."""
    signal = intent.signal
    return {
        "client_order_id": intent.client_order_id,
        "ticker": intent.ticker,
        "side": intent.book_side.value,
        "price_e4": intent.yes_price,
        "qty_e2": signal.count,
        "tif": signal.tif.value,
        "post_only": signal.post_only,
        "expiration_ns": signal.expiration_ns,
    }


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes | str | msgspec.Raw, what: str) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise VenueAnswerUnknown(f"{what} cannot be read: {error}") from None


def read_frame(text: str | bytes) -> Frame:
    """One frame.

    Raises:
        VenueAnswerUnknown: It cannot be read.
    """
    return _decode(_FRAME, text, "frame")


def read_quotes(raw: msgspec.Raw) -> list[QuoteRow]:
    """The quotes of a minute."""
    return _decode(_QUOTES, raw, "quotes")


def read_dated(raw: msgspec.Raw) -> list[DatedRow]:
    """Quotes that were asked for, each with the moment it was made."""
    return _decode(_DATED, raw, "quotes")


def read_placed(raw: msgspec.Raw, client_order_id: str) -> Ack:
    """The acknowledgement of a placement."""
    order = _decode(_ORDER, raw, "acknowledgement")
    if order.client_order_id != client_order_id or not order.order_id:
        raise VenueAnswerUnknown(f"acknowledgement of {client_order_id!r} names another order")
    shown = _shown(order)
    return Ack(order_id=shown.order_id, filled=shown.filled, remaining=shown.leaves, ts_ns=shown.created_ns)


def read_released(raw: msgspec.Raw) -> QtyE2:
    """What a cancel took off the book."""
    return QtyE2(_decode(_RELEASED, raw, "cancel answer").released_e2)


def read_order(raw: msgspec.Raw) -> VenueOrder:
    """One order."""
    return _shown(_decode(_ORDER, raw, "order"))


def read_maybe_order(raw: msgspec.Raw) -> VenueOrder | None:
    """One order, or none."""
    order = _decode(_MAYBE_ORDER, raw, "order")
    return None if order is None else _shown(order)


def read_orders(raw: msgspec.Raw) -> list[VenueOrder]:
    """Orders."""
    return [_shown(order) for order in _decode(_ORDERS, raw, "orders")]


def read_fill(raw: msgspec.Raw) -> Fill:
    """One execution."""
    return _fill(_decode(_EXECUTION, raw, "execution"))


def read_fills(raw: msgspec.Raw) -> list[Fill]:
    """Executions."""
    return [_fill(one) for one in _decode(_EXECUTIONS, raw, "executions")]


def read_holdings(raw: msgspec.Raw) -> Holdings:
    """The account."""
    return _decode(_HOLDINGS, raw, "account")


def read_instrument(raw: msgspec.Raw) -> Instrument:
    """One contract's or stock's rules."""
    return _instrument(_decode(_LISTING, raw, "listing"))


def read_chain(raw: msgspec.Raw) -> list[Instrument]:
    """Every listed contract that was asked for."""
    return [_instrument(one) for one in _decode(_LISTINGS, raw, "chain")]


def combination(ticker: str, legs: Sequence[tuple[Instrument, int]]) -> Instrument:
    """The rules of a combination, from those of its legs.

    Raises:
        BadInput: Legs that cannot be one combination.
    """
    first = legs[0][0]
    if any(leg.kind is not InstrumentKind.OPTION or leg.multiplier != first.multiplier for leg, _ in legs):
        raise BadInput(f"combination {ticker[:60]!r} has a leg that is no option, or of another multiplier")
    ended = [leg for leg, _ in legs if not leg.is_open]
    return Instrument(
        venue=VENUE,
        ticker=ticker,
        kind=InstrumentKind.COMBO,
        legs=tuple(ComboLeg(leg, ratio) for leg, ratio in legs),
        price_ranges=COMBO_CENTS,
        multiplier=first.multiplier,
        fee_per_contract=first.fee_per_contract,
        is_open=not ended,
        close_ns=min(leg.close_ns for leg, _ in legs),
        status=ended[0].status if ended else "active",
    )


def _shown(order: _Order) -> VenueOrder:
    status = _STATES.get(order.state)
    counts = (order.qty_e2, order.filled_e2, order.leaves_e2)
    if (
        status is None
        or order.multiplier < 1
        or min(counts) < 0
        or order.filled_e2 + order.leaves_e2 > order.qty_e2
    ):
        raise VenueAnswerUnknown(
            f"order {order.order_id[:40]!r} cannot stand so: {order.state[:20]!r} {counts}"
        )
    return VenueOrder(
        order_id=order.order_id,
        client_order_id=order.client_order_id,
        ticker=order.ticker,
        side=order.side,
        yes_price=PriceE4(order.price_e4),
        filled=QtyE2(order.filled_e2),
        leaves=QtyE2(order.leaves_e2),
        initial=QtyE2(order.qty_e2),
        status=status,
        created_ns=order.created_ns,
        multiplier=order.multiplier,
    )


def _fill(one: _Execution) -> Fill:
    if one.qty_e2 <= 0 or one.price_e4 < 0 or one.multiplier < 1 or not one.exec_id:
        raise VenueAnswerUnknown(f"execution {one.exec_id[:40]!r} cannot be: {one.qty_e2} at {one.price_e4}")
    return Fill(
        trade_id=one.exec_id,
        # What no order caused is named after itself: it is nobody's, and nobody's twice.
        order_id=one.order_id or one.exec_id,
        client_order_id=one.client_order_id,
        ticker=one.ticker,
        side=one.side,
        price=PriceE4(one.price_e4),
        qty=QtyE2(one.qty_e2),
        fee=MoneyE6(one.fee_e6),
        is_taker=one.is_taker,
        ts_ns=one.ts_ns,
        multiplier=one.multiplier,
        cause=one.cause,
    )


def _instrument(one: _Listing) -> Instrument:
    tick = PriceE4(one.tick_e4)
    is_cents = tick == PREMIUM_CENTS[0].step
    try:
        return Instrument(
            venue=VENUE,
            ticker=one.ticker,
            kind=one.kind,
            option=one.terms,
            multiplier=one.multiplier,
            price_ranges=PREMIUM_CENTS if is_cents else (PriceRange(tick, _HIGHEST, tick),),
            fee_per_contract=MoneyE6(one.fee_e6),
            is_open=one.status == "active",
            close_ns=0 if one.terms is None else one.terms.expires_ns,
            status=one.status,
        )
    except BadInput as error:
        raise VenueAnswerUnknown(f"listing {one.ticker[:40]!r} cannot be: {error}") from error
