"""Orders whose answer is lost, and fills that were claimed and not told: looked for until the venue's books say.

    look_up(order)     one order, found in the books or proven absent beyond the bound on lateness
    search()           every UNKNOWN order, at growing intervals; alarmed once when it stays UNKNOWN
    collect()          the fills that an answer or a listed order claimed; alarmed once when they do not come

An order is never ended here without evidence: what is not found stays UNKNOWN with its whole reservation, and what was
claimed keeps its quantity reserved. The decisions are those of execution/reconcile.py.

Limits: the venue's books are believed; how late they may be is LATENESS_SECS.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import CircuitBreakerOpenError, VenueError
from holdfast.core.money import format_qty
from holdfast.core.orders import OrderEvent, OrderStatus
from holdfast.execution.ledger import Ledger
from holdfast.execution.reconcile import (
    ABSENCES_NEEDED,
    LATENESS_SECS,
    Evidence,
    absence,
    evidence_of,
    resolve,
)
from holdfast.execution.tries import Tries, quietly
from holdfast.execution.venue import Venue
from holdfast.risk.market import Market
from holdfast.risk.order import Order

_SEARCH_MARGIN_NS = 3_600 * NANOS


class Reconciled(Protocol):
    """Notes one comparison of ours with theirs."""

    def __call__(self, phase: str, what: str, *, explained: bool, ours: str, theirs: str) -> None:
        """See `Books.reconciled`."""


class LostOrders:
    """See the head of this file.

    Args:
        venue: Whose books are searched.
        ledger: Where what they say goes.
        market: Knows the venue's time, and which contracts have ended.
        clock: Ages.
        tries: When a search is repeated.
        read_fills: Books the fills that the venue lists; False where it cannot be read now.
        reconciled: Notes how a search ended.
        on_absent: Told of each lost order that was just searched for in vain, while it may still arrive.
        alarm_secs: What is UNKNOWN or missing for longer is alarmed, once.
    """

    def __init__(
        self,
        venue: Venue,
        ledger: Ledger,
        market: Market,
        *,
        clock: Clock,
        tries: Tries,
        read_fills: Callable[[], Awaitable[bool]],
        reconciled: Reconciled,
        on_absent: Callable[[Order], Awaitable[None]],
        alarm_secs: int,
    ) -> None:
        self._venue = venue
        self._ledger = ledger
        self._account = ledger.account
        self._market = market
        self._clock = clock
        self._tries = tries
        self._read_fills = read_fills
        self._reconciled = reconciled
        self._on_absent = on_absent
        self._alarm_ns = alarm_secs * NANOS
        self._claimed_ns: dict[str, int] = {}
        self._alarmed_claims: set[str] = set()

    # Orders -------------------------------------------------------------------------------------------

    async def search(self) -> None:
        """Look for every UNKNOWN order in the venue's books."""
        for order in self._account.open_orders():
            if (
                order.status is OrderStatus.UNKNOWN
                and self._tries.is_due(order.client_order_id)
                and await self.look_up(order) is Evidence.ABSENT
            ):
                await self._on_absent(order)

    async def look_up(self, order: Order) -> Evidence:
        """Search one order in the venue's books and take over what they say, which is returned too."""
        name = order.client_order_id
        since_ns = max(0, min(order.created_ns, self._market.time_ns or order.created_ns) - _SEARCH_MARGIN_NS)
        try:
            listed = await self._venue.find_order(
                client_order_id=name, ticker=order.ticker, since_ns=since_ns
            )
        except (VenueError, CircuitBreakerOpenError) as error:
            self._alarm_if_old(order, str(error))
            return Evidence.UNREADABLE
        if listed is not None:
            was = order.status.value
            await self.read_legs(order)
            self._ledger.saw_order(listed, evidence="found in the venue's books")
            self._tries.forget(name)
            self._reconciled("unknown", name, explained=True, ours=was, theirs=listed.status.value)
            await self._read_fills()
            return evidence_of(listed)
        now_ns = min(self._clock.now_ns(), self._market.time_ns or self._clock.now_ns())
        evidence = absence(order, now_ns=now_ns, is_settled=self._is_over(order, now_ns))
        lookup = self._tries.of(name)
        lookup.absences = lookup.absences + 1 if evidence is Evidence.ABSENT_BEYOND_BOUND else 0
        if lookup.absences >= ABSENCES_NEEDED and await self._read_fills():
            event = resolve(order.status, evidence)
            if event is OrderEvent.NEVER_ARRIVED:
                self._ledger.happened(
                    order, event, reason="absent", evidence="absent beyond the bound on lateness"
                )
                self._reconciled("unknown", name, explained=True, ours="unknown", theirs="absent")
                return evidence
        self._alarm_if_old(order, "not in the venue's books")
        return evidence

    async def read_legs(self, order: Order) -> None:
        """Book the fills of a combination's legs before its end is taken over: an uneven one is known as such."""
        if order.legs:
            await self._read_fills()

    def _is_over(self, order: Order, now_ns: int) -> bool:
        """Whether nothing can execute in the order's market any more: it has settled, or a contract of it expired."""
        if order.ticker in self._account.results:
            return True
        known = (self._market.instruments.get(ticker) for ticker, _ in order.working)
        ends = (one.option.expires_ns for one in known if one is not None and one.option is not None)
        return any(end and now_ns > end + LATENESS_SECS * NANOS for end in ends)

    def _alarm_if_old(self, order: Order, why: str) -> None:
        lookup = self._tries.of(order.client_order_id)
        age_ns = self._clock.now_ns() - order.created_ns
        if age_ns > self._alarm_ns and not lookup.alarmed:
            lookup.alarmed = True
            self._ledger.alarm(
                "order_unknown",
                f"{age_ns // NANOS}",
                f"{self._alarm_ns // NANOS}",
                client_order_id=order.client_order_id,
                ticker=order.ticker,
                why=why,
            )

    # Claimed fills ------------------------------------------------------------------------------------

    async def collect(self) -> None:
        """Read fills that an answer or a listed order claimed and the stream has not brought."""
        self._alarm_old_claims()
        if self._ledger.claims and self._tries.is_due("claims") and await self._read_fills():
            await self._read_claimed_orders()
        if not self._ledger.claims:
            self._tries.forget("claims")

    def _alarm_old_claims(self) -> None:
        """A claim whose fills do not come is alarmed once; its quantity stays reserved."""
        now_ns = self._clock.monotonic_ns()
        claims = self._ledger.claims
        self._claimed_ns = {name: self._claimed_ns.get(name, now_ns) for name in claims}
        for name, since_ns in self._claimed_ns.items():
            age_ns = now_ns - since_ns
            if age_ns > self._alarm_ns and name not in self._alarmed_claims:
                self._alarmed_claims.add(name)
                self._ledger.alarm(
                    "fills_missing",
                    f"{age_ns // NANOS}",
                    f"{self._alarm_ns // NANOS}",
                    client_order_id=name,
                    claimed=format_qty(claims[name]),
                    booked=format_qty(self._account.orders[name].filled),
                )

    def expects_fills(self) -> bool:
        """Whether claimed fills are still due: positions may differ until they come, but not for ever."""
        oldest_ns = self._clock.monotonic_ns() - self._alarm_ns
        return any(self._claimed_ns.get(name, oldest_ns) >= oldest_ns for name in self._ledger.claims)

    async def _read_claimed_orders(self) -> None:
        for name in list(self._ledger.claims):
            order = self._account.orders[name]
            if order.order_id:
                listed = await quietly(self._venue.order(order.order_id))
                if listed is not None:
                    self._ledger.saw_order(listed, evidence="read")
