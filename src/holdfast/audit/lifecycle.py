"""A log's life: open through recovery, close for good, and what a forked copy must not do.

Promise: one process writes a directory, a second is told who does; nothing is written before recovery has
judged what is there; after `close` the head says "closed" and the files are cut. A forked copy refuses to write.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from holdfast.audit import recovery
from holdfast.audit.anchor import MarkSource
from holdfast.audit.bookmark import find_bookmark
from holdfast.audit.clockwatch import ClockWatch
from holdfast.audit.commit import Level
from holdfast.audit.evidence import Evidence, clear_leftovers, gather, open_history, take
from holdfast.audit.flusher import Flusher
from holdfast.audit.format import parse_segment_name
from holdfast.audit.head import Head, HeadState, read_head
from holdfast.audit.history import history_name
from holdfast.audit.holder import NO_RIGHT, held, refuse_foreign, refused_keys, refused_open, write_pid
from holdfast.audit.keys import KeyHome, check_origin
from holdfast.audit.last_words import LastWords
from holdfast.audit.logfiles import refuse_newer
from holdfast.audit.recovery import Scan, Verdict
from holdfast.audit.schemas import RecordType
from holdfast.audit.signing import Reach, Taken
from holdfast.audit.storage import Directory, Storage
from holdfast.core.clock import Clock
from holdfast.core.errors import AuditError


class Lifecycle(Flusher, ABC):
    """A log that can be opened and closed; see `wal.WriteAheadLog`."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        storage: Storage,
        origin: str,
        rotate_bytes: int,
        seal: bool,
        buffer_bytes: int,
        overflow: Literal["wait", "gap"],
        random_bytes: Callable[[int], bytes],
        last_words: LastWords,
        keys: KeyHome | None,
        marks: Sequence[MarkSource],
        replace_key: bool,
    ) -> None:
        super().__init__(
            directory,
            clock=clock,
            origin=origin,
            rotate_bytes=rotate_bytes,
            buffer_bytes=buffer_bytes,
            overflow=overflow,
            random_bytes=random_bytes,
            keys=keys,
        )
        self._marks = marks
        self._replace_key = replace_key
        self._past: tuple[Evidence, Taken] | None = None
        self._storage = storage
        self._seals = seal
        self._last_words = last_words
        self._last_ts = 0
        self._clock_watch = ClockWatch()
        self._opening = threading.Lock()

    @abstractmethod
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
        """Append one record; see `wal.WriteAheadLog`."""

    @abstractmethod
    def _tell_of_the_past(self) -> None:
        """Append what the time before this start left to say."""

    def open(self) -> None:
        """Take the lock and run recovery now instead of at the first append; an open log is left alone.

        Raises as `append` does.
        """
        # Asked before the lock too: in a forked child nobody will ever release it.
        self._refuse_to_open()
        try:
            with self._opening:
                self._refuse_to_open()
                opens = self._state == "closed"
                details = self._open() if opens else None
        finally:
            if self._state == "poisoned":
                self._tell_poisoned()
        if opens:
            self._tell_what_was(details)

    def _tell_what_was(self, recovered: dict[str, Any] | None) -> None:
        """Append what this start has to say of the time before it.

        It is open now, and whatever ends this poisons: a close that followed would say that all is told.
        """
        try:
            if recovered is not None:
                self.append(RecordType.RECOVERY, recovered, component="journal")
            self._tell_of_the_past()
        except BaseException as why:
            if self._state == "open":
                self._poison(why)
                self._tell_poisoned()
            raise

    def _open(self) -> dict[str, Any] | None:
        """Take the lock and recover; returns the details of a RECOVERY record, or None."""
        self._pid = os.getpid()
        _LOGS.add(self)  # a fork from here on makes the copy refuse
        try:
            refuse_foreign(self._storage, self.directory)  # before its mode is changed
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

    def _open_in(self, home: Directory) -> dict[str, Any] | None:
        if not home.try_lock():
            raise held(home)
        mark = read_head(home)
        closed = mark is not None and mark.state is HeadState.CLOSED
        segments = recovery.log_segments(home)
        refuse_newer(home)
        known_before = gather(home, segments, self._keys, self._marks, closed=closed)
        self._origin = known_before.origin or self._origin
        if self._keys is not None:
            check_origin(self._origin)
        bookmark = find_bookmark(home, known_before.log_id, segments, known_before.water, known_before.marks)
        found = recovery.scan(home, known_before.marks, bookmark)
        verdict, known = recovery.judge(found, mark, known_before.marks)
        self._past = known_before, self._choose_key(known_before)
        self._log_id = found.log_id or self._random_bytes(16).hex()
        self._require_keys()
        # Before anything is written: what goes wrong then has its reserve.
        self._last_words.open(home, self._log_id)
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
        self._start_flusher()
        return details

    def _start_flusher(self) -> None:
        self._flusher = threading.Thread(target=self._run_flusher, name="holdfast-audit", daemon=True)
        self._flusher.start()
        if self._keys is not None:
            self._start_keeper()
        atexit.register(self.close)

    def _require_keys(self) -> None:
        """Refuse a log whose keys have no place, before anything of it is written."""
        if self._keys is not None:
            kept = self._keys.log(self._log_id)
            try:
                kept.open_high_water().close()
            except OSError as why:
                raise refused_keys(kept.path, why) from why

    def _choose_key(self, evidence: Evidence) -> Taken:
        kept = self._keys.log(evidence.log_id) if self._keys is not None and evidence.log_id else None
        return take(evidence, kept, replace=self._replace_key)

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
        # The head is on the disk before the first segment is: one that is gone was taken away.
        lost_head = mark is None and bool(found.segments)
        if repaired is None and not copies and not lost_head:
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
        self._last_ts = found.last_ts
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
        if not last.name.sealed:
            self._segment.take_up(home.open(last.name.name, writable=True), last.end)
        is_bare = last.last_seq == last.name.first_seq and not last.name.sealed and not self._spare
        is_signed = self._take_up_signing(home, found, is_bare=is_bare)
        head.write(last.last_seq, last.name.name, last.end)
        if last.name.sealed or self._spare or (self._keys is not None and not is_signed):
            return
        used = last.last_seq >= last.name.first_seq + self._queue.mark_items
        self._queue.take_up_segment(self._segment.end, last.first_ts, used=used)

    def _take_up_signing(self, home: Directory, found: Scan, *, is_bare: bool) -> bool:
        """Cover what is there before anything new; whether the last segment goes on under a key of its own.

        Args:
            home: The log.
            found: All of it durable by now.
            is_bare: Whether its last segment has nothing but its SEGMENT record: then KEY follows here and now.
        """
        if self._keys is None or self._past is None:
            return False
        evidence, taken = self._past
        clear_leftovers(home, recovery.log_segments(home))
        last = found.segments[-1]
        self._signer = signer = self._make_signer(self._keys, home)
        history = None
        if evidence.last_history is not None and evidence.last_history[0] == history_name(last.name.name):
            history = open_history(home, *evidence.last_history)
        signer.take_up(taken, history)
        self._leaves_from = self._written
        if is_bare:
            if history is None:
                signer.begin_segment(last.name.name)
                home.sync()
            with self._sync, self._io:
                self._begin_epoch(signer, self._clock.now_ns(), found.first_missing)
            self._queue.take_up(self._written + 1)
            return True
        signer.resume(Reach(self._written, found.last_ts, last.end, self._frontier.copy()))
        return (
            evidence.epoch is not None
            and evidence.epoch.sequence == last.name.first_seq + 1
            and not taken.lost_epoch
        )

    def _start_sealer(self, home: Directory, found: Scan) -> None:
        from holdfast.audit.seal import Sealer  # noqa: PLC0415  a log that is only read needs no sealer

        self._sealer = Sealer(home, partial(self.append, component="journal"))
        self._sealer.start([segment.name.name for segment in found.segments[:-1]])

    def _forget(self) -> None:
        """Undo a start that failed, so that another may try."""
        with self._io:
            self._segment.close()
            self._segment.file = None
        if self._signer is not None:
            self._signer.close()
            self._signer = None
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
        sealer, home = self._sealer, self._home
        if sealer is not None:
            self._tell_sealer(sealer)
            sealer.close(*(() if self._state == "open" else (0.0,)))
        self._stopping = True
        self._wake.set()
        self._due.set()
        for thread in (self._flusher, self._keeper):
            if thread is not None and thread is not threading.current_thread():
                thread.join()
        # Not before: a close that was interrupted while it waited may be tried again.
        self._ended = True
        atexit.unregister(self.close)
        _LOGS.discard(self)
        try:
            if self._state == "open":
                self._finish()
        finally:
            for thing in (self._segment, self._signer, self._head, self._last_words, home):
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
                        if self._signer is not None:
                            self._signer.finish()
                        self._segment.cut()
                        if self._signer is not None:
                            self._signer.publish()
                            self._complete_tiles(self._signer.signed)
                        head.write(self._durable, file.name, self._segment.end, HeadState.CLOSED)
                        head.flush()
                except OSError as why:
                    self._poison(why)
                    raise self._refusal() from why

    def _complete_tiles(self, size: int) -> None:
        from holdfast.audit.closing import complete_tiles  # noqa: PLC0415  only a close needs the tiles

        if self._home is not None and size:
            complete_tiles(self._home, size, self._leaves_from, self._leaves)

    def forget_after_fork(self) -> None:
        """In a forked child: refuse to write, and give up the lock's descriptor so that the lock dies with the writer.

        Whoever held a lock is not here to release it, so they are made anew; the shared head page is not touched.
        """
        self._state = "closed"
        self._ended = True
        self._opening, self._sync, self._io = threading.Lock(), threading.Lock(), threading.Lock()
        self._segment.filling, self._mutex = threading.Lock(), threading.Lock()
        if self._signer is not None:
            self._signer.forget_after_fork()
        if self._home is not None:
            self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_LOGS: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


def _after_fork() -> None:
    for log in list(_LOGS):
        log.forget_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def first_sequence(name: str) -> int:
    """The first sequence in a segment's file name, or 0."""
    parsed = parse_segment_name(name)
    return 0 if parsed is None else parsed.first_seq
