"""Power loss on a real ext4 file system, which calibrates the simulated one: the same stories, the same judge.

The image's power is cut by copying it (`support.image`). Root and a loop device are needed; skipped loudly elsewhere.
What a planted bug needs in order to show is told, not drawn: what happens, at which calls the power is cut, and which
dirty pages the kernel has written by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from support import planted
from support.crash import LogClass, SteppedLog, Story, Violation
from support.image import image_folder, new_image
from support.planted import CRASH_BUGS, SIMULATED_ONLY

from holdfast.core.errors import AuditError

STATES = 50
SEED = 20261121


class Needs(NamedTuple):
    """What shows a bug.

    Attributes:
        script: What happens.
        moment: The call before which the power is cut, and the end of its file's name.
        lands: Which dirty pages are on the disk by then.
    """

    script: Sequence[str]
    moment: tuple[str, str]
    lands: Callable[[str, int], bool]


def nothing(_name: str, _page: int) -> bool:
    return False


def the_head(name: str, _page: int) -> bool:
    return name == "head"


def half_of_the_log(name: str, page: int) -> bool:
    return name.endswith(".log") and page % 2 == 1


BEFORE_A_SYNC = ("fdatasync", ".log")
BEFORE_A_WRITE = ("pwrite", ".log")
TORN = Needs(["many"] * 8, BEFORE_A_SYNC, half_of_the_log)
NEEDS: dict[LogClass, Needs] = {
    planted.NoFsync: Needs(["durable"] * 3, BEFORE_A_WRITE, nothing),
    planted.AcknowledgesBeforeSync: Needs(["durable"] * 3, BEFORE_A_SYNC, nothing),
    planted.HeadBeforeSync: Needs(["durable"] * 3, BEFORE_A_SYNC, the_head),
    planted.CheckpointBeforeSync: Needs(["durable"] * 3, BEFORE_A_SYNC, nothing),
    planted.NeverStopsSayingClosed: Needs(
        ["durable", "reopen", "durable", "durable"], BEFORE_A_WRITE, nothing
    ),
    planted.CutsWithoutClearing: TORN,
    planted.NeverRewrites: Needs(["durable", "die"] * 4, BEFORE_A_WRITE, nothing),
    planted.NoRepair: TORN,
    planted.OrdersByFileName: Needs(["durable", "back", "rotate"] * 2 + ["durable"], BEFORE_A_WRITE, nothing),
    planted.EveryBadLineIsCorruption: TORN,
}


STATES = 50
SEED = 20261121


@pytest.fixture
def folder():
    """Where images are made and mounted."""
    with image_folder() as place:
        yield place


def lived(folder, seed: int, log_class: LogClass, needs: Needs | None = None) -> int:
    """One story on an image of its own, drawn by the seed or made of what a bug *needs*; how many states were judged."""
    disk = new_image(folder)
    try:
        if needs is None:
            life = {"states_per_call": 0.03, "steps": 15, "rotate_bytes": 16_000}
        else:
            life = {"script": needs.script, "moment": needs.moment, "depth": 0, "rotate_bytes": 60_000}
            disk.lands = needs.lands
        return Story(seed, log_class, disk=disk, longest=2500, **life).run()
    finally:
        disk.release()


@pytest.mark.slow
@pytest.mark.invariant("I7")
def test_every_power_cut_on_ext4_restarts_with_everything_acknowledged(folder, capsys):
    """Of at least fifty real states, each restarts as a gapless prefix with everything acknowledged."""
    states = stories = 0
    while states < STATES:
        states += lived(folder, SEED + stories, SteppedLog)
        stories += 1
    with capsys.disabled():
        print(f"\n  power loss on ext4: {states} states of {stories} stories, seeds from {SEED}")


@pytest.mark.parametrize(
    "bug", [bug for bug in CRASH_BUGS if bug not in SIMULATED_ONLY], ids=lambda bug: bug.__name__
)
@pytest.mark.invariant("I7")
def test_a_planted_bug_is_found_by_ext4_too(folder, bug):
    """The simulated disk is not harder than the real one: what it finds, ext4 shows, where the same cuts of the real
    log break nothing."""
    assert lived(folder, SEED, SteppedLog, NEEDS[bug]) > 0
    for seed in range(6):
        try:
            lived(folder, seed, bug, NEEDS[bug])
        except (Violation, AuditError):
            return
    pytest.fail(f"{bug.__name__} passed")
