"""The projector: how fresh the lake is, how much it takes in, and what a commit costs after ten thousand.

Freshness is the age of an event when the commit that holds it appeared in the table's log, over every event of a
live journal that a real `holdfast lake project --follow` follows. Sustained is a journal of half a million risk
events projected by one process, from its start to its end, the median of three; by turns with it a control does the
least that can be done with the same lines: pyarrow's reader of JSON, no check, no hash, no Delta, no sync. A commit's CPU is taken with the syncs left out, which cost the
disk's time and none of ours, with upkeep as the projector has it; beside it plain `write_deltalake` with a held table,
as one would write it first, and without upkeep.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.lake import durable
from holdfast.lake.commit import Span, TableWriter
from holdfast.lake.durable import actions_of
from holdfast.lake.maintenance import Maintainer
from holdfast.lake.rows import Row, arrow_of
from holdfast.lake.store import store_of
from holdfast.lake.tables import RiskEventsTable

SECS = 12
SUSTAINED = 500_000
ROUNDS = 3
COMMITS = 10_000
COMMIT_SECS = 90
"""The ten thousand commits are cut off here where the machine is slow; the row says how many there were."""
PLAIN_COMMITS = 600
ROWS = 20
LOG_ID = "ab" * 16


def event(n: int) -> Entry:
    """A trailing stop's update, as `RiskEventLogger` writes it."""
    premium = 20_000 + (n * 2_654_435_761 >> 7) % 4_000
    details = {
        "event_type": "trailing_stop_update", "execution_id": f"exec-{n % 500:06d}", "entry_premium": "2.0000",
        "current_premium": f"{premium / 10_000:.4f}", "highest_premium": "2.4000", "stop_premium": "2.1600",
        "action": "UPDATE", "metadata": {"old_stop": "2.1400"}, "symbol": "SPY",
    }  # fmt: skip
    return Entry("RISK_EVENT", details, "desk", "trailing_stop")


def write_at(directory: Path, rate: int, secs: float) -> int:
    """Append *rate* events a second for *secs*, as evenly as the machine lets; how many."""
    log = WriteAheadLog(directory, clock=SystemClock())
    log.open()
    began, done = time.monotonic(), 0
    while (passed := time.monotonic() - began) < secs:
        due = int(passed * rate) + 1
        if due > done:
            log.append_many([event(n) for n in range(done, due)], level=Level.WRITTEN)
            done = due
        time.sleep(0.002 if rate > 100 else 0.02)
    log.close()
    return done


@contextmanager
def following(log: Path, lake: Path) -> Iterator[None]:
    """A projector that follows *log*, ready before and ended, all committed, behind."""
    words = [
        sys.executable,
        "-m",
        "holdfast",
        "lake",
        "project",
        str(log),
        "--lake",
        str(lake),
        "--follow",
        "--json",
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        yield
        time.sleep(1.5)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def freshness_secs(lake: Path) -> list[float]:
    """For every event of risk_events its age when its commit appeared, sorted."""
    table, ages = lake / "risk_events", []
    for path in (table / "_delta_log").glob("*.json"):
        appeared = path.stat().st_mtime
        for added in (one.add for one in actions_of(path.read_bytes()) if one.add):
            with_rows = pq.read_table(table / added.name, columns=["ts_ns"])
            ages += [appeared - ts / 1e9 for ts in with_rows["ts_ns"].to_pylist()]
    return sorted(ages)


def freshness(rate: int) -> list[dict[str, Any]]:
    """p95 and the worst of the ages at *rate* events a second."""
    with tempfile.TemporaryDirectory(prefix="bench-lake-") as folder:
        log, lake = Path(folder) / "log", Path(folder) / "lake"
        log.mkdir(mode=0o700)
        with following(log, lake):
            count = write_at(log, rate, SECS)
        ages = freshness_secs(lake)
    assert len(ages) == count, f"{len(ages)} of {count} events are in the lake"
    p95 = ages[int(0.95 * len(ages))]
    name = f"freshness p95, {rate:,} events/s"
    return [row(name, p95, "s", f"worst of {count:,}: {ages[-1]:.2f} s", None, "<= 2 s")]


def sustained() -> list[dict[str, Any]]:
    """Events a second of one projector by the clock and by its CPU, and of the control, by turns."""
    with tempfile.TemporaryDirectory(prefix="bench-lake-") as folder:
        log = Path(folder) / "log"
        wal = WriteAheadLog(log, clock=SystemClock(), seal=False)
        wal.open()
        for first in range(0, SUSTAINED, 2_000):
            wal.append_many([event(n) for n in range(first, first + 2_000)], level=Level.WRITTEN)
        wal.close()
        ours: list[tuple[float, float]] = []
        plain: list[tuple[float, float]] = []
        for number in range(ROUNDS):
            lake, parquet = f"{folder}/lake-{number}", f"{folder}/plain-{number}"
            project = [
                "-m",
                "holdfast",
                "lake",
                "project",
                str(log),
                "--lake",
                lake,
                "--json",
                "--no-maintenance",
            ]
            said, *took = timed(project)
            assert json.loads(said)["covered"] >= SUSTAINED
            ours.append((took[0], took[1]))
            said, *took = timed([__file__, "--control", str(log), parquet])
            assert int(said) == SUSTAINED
            plain.append((took[0], took[1]))
    clock, cpu = (SUSTAINED / median(one[at] for one in ours) for at in (0, 1))
    plain_clock, plain_cpu = (SUSTAINED / median(one[at] for one in plain) for at in (0, 1))
    best = SUSTAINED / min(secs for secs, _ in ours)
    return [
        row("sustained, one projector", clock, "events/s", f"best of {ROUNDS}: {best:,.0f}", clock / plain_clock, ">= 100,000"),
        row("sustained, by its CPU, start included", cpu, "events/s", "", cpu / plain_cpu, ""),
        row("control: json to parquet, no Delta", plain_clock, "events/s", f"by its CPU {plain_cpu:,.0f}", None, ""),
    ]  # fmt: skip


def timed(words: list[str]) -> tuple[str, float, float]:
    """What a Python process said, its seconds by the clock and its seconds of CPU."""
    began, cpu = time.perf_counter(), children_cpu_secs()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    return done.stdout, time.perf_counter() - began, children_cpu_secs() - cpu


def control(log: Path, out: Path) -> int:
    """The least that could be done with the same lines: pyarrow reads them, checks nothing, and writes Parquet files."""
    import pyarrow.compute as pc
    from pyarrow import json as pa_json

    from holdfast.lake.encodings import parquet_options

    out.mkdir()
    rows = 0
    for number, path in enumerate(sorted(log.glob("audit_*.log"))):
        lines = pa_json.read_json(path, pa_json.ReadOptions(block_size=1 << 20))
        lines = lines.filter(pc.equal(lines["type"], "RISK_EVENT"))
        details = lines["details"].combine_chunks()
        table = lines.drop_columns(["details", "crc"])
        for name in (field.name for field in details.type if field.name in RiskEventsTable.column_names()):
            column = details.field(name)
            if name == "metadata":
                column = column.field(0)
            table = table.append_column(name, column)
        for first in range(0, len(table), 50_000):
            options = parquet_options(table.column_names)
            pq.write_table(table.slice(first, 50_000), out / f"{number}-{first}.parquet", **options)
        rows += len(table)
    return rows


def children_cpu_secs() -> float:
    """CPU of the processes that ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rows_of(number: int) -> list[Row]:
    """The rows of commit *number*."""
    made: list[Row] = []
    for at in range(ROWS):
        seq = number * ROWS + at + 1
        ts = 1_763_634_000 * 10**9 + seq * 10**6
        made.append(
            (
                f"{LOG_ID}/000000000001/{seq:012d}", "trailing_stop_update", "trailing_stop", ts // 1000,
                f"exec-{seq % 500:06d}", None, None, None, 2.0, 2.1, 2.4, 2.16, "UPDATE", None, None, None, None, None,
                "{}", LOG_ID, 1, seq, ts, ts // (86_400 * 10**9), "SPY", None, None, None, None, None, 1,
            )
        )  # fmt: skip
    return made


def cpu_ms(commit: Callable[[int], None], commits: int, most_secs: float) -> list[float]:
    """CPU of each commit, as many as fit into *most_secs*."""
    taken, began = [], time.monotonic()
    for number in range(commits):
        if time.monotonic() - began > most_secs:
            break
        start = time.process_time()
        commit(number)
        taken.append((time.process_time() - start) * 1e3)
    return taken


def commit_cost() -> list[dict[str, Any]]:
    """The mean CPU of the last hundred commits over the first hundred, ours and the plain way."""
    folder = Path(tempfile.mkdtemp(prefix="bench-lake-"))
    fsync = os.fsync
    durable.os.fsync = lambda _: None
    try:
        store = store_of(str(folder / "lake"))
        store.prove()
        writer = TableWriter(store, RiskEventsTable, clock=SystemClock())
        upkeep = Maintainer(store, clock=SystemClock(), order_apart=True)
        writer.open()

        def ours(number: int) -> None:
            first = number * ROWS + 1
            leaves = [bytes(32)] * ROWS
            rows = arrow_of(RiskEventsTable, rows_of(number))
            writer.commit(rows, [Span(LOG_ID, first, first + ROWS - 1, 1, leaves, bytes(32))])
            writer.tidy()
            if upkeep.after_commit("risk_events", writer.handle):
                writer.open()

        own = cpu_ms(ours, COMMITS, COMMIT_SECS)
        upkeep.close()
        plain_table = DeltaTable.create(
            folder / "plain", RiskEventsTable.schema(), partition_by=["event_date"]
        )

        def plain(number: int) -> None:
            write_deltalake(plain_table, arrow_of(RiskEventsTable, rows_of(number)), mode="append")

        beside = cpu_ms(plain, PLAIN_COMMITS, COMMIT_SECS / 3)
    finally:
        durable.os.fsync = fsync
        shutil.rmtree(folder)

    def growth(taken: list[float]) -> tuple[float, float]:
        return sum(taken[:100]) / 100, sum(taken[-100:]) / 100

    (first, last), (plain_first, plain_last) = growth(own), growth(beside)
    return [
        row(f"append CPU after {len(own):,} commits", last, "ms", f"first 100: {first:.1f}", last / first, "<= 2 x"),
        row(f"plain write_deltalake after {len(beside):,}", plain_last, "ms", f"first 100: {plain_first:.1f}", plain_last / plain_first, ""),
        row("append CPU, median of all", median(own), "ms", f"{ROWS} rows each", None, ""),
    ]  # fmt: skip


def row(name: str, value: float, unit: str, beside: str, ratio: float | None, bar: str) -> dict[str, Any]:  # noqa: PLR0917  a row
    """A row of the table."""
    return {"name": name, "value": value, "unit": unit, "beside": beside, "ratio": ratio, "bar": bar}


def run() -> list[dict[str, Any]]:
    """Every row."""
    return [*freshness(10), *freshness(10_000), *sustained(), *commit_cost()]


if __name__ == "__main__" and sys.argv[1:2] == ["--control"]:
    print(control(Path(sys.argv[2]), Path(sys.argv[3])))
elif __name__ == "__main__":
    for one in run():
        print(one)
