"""The write-ahead log: append, group commit, rotate, refuse.

Promises:

* A sequence that `append` returns for a DURABLE record is synced: no crash loses it. For a WRITTEN record it
  has been handed to the kernel: no death of this process loses it. For a BUFFERED record it is in a bounded
  queue: written within 10 ms, synced within 100 ms.
* Sequence, time and place of a record are assigned under one lock, in one order.
* A failed write or sync poisons: the log acknowledges nothing more, says so in its head, closes its file and
  is only opened again through recovery.
* With `keys`, checkpoints are signed over what is synced, before the head runs 2 s or 20,000 records ahead.
* One process writes a directory; a second is told who does. A forked copy refuses to write.

Limits: methods may be called from any thread, but never from a signal handler. Nothing here knows record
types; `AuditLogger` holds records against their schemas.

This file is the log's face: what callers append and read. What happens to a record then stands in `commit.py`,
what nobody waits for in `flusher.py`, signing in `signing.py` and `keeper.py`, opening and closing in
`lifecycle.py`, and what all of them share in `state.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from holdfast.audit.anchor import MarkSource
from holdfast.audit.clockwatch import step_at_start
from holdfast.audit.commit import AT_ONCE_BYTES, Level
from holdfast.audit.format import LINE_OVERHEAD, MAX_RECORD_BYTES, Record, encode_details
from holdfast.audit.keys import KeyHome, check_origin
from holdfast.audit.last_words import LastWords
from holdfast.audit.lifecycle import Lifecycle
from holdfast.audit.schemas import RecordType
from holdfast.audit.storage import LocalStorage, Storage
from holdfast.core.clock import Clock
from holdfast.core.errors import AuditError, BadInput

if TYPE_CHECKING:
    from holdfast.audit.query import AuditEntry, LogReader, Moment

__all__ = ["ROTATE_BYTES", "Entry", "Level", "WriteAheadLog"]

ROTATE_BYTES = 100_000_000

_OBJECT = ord("{")
_BUFFERED, _WRITTEN, _DURABLE, _ANCHORED = Level.BUFFERED, Level.WRITTEN, Level.DURABLE, Level.ANCHORED


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


class WriteAheadLog(Lifecycle):
    """One audit log in one directory.

    It opens lazily: reading needs no lock, the first append takes it and runs recovery.

    Args:
        directory: Where the log lives; created 0700 where it is missing.
        clock: Stamps records and decides when a UTC day ends.
        storage: The disk; the machine's own by default.
        origin: The log's name for other people, written into every segment; one that exists keeps its own.
        rotate_bytes: A segment is rotated before it grows beyond this; at least 4096.
        seal: Whether rotated segments are compressed by a child process.
        buffer_bytes: Bound of the queue of BUFFERED records.
        overflow: What a BUFFERED append does when that bound is reached: "wait" writes the queue out first,
            "gap" drops the record, returns 0 and counts it in a GAP record.
        random_bytes: Where the log id comes from.
        reserve_bytes: Room for last words to have ready, bytes; 0 for a log whose writer has none.
        reserve: A directory on another volume to have it in; None for `run/` in the log's own.
        keys: Where the log's private keys are or will be made; None writes no signatures, and refuses a log that
            has some.
        marks: Who else remembers how far the log was; asked once, at the start.
        anchor: Gives a checkpoint to whoever keeps it outside, and returns once that is done; ANCHORED records wait
            for it.
        replace_key: Begin a new chain of keys where the private key in force is lost.

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
        reserve_bytes: int = 0,
        reserve: Path | None = None,
        keys: KeyHome | None = None,
        marks: Sequence[MarkSource] = (),
        anchor: Callable[[bytes], None] | None = None,
        replace_key: bool = False,
    ) -> None:
        if rotate_bytes < 4096:
            raise BadInput(f"rotate_bytes {rotate_bytes} bytes < 4096 bytes")
        check_origin(origin)
        self._anchor = anchor
        storage = LocalStorage() if storage is None else storage
        super().__init__(
            Path(directory),
            clock=clock,
            storage=storage,
            origin=origin,
            rotate_bytes=rotate_bytes,
            seal=seal,
            buffer_bytes=buffer_bytes,
            overflow=overflow,
            keys=keys,
            marks=marks,
            replace_key=replace_key,
            random_bytes=random_bytes,
            last_words=LastWords(storage, size=reserve_bytes, place=reserve),
        )
        self._reader: LogReader | None = None

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
        return self.append_encoded(
            type, encode_details(details), user=user, component=component, level=level, leaves=leaves
        )

    def append_encoded(
        self,
        type: str,  # noqa: A002  the name of the field in the record
        body: bytes,
        *,
        user: str = "",
        component: str = "",
        level: Level = Level.DURABLE,
        leaves: list[bytes] | None = None,
    ) -> int:
        """`append` for details that are JSON already: one object, as `format.encode_details` writes it."""
        middle = self._middles.get((type, user, component)) or self._middle(type, user, component)
        bound = len(middle) + len(body) + LINE_OVERHEAD
        if bound > MAX_RECORD_BYTES or body[0] != _OBJECT:
            raise _unfit(type, body, bound)
        if level == _ANCHORED:
            self._refuse_unanchored()
        if self._state != "open":
            self.open()
        if level == _WRITTEN and bound <= AT_ONCE_BYTES and leaves is None:
            seq = self._write_at_once(middle, body, bound)
            if seq:
                return seq
        with self._mutex:
            if level == _BUFFERED and self._drops((middle,)):
                return 0
            if self._state != "open":  # nor is a forked child's
                raise self._refusal()
            seq = self._queue.add(self._clock.now_ns(), middle, body, bound, leaves)
            batch = self._batch
            turnstile = self._join(level, batch)
        if level >= _DURABLE:
            self._wait_durable(batch, turnstile)
        else:
            self._wait_written(level, seq)
        if level == _ANCHORED:
            self._anchor_now()
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
        if level == _ANCHORED:
            self._refuse_unanchored()
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
        if level >= _DURABLE:
            self._wait_durable(batch, turnstile)
        else:
            self._wait_written(level, seqs[-1])
        if level == _ANCHORED:
            self._anchor_now()
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
        if level == _ANCHORED:
            self._refuse_unanchored()
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
        if level == _ANCHORED:
            await _in_a_thread(self._anchor_now)
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
        if level == _ANCHORED:
            self._refuse_unanchored()
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
        if level == _ANCHORED:
            await _in_a_thread(self._anchor_now)
        return seqs

    # ------------------------------------------------------------------ checkpoints

    def checkpoint(self) -> bytes:
        """The newest checkpoint, a signed note over everything that was appended before.

        It is durable in the log's history, in the file `checkpoint` and in the high-water mark when this returns.

        Raises:
            BadInput: The log was opened without keys, or holds no record yet.
            AuditWriteError: A write or sync failed, now or before.
        """
        if self._keys is None:
            raise BadInput("no checkpoint: the log was opened without keys")
        self.open()
        self.sync()
        note = self._cover()
        if not note:
            raise BadInput("no checkpoint: the log holds no signed record yet")
        return note

    def rotate(self) -> None:
        """Begin a new segment, and with it a new key, unless the current one is empty; what it holds is durable.

        Raises as `append` does.
        """
        self.open()
        with self._mutex:
            if self._state != "open":
                raise self._refusal()
            self._queue.plan_segment(self._clock.now_ns())
        self.sync()

    def _anchor_now(self) -> None:
        """Cover what is durable and have it kept outside."""
        note = self.checkpoint()
        if self._anchor is not None:
            self._anchor(note)

    def _refuse_unanchored(self) -> None:
        if self._state == "poisoned":
            raise self._refusal()
        if self._keys is None or self._anchor is None:
            raise BadInput(
                "ANCHORED record refused: this log has no keys or no anchor",
                hint="name a sink under [anchors], or append it as DURABLE",
            )

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

    # ------------------------------------------------------------------ last words

    def last_words(
        self,
        type: str,  # noqa: A002  the name of the field in the record
        details: Mapping[str, Any],
        *,
        user: str = "",
        component: str = "",
    ) -> int:
        """Write down what a poisoned log cannot take, in its reserve; durable when this returns its number there.

        The next start appends it as a LATE record.

        Raises:
            BadInput: It cannot be written.
            AuditWriteError: There is no reserve, it is full, or it failed too.
            AuditError: The log is not poisoned: append it.
        """
        if self._state != "poisoned" or self._is_forked():
            raise AuditError("last words refused: the log is not poisoned, append the record")
        return self._last_words.say(self._clock.now_ns(), type, user, component, details)

    def reserve_for(self, positions: int) -> bool:
        """Have room for the last words about *positions* open positions; whether it is there.

        True too for a log that was made without a reserve. It may write to the disk.
        """
        return self._state != "open" or self._last_words.grow(positions)

    @property
    def words_lost(self) -> int:
        """Last words that could not be written down."""
        return self._last_words.lost

    def _tell_of_the_past(self) -> None:
        step = step_at_start(self._last_ts, self._clock.now_ns())
        if step is not None:
            self.append(RecordType.CLOCK_STEP, step.details(), component="journal")
        self._last_words.take_up(
            self._late,
            lambda late: self.append_many(
                [Entry(RecordType.LATE, details, component="journal") for details in late]
            ),
        )

    def _late(self) -> list[Mapping[str, Any]]:
        """The details of every LATE record that is not in an archive; what is there was taken up long ago."""
        from holdfast.audit.pruned import InArchive, read_pruned  # noqa: PLC0415  only after a poisoned log

        try:
            return [entry.details for entry in self.query(event_type=RecordType.LATE)]
        except InArchive:
            home = self._storage.directory(self.directory, create=False)
            try:
                first = read_pruned(home).next_seq
            finally:
                home.close()
            return [record.details for record in self.records(first) if record.type == RecordType.LATE]

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
        event_type: str | Sequence[str] | None = None,
        user_id: str | None = None,
        max_results: int | None = None,
        *,
        component: str | None = None,
        order_id: str | None = None,
        newest_first: bool = False,
    ) -> list[AuditEntry]:
        """Records by time, type, user, component and order id; see `query.LogReader.iter_query`.

        What this log object appended before is included, whatever its level. What one query learned of the log
        makes the next one quicker.
        """
        if self._reader is None:
            from holdfast.audit.query import LogReader  # noqa: PLC0415  the writer alone does not need it

            self._reader = LogReader(self.directory, storage=self._storage, missing_ok=True)
        self._sync_for_reading()
        return self._reader.query(
            start_time, end_time, event_type, user_id, max_results,
            component=component, order_id=order_id, newest_first=newest_first,
        )  # fmt: skip

    def forget_after_fork(self) -> None:
        """As `Lifecycle.forget_after_fork`; another thread may have been in the middle of a query."""
        super().forget_after_fork()
        self._reader = None

    def verify_integrity(self) -> dict[str, Any]:
        """Check every byte of the log; see `verify.verify`."""
        from holdfast.audit.verify import verify  # noqa: PLC0415  the writer alone does not need it

        self._sync_for_reading()
        return verify(self.directory, storage=self._storage, missing_ok=True).to_dict()

    def _sync_for_reading(self) -> None:
        if self._state == "open":
            self.sync()


async def _in_a_thread(work: Callable[[], None]) -> None:
    import asyncio  # noqa: PLC0415  as above

    await asyncio.to_thread(work)


def _unfit(type_: str, body: bytes, bound: int) -> BadInput:
    """Why a record is not taken."""
    if body[0] != _OBJECT:
        return BadInput(f"record refused: details are not an object (type={type_})")
    return BadInput(
        f"record refused: {bound} bytes > {MAX_RECORD_BYTES} bytes (type={type_})",
        hint="store the payload elsewhere and record its digest",
    )
