"""Quotes as they come from outside, and what is wrong with them: named, never turned into a price.

| fault | the quote | what follows |
| --- | --- | --- |
| `quote_nan`, `quote_negative`, `quote_zero` | a price or size that is no number, below zero, or a price of zero | unknown |
| `quote_crossed` | bid above ask | unknown |
| `quote_stale` | older than `STALE_NS` of market time | unknown |
| `quote_missing` | never quoted, or nobody on either side | unknown |
| one-sided | nobody bids, or nobody offers | a book with one side |

A side of size zero is an absent side. Unknown means: no mark, no Greeks, no book.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import isfinite
from typing import Any, Final, NamedTuple

from holdfast.core.clock import NANOS
from holdfast.core.errors import VenueError
from holdfast.core.money import ONE_CONTRACT_E2, PriceE4, QtyE2
from holdfast.execution.venue import Level

STALE_NS: Final = 150 * NANOS


class QuoteFault(StrEnum):
    """What is wrong with a quote."""

    NAN = "quote_nan"
    NEGATIVE = "quote_negative"
    ZERO = "quote_zero"
    CROSSED = "quote_crossed"
    STALE = "quote_stale"
    MISSING = "quote_missing"


class BadQuote(VenueError):
    """The venue's quote is no price; ask again at its next one.

    Attributes:
        fault: What is wrong with it.
    """

    def __init__(self, ticker: str, fault: QuoteFault) -> None:
        super().__init__(f"no book of {ticker!r}: {fault.value}", hint="wait for its next quote")
        self.fault = fault


class Sides(NamedTuple):
    """A quote that can be believed; an absent side is None."""

    bid: Level | None
    ask: Level | None


def read_sides(bid: Any, bid_size: Any, ask: Any, ask_size: Any) -> Sides | QuoteFault:
    """Best bid and ask in 1/10,000 dollar with sizes in 1/100 contract, None where absent."""
    sides: list[Level | None] = []
    for price, size in ((bid, bid_size), (ask, ask_size)):
        if price is None:
            sides.append(None)
            continue
        fault = _fault(price, size)
        if fault is not None:
            return fault
        sides.append(Level(PriceE4(price), QtyE2(size)) if size else None)
    if bid is not None and ask is not None and bid > ask:
        return QuoteFault.CROSSED
    if sides == [None, None]:
        return QuoteFault.MISSING
    return Sides(sides[0], sides[1])


def _fault(price: Any, size: Any) -> QuoteFault | None:
    for number in (price, size):
        if isinstance(number, bool) or not isinstance(number, int | float) or not isfinite(number):
            return QuoteFault.NAN
        if number != int(number):
            return QuoteFault.NAN
        if number < 0:
            return QuoteFault.NEGATIVE
    return QuoteFault.ZERO if price == 0 else None


def combined(legs: Sequence[tuple[Sides, int]]) -> Sides:
    """The quote of a combination: what one unit sells and buys for at the executable side of every leg.

    A side on which some leg has nobody, or too little for one unit, is absent; prices have any sign.
    """
    return Sides(_side(legs, buys=False), _side(legs, buys=True))


def _side(legs: Sequence[tuple[Sides, int]], *, buys: bool) -> Level | None:
    net, units = 0, 1 << 62
    for sides, ratio in legs:
        level = sides.ask if (ratio > 0) is buys else sides.bid
        if level is None:
            return None
        net += ratio * level.price
        units = min(units, level.qty // abs(ratio))
    whole = units // ONE_CONTRACT_E2 * ONE_CONTRACT_E2
    return Level(PriceE4(net), QtyE2(whole)) if whole else None
