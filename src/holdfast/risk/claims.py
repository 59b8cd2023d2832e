"""Endings of options that were booked without an execution, as a fold over the journal; and what one has to know for it.

An ending that the venue never told is *claimed*: its fills carry ids of ours. A claim stays open for the case that
the venue tells the execution later: then the claim is undone by an opposite fill, by as much as was told, and what was told
counts in its place. So an ending counts once, at the venue's own price as soon as that is known.

What must be known when it is too late to ask (an expired contract is no longer listed, a price of that moment no
longer shown) is kept here too: the terms of every option ever held, and the underlying's price at its expiry.

Limits: an execution is taken for a claimed ending's where ticker and side agree and it is dated no later than the
claim, or says itself that it is an ending. Shares that no order of ours moved, exactly at the claim's strike, are
taken for its delivery up to `DELIVERED_SECS` after it. A person's trade that looks like this is taken for it too: then
positions differ, and are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.core.clock import NANOS
from holdfast.core.money import PriceE4, QtyE2, parse_price
from holdfast.core.options import ExerciseStyle, OptionTerms, SettlementStyle, parse_option_ticker
from holdfast.core.orders import Fill, FillCause

CLAIM, TERMS, SPOT = "ended_unseen", "terms", "settlement_value"
"""What RECONCILE records of these are about."""
UNDONE = "/undone/"
DELIVERED_SECS = 86_400
"""How much later than its claim a delivery of shares may be dated: venues book it in the morning after."""
_NOTED = frozenset({CLAIM, TERMS, SPOT})


class Claim(msgspec.Struct):
    """An ending booked without an execution.

    Attributes:
        fill: As it was booked.
        amount: What is known of its cash: known, claimed or unknown.
        left: What no execution has replaced, 1/100.
        is_share: Whether it moves the underlying.
    """

    fill: Fill
    amount: str
    left: QtyE2
    is_share: bool


class KeptTerms(msgspec.Struct, frozen=True):
    """What an option promises, and how many units of the underlying one contract is for."""

    option: OptionTerms
    multiplier: int

    def details(self) -> dict[str, Any]:
        """As a record holds it; the rest its ticker says."""
        option = self.option
        return {
            "underlying": option.underlying,
            "style": option.style.value,
            "settlement": option.settlement.value,
            "expires_ns": option.expires_ns,
            "multiplier": self.multiplier,
        }

    @classmethod
    def read(cls, ticker: str, details: Mapping[str, Any]) -> KeptTerms:
        """What `details` of the option *ticker* says.

        Raises:
            BadInput: The ticker is no option's.
        """
        name = parse_option_ticker(ticker)
        option = OptionTerms(
            underlying=details["underlying"],
            root=name.root,
            expiry=name.expiry,
            right=name.right,
            strike=name.strike,
            style=ExerciseStyle(details["style"]),
            settlement=SettlementStyle(details["settlement"]),
            expires_ns=details["expires_ns"],
        )
        return cls(option, details["multiplier"])


class Claims:
    """See the head of this file.

    Attributes:
        terms: Of every option that was held, by ticker.
        spots: The underlying at an expiry, by (underlying, expires_ns).
        booked: How many claims were made, ever: the next one's number.
    """

    def __init__(self) -> None:
        self.terms: dict[str, KeptTerms] = {}
        self.spots: dict[tuple[str, int], PriceE4] = {}
        self.booked = 0
        self._announced: dict[str, tuple[str, bool]] = {}
        self._open: dict[str, Claim] = {}

    @property
    def lacks_amounts(self) -> bool:
        """Whether the cash of an ending is not known."""
        return any(claim.amount == "unknown" for claim in self._open.values())

    def settleable(self) -> list[Claim]:
        """The open claims of which a person can say what was paid, oldest first: what became shares is at its strike."""
        return [claim for claim in self._open.values() if claim.fill.cause is FillCause.EXPIRATION]

    def of(self, ticker: str) -> list[Claim]:
        """The open claims on *ticker*, oldest first."""
        return [claim for claim in self._open.values() if claim.fill.ticker == ticker]

    def matching(self, fill: Fill, *, is_own: bool) -> list[Claim]:
        """The open claims whose execution *fill* is or may be in part, oldest first."""
        return [claim for claim in self.of(fill.ticker) if _is_of(fill, claim, is_own=is_own)]

    def is_claim(self, trade_id: str) -> bool:
        """Whether a fill of that id was told by nobody."""
        return trade_id in self._announced or UNDONE in trade_id

    def snapshot(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "terms": {ticker: one.details() for ticker, one in sorted(self.terms.items())},
            "spots": sorted(self.spots.items()),
            "booked": self.booked,
            "open": {name: (claim.amount, claim.left) for name, claim in sorted(self._open.items())},
        }

    # The folds ----------------------------------------------------------------------------------------

    def noted(self, details: Mapping[str, Any]) -> None:
        """A RECONCILE record."""
        what = details["what"]
        if what not in _NOTED:
            return
        ours, theirs = details["ours"], details["theirs"]
        if what == TERMS:
            self.terms[ours] = KeptTerms.read(ours, theirs)
        elif what == SPOT:
            self.spots[ours, theirs["expires_ns"]] = parse_price(theirs["price"])
        else:
            self._announced[theirs] = (details["amount"], ours != details["option"])
            self.booked += 1

    def moved(self, fill: Fill) -> None:
        """A fill was booked."""
        name, undone, _ = fill.trade_id.partition(UNDONE)
        if undone:
            claim = self._open.get(name)
            if claim is not None:
                claim.left = QtyE2(claim.left - fill.qty)
                if claim.left <= 0:
                    del self._open[name]
        elif name in self._announced:
            amount, is_share = self._announced[name]
            self._open[name] = Claim(fill, amount, fill.qty, is_share)


def _is_of(fill: Fill, claim: Claim, *, is_own: bool) -> bool:
    ended = claim.fill
    if fill.side is not ended.side or fill.trade_id == ended.trade_id:
        return False
    says_so = fill.cause is not FillCause.TRADE
    if claim.is_share:
        late_ns = ended.ts_ns + DELIVERED_SECS * NANOS
        return not is_own and fill.price == ended.price and (says_so or fill.ts_ns <= late_ns)
    return says_so or not fill.price or fill.ts_ns <= ended.ts_ns
