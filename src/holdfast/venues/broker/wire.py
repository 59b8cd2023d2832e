"""The broker's own wire, version 1: JSON frames over one WebSocket, in words of its own.

The client names its token in the header `Authorization: Bearer …` and is told `hello`. It asks, numbered by itself:

    {"id": 7, "op": "place", "p": {…}}        ->   {"t": "ok", "id": 7, "r": …}
                                               or   {"t": "no", "id": 7, "status": 400, "code": "…", "message": "…"}

| op | p | r |
| --- | --- | --- |
| `status` | - | `{"ts_ns", "market"}` |
| `place` | client_order_id ticker side price_e4 qty_e2 tif post_only expiration_ns | order |
| `cancel` | order_id | `{"released_e2"}` |
| `order`, `find` | order_id; client_order_id | order or null |
| `open_orders` | - | orders |
| `executions` | since_ns | executions, oldest first |
| `account` | - | `{"cash_e6", "buying_power_e6", "positions": {ticker: qty_e2}}` |
| `instrument`, `chain` | ticker; underlying | one listing; every listing of an underlying that still trades |
| `quotes` | tickers | `[[ticker, bid_e4, bid_e2, ask_e4, ask_e2, greeks, ts_ns], …]` |
| `follow` | tickers, clock | null, after the present quotes as an event |
| `quiescent` | n | no answer |

Unasked it is told `quotes` (a minute closed), `order`, `execution`, `ended` and, with `clock`, `tick`: market time
waits for `quiescent`. Prices are integers in 1/10,000 dollar, quantities in 1/100 contract, money in 1/1,000,000
dollar, an absent side is null, greeks are `[delta, gamma, vega, theta, iv]` in 1/1,000,000 or null.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.signals import BookSide, TimeInForce
from holdfast.venues.broker.feed import Listing, Quote, Spot
from holdfast.venues.broker.orders import Execution, OrderRequest, OrderShown

VERSION: Final = 1
PATH: Final = "/broker/v1"


class Request(msgspec.Struct):
    """One frame of a client."""

    id: int
    op: str
    p: msgspec.Raw = msgspec.Raw(b"{}")


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What the parameters of any request but `place` may be."""

    order_id: str = ""
    client_order_id: str = ""
    ticker: str = ""
    underlying: str = ""
    tickers: list[str] = []
    since_ns: int = 0
    clock: bool = False
    n: int = 0


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of `place`."""

    client_order_id: str
    ticker: str
    side: BookSide
    price_e4: int
    qty_e2: int
    tif: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    expiration_ns: int = 0


_REQUEST = msgspec.json.Decoder(Request)
_ASKED = msgspec.json.Decoder(Asked)
_WANTED = msgspec.json.Decoder(Wanted)
encode = msgspec.json.Encoder().encode


def read_request(frame: str | bytes) -> Request:
    """One request.

    Raises:
        BadInput: The frame cannot be read.
    """
    try:
        return _REQUEST.decode(frame)
    except msgspec.MsgspecError as error:
        raise BadInput(f"frame cannot be read: {error}") from None


def read_asked(request: Request) -> Asked:
    """Its parameters.

    Raises:
        BadInput: They cannot be read.
    """
    try:
        return _ASKED.decode(request.p)
    except msgspec.MsgspecError as error:
        raise BadInput(f"parameters of {request.op[:20]!r} cannot be read: {error}") from None


def read_order(request: Request) -> OrderRequest:
    """The order it asks for.

    Raises:
        BadInput: It cannot be read, or has no name.
    """
    try:
        wanted = _WANTED.decode(request.p)
    except msgspec.MsgspecError as error:
        raise BadInput(f"order cannot be read: {error}") from None
    if not 0 < len(wanted.client_order_id) <= 64:
        raise BadInput("client_order_id is empty or longer than 64 characters")
    return OrderRequest(
        client_order_id=wanted.client_order_id,
        ticker=wanted.ticker,
        side=wanted.side,
        price=PriceE4(wanted.price_e4),
        qty=QtyE2(wanted.qty_e2),
        tif=wanted.tif,
        post_only=wanted.post_only,
        expiration_ns=wanted.expiration_ns,
    )


def hello(ts_ns: int, market: str) -> bytes:
    """The first frame."""
    return encode({"t": "hello", "v": VERSION, "ts_ns": ts_ns, "market": market})


def ok(request_id: int, result: Any) -> bytes:
    """An answer."""
    return encode({"t": "ok", "id": request_id, "r": result})


def no(request_id: int, status: int, code: str, message: str = "") -> bytes:
    """A refusal."""
    return encode({"t": "no", "id": request_id, "status": status, "code": code, "message": message})


def tick(n: int, ts_ns: int, *, is_final: bool) -> bytes:
    """Market time."""
    return encode({"t": "tick", "n": n, "ts_ns": ts_ns, "final": is_final})


def quotes(ts_ns: int, told: Iterable[Quote], spots: Iterable[Spot]) -> bytes:
    """What a minute showed."""
    return encode(
        {
            "t": "quotes",
            "ts_ns": ts_ns,
            "q": [quote_row(quote) for quote in told],
            "u": [(spot.symbol, spot.price, spot.source) for spot in spots],
        }
    )


def quote_row(quote: Quote) -> tuple[Any, ...]:
    """One quote."""
    return (
        quote.ticker,
        quote.bid or None,
        quote.bid_size if quote.bid else None,
        quote.ask or None,
        quote.ask_size if quote.ask else None,
        quote.greeks,
    )


def order(shown: OrderShown) -> dict[str, Any]:
    """One order."""
    return {
        "order_id": shown.order_id,
        "client_order_id": shown.client_order_id,
        "ticker": shown.ticker,
        "side": shown.side,
        "price_e4": shown.price,
        "qty_e2": shown.qty,
        "filled_e2": shown.filled,
        "leaves_e2": shown.leaves,
        "state": shown.state,
        "reason": shown.reason,
        "multiplier": shown.multiplier,
        "created_ns": shown.created_ns,
    }


def execution(one: Execution) -> dict[str, Any]:
    """One execution."""
    return {
        "exec_id": one.exec_id,
        "order_id": one.order_id,
        "client_order_id": one.client_order_id,
        "ticker": one.ticker,
        "side": one.side,
        "price_e4": one.price,
        "qty_e2": one.qty,
        "fee_e6": one.fee,
        "multiplier": one.multiplier,
        "is_taker": one.is_taker,
        "cause": one.cause,
        "ts_ns": one.ts_ns,
    }


def event(kind: str, told: dict[str, Any]) -> bytes:
    """An `order` or `execution` event."""
    return encode({"t": kind, "msg": told})


def ended(ticker: str, status: str, ts_ns: int) -> bytes:
    """A contract's trading is over."""
    return encode({"t": "ended", "ticker": ticker, "status": status, "ts_ns": ts_ns})


def listing(one: Listing, status: str) -> dict[str, Any]:
    """One contract's rules."""
    said: dict[str, Any] = {
        "ticker": one.ticker,
        "kind": one.kind,
        "multiplier": one.multiplier,
        "tick_e4": one.tick,
        "fee_e6": one.fee,
        "status": status or "active",
    }
    if one.terms is not None:
        said["terms"] = one.terms
    return said
