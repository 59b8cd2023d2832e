"""Entering leg by leg, where a venue has no combinations: a plan reserved first, then one leg after the other.

    reserve the plan ─▶ leg 1 ─▶ filled ─▶ leg 2 ─▶ … ─▶ every leg there: the plan is given back
                          └─ refused, rejected, late or filled in part: demanded out again, by the plan's own room

The gate judges every state between two legs before the first one leaves, and reserves the worst of them (`risk.plans`).
The plan stays reserved until every leg is there or nothing is held.

Limits: after a restart an entry cut short is unwound; what it was is not known any more. One leg works at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.core.ids import client_order_id
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import Action, Intent
from holdfast.execution.executions import Execution, has_open, key_of
from holdfast.execution.leaving import tick_at
from holdfast.execution.legging import LeggingPolicy, entry_order, worst_states
from holdfast.execution.outcomes import EngineResult, Outcome
from holdfast.execution.quotes import QuoteBoard
from holdfast.execution.sending import Sender
from holdfast.execution.structures import Structure, StructureLeg, as_one
from holdfast.execution.trader import GATE_COMPONENT
from holdfast.risk.plans import GIVEN_BACK, Plan, PlanLeg

Demand = Callable[[Execution, str], None]
"""Begins the exit of an execution under the name of a rule, whatever holds an ordinary exit up."""


class LeggedEntry:
    """Brings structures in leg by leg.

    Args:
        sender: Of the orders.
        board: Quotes of the legs.
        policy: How legs go; None where combinations do, and only plans of an earlier run are left to be given back.
        demand: Takes out again what did not come in whole.
    """

    def __init__(
        self, sender: Sender, board: QuoteBoard, policy: LeggingPolicy | None, demand: Demand
    ) -> None:
        self._sender = sender
        self._trader = sender.trader
        self._executions = sender.executions
        self._board = board
        self._policy = policy
        self._demand = demand
        self._structures: dict[str, Structure] = {}
        self._opening: set[str] = set()

    async def open(self, execution: Execution, structure: Structure) -> EngineResult:
        """Have the gate reserve everything that may be needed on the way, then send the first leg."""
        self._structures[execution.execution_id] = structure
        self._opening.add(execution.execution_id)
        try:
            return await self._open(execution, structure)
        finally:
            self._opening.discard(execution.execution_id)

    async def _open(self, execution: Execution, structure: Structure) -> EngineResult:
        refusal = self._reserve_plan(execution, structure)
        await self._trader.ledger.write()
        if refusal is not None:
            self._sender.report(refusal, execution.symbol, execution.execution_id)
            return EngineResult(
                outcome=Outcome.DENIED,
                execution_id=execution.execution_id,
                reason=refusal.code.value,
                refusal=refusal,
            )
        execution.leg_count = len(structure.legs)
        self._executions.add(execution)
        result = await self.next_leg_in(execution, structure)
        if not execution.entries:
            del self._executions.known[execution.execution_id]
            self._give_back(execution.execution_id, "never begun")
        return result

    async def go_on(self, execution: Execution, now_ns: int) -> None:
        """A legged entry between two legs: the next one, or the way back when its time is over."""
        structure, policy = self._structures.get(execution.execution_id), self._policy
        if structure is None or policy is None:
            self._demand(execution, "EntryCutShort")
        elif policy.is_late(execution.leg_since_ns, now_ns):
            self._demand(execution, "LegTimeout")
        elif ended := self._leg_failed(execution):
            self._demand(execution, ended)
        else:
            result = await self.next_leg_in(execution, structure)
            if result.outcome is Outcome.DENIED:
                self._demand(execution, "LegRefused")

    def tend_plans(self) -> None:
        """Give back what is complete, unwound or was never begun; what is to leave again brings in nothing more."""
        account = self._trader.account
        for name in [one for one in account.plans.live if one not in self._opening]:
            execution = self._executions.known.get(name)
            if execution is None:
                self._give_back(name, "never begun")
            elif has_open((*execution.entries, *execution.exits), account):
                continue
            elif execution.is_flat:
                self._give_back(name, "flat")
            elif execution.is_balanced and not execution.ladder.is_demanded:
                self._give_back(name, "complete")

    # The legs -----------------------------------------------------------------------------------------

    async def next_leg_in(self, execution: Execution, structure: Structure) -> EngineResult:
        """Order what the first incomplete leg still lacks, at no worse than planned; whole once every leg is there."""
        policy, plan = self._policy or LeggingPolicy(), self._plan(execution.execution_id)
        planned = {} if plan is None else {leg.ticker: leg.limit for leg in plan.legs}
        for number, leg in enumerate(entry_order(structure.legs), start=1):
            lacks = abs(leg.ratio) * execution.units - abs(execution.held.get(leg.ticker, 0))
            if lacks <= 0:
                continue
            limit = self._leg_limit(leg, policy)
            if limit is None:
                return self._sender.waits(execution, Code.QUOTE_ONE_SIDED)
            worst = planned.get(leg.ticker, limit)
            attempt = 1 + sum(1 for name in execution.entries if self._is_of(name, leg.ticker))
            if attempt == 1:
                execution.leg_since_ns = self._sender.clock.now_ns()
            step = f"leg-{number}of{len(structure.legs)}-{attempt}"
            signal = self._sender.signal(
                leg.ticker,
                Action.BUY if leg.ratio > 0 else Action.SELL,
                QtyE2(lacks),
                min(limit, worst) if leg.ratio > 0 else max(limit, worst),
                key_of(execution.execution_id, step),
            )
            return await self._sender.enter(execution, signal)
        return EngineResult(
            outcome=Outcome.FILLED, execution_id=execution.execution_id, filled=execution.units
        )

    def _leg_failed(self, execution: Execution) -> str:
        """Why the rest is not worth waiting for: the newest leg was rejected, or filled in part; "" otherwise."""
        orders = self._trader.account.orders
        last = orders.get(execution.entries[-1]) if execution.entries else None
        if last is not None and last.status is OrderStatus.REJECTED:
            return "LegRejected"
        return "LegPartlyFilled" if last is not None and last.filled and last.released else ""

    def _is_of(self, name: str, ticker: str) -> bool:
        order = self._trader.account.orders.get(name)
        return order is not None and order.ticker == ticker

    def _leg_limit(self, leg: StructureLeg, policy: LeggingPolicy) -> PriceE4 | None:
        """The executable side now, and the collar beyond it; None while nobody quotes it."""
        quote = self._board.quotes.get(leg.ticker)
        touch = None if quote is None else (quote.ask if leg.ratio > 0 else quote.bid)
        if touch is None:
            return None
        collar = touch * policy.leg_collar_bp // 10_000
        tick = tick_at(leg.instrument, touch)
        limit = (touch + collar) if leg.ratio > 0 else (touch - collar)
        return PriceE4(max(tick, limit // tick * tick))

    # The plan -----------------------------------------------------------------------------------------

    def _reserve_plan(self, execution: Execution, structure: Structure) -> RejectReason | None:
        """Reserve the way in and the way out, or say what refuses it; every state's decision is recorded."""
        legs = self._plan_legs(execution, structure)
        if isinstance(legs, RejectReason):
            return legs
        states = [
            self._state(execution, held, legs, number)
            for number, held in enumerate(worst_states(structure.legs), start=1)
        ]
        decisions, plan = self._trader.gate.reserve_plan(execution.execution_id, states, legs)
        for decision in decisions:
            self._trader.ledger.note("DECISION", decision.details(), component=GATE_COMPONENT)
        if plan is None:
            return decisions[-1].reason
        self._trader.ledger.note("PLAN", plan.details())
        return None

    def _plan_legs(self, execution: Execution, structure: Structure) -> list[PlanLeg] | RejectReason:
        """Each leg at the worst price that it may go in at; what is missing where one has no quote."""
        policy = self._policy or LeggingPolicy()
        legs: list[PlanLeg] = []
        for leg in entry_order(structure.legs):
            limit = self._leg_limit(leg, policy)
            if limit is None:
                return RejectReason(code=Code.QUOTE_ONE_SIDED, scope=leg.ticker)
            qty, known = leg.ratio * execution.units, leg.instrument
            legs.append(PlanLeg(leg.ticker, qty, limit, known.multiplier, known.fee_per_contract))
        return legs

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
        signal = self._sender.signal(instrument.ticker, action, QtyE2(count), price, key)
        name = client_order_id("question", self._sender.name, key)
        return Intent(client_order_id=name, key=key, signal=signal, instrument=instrument)

    def _give_back(self, name: str, reason: str) -> None:
        """Nothing of a plan is needed any more."""
        plan = self._plan(name)
        if plan is not None:
            self._trader.ledger.note("PLAN", plan.details(GIVEN_BACK, reason))

    def _plan(self, name: str) -> Plan | None:
        """What is reserved for an execution; None for nothing."""
        return self._trader.account.plans.live.get(name)
