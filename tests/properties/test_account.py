"""The account as a fold: a position is the sum of its fills, and replay gives the same account."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.execution import OTHER, TICKER

from holdfast.core.money import MoneyE6, PriceE4, QtyE2, format_money, notional
from holdfast.core.orders import Fill
from holdfast.core.signals import BookSide
from holdfast.risk.account import Account
from holdfast.risk.trades import read_trade, trade_details

FILLS = st.lists(
    st.builds(
        Fill,
        trade_id=st.integers(1, 12).map(str),
        order_id=st.sampled_from(["V1", "V2"]),
        ticker=st.sampled_from([TICKER, OTHER]),
        side=st.sampled_from(BookSide),
        price=st.integers(1, 9999).map(PriceE4),
        qty=st.integers(1, 10**6).map(QtyE2),
        fee=st.integers(-(10**6), 10**7).map(MoneyE6),
        is_taker=st.booleans(),
        ts_ns=st.integers(0, 10**18),
    ),
    max_size=25,
)


@pytest.mark.invariant("I11")
@given(fills=FILLS)
def test_a_position_is_the_sum_of_its_fills_each_once(fills):
    """Whatever is reported how often, position and cash are the sums over distinct trade ids, to the micro-dollar."""
    account = Account()
    for fill in fills:
        account.apply("TRADE", trade_details(fill, client_order_id="", external=True))
    first = {fill.trade_id: fill for fill in reversed(fills)}.values()
    for ticker in (TICKER, OTHER):
        assert account.portfolio.position(ticker) == sum(f.delta for f in first if f.ticker == ticker)
    assert account.portfolio.cash == sum(-f.side.sign * notional(f.price, f.qty) - f.fee for f in first)
    assert isinstance(account.portfolio.cash, int)


@given(fills=FILLS)
def test_a_trade_record_reads_back_as_its_fill(fills):
    """Writing a fill as a TRADE record loses nothing."""
    for fill in fills:
        assert read_trade(trade_details(fill, client_order_id="", external=False)) == fill


@given(
    fills=FILLS,
    amounts=st.lists(st.integers(-(10**9), 10**9), max_size=3),
    result=st.sampled_from(["yes", "no"]),
)
def test_replaying_the_same_records_gives_the_same_account(fills, amounts, result):
    """Two folds over the same records are equal, and a settled market is flat."""
    one, two = Account(), Account()
    for account in (one, two):
        for fill in fills:
            account.apply("TRADE", trade_details(fill, client_order_id="", external=True))
        for amount in amounts:
            account.apply("DEPOSIT", {"amount": format_money(MoneyE6(amount))})
        account.apply("SETTLEMENT", {"ticker": TICKER, "result": result})
    assert one.snapshot() == two.snapshot()
    assert one.portfolio.position(TICKER) == 0
    assert one.deposits == sum(amounts)
