"""The ORDER record: the durable intent, and what was sent read back from it to the byte.

Promise: `read_wish(order_details(intent, order))` has the content that went to the venue, or is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.core.instruments import InstrumentKind
from holdfast.core.money import format_money, format_price, format_qty, parse_price, parse_qty
from holdfast.core.signals import Action, Intent, Side, Signal, TimeInForce, content_digest
from holdfast.risk.gate import fee_bound
from holdfast.risk.order import Order


def order_details(intent: Intent, order: Order) -> dict[str, Any]:
    """The ORDER record: the durable intent; of an event contract it says neither legs nor multiplier."""
    signal = intent.signal
    details: dict[str, Any] = {
        "order_id": order.client_order_id,
        "client_order_id": order.client_order_id,
        "intent": order.key,
        "strategy": signal.strategy,
        "ticker": signal.ticker,
        "event": intent.instrument.event,
        "action": signal.action.value,
        "side": signal.side.value,
        "order_type": "limit",
        "quantity": format_qty(order.quantity),
        "price": format_price(signal.price),
        "book_side": order.side.value,
        "yes_price": format_price(order.yes_price),
        "tif": signal.tif.value,
        "reduce_only": signal.reduce_only,
        "post_only": signal.post_only,
        "expiration_ns": signal.expiration_ns,
        "reserved": format_money(order.reserved),
        "fee_bound": format_money(fee_bound(intent)),
        "decision": order.decision,
        "content": order.content,
        "created_ns": order.created_ns,
    }
    if intent.instrument.kind is not InstrumentKind.BINARY:
        details["multiplier"] = order.multiplier
        details["legs"] = [list(leg) for leg in order.legs]
    if order.plan:
        details["plan"] = order.plan
    return details


def read_wish(details: Mapping[str, Any]) -> Signal | None:
    """What an ORDER record sent, to the byte; None where the record does not give what was wished then."""
    signal = Signal(
        ticker=details["ticker"],
        side=Side(details["side"]),
        action=Action(details["action"]),
        count=parse_qty(details["quantity"]),
        price=parse_price(details["price"]),
        tif=TimeInForce(details["tif"]),
        key=details["intent"],
        strategy=details["strategy"],
        post_only=details["post_only"],
        expiration_ns=details["expiration_ns"] or 0,
        reduce_only=details["reduce_only"],
    )
    # The digest is of the wish as its caller gave it, before a resting order was given an expiration.
    unbounded = msgspec.structs.replace(signal, expiration_ns=0)
    return signal if details["content"] in {content_digest(signal), content_digest(unbounded)} else None
