"""What becomes of option positions: expiry, exercise and assignment, as movements of positions. Pure.

| contract at its end | long | short |
| --- | --- | --- |
| settled in cash | `expiration` at its intrinsic value | the same |
| delivered, in the money by at least a cent | `exercise`: closed at 0, the stock moves at the strike | `assignment` |
| delivered, else | `expiration` at 0 | the same |

The settlement price is the underlying's last one, if it is not older than `SETTLEMENT_AGE_NS` at the contract's end;
without one, positions stay as they are and say so. A short option of American style may be assigned early: where the
script names it, or by chance once nothing but its intrinsic value is left in it (`is_ripe`).

Source: OCC, exercise by exception threshold of $0.01; Cboe, SPXW settlement at the close.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.options import ExerciseStyle, OptionTerms, Right, SettlementStyle
from holdfast.core.orders import FillCause
from holdfast.venues.broker.feed import Listing, Quote

SETTLEMENT_AGE_NS: Final = 15 * 60 * NANOS
EXERCISE_FROM: Final = PriceE4(100)
"""In the money by a cent."""
_DEEP_NUM, _DEEP_DEN = 3, 100
_MILLION = 1_000_000
_ZERO = PriceE4(0)


class Move(NamedTuple):
    """One movement of one position; *qty* is signed, 1/100 contract or share."""

    ticker: str
    qty: QtyE2
    price: PriceE4
    cause: FillCause


class Assignment(NamedTuple):
    """A scripted early assignment of *qty* (1/100 contract) short *ticker* at market time *at_ns*."""

    at_ns: int
    ticker: str
    qty: QtyE2


def ending(listing: Listing, held: QtyE2, spot: PriceE4) -> list[Move]:
    """What the end of a contract does to a position of *held*, the underlying standing at *spot*."""
    terms = listing.terms
    if terms is None or not held:
        return []
    worth = terms.payoff(spot)
    if terms.settlement is SettlementStyle.CASH:
        return [Move(listing.ticker, QtyE2(-held), worth, FillCause.EXPIRATION)]
    if worth < EXERCISE_FROM:
        return [Move(listing.ticker, QtyE2(-held), _ZERO, FillCause.EXPIRATION)]
    return delivery(listing, terms, held)


def delivery(listing: Listing, terms: OptionTerms, held: QtyE2) -> list[Move]:
    """*held* contracts turn into stock at the strike: exercised where long, assigned where short."""
    cause = FillCause.EXERCISE if held > 0 else FillCause.ASSIGNMENT
    sign = 1 if terms.right is Right.CALL else -1
    shares = QtyE2(sign * held * listing.multiplier)
    return [
        Move(listing.ticker, QtyE2(-held), _ZERO, cause),
        Move(terms.underlying, shares, terms.strike, cause),
    ]


def is_ripe(terms: OptionTerms, quote: Quote, spot: PriceE4) -> bool:
    """Whether holding a delivered American option is worth no more than exercising it, deep in the money."""
    worth = terms.payoff(spot)
    is_deep = worth * _DEEP_DEN > spot * _DEEP_NUM
    may = terms.style is ExerciseStyle.AMERICAN and terms.settlement is SettlementStyle.PHYSICAL
    return may and is_deep and 0 < quote.bid <= worth


def is_drawn(seed: int, ticker: str, ts_ns: int, rate_ppm: int) -> bool:
    """Whether chance assigns *ticker* in this minute: the same for the same facts."""
    digest = hashlib.sha256(f"{seed}:assign:{ticker}:{ts_ns}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _MILLION < rate_ppm


def read_assignments(text: str, start_ns: int, listings: dict[str, Listing]) -> list[Assignment]:
    """Early assignments from "3600:SPY230908C00430000=2,…": market second, short contract, contracts.

    Raises:
        BadInput: It cannot be read, or names a contract that is not listed or cannot be assigned early.
    """
    found: list[Assignment] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        when, _, rest = part.partition(":")
        ticker, _, count = rest.partition("=")
        if not (when.isdecimal() and count.isdecimal() and int(count)):
            raise BadInput(
                f"--assign-at {part[:60]!r} is not SECONDS:TICKER=COUNT",
                hint="seconds and count are whole numbers, count above 0",
            )
        listing = listings.get(ticker)
        terms = None if listing is None else listing.terms
        if terms is None:
            raise BadInput(
                f"--assign-at names {ticker[:40]!r}, which is no contract of this market",
                hint="the chain lists what is traded",
            )
        if terms.style is not ExerciseStyle.AMERICAN:
            raise BadInput(
                f"--assign-at names {ticker!r}, which cannot be exercised before its expiry",
                hint="name an American one",
            )
        found.append(Assignment(start_ns + int(when) * NANOS, ticker, QtyE2(int(count) * 100)))
    return sorted(found)
