"""What an exit orders: which legs go together, at which price they can be left now, and how far a rung may go.

A long leg that nobody bids for is worth nothing and obliges to nothing: it is left to expire. Everything else goes as
one combination, or one leg after the other, the short ones first. The touch is what leaving brings at once: bids of
longs less asks of shorts; of a single short leg, its ask. Where a side is missing or too old, nothing is priced.

Limits: quotes of exits may be older than those that drive a stop: getting out must not wait for the best of data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from holdfast.core.clock import NANOS, Clock
from holdfast.core.instruments import Instrument, InstrumentKind
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.signals import Action
from holdfast.execution.executions import units_of
from holdfast.execution.exits import Rung, exit_limit
from holdfast.execution.legging import next_leg_out
from holdfast.execution.quotes import Quote, QuoteBoard, proven_ns
from holdfast.execution.structures import closing_ticker
from holdfast.risk.exposure import Part, floor
from holdfast.risk.market import Market

EXIT_QUOTE_AGE_SECS = 600
_CONTRACT = 100
_LEAST_TICKS = 10


class ExitOrder(NamedTuple):
    """One exit, ready to be sent."""

    ticker: str
    action: Action
    qty: QtyE2
    limit: PriceE4


class ExitQuotes:
    """The board's quotes as far as an exit may believe them; *market* proves what still stands."""

    def __init__(self, board: QuoteBoard, market: Market, clock: Clock) -> None:
        self._board = board
        self._market = market
        self._clock = clock

    def fresh(self, ticker: str) -> Quote | None:
        """The newest quote; None where there is none, or an old one."""
        quote = self._board.quotes.get(ticker)
        if quote is None:
            return None
        age_ns = self._clock.monotonic_ns() - proven_ns(quote, self._market.mark(ticker))
        return None if age_ns > EXIT_QUOTE_AGE_SECS * NANOS else quote

    def leavable(self, held: Mapping[str, int]) -> dict[str, int]:
        """*held* (signed quantities) without long legs that nobody bids for."""
        legs: dict[str, int] = {}
        for ticker, qty in held.items():
            quote = self.fresh(ticker)
            if qty < 0 or quote is None or quote.bid:
                legs[ticker] = qty
        return legs


class Piece(NamedTuple):
    """What leaves by one order.

    Attributes:
        ticker: A combination as it is held, or one leg.
        action: SELL; a single short leg is bought back.
        units: How many, 1/100.
        legs: Signed quantities, 1/100.
    """

    ticker: str
    action: Action
    units: int
    legs: dict[str, int]

    def touch(self, quotes: ExitQuotes) -> PriceE4 | None:
        """At what a unit can be left at once; None while a side is unknown."""
        total = 0
        for ticker, qty in self.legs.items():
            quote = quotes.fresh(ticker)
            side = None if quote is None else (quote.bid if qty > 0 else quote.ask)
            if side is None:
                return None
            total += qty // self.units * side
        return PriceE4(-total if self.action is Action.BUY else total)

    def order(self, instrument: Instrument, touch: PriceE4, rung: Rung) -> ExitOrder | None:
        """Its order on *rung*; None where the rung has no price."""
        sells = self.action is Action.SELL
        limit = exit_limit(
            rung,
            sells=sells,
            touch=touch,
            worst=worst_price(instrument, sells=sells, touch=touch),
            tick=tick_at(instrument, touch),
        )
        if limit is None:
            return None
        # The collar may lead into a stretch of the grid with other steps than the touch's.
        tick = tick_at(instrument, limit)
        limit = PriceE4(limit // tick * tick if sells else -(-limit // tick) * tick)
        return ExitOrder(self.ticker, self.action, QtyE2(self.units), limit)


def next_piece(going: Mapping[str, int], *, by_legs: bool) -> Piece:
    """What of *going* (signed quantities) leaves next."""
    if not by_legs and len(going) > 1:
        ticker = closing_ticker({leg: qty // _CONTRACT for leg, qty in going.items()})
        return Piece(ticker, Action.SELL, units_of(going), dict(going))
    ticker, action = next_leg_out(going)
    return Piece(ticker, action, abs(going[ticker]), {ticker: going[ticker]})


def worst_price(instrument: Instrument, *, sells: bool, touch: PriceE4) -> PriceE4:
    """The least a sale may bring, or the most a purchase may cost: what it can be worth, else twice the touch."""
    tick = tick_at(instrument, touch)
    if instrument.kind is not InstrumentKind.COMBO:
        return tick if sells else PriceE4(max(2 * touch, touch + _LEAST_TICKS * tick))
    parts = [
        Part(leg.instrument.option, leg.ratio * _CONTRACT, leg.instrument.multiplier)
        for leg in instrument.parts
    ]
    least = floor(parts)
    if least is None:
        return PriceE4(touch - max(abs(touch), _LEAST_TICKS * tick))
    per_unit = least // (_CONTRACT * instrument.parts[0].instrument.multiplier)
    return PriceE4(min(per_unit, touch) // tick * tick)


def tick_at(instrument: Instrument, price: PriceE4) -> PriceE4:
    """Step of the grid around *price*."""
    for stretch in instrument.price_ranges:
        if stretch.start <= price <= stretch.end:
            return stretch.step
    return instrument.price_ranges[0].step
