"""Every system call of a short life, as a point where the kernel can be made to kill the process or to refuse.

strace injects: `Point("fdatasync", 3)` is the third fdatasync of the process. `points` counts the calls of one
undisturbed run; which of them are tried is the caller's choice.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from support import short_life

CALLS = (
    "pwrite64", "fdatasync", "fsync", "ftruncate", "msync", "openat", "mkdirat", "mkdir", "unlinkat", "renameat",
    "renameat2", "flock", "fchmod", "fchmodat",
)  # fmt: skip
SCRIPT = Path(short_life.__file__)
REFUSED = 4


class Point(NamedTuple):
    """The *number*-th *call* of a process, from 1."""

    call: str
    number: int


class Ended(NamedTuple):
    """How a disturbed life ended.

    Attributes:
        killed: By the injected signal.
        refused: It ended by naming a refusal.
        acked: Tags by sequence that had been acknowledged.
        said: The end of stderr.
    """

    killed: bool
    refused: bool
    acked: dict[int, str]
    said: str


def strace(*options: str) -> list[str]:
    """The command that traces; skips loudly where it cannot."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip(
            "STRACE IS MISSING: system calls were neither failed nor killed at; apt-get install strace"
        )
    return [found, "-f", "-qq", *options]


def _run(traced: list[str], directory: Path, what: str) -> subprocess.CompletedProcess[bytes]:
    command = [*traced, sys.executable, "-X", "frozen_modules=on", str(SCRIPT), str(directory), what]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    if b"ptrace" in done.stderr and b"not permitted" in done.stderr.lower():
        pytest.skip("STRACE MAY NOT TRACE HERE: system calls were neither failed nor killed at")
    return done


def points(directory: Path, what: str) -> list[Point]:
    """The points of one undisturbed life, in the order of its calls; those before the log is touched left out."""
    log = directory.parent / "calls"
    done = _run(strace("-o", str(log), "-e", "trace=" + ",".join(CALLS)), directory, what)
    assert done.returncode == 0, done.stderr
    seen: Counter[str] = Counter()
    found: list[Point] = []
    begun = False
    for line in log.read_text().splitlines():
        call = re.match(r"\d+ +(\w+)\(", line)
        if call is None:
            continue
        seen[call[1]] += 1
        begun = begun or str(directory.parent) in line
        if begun:
            found.append(Point(call[1], seen[call[1]]))
    return found


def disturbed(directory: Path, what: str, point: Point, inject: str, *, forever: bool = False) -> Ended:
    """One life in which *inject* ("signal=KILL", "error=EIO") happens at *point*, and from there on if *forever*."""
    when = f"{point.number}{'+' if forever else ''}"
    traced = strace(
        "-o", "/dev/null", "-e", f"trace={point.call}",
        "-e", f"inject={point.call}:{inject}:when={when}",
    )  # fmt: skip
    done = _run(traced, directory, what)
    killed = done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
    acked: dict[int, str] = {}
    for line in done.stdout.split(b"\n")[:-1]:
        _, seq, tag = line.decode().split(" ")
        acked[int(seq)] = tag
    return Ended(killed, done.returncode == REFUSED, acked, done.stderr.decode()[-600:])


def sample(of: list[Point], count: int, random: Random) -> list[Point]:
    """*count* points, every kind of call among them before any second one."""
    by_call: dict[str, list[Point]] = {}
    for point in of:
        by_call.setdefault(point.call, []).append(point)
    for same in by_call.values():
        random.shuffle(same)
    chosen: list[Point] = []
    while len(chosen) < min(count, len(of)):
        for same in by_call.values():
            if same and len(chosen) < count:
                chosen.append(same.pop())
    return chosen
