"""kill -9 of a process that writes a log: at random moments, and at chosen system calls."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import support.journal_writer

from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock

WRITER = Path(support.journal_writer.__file__)
CALLS = {"pwrite64": 20, "fdatasync": 15, "fsync": 3, "ftruncate": 3, "openat": 5, "msync": 2}
"""System calls, and how many of each one thread of a writer is nearly sure to make (strace counts by thread)."""


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
    with WriteAheadLog(directory, clock=SystemClock(), seal=False) as log:
        log.append("RESTARTED", {"tag": "restarted"})
        records = list(log.records())
        report = log.verify_integrity()
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    found = {record.seq: record.details.get("tag") for record in records}
    missing = {seq: tag for seq, tag in acked.items() if found.get(seq) != tag}
    assert not missing, f"{len(missing)} of {len(acked)} acknowledged records are gone, first {min(missing)}"
    assert report["integrity_ok"], report
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
        process = subprocess.Popen(
            writer_command(tmp_path / "log", kill, 0, how), stdout=subprocess.PIPE, bufsize=0
        )
        output = bytearray()
        # The moment is counted in bytes of answers, so that it does not depend on the machine's speed.
        wanted = random.randrange(20, 60_000)
        while len(output) < wanted:
            part = process.stdout.read(min(4096, wanted - len(output)))
            assert part, "the writer ended by itself"
            output += part
        process.send_signal(signal.SIGKILL)
        output += process.stdout.read()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        acked |= acknowledged(bytes(output))
        check_after_kill(tmp_path / "log", acked)


@pytest.mark.slow
@pytest.mark.parametrize("call", list(CALLS))
@pytest.mark.invariant("I7")
def test_log_keeps_every_acknowledged_record_when_killed_at_a_system_call(tmp_path, call):
    """Killed at the n-th write, sync, cut or open, no acknowledged record is lost, whatever n."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("STRACE IS MISSING: kill -9 at system calls was not tested; apt-get install strace")
    random = Random(f"strace {call}")
    directory = tmp_path / "log"
    acked: dict[int, str] = {}
    kills = 0
    for round_number in range(6):
        when = random.randint(1, CALLS[call])
        inject = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        inject += ["-P", str(directory)] if call == "openat" else []
        done = subprocess.run(
            [
                *inject,
                "-e",
                f"inject={call}:signal=KILL:when={when}",
                *writer_command(directory, round_number, 60, "threads"),
            ],
            capture_output=True,
            check=False,
            timeout=60,
        )
        if b"ptrace" in done.stderr and b"not permitted" in done.stderr.lower():
            pytest.skip("STRACE MAY NOT TRACE HERE: kill -9 at system calls was not tested")
        acked |= acknowledged(done.stdout)
        kills += done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
        if directory.exists():
            check_after_kill(directory, acked)
    assert kills >= 2, f"only {kills} of 6 writers reached the call"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "code"), [("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EIO")]
)
@pytest.mark.invariant("I9")
def test_log_acknowledges_nothing_more_when_the_kernel_refuses_a_call(tmp_path, call, code):
    """After a real EIO or ENOSPC the writer stops with the reason, and what it had acknowledged is there."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("STRACE IS MISSING: failing system calls were not tested; apt-get install strace")
    directory = tmp_path / "log"
    done = subprocess.run(
        [
            strace,
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:error={code}:when=40+",
            *writer_command(directory, 1, 200, "tasks"),
        ],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    named = b"DiskFull" if code == "ENOSPC" else b"AuditWriteError"
    assert named in done.stderr
    acked = acknowledged(done.stdout)
    assert acked
    check_after_kill(directory, acked)
