"""The lake on a real S3 server, Ceph's RADOS gateway: rivals with kill -9, comparison, questions, upkeep, rebuild.

make ceph
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from support.lake import make_journal
from support.s3 import Store

from holdfast.lake.store import store_of

pytestmark = [
    pytest.mark.contract("X7"),
    pytest.mark.invariant("I10"),
    pytest.mark.slow,
]
RIVALS, KILLS = 3, 12


def _start(store: Store, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast", "lake", *words],
        env={**os.environ, **store.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(store: Store, *words: str) -> str:
    done = _start(store, *words)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    return out


def test_gateway_is_proven_to_refuse_a_second_put(store):
    """The self-test accepts the gateway: of several writers of one name one wins."""
    store_of(f"s3://{store.make(lock=False)}/lake", store.environ).prove()


def test_rivals_that_are_killed_write_each_row_once(store, tmp_path):
    """Three projectors of one journal, killed at random: the lake equals the journal; so it does after upkeep."""
    rnd = random.Random(5)
    log = make_journal(tmp_path / "log", days=2, events=1500)
    uri = f"s3://{store.make(lock=False)}/desk/lake"
    words = ("project", str(log), "--lake", uri, "--rows", "20")
    running = [_start(store, *words) for _ in range(RIVALS)]
    for _ in range(KILLS):
        time.sleep(0.5 + rnd.random() * 2)
        victim = rnd.randrange(RIVALS)
        os.kill(running[victim].pid, signal.SIGKILL)
        running[victim].communicate()
        running[victim] = _start(store, *words)
    for one in running:
        one.communicate(timeout=300)
    assert [one.returncode for one in running] == [0] * RIVALS
    report = json.loads(_run(store, "verify", str(log), "--lake", uri, "--json"))
    assert report["ok"], report["findings"]
    assert sum(one["rows"] for one in report["compared"]) == 3000
    _run(store, "maintain", "--lake", uri, "--everything", "--retention-days", "0")
    assert json.loads(_run(store, "verify", str(log), "--lake", uri, "--json"))["ok"]
    fills = _run(store, "sql", "--saved", "fills_by_day", "--lake", uri, "--json").splitlines()
    assert sum(json.loads(line)["fills"] for line in fills) == 300


def test_lake_is_made_anew_in_place(store, tmp_path):
    """A rebuild fills an empty bucket, and refuses to touch a lake that is there unless told to."""
    log = make_journal(tmp_path / "log", days=2, events=60)
    uri = f"s3://{store.make(lock=False)}/lake"
    _run(store, "rebuild", str(log), "--lake", uri)
    again = _start(store, "rebuild", str(log), "--lake", uri)
    assert "--force" in again.communicate(timeout=120)[1]
    assert again.returncode == 1
    _run(store, "rebuild", str(log), "--lake", uri, "--force")
    assert json.loads(_run(store, "verify", str(log), "--lake", uri, "--json"))["ok"]
