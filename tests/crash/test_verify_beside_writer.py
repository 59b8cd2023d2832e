"""Readers beside a live writer that rotates and seals: no false alarm, nothing missing, nothing twice."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest
from support.crash import SteppedLog

from holdfast.audit.anchor import Anchor
from holdfast.audit.keys import KeyHome
from holdfast.audit.query import query, read_lines
from holdfast.audit.storage import LocalStorage
from holdfast.audit.verify import log_name_of, verify
from holdfast.audit.wal import Level
from holdfast.core.clock import ManualClock

WRITER = """
import sys
from select import select
from pathlib import Path
from holdfast.audit.keys import KeyHome
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import SystemClock

log = WriteAheadLog(
    sys.argv[1], clock=SystemClock(), rotate_bytes=int(sys.argv[2]), keys=KeyHome(Path(sys.argv[1] + "-keys"))
)
n = 0
print("ready", flush=True)
while n < int(sys.argv[3]) or not select([sys.stdin], [], [], 0)[0]:  # until stdin is closed
    log.append_many([Entry("NOTE", {"n": n + k, "text": "x" * (k * 37 % 300)}) for k in range(20)], level=Level(n % 3))
    log.append("TRADE", {"n": n}, level=Level.DURABLE)
    n += 20
log.close()
"""


@pytest.mark.slow
@pytest.mark.contract("A12")
@pytest.mark.invariant("I8")
@pytest.mark.parametrize("rotate_bytes", [30_000, 300_000])
def test_verify_and_query_beside_a_live_writer_never_raise_a_false_alarm(tmp_path, rotate_bytes):
    """While a writer appends, rotates and seals, every verification is clean and every query complete."""
    home = tmp_path / "audit"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home), str(rotate_bytes), "20000"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as writer:  # fmt: skip
        assert writer.stdout.readline() == b"ready\n"
        rounds, seen, sealed = 0, 0, 0
        while writer.poll() is None:
            if not home.exists():
                continue
            report = verify(home)
            assert report.ok, (report.problems[:3], report.state)
            trades = [entry.details["n"] for entry in query(home, event_type="TRADE")]
            assert trades == list(range(0, 20 * len(trades), 20))
            assert len(trades) >= seen
            newest = query(home, newest_first=True, max_results=1)
            count = sum(1 for _ in read_lines(home))
            assert count >= (newest[0].sequence if newest else 0)
            seen = len(trades)
            sealed = max(sealed, len(list(home.glob("*.gz"))))
            rounds += 1
            if rounds == 3:
                writer.stdin.close()
        writer.stdin.close()
        assert writer.wait() == 0
    assert sealed >= 1
    report = verify(home)
    assert report.ok, report.problems
    assert len(query(home, event_type="TRADE")) >= max(1000, seen)


@pytest.mark.slow
@pytest.mark.contract("A13")
@pytest.mark.invariant("I8")
def test_verify_with_keys_and_anchors_beside_a_signing_writer_never_raises_a_false_alarm(tmp_path):
    """Through twenty rotations and seals every verification, pinned and held to the high-water mark, is clean."""
    home = tmp_path / "audit"
    kept = KeyHome(Path(f"{home}-keys"))
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home), "60000", "9000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:  # fmt: skip
        assert writer.stdout.readline() == b"ready\n"
        rounds, covered = 0, 0
        while writer.poll() is None:
            identity = log_name_of(home) if home.exists() else None
            if identity is None:
                continue
            keys = kept.log(identity[1])
            water = keys.high_water()
            anchors = [] if water is None else [Anchor(*water.checkpoint[:3], "high water", water.note)]
            report = verify(home, keys=keys.pins(), anchors=anchors, jobs=1 + rounds % 2)
            assert report.ok, (report.problems[:3], report.state, report.live_writer)
            assert report.anchored_to == (0 if water is None else water.checkpoint.size)
            assert report.signed_to >= covered
            covered = report.signed_to
            rounds += 1
            if rounds == 10:
                writer.stdin.close()
        writer.stdin.close()
        assert writer.wait() == 0
    report = verify(home, keys=kept.log(report.log_id).pins())
    assert report.ok, report.problems
    assert report.signed_to == report.total_entries
    assert report.epoch >= 21
    assert len(list(home.glob("*.gz"))) >= 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists who holds a lock")
def test_lines_in_flight_beside_a_writer_that_stands_still_are_no_torn_tail(tmp_path):
    """Written and not yet synced lines need recovery only once their writer is gone."""
    home = tmp_path / "audit"
    log = SteppedLog(home, clock=ManualClock(), seal=False)
    log.append("NOTE", {"n": 1})
    log.append("NOTE", {"n": 2}, level=Level.WRITTEN)
    report = verify(home)
    assert report.ok
    assert report.live_writer
    assert not report.needs_recovery
    log._home.close()  # the lock is gone, as after kill -9
    report = verify(home)
    assert report.ok
    assert report.needs_recovery
    assert report.recovery_range == "sequences 3 to 3 are to be made durable"
    log._ended = True


class Interrupted:
    """A storage, or what it gave, that lets something happen before each of the calls on it."""

    GIVES = frozenset({"directory", "subdirectory", "open", "create", "map_page"})
    CALLS = GIVES | {"names", "pread", "size", "pwrite", "truncate", "fdatasync", "rename", "unlink", "write"}

    def __init__(self, thing, before):
        self._thing, self._before = thing, before

    def __getattr__(self, name):
        method = getattr(self._thing, name)
        if name not in self.CALLS:
            return method

        def call(*args, **options):
            self._before()
            found = method(*args, **options)
            return Interrupted(found, self._before) if name in self.GIVES else found

        return call


class Steps:
    """A thread that stands still before each call on its storage until it is told to take so many steps."""

    def __init__(self, work):
        self._changed = threading.Condition()
        self._allowed, self._waits, self.ended = 0, False, False
        self._work = work
        self._thread = threading.Thread(target=self._run)

    def start(self):
        self._thread.start()

    def before(self):
        if threading.current_thread() is not self._thread:
            return
        with self._changed:
            self._waits = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._allowed)
            self._allowed, self._waits = self._allowed - 1, False

    def take(self, steps):
        with self._changed:
            self._allowed += steps
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.ended or (self._waits and not self._allowed))

    def finish(self):
        self.take(1 << 30) if self._thread.is_alive() else None
        self._thread.join()

    def _run(self):
        try:
            self._work()
        finally:
            with self._changed:
                self.ended = True
                self._changed.notify_all()


def live_on(log):
    """Sign, rotate twice, sign and close."""
    for n in range(2):
        log.append("NOTE", {"n": n}, level=Level.DURABLE)
        log.checkpoint()
        log.rotate()
        log.append("NOTE", {"n": n, "text": "x" * 999}, level=Level.DURABLE)
    log.checkpoint()
    log.close()


@pytest.mark.slow
@pytest.mark.contract("A13")
@pytest.mark.invariant("I8")
@pytest.mark.parametrize("seed", range(14))
def test_whatever_a_writer_does_between_two_reads_is_no_alarm(tmp_path, seed):
    """A writer that signs, rotates and closes, seen between any two of its calls by any read, is no alarm."""
    random = Random(seed)
    for number in range(4):
        home, keys = tmp_path / f"log-{number}", KeyHome(tmp_path / f"keys-{number}")
        log: SteppedLog
        steps = Steps(lambda: live_on(log))  # noqa: B023  it ends before the next one begins
        storage = Interrupted(LocalStorage(), steps.before)
        log = SteppedLog(home, clock=ManualClock(), keys=keys, seal=False, storage=storage)
        log.append("NOTE", {"n": 0}, level=Level.DURABLE)
        steps.start()
        pins, pace, seen = keys.log(log.log_id).pins(), random.choice([0.02, 0.1, 0.4, 1]), 0
        steps.take(random.randrange(60))

        def before(steps=steps, pace=pace):
            if random.random() < pace and not steps.ended:
                steps.take(random.choice([1, 1, 1, 2, 5, 20]))

        try:
            while not steps.ended:
                report = verify(home, keys=pins, jobs=1, storage=Interrupted(LocalStorage(), before))
                assert report.ok, (number, report.problems, report.live_writer)
                steps.take(1)
                seen += 1
        finally:
            steps.finish()
        assert seen
        assert verify(home, keys=pins).ok
