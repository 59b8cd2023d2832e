"""`lake verify`: equal lakes pass, and each kind of damage is named by table, kind and sequence."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from support.lake import START_NS, live_files, make_journal, project, rows_of

from holdfast.audit.wal import WriteAheadLog
from holdfast.cli.main import main
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput, LakeDamaged
from holdfast.lake.commit import app_id
from holdfast.lake.filestats import written_stats
from holdfast.lake.findings import Range
from holdfast.lake.maintenance import Maintainer
from holdfast.lake.store import store_of
from holdfast.lake.verify import verify_lake

pytestmark = [pytest.mark.invariant("I10"), pytest.mark.contract("B8")]


def _append(lake, name: str, rows: list[dict]) -> None:
    """What only somebody else's hand does: a commit without a watermark."""
    table = lake.open(name)
    schema = table.to_pyarrow_table().schema
    write_deltalake(lake.table_uri(name), pa.Table.from_pylist(rows, schema=schema), mode="append")


def _rewrite(path: Path, change) -> None:
    """Change the rows of one data file in place, and its length and statistics in the commit that names it."""
    table = pq.ParquetFile(path).read()
    schema = pa.schema([field.with_nullable(True) for field in table.schema])
    changed = pa.Table.from_pylist(change(table.to_pylist()), schema=schema)
    pq.write_table(changed, path)
    _claim(path, size=path.stat().st_size, stats=written_stats(changed))


def _claim(path: Path, **said) -> None:
    """Let the commit that adds the data file at *path* say something else of it."""
    for commit in (path.parent.parent / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in commit.read_text().splitlines()]
        for action in actions:
            if action.get("add", {}).get("path", "").endswith(path.name):
                action["add"] |= said
        commit.write_text("".join(f"{json.dumps(action)}\n" for action in actions))


def _stats(path: Path) -> dict:
    """What the commits say of the rows of the data file at *path*."""
    for commit in (path.parent.parent / "_delta_log").glob("*.json"):
        for action in map(json.loads, commit.read_text().splitlines()):
            if action.get("add", {}).get("path", "").endswith(path.name):
                return json.loads(action["add"]["stats"])
    raise AssertionError(path)


def _only(report):
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


def test_lake_that_equals_its_journal_passes(lake, log):
    """Each table is compared in full, with a root over the records that its rows come from."""
    report = verify_lake(lake, [log])
    assert report.ok
    assert report.exit_code == 0
    assert {one.table: one.rows for one in report.compared} == {
        "risk_events": 48, "orders": 36, "fills": 12, "api_calls": 12, "decisions": 12,
    }  # fmt: skip
    assert all(one.rows == one.expected and one.covered == one.journal for one in report.compared)
    assert len({one.root for one in report.compared}) == 5


def test_missing_rows_are_named_by_sequence(lake, log):
    """Rows that somebody took out of a file are missing, by sequence."""
    lost = rows_of(lake, "fills")[3]["seq"]
    for path in live_files(lake, "fills"):
        _rewrite(path, lambda rows: [row for row in rows if row["seq"] != lost])
    finding = _only(verify_lake(lake, [log]))
    assert (finding.kind, finding.table, finding.count) == ("missing", "fills", 1)
    assert finding.ranges == (Range(lost, lost),)
    assert str(lost) in str(finding)


def test_duplicate_rows_are_named(lake, log):
    """A row that was written twice is a duplicate."""
    twice = rows_of(lake, "risk_events")[5:7]
    _append(lake, "risk_events", twice)
    finding = _only(verify_lake(lake, [log]))
    assert (finding.kind, finding.count) == ("duplicate", 2)
    assert {one.first for one in finding.ranges} | {one.last for one in finding.ranges} == {
        row["seq"] for row in twice
    }


@pytest.mark.parametrize("column", ["current_value", "metadata", "timestamp", "event_type"])
def test_changed_row_is_named_whichever_column_it_is(lake, log, column):
    """A row that differs from its record in one column is changed."""
    victim = next(row for row in rows_of(lake, "risk_events") if row["current_value"] is not None)

    def change(rows):
        for row in rows:
            if row["seq"] == victim["seq"]:
                row[column] = {
                    "current_value": 1.25, "metadata": '{"a":1}', "event_type": "x",
                    "timestamp": row["timestamp"].replace(microsecond=1),
                }[column]  # fmt: skip
        return rows

    for path in live_files(lake, "risk_events"):
        _rewrite(path, change)
    finding = _only(verify_lake(lake, [log]))
    assert (finding.kind, finding.ranges) == ("changed", (Range(victim["seq"], victim["seq"]),))


@pytest.mark.parametrize(("version", "passes"), [(1, True), (2, True), (0, False), (3, False), (None, False)])
def test_version_of_a_row_is_ours_or_an_earlier_one(lake, log, version, passes):
    """A row that an earlier version made passes; none, or one that this holdfast does not know, is a changed row."""
    for path in live_files(lake, "fills"):
        _rewrite(path, lambda rows: [{**row, "schema_version": version} for row in rows])
    report = verify_lake(lake, [log])
    assert [(one.kind, one.count) for one in report.findings] == ([] if passes else [("changed", 12)])


def test_foreign_row_is_named(lake, log):
    """A row that bears the journal's id and has no record there is foreign."""
    row = {**rows_of(lake, "orders")[0], "seq": 2, "event_id": "x"}
    _append(lake, "orders", [row])
    finding = _only(verify_lake(lake, [log]))
    assert (finding.kind, finding.ranges) == ("foreign", (Range(2, 2),))


@pytest.mark.parametrize("change", [{"writer_id": "f" * 32}, {"seq": 0}, {"seq": -7}])
def test_row_that_nobody_vouches_for_is_foreign(lake, log, change):
    """A row of a journal that the table knows nothing of, or of a sequence that no journal has, is foreign."""
    _append(lake, "orders", [{**rows_of(lake, "orders")[0], **change}])
    assert _only(verify_lake(lake, [log])).kind == "foreign"


def test_row_without_a_journal_or_a_sequence_is_foreign(lake, log):
    """Columns that another hand left empty hide no row."""
    file = live_files(lake, "orders")[0]
    _rewrite(
        file,
        lambda rows: (
            [{**row, "writer_id": None} for row in rows[:1]]
            + [{**row, "seq": None} for row in rows[1:2]]
            + rows[2:]
        ),
    )
    found = {one.kind: one.count for one in verify_lake(lake, [log]).findings}
    assert found["missing"] == 2
    assert found["foreign"] >= 1


def test_table_that_is_gone_is_named(lake, log):
    """A lake without one of its tables is not equal to its journal."""
    shutil.rmtree(lake.path / "fills")
    finding = _only(verify_lake(lake, [log]))
    assert (finding.kind, finding.table) == ("missing", "fills")


def test_rows_of_journals_that_were_not_named_are_counted(lake, log, tmp_path):
    """A second journal's rows are told, not compared; named, they are compared too."""
    other = make_journal(tmp_path / "other", events=20, seed=8)
    project(lake, other)
    report = verify_lake(lake, [log])
    assert report.ok
    assert report.others["risk_events"] == 16
    both = verify_lake(lake, [log, other])
    assert both.ok
    assert both.others == {}
    assert len(both.compared) == 10


def test_unreadable_file_is_named_and_its_rows_are_missing(lake, log):
    """A torn Parquet file is damage with its name, and does not end the comparison."""
    path = live_files(lake, "decisions")[0]
    path.write_bytes(path.read_bytes()[:-20])
    report = verify_lake(lake, [log])
    kinds = {finding.kind: finding for finding in report.findings}
    assert set(kinds) == {"unreadable", "missing"}
    assert path.name in kinds["unreadable"].what
    assert report.exit_code == 3


def test_missing_file_is_named(lake, log):
    """A data file that is gone is damage with its name."""
    path = live_files(lake, "api_calls")[0]
    path.unlink()
    report = verify_lake(lake, [log])
    assert {finding.kind for finding in report.findings} == {"unreadable", "missing"}


FORGED = {
    "rows": (lambda said: said.update(numRecords=said["numRecords"] - 1), "claims 23 rows and holds 24"),
    "nulls": (lambda said: said["nullCount"].update(symbol=0), "claims 0 rows without symbol and holds 6"),
    "least": (lambda said: said["minValues"].update(seq=9), "claims seq from 9 and holds 2"),
    "too little": (lambda said: said["minValues"].update(seq=1), "claims seq from 1 and holds 2"),
    "greatest": (lambda said: said["maxValues"].update(seq=50), "claims seq to 50 and holds 55"),
    "first text": (
        lambda said: said["minValues"].update(event_type="d"),
        "claims event_type from 'd' and holds 'circuit_breaker_failure'",
    ),
    "last text": (
        lambda said: said["maxValues"].update(event_type="trailing_stop_u"),
        "claims event_type to 'trailing_stop_u' and holds 'trailing_stop_update'",
    ),
    "time": (
        lambda said: said["maxValues"].update(timestamp="2025-11-20T10:20:13.498Z"),
        "claims timestamp to 2025-11-20 10:20:13.498000+00:00 and holds 2025-11-20 10:20:13.500000+00:00",
    ),
}


@pytest.mark.parametrize("forged", FORGED)
def test_statistics_that_the_rows_do_not_bear_out_are_named(lake, log, forged):
    """A number of rows, of NULLs, or a bound by which readers would skip a file or miscount it is damage, by file."""
    change, said = FORGED[forged]
    file = next(one for one in live_files(lake, "risk_events") if "2025-11-20" in str(one))
    stats = _stats(file)
    change(stats)
    _claim(file, stats=json.dumps(stats))
    finding = _only(verify_lake(lake, [log]))
    assert (finding.kind, finding.table) == ("statistics", "risk_events")
    assert finding.what == f"file {file.name} {said}"


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ({"event_type": "circuit_"}, {"event_type": "trailing_stop_upe"}),
        ({"timestamp": "2025-11-20T10:20:00.250Z"}, {"timestamp": "2025-11-20T10:20:13.500Z"}),
    ],
)
def test_statistics_cut_as_other_writers_cut_them_are_no_damage(lake, log, low, high):
    """Text may be cut and times rounded to the millisecond, and a file of which nothing is said hides no row."""
    file = next(one for one in live_files(lake, "risk_events") if "2025-11-20" in str(one))
    stats = _stats(file)
    stats["minValues"] |= low
    stats["maxValues"] |= high
    _claim(file, stats=json.dumps(stats))
    assert verify_lake(lake, [log]).ok
    _claim(file, stats=json.dumps({"numRecords": stats["numRecords"]}))
    assert verify_lake(lake, [log]).ok


def test_statistics_that_maintenance_wrote_are_borne_out(lake, log):
    """What delta-rs says of the files that it compacts and orders is true."""
    Maintainer(lake, clock=ManualClock(START_NS + 5 * 86_400 * 10**9)).run("risk_events", everything=True)
    assert verify_lake(lake, [log]).ok


def test_claim_that_the_journal_does_not_bear_out_is_named(lake, log):
    """A commit whose own root is not that of its records is named by version."""
    commit = lake.path / "orders" / "_delta_log" / "00000000000000000001.json"
    text = commit.read_text()
    at = text.index('root\\":\\"') + len('root\\":\\"')
    commit.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])
    finding = _only(verify_lake(lake, [log]))
    assert (finding.kind, finding.table) == ("claim", "orders")
    assert "version 1 claims another root" in finding.what


def test_lake_ahead_of_its_journal_is_damage(lake, log, tmp_path):
    """A journal that ends before what the lake covers was cut, or is an older copy."""
    log_id = verify_lake(lake, [log]).compared[0].log_id
    shorter = make_journal(tmp_path / "shorter", days=1, events=60, log_id=bytes.fromhex(log_id))
    report = verify_lake(lake, [shorter])
    assert "ahead" in {finding.kind for finding in report.findings}


def test_journal_that_the_lake_does_not_know_is_named(lake, log, tmp_path, capsys):
    """A journal of which nothing was projected is no equal one: all its records are missing, beside one that is there."""
    other = make_journal(tmp_path / "other", events=20, seed=8)
    report = verify_lake(lake, [log, other])
    finding = _only(report)
    unknown = next(one for one in report.compared if one.covered == 0)
    assert (finding.kind, finding.log_id) == ("unknown", unknown.log_id)
    assert finding.ranges == (Range(1, finding.count),)
    assert (
        finding.what == f"nothing of log {finding.log_id} is in the lake: {finding.count} records are missing"
    )
    assert main(["lake", "verify", str(other), "--lake", str(lake)]) == 3
    said = capsys.readouterr()
    assert f"MISSING {finding.what}" in said.out
    assert "NOT equal to its journals" in said.out
    assert "records 1 to 0" not in said.out
    assert "holdfast lake project" in said.err


def test_projector_that_lags_is_no_damage(tmp_path):
    """Records behind the watermark are not expected yet; how far it is behind is told."""
    clock = ManualClock(START_NS)
    log = WriteAheadLog(tmp_path / "log", clock=clock)
    log.append(
        "API_CALL", {"api": "a", "endpoint": "/", "method": "GET", "status_code": 200, "latency_ms": 1.0}
    )
    lake = project(tmp_path / "lake", tmp_path / "log")
    log.append(
        "API_CALL", {"api": "a", "endpoint": "/", "method": "GET", "status_code": 200, "latency_ms": 2.0}
    )
    report = verify_lake(lake, [tmp_path / "log"])
    log.close()
    assert report.ok
    compared = next(one for one in report.compared if one.table == "api_calls")
    assert (compared.rows, compared.journal - compared.covered) == (1, 1)


def test_table_of_another_schema_is_named(lake, log, tmp_path):
    """A table with another column type is not compared, and named."""
    other = store_of(str(tmp_path / "other"))
    write_deltalake(other.table_uri("fills"), pa.table({"event_id": [1], "seq": [2]}))
    finding = verify_lake(other, [log]).findings[0]
    assert finding.kind == "schema"
    assert "column 'event_id' is int64, expected string" in finding.what


def test_place_without_a_lake_is_refused(tmp_path, log):
    """A directory without a table is no lake."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="there is no Delta table"):
        verify_lake(store_of(str(tmp_path / "empty")), [log])


def test_torn_commit_behind_a_checkpoint_is_named_and_the_rows_compared(lake, log):
    """A commit that a checkpoint covers is needed by no row: its damage is told, and hides no other."""
    table = lake.open("orders")
    table.create_checkpoint()
    torn = lake.path / "orders" / "_delta_log" / f"{1:020d}.json"
    os.truncate(torn, 200)
    live_files(lake, "fills")[0].unlink()
    found = {(one.table, one.kind) for one in verify_lake(lake, [log]).findings}
    assert found == {("orders", "unreadable"), ("fills", "unreadable"), ("fills", "missing")}


def test_torn_delta_log_is_damage(lake, log):
    """A table whose log cannot be read ends the comparison with exit code 3."""
    commit = lake.path / "risk_events" / "_delta_log" / "00000000000000000001.json"
    commit.write_bytes(commit.read_bytes()[:-30])
    with pytest.raises(LakeDamaged):
        verify_lake(lake, [log])


def test_verify_changes_nothing(lake, log):
    """Comparing writes no file and no version."""

    def state():
        return {path: path.stat().st_mtime_ns for path in lake.path.rglob("*") if path.is_file()}

    before = state()
    verify_lake(lake, [log])
    assert state() == before
    assert DeltaTable(lake.table_uri("fills")).transaction_version(app_id("x")) is None


def test_command_says_so_and_ends_with_3(lake, log, capsys):
    """The command prints each table, then the verdict; damage ends with 3, equality with 0."""
    words = ["lake", "verify", str(log), "--lake", str(lake)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "equal to its journals" in said
    assert said.count("  root ") == 5
    _append(lake, "fills", rows_of(lake, "fills")[:1])
    assert main(words) == 3
    assert "DAMAGED fills: 1 rows stand there more than once" in capsys.readouterr().out
    assert main([*words, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["findings"][0]["kind"] == "duplicate"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lake", "verify", "--lake", "lake"], "no journal is named"),
        (["lake", "verify", "nowhere", "--lake", "lake"], "no audit log at"),
        (["lake", "verify", "log", "--lake", "nowhere"], "there is no Delta table"),
    ],
)
@pytest.mark.usefixtures("log", "lake")
def test_command_names_what_is_not_there(words, said, tmp_path, monkeypatch, capsys):
    """What is not there is named, with exit code 1."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    assert said in capsys.readouterr().err
    assert not Path("nowhere").exists()
