"""Limits as people write them, and the lattice of states."""

from decimal import Decimal

import pytest

from holdfast.core.errors import ConfigError
from holdfast.risk.halt import Holds, TradingState
from holdfast.risk.limits import RiskLimits, RiskLimitsConfig


def test_limits_are_read_from_contracts_and_dollars():
    """The defaults are a hundred contracts, 500 and 1,000 dollars."""
    assert RiskLimits.of() == RiskLimits()
    assert RiskLimits.of(max_position_size="0.5").max_position == 50
    assert RiskLimits.of(max_order_value=1).max_exit_value == 10_000_000


def test_every_bad_limit_is_named_at_once():
    """One error lists every limit that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        RiskLimits.of(max_position_size="many", max_daily_loss="1e3", max_order_value=2.5)
    assert all(name in str(caught.value) for name in ("max_position", "max_daily_loss", "max_order_value"))
    with pytest.raises(ConfigError):
        RiskLimits.of(max_position_size=-1)
    with pytest.raises(ConfigError):
        RiskLimits(max_mark_age_secs=0)


def test_the_tightest_of_two_limits_refuses_whatever_either_refuses():
    """Each bound of the combination is the smaller one, and its version says that it changed."""
    one, two = RiskLimits.of(max_position_size=5), RiskLimits.of(max_daily_loss=7)
    both = one.tightest(two)
    assert (both.max_position, both.max_daily_loss) == (500, 7_000_000)
    assert both.version > one.version
    assert one.tightest(one) == one
    assert RiskLimits.from_compact(both.compact(), both.version) == both


def test_the_most_severe_holder_wins():
    """Releasing one hold never lifts another, and the record restores them all."""
    holds, again = Holds(), Holds()
    for holder, state in (
        ("a", TradingState.REDUCING),
        ("b", TradingState.HALTED),
        ("a", TradingState.ACTIVE),
    ):
        change = holds.change(holder, state, reason="test", who="ann")
        holds.apply(change)
        again.apply(change)
    assert holds.state is again.state is TradingState.HALTED
    assert holds.snapshot() == again.snapshot() == {"b": "HALTED"}
    assert holds.change("b", TradingState.HALTED, reason="again") is None
    assert change["from"] == change["to"] == "HALTED"


@pytest.mark.contract("B5")
def test_limits_of_a_portfolio_have_the_defaults_of_the_contract():
    """50 and 20 share-equivalents of delta, 10 of gamma, ratios of 2 and 5 percent, no cap."""
    bounds = RiskLimitsConfig().bounds
    assert bounds[:6] == (50_000_000, 10_000_000, 20_000_000, 20_000, 50_000, None)
    assert RiskLimitsConfig(50, 10.0, "0.02", Decimal(20), 0.05, None) == RiskLimitsConfig()
    assert RiskLimitsConfig(total_exposure_cap=1_000_000.0).bounds.exposure_e6 == 10**12
    assert RiskLimitsConfig() != RiskLimitsConfig(51)


@pytest.mark.contract("B5")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_portfolio_delta": -1}, "max_portfolio_delta = -1 is negative"),
        ({"max_portfolio_gamma": float("nan")}, "max_portfolio_gamma nan is not a finite number"),
        ({"max_per_symbol_delta": float("inf")}, "max_per_symbol_delta inf is not a finite number"),
        ({"max_portfolio_delta": "fifty"}, "max_portfolio_delta 'fifty' is not a plain decimal number"),
        ({"max_portfolio_delta": True}, "max_portfolio_delta True is a bool"),
        ({"max_single_position_pct": 2}, "it is a ratio, so 2 % is 0.02"),
        ({"max_correlated_pct": "5.5"}, "it is a ratio, so 5.5 % is 0.055"),
        ({"total_exposure_cap": 0.0000001}, "has more than 6 decimal places"),
        ({"max_greeks_age_secs": 0}, "max_greeks_age_secs = 0 must be a whole number of at least 1"),
        ({"max_positions": 2.5}, "max_positions = 2.5 must be a whole number of at least 0"),
        ({"concentration_base": "cash"}, "concentration_base = 'cash' is not 'equity' or 'position_total'"),
        ({"correlated_groups": {"SPY": ""}}, "correlated_groups: 'SPY' = ''"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_limit_of_a_portfolio_that_cannot_be_used_is_named(wrong, said):
    """Wrong types, signs, percent written as ratio, NaN and infinities are refused in words that help."""
    with pytest.raises(ConfigError) as caught:
        RiskLimitsConfig(**wrong)
    assert said in str(caught.value)


@pytest.mark.contract("B5")
def test_every_bad_limit_of_a_portfolio_is_named_at_once():
    """One error lists them all."""
    with pytest.raises(ConfigError) as caught:
        RiskLimitsConfig(max_portfolio_delta=-5, max_single_position_pct=2, max_positions=-1)
    assert str(caught.value).count(";") == 2


@pytest.mark.contract("B5")
def test_the_tightest_portfolio_limits_refuse_whatever_either_refuses():
    """Each bound is the smaller one, a missing one the other's; groups of both stand; options' own times likewise."""
    one = RiskLimits(
        portfolio=RiskLimitsConfig(40, total_exposure_cap=5, correlated_groups={"SPY": "us"}),
        allow_short_on_expiry_day=True,
    )
    two = RiskLimits(
        portfolio=RiskLimitsConfig(max_portfolio_gamma=3, max_positions=2, correlated_groups={"QQQ": "us"}),
        no_entry_before_expiry_secs=7_200,
    )
    both = one.tightest(two)
    assert both.portfolio == RiskLimitsConfig(
        40, 3, total_exposure_cap=5, max_positions=2, correlated_groups={"SPY": "us", "QQQ": "us"}
    )
    assert (both.no_entry_before_expiry_secs, both.allow_short_on_expiry_day) == (7_200, False)
    assert RiskLimits().tightest(one).portfolio == one.portfolio
    legacy = RiskLimitsConfig(concentration_base="position_total")
    assert legacy.tightest(RiskLimitsConfig()) == RiskLimitsConfig().tightest(legacy) == RiskLimitsConfig()
    assert legacy.tightest(legacy) == legacy
    assert both.describe()["max_positions"] == "2"
    assert both.describe()["correlated_groups"] == "QQQ=us,SPY=us"


def test_limits_of_old_records_are_read():
    """A record made before options were limited holds six bounds; they come back without rules for options."""
    old = RiskLimits.from_compact(RiskLimits().compact()[:6], 3)
    assert (old.max_position, old.version, old.portfolio) == (100_00, 3, None)
    assert (old.no_entry_before_close_secs, old.no_entry_before_expiry_secs) == (0, 0)
