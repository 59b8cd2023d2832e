"""Removing local segments: never before the copy is proven, and nothing that a proof needs."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest
from support.s3 import START_NS, Interrupted, MemoryBucket, make_log

from holdfast.archive.policy import Policy, Retention
from holdfast.archive.prune import prune
from holdfast.archive.restore import restore
from holdfast.archive.store import LockState, ObjectMissing
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import parse_checkpoint, parse_note
from holdfast.audit.proofs import ProofChecker, parse_record_proof
from holdfast.audit.prove import Prover
from holdfast.audit.pruned import InArchive, read_pruned
from holdfast.audit.query import iter_query, query, read_lines
from holdfast.audit.storage import LocalStorage
from holdfast.audit.tiles import TileStore, tile_reader
from holdfast.audit.tree import check_consistency, check_inclusion, consistency_proof, inclusion_proof
from holdfast.audit.verify import verify
from holdfast.audit.wal import Entry, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import ArchiveRefused, AuditCorruption, LogHeld

from .conftest import NOW, Desk, files_of

pytestmark = pytest.mark.contract("A19")

FIRST = "audit_20251120_102000_000000000001"
SECOND = "audit_20251121_102000_000000000303"
THIRD = "audit_20251122_102000_000000000605"
LATER_NS = START_NS + 20 * 86_400 * 10**9


def _writer(desk: Desk) -> WriteAheadLog:
    return WriteAheadLog(desk.log, clock=ManualClock(LATER_NS), keys=KeyHome(desk.home))


def _prune(desk: Desk, *, older_than: timedelta = timedelta(), policy: Policy | None = None):
    log = _writer(desk)
    try:
        return prune(
            desk.log, desk.memory, policy or Policy(),
            lambda type_, details: log.append(type_, details, component="journal"),
            older_than=older_than, now=NOW,
        )  # fmt: skip
    finally:
        log.close()


def _no_leaves(begin: int, end: int):
    raise AssertionError(f"leaves {begin} to {end} are read from records, and should be in tiles")


def test_pruned_log_verifies_and_says_what_is_archived(desk):
    """After a prune the log is intact: its beginning is counted as archived, never as verified."""
    desk.archive()
    report = _prune(desk)
    assert report.pruned == [f"{FIRST}.log", f"{SECOND}.log"]
    assert report.next_seq == 605
    found = verify(desk.log, keys=desk.keys(read_id(desk)))
    assert found.ok, found.problems
    assert found.archived_to == 604
    assert sorted(path.name for path in desk.log.glob(f"{FIRST}.*")) == [
        f"{FIRST}.checkpoints",
        f"{FIRST}.pruned",
    ]


def read_id(desk: Desk) -> str:
    [folder] = (desk.home / "logs").iterdir()
    return folder.name


def test_reading_a_pruned_log_names_the_archive(desk):
    """What is gone is said to be in the archive, by address; what is here is read as before."""
    lines = list(read_lines(desk.log))
    desk.archive()
    _prune(desk)
    with pytest.raises(InArchive, match="1 to 604 are not here: they are in the archive s3://memory/desk"):
        query(desk.log, event_type="NOTE")
    assert list(read_lines(desk.log, start_seq=605))[: len(lines) - 604] == lines[604:]
    newest = next(iter_query(desk.log, newest_first=True, max_results=1))
    assert newest.event_type in {"PRUNED", "SEALED"}


def test_old_proofs_stay_valid(desk):
    """A proof made before a prune still holds, its record is proven from the tiles, and old roots are consistent."""
    sequences = [1, 2, 150, 302, 303, 604]
    with Prover(desk.log) as prover:
        proofs = [proof.encode() for proof in prover.prove(sequences)]
    old = parse_checkpoint(parse_note((desk.log / "checkpoint").read_bytes()).text)
    desk.archive()
    _prune(desk)
    new = parse_checkpoint(parse_note((desk.log / "checkpoint").read_bytes()).text)
    assert new.size > old.size
    home = LocalStorage().directory(desk.log, create=False)
    with TileStore(home) as tiles:
        newest = min(new.size, 904)
        lines = list(read_lines(desk.log, start_seq=605))

        def leaves(begin: int, end: int):
            from holdfast.audit.format import leaf_hash

            if begin < 604:
                _no_leaves(begin, end)
            return [leaf_hash(line) for line in lines[begin - 604 : end - 604]]

        read = tile_reader(tiles, new.size, leaves)
        checker = ProofChecker(desk.keys(read_id(desk)))
        for sequence, data in zip(sequences, proofs, strict=True):
            proof = parse_record_proof(data)
            checker.check(proof)
            path = inclusion_proof(sequence - 1, new.size, read)
            check_inclusion(read(0, sequence - 1), sequence - 1, new.size, path, new.root)
        path = consistency_proof(old.size, new.size, read)
        check_consistency(old.size, old.root, new.size, new.root, path)
        assert newest
    home.close()


def test_pruned_log_goes_on(desk, tmp_path):
    """A pruned log is written, sealed, archived and restored on, and comes back whole from its archive."""
    desk.archive()
    _prune(desk)
    clock = ManualClock(LATER_NS + 86_400 * 10**9)
    log = WriteAheadLog(desk.log, clock=clock, keys=KeyHome(desk.home))
    for n in range(300):
        log.append("NOTE", {"n": n})
    clock.advance(86_400)
    log.rotate()
    log.append("NOTE", {"n": -1})
    log.close()
    assert verify(desk.log).ok
    report = desk.archive()
    assert report.closed
    again = _prune(desk)
    assert again.pruned[0] == f"{THIRD}.log"
    assert "newest sealed segment stays" in again.stopped or "not in full tiles" in again.stopped
    assert verify(desk.log).ok
    desk.archive()
    done = restore(desk.memory, tmp_path / "back", desk.keys)
    assert done.first_seq == 1
    assert done.whole
    here, back = files_of(desk.log), files_of(tmp_path / "back")
    assert {name for name in here if name not in back} == {name for name in here if name.endswith(".pruned")}
    assert all(back[name] == data for name, data in here.items() if name in back)


def test_repeat_prunes_nothing_more(desk):
    """A second prune finds nothing to do and writes no record."""
    desk.archive()
    _prune(desk)
    before = files_of(desk.log)
    again = _prune(desk)
    assert (again.pruned, again.freed) == ([], 0)
    assert files_of(desk.log) == before


def test_prune_that_ended_anywhere_is_taken_up(desk, tmp_path):
    """After an end at any operation on the store, the log is intact, and a repeat ends as one run would."""
    desk.archive()
    shutil.copytree(desk.log, tmp_path / "once")
    shutil.copytree(desk.home, tmp_path / "once-home")
    desk.memory.calls = 0
    once = desk._replace(log=tmp_path / "once", home=tmp_path / "once-home")
    _prune(once)
    operations = desk.memory.calls
    gone = {name for name in files_of(desk.log) if name not in files_of(once.log)}
    for stop in range(1, operations + 1, 5):
        desk.memory.calls, desk.memory.stop_at = 0, stop
        with pytest.raises(Interrupted):
            _prune(desk)
        assert read_pruned(LocalStorage().directory(desk.log, create=False)).next_seq in {1, 303, 605}
        if not (desk.log / f"{FIRST}.log.gz").exists():
            break
    desk.memory.stop_at = 0
    _prune(desk)
    assert not gone & files_of(desk.log).keys()
    assert verify(desk.log).ok


def test_newest_sealed_segment_stays(tmp_path):
    """Even where everything of it is proven, the newest sealed segment stays: the log's end is never only a marker."""
    make_log(tmp_path / "log", tmp_path / "home", segments=2, records=300)
    desk = Desk(tmp_path / "log", tmp_path / "home", MemoryBucket())
    log = _writer(desk)
    log.append_many([Entry("NOTE", {"n": n}) for n in range(300)])
    log.close()
    sealed = sorted(path.name.removesuffix(".gz") for path in desk.log.glob("*.log.gz"))
    desk.archive()
    report = _prune(desk)
    assert report.pruned == sealed[:-1]
    assert report.stopped == "the newest sealed segment stays"


# -- what stays ------------------------------------------------------------------------------------------------


def test_only_what_is_old_enough_goes(desk):
    """A segment with a younger record stays, and everything after it."""
    desk.archive()
    young = _prune(desk, older_than=timedelta(days=5000))
    assert young.pruned == []
    assert "younger" in young.stopped


def test_what_is_not_archived_stays(desk):
    """Without a copy nothing goes."""
    before = files_of(desk.log)
    report = _prune(desk)
    assert report.pruned == []
    assert "is not in s3://memory/desk yet" in report.stopped
    assert files_of(desk.log) == before


def test_segment_whose_tree_is_not_in_tiles_stays(desk):
    """A segment goes only when all its leaves lie in full tiles."""
    desk.archive()
    (desk.log / "tile/0/001").unlink()
    report = _prune(desk)
    assert report.pruned == []
    assert "tile/0/001" in report.stopped


@pytest.mark.parametrize("ending", [".log.gz", ".idx", ".checkpoints", ".tiles"])
@pytest.mark.parametrize("change", ["flip", "cut", "gone"])
def test_copy_that_changed_keeps_the_segment_here(small_two, ending, change):
    """Whatever file of the copy is not what it was, the local segment stays and the copy is named."""
    desk = small_two
    name = FIRST + ending
    data = desk.memory.objects[name]
    if change == "gone":
        del desk.memory.objects[name]
    else:
        desk.memory.replace(name, data[:-1] + (bytes([data[-1] ^ 1]) if change == "flip" else b""))
    before = files_of(desk.log)
    with pytest.raises((AuditCorruption, ObjectMissing)) as refused:
        _prune(desk)
    assert FIRST in str(refused.value)
    assert files_of(desk.log) == before


@pytest.fixture
def small_two(desk) -> Desk:
    """The log, archived."""
    desk.archive()
    return desk


@pytest.mark.parametrize("which", ["every", f"{FIRST}.checkpoints", f"{FIRST}.manifest.json"])
def test_copy_that_is_not_locked_long_enough_keeps_the_segment_here(desk, which):
    """A copy of which one file's lock ends before the policy says is no reason to remove anything."""
    desk.archive(policy=Policy(retention=Retention.parse("1y")) if which == "every" else None)
    if which != "every":
        desk.memory.locks[which] = LockState("GOVERNANCE", NOW.replace(year=NOW.year + 50), legal_hold=True)
    before = files_of(desk.log)
    with pytest.raises(ArchiveRefused, match="required COMPLIANCE until"):
        _prune(desk)
    assert files_of(desk.log) == before


@pytest.mark.parametrize("what", ["segment", "tile"])
def test_local_damage_stops_a_prune(desk, what):
    """Nothing goes while what stays, or what goes, is not what it should be."""
    desk.archive()
    victim = desk.log / (f"{FIRST}.log.gz" if what == "segment" else "tile/0/000")
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with pytest.raises(AuditCorruption):
        _prune(desk)
    assert victim.exists()


def test_held_log_is_not_pruned(desk):
    """While another process writes the log, nothing goes: it is the one writer."""
    desk.archive()
    other = _writer(desk)
    other.append("NOTE", {"n": 1})
    try:
        with pytest.raises(LogHeld):
            _prune(desk)
        assert (desk.log / f"{FIRST}.log.gz").exists()
    finally:
        other.close()


def test_marker_without_its_record_is_damage(desk, tmp_path):
    """Who deletes a segment and puts a marker there by hand is found: no record of the log says so."""
    desk.archive()
    restore(desk.memory, tmp_path / "part", desk.keys, first=400, last=401)
    shutil.copy(tmp_path / "part" / f"{FIRST}.pruned", desk.log / f"{FIRST}.pruned")
    (desk.log / f"{FIRST}.log.gz").unlink()
    (desk.log / f"{FIRST}.idx").unlink()
    found = verify(desk.log)
    assert not found.ok
    assert any(problem.file == f"{FIRST}.pruned" for problem in found.problems)
