"""What a risk event costs the trading process: its own time, the stall of the event loop, the memory.

A risk event is an UPDATE of a trailing stop with four premiums, every one another. It stands beside a bare pwrite of a
line of the same length, sampled in turn with it. The log signs, as a running one does. The loop emits 10,000 events a
second in bursts of ten every millisecond, beside seconds in which it only sleeps; the memory is that of two processes
with the same journal and the same stops, one of which has an event logger.
`python benches/bench_risk_event.py [DIR]` prints the table; `run()` returns it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from holdfast.audit.format import FILLER
from holdfast.audit.keys import KeyHome
from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.risk.event_logger import RiskEventLogger
from holdfast.risk.events import RiskEvent, RiskEventType

ROUNDS = 20
EACH = 1500
RATE = 10_000
SECS = 1.5


def event(number: int, metadata: dict | None = None) -> RiskEvent:
    return RiskEvent(
        event_type=RiskEventType.TRAILING_STOP_UPDATE,
        component="trailing_stop",
        execution_id=f"ic-20261121-{number % 300:04d}",
        old_state="trailing",
        new_state="trailing",
        entry_premium=1_000_000 + number % 300,
        current_premium=1_050_000 + 17 * number,
        highest_premium=1_050_000 + 17 * number,
        stop_premium=1_034_250 + 13 * number,
        action="UPDATE",
        metadata=metadata or {},
        symbol="SPY",
    )


def percentile(samples: list[float], share: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Raw:
    """The physical limit: the same bytes, one pwrite, into a file that the disk has given already."""

    def __init__(self, directory: Path, line_bytes: int) -> None:
        self.fd = os.open(directory / "raw", os.O_CREAT | os.O_RDWR)
        for offset in range(0, 64 << 20, 1 << 20):
            os.pwrite(self.fd, FILLER * (1 << 20), offset)
        os.fsync(self.fd)
        self.line = b"x" * (line_bytes - 1) + FILLER
        self.offset = 0

    def write(self) -> int:
        start = time.perf_counter_ns()
        os.pwrite(self.fd, self.line, self.offset)
        took = time.perf_counter_ns() - start
        self.offset = (self.offset + len(self.line)) % (48 << 20)
        return took


def line_bytes(log: WriteAheadLog) -> int:
    log.sync()
    (segment,) = log.directory.glob("audit_*.log")
    return len(segment.read_bytes().rstrip(FILLER).rsplit(FILLER, 1)[1]) + 1


def one_event(log: WriteAheadLog, logger: RiskEventLogger, directory: Path) -> list[dict]:
    logger.emit(event(0))
    raw = Raw(directory, line_bytes(log))
    ratios, ours_all, raw_all, named, number = [], [], [], [], 0
    for _ in range(ROUNDS):
        ours, beside = [], []
        for _ in range(EACH):
            number += 1
            one = event(number)
            beside.append(raw.write())
            start = time.perf_counter_ns()
            logger.emit(one)
            ours.append(time.perf_counter_ns() - start)
        ratios.append(percentile(ours, 0.5) / percentile(beside, 0.5))
        ours_all += ours
        raw_all += beside
        for _ in range(EACH // 5):
            number += 1
            one = event(number, {"reason": "5 failures in 60 s", "retry_after_secs": 60.0})
            start = time.perf_counter_ns()
            logger.emit(one)
            named.append(time.perf_counter_ns() - start)
    os.close(raw.fd)
    return [
        {
            "name": "risk event, kill-9 safe, p50",
            "value": percentile(ours_all, 0.5) / 1e3,
            "unit": "us",
            "beside": f"bare pwrite of its {len(raw.line)} bytes {percentile(raw_all, 0.5) / 1e3:.2f} us",
            "ratio": median(ratios),
            "bar": "<= 3.5",
        },
        {
            "name": "risk event, kill-9 safe, p99",
            "value": percentile(ours_all, 0.99) / 1e3,
            "unit": "us",
            "beside": f"bare pwrite {percentile(raw_all, 0.99) / 1e3:.2f} us",
            "ratio": percentile(ours_all, 0.99) / percentile(raw_all, 0.99),
            "bar": "",
        },
        {
            "name": "risk event with metadata, kill-9 safe, p50",
            "value": percentile(named, 0.5) / 1e3,
            "unit": "us",
            "beside": f"bare pwrite {percentile(raw_all, 0.5) / 1e3:.2f} us",
            "ratio": percentile(named, 0.5) / percentile(raw_all, 0.5),
            "bar": "",
        },
    ]


async def lateness(secs: float, work) -> list[float]:
    """How late a loop wakes that sleeps for a millisecond and calls *work* in between."""
    loop, late = asyncio.get_running_loop(), []
    end = loop.time() + secs
    while (now := loop.time()) < end:
        await asyncio.sleep(0.001)
        late.append(max(0.0, loop.time() - now - 0.001) * 1e9)
        work()
    return late


async def lateness_beside(secs: float, work) -> list[float]:
    """How late a task wakes that only sleeps, while another one calls *work* every millisecond."""
    loop = asyncio.get_running_loop()

    async def worker() -> None:
        due = loop.time()
        while True:
            due += 0.001
            await asyncio.sleep(max(0.0, due - loop.time()))
            work()

    task = asyncio.create_task(worker())
    late = await lateness(secs, lambda: None)
    task.cancel()
    return late


def stall(logger: RiskEventLogger) -> list[dict]:
    emitted = 0

    def burst() -> None:
        nonlocal emitted
        for _ in range(RATE // 1000):
            emitted += 1
            logger.emit(event(emitted))

    idle: list[float] = []
    busy: list[float] = []
    start_busy = 0.0
    for _ in range(6):
        idle += asyncio.run(lateness_beside(SECS, lambda: None))
        start = time.perf_counter()
        busy += asyncio.run(lateness_beside(SECS, burst))
        start_busy += time.perf_counter() - start
    rate = emitted / start_busy
    rows = []
    for share, name, bar in ((0.5, "p50", ""), (0.99, "p99", ""), (0.999, "p99.9", "<= 1000 us")):
        added = percentile(busy, share) - percentile(idle, share)
        rows.append(
            {
                "name": f"event loop stall added by {rate:,.0f} events/s, {name}",
                "value": added / 1e3,
                "unit": "us",
                "beside": f"the same loop idle {percentile(idle, share) / 1e3:,.0f} us",
                "ratio": None,
                "bar": bar,
            }
        )
    return rows


CHILD = """
import asyncio, sys, time
from pathlib import Path
from holdfast.audit.keys import KeyHome
from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.risk.stop_manager import TrailingStopManager
where, with_events = Path(sys.argv[1]), sys.argv[2] == "1"
wal = WriteAheadLog(where / "log", clock=SystemClock(), keys=KeyHome(where / "keys"), seal=False)
audit = AuditLogger(wal)
audit.record("CONFIG", {})
logger = None
if with_events:
    from holdfast.risk.event_logger import RiskEventLogger
    logger = RiskEventLogger(audit, project=False)
manager = TrailingStopManager(logger)
for number in range(100):
    manager.add_trailing_stop(str(number), 100)
price, acted = 1_030_000, 0
for _ in range(1000):
    manager.update_prices(dict.fromkeys(manager.stops, price))
    price += price // 100
    if price > 10**9:
        price = 1_030_000
        for name in manager.stops:
            manager.reset_stop(name)
wal.sync()
time.sleep(0.3)
print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1], wal.last_seq)
wal.close()
"""


def memory(directory: Path) -> dict:
    taken: dict[str, list[int]] = {"0": [], "1": []}
    events = 0
    for number in range(4):
        for with_events in ("0", "1"):
            where = directory / f"memory-{number}-{with_events}"
            where.mkdir()
            done = subprocess.run(
                [sys.executable, "-c", CHILD, where, with_events], capture_output=True, text=True, check=True
            )
            kilobytes, seq = done.stdout.split()
            taken[with_events].append(int(kilobytes))
            events = max(events, int(seq))
            shutil.rmtree(where)
    without, with_logger = (median(taken[one]) / 1024 for one in ("0", "1"))
    return {
        "name": f"memory of the trading process after {events:,} events",
        "value": with_logger - without,
        "unit": "MB",
        "beside": f"the same process without an event logger {without:.1f} MB",
        "ratio": None,
        "bar": "<= 5 MB",
    }


def run(directory: Path | None = None) -> list[dict]:
    with tempfile.TemporaryDirectory(dir=directory) as made:
        where = Path(made)
        with WriteAheadLog(
            where / "log", clock=SystemClock(), keys=KeyHome(where / "keys"), seal=False
        ) as log:
            logger = RiskEventLogger(AuditLogger(log), project=False)
            rows = one_event(log, logger, where) + stall(logger)
        return [*rows, memory(where)]


if __name__ == "__main__":
    for row in run(Path(sys.argv[1]) if len(sys.argv) > 1 else None):
        print(row)
