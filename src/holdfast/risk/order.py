"""One order of the account: what it asks for, how far it got, and what of it may still execute.

    order        filled + leaves + released = quantity (an overfill is kept apart, booked and alarmed)
    leg          the same of every leg of a combination, filled + leaves + released = ratio x quantity

A combination executes as fills of its legs, each for itself: its own `filled` is the whole units that all legs
cover, and what a leg has filled beyond that moves the position and no longer works.

Limits: an order counts what it is given. Whose a fill is, and whether it counts already, the account knows; which event
may follow which status, the table of core/orders.py.
"""

from __future__ import annotations

import msgspec

from holdfast.core.money import ONE_CONTRACT_E2, MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import Fill, FillCause, OrderEvent, OrderStatus, next_status
from holdfast.core.signals import BookSide, TimeInForce

_NOTHING = QtyE2(0)
_FREE = MoneyE6(0)
_BID = BookSide.BID
_SENT_EVENTS = frozenset(OrderEvent) - {
    OrderEvent.SENT,
    OrderEvent.NOT_SENT,
    OrderEvent.ANSWER_LOST,
    OrderEvent.WITHDRAWN,  # our own wish: it proves nothing
}


class Order(msgspec.Struct, kw_only=True, gc=False):
    """One order of the account and how far it got.

    Attributes:
        client_order_id: Its name; an adopted order of somebody else is kept under the venue's id.
        side: Of the YES book; `yes_price` is its limit there.
        reserved: Dollars set aside at admission for its worst case, fees included.
        content: Digest of what was wished, `core.signals.content_digest`.
        decision: Number of the decision that admitted it.
        order_id: The venue's id once known.
        filled: Executed, by fills seen.
        released: What provably cannot execute any more.
        overfilled: Executed beyond the quantity; must be zero, is alarmed.
        external: Not ours: adopted from the venue's books.
        legs: Of a combination: (ticker, signed ratio), by ticker; empty otherwise.
        multiplier: Units of the underlying per contract.
        leg_filled: Executed per leg, in the order of `legs`, by fills seen.
        plan: Of which plan it is a step; "" of none.
        resent: How often its bytes were about to go again after its answer was lost.
        withdrawn: It was to be canceled before the venue's books showed it: it is, once they do, and never goes again.
    """

    client_order_id: str
    ticker: str
    side: BookSide
    quantity: QtyE2
    yes_price: PriceE4
    key: str = ""
    strategy: str = ""
    content: str = ""
    tif: TimeInForce = TimeInForce.IOC
    expiration_ns: int = 0
    reserved: MoneyE6 = _FREE
    created_ns: int = 0
    decision: int = 0
    order_id: str = ""
    status: OrderStatus = OrderStatus.PENDING
    filled: QtyE2 = _NOTHING
    released: QtyE2 = _NOTHING
    overfilled: QtyE2 = _NOTHING
    reason: str = ""
    external: bool = False
    legs: tuple[tuple[str, int], ...] = ()
    multiplier: int = 1
    leg_filled: tuple[int, ...] = ()
    plan: str = ""
    resent: int = 0
    withdrawn: bool = False

    @property
    def leaves(self) -> QtyE2:
        """What may still execute, 1/100 contract."""
        return QtyE2(self.quantity - self.filled - self.released)

    @property
    def is_open(self) -> bool:
        """Not known to have ended."""
        return not self.status.is_closed

    @property
    def working(self) -> tuple[tuple[str, int], ...]:
        """What may still execute: (ticker, signed quantity) of each leg, or of the order's own market."""
        if not self.legs:
            return ((self.ticker, self.side.sign * self.leaves),)
        return tuple(
            (ticker, (1 if self.buys_leg(ratio) else -1) * self.leg_leaves(index))
            for index, (ticker, ratio) in enumerate(self.legs)
        )

    @property
    def is_even(self) -> bool:
        """Whether every leg has filled as much as the others: always true of a single contract."""
        return all(
            done == abs(ratio) * self.filled
            for (_, ratio), done in zip(self.legs, self.leg_filled, strict=True)
        )

    def buys_leg(self, ratio: int) -> bool:
        """Whether a leg of *ratio* is bought."""
        return (self.side is _BID) is (ratio > 0)

    def leg_leaves(self, index: int) -> int:
        """What of a leg may still execute, 1/100 contract."""
        return max(0, abs(self.legs[index][1]) * (self.quantity - self.released) - self.leg_filled[index])

    def leg_released(self, index: int) -> int:
        """What of a leg provably cannot execute any more, 1/100 contract."""
        whole = abs(self.legs[index][1]) * self.quantity
        return whole - self.leg_filled[index] - self.leg_leaves(index)

    def can_own(self, fill: Fill) -> bool:
        """Whether *fill* can be of this order: the same market or leg and side, and no other order of the venue's."""
        if self.order_id not in {"", fill.order_id} or fill.cause is not FillCause.TRADE:
            return False
        if not self.legs:
            return fill.ticker == self.ticker and fill.side is self.side
        ratio = dict(self.legs).get(fill.ticker)
        return ratio is not None and (fill.side is _BID) is self.buys_leg(ratio)

    def take(self, fill: Fill) -> None:
        """Count *fill*, which this order owns; what exceeds the quantity is kept apart."""
        if self.legs:
            counted = self._take_leg(fill)
        else:
            counted = min(fill.qty, self.quantity - self.filled)
            self.filled = QtyE2(self.filled + counted)
        self.overfilled = QtyE2(self.overfilled + fill.qty - counted)
        # A fill of what was believed released is booked: the position follows what happened.
        self.released = QtyE2(min(self.released, self.quantity - self.filled))

    def _take_leg(self, fill: Fill) -> int:
        index = [ticker for ticker, _ in self.legs].index(fill.ticker)
        done = list(self.leg_filled)
        counted = min(fill.qty, abs(self.legs[index][1]) * self.quantity - done[index])
        done[index] += counted
        self.leg_filled = tuple(done)
        covered = min(one // abs(ratio) for one, (_, ratio) in zip(done, self.legs, strict=True))
        self.filled = QtyE2(covered - covered % ONE_CONTRACT_E2)
        return counted

    @property
    def worst_case(self) -> MoneyE6:
        """What the open part still sets aside: its share of `reserved`, rounded up."""
        return MoneyE6(-(-self.reserved * self.leaves // self.quantity)) if self.quantity else _FREE


def status_after(status: OrderStatus, event: OrderEvent) -> OrderStatus:
    """The table, with the step from PENDING to SENT taken as read: an answer proves that it was sent."""
    if status is OrderStatus.PENDING and event in _SENT_EVENTS:
        status = OrderStatus.SENT
    return next_status(status, event)
