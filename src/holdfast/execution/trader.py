"""The running order path of one venue account: from a signal to the venue, and from the venue to the books.

    signal ─▶ name ─▶ gate (check and reserve) ─▶ breaker's leave ─▶ DECISION + ORDER, durable ─▶ place ONCE
                                                                                    answer ─▶ ORDER_UPDATE

The order of work never varies. If the append fails, leave and reservation go back and nothing is sent. A lost
answer is UNKNOWN: its reservation stays, no other id is ever used for it, the venue's books tell. `NotSent` alone is
tried again, under the same id, a bounded number of times; and, where the venue takes no name twice, an UNKNOWN order
that its books lack, as execution/resend.py says. An order whose caller is cancelled goes on to its end.

| an order is … | here | by |
| --- | --- | --- |
| refused | `Trader._route` asks, `Refusing.deny` in execution/refusing.py writes it | `Gate.admit` in risk/gate.py, one function |
| written | `Trader._write`, before any byte leaves | `WriteAheadLog`, the bytes in audit/format.py |
| sent | `Trader._place`, the only call of `Venue.place` | the venue's adapter |
| answered | `Trader._take` | `Ledger.answered` in execution/ledger.py |
| looked for after a lost answer | `LostOrders.look_up` in execution/lost_orders.py | the decisions of execution/reconcile.py |
| sent again, the same bytes | `Resender`, through `Trader._place` | `check_again` in execution/resend.py, `Gate.renew` |
| begun with | `Trader.start` | `Starting` in execution/starting.py: replay, open a run, explain the venue's books |
| followed | `Trader.run` | `Following` in execution/following.py: events, strategies, what time makes due |

Limits: everything here runs on one event loop; the gate may be asked from any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import Entry
from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import (
    AuditError,
    BadInput,
    CircuitBreakerOpenError,
    VenueError,
    VenueRejected,
)
from holdfast.core.ids import client_order_id
from holdfast.core.instruments import Instrument, InstrumentKind
from holdfast.core.orders import Fill, OrderEvent, OrderStatus
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import Intent, Side, Signal, TimeInForce, content_digest
from holdfast.execution.books import Books
from holdfast.execution.following import Following
from holdfast.execution.ledger import COMPONENT, Ledger
from holdfast.execution.order_record import order_details
from holdfast.execution.refusing import Refusing
from holdfast.execution.resend import Resender
from holdfast.execution.results import RouteResult, RouteStatus, line_of, outcome_of, result_of
from holdfast.execution.room import JournalRoom
from holdfast.execution.settling import wait_settled
from holdfast.execution.starting import ADAPTER, Starting
from holdfast.execution.strategy import Strategy, TraderObserver
from holdfast.execution.venue import (
    Ack,
    CancelAnswer,
    NotSent,
    PlaceAnswer,
    PlacementPermit,
    Unknown,
    Venue,
    VenueEvent,
)
from holdfast.risk.account import Account
from holdfast.risk.decisions import Decision
from holdfast.risk.gate import Admission, Gate
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits
from holdfast.risk.manager import COMPONENT as GATE_COMPONENT
from holdfast.risk.market import Market
from holdfast.risk.order import Order

__all__ = [
    "GATE_COMPONENT",
    "RESTING_SECS",
    "RouteResult",
    "RouteStatus",
    "Trader",
    "order_details",
    "outcome_of",
    "unread_code",
]

RESTING_SECS = 86_400
_CONFLICT = 409
_MARK_CODES = frozenset({Code.MARK_UNKNOWN, Code.MARK_STALE})


class Trader:
    """One venue account, from signal to settled fill.

    Args:
        venue: Where orders go.
        log: The journal; it alone says what happened.
        limits: What no order may exceed.
        clock: Records, sessions, deadlines.
        strategies: Asked about every event, in this order.
        observer: A desk that acts on this loop; told of time, own fills and ended orders after the strategies.
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
        venue, log, user: As given.
        account: The fold over the journal.
        gate: Decides and reserves.
        market: Prices and rules.
        ledger: Turns evidence into records.
        books: The venue's books held against ours.
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
        observer: TraderObserver | None = None,
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
        self._sleep = sleep
        self._retries = retries
        self._retry_secs = retry_secs
        self._resting_ns = resting_secs * NANOS
        self.books = Books(
            venue,
            self.ledger,
            self.gate,
            clock=clock,
            on_own_fill=self._tell_fill,
            on_absent=self._lost_and_absent,
            is_routing=lambda: bool(self._routing),
            reconcile_secs=reconcile_secs,
            alarm_secs=alarm_secs,
        )
        self._resender = Resender(
            venue, self.ledger, self.gate, self.books, clock=clock, place=self._place, take=self._take
        )
        self._refusing = Refusing(self.gate, self.ledger)
        self._room = JournalRoom(log, self.ledger)
        self._starting = Starting(log, self.ledger, self.books, self._resender, self._room)
        self._following = Following(
            venue,
            self.ledger,
            self.books,
            self.market,
            starting=self._starting,
            room=self._room,
            clock=clock,
            strategies=strategies,
            observer=observer,
            route=self.route,
            on_time=on_time,
            tick_secs=tick_secs,
        )
        self._numbered = 0
        self._routing: dict[str, tuple[str, asyncio.Task[RouteResult]]] = {}
        self._start_lock = asyncio.Lock()
        log.wal.on_poison(self.ledger.journal_failed)

    # Starting and stopping ----------------------------------------------------------------------------

    async def start(self) -> bool:
        """Replay the journal, read the venue, explain the difference; True once increasing orders may leave.

        While it returns False the state stays CANCEL_ONLY, `tick` tries again, and RECONCILE records say why.

        Raises:
            AuditError: The journal cannot be read or written.
        """
        async with self._start_lock:
            await self._starting.begin()
            self.is_started = True
            return self.account.holds.state.allows_increasing

    async def stop(self) -> list[Order]:
        """Wait for orders on their way, write what is left to write; returns the orders that still rest."""
        self._following.is_stopped = True
        running = [task for _, task in self._routing.values()]
        if running:
            await asyncio.wait(running)
        await self.ledger.write()
        return [order for order in self.account.open_orders() if not order.external]

    @property
    def is_running(self) -> bool:
        """Whether `run` follows the venue now."""
        return self._following.is_running

    @property
    def observer(self) -> TraderObserver | None:
        """Who acts on this loop; may be set later, by a desk that needs the trader first."""
        return self._following.observer

    @observer.setter
    def observer(self, observer: TraderObserver | None) -> None:
        self._following.observer = observer

    @property
    def unread(self) -> VenueError | CircuitBreakerOpenError | None:
        """Why the venue could not be read at start; None once it could."""
        return self._starting.unread

    # Naming a wish ------------------------------------------------------------------------------------

    async def route(self, signal: Signal, *, demanded: bool = False, plan: str = "") -> RouteResult:
        """Send *signal* through the whole path, once per key.

        The same key with the same content gets the recorded outcome, other content INTENT_CONFLICT. Cancelling
        the caller does not cancel the order on its way.

        Args:
            signal: What is wished.
            demanded: A stop or a person demands this exit: a poisoned journal does not hold it up, its reserve
                takes the intent. Only an order that reduces profits from it, and no other hold is passed.
            plan: Of which plan of the account it is a step; see `Gate.admit`.

        Raises:
            AuditError: Only if `start` was not called and cannot be done.
        """
        if not self._starting.log_id:
            await self.start()
        key = signal.key or self._next_key()
        name = client_order_id(self._starting.log_id, signal.strategy, key)
        content = content_digest(signal)
        running = self._routing.get(name)
        if running is not None and running[0] == content:
            return await asyncio.shield(running[1])
        if running is not None or self._conflicts(name, content):
            return await self._refusing.refuse(signal, key, name, Code.INTENT_CONFLICT, is_new=False)
        known = self._recorded(name)
        if known is not None:
            return known
        if self.log.wal.state == "poisoned" and not demanded:
            return await self._refusing.refuse(signal, key, name, Code.AUDIT_UNAVAILABLE)
        routing = self._route(signal, key, name, content, demanded=demanded, plan=plan)
        task = asyncio.get_running_loop().create_task(routing)
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
            return self._told(order, repeated=True)
        if denial is None:
            return None
        is_breaker = denial.reason == Code.CIRCUIT_BREAKER_OPEN
        return RouteResult(
            status=RouteStatus.BREAKER_OPEN if is_breaker else RouteStatus.DENIED,
            client_order_id=name,
            reason=denial.reason,
            repeated=True,
        )

    # The order of work --------------------------------------------------------------------------------

    async def _route(
        self, signal: Signal, key: str, name: str, content: str, *, demanded: bool, plan: str
    ) -> RouteResult:
        instrument = await self._rules(signal)
        if isinstance(instrument, Code):
            return await self._refusing.refuse(signal, key, name, instrument)
        intent = Intent(client_order_id=name, key=key, signal=self._bounded(signal), instrument=instrument)
        if self.books.lacks_marks():
            lacking = self.gate.preview(intent, plan=plan)
            if lacking is not None and lacking.code in _MARK_CODES:  # nothing else refuses: worth a read
                await self.books.refresh_marks()
        self._room.watch_space()
        decision = self.gate.admit(intent, content=content, demanded=demanded, plan=plan)
        if self.log.wal.space_low and decision.reason and decision.reason.code is Code.STATE_REDUCING:
            return await self._refusing.refuse(signal, key, name, Code.AUDIT_UNAVAILABLE)
        if decision.admission is None:
            return await self._refusing.deny(decision)
        try:
            permit = self.venue.placement_permit(intent.ticker, reducing=decision.reducing)
        except CircuitBreakerOpenError as error:
            self.gate.withdraw(decision, breaker=error.breaker)
            return await self._refusing.deny(decision)
        return await self._send(intent, decision, decision.admission, permit)

    async def _send(
        self, intent: Intent, decision: Decision, admission: Admission, permit: PlacementPermit
    ) -> RouteResult:
        """Write first, then act: nothing is placed that is not durable."""
        order = self.account.orders[intent.client_order_id]
        try:
            await self._write(intent, order, decision, permit)
        except (AuditError, BadInput) as error:
            permit.ignored()
            self.gate.give_back(admission)
            self.ledger.journal_failed(str(error))
            return RouteResult(
                status=RouteStatus.DENIED,
                client_order_id=intent.client_order_id,
                reason=Code.AUDIT_UNAVAILABLE,
                refusal=RejectReason(code=Code.AUDIT_UNAVAILABLE, keys={"error": str(error)[:200]}),
            )
        try:
            answer = await self._place(intent, order, admission, permit)
        finally:
            self.gate.retire(intent.client_order_id)
        await self._take(order, answer)
        if order.status is OrderStatus.UNKNOWN:
            self._resender.sent(intent)
        return self._told(order)

    async def _write(self, intent: Intent, order: Order, decision: Decision, permit: PlacementPermit) -> None:
        """Make the decision and the intent durable, in one batch.

        Raises:
            AuditError: They are not, and the journal takes nothing more.
            BadInput: The records cannot be written as they are.
        """
        user = self.user or ""
        records = [
            Entry("DECISION", decision.details(), user, GATE_COMPONENT),
            Entry("ORDER", order_details(intent, order), user, COMPONENT),
        ]
        try:
            await self.ledger.write_intent(records, demanded=decision.demanded)
        except asyncio.CancelledError:
            # The record may yet become durable, so the order exists; but no byte has left.
            permit.ignored()
            self.ledger.happened(order, OrderEvent.NOT_SENT, reason="cancelled", evidence="before sending")
            self.ledger.write_now()
            raise

    async def _place(
        self, intent: Intent, order: Order, admission: Admission, permit: PlacementPermit
    ) -> PlaceAnswer:
        """Send once; again only after `NotSent`, under the same id, while leave is given."""
        for attempt in range(self._retries + 1):
            if order.withdrawn:  # canceled while it was written, or while it waited
                permit.ignored()
                return NotSent(reason="canceled")
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
                self.ledger.hold(ADAPTER, TradingState.CANCEL_ONLY, reason=why)
                await self.ledger.write()
                raise
            if not isinstance(answer, NotSent) or attempt == self._retries:
                return answer
            if order.status is not OrderStatus.PENDING:  # sent before: `Resender` says when again
                return answer
            await self._sleep(self._retry_secs)
            if order.client_order_id in self.ledger.zombies or order.status is not OrderStatus.PENDING:
                return answer
            if self._clock.monotonic_ns() > admission.deadline_ns:
                return answer
            try:
                permit = self.venue.placement_permit(intent.ticker, reducing=admission.reducing)
            except CircuitBreakerOpenError:
                return answer
            admission = self.gate.readmit(admission)
        raise AssertionError("the last attempt returns")

    async def _take(self, order: Order, answer: PlaceAnswer) -> None:
        """Write what the venue answered, and look at once for what the answer leaves open."""
        if order.legs and isinstance(answer, Ack) and answer.filled + answer.remaining < order.quantity:
            await self.books.read_fills_quietly()  # it ended short of its quantity: some legs may have filled
        self.ledger.answered(order, answer)
        is_conflict = isinstance(answer, Unknown) and answer.status == _CONFLICT
        if is_conflict or (isinstance(answer, Ack) and order.status is OrderStatus.UNKNOWN):
            await self.books.look_up(order)
        await self.ledger.write()
        await self.books.hunt_zombies()
        if not self._following.is_running and order.client_order_id in self.ledger.claims:
            await self.books.read_fills_quietly()

    # Around it ----------------------------------------------------------------------------------------

    async def _rules(self, signal: Signal) -> Instrument | Code:
        """The rules of the signal's market, those of everything held read too where they decide; or why not."""
        try:
            instrument = await self.books.instrument(signal.ticker)
        except CircuitBreakerOpenError:
            # Its rules cannot be read now: as unknown as a ticker that does not exist, for another reason.
            return Code.CIRCUIT_BREAKER_OPEN
        except (VenueError, BadInput) as error:
            return unread_code(error)
        is_event = instrument.kind is InstrumentKind.BINARY
        if signal.side is Side.NO and not is_event:  # only an event contract has two sides
            return Code.BAD_INPUT
        if instrument.event_exclusive or not is_event:
            await self.books.learn_rules()
        return instrument

    def _bounded(self, signal: Signal) -> Signal:
        """A resting order ends by itself some day: the bound after which a lost one is proven absent."""
        if signal.tif is not TimeInForce.GTC or signal.expiration_ns:
            return signal
        return msgspec.structs.replace(signal, expiration_ns=self._clock.now_ns() + self._resting_ns)

    async def _lost_and_absent(self, order: Order) -> None:
        """The venue's books lack a lost order; see `Resender`."""
        await self._resender.absent(order)

    def _told(self, order: Order, *, repeated: bool = False) -> RouteResult:
        claimed = self.ledger.claims.get(order.client_order_id, order.filled)
        return result_of(order, claimed=claimed, repeated=repeated)

    async def _tell_fill(self, fill: Fill, order: Order) -> None:
        """A fill of ours was booked; see `Following`."""
        await self._following.tell_fill(fill, order)

    # Following the venue ------------------------------------------------------------------------------

    async def run(self, events: AsyncIterator[VenueEvent]) -> None:
        """Deal with *events* in order until they end, `stop`, or a venue's final tick; see `Following.run`."""
        await self._following.run(events)

    async def handle(self, event: VenueEvent) -> None:
        """Deal with one event to its end; see `Following.handle`."""
        await self._following.handle(event)

    async def tick(self, now_ns: int) -> None:
        """Time moved to *now_ns*: do what is due, then ask the strategies."""
        await self._following.tick(now_ns)

    # Faces of the books -------------------------------------------------------------------------------

    async def cancel(self, name: str) -> CancelAnswer:
        """Cancel one of the account's orders by its client order id; see `Books.cancel`."""
        return await self.books.cancel(name)

    async def cancel_all_own(self) -> list[Order]:
        """Cancel every open order of this journal; returns those still open afterwards."""
        return await self.books.cancel_all_own()

    async def instrument(self, ticker: str) -> Instrument:
        """One market's rules; see `Books.instrument`."""
        return await self.books.instrument(ticker)

    async def prepare(self, ticker: str) -> Instrument:
        """Read what a question about *ticker* needs; see `Books.prepare`."""
        return await self.books.prepare(ticker)

    def lacks_marks(self) -> bool:
        """Whether the price of anything held is missing or too old."""
        return self.books.lacks_marks()

    # Waiting ------------------------------------------------------------------------------------------

    async def wait_settled(self, name: str, *, timeout_secs: float) -> bool:
        """Wait until the order has ended or rests, fills booked; False in vain. See `settling.wait_settled`."""
        return await wait_settled(self.ledger, name, timeout_secs=timeout_secs)

    async def submit(
        self,
        signal: Signal,
        *,
        settle_secs: float,
        on_refusal: Callable[[str, RejectReason], None] | None = None,
    ) -> dict[str, str]:
        """Route *signal* and wait up to *settle_secs* (wall) for its final outcome, as one flat line.

        `outcome` is filled, partial, working, canceled, rejected, denied, not_sent or unknown. *on_refusal* hears
        our own refusal with all its facts, and the name of the order.
        """
        result = await self.route(signal)
        name = result.client_order_id
        if result.refusal is not None and on_refusal is not None:
            on_refusal(name, result.refusal)
        if result.status in {RouteStatus.SUBMITTED, RouteStatus.UNKNOWN}:
            await self.wait_settled(name, timeout_secs=settle_secs)
        return line_of(result, self.account.orders.get(name), key=signal.key)


def unread_code(error: Exception) -> Code:
    """How an order for a market is refused whose rules could not be read because of *error*."""
    is_absent = isinstance(error, BadInput) or (isinstance(error, VenueRejected) and error.status in {0, 404})
    return Code.UNKNOWN_INSTRUMENT if is_absent else Code.INSTRUMENT_UNREAD
