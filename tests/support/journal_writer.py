"""A process that writes a log and says on stdout what was acknowledged, one line each, until it is killed.

Arguments: directory, seed, number of appends ("0" for endless), "threads" or "tasks". Each line is
`<level> <sequence> <tag>`, written with one system call after the append returned.
"""

import asyncio
import os
import sys
import threading
from pathlib import Path
from random import Random

from holdfast.audit import segment as segment_module
from holdfast.audit.keys import KeyHome
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.core.clock import SystemClock

segment_module.FIRST_FILL_BYTES = 8192
segment_module.FILL_STEP_BYTES = 65536


def tell(level: Level, seq: int, tag: str) -> None:
    os.write(1, f"{level.name} {seq} {tag}\n".encode())


def sizes(random: Random) -> str:
    return f"{random.randrange(10**12)}-" + "x" * random.choice([1, 50, 400, 3000])


def level_of(random: Random) -> Level:
    return random.choice([Level.DURABLE, Level.DURABLE, Level.WRITTEN])


def with_threads(log: WriteAheadLog, seed: int, count: int) -> None:
    def work(number: int) -> None:
        random, done = Random(f"{seed} {number}"), 0
        while not count or done < count:
            tag, level = sizes(random), level_of(random)
            tell(level, log.append("NOTE", {"tag": tag}, level=level), tag)
            done += 1

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def with_tasks(log: WriteAheadLog, seed: int, count: int) -> None:
    async def work(number: int) -> None:
        random, done = Random(f"{seed} {number}"), 0
        while not count or done < count:
            tag, level = sizes(random), level_of(random)
            tell(level, await log.append_async("NOTE", {"tag": tag}, level=level), tag)
            done += 1

    await asyncio.gather(*[work(number) for number in range(8)])


def main() -> None:
    directory, seed, count, how = sys.argv[1:]
    home = Path(directory)
    keys = KeyHome(home.parent / "keys")
    log = WriteAheadLog(home, clock=SystemClock(), rotate_bytes=100_000, seal=False, keys=keys)
    log.open()
    os.write(1, b"READY 0 -\n")
    if how == "threads":
        with_threads(log, int(seed), int(count))
    else:
        asyncio.run(with_tasks(log, int(seed), int(count)))
    log.close()


if __name__ == "__main__":
    main()
