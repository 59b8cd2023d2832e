"""kill -9 of a process whose components emit risk events, at random moments: what `emit` returned is in the log."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest
import support.event_writer
from support.killing import said_until_killed

from holdfast.audit.keys import KeyHome
from holdfast.audit.verify import verify
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.risk.events import event_of_record

WRITER = Path(support.event_writer.__file__)
SEED = 20261121


def killed(directory: Path, seed: int, wanted: int) -> dict[int, tuple[str, int]]:
    """Start the writer, kill it once it has said *wanted* bytes; what it was told, by sequence."""
    output = said_until_killed([sys.executable, WRITER, directory, seed], wanted)
    told = {}
    for line in output.split(b"\n")[:-1]:
        seq, name, premium = line.decode().split(" ")
        told[int(seq)] = (name, int(premium))
    return told


def kill_and_look(directory: Path, kills: int) -> None:
    print(f"seed {SEED}")
    random = Random(SEED)
    told: dict[int, tuple[str, int]] = {}
    keys = KeyHome(directory.parent / "keys")
    for kill in range(kills):
        # The moment is counted in bytes of answers, so that it does not depend on the machine's speed.
        told |= killed(directory, kill, random.randrange(20, 40_000))
        with WriteAheadLog(directory, clock=SystemClock(), seal=False, keys=keys) as log:
            log.append("RESTARTED", {})
            records = list(log.records())
            pins = keys.log(log.log_id).pins()
        found = {
            record.seq: (event.execution_id, event.current_premium)
            for record in records
            if record.type == "RISK_EVENT"
            for event in [event_of_record(record)]
        }
        assert 0 not in told
        missing = {seq for seq, event in told.items() if found.get(seq) != event}
        assert not missing, f"{len(missing)} of {len(told)} events are gone, first {min(missing)}"
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        report = verify(directory, keys=pins, jobs=1)
        assert report.ok, report.problems


@pytest.mark.contract("B7")
@pytest.mark.invariant("I7")
def test_every_event_that_emit_returned_outlives_the_process(tmp_path):
    """Killed at a random moment, the log holds every event under the sequence that was told."""
    kill_and_look(tmp_path / "log", 1)


@pytest.mark.slow
@pytest.mark.contract("B7")
@pytest.mark.invariant("I7")
def test_kill_after_kill_no_returned_event_is_lost(tmp_path):
    """Kill after kill on one directory, over rotations, every returned event is there."""
    kill_and_look(tmp_path / "log", 5)
