"""Implied volatility and Greeks: published values, parity, finite differences, and every refusal by name."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.clock import NANOS
from holdfast.core.errors import ConfigError
from holdfast.core.greeks import BOUND, MODEL, Greeks
from holdfast.core.money import PriceE4
from holdfast.core.options import ExerciseStyle, OptionTerms, Right
from holdfast.venues.pricing import Carry, Model, Unsolved

YEAR_NS = 365 * 86_400 * NANOS
CALL, PUT = Right.CALL, Right.PUT
EUROPEAN, AMERICAN = ExerciseStyle.EUROPEAN, ExerciseStyle.AMERICAN


def terms(strike, right=CALL, style=EUROPEAN, *, years=0.5):
    return OptionTerms(
        underlying="X",
        root="X",
        expiry=20300118,
        right=right,
        strike=PriceE4(round(strike * 10_000)),
        style=style,
        expires_ns=round(years * YEAR_NS),
    )


@pytest.fixture(scope="module")
def model():
    return Model()


def test_hulls_examples_come_out():
    """Hull, 9th edition: example 15.6 (4.76 and 0.81), Greeks of chapter 19 (0.522, 0.066, 12.1, -4.31), implied
    volatility of section 15.11 (23.5 %)."""
    ten, five = Model(Carry(0.10)), Model(Carry(0.05))
    assert ten.value(terms(40), 42, 0.5, 0.2).price == pytest.approx(4.76, abs=0.005)
    assert ten.value(terms(40, PUT), 42, 0.5, 0.2).price == pytest.approx(0.81, abs=0.005)
    found = five.value(terms(50), 49, 0.3846, 0.2)
    assert found.delta == pytest.approx(0.522, abs=0.001)
    assert found.gamma == pytest.approx(0.066, abs=0.001)
    assert found.vega * 100 == pytest.approx(12.1, abs=0.05)
    assert found.theta * 365 == pytest.approx(-4.31, abs=0.01)
    assert ten.implied(terms(20), 1.875, 21, 0.25) == pytest.approx(0.235, abs=0.001)


def test_an_american_put_is_worth_more_than_its_european_twin_and_no_less_than_exercise():
    """Hull's American put (S = K = 50, r = 10 %, 40 %, five months) is worth about 4.28."""
    model = Model(Carry(0.10))
    american = model.value(terms(50, PUT, AMERICAN), 50, 5 / 12, 0.4).price
    assert american == pytest.approx(4.28, abs=0.02)
    assert american > model.value(terms(50, PUT), 50, 5 / 12, 0.4).price
    assert model.value(terms(50, PUT, AMERICAN), 30, 5 / 12, 0.4).price == pytest.approx(20, abs=1e-6)


cases = st.tuples(
    st.floats(70, 140),
    st.floats(0.02, 2.0),
    st.floats(0.08, 1.2),
    st.sampled_from([CALL, PUT]),
    st.sampled_from([EUROPEAN, AMERICAN]),
    st.sampled_from([Carry(), Carry(0.05), Carry(0.03, 0.02), Carry(0.0, 0.04)]),
)


@settings(max_examples=120, deadline=None)
@given(cases)
def test_the_volatility_that_made_a_price_is_found_again(case):
    """Wherever the price says anything about volatility at all."""
    strike, years, volatility, right, style, carry = case
    model, one = Model(carry), terms(strike, right, style)
    made = model.value(one, 100, years, volatility)
    found = model.implied(one, made.price, 100, years)
    if made.vega < 1e-4:
        return  # a price that does not move with volatility tells nothing of it
    assert not isinstance(found, Unsolved)
    assert model.value(one, 100, years, found).price == pytest.approx(made.price, abs=1e-5)
    assert found == pytest.approx(volatility, abs=2e-3)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_greeks_are_the_differences_of_the_price(case):
    """Delta, gamma, vega and theta against the price moved a little; american ones more coarsely."""
    strike, years, volatility, right, style, carry = case
    model, one = Model(carry), terms(strike, right, style)
    found = model.value(one, 100, years, volatility)
    is_early = style is AMERICAN and (carry.dividend if right is CALL else carry.rate) > 0
    wide = 20 if is_early else 1

    def price(spot=100.0, left=years, vol=volatility):
        return model.value(one, spot, left, vol).price

    step = 0.05
    assert found.delta == pytest.approx((price(100 + step) - price(100 - step)) / (2 * step), abs=2e-3 * wide)
    if not is_early:
        gamma = (price(100 + step) - 2 * price() + price(100 - step)) / step**2
        assert found.gamma == pytest.approx(gamma, abs=2e-3 + 0.01 * abs(gamma))
    assert found.vega == pytest.approx(
        (price(vol=volatility + 1e-4) - price(vol=volatility - 1e-4)) / 2e-2, abs=1e-3
    )
    day = min(1 / 365, years) * 1e-3
    theta = (price(left=years - day) - price()) / day / 365
    assert found.theta == pytest.approx(theta, abs=2e-3 * wide + 0.02 * abs(theta))


@settings(max_examples=60, deadline=None)
@given(cases)
def test_put_call_parity_holds_for_european_options(case):
    """Call less put is the forward's discounted distance from the strike, in price and in delta."""
    strike, years, volatility, _, _, carry = case
    model = Model(carry)
    call = model.value(terms(strike), 100, years, volatility)
    put = model.value(terms(strike, PUT), 100, years, volatility)
    strike = round(strike * 10_000) / 10_000
    worth = 100 * math.exp(-carry.dividend * years) - strike * math.exp(-carry.rate * years)
    assert call.price - put.price == pytest.approx(worth, abs=1e-9)
    assert call.delta - put.delta == pytest.approx(math.exp(-carry.dividend * years), abs=1e-9)


@pytest.mark.invariant("I4")
@pytest.mark.parametrize(
    ("bid", "ask", "spot", "years", "why"),
    [
        (10_000, None, 1_000_000, 0.5, Unsolved.ONE_SIDED),
        (None, None, 1_000_000, 0.5, Unsolved.ONE_SIDED),
        (-1, 10_000, 1_000_000, 0.5, Unsolved.ONE_SIDED),
        (20_000, 10_000, 1_000_000, 0.5, Unsolved.CROSSED),
        (90_000, 100_000, 1_100_000, 0.5, Unsolved.BELOW_INTRINSIC),
        (100_000, 100_000, 1_100_000, 0.5, Unsolved.BELOW_INTRINSIC),
        (1_000_000, 1_000_000, 1_000_000, 0.5, Unsolved.TOO_DEAR),
        (2_000_000, 2_100_000, 1_000_000, 0.5, Unsolved.TOO_DEAR),
        (10_000, 11_000, None, 0.5, Unsolved.NO_SPOT),
        (10_000, 11_000, 1_000_000, 0.0, Unsolved.ENDED),
        (10_000, 11_000, 1_000_000, -0.1, Unsolved.ENDED),
    ],
)
def test_a_quote_that_no_volatility_explains_is_refused_by_name(bid, ask, spot, years, why):
    """No Greek is made up, whatever the style and whether exercise may pay."""
    for style, carry in itertools.product((EUROPEAN, AMERICAN), (Carry(), Carry(0.0, 0.05))):
        one = terms(100, CALL, style, years=years)
        found = Model(carry).greeks(one, bid, ask, spot, now_ns=0, as_of_ns=7)
        if why is Unsolved.BELOW_INTRINSIC and carry.dividend and style is EUROPEAN:
            assert not isinstance(found, Unsolved), (
                "a European call on a paying stock may be worth less than parity"
            )
        else:
            assert found is why


offered = st.tuples(
    st.integers(7_000, 13_000),
    st.sampled_from((CALL, PUT)),
    st.floats(0.002, 1.5),
    st.floats(0.05, 3.0),
    st.sampled_from((Carry(), Carry(0.05), Carry(0.0, 0.04), Carry(0.03, 0.06))),
    st.floats(0.001, 1.0),
)


@pytest.mark.invariant("I4")
@settings(max_examples=300, deadline=None)
@given(offered)
def test_the_greeks_of_what_nobody_bids_for_lie_within_their_range(case):
    """Whatever the contract is truly worth, from next to nothing up to its ask, its delta and gamma lie in the range."""
    cents, right, years, volatility, carry, fraction = case
    one, model = terms(cents / 100, right, years=years), Model(carry)
    ask = math.floor(model.value(one, 100, years, volatility).price * 10_000)
    if ask < 1:
        return
    found = model.greeks(one, None, PriceE4(ask), PriceE4(1_000_000), now_ns=0, as_of_ns=7)
    if isinstance(found, Unsolved):
        assert found in {Unsolved.ONE_SIDED, Unsolved.BELOW_INTRINSIC, Unsolved.TOO_DEAR}
        return
    least = model.implied(one, ask / 10_000, 100, years)
    assert not isinstance(least, Unsolved)
    true = model.value(one, 100, years, least * fraction)
    assert found.source == BOUND
    noise = 1e-6  # of the library's own tails
    assert found.delta_e6 - noise <= true.delta * 1e6 <= found.delta_e6 + found.delta_span_e6 + noise
    assert found.gamma_e6 <= true.gamma * 1e6 <= found.gamma_e6 + found.gamma_span_e6


@pytest.mark.invariant("I4")
def test_a_far_wing_that_nobody_bids_for_is_bounded_narrowly(model):
    """A call 10 % out of the money, offered at 0.10 for a month: a delta of at most 0.05, not anything up to 1."""
    found = model.greeks(
        terms(110, years=1 / 12), None, PriceE4(1_000), PriceE4(1_000_000), now_ns=0, as_of_ns=7
    )
    assert isinstance(found, Greeks)
    assert found.delta_e6 == 0
    assert 20_000 < found.delta_span_e6 < 60_000
    assert not found.is_known


@pytest.mark.invariant("I4")
def test_an_early_exercise_and_a_strike_at_the_forward_have_no_range(model):
    """Where the closed form says nothing, or gamma has no end, a missing bid leaves the Greeks unknown."""
    dear = Model(Carry(0.05))
    early = terms(90, PUT, AMERICAN)
    quote = (None, PriceE4(1_000), PriceE4(1_000_000))
    assert dear.greeks(early, *quote, now_ns=0, as_of_ns=7) is Unsolved.ONE_SIDED
    assert model.greeks(terms(100), *quote, now_ns=0, as_of_ns=7) is Unsolved.ONE_SIDED
    below, dear_ask = (None, PriceE4(100_000), PriceE4(1_110_000)), (None, PriceE4(10**6), PriceE4(10**6))
    assert model.greeks(terms(100), *below, now_ns=0, as_of_ns=7) is Unsolved.BELOW_INTRINSIC
    assert model.greeks(terms(110), *dear_ask, now_ns=0, as_of_ns=7) is Unsolved.TOO_DEAR


def test_greeks_are_integers_per_unit_of_the_underlying(model):
    """At the money, half a year, 20 %: about half a delta, source and age as told."""
    one = terms(100)
    price = round(model.value(one, 100, 0.5, 0.2).price * 10_000)
    found = model.greeks(one, PriceE4(price), PriceE4(price), PriceE4(1_000_000), now_ns=0, as_of_ns=7)
    assert not isinstance(found, Unsolved)
    assert found.iv_e6 == pytest.approx(200_000, abs=20)
    assert found.delta_e6 == pytest.approx(528_186, abs=50)
    assert (found.source, found.as_of_ns) == (MODEL, 7)


def test_a_contract_that_ends_within_the_day_is_valued_by_the_hour(model):
    """Three hours are not a whole day: theta and price follow the time that is left."""
    hours = 3 / 24 / 365
    assert model.value(terms(100, CALL, AMERICAN), 100, hours, 0.2).price == pytest.approx(0.1476, abs=0.001)
    early = Model(Carry(0.05, 0.05)).value(terms(100, CALL, AMERICAN), 100, hours, 0.2).price
    assert early == pytest.approx(0.1476, abs=0.001)


def test_without_quantlib_the_extra_is_named(monkeypatch):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "QuantLib", None)
    with pytest.raises(ConfigError, match="QuantLib is not installed") as caught:
        Model()
    assert "pip install -e '.[options]'" in caught.value.hint
