"""The gate: the one place where an order is allowed, and the only maker of admissions.

    evaluate(intent)   a question: every row, nothing reserved
    admit(intent)      check AND reserve in one synchronous step under one lock, over all limits or none
    reserve_plan(…)    the same of everything that may be held while a structure's legs go one by one
    Admission          leave to send one order once; a venue adapter cannot send without it

The check sees every working and UNKNOWN order at its full open quantity, and the reservation is in place
before the lock is left: no interleaving of threads or tasks admits more than the limits hold. An admission
is re-examined in the moment it is spent: a state that has become stricter, or a deadline that has passed,
voids it. A decision records everything it read, so that `replay` finds the same verdict from the record alone.

Limits: the gate knows one account. What it reads of the market is as fresh as its `Market` was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import IllegalTransition, OrderDenied
from holdfast.core.fees import KalshiFees
from holdfast.core.instruments import InstrumentKind
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import BookSide, Intent, Signal
from holdfast.risk.account import Account
from holdfast.risk.checks import Facts, is_reducing, judge, passes
from holdfast.risk.contracts import at_risk_of, fees_of, reserve_of
from holdfast.risk.decisions import Decision, explain
from holdfast.risk.limits import RiskLimits
from holdfast.risk.market import Market
from holdfast.risk.order import Order
from holdfast.risk.plans import Plan, PlanLeg
from holdfast.risk.reading import Reading
from holdfast.risk.rows import USD, Row
from holdfast.risk.terms import Terms

JOURNAL: Final = "journal"
"""Who holds trading back to cancels once the journal takes nothing more."""
_SEAL: Final = object()
# Looking a member up on its enum costs more than a comparison.
_BID: Final = BookSide.BID
_ASK: Final = BookSide.ASK
_BINARY: Final = InstrumentKind.BINARY


class Admission:
    """Leave to send one order once. Only a gate makes one.

    Attributes:
        client_order_id: Of the order.
        deadline_ns: Clock monotonic; later it is void.
        reserved: Dollars set aside for the order's worst case, fees included.
        reducing: Whether the order only takes risk away.
        demanded: It reduces, and a stop or a person demands it: the journal's own hold does not stop it.
    """

    __slots__ = ("_gate", "client_order_id", "deadline_ns", "demanded", "reducing", "reserved")

    def __init__(
        self,
        seal: object,
        gate: Gate,
        client_order_id: str,
        deadline_ns: int,
        reserved: MoneyE6,
        *,
        reducing: bool,
        demanded: bool = False,
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("only the gate admits orders")
        self._gate = gate
        self.client_order_id = client_order_id
        self.deadline_ns = deadline_ns
        self.reserved = reserved
        self.reducing = reducing
        self.demanded = demanded

    def consume(self, intent: Intent) -> None:
        """Spend it for *intent*, right before the first byte; returns only when the order may leave now.

        Raises:
            OrderDenied: The state has become stricter, or the deadline has passed.
            IllegalTransition: It was spent before, or belongs to another order.
        """
        self._gate.spend(self, intent)


class Gate:
    """Check and reserve, for one account.

    Safe to use from any thread.

    Attributes:
        account: What it protects.
        market: What it knows of prices and rules.
        limits: In force now; replaced as a whole by `set_limits`.
    """

    def __init__(
        self, account: Account, limits: RiskLimits, *, clock: Clock, market: Market | None = None
    ) -> None:
        self.account = account
        self.limits = limits
        self.market = market or Market()
        self._clock = clock
        self._live: dict[str, Admission] = {}
        self._reading = Reading(account, self.market, clock)

    def saw_buying_power(self, amount: MoneyE6) -> None:
        """The broker says that it would carry *amount* more; everything reserved now or from now on counts against it."""
        with self.account.lock:
            self._reading.saw_buying_power(amount)

    def evaluate(self, intent: Intent) -> Decision:
        """Would *intent* be allowed now? Reserves nothing, however often it is asked."""
        return self._decide(intent, "", reserve=False)

    def admit(self, intent: Intent, *, content: str = "", demanded: bool = False, plan: str = "") -> Decision:
        """Allow *intent* and reserve its worst case in one step, or refuse it and reserve nothing.

        Args:
            intent: What is wished.
            content: Digest of the wish as its caller gave it; by default of the intent's own signal.
            demanded: A stop or a person demands it: if it reduces, the journal's own hold does not stop it.
            plan: Of which plan it is a step: judged beside everything but this plan, and taken out of it in the
                same moment. What the plan does not hold is judged as any other order.

        Raises:
            IllegalTransition: An order of this name exists already.
        """
        content = content or intent.content_digest()
        return self._decide(intent, content, reserve=True, demanded=demanded, plan=plan)

    def preview(self, intent: Intent, *, plan: str = "") -> Row | None:
        """What would refuse *intent* now; neither a decision nor recorded."""
        with self.account.lock:
            facts = self._reading.facts(intent, self.limits, self._plan_of(Terms.of(intent), plan))
            return judge(intent, facts, self.limits).refused

    def reserve_plan(
        self, name: str, states: Sequence[Intent], legs: Sequence[PlanLeg]
    ) -> tuple[list[Decision], Plan | None]:
        """Judge everything that may be held on the way of a legged order, and reserve the worst of it, in one step.

        Args:
            name: Of the plan.
            states: What is held after each leg, each as one order at the legs' worst limits, the whole last.
            legs: In the order in which they go in.

        Returns:
            The decisions, all of them questions, and the plan; None where one of them refuses.

        Raises:
            IllegalTransition: A plan of this name is reserved.
        """
        fees = sum(leg.fees(abs(leg.qty)) for leg in legs)
        decisions: list[Decision] = []
        worst = 0
        with self.account.lock:
            for intent, leg in zip(states, legs, strict=True):
                decision = self._decide(intent, "", reserve=False, way_out=fees)
                decisions.append(decision)
                if decision.allowed:
                    self._check_leg(decision, leg)
                if not decision.allowed or decision.facts is None or decision.facts.contract is None:
                    return decisions, None
                at_risk = at_risk_of(Terms.of(intent), decision.facts.contract, reducing=decision.reducing)
                worst = max(worst, at_risk or 0)
            # Others are judged beside legs whose rules nobody asked for yet.
            for part in states[-1].instrument.parts:
                self.market.instruments.setdefault(part.instrument.ticker, part.instrument)
            plan = Plan(name, legs, MoneyE6(worst + 2 * fees))
            self.account.plans.add(plan)
        return decisions, plan

    def _check_leg(self, decision: Decision, leg: PlanLeg) -> None:
        """Refuse a state whose newest leg could not be ordered, or not be left again, for its size."""
        value, limits = abs(leg.value(leg.qty)), self.limits
        bound = min(limits.max_order_value, limits.max_exit_value)
        if value > bound and decision.intent is not None:
            row = Row(Code.ORDER_VALUE_EXCEEDED, leg.ticker, value, bound, USD, ok=False)
            decision.reason = explain(row, decision.intent)
            # The state itself passes: what refuses is no row of it, so the record holds none.
            decision.facts = None

    def refuse(
        self, signal: Signal, key: str, client_order_id: str, reason: RejectReason, *, question: bool = False
    ) -> Decision:
        """The decision over a wish that cannot even be judged, for instance of an unknown instrument."""
        account = self.account
        with account.lock:
            account.decisions += 1
            decision = Decision(
                account.decisions,
                signal,
                key,
                client_order_id,
                self.limits,
                self.market.time_ns,
                question,
                bool(signal.key),
            )
        decision.reason = reason
        return decision

    def withdraw(self, decision: Decision, *, breaker: str) -> None:
        """Turn an admission that got no leave from the venue's breaker into a refusal, and free what it reserved.

        Raises:
            IllegalTransition: It admitted nothing, or the order may have left.
        """
        if decision.admission is None or decision.facts is None or decision.intent is None:
            raise IllegalTransition(f"decision {decision.n} admitted nothing")
        self.give_back(decision.admission)
        decision.admission = decision.order = None
        decision.facts = msgspec.structs.replace(decision.facts, breaker=breaker)
        decision.refused = _refusing_row(decision.intent, decision.facts, decision.limits)
        decision.reason = explain(decision.refused, decision.intent)

    def give_back(self, admission: Admission) -> None:
        """Void an admission whose order could not be written down, and free what it reserved."""
        with self.account.lock:
            if self._live.pop(admission.client_order_id, None) is not admission:
                raise IllegalTransition(
                    f"order {admission.client_order_id!r} may have left; it keeps its reservation"
                )
            self.account.forget(admission.client_order_id)
            self._reading.spoken_for -= admission.reserved

    def readmit(self, spent: Admission) -> Admission:
        """A second leave to send an order that provably never left; what it reserved still stands."""
        with self.account.lock:
            if not self.account.orders[spent.client_order_id].is_open:
                raise IllegalTransition(f"order {spent.client_order_id!r} has ended")
            again = Admission(
                _SEAL,
                self,
                spent.client_order_id,
                spent.deadline_ns,
                spent.reserved,
                reducing=spent.reducing,
                demanded=spent.demanded,
            )
            self._live[spent.client_order_id] = again
            return again

    def renew(self, intent: Intent) -> Decision | RejectReason:
        """Leave to send the same bytes of an UNKNOWN order again, or why not.

        It is judged as if it came anew, beside everything but itself; nothing more is reserved, and what it holds back
        stands in full. One that increases has the time it had at first and no more: nobody wished it for later. One
        that reduces is wished as long as it reduces. The journal's hold stops both.

        Raises:
            IllegalTransition: The order is not UNKNOWN, or is on its way.
        """
        account, name = self.account, intent.client_order_id
        with account.lock:
            order = account.orders[name]
            if order.status is not OrderStatus.UNKNOWN or name in self._live:
                raise IllegalTransition(f"order {name!r} is {order.status.value!r} or on its way")
            now_ns, left_ns = self._clock.monotonic_ns(), self.limits.send_deadline_secs * NANOS
            with account.without(order):
                facts = self._reading.facts(intent, self.limits, self._plan_of(Terms.of(intent), order.plan))
                judged = judge(intent, facts, self.limits)
                if judged.refused is not None:
                    return explain(judged.refused, intent)
                if not judged.reducing:
                    age_ns = self._clock.now_ns() - order.created_ns
                    left_ns = left_ns - age_ns if age_ns >= 0 else -1  # a clock set back says no age
                if left_ns < 0:
                    return RejectReason(code=Code.DEADLINE_PASSED, scope=intent.ticker)
                decision = self._decide(intent, order.content, reserve=False, plan=order.plan)
            if not decision.reducing:
                self._reading.last_increase_ns = now_ns
            decision.question = False
            decision.order = order
            decision.admission = self._live[name] = Admission(
                _SEAL, self, name, now_ns + left_ns, order.reserved, reducing=decision.reducing
            )
            return decision

    def retire(self, client_order_id: str) -> None:
        """The placement has its answer: whatever leave to send is left is void."""
        self._live.pop(client_order_id, None)

    def spend(self, admission: Admission, intent: Intent) -> None:
        """Called by `Admission.consume`; see there."""
        name = admission.client_order_id
        with self.account.lock:
            if self._live.get(name) is not admission or intent.client_order_id != name:
                raise IllegalTransition(
                    f"admission of order {name!r} cannot send {intent.client_order_id!r}: spent, or not its own"
                )
            holds = self.account.holds
            state = holds.without(JOURNAL) if admission.demanded else holds.state
            allowed = state.allows_reducing if admission.reducing else state.allows_increasing
            if not allowed:
                code = Code(f"state_{state.name.lower()}")
                raise OrderDenied(name, RejectReason(code=code, scope="account"))
            late_ns = self._clock.monotonic_ns() - admission.deadline_ns
            if late_ns > 0:
                reason = RejectReason(
                    code=Code.DEADLINE_PASSED,
                    scope=intent.ticker,
                    keys={"late_ms": str(late_ns // 1_000_000)},
                )
                raise OrderDenied(name, reason)
            del self._live[name]

    def set_limits(self, limits: RiskLimits) -> None:
        """Put other limits in force, at once for every later decision."""
        with self.account.lock:
            self.limits = limits

    def daily_pnl(self) -> MoneyE6 | None:
        """Gain since the session opened, fees and deposits taken into account; None while it cannot be known."""
        with self.account.lock:
            opened, cash = self.account.open_value, self.account.portfolio.cash
            worth = self._reading.holdings().worth
        return None if opened is None or worth is None else MoneyE6(cash + worth - opened)

    def value(self) -> MoneyE6 | None:
        """Cash and every position at the executable side; None while a held market has no price."""
        with self.account.lock:
            worth = self._reading.holdings().worth
            return None if worth is None else MoneyE6(self.account.portfolio.cash + worth)

    def rolling_pnl(self) -> MoneyE6 | None:
        """Gain over the last 24 hours, fees and deposits taken into account; None while it cannot be known."""
        value = self.value()
        if value is None:
            return None
        with self.account.lock:
            return self.account.gain_over_a_day(value, self._clock.now_ns())

    def _decide(
        self,
        intent: Intent,
        content: str,
        *,
        reserve: bool,
        demanded: bool = False,
        plan: str = "",
        way_out: int = 0,
    ) -> Decision:
        account, signal, name = self.account, intent.signal, intent.client_order_id
        refused: Row | None = None
        with account.lock:
            if reserve and name in account.orders:
                raise IllegalTransition(f"order {name!r} exists already")
            order, limits = Terms.of(intent), self.limits
            if plan:
                plan = self._plan_of(order, plan)
            facts = self._reading.facts(intent, limits, plan, way_out)
            reducing = is_reducing(order, facts)
            passes_journal = demanded and reducing
            if passes_journal:
                facts = msgspec.structs.replace(facts, state=account.holds.without(JOURNAL))
            if not passes(order, facts, limits, reducing=reducing):
                refused = _refusing_row(intent, facts, limits)
            account.decisions += 1
            decision = Decision(
                account.decisions,
                signal,
                intent.key,
                name,
                limits,
                self.market.time_ns,
                not reserve,
                bool(signal.key),
                content,
                intent,
                facts,
                reducing,
                refused,
            )
            if passes_journal:
                decision.demanded = True
            if refused is not None:
                decision.reason = explain(refused, intent)
            elif reserve:
                self._reserve(order, decision, facts.now_ns, plan)
        return decision

    def _plan_of(self, order: Terms, name: str) -> str:
        """The plan *name*, if it holds *order* as one of its steps; else no plan."""
        plan = self.account.plans.live.get(name)
        side = _BID if order.is_bid else _ASK
        return name if plan and plan.holds(order.ticker, side, order.qty, order.yes_price) else ""

    def _reserve(self, terms: Terms, decision: Decision, now_ns: int, plan: str) -> None:
        signal, name = decision.signal, decision.client_order_id
        contract = None if decision.facts is None else decision.facts.contract
        if contract is None:
            reserved = MoneyE6(terms.value + _fee_bound_of(terms))
        else:
            reserved = reserve_of(terms, contract, reducing=decision.reducing)
        self._reading.spoken_for += reserved
        decision.order = Order(
            client_order_id=name,
            ticker=terms.ticker,
            side=_BID if terms.is_bid else _ASK,
            quantity=terms.qty,
            yes_price=terms.yes_price,
            key=decision.key,
            strategy=signal.strategy,
            content=decision.content,
            tif=signal.tif,
            expiration_ns=signal.expiration_ns,
            reserved=reserved,
            created_ns=self._clock.now_ns(),
            decision=decision.n,
            plan=plan,
        )
        if contract is not None:
            decision.order.multiplier = terms.instrument.multiplier
            decision.order.legs = tuple((leg.instrument.ticker, leg.ratio) for leg in terms.instrument.legs)
        self.account.reserve(decision.order)
        deadline_ns = now_ns + decision.limits.send_deadline_secs * NANOS
        reducing = decision.reducing
        admission = Admission(
            _SEAL, self, name, deadline_ns, reserved, reducing=reducing, demanded=decision.demanded
        )
        decision.admission = self._live[name] = admission
        if not reducing:
            self._reading.last_increase_ns = now_ns


def fee_bound(intent: Intent) -> MoneyE6:
    """The most the order can pay in fees: cut into fills of the market's step, at the dearest price it can meet."""
    order = Terms.of(intent)
    return _fee_bound_of(order) if order.instrument.kind is _BINARY else MoneyE6(fees_of(order))


def _fee_bound_of(order: Terms) -> MoneyE6:
    instrument = order.instrument
    taker_ppm, maker_ppm = instrument.taker_fee_ppm, instrument.maker_fee_ppm
    rate_ppm = max(taker_ppm, maker_ppm)
    return _fee_bound(rate_ppm, order.yes_price, order.qty, instrument.qty_step, order.is_bid)


@lru_cache(maxsize=4096)
def _fee_bound(rate_ppm: int, yes_price: PriceE4, qty: QtyE2, step: QtyE2, buys: bool) -> MoneyE6:
    """A rate in parts per million as the quadratic schedule's multiplier of 0.07, rounded up."""
    schedule = KalshiFees(multiplier_e4=-(-rate_ppm // 7))
    return schedule.fee_bound(yes_price, qty, max(1, qty // step), buys=buys)


def _refusing_row(intent: Intent, facts: Facts, limits: RiskLimits) -> Row:
    """The first row that refuses.

    Raises:
        IllegalTransition: None does, although `passes` said otherwise; nothing is allowed then.
    """
    refused = judge(intent, facts, limits).refused
    if refused is None:
        raise IllegalTransition(f"intent {intent.key!r} does not pass, yet no check refuses it")
    return refused
