"""A power cut under a lake on a disk: what was not synced is gone, zeroed, cut off or there, as a seed says.

`PowerModel` watches the syncs that the lake makes (`holdfast.lake.durable`) and remembers what each file and each
folder held then. `cut` writes another directory as the next boot could find it: a file's content is surely there
where it was synced as it is now, a name surely where its folder was synced with it.

Limits: a file's later content may be lost as a whole, from its half on, or in its middle, not in any other way.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest
from support.lake import make_journal
from support.projectors import assert_exact

from holdfast.core.clock import SystemClock
from holdfast.lake import commit, durable
from holdfast.lake.commit import METADATA_KEY, Noted, Span, TableWriter
from holdfast.lake.durable import Action, actions_of
from holdfast.lake.projector import Projector, ProjectorPolicy
from holdfast.lake.repair import repair
from holdfast.lake.store import LakeStore, store_of


class PowerModel:
    """The disk under *root*.

    Attributes:
        on_sync: Called before every sync; it may cut the power.
        syncs: How many syncs there were.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.on_sync: Callable[[], None] = lambda: None
        self.begin()
        fsync, real = os.fsync, os.readlink

        def watched(descriptor: int) -> None:
            path = Path(real(f"/proc/self/fd/{descriptor}"))
            self.on_sync()
            fsync(descriptor)
            self.syncs += 1
            self._remember(path)

        patch.setattr(durable.os, "fsync", watched)

    def begin(self) -> None:
        """Forget what was; the root alone outlives every cut."""
        self.syncs = 0
        self._contents: dict[Path, bytes] = {}
        self._names: dict[Path, set[str]] = {}

    def _remember(self, path: Path) -> None:
        if path.is_dir():
            self._names[path] = {one.name for one in path.iterdir()}
        elif path.exists():
            self._contents[path] = path.read_bytes()

    def cut(self, target: Path, random: Random) -> None:
        """Write the disk as the next boot finds it to *target*."""
        self._cut(self.root, target, random)

    def _cut(self, folder: Path, target: Path, random: Random) -> None:
        target.mkdir()
        now, then = {one.name for one in folder.iterdir()}, self._names.get(folder, set())
        # A name that was removed since may be there again; its content is what was synced.
        for name in sorted(now | then):
            path = folder / name
            if name not in then and random.random() < 0.5:
                continue
            if name not in now:
                if path in self._contents and random.random() < 0.5:
                    (target / name).write_bytes(self._contents[path])
            elif path.is_dir():
                self._cut(path, target / name, random)
            else:
                (target / name).write_bytes(self._surviving(path, random))

    def _surviving(self, path: Path, random: Random) -> bytes:
        data = path.read_bytes()
        if self._contents.get(path) == data:
            return data
        middle = len(data) // 2
        hole = data[:middle] + bytes(min(512, len(data) - middle)) + data[middle + 512 :]
        return random.choice([b"", bytes(len(data)), data[:middle], hole, data])


SMALL = ProjectorPolicy(rows=12, most_rows=12, idle_records=60)


def project(log: Path, store: LakeStore, said: list[str] | None = None) -> None:
    """A projector in this process, from its start to its end."""
    tell = (lambda _: None) if said is None else said.append
    one = Projector([log], store, clock=SystemClock(), policy=SMALL, tell=tell)
    try:
        one.start()
        one.run(follow=False, wait=lambda _: False)
    finally:
        one.close()


class Judged(NamedTuple):
    """What came of some power cuts.

    Attributes:
        states: How many there were.
        mended: In how many something was moved aside.
    """

    states: int
    mended: int


def power_cuts(folder: Path, seed: int, states: int) -> Judged:
    """Cut the power *states* times at syncs of one projection and judge what the next start makes of it.

    Judged are two promises: a commit that was made outlives the cut, and the lake becomes equal to the journal.

    Raises:
        AssertionError: One of them is broken.
    """
    random = Random(seed)
    log = make_journal(folder / "log", days=2, events=40, seed=seed)
    lake = folder / "lake"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commit, "CHECKPOINT_COMMITS", 3)
        acked = _watch_commits(patch)
        lake.mkdir()
        model = PowerModel(lake, patch)
        project(log, store_of(str(lake)))  # only to know how many syncs there are
        wanted = set(random.sample(range(model.syncs), min(states, model.syncs)))
        shutil.rmtree(lake)
        lake.mkdir()
        acked.clear()
        model.begin()
        drawn: list[tuple[Path, dict[str, int]]] = []

        def at_sync() -> None:
            if model.syncs in wanted:
                drawn.append((folder / f"cut-{len(drawn)}", dict(acked)))
                model.cut(drawn[-1][0], random)

        model.on_sync = at_sync
        project(log, store_of(str(lake)))
    mended = 0
    for state, promised in drawn:
        said: list[str] = []
        _assert_kept(state, promised, said)
        project(log, store_of(str(state)), said)
        assert_exact([log], store_of(str(state)))
        mended += bool(said)
    return Judged(len(drawn), mended)


def _watch_commits(patch: pytest.MonkeyPatch) -> dict[str, int]:
    """By table, the watermark of the last commit that was made."""
    acked: dict[str, int] = {}
    real = TableWriter.commit

    def watched(self: TableWriter, rows: Any, spans: Sequence[Span]) -> None:
        real(self, rows, spans)
        acked[self.table.name] = spans[0].last

    patch.setattr(TableWriter, "commit", watched)
    return acked


def _assert_kept(state: Path, promised: dict[str, int], said: list[str]) -> None:
    for name, last in promised.items():
        said += [f"{moved}" for moved in repair(state / name, "cut")]
        noted = [
            span.last
            for action in _actions(state / name)
            if METADATA_KEY in (action.commit_info or {})
            for span in msgspec.json.decode(action.commit_info[METADATA_KEY], type=Noted).logs
        ]
        assert max(noted, default=0) >= last, (
            f"{name}: {last} was committed, the power cut left {noted}; {said}"
        )


def _actions(table: Path) -> list[Action]:
    log = table / "_delta_log"
    return [action for path in sorted(log.glob("*.json")) for action in actions_of(path.read_bytes())]
