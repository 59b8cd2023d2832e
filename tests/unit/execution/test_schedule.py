"""Recurring work in market time that may jump."""

import pytest

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput
from holdfast.execution.schedule import Every

START = 1_700_000_000 * NANOS


def test_work_is_due_at_first_and_then_once_per_period():
    """The first question finds it due, then each period does once."""
    every = Every(30)
    due = [secs for secs in range(0, 121, 15) if every.is_due(START + secs * NANOS)]
    assert due == [0, 30, 60, 90, 120]


def test_a_jump_makes_it_due_once_and_keeps_the_rhythm():
    """After a night the work is done once, and next at the rhythm of before."""
    every = Every(60)
    every.is_due(START)
    assert every.is_due(START + 50_030 * NANOS)
    assert not every.is_due(START + 50_039 * NANOS)
    assert every.is_due(START + 50_040 * NANOS)


def test_time_that_repeats_or_steps_back_makes_nothing_due():
    """A tick told twice, or an earlier one, does not bring the work forward."""
    every = Every(60)
    assert every.is_due(START)
    assert not every.is_due(START)
    assert not every.is_due(START - 3600 * NANOS)


def test_asking_whether_it_waits_does_nothing():
    """Looking ahead neither does the work nor puts it off."""
    every = Every(60)
    assert not every.is_waiting(START)
    assert every.is_due(START)
    assert every.is_waiting(START + 59 * NANOS)
    assert not every.is_waiting(START + 60 * NANOS)
    assert every.is_due(START + 60 * NANOS)


def test_a_restart_waits_for_what_was_done_before_it():
    """Work done ten minutes before a restart is not due again at once."""
    every = Every(3600, last_ns=START - 600 * NANOS)
    assert not every.is_due(START)
    assert every.is_due(START + 3000 * NANOS)


def test_a_period_below_a_second_is_refused():
    """A period of zero would be due for ever."""
    with pytest.raises(BadInput, match="below 1 s"):
        Every(0)
