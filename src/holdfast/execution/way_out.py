"""The way out of a position: demanded once, then up the ladder, one exit at a time, until nothing is held.

`demand` latches; `look` takes over what became of the exit at work; `send` sends the next rung if one is due and has a
price. A long leg that nobody bids for stays until somebody does or it expires. An exit that is barred stays demanded.
That it waits, and for what, is told as an event when the wait begins.

Limits: two positions that guarantee something together (a put and the shares of an assignment, a put above a call)
are each no reduction by themselves. Where nothing is short one of them leaves under the limits of an entry; what these
refuse, and what guards a short, stays until the price or the expiry allows it, and a person is alarmed. Quotes come
from the board; an exit of which no side can be executed waits, counted, and is alarmed after a while.
"""

from __future__ import annotations

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput, CircuitBreakerOpenError, VenueError
from holdfast.core.money import QtyE2, format_qty
from holdfast.core.orders import OrderStatus
from holdfast.core.reasons import Code
from holdfast.execution.executions import Execution, has_open, key_of
from holdfast.execution.exits import ExitEvent, ExitState
from holdfast.execution.leaving import ExitOrder, ExitQuotes, next_piece
from holdfast.execution.outcomes import EngineResult, Outcome
from holdfast.execution.quotes import QuoteBoard
from holdfast.execution.sending import Sender
from holdfast.execution.venue import DedupProfile
from holdfast.risk.events import RiskEvent, RiskEventType
from holdfast.risk.order import Order
from holdfast.risk.plans import UNWINDING

COMPONENT = "exits"
EXIT_WAITS = "exit_waits"
WORTHLESS = "worthless"
RETRY_SECS = 60


class WayOut:
    """Takes executions out.

    Args:
        sender: Of the orders.
        board: Quotes of the legs.
        by_legs: Whether legs leave one by one, the venue having no combinations.
    """

    def __init__(self, sender: Sender, board: QuoteBoard, *, by_legs: bool) -> None:
        self._sender = sender
        self._trader = sender.trader
        self._executions = sender.executions
        self._by_legs = by_legs
        self._pricer = ExitQuotes(board, sender.trader.market, sender.clock)
        self._waiting: set[str] = set()

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
        plan = self._trader.account.plans.live.get(execution.execution_id)
        if plan is not None and not plan.is_unwinding:
            self._trader.ledger.note("PLAN", plan.details(UNWINDING, rule))

    async def look(self, execution: Execution) -> None:
        """Take over what the account says of the exit at work, and whether anything is left to leave."""
        ladder, account = execution.ladder, self._trader.account
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
                self._sender.alarm_once(execution, "exit_unknown", order.client_order_id)
            elif order.status is OrderStatus.WORKING and ladder.state is ExitState.UNKNOWN:
                ladder.on(ExitEvent.FOUND)
        if execution.is_flat and not ladder.order and ladder.is_demanded:
            if not has_open(execution.entries, account):
                ladder.on(ExitEvent.FLAT)
        elif execution.is_flat and order is not None and self._could_execute(order):
            # Something else closed the position: what still works would open it the other way, or close another's.
            await self._trader.cancel(order.client_order_id)

    def _could_execute(self, order: Order) -> bool:
        """Whether an exit rests at the venue, or may be sent again to it."""
        goes_again = self._trader.venue.dedup is DedupProfile.ALL and not order.order_id
        return order.status is OrderStatus.WORKING or (
            order.status is OrderStatus.UNKNOWN and goes_again and not order.withdrawn
        )

    async def send(self, execution: Execution) -> EngineResult | None:
        """The next rung, if one is due and has a price; None where nothing was to be done."""
        ladder = execution.ladder
        if ladder.state is not ExitState.DUE or self.is_entering(execution):
            return None
        going = self._pricer.leavable(execution.held)
        if not going:
            # Nobody bids for what is left, and it obliges to nothing: it stays until it expires or somebody bids.
            self._tell_wait(execution, WORTHLESS)
            return EngineResult(
                outcome=Outcome.WAITING, execution_id=execution.execution_id, reason=WORTHLESS
            )
        found = await self._next_exit(execution, going)
        if found is None:
            self._tell_wait(execution, Code.QUOTE_ONE_SIDED)
            return self._sender.waits(execution, Code.QUOTE_ONE_SIDED)
        self._sender.goes_on(execution)
        self._waiting.discard(execution.execution_id)
        key = key_of(execution.execution_id, ladder.name_attempt())
        signal = self._sender.signal(
            found.ticker, found.action, found.qty, found.limit, key, reduce_only=not execution.is_guard
        )
        result = await self._sender.route(execution, signal, is_entry=False, demanded=execution.demanded)
        if result.client_order_id not in self._trader.account.orders:
            ladder.on(ExitEvent.BARRED)
            execution.tried_ns = self._sender.clock.now_ns()
            if result.reason == Code.NOT_REDUCING:
                # It may protect something else, shares of an assignment for instance: pieces of it may reduce, and
                # gentler limits. Where nothing is short it protects nobody else's money: what does not even then
                # reduce leaves if the limits take it as an order like any other.
                is_last_piece = execution.in_pieces or len(going) == 1
                execution.is_guard = is_last_piece and self._owes_nothing(execution.symbol)
                execution.in_pieces = True
                ladder.restart()
            self._sender.alarm_once(execution, "exit_barred", result.reason)
        else:
            ladder.order = result.client_order_id
            ladder.on(ExitEvent.SENT)
            await self.look(execution)
        return self._sender.result(execution, result)

    def told(self, execution: Execution) -> EngineResult:
        """Where the exit stands."""
        ladder = execution.ladder
        if ladder.order:
            return self._sender.told(execution, ladder.order)
        if ladder.state is ExitState.FLAT and execution.exits:
            return self._sender.told(execution, execution.exits[-1])
        return EngineResult(
            outcome=Outcome.FILLED if ladder.state is ExitState.FLAT else Outcome.WAITING,
            execution_id=execution.execution_id,
            reason=ladder.state.value,
        )

    def _tell_wait(self, execution: Execution, why: str) -> None:
        """Its exit can go no further now; it is looked at again with every quote. Told once, until it goes on."""
        if execution.execution_id in self._waiting:
            return
        self._waiting.add(execution.execution_id)
        if self._sender.events is not None:
            held = {ticker: format_qty(QtyE2(qty)) for ticker, qty in execution.held.items() if qty}
            self._sender.events.emit(
                RiskEvent(
                    event_type=RiskEventType.PORTFOLIO_LIMIT_WARNING,
                    component=COMPONENT,
                    execution_id=execution.execution_id,
                    limit_type=EXIT_WAITS,
                    rejection_reason=why,
                    metadata={"rule": execution.ladder.rule, "held": held},
                    symbol=execution.symbol,
                    scope=f"symbol:{execution.symbol}",
                )
            )

    def is_entering(self, execution: Execution) -> bool:
        """Whether an entry may still execute soon.

        One that stays UNKNOWN may never be told of: what is held is left beside it, as far as the gate calls that a
        reduction with the lost order filled or not.
        """
        lost_before_ns = self._sender.clock.now_ns() - RETRY_SECS * NANOS
        orders = (self._trader.account.orders.get(name) for name in execution.entries)
        return any(
            order is not None
            and order.is_open
            and (order.status is not OrderStatus.UNKNOWN or order.created_ns > lost_before_ns)
            for order in orders
        )

    def _owes_nothing(self, symbol: str) -> bool:
        """Whether no position on *symbol* is a short one, as far as everything held is known."""
        rules = self._trader.market.instruments
        return all(
            (known := rules.get(ticker)) is not None and (qty > 0 or known.underlying != symbol)
            for ticker, qty in self._trader.account.portfolio.positions.items()
        )

    async def _next_exit(self, execution: Execution, going: dict[str, int]) -> ExitOrder | None:
        """What of *going* goes out next and at which limit; None while no side of it can be executed."""
        piece = next_piece(going, by_legs=self._by_legs or execution.in_pieces)
        touch = piece.touch(self._pricer)
        try:
            # Whatever the breaker says: an exit must not wait for the rules of what is left.
            instrument = await self._trader.books.instrument(piece.ticker, regardless=True)
        except (VenueError, CircuitBreakerOpenError, BadInput):
            return None
        return None if touch is None else piece.order(instrument, touch, execution.ladder.rung)
