"""What sealing a full segment does to the appends beside it.

One synchronous caller appends durably while the child process compresses, indexes and proves a segment of 100 MB,
and without; both in turn, so that the disk's moods fall on both.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench_journal import DETAILS, percentile

from holdfast.audit.seal import Sealer
from holdfast.audit.storage import LocalStorage
from holdfast.audit.wal import Entry, WriteAheadLog
from holdfast.core.clock import SystemClock

ROUNDS = 3
SEGMENT_BYTES = 97_000_000


def full_segment(directory: Path) -> str:
    """A log with one closed segment of nearly 100 MB; the segment's name."""
    with WriteAheadLog(directory, clock=SystemClock(), seal=False) as log:
        batch = [Entry("ORDER", DETAILS, "bench", "bench")] * 4096
        while log._segment.end < SEGMENT_BYTES:
            log.append_many(batch)
    return next(path.name for path in directory.glob("audit_*.log"))


def appends(log: WriteAheadLog, goes_on: Callable[[int], bool]) -> list[float]:
    took = []
    while goes_on(len(took)):
        start = time.perf_counter_ns()
        log.append("ORDER", DETAILS, user="bench", component="bench")
        took.append(time.perf_counter_ns() - start)
    return took


def appends_beside_a_seal(log: WriteAheadLog, directory: Path, name: str) -> tuple[list[float], float]:
    """The appends made until the segment is sealed, and how long that took, seconds."""
    handle = LocalStorage().directory(directory, create=False)
    sealed: list[str] = []

    def append(type_: str, _: dict) -> int:
        sealed.append(type_)
        return 1

    sealer = Sealer(handle, append)
    start = time.perf_counter()
    sealer.rotated(name)
    during = appends(log, lambda _: not sealed and not sealer.failures)
    took = time.perf_counter() - start
    sealer.close()
    handle.close()
    assert not sealer.failures, sealer.failures
    return during, took


def run() -> list[dict]:
    home = Path(tempfile.mkdtemp(prefix="bench-seal-"))
    quiet: list[float] = []
    busy: list[float] = []
    ratios: list[float] = []
    seals: list[float] = []
    try:
        with WriteAheadLog(home / "log", clock=SystemClock(), seal=False) as log:
            log.append("ORDER", DETAILS, user="bench", component="bench")
            for number in range(ROUNDS):
                name = full_segment(home / f"full-{number}")
                before = appends(log, lambda done: done < 4000)
                during, took = appends_beside_a_seal(log, home / f"full-{number}", name)
                shutil.rmtree(home / f"full-{number}")
                ratios.append(percentile(during, 0.99) / percentile(before, 0.99))
                seals.append(took)
                quiet += before
                busy += during
    finally:
        shutil.rmtree(home)
    return [
        {
            "name": "durable append while a segment of 97 MB is sealed, p99",
            "value": percentile(busy, 0.99) / 1e3,
            "unit": "us",
            "beside": f"without sealing {percentile(quiet, 0.99) / 1e3:.0f} us"
            f" (p50 {percentile(busy, 0.5) / 1e3:.0f} beside {percentile(quiet, 0.5) / 1e3:.0f} us)",
            "ratio": median(ratios),
            "bar": "<= 2 x",
        },
        {
            "name": "sealing it: compress, index, prove equal",
            "value": median(seals),
            "unit": "s",
            "beside": "in a process of its own",
            "ratio": None,
            "bar": "",
        },
    ]
