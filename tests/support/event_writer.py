"""A process whose stops and breaker emit risk events, and that says on stdout which ones were taken, until it is killed.

Arguments: directory, seed. Each line is `<sequence> <execution id> <current premium>`, written with one system call
after `emit` returned.
"""

import os
import sys
import threading
from pathlib import Path
from random import Random

from holdfast.audit import segment as segment_module
from holdfast.audit.keys import KeyHome
from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.risk.event_logger import RiskEventLogger
from holdfast.risk.events import RiskEvent, RiskEventType

segment_module.FIRST_FILL_BYTES = 8192
segment_module.FILL_STEP_BYTES = 65536


def work(logger: RiskEventLogger, name: str, seed: int) -> None:
    random, number = Random(f"{seed} {name}"), 0
    while True:
        number += 1
        event = RiskEvent(
            event_type=random.choice(list(RiskEventType)),
            component="trailing_stop",
            execution_id=f"{seed}-{name}-{number}",
            current_premium=random.randrange(10**7),
            metadata={"pad": "x" * random.choice([0, 30, 3000])} if number % 7 == 0 else {},
        )
        seq = logger.emit(event)
        os.write(1, f"{seq} {event.execution_id} {event.current_premium}\n".encode())


def main() -> None:
    directory, seed = Path(sys.argv[1]), int(sys.argv[2])
    wal = WriteAheadLog(
        directory,
        clock=SystemClock(),
        rotate_bytes=300_000,
        seal=False,
        keys=KeyHome(directory.parent / "keys"),
    )
    logger = RiskEventLogger(AuditLogger(wal), project=False)
    for name in ("a", "b"):
        threading.Thread(target=work, args=(logger, name, seed), daemon=True).start()
    work(logger, "main", seed)


if __name__ == "__main__":
    main()
