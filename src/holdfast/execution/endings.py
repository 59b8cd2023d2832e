"""How an option position ended that the venue no longer has and told no execution of: a decision table, pure.

Some venues let expiry, exercise and assignment show in positions alone. What is known then is what of each option
theirs lacks, and how many shares of its underlying they have that we do not: `explain` finds what accounts for both.

| what theirs lacks | when | may have ended as |
| --- | --- | --- |
| American, delivers shares | any time | `exercise` (long) or `assignment` (short): shares at the strike |
| delivers shares, all of it gone | expired, and `ENDED_SECS` passed | the same, or `expiration` at 0 |
| settles in cash, all of it gone | expired, and `ENDED_SECS` passed | `expiration` at the payoff |
| anything else | | nothing here: it stays a difference |

At an expiry the underlying stood somewhere: calls below and puts above that price are delivered, the others expire; at
a strike itself each contract there may go either way. Each such course that moves exactly the shares which theirs
have is an explanation. A price of the underlying seen at that expiry leaves only the courses within `MARGIN_BP` of it.

It is explained where one explanation is left; those of equal shares and equal cash are one. Before its expiry a
missing option is explained only where all options missing of that underlying move its shares the same way: what
cancels out is no evidence of anything.

What the quantity tells and the cash does not (`Amount`):

| amount | where | booked at |
| --- | --- | --- |
| known | shares came at the strike; worthless by a price seen at the expiry, or beside options that were delivered | that |
| claimed | gone without a share, and no such price: worthless, or closed by somebody before | 0 |
| claimed | settled in cash, the underlying seen at its expiry | that payoff; the official value may differ |
| unknown | settled in cash and no such price; or no share moved and courses that cost differently remain | 0, invented by nobody: whoever books it must let nothing increase until the amount is told |

Limits: one underlying at a time. An adjusted contract, which delivers something else than its multiplier of shares, fits
no course. More than `MOST_COURSES` possible courses are not looked through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import groupby, pairwise, product
from math import prod
from typing import NamedTuple

from holdfast.core.clock import NANOS
from holdfast.core.money import ONE_CONTRACT_E2, PriceE4, QtyE2, format_qty
from holdfast.core.options import ExerciseStyle, OptionTerms, Right, SettlementStyle
from holdfast.core.orders import FillCause

ENDED_SECS = 60
"""How long after a contract's expiry its executions may still be told before its absence means its end."""

MARGIN_BP = 50
"""How far the underlying, as seen, may be from the price that decided: trading goes on after the close."""

MOST_COURSES = 4096
_WORTHLESS = PriceE4(0)
_LOWEST, _HIGHEST = -1, 2**62


class Amount(StrEnum):
    """What is known of the cash that an ending moved."""

    KNOWN = "known"
    CLAIMED = "claimed"
    UNKNOWN = "unknown"


class Lack(NamedTuple):
    """An option of which theirs have less than we do; quantities signed, 1/100 contract."""

    ticker: str
    terms: OptionTerms
    multiplier: int
    ours: QtyE2
    theirs: QtyE2

    @property
    def gone(self) -> QtyE2:
        """What ended, signed as it was held."""
        return QtyE2(self.ours - self.theirs)

    @property
    def shares(self) -> int:
        """What its delivery adds to the shares held, 1/100: who exercises a call buys, who is assigned one sells."""
        return self.gone * self.multiplier * (1 if self.terms.right is Right.CALL else -1)


class Line(NamedTuple):
    """One movement of one position: *qty* is signed and is added to it, 1/100 contract or share."""

    ticker: str
    qty: QtyE2
    price: PriceE4
    multiplier: int
    cause: FillCause
    amount: Amount
    option: str


class _Course(NamedTuple):
    """One way in which the options of one expiry can have ended: how many contracts of each were delivered."""

    low: int
    high: int
    delivered: tuple[int, ...]

    def is_near(self, spot: PriceE4) -> bool:
        """Whether the underlying, seen at *spot*, may have stood where this happens."""
        margin = spot * MARGIN_BP // 10_000
        return self.low - margin <= spot <= self.high + margin


class _Way(NamedTuple):
    """A course of every expiry: contracts delivered by ticker, and what they come to."""

    delivered: dict[str, int]
    shares: int
    cash: int


def explain(
    lacks: Sequence[Lack], shares: QtyE2, *, now_ns: int, spots: Mapping[int, PriceE4] = {}
) -> list[Line] | str:
    """What ended *lacks*, all of one underlying, as movements that make our positions theirs; or why that is not known.

    Args:
        lacks: Every option of the underlying in which we and the venue differ.
        shares: What the venue has of the underlying more than we do, 1/100.
        now_ns: UTC.
        spots: The underlying as seen at each expiry, by `expires_ns`.
    """
    early: list[Lack] = []
    cash: list[Lack] = []
    delivered: list[Lack] = []
    for lack in lacks:
        why_not = _sort(lack, now_ns, early, cash, delivered)
        if why_not:
            return f"{lack.ticker}: {why_not}"
    if len({lack.shares > 0 for lack in early}) > 1:
        return "options missing before their expiry that would move shares both ways"
    before = sum(lack.shares for lack in early)
    groups = _by_expiry(delivered)
    courses = [_courses(group, spots.get(group[0].terms.expires_ns)) for group in groups]
    if prod(map(len, courses)) > MOST_COURSES:
        return "too many ways in which it may have ended"
    ways = [way for picked in product(*courses) if (way := _way(groups, picked)).shares == shares - before]
    if not ways:
        return f"no way in which it may have ended moves {format_qty(shares)} shares"
    way, is_told = min(ways, key=lambda one: sum(one.delivered.values())), True
    if len({one.cash for one in ways}) > 1:
        if shares or early:
            return "several ways in which it may have ended"
        way, is_told = _Way(dict.fromkeys(way.delivered, 0), 0, 0), False
    lines = [line for lack in early for line in _delivery(lack, lack.gone)]
    for group in groups:
        is_sure = group[0].terms.expires_ns in spots or any(way.delivered[lack.ticker] for lack in group)
        worthless = Amount.UNKNOWN if not is_told else Amount.KNOWN if is_sure else Amount.CLAIMED
        lines += [line for lack in group for line in _ended(lack, way.delivered[lack.ticker], worthless)]
    return lines + [_paid(lack, spots.get(lack.terms.expires_ns)) for lack in cash]


def _sort(lack: Lack, now_ns: int, early: list[Lack], cash: list[Lack], delivered: list[Lack]) -> str:
    """Put *lack* with those of its kind; why it is of none, or ""."""
    terms, gone, ours = lack.terms, lack.gone, lack.ours
    if not ours or gone * ours <= 0 or abs(gone) > abs(ours):
        return "the venue has more of it than we do, or the other side of it"
    if gone % ONE_CONTRACT_E2:
        return "part of a contract is missing"
    is_delivered = terms.settlement is SettlementStyle.PHYSICAL
    if not lack.theirs and 0 < terms.expires_ns <= now_ns - ENDED_SECS * NANOS:
        (delivered if is_delivered else cash).append(lack)
    elif is_delivered and terms.style is ExerciseStyle.AMERICAN:
        early.append(lack)
    else:
        return "it cannot have ended yet, or not in part"
    return ""


def _by_expiry(lacks: Sequence[Lack]) -> list[list[Lack]]:
    def moment(lack: Lack) -> int:
        return lack.terms.expires_ns

    return [list(group) for _, group in groupby(sorted(lacks, key=moment), key=moment)]


def _courses(group: Sequence[Lack], spot: PriceE4 | None) -> list[_Course]:
    """What can have become of the options of one expiry, with the underlying seen at *spot*."""
    return [course for course in _all_courses(group) if spot is None or course.is_near(spot)]


def _all_courses(group: Sequence[Lack]) -> Iterator[_Course]:
    """One for each stretch between strikes, and at each strike one for every split of the contracts there."""
    strikes = sorted({int(lack.terms.strike) for lack in group})
    edges = [_LOWEST, *strikes, _HIGHEST]
    for low, high in pairwise(edges):
        yield _Course(low, high, tuple(_count(lack) * _is_in(lack, low, high) for lack in group))
    for strike in strikes:
        splits = [
            range(_count(lack) + 1)
            if lack.terms.strike == strike
            else (_count(lack) * _is_in(lack, strike, strike),)
            for lack in group
        ]
        if prod(map(len, splits)) <= MOST_COURSES:
            yield from (_Course(strike, strike, split) for split in product(*splits))


def _count(lack: Lack) -> int:
    return abs(lack.gone) // ONE_CONTRACT_E2


def _is_in(lack: Lack, low: int, high: int) -> bool:
    """Whether it is in the money with the underlying anywhere between *low* and *high*."""
    strike = lack.terms.strike
    return strike <= low if lack.terms.right is Right.CALL else strike >= high


def _way(groups: Sequence[Sequence[Lack]], picked: Sequence[_Course]) -> _Way:
    delivered: dict[str, int] = {}
    shares = cash = 0
    for group, course in zip(groups, picked, strict=True):
        for lack, count in zip(group, course.delivered, strict=True):
            delivered[lack.ticker] = count
            moved = lack.shares * count // _count(lack)
            shares += moved
            cash -= moved * lack.terms.strike
    return _Way(delivered, shares, cash)


def _ended(lack: Lack, count: int, amount: Amount) -> Iterator[Line]:
    """*count* contracts delivered, the others closed at 0; *amount* says how sure it is that this is what they paid."""
    sign = 1 if lack.gone > 0 else -1
    taken = QtyE2(sign * count * ONE_CONTRACT_E2)
    if taken:
        yield from _delivery(lack, taken)
    if rest := QtyE2(lack.gone - taken):
        yield Line(
            lack.ticker,
            QtyE2(-rest),
            _WORTHLESS,
            lack.multiplier,
            FillCause.EXPIRATION,
            amount,
            lack.ticker,
        )


def _delivery(lack: Lack, taken: QtyE2) -> Iterator[Line]:
    """*taken* contracts turned into shares at the strike."""
    terms = lack.terms
    cause = FillCause.EXERCISE if taken > 0 else FillCause.ASSIGNMENT
    shares = QtyE2(lack.shares * taken // lack.gone)
    yield Line(lack.ticker, QtyE2(-taken), _WORTHLESS, lack.multiplier, cause, Amount.KNOWN, lack.ticker)
    yield Line(terms.underlying, shares, terms.strike, 1, cause, Amount.KNOWN, lack.ticker)


def _paid(lack: Lack, spot: PriceE4 | None) -> Line:
    """Settled in cash at what the underlying, seen at its expiry, makes of it."""
    price = _WORTHLESS if spot is None else lack.terms.payoff(spot)
    amount = Amount.UNKNOWN if spot is None else Amount.CLAIMED
    return Line(
        lack.ticker,
        QtyE2(-lack.gone),
        price,
        lack.multiplier,
        FillCause.EXPIRATION,
        amount,
        lack.ticker,
    )
