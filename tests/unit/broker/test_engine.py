"""The broker's books: what every request and every minute leads to."""

from __future__ import annotations

import msgspec
import pytest
from support.broker import (
    BASIC,
    CALL,
    CLOSE_NS,
    HIGH_CALL,
    LOW_PUT,
    PUT,
    START_NS,
    STOCK,
    VERTICAL,
    basic_quotes,
    engine,
    minute,
    option,
    quote,
    wish,
)

from holdfast.core.clock import NANOS
from holdfast.core.money import MoneyE6, QtyE2
from holdfast.core.orders import FillCause
from holdfast.core.signals import BookSide, TimeInForce
from holdfast.venues.broker.endings import Assignment
from holdfast.venues.broker.engine import Ended, Executed, OrderMoved, Quoted
from holdfast.venues.broker.feed import MINUTE_NS
from holdfast.venues.broker.orders import OrderRow, OrderState, Refusal

BID, ASK, IOC = BookSide.BID, BookSide.ASK, TimeInForce.IOC
USD = 1_000_000


def placed(book, *args, **more):
    answer = book.place(wish(*args, **more))
    assert isinstance(answer, OrderRow), answer
    return answer


def refused(book, *args, **more):
    answer = book.place(wish(*args, **more))
    assert isinstance(answer, Refusal)
    return answer.code


def told(book):
    return [(e.ticker, e.side, e.price, e.qty) for e in book.executions]


@pytest.mark.contract("A21")
def test_a_marketable_order_fills_at_the_ask_and_pays_multiplier_and_fee():
    """Two contracts at 3.20 cost 640 dollars and 1.30 in fees."""
    book = engine()
    order = placed(book, qty=2)
    assert (order.state, order.filled) == (OrderState.FILLED, 200)
    assert told(book) == [(CALL.ticker, BID, 32_000, 200)]
    assert book.account.cash == 100_000 * USD - 640 * USD - 1_300_000
    assert book.account.positions == {CALL.ticker: 200}


def test_an_order_takes_no_more_than_the_size_and_the_rest_waits_for_the_next_quote():
    """Ten are shown; the other five come a minute later."""
    book = engine()
    order = placed(book, qty=15)
    assert (order.filled, order.leaves) == (1_000, 500)
    placed(book, qty=1, tif=IOC)
    assert len(book.executions) == 1, "what we took stays taken"
    book.apply(minute(1, basic_quotes()))
    assert order.state is OrderState.FILLED
    assert [e.is_taker for e in book.executions] == [True, False]


def test_a_resting_order_fills_only_when_a_later_quote_reaches_its_limit_and_at_that_quote():
    """A bid at 3.15 rests at an ask of 3.20 and buys at 3.12 when that is asked."""
    book = engine()
    order = placed(book, price=315)
    book.apply(minute(1, [quote(CALL, 310, 316)]))
    assert order.state is OrderState.WORKING
    book.apply(minute(2, [quote(CALL, 305, 312)]))
    assert order.state is OrderState.FILLED
    assert told(book) == [(CALL.ticker, BID, 31_200, 100)]


@pytest.mark.parametrize(
    "bad",
    [quote(CALL, 330, 312), quote(CALL, 310, 0), quote(CALL, 310, 312, size=0)],
    ids=["crossed", "no ask", "no size"],
)
def test_a_resting_order_does_not_fill_on_a_quote_that_is_none(bad):
    """Crossed, one-sided on its side or sizeless: it goes on resting."""
    book = engine()
    order = placed(book, price=315)
    book.apply(minute(1, [bad]))
    assert order.state is OrderState.WORKING


def test_a_stale_quote_fills_nothing():
    """Three minutes without a quote: an immediate order gets nothing."""
    book = engine()
    book.advance(START_NS + 3 * MINUTE_NS)
    assert placed(book, tif=IOC).filled == 0


def test_a_combination_fills_as_a_unit_for_its_net_price():
    """Buying the vertical pays 3.20 and receives 1.00; the legs are executions of their own."""
    book = engine()
    order = placed(book, VERTICAL, price=220, qty=2)
    assert order.state is OrderState.FILLED
    assert told(book) == [(CALL.ticker, BID, 32_000, 200), (HIGH_CALL.ticker, ASK, 10_000, 200)]
    assert len({e.exec_id for e in book.executions}) == 2
    assert {e.order_id for e in book.executions} == {order.order_id}
    assert book.account.cash == 100_000 * USD - 440 * USD - 2_600_000


def test_a_combination_for_a_credit_has_a_negative_price():
    """Selling the vertical at -2.10... buys nothing; bidding -2.00 for its mirror receives two dollars."""
    mirror = f"-1*{CALL.ticker},+1*{HIGH_CALL.ticker}"
    book = engine()
    assert placed(book, mirror, price=-210, tif=IOC).filled == 0
    order = placed(book, mirror, price=-200)
    assert order.state is OrderState.FILLED
    assert book.account.cash == 100_000 * USD + 200 * USD - 1_300_000
    assert book.buying_power() == book.account.cash - 500 * USD


def test_a_combination_with_one_dead_leg_trades_no_leg():
    """A leg without a bid leaves the whole combination resting."""
    quotes = [quote(HIGH_CALL, 0, 5) if q.ticker == HIGH_CALL.ticker else q for q in basic_quotes()]
    book = engine([minute(0, quotes)])
    order = placed(book, VERTICAL, price=400)
    assert order.state is OrderState.WORKING
    assert book.executions == []


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"ticker": "SPY231006C00999000"}, "not_found"),
        ({"ticker": f"+1*{CALL.ticker},-1*SPY231006C00999000"}, "not_found"),
        ({"ticker": "+1*nonsense"}, "not_found"),
        ({"price": 0}, "invalid_price"),
        ({"price": -5}, "invalid_price"),
        ({"qty": 0}, "invalid_count"),
        ({"expiration_ns": START_NS}, "invalid_expiration"),
        ({"expiration_ns": START_NS + NANOS, "tif": IOC}, "invalid_expiration"),
        ({"post_only": True}, "post_only_would_cross"),
        ({"qty": 11, "tif": TimeInForce.FOK}, "fill_or_kill"),
        ({"side": ASK, "price": 310}, "naked_short"),
        ({"qty": 400}, "buying_power"),
    ],
)
def test_a_wrong_order_is_refused_by_name_and_changes_nothing(request_, code):
    """No order, no execution, no reservation."""
    book = engine()
    before = book.books()
    assert refused(book, **request_) == code
    assert book.books() == before
    assert book.drain() == []


def test_a_fraction_of_a_tick_or_of_a_contract_is_refused():
    """Prices are whole cents, counts whole contracts."""
    book = engine()
    odd = wish()
    assert book.place(msgspec.structs.replace(odd, price=32_050)).code == "invalid_price"
    assert book.place(msgspec.structs.replace(odd, qty=QtyE2(150))).code == "invalid_count"


def test_a_client_order_id_is_taken_for_ever():
    """Also after its order has ended."""
    book = engine()
    placed(book, name="one", tif=IOC)
    assert refused(book, name="one") == "order_already_exists"


def test_working_orders_reserve_buying_power_and_canceling_gives_it_back():
    """Two resting bids of 60,000 dollars do not fit into 100,000."""
    book = engine()
    first = placed(book, PUT.ticker, price=280, qty=200)
    assert book.buying_power() == 100_000 * USD - 56_000 * USD - 130 * USD
    assert refused(book, PUT.ticker, price=280, qty=200) == "buying_power"
    assert book.cancel(first.order_id) == (first, 20_000)
    assert book.buying_power() == 100_000 * USD
    assert book.cancel(first.order_id).code == "not_found"


def test_selling_the_wing_that_covers_a_short_is_refused_and_buying_the_short_back_is_not():
    """The order that would leave a naked call does not pass; the one that closes it does."""
    book = engine()
    mirror = f"-1*{CALL.ticker},+1*{HIGH_CALL.ticker}"
    placed(book, mirror, price=-200)
    assert refused(book, HIGH_CALL.ticker, ASK, 100) == "naked_short"
    assert placed(book, CALL.ticker, BID, 320).state is OrderState.FILLED


def test_a_resting_order_that_would_leave_a_naked_short_is_canceled_when_its_quote_comes():
    """The wing rested for sale before the short leg was sold against it."""
    book = engine()
    placed(book, HIGH_CALL.ticker, BID, 110)
    wing = placed(book, HIGH_CALL.ticker, ASK, 120)
    placed(book, CALL.ticker, ASK, 310)
    book.apply(minute(1, [quote(HIGH_CALL, 125, 130)]))
    assert (wing.state, wing.reason) == (OrderState.CANCELED, "naked_short")
    assert book.account.positions == {HIGH_CALL.ticker: 100, CALL.ticker: -100}


def test_an_order_ends_at_its_expiration():
    """Not before, and no execution after."""
    book = engine()
    order = placed(book, price=300, expiration_ns=START_NS + 90 * NANOS)
    book.advance(START_NS + 75 * NANOS)
    assert order.state is OrderState.WORKING
    book.advance(START_NS + 90 * NANOS)
    assert order.state is OrderState.EXPIRED


def test_what_happened_is_told_in_order():
    """Executions before the order as it stands; a minute before what it caused."""
    book = engine()
    placed(book, price=315)
    book.apply(minute(1, [quote(CALL, 300, 310)]))
    assert [type(what) for what in book.drain()] == [OrderMoved, Quoted, Executed, OrderMoved]


# Endings -------------------------------------------------------------------------------------------------

TODAY = 20230908


def expiring(right, strike, settlement="physical"):
    underlying = "SPX" if settlement == "cash" else "SPY"
    return option(
        right, strike, underlying=underlying, expiry=TODAY, expires_ns=CLOSE_NS, settlement=settlement
    )


def at_expiry(listing, qty, spot, *, cash=100_000):
    """An engine that held *qty* contracts when they ended with the underlying at *spot* cents."""
    hedge = [
        option(
            right,
            445,
            underlying=listing.underlying,
            expiry=TODAY,
            expires_ns=CLOSE_NS,
            settlement=listing.terms.settlement.value,
        )
        for right in "CP"
    ]
    listings = (STOCK, listing, *[one for one in hedge if one.ticker != listing.ticker])
    symbol = listing.underlying
    last = (CLOSE_NS - START_NS) // MINUTE_NS
    book = engine(
        [minute(0, [quote(listing, 300, 310)], symbol=symbol)], listings=listings, cash=MoneyE6(cash * USD)
    )
    book.account.positions[listing.ticker] = QtyE2(qty * 100)
    book.apply(minute(last - 1, [quote(listing, 300, 310)], spot=spot, symbol=symbol))
    book.apply(minute(last, [quote(listing, 300, 310)], spot=spot, symbol=symbol))
    return book


@pytest.mark.parametrize(
    ("contract", "qty", "spot", "causes", "positions"),
    [
        (("C", 450), 2, 45_001, ["exercise", "exercise"], {"SPY": 20_000}),
        (("C", 450), -2, 45_001, ["assignment", "assignment"], {"SPY": -20_000}),
        (("P", 450), 1, 44_999, ["exercise", "exercise"], {"SPY": -10_000}),
        (("P", 450), -1, 44_999, ["assignment", "assignment"], {"SPY": 10_000}),
        (("C", 450), 2, 45_000, ["expiration"], {}),
        (("P", 450), -1, 45_000, ["expiration"], {}),
    ],
)
def test_a_delivered_option_in_the_money_by_a_cent_becomes_stock_at_the_strike(
    contract, qty, spot, causes, positions
):
    """Long is exercised, short assigned; at the money it expires."""
    right, strike = contract
    book = at_expiry(expiring(right, strike), qty, spot)
    assert [e.cause.value for e in book.executions] == causes
    assert book.account.positions == positions
    assert book.executions[0].price == 0
    if len(causes) == 2:
        assert (book.executions[1].ticker, book.executions[1].price) == ("SPY", strike * 10_000)
        assert (book.executions[1].multiplier, book.executions[1].fee) == (1, 0)
        paid = positions["SPY"] * strike * 10_000
        assert book.account.cash == 100_000 * USD - paid


@pytest.mark.parametrize(("qty", "spot", "dollars"), [(1, 45_300, 300), (-1, 45_300, -300), (1, 44_000, 0)])
def test_a_cash_settled_option_pays_its_intrinsic_value_and_delivers_nothing(qty, spot, dollars):
    """The difference times the multiplier, once, for whoever is long."""
    book = at_expiry(expiring("C", 450, "cash"), qty, spot)
    assert [e.cause for e in book.executions] == [FillCause.EXPIRATION]
    assert book.account.positions == {}
    assert book.account.cash == (100_000 + dollars) * USD


def test_an_ended_contract_takes_its_orders_with_it_and_accepts_no_more():
    """The quote of the last minute comes too late to fill, and a new order is refused."""
    listing = expiring("C", 450)
    book = engine([minute(0, [quote(listing, 300, 310)])], listings=(STOCK, listing))
    order = placed(book, listing.ticker, price=200)
    last = (CLOSE_NS - START_NS) // MINUTE_NS
    book.apply(minute(last, [quote(listing, 100, 110)]))
    assert order.state is OrderState.EXPIRED
    assert book.executions == []
    assert Ended(listing.ticker, "expired", CLOSE_NS) in book.drain()
    assert refused(book, listing.ticker) == "contract_ended"


@pytest.mark.invariant("I4")
def test_without_a_settlement_price_nothing_is_settled():
    """The underlying was last seen an hour before the end: the position stays, and the status says so."""
    listing = expiring("C", 450)
    book = engine([minute(0, [quote(listing, 300, 310)])], listings=(STOCK, listing))
    placed(book, listing.ticker, price=310)
    book.apply(minute(300, [quote(listing, 300, 310)]))
    book.drain()
    book.advance(CLOSE_NS)
    assert book.drain() == [Ended(listing.ticker, "unsettled", CLOSE_NS)]
    assert book.account.positions == {listing.ticker: 100}


def test_a_scripted_assignment_takes_at_most_what_is_short():
    """Three are named, two are short: two become stock; a long position is never assigned."""
    at = Assignment(START_NS + 60 * NANOS, PUT.ticker, QtyE2(300))
    later = Assignment(START_NS + 90 * NANOS, CALL.ticker, QtyE2(100))
    book = engine(assignments=[later, at])
    placed(book, PUT.ticker, ASK, 290, 2)
    placed(book, CALL.ticker, BID, 320, 1)
    book.advance(START_NS + 59 * NANOS)
    assert len(book.executions) == 2
    book.advance(START_NS + 120 * NANOS)
    assert [(e.ticker, e.side, e.price, e.qty, e.cause) for e in book.executions[2:]] == [
        (PUT.ticker, BID, 0, 200, FillCause.ASSIGNMENT),
        ("SPY", BID, 4_500_000, 20_000, FillCause.ASSIGNMENT),
    ]
    assert book.account.positions == {CALL.ticker: 100, "SPY": 20_000}


def test_chance_assigns_only_shorts_deep_in_the_money_without_time_value():
    """With certainty as the rate: nothing while time value is left, everything in the minute it is gone."""
    book = engine(assign_ppm=1_000_000)
    placed(book, LOW_PUT.ticker, ASK, 120)
    book.apply(minute(1, [quote(LOW_PUT, 2_510, 2_520)], spot=42_000))
    assert len(book.executions) == 1
    book.apply(minute(2, [quote(LOW_PUT, 2_500, 2_520)], spot=42_000))
    assert book.account.positions == {"SPY": 10_000}
    never = engine(assign_ppm=0)
    placed(never, LOW_PUT.ticker, ASK, 120)
    never.apply(minute(2, [quote(LOW_PUT, 2_500, 2_520)], spot=42_000))
    assert never.account.positions == {LOW_PUT.ticker: -100}


@pytest.mark.invariant("I12")
def test_equal_requests_lead_to_equal_books():
    """Ids included; another seed has other ids."""

    def run(seed):
        book = engine(seed=seed, listings=BASIC)
        book.place(wish(name="a", qty=15))
        book.place(wish(VERTICAL, price=200, name="b"))
        book.apply(minute(1, basic_quotes()))
        return book.books()

    assert run(1) == run(1)
    assert run(1).executions[0].exec_id != run(2).executions[0].exec_id
