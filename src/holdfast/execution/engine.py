"""`OrderExecutionEngine`: structures in and out, through the trader's one path, with a name for every step.

    open    Trader.route (gate reserves, journal, venue) ─▶ outcome as a value; legs one by one out of a reserved plan
    exit    demanded ─▶ ladder ─▶ Trader.route(reduce_only) ─▶ ended ─▶ next rung … ─▶ flat
    step    time moved: look at every order at work, send what is due, at most one exit per execution

A structure goes as one combination, or leg by leg under a `LeggingPolicy` where the venue has none. Every order is
named by its execution and step, so the same step is never sent twice, and `restore` finds half-done work in the
journal: what was sent is looked at, what was never sent is decided anew, a legged entry cut short is unwound. Its plan
stays reserved through all of this, until every leg is there or nothing is held.

What the gate refuses comes back as an outcome, and goes out as a `portfolio_limit_rejection` event. Greeks, worst
loss and reservation are the gate's: there is no way around it from here.

Limits: two positions that guarantee something together (a put and the shares of an assignment, a put above a call)
are each no reduction by themselves. Where nothing is short one of them leaves under the limits of an entry; what these
refuse, and what guards a short, stays until the price or the expiry allows it, and a person is alarmed. It acts when
told of time, on the trader's loop. Quotes come from the board; an exit of which no side can be executed waits,
counted, and is alarmed after a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.breaker.breaker import Permit, TradingCircuitBreaker
from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import BadInput, CircuitBreakerOpenError, VenueError, VenueRejected
from holdfast.core.ids import client_order_id
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.options import Right
from holdfast.core.orders import Fill, OrderStatus
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import Action, Intent, Side, Signal, TimeInForce
from holdfast.execution.executions import (
    OPEN_STEP,
    Execution,
    Executions,
    JournalRecord,
    Phase,
    has_open,
    key_of,
)
from holdfast.execution.exits import ExitEvent, ExitState, Ladder
from holdfast.execution.leaving import ExitOrder, ExitQuotes, next_piece, tick_at
from holdfast.execution.legging import LeggingPolicy, entry_order, worst_states
from holdfast.execution.outcomes import EngineResult, Outcome, outcome_of
from holdfast.execution.quotes import QuoteBoard
from holdfast.execution.structures import Structure, StructureLeg, as_one
from holdfast.execution.trader import GATE_COMPONENT, RouteResult, RouteStatus, Trader
from holdfast.risk.events import PORTFOLIO_LIMITS, RiskEvent, RiskEventSink, RiskEventType
from holdfast.risk.order import Order
from holdfast.risk.plans import GIVEN_BACK, UNWINDING, Plan, PlanLeg

STRATEGY = "options-desk"
RETRY_SECS = 60
HOLD_ALARM_SECS = 300

_OWN_RECORDS = frozenset({Code.CIRCUIT_BREAKER_OPEN, Code.AUDIT_UNAVAILABLE, Code.INTENT_CONFLICT})
_CONTRACT = 100


class OrderExecutionEngine:
    """Enters and leaves structures on one account.

    Args:
        trader: The account's trader; its gate reserves.
        board: Quotes of the contracts.
        clock: Ages and intervals.
        circuit_breaker: Where the venue's adapter has no breaker of its own: asked before an entry, told how it went.
        legging: How legs go one by one; None sends combinations.
        event_logger: Gets refusals; None is fine.
        name: Stands in every record of its orders.

    Attributes:
        executions: What it knows of.
        trader, board: As given.
    """

    def __init__(
        self,
        trader: Trader,
        board: QuoteBoard,
        *,
        clock: Clock,
        circuit_breaker: TradingCircuitBreaker | None = None,
        legging: LeggingPolicy | None = None,
        event_logger: RiskEventSink | None = None,
        name: str = STRATEGY,
    ) -> None:
        self.trader = trader
        self.board = board
        self.executions = Executions(name)
        self._clock = clock
        self._breaker = circuit_breaker
        self._legging = legging
        self._pricer = ExitQuotes(board, trader.market, clock)
        self._events = event_logger
        self._name = name
        self._structures: dict[str, Structure] = {}
        self._opening: set[str] = set()
        self._held_since_ns: dict[str, int] = {}
        self._alarmed: set[tuple[str, str]] = set()

    # Entering -----------------------------------------------------------------------------------------

    async def open(
        self, structure: Structure, *, execution_id: str, limit: PriceE4, units: QtyE2 = QtyE2(_CONTRACT)
    ) -> EngineResult:
        """Enter *units* of *structure* at *limit* (net debit of a unit) or better, at once or not at all.

        The same execution id is never sent twice: it gives the recorded outcome.
        """
        known = self.executions.known.get(execution_id)
        if known is not None and known.entries:
            return self._told(known, known.entries[-1])
        legs = tuple((leg.ticker, leg.ratio) for leg in structure.legs)
        opposing = self.executions.opposing(legs)
        if opposing:
            reason = RejectReason(code=Code.BAD_INPUT, scope=opposing, keys={"opposing_leg": opposing})
            self._report(reason, structure.symbol, execution_id)
            return EngineResult(
                outcome=Outcome.DENIED, execution_id=execution_id, reason="opposing_leg", refusal=reason
            )
        execution = Execution(
            execution_id=execution_id,
            symbol=structure.symbol,
            legs=legs,
            units=units,
            ladder=Ladder(),
            opened_ns=self._clock.now_ns(),
        )
        self._structures[execution_id] = structure
        if self._legging is not None and len(legs) > 1:
            self._opening.add(execution_id)
            try:
                return await self._open_by_legs(execution, structure)
            finally:
                self._opening.discard(execution_id)
        price = limit if structure.entry_action is Action.BUY else PriceE4(-limit)
        signal = self._signal(
            structure.ticker, structure.entry_action, units, price, key_of(execution_id, OPEN_STEP)
        )
        self.executions.add(execution)
        result = await self._enter(execution, signal)
        if not execution.entries:
            del self.executions.known[execution_id]
        return result

    async def _enter(self, execution: Execution, signal: Signal) -> EngineResult:
        permit: Permit | None = None
        if self._breaker is not None:
            try:
                permit = self._breaker.acquire(probe=False)
            except CircuitBreakerOpenError as error:
                return EngineResult(
                    outcome=Outcome.BREAKER_OPEN, execution_id=execution.execution_id, reason=str(error)
                )
        result = await self._route(execution, signal, is_entry=True)
        if permit is not None:
            _settle(permit, result)
        return self._result(execution, result)

    async def _route(
        self, execution: Execution, signal: Signal, *, is_entry: bool, demanded: bool = False
    ) -> RouteResult:
        """Send one order through the trader; its name is known before its answer, as its fills may be."""
        name = client_order_id(self.trader.log.wal.log_id, signal.strategy, signal.key)
        self.executions.own(execution, name, is_entry=is_entry)
        # What a plan holds is admitted out of it; where there is none, or it does not, as any other order.
        result = await self.trader.route(signal, demanded=demanded, plan=execution.execution_id)
        if result.client_order_id not in self.trader.account.orders:
            self.executions.disown(execution, name)
        if result.refusal is not None and result.refusal.code not in _OWN_RECORDS:
            self._report(result.refusal, execution.symbol, execution.execution_id, intent=signal.key)
        return result

    def _signal(
        self, ticker: str, action: Action, qty: QtyE2, price: PriceE4, key: str, *, reduce_only: bool = False
    ) -> Signal:
        return Signal(
            ticker=ticker,
            side=Side.YES,
            action=action,
            count=qty,
            price=price,
            tif=TimeInForce.IOC,
            key=key,
            strategy=self._name,
            reduce_only=reduce_only,
        )

    # Entering leg by leg ------------------------------------------------------------------------------

    async def _open_by_legs(self, execution: Execution, structure: Structure) -> EngineResult:
        """Have the gate reserve everything that may be needed on the way, then send the first leg."""
        refusal = self._reserve_plan(execution, structure)
        await self.trader.ledger.write()
        if refusal is not None:
            self._report(refusal, execution.symbol, execution.execution_id)
            return EngineResult(
                outcome=Outcome.DENIED,
                execution_id=execution.execution_id,
                reason=refusal.code.value,
                refusal=refusal,
            )
        execution.leg_count = len(structure.legs)
        self.executions.add(execution)
        result = await self._next_leg_in(execution, structure)
        if not execution.entries:
            del self.executions.known[execution.execution_id]
            self._give_back(execution.execution_id, "never begun")
        return result

    def _reserve_plan(self, execution: Execution, structure: Structure) -> RejectReason | None:
        """Reserve the way in and the way out, or say what refuses it; every state's decision is recorded."""
        legs = self._plan_legs(execution, structure)
        if isinstance(legs, RejectReason):
            return legs
        states = [
            self._state(execution, held, legs, number)
            for number, held in enumerate(worst_states(structure.legs), start=1)
        ]
        decisions, plan = self.trader.gate.reserve_plan(execution.execution_id, states, legs)
        for decision in decisions:
            self.trader.ledger.note("DECISION", decision.details(), component=GATE_COMPONENT)
        if plan is None:
            return decisions[-1].reason
        self.trader.ledger.note("PLAN", plan.details())
        return None

    def _plan_legs(self, execution: Execution, structure: Structure) -> list[PlanLeg] | RejectReason:
        """Each leg at the worst price that it may go in at; what is missing where one has no quote."""
        policy = self._legging or LeggingPolicy()
        legs: list[PlanLeg] = []
        for leg in entry_order(structure.legs):
            limit = self._leg_limit(leg, policy)
            if limit is None:
                return RejectReason(code=Code.QUOTE_ONE_SIDED, scope=leg.ticker)
            qty, known = leg.ratio * execution.units, leg.instrument
            legs.append(PlanLeg(leg.ticker, qty, limit, known.multiplier, known.fee_per_contract))
        return legs

    def _leg_limit(self, leg: StructureLeg, policy: LeggingPolicy) -> PriceE4 | None:
        """The executable side now, and the collar beyond it; None while nobody quotes it."""
        quote = self.board.quotes.get(leg.ticker)
        touch = None if quote is None else (quote.ask if leg.ratio > 0 else quote.bid)
        if touch is None:
            return None
        collar = touch * policy.leg_collar_bp // 10_000
        tick = tick_at(leg.instrument, touch)
        limit = (touch + collar) if leg.ratio > 0 else (touch - collar)
        return PriceE4(max(tick, limit // tick * tick))

    def _state(
        self, execution: Execution, held: tuple[StructureLeg, ...], legs: Sequence[PlanLeg], number: int
    ) -> Intent:
        """What is held after some legs, as one order at their limits: a question for the gate."""
        instrument = as_one(held)
        if len(held) == 1:
            first = legs[0]
            action = Action.BUY if first.qty > 0 else Action.SELL
            count, price = abs(first.qty), first.limit
        else:
            action, count = Action.BUY, execution.units
            net = sum(leg.ratio * planned.limit for leg, planned in zip(held, legs, strict=False))
            price = PriceE4(net)
        key = key_of(execution.execution_id, f"state-{number}")
        signal = self._signal(instrument.ticker, action, QtyE2(count), price, key)
        name = client_order_id("question", self._name, key)
        return Intent(client_order_id=name, key=key, signal=signal, instrument=instrument)

    def _give_back(self, name: str, reason: str) -> None:
        """Nothing of a plan is needed any more."""
        plan = self._plan(name)
        if plan is not None:
            self.trader.ledger.note("PLAN", plan.details(GIVEN_BACK, reason))

    def _plan(self, name: str) -> Plan | None:
        """What is reserved for an execution; None for nothing."""
        return self.trader.account.plans.live.get(name)

    def _tend_plans(self) -> None:
        """Give back what is complete, unwound or was never begun; what is to leave again brings in nothing more."""
        account = self.trader.account
        for name in [one for one in account.plans.live if one not in self._opening]:
            execution = self.executions.known.get(name)
            if execution is None:
                self._give_back(name, "never begun")
            elif has_open((*execution.entries, *execution.exits), account):
                continue
            elif execution.is_flat:
                self._give_back(name, "flat")
            elif execution.is_balanced and not execution.ladder.is_demanded:
                self._give_back(name, "complete")

    async def _next_leg_in(self, execution: Execution, structure: Structure) -> EngineResult:
        """Order what the first incomplete leg still lacks, at no worse than planned; whole once every leg is there."""
        policy, plan = self._legging or LeggingPolicy(), self._plan(execution.execution_id)
        planned = {} if plan is None else {leg.ticker: leg.limit for leg in plan.legs}
        for number, leg in enumerate(entry_order(structure.legs), start=1):
            lacks = abs(leg.ratio) * execution.units - abs(execution.held.get(leg.ticker, 0))
            if lacks <= 0:
                continue
            limit = self._leg_limit(leg, policy)
            if limit is None:
                return self._waits(execution, Code.QUOTE_ONE_SIDED)
            worst = planned.get(leg.ticker, limit)
            attempt = 1 + sum(1 for name in execution.entries if self._is_of(name, leg.ticker))
            if attempt == 1:
                execution.leg_since_ns = self._clock.now_ns()
            step = f"leg-{number}of{len(structure.legs)}-{attempt}"
            signal = self._signal(
                leg.ticker,
                Action.BUY if leg.ratio > 0 else Action.SELL,
                QtyE2(lacks),
                min(limit, worst) if leg.ratio > 0 else max(limit, worst),
                key_of(execution.execution_id, step),
            )
            return await self._enter(execution, signal)
        return EngineResult(
            outcome=Outcome.FILLED, execution_id=execution.execution_id, filled=execution.units
        )

    def _is_of(self, name: str, ticker: str) -> bool:
        order = self.trader.account.orders.get(name)
        return order is not None and order.ticker == ticker

    async def _continue_entry(self, execution: Execution, now_ns: int) -> None:
        """A legged entry between two legs: the next one, or the way back when its time is over."""
        structure, policy = self._structures.get(execution.execution_id), self._legging
        if structure is None or policy is None:
            self.demand(execution, rule="EntryCutShort", demanded=True)
        elif policy.is_late(execution.leg_since_ns, now_ns):
            self.demand(execution, rule="LegTimeout", demanded=True)
        elif ended := self._leg_failed(execution):
            self.demand(execution, rule=ended, demanded=True)
        else:
            result = await self._next_leg_in(execution, structure)
            if result.outcome is Outcome.DENIED:
                self.demand(execution, rule="LegRefused", demanded=True)

    def _leg_failed(self, execution: Execution) -> str:
        """Why the rest is not worth waiting for: the newest leg was rejected, or filled in part; "" otherwise."""
        orders = self.trader.account.orders
        last = orders.get(execution.entries[-1]) if execution.entries else None
        if last is not None and last.status is OrderStatus.REJECTED:
            return "LegRejected"
        return "LegPartlyFilled" if last is not None and last.filled and last.released else ""

    # Leaving ------------------------------------------------------------------------------------------

    def demand(self, execution: Execution, *, rule: str, demanded: bool) -> None:
        """Leave *execution*: latched until it is flat.

        Args:
            execution: Which.
            rule: Why, for the record.
            demanded: A stop or a person demands it; a poisoned journal does not hold it up then.
        """
        if not execution.ladder.is_demanded:
            execution.ladder.rule = rule
        execution.demanded = execution.demanded or demanded
        execution.ladder.on(ExitEvent.DEMANDED)
        plan = self._plan(execution.execution_id)
        if plan is not None and not plan.is_unwinding:
            self.trader.ledger.note("PLAN", plan.details(UNWINDING, rule))

    async def exit(self, execution_id: str, *, rule: str, demanded: bool = False) -> EngineResult:
        """Leave an execution and send what can be sent now; a second demand changes nothing.

        Raises:
            BadInput: No such execution.
        """
        execution = self.executions.known.get(execution_id)
        if execution is None:
            raise BadInput(f"no execution {execution_id!r} in this journal")
        self.demand(execution, rule=rule, demanded=demanded)
        await self._look_at_exit(execution)
        return await self._send_exit(execution) or self._exit_told(execution)

    async def step(self, now_ns: int) -> None:
        """Time moved to *now_ns* (UTC): look at everything under way and send what is due, oldest first."""
        await self._probe()
        if await self._knows_its_legs():
            self._take_over_what_closed(now_ns)
        for execution in self.executions.live():
            await self._step(execution, now_ns)
        self._tend_plans()

    async def _knows_its_legs(self) -> bool:
        """Read the rules of legs that no chain lists any more, since they say what an end left; False to try later."""
        held = {ticker for one in self.executions.live() for ticker in one.held}
        for ticker in held.union(one.ticker for one in self.executions.given_up):
            if ticker not in self.trader.market.instruments:
                try:
                    await self.trader.books.instrument(ticker, regardless=True)
                except VenueRejected:
                    continue
                except (VenueError, CircuitBreakerOpenError):
                    return False
        return True

    def _take_over_what_closed(self, now_ns: int) -> None:
        """Legs that expiry, assignment or a person closed; shares that these left are adopted, and are to go."""
        gained: dict[tuple[str, bool], int] = {}
        for execution, ticker, qty in self.executions.trim(self.trader.account):
            instrument = self.trader.market.instruments.get(ticker)
            terms = None if instrument is None else instrument.option
            if instrument is None or terms is None or not 0 < terms.expires_ns <= now_ns:
                self._alarm_once(execution, "closed_elsewhere", ticker)
            if instrument is not None and terms is not None:
                # Nobody says which of these ended in shares: each may have, so each way is counted apart.
                moved = qty * instrument.multiplier * (1 if terms.right is Right.CALL else -1)
                way = (terms.underlying, moved > 0)
                gained[way] = gained.get(way, 0) + abs(moved)
        for (symbol, is_long), most in gained.items():
            known = sum(one.held.get(symbol, 0) for one in self.executions.live())
            loose = self.trader.account.portfolio.position(symbol) - known
            adopted = min(abs(loose), most) * (1 if is_long else -1)
            if adopted and (loose > 0) is is_long:
                stock = self.executions.adopt_shares(symbol, adopted, now_ns)
                self.demand(stock, rule="Assigned", demanded=True)

    async def _step(self, execution: Execution, now_ns: int) -> None:
        account, ladder = self.trader.account, execution.ladder
        await self._look_at_exit(execution)
        phase = self.executions.phase(execution, account)
        if phase is Phase.FLAT:
            if ladder.state is not ExitState.FLAT:
                ladder.on(ExitEvent.FLAT)
            return
        if phase is Phase.ENTERING:
            if not has_open(execution.entries, account):
                await self._continue_entry(execution, now_ns)
            elif execution.leg_count and execution.held and not self._is_entering(execution):
                self.demand(execution, rule="LegLost", demanded=True)
            return
        if phase is Phase.HELD and not execution.is_balanced:
            self.demand(execution, rule="Unbalanced", demanded=True)
        if ladder.state is ExitState.BARRED and now_ns - execution.tried_ns >= RETRY_SECS * NANOS:
            ladder.on(ExitEvent.ALLOWED)
        await self._send_exit(execution)

    async def _look_at_exit(self, execution: Execution) -> None:
        """Take over what the account says of the exit at work, and whether anything is left to leave."""
        ladder, account = execution.ladder, self.trader.account
        order = account.orders.get(ladder.order) if ladder.order else None
        if order is not None:
            if not order.is_open:
                was_whole = not order.released and order.filled >= order.quantity
                # The venue may refuse to carry the worst price where it carries a gentler one.
                is_refused = order.status is OrderStatus.REJECTED and ladder.rung.to_the_worst
                ladder.on(ExitEvent.ENDED)
                if was_whole or is_refused:
                    ladder.restart()
            elif order.status is OrderStatus.UNKNOWN and ladder.state is not ExitState.UNKNOWN:
                ladder.on(ExitEvent.LOST)
                self._alarm_once(execution, "exit_unknown", order.client_order_id)
            elif order.status is OrderStatus.WORKING and ladder.state is ExitState.UNKNOWN:
                ladder.on(ExitEvent.FOUND)
        if execution.is_flat and not ladder.order and ladder.is_demanded:
            if not has_open(execution.entries, account):
                ladder.on(ExitEvent.FLAT)
        elif execution.is_flat and order is not None and order.status is OrderStatus.WORKING:
            # Something else closed the position: what still works would open it the other way.
            await self.trader.cancel(order.client_order_id)

    async def _send_exit(self, execution: Execution) -> EngineResult | None:
        """The next rung, if one is due and has a price; None where nothing was to be done."""
        ladder = execution.ladder
        if ladder.state is not ExitState.DUE or self._is_entering(execution):
            return None
        going = self._pricer.leavable(execution.held)
        if not going:
            # Nobody bids for what is left, and it obliges to nothing: it stays until it expires or somebody bids.
            return EngineResult(
                outcome=Outcome.WAITING, execution_id=execution.execution_id, reason="worthless"
            )
        found = await self._next_exit(execution, going)
        if found is None:
            return self._waits(execution, Code.QUOTE_ONE_SIDED)
        self._held_since_ns.pop(execution.execution_id, None)
        key = key_of(execution.execution_id, ladder.name_attempt())
        signal = self._signal(
            found.ticker, found.action, found.qty, found.limit, key, reduce_only=not execution.is_guard
        )
        result = await self._route(execution, signal, is_entry=False, demanded=execution.demanded)
        if result.client_order_id not in self.trader.account.orders:
            ladder.on(ExitEvent.BARRED)
            execution.tried_ns = self._clock.now_ns()
            if result.reason == Code.NOT_REDUCING:
                # It may protect something else, shares of an assignment for instance: pieces of it may reduce, and
                # gentler limits. Where nothing is short it protects nobody else's money: what does not even then
                # reduce leaves if the limits take it as an order like any other.
                is_last_piece = execution.in_pieces or len(going) == 1
                execution.is_guard = is_last_piece and self._owes_nothing(execution.symbol)
                execution.in_pieces = True
                ladder.restart()
            self._alarm_once(execution, "exit_barred", result.reason)
        else:
            ladder.order = result.client_order_id
            ladder.on(ExitEvent.SENT)
            await self._look_at_exit(execution)
        return self._result(execution, result)

    def _is_entering(self, execution: Execution) -> bool:
        """Whether an entry may still execute soon.

        One that stays UNKNOWN may never be told of: what is held is left beside it, as far as the gate calls that a
        reduction with the lost order filled or not.
        """
        lost_before_ns = self._clock.now_ns() - RETRY_SECS * NANOS
        orders = (self.trader.account.orders.get(name) for name in execution.entries)
        return any(
            order is not None
            and order.is_open
            and (order.status is not OrderStatus.UNKNOWN or order.created_ns > lost_before_ns)
            for order in orders
        )

    def _owes_nothing(self, symbol: str) -> bool:
        """Whether no position on *symbol* is a short one, as far as everything held is known."""
        rules = self.trader.market.instruments
        return all(
            (known := rules.get(ticker)) is not None and (qty > 0 or known.underlying != symbol)
            for ticker, qty in self.trader.account.portfolio.positions.items()
        )

    async def _next_exit(self, execution: Execution, going: dict[str, int]) -> ExitOrder | None:
        """What of *going* goes out next and at which limit; None while no side of it can be executed."""
        piece = next_piece(going, by_legs=self._legging is not None or execution.in_pieces)
        touch = piece.touch(self._pricer)
        try:
            # Whatever the breaker says: an exit must not wait for the rules of what is left.
            instrument = await self.trader.books.instrument(piece.ticker, regardless=True)
        except (VenueError, CircuitBreakerOpenError, BadInput):
            return None
        return None if touch is None else piece.order(instrument, touch, execution.ladder.rung)

    # Restarting ---------------------------------------------------------------------------------------

    def restore(self, records: Iterable[JournalRecord]) -> None:
        """Find half-done work in the journal; after `Trader.start`, before the first step."""
        self.executions.restore(records)
        self.executions.settle_ladders(self.trader.account)

    # What happened ------------------------------------------------------------------------------------

    def saw_fill(self, fill: Fill, order: Order) -> Execution | None:
        """One of the trader's fills; the execution it is of, None where it is not ours."""
        execution = self.executions.by_order.get(order.client_order_id)
        if execution is not None:
            execution.book(msgspec.structs.replace(fill, client_order_id=order.client_order_id))
            if execution.ladder.state is ExitState.FLAT and not execution.is_flat:
                # Its end was told before this fill was: it is held after all, and watched or left as any other.
                tried = execution.ladder.attempts
                state = ExitState.DUE if tried else ExitState.WATCHING
                execution.ladder = Ladder(state=state, attempts=tried, rule="LateFill")
        return execution

    async def _probe(self) -> None:
        """An own breaker whose wait is over closes by the venue's probe; an order is never one."""
        breaker = self._breaker
        if breaker is None or breaker.get_state() == "closed" or breaker.seconds_to_probe() != 0:
            return
        permit = breaker.try_acquire()
        if permit is None:
            return
        try:
            await self.trader.venue.probe()
        except (VenueError, CircuitBreakerOpenError) as error:
            permit.failure(str(error))
        else:
            permit.success()

    def _result(self, execution: Execution, result: RouteResult) -> EngineResult:
        name = result.client_order_id
        order = self.trader.account.orders.get(name)
        if order is None:
            is_breaker = result.status is RouteStatus.BREAKER_OPEN
            return EngineResult(
                outcome=Outcome.BREAKER_OPEN if is_breaker else Outcome.DENIED,
                execution_id=execution.execution_id,
                client_order_id=name,
                reason=result.reason,
                refusal=result.refusal,
            )
        return self._told(execution, name)

    def _told(self, execution: Execution, name: str) -> EngineResult:
        order = self.trader.account.orders[name]
        return EngineResult(
            outcome=outcome_of(order),
            execution_id=execution.execution_id,
            client_order_id=name,
            reason=order.reason,
            filled=order.filled,
        )

    def _exit_told(self, execution: Execution) -> EngineResult:
        ladder = execution.ladder
        if ladder.order:
            return self._told(execution, ladder.order)
        if ladder.state is ExitState.FLAT and execution.exits:
            return self._told(execution, execution.exits[-1])
        return EngineResult(
            outcome=Outcome.FILLED if ladder.state is ExitState.FLAT else Outcome.WAITING,
            execution_id=execution.execution_id,
            reason=ladder.state.value,
        )

    def _waits(self, execution: Execution, code: Code) -> EngineResult:
        """Nothing can be executed now: counted, and alarmed once it lasts."""
        now_ns = self._clock.now_ns()
        since_ns = self._held_since_ns.setdefault(execution.execution_id, now_ns)
        if now_ns - since_ns >= HOLD_ALARM_SECS * NANOS:
            self._alarm_once(execution, "exit_waits", code.value)
        return EngineResult(outcome=Outcome.WAITING, execution_id=execution.execution_id, reason=code.value)

    def _alarm_once(self, execution: Execution, what: str, value: str) -> None:
        key = (execution.execution_id, what)
        if key not in self._alarmed:
            self._alarmed.add(key)
            self.trader.ledger.alarm(
                what, value, "", execution_id=execution.execution_id, rule=execution.ladder.rule
            )

    def _report(self, refusal: RejectReason, symbol: str, execution_id: str, *, intent: str = "") -> None:
        """The refusal as an event."""
        if self._events is None:
            return
        self._events.emit(
            RiskEvent(
                event_type=RiskEventType.PORTFOLIO_LIMIT_REJECTION,
                component=PORTFOLIO_LIMITS,
                execution_id=execution_id,
                limit_type=refusal.code.value,
                current_value=refusal.value,
                limit_value=refusal.bound,
                allowed=False,
                rejection_reason=str(refusal),
                metadata=dict(refusal.keys),
                symbol=symbol,
                scope=refusal.scope,
                unit=refusal.unit,
                limits_version=self.trader.gate.limits.version,
                intent_id=intent,
            )
        )


def _settle(permit: Permit, result: RouteResult) -> None:
    """Tell an own breaker how the venue took the order."""
    if result.status is RouteStatus.UNKNOWN:
        permit.failure(result.reason)
    elif result.status in {RouteStatus.SUBMITTED, RouteStatus.REJECTED}:
        permit.success()
    else:
        permit.ignored()
