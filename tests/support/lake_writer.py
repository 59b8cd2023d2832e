"""A process that writes a journal of every projected kind of record until SIGTERM; small segments, sealed as it goes.

Arguments: directory, seed, records per second ("0" for as fast as it can), records at most ("0" for endless).
"""

import signal
import sys
import threading
import time
from pathlib import Path
from random import Random

from support.lake import record

from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import SystemClock


def main() -> None:
    directory, seed, rate, most = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    random, done, began = Random(seed), 0, time.monotonic()
    log = WriteAheadLog(directory, clock=SystemClock(), rotate_bytes=400_000)
    log.open()
    print("READY", flush=True)
    while not stop.is_set() and (not most or done < most):
        count = random.choice([1, 3, 20, 200])
        count = min(count, most - done) if most else count
        entries = []
        for n in range(count):
            type_, details, component = record(random, 0, done + n)
            entries.append(Entry(type_, {**details, "tag": f"{seed}-{done + n}"}, "desk", component))
        log.append_many(entries, level=random.choice([Level.WRITTEN, Level.DURABLE]))
        done += count
        if rate:
            stop.wait(max(0.0, began + done / rate - time.monotonic()))
    log.close()


if __name__ == "__main__":
    main()
