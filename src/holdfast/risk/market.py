"""What the gate knows of the market: rules of the instruments, executable prices, and how old these are.

The age of a price is the time since its source was last proven alive and gapless, not since it last changed:
every message of the stream proves all prices of it, until a gap takes the touched ones out. A market
whose result is known is worth that result, whatever its book shows.
"""

from __future__ import annotations

from collections.abc import Collection

from holdfast.core.instruments import Instrument
from holdfast.core.money import ONE_DOLLAR_E4, PriceE4
from holdfast.core.positions import Mark


class Market:
    """Instruments and marks of one venue.

    Attributes:
        instruments: By ticker, as last read from the venue.
        time_ns: The newest market time seen, UTC ns; 0 before any.
    """

    def __init__(self) -> None:
        self.instruments: dict[str, Instrument] = {}
        self.time_ns = 0
        self._marks: dict[str, Mark] = {}
        self._streamed: set[str] = set()
        self._results: dict[str, str] = {}
        self._alive_ns = 0

    def mark(self, ticker: str) -> Mark | None:
        """The prices of *ticker* with the time of their last proof; None when there never were any."""
        result = self._results.get(ticker)
        if result:
            worth = ONE_DOLLAR_E4 if result == "yes" else PriceE4(0)
            return Mark(worth, worth, self._alive_ns)
        mark = self._marks.get(ticker)
        if mark is not None and ticker in self._streamed and mark.as_of_ns < self._alive_ns:
            return Mark(mark.bid, mark.ask, self._alive_ns)
        return mark

    def is_resolved(self, ticker: str) -> bool:
        """Whether the venue has said what it pays."""
        return ticker in self._results

    def saw_book(
        self, ticker: str, bid: PriceE4 | None, ask: PriceE4 | None, alive_ns: int, *, streamed: bool
    ) -> None:
        """A book as of *alive_ns* (monotonic); *streamed* ones stay fresh while the stream lives."""
        self._marks[ticker] = Mark(bid, ask, alive_ns)
        if streamed:
            self._streamed.add(ticker)
        else:
            self._streamed.discard(ticker)

    def saw_stream(self, alive_ns: int) -> None:
        """A message came: everything streamed and without gap was true at *alive_ns* (monotonic)."""
        self._alive_ns = max(self._alive_ns, alive_ns)

    def saw_time(self, ts_ns: int) -> None:
        """The venue's own time of an event, UTC ns; it does not run backwards."""
        self.time_ns = max(self.time_ns, ts_ns)

    def lost(self, tickers: Collection[str]) -> None:
        """Their books may have missed something: no mark until the next snapshot."""
        for ticker in tickers:
            self._streamed.discard(ticker)
            self._marks.pop(ticker, None)

    def saw_result(self, ticker: str, result: str) -> None:
        """The venue said what *ticker* pays on: "yes" or "no"."""
        self._results[ticker] = result
