"""The recovery rule over enumerated crash states: any version per sector, overlapping writes, holes, filler."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.crash import SteppedLog, Story

SEEDS = range(60)


@pytest.mark.slow
@pytest.mark.invariant("I7")
@pytest.mark.invariant("I12")
def test_every_crash_state_recovers_to_a_prefix_with_everything_acknowledged(capsys):
    """Of thousands of crash states, inside recovery too, each restarts as a gapless prefix that holds every
    acknowledged record and survives the next crash; none is called damaged."""
    states = sum(Story(seed, SteppedLog, states_per_call=0.5).run() for seed in SEEDS)
    with capsys.disabled():
        print(f"\n  recovery: {states} crash states, seeds {SEEDS.start} to {SEEDS.stop - 1}")
    assert states >= 5000


@settings(max_examples=10)
@given(seed=st.integers(1000, 10**9))
@pytest.mark.invariant("I7")
def test_any_story_survives_its_crashes(seed):
    """A story of any seed has no crash state that breaks a promise."""
    assert Story(seed, SteppedLog, states_per_call=0.3, steps=15).run() > 0
