"""Whatever quotes come and whatever is ordered, the option broker keeps its promises."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.broker import BASIC, CALL, HIGH_CALL, LOW_PUT, PUT, VERTICAL, engine, minute, quote, wish

from holdfast.core.money import MoneyE6
from holdfast.core.orders import FillCause
from holdfast.core.signals import BookSide, TimeInForce
from holdfast.venues.broker.engine import Executed, Quoted
from holdfast.venues.broker.orders import OrderRow, OrderState

CONTRACTS = (CALL, HIGH_CALL, PUT, LOW_PUT)
CONDOR = f"+1*{LOW_PUT.ticker},-1*{PUT.ticker}"
TICKERS = [one.ticker for one in CONTRACTS] + [VERTICAL, CONDOR, f"-1*{CALL.ticker},+2*{HIGH_CALL.ticker}"]

# Few prices, zeros among them, so that orders and quotes meet often and bad quotes are met too.
cents = st.sampled_from([0, 90, 100, 110, 200, 300, 310])
sizes = st.sampled_from([0, 1, 2, 5])
quotes = st.builds(quote, st.sampled_from(CONTRACTS), cents, cents, size=sizes, bid_size=sizes)
steps = st.one_of(
    st.tuples(st.just("minute"), st.lists(quotes, max_size=4)),
    st.tuples(
        st.just("order"),
        st.sampled_from(TICKERS),
        st.sampled_from(list(BookSide)),
        st.sampled_from([-220, -100, 90, 100, 110, 200, 300, 310, 320]),
        st.integers(1, 6),
        st.sampled_from(list(TimeInForce)),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=25))
@pytest.mark.contract("A21")
@pytest.mark.invariant("I13")
def test_no_fill_is_better_than_recorded_nor_more_than_shown_and_money_is_conserved(course):
    """Each execution is at the executable side of a quote that has one; per quote no more than its size; cash,
    positions and fees are the sum of the executions; every order adds up; nothing becomes naked."""
    book = engine(listings=BASIC)
    start = book.account.cash
    n, orders = 0, []
    live = {ticker: shown.quote for ticker, shown in book.shown.items()}
    used = defaultdict(int)
    for step in course:
        if step[0] == "minute":
            n += 1
            last = {one.ticker: one for one in step[1]}
            book.apply(minute(n, list(last.values())))
        elif step[0] == "order":
            placed = book.place(wish(step[1], step[2], step[3], step[4], tif=step[5]))
            if isinstance(placed, OrderRow):
                orders.append(placed)
        else:
            working = book.open_orders
            if working:
                book.cancel(working[step[1] % len(working)].order_id)
        for what in book.drain():
            if isinstance(what, Quoted):
                for one in what.minute.quotes:
                    live[one.ticker] = one
                    used[one.ticker, "bid"] = used[one.ticker, "ask"] = 0
            if isinstance(what, Executed):
                done = what.execution
                one = live[done.ticker]
                side, price, size = (
                    ("ask", one.ask, one.ask_size)
                    if done.side is BookSide.BID
                    else ("bid", one.bid, one.bid_size)
                )
                assert done.price == price > 0
                assert not one.bid > one.ask > 0
                used[done.ticker, side] += done.qty
                assert used[done.ticker, side] <= size
    cash, held, fees = start, defaultdict(int), 0
    for done in book.executions:
        assert done.cause is FillCause.TRADE
        cash -= done.side.sign * done.price * done.qty * 100 + done.fee
        fees += done.fee
        held[done.ticker] += done.side.sign * done.qty
    assert book.account.cash == cash
    assert book.account.fees == fees
    assert book.account.positions == {ticker: qty for ticker, qty in held.items() if qty}
    spots = {symbol: spot.price for symbol, (spot, _) in book.spots.items()}
    assert book.account.requirement(book.account.positions, spots).naked == 0
    for order in orders:
        assert order.filled + order.leaves + order.canceled == order.request.qty
        assert (order.leaves > 0) is (order.state is OrderState.WORKING)
        net = MoneyE6(0)
        for done in book.executions:
            if done.order_id == order.order_id:
                net += done.side.sign * done.price * done.qty
        limit = order.request.side.sign * order.request.price * order.filled
        assert net <= limit, "an order paid more than its limit"
        for ticker, ratio in order.legs:
            moved = sum(
                e.side.sign * e.qty
                for e in book.executions
                if (e.order_id, e.ticker) == (order.order_id, ticker)
            )
            assert moved == order.request.side.sign * ratio * order.filled
