"""kill -9 anywhere in maintenance or in a rebuild: the lake holds every row once, and the next run finishes it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import date

import pytest
from support.lake import START_NS, all_rows, make_journal, project

from holdfast.core.clock import ManualClock
from holdfast.lake.maintenance import Maintainer
from holdfast.lake.repair import repair
from holdfast.lake.store import store_of
from holdfast.lake.verify import verify_lake

pytestmark = [pytest.mark.invariant("I10"), pytest.mark.slow]
KILLS = 5


def _start(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast", "lake", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )


def _kill_after_lines(child: subprocess.Popen[bytes], lines: int, more_secs: float) -> None:
    """Let *child* tell of some steps, then a moment longer, then end it."""
    assert child.stdout is not None
    for _ in range(lines):
        if not child.stdout.readline():
            break
    time.sleep(more_secs)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()


def test_maintenance_that_is_killed_anywhere_loses_nothing(tmp_path):
    """Each killed run leaves every row of every table; the run that is let through leaves one file a day."""
    rnd = random.Random(11)
    log = make_journal(tmp_path / "log", events=120)
    lake = project(tmp_path / "lake", log, rows_per_commit=10)
    before = all_rows(lake)
    words = ("maintain", "--lake", str(lake), "--everything", "--retention-days", "0")
    for _ in range(KILLS):
        _kill_after_lines(_start(*words), rnd.randrange(0, 12), rnd.random() * 0.05)
        assert verify_lake(lake, [log]).ok
    last = _start(*words)
    last.communicate()
    assert last.returncode == 0
    assert all_rows(lake) == before
    assert len(list((lake.path / "risk_events").glob("event_date=*/*.parquet"))) == 2


@pytest.mark.parametrize("torn", ["commit", "data"])
def test_power_cut_behind_a_rewrite_gives_back_the_files_before_it(tmp_path, torn):
    """A rewrite that was not synced in time is moved aside at the next start; the rows are those before it."""
    log = make_journal(tmp_path / "log", events=40)
    lake = project(tmp_path / "lake", log)
    before = all_rows(lake)
    table = lake.path / "risk_events"
    maintainer = Maintainer(lake, clock=ManualClock(START_NS))
    done = maintainer.run("risk_events", day=date(2025, 11, 20))
    assert done[0].changed
    commit = max((table / "_delta_log").glob("*.json"))
    added = [
        action["add"]["path"]
        for line in commit.read_text().splitlines()
        if "add" in (action := json.loads(line))
    ]
    victim = commit if torn == "commit" else table / added[0]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    assert [one.name for one in repair(table, "20251121T000000Z")] == [commit.name]
    assert all_rows(lake) == before
    assert verify_lake(lake, [log]).ok


def test_rebuild_that_is_killed_anywhere_leaves_a_whole_lake(tmp_path):
    """At any moment of a rebuild the lake under its name is whole; what was begun lies beside it."""
    rnd = random.Random(12)
    log = make_journal(tmp_path / "log", events=60)
    lake = project(tmp_path / "lake", log)
    before = all_rows(lake)
    for _ in range(KILLS):
        _kill_after_lines(
            _start("rebuild", str(log), "--lake", str(lake)), rnd.randrange(0, 16), rnd.random() * 0.05
        )
        assert all_rows(store_of(str(lake))) == before
    last = _start("rebuild", str(log), "--lake", str(lake))
    last.communicate()
    assert last.returncode == 0
    assert verify_lake(lake, [log]).ok
