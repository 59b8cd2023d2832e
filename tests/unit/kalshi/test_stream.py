"""The stream: its protocol without a socket, then on the real paper exchange."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.exchange import TICKER, delta, lifecycle, printed, quiet_feed
from support.kalshi import desk_on_exchange, intent

from holdfast.core.errors import VenueRejected
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import BookSide, Side, TimeInForce
from holdfast.execution.venue import (
    Ack,
    BookChanged,
    FillSeen,
    MarketChanged,
    OrderSeen,
    PublicTrade,
    StreamGap,
    VenueTime,
)
from holdfast.venues.kalshi.adapter import KalshiVenue
from holdfast.venues.kalshi.stream import (
    BOOKS,
    CLOCK,
    FILLS,
    LIFECYCLE,
    ORDERS,
    TRADES,
    KalshiStream,
    StreamMachine,
)
from holdfast.venues.paper.events import MarketStatus
from holdfast.venues.paper.faults import FaultScript, read_script

SECOND = 1_000_000_000


def frame(kind: str, sid: int, seq: int | None = None, **msg: Any) -> bytes:
    fields: dict[str, Any] = {"type": kind, "sid": sid, "msg": msg}
    if seq is not None:
        fields["seq"] = seq
    return msgspec.json.encode(fields)


def subscribed(machine: StreamMachine, channel: str, sid: int):
    answer = {"id": 1, "type": "subscribed", "msg": {"channel": channel, "sid": sid}}
    return machine.frame(msgspec.json.encode(answer), 0)


def snapshot(seq: int, ticker: str = "A", sid: int = 3) -> bytes:
    return frame(
        "orderbook_snapshot",
        sid,
        seq,
        market_ticker=ticker,
        yes_dollars_fp=[["0.4000", "10.00"], ["0.3900", "5.00"]],
        no_dollars_fp=[["0.5500", "7.00"]],
    )


def moved(
    seq: int, price: str, change: str, side: str = "yes", *, ticker: str = "A", ts_ms: int = 5
) -> bytes:
    return frame(
        "orderbook_delta", 3, seq,
        market_ticker=ticker, price_dollars=price, delta_fp=change, side=side, ts_ms=ts_ms,
    )  # fmt: skip


def running(*tickers: str, venue_clock: bool = False) -> StreamMachine:
    """A machine whose channels all stand: fills 1, orders 2, books 3, trades 4, lifecycle 5, clock 6."""
    machine = StreamMachine(tickers or ("A", "B"), venue_clock=venue_clock)
    machine.connected()
    channels = [FILLS, ORDERS, BOOKS, TRADES, LIFECYCLE] + [CLOCK] * venue_clock
    for sid, channel in enumerate(channels, 1):
        subscribed(machine, channel, sid)
    return machine


def sent(step) -> list[dict[str, Any]]:
    return [msgspec.json.decode(command) for command in step.commands]


def test_it_asks_for_private_channels_first_and_for_the_clock_last():
    """On connecting, fills and orders are asked for before books, and the market clock after everything."""
    commands = sent(StreamMachine(["A"], venue_clock=True).connected())
    assert [one["params"]["channels"] for one in commands] == [
        [FILLS, ORDERS],
        [LIFECYCLE],
        [BOOKS],
        [TRADES],
        [CLOCK],
    ]
    assert commands[2]["params"] == {"channels": [BOOKS], "market_tickers": ["A"], "use_yes_price": False}
    assert len({one["id"] for one in commands}) == 5


def test_a_book_follows_its_deltas_on_the_yes_leg():
    """Snapshot and deltas give the book level by level, best first, with removed levels gone."""
    machine = running()
    machine.frame(snapshot(1), 10)
    for raw in (
        moved(2, "0.4100", "3.00"),
        moved(3, "0.4000", "-10.00"),
        moved(4, "0.5500", "-2.00", side="no"),
    ):
        step = machine.frame(raw, 20)
    (event,) = step.events
    assert isinstance(event, BookChanged)
    assert [(level.price, level.qty) for level in event.book.bids] == [(4100, 300), (3900, 500)]
    assert [(level.price, level.qty) for level in event.book.asks] == [(4500, 500)]
    assert (event.book.alive_ns, event.ts_ns) == (20, 5_000_000)


def test_sequence_counts_over_all_markets_of_a_subscription():
    """Interleaved markets of one subscription make no gap."""
    machine = running()
    assert not any(
        isinstance(event, StreamGap)
        for raw in (
            snapshot(1, "A"),
            snapshot(2, "B"),
            moved(3, "0.4", "1", ticker="B"),
            moved(4, "0.4", "1"),
        )
        for event in machine.frame(raw, 0).events
    )


@pytest.mark.parametrize("seq", [4, 2, 1])
def test_a_gap_in_books_is_told_and_heals_by_a_fresh_snapshot(seq: int):
    """A missing or repeated number makes all books stale at once; old frames are ignored; a snapshot heals."""
    machine = running()
    machine.frame(snapshot(1), 0)
    machine.frame(moved(2, "0.4", "1"), 0)
    step = machine.frame(moved(seq, "0.4", "1"), 0)
    assert [type(event) for event in step.events] == [StreamGap]
    assert step.events[0].tickers == ("A", "B")
    assert not step.events[0].private
    assert [one["cmd"] for one in sent(step)] == ["unsubscribe", "subscribe"]
    assert step.notes[0]["event"] == "gap"
    assert (step.notes[0]["expected"], step.notes[0]["got"]) == (3, seq)
    assert machine.frame(moved(seq + 1, "0.4", "1"), 0).events == []
    assert subscribed(machine, BOOKS, 9).notes[0]["event"] == "resubscribed"
    (event,) = machine.frame(snapshot(1, sid=9), 0).events
    assert isinstance(event, BookChanged)


def test_control_answers_carry_the_sequence_too():
    """An `ok` of a book subscription takes a number: the next delta follows it without a gap."""
    machine = running()
    machine.frame(snapshot(1), 0)
    machine.frame(msgspec.json.encode({"id": 9, "type": "ok", "sid": 3, "seq": 2, "msg": {}}), 0)
    assert isinstance(machine.frame(moved(3, "0.4", "1"), 0).events[0], BookChanged)


@pytest.mark.parametrize(
    "raw", [moved(2, "0.4000", "-10.01"), moved(2, "0.4", "1", ticker="UNSEEN"), moved(2, "0.9", "-1")]
)
def test_a_book_that_cannot_be_is_a_gap(raw: bytes):
    """A level below zero and a delta for a book never seen count as gaps."""
    machine = running()
    machine.frame(snapshot(1), 0)
    assert isinstance(machine.frame(raw, 0).events[0], StreamGap)


@pytest.mark.parametrize(
    "raw",
    [
        b"no json",
        b"{}",
        b"\xff",
        frame("orderbook_snapshot", 3, 1, market_ticker="A", yes_dollars_fp=[["2.0", "1"]]),
        frame("fill", 1, order_id="o"),
        frame("user_order", 2, status="resting"),
        frame("trade", 4, 1, trade_id="t"),
    ],
)
def test_a_frame_that_cannot_be_read_gives_the_connection_up(raw: bytes):
    """Something unreadable may have been a fill: the connection ends, and its end is a gap of everything."""
    machine = running()
    assert machine.frame(raw, 0).reconnect
    gap = machine.disconnected("x").events[0]
    assert gap.private
    assert gap.tickers == ("A", "B")


def test_private_channels_that_stand_ask_for_orders_and_fills_to_be_read():
    """Once both private channels stand, also after a reconnection, one private gap closes the hole before them."""
    machine = StreamMachine(("A",))
    for sid in (1, 3):
        machine.connected()
        assert subscribed(machine, FILLS, sid).events == []
        (gap,) = subscribed(machine, ORDERS, sid + 1).events
        assert gap.private
        machine.disconnected("test")


def test_a_gap_in_trades_is_told_and_the_trade_is_passed_on():
    """Missed prints make no book stale."""
    machine = running()
    trade = {
        "trade_id": "t",
        "market_ticker": "A",
        "yes_price_dollars": "0.4",
        "count_fp": "1",
        "taker_side": "no",
    }
    machine.frame(frame("trade", 4, 1, **trade), 0)
    gap, event = machine.frame(frame("trade", 4, 3, **trade), 0).events
    assert isinstance(gap, StreamGap)
    assert gap.tickers == ()
    assert isinstance(event, PublicTrade)
    assert event.taker_side is BookSide.ASK


@pytest.mark.parametrize("code", [10, 25])
@pytest.mark.parametrize(("sid", "private"), [(3, False), (1, True), (2, True), (4, False)])
def test_a_terminal_error_subscribes_anew(code: int, sid: int, private: bool):
    """Errors 10 and 25 end one subscription: a gap is told and the channel is asked for again."""
    machine = running()
    raw = msgspec.json.encode({"type": "error", "sid": sid, "msg": {"code": code, "msg": "x"}})
    step = machine.frame(raw, 0)
    assert step.events[0].private is private
    assert sent(step)[-1]["cmd"] == "subscribe"


def test_a_terminal_error_of_unknown_extent_reconnects():
    """An error 25 that names no subscription ends the connection."""
    raw = msgspec.json.encode({"type": "error", "msg": {"code": 25, "msg": "x"}})
    assert running().frame(raw, 0).reconnect


def test_a_refused_channel_ends_the_stream_with_the_venues_code():
    """A subscription that the venue refuses is VenueRejected with its code."""
    machine = StreamMachine(["A"])
    commands = sent(machine.connected())
    raw = msgspec.json.encode({"id": commands[0]["id"], "type": "error", "msg": {"code": 9, "msg": "no"}})
    fatal = machine.frame(raw, 0).fatal
    assert isinstance(fatal, VenueRejected)
    assert fatal.code == "ws_9"


def test_a_followed_market_is_added_to_running_subscriptions():
    """Following adds to what runs, waits for what was asked for, and asks where nothing was."""
    machine = running("A")
    adds = sent(machine.follow("C"))
    assert [one["params"]["sids"] for one in adds] == [[3], [4]]
    assert {one["params"]["action"] for one in adds} == {"add_markets"}
    assert sent(machine.follow("C")) == []
    late = StreamMachine(["A"])
    late.connected()
    assert sent(late.follow("B")) == []
    assert sent(subscribed(late, BOOKS, 3))[0]["params"]["market_tickers"] == ["B"]
    empty = StreamMachine([])
    empty.connected()
    assert [one["params"]["channels"] for one in sent(empty.follow("A"))] == [[BOOKS], [TRADES]]


def test_a_quiet_book_is_shown_again_while_the_connection_is_alive():
    """Without news a book is shown again every few seconds with a new age, as long as something arrives."""
    machine = running()
    machine.frame(snapshot(1), 0)
    assert machine.alive(4 * SECOND) == []
    (event,) = machine.alive(6 * SECOND)
    assert isinstance(event, BookChanged)
    assert event.book.alive_ns == 6 * SECOND
    assert machine.alive(7 * SECOND) == []


def test_under_a_venues_clock_quiet_books_are_shown_by_ticks_alone():
    """With a clock of the venue the same frames give the same events, whatever pings arrive between."""
    machine = running(venue_clock=True)
    machine.frame(frame("holdfast_tick", 6, n=1, ts_ns=100 * SECOND), 0)
    machine.frame(snapshot(1), 0)
    assert machine.alive(60 * SECOND) == []
    (only,) = machine.frame(frame("holdfast_tick", 6, n=2, ts_ns=101 * SECOND), 1).events
    assert only == VenueTime(n=2, ts_ns=101 * SECOND)
    shown, tick = machine.frame(frame("holdfast_tick", 6, n=3, ts_ns=106 * SECOND), 1).events
    assert isinstance(shown, BookChanged)
    assert isinstance(tick, VenueTime)


FRAME_WORDS = [
    "type",
    "sid",
    "seq",
    "msg",
    "id",
    "market_ticker",
    "price_dollars",
    "delta_fp",
    "side",
    "channel",
    "code",
]
VALUES = (
    st.none()
    | st.integers(-3, 9)
    | st.sampled_from(
        ["A", "0.4", "-1", "yes", BOOKS, FILLS, "subscribed", "error", "ok", "unsubscribed", "orderbook_delta",
         "orderbook_snapshot", "trade", "fill", "user_order", "market_lifecycle_v2", "holdfast_tick", "x"]
    )
    | st.floats()
)  # fmt: skip
FRAMES = st.dictionaries(
    st.sampled_from(FRAME_WORDS),
    VALUES | st.dictionaries(st.sampled_from(FRAME_WORDS), VALUES, max_size=6),
    max_size=6,
)


@given(frames=st.lists(FRAMES | st.binary(max_size=20), max_size=12))
def test_no_frame_makes_the_machine_raise(frames: list[Any]):
    """Whatever arrives, the machine answers with events, a reconnection or a named end; it never raises."""
    machine = running(venue_clock=True)
    machine.frame(snapshot(1), 0)
    for one in frames:
        step = machine.frame(one if isinstance(one, bytes) else msgspec.json.encode(one), 0)
        assert step.fatal is None or isinstance(step.fatal, VenueRejected)


def test_an_ended_subscription_that_we_give_up_is_no_error():
    """Error 7 to our own unsubscribe is not a reason to reconnect."""
    raw = msgspec.json.encode({"id": 99, "type": "error", "msg": {"code": 7, "msg": "x"}})
    assert not running().frame(raw, 0).reconnect


async def collect(venue: KalshiVenue, tickers: list[str], until, clock) -> list[Any]:
    """Follow the venue's clock and collect events until *until* says so."""
    seen: list[Any] = []
    async with asyncio.timeout(20), contextlib.aclosing(venue.events(tickers)) as events:
        async for event in events:
            seen.append(event)
            if isinstance(event, VenueTime):
                clock.set_now_ns(event.ts_ns)
                result = until(seen)
                if asyncio.iscoroutine(result):
                    result = await result
                if result or event.final:
                    break
                await venue.quiescent(event.n)
    return seen


def test_books_trades_and_lifecycle_arrive_in_the_markets_order(tmp_path: Path):
    """On the exchange, books, prints and the end of a market arrive in order, each before its tick."""
    feed = quiet_feed(
        events=[
            delta(1, Side.YES, 4100, 500),
            printed(2, Side.NO, 4000, 200, trade_id="p-1"),
            lifecycle(3, MarketStatus.CLOSED),
            lifecycle(4, MarketStatus.DETERMINED, Side.YES),
        ]
    )

    async def run():
        async with desk_on_exchange(tmp_path, feed) as desk:
            venue = KalshiVenue(desk.client, venue_clock=True)
            seen = await collect(
                venue,
                [TICKER],
                lambda seen: any(isinstance(e, MarketChanged) and e.result == "yes" for e in seen),
                desk.clock,
            )
            books = [event for event in seen if isinstance(event, BookChanged)]
            assert books[0].book.best_bid == 4000
            assert books[1].book.best_bid == 4100
            trades = [event for event in seen if isinstance(event, PublicTrade)]
            assert [(one.trade_id, one.taker_side, one.qty) for one in trades] == [("p-1", BookSide.ASK, 200)]
            assert [one.n for one in seen if isinstance(one, VenueTime)] == sorted(
                one.n for one in seen if isinstance(one, VenueTime)
            )
            assert desk.records("STREAM")[0].details["event"] == "connected"

    asyncio.run(run())


def test_a_fill_and_the_orders_end_arrive_on_the_stream(tmp_path: Path):
    """An order placed while following shows its fill and its final state on the stream, before the next tick."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            venue = KalshiVenue(desk.client, venue_clock=True)
            placed: list[Ack] = []

            async def place_once(seen):
                if not placed:
                    placed.append(await desk.place(intent("hf-1", price="0.45", tif=TimeInForce.IOC)))
                    return False
                return any(isinstance(event, FillSeen) for event in seen)

            seen = await collect(venue, [TICKER], place_once, desk.clock)
            (fill,) = (event.fill for event in seen if isinstance(event, FillSeen))
            assert (fill.client_order_id, fill.order_id, fill.qty, fill.price) == (
                "hf-1",
                placed[0].order_id,
                1000,
                4500,
            )
            orders = [event.order for event in seen if isinstance(event, OrderSeen)]
            assert orders[-1].status is OrderStatus.FILLED

    asyncio.run(run())


def test_a_lost_frame_on_the_exchange_is_told_and_healed(tmp_path: Path):
    """When the exchange loses a book frame, a gap is told, recorded, and a fresh snapshot follows."""
    feed = quiet_feed(events=[delta(second, Side.YES, 4100, 100) for second in range(1, 8)])

    async def run():
        script = FaultScript(read_script("2:gap_next_frame=1", feed.start_ns))
        async with desk_on_exchange(tmp_path, feed, exchange_options={"script": script}) as desk:
            venue = KalshiVenue(desk.client, venue_clock=True)

            def healed(seen):
                gaps = [n for n, event in enumerate(seen) if isinstance(event, StreamGap) and event.tickers]
                return gaps and any(isinstance(event, BookChanged) for event in seen[gaps[0] :])

            seen = await collect(venue, [TICKER], healed, desk.clock)
            last = [event for event in seen if isinstance(event, BookChanged)][-1]
            rest = await desk.client.get_orderbook(TICKER)
            assert last.book.bids == rest.bids
            kinds = [entry.details["event"] for entry in desk.records("STREAM")]
            assert kinds == ["connected", "gap", "resubscribed"]

    asyncio.run(run())


def test_a_connection_that_breaks_comes_back_with_fresh_books(tmp_path: Path):
    """After the venue closes the socket, gaps are told, books come anew, and the wait before is bounded."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            venue = KalshiVenue(desk.client)
            seen: list[Any] = []
            async with asyncio.timeout(20), contextlib.aclosing(venue.events([TICKER])) as events:
                async for event in events:
                    seen.append(event)
                    books = [one for one in seen if isinstance(one, BookChanged)]
                    if len(books) == 1 and isinstance(event, BookChanged):
                        venue._stream._socket._writer.transport.abort()
                    if len(books) == 2:
                        break
            gaps = [event for event in seen if isinstance(event, StreamGap)]
            assert any(gap.tickers == (TICKER,) and gap.private for gap in gaps)
            assert all(0 <= nap <= 30 for nap in desk.naps)
            kinds = [entry.details["event"] for entry in desk.records("STREAM")]
            assert kinds == ["connected", "disconnected", "connected"]

    asyncio.run(run())


@pytest.mark.contract("A4")
def test_a_wrong_key_ends_the_stream_and_latches(tmp_path: Path):
    """A refused handshake is VenueRejected, not an endless reconnection, and latches the breaker."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            desk.client.signer.key_id = "someone-else"
            with pytest.raises(VenueRejected, match="handshake"):
                async for _ in desk.venue.events([TICKER]):
                    pass
            assert desk.breaker.get_state() == "latched"

    asyncio.run(run())


def test_closing_ends_the_events(tmp_path: Path):
    """`close` ends the iteration of `events`."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk, asyncio.timeout(20):
            async for event in desk.venue.events([TICKER]):
                if isinstance(event, BookChanged):
                    await desk.venue.close_stream()

    asyncio.run(run())


def test_a_stream_closed_under_a_full_queue_still_ends():
    """The end mark finds a place however many frames wait unread: a reader never waits for ever."""

    async def run():
        stream = KalshiStream(SimpleNamespace(signer=object()), ())
        while not stream._queue.full():
            stream._queue.put_nowait([])
        await stream.close()
        last = None
        while not stream._queue.empty():
            last = stream._queue.get_nowait()
            if last is None:
                break
        assert last is None
        assert stream._queue.empty()

    asyncio.run(run())


@pytest.mark.parametrize("later", range(6))
def test_a_stream_that_is_cancelled_twice_closes_its_connection(tmp_path: Path, later: int):
    """A loop that ends cancels the stream and its reader, who cancels the stream again: its socket is closed still."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            stream = KalshiStream(desk.client, [TICKER])
            events = stream.events()
            await anext(events)
            socket, task = stream._socket, stream._task
            task.cancel()
            for _ in range(later):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert socket.closed
            assert socket._response.connection is None
            await events.aclose()

    asyncio.run(run())
