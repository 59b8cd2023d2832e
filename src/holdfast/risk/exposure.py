"""What options and stock are worth at expiry at worst: exact integers, no model, no volatility.

A payoff at expiry is a line with a kink at every strike. What options of one expiry and the stock are worth
together is therefore least at a spot of zero, at a strike, or falls without end above the highest one; looking
there is looking everywhere. A working order is taken as filled or not, spot by spot, whichever is worse: that
adds only kinks at which the sum bends down, which are never its lowest point.

    floor(parts, works)           the least worth of the whole; None where nothing bounds the loss
    worst_loss(parts, cash)       what one order alone can lose
    lowers_floor(parts, works, order)   whether an order makes the worst outcome worse

Everything is of one underlying. Several expiries are judged apart and added up, each at its own worst spot, which
is never better than the truth: a long of another expiry covers nothing. Shares stand by the earliest expiry
that needs them and only once; what is left of them stands by the earliest. An order over several expiries counts
at each of them as filled or not, its cash at its earliest.

Units: a price in 1e-4 dollar times a quantity in 1/100 contract times the multiplier is 1e-6 dollar.
Limits: the underlying never falls below zero. Dividends, interest, pins and early assignment's fees are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from holdfast.core.money import MoneyE6, PriceE4
from holdfast.core.options import OptionTerms, Right

_ZERO = PriceE4(0)


class Part(NamedTuple):
    """One line of a book or of an order.

    Attributes:
        option: Its terms; None for the underlying itself.
        qty: Signed, 1/100 contract or share.
        multiplier: Units of the underlying per contract.
    """

    option: OptionTerms | None
    qty: int
    multiplier: int

    @property
    def units(self) -> int:
        """Signed units of the underlying that it concerns, in 1/100."""
        return self.qty * self.multiplier

    @property
    def slope(self) -> int:
        """Units by which it moves with a spot above every strike, in 1/100."""
        if self.option is not None and self.option.right is Right.PUT:
            return 0
        return self.units


class Work(NamedTuple):
    """An order that may fill or not.

    Attributes:
        parts: What it would add.
        cash: What it would add to cash, 1e-6 dollar; negative for a debit.
        or_else: Other ways it may go, of a plan whose legs come one by one: at most one of all happens.
    """

    parts: tuple[Part, ...]
    cash: int
    or_else: tuple[Work, ...] = ()

    @property
    def ways(self) -> tuple[Work, ...]:
        """Each way it may go."""
        return (self, *self.or_else) if self.or_else else (self,)

    @property
    def every_part(self) -> Iterator[Part]:
        """The parts of every way."""
        return (part for way in self.ways for part in way.parts)


class Outlook(NamedTuple):
    """The worst of a book.

    Attributes:
        least: Worth at the worst spot up to the highest strike, 1e-6 dollar.
        slope: Units by which it falls with every further rise, in 1/100; 0 where it does not fall.
    """

    least: int
    slope: int

    @property
    def floor(self) -> MoneyE6 | None:
        """The least worth over all spots; None where there is none."""
        return None if self.slope < 0 else MoneyE6(self.least)


Expiry = tuple[int, int]
"""Day and UTC ns: what expires on one day in the morning and in the evening does not cover each other."""


def floor(parts: Sequence[Part], works: Sequence[Work] = ()) -> MoneyE6 | None:
    """The least that *parts* are worth at expiry, each of *works* filled or not; None where it has no end."""
    return outlook(parts, works).floor


def worst_loss(parts: Sequence[Part], cash: int) -> MoneyE6 | None:
    """What an order that adds *parts* and *cash* can lose by itself, at least 0; None where it has no end."""
    least = floor(parts)
    return None if least is None else MoneyE6(max(0, -(least + cash)))


def lowers_floor(parts: Sequence[Part], works: Sequence[Work], order: Work) -> bool:
    """Whether *order*, filled at its limit, makes the worst outcome worse.

    It does not where the floor stays with its cash counted, or with its cash left out: to buy a short leg back
    takes risk away whatever it costs, and to sell something at a price above what it guarantees does too.
    """
    # Where nothing bounds the loss, least is of the spots looked at: they must be the same ones.
    spots = _kinks(parts, [*works, order])
    before = _sum_of_expiries(parts, works, spots)
    after = _sum_of_expiries([*parts, *order.parts], works, spots)
    is_slope_kept = after.slope >= before.slope
    return not (is_slope_kept and after.least + max(0, order.cash) >= before.least)


def outlook(parts: Sequence[Part], works: Sequence[Work] = ()) -> Outlook:
    """The worst of *parts* with each of *works* filled or not."""
    return _sum_of_expiries(parts, works, _kinks(parts, works))


def expiry_of(part: Part) -> Expiry | None:
    """When it expires; None for stock."""
    return None if part.option is None else (part.option.expiry, part.option.expires_ns)


def _sum_of_expiries(parts: Sequence[Part], works: Sequence[Work], spots: Sequence[PriceE4]) -> Outlook:
    least = slope = 0
    for held, working in _by_expiry(parts, works):
        worths, rise = _line(held, 0, spots)
        for work in working:
            filled, change = _line(work.parts, work.cash, spots)
            for way in work.or_else:
                instead, turn = _line(way.parts, way.cash, spots)
                filled, change = list(map(min, filled, instead)), min(change, turn)
            worths = [worth + min(0, more) for worth, more in zip(worths, filled, strict=True)]
            rise += min(0, change)
        least += min(worths)
        slope += min(0, rise)
    return Outlook(least, slope)


def _line(parts: Iterable[Part], cash: int, spots: Sequence[PriceE4]) -> tuple[list[int], int]:
    """Worth at each of *spots*, which hold zero and every strike, ascending; and the slope beyond the last."""
    level, slope = cash, 0
    turns: dict[PriceE4, int] = {}
    for option, qty, multiplier in parts:
        units = qty * multiplier
        if option is None:
            slope += units
            continue
        turns[option.strike] = turns.get(option.strike, 0) + units
        if option.right is Right.PUT:
            level += units * option.strike
            slope -= units
    worths: list[int] = []
    at = _ZERO
    for spot in spots:
        level += slope * (spot - at)
        worths.append(level)
        slope += turns.get(spot, 0)
        at = spot
    return worths, slope


def _kinks(parts: Sequence[Part], works: Sequence[Work]) -> list[PriceE4]:
    """Zero and every strike, ascending: where a least worth can lie."""
    strikes = {part.option.strike for part in _all_parts(parts, works) if part.option is not None}
    return [_ZERO, *sorted(strikes)]


def _by_expiry(parts: Sequence[Part], works: Sequence[Work]) -> list[tuple[list[Part], list[Work]]]:
    """The book cut into expiries, earliest first, every share and every order's cash in one of them."""
    ends = sorted({end for part in _all_parts(parts, works) if (end := expiry_of(part)) is not None})
    if len(ends) < 2:
        return [(list(parts), list(works))]
    first = ends[0]
    books: dict[Expiry, tuple[list[Part], list[Work]]] = {end: ([], []) for end in ends}
    for part in parts:
        end = expiry_of(part)
        if end is not None:
            books[end][0].append(part)
    for work in works:
        for end, cut in _cut(work, first):
            books[end][1].append(cut)
    shares = sum(part.units for part in parts if part.option is None)
    for held, working in books.values():
        bare = _slope(held) + sum(min(0, *(_slope(way.parts) for way in work.ways)) for work in working)
        # Long shares go where calls are short, short shares where calls are long.
        taken = min(shares, max(0, -bare)) if shares > 0 else max(shares, -max(0, bare))
        held.append(Part(None, taken, 1))
        shares -= taken
    books[first][0].append(Part(None, shares, 1))
    return list(books.values())


def _cut(work: Work, first: Expiry) -> list[tuple[Expiry, Work]]:
    """An order cut into its expiries; its stock and its cash go with the earliest of them."""
    cuts: dict[Expiry, list[Work]] = {}
    for way in work.ways:
        own = sorted({end for part in way.parts if (end := expiry_of(part)) is not None})
        home = own[0] if own else first
        for end in own or [first]:
            parts = tuple(part for part in way.parts if (expiry_of(part) or home) == end)
            cuts.setdefault(end, []).append(Work(parts, way.cash if end == home else 0))
    return [(end, ways[0]._replace(or_else=tuple(ways[1:]))) for end, ways in cuts.items()]


def _all_parts(parts: Sequence[Part], works: Sequence[Work]) -> Iterable[Part]:
    yield from parts
    for work in works:
        yield from work.every_part


def _slope(parts: Iterable[Part]) -> int:
    return sum(part.slope for part in parts)
