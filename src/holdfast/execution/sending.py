"""How an order of an execution goes out, and what is told of it: its name, its way through the trader, its outcome.

Every order is named by its execution and step before its answer is there, as its fills may be. Where the venue's
adapter has no breaker, an own one is asked before an entry and told how it went; an exit is never held up by it. What
the gate refuses goes out as a `portfolio_limit_rejection` event, what lasts is alarmed once.

Limits: it decides nothing: which order, when and at which price is said by `engine`, `legged_entry` and `way_out`.
"""

from __future__ import annotations

from holdfast.breaker.breaker import Permit, TradingCircuitBreaker
from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import CircuitBreakerOpenError, VenueError
from holdfast.core.ids import client_order_id
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import Action, Side, Signal, TimeInForce
from holdfast.execution.executions import Execution, Executions
from holdfast.execution.outcomes import EngineResult, Outcome, outcome_of
from holdfast.execution.trader import RouteResult, RouteStatus, Trader
from holdfast.risk.events import PORTFOLIO_LIMITS, RiskEvent, RiskEventSink, RiskEventType

HOLD_ALARM_SECS = 300

_OWN_RECORDS = frozenset({Code.CIRCUIT_BREAKER_OPEN, Code.AUDIT_UNAVAILABLE, Code.INTENT_CONFLICT})


class Sender:
    """Sends the orders of executions through one trader.

    Args:
        trader: The account's; its gate reserves.
        executions: They learn which order is whose.
        clock: Intervals.
        breaker: Asked before an entry; None where the venue's adapter has its own.
        events: Gets refusals; None is fine.
        name: Stands in every record of its orders.

    Attributes:
        trader, executions, clock, breaker, events, name: As given.
    """

    def __init__(
        self,
        trader: Trader,
        executions: Executions,
        *,
        clock: Clock,
        breaker: TradingCircuitBreaker | None,
        events: RiskEventSink | None,
        name: str,
    ) -> None:
        self.trader = trader
        self.executions = executions
        self.clock = clock
        self.breaker = breaker
        self.events = events
        self.name = name
        self._held_since_ns: dict[str, int] = {}
        self._alarmed: set[tuple[str, str]] = set()

    # Sending ------------------------------------------------------------------------------------------

    def signal(
        self, ticker: str, action: Action, qty: QtyE2, price: PriceE4, key: str, *, reduce_only: bool = False
    ) -> Signal:
        """An order at once or not at all, as the trader takes it."""
        return Signal(
            ticker=ticker,
            side=Side.YES,
            action=action,
            count=qty,
            price=price,
            tif=TimeInForce.IOC,
            key=key,
            strategy=self.name,
            reduce_only=reduce_only,
        )

    async def enter(self, execution: Execution, signal: Signal) -> EngineResult:
        """Send an entry; an own breaker is asked first, and told."""
        permit: Permit | None = None
        if self.breaker is not None:
            try:
                permit = self.breaker.acquire(probe=False)
            except CircuitBreakerOpenError as error:
                return EngineResult(
                    outcome=Outcome.BREAKER_OPEN, execution_id=execution.execution_id, reason=str(error)
                )
        result = await self.route(execution, signal, is_entry=True)
        if permit is not None:
            _settle(permit, result)
        return self.result(execution, result)

    async def route(
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
            self.report(result.refusal, execution.symbol, execution.execution_id, intent=signal.key)
        return result

    async def probe(self) -> None:
        """An own breaker whose wait is over closes by the venue's probe; an order is never one."""
        breaker = self.breaker
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

    # Telling ------------------------------------------------------------------------------------------

    def result(self, execution: Execution, result: RouteResult) -> EngineResult:
        """What the trader answered, as an outcome."""
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
        return self.told(execution, name)

    def told(self, execution: Execution, name: str) -> EngineResult:
        """Where the order *name* stands."""
        order = self.trader.account.orders[name]
        return EngineResult(
            outcome=outcome_of(order),
            execution_id=execution.execution_id,
            client_order_id=name,
            reason=order.reason,
            filled=order.filled,
        )

    def waits(self, execution: Execution, code: Code) -> EngineResult:
        """Nothing can be executed now: counted, and alarmed once it lasts."""
        now_ns = self.clock.now_ns()
        since_ns = self._held_since_ns.setdefault(execution.execution_id, now_ns)
        if now_ns - since_ns >= HOLD_ALARM_SECS * NANOS:
            self.alarm_once(execution, "exit_waits", code.value)
        return EngineResult(outcome=Outcome.WAITING, execution_id=execution.execution_id, reason=code.value)

    def goes_on(self, execution: Execution) -> None:
        """It waits no longer."""
        self._held_since_ns.pop(execution.execution_id, None)

    def alarm_once(self, execution: Execution, what: str, value: str) -> None:
        """Tell a person, the first time that it is so."""
        key = (execution.execution_id, what)
        if key not in self._alarmed:
            self._alarmed.add(key)
            self.trader.ledger.alarm(
                what, value, "", execution_id=execution.execution_id, rule=execution.ladder.rule
            )

    def report(self, refusal: RejectReason, symbol: str, execution_id: str, *, intent: str = "") -> None:
        """The refusal as an event."""
        if self.events is None:
            return
        self.events.emit(
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
