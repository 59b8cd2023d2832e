"""A power cut at the syncs of a projector: what was committed stays, and the next start gives a lake that equals the journal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.power import power_cuts

from holdfast.core.errors import LakeError
from holdfast.lake import commit, durable

pytestmark = [pytest.mark.invariant("I10"), pytest.mark.slow]


@pytest.mark.parametrize("seed", [1])
def test_power_cut_at_any_sync_leaves_a_lake_that_becomes_whole(tmp_path, seed):
    """Whatever was not synced is zeroed, torn or absent: no commit is lost, and in the end every row is there once."""
    judged = power_cuts(tmp_path, seed, 14)
    assert judged.states == 14
    assert judged.mended, "no state needed to be mended: the model loses nothing"


def no_data_sync(patch: pytest.MonkeyPatch) -> None:
    """Data files are written, and not synced."""
    patch.setattr(commit, "write_new", lambda path, data: path.write_bytes(data))


def no_commit_sync(patch: pytest.MonkeyPatch) -> None:
    """Commits are left to the page cache, as delta-rs leaves them."""
    patch.setattr(commit, "sync_versions", lambda *_args, **_more: None)


def no_folder_sync(patch: pytest.MonkeyPatch) -> None:
    """Contents are synced, and their names are not."""
    for module in (commit, durable):
        patch.setattr(module, "sync_folder", lambda _path: os.fstat(0))


def no_repair(patch: pytest.MonkeyPatch) -> None:
    """What is torn stays."""
    patch.setattr("support.power.repair", lambda *_: [])
    patch.setattr("holdfast.lake.projector.repair", lambda *_: [])


@pytest.mark.parametrize("plant", [no_data_sync, no_commit_sync, no_folder_sync, no_repair])
def test_planted_bug_is_found_by_power_cuts(tmp_path, monkeypatch, plant):
    """Each sync left out, and a start that mends nothing, breaks a promise within a few power cuts."""
    plant(monkeypatch)
    with pytest.raises((AssertionError, LakeError, ValueError, OSError)):
        many_power_cuts(tmp_path)


def many_power_cuts(folder: Path) -> None:
    for seed in range(3, 9):
        (folder / str(seed)).mkdir()
        power_cuts(folder / str(seed), seed, 12)
