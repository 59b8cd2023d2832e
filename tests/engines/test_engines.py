"""Daft and PySpark read the lake: in a process of the venv that has them (`make engines`).

The lake is made and maintained here; each engine counts, filters and sums it there and prints what it found.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.lake import START_NS, all_rows, make_journal, project

from holdfast.core.clock import ManualClock
from holdfast.lake.maintenance import Maintainer

pytestmark = pytest.mark.contract("X7")
ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-engines" / "bin" / "python"

DAFT = """
import daft, json, sys
frame = daft.read_deltalake(sys.argv[1])
by_type = frame.groupby("event_type").agg(frame["seq"].count().alias("n")).to_pydict()
stops = frame.where(frame["component"] == "trailing_stop").select("seq").to_pydict()
print(json.dumps({"types": dict(zip(by_type["event_type"], by_type["n"])), "stops": sorted(stops["seq"]),
                  "columns": frame.column_names}))
"""
SPARK = """
import json, os, sys
from pyspark.sql import SparkSession, functions as F
from holdfast.lake.spark import register
os.environ["PYSPARK_PYTHON"] = sys.executable
spark = (SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
         .config("spark.driver.memory", "1g").config("spark.driver.bindAddress", "127.0.0.1")
         .config("spark.driver.host", "127.0.0.1").config("spark.sql.session.timeZone", "UTC")
         .config("spark.ui.showConsoleProgress", "false").getOrCreate())
spark.sparkContext.setLogLevel("ERROR")
register(spark)
lake, table = os.path.split(sys.argv[1])
read = spark.read.format("holdfast").option("lake", lake).option("table", table)
frame = read.load()
types = {row["event_type"]: row["n"] for row in frame.groupBy("event_type").agg(F.count("*").alias("n")).collect()}
stops = [row["seq"] for row in frame.where("component = 'trailing_stop'").select("seq").collect()]
first = frame.orderBy("seq").select("event_id", F.unix_micros("timestamp").alias("us"), "event_date").first()
day = read.option("from", "2025-11-21").load().count()
print(json.dumps({"types": types, "stops": sorted(stops), "columns": frame.columns, "day": day,
                  "first": [first["event_id"], first["us"], str(first["event_date"])],
                  "jars": spark.sparkContext.getConf().get("spark.jars", "")}))
spark.stop()
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    home = tmp_path_factory.mktemp("engines")
    lake = project(home / "lake", make_journal(home / "log", events=400))
    Maintainer(lake, clock=ManualClock(START_NS + 5 * 86_400 * 10**9)).run("risk_events", everything=True)
    return lake


def _ask(script: str, lake) -> dict:
    if not PYTHON.exists():
        pytest.skip("no .venv-engines: make engines")
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYSPARK_PYTHON": str(PYTHON)}
    done = subprocess.run(
        [PYTHON, "-W", "ignore", "-c", script, lake.table_uri("risk_events")],
        env=environ, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def _expected(lake) -> dict:
    rows = all_rows(lake)["risk_events"]
    types: dict[str, int] = {}
    for row in rows:
        types[row["event_type"]] = types.get(row["event_type"], 0) + 1
    stops = sorted(row["seq"] for row in rows if row["component"] == "trailing_stop")
    return {"types": types, "stops": stops, "columns": list(rows[0])}


def test_daft_reads_the_lake(lake):
    """Daft counts, filters and names the columns of a compacted table as deltalake does."""
    assert _ask(DAFT, lake) == _expected(lake)


def test_pyspark_reads_the_lake_through_the_shipped_source_without_a_jar(lake):
    """PySpark does the same through `format("holdfast")`, times and days included, and loads no jar."""
    found = _ask(SPARK, lake)
    rows = all_rows(lake)["risk_events"]
    assert {name: found[name] for name in ("types", "stops", "columns")} == _expected(lake)
    assert found["first"] == [rows[0]["event_id"], rows[0]["ts_ns"] // 1000, "2025-11-20"]
    assert found["day"] == sum(str(row["event_date"]) == "2025-11-21" for row in rows)
    assert found["jars"] == ""
