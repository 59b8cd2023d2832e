"""The life of an order, as a table.

    PENDING ──sent──▶ SENT ──acked──▶ WORKING ──filled──▶ FILLED
       │               │  │              │  ▲    canceled ▶ CANCELED     expired ▶ EXPIRED
       │ not_sent      │  │ answer_lost  │  │ found
       ▼               │  ▼              ▼  │
    NOT_SENT           │ UNKNOWN ◀── answer_lost
                       │  │ never_arrived ▶ NEVER_ARRIVED
                rejected▼  ▼ rejected
                       REJECTED

PENDING means: the intent is durable, no byte has left. A sent order ends only in evidence from the venue.
UNKNOWN keeps its whole reservation and is left only through that evidence. `filled + leaves + released =
quantity` holds in every state: leaves is what may still execute, released is what provably cannot.

A fill is applied in any state, also a closed one (a late fill is booked, never refused): the position
follows what happened, the status follows the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from holdfast.core.errors import IllegalTransition
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.signals import BookSide


class OrderStatus(StrEnum):
    """Where an order stands."""

    PENDING = "pending"
    SENT = "sent"
    WORKING = "working"
    UNKNOWN = "unknown"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    NEVER_ARRIVED = "never_arrived"

    @property
    def is_closed(self) -> bool:
        """Nothing more is expected to execute."""
        return self in CLOSED_STATUSES


class OrderEvent(StrEnum):
    """What can happen to an order."""

    SENT = "sent"
    ACKED = "ack"
    REJECTED = "reject"
    NOT_SENT = "not_sent"
    ANSWER_LOST = "unknown"
    FOUND = "found"
    COMPLETED = "fill"
    CANCELED = "canceled"
    EXPIRED = "expired"
    NEVER_ARRIVED = "never_arrived"
    ZOMBIE = "zombie"
    RESENT = "resent"
    WITHDRAWN = "withdrawn"


_S, _E = OrderStatus, OrderEvent
CLOSED_STATUSES = frozenset({_S.FILLED, _S.CANCELED, _S.EXPIRED, _S.REJECTED, _S.NOT_SENT, _S.NEVER_ARRIVED})

TRANSITIONS: Mapping[tuple[OrderStatus, OrderEvent], OrderStatus] = {
    (_S.PENDING, _E.SENT): _S.SENT,
    (_S.PENDING, _E.NOT_SENT): _S.NOT_SENT,
    # After a crash nobody knows whether a PENDING intent left.
    (_S.PENDING, _E.ANSWER_LOST): _S.UNKNOWN,
    (_S.SENT, _E.ACKED): _S.WORKING,
    (_S.SENT, _E.REJECTED): _S.REJECTED,
    (_S.SENT, _E.NOT_SENT): _S.NOT_SENT,
    (_S.SENT, _E.ANSWER_LOST): _S.UNKNOWN,
    # The stream may tell before the answer does.
    (_S.SENT, _E.FOUND): _S.WORKING,
    (_S.SENT, _E.COMPLETED): _S.FILLED,
    (_S.SENT, _E.CANCELED): _S.CANCELED,
    (_S.SENT, _E.EXPIRED): _S.EXPIRED,
    (_S.UNKNOWN, _E.ACKED): _S.WORKING,
    (_S.UNKNOWN, _E.FOUND): _S.WORKING,
    (_S.UNKNOWN, _E.REJECTED): _S.REJECTED,
    (_S.UNKNOWN, _E.COMPLETED): _S.FILLED,
    (_S.UNKNOWN, _E.CANCELED): _S.CANCELED,
    (_S.UNKNOWN, _E.EXPIRED): _S.EXPIRED,
    (_S.UNKNOWN, _E.NEVER_ARRIVED): _S.NEVER_ARRIVED,
    (_S.UNKNOWN, _E.ANSWER_LOST): _S.UNKNOWN,
    # The same bytes are about to go again, or nobody wants them any more: neither says what became of the first ones.
    (_S.UNKNOWN, _E.RESENT): _S.UNKNOWN,
    (_S.UNKNOWN, _E.WITHDRAWN): _S.UNKNOWN,
    (_S.PENDING, _E.WITHDRAWN): _S.PENDING,
    (_S.WORKING, _E.ACKED): _S.WORKING,
    (_S.WORKING, _E.FOUND): _S.WORKING,
    (_S.WORKING, _E.COMPLETED): _S.FILLED,
    (_S.WORKING, _E.CANCELED): _S.CANCELED,
    (_S.WORKING, _E.EXPIRED): _S.EXPIRED,
    # A cancel or a stream cut whose outcome nobody saw: it may still be working.
    (_S.WORKING, _E.ANSWER_LOST): _S.UNKNOWN,
    # Declared gone, yet seen in the venue's books: reserved again and hunted down.
    (_S.NEVER_ARRIVED, _E.ZOMBIE): _S.WORKING,
    (_S.NOT_SENT, _E.ZOMBIE): _S.WORKING,
    (_S.REJECTED, _E.ZOMBIE): _S.WORKING,
}


def next_status(status: OrderStatus, event: OrderEvent) -> OrderStatus:
    """The status after *event*.

    Raises:
        IllegalTransition: The table does not know the pair.
    """
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise IllegalTransition(f"order cannot take event {event.value!r} while {status.value!r}") from None


CORRECTED = "/corrected/"
"""Stands in the trade ids of a fill that takes an earlier one's place and of the one that undoes that, after its id."""


class FillCause(StrEnum):
    """Why a position moved: a trade, or the end of an option contract."""

    TRADE = "trade"
    EXERCISE = "exercise"
    ASSIGNMENT = "assignment"
    EXPIRATION = "expiration"


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of part of an order.

    An execution of a combination is one fill per leg: the leg's ticker, the combination's order id, a trade id of
    its own. What exercise, assignment and expiry do are fills that no order caused: one closes the option, at zero
    or at its intrinsic value where it settles in cash, and one moves the underlying at the strike.

    Attributes:
        trade_id: The venue's id, the identity of the fill: each moves the position once.
        order_id: The venue's order id.
        client_order_id: Ours where known, else "".
        ticker: The market.
        side: Side of the YES book that was ours.
        price: YES price.
        qty: Contracts, in 1/100, positive.
        fee: Net fee, may be negative for a rebate.
        is_taker: Whether we took.
        ts_ns: The venue's time, UTC ns.
        multiplier: Units of the underlying per contract.
        cause: What made it.
        revision: Which telling of this execution it is, from 1: a later one replaces the earlier. 0 where the venue
            corrects none.
    """

    trade_id: str
    order_id: str
    ticker: str
    side: BookSide
    price: PriceE4
    qty: QtyE2
    fee: MoneyE6
    is_taker: bool
    ts_ns: int
    client_order_id: str = ""
    multiplier: int = 1
    cause: FillCause = FillCause.TRADE
    revision: int = 0

    @property
    def delta(self) -> QtyE2:
        """What it adds to the signed YES position."""
        return QtyE2(self.side.sign * self.qty)

    @property
    def cash(self) -> MoneyE6:
        """What it adds to cash: a bid pays the price, an ask earns it, both pay the fee."""
        return MoneyE6(-self.side.sign * self.price * self.qty * self.multiplier - self.fee)
