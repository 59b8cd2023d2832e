"""Receipts: durable, one for each sink and day, readable or named."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.anchors import LOG_ID, MemoryLog

from holdfast.anchors.receipts import AUTHORITY, Receipts, folder_name
from holdfast.anchors.sink import Outcome, Receipt
from holdfast.audit.keys import KeyHome
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput
from holdfast.testing.storage import SimulatedStorage

HOME = Path("/home")
SINK = "file:/mnt/b"


def receipt(log, sink=SINK, **more):
    return Receipt(sink, Outcome.ANCHORED, len(log.leaves), "", log.note(), **more)


def in_memory():
    storage = SimulatedStorage()
    return storage, Receipts(KeyHome(HOME, storage))


@pytest.fixture
def kept(tmp_path):
    home = KeyHome(tmp_path / "home")
    return home.log(LOG_ID).path / "anchors" / folder_name(SINK), Receipts(home)


def test_one_receipt_a_day_is_kept(kept):
    """Of each sink the newest receipt of every day stays, with its token; older ones of that day go."""
    folder, receipts = kept
    log, clock = MemoryLog(), ManualClock()
    for hours in (0, 1, 2, 24, 1):
        clock.advance(hours * 3600)
        receipts.keep(LOG_ID, receipt(log.grow(5), token=b"0token", authority=b"PEM"), clock.now_ns())
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "20251120-000000000015.note",
        "20251120-000000000015.tsr",
        "20251121-000000000025.note",
        "20251121-000000000025.tsr",
        AUTHORITY,
    ]
    assert [mark.size for mark in receipts.marks(LOG_ID)] == [25]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())


def test_marks_are_those_of_the_log_and_of_every_sink(kept):
    """Each sink's newest receipt is a mark of its log; another log has none."""
    _, receipts = kept
    receipts.keep(LOG_ID, receipt(MemoryLog(5)), 0)
    receipts.keep(LOG_ID, receipt(MemoryLog(9), "file:/mnt/c"), 0)
    assert sorted(mark.size for mark in receipts.marks(LOG_ID)) == [5, 9]
    assert receipts.newest(LOG_ID, "file:/mnt/c").root == MemoryLog(9).checkpoint().root
    assert receipts.newest(LOG_ID, "file:/mnt/d") is None
    assert list(receipts.marks("cd" * 16)) == []


@pytest.mark.parametrize("content", [b"", b"rubbish", MemoryLog(5, log_id="cd" * 16).note()])
def test_a_receipt_that_cannot_be_read_is_named(kept, content):
    """A damaged receipt, or one of another log, stops whoever asks, by its path."""
    folder, receipts = kept
    receipts.keep(LOG_ID, receipt(MemoryLog(5)), 0)
    (path,) = folder.iterdir()
    path.write_bytes(content)
    with pytest.raises(BadInput, match=path.name):
        list(receipts.marks(LOG_ID))


@pytest.mark.invariant("I8")
def test_a_receipt_that_was_kept_survives_any_crash():
    """At every call of keeping a newer receipt, a kill or a power cut leaves the old or the new one; seed 7."""
    storage, receipts = in_memory()
    log = MemoryLog(5)
    receipts.keep(LOG_ID, receipt(log), 0)
    states, randomly = [], random.Random(7)

    def crash(operation, name):
        states.append(storage.after_kill())
        states.extend(storage.after_power_cut(randomly) for _ in range(3))

    storage.on_call = crash
    receipts.keep(LOG_ID, receipt(log.grow(4), token=b"0", authority=b"PEM"), 0)
    storage.on_call = None
    during = len(states)
    assert during > 30
    crash("after", "")
    for number, disk in enumerate(states):
        again = Receipts(KeyHome(HOME, disk))
        (mark,) = again.marks(LOG_ID)
        assert mark.size in ({5, 9} if number < during else {9})
        assert mark.root == log.checkpoint(mark.size).root
        again.keep(LOG_ID, receipt(log), 0)
        assert [mark.size for mark in again.marks(LOG_ID)] == [9]
    assert [mark.size for mark in receipts.marks(LOG_ID)] == [9]


def test_two_processes_may_keep_a_receipt_at_once(kept):
    """Many writers of one sink's receipts at once leave the newest one, whole, and nothing else of the day."""
    folder, receipts = kept
    log = MemoryLog(40)
    given = [
        Receipt(SINK, Outcome.ANCHORED, size, "", log.note(size), token=b"0")
        for size in (1, 20, 40)
        for _ in range(16)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: receipts.keep(LOG_ID, one, 0), given))
    receipts.keep(LOG_ID, given[-1], 0)
    assert [mark.size for mark in receipts.marks(LOG_ID)] == [40]
    assert sorted(path.name for path in folder.iterdir()) == [
        f"19700101-{40:012d}.note",
        f"19700101-{40:012d}.tsr",
    ]


def test_what_a_killed_writer_left_goes_the_next_day(kept):
    """A temporary file of another day is removed with the next receipt; one of today may be somebody's."""
    folder, receipts = kept
    receipts.keep(LOG_ID, receipt(MemoryLog(5)), 0)
    for name in ("19700101-00.tmp", "20251120-00.tmp"):
        (folder / name).write_bytes(b"half")
    receipts.keep(LOG_ID, receipt(MemoryLog(9)), ManualClock().now_ns())
    assert "19700101-00.tmp" not in {path.name for path in folder.iterdir()}
    assert "20251120-00.tmp" in {path.name for path in folder.iterdir()}
    assert [mark.size for mark in receipts.marks(LOG_ID)] == [9]
