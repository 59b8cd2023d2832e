"""A market of options invented from a seed: moving underlyings with jumps, a smiling surface, several expiries.

Each minute an underlying moves by its volatility, now and then it jumps; its level of volatility rises when it falls
and returns to its mean. Quotes stand around the surface's price: the bid is rounded down and the ask up, so that
nothing that is bought at asks and sold at bids is free money. Spreads widen away from the money, sizes shrink, and
where a bid would be below a tick there is none. The nearest expiry ends at 16:00 of the first day, while the others
trade on until 16:15. Equal arguments give equal markets.

Limits: weekdays only, no holidays; no interest and no dividends; expiries are listed once, at the beginning.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from math import exp, log, sqrt
from typing import Final, NamedTuple

from holdfast.core.clock import NANOS, iso_utc
from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.options import ExerciseStyle, OptionTerms, Right, SettlementStyle
from holdfast.venues.broker.feed import (
    MINUTE_NS,
    OPTION_FEE,
    OPTION_MULTIPLIER,
    Listing,
    Minute,
    Quote,
    Sensitivities,
    Spot,
    closing_ns,
    day_of,
    opening_ns,
)
from holdfast.venues.broker.surface import DAYS_PER_YEAR, Surface, Valued, value

DEFAULT_START_NS: Final = 1_694_179_800 * NANOS
"""Friday, 8 September 2023, 9:30 in New York."""
LATE_SESSION_NS: Final = 15 * 60 * NANOS
"""Index and fund options trade for so long after the underlying's close."""
_YEAR_NS = DAYS_PER_YEAR * 86_400 * NANOS
_MINUTES_PER_YEAR = 252 * 390
_JUMP_CHANCE = 1 / 240
_JUMP = 0.004
_SATURDAY = 5


class Symbol(NamedTuple):
    """One underlying and its option class.

    Attributes:
        spot: Opening price, dollars.
        step: Between strikes, dollars.
        fine, coarse, coarse_from: The tick below and from that premium on, 1/10,000 dollar.
        size: Typical displayed size at the money, contracts.
    """

    underlying: str
    root: str
    spot: float
    step: int
    style: ExerciseStyle
    settlement: SettlementStyle
    fine: int
    coarse: int
    coarse_from: int
    level: float
    size: int

    @property
    def is_stock(self) -> bool:
        """Whether the underlying itself can be traded and delivered."""
        return self.settlement is SettlementStyle.PHYSICAL


_FUND = (ExerciseStyle.AMERICAN, SettlementStyle.PHYSICAL, 100, 100, 0)
SYMBOLS: Final = {
    "SPY": Symbol("SPY", "SPY", 451.0, 3, *_FUND, 0.14, 400),
    "QQQ": Symbol("QQQ", "QQQ", 378.0, 3, *_FUND, 0.18, 250),
    "IWM": Symbol("IWM", "IWM", 188.0, 1, *_FUND, 0.20, 150),
    "SPX": Symbol(
        "SPX", "SPXW", 4516.0, 25, ExerciseStyle.EUROPEAN, SettlementStyle.CASH, 500, 1000, 30_000, 0.14, 60
    ),
}
"""What can be invented, by underlying."""
_EARLIEST_NS: Final = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * NANOS
_LATEST_NS: Final = int(datetime(2098, 1, 1, tzinfo=UTC).timestamp()) * NANOS
DEFAULT_SYMBOLS: Final = ("SPY", "SPX")
_STRIKES_EACH_SIDE = 8


class SeededChain:
    """An options market from a seed.

    Args:
        seed: Of everything random.
        start_ns: Where the first session begins, or later inside one; outside of one, the next one's opening.
        days: Sessions.
        symbols: Keys of `SYMBOLS`.

    Raises:
        BadInput: An unknown symbol, or fewer than one day.
    """

    def __init__(
        self,
        seed: int,
        *,
        start_ns: int = DEFAULT_START_NS,
        days: int = 1,
        symbols: Sequence[str] = DEFAULT_SYMBOLS,
    ) -> None:
        unknown = [name for name in symbols if name not in SYMBOLS]
        if unknown or not symbols:
            raise BadInput(
                f"no seeded chain for {', '.join(unknown) or 'no symbol'}",
                hint=f"choose from {', '.join(SYMBOLS)}",
            )
        if days < 1:
            raise BadInput(f"{days} days of options are below 1", hint="--days counts sessions")
        if not _EARLIEST_NS <= start_ns < _LATEST_NS:
            raise BadInput(
                f"a seeded chain cannot begin {start_ns // NANOS} s from 1970",
                hint="options are named in the years 2000 to 2098",
            )
        self._seed = seed
        self.recorded: Mapping[int, tuple[str, ...]] = {}
        self._symbols = tuple(SYMBOLS[name] for name in dict.fromkeys(symbols))
        self._days = _sessions(start_ns, days)
        self.start_ns = max(start_ns // MINUTE_NS * MINUTE_NS, opening_ns(self._days[0]))
        self._contracts = {symbol.underlying: self._listed(symbol) for symbol in self._symbols}
        stocks = tuple(Listing(ticker=symbol.underlying) for symbol in self._symbols if symbol.is_stock)
        self.listings = stocks + tuple(
            listing for contracts in self._contracts.values() for _, listing in contracts
        )

    def describe(self) -> str:
        """One line for people."""
        names = ", ".join(symbol.underlying for symbol in self._symbols)
        count = sum(len(contracts) for contracts in self._contracts.values())
        return f"seeded chain {self._seed}: {count} contracts on {names} from {iso_utc(self.start_ns)}, {len(self._days)} day(s)"

    def __iter__(self) -> Iterator[Minute]:
        # Seeded by an explicit number so that a run can be repeated; nothing secret is drawn from it.
        sources = [random.Random(f"{self._seed} {symbol.underlying}") for symbol in self._symbols]  # noqa: S311  invented prices, not keys
        worlds = [_World(symbol, source) for symbol, source in zip(self._symbols, sources, strict=True)]
        for day in self._days:
            ts_ns, last_ns = opening_ns(day), closing_ns(day) + LATE_SESSION_NS
            while ts_ns < last_ns:
                ts_ns += MINUTE_NS
                for world in worlds:
                    world.move()
                if ts_ns > self.start_ns:
                    yield self._minute(worlds, ts_ns)

    def _minute(self, worlds: list[_World], ts_ns: int) -> Minute:
        quotes: list[Quote] = []
        for world in worlds:
            if world.symbol.is_stock:
                quotes.append(world.stock())
            quotes.extend(
                world.option(terms, listing.ticker, (terms.expires_ns - ts_ns) / _YEAR_NS)
                for terms, listing in self._contracts[world.symbol.underlying]
                if terms.expires_ns > ts_ns
            )
        spots = tuple(Spot(world.symbol.underlying, _e4(world.spot), "seeded") for world in worlds)
        return Minute(ts_ns, tuple(quotes), spots)

    def _listed(self, symbol: Symbol) -> list[tuple[OptionTerms, Listing]]:
        middle = round(symbol.spot / symbol.step) * symbol.step
        first = self._days[0]
        listed: list[tuple[OptionTerms, Listing]] = []
        for day in _expiries(first):
            # Strikes lie further apart where there is more time to get there.
            spread = max(1, round(sqrt((day - first).days / 7)))
            for n in range(-_STRIKES_EACH_SIDE, _STRIKES_EACH_SIDE + 1):
                for right in Right:
                    terms = OptionTerms(
                        underlying=symbol.underlying,
                        root=symbol.root,
                        expiry=day.year * 10_000 + day.month * 100 + day.day,
                        right=right,
                        strike=_e4(middle + n * spread * symbol.step),
                        style=symbol.style,
                        settlement=symbol.settlement,
                        expires_ns=closing_ns(day),
                    )
                    listed.append((terms, _listing(terms)))
        return listed


class _World:
    """One underlying on its way."""

    def __init__(self, symbol: Symbol, source: random.Random) -> None:
        self.symbol = symbol
        self.spot = symbol.spot
        self._level = symbol.level
        self._source = source

    def move(self) -> None:
        """One minute passes."""
        draw = self._source
        step = draw.gauss(0.0, self._level / sqrt(_MINUTES_PER_YEAR))
        if draw.random() < _JUMP_CHANCE:
            step += draw.gauss(-0.0005, _JUMP)
        self.spot *= exp(step)
        back = 0.004 * log(self.symbol.level / self._level)
        self._level *= exp(back - 3.0 * step + draw.gauss(0.0, 0.004))
        self._level = min(max(self._level, self.symbol.level / 2), self.symbol.level * 3)

    def stock(self) -> Quote:
        """The underlying's own quote, a cent or two wide around its price."""
        bid = _e4(self.spot) // 100 * 100
        size = QtyE2(100 * 100 * self._source.randint(5, 60))
        return Quote(self.symbol.underlying, PriceE4(bid), size, PriceE4(bid + 100), size)

    def option(self, terms: OptionTerms, ticker: str, years: float) -> Quote:
        """One contract's quote around the surface."""
        strike = terms.strike / 10_000
        volatility = Surface(self._level).volatility(strike, self.spot, years)
        worth = value(self.spot, strike, years, volatility, is_call=terms.right is Right.CALL)
        away = abs(log(strike / self.spot)) / (volatility * sqrt(years))
        symbol, premium = self.symbol, worth.price * 10_000
        tick = symbol.coarse if premium >= symbol.coarse_from else symbol.fine
        draw = self._source.random()
        half = tick * (0.3 + 0.5 * draw + 0.25 * min(away, 8.0)) + premium * 0.004
        bid = int((premium - half) // tick) * tick
        ask = -int(-(premium + half) // tick) * tick
        busy = symbol.size / (1.0 + away * away)
        return Quote(
            ticker,
            PriceE4(max(bid, 0)),
            QtyE2(100 * (1 + int(busy * (0.3 + draw))) if bid > 0 else 0),
            PriceE4(ask),
            QtyE2(100 * (1 + int(busy * (1.3 - draw)))),
            _sensitivities(worth, volatility),
        )


def _sensitivities(worth: Valued, volatility: float) -> Sensitivities:
    return Sensitivities(
        round(worth.delta * 1e6),
        round(worth.gamma * 1e6),
        round(worth.vega * 1e6),
        round(worth.theta * 1e6),
        round(volatility * 1e6),
    )


def _listing(terms: OptionTerms) -> Listing:
    return Listing(ticker=terms.ticker, terms=terms, multiplier=OPTION_MULTIPLIER, fee=OPTION_FEE)


def _e4(dollars: float) -> PriceE4:
    return PriceE4(round(dollars * 10_000))


def _sessions(start_ns: int, days: int) -> list[date]:
    """The weekdays on which the chain trades, the first one not over at *start_ns*."""
    day = day_of(start_ns)
    if start_ns >= closing_ns(day) + LATE_SESSION_NS:
        day += timedelta(days=1)
    found: list[date] = []
    while len(found) < days:
        if day.weekday() < _SATURDAY:
            found.append(day)
        day += timedelta(days=1)
    return found


def _expiries(first: date) -> list[date]:
    """The first day itself, the next weekday, and the Fridays about one and four weeks on."""
    soon = first + timedelta(days=1)
    while soon.weekday() >= _SATURDAY:
        soon += timedelta(days=1)
    friday = first + timedelta(days=(4 - first.weekday()) % 7)
    return sorted({first, soon, friday + timedelta(days=7), friday + timedelta(days=28)})
