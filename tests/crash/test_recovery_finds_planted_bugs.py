"""Each way to get a write-ahead log wrong, planted in a copy of the real one, is found by the checker that the
real one passes."""

from __future__ import annotations

import errno
from random import Random
from typing import ClassVar
from unittest import mock

import pytest
from support.crash import LOG, Acked, SteppedLog, Story, Violation, judge

from holdfast.audit import recovery
from holdfast.audit import segment as segment_module
from holdfast.audit.head import Head
from holdfast.audit.recovery import Verdict
from holdfast.audit.storage import File
from holdfast.audit.wal import Level
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, AuditError
from holdfast.testing.storage import FaultyStorage, SimulatedStorage


class NoFsync(SteppedLog):
    """Acknowledges without any sync."""

    def _acknowledge(self, file: File, target: int, end: int) -> None:
        self._head.write(target, file.name, end)
        self._durable = target


class AcknowledgesBeforeSync(SteppedLog):
    """Says "durable" to the caller, and syncs before the next batch."""

    def _acknowledge(self, file: File, target: int, end: int) -> None:
        if self._durable:
            file.fdatasync()
        late = getattr(self, "late", (file, target, end))
        self.late = (file, target, end)
        if late[0] is file:
            self._head.write(late[1], file.name, late[2])
        self._durable = target

    def _write_lines(self, items, first: int) -> int:
        # The sync above covers what was written before this batch only.
        file = self._segment.file
        synced, file.fdatasync = file.fdatasync, lambda: None
        try:
            return super()._write_lines(items, first)
        finally:
            file.fdatasync = synced


class HeadBeforeSync(SteppedLog):
    """Moves the head, then syncs."""

    def _acknowledge(self, file: File, target: int, end: int) -> None:
        self._head.write(target, file.name, end)
        super()._acknowledge(file, target, end)


class CallsDurableWhatOnlyBegan(SteppedLog):
    """Counts records that were written while the sync ran as covered by it."""

    def _acknowledge(self, file: File, target: int, end: int) -> None:
        file.fdatasync()
        self._head.write(self._written, file.name, self._segment.end)
        self._durable = self._written


class DirectoryNotSynced(SteppedLog):
    """Creates a segment without syncing the directory."""

    def _begin_segment(self, ts: int, seq: int) -> None:
        home, real_sync = self._home, self._home.sync
        home.sync = lambda: None
        try:
            super()._begin_segment(ts, seq)
        finally:
            home.sync = real_sync


class NeverStopsSayingClosed(SteppedLog):
    """Changes a closed log before its head durably says "open"."""

    def _recover(self, home, found, known, *, torn):
        with mock.patch.object(Head, "flush"):
            return super()._recover(home, found, known, torn=torn)


class RecoversWrong(SteppedLog):
    """Recovers with parts of recovery.py replaced."""

    parts: ClassVar[dict] = {}

    def _open_in(self, home) -> None:
        with mock.patch.multiple(recovery, **self.parts):
            super()._open_in(home)


class CutsWithoutClearing(RecoversWrong):
    """Forgets the tail, without overwriting it with filler."""

    parts: ClassVar[dict] = {"_clear": lambda *_: None}


class NeverRewrites(RecoversWrong):
    """Keeps what reads back from the page cache without writing it to the disk."""

    parts: ClassVar[dict] = {"_rewrite_kept": lambda *_: None}


class NoRepair(RecoversWrong):
    """Appends behind the torn tail."""

    parts: ClassVar[dict] = {"repair": lambda *_: recovery.Repair(0, [])}

    def _take_up(self, home, found, head) -> None:
        super()._take_up(home, found, head)
        if found.tails and found.tails[0].segment == found.place[0]:
            self._segment.end = found.place[1] + len(found.tails[0].content)


class BadLineIsATornTail(RecoversWrong):
    """Decides by what stands behind the bad line instead of by what is known to be durable."""

    parts: ClassVar[dict] = {
        "decide": lambda first_missing, known_durable, *, only_filler, closed: (
            Verdict.INTACT if only_filler else Verdict.TORN
        )
    }


class OrdersByFileName(RecoversWrong):
    """Trusts the time in the names of the segments."""

    parts: ClassVar[dict] = {
        "log_segments": lambda directory: [
            parsed
            for parsed in map(recovery.parse_segment_name, sorted(directory.names()))
            if parsed is not None
        ]
    }


class EveryBadLineIsCorruption(RecoversWrong):
    """Takes every torn tail for damage."""

    parts: ClassVar[dict] = {
        "decide": lambda first_missing, known_durable, *, only_filler, closed: (
            Verdict.INTACT if only_filler else Verdict.CORRUPT
        )
    }


CRASH_BUGS = [
    NoFsync,
    AcknowledgesBeforeSync,
    HeadBeforeSync,
    CallsDurableWhatOnlyBegan,
    DirectoryNotSynced,
    NeverStopsSayingClosed,
    CutsWithoutClearing,
    NeverRewrites,
    NoRepair,
    OrdersByFileName,
    EveryBadLineIsCorruption,
]


def first_complaint(log_class) -> str:
    for seed in range(12):
        try:
            Story(seed, log_class, states_per_call=1.0).run()
        except (Violation, AuditError) as why:
            return str(why)
    return ""


@pytest.mark.parametrize("bug", CRASH_BUGS, ids=lambda bug: bug.__name__)
@pytest.mark.invariant("I7")
def test_checker_finds_the_bug_when_it_is_planted(bug):
    """Within twelve stories the checker finds a state that the planted bug breaks."""
    assert first_complaint(bug), f"{bug.__name__} passed"


@pytest.mark.slow
@pytest.mark.invariant("I7")
def test_checker_passes_the_real_log():
    """The checker that finds every planted bug has nothing to say about the log itself."""
    assert first_complaint(SteppedLog) == ""


class SyncRetried(SteppedLog):
    """Tries a failed sync again, and believes the success."""

    def _acknowledge(self, file: File, target: int, end: int) -> None:
        try:
            super()._acknowledge(file, target, end)
        except OSError:
            super()._acknowledge(file, target, end)


def lost_after_failed_sync(log_class) -> int:
    """Records that were acknowledged around one failed sync and are not there after a power cut."""
    lost = 0
    for number in range(1, 12):
        disk = SimulatedStorage()
        syncs = 0

        def fail(operation, name, number=number):
            nonlocal syncs
            if operation == "fdatasync" and name.startswith("audit_"):
                syncs += 1
                if syncs == number:
                    raise OSError(errno.EIO, "input/output error")

        disk.on_call = fail
        acked = Acked()
        log = log_class(LOG, clock=ManualClock(), storage=disk, seal=False, random_bytes=Random(1).randbytes)
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


def test_failed_sync_costs_no_acknowledged_record():
    """After a failed sync nothing more is acknowledged, so a power cut loses nothing that was."""
    assert lost_after_failed_sync(SteppedLog) == 0


def test_checker_finds_a_sync_that_is_retried():
    """A log that retries a failed sync loses acknowledged records, and the checker sees it."""
    assert lost_after_failed_sync(SyncRetried) > 0


def reopened_after_damage(log_class, offset_from_end: int) -> str:
    """What a restart says when one byte of the last acknowledged line was changed."""
    disk = SimulatedStorage()
    log = SteppedLog(LOG, clock=ManualClock(), storage=disk, seal=False, random_bytes=Random(1).randbytes)
    for count in range(5):
        log.append("NOTE", {"tag": str(count)})
    end = log._segment.end
    killed = disk.after_kill()
    name = next(name for name in killed.content(LOG) if name.startswith("audit_"))
    killed.content(LOG)[name][end - offset_from_end] ^= 1
    again = log_class(LOG, clock=ManualClock(), storage=killed, seal=False)
    try:
        again.append("NOTE", {"tag": "after"}, level=Level.DURABLE)
    except AuditCorruption as why:
        return "refused" if (why.sequence, why.file) == (6, name) else f"refused, but named {why.sequence}"
    return "went on"


@pytest.mark.parametrize("offset_from_end", [1, 2, 40, 100])
@pytest.mark.invariant("I8")
def test_damage_in_the_last_acknowledged_line_is_refused(offset_from_end):
    """A changed byte in the last acknowledged line is corruption, named, and not a torn tail."""
    assert reopened_after_damage(SteppedLog, offset_from_end) == "refused"
    assert reopened_after_damage(BadLineIsATornTail, offset_from_end) == "went on"


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, "short"])
@pytest.mark.invariant("I9")
def test_log_loses_nothing_when_any_single_call_fails(error):
    """Whichever call to the disk fails, once or for ever, no acknowledged record is lost and none is invented."""
    for forever in (False, True):
        number, failed = 0, True
        while failed:
            number += 1
            failed = fail_at(number, error, forever=forever)
        assert number > 40, "the story made too few calls to mean anything"


def fail_at(number: int, error: int | str, *, forever: bool) -> bool:
    disk = SimulatedStorage()
    faulty = FaultyStorage(disk, fail_at=number, error=error, forever=forever)
    acked = Acked()
    log = SteppedLog(
        LOG,
        clock=ManualClock(),
        storage=faulty,
        rotate_bytes=4096,
        seal=False,
        random_bytes=Random(1).randbytes,
    )
    with mock.patch.multiple(segment_module, FIRST_FILL_BYTES=4096, FILL_STEP_BYTES=4096):
        refused = 0
        for count in range(12):
            tag = f"{count}-" + "x" * 500
            acked.pending.append(tag)
            level = Level.WRITTEN if count % 4 == 3 else Level.DURABLE
            try:
                seq = log.append("NOTE", {"tag": tag}, level=level)
            except (AuditError, OSError):
                refused += 1
                if log.state == "poisoned":
                    break
                acked.pending.pop()
                continue
            acked.pending.pop()
            acked.tags[seq] = tag
            acked.written = seq
            acked.durable = seq if level is Level.DURABLE else acked.durable
        if log.state == "poisoned":
            with pytest.raises(AuditError):
                log.append("NOTE", {"tag": "after"})
        try:
            log.close()
        except AuditError:
            assert log.state == "poisoned"
        judge(disk.after_kill(), acked, acked.written, Random(number))
        for draw in range(3):
            judge(disk.after_power_cut(Random(draw)), acked, acked.durable, Random(number), depth=0)
    return bool(faulty.failed)
