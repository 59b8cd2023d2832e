from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.clock import NANOS
from holdfast.core.errors import ConfigError
from holdfast.risk.stop_rules import (
    BreakEven,
    DistanceTrail,
    GiveBack,
    PercentTrail,
    RatchetTable,
    TimeTightening,
    TrailingStopConfig,
    VolatilityTrail,
)

LEVELS = st.integers(-(10**9), 10**9)
ENTRIES = LEVELS.filter(bool)
SHARES = st.integers(1, 9_999)
TABLES = st.lists(st.tuples(st.integers(1, 3_000), st.integers(1, 300)), min_size=1, max_size=4)


def table(rows):
    gains, trails = 0, 9_999
    built = []
    for gain, trail in rows:
        gains, trails = gains + gain, trails - trail
        built.append((gains, trails))
    return RatchetTable(tuple(built))


RULES = st.one_of(
    st.builds(PercentTrail, SHARES, st.sampled_from(["extreme", "entry"])),
    st.builds(DistanceTrail, st.integers(1, 10**6)),
    st.builds(VolatilityTrail, st.integers(1, 10**5), st.integers(1, 10_000)),
    st.builds(GiveBack, st.integers(1, 10_000)),
    st.integers(1, 50_000).flatmap(
        lambda gain: st.builds(BreakEven, st.just(gain), st.integers(0, gain - 1))
    ),
    st.integers(2, 9_999).flatmap(
        lambda trail: st.builds(
            TimeTightening, st.just(trail), st.integers(1, trail - 1), st.integers(1, 10**6)
        )
    ),
    TABLES.map(table),
)
CONFIGS = st.builds(
    lambda rules, move, floor: TrailingStopConfig(
        rules=tuple(rules), min_move_pct=Decimal(move) / 100, hard_floor_pct=floor and Decimal(floor) / 100
    ),
    st.lists(RULES, min_size=1, max_size=3),
    st.integers(1, 2_000),
    st.one_of(st.none(), st.integers(1, 20_000)),
)


@pytest.mark.contract("B2")
@given(
    rule=RULES,
    entry=ENTRIES,
    low=LEVELS,
    more=st.tuples(st.integers(0, 10**6), st.integers(0, 10**7)),
    age=st.integers(0, 10**7),
)
def test_a_candidate_never_falls_when_the_best_level_rises_or_time_passes(rule, entry, low, more, age):
    """A higher best level or a greater age never gives a lower candidate, nor none where there was one."""
    assert not rule.problems()
    rise, later = more
    before = rule.candidate(entry, low, age * NANOS)
    for level, ages in ((low + rise, age), (low, age + later), (low + rise, age + later)):
        after = rule.candidate(entry, level, ages * NANOS)
        assert before is None or (after is not None and after >= before)


@given(config=CONFIGS, entry=ENTRIES, best=LEVELS, age=st.integers(0, 10**7))
def test_a_candidate_stands_below_its_level(config, entry, best, age):
    """No rule puts a stop at or beyond the level it follows, so that an unchanged quote does not trigger it."""
    candidate = config.candidate(entry, best, age * NANOS)
    assert candidate is None or candidate < best


@given(config=CONFIGS, entry=ENTRIES, stop=LEVELS, below=st.integers(1, 10**6), age=st.integers(0, 10**7))
def test_nothing_moves_below_the_level_that_wakes_a_stop(config, entry, stop, below, age):
    """Below `wakes_at` no candidate is far enough from the stop to move it."""
    wake = config.wakes_at(stop)
    candidate = config.candidate(entry, wake - below, age * NANOS)
    if not config.follows_time:
        assert candidate is None or candidate - stop < config.least_move(stop)


@given(config=CONFIGS)
def test_a_configuration_survives_its_record(config):
    """What is written into an ADD record is the same configuration when it is read."""
    assert TrailingStopConfig.from_json(config.to_json()) == config


@pytest.mark.contract("B2")
def test_the_defaults_are_the_published_ones():
    """2 / 1.5 / 0.5, percent and not ratio."""
    config = TrailingStopConfig()
    assert (config.activation_pct, config.trailing_pct, config.min_move_pct) == (2.0, 1.5, 0.5)
    assert (config.activation_bp, config.rules, config.min_move_bp) == (200, (PercentTrail(150),), 50)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"activation_pct": 0}, "activation_pct 0 must be above 0"),
        ({"trailing_pct": -1.5}, r"trailing_pct -1\.5 must be above 0"),
        ({"min_move_pct": 0}, "min_move_pct 0 must be above 0"),
        ({"activation_pct": float("nan")}, "activation_pct nan"),
        ({"activation_pct": "much"}, "'much' is not a number"),
        ({"activation_pct": True}, "activation_pct True"),
        ({"trailing_pct": 0.015, "activation_pct": 0.02}, r"0\.015 has more than two decimal places"),
        ({"trailing_pct": 2}, r"trailing_pct 2 must be below activation_pct 2\.0"),
        ({"trailing_pct": 100}, r"trailing_pct 100 must be above 0 and at most 99\.99"),
        ({"hard_floor_pct": 0}, "hard_floor_pct 0"),
        ({"rules": (DistanceTrail(0),)}, "DistanceTrail: distance 0 must be a whole number"),
        ({"rules": (PercentTrail(1.5),)}, r"PercentTrail: trailing_bp 1\.5"),
        ({"rules": (VolatilityTrail(0, 0),)}, "volatility 0 .*; VolatilityTrail: multiple_e2 0"),
        ({"rules": (GiveBack(10_001),)}, "GiveBack: fraction_bp 10001"),
        ({"rules": (BreakEven(100, 100),)}, "BreakEven: lock_bp 100"),
        ({"rules": (TimeTightening(100, 100, 0),)}, "final_bp 100 .*; TimeTightening: over_secs 0"),
        ({"rules": (RatchetTable(()),)}, "rows must not be empty"),
        ({"rules": (RatchetTable(((100, 50), (200, 50))),)}, "the gain must rise and the trail shrink"),
        ({"spread_factor_pct": -1}, "spread_factor_pct -1"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_by_name(values, words):
    """A percentage out of range, a ratio in its place, or a rule without sense is named."""
    with pytest.raises(ConfigError, match=words):
        TrailingStopConfig(**values)


def test_one_error_lists_all_that_is_wrong():
    """Two wrong percentages and a wrong rule stand in one message."""
    with pytest.raises(
        ConfigError, match=r"activation_pct 0 .*; min_move_pct -1 .*; DistanceTrail: distance 0"
    ):
        TrailingStopConfig(0, min_move_pct=-1, rules=(DistanceTrail(0),))


def test_a_recorded_configuration_of_another_shape_is_refused():
    """Values that are no configuration are refused as such."""
    with pytest.raises(ConfigError, match="trailing stop"):
        TrailingStopConfig.from_json({"activation_pct": "2"})


def test_distances_are_told_in_dollars_and_ticks():
    """Five cents, and one tick of five cents, are the same distance."""
    assert DistanceTrail.dollars("0.05") == DistanceTrail.ticks(1, 500) == DistanceTrail(500)
