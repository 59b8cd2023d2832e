"""What the broker lets an account carry."""

from __future__ import annotations

import pytest
from support.broker import BASIC, CALL, HIGH_CALL, LOW_PUT, PUT, STOCK, option

from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.venues.broker.account import Account

NEXT_WEEK = option("C", 450, expiry=20231013)
LISTINGS = {one.ticker: one for one in (*BASIC, NEXT_WEEK)}
SPOT = {"SPY": PriceE4(4_501_000)}
USD = 1_000_000


def requirement(*held):
    positions = {listing.ticker: QtyE2(qty * 100) for listing, qty in held}
    return Account(MoneyE6(0), LISTINGS).requirement(positions, SPOT)


@pytest.mark.parametrize(
    ("held", "dollars", "naked"),
    [
        ([(CALL, 3)], 0, 0),
        ([(CALL, 1), (HIGH_CALL, -1)], 0, 0),
        ([(CALL, -1), (HIGH_CALL, 1)], 500, 0),
        ([(PUT, -1), (LOW_PUT, 1)], 500, 0),
        ([(PUT, -1), (LOW_PUT, 1), (CALL, -1), (HIGH_CALL, 1)], 500, 0),
        ([(PUT, -2)], 90_000, 0),
        ([(CALL, -1)], 45_010, 100),
        ([(CALL, -1), (NEXT_WEEK, 1)], 45_010, 100),
        ([(CALL, -1), (STOCK, 100)], 0, 0),
        ([(CALL, -2), (STOCK, 100)], 45_010, 100),
        ([(STOCK, -100)], 67_515, 0),
        ([(CALL, -1), (HIGH_CALL, 2)], 500, 0),
    ],
    ids=[
        "long",
        "debit vertical",
        "credit vertical",
        "put credit vertical",
        "iron condor: one side only",
        "short puts: their strike",
        "naked call",
        "another expiry covers nothing",
        "covered call",
        "half covered",
        "short shares",
        "backspread",
    ],
)
def test_a_position_needs_what_it_can_still_lose(held, dollars, naked):
    """The most that the options of one expiry can lose beyond their premium, and what is naked."""
    found = requirement(*held)
    assert found.money == dollars * USD
    assert found.naked == naked * 100


def test_cash_moves_by_premium_and_fee_and_a_flat_position_is_gone():
    """Buying pays, selling earns, both pay the fee."""
    account = Account(MoneyE6(1_000 * USD), LISTINGS)
    account.book(CALL.ticker, 200, PriceE4(32_000), MoneyE6(1_300_000))
    assert account.cash == (1_000 - 640) * USD - 1_300_000
    account.book(CALL.ticker, -200, PriceE4(33_000), MoneyE6(1_300_000))
    assert account.cash == 1_020 * USD - 2_600_000
    assert account.positions == {}
    assert account.fees == 2_600_000
