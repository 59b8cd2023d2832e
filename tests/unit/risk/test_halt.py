"""How much trading is allowed: the lattice of states, and who restrains it."""

import itertools
import random

import pytest

from holdfast.risk.halt import Holds, TradingState

SEED = 20261121


def test_what_each_state_allows_is_the_table_of_the_module():
    """Reducing orders leave up to REDUCING, increasing ones up to THROTTLED, none after."""
    allowed = {state.name: (state.allows_reducing, state.allows_increasing) for state in TradingState}
    assert allowed == {
        "ACTIVE": (True, True),
        "THROTTLED": (True, True),
        "REDUCING": (True, False),
        "CANCEL_ONLY": (False, False),
        "HALTED": (False, False),
    }


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_the_most_severe_hold_wins_whoever_came_last(order):
    """The effective state is the most severe one held, in whatever order the holders and their names come."""
    held = {"a": TradingState.HALTED, "b": TradingState.THROTTLED, "c": TradingState.REDUCING}
    holds = Holds()
    for holder in order:
        change = holds.change(holder, held[holder], reason="held")
        assert change is not None
        holds.apply(change)
        assert change["to"] == holds.state.name
    assert holds.state is TradingState.HALTED
    assert holds.without("a") is TradingState.REDUCING


def test_any_course_of_holds_is_that_of_a_plain_table():
    """After every change the state is the most severe of a table, and one release lifts no other hold."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    holds, table = Holds(), {}
    for _ in range(2_000):
        holder, state = rng.choice(("run", "journal", "desk", "person")), rng.choice(list(TradingState))
        before = holds.state
        change = holds.change(holder, state, reason="drawn")
        assert holds.state is before, "nothing changes before the record is applied"
        assert (change is None) is (table.get(holder, TradingState.ACTIVE) is state)
        if change is not None:
            assert change["from"] == before.name
            holds.apply(change)
        table[holder] = state
        assert holds.state is max(table.values())
        for name, held in table.items():
            assert holds.held_by(name) is held


def test_a_restart_finds_every_hold_in_the_newest_record():
    """The last STATE record alone restores who holds what; a person's halt stays until it is released."""
    before = Holds()
    for holder, state in (("journal", TradingState.CANCEL_ONLY), ("person", TradingState.HALTED)):
        record = before.change(holder, state, reason="held")
        before.apply(record)
    after = Holds()
    after.apply(record)
    assert after.snapshot() == before.snapshot() == {"journal": "CANCEL_ONLY", "person": "HALTED"}
    after.apply(after.change("journal", TradingState.ACTIVE, reason="reopened"))
    assert (after.state, after.snapshot()) == (TradingState.HALTED, {"person": "HALTED"})
