"""Allowing without rows: it says yes exactly where every row does, and nothing is written that says otherwise."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.execution import OTHER, TICKER, gate, instrument, intent

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.errors import IllegalTransition
from holdfast.core.instruments import PriceRange
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import Fill
from holdfast.core.positions import Mark
from holdfast.core.signals import BookSide, Intent
from holdfast.risk.checks import Facts, Leg, Terms, is_reducing, judge, passes
from holdfast.risk.decisions import explain, replay, rows_text
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits
from holdfast.risk.market import Held, Holdings, Market
from holdfast.risk.trades import trade_details

AGES = st.one_of(st.sampled_from([0, NANOS, NANOS + 1]), st.integers(0, 3 * NANOS))
PRICES = st.one_of(st.none(), st.integers(0, 10_000).map(PriceE4))
SIZES = st.integers(-60_00, 60_00).map(QtyE2)
WORKING = st.one_of(st.just(QtyE2(0)), st.integers(0, 60_00).map(QtyE2))
NOW_NS = 100 * NANOS

HELD = st.builds(
    lambda qty, bid, ask, age, streamed: Held(
        OTHER, qty or QtyE2(1), None if age is None else Mark(bid, ask, NOW_NS - age), streamed
    ),
    SIZES,
    PRICES,
    PRICES,
    st.one_of(st.none(), AGES, AGES, AGES),
    st.booleans(),
)
LEGS = st.builds(Leg, st.just(OTHER), SIZES, WORKING, st.just(PriceE4(4000)), WORKING, st.just(PriceE4(6000)))
FACTS = st.builds(
    Facts,
    st.one_of(st.just(TradingState.ACTIVE), st.sampled_from(TradingState)),
    SIZES,
    WORKING,
    WORKING,
    st.one_of(st.none(), *[st.integers(-20_000_000, 20_000_000).map(MoneyE6)] * 3),
    st.integers(-20_000_000, 20_000_000).map(MoneyE6),
    st.lists(HELD, max_size=3).map(tuple).map(Holdings.of),
    st.just(NOW_NS),
    AGES.map(lambda age: NOW_NS - age),
    st.one_of(st.just(value=True), st.booleans()),
    st.one_of(st.none(), AGES),
    st.one_of(st.just(()), st.lists(LEGS, max_size=2).map(tuple)),
    st.sampled_from(["", "", "", "kalshi_api"]),
)
LIMITS = st.builds(
    RiskLimits,
    max_position=st.integers(0, 100_00).map(QtyE2),
    max_order_value=st.integers(0, 30_000_000).map(MoneyE6),
    max_exit_value=st.integers(30_000_000, 60_000_000).map(MoneyE6),
    max_daily_loss=st.integers(0, 20_000_000).map(MoneyE6),
    max_mark_age_secs=st.integers(1, 3),
)
GRIDS = st.sampled_from(
    [
        (PriceRange(PriceE4(0), PriceE4(10_000), PriceE4(100)),),
        (
            PriceRange(PriceE4(0), PriceE4(1000), PriceE4(10)),
            PriceRange(PriceE4(9000), PriceE4(10_000), PriceE4(10)),
        ),
    ]
)
WISHES = st.builds(
    lambda grid, step, exhaustive, **wish: intent(
        "hf-x",
        of=instrument(price_ranges=grid, qty_step=QtyE2(step), event_exhaustive=exhaustive),
        **wish,
    ),
    grid=GRIDS,
    step=st.sampled_from([1, 100]),
    exhaustive=st.booleans(),
    side=st.sampled_from(["yes", "no"]),
    action=st.sampled_from(["buy", "sell"]),
    count=st.one_of(st.integers(0, 60), st.integers(-100, 6000).map(lambda e2: e2 / 100)),
    price=st.one_of(st.integers(1, 99), st.integers(-50, 10_050).map(lambda e4: e4 / 100)),
    reduce_only=st.sampled_from([False, False, True]),
)


def passes_whole(wish: Intent, facts: Facts, limits: RiskLimits) -> bool:
    order = Terms.of(wish)
    return passes(order, facts, limits, reducing=is_reducing(order, facts))


@pytest.mark.invariant("I3")
@given(wish=WISHES, facts=FACTS, limits=LIMITS)
def test_an_order_passes_exactly_when_no_row_refuses_it(wish, facts, limits):
    """The verdict without rows is the verdict of the rows, whatever is asked, known and allowed."""
    assert passes_whole(wish, facts, limits) is (judge(wish, facts, limits).refused is None)


EASY = Facts(
    TradingState.ACTIVE,
    QtyE2(5_00),
    QtyE2(1_00),
    QtyE2(2_00),
    MoneyE6(2_750_000),
    MoneyE6(0),
    Holdings.of((Held(TICKER, QtyE2(5_00), Mark(PriceE4(5500), PriceE4(5600), NOW_NS - 30 * NANOS)),)),
    NOW_NS,
    0,
    True,
)
AT_THE_BOUND = RiskLimits(
    max_position=QtyE2(16_00), max_order_value=MoneyE6(5_600_000), max_daily_loss=MoneyE6(0)
)
CHANGES = [
    {"state": TradingState.THROTTLED, "since_last_ns": 0},
    {"state": TradingState.REDUCING},
    {"state": TradingState.HALTED},
    {"buys": QtyE2(1_01)},
    {"position": QtyE2(5_01)},
    {"open_value": None},
    {"open_value": MoneyE6(2_750_001)},
    {"cash": MoneyE6(-1)},
    {"now_ns": NOW_NS + 1},
    {"holdings": Holdings.of((Held(OTHER, QtyE2(1), None),))},
    {"is_open": False},
    {"breaker": "kalshi_api"},
]


@pytest.mark.invariant("I3")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_each_fact_alone_can_stop_an_order(change):
    """An order at every bound passes; one unit more of anything, or one thing unknown, and it does not."""
    wish = intent("hf-x")
    assert passes_whole(wish, EASY, AT_THE_BOUND)
    changed = msgspec.structs.replace(EASY, **change)
    assert not passes_whole(wish, changed, AT_THE_BOUND)
    assert judge(wish, changed, AT_THE_BOUND).refused is not None


@pytest.mark.invariant("I3")
@pytest.mark.parametrize(
    "wish", [{"count": 0}, {"count": -1}, {"count": 9.5}, {"price": 0}, {"price": 55.5}], ids=str
)
def test_an_order_that_the_market_does_not_take_does_not_pass(wish):
    """Nothing, less than nothing, half a step and a price off the grid stop an order that limits would let through."""
    asked = intent("hf-x", **wish)
    assert not passes_whole(asked, EASY, AT_THE_BOUND)
    assert judge(asked, EASY, AT_THE_BOUND).refused is not None


AT_AGE = Held(OTHER, QtyE2(1), Mark(PriceE4(1), PriceE4(2), NOW_NS - NANOS), is_streamed=True)


@pytest.mark.invariant("I4")
@example(held=(AT_AGE,), alive_age=2 * NANOS, secs=1)
@example(held=(AT_AGE,), alive_age=0, secs=1)
@given(held=st.lists(HELD, max_size=4).map(tuple), alive_age=AGES, secs=st.integers(1, 3))
def test_holdings_are_fresh_exactly_when_no_price_is_too_old(held, alive_age, secs):
    """What the fold keeps of the times is enough to know whether the oldest price is too old."""
    holdings, alive_ns = Holdings.of(held), NOW_NS - alive_age
    ages = [age for _, age in holdings.ages(NOW_NS, alive_ns) if age is not None]
    assert holdings.are_fresh(NOW_NS, alive_ns, secs * NANOS) is all(age <= secs * NANOS for age in ages)


def a_trade(trade_id: str, ticker: str) -> dict[str, object]:
    fill = Fill(
        trade_id=trade_id,
        order_id="",
        ticker=ticker,
        side=BookSide.BID,
        price=PriceE4(5000),
        qty=QtyE2(1_00),
        fee=MoneyE6(0),
        is_taker=True,
        ts_ns=1,
    )
    return trade_details(fill, client_order_id="", external=True)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["book", "streamed", "alive", "lost", "result", "wait", "fill", "settle"]),
            st.sampled_from([TICKER, OTHER]),
            st.integers(1, 98),
        ),
        max_size=12,
    )
)
@example(steps=[("streamed", TICKER, 5), ("wait", TICKER, 40), ("alive", TICKER, 1)])
def test_the_gate_knows_every_change_of_what_is_held(steps):
    """After any change of prices, what the gate kept of them equals what a look at the market finds."""
    clock = ManualClock()
    made = gate(clock=clock, positions={TICKER: "5.00", OTHER: "-3.00"})
    market: Market = made.market
    for what, ticker, cents in steps:
        now_ns = clock.monotonic_ns()
        if what in {"book", "streamed"}:
            bid, ask = PriceE4(cents * 100), PriceE4(cents * 100 + 100)
            market.saw_book(ticker, bid, ask, now_ns, streamed=what == "streamed")
        elif what == "alive":
            market.saw_stream(now_ns)
        elif what == "lost":
            market.lost([ticker])
        elif what == "result":
            market.saw_result(ticker, "yes")
        elif what == "settle":
            made.account.apply("SETTLEMENT", {"ticker": ticker, "result": "no"})
        elif what == "fill":
            made.account.apply("TRADE", a_trade(f"T{now_ns}-{cents}", ticker))
        else:
            clock.advance(cents)
        now_ns = clock.monotonic_ns()
        facts = made.evaluate(intent(count=1)).facts
        found = [
            (held.ticker, held.qty, held.mark and held.mark[:2], age)
            for held, age in facts.holdings.ages(now_ns, market.alive_ns)
        ]
        expected = []
        for held_ticker, qty in made.account.portfolio.positions.items():
            mark = market.mark(held_ticker)
            age = None if mark is None else now_ns - mark.as_of_ns
            expected.append((held_ticker, qty, mark and mark[:2], age))
        assert found == expected


@pytest.mark.invariant("I3")
@given(wish=WISHES, facts=FACTS, limits=LIMITS)
def test_a_record_replays_to_its_own_rows(wish, facts, limits):
    """Whatever was read, the record alone gives the same rows and the same verdict."""
    decision = gate(limits=limits).evaluate(wish)
    refused = judge(wish, facts, limits).refused
    decision.facts, decision.refused = facts, refused
    decision.reason = None if refused is None else explain(refused, wish)
    details = msgspec.json.decode(msgspec.json.encode(decision.details()))
    again = replay(details)
    assert rows_text(again) == details["rows"]
    assert (again.refused is None) is (details["verdict"] == "allow")


@pytest.mark.invariant("I3")
def test_no_decision_is_written_whose_rows_say_otherwise():
    """An allowed decision whose rows refuse, as no decision should be, raises where it would be recorded."""
    decision = gate().admit(intent(count=10, price=56))
    decision.limits = RiskLimits(max_order_value=MoneyE6(5_599_999))
    with pytest.raises(IllegalTransition, match="the rows and the verdict differ"):
        decision.details()
