"""Durable appends beside sqlite3 and the standard library's logging, each as careful as it can be.

sqlite3 runs with WAL and synchronous=FULL, one insert per transaction into a table with the two indexes that the
log's queries need; logging writes a JSON line and syncs the file. All write the same record, in turn.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench_journal import DETAILS, percentile

from holdfast.audit.keys import KeyHome
from holdfast.audit.wal import Entry, WriteAheadLog
from holdfast.core.clock import SystemClock

ROUNDS = 20
BATCH = 64


def sqlite(path: Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=FULL")
    base.execute(
        "CREATE TABLE log (seq INTEGER PRIMARY KEY, ts INTEGER, type TEXT, user TEXT, component TEXT, details TEXT)"
    )
    base.execute("CREATE INDEX by_type ON log (type, user, ts)")
    base.execute("CREATE INDEX by_time ON log (ts)")
    return base


def insert(base: sqlite3.Connection, count: int = 1) -> None:
    base.execute("BEGIN IMMEDIATE")
    for _ in range(count):
        base.execute(
            "INSERT INTO log (ts, type, user, component, details) VALUES (?, ?, ?, ?, ?)",
            (time.time_ns(), "ORDER", "bench", "bench", json.dumps(DETAILS)),
        )
    base.execute("COMMIT")


class SyncedFile(logging.FileHandler):
    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        os.fsync(self.stream.fileno())


def rounds(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Each call 40 times in each round, one behind the other; nanoseconds."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS * 40):
        for name, call in calls.items():
            start = time.perf_counter_ns()
            call()
            took[name].append(time.perf_counter_ns() - start)
    return took


def run() -> list[dict]:
    home = Path(tempfile.mkdtemp(prefix="bench-append-"))
    try:
        base = sqlite(home / "peer.db")
        handler = SyncedFile(home / "peer.log")
        logger = logging.Logger("peer")  # noqa: LOG001  of this bench alone
        logger.addHandler(handler)
        with WriteAheadLog(home / "log", clock=SystemClock(), keys=KeyHome(home / "keys"), seal=False) as log:
            took = rounds(
                {
                    "ours": lambda: log.append("ORDER", DETAILS, user="bench", component="bench"),
                    "sqlite": lambda: insert(base),
                    "logging": lambda: logger.info(json.dumps(DETAILS)),
                }
            )
            batch = [Entry("ORDER", DETAILS, "bench", "bench")] * BATCH
            many = rounds({"ours": lambda: log.append_many(batch), "sqlite": lambda: insert(base, BATCH)})
        base.close()
        handler.close()
    finally:
        shutil.rmtree(home)
    return [
        *(row(f"durable append of one record, p50, {name}", took, name, 1) for name in ("sqlite", "logging")),
        row(f"durable append of {BATCH} records, per record, sqlite", many, "sqlite", BATCH),
    ]


def row(name: str, took: dict[str, list[float]], peer: str, records: int) -> dict:
    ours, theirs = (percentile(took[one], 0.5) / records / 1e3 for one in ("ours", peer))
    return {
        "name": name,
        "value": ours,
        "unit": "us",
        "beside": f"{peer} {theirs:.1f} us",
        "ratio": median(b / a for a, b in zip(took["ours"], took[peer], strict=True)),
        "bar": "peer / ours",
    }
