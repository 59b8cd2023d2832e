"""What the desk sees of the market: the newest quote of each contract, and prices that enough quotes agree on.

A price that drives a stop is *confirmed*: it moves only as far as the last n distinct quotes of that contract all
agree (n is 2 by default), so that one bad tick moves nothing, in neither direction. Distinct are quotes of different
times; a quote that says the same again a minute later is evidence, the same message told twice is none.

The price of a leg is the one at which it can be left: the bid of a long one, the ask of a short one. Nobody bidding
for a long leg is a price, zero; nobody offering a short one is unknown, and stays so until n quotes agree again.
Crossed quotes and prices that are not above zero are no evidence at all.

Limits: how old a quote may be is the reader's question; the board keeps what it was told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from holdfast.core.money import PriceE4
from holdfast.core.positions import Mark
from holdfast.core.signals import Signal
from holdfast.execution.strategy import Strategy
from holdfast.execution.venue import Book

CONFIRMATIONS = 2
_WORTHLESS = PriceE4(0)


class Quote(NamedTuple):
    """The newest two-sided quote of one contract; None is an empty side.

    Attributes:
        bid, ask: Best prices.
        alive_ns: When it was true, clock monotonic.
    """

    bid: PriceE4 | None
    ask: PriceE4 | None
    alive_ns: int


def proven_ns(quote: Quote, mark: Mark | None) -> int:
    """When *quote* was last known to be true, clock monotonic.

    A source that tells changes alone proves with every message that the rest of what it shows still stands: *mark*,
    the market's, is as old as that proof. One that says something else proves nothing.
    """
    still_stands = mark is not None and (mark.bid, mark.ask) == (quote.bid, quote.ask)
    return max(quote.alive_ns, mark.as_of_ns) if mark is not None and still_stands else quote.alive_ns


class Confirmed:
    """One executable price, as far as the last quotes agree on it.

    Args:
        confirmations: How many distinct quotes must agree; 1 believes each.
        seed: What is believed before, for instance what was paid; None takes the middle of the first ones.
    """

    def __init__(self, confirmations: int = CONFIRMATIONS, seed: PriceE4 | None = None) -> None:
        self._seen: deque[PriceE4] = deque(maxlen=confirmations)
        self._believed = seed

    def saw(self, price: PriceE4 | None) -> None:
        """A distinct quote said *price*; None is unknown, and everything seen before it counts no more."""
        if price is None:
            self._seen.clear()
            return
        self._seen.append(price)
        if len(self._seen) < (self._seen.maxlen or 1):
            return
        low, high = min(self._seen), max(self._seen)
        if self._believed is None:
            self._believed = sorted(self._seen)[len(self._seen) // 2]
        elif low > self._believed:
            self._believed = low
        elif high < self._believed:
            self._believed = high

    @property
    def price(self) -> PriceE4 | None:
        """What is agreed on; None while too few quotes were seen."""
        return self._believed if len(self._seen) == self._seen.maxlen else None


class QuoteBoard(Strategy):
    """Listens to every book as a strategy that never wishes anything.

    Args:
        confirmations: Of followed legs.

    Attributes:
        quotes: By ticker.
        crossed: How many quotes could not be true.
    """

    name = "options-board"

    def __init__(self, *, confirmations: int = CONFIRMATIONS) -> None:
        self.quotes: dict[str, Quote] = {}
        self.crossed = 0
        self._confirmations = confirmations
        self._followed: dict[tuple[str, bool], Confirmed] = {}

    def on_book(self, book: Book) -> Iterable[Signal]:
        """Take over one quote."""
        self.saw(book.ticker, book.best_bid, book.best_ask, book.alive_ns)
        return ()

    def saw(self, ticker: str, bid: PriceE4 | None, ask: PriceE4 | None, alive_ns: int) -> None:
        """A quote of *ticker* that was true at *alive_ns* (monotonic)."""
        is_crossed = bid is not None and ask is not None and bid > ask
        if is_crossed or (bid is not None and bid < 0) or (ask is not None and ask <= 0):
            self.crossed += 1
            return
        known = self.quotes.get(ticker)
        self.quotes[ticker] = Quote(bid, ask, alive_ns)
        if known is not None and known.alive_ns >= alive_ns:
            return
        for is_long in (True, False):
            followed = self._followed.get((ticker, is_long))
            if followed is not None:
                followed.saw((bid or _WORTHLESS) if is_long else ask)

    def follow(self, ticker: str, *, is_long: bool, seed: PriceE4 | None = None) -> None:
        """Confirm the price at which a leg can be left from now on; one that is followed goes on."""
        key = (ticker, is_long)
        if key not in self._followed:
            self._followed[key] = Confirmed(self._confirmations, seed)

    def forget(self, ticker: str, *, is_long: bool) -> None:
        """The leg is held no more."""
        self._followed.pop((ticker, is_long), None)

    def confirmed(self, ticker: str, *, is_long: bool) -> PriceE4 | None:
        """The confirmed price at which a followed leg can be left; None while it is unknown."""
        followed = self._followed.get((ticker, is_long))
        return None if followed is None else followed.price
