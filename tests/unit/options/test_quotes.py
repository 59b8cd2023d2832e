"""What is wrong with a quote is named; nothing wrong becomes a price."""

from __future__ import annotations

import pytest

from holdfast.core.money import PriceE4, QtyE2
from holdfast.execution.venue import Level
from holdfast.venues.options.quotes import QuoteFault, Sides, combined, read_sides


def level(price, qty):
    return Level(PriceE4(price), QtyE2(qty))


@pytest.mark.invariant("I4")
@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ((float("nan"), 100, 200, 100), QuoteFault.NAN),
        ((100, 100, float("inf"), 100), QuoteFault.NAN),
        ((100, float("nan"), 200, 100), QuoteFault.NAN),
        (("100", 100, 200, 100), QuoteFault.NAN),
        ((True, 100, 200, 100), QuoteFault.NAN),
        ((100.5, 100, 200, 100), QuoteFault.NAN),
        ((100, None, 200, 100), QuoteFault.NAN),
        ((-100, 100, 200, 100), QuoteFault.NEGATIVE),
        ((100, -100, 200, 100), QuoteFault.NEGATIVE),
        ((0, 100, 200, 100), QuoteFault.ZERO),
        ((100, 100, 0, 100), QuoteFault.ZERO),
        ((201, 100, 200, 100), QuoteFault.CROSSED),
        ((201, 0, 200, 100), QuoteFault.CROSSED),
        ((None, None, None, None), QuoteFault.MISSING),
        ((100, 0, None, None), QuoteFault.MISSING),
    ],
)
def test_a_quote_that_is_no_price_is_named(row, fault):
    """Not a number, negative, zero, crossed, nobody there."""
    assert read_sides(*row) is fault


@pytest.mark.parametrize(
    ("row", "sides"),
    [
        ((100, 300, 200, 400), Sides(level(100, 300), level(200, 400))),
        ((200, 300, 200, 400), Sides(level(200, 300), level(200, 400))),
        ((None, None, 200, 400), Sides(None, level(200, 400))),
        ((100, 300, None, None), Sides(level(100, 300), None)),
        ((100, 0, 200, 400), Sides(None, level(200, 400))),
    ],
)
def test_a_quote_that_can_be_is_believed_side_by_side(row, sides):
    """An absent side, or one of no size, is absent; a locked market is one."""
    assert read_sides(*row) == sides


def test_a_combination_is_quoted_at_the_executable_side_of_every_leg():
    """Buying pays asks and receives bids, in whole units of the scarcest leg; prices have any sign."""
    legs = [
        (Sides(level(31_000, 900), level(32_000, 800)), 1),
        (Sides(level(20_000, 700), level(21_000, 500)), -2),
    ]
    assert combined(legs) == Sides(level(31_000 - 42_000, 200), level(32_000 - 40_000, 300))


def test_a_combination_lacks_a_side_when_one_leg_does():
    """A leg without bid cannot be sold, so the combination that sells it cannot be bought."""
    legs = [(Sides(level(100, 100), level(200, 100)), 1), (Sides(None, level(50, 100)), -1)]
    assert combined(legs) == Sides(level(50, 100), None)
    scarce = [(Sides(level(100, 100), level(200, 100)), 1), (Sides(level(40, 100), level(50, 100)), -2)]
    assert combined(scarce) == Sides(None, None)
