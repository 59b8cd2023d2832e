"""The sink on another volume."""

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from support.anchors import LOG_ID, MemoryLog

from holdfast.anchors.file import FileSink
from holdfast.anchors.read import read_anchor
from holdfast.anchors.sink import Outcome
from holdfast.core.errors import AnchorUnreachable, BadInput


@pytest.fixture
def volume(tmp_path):
    folder = tmp_path / "volume"
    folder.mkdir(mode=0o700)
    return folder


def the_file(volume):
    return volume / f"{LOG_ID}.notes"


def test_the_file_only_grows_and_is_its_owner_s_alone(volume):
    """Each checkpoint is appended behind the ones before, once; the file is 0600 and reads as a history."""
    log, sink, before = MemoryLog(), FileSink(volume), b""
    for size in (1, 2, 9, 9, 300):
        log.grow(size - len(log.leaves))
        assert sink.submit(log.submission()).outcome is Outcome.ANCHORED
        content = the_file(volume).read_bytes()
        assert content.startswith(before)
        before = content
    assert [anchor.size for anchor in read_anchor(the_file(volume))] == [1, 2, 9, 300]
    assert the_file(volume).stat().st_mode & 0o777 == 0o600


def test_an_append_is_flagged_as_one(volume, monkeypatch):
    """The file is opened for appending, so that it may carry the append-only attribute."""
    flags = []
    real = os.open

    def spy(path, mode, *rest, **named):
        if str(path).endswith(".notes"):
            flags.append(mode)
        return real(path, mode, *rest, **named)

    monkeypatch.setattr(os, "open", spy)
    FileSink(volume).submit(MemoryLog(3).submission())
    assert flags
    assert all(mode & os.O_APPEND and mode & os.O_NOFOLLOW and not mode & os.O_TRUNC for mode in flags)


def test_a_power_cut_at_any_byte_is_survived(volume, monkeypatch):
    """Cut at any length, the file still gives the last whole checkpoint, and the next one follows behind it."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # hundreds of them would take seconds
    log, sink = MemoryLog(3), FileSink(volume)
    ends = []
    for size in (3, 7):
        log.grow(size - len(log.leaves))
        sink.submit(log.submission())
        ends.append(the_file(volume).stat().st_size)
    content = the_file(volume).read_bytes()
    log.grow(4)
    for length in range(len(content) + 1):
        the_file(volume).write_bytes(content[:length])
        # The last byte of a note's entry is the empty line behind it: without it the note is whole.
        expected = 7 if length >= ends[1] - 1 else 3 if length >= ends[0] - 1 else 0
        if expected:
            assert [mark.size for mark in sink.marks(LOG_ID)] == [expected], length
        assert sink.submit(log.submission()).outcome is Outcome.ANCHORED
        assert [mark.size for mark in sink.marks(LOG_ID)] == [11]
        whole = [size for size, end in zip((3, 7), ends, strict=True) if length >= end]
        assert [anchor.size for anchor in read_anchor(the_file(volume))] == [*whole, 11], length


def test_a_file_without_a_checkpoint_is_no_yes(volume):
    """Marks of a file that holds only rubbish are refused by name; of an empty or missing one there are none."""
    sink = FileSink(volume)
    assert list(sink.marks(LOG_ID)) == []
    the_file(volume).write_bytes(b"")
    assert list(sink.marks(LOG_ID)) == []
    the_file(volume).write_bytes(b"rubbish\n")
    with pytest.raises(BadInput, match="no checkpoint"):
        list(sink.marks(LOG_ID))


def test_a_volume_that_is_not_mounted_is_not_an_empty_one(tmp_path):
    """Where the directory is missing nothing is made, a submission is UNKNOWN and asking for marks fails."""
    sink = FileSink(tmp_path / "volume")
    receipt = sink.submit(MemoryLog(3).submission())
    assert receipt.outcome is Outcome.UNKNOWN
    assert "not there" in receipt.why
    with pytest.raises(AnchorUnreachable) as refused:
        list(sink.marks(LOG_ID))
    assert refused.value.exit_code == 5
    assert not (tmp_path / "volume").exists()


@pytest.mark.parametrize("what", ["a link", "a pipe", "a directory"])
def test_only_a_regular_file_is_written(volume, tmp_path, what):
    """A link, a pipe or a directory in the file's place is UNKNOWN, at once, and what it names is untouched."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    if what == "a link":
        the_file(volume).symlink_to(target)
    elif what == "a pipe":
        os.mkfifo(the_file(volume))
    else:
        the_file(volume).mkdir()
    assert FileSink(volume).submit(MemoryLog(3).submission()).outcome is Outcome.UNKNOWN
    assert target.read_bytes() == b"precious"


def test_a_receipt_is_given_only_after_the_sync(volume, monkeypatch):
    """The last thing before ANCHORED is a sync of the file that was written to."""
    calls = []
    for name in ("write", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda fd, *rest, n=name, r=real: (calls.append((n, fd)), r(fd, *rest))[1]
        )
    FileSink(volume).submit(MemoryLog(3).submission())
    (written, fd), (last, synced) = calls[-2:]
    assert (written, last) == ("write", "fsync")
    assert fd == synced


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_failing_disk_is_unknown(volume, monkeypatch, call):
    """A write or sync that fails is never reported as anchored."""

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    receipt = FileSink(volume).submit(MemoryLog(3).submission())
    assert (receipt.outcome, receipt.why) == (Outcome.UNKNOWN, "no space left on device")


def test_looking_and_appending_are_one_step(volume):
    """While a submission looks at what lies there, no other process gets the file's lock."""
    log, sink = MemoryLog(9), FileSink(volume)
    sink.submit(log.submission(5))
    asked = []

    def prove(old):
        with the_file(volume).open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        asked.append(old)
        return log.prove(old)

    assert sink.submit(replace(log.submission(), prove=prove)).outcome is Outcome.ANCHORED
    assert asked == [5]


def test_two_processes_write_one_history(volume):
    """Submissions at once leave strictly growing sizes; who comes late with less is told, and nothing is lost."""
    log = MemoryLog(64)

    def submit(size):
        return FileSink(volume).submit(log.submission(size))

    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(submit, [5, 64, 9, 33, 12, 40, 2, 64]))
    sizes = [anchor.size for anchor in read_anchor(the_file(volume))]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 64
    for receipt in receipts:
        assert receipt.outcome is (Outcome.ANCHORED if receipt.size in sizes else Outcome.WENT_BACK)
        assert receipt.known_size > receipt.size or receipt.outcome is Outcome.ANCHORED


def test_a_long_history_is_read_from_its_end(volume):
    """The last checkpoint is found behind more bytes than are read at once."""
    log, sink = MemoryLog(9), FileSink(volume)
    note = log.note(3)
    the_file(volume).write_bytes((note + b"\n") * (3_000_000 // len(note)))
    assert sink.submit(log.submission()).outcome is Outcome.ANCHORED
    assert [mark.size for mark in sink.marks(LOG_ID)] == [9]
