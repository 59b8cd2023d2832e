"""What the venue's evidence makes of one of our orders: a decision table, pure.

    our status x evidence -> the event that happened, or None when the evidence settles nothing

An UNKNOWN order ends by evidence alone: it is found in the venue's books, or its absence is proven beyond a
bound on lateness. Only then is it NEVER_ARRIVED: a resting order cannot arrive after its own expiration, and
nothing can arrive at a market that has settled. An immediate order is never proven absent by time: it stays
UNKNOWN, reserved, alarmed, unless the same bytes may go again (`resend.py`). What was declared gone and turns up
all the same is a ZOMBIE.

The table answers for the status; quantities follow the venue's counts (`released_by`), fills follow fills.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from holdfast.core.clock import NANOS
from holdfast.core.money import QtyE2
from holdfast.core.orders import OrderEvent, OrderStatus
from holdfast.core.signals import TimeInForce
from holdfast.execution.venue import VenueOrder
from holdfast.risk.order import Order

LATENESS_SECS = 60
"""How long after its expiration an order may still turn up in the venue's books."""

ABSENCES_NEEDED = 2
"""How often the venue must be read without finding the order, after the bound, before it never arrived."""


class Evidence(StrEnum):
    """What the venue's books say about an order."""

    LISTED_WORKING = "listed_working"
    LISTED_CLOSED = "listed_closed"
    ABSENT = "absent"
    ABSENT_BEYOND_BOUND = "absent_beyond_bound"
    UNREADABLE = "unreadable"


_S, _V, _E = OrderStatus, Evidence, OrderEvent

RESOLUTIONS: Mapping[tuple[OrderStatus, Evidence], OrderEvent | None] = {
    # PENDING in a running trader means: between the record and the answer. The answer tells, or the books.
    (_S.PENDING, _V.LISTED_WORKING): _E.FOUND,
    (_S.PENDING, _V.LISTED_CLOSED): _E.FOUND,
    (_S.PENDING, _V.ABSENT): None,
    (_S.PENDING, _V.ABSENT_BEYOND_BOUND): None,
    (_S.SENT, _V.LISTED_WORKING): _E.FOUND,
    (_S.SENT, _V.LISTED_CLOSED): _E.FOUND,
    (_S.SENT, _V.ABSENT): None,
    (_S.SENT, _V.ABSENT_BEYOND_BOUND): None,
    (_S.UNKNOWN, _V.LISTED_WORKING): _E.FOUND,
    (_S.UNKNOWN, _V.LISTED_CLOSED): _E.FOUND,
    (_S.UNKNOWN, _V.ABSENT): None,
    (_S.UNKNOWN, _V.ABSENT_BEYOND_BOUND): _E.NEVER_ARRIVED,
    # A working order that the venue no longer lists: it ended, and nobody saw how.
    (_S.WORKING, _V.LISTED_WORKING): _E.FOUND,
    (_S.WORKING, _V.LISTED_CLOSED): _E.FOUND,
    (_S.WORKING, _V.ABSENT): _E.ANSWER_LOST,
    (_S.WORKING, _V.ABSENT_BEYOND_BOUND): _E.ANSWER_LOST,
    # Declared gone, and listed: reserved again, hunted down.
    (_S.NEVER_ARRIVED, _V.LISTED_WORKING): _E.ZOMBIE,
    (_S.NEVER_ARRIVED, _V.LISTED_CLOSED): _E.ZOMBIE,
    (_S.NOT_SENT, _V.LISTED_WORKING): _E.ZOMBIE,
    (_S.NOT_SENT, _V.LISTED_CLOSED): _E.ZOMBIE,
    (_S.REJECTED, _V.LISTED_WORKING): _E.ZOMBIE,
    (_S.REJECTED, _V.LISTED_CLOSED): _E.ZOMBIE,
}


def resolve(status: OrderStatus, evidence: Evidence) -> OrderEvent | None:
    """What happened; None where nothing follows: an ended order stays ended, an unreadable book says nothing."""
    return RESOLUTIONS.get((status, evidence))


def evidence_of(listed: VenueOrder) -> Evidence:
    """What one listed order says; nothing left to execute means closed, whatever the venue's word for it."""
    if listed.leaves > 0 and not listed.status.is_closed:
        return Evidence.LISTED_WORKING
    return Evidence.LISTED_CLOSED


def released_by(order: Order, listed: VenueOrder) -> QtyE2:
    """What of *order* can provably no longer execute: neither filled, by the venue's count, nor open there.

    Never less than was released before, never more than our own fills leave: a fill we have not seen keeps
    its quantity reserved. Of somebody else's order the venue's open quantity alone counts.
    """
    leaves = QtyE2(0) if listed.status.is_closed else listed.leaves
    if order.external:
        return QtyE2(max(order.released, order.quantity - leaves))
    gone = order.quantity - max(listed.filled, order.filled) - leaves
    return QtyE2(max(order.released, min(gone, order.quantity - order.filled)))


def absence(order: Order, *, now_ns: int, is_settled: bool) -> Evidence:
    """What it means at *now_ns* (venue's time, UTC ns) that the venue's books do not list *order*."""
    ends_itself = order.tif is TimeInForce.GTC and order.expiration_ns > 0
    too_late = ends_itself and now_ns > order.expiration_ns + LATENESS_SECS * NANOS
    return Evidence.ABSENT_BEYOND_BOUND if is_settled or too_late else Evidence.ABSENT


def position_differences(
    ours: Mapping[str, QtyE2], theirs: Mapping[str, QtyE2]
) -> list[tuple[str, QtyE2, QtyE2]]:
    """Markets in which the two disagree, by ticker: (ticker, ours, theirs)."""
    nothing = QtyE2(0)
    return [
        (ticker, ours.get(ticker, nothing), theirs.get(ticker, nothing))
        for ticker in sorted(ours.keys() | theirs.keys())
        if ours.get(ticker, nothing) != theirs.get(ticker, nothing)
    ]
