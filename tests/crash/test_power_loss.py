"""Power loss, enumerated: 100,000 disk states of a signed log, each restarted and held against what was promised.

The simulated disk keeps, per sector of 512 bytes, every content that a crash may leave, sizes and names as of any
moment since their last sync, and writes that overlap a sync. States are drawn at every call that changes the disk,
inside recovery too, and a state counts once. `make torture` draws more of them, from other seeds.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.crash import Story, Violation
from support.planted import CRASH_BUGS, FOCUS

from holdfast.core.errors import AuditError

STATES = 100_000
SHARES = 10
SEED = int(os.environ.get("HOLDFAST_SEED", "20261121"))


def judged(first_seed: int, at_least: int) -> tuple[int, int]:
    """Live stories until *at_least* states were judged; how many there were, and how many stories."""
    states = stories = 0
    while states < at_least:
        states += Story(first_seed + stories, states_per_call=2.0, steps=7).run()
        stories += 1
    return states, stories


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.invariant("I7")
@pytest.mark.invariant("I12")
@pytest.mark.contract("A11")
def test_every_state_after_a_power_cut_restarts_with_everything_acknowledged(capsys, share):
    """Of 100,000 states, each restarts as a gapless prefix that holds every acknowledged record and survives the
    next crash; none is called damaged."""
    first_seed = SEED + 100_000 * share
    states, stories = judged(first_seed, STATES // SHARES)
    with capsys.disabled():
        print(f"\n  power loss: {states} states of {stories} stories, seeds from {first_seed}")
    assert states >= STATES // SHARES


@settings(max_examples=10)
@given(seed=st.integers(1, 10**9))
@pytest.mark.invariant("I7")
def test_any_story_survives_its_crashes(seed):
    """A story of any seed has no crash state that breaks a promise."""
    assert Story(seed, states_per_call=0.3, steps=12).run() > 0


@pytest.mark.parametrize("bug", CRASH_BUGS, ids=lambda bug: bug.__name__)
@pytest.mark.invariant("I7")
def test_a_planted_bug_is_found_by_the_simulated_disk(bug):
    """Within twenty stories a state is drawn that the planted bug breaks."""
    for seed in range(20):
        story = Story(seed, bug, states_per_call=0.5, steps=15, focus=FOCUS.get(bug.__name__, ()))
        try:
            story.run()
        except (Violation, AuditError):
            return
    pytest.fail(f"{bug.__name__} passed")


def test_states_are_counted_once():
    """A disk that did not change between two calls adds no state."""
    story = Story(1, states_per_call=0.0, steps=3)
    story.run()
    assert story.checked == 0
    for _ in range(50):
        story.states_per_call = 1.0
        story._crash_here("end", "")
    assert story.checked - len(story._seen) < 10, "crashes inside recovery aside, one state was judged again"
    assert len(story._seen) < 10
