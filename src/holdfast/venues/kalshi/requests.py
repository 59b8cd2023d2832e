"""Requests to Kalshi, out of values: bodies, paths and query strings.

Promise: pure functions. What the venue would refuse for its form raises `BadInput` here and is never sent; prices
go out on the YES leg, counts and prices as fixed-point text ("10.00" contracts, "0.5600" dollars).

Limits: whether an order may leave is the gate's to say, not asked here.

Source: research 05, section 1; docs.kalshi.com (OpenAPI 3.26).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

import msgspec

from holdfast.core.errors import BadInput
from holdfast.core.money import ONE_DOLLAR_E4, format_price, format_qty
from holdfast.core.signals import BookSide, Intent, TimeInForce

REST_PREFIX = "/trade-api/v2"
ORDERS_PATH = "portfolio/events/orders"
MAX_PAGE = 1000
"""The most items that one page may be asked for."""

_TIME_IN_FORCE: Mapping[TimeInForce, str] = {
    TimeInForce.GTC: "good_till_canceled",
    TimeInForce.IOC: "immediate_or_cancel",
    TimeInForce.FOK: "fill_or_kill",
}
_NANOS_PER_SEC = 1_000_000_000


class CreateOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The body of POST /portfolio/events/orders."""

    ticker: str
    client_order_id: str
    side: BookSide
    count: str
    price: str
    time_in_force: str
    self_trade_prevention_type: str
    expiration_time: int = 0
    post_only: bool = False
    reduce_only: bool = False


def create_body(intent: Intent) -> bytes:
    """The placement of *intent*, as JSON.

    `expiration_time` (whole seconds, rounded down) goes only with a resting order, `reduce_only` only with an
    immediate one: the venue refuses them elsewhere.

    Raises:
        BadInput: Count not positive or price outside (0, 1): nothing that the gate lets through.
    """
    signal = intent.signal
    if intent.count <= 0 or not 0 < intent.yes_price < ONE_DOLLAR_E4:
        raise BadInput(
            f"order {intent.client_order_id!r} with count {intent.count} (1/100) and YES price"
            f" {intent.yes_price} (1/10,000 dollar) cannot be written for the venue"
        )
    rests = signal.tif is TimeInForce.GTC
    order = CreateOrder(
        ticker=intent.ticker,
        client_order_id=intent.client_order_id,
        side=intent.book_side,
        count=format_qty(intent.count),
        price=format_price(intent.yes_price),
        time_in_force=_TIME_IN_FORCE[signal.tif],
        self_trade_prevention_type="taker_at_cross",
        expiration_time=signal.expiration_ns // _NANOS_PER_SEC if rests else 0,
        post_only=signal.post_only,
        reduce_only=signal.reduce_only and not rests,
    )
    return msgspec.json.encode(order)


def segment(name: str, what: str) -> str:
    """*name* as one segment of a path.

    Raises:
        BadInput: Empty, longer than 200 characters, or one that would climb out of its place.
    """
    if not name or len(name) > 200 or name in {".", ".."}:
        raise BadInput(f"{what} {name[:40]!r} cannot be asked for")
    return quote(name, safe="")


def query(**fields: str | int | None) -> str:
    """The query string of the fields that are not None; "" when none is left."""
    return urlencode({name: value for name, value in fields.items() if value is not None})
