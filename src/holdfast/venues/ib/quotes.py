"""What a subscription shows, as books and Greeks of ours; plain functions of the library's `Ticker`.

A side exists where its size is above zero; the library writes -1 for the price of a side that is empty, and a
combination may really cost -1. Only live prices count: frozen and delayed ones are nobody's offer now.

Greeks count together or not at all: -1, -2, None and NaN are the feed's words for no value, and the library hands
the -2 of vega and theta on. The model's Greeks are taken, since those of the sides vanish with the sides.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from holdfast.core.greeks import FEED, Greeks
from holdfast.core.money import PriceE4, QtyE2
from holdfast.execution.venue import Book, Level
from holdfast.venues.ib.contracts import price_e4

if TYPE_CHECKING:
    from ib_async.ticker import Ticker

LIVE = 1
_NO_VALUE = -2.0


def book_of(ticker: Ticker, name: str, alive_ns: int) -> Book | None:
    """The best prices; None where they are not live or were never told."""
    if ticker.marketDataType != LIVE:
        return None
    if not isfinite(ticker.bidSize) and not isfinite(ticker.askSize):
        return None
    bids, asks = _side(ticker.bid, ticker.bidSize), _side(ticker.ask, ticker.askSize)
    if bids and asks and bids[0].price >= asks[0].price:
        return None
    return Book(ticker=name, bids=bids, asks=asks, alive_ns=alive_ns)


def _side(price: float, size: float) -> tuple[Level, ...]:
    """One level, or none. A price finer than 1/10,000 dollar is not shown: nobody could order at it."""
    if not isfinite(size) or size <= 0:
        return ()
    price_units = price_e4(price)
    return () if price_units is None else (Level(price_units, QtyE2(int(size * 100))),)


def greeks_of(ticker: Ticker, as_of_ns: int) -> Greeks | None:
    """The model's Greeks; None where any is missing or the feed is not live."""
    model = ticker.modelGreeks
    if model is None or ticker.marketDataType != LIVE:
        return None
    values = [_value(number) for number in (model.delta, model.gamma, model.vega, model.theta)]
    delta, gamma, vega, theta = values
    if delta is None or gamma is None or vega is None or theta is None:
        return None
    iv = _value(model.impliedVol)
    iv_e6 = round(iv * 1_000_000) if iv is not None and iv > 0 else 0
    return Greeks(
        delta_e6=round(delta * 1_000_000),
        gamma_e6=round(gamma * 1_000_000),
        vega_e6=round(vega * 1_000_000),
        theta_e6=round(theta * 1_000_000),
        iv_e6=iv_e6,
        source=FEED,
        as_of_ns=as_of_ns,
    )


def spot_of(ticker: Ticker) -> PriceE4 | None:
    """The underlying's price that the model used; None where it says none."""
    model = ticker.modelGreeks
    if model is None or ticker.marketDataType != LIVE or model.undPrice is None:
        return None
    if not isfinite(model.undPrice) or not 0 < model.undPrice < 1e7:
        return None
    return PriceE4(round(model.undPrice * 10_000))


def middle(book: Book) -> PriceE4 | None:
    """Halfway between the best prices of a stock's book; None while a side is missing."""
    if book.best_bid is None or book.best_ask is None:
        return None
    return PriceE4((book.best_bid + book.best_ask) // 2)


def _value(number: float | None) -> float | None:
    return None if number is None or not isfinite(number) or number == _NO_VALUE else number
