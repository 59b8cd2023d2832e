"""Trailing stops: one sweep of 100,000 in columns, and one tick with 64 stops on its instrument.

The peer of a sweep is the same decision by the same stops one by one, in the same run. A calm step moves every premium by
at most 0.5 %; a storm moves it by -3 % to +6 % of the entry, so that most stops do something or are over.
"""

from __future__ import annotations

import random
import time
from statistics import median

import numpy as np

from holdfast.risk.stop_manager import TrailingStopManager
from holdfast.risk.stop_sweep import StopSweep
from holdfast.risk.trailing_stop import TrailingStop

STOPS = 100_000
STEPS = 6
ROUNDS = 7
TICKS = 2000


def storm(rng, entry):
    return [entry * (10_000 + rng.integers(-300, 600, len(entry))) // 10_000 for _ in range(STEPS)]


def calm(rng, entry):
    price, steps = entry.copy(), []
    for _ in range(STEPS):
        price = price * (10_000 + rng.integers(-50, 80, len(entry))) // 10_000
        steps.append(price)
    return steps


def sweeps(name, make, bar):
    rng = np.random.default_rng(7)
    entry = rng.integers(5_000, 200_000, STOPS)
    steps = make(rng, entry)
    texts = [f"{one // 10_000}.{one % 10_000:04d}" for one in entry.tolist()]
    columns, lists, acted = [], [], 0
    for number in range(ROUNDS):
        stops = [TrailingStop("x", text) for text in texts]
        sweep = StopSweep(stops)
        for step in steps:
            start = time.process_time_ns()
            actions = sweep.sweep(step)
            columns.append((time.process_time_ns() - start) / STOPS)
            acted += int((actions != 0).sum())
        if number < 2:
            for step in steps:
                plain = step.tolist()
                start = time.process_time_ns()
                for stop, premium in zip(stops, plain, strict=True):
                    stop.update_price(premium)
                lists.append((time.process_time_ns() - start) / STOPS)
    share = acted / (ROUNDS * STEPS * STOPS)
    return {
        "name": f"one sweep of 100,000 stops, {name} ({share:.0%} act), CPU per stop",
        "value": median(columns),
        "unit": "ns",
        "beside": f"the same stops one by one {median(lists):.0f} ns",
        "ratio": median(columns) / median(lists),
        "bar": bar,
    }


def tick(name, move, bar, event_logger=None):
    rng = random.Random(7)
    took = []
    for _ in range(5):
        manager = TrailingStopManager(event_logger)
        for number in range(64):
            manager.add_trailing_stop(str(number), 100, symbol="SPY", sign=1 if number % 2 else -1)
        price = 1_000_000
        for _ in range(TICKS):
            price = move(rng, price)
            start = time.perf_counter_ns()
            manager.update_ticks("SPY", price - 100, price + 100)
            took.append(time.perf_counter_ns() - start)
    took.sort()
    return {
        "name": f"a tick with 64 stops, {name}, p50",
        "value": took[len(took) // 2] / 1e3,
        "unit": "us",
        "beside": f"p99 {took[len(took) * 99 // 100] / 1e3:.1f} us",
        "ratio": None,
        "bar": bar,
    }


def every_stop_moves():
    """The worst tick: each of 64 stops moves."""
    took = []
    for _ in range(300):
        manager = TrailingStopManager()
        for number in range(64):
            manager.add_trailing_stop(str(number), 100, symbol="SPY")
        for price in (1_030_000, 1_050_000):
            start = time.perf_counter_ns()
            told = manager.update_ticks("SPY", price, price)
            took.append(time.perf_counter_ns() - start)
            assert len(told) == 64
    return {
        "name": "a tick that moves all of 64 stops, p50",
        "value": median(took) / 1e3,
        "unit": "us",
        "beside": f"per stop {median(took) / 64:.0f} ns",
        "ratio": None,
        "bar": "",
    }


def run():
    return [
        sweeps("calm", calm, "<= 20 ns"),
        sweeps("storm", storm, "<= 20 ns"),
        tick("a walk of 0.02 %", lambda rng, price: price + rng.randint(-200, 210), "<= 20 us"),
        tick("a walk of 0.2 %", lambda rng, price: price + rng.randint(-2000, 2100), "<= 20 us"),
        every_stop_moves(),
    ]


if __name__ == "__main__":
    for row in run():
        print(row)
