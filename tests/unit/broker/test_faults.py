"""What goes wrong on purpose, and how it is told."""

from __future__ import annotations

import pytest

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput
from holdfast.venues.broker.faults import SCRIPTS, Fault, Faults, Kind, read_rates, read_script


def test_scripted_faults_meet_the_next_requests_of_their_kind_from_their_second_on():
    """Two orders after ten seconds, no read, and then nothing more."""
    faults = Faults(1, script=read_script("10:orders_500=2", 0))
    assert faults.for_request(Kind.ORDER, 9 * NANOS) is None
    assert faults.for_request(Kind.READ, 10 * NANOS) is None
    assert [faults.for_request(Kind.ORDER, 10 * NANOS) for _ in range(3)] == [Fault.ERROR, Fault.ERROR, None]
    assert faults.met[Fault.ERROR] == 2


def test_a_disconnect_needs_no_request_and_mid_combo_a_combination():
    """The one meets the clock, the other passes over single contracts."""
    faults = Faults(1, script=read_script("5:disconnect=1,5:disconnect_mid_combo=1", 0))
    assert not faults.is_cut(4 * NANOS)
    assert faults.is_cut(5 * NANOS)
    assert not faults.is_cut(6 * NANOS)
    assert faults.for_request(Kind.ORDER, 6 * NANOS) is None
    assert faults.for_request(Kind.ORDER, 6 * NANOS, is_combo=True) is Fault.MID_COMBO


def test_what_was_due_before_a_restart_is_met_already():
    """Only later faults are left."""
    faults = Faults(1, script=read_script("5:orders_500=1,50:orders_hang=1", 0))
    faults.skip_until(20 * NANOS)
    assert faults.for_request(Kind.ORDER, 60 * NANOS) is Fault.HANG


@pytest.mark.invariant("I12")
def test_random_faults_follow_the_seed_and_the_rate():
    """Equal seeds the same, and about as many as the rate says."""

    def course(seed):
        faults = Faults(seed, read_rates("drop=0.2"))
        return [faults.for_request(Kind.ORDER, 0) for _ in range(500)]

    assert course(3) == course(3) != course(4)
    assert 60 < course(3).count(Fault.DROP) < 140


@pytest.mark.parametrize(
    "text", ["drop", "disconnect=0.1", "nonsense=0.1", "drop=2", "drop=-1", "drop=nan", "drop=x"]
)
def test_a_rate_that_cannot_be_is_refused(text):
    """By name."""
    with pytest.raises(BadInput):
        read_rates(text)


@pytest.mark.parametrize(
    "text",
    ["orders_500=1", "5:orders_501=1", "x:orders_500=1", "5:orders_500=0", "5:orders_500=-1", "5:orders_500"],
)
def test_a_script_that_cannot_be_is_refused(text):
    """By name, with the words there are."""
    with pytest.raises(BadInput):
        read_script(text, 0)
    assert "disconnect_mid_combo" in SCRIPTS
