"""Sealing crashed at every call to the disk, by a kill and by power cuts; and killed for real."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from hashlib import sha256
from random import Random
from unittest import mock
from zlib import crc32

import pytest
from support.crash import LOG, SMALL_PAGES, SteppedLog
from support.planted import FAULTS

from holdfast.audit import seal, search
from holdfast.audit import segment as segment_module
from holdfast.audit.index import Index, index_name
from holdfast.audit.query import query, read_lines
from holdfast.audit.verify import verify
from holdfast.audit.wal import Entry, WriteAheadLog
from holdfast.core.clock import ManualClock, SystemClock
from holdfast.core.errors import AuditError
from holdfast.testing.storage import FaultyStorage, SimulatedFile, SimulatedStorage


def open_log(disk: SimulatedStorage) -> SteppedLog:
    return SteppedLog(
        LOG, clock=ManualClock(), storage=disk, rotate_bytes=4096, random_bytes=Random(1).randbytes
    )


def seal_what_waits(log: SteppedLog) -> None:
    """What flusher and sealer threads do, here and now."""
    for name in log._rotated:
        log._sealer.rotated(name)
    log._rotated = []
    log._sealer.run_pending()
    assert log._sealer.failures == []


def judge(disk: SimulatedStorage, durable: list[bytes]) -> None:
    """A crash state is no damage, a restart finishes every seal, and no line is lost."""
    found = verify(LOG, storage=disk)
    assert found.ok, found.problems
    # Until recovery readers go by the head, of which a power cut may leave an older version.
    before = list(read_lines(LOG, storage=disk))[: len(durable)]
    assert before == durable[: len(before)]
    log = open_log(disk)
    log.append("RESTARTED", {})
    seal_what_waits(log)
    log.close()
    report = verify(LOG, storage=disk)
    assert report.ok, report.problems
    assert list(read_lines(LOG, storage=disk))[: len(durable)] == durable
    names = sorted(name for name in disk.content(LOG) if name.startswith("audit_"))
    assert all(name.endswith((".log.gz", ".idx")) for name in names[:-1]), names
    assert sum(name.endswith(".idx") for name in names) == len(names) // 2


def crash_everywhere(seed: int, power_cuts: int = 2) -> int:
    """Seal three segments and judge the states of every call on the way; how many there were."""
    random = Random(seed)
    disk = SimulatedStorage()
    states: list[SimulatedStorage] = []
    with mock.patch.multiple(segment_module, **SMALL_PAGES):
        log = open_log(disk)
        for n in range(45):
            log.append_many([Entry("NOTE", {"n": n, "text": "x" * random.randrange(200)})])
        durable = list(read_lines(LOG, storage=disk))

        def crash_here(operation: str, name: str) -> None:
            states.append(disk.after_kill())
            states.extend(disk.after_power_cut(random) for _ in range(power_cuts))

        disk.on_call = crash_here
        seal_what_waits(log)
        crash_here("end", "")
        disk.on_call = None
        log.close()
        for state in states:
            judge(state, durable)
        judge(disk, durable)
    return len(states)


@pytest.mark.slow
@pytest.mark.invariant("I7")
@pytest.mark.contract("A11")
def test_a_crash_at_any_call_of_a_seal_loses_nothing_and_is_finished_by_the_next_start():
    """Whatever call a kill or a power cut hits, verify sees no damage and a restart seals every segment."""
    assert crash_everywhere(1) > 100


def _rename_before_vouching(directory, append):
    """SEALED is written only after the compressed file stands under its final name."""

    def late(type_, details):
        directory.rename(details["segment"] + seal.TEMPORARY_SUFFIX, details["segment"] + ".gz")
        sequence = append(type_, details)
        directory.rename(details["segment"] + ".gz", details["segment"] + seal.TEMPORARY_SUFFIX)
        return sequence

    return late


@pytest.mark.slow
@pytest.mark.parametrize(
    "bug", ["temporary file not synced", "raw file removed first", "renamed before SEALED"]
)
def test_a_planted_bug_in_the_order_of_sealing_is_found(monkeypatch, bug):
    """Each step of the protocol is there for a crash state that these tests draw."""
    if bug == "temporary file not synced":
        honest = SimulatedFile.fsync
        monkeypatch.setattr(
            SimulatedFile, "fsync", lambda self: None if self.name.endswith(".tmp") else honest(self)
        )
    elif bug == "raw file removed first":

        def unlink_first(directory, name):
            index = seal.index_name(name)
            directory.unlink(name)
            directory.sync()
            directory.rename(index + seal.TEMPORARY_ENDING, index)
            directory.rename(name + seal.TEMPORARY_SUFFIX, name + ".gz")
            directory.sync()

        monkeypatch.setattr(seal, "replace_raw", unlink_first)
    else:
        honest_init = seal.Sealer.__init__
        monkeypatch.setattr(
            seal.Sealer,
            "__init__",
            lambda self, directory, append: honest_init(
                self, directory, _rename_before_vouching(directory, append)
            ),
        )
    with pytest.raises((AssertionError, FileNotFoundError)):
        sum(crash_everywhere(seed) for seed in range(5))


class Lying(SimulatedStorage):
    """A disk that turns over one bit of what is written into compressed files, and says nothing."""

    lies = False

    def called(self, operation: str, name: str) -> None:
        super().called(operation, name)
        if self.lies and operation == "fsync" and name.endswith(".gz.tmp"):
            content = self.content(LOG)[name]
            # In the stored length of the last member's content, so that all of it still unpacks.
            content[len(content) // 2] ^= 4


def sealed_by_a_liar(lies: bool = True) -> tuple[list[bytes], list[bytes], list[str]]:
    """The lines before and after sealing on a disk that damages what it compresses, and what the sealer said."""
    disk = Lying()
    with mock.patch.multiple(segment_module, **SMALL_PAGES):
        log = open_log(disk)
        for n in range(20):
            log.append("NOTE", {"n": n, "text": "x" * 400})
        before = list(read_lines(LOG, storage=disk))
        disk.lies = lies
        for name in log._rotated:
            log._sealer.rotated(name)
        log._sealer.run_pending()
        said = log._sealer.failures
        after: list[bytes] = []
        with contextlib.suppress(AuditError):
            after.extend(read_lines(LOG, storage=disk))
    return before, [line for line in after if b'"type":"SEALED"' not in line], said


@pytest.mark.invariant("I8")
@pytest.mark.contract("A11")
def test_a_compressed_copy_that_is_damaged_never_replaces_its_segment():
    """On a disk that damages what is compressed, every line stays readable and the sealer says why."""
    before, after, said = sealed_by_a_liar()
    assert after == before
    assert said
    assert sealed_by_a_liar(lies=False)[2] == []


def test_a_copy_that_is_not_compared_would_lose_the_segment(monkeypatch):
    """gzip without compare, planted, is found: the raw file goes and its lines cannot be read any more."""

    def unproved(directory, raw_name, packed_name):
        packed = directory.open(packed_name)
        content = packed.pread(packed.size(), 0)
        return sha256(content).hexdigest(), len(content)

    monkeypatch.setattr(seal, "_prove_equal", unproved)
    before, after, _ = sealed_by_a_liar()
    assert after != before


def found_with_a_lying_index() -> tuple[list[int], list[int]]:
    """Bob's records by index, as they are and after every index was made to say that he is Eve."""
    disk = SimulatedStorage()
    with mock.patch.multiple(segment_module, **SMALL_PAGES):
        log = open_log(disk)
        for n in range(30):
            log.append("NOTE", {"n": n, "text": "x" * 400}, user="bob" if n % 3 else "ann")
        seal_what_waits(log)
        log.close()
    expected = [entry.sequence for entry in query(LOG, user_id="bob", storage=disk)]
    for name, content in disk.content(LOG).items():
        if name.endswith(".idx"):
            body = bytes(content[:-4]).replace(b"bob", b"eve")
            content[:] = body + crc32(body).to_bytes(4, "little")
    return expected, [entry.sequence for entry in query(LOG, user_id="bob", storage=disk)]


@pytest.mark.contract("A12")
def test_an_index_that_the_log_does_not_vouch_for_changes_no_answer():
    """Whatever an index file says, the answer is the same: it counts only as SEALED names it."""
    expected, found = found_with_a_lying_index()
    assert len(expected) == 20
    assert found == expected


def test_an_index_that_is_trusted_would_change_an_answer(monkeypatch):
    """index trusted, planted, is found: records of the sealed segments are not found any more."""

    def trusting(_self, directory, known, _first_seq, _records):
        known.index, known.sealed = Index.decode(search._content(directory, index_name(known.name))), True
        return known.index

    monkeypatch.setattr(search.Searcher, "_read_index", trusting)
    expected, found = found_with_a_lying_index()
    assert found != expected


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.invariant("I9")
@pytest.mark.contract("A11")
def test_no_failing_call_of_a_seal_costs_a_line(fault):
    """Whichever call of sealing fails, every line stays, verify finds no damage, and a later start seals."""
    number, failed, sealing = 0, "first", [False]
    told = FAULTS[fault].get("counts", lambda *_: True)
    with mock.patch.multiple(segment_module, **SMALL_PAGES):
        while failed:
            number += 1
            disk = SimulatedStorage()
            faults = {**FAULTS[fault], "counts": lambda *call: sealing[0] and told(*call)}
            faulty = FaultyStorage(disk, fail_at=number, **faults)
            log = open_log(faulty)
            for n in range(20):
                log.append("NOTE", {"n": n, "text": "x" * 400})
            durable = list(read_lines(LOG, storage=disk))
            sealing[0] = True
            for name in log._rotated:
                log._sealer.rotated(name)
            log._sealer.run_pending()
            sealing[0] = False
            failed = faulty.failed
            # What was written in part is written on.
            told_of = log._sealer.failures or log.state == "poisoned" or fault == "short write"
            assert not failed or told_of, f"{fault} at {failed}: unsaid"
            with contextlib.suppress(AuditError):
                log.close()
            judge(disk.after_kill(), durable)
            judge(disk.after_power_cut(Random(number)), durable)
    assert number > (4 if fault == "no inodes" else 25)


WRITER = """
import sys
from holdfast.audit.wal import Entry, WriteAheadLog
from holdfast.core.clock import SystemClock

log = WriteAheadLog(sys.argv[1], clock=SystemClock(), rotate_bytes=40_000)
while True:
    print(log.append_many([Entry("NOTE", {"text": "x" * 300}) for _ in range(20)])[-1], flush=True)
"""


@pytest.mark.slow
@pytest.mark.invariant("I7")
def test_a_killed_writer_and_its_sealer_leave_a_log_that_the_next_one_finishes(tmp_path):
    """kill -9 at any moment of rotating and sealing: nothing acknowledged is lost, and no alarm is raised."""
    home = tmp_path / "audit"
    random = Random(7)
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(home)], stdout=subprocess.PIPE) as writer:
            acknowledged = 0
            for _ in range(random.randrange(40, 120)):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        report = verify(home)
        assert report.ok, report.problems
        assert report.total_entries >= acknowledged
        assert sum(1 for _ in read_lines(home)) >= acknowledged
    with WriteAheadLog(home, clock=SystemClock()) as log:
        log.append("NOTE", {})
    # That close waited for the seals that its start had found undone.
    assert len(list(home.glob("*.log"))) == 1
    assert len(list(home.glob("*.log.gz"))) == len(list(home.glob("*.idx"))) > 1
    assert not list(home.glob("*.tmp"))
    report = verify(home)
    assert report.ok, report.problems
