"""What is fixed about a market."""

from __future__ import annotations

import pytest

from holdfast.core.instruments import PriceRange
from holdfast.core.money import PriceE4, QtyE2
from holdfast.venues.paper.events import MarketSpec

TAPERED = (
    PriceRange(PriceE4(0), PriceE4(1_000), PriceE4(10)),
    PriceRange(PriceE4(1_000), PriceE4(9_000), PriceE4(100)),
    PriceRange(PriceE4(9_000), PriceE4(10_000), PriceE4(10)),
)


def spec(**fields) -> MarketSpec:
    return MarketSpec(ticker="M", event_ticker="E", series_ticker="S", title="t", close_ns=1, **fields)


@pytest.mark.parametrize(
    ("price", "cents", "tapered"),
    [(0, False, False), (10, False, True), (100, True, True), (5_010, False, False), (5_100, True, True),
     (9_910, False, True), (10_000, False, False), (-100, False, False)],
)  # fmt: skip
def test_prices_lie_strictly_inside_one_dollar_and_on_the_grid(price, cents, tapered):
    """A price is valid exactly on the steps of its stretch, never at 0 or 1 dollar."""
    assert spec().is_price(PriceE4(price)) is cents
    assert spec(price_ranges=TAPERED).is_price(PriceE4(price)) is tapered


@pytest.mark.parametrize(
    ("qty", "whole", "fractional"),
    [(0, False, False), (1, False, True), (100, True, True), (-100, False, False)],
)
def test_counts_are_positive_multiples_of_the_step(qty, whole, fractional):
    """A count is valid when it is positive and a whole number of the market's steps."""
    assert spec().is_count(QtyE2(qty)) is whole
    assert spec(qty_step=QtyE2(1)).is_count(QtyE2(qty)) is fractional
