"""The running order path of one venue account: from a signal to the venue, and from the venue to the books.

    signal ─▶ name ─▶ gate (check and reserve) ─▶ breaker's leave ─▶ DECISION + ORDER, durable ─▶ place ONCE
                                                                                    answer ─▶ ORDER_UPDATE

The order of work never varies. If the append fails, leave and reservation go back and nothing is sent. A lost
answer is UNKNOWN: its reservation stays, it is never sent again, the venue's books tell. `NotSent` alone is
tried again, under the same id, a bounded number of times. An order whose caller is cancelled goes on to its end.

`start` replays the journal, reads the venue's positions, orders and fills, books what was missed and leaves
CANCEL_ONLY only when everything is explained. `run` deals with the venue's events one after the other, routes
each strategy's signals in turn, and does what is due whenever time moves.

Everything here runs on one event loop; the gate may be asked from any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import Entry, Level
from holdfast.core.clock import NANOS, Clock, utc
from holdfast.core.errors import (
    AuditError,
    BadInput,
    CircuitBreakerOpenError,
    VenueError,
    VenueRejected,
)
from holdfast.core.ids import client_order_id
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, QtyE2, format_money, format_price, format_qty
from holdfast.core.orders import Fill, OrderEvent, OrderStatus
from holdfast.core.positions import Mark, liquidation_value
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import Intent, Signal, TimeInForce, content_digest
from holdfast.execution.ledger import COMPONENT, CONFLICT_STATUS, Ledger
from holdfast.execution.reconcile import (
    ABSENCES_NEEDED,
    Evidence,
    absence,
    position_differences,
    resolve,
)
from holdfast.execution.strategy import Strategy
from holdfast.execution.venue import (
    AlreadyClosed,
    Book,
    BookChanged,
    CancelAnswer,
    Canceled,
    FillSeen,
    MarketChanged,
    NotSent,
    OrderSeen,
    PlaceAnswer,
    PlacementPermit,
    PublicTrade,
    Reject,
    StreamGap,
    Unknown,
    Venue,
    VenueEvent,
    VenueTime,
)
from holdfast.risk.account import Account, Order, collateral
from holdfast.risk.gate import Admission, Decision, Gate, fee_bound
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits
from holdfast.risk.market import Market

_T = TypeVar("_T")

GATE_COMPONENT = "gate"
SESSION_ZONE = ZoneInfo("America/New_York")
RESTING_SECS = 86_400
_SEARCH_MARGIN_NS = 3_600 * NANOS
_FILLS_MARGIN_NS = 600 * NANOS
_MAX_COUNTED = 1_000
_MARK_CODES = frozenset({Code.MARK_UNKNOWN, Code.MARK_STALE})
_SETTLED_WORDS = frozenset({"settled", "finalized"})
_START = "start"
_DRIFT = "drift"


class RouteStatus(StrEnum):
    """How routing one signal went."""

    SUBMITTED = "submitted"
    DENIED = "denied"
    REJECTED = "rejected"
    BREAKER_OPEN = "breaker_open"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"


_ROUTE_STATUSES = {
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


class Trader:
    """One venue account, from signal to settled fill.

    Args:
        venue: Where orders go.
        log: The journal; it alone says what happened.
        limits: What no order may exceed.
        clock: Records, sessions, deadlines.
        strategies: Asked about every event, in this order.
        user: Stands in every record; None for the log's own.
        on_time: Called with a venue's own time (UTC ns) before anything else happens at it.
        sleep: Waits before a retry, seconds.
        retries: How often an order that provably was not sent is tried again, at most.
        retry_secs: Wait before each retry.
        resting_secs: Expiration of a resting order that names none: the bound after which a lost one is
            proven absent.
        reconcile_secs: Between comparisons of positions with the venue's.
        alarm_secs: An order UNKNOWN for longer is alarmed, once.
        tick_secs: Wall time between ticks of `run` where the venue does not own the clock.

    Attributes:
        account: The fold over the journal.
        gate: Decides and reserves.
        market: Prices and rules.
        ledger: Turns evidence into records.
        is_started: Whether `start` has been through once.
    """

    def __init__(
        self,
        venue: Venue,
        *,
        log: AuditLogger,
        clock: Clock,
        limits: RiskLimits | None = None,
        strategies: Sequence[Strategy] = (),
        user: str | None = None,
        on_time: Callable[[int], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        retries: int = 2,
        retry_secs: float = 0.2,
        resting_secs: int = RESTING_SECS,
        reconcile_secs: int = 60,
        alarm_secs: int = 60,
        tick_secs: float = 1.0,
    ) -> None:
        self.venue = venue
        self.log = log
        self.account = Account()
        self.market = Market()
        self.gate = Gate(self.account, limits or RiskLimits(), clock=clock, market=self.market)
        self.ledger = Ledger(self.account, log, user=user)
        self.user = user
        self.is_started = False
        self._clock = clock
        self._strategies = {strategy.name: strategy for strategy in strategies}
        self._on_time = on_time
        self._sleep = sleep
        self._retries = retries
        self._retry_secs = retry_secs
        self._resting_ns = resting_secs * NANOS
        self._reconcile_ns = reconcile_secs * NANOS
        self._alarm_ns = alarm_secs * NANOS
        self._tick_secs = tick_secs
        self._log_id = ""
        self._numbered = 0
        self._routing: dict[str, tuple[str, asyncio.Task[RouteResult]]] = {}
        self._unclaimed: dict[str, Fill] = {}
        self._lookups: dict[str, _Lookup] = {}
        self._results: dict[str, str] = {}
        self._reconciled_ns = 0
        self._drifted = False
        self._stopped = False
        self._follows = False
        self._starting = asyncio.Lock()
        log.wal.on_poison(self.ledger.journal_failed)

    # Starting and stopping ----------------------------------------------------------------------------

    async def start(self) -> bool:
        """Replay the journal, read the venue, explain the difference; True once increasing orders may leave.

        While it returns False the state stays CANCEL_ONLY, `tick` tries again, and RECONCILE records say why.

        Raises:
            AuditError: The journal cannot be read or written.
        """
        async with self._starting:
            if not self._log_id:
                self._replay()
                await self._begin_run()
            if self.account.holds.held_by(_START) is not TradingState.ACTIVE:
                await self._reconcile_start()
            self.is_started = True
            return self.account.holds.state.allows_increasing

    def _replay(self) -> None:
        for record in self.log.wal.records():
            if record.component in {COMPONENT, GATE_COMPONENT}:
                self.account.apply(record.type, record.details)

    async def _begin_run(self) -> None:
        run = self.account.runs + 1
        self.ledger.note(
            "RECONCILE",
            {
                "phase": "start",
                "what": "run",
                "explained": True,
                "ours": run,
                "theirs": None,
                "differences": [],
            },
        )
        self.ledger.hold(_DRIFT, TradingState.ACTIVE, reason="compared anew at start")
        self.ledger.hold("journal", TradingState.ACTIVE, reason="journal reopened")
        self.ledger.hold(_START, TradingState.CANCEL_ONLY, reason="not reconciled with the venue yet")
        for order in self.account.open_orders():
            if order.status is OrderStatus.PENDING:
                self.ledger.happened(
                    order, OrderEvent.ANSWER_LOST, reason="restart", evidence="no answer in the journal"
                )
        if not await self.ledger.write():
            raise AuditError("journal cannot take the first records of this run")
        self._log_id = self.log.wal.log_id

    async def _reconcile_start(self) -> None:
        try:
            explained = await self._explain(phase="start")
        except (VenueError, CircuitBreakerOpenError) as error:
            self._reconciled("start", "venue unreadable", explained=False, differences=[str(error)])
            explained = False
        if explained:
            self.ledger.hold(_START, TradingState.ACTIVE, reason="reconciled with the venue")
        await self.ledger.write()

    async def stop(self) -> list[Order]:
        """Wait for orders on their way, write what is left to write; returns the orders that still rest."""
        self._stopped = True
        running = [task for _, task in self._routing.values()]
        if running:
            await asyncio.wait(running)
        await self.ledger.write()
        return [order for order in self.account.open_orders() if not order.external]

    # Routing ------------------------------------------------------------------------------------------

    async def route(self, signal: Signal) -> RouteResult:
        """Send *signal* through the whole path, once per key.

        The same key with the same content gets the recorded outcome, other content INTENT_CONFLICT. Cancelling
        the caller does not cancel the order on its way.

        Raises:
            AuditError: Only if `start` was not called and cannot be done.
        """
        if not self._log_id:
            await self.start()
        key = signal.key or self._next_key()
        name = client_order_id(self._log_id, signal.strategy, key)
        content = content_digest(signal)
        running = self._routing.get(name)
        if running is not None and running[0] == content:
            return await asyncio.shield(running[1])
        if running is not None or self._conflicts(name, content):
            return await self._refuse(signal, key, name, Code.INTENT_CONFLICT, is_new=False)
        known = self._recorded(name)
        if known is not None:
            return known
        task = asyncio.get_running_loop().create_task(self._route(signal, key, name, content))
        self._routing[name] = (content, task)
        task.add_done_callback(lambda _: self._routing.pop(name, None))
        return await asyncio.shield(task)

    def _next_key(self) -> str:
        self._numbered += 1
        return f"run-{self.account.runs}-{self._numbered}"

    def _conflicts(self, name: str, content: str) -> bool:
        order, denial = self.account.orders.get(name), self.account.denial(name)
        return (order is not None and order.content != content) or (
            denial is not None and denial.content != content
        )

    def _recorded(self, name: str) -> RouteResult | None:
        """The outcome of an intent that was decided before."""
        order, denial = self.account.orders.get(name), self.account.denial(name)
        if order is not None:
            return self._result_of(order, repeated=True)
        if denial is None:
            return None
        is_breaker = denial.reason == Code.CIRCUIT_BREAKER_OPEN
        return RouteResult(
            status=RouteStatus.BREAKER_OPEN if is_breaker else RouteStatus.DENIED,
            client_order_id=name,
            reason=denial.reason,
            repeated=True,
        )

    async def _route(self, signal: Signal, key: str, name: str, content: str) -> RouteResult:
        try:
            instrument = await self.instrument(signal.ticker)
        except VenueRejected:
            return await self._refuse(signal, key, name, Code.UNKNOWN_INSTRUMENT)
        except CircuitBreakerOpenError:
            # Its rules cannot be read now: as unknown as a ticker that does not exist, for another reason.
            return await self._refuse(signal, key, name, Code.CIRCUIT_BREAKER_OPEN)
        except (VenueError, BadInput):
            return await self._refuse(signal, key, name, Code.UNKNOWN_INSTRUMENT)
        intent = Intent(client_order_id=name, key=key, signal=self._bounded(signal), instrument=instrument)
        if self.lacks_marks():
            lacking = self.gate.preview(intent)
            if lacking is not None and lacking.code in _MARK_CODES:  # nothing else refuses: worth a read
                await self._refresh_marks()
        decision = self.gate.admit(intent, content=content)
        if decision.admission is None:
            return await self._deny(decision)
        try:
            permit = self.venue.placement_permit(intent.ticker, reducing=decision.reducing)
        except CircuitBreakerOpenError as error:
            self.gate.withdraw(decision, breaker=error.breaker)
            return await self._deny(decision)
        return await self._send(intent, decision, decision.admission, permit)

    def _bounded(self, signal: Signal) -> Signal:
        """A resting order ends by itself some day: the bound after which a lost one is proven absent."""
        if signal.tif is not TimeInForce.GTC or signal.expiration_ns:
            return signal
        return msgspec.structs.replace(signal, expiration_ns=self._clock.now_ns() + self._resting_ns)

    async def _refuse(
        self, signal: Signal, key: str, name: str, code: Code, *, is_new: bool = True
    ) -> RouteResult:
        """Deny what cannot be judged; a conflict leaves the key's first outcome standing."""
        reason = RejectReason(code=code, scope=signal.ticker, keys={"ticker": signal.ticker})
        decision = self.gate.refuse(signal, key, name, reason)
        decision.keyed = is_new and decision.keyed
        decision.content = content_digest(signal)
        return await self._deny(decision)

    async def _deny(self, decision: Decision) -> RouteResult:
        """Write a refusal: the first breached limit, then the router's own line; nothing is sent."""
        reason = decision.reason
        if reason is None:
            raise AssertionError("an allowed decision is not denied")
        self.ledger.note("DECISION", decision.details(), component=GATE_COMPONENT)
        self.ledger.note("RISK_VIOLATION", decision.violation())
        is_breaker = reason.code is Code.CIRCUIT_BREAKER_OPEN
        if not is_breaker:
            self.ledger.note("RISK_VIOLATION", _summary(decision, reason))
        await self.ledger.write()
        return RouteResult(
            status=RouteStatus.BREAKER_OPEN if is_breaker else RouteStatus.DENIED,
            client_order_id=decision.client_order_id,
            reason=reason.code.value,
            refusal=reason,
        )

    async def _send(
        self, intent: Intent, decision: Decision, admission: Admission, permit: PlacementPermit
    ) -> RouteResult:
        order = self.account.orders[intent.client_order_id]
        user = self.user or ""
        records = [
            Entry("DECISION", decision.details(), user, GATE_COMPONENT),
            Entry("ORDER", order_details(intent, order), user, COMPONENT),
        ]
        try:
            await self.log.record_many_async(records, level=Level.DURABLE)
        except asyncio.CancelledError:
            # The record may yet become durable, so the order exists; but no byte has left.
            permit.ignored()
            self.ledger.happened(order, OrderEvent.NOT_SENT, reason="cancelled", evidence="before sending")
            self.ledger.write_now()
            raise
        except (AuditError, BadInput) as error:
            permit.ignored()
            self.gate.give_back(admission)
            self.ledger.journal_failed(str(error))
            reason = RejectReason(code=Code.AUDIT_UNAVAILABLE, keys={"error": str(error)[:200]})
            return RouteResult(
                status=RouteStatus.DENIED,
                client_order_id=intent.client_order_id,
                reason=Code.AUDIT_UNAVAILABLE,
                refusal=reason,
            )
        try:
            answer = await self._place(intent, order, admission, permit)
        finally:
            self.gate.retire(intent.client_order_id)
        self.ledger.answered(order, answer)
        if isinstance(answer, Reject | Unknown) and answer.status == CONFLICT_STATUS:
            await self._look_up(order)
        await self.ledger.write()
        await self._hunt_zombies()
        if not self._follows and intent.client_order_id in self.ledger.claims:
            await self._read_fills_quietly()
        return self._result_of(order)

    async def _place(
        self, intent: Intent, order: Order, admission: Admission, permit: PlacementPermit
    ) -> PlaceAnswer:
        """Send once; again only after `NotSent`, under the same id, while leave is given."""
        for attempt in range(self._retries + 1):
            try:
                answer = await self.venue.place(intent, admission, permit)
            except asyncio.CancelledError:
                self.ledger.happened(
                    order, OrderEvent.ANSWER_LOST, reason="cancelled", evidence="while sending"
                )
                self.ledger.write_now()
                raise
            except Exception as error:
                # An adapter promises not to raise. Whatever this was, the order may be out: unknown, and stop.
                why = f"{type(error).__name__}: {error}"[:200]
                self.ledger.happened(order, OrderEvent.ANSWER_LOST, reason=why, evidence="adapter raised")
                self.ledger.hold("adapter", TradingState.CANCEL_ONLY, reason=why)
                await self.ledger.write()
                raise
            if not isinstance(answer, NotSent) or attempt == self._retries:
                return answer
            await self._sleep(self._retry_secs)
            if not order.is_open or order.status is not OrderStatus.PENDING:
                return answer
            if self._clock.monotonic_ns() > admission.deadline_ns:
                return answer
            try:
                permit = self.venue.placement_permit(intent.ticker, reducing=admission.reducing)
            except CircuitBreakerOpenError:
                return answer
            admission = self.gate.readmit(admission)
        raise AssertionError("the last attempt returns")

    def _result_of(self, order: Order, *, repeated: bool = False) -> RouteResult:
        """What the caller is told of an order as it stands; `fill_count` is the venue's word until fills come."""
        status = _ROUTE_STATUSES.get(order.status, RouteStatus.SUBMITTED)
        claimed = max(order.filled, self.ledger.claims.get(order.client_order_id, order.filled))
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

    # Cancelling ---------------------------------------------------------------------------------------

    async def cancel(self, name: str) -> CancelAnswer:
        """Cancel one of the account's orders by its client order id; always tried.

        Raises:
            BadInput: No such order.
        """
        order = self.account.orders.get(name)
        if order is None:
            raise BadInput(f"no order {name!r} in this journal")
        if not order.order_id:
            await self._look_up(order)
        answer = await self._cancel(order)
        await self.ledger.write()
        return answer

    async def _cancel(self, order: Order) -> CancelAnswer:
        if not order.is_open:
            return AlreadyClosed()
        if not order.order_id:
            return Unknown(reason="not found at the venue yet")
        answer = await self.venue.cancel(order_id=order.order_id, ticker=order.ticker)
        await self._canceled(order, answer)
        return answer

    async def _canceled(self, order: Order, answer: CancelAnswer) -> None:
        if isinstance(answer, NotSent):
            return
        if isinstance(answer, Unknown):
            self.ledger.happened(order, OrderEvent.ANSWER_LOST, reason=answer.reason, evidence="cancel")
            return
        # What a cancel answers is advice; the venue's books say how the order ended.
        try:
            listed = await self.venue.order(order.order_id)
        except (VenueError, CircuitBreakerOpenError):
            listed = None
        if listed is not None:
            self.ledger.saw_order(listed, evidence="read after cancel")
        elif isinstance(answer, Canceled) and answer.released >= order.leaves:
            self.ledger.happened(order, OrderEvent.CANCELED, evidence="cancel answer")
        elif order.is_open:
            self.ledger.happened(
                order, OrderEvent.ANSWER_LOST, reason="canceled or closed", evidence="cancel"
            )

    async def cancel_all_own(self) -> list[Order]:
        """Cancel every open order of this journal, oldest first; returns those still open afterwards."""
        for order in self.account.open_orders():
            if not order.external:
                await self.cancel(order.client_order_id)
        return [order for order in self.account.open_orders() if not order.external]

    # Waiting ------------------------------------------------------------------------------------------

    async def wait_settled(self, name: str, *, timeout_secs: float) -> bool:
        """Wait until the order has ended and its fills are booked, or rests acknowledged (GTC); False in vain.

        *timeout_secs* is wall time.
        """
        try:
            async with asyncio.timeout(timeout_secs):
                while not self._is_settled(name):
                    await self.ledger.changed()
        except TimeoutError:
            return self._is_settled(name)
        return True

    def _is_settled(self, name: str) -> bool:
        order = self.account.orders.get(name)
        if order is None or order.status.is_closed:
            return True
        rests = order.tif is TimeInForce.GTC and order.status is OrderStatus.WORKING
        return rests and name not in self.ledger.claims

    async def submit(self, signal: Signal, *, settle_secs: float) -> dict[str, str]:
        """Route *signal* and wait up to *settle_secs* (wall) for its final outcome, as one flat line.

        `outcome` is filled, partial, working, canceled, rejected, denied, not_sent or unknown.
        """
        result = await self.route(signal)
        name = result.client_order_id
        if result.status in {RouteStatus.SUBMITTED, RouteStatus.UNKNOWN}:
            await self.wait_settled(name, timeout_secs=settle_secs)
        order = self.account.orders.get(name)
        if result.status in {RouteStatus.DENIED, RouteStatus.BREAKER_OPEN} or order is None:
            outcome, reason = "denied", result.reason
        else:
            outcome, reason = outcome_of(order), order.reason if not order.filled else ""
        return {
            "intent": signal.key or (order.key if order else ""),
            "client_order_id": name,
            "outcome": outcome,
            "reason": reason,
            "order_id": order.order_id if order else "",
            "filled": format_qty(order.filled) if order else "0.00",
        }

    # Events -------------------------------------------------------------------------------------------

    async def run(self, events: AsyncIterator[VenueEvent]) -> None:
        """Deal with *events* in order until they end, `stop`, or a venue's final tick.

        A venue that owns the clock drives everything by its ticks; otherwise what is due is done every
        `tick_secs` of wall time.

        Raises:
            Exception: Whatever a strategy or the venue's stream raised; trading is restricted to cancels first.
        """
        self._follows = True
        timed = False
        next_tick = self._wall() + self._tick_secs
        upcoming: asyncio.Future[VenueEvent] | None = None
        try:
            while not self._stopped:
                if upcoming is None:
                    upcoming = asyncio.ensure_future(anext(events))
                wait_secs = None if timed else max(0.0, next_tick - self._wall())
                await asyncio.wait((upcoming,), timeout=wait_secs)
                if not timed and self._wall() >= next_tick:  # also when events never pause
                    next_tick = self._wall() + self._tick_secs
                    await self.tick(self._clock.now_ns())
                if not upcoming.done():
                    continue
                try:
                    event = upcoming.result()
                except StopAsyncIteration:
                    break
                upcoming = None
                timed = timed or isinstance(event, VenueTime)
                await self.handle(event)
                if isinstance(event, VenueTime) and event.final:
                    break
        except Exception as error:
            self.ledger.hold("run", TradingState.CANCEL_ONLY, reason=f"{type(error).__name__}: {error}"[:200])
            await self.ledger.write()
            raise
        finally:
            self._follows = False
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.wait((upcoming,))
        await self.ledger.write()

    @staticmethod
    def _wall() -> float:
        """Seconds of the loop's own clock: ticks of a venue without a clock are wall time."""
        return asyncio.get_running_loop().time()

    async def handle(self, event: VenueEvent) -> None:
        """Deal with one event to its end: books, records, then the strategies' signals one by one."""
        self.market.saw_stream(self._clock.monotonic_ns())
        match event:
            case BookChanged(book=book, ts_ns=ts_ns):
                self.market.saw_time(ts_ns)
                self._saw_book(book, streamed=True)
                await self._route_all(lambda strategy: strategy.on_book(book))
            case PublicTrade():
                self.market.saw_time(event.ts_ns)
                await self._route_all(lambda strategy: strategy.on_trade(event))
            case FillSeen(fill=fill):
                self.market.saw_time(fill.ts_ns)
                await self._saw_fill(fill)
                await self.ledger.write()
                await self._hunt_zombies()
            case OrderSeen(order=listed):
                self.ledger.saw_order(listed, evidence="stream")
                await self.ledger.write()
                await self._hunt_zombies()
            case MarketChanged():
                self.market.saw_time(event.ts_ns)
                await self._market_changed(event)
            case StreamGap():
                self.market.lost(event.tickers)
                if event.private:
                    await self._read_fills_quietly()
                    await self._read_orders_quietly()
            case VenueTime():
                if self._on_time is not None:
                    self._on_time(event.ts_ns)
                self.market.saw_time(event.ts_ns)
                self.market.saw_stream(self._clock.monotonic_ns())
                await self.tick(event.ts_ns)
                await self.venue.quiescent(event.n)

    async def tick(self, now_ns: int) -> None:
        """Time moved to *now_ns*: do what is due, then ask the strategies."""
        await self.venue.tick_probe()
        if self.account.holds.held_by(_START) is not TradingState.ACTIVE:
            if self._is_due(_START):
                await self._reconcile_start()
        else:
            await self._roll_session()
            await self._resolve_lost()
            await self._collect_claims()
            await self._refresh_marks()
            await self._compare_positions()
        await self.ledger.write()
        await self._hunt_zombies()
        await self._route_all(lambda strategy: strategy.on_tick(now_ns))

    async def _route_all(self, ask: Callable[[Strategy], Iterable[Signal]]) -> None:
        for strategy in self._strategies.values():
            await self._route_from(strategy, ask(strategy))

    async def _route_from(self, strategy: Strategy, signals: Iterable[Signal]) -> None:
        for signal in signals:
            named = signal
            if signal.strategy == Strategy.name != strategy.name:
                named = msgspec.structs.replace(signal, strategy=strategy.name)
            await self.route(named)

    def _saw_book(self, book: Book, *, streamed: bool) -> None:
        self.market.saw_book(book.ticker, book.best_bid, book.best_ask, book.alive_ns, streamed=streamed)

    async def _saw_fill(self, fill: Fill) -> None:
        """Book a fill and tell its strategy; one that may be ours but cannot be placed yet waits."""
        if self.account.has_fill(fill.trade_id):
            return
        order = self.account.orders.get(fill.client_order_id) or self.account.by_venue_id(fill.order_id)
        if order is None and self._may_be_ours(fill):
            try:
                listed = await self.venue.order(fill.order_id)
            except (VenueError, CircuitBreakerOpenError):
                self._unclaimed[fill.trade_id] = fill
                return
            order = self.account.orders.get(listed.client_order_id) if listed else None
        self._unclaimed.pop(fill.trade_id, None)
        if not self.ledger.saw_fill(fill, order) or order is None or order.external:
            return
        strategy = self._strategies.get(order.strategy)
        if strategy is not None:
            await self.ledger.write()
            await self._route_from(strategy, strategy.on_fill(fill))

    def _may_be_ours(self, fill: Fill) -> bool:
        """A fill without our id, while an order of ours whose venue id is unknown could have made it."""
        if fill.client_order_id:
            return False
        return any(
            not order.order_id and order.ticker == fill.ticker and order.side is fill.side
            for order in self.account.open_orders()
        )

    async def _market_changed(self, event: MarketChanged) -> None:
        if event.result in {"yes", "no"}:
            self._results[event.ticker] = event.result
            self.market.saw_result(event.ticker, event.result)
        try:
            await self.instrument(event.ticker, refresh=True)
        except (VenueError, CircuitBreakerOpenError, BadInput):
            # Unknown rules refuse orders: forget the old ones, the next order reads them again.
            self.market.instruments.pop(event.ticker, None)
        if event.status in _SETTLED_WORDS:
            result = self._results.get(event.ticker, "")
            if not result and event.ticker in self.market.instruments:
                result = self.market.instruments[event.ticker].result
            if result in {"yes", "no"}:
                self.market.saw_result(event.ticker, result)
                self.ledger.settle(event.ticker, result, event.ts_ns)
        await self.ledger.write()

    # What is due --------------------------------------------------------------------------------------

    def _is_due(self, what: str) -> bool:
        """Whether *what* should be tried again now; each try doubles the wait, 1 s to 32 s."""
        lookup = self._lookups.setdefault(what, _Lookup())
        now_ns = self._clock.monotonic_ns()
        if now_ns < lookup.next_ns:
            return False
        lookup.next_ns = now_ns + (NANOS << min(lookup.tries, 5))
        lookup.tries += 1
        return True

    async def _resolve_lost(self) -> None:
        """Look for every UNKNOWN order in the venue's books."""
        for order in self.account.open_orders():
            if order.status is OrderStatus.UNKNOWN and self._is_due(order.client_order_id):
                await self._look_up(order)
        for fill in list(self._unclaimed.values()):
            if self._is_due(f"fill {fill.trade_id}"):
                await self._saw_fill(fill)

    async def _look_up(self, order: Order) -> None:
        """Search one order in the venue's books and take over what they say."""
        name = order.client_order_id
        since_ns = max(0, min(order.created_ns, self.market.time_ns or order.created_ns) - _SEARCH_MARGIN_NS)
        try:
            listed = await self.venue.find_order(client_order_id=name, ticker=order.ticker, since_ns=since_ns)
        except (VenueError, CircuitBreakerOpenError) as error:
            self._alarm_if_old(order, str(error))
            return
        if listed is not None:
            was = order.status.value
            self.ledger.saw_order(listed, evidence="found in the venue's books")
            self._lookups.pop(name, None)
            self._reconciled("unknown", name, explained=True, ours=was, theirs=listed.status.value)
            await self._read_fills_quietly()
            return
        is_settled = order.ticker in self.account.results
        now_ns = min(self._clock.now_ns(), self.market.time_ns or self._clock.now_ns())
        evidence = absence(order, now_ns=now_ns, is_settled=is_settled)
        lookup = self._lookups.setdefault(name, _Lookup())
        lookup.absences = lookup.absences + 1 if evidence is Evidence.ABSENT_BEYOND_BOUND else 0
        if lookup.absences >= ABSENCES_NEEDED and await self._read_fills_quietly():
            event = resolve(order.status, evidence)
            if event is OrderEvent.NEVER_ARRIVED:
                self.ledger.happened(
                    order, event, reason="absent", evidence="absent beyond the bound on lateness"
                )
                self._reconciled("unknown", name, explained=True, ours="unknown", theirs="absent")
                return
        self._alarm_if_old(order, "not in the venue's books")

    def _alarm_if_old(self, order: Order, why: str) -> None:
        lookup = self._lookups.setdefault(order.client_order_id, _Lookup())
        age_ns = self._clock.now_ns() - order.created_ns
        if age_ns > self._alarm_ns and not lookup.alarmed:
            lookup.alarmed = True
            self.ledger.alarm(
                "order_unknown",
                f"{age_ns // NANOS}",
                f"{self._alarm_ns // NANOS}",
                client_order_id=order.client_order_id,
                ticker=order.ticker,
                why=why,
            )

    async def _collect_claims(self) -> None:
        """Read fills that an answer or a listed order claimed and the stream has not brought."""
        if self.ledger.claims and self._is_due("claims") and await self._read_fills_quietly():
            await self._read_claimed_orders()
        if not self.ledger.claims:
            self._lookups.pop("claims", None)

    async def _read_claimed_orders(self) -> None:
        for name in list(self.ledger.claims):
            order = self.account.orders[name]
            if order.order_id:
                listed = await self._quietly(self.venue.order(order.order_id))
                if listed is not None:
                    self.ledger.saw_order(listed, evidence="read")

    def lacks_marks(self) -> bool:
        """Whether the price of anything held is missing or too old."""
        oldest_ns = self._clock.monotonic_ns() - self.gate.limits.max_mark_age_ns
        marks = (self.market.mark(ticker) for ticker in self.account.portfolio.positions)
        return any(mark is None or mark.as_of_ns < oldest_ns for mark in marks)

    async def _refresh_marks(self) -> None:
        """Read the books of held markets whose price is missing or grows old."""
        now_ns = self._clock.monotonic_ns()
        half_ns = self.gate.limits.max_mark_age_ns // 2
        for ticker in list(self.account.portfolio.positions):
            mark = self.market.mark(ticker)
            if (mark is None or now_ns - mark.as_of_ns > half_ns) and self._is_due(f"mark {ticker}"):
                await self._quietly(self._read_mark(ticker))
            elif mark is not None:
                self._lookups.pop(f"mark {ticker}", None)

    async def _read_mark(self, ticker: str) -> Mark | None:
        mark = self.market.mark(ticker)
        if mark is None or self._clock.monotonic_ns() - mark.as_of_ns > self.gate.limits.max_mark_age_ns // 2:
            instrument = await self.instrument(ticker)
            if instrument.result in {"yes", "no"}:
                self.market.saw_result(ticker, instrument.result)
            else:
                self._saw_book(await self.venue.book(ticker), streamed=False)
        return self.market.mark(ticker)

    async def _roll_session(self) -> None:
        """Open the day's session when midnight has passed; until its value is known the old one stands."""
        if self._session_is_over() and self._is_due("session"):
            await self._quietly(self._open_session())

    def _session_is_over(self) -> bool:
        session = self.account.session
        return session is None or session.name < session_name(self._clock.now_ns())

    async def _compare_positions(self) -> None:
        """Hold our positions against the venue's; a difference that two comparisons show bars increases."""
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._reconciled_ns < self._reconcile_ns or self._routing or self.ledger.claims:
            return
        self._reconciled_ns = now_ns
        theirs = await self._quietly(self.venue.positions())
        if theirs is None:
            return
        differences = position_differences(self.account.portfolio.positions, theirs)
        if differences:
            await self._read_fills_quietly()
            await self._settle_missing(differences)
            differences = position_differences(self.account.portfolio.positions, theirs)
        if not differences:
            self._drifted = False
            if self.account.holds.held_by(_DRIFT) is not TradingState.ACTIVE:
                self._reconciled("periodic", "positions", explained=True)
                self.ledger.hold(_DRIFT, TradingState.ACTIVE, reason="positions agree")
            return
        if not self._drifted:  # a fill may be on its way; look once more before acting
            self._drifted = True
            return
        self._reconciled("periodic", "positions", explained=False, differences=_texts(differences))
        self.ledger.hold(_DRIFT, TradingState.CANCEL_ONLY, reason="positions differ from the venue's")

    # Reading the venue --------------------------------------------------------------------------------

    async def instrument(self, ticker: str, *, refresh: bool = False) -> Instrument:
        """One market's rules, read once.

        Raises:
            VenueRejected: No such market.
            VenueError: They could not be read.
            CircuitBreakerOpenError: The venue is failing.
        """
        known = self.market.instruments.get(ticker)
        if known is None or refresh:
            known = await self.venue.instrument(ticker)
            self.market.instruments[ticker] = known
        return known

    async def prepare(self, ticker: str) -> Instrument:
        """Read what a question about *ticker* needs and is not known: its rules, prices of what is held.

        Raises:
            VenueError: The rules could not be read. Prices that cannot be read stay unknown.
            CircuitBreakerOpenError: The venue is failing.
        """
        if self.lacks_marks():
            await self._refresh_marks()
        return await self.instrument(ticker)

    async def _explain(self, *, phase: str) -> bool:
        """Read everything, book what was missed; True when nothing stays unexplained.

        Raises:
            VenueError: Something could not be read.
            CircuitBreakerOpenError: The venue is failing.
        """
        if self.account.session is None:
            return await self._take_over()
        for order in self.account.open_orders():
            if not order.external and order.status is OrderStatus.UNKNOWN:
                await self._look_up(order)
        await self._read_fills()
        await self._read_orders()
        theirs = await self.venue.positions()
        await self._read_fills()
        differences = position_differences(self.account.portfolio.positions, theirs)
        if differences:
            await self._settle_missing(differences)
            theirs = await self.venue.positions()
            differences = position_differences(self.account.portfolio.positions, theirs)
        cash = await self.venue.balance()
        self._reconciled(
            phase,
            "positions",
            explained=not differences,
            ours={
                ticker: format_qty(qty) for ticker, qty in sorted(self.account.portfolio.positions.items())
            },
            theirs={ticker: format_qty(qty) for ticker, qty in sorted(theirs.items())},
            differences=_texts(differences),
            balance=format_money(cash),
        )
        if differences:
            return False
        if self._session_is_over():
            await self._open_session()
        return True

    async def _take_over(self) -> bool:
        """A journal's first start: what the venue holds now is the opening position, earlier fills are in it."""
        before = await self.venue.fills(since_ns=0)
        positions = await self.venue.positions()
        cash = await self.venue.balance()
        after = await self.venue.fills(since_ns=0)
        if len(after) != len(before):
            return False
        for listed in await self.venue.open_orders():
            self.ledger.saw_order(listed, evidence="working at the first start")
        self._reconciled(
            "start",
            "opening",
            explained=True,
            theirs={ticker: format_qty(qty) for ticker, qty in sorted(positions.items())},
            balance=format_money(cash),
        )
        await self._open_session(
            positions=positions,
            cash=MoneyE6(cash + collateral(positions)),
            counted=[fill.trade_id for fill in after[-_MAX_COUNTED:]],
            newest_fill_ns=max((fill.ts_ns for fill in after), default=0),
        )
        return True

    async def _open_session(
        self, *, positions: dict[str, QtyE2] | None = None, cash: MoneyE6 | None = None, **opening: Any
    ) -> None:
        """Record the day's opening value; the first one also says what the account held before.

        Raises:
            VenueError: The price of something held cannot be read.
            CircuitBreakerOpenError: The venue is failing.
        """
        held = self.account.portfolio.positions if positions is None else positions
        money = self.account.portfolio.cash if cash is None else cash
        marks: dict[str, Mark] = {}
        for ticker in sorted(held):
            mark = await self._read_mark(ticker)
            if mark is not None:
                marks[ticker] = mark
        value = liquidation_value(held, marks)
        if isinstance(value, str):
            raise VenueRejected(f"market {value!r} has no price to open the session with", code="no_price")
        now_ns = self._clock.now_ns()
        self.ledger.note(
            "SESSION_OPEN",
            {
                "session": session_name(now_ns),
                "opened_ns": now_ns,
                "cash": format_money(money),
                "liquidation": format_money(MoneyE6(money + value)),
                "positions": {ticker: format_qty(qty) for ticker, qty in sorted(held.items())},
                "marks": {
                    ticker: {
                        "bid": None if mark.bid is None else format_price(mark.bid),
                        "ask": None if mark.ask is None else format_price(mark.ask),
                    }
                    for ticker, mark in marks.items()
                },
                **opening,
            },
        )

    async def _read_fills(self) -> None:
        since_ns = max(0, self.account.last_fill_ns - _FILLS_MARGIN_NS)
        for fill in await self.venue.fills(since_ns=since_ns):
            await self._saw_fill(fill)

    async def _read_orders(self) -> None:
        """Take over the venue's working orders; ours that it no longer lists are read one by one."""
        listed = {order.order_id: order for order in await self.venue.open_orders()}
        for theirs in listed.values():
            self.ledger.saw_order(theirs, evidence="open orders")
        for order in self.account.open_orders():
            if order.status is not OrderStatus.WORKING or order.order_id in listed:
                continue
            found = await self.venue.order(order.order_id)
            if found is not None:
                self.ledger.saw_order(found, evidence="read")
            else:
                event = resolve(order.status, Evidence.ABSENT)
                if event is not None:
                    self.ledger.happened(order, event, reason="absent", evidence="not known to the venue")

    async def _read_fills_quietly(self) -> bool:
        """Read fills; False when the venue could not be read, which the next tick tries again."""
        try:
            await self._read_fills()
        except (VenueError, CircuitBreakerOpenError):
            return False
        finally:
            await self.ledger.write()
        return True

    async def _read_orders_quietly(self) -> None:
        try:
            await self._read_orders()
        except (VenueError, CircuitBreakerOpenError):
            return
        finally:
            await self.ledger.write()
        await self._hunt_zombies()

    async def _quietly(self, reading: Awaitable[_T]) -> _T | None:
        """None when the venue could not be read now; what is unread stays unknown, and unknown refuses."""
        try:
            return await reading
        except (VenueError, CircuitBreakerOpenError):
            return None

    async def _settle_missing(self, differences: Sequence[tuple[str, QtyE2, QtyE2]]) -> None:
        """A position that the venue no longer has was perhaps paid out."""
        for ticker, _ours, theirs in differences:
            if theirs:
                continue
            instrument = await self._quietly(self.instrument(ticker, refresh=True))
            if instrument is not None and instrument.result in {"yes", "no"}:
                self.market.saw_result(ticker, instrument.result)
                self.ledger.settle(ticker, instrument.result, self._clock.now_ns())

    async def _hunt_zombies(self) -> None:
        while self.ledger.zombies:
            name = self.ledger.zombies.pop()
            if self.account.orders[name].is_open:
                await self.cancel(name)

    def _reconciled(
        self,
        phase: str,
        what: str,
        *,
        explained: bool,
        ours: Any = None,
        theirs: Any = None,
        differences: Sequence[Any] = (),
        **more: Any,
    ) -> None:
        self.ledger.note(
            "RECONCILE",
            {
                "phase": phase,
                "what": what,
                "explained": explained,
                "ours": ours,
                "theirs": theirs,
                "differences": list(differences),
                **more,
            },
        )


class _Lookup(msgspec.Struct):
    """How often something was tried, and when it may be tried again (clock monotonic ns)."""

    next_ns: int = 0
    tries: int = 0
    absences: int = 0
    alarmed: bool = False


def session_name(now_ns: int) -> str:
    """The trading day of a UTC time: the date in New York, where it begins at midnight."""
    return datetime.astimezone(utc(now_ns), SESSION_ZONE).strftime("%Y-%m-%d")


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


def order_details(intent: Intent, order: Order) -> dict[str, Any]:
    """The ORDER record: the durable intent."""
    signal = intent.signal
    return {
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


def _summary(decision: Decision, reason: RejectReason) -> dict[str, Any]:
    """The router's own line beside the breached limit's."""
    return {
        "violation_type": Code.RISK_CHECK_FAILED.value,
        "current_value": reason.code.value,
        "limit": "0",
        "details": {"ticker": decision.signal.ticker},
        "client_order_id": decision.client_order_id,
    }


def _texts(differences: Sequence[tuple[str, QtyE2, QtyE2]]) -> list[list[str]]:
    return [[ticker, format_qty(ours), format_qty(theirs)] for ticker, ours, theirs in differences]
