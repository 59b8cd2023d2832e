"""Whether a projector carries a log into a lake, and how far it is: a note beside the log's directory.

Promise: a note is held by a lock that dies with its process, so that `is_projected` needs no process id and is
never misled by a projector that was killed. The note's text says what the projector said last; its numbers are for
people. In the log itself nothing is written: every file there is evidence.

Limits: this is advice. That each row is in the lake exactly once rests on the lake alone, also with several
projectors of one log; where the folder around the log may not be written, nobody can be told and nothing else changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from hashlib import sha256
from pathlib import Path

import msgspec

_NOTE_BYTES = 4096
_PATIENCE_SECS = (0.0, 0.02, 0.05)
"""A reader that looks at the lock holds it for a moment; whoever wants to keep it asks again."""


class ProjectorNote(msgspec.Struct, frozen=True, kw_only=True):
    """What a projector says of itself.

    Attributes:
        pid: Its process.
        lake: Where it writes.
        log_id: The log.
        covered: The sequence up to which every table holds the log's rows.
        durable: The log's highest durable sequence when it looked.
        commits: How many commits it made since it started.
        beat_ns: When it said this, UTC nanoseconds.
        trouble: What keeps it from going on, or "".
    """

    pid: int
    lake: str
    log_id: str
    covered: int
    durable: int
    commits: int
    beat_ns: int
    trouble: str = ""


def note_path(log: Path, lake: str) -> Path:
    """Where the note of a projector from *log* into *lake* is kept."""
    place = lake if "://" in lake else str(Path(lake).expanduser().absolute())
    directory = log.absolute()
    return directory.parent / f".{directory.name}.projector-{sha256(place.encode()).hexdigest()[:12]}"


def is_projected(log: Path, lake: str) -> bool:
    """Whether a projector from *log* into *lake* runs on this machine now."""
    try:
        descriptor = os.open(note_path(log, lake), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_note(log: Path, lake: str) -> ProjectorNote | None:
    """What the projector from *log* into *lake* said last; None where none ever ran, or its words cannot be read."""
    try:
        with note_path(log, lake).open("rb") as file:
            return msgspec.json.decode(file.read(_NOTE_BYTES), type=ProjectorNote)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


class ProjectorClaim:
    """The held note of a running projector."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, log: Path, lake: str) -> ProjectorClaim | None:
        """Hold the note; None where another projector holds it, or it cannot be written."""
        path = note_path(log, lake)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o600)
        except OSError:
            return None
        for wait in _PATIENCE_SECS:
            time.sleep(wait)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            return cls(descriptor)
        os.close(descriptor)
        return None

    def say(self, note: ProjectorNote) -> None:
        """Replace the note's text; what the disk refuses is not said."""
        with contextlib.suppress(OSError):
            data = msgspec.json.encode(note).ljust(os.fstat(self._descriptor).st_size)
            os.pwrite(self._descriptor, data[:_NOTE_BYTES], 0)

    def release(self) -> None:
        """Let go of the note; its text stays."""
        os.close(self._descriptor)
