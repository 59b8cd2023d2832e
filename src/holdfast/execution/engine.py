"""`OrderExecutionEngine`: structures in and out, through the trader's one path, with a name for every step.

    open    Trader.route (gate reserves, journal, venue) ─▶ outcome as a value; legs one by one out of a reserved plan
    exit    demanded ─▶ ladder ─▶ Trader.route(reduce_only) ─▶ ended ─▶ next rung … ─▶ flat
    step    time moved: look at every order at work, send what is due, at most one exit per execution

How an order goes out stands in `sending`, the way in leg by leg in `legged_entry`, the way out in `way_out`.

A structure goes as one combination, or leg by leg under a `LeggingPolicy` where the venue has none. Every order is
named by its execution and step, so the same step is never sent twice, and `restore` finds half-done work in the
journal: what was sent is looked at, what was never sent is decided anew, a legged entry cut short is unwound. Its plan
stays reserved through all of this, until every leg is there or nothing is held.

What the gate refuses comes back as an outcome, and goes out as a `portfolio_limit_rejection` event. Greeks, worst
loss and reservation are the gate's: there is no way around it from here.

Limits: it acts when told of time, on the trader's loop; see also the limits of the ways in and out.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import BadInput, CircuitBreakerOpenError, VenueError, VenueRejected
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.options import Right
from holdfast.core.orders import Fill
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import Action
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
from holdfast.execution.legged_entry import LeggedEntry
from holdfast.execution.legging import LeggingPolicy
from holdfast.execution.outcomes import EngineResult, Outcome
from holdfast.execution.quotes import QuoteBoard
from holdfast.execution.sending import Sender
from holdfast.execution.structures import Structure
from holdfast.execution.trader import Trader
from holdfast.execution.way_out import RETRY_SECS, WayOut
from holdfast.risk.events import RiskEventSink
from holdfast.risk.order import Order

STRATEGY = "options-desk"
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
        self._is_legged = legging is not None
        self._sender = Sender(
            trader, self.executions, clock=clock, breaker=circuit_breaker, events=event_logger, name=name
        )
        # In the journal's order: what closes a leg before an exit fills is not taken for closed by that exit.
        trader.ledger.on_external = self.executions.close
        self._way_out = WayOut(self._sender, board, by_legs=self._is_legged)
        self._legged = LeggedEntry(
            self._sender, board, legging, lambda one, rule: self.demand(one, rule=rule, demanded=True)
        )

    # Entering -----------------------------------------------------------------------------------------

    async def open(
        self, structure: Structure, *, execution_id: str, limit: PriceE4, units: QtyE2 = QtyE2(_CONTRACT)
    ) -> EngineResult:
        """Enter *units* of *structure* at *limit* (net debit of a unit) or better, at once or not at all.

        The same execution id is never sent twice: it gives the recorded outcome.
        """
        known = self.executions.known.get(execution_id)
        if known is not None and known.entries:
            return self._sender.told(known, known.entries[-1])
        legs = tuple((leg.ticker, leg.ratio) for leg in structure.legs)
        opposing = self.executions.opposing(legs)
        if opposing:
            reason = RejectReason(code=Code.BAD_INPUT, scope=opposing, keys={"opposing_leg": opposing})
            self._sender.report(reason, structure.symbol, execution_id)
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
        if self._is_legged and len(legs) > 1:
            return await self._legged.open(execution, structure)
        price = limit if structure.entry_action is Action.BUY else PriceE4(-limit)
        signal = self._sender.signal(
            structure.ticker, structure.entry_action, units, price, key_of(execution_id, OPEN_STEP)
        )
        self.executions.add(execution)
        result = await self._sender.enter(execution, signal)
        if not execution.entries:
            del self.executions.known[execution_id]
        return result

    # Leaving ------------------------------------------------------------------------------------------

    def demand(self, execution: Execution, *, rule: str, demanded: bool) -> None:
        """Its exit is wanted: see `WayOut.demand`."""
        self._way_out.demand(execution, rule=rule, demanded=demanded)

    async def exit(self, execution_id: str, *, rule: str, demanded: bool = False) -> EngineResult:
        """Leave an execution and send what can be sent now; a second demand changes nothing.

        Raises:
            BadInput: No such execution.
        """
        execution = self.executions.known.get(execution_id)
        if execution is None:
            raise BadInput(f"no execution {execution_id!r} in this journal")
        self.demand(execution, rule=rule, demanded=demanded)
        await self._way_out.look(execution)
        return await self._way_out.send(execution) or self._way_out.told(execution)

    async def step(self, now_ns: int) -> None:
        """Time moved to *now_ns* (UTC): look at everything under way and send what is due, oldest first."""
        await self._sender.probe()
        if await self._knows_its_legs():
            self._take_over_what_closed(now_ns)
        for execution in self.executions.live():
            await self._step(execution, now_ns)
        self._legged.tend_plans()

    async def _step(self, execution: Execution, now_ns: int) -> None:
        account, ladder = self.trader.account, execution.ladder
        await self._way_out.look(execution)
        phase = self.executions.phase(execution, account)
        if phase is Phase.FLAT:
            if ladder.state is not ExitState.FLAT:
                ladder.on(ExitEvent.FLAT)
            return
        if phase is Phase.ENTERING:
            if not has_open(execution.entries, account):
                await self._legged.go_on(execution, now_ns)
            elif execution.leg_count and execution.held and not self._way_out.is_entering(execution):
                self.demand(execution, rule="LegLost", demanded=True)
            return
        if phase is Phase.HELD and not execution.is_balanced:
            self.demand(execution, rule="Unbalanced", demanded=True)
        if ladder.state is ExitState.BARRED and now_ns - execution.tried_ns >= RETRY_SECS * NANOS:
            ladder.on(ExitEvent.ALLOWED)
        await self._way_out.send(execution)

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
                self._sender.alarm_once(execution, "closed_elsewhere", ticker)
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
