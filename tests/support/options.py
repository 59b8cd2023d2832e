"""A small option chain on SPY at 500, and a trader over a fake venue that lists it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from support.execution import MemoryLog

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.greeks import MODEL, Greeks
from holdfast.core.instruments import PREMIUM_CENTS, Instrument, InstrumentKind
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.options import OptionTerms, Right
from holdfast.execution.structures import Quoted

NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * NANOS
EXPIRY = 20261218
EXPIRES_NS = int(datetime(2026, 12, 18, 21, 0, tzinfo=UTC).timestamp()) * NANOS
SPOT = 500.0
VOLATILITY = 0.2


def option_ticker_of(instrument: Instrument) -> str:
    assert instrument.option is not None
    return instrument.option.ticker


def option(right: Right, strike: int, **changes: Any) -> Instrument:
    """One contract on SPY; strike in dollars."""
    terms = OptionTerms(
        underlying="SPY",
        root="SPY",
        expiry=EXPIRY,
        right=right,
        strike=PriceE4(strike * 10_000),
        expires_ns=EXPIRES_NS,
    )
    return Instrument(
        venue="fake",
        ticker=terms.ticker,
        event="SPY",
        kind=InstrumentKind.OPTION,
        option=terms,
        multiplier=100,
        price_ranges=PREMIUM_CENTS,
        close_ns=EXPIRES_NS,
        fee_per_contract=MoneyE6(650_000),
        **changes,
    )


def worth(
    right: Right, strike: int, spot: float = SPOT, years: float = 28 / 365
) -> tuple[float, float, float]:
    """Price, delta and gamma by Black and Scholes without interest."""
    spread = VOLATILITY * math.sqrt(years)
    d1 = (math.log(spot / strike) + spread * spread / 2) / spread
    normal = lambda x: (1 + math.erf(x / math.sqrt(2))) / 2  # noqa: E731
    call = spot * normal(d1) - strike * normal(d1 - spread)
    delta = normal(d1)
    gamma = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi) / (spot * spread)
    return (call, delta, gamma) if right is Right.CALL else (call - spot + strike, delta - 1, gamma)


def quoted(right: Right, strike: int, spot: float = SPOT) -> Quoted:
    """One contract with a spread of four cents around its worth."""
    price, delta, gamma = worth(right, strike, spot)
    mid = max(3, round(price * 100))
    greeks = Greeks(
        delta_e6=round(delta * 1e6),
        gamma_e6=round(gamma * 1e6),
        vega_e6=500_000,
        theta_e6=-50_000,
        iv_e6=200_000,
        source=MODEL,
        as_of_ns=0,
    )
    return Quoted(option(right, strike), PriceE4((mid - 2) * 100), PriceE4((mid + 2) * 100), greeks)


@lru_cache(maxsize=8)
def chain(spot: float = SPOT) -> tuple[Quoted, ...]:
    """Strikes from 440 to 560 in steps of 5, both rights."""
    return tuple(quoted(right, strike, spot) for right in Right for strike in range(440, 561, 5))
