"""The account at the paper broker: cash, positions, and what the broker lets it carry.

Cash moves by premium and fees. Beside it stands the requirement: for every underlying and expiry the most that the
options can still lose at that expiry, so that a long option needs nothing beyond its premium and a vertical or a
condor its width. Longs of one expiry do not cover shorts of another. Short puts are secured by their strike. Long
shares cover short calls, lowest strikes first. A call that nothing covers is naked: no order may make one, and one
that an assignment leaves behind requires the spot price itself. Short shares require one and a half times the spot.
What is left, less what working orders would need, is the buying power.

What exercise, assignment and expiry do is booked whatever it costs: cash may fall below zero by it, and then only what
frees buying power passes.

Pure: no clock, no I/O. Limits: no interest, no borrowing fees, no portfolio margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.options import OptionTerms, Right
from holdfast.venues.broker.feed import Listing

SHORT_STOCK_NUM: Final = 3
SHORT_STOCK_DEN: Final = 2


class Requirement(NamedTuple):
    """What positions need beside their premium.

    Attributes:
        money: Dollars that must stay, 1e-6.
        naked: Units of underlyings (1/100) that short calls owe and nothing covers.
    """

    money: MoneyE6
    naked: int


class Account:
    """Cash and positions.

    Args:
        cash: Opening balance, 1e-6 dollar.
        listings: Every contract by ticker.

    Attributes:
        positions: Signed, 1/100 contract or share, without flat ones.
        fees: Paid so far.
    """

    def __init__(self, cash: MoneyE6, listings: Mapping[str, Listing]) -> None:
        self.cash = cash
        self.fees = MoneyE6(0)
        self.positions: dict[str, QtyE2] = {}
        self._listings = listings

    def book(self, ticker: str, qty: int, price: PriceE4, fee: MoneyE6) -> None:
        """One execution: *qty* is signed, *price* per unit of the multiplier."""
        self.cash = MoneyE6(self.cash - qty * price * self._listings[ticker].multiplier - fee)
        self.fees = MoneyE6(self.fees + fee)
        held = self.positions.get(ticker, 0) + qty
        if held:
            self.positions[ticker] = QtyE2(held)
        else:
            del self.positions[ticker]

    def after(self, changes: Iterable[tuple[str, int]]) -> dict[str, QtyE2]:
        """The positions if *changes* happened."""
        positions = dict(self.positions)
        for ticker, qty in changes:
            positions[ticker] = QtyE2(positions.get(ticker, 0) + qty)
        return positions

    def requirement(
        self, positions: Mapping[str, QtyE2], spots: Mapping[str, PriceE4], underlying: str | None = None
    ) -> Requirement:
        """What *positions* need, of one underlying or of all; an unknown spot counts as the highest strike."""
        options: dict[str, dict[int, list[_Held]]] = {}
        shares: dict[str, int] = {}
        for ticker, qty in positions.items():
            listing = self._listings[ticker]
            if not qty or (underlying is not None and listing.underlying != underlying):
                continue
            if listing.terms is None:
                shares[ticker] = qty
            else:
                held = _Held(listing.terms, qty * listing.multiplier)
                options.setdefault(listing.underlying, {}).setdefault(listing.terms.expiry, []).append(held)
        money, naked = 0, 0
        for symbol in sorted(options.keys() | shares.keys()):
            spot = spots.get(symbol, 0)
            owned = shares.get(symbol, 0)
            if owned < 0:
                money += -owned * spot * SHORT_STOCK_NUM // SHORT_STOCK_DEN
            cover = max(owned, 0)
            for _, group in sorted(options.get(symbol, {}).items()):
                needed, uncovered, cover = _group(group, cover)
                highest = max(held.terms.strike for held in group)
                money += needed + uncovered * (spot or highest)
                naked += uncovered
        return Requirement(MoneyE6(money), naked)


class _Held(NamedTuple):
    terms: OptionTerms
    units: int


def _group(group: list[_Held], cover: int) -> tuple[int, int, int]:
    """Options of one expiry: what they can lose, uncovered units, and how many shares still cover others."""
    owed = -sum(held.units for held in group if held.terms.right is Right.CALL)
    used = min(max(owed, 0), cover)
    left = _delivered(group, used)
    uncovered = max(owed - used, 0)
    points = [0, *sorted({held.terms.strike for held in left})]
    worst = min(
        (sum(held.units * held.terms.payoff(PriceE4(at)) for held in left) for at in points), default=0
    )
    return max(0, -worst), uncovered, cover - used


def _delivered(group: list[_Held], shares: int) -> list[_Held]:
    """The group without the short calls that *shares* can be delivered against, lowest strikes first."""
    left: list[_Held] = []
    for held in sorted(group, key=lambda one: one.terms.strike):
        if held.terms.right is Right.CALL and held.units < 0 and shares:
            delivered = min(shares, -held.units)
            shares -= delivered
            held = _Held(held.terms, held.units + delivered)  # noqa: PLW2901  what is left of it
        left.append(held)
    return left
