from __future__ import annotations

import contextlib

import pytest
from support.journal import HandmadeLog, rows

from holdfast.audit.follow import POLL_SECS, follow
from holdfast.audit.head import HeadState
from holdfast.audit.query import conditions
from holdfast.audit.wal import Entry, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, BadInput


class Enough(Exception):
    """The test has seen what it waited for."""


def steps(*actions):
    """A wait that does the next action each time, and ends the following after the last."""
    left = list(actions)

    def wait(secs):
        assert 0 < secs <= POLL_SECS <= 0.05
        if not left:
            raise Enough
        left.pop(0)()

    return wait


def followed(home, wanted, wait):
    """What is given until the test has seen enough."""
    found = []
    with contextlib.suppress(Enough):
        found.extend(match.record for match in follow(home, wanted, wait))
    return found


def test_following_gives_what_is_there_and_then_what_comes(tmp_path):
    """Each matching record is given once, through rotations, a clean close and the next writer."""
    home = tmp_path / "audit"
    clock = ManualClock()
    logs = [WriteAheadLog(home, clock=clock, rotate_bytes=4096, seal=False)]

    def append(count):
        entries = [Entry("NOTE", {"n": n, "text": "x" * 200}, f"u{n % 2}") for n in range(count)]
        logs[-1].append_many(entries)

    def reopen():
        logs[-1].close()
        logs.append(WriteAheadLog(home, clock=clock, rotate_bytes=4096, seal=False))

    append(3)
    found = followed(
        home,
        conditions(event_type="NOTE", user_id="u1"),
        steps(lambda: append(40), lambda: None, reopen, lambda: append(7), logs[0].close),
    )
    logs[-1].close()
    assert [record.details["n"] for record in found] == [1, *range(1, 40, 2), 1, 3, 5]
    assert [record.seq for record in found] == sorted({record.seq for record in found})
    assert len(list(home.glob("*.log"))) > 3


def test_following_survives_sealing(tmp_path):
    """Segments that are compressed and removed between two looks cost no record and give none twice."""
    home = tmp_path / "audit"
    log = WriteAheadLog(home, clock=ManualClock(), rotate_bytes=4096)
    log.append("NOTE", {"n": -1})

    def append():
        log.append_many([Entry("NOTE", {"n": n, "text": "x" * 200}) for n in range(60)])

    def close():
        log.close()
        assert len(list(home.glob("*.gz"))) >= 3

    found = followed(home, conditions(event_type="NOTE"), steps(append, lambda: None, close))
    assert [record.details["n"] for record in found] == [-1, *range(60)]


def test_following_waits_for_a_log_without_records(tmp_path):
    """An empty directory is waited on; a missing one is the caller's mistake."""
    home = tmp_path / "audit"
    with pytest.raises(BadInput, match="no audit log"):
        next(follow(home, conditions(), steps()))
    home.mkdir(mode=0o700)

    def begin():
        log = HandmadeLog(home)
        log.segment(rows(2))
        log.head(HeadState.OPEN)

    assert [record.seq for record in followed(home, conditions(), steps(begin))] == [1, 2, 3]


def test_records_beyond_the_head_are_not_followed(tmp_path):
    """What is written and not yet durable is given only once the head says so."""
    log = HandmadeLog(tmp_path / "audit")
    log.segment(rows(4), filler=64)
    log.head(HeadState.OPEN, sequence=3)
    seen = []
    found = followed(
        log.directory,
        conditions(),
        steps(lambda: seen.append(3), lambda: log.head(HeadState.OPEN, sequence=5)),
    )
    assert seen == [3]
    assert [record.seq for record in found] == [1, 2, 3, 4, 5]


def test_a_log_that_went_back_ends_the_following(tmp_path):
    """Another log in the place, or one cut back, is named instead of followed."""
    log = HandmadeLog(tmp_path / "audit")
    log.segment(rows(4))
    log.head(HeadState.OPEN)
    with pytest.raises(AuditCorruption, match="its head says 2, though sequence 5 was durable"):
        list(follow(log.directory, conditions(), steps(lambda: log.head(HeadState.OPEN, sequence=2))))


def test_damage_in_what_comes_ends_the_following(tmp_path):
    """A new line that is damaged ends it with its place."""
    log = HandmadeLog(tmp_path / "audit")
    log.segment(rows(4))
    log.head(HeadState.OPEN, sequence=3)
    path = log.directory / log.name

    def damage():
        path.write_bytes(path.read_bytes().replace(b'"n":3', b'"n":4'))
        log.head(HeadState.OPEN)

    with pytest.raises(AuditCorruption, match="sequence 5"):
        list(follow(log.directory, conditions(), steps(damage)))
