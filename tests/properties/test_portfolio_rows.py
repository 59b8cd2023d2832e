"""The rows of a portfolio against all facts: one verdict, no exit refused, no tighter limit that lets more through."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.risk.limits import RiskLimits, RiskLimitsConfig
from holdfast.risk.portfolio_book import Loss, Pressure
from holdfast.risk.portfolio_rows import PortfolioFacts, passes_portfolio, portfolio_rows

GREEK = st.one_of(st.integers(-6, 6), st.integers(-60, 60)).map(lambda n: n * 1_000_000)
SIDE = st.integers(0, 6).map(lambda n: n * 1_000_000)
PRESSURES = st.builds(Pressure, GREEK, SIDE, SIDE)
MONEY = st.integers(0, 6).map(lambda n: n * 1_000_000_000)
LOST = st.one_of(st.none(), MONEY, MONEY, MONEY)
SLOPES = st.one_of(st.just(0), st.just(0), st.sampled_from([-100, -200]))
LOSSES = st.builds(Loss, LOST, LOST, SLOPES, SLOPES)
FACTS = st.builds(
    PortfolioFacts,
    symbol=st.just("SPY"),
    group=st.just("us"),
    delta=PRESSURES,
    gamma=PRESSURES,
    symbol_delta=PRESSURES,
    order_delta=GREEK,
    order_gamma=st.one_of(st.none(), GREEK, GREEK),
    position=LOSSES,
    exposure=LOSSES,
    group_rest=LOST,
    total_rest=LOST,
    equity=st.one_of(st.none(), *[st.integers(-1, 200).map(lambda n: n * 1_000_000_000)] * 4),
    positions=st.integers(0, 4),
    positions_after=st.integers(0, 5),
    missing=st.sampled_from(["", "", "", "SPY231215C00450000"]),
    stale=st.just("SPY231215C00450000"),
    stale_ns=st.sampled_from([0, 0, 1_000_000_000, 1_000_000_001]),
)
AMOUNTS = st.integers(0, 12)
LIMITS = st.builds(
    RiskLimitsConfig,
    AMOUNTS.map(lambda n: n * 10),
    AMOUNTS,
    st.integers(0, 20).map(lambda n: n / 100),
    AMOUNTS.map(lambda n: n * 5),
    st.integers(0, 20).map(lambda n: n / 50),
    st.one_of(st.none(), AMOUNTS.map(lambda n: n * 1_000)),
    max_greeks_age_secs=st.just(1),
    max_positions=st.one_of(st.none(), st.integers(0, 4)),
    concentration_base=st.sampled_from(["equity", "equity", "position_total"]),
)


@pytest.mark.invariant("I3")
@given(facts=FACTS, limits=LIMITS, reducing=st.sampled_from([False, False, True]))
def test_a_portfolio_passes_exactly_when_no_row_refuses(facts, limits, reducing):
    """The verdict without rows is the verdict of the rows, whatever is known and allowed."""
    rows = portfolio_rows(facts, limits, reducing=reducing)
    assert passes_portfolio(facts, limits, reducing=reducing) is all(row.ok for row in rows)


@pytest.mark.invariant("I5")
@given(facts=FACTS, limits=LIMITS)
def test_no_reducing_order_is_refused(facts, limits):
    """However much is breached or unknown, what reduces passes every row."""
    assert all(row.ok for row in portfolio_rows(facts, limits, reducing=True))


@pytest.mark.invariant("I3")
@given(facts=FACTS, one=LIMITS, two=LIMITS)
def test_the_tightest_of_two_limits_lets_through_only_what_both_do(facts, one, two):
    """What passes the tightest of two sets of limits passes each of them, where both are of the same base."""
    if one.concentration_base != two.concentration_base:
        return
    if passes_portfolio(facts, one.tightest(two), reducing=False):
        assert passes_portfolio(facts, one, reducing=False)
        assert passes_portfolio(facts, two, reducing=False)


@pytest.mark.invariant("I3")
@given(facts=FACTS, limits=LIMITS)
def test_an_order_that_makes_nothing_worse_is_refused_only_for_what_is_unknown(facts, limits):
    """Without delta, gamma, further loss or a further structure, only missing or old Greeks refuse."""
    idle = msgspec.structs.replace(
        facts,
        order_delta=0,
        order_gamma=0,
        position=Loss(5_000_000_000, 5_000_000_000),
        exposure=Loss(9_000_000_000, 9_000_000_000),
        positions_after=facts.positions,
    )
    is_known = not facts.missing and facts.stale_ns <= limits.bounds.greeks_age_ns
    assert passes_portfolio(idle, limits, reducing=False) is is_known


@pytest.mark.invariant("I11")
@given(facts=FACTS, limits=LIMITS, version=st.integers(1, 9))
def test_facts_and_limits_survive_their_record(facts, limits, version):
    """What a record holds of facts and limits gives the same facts and the same bounds, as integers."""
    whole = RiskLimits(portfolio=limits, version=version)
    told = msgspec.json.decode(msgspec.json.encode([facts.compact(), whole.compact()]))
    assert PortfolioFacts.from_compact(told[0]) == facts
    assert RiskLimits.from_compact(told[1], version) == whole
    assert all(type(value) is int for value in whole.compact())
