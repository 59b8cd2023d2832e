"""The broker as a server: who may come in, what it answers to nonsense, how its time runs, what it remembers."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from support.broker import (
    CALL,
    START_NS,
    VERTICAL,
    WrittenFeed,
    basic_quotes,
    desk_at,
    desk_on_broker,
    engine,
    minute,
    serving,
    wish,
)

from holdfast.core.errors import BadInput
from holdfast.execution.venue import Ack, StreamGap, VenueTime
from holdfast.venues.broker.endings import read_assignments
from holdfast.venues.broker.faults import Fault, Faults, Kind, Scripted, read_script
from holdfast.venues.broker.feed import MINUTE_NS
from holdfast.venues.broker.memory import FILE_NAME, Memory
from holdfast.venues.broker.server import TICK_NS, BrokerServer, PortTaken


class Raw:
    """A client that sends what it is told."""

    def __init__(self, socket):
        self.socket = socket

    async def ask(self, frame):
        await self.socket.send_str(frame if isinstance(frame, str) else json.dumps(frame))
        return await self.hear()

    async def hear(self):
        return json.loads(await asyncio.wait_for(self.socket.receive_str(), 5))


def raw(scenario, **options):
    async def run():
        async with serving(**options) as (server, endpoints), aiohttp.ClientSession() as session:
            headers = {"Authorization": f"Bearer {endpoints.token}"}
            async with session.ws_connect(endpoints.ws, headers=headers) as socket:
                client = Raw(socket)
                hello = await client.hear()
                assert (hello["t"], hello["v"]) == ("hello", 1)
                await scenario(client, server)

    asyncio.run(run())


@pytest.mark.parametrize("token", ["", "guess", "Bearer"])
def test_nobody_comes_in_without_the_token(token):
    """401, whatever else is said."""

    async def run():
        async with serving() as (_, endpoints), aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(endpoints.ws, headers={"Authorization": f"Bearer {token}"})
            assert caught.value.status == 401
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(endpoints.ws)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("not json", "bad_request"),
        ("[]", "bad_request"),
        ({"id": 1}, "bad_request"),
        ({"id": 1, "op": "fly"}, "unknown_op"),
        ({"id": 1, "op": "cancel", "p": {"order": "x"}}, "bad_request"),
        ({"id": 1, "op": "place", "p": {}}, "bad_request"),
        (
            {
                "id": 1,
                "op": "place",
                "p": {"client_order_id": "", "ticker": "X", "side": "bid", "price_e4": 1, "qty_e2": 1},
            },
            "bad_request",
        ),
        (
            {
                "id": 1,
                "op": "place",
                "p": {"client_order_id": "a", "ticker": "X", "side": "yes", "price_e4": 1, "qty_e2": 1},
            },
            "bad_request",
        ),
        (
            {
                "id": 1,
                "op": "place",
                "p": {"client_order_id": "a", "ticker": "X", "side": "bid", "price_e4": 1.5, "qty_e2": 1},
            },
            "bad_request",
        ),
        ({"id": 1, "op": "instrument", "p": {"ticker": "X"}}, "not_found"),
        ({"id": 1, "op": "follow", "p": {"tickers": ["X"]}}, "not_found"),
        ({"id": 1, "op": "quotes", "p": {"tickers": ["X"]}}, "not_found"),
        ({"id": 1, "op": "cancel", "p": {"order_id": "x"}}, "not_found"),
        ({"id": 1, "op": "_serve", "p": {}}, "unknown_op"),
    ],
)
def test_a_request_that_cannot_be_is_refused_by_name_and_the_next_one_answered(frame, code):
    """Nothing changes and nobody is thrown out."""

    async def scenario(client, server):
        refused = await client.ask(frame)
        assert (refused["t"], refused["code"]) == ("no", code)
        assert (await client.ask({"id": 2, "op": "status"}))["t"] == "ok"
        assert server.books().executions == ()

    raw(scenario)


def test_only_loopback_is_served_and_a_port_in_use_is_named():
    """The token never leaves the machine."""

    async def run():
        with pytest.raises(BadInput, match="loopback"):
            await BrokerServer(WrittenFeed()).start(host="0.0.0.0")  # noqa: S104  refused
        async with serving() as (_, endpoints):
            port = int(endpoints.ws.split(":")[2].split("/")[0])
            with pytest.raises(PortTaken, match=str(port)):
                await BrokerServer(WrittenFeed()).start(port)

    asyncio.run(run())


def test_time_runs_free_at_its_speed_and_a_night_is_skipped():
    """Without followers the market plays itself to its end."""
    night = 18 * 60
    feed = WrittenFeed(minutes=[minute(n, basic_quotes()) for n in (0, 1, night, night + 1)])

    async def run():
        async with serving(feed, speed=1_000_000.0) as (server, _):
            await asyncio.wait_for(server.over(), 10)
            assert server.engine.now_ns == START_NS + (night + 1) * MINUTE_NS
            assert server.is_final

    asyncio.run(run())


def test_a_market_ends_when_its_time_is_up():
    """On the step that reaches it."""

    async def run():
        async with serving(speed=1_000_000.0, market_secs=100) as (server, _):
            await asyncio.wait_for(server.over(), 10)
            assert server.engine.now_ns == START_NS + 100 * 10**9

    asyncio.run(run())


def test_a_market_that_is_told_to_finish_says_so_with_its_next_tick(tmp_path):
    """Whoever follows hears a last tick and is never left waiting; the minutes that were to come do not."""

    async def scenario():
        async with serving() as (server, endpoints), desk_at(endpoints, tmp_path) as desk:
            desk.server = server
            await desk.follow([CALL.ticker], lambda event: isinstance(event, VenueTime) and event.n == 3)
            server.finish()
            seen = await desk.follow(
                [CALL.ticker], lambda event: isinstance(event, VenueTime) and event.final
            )
            assert seen[-1].ts_ns <= START_NS + 5 * TICK_NS
            await asyncio.wait_for(server.over(), 5)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "wrong", [{"speed": 0.0}, {"speed": -1.0}, {"market_secs": 0.0}, {"speed": float("inf")}]
)
def test_a_speed_or_a_time_that_is_not_positive_is_refused(wrong):
    """Before anything is served."""
    with pytest.raises(BadInput):
        BrokerServer(WrittenFeed(), **wrong)


def test_a_scripted_disconnect_is_followed_by_a_new_connection_and_the_market_goes_on(tmp_path):
    """The follower hears of a gap and of the new connection; time then runs to its end."""
    feed = WrittenFeed(minutes=[minute(n, basic_quotes()) for n in range(3)])
    faults = Faults(0, script=read_script("60:disconnect=1", START_NS))

    async def run():
        async with desk_on_broker(tmp_path, feed, server_options={"faults": faults}) as desk:
            seen = await desk.follow([CALL.ticker], lambda e: isinstance(e, VenueTime) and e.final)
            gaps = [(e.reason.split(":")[0], e.private) for e in seen if isinstance(e, StreamGap)]
            assert gaps == [("connected", True), ("disconnected", True), ("connected", True)]

    asyncio.run(run())


@pytest.mark.invariant("I12")
def test_time_waits_for_the_answer_to_the_latest_tick_and_asks_again_after_news():
    """Another tick's number releases nothing; an order since the tick is followed by a new tick of the same time."""

    async def scenario(client, server):
        first = await client.ask({"id": 1, "op": "follow", "p": {"clock": True}})
        while first["t"] != "tick":
            first = await client.hear()
        assert (await client.hear())["t"] == "ok"
        for wrong in (first["n"] - 1, first["n"] + 1):
            await client.socket.send_str(json.dumps({"id": 0, "op": "quiescent", "p": {"n": wrong}}))
        assert (await client.ask({"id": 2, "op": "status"}))["r"]["ts_ns"] == START_NS
        bid = {"client_order_id": "a", "ticker": CALL.ticker, "side": "bid", "price_e4": 100, "qty_e2": 100}
        assert (await client.ask({"id": 3, "op": "place", "p": bid}))["t"] == "order"
        assert (await client.hear())["t"] == "ok"
        again = await client.ask({"id": 0, "op": "quiescent", "p": {"n": first["n"]}})
        assert (again["t"], again["n"], again["ts_ns"]) == ("tick", first["n"] + 1, START_NS)
        after = await client.ask({"id": 0, "op": "quiescent", "p": {"n": again["n"]}})
        assert (after["t"], after["ts_ns"]) == ("tick", START_NS + 15 * 10**9)
        assert server.engine.now_ns == after["ts_ns"]

    raw(scenario)


# Memory --------------------------------------------------------------------------------------------------


@pytest.mark.invariant("I12")
def test_a_broker_taken_up_again_has_the_same_books_and_the_same_token(tmp_path):
    """Orders, executions, what was taken of the quotes, market time; and it goes on from there."""

    async def run():
        feed = WrittenFeed()
        memory = Memory(tmp_path / "dir", feed.describe(), START_NS)
        async with (
            serving(feed, memory=memory) as (server, endpoints),
            desk_at(endpoints, tmp_path / "a") as desk,
        ):
            assert isinstance(await desk.place(await desk.intent("one", qty=15)), Ack)
            await desk.follow(
                [CALL.ticker], lambda e: isinstance(e, VenueTime) and e.ts_ns >= START_NS + 75 * 10**9
            )
            assert isinstance(await desk.place(await desk.intent("two", VERTICAL, price=100)), Ack)
            before, now_ns, token = server.books(), server.engine.now_ns, endpoints.token
            size = server.engine.shown[CALL.ticker].ask_left
        again = Memory(tmp_path / "dir", feed.describe(), START_NS)
        async with serving(WrittenFeed(), memory=again) as (server, endpoints):
            assert endpoints.token == token
            assert server.books() == before
            assert server.engine.now_ns == now_ns
            assert server.engine.shown[CALL.ticker].ask_left == size
            async with desk_at(endpoints, tmp_path / "b") as desk:
                assert (
                    await desk.venue.find_order(client_order_id="two", ticker="", since_ns=0)
                ).leaves == 100

    asyncio.run(run())


def test_a_half_written_line_never_took_effect(tmp_path):
    """The torn end is cut off; everything before it is told again."""
    memory = Memory(tmp_path, "m", 1)
    memory.keep(wish(name="one"))
    memory.close()
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"place": {"client_or')
    book = engine()
    again = Memory(tmp_path, "m", 1)
    again.replay(book, lambda _: None)
    again.keep(5)
    again.close()
    assert list(book._names) == ["one"]
    assert [line[:7] for line in (tmp_path / FILE_NAME).read_bytes().splitlines()] == [
        b'{"marke',
        b'{"place',
        b'{"time"',
    ]


def test_another_market_and_a_damaged_memory_are_refused(tmp_path):
    """By name, with what to do."""
    Memory(tmp_path, "one market", 1).close()
    with pytest.raises(BadInput, match="remembers another market: one market"):
        Memory(tmp_path, "another", 1)
    (tmp_path / FILE_NAME).write_text('{"market": 5}\n')
    with pytest.raises(BadInput, match="cannot be read"):
        Memory(tmp_path, "one market", 1)


def test_scripted_faults_met_before_a_restart_do_not_come_again(tmp_path):
    """Those to come still do."""

    async def run():
        feed = WrittenFeed()
        memory = Memory(tmp_path, feed.describe(), START_NS)
        memory.keep(START_NS + 60 * 10**9)
        script = [
            Scripted(fault=Fault.ERROR, kind=Kind.ORDER, left=1, at_ns=START_NS + 30 * 10**9),
            Scripted(fault=Fault.HANG, kind=Kind.ORDER, left=1, at_ns=START_NS + 90 * 10**9),
        ]
        memory.close()
        again = Memory(tmp_path, feed.describe(), START_NS)
        faults = Faults(0, script=script)
        async with serving(feed, memory=again, faults=faults):
            assert faults.for_request(Kind.ORDER, START_NS + 95 * 10**9) is Fault.HANG

    asyncio.run(run())


@pytest.mark.parametrize(
    "text", ["5:SPY=1", "x:SPY231006P00450000=1", "5:SPY231006P00450000=0", "5:NOPE=1", "5"]
)
def test_an_assignment_script_that_cannot_be_is_refused(text):
    """Stocks, unknown contracts, counts of nothing."""
    with pytest.raises(BadInput):
        read_assignments(text, 0, engine().listings)
