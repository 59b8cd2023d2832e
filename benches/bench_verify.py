"""Verification beside a control that only reads, unpacks, splits and hashes the same bytes.

Three sealed segments and an open one, written by the log itself with everything on. Every figure is the median
of interleaved rounds; "two cores" is held against how much faster two processes make the control, because on a
shared machine two cores are not twice one.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path
from statistics import median

from holdfast.audit.keys import KeyHome
from holdfast.audit.note import VerifierKey
from holdfast.audit.verify import verify
from holdfast.audit.wal import Entry, WriteAheadLog
from holdfast.core.clock import SystemClock

RECORDS = 600_000
ROTATE_BYTES = 50_000_000
ROUNDS = 5


def details(n: int) -> dict:
    return {
        "order_id": f"hf-{n:016x}",
        "client_order_id": f"hf-{n * 7919:016x}",
        "strategy": "maker-1",
        "ticker": "KXNBAGAME-26MAR07GSWOKC-GSW",
        "side": "yes",
        "order_type": "limit",
        "quantity": "10.00",
        "price": f"0.{n % 9000 + 1000}",
        "tif": "ioc",
        "reserved": "5.60",
        "fee_bound": "0.18",
        "decision": n,
    }


def write(directory: Path, home: Path) -> tuple[int, list[VerifierKey]]:
    """The log; how many records it holds, and the keys pinned for it."""
    keys = KeyHome(home)
    with WriteAheadLog(directory, clock=SystemClock(), rotate_bytes=ROTATE_BYTES, keys=keys) as log:
        for start in range(0, RECORDS, 2048):
            log.append_many(
                [Entry("ORDER", details(n), "bench", "bench") for n in range(start, start + 2048)]
            )
        log_id = log.log_id
    return verify(directory).total_entries, list(keys.log(log_id).pins())


def hash_file(path: Path) -> int:
    """What any verifier must do at least: every leaf hash of one segment."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    count = 0
    for line in data.split(b"\n"):
        if line:
            sha256(b"\0" + line).digest()
            count += 1
    return count


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run() -> list[dict]:
    home = Path(tempfile.mkdtemp(prefix="bench-verify-"))
    try:
        records, pins = write(home / "log", home / "keys")
        files = sorted((home / "log").glob("audit_*.log*"), key=lambda path: -path.stat().st_size)
        one: list[float] = []
        two: list[float] = []
        control_one: list[float] = []
        control_two: list[float] = []
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(hash_file, files))  # the processes are there
            for _ in range(ROUNDS):
                control_one.append(timed(lambda: [hash_file(path) for path in files]))
                one.append(timed(lambda: verify(home / "log", keys=pins, jobs=1)))
                control_two.append(timed(lambda: list(pool.map(hash_file, files))))
                two.append(timed(lambda: verify(home / "log", keys=pins, jobs=2)))
        report = verify(home / "log", keys=pins, jobs=2)
        assert report.ok, report.problems
        scaling = median(a / b for a, b in zip(one, two, strict=True))
        control = median(a / b for a, b in zip(control_one, control_two, strict=True))
        sealed = sum(path.suffix == ".gz" for path in files)
        return [
            {
                "name": f"verify, one core, {records:,} records in {len(files)} segments, {sealed} sealed",
                "value": records / median(one),
                "unit": "records/s",
                "beside": f"unpacking and leaf hashes alone {records / median(control_one):,.0f} records/s",
                "ratio": median(a / b for a, b in zip(control_one, one, strict=True)),
                "bar": ">= 330000 records/s",
            },
            {
                "name": f"verify, two cores of {os.cpu_count()}",
                "value": records / median(two),
                "unit": "records/s",
                "beside": f"x {scaling:.2f} over one core; the control x {control:.2f}",
                "ratio": scaling / control,
                "bar": ">= 0.9 x",
            },
        ]
    finally:
        shutil.rmtree(home)
