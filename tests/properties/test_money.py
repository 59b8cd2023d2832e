"""Integer money against Decimal."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import BadInput
from holdfast.core.money import (
    complement,
    format_money,
    format_price,
    format_qty,
    notional,
    parse_money,
    parse_price,
    parse_qty,
)

PAIRS = [(parse_price, format_price, 4), (parse_qty, format_qty, 2), (parse_money, format_money, 6)]


@pytest.mark.invariant("I11")
@given(value=st.integers(-(10**15), 10**15), pair=st.sampled_from(PAIRS))
def test_what_is_written_is_read_back(value, pair):
    """Text and integer say the same number, and it is the Decimal of that text."""
    parse, write, places = pair
    assert parse(write(value)) == value
    assert Decimal(write(value)) == Decimal(value).scaleb(-places)


@pytest.mark.invariant("I11")
@given(text=st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=8))
def test_excess_digits_are_refused_and_never_rounded(text):
    """A number is read exactly or refused, whatever its digits."""
    for parse, _, places in PAIRS:
        exact = text == round(text, places)
        if exact:
            assert Decimal(parse(text)).scaleb(-places) == text
        else:
            with pytest.raises(BadInput):
                parse(text)


@pytest.mark.invariant("I11")
@pytest.mark.parametrize(
    "value", [0.5, float("nan"), True, None, "", "1e3", "+1", "0x1", " 1", "٣", "nan", "inf", "1,0"]
)
def test_floats_and_other_notations_are_refused(value):
    """A float, a boolean, an exponent, a sign, a blank and foreign digits are named and refused."""
    for parse, _, _ in PAIRS:
        with pytest.raises(BadInput):
            parse(value)


@given(price=st.integers(0, 10_000), qty=st.integers(0, 10**9))
def test_notional_is_exact_and_complements_add_up_to_a_dollar(price, qty):
    """Both sides of a contract together cost a dollar, to the micro-dollar."""
    assert notional(price, qty) + notional(complement(price), qty) == qty * 10_000
    assert Decimal(format_money(notional(price, qty))) == Decimal(format_price(price)) * Decimal(
        format_qty(qty)
    )
