"""One options day at full speed, from the tape and from the seeded chain: broker, socket, gate, stops, journal. Whole processes."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("HOLDFAST_DATA", ROOT.parent / "shared" / "data"))
DAYS = {
    "GOOG 2015-12-23": ["--tape", "options", "--day", "20151223"],
    "SPY 2023-08-03": ["--tape", "options", "--day", "20230803"],
    "seeded, 4 underlyings": [],
}
# The process that trades says at its end what it and the largest of its children (the broker) ever held.
TRADER = """
import resource, sys
from holdfast.cli.main import main
code = main(sys.argv[1:])
for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
    print(resource.getrusage(who).ru_maxrss // 1024, file=sys.stderr)
sys.exit(code)
"""


def run():
    """Wall seconds, and the largest memory of the trading process and of the broker."""
    rows = []
    for name, arguments in DAYS.items():
        if arguments and not (DATA / "options").exists():
            rows.append(_row(f"options day {name}", None, "", f"no {DATA / 'options'}"))
            continue
        with tempfile.TemporaryDirectory() as directory:
            began = time.perf_counter()
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    TRADER,
                    "paper",
                    "--desk",
                    "options",
                    "--json",
                    "--lake",
                    "none",
                    *arguments,
                ],
                cwd=directory,
                env=os.environ | {"HOLDFAST_DATA": str(DATA), "HOLDFAST_HOME": f"{directory}/home"},
                capture_output=True,
                text=True,
                check=False,
            )
            secs = time.perf_counter() - began
        day = json.loads(done.stdout.strip().splitlines()[-1])
        trader, broker = (int(line) for line in done.stderr.strip().splitlines()[-2:])
        told = f"{day['decisions']} decisions, {day['journal']['records']} records, exit {done.returncode}"
        rows += [
            _row(f"options day {name}: wall", round(secs, 1), "s", told),
            _row(f"options day {name}: trader, peak", trader, "MiB", "the whole trading process"),
            _row(
                f"options day {name}: broker, peak", broker, "MiB", "with the recording, where there is one"
            ),
        ]
    return rows


def _row(name, value, unit, beside):
    return {"name": name, "value": value, "unit": unit, "beside": beside, "ratio": None, "bar": ""}
