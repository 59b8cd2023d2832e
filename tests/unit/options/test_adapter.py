"""The options adapter over a real socket: what it answers, counts, records and passes on."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from support.broker import (
    BASIC,
    CALL,
    CLOSE_NS,
    GREEKS,
    HIGH_CALL,
    LOW_PUT,
    PUT,
    START_NS,
    STOCK,
    VERTICAL,
    Desk,
    WrittenFeed,
    basic_quotes,
    desk_at,
    desk_on_broker,
    minute,
    option,
    quote,
    serving,
)

from holdfast.core.clock import ManualClock
from holdfast.core.errors import (
    CircuitBreakerOpenError,
    VenueAnswerUnknown,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.core.greeks import FEED, MODEL
from holdfast.core.instruments import InstrumentKind
from holdfast.core.orders import FillCause, OrderStatus
from holdfast.core.signals import TimeInForce
from holdfast.execution.venue import (
    Ack,
    AlreadyClosed,
    BookChanged,
    Canceled,
    FillSeen,
    GreeksSeen,
    MarketChanged,
    NotSent,
    OrderSeen,
    Reject,
    StreamGap,
    UnderlyingSeen,
    Unknown,
    VenueTime,
)
from holdfast.venues.broker.faults import Fault, Kind, Scripted
from holdfast.venues.broker.feed import MINUTE_NS
from holdfast.venues.broker.server import Endpoints
from holdfast.venues.options.link import Link, Lost
from holdfast.venues.options.quotes import BadQuote, QuoteFault
from holdfast.venues.options.stream import StreamMachine
from holdfast.venues.options.wire import Frame
from holdfast.venues.pricing import Model

USD = 1_000_000


def play(tmp_path, scenario, feed=None, **options):
    """Run *scenario(desk)* on a fresh broker."""

    async def run():
        async with desk_on_broker(tmp_path, feed, **options) as desk:
            await asyncio.wait_for(scenario(desk), 20)

    asyncio.run(run())


def fault(what: Fault, kind: Kind = Kind.ORDER, *, count: int = 1) -> Scripted:
    return Scripted(fault=what, kind=kind, left=count, at_ns=0)


def is_final(event):
    return isinstance(event, VenueTime) and event.final


# Rules, quotes, account ----------------------------------------------------------------------------------


def test_contracts_stocks_and_combinations_say_their_rules(tmp_path):
    """Terms, multiplier, fee and grid come from the listing; a combination's from its legs."""

    async def scenario(desk):
        one = await desk.venue.instrument(CALL.ticker)
        assert (one.kind, one.multiplier, one.fee_per_contract) == (InstrumentKind.OPTION, 100, 650_000)
        assert one.option == CALL.terms
        assert (one.underlying, one.close_ns, one.is_open) == ("SPY", CALL.terms.expires_ns, True)
        stock = await desk.venue.instrument("SPY")
        assert (stock.kind, stock.multiplier, stock.fee_per_contract) == (InstrumentKind.STOCK, 1, 0)
        combo = await desk.venue.combo([(HIGH_CALL.ticker, -1), (CALL.ticker, 1)])
        assert (combo.ticker, combo.kind, combo.multiplier) == (VERTICAL, InstrumentKind.COMBO, 100)
        assert [(leg.instrument.option, leg.ratio) for leg in combo.legs] == [
            (CALL.terms, 1),
            (HIGH_CALL.terms, -1),
        ]
        chain = await desk.venue.chain("SPY")
        assert [one.ticker for one in chain] == [one.ticker for one in BASIC[1:]]
        assert await desk.venue.chain("QQQ") == []

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "ticker", ["SPY231006C00999000", "+1*nonsense", f"+1*{CALL.ticker},-1*SPY", "", f"+2*{CALL.ticker}"]
)
def test_what_is_not_listed_is_not_found(tmp_path, ticker):
    """Unknown contracts, broken names and combinations with stock legs."""

    async def scenario(desk):
        with pytest.raises(VenueRejected) as caught:
            await desk.venue.instrument(ticker)
        assert caught.value.code == "not_found"

    play(tmp_path, scenario)


def test_the_book_of_a_combination_is_composed_from_its_legs(tmp_path):
    """Best sides and sizes as the broker would trade them."""

    async def scenario(desk):
        book = await desk.venue.book(VERTICAL)
        assert [(one.price, one.qty) for one in (*book.bids, *book.asks)] == [
            (20_000, 1_000),
            (22_000, 1_000),
        ]

    play(tmp_path, scenario)


@pytest.mark.invariant("I4")
@pytest.mark.parametrize(
    ("bad", "name"),
    [(quote(CALL, 320, 310), "quote_crossed"), (quote(CALL, 0, 0), "quote_missing"), (None, "quote_missing")],
)
def test_a_book_that_is_no_price_is_refused_by_name(tmp_path, bad, name):
    """Of the contract and of every combination with it."""
    quotes = [bad if q.ticker == CALL.ticker else q for q in basic_quotes()]
    feed = WrittenFeed(minutes=[minute(0, [q for q in quotes if q is not None])])

    async def scenario(desk):
        for ticker in (CALL.ticker, VERTICAL):
            with pytest.raises(BadQuote) as caught:
                await desk.venue.book(ticker)
            assert caught.value.fault == name

    play(tmp_path, scenario, feed)


def test_an_old_quote_is_no_book(tmp_path):
    """By the market's time, after two minutes and a half."""

    async def scenario(desk):
        desk.clock.set_now_ns(START_NS + 151 * 10**9)
        with pytest.raises(BadQuote) as caught:
            await desk.venue.book(CALL.ticker)
        assert caught.value.fault is QuoteFault.STALE

    play(tmp_path, scenario)


def test_the_account_is_read_as_the_broker_keeps_it(tmp_path):
    """Cash, buying power and positions after a credit vertical."""

    async def scenario(desk):
        mirror = f"-1*{CALL.ticker},+1*{HIGH_CALL.ticker}"
        await desk.place(await desk.intent("a", mirror, price=-200))
        assert await desk.venue.balance() == 100_000 * USD + 200 * USD - 1_300_000
        assert await desk.venue.buying_power() == await desk.venue.balance() - 500 * USD
        assert await desk.venue.positions() == {CALL.ticker: -100, HIGH_CALL.ticker: 100}
        listed = await desk.venue.find_order(client_order_id="a", ticker=mirror, since_ns=0)
        assert (listed.status, listed.multiplier, listed.yes_price) == (OrderStatus.FILLED, 100, -20_000)

    play(tmp_path, scenario)


# Placing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"qty": 11, "tif": TimeInForce.FOK}, "fill_or_kill"),
        ({"qty": 400}, "buying_power"),
        ({"post_only": True}, "post_only_would_cross"),
    ],
)
def test_the_brokers_no_is_a_reject_and_no_failure(tmp_path, change, code):
    """By its own word; the breaker does not count it, the record shows it."""

    async def scenario(desk):
        answer = await desk.place(await desk.intent("a", **change))
        assert isinstance(answer, Reject)
        assert (answer.code, answer.status) == (code, 400)
        assert desk.breaker.get_stats()["failed_calls"] == 0
        assert ("POST", "orders", 400) in desk.calls()

    play(tmp_path, scenario)


@pytest.mark.contract("A16")
@pytest.mark.parametrize(
    ("what", "executed"),
    [
        (Fault.ERROR, False),
        (Fault.ERROR_AFTER, True),
        (Fault.DROP, True),
        (Fault.HANG, True),
        (Fault.GARBAGE, True),
    ],
)
def test_a_lost_answer_is_unknown_and_the_books_tell(tmp_path, what, executed):
    """Nothing is repeated; whether it happened is found by the client order id, over a new connection if need be."""

    async def scenario(desk):
        wish = await desk.intent("a")
        desk.server.faults.add(fault(what))
        answer = await desk.place(wish)
        assert isinstance(answer, Unknown)
        found = await desk.venue.find_order(client_order_id="a", ticker=CALL.ticker, since_ns=0)
        assert (found is not None) is executed
        assert await desk.venue.positions() == ({CALL.ticker: 100} if executed else {})
        assert [call[:2] for call in desk.calls()].count(("POST", "orders")) == 1
        assert desk.breaker.get_stats()["failed_calls"] == 1

    play(tmp_path, scenario, timeout_secs=0.3)


def test_a_name_taken_is_looked_up_and_never_a_reject(tmp_path):
    """409 also after the first order has ended."""

    async def scenario(desk):
        assert isinstance(await desk.place(await desk.intent("a", tif=TimeInForce.IOC)), Ack)
        answer = await desk.place(await desk.intent("a", tif=TimeInForce.IOC))
        assert isinstance(answer, Unknown)
        assert answer.status == 409

    play(tmp_path, scenario)


def test_without_a_broker_nothing_is_sent_and_that_is_said(tmp_path):
    """NotSent, one failed record, one failure counted, and the admission is still good."""

    async def scenario():
        async with serving() as (_, endpoints), desk_at(endpoints, tmp_path / "one") as ready:
            wish = await ready.intent("a")
        async with desk_at(endpoints, tmp_path / "two", timeout_secs=1.0) as desk:
            answer = await desk.place(wish)
            assert isinstance(answer, NotSent)
            assert desk.calls() == [("POST", "orders", 0)]
            assert desk.breaker.get_stats()["failed_calls"] == 1
            with pytest.raises(VenueUnreachable):
                await desk.venue.balance()
            assert isinstance(await desk.venue.cancel(order_id="x", ticker=""), NotSent)

    asyncio.run(scenario())


def test_a_wrong_token_latches_the_breaker(tmp_path):
    """A person must mend it: no further try."""

    async def scenario():
        async with serving() as (_, endpoints), desk_at(Endpoints(endpoints.ws, "guess"), tmp_path) as desk:
            with pytest.raises(VenueRejected) as caught:
                await desk.venue.balance()
            assert caught.value.code == "unauthorized"
            assert desk.breaker.get_state() == "latched"
            with pytest.raises(VenueRejected):
                async for _ in desk.venue.events([CALL.ticker]):
                    pass

    asyncio.run(scenario())


def test_an_order_past_its_expiration_is_not_sent(tmp_path):
    """The wait before the send may have outlived it."""

    async def scenario(desk):
        wish = await desk.intent("a", expiration_ns=START_NS + 1)
        desk.clock.advance(1)
        assert isinstance(await desk.place(wish), NotSent)
        assert ("POST", "orders", 0) not in desk.calls()

    play(tmp_path, scenario)


def test_canceling_releases_and_an_ended_order_is_already_closed(tmp_path):
    """And a cancel goes out although the breaker is open."""

    async def scenario(desk):
        answer = await desk.place(await desk.intent("a", price=300, qty=2))
        desk.breaker.force_open("test")
        assert await desk.venue.cancel(order_id=answer.order_id, ticker="") == Canceled(released=200)
        assert isinstance(await desk.venue.cancel(order_id=answer.order_id, ticker=""), AlreadyClosed)

    play(tmp_path, scenario)


# The breaker ---------------------------------------------------------------------------------------------


@pytest.mark.contract("B12")
@pytest.mark.invariant("I5")
def test_an_open_breaker_refuses_increasing_orders_and_lets_reducing_ones_through(tmp_path):
    """Their outcome counts; reconciliation is read all the same, instruments fail fast; time and probes close it."""

    async def scenario(desk):
        wish, exit_ = await desk.intent("a"), await desk.intent("b")
        desk.server.faults.add(fault(Fault.ERROR, count=3))
        for name in "cde":
            assert isinstance(await desk.place(await desk.intent(name)), Unknown)
        assert desk.breaker.get_state() == "open"
        with pytest.raises(CircuitBreakerOpenError):
            desk.venue.placement_permit(wish.ticker, reducing=False)
        with pytest.raises(CircuitBreakerOpenError):
            await desk.venue.instrument(CALL.ticker)
        assert isinstance(await desk.place(exit_, reducing=True), Ack)
        assert await desk.venue.positions() == {CALL.ticker: 100}
        assert not await desk.venue.tick_probe()
        desk.clock.advance(31)
        assert await desk.venue.tick_probe()
        assert await desk.venue.tick_probe()
        assert desk.breaker.get_state() == "closed"
        assert ("GET", "status", 200) in desk.calls()

    play(tmp_path, scenario)


def test_a_probe_that_fails_is_counted_and_raised_only_where_it_was_asked_for(tmp_path):
    """`tick_probe` says only that it asked."""

    async def scenario(desk):
        desk.server.faults.add(fault(Fault.ERROR, Kind.READ, count=5))
        for _ in range(3):
            with pytest.raises(VenueAnswerUnknown):
                await desk.venue.probe()
        desk.clock.advance(31)
        assert await desk.venue.tick_probe()
        assert desk.breaker.get_state() == "open"

    play(tmp_path, scenario)


# The stream ----------------------------------------------------------------------------------------------


def test_a_minute_is_books_greeks_and_underlyings_then_time(tmp_path):
    """Every followed contract has a book each minute, also an unchanged one, dated at the minute's close."""
    feed = WrittenFeed(minutes=[minute(n, basic_quotes()) for n in range(3)])

    async def scenario(desk):
        seen = await desk.follow([CALL.ticker, VERTICAL], is_final)
        books = [event for event in seen if isinstance(event, BookChanged)]
        assert Counter((book.book.ticker, (book.ts_ns - START_NS) // MINUTE_NS) for book in books) == {
            (ticker, n): 1 for ticker in (CALL.ticker, HIGH_CALL.ticker, VERTICAL) for n in range(3)
        }
        assert all(book.book.alive_ns == book.ts_ns - START_NS for book in books)
        combo = next(book.book for book in books if book.book.ticker == VERTICAL)
        assert (combo.best_bid, combo.best_ask) == (20_000, 22_000)
        greeks = [event for event in seen if isinstance(event, GreeksSeen)]
        assert {event.ticker for event in greeks} == {CALL.ticker, HIGH_CALL.ticker}
        assert all((e.greeks.delta_e6, e.greeks.source) == (GREEKS.delta_e6, FEED) for e in greeks)
        assert {(e.symbol, e.price) for e in seen if isinstance(e, UnderlyingSeen)} == {("SPY", 4_501_000)}
        times = [event.ts_ns for event in seen if isinstance(event, VenueTime)]
        assert times == sorted(times)
        # Fifteen seconds a step; a moment may be told more than once.
        assert {time - START_NS for time in times} == {n * 15 * 10**9 for n in range(9)}
        moment = [e.ts_ns for e in seen if isinstance(e, BookChanged | VenueTime)]
        assert moment == sorted(moment), (
            "a minute's quotes come before the tick of its close and after every earlier one"
        )

    play(tmp_path, scenario, feed)


def test_without_greeks_in_the_feed_the_model_computes_them_and_names_what_it_cannot(tmp_path):
    """A quote inside parity has none."""
    quotes = [
        quote(CALL, 310, 320, greeks=None),
        quote(HIGH_CALL, 1, 2, greeks=None),
        quote(LOW_PUT, 1, 0, greeks=None),
    ]
    low = option("C", 400)
    feed = WrittenFeed(
        (STOCK, CALL, HIGH_CALL, LOW_PUT, low), [minute(0, [*quotes, quote(low, 5_000, 5_010, greeks=None)])]
    )

    async def scenario(desk):
        seen = await desk.follow([CALL.ticker, HIGH_CALL.ticker, LOW_PUT.ticker, low.ticker], is_final)
        found = {e.ticker: e.greeks for e in seen if isinstance(e, GreeksSeen)}
        assert set(found) == {CALL.ticker, HIGH_CALL.ticker}
        assert found[CALL.ticker].source == MODEL
        assert 400_000 < found[CALL.ticker].delta_e6 < 600_000
        machine = desk.venue._following.machine
        assert {t: why.name for t, why in machine.unsolved.items()} == {
            LOW_PUT.ticker: "ONE_SIDED",
            low.ticker: "BELOW_INTRINSIC",
        }

    play(tmp_path, scenario, feed)


@pytest.mark.invariant("I4")
def test_a_quote_that_is_none_becomes_a_gap_under_its_name_and_never_a_price(tmp_path):
    """Crossed, gone on both sides, and grown stale; one-sided is a book with one side; combinations follow their legs."""
    bad = [quote(CALL, 320, 310), quote(PUT, 0, 0), quote(LOW_PUT, 0, 130)]
    feed = WrittenFeed(
        minutes=[
            minute(0, basic_quotes()),
            minute(1, bad),
            *(minute(n, [quote(CALL, 310, 320)]) for n in (2, 3, 4, 5)),
        ]
    )

    async def scenario(desk):
        seen = await desk.follow([CALL.ticker, PUT.ticker, LOW_PUT.ticker, VERTICAL], is_final)
        gaps = [(e.reason, e.tickers) for e in seen if isinstance(e, StreamGap) and e.tickers]
        by_name = Counter(name for name, _ in gaps)
        assert by_name["quote_crossed"] == 2
        assert by_name["quote_missing"] == 1
        stale = {ticker for name, tickers in gaps if name == "quote_stale" for ticker in tickers}
        assert stale == {HIGH_CALL.ticker, PUT.ticker, LOW_PUT.ticker, VERTICAL}
        crossed_at = START_NS + MINUTE_NS
        assert not [
            e
            for e in seen
            if isinstance(e, BookChanged) and (e.book.ticker, e.ts_ns) == (CALL.ticker, crossed_at)
        ]
        (one_sided,) = [
            e.book
            for e in seen
            if isinstance(e, BookChanged) and (e.book.ticker, e.ts_ns) == (LOW_PUT.ticker, crossed_at)
        ]
        assert (one_sided.best_bid, one_sided.best_ask) == (None, 13_000)

    play(tmp_path, scenario, feed)


def test_fills_of_a_combination_come_leg_by_leg_before_the_word_that_it_ended(tmp_path):
    """With the combination's order id and a trade id each; then the order."""

    async def scenario(desk):
        seen = []

        async def listen():
            async for event in desk.venue.events([VERTICAL]):
                if isinstance(event, FillSeen | OrderSeen):
                    seen.append(event)
                if isinstance(event, VenueTime) and not seen:
                    answer = await desk.place(await desk.intent("a", VERTICAL, price=220))
                    assert isinstance(answer, Ack)
                if isinstance(event, OrderSeen):
                    return

        await asyncio.wait_for(listen(), 10)
        first, second, ended = seen
        assert [(e.fill.ticker, e.fill.delta, e.fill.price, e.fill.multiplier) for e in (first, second)] == [
            (CALL.ticker, 100, 32_000, 100),
            (HIGH_CALL.ticker, -100, 10_000, 100),
        ]
        assert first.fill.order_id == second.fill.order_id == ended.order.order_id
        assert first.fill.trade_id != second.fill.trade_id
        assert (ended.order.ticker, ended.order.filled, ended.order.leaves) == (VERTICAL, 100, 0)

    play(tmp_path, scenario)


def test_a_disconnect_in_mid_combination_is_a_gap_and_everything_is_found_again(tmp_path):
    """The answer is unknown, one leg was told, the books hold both; the stream comes back and says what to read."""

    async def scenario(desk):
        seen = []
        wish = await desk.intent("a", VERTICAL, price=220)
        answers = []

        async def listen():
            async for event in desk.venue.events([VERTICAL]):
                seen.append(event)
                if isinstance(event, VenueTime) and not answers:
                    desk.server.faults.add(fault(Fault.MID_COMBO))
                    answers.append(await desk.place(wish))
                if answers and isinstance(event, StreamGap) and event.reason == "connected":
                    return

        await asyncio.wait_for(listen(), 10)
        assert isinstance(answers[0], Unknown)
        told = [event.fill.ticker for event in seen if isinstance(event, FillSeen)]
        assert told == [CALL.ticker]
        lost = next(e for e in seen if isinstance(e, StreamGap) and e.tickers)
        assert lost.private
        assert set(lost.tickers) == {CALL.ticker, HIGH_CALL.ticker, VERTICAL}
        assert {fill.ticker for fill in await desk.venue.fills(since_ns=0)} == {CALL.ticker, HIGH_CALL.ticker}
        listed = await desk.venue.find_order(client_order_id="a", ticker=VERTICAL, since_ns=0)
        assert listed.status is OrderStatus.FILLED
        notes = [record.details["event"] for record in desk.log.wal.query(event_type="STREAM")]
        assert notes[:2] == ["connected", "disconnected"]

    play(tmp_path, scenario)


def test_expiry_comes_as_fills_with_their_cause_and_a_changed_market(tmp_path):
    """Bought, exercised, and read again as the books hold it."""
    today = option("C", 450, expiry=20230908, expires_ns=CLOSE_NS)
    last = (CLOSE_NS - START_NS) // MINUTE_NS
    minutes = [minute(n, [quote(today, 310, 320)]) for n in (0, last - 2, last - 1, last, last + 1)]
    feed = WrittenFeed((STOCK, today), minutes)

    async def scenario(desk):
        assert isinstance(await desk.place(await desk.intent("a", today.ticker)), Ack)
        seen = await desk.follow([today.ticker], is_final)
        fills = [e.fill for e in seen if isinstance(e, FillSeen)]
        assert [(f.ticker, f.delta, f.price, f.cause) for f in fills] == [
            (today.ticker, -100, 0, FillCause.EXERCISE),
            ("SPY", 10_000, 4_500_000, FillCause.EXERCISE),
        ]
        assert all(fill.order_id and not fill.client_order_id for fill in fills)
        (changed,) = [e for e in seen if isinstance(e, MarketChanged)]
        assert (changed.ticker, changed.status) == (today.ticker, "expired")
        assert not (await desk.venue.instrument(today.ticker)).is_open
        assert await desk.venue.chain("SPY") == []
        assert await desk.venue.positions() == {"SPY": 10_000}
        assert [f.cause for f in await desk.venue.fills(since_ns=CLOSE_NS)] == [FillCause.EXERCISE] * 2

    play(tmp_path, scenario, feed)


def test_a_stream_asked_for_before_ends_and_follow_adds_to_the_new_one(tmp_path):
    """One follower at a time; a contract added later is quoted from then on."""

    async def scenario(desk):
        first = desk.venue.events([CALL.ticker])
        assert await anext(first)
        ended = asyncio.create_task(_drain(first))
        second = desk.venue.events([PUT.ticker])
        assert await anext(second)
        await asyncio.wait_for(ended, 5)
        await desk.venue.follow(LOW_PUT.ticker)
        async for event in second:
            if isinstance(event, BookChanged) and event.book.ticker == LOW_PUT.ticker:
                break

    play(tmp_path, scenario)


async def _drain(events):
    async for _ in events:
        pass


@pytest.mark.invariant("I12")
def test_the_market_waits_for_its_follower(tmp_path):
    """Until `quiescent` not one further moment passes; an answer to another tick releases nothing."""

    async def scenario(desk: Desk):
        stream = desk.venue.events([CALL.ticker])
        tick = None
        async for event in stream:
            if isinstance(event, VenueTime):
                tick = event
                break
        assert tick is not None
        await desk.venue.quiescent(tick.n + 5)
        for _ in range(3):
            await desk.venue.positions()
        assert desk.server.engine.now_ns == tick.ts_ns
        await desk.venue.quiescent(tick.n)
        async for event in stream:
            if isinstance(event, VenueTime) and event.ts_ns > tick.ts_ns:
                break
        assert event.ts_ns == tick.ts_ns + 15 * 10**9

    play(tmp_path, scenario)


@pytest.mark.invariant("I12")
def test_an_answer_to_a_tick_of_a_lost_connection_releases_nothing():
    """Ticks are numbered over all connections, each known by the one that told it, and answered once."""
    machine = StreamMachine(ManualClock(START_NS), venue_clock=True, terms=lambda _: None, model=Model)
    (first,) = machine.frame(Frame(t="tick", n=1, ts_ns=START_NS), 1)
    (second,) = machine.frame(Frame(t="tick", n=1, ts_ns=START_NS), 2)
    assert first.n != second.n
    assert machine.answer_of(first.n, 2) is None
    assert machine.answer_of(second.n, 2) == 1
    assert machine.answer_of(second.n, 2) is None


@pytest.mark.invariant("I14")
def test_the_token_is_in_no_record_and_no_message(tmp_path):
    """Neither in the journal nor in what an error says."""

    async def scenario():
        async with serving() as (_, endpoints):
            async with desk_at(endpoints, tmp_path) as desk:
                await desk.venue.positions()
                desk.server = None
            said = b"".join(path.read_bytes() for path in (tmp_path / "audit").iterdir() if path.is_file())
            assert endpoints.token.encode() not in said
            async with desk_at(Endpoints(endpoints.ws, "wrong-token-x"), tmp_path / "b") as other:
                with pytest.raises(VenueRejected) as caught:
                    await other.venue.positions()
                assert "wrong-token-x" not in str(caught.value)

    asyncio.run(scenario())


def test_a_connection_that_is_let_go_before_anything_was_read_is_closed():
    """A link that is closed right after it was opened leaves no socket behind."""

    async def run() -> None:
        async with serving() as (_, at):
            link = Link(at.ws, at.token, on_frame=lambda *_: None, on_down=lambda _: None, greeting=list)
            await link.connect()
            socket = link._socket
            await link.close()
            assert socket is not None
            assert socket.closed
            assert not link.is_up

    asyncio.run(run())


def test_a_closed_venue_opens_no_further_connection(tmp_path):
    """Whoever followed and stopped listening does not come back for another socket once the venue is closed."""

    async def scenario(desk):
        events = desk.venue.events(())
        await anext(events)
        link = desk.venue._link
        stood = link.generation
        await desk.venue.close()
        with pytest.raises(Lost, match="closed"):
            await link.connect()
        assert (link.generation, link.is_up, link._session) == (stood, False, None)
        assert desk.venue._following is None
        await events.aclose()

    play(tmp_path, scenario)
