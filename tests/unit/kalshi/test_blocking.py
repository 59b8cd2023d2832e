"""The synchronous face."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.exchange import TICKER, in_thread
from support.kalshi import scripted_in_thread, signer

from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.registry import standard_registry
from holdfast.core.clock import ManualClock
from holdfast.core.errors import (
    CircuitBreakerOpenError,
    ConfigError,
    OrderDenied,
    TradingError,
    VenueAnswerUnknown,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.core.reasons import Code
from holdfast.venues.kalshi.blocking import KalshiClient, _refusal
from holdfast.venues.kalshi.client import HOSTS, derive_ws_url, env_options

BALANCE = (200, '{"balance_dollars": "12.50", "updated_ts": 5}')


@contextlib.contextmanager
def blocking(base_url: str, tmp_path: Path, **options: Any) -> Iterator[KalshiClient]:
    clock = options.pop("clock", None) or ManualClock()
    wal = WriteAheadLog(tmp_path / "audit", clock=clock, seal=False)
    log = AuditLogger(wal)
    settings = {
        "signer": signer(),
        "audit_logger": log,
        "registry": standard_registry(clock=clock, audit=log),
        "clock": clock,
    }
    with wal, KalshiClient(base_url=base_url, **(settings | options)) as client:
        yield client


@pytest.mark.contract("A1")
def test_the_reads_of_the_contract_work_from_any_thread(tmp_path: Path):
    """Balance, markets, market and market data answer from several threads at once, one record per call."""
    with in_thread() as running, blocking(running.endpoints.rest, tmp_path) as client:
        failures: list[BaseException] = []

        def work() -> None:
            try:
                assert client.get_balance().balance > 0
                assert client.get_markets(status="open").items[0].ticker == TICKER
                assert client.get_market(TICKER).status == "active"
                assert client.get_market_data(TICKER).yes_ask == 4500
            except BaseException as error:  # noqa: BLE001  shown by the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert failures == []
        assert len(client.audit_logger.wal.query(event_type="API_CALL")) == 16


def test_every_other_read_answers_too(tmp_path: Path):
    """Orders, fills, positions, settlements, trades, book and status can be read without asyncio."""
    with in_thread() as running, blocking(running.endpoints.rest, tmp_path) as client:
        assert client.get_orders(status="resting").items == []
        assert client.get_fills().items == []
        assert client.get_positions().items == []
        assert client.get_settlements().items == []
        assert client.get_trades(ticker=TICKER).items == []
        assert client.get_orderbook(TICKER).best_bid == 4000
        assert client.get_exchange_status().exchange_active
        assert [market.ticker for market in client.list_markets()] == [TICKER]
        with pytest.raises(VenueRejected):
            client.get_order("nobody")


def test_it_works_inside_a_running_event_loop(tmp_path: Path):
    """A notebook has a loop of its own; blocking calls work beside it."""
    with in_thread() as running, blocking(running.endpoints.rest, tmp_path) as client:

        async def cell():
            return client.get_balance()

        assert asyncio.run(cell()).balance > 0


def test_a_client_refuses_to_wait_on_its_own_loop(tmp_path: Path):
    """Calling a blocking method from the client's own loop is refused instead of hanging for ever."""
    with scripted_in_thread(BALANCE) as server, blocking(server.base_url, tmp_path) as client:

        async def inside():
            client.get_balance()

        with pytest.raises(TradingError, match="own loop"):
            client.run(inside())


def test_a_closed_client_says_so(tmp_path: Path):
    """After `close`, calls raise a named error; closing again is harmless; the thread is gone."""
    with scripted_in_thread(BALANCE) as server, blocking(server.base_url, tmp_path) as client:
        client.get_balance()
        client.close()
        client.close()
        with pytest.raises(TradingError, match="closed"):
            client.get_balance()
    assert not any(thread.name == "holdfast-kalshi" for thread in threading.enumerate())


def test_a_call_that_a_close_overtakes_is_told_so(tmp_path: Path):
    """Threads that call while the client closes get an answer or a named error, and none waits for ever."""
    outcomes: list[type] = []

    def ask(client: KalshiClient) -> None:
        for _ in range(50):
            try:
                client.get_balance()
            except TradingError as error:
                outcomes.append(type(error))

    with scripted_in_thread(BALANCE) as server:
        for _ in range(5):
            with blocking(server.base_url, tmp_path) as client:
                client.get_balance()
                threads = [threading.Thread(target=ask, args=(client,)) for _ in range(4)]
                for thread in threads:
                    thread.start()
                client.close()
                for thread in threads:
                    thread.join(20)
                assert not any(thread.is_alive() for thread in threads)
    assert set(outcomes) == {TradingError}


def test_a_call_after_the_loops_last_turn_is_told_so(tmp_path: Path):
    """A call that reaches a loop which has ended raises a named error instead of waiting for ever."""
    with scripted_in_thread(BALANCE) as server, blocking(server.base_url, tmp_path) as client:
        client.get_balance()
        worker = client._worker
        client.close()
        with pytest.raises(TradingError, match="closed"):
            worker.run(client.client.get_balance())


def test_a_forgotten_client_ends_its_thread(tmp_path: Path):
    """A client that nobody holds any more takes its thread and connections with it, without a warning."""
    with scripted_in_thread(BALANCE) as server:
        clock = ManualClock()
        with WriteAheadLog(tmp_path / "audit", clock=clock, seal=False) as wal:
            log = AuditLogger(wal)
            client = KalshiClient(
                base_url=server.base_url,
                signer=signer(),
                audit_logger=log,
                registry=standard_registry(clock=clock),
            )
            client.get_balance()
            del client
            gc.collect()
            assert not any(thread.name == "holdfast-kalshi" for thread in threading.enumerate())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_refused(tmp_path: Path):
    """A client made before a fork refuses to work in the child and still works in the parent."""
    with scripted_in_thread(BALANCE) as server, blocking(server.base_url, tmp_path) as client:
        client.get_balance()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                client.get_balance()
                os.write(writer, b"answered")
            except TradingError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(writer)
        with os.fdopen(reader) as said:
            assert "before a fork" in said.read()
        assert client.get_balance().balance == 12_500_000


def test_without_a_key_private_methods_say_what_is_missing(tmp_path: Path):
    """A client without a key names the settings that are missing."""
    with (
        scripted_in_thread(BALANCE) as server,
        blocking(server.base_url, tmp_path, signer=None) as client,
        pytest.raises(ConfigError, match="no API key") as raised,
    ):
        client.get_balance()
    assert "KALSHI_API_KEY_ID" in raised.value.hint


def test_the_breaker_is_probed_without_any_read(tmp_path: Path):
    """A client left to the machine's clock asks for the exchange's status by itself when a probe is due."""
    status = (200, '{"exchange_active": true, "trading_active": true}')
    clock = ManualClock()
    with scripted_in_thread(*[(500, "")] * 5, status) as server:
        with WriteAheadLog(tmp_path / "audit", clock=clock, seal=False) as wal:
            log = AuditLogger(wal)
            registry = standard_registry(clock=clock, audit=log)
            with KalshiClient(
                base_url=server.base_url, signer=signer(), audit_logger=log, registry=registry
            ) as client:
                for _ in range(5):
                    with pytest.raises(VenueAnswerUnknown):
                        client.get_balance()
                clock.advance(60)
                closed = threading.Event()

                async def wait_until_closed():
                    while client.client.breaker.get_state() != "closed":  # noqa: ASYNC110  nobody signals it
                        await asyncio.sleep(0.05)
                    closed.set()

                client.run(asyncio.wait_for(wait_until_closed(), 20))
                assert closed.is_set()
        assert [path for _, path, _ in server.requests[5:]] == ["/trade-api/v2/exchange/status"] * 2


def test_the_environment_chooses_demo_unless_prod_is_typed():
    """KALSHI_ENV defaults to demo; an address given by itself wins over it and brings its own stream."""
    assert env_options({})["base_url"] == HOSTS["demo"][0]
    assert env_options({"KALSHI_ENV": "prod"})["ws_url"] == HOSTS["prod"][1]
    local = env_options({"KALSHI_ENV": "prod", "KALSHI_BASE_URL": "http://127.0.0.1:9/trade-api/v2"})
    assert local["ws_url"] == "ws://127.0.0.1:9/trade-api/ws/v2"
    assert env_options({"KALSHI_WS_URL": "ws://x/ws"})["ws_url"] == "ws://x/ws"
    assert derive_ws_url("https://example.com") == "wss://example.com/trade-api/ws/v2"


def test_half_a_key_and_an_unknown_environment_are_both_named():
    """The environment's problems are listed together, without values that might be secret."""
    with pytest.raises(ConfigError) as raised:
        env_options({"KALSHI_ENV": "live", "KALSHI_API_KEY_ID": "abc-secret-id"})
    assert "KALSHI_ENV" in str(raised.value)
    assert "KALSHI_PRIVATE_KEY_PATH" in str(raised.value)
    assert "abc-secret-id" not in str(raised.value)


def test_from_env_reads_the_key_file(tmp_path: Path):
    """`from_env` signs with the key that the environment names."""
    with in_thread() as running:
        env = {
            "KALSHI_API_KEY_ID": running.endpoints.key_id,
            "KALSHI_PRIVATE_KEY_PATH": str(running.endpoints.pem_path),
            "KALSHI_BASE_URL": running.endpoints.rest,
        }
        clock = ManualClock()
        with WriteAheadLog(tmp_path / "audit", clock=clock, seal=False) as wal:
            log = AuditLogger(wal)
            options = {"audit_logger": log, "registry": standard_registry(clock=clock), "clock": clock}
            with KalshiClient.from_env(env, **options) as client:
                assert client.get_balance().balance > 0
                assert client.user_id == running.endpoints.key_id


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ({"status": "rejected", "reason": "risk_check_failed"}, OrderDenied),
        ({"status": "rejected", "reason": "insufficient_resting"}, VenueRejected),
        ({"status": "rejected", "reason": "market_closed"}, VenueRejected),
        ({"status": "rejected", "reason": "insufficient_balance"}, VenueRejected),
        ({"status": "error", "reason": "circuit_breaker_open"}, CircuitBreakerOpenError),
        ({"status": "error", "reason": "not_sent"}, VenueUnreachable),
        ({"status": "unknown", "client_order_id": "hf-1"}, VenueAnswerUnknown),
    ],
)
def test_each_outcome_of_the_router_has_its_exception(tmp_path: Path, outcome: dict[str, str], kind: type):
    """`place_order` raises one named error for each outcome that is not a submission."""
    breaker = standard_registry(clock=ManualClock()).get("kalshi_api")
    assert type(_refusal(outcome, breaker)) is kind


def test_place_order_takes_the_routers_path(tmp_path: Path):
    """`place_order` submits through the gate: an order within the limits fills, one beyond them is denied unsent."""
    with in_thread() as running, blocking(running.endpoints.rest, tmp_path) as client:
        response = client.place_order(TICKER, "yes", 10, "0.45")
        assert response
        with pytest.raises(OrderDenied) as denied:
            client.place_order(TICKER, "yes", 10_000, 45)
        assert denied.value.reason.code is Code.POSITION_LIMIT_EXCEEDED
        assert "order 'hf-" in str(denied.value)
        assert "10010.00 contracts > 100.00 contracts" in str(denied.value)
        kinds = [entry.event_type for entry in client.audit_logger.wal.query()]
        assert kinds.count("ORDER") == 1
        posts = [
            entry
            for entry in client.audit_logger.wal.query(event_type="API_CALL")
            if entry.details["method"] == "POST"
        ]
        assert len(posts) == 1
