"""Prices and Greeks of options in closed form, and a volatility surface without static arbitrage.

Black and Scholes with no interest and no dividends, in which an American option is worth its European twin: nothing
is won by exercising early. The surface is the SSVI of Gatheral and Jacquier with a power law of exponent 1/2, whose
parameters here obey their conditions (eta * (1 + |rho|) <= 2 and eta^2 * (1 + |rho|) <= 4), so that its prices admit
neither butterfly nor calendar arbitrage. Floats throughout: they become integers where a quote is made.

Source: J. Gatheral, A. Jacquier, "Arbitrage-free SVI volatility surfaces", 2014, theorem 4.1 and section 4.
"""

from __future__ import annotations

from math import erf, exp, log, pi, sqrt
from typing import NamedTuple

DAYS_PER_YEAR = 365.0
_ROOT_2 = sqrt(2.0)
_ROOT_2_PI = sqrt(2.0 * pi)


class Surface(NamedTuple):
    """Total variance by log-moneyness and time.

    Attributes:
        level: Volatility at the money.
        eta: How steep the smile is.
        rho: Its skew, negative where puts are dear.
    """

    level: float
    eta: float = 1.1
    rho: float = -0.5

    def volatility(self, strike: float, spot: float, years: float) -> float:
        """Implied volatility at *strike* for an option that ends in *years* (above 0)."""
        theta = self.level * self.level * years
        x = self.eta / sqrt(theta) * log(strike / spot) + self.rho
        total = 0.5 * theta * (1.0 + self.rho * (x - self.rho) + sqrt(x * x + 1.0 - self.rho * self.rho))
        return sqrt(total / years)


class Valued(NamedTuple):
    """An option's price with its Greeks, per unit; vega per point of volatility, theta per calendar day."""

    price: float
    delta: float
    gamma: float
    vega: float
    theta: float


def value(spot: float, strike: float, years: float, volatility: float, *, is_call: bool) -> Valued:
    """One option; *years* and *volatility* above 0."""
    deviation = volatility * sqrt(years)
    d1 = log(spot / strike) / deviation + 0.5 * deviation
    d2 = d1 - deviation
    density = exp(-0.5 * d1 * d1) / _ROOT_2_PI
    delta = 0.5 * (1.0 + erf(d1 / _ROOT_2))
    price = spot * delta - strike * 0.5 * (1.0 + erf(d2 / _ROOT_2))
    if not is_call:
        # Put-call parity, so that the pair never disagrees.
        price, delta = price - spot + strike, delta - 1.0
    return Valued(
        max(price, 0.0),
        delta,
        density / (spot * deviation),
        spot * density * sqrt(years) / 100.0,
        -spot * density * volatility / (2.0 * sqrt(years)) / DAYS_PER_YEAR,
    )
