"""Signing: checkpoints over what is synced, and one key after another.

Promise: a checkpoint covers only synced records; it is durable in its segment's history before the file
`checkpoint` and the high-water mark say it, and before anybody is given it. Nothing is signed before the tree that
recovery rebuilt has reproduced the newest checkpoint's root. The head never moves more than 20,000 records or 2 s
beyond a synced record that no checkpoint covers: usually the keeper, a thread of its own, signs within a second or
10,000 records, off the path of appends; whoever would pass the bound signs first.

Every segment has a key of its own. Its second record, KEY, names it and is signed by the key before; the next
checkpoint is signed by both; then the old key is destroyed. `resume` finishes a change that a crash cut short.

Limits: `_lock` guards history, `checkpoint` and high-water mark. It is taken behind the log's `_sync` and `_io`,
and nothing is asked of the log while it is held. A write or sync that fails here raises, and whoever called poisons
the log: of what a checkpoint that failed has left on the disk, nobody knows.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from holdfast.audit.highwater import HighWater
from holdfast.audit.history import CHECKPOINT_NAME, CHECKPOINT_TEMPORARY, NOTE_END, history_name
from holdfast.audit.keys import FIRST, REPLACEMENT, ROTATION, LogKey, LogKeys, log_name
from holdfast.audit.note import Checkpoint, sign_note
from holdfast.audit.schemas import KeyDetails
from holdfast.audit.segment import NO_SPACE, SegmentFile
from holdfast.audit.storage import Directory, File
from holdfast.audit.tree import Frontier
from holdfast.core.clock import NANOS, Clock

KEEP_WITHIN_NS = 9 * NANOS // 10
KEEP_WITHIN_RECORDS = 10_000
BOUND_NS = 2 * NANOS
BOUND_RECORDS = 20_000
HISTORY_FILL_BYTES = 16 << 10
HISTORY_STEP_BYTES = 256 << 10

_NOTE_ROOM = 2048


class Reach(NamedTuple):
    """How far the log was written at one moment.

    Attributes:
        size: Its last sequence.
        ts: When that record was stamped, UTC ns.
        end: Bytes of its segment up to there.
        frontier: The tree over all of it; never changed.
    """

    size: int
    ts: int
    end: int
    frontier: Frontier


NOWHERE = Reach(0, 0, 0, Frontier())


class Taken(NamedTuple):
    """What a start found of an earlier writer's signing; see `evidence.py`.

    Attributes:
        key: The key in force; None before the first epoch, or where it is lost.
        upcoming: The key of an epoch whose KEY record is in the log and whose change was not finished.
        lost_epoch: The epoch whose key is to be replaced, or 0.
        signed: Size of the newest checkpoint, or 0.
        note: The newest checkpoint, or b"".
    """

    key: LogKey | None
    upcoming: LogKey | None
    lost_epoch: int
    signed: int
    note: bytes


class LogSigner:
    """What signs one log while it is open.

    Args:
        keys: Where the log's keys are.
        directory: The log.
        clock: Says how long records have waited for their checkpoint.
        on_due: Called when the keeper has work at once; it must return at once.

    Attributes:
        key: The key in force, or None before the first epoch.
        signed: The size of the newest checkpoint; 0 before the first.
        note: The newest checkpoint, a signed note; b"" before the first.
    """

    def __init__(self, keys: LogKeys, directory: Directory, clock: Clock, on_due: Callable[[], None]) -> None:
        self.keys = keys
        self.key: LogKey | None = None
        self.signed = 0
        self.note = b""
        self._published = 0
        self._has_no_room = False
        self._retry_ns = 0
        self._directory = directory
        self._clock = clock
        self._on_due = on_due
        self._lock = threading.Lock()
        self._history = SegmentFile(lambda: None, HISTORY_FILL_BYTES)
        self._high_water: HighWater | None = None
        self._reach = NOWHERE  # the newest that is synced
        self._noted = NOWHERE  # the newest that is signed
        self._since_ns: int | None = None  # when the oldest unsigned record was synced
        self._unsigned: deque[tuple[int, int]] = deque()  # last sequence and lowest ts of each write
        self._changing = False  # from a segment's end to the next one's epoch nobody may sign
        self._next: LogKey | None = None
        self._reason = ROTATION
        self._lost_epoch = 0  # the one whose private key is to be replaced

    @property
    def space_low(self) -> bool:
        """Whether the disk has no room for more checkpoints than it holds, or for another `checkpoint`."""
        return self._history.space_low or self._has_no_room

    # ------------------------------------------------------------------ while records are written

    def wrote(self, last_seq: int, ts: int) -> None:
        """Records up to *last_seq* were written, the oldest of this write stamped *ts*; call with `_io` held."""
        self._unsigned.append((last_seq, ts))

    def synced(self, reach: Reach) -> None:
        """*reach* is synced; the head may move there when this returns. Call with `_sync` held."""
        if self.key is None or self._changing:
            return
        self._reach = reach
        if self._is_beyond_bound(reach):
            with self._lock:
                self._sign(reach)
        elif self._since_ns is None:
            self._since_ns = self._clock.monotonic_ns()
        elif reach.size - self.signed >= KEEP_WITHIN_RECORDS:
            self._on_due()

    def _is_beyond_bound(self, reach: Reach) -> bool:
        try:
            oldest = self._unsigned[0][1]
        except IndexError:
            return False
        return reach.size - self.signed > BOUND_RECORDS or reach.ts - oldest > BOUND_NS

    # ------------------------------------------------------------------ the keeper

    def due_in_ns(self) -> int | None:
        """How long the keeper may wait, by the log's clock; None where it has nothing to wait for."""
        if self.space_low:
            return max(0, self._retry_ns - self._clock.monotonic_ns())
        if self.signed > self._published or self._history.filler_wanted:
            return 0
        if self.key is None or self._changing or self._reach.size <= self.signed:
            return None
        if self._reach.size - self.signed >= KEEP_WITHIN_RECORDS:
            return 0
        now = self._clock.monotonic_ns()
        if self._since_ns is None:  # it was synced just while an earlier checkpoint was made
            self._since_ns = now
        return max(0, self._since_ns + KEEP_WITHIN_NS - now)

    def keep(self) -> None:
        """Sign and publish what is due; the keeper's work, with none of the log's locks held."""
        if self.due_in_ns() != 0:
            return
        with self._lock:
            if not self._changing:
                self._sign(self._reach)
            self._publish()
            if self._history.space_low or self._history.filler_wanted:
                self._history.filler_wanted = False
                self._history.grow(HISTORY_STEP_BYTES)
            self._retry_ns = self._clock.monotonic_ns() + KEEP_WITHIN_NS

    def cover(self) -> bytes:
        """The newest checkpoint, one over everything that is synced now; b"" where no epoch has begun.

        Call with `_sync` held: between two epochs nothing can be signed.
        """
        with self._lock:
            self._sign(self._reach)
            self._publish()
            return self.note

    def _sign(self, reach: Reach, *others: LogKey) -> None:
        """Make a checkpoint over *reach* durable in the history; call with `_lock` held."""
        if self.key is None or reach.size <= self.signed:
            return
        name = log_name(self.key.origin, self.keys.log_id)
        text = Checkpoint(name, reach.size, reach.frontier.root()).text()
        note = sign_note(text, self.key.signer, *(other.signer for other in others))
        history = self._history
        while history.allocated - history.end < len(note) + _NOTE_ROOM:
            if not history.grow(HISTORY_STEP_BYTES):
                break
        history.put(note + NOTE_END)
        if history.file is not None:
            history.file.fdatasync()
        self.signed, self.note, self._noted = reach.size, note, reach
        self._since_ns = None if self._reach.size <= reach.size else self._clock.monotonic_ns()
        unsigned = self._unsigned
        with contextlib.suppress(IndexError):
            while unsigned[0][0] <= reach.size:
                unsigned.popleft()

    def _publish(self, *, must: bool = False) -> None:
        """Let the newest checkpoint be seen: in `checkpoint`, then in the high-water mark; call with `_lock` held.

        Both lag while the disk is full, unless they *must* not: the history has room of its own.
        """
        if self._published >= self.signed:
            return
        try:
            self._replace_checkpoint()
        except OSError as why:
            if must or why.errno not in NO_SPACE:
                raise
            self._has_no_room = True
            if CHECKPOINT_TEMPORARY in self._directory.names():
                self._directory.unlink(CHECKPOINT_TEMPORARY)
            return
        self._has_no_room = False
        if self._high_water is None:
            self._high_water = self.keys.open_high_water()
        self._high_water.write(self.note, self._noted.end, self._noted.frontier)
        self._published = self.signed

    def _replace_checkpoint(self) -> None:
        home = self._directory
        is_new = not self._published and CHECKPOINT_NAME not in home.names()
        file = home.create(CHECKPOINT_TEMPORARY)
        try:
            if file.pwrite(self.note, 0) != len(self.note):
                raise OSError(errno.ENOSPC, f"short write to {CHECKPOINT_TEMPORARY!r}")
            file.fsync()
        finally:
            file.close()
        home.rename(CHECKPOINT_TEMPORARY, CHECKPOINT_NAME)
        if is_new:
            home.sync()

    # ------------------------------------------------------------------ segments and epochs

    def end_segment(self, reach: Reach) -> None:
        """Cover the whole of a segment that ends at *reach*, which is synced, and cut its history."""
        with self._lock:
            self._changing = True
            if self._history.file is None:
                return
            self._reach = reach
            self._sign(reach)
            with self._history.filling:
                self._history.cut()
            self._history.close()
            self._history.file = None

    def begin_segment(self, segment: str) -> None:
        """Have the history of *segment* ready; its name is durable once the directory is synced."""
        with self._lock:
            self._changing = True
            name = history_name(segment)
            try:
                file = self._directory.create(name)
            except FileExistsError:  # left by a crash before anything was signed in it
                file = self._directory.open(name, writable=True)
                file.truncate(0)
            with self._history.filling:
                self._history.begin(file)

    def begin_epoch(self, origin: str) -> KeyDetails:
        """Make the next epoch's key durable and return what its KEY record says."""
        with self._lock:
            self._changing = True
        previous = self.key
        if self._lost_epoch:
            self._reason, epoch = REPLACEMENT, self._lost_epoch + 1
        elif previous is None:
            self._reason, epoch = FIRST, 1
        else:
            self._reason, epoch = ROTATION, previous.epoch + 1
        self._next = key = self.keys.prepare(origin, epoch)
        if self._reason != ROTATION:
            self.keys.pin(key.signer.vkey)
        return key.details(self._reason, previous if self._reason == ROTATION else None)

    def enter_epoch(self, reach: Reach) -> None:
        """*reach* ends with the durable KEY record of the next epoch: sign with both keys, destroy the old one."""
        with self._lock:
            previous, self.key = self.key, self._next
            self._reach = reach
            self._sign(reach, *((previous,) if previous is not None and self._reason == ROTATION else ()))
            self.keys.promote()
            self._next, self._lost_epoch, self._changing = None, 0, False
            self._publish()
        if self._reason != ROTATION and self.key is not None:
            self.keys.tell(f"this log is signed from here on; its keys are in {str(self.keys.path)!r}")

    # ------------------------------------------------------------------ start and end

    def take_up(self, state: Taken, history: tuple[File, int] | None) -> None:
        """Go on where recovery found the log to end; *history* is the last segment's, and where its notes end."""
        with self._lock:
            self.key, self._next, self._lost_epoch = state.key, state.upcoming, state.lost_epoch
            self.signed, self.note = state.signed, state.note
            if history is not None:
                with self._history.filling:
                    self._history.take_up(*history)

    def resume(self, reach: Reach) -> None:
        """After recovery, before anything new: finish a change of keys and cover the whole of the log."""
        with self._lock:
            self._reach = reach
            previous = None
            if self._next is not None:
                previous, self.key = self.key, self._next
            self._sign(reach, *(() if previous is None else (previous,)))
            if self.signed == reach.size:
                self._noted = reach
            if self._next is not None:
                self.keys.promote()
                self._next = None
            self._publish()

    def finish(self) -> None:
        """At a close: cover everything that is synced, which is all there is, and cut the history."""
        with self._lock:
            self._sign(self._reach)
            with self._history.filling:
                self._history.cut()

    def publish(self) -> None:
        """At a close, once the cuts have given back what room they can: let the last checkpoint be seen."""
        with self._lock:
            self._publish(must=True)

    def close(self) -> None:
        """Give up the descriptors, when nobody is inside a call on them."""
        with self._lock:
            self._history.close()
            if self._high_water is not None:
                self._high_water.close()

    def forget_after_fork(self) -> None:
        """In a forked child nobody releases the lock."""
        self._lock = threading.Lock()
        self._history.filling = threading.Lock()
