"""A sink on another volume: one file for each log, to which checkpoints are appended.

Promise: `<directory>/<log id>.notes` only grows: it is opened for appending (so that `chattr +a` may be set on it),
0600, under a lock, and synced before the receipt is given. A checkpoint is appended only when it continues the last
one there; a log that went back is refused, and the file keeps the proof. The file reads like the log's own history:
signed notes, each followed by an empty line. What a power cut left of a last one is struck out with a control
character, which no note may hold: a signature cut short is never taken for a wrong one.

Limits: whoever can write to that volume can shorten the file; on a disk of the same machine that is whoever took
the machine. The directory is never made here: a volume that is not mounted must not look like an empty one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.anchors.sink import Outcome, Receipt, Submission, checkpoint_of, follows
from holdfast.anchors.wire import split_notes
from holdfast.audit.anchor import Mark
from holdfast.audit.note import Checkpoint
from holdfast.core.errors import AnchorUnreachable, BadInput

SUFFIX = ".notes"

_TAIL_BYTES = 1 << 20
_CANCEL = b"\x18\n\n"


class FileSink:
    """Checkpoints in a directory of another volume.

    Args:
        directory: Where; it must exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def name(self) -> str:
        """Kind and address."""
        return f"file:{self._directory}"

    def submit(self, submission: Submission) -> Receipt:
        """Append the checkpoint, unless the file shows that the log went back."""
        size = submission.checkpoint.size
        try:
            with self._open(submission.log_id, create=True) as fd:
                fcntl.flock(fd, fcntl.LOCK_EX)
                tail = _tail(fd)
                last = _newest(tail, submission.log_id)
                if last is not None:
                    why = follows(submission, Mark(last.size, last.root, self.name))
                    if why:
                        return Receipt(self.name, Outcome.WENT_BACK, size, why, known_size=last.size)
                if last is None or last.size < size:
                    ended = not tail or tail.endswith(b"\n\n")
                    _append(fd, (b"" if ended else _CANCEL) + submission.note + b"\n")
                os.fsync(fd)
        except (AnchorUnreachable, OSError) as why:
            return Receipt(self.name, Outcome.UNKNOWN, size, _reason(why))
        return Receipt(
            self.name, Outcome.ANCHORED, size, f"kept in {submission.log_id}{SUFFIX}", submission.note
        )

    def marks(self, log_id: str) -> Iterator[Mark]:
        """The last checkpoint in the log's file.

        Raises:
            AnchorUnreachable: The directory is not there, or cannot be read.
            BadInput: The file holds no checkpoint of this log.
        """
        try:
            with self._open(log_id, create=False) as fd:
                tail = _tail(fd)
        except FileNotFoundError:
            return  # the directory is there, the log was never anchored in it
        except OSError as why:
            raise AnchorUnreachable(f"sink {self.name!r} cannot be read: {_reason(why)}") from why
        if not tail:
            return  # made, and not yet written to
        last = _newest(tail, log_id)
        if last is None:
            raise BadInput(
                f"sink {self.name!r} holds no checkpoint of log {log_id} in {log_id}{SUFFIX}",
                hint="if another anchor confirms the log, move that file away",
            )
        yield Mark(last.size, last.root, f"{log_id}{SUFFIX} of sink {self.name!r}")

    @contextmanager
    def _open(self, log_id: str, *, create: bool) -> Generator[int]:
        try:
            folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as why:
            raise AnchorUnreachable(
                f"sink {self.name!r} is not there",
                hint="mount its volume; for a new sink: make the directory, mode 0700, on another volume",
            ) from why
        try:
            fd = _open_file(folder, f"{log_id}{SUFFIX}", create=create)
        finally:
            os.close(folder)
        try:
            yield fd
        finally:
            os.close(fd)


def _open_file(folder: int, name: str, *, create: bool) -> int:
    """The file's descriptor; a new file is durable in its directory before anything is written to it."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    if not create:
        fd = os.open(name, os.O_RDONLY | flags, dir_fd=folder)
    else:
        fd = os.open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT | flags, 0o600, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", name)
    if create and os.fstat(fd).st_size == 0:
        os.fsync(folder)
    return fd


def _append(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _tail(fd: int) -> bytes:
    """The last part of the file, from the beginning of a piece on."""
    size = os.fstat(fd).st_size
    start = max(0, size - _TAIL_BYTES)
    data = os.pread(fd, _TAIL_BYTES, start)
    return data if start == 0 else data[data.find(b"\n\n") + 2 :]


def _newest(tail: bytes, log_id: str) -> Checkpoint | None:
    for piece in reversed(split_notes(tail)):
        try:
            return checkpoint_of(piece, log_id)
        except BadInput:
            continue  # what a power cut left of a note
    return None


def _reason(why: Exception) -> str:
    if isinstance(why, OSError) and why.strerror:
        return why.strerror.lower()
    return str(why)
