"""A process that lives a short, signed life in a log, one thread's calls in one order, and says what was acknowledged.

Arguments: the log's directory, and "live" or "recover". Keys are kept beside the log, in `keys`. Each line on stdout is
`<level> <sequence> <tag>`, written with one system call after the append returned.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from holdfast.audit import segment as segment_module
from holdfast.audit import signing
from holdfast.audit.keys import KeyHome
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import SystemClock
from holdfast.core.errors import TradingError

segment_module.FIRST_FILL_BYTES = segment_module.FILL_STEP_BYTES = 4096
signing.HISTORY_FILL_BYTES = signing.HISTORY_STEP_BYTES = 4096


class Stepped(WriteAheadLog):
    """Without the flusher's thread: its rounds are made between the appends, so that calls keep their order."""

    def _start_flusher(self) -> None:
        pass


Tell = Callable[[Level, list[int], list[str]], None]


def tell(level: Level, seqs: list[int], tags: list[str]) -> None:
    os.write(1, "".join(f"{level.name} {seq} {tag}\n" for seq, tag in zip(seqs, tags, strict=True)).encode())


def open_log(directory: Path) -> WriteAheadLog:
    keys = KeyHome(directory.parent / "keys")
    return Stepped(
        directory, clock=SystemClock(), rotate_bytes=8000, seal=False, keys=keys, reserve_bytes=4096
    )


def live(log: WriteAheadLog, tell: Tell) -> None:
    for number in range(4):
        tag, level = f"a{number}-" + "x" * 300, Level.WRITTEN if number == 2 else Level.DURABLE
        tell(level, [log.append("NOTE", {"tag": tag}, level=level)], [tag])
    log._flush(8, wanted=False)
    log.rotate()
    tags = [f"b{number}-" + "x" * 700 for number in range(9)]
    tell(Level.DURABLE, log.append_many([Entry("NOTE", {"tag": tag}) for tag in tags]), tags)
    log.checkpoint()
    tell(Level.DURABLE, [log.append("NOTE", {"tag": "c"})], ["c"])


def main() -> int:
    log = open_log(Path(sys.argv[1]))
    try:
        if sys.argv[2] == "live":
            live(log, tell)
        else:
            tell(Level.DURABLE, [log.append("NOTE", {"tag": "recovered"})], ["recovered"])
        log.close()
    except TradingError as why:
        print(f"REFUSED {type(why).__name__}: {why}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
