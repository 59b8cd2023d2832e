"""The table of Interactive Brokers' codes."""

from __future__ import annotations

import pytest

from holdfast.breaker.machine import Verdict
from holdfast.venues.ib import errors
from holdfast.venues.ib.errors import CODES, RULES, Heard, Kind, OrderSays, classify


def test_every_kind_has_a_rule_and_stands_in_the_page():
    """Each kind has its consequence in code and its row at the head of the file."""
    assert set(RULES) == set(Kind)
    rows = [line for line in errors.__doc__.splitlines() if line.startswith("| ")][2:]
    told = {word.strip() for row in rows for word in row.split("|")[1].split(",")}
    assert told == {kind.value for kind in Kind}


def test_no_code_has_two_kinds():
    """The table of codes is a function."""
    assert sum(len(tuple(codes)) for codes in errors._BY_KIND.values()) == len(CODES)


@pytest.mark.contract("B15")
@pytest.mark.parametrize(
    ("code", "text", "order", "verdict"),
    [
        (1100, "", OrderSays.ASK, Verdict.FAILURE),
        (1102, "", OrderSays.ASK, Verdict.IGNORED),
        (201, "Order rejected", OrderSays.REFUSED, Verdict.IGNORED),
        (202, "", OrderSays.ENDED, Verdict.IGNORED),
        (435, "You must specify an account.", OrderSays.REFUSED, Verdict.IGNORED),
        (10349, "Order TIF was set to DAY based on order preset.", OrderSays.LIVES, Verdict.IGNORED),
        (161, "Cancel attempted when order is not in a cancellable state.", OrderSays.ASK, Verdict.IGNORED),
        (399, "", OrderSays.LIVES, Verdict.IGNORED),
        (321, "Error validating request", OrderSays.ASK, Verdict.IGNORED),
        (321, "The API interface is currently in Read-Only mode.", OrderSays.REFUSED, Verdict.LATCH),
        (2199, "", OrderSays.LIVES, Verdict.IGNORED),
        (31337, "never heard of it", OrderSays.ASK, Verdict.IGNORED),
    ],
)
def test_codes_say_what_becomes_of_the_order(code, text, order, verdict):
    """A code is a no, an end, a warning, or a question; what nobody taught us is a question."""
    rule = Heard(7, code, text).rule
    assert (rule.order, rule.verdict) == (order, verdict)


def test_an_unknown_code_is_never_a_no():
    """Of all numbers, those not in the table are warnings in the 2100s and questions elsewhere."""
    for code in range(30_000):
        if code not in CODES:
            expected = Kind.WARNING if 2100 <= code < 2200 else Kind.UNKNOWN
            assert classify(code) is expected
