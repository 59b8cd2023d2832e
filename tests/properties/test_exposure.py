"""What a book can lose at expiry: exact against brute force, and never too good where expiries are added up."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.money import PriceE4
from holdfast.core.options import OptionTerms, Right
from holdfast.risk.exposure import Part, Work, floor, lowers_floor, outlook, worst_loss

SPOTS = [PriceE4(spot) for spot in range(0, 160_001, 2_500)]
FAR = PriceE4(10_000_000)


def terms(strike: int, right: Right, expiry: int = 20231215) -> OptionTerms:
    return OptionTerms(
        underlying="SPY", root="SPY", expiry=expiry, right=right, strike=PriceE4(strike), expires_ns=expiry
    )


STRIKES = st.sampled_from([10_000, 20_000, 50_000, 70_000, 120_000])
RIGHTS = st.sampled_from(Right)
QUANTITIES = st.integers(-3, 3).filter(bool).map(lambda lots: lots * 100)
STOCK = st.builds(lambda lots: Part(None, lots * 5_000, 1), st.integers(-6, 6).filter(bool))
ONE_DAY = st.builds(
    lambda strike, right, qty: Part(terms(strike, right), qty, 100), STRIKES, RIGHTS, QUANTITIES
)
TWO_DAYS = st.builds(
    lambda strike, right, expiry, qty: Part(terms(strike, right, expiry), qty, 100),
    STRIKES,
    RIGHTS,
    st.sampled_from([20231215, 20240119]),
    QUANTITIES,
)


def books(option: st.SearchStrategy[Part]) -> st.SearchStrategy[list[Part]]:
    return st.lists(st.one_of(option, option, option, STOCK), max_size=5)


def works(option: st.SearchStrategy[Part]) -> st.SearchStrategy[list[Work]]:
    return st.lists(wishes(option), max_size=2)


def wishes(option: st.SearchStrategy[Part]) -> st.SearchStrategy[Work]:
    return st.builds(
        lambda parts, cash: Work(tuple(parts), cash * 1_000_000),
        st.lists(st.one_of(option, option, STOCK), min_size=1, max_size=3),
        st.integers(-2_000, 2_000),
    )


def worth(parts: list[Part] | tuple[Part, ...], spot: int) -> int:
    """Written anew, by the words of the contract."""
    total = 0
    for option, qty, multiplier in parts:
        if option is None:
            each = spot
        elif option.right is Right.CALL:
            each = max(0, spot - option.strike)
        else:
            each = max(0, option.strike - spot)
        total += each * qty * multiplier
    return total


def outcomes(parts: list[Part], orders: list[Work], spot: int) -> list[int]:
    """What every set of filled orders makes of the book at one spot."""
    results: list[int] = []
    for count in range(len(orders) + 1):
        for filled in combinations(orders, count):
            held = worth(parts, spot) + sum(worth(order.parts, spot) + order.cash for order in filled)
            results.append(held)
    return results


@pytest.mark.invariant("I3")
@given(parts=books(ONE_DAY), orders=works(ONE_DAY))
def test_the_floor_is_the_least_over_all_spots_and_fills(parts, orders):
    """On one expiry the floor equals the least that brute force finds; none is told exactly where it falls for ever."""
    least = min(min(outcomes(parts, orders, spot)) for spot in SPOTS)
    far, farther = min(outcomes(parts, orders, FAR)), min(outcomes(parts, orders, 2 * FAR))
    found = floor(parts, orders)
    if farther < far:
        assert found is None
    else:
        assert found == least


@pytest.mark.invariant("I3")
@given(
    parts=books(TWO_DAYS), orders=works(TWO_DAYS), early=st.sampled_from(SPOTS), late=st.sampled_from(SPOTS)
)
def test_several_expiries_are_never_judged_better_than_they_can_end(parts, orders, early, late):
    """Whatever the spot on each day and whatever fills, nothing ends below the floor; shares are kept to the end."""
    found = floor(parts, orders)
    if found is None:
        return
    days = {part.option.expiry for part in [*parts, *(p for o in orders for p in o.parts)] if part.option}
    last = max(days, default=0)

    def ends_at(part: Part) -> int:
        return late if part.option is None or part.option.expiry == last else early

    for count in range(len(orders) + 1):
        for filled in combinations(orders, count):
            total = sum(worth([part], ends_at(part)) for part in parts)
            total += sum(
                order.cash + sum(worth([part], ends_at(part)) for part in order.parts) for order in filled
            )
            assert total >= found


@given(parts=books(ONE_DAY), more=works(ONE_DAY))
def test_a_further_working_order_never_raises_the_floor(parts, more):
    """To work an order is to be able to end as without it, and perhaps worse."""
    alone, together = outlook(parts), outlook(parts, more)
    assert together.least <= alone.least
    assert together.slope <= alone.slope <= 0


@given(parts=books(ONE_DAY), orders=works(ONE_DAY))
def test_to_close_everything_leaves_what_still_works(parts, orders):
    """A book and its exact opposite come to nothing: the floor is that of the working orders alone."""
    opposite = [Part(part.option, -part.qty, part.multiplier) for part in parts]
    assert floor([*parts, *opposite], orders) == floor([], orders)


@given(parts=books(ONE_DAY), orders=works(ONE_DAY), wish=wishes(ONE_DAY))
def test_an_order_lowers_the_floor_as_brute_force_says(parts, orders, wish):
    """It lowers the floor exactly when the worst outcome falls, its cash counted and also with its cash left out."""
    every = [part for held in (parts, wish.parts, *(order.parts for order in orders)) for part in held]
    last = max((part.option.strike for part in every if part.option), default=0)
    near = [spot for spot in SPOTS if spot <= last]

    def worst(held: list[Part], cash: int, spots: list[int]) -> int:
        return min(min(outcomes(held, orders, spot)) for spot in spots) + cash

    after = [*parts, *wish.parts]
    falls = worst(after, 0, [2 * FAR]) - worst(after, 0, [FAR])
    fell = worst(parts, 0, [2 * FAR]) - worst(parts, 0, [FAR])
    is_kept = min(0, falls) >= min(0, fell) and any(
        worst(after, cash, near) >= worst(parts, 0, near) for cash in (0, wish.cash)
    )
    assert lowers_floor(parts, orders, wish) is not is_kept


@given(parts=books(ONE_DAY).filter(bool), cash=st.integers(-2_000_000_000, 2_000_000_000))
def test_an_order_loses_at_most_what_its_payoff_leaves_of_its_price(parts, cash):
    """The loss of an order alone is its price less its least payoff, and never below zero."""
    loss = worst_loss(parts, cash)
    if loss is not None:
        assert loss == max(0, -min(worth(parts, spot) + cash for spot in SPOTS))
    else:
        assert worth(parts, 2 * FAR) < worth(parts, FAR)
