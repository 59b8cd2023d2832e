"""The gate over options and combinations under every interleaving: quantity, notional and loss stay in bounds."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.contracts import (
    EXPIRES_NS,
    NOW_NS,
    call,
    combo,
    condor,
    fill,
    greeks,
    intent,
    option_gate,
    put,
    show,
)
from support.execution import opened_account

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import OrderEvent, OrderStatus
from holdfast.core.reasons import Code
from holdfast.core.signals import BookSide
from holdfast.execution.trader import order_details
from holdfast.risk.account import Account
from holdfast.risk.checks import Terms, is_reducing, judge, passes
from holdfast.risk.contracts import structure
from holdfast.risk.decisions import replay, rows_text
from holdfast.risk.exposure import floor
from holdfast.risk.limits import RiskLimits, RiskLimitsConfig
from holdfast.risk.order import Order
from holdfast.risk.portfolio_book import read_book
from holdfast.risk.trades import trade_details

LIMIT = QtyE2(6_00)
CAP = MoneyE6(3_000_000_000)
LEGS = {one.ticker: one for one in (put(470), put(480), call(520), call(530))}
PUT_SPREAD = combo((put(470), 1), (put(480), -1))
CALL_SPREAD = combo((call(520), -1), (call(530), 1))
RATIO = combo((put(470), 2), (put(480), -1))
TRADED = [*LEGS.values(), PUT_SPREAD, CALL_SPREAD, RATIO, condor()]
LIMITS = RiskLimits(
    max_position=LIMIT,
    max_order_value=MoneyE6(2_000_000_000),
    max_exit_value=MoneyE6(4_000_000_000),
    portfolio=RiskLimitsConfig(1000, 1000, 1, 1000, 1, "3000"),
)
INSTRUMENTS = st.sampled_from(TRADED)
ACTIONS = st.sampled_from(["buy", "sell"])
COUNTS = st.sampled_from([1, 1, 1, 2, 3, 5])
CENTS = st.one_of(st.integers(1, 400), st.integers(1, 400), st.integers(-600, 1200))


def dollars(instrument: Instrument, cents: int) -> float:
    """Prices of combinations have any sign; most prices of single contracts are possible ones."""
    return cents / 100 if instrument.legs or cents > 400 else abs(cents) / 100


def working_of(account: Account, ticker: str) -> tuple[int, int]:
    """What works in one leg, from the orders themselves: ratio x quantity, less what filled and was released."""
    buys = sells = 0
    for order in account.open_orders():
        for index, (leg, ratio) in enumerate(order.legs or ((order.ticker, 1),)):
            if leg != ticker:
                continue
            done = order.leg_filled[index] if order.legs else order.filled
            left = max(0, abs(ratio) * (order.quantity - order.released) - done)
            if order.side.sign * ratio > 0:
                buys += left
            else:
                sells += left
    return buys, sells


class ContractMachine(RuleBasedStateMachine):
    """Orders are admitted, answered, lost, filled leg by leg and canceled in any order; a model keeps the sums."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = option_gate(*TRADED, limits=LIMITS)
        for ticker in LEGS:
            self.gate.market.saw_greeks(ticker, greeks(0.2, 0.001))
        self.account = self.gate.account
        self.before = self.account.portfolio.cash
        self.trades = self.named = self.set_aside = 0
        self.positions: dict[str, int] = {}
        self.records: list[tuple[str, dict[str, Any]]] = []

    def some_open(self, data: Any) -> Order | None:
        orders = self.account.open_orders()
        return data.draw(st.sampled_from(orders)) if orders else None

    def update(self, order: Order, event: OrderEvent) -> None:
        details = self.account.update(order.client_order_id, event)
        self.records.append(("ORDER_UPDATE", details))
        self.account.apply("ORDER_UPDATE", details)

    @rule(instrument=INSTRUMENTS, action=ACTIONS, count=COUNTS, cents=CENTS)
    def admit(self, instrument: Instrument, action: str, count: int, cents: int) -> None:
        self.named += 1
        wish = intent(f"hf-{self.named}", instrument, action, count, dollars(instrument, cents))
        asked = self.gate.evaluate(wish)
        reserved = self.account.reserved
        decision = self.gate.admit(wish)
        assert asked.allowed is decision.allowed  # a question is answered as the order would be
        details = msgspec.json.decode(msgspec.json.encode(decision.details()))
        self.records += [("DECISION", asked.details()), ("DECISION", details)]
        again = replay(details)
        assert rows_text(again) == details["rows"]
        assert (again.refused is None, again.reducing) == (decision.allowed, decision.reducing)
        if not decision.allowed:
            assert self.account.reserved == reserved
            return
        order = decision.order
        assert order is not None
        self.set_aside += order.reserved
        self.records.append(("ORDER", written(order_details(wish, order))))
        value = abs(cents) * 100 * count * 100 * 100
        assert value <= (LIMITS.max_exit_value if decision.reducing else LIMITS.max_order_value)
        if not decision.reducing:
            for leg, _ in order.working:
                buys, sells = self.account.working(leg)
                held = self.account.portfolio.position(leg)
                side = held + buys if dict(order.working)[leg] > 0 else sells - held
                assert side <= LIMIT
            if any(not one.is_even for one in self.account.open_orders()):
                return
            exposure = read_book(self.account, self.gate.market).of("SPY").loss()
            before = decision.facts.contract.portfolio.exposure.before
            assert exposure.after is not None
            assert exposure.after <= max(CAP, before or 0)

    @rule(data=st.data())
    def lose(self, data: Any) -> None:
        order = self.some_open(data)
        if order is not None:
            self.update(order, OrderEvent.ANSWER_LOST)
            assert order.status is OrderStatus.UNKNOWN

    @rule(data=st.data())
    def fill_leg(self, data: Any) -> None:
        """One leg of an order fills in part, at prices that add up to the order's limit."""
        order = self.some_open(data)
        if order is None:
            return
        lines = [(leg, qty) for leg, qty in order.working if qty]
        if not lines:
            return
        ticker, qty = data.draw(st.sampled_from(lines))
        units = data.draw(st.integers(1, abs(qty) // 100))
        side = BookSide.BID if qty > 0 else BookSide.ASK
        self.trades += 1
        price = limit_of(order, ticker)
        one = fill(LEGS[ticker], side, units, 1, trade_id=f"T{self.trades}", order=order.client_order_id)
        one = msgspec.structs.replace(one, price=price)
        details = written(trade_details(one, client_order_id=one.client_order_id, external=False))
        for _ in range(2):  # told twice, booked once
            self.account.apply("TRADE", details)
            self.records.append(("TRADE", details))
        self.positions[ticker] = self.positions.get(ticker, 0) + one.delta

    @rule(data=st.data())
    def end(self, data: Any) -> None:
        order = self.some_open(data)
        if order is None or not order.is_even:
            return
        if order.status is OrderStatus.PENDING:
            self.update(order, OrderEvent.ACKED)
        elif order.status is OrderStatus.UNKNOWN:
            self.update(order, OrderEvent.FOUND)
        self.update(order, OrderEvent.CANCELED)
        assert not any(qty for _, qty in order.working)

    def teardown(self) -> None:
        """The records alone give the same account."""
        again = opened_account(cash="100000.00", liquidation="100000.00")
        for record_type, details in self.records:
            again.apply(record_type, details)
        assert again.snapshot() == self.account.snapshot()

    @invariant()
    def every_leg_adds_up(self) -> None:
        account = self.account
        for order in account.orders.values():
            assert order.filled + order.leaves + order.released == order.quantity
            for index, (_, ratio) in enumerate(order.legs):
                parts = (order.leg_filled[index], order.leg_leaves(index), order.leg_released(index))
                assert min(parts) >= 0
                assert sum(parts) == abs(ratio) * order.quantity
        for ticker in LEGS:
            assert account.working(ticker) == working_of(account, ticker)
            assert account.portfolio.position(ticker) == self.positions.get(ticker, 0)
        assert account.reserved == sum(order.worst_case for order in account.open_orders())

    @invariant()
    def nothing_can_be_lost_that_was_not_set_aside(self) -> None:
        """At the worst spot, every order filled or not, the account has lost at most what admissions set aside."""
        if any(not order.is_even for order in self.account.open_orders()):
            return  # a combination that is half done is waited for
        parts, works, missing = structure(self.account, self.gate.market, "SPY")
        assert not missing
        least = floor(parts, works)
        assert least is not None
        assert self.account.portfolio.cash - self.before + least >= -self.set_aside


def written(details: dict[str, Any]) -> dict[str, Any]:
    """As a log gives it back."""
    read: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(details))
    return read


def limit_of(order: Order, ticker: str) -> PriceE4:
    """The price of one leg where every other leg trades at one dollar and the net is the order's limit."""
    if not order.legs:
        return order.yes_price
    first = order.legs[0]
    if ticker != first[0]:
        return PriceE4(10_000)
    rest = sum(ratio * 10_000 for leg, ratio in order.legs if leg != ticker)
    net = order.yes_price - rest
    return PriceE4(-(-net // first[1]) if order.side.sign * first[1] < 0 else net // first[1])


ContractMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.invariant("I3")
class TestContractMachine(ContractMachine.TestCase):
    """No interleaving of admissions, leg fills, losses and cancels of combinations exceeds a bound."""


WISHES = st.builds(
    lambda instrument, action, count, cents, reduce_only: intent(
        "hf-x", instrument, action, count, dollars(instrument, cents), reduce_only=reduce_only
    ),
    INSTRUMENTS,
    ACTIONS,
    st.sampled_from([1, 1, 1, 2, 2, 3, 0, 0.5]),
    CENTS,
    st.sampled_from([False, False, True]),
)
BOUNDS = st.builds(
    lambda position, value, loss, delta, cap, secs, may_short: RiskLimits(
        max_position=QtyE2(position * 100),
        max_order_value=MoneyE6(value * 1_000_000),
        max_exit_value=MoneyE6(5_000_000_000),
        max_daily_loss=MoneyE6(loss * 1_000_000),
        no_entry_before_expiry_secs=secs,
        allow_short_on_expiry_day=may_short,
        portfolio=None if delta is None else RiskLimitsConfig(delta, delta, 1, delta, 1, cap),
    ),
    st.sampled_from([10, 10, 5, 2, 0]),
    st.sampled_from([5000, 5000, 1000, 200, 0]),
    st.sampled_from([5000, 5000, 500, 0]),
    st.sampled_from([None, 1000, 200, 100, 0]),
    st.sampled_from([None, 20_000, 4000, 1000, 0]),
    st.sampled_from([0, 3600, 10**7]),
    st.booleans(),
)
CONDORS = st.integers(-2, 2).map(lambda n: dict(zip(LEGS, (n, -n, -n, n), strict=True)))
HELD = st.one_of(CONDORS, st.fixed_dictionaries({ticker: st.integers(-3, 3) for ticker in LEGS}))
QUOTES = st.fixed_dictionaries(
    {
        ticker: st.sampled_from([(1.0, 1.1)] * 12 + [(None, 1.1), (1.0, None), (1.2, 1.1), None])
        for ticker in LEGS
    }
)
GREEKS = st.sampled_from([0, 0, 0, 301, None])


def gate_with(limits: RiskLimits, held: dict[str, int], quotes: Any, age: int | None, last_day: bool) -> Any:
    clock = ManualClock(EXPIRES_NS - 7200 * NANOS if last_day else NOW_NS)
    positions = {LEGS[ticker]: float(count) for ticker, count in held.items() if count}
    gate = option_gate(*TRADED, positions=positions, limits=limits, clock=clock)
    clock.advance(1000)
    for ticker, quote in quotes.items():
        if quote is None:
            gate.market.lost([ticker])
        else:
            show(gate, **{ticker: quote})
        if age is not None:
            as_of_ns = clock.monotonic_ns() - age * NANOS
            gate.market.saw_greeks(ticker, greeks(0.25, 0.002, as_of_ns=as_of_ns))
    gate.market.saw_stream(clock.monotonic_ns())
    return gate


@pytest.mark.invariant("I3")
@settings(max_examples=300)
@given(wish=WISHES, held=HELD, quotes=QUOTES, age=GREEKS, one=BOUNDS, other=BOUNDS, last_day=st.booleans())
def test_verdicts_agree_and_tighter_limits_accept_no_more(wish, held, quotes, age, **asked):
    """`passes` is `judge`, the record replays, and what the tighter of two limits accept each of them accepts."""
    one, other = asked["one"], asked["other"]
    gate = gate_with(one.tightest(other), held, quotes, age, asked["last_day"])
    decision = gate.evaluate(wish)
    details = msgspec.json.decode(msgspec.json.encode(decision.details()))
    again = replay(details)
    assert rows_text(again) == details["rows"]
    assert (again.refused is None) is decision.allowed
    order, facts = Terms.of(wish), decision.facts
    for limits in (one, other, gate.limits):
        reducing = is_reducing(order, facts)
        verdict = judge(wish, facts, limits).refused is None
        assert passes(order, facts, limits, reducing=reducing) is verdict
    if decision.allowed:
        assert judge(wish, facts, one).refused is None
        assert judge(wish, facts, other).refused is None


OWN = {
    Code.STATE_REDUCING,
    Code.PRICE_OUT_OF_RANGE,
    Code.PRICE_OFF_GRID,
    Code.BAD_COUNT,
    Code.COUNT_BELOW_STEP,
    Code.ORDER_VALUE_EXCEEDED,
    Code.EXPIRED,
}
"""What may refuse an exit: the order itself is wrong or too large for its wider bound."""


@pytest.mark.invariant("I5")
@settings(max_examples=300)
@given(wish=WISHES, held=HELD, quotes=QUOTES, age=GREEKS, limits=BOUNDS, last_day=st.booleans())
def test_no_exposure_limit_refuses_what_reduces(wish, held, quotes, age, **asked):
    """Whatever is lost, unknown or exceeded: an order that reduces is refused only for what it is itself."""
    gate = gate_with(asked["limits"], held, quotes, age, asked["last_day"])
    gate.saw_buying_power(MoneyE6(0))
    decision = gate.evaluate(wish)
    if decision.reducing and decision.reason is not None:
        assert decision.reason.code in OWN


@pytest.mark.invariant("I4")
@settings(max_examples=100)
@given(wish=WISHES, held=HELD, quotes=QUOTES, age=GREEKS)
def test_what_adds_risk_on_something_unknown_is_refused_by_its_name(wish, held, quotes, age):
    """No increasing order passes while a short has no ask, a book is crossed or lost, or Greeks are missing or old."""
    config = RiskLimitsConfig(10**6, 10**6, 1, 10**6, 1)
    limits = RiskLimits(
        max_position=QtyE2(10**9),
        max_order_value=MoneyE6(10**12),
        max_exit_value=MoneyE6(10**12),
        max_daily_loss=MoneyE6(10**15),
        portfolio=config,
    )
    gate = gate_with(limits, held, quotes, age, last_day=False)
    decision = gate.evaluate(wish)
    unknown = any(
        count and (quotes[ticker] in {None, (1.2, 1.1)} or (count < 0 and quotes[ticker] == (1.0, None)))
        for ticker, count in held.items()
    )
    if decision.reducing:
        return
    if unknown:
        assert not decision.allowed
        failed = {row.code for row in decision.rows if not row.ok}
        assert Code.MARK_UNKNOWN in failed
    if age is None:
        assert Code.GREEKS_UNKNOWN in {row.code for row in decision.rows if not row.ok}
    elif age > 300:
        assert Code.GREEKS_STALE in {row.code for row in decision.rows if not row.ok}


@pytest.mark.invariant("I3")
def test_threads_that_race_for_legs_get_exactly_the_limit():
    """Eight threads asking for spreads and for single legs get four contracts of each leg between them, no more."""
    limits = RiskLimits(
        max_position=QtyE2(4_00), max_order_value=MoneyE6(10**12), max_exit_value=MoneyE6(10**12)
    )
    gate = option_gate(PUT_SPREAD, limits=limits)
    start = threading.Barrier(8)

    def ask(thread: int) -> None:
        start.wait()
        for n in range(4):
            what, price = (PUT_SPREAD, -1) if (thread + n) % 2 else (put(470), 1)
            gate.admit(intent(f"hf-{thread}-{n}", what, "buy", 1, price))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gate.account.working(put(470).ticker) == (400, 0)
    buys, sells = gate.account.working(put(480).ticker)
    assert (buys, sells <= 400) == (0, True)
