"""The journal against the disk below it.

Every durable figure stands beside a raw pwrite + fdatasync of a line of the same length into a preallocated,
newline-filled file, sampled in turn with it in the same run, because a shared disk changes from second to
second. The log signs, as a running one does; `--unsigned` leaves that out, to see what it costs.
`python benches/bench_journal.py [DIR] [--unsigned]` prints the table; `run()` returns it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from holdfast.audit import recovery
from holdfast.audit.format import FILLER
from holdfast.audit.keys import KeyHome
from holdfast.audit.storage import LocalStorage
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import SystemClock

ROUNDS = 30
DETAILS = {
    "order_id": "hf-0123456789abcdef",
    "client_order_id": "hf-0123456789abcdef",
    "strategy": "maker-1",
    "ticker": "KXNBAGAME-26MAR07GSWOKC-GSW",
    "side": "yes",
    "order_type": "limit",
    "quantity": "10.00",
    "price": "0.5600",
    "tif": "ioc",
    "reserved": "5.60",
    "fee_bound": "0.18",
    "decision": 48211,
}


def percentile(samples: list[float], share: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Raw:
    """The physical limit: one line, one pwrite, one fdatasync."""

    def __init__(self, directory: Path, line_bytes: int) -> None:
        self.fd = os.open(directory / "raw", os.O_CREAT | os.O_RDWR)
        for offset in range(0, 64 << 20, 1 << 20):
            os.pwrite(self.fd, FILLER * (1 << 20), offset)
        os.fsync(self.fd)
        self.line = b"x" * (line_bytes - 1) + FILLER
        self.offset = 0

    def append(self, lines: int = 1) -> float:
        data = self.line * lines
        start = time.perf_counter_ns()
        os.pwrite(self.fd, data, self.offset)
        os.fdatasync(self.fd)
        took = time.perf_counter_ns() - start
        self.offset = (self.offset + len(data)) % (48 << 20)
        return took


def one_caller(log: WriteAheadLog, raw: Raw) -> list[dict]:
    ratios, ours_all, raw_all = [], [], []
    for _ in range(ROUNDS):
        ours, beside = [], []
        for _ in range(40):
            beside.append(raw.append())
            start = time.perf_counter_ns()
            log.append("ORDER", DETAILS, user="bench", component="bench")
            ours.append(time.perf_counter_ns() - start)
        ratios.append(percentile(ours, 0.5) / percentile(beside, 0.5))
        ours_all += ours
        raw_all += beside
    return [
        {
            "name": "durable append, one synchronous caller, p50",
            "value": percentile(ours_all, 0.5) / 1e3,
            "unit": "us",
            "beside": f"raw fdatasync {percentile(raw_all, 0.5) / 1e3:.0f} us",
            "ratio": median(ratios),
            "bar": "<= 1.25",
        },
        {
            "name": "durable append, one synchronous caller, p99",
            "value": percentile(ours_all, 0.99) / 1e3,
            "unit": "us",
            "beside": f"raw fdatasync {percentile(raw_all, 0.99) / 1e3:.0f} us",
            "ratio": percentile(ours_all, 0.99) / percentile(raw_all, 0.99),
            "bar": "<= 2",
        },
    ]


def many_threads(log: WriteAheadLog, raw: Raw, threads: int = 64, each: int = 60) -> dict:
    rates, beside = [], []
    for _ in range(5):
        beside += [raw.append(threads) for _ in range(20)]
        barrier = threading.Barrier(threads + 1)

        def work(barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for _ in range(each):
                log.append("ORDER", DETAILS, user="bench", component="bench")

        pool = [threading.Thread(target=work) for _ in range(threads)]
        for thread in pool:
            thread.start()
        barrier.wait()
        start = time.perf_counter()
        for thread in pool:
            thread.join()
        rates.append(threads * each / (time.perf_counter() - start))
    limit = threads / (percentile(beside, 0.5) / 1e9)
    return {
        "name": "durable append, 64 threads",
        "value": median(rates),
        "unit": "records/s",
        "beside": f"raw, {threads} lines per fdatasync: {limit:,.0f} records/s",
        "ratio": median(rates) / limit,
        "bar": "",
    }


def many_tasks(log: WriteAheadLog, raw: Raw, tasks: int = 64, each: int = 300) -> list[dict]:
    rates: list[float] = []
    stalls: list[float] = []
    idle_stalls: list[float] = []
    beside: list[float] = []

    async def work() -> None:
        for _ in range(each):
            await log.append_async("ORDER", DETAILS, user="bench", component="bench")

    async def watch(done: asyncio.Event, into: list[float]) -> None:
        loop = asyncio.get_running_loop()
        while not done.is_set():
            due = loop.time() + 0.001
            await asyncio.sleep(0.001)
            into.append(max(0.0, loop.time() - due) * 1e9)

    async def measure() -> None:
        done = asyncio.Event()
        watcher = asyncio.create_task(watch(done, stalls))
        start = time.perf_counter()
        await asyncio.gather(*[work() for _ in range(tasks)])
        rates.append(tasks * each / (time.perf_counter() - start))
        done.set()
        await watcher
        # What this machine does to a loop that only sleeps, at the same moment.
        done = asyncio.Event()
        watcher = asyncio.create_task(watch(done, idle_stalls))
        await asyncio.sleep(0.3)
        done.set()
        await watcher

    for _ in range(5):
        beside += [raw.append(tasks) for _ in range(20)]
        asyncio.run(measure())
    idle = percentile(idle_stalls, 0.99)
    limit = tasks / (percentile(beside, 0.5) / 1e9)
    return [
        {
            "name": "durable append, 64 tasks",
            "value": median(rates),
            "unit": "records/s",
            "beside": f"raw, {tasks} lines per fdatasync: {limit:,.0f} records/s",
            "ratio": median(rates) / limit,
            "bar": ">= 100000 records/s",
        },
        {
            "name": "event loop stall with 64 tasks appending, p99",
            "value": percentile(stalls, 0.99) / 1e3,
            "unit": "us",
            "beside": f"the same for an idle loop {idle / 1e3:,.0f} us",
            "ratio": percentile(stalls, 0.99) / idle,
            "bar": "<= 1000 us",
        },
    ]


def buffered(log: WriteAheadLog) -> dict:
    costs = []
    for _ in range(10):
        start = time.perf_counter_ns()
        for _ in range(5000):
            log.append("ORDER", DETAILS, user="bench", component="bench", level=Level.BUFFERED)
        costs.append((time.perf_counter_ns() - start) / 5000)
        log.sync()
    encode = []
    import msgspec

    encoder = msgspec.json.Encoder()
    for _ in range(10):
        start = time.perf_counter_ns()
        for _ in range(5000):
            encoder.encode(DETAILS)
        encode.append((time.perf_counter_ns() - start) / 5000)
    return {
        "name": "buffered append, 12 fields",
        "value": median(costs) / 1e3,
        "unit": "us",
        "beside": f"msgspec encoding alone {median(encode) / 1e3:.2f} us",
        "ratio": median(costs) / median(encode),
        "bar": "",
    }


def written(log: WriteAheadLog, raw: Raw) -> dict:
    ours, beside = [], []
    for _ in range(3000):
        start = time.perf_counter_ns()
        os.pwrite(raw.fd, raw.line, raw.offset)
        beside.append(time.perf_counter_ns() - start)
        start = time.perf_counter_ns()
        log.append("ORDER", DETAILS, user="bench", component="bench", level=Level.WRITTEN)
        ours.append(time.perf_counter_ns() - start)
    return {
        "name": "written append, kill -9 safe, p50",
        "value": percentile(ours, 0.5) / 1e3,
        "unit": "us",
        "beside": f"raw pwrite {percentile(beside, 0.5) / 1e3:.1f} us",
        "ratio": percentile(ours, 0.5) / percentile(beside, 0.5),
        "bar": "",
    }


def ingest(log: WriteAheadLog, raw: Raw) -> dict:
    batch = [Entry("ORDER", DETAILS, "bench", "bench")] * 1024
    ours, beside = [], []
    for _ in range(60):
        beside.append(raw.append(1024))
        start = time.perf_counter_ns()
        log.append_many(batch)
        ours.append(time.perf_counter_ns() - start)
    return {
        "name": "ingest, batches of 1024, everything on",
        "value": 1024e9 / percentile(ours, 0.5),
        "unit": "records/s",
        "beside": f"raw {1024e9 / percentile(beside, 0.5):,.0f} records/s",
        "ratio": percentile(beside, 0.5) / percentile(ours, 0.5),
        "bar": ">= 250000 records/s",
    }


def open_log(directory: Path, *, signed: bool = True) -> WriteAheadLog:
    """A log as a desk opens it, but for sealing; its keys lie beside it."""
    keys = KeyHome(directory.parent / "keys") if signed else None
    return WriteAheadLog(directory, clock=SystemClock(), seal=False, keys=keys)


def recovery_after_a_full_segment(directory: Path) -> list[dict]:
    """Of a log whose writer died, from its last checkpoint and, without the high-water mark, from its start."""
    child = os.fork()
    if not child:
        log = open_log(directory)
        batch = [Entry("ORDER", DETAILS, "bench", "bench")] * 4096
        while log._segment.end < 97_000_000:
            log.append_many(batch)
        os._exit(0)
    os.waitpid(child, 0)
    handle = LocalStorage().directory(directory, create=False)
    name = next(entry for entry in handle.names() if entry.endswith(".log"))
    start = time.perf_counter()
    file = handle.open(name)
    size = len(recovery.read_all(file))
    file.close()
    reading = time.perf_counter() - start
    handle.close()
    rows = []
    for how in ("from its last checkpoint", "of a segment"):
        twin = directory.with_name(how[:2])
        shutil.copytree(directory, twin)
        if how == "of a segment":
            next((directory.parent / "keys").glob("logs/*/high-water")).unlink()
        start = time.perf_counter()
        log = open_log(twin)
        log.open()
        took = time.perf_counter() - start
        rows.append(
            {
                "name": f"recovery {how}, {size / 1e6:.0f} MB, {log.last_seq:,} records",
                "value": took,
                "unit": "s",
                "beside": f"reading it {reading:.2f} s",
                "ratio": took / reading,
                "bar": "<= 0.05 s" if "checkpoint" in how else "<= 1 s",
            }
        )
        start = time.perf_counter()
        log.close()
        rows[-1]["beside"] += f"; its close {time.perf_counter() - start:.2f} s"
    return rows


def run(directory: str | None = None, *, signed: bool = True) -> list[dict]:
    """Measure everything; each row has name, value, unit, beside, ratio and bar."""
    home = Path(tempfile.mkdtemp(prefix="bench-journal-", dir=directory))
    try:
        with open_log(home / "log", signed=signed) as log:
            log.append("ORDER", DETAILS, user="bench", component="bench")
            length = log._segment.end
            log.append("ORDER", DETAILS, user="bench", component="bench")
            raw = Raw(home, log._segment.end - length)
            rows = one_caller(log, raw)
            rows.append(many_threads(log, raw))
            rows += many_tasks(log, raw)
            rows.append(buffered(log))
            rows.append(written(log, raw))
            rows.append(ingest(log, raw))
            os.close(raw.fd)
        if signed:
            rows += recovery_after_a_full_segment(home / "full")
        return rows
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--unsigned"]
    for row in run(words[0] if words else None, signed="--unsigned" not in sys.argv):
        print(
            f"{row['name']:52} {row['value']:12,.2f} {row['unit']:10} x {row['ratio']:6.2f}  {row['bar']:22} {row['beside']}"
        )
