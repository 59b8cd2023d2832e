"""What a power cut tore from a table, and how it is mended: every row of the decision table."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable
from support.lake import make_journal, project, rows_of

from holdfast.core.clock import SystemClock
from holdfast.core.errors import LakeDamaged
from holdfast.lake.commit import Lost, Span, TableWriter
from holdfast.lake.durable import SYNCED, actions_of, commit_path, forget_versions, sync_checkpoint
from holdfast.lake.repair import QUARANTINE, Guard, Verdict, judge, repair
from holdfast.lake.store import store_of
from holdfast.lake.tables import RiskEventsTable

NAME = RiskEventsTable.name


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A lake of one journal, risk_events in versions 0 to 5, and its journal."""
    folder = tmp_path_factory.mktemp("lake")
    make_journal(folder / "log", days=1, events=500)
    project(folder / "lake", folder / "log", rows_per_commit=40)
    assert DeltaTable(folder / "lake" / NAME).version() == 5
    return folder


@pytest.fixture
def lake(made, tmp_path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def table_of(lake: Path) -> Path:
    return lake / "lake" / NAME


def data_of(table: Path, version: int) -> Path:
    (name,) = [one.add.name for one in actions_of(commit_path(table, version).read_bytes()) if one.add]
    return table / name


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def empty(path: Path) -> None:
    os.truncate(path, 0)


def zeroed(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def hole(path: Path) -> None:
    """A page in the middle was never written."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 200 : middle + 200] = bytes(400)
    path.write_bytes(data)


def without_watermark(path: Path) -> None:
    """Cut off behind a line: rows, and nothing that covers them."""
    path.write_bytes(path.read_bytes().rpartition(b"\n")[0])


def without_data(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(line for line in lines if b'"add"' not in line))


def checkpoint(table: Path) -> None:
    DeltaTable(table).create_checkpoint()
    sync_checkpoint(table)


FAULTS = [
    ("commit", empty, Verdict.EMPTY),
    ("commit", zeroed, Verdict.EMPTY),
    ("commit", halved, Verdict.TORN),
    ("commit", hole, Verdict.TORN),
    ("commit", without_watermark, Verdict.INCOMPLETE),
    ("commit", without_data, Verdict.INCOMPLETE),
    ("data", Path.unlink, Verdict.DATA_MISSING),
    ("data", empty, Verdict.DATA_SHORT),
    ("data", halved, Verdict.DATA_SHORT),
    ("data", zeroed, Verdict.DATA_TORN),
    ("data", hole, Verdict.DATA_TORN),
]


def assert_mended(lake: Path, stays: int) -> None:
    """The table opens at version *stays*, and projecting again makes it equal the journal."""
    store = store_of(str(lake / "lake"))
    assert DeltaTable(table_of(lake)).version() == stays
    project(store, lake / "log", rows_per_commit=40)
    found = rows_of(store, NAME)
    assert len(found) == len({row["seq"] for row in found}) == 200
    assert repair(table_of(lake), "again") == []


@pytest.mark.parametrize(("which", "fault", "verdict"), FAULTS)
@pytest.mark.parametrize("version", [5, 3])
@pytest.mark.invariant("I10")
def test_torn_version_is_moved_aside_and_projected_again(lake, which, fault, verdict, version):
    """A version that a power cut tore, and those behind it, are moved aside; projecting again brings every row back."""
    table = table_of(lake)
    fault(commit_path(table, version) if which == "commit" else data_of(table, version))
    assert judge(table, version)[0] is verdict
    moved = repair(table, "now")
    assert [one.name for one in moved] == [f"{at:020d}.json" for at in range(5, version - 1, -1)]
    assert moved[-1].why == str(verdict)
    assert sorted(names(table / QUARANTINE / "now")) == sorted(one.name for one in moved)
    assert_mended(lake, version - 1)


@pytest.mark.invariant("I10")
def test_commit_cut_at_any_byte_is_not_whole(made, tmp_path):
    """No beginning of a commit passes for the whole one, at whatever byte it was cut."""
    table = table_of(made)
    data = commit_path(table, 5).read_bytes()
    copy = tmp_path / NAME
    (copy / "_delta_log").mkdir(parents=True)
    (copy / data_of(table, 5).parent.name).mkdir()
    os.link(data_of(table, 5), copy / data_of(table, 5).parent.name / data_of(table, 5).name)
    for end in [*range(0, len(data) - 1, 7), len(data) - 2, len(data) - 1]:
        commit_path(copy, 5).write_bytes(data[:end])
        assert judge(copy, 5)[0] is not Verdict.WHOLE, end
    commit_path(copy, 5).write_bytes(data)
    assert judge(copy, 5)[0] is Verdict.WHOLE


def test_whole_table_is_left_alone(lake):
    """Nothing is moved where nothing is torn, with a checkpoint and without one; a missing table is whole."""
    table = table_of(lake)
    assert repair(table, "now") == []
    checkpoint(table)
    assert repair(table, "now") == []
    assert not (table / QUARANTINE).exists()
    assert repair(lake / "lake" / "nothing", "now") == []


def test_versions_behind_a_gap_are_moved_aside(lake):
    """Where a version's name was lost, those behind it are no part of the table."""
    commit_path(table_of(lake), 4).unlink()
    assert [one.why for one in repair(table_of(lake), "now")] == [f"version 4 before it: {Verdict.GAP}"]
    assert_mended(lake, 3)


@pytest.mark.parametrize("fault", [empty, halved, zeroed, hole, Path.unlink])
def test_torn_checkpoint_gives_way_to_the_commits(lake, fault):
    """A torn or missing checkpoint is moved aside with its pointer; the commits before it take its place."""
    table = table_of(lake)
    checkpoint(table)
    fault(table / "_delta_log" / f"{5:020d}.checkpoint.parquet")
    moved = [one.name for one in repair(table, "now")]
    assert moved[0] == "_last_checkpoint"
    assert_mended(lake, 5)


def test_checkpoint_that_was_never_synced_is_not_believed(lake):
    """A checkpoint that nobody vouches for is moved aside, also where it can be read, unless nothing else is left."""
    table = table_of(lake)
    DeltaTable(table).create_checkpoint()
    assert [one.why for one in repair(table, "now")][1:] == ["it was never synced"]
    DeltaTable(table).create_checkpoint()
    for version in range(5):
        commit_path(table, version).unlink()
    assert repair(table, "now") == []
    assert DeltaTable(table).version() == 5
    (table / SYNCED).write_bytes(b"torn")
    assert repair(table, "now") == []


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b'{"version":', b'{"version":9}', b"[]"])
def test_torn_pointer_is_moved_aside(lake, content):
    """A `_last_checkpoint` that says nothing, or points to nothing, is moved aside alone."""
    table = table_of(lake)
    checkpoint(table)
    (table / "_delta_log" / "_last_checkpoint").write_bytes(content)
    assert [one.name for one in repair(table, "now")] == ["_last_checkpoint"]
    assert_mended(lake, 5)


def test_checkpoint_over_a_torn_version_goes_first(lake):
    """A checkpoint that covers a torn version would hide it: pointer, checkpoint, then commits are moved, in this order."""
    table = table_of(lake)
    checkpoint(table)
    hole(data_of(table, 4))
    assert [one.name for one in repair(table, "now")] == [
        "_last_checkpoint", f"{5:020d}.checkpoint.parquet", f"{5:020d}.json", f"{4:020d}.json",
    ]  # fmt: skip
    assert_mended(lake, 3)


@pytest.mark.parametrize("steps", range(4))
def test_interrupted_repair_is_finished_by_the_next(lake, steps, monkeypatch):
    """A repair that ends after any of its moves is finished by the next one, with the same result."""
    table = table_of(lake)
    checkpoint(table)
    hole(data_of(table, 4))
    left = [steps]
    rename = Path.rename

    def stopping(self, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopping)
    with pytest.raises(KeyboardInterrupt):
        repair(table, "now")
    monkeypatch.setattr(Path, "rename", rename)
    repair(table, "now")
    assert_mended(lake, 3)


def test_compacted_files_are_not_missed(lake):
    """A data file that a later version let go, and a vacuum removed, is no fault; a torn compaction gives it back."""
    table = table_of(lake)
    delta = DeltaTable(table)
    delta.optimize.compact()
    data = [data_of(table, version) for version in range(1, 6)]
    kept = [path.read_bytes() for path in data]
    for path in data:
        path.unlink()
    assert repair(table, "now") == []
    for path, content in zip(data, kept, strict=True):
        path.write_bytes(content)
    lines = commit_path(table, 6).read_bytes().splitlines()
    commit_path(table, 6).write_bytes(b"\n".join(lines[:-1]))  # what it removes, and not what it adds
    assert [one.why for one in repair(table, "now")] == [str(Verdict.INCOMPLETE)]
    assert_mended(lake, 5)


def test_torn_creation_is_undone(tmp_path):
    """A table of which nothing was ever whole is made anew."""
    table = tmp_path / NAME
    log = table / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020d}.json").write_bytes(b'{"commitInfo":{}}\n{"protocol":{"minReaderVersion":1}}')
    assert [one.why for one in repair(table, "now")] == [str(Verdict.INCOMPLETE)]
    assert names(log) == []


@pytest.mark.parametrize("fault", [Path.unlink, empty])
def test_lost_beginning_is_refused(lake, fault):
    """Where neither version 0 nor a checkpoint is left, nothing is touched and the table is called damaged."""
    table = table_of(lake)
    fault(commit_path(table, 0))
    before = sorted(names(table / "_delta_log"))
    with pytest.raises(LakeDamaged, match="lacks its beginning") as raised:
        repair(table, "now")
    assert "rebuild" in raised.value.hint
    assert sorted(names(table / "_delta_log")) == before


def test_two_repairs_of_one_second_have_folders_of_their_own(lake):
    """What is moved aside never replaces what was moved before."""
    table = table_of(lake)
    for version in (5, 4):
        empty(commit_path(table, version))
        repair(table, "now")
    assert sorted(names(table / QUARANTINE)) == ["now", "now-2"]


def test_repair_waits_for_nobody_and_nobody_works_meanwhile(tmp_path):
    """While one works in the lake none may repair it; a repairer alone shares it afterwards."""
    first, second = Guard(tmp_path), Guard(tmp_path)
    assert first.alone()
    assert not second.alone()
    first.share()
    assert not second.alone()
    second.share()
    first.release()
    third = Guard(tmp_path)
    assert not third.alone()
    second.release()
    assert third.alone()
    third.release()


def test_notes_of_a_commit_say_what_it_covers(made):
    """Each commit names its journal, the range it covers, its rows and their root."""
    info = json.loads(commit_path(table_of(made), 2).read_bytes().splitlines()[0])["commitInfo"]
    (span,) = json.loads(info["holdfast"])["logs"]
    assert span["first"] <= span["last"]
    assert span["rows"] >= 40
    assert len(span["root"]) == len(span["leaf"]) == 64


def test_forgetting_old_versions_leaves_the_table_whole(lake):
    """What a synced checkpoint stands for goes, the oldest first; nothing goes without one, and no row."""
    table = table_of(lake)
    assert forget_versions(table, 1) == 0
    DeltaTable(table).create_checkpoint()
    assert forget_versions(table, 1) == 0, "nobody vouches for that checkpoint yet"
    sync_checkpoint(table)
    assert forget_versions(table, 1) == 4
    assert sorted(int(path.name[:20]) for path in (table / "_delta_log").glob("*.json")) == [4, 5]
    assert repair(table, "now") == []
    assert_mended(lake, 5)


def test_handle_older_than_the_log_commits_nothing(lake, monkeypatch):
    """A writer whose snapshot lies behind what the log still tells is lost, and its rows come with its next handle."""
    store = store_of(str(lake / "lake"))
    old = TableWriter(store, RiskEventsTable, clock=SystemClock())
    old.open()
    covered = old.watermark("cd" * 16)
    table = table_of(lake)
    other = TableWriter(store, RiskEventsTable, clock=SystemClock())
    monkeypatch.setattr("holdfast.lake.commit.CHECKPOINT_COMMITS", 3)
    monkeypatch.setattr("holdfast.lake.commit.KEPT_VERSIONS", 1)
    for last in range(1, 10):
        other.commit([], [Span("ef" * 16, last, last, 1, [], bytes(32))])
        other.tidy()
    assert not commit_path(table, 6).exists()
    with pytest.raises(Lost):
        old.commit([], [Span("cd" * 16, covered + 1, 50, 1, [], bytes(32))])
    assert old.watermark("cd" * 16) == 0
    old.commit([], [Span("cd" * 16, 1, 50, 1, [], bytes(32))])
    assert TableWriter(store, RiskEventsTable, clock=SystemClock()).watermark("cd" * 16) == 50
    assert_mended(lake, old.version)


def test_commit_below_a_checkpoint_is_found(lake, monkeypatch):
    """Where the newest version is another one than ours, and lacks our watermark, nothing is taken for committed."""
    writer = TableWriter(store_of(str(lake / "lake")), RiskEventsTable, clock=SystemClock())
    handle = writer.open()
    monkeypatch.setattr(
        writer, "_make_commit", lambda *_: [_foreign(lake), _foreign(lake), handle.update_incremental()]
    )
    with pytest.raises(Lost, match="does not hold the watermark"):
        writer.commit([], [Span("cd" * 16, 1, 50, 1, [], bytes(32))])


def _foreign(lake: Path) -> None:
    other = TableWriter(store_of(str(lake / "lake")), RiskEventsTable, clock=SystemClock())
    last = other.watermark("ef" * 16)
    other.commit([], [Span("ef" * 16, last + 1, last + 1, 1, [], bytes(32))])
