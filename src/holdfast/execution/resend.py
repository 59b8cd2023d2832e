"""The same order again: when an order whose answer was lost goes once more, the same bytes under the same name.

    UNKNOWN, and absent from the venue's books ─▶ check_again ─▶ Gate.renew ─▶ breaker's leave
        ─▶ DECISION + ORDER_UPDATE "resent", durable ─▶ place ─▶ answer ─▶ ORDER_UPDATE

Only at a venue that refuses a client order id which any order ever had, open or closed (`DedupProfile.ALL`): there
the second sending cannot become a second order, and whichever of the two arrives first is the order. Anywhere else
nothing is ever sent again. `check_again` decides, from values alone; every reason against it has a name, and the
gate's reasons come on top: the state, a closed market, an increase beyond its first deadline, an exit of what is no
longer held. What is against it is noted once, in a RECONCILE record.

Nothing is reserved twice and nothing is given back: the order stays UNKNOWN, its reservation stands in full, its name
stays. The answer tells what it was:

| the venue says | then |
| --- | --- |
| acknowledged, also an order that has ended meanwhile | that is the order |
| the name is taken (409) | looked up in the books |
| refused | REJECTED, once nothing sent before can still arrive (`LATENESS_SECS`) and the books lack it; else UNKNOWN |
| nothing, or it was not sent | UNKNOWN as before; again after a longer wait |

How often it went is counted from the journal, so that a trader that is killed again and again does not begin anew; the
wait begins anew with each start. An order that somebody wanted canceled never goes again.

Limits: while the journal takes nothing, nothing goes again, demanded or not: its reserve is for first sendings. What
still reduces is judged by the account; who wished the order and no longer does says so by a cancel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import BadInput, CircuitBreakerOpenError, VenueError
from holdfast.core.orders import OrderEvent, OrderStatus
from holdfast.core.reasons import RejectReason
from holdfast.core.signals import Intent, Signal
from holdfast.execution.books import Books
from holdfast.execution.ledger import Ledger
from holdfast.execution.order_record import read_wish
from holdfast.execution.reconcile import LATENESS_SECS, Evidence
from holdfast.execution.venue import DedupProfile, NotSent, PlaceAnswer, PlacementPermit, Reject, Venue
from holdfast.risk.decisions import Decision
from holdfast.risk.gate import Admission, Gate
from holdfast.risk.manager import COMPONENT as GATE_COMPONENT
from holdfast.risk.order import Order

MOST_AGAIN = 100
"""How often one order goes again at most: with the waits below, about a trading day of a venue that never answers."""
LONGEST_WAIT_SECS = 300


class Again(StrEnum):
    """Whether the same bytes may go again, and if not, why."""

    YES = "yes"
    VENUE_TAKES_NAMES_TWICE = "venue_takes_names_twice"
    NOT_UNKNOWN = "not_unknown"
    KNOWN_THERE = "known_there"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    TOO_OFTEN = "too_often"
    NOT_YET = "not_yet"


_UNTOLD = frozenset({Again.YES, Again.NOT_YET, Again.VENUE_TAKES_NAMES_TWICE})


def check_again(order: Order, *, dedup: DedupProfile, now_ns: int, waited_ns: int) -> Again:
    """Whether *order*, which the venue's books lack, may go again; the first reason against it decides.

    Args:
        order: As it stands.
        dedup: What the venue does with a repeated client order id.
        now_ns: UTC, for its expiration.
        waited_ns: Since it was last sent.
    """
    noes = (
        (dedup is not DedupProfile.ALL, Again.VENUE_TAKES_NAMES_TWICE),
        (order.status is not OrderStatus.UNKNOWN, Again.NOT_UNKNOWN),
        (order.external or bool(order.order_id) or order.filled > 0, Again.KNOWN_THERE),
        (order.withdrawn, Again.WITHDRAWN),
        (0 < order.expiration_ns <= now_ns, Again.EXPIRED),
        (order.resent >= MOST_AGAIN, Again.TOO_OFTEN),
        (waited_ns < wait_secs(order.resent) * NANOS, Again.NOT_YET),
    )
    return next((why for applies, why in noes if applies), Again.YES)


def wait_secs(resent: int) -> int:
    """How long to wait since the last sending, after *resent* repetitions: 1 s, doubling up to five minutes."""
    return min(LONGEST_WAIT_SECS, 1 << min(resent, 16))


def ends_it(*, silent_ns: int, looked: Evidence) -> bool:
    """Whether a refusal of the repetition ends the order: the books lack it, and nothing sent before can still come.

    Args:
        silent_ns: Since the newest sending that got no answer.
        looked: What the venue's books said after the refusal.
    """
    absent = looked in {Evidence.ABSENT, Evidence.ABSENT_BEYOND_BOUND}
    return absent and silent_ns > LATENESS_SECS * NANOS


class Resender:
    """Sends lost orders again, one at a time, through the trader's own path.

    Args:
        venue: Where they go.
        ledger: Where attempts and answers stand.
        gate: Gives leave.
        books: The venue's books, read before and after.
        clock: Waits and expirations.
        place: Sends once and returns the answer.
        take: Writes an answer that can be believed as it is.
    """

    def __init__(
        self,
        venue: Venue,
        ledger: Ledger,
        gate: Gate,
        books: Books,
        *,
        clock: Clock,
        place: Callable[[Intent, Order, Admission, PlacementPermit], Awaitable[PlaceAnswer]],
        take: Callable[[Order, PlaceAnswer], Awaitable[None]],
    ) -> None:
        self._venue = venue
        self._ledger = ledger
        self._account = ledger.account
        self._gate = gate
        self._books = books
        self._clock = clock
        self._place = place
        self._take = take
        self._wishes: dict[str, Signal] = {}
        self._records: dict[str, Mapping[str, Any]] = {}
        self._sendings: dict[str, _Sendings] = {}

    def replayed(self, record_type: str, details: Mapping[str, Any]) -> None:
        """A record of an earlier run: what was sent, and what is found or ended and needs no repetition."""
        if self._venue.dedup is not DedupProfile.ALL:
            return
        if record_type == "ORDER":
            self._records[details["client_order_id"]] = details
        elif record_type == "ORDER_UPDATE" and (details["order_id"] or _has_ended(details)):
            self._records.pop(details["client_order_id"], None)

    def sent(self, intent: Intent) -> None:
        """*intent* was sent and no answer came."""
        self._wishes[intent.client_order_id] = intent.signal

    async def absent(self, order: Order) -> None:
        """The venue's books were read just now and lack *order*: send it again if it may go."""
        self._forget_known()
        name, now_ns = order.client_order_id, self._clock.monotonic_ns()
        sendings = self._sendings.setdefault(name, _Sendings(now_ns, now_ns))
        waited_ns = now_ns - sendings.newest_ns
        verdict: Again | RejectReason = check_again(
            order, dedup=self._venue.dedup, now_ns=self._clock.now_ns(), waited_ns=waited_ns
        )
        if verdict is Again.YES:
            verdict = await self._leave(order, sendings)
        if isinstance(verdict, RejectReason):
            self._note(order, sendings, verdict.code.value)
        elif verdict not in _UNTOLD:
            self._note(order, sendings, verdict.value)

    async def _leave(self, order: Order, sendings: _Sendings) -> Again | RejectReason:
        """Ask the gate and the breaker, write, send."""
        wish = self._wish(order.client_order_id)
        if wish is None or sendings.is_under_way:
            return Again.NOT_YET
        try:
            # Whatever the breaker says: an exit must not wait for the rules of what is left.
            rules = await self._books.instrument(order.ticker, regardless=True)
        except (VenueError, CircuitBreakerOpenError, BadInput):
            return Again.NOT_YET
        if not _may_still_go(order) or sendings.is_under_way:
            return Again.NOT_YET
        intent = Intent(client_order_id=order.client_order_id, key=order.key, signal=wish, instrument=rules)
        decision = self._gate.renew(intent)
        if isinstance(decision, RejectReason):
            return decision
        sendings.is_under_way = True
        try:
            return await self._send(order, intent, decision, sendings)
        finally:
            sendings.is_under_way = False
            self._gate.retire(order.client_order_id)

    def _wish(self, name: str) -> Signal | None:
        """What was sent under *name*, by this run or as the journal holds it."""
        if name in self._records:
            wish = read_wish(self._records.pop(name))
            if wish is not None:
                self._wishes[name] = wish
        return self._wishes.get(name)

    async def _send(self, order: Order, intent: Intent, decision: Decision, sendings: _Sendings) -> Again:
        """Write first, then act, as at the first time."""
        admission = decision.admission
        if admission is None:
            raise AssertionError("a renewed order has an admission")
        try:
            permit = self._venue.placement_permit(intent.ticker, reducing=decision.reducing)
        except CircuitBreakerOpenError:
            return Again.NOT_YET
        sendings.newest_ns = self._clock.monotonic_ns()
        self._ledger.note("DECISION", decision.details(), component=GATE_COMPONENT)
        self._ledger.happened(
            order, OrderEvent.RESENT, evidence=f"absent; time {order.resent + 1} of {MOST_AGAIN}"
        )
        try:
            is_durable = await self._ledger.write(durable=True)
        except BaseException:
            permit.ignored()
            raise
        if not is_durable or not _may_still_go(order):  # found, or to be canceled, while it was written
            permit.ignored()
            return Again.NOT_YET
        answer = await self._place(intent, order, admission, permit)
        await self._answered(order, answer, sendings)
        return Again.YES

    async def _answered(self, order: Order, answer: PlaceAnswer, sendings: _Sendings) -> None:
        """What the answer to a repetition says of the order, whose first bytes may have arrived as well."""
        now_ns = self._clock.monotonic_ns()
        if isinstance(answer, Reject):
            await self._refused(order, answer, now_ns - sendings.silent_ns)
        elif isinstance(answer, NotSent):  # these bytes did not leave; of the first ones nobody knows
            self._ledger.happened(
                order, OrderEvent.ANSWER_LOST, reason=answer.reason, evidence="not sent again"
            )
            await self._ledger.write()
        else:
            sendings.silent_ns = now_ns
            await self._take(order, answer)
        if order.status is OrderStatus.UNKNOWN and order.resent >= MOST_AGAIN:
            self._ledger.alarm(
                "resend_given_up",
                str(order.resent),
                str(MOST_AGAIN),
                client_order_id=order.client_order_id,
                ticker=order.ticker,
            )
            await self._ledger.write()

    async def _refused(self, order: Order, answer: Reject, silent_ns: int) -> None:
        looked = await self._books.look_up(order)
        if order.status is OrderStatus.UNKNOWN:
            said = f"{answer.status} {answer.message}".strip()
            is_there = order.filled > 0 or bool(order.order_id)  # told by the stream, whatever the books lack
            ends = not is_there and ends_it(silent_ns=silent_ns, looked=looked)
            self._ledger.happened(
                order,
                OrderEvent.REJECTED if ends else OrderEvent.ANSWER_LOST,
                reason=answer.code,
                evidence=f"sent again: {said}; "
                + ("absent from the venue's books" if ends else "the first sending may still arrive, or did"),
            )
        await self._ledger.write()

    def _note(self, order: Order, sendings: _Sendings, why: str) -> None:
        """Say once why an order stays UNKNOWN that might have gone again."""
        if sendings.noted != why:
            sendings.noted = why
            self._books.reconciled(
                "unknown", order.client_order_id, explained=False, ours="unknown", theirs="absent", stays=why
            )

    def _forget_known(self) -> None:
        """Drop what is kept of orders that are no longer lost."""
        orders = self._account.orders
        for kept in (self._wishes, self._records):
            for name in [name for name in kept if not _may_still_go(orders[name])]:
                del kept[name]
        for name in [name for name in self._sendings if orders[name].status is not OrderStatus.UNKNOWN]:
            del self._sendings[name]


class _Sendings(msgspec.Struct):
    """When one order was last sent, and last sent without an answer (clock monotonic ns), as far as this run knows."""

    newest_ns: int
    silent_ns: int
    is_under_way: bool = False
    noted: str = ""


def _has_ended(details: Mapping[str, Any]) -> bool:
    return OrderStatus(details["status"]).is_closed


def _may_still_go(order: Order) -> bool:
    return order.status is OrderStatus.UNKNOWN and not order.order_id and not order.withdrawn
