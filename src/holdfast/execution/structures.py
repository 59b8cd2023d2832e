"""Option structures and how they are picked from a chain: by delta, by width, and only from what can be executed.

    iron_condor     short put and short call at the delta, long wings a width further out        credit
    put_credit, call_credit     a short leg at the delta, a long one a width further out        credit
    put_debit, call_debit       a long leg at the delta, a short one a width further out        debit
    short_strangle, long_strangle       a put and a call at the delta             credit, debit; the short one is unbounded
    long_call, long_put         one long leg at the delta                                       debit

A structure is written as it is held: positive ratios long, negative ones short. Entering buys one unit of it,
leaving sells it; its price is the net debit, negative for a credit. A single short leg trades under its own name.

A leg is picked only from contracts with a two-sided, uncrossed quote and known Greeks: what cannot be measured is
not sold. Where nothing fits, the answer says which leg was missing.

Limits: one expiry per structure, ratios of one; days are calendar days.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from enum import StrEnum
from typing import NamedTuple

import msgspec

from holdfast.core.errors import BadInput
from holdfast.core.greeks import Greeks
from holdfast.core.instruments import COMBO_CENTS, ComboLeg, Instrument, InstrumentKind
from holdfast.core.money import MoneyE6, PriceE4, QtyE2, format_price
from holdfast.core.options import OptionTerms, Right, combo_ticker
from holdfast.core.signals import Action
from holdfast.risk.exposure import Part, worst_loss

_ONE = QtyE2(100)
_MILLION = 1_000_000


class StructureKind(StrEnum):
    """What is built."""

    IRON_CONDOR = "iron_condor"
    PUT_CREDIT = "put_credit"
    CALL_CREDIT = "call_credit"
    PUT_DEBIT = "put_debit"
    CALL_DEBIT = "call_debit"
    SHORT_STRANGLE = "short_strangle"
    LONG_STRANGLE = "long_strangle"
    LONG_CALL = "long_call"
    LONG_PUT = "long_put"


class Quoted(NamedTuple):
    """One contract of a chain with what is known of it now; None is unknown or nobody there."""

    instrument: Instrument
    bid: PriceE4 | None
    ask: PriceE4 | None
    greeks: Greeks | None

    @property
    def terms(self) -> OptionTerms:
        """Its terms.

        Raises:
            BadInput: It is no option.
        """
        if self.instrument.option is None:
            raise BadInput(f"{self.instrument.ticker!r} in a chain is no option")
        return self.instrument.option


class StructureLeg(msgspec.Struct, frozen=True):
    """One contract and how many of it per unit, signed."""

    instrument: Instrument
    ratio: int

    @property
    def ticker(self) -> str:
        """The contract."""
        return self.instrument.ticker


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """What is held per unit.

    Attributes:
        kind: How it was picked.
        symbol: The underlying.
        legs: Longs and shorts.
    """

    kind: StructureKind
    symbol: str
    legs: tuple[StructureLeg, ...]

    @property
    def ticker(self) -> str:
        """What is ordered: the combination, or the one leg."""
        return closing_ticker({leg.ticker: leg.ratio for leg in self.legs})

    @property
    def entry_action(self) -> Action:
        """Buying a unit; a single short leg is sold."""
        return Action.SELL if len(self.legs) == 1 and self.legs[0].ratio < 0 else Action.BUY

    def entry_price(self, quotes: Mapping[str, tuple[PriceE4 | None, PriceE4 | None]]) -> PriceE4 | None:
        """The net debit that is executable at once: asks of longs less bids of shorts; None where a side is missing."""
        return entry_price(self.legs, quotes)

    def max_loss(self, debit: PriceE4) -> MoneyE6 | None:
        """The most that one unit entered at *debit* can lose by expiry, fees left out; None is unbounded."""
        multiplier = self.legs[0].instrument.multiplier
        parts = tuple(
            Part(leg.instrument.option, QtyE2(leg.ratio * _ONE), leg.instrument.multiplier)
            for leg in self.legs
        )
        loss = worst_loss(parts, MoneyE6(-debit * _ONE * multiplier))
        return None if loss is None else MoneyE6(loss)

    def net_delta_e6(self, chain: Mapping[str, Quoted]) -> int | None:
        """Of one unit, per unit of the underlying; None where a leg has no Greeks."""
        total = 0
        for leg in self.legs:
            quoted = chain.get(leg.ticker)
            if quoted is None or quoted.greeks is None:
                return None
            total += leg.ratio * quoted.greeks.delta_e6
        return total


class StructurePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for.

    Attributes:
        kind: What to build.
        delta_e6: Of the leg that is chosen by delta, absolute, 1/1,000,000; the nearest one is taken.
        width: Dollars between a leg chosen by delta and its wing, at least.
        min_days, max_days: Calendar days to expiry, inclusive; the nearest expiry that offers every leg is taken.
        max_debit: What a unit may cost at most, per unit of the underlying; below zero what it must bring in at least.
            A dearer one is passed over, for the next expiry and then for the next plan. None, the default, leaves that
            to the limits, which refuse it.
    """

    kind: StructureKind = StructureKind.IRON_CONDOR
    delta_e6: int = 160_000
    width: PriceE4 = PriceE4(50_000)
    min_days: int = 1
    max_days: int = 60
    max_debit: PriceE4 | None = None

    def describe(self) -> str:
        """For people and for the record: "long_call, delta 0.16, 1 to 60 days, for at most 5.0000"."""
        said = (
            f"{self.kind.value}, delta {self.delta_e6 / _MILLION:g}, {self.min_days} to {self.max_days} days"
        )
        if any(leg.is_wing for leg in RECIPES[self.kind]):
            said += f", width {format_price(self.width)}"
        if self.max_debit is None:
            return said
        bound = "at most" if self.max_debit >= 0 else "a credit of at least"
        return f"{said}, for {bound} {format_price(PriceE4(abs(self.max_debit)))}"


class Missing(NamedTuple):
    """Why nothing could be picked."""

    reason: str


class _LegPlan(NamedTuple):
    """One leg: which right, which sign, and whether it is a wing of the delta leg of its right."""

    right: Right
    ratio: int
    is_wing: bool = False


_C, _P, _K = Right.CALL, Right.PUT, StructureKind

RECIPES: Mapping[StructureKind, tuple[_LegPlan, ...]] = {
    _K.IRON_CONDOR: (_LegPlan(_P, -1), _LegPlan(_P, 1, True), _LegPlan(_C, -1), _LegPlan(_C, 1, True)),
    _K.PUT_CREDIT: (_LegPlan(_P, -1), _LegPlan(_P, 1, True)),
    _K.CALL_CREDIT: (_LegPlan(_C, -1), _LegPlan(_C, 1, True)),
    _K.PUT_DEBIT: (_LegPlan(_P, 1), _LegPlan(_P, -1, True)),
    _K.CALL_DEBIT: (_LegPlan(_C, 1), _LegPlan(_C, -1, True)),
    _K.SHORT_STRANGLE: (_LegPlan(_P, -1), _LegPlan(_C, -1)),
    _K.LONG_STRANGLE: (_LegPlan(_P, 1), _LegPlan(_C, 1)),
    _K.LONG_CALL: (_LegPlan(_C, 1),),
    _K.LONG_PUT: (_LegPlan(_P, 1),),
}


def pick(plan: StructurePlan, chain: Iterable[Quoted], *, today: date) -> Structure | Missing:
    """The structure that *plan* describes, of the nearest expiry that offers every leg; or which leg was missing."""
    by_expiry: dict[int, list[Quoted]] = {}
    for quoted in chain:
        by_expiry.setdefault(quoted.terms.expiry, []).append(quoted)
    lacking = Missing(f"no expiry in {plan.min_days} to {plan.max_days} days")
    for expiry in sorted(by_expiry):
        if not plan.min_days <= days_to(expiry, today) <= plan.max_days:
            continue
        found = _of_one_expiry(plan, by_expiry[expiry])
        if isinstance(found, Structure):
            return found
        lacking = found
    return lacking


def days_to(expiry: int, today: date) -> int:
    """Calendar days from *today* to *expiry* (yyyymmdd)."""
    return (date(expiry // 10_000, expiry // 100 % 100, expiry % 100) - today).days


def _of_one_expiry(plan: StructurePlan, chain: Sequence[Quoted]) -> Structure | Missing:
    legs: list[StructureLeg] = []
    near: Quoted | None = None
    for want in RECIPES[plan.kind]:
        side = [quoted for quoted in chain if quoted.terms.right is want.right and _is_executable(quoted)]
        if want.is_wing:
            found = None if near is None else _wing(side, near, plan.width)
        else:
            found = near = _nearest_delta(side, plan.delta_e6)
        if found is None:
            return Missing(f"no {'wing' if want.is_wing else 'leg'} among the {want.right.name.lower()}s")
        legs.append(StructureLeg(found.instrument, want.ratio))
    if plan.max_debit is not None:
        debit = entry_price(legs, {quoted.instrument.ticker: (quoted.bid, quoted.ask) for quoted in chain})
        if debit is None or debit > plan.max_debit:
            most = format_price(PriceE4(abs(plan.max_debit)))
            return Missing(
                f"none that costs {most} or less" if plan.max_debit >= 0 else f"none that brings in {most}"
            )
    return Structure(kind=plan.kind, symbol=legs[0].instrument.underlying, legs=tuple(legs))


def _is_executable(quoted: Quoted) -> bool:
    """Whether both sides are there, uncrossed and above zero, and the Greeks are known."""
    bid, ask = quoted.bid, quoted.ask
    return bid is not None and ask is not None and 0 < bid <= ask and quoted.greeks is not None


def _nearest_delta(side: Iterable[Quoted], delta_e6: int) -> Quoted | None:
    def distance(quoted: Quoted) -> tuple[int, str]:
        greeks = quoted.greeks
        return (abs(abs(greeks.delta_e6) - delta_e6) if greeks else 0, quoted.instrument.ticker)

    return min(side, key=distance, default=None)


def _wing(side: Iterable[Quoted], near: Quoted, width: PriceE4) -> Quoted | None:
    """The nearest strike at least *width* further out of the money than *near*."""
    outwards = 1 if near.terms.right is Right.CALL else -1
    further = [quoted for quoted in side if outwards * (quoted.terms.strike - near.terms.strike) >= width]
    return min(further, key=lambda quoted: outwards * quoted.terms.strike, default=None)


def entry_price(
    legs: Iterable[StructureLeg], quotes: Mapping[str, tuple[PriceE4 | None, PriceE4 | None]]
) -> PriceE4 | None:
    """The net debit at which *legs* can be entered at once, from bid and ask; None where a side is missing."""
    debit = 0
    for leg in legs:
        bid, ask = quotes.get(leg.ticker, (None, None))
        side = ask if leg.ratio > 0 else bid
        if side is None:
            return None
        debit += leg.ratio * side
    return PriceE4(debit)


def closing_ticker(held: Mapping[str, int]) -> str:
    """What is ordered to trade *held* legs (signed quantities) as one: a combination, or the one leg.

    Raises:
        BadInput: Nothing is held.
    """
    legs = [(ticker, qty) for ticker, qty in held.items() if qty]
    if not legs:
        raise BadInput("a closing order needs something that is held")
    return legs[0][0] if len(legs) == 1 else combo_ticker(legs)


def as_one(legs: tuple[StructureLeg, ...]) -> Instrument:
    """What holding *legs* is, as one instrument that a gate can judge."""
    first = legs[0].instrument
    if len(legs) == 1:
        return first
    return Instrument(
        venue=first.venue,
        ticker=combo_ticker([(leg.ticker, leg.ratio) for leg in legs]),
        kind=InstrumentKind.COMBO,
        legs=tuple(ComboLeg(leg.instrument, leg.ratio) for leg in sorted(legs, key=lambda leg: leg.ticker)),
        multiplier=first.multiplier,
        fee_per_contract=first.fee_per_contract,
        price_ranges=COMBO_CENTS,
        close_ns=first.close_ns,
        event=first.event,
    )
