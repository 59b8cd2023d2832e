"""The n-th call to the disk fails, for every n: append, fill, rotate, change of keys, checkpoint, close, recovery, seal.

Each error once and for ever: EIO, ENOSPC, a write that takes half, and a file system without inodes, where only
what makes a name fails. After each the log is restarted, as it stands and after a power cut: nothing acknowledged is
lost, nothing was acknowledged after a failure, and what is refused is refused by name.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

import pytest
from support.crash import (
    LOG,
    Acked,
    SteppedLog,
    Violation,
    abandon,
    judge,
    lines_on,
    open_log,
    small_pages,
)
from support.planted import FAULTS, BadLineIsATornTail, SyncRetried

from holdfast.audit.wal import Entry, Level
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, AuditError
from holdfast.testing.storage import FaultyStorage, SimulatedStorage


class Life:
    """A short life in which every kind of call is made, and what its callers were told."""

    def __init__(self, storage) -> None:
        self.clock = ManualClock()
        self.acked = Acked()
        self.log = open_log(SteppedLog, storage, Random(1), clock=self.clock)
        self.count = 0

    def live(self) -> None:
        for step in (
            self.append, self.append, self.weak, self.round, self.rotate,
            self.many, self.checkpoint, self.weak, self.later, self.append,
        ):  # fmt: skip
            if self.log.state == "poisoned":
                break
            step()
        if self.log.state == "poisoned":
            durable = self.log.durable_seq
            for refused in (
                lambda: self.log.append("NOTE", {"tag": "after"}),
                self.log.checkpoint,
                self.log.sync,
            ):
                with pytest.raises(AuditError):
                    refused()
            assert self.log.durable_seq == durable, "something was acknowledged after the failure"
        try:
            self.log.close()
        except AuditError:
            assert self.log.state == "poisoned"

    def told(self, work: Callable[[], list[int]], tags: list[str], level: Level) -> None:
        self.acked.pending += tags
        try:
            seqs = work()
        except (AuditError, OSError):
            if self.log.state != "poisoned":
                del self.acked.pending[-len(tags) :]
            return
        del self.acked.pending[-len(tags) :]
        self.acked.tags |= dict(zip(seqs, tags, strict=True))
        self.acked.written = seqs[-1]
        if level is Level.DURABLE:
            self.acked.durable = seqs[-1]

    def tag(self) -> str:
        self.count += 1
        return f"{self.count}-" + "x" * 600

    def append(self, level: Level = Level.DURABLE) -> None:
        tag = self.tag()
        self.told(lambda: [self.log.append("NOTE", {"tag": tag}, level=level)], [tag], level)

    def weak(self) -> None:
        self.append(Level.WRITTEN)

    def many(self) -> None:
        tags = [self.tag() for _ in range(8)]
        self.told(
            lambda: self.log.append_many([Entry("NOTE", {"tag": tag}) for tag in tags]), tags, Level.DURABLE
        )

    def quietly(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (AuditError, OSError):
            return
        if self.log.state == "open":
            self.acked.durable = max(self.acked.durable, self.acked.written)

    def round(self) -> None:
        """A round of the flusher that fills ahead and whose keeper has something to sign."""
        self.clock.advance(1.0)
        self.quietly(self.log.sync)
        self.log._segment.filler_wanted = True
        self.quietly(lambda: self.log._flush(0, wanted=False))

    def rotate(self) -> None:
        self.quietly(self.log.rotate)

    def checkpoint(self) -> None:
        if self.log.state == "open":
            self.quietly(self.log.checkpoint)

    def later(self) -> None:
        """So late that whoever commits next has to sign first."""
        self.clock.advance(3.0)


def check(disk: SimulatedStorage, acked: Acked, where: str) -> None:
    """Nothing acknowledged is gone, as the disk stands and after a power cut."""
    try:
        judge(disk.after_kill(), acked, acked.written, Random(1), depth=0, thorough=True)
        for cut in range(2):
            judge(disk.after_power_cut(Random(cut)), acked, acked.durable, Random(1), depth=0)
    except Violation as why:
        raise Violation(f"{where}: {why}") from why


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.invariant("I9")
@pytest.mark.invariant("I7")
@pytest.mark.contract("A11")
def test_no_failing_call_costs_an_acknowledged_record(fault):
    """Whichever call of a log's life fails, nothing acknowledged is lost and nothing is acknowledged after it."""
    number, failed, kinds = 0, "first", set()
    with small_pages():
        while failed:
            number += 1
            disk = SimulatedStorage()
            faulty = FaultyStorage(disk, fail_at=number, **FAULTS[fault])
            life = Life(faulty)
            life.live()
            failed = faulty.failed
            kinds.add(failed.split(" ")[0])
            check(disk, life.acked, f"{fault} at call {number}, {failed}")
    if fault == "no inodes":
        assert {"create", "rename"} <= kinds
    else:
        assert {
            "create",
            "open",
            "map",
            "pwrite",
            "fdatasync",
            "fsync",
            "truncate",
            "rename",
            "sync",
        } <= kinds
        assert number > 150, "the life made too few calls to mean anything"


def torn_disk(operation: str, name: str) -> tuple[SimulatedStorage, Acked]:
    """A disk that a start has to repair: the process died in the middle of a batch, before this call."""
    disk = SimulatedStorage()
    life = Life(disk)
    life.append()
    life.weak()
    found: list[SimulatedStorage] = []

    def cut(called: str, on: str) -> None:
        if called == operation and on.startswith(name):
            found.append(disk.after_kill())
            disk.on_call = None

    told = life.acked
    acked = Acked(told.durable, told.written, dict(told.tags))
    disk.on_call = cut
    life.many()
    abandon(life.log)
    acked.pending = [told.tags[seq] for seq in sorted(told.tags) if seq > acked.written]
    return found[0], acked


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.invariant("I9")
@pytest.mark.invariant("I7")
def test_no_failing_call_of_a_recovery_costs_an_acknowledged_record(fault):
    """Whichever call of a start fails, the start after it has everything, and says nothing was damaged."""
    with small_pages():
        for operation, name in (("fdatasync", "audit_"), ("create", "key.next"), ("rename", "key.next")):
            disk, acked = torn_disk(operation, name)
            number, failed = 0, "first"
            while failed:
                number += 1
                found = disk.after_kill()
                faulty = FaultyStorage(found, fail_at=number, **FAULTS[fault])
                log = open_log(SteppedLog, faulty, Random(2))
                try:
                    log.append("RESTARTED", {"tag": "restarted"})
                except AuditCorruption as why:
                    pytest.fail(f"{fault} at call {number}, {faulty.failed}: {why}")
                except (AuditError, OSError):
                    pass
                abandon(log)
                failed = faulty.failed
                where = f"{fault} at call {number} of recovery, {failed}"
                check(found, Acked(acked.durable, acked.durable, acked.tags, acked.pending), where)
            assert number > (5 if fault == "no inodes" else 25)


# ---------------------------------------------------------------------- a failed sync, and damage


def lost_after_failed_sync(log_class) -> int:
    """Records that were acknowledged around one failed sync and are not there after a power cut."""
    lost = 0
    for number in range(1, 12):
        disk = SimulatedStorage()
        syncs = 0

        def fail(operation, name, number=number):
            nonlocal syncs
            if operation == "fdatasync" and name.startswith("audit_") and name.endswith(".log"):
                syncs += 1
                if syncs == number:
                    raise OSError(errno.EIO, "input/output error")

        disk.on_call = fail
        acked = Acked()
        log = open_log(log_class, disk, Random(1))
        try:
            for count in range(8):
                seq = log.append("NOTE", {"tag": str(count)})
                acked.tags[seq] = str(count)
                acked.durable = seq
        except AuditError:
            acked.pending = [str(count)]
        disk.on_call = None
        try:
            judge(disk.after_power_cut(Random(number)), acked, acked.durable, Random(number))
        except Violation:
            lost += 1
    return lost


@pytest.mark.invariant("I9")
def test_a_failed_sync_costs_no_acknowledged_record():
    """After a failed sync nothing more is acknowledged, so a power cut loses nothing that was."""
    assert lost_after_failed_sync(SteppedLog) == 0


def test_a_sync_that_is_retried_is_found():
    """A log that retries a failed sync loses acknowledged records, and the checker sees it."""
    assert lost_after_failed_sync(SyncRetried) > 0


def reopened_after_damage(log_class, offset_from_end: int) -> str:
    """What a restart says when one byte of the last acknowledged line was changed."""
    disk = SimulatedStorage()
    log = open_log(SteppedLog, disk, Random(1))
    for count in range(5):
        log.append("NOTE", {"tag": str(count)})
    end, last = log._segment.end, log.last_seq
    killed = disk.after_kill()
    (name,) = (name for name in killed.content(LOG) if name.endswith(".log"))
    killed.content(LOG)[name][end - offset_from_end] ^= 1
    again = open_log(log_class, killed, Random(2))
    try:
        again.append("NOTE", {"tag": "after"})
    except AuditCorruption as why:
        return "refused" if (why.sequence, why.file) == (last, name) else f"refused, but named {why.sequence}"
    return "went on"


@pytest.mark.parametrize("offset_from_end", [1, 2, 40, 100])
@pytest.mark.invariant("I8")
def test_damage_in_the_last_acknowledged_line_is_refused(offset_from_end):
    """A changed byte in the last acknowledged line is corruption, named, and not a torn tail."""
    assert reopened_after_damage(SteppedLog, offset_from_end) == "refused"
    assert reopened_after_damage(BadLineIsATornTail, offset_from_end) == "went on"


def test_a_disk_without_faults_is_no_fault():
    """The life that the faults are put into ends well without them, with all that it appended."""
    with small_pages():
        disk = SimulatedStorage()
        life = Life(FaultyStorage(disk))
        life.live()
        assert life.log.state == "closed"
        assert sum(type_ == "NOTE" for _, type_, _ in lines_on(disk)) == life.count
        assert sum(type_ == "KEY" for _, type_, _ in lines_on(disk)) >= 3
