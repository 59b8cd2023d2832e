"""Last words on a full, a dead and a crashing disk: none is lost, none is told twice."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from random import Random

import pytest
from support.crash import LOG, SteppedLog
from support.execution import signal, world
from support.places import small_volume

from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import read_records
from holdfast.audit.reserve import RESERVE_BYTES, Reserve
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditError, AuditWriteError, DiskFull
from holdfast.execution.trader import RouteStatus
from holdfast.execution.venue import Canceled
from holdfast.testing.storage import FaultyStorage, SimulatedStorage

WORDS = 4
SEED = 20261121


def open_log(disk) -> SteppedLog:
    return SteppedLog(LOG, clock=ManualClock(), storage=disk, seal=False, reserve_bytes=8192)


def late(disk) -> list[int]:
    return [
        record.details["details"]["word"]
        for record in read_records(LOG, storage=disk)
        if record.type == "LATE"
    ]


def dying(disk: SimulatedStorage) -> SteppedLog:
    """A log that was poisoned by its segment's disk and has said nothing yet."""

    def fail(operation: str, name: str) -> None:
        if operation == "fdatasync" and name.startswith("audit_"):
            raise OSError(errno.EIO, "input/output error")

    log = open_log(disk)
    log.append("NOTE", {})
    disk.on_call = fail
    with pytest.raises(AuditWriteError):
        log.append("NOTE", {})
    disk.on_call = None
    return log


def said_and_crashed(random: Random, cuts: int) -> list[tuple[SimulatedStorage, int]]:
    """Disks at every call of saying words, after a kill and after power cuts, with how many words were durable."""
    disk = SimulatedStorage()
    log, states, said = dying(disk), [], 0

    def crash_here(operation: str, name: str) -> None:
        states.append((disk.after_kill(), said))
        states.extend((disk.after_power_cut(random), said) for _ in range(cuts))

    disk.on_call = crash_here
    for said in range(WORDS):
        log.last_words("STATE", {"word": said + 1, "text": "x" * random.randrange(900)})
    said = WORDS
    crash_here("end", "")
    return states


def starts_crashed(disk: SimulatedStorage, random: Random, cuts: int) -> list[SimulatedStorage]:
    """Disks at every call of the start that takes the words up."""
    states: list[SimulatedStorage] = []

    def crash_here(operation: str, name: str) -> None:
        states.append(disk.after_kill())
        states.extend(disk.after_power_cut(random) for _ in range(cuts))

    disk.on_call = crash_here
    open_log(disk).open()
    crash_here("end", "")
    disk.on_call = None
    return states


def check(disk: SimulatedStorage, at_least: int) -> None:
    """After two more starts the words are in the log once each, in order, and the reserve is empty."""
    for _ in range(2):
        log = open_log(disk)
        log.open()
        words = late(disk)
        assert words[: len(words)] == list(range(1, len(words) + 1)), f"seed {SEED}: {words}"
        assert at_least <= len(words) <= WORDS, f"seed {SEED}: {len(words)} words, {at_least} were durable"
        assert not disk.content(LOG / "run")["reserve"].strip(b"\n")
        log.close()


@pytest.mark.slow
@pytest.mark.invariant("I7")
@pytest.mark.invariant("I9")
def test_a_crash_at_any_call_neither_loses_nor_doubles_last_words():
    """Killed or cut off at every call of saying words and of taking them up, each durable word is told once."""
    random = Random(SEED)
    states = said_and_crashed(random, cuts=2)
    for disk, durable in states:
        check(disk, durable)
    whole = next(disk for disk, durable in reversed(states) if durable == WORDS)
    count = 0
    for _ in range(6):
        disk = SimulatedStorage()
        log = dying(disk)
        for word in range(WORDS):
            log.last_words("STATE", {"word": word + 1, "text": "x" * random.randrange(900)})
        for state in starts_crashed(disk.after_power_cut(random), random, cuts=2):
            check(state, WORDS)
            count += 1
    assert count > 200
    assert late(whole) == [1, 2, 3, 4]


def test_words_that_are_taken_up_again_after_every_crash_would_be_doubled_without_their_number(monkeypatch):
    """A start that does not look for what is there already is found by the same check."""
    monkeypatch.setattr(SteppedLog, "query", lambda *_, **__: [])
    with pytest.raises(AssertionError):
        test_a_crash_at_any_call_neither_loses_nor_doubles_last_words()


def test_words_are_lost_when_the_reserve_is_cleared_first(monkeypatch):
    """A start that clears before the log has the words is found by the same check."""
    honest = SteppedLog.append_many

    def cleared_first(self, entries, **options):
        self._last_words._reserve.clear()
        return honest(self, entries, **options)

    monkeypatch.setattr(SteppedLog, "append_many", cleared_first)
    with pytest.raises(AssertionError):
        test_a_crash_at_any_call_neither_loses_nor_doubles_last_words()


def test_words_that_are_not_synced_are_lost(monkeypatch):
    """A reserve that acknowledges without a sync is found by the same check."""

    def unsynced(self, data, offset):
        self._file.pwrite(data, offset)

    monkeypatch.setattr(Reserve, "_write", unsynced)
    with pytest.raises(AssertionError):
        test_a_crash_at_any_call_neither_loses_nor_doubles_last_words()


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, "short"])
@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.invariant("I9")
def test_a_failing_call_while_words_are_taken_up_neither_loses_nor_doubles_them(error, forever):
    """Whichever call of the start fails, the start after it tells every word once."""
    number, failed = 0, True
    while failed:
        number += 1
        disk = SimulatedStorage()
        log = dying(disk)
        for word in range(WORDS):
            log.last_words("STATE", {"word": word + 1})
        found = disk.after_kill()
        faulty = FaultyStorage(found, fail_at=number, error=error, forever=forever)
        start = open_log(faulty)
        with contextlib.suppress(AuditError, OSError):
            start.open()
        failed = faulty.failed
        check(found.after_kill(), WORDS)
    assert number > 30


# ---------------------------------------------------------------------- real disks


@pytest.fixture
def volume(tmp_path):
    with small_volume(tmp_path / "volume") as made:
        yield made


@pytest.mark.invariant("I9")
@pytest.mark.invariant("I5")
@pytest.mark.contract("A11")
def test_on_a_really_full_disk_cancels_go_out_and_their_words_are_kept(volume):
    """The journal fills its volume to the last byte: a cancel still leaves, and the next start tells of it."""
    directory = volume.path / "log"
    wal = WriteAheadLog(directory, clock=ManualClock(), seal=False, reserve_bytes=RESERVE_BYTES)
    w = world(log=AuditLogger(wal, user="tester"))

    async def run() -> str:
        await w.trader.start()
        resting = await w.trader.route(signal(key="rest", price=50, tif="gtc"))
        assert resting.status is RouteStatus.SUBMITTED
        volume.fill()
        with contextlib.suppress(DiskFull):
            for _ in range(1000):
                await wal.append_async("NOTE", {"text": "x" * 5000})
        assert wal.state == "poisoned"
        refused = await w.trader.route(signal(key="b"))
        assert refused.reason == "audit_unavailable"
        assert isinstance(await w.trader.cancel(resting.client_order_id), Canceled)
        assert w.trader.ledger.unrecorded == 0
        return resting.client_order_id

    name = asyncio.run(run())
    wal.close()
    volume.free()
    with WriteAheadLog(directory, clock=ManualClock(), seal=False) as again:
        again.open()
        told = [record.details for record in again.records() if record.type == "LATE"]
        assert again.verify_integrity()["integrity_ok"]
    assert [one["details"]["client_order_id"] for one in told if one["type"] == "CANCEL"] == [name]
