"""Structures from a chain: which legs, at which price, with which loss."""

from datetime import date

import pytest
from support.desk import chain, option_ticker_of

from holdfast.core.money import MoneyE6, PriceE4
from holdfast.core.options import parse_combo_ticker
from holdfast.core.signals import Action
from holdfast.execution.legging import entry_order, next_leg_out, worst_states
from holdfast.execution.structures import (
    RECIPES,
    Missing,
    Structure,
    StructureKind,
    StructurePlan,
    days_to,
    pick,
)

TODAY = date(2026, 11, 20)


def picked(kind, **plan):
    fields = {"delta_e6": 160_000, "width": PriceE4(50_000), "min_days": 1, "max_days": 60} | plan
    return pick(StructurePlan(kind=kind, **fields), chain(), today=TODAY)


@pytest.mark.parametrize("kind", StructureKind)
def test_every_kind_is_picked_with_its_signs_and_one_expiry(kind):
    """The legs are as the recipe says, of one underlying and expiry, all executable."""
    structure = picked(kind)
    assert isinstance(structure, Structure)
    assert [leg.ratio for leg in structure.legs] == [want.ratio for want in RECIPES[kind]]
    assert len({leg.instrument.option.expiry for leg in structure.legs}) == 1
    assert structure.symbol == "SPY"


def test_a_condor_has_its_wings_outside_and_at_least_the_width_away():
    """Short legs at the delta, long ones further out of the money."""
    put, low, call, high = (leg.instrument.option.strike for leg in picked(StructureKind.IRON_CONDOR).legs)
    assert low <= put - 50_000
    assert high >= call + 50_000
    assert put < call


def test_what_is_dearer_than_its_plan_allows_is_passed_over():
    """A strangle at its own price is picked, a ten-thousandth below it is not; a credit counts as what it brings in."""
    strangle, condor = StructureKind.LONG_STRANGLE, StructureKind.IRON_CONDOR
    quotes = {one.instrument.ticker: (one.bid, one.ask) for one in chain()}
    for kind, said in ((strangle, "none that costs"), (condor, "none that brings in")):
        first = picked(kind)
        price, days = first.entry_price(quotes), days_to(first.legs[0].instrument.option.expiry, TODAY)
        assert isinstance(picked(kind, max_debit=price, max_days=days), Structure)
        found = picked(kind, max_debit=price - 1, max_days=days)
        assert isinstance(found, Missing)
        assert said in found.reason


def test_a_structures_price_and_loss_are_those_of_its_legs():
    """A credit condor's debit is negative, and it loses at most its width less the credit."""
    structure = picked(StructureKind.IRON_CONDOR)
    quotes = {one.instrument.ticker: (one.bid, one.ask) for one in chain()}
    debit = structure.entry_price(quotes)
    assert debit < 0
    assert structure.max_loss(debit) == MoneyE6((50_000 + debit) * 100 * 100)
    assert structure.entry_action is Action.BUY
    assert dict(parse_combo_ticker(structure.ticker)) == {leg.ticker: leg.ratio for leg in structure.legs}


def test_the_loss_of_a_short_strangle_has_no_end():
    """Naked short calls are unbounded, and said to be."""
    assert picked(StructureKind.SHORT_STRANGLE).max_loss(PriceE4(-10_000)) is None


@pytest.mark.invariant("I4")
def test_what_cannot_be_measured_or_executed_is_not_picked():
    """Contracts without Greeks, a side, or with a crossed quote are as good as absent, and named."""
    blind = [one._replace(greeks=None) for one in chain()]
    plan = StructurePlan(kind=StructureKind.IRON_CONDOR)
    assert pick(plan, blind, today=TODAY) == Missing("no leg among the puts")
    crossed = [one._replace(bid=PriceE4(one.ask + 100)) for one in chain()]
    assert isinstance(pick(plan, crossed, today=TODAY), Missing)
    assert pick(plan, chain(), today=date(2027, 6, 1)) == Missing("no expiry in 1 to 60 days")


def test_a_price_with_a_missing_side_is_unknown():
    """Nothing is invented for a leg that nobody sells."""
    structure = picked(StructureKind.CALL_DEBIT)
    quotes = {one.instrument.ticker: (one.bid, one.ask) for one in chain()}
    quotes[structure.legs[0].ticker] = (PriceE4(100), None)
    assert structure.entry_price(quotes) is None


def test_legs_go_in_protected_and_come_out_shorts_first():
    """At no moment is a short leg held without what bounds it."""
    legs = picked(StructureKind.IRON_CONDOR).legs
    assert [leg.ratio for leg in entry_order(legs)] == [1, 1, -1, -1]
    for state in worst_states(legs):
        held = [leg.ratio for leg in state]
        assert held.count(1) >= held.count(-1)
    held = {leg.ticker: leg.ratio * 100 for leg in legs}
    out = []
    while held:
        ticker, action = next_leg_out(held)
        out.append((held.pop(ticker) > 0, action))
    assert out == [(False, Action.BUY)] * 2 + [(True, Action.SELL)] * 2


def test_tickers_of_the_chain_are_occ_symbols():
    """The helper's chain names contracts as the market does."""
    assert chain()[0].instrument.ticker == option_ticker_of(chain()[0].instrument)
