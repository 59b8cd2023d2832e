"""What it costs to start: CPU of `--help` and of the log verbs, as ratios to a bare interpreter.

Byte code is cached, as it is wherever holdfast is installed: one unmeasured start of each command compiles into
a directory of the bench's own. Each command is started many times, interleaved with `python -c pass`; the smallest CPU time (user + system of
the child) of each counts, because everything else the machine does only adds.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15
FACE = [sys.executable, "-c", "import sys; from holdfast.cli.main import main; sys.exit(main())"]


def _cost_ms(command: list[str], stdin: bytes, environment: dict[str, str]) -> tuple[float, float]:
    """CPU and wall time of one run, milliseconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, input=stdin, stdout=subprocess.DEVNULL, env=environment, check=True)
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu * 1e3, (ended - began) * 1e3


def run() -> list[dict[str, object]]:
    """CPU of `--help`; CPU and wall time of the log verbs on a log of one record."""
    with tempfile.TemporaryDirectory() as root:
        log = str(Path(root) / "audit")
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(Path(root) / "pycache")
        line = b'{"type":"NOTE","user":"bench","details":{}}\n'
        subprocess.run([*FACE, "audit", "append", log], input=line, stdout=subprocess.DEVNULL, check=True)
        commands = {
            "bare python": ([sys.executable, "-c", "pass"], b""),
            "--help": ([*FACE, "--help"], b""),
            "audit verify": ([*FACE, "audit", "verify", log], b""),
            "audit query": ([*FACE, "audit", "query", log], b""),
            "audit cat": ([*FACE, "audit", "cat", log], b""),
            "audit append": ([*FACE, "audit", "append", log], line),
        }
        cpu = dict.fromkeys(commands, float("inf"))
        wall = dict.fromkeys(commands, float("inf"))
        for command, stdin in commands.values():
            _cost_ms(command, stdin, environment)
        for _ in range(ROUNDS):
            for name, (command, stdin) in commands.items():
                used, took = _cost_ms(command, stdin, environment)
                cpu[name], wall[name] = min(cpu[name], used), min(wall[name], took)
    bare = cpu["bare python"]
    rows: list[dict[str, object]] = []
    for name in commands:
        if name == "bare python":
            continue
        bar = "<= 45 ms CPU" if name == "--help" else "< 100 ms"
        rows.append(
            _row(f"start-up CPU, {name}", cpu[name], f"bare python {bare:.1f} ms", cpu[name] / bare, bar)
        )
        if name != "--help":
            rows.append(_row(f"start-up wall, {name}", wall[name], f"bare python {wall['bare python']:.1f} ms",
                             wall[name] / wall["bare python"], "< 100 ms"))  # fmt: skip
    return rows


def _row(name: str, value: float, beside: str, ratio: float, bar: str) -> dict[str, object]:
    return {
        "name": name, "value": round(value, 1), "unit": "ms", "beside": beside, "ratio": round(ratio, 2), "bar": bar,
    }  # fmt: skip


if __name__ == "__main__":
    for row in run():
        print(row)
