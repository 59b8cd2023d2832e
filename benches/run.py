"""`make bench`: run every benches/bench_*.py, print one table, write build/bench.json.

A bench is a module with `run() -> list[dict]`; each row has `name`, `value`, `unit`, `beside` (the peer or limit
measured in the same run), `ratio` (value beside it, or None) and `bar` (the aim, "" where there is none). A
module that cannot run is said, with the reason, and ends the command with status 1; a missing peer is a row.

    python benches/run.py [--only NAME] [--json]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "build" / "bench.json"
COLUMNS = ("name", "value", "unit", "beside", "ratio", "bar")


def modules(only: str | None) -> list[str]:
    """Names of the benches, sorted; *only* picks those whose name holds it."""
    names = sorted(path.stem for path in HERE.glob("bench_*.py"))
    return [name for name in names if only is None or only in name]


def measure(name: str) -> tuple[list[dict[str, Any]], str]:
    """The rows of one bench, or why there are none."""
    try:
        rows = importlib.import_module(name).run()
    except (Exception, SystemExit) as error:
        return [], f"{type(error).__name__}: {error}"
    bad = [row for row in rows if set(row) != set(COLUMNS)]
    return rows, f"rows with other keys than {', '.join(COLUMNS)}: {bad}" if bad else ""


def shown(value: object) -> str:
    """A cell of the table."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(rows: list[dict[str, Any]]) -> str:
    """Aligned text; numbers to the right."""
    cells = [list(COLUMNS)]
    for row in rows:
        ratio = row["ratio"]
        cells.append(
            [shown(row[key]) for key in COLUMNS[:4]]
            + [shown(ratio) + " x" if ratio is not None else "", row["bar"]]
        )
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    right = {1, 4}
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="measure holdfast beside its peers")
    parser.add_argument("--only", metavar="NAME", help="run the benches whose name holds NAME")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    options = parser.parse_args()
    sys.path[:0] = [str(HERE), str(HERE.parent / "src")]
    names = modules(options.only)
    if not names:
        print(f"no bench holds {options.only!r} in its name", file=sys.stderr)
        return 2
    result: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "benches": {},
        "failed": {},
    }
    for name in names:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as keys:  # no bench makes keys in the home of whoever runs it
            os.environ["HOLDFAST_HOME"] = keys
            rows, problem = measure(name)
        result["benches"][name] = rows
        if problem:
            result["failed"][name] = problem
        if not options.json:
            print(f"\n{name} ({time.perf_counter() - start:.1f} s)")
            print(table(rows) if rows else "no figures")
            if problem:
                print(f"FAILED: {problem}")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2) if options.json else f"\nwritten: {OUT.relative_to(HERE.parent)}")
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
