"""A legged order's plan keeps its room: whatever else is admitted, its legs come in and go out again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from support.contracts import call, combo, fill, greeks, intent, option_gate, put
from support.execution import opened_account

from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import OrderEvent
from holdfast.core.signals import BookSide
from holdfast.execution.trader import order_details
from holdfast.risk.contracts import planned, structure
from holdfast.risk.decisions import replay, rows_text
from holdfast.risk.exposure import Part, Work, floor
from holdfast.risk.limits import RiskLimits, RiskLimitsConfig
from holdfast.risk.order import Order
from holdfast.risk.plans import GIVEN_BACK, UNWINDING, Plan, PlanLeg, Plans
from holdfast.risk.portfolio_book import part_of, read_book
from holdfast.risk.trades import trade_details

LONGS, SHORTS = (put(470), call(530)), (put(480), call(520))
BETWEEN = (put(475), call(525))
LIMITS = RiskLimits(
    max_position=QtyE2(4_00),
    max_order_value=MoneyE6(2_000_000_000),
    max_exit_value=MoneyE6(4_000_000_000),
    max_daily_loss=MoneyE6(10**12),
    portfolio=RiskLimitsConfig(
        max_portfolio_delta=150,
        max_portfolio_gamma=10,
        max_single_position_pct=1.0,
        max_per_symbol_delta=150,
        max_correlated_pct=1.0,
        total_exposure_cap="6000",
    ),
)
BUYING_POWER = MoneyE6(7_000_000_000)
STRUCTURES = (((put(470), 1), (put(480), -1)), ((call(530), 1), (call(520), -1)),
              ((put(470), 1), (call(530), 1), (put(480), -1), (call(520), -1)))  # fmt: skip
PRICES = {**{one.ticker: 10_000 for one in LONGS}, **{one.ticker: 30_000 for one in SHORTS}}
DELTAS = {put(470).ticker: -0.2, put(480).ticker: -0.3, call(520).ticker: 0.3, call(530).ticker: 0.2,
          put(475).ticker: -0.25, call(525).ticker: 0.25}  # fmt: skip
RULES = {one.ticker: one for one in (*LONGS, *SHORTS, *BETWEEN)}
# Others want the same legs the same way, and to lean on them.
WISHES = [
    *((one, "buy") for one in LONGS),
    *((one, "sell") for one in SHORTS),
    *((one, action) for one in BETWEEN for action in ("buy", "sell")),
]


def planned_legs(legs: Any, count: int) -> list[PlanLeg]:
    return [
        PlanLeg(one.ticker, ratio * count * 100, PriceE4(PRICES[one.ticker]), 100, one.fee_per_contract)
        for one, ratio in legs
    ]


def states_of(name: str, legs: Any, count: int) -> list[Any]:
    """What is held after each leg, as one order."""
    made = []
    for number in range(1, len(legs) + 1):
        held = legs[:number]
        one: Instrument = held[0][0] if number == 1 else combo(*held)
        price = sum(ratio * PRICES[leg.ticker] for leg, ratio in held) / 10_000
        made.append(intent(f"{name}/state-{number}", one, "buy", count, price))
    return made


class PlanMachine(RuleBasedStateMachine):
    """Plans, their legs, other people's orders, fills, rejections, lost answers and unwindings in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = option_gate(*RULES.values(), limits=LIMITS)
        self.gate.saw_buying_power(BUYING_POWER)
        for ticker, delta in DELTAS.items():
            self.gate.market.saw_greeks(ticker, greeks(delta, 0.001))
        self.account = self.gate.account
        self.named = self.trades = 0
        self.records: list[tuple[str, dict[str, Any]]] = []

    def tell(self, record_type: str, details: dict[str, Any]) -> None:
        details = msgspec.json.decode(msgspec.json.encode(details))
        self.records.append((record_type, details))
        self.account.apply(record_type, details)

    def some_plan(self, data: Any, *, unwinding: bool) -> Plan | None:
        found = [one for one in self.account.plans.live.values() if one.is_unwinding is unwinding]
        return data.draw(st.sampled_from(found)) if found else None

    def admit(self, wish: Any, **options: Any) -> Order | None:
        decision = self.gate.admit(wish, **options)
        details = msgspec.json.decode(msgspec.json.encode(decision.details()))
        assert rows_text(replay(details)) == details["rows"]
        if decision.order is not None:
            self.records.append(("DECISION", details))
            self.tell("ORDER", order_details(wish, decision.order))
        self.reason = decision.reason
        return decision.order

    @rule(legs=st.sampled_from(STRUCTURES), count=st.integers(1, 2))
    def plan(self, legs: Any, count: int) -> None:
        self.named += 1
        name = f"plan-{self.named}"
        before = self.account.plans.set_aside()
        decisions, plan = self.gate.reserve_plan(
            name, states_of(name, legs, count), planned_legs(legs, count)
        )
        for decision in decisions:
            details = msgspec.json.decode(msgspec.json.encode(decision.details()))
            assert rows_text(replay(details)) == details["rows"]
            self.records.append(("DECISION", details))
        if plan is None:
            assert not decisions[-1].allowed
            assert self.account.plans.set_aside() == before
        else:
            assert self.account.plans.set_aside() == before + plan.reserved
            self.tell("PLAN", plan.details())

    @rule(data=st.data())
    def next_leg(self, data: Any) -> None:
        """Whatever was admitted since, a plan's next leg is let in, and no less is reserved than before."""
        plan = self.some_plan(data, unwinding=False)
        if plan is None or any(order.leaves for order in plan.orders):
            return
        counts = zip(plan.legs, plan.counts(), strict=True)
        lacking = [(leg.ticker, leg.qty - leg.sign * count.entered) for leg, count in counts]
        lacking = [line for line in lacking if line[1]]
        if not lacking:
            return
        ticker, qty = lacking[0]
        before = self.account.reserved + self.account.plans.set_aside()
        self.named += 1
        action = "buy" if qty > 0 else "sell"
        wish = intent(
            f"{plan.name}/leg-{self.named}", RULES[ticker], action, abs(qty) / 100, PRICES[ticker] / 10_000
        )
        order = self.admit(wish, plan=plan.name)
        assert order is not None, self.reason
        assert order.plan == plan.name
        assert self.account.reserved + self.account.plans.set_aside() >= before
        self.turn_out(data, order)

    def turn_out(self, data: Any, order: Order) -> None:
        """Most orders fill at once; some in part, some are rejected, and some stay open."""
        how = data.draw(st.sampled_from(["whole", "whole", "whole", "part", "rejected", "open"]))
        if how == "rejected":
            self.tell("ORDER_UPDATE", self.account.update(order.client_order_id, OrderEvent.REJECTED))
        elif how != "open":
            self.fill(order, order.leaves // 100 if how == "whole" else 1)

    @rule(data=st.data(), wish=st.sampled_from(WISHES), count=st.integers(1, 4), cents=st.integers(50, 400))
    def other(self, data: Any, wish: Any, count: int, cents: int) -> None:
        self.named += 1
        order = self.admit(intent(f"other-{self.named}", wish[0], wish[1], count, cents / 100))
        if order is not None:
            self.turn_out(data, order)

    def some_order(self, data: Any) -> Order | None:
        orders = self.account.open_orders()
        return data.draw(st.sampled_from(orders)) if orders else None

    @rule(data=st.data())
    def fills(self, data: Any) -> None:
        order = self.some_order(data)
        if order is None:
            return
        self.fill(order, data.draw(st.integers(1, order.leaves // 100)))

    def fill(self, order: Order, units: int) -> None:
        self.trades += 1
        one = fill(
            RULES[order.ticker], order.side, units, 1, trade_id=f"T{self.trades}", order=order.client_order_id
        )
        one = msgspec.structs.replace(one, price=order.yes_price)
        self.tell("TRADE", trade_details(one, client_order_id=order.client_order_id, external=False))
        if not order.leaves:
            self.tell("ORDER_UPDATE", self.account.update(order.client_order_id, OrderEvent.CANCELED))

    @rule(
        data=st.data(),
        event=st.sampled_from([OrderEvent.ANSWER_LOST, OrderEvent.REJECTED, OrderEvent.CANCELED]),
    )
    def ends(self, data: Any, event: OrderEvent) -> None:
        order = self.some_order(data)
        if order is None or (event is OrderEvent.REJECTED and order.filled):
            return
        if event is OrderEvent.CANCELED and order.status.value != "working":
            found = OrderEvent.FOUND if order.status.value == "unknown" else OrderEvent.ACKED
            self.tell("ORDER_UPDATE", self.account.update(order.client_order_id, found))
        if event is OrderEvent.REJECTED and order.status.value != "pending":
            return
        self.tell("ORDER_UPDATE", self.account.update(order.client_order_id, event))

    @rule(data=st.data())
    def unwind(self, data: Any) -> None:
        plan = self.some_plan(data, unwinding=False)
        if plan is not None:
            self.tell("PLAN", plan.details(UNWINDING, "LegTimeout"))

    @rule(data=st.data())
    def leg_out(self, data: Any) -> None:
        """An unwinding's next order takes a leg out, and is never refused."""
        plan = self.some_plan(data, unwinding=True)
        if plan is None or any(order.leaves for order in plan.orders):
            return
        held = [(leg, count.held) for leg, count in zip(plan.legs, plan.counts(), strict=True) if count.held]
        if not held:
            return
        leg, qty = held[-1]
        side = BookSide.ASK if leg.sign > 0 else BookSide.BID
        own = sum(o.side.sign * o.leaves for o in self.account.open_orders() if o.ticker == leg.ticker)
        if own * side.sign > 0:
            return  # somebody else's exit of this leg is at work
        self.named += 1
        action = "sell" if leg.sign > 0 else "buy"
        price = 0.5 if leg.sign > 0 else leg.limit / 10_000
        wish = intent(
            f"{plan.name}/exit-{self.named}", RULES[leg.ticker], action, qty / 100, price, reduce_only=True
        )
        order = self.admit(wish, plan=plan.name)
        assert order is not None, self.reason
        assert order.plan == plan.name
        self.turn_out(data, order)

    @rule(data=st.data())
    def give_back(self, data: Any) -> None:
        """As the engine does: complete, or flat with nothing at work."""
        for plan in list(self.account.plans.live.values()):
            counts = plan.counts()
            is_idle = not any(order.leaves for order in plan.orders)
            is_whole = all(count.held == abs(leg.qty) for leg, count in zip(plan.legs, counts, strict=True))
            is_flat = plan.is_unwinding and not any(count.held for count in counts)
            if is_idle and (is_flat or (is_whole and not plan.is_unwinding)):
                self.tell("PLAN", plan.details(GIVEN_BACK, "flat" if is_flat else "complete"))

    @invariant()
    def everything_reserved_fits(self) -> None:
        """Every plan carried out and every order filled: positions, Greeks and what can be lost are in bounds."""
        for ticker in RULES:
            buys, sells = self.account.committed(ticker)
            held = self.account.portfolio.position(ticker)
            assert max(held + buys, sells - held) <= LIMITS.max_position
        book = read_book(self.account, self.gate.market)
        assert book.delta.worst <= 150_000_000
        parts, works, _ = structure(self.account, self.gate.market, "SPY")
        assert floor(self.without_plans(), works) is not None  # nobody else leans on a leg that may leave
        _, ways, missing = planned(self.account, self.gate.market, "SPY")
        assert not missing
        assert floor(parts, (*works, *ways)) is not None
        assert self.account.plans.set_aside() >= 0

    def without_plans(self) -> list[Part]:
        """What is held beside everything that plans brought in."""
        held = dict(self.account.portfolio.positions)
        for plan in self.account.plans.live.values():
            for leg, count in zip(plan.legs, plan.counts(), strict=True):
                held[leg.ticker] = QtyE2(held.get(leg.ticker, QtyE2(0)) - leg.sign * count.held)
        return [part_of(RULES[ticker], qty) for ticker, qty in held.items()]

    def teardown(self) -> None:
        """The records alone give the same plans, at any moment a crash may come."""
        again = opened_account(cash="100000.00", liquidation="100000.00")
        for record_type, details in self.records:
            again.apply(record_type, details)
        assert again.snapshot()["plans"] == self.account.snapshot()["plans"]
        assert again.snapshot()["orders"] == self.account.snapshot()["orders"]
        assert again.plans.set_aside() == self.account.plans.set_aside()


PlanMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@pytest.mark.invariant("I3")
@pytest.mark.contract("B12")
class TestPlanMachine(PlanMachine.TestCase):
    """No interleaving of plans, legs, other orders, fills, rejections and lost answers takes a plan's room."""


def not_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan exists, and nobody counts it."""
    monkeypatch.setattr(Plans, "others", lambda _self, _but: [])
    monkeypatch.setattr(Plans, "planned", lambda _self, _ticker, but="": (0, 0))
    monkeypatch.setattr(Plans, "set_aside", lambda _self, but="": 0)


def given_back_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first leg's order gone out, nothing is held back for the others."""
    rest, ways = Plan.rest, Plan.ways
    monkeypatch.setattr(Plan, "rest", lambda self: iter(()) if self.orders else rest(self))
    monkeypatch.setattr(Plan, "ways", lambda self: [] if self.orders else ways(self))


@pytest.mark.slow
@pytest.mark.invariant("I3")
@pytest.mark.parametrize("plant", [not_reserved, given_back_early])
def test_a_plan_that_holds_nothing_back_is_caught(plant, monkeypatch):
    """The machine above fails where a plan is not reserved, or is given back too early."""
    plant(monkeypatch)
    bounds = settings(
        max_examples=3000, stateful_step_count=25, deadline=None, derandomize=True, phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with pytest.raises(AssertionError):
        run_state_machine_as_test(PlanMachine, settings=bounds)


@pytest.mark.invariant("I3")
@settings(max_examples=100, deadline=None)
@given(held=st.dictionaries(st.sampled_from(sorted(RULES)), st.integers(-3, 3)), data=st.data())
def test_the_worst_of_a_plan_is_the_worst_of_its_ways(held, data):
    """Of one expiry: nothing happens or any one way, whichever leaves the least; unbounded where one of these is."""
    lines = st.lists(st.tuples(st.sampled_from(sorted(RULES)), st.integers(-3, 3)), min_size=1, max_size=3)
    parts = [part_of(RULES[ticker], QtyE2(count * 100)) for ticker, count in held.items()]
    first, *others = [
        Work(tuple(part_of(RULES[ticker], QtyE2(count * 100)) for ticker, count in way), cash)
        for way, cash in data.draw(
            st.lists(st.tuples(lines, st.integers(-(10**9), 10**9)), min_size=1, max_size=4)
        )
    ]
    each = [floor(parts), *(floor(parts, [way]) for way in (first, *others))]
    expected = None if None in each else min(each)
    assert floor(parts, [first._replace(or_else=tuple(others))]) == expected
