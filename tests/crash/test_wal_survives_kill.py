"""kill -9 of a process that writes a signed log from several threads, or tasks, at random moments.

At chosen system calls: test_system_calls.py."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest
import support.journal_writer
from support.killing import said_until_killed

from holdfast.audit.keys import KeyHome
from holdfast.audit.verify import verify
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock

WRITER = Path(support.journal_writer.__file__)


def acknowledged(output: bytes) -> dict[int, str]:
    """What the writer had been told; a line cut by the kill does not count."""
    acked: dict[int, str] = {}
    for line in output.split(b"\n")[:-1]:
        _, seq, tag = line.decode().split(" ")
        if tag != "-":
            acked[int(seq)] = tag
    return acked


def check_after_kill(directory: Path, acked: dict[int, str]) -> int:
    """Restart on *directory*: every acknowledged record is there; returns how many records there are."""
    keys = KeyHome(directory.parent / "keys")
    with WriteAheadLog(directory, clock=SystemClock(), seal=False, keys=keys) as log:
        log.append("RESTARTED", {"tag": "restarted"})
        records = list(log.records())
        pins = keys.log(log.log_id).pins()
    report = verify(directory, keys=pins, jobs=1)
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    found = {record.seq: record.details.get("tag") for record in records}
    missing = {seq: tag for seq, tag in acked.items() if found.get(seq) != tag}
    assert not missing, f"{len(missing)} of {len(acked)} acknowledged records are gone, first {min(missing)}"
    assert report.ok, report.problems
    return len(records)


def writer_command(directory: Path, seed: int, count: int, how: str) -> list[str]:
    return [sys.executable, str(WRITER), str(directory), str(seed), str(count), how]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["threads", "tasks"])
@pytest.mark.invariant("I7")
def test_log_keeps_every_acknowledged_record_when_killed_at_random_moments(tmp_path, how):
    """Kill after kill on one directory, no acknowledged record, DURABLE or WRITTEN, is lost."""
    random = Random(20261120)
    acked: dict[int, str] = {}
    for kill in range(15):
        wanted = random.randrange(20, 60_000)
        output = said_until_killed(writer_command(tmp_path / "log", kill, 0, how), wanted)
        acked |= acknowledged(output)
        check_after_kill(tmp_path / "log", acked)
