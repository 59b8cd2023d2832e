"""What the paper broker tells unasked, as events of the port, without I/O.

Promise: what arrives is passed on in order. Every minute gives each followed contract a book (also an unchanged one:
it is a new quote), its Greeks from the feed or from the model, and combinations composed from their legs. A quote
that is no price becomes a `StreamGap` under its own name, and so does a followed contract that was not quoted for
`STALE_NS` of market time: unknown, not old. A lost connection is a gap of everything, private news included.

Ticks are numbered anew over all connections, so that an answer to a tick of a lost one releases nothing.

Limits: books have one level a side, as the broker shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from holdfast.core.clock import Clock
from holdfast.core.errors import VenueAnswerUnknown
from holdfast.core.greeks import FEED, Greeks
from holdfast.core.money import PriceE4
from holdfast.core.options import OptionTerms, is_combo, parse_combo_ticker
from holdfast.execution.venue import (
    Book,
    BookChanged,
    FillSeen,
    GreeksSeen,
    MarketChanged,
    OrderSeen,
    StreamGap,
    UnderlyingSeen,
    VenueEvent,
    VenueTime,
)
from holdfast.venues.options import wire
from holdfast.venues.options.quotes import STALE_NS, QuoteFault, Sides, combined, read_sides
from holdfast.venues.options.wire import Frame
from holdfast.venues.pricing import Model, Unsolved

_NOBODY: Sides | QuoteFault = QuoteFault.MISSING


class StreamMachine:
    """The events of one connection after another.

    Args:
        clock: Ages; where the broker owns the clock, it lags behind by what the next tick will tell.
        venue_clock: The broker owns the market's clock.
        terms: The terms of an option by ticker, where they are known: for the model.
        model: Makes the model, when the feed brings no Greeks.

    Attributes:
        tickers: Followed, as asked for.
        unsolved: Contracts whose last quote no volatility explains, and why.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        venue_clock: bool,
        terms: Callable[[str], OptionTerms | None],
        model: Callable[[], Model],
    ) -> None:
        self.tickers: dict[str, None] = {}
        self.unsolved: dict[str, Unsolved] = {}
        self._clock = clock
        self._venue_clock = venue_clock
        self._terms = terms
        self._model = model
        self._legs: dict[str, tuple[tuple[str, int], ...]] = {}
        self._singles: dict[str, None] = {}
        self._sides: dict[str, tuple[Sides | QuoteFault, int]] = {}
        self._stale: set[str] = set()
        self._spots: dict[str, PriceE4] = {}
        self._ticks = 0
        self._tick_of: dict[int, tuple[int, int]] = {}

    def follow(self, tickers: Collection[str]) -> list[str]:
        """Add contracts and combinations; the single contracts that the broker must be asked for.

        Raises:
            BadInput: A combination's name cannot be read.
        """
        wanted: dict[str, None] = {}
        for ticker in tickers:
            legs = parse_combo_ticker(ticker) if is_combo(ticker) else ()
            if legs:
                self._legs[ticker] = legs
            self.tickers[ticker] = None
            wanted.update(dict.fromkeys([leg for leg, _ in legs] or [ticker]))
        self._singles.update(wanted)
        return list(wanted)

    @property
    def singles(self) -> list[str]:
        """Every contract that the broker must be asked for."""
        return list(self._singles)

    def down(self, reason: str) -> list[VenueEvent]:
        """The connection is gone."""
        self._sides.clear()
        self._stale.clear()
        self._tick_of.clear()
        tickers = tuple(dict.fromkeys((*self._singles, *self.tickers)))
        return [StreamGap(reason=f"disconnected: {reason}", tickers=tickers, private=True)]

    def up(self) -> list[VenueEvent]:
        """A connection follows everything: what was missed before it is to be read, from now on nothing is."""
        return [StreamGap(reason="connected", private=True)]

    def answer_of(self, n: int, generation: int) -> int | None:
        """The number by which the connection *generation* knows tick *n*; None where it is another one's."""
        found = self._tick_of.pop(n, None)
        return found[1] if found is not None and found[0] == generation else None

    def frame(self, frame: Frame, generation: int) -> list[VenueEvent]:
        """Take one frame.

        Raises:
            VenueAnswerUnknown: It cannot be read.
        """
        match frame.t:
            case "quotes":
                return self._minute(frame)
            case "execution":
                return [FillSeen(wire.read_fill(frame.msg))]
            case "order":
                return [OrderSeen(wire.read_order(frame.msg))]
            case "ended":
                return self._ended(frame)
            case "tick":
                return self._tick(frame, generation)
            case _:
                raise VenueAnswerUnknown(f"frame of unknown kind {frame.t[:20]!r}")

    # --- inside ---------------------------------------------------------------------------------------------

    def _tick(self, frame: Frame, generation: int) -> list[VenueEvent]:
        self._ticks += 1
        self._tick_of[self._ticks] = (generation, frame.n)
        events = self._grown_stale(frame.ts_ns)
        return [*events, VenueTime(n=self._ticks, ts_ns=frame.ts_ns, final=frame.final)]

    def _grown_stale(self, now_ns: int) -> list[VenueEvent]:
        grown = [
            ticker
            for ticker, (_, ts_ns) in self._sides.items()
            if now_ns - ts_ns > STALE_NS and ticker not in self._stale
        ]
        self._stale.update(grown)
        told = [*grown, *self._combos_of(grown)]
        return [StreamGap(reason=QuoteFault.STALE.value, tickers=tuple(told))] if told else []

    def _ended(self, frame: Frame) -> list[VenueEvent]:
        if frame.ticker not in self._singles:
            return []
        self._sides.pop(frame.ticker, None)
        return [
            MarketChanged(ticker=ticker, status=str(frame.status), ts_ns=frame.ts_ns)
            for ticker in (frame.ticker, *self._combos_of([frame.ticker]))
        ]

    def _minute(self, frame: Frame) -> list[VenueEvent]:
        alive_ns = self._clock.monotonic_ns()
        if self._venue_clock:
            # The tick that will tell this moment comes after what happened in it.
            alive_ns += max(0, frame.ts_ns - self._clock.now_ns())
        events: list[VenueEvent] = []
        for symbol, price, _ in frame.u:
            if price > 0:
                self._spots[symbol] = PriceE4(price)
                events.append(UnderlyingSeen(symbol, PriceE4(price), frame.ts_ns))
        seen: list[str] = []
        for ticker, bid, bid_size, ask, ask_size, greeks in wire.read_quotes(frame.q):
            sides = read_sides(bid, bid_size, ask, ask_size)
            self._sides[ticker] = (sides, frame.ts_ns)
            self._stale.discard(ticker)
            seen.append(ticker)
            events.append(_book_event(ticker, sides, alive_ns, frame.ts_ns))
            known = self._greeks(ticker, sides, greeks, frame.ts_ns, alive_ns)
            if known is not None:
                events.append(GreeksSeen(ticker, known, frame.ts_ns))
        events.extend(
            _book_event(ticker, self._combination(ticker), alive_ns, frame.ts_ns)
            for ticker in self._combos_of(seen)
        )
        return events

    def _greeks(
        self, ticker: str, sides: Sides | QuoteFault, told: Sequence[int] | None, ts_ns: int, alive_ns: int
    ) -> Greeks | None:
        if told is not None:
            delta, gamma, vega, theta, volatility = told
            return Greeks(delta, gamma, vega, theta, volatility, FEED, alive_ns)
        terms = self._terms(ticker)
        if terms is None or isinstance(sides, QuoteFault):
            return None
        found = self._model().greeks(
            terms,
            None if sides.bid is None else sides.bid.price,
            None if sides.ask is None else sides.ask.price,
            self._spots.get(terms.underlying),
            now_ns=ts_ns,
            as_of_ns=alive_ns,
        )
        if isinstance(found, Unsolved):
            self.unsolved[ticker] = found
            return None
        self.unsolved.pop(ticker, None)
        return found

    def _combos_of(self, tickers: Collection[str]) -> list[str]:
        """Followed combinations with a leg among *tickers*."""
        if not self._legs:
            return []
        moved = frozenset(tickers)
        return [ticker for ticker, legs in self._legs.items() if any(leg in moved for leg, _ in legs)]

    def _combination(self, ticker: str) -> Sides | QuoteFault:
        return compose([(self._known(leg), ratio) for leg, ratio in self._legs[ticker]])

    def _known(self, ticker: str) -> Sides | QuoteFault:
        if ticker in self._stale:
            return QuoteFault.STALE
        return self._sides.get(ticker, (_NOBODY, 0))[0]


def compose(legs: Sequence[tuple[Sides | QuoteFault, int]]) -> Sides | QuoteFault:
    """A combination's quote; the first leg's fault is its own."""
    known: list[tuple[Sides, int]] = []
    for sides, ratio in legs:
        if isinstance(sides, QuoteFault):
            return sides
        known.append((sides, ratio))
    whole = combined(known)
    return QuoteFault.MISSING if whole == (None, None) else whole


def book_of(ticker: str, sides: Sides, alive_ns: int) -> Book:
    """A believed quote as a book of one level a side."""
    bids = () if sides.bid is None else (sides.bid,)
    asks = () if sides.ask is None else (sides.ask,)
    return Book(ticker=ticker, bids=bids, asks=asks, alive_ns=alive_ns)


def _book_event(ticker: str, sides: Sides | QuoteFault, alive_ns: int, ts_ns: int) -> VenueEvent:
    if isinstance(sides, QuoteFault):
        return StreamGap(reason=sides.value, tickers=(ticker,))
    return BookChanged(book_of(ticker, sides, alive_ns), ts_ns)
