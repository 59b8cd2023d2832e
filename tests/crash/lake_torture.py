"""Torture of the lake: rival projectors, random kill -9, a live writer; then every row is compared with the journal.

    python tests/crash/lake_torture.py --kills 100 --rivals 3 [--s3] [--seed N] [--json FILE]
    python tests/crash/lake_torture.py --power-cuts 200 [--seed N]

With --power-cuts the power is cut at the syncs of projections instead, on a simulated disk. With --s3 the lake lies on moto's server, in a process of its own. Ends with status 1 at the first row that is
missing, doubled or different.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from support.moto_process import moto_process
from support.power import power_cuts
from support.projectors import assert_exact, finish, rival_kills, writer

from holdfast.lake.store import store_of

FAST = ("--age", "0.02", "--rows", "300")


def main() -> int:
    parser = argparse.ArgumentParser(description="kill rival projectors at random and compare the lake")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rivals", type=int, default=3)
    parser.add_argument("--rate", type=int, default=1500, help="records per second that the writer appends")
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--power-cuts", type=int, default=0, help="cut the power so often instead")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    began = time.monotonic()
    if args.power_cuts:
        return cut_power(args.power_cuts, args.seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lake-torture-")))
        environ: dict[str, str] = {}
        uri = str(folder / "lake")
        if args.s3:
            place = stack.enter_context(moto_process())
            environ, uri = place.environ, f"s3://{place.make()}/lake"
        store = store_of(uri, environ) if environ else store_of(uri)
        log = folder / "log"
        with writer(log, seed=args.seed, rate=args.rate):
            ended = rival_kills(
                [log], store, *FAST, kills=args.kills, rivals=args.rivals, random=random.Random(args.seed),
                environ=environ,
            )  # fmt: skip
        finish([log], store, environ)
        rows = assert_exact([log], store)
        commits = {name: store.open(name).version() for name in ("risk_events", "orders", "fills")}
    result = {
        "seed": args.seed, "where": "s3" if args.s3 else "local", "rivals": args.rivals, "ended": dict(ended),
        "rows": rows, "exact": True, "versions": commits, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print(json.dumps(result), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(result), encoding="utf-8")
    return 0


def cut_power(wanted: int, seed: int) -> int:
    """Power cuts at random syncs of many projections, until there were *wanted*."""
    judged = mended = 0
    while judged < wanted:
        with tempfile.TemporaryDirectory(prefix="lake-power-") as folder:
            found = power_cuts(Path(folder), seed + judged, min(40, wanted - judged))
        judged += found.states
        mended += found.mended
    print(json.dumps({"seed": seed, "power_cuts": judged, "mended": mended, "exact": True}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
