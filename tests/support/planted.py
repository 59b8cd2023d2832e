"""Each way to get a write-ahead log wrong, planted in a copy of the real one.

A mutant is the real log with one step of one promise broken. `CRASH_BUGS` are those that a power cut can show; the
simulated disk and the ext4 image must both find them. `SIMULATED_ONLY` says which of them ext4 forgives, and why.
"""

from __future__ import annotations

import errno
from typing import ClassVar
from unittest import mock

from support.crash import LogClass, SteppedLog

from holdfast.audit import recovery
from holdfast.audit.head import Head
from holdfast.audit.recovery import Verdict

FOCUS: dict[str, tuple[str, ...]] = {
    "CallsDurableWhatOnlyBegan": ("overlapping",),
    "NeverStopsSayingClosed": ("reopen",),
    "CutsWithoutClearing": ("many",),
    "NeverRewrites": ("die",),
    "OrdersByFileName": ("back", "rotate"),
    "EveryBadLineIsCorruption": ("many",),
    "NoRepair": ("many", "die"),
    "HeadBeforeSync": ("durable",),
    "DirectoryNotSynced": ("rotate",),
}
"""What happens more often in the stories of a mutant, so that few of them find it."""


class _Unsynced:
    """A file whose sync does nothing."""

    def __init__(self, file):
        self.name = file.name

    def fdatasync(self) -> None:
        pass


class NoFsync(SteppedLog):
    """Acknowledges without any sync."""

    def _acknowledge(self, file, target, end) -> None:
        super()._acknowledge(_Unsynced(file), target, end)


class AcknowledgesBeforeSync(SteppedLog):
    """Says "durable" to the caller, and syncs before the next batch."""

    _owed = None
    _is_own = False

    def _acknowledge(self, file, target, end) -> None:
        if self._is_own:
            super()._acknowledge(file, target, end)
        else:
            self._owed = file, target, end, self._aim
            self._durable = target

    def _pay(self) -> None:
        if self._owed is not None:
            file, target, end, self._aim = self._owed
            self._owed = None
            super()._acknowledge(file, target, end)

    def _write_lines(self, items, first):
        self._pay()
        return super()._write_lines(items, first)

    def _begin_segment(self, ts, seq) -> None:
        self._pay()
        super()._begin_segment(ts, seq)

    def _write_own(self, *told) -> None:
        self._is_own = True
        super()._write_own(*told)
        self._is_own = False


class HeadBeforeSync(SteppedLog):
    """Moves the head, then syncs."""

    def _acknowledge(self, file, target, end) -> None:
        self._head.write(target, file.name, end)
        super()._acknowledge(file, target, end)


class CheckpointBeforeSync(SteppedLog):
    """Signs and publishes what is written, then syncs it."""

    def _acknowledge(self, file, target, end) -> None:
        signer = self._signer
        if signer is not None and signer.key is not None and not signer._changing:
            signer._reach = self._aim
            signer.cover()
        super()._acknowledge(file, target, end)


class CallsDurableWhatOnlyBegan(SteppedLog):
    """Counts records that were written while the sync ran as covered by it."""

    def _acknowledge(self, file, target, end) -> None:
        super()._acknowledge(file, target, end)
        self._head.write(self._written, file.name, self._segment.end)
        self._durable = self._written


class DirectoryNotSynced(SteppedLog):
    """Creates a segment without syncing the directory."""

    def _begin_segment(self, ts, seq) -> None:
        home, real_sync = self._home, self._home.sync
        home.sync = lambda: None
        try:
            super()._begin_segment(ts, seq)
        finally:
            home.sync = real_sync


class NeverStopsSayingClosed(SteppedLog):
    """Changes a closed log before its head durably says "open"."""

    def _recover(self, *told, **named):
        with mock.patch.object(Head, "flush"):
            return super()._recover(*told, **named)


class RecoversWrong(SteppedLog):
    """Recovers with parts of recovery.py replaced."""

    parts: ClassVar[dict] = {}

    def _open_in(self, home):
        with mock.patch.multiple(recovery, **self.parts):
            return super()._open_in(home)


class CutsWithoutClearing(RecoversWrong):
    """Forgets the tail, without overwriting it with filler."""

    parts: ClassVar[dict] = {"_clear": lambda *_: None}


class NeverRewrites(RecoversWrong):
    """Keeps what reads back from the page cache without writing it to the disk."""

    parts: ClassVar[dict] = {"_rewrite_kept": lambda *_: None}


class NoRepair(RecoversWrong):
    """Appends behind the torn tail."""

    parts: ClassVar[dict] = {"repair": lambda *_: recovery.Repair(0, [])}

    def _take_up(self, home, found, head) -> None:
        super()._take_up(home, found, head)
        if found.tails and found.tails[0].segment == found.place[0]:
            self._segment.end = found.place[1] + len(found.tails[0].content)


class OrdersByFileName(RecoversWrong):
    """Trusts the time in the names of the segments."""

    parts: ClassVar[dict] = {
        "log_segments": lambda directory: [
            parsed
            for parsed in map(recovery.parse_segment_name, sorted(directory.names()))
            if parsed is not None
        ]
    }


class EveryBadLineIsCorruption(RecoversWrong):
    """Takes every torn tail for damage."""

    parts: ClassVar[dict] = {
        "decide": lambda first_missing, known_durable, *, only_filler, closed: (
            Verdict.INTACT if only_filler else Verdict.CORRUPT
        )
    }


class BadLineIsATornTail(RecoversWrong):
    """Decides by what stands behind the bad line instead of by what is known to be durable."""

    parts: ClassVar[dict] = {
        "decide": lambda first_missing, known_durable, *, only_filler, closed: (
            Verdict.INTACT if only_filler else Verdict.TORN
        )
    }


class SyncRetried(SteppedLog):
    """Tries a failed sync again, and believes the success."""

    def _acknowledge(self, file, target, end) -> None:
        try:
            super()._acknowledge(file, target, end)
        except OSError:
            super()._acknowledge(file, target, end)


CRASH_BUGS: list[LogClass] = [
    NoFsync,
    AcknowledgesBeforeSync,
    HeadBeforeSync,
    CheckpointBeforeSync,
    CallsDurableWhatOnlyBegan,
    DirectoryNotSynced,
    NeverStopsSayingClosed,
    CutsWithoutClearing,
    NeverRewrites,
    NoRepair,
    OrdersByFileName,
    EveryBadLineIsCorruption,
]
SIMULATED_ONLY = {
    DirectoryNotSynced: "the fsync of a new file commits its name too on ext4",
    CallsDurableWhatOnlyBegan: "a write that overlaps a sync is placed behind it on the image",
}

NAMING = {"create", "subdirectory", "rename"}
FAULTS: dict[str, dict] = {
    "EIO once": {"error": errno.EIO},
    "EIO for ever": {"error": errno.EIO, "forever": True},
    "ENOSPC once": {"error": errno.ENOSPC},
    "ENOSPC for ever": {"error": errno.ENOSPC, "forever": True},
    "short write": {"error": "short"},
    "no inodes": {"error": errno.ENOSPC, "forever": True, "counts": lambda operation, _: operation in NAMING},
}
"""What a `FaultyStorage` is told, by name."""
