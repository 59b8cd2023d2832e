"""Everything the log does to a disk, as a protocol, and the real disk.

The log, its recovery and its sealing touch files only through a `Directory`, so that tests can put a disk
there which fails at the n-th call or forgets what was not synced. `LocalStorage` is the one for real disks:
directories 0700, files 0600, every open with O_NOFOLLOW and O_CLOEXEC relative to one directory descriptor, so
that nobody swaps a path for a link between two calls. Names are single path components.

Not promised: network file systems (flock and fdatasync mean less there), and disks that acknowledge a flush
they did not make.
"""

# ruff: noqa: D102  the protocols document the methods of the classes that keep them

from __future__ import annotations

import fcntl
import grp
import mmap
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from holdfast.core.errors import BadInput, LogUnwritable

PAGE_BYTES = 4096

_SYNC_THREADS = 8


class File(Protocol):
    """One open file."""

    @property
    def name(self) -> str:
        """Its name in its directory when it was opened."""
        ...

    def pwrite(self, data: bytes, offset: int) -> int:
        """Write at *offset*; return how many bytes were taken, which may be fewer than given."""
        ...

    def pread(self, size: int, offset: int) -> bytes:
        """At most *size* bytes from *offset*; empty at the end."""
        ...

    def size(self) -> int:
        """Its length in bytes."""
        ...

    def mode(self) -> int:
        """Who may read and write it, as chmod takes it."""
        ...

    def truncate(self, size: int) -> None:
        """Cut it to *size* bytes."""
        ...

    def fdatasync(self) -> None:
        """Return once the content, and what is needed to read it back, is on the disk."""
        ...

    def fsync(self) -> None:
        """Return once content and metadata are on the disk."""
        ...

    def close(self) -> None:
        """Give up the descriptor; a second call does nothing."""
        ...


class Page(Protocol):
    """A small file mapped into memory: what is written is seen at once by every process on the machine."""

    def read(self) -> bytes:
        """The whole page."""
        ...

    def write(self, data: bytes, offset: int) -> None:
        """Change part of it; no sector is torn by a crash, but the change is durable only after `flush`."""
        ...

    def flush(self) -> None:
        """Return once the page is on the disk."""
        ...

    def close(self) -> None:
        """Unmap it; a second call does nothing."""
        ...


class Directory(Protocol):
    """One open directory; every name is relative to it."""

    @property
    def path(self) -> Path:
        """Where it is, for messages."""
        ...

    def names(self) -> list[str]:
        """What it holds, in no order."""
        ...

    def create(self, name: str) -> File:
        """Create a file of mode 0600 (0640 in a shared directory) that does not exist yet, open for both ways."""
        ...

    def open(self, name: str, *, writable: bool = False) -> File:
        """Open an existing regular file; a link is refused."""
        ...

    def map_page(self, name: str) -> Page:
        """Map the first `PAGE_BYTES` of an existing file, for reading and writing."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing *new*; durable after `sync`."""
        ...

    def unlink(self, name: str) -> None:
        """Remove a name; durable after `sync`."""
        ...

    def subdirectory(self, name: str) -> Directory:
        """A directory inside it, created with mode 0700 where it is missing."""
        ...

    def sync(self) -> None:
        """Return once creations, renames and removals in it are on the disk."""
        ...

    def try_lock(self) -> bool:
        """Take the one lock on it, without waiting; False when another process or log has it."""
        ...

    def close(self) -> None:
        """Give up descriptor and lock; a second call does nothing."""
        ...


class Storage(Protocol):
    """Where directories come from."""

    def directory(self, path: Path, *, create: bool) -> Directory:
        """Open *path*; with *create*, make it and its parents where they are missing.

        Raises:
            FileNotFoundError: It does not exist and was not to be created.
            LogUnwritable: It may not be trusted with a log; the message says why.
        """
        ...


class LocalFile:
    """A file on the real disk."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._fd = fd

    def pwrite(self, data: bytes, offset: int) -> int:
        return os.pwrite(self._fd, data, offset)

    def pread(self, size: int, offset: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def mode(self) -> int:
        return stat.S_IMODE(os.fstat(self._fd).st_mode)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def fdatasync(self) -> None:
        _sync_data(self._fd)

    def fsync(self) -> None:
        _sync_all(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LocalPage:
    """A mapped page of the real disk."""

    def __init__(self, fd: int) -> None:
        try:
            if os.fstat(fd).st_size < PAGE_BYTES:
                # Mapping beyond the end of a file kills the process at the first touch.
                raise OSError(f"file is shorter than {PAGE_BYTES} bytes")
            self._map = mmap.mmap(fd, PAGE_BYTES)
        finally:
            os.close(fd)

    def read(self) -> bytes:
        return self._map[:]

    def write(self, data: bytes, offset: int) -> None:
        self._map[offset : offset + len(data)] = data

    def flush(self) -> None:
        self._map.flush()

    def close(self) -> None:
        self._map.close()


class LocalDirectory:
    """A directory of the real disk."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        # A directory that its group may read (`share_with_group`) holds files that its group may read.
        shared = os.fstat(fd).st_mode & 0o050 == 0o050
        self._file_mode, self._directory_mode = (0o640, 0o2750) if shared else (0o600, 0o700)

    def names(self) -> list[str]:
        return os.listdir(self._fd)  # noqa: PTH208  a descriptor has no Path

    def create(self, name: str) -> LocalFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_component(name), flags, 0o600, dir_fd=self._fd)
        os.fchmod(fd, self._file_mode)
        return LocalFile(name, fd)

    def open(self, name: str, *, writable: bool = False) -> LocalFile:
        # O_NONBLOCK: somebody may have put a pipe there, and opening it must not wait.
        access = os.O_RDWR if writable else os.O_RDONLY
        flags = access | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(_component(name), flags, dir_fd=self._fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"not a regular file: {self.path / name}")
        return LocalFile(name, fd)

    def map_page(self, name: str) -> LocalPage:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        return LocalPage(os.open(_component(name), flags, dir_fd=self._fd))

    def rename(self, old: str, new: str) -> None:
        os.rename(_component(old), _component(new), src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def unlink(self, name: str) -> None:
        os.unlink(_component(name), dir_fd=self._fd)

    def subdirectory(self, name: str) -> LocalDirectory:
        try:
            os.mkdir(_component(name), 0o700, dir_fd=self._fd)
            os.chmod(name, self._directory_mode, dir_fd=self._fd)
            self.sync()
        except FileExistsError:
            pass
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return LocalDirectory(self.path / name, os.open(name, flags, dir_fd=self._fd))

    def sync(self) -> None:
        _sync_all(self._fd)

    def try_lock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def fsync_all(files: Sequence[File]) -> None:
    """Return once all *files* are on the disk.

    Many files of the real disk are synced from a few threads, because the file system writes what waits together at
    once: a thousand small ones take a quarter of the time.

    Raises:
        OSError: One of them could not be synced; all were tried, none twice.
    """
    failures: list[OSError] = []

    def work(part: Sequence[File]) -> None:
        for file in part:
            try:
                file.fsync()
            except OSError as why:
                failures.append(why)

    threads: list[threading.Thread] = []
    rest = files
    if len(files) > _SYNC_THREADS and all(isinstance(file, LocalFile) for file in files):
        parts = [files[start::_SYNC_THREADS] for start in range(_SYNC_THREADS)]
        rest = parts[0]
        for part in parts[1:]:
            thread = threading.Thread(target=work, args=(part,))
            try:
                thread.start()
                threads.append(thread)
            except RuntimeError:  # the interpreter is ending and starts no thread any more
                rest = [*rest, *part]
    work(rest)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def share_with_group(path: Path, group: str) -> None:
    """Let *group* read the log *path*, which is made where it is missing; later files inherit the right.

    Raises:
        BadInput: There is no such group.
        LogUnwritable: The directory or a file in it belongs to another user, or we are not of that group.
    """
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        raise BadInput(
            f"group {group!r} does not exist", hint="`getent group` lists the groups here"
        ) from None
    LocalStorage().directory(path, create=True).close()
    try:
        for folder, _, files in os.walk(path):
            os.chown(folder, -1, gid, follow_symlinks=False)
            os.chmod(folder, 0o2750)  # noqa: PTH101, S103  the walk gives text; reading is what was asked for
            for name in files:
                os.chown(Path(folder, name), -1, gid, follow_symlinks=False)
                os.chmod(Path(folder, name), 0o640)  # noqa: PTH101  beside its chown
    except PermissionError as why:
        raise LogUnwritable(
            f"log {str(path)!r} cannot be given to group {group!r}: {why.strerror}",
            hint="its owner, a member of that group, can",
        ) from why


class LocalStorage:
    """The machine's own disks."""

    def directory(self, path: Path, *, create: bool) -> LocalDirectory:
        """Open the log directory *path*.

        With *create* the path is made where it is missing and a mode wider than 0750 is narrowed to 0700.
        """
        path = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow the links we refuse
        _refuse_unsafe_parents(path)
        if create:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as why:
                raise LogUnwritable(
                    f"log directory refused: {str(path)!r} lies below something that is not a directory",
                    hint=_ELSEWHERE,
                ) from why
            try:
                path.mkdir(mode=0o700)
                _sync_parent(path)
            except FileExistsError:
                pass
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except NotADirectoryError as why:
            kind = "a link" if path.is_symlink() else "not a directory"
            raise LogUnwritable(f"log directory refused: {str(path)!r} is {kind}", hint=_ELSEWHERE) from why
        except OSError as why:
            if path.is_symlink():
                raise LogUnwritable(
                    f"log directory refused: {str(path)!r} is a link", hint=_ELSEWHERE
                ) from why
            raise
        mode = os.fstat(fd).st_mode
        if create and mode & stat.S_ISVTX:
            os.close(fd)
            raise LogUnwritable(
                f"log directory refused: {str(path)!r} is shared by all users (mode={stat.S_IMODE(mode):04o})",
                hint="choose a directory inside it",
            )
        if create and mode & 0o027:
            try:
                os.fchmod(fd, 0o700)
            except PermissionError as why:
                os.close(fd)
                raise LogUnwritable(
                    f"log directory refused: {str(path)!r} belongs to another user", hint=_ELSEWHERE
                ) from why
        return LocalDirectory(path, fd)


def _component(name: str) -> str:
    if not name or "/" in name or name in {".", ".."}:
        raise ValueError(f"not a file name: {name!r}")
    return name


def _refuse_unsafe_parents(path: Path) -> None:
    """Refuse a directory above the log where others could swap the log for another.

    A world-writable directory passes with the sticky bit, a group-writable one for the user's primary group:
    a temporary directory and the umask 002 of many systems.
    """
    own_group = os.getgid()
    above = Path(os.path.realpath(path.parent))
    for directory in (above, *above.parents):
        try:
            facts = directory.stat()
        except FileNotFoundError:
            continue
        if facts.st_mode & stat.S_ISVTX:
            continue
        if facts.st_mode & stat.S_IWOTH:
            why = "anyone may write to it"
        elif facts.st_mode & stat.S_IWGRP and facts.st_gid != own_group:
            why = f"group {facts.st_gid} may write to it, which is not your primary group {own_group}"
        else:
            continue
        mode = f"{stat.S_IMODE(facts.st_mode):04o}"
        raise LogUnwritable(
            f"log directory refused: {str(directory)!r} above it is unsafe, {why} (mode={mode})",
            hint=f"chmod go-w {directory}, or keep the log elsewhere",
        )


def _sync_parent(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _sync_all(fd)
    finally:
        os.close(fd)


_ELSEWHERE = "choose another directory for the log"
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)


def _full_sync(fd: int) -> None:
    fcntl.fcntl(fd, cast("int", _FULL_SYNC))


# On macOS fsync leaves the data in the drive's cache.
_sync_data = os.fdatasync if _FULL_SYNC is None else _full_sync
_sync_all = os.fsync if _FULL_SYNC is None else _full_sync
