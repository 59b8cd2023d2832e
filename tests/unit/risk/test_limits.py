"""Limits as people write them, and the lattice of states."""

import pytest

from holdfast.core.errors import ConfigError
from holdfast.risk.halt import Holds, TradingState
from holdfast.risk.limits import RiskLimits


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
