"""Who trades with us: what a quote lets an order have, at which price and how much of it.

| quote | buying | selling |
| --- | --- | --- |
| two sides, bid <= ask | at the ask, up to its size | at the bid, up to its size |
| `one_sided`: nobody bids, or nobody offers | only where an ask stands | only where a bid stands |
| `crossed`: bid above ask | no fill | no fill |
| `no_size`: the side's displayed size is zero, or ours already | no fill | no fill |
| `stale`: older than `STALE_NS` | no fill | no fill |
| `no_quote`: never quoted | no fill | no fill |
| `ended`: the contract has expired | no fill | no fill |

A price of zero is an absent side, never a price. What we took stays taken until the contract's next quote. A
combination is all its legs or nothing: its price is the sum of the executable sides times the ratios, its quantity
what the scarcest leg allows. Pure but for the sizes taken: time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from holdfast.core.clock import NANOS
from holdfast.core.money import ONE_CONTRACT_E2, PriceE4, QtyE2
from holdfast.venues.broker.feed import Quote

STALE_NS: Final = 150 * NANOS
"""Two minutes without a quote and half of the next one."""

Legs = tuple[tuple[str, int], ...]
"""Ticker and signed ratio; a single contract is one leg of ratio 1."""


class NoFill(StrEnum):
    """Why a quote lets nothing trade."""

    NO_QUOTE = "no_quote"
    ENDED = "ended"
    STALE = "stale"
    CROSSED = "crossed"
    ONE_SIDED = "one_sided"
    NO_SIZE = "no_size"


class Shown:
    """One contract's quote and what is left of it.

    Attributes:
        ends_ns: When trading in it ends, UTC ns; 0 for never.
        ts_ns: When the quote was known; 0 before the first.
    """

    __slots__ = ("ask_left", "bid_left", "ends_ns", "quote", "ts_ns")

    def __init__(self, ends_ns: int = 0) -> None:
        self.ends_ns = ends_ns
        self.quote: Quote | None = None
        self.ts_ns = 0
        self.bid_left = QtyE2(0)
        self.ask_left = QtyE2(0)

    def show(self, quote: Quote, ts_ns: int) -> None:
        """The next quote replaces the last one, sizes and all."""
        self.quote, self.ts_ns = quote, ts_ns
        self.bid_left, self.ask_left = quote.bid_size, quote.ask_size

    def fault(self, now_ns: int) -> NoFill | None:
        """What bars both sides."""
        quote = self.quote
        if self.ends_ns and now_ns >= self.ends_ns:
            return NoFill.ENDED
        if quote is None:
            return NoFill.NO_QUOTE
        if now_ns - self.ts_ns > STALE_NS:
            return NoFill.STALE
        if quote.bid > quote.ask > 0:
            return NoFill.CROSSED
        return None

    def executable(self, now_ns: int, *, buys: bool) -> tuple[PriceE4, QtyE2] | NoFill:
        """Price and quantity that an order can have now, or why none."""
        fault = self.fault(now_ns)
        if fault is not None or self.quote is None:
            return fault or NoFill.NO_QUOTE
        price, left = (self.quote.ask, self.ask_left) if buys else (self.quote.bid, self.bid_left)
        if price <= 0:
            return NoFill.ONE_SIDED
        return (price, left) if left > 0 else NoFill.NO_SIZE

    def take(self, qty: QtyE2, *, buys: bool) -> None:
        """*qty* of a side is ours now."""
        if buys:
            self.ask_left = QtyE2(self.ask_left - qty)
        else:
            self.bid_left = QtyE2(self.bid_left - qty)


class Executable(NamedTuple):
    """What an order can have now.

    Attributes:
        price: Of one unit; for a combination the net debit of buying it, whatever the order's side.
        units: 1/100, whole ones.
        legs: Price of each leg, in the order of the legs.
    """

    price: PriceE4
    units: QtyE2
    legs: tuple[PriceE4, ...]


def executable(
    legs: Legs, shown: Mapping[str, Shown], now_ns: int, *, buys: bool
) -> Executable | tuple[str, NoFill]:
    """What buying (or selling) *legs* can have at the quotes of now, or the first leg that bars it and why."""
    net, units, prices = 0, 1 << 62, list[PriceE4]()
    for ticker, ratio in legs:
        found = shown[ticker].executable(now_ns, buys=(ratio > 0) is buys)
        if isinstance(found, NoFill):
            return ticker, found
        price, left = found
        net += ratio * price
        units = min(units, left // abs(ratio))
        prices.append(price)
    whole = units // ONE_CONTRACT_E2 * ONE_CONTRACT_E2
    if not whole:
        return legs[0][0], NoFill.NO_SIZE
    return Executable(PriceE4(net), QtyE2(whole), tuple(prices))


def crosses(limit: PriceE4, price: PriceE4, *, buys: bool) -> bool:
    """Whether *limit* accepts *price*."""
    return price <= limit if buys else price >= limit


def take(legs: Legs, shown: Mapping[str, Shown], units: QtyE2, *, buys: bool) -> None:
    """Take *units* of *legs* off the displayed sizes."""
    for ticker, ratio in legs:
        shown[ticker].take(QtyE2(units * abs(ratio)), buys=(ratio > 0) is buys)


def moves(legs: Legs, units: int, *, buys: bool) -> Sequence[tuple[str, int]]:
    """What *units* of *legs* add to each position, 1/100 contract."""
    sign = 1 if buys else -1
    return [(ticker, sign * ratio * units) for ticker, ratio in legs]
