"""Group commit: how records get from the queue to the disk, and how everybody who waits is told.

Promise: the order of work is write -> fdatasync -> head -> acknowledge, and no caller is told otherwise. A failed
write or sync poisons: nothing more is acknowledged, and a failed sync is never tried again, because after one
the kernel drops the data and reports success.

How a commit goes. A record waits in a queue under the `_mutex`. Whoever holds `_io` takes the whole queue and
writes it; a WRITTEN record that finds the queue empty is written at once, and its leaf is left to whoever needs the tree
next. Whoever holds `_sync` serves one batch of waiters: it writes the queue, syncs, moves the head and wakes. The segment's `filling` guards the growth of the file. A synchronous caller that finds its batch without a
leader leads it; the next batch gathers meanwhile. Asynchronous callers are served by one flusher thread, which
also writes and syncs what nobody waits for, and takes over a batch whose leader was interrupted before it began.

Limits: nothing here opens, recovers or closes (`lifecycle.py`), and no thread is started (`flusher.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from enum import IntEnum
from hashlib import sha256
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec

from holdfast.audit.backlog import Item
from holdfast.audit.format import (
    FILLER,
    FORMAT_VERSION,
    LINE_OVERHEAD,
    assemble_line,
    encode_details,
    line_middle,
    segment_name,
)
from holdfast.audit.keys import KeyHome
from holdfast.audit.schemas import SCHEMA_VERSION, RecordType
from holdfast.audit.signing import LogSigner, Reach
from holdfast.audit.state import LogState
from holdfast.audit.storage import Directory, File
from holdfast.audit.waiting import Batch
from holdfast.core.errors import AuditWriteError, BadInput

if TYPE_CHECKING:
    import asyncio

IDLE_SECS = 1.0
AT_ONCE_BYTES = 4096
_MOST_UNHASHED = 256
"""What is written at once is short, and of leaves left for later there are at most a megabyte."""
_stamp = itemgetter(0)


class Level(IntEnum):
    """How safe a record is before its append returns: in the queue, with the kernel, on the disk, known outside."""

    BUFFERED = 0
    WRITTEN = 1
    DURABLE = 2
    ANCHORED = 3


# The members by their own names: looking one up in its class costs as much as a lock.
_BUFFERED, _WRITTEN, _DURABLE = Level.BUFFERED, Level.WRITTEN, Level.DURABLE


class Committer(LogState):
    """A log that writes, syncs and acknowledges; see `wal.WriteAheadLog`."""

    # ------------------------------------------------------------------ waiting

    def _join(self, level: Level, batch: Batch) -> threading.Lock | None:
        """The lock to wait on as a follower, or None for the batch's leader; call under the mutex."""
        if level < _DURABLE:
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
                if turnstile.acquire(timeout=IDLE_SECS):
                    turnstile.release()
                    break
        if batch.error is not None or not batch.finished:
            raise self._refusal()

    def _write_at_once(self, middle: bytes, body: bytes, bound: int) -> int:
        """Hand one record to the kernel without queueing it; its sequence, or 0 where it has to queue.

        It keeps the order of the queue, because it passes an empty one with both locks held, and the order of the
        file, because nobody else writes meanwhile. The tree has its leaf before the next sync is aimed.
        """
        try:
            with self._io:
                with self._mutex:
                    ts, queue = self._clock.now_ns(), self._queue
                    seq = queue.pass_by(ts, bound) if self._state == "open" else 0
                    if not seq:
                        return 0
                    covered = b'"seq":%d,"synced":%d,"ts":%d%b%b}' % (seq, self._durable, ts, middle, body)
                    line = b'{"crc":"%08x",%b\n' % (crc32(covered), covered)
                    queue.plan_bytes += len(line)
                    if self._flusher_idle:
                        self._kick()
                self._segment.put(line)
                self._written = seq
                self._written_ts = ts
                lines = self._unhashed
                if not lines or ts < self._unhashed_ts:
                    self._unhashed_ts = ts
                lines.append(line)
                if len(lines) >= _MOST_UNHASHED:
                    self._hash_written()
                return seq
        except Exception as why:
            self._poison(why)
            raise self._refusal() from why
        except BaseException as why:
            self._poison(why)
            raise
        finally:
            if self._state == "poisoned":
                self._tell_poisoned()

    def _wait_written(self, level: Level, seq: int) -> None:
        if level == _WRITTEN or (self._overflow == "wait" and self._queue.bytes > self._buffer_bytes):
            self._write_out(seq)

    def _join_async(self, level: Level) -> asyncio.Future[None] | None:
        """A future that ends with the record's batch; call under the mutex, on the event loop."""
        if level == _BUFFERED and self._queue.bytes <= self._buffer_bytes:
            if self._flusher_idle:
                self._kick()
            return None
        batch = self._batch if level >= _DURABLE else self._written_batch
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

    def _middle(self, type_: str, user: str, component: str) -> bytes:
        if type_ in {RecordType.SEGMENT, RecordType.KEY}:
            raise BadInput(f"record refused: {type_} begins a file, and only the log writes it")
        middle = line_middle(type_, user, component)
        if len(self._middles) >= 4096:
            self._middles.clear()
        self._middles[type_, user, component] = middle
        return middle

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
                self._take_aim()
            if file is not None and target > self._durable:
                self._acknowledge(file, target, end)
            batch.finish(None)
        except Exception as why:
            self._poison(why)
            raise self._refusal() from why
        except BaseException as why:
            self._poison(why)
            raise

    def _cover(self) -> bytes:
        """The newest checkpoint, over everything that is synced now; b"" for a log without one."""
        try:
            with self._sync:
                return b"" if self._signer is None else self._signer.cover()
        except Exception as why:
            self._poison(why)
            raise self._refusal() from why
        except BaseException as why:
            self._poison(why)
            raise
        finally:
            if self._state == "poisoned":
                self._tell_poisoned()

    def _take_batch(self) -> Batch:
        """Those who wait now; whoever comes later waits for the next commit."""
        with self._mutex:
            if self._state == "poisoned":
                raise self._refusal()
            batch = self._serving = self._batch
            batch.led = True
            self._batch = Batch()
        return batch

    def _take_aim(self) -> None:
        """Remember how far the log is written, for the checkpoint behind the next sync; call with `_io` held."""
        self._hash_written()
        if self._signer is not None:
            self._aim = Reach(self._written, self._written_ts, self._segment.end, self._frontier.copy())

    def _acknowledge(self, file: File, target: int, end: int) -> None:
        """Sync what is written up to *target*, sign where the head would run ahead, then say so in the head."""
        file.fdatasync()
        if self._signer is not None:
            self._signer.synced(self._aim)
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
        start = index = 0
        while index < len(items):
            ts, middle, _, _ = items[index]
            if middle:
                index += 1
                continue
            self._write_lines(items[start:index], first + start)
            self._begin_segment(ts, first + index)
            start = index = index + self._queue.mark_items
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
        self._hash_written()
        if len(items) == 1:
            return self._write_line(items[0], first)
        crc = crc32
        lines: list[bytes] = []
        add = lines.append
        seq, synced = first, self._durable
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
        if self._signer is not None:
            self._note_written(self._signer, items[-1][0], min(map(_stamp, items)), b"".join(leaves))
        if sinks:
            _hand_out(leaves, items)
        return len(data)

    def _write_line(self, item: Item, seq: int) -> int:
        """`_write_lines` for one record, as most callers append them."""
        ts, middle, details, sink = item
        line = assemble_line(seq, self._durable, ts, middle, details)
        self._segment.put(line + FILLER)
        self._written = seq
        leaf = sha256(b"\0" + line).digest()
        self._frontier.append(leaf)
        if self._signer is not None:
            self._note_written(self._signer, ts, ts, leaf)
        if sink is not None:
            sink.append(leaf)
        return len(line) + 1

    def _note_written(self, signer: LogSigner, ts: int, oldest_ts: int, leaves: bytes) -> None:
        """Remember what a checkpoint will need of the lines just written; call with `_io` held."""
        self._written_ts = ts
        self._keep_leaves(leaves)
        signer.wrote(self._written, oldest_ts)

    # ------------------------------------------------------------------ segments

    def _begin_segment(self, ts: int, seq: int) -> None:
        """Close the current segment and begin the next; call with `_sync` and `_io` held."""
        if self._home is None:
            raise AuditWriteError("audit log is not open")
        segment = self._segment
        if not self._log_id:
            self._log_id = self._random_bytes(16).hex()
        if self._signer is None and self._keys is not None:
            self._signer = self._make_signer(self._keys, self._home)
        signer = self._signer
        with segment.filling:
            old = segment.file
            if old is not None:
                self._take_aim()
                if self._written > self._durable:
                    self._acknowledge(old, self._written, segment.end)
                if signer is not None:
                    signer.end_segment(self._aim)
                segment.cut()
                self._rotated.append(old.name)
                old.close()
            name = self._spare or segment_name(ts, seq)
            file = self._home.open(name, writable=True) if self._spare else self._home.create(name)
            self._spare = ""
            segment.begin(file)
            if signer is not None:
                signer.begin_segment(name)
            self._home.sync()
        self._leaves.clear()
        self._leaves_from = self._written
        details = {
            "format": FORMAT_VERSION,
            "schema": SCHEMA_VERSION,
            "log_id": self._log_id,
            "origin": self._origin,
            "first_seq": seq,
            "root": self._frontier.root().hex(),
            "clock": self._clock.source,
        }
        # Durable before any other line of the segment.
        self._write_own(RecordType.SEGMENT, details, ts, seq)
        if signer is not None:
            self._begin_epoch(signer, ts, seq + 1)

    def _begin_epoch(self, signer: LogSigner, ts: int, seq: int) -> None:
        """Let the segment's own key sign from here on; call with `_sync` and `_io` held."""
        details = signer.begin_epoch(self._origin)
        self._write_own(RecordType.KEY, msgspec.structs.asdict(details), ts, seq)
        signer.enter_epoch(self._aim)

    def _write_own(self, type_: str, details: Mapping[str, Any], ts: int, seq: int) -> None:
        """Write one of the lines that a segment begins with, durably."""
        file = self._segment.file
        if file is None:
            raise AuditWriteError("audit log is not open")
        line = assemble_line(
            seq, self._durable, ts, line_middle(type_, "", "journal"), encode_details(details)
        )
        self._segment.put(line + FILLER)
        self._written = seq
        leaf = sha256(b"\0" + line).digest()
        self._frontier.append(leaf)
        if self._signer is not None:
            self._note_written(self._signer, ts, ts, leaf)
            self._take_aim()
        self._acknowledge(file, seq, self._segment.end)

    def _make_signer(self, keys: KeyHome, home: Directory) -> LogSigner:
        return LogSigner(keys.log(self._log_id), home, self._clock, self._due.set)


def _hand_out(leaves: Sequence[bytes], items: Sequence[Item]) -> None:
    """Give each leaf hash to whoever asked for it."""
    for leaf, item in zip(leaves, items, strict=True):
        if item[3] is not None:
            item[3].append(leaf)
