"""What a log is at one moment: its locks, its queue, its files, whether it may be used, and how it ends.

Promise: whoever holds no lock reads nothing but single values; what changes together changes under one of the
locks, which are always taken in the order `_sync`, `_io`, `filling`, `_mutex`. A log is closed, open or poisoned, and
a poisoned one stays so: nothing is acknowledged, everybody who waits is told, the head says so.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Literal

from holdfast.audit.backlog import Backlog
from holdfast.audit.head import Head, HeadState
from holdfast.audit.keys import KeyHome
from holdfast.audit.segment import NO_SPACE, SegmentFile
from holdfast.audit.signing import NOWHERE, LogSigner
from holdfast.audit.storage import Directory
from holdfast.audit.tree import Frontier
from holdfast.audit.waiting import Batch
from holdfast.core.clock import Clock
from holdfast.core.errors import AuditError, AuditWriteError, DiskFull

MOST_LEAVES_BYTES = 1 << 20
"""Leaf hashes that are remembered, of 32,768 records."""


class LogState:
    """The queue, the segment and the head of one log, and the locks around them; see `wal.WriteAheadLog`."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        origin: str,
        rotate_bytes: int,
        buffer_bytes: int,
        overflow: Literal["wait", "gap"],
        random_bytes: Callable[[int], bytes],
        keys: KeyHome | None,
    ) -> None:
        self.directory = directory
        self._clock = clock
        self._origin = origin
        self._buffer_bytes = buffer_bytes
        self._overflow = overflow
        self._random_bytes = random_bytes
        self._keys = keys

        self._sync = threading.Lock()
        self._io = threading.Lock()
        self._mutex = threading.Lock()

        # Under _mutex.
        self._state: Literal["closed", "open", "poisoned"] = "closed"
        self._ended = False
        self._failure = ""
        self._queue = Backlog(rotate_bytes, signed=keys is not None)
        self._durable = 0
        self._batch = Batch()
        self._written_batch = Batch()
        self._serving = self._writing = self._batch  # those being served just now
        self._flusher_idle = False
        self._wanted = False  # somebody waits for the flusher
        self._poison_callbacks: list[Callable[[str], None]] = []  # those not called yet
        self.listener_failures: list[str] = []

        # Under _io.
        self._wake = threading.Event()
        self._segment = SegmentFile(self._wake.set)
        self._written = 0
        self._written_ts = 0  # when the last written record was stamped
        self._frontier = Frontier()  # over the written lines, but for those that wait in _unhashed
        self._unhashed: list[bytes] = []  # lines that were written at once, in order
        self._unhashed_ts = 0  # the lowest time among them
        self._leaves = bytearray()  # of the signed segment's records written by this object, 32 bytes each
        self._leaves_from = 0  # how many records came before those
        self._signer: LogSigner | None = None
        self._due = threading.Event()  # the keeper has work at once
        self._aim = NOWHERE  # what the next sync covers; under _sync
        self._log_id = ""
        self._spare = ""  # an empty segment found at start, whose first sequence is the next
        self._is_full = False
        self._rotated: list[str] = []

        self._home: Directory | None = None
        self._head: Head | None = None
        self._pid = 0
        self._middles: dict[tuple[str, str, str], bytes] = {}

    # ------------------------------------------------------------------ what others ask

    @property
    def state(self) -> Literal["closed", "open", "poisoned"]:
        """One of "closed" (before the first append and after `close`), "open" and "poisoned"."""
        return self._state

    @property
    def failure(self) -> str:
        """Why the log is poisoned, or ""."""
        return self._failure

    @property
    def last_seq(self) -> int:
        """The highest sequence assigned by this log object; 0 before its first append."""
        with self._mutex:
            return self._queue.last_seq if self._state != "closed" or self._ended else 0

    @property
    def durable_seq(self) -> int:
        """The highest sequence known to be synced; 0 before the first append."""
        return self._durable

    @property
    def space_low(self) -> bool:
        """Whether the next step of filler could not be had.

        Appends still work in what is allocated, but the gate must refuse new risk. It ends by itself when the
        disk has room again.
        """
        return self._segment.space_low or (self._signer is not None and self._signer.space_low)

    @property
    def log_id(self) -> str:
        """The log's id, 32 hexadecimal digits; "" before the first append."""
        return self._log_id

    @property
    def epoch(self) -> int:
        """The epoch whose key signs; 0 where none does."""
        key = None if self._signer is None else self._signer.key
        return 0 if key is None else key.epoch

    @property
    def vkey(self) -> str:
        """The public key that belongs to what is signed now, a C2SP verifier key; "" where nothing is."""
        key = None if self._signer is None else self._signer.key
        return "" if key is None else str(key.signer.vkey)

    def root(self) -> tuple[int, bytes]:
        """Size and RFC 9162 root over every record written so far; (0, ...) before the first append."""
        with self._io:
            self._hash_written()
            return self._frontier.size, self._frontier.root()

    def _hash_written(self) -> None:
        """Put the leaves of `_unhashed` into the tree; call with `_io` held."""
        lines = self._unhashed
        if not lines:
            return
        self._unhashed = []
        leaves = [sha256(b"\0" + line[:-1]).digest() for line in lines]
        self._frontier.extend(leaves)
        if self._signer is not None:
            self._keep_leaves(b"".join(leaves))
            self._signer.wrote(self._written, self._unhashed_ts)

    def _keep_leaves(self, leaves: bytes) -> None:
        """Remember *leaves*, which are in the tree, for the tiles of a close; call with `_io` held."""
        self._leaves += leaves
        if len(self._leaves) > MOST_LEAVES_BYTES:
            # A close then hashes the records in the file instead; a trader's memory must not grow with its log.
            self._leaves = bytearray()
            self._leaves_from = self._frontier.size

    def on_poison(self, callback: Callable[[str], None]) -> None:
        """Call *callback* with the reason once the log is poisoned, on a thread that holds none of the log's locks.

        It should return soon and must not close the log. Its appends are refused, and what it raises is kept in
        `listener_failures`, not raised into whoever happened to find the log poisoned.
        Called immediately if it already happened.
        """
        self._poison_callbacks.append(callback)
        if self._state == "poisoned":
            self._tell_poisoned()

    # ------------------------------------------------------------------ why it refuses

    def _refusal(self) -> AuditError:
        if self._state == "poisoned":
            return self._failed_write()
        if self._is_forked():
            return AuditWriteError(
                f"audit log refused: process {os.getpid()} is a fork of the writer {self._pid}",
                hint="start children by exec, or open the log after the fork",
            )
        return AuditError("audit log refused: it was closed")

    def _is_forked(self) -> bool:
        return self._pid not in {0, os.getpid()}

    def _failed_write(self) -> AuditWriteError:
        """What everybody is told of a poisoned log."""
        if self._is_full:
            return DiskFull(
                f"audit log poisoned: {self._failure} (directory={str(self.directory)!r})",
                hint="free space on that volume, then start again: nothing acknowledged is lost, recovery runs then",
            )
        return AuditWriteError(
            f"audit log poisoned: {self._failure}",
            hint="stop, repair the disk, start again: recovery runs then",
        )

    # ------------------------------------------------------------------ poison

    def _poison(self, why: BaseException) -> None:
        """Stop for good: nothing more is acknowledged, and everybody who waits is told.

        Doing it again does what an interruption left undone.
        """
        with self._mutex:
            head, file = self._head, self._segment.file
            if self._state != "poisoned":
                self._failure = f"{type(why).__name__}: {why}" if str(why) else type(why).__name__
                self._is_full = isinstance(why, OSError) and why.errno in NO_SPACE
                self._state = "poisoned"
                if head is not None:
                    name = file.name if file else ""
                    with contextlib.suppress(OSError, ValueError):
                        head.write(self._durable, name, head.end_offset, HeadState.POISONED)
            batches = (self._serving, self._writing, self._batch, self._written_batch)
        error = self._failed_write()
        for batch in batches:
            batch.finish(error)
        if head is not None:
            # The disk may refuse this too; readers on this machine see the mapped page.
            with contextlib.suppress(OSError, ValueError):
                head.flush()
        self._wake.set()

    def _tell_poisoned(self) -> None:
        """Call those who asked to be told, each once; call without any lock."""
        while self._poison_callbacks:
            try:
                callback = self._poison_callbacks.pop(0)
            except IndexError:  # another thread was quicker
                return
            try:
                callback(self._failure)
            except Exception as why:  # noqa: BLE001  the log stays poisoned and others wait; `listener_failures` tells
                self.listener_failures.append(f"{type(why).__name__}: {why}")

    def _let_go(self) -> None:
        """Close the segment's descriptor after a failure, when nobody is inside a call on it."""
        with self._sync, self._io, self._segment.filling:
            self._segment.close()
            if self._signer is not None:
                self._signer.close()
