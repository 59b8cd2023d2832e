"""A legged order's plan: everything between its first leg and flat, reserved as one before the first leg leaves.

    gate.plan ─▶ RESERVED ─leg by leg─▶ complete ─▶ given back
                    └─unwinding─▶ legs leave again ─▶ flat ─▶ given back

Legs come in one by one, in order, and go out again the other way round. Between nothing and everything the account
can therefore stand only where some first legs are there whole, one perhaps in part, and the others not: `ways` lists
these states as what would still change, and whoever judges another order takes the worst of them, at every spot.
Nobody else's order can lean on a leg that may leave again, nor take the room of one that is still to come.

An order of the plan takes its share out of it: `rest` and `set_aside` are counted from the orders themselves, open
and ended, so nothing is counted twice and nothing is forgotten.

Limits: pure counting. An exit pays for a short leg what the plan took for it; a price that ran away is paid all the
same, as any exit's is. Legs that something else closed are counted as held until the plan is given back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from holdfast.core.errors import IllegalTransition
from holdfast.core.money import (
    MoneyE6,
    PriceE4,
    QtyE2,
    format_money,
    format_price,
    format_qty,
    parse_money,
    parse_price,
    parse_qty,
)
from holdfast.core.signals import BookSide

RESERVED, UNWINDING, GIVEN_BACK = "reserved", "unwinding", "given_back"
"""What a PLAN record tells."""


class PlannedOrder(Protocol):
    """The part of an order that a plan counts."""

    client_order_id: str
    ticker: str
    side: BookSide
    quantity: QtyE2
    filled: QtyE2
    released: QtyE2
    reserved: MoneyE6

    @property
    def leaves(self) -> QtyE2:
        """What may still execute."""
        ...

    @property
    def worst_case(self) -> MoneyE6:
        """What the open part sets aside."""
        ...


class PlanLeg(msgspec.Struct, frozen=True):
    """One leg on the way in.

    Attributes:
        ticker: The contract.
        qty: Wanted, signed, 1/100.
        limit: The worst price at which it may go in.
        multiplier: Units of the underlying per contract.
        fee: The most per contract and side.
    """

    ticker: str
    qty: int
    limit: PriceE4
    multiplier: int
    fee: MoneyE6

    @property
    def sign(self) -> int:
        """+1 for a long leg."""
        return 1 if self.qty > 0 else -1

    def value(self, qty: int) -> int:
        """*qty* at the limit, 1e-6 dollar."""
        return qty * self.limit * self.multiplier

    def fees(self, qty: int) -> int:
        """What *qty* (unsigned) pays at most on one way."""
        return -(-qty * self.fee // 100)


class Count(NamedTuple):
    """How far a leg is, unsigned, 1/100: filled and open on the way in, filled and open on the way out."""

    entered: int = 0
    entering: int = 0
    left: int = 0
    leaving: int = 0

    @property
    def held(self) -> int:
        """What the plan's own orders left in the account."""
        return self.entered - self.left


class Change(NamedTuple):
    """What would have to happen to stand at one of a plan's states: signed quantity of each leg, and its cash."""

    legs: tuple[tuple[str, int], ...]
    cash: int


class Plan:
    """One reserved plan.

    Attributes:
        name: Of the plan.
        legs: In the order in which they go in.
        reserved: The worst loss on the way, and the fees of the way in and of the way out.
        is_unwinding: No leg goes in any more.
        orders: Its own, in and out, oldest first.
    """

    def __init__(self, name: str, legs: Sequence[PlanLeg], reserved: MoneyE6) -> None:
        self.name = name
        self.legs = tuple(legs)
        self.reserved = reserved
        self.is_unwinding = False
        self.orders: list[PlannedOrder] = []

    # How far it is ------------------------------------------------------------------------------------

    def counts(self) -> tuple[Count, ...]:
        """Of each leg, from the plan's orders."""
        return tuple(self._count(leg) for leg in self.legs)

    def _count(self, leg: PlanLeg) -> Count:
        entered = entering = left = leaving = 0
        for order in self.orders:
            if order.ticker != leg.ticker:
                continue
            if order.side.sign == leg.sign:
                entered, entering = entered + order.filled, entering + order.leaves
            else:
                left, leaving = left + order.filled, leaving + order.leaves
        return Count(entered, entering, left, leaving)

    @property
    def is_begun(self) -> bool:
        """Whether any order of it may have filled."""
        return any(order.filled or order.leaves for order in self.orders)

    def rest(self) -> Iterator[tuple[str, int]]:
        """What no order asks for yet of each leg, signed, 1/100."""
        if not self.is_unwinding:
            for leg, count in zip(self.legs, self.counts(), strict=True):
                yield leg.ticker, leg.sign * max(0, abs(leg.qty) - count.entered - count.entering)

    def holds(self, ticker: str, side: BookSide, qty: int, price: PriceE4) -> bool:
        """Whether this order is a step of the plan: its next leg within its limit, or a way out of a leg held."""
        counts = self.counts()
        if any(count.leaving for count in counts):
            return False
        if self.is_way_out(ticker, side):
            return self._may_leave(ticker, qty, counts)
        if any(count.entering for count in counts):
            return False
        for leg, count in zip(self.legs, counts, strict=True):
            lacks = abs(leg.qty) - count.entered
            if leg.ticker == ticker:
                return not self.is_unwinding and qty <= lacks and leg.sign * (price - leg.limit) <= 0
            if lacks > 0:
                return False  # an earlier leg is not there yet
        return False

    def _may_leave(self, ticker: str, qty: int, counts: Sequence[Count]) -> bool:
        """Whether this leg's turn has come: a long one waits until no short one is there, or may yet be."""
        is_short = any(
            leg.sign < 0 and count.held + count.entering for leg, count in zip(self.legs, counts, strict=True)
        )
        return any(
            leg.ticker == ticker and qty <= count.held and (leg.sign < 0 or not is_short)
            for leg, count in zip(self.legs, counts, strict=True)
        )

    def is_way_out(self, ticker: str, side: BookSide) -> bool:
        """Whether an order of *ticker* on *side* takes a leg out again."""
        return dict(self.signs()).get(ticker) == -side.sign

    def signs(self) -> Iterator[tuple[str, int]]:
        """Which way each leg goes in."""
        return ((leg.ticker, leg.sign) for leg in self.legs)

    # What is set aside for it -------------------------------------------------------------------------

    @property
    def set_aside(self) -> MoneyE6:
        """Dollars beside what its orders hold or have used; on the way out, what that still costs."""
        due = sum(
            leg.fees(count.held + count.entering)
            + (0 if leg.sign > 0 else abs(leg.value(count.held + count.entering)))
            for leg, count in zip(self.legs, self.counts(), strict=True)
        )
        signs = dict(self.signs())
        if self.is_unwinding:
            out = sum(order.worst_case for order in self.orders if order.side.sign != signs[order.ticker])
            return MoneyE6(max(0, due - out))
        used = sum(
            order.reserved * (order.quantity - order.released) // order.quantity
            for order in self.orders
            if order.side.sign == signs[order.ticker]
        )
        return MoneyE6(max(due, self.reserved - used))

    def ways(self) -> list[Change]:
        """Everything that its orders and its legs to come may still change, each way in and each way out."""
        return self._changes(only_in=False)

    def ways_in(self) -> list[Change]:
        """Those that only bring more legs in: what must not be stripped of its cover."""
        return self._changes(only_in=True)

    def _changes(self, *, only_in: bool) -> list[Change]:
        counts = self.counts()
        found: list[Change] = []
        for there in range(len(self.legs) + 1):
            moves: list[tuple[str, int]] = []
            cash = 0
            goes_in = True
            for place, (leg, count) in enumerate(zip(self.legs, counts, strict=True)):
                most = count.held + count.entering
                if not self.is_unwinding:
                    most = max(abs(leg.qty), most)
                move = leg.sign * ((most if place < there else 0) - count.held)
                goes_in = goes_in and leg.sign * move >= 0
                if move:
                    moves.append((leg.ticker, move))
                    # A long leg may bring nothing when it leaves.
                    cash -= leg.value(move) if move > 0 or leg.sign < 0 else 0
            if moves and (goes_in or not only_in):
                found.append(Change(tuple(moves), cash))
        return found

    # As a record holds it -----------------------------------------------------------------------------

    def details(self, event: str = RESERVED, reason: str = "") -> dict[str, Any]:
        """The PLAN record; only the first of a plan says what is in it."""
        told: dict[str, Any] = {"plan": self.name, "event": event, "reason": reason}
        if event == RESERVED:
            told["legs"] = [
                [leg.ticker, format_qty(QtyE2(leg.qty)), format_price(leg.limit), leg.multiplier, leg.fee]
                for leg in self.legs
            ]
            told["reserved"] = format_money(self.reserved)
        return told

    @classmethod
    def from_details(cls, details: Mapping[str, Any]) -> Plan:
        """The plan of a record."""
        legs = [
            PlanLeg(ticker, parse_qty(qty), parse_price(limit), multiplier, MoneyE6(fee))
            for ticker, qty, limit, multiplier, fee in details["legs"]
        ]
        return cls(details["plan"], legs, parse_money(details["reserved"]))

    def snapshot(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            **self.details(),
            "is_unwinding": self.is_unwinding,
            "orders": [order.client_order_id for order in self.orders],
        }


class Plans:
    """All plans of an account, folded from PLAN records."""

    def __init__(self) -> None:
        self.live: dict[str, Plan] = {}

    def add(self, plan: Plan) -> None:
        """Reserve a plan.

        Raises:
            IllegalTransition: One of this name is reserved.
        """
        if plan.name in self.live:
            raise IllegalTransition(f"plan {plan.name!r} is already reserved")
        self.live[plan.name] = plan

    def apply(self, details: Mapping[str, Any]) -> None:
        """Take over one PLAN record.

        Raises:
            IllegalTransition: It concerns a plan that nobody reserved, or tells what nobody knows.
        """
        name, event = details["plan"], details["event"]
        if event == RESERVED:
            if name not in self.live:  # reserved by the gate a moment ago
                self.add(Plan.from_details(details))
            return
        if name not in self.live or event not in {UNWINDING, GIVEN_BACK}:
            raise IllegalTransition(f"record of event {event!r} for plan {name!r}, which is not reserved")
        if event == UNWINDING:
            self.live[name].is_unwinding = True
        else:
            del self.live[name]

    def planned(self, ticker: str, *, but: str = "") -> tuple[int, int]:
        """What the plans will still buy and sell of *ticker*, 1/100; the plan *but* left out."""
        buys = sells = 0
        for plan in self.live.values():
            if plan.name != but:
                for leg, qty in plan.rest():
                    if leg == ticker:
                        buys, sells = buys + max(0, qty), sells + max(0, -qty)
        return buys, sells

    def set_aside(self, *, but: str = "") -> int:
        """Dollars set aside for all of them, the plan *but* left out."""
        return sum(plan.set_aside for plan in self.live.values() if plan.name != but)

    def others(self, but: str) -> list[Plan]:
        """All but one."""
        return [plan for plan in self.live.values() if plan.name != but]

    def subsumes(self, order: str, *, but: str) -> bool:
        """Whether a plan other than *but* counts this order of it among its own ways."""
        return order != but and order in self.live
