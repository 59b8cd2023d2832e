"""Making a Delta table on this machine's disk outlive a power cut: the syncs that delta-rs never makes.

Promise: after `sync_versions` returned, those versions are on the disk: the commit files, the data files they add,
and the folders that name them; after `sync_checkpoint`, so are the newest checkpoint and the pointer to it. Data
files are synced before the commit that names them by whoever writes them here (`commit`); for what delta-rs wrote
(compaction) both are synced afterwards, and until then the older version is what a power cut leaves.

A failed sync is never tried again: the error ends the run, and `repair` judges at the next start what is there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from holdfast.lake.store import LOG_FOLDER

LAST_CHECKPOINT = "_last_checkpoint"
SYNCED = "_synced_checkpoints"


def sync_file(path: Path) -> None:
    """Return once the content of *path* is on the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Return once creations, renames and removals in *path* are on the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes | memoryview) -> None:
    """Create *path* with *data*, on the disk when this returns; its folder is the caller's to sync.

    Raises:
        OSError: The disk refused; what was written of it is removed.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):  # no version names it: it is ours alone
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def commit_path(table: Path, version: int) -> Path:
    """The commit file of a version."""
    return table / LOG_FOLDER / f"{version:020d}.json"


class AddedFile(msgspec.Struct, frozen=True):
    """A data file that a version adds: its path inside the table, as a URL writes it, and its length."""

    path: str
    size: int

    @property
    def name(self) -> str:
        """The path as the disk knows it."""
        return unquote(self.path)


class RemovedFile(msgspec.Struct, frozen=True):
    """A data file that a version lets go."""

    path: str

    @property
    def name(self) -> str:
        """The path as the disk knows it."""
        return unquote(self.path)


class Action(msgspec.Struct, frozen=True, rename="camel"):
    """One line of a commit, as far as it is looked at here."""

    add: AddedFile | None = None
    remove: RemovedFile | None = None
    txn: Any = None
    meta_data: Any = None
    protocol: Any = None
    commit_info: dict[str, Any] | None = None


def actions_of(commit: bytes) -> list[Action]:
    """The actions that the content of a commit file says.

    Raises:
        msgspec.DecodeError: It is no commit, or not a whole one.
    """
    return [_decode_action(line) for line in commit.splitlines()]


_decode_action = msgspec.json.Decoder(Action).decode


def sync_versions(table: Path, first: int, last: int, *, own_data: Iterable[int] = ()) -> None:
    """Make versions *first* to *last* of *table* outlive a power cut.

    Args:
        table: The table's directory.
        first: The lowest version.
        last: The highest version.
        own_data: Versions whose data files are on the disk already.

    A version that a clean-up removed meanwhile is passed over: a synced checkpoint stands for it.
    """
    synced = set(own_data)
    folders: set[Path] = set()
    for version in range(first, last + 1):
        path = commit_path(table, version)
        with contextlib.suppress(FileNotFoundError):
            if version not in synced:
                for added in (action.add for action in actions_of(path.read_bytes()) if action.add):
                    with contextlib.suppress(FileNotFoundError):  # compacted and vacuumed since
                        sync_file(table / added.name)
                        folders.add((table / added.name).parent)
            sync_file(path)
    for folder in sorted(folders):
        sync_folder(folder)
    if folders:
        sync_folder(table)
    sync_folder(table / LOG_FOLDER)


class Synced(msgspec.Struct, frozen=True):
    """Which checkpoints are known to be on the disk: file names with their SHA-256.

    Nothing in a checkpoint would show that a page in its middle was never written.
    """

    checkpoints: dict[str, str] = {}


def read_synced(table: Path) -> Synced:
    """What is known of the checkpoints of *table*."""
    try:
        return msgspec.json.decode((table / SYNCED).read_bytes(), type=Synced)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Synced()


def sync_checkpoint(table: Path) -> None:
    """Make the newest checkpoint of *table* outlive a power cut, then the pointer to it, then say so in `SYNCED`."""
    log = table / LOG_FOLDER
    newest = max((path.name.partition(".")[0] for path in log.glob("*.checkpoint*.parquet")), default="")
    if not newest:
        return
    known = read_synced(table).checkpoints
    hashes = {name: digest for name, digest in known.items() if (log / name).exists()}
    for path in log.glob(f"{newest}.checkpoint*.parquet"):
        sync_file(path)
        hashes[path.name] = sha256(path.read_bytes()).hexdigest()
    sync_folder(log)
    with contextlib.suppress(FileNotFoundError):
        sync_file(log / LAST_CHECKPOINT)
    if hashes != known:
        temporary = table / f"{SYNCED}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        write_new(temporary, msgspec.json.encode(Synced(hashes)))
        temporary.rename(table / SYNCED)
        sync_folder(table)


def forget_versions(table: Path, kept: int) -> int:
    """Remove what a synced checkpoint stands for, but the newest *kept* versions; how many files went.

    Whoever lists the log pays for every file in it: with ten thousand commits a commit costs four times as much. The
    oldest go first, so that what is left has no gap wherever this ends.
    """
    log = table / LOG_FOLDER
    synced = max((int(name[:20]) for name in read_synced(table).checkpoints), default=-1)
    found = sorted(
        (int(path.name[:20]), path)
        for path in log.glob("[0-9]*")
        if path.name[:20].isdigit() and path.name[20:21] == "."
    )
    old = [path for version, path in found if version < synced - kept]
    for path in old:
        path.unlink(missing_ok=True)  # a rival may be at it too
    if old:
        sync_folder(log)
    return len(old)
