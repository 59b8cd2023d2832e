"""Steps of the wall clock: which differences are one, and how the log records them."""

from __future__ import annotations

import pytest
from support.crash import LOG, SteppedLog, lines_on

from holdfast.audit.clockwatch import ClockWatch, Reading, step_at_start
from holdfast.core.clock import NANOS, ManualClock
from holdfast.testing.storage import SimulatedStorage


def looks(*readings):
    watch = ClockWatch()
    return [watch.look(Reading(mono, wall, mono)) for mono, wall in readings]


@pytest.mark.parametrize(("drift", "is_step"), [(NANOS // 2, False), (NANOS // 2 + 1, True), (-NANOS, True)])
def test_a_difference_beyond_half_a_second_is_a_step(drift, is_step):
    """Half a second of difference between the clocks passes, a nanosecond more is a step, in either direction."""
    (_, found) = looks((0, 1000), (NANOS, 1000 + NANOS + drift))
    assert (found is not None) is is_step
    if found is not None:
        assert found.details() == {
            "before_ns": 1000 + NANOS,
            "after_ns": 1000 + NANOS + drift,
            "step_ns": drift,
        }


def test_a_step_is_told_once():
    """After a step the new time is the expected one."""
    assert [bool(step) for step in looks((0, 0), (1, 9 * NANOS), (2, 9 * NANOS + 1))] == [False, True, False]


def test_slow_steering_is_never_a_step():
    """A day of steering by 500 parts in a million, looked at once a second, is no step."""
    secs = range(0, 86_400, 60)
    assert not any(looks(*[(sec * NANOS, round(sec * 1.0005 * NANOS)) for sec in secs]))


def test_a_reading_that_took_long_is_passed_over():
    """Between the two looks at the monotonic clock the thread slept: nobody knows when the wall clock was read."""
    watch = ClockWatch()
    watch.look(Reading(0, 0, 0))
    assert watch.look(Reading(NANOS, 3 * NANOS, 3 * NANOS)) is None
    assert watch.look(Reading(4 * NANOS, 4 * NANOS, 4 * NANOS)) is None


@pytest.mark.parametrize(
    ("last", "now", "is_step"),
    [(0, 5, False), (9, 5, False), (10 * NANOS, 9 * NANOS, True), (1 * NANOS, 99 * NANOS, False)],
)
def test_a_start_sees_only_steps_back(last, now, is_step):
    """A last record of the future is a step back; time that passed while nothing ran is none."""
    assert (step_at_start(last, now) is not None) is is_step


@pytest.mark.contract("A11")
def test_the_running_log_records_a_step_and_keeps_its_order():
    """The flusher's round after a step queues one CLOCK_STEP; sequences run on though times do not."""
    clock, disk = ManualClock(), SimulatedStorage()
    with SteppedLog(LOG, clock=clock, storage=disk, seal=False) as log:
        log.append("NOTE", {})
        log._flush(0, wanted=False)
        clock.step_wall_secs(-3600)
        log._flush(0, wanted=False)
        log._flush(0, wanted=False)
        log.append("NOTE", {})
        steps = [record for record in log.records() if record.type == "CLOCK_STEP"]
        assert [step.details["step_ns"] for step in steps] == [-3600 * NANOS]
        records = list(log.records())
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert records[-1].ts < records[1].ts


@pytest.mark.contract("A11")
def test_a_start_records_that_the_clock_went_back():
    """The first record after a restart on a clock before the last record's time is a CLOCK_STEP with both times."""
    clock, disk = ManualClock(), SimulatedStorage()
    with SteppedLog(LOG, clock=clock, storage=disk, seal=False) as log:
        log.append("NOTE", {})
        before = clock.now_ns()
    clock.step_wall_secs(-60)
    with SteppedLog(LOG, clock=clock, storage=disk, seal=False) as log:
        log.open()
    steps = [details for _, type_, details in lines_on(disk) if type_ == "CLOCK_STEP"]
    assert steps == [{"before_ns": before, "after_ns": before - 60 * NANOS, "step_ns": -60 * NANOS}]
