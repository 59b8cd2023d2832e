"""The projector: when it commits, where it goes on, and what it cannot go on with."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from support.journal import HandmadeLog
from support.journal import rows as plain_rows
from support.lake import all_rows, make_journal, rows_of
from support.projectors import assert_exact

from holdfast.audit.format import encode_line, leaf_hash
from holdfast.audit.head import HeadState
from holdfast.audit.projected import is_projected, note_path, read_note
from holdfast.audit.pruned import InArchive
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, BadInput, ConfigError, LakeUnreachable
from holdfast.lake import commit as commit_module
from holdfast.lake import projector as projector_module
from holdfast.lake.commit import TableWriter
from holdfast.lake.projector import Projector, ProjectorPolicy
from holdfast.lake.rebuild import rebuild
from holdfast.lake.store import LakeStore, store_of
from holdfast.lake.verify import verify_lake

pytestmark = [pytest.mark.contract("B8"), pytest.mark.invariant("I10")]

STOP = {"event_type": "trailing_stop_update", "execution_id": "e"}


def events(count: int) -> list[tuple[str, dict, str, str]]:
    return [("RISK_EVENT", {**STOP, "metadata": {"n": n}}, "desk", "trailing_stop") for n in range(count)]


class Desk:
    """A journal by hand, a lake, and projectors on a clock that is told."""

    def __init__(self, folder: Path) -> None:
        self.log = HandmadeLog(folder / "log")
        self.log.segment([])
        self.log.head(HeadState.OPEN)
        self.store: LakeStore = store_of(str(folder / "lake"))
        self.clock = ManualClock()
        self.said: list[str] = []

    def append(self, count: int) -> None:
        self.log.segment(events(count))
        self.log.head(HeadState.OPEN)

    def projector(self, *logs: Path, **policy) -> Projector:
        return Projector(
            logs or [self.log.directory], self.store, clock=self.clock, policy=ProjectorPolicy(**policy), tell=self.said.append
        )  # fmt: skip

    def project(self, *logs: Path) -> Projector:
        one = self.projector(*logs)
        try:
            one.start()
            one.run(follow=False, wait=lambda _: False)
        finally:
            one.close()
        return one

    def rows(self) -> int:
        return len(rows_of(self.store, "risk_events"))


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path)


def test_projector_commits_when_rows_are_enough_or_old_enough(desk):
    """A table is committed at its number of rows, or when the oldest has waited its time, and not before."""
    one = desk.projector(rows=10, most_rows=10, age_secs=1.0)
    one.start()
    desk.append(9)
    assert one._round(look=True)
    assert one.commits == 0
    desk.clock.advance(0.9)
    one._round(look=True)
    assert one.commits == 0
    desk.clock.advance(0.2)
    one._round(look=True)
    assert (one.commits, desk.rows()) == (1, 9)
    desk.append(9)
    one._round(look=True)
    desk.append(1)
    one._round(look=True)
    assert (one.commits, desk.rows()) == (2, 19)
    assert not one._round(look=True)
    one.close()


def test_table_without_rows_is_told_how_far_the_journal_was_read(desk):
    """After its time a table that has no rows covers the journal too, so that a restart need not read again."""
    one = desk.projector(idle_secs=60.0)
    one.start()
    desk.append(3)
    desk.clock.advance(2.0)
    one._round(look=True)
    desk.clock.advance(2.0)
    one._round(look=True)
    assert one.progress()[0].covered == 0
    desk.clock.advance(60.0)
    one._round(look=True)
    assert one.progress()[0].covered == one.progress()[0].durable == 5
    one.close()


def test_projector_takes_larger_batches_while_it_is_behind(desk):
    """Behind, it doubles its batch up to the bound; once it has caught up it is back at the usual one."""
    one = desk.projector(rows=10, most_rows=40)
    one.start()
    desk.append(400)
    sizes = []
    while one._round(look=True):
        sizes.append(one._batch)
    assert max(sizes) == 40
    assert sizes[-1] == 10
    one._finish()
    one.close()
    assert desk.rows() == 400


def test_heavy_rows_do_not_wait_for_their_number(desk, monkeypatch):
    """What was read is committed at its weight in bytes, and reading stops until then: memory has a bound."""
    monkeypatch.setattr(projector_module, "BATCH_BYTES", 2_000)
    one = desk.projector(rows=1_000, age_secs=1_000.0)
    one.start()
    for _ in range(4):
        desk.append(20)
    assert one._round(look=True)
    assert (one.commits, desk.rows()) == (1, 20)
    while one._round(look=True):
        pass
    assert (one.commits, desk.rows()) == (4, 80)
    one.close()


def test_restart_goes_on_behind_what_the_tables_hold(desk):
    """A second run adds what came, and a third that finds nothing new makes no commit."""
    desk.append(5)
    desk.project()
    desk.append(7)
    desk.project()
    assert desk.project().commits == 0
    assert assert_exact([desk.log.directory], desk.store) == 12


@pytest.mark.contract("X7")
def test_several_journals_share_the_tables(tmp_path):
    """Three journals of every kind of record give one lake that holds each of their rows once."""
    logs = [make_journal(tmp_path / f"log{n}", days=2, events=30, seed=n) for n in range(3)]
    desk = Desk(tmp_path)
    one = desk.project(*logs)
    assert assert_exact(logs, desk.store) == 180
    assert one.commits <= 5 + 2, "one commit for each table, not for each journal"


def test_rival_that_brings_one_of_two_journals_meanwhile_doubles_no_row(tmp_path):
    """A commit of journal A that landed behind a rival's of journal B leaves no old watermark of B to go on from."""
    logs = [make_journal(tmp_path / name, days=1, events=30, seed=seed) for seed, name in enumerate("ab", 1)]
    desk = Desk(tmp_path)
    late = desk.projector(*logs)
    late.start()
    assert late._sources[0].reader.look() > 30
    desk.project(logs[1])
    read = late._sources[0].read(1000)
    assert read is not None
    late._take(late._sources[0], read)
    late._finish()
    late.run(follow=False, wait=lambda _: False)
    late.close()
    assert assert_exact(logs, desk.store) == 60


def test_rows_read_ahead_that_a_rival_brought_come_once(desk, monkeypatch):
    """A commit lost to a rival while pieces are read ahead leads to no row twice and none missing."""
    monkeypatch.setattr("holdfast.lake.projector.PIECE_RECORDS", 8)
    desk.append(60)
    late = desk.projector(rows=10, most_rows=10)
    late.start()
    assert late._round(look=False)
    desk.project()
    late.run(follow=False, wait=lambda _: False)
    late.close()
    assert late.lost
    assert desk.rows() == 60
    assert assert_exact([desk.log.directory], desk.store) == 60


def test_run_ends_after_the_batch_when_it_is_told(desk):
    """Told to end, it commits what it has read, although nothing was due."""
    desk.append(4)
    one = desk.projector(age_secs=1000.0)
    one.start()
    one.run(follow=True, wait=lambda _: True)
    one.close()
    assert desk.rows() == 4


def test_empty_journal_is_followed_from_its_first_record(tmp_path):
    """A directory without a record is waited on, and projected once its log begins."""
    desk = Desk(tmp_path)
    shutil.rmtree(desk.log.directory)
    desk.log.directory.mkdir()
    one = desk.projector()
    one.start()
    assert not one._round(look=True)
    desk.log = HandmadeLog(tmp_path / "log")
    desk.append(3)
    one._round(look=True)
    one._finish()
    one.close()
    assert desk.rows() == 3


# -- what it cannot go on with ------------------------------------------------------------------------------------


def test_journal_that_went_back_is_refused(desk):
    """A head below what the lake holds of the log ends the start, and changes nothing."""
    desk.append(9)
    desk.project()
    desk.log.head(HeadState.OPEN, sequence=4)
    with pytest.raises(AuditCorruption, match=r"says 4, though sequence 11 was durable"):
        desk.project()
    assert desk.rows() == 9


def test_journal_that_went_another_way_is_refused(tmp_path):
    """A log that was cut and written on to other records is not taken for the one that the lake holds."""
    desk = Desk(tmp_path)
    desk.append(9)
    desk.project()
    shutil.rmtree(desk.log.directory)
    desk.log = HandmadeLog(tmp_path / "log")
    desk.log.segment([])
    desk.log.segment(plain_rows(40))
    desk.log.head(HeadState.OPEN)
    with pytest.raises(AuditCorruption, match=r"went another way: its sequence 11 is not the one"):
        desk.project()


def test_quiet_journal_that_went_another_way_is_refused_behind_many_commits_of_another(tmp_path, monkeypatch):
    """The note of a quiet journal's last record is found behind more commits of a busy one than a handle lives."""
    monkeypatch.setattr(commit_module, "CHECKPOINT_COMMITS", 5)
    desk = Desk(tmp_path)
    desk.append(9)
    desk.project()
    busy = desk.projector(make_journal(tmp_path / "busy", days=1, events=60), rows=1, most_rows=1)
    busy.start()
    busy.run(follow=False, wait=lambda _: False)
    busy.close()
    assert desk.store.open("risk_events").version() > 5
    desk.log.directory.rename(tmp_path / "old")
    desk.log = HandmadeLog(tmp_path / "log")
    desk.log.segment([])
    desk.log.segment(plain_rows(40))
    desk.log.head(HeadState.OPEN)
    with pytest.raises(AuditCorruption, match=r"went another way: its sequence 11 is not the one"):
        desk.project()


def test_journal_replaced_while_it_is_followed_is_named(tmp_path):
    """Another log under the same path ends the following; started again, its rows are added."""
    desk = Desk(tmp_path)
    desk.append(3)
    one = desk.projector()
    one.start()
    one._round(look=True)
    shutil.rmtree(desk.log.directory)
    desk.log = HandmadeLog(tmp_path / "log", log_id="cd" * 16)
    desk.log.segment(events(30))
    desk.log.head(HeadState.OPEN)
    with pytest.raises(AuditCorruption, match="audit log replaced"):
        one.run(follow=True, wait=lambda _: False)
    one.close()
    assert desk.rows() == 3, "what was read before is committed first"
    desk.project()
    assert desk.rows() == 33


def test_journal_pruned_before_it_was_projected_is_refused(desk, monkeypatch):
    """Records that only the archive has cannot be projected: the refusal says where they are."""
    desk.append(3)

    def pruned(*_):
        raise InArchive(4, "s3://desk/audit")

    monkeypatch.setattr("holdfast.lake.journal.refuse_pruned", pruned)
    with pytest.raises(
        InArchive, match=r"sequences 1 to 4 are not here: they are in the archive s3://desk/audit"
    ):
        desk.project()


def test_damaged_journal_is_projected_up_to_the_damage(desk):
    """What stands before the damage is committed, and the damage is named."""
    desk.append(5)
    desk.append(5)
    last = max(desk.log.directory.glob("audit_*"))
    data = bytearray(last.read_bytes())
    data[-30] ^= 1
    last.write_bytes(data)
    with pytest.raises(AuditCorruption, match="sequence"):
        desk.project()
    assert desk.rows() == 5


def test_same_log_twice_is_refused(tmp_path):
    """A log and its copy are the same log; naming both is refused before anything is written."""
    desk = Desk(tmp_path)
    desk.append(3)
    shutil.copytree(desk.log.directory, tmp_path / "copy")
    with pytest.raises(BadInput, match="which is projected already"):
        desk.project(desk.log.directory, tmp_path / "copy")


def test_bad_policy_lists_every_value():
    """A policy that cannot be meant names all of what is wrong."""
    with pytest.raises(ConfigError, match=r"rows 0: .*age_secs -1"):
        ProjectorPolicy(rows=0, age_secs=-1.0)


# -- trouble -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "passes"),
    [
        (OSError(errno.ENOSPC, "no space left"), True),
        (LakeUnreachable("the store is away"), True),
        (OSError(errno.EIO, "input/output error"), False),
    ],
)
@pytest.mark.parametrize("follow", [True, False])
def test_follower_waits_for_a_full_disk_and_a_store_that_is_away(desk, monkeypatch, trouble, passes, follow):
    """Following, it waits with growing pauses and loses nothing; once, or on an error that stays, it ends by name."""
    real, left, waited = TableWriter._write_files, [3], []

    def failing(writer, rows):
        if rows and left[0]:
            left[0] -= 1
            raise trouble
        return real(writer, rows)

    def wait(secs: float) -> bool:
        waited.append(secs)
        desk.clock.advance(2.0)
        return len(waited) > 20

    monkeypatch.setattr(TableWriter, "_write_files", failing)
    desk.append(6)
    one = desk.projector()
    one.start()
    try:
        if not (passes and follow):
            with pytest.raises(type(trouble)):
                one.run(follow=follow, wait=wait)
            left[0] = 0
            desk.project()
        else:
            one.run(follow=True, wait=wait)
            assert [secs for secs in waited if secs > 0.05][:3] == [0.1, 0.2, 0.4]
            assert [text.partition(":")[0] for text in desk.said] == ["waiting", "going on"]
    finally:
        one.close()
    assert assert_exact([desk.log.directory], desk.store) == 6


@pytest.mark.parametrize("step", ["update_incremental", "sync_versions"])
def test_unknown_outcome_is_looked_up(desk, monkeypatch, step):
    """A commit that was made although its end failed is found by the next handle: no row comes twice."""
    desk.append(6)
    one = desk.projector()
    one.start()
    trouble = OSError(errno.ENOSPC, "no space left")
    failed = []

    def fails_once(real):
        def failing(*told, **more):
            if not failed:
                failed.append(step)
                raise trouble
            return real(*told, **more)

        return failing

    if step == "sync_versions":
        monkeypatch.setattr(commit_module, step, fails_once(commit_module.sync_versions))
    else:
        from deltalake import DeltaTable

        monkeypatch.setattr(DeltaTable, step, fails_once(DeltaTable.update_incremental))

    waited = []

    def wait(_: float) -> bool:
        waited.append(1)
        desk.clock.advance(2.0)
        return len(waited) > 8

    one.run(follow=True, wait=wait)
    one.close()
    assert failed
    assert assert_exact([desk.log.directory], desk.store) == 6


def test_torn_table_is_mended_at_the_start_and_told(desk):
    """A commit that a power cut emptied is moved aside, said, and its rows are projected again."""
    desk.append(6)
    desk.project()
    log = desk.store.path / "risk_events" / "_delta_log"
    newest = max(log.glob("*.json"))
    os.truncate(newest, 0)
    desk.project()
    assert desk.said == [
        f"lake repaired: risk_events/_delta_log/{newest.name} moved aside: its commit is empty"
    ]
    assert assert_exact([desk.log.directory], desk.store) == 6


def test_nothing_is_mended_while_another_projector_works(desk, monkeypatch):
    """A second projector leaves what it finds to the first, which is at work in it."""
    desk.append(2)
    first = desk.projector()
    first.start()
    monkeypatch.setattr(
        projector_module, "repair", lambda *_: pytest.fail("it repaired beside a living rival")
    )
    second = desk.projector()
    second.start()
    second.close()
    first.close()


# -- being seen --------------------------------------------------------------------------------------------------


def test_running_projector_is_seen_beside_its_log(desk):
    """While it runs its note is held and says how far it is; a second one holds none; afterwards nobody does."""
    log, lake = desk.log.directory, desk.store.uri
    assert not is_projected(log, lake)
    desk.append(4)
    first = desk.projector()
    first.start()
    assert is_projected(log, lake)
    assert not is_projected(log, lake + "-other")
    second = desk.projector()
    second.start()
    assert second._sources[0].claim is None
    second.close()
    assert is_projected(log, lake)
    first.run(follow=False, wait=lambda _: False)
    first.close()
    assert not is_projected(log, lake)
    note = read_note(log, lake)
    assert note is not None
    assert (note.pid, note.covered, note.durable, note.lake, note.trouble) == (os.getpid(), 6, 6, lake, "")


def test_note_that_cannot_be_read_says_nothing(desk):
    """A note that is missing, torn or a link is no note."""
    path = note_path(desk.log.directory, desk.store.uri)
    assert read_note(desk.log.directory, desk.store.uri) is None
    path.write_bytes(b'{"pid":')
    assert read_note(desk.log.directory, desk.store.uri) is None
    path.unlink()
    path.symlink_to("/dev/zero")
    assert not is_projected(desk.log.directory, desk.store.uri)


def test_projector_asks_for_a_new_process_above_its_memory(desk, monkeypatch):
    """Above its bound, and after some commits, it ends with all it read committed and says why."""
    monkeypatch.setattr(projector_module, "RECYCLE_COMMITS", 2)
    one = desk.projector(rows=10, most_rows=10, memory_bytes=1)
    one.start()
    desk.append(100)
    one.run(follow=True, wait=lambda _: False)
    assert one.wants_new_process
    one.close()
    assert 0 < desk.rows() < 100
    desk.project()
    assert assert_exact([desk.log.directory], desk.store) == 100


class Upkeep:
    """Maintenance that compacts after every third commit of a table."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = False

    def after_commit(self, name, table) -> bool:
        self.asked.append(name)
        if self.asked.count(name) % 3:
            return False
        table.optimize.compact()
        return True

    def close(self) -> None:
        self.closed = True


def test_maintenance_is_asked_after_each_commit(desk):
    """Upkeep sees every commit, may change the table, and is closed at the end; the rows stay exact."""
    upkeep = Upkeep()
    one = Projector(
        [desk.log.directory], desk.store, clock=desk.clock, policy=ProjectorPolicy(rows=10, most_rows=10), maintenance=upkeep
    )  # fmt: skip
    desk.append(95)
    one.start()
    one.run(follow=False, wait=lambda _: False)
    one.close()
    assert upkeep.asked.count("risk_events") >= 9
    assert upkeep.closed
    assert assert_exact([desk.log.directory], desk.store) == 95


class ForeignLog(HandmadeLog):
    """A journal whose writer says numbers that no double holds."""

    def foreign(self, type_: str, details: bytes) -> None:
        line = encode_line(self.next_seq, self.next_seq - 1, self.now_ns, type_, "u", "c", details)
        self.frontier.append(leaf_hash(line))
        self.next_seq += 1
        path = self.directory / self.name
        path.write_bytes(path.read_bytes() + line + b"\n")
        self.end = path.stat().st_size


def test_number_beyond_a_double_ends_no_projection_and_a_rebuild_gives_the_same_rows(tmp_path):
    """Records of every kind with such numbers are projected, verified and rebuilt like any other, their text kept."""
    log = ForeignLog(tmp_path / "log")
    log.segment(events(3))
    for type_, details in (
        ("RISK_EVENT", b'{"event_type":"x","load":1e400}'),
        ("ORDER", b'{"order_id":"o","quantity":1e400,"legs":[{"ratio":1e400}]}'),
        ("TRADE", b'{"trade_id":"t","fee":-1e400}'),
        ("API_CALL", b'{"api":"a","latency_ms":1e400}'),
        ("DECISION", b'{"n":1,"rows":[1e400]}'),
    ):
        log.foreign(type_, details)
    log.head(HeadState.OPEN)
    store = store_of(str(tmp_path / "lake"))
    one = Projector([log.directory], store, clock=ManualClock())
    one.start()
    one.run(follow=False, wait=lambda _: True)
    one.close()
    before = all_rows(store)
    assert before["risk_events"][-1]["metadata"] == '{"load":1e400}'
    assert (before["orders"][0]["legs"], before["orders"][0]["metadata"]) == (
        '[{"ratio":1e400}]',
        '{"quantity":1e400}',
    )
    assert before["fills"][0]["metadata"] == '{"fee":-1e400}'
    assert before["api_calls"][0]["metadata"] == '{"latency_ms":1e400}'
    assert before["decisions"][0]["rows"] == "[1e400]"
    assert verify_lake(store, [log.directory]).ok
    rebuild(store, [log.directory], clock=ManualClock())
    assert all_rows(store) == before


def test_commit_says_what_it_covers(desk):
    """The newest commit of a table names the journal, the sequences, the rows and their root."""
    desk.append(5)
    desk.project()
    (info,) = desk.store.open("risk_events").history(1)
    (span,) = json.loads(info["holdfast"])["logs"]
    assert (span["first"], span["last"], span["rows"], span["epoch"]) == (1, 7, 5, 2)
