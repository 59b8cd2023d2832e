"""A second implementation of the published trailing stop, as its description reads, to hold the real ones against.

It knows no levels, no wake-up points and no rules: it follows every premium, and compares fractions exactly.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor


class ModelStop:
    """One percent stop; premiums in 1/10,000 dollar, percentages in basis points."""

    def __init__(self, entry, activation=200, trailing=150, min_move=50, sign=1):
        self.entry, self.sign = entry, sign
        self.percentages = [Fraction(one, 10_000) for one in (activation, trailing, min_move)]
        self.best = entry
        self.stop = None
        self.is_over = False

    def update(self, premium):  # noqa: PLR0911  one line for each rule of the description
        """The action over *premium*."""
        activation, trailing, min_move = self.percentages
        if self.is_over:
            return "HOLD"
        if self.stop is not None and (premium - self.stop) * self.sign <= 0:
            self.is_over = True
            return "TRIGGER"
        if (premium - self.best) * self.sign <= 0:
            return "HOLD"
        self.best = premium
        candidate = self.behind(premium, trailing)
        if self.stop is None:
            if (premium - self.entry) * self.sign < activation * abs(self.entry):
                return "HOLD"
            self.stop = candidate
            return "ACTIVATE"
        move = (candidate - self.stop) * self.sign
        if move <= 0 or move < min_move * abs(self.stop):
            return "HOLD"
        self.stop = candidate
        return "UPDATE"

    def behind(self, premium, trailing):
        """The stop of *premium*: rounded towards it, and never at it."""
        exact = premium - self.sign * trailing * abs(premium)
        if self.sign > 0:
            return min(ceil(exact), premium - 1)
        return max(floor(exact), premium + 1)


class QuickModel:
    """`ModelStop` with the default percentages of a long, in plain integers, for a million paths."""

    def __init__(self, entry):
        self.entry = self.best = entry
        self.stop = 0
        self.is_over = False

    def update(self, premium):  # noqa: PLR0911  one line for each rule of the description
        """The action's number over *premium*: HOLD, ACTIVATE, UPDATE, TRIGGER."""
        if self.is_over:
            return 0
        if self.stop and premium <= self.stop:
            self.is_over = True
            return 3
        if premium <= self.best:
            return 0
        self.best = premium
        candidate = min(-(-premium * 9850 // 10_000), premium - 1)
        if not self.stop:
            if (premium - self.entry) * 10_000 < 200 * self.entry:
                return 0
            self.stop = candidate
            return 1
        if candidate <= self.stop or (candidate - self.stop) * 10_000 < 50 * self.stop:
            return 0
        self.stop = candidate
        return 2
