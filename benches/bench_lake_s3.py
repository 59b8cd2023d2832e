"""S3 requests for each commit of the lake: ours, beside `write_deltalake` with a held handle and with the address.

moto's server on loopback behind a proxy that counts. Each way commits the same 100 risk events 30 times, after a
first commit; a request costs money and a round trip, so that they are the figure, not milliseconds here.

`python benches/bench_lake_s3.py` prints the table; `run()` returns it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

COMMITS = 30
ROWS = 100


def _counted(proxy, commit: Callable[[int], object]) -> Counter[str]:
    """The requests of `COMMITS` commits, by kind."""
    commit(0)
    proxy.requests.clear()
    for number in range(1, COMMITS + 1):
        commit(number)
    return Counter("LIST" if "list-type" in path else method for method, path, _ in proxy.requests)


def _ours(store) -> Callable[[int], object]:
    import lake_events

    from holdfast.core.clock import SystemClock
    from holdfast.lake.commit import Span, TableWriter
    from holdfast.lake.tables import RiskEventsTable

    writer = TableWriter(store, RiskEventsTable, clock=SystemClock())
    writer.open()
    schema = RiskEventsTable.schema()

    def commit(number: int) -> None:
        batch = lake_events.day(number, ROWS, schema)
        first = 1 + number * ROWS
        span = Span(lake_events.LOG_ID, first, first + ROWS - 1, 1, [bytes(32)] * ROWS, bytes(32))
        writer.commit(batch, [span])

    return commit


def _held(store) -> Callable[[int], object]:
    import lake_events
    from deltalake import DeltaTable, write_deltalake

    from holdfast.lake.tables import RiskEventsTable

    schema = RiskEventsTable.schema()
    uri = store.table_uri("held")
    write_deltalake(uri, schema.empty_table(), storage_options=store.options)
    table = DeltaTable(uri, storage_options=store.options)
    return lambda number: write_deltalake(table, lake_events.day(number, ROWS, schema), mode="append")


def _naive(store) -> Callable[[int], object]:
    import lake_events
    from deltalake import write_deltalake

    from holdfast.lake.tables import RiskEventsTable

    schema = RiskEventsTable.schema()
    return lambda number: write_deltalake(
        store.table_uri("naive"),
        lake_events.day(number, ROWS, schema),
        mode="append",
        storage_options=store.options,
    )


def run() -> list[dict]:
    """Each row has name, value, unit, beside, ratio and bar."""
    from support.s3 import FaultProxy, moto_store

    from holdfast.lake.store import store_of

    found: dict[str, Counter[str]] = {}
    with moto_store() as s3, FaultProxy(s3) as proxy:
        environ = {**s3.environ, "AWS_ENDPOINT_URL": proxy.endpoint}
        for name, make in (("ours", _ours), ("held", _held), ("naive", _naive)):
            store = store_of(f"s3://{s3.make(lock=False)}/lake", environ)
            found[name] = _counted(proxy, make(store))
    each = {name: counted.total() / COMMITS for name, counted in found.items()}
    kinds = ", ".join(f"{count / COMMITS:.1f} {kind}" for kind, count in sorted(found["ours"].items()))
    return [
        {
            "name": "S3 requests for a commit of the lake",
            "value": each["ours"],
            "unit": "requests",
            "beside": f"{kinds}; write_deltalake held {each['held']:.1f}, by address {each['naive']:.1f}",
            "ratio": each["ours"] / each["held"],
            "bar": "<= 7",
        }
    ]


if __name__ == "__main__":
    for row in run():
        print(
            f"{row['name']:40} {row['value']:6.1f} {row['unit']} x {row['ratio']:.2f}  {row['bar']}  {row['beside']}"
        )
