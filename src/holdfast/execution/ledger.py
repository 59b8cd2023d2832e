"""Evidence becomes records: applied to the account in the moment it is known, written in the same order.

The ledger turns an answer, a listed order or a fill into ORDER_UPDATE, TRADE, SETTLEMENT and RISK_VIOLATION
records. `note` applies a record to the account and queues it; `write` hands the queue to the journal as one
batch. Between a note and its place in the journal's order nothing is awaited, so the journal tells the same
story as memory. Facts from the venue hold whether or not they can be written: when the journal fails, trading
is restricted to cancels, and the venue's books tell again at the next start.

What is *about to be done* is another matter: with a poisoned journal it is written into the journal's reserve
first. A cancel goes even where that fails, counted in `unrecorded` and told; an exit does not.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import Entry, Level
from holdfast.core.errors import AuditError, BadInput, IllegalTransition
from holdfast.core.money import QtyE2, format_money, format_price, format_qty
from holdfast.core.orders import CLOSED_STATUSES, Fill, FillCause, OrderEvent, OrderStatus
from holdfast.core.signals import TimeInForce
from holdfast.execution.reconcile import Evidence, evidence_of, released_by, resolve
from holdfast.execution.venue import Ack, NotSent, PlaceAnswer, Reject, VenueOrder
from holdfast.risk.account import Account
from holdfast.risk.gate import JOURNAL
from holdfast.risk.halt import TradingState
from holdfast.risk.order import Order
from holdfast.risk.trades import trade_details

COMPONENT = "trader"
WORDS_WITHIN_SECS = 1.0
"""A disk that hangs may hold up a cancel for this long, once."""
_log = logging.getLogger("holdfast.execution")
_NEVER_LISTED = frozenset({OrderEvent.REJECTED.value, OrderEvent.NOT_SENT.value})
_TOMBSTONES = frozenset({OrderStatus.NEVER_ARRIVED, OrderStatus.NOT_SENT, OrderStatus.REJECTED})


class Ledger:
    """The account and its journal, kept in step.

    Attributes:
        account: The fold.
        log: Where its records go.
        user: Stands in every record; None for the log's own.
        zombies: Orders to be canceled wherever they turn up, again and again until they have ended, by name.
        unrecorded: Cancels, halts and ends that neither journal nor reserve could take; they stand all the same.
        ended: Our own orders whose end was noted and nobody was told of yet, oldest first.
        on_external: Told of each fill that no order of ours made, in the moment in which it is booked.
    """

    def __init__(self, account: Account, log: AuditLogger, *, user: str | None = None) -> None:
        self.account = account
        self.log = log
        self.user = user
        self._queue: list[Entry] = []
        self._changed = asyncio.Event()
        self.claims: dict[str, QtyE2] = {}
        self.zombies: dict[str, None] = {}
        self.unrecorded = 0
        self.ended: deque[Order] = deque()
        self.on_external: Callable[[Fill], None] | None = None
        self._reserve_hangs = False

    # Writing ------------------------------------------------------------------------------------------

    def note(self, record_type: str, details: Mapping[str, Any], *, component: str = COMPONENT) -> None:
        """Apply one record to the account and queue it for the journal."""
        self.account.apply(record_type, details)
        self._queue.append(Entry(record_type, dict(details), self.user or "", component))
        self._changed.set()
        self._changed = asyncio.Event()

    async def write(self, *, durable: bool = False) -> bool:
        """Hand everything noted to the journal; True once it is acknowledged, where *durable* as on the disk.

        A journal that fails, or cannot hold a record, does not undo what happened: trading is restricted to
        cancels instead.
        """
        batch, self._queue = self._queue, []
        if not batch:
            return True
        try:
            await self.log.record_many_async(batch, level=Level.DURABLE if durable else None)
        except (AuditError, BadInput) as error:
            self.journal_failed(str(error))
            for entry in batch:
                # A halt; and an end that no book of the venue will tell of: the next run would hold it for lost.
                is_end = entry.type == "ORDER_UPDATE" and entry.details["event"] in _NEVER_LISTED
                if is_end or entry.type == "STATE":
                    await self._say_or_count(entry)
            return False
        return True

    def write_now(self) -> bool:
        """`write` without waiting: for the last moments of a cancelled task."""
        batch, self._queue = self._queue, []
        if not batch:
            return True
        try:
            self.log.record_many(batch)
        except (AuditError, BadInput) as error:
            self.journal_failed(str(error))
            return False
        return True

    async def write_intent(self, entries: Sequence[Entry], *, demanded: bool = False) -> None:
        """Make an intent durable before a byte of it leaves.

        Args:
            entries: The decision and the order.
            demanded: A person or a stop demands this exit: where the journal is poisoned, its reserve takes it.

        Raises:
            AuditError: It is not durable anywhere; nothing may be sent.
            BadInput: The records cannot be written as they are.
        """
        try:
            await self.log.record_many_async(entries, level=Level.DURABLE)
        except AuditError:
            if not demanded or self.log.wal.state != "poisoned":
                raise
            for entry in entries:
                await self._say(entry)

    async def about_to_cancel(self, order: Order) -> None:
        """With a poisoned journal, write into its reserve that a cancel of *order* goes out; it goes anyway."""
        if self.log.wal.state == "poisoned":
            details = {
                "client_order_id": order.client_order_id,
                "order_id": order.order_id,
                "ticker": order.ticker,
                "leaves": format_qty(order.leaves),
            }
            await self._say_or_count(Entry("CANCEL", details, self.user or "", COMPONENT))

    async def _say_or_count(self, entry: Entry) -> None:
        try:
            await self._say(entry)
        except (AuditError, BadInput) as error:
            self.unrecorded += 1
            _log.critical(
                "unrecorded type=%s details=%s unrecorded=%d reason=%s",
                entry.type,
                dict(entry.details),
                self.unrecorded,
                error,
            )

    async def _say(self, entry: Entry) -> None:
        """Write *entry* into the reserve of the poisoned journal, without ever blocking the event loop.

        Raises:
            AuditError: It is not durable there.
            BadInput: It cannot be written.
        """
        if self._reserve_hangs:
            raise AuditError("last words refused: the reserve's disk hangs")
        saying = asyncio.to_thread(
            self.log.last_words, entry.type, entry.details, user=entry.user or None, component=entry.component
        )
        try:
            await asyncio.wait_for(saying, WORDS_WITHIN_SECS)
        except TimeoutError:
            self._reserve_hangs = True
            raise AuditError(
                f"last words refused: the reserve's disk did not answer within {WORDS_WITHIN_SECS} s"
            ) from None

    def journal_failed(self, why: str) -> None:
        """Let only cancels through from now on; called from any thread. The state cannot be recorded."""
        with self.account.lock:
            change = self.account.holds.change(
                JOURNAL, TradingState.CANCEL_ONLY, reason=f"journal failed: {why}"
            )
            if change is not None:
                self.account.apply("STATE", change)

    async def changed(self) -> None:
        """Return after the next note."""
        await self._changed.wait()

    # What happened ------------------------------------------------------------------------------------

    def hold(self, holder: str, state: TradingState, *, reason: str, who: str = "") -> None:
        """*holder* asks for *state*; ACTIVE releases its hold."""
        change = self.account.holds.change(holder, state, reason=reason, who=who)
        if change is not None:
            self.note("STATE", change)

    def alarm(self, violation: str, value: str, limit: str, **details: str) -> None:
        """A RISK_VIOLATION that nobody's order caused: a person must look."""
        self.note(
            "RISK_VIOLATION",
            {"violation_type": violation, "current_value": value, "limit": limit, "details": details},
        )

    def happened(
        self,
        order: Order,
        event: OrderEvent,
        *,
        order_id: str = "",
        released: QtyE2 | None = None,
        reason: str = "",
        evidence: str = "",
    ) -> bool:
        """*event* befell *order*; False, and nothing noted, where its status knows no such event."""
        try:
            details = self.account.update(
                order.client_order_id,
                event,
                order_id=order_id,
                released=released,
                reason=reason,
                evidence=evidence,
            )
        except IllegalTransition:
            return False
        self.note("ORDER_UPDATE", details)
        if event is OrderEvent.WITHDRAWN:  # should it turn up after all, it is canceled then
            self.zombies[order.client_order_id] = None
        if order.status.is_closed and not order.external:
            self.ended.append(order)
            if not order.is_even:
                self._ended_uneven(order)
        return True

    def answered(self, order: Order, answer: PlaceAnswer) -> None:
        """The venue answered the placement of *order*, or did not."""
        if isinstance(answer, Ack) and contradicts(order, answer):
            self.happened(
                order,
                OrderEvent.ANSWER_LOST,
                order_id=answer.order_id,
                reason="acknowledgement contradicts the order",
                evidence=f"{format_qty(answer.filled)} filled, {format_qty(answer.remaining)} remaining",
            )
        elif isinstance(answer, Ack):
            gone = QtyE2(order.quantity - max(answer.filled, order.filled) - answer.remaining)
            released = QtyE2(max(order.released, min(gone, order.quantity - order.filled)))
            if order.is_open:
                self._claim_back(order, answer.order_id)
                self.happened(
                    order, OrderEvent.ACKED, order_id=answer.order_id, released=released, evidence="answer"
                )
                self._claim(order, answer.filled)
                self._close_if_done(order, OrderEvent.CANCELED)
        elif isinstance(answer, NotSent):
            self.happened(order, OrderEvent.NOT_SENT, reason=answer.reason, evidence="adapter")
        elif isinstance(answer, Reject) and not order.filled:
            said = f"{answer.status} {answer.message}".strip()
            if not self.happened(order, OrderEvent.REJECTED, reason=answer.code, evidence=said):
                self.happened(
                    order, OrderEvent.ANSWER_LOST, reason=answer.code, evidence="rejected, yet working"
                )
        else:
            # No answer to be trusted, a conflict among them: that id is in the venue's books, which are looked up.
            reason = answer.code if isinstance(answer, Reject) else answer.reason
            self.happened(order, OrderEvent.ANSWER_LOST, reason=reason, evidence=f"status {answer.status}")

    def saw_order(self, listed: VenueOrder, *, evidence: str) -> Order | None:
        """The venue's books show *listed*; returns our order of it, None when it is somebody else's."""
        order = self.account.orders.get(listed.client_order_id) or self.account.by_venue_id(listed.order_id)
        if order is not None and not order.external and order.order_id not in {"", listed.order_id}:
            order = self._doubled(order, listed)
        if order is None or (order.external and order.is_open and listed.leaves > order.leaves):
            if evidence_of(listed) is Evidence.LISTED_WORKING:
                self._adopt(listed, evidence)
            return order
        event = resolve(order.status, evidence_of(listed))
        if event is None:
            return order
        if event is OrderEvent.ZOMBIE:
            self._rose(order, listed.order_id, evidence)
        self._claim_back(order, listed.order_id)
        released = released_by(order, listed)
        if (
            event is not OrderEvent.FOUND
            or order.status is not OrderStatus.WORKING
            or released != order.released
            or listed.order_id != order.order_id
        ):
            self.happened(
                order, OrderEvent.FOUND, order_id=listed.order_id, released=released, evidence=evidence
            )
        self._claim(order, listed.filled)
        ended = OrderEvent.EXPIRED if listed.status is OrderStatus.EXPIRED else OrderEvent.CANCELED
        self._close_if_done(order, ended)
        return order

    def saw_fill(self, fill: Fill, order: Order | None) -> bool:
        """Book *fill* once; *order* is ours or adopted, None for somebody else's. False if it was booked before."""
        if self.account.has_fill(fill.trade_id):
            return False
        if order is not None and not order.external and not order.can_own(fill):
            self._alarm_fill("fill_mismatch", fill, order)
            order = None
        if order is not None and order.status in _TOMBSTONES:
            self._rose(order, fill.order_id, f"fill {fill.trade_id}")
        elif order is not None and not order.is_open and not order.external:
            self._alarm_fill("fill_after_end", fill, order)
        external = order is None or order.external
        what = "external fill" if fill.cause is FillCause.TRADE else fill.cause.value
        name = order.client_order_id if order is not None and not order.external else ""
        self.note("TRADE", trade_details(fill, client_order_id=name, external=external))
        if external:
            if self.on_external is not None:
                self.on_external(fill)
            self.note(
                "RECONCILE",
                {
                    "phase": "periodic",
                    "what": what,
                    "explained": True,
                    "theirs": fill.trade_id,
                    "differences": [],
                },
            )
        if order is not None:
            self._filled(order, fill)
        result = self.account.results.get(fill.ticker)
        if result:
            self.settle(fill.ticker, result, fill.ts_ns)
        return True

    def _filled(self, order: Order, fill: Fill) -> None:
        """What follows for *order* from a fill of it that was booked."""
        if order.overfilled:
            self._overfilled(order, fill.ticker)
        if self.claims.get(order.client_order_id, 0) <= order.filled:
            self.claims.pop(order.client_order_id, None)
        if not order.is_open and not order.is_even and not order.external:
            self._ended_uneven(order)
        self._close_if_done(order, OrderEvent.CANCELED)

    def settle(self, ticker: str, result: str, settled_ns: int) -> None:
        """*ticker* paid out; a second time only for a position that came in late."""
        position = self.account.portfolio.position(ticker)
        if ticker in self.account.results and not position:
            return
        payout = format_money(self.account.portfolio.payout(ticker, result))
        self.note(
            "SETTLEMENT",
            {
                "ticker": ticker,
                "result": result,
                "position": format_qty(position),
                "payout": payout,
                "settled_ns": settled_ns,
            },
        )

    def _ended_uneven(self, order: Order) -> None:
        """A combination ended with some legs filled and others not: a structure that nobody wanted is held."""
        filled = (
            f"{format_qty(QtyE2(done))} {ticker}"
            for (ticker, _), done in zip(order.legs, order.leg_filled, strict=True)
        )
        self.alarm(
            "combination_uneven",
            ", ".join(filled),
            format_qty(order.filled),
            client_order_id=order.client_order_id,
            ticker=order.ticker,
        )

    def _alarm_fill(self, violation: str, fill: Fill, order: Order) -> None:
        """A fill that cannot be as the venue told it: it moves the position, and a person must look."""
        self.alarm(
            violation,
            format_qty(fill.qty),
            format_qty(order.leaves),
            client_order_id=order.client_order_id,
            trade_id=fill.trade_id,
            ticker=fill.ticker,
        )

    def _doubled(self, order: Order, listed: VenueOrder) -> Order | None:
        """The venue has a second order under the name of *order*: it counts apart, is cancelled and alarmed."""
        known = self.account.by_venue_id(listed.order_id)
        if known is None and evidence_of(listed) is Evidence.LISTED_WORKING:
            self.alarm(
                "doubled_order",
                format_qty(listed.leaves),
                "0.00",
                client_order_id=order.client_order_id,
                order_id=listed.order_id,
            )
            self.zombies[listed.order_id] = None
        return known

    def _claim_back(self, order: Order, order_id: str) -> None:
        """An order adopted as somebody else's turns out to be ours: it counts once, as ours."""
        other = self.account.by_venue_id(order_id)
        if other is not None and other is not order and other.external:
            self.happened(other, OrderEvent.CANCELED, reason="ours", evidence=order.client_order_id)

    def _claim(self, order: Order, filled: QtyE2) -> None:
        """The venue says *filled* executed; what our fills do not show yet is waited for."""
        claimed = QtyE2(min(filled, order.quantity))
        if order.is_open and not order.external and claimed > order.filled:
            self.claims[order.client_order_id] = claimed

    def _close_if_done(self, order: Order, ended: OrderEvent) -> None:
        """Nothing is left to execute: the order ended, filled in full or as *ended* says."""
        if order.leaves or order.status in CLOSED_STATUSES:
            return
        event = ended if order.released else OrderEvent.COMPLETED
        self.happened(order, event, evidence="fills" if event is OrderEvent.COMPLETED else "venue")

    def _rose(self, order: Order, order_id: str, evidence: str) -> None:
        """A dead order lives: reserve it again, have it cancelled, tell people."""
        was = order.status.value
        self.happened(order, OrderEvent.ZOMBIE, order_id=order_id, reason=f"was {was}", evidence=evidence)
        self.alarm(
            "zombie_order",
            format_qty(order.leaves),
            "0.00",
            client_order_id=order.client_order_id,
            ticker=order.ticker,
            was=was,
        )
        self.zombies[order.client_order_id] = None

    def _overfilled(self, order: Order, ticker: str) -> None:
        name = order.client_order_id
        total = QtyE2(order.filled + order.overfilled)
        leg = {"leg": ticker} if order.legs else {}
        self.alarm("overfill", format_qty(total), format_qty(order.quantity), client_order_id=name, **leg)
        self.hold("overfill", TradingState.CANCEL_ONLY, reason=f"order {name!r} filled beyond its quantity")

    def _adopt(self, listed: VenueOrder, evidence: str) -> None:
        details: dict[str, Any] = {
            "client_order_id": listed.client_order_id,
            "order_id": listed.order_id,
            "event": "adopted",
            "status": OrderStatus.WORKING.value,
            "filled": format_qty(listed.filled),
            "leaves": format_qty(listed.leaves),
            "released": "0.00",
            "reason": "not ours",
            "evidence": evidence,
            "ticker": listed.ticker,
            "side": listed.side.value,
            "yes_price": format_price(listed.yes_price),
        }
        if listed.multiplier != 1:
            details["multiplier"] = listed.multiplier
        self.note("ORDER_UPDATE", details)


def contradicts(order: Order, ack: Ack) -> bool:
    """Whether *ack* counts more than was ordered, or lets an immediate order rest: then only the books tell."""
    rests = order.tif is TimeInForce.GTC
    return ack.filled + ack.remaining > order.quantity or (ack.remaining > 0 and not rests)
