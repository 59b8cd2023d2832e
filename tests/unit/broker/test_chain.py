"""The seeded option market: plausible, repeatable, and without free money at executable sides."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from math import log

import pytest

from holdfast.core.errors import BadInput
from holdfast.core.options import Right, SettlementStyle
from holdfast.venues.broker.chain import DEFAULT_START_NS, SeededChain
from holdfast.venues.broker.feed import MINUTE_NS, closing_ns, day_of
from holdfast.venues.broker.surface import Surface, value


@pytest.fixture(scope="module")
def chain():
    return SeededChain(11)


@pytest.fixture(scope="module")
def minutes(chain):
    return list(chain)


@pytest.mark.invariant("I12")
def test_equal_seeds_give_equal_markets_and_others_do_not(chain, minutes):
    """Also when it is iterated again."""
    assert [one for one, _ in zip(chain, range(50), strict=False)] == minutes[:50]
    assert next(iter(SeededChain(12))) != minutes[0]


def test_every_quote_is_uncrossed_and_sides_come_with_sizes(minutes):
    """No side without a size, no size without a side, bid below ask."""
    for minute in minutes:
        for quote in minute.quotes:
            assert quote.ask > 0
            assert quote.bid < quote.ask
            assert (quote.bid > 0) is (quote.bid_size > 0)
            assert quote.ask_size > 0


def test_the_market_has_what_traders_meet(chain, minutes):
    """American contracts that deliver and European ones that pay cash, an expiry during the day, missing bids, spreads
    that widen away from the money, and a spot that moves."""
    settlements = {one.terms.settlement for one in chain.listings if one.terms is not None}
    assert settlements == set(SettlementStyle)
    first, last = minutes[0], minutes[-1]
    ended = {q.ticker for q in first.quotes} - {q.ticker for q in last.quotes}
    assert ended
    assert {one.terms.expires_ns for one in chain.listings if one.ticker in ended} == {
        closing_ns(day_of(chain.start_ns))
    }
    assert sum(q.bid == 0 for m in minutes for q in m.quotes) > 1_000
    terms = {one.ticker: one.terms for one in chain.listings}
    near, far = [], []
    for quote in first.quotes:
        one = terms[quote.ticker]
        if one is not None and one.underlying == "SPY" and quote.bid:
            away = abs(log(one.strike / first.spots[0].price))
            (near if away < 0.005 else far).append((quote.ask - quote.bid) / quote.ask)
    assert sum(near) / len(near) < sum(far) / len(far)
    assert len({m.spots[0].price for m in minutes}) > len(minutes) // 2


def test_nothing_bought_at_asks_and_sold_at_bids_is_free_money(chain, minutes):
    """Verticals, boxes, butterflies and calendars, and options against their intrinsic value and their stock."""
    terms = {one.ticker: one.terms for one in chain.listings if one.terms is not None}
    for minute in minutes[::40]:
        stock = {q.ticker: q for q in minute.quotes if q.ticker not in terms}
        groups = defaultdict(dict)
        for quote in minute.quotes:
            one = terms.get(quote.ticker)
            if one is not None:
                groups[one.underlying, one.right, one.expiry][one.strike] = quote
        for (symbol, right, expiry), strikes in groups.items():
            ordered = sorted(strikes, reverse=right is Right.PUT)
            for dear, cheap in pairwise(ordered):
                width = abs(dear - cheap)
                # The nearer strike is worth more, but by no more than the distance.
                assert strikes[dear].ask > strikes[cheap].bid
                assert strikes[dear].bid - strikes[cheap].ask < width
            for low, middle, high in zip(ordered, ordered[1:], ordered[2:], strict=False):
                assert strikes[low].ask + strikes[high].ask > 2 * strikes[middle].bid
            later = [e for (s, r, e) in groups if (s, r) == (symbol, right) and e > expiry]
            for other in later:
                for strike in strikes.keys() & groups[symbol, right, other].keys():
                    assert groups[symbol, right, other][strike].ask > strikes[strike].bid
            if symbol in stock:
                for strike, quote in strikes.items():
                    # Exercising at once, the stock traded at its own executable side.
                    now = stock[symbol].bid - strike if right is Right.CALL else strike - stock[symbol].ask
                    assert quote.ask > now
        for symbol, right, expiry in list(groups):
            if right is Right.CALL and symbol in stock:
                calls, puts = groups[symbol, Right.CALL, expiry], groups[symbol, Right.PUT, expiry]
                for strike in calls.keys() & puts.keys():
                    assert calls[strike].ask - puts[strike].bid + strike > stock[symbol].bid
                    assert calls[strike].bid - puts[strike].ask + strike < stock[symbol].ask


def test_a_session_entered_late_begins_late_and_a_weekend_is_passed_over():
    """An hour before the close there is an hour and a quarter left; a start on Saturday waits for Monday."""
    late = SeededChain(1, start_ns=closing_ns(day_of(DEFAULT_START_NS)) - 60 * MINUTE_NS, symbols=["SPY"])
    assert len(list(late)) == 75
    monday = SeededChain(1, start_ns=DEFAULT_START_NS + 24 * 60 * MINUTE_NS, symbols=["SPX"], days=2)
    days = {day_of(minute.ts_ns).isoformat() for minute in monday}
    assert days == {"2023-09-11", "2023-09-12"}


@pytest.mark.parametrize(("symbols", "days"), [(["TSLA"], 1), ([], 1), (["SPY"], 0)])
def test_a_chain_that_cannot_be_is_refused(symbols, days):
    """By name, with what there is."""
    with pytest.raises(BadInput):
        SeededChain(1, symbols=symbols, days=days)


def test_the_closed_form_obeys_parity_and_hulls_example():
    """Hull, Options, Futures and Other Derivatives, with interest taken out: parity is exact; the surface smiles."""
    call = value(42.0, 40.0, 0.5, 0.2, is_call=True)
    put = value(42.0, 40.0, 0.5, 0.2, is_call=False)
    assert call.price - put.price == pytest.approx(2.0, abs=1e-12)
    assert call.delta - put.delta == pytest.approx(1.0)
    surface = Surface(0.2)
    assert surface.volatility(80, 100, 0.1) > surface.volatility(100, 100, 0.1) > 0
    assert surface.volatility(80, 100, 0.1) > surface.volatility(120, 100, 0.1)
