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
    """`ModelStop` with the default percentages, in plain integers of the signed premium, for a million paths."""

    def __init__(self, entry, sign):
        self.sign = sign
        self.entry = self.level = entry * sign
        self.limit = None
        self.is_over = False

    @property
    def stop(self):
        """Where it stands, 0 for nowhere."""
        return 0 if self.limit is None else self.limit * self.sign

    @property
    def best(self):
        """The best premium."""
        return self.level * self.sign

    def update(self, premium):  # noqa: PLR0911  one line for each rule of the description
        """The action's number over *premium*: HOLD, ACTIVATE, UPDATE, TRIGGER."""
        level = premium * self.sign
        if self.is_over:
            return 0
        if self.limit is not None and level <= self.limit:
            self.is_over = True
            return 3
        if level <= self.level:
            return 0
        self.level = level
        candidate = min(level - abs(level) * 150 // 10_000, level - 1)
        if self.limit is None:
            if (level - self.entry) * 10_000 < 200 * abs(self.entry):
                return 0
            self.limit = candidate
            return 1
        if candidate <= self.limit or (candidate - self.limit) * 10_000 < 50 * abs(self.limit):
            return 0
        self.limit = candidate
        return 2
