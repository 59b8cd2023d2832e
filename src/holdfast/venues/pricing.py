"""Implied volatility and Greeks of one option from its mid, by QuantLib; refused by name where there is none.

European options are valued in closed form (Black, Scholes, Merton), and so are American ones that nobody exercises
early: calls without dividends, puts without interest. All other American ones are valued by the approximation of
Barone-Adesi and Whaley, their Greeks by differences. Interest and dividend yield are declared inputs, continuously
compounded; nothing here guesses them.

`Unsolved` names why no volatility explains a quote; for whoever decides it is `iv_unsolved`, and no Greek is made up.

A contract that is offered and that nobody bids for is worth something between nothing and its ask. No volatility
explains that, but none above the ask's can: delta and gamma are given as the range that they run through from no
volatility to the ask's, from the closed form's own turning points. With d = m/v + v/2, m the logarithm of forward over
strike and v the deviation to expiry, d turns at v^2 = 2m, and gamma, which is n(d)/v but for a factor, at
v^2 = 2 (sqrt(1 + m^2) - 1). American options that somebody may exercise early have no such form, and no range.

Limits: floats inside, integers out. QuantLib comes with the extra `options` and is imported when a `Model` is made.
"""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from math import ceil, erfc, exp, floor, log, pi, sqrt
from typing import Any, Final, NamedTuple

from holdfast.core.clock import NANOS
from holdfast.core.errors import ConfigError
from holdfast.core.extras import how_to_install
from holdfast.core.greeks import BOUND, MODEL, Greeks
from holdfast.core.money import PriceE4
from holdfast.core.options import ExerciseStyle, OptionTerms, Right

MOST_VOLATILITY: Final = 8.0
"""800 %: beyond it a quote says nothing about volatility."""
_YEAR_NS: Final = 365 * 86_400 * NANOS
_DAY: Final = 1 / 365
_FIRST_GUESS: Final = 0.3
_ACCURACY: Final = 1e-7
_MOST_STEPS: Final = 100
_DEVIATION_MARGIN: Final = 1e-6
"""Added to a deviation that bounds others: more than the solver's own inaccuracy."""


class Unsolved(StrEnum):
    """Why a quote has no implied volatility."""

    ENDED = "contract ended"
    NO_SPOT = "no price of the underlying"
    CROSSED = "bid above ask"
    ONE_SIDED = "a side is missing or zero"
    BELOW_INTRINSIC = "mid not above the value without volatility"
    TOO_DEAR = "mid above any volatility"


class Carry(NamedTuple):
    """What holding the underlying costs and brings, per year, continuously compounded: 0.05 is 5 %."""

    rate: float = 0.0
    dividend: float = 0.0


class Sensitivity(NamedTuple):
    """Value and Greeks per unit; vega per point of volatility, theta per calendar day."""

    price: float
    delta: float
    gamma: float
    vega: float
    theta: float


class Model:
    """Values options; remembers each contract's last volatility as the next guess.

    Args:
        carry: Of an underlying that `carries` does not name.
        carries: By underlying.

    Raises:
        ConfigError: QuantLib is not installed.
    """

    def __init__(self, carry: Carry = Carry(), carries: dict[str, Carry] | None = None) -> None:  # noqa: B008  a constant
        try:
            quantlib: Any = import_module("QuantLib")
        except ImportError:
            raise ConfigError(
                "Greeks cannot be computed: QuantLib is not installed",
                hint=how_to_install("options"),
            ) from None
        self._ql = quantlib
        self._carry = carry
        self._carries = dict(carries or {})
        self._guesses: dict[tuple[str, int, Right, PriceE4], float] = {}
        self._american = _American(quantlib)

    def greeks(
        self,
        terms: OptionTerms,
        bid: PriceE4 | None,
        ask: PriceE4 | None,
        spot: PriceE4 | None,
        *,
        now_ns: int,
        as_of_ns: int,
    ) -> Greeks | Unsolved:
        """The Greeks at *now_ns* (UTC) that explain the mid of *bid* and *ask*; without a bid their range.

        Args:
            terms: Of the contract.
            bid: None or not positive where nobody bids; below zero it is no quote at all.
            ask: None or not positive where nobody offers.
            spot: Of the underlying; None where it is not known.
            now_ns: Market time.
            as_of_ns: Stands in the result.
        """
        fault = _fault(bid, ask, spot)
        if fault is not None or not ask or not spot:
            return fault or Unsolved.ONE_SIDED
        years = (terms.expires_ns - now_ns) / _YEAR_NS
        if years <= 0:
            return Unsolved.ENDED
        at = spot / 10_000
        if not bid:
            return self._range(terms, ask / 10_000, at, years, as_of_ns)
        volatility = self.implied(terms, (bid + ask) / 20_000, at, years)
        if isinstance(volatility, Unsolved):
            return volatility
        found = self.value(terms, at, years, volatility)
        return Greeks(
            round(found.delta * 1e6),
            round(found.gamma * 1e6),
            round(found.vega * 1e6),
            round(found.theta * 1e6),
            round(volatility * 1e6),
            MODEL,
            as_of_ns,
        )

    def _range(
        self, terms: OptionTerms, ask: float, spot: float, years: float, as_of_ns: int
    ) -> Greeks | Unsolved:
        """Between which bounds the Greeks lie of what is worth at most *ask*, and at least nothing."""
        carry = self.carry(terms)
        if _pays_early(terms, carry):
            return Unsolved.ONE_SIDED
        most = self.implied(terms, ask, spot, years)
        if isinstance(most, Unsolved):
            return most
        at_ask = self.value(terms, spot, years, most)
        moneyness = log(spot / (terms.strike / 10_000)) + (carry.rate - carry.dividend) * years
        deviation = most * sqrt(years) + _DEVIATION_MARGIN
        yields = exp(-carry.dividend * years)
        low, high = _delta_range(moneyness, deviation, is_call=terms.right is Right.CALL)
        steepest = _most_gamma(moneyness, deviation)
        if steepest is None:
            return Unsolved.ONE_SIDED
        least, top = floor(yields * low * 1e6), ceil(yields * high * 1e6)
        return Greeks(
            least,
            0,
            round(at_ask.vega * 1e6),
            round(at_ask.theta * 1e6),
            round(most * 1e6),
            BOUND,
            as_of_ns,
            top - least,
            ceil(yields * steepest / spot * 1e6),
        )

    def implied(self, terms: OptionTerms, price: float, spot: float, years: float) -> float | Unsolved:
        """The volatility per year at which the contract is worth *price*."""
        carry, strike, is_call = self.carry(terms), terms.strike / 10_000, terms.right is Right.CALL
        discount = exp(-carry.rate * years)
        forward = spot * exp((carry.rate - carry.dividend) * years)
        is_early = _pays_early(terms, carry)
        sign = 1 if is_call else -1
        floor = max(sign * (forward - strike) * discount, sign * (spot - strike) if is_early else 0.0, 0.0)
        if price <= floor + 1e-9:
            return Unsolved.BELOW_INTRINSIC
        name = (terms.root, terms.expiry, terms.right, terms.strike)
        guess = self._guesses.get(name, _FIRST_GUESS)
        if is_early:
            found = self._american.implied(
                price / strike, spot / strike, years, carry, guess, is_call=is_call
            )
        else:
            kind = self._ql.Option.Call if is_call else self._ql.Option.Put
            try:
                deviation: float = self._ql.blackFormulaImpliedStdDev(
                    kind, strike, forward, price, discount, 0.0, guess * sqrt(years), _ACCURACY, _MOST_STEPS
                )
            except RuntimeError:
                return Unsolved.TOO_DEAR
            found = deviation / sqrt(years)
        if found is None or not 0 < found <= MOST_VOLATILITY:
            return Unsolved.TOO_DEAR
        self._guesses[name] = found
        return found

    def value(self, terms: OptionTerms, spot: float, years: float, volatility: float) -> Sensitivity:
        """Value and Greeks at a volatility."""
        carry, strike, is_call = self.carry(terms), terms.strike / 10_000, terms.right is Right.CALL
        if _pays_early(terms, carry):
            scaled = self._american.value(spot / strike, years, volatility, carry, is_call=is_call)
            return Sensitivity(
                scaled.price * strike,
                scaled.delta,
                scaled.gamma / strike,
                scaled.vega * strike,
                scaled.theta * strike,
            )
        ql = self._ql
        payoff = ql.PlainVanillaPayoff(ql.Option.Call if is_call else ql.Option.Put, strike)
        forward = spot * exp((carry.rate - carry.dividend) * years)
        black = ql.BlackCalculator(payoff, forward, volatility * sqrt(years), exp(-carry.rate * years))
        return Sensitivity(
            black.value(),
            black.delta(spot),
            black.gamma(spot),
            black.vega(years) / 100,
            black.theta(spot, years) * _DAY,
        )

    def carry(self, terms: OptionTerms) -> Carry:
        """What is declared of the contract's underlying."""
        return self._carries.get(terms.underlying, self._carry)


def _pays_early(terms: OptionTerms, carry: Carry) -> bool:
    """Whether exercising before the end can ever pay."""
    reason = carry.dividend if terms.right is Right.CALL else carry.rate
    return terms.style is ExerciseStyle.AMERICAN and reason > 0


def _fault(bid: PriceE4 | None, ask: PriceE4 | None, spot: PriceE4 | None) -> Unsolved | None:
    """Why a quote says nothing, whatever the contract."""
    if not ask or ask < 0 or (bid or 0) < 0:
        return Unsolved.ONE_SIDED
    if bid and bid > ask:
        return Unsolved.CROSSED
    return Unsolved.NO_SPOT if not spot or spot < 0 else None


def _delta_range(moneyness: float, most: float, *, is_call: bool) -> tuple[float, float]:
    """The least and the greatest delta at any deviation above 0 and up to *most*, the dividend left out."""
    at = [moneyness / most + most / 2]
    if 0 < 2 * moneyness <= most * most:
        at.append(sqrt(2 * moneyness))
    edge = (moneyness > 0) - (moneyness < 0)  # of d, as the deviation goes to nothing: far up, far down, or 0
    deltas = [_normal(d) for d in at] + [(1 + edge) / 2]
    return (min(deltas), max(deltas)) if is_call else (min(deltas) - 1, max(deltas) - 1)


def _most_gamma(moneyness: float, most: float) -> float | None:
    """The greatest n(d)/v at any deviation v above 0 and up to *most*; None where it has no end, at the money."""
    turn = sqrt(2 * (sqrt(1 + moneyness * moneyness) - 1))
    if turn <= 0:
        return None
    at = min(most, turn)
    d = moneyness / at + at / 2
    return exp(-d * d / 2) / sqrt(2 * pi) / at


def _normal(d: float) -> float:
    return erfc(-d / sqrt(2)) / 2


class _American:
    """American options of strike 1 by Barone-Adesi and Whaley.

    The formula knows time only through variance and discounts, so one nominal year carries every time to expiry.
    """

    def __init__(self, ql: Any) -> None:
        # Far ahead of every evaluation date that other code may set: the nominal year is never over.
        today = ql.Date(1, 1, 2150)
        year = today + ql.Period(365, ql.Days)
        counter = ql.Actual365Fixed()
        self._spot, self._deviation = ql.SimpleQuote(1.0), ql.SimpleQuote(0.2)
        self._rate, self._dividend = ql.SimpleQuote(0.0), ql.SimpleQuote(0.0)

        def curve(quote: Any) -> Any:
            return ql.YieldTermStructureHandle(ql.FlatForward(today, ql.QuoteHandle(quote), counter))

        surface = ql.BlackConstantVol(today, ql.NullCalendar(), ql.QuoteHandle(self._deviation), counter)
        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(self._spot),
            curve(self._dividend),
            curve(self._rate),
            ql.BlackVolTermStructureHandle(surface),
        )
        self._options: dict[bool, Any] = {}
        for is_call, kind in ((True, ql.Option.Call), (False, ql.Option.Put)):
            option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, 1.0), ql.AmericanExercise(today, year))
            option.setPricingEngine(ql.BaroneAdesiWhaleyApproximationEngine(process))
            self._options[is_call] = option

    def price(self, spot: float, years: float, volatility: float, carry: Carry, *, is_call: bool) -> float:
        """Worth of one option of strike 1."""
        self._spot.setValue(spot)
        self._deviation.setValue(volatility * sqrt(years))
        self._rate.setValue(carry.rate * years)
        self._dividend.setValue(carry.dividend * years)
        found: float = self._options[is_call].NPV()
        return found

    def implied(
        self, price: float, spot: float, years: float, carry: Carry, guess: float, *, is_call: bool
    ) -> float | None:
        """The volatility at which it is worth *price*, by false position (Illinois); None where none is."""

        def miss(volatility: float) -> float:
            return self.price(spot, years, volatility, carry, is_call=is_call) - price

        low, high = guess * 0.8, guess * 1.25
        below, above = miss(low), miss(high)
        while below > 0 and low > 1e-4:
            high, above = low, below
            low /= 2
            below = miss(low)
        while above < 0 and high <= MOST_VOLATILITY:
            low, below = high, above
            high *= 2
            above = miss(high)
        if below > 0 or above < 0:
            return None
        for _ in range(_MOST_STEPS):
            at = high - above * (high - low) / (above - below) if above != below else (low + high) / 2
            found = miss(at)
            if abs(found) < 1e-10 or high - low < _ACCURACY:
                return at
            if found < 0:
                low, below, above = at, found, above / 2
            else:
                high, above, below = at, found, below / 2
        return (low + high) / 2

    def value(
        self, spot: float, years: float, volatility: float, carry: Carry, *, is_call: bool
    ) -> Sensitivity:
        """Value and Greeks by differences."""

        def price(at: float, left: float, deviation: float) -> float:
            return self.price(at, left, deviation, carry, is_call=is_call)

        here = price(spot, years, volatility)
        step = spot * min(0.01, max(0.002, 0.1 * volatility * sqrt(years)))
        up, down = price(spot + step, years, volatility), price(spot - step, years, volatility)
        bump = 0.001
        vega = (price(spot, years, volatility + bump) - price(spot, years, max(volatility - bump, 1e-4))) / (
            volatility + bump - max(volatility - bump, 1e-4)
        )
        passing = min(_DAY / 24, years / 2)
        theta = (price(spot, years - passing, volatility) - here) / passing
        return Sensitivity(
            here, (up - down) / (2 * step), (up - 2 * here + down) / (step * step), vega / 100, theta * _DAY
        )
