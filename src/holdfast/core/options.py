"""Option contracts and their names: the terms of one contract, its OCC symbol, and the name of a combination.

    option_ticker("SPY", 20230901, Right.CALL, strike)     SPY230901C00430000
    combo_ticker([(put_430, 1), (put_470, -1)])            +1*SPY230901P00430000,-1*SPY230901P00470000

A contract's name is its OCC symbol without padding: root, expiry as yymmdd, C or P, the strike in 1/1,000 dollar,
eight digits. A combination is named by its legs, in the order of their tickers, ratios divided by their greatest
common divisor: equal combinations have equal names. Buying a combination buys its positive legs and sells its
negative ones.

Limits: expiries from 2000 to 2099; strikes below $100,000 in steps of 1/1,000 dollar; at most eight legs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from math import gcd
from typing import NamedTuple

import msgspec

from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, format_price

MAX_LEGS = 8
_SYMBOL = re.compile(r"([A-Z][A-Z0-9.]{0,5})(\d{6})([CP])(\d{8})", re.ASCII)
_ROOT = re.compile(r"[A-Z][A-Z0-9.]{0,5}", re.ASCII)
_LEG = re.compile(r"([+-])([1-9]\d{0,5})\*([^*,]+)", re.ASCII)
_E4_PER_MILL = 10


class Right(StrEnum):
    """What the holder may do at the strike: a call buys, a put sells."""

    CALL = "C"
    PUT = "P"


class ExerciseStyle(StrEnum):
    """When the holder may exercise: any day, or at expiry alone."""

    AMERICAN = "american"
    EUROPEAN = "european"


class SettlementStyle(StrEnum):
    """What an exercise delivers: the underlying against the strike, or the difference in cash."""

    PHYSICAL = "physical"
    CASH = "cash"


class OptionTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What one contract promises, per unit of the underlying.

    Attributes:
        underlying: Its symbol, "SPX".
        root: Of the option class, "SPXW"; one underlying may have several.
        expiry: Last day, yyyymmdd.
        right: Call or put.
        strike: Per unit of the underlying.
        style: When it may be exercised.
        settlement: What exercise delivers.
        expires_ns: When trading ends and the payoff is fixed, UTC ns.
    """

    underlying: str
    root: str
    expiry: int
    right: Right
    strike: PriceE4
    style: ExerciseStyle = ExerciseStyle.AMERICAN
    settlement: SettlementStyle = SettlementStyle.PHYSICAL
    expires_ns: int = 0

    def payoff(self, spot: PriceE4) -> PriceE4:
        """What one long unit is worth at expiry with the underlying at *spot*; never below zero."""
        gain = spot - self.strike if self.right is Right.CALL else self.strike - spot
        return PriceE4(max(0, gain))

    @property
    def ticker(self) -> str:
        """Its OCC symbol."""
        return option_ticker(self.root, self.expiry, self.right, self.strike)


class OptionName(NamedTuple):
    """What an OCC symbol says; the underlying, the style and the hour of expiry it does not say."""

    root: str
    expiry: int
    right: Right
    strike: PriceE4


def option_ticker(root: str, expiry: int, right: Right, strike: PriceE4) -> str:
    """The OCC symbol of a contract, without padding.

    Raises:
        BadInput: A root, day or strike that the symbol cannot hold.
    """
    if not _ROOT.fullmatch(root):
        raise BadInput(f"option root {root!r} is not 1 to 6 capital letters, digits or points")
    _check_expiry(expiry)
    mills, rest = divmod(strike, _E4_PER_MILL)
    if rest or not 0 < mills < 10**8:
        raise BadInput(
            f"strike {format_price(strike)} USD is not in (0, 100000) in steps of 0.001 USD (root={root})"
        )
    return f"{root}{expiry % 1_000_000:06d}{Right(right).value}{mills:08d}"


def parse_option_ticker(ticker: str) -> OptionName:
    """The root, expiry, right and strike that an OCC symbol names.

    Raises:
        BadInput: It is no OCC symbol, or names a day that does not exist.
    """
    match = _SYMBOL.fullmatch(ticker)
    if match is None:
        raise BadInput(
            f"option symbol {ticker[:40]!r} cannot be read",
            hint="root, yymmdd, C or P, strike in 1/1000 dollar with eight digits: SPY230901C00430000",
        )
    root, day, right, mills = match.groups()
    expiry = 20_000_000 + int(day)
    _check_expiry(expiry)
    strike = PriceE4(int(mills) * _E4_PER_MILL)
    if not strike:
        raise BadInput(f"option symbol {ticker!r} has a strike of zero")
    return OptionName(root, expiry, Right(right), strike)


def is_option(ticker: str) -> bool:
    """Whether *ticker* has the shape of an OCC symbol."""
    return ticker[-8:].isdigit() and _SYMBOL.fullmatch(ticker) is not None


def combo_ticker(legs: Sequence[tuple[str, int]]) -> str:
    """The name of buying one unit of a combination: (ticker, signed ratio) per leg.

    Raises:
        BadInput: Fewer than two or more than eight legs, a ratio of zero, a leg named twice, or a leg's name that
            no combination can hold.
    """
    if not 2 <= len(legs) <= MAX_LEGS:
        raise BadInput(f"combination has {len(legs)} legs, expected 2 to {MAX_LEGS}")
    common = gcd(*(ratio for _, ratio in legs))
    seen: set[str] = set()
    words: list[str] = []
    for ticker, ratio in sorted(legs):
        if ticker in seen:
            raise BadInput(f"combination names leg {ticker!r} twice")
        seen.add(ticker)
        if not ratio:
            raise BadInput(f"combination's leg {ticker!r} has the ratio 0")
        word = f"{ratio // common:+d}*{ticker}"
        if not _LEG.fullmatch(word):
            raise BadInput(
                f"combination's leg {word[:60]!r} cannot be written",
                hint="a ratio below 1,000,000 and a plain ticker",
            )
        words.append(word)
    return ",".join(words)


def parse_combo_ticker(text: str) -> tuple[tuple[str, int], ...]:
    """The legs that a combination's name holds: (ticker, signed ratio), by ticker.

    Raises:
        BadInput: It is no name that `combo_ticker` gives.
    """
    legs: list[tuple[str, int]] = []
    for word in text.split(","):
        match = _LEG.fullmatch(word)
        if match is None:
            raise BadInput(
                f"combination's leg {word[:60]!r} cannot be read",
                hint="sign, ratio, *, ticker, legs parted by commas: +1*SPY230901P00430000,-1*SPY230901P00470000",
            )
        legs.append((match[3], int(match[1] + match[2])))
    if combo_ticker(legs) != text:
        raise BadInput(
            f"combination {text[:60]!r} is not in its one form", hint=f"write {combo_ticker(legs)!r}"
        )
    return tuple(legs)


def is_combo(ticker: str) -> bool:
    """Whether *ticker* names a combination."""
    return "*" in ticker


def _check_expiry(expiry: int) -> None:
    try:
        is_day = 2000 <= date(expiry // 10_000, expiry // 100 % 100, expiry % 100).year <= 2099
    except ValueError:
        is_day = False
    if not is_day:
        raise BadInput(f"expiry {expiry} is no day of the years 2000 to 2099 as yyyymmdd")
