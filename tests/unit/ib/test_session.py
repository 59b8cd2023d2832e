"""Being connected to a gateway: what is refused, under which name, and what ends as what."""

from __future__ import annotations

import asyncio
import sys

import pytest
from support.execution import MemoryLog
from support.ib import CALL, Listener, gateway, place, play, world

from holdfast.core.errors import (
    EXIT_UNREACHABLE,
    CircuitBreakerOpenError,
    ConfigError,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.core.signals import TimeInForce
from holdfast.testing.ib import FakeIB
from holdfast.venues.ib.adapter import IBVenue


@pytest.mark.contract("B15")
def test_a_gateway_that_does_not_run_is_unreachable():
    """No gateway is an unreachable venue with a hint and exit code 5; the next attempt waits a growing time."""

    async def scenario(w):
        w.at.stop()
        with pytest.raises(VenueUnreachable) as caught:
            await w.venue.positions()
        assert caught.value.exit_code == EXIT_UNREACHABLE
        assert "127.0.0.1:7497" in str(caught.value)
        assert caught.value.hint
        w.at.restart()
        with pytest.raises(VenueUnreachable):
            await w.venue.positions()
        w.clock.advance(1)
        assert await w.venue.positions() == {}

    play(scenario)


def test_a_client_id_in_use_is_told_by_name():
    """A second program under the same client id is refused with what to change."""

    async def scenario(w):
        await w.venue.connect()
        twin = world(at=w.at, clock=w.clock)
        with pytest.raises(VenueRejected) as caught:
            await twin.venue.connect()
        assert caught.value.code == "client_id_in_use"
        assert "client_id" in caught.value.hint
        await twin.venue.close()
        other = world(at=w.at, clock=w.clock, client_id=18)
        await other.venue.connect()
        await other.venue.close()

    play(scenario)


def test_another_account_is_refused_and_so_is_one_of_several_that_is_not_named():
    """An account that the gateway has not, and a choice among several, end the connection."""

    async def scenario(w):
        with pytest.raises(VenueRejected) as caught:
            await w.venue.connect()
        assert caught.value.code == "wrong_account"
        w.at.accounts = ["DU1", "DU2"]
        unnamed = world(at=w.at, clock=w.clock)
        with pytest.raises(VenueRejected) as caught:
            await unnamed.venue.connect()
        assert caught.value.code == "account_unnamed"
        named = world(at=w.at, clock=w.clock, account="DU2")
        await named.venue.connect()
        assert named.venue.session.account == "DU2"
        await named.venue.close()

    play(scenario, account="U7654321")


@pytest.mark.contract("B15")
def test_real_money_has_to_be_named():
    """A gateway whose only account is no paper account is refused where no account is named, and read all the same."""

    async def scenario(w):
        w.at.accounts = ["U7654321"]
        with pytest.raises(VenueRejected) as caught:
            await w.venue.connect()
        assert caught.value.code == "real_money"
        assert "U7654321" in str(caught.value)
        assert "[venue.ib] account" in caught.value.hint
        for options in ({"account": "U7654321"}, {"readonly": True}):
            other = world(at=w.at, clock=w.clock, client_id=18, **options)
            await other.venue.connect()
            await other.venue.close()

    play(scenario)


@pytest.mark.contract("B15")
def test_a_gateway_that_only_reads_is_told_by_name():
    """With its Read-Only API on a desk cannot start and says which setting it is; a client that reads can."""

    async def scenario(w):
        w.at.is_read_only = True
        with pytest.raises(VenueRejected) as caught:
            await w.venue.connect()
        assert caught.value.code == "read_only"
        assert "Read-Only API" in caught.value.hint
        other = world(at=w.at, clock=w.clock, client_id=18, readonly=True)
        assert await other.venue.positions() == {}
        await other.venue.close()

    play(scenario, timeout_secs=0.05)


def test_a_missing_library_names_its_extra(monkeypatch):
    """Without ib_async the adapter says what to install."""
    monkeypatch.setitem(sys.modules, "ib_async", None)
    with pytest.raises(ConfigError) as caught:
        IBVenue(audit=MemoryLog())
    assert "pip install -e '.[ib]'" in caught.value.hint


def test_the_package_is_imported_without_the_library():
    """Importing the adapter loads no ib_async: it is an extra, loaded when a client is made."""
    import subprocess

    code = "import sys, holdfast.venues.ib.adapter; sys.exit('ib_async' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_failing_gateway_opens_the_breaker_and_the_probe_closes_it():
    """Five reads without an answer open the breaker, increasing orders are refused, probes close it again."""

    async def scenario(w):
        await w.venue.connect()
        w.at.stop()
        for _ in range(5):
            with pytest.raises(VenueUnreachable):
                await w.venue.positions()
            w.clock.advance(40)
        assert w.breaker.get_state() == "open"
        with pytest.raises(CircuitBreakerOpenError):
            w.venue.placement_permit(CALL, reducing=False)
        w.venue.placement_permit(CALL, reducing=True).ignored()
        w.at.restart()
        w.clock.advance(61)
        while w.breaker.get_state() != "closed":
            assert await w.venue.tick_probe()
            w.clock.advance(1)

    play(scenario)


def test_the_stream_connects_again_and_says_what_may_be_missing():
    """After a lost socket the stream is connected and subscribed anew, and says that ours must be read again."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await heard.until(lambda: any(hasattr(event, "book") for event in heard.seen))
        w.at.drop_sockets()
        await heard.until(lambda: any("again" in gap.reason for gap in heard.gaps()))
        assert all(gap.private and gap.tickers == (CALL,) for gap in heard.gaps())
        heard.seen.clear()
        w.at.quote(CALL, bid=14.0, ask=14.1)
        await heard.until(lambda: any(hasattr(event, "book") for event in heard.seen))

    play(scenario)


@pytest.mark.contract("B15")
def test_our_own_ghost_at_the_gateway_ends_no_stream():
    """The gateway has not noticed yet that our connection broke and calls our id taken: the stream tries again until it has."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await heard.until(lambda: any(hasattr(event, "book") for event in heard.seen))
        w.at.drop_sockets()
        ghost = w.at.connect(None, w.venue.session.client_id)
        for _ in range(3):
            w.clock.advance(40)
            await heard.settle()
        assert "is in use" in w.venue.session.why_not
        w.at.leave(ghost)
        w.clock.advance(40)
        await heard.until(lambda: any("again" in gap.reason for gap in heard.gaps()))

    play(scenario)


@pytest.mark.parametrize("refused", ["client_id_in_use", "wrong_account"])
def test_a_refusal_that_waiting_does_not_mend_ends_the_stream(refused):
    """Another program under our id at the first connection, and another account at a later one, are told to the reader."""

    async def scenario(w):
        if refused == "client_id_in_use":
            w.at.connect(None, w.venue.session.client_id)
            heard = Listener(w, CALL)
        else:
            heard = Listener(w, CALL)
            await heard.until(lambda: bool(heard.seen))
            w.at.accounts = ["U7654321"]
            w.at.drop_sockets()
        with pytest.raises(VenueRejected) as caught:
            await heard.until(lambda: False)
        assert caught.value.code == refused

    play(scenario)


def test_what_a_handler_raises_reaches_whoever_follows_the_stream():
    """The library swallows exceptions of handlers; the stream raises them."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await heard.until(lambda: bool(heard.seen))
        await place(w, price=1.0, tif=TimeInForce.GTC, name="hf-strange")
        w.at.order_of("hf-strange").filled = 0
        w.at.commissions = "never"
        w.at.fill("hf-strange", price=float("nan"))
        with pytest.raises(Exception, match="nan"):
            await heard.until(lambda: False)

    play(scenario)


def test_every_call_is_recorded_once_with_its_outcome():
    """Reads, placements and cancels leave one API_CALL record each, with api ib and the library's name."""

    async def scenario(w):
        await w.venue.positions()
        rests, _ = await place(w, price=1.0, tif=TimeInForce.GTC)
        await w.venue.cancel(order_id=rests.order_id, ticker=CALL)

    calls = play(scenario).log.of("API_CALL")
    assert {call["api"] for call in calls} == {"ib"}
    by_method = [(call["endpoint"], call["status_code"]) for call in calls if call["method"] != "READ"]
    assert by_method == [("numbers", None), ("placeOrder", 200), ("cancelOrder", 200)]
    assert all(call["latency_ms"] >= 0 for call in calls if call["method"] != "RESERVE")


def test_two_clients_share_a_gateway():
    """A second client sees the first one's order in the full list, and not in its own."""
    at = gateway()

    async def run():
        first, second = world(at=at), world(at=at, client_id=18)
        await place(first, price=1.0, tif=TimeInForce.GTC)
        assert len(await second.venue.open_orders()) == 1
        mine = FakeIB(at)
        await mine.connectAsync(clientId=19)
        assert await mine.reqOpenOrdersAsync() == []
        mine.disconnect()
        await first.venue.close()
        await second.venue.close()

    asyncio.run(run())


def test_the_library_itself_meets_a_closed_port():
    """With the real client and nobody listening, the venue is unreachable in time, and nothing is left behind."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

    async def run():
        venue = IBVenue(audit=MemoryLog(), port=port, timeout_secs=2)
        with pytest.raises(VenueUnreachable) as caught:
            await venue.connect()
        assert f"127.0.0.1:{port} not reached: nothing listens there" in str(caught.value)
        assert "7497 workstation paper" in caught.value.hint
        await venue.close()

    asyncio.run(run())


def test_a_gateway_that_says_nothing_is_given_up_in_time():
    """With the real client and a port that accepts and says nothing, connecting ends with the time limit."""

    async def run():
        async def silent(reader, writer):
            while await reader.read(1_000):
                pass
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        venue = IBVenue(audit=MemoryLog(), port=port, timeout_secs=0.1)
        with pytest.raises(VenueUnreachable, match=r"does not answer within 0.1 s") as caught:
            await venue.connect()
        assert "Trusted IPs" in caught.value.hint
        await venue.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)

    asyncio.run(run())
