"""The Spark source's own part: schema, files and batches; PySpark itself reads in `make engines`."""

import sys

import pyarrow as pa
import pytest
from support.lake import make_journal, project, rows_of

from holdfast.core.errors import BadInput
from holdfast.lake.spark import Snapshot, data_source

pytestmark = pytest.mark.contract("X7")


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    home = tmp_path_factory.mktemp("spark")
    return project(home / "lake", make_journal(home / "log", events=40))


def _rows(snapshot: Snapshot):
    batches = [batch for piece in snapshot.pieces for batch in snapshot.read(piece)]
    return sorted(pa.Table.from_batches(batches).to_pylist(), key=lambda row: row["event_id"])


def test_batches_hold_every_row_with_the_columns_in_order(lake):
    """Each file is a piece of its own; together they are the table, its partition column included."""
    snapshot = Snapshot({"lake": str(lake), "table": "risk_events"})
    assert _rows(snapshot) == rows_of(lake, "risk_events")
    assert len(snapshot.pieces) == len({piece.path for piece in snapshot.pieces}) >= 2


def test_days_leave_out_whole_files(lake):
    """With days named, only their files are read."""
    snapshot = Snapshot({"lake": str(lake), "table": "fills", "from": "2025-11-21", "to": "2025-11-21"})
    assert {str(row["event_date"]) for row in _rows(snapshot)} == {"2025-11-21"}


def test_schema_is_told_in_the_words_of_spark(lake):
    """Every type of the lake has its Spark name."""
    ddl = Snapshot({"lake": str(lake), "table": "risk_events"}).ddl()
    for part in ("`event_id` string", "`timestamp` timestamp", "`failure_count` int", "`seq` bigint",
                 "`entry_premium` double", "`allowed` boolean", "`event_date` date"):  # fmt: skip
        assert part in ddl


def test_what_is_not_named_or_not_there_is_said(lake, monkeypatch):
    """A missing option, a missing table and a missing PySpark are named."""
    with pytest.raises(BadInput, match="needs lake and table"):
        Snapshot({})
    with pytest.raises(BadInput, match="there is no Delta table"):
        Snapshot({"lake": str(lake), "table": "fill"})
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(BadInput, match="needs pyspark") as why:
        data_source()
    assert why.value.hint == "pip install pyspark"
