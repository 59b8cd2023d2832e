"""Disks for tests: one that forgets what was not synced, one that fails at the call you choose.

`SimulatedStorage` keeps files in memory and remembers, per sector of 512 bytes, every content that a crash at
this moment may leave: the synced one and each one written since. `after_power_cut` draws one such state: any
version of every sector, sizes and directory entries as of some moment since their last sync, holes read as
zeros. `after_kill` keeps what the processes saw, and still owes the disk what was not synced. A write that
happens while a sync runs (see `during_sync`) is not covered by that sync. A failed sync drops the data, as
Linux does: the cache still shows it, no later sync writes it.

`FaultyStorage` wraps any storage and makes a chosen call fail with an errno, or write only half.

Neither is safe for several threads at once.
"""

# ruff: noqa: D102  holdfast.audit.storage documents the methods of these protocols

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from holdfast.audit.storage import PAGE_BYTES, Directory, File, Page, Storage

SECTOR = 512


class _Inode:
    """A file: what reads show, what is synced, and what may have reached the disk in between."""

    def __init__(self) -> None:
        self.cache = bytearray()
        self.synced = b""
        self.versions: dict[int, list[bytes]] = {}
        self.sizes: list[int] = []
        self.is_true = True  # whether the cache shows what the disk has or still owes

    def copy(self) -> _Inode:
        twin = _Inode()
        twin.cache, twin.synced = bytearray(self.cache), self.synced
        twin.versions = {sector: list(known) for sector, known in self.versions.items()}
        twin.sizes = list(self.sizes)
        twin.is_true = self.is_true
        return twin

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if end > len(self.cache):
            self.cache.extend(bytes(end - len(self.cache)))
            self.sizes.append(end)
        self.cache[offset:end] = data
        for sector in range(offset // SECTOR, -(-end // SECTOR)):
            content = bytes(self.cache[sector * SECTOR : (sector + 1) * SECTOR])
            self.versions.setdefault(sector, []).append(content)

    def truncate(self, size: int) -> None:
        del self.cache[size:]
        self.cache.extend(bytes(size - len(self.cache)))
        self.sizes.append(size)

    def sync(self, during: Callable[[], None] | None) -> None:
        if during is None and self.is_true:
            if self.versions or self.sizes:
                self.synced = bytes(self.cache)
                self.versions, self.sizes = {}, []
            return
        covered = {sector: len(known) for sector, known in self.versions.items()}
        content, sizes = bytes(self.cache), len(self.sizes)
        if during is not None:
            during()
        base = bytearray(self.synced[: len(content)].ljust(len(content), b"\0"))
        for sector, count in covered.items():
            start = sector * SECTOR
            base[start : start + SECTOR] = content[start : start + SECTOR]
            left = self.versions[sector][count:]
            if left:
                self.versions[sector] = left
            else:
                del self.versions[sector]
        self.synced = bytes(base)
        del self.sizes[:sizes]

    def forget_unsynced(self) -> None:
        """What a failed sync does: nothing is dirty any more, and nothing was written."""
        self.versions.clear()
        self.sizes.clear()
        self.is_true = False

    def after_power_cut(self, random: Random) -> _Inode:
        if not (self.versions or self.sizes):
            twin = _Inode()
            twin.cache, twin.synced = bytearray(self.synced), self.synced
            return twin
        size = random.choice([len(self.synced), *self.sizes])
        content = bytearray(self.synced[:size].ljust(size, b"\0"))
        for sector, known in self.versions.items():
            start = sector * SECTOR
            choice = random.randrange(-1, len(known))
            if start < size and choice >= 0:
                version = known[choice][: size - start]
                content[start : start + len(version)] = version
        twin = _Inode()
        twin.cache, twin.synced = content, bytes(content)
        return twin


_Names = dict[str, "_Inode | _Folder"]


class _Folder:
    """A directory: its names now, as synced, and after each change since."""

    def __init__(self) -> None:
        self.names: _Names = {}
        self.states: list[_Names] = [{}]
        self.locked = False

    def changed(self) -> None:
        self.states.append(dict(self.names))

    def sync(self) -> None:
        self.states = [dict(self.names)]

    def rebuilt(
        self, names: _Names, convert: Callable[[_Inode], _Inode], inner: Callable[[_Folder], _Folder]
    ) -> None:
        for name, entry in names.items():
            self.names[name] = inner(entry) if isinstance(entry, _Folder) else convert(entry)
        self.states = [dict(self.names)]

    def after_power_cut(self, random: Random) -> _Folder:
        twin = _Folder()
        twin.rebuilt(
            random.choice(self.states),
            lambda inode: inode.after_power_cut(random),
            lambda folder: folder.after_power_cut(random),
        )
        return twin

    def fingerprint(self) -> tuple[tuple[str, object], ...]:
        return tuple(
            (name, entry.fingerprint() if isinstance(entry, _Folder) else bytes(entry.cache))
            for name, entry in sorted(self.names.items())
        )

    def after_kill(self) -> _Folder:
        twin = _Folder()
        known: dict[int, _Inode | _Folder] = {}

        def copied(entry: _Inode | _Folder) -> _Inode | _Folder:
            if id(entry) not in known:
                known[id(entry)] = entry.copy() if isinstance(entry, _Inode) else entry.after_kill()
            return known[id(entry)]

        twin.states = [{name: copied(entry) for name, entry in state.items()} for state in self.states]
        twin.names = {name: copied(entry) for name, entry in self.names.items()}
        return twin


class SimulatedStorage:
    """A disk in memory that can be crashed at any call.

    Attributes:
        on_call: Called before every operation with its name and the file's, for instance ("fdatasync", "head");
            it may raise, and it may draw crash states.
        during_sync: Called in the middle of the next fdatasync, once; what it writes overlaps the sync.
        calls: How many operations there were.
    """

    def __init__(self) -> None:
        self._root = _Folder()
        self.on_call: Callable[[str, str], None] | None = None
        self.during_sync: Callable[[], None] | None = None
        self.calls = 0

    def called(self, operation: str, name: str) -> None:
        """Count an operation and let `on_call` see it."""
        self.calls += 1
        if self.on_call is not None:
            self.on_call(operation, name)

    def directory(self, path: Path, *, create: bool) -> SimulatedDirectory:
        self.called("directory", path.name)
        folder = self._root.names.get(str(path))
        if folder is None and create:
            folder = self._root.names[str(path)] = _Folder()
            self._root.sync()
        if not isinstance(folder, _Folder):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return SimulatedDirectory(self, (path, ""), folder)

    def after_power_cut(self, random: Random) -> SimulatedStorage:
        """The disk that the next boot finds, one of the possible ones."""
        twin = SimulatedStorage()
        twin._root = self._root.after_power_cut(random)
        return twin

    def after_kill(self) -> SimulatedStorage:
        """The disk that the next process finds: the same content, and the same debts."""
        twin = SimulatedStorage()
        twin._root = self._root.after_kill()
        return twin

    def fingerprint(self) -> int:
        """A number that two disks share when a reader finds the same on both."""
        return hash(self._root.fingerprint())

    def release(self) -> None:
        """Nothing is held; a disk of another kind may hold something."""

    def content(self, path: Path) -> dict[str, bytearray]:
        """The files of a directory as reads show them; the arrays are the disk's own, to damage it."""
        folder = self._root.names.get(str(path)) or self._root.names[str(path.parent)]
        if isinstance(folder, _Folder) and str(path) not in self._root.names:
            folder = folder.names[path.name]
        if not isinstance(folder, _Folder):
            raise NotADirectoryError(str(path))
        return {name: inode.cache for name, inode in folder.names.items() if isinstance(inode, _Inode)}


class SimulatedDirectory:
    """A directory of a `SimulatedStorage`."""

    def __init__(self, disk: SimulatedStorage, place: tuple[Path, str], folder: _Folder) -> None:
        self._place = place
        self._disk = disk
        self._folder = folder
        self._holds_lock = False

    @property
    def path(self) -> Path:
        above, name = self._place
        return above / name if name else above

    def _inode(self, name: str) -> _Inode:
        inode = self._folder.names.get(name)
        if not isinstance(inode, _Inode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return inode

    def names(self) -> list[str]:
        self._disk.called("names", "")
        return list(self._folder.names)

    def create(self, name: str) -> SimulatedFile:
        self._disk.called("create", name)
        if name in self._folder.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        inode = self._folder.names[name] = _Inode()
        self._folder.changed()
        return SimulatedFile(self._disk, name, inode)

    def open(self, name: str, *, writable: bool = False) -> SimulatedFile:
        self._disk.called("open for writing" if writable else "open", name)
        return SimulatedFile(self._disk, name, self._inode(name))

    def map_page(self, name: str) -> SimulatedPage:
        self._disk.called("map", name)
        return SimulatedPage(self._disk, name, self._inode(name))

    def rename(self, old: str, new: str) -> None:
        self._disk.called("rename", old)
        self._folder.names[new] = self._inode(old)
        del self._folder.names[old]
        self._folder.changed()

    def unlink(self, name: str) -> None:
        self._disk.called("unlink", name)
        self._inode(name)
        del self._folder.names[name]
        self._folder.changed()

    def subdirectory(self, name: str) -> SimulatedDirectory:
        self._disk.called("subdirectory", name)
        folder = self._folder.names.get(name)
        if folder is None:
            folder = self._folder.names[name] = _Folder()
            self._folder.changed()
            self._folder.sync()
        if not isinstance(folder, _Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        return SimulatedDirectory(
            self._disk, (self._place[0], f"{self._place[1]}/{name}".lstrip("/")), folder
        )

    def sync(self) -> None:
        self._disk.called("sync directory", "")
        self._folder.sync()

    def try_lock(self) -> bool:
        self._disk.called("lock", "")
        if self._folder.locked:
            return False
        self._folder.locked = self._holds_lock = True
        return True

    def close(self) -> None:
        if self._holds_lock:
            self._folder.locked = self._holds_lock = False


class SimulatedFile:
    """A file of a `SimulatedStorage`."""

    def __init__(self, disk: SimulatedStorage, name: str, inode: _Inode) -> None:
        self.name = name
        self._disk = disk
        self._inode = inode

    def pwrite(self, data: bytes, offset: int) -> int:
        self._disk.called("pwrite", self.name)
        self._inode.write(data, offset)
        return len(data)

    def pread(self, size: int, offset: int) -> bytes:
        self._disk.called("pread", self.name)
        return bytes(self._inode.cache[offset : offset + size])

    def size(self) -> int:
        return len(self._inode.cache)

    def mode(self) -> int:
        """Everything here is its owner's alone."""
        return 0o600

    def truncate(self, size: int) -> None:
        self._disk.called("truncate", self.name)
        self._inode.truncate(size)

    def fdatasync(self) -> None:
        self._sync("fdatasync")

    def fsync(self) -> None:
        self._sync("fsync")

    def _sync(self, operation: str) -> None:
        try:
            self._disk.called(operation, self.name)
        except OSError:
            self.forget_unsynced()
            raise
        during, self._disk.during_sync = self._disk.during_sync, None
        self._inode.sync(during)

    def forget_unsynced(self) -> None:
        """What a failed sync does: the cache still shows the data, and no later sync writes it."""
        self._inode.forget_unsynced()

    def close(self) -> None:
        """Nothing is held."""


class SimulatedPage:
    """A mapped page of a `SimulatedStorage`: stores are not system calls, so they are not counted."""

    def __init__(self, disk: SimulatedStorage, name: str, inode: _Inode) -> None:
        self._disk = disk
        self._name = name
        self._inode = inode

    def read(self) -> bytes:
        return bytes(self._inode.cache[:PAGE_BYTES])

    def write(self, data: bytes, offset: int) -> None:
        self._inode.write(data, offset)

    def flush(self) -> None:
        self._disk.called("flush", self._name)
        self._inode.sync(None)

    def close(self) -> None:
        """Nothing is held."""


class FaultyStorage:
    """Another storage, where the *fail_at*-th call fails.

    Only calls that a disk can refuse are counted: create, open, map, rename, unlink, subdirectory, directory
    sync, pwrite, pread, truncate, fdatasync, fsync and flush.

    Args:
        inner: The storage that does the work.
        fail_at: Which call, from 1; 0 lets everything pass.
        error: The errno, or "short" for a write that takes half; a call that writes nothing then fails with EIO.
        forever: Whether every later call fails too.
        counts: Which calls are counted, by operation and name; all of them by default.

    Attributes:
        calls: What was called, in order: operation and name.
        failed: The call that failed, or "".
    """

    def __init__(
        self,
        inner: Storage,
        *,
        fail_at: int = 0,
        error: int | str = errno.EIO,
        forever: bool = False,
        counts: Callable[[str, str], bool] = lambda _operation, _name: True,
    ) -> None:
        self._inner = inner
        self._counts = counts
        self._fail_at = fail_at
        self._error = error
        self._forever = forever
        self.calls: list[str] = []
        self.failed = ""

    def directory(self, path: Path, *, create: bool) -> Directory:
        return _FaultyDirectory(self, self._inner.directory(path, create=create))

    def take(self, operation: str, name: str, *, writes: bool = False) -> bool:
        """Count a call; raise where it is to fail, and return whether it is to write only half."""
        if not self._counts(operation, name):
            return False
        self.calls.append(f"{operation} {name}")
        number = len(self.calls)
        if not self._fail_at or number < self._fail_at or (number > self._fail_at and not self._forever):
            return False
        self.failed = self.failed or self.calls[-1]
        if self._error == "short" and writes:
            return True
        code = self._error if isinstance(self._error, int) else errno.EIO
        raise OSError(code, os.strerror(code), name)


class _FaultyDirectory:
    def __init__(self, faults: FaultyStorage, inner: Directory) -> None:
        self._faults = faults
        self._inner = inner

    @property
    def path(self) -> Path:
        return self._inner.path

    def names(self) -> list[str]:
        return self._inner.names()

    def create(self, name: str) -> File:
        self._faults.take("create", name)
        return _FaultyFile(self._faults, self._inner.create(name))

    def open(self, name: str, *, writable: bool = False) -> File:
        self._faults.take("open", name)
        return _FaultyFile(self._faults, self._inner.open(name, writable=writable))

    def map_page(self, name: str) -> Page:
        self._faults.take("map", name)
        return _FaultyPage(self._faults, name, self._inner.map_page(name))

    def rename(self, old: str, new: str) -> None:
        self._faults.take("rename", old)
        self._inner.rename(old, new)

    def unlink(self, name: str) -> None:
        self._faults.take("unlink", name)
        self._inner.unlink(name)

    def subdirectory(self, name: str) -> Directory:
        self._faults.take("subdirectory", name)
        return _FaultyDirectory(self._faults, self._inner.subdirectory(name))

    def sync(self) -> None:
        self._faults.take("sync directory", "")
        self._inner.sync()

    def try_lock(self) -> bool:
        return self._inner.try_lock()

    def close(self) -> None:
        self._inner.close()


class _FaultyFile:
    def __init__(self, faults: FaultyStorage, inner: File) -> None:
        self._faults = faults
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    def pwrite(self, data: bytes, offset: int) -> int:
        if self._faults.take("pwrite", self.name, writes=True):
            return self._inner.pwrite(data[: len(data) // 2], offset)
        return self._inner.pwrite(data, offset)

    def pread(self, size: int, offset: int) -> bytes:
        self._faults.take("pread", self.name)
        return self._inner.pread(size, offset)

    def size(self) -> int:
        return self._inner.size()

    def mode(self) -> int:
        return self._inner.mode()

    def truncate(self, size: int) -> None:
        self._faults.take("truncate", self.name)
        self._inner.truncate(size)

    def fdatasync(self) -> None:
        self._fail_sync("fdatasync")
        self._inner.fdatasync()

    def fsync(self) -> None:
        self._fail_sync("fsync")
        self._inner.fsync()

    def _fail_sync(self, operation: str) -> None:
        try:
            self._faults.take(operation, self.name)
        except OSError:
            if isinstance(self._inner, SimulatedFile):
                self._inner.forget_unsynced()
            raise

    def close(self) -> None:
        self._inner.close()


class _FaultyPage:
    def __init__(self, faults: FaultyStorage, name: str, inner: Page) -> None:
        self._faults = faults
        self._name = name
        self._inner = inner

    def read(self) -> bytes:
        return self._inner.read()

    def write(self, data: bytes, offset: int) -> None:
        self._inner.write(data, offset)

    def flush(self) -> None:
        self._faults.take("flush", self._name)
        self._inner.flush()

    def close(self) -> None:
        self._inner.close()
