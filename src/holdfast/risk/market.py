"""What the gate knows of the market: rules of the instruments, executable prices, and how old these are.

The age of a price is the time since its source was last proven alive and gapless, not since it last changed:
every message of the stream proves all prices of it, until a gap takes the touched ones out. A market
whose result is known is worth that result, whatever its book shows.

Beside prices stand the Greeks of contracts and the prices of underlyings; each carries its own time and ages alone.

What positions are worth is folded into one `Holdings`, which stays true until one of its prices changes:
`changes` counts these. A message that merely proves the prices again changes nothing but `alive_ns`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

import msgspec

from holdfast.core.greeks import Greeks
from holdfast.core.instruments import Instrument, InstrumentKind
from holdfast.core.money import ONE_DOLLAR_E4, MoneyE6, PriceE4, QtyE2
from holdfast.core.options import is_option
from holdfast.core.positions import Mark

_BINARY: Final = InstrumentKind.BINARY
_NO_TIME = 2**63  # after every time that a clock reads


class Held(msgspec.Struct, frozen=True, gc=False):
    """One position and its price.

    Attributes:
        ticker: The market.
        qty: Signed YES quantity.
        mark: The prices, and when they were proven; None when there are none at all.
        is_streamed: Whether every message of the stream proves them again.
        multiplier: Units of the underlying per contract; 0 of an event contract, whose loss is bounded.
    """

    ticker: str
    qty: QtyE2
    mark: Mark | None
    is_streamed: bool = False
    multiplier: int = 0

    @property
    def contract_worth(self) -> int | None:
        """What closing this option or stock pays, 1e-6 dollar; None when its executable side is not known."""
        price = None if self.mark is None else self.mark.closing_price(self.qty)
        return None if price is None else self.qty * price * self.multiplier


class Holdings(msgspec.Struct, frozen=True, gc=False):
    """Positions with their prices, and what these come to.

    Attributes:
        held: Every position.
        worth: Of closing all of them at the executable side; None when one has no price.
        oldest_ns: The oldest proof among prices that no stream proves again, clock monotonic.
        oldest_streamed_ns: The oldest among the others, the stream's newest message left out.
    """

    held: tuple[Held, ...]
    worth: MoneyE6 | None
    oldest_ns: int
    oldest_streamed_ns: int

    @classmethod
    def of(cls, held: tuple[Held, ...]) -> Holdings:
        """The fold over *held*."""
        worth, is_priced = 0, True
        oldest_ns = oldest_streamed_ns = _NO_TIME
        for one in held:
            mark, qty = one.mark, one.qty
            if mark is None:
                is_priced = False
                continue
            if not one.multiplier:
                worth += qty * mark.liquidation_price(qty)
            elif (paid := one.contract_worth) is None:
                is_priced = False
                continue
            else:
                worth += paid
            if one.is_streamed:
                oldest_streamed_ns = min(oldest_streamed_ns, mark.as_of_ns)
            else:
                oldest_ns = min(oldest_ns, mark.as_of_ns)
        return cls(held, MoneyE6(worth) if is_priced else None, oldest_ns, oldest_streamed_ns)

    def are_fresh(self, now_ns: int, alive_ns: int, max_age_ns: int) -> bool:
        """Whether no price is older than *max_age_ns* at *now_ns*, the stream's newest message being *alive_ns*."""
        since_ns = now_ns - max_age_ns
        return self.oldest_ns >= since_ns and (alive_ns >= since_ns or self.oldest_streamed_ns >= since_ns)

    def ages(self, now_ns: int, alive_ns: int) -> Iterator[tuple[Held, int | None]]:
        """Each position with the age of its price, ns and at least 0; None when there is no price."""
        for one in self.held:
            if one.mark is None or (one.multiplier and one.contract_worth is None):
                yield one, None
            else:
                proven_ns = one.mark.as_of_ns
                yield one, max(0, now_ns - (max(proven_ns, alive_ns) if one.is_streamed else proven_ns))


class Market:
    """Instruments and marks of one venue.

    Attributes:
        instruments: By ticker, as last read from the venue.
        time_ns: The newest market time seen, UTC ns; 0 before any.
        alive_ns: When the stream was last proven alive, clock monotonic; 0 before any message.
        changes: How often a price changed of a market whose position was ever valued by `holdings`.
        lists_contracts: Whether options or stocks are traded here: then nothing unread is taken for an event contract.
    """

    def __init__(self) -> None:
        self.instruments: dict[str, Instrument] = {}
        self.time_ns = 0
        self.alive_ns = 0
        self.changes = 0
        self.lists_contracts = False
        self._marks: dict[str, Mark] = {}
        self._streamed: set[str] = set()
        self._results: dict[str, str] = {}
        self._valued: set[str] = set()
        self._combinations: dict[str, set[str]] = {}
        self._greeks: dict[str, Greeks] = {}
        self._underlyings: dict[str, tuple[PriceE4, int]] = {}

    def greeks(self, ticker: str) -> Greeks | None:
        """The newest Greeks of *ticker*; None when there never were any."""
        return self._greeks.get(ticker)

    def underlying(self, symbol: str) -> tuple[PriceE4, int] | None:
        """The newest price of an underlying and when it was true, clock monotonic; None before any."""
        return self._underlyings.get(symbol)

    def mark(self, ticker: str) -> Mark | None:
        """The prices of *ticker* with the time of their last proof; None when there never were any."""
        result = self._results.get(ticker)
        if result:
            worth = ONE_DOLLAR_E4 if result == "yes" else PriceE4(0)
            return Mark(worth, worth, self.alive_ns)
        mark = self._marks.get(ticker)
        if mark is not None and ticker in self._streamed and mark.as_of_ns < self.alive_ns:
            return Mark(mark.bid, mark.ask, self.alive_ns)
        return mark

    def holdings(self, positions: Mapping[str, QtyE2]) -> Holdings:
        """*positions* at the prices of now; true as long as they and `changes`, read before, stay the same."""
        self._valued.update(positions)
        return Holdings.of(tuple([self._held(ticker, qty) for ticker, qty in positions.items()]))

    def _held(self, ticker: str, qty: QtyE2) -> Held:
        rules = self.instruments.get(ticker)
        is_streamed = ticker in self._streamed or ticker in self._results
        if rules is None and (self.lists_contracts or is_option(ticker)):
            # Its multiplier is not known, so neither is its worth.
            return Held(ticker, qty, None, is_streamed)
        multiplier = 0 if rules is None or rules.kind is _BINARY else rules.multiplier
        return Held(ticker, qty, self.mark(ticker), is_streamed, multiplier)

    def saw_rules(self, instrument: Instrument) -> None:
        """The rules of one instrument, and of every leg of a combination, as they stand now.

        A combination that was read with other rules of a leg is forgotten: it is read again when it is needed.
        """
        for leg in instrument.legs:
            self.saw_rules(leg.instrument)
            self._combinations.setdefault(leg.instrument.ticker, set()).add(instrument.ticker)
        ticker = instrument.ticker
        if instrument != self.instruments.get(ticker):
            for combination in self._combinations.get(ticker, ()):
                self.instruments.pop(combination, None)
        self.instruments[ticker] = instrument
        if instrument.kind is not _BINARY:
            self.changes += not self.lists_contracts
            self.lists_contracts = True
            self._changed(ticker)

    def lacks_rules(self, tickers: Collection[str]) -> bool:
        """Whether the worth of something among *tickers* cannot be known, its rules being unread."""
        return any(
            ticker not in self.instruments and (self.lists_contracts or is_option(ticker))
            for ticker in tickers
        )

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
        self._changed(ticker)

    def saw_greeks(self, ticker: str, greeks: Greeks) -> None:
        """Greeks of one contract; older ones than known change nothing."""
        known = self._greeks.get(ticker)
        if known is None or greeks.as_of_ns >= known.as_of_ns:
            self._greeks[ticker] = greeks

    def saw_underlying(self, symbol: str, price: PriceE4, as_of_ns: int) -> None:
        """An underlying's price as of *as_of_ns* (monotonic); an older one than known changes nothing."""
        known = self._underlyings.get(symbol)
        if known is None or as_of_ns >= known[1]:
            self._underlyings[symbol] = (price, as_of_ns)

    def saw_stream(self, alive_ns: int) -> None:
        """A message came: everything streamed and without gap was true at *alive_ns* (monotonic)."""
        self.alive_ns = max(self.alive_ns, alive_ns)

    def saw_time(self, ts_ns: int) -> None:
        """The venue's own time of an event, UTC ns; it does not run backwards."""
        self.time_ns = max(self.time_ns, ts_ns)

    def lost(self, tickers: Collection[str]) -> None:
        """Their books may have missed something: no mark until the next snapshot."""
        for ticker in tickers:
            self._streamed.discard(ticker)
            self._marks.pop(ticker, None)
            self._changed(ticker)

    def saw_result(self, ticker: str, result: str) -> None:
        """The venue said what *ticker* pays on: "yes" or "no"."""
        self._results[ticker] = result
        self._changed(ticker)

    def _changed(self, ticker: str) -> None:
        """Called after the change, so that holdings made in between are made anew."""
        if ticker in self._valued:
            self.changes += 1
