"""A lake that an earlier version of holdfast made: projection goes on, with the columns that came since at its end."""

import json

import duckdb
import polars as pl
import pytest
from deltalake.schema import Field, PrimitiveType
from support.lake import START_NS, make_journal, rows_of

from holdfast.audit.schemas import RecordType
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput
from holdfast.lake import create, rows
from holdfast.lake.commit import TableWriter
from holdfast.lake.create import WIDENED
from holdfast.lake.maintenance import Maintainer
from holdfast.lake.projector import Projector
from holdfast.lake.rebuild import rebuild
from holdfast.lake.repair import Verdict, judge
from holdfast.lake.spark import Snapshot
from holdfast.lake.sql import Lake
from holdfast.lake.tables import Column, FillsTable, Kind
from holdfast.lake.verify import verify_lake

pytestmark = [pytest.mark.contract("B8"), pytest.mark.invariant("I10")]

DAY_NS = 86_400 * 10**9
LATER = ManualClock(START_NS + 5 * DAY_NS)
SOLD = "SELECT count(*) AS fills, count(liquidity) AS told FROM fills"


@pytest.fixture
def upgrade(monkeypatch):
    """Lets this be a later version: fills have a column more, and their records a later schema."""

    def later() -> None:
        columns = (*FillsTable.columns, Column("liquidity", Kind.TEXT, "maker or taker"))
        made = rows._fill
        monkeypatch.setattr(FillsTable, "columns", columns)
        monkeypatch.setitem(
            rows._MAKERS, FillsTable, lambda origin, fields: (*made(origin, fields), fields.text("liquidity"))
        )
        monkeypatch.setattr(rows, "VERSIONS", {**rows.VERSIONS, RecordType.TRADE: 3, "RISK_EVENT": 4})
        monkeypatch.setattr(rows, "RISK_VERSION", 4)
        monkeypatch.setattr("holdfast.lake.columns.RISK_VERSION", 4)

    return later


def _project(lake, *logs) -> Projector:
    one = Projector(logs, lake, clock=ManualClock(START_NS))
    try:
        one.start()
        one.run(follow=False, wait=lambda _: False)
    finally:
        one.close()
    return one


def test_projection_goes_on_over_the_rows_of_an_earlier_version(lake, log, upgrade, tmp_path):
    """Old rows stay as they are, new ones have the new column and version, and the lake equals its journals."""
    before = rows_of(lake, "fills")
    assert {row["schema_version"] for row in before} == {2}
    upgrade()
    other = make_journal(tmp_path / "other", events=20, seed=9)
    assert _project(lake, log, other).commits > 0
    after = rows_of(lake, "fills")
    assert [row for row in after if row["schema_version"] == 2] == [
        {**row, "liquidity": None} for row in before
    ]
    assert sum(row["schema_version"] == 3 for row in after) == 4
    assert {row["schema_version"] for row in rows_of(lake, "risk_events")} == {1, 4}
    report = verify_lake(lake, [log, other])
    assert report.ok, report.findings


def test_older_lake_is_compared_and_asked_before_it_is_widened(lake, log, upgrade):
    """A verification or a question by a later version asks for no upgrade of the lake first."""
    upgrade()
    assert verify_lake(lake, [log]).ok
    with Lake(lake) as asked:
        assert asked.ask("SELECT count(*) AS n FROM fills").to_pylist() == [{"n": 12}]


def test_every_reader_sees_old_and_new_files_of_a_widened_table(lake, log, upgrade, tmp_path):
    """Polars, deltalake, DuckDB, `lake sql` and the Spark source read NULL where a file is older than a column."""
    upgrade()
    _project(lake, log, make_journal(tmp_path / "other", events=20, seed=9))
    assert (
        pl.scan_delta(lake.table_uri("fills")).select(pl.col("liquidity").null_count()).collect().item() == 16
    )
    with Lake(lake) as asked:
        assert asked.ask(SOLD).to_pylist() == [{"fills": 16, "told": 0}]
    files = lake.open("fills").file_uris()
    assert duckdb.read_parquet(files, union_by_name=True).count("*").fetchall() == [(16,)]
    snapshot = Snapshot({"lake": str(lake), "table": "fills"})
    batches = [batch for piece in snapshot.pieces for batch in snapshot.read(piece)]
    assert sum(batch.num_rows for batch in batches) == 16
    assert {batch.schema.names[-1] for batch in batches} == {"liquidity"}
    Maintainer(lake, clock=LATER).run("fills", everything=True)
    assert len(rows_of(lake, "fills")) == 16
    with Lake(lake) as asked:
        assert asked.ask(SOLD).to_pylist() == [{"fills": 16, "told": 0}]


def test_rebuild_gives_the_rows_of_this_version(lake, log, upgrade):
    """A lake made anew has no older rows: all bear this version, and say otherwise what they said."""
    before = rows_of(lake, "fills")
    upgrade()
    rebuild(lake, [log], clock=LATER)
    assert rows_of(lake, "fills") == [{**row, "liquidity": None, "schema_version": 3} for row in before]


def test_table_of_a_later_version_is_refused_by_an_earlier_one(lake, log):
    """What a later holdfast widened is not written to by this one, whose rows would lack the column."""
    lake.open("fills").alter.add_columns([Field("liquidity", PrimitiveType("string"))])
    version = lake.open("fills").version()
    with pytest.raises(BadInput, match="column 'liquidity' is unknown to this version of holdfast") as why:
        _project(lake, log)
    assert "upgrade holdfast here" in why.value.hint
    assert lake.open("fills").version() == version
    assert verify_lake(lake, [log]).ok


@pytest.mark.parametrize("step", ["set_table_properties", "add_columns"])
def test_rivals_that_widen_one_table_at_once_add_each_column_once(lake, log, upgrade, monkeypatch, step):
    """Where a rival widens the table between two steps, what it made is taken, and every row still comes once."""
    from deltalake.table import TableAlterer

    upgrade()
    whole, rivals = getattr(TableAlterer, step), list[str]()

    def rival_first(self, *args, **more):
        if not rivals:
            rivals.append("one")
            TableWriter(lake, FillsTable, clock=ManualClock(START_NS)).open()
        return whole(self, *args, **more)

    monkeypatch.setattr(TableAlterer, step, rival_first)
    _project(lake, log, make_journal(log.parent / "other", events=20, seed=9))
    names = [field.name for field in lake.open("fills").schema().fields]
    assert names.count("liquidity") == 1
    assert lake.open("fills").metadata().configuration[WIDENED] == "true"
    assert len(rows_of(lake, "fills")) == 16


def test_widening_is_on_the_disk_before_a_row_of_it_is_written(lake, log, upgrade, monkeypatch):
    """The versions that widen a table are synced when it is opened: a power cut leaves it as before, or wider."""
    upgrade()
    synced: list[tuple[str, int, int]] = []
    monkeypatch.setattr(
        create, "sync_versions", lambda table, first, last: synced.append((table.name, first, last))
    )
    before = lake.open("fills").version()
    writer = TableWriter(lake, FillsTable, clock=ManualClock(START_NS))
    writer.open()
    assert synced == [("fills", before + 1, writer.version)]
    assert writer.version == before + 2


def test_torn_widening_is_seen_as_such(lake, log, upgrade):
    """A commit that announces new columns and lacks them is not whole."""
    upgrade()
    _project(lake, log)
    table = lake.path / "fills"
    for commit in sorted((table / "_delta_log").glob("*.json"))[-3:]:
        lines = commit.read_text().splitlines()
        if json.loads(lines[0])["commitInfo"]["operation"] in {"ADD COLUMN", "SET TBLPROPERTIES"}:
            assert judge(table, int(commit.stem))[0] is Verdict.WHOLE
            commit.write_text(lines[0] + "\n")
            assert judge(table, int(commit.stem))[0] is Verdict.INCOMPLETE
            return
    raise AssertionError("no commit widened the table")
