"""Why a log is refused to a writer: who holds it, by a note of his process id, or what the disk said.

The lock is flock on the directory; this note under `run/` is only a courtesy. It is no evidence, it is not
synced, and losing it loses nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection
from pathlib import Path

from holdfast.audit.segment import NO_SPACE
from holdfast.audit.storage import Directory, Storage
from holdfast.core.errors import AuditError, DiskFull, LogHeld, LogUnwritable

RUN = "run"
PID = "pid"
_OWN = frozenset({"head", "checkpoint", "tile", "quarantine"})
NO_RIGHT = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_DIRECTORY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG})


def write_pid(home: Directory, pid: int) -> None:
    """Note that process *pid* writes the log in *home*."""
    with contextlib.suppress(OSError):
        run = home.subdirectory(RUN)
        try:
            try:
                file = run.create(PID)
            except FileExistsError:
                file = run.open(PID, writable=True)
            try:
                file.truncate(0)
                file.pwrite(b"%d\n" % pid, 0)
            finally:
                file.close()
        finally:
            run.close()


def holds_log(names: Collection[str]) -> bool:
    """Whether a directory with these *names* holds a log, or what is left of one."""
    return any(name in _OWN or name.startswith("audit_") for name in names)


def refuse_foreign(storage: Storage, directory: Path) -> None:
    """Refuse to begin a log among files that are not a log's: it would never verify, and they would lose readers.

    What cannot be looked at passes: whoever opens it says why.

    Raises:
        LogUnwritable: *directory* holds something, and no log.
    """
    try:
        home = storage.directory(directory, create=False)
    except (OSError, LogUnwritable):
        return
    try:
        names = home.names()
    finally:
        home.close()
    others = sorted({*names} - {RUN})
    if others and not holds_log(names):
        raise LogUnwritable(
            f"no log can begin in {str(directory)!r}: it holds other things, such as {others[0]!r}",
            hint="choose a directory that is empty, or one that does not exist yet",
        )


def held(home: Directory) -> LogHeld:
    """The refusal of a second writer, with the first one's process id where it is known."""
    pid = read_pid(home)
    who = "another process" if pid is None else f"process {pid}"
    return LogHeld(
        f"audit log {str(home.path)!r} is held: {who} writes it",
        hint="stop it, or choose another directory",
    )


def read_pid(home: Directory) -> int | None:
    """The process that last wrote the log in *home*, if it noted itself and still lives."""
    try:
        if RUN not in home.names():
            return None
        run = home.subdirectory(RUN)
        try:
            file = run.open(PID)
            try:
                pid = int(file.pread(32, 0))
            finally:
                file.close()
        finally:
            run.close()
        if pid > 0:
            os.kill(pid, 0)
    except (OSError, ValueError, OverflowError):
        return None
    return pid if pid > 0 else None


def refused_keys(folder: Path, why: OSError) -> AuditError:
    """What a folder that cannot keep a log's keys is told as; the log was not touched."""
    what = f"no keys can be kept in {str(folder)!r}: {(why.strerror or str(why)).lower()}"
    if why.errno in NO_SPACE:
        return DiskFull(what, hint="free space on that volume, then start again")
    return LogUnwritable(
        what,
        hint="give this user the right to write there, or set HOLDFAST_HOME to a folder of this user's own",
    )


def refused_open(directory: Path, why: OSError) -> AuditError:
    """What a directory that cannot hold the log is told as."""
    what = f"audit log {str(directory)!r} cannot be opened: {(why.strerror or str(why)).lower()}"
    if why.errno in NO_SPACE:
        return DiskFull(what, hint="free space on that volume, then start again")
    if why.errno in NO_RIGHT:
        return LogUnwritable(
            what, hint="give this user the right to write there, or choose another directory"
        )
    if why.errno in _NO_DIRECTORY:
        return LogUnwritable(what, hint="check each part of the path, or choose another directory")
    return AuditError(what, hint="check the disk and the path")
