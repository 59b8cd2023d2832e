"""Questions to ten million risk events, ordered by maintenance; bytes for each; how fast a lake is made anew.

The lake holds ten days of a million events (lake_events.py), written day by day in the log's order, then ordered by
`Maintainer` as closed days are. It is made once and kept under build/bench-lake. Each answer is compared between
DuckDB (as `lake sql` asks) and Polars before it is timed. Warm is the median of 15 repetitions of the whole way:
the newest version is opened, the view made, the question asked.

What Polars takes for the group-by is held, round by round, against one plain Parquet file of the same rows that Polars
wrote with its own defaults, and against the column in memory: what the lake's layout costs is the difference.

`python benches/bench_lake_query.py` prints the table; `run()` returns it.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

HOME = Path(__file__).resolve().parent.parent / "build" / "bench-lake"
VERSION = "2"
DAYS, ROWS = 10, 1_000_000
ROUNDS = 15
DAY = dt.date(2025, 11, 12)
FROM = dt.datetime(2025, 11, 12, 16, tzinfo=dt.UTC)
UNTIL = FROM + dt.timedelta(minutes=10)
EXECUTION = "exec-00008705"
REBUILD_RECORDS = 200_000


def made() -> Path:
    """The lake, made where it is missing."""
    done = HOME / "done"
    if done.exists() and done.read_text() == VERSION:
        return HOME / "lake"
    shutil.rmtree(HOME, ignore_errors=True)
    print(f"  making {HOME.name}: {DAYS * ROWS:,} events, once", file=sys.stderr)
    _make(HOME / "lake")
    done.write_text(VERSION)
    return HOME / "lake"


def _make(lake: Path) -> None:
    import lake_events
    from deltalake import DeltaTable, Schema, write_deltalake

    from holdfast.core.clock import SystemClock
    from holdfast.lake.due import MaintenancePolicy
    from holdfast.lake.encodings import delta_properties
    from holdfast.lake.maintenance import Maintainer
    from holdfast.lake.store import store_of
    from holdfast.lake.tables import PARTITION, PROPERTIES, RiskEventsTable

    schema = RiskEventsTable.schema()
    table = DeltaTable.create(
        str(lake / "risk_events"),
        Schema.from_arrow(schema),
        partition_by=[PARTITION],
        configuration=dict(PROPERTIES),
    )
    for number in range(DAYS):
        day = lake_events.day(number, ROWS, schema)
        write_deltalake(table, day, mode="append", writer_properties=delta_properties(schema.names))
    log_order = _bytes_each(lake)
    policy = MaintenancePolicy(retention_secs=0)
    start = time.perf_counter()
    Maintainer(store_of(str(lake)), clock=SystemClock(), policy=policy).run("risk_events", everything=True)
    took = time.perf_counter() - start
    (HOME / "facts").write_text(f"{log_order} {took}")


def _bytes_each(lake: Path) -> float:
    """Bytes of the newest version's files for each event."""
    import pyarrow as pa
    from deltalake import DeltaTable

    adds = pa.table(DeltaTable(str(lake / "risk_events")).get_add_actions(flatten=True))
    return sum(adds["size_bytes"].to_pylist()) / sum(adds["num_records"].to_pylist())


# -- the questions ------------------------------------------------------------------------------------------------------

SQL = {
    "group-by over all": "SELECT event_type, count(*) AS n FROM risk_events GROUP BY event_type",
    "10-minute window": (
        "SELECT count(*) AS n, max(current_value) AS most FROM risk_events"  # noqa: S608  our own words
        f" WHERE event_date = DATE '{DAY}' AND timestamp >= TIMESTAMPTZ '{FROM}' AND timestamp < TIMESTAMPTZ '{UNTIL}'"
    ),
    "one execution id": f"SELECT seq, current_premium, stop_premium FROM risk_events WHERE execution_id = '{EXECUTION}'",  # noqa: S608  our own words
}
BARS = {"group-by over all": 100, "10-minute window": 15, "one execution id": 80}


def with_duckdb(lake: Path, name: str) -> list[tuple]:
    from holdfast.lake.sql import Lake
    from holdfast.lake.store import store_of

    with Lake(store_of(str(lake))) as asked:
        answer = asked.ask(SQL[name])
    return sorted(tuple(row.values()) for row in answer.to_pylist())


def with_polars(lake: Path, name: str) -> list[tuple]:
    import polars as pl

    frame = pl.scan_delta(str(lake / "risk_events"))
    if name == "group-by over all":
        answer = frame.group_by("event_type").len()
    elif name == "10-minute window":
        window = (pl.col("event_date") == DAY) & (pl.col("timestamp") >= FROM) & (pl.col("timestamp") < UNTIL)
        answer = frame.filter(window).select(pl.len(), pl.col("current_value").max())
    else:
        answer = frame.filter(pl.col("execution_id") == EXECUTION).select(
            "seq", "current_premium", "stop_premium"
        )
    return sorted(answer.collect().rows())


def beside_polars(lake: Path) -> dict[str, list[tuple[float, float]]]:
    """What Polars' group-by takes over the lake, a plain file of its own, and memory: ms and CPU ms, round by round."""
    import polars as pl

    plain = HOME / "plain.parquet"
    if not plain.exists():
        print("  writing the same rows as one file of Polars, once", file=sys.stderr)
        pl.scan_delta(str(lake / "risk_events")).sink_parquet(HOME / "plain.part")
        (HOME / "plain.part").rename(plain)
    memory = pl.scan_parquet(plain).select("event_type").collect()
    frames = {
        "lake": lambda: pl.scan_delta(str(lake / "risk_events")),
        "plain": lambda: pl.scan_parquet(plain),
        "memory": memory.lazy,
    }
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in frames}
    for _ in range(ROUNDS):
        for name, frame in frames.items():
            start, busy = time.perf_counter(), time.process_time()
            frame().group_by("event_type").len().collect()
            took[name].append(((time.perf_counter() - start) * 1e3, (time.process_time() - busy) * 1e3))
    return took


def _timed(ask: Callable[[Path, str], list[tuple]], lake: Path, name: str) -> float:
    took = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        ask(lake, name)
        took.append((time.perf_counter() - start) * 1e3)
    return median(took)


def _connected(lake: Path) -> dict[str, tuple[float, float]]:
    """Median and least of each question on a connection that stays open, as a notebook's does."""
    from holdfast.lake.sql import Lake
    from holdfast.lake.store import store_of

    found: dict[str, tuple[float, float]] = {}
    with Lake(store_of(str(lake))) as asked:
        for name, sql in SQL.items():
            took = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                asked.ask(sql)
                took.append((time.perf_counter() - start) * 1e3)
            found[name] = median(took), min(took)
    return found


def _rebuild_rate() -> tuple[float, float, float]:
    """Journal records a second that a rebuild takes in, by the clock and by its CPU time, and that a comparison does."""
    import tempfile

    import lake_events

    from holdfast.core.clock import SystemClock
    from holdfast.lake.rebuild import rebuild
    from holdfast.lake.store import store_of
    from holdfast.lake.verify import verify_lake

    with tempfile.TemporaryDirectory() as scratch:
        log = lake_events.journal(Path(scratch) / "log", REBUILD_RECORDS)
        store = store_of(f"{scratch}/lake")
        busy = time.process_time()
        done = rebuild(store, [log], clock=SystemClock())
        busy = time.process_time() - busy
        start = time.perf_counter()
        assert verify_lake(store, [log]).ok
        return done.rate, done.records / busy, done.records / (time.perf_counter() - start)


def run() -> list[dict]:
    """Each row has name, value, unit, beside, ratio and bar."""
    lake = made()
    log_order, ordering_secs = map(float, (HOME / "facts").read_text().split())
    connected, rows = _connected(lake), []
    for name in SQL:
        duck, polars = with_duckdb(lake, name), with_polars(lake, name)
        assert duck == polars, f"{name}: DuckDB says {duck[:3]}, Polars {polars[:3]}"
        assert duck
        duck_ms, polars_ms = _timed(with_duckdb, lake, name), _timed(with_polars, lake, name)
        rows.append(
            {
                "name": f"{DAYS * ROWS // 10**6} M risk events, {name}",
                "value": connected[name][0], "unit": "ms",
                "beside": f"least {connected[name][1]:.1f} ms; opened anew each time {duck_ms:.1f} ms; Polars {polars_ms:.1f} ms",
                "ratio": connected[name][0] / polars_ms, "bar": f"<= {BARS[name]} ms",
            }
        )  # fmt: skip
    held = beside_polars(lake)
    wall = {name: [one for one, _ in times] for name, times in held.items()}
    busy = {name: median(one for _, one in times) for name, times in held.items()}
    said = {
        name: f"{median(wall[name]):.1f} ms (least {min(wall[name]):.1f}, CPU {busy[name]:.0f})"
        for name in held
    }
    rows.append(
        {
            "name": f"{DAYS * ROWS // 10**6} M risk events, group-by of Polars", "value": median(wall["lake"]), "unit": "ms",
            "beside": (
                f"the lake {said['lake']}; a plain file that Polars wrote {said['plain']}; the column in memory"
                f" {said['memory']}: its time is the hashing of texts; ratio of CPU, lake to plain"
            ),
            "ratio": busy["lake"] / busy["plain"], "bar": "<= 1.25 x plain",
        }
    )  # fmt: skip
    each = _bytes_each(lake)
    rebuilt, by_cpu, compared = _rebuild_rate()
    rows += [
        {
            "name": "an ordered risk event on disk", "value": each, "unit": "bytes",
            "beside": f"in the log's order {log_order:.1f} bytes; ordering 10 M took {ordering_secs:.1f} s",
            "ratio": each / log_order, "bar": "<= 25 bytes",
        },
        {
            "name": "lake rebuild, journal records", "value": rebuilt, "unit": "per s",
            "beside": f"{by_cpu:,.0f} per CPU second; lake verify {compared:,.0f} per s", "ratio": rebuilt / compared, "bar": "",
        },
    ]  # fmt: skip
    return rows


if __name__ == "__main__":
    for row in run():
        print(
            f"{row['name']:44} {row['value']:12.2f} {row['unit']:6} x {row['ratio']:6.2f}  {row['bar']:12} {row['beside']}"
        )
