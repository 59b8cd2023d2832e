"""The real thing at its system calls: killed at them, or refused by the kernel, in a life and in a recovery.

strace injects kill -9, EIO and ENOSPC; a sample of all points is tried here, every kind of call at least once, and
all of them by `make torture`. After each the log is restarted: nothing acknowledged is gone, nothing is called
damaged, and verify agrees.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

import pytest
from support.points import Ended, Point, disturbed, points, sample
from support.short_life import live, open_log

from holdfast.audit.keys import KeyHome
from holdfast.audit.verify import verify

SEED = int(os.environ.get("HOLDFAST_SEED", "20261121"))
KILLS = 14
ERRORS = 10


def torn(home: Path) -> dict[int, str]:
    """A log whose writer died in the middle of a line; what it had acknowledged."""
    log = open_log(home / "log")
    live(log, lambda *_: None)
    acked = {record.seq: record.details["tag"] for record in log.records() if record.type == "NOTE"}
    end, name = log._segment.end, log._segment.file.name
    for thing in (log._segment, log._head, log._signer, log._last_words, log._home):
        thing.close()
    log._ended = True
    with (home / "log" / name).open("r+b") as file:
        file.seek(end)
        file.write(b'{"crc":"00000000","seq":99,"synced":')
    return acked


def check(home: Path, acked: dict[int, str], where: str) -> None:
    """Restart: what was acknowledged is there, nothing is called damaged, and verify finds nothing before or after."""
    directory = home / "log"
    if not directory.exists():
        assert not acked, where
        return
    log = open_log(directory)
    log.append("NOTE", {"tag": "after"})
    found = {record.seq: record.details.get("tag") for record in log.records()}
    lost = [seq for seq, tag in acked.items() if found.get(seq) != tag]
    assert not lost, f"{where}: sequence {lost[0]} of {len(acked)} acknowledged ones is gone"
    log_id = log.log_id
    log.close()
    report = verify(directory, keys=KeyHome(home / "keys").log(log_id).pins(), jobs=1)
    assert report.ok, f"{where}: {report.problems[0]}"


def tried(tmp_path: Path, what: str, point: Point, inject: str, *, forever: bool = False) -> Ended:
    """One disturbed life, or one disturbed recovery of a torn log, checked."""
    home = tmp_path / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)
    before = torn(home) if what == "recover" else {}
    ended = disturbed(home / "log", what, point, inject, forever=forever)
    where = f"seed {SEED}: {inject} at {point.call} {point.number}{' and on' if forever else ''} of {what}"
    check(home, before | ended.acked, f"{where} ({ended.said})")
    return ended


def all_points(tmp_path: Path, what: str) -> list[Point]:
    home = tmp_path / "counted"
    home.mkdir(mode=0o700)
    if what == "recover":
        torn(home)
    return points(home / "log", what)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["live", "recover"])
@pytest.mark.invariant("I7")
@pytest.mark.contract("A11")
def test_killed_at_any_system_call_the_log_keeps_what_it_acknowledged(tmp_path, what, capsys):
    """kill -9 at a system call of a life, or of a recovery, costs nothing that was acknowledged."""
    known = all_points(tmp_path, what)
    chosen = sample(known, KILLS, Random(f"{SEED} {what}"))
    killed = sum(tried(tmp_path, what, point, "signal=KILL").killed for point in chosen)
    with capsys.disabled():
        print(f"\n  kill -9 at {killed} of {len(known)} system calls of {what}, seed {SEED}")
    assert killed >= len(chosen) - 2


@pytest.mark.slow
@pytest.mark.parametrize("what", ["live", "recover"])
@pytest.mark.parametrize("code", ["EIO", "ENOSPC"])
@pytest.mark.invariant("I9")
@pytest.mark.contract("A11")
def test_refused_at_any_system_call_the_log_says_so_and_keeps_what_it_acknowledged(
    tmp_path, what, code, capsys
):
    """A system call that fails, once or from there on, is named, and costs nothing that was acknowledged."""
    random = Random(f"{SEED} {what} {code}")
    known = [
        point for point in all_points(tmp_path, what) if point.call not in {"flock", "fchmod", "fchmodat"}
    ]
    refused = 0
    for point in sample(known, ERRORS // 2, random):
        ended = tried(tmp_path, what, point, f"error={code}", forever=random.random() < 0.5)
        assert ended.refused or not ended.said, f"not refused by name: {ended.said}"
        refused += ended.refused
    with capsys.disabled():
        print(f"\n  {code} at {len(known)} possible calls of {what}: {refused} refused, seed {SEED}")
    assert refused
