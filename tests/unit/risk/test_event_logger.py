import asyncio
import errno
import inspect
import logging
import subprocess
import sys
import threading

import pytest

from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import read_records
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import CircuitBreakerConfig
from holdfast.core.clock import ManualClock, SystemClock
from holdfast.core.errors import AuditWriteError, CircuitBreakerOpenError, TradingError
from holdfast.risk import event_logger as event_logger_module
from holdfast.risk.event_logger import RiskEventLogger
from holdfast.risk.events import RiskEvent, RiskEventType, event_of_record
from holdfast.risk.stop_manager import TrailingStopManager
from holdfast.testing.storage import FaultyStorage, SimulatedStorage

ADD = RiskEventType.TRAILING_STOP_ADD


def event(**fields):
    return RiskEvent(event_type=fields.pop("event_type", ADD), component="trailing_stop", **fields)


def events_of(directory):
    return [event_of_record(record) for record in read_records(directory) if record.type == "RISK_EVENT"]


@pytest.fixture
def log(tmp_path):
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False) as wal:
        yield AuditLogger(wal, user="desk")


@pytest.fixture
def logger(log):
    return RiskEventLogger(log, project=False)


@pytest.mark.contract("B7")
@pytest.mark.contract("B8")
def test_an_event_is_in_the_file_when_emit_returns(log, logger, tmp_path):
    """Without any flush, and without a loop, the file itself holds the event under the sequence that was told."""
    seq = logger.emit(event(execution_id="ic-1", entry_premium=1_014_550))
    (segment,) = (tmp_path / "log").glob("audit_*.log")
    assert b'"entry_premium":"101.4550"' in segment.read_bytes()
    asyncio.run(logger.flush())
    (record,) = [one for one in log.wal.records() if one.type == "RISK_EVENT"]
    assert (record.seq, record.component, record.user) == (seq, "trailing_stop", "desk")
    assert event_of_record(record) == event(execution_id="ic-1", entry_premium=1_014_550)


@pytest.mark.contract("B7")
def test_the_fixed_signatures_stand():
    """RiskEventLogger() takes nothing; initialize, flush and close are awaited, emit is not."""
    parameters = inspect.signature(RiskEventLogger).parameters.values()
    assert all(one.default is not inspect.Parameter.empty for one in parameters)
    for name in ("initialize", "flush", "close"):
        assert inspect.iscoroutinefunction(getattr(RiskEventLogger, name))
    assert not inspect.iscoroutinefunction(RiskEventLogger.emit)


@pytest.mark.contract("B7")
def test_flush_makes_events_durable(log, logger):
    """What was emitted before a flush is synced when it returns."""
    seq = [logger.emit(event(execution_id=str(number))) for number in range(5)][-1]
    asyncio.run(logger.flush())
    assert log.wal.durable_seq >= seq


@pytest.mark.contract("B7")
def test_types_that_ask_for_it_are_durable_at_once(log):
    """A type named as durable waits for the disk, others do not."""
    logger = RiskEventLogger(log, project=False, durable={RiskEventType.TRAILING_STOP_TRIGGER})
    seq = logger.emit(event(event_type=RiskEventType.TRAILING_STOP_TRIGGER))
    assert log.wal.durable_seq == seq


@pytest.mark.contract("B1")
def test_a_breakers_life_is_told_end_to_end(log, logger):
    """Failures, opening, half-open successes, closing and a person's reset are risk events, in order."""
    clock = ManualClock()
    config = CircuitBreakerConfig(failure_threshold=2, half_open_max_tries=2, open_timeout_secs=10)
    breaker = TradingCircuitBreaker(config, event_logger=logger, name="ib", clock=clock)
    breaker.record_failure("timeout")
    breaker.record_failure()
    with pytest.raises(CircuitBreakerOpenError):
        breaker.acquire()
    clock.advance(10)
    for _ in range(2):
        with breaker:
            pass
    breaker.force_open("drill", "ann")
    breaker.reset("ann", "checked")
    asyncio.run(logger.flush())
    told = [
        (
            one.event_type.value.removeprefix("circuit_breaker_"),
            one.old_state,
            one.new_state,
            one.failure_count,
        )
        for one in events_of(log.wal.directory)
    ]
    assert told == [
        ("failure", "closed", "closed", 1),
        ("failure", "closed", "closed", 2),
        ("state_change", "closed", "open", 2),
        ("state_change", "open", "half_open", 0),
        ("success", "half_open", "half_open", 0),
        ("success", "half_open", "half_open", 0),
        ("state_change", "half_open", "closed", 0),
        ("state_change", "closed", "forced_open", 0),
        ("state_change", "forced_open", "closed", 0),
        ("manual_reset", "forced_open", "closed", 0),
    ]
    last = events_of(log.wal.directory)[-1]
    assert (last.component, last.scope) == ("circuit_breaker", "ib")
    assert last.metadata == {"reason": "checked", "who": "ann"}


@pytest.mark.contract("B3")
@pytest.mark.contract("B8")
def test_stops_are_rebuilt_from_what_the_logger_wrote(log, logger):
    """ADD, ACTIVATE and TRIGGER go through the journal, and the stop that triggered is found again."""
    manager = TrailingStopManager(logger)
    manager.add_trailing_stop("ic-1", 100.0, symbol="SPY")
    asyncio.run(manager.update_stops({"ic-1": 103.0}))
    asyncio.run(manager.update_stops({"ic-1": 101.0}))
    restored = TrailingStopManager()
    assert restored.restore(log.wal.records()) == 1
    assert restored.triggered == ("ic-1",)
    assert repr(restored.stops["ic-1"]) == repr(manager.stops["ic-1"])


@pytest.mark.contract("B7")
@pytest.mark.invariant("I9")
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_dead_journal_costs_no_decision_and_hides_nothing(error, caplog):
    """With a poisoned journal a stop still decides; its events are counted, told once, and flush raises."""
    storage = FaultyStorage(
        SimulatedStorage(), error=error, counts=lambda op, name: op == "pwrite" and "audit_" in name
    )
    wal = WriteAheadLog("/log", clock=ManualClock(), storage=storage, seal=False)
    logger = RiskEventLogger(AuditLogger(wal), project=False)
    manager = TrailingStopManager(logger)
    manager.add_trailing_stop("ic-1", 100)
    storage._fail_at = len(storage.calls) + 1
    with caplog.at_level(logging.ERROR):
        actions = [manager.update_prices({"ic-1": price})["ic-1"].value for price in (1_030_000, 1_010_000)]
    assert actions == ["ACTIVATE", "TRIGGER"]
    assert logger.lost == {"trailing_stop_activate": 1, "trailing_stop_trigger": 1}
    assert "poisoned" in logger.failure
    assert [record.message[:16] for record in caplog.records] == ["risk event lost:"]
    assert wal.state == "poisoned"
    with pytest.raises(AuditWriteError):
        asyncio.run(logger.flush())
    wal.close()


@pytest.mark.contract("B7")
@pytest.mark.parametrize("value", [float("nan"), {1}, "x" * 70_000, object()])
def test_metadata_that_cannot_be_written_do_not_take_the_event_with_them(log, logger, value):
    """The event is written with the reason in place of its metadata, and nothing counts as lost."""
    assert logger.emit(event(execution_id="ic-1", metadata={"x": value}))
    asyncio.run(logger.flush())
    (written,) = events_of(log.wal.directory)
    assert written.execution_id == "ic-1"
    assert list(written.metadata) == ["unwritable"]
    assert not logger.lost


@pytest.mark.contract("B7")
def test_what_is_no_event_is_counted_and_raises_nothing(logger):
    """A premium that is a float and a thing that is no event are lost by name, without an exception."""
    assert logger.emit(event(entry_premium=100.5)) == 0
    assert logger.emit("weather") == 0
    assert logger.lost == {"trailing_stop_add": 1, "str": 1}


@pytest.mark.contract("B7")
def test_any_thread_may_emit(log, logger):
    """Four threads, each with its own events in its own order, lose none."""

    def work(name):
        for number in range(200):
            logger.emit(event(execution_id=name, failure_count=number))

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(logger.flush())
    told = events_of(log.wal.directory)
    for name in "0123":
        assert [one.failure_count for one in told if one.execution_id == name] == list(range(200))


@pytest.mark.contract("B7")
def test_events_need_neither_arrow_nor_delta_nor_a_loop(tmp_path):
    """A plain script emits with the process-wide journal, loads no lake library, and leaves everything on the disk."""
    code = (
        "import sys\n"
        "from holdfast.risk.event_logger import RiskEventLogger\n"
        "from holdfast.risk.stop_manager import TrailingStopManager\n"
        "TrailingStopManager(RiskEventLogger()).add_trailing_stop('ic-1', 100.0)\n"
        "heavy = {'deltalake', 'pyarrow', 'polars', 'numpy', 'duckdb', 'pandas'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    (written,) = events_of(tmp_path / "logs" / "audit")
    assert (written.event_type, written.execution_id) == (ADD, "ic-1")


STAND_IN = """
import sys
from pathlib import Path
from holdfast.audit.projected import ProjectorClaim
assert sys.argv[1:3] == ["lake", "project"] and sys.argv[4:] == ["--lake", "lake", "--follow", "--exit-with-stdin"]
claim = ProjectorClaim.take(Path(sys.argv[3]), "lake")
sys.stdin.read()
Path(sys.argv[3]).with_name("ended").touch()
"""


class Commands:
    """Starts a stand-in where a projector would be started; its commands are kept."""

    def __init__(self, programme):
        self.programme, self.started = programme, []

    def __call__(self, command, words):
        self.started.append(command)
        stand_in = [sys.executable, "-c", self.programme, *command[3:]]
        return subprocess.Popen(stand_in, stdin=subprocess.PIPE, stderr=words)


@pytest.mark.contract("B7")
def test_initialize_starts_one_projector_and_close_lets_it_end(log, tmp_path, monkeypatch):
    """It starts the projector of this log and lake, none where one runs, and close returns when it has ended."""
    commands = Commands(STAND_IN)
    monkeypatch.setattr(event_logger_module, "_popen", commands)
    first, second = (RiskEventLogger(log, lake="lake") for _ in range(2))

    async def life():
        await asyncio.gather(first.initialize(), first.initialize())
        await first.initialize()
        await second.initialize()
        assert first.emit(event())
        await second.close()
        assert not (tmp_path / "ended").exists()
        await first.close()
        assert (tmp_path / "ended").exists()

    asyncio.run(life())
    assert len(commands.started) == 1
    assert commands.started[0][:3] == [sys.executable, "-m", "holdfast"]


@pytest.mark.contract("B7")
def test_events_are_written_although_the_projector_did_not_start(log, monkeypatch):
    """A projector that ends at once is told with its own words; emit, flush and close go on."""
    monkeypatch.setattr(
        event_logger_module, "_popen", Commands("import sys; sys.exit('error: no deltalake')")
    )
    logger = RiskEventLogger(log, lake="lake")
    with pytest.raises(TradingError, match=r"projector into 'lake' did not start: error: no deltalake"):
        asyncio.run(logger.initialize())
    assert logger.emit(event())
    asyncio.run(logger.close())


def test_a_logger_without_projector_starts_none(log, monkeypatch):
    """With project=False the lake is left to others."""
    commands = Commands(STAND_IN)
    monkeypatch.setattr(event_logger_module, "_popen", commands)
    asyncio.run(RiskEventLogger(log, project=False).initialize())
    assert commands.started == []


@pytest.mark.invariant("I12")
def test_a_record_bears_the_journals_time(tmp_path):
    """The time of an event is the clock's that the journal was given."""
    clock = ManualClock()
    clock.advance(1234)
    with WriteAheadLog(tmp_path / "log", clock=clock, seal=False) as wal:
        RiskEventLogger(AuditLogger(wal), project=False).emit(event())
        wal.sync()
        assert [record.ts for record in wal.records() if record.type == "RISK_EVENT"] == [clock.now_ns()]
    assert SystemClock().now_ns() != clock.now_ns()
