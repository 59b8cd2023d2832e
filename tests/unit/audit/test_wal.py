import asyncio
import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from unittest import mock

import pytest
from support.crash import LOG, SteppedLog, lines_on

from holdfast.audit import segment as segment_module
from holdfast.audit import waiting as waiting_module
from holdfast.audit.format import leaf_hash, parse_segment_name
from holdfast.audit.head import HeadState, read_head
from holdfast.audit.query import read_lines
from holdfast.audit.schemas import SCHEMA_VERSION
from holdfast.audit.storage import LocalStorage
from holdfast.audit.waiting import Batch
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditError, AuditWriteError, BadInput, DiskFull, LogHeld
from holdfast.testing.storage import SimulatedStorage

DAY = 86_400


@pytest.fixture(autouse=True)
def small_steps():
    with mock.patch.multiple(segment_module, FIRST_FILL_BYTES=8192, FILL_STEP_BYTES=65536):
        yield


def make(directory, **options) -> WriteAheadLog:
    return WriteAheadLog(directory, clock=options.pop("clock", ManualClock()), seal=False, **options)


def simulated(disk, **options) -> SteppedLog:
    return SteppedLog(
        LOG,
        clock=options.pop("clock", ManualClock()),
        storage=disk,
        seal=False,
        random_bytes=Random(1).randbytes,
        **options,
    )


def lines(directory: Path) -> list[dict]:
    files = sorted(directory.glob("audit_*"), key=lambda path: parse_segment_name(path.name).first_seq)
    return [json.loads(line) for file in files for line in file.read_bytes().split(b"\n") if line]


def test_first_line_of_a_segment_says_what_the_log_is(tmp_path):
    """The first record is SEGMENT with version, log id, origin, first sequence, root and clock."""
    with make(tmp_path / "log", origin="desk-1", random_bytes=lambda count: b"\xab" * count) as log:
        assert log.append("NOTE", {"n": 1}) == 2
    first = lines(tmp_path / "log")[0]
    assert first["type"] == "SEGMENT"
    assert first["details"] == {
        "format": 1,
        "schema": SCHEMA_VERSION,
        "log_id": "ab" * 16,
        "origin": "desk-1",
        "first_seq": 1,
        "root": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "clock": "manual",
    }


@pytest.mark.parametrize("details", [[1, 2], "text", None, 5])
@pytest.mark.invariant("I7")
def test_details_that_are_no_object_are_refused_and_the_log_goes_on(tmp_path, details):
    """No single append, however wrong its arguments, writes a line that readers take for damage."""
    with make(tmp_path / "log") as log:
        for attempt in (
            lambda: log.append("NOTE", details),
            lambda: log.append_many([Entry("NOTE", {}), Entry("NOTE", details)]),
            lambda: asyncio.run(log.append_async("NOTE", details)),
            lambda: log.append("SEGMENT", {}),
            lambda: log.append("NOTE", {}, user=None),
        ):
            with pytest.raises(BadInput):
                attempt()
        assert log.append("NOTE", {"n": 1}) == 2
        assert log.verify_integrity()["integrity_ok"]


@pytest.mark.contract("A11")
def test_log_is_open_until_closed_and_then_refuses(tmp_path):
    """The state goes closed, open, closed; a closed log refuses appends, and closing twice does nothing."""
    log = make(tmp_path / "log")
    assert (log.state, log.last_seq, log.durable_seq) == ("closed", 0, 0)
    log.append("NOTE", {})
    assert (log.state, log.last_seq, log.durable_seq) == ("open", 2, 2)
    log.close()
    log.close()
    assert log.state == "closed"
    with pytest.raises(AuditError, match="was closed"):
        log.append("NOTE", {})


@pytest.mark.contract("A13")
def test_sequences_run_on_over_restarts(tmp_path):
    """Reopening goes on with the next sequence in the same file and writes nothing of its own."""
    for start in range(4):
        with make(tmp_path / "log") as log:
            assert log.append("NOTE", {"start": start}) == start + 2
    assert [line["seq"] for line in lines(tmp_path / "log")] == [1, 2, 3, 4, 5]
    assert len(list((tmp_path / "log").glob("audit_*"))) == 1


def test_file_is_filled_with_newlines_while_open_and_cut_when_closed(tmp_path):
    """While it is written a segment ends in newlines only; closing cuts them."""
    log = make(tmp_path / "log")
    log.append("NOTE", {})
    (segment,) = (tmp_path / "log").glob("audit_*")
    assert segment.stat().st_size == 8192
    assert segment.read_bytes().rstrip(b"\n").count(b"\n") == 1
    assert b"\0" not in segment.read_bytes()
    log.close()
    assert segment.read_bytes().endswith(b"}\n")
    assert segment.read_bytes().count(b"\n") == 2


def test_levels_say_what_is_synced(tmp_path):
    """DURABLE syncs all that was written before it; WRITTEN is in the file; BUFFERED waits in the queue."""
    disk = SimulatedStorage()
    log = simulated(disk)
    log.append("NOTE", {"tag": "a"})
    assert log.durable_seq == 2
    log.append("NOTE", {"tag": "b"}, level=Level.BUFFERED)
    assert len(lines_on(disk)) == 2
    log.append("NOTE", {"tag": "c"}, level=Level.WRITTEN)
    assert len(lines_on(disk)) == 4
    assert log.durable_seq == 2
    log.append("NOTE", {"tag": "d"})
    assert log.durable_seq == log.last_seq == 5
    synced = [json.loads(line)["synced"] for line in read_lines(LOG, storage=disk)]
    assert synced == [0, 1, 2, 2, 2]
    log.close()


def test_nothing_waits_longer_than_promised_without_a_waiter(tmp_path):
    """A BUFFERED record is written and synced by the flusher, without another call."""
    log = make(tmp_path / "log")
    seq = log.append("NOTE", {}, level=Level.BUFFERED)
    done = threading.Event()
    for _ in range(500):
        if log.durable_seq >= seq:
            done.set()
            break
        done.wait(0.01)
    assert done.is_set()
    log.close()


def test_batch_is_contiguous_and_costs_one_sync():
    """append_many gives consecutive sequences with one write and one sync."""
    disk = SimulatedStorage()
    log = simulated(disk)
    log.open()
    log.append("NOTE", {})
    calls = []
    disk.on_call = lambda operation, _: calls.append(operation)
    leaves: list[bytes] = []
    seqs = log.append_many([Entry("NOTE", {"n": n}, "u", "c") for n in range(20)], leaves=leaves)
    assert seqs == list(range(3, 23))
    assert calls.count("fdatasync") == 1
    assert calls.count("pwrite") <= 2
    disk.on_call = None
    assert leaves == [leaf_hash(line) for line in list(read_lines(LOG, storage=disk))[2:]]
    log.close()


def test_bad_entry_of_a_batch_leaves_the_log_as_it_was(tmp_path):
    """One entry that cannot be written refuses the whole batch, and the log goes on."""
    with make(tmp_path / "log") as log:
        log.append("NOTE", {})
        for bad in ({"x": float("nan")}, {"x": "y" * 65_000}):
            with pytest.raises(BadInput):
                log.append_many([Entry("NOTE", {}), Entry("NOTE", bad)])
            with pytest.raises(BadInput):
                log.append("NOTE", bad)
        assert log.append("NOTE", {}) == 3


def test_threads_and_tasks_share_one_order(tmp_path):
    """From 16 threads and 16 tasks at once, sequences are given once each and every record stands in its place."""
    told: dict[int, str] = {}
    with make(tmp_path / "log", rotate_bytes=20_000) as log:

        def thread(number: int) -> None:
            for count in range(20):
                level = Level.WRITTEN if count % 3 else Level.DURABLE
                told[log.append("NOTE", {"tag": f"t{number}-{count}"}, level=level)] = f"t{number}-{count}"

        async def task(number: int) -> None:
            for count in range(20):
                level = Level.WRITTEN if count % 3 else Level.DURABLE
                seq = await log.append_async("NOTE", {"tag": f"a{number}-{count}"}, level=level)
                told[seq] = f"a{number}-{count}"

        async def tasks() -> None:
            await asyncio.gather(*[task(number) for number in range(16)])

        with ThreadPoolExecutor(17) as pool:
            waits = [pool.submit(thread, number) for number in range(16)]
            waits.append(pool.submit(asyncio.run, tasks()))
            for wait in waits:
                wait.result()
    found = lines(tmp_path / "log")
    assert [line["seq"] for line in found] == list(range(1, len(found) + 1))
    assert {line["seq"]: line["details"]["tag"] for line in found if line["type"] == "NOTE"} == told
    assert len(told) == 640
    assert len(list((tmp_path / "log").glob("audit_*"))) > 3


def test_task_that_joins_during_a_write_waits_for_the_next_one():
    """A WRITTEN append that joins while another batch is being written is not acknowledged with that batch."""
    disk = SimulatedStorage()
    log = simulated(disk)
    log.append("NOTE", {"tag": "a"})

    def join(operation, name):
        if operation == "pwrite":
            with log._mutex:
                log._written_batch.led = True

    disk.on_call = join
    log.append("NOTE", {"tag": "b"}, level=Level.WRITTEN)
    disk.on_call = None
    assert log._written_batch.led
    assert not log._written_batch.finished
    log.close()


def test_cancelling_a_wait_cancels_only_the_wait(tmp_path):
    """A cancelled append is still written, and its neighbours are acknowledged."""

    async def scenario(log: WriteAheadLog) -> list[int]:
        await log.append_async("NOTE", {"tag": "first"})
        with log._sync:  # nobody can commit now
            doomed = asyncio.create_task(log.append_async("NOTE", {"tag": "doomed"}))
            kept = asyncio.create_task(log.append_async("NOTE", {"tag": "kept"}))
            await asyncio.sleep(0)
            doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        return [await kept]

    with make(tmp_path / "log") as log:
        assert asyncio.run(scenario(log)) == [4]
    assert [line["details"].get("tag") for line in lines(tmp_path / "log")[1:]] == ["first", "doomed", "kept"]


def test_closed_event_loop_disturbs_nobody(tmp_path):
    """A loop that is closed while its task waits neither stops the flusher nor the other waiters."""
    with make(tmp_path / "log") as log:
        log.append("NOTE", {})
        log._sync.acquire()
        loop = asyncio.new_event_loop()
        task = loop.create_task(log.append_async("NOTE", {"tag": "lost waiter"}))
        loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
        log._sync.release()
        assert asyncio.run(log.append_async("NOTE", {"tag": "next"})) == 4
        assert log.state == "open"


class InterruptedLock:
    """A lock whose holder is hit by Ctrl-C as it lets go, where *when* says so."""

    def __init__(self, inner, when):
        self.inner, self.when = inner, when

    def __enter__(self):
        return self.inner.__enter__()

    def __exit__(self, *error):
        hit = error[0] is None and self.when()
        self.inner.__exit__(*error)
        if hit:
            self.when = bool  # once
            raise KeyboardInterrupt


@pytest.fixture
def waiter():
    """A thread with an event loop where one append waits; calling it with a log starts that."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda log: pool.submit(lambda: asyncio.run(log.append_async("NOTE", {"who": "waiter"})))


class Broken:
    """A file one of whose operations fails from now on."""

    def __init__(self, inner, operation: str, error: int) -> None:
        self.name = inner.name
        self._inner, self._operation, self._error = inner, operation, error

    def __getattr__(self, attribute):
        return self._fail if attribute == self._operation else getattr(self._inner, attribute)

    def _fail(self, *_):
        raise OSError(self._error, os.strerror(self._error))


def break_file(log, operation: str, error: int) -> None:
    log._segment.file = Broken(log._segment.file, operation, error)


def stop_flusher(log) -> None:
    log._stopping = True
    log._wake.set()
    log._flusher.join()


def wait_until(condition) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came true")


def test_waiters_are_told_when_their_leader_is_interrupted_as_it_takes_the_batch(tmp_path, waiter):
    """An interrupt right after the batch was taken, before anything is written, leaves nobody waiting."""
    log = make(tmp_path / "log")
    log.append("NOTE", {})
    stop_flusher(log)
    waiting = waiter(log)
    wait_until(lambda: log._batch.led)
    batch, mutex = log._batch, log._mutex
    log._mutex = InterruptedLock(mutex, lambda: log._serving is batch)
    with pytest.raises(KeyboardInterrupt):
        log.sync()
    assert isinstance(waiting.exception(timeout=10), AuditWriteError)
    assert log.state == "poisoned"
    log.close()


@pytest.mark.parametrize("cut", ["wake", "poison"])
def test_waiters_are_told_when_the_waking_itself_is_interrupted(tmp_path, waiter, cut):
    """An interrupt in the middle of waking, or of poisoning, costs nobody their answer."""
    log = make(tmp_path / "log")
    log.append("NOTE", {})
    log._sync.acquire()
    waiting = waiter(log)
    wait_until(lambda: log._batch.led)
    real, hits = waiting_module._wake, []

    def wake(*arguments):
        hits.append(1)
        if len(hits) <= (1 if cut == "wake" else 2):
            raise KeyboardInterrupt
        real(*arguments)

    with mock.patch.object(waiting_module, "_wake", wake):
        log._sync.release()
        with contextlib.suppress(KeyboardInterrupt, AuditWriteError):
            log.sync()
        outcome = waiting.exception(timeout=10)
    assert outcome is None or isinstance(outcome, AuditWriteError)
    assert log.state == "poisoned"
    log.close()


def test_batch_finished_by_two_threads_at_once_wakes_everybody_once():
    """Whoever comes second repeats the first one's word and releases nothing twice."""
    batch = Batch()
    turnstile = batch.join()
    with ThreadPoolExecutor(8) as pool:
        first = AuditWriteError("first")
        batch.finish(first)
        list(pool.map(batch.finish, [None] * 64))
    assert (batch.finished, batch.error) == (True, first)
    assert turnstile.acquire(timeout=1)


def test_lost_leader_is_replaced_by_the_flusher(tmp_path, waiter):
    """A batch whose leader vanished is served all the same, even where its records were synced with others."""
    log = make(tmp_path / "log")
    log.append("NOTE", {})
    with log._sync:
        with log._mutex:
            log._batch.led = True  # a thread that is interrupted here never comes back
        waiting = waiter(log)
        wait_until(lambda: log._batch.loop is not None)
        with log._io:
            log._drain()
            log._acknowledge(log._segment.file, log._written, log._segment.end)
    assert waiting.result(timeout=10) == 3
    log.close()


def test_full_disk_is_told_as_such_to_tasks_too(tmp_path):
    """A task that waits while the disk is full gets the same error, with the same hint, as a thread."""
    log = make(tmp_path / "log")
    log.append("NOTE", {})

    break_file(log, "pwrite", errno.ENOSPC)
    with pytest.raises(DiskFull) as told:
        asyncio.run(log.append_async("NOTE", {}))
    assert "free space" in told.value.hint
    log.close()


def test_rotation_that_is_interrupted_while_planned_writes_no_bad_line():
    """An interrupt between planning a segment and counting it never puts its marker into the file as a line."""
    disk = SimulatedStorage()
    log = simulated(disk, clock=(clock := ManualClock()))
    log.append("NOTE", {"tag": "day 1"})
    clock.advance(DAY)

    class Interrupting(list):
        def extend(self, items):
            super().extend(items)
            raise KeyboardInterrupt

    log._queue.items = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        log.append("NOTE", {"tag": "lost"})
    log._queue.items = list(log._queue.items)
    log.sync()
    log.append("NOTE", {"tag": "day 2"})
    log.close()
    types = [type_ for _, type_, _ in lines_on(disk)]
    assert types[:2] == ["SEGMENT", "NOTE"]
    assert types[-2:] == ["SEGMENT", "NOTE"]


def test_poison_callbacks_can_neither_harm_nor_hang_anybody(tmp_path):
    """Every callback is called once, without a lock held, whatever another one raises or tries to append."""
    log = make(tmp_path / "log")
    log.append("NOTE", {})
    told: list[object] = []

    def raises(reason):
        told.append(reason)
        raise ValueError("a callback's own trouble")

    def appends(reason):
        told.append(reason)
        for level in Level:
            with pytest.raises(AuditWriteError, match="poisoned"):
                log.append("NOTE", {}, level=level)
        with pytest.raises(AuditWriteError, match="poisoned"):
            log.sync()
        log.root()
        told.append(
            [lock.locked() for lock in (log._sync, log._io, log._segment.filling, log._mutex, log._opening)]
        )

    for callback in (raises, appends, told.append):
        log.on_poison(callback)

    break_file(log, "fdatasync", errno.EIO)
    stop_flusher(log)  # whether a lock is free is asked below
    with pytest.raises(AuditWriteError, match="Input/output error"):
        log.append("NOTE", {})
    reason = "OSError: [Errno 5] Input/output error"
    assert told == [reason, reason, [False] * 5, reason]
    assert log.listener_failures  # what a listener raised is kept, not swallowed
    log.close()


def test_close_that_was_interrupted_can_be_finished(tmp_path):
    """Ctrl-C while a close waits leaves a log that a second close ends in order."""
    log = make(tmp_path / "log")
    log.append("NOTE", {"n": 1}, level=Level.BUFFERED)
    with (
        mock.patch.object(log._flusher, "join", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        log.close()
    log.close()
    handle = LocalStorage().directory(tmp_path / "log", create=False)
    assert read_head(handle).state is HeadState.CLOSED
    handle.close()
    assert len(lines(tmp_path / "log")) == 2


def test_leader_that_dies_between_write_and_wake_poisons():
    """An interrupt after the write and before the wake poisons the log, and the interrupt is not swallowed."""
    disk = SimulatedStorage()
    log = simulated(disk)
    log.append("NOTE", {})

    def interrupt(operation, name):
        if operation == "fdatasync":
            raise KeyboardInterrupt

    disk.on_call = interrupt
    reasons: list[str] = []
    log.on_poison(reasons.append)
    with pytest.raises(KeyboardInterrupt):
        log.append("NOTE", {})
    disk.on_call = None
    assert log.state == "poisoned"
    assert reasons == ["KeyboardInterrupt"]
    with pytest.raises(AuditWriteError, match="poisoned: KeyboardInterrupt"):
        log.append("NOTE", {})


@pytest.mark.invariant("I9")
def test_failed_sync_poisons_for_good_and_says_so_in_the_head():
    """After one failed sync every append is refused with the reason, the head says poisoned, and no sync is tried
    again."""
    disk = SimulatedStorage()
    log = simulated(disk)
    log.append("NOTE", {"tag": "good"})
    calls = []

    def fail(operation, name):
        calls.append(operation)
        if operation == "fdatasync":
            raise OSError(errno.EIO, "Input/output error")

    disk.on_call = fail
    with pytest.raises(AuditWriteError, match="Input/output error"):
        log.append("NOTE", {"tag": "bad"})
    for attempt in (
        lambda: log.append("NOTE", {}),
        lambda: log.append("NOTE", {}, level=Level.BUFFERED),
        log.sync,
    ):
        with pytest.raises(AuditWriteError, match="poisoned"):
            attempt()
    with pytest.raises(AuditWriteError, match="poisoned"):
        asyncio.run(log.append_async("NOTE", {}))
    assert calls.count("fdatasync") == 1
    disk.on_call = None
    mark = read_head(disk.directory(LOG, create=False))
    assert (mark.state, mark.sequence) == (HeadState.POISONED, 2)
    assert log.failure == "OSError: [Errno 5] Input/output error"
    late: list[str] = []
    log.on_poison(late.append)
    assert late == [log.failure]
    log.close()
    again = simulated(disk.after_power_cut(Random(3)))
    assert again.append("NOTE", {"tag": "after"}) >= 3
    again.close()


def test_followers_and_tasks_are_told_when_their_leader_fails(tmp_path):
    """Everybody who waits for a batch whose sync fails gets the error; nobody hangs."""
    log = make(tmp_path / "log")
    log.append("NOTE", {})

    break_file(log, "fdatasync", errno.EIO)
    log._sync.acquire()
    with ThreadPoolExecutor(8) as pool:
        waits = [pool.submit(log.append, "NOTE", {"n": n}) for n in range(6)]
        waits.append(pool.submit(lambda: asyncio.run(log.append_async("NOTE", {}))))
        while len(log._queue.items) < 7:
            pass
        log._sync.release()
        errors = [wait.exception(timeout=10) for wait in waits]
    assert [type(error) for error in errors] == [AuditWriteError] * 7
    log.close()
    assert log.state == "poisoned"


@pytest.mark.invariant("I9")
def test_full_disk_is_announced_before_it_stops_anything():
    """When no further filler can be had, `space_low` is set while appends still succeed in what is allocated."""
    disk = SimulatedStorage()
    log = simulated(disk)
    log.append("NOTE", {"tag": "x"})
    allocated = log._segment.allocated

    class Full:
        def __init__(self, inner):
            self.inner = inner
            self.full = True

        def __getattr__(self, attribute):
            return getattr(self.inner, attribute)

        def pwrite(self, data, offset):
            if self.full and offset + len(data) > allocated:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.inner.pwrite(data, offset)

    log._segment.file = full = Full(log._segment.file)
    assert not log.space_low
    while not log._segment.filler_wanted:
        log.append("NOTE", {"tag": "x" * 200})
    log._segment.fill_ahead(log._sync, lambda: True)
    assert log.space_low
    before = log.last_seq
    log.append("NOTE", {"tag": "still works"})
    assert log.durable_seq == before + 1
    full.full = False
    log._segment.fill_ahead(log._sync, lambda: True)
    assert not log.space_low
    full.full = True
    allocated = log._segment.allocated
    with pytest.raises(AuditWriteError, match="no space left"):
        log.append_many([Entry("NOTE", {"tag": "x" * 500})] * 1000)
    assert log.state == "poisoned"


def test_filler_step_is_halved_down_to_what_the_disk_has():
    """On a small disk the filler grows by what can be had, down to one page."""
    disk = SimulatedStorage()
    log = simulated(disk)
    log.append("NOTE", {"tag": "x"})
    limit = log._segment.allocated + 5000

    def small(operation, name):
        if operation == "pwrite" and log._wants > limit:
            raise OSError(errno.ENOSPC, "No space left on device")

    real = segment_module.write_filler

    def watched(file, start, size):
        log._wants = start + size
        real(file, start, size)
        log._wants = 0

    log._wants = 0
    disk.on_call = small
    with mock.patch.object(segment_module, "write_filler", watched), log._segment.filling:
        before = log._segment.allocated
        log._segment._step = 65536
        assert log._segment.grow()
        assert log._segment.allocated == before + 4096
        assert not log._segment.grow()
    assert log.space_low


def test_segment_is_rotated_before_it_grows_too_long():
    """No segment exceeds the bound, each begins with SEGMENT, and old ones are cut to their lines."""
    disk = SimulatedStorage()
    log = simulated(disk, rotate_bytes=4096)
    for count in range(60):
        log.append("NOTE", {"tag": str(count) + "x" * 100})
    log.close()
    files = disk.content(LOG)
    segments = sorted(name for name in files if name.startswith("audit_"))
    assert len(segments) > 3
    for name in segments:
        content = bytes(files[name])
        assert 0 < len(content) <= 4096
        assert json.loads(content.split(b"\n")[0])["type"] == "SEGMENT"
        assert not content.endswith(b"\n\n")
        assert parse_segment_name(name).first_seq == json.loads(content.split(b"\n")[0])["seq"]
    assert all(len(files[name]) > 3300 for name in segments[:-1]), "segments are left half empty"
    assert [seq for seq, _, _ in lines_on(disk)] == list(range(1, len(lines_on(disk)) + 1))


def test_day_of_a_clock_that_was_set_far_ahead_ends_when_it_is_set_back(tmp_path):
    """A wrong year does not keep one segment, and one key, until that year; a step back into yesterday does nothing."""
    clock = ManualClock()
    with WriteAheadLog(tmp_path / "log", clock=clock, seal=False) as log:
        clock.step_wall_secs(40 * 86_400)
        log.append("NOTE", {"n": 1})
        clock.step_wall_secs(-86_400)
        log.append("NOTE", {"n": 2})
        assert len([*(tmp_path / "log").glob("audit_*.log")]) == 1
        clock.step_wall_secs(-39 * 86_400)
        log.append("NOTE", {"n": 3})
        assert len([*(tmp_path / "log").glob("audit_*.log")]) == 2
        clock.advance(86_400)
        log.append("NOTE", {"n": 4})
    assert len([*(tmp_path / "log").glob("audit_*.log")]) == 3
    assert log.verify_integrity()["integrity_ok"]


def test_segment_is_rotated_at_midnight_also_when_idle_and_never_an_empty_one():
    """A UTC day's end begins a new segment at the next append or tick, but never behind an empty one."""
    clock = ManualClock()
    disk = SimulatedStorage()
    log = simulated(disk, clock=clock)
    log.append("NOTE", {"tag": "day 1"})
    log.tick()
    assert len(lines_on(disk)) == 2
    clock.advance(DAY)
    log.tick()
    assert [type_ for _, type_, _ in lines_on(disk)] == ["SEGMENT", "NOTE", "SEGMENT"]
    clock.advance(DAY)
    log.tick()
    assert len(lines_on(disk)) == 3
    log.append("NOTE", {"tag": "day 3"})
    clock.advance(DAY)
    log.append("NOTE", {"tag": "day 4"})
    types = [type_ for _, type_, _ in lines_on(disk)]
    assert types == ["SEGMENT", "NOTE", "SEGMENT", "NOTE", "SEGMENT", "NOTE"]
    log.close()


def test_segments_are_ordered_by_first_sequence_when_the_clock_runs_back():
    """With the wall clock stepped back between segments the log still reads in sequence."""
    clock = ManualClock()
    disk = SimulatedStorage()
    log = simulated(disk, clock=clock, rotate_bytes=4096)
    for _ in range(4):
        for count in range(12):
            log.append("NOTE", {"tag": str(count) + "x" * 300})
        clock.step_wall_secs(-7200)
    log.close()
    names = [name for name in disk.content(LOG) if name.startswith("audit_")]
    assert sorted(names) != sorted(names, key=lambda name: parse_segment_name(name).first_seq)
    again = simulated(disk, clock=clock)
    last = len(lines_on(disk))
    assert again.append("NOTE", {"tag": "x"}) > last
    again.close()


def test_full_queue_counts_what_it_drops():
    """With overflow "gap" a BUFFERED record beyond the bound returns 0 and a GAP record counts it by type."""
    disk = SimulatedStorage()
    log = simulated(disk, buffer_bytes=2000, overflow="gap")
    log.append("NOTE", {"tag": "first"})
    seqs = [log.append("ECHO", {"tag": "x" * 100}, level=Level.BUFFERED) for _ in range(30)]
    dropped = seqs.count(0)
    assert dropped > 5
    log.append("NOTE", {"tag": "last"})
    found = lines_on(disk)
    (gap,) = [details for _, type_, details in found if type_ == "GAP"]
    assert gap["dropped"] == dropped
    assert gap["types"] == {"ECHO": dropped}
    assert len([1 for _, type_, _ in found if type_ == "ECHO"]) == 30 - dropped
    log.close()


def test_full_queue_is_written_out_before_more_is_taken():
    """With back-pressure every BUFFERED record is kept and the queue stays bounded."""
    disk = SimulatedStorage()
    log = simulated(disk, buffer_bytes=2000)
    for count in range(50):
        assert log.append("ECHO", {"tag": str(count) + "x" * 100}, level=Level.BUFFERED) == count + 2
        assert log._queue.bytes <= 2000
    log.close()
    assert len(lines_on(disk)) == 51


def test_second_writer_is_told_who_holds_the_log(tmp_path):
    """A second log on the directory is refused and names the process; readers are not."""
    with make(tmp_path / "log") as log:
        log.append("NOTE", {})
        second = make(tmp_path / "log")
        with pytest.raises(LogHeld, match=f"process {os.getpid()} writes it"):
            second.append("NOTE", {})
        assert second.state == "closed"
        assert len(list(second.records())) == 2
    assert second.append("NOTE", {}) == 3
    second.close()


FORKED_AT_THE_WORST = """
import os, sys, threading
from pathlib import Path
from holdfast.audit.logger import AuditLogger
from holdfast.audit.storage import LocalDirectory
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.core.errors import AuditWriteError

def child_refuses(log):
    child = os.fork()
    if child == 0:
        for attempt in (lambda: log.append("NOTE", {}), lambda: AuditLogger(log).record("NOTE", {}), log.open, log.sync):
            try:
                attempt()
            except AuditWriteError as why:
                if "fork of the writer" not in str(why):
                    os._exit(8)
            else:
                os._exit(9)
        log.last_seq, log.root(), log.on_poison(print), log.close()
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

codes = []
log = WriteAheadLog(Path(sys.argv[1]), clock=SystemClock(), seal=False)
real = LocalDirectory.try_lock
def fork_with_the_lock_just_taken(self):
    taken = real(self)
    codes.append(child_refuses(log))
    return taken
LocalDirectory.try_lock = fork_with_the_lock_just_taken
log.append("NOTE", {"who": "parent"})
for lock in (log._mutex, log._opening, log._sync, log._io, log._segment.filling):
    with lock:
        codes.append(child_refuses(log))
log.append("NOTE", {"who": "parent again"})
log.close()
sys.exit(codes != [7] * 6)
"""


def test_forked_copy_refuses_whatever_lock_was_held(tmp_path):
    """A child forked while any of the log's locks is held, or while it opens, refuses at once and hangs nowhere."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED_AT_THE_WORST, str(tmp_path / "log")], check=False, timeout=60
    )
    assert done.returncode == 0
    assert [line["details"].get("who") for line in lines(tmp_path / "log")[1:]] == ["parent", "parent again"]


FORKER = """
import os, sys
from pathlib import Path
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.core.errors import AuditWriteError
log = WriteAheadLog(Path(sys.argv[1]), clock=SystemClock(), seal=False)
log.append("NOTE", {"who": "parent"})
child = os.fork()
if child == 0:
    try:
        log.append("NOTE", {"who": "child"})
    except AuditWriteError as why:
        os._exit(7 if "fork of the writer" in str(why) else 8)
    os._exit(9)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
log.append("NOTE", {"who": "parent again"})
log.close()
sys.exit(code)
"""


def test_forked_copy_refuses_to_write(tmp_path):
    """A forked child may not append; the parent goes on."""
    done = subprocess.run([sys.executable, "-c", FORKER, str(tmp_path / "log")], check=False, timeout=60)
    assert done.returncode == 7
    assert [line["details"].get("who") for line in lines(tmp_path / "log")[1:]] == ["parent", "parent again"]


def test_unwritable_directory_is_a_named_refusal(tmp_path):
    """A path that cannot be a directory is refused with the path and the reason."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(AuditError, match="not a directory"):
        make(tmp_path / "file" / "log").append("NOTE", {})


def test_reading_includes_what_this_log_only_wrote(tmp_path):
    """records() and query() of the writing log show records of every level, at once."""
    with make(tmp_path / "log") as log:
        for level in (Level.BUFFERED, Level.WRITTEN, Level.DURABLE):
            log.append("NOTE", {"level": level.name}, level=level)
        assert [record.details.get("level") for record in log.records(2)] == [
            "BUFFERED",
            "WRITTEN",
            "DURABLE",
        ]
        log.append("LATER", {}, level=Level.BUFFERED, user="eve")
        assert [entry.user_id for entry in log.query(event_type="LATER")] == ["eve"]
        log.append("LATER", {}, level=Level.BUFFERED)
        report = log.verify_integrity()
        assert (report["total_entries"], report["integrity_ok"]) == (6, True)


def test_root_in_memory_is_the_root_of_the_lines(tmp_path):
    """The root kept while writing equals the one rebuilt from the files at the next start."""
    with make(tmp_path / "log", rotate_bytes=4096) as log:
        for count in range(40):
            log.append("NOTE", {"tag": str(count) + "x" * 200})
        size, root = log.root()
        assert size == log.last_seq
        assert len(log.log_id) == 32
    with make(tmp_path / "log") as again:
        again.open()
        assert again.root() == (size, root)
        assert again.log_id == log.log_id


def test_head_is_where_the_data_is_after_a_clean_close(tmp_path):
    """After a clean close the head says closed, the last sequence and the length of its file."""
    with make(tmp_path / "log") as log:
        log.append("NOTE", {})
    handle = LocalStorage().directory(tmp_path / "log", create=False)
    mark = read_head(handle)
    handle.close()
    assert mark[:4] == (
        2,
        log._segment.file.name,
        (tmp_path / "log" / log._segment.file.name).stat().st_size,
        HeadState.CLOSED,
    )
