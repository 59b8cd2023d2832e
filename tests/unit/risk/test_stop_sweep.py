import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from holdfast.core.errors import BadInput
from holdfast.risk.stop_rules import (
    DistanceTrail,
    GiveBack,
    PercentTrail,
    TrailingStopConfig,
    VolatilityTrail,
)
from holdfast.risk.stop_sweep import ACTIONS, StopSweep
from holdfast.risk.trailing_stop import TrailingStop

ROOT = Path(__file__).parents[3]
SEED = 5
CONFIGS = [
    TrailingStopConfig(),
    TrailingStopConfig(5, 3, 1, hard_floor_pct=10, negative_premiums=True),
    TrailingStopConfig(rules=(PercentTrail(400, "entry"),)),
    TrailingStopConfig(rules=(DistanceTrail(900),)),
    TrailingStopConfig(rules=(VolatilityTrail(333, 250),), min_move_pct=2),
]


def stops(rng, count):
    made = []
    for _ in range(count):
        config = rng.choice(CONFIGS)
        entry = rng.choice([rng.randint(1, 300), rng.randint(300, 10**6)]) * rng.choice(
            [1, -1] if config.negative_premiums else [1]
        )
        text = f"{'-' if entry < 0 else ''}{abs(entry) // 10_000}.{abs(entry) % 10_000:04d}"
        made.append(TrailingStop("x", text, config, sign=rng.choice([1, -1])))
    return made


def walk(rng, premium, entry):
    width = rng.choice([2, 50, 800])
    return premium + rng.randint(-width, width) * max(1, abs(entry) // 10_000)


def equal_states(sweep, listed):
    assert sweep.best.tolist() == [stop.best for stop in listed]
    assert sweep.triggered.tolist() == [stop.is_triggered for stop in listed]
    assert sweep.has_stop.tolist() == [stop.stop is not None for stop in listed]
    placed = [(n, stop.stop) for n, stop in enumerate(listed) if stop.stop is not None]
    assert [(n, int(sweep.stop[n])) for n, _ in placed] == placed


@pytest.mark.contract("B2")
@pytest.mark.invariant("I11")
@pytest.mark.parametrize("mixed", [True, False])
def test_columns_do_what_lists_do(mixed):
    """Over random walks of longs and shorts with mixed rules, and of one kind alone, columns act and stand as the stops do."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    listed = stops(rng, 400) if mixed else [TrailingStop("x", 1 + n) for n in range(400)]
    premiums = [int(stop.entry) for stop in listed]
    seen = set()
    for step in range(60):
        if step % 20 == 0:  # taken up in the middle of their lives, too
            sweep = StopSweep(listed)
            equal_states(sweep, listed)
        premiums = [walk(rng, one, stop.entry) for one, stop in zip(premiums, listed, strict=True)]
        told = sweep.sweep(np.array(premiums, dtype=np.int64))
        expected = [stop.update_price(one) for stop, one in zip(listed, premiums, strict=True)]
        assert [ACTIONS[number] for number in told.tolist()] == expected
        seen |= set(expected)
    equal_states(sweep, listed)
    assert seen == set(ACTIONS)


@pytest.mark.contract("B2")
def test_a_sample_of_the_million_paths_agrees():
    """`stop_paths.py` finds lists, columns and model equal; a million paths are its ordinary run."""
    command = [sys.executable, ROOT / "tests" / "stop_paths.py", "--paths", "4000", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "lists = columns = model" in done.stdout


@pytest.mark.parametrize(
    ("premiums", "words"),
    [
        (np.array([1.0]), "float64"),
        (np.array([1, 2]), r"\(2,\) premiums"),
        (np.array([10**13]), "hundred million"),
        (np.array([-(2**63)]), "hundred million"),
    ],
)
def test_premiums_of_another_kind_are_refused(premiums, words):
    """Floats, a wrong number of premiums and absurd ones are refused by name, and nothing moves."""
    sweep = StopSweep([TrailingStop("x", 1)])
    with pytest.raises(BadInput, match=words):
        sweep.sweep(premiums)
    assert sweep.best.tolist() == [10_000]


def test_a_rule_that_columns_do_not_know_is_refused():
    """A give-back rule is named, with the way to tick it."""
    with pytest.raises(BadInput, match="GiveBack is not known in columns"):
        StopSweep([TrailingStop("x", 1, TrailingStopConfig(rules=(GiveBack(5000),)))])


def test_an_empty_sweep_does_nothing():
    """No stops, no premiums, no actions."""
    assert len(StopSweep([])) == 0
    assert StopSweep([]).sweep(np.array([], dtype=np.int64)).tolist() == []


def test_stops_need_no_numpy():
    """Stops, their rules and their manager load without numpy."""
    code = "import sys, holdfast.risk.stop_manager; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
