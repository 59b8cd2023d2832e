"""`lake rebuild`: the identical row set, from journals or their archive; the lake before is kept until it is whole."""

import errno
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from support.lake import all_rows, make_journal, project
from support.s3 import moto_store

from holdfast.cli.main import main
from holdfast.config import key_home
from holdfast.core.clock import ManualClock, SystemClock
from holdfast.core.errors import AuditCorruption, BadInput
from holdfast.lake import commit
from holdfast.lake import rebuild as rebuilding
from holdfast.lake.joined import journals_of
from holdfast.lake.projector import Projector
from holdfast.lake.rebuild import rebuild
from holdfast.lake.repair import Guard
from holdfast.lake.store import store_of
from holdfast.lake.verify import verify_lake

pytestmark = pytest.mark.invariant("I10")
LATER = 1_764_500_000 * 10**9


def _others(lake):
    return sorted(path.name for path in lake.path.parent.iterdir() if path.name.startswith("lake."))


@pytest.mark.contract("B8")
def test_rebuilt_lake_has_the_identical_rows(lake, log):
    """Every row of every table is there again, equal in every column, and the lake before is kept beside it."""
    before = all_rows(lake)
    told: list[str] = []
    done = rebuild(lake, [log], clock=SystemClock(), tell=told.append)
    assert all_rows(lake) == before
    assert done.rows == {name: len(rows) for name, rows in before.items()}
    assert done.rate > 0
    assert _others(lake) == [Path(done.replaced).name]
    assert all_rows(store_of(done.replaced)) == before
    assert any("order 2025-11-20" in one for one in told)
    assert verify_lake(lake, [log]).ok


def test_lost_lake_is_made_anew_from_several_journals(tmp_path, log):
    """Where there is no lake any more, its journals give the same rows as projecting them did."""
    other = make_journal(tmp_path / "other", events=20, seed=9)
    before = all_rows(project(tmp_path / "gone", log, other))
    shutil.rmtree(tmp_path / "gone")
    new = store_of(str(tmp_path / "gone"))
    done = rebuild(new, [log, other], clock=ManualClock(LATER))
    assert all_rows(new) == before
    assert done.replaced == ""


def test_projector_goes_on_where_a_rebuild_ended(tmp_path, lake, log):
    """After a rebuild a projector adds nothing twice, and what comes later once."""
    rebuild(lake, [log], clock=ManualClock(LATER))
    before = all_rows(lake)
    projector = Projector([log], lake, clock=SystemClock())
    projector.start()
    projector.run(follow=False, wait=lambda _: True)
    projector.close()
    assert all_rows(lake) == before
    assert verify_lake(lake, [log]).ok


def test_heavy_rows_are_written_in_several_commits(lake, log, monkeypatch):
    """A rebuild holds no more than so many bytes of journal, whatever the number of rows, and gives the same rows."""
    commits = []
    whole = commit.TableWriter.commit
    monkeypatch.setattr(
        commit.TableWriter, "commit", lambda *args: (commits.append(len(args[1])), whole(*args))
    )
    monkeypatch.setattr(rebuilding, "BATCH_BYTES", 4_000)
    monkeypatch.setattr(rebuilding, "PIECE_RECORDS", 5)
    expected = all_rows(lake)
    rebuild(lake, [log], clock=ManualClock(LATER))
    assert all_rows(lake) == expected
    assert max(commits) < 20


def test_force_fills_the_tables_in_place(lake, log):
    """With force nothing is kept beside, and rows that should not be there are gone."""
    expected = all_rows(lake)
    project(lake, make_journal(lake.path.parent / "strange", events=20, seed=3))
    done = rebuild(lake, [log], clock=ManualClock(LATER), force=True)
    assert all_rows(lake) == expected
    assert (done.replaced, _others(lake)) == ("", [])


def _files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("force", [False, True])
def test_directory_that_holds_other_things_is_neither_changed_nor_emptied(lake, log, force):
    """Other things beside the tables, which a rebuild would move away or fill up further, are refused by name."""
    (lake.path / "notes.txt").write_text("mine")
    before = _files(lake.path)
    with pytest.raises(BadInput, match=r"it holds other things, such as 'notes.txt'") as why:
        rebuild(lake, [log], clock=ManualClock(LATER), force=force)
    assert "--force" not in why.value.hint
    assert _files(lake.path) == before


def test_table_that_is_another_s_is_not_emptied(lake, log):
    """A Delta table under one of the names that holdfast did not make survives `--force`, and so do the others."""
    shutil.rmtree(lake.path / "orders")
    write_deltalake(lake.table_uri("orders"), pa.table({"event_id": ["a"], "amount": [2]}))
    before = _files(lake.path)
    with pytest.raises(BadInput, match="the table 'orders' is another's: it has no column 'seq'"):
        rebuild(lake, [log], clock=ManualClock(LATER), force=True)
    assert _files(lake.path) == before


def test_place_of_a_table_that_holds_files_is_refused_before_anything_is_emptied(lake, log):
    """A directory with files where a table would be made is named while every other table is still there."""
    shutil.rmtree(lake.path / "decisions")
    (lake.path / "decisions").mkdir()
    (lake.path / "decisions" / "mine.csv").write_text("a,b")
    before = _files(lake.path)
    with pytest.raises(BadInput, match=r"'decisions' is no Delta table: it holds 'mine.csv'"):
        rebuild(lake, [log], clock=ManualClock(LATER), force=True)
    assert _files(lake.path) == before


def test_what_a_killed_self_test_left_is_no_other_thing(lake, log):
    """A lake with the remains of a self-test is rebuilt, and forced, like any other; torn tables too."""
    (lake.path / "_selftest").mkdir()
    commit = lake.path / "fills" / "_delta_log" / f"{1:020d}.json"
    commit.write_bytes(commit.read_bytes()[:-30])
    for emptied in (lake.path / "orders" / "_delta_log").iterdir():
        emptied.unlink()
    rebuild(lake, [log], clock=ManualClock(LATER), force=True)
    assert verify_lake(lake, [log]).ok
    (lake.path / "_selftest").mkdir(exist_ok=True)
    rebuild(lake, [log], clock=ManualClock(LATER))
    assert verify_lake(lake, [log]).ok


def test_projector_that_waited_for_a_rebuild_holds_the_new_lake(lake, log):
    """Who waited for the old directory's lock holds the one that took its place: no second rebuild goes behind him."""
    waiting = Guard(lake.path)
    rebuild(lake, [log], clock=ManualClock(LATER))
    waiting.share()
    try:
        with pytest.raises(BadInput, match="a projector works in it"):
            rebuild(lake, [log], clock=ManualClock(LATER))
    finally:
        waiting.release()


def test_lake_that_a_projector_works_in_is_refused(lake, log):
    """A rebuild does not take the tables away from under a projector."""
    guard = Guard(lake.path)
    guard.share()
    try:
        with pytest.raises(BadInput, match="a projector works in it") as why:
            rebuild(lake, [log], clock=ManualClock(LATER))
    finally:
        guard.release()
    assert "stop" in why.value.hint
    assert _others(lake) == []


@pytest.mark.contract("B8")
def test_full_disk_leaves_the_lake_as_it_was(lake, log, monkeypatch, capsys):
    """No space for the new lake: the old one stays, what was begun is gone, exit code 4 with the reason."""
    before = all_rows(lake)
    real, left = commit.write_new, [4]

    def no_space(path, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(commit, "write_new", no_space)
    assert main(["lake", "rebuild", str(log), "--lake", str(lake)]) == 4
    assert "no space left on device" in capsys.readouterr().err
    assert all_rows(lake) == before
    assert _others(lake) == []


def test_interruption_leaves_the_lake_as_it_was(lake, log, monkeypatch):
    """Whatever ends a rebuild before its last step leaves the old lake in its place and nothing beside it."""
    before = all_rows(lake)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rebuilding, "_put_in_place", stop)
    with pytest.raises(KeyboardInterrupt):
        rebuild(lake, [log], clock=ManualClock(LATER))
    assert all_rows(lake) == before
    assert _others(lake) == []


def test_places_are_changed_also_where_the_kernel_cannot_exchange(lake, log, monkeypatch):
    """Without an exchange in one step three renames do the same."""

    class _Libc:
        def renameat2(self, *_):
            return -1

    monkeypatch.setattr(rebuilding.ctypes, "CDLL", lambda *_, **__: _Libc())
    monkeypatch.setattr(rebuilding.ctypes, "get_errno", lambda: errno.EINVAL)
    before = all_rows(lake)
    done = rebuild(lake, [log], clock=ManualClock(LATER))
    assert all_rows(lake) == before
    assert _others(lake) == [Path(done.replaced).name]


def test_damaged_journal_is_named_and_nothing_changes(lake, log):
    """A journal that is damaged makes no lake."""
    before = all_rows(lake)
    segment = min(log.glob("audit_*.log*"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    with pytest.raises(AuditCorruption):
        rebuild(lake, [log], clock=ManualClock(LATER))
    assert all_rows(lake) == before
    assert _others(lake) == []


def test_journal_named_twice_counts_once(lake, log, tmp_path):
    """A copy of a journal beside it adds no row."""
    before = all_rows(lake)
    shutil.copytree(log, tmp_path / "copy")
    rebuild(lake, [log, tmp_path / "copy"], clock=ManualClock(LATER))
    assert all_rows(lake) == before


def test_two_histories_of_one_log_are_refused(tmp_path):
    """Two directories that bear one log's id and disagree are damage."""
    one = make_journal(tmp_path / "one", days=1, events=20, log_id=b"x" * 16)
    two = make_journal(tmp_path / "two", days=2, events=20, seed=8, log_id=b"x" * 16)
    joined = journals_of([one, two])[0]
    with pytest.raises(AuditCorruption, match="audit log replaced"):
        list(iter(lambda: joined.read(1000), None))
    joined.close()


@pytest.mark.slow
def test_archive_brings_the_lake_back(tmp_path, capsys, monkeypatch):
    """From an archive, or a pruned journal with the archive of its beginning, come the identical rows."""
    log = make_journal(tmp_path / "log", days=3, events=300, home=key_home())
    lake = project(tmp_path / "lake", log, rows_per_commit=5000)
    before = all_rows(lake)
    with moto_store() as store:
        for name, value in store.environ.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{store.make()}/desk"
        assert main(["audit", "archive", str(log), url]) == 0
        assert main(["lake", "verify", "--archive", url, "--lake", str(lake)]) == 0
        assert "equal to its journals" in capsys.readouterr().out
        new = store_of(str(tmp_path / "new"))
        assert main(["lake", "rebuild", "--archive", url, "--lake", str(new), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["rows"]["risk_events"] == len(before["risk_events"])
        assert said["rate"] > 0
        assert all_rows(new) == before
        assert main(["audit", "prune", str(log), url, "--older-than", "1d"]) == 0
        assert main(["lake", "verify", str(log), "--lake", str(lake)]) == 0
        assert "are pruned and their rows not compared" in capsys.readouterr().err
        assert main(["lake", "rebuild", str(log), "--lake", str(lake)]) == 1
        assert f"--archive {url}" in capsys.readouterr().err
        assert main(["lake", "rebuild", str(log), "--archive", url, "--lake", str(lake)]) == 0
        assert main(["lake", "verify", str(log), "--archive", url, "--lake", str(lake)]) == 0
    assert all_rows(lake) == before
