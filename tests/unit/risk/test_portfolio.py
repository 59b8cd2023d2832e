"""The questions asked of a portfolio's limits: the six refusals in order, what is unknown, health and capacity."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.portfolio import CONDOR, call, loose, noon, options_gate, put, rules, wish

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.errors import BadInput
from holdfast.core.greeks import BOUND, MODEL, Greeks
from holdfast.risk.contracts import structure
from holdfast.risk.events import RiskEvent
from holdfast.risk.limits import RiskLimitsConfig
from holdfast.risk.market import Market
from holdfast.risk.portfolio import AccountRisk, PortfolioLimitsChecker, PortfolioRisk
from holdfast.risk.portfolio_book import GreeksSeen, open_cash, read_book


class Events(list[RiskEvent]):
    """An event logger that keeps what it is told."""

    def emit(self, event: RiskEvent, /) -> None:
        self.append(event)


class Fixed:
    """A risk calculator that always says the same."""

    def __init__(self, **risk: Any) -> None:
        given = {"delta": {}, "gamma": {}, "exposure": {}, "equity": 100_000, "as_of_ns": 0} | risk
        self.risk = PortfolioRisk.of(**given)

    def portfolio_risk(self) -> PortfolioRisk:
        return self.risk


def checker(limits: RiskLimitsConfig | None = None, *, events: Events | None = None, **risk: Any):
    return PortfolioLimitsChecker(Fixed(**risk), limits or RiskLimitsConfig(), events, clock=ManualClock())


def over(gate: Any, limits: RiskLimitsConfig | None = None):
    """A checker over a gate's own account, at the moment the gate was made."""
    clock = ManualClock()
    return PortfolioLimitsChecker(AccountRisk(gate, clock=clock), limits or RiskLimitsConfig(), clock=clock)


def ask(one: PortfolioLimitsChecker, delta: Any = 1, symbol: str = "SPY", value: Any = 100, **more: Any):
    return asyncio.run(one.check_entry_allowed(delta, symbol, value, **more))


@pytest.mark.contract("B4")
def test_a_first_position_inside_every_limit_is_allowed():
    """An empty portfolio takes its first position: concentration is against equity. Nothing is said against it."""
    allowed, reason = ask(checker(), 5.0, "SPY", 2_000.0)
    assert (allowed, reason) == (True, None)


SIX = [
    ("portfolio_delta", {"delta": {"QQQ": 45}}, (5.000001, "SPY", 100), "50.000001 shares > 50.00 shares"),
    ("portfolio_gamma", {"gamma": {"QQQ": 9}}, (1, "SPY", 100, 1.5), "10.50 shares > 10.00 shares"),
    ("symbol_delta", {"delta": {"SPY": 18}}, (3, "SPY", 100), "21.00 shares > 20.00 shares"),
    ("concentration", {}, (1, "SPY", "2000.01"), "2000.01 USD > 2000.00 USD"),
    ("correlated_exposure", {"exposure": {"SPY": 4_000}}, (1, "SPY", 1_500), "5500.00 USD > 5000.00 USD"),
    ("total_exposure_cap", {"exposure": {"QQQ": 9_000}}, (1, "SPY", 1_500), "10500.00 USD > 10000.00 USD"),
]


@pytest.mark.contract("B4")
@pytest.mark.parametrize(("code", "risk", "question", "said"), SIX, ids=[row[0] for row in SIX])
def test_each_limit_refuses_under_its_own_name(code, risk, question, said):
    """The reason begins with the code and holds what was measured and its bound; the event says the same."""
    events = Events()
    delta, symbol, value, *gamma = question
    one = checker(RiskLimitsConfig(total_exposure_cap=10_000), events=events, **risk)
    allowed, reason = ask(one, delta, symbol, value, new_position_gamma=gamma[0] if gamma else 0)
    assert not allowed
    assert reason is not None
    assert reason.startswith(f"{code} {said}")
    (event,) = events
    assert (event.event_type.value, event.component) == ("portfolio_limit_rejection", "portfolio_limits")
    assert (event.limit_type, event.allowed, event.rejection_reason) == (code, False, reason)
    assert f"{event.current_value} {event.unit} > {event.limit_value} {event.unit}" == said
    assert event.symbol == symbol


@pytest.mark.contract("B4")
def test_the_first_refusal_in_the_fixed_order_is_the_reason():
    """A question that breaks all six is refused for each in turn as the ones before are lifted."""
    risk = {"delta": {"SPY": 60}, "gamma": {"SPY": 20}, "exposure": {"SPY": 9_000}}
    lifts: dict[str, Any] = {}
    seen: list[str] = []
    for name in (
        "max_portfolio_delta",
        "max_portfolio_gamma",
        "max_per_symbol_delta",
        "max_single_position_pct",
        "max_correlated_pct",
        "total_exposure_cap",
    ):
        limits = RiskLimitsConfig(**({"total_exposure_cap": 1} | lifts))
        reason = ask(checker(limits, **risk), 5, "SPY", 3_000, new_position_gamma=1).reason
        assert reason is not None
        seen.append(reason.split()[0])
        lifts[name] = 1 if name.endswith("_pct") else 1_000_000
    assert seen == [row[0] for row in SIX]
    assert ask(checker(RiskLimitsConfig(**lifts), **risk), 5, "SPY", 3_000, new_position_gamma=1).allowed


@pytest.mark.contract("B4")
def test_a_question_without_gamma_is_judged_by_the_present_book_and_says_so():
    """The book's own gamma decides, and the event tells that the order's was left out."""
    events = Events()
    assert ask(checker(events=events, gamma={"SPY": 10}), 1).allowed
    refused = ask(checker(events=events, gamma={"SPY": -10.5}), 1)
    assert str(refused.reason).startswith("portfolio_gamma")
    assert [event.metadata["gamma"] for event in events] == ["of the present book"] * 2
    assert ask(checker(events=events, gamma={"SPY": -10.5}), 1, new_position_gamma=2).allowed
    assert events[-1].metadata["gamma"] == "marginal"


@pytest.mark.contract("B4")
@pytest.mark.invariant("I11")
def test_what_a_question_gives_finer_than_a_millionth_is_rounded_away_from_zero():
    """A hair above a bound is above it, on both sides and in dollars; a hair below is at it."""
    assert ask(checker(), 20).allowed
    assert not ask(checker(), 20.0000001).allowed
    assert not ask(checker(), Decimal("-20.0000001")).allowed
    assert ask(checker(), 19.9999999).allowed
    assert not ask(checker(), 1, value=Decimal("2000.0000001")).allowed


@pytest.mark.contract("B4")
def test_what_pushes_back_is_never_refused_for_delta_or_gamma():
    """Above both bounds, an order that takes delta and gamma away is allowed."""
    risk = {"delta": {"SPY": -80}, "gamma": {"SPY": -30}}
    assert ask(checker(**risk), 10, "SPY", 100, new_position_gamma=5).allowed
    assert not ask(checker(**risk), -1, "SPY", 100, new_position_gamma=5).allowed
    assert not ask(checker(**risk), 10, "SPY", 100, new_position_gamma=-1).allowed


NAN, INFINITE = float("nan"), float("inf")
UNKNOWN = [
    ("a delta that is no number", "greeks_unknown", {}, {"delta": NAN}),
    ("an infinite delta", "greeks_unknown", {}, {"delta": -INFINITE}),
    ("a gamma that is no number", "greeks_unknown", {}, {"new_position_gamma": Decimal("NaN")}),
    ("a held Greek that nobody knows", "greeks_unknown", {"delta": {"QQQ": None}}, {}),
    ("a held Greek that is no number", "greeks_unknown", {"gamma": {"QQQ": NAN}}, {}),
    ("Greeks that are too old", "greeks_stale", {"delta": {"QQQ": 1}, "as_of_ns": -301 * NANOS}, {}),
    ("an equity that nobody knows", "equity_unknown", {"equity": None}, {}),
    ("an equity that is no number", "equity_unknown", {"equity": NAN}, {}),
    ("an exposure that nobody knows", "unbounded_loss", {"exposure": {"SPY": None}}, {"value": 1}),
    ("a loss without bound", "unbounded_loss", {}, {"value": None}),
    ("a value that is no number", "bad_input", {}, {"value": NAN}),
    ("an infinite value", "bad_input", {}, {"value": INFINITE}),
    ("a negative value", "bad_input", {}, {"value": -1}),
]


@pytest.mark.contract("B4", "B5")
@pytest.mark.invariant("I4")
@pytest.mark.parametrize(
    ("code", "risk", "question"), [row[1:] for row in UNKNOWN], ids=[row[0] for row in UNKNOWN]
)
def test_what_is_unknown_refuses_by_its_own_name(code, risk, question):
    """No default Greek, no zero exposure, no infinite equity: a named refusal, and an event."""
    events = Events()
    allowed, reason = ask(checker(events=events, **risk), **question)
    assert not allowed
    assert str(reason).startswith(code)
    assert [(event.limit_type, event.allowed) for event in events] == [(code, False)]


@pytest.mark.parametrize("wrong", ["much", True, [1], b"1"], ids=repr)
def test_what_is_no_number_at_all_is_the_callers_mistake(wrong):
    """A delta of another type raises, with its name."""
    with pytest.raises(BadInput, match="new_position_delta"):
        ask(checker(), wrong)


@pytest.mark.contract("B4")
def test_every_question_is_written_down_with_its_rows():
    """An allowed question is an event too, with all seven rows; without an event logger it is answered the same."""
    events = Events()
    assert ask(checker(events=events), 1, intent_id="hf-7") == ask(checker(), 1)
    (event,) = events
    assert (event.event_type.value, event.allowed, event.intent_id) == ("portfolio_limit_check", True, "hf-7")
    assert len(event.metadata["rows"]) == 7
    assert event.metadata["new_position_delta"] == "1"


@pytest.mark.contract("B5")
def test_a_position_that_joins_a_structure_counts_with_it():
    """Told its expiry, a position is judged together with what that structure can lose already."""
    gate = options_gate(
        held={put(95): -1, put(90): 1},
        quotes={put(95): ("2.00", "2.10"), put(90): ("1.00", "1.10")},
        deltas={put(95): (-0.3, 0.01), put(90): (-0.2, 0.01)},
    )
    one = over(gate)
    assert ask(one, -1, "SPY", 1_700, expiry=20240119).allowed
    assert str(ask(one, -1, "SPY", 1_700, expiry=20231215).reason).startswith("concentration")


@pytest.mark.contract("B4", "B5")
@pytest.mark.invariant("I3")
def test_a_thousand_questions_leave_nothing(monkeypatch):
    """Questions over an account change nothing of it: no reservation, no decision, no order."""
    gate = options_gate(
        held={call(105): -1, call(110): 1},
        quotes={call(105): ("2.00", "2.10"), call(110): ("1.00", "1.10")},
        deltas={call(105): (0.4, 0.02), call(110): (0.25, 0.015)},
    )
    before = gate.account.snapshot()
    one = over(gate)

    async def many() -> set[bool]:
        return {
            (await one.check_entry_allowed(-1.5, "SPY", 300, new_position_gamma=0.1)).allowed
            for _ in range(1_000)
        }

    assert asyncio.run(many()) == {True}
    assert gate.account.snapshot() == before
    assert not gate.account.reserved


@pytest.mark.contract("B5")
@pytest.mark.invariant("I11")
def test_an_account_is_read_in_share_equivalents_rounded_away_from_zero():
    """Greek x contracts x multiplier over all legs, held and working apart; exposure is worth less the floor."""
    clock = noon()
    gate = options_gate(
        held={put(95): -1, put(90): 1, "SPY": 30},
        quotes={
            put(95): ("2.00", "2.10"),
            put(90): ("1.00", "1.10"),
            "SPY": ("100.00", "100.01"),
            call(105): ("1.40", "1.50"),
        },
        deltas={put(95): (-0.3000001, 0.01), put(90): (-0.2, 0.008), call(105): (0.35, 0.02)},
        clock=clock,
    )
    admitted = gate.admit(wish(call(105), "1.50", action="buy"))
    assert admitted.allowed, admitted.reason
    risk = AccountRisk(gate, clock=clock).portfolio_risk()
    spy = risk.symbols["SPY"]
    assert (spy.delta.held, spy.delta.ups, spy.delta.downs) == (
        30_000_000 + 30_000_000 - 20_000_000,
        35_000_000,
        0,
    )
    assert (spy.gamma.held, spy.gamma.ups) == (-1_000_000 + 800_000, 2_000_000)
    # Worth now: 30 shares at 100.00, less 2.10 for the short put, plus 1.00 for the long one, times 100. At worst: at
    # 90 and below the spread owes 500 and at 0 the shares are worth nothing; the working call costs 150.
    assert spy.exposure == (3_000 - 210 + 100 + 500 + 150) * 1_000_000
    assert risk.equity == (100_000 + 3_000 - 210 + 100) * 1_000_000
    assert (risk.positions, risk.missing) == (1, "")


@pytest.mark.contract("B5")
@pytest.mark.invariant("I4")
def test_an_account_whose_prices_or_greeks_are_missing_or_old_is_unknown():
    """A short without ask, a contract without Greeks, one whose rules nobody read, and old prices: each by name."""
    clock = ManualClock()
    quotes = {put(95): ("2.00", None)}
    gate = options_gate(held={put(95): -1}, quotes=quotes, clock=clock)
    one = PortfolioLimitsChecker(AccountRisk(gate, clock=clock), RiskLimitsConfig(), clock=clock)
    assert str(ask(one).reason).startswith("greeks_unknown")
    gate = options_gate(held={put(95): -1}, quotes=quotes, deltas={put(95): (-0.3, 0.01)}, clock=clock)
    one.risk_calc = AccountRisk(gate, clock=clock)
    assert str(ask(one, 1, "QQQ").reason).startswith("equity_unknown")
    gate.market.saw_book(put(95), None, 21_000, clock.monotonic_ns(), streamed=True)
    assert str(ask(one, 1, "QQQ", 100).reason) == "None"
    clock.advance(31)
    assert str(ask(one, 1, "QQQ", 100).reason).startswith("equity_unknown")
    gate.market.saw_stream(clock.monotonic_ns())
    assert ask(one, 1, "QQQ", 100).allowed
    clock.advance(270)
    gate.market.saw_stream(clock.monotonic_ns())
    assert str(ask(one, 1, "QQQ", 100).reason).startswith("greeks_stale 301000 ms > 300000 ms")
    del gate.market.instruments[put(95)]
    assert str(ask(one, 1, "QQQ", 100).reason).startswith("greeks_unknown")


@pytest.mark.contract("B6")
def test_health_names_everything_beyond_its_limit():
    """Each breach and each unknown is a line and an event; a healthy portfolio gives none."""
    events = Events()
    one = checker(
        RiskLimitsConfig(total_exposure_cap=1_000, max_positions=1),
        events=events,
        delta={"SPY": 60, "QQQ": -3},
        gamma={"SPY": 12},
        exposure={"SPY": 6_000, "QQQ": 100},
    )
    warnings = asyncio.run(one.check_portfolio_health())
    assert [line.split()[0] for line in warnings] == [
        "portfolio_delta",
        "portfolio_gamma",
        "symbol_delta",
        "correlated_exposure",
        "total_exposure_cap",
        "max_positions",
    ]
    assert [event.event_type.value for event in events] == ["portfolio_limit_warning"] * 6
    assert [event.rejection_reason for event in events] == warnings
    assert asyncio.run(checker(events=events).check_portfolio_health()) == []
    unknown = checker(delta={"SPY": NAN}, exposure={"SPY": None}, equity=None)
    codes = [line.split()[0] for line in asyncio.run(unknown.check_portfolio_health())]
    assert codes == ["greeks_unknown", "equity_unknown", "equity_unknown"]
    stale = checker(delta={"SPY": 1}, as_of_ns=-400 * NANOS)
    assert [line.split()[0] for line in asyncio.run(stale.check_portfolio_health())] == ["greeks_stale"]


@pytest.mark.contract("B6")
def test_health_sees_the_structure_that_is_too_large():
    """A structure above the single share is named with its day."""
    gate = options_gate(
        held={put(90): 5, put(95): -5},
        quotes={put(95): ("2.00", "2.10"), put(90): ("1.00", "1.10")},
        deltas={put(95): (-0.03, 0.001), put(90): (-0.03, 0.001)},
    )
    one = over(gate, RiskLimitsConfig(max_single_position_pct=0.01))
    (line,) = asyncio.run(one.check_portfolio_health())
    assert line.startswith("concentration 1950.00 USD > ")
    assert "scope=SPY 20231215" in line


@pytest.mark.contract("B6")
def test_capacity_is_what_is_left_of_each_limit():
    """Delta, delta of the symbol, dollars that one more position may lose, and positions; never infinite."""
    one = checker(
        RiskLimitsConfig(total_exposure_cap=5_000, max_positions=3),
        delta={"SPY": 15, "IWM": 10},
        exposure={"SPY": 3_000, "IWM": 1_500},
    )
    left = asyncio.run(one.get_remaining_capacity("SPY"))
    assert left == {"delta": 25.0, "symbol_delta": 5.0, "exposure": Decimal(500), "position_count": 1}
    assert asyncio.run(checker().get_remaining_capacity("SPY")) == {
        "delta": 50.0,
        "symbol_delta": 20.0,
        "exposure": Decimal(2_000),
        "position_count": None,
    }


@pytest.mark.contract("B6")
@pytest.mark.invariant("I4")
def test_what_is_unknown_leaves_no_capacity():
    """Without Greeks there is no delta left, without equity no exposure."""
    left = asyncio.run(checker(delta={"SPY": NAN}, equity=None).get_remaining_capacity("SPY"))
    assert (left["delta"], left["symbol_delta"], left["exposure"]) == (0.0, 0.0, Decimal(0))


@pytest.mark.contract("B5")
def test_underlyings_of_one_group_are_judged_together():
    """SPY and QQQ in one group share its five percent; apart they do not."""
    risk = {"exposure": {"SPY": 4_000}}
    together = RiskLimitsConfig(correlated_groups={"SPY": "us", "QQQ": "us"})
    assert ask(checker(**risk), 1, "QQQ", 1_500).allowed
    assert str(ask(checker(together, **risk), 1, "QQQ", 1_500).reason).startswith("correlated_exposure")


@pytest.mark.contract("B4")
@pytest.mark.invariant("I3")
def test_the_gate_counts_what_the_question_cannot_see():
    """Two condors are each allowed by the question; the gate reserves the first and refuses the second."""
    limits = RiskLimitsConfig(max_single_position_pct="0.005", max_correlated_pct="0.005")
    contracts = {
        put(90): (-0.1, 0.004),
        put(95): (-0.2, 0.006),
        call(105): (0.2, 0.006),
        call(110): (0.1, 0.004),
    }
    gate = options_gate(
        loose(portfolio=limits), deltas=contracts, quotes=dict.fromkeys(contracts, ("1.00", "1.10"))
    )
    one = over(gate, limits)
    assert ask(one, 0, "SPY", 350).allowed
    first = gate.admit(wish(CONDOR, "-1.50", name="hf-1"))
    assert first.allowed, first.reason
    second = gate.admit(wish(CONDOR, "-1.50", name="hf-2"))
    assert second.reason is not None
    assert second.reason.code.value == "concentration"


@pytest.mark.contract("B5")
@pytest.mark.invariant("I11")
def test_greeks_of_odd_quantities_are_rounded_away_from_zero():
    """A hundredth of a contract of multiplier one: 1.5 millionths are two, on either side."""
    one = rules(call(105), multiplier=1)
    market = Market()
    market.saw_greeks(one.ticker, Greeks(150, -150, 0, 0, 0, MODEL, 7))
    seen = GreeksSeen(market)
    assert seen.of([(one, 1)])[:2] == (2, -2)
    assert seen.of([(one, -1)])[:2] == (-2, 2)
    assert seen.of([(one, 3), (one, -1)])[:2] == (3, -3)
    assert (seen.oldest, seen.oldest_ns, seen.missing) == (one.ticker, 7, "")


@pytest.mark.invariant("I3", "I4")
@given(
    held=st.lists(st.integers(-3, 3).filter(bool), min_size=2, max_size=2),
    known=st.integers(-900_000, 900_000),
    least=st.integers(-900_000, 0),
    span=st.integers(1, 900_000),
    true=st.floats(0, 1),
    change=st.integers(-80_000_000, 80_000_000).filter(bool),
    bound=st.integers(0, 200_000_000),
    works=st.booleans(),
)
def test_no_limit_passes_on_a_range_that_the_true_greeks_would_break(  # noqa: PLR0917  what is drawn
    held, known, least, span, true, change, bound, works
):
    """Wherever in its range a Greek lies, long or short, held or working: what passes on the range passes on the truth."""
    figure, ranged = call(105), call(110)

    def book(delta: int, reach: int):
        positions = {figure: held[0]} if works else {figure: held[0], ranged: held[1]}
        gate = options_gate(held=positions, quotes=dict.fromkeys((figure, ranged), ("1.00", "1.10")))
        now_ns = gate.market.alive_ns
        gate.market.saw_greeks(figure, Greeks(known, known, 0, 0, 0, MODEL, now_ns))
        gate.market.saw_greeks(ranged, Greeks(delta, delta, 0, 0, 0, BOUND, now_ns, reach, reach))
        if works:
            assert gate.admit(wish(ranged, "1.00", count=abs(held[1]))).admission is not None
        return read_book(gate.account, gate.market)

    for on_range, on_truth in (
        (attrgetter(name)(book(least, span)), attrgetter(name)(book(least + round(true * span), 0)))
        for name in ("delta", "gamma")
    ):
        if on_range.after(change) <= bound:
            assert on_truth.after(change) <= bound
        assert on_truth.worst <= on_range.worst


@pytest.mark.invariant("I4")
def test_an_order_for_what_nobody_bids_for_lacks_its_greeks():
    """A range bounds what is held; what is ordered is judged by figures, and refused without them."""
    gate = options_gate(loose(portfolio=RiskLimitsConfig()), quotes={call(110): (None, "0.05")})
    gate.market.saw_greeks(call(110), Greeks(0, 0, 0, 0, 0, BOUND, gate.market.alive_ns, 50_000, 1_000))
    reason = gate.admit(wish(call(110), "0.05")).reason
    assert reason is not None
    assert reason.code.value == "greeks_unknown"


@pytest.mark.invariant("I4")
def test_the_oldest_greeks_of_all_are_the_age_of_the_portfolio():
    """However fresh the others are, the oldest one counts, of whatever is held, works or is ordered."""
    market = Market()
    for ticker, as_of_ns in ((call(105), 30), (call(110), 10), (put(90), 20)):
        market.saw_greeks(ticker, Greeks(1, 1, 0, 0, 0, MODEL, as_of_ns))
    seen = GreeksSeen(market)
    seen.of([(rules(call(105)), 100), (rules(call(110)), 100), (rules(put(90)), 100)])
    assert (seen.oldest, seen.oldest_ns) == (call(110), 10)
    seen.of([(rules(put(80)), 100)])
    assert seen.missing == put(80)


@pytest.mark.invariant("I3")
def test_a_combination_filled_in_part_works_with_what_each_leg_has_open():
    """Its open legs count alone, and once the legs are uneven no credit of it is counted."""
    gate = options_gate(deltas=dict.fromkeys((put(90), put(95), call(105), call(110)), (0.1, 0.01)))
    decision = gate.admit(wish(CONDOR, "-1.50", name="hf-1"))
    order = decision.order
    assert order is not None
    assert open_cash(order, 100) == 150_000_000
    (work,) = read_book(gate.account, gate.market).of("SPY").works
    assert sorted(part.qty for part in work.parts) == [-100, -100, 100, 100]
    order.leg_filled = tuple(100 if ticker == put(95) else 0 for ticker, _ in order.legs)
    assert open_cash(order, 100) == 0
    (work,) = read_book(gate.account, gate.market).of("SPY").works
    assert sorted(part.qty for part in work.parts) == [-100, 100, 100]


@pytest.mark.invariant("I3")
def test_an_order_that_was_adopted_costs_what_its_rules_say():
    """The cash of an order that a venue listed without its multiplier is counted by the contract's rules."""
    gate = options_gate(deltas={call(105): (0.1, 0.01)})
    details = {
        "client_order_id": "", "order_id": "theirs", "event": "adopted", "leaves": "2.00",
        "ticker": call(105), "side": "bid", "yes_price": "1.5000",
    }  # fmt: skip
    gate.account.apply("ORDER_UPDATE", details)
    (work,) = read_book(gate.account, gate.market).of("SPY").works
    assert work.cash == -300_000_000
    parts, works, missing = structure(gate.account, gate.market, "SPY")
    assert (parts, works, missing) == ((), (work,), "")
