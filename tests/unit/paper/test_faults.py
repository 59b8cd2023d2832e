"""Faults: rates, scripts and their determinism."""

import pytest

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput
from holdfast.venues.paper.faults import (
    REQUEST_FAULTS,
    SCRIPTS,
    Fault,
    Faults,
    FaultScript,
    ScriptedFault,
    read_control,
    read_rates,
    read_script,
)
from holdfast.venues.paper.limits import RequestClass

READ, CREATE, CANCEL = RequestClass.READ, RequestClass.CREATE, RequestClass.CANCEL


def test_rates_are_read_in_parts_per_million():
    """`5xx_before=0.1,gap=0.001` is 100,000 and 1,000 parts per million, and empty text is none."""
    assert read_rates("5xx_before=0.1, gap=0.001") == {Fault.ERROR_BEFORE: 100_000, Fault.GAP: 1_000}
    assert read_rates("") == {}


@pytest.mark.parametrize("text", ["5xx=0.1", "drop=1.5", "drop=-0.1", "drop=nan", "drop", "drop=x"])
def test_rates_refuse_what_cannot_be_meant(text):
    """An unknown fault or a rate outside 0 to 1 is refused by name."""
    with pytest.raises(BadInput):
        read_rates(text)


@pytest.mark.parametrize("fault", REQUEST_FAULTS)
def test_every_request_fault_is_drawn_about_as_often_as_its_rate(fault):
    """A rate of 10 % meets between 7 and 13 % of 2,000 requests."""
    faults = Faults(7, {fault: 100_000})
    met = [faults.for_request(READ, "/markets", 0) for _ in range(2_000)]
    assert set(met) == {fault, None}
    assert 140 <= met.count(fault) <= 260
    assert faults.met[fault] == met.count(fault)


def test_draws_depend_on_seed_class_and_ordinal_alone():
    """Reads between the orders do not change which orders meet a fault; another seed does."""
    rates = {Fault.DROP: 200_000}

    def orders(seed, reads_between):
        faults = Faults(seed, rates)
        met = []
        for n in range(200):
            for _ in range(reads_between):
                faults.for_request(READ, "/markets", n)
            met.append(faults.for_request(CREATE, "/portfolio/events/orders", n * 1_000))
        return met

    assert orders(1, 0) == orders(1, 3)
    assert orders(1, 0) != orders(2, 0)


def test_scripted_faults_meet_the_next_requests_that_match_and_no_more():
    """Two scripted failures of /markets leave other reads, orders and the third read of /markets alone."""
    what = ScriptedFault(fault=Fault.ERROR_BEFORE, classes=(READ,), path="/markets", count=2)
    faults = Faults(0, script=FaultScript([what]))
    assert faults.for_request(READ, "/portfolio/balance", 0) is None
    assert faults.for_request(CREATE, "/markets", 0) is None
    assert faults.for_request(READ, "/markets?limit=2", 0) is Fault.ERROR_BEFORE
    assert faults.for_request(READ, "/markets", 0) is Fault.ERROR_BEFORE
    assert faults.for_request(READ, "/markets", 0) is None


def test_scripted_faults_wait_for_their_market_second():
    """`120:reads_500=5` touches nothing before second 120."""
    faults = Faults(0, script=FaultScript(read_script("120:reads_500=5,240:drop_next_order=1", 1_000)))
    early, late = 1_000 + 119 * NANOS, 1_000 + 120 * NANOS
    assert faults.for_request(READ, "/markets", early) is None
    assert [faults.for_request(READ, "/markets", late) for _ in range(6)] == [Fault.ERROR_BEFORE] * 5 + [None]
    assert faults.for_request(CREATE, "/portfolio/events/orders", late) is None
    assert faults.for_request(CREATE, "/portfolio/events/orders", late + 120 * NANOS) is Fault.DROP


def test_scripted_faults_go_before_random_ones():
    """A scripted hang is what happens even where every request would be answered 500."""
    faults = Faults(0, {Fault.ERROR_BEFORE: 1_000_000})
    faults.script.add(ScriptedFault(fault=Fault.HANG))
    assert faults.for_request(CANCEL, "/x", 0) is Fault.HANG
    assert faults.for_request(CANCEL, "/x", 0) is Fault.ERROR_BEFORE


def test_frames_have_faults_of_their_own():
    """A duplicated fill and a lost frame are asked for apart from requests."""
    faults = Faults(0, script=FaultScript(read_script("0:dup_next_fill=1,0:gap_next_frame=1", 0)))
    assert faults.for_request(READ, "/markets", 0) is None
    assert [faults.for_frame(Fault.DUP, 0) for _ in range(2)] == [True, False]
    assert [faults.for_frame(Fault.GAP, 0) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("word", SCRIPTS)
def test_every_word_of_a_script_can_be_said(word):
    """Each word that --faults-at lists is read, and names one fault."""
    (what,) = read_script(f"3:{word}=2", 0)
    assert (what.count, what.at_ns) == (2, 3 * NANOS)


@pytest.mark.parametrize(
    "text", ["reads_500=5", "x:reads_500=5", "1:nonsense=1", "1:reads_500=0", "1:reads_500"]
)
def test_scripts_refuse_what_cannot_be_read(text):
    """A script without a time, with an unknown word or no count is refused."""
    with pytest.raises(BadInput):
        read_script(text, 0)


def test_control_requests_are_read():
    """The control endpoint takes a fault with its requests, or a word that names both."""
    asked = b'{"fault": "5xx_before", "requests": "reads", "path": "/markets", "count": 5}'
    assert read_control(asked) == ScriptedFault(
        fault=Fault.ERROR_BEFORE, classes=(READ,), path="/markets", count=5
    )
    assert read_control(b'{"fault": "drop_next_order"}').classes == (CREATE,)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"fault": "x"}',
        b'{"fault": "drop", "count": 0}',
        b'{"fault": "drop", "extra": 1}',
        b'{"fault": "drop", "requests": "x"}',
    ],
)
def test_control_requests_refuse_what_cannot_be_meant(body):
    """An unreadable control request changes nothing and says why."""
    with pytest.raises(BadInput):
        read_control(body)
