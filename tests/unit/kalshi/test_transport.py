"""One call over HTTP, against a server that answers as scripted."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from support.exchange import TICKER
from support.kalshi import CLOSE, CUT, HANG, desk_at, intent, scripted

from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.registry import standard_registry
from holdfast.core.clock import ManualClock
from holdfast.core.errors import (
    CircuitBreakerOpenError,
    ConfigError,
    LogHeld,
    VenueAnswerUnknown,
    VenueError,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.execution.venue import Ack, AlreadyClosed, Canceled, NotSent, Reject, Unknown
from holdfast.venues.kalshi.client import AsyncKalshiClient

BALANCE = (200, '{"balance": 1, "balance_dollars": "12.50", "updated_ts": 5}')
STATUS = (200, '{"exchange_active": true, "trading_active": true}')
ACK = (201, '{"order_id": "o-1", "fill_count": "0.00", "remaining_count": "10.00", "ts_ms": 1}')
MARKET = """{"market": {"ticker": "%s", "event_ticker": "E", "status": "active",
    "price_ranges": [{"start": "0.01", "end": "0.99", "step": "0.01"}]}}"""
TINY = 0.5


def unused_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.contract("A1")
@pytest.mark.parametrize(
    ("reply", "raised", "status", "failed"),
    [
        ((500, "oops"), VenueAnswerUnknown, 500, 1),
        ((408, ""), VenueAnswerUnknown, 408, 1),
        ((400, '{"error": {"code": "invalid_order", "message": "no"}}'), VenueRejected, 400, 0),
        ((404, '{"error": {"code": "not_found", "message": "no"}}'), VenueRejected, 404, 0),
        ((301, ""), VenueAnswerUnknown, 301, 0),
        ((200, '{"error": {"code": "deprecated_v1_order_endpoint"}}'), VenueAnswerUnknown, 200, 1),
        ((200, '{"balance": 1250}'), VenueAnswerUnknown, 200, 1),
        ((200, '{"balance_dollars": 12.5}'), VenueAnswerUnknown, 200, 1),
        ((200, "<html>"), VenueAnswerUnknown, 200, 1),
        ((200, b"\xff\xfe"), VenueAnswerUnknown, 200, 1),
        (HANG, VenueAnswerUnknown, 0, 1),
    ],
)
def test_a_call_that_fails_raises_counts_and_leaves_one_record(
    tmp_path: Path, reply, raised, status: int, failed: int
):
    """Whatever the venue answers, the call raises its named error once and leaves exactly one record."""

    async def run():
        timeout = TINY if reply == HANG else 20.0
        async with scripted(reply) as server, desk_at(server.base_url, tmp_path, timeout=timeout) as desk:
            with pytest.raises(raised):
                await desk.client.get_balance()
            assert desk.calls() == [("GET", "portfolio/balance", status)]
            assert desk.records()[0].details["error"]
            assert desk.breaker.get_stats()["failed_calls"] == failed
            assert len(server.requests) == 1

    asyncio.run(run())


@pytest.mark.parametrize(("reply", "status"), [(CLOSE, 0), (CUT, 200)])
def test_a_read_whose_answer_is_lost_is_asked_again_within_bounds(tmp_path: Path, reply, status: int):
    """A read without an answer is repeated twice, with jittered waits, and stays one call with one record."""

    async def run():
        async with scripted(reply) as server, desk_at(server.base_url, tmp_path) as desk:
            with pytest.raises(VenueAnswerUnknown):
                await desk.client.get_balance()
            assert len(server.requests) == 3
            assert len(desk.naps) == 2
            assert all(0 <= nap <= 2 for nap in desk.naps)
            assert desk.calls() == [("GET", "portfolio/balance", status)]
            assert desk.records()[0].details["attempts"] == 3
            assert desk.breaker.get_stats()["failed_calls"] == 1

    asyncio.run(run())


@pytest.mark.contract("A15")
def test_a_read_recovers_from_a_gateway_error(tmp_path: Path):
    """A 503 followed by an answer is a success after one repeat."""

    async def run():
        async with scripted((503, ""), BALANCE) as server, desk_at(server.base_url, tmp_path) as desk:
            assert (await desk.client.get_balance()).balance == 12_500_000
            assert desk.calls() == [("GET", "portfolio/balance", 200)]
            assert desk.breaker.get_stats()["successful_calls"] == 1

    asyncio.run(run())


@pytest.mark.contract("A15")
def test_repeats_stay_inside_their_budget(tmp_path: Path):
    """When everything fails, a budget ends the repeats: far fewer requests than three per call."""

    async def run():
        async with scripted((503, "")) as server, desk_at(server.base_url, tmp_path) as desk:
            desk.registry.get_or_create("kalshi_api")
            for _ in range(40):
                desk.breaker.reset()
                for child in ("read:balance",):
                    desk.registry.child("kalshi_api", child).reset()
                with pytest.raises(VenueError):
                    await desk.client.get_balance()
            assert len(server.requests) <= 40 + 3 + 40 * 0.2 + 1

    asyncio.run(run())


def test_a_refused_connection_proves_that_nothing_was_sent(tmp_path: Path):
    """Without a connection a read raises VenueUnreachable, an order and a cancel are NotSent."""

    async def run():
        async with desk_at(unused_url(), tmp_path) as desk:
            with pytest.raises(VenueUnreachable):
                await desk.client.get_balance()
            assert isinstance(await desk.place(intent()), NotSent)
            assert isinstance(await desk.client.cancel_order("o-1", ticker=TICKER), NotSent)
            assert [call[2] for call in desk.calls()] == [0, 0, 0]
            assert desk.breaker.get_stats()["failed_calls"] == 3

    asyncio.run(run())


@pytest.mark.contract("A16")
@pytest.mark.parametrize(
    ("reply", "kind", "status"),
    [
        (ACK, Ack, 0),
        ((400, '{"error": {"code": "invalid_price", "message": "off grid"}}'), Reject, 400),
        ((400, '{"code": "bad_request", "message": "no"}'), Reject, 400),
        ((403, '{"error": {"code": "forbidden"}}'), Reject, 403),
        ((409, '{"error": {"code": "order_already_exists"}}'), Unknown, 409),
        ((429, '{"error": "too many requests"}'), NotSent, 0),
        ((425, ""), NotSent, 0),
        ((408, ""), Unknown, 408),
        ((500, ""), Unknown, 500),
        ((503, ""), Unknown, 503),
        ((302, ""), Unknown, 302),
        ((200, '{"error": {"code": "deprecated_v1_order_endpoint"}}'), Unknown, 200),
        ((200, '{"order": {"order_id": "o-1"}}'), Unknown, 200),
        ((201, '{"order_id": "", "fill_count": "0.00", "remaining_count": "1.00"}'), Unknown, 201),
        ((201, '{"order_id": "o-1", "fill_count": 0, "remaining_count": 10}'), Unknown, 201),
        (
            (201, '{"order_id":"o","fill_count":"0","remaining_count":"1","client_order_id":"x"}'),
            Unknown,
            201,
        ),
        (CLOSE, Unknown, 0),
        (CUT, Unknown, 200),
        (HANG, Unknown, 0),
    ],
)
def test_every_answer_to_an_order_has_one_meaning_and_the_order_is_sent_once(
    tmp_path: Path, reply, kind: type, status: int
):
    """An order leaves once, whatever comes back, and each answer has exactly one meaning."""

    async def run():
        timeout = TINY if reply == HANG else 20.0
        async with scripted(reply) as server, desk_at(server.base_url, tmp_path, timeout=timeout) as desk:
            answer = await desk.place(intent())
            assert type(answer) is kind
            assert getattr(answer, "status", 0) == status
            assert len(server.requests) == 1
            assert len(desk.records()) == 1
            assert desk.records()[0].details["client_order_id"] == "hf-1"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("replies", "answer"),
    [
        ([(200, '{"reduced_by": "7.00"}')], Canceled(released=700)),
        ([CLOSE, (404, '{"error": {"code": "not_found"}}')], AlreadyClosed()),
        ([(503, ""), (200, '{"reduced_by": "7.00"}')], Canceled(released=700)),
        ([(429, '{"error": "too many requests"}'), (200, '{"reduced_by": "7.00"}')], Canceled(released=700)),
    ],
)
def test_a_cancel_is_asked_again_until_it_is_answered(tmp_path: Path, replies, answer):
    """A cancel is idempotent: it is repeated through lost answers, gateways and rate limits."""

    async def run():
        async with scripted(*replies) as server, desk_at(server.base_url, tmp_path) as desk:
            assert await desk.client.cancel_order("o-1", ticker=TICKER) == answer
            assert len(server.requests) == len(replies)
            assert server.requests[0][1].endswith(f"/portfolio/events/orders/o-1?ticker={TICKER}")
            assert len(desk.records()) == 1

    asyncio.run(run())


@pytest.mark.parametrize("reply", [(500, ""), (400, ""), (200, "{}")])
def test_a_cancel_without_a_clear_answer_is_unknown(tmp_path: Path, reply):
    """A cancel that cannot be read as done or already closed is Unknown."""

    async def run():
        async with scripted(reply) as server, desk_at(server.base_url, tmp_path) as desk:
            assert isinstance(await desk.client.cancel_order("o-1"), Unknown)

    asyncio.run(run())


@pytest.mark.contract("A4")
def test_a_rate_limit_holds_its_class_of_call_alone(tmp_path: Path):
    """After a 429 placements are held for a bounded time, cancels and reads are not, and no breaker trips."""

    async def run():
        replies = [(429, '{"error": "too many requests"}'), (200, '{"reduced_by": "1.00"}'), BALANCE, ACK]
        async with scripted(*replies) as server, desk_at(server.base_url, tmp_path) as desk:
            assert isinstance(await desk.place(intent("hf-1")), NotSent)
            held = await desk.place(intent("hf-2"))
            assert isinstance(held, NotSent)
            assert held.reason.startswith("rate limited")
            assert len(server.requests) == 1
            assert isinstance(await desk.client.cancel_order("o-1"), Canceled)
            await desk.client.get_balance()
            assert desk.breaker.get_state() == "closed"
            desk.clock.advance(1.01)
            assert isinstance(await desk.place(intent("hf-2")), Ack)
            assert desk.breaker.get_stats()["failed_calls"] == 0

    asyncio.run(run())


def test_a_rate_limited_read_waits_and_is_asked_again(tmp_path: Path):
    """A 429 on a read makes it wait at least the hold, then it is repeated."""

    async def run():
        async with (
            scripted((429, '{"error": "too many requests"}'), BALANCE) as server,
            desk_at(server.base_url, tmp_path) as desk,
        ):
            await desk.client.get_balance()
            assert desk.naps
            assert desk.naps[0] >= 1.0

    asyncio.run(run())


@pytest.mark.contract("A14")
def test_five_failing_reads_open_the_breaker_and_probes_close_it(tmp_path: Path):
    """Five 500s open `kalshi_api`, calls fail fast without a request, and after 60 s two successes close it."""

    async def run():
        replies = [(500, "")] * 5 + [BALANCE]
        async with scripted(*replies) as server, desk_at(server.base_url, tmp_path) as desk:
            for _ in range(5):
                with pytest.raises(VenueAnswerUnknown):
                    await desk.client.get_balance()
            assert desk.breaker.get_state() == "open"
            with pytest.raises(CircuitBreakerOpenError) as refused:
                await desk.client.get_balance()
            assert refused.value.retry_after_secs == pytest.approx(60)
            assert len(server.requests) == 5
            desk.clock.advance(60)
            await desk.client.get_balance()
            assert desk.breaker.get_state() == "half_open"
            await desk.client.get_balance()
            assert desk.breaker.get_state() == "closed"
            steps = [
                (one.details["from"], one.details["to"])
                for one in desk.records("BREAKER")
                if one.details["breaker"] == "kalshi_api"
            ]
            assert steps == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
            assert [call[2] for call in desk.calls()] == [500] * 5 + [200] * 2

    asyncio.run(run())


@pytest.mark.contract("A14")
def test_an_order_is_refused_while_the_breaker_is_open_and_is_never_the_probe(tmp_path: Path):
    """With the breaker open no order is asked for, even when a probe is due; `tick_probe` asks for the status."""

    async def run():
        replies = [(500, "")] * 5 + [STATUS, STATUS, ACK]
        async with scripted(*replies) as server, desk_at(server.base_url, tmp_path) as desk:
            for _ in range(5):
                with pytest.raises(VenueAnswerUnknown):
                    await desk.client.get_balance()
            assert not await desk.client.tick_probe()
            with pytest.raises(CircuitBreakerOpenError):
                desk.client.placement_permit(TICKER, reducing=False)
            assert isinstance(desk.client.placement_permit(TICKER, reducing=True), object)
            desk.clock.advance(60)
            assert await desk.client.tick_probe()
            assert await desk.client.tick_probe()
            assert not await desk.client.tick_probe()
            assert desk.breaker.get_state() == "closed"
            assert [path for _, path, _ in server.requests[5:]] == ["/trade-api/v2/exchange/status"] * 2
            assert isinstance(await desk.place(intent()), Ack)

    asyncio.run(run())


def test_a_refused_order_starts_the_probe_that_is_due(tmp_path: Path):
    """Asking for leave to place when the wait is over sends the probe beside it."""

    async def run():
        replies = [(500, "")] * 5 + [STATUS]
        async with scripted(*replies) as server, desk_at(server.base_url, tmp_path) as desk:
            for _ in range(5):
                with pytest.raises(VenueAnswerUnknown):
                    await desk.client.get_balance()
            desk.clock.advance(60)
            with pytest.raises(CircuitBreakerOpenError):
                desk.client.placement_permit(TICKER, reducing=False)
            await asyncio.gather(*desk.client._probes)
            assert desk.breaker.get_state() == "closed"
            assert len(server.requests) == 7

    asyncio.run(run())


@pytest.mark.contract("A20")
def test_a_markets_own_breaker_refuses_more_and_is_probed_by_a_read(tmp_path: Path):
    """A market whose placements failed is refused by its own child until a read of that market has succeeded."""
    market = (
        200,
        MARKET % "T",
    )

    async def run():
        replies = [(500, "")] * 5 + [STATUS, STATUS, market, market, ACK]
        async with scripted(*replies) as server, desk_at(server.base_url, tmp_path) as desk:
            for number in range(5):
                assert isinstance(await desk.place(intent(f"hf-{number}")), Unknown)
            desk.clock.advance(60)
            while await desk.client.tick_probe():
                pass
            assert desk.breaker.get_state() == "closed"
            with pytest.raises(CircuitBreakerOpenError):
                desk.client.placement_permit(TICKER, reducing=False)
            await asyncio.gather(*desk.client._probes)
            other = desk.client.placement_permit("KXOTHER", reducing=False)
            other.ignored()
            assert isinstance(await desk.place(intent("hf-9")), Ack)
            assert server.requests[7][1] == f"/trade-api/v2/markets/{TICKER}"

    asyncio.run(run())


def test_reconciliation_reads_go_although_the_breaker_is_open(tmp_path: Path):
    """Open orders are read through an open breaker; a plain read is refused."""

    async def run():
        replies = [(500, "")] * 5 + [(200, '{"orders": [], "cursor": ""}')]
        async with scripted(*replies) as server, desk_at(server.base_url, tmp_path) as desk:
            for _ in range(5):
                with pytest.raises(VenueAnswerUnknown):
                    await desk.client.get_balance()
            assert await desk.venue.open_orders() == []
            with pytest.raises(CircuitBreakerOpenError):
                await desk.client.get_orders()

    asyncio.run(run())


def test_a_call_canceled_by_its_caller_is_recorded_and_proves_nothing(tmp_path: Path):
    """Cancelling a call leaves one record, counts nothing and lets the cancellation through."""

    async def run():
        async with scripted(HANG) as server, desk_at(server.base_url, tmp_path) as desk:
            task = asyncio.create_task(desk.client.get_balance())
            await server.arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert desk.records()[0].details["error"] == "canceled by the caller"
            assert desk.breaker.get_stats()["ignored_calls"] == 1

    asyncio.run(run())


@pytest.mark.contract("A1")
def test_a_record_says_who_what_and_how_long(tmp_path: Path):
    """A record has member id, api, endpoint with the ticker, method, status and latency by the wall clock."""

    async def run():
        market = (
            200,
            MARKET % "KXA-1",
        )
        async with (
            scripted(market) as server,
            desk_at(server.base_url, tmp_path, member_id="member-7") as desk,
        ):
            await desk.client.get_market_data("KXA-1")
            (entry,) = desk.records()
            assert entry.user_id == "member-7"
            assert entry.details["latency_ms"] > 0
            assert {key: entry.details[key] for key in ("api", "endpoint", "method", "status_code")} == {
                "api": "kalshi",
                "endpoint": "markets/KXA-1",
                "method": "GET",
                "status_code": 200,
            }

    asyncio.run(run())


def test_the_users_name_is_the_key_id_when_no_member_is_given(tmp_path: Path):
    """Without a member id the API key's id stands in the record."""

    async def run():
        async with scripted(BALANCE) as server, desk_at(server.base_url, tmp_path) as desk:
            await desk.client.get_balance()
            assert desk.records()[0].user_id == desk.client.signer.key_id

    asyncio.run(run())


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_time_limit_that_limits_nothing_is_refused(tmp_path: Path, timeout: float):
    """A timeout must be a positive, finite number of seconds."""

    async def run():
        async with desk_at("http://127.0.0.1:1", tmp_path, timeout=timeout):
            pass

    with pytest.raises(ConfigError, match="timeout"):
        asyncio.run(run())


@pytest.mark.parametrize("url", ["", "ftp://x", "http://user:pw@x/", "https://x/?a=1", "nonsense"])
def test_an_address_that_is_none_is_refused_without_repeating_it(tmp_path: Path, url: str):
    """A base URL must be a plain http or https address; the message does not repeat what may hold a secret."""

    async def run():
        async with desk_at(url, tmp_path):
            pass

    with pytest.raises(ConfigError, match="base_url") as raised:
        asyncio.run(run())
    assert "pw" not in str(raised.value)


def test_names_cannot_climb_out_of_their_path(tmp_path: Path):
    """A ticker with slashes stays one segment; "." and ".." and nothing are refused before sending."""

    async def run():
        async with scripted((404, "")) as server, desk_at(server.base_url, tmp_path) as desk:
            with pytest.raises(VenueRejected):
                await desk.client.get_market("../portfolio/balance?x=1")
            assert server.requests[0][1] == "/trade-api/v2/markets/..%2Fportfolio%2Fbalance%3Fx%3D1"
            for name in ("", ".", "..", "X" * 201):
                with pytest.raises(ValueError, match="cannot be asked for"):
                    await desk.client.get_market(name)
            assert len(server.requests) == 1

    asyncio.run(run())


def test_paging_that_goes_in_circles_is_unknown(tmp_path: Path):
    """A venue that hands out the same cursor again does not keep us reading for ever."""

    async def run():
        async with (
            scripted((200, '{"orders": [], "cursor": "again"}')) as server,
            desk_at(server.base_url, tmp_path) as desk,
        ):
            with pytest.raises(VenueAnswerUnknown, match="circles"):
                await desk.venue.open_orders()
            with pytest.raises(VenueAnswerUnknown, match="circles"):
                await desk.venue.find_order(client_order_id="x", ticker="T", since_ns=0)

    asyncio.run(run())


def test_what_is_signed_is_what_is_sent(tmp_path: Path):
    """Every request carries the three headers, signed over timestamp, method and the sent path without query."""

    async def run():
        async with (
            scripted((200, '{"markets": []}')) as server,
            desk_at(server.base_url, tmp_path, wall_clock=ManualClock()) as desk,
        ):
            await desk.client.get_markets(status="open")
            sent = server.headers[0]
            assert sent["kalshi-access-key"] == desk.client.signer.key_id.lower()
            assert sent["kalshi-access-timestamp"] == str(ManualClock().now_ns() // 1_000_000)
            assert sent["user-agent"].startswith("holdfast/")

    asyncio.run(run())


def test_a_log_that_cannot_be_opened_is_told_to_readers_and_never_hides_a_cancel(tmp_path: Path):
    """With the log held by another writer a read raises LogHeld; a cancel still gets its answer."""

    async def run():
        replies = [BALANCE, (200, '{"reduced_by": "7.00"}')]
        async with scripted(*replies) as server, desk_at(server.base_url, tmp_path) as desk:
            clock = ManualClock()
            held = AuditLogger(WriteAheadLog(tmp_path / "audit", clock=clock, seal=False))
            client = AsyncKalshiClient(
                base_url=server.base_url,
                signer=desk.client.signer,
                audit_logger=held,
                registry=standard_registry(clock=clock),
                clock=clock,
            )
            with pytest.raises(LogHeld):
                await client.get_balance()
            assert await client.cancel_order("o-1") == Canceled(released=700)
            assert client.transport.unrecorded == 2
            await client.close()

    asyncio.run(run())
