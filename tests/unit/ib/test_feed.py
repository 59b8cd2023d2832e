"""What comes by itself from Interactive Brokers: prices, Greeks, gaps, and what they are worth."""

from __future__ import annotations

import math

import pytest
from support.ib import CALL, LOWER_PUT, PUT, SPREAD, Listener, place, play

from holdfast.core.clock import NANOS
from holdfast.core.errors import VenueRejected
from holdfast.core.signals import TimeInForce
from holdfast.execution.venue import BookChanged, GreeksSeen, MarketChanged, OrderSeen, UnderlyingSeen


def books(heard, ticker=CALL):
    return [
        event.book for event in heard.seen if isinstance(event, BookChanged) and event.book.ticker == ticker
    ]


def greeks(heard):
    return [event.greeks for event in heard.seen if isinstance(event, GreeksSeen)]


@pytest.mark.contract("B15")
def test_quotes_greeks_and_the_underlying_are_told():
    """A followed option brings its best prices with sizes, the model's Greeks and the underlying's price."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await heard.until(lambda: greeks(heard))
        book = books(heard)[-1]
        assert [(lv.price, lv.qty) for lv in (*book.bids, *book.asks)] == [
            (150_000, 100_000),
            (151_000, 100_000),
        ]
        told = greeks(heard)[-1]
        assert (told.delta_e6, told.gamma_e6, told.vega_e6, told.theta_e6) == (
            500_000,
            10_000,
            300_000,
            -50_000,
        )
        assert (told.iv_e6, told.source) == (200_000, "feed")
        (spot, *_) = [event for event in heard.seen if isinstance(event, UnderlyingSeen)]
        assert (spot.symbol, spot.price) == ("SPY", 6_600_000)

    play(scenario)


@pytest.mark.contract("B15")
@pytest.mark.invariant("I4")
@pytest.mark.parametrize(
    "missing", [{"delta": -2}, {"gamma": -2}, {"vega": -2}, {"theta": -2}, {"delta": math.nan}]
)
def test_greeks_count_together_or_not_at_all(missing):
    """One Greek without a value, -2 or NaN, and none of them is told."""

    async def scenario(w):
        w.at.greeks(CALL, **missing)
        heard = Listener(w, CALL)
        await heard.until(lambda: books(heard))
        await heard.settle()
        assert greeks(heard) == []

    play(scenario)


@pytest.mark.invariant("I4")
def test_a_side_without_size_is_empty_and_a_crossed_book_is_none():
    """A side of size zero is absent whatever its price; crossed prices are no book, and say so."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await heard.until(lambda: books(heard))
        w.at.quote(CALL, bid=-1, ask=15.1)
        await heard.until(lambda: not books(heard)[-1].bids)
        assert books(heard)[-1].best_ask == 151_000
        w.at.quote(CALL, bid=15.3, ask=15.1)
        await heard.until(heard.gaps)
        assert heard.gaps()[-1].tickers == (CALL,)

    play(scenario)


def test_a_combination_is_quoted_as_what_it_costs_net():
    """A followed combination has a book of net prices, negative where buying it earns."""

    async def scenario(w):
        heard = Listener(w, SPREAD)
        await heard.until(lambda: books(heard, SPREAD))
        book = books(heard, SPREAD)[-1]
        assert (book.best_bid, book.best_ask) == (-41_000, -39_000)

    play(scenario)


@pytest.mark.contract("B15")
@pytest.mark.invariant("I4")
@pytest.mark.parametrize("code", [354, 10167, 10197, 101])
def test_without_live_data_there_is_no_price(code):
    """No subscription, delayed data, a competing session and too many lines are no prices, under their number."""

    async def scenario(w):
        w.at.no_data = code
        heard = Listener(w, CALL)
        await heard.until(heard.gaps)
        assert str(code) in heard.gaps()[-1].reason
        await heard.settle()
        assert books(heard) == []
        with pytest.raises(VenueRejected) as caught:
            await w.venue.book(LOWER_PUT)
        assert caught.value.code == str(code)
        assert "market data" in caught.value.hint

    play(scenario)


def test_a_data_centre_that_is_down_takes_every_price_out_until_it_is_back():
    """2103 marks everything followed as missing; 2104 subscribes anew and the prices come back."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await heard.until(lambda: books(heard))
        w.at.say(2103, "Market data farm connection is broken:usopt")
        await heard.until(heard.gaps)
        heard.seen.clear()
        w.at.say(2104, "Market data farm connection is OK:usopt")
        await heard.until(lambda: books(heard))

    play(scenario)


def test_a_book_is_read_from_a_subscription_of_its_own_and_let_go():
    """A book that nobody follows is subscribed for one answer; its age is from before it was asked."""

    async def scenario(w):
        w.clock.advance(3)
        book = await w.venue.book(PUT)
        assert (book.best_bid, book.best_ask) == (100_000, 101_000)
        assert book.alive_ns == 3 * NANOS
        assert w.at.heard.count("reqMktData") == w.at.heard.count("cancelMktData") == 1

    play(scenario)


def test_a_silent_gateway_is_asked_for_a_sign_of_life_which_proves_the_prices():
    """When nothing comes for a while, the gateway's time is asked, and what was shown is told as alive now."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await heard.until(lambda: books(heard))
        heard.seen.clear()
        w.clock.advance(10)
        assert await w.venue.tick_probe()
        await heard.until(lambda: books(heard))
        assert books(heard)[-1].alive_ns == 10 * NANOS

    play(scenario)


def test_a_market_that_closes_is_told():
    """Contracts are open in their sessions alone, and the change is told when time passes it."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await heard.until(lambda: books(heard))
        await w.venue.tick_probe()
        assert (await w.venue.instrument(CALL)).is_open
        w.clock.advance(6 * 3_600)
        await w.venue.tick_probe()
        await heard.until(lambda: any(isinstance(event, MarketChanged) for event in heard.seen))
        (change,) = [event for event in heard.seen if isinstance(event, MarketChanged)]
        assert (change.ticker, change.status) == (CALL, "closed")
        assert not (await w.venue.instrument(CALL)).is_open

    play(scenario)


def test_only_the_gateways_own_word_on_an_order_is_told():
    """A warning that the library turns into a status is not told as the order's change."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await place(w, price=1.0, tif=TimeInForce.GTC, name="hf-warned")
        await heard.settle()
        heard.seen.clear()
        number = w.at.order_of("hf-warned").number
        w.at.say(399, "Order Message: scripted", about=number)
        w.at.say(10147, "OrderId that needs to be cancelled is not found.", about=number)
        await heard.settle()
        assert not [event for event in heard.seen if isinstance(event, OrderSeen)]

    play(scenario)


def test_a_contract_that_nobody_quotes_is_no_failure_of_the_gateway(monkeypatch):
    """No prices in time is a refusal by its own name, and the breaker counts nothing."""
    monkeypatch.setattr("holdfast.venues.ib.adapter.QUOTE_SECS", 0.02)

    async def scenario(w):
        w.at.list_option("SPY251219C00700000", underlying="SPY")
        w.at.quote("SPY251219C00700000", bid=5.0, ask=4.0)
        for _ in range(6):
            with pytest.raises(VenueRejected) as caught:
                await w.venue.book("SPY251219C00700000")
            assert caught.value.code == "no_quote"
        assert w.breaker.get_state() == "closed"

    play(scenario)


def test_a_subscription_from_before_a_gap_is_made_anew_when_its_book_is_asked():
    """After a cut a followed contract's book comes from a fresh subscription, though nothing changed meanwhile."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await heard.until(lambda: books(heard))
        w.at.cut_link()
        await heard.settle()
        w.at.is_linked = True
        w.venue.session.is_linked = True
        book = await w.venue.book(CALL)
        assert book.best_ask == 151_000
        assert w.at.heard.count("reqMktData") == 2

    play(scenario)


def test_each_data_centre_is_down_until_it_is_back_itself():
    """One centre's return says nothing of another's, being connected is no return, and history brings no prices."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await heard.until(lambda: books(heard))
        w.at.say(2105, "HMDS data farm connection is broken:ushmds")
        await heard.settle()
        assert heard.gaps() == []
        for centre in ("usopt", "usfarm"):
            w.at.say(2103, f"Market data farm connection is broken:{centre}")
        await heard.until(lambda: len(heard.gaps()) == 2)
        asked = w.at.heard.count("reqMktData")
        for code, text in (
            (2119, "Market data farm is connecting:usopt"),
            (2106, "HMDS data farm connection is OK:ushmds"),
        ):
            w.at.say(code, text)
        await heard.settle()
        assert w.at.heard.count("reqMktData") == asked
        heard.seen.clear()
        w.at.quotes[w.at.number_of(CALL)].bid_size = w.at.quotes[w.at.number_of(CALL)].ask_size = 0.0
        w.at.say(2104, "Market data farm connection is OK:usfarm")
        await heard.settle()
        assert books(heard) == []
        w.at.quotes[w.at.number_of(CALL)].bid_size = 5.0
        w.at.say(2104, "Market data farm connection is OK:usopt")
        await heard.until(lambda: books(heard))
        assert w.at.heard.count("reqMktData") == asked + 2

    play(scenario)


@pytest.mark.invariant("I4")
def test_a_fresh_subscription_knows_nothing_of_the_one_before():
    """A side or Greeks that went away during a cut are not shown again because the library remembers them."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await heard.until(lambda: greeks(heard))
        w.at.cut_link()
        w.at.quote(CALL, bid=14.0)
        w.at.quotes[w.at.number_of(CALL)].greeks = ()
        await heard.settle()
        heard.seen.clear()
        w.at.restore_link()
        await heard.until(lambda: books(heard))
        await heard.settle()
        assert {(book.best_bid, book.best_ask) for book in books(heard)} == {(140_000, None)}
        assert greeks(heard) == []

    play(scenario)


def test_every_subscription_let_go_is_let_go_at_the_gateway():
    """The account has a hundred at a time: however fast they are made anew, the gateway holds each once."""

    async def scenario(w):
        tickers = [CALL, PUT, LOWER_PUT, SPREAD, "SPY"]
        heard = Listener(w, *tickers)
        for _ in range(3):
            await heard.until(lambda: len(w.venue._feed._shown) == len(tickers))
            w.at.cut_link()
            await heard.settle()
            w.at.restore_link()
            await heard.settle()
        (line,) = w.at._lines
        assert len(line.tickers) <= len(tickers)

    play(scenario)
