"""Last words: the reserve's lines, its room, and what the next start makes of them."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from zlib import crc32

import pytest
from support.crash import LOG, SteppedLog

from holdfast.audit.head import HeadState, read_head
from holdfast.audit.pruned import InArchive
from holdfast.audit.query import read_records
from holdfast.audit.reserve import POSITION_BYTES, open_reserve
from holdfast.audit.verify import verify
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditError, AuditWriteError, BadInput, DiskFull
from holdfast.testing.storage import FaultyStorage, SimulatedStorage

RUN = Path("/log/run")
BYTES = 2 * POSITION_BYTES


def open_log(storage, **options):
    options = {"reserve_bytes": BYTES, "seal": False, **options}
    return SteppedLog(LOG, clock=ManualClock(), storage=storage, **options)


def poisoned(disk, **options):
    """A log whose disk died under its segments alone."""

    def fail(operation, name):
        if operation == "fdatasync" and name.startswith("audit_"):
            raise OSError(errno.EIO, "input/output error")

    log = open_log(disk, **options)
    log.append("NOTE", {"n": 0})
    disk.on_call = fail
    with pytest.raises(AuditWriteError):
        log.append("NOTE", {"n": 1})
    return log


def late(disk):
    return [record.details for record in read_records(LOG, storage=disk) if record.type == "LATE"]


def restart(disk, **options):
    """Start on the disk as the next process finds it."""
    found = disk.after_kill()
    with open_log(found, **options) as log:
        log.open()
    return found


@pytest.mark.contract("A11")
@pytest.mark.invariant("I9")
def test_last_words_are_late_records_after_the_next_start():
    """Words of a poisoned log are numbered, and the next start appends each, with its own time, and clears."""
    disk = SimulatedStorage()
    log = poisoned(disk)
    assert log.last_words("STATE", {"to": "HALTED"}, user="ops", component="gate") == 1
    assert log.last_words("ORDER", {"order_id": "a"}, component="trader") == 2
    found = restart(disk)
    assert [(one["n"], one["type"], one["user"], one["component"]) for one in late(found)] == [
        (1, "STATE", "ops", "gate"),
        (2, "ORDER", "", "trader"),
    ]
    assert late(found)[0]["details"] == {"to": "HALTED"}
    assert late(found)[0]["ts"] == log._clock.now_ns()
    assert set(found.content(RUN)["reserve"]) == {ord("\n")}
    assert late(restart(found)) == late(found)


@pytest.mark.parametrize("where", ["_tell_of_the_past", "_late"])
def test_a_start_that_is_interrupted_before_all_is_told_does_not_close_in_order(monkeypatch, where):
    """After a Ctrl-C between recovery and last words a close leaves "poisoned", and the next start tells them."""
    disk = SimulatedStorage()
    poisoned(disk).last_words("STATE", {"to": "HALTED"})
    found = disk.after_kill()
    again = open_log(found)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SteppedLog, where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            again.open()
    again.close()
    assert read_head(found.directory(LOG, create=False)).state is HeadState.POISONED
    assert verify(LOG, storage=found).ok
    after = restart(found)
    assert len(late(after)) == 1
    assert verify(LOG, storage=after).ok


def test_a_line_of_the_reserve_is_as_the_format_says():
    """One JSON object a line: crc over what follows its comma, n from 1, no sequence, filler behind."""
    disk = SimulatedStorage()
    log = poisoned(disk)
    log.last_words("STATE", {"to": "HALTED"}, user="ops")
    content = bytes(disk.content(RUN)["reserve"])
    line, filler = content.split(b"\n", 1)
    assert len(content) == BYTES
    assert not filler.strip(b"\n")
    said = json.loads(line)
    assert list(said) == ["crc", "n", "ts", "type", "user", "component", "details"]
    assert said["crc"] == f"{crc32(line[18:]):08x}"


def test_a_healthy_log_has_no_last_words():
    """What can be appended is appended: an open or a closed log refuses last words."""
    log = open_log(SimulatedStorage())
    with pytest.raises(AuditError, match="not poisoned"):
        log.last_words("STATE", {})
    log.append("NOTE", {})
    with pytest.raises(AuditError, match="not poisoned"):
        log.last_words("STATE", {})
    log.close()


def test_a_log_without_reserve_refuses_last_words_and_counts_them():
    """Nothing pretends to be written down: without a reserve the words are refused and counted."""
    log = poisoned(SimulatedStorage(), reserve_bytes=0)
    with pytest.raises(AuditWriteError, match="there is no reserve"):
        log.last_words("STATE", {})
    assert log.words_lost == 1


def test_a_full_reserve_refuses_and_keeps_what_it_has():
    """Beyond its room the reserve says DiskFull, counts, and the next start finds all it took."""
    disk = SimulatedStorage()
    log = poisoned(disk)
    for _ in range(20):
        log.last_words("ORDER", {"text": "x" * 700})
    with pytest.raises(DiskFull, match="the reserve is full"):
        log.last_words("ORDER", {"text": "x" * 700})
    assert log.last_words("STATE", {}) == 21
    assert log.words_lost == 1
    assert len(late(restart(disk))) == 21


def test_a_failed_sync_ends_the_reserve():
    """After a failed sync of the reserve nobody knows what it holds: it takes nothing more."""
    disk = SimulatedStorage()
    log = poisoned(disk)
    log.last_words("STATE", {"n": 1})

    def fail_once(operation, name):
        if operation == "fdatasync":
            disk.on_call = None
            raise OSError(errno.EIO, "input/output error")

    disk.on_call = fail_once
    for _ in range(2):
        with pytest.raises(AuditWriteError, match="reserve failed"):
            log.last_words("STATE", {"n": 2})
    assert log.words_lost == 2


@pytest.mark.parametrize("details", [{"text": "x" * 64_900}, {"price": float("nan")}])
def test_words_that_no_record_could_hold_are_refused(details):
    """Too long, or not a number: a mistake of the caller, which costs the reserve nothing."""
    log = poisoned(SimulatedStorage())
    with pytest.raises(BadInput):
        log.last_words("ORDER", details)
    assert log.last_words("STATE", {}) == 1
    assert log.words_lost == 0


def nested(levels):
    details = {}
    for _ in range(levels):
        details = {"a": details}
    return details


def test_words_nested_as_deep_as_a_late_record_can_hold_are_taken_and_deeper_ones_refused():
    """What the reserve takes, the next start can append: depth counts with the record around it."""
    disk = SimulatedStorage()
    log = poisoned(disk)
    with pytest.raises(BadInput, match="nested deeper"):
        log.last_words("ORDER", nested(63))
    log.last_words("ORDER", nested(62))
    assert len(late(restart(disk))) == 1


def test_a_torn_line_is_passed_over_and_the_next_one_counts_on():
    """What a crash left of a line is not a word; lines around it are."""
    disk = SimulatedStorage()
    log = poisoned(disk)
    log.last_words("STATE", {"n": "first"})
    log.last_words("STATE", {"n": "second"})
    content = disk.content(RUN)["reserve"]
    start = content.index(b"\n") + 1
    content[start + 40 : start + 80] = b"\n" * 40
    again = open_reserve(disk.directory(LOG, create=False).subdirectory("run"), "reserve", BYTES)
    assert [words.n for words in again.words] == [1]
    assert again.append(0, "STATE", "", "", {}) == 2
    assert [one["details"] for one in late(restart(disk))] == [{"n": "first"}, {}]


def test_the_reserve_grows_with_the_open_positions():
    """Each open position has its share, taken while the disk is well; what cannot be had is said."""
    disk = SimulatedStorage()
    log = open_log(disk)
    log.append("NOTE", {})
    assert log.reserve_for(2)
    assert log.reserve_for(7)
    assert len(disk.content(RUN)["reserve"]) == 7 * POSITION_BYTES

    def full(operation, name):
        if operation == "pwrite" and name == "reserve":
            raise OSError(errno.ENOSPC, "no space left on device")

    disk.on_call = full
    assert not log.reserve_for(8)
    disk.on_call = None
    assert log.reserve_for(8)
    log.close()


def test_a_reserve_on_another_volume_is_named_after_its_log():
    """Two logs may keep their reserves in one directory; each start takes up its own."""
    disk, place = SimulatedStorage(), Path("/other")
    log = poisoned(disk, reserve=place)
    log.last_words("STATE", {"of": "first"})
    (name,) = disk.content(place)
    assert name == f"{log.log_id}.reserve"
    elsewhere = disk.after_kill()
    other = SteppedLog(
        Path("/log2"), clock=ManualClock(), storage=elsewhere, seal=False, reserve_bytes=BYTES, reserve=place
    )
    other.append("NOTE", {})
    assert not [record for record in other.records() if record.type == "LATE"]
    other.close()
    assert [one["details"] for one in late(restart(elsewhere, reserve=place))] == [{"of": "first"}]


def test_a_start_without_reserve_takes_up_the_last_writers_words():
    """`audit append` and `audit recover` need no reserve of their own to take up what a trader left."""
    disk = SimulatedStorage()
    poisoned(disk).last_words("STATE", {})
    assert len(late(restart(disk, reserve_bytes=0))) == 1


@pytest.mark.invariant("I9")
def test_a_log_that_is_poisoned_while_it_opens_has_its_reserve():
    """Recovery failed on a dying disk: the words go to the reserve, after those of the start before."""
    disk = SimulatedStorage()
    poisoned(disk).last_words("STATE", {"from": "before"})
    found = disk.after_kill()

    def fail(operation, name):
        if operation == "flush":
            raise OSError(errno.EIO, "input/output error")

    found.on_call = fail
    log = open_log(found)
    with pytest.raises(AuditWriteError):
        log.open()
    assert log.last_words("STATE", {"from": "recovery"}) == 2
    assert [one["details"]["from"] for one in late(restart(found))] == ["before", "recovery"]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, "short"])
@pytest.mark.invariant("I9")
def test_no_reserve_never_stops_a_log(error):
    """Whatever call fails for the reserve alone, the log opens, appends and closes, and says that it has none."""
    number, failed = 0, True
    while failed:
        number += 1
        faulty = FaultyStorage(
            SimulatedStorage(), fail_at=number, error=error, counts=lambda _, name: name == "reserve"
        )
        log = open_log(faulty)
        assert log.append("NOTE", {}) > 0
        failed = faulty.failed
        assert log.reserve_for(2) is not bool(failed)
        log.close()
    assert number > 2


def test_words_are_told_once_where_the_log_begins_in_an_archive(monkeypatch):
    """A start of a pruned log looks among the records that are here, and doubles no word."""
    disk = SimulatedStorage()
    log = poisoned(disk)
    log.last_words("STATE", {})
    words = bytes(disk.content(RUN)["reserve"])

    def pruned(*_, **__):
        raise InArchive(7, "s3://bucket/log")

    monkeypatch.setattr(SteppedLog, "query", pruned)
    found = restart(disk)
    found.content(RUN)["reserve"][:] = words  # as after a crash before the reserve was cleared
    assert len(late(restart(found))) == 1
