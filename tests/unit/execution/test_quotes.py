"""Confirmed prices: one bad tick moves nothing."""

import random

import pytest

from holdfast.execution.quotes import Confirmed, QuoteBoard

pytestmark = pytest.mark.contract("B11")
TICKER = "SPY230901C00430000"


def board(*quotes, is_long=True, seed=100, confirmations=2):
    made = QuoteBoard(confirmations=confirmations)
    made.follow(TICKER, is_long=is_long, seed=seed)
    for at, (bid, ask) in enumerate(quotes, start=1):
        made.saw(TICKER, bid, ask, at)
    return made


def price(made, *, is_long=True):
    return made.confirmed(TICKER, is_long=is_long)


def test_a_price_needs_two_distinct_quotes():
    """One quote confirms nothing; the second one does."""
    assert price(board((110, 112))) is None
    assert price(board((110, 112), (108, 112))) == 108


def test_the_same_message_told_twice_is_one_quote():
    """A quote of the same time is no second witness."""
    made = board((110, 112))
    made.saw(TICKER, 110, 112, 1)
    assert price(made) is None


@pytest.mark.parametrize("tick", [1, 10_000])
def test_one_bad_tick_moves_nothing_in_neither_direction(tick):
    """A single low or high quote between two good ones leaves the price where it was."""
    made = board((110, 112), (110, 112), (tick, 20_000), (110, 112))
    assert price(made) == 110


def test_a_price_moves_as_far_as_all_quotes_agree():
    """Falling quotes confirm the higher of two, rising ones the lower."""
    assert price(board((110, 120), (110, 120), (90, 120), (80, 120))) == 90
    assert price(board((110, 120), (110, 120), (112, 120), (118, 120))) == 112


def test_a_long_leg_that_nobody_bids_for_is_worth_zero():
    """No bid twice is a price, zero: a worthless option stops out."""
    assert price(board((None, 5), (None, 5))) == 0


@pytest.mark.invariant("I4")
def test_a_short_leg_that_nobody_offers_is_unknown_until_two_quotes_agree_again():
    """A missing ask is no price, and what was seen before it counts no more."""
    made = board((5, 7), (5, 7), (5, None), is_long=False, seed=7)
    assert price(made, is_long=False) is None
    made.saw(TICKER, 5, 9, 4)
    assert price(made, is_long=False) is None
    made.saw(TICKER, 5, 9, 5)
    assert price(made, is_long=False) == 9


def test_crossed_and_impossible_quotes_are_no_evidence():
    """A bid above the ask, a negative bid and an ask of zero are counted and change nothing."""
    made = board((110, 112), (110, 112), (130, 112), (-1, 112), (1, 0))
    assert made.crossed == 3
    assert price(made) == 110
    assert made.quotes[TICKER].bid == 110


def test_a_price_stays_within_what_the_last_quotes_said_or_where_it_was():
    """Whatever comes, the confirmed price moves only into the range of the last n quotes."""
    rng = random.Random(7)
    for n in (1, 2, 3):
        confirmed, last, seen = Confirmed(n, 50), 50, []
        for _ in range(2000):
            tick = rng.choice([rng.randint(40, 60), rng.randint(0, 500)])
            confirmed.saw(tick)
            seen = [*seen, tick][-n:]
            now = confirmed.price
            if now is None:
                assert len(seen) < n
                continue
            assert now == last or min(seen) <= now <= max(seen)
            if min(seen) <= last <= max(seen):
                assert now == last
            last = now


def test_a_leg_that_is_forgotten_has_no_price():
    """Nothing is known of what nobody follows."""
    made = board((110, 112), (110, 112))
    made.forget(TICKER, is_long=True)
    assert price(made) is None
