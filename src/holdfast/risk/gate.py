"""The gate: the one place where an order is allowed, and the only maker of admissions.

    evaluate(intent)   a question: every row, nothing reserved
    admit(intent)      check AND reserve in one synchronous step under one lock, over all limits or none
    Admission          leave to send one order once; a venue adapter cannot send without it

The check sees every working and UNKNOWN order at its full open quantity, and the reservation is in place
before the lock is left: no interleaving of threads or tasks admits more than the limits hold. An admission
is re-examined in the moment it is spent: a state that has become stricter, or a deadline that has passed,
voids it. A decision records everything it read, so that `replay` finds the same verdict from the record alone.

Limits: the gate knows one account. What it reads of the market is as fresh as its `Market` was told.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from holdfast.core.clock import Clock
from holdfast.core.errors import IllegalTransition, OrderDenied
from holdfast.core.fees import KalshiFees
from holdfast.core.instruments import Instrument, PriceRange
from holdfast.core.money import (
    MoneyE6,
    PriceE4,
    QtyE2,
    format_money,
    format_price,
    format_qty,
    parse_price,
    parse_qty,
)
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import Action, BookSide, Intent, Side, Signal
from holdfast.risk.account import Account, Order
from holdfast.risk.checks import (
    CONTRACTS,
    MILLIS,
    STATE,
    USD,
    Facts,
    Held,
    Judgement,
    Leg,
    Row,
    Terms,
    judge,
)
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits
from holdfast.risk.market import Market

_SEAL: Final = object()
_NANOS: Final = 1_000_000_000


class Admission:
    """Leave to send one order once. Only a gate makes one.

    Attributes:
        client_order_id: Of the order.
        deadline_ns: Clock monotonic; later it is void.
        reserved: Dollars set aside for the order's worst case, fees included.
        reducing: Whether the order only takes risk away.
    """

    __slots__ = ("_gate", "client_order_id", "deadline_ns", "reducing", "reserved")

    def __init__(
        self,
        seal: object,
        gate: Gate,
        client_order_id: str,
        deadline_ns: int,
        reserved: MoneyE6,
        *,
        reducing: bool,
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("only the gate admits orders")
        self._gate = gate
        self.client_order_id = client_order_id
        self.deadline_ns = deadline_ns
        self.reserved = reserved
        self.reducing = reducing

    def consume(self, intent: Intent) -> None:
        """Spend it for *intent*, right before the first byte; returns only when the order may leave now.

        Raises:
            OrderDenied: The state has become stricter, or the deadline has passed.
            IllegalTransition: It was spent before, or belongs to another order.
        """
        self._gate.spend(self, intent)


class Decision:
    """A verdict with everything it rests on.

    Attributes:
        n: Number among the account's decisions.
        signal: What was wished.
        key: The intent's key.
        client_order_id: The intent's name.
        content: Digest of the wish; "" for a question.
        intent: The normalised wish; None where none could be made.
        reason: The first refusal; None allows.
        refused: Its row; None where the intent was refused before any row could be made.
        rows: Every check.
        facts: What was read; None where the intent was refused before.
        question: Nothing was reserved.
        admission: Leave to send, for an admitted order only.
        order: The reservation, for an admitted order only.
    """

    __slots__ = (
        "admission",
        "client_order_id",
        "content",
        "facts",
        "intent",
        "key",
        "keyed",
        "limits",
        "market_ns",
        "n",
        "order",
        "question",
        "reason",
        "reducing",
        "refused",
        "rows",
        "signal",
    )

    def __init__(
        self,
        *,
        n: int,
        signal: Signal,
        key: str,
        client_order_id: str,
        limits: RiskLimits,
        market_ns: int,
        question: bool,
    ) -> None:
        self.n = n
        self.signal = signal
        self.key = key
        self.client_order_id = client_order_id
        self.content = ""
        self.keyed = bool(signal.key)
        self.limits = limits
        self.market_ns = market_ns
        self.question = question
        self.reason: RejectReason | None = None
        self.refused: Row | None = None
        self.rows: tuple[Row, ...] = ()
        self.reducing = False
        self.facts: Facts | None = None
        self.intent: Intent | None = None
        self.admission: Admission | None = None
        self.order: Order | None = None

    @property
    def allowed(self) -> bool:
        """Whether nothing refused."""
        return self.reason is None

    def details(self) -> dict[str, Any]:
        """The DECISION record."""
        signal = self.signal
        return {
            "n": self.n,
            "intent": self.key,
            "client_order_id": self.client_order_id,
            "content": self.content,
            "keyed": self.keyed,
            "strategy": signal.strategy,
            "ticker": signal.ticker,
            "action": signal.action.value,
            "side": signal.side.value,
            "count": format_qty(signal.count),
            "price": format_price(signal.price),
            "reduce_only": signal.reduce_only,
            "verdict": "allow" if self.reason is None else "deny",
            "reason": "" if self.reason is None else self.reason.code.value,
            "rows": [_row_text(row) for row in self.rows],
            "inputs": _inputs(self.facts, self.intent, self.limits),
            "market_ts_ns": self.market_ns,
            "limits_version": self.limits.version,
            "question": self.question,
        }

    def violation(self) -> dict[str, Any]:
        """The RISK_VIOLATION record of the first breached limit.

        Raises:
            IllegalTransition: The decision allows.
        """
        if self.reason is None:
            raise IllegalTransition(f"decision {self.n} allows; it violates nothing")
        row, reason, signal = self.refused, self.reason, self.signal
        details: dict[str, str] = {"ticker": signal.ticker, **reason.keys}
        value, bound = reason.value, reason.bound
        if row is not None and self.facts is not None:
            if row.code is Code.POSITION_LIMIT_EXCEEDED:
                details = {
                    "ticker": signal.ticker,
                    "current_position": format_qty(self.facts.position),
                    "requested_count": format_qty(signal.count),
                    "new_position": format_qty(QtyE2(signal.book_side.sign * row.value)),
                    "price": format_price(signal.price),
                }
            elif row.code is Code.ORDER_VALUE_EXCEEDED:
                details = {
                    "ticker": signal.ticker,
                    "count": format_qty(signal.count),
                    "price": format_price(signal.price),
                    "notional_value": format_money(MoneyE6(row.value)),
                }
            elif row.code is Code.DAILY_LOSS_EXCEEDED:
                value, bound = format_money(MoneyE6(-row.value)), format_money(MoneyE6(-row.bound))
                details = {
                    "ticker": signal.ticker,
                    "daily_pnl": value,
                    "max_daily_loss": format_money(MoneyE6(row.bound)),
                }
        return {
            "violation_type": reason.code.value,
            "current_value": value,
            "limit": bound,
            "details": details,
            "client_order_id": self.client_order_id,
        }


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
        self._last_increase_ns: int | None = None

    def evaluate(self, intent: Intent) -> Decision:
        """Would *intent* be allowed now? Reserves nothing, however often it is asked."""
        return self._decide(intent, "", reserve=False)

    def admit(self, intent: Intent, *, content: str = "") -> Decision:
        """Allow *intent* and reserve its worst case in one step, or refuse it and reserve nothing.

        Args:
            intent: What is wished.
            content: Digest of the wish as its caller gave it; by default of the intent's own signal.

        Raises:
            IllegalTransition: An order of this name exists already.
        """
        return self._decide(intent, content or intent.content_digest(), reserve=True)

    def preview(self, intent: Intent) -> Row | None:
        """What would refuse *intent* now; neither a decision nor recorded."""
        with self.account.lock:
            return judge(intent, self._facts(intent), self.limits).refused

    def refuse(
        self, signal: Signal, key: str, client_order_id: str, reason: RejectReason, *, question: bool = False
    ) -> Decision:
        """The decision over a wish that cannot even be judged, for instance of an unknown instrument."""
        with self.account.lock:
            decision = self._numbered(signal, key, client_order_id, question=question)
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
        decision.rows, decision.refused, _ = judge(decision.intent, decision.facts, decision.limits)
        if decision.refused is not None:
            decision.reason = explain(decision.refused, decision.intent)

    def give_back(self, admission: Admission) -> None:
        """Void an admission whose order could not be written down, and free what it reserved."""
        with self.account.lock:
            if self._live.pop(admission.client_order_id, None) is not admission:
                raise IllegalTransition(
                    f"order {admission.client_order_id!r} may have left; it keeps its reservation"
                )
            self.account.forget(admission.client_order_id)

    def readmit(self, spent: Admission) -> Admission:
        """A second leave to send an order that provably never left; what it reserved still stands."""
        with self.account.lock:
            if not self.account.orders[spent.client_order_id].is_open:
                raise IllegalTransition(f"order {spent.client_order_id!r} has ended")
            again = Admission(
                _SEAL, self, spent.client_order_id, spent.deadline_ns, spent.reserved, reducing=spent.reducing
            )
            self._live[spent.client_order_id] = again
            return again

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
            state = self.account.holds.state
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
            opened, cash = self._open_value(), self.account.portfolio.cash
            held = self._held()
        if opened is None:
            return None
        worth = 0
        for _ticker, qty, bid, ask, age_ns in held:
            if age_ns is None:
                return None
            side = bid if qty > 0 else ask
            worth += qty * (side if side is not None else (0 if qty > 0 else 10_000))
        return MoneyE6(cash + worth - opened)

    def _decide(self, intent: Intent, content: str, *, reserve: bool) -> Decision:
        account = self.account
        with account.lock:
            if reserve and intent.client_order_id in account.orders:
                raise IllegalTransition(f"order {intent.client_order_id!r} exists already")
            facts = self._facts(intent)
            limits = self.limits
            rows, refused, reducing = judge(intent, facts, limits)
            decision = self._numbered(intent.signal, intent.key, intent.client_order_id, question=not reserve)
            decision.content = content
            if reserve and refused is None:
                self._reserve(intent, decision, reducing=reducing)
        decision.facts = facts
        decision.intent = intent
        decision.rows = rows
        decision.reducing = reducing
        decision.refused = refused
        if refused is not None:
            decision.reason = explain(refused, intent)
        return decision

    def _numbered(self, signal: Signal, key: str, client_order_id: str, *, question: bool) -> Decision:
        account = self.account
        account.decisions += 1
        market_ns = self.market.time_ns
        return Decision(
            n=account.decisions,
            signal=signal,
            key=key,
            client_order_id=client_order_id,
            limits=self.limits,
            market_ns=market_ns,
            question=question,
        )

    def _reserve(self, intent: Intent, decision: Decision, *, reducing: bool) -> None:
        signal = intent.signal
        now_ns = self._clock.monotonic_ns()
        reserved = MoneyE6(Terms.of(intent).value + fee_bound(intent))
        decision.order = Order(
            client_order_id=intent.client_order_id,
            ticker=signal.ticker,
            side=intent.book_side,
            quantity=signal.count,
            yes_price=intent.yes_price,
            key=intent.key,
            strategy=signal.strategy,
            content=decision.content,
            tif=signal.tif,
            expiration_ns=signal.expiration_ns,
            reserved=reserved,
            created_ns=self._clock.now_ns(),
            decision=decision.n,
        )
        self.account.reserve(decision.order)
        decision.admission = self._live[intent.client_order_id] = Admission(
            _SEAL,
            self,
            intent.client_order_id,
            now_ns + self.limits.send_deadline_secs * _NANOS,
            reserved,
            reducing=reducing,
        )
        if not reducing:
            self._last_increase_ns = now_ns

    def _facts(self, intent: Intent) -> Facts:
        account, portfolio = self.account, self.account.portfolio
        ticker = intent.signal.ticker
        buys, sells = account.working(ticker)
        since_ns: int | None = None
        if account.holds.state is TradingState.THROTTLED and self._last_increase_ns is not None:
            since_ns = self._clock.monotonic_ns() - self._last_increase_ns
        return Facts(
            account.holds.state,
            portfolio.position(ticker),
            buys,
            sells,
            self._open_value(),
            portfolio.cash,
            self._held(),
            self._is_open(intent.instrument),
            since_ns,
            self._legs(intent.instrument) if intent.instrument.event_exclusive else (),
        )

    def _open_value(self) -> MoneyE6 | None:
        account = self.account
        return MoneyE6(account.session.value + account.deposits) if account.session else None

    def _held(self) -> tuple[Held, ...]:
        positions = self.account.portfolio.positions
        if not positions:
            return ()
        now_ns = self._clock.monotonic_ns()
        held: list[Held] = []
        for ticker, qty in positions.items():
            mark = self.market.mark(ticker)
            if mark is None:
                held.append(Held(ticker, qty, None, None, None))
            else:
                held.append(Held(ticker, qty, mark.bid, mark.ask, max(0, now_ns - mark.as_of_ns)))
        return tuple(held)

    def _is_open(self, instrument: Instrument) -> bool:
        if not instrument.is_open or self.market.is_resolved(instrument.ticker):
            return False
        return not instrument.close_ns or self._clock.now_ns() < instrument.close_ns

    def _legs(self, instrument: Instrument) -> tuple[Leg, ...]:
        """The other markets of an exclusive event in which the account holds or works anything."""
        account = self.account
        legs: list[Leg] = []
        for ticker, other in self.market.instruments.items():
            if other.event != instrument.event or ticker == instrument.ticker:
                continue
            orders = [order for order in account.open_orders() if order.ticker == ticker]
            bids = [order for order in orders if order.side.sign > 0]
            asks = [order for order in orders if order.side.sign < 0]
            qty = account.portfolio.position(ticker)
            if qty or orders:
                legs.append(
                    Leg(
                        ticker,
                        qty,
                        QtyE2(sum(order.leaves for order in bids)),
                        max((order.yes_price for order in bids), default=PriceE4(0)),
                        QtyE2(sum(order.leaves for order in asks)),
                        min((order.yes_price for order in asks), default=PriceE4(0)),
                    )
                )
        return tuple(legs)


def fee_bound(intent: Intent) -> MoneyE6:
    """The most the order can pay in fees: cut into fills of the market's step, at the dearest price it can meet."""
    instrument = intent.instrument
    rate_ppm = max(instrument.taker_fee_ppm, instrument.maker_fee_ppm)
    buys = intent.book_side is BookSide.BID
    return _fee_bound(rate_ppm, intent.yes_price, intent.count, instrument.qty_step, buys)


@lru_cache(maxsize=4096)
def _fee_bound(rate_ppm: int, yes_price: PriceE4, qty: QtyE2, step: QtyE2, buys: bool) -> MoneyE6:
    """A rate in parts per million as the quadratic schedule's multiplier of 0.07, rounded up."""
    schedule = KalshiFees(multiplier_e4=-(-rate_ppm // 7))
    return schedule.fee_bound(yes_price, qty, max(1, qty // step), buys=buys)


def explain(row: Row, intent: Intent) -> RejectReason:
    """The refusal that *row* stands for."""
    value, bound = _row_text(row)[2:4]
    keys = {"ticker": intent.ticker, "price": format_price(intent.signal.price)}
    measured = row.code in _MEASURED
    return RejectReason(
        code=row.code,
        scope=row.scope,
        value=value if measured else "",
        bound=bound if measured else "",
        unit=row.unit if measured else "",
        keys=keys,
    )


_MEASURED = frozenset(
    {
        Code.POSITION_LIMIT_EXCEEDED,
        Code.ORDER_VALUE_EXCEEDED,
        Code.DAILY_LOSS_EXCEEDED,
        Code.MARK_STALE,
        Code.COUNT_BELOW_STEP,
        Code.STATE_THROTTLED,
    }
)


def _row_text(row: Row) -> list[Any]:
    """A row as the record holds it: code, scope, value, bound, unit, ok."""
    unit = row.unit
    if unit == USD:
        value, bound = format_money(MoneyE6(row.value)), format_money(MoneyE6(row.bound))
    elif unit == CONTRACTS:
        value, bound = format_qty(QtyE2(row.value)), format_qty(QtyE2(row.bound))
    elif unit == STATE:
        value, bound = TradingState(row.value).name, TradingState(row.bound).name
    elif unit == MILLIS:
        value, bound = str(row.value // 1_000_000), str(row.bound // 1_000_000)
    else:
        value = bound = ""
    return [row.code.value, row.scope, value, bound, unit, row.ok]


def _inputs(facts: Facts | None, intent: Intent | None, limits: RiskLimits) -> dict[str, Any]:
    """What a decision read, compactly; `replay` reads it back. Integers are in the unit the key ends in."""
    if facts is None or intent is None:
        return {}
    instrument = intent.instrument
    return {
        "state": facts.state.name,
        "position_e2": facts.position,
        "buys_e2": facts.buys,
        "sells_e2": facts.sells,
        "open_value_e6": facts.open_value,
        "cash_e6": facts.cash,
        "held": [list(held) for held in facts.held],
        "is_open": facts.is_open,
        "since_last_ns": facts.since_last_ns,
        "legs": [list(leg) for leg in facts.legs],
        "breaker": facts.breaker,
        "grid_e4": [[stretch.start, stretch.end, stretch.step] for stretch in instrument.price_ranges],
        "step_e2": instrument.qty_step,
        "exhaustive": instrument.event_exhaustive,
        "limits": limits.compact(),
    }


def replay(details: Mapping[str, Any]) -> Judgement:
    """Decide again from a DECISION record alone; equals what was decided then.

    Raises:
        IllegalTransition: The record was refused before anything was judged, so it holds no inputs.
    """
    inputs = details["inputs"]
    if not inputs:
        raise IllegalTransition(
            f"decision {details['n']} was refused as {details['reason']!r} before any check"
        )
    instrument = Instrument(
        venue="",
        ticker=details["ticker"],
        event_exhaustive=inputs["exhaustive"],
        price_ranges=tuple(PriceRange(*stretch) for stretch in inputs["grid_e4"]),
        qty_step=QtyE2(inputs["step_e2"]),
    )
    signal = Signal(
        ticker=details["ticker"],
        side=Side(details["side"]),
        action=Action(details["action"]),
        count=parse_qty(details["count"]),
        price=parse_price(details["price"]),
        reduce_only=details["reduce_only"],
    )
    intent = Intent(
        client_order_id=details["client_order_id"],
        key=details["intent"],
        signal=signal,
        instrument=instrument,
    )
    facts = Facts(
        TradingState[inputs["state"]],
        inputs["position_e2"],
        inputs["buys_e2"],
        inputs["sells_e2"],
        inputs["open_value_e6"],
        inputs["cash_e6"],
        tuple(Held(*held) for held in inputs["held"]),
        inputs["is_open"],
        inputs["since_last_ns"],
        tuple(Leg(*leg) for leg in inputs["legs"]),
        inputs["breaker"],
    )
    return judge(intent, facts, RiskLimits.from_compact(inputs["limits"], details["limits_version"]))


def rows_text(judgement: Judgement) -> list[list[Any]]:
    """The rows of a judgement as a DECISION record holds them."""
    return [_row_text(row) for row in judgement.rows]
