"""`make torture`: crash the log for as long as one likes, from a seed that is printed.

Three lanes take turns: stories on the simulated disk, stories on an ext4 image (root), and every system call of a
life and of a recovery, killed at, refused with EIO and with ENOSPC, once and for ever (strace). A lane that cannot run
here says so and is left out. What fails is printed with the seed that repeats it; the exit code is 1 then.

    python tests/torture.py --minutes 30 --seed 7 --json build/torture.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from crash.test_system_calls import all_points, tried
from support.crash import SteppedLog, Story
from support.image import image_folder, new_image

Lane = Iterator[int]
"""One thing tried at each step; yields how many states or points that were."""


def simulated(random: Random) -> Lane:
    """Stories of every length on the simulated disk."""
    while True:
        seed, steps = random.randrange(10**9), random.choice([7, 7, 20, 60])
        yield Story(seed, SteppedLog, states_per_call=20 / steps, steps=steps, depth=2).run()


def on_ext4(random: Random) -> Lane:
    """Stories on images of a real file system."""
    with image_folder() as folder:
        while True:
            disk = new_image(folder)
            try:
                yield Story(
                    random.randrange(10**9),
                    SteppedLog,
                    disk=disk,
                    states_per_call=0.1,
                    steps=20,
                    rotate_bytes=16_000,
                    longest=2500,
                ).run()
            finally:
                disk.release()


def at_system_calls(random: Random) -> Lane:
    """Every point of a life and of a recovery, in random order, again and again."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-torture-"))
    folder.chmod(0o700)
    try:
        known: list[tuple[str, object]] = []
        for what in ("live", "recover"):
            place = folder / what
            place.mkdir()
            known += [(what, point) for point in all_points(place, what)]
        ways = [
            (what, point, inject, forever)
            for what, point in known
            for inject, forever in (
                ("signal=KILL", False), ("error=EIO", False), ("error=EIO", True),
                ("error=ENOSPC", False), ("error=ENOSPC", True),
            )
        ]  # fmt: skip
        while True:
            random.shuffle(ways)
            for what, point, inject, forever in ways:
                tried(folder, what, point, inject, forever=forever)
                yield 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Take turns until the time is over."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    print(f"torture: seed {told.seed}, {told.minutes:g} minutes", flush=True)
    lanes: dict[str, Lane] = {
        lane.__name__: lane(Random(f"{told.seed} {lane.__name__}"))
        for lane in (simulated, on_ext4, at_system_calls)
    }
    done = dict.fromkeys(lanes, 0)
    spent = dict.fromkeys(lanes, 0.0)
    ends, failure = time.monotonic() + 60 * told.minutes, ""
    while lanes and time.monotonic() < ends and not failure:
        name = min(lanes, key=lambda lane: spent[lane])
        began = time.monotonic()
        try:
            done[name] += next(lanes[name])
        except pytest.skip.Exception as why:
            print(f"  {name}: SKIPPED, {why}", flush=True)
            del lanes[name]
        except AssertionError as why:
            failure = f"{name}: {why}"
        spent[name] += time.monotonic() - began
    for lane in lanes.values():
        lane.close()
    for name, count in done.items():
        print(f"  {name}: {count} in {spent[name]:.0f} s")
    if told.json:
        told.json.parent.mkdir(parents=True, exist_ok=True)
        told.json.write_text(
            json.dumps({"seed": told.seed, "tried": done, "failure": failure}, indent=1) + "\n"
        )
    print(f"FAILED, {failure}" if failure else "nothing was lost", flush=True)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
