"""The TRADE record: a fill as the journal holds it, there and back.

Limits: what it says is what the venue told; of an event contract it leaves out what is the same of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.core.money import format_money, format_price, format_qty, parse_money, parse_price, parse_qty
from holdfast.core.orders import Fill, FillCause
from holdfast.core.signals import BookSide


def read_trade(details: Mapping[str, Any]) -> Fill:
    """The fill that a TRADE record holds."""
    return Fill(
        trade_id=details["trade_id"],
        order_id=details["order_id"],
        client_order_id=details.get("client_order_id", ""),
        ticker=details["ticker"],
        side=BookSide(details["side"]),
        price=parse_price(details["price"]),
        qty=parse_qty(details["quantity"]),
        fee=parse_money(details["fee"]),
        is_taker=details["is_taker"],
        ts_ns=details.get("filled_ns", 0),
        multiplier=details.get("multiplier", 1),
        cause=FillCause(details.get("cause", FillCause.TRADE)),
        revision=details.get("revision", 0),
    )


def trade_details(fill: Fill, *, client_order_id: str, external: bool) -> dict[str, Any]:
    """The TRADE record of a fill; of an event contract it says neither multiplier nor cause nor revision."""
    details: dict[str, Any] = {
        "trade_id": fill.trade_id,
        "order_id": fill.order_id,
        "client_order_id": client_order_id,
        "ticker": fill.ticker,
        "market": fill.ticker,
        "side": fill.side.value,
        "quantity": format_qty(fill.qty),
        "price": format_price(fill.price),
        "fee": format_money(fill.fee),
        "is_taker": fill.is_taker,
        "external": external,
        "filled_ns": fill.ts_ns,
    }
    if fill.multiplier != 1:
        details["multiplier"] = fill.multiplier
    if fill.cause is not FillCause.TRADE:
        details["cause"] = fill.cause.value
    if fill.revision:
        details["revision"] = fill.revision
    return details
