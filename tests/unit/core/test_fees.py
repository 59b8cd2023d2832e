"""Kalshi's fees, to the micro-dollar; the first four tables are the venue's own and research examples."""

from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import BadInput
from holdfast.core.fees import BalancePrecision, FeeRounding, FeeType, KalshiFees, OrderFees
from holdfast.core.money import MoneyE6, PriceE4, QtyE2, format_money, parse_money

QUADRATIC = KalshiFees()
MAKER_FEES = KalshiFees(FeeType.QUADRATIC_WITH_MAKER_FEES)

# revenue and trade fee of each fill -> rounding fee, accumulator before rebate, rebate, net fee.
# The first edition's page gives the trade fees of its first two tables; its own rate gives others.
WORKED_EXAMPLES = {
    "3 contracts at 0.055": (
        ("-0.055", "0.0085"),
        [
            ("0.0065", "0.0065", "0.00", "0.015"),
            ("0.0065", "0.013", "0.01", "0.005"),
            ("0.0065", "0.0095", "0.00", "0.015"),
        ],
    ),
    "0.90 contracts at 0.50": (
        ("-0.15", "0.0041"),
        [
            ("0.0059", "0.0059", "0.00", "0.01"),
            ("0.0059", "0.0118", "0.01", "0.00"),
            ("0.0059", "0.0077", "0.00", "0.01"),
        ],
    ),
    "0.09 contracts at 0.3301": (
        ("-0.009903", "0.0005"),
        [
            ("0.009597", "0.009597", "0.00", "0.010097"),
            ("0.009597", "0.019194", "0.01", "0.000097"),
            ("0.009597", "0.018791", "0.01", "0.000097"),
        ],
    ),
    "100 contracts at 0.50 as maker": (
        ("-50.00", "0.4375"),
        [("0.0025", "0.0025", "0.00", "0.44")],
    ),
}


@pytest.mark.parametrize("name", WORKED_EXAMPLES)
def test_order_fees_reproduce_the_worked_example(name):
    """Every part of every fill of the venue's worked examples comes out to the micro-dollar."""
    (revenue, trade_fee), rows = WORKED_EXAMPLES[name]
    fees = OrderFees(QUADRATIC)
    seen = []
    for _ in rows:
        parts = fees.book(parse_money(revenue), parse_money(trade_fee))
        before = MoneyE6(fees.accumulated + parts.rebate)
        seen.append(tuple(format_money(m) for m in (parts.rounding_fee, before, parts.rebate, parts.net)))
    assert seen == rows


def test_model_gives_the_published_trade_fees():
    """0.03 at 0.3301 costs $0.0005, 100 at 0.50 cost $1.75, and 1 at 0.055 costs $0.003639 in the new edition."""
    assert QUADRATIC.trade_fee(PriceE4(3301), QtyE2(3), is_taker=True) == 500
    assert QUADRATIC.trade_fee(PriceE4(5000), QtyE2(10_000), is_taker=True) == 1_750_000
    micro = KalshiFees(rounding=FeeRounding.MICRO)
    assert micro.trade_fee(PriceE4(550), QtyE2(100), is_taker=True) == 3_639


def test_new_edition_reproduces_its_worked_examples():
    """The edition of August 2026: $0.005 for one contract at 0.055, and a cent back on the third fill."""
    fees = OrderFees(KalshiFees(rounding=FeeRounding.MICRO))
    assert fees.add(PriceE4(550), QtyE2(100), buys=True, is_taker=True) == (3_639, 1_361, 0, 5_000)
    fees = OrderFees(KalshiFees(rounding=FeeRounding.MICRO))
    fills = [fees.book(MoneyE6(-100_000), MoneyE6(16_000)) for _ in range(3)]
    assert [parts.rounding_fee for parts in fills] == [4_000] * 3
    assert [parts.rebate for parts in fills] == [0, 0, 10_000]
    assert fees.accumulated == 2_000


def test_maker_pays_a_quarter_where_the_series_has_maker_fees():
    """100 contracts at 0.50 cost a maker $0.4375 and then the rounding to the cent, and nothing elsewhere."""
    fees = OrderFees(MAKER_FEES)
    parts = fees.add(PriceE4(5000), QtyE2(10_000), buys=True, is_taker=False)
    assert parts == (437_500, 2_500, 0, 440_000)
    assert OrderFees(QUADRATIC).add(PriceE4(5000), QtyE2(10_000), buys=True, is_taker=False).net == 0


def test_direct_member_pays_no_more_than_a_centicent_of_rounding():
    """A direct member's balance is floored to $0.0001: the combined example costs 0.000597, not 0.010097."""
    fees = OrderFees(QUADRATIC, BalancePrecision.CENTICENT)
    assert fees.add(PriceE4(3301), QtyE2(3), buys=True, is_taker=True) == (500, 97, 0, 597)


def test_accumulator_carries_from_taker_to_maker_fills():
    """Rounding paid as a taker is given back on a later maker fill of the same order."""
    fees = OrderFees(MAKER_FEES)
    taken = fees.add(PriceE4(550), QtyE2(100), buys=True, is_taker=True)
    assert (taken.rounding_fee, taken.rebate) == (1_300, 0)
    made = [fees.add(PriceE4(5050), QtyE2(500), buys=True, is_taker=False) for _ in range(4)]
    assert [parts.rounding_fee for parts in made] == [3_100] * 4
    assert [parts.rebate for parts in made] == [0, 0, 10_000, 0]
    assert fees.accumulated == 1_300 + 4 * 3_100 - 10_000


def test_rebate_waits_for_a_fill_that_can_carry_it():
    """A fill that costs less than a cent takes no rebate; the accumulator keeps it for a dearer one."""
    fees = OrderFees(QUADRATIC, accumulated=MoneyE6(9_000))
    assert fees.book(MoneyE6(-5_000), MoneyE6(200)) == (200, 4_800, 0, 5_000)
    assert fees.accumulated == 13_800
    assert fees.book(MoneyE6(-1_000_000), MoneyE6(20_000)) == (20_000, 0, 10_000, 10_000)
    assert fees.accumulated == 3_800


def test_accumulator_at_exactly_one_cent_gives_nothing_back():
    """The rebate comes only once the sum exceeds one cent."""
    fees = OrderFees(QUADRATIC, accumulated=MoneyE6(3_500))
    assert fees.book(MoneyE6(-55_000), MoneyE6(8_500)).rebate == 0
    assert fees.accumulated == 10_000


def test_seller_of_yes_and_buyer_of_no_pay_the_same():
    """Selling YES at p and buying NO at 1 - p cost the same to the micro-dollar, rounding included."""
    for price in range(1, 10_000, 37):
        sold = OrderFees(QUADRATIC).add(PriceE4(price), QtyE2(33), buys=False, is_taker=True)
        bought = OrderFees(QUADRATIC).add(PriceE4(10_000 - price), QtyE2(33), buys=True, is_taker=True)
        assert sold == bought


def test_fee_bound_covers_a_fill_at_a_better_price():
    """A buy at 0.90 that fills at 0.50 stays inside the bound of its order."""
    bound = QUADRATIC.fee_bound(PriceE4(9000), QtyE2(10_000), 1, buys=True)
    assert OrderFees(QUADRATIC).add(PriceE4(5000), QtyE2(10_000), buys=True, is_taker=True).net <= bound
    assert QUADRATIC.fee_bound(PriceE4(1000), QtyE2(10_000), 1, buys=True) < bound


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: KalshiFees.of("cubic"), "'cubic' is unknown"),
        (lambda: KalshiFees.of("flat"), "flat"),
        (lambda: KalshiFees.of("quadratic", float("nan")), "not a finite number"),
        (lambda: KalshiFees.of("quadratic", float("inf")), "not a finite number"),
        (lambda: KalshiFees.of("quadratic", "-1"), "outside 0 to 100"),
        (lambda: KalshiFees.of("quadratic", "0.00001"), "decimal places"),
        (lambda: KalshiFees(multiplier_e4=-1), "negative"),
        (lambda: QUADRATIC.trade_fee(PriceE4(10_001), QtyE2(100), is_taker=True), "no fee for price"),
        (lambda: QUADRATIC.fee_bound(PriceE4(-1), QtyE2(100)), "no fee for price"),
        (lambda: QUADRATIC.fee_bound(PriceE4(1), QtyE2(100), 0), "at least 1"),
        (lambda: OrderFees(QUADRATIC).add(PriceE4(1), QtyE2(0), buys=True, is_taker=True), "not above 0"),
    ],
)
def test_fees_refuse_what_they_cannot_price(call, words):
    """Unknown fee types and impossible numbers are refused by name."""
    with pytest.raises(BadInput, match=words):
        call()


def test_schedule_reads_the_venues_multiplier_exactly():
    """A multiplier of 0.5 halves the fee, zero waives it, and a flat fee is charged where it is given."""
    half = KalshiFees.of("quadratic_with_maker_fees", 0.5)
    assert half.trade_fee(PriceE4(5000), QtyE2(10_000), is_taker=True) == 875_000
    free = KalshiFees.of("quadratic", "0")
    assert free.trade_fee(PriceE4(5000), QtyE2(10_000), is_taker=True) == 0
    flat = KalshiFees(FeeType.FLAT, flat_fee=MoneyE6(20_000))
    assert flat.trade_fee(PriceE4(1), QtyE2(250), is_taker=False) == 50_000


FILLS = st.lists(
    st.tuples(st.integers(1, 9_999), st.integers(1, 5_000), st.booleans()), min_size=1, max_size=12
)


@given(
    fills=FILLS,
    buys=st.booleans(),
    precision=st.sampled_from(BalancePrecision),
    multiplier=st.sampled_from(["0.5", "1", "2"]),
    rounding=st.sampled_from(FeeRounding),
)
@pytest.mark.invariant("I11")
def test_order_fees_agree_with_decimal_arithmetic(fills, buys, precision, multiplier, rounding):
    """Against plain Decimal: same parts, aligned balances, net fee never negative, never above the bound."""
    schedule = replace(KalshiFees.of("quadratic_with_maker_fees", multiplier), rounding=rounding)
    fees = OrderFees(schedule, precision)
    unit, accumulated, paid = Decimal(precision.value), Decimal(0), Decimal(0)
    step = Decimal("0.01") if rounding is FeeRounding.CENTICENT else unit
    for price_e4, qty_e2, is_taker in fills:
        price, qty = Decimal(price_e4) / 10_000, Decimal(qty_e2) / 100
        raw = Decimal("0.07" if is_taker else "0.0175") * Decimal(multiplier) * qty * price * (1 - price)
        trade = raw.quantize(Decimal(rounding.value), ROUND_CEILING)
        change = (-1 if buys else 1) * price * qty - trade
        floored = (change / unit).to_integral_value(ROUND_FLOOR) * unit
        added = change - floored
        accumulated += added
        parts = fees.add(PriceE4(price_e4), QtyE2(qty_e2), buys=buys, is_taker=is_taker)
        rebate = Decimal(parts.rebate) / 1_000_000
        accumulated -= rebate
        paid += trade + added - rebate
        assert (parts.trade_fee, parts.rounding_fee) == (trade * 1_000_000, added * 1_000_000)
        assert rebate % step == 0
        assert parts.net >= 0
        assert fees.accumulated == accumulated * 1_000_000
        assert accumulated <= step or trade + added - rebate < step
    assert fees.net == paid * 1_000_000
    limit = max(price for price, _, _ in fills) if buys else min(price for price, _, _ in fills)
    total = sum(qty for _, qty, _ in fills)
    bound = schedule.fee_bound(PriceE4(limit), QtyE2(total), len(fills), buys=buys, precision=precision)
    assert fees.net <= bound <= schedule.fee_bound(PriceE4(limit), QtyE2(total), precision=precision)
