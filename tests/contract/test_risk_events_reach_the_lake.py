"""From a stop's decision to a row of the Delta table, with the real projector in its own process."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from holdfast.audit.logger import AuditLogger
from holdfast.audit.projected import is_projected, read_note
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.risk.event_logger import RiskEventLogger
from holdfast.risk.stop_manager import TrailingStopManager

pl = pytest.importorskip("polars")
pytest.importorskip("deltalake")

TRADER = """
import asyncio, sys, time
from pathlib import Path
from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.risk.event_logger import RiskEventLogger
from holdfast.risk.stop_manager import TrailingStopManager

async def trade(where):
    logger = RiskEventLogger(AuditLogger(WriteAheadLog(where / "audit", clock=SystemClock(), seal=False)), lake=str(where / "lake"))
    await logger.initialize()
    manager = TrailingStopManager(logger)
    for number in range(20):
        manager.add_trailing_stop(str(number), 100.0)
    await logger.flush()
    print("ready", flush=True)
    time.sleep(60)

asyncio.run(trade(Path(sys.argv[1])))
"""


def rows(lake):
    return pl.read_delta(str(lake / "risk_events")).sort("seq")


@pytest.mark.contract("B7")
@pytest.mark.contract("B8")
@pytest.mark.invariant("I10")
def test_every_event_is_in_the_table_when_close_returns(tmp_path):
    """initialize, three stops, close: the table holds each event once, with its premiums in dollars."""

    async def trade(audit):
        logger = RiskEventLogger(audit, lake=str(tmp_path / "lake"))
        await logger.initialize()
        assert is_projected(tmp_path / "audit", str(tmp_path / "lake"))
        note = read_note(tmp_path / "audit", str(tmp_path / "lake"))
        assert os.getpgid(note.pid) != os.getpgid(0), (
            "Ctrl-C at the terminal would end it before the last event"
        )
        manager = TrailingStopManager(logger)
        for name in "abc":
            manager.add_trailing_stop(name, 100.0, symbol="SPY")
        await manager.update_stops({"a": 103.0, "b": 101.0})
        await manager.update_stops({"a": 101.0})
        manager.remove_stop("a")
        await logger.close()

    with WriteAheadLog(tmp_path / "audit", clock=SystemClock(), seal=False) as wal:
        asyncio.run(trade(AuditLogger(wal)))
    assert not is_projected(tmp_path / "audit", str(tmp_path / "lake"))
    told = rows(tmp_path / "lake")
    assert told.select("event_type", "execution_id", "stop_premium").rows() == [
        *(("trailing_stop_add", name, None) for name in "abc"),
        ("trailing_stop_activate", "a", 101.455),
        ("trailing_stop_trigger", "a", 101.455),
        ("trailing_stop_remove", "a", 101.455),
    ]
    assert told["event_id"].n_unique() == 6


@pytest.mark.slow
@pytest.mark.contract("B7")
@pytest.mark.invariant("I10")
def test_a_killed_trader_leaves_its_events_in_the_table_and_no_projector(tmp_path):
    """After kill -9 the projector brings what was flushed and ends by itself."""
    trader = subprocess.Popen([sys.executable, "-c", TRADER, tmp_path], stdout=subprocess.PIPE)
    assert trader.stdout.readline() == b"ready\n"
    os.kill(trader.pid, signal.SIGKILL)
    trader.wait()
    trader.stdout.close()
    end = time.monotonic() + 30
    while is_projected(tmp_path / "audit", str(tmp_path / "lake")):
        assert time.monotonic() < end, "the projector goes on without anybody"
        time.sleep(0.02)
    assert len(rows(tmp_path / "lake")) == 20
