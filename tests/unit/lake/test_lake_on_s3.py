"""A lake on S3: filled, compared, asked, maintained and made anew; few requests for each commit."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from support.lake import all_rows, make_journal, project
from support.s3 import FaultProxy, moto_store

from holdfast.core.clock import SystemClock
from holdfast.lake.commit import Span, TableWriter
from holdfast.lake.maintenance import Maintainer
from holdfast.lake.rows import arrow_of
from holdfast.lake.store import store_of
from holdfast.lake.tables import FillsTable

pytestmark = [pytest.mark.contract("X7"), pytest.mark.invariant("I10")]


@pytest.fixture(scope="module")
def s3():
    with moto_store() as store:
        yield store


@pytest.fixture
def lake(s3, tmp_path):
    log = make_journal(tmp_path / "log", events=40)
    return project(store_of(f"s3://{s3.make(lock=False)}/desk/lake", s3.environ), log)


def _holdfast(s3, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: parts of delta-rs hold the lock that moto's thread here needs."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast", "lake", *words],
        env={**os.environ, **s3.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_lake_in_a_bucket_is_compared_asked_maintained_and_made_anew(lake, s3, tmp_path):
    """Comparison, SQL, maintenance and a rebuild in place work in a bucket, and the rows stay the same."""
    before, log = all_rows(lake), str(tmp_path / "log")
    compared = _holdfast(s3, "verify", log, "--lake", lake.uri, "--json")
    assert compared.returncode == 0, compared.stderr
    assert sum(one["rows"] for one in json.loads(compared.stdout)["compared"]) == 80
    asked = _holdfast(s3, "sql", "--saved", "fills_by_day", "--lake", lake.uri, "--json")
    assert asked.returncode == 0, asked.stderr
    assert [json.loads(line)["fills"] for line in asked.stdout.splitlines()] == [4, 4]
    done = _holdfast(
        s3, "maintain", "--lake", lake.uri, "--table", "fills", "--everything", "--retention-days", "0"
    )
    assert done.returncode == 0, done.stderr
    assert all_rows(lake) == before
    refused = _holdfast(s3, "rebuild", log, "--lake", lake.uri)
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    made = _holdfast(s3, "rebuild", log, "--lake", lake.uri, "--force", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["rows"]["fills"] == 8
    assert all_rows(lake) == before


def test_commit_costs_at_most_seven_requests(s3):
    """A commit on a held handle, its data file included, is at most seven requests."""
    with FaultProxy(s3) as proxy:
        store = store_of(
            f"s3://{s3.make(lock=False)}/lake", {**s3.environ, "AWS_ENDPOINT_URL": proxy.endpoint}
        )
        writer = TableWriter(store, FillsTable, clock=SystemClock())
        writer.open()
        writer.commit([], [Span("ab" * 16, 1, 1, 1, [], bytes(32))])
        proxy.requests.clear()
        commits = 5
        for n in range(commits):
            writer.commit(_fill(n), [Span("ab" * 16, n + 2, n + 2, 1, [bytes(32)], bytes(32))])
        counted = Counter("LIST" if "list-type" in path else method for method, path, _ in proxy.requests)
    assert sum(counted.values()) <= 7 * commits, counted
    assert counted["PUT"] == 2 * commits


def test_look_of_maintenance_costs_one_request(s3, monkeypatch):
    """After the first look, which reads when the table was vacuumed, a look with nothing to do is one request."""
    monkeypatch.setattr(Maintainer, "LOOK_COMMITS", 1)
    with FaultProxy(s3) as proxy:
        store = store_of(
            f"s3://{s3.make(lock=False)}/lake", {**s3.environ, "AWS_ENDPOINT_URL": proxy.endpoint}
        )
        writer = TableWriter(store, FillsTable, clock=SystemClock())
        writer.open()
        maintainer = Maintainer(store, clock=SystemClock())
        for n in range(3):
            writer.commit(_fill(n), [Span("ab" * 16, n + 1, n + 1, 1, [bytes(32)], bytes(32))])
            proxy.requests.clear()
            maintainer.after_commit("fills", writer.handle)
        assert [method for method, _, _ in proxy.requests] == ["GET"]


def _fill(n: int):
    values = {"event_id": f"{n}", "timestamp": 1, "user_id": "", "component": "", "metadata": "{}"}
    values |= {
        "writer_id": "ab" * 16,
        "epoch": 1,
        "seq": n,
        "ts_ns": 1000,
        "event_date": 20_000,
        "schema_version": 1,
    }
    return arrow_of(FillsTable, [tuple(values.get(name) for name in FillsTable.column_names())])


def test_store_that_is_away_ends_with_5(tmp_path):
    """A store that nobody answers for ends every verb with exit code 5 and its name."""
    make_journal(tmp_path / "log", days=1, events=3)
    environ = {
        **os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "lake", "verify", str(tmp_path / "log"), "--lake", "s3://lake/x"],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 5
    assert "lake s3://lake/x: no usable answer" in done.stderr


_LATER_VERSION = """
import sys
import pyarrow as pa
from deltalake import write_deltalake
from holdfast.core.clock import SystemClock
from holdfast.lake.commit import TableWriter
from holdfast.lake.store import store_of
from holdfast.lake.tables import Column, FillsTable, Kind

store = store_of(sys.argv[1])
FillsTable.columns = (*FillsTable.columns, Column("liquidity", Kind.TEXT, "maker or taker"))
TableWriter(store, FillsTable, clock=SystemClock()).open()
table = store.open("fills").to_pyarrow_table()
print(table.column_names[-1], table["liquidity"].null_count == table.num_rows == 8)
store.empty("decisions")
write_deltalake(store.table_uri("decisions"), pa.table({"mine": [1]}), storage_options=store.options)
"""


@pytest.mark.slow
def test_table_in_a_bucket_is_widened_and_another_s_is_not_emptied(lake, s3, tmp_path):
    """A later version adds its column to a table in a bucket; `--force` leaves one alone that holdfast did not make."""
    later = subprocess.run(
        [sys.executable, "-c", _LATER_VERSION, lake.uri],
        env={**os.environ, **s3.environ}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert later.stdout == "liquidity True\n", later.stderr
    done = _holdfast(s3, "rebuild", str(tmp_path / "log"), "--lake", lake.uri, "--force")
    assert done.returncode == 1
    assert "the table 'decisions' is another's: it has no column 'event_id'" in done.stderr
    assert lake.open("decisions").to_pyarrow_table().to_pylist() == [{"mine": 1}]
    assert lake.open("fills").version() > 0
