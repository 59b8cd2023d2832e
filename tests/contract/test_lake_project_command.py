"""`holdfast lake project` as a process: it follows, says when it is ready, ends by a signal with all committed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from support.lake import make_journal, record
from support.projectors import assert_exact

from holdfast.audit.projected import is_projected
from holdfast.audit.verify import verify
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.lake.store import store_of

pytestmark = [pytest.mark.contract("B8"), pytest.mark.invariant("I10")]


def words(log: Path, lake: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "holdfast",
        "lake",
        "project",
        str(log),
        "--lake",
        str(lake),
        "--json",
        *more,
    ]


@pytest.mark.slow
def test_follower_brings_what_comes_and_ends_by_a_signal(tmp_path):
    """Ready is said once it works; SIGTERM ends it with 0 and everything durable in the lake; the log stays whole."""
    log, lake = tmp_path / "log", tmp_path / "lake"
    wal = WriteAheadLog(log, clock=SystemClock())
    wal.append("NOTE", {})
    process = subprocess.Popen(
        words(log, lake, "--follow", "--age", "0.05"), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert (ready["ready"], ready["lake"], ready["pid"]) == (True, str(lake), process.pid)
    assert is_projected(log, str(lake))
    random = Random(1)
    for n in range(300):
        type_, details, component = record(random, 0, n)
        wal.append(type_, details, component=component, level=Level.WRITTEN)
    wal.sync()
    store = store_of(str(lake))
    seen, until = 0, time.monotonic() + 20
    while not seen and time.monotonic() < until:  # it follows, and does not wait for the signal
        seen = store.open("risk_events").to_pyarrow_table().num_rows
    assert seen
    wal.close()
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    (last,) = [json.loads(line) for line in out.splitlines()]
    assert last["covered"] == last["durable"]
    assert not is_projected(log, str(lake))
    assert assert_exact([log], store) == 300
    assert not verify(log).problems


@pytest.mark.slow
def test_process_that_grew_too_large_starts_itself_anew(tmp_path):
    """Above its memory it becomes a fresh process with the same id and goes on; in the end every row is there once."""
    log, lake = make_journal(tmp_path / "log", days=1, events=200), tmp_path / "lake"
    plant = "import holdfast.lake.projector as p; p.RECYCLE_COMMITS = 3; from holdfast.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", plant, *words(log, lake, "--rows", "25", "--memory", "1")[3:]],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["commits"] <= 5, "the last process made only the rest of the commits"
    assert assert_exact([log], store_of(str(lake))) == 200


@pytest.mark.slow
def test_projector_ends_with_its_parents_stdin(tmp_path):
    """A projector that was started with --exit-with-stdin brings what is durable and ends when its parent is gone."""
    log, lake = make_journal(tmp_path / "log", days=1, events=60), tmp_path / "lake"
    process = subprocess.Popen(
        words(log, lake, "--follow", "--exit-with-stdin"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert assert_exact([log], store_of(str(lake))) == 60
