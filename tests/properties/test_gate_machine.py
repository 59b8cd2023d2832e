"""The gate under every interleaving: what it admits never exceeds a bound, and what it does not know it refuses."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.execution import OTHER, TICKER, gate, instrument, intent, opened_account

from holdfast.core.clock import ManualClock
from holdfast.core.money import MoneyE6, PriceE4, QtyE2, parse_money
from holdfast.core.orders import Fill, OrderEvent, OrderStatus
from holdfast.core.positions import liquidation_value
from holdfast.core.reasons import Code
from holdfast.core.signals import BookSide
from holdfast.risk.account import Account
from holdfast.risk.checks import judge
from holdfast.risk.decisions import replay, rows_text
from holdfast.risk.gate import Gate
from holdfast.risk.limits import RiskLimits
from holdfast.risk.trades import trade_details

LIMIT = QtyE2(50_00)
COUNTS = st.integers(1, 40)
CENTS = st.integers(1, 99)
SIDES = st.sampled_from(["yes", "no"])
ACTIONS = st.sampled_from(["buy", "sell"])


def worst(account: Account, ticker: str) -> tuple[int, int]:
    """Worst long and worst short, from the orders themselves, not from the account's running totals."""
    position = account.portfolio.position(ticker)
    buys = sum(o.leaves for o in account.open_orders() if o.ticker == ticker and o.side is BookSide.BID)
    sells = sum(o.leaves for o in account.open_orders() if o.ticker == ticker and o.side is BookSide.ASK)
    return position + buys, sells - position


class GateMachine(RuleBasedStateMachine):
    """Orders are admitted, answered, lost, filled and canceled in any order; a model keeps the sums."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.limits = RiskLimits(max_position=LIMIT, max_order_value=MoneyE6(20_000_000))
        self.gate = Gate(opened_account(), self.limits, clock=self.clock)
        for ticker in (TICKER, OTHER):
            self.gate.market.saw_book(ticker, PriceE4(4000), PriceE4(6000), 0, streamed=True)
        self.trades = 0
        self.named = 0
        self.filled: dict[str, int] = {}

    def some_open(self, data: Any) -> Any:
        orders = self.gate.account.open_orders()
        return data.draw(st.sampled_from(orders)) if orders else None

    @rule(ticker=st.sampled_from([TICKER, OTHER]), count=COUNTS, price=CENTS, side=SIDES, action=ACTIONS)
    def admit(self, ticker: str, count: int, price: int, side: str, action: str) -> None:
        self.named += 1
        wish = intent(f"hf-{self.named}", ticker=ticker, count=count, price=price, side=side, action=action)
        before = worst(self.gate.account, ticker)
        decision = self.gate.admit(wish)
        after = worst(self.gate.account, ticker)
        mine = 0 if wish.book_side is BookSide.BID else 1
        if decision.allowed:
            assert after[mine] == before[mine] + wish.count <= LIMIT
            assert after[1 - mine] == before[1 - mine]
            assert not decision.reducing or decision.rows[5].value <= 0
            assert decision.rows[6].value <= self.limits.max_order_value or decision.reducing
        else:
            assert after == before
            assert before[mine] + wish.count > LIMIT or decision.rows[6].value > self.limits.max_order_value
        again = replay(decision.details())
        assert rows_text(again) == decision.details()["rows"]
        assert (again.refused is None) == decision.allowed

    @rule(data=st.data())
    def lose(self, data: Any) -> None:
        order = self.some_open(data)
        if order is not None:
            self.update(order, OrderEvent.ANSWER_LOST)
            assert order.status is OrderStatus.UNKNOWN

    @rule(data=st.data())
    def fill(self, data: Any) -> None:
        order = self.some_open(data)
        if order is None or not order.leaves:
            return
        qty = data.draw(st.integers(1, order.leaves))
        self.trades += 1
        fill = Fill(
            trade_id=f"T{self.trades}",
            order_id="",
            client_order_id=order.client_order_id,
            ticker=order.ticker,
            side=order.side,
            price=order.yes_price,
            qty=QtyE2(qty),
            fee=MoneyE6(0),
            is_taker=True,
            ts_ns=1,
        )
        details = trade_details(fill, client_order_id=order.client_order_id, external=False)
        self.gate.account.apply("TRADE", details)
        self.gate.account.apply("TRADE", details)  # told twice, booked once
        self.filled[order.ticker] = self.filled.get(order.ticker, 0) + fill.delta

    @rule(data=st.data())
    def end(self, data: Any) -> None:
        order = self.some_open(data)
        if order is not None:
            if order.status is OrderStatus.PENDING:
                self.update(order, OrderEvent.ACKED)
            elif order.status is OrderStatus.UNKNOWN:
                self.update(order, OrderEvent.FOUND)
            self.update(order, OrderEvent.CANCELED)
            assert order.leaves == 0

    def update(self, order: Any, event: OrderEvent) -> None:
        account = self.gate.account
        account.apply("ORDER_UPDATE", account.update(order.client_order_id, event))

    @invariant()
    def nothing_exceeds_its_bound(self) -> None:
        account = self.gate.account
        for ticker in (TICKER, OTHER):
            assert max(worst(account, ticker)) <= LIMIT
            long, short = worst(account, ticker)
            buys, sells = account.working(ticker)
            position = account.portfolio.position(ticker)
            assert (position + buys, sells - position) == (long, short)
            assert position == self.filled.get(ticker, 0)
        for order in account.orders.values():
            assert order.filled + order.leaves + order.released == order.quantity
            assert order.leaves >= 0
        assert account.reserved == sum(order.worst_case for order in account.open_orders())

    @rule(
        ticker=st.sampled_from([TICKER, OTHER]), bid=CENTS, width=st.integers(1, 20), streamed=st.booleans()
    )
    def move(self, ticker: str, bid: int, width: int, streamed: bool) -> None:
        ask = PriceE4(min(bid + width, 100) * 100)
        now_ns = self.clock.monotonic_ns()
        self.gate.market.saw_book(ticker, PriceE4(bid * 100), ask, now_ns, streamed=streamed)

    @invariant()
    def what_is_held_is_worth_what_its_prices_say_now(self) -> None:
        """The gate folds positions and prices once per change; here they are folded anew."""
        account, market = self.gate.account, self.gate.market
        marks = {ticker: market.mark(ticker) for ticker in account.portfolio.positions}
        worth = liquidation_value(account.portfolio.positions, marks)
        assert self.gate.daily_pnl() == account.portfolio.cash + worth


GateMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.invariant("I3")
class TestGateMachine(GateMachine.TestCase):
    """No interleaving of admissions, answers, losses and fills exceeds a bound, UNKNOWN counted in full."""


@pytest.mark.invariant("I3")
def test_gate_admits_no_more_than_the_limit_when_threads_race():
    """Eight threads asking for ten contracts each, twenty times, get exactly the limit between them."""
    the_gate = gate(limits=RiskLimits(max_position=QtyE2(100_00)))
    start = threading.Barrier(8)
    allowed: list[int] = []

    def ask(thread: int) -> None:
        start.wait()
        allowed.extend(
            1 for n in range(20) if the_gate.admit(intent(f"hf-{thread}-{n}", count=10, price=1)).allowed
        )

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(allowed) == 10
    assert the_gate.account.working(TICKER) == (100_00, 0)


WISHES = st.builds(
    lambda **fields: intent("hf-x", **fields),
    count=st.integers(1, 300),
    price=CENTS,
    side=SIDES,
    action=ACTIONS,
)
LIMITS = st.builds(
    RiskLimits,
    max_position=st.integers(0, 300_00).map(QtyE2),
    max_order_value=st.integers(0, 300_000_000).map(MoneyE6),
    max_exit_value=st.just(MoneyE6(5_000_000_000)),
    max_daily_loss=st.integers(0, 100_000_000).map(MoneyE6),
)


@pytest.mark.invariant("I3")
@given(wish=WISHES, one=LIMITS, other=LIMITS, position=st.integers(-200, 200), cash=st.integers(-150, 150))
def test_gate_never_accepts_more_when_a_limit_is_tightened(wish, one, other, position, cash):
    """An order that the tighter limits accept is accepted by each of the looser ones."""
    positions = {TICKER: f"{position}.00"} if position else {}
    the_gate = gate(limits=one.tightest(other), positions=positions, cash=f"{cash}.00")
    the_gate.market.saw_book(TICKER, PriceE4(4000), PriceE4(6000), 0, streamed=True)
    decision = the_gate.evaluate(wish)
    if decision.allowed:
        assert judge(wish, decision.facts, one).refused is None
        assert judge(wish, decision.facts, other).refused is None


@pytest.mark.invariant("I4")
@given(
    wish=WISHES, position=st.integers(-100, 100).filter(bool), age=st.one_of(st.none(), st.integers(0, 100))
)
def test_gate_refuses_by_name_what_rests_on_an_unknown_price(wish, position, age):
    """An order that adds risk while a held market has no price, or one older than allowed, is refused as such."""
    clock = ManualClock()
    limits = RiskLimits(
        max_position=QtyE2(10**9), max_order_value=MoneyE6(10**12), max_exit_value=MoneyE6(10**12)
    )
    the_gate = gate(limits=limits, clock=clock, positions={OTHER: f"{position}.00"})
    if age is not None:
        the_gate.market.saw_book(OTHER, PriceE4(4000), PriceE4(6000), 0, streamed=False)
        clock.advance(age)
    decision = the_gate.evaluate(wish)
    if age is None:
        assert decision.reason.code is Code.MARK_UNKNOWN
    elif age > limits.max_mark_age_secs:
        assert decision.reason.code is Code.MARK_STALE
    else:
        assert decision.allowed


@pytest.mark.invariant("I4")
@given(price=st.integers(-100, 20_000), count=st.integers(-10, 1000), step=st.sampled_from([1, 10, 100]))
def test_gate_refuses_every_price_and_count_the_market_does_not_take(price, count, step):
    """A price off the grid or outside (0, 1), and a count that is not a positive number of steps, never pass."""
    wish = intent("hf-x", of=instrument(qty_step=QtyE2(step)), price=price / 100, count=count / 100)
    decision = gate().evaluate(wish)
    good = 0 < price < 10_000 and price % 100 == 0 and count > 0 and count % step == 0
    assert decision.allowed == good
    if not good:
        assert decision.reason.code in {
            Code.PRICE_OUT_OF_RANGE,
            Code.PRICE_OFF_GRID,
            Code.BAD_COUNT,
            Code.COUNT_BELOW_STEP,
        }


@given(position=st.integers(-100, 100), bid=st.one_of(st.none(), CENTS), ask=st.one_of(st.none(), CENTS))
def test_gate_bounds_an_empty_side_instead_of_not_knowing_it(position, bid, ask):
    """With no bid a long is worth nothing, with no ask a short costs a dollar; neither is unknown."""
    the_gate = gate(positions={TICKER: f"{position}.00"})
    bid_price, ask_price = (None if cents is None else PriceE4(cents * 100) for cents in (bid, ask))
    the_gate.market.saw_book(TICKER, bid_price, ask_price, 0, streamed=True)
    price = (bid or 0) if position > 0 else (ask if ask is not None else 100)
    assert the_gate.daily_pnl() == parse_money(position) * price // 100
