"""Hold the trailing stops, in lists and in columns, against the model of `support/stops.py` over random paths.

    python tests/stop_paths.py --paths 1000000 --seed 7

Every step of every path compares action, stop and best premium of all three; a difference is printed with the seed
that repeats it, and ends with status 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "src")]

import numpy as np
from support.stops import QuickModel

from holdfast.risk.stop_manager import TrailingStopManager
from holdfast.risk.stop_sweep import ACTIONS, StopSweep

CHUNK = 20_000
STEPS = 12
FAR = -(1 << 62)


def paths(rng, count):
    """Entries, signs and steps: quiet walks, jumps and collapses to zero, cheap premiums and dear ones."""
    entry = np.where(
        rng.random(count) < 0.2, rng.integers(1, 200, count), rng.integers(200, 2_000_000, count)
    )
    width = rng.choice([20, 200, 1500], count)
    price, steps = entry.copy(), []
    for _ in range(STEPS):
        price = np.maximum(price + price * rng.integers(-width, width * 2, count) // 10_000, 0)
        price = np.where(rng.random(count) < 0.01, 0, price) + rng.integers(0, 2, count)
        steps.append(price.astype(np.int64))
    return entry, rng.choice([1, 1, -1], count), steps


def compare(seed, count):
    """One chunk of paths; how many stops did each thing, or the first difference."""
    rng = np.random.default_rng(seed)
    entry, signs, steps = paths(rng, count)
    manager = TrailingStopManager()
    stops = [
        manager.add_trailing_stop(str(n), f"{one // 10_000}.{one % 10_000:04d}", symbol=str(n), sign=sign)
        for n, (one, sign) in enumerate(zip(entry.tolist(), signs.tolist(), strict=True))
    ]
    sweep = StopSweep(stops)
    models = [QuickModel(*one) for one in zip(entry.tolist(), signs.tolist(), strict=True)]
    numbers = {action: number for number, action in enumerate(ACTIONS)}
    seen = np.zeros(len(ACTIONS), dtype=np.int64)
    for step, premiums in enumerate(steps):
        expected = [model.update(premium) for model, premium in zip(models, premiums.tolist(), strict=True)]
        listed = [
            numbers[stop.update_price(premium)]
            for stop, premium in zip(stops, premiums.tolist(), strict=True)
        ]
        swept = sweep.sweep(premiums)
        state = [(model.stop, model.best) for model in models]
        for name, actions, states in (
            ("lists", listed, [(stop.stop or 0, stop.best) for stop in stops]),
            (
                "columns",
                swept.tolist(),
                list(zip(np.where(sweep.has_stop, sweep.stop, 0).tolist(), sweep.best.tolist(), strict=True)),
            ),
        ):
            if actions != expected or states != state:
                pairs = zip(actions, states, expected, state, strict=True)
                n = next(n for n, (a, s, e, t) in enumerate(pairs) if (a, s) != (e, t))
                raise AssertionError(
                    f"seed {seed}, {name}, path {n}, step {step}: {actions[n]} {states[n]},"
                    f" expected {expected[n]} {state[n]} from entry {entry[n]}, sign {signs[n]}"
                )
        seen += np.bincount(expected, minlength=len(ACTIONS))
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    start, seen = time.perf_counter(), np.zeros(len(ACTIONS), dtype=np.int64)
    for number, first in enumerate(range(0, options.paths, CHUNK)):
        seen += compare(options.seed * 100_000 + number, min(CHUNK, options.paths - first))
    told = ", ".join(f"{count:,} {action}" for action, count in zip(ACTIONS, seen.tolist(), strict=True))
    print(
        f"{options.paths:,} paths of {STEPS} premiums from seed {options.seed}: lists = columns = model ({told});"
        f" {time.perf_counter() - start:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
