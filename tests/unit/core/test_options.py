"""Option terms, OCC symbols, the names of combinations, and instruments of every kind."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import BadInput
from holdfast.core.instruments import (
    COMBO_CENTS,
    PREMIUM_CENTS,
    ComboLeg,
    Instrument,
    InstrumentKind,
)
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.options import (
    OptionTerms,
    Right,
    combo_ticker,
    is_combo,
    is_option,
    option_ticker,
    parse_combo_ticker,
    parse_option_ticker,
)
from holdfast.core.orders import Fill, FillCause
from holdfast.core.reasons import HINTS, Code
from holdfast.core.signals import BookSide

PUT_430, PUT_470 = "SPY230901P00430000", "SPY230901P00470000"


def option(strike: int = 430, right: Right = Right.PUT) -> Instrument:
    terms = OptionTerms(
        underlying="SPY", root="SPY", expiry=20230901, right=right, strike=PriceE4(strike * 10_000)
    )
    return Instrument(
        venue="test",
        ticker=terms.ticker,
        kind=InstrumentKind.OPTION,
        option=terms,
        multiplier=100,
        price_ranges=PREMIUM_CENTS,
    )


def combo(*legs: ComboLeg, ticker: str = "") -> Instrument:
    name = ticker or combo_ticker([(leg.instrument.ticker, leg.ratio) for leg in legs])
    return Instrument(
        venue="test",
        ticker=name,
        kind=InstrumentKind.COMBO,
        legs=legs,
        multiplier=100,
        price_ranges=COMBO_CENTS,
    )


def test_an_occ_symbol_holds_root_expiry_right_and_strike() -> None:
    """A contract's ticker is its OCC symbol without padding, and gives the contract back."""
    ticker = option_ticker("SPY", 20230901, Right.CALL, PriceE4(4_300_000))
    assert ticker == "SPY230901C00430000"
    assert parse_option_ticker(ticker) == ("SPY", 20230901, Right.CALL, 4_300_000)
    assert is_option(ticker)
    assert not is_option("KXTEST-26NOV20-A")
    assert not is_combo(ticker)


@given(
    st.sampled_from(["SPY", "SPXW", "BRK.B", "A"]),
    st.dates(min_value=date(2000, 1, 1), max_value=date(2099, 12, 31)),
    st.sampled_from(Right),
    st.integers(1, 10**8 - 1),
)
def test_every_contract_has_one_name(root: str, day: object, right: Right, mills: int) -> None:
    """Reading a contract's ticker gives the contract it was made of."""
    expiry = int(str(day).replace("-", ""))
    strike = PriceE4(mills * 10)
    assert parse_option_ticker(option_ticker(root, expiry, right, strike)) == (root, expiry, right, strike)


@pytest.mark.parametrize(
    ("root", "expiry", "strike", "told"),
    [
        ("spy", 20230901, 4_300_000, "root"),
        ("", 20230901, 4_300_000, "root"),
        ("SPY", 20230931, 4_300_000, "expiry 20230931"),
        ("SPY", 19991231, 4_300_000, "expiry 19991231"),
        ("SPY", 20230901, 0, "strike"),
        ("SPY", 20230901, -10, "strike"),
        ("SPY", 20230901, 4_300_001, "strike"),
        ("SPY", 20230901, 10**9, "strike"),
    ],
)
def test_what_a_symbol_cannot_hold_is_named(root: str, expiry: int, strike: int, told: str) -> None:
    """A root, day or strike that no OCC symbol can hold is refused by name."""
    with pytest.raises(BadInput, match=told):
        option_ticker(root, expiry, Right.CALL, PriceE4(strike))


@pytest.mark.parametrize(
    "text", ["", "SPY", "SPY230901X00430000", "SPY231301C00430000", "SPY230901C00000000", "SPY230901C0430000"]
)
def test_no_symbol_is_read_into_a_contract_it_does_not_name(text: str) -> None:
    """Text that is no OCC symbol is refused."""
    with pytest.raises(BadInput):
        parse_option_ticker(text)


def test_equal_combinations_have_equal_names() -> None:
    """A combination's name sorts its legs and divides its ratios by their greatest common divisor."""
    name = "+1*SPY230901P00430000,-1*SPY230901P00470000"
    assert combo_ticker([(PUT_470, -2), (PUT_430, 2)]) == name
    assert parse_combo_ticker(name) == ((PUT_430, 1), (PUT_470, -1))
    assert is_combo(name)


@pytest.mark.parametrize(
    ("legs", "told"),
    [
        ([(PUT_430, 1)], "1 legs"),
        ([(f"A{n}", 1) for n in range(9)], "9 legs"),
        ([(PUT_430, 1), (PUT_430, -1)], "twice"),
        ([(PUT_430, 1), (PUT_470, 0)], "ratio 0"),
        ([(PUT_430, 1), ("A,B", -1)], "cannot be written"),
        ([(PUT_430, 1), ("A*B", -1)], "cannot be written"),
        ([(PUT_430, 1), ("", -1)], "cannot be written"),
    ],
)
def test_what_is_no_combination_is_named(legs: list[tuple[str, int]], told: str) -> None:
    """Legs that make no combination are refused by name."""
    with pytest.raises(BadInput, match=told):
        combo_ticker(legs)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PUT_430,
        f"+1*{PUT_470},-1*{PUT_430}",
        f"-1*{PUT_470},+1*{PUT_430}",
        f"+2*{PUT_430},-2*{PUT_470}",
        f"1*{PUT_430},-1*{PUT_470}",
        f"+1*{PUT_430},-0*{PUT_470}",
        f"+1*{PUT_430},-1*{PUT_470},",
    ],
)
def test_only_the_one_form_of_a_combination_is_read(text: str) -> None:
    """A combination's name in any other form than the one that `combo_ticker` gives is refused."""
    if text == f"+1*{PUT_470},-1*{PUT_430}":
        with pytest.raises(BadInput, match="one form"):
            parse_combo_ticker(text)
    else:
        with pytest.raises(BadInput):
            parse_combo_ticker(text)


def test_a_payoff_is_never_negative() -> None:
    """A call pays what the underlying is above the strike, a put what it is below, and neither less than zero."""
    call, put = option(430, Right.CALL).option, option(430).option
    assert call is not None
    assert put is not None
    assert [call.payoff(PriceE4(spot)) for spot in (4_200_000, 4_300_000, 4_350_000)] == [0, 0, 50_000]
    assert [put.payoff(PriceE4(spot)) for spot in (4_200_000, 4_300_000, 4_350_000)] == [100_000, 0, 0]


def test_a_combination_must_be_what_its_name_says() -> None:
    """A combination under another name, of two underlyings, or an option without terms cannot be made."""
    legs = (ComboLeg(option(430), 1), ComboLeg(option(470), -1))
    assert combo(*legs).underlying == "SPY"
    assert combo(*legs).parts == legs
    with pytest.raises(BadInput, match="has the legs of"):
        combo(*legs, ticker="bag")
    goog = Instrument(venue="test", ticker="GOOG", kind=InstrumentKind.STOCK)
    with pytest.raises(BadInput, match="one underlying"):
        combo(legs[0], ComboLeg(goog, 1))
    mini = ComboLeg(msgspec.structs.replace(option(470), multiplier=10), -1)
    with pytest.raises(BadInput, match=r"of multiplier 100 has legs of \[10, 100\]"):
        combo(legs[0], mini)
    with pytest.raises(BadInput, match=r"of multiplier 1 has legs of \[100\]"):
        msgspec.structs.replace(combo(*legs), multiplier=1)
    with pytest.raises(BadInput, match="has terms"):
        Instrument(venue="test", ticker=PUT_430, kind=InstrumentKind.OPTION)
    with pytest.raises(BadInput, match="has legs"):
        Instrument(venue="test", ticker=PUT_430, kind=InstrumentKind.COMBO)
    with pytest.raises(BadInput, match="multiplier 0"):
        msgspec.structs.replace(option(), multiplier=0)


def test_a_price_is_possible_by_its_kind() -> None:
    """A premium lies above zero and may exceed a dollar, a combination's price has any sign, both on their grid."""
    premium, net = option(), combo(ComboLeg(option(430), 1), ComboLeg(option(470), -1))
    assert premium.check_price(PriceE4(123_400)) is None
    for price, code in (
        (0, Code.PRICE_OUT_OF_RANGE),
        (-100, Code.PRICE_OUT_OF_RANGE),
        (150, Code.PRICE_OFF_GRID),
    ):
        refusal = premium.check_price(PriceE4(price))
        assert refusal is not None
        assert refusal.code is code
    assert net.check_price(PriceE4(-12_300)) is None
    assert net.check_price(PriceE4(0)) is None
    refusal = net.check_price(PriceE4(-12_350))
    assert refusal is not None
    assert refusal.code is Code.PRICE_OFF_GRID


def test_a_contract_moves_cash_by_its_multiplier() -> None:
    """Two options of multiplier 100 bought at 1.50 cost 300 dollars and the fee."""
    fill = Fill(
        trade_id="T",
        order_id="V",
        ticker=PUT_430,
        side=BookSide.BID,
        price=PriceE4(15_000),
        qty=QtyE2(200),
        fee=MoneyE6(1_300_000),
        is_taker=True,
        ts_ns=0,
        multiplier=100,
    )
    assert fill.cash == -301_300_000
    assert fill.cause is FillCause.TRADE


def test_every_refusal_has_a_hint() -> None:
    """No code lacks the sentence that says what the trader can do."""
    assert set(HINTS) == set(Code)
