"""Power loss on a real ext4 file system, which calibrates the simulated one: the same stories, the same judge.

The image's power is cut by copying it (`support.image`). Root and a loop device are needed; skipped loudly elsewhere.
"""

from __future__ import annotations

import pytest
from support.crash import LogClass, SteppedLog, Story, Violation
from support.image import image_folder, new_image
from support.planted import CRASH_BUGS, FOCUS, SIMULATED_ONLY

from holdfast.core.errors import AuditError

STATES = 50
SEED = 20261121


@pytest.fixture
def folder():
    """Where images are made and mounted."""
    with image_folder() as place:
        yield place


def lived(folder, seed: int, log_class: LogClass, *, states_per_call: float, depth: int) -> int:
    """One story on an image of its own; how many states were judged."""
    disk = new_image(folder)
    try:
        return Story(
            seed,
            log_class,
            disk=disk,
            states_per_call=states_per_call,
            steps=15,
            depth=depth,
            focus=FOCUS.get(log_class.__name__, ()),
            rotate_bytes=16_000,
            longest=2500,
        ).run()
    finally:
        disk.release()


@pytest.mark.slow
@pytest.mark.invariant("I7")
def test_every_power_cut_on_ext4_restarts_with_everything_acknowledged(folder, capsys):
    """Of at least fifty real states, each restarts as a gapless prefix with everything acknowledged."""
    states = stories = 0
    while states < STATES:
        states += lived(folder, SEED + stories, SteppedLog, states_per_call=0.03, depth=1)
        stories += 1
    with capsys.disabled():
        print(f"\n  power loss on ext4: {states} states of {stories} stories, seeds from {SEED}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "bug", [bug for bug in CRASH_BUGS if bug not in SIMULATED_ONLY], ids=lambda bug: bug.__name__
)
@pytest.mark.invariant("I7")
def test_a_planted_bug_is_found_by_ext4_too(folder, bug):
    """The simulated disk is not harder than the real one: what it finds, ext4 shows."""
    for seed in range(12):
        try:
            lived(folder, seed, bug, states_per_call=0.1, depth=0)
        except (Violation, AuditError):
            return
    pytest.fail(f"{bug.__name__} passed")
