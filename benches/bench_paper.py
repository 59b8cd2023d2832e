"""One recorded game traded at full speed: exchange, sockets, gate, journal, story. Whole processes."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("HOLDFAST_DATA", ROOT.parent / "shared" / "data"))
GAME = "kalshi/l2-nba-unlicensed/KXNBAGAME-26MAR18ATLDAL-ATL.parquet"


def run():
    """Wall seconds and the largest process's memory, both beside nothing: no peer trades a recording over sockets."""
    tape = DATA / GAME
    if not tape.exists():
        return [
            {
                "name": "recorded game",
                "value": None,
                "unit": "",
                "beside": f"no {tape}",
                "ratio": None,
                "bar": "",
            }
        ]
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", "paper", "--json", "--tape", str(tape)],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    # ru_maxrss of children is the largest single process: the exchange, which holds the recording.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    rows = [
        (
            "recorded game: wall",
            round(seconds, 1),
            "s",
            f"{summary['decisions']} decisions, exit {done.returncode}",
        ),
        (
            "recorded game: journal",
            summary["journal"]["records"],
            "records",
            f"{summary['journal']['bytes']:,} bytes",
        ),
        ("recorded game: largest process", round(peak), "MiB", "the exchange, with the recording"),
    ]
    return [
        {"name": name, "value": value, "unit": unit, "beside": beside, "ratio": None, "bar": ""}
        for name, value, unit, beside in rows
    ]
