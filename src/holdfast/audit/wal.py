"""The write-ahead log: append, group commit, rotate, refuse.

Promises:

* A sequence that `append` returns for a DURABLE record is synced: no crash loses it. For a WRITTEN record it
  has been handed to the kernel: no death of this process loses it. For a BUFFERED record it is in a bounded
  queue: written within 10 ms, synced within 100 ms.
* Sequence, time and place of a record are assigned under one lock, in one order.
* The order of work is write -> fdatasync -> head -> acknowledge, and no caller is told otherwise.
* A failed write or sync poisons: the log acknowledges nothing more, says so in its head, closes its file and
  is only opened again through recovery. A failed sync is never tried again: after one the kernel drops the
  data and reports success.
* One process writes a directory; a second is told who does. A forked copy refuses to write.

Limits: methods may be called from any thread, but never from a signal handler. Nothing here knows record
types; `AuditLogger` holds records against their schemas.

How a commit goes. A record waits in a queue under the `_mutex`. Whoever holds `_io` takes the whole queue and
writes it; whoever holds `_sync` serves one batch of waiters: it writes the queue, syncs, moves the head and
wakes. The segment's `filling` guards the growth of the file. The locks are always taken in the order `_sync`, `_io`,
`filling`, `_mutex`. A synchronous caller that finds its
batch without a leader leads it; the next batch gathers meanwhile. Asynchronous callers are served by one
flusher thread, which also writes and syncs what nobody waits for, and takes over a batch whose leader was
interrupted before it began.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self
from zlib import crc32

from holdfast.audit import recovery
from holdfast.audit.backlog import Backlog, Item
from holdfast.audit.format import (
    FILLER,
    FORMAT_VERSION,
    LINE_OVERHEAD,
    MAX_RECORD_BYTES,
    Record,
    assemble_line,
    encode_details,
    line_middle,
    parse_segment_name,
    segment_name,
)
from holdfast.audit.head import Head, HeadState, read_head
from holdfast.audit.holder import NO_RIGHT, held, refused_open, write_pid
from holdfast.audit.recovery import Scan, Verdict
from holdfast.audit.schemas import SCHEMA_VERSION, RecordType
from holdfast.audit.segment import NO_SPACE, SegmentFile
from holdfast.audit.storage import Directory, File, LocalStorage, Storage
from holdfast.audit.tree import Frontier
from holdfast.audit.waiting import Batch
from holdfast.core.clock import Clock
from holdfast.core.errors import AuditError, AuditWriteError, BadInput, DiskFull

if TYPE_CHECKING:
    import asyncio

    from holdfast.audit.query import AuditEntry, Moment
    from holdfast.audit.seal import Sealer

ROTATE_BYTES = 100_000_000

_WRITE_WITHIN_SECS = 0.01
_SYNC_EVERY_ROUNDS = 9
_IDLE_SECS = 1.0
_OBJECT = ord("{")


class Level(IntEnum):
    """How safe a record is before its append returns."""

    BUFFERED = 0
    WRITTEN = 1
    DURABLE = 2


# The members by their own names: looking one up in its class costs as much as a lock.
_BUFFERED, _WRITTEN, _DURABLE = Level


class Entry(NamedTuple):
    """One record to append.

    Attributes:
        type: Its record type's name.
        details: What its schema says; text keys, no NaN, no infinity.
        user: Who caused it.
        component: Which part writes it.
    """

    type: str
    details: Mapping[str, Any]
    user: str = ""
    component: str = ""


class WriteAheadLog:
    """One audit log in one directory.

    It opens lazily: reading needs no lock, the first append takes it and runs recovery.

    Args:
        directory: Where the log lives; created 0700 where it is missing.
        clock: Stamps records and decides when a UTC day ends.
        storage: The disk; the machine's own by default.
        origin: The log's name for other people, written into every segment.
        rotate_bytes: A segment is rotated before it grows beyond this; at least 4096.
        seal: Whether rotated segments are compressed by a child process.
        buffer_bytes: Bound of the queue of BUFFERED records.
        overflow: What a BUFFERED append does when that bound is reached: "wait" writes the queue out first,
            "gap" drops the record, returns 0 and counts it in a GAP record.
        random_bytes: Where the log id comes from.

    Attributes:
        directory: As given, as a Path.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        clock: Clock,
        storage: Storage | None = None,
        origin: str = "holdfast",
        rotate_bytes: int = ROTATE_BYTES,
        seal: bool = True,
        buffer_bytes: int = 8 << 20,
        overflow: Literal["wait", "gap"] = "wait",
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if rotate_bytes < 4096:
            raise BadInput(f"rotate_bytes {rotate_bytes} bytes < 4096 bytes")
        self.directory = Path(directory)
        self._clock = clock
        self._storage: Storage = LocalStorage() if storage is None else storage
        self._origin = origin
        self._seals = seal
        self._buffer_bytes = buffer_bytes
        self._overflow = overflow
        self._random_bytes = random_bytes

        self._opening = threading.Lock()
        self._sync = threading.Lock()
        self._io = threading.Lock()
        self._mutex = threading.Lock()

        # Under _mutex.
        self._state: Literal["closed", "open", "poisoned"] = "closed"
        self._ended = False
        self._failure = ""
        self._queue = Backlog(rotate_bytes)
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
        self._frontier = Frontier()
        self._log_id = ""
        self._spare = ""  # an empty segment found at start, whose first sequence is the next
        self._is_full = False
        self._rotated: list[str] = []

        self._home: Directory | None = None
        self._head: Head | None = None
        self._pid = 0
        self._stopping = False
        self._flusher: threading.Thread | None = None
        self._sealer: Sealer | None = None
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
        return self._segment.space_low

    @property
    def log_id(self) -> str:
        """The log's id, 32 hexadecimal digits; "" before the first append."""
        return self._log_id

    def root(self) -> tuple[int, bytes]:
        """Size and RFC 9162 root over every record written so far; (0, ...) before the first append."""
        with self._io:
            return self._frontier.size, self._frontier.root()

    def on_poison(self, callback: Callable[[str], None]) -> None:
        """Call *callback* with the reason once the log is poisoned, on a thread that holds none of the log's locks.

        It should return soon and must not close the log. Its appends are refused, and what it raises is kept in
        `listener_failures`, not raised into whoever happened to find the log poisoned.
        Called immediately if it already happened.
        """
        self._poison_callbacks.append(callback)
        if self._state == "poisoned":
            self._tell_poisoned()

    # ------------------------------------------------------------------ append

    def append(
        self,
        type: str,  # noqa: A002  the name of the field in the record
        details: Mapping[str, Any],
        *,
        user: str = "",
        component: str = "",
        level: Level = Level.DURABLE,
        leaves: list[bytes] | None = None,
    ) -> int:
        """Append one record and return its sequence once it is as safe as *level* says.

        Args:
            type: A record type's name.
            details: Text keys; no NaN, no infinity; the whole line at most `MAX_RECORD_BYTES`.
            user: Who caused it.
            component: Which part writes it.
            level: How safe before this returns.
            leaves: Gets the record's leaf hash appended; not with BUFFERED.

        Raises:
            BadInput: The record cannot be written; the log goes on.
            AuditWriteError: The write or sync failed, now or before. The record may or may not be there.
            AuditCorruption: The log on disk is damaged; nothing was changed.
            LogHeld: Another process writes it.
        """
        middle = self._middles.get((type, user, component)) or self._middle(type, user, component)
        body = encode_details(details)
        bound = len(middle) + len(body) + LINE_OVERHEAD
        if bound > MAX_RECORD_BYTES or body[0] != _OBJECT:
            raise _unfit(type, body, bound)
        if self._state != "open":
            self.open()
        with self._mutex:
            if level == _BUFFERED and self._drops((middle,)):
                return 0
            if self._state != "open":  # nor is a forked child's
                raise self._refusal()
            seq = self._queue.add(self._clock.now_ns(), middle, body, bound, leaves)
            batch = self._batch
            turnstile = self._join(level, batch)
        if level == _DURABLE:
            self._wait_durable(batch, turnstile)
        else:
            self._wait_written(level, seq)
        return seq

    def append_many(
        self,
        entries: Iterable[Entry],
        *,
        level: Level = Level.DURABLE,
        leaves: list[bytes] | None = None,
    ) -> list[int]:
        """Append *entries* one behind the other, with one write and one sync; return their sequences.

        Nothing stands between them but, where a file is full, a SEGMENT record. Either all are accepted or, when
        one cannot be written, none. Raises as `append` does.
        """
        ready = self._prepare(entries)
        if not ready:
            return []
        if self._state != "open":
            self.open()
        with self._mutex:
            if level == _BUFFERED and self._drops([middle for middle, _, _ in ready]):
                return [0] * len(ready)
            if self._state != "open":
                raise self._refusal()
            seqs = self._queue.add_many(self._clock.now_ns(), ready, leaves)
            batch = self._batch
            turnstile = self._join(level, batch)
        if level == _DURABLE:
            self._wait_durable(batch, turnstile)
        else:
            self._wait_written(level, seqs[-1])
        return seqs

    async def append_async(
        self,
        type: str,  # noqa: A002  the name of the field in the record
        details: Mapping[str, Any],
        *,
        user: str = "",
        component: str = "",
        level: Level = Level.DURABLE,
        leaves: list[bytes] | None = None,
    ) -> int:
        """As `append`, without ever blocking the event loop; cancelling it cancels only the wait."""
        middle = self._middles.get((type, user, component)) or self._middle(type, user, component)
        body = encode_details(details)
        bound = len(middle) + len(body) + LINE_OVERHEAD
        if bound > MAX_RECORD_BYTES or body[0] != _OBJECT:
            raise _unfit(type, body, bound)
        if self._state != "open":
            await _in_a_thread(self.open)
        with self._mutex:
            if level == _BUFFERED and self._drops((middle,)):
                return 0
            if self._state != "open":  # nor is a forked child's
                raise self._refusal()
            seq = self._queue.add(self._clock.now_ns(), middle, body, bound, leaves)
            future = self._join_async(level)
        if future is not None:
            await future
        return seq

    async def append_many_async(
        self,
        entries: Iterable[Entry],
        *,
        level: Level = Level.DURABLE,
        leaves: list[bytes] | None = None,
    ) -> list[int]:
        """As `append_many`, without ever blocking the event loop; cancelling it cancels only the wait."""
        ready = self._prepare(entries)
        if not ready:
            return []
        if self._state != "open":
            await _in_a_thread(self.open)
        with self._mutex:
            if level == _BUFFERED and self._drops([middle for middle, _, _ in ready]):
                return [0] * len(ready)
            if self._state != "open":
                raise self._refusal()
            seqs = self._queue.add_many(self._clock.now_ns(), ready, leaves)
            future = self._join_async(level)
        if future is not None:
            await future
        return seqs

    def _middle(self, type_: str, user: str, component: str) -> bytes:
        if type_ == RecordType.SEGMENT:
            raise BadInput("record refused: SEGMENT begins a file, and only the log writes it")
        middle = line_middle(type_, user, component)
        if len(self._middles) >= 4096:
            self._middles.clear()
        self._middles[type_, user, component] = middle
        return middle

    def _prepare(self, entries: Iterable[Entry]) -> list[tuple[bytes, bytes, int]]:
        """Each entry's middle, details and bound; nothing is queued until all of them can be."""
        ready: list[tuple[bytes, bytes, int]] = []
        middles = self._middles
        for type_, details, user, component in entries:
            middle = middles.get((type_, user, component)) or self._middle(type_, user, component)
            body = encode_details(details)
            bound = len(middle) + len(body) + LINE_OVERHEAD
            if bound > MAX_RECORD_BYTES or body[0] != _OBJECT:
                raise _unfit(type_, body, bound)
            ready.append((middle, body, bound))
        return ready

    def _drops(self, middles: Sequence[bytes]) -> bool:
        """Whether these records are dropped because the queue is full, and counted; call under the mutex."""
        if self._overflow == "wait" or self._queue.bytes <= self._buffer_bytes:
            return False
        if self._state != "open":
            raise self._refusal()
        self._queue.drop(self._clock.now_ns(), middles)
        return True

    def _refusal(self) -> AuditError:
        if self._state == "poisoned":
            return self._failed_write()
        if self._is_forked():
            return AuditWriteError(
                f"audit log refused: process {os.getpid()} is a fork of the writer {self._pid}",
                hint="start children by exec, or open the log after the fork",
            )
        return AuditError("audit log refused: it was closed")

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

    # ------------------------------------------------------------------ waiting

    def _join(self, level: Level, batch: Batch) -> threading.Lock | None:
        """The lock to wait on as a follower, or None for the batch's leader; call under the mutex."""
        if level != _DURABLE:
            if self._flusher_idle:
                self._kick()
            return None
        if batch.led:
            return batch.join()
        batch.led = True
        return None

    def _wait_durable(self, batch: Batch, turnstile: threading.Lock | None) -> None:
        if turnstile is None:
            try:
                self._commit(batch)
            except BaseException:
                # Interrupted before it began: the flusher serves the batch.
                self._wanted = True
                self._wake.set()
                raise
        else:
            while not batch.finished and self._state != "poisoned":
                if turnstile.acquire(timeout=_IDLE_SECS):
                    turnstile.release()
                    break
        if batch.error is not None or not batch.finished:
            raise self._refusal()

    def _wait_written(self, level: Level, seq: int) -> None:
        if level == _WRITTEN or (self._overflow == "wait" and self._queue.bytes > self._buffer_bytes):
            self._write_out(seq)

    def _join_async(self, level: Level) -> asyncio.Future[None] | None:
        """A future that ends with the record's batch; call under the mutex, on the event loop."""
        if level == _BUFFERED and self._queue.bytes <= self._buffer_bytes:
            if self._flusher_idle:
                self._kick()
            return None
        batch = self._batch if level == _DURABLE else self._written_batch
        import asyncio  # noqa: PLC0415  costs 30 ms of start-up to those who never use it

        future = batch.join_loop(asyncio.get_running_loop())
        if not batch.led:
            batch.led = True
            self._wanted = True
            self._wake.set()
        return future

    def _kick(self) -> None:
        """End the flusher's long sleep; call under the mutex."""
        self._flusher_idle = False
        self._wake.set()

    # ------------------------------------------------------------------ write, sync, acknowledge

    def _commit(self, batch: Batch | None = None) -> None:
        """One group commit, unless *batch* has been served meanwhile."""
        try:
            with self._sync:
                if batch is None or not batch.finished:
                    self._serve()
        finally:
            if self._state == "poisoned":
                self._tell_poisoned()

    def _serve(self) -> None:
        """One group commit, for everybody who waits now; call with `_sync` held.

        Whatever ends it before the last waiter is told, be it a signal, poisons.
        """
        try:
            batch = self._take_batch()
            with self._io:
                self._drain()
                file, target, end = self._segment.file, self._written, self._segment.end
            if file is not None and target > self._durable:
                self._acknowledge(file, target, end)
            batch.finish(None)
        except Exception as why:
            self._poison(why)
            raise self._refusal() from why
        except BaseException as why:
            self._poison(why)
            raise

    def _take_batch(self) -> Batch:
        """Those who wait now; whoever comes later waits for the next commit."""
        with self._mutex:
            if self._state == "poisoned":
                raise self._refusal()
            batch = self._serving = self._batch
            batch.led = True
            self._batch = Batch()
        return batch

    def _acknowledge(self, file: File, target: int, end: int) -> None:
        """Sync what is written up to *target*, then say so in the head."""
        file.fdatasync()
        with self._mutex:
            if self._state == "poisoned":
                raise self._refusal()
            if self._head is not None:
                self._head.write(target, file.name, end)
            self._durable = target

    def _write_out(self, seq: int) -> None:
        """Hand the queue to the kernel, unless somebody already did so up to *seq*."""
        try:
            while self._written < seq:
                if self._queue.markers:
                    with self._sync, self._io:
                        self._drain()
                else:
                    with self._io:
                        self._drain(may_rotate=False)
        except Exception as why:
            self._poison(why)
            raise self._refusal() from why
        except BaseException as why:
            self._poison(why)
            raise
        finally:
            if self._state == "poisoned":
                self._tell_poisoned()

    def _drain(self, *, may_rotate: bool = True) -> None:
        """Write the whole queue; call with `_io` held, and with `_sync` where it may rotate."""
        with self._mutex:
            if self._state == "poisoned":
                raise self._refusal()
            queue = self._queue
            if queue.markers and not may_rotate:
                return
            if queue.has_dropped:
                self._enqueue_gap()
            if not queue.items:
                return
            taken = queue.take()
            # Whoever joins from here on waits for the next write.
            waiting = self._written_batch if self._written_batch.led else None
            if waiting is not None:
                self._writing, self._written_batch = waiting, Batch()
        if taken.begins_segments:
            self._write_segments(taken.items, taken.first)
            written = 0
        else:
            written = self._write_lines(taken.items, taken.first)
        if waiting is not None:
            waiting.finish(None)
        with self._mutex:
            queue.give_back(taken, written)

    def _write_segments(self, items: Sequence[Item], first: int) -> None:
        """Write *items*, beginning a segment wherever one was planned."""
        start = 0
        for index, item in enumerate(items):
            if not item[1]:
                self._write_lines(items[start:index], first + start)
                self._begin_segment(item[0], first + index)
                start = index + 1
        self._write_lines(items[start:], first + start)

    def _enqueue_gap(self) -> None:
        """Count the dropped records in a record of their own; call under the mutex."""
        middle = self._middle(RecordType.GAP, "", "journal")
        body = encode_details(self._queue.gap_details())
        self._queue.add_gap(self._clock.now_ns(), middle, body, len(middle) + len(body) + LINE_OVERHEAD)

    def _write_lines(self, items: Sequence[Item], first: int) -> int:
        """Write *items* as lines from sequence *first* into the current segment; return their bytes."""
        if not items:
            return 0
        if first != self._written + 1:
            raise AuditWriteError(f"sequence {first} would follow {self._written}")
        synced = self._durable
        if len(items) == 1:
            ts, middle, details, sink = items[0]
            line = assemble_line(first, synced, ts, middle, details)
            self._segment.put(line + FILLER)
            self._written = first
            leaf = sha256(b"\0" + line).digest()
            self._frontier.append(leaf)
            if sink is not None:
                sink.append(leaf)
            return len(line) + 1
        crc = crc32
        lines: list[bytes] = []
        add = lines.append
        seq = first
        sinks = False
        for ts, middle, details, sink in items:
            body = b'"seq":%d,"synced":%d,"ts":%d%b%b}' % (seq, synced, ts, middle, details)
            add(b'{"crc":"%08x",%b' % (crc(body), body))
            seq += 1
            if sink is not None:
                sinks = True
        add(b"")
        data = FILLER.join(lines)
        lines.pop()
        self._segment.put(data)
        self._written = seq - 1
        hasher = sha256
        leaves = [hasher(b"\0" + line).digest() for line in lines]
        self._frontier.extend(leaves)
        if sinks:
            for leaf, item in zip(leaves, items, strict=True):
                if item[3] is not None:
                    item[3].append(leaf)
        return len(data)

    # ------------------------------------------------------------------ segments

    def _begin_segment(self, ts: int, seq: int) -> None:
        """Close the current segment and begin the next; call with `_sync` and `_io` held."""
        if self._home is None:
            raise AuditWriteError("audit log is not open")
        segment = self._segment
        with segment.filling:
            old = segment.file
            if old is not None:
                if self._written > self._durable:
                    self._acknowledge(old, self._written, segment.end)
                segment.cut()
                self._rotated.append(old.name)
                old.close()
            name = self._spare or segment_name(ts, seq)
            file = self._home.open(name, writable=True) if self._spare else self._home.create(name)
            self._spare = ""
            segment.begin(file)
            self._home.sync()
        if not self._log_id:
            self._log_id = self._random_bytes(16).hex()
        details = {
            "format": FORMAT_VERSION,
            "schema": SCHEMA_VERSION,
            "log_id": self._log_id,
            "origin": self._origin,
            "first_seq": seq,
            "root": self._frontier.root().hex(),
            "clock": self._clock.source,
        }
        middle = line_middle(RecordType.SEGMENT, "", "journal")
        line = assemble_line(seq, self._durable, ts, middle, encode_details(details))
        segment.put(line + FILLER)
        self._written = seq
        self._frontier.append(sha256(b"\0" + line).digest())
        # Durable before any other line of the segment.
        self._acknowledge(file, seq, segment.end)

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

    # ------------------------------------------------------------------ the flusher

    def _run_flusher(self) -> None:
        rounds = 0
        try:
            while self._state == "open" and not self._stopping:
                with self._mutex:
                    # A batch that is led has waiters: whatever became of their leader, they are served.
                    pending = self._batch.led or self._queue.last_seq > self._durable
                    idle = self._flusher_idle = not (pending or self._wanted or self._segment.filler_wanted)
                kicked = self._wake.wait(_IDLE_SECS if idle else _WRITE_WITHIN_SECS)
                self._wake.clear()
                with self._mutex:
                    wanted, self._wanted = self._wanted, False
                if idle and kicked and not wanted:
                    continue  # somebody began to write; give it the 10 ms to gather
                rounds = self._flush(rounds, wanted=wanted)
        except AuditError:
            pass  # poisoned: whoever waited has been told
        except BaseException as why:  # noqa: BLE001  a task ends here, and poisons
            self._poison(why)
        if self._state == "poisoned":
            self._poison(AuditError(self._failure))
            self._let_go()
            self._tell_poisoned()

    def _flush(self, rounds: int, *, wanted: bool) -> int:
        """One round of the flusher; returns for how many rounds something has been unsynced."""
        if wanted and self._batch.led:
            self._commit()
        elif self._queue.items:
            self._write_out(self._queue.last_seq)
        else:
            self.tick()
        if self._rotated and self._sealer is not None:
            self._tell_sealer(self._sealer)
        if self._segment.filler_wanted or self._segment.space_low:
            self._segment.fill_ahead(self._sync, lambda: self._state == "open")
        if self._written <= self._durable and not self._batch.led:
            return 0
        if rounds + 1 < _SYNC_EVERY_ROUNDS:
            return rounds + 1
        self.sync()
        return 0

    def _tell_sealer(self, sealer: Sealer) -> None:
        with self._io:
            rotated, self._rotated = self._rotated, []
        for name in rotated:
            sealer.rotated(name)

    def tick(self) -> None:
        """Rotate if the UTC day of the current segment is over; also done once a second while idle."""
        with self._mutex:
            now = self._clock.now_ns()
            if self._state != "open" or not self._queue.day_is_over(now):
                return
            self._queue.plan_segment(now)
        self.sync()

    def sync(self) -> None:
        """Return once everything appended before is synced.

        Raises:
            AuditWriteError: The write or sync failed, now or before.
        """
        if self._state == "poisoned" or self._is_forked():
            raise self._refusal()
        if self._state == "open":
            self._commit()

    # ------------------------------------------------------------------ open and close

    def open(self) -> None:
        """Take the lock and run recovery now instead of at the first append; an open log is left alone.

        Raises as `append` does.
        """
        # Asked before the lock too: in a forked child nobody will ever release it.
        self._refuse_to_open()
        try:
            with self._opening:
                self._refuse_to_open()
                details = self._open() if self._state == "closed" else None
        finally:
            if self._state == "poisoned":
                self._tell_poisoned()
        # It is open now; what goes wrong from here on poisons.
        if details is not None:
            self.append(RecordType.RECOVERY, details, component="journal")

    def _open(self) -> dict[str, Any] | None:
        """Take the lock and recover; returns the details of a RECOVERY record, or None."""
        self._pid = os.getpid()
        _LOGS.add(self)  # a fork from here on makes the copy refuse
        try:
            self._home = home = self._storage.directory(self.directory, create=True)
            return self._open_in(home)
        except OSError as why:
            self._forget()
            raise refused_open(self.directory, why) from why
        except BaseException as why:
            if self._state == "open":
                self._poison(why)
            self._forget()
            raise

    def _refuse_to_open(self) -> None:
        if self._ended or self._state == "poisoned" or self._is_forked():
            raise self._refusal()

    def _is_forked(self) -> bool:
        return self._pid not in {0, os.getpid()}

    def _open_in(self, home: Directory) -> dict[str, Any] | None:
        if not home.try_lock():
            raise held(home)
        found = recovery.scan(home)
        mark = read_head(home)
        verdict, known = recovery.judge(found, mark)
        try:
            write_pid(home, self._pid)
            details = self._recover(home, found, known, torn=verdict is Verdict.TORN)
            if self._seals:
                self._start_sealer(home, found)
        except AuditError:
            raise
        except BaseException as why:
            if isinstance(why, OSError) and why.errno in NO_RIGHT:
                raise  # nothing was written: the log is as it was
            self._poison(why)
            raise self._refusal() from why
        with self._mutex:
            self._state = "open"
        self._flusher = threading.Thread(target=self._run_flusher, name="holdfast-audit", daemon=True)
        self._flusher.start()
        atexit.register(self.close)
        return details

    def _recover(self, home: Directory, found: Scan, known: int, *, torn: bool) -> dict[str, Any] | None:
        """Make the log whole and take up where it ends; returns the details of a RECOVERY record, or None."""
        self._head = head = Head(home)
        mark = head.found
        # From here on the log is not "closed" any more, whatever happens next.
        head.write(*((0, "", 0) if mark is None else (mark.sequence, mark.segment, mark.end_offset)))
        head.flush()
        repaired = recovery.repair(home, found, known) if torn else None
        copies = recovery.unnamed_quarantine(home, found.named_quarantine)
        self._take_up(home, found, head)
        if repaired is None and not copies:
            return None
        file, offset = found.place
        return {
            "first_lost": found.first_missing,
            "known_durable": known,
            "file": file,
            "offset": offset,
            "tail_bytes": 0 if repaired is None else repaired.tail_bytes,
            "quarantine": sorted({*copies, *(() if repaired is None else repaired.quarantine)}),
            "head": "missing" if mark is None else mark.state.name.lower(),
        }

    def _take_up(self, home: Directory, found: Scan, head: Head) -> None:
        """Go on behind the last record found."""
        self._log_id = found.log_id
        self._frontier = found.frontier
        self._queue.take_up(found.first_missing)
        self._written = self._durable = found.first_missing - 1
        self._spare = next(
            (
                tail.segment
                for tail in found.tails
                if tail.offset == 0 and first_sequence(tail.segment) == found.first_missing
            ),
            "",
        )
        if not found.segments:
            return
        last = found.segments[-1]
        head.write(last.last_seq, last.name.name, last.end)
        if last.name.sealed:
            return
        self._segment.take_up(home.open(last.name.name, writable=True), last.end)
        if not self._spare:
            used = last.last_seq > last.name.first_seq
            self._queue.take_up_segment(last.end, last.first_ts, used=used)

    def _start_sealer(self, home: Directory, found: Scan) -> None:
        from holdfast.audit.seal import Sealer  # noqa: PLC0415  a log that is only read needs no sealer

        self._sealer = Sealer(home, self.append)
        self._sealer.start([segment.name.name for segment in found.segments[:-1]])

    def _forget(self) -> None:
        """Undo a start that failed, so that another may try."""
        with self._io:
            self._segment.close()
            self._segment.file = None
        if self._head is not None:
            self._head.close()
            self._head = None
        if self._home is not None:
            self._home.close()
            self._home = None
        _LOGS.discard(self)
        if self._state != "poisoned":
            self._pid = 0

    def close(self) -> None:
        """Sync everything, cut the segment, say "closed" in the head and give up the lock; for good.

        A poisoned log only gives up its descriptors. A second call does nothing.

        Raises:
            AuditWriteError: The last sync failed; the log is poisoned.
        """
        if self._is_forked():
            return
        try:
            with self._opening:
                if not self._ended:
                    self._close()
        finally:
            if self._state == "poisoned":
                self._tell_poisoned()

    def _close(self) -> None:
        sealer, flusher, home = self._sealer, self._flusher, self._home
        if sealer is not None:
            self._tell_sealer(sealer)
            sealer.close(*(() if self._state == "open" else (0.0,)))
        self._stopping = True
        self._wake.set()
        if flusher is not None and flusher is not threading.current_thread():
            flusher.join()
        # Not before: a close that was interrupted while it waited may be tried again.
        self._ended = True
        atexit.unregister(self.close)
        _LOGS.discard(self)
        try:
            if self._state == "open":
                self._finish()
        finally:
            for thing in (self._segment, self._head, home):
                if thing is not None:
                    thing.close()

    def _finish(self) -> None:
        with self._sync:
            with self._mutex:
                self._state = "closed"
            self._serve()
            with self._io, self._segment.filling:
                try:
                    file, head = self._segment.file, self._head
                    if file is not None and head is not None:
                        self._segment.cut()
                        head.write(self._durable, file.name, self._segment.end, HeadState.CLOSED)
                        head.flush()
                except OSError as why:
                    self._poison(why)
                    raise self._refusal() from why

    def forget_after_fork(self) -> None:
        """In a forked child: refuse to write, and give up the lock's descriptor so that the lock dies with the writer.

        Whoever held a lock is not here to release it, so they are made anew; the shared head page is not touched.
        """
        self._state = "closed"
        self._ended = True
        self._opening, self._sync, self._io = threading.Lock(), threading.Lock(), threading.Lock()
        self._segment.filling, self._mutex = threading.Lock(), threading.Lock()
        if self._home is not None:
            self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ reading

    def records(self, start_seq: int = 1) -> Iterator[Record]:
        """Every record from *start_seq* on, up to what is durable when it is asked for.

        Raises:
            AuditCorruption: After the last record before the damage.
        """
        from holdfast.audit.query import read_records  # noqa: PLC0415  the writer alone does not need it

        self._sync_for_reading()
        return read_records(self.directory, start_seq=start_seq, storage=self._storage, missing_ok=True)

    def query(
        self,
        start_time: Moment | None = None,
        end_time: Moment | None = None,
        event_type: str | None = None,
        user_id: str | None = None,
        max_results: int | None = None,
    ) -> list[AuditEntry]:
        """Records by time, type and user, in sequence order; see `query.query`.

        What this log object appended before is included, whatever its level.
        """
        from holdfast.audit.query import query  # noqa: PLC0415  the writer alone does not need it

        self._sync_for_reading()
        return query(
            self.directory, start_time, end_time, event_type, user_id, max_results,
            storage=self._storage, missing_ok=True,
        )  # fmt: skip

    def verify_integrity(self) -> dict[str, Any]:
        """Check every byte of the log; see `verify.verify`."""
        from holdfast.audit.verify import verify  # noqa: PLC0415  the writer alone does not need it

        self._sync_for_reading()
        return verify(self.directory, storage=self._storage, missing_ok=True).to_dict()

    def _sync_for_reading(self) -> None:
        if self._state == "open":
            self.sync()


_LOGS: weakref.WeakSet[WriteAheadLog] = weakref.WeakSet()


def _after_fork() -> None:
    for log in list(_LOGS):
        log.forget_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


async def _in_a_thread(work: Callable[[], None]) -> None:
    import asyncio  # noqa: PLC0415  as above

    await asyncio.to_thread(work)


def first_sequence(name: str) -> int:
    """The first sequence in a segment's file name, or 0."""
    parsed = parse_segment_name(name)
    return 0 if parsed is None else parsed.first_seq


def _unfit(type_: str, body: bytes, bound: int) -> BadInput:
    """Why a record is not taken."""
    if body[0] != _OBJECT:
        return BadInput(f"record refused: details are not an object (type={type_})")
    return BadInput(
        f"record refused: {bound} bytes > {MAX_RECORD_BYTES} bytes (type={type_})",
        hint="store the payload elsewhere and record its digest",
    )
