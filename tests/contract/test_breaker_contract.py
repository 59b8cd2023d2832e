"""Contract rows A3 to A6, A14 scenario 1 and B1, as their owners would try them."""

import asyncio
import inspect
from types import SimpleNamespace

import pytest

from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import CircuitBreakerConfig, verdict_for_status
from holdfast.breaker.events import BreakerEventKind
from holdfast.breaker.registry import standard_registry
from holdfast.core.clock import ManualClock
from holdfast.core.errors import CircuitBreakerOpenError, VenueAnswerUnknown, VenueRejected


class _Log:
    def __init__(self):
        self.records = []

    def record(self, type, details, *, component=""):  # noqa: A002  the log's own word
        self.records.append((details["from"], details["to"], details["reason"]))


@pytest.fixture
def desk():
    desk = SimpleNamespace(clock=ManualClock(), log=_Log(), events=[])
    desk.registry = standard_registry(clock=desk.clock, audit=desk.log, listeners=[desk.events.append])
    desk.kalshi = desk.registry.get("kalshi_api")
    return desk


@pytest.mark.contract("A3")
@pytest.mark.contract("A14")
def test_five_server_errors_open_and_two_probes_close(desk):
    """Scenario 1: five HTTP 500 on reads, fail fast, 60 s, half open, recovered; each step stands in the log."""
    answers = [500] * 5 + [200] * 2
    sent = []

    @desk.kalshi
    def get_markets():
        status = answers[len(sent)]
        sent.append(status)
        if status >= 500:
            raise VenueAnswerUnknown("GET markets", status=status)
        return "markets"

    for _ in range(5):
        with pytest.raises(VenueAnswerUnknown):
            get_markets()
    assert desk.kalshi.get_state() == "open"
    for _ in range(3):
        with pytest.raises(CircuitBreakerOpenError):
            get_markets()
    assert len(sent) == 5
    desk.clock.advance(59.9)
    with pytest.raises(CircuitBreakerOpenError):
        get_markets()
    desk.clock.advance(0.1)
    assert get_markets() == "markets"
    assert desk.kalshi.get_state() == "half_open"
    assert get_markets() == "markets"
    assert desk.kalshi.get_state() == "closed"
    assert desk.log.records == [
        ("closed", "open", "5 failures in a row"),
        ("open", "half_open", "5 failures in a row"),
        ("half_open", "closed", "2 probes succeeded"),
    ]


@pytest.mark.contract("A3")
def test_failure_in_half_open_reopens_for_the_whole_wait(desk):
    """The first probe that fails reopens, and the wait starts anew."""
    for _ in range(5):
        desk.kalshi.record_failure()
    desk.clock.advance(60)
    desk.kalshi.acquire().success()
    desk.kalshi.acquire().failure("HTTP 503")
    assert desk.kalshi.get_state() == "open"
    assert desk.kalshi.seconds_to_probe() == 60
    assert desk.kalshi.get_stats()["reason"] == "the probe failed: HTTP 503"


@pytest.mark.contract("A3")
def test_breaker_guards_functions_methods_and_blocks_sync_and_async(desk):
    """Decorator on sync and async functions and methods, `with` and `async with` count on one breaker."""

    class Client:
        @desk.kalshi
        def get(self, ticker):
            return ticker

        @desk.kalshi
        async def aget(self, ticker):
            return ticker

    async def scenario():
        async with desk.kalshi:
            pass
        return await Client().aget("KX")

    with desk.kalshi:
        pass
    assert (Client().get("KX"), asyncio.run(scenario())) == ("KX", "KX")
    assert inspect.iscoroutinefunction(Client.aget)
    assert desk.kalshi.get_stats()["successful_calls"] == 4


@pytest.mark.contract("A4")
def test_bad_orders_never_lock_out_the_desk(desk):
    """A hundred rejects of the caller's own making, 429 and 425 leave the breaker closed; 401 latches it."""
    for status in [400, 404, 409, 410, 422, 425, 429] * 20:
        desk.kalshi.acquire().settle(verdict_for_status(status))
    assert desk.kalshi.get_state() == "closed"

    @desk.kalshi
    def call(status):
        raise VenueRejected("no", code="x", status=status)

    with pytest.raises(VenueRejected):
        call(401)
    assert desk.kalshi.get_state() == "latched"


@pytest.mark.contract("A6")
def test_registry_statistics_are_the_contracts(desk):
    """`get_all_stats()` holds state in lower case, all calls with the refused, failures and the ratio."""
    gemini = desk.registry.get("gemini_api")
    gemini(lambda: None)()
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            gemini(lambda: 1 / 0)()
    with pytest.raises(CircuitBreakerOpenError):
        gemini(lambda: None)()
    stats = desk.registry.get_all_stats()
    assert set(stats) == {"kalshi_api", "polymarket_api", "sportradar_api", "gemini_api"}
    row = stats["gemini_api"]
    assert (row["state"], row["total_calls"], row["failed_calls"]) == ("open", 12, 10)
    assert (f"{row['success_rate']:.2%}", row["rejected_calls"]) == ("8.33%", 1)
    assert stats["kalshi_api"]["success_rate"] == 0.0


@pytest.mark.contract("A17")
def test_listeners_hear_every_state_change_of_every_breaker(desk):
    """An alert can hang on any breaker's state changes, with the time, the reason and the next probe."""
    for _ in range(3):
        desk.registry.get("sportradar_api").record_failure()
    event = desk.events[-1]
    assert (event.breaker, event.kind) == ("sportradar_api", BreakerEventKind.STATE_CHANGE)
    assert (event.old_state.value, event.new_state.value) == ("closed", "open")
    assert (event.retry_after_secs, event.ts_ns, event.failure_count) == (120, desk.clock.now_ns(), 3)


@pytest.mark.contract("B1")
def test_options_desks_breaker_reports_changes_failures_probes_and_resets():
    """With B's defaults: five failures, 300 s, three probes; and each becomes a risk event of its type."""

    class Events:
        def __init__(self):
            self.kinds = []

        def emit(self, event):
            self.kinds.append(event.kind.value.removeprefix("circuit_breaker_"))

    events, clock = Events(), ManualClock()
    breaker = TradingCircuitBreaker(CircuitBreakerConfig(), events, clock=clock)
    for _ in range(5):
        breaker.record_failure("order timed out")
    clock.advance(299)
    assert breaker.get_state() == "open"
    clock.advance(1)
    for _ in range(3):
        breaker.acquire()
        breaker.record_success()
    breaker.reset("kim")
    assert breaker.get_state() == "closed"
    assert events.kinds == [
        *["failure"] * 5,
        "state_change",
        "state_change",
        *["success"] * 3,
        "state_change",
        "manual_reset",
    ]


@pytest.mark.contract("B1")
def test_slow_failures_open_too_and_fast_ones_between_successes():
    """Five failures an hour apart open it, and five inside the window do although calls succeed between."""
    clock = ManualClock()
    slow = TradingCircuitBreaker(CircuitBreakerConfig(), clock=clock)
    for _ in range(5):
        slow.record_failure()
        clock.advance(3600)
    mixed = TradingCircuitBreaker(CircuitBreakerConfig(), clock=clock)
    for _ in range(5):
        mixed.record_failure()
        mixed.record_success()
        clock.advance(15)
    assert mixed.get_stats()["state"] == "open"
    assert slow.get_stats()["reason"] == "5 failures in a row"
    assert mixed.get_stats()["reason"] == "5 failures in 60 s"


@pytest.mark.contract("B1")
def test_signatures_are_the_contracts():
    """The names and the order of the fixed parameters stay as the desks call them."""
    config = list(inspect.signature(CircuitBreakerConfig).parameters.values())
    assert [(p.name, p.default) for p in config[:5]] == [
        ("failure_threshold", 5),
        ("failure_window_secs", 60),
        ("half_open_max_tries", 3),
        ("open_timeout_secs", 300),
        ("half_open_timeout_secs", 30),
    ]
    assert all(p.kind is p.KEYWORD_ONLY for p in config[5:])
    breaker = list(inspect.signature(TradingCircuitBreaker).parameters.values())
    assert [p.name for p in breaker[:2]] == ["config", "event_logger"]
    assert all(p.kind is p.KEYWORD_ONLY for p in breaker[2:])
    for name in ("reset", "get_state", "get_stats", "record_failure", "record_success", "acquire"):
        inspect.signature(getattr(TradingCircuitBreaker, name)).bind(None)
