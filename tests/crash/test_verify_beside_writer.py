"""Readers beside a live writer that rotates and seals: no false alarm, nothing missing, nothing twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.crash import SteppedLog

from holdfast.audit.anchor import Anchor
from holdfast.audit.keys import KeyHome
from holdfast.audit.query import query, read_lines
from holdfast.audit.verify import log_name_of, verify
from holdfast.audit.wal import Level
from holdfast.core.clock import ManualClock

WRITER = """
import sys
from pathlib import Path
from holdfast.audit.keys import KeyHome
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import SystemClock

log = WriteAheadLog(
    sys.argv[1], clock=SystemClock(), rotate_bytes=int(sys.argv[2]), keys=KeyHome(Path(sys.argv[1] + "-keys"))
)
n = 0
print("ready", flush=True)
while not sys.stdin.closed and n < int(sys.argv[3]):
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
        writer.stdin.close()
        assert writer.wait() == 0
    assert rounds >= 3
    assert sealed >= 1
    report = verify(home)
    assert report.ok, report.problems
    assert len(query(home, event_type="TRADE")) == 1000


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
        writer.stdin.close()
        assert writer.wait() == 0
    report = verify(home, keys=kept.log(report.log_id).pins())
    assert report.ok, report.problems
    assert report.signed_to == report.total_entries
    assert report.epoch >= 21
    assert len(list(home.glob("*.gz"))) >= 20
    assert rounds >= 10


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
