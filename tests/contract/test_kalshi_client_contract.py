"""Rows A1, A2, A4, A14, A16 and A20 of the contract, through the public names, on the paper exchange."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Self

import pytest
from support.exchange import START_NS, TICKER, in_thread
from support.kalshi import scripted_in_thread, signer

from holdfast import CircuitBreakerOpenError, KalshiClient, OrderDenied, OrderRouter
from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.registry import BreakerRegistry, standard_registry
from holdfast.core.clock import ManualClock
from holdfast.core.errors import VenueAnswerUnknown, VenueRejected
from holdfast.venues.paper.faults import FaultScript, read_script

BALANCE = (200, '{"balance_dollars": "12.50", "updated_ts": 5}')


class Desk:
    """A client with its own log, breakers and clock."""

    def __init__(self, base_url: str, tmp_path: Path, **options) -> None:
        self.clock = ManualClock(START_NS)
        self.wal = WriteAheadLog(tmp_path / "audit", clock=self.clock, seal=False)
        self.log = AuditLogger(self.wal)
        self.registry: BreakerRegistry = standard_registry(clock=self.clock, audit=self.log)
        settings = {
            "signer": signer(),
            "audit_logger": self.log,
            "registry": self.registry,
            "clock": self.clock,
        }
        self.client = KalshiClient(base_url=base_url, **(settings | options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.wal.close()

    def calls(self) -> list[tuple[str, str, int]]:
        return [
            (one.details["method"], one.details["endpoint"], one.details["status_code"])
            for one in self.wal.query(event_type="API_CALL")
        ]


@pytest.mark.contract("A1")
def test_the_fixed_signatures_of_the_client_stand():
    """The constructor and the five methods take the contract's arguments; everything else is a keyword."""
    init = inspect.signature(KalshiClient.__init__).parameters
    assert list(init)[1:3] == ["api_key", "private_key_path"]
    assert {init[name].kind for name in ("base_url", "member_id", "timeout")} == {
        inspect.Parameter.KEYWORD_ONLY
    }
    assert init["timeout"].default == 30.0
    place = inspect.signature(KalshiClient.place_order).parameters
    assert list(place)[1:6] == ["ticker", "side", "count", "price", "action"]
    assert place["action"].default == "buy"
    assert list(inspect.signature(KalshiClient.get_market_data).parameters)[1:] == ["ticker"]
    assert list(inspect.signature(KalshiClient.get_market).parameters)[1:] == ["ticker"]
    for name in ("get_balance", "get_markets", "from_env", "close"):
        assert callable(getattr(KalshiClient, name))


@pytest.mark.contract("A1")
def test_each_method_leaves_one_record_on_success_and_on_failure(tmp_path: Path):
    """Success, refusal and silence each leave one API_CALL record with user, api, endpoint, status and latency."""
    with in_thread() as running, Desk(running.endpoints.rest, tmp_path, member_id="member-7") as desk:
        desk.client.get_market_data(TICKER)
        desk.client.get_balance()
        desk.client.get_markets()
        with pytest.raises(VenueRejected):
            desk.client.get_market("KXNONE")
        assert desk.calls() == [
            ("GET", f"markets/{TICKER}", 200),
            ("GET", "portfolio/balance", 200),
            ("GET", "markets", 200),
            ("GET", "markets/KXNONE", 404),
        ]
        for entry in desk.wal.query(event_type="API_CALL"):
            assert entry.user_id == "member-7"
            assert entry.details["api"] == "kalshi"
            assert entry.details["latency_ms"] > 0


@pytest.mark.contract("A1")
def test_a_venue_that_says_nothing_is_recorded_with_status_0(tmp_path: Path):
    """A call without an answer raises inside its time limit and is recorded with status 0."""
    with scripted_in_thread("hang") as server, Desk(server.base_url, tmp_path, timeout=0.5) as desk:
        with pytest.raises(VenueAnswerUnknown, match=r"no answer within 0.5 s"):
            desk.client.get_balance()
        assert desk.calls() == [("GET", "portfolio/balance", 0)]


@pytest.mark.contract("A2")
def test_placing_writes_the_order_before_the_call(tmp_path: Path):
    """The ORDER record stands in the log before the record of the POST that carried it."""
    with in_thread() as running, Desk(running.endpoints.rest, tmp_path) as desk:
        desk.client.place_order(TICKER, "yes", 10, "0.45")
        kinds = [
            entry.event_type if entry.event_type != "API_CALL" else entry.details["method"]
            for entry in desk.wal.query()
        ]
        assert kinds.index("ORDER") < kinds.index("POST")


@pytest.mark.contract("A4")
def test_strict_status_counts_the_callers_mistakes_too(tmp_path: Path):
    """With `strict_status` a 404 counts as failure, as A counted it; by default it does not."""
    from dataclasses import replace

    from holdfast.breaker.config import KALSHI_API

    for strict, failed in ((False, 0), (True, 1)):
        clock = ManualClock()
        registry = BreakerRegistry(clock=clock)
        registry.get_or_create("kalshi_api", replace(KALSHI_API, strict_status=strict))
        with (
            scripted_in_thread((404, '{"error": {"code": "not_found"}}')) as server,
            Desk(server.base_url, tmp_path / str(strict), registry=registry) as desk,
        ):
            with pytest.raises(VenueRejected):
                desk.client.get_market("X")
            assert registry.get_all_stats()["kalshi_api"]["failed_calls"] == failed


@pytest.mark.contract("A14")
def test_scenario_1_reads_fail_and_recover(tmp_path: Path):
    """Five 500s open the breaker, calls fail fast, after the wait it is half open, two answers close it; all logged."""
    script = FaultScript(read_script("0:reads_500=5", 0))
    with in_thread(script=script) as running, Desk(running.endpoints.rest, tmp_path) as desk:
        for _ in range(5):
            with pytest.raises(VenueAnswerUnknown):
                desk.client.get_market_data(TICKER)
        assert desk.registry.get_all_stats()["kalshi_api"]["state"] == "open"
        with pytest.raises(CircuitBreakerOpenError) as refused:
            desk.client.get_market_data(TICKER)
        assert 0 < refused.value.retry_after_secs <= 60
        desk.clock.advance(60)
        desk.client.get_market_data(TICKER)
        assert desk.registry.get_all_stats()["kalshi_api"]["state"] == "half_open"
        desk.client.get_market_data(TICKER)
        stats = desk.registry.get_all_stats()["kalshi_api"]
        assert (stats["state"], stats["rejected_calls"]) == ("closed", 1)
        assert [status for _, _, status in desk.calls()] == [500] * 5 + [200, 200]
        moves = [
            (one.details["from"], one.details["to"])
            for one in desk.wal.query(event_type="BREAKER")
            if one.details["breaker"] == "kalshi_api"
        ]
        assert moves == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


@pytest.mark.contract("A14")
def test_scenario_2_a_limit_refuses_without_a_call(tmp_path: Path):
    """An order beyond the position limit is denied, no POST is made, and the record says why."""
    with in_thread() as running, Desk(running.endpoints.rest, tmp_path) as desk:
        with pytest.raises(OrderDenied):
            desk.client.place_order(TICKER, "yes", 101, "0.45")
        assert not [call for call in desk.calls() if call[0] == "POST"]
        violations = [one.details["violation_type"] for one in desk.wal.query(event_type="RISK_VIOLATION")]
        assert violations == ["position_limit_exceeded", "risk_check_failed"]


@pytest.mark.contract("A14")
def test_scenario_3_an_open_breaker_stops_orders(tmp_path: Path):
    """While the breaker is open an order is `circuit_breaker_open`, no POST is made, and the log says it."""
    with in_thread() as running, Desk(running.endpoints.rest, tmp_path) as desk:
        router = OrderRouter(desk.client)
        order = {"ticker": TICKER, "side": "yes", "count": 1, "price": "0.41", "tif": "gtc"}
        first = router.route_order(order)
        assert first["status"] == "submitted", first
        desk.registry.get("kalshi_api").force_open("test", "tester")
        second = router.route_order(order)
        assert (second["status"], second["reason"]) == ("error", "circuit_breaker_open")
        assert len([call for call in desk.calls() if call[0] == "POST"]) == 1
        assert [one.details["violation_type"] for one in desk.wal.query(event_type="RISK_VIOLATION")] == [
            "circuit_breaker_open"
        ]


@pytest.mark.contract("A20")
def test_children_stand_below_the_venues_breaker(tmp_path: Path):
    """Reads have a child per class; the stats of `kalshi_api` count them all and hide the children by default."""
    with scripted_in_thread(BALANCE) as server, Desk(server.base_url, tmp_path) as desk:
        desk.client.get_balance()
        assert set(desk.registry.get_all_stats()) == {
            "kalshi_api",
            "polymarket_api",
            "sportradar_api",
            "gemini_api",
        }
        assert "kalshi_api/read:balance" in desk.registry.get_all_stats(children=True)
        assert desk.registry.get_all_stats()["kalshi_api"]["successful_calls"] == 1


@pytest.mark.contract("A20")
def test_a_persons_reset_frees_the_children_too(tmp_path: Path):
    """After `reset()` of `kalshi_api` the very next call goes, whatever its child had counted."""
    with scripted_in_thread(*[(500, "")] * 5, BALANCE) as server, Desk(server.base_url, tmp_path) as desk:
        for _ in range(5):
            with pytest.raises(VenueAnswerUnknown):
                desk.client.get_balance()
        desk.registry.get("kalshi_api").reset(who="tester")
        assert desk.client.get_balance().balance == 12_500_000
