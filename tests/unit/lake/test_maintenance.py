"""What is due when, and that doing it changes no row."""

import itertools
import os
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from support.lake import START_NS, all_rows, live_files, make_journal, project

from holdfast.cli.main import main
from holdfast.core.clock import ManualClock, SystemClock
from holdfast.core.errors import ConfigError
from holdfast.lake import maintenance
from holdfast.lake.due import Action, Facts, LiveFile, MaintenancePolicy, Step, due, end_ns
from holdfast.lake.maintenance import Maintainer, facts_of
from holdfast.lake.sql import Lake
from holdfast.lake.store import store_of

pytestmark = pytest.mark.contract("B8")

TESTS = str(Path(__file__).resolve().parents[2])
DAY = date(2025, 11, 20)
HOUR = 3600 * 10**9
POLICY = MaintenancePolicy()
NOON = end_ns(DAY) - 12 * HOUR
MIDNIGHT = end_ns(DAY)
TWO_AT_NIGHT = MIDNIGHT + 2 * HOUR
BIG = 32 << 20


def _files(count: int, written_ns: int, size: int = 10_000) -> tuple[LiveFile, ...]:
    return tuple(LiveFile(size, written_ns, 10) for _ in range(count))


def _facts(days, *, version=10, checkpoint=0, vacuumed_ns=NOON, full_ns=NOON) -> Facts:
    return Facts(version, checkpoint, days, vacuumed_ns, full_ns)


@pytest.mark.parametrize(
    ("files", "now_ns", "wanted"),
    [
        (_files(64, NOON), NOON, None),
        (_files(65, NOON), NOON, Action.COMPACT),
        (_files(65, NOON, BIG), NOON, None),
        (_files(2, NOON - HOUR), NOON, Action.COMPACT),
        (_files(1, NOON - HOUR), NOON, None),
        (_files(2, NOON - HOUR + 1), NOON, None),
        (_files(1, NOON), MIDNIGHT + HOUR - 1, None),
        (_files(1, NOON), MIDNIGHT + HOUR, Action.ORDER),
        (_files(1, MIDNIGHT - 1), MIDNIGHT + HOUR, Action.ORDER),
        (_files(3, NOON), TWO_AT_NIGHT, Action.ORDER),
        (_files(1, TWO_AT_NIGHT), TWO_AT_NIGHT + 9 * HOUR, None),
        (_files(2, TWO_AT_NIGHT, 128 << 20), TWO_AT_NIGHT + HOUR, None),
        (_files(1, TWO_AT_NIGHT) + _files(1, TWO_AT_NIGHT + HOUR), TWO_AT_NIGHT + 2 * HOUR, Action.ORDER),
        (_files(1, NOON) + _files(1, TWO_AT_NIGHT), TWO_AT_NIGHT + HOUR - 1, None),
        (_files(40, TWO_AT_NIGHT), TWO_AT_NIGHT + HOUR, Action.ORDER),
    ],
)
def test_day_is_compacted_while_open_and_ordered_once_when_closed(files, now_ns, wanted):
    """Many or old small files are compacted; an hour after its end and last file a day is ordered, and only once."""
    facts = _facts({DAY: files}, vacuumed_ns=now_ns, full_ns=now_ns)
    assert due(facts, POLICY, now_ns) == (() if wanted is None else (Step(wanted, DAY),))


def test_checkpoint_and_vacuum_are_due_by_commits_and_by_time():
    """A checkpoint comes after 100 commits, a vacuum after a day, a full one after a week and in its place."""
    assert due(_facts({}, version=99), POLICY, NOON) == ()
    assert due(_facts({}, version=100), POLICY, NOON) == (Step(Action.CHECKPOINT),)
    assert due(_facts({}), POLICY, NOON + 24 * HOUR) == (Step(Action.VACUUM),)
    assert due(_facts({}), POLICY, NOON + 7 * 24 * HOUR) == (Step(Action.FULL_VACUUM),)


def test_policy_is_refused_with_every_field_that_is_wrong():
    """A policy that cannot be meant names all its fields at once."""
    with pytest.raises(
        ConfigError, match=r"compact_files=0 is not positive; .*retention_secs=-1 is negative"
    ):
        MaintenancePolicy(compact_files=0, retention_secs=-1)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    home = tmp_path_factory.mktemp("template")
    return project(home / "lake", make_journal(home / "log", events=200), rows_per_commit=10)


@pytest.fixture
def lake(tmp_path, template):
    shutil.copytree(template.path, tmp_path / "lake")
    return store_of(str(tmp_path / "lake"))


LATER = START_NS + 5 * 24 * HOUR


def _two_hours_after(lake) -> ManualClock:
    """Two hours after the newest file was written, by the machine's clock as delta-rs's files are."""
    newest_ns = max(path.stat().st_mtime_ns for path in live_files(lake, "risk_events"))
    return ManualClock(newest_ns + 2 * HOUR)


def _all(lake, **policy):
    policy_ = MaintenancePolicy(retention_secs=0, **policy)
    return Maintainer(lake, clock=ManualClock(LATER), policy=policy_).run("risk_events", everything=True)


@pytest.mark.invariant("I10")
def test_everything_keeps_each_row_and_leaves_one_file_a_day(lake):
    """After ordering, checkpoint, vacuum and clean-up the rows are the same, in one file for each day."""
    before = all_rows(lake)
    assert len(live_files(lake, "risk_events")) > 10
    done = _all(lake)
    assert [one.step.action for one in done] == [
        Action.ORDER, Action.ORDER, Action.CHECKPOINT, Action.FULL_VACUUM,
    ]  # fmt: skip
    assert all_rows(lake) == before
    assert len(live_files(lake, "risk_events")) == 2
    assert len(list((lake.path / "risk_events").glob("event_date=*/*.parquet"))) == 2


@pytest.mark.invariant("I10")
def test_every_reader_sees_the_same_rows_after_compaction(lake):
    """Polars, deltalake and DuckDB over the file list read the ordered table alike."""
    _all(lake)
    expected = all_rows(lake)["risk_events"]
    frame = pl.read_delta(lake.table_uri("risk_events")).sort("event_id")
    assert frame["seq"].to_list() == [row["seq"] for row in expected]
    assert pl.scan_delta(lake.table_uri("risk_events")).select(pl.len()).collect().item() == len(expected)
    assert frame.columns == lake.open("risk_events").to_pyarrow_table().column_names
    with Lake(lake) as asked:
        answer = asked.ask("SELECT * FROM risk_events ORDER BY event_id")
    assert answer.column_names == frame.columns
    assert answer.to_pylist() == expected


def test_ordered_files_are_sorted_by_execution_within_a_day(lake):
    """An ordered day holds the rows of one execution side by side."""
    _all(lake)
    for path in live_files(lake, "risk_events"):
        ids = [one for one in pl.read_parquet(path)["execution_id"].to_list() if one is not None]
        assert sum(one != other for one, other in itertools.pairwise(ids)) == len(set(ids)) - 1


def test_ordered_files_are_encoded_for_small_size(lake):
    """What grows with the log is stored as differences, everything in zstd, in bounded row groups."""
    _all(lake)
    for path in live_files(lake, "risk_events"):
        group = pq.ParquetFile(path).metadata.row_group(0)
        columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
        assert {column.compression for column in columns.values()} == {"ZSTD"}
        assert "DELTA_BINARY_PACKED" in columns["seq"].encodings
        assert "DELTA_BYTE_ARRAY" in columns["event_id"].encodings
        assert "RLE_DICTIONARY" in columns["event_type"].encodings


def test_compaction_of_open_days_keeps_the_order_of_the_log(lake):
    """An open day's files become one, in the order in which they came."""
    maintainer = Maintainer(lake, clock=ManualClock(START_NS), policy=MaintenancePolicy(compact_files=2))
    steps = maintainer.run("risk_events", everything=True)
    assert {one.step.action for one in steps} >= {Action.COMPACT}
    seqs = pl.concat([pl.read_parquet(path)["seq"] for path in sorted(live_files(lake, "risk_events"))])
    assert seqs.sort().to_list() == sorted(seqs.to_list())
    assert len(live_files(lake, "risk_events")) == 2


def test_what_is_due_is_done_and_then_nothing_is(lake):
    """`run` does what is due of the table's own facts; asked again at once, nothing is."""
    maintainer = Maintainer(lake, clock=_two_hours_after(lake))
    first = maintainer.run("risk_events")
    assert Action.ORDER in {one.step.action for one in first}
    assert maintainer.run("risk_events") == []
    facts = facts_of(lake.open("risk_events"), -1)
    assert (facts.rows, facts.files) == (160, 2)


def test_vacuum_leaves_what_is_younger_than_its_retention(lake):
    """Files that ordering replaced stay for readers of older versions, and go when they are old."""
    maintainer = Maintainer(lake, clock=ManualClock(LATER))
    maintainer.run("risk_events", everything=True)
    folder = lake.path / "risk_events"
    kept = list(folder.glob("event_date=*/*.parquet"))
    assert len(kept) > 2
    assert pl.scan_delta(lake.table_uri("risk_events"), version=2).select(pl.len()).collect().item() > 0


def test_log_entries_behind_a_checkpoint_go_when_they_are_old(lake):
    """Clean-up removes commits that are older than the log's retention and in a checkpoint."""
    log = lake.path / "risk_events" / "_delta_log"
    maintainer = Maintainer(lake, clock=ManualClock(LATER))
    maintainer.run("risk_events", everything=True)
    old = START_NS // 10**9 - 30 * 86_400
    for path in log.iterdir():
        os.utime(path, (old, old))
    before, rows = len(list(log.glob("*.json"))), all_rows(lake)
    maintainer.run("risk_events", everything=True)
    assert len(list(log.glob("*.json"))) < before
    assert all_rows(lake) == rows


def test_what_maintenance_writes_is_synced_before_anything_is_removed(lake, monkeypatch):
    """Each new version and checkpoint is synced; vacuum comes behind the sync of its checkpoint."""
    told: list[str] = []
    monkeypatch.setattr(
        maintenance, "sync_versions", lambda table, first, last: told.append(f"{table.name} {first}-{last}")
    )
    monkeypatch.setattr(maintenance, "sync_checkpoint", lambda table: told.append(f"{table.name} checkpoint"))
    version = lake.open("risk_events").version()
    _all(lake)
    assert told[:4] == [
        f"risk_events {version + 1}-{version + 1}",
        f"risk_events {version + 2}-{version + 2}",
        "risk_events checkpoint",
        "risk_events checkpoint",
    ]


def test_after_commit_looks_seldom_and_says_when_the_table_changed(lake):
    """The projector's call is cheap between looks, compacts when a look finds it due, and then says so."""
    maintainer = Maintainer(lake, clock=ManualClock(START_NS), policy=MaintenancePolicy(compact_files=3))
    table = lake.open("risk_events")
    said = [maintainer.after_commit("risk_events", table) for _ in range(maintainer.LOOK_COMMITS)]
    assert said == [False] * (maintainer.LOOK_COMMITS - 1) + [True]
    assert len(live_files(lake, "risk_events")) == 2


def test_closed_day_is_ordered_by_a_process_of_its_own(lake, monkeypatch):
    """With `order_apart` a child orders the day while commits go on; its end is seen at the next call."""
    monkeypatch.setattr(Maintainer, "LOOK_COMMITS", 1)
    told: list[str] = []
    maintainer = Maintainer(lake, clock=_two_hours_after(lake), tell=told.append, order_apart=True)
    rows = all_rows(lake)
    assert maintainer.after_commit("risk_events", lake.open("risk_events")) is False
    assert any("begun by a process of its own" in one for one in told)
    maintainer.close()
    facts = facts_of(lake.open("risk_events"), -1)
    assert min(map(len, facts.days.values())) == 1
    assert all_rows(lake) == rows


def test_alarms_name_what_is_too_large(lake):
    """A log, a number of files or an opening beyond its bound is told with both numbers."""
    policy = MaintenancePolicy(log_alarm_bytes=1, files_alarm=1, open_alarm_secs=1e-9, memory_alarm_bytes=1)
    alarms = Maintainer(lake, clock=SystemClock(), policy=policy).alarms("risk_events")
    assert len(alarms) == 4
    for alarm, word in zip(
        alarms, ("bytes of log", "live files", "s to open", "bytes of memory"), strict=True
    ):
        assert word in alarm
    # Nothing of this process's own size, nor of how busy its machine is.
    quiet = MaintenancePolicy(open_alarm_secs=600.0, memory_alarm_bytes=1 << 50)
    assert Maintainer(lake, clock=SystemClock(), policy=quiet).alarms("orders") == []


def test_command_does_what_is_due(lake, tmp_path, capsys):
    """`lake maintain` prints each action; a day can be ordered alone; wrong names are suggested."""
    words = ["lake", "maintain", "--lake", str(lake)]
    assert main([*words, "--table", "risk_events", "--day", str(DAY)]) == 0
    assert f"risk_events: order {DAY}: " in capsys.readouterr().out
    assert main([*words, "--day", str(DAY + timedelta(days=40))]) == 0
    assert "nothing is due" in capsys.readouterr().out
    assert main([*words, "--table", "risk_event"]) == 1
    assert "did you mean 'risk_events'?" in capsys.readouterr().err
    assert main([*words, "--day", "yesterday"]) == 1
    assert "is not a day" in capsys.readouterr().err
    assert main(["lake", "maintain", "--lake", str(tmp_path / "nowhere")]) == 1
    assert "there is no Delta table" in capsys.readouterr().err


_APPENDER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.lake import project
project(Path(sys.argv[2]), Path(sys.argv[3]), rows_per_commit=5)
"""


@pytest.mark.slow
@pytest.mark.invariant("I10")
def test_compaction_that_races_with_two_appenders_loses_nothing(tmp_path):
    """Two processes append while a third compacts, orders and vacuums: each row is there once."""
    from holdfast.lake.verify import verify_lake

    logs = [make_journal(tmp_path / f"log-{n}", events=150, seed=n, days=1) for n in (1, 2)]
    lake = store_of(str(tmp_path / "lake"))
    project(lake, make_journal(tmp_path / "log-0", events=20, seed=3, days=1))
    racers = [
        subprocess.Popen([sys.executable, "-c", _APPENDER, TESTS, str(lake.path), str(log)]) for log in logs
    ]
    policy, rewritten = MaintenancePolicy(compact_files=2), 0
    maintainer = Maintainer(lake, clock=ManualClock(LATER), policy=policy)
    while any(racer.poll() is None for racer in racers):
        for name in ("risk_events", "orders"):
            rewritten += sum(one.added for one in maintainer.run(name, everything=True))
    assert [racer.wait() for racer in racers] == [0, 0]
    assert rewritten > 2
    report = verify_lake(lake, [tmp_path / "log-0", *logs])
    assert report.ok, report.findings
    assert sum(one.rows for one in report.compared) == 320
