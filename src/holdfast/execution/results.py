"""What a caller is told of a signal that was routed: a status, a code, and the venue's answer in plain words.

Limits: values only; `fill_count` is the venue's word until the fills themselves come, `booked` is what came.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from holdfast.core.money import QtyE2, format_qty
from holdfast.core.orders import OrderStatus
from holdfast.core.reasons import RejectReason
from holdfast.risk.order import Order


class RouteStatus(StrEnum):
    """How routing one signal went."""

    SUBMITTED = "submitted"
    DENIED = "denied"
    REJECTED = "rejected"
    BREAKER_OPEN = "breaker_open"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"


_STATUSES = {
    OrderStatus.REJECTED: RouteStatus.REJECTED,
    OrderStatus.NOT_SENT: RouteStatus.NOT_SENT,
    OrderStatus.NEVER_ARRIVED: RouteStatus.NOT_SENT,
    OrderStatus.UNKNOWN: RouteStatus.UNKNOWN,
    OrderStatus.PENDING: RouteStatus.UNKNOWN,
    OrderStatus.SENT: RouteStatus.UNKNOWN,
}


class RouteResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one signal.

    Attributes:
        status: What happened.
        reason: Code of the refusal, of the venue's rejection, or why it was not sent; "" when submitted.
        client_order_id: The order's name, also of one that never became an order.
        response: What the venue answered, decimal strings; None where it did not.
        refusal: Our own refusal with its facts; None where the venue or nobody refused, or at a repetition.
        repeated: The intent was decided before; this is the recorded outcome.
    """

    status: RouteStatus
    client_order_id: str
    reason: str = ""
    response: dict[str, Any] | None = None
    refusal: RejectReason | None = None
    repeated: bool = False


def result_of(order: Order, *, claimed: QtyE2, repeated: bool = False) -> RouteResult:
    """What the caller is told of an order as it stands.

    Args:
        order: Of ours.
        claimed: What the venue says it filled, fills that have not come yet included.
        repeated: The intent was decided before.
    """
    status = _STATUSES.get(order.status, RouteStatus.SUBMITTED)
    claimed = max(order.filled, claimed)
    response = {
        "order_id": order.order_id,
        "client_order_id": order.client_order_id,
        "status": outcome_of(order),
        "fill_count": format_qty(QtyE2(claimed)),
        "remaining_count": format_qty(QtyE2(order.leaves - (claimed - order.filled))),
        "booked": format_qty(order.filled),
    }
    return RouteResult(
        status=status,
        client_order_id=order.client_order_id,
        reason="" if status is RouteStatus.SUBMITTED else order.reason,
        response=response if status is RouteStatus.SUBMITTED else None,
        repeated=repeated,
    )


def outcome_of(order: Order) -> str:
    """One word: filled, partial, working, canceled, rejected, not_sent or unknown."""
    match order.status:
        case OrderStatus.FILLED:
            return "filled"
        case OrderStatus.CANCELED | OrderStatus.EXPIRED:
            return "partial" if order.filled else "canceled"
        case OrderStatus.REJECTED:
            return "rejected"
        case OrderStatus.NOT_SENT | OrderStatus.NEVER_ARRIVED:
            return "not_sent"
        case OrderStatus.WORKING:
            return "working"
        case _:
            return "unknown"


def line_of(result: RouteResult, order: Order | None, *, key: str) -> dict[str, str]:
    """The final outcome of a signal as one flat line.

    Args:
        result: How routing it went.
        order: Of that name as it stands now; None where there is none.
        key: The caller's own name for the wish, "" where it gave none.
    """
    if result.status in {RouteStatus.DENIED, RouteStatus.BREAKER_OPEN}:
        order = None  # in a conflict an order of this name exists: what it did is not this signal's outcome
    if order is None:
        outcome, reason = "denied", result.reason
    else:
        outcome, reason = outcome_of(order), order.reason if not order.filled else ""
    return {
        "intent": key or (order.key if order else ""),
        "client_order_id": result.client_order_id,
        "outcome": outcome,
        "reason": reason,
        "order_id": order.order_id if order else "",
        "filled": format_qty(order.filled) if order else "0.00",
    }
