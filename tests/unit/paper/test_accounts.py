"""The exchange's account: cash, collateral, positions and fees to the cent."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.fees import FeeType, KalshiFees, OrderFees
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.signals import Action, BookSide, Side
from holdfast.venues.paper.accounts import Account, Holding, OrderRequest, OrderRow, OrderState

FEES = KalshiFees()
FREE = KalshiFees(FeeType.QUADRATIC, 0)
BID, ASK = BookSide.BID, BookSide.ASK


def account(dollars=1_000):
    return Account("user", MoneyE6(dollars * 1_000_000))


def order(number, side=BID, price=4_000, qty=1_000, *, ticker="T", client_id="", fees=FREE):
    is_bid = side is BID
    request = OrderRequest(
        ticker=ticker,
        side=side,
        named=Side.YES,
        action=Action.BUY if is_bid else Action.SELL,
        yes_price=PriceE4(price),
        qty=QtyE2(qty),
        client_order_id=client_id,
    )
    return OrderRow(number, f"o-{number}", request, OrderFees(fees), number)


def trade(to, side, price, qty, *, number, fees=FREE, is_taker=True):
    row = order(number, side, price, qty, fees=fees)
    to.admit(row)
    return to.fill(row, f"t-{number}", PriceE4(price), QtyE2(qty), is_taker=is_taker, now_ns=number)


def test_a_taker_pays_price_and_fee_to_the_cent():
    """Buying 100 at 0.50 takes 50.00 and 1.75 in fees, the venue's own example."""
    to = account()
    fill = trade(to, BID, 5_000, 10_000, number=1, fees=FEES)
    assert fill.fee == 1_750_000
    assert to.cash == 1_000_000_000 - 50_000_000 - 1_750_000


def test_selling_what_one_does_not_hold_costs_the_other_leg():
    """Selling 10 YES at 0.40 from nothing is buying 10 NO at 0.60: 6.00 leave the account."""
    to = account()
    trade(to, ASK, 4_000, 1_000, number=1)
    assert to.cash == 1_000_000_000 - 6_000_000
    assert to.holding("T").position == -1_000
    assert to.holding("T").cost == 6_000_000


def test_closing_pays_the_pair_back():
    """Bought at 0.40, sold at 0.55: 10 contracts realize 1.50 and hold nothing."""
    to = account()
    trade(to, BID, 4_000, 1_000, number=1)
    trade(to, ASK, 5_500, 1_000, number=2)
    held = to.holding("T")
    assert (held.position, held.cost, held.realized) == (0, 0, 1_500_000)
    assert to.cash == 1_001_500_000


def test_a_trade_through_zero_closes_first_and_opens_the_rest():
    """Selling 15 from 10 long closes 10 and buys 5 NO."""
    held = Holding("T")
    held.book(BID, PriceE4(4_000), QtyE2(1_000), 1)
    cash = held.book(ASK, PriceE4(6_000), QtyE2(1_500), 2)
    assert (held.position, held.cost, held.realized) == (-500, 2_000_000, 2_000_000)
    assert cash == 6_000_000 - 2_000_000


def test_settlement_pays_the_winning_leg_alone():
    """10 YES pay 10.00 on yes and nothing on no; 10 NO the other way round."""
    for side, result, revenue in (
        (BID, Side.YES, 10_000_000),
        (BID, Side.NO, 0),
        (ASK, Side.NO, 10_000_000),
        (ASK, Side.YES, 0),
    ):
        to = account()
        trade(to, side, 4_000, 1_000, number=1)
        before = to.cash
        row = to.settle("T", "E", result, 9)
        assert row is not None
        assert row.revenue == revenue
        assert to.cash == before + revenue
        assert to.holding("T").position == 0


def test_resting_orders_reserve_what_they_would_need():
    """A bid of 10 at 0.40 and an ask of 10 at 0.60 from nothing reserve 4.00 each, fills free them."""
    to = account()
    bid, ask = order(1, BID, 4_000, 1_000), order(2, ASK, 6_000, 1_000)
    to.admit(bid)
    to.admit(ask)
    assert to.reserved() == 8_000_000
    assert to.available == to.cash - 8_000_000
    to.release(ask, QtyE2(1_000), 3)
    assert to.reserved() == 4_000_000


def test_orders_that_close_need_no_collateral_oldest_first():
    """With 10 long, the first ask of 10 needs nothing and the second one does."""
    to = account()
    trade(to, BID, 4_000, 1_000, number=1)
    first, second = order(2, ASK, 6_000, 1_000), order(3, ASK, 7_000, 1_000)
    assert to.shortfall(first, FREE) <= -to.available
    to.admit(first)
    assert to.reserved() == 0
    to.admit(second)
    assert to.reserved() == 3_000_000


def test_shortfall_names_what_is_missing_with_its_fee():
    """100 at 0.50 with 51.00 in cash lacks 0.75: 50.00 of price and 1.75 of fee."""
    to = account(51)
    assert to.shortfall(order(1, BID, 5_000, 10_000), FEES) == 750_000


def test_client_ids_are_remembered_open_or_ever():
    """A closed order's id is free for open-only and taken for good otherwise."""
    to = account()
    row = order(1, client_id="a")
    to.admit(row)
    assert to.has_client_id("a", open_only=True)
    to.release(row, row.leaves, 2)
    assert row.state is OrderState.CANCELED
    assert not to.has_client_id("a", open_only=True)
    assert to.has_client_id("a", open_only=False)


@given(
    st.lists(
        st.tuples(st.sampled_from([BID, ASK]), st.integers(1, 99), st.integers(1, 50)),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([Side.YES, Side.NO]),
)
def test_cash_is_what_fills_and_settlement_moved(trades, result):
    """Whatever is traded, cash after settlement equals the sum over fills of what each leg paid and cost."""
    to = account(100_000)
    expected = to.cash
    for n, (side, cents, contracts) in enumerate(trades, 1):
        fill = trade(to, side, cents * 100, contracts * 100, number=n, fees=FEES)
        worth = 1_000_000 if result is Side.YES else 0
        expected += side.sign * contracts * (worth - cents * 10_000) - fill.fee
    position = sum(side.sign * contracts * 100 for side, _, contracts in trades)
    assert to.holding("T").position == position
    to.settle("T", "E", result, 99)
    assert to.cash == expected
    assert to.cash % 10_000 == 0
