"""Contracts of Interactive Brokers as instruments: names, grids, hours, and how a class is exercised."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from ib_async.objects import PriceIncrement
from support.ib import CALL, LOWER_PUT, PUT, SPREAD, play

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput, VenueRejected
from holdfast.core.instruments import InstrumentKind
from holdfast.core.money import MoneyE6
from holdfast.core.options import ExerciseStyle, Right, SettlementStyle
from holdfast.venues.ib.contracts import asked_contract, combo_of, expires_ns, grid_of, price_e4, qty_e2


def utc(*moment: int) -> int:
    return round(datetime(*moment, tzinfo=UTC).timestamp()) * NANOS


@pytest.mark.contract("B15")
def test_an_option_on_a_fund_is_american_and_delivers():
    """SPY's options have the multiplier, grid, terms and hours that the gateway tells."""

    async def scenario(w):
        one = await w.venue.instrument(CALL)
        assert (one.kind, one.multiplier, one.underlying) == (InstrumentKind.OPTION, 100, "SPY")
        terms = one.option
        assert (terms.right, terms.strike, terms.expiry) == (Right.CALL, 6_500_000, 20251219)
        assert (terms.style, terms.settlement) == (ExerciseStyle.AMERICAN, SettlementStyle.PHYSICAL)
        assert terms.expires_ns == utc(2025, 12, 19, 21)
        assert one.is_open
        assert one.close_ns == utc(2025, 11, 20, 21)
        assert one.check_price(15_101) is not None
        assert one.check_price(15_100) is None

    play(scenario)


@pytest.mark.parametrize(
    ("ticker", "root", "day", "hour"),
    [("SPXW251219C06600000", "SPXW", "20251219", 21), ("SPX251219C06600000", "SPX", "20251218", 14.5)],
)
def test_index_options_are_european_and_pay_cash_when_their_class_says(ticker, root, day, hour):
    """SPXW is fixed at the close and SPX on the opening of the symbol's day, whatever last day the gateway tells."""

    async def scenario(w):
        w.at.list_option(ticker, underlying="SPX", under_type="IND", last_trading_day=day)
        one = await w.venue.instrument(ticker)
        terms = one.option
        assert (terms.root, terms.underlying) == (root, "SPX")
        assert (terms.style, terms.settlement) == (ExerciseStyle.EUROPEAN, SettlementStyle.CASH)
        assert terms.expires_ns == utc(2025, 12, 19, int(hour), round(hour % 1 * 60))

    play(scenario)


def test_five_cent_classes_have_their_steps():
    """A market rule with an edge at three dollars becomes two stretches of the grid."""

    async def scenario(w):
        w.at.list_option("GOOG251219C00300000", underlying="GOOG")
        one = await w.venue.instrument("GOOG251219C00300000")
        assert [one.check_price(price) is None for price in (29_900, 30_000, 30_100, 30_500)] == [
            *(True, True, False, True)
        ]

    play(scenario)


@pytest.mark.invariant("I4")
def test_an_index_class_that_nobody_taught_us_is_refused():
    """How an unknown index option is exercised is not guessed."""

    async def scenario(w):
        w.at.list_option("ZZZ251219C00100000", underlying="ZZZ", under_type="IND")
        with pytest.raises(VenueRejected) as caught:
            await w.venue.instrument("ZZZ251219C00100000")
        assert caught.value.code == "unknown_class"

    play(scenario)


def test_a_combination_has_its_legs_and_prices_of_any_sign():
    """A combination's instrument is made of its legs' and takes a credit."""

    async def scenario(w):
        one = await w.venue.instrument(SPREAD)
        assert one.kind is InstrumentKind.COMBO
        assert [(leg.instrument.ticker, leg.ratio) for leg in one.legs] == [(LOWER_PUT, 1), (PUT, -1)]
        assert one.multiplier == 100
        assert one.check_price(-39_000) is None

    play(scenario)


@pytest.mark.invariant("I5")
def test_a_combination_is_priced_in_the_steps_of_its_legs():
    """A class that trades in nickels, and in dimes from three dollars on, refuses a combination at a cent (110)."""

    async def scenario(w):
        nickels = grid_of([PriceIncrement(0.0, 0.05), PriceIncrement(3.0, 0.1)], 0.01)
        legs = []
        for ticker, ratio in ((LOWER_PUT, 1), (PUT, -1)):
            leg = await w.venue._directory.describe(ticker)
            instrument = msgspec.structs.replace(leg.instrument, price_ranges=nickels)
            legs.append((leg._replace(instrument=instrument), ratio))
        one = combo_of(SPREAD, legs, now_ns=w.clock.now_ns(), fee=MoneyE6(0)).instrument
        prices = (-29_900, 29_900, -30_500, 500, 0)
        assert [one.check_price(price) is None for price in prices] == [False, False, True, True, True]

    play(scenario)


@pytest.mark.parametrize("ticker", ["SPY251219C00999000", "NOSUCH", "KXNOSUCH-1", "+1*SPY", "lower"])
def test_what_is_not_listed_is_not_found(ticker):
    """An unlisted contract, a name that cannot be one, and half a combination are not found."""

    async def scenario(w):
        with pytest.raises(VenueRejected) as caught:
            await w.venue.instrument(ticker)
        assert (caught.value.code, caught.value.status) == ("not_found", 404)

    play(scenario)


def test_a_chain_is_read_in_one_request_and_then_known():
    """The options of one day come as instruments at once; none of them is asked for again."""

    async def scenario(w):
        assert await w.venue.expiries("SPY") == [20251219]
        chain = await w.venue.chain("SPY")
        assert [one.ticker for one in chain] == sorted([CALL, PUT, LOWER_PUT])
        asked = w.at.heard.count("reqContractDetails")
        assert await w.venue.instrument(CALL) == chain[0]
        assert w.at.heard.count("reqContractDetails") == asked
        with pytest.raises(VenueRejected):
            await w.venue.chain("SPY", expiry=20260101)
        assert await w.venue.positions() == {}

    play(scenario)


def test_an_index_has_a_chain_without_being_a_stock():
    """An underlying that cannot be owned is found as the index it is."""

    async def scenario(w):
        w.at.list_index("SPX")
        w.at.list_option("SPXW251219C06600000", underlying="SPX", under_type="IND")
        assert await w.venue.expiries("SPX") == [20251219]
        (one,) = await w.venue.chain("SPX")
        assert one.option.style is ExerciseStyle.EUROPEAN
        with pytest.raises(VenueRejected):
            await w.venue.expiries("NOSUCH")

    play(scenario)


def test_numbers_are_read_by_their_decimal_text():
    """Binary fractions do not reach a price, and the gateway's words for nothing are none."""
    assert price_e4(15.1) == 151_000
    assert price_e4(0.1 + 0.2) is None
    assert [price_e4(nothing) for nothing in (None, float("nan"), float("inf"), 1.7976931348623157e308)] == [
        None
    ] * 4
    assert qty_e2(3.0) == 300
    with pytest.raises(BadInput):
        qty_e2(0.001)


def test_the_day_ends_early_where_the_gateway_says_so():
    """A contract that expires on a half holiday is fixed at that session's end."""
    half = [(utc(2025, 11, 28, 14, 30), utc(2025, 11, 28, 18))]
    assert expires_ns(20251128, half, at_open=False) == utc(2025, 11, 28, 18)
    assert expires_ns(20251219, half, at_open=False) == utc(2025, 12, 19, 21)


def test_steps_that_are_no_steps_are_refused():
    """A price step of zero or below is no grid."""
    with pytest.raises(BadInput):
        grid_of([PriceIncrement(0.0, 0.0)], 0.01)


def test_the_symbol_asked_for_is_padded_as_the_gateway_writes_it():
    """The root of an OCC symbol is padded to six places."""
    assert asked_contract(CALL).localSymbol == "SPY   251219C00650000"


def test_the_account_is_read():
    """Cash, buying power, positions of stock, and the margin an order would bind."""

    async def scenario(w):
        from support.ib import intent_of

        assert await w.venue.balance() == 100_000_000_000
        assert await w.venue.buying_power() == 100_000_000_000
        w.at.holdings[w.at.number_of("SPY")] = -37
        assert await w.venue.positions() == {"SPY": -3_700}
        margin = await w.venue.what_if(await intent_of(w))
        assert margin.initial_margin == 500_000_000
        assert not w.at.arrived

    play(scenario)
