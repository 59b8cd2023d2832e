"""The seeded market: five markets in three events, invented from one random source, the same every time.

Two games of two markets each that exclude each other (the second moves against the first), and one single market.
Each keeps a two-sided book one cent wide, ten levels deep, that is never crossed, not even within one
instant. A fair value walks cent by cent; levels grow and shrink; takers print. One game ends during the run:
its price runs to the winner, then it is closed, determined and finalized; the others stay open. Everything
is integer arithmetic on bits of the injected `random.Random`, so equal seeds give equal events on any Python.

Spread, depth at the touch and prints per minute stay inside `RECORDED`, the 10 to 90 % range of the recorded
NBA games (six markets, sampled every ten seconds while the middle lies from 0.10 to 0.90, per market and
minute). `tests/support/ranges.py` measures both; a test recomputes the constants where the recordings are.
Limits: no news, no seasonality; the size and the timing of orders do not react to ours.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Final, NamedTuple

from holdfast.core.errors import BadInput
from holdfast.core.money import ONE_DOLLAR_E4, PriceE4, QtyE2, complement
from holdfast.core.signals import BookSide, Side
from holdfast.venues.paper.events import (
    Delta,
    FeedKind,
    FeeType,
    Lifecycle,
    MarketEvent,
    MarketSpec,
    MarketStatus,
    Print,
    Snapshot,
)


class Range(NamedTuple):
    """Both ends belong to it."""

    low: int
    high: int


class RecordedRanges(NamedTuple):
    """10 and 90 % of the recorded games; spread in 1/10,000 dollar, depth in 1/100 contract."""

    spread_e4: Range
    depth_e2: Range
    prints_per_minute: Range


RECORDED: Final = RecordedRanges(
    spread_e4=Range(100, 100),
    depth_e2=Range(645_400, 95_218_400),
    prints_per_minute=Range(1, 52),
)

START_NS: Final = 1_795_190_400_000_000_000
"""Default begin, 2026-11-20 16:00 UTC: market time is invented like the rest."""

DURATION_NS: Final = 20 * 60 * 1_000_000_000
"""Default length: a minute of wall time at twenty times its speed."""

DETERMINED_AFTER_NS: Final = 30_000_000_000
FINALIZED_AFTER_NS: Final = 30_000_000_000

_TICK_NS: Final = 250_000_000
_STAGGER_NS: Final = 1_000_000
_CENT: Final = 100
_LADDER: Final = 10
# Of any level, well inside the recorded range.
_SIZE: Final = Range(1_000_000, 20_000_000)
# The walk turns back at these best bids, so that both markets of a pair stay in the measured middle.
_WALK: Final = Range(1_500, 8_400)
_WON: Final = 9_600
_LOST: Final = 300
# The last stretch of a game, in which the price runs to the winner: at most 69 cents, one in six ticks each.
_RUN_NS: Final = 180_000_000_000
_DAY_NS: Final = 86_400_000_000_000

_BID, _ASK = BookSide.BID, BookSide.ASK


class _Dice:
    """Whole numbers from a random source, by bits alone: the same on every Python."""

    __slots__ = ("_bits",)

    def __init__(self, source: random.Random) -> None:
        self._bits = source.getrandbits

    def below(self, bound: int) -> int:
        """0 up to and excluding *bound*, which is far below 2^32."""
        return self._bits(32) % bound

    def size(self) -> int:
        """A fresh level: whole contracts, in 1/100."""
        return _SIZE.low + self.below((_SIZE.high - _SIZE.low) // 200) * 100

    def trade(self) -> int:
        """Most trades are small, a few are not."""
        return (1 + self.below(40)) * (1 + self.below(4) * self.below(12)) * 100


class _Book:
    """One market's invented book; every change appends the event that tells it."""

    def __init__(self, spec: MarketSpec, bid: int, dice: _Dice) -> None:
        self.spec = spec
        self.bid = bid
        self._dice = dice
        self._trades = 0
        self._sizes: dict[BookSide, dict[int, int]] = {_BID: {}, _ASK: {}}
        for side in (_BID, _ASK):
            for price in self._ladder(side):
                self._sizes[side][price] = dice.size()

    @property
    def ask(self) -> int:
        """Always one cent above the bid."""
        return self.bid + _CENT

    def snapshot(self, ts_ns: int) -> Snapshot:
        """The book as it stands."""
        bids, asks = self._sizes[_BID], self._sizes[_ASK]
        return Snapshot(
            self.spec.ticker,
            ts_ns,
            tuple((PriceE4(p), QtyE2(s)) for p, s in sorted(bids.items())),
            tuple((complement(PriceE4(p)), QtyE2(s)) for p, s in sorted(asks.items(), reverse=True)),
        )

    def shift_level(self, ts_ns: int, out: list[MarketEvent]) -> None:
        """Somebody adds to a level or cancels part of it, more often near the touch."""
        dice = self._dice
        side = _BID if dice.below(2) else _ASK
        ladder = self._ladder(side)
        price = ladder[dice.below(1 + dice.below(len(ladder)))]
        change = (1 + dice.below(2_000)) * 100
        size = self._sizes[side][price]
        if size - change < _SIZE.low or (dice.below(2) and size + change <= _SIZE.high):
            self._change(side, price, change, ts_ns, out)
        else:
            self._change(side, price, -change, ts_ns, out)

    def trade(self, ts_ns: int, out: list[MarketEvent]) -> None:
        """A taker takes part of the touch; makers refill it first where it would get thin."""
        dice = self._dice
        side = _BID if dice.below(2) else _ASK
        price, qty = self._touch(side), dice.trade()
        if self._sizes[side][price] - qty < _SIZE.low:
            self._change(side, price, _SIZE.low, ts_ns, out)
        self._change(side, price, -qty, ts_ns, out)
        self._print(side, price, qty, ts_ns, out)

    def move(self, step: int, ts_ns: int, out: list[MarketEvent]) -> None:
        """The touch moves by one cent, up for *step* = 1: one side gives way, the other follows."""
        gives, follows = (_ASK, _BID) if step > 0 else (_BID, _ASK)
        price = self._touch(gives)
        if not self._dice.below(4):
            qty = min(self._dice.trade(), self._sizes[gives][price] - 100)
            self._change(gives, price, -qty, ts_ns, out)
            self._print(gives, price, qty, ts_ns, out)
        self._change(gives, price, -self._sizes[gives][price], ts_ns, out)
        self.bid += step * _CENT
        for side in (follows, gives):
            ladder, sizes = self._ladder(side), self._sizes[side]
            for due in ladder:
                if due not in sizes:
                    self._change(side, due, self._dice.size(), ts_ns, out)
            for left in [p for p in sizes if p not in ladder]:
                self._change(side, left, -sizes[left], ts_ns, out)

    def _touch(self, side: BookSide) -> int:
        return self.bid if side is _BID else self.ask

    def _ladder(self, side: BookSide) -> range:
        """Prices that are quoted, best first."""
        if side is _BID:
            return range(self.bid, max(0, self.bid - _LADDER * _CENT), -_CENT)
        return range(self.ask, min(ONE_DOLLAR_E4, self.ask + _LADDER * _CENT), _CENT)

    def _change(self, side: BookSide, price: int, delta: int, ts_ns: int, out: list[MarketEvent]) -> None:
        sizes = self._sizes[side]
        size = sizes.get(price, 0) + delta
        if size:
            sizes[price] = size
        else:
            del sizes[price]
        if side is _BID:
            out.append(Delta(self.spec.ticker, ts_ns, Side.YES, PriceE4(price), QtyE2(delta)))
        else:
            out.append(Delta(self.spec.ticker, ts_ns, Side.NO, complement(PriceE4(price)), QtyE2(delta)))

    def _print(self, side: BookSide, price: int, qty: int, ts_ns: int, out: list[MarketEvent]) -> None:
        self._trades += 1
        taker = Side.YES if side is _ASK else Side.NO
        trade_id = f"{self.spec.ticker}-{self._trades}"
        out.append(Print(self.spec.ticker, ts_ns, trade_id, taker, PriceE4(price), QtyE2(qty)))


class _Event:
    """Markets that share one fair value: one alone, or two of which the second mirrors the first."""

    def __init__(self, specs: tuple[MarketSpec, ...], ends_ns: int | None, dice: _Dice) -> None:
        self._dice = dice
        self.ends_ns = ends_ns
        bid = 3_000 + dice.below(40) * _CENT
        self.books = [
            _Book(spec, bid if n == 0 else ONE_DOLLAR_E4 - _CENT - bid, dice) for n, spec in enumerate(specs)
        ]
        self._winner: Side | None = None

    def step(self, ts_ns: int) -> int:
        """Where the fair value goes in this tick: -1, 0 or 1 cent."""
        dice, bid = self._dice, self.books[0].bid
        if self.ends_ns is not None and ts_ns >= self.ends_ns - _RUN_NS:
            return self._final_step(bid)
        if dice.below(40):
            return 0
        step = 1 if dice.below(2) else -1
        if not _WALK.low <= bid + step * _CENT <= _WALK.high:
            step = -step
        return step

    def _final_step(self, bid: int) -> int:
        if self._winner is None:
            self._winner = Side.YES if bid >= ONE_DOLLAR_E4 // 2 - _CENT // 2 else Side.NO
        if self._dice.below(6) or bid >= _WON or bid <= _LOST:
            return 0
        return 1 if self._winner is Side.YES else -1

    def settlement(self) -> list[Lifecycle]:
        """Closed, determined, finalized, of all its markets; asked only once it ended."""
        ends_ns = self.ends_ns or 0
        first = self._winner or Side.NO
        second = Side.NO if first is Side.YES else Side.YES
        stages = (
            (ends_ns, MarketStatus.CLOSED, False),
            (ends_ns + DETERMINED_AFTER_NS, MarketStatus.DETERMINED, True),
            (ends_ns + DETERMINED_AFTER_NS + FINALIZED_AFTER_NS, MarketStatus.FINALIZED, True),
        )
        return [
            Lifecycle(book.spec.ticker, ts_ns, status, (second if n else first) if known else None)
            for ts_ns, status, known in stages
            for n, book in enumerate(self.books)
        ]


class SeededMarket:
    """The invented feed; iterating it twice gives the same events twice.

    Args:
        source: Where chance comes from, such as `random.Random(seed)`; it is copied, never advanced.
        start_ns: Market time of the first event, UTC ns.
        duration_ns: Length, at least ten minutes, so that a game can be played to its end.
    """

    kind = FeedKind.DEPTH

    def __init__(
        self, source: random.Random, *, start_ns: int = START_NS, duration_ns: int = DURATION_NS
    ) -> None:
        if duration_ns < DURATION_NS // 2:
            raise BadInput(
                f"duration {duration_ns} ns < {DURATION_NS // 2} ns", hint="play at least ten minutes"
            )
        self._source = copy.copy(source)
        self.start_ns = start_ns
        self.duration_ns = duration_ns
        self._ends_ns = start_ns + duration_ns * 7 // 10 // _TICK_NS * _TICK_NS
        later_ns = start_ns + _DAY_NS
        self._events = (
            _game("KXPAPERGAME-OAKELM", ("OAK", "Oakdale"), ("ELM", "Elmwood"), self._ends_ns),
            _game("KXPAPERGAME-RIVHIL", ("RIV", "Riverton"), ("HIL", "Hillford"), later_ns),
            _single("KXPAPERRAIN", later_ns),
        )
        self.markets = tuple(spec for specs in self._events for spec in specs)

    def describe(self) -> str:
        """One line for people."""
        minutes = self.duration_ns // 60_000_000_000
        return f"seeded market: {len(self.markets)} markets in {len(self._events)} events, {minutes} minutes of market time"

    def __iter__(self) -> Iterator[MarketEvent]:
        dice = _Dice(copy.copy(self._source))
        events = [
            _Event(specs, self._ends_ns if n == 0 else None, dice) for n, specs in enumerate(self._events)
        ]
        for event in events:
            for book in event.books:
                yield book.snapshot(self.start_ns)
        settlement: list[Lifecycle] | None = None
        for ts_ns in range(self.start_ns + _TICK_NS, self.start_ns + self.duration_ns, _TICK_NS):
            out: list[MarketEvent] = []
            place = 0
            for event in events:
                if event.ends_ns is not None and ts_ns >= event.ends_ns:
                    continue
                step = event.step(ts_ns)
                for n, book in enumerate(event.books):
                    place += 1
                    _tick(book, -step if n else step, ts_ns + place * _STAGGER_NS, dice, out)
            if settlement is None and ts_ns >= self._ends_ns:
                settlement = events[0].settlement()
            while settlement and ts_ns >= settlement[0].ts_ns:
                # Before this tick's other events: its time is not after theirs.
                yield settlement.pop(0)
            yield from out


def _tick(book: _Book, step: int, ts_ns: int, dice: _Dice, out: list[MarketEvent]) -> None:
    """What happens to one market in a quarter of a second."""
    if step:
        book.move(step, ts_ns, out)
    draw = dice.below(60)
    if draw < 24:
        book.shift_level(ts_ns, out)
    elif draw < 28:
        book.trade(ts_ns, out)


def _game(
    event: str, first: tuple[str, str], second: tuple[str, str], close_ns: int
) -> tuple[MarketSpec, MarketSpec]:
    """Two markets of which exactly one pays; sports series charge makers too."""
    title = f"{first[1]} at {second[1]}: who wins?"
    one, two = (
        MarketSpec(
            ticker=f"{event}-{code}",
            event_ticker=event,
            series_ticker=event.split("-", 1)[0],
            title=title,
            yes_title=name,
            close_ns=close_ns,
            fee_type=FeeType.QUADRATIC_WITH_MAKER_FEES,
            mutually_exclusive=True,
        )
        for code, name in (first, second)
    )
    return one, two


def _single(event: str, close_ns: int) -> tuple[MarketSpec]:
    """One market alone in its event."""
    return (
        MarketSpec(
            ticker=f"{event}-T10",
            event_ticker=event,
            series_ticker=event.split("-", 1)[0],
            title="More than 10 mm of rain in Oakdale today?",
            yes_title="above 10 mm",
            close_ns=close_ns,
            maker_fee_ppm=0,
        ),
    )
