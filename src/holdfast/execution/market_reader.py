"""What must be known of markets and is not: rules of what is traded, prices of what is held, read and kept fresh.

    instrument(ticker)    one market's rules, read once
    learn_rules()         those of everything held or worked in
    refresh_marks()       prices of what is held that are missing or grow old

Whatever cannot be read now stays unknown, and unknown refuses; it is read again at growing intervals.

Limits: what the venue says is believed. A price is asked for past half the age at which it stops counting, so a venue
that cannot be read for longer makes it unknown.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.core.clock import Clock
from holdfast.core.errors import VenueRejected
from holdfast.core.instruments import Instrument
from holdfast.core.options import is_combo, parse_combo_ticker
from holdfast.core.positions import Mark
from holdfast.execution.tries import Tries, quietly
from holdfast.execution.venue import Book, Venue
from holdfast.risk.gate import Gate


class MarketReader:
    """Reads what the gate's `Market` lacks; see the head of this file.

    Args:
        venue: Who is asked.
        gate: Whose market is told, and whose account says what is held.
        clock: Ages.
        tries: When what could not be read is asked again.
        kept: An expired contract, which no venue lists any more, as it was when it was held; None where unknown.
    """

    def __init__(
        self,
        venue: Venue,
        gate: Gate,
        *,
        clock: Clock,
        tries: Tries,
        kept: Callable[[str], Instrument | None],
    ) -> None:
        self._venue = venue
        self._gate = gate
        self._account = gate.account
        self._market = gate.market
        self._clock = clock
        self._tries = tries
        self._kept = kept

    # Rules --------------------------------------------------------------------------------------------

    async def instrument(self, ticker: str, *, refresh: bool = False, regardless: bool = False) -> Instrument:
        """One market's rules, read once; regardless of the breaker where something of it is held: an exit needs them.

        Raises:
            VenueRejected: No such market.
            VenueError: They could not be read.
            CircuitBreakerOpenError: The venue is failing.
        """
        known = self._market.instruments.get(ticker)
        if known is None or refresh:
            try:
                regardless = regardless or self._is_held(ticker)
                known = await self._venue.instrument(ticker, regardless=regardless)
            except VenueRejected as rejected:
                # Expired contracts are listed nowhere, and are held until their end is told.
                kept = self._kept(ticker)
                if kept is None or rejected.status != 404:
                    raise
                known = kept
            self._market.saw_rules(known)
        return known

    def _is_held(self, ticker: str) -> bool:
        """Whether the account is in this market, or in every leg of this combination: an order of it may be an exit."""
        legs = [leg for leg, _ in parse_combo_ticker(ticker)] if is_combo(ticker) else [ticker]
        return all(leg in self._account.portfolio.positions for leg in legs)

    async def rules_regardless(self, ticker: str) -> Instrument | None:
        """One market's rules, read though the breaker is open; None where they cannot be read now."""
        return await quietly(self.instrument(ticker, regardless=True))

    async def learn_rules(self) -> None:
        """Read the rules of every market held or worked in that are not known; what cannot be read is tried later.

        Whether an order reduces depends on the other markets of its event. The breaker is not asked: an exit must
        be possible while it is open.
        """
        working = (ticker for order in self._account.open_orders() for ticker, _ in order.working)
        for ticker in dict.fromkeys((*self._account.portfolio.positions, *working)):
            if ticker not in self._market.instruments and self._tries.is_due(f"rules {ticker}"):
                await quietly(self.instrument(ticker, regardless=True))

    # Prices -------------------------------------------------------------------------------------------

    def saw_book(self, book: Book, *, streamed: bool) -> None:
        """A book, from the stream or read."""
        self._market.saw_book(book.ticker, book.best_bid, book.best_ask, book.alive_ns, streamed=streamed)

    def lacks_marks(self) -> bool:
        """Whether the price of anything held is missing or too old."""
        oldest_ns = self._clock.monotonic_ns() - self._gate.limits.max_mark_age_ns
        marks = (self._market.mark(ticker) for ticker in self._account.portfolio.positions)
        return any(mark is None or mark.as_of_ns < oldest_ns for mark in marks)

    async def refresh_marks(self) -> None:
        """Read the books of held markets whose price is missing or grows old."""
        for ticker in list(self._account.portfolio.positions):
            mark = self._market.mark(ticker)
            if self._grows_old(mark) and self._tries.is_due(f"mark {ticker}"):
                await quietly(self.read_mark(ticker))
            elif mark is not None:
                self._tries.forget(f"mark {ticker}")

    async def read_mark(self, ticker: str) -> Mark | None:
        """The price of one market, read where it is missing or grows old; None where nobody quotes it."""
        if self._grows_old(self._market.mark(ticker)):
            instrument = await self.instrument(ticker)
            if instrument.result in {"yes", "no"}:
                self._market.saw_result(ticker, instrument.result)
            else:
                self.saw_book(await self._venue.book(ticker), streamed=False)
        return self._market.mark(ticker)

    def _grows_old(self, mark: Mark | None) -> bool:
        """Whether a price is missing or past half the age at which it stops counting."""
        half_ns = self._gate.limits.max_mark_age_ns // 2
        return mark is None or self._clock.monotonic_ns() - mark.as_of_ns > half_ns
