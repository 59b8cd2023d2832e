"""The pure machine: the table is what happens, every small history explored."""

import itertools

import pytest

from holdfast.breaker import machine as machine_module
from holdfast.breaker.machine import (
    TRANSITIONS,
    Asked,
    BreakerState,
    Counted,
    Granted,
    Looked,
    Machine,
    Moved,
    Observed,
    Ordered,
    Refused,
    Reported,
    Rules,
    Settled,
    Signal,
    Verdict,
    Withdrawn,
    next_state,
    retry_after_ns,
    step,
)
from holdfast.core.errors import IllegalTransition

RULES = Rules(
    failure_threshold=2,
    failure_window_ns=10,
    half_open_max_tries=2,
    open_timeout_ns=5,
    half_open_timeout_ns=3,
)


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(BreakerState, Signal)))
def test_next_state_follows_the_table_and_refuses_every_other_pair(state, signal):
    """A pair that is not in the table raises IllegalTransition."""
    if (state, signal) in TRANSITIONS:
        assert next_state(state, signal) is TRANSITIONS[state, signal]
    else:
        with pytest.raises(IllegalTransition, match=signal):
            next_state(state, signal)


def test_every_state_is_left_by_a_reset_and_a_latch_by_nothing_else():
    """A person can close a breaker from any state, and a latch yields to nothing but a reset."""
    assert {state for state, signal in TRANSITIONS if signal is Signal.RESET} == set(BreakerState)
    assert [signal for state, signal in TRANSITIONS if state is BreakerState.LATCHED] == [Signal.RESET]


def test_diagram_draws_every_arrow_of_the_table():
    """The picture atop the module names every state and every signal that the table knows."""
    for signal in {signal for _, signal in TRANSITIONS}:
        assert f"─{signal.name}─" in machine_module.__doc__
    for state in BreakerState:
        assert state.name in machine_module.__doc__


def _key(machine, permits, now_ns):
    """What matters for the future, with times relative to now."""
    return (
        machine.state,
        machine.consecutive,
        tuple(min(now_ns - t, RULES.failure_window_ns + 1) for t in machine.failure_times),
        machine.successes,
        min(now_ns - machine.since_ns, RULES.open_timeout_ns),
        max(machine.lease_until_ns - now_ns, 0) if machine.lease else None,
        tuple(
            (machine.era == era, lease != 0, (machine.era, machine.lease) == (era, lease))
            for era, lease in permits
        ),
    )


@pytest.mark.contract("A3")
def test_machine_keeps_its_promises_in_every_history_of_three_callers():
    """Exploring every interleaving of three callers: one live probe, no late effect, and only the table's arrows."""
    frontier = [(Machine(), (), 0)]
    seen, arrows, steps = set(), set(), 0
    while frontier:
        machine, permits, now_ns = frontier.pop()
        moves = [(Asked(True), None), (Asked(False), None), (Looked(), None)]
        moves += [(Ordered(signal, "why"), None) for signal in (Signal.FORCE, Signal.LATCH, Signal.RESET)]
        moves += [(Observed(verdict), None) for verdict in Verdict]
        moves += [(Reported(verdict), None) for verdict in (Verdict.SUCCESS, Verdict.FAILURE)]
        for permit in permits:
            moves += [(Settled(*permit, verdict), permit) for verdict in Verdict]
            moves.append((Withdrawn(*permit), permit))
        for event, permit in moves:
            steps += 1
            try:
                after, effects = step(RULES, machine, event, now_ns)
            except IllegalTransition:
                assert isinstance(event, Ordered)
                assert (machine.state, event.signal) not in TRANSITIONS
                continue
            arrows |= {(e.origin, e.signal, e.target) for e in effects if isinstance(e, Moved)}
            _check(machine, event, after, effects, now_ns)
            left = tuple(p for p in permits if p != permit)
            granted = tuple((e.era, e.lease) for e in effects if isinstance(e, Granted))
            if len(left) + len(granted) <= 3:
                _visit(seen, frontier, after, left + granted, now_ns)
        for secs in (1, 3):
            _visit(seen, frontier, machine, permits, now_ns + secs)
    assert arrows == {(origin, signal, target) for (origin, signal), target in TRANSITIONS.items()}
    assert steps > 10_000


def _visit(seen, frontier, machine, permits, now_ns):
    key = _key(machine, permits, now_ns)
    if key not in seen:
        seen.add(key)
        frontier.append((machine, permits, now_ns))


def _check(before, event, after, effects, now_ns):
    moved = [e for e in effects if isinstance(e, Moved)]
    assert after.era == before.era + len(moved)
    assert (after.word == before.word) == (not moved)
    for move in moved:
        assert TRANSITIONS[move.origin, move.signal] is move.target
    if isinstance(event, Asked):
        answer = effects[-1]
        assert isinstance(answer, Granted | Refused)
        if isinstance(answer, Granted) and answer.lease:
            assert event.may_probe
            assert after.state is BreakerState.HALF_OPEN
            assert before.lease == 0 or before.lease_until_ns <= now_ns or moved
        elif isinstance(answer, Granted):
            assert after.state is BreakerState.CLOSED
        else:
            assert after.state is not BreakerState.CLOSED
            assert answer.retry_after_ns == retry_after_ns(RULES, after, now_ns)
    counted = [e for e in effects if isinstance(e, Counted)]
    if counted and counted[0].late:
        assert after == before
    if isinstance(event, Settled) and event.era != before.era:
        assert counted[0].late
    if isinstance(event, Withdrawn):
        assert after == before or (event.lease and (event.era, event.lease) == (before.era, before.lease))
    if isinstance(event, Settled | Observed | Reported):
        assert len(counted) == 1
        if event.verdict in (Verdict.IGNORED, Verdict.NOT_REACHED):
            assert not moved
            assert (after.consecutive, after.successes) == (before.consecutive, before.successes)


def _drive(machine, *events, now_ns=0):
    for event in events:
        machine, _ = step(RULES, machine, event, now_ns)
    return machine


def test_failures_in_a_row_trip_however_slow():
    """Consecutive failures open the breaker even when they are further apart than the window."""
    machine = _drive(Machine(), Reported(Verdict.FAILURE))
    machine = _drive(machine, Reported(Verdict.FAILURE), now_ns=1_000_000)
    assert machine.state is BreakerState.OPEN


def test_failures_inside_the_window_trip_between_successes():
    """As many failures inside the window open the breaker although successes came between, the bound included."""
    mixed = (Reported(Verdict.FAILURE), Reported(Verdict.SUCCESS))
    machine = _drive(Machine(), *mixed)
    assert _drive(machine, Reported(Verdict.FAILURE), now_ns=10).state is BreakerState.OPEN
    assert _drive(machine, Reported(Verdict.FAILURE), now_ns=11).state is BreakerState.CLOSED


def test_probe_that_never_reports_loses_its_slot():
    """After the lease the next caller probes, and the first probe's result is late."""
    machine = Machine(state=BreakerState.OPEN)
    machine, effects = step(RULES, machine, Asked(), 5)
    first = effects[-1]
    machine, effects = step(RULES, machine, Asked(), 7)
    assert isinstance(effects[-1], Refused)
    assert effects[-1].retry_after_ns == 1
    machine, effects = step(RULES, machine, Asked(), 8)
    second = effects[-1]
    assert second.lease == first.lease + 1
    after, effects = step(RULES, machine, Settled(first.era, first.lease, Verdict.FAILURE), 9)
    assert (after, effects) == (machine, (Counted(Verdict.FAILURE, True),))
    after, _ = step(RULES, machine, Settled(second.era, second.lease, Verdict.FAILURE), 9)
    assert after.state is BreakerState.OPEN
