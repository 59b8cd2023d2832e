"""What a power cut does to a table on a disk, and how a start mends it.

delta-rs syncs nothing, and even a commit that we sync may be cut off just before. What a disk then shows:

    the newest versions are …                          what is done
    whole: the commit says all of it, its files read   nothing
    empty, zeroed, cut off, or lacking an action       moved aside, with every version behind it
    whole, but a data file is missing, short, torn     moved aside, with every version behind it
    there, but one in between is not                   those behind the gap are moved aside
    in a checkpoint that is torn, was never synced     the checkpoint is moved aside, its pointer before it;
      as far as `SYNCED` says, or covers a torn one      the commits before it take its place

Promise: nothing is deleted: what is moved aside lies in `_quarantine/` inside the table, and is told. The watermarks
go back together with the rows, so that projecting again adds exactly what was taken. A repair that is interrupted is
finished by the next one: pointer and checkpoints go first, then the commits, the newest first. Where the beginning
of the table's log is gone, nothing is touched and `LakeDamaged` says so.

`Guard` keeps a repair apart from living projectors: they share a lock that a repair needs for itself. While one of
them lives there was no power cut, so there is nothing to mend.

Limits: judged are the versions behind the newest whole checkpoint, and at least the newest `JUDGED`. Stores other
than disks write whole objects and need no repair.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from holdfast.core.errors import LakeDamaged
from holdfast.lake.commit import METADATA_KEY, Noted
from holdfast.lake.durable import LAST_CHECKPOINT, Action, actions_of, read_synced, sync_folder
from holdfast.lake.extras import load
from holdfast.lake.store import LOG_FOLDER

QUARANTINE = "_quarantine"
JUDGED = 20
"""So many of the newest versions are judged also where a checkpoint covers them."""

_OF_METADATA = frozenset({"ADD COLUMN", "SET TBLPROPERTIES"})
"""What delta-rs calls the commits that widen a table."""
_COMMIT = re.compile(r"(\d{20})\.json", re.ASCII)
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(\.[A-Za-z0-9-]+)*\.(parquet|json)", re.ASCII)
_COMPACTED = re.compile(r"\d{20}\.(\d{20})\.compacted\.json", re.ASCII)


class Verdict(StrEnum):
    """What is found of one version; the words go into messages."""

    WHOLE = "whole"
    EMPTY = "its commit is empty"
    TORN = "its commit is torn"
    INCOMPLETE = "its commit lacks an action"
    DATA_MISSING = "a data file is missing"
    DATA_SHORT = "a data file has another length"
    DATA_TORN = "a data file is torn"
    GAP = "it is missing"


class Moved(NamedTuple):
    """Something that was moved aside.

    Attributes:
        name: Its file name.
        why: What is wrong with it, or with a version before it.
    """

    name: str
    why: str


class _Pointer(msgspec.Struct):
    """What `_last_checkpoint` says."""

    version: int


class _Metrics(msgspec.Struct, rename="camel"):
    """What a compaction announces."""

    num_files_added: int
    num_files_removed: int


class Guard:
    """A lake's directory held by this process: shared to work in it, alone to repair it."""

    def __init__(self, lake: Path) -> None:
        self._lake = lake
        self._descriptor = self._open()

    def alone(self) -> bool:
        """Whether nobody else works in the lake; if so nobody can begin until `share`."""
        try:
            self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """Work in the lake beside others, once nobody repairs or rebuilds it."""
        self._lock(fcntl.LOCK_SH)

    def _open(self) -> int:
        return os.open(self._lake, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _lock(self, how: int) -> None:
        fcntl.flock(self._descriptor, how)
        # A rebuild puts another directory in the place of the one that was waited for.
        while not os.path.samestat(os.fstat(self._descriptor), self._lake.stat()):
            self.release()
            self._descriptor = self._open()
            fcntl.flock(self._descriptor, how)

    def release(self) -> None:
        """Let go."""
        os.close(self._descriptor)


def repair(table: Path, stamp: str) -> list[Moved]:
    """Move aside what a power cut tore from the table in directory *table*; what was moved, the newest first.

    Args:
        table: The table's directory; one that does not exist is whole.
        stamp: Names the folder of what is moved, such as 20261121T184500Z.

    Raises:
        LakeDamaged: The beginning of the table's log is gone: it cannot be read without what is missing.
    """
    log = _Log.of(table)
    if log is None:
        return []
    kept = log.trusted
    if not log.begins(kept):
        kept |= log.readable  # nobody vouches for these, and nothing else is left to begin with
    cut, why = _first_bad(log, kept)
    kept = {version for version in kept if cut is None or version < cut}
    _refuse_without_beginning(log, kept, cut)

    moved = _to_move(log, kept, cut, why)
    _move(table, moved, stamp)
    return [Moved(name, reason) for name, reason in moved.items()]


def _to_move(log: _Log, kept: Collection[int], cut: int | None, why: str) -> dict[str, str]:
    """What is moved aside and why, in the order in which it is moved.

    Args:
        log: What is there.
        kept: The checkpoints that stay.
        cut: The lowest version that is not whole; None where all are.
        why: What is wrong with it.
    """
    moved: dict[str, str] = {}
    if LAST_CHECKPOINT in log.names and _pointer(log.table) not in kept:
        moved[LAST_CHECKPOINT] = "it points to no checkpoint that is whole"
    for version in sorted(log.checkpoints.keys() - kept, reverse=True):
        fault = "it is torn" if version not in log.readable else "it was never synced"
        for name in log.checkpoints[version]:
            moved[name] = fault if version not in log.trusted else f"it covers version {cut}: {why}"
    if cut is not None:
        for name in log.names:
            found = _COMPACTED.fullmatch(name)
            if found is not None and int(found[1]) >= cut:
                moved[name] = f"it covers version {cut}: {why}"
        for version in sorted((one for one in log.commits if one >= cut), reverse=True):
            moved[f"{version:020d}.json"] = why if version == cut else f"version {cut} before it: {why}"
    return moved


class _Log:
    """What lies in a table's log.

    Attributes:
        table: The table's directory.
        names: Of all files.
        commits: The versions that have a commit file.
        checkpoints: The files of each checkpoint, by version.
        trusted: The checkpoints that are known to be on the disk as they were written.
        readable: Those whose every page can be read.
    """

    def __init__(self, table: Path, names: list[str]) -> None:
        self.table = table
        self.names = names
        self.commits = {int(found[1]) for found in map(_COMMIT.fullmatch, names) if found is not None}
        self.checkpoints: dict[int, list[str]] = {}
        for name in sorted(names):
            match = _CHECKPOINT.fullmatch(name)
            if match is not None:
                self.checkpoints.setdefault(int(match[1]), []).append(name)
        synced = read_synced(table).checkpoints
        self.trusted = {
            version
            for version, files in self.checkpoints.items()
            if all(synced.get(name) == _sha256(self._path(name)) for name in files)
        }
        self.readable = {
            version
            for version, files in self.checkpoints.items()
            if all(_reads(self._path(name)) for name in files if name.endswith(".parquet"))
        }

    @classmethod
    def of(cls, table: Path) -> _Log | None:
        """The log of *table*; None where there is none."""
        try:
            return cls(table, os.listdir(table / LOG_FOLDER))  # noqa: PTH208  names are wanted
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _path(self, name: str) -> Path:
        return self.table / LOG_FOLDER / name

    def begins(self, checkpoints: Collection[int]) -> bool:
        """Whether there is something to begin with: version 0, or one of *checkpoints* and the commit behind it."""
        if 0 in self.commits or not self.commits:
            return True
        newest = max(self.commits)
        return any(version + 1 in self.commits or version >= newest for version in checkpoints)


def _pointer(table: Path) -> int | None:
    """The version that `_last_checkpoint` points to; None where it is missing or says nothing."""
    try:
        said = (table / LOG_FOLDER / LAST_CHECKPOINT).read_bytes()
        return msgspec.json.decode(said, type=_Pointer).version
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _sha256(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "unreadable"


def _first_bad(log: _Log, usable: Collection[int]) -> tuple[int | None, str]:
    """The lowest version that is not whole, and why; judged from the newest usable checkpoint, or `JUDGED` before."""
    if not log.commits:
        return None, ""
    newest = max(log.commits)
    start = max((version for version in usable if version <= newest), default=-1) + 1
    gap = next((version for version in range(start, newest + 1) if version not in log.commits), None)
    bad: tuple[int | None, str] = (None, "")
    if gap is not None:
        bad, newest = (gap, str(Verdict.GAP)), gap - 1  # what stands behind it is no part of the table
    removed: set[str] = set()
    for version in range(newest, min(start, max(newest - JUDGED + 1, 0)) - 1, -1):
        if version not in log.commits:
            break  # cleaned up: a checkpoint stands for it
        verdict, removes = judge(log.table, version, removed)
        if verdict is Verdict.WHOLE:
            removed |= removes
        else:
            bad = (version, str(verdict))
            removed = set()  # what versions behind it let go is there again
    return bad


def judge(table: Path, version: int, removed: Collection[str] = ()) -> tuple[Verdict, frozenset[str]]:
    """What *version* of *table* is, and which files a whole one lets go.

    Files in *removed* may be gone, because a later version let them go.
    """
    try:
        data = (table / LOG_FOLDER / f"{version:020d}.json").read_bytes()
    except OSError:
        return Verdict.TORN, frozenset()
    if not data.strip(b"\0 \n"):
        return Verdict.EMPTY, frozenset()
    try:
        actions = actions_of(data)
        complete = _complete(version, actions)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Verdict.TORN, frozenset()
    if not complete:
        return Verdict.INCOMPLETE, frozenset()
    removes = frozenset(action.remove.name for action in actions if action.remove)
    for added in (action.add for action in actions if action.add):
        if added.name not in removed and added.name not in removes:
            fault = _data_fault(table / added.name, added.size)
            if fault is not Verdict.WHOLE:
                return fault, frozenset()
    return Verdict.WHOLE, removes


def _data_fault(path: Path, size: int) -> Verdict:
    try:
        length = path.stat().st_size
    except OSError:
        return Verdict.DATA_MISSING
    if length != size:
        return Verdict.DATA_SHORT
    return Verdict.WHOLE if _reads(path) else Verdict.DATA_TORN


def _complete(version: int, actions: list[Action]) -> bool:
    """Whether every action is there that the commit's own first line announces.

    A commit is written line by line: cut off behind one, it would add rows and lack the watermark that covers them.

    Raises:
        msgspec.DecodeError: What it announces cannot be read.
    """
    if version == 0:
        return any(one.meta_data is not None for one in actions) and any(
            one.protocol is not None for one in actions
        )
    info = next((one.commit_info for one in actions if one.commit_info), None)
    if info is None:
        return False
    adds = sum(one.add is not None for one in actions)
    if METADATA_KEY in info:
        noted = msgspec.json.decode(info[METADATA_KEY], type=Noted)
        return adds == noted.files and sum(one.txn is not None for one in actions) == len(noted.logs)
    if info.get("operation") in _OF_METADATA:
        return any(one.meta_data is not None for one in actions)
    if info.get("operation") == "OPTIMIZE":
        metrics = msgspec.convert(info.get("operationMetrics"), _Metrics)
        removes = sum(one.remove is not None for one in actions)
        return (adds, removes) == (metrics.num_files_added, metrics.num_files_removed)
    return True


def _reads(path: Path) -> bool:
    """Whether every page of a Parquet file can be read."""
    pyarrow: Any = load("pyarrow")
    parquet: Any = load("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group)
    except (pyarrow.ArrowException, OSError, ValueError):
        return False
    return True


def _refuse_without_beginning(log: _Log, kept: Collection[int], cut: int | None) -> None:
    """Raise where what would be left begins nowhere.

    A table of which only a torn version 0 is there was never whole, and is made anew.
    """
    left = {version for version in log.commits if cut is None or version < cut}
    if not log.commits or log.commits == {cut} == {0}:
        return
    base = max(kept, default=-1)
    behind = [version for version in left if version > base]
    if (kept or left) and sorted(behind) == list(range(base + 1, base + 1 + len(behind))):
        return
    raise LakeDamaged(
        f"lake damaged: the log of {log.table.name!r} lacks its beginning: no whole checkpoint, "
        f"and its lowest whole version is {min(left, default='none')}",
        hint="the journal is the truth: `holdfast lake rebuild` makes the table anew",
    )


def _move(table: Path, moved: Mapping[str, str], stamp: str) -> None:
    if not moved:
        return
    log = table / LOG_FOLDER
    target = _new_folder(table / QUARANTINE, stamp)
    for name in moved:
        (log / name).rename(target / name)
        sync_folder(target)
        sync_folder(log)


def _new_folder(quarantine: Path, stamp: str) -> Path:
    quarantine.mkdir(exist_ok=True)
    sync_folder(quarantine.parent)
    for name in _numbered(stamp):
        with contextlib.suppress(FileExistsError):
            (quarantine / name).mkdir()
            sync_folder(quarantine)
            return quarantine / name
    raise AssertionError("the numbers do not end")  # pragma: no cover


def _numbered(stamp: str) -> Iterator[str]:
    yield stamp
    number = 2
    while True:
        yield f"{stamp}-{number}"
        number += 1
