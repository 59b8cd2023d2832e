"""How an order of the engine went, as a value: filled, refused, unknown, and everything between."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from holdfast.core.money import QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.reasons import RejectReason
from holdfast.risk.order import Order


class Outcome(StrEnum):
    """How an order of the engine went."""

    FILLED = "filled"
    PARTIAL = "partial"
    WORKING = "working"
    CANCELED = "canceled"
    DENIED = "denied"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
    BREAKER_OPEN = "breaker_open"
    WAITING = "waiting"


class EngineResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one step.

    Attributes:
        outcome: WORKING is acknowledged with fills to come; WAITING is an exit that nothing can be sent for now.
        execution_id: Of which execution.
        client_order_id: Of the order, "" where there is none.
        reason: Why not, a code or the venue's word.
        refusal: Our own refusal with its facts.
        filled: Booked so far, 1/100 unit.
    """

    outcome: Outcome
    execution_id: str
    client_order_id: str = ""
    reason: str = ""
    refusal: RejectReason | None = None
    filled: QtyE2 = QtyE2(0)


def outcome_of(order: Order) -> Outcome:
    """How *order* stands; an open one with fills to come is WORKING."""
    match order.status:
        case OrderStatus.FILLED:
            return Outcome.FILLED
        case OrderStatus.CANCELED | OrderStatus.EXPIRED:
            return Outcome.PARTIAL if order.filled else Outcome.CANCELED
        case OrderStatus.REJECTED:
            return Outcome.REJECTED
        case OrderStatus.NOT_SENT | OrderStatus.NEVER_ARRIVED:
            return Outcome.NOT_SENT
        case OrderStatus.WORKING:
            return Outcome.WORKING
        case _:
            return Outcome.UNKNOWN
