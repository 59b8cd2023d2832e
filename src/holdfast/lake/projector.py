"""The projector: what journals say becomes rows of the lake, each exactly once.

Promise: it reads each journal up to its durable head and commits what it read as `commit` describes; whatever ends
it, the next one goes on behind the watermark that the tables themselves hold. Rivals, kill -9, full disks and
stores without answer cost time, never a row, and no row comes twice.

When it commits: a table that holds `rows` waiting rows, or whose oldest one waits for `age_secs`. While it is behind
it takes larger batches, which cost a thirtieth for each row, and reads on in a thread while it commits; what waits is
never heavier than `BATCH_BYTES`. A table without rows is told every `idle_secs` how far its journals were read, so
that a restart need not read again.

What it cannot go on with is named: a journal that went back, was replaced, went another way than the one that the
lake holds, was pruned before it was projected, or is damaged; a lake that is none. What was read before is committed
first.

Limits: a journal is projected from its first record on. Following looks at each head every `POLL_SECS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from holdfast.audit.format import leaf_hash
from holdfast.audit.projected import ProjectorClaim, ProjectorNote
from holdfast.audit.segment import NO_SPACE
from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import AuditCorruption, AuditError, BadInput, ConfigError, LakeUnreachable
from holdfast.lake.ahead import PIECE_RECORDS, Read, ReadAhead, read_from
from holdfast.lake.commit import BATCH_BYTES, Lost, TableWriter
from holdfast.lake.journal import JournalReader, went_back
from holdfast.lake.repair import Guard, repair
from holdfast.lake.resident import resident_bytes
from holdfast.lake.sink import Reached, Sink
from holdfast.lake.store import LakeStore
from holdfast.lake.tables import TABLES, LakeTable

if TYPE_CHECKING:
    from deltalake import DeltaTable

POLL_SECS = 0.05
RECYCLE_COMMITS = 20
"""A process that was started anew for its memory makes at least so many commits before the next time."""
_BEAT_NS = 2 * NANOS
_FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS = 0.1, 30.0


class ProjectorPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a projector commits.

    Attributes:
        rows: A table with so many waiting rows is committed.
        most_rows: While it is behind, batches grow to so many.
        age_secs: A row waits at most so long.
        idle_secs: A table without rows is told so often how far its journals were read.
        idle_records: Or after so many records.
        memory_bytes: Above this resident size the process asks to be started anew; 0 never.
    """

    rows: int = 5_000
    most_rows: int = 50_000
    age_secs: float = 1.0
    idle_secs: float = 60.0
    idle_records: int = 100_000
    memory_bytes: int = 600 << 20

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigError: It lists every bad value.
        """
        bad = [
            f"{name} {value!r}: expected {bound}"
            for name, value, bound, good in (
                ("rows", self.rows, "1 or more", self.rows >= 1),
                ("most_rows", self.most_rows, f"rows ({self.rows}) or more", self.most_rows >= self.rows),
                ("age_secs", self.age_secs, "0 or more", self.age_secs >= 0),
                ("idle_secs", self.idle_secs, "0 or more", self.idle_secs >= 0),
                ("idle_records", self.idle_records, "1 or more", self.idle_records >= 1),
                ("memory_bytes", self.memory_bytes, "0 or more", self.memory_bytes >= 0),
            )
            if not good
        ]
        if bad:
            raise ConfigError(
                "projector refused: " + "; ".join(bad),
                hint="correct --rows, --age and --memory, or [lake] of holdfast.toml",
            )


LOCAL = ProjectorPolicy()
REMOTE = ProjectorPolicy(age_secs=10.0, idle_secs=600.0)
"""For S3, where a commit costs seven requests."""


class Maintains(Protocol):
    """What keeps the tables small; `maintenance.Maintainer` does."""

    def after_commit(self, name: str, table: DeltaTable) -> bool:
        """Do what is due; whether the table has a new version."""
        ...

    def close(self) -> None:
        """Wait for what was begun, and let go of everything."""
        ...


class Progress(NamedTuple):
    """How far the projection of one journal is.

    Attributes:
        log: The journal's directory.
        log_id: Its id; "" while it holds no record.
        covered: The sequence up to which every table holds its rows.
        durable: Its highest durable sequence when it was looked at last.
    """

    log: Path
    log_id: str
    covered: int
    durable: int


class _Source:
    """A journal and how far it was read.

    Attributes:
        reader: Reads it.
        reached: The last record that was read.
        claim: The note that says that it is projected, where it could be held.
    """

    def __init__(self, log: Path) -> None:
        self.reader = JournalReader(log)
        self.reached = Reached()
        self.claim: ProjectorClaim | None = None
        self._ahead: ReadAhead | None = None

    @property
    def log_id(self) -> str:
        return self.reader.log_id

    def look(self) -> None:
        """Look at the head again, unless what it said last is being read ahead."""
        if self._ahead is None:
            self.reader.look()

    def read(self, most: int) -> Read | None:
        """What comes next, about *most* records at most; behind by a whole piece, the rest is read ahead."""
        if self._ahead is None:
            if self.reader.durable - self.reached.seq < PIECE_RECORDS:
                return read_from(self.reader, most)
            self._ahead = ReadAhead(self.reader, PIECE_RECORDS)
        read = self._ahead.take()
        if read is None:
            self.stop()
        return read

    def stop(self) -> None:
        """Read nothing ahead any more; the reader's place is to be found again."""
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None


class Projector:
    """Projects journals into one lake.

    Args:
        logs: The journals' directories, each another log.
        store: The lake.
        clock: For ages, for the notes, and for when a file was written.
        policy: When it commits; None takes `LOCAL` or `REMOTE`, as the lake lies.
        maintenance: Keeps the tables small; None leaves them as they grow.
        random_bytes: Names what is written.
        tell: Called with a sentence about what a person may want to know.

    Attributes:
        commits: How many commits were made.
        lost: How many were lost to rivals.
    """

    def __init__(
        self,
        logs: Sequence[Path],
        store: LakeStore,
        *,
        clock: Clock,
        policy: ProjectorPolicy | None = None,
        maintenance: Maintains | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.commits = 0
        self.lost = 0
        self._store = store
        self._clock = clock
        self._policy = policy or (LOCAL if store.is_local else REMOTE)
        self._maintenance = maintenance
        self._random_bytes = random_bytes
        self._tell = tell
        self._sources = [_Source(log) for log in logs]
        self._reached: dict[str, Reached] = {}  # by log id, of the journals that were begun
        self._sinks: dict[type[LakeTable], Sink] = {
            table: Sink(TableWriter(store, table, clock=clock, random_bytes=random_bytes)) for table in TABLES
        }
        self._guard: Guard | None = None
        self._batch = self._policy.rows
        self._read_bytes = 0  # since everything that waited was committed for its weight
        self._beat_ns = 0
        self._trouble = ""
        self._pause_secs = 0.0

    # -- what is asked of it ------------------------------------------------------------------------------------

    @property
    def wants_new_process(self) -> bool:
        """Whether it holds more memory than it should, so that its process had better be started anew."""
        most = self._policy.memory_bytes
        return bool(most) and self.commits >= RECYCLE_COMMITS and resident_bytes() > most

    def progress(self) -> list[Progress]:
        """How far each journal is."""
        return [
            Progress(source.reader.path, source.log_id, self._covered(source.log_id), source.reader.durable)
            for source in self._sources
        ]

    def start(self) -> None:
        """Prove the store, mend what a power cut tore, open the tables, find each journal's place.

        Raises:
            BadInput: A journal or the lake is not what it should be.
            LakeError: The lake cannot be used.
            AuditError: A journal cannot be.
        """
        for source in self._sources:
            source.reader.look()
        self._store.prove(self._random_bytes)
        self._mend()
        for sink in self._sinks.values():
            sink.writer.open()
            sink.writer.settle()
        if self._guard is not None:
            self._guard.share()
        for source in self._sources:
            source.claim = ProjectorClaim.take(source.reader.path, self._store.uri)
            if source.log_id:
                self._begin(source)
        self._beat(now=True)

    def run(self, *, follow: bool, wait: Callable[[float], bool]) -> None:
        """Project what is durable now; with *follow* also what comes, until *wait* says that it is time to end.

        It also ends where its process should be started anew (`wants_new_process`).

        Args:
            follow: Whether to go on.
            wait: Waits so many seconds and says whether to end. What was read by then is committed before.

        Raises:
            TradingError: What it cannot go on with, once what was read before is committed.
            OSError: The disk refused; while following, a full one is waited for.
        """
        ending = False
        while not ending and not self.wants_new_process:
            commits = self.commits
            try:
                worked = self._round(look=follow)
            except (AuditError, BadInput):
                self._finish()
                raise
            except (OSError, LakeUnreachable) as why:
                if not follow or not _may_pass(why):
                    raise
                ending = self._wait_out(why, wait)
                continue
            if self.commits > commits:
                self._is_well()
            self._beat()
            if not follow and not worked:
                break
            ending = wait(0.0 if worked else POLL_SECS)
        self._finish()

    def close(self) -> None:
        """Let go of everything; what is not committed is in the journal."""
        self._beat(now=True)
        if self._maintenance is not None:
            self._maintenance.close()
        for source in self._sources:
            source.stop()
            source.reader.close()
            if source.claim is not None:
                source.claim.release()
                source.claim = None
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    # -- starting -----------------------------------------------------------------------------------------------

    def _mend(self) -> None:
        if not self._store.is_local:
            return
        self._guard = Guard(self._store.path)
        if not self._guard.alone():
            self._guard.share()  # others are at work: there was no power cut since they began
            return
        stamp = f"{datetime.fromtimestamp(self._clock.now_ns() // NANOS, UTC):%Y%m%dT%H%M%SZ}"
        for table in TABLES:
            for moved in repair(self._store.path / table.name, stamp):
                self._tell(f"lake repaired: {table.name}/_delta_log/{moved.name} moved aside: {moved.why}")

    def _begin(self, source: _Source) -> None:
        """Go to where the tables are, once the journal's id is known.

        Raises:
            BadInput: Another one of the journals is the same log; or what is to come was pruned.
            AuditCorruption: The journal ends before what the lake holds of it, or says something else.
        """
        log_id = source.log_id
        if log_id in self._reached:
            raise BadInput(
                f"{str(source.reader.path)!r} is log {log_id}, which is projected already",
                hint="name each log once; a copy of it is the same log",
            )
        for sink in self._sinks.values():
            sink.begin(log_id, self._clock.monotonic_ns())
        self._refuse_other_course(source)
        self._reached[log_id] = source.reached
        self._rewind(source)

    def _refuse_other_course(self, source: _Source) -> None:
        furthest = max(self._sinks.values(), key=lambda sink: sink.watermarks[source.log_id])
        last = furthest.watermarks[source.log_id]
        if last > source.reader.durable:
            source.reader.look()  # a rival may have read further since
        if last > source.reader.durable:
            raise went_back(source.reader.durable, last, str(source.reader.path))
        noted = furthest.writer.last_leaf(source.log_id, last) if last else ""
        line = source.reader.last_line(last) if noted else None
        if line is not None and leaf_hash(line).hex() != noted:
            raise AuditCorruption(
                f"audit log {str(source.reader.path)!r} went another way: its sequence {last} is not the one "
                f"that was projected into {self._store}",
                sequence=last,
                hint="it was cut and written on; verify it, then `holdfast lake rebuild`",
            )

    def _rewind(self, source: _Source) -> None:
        """Read on behind the lowest watermark; what waits of this journal is read again."""
        for sink in self._sinks.values():
            sink.drop(source.log_id)
        source.stop()
        source.reached.seq = self._covered(source.log_id)
        source.reader.seek(source.reached.seq + 1)

    def _covered(self, log_id: str) -> int:
        return min(sink.watermarks.get(log_id, 0) for sink in self._sinks.values())

    # -- working ------------------------------------------------------------------------------------------------

    def _round(self, *, look: bool) -> bool:
        """Read a batch and commit what is due; whether anything was done."""
        done = self.commits + self.lost
        came = self._read(look=look)
        unread = sum(source.reader.durable - source.reached.seq for source in self._sources if source.log_id)
        heavy = self._read_bytes >= BATCH_BYTES
        for sink in self._sinks.values():
            if self._is_due(sink) or (heavy and sink):
                self._commit(sink)
        if heavy:
            self._read_bytes = 0
        behind = unread > self._batch
        self._batch = min(2 * self._batch, self._policy.most_rows) if behind else self._policy.rows
        return came or self.commits + self.lost > done

    def _read(self, *, look: bool) -> bool:
        """Read a batch from every journal; whether anything came."""
        came = False
        for source in self._sources:
            if look:
                source.look()
            if not source.log_id:
                continue
            if source.log_id not in self._reached:
                self._begin(source)
            left = self._batch
            while left > 0 and self._read_bytes < BATCH_BYTES and (read := source.read(left)) is not None:
                self._take(source, read)
                self._read_bytes += read.weight
                left -= read.records
                came = True
        return came

    def _take(self, source: _Source, read: Read) -> None:
        now_ns = self._clock.monotonic_ns()
        for table, made in read.made.items():
            self._sinks[table].take(source.log_id, made, now_ns)
        reached = source.reached
        reached.seq, reached.epoch, reached.leaf = read.last_seq, read.epoch, read.leaf

    def _is_due(self, sink: Sink) -> bool:
        policy, now_ns = self._policy, self._clock.monotonic_ns()
        if sink:
            return len(sink) >= policy.rows or now_ns - sink.since_ns >= policy.age_secs * NANOS
        untold = sink.untold(self._reached)
        if not untold:
            return False
        return untold >= policy.idle_records or now_ns - sink.told_ns >= policy.idle_secs * NANOS

    def _commit(self, sink: Sink) -> None:
        try:
            made = sink.commit(self._reached, self._clock.monotonic_ns())
        except Lost:
            self.lost += 1
            back = sink.resync(self._clock.monotonic_ns())
            for source in self._sources:
                if source.log_id in back:
                    self._rewind(source)
            return
        if made:
            self.commits += 1
            self._keep_small(sink.writer)

    def _keep_small(self, writer: TableWriter) -> None:
        writer.tidy()
        maintenance = self._maintenance
        if maintenance is not None and maintenance.after_commit(writer.table.name, writer.handle):
            writer.open()

    def _finish(self) -> None:
        """Commit everything that was read, and tell every table how far that is."""
        for sink in self._sinks.values():
            while sink.untold(self._reached):
                self._commit(sink)

    # -- trouble ------------------------------------------------------------------------------------------------

    def _wait_out(self, why: Exception, wait: Callable[[float], bool]) -> bool:
        """Wait for a disk with room, or a store that answers; whether it is time to end."""
        if not self._trouble:
            self._tell(f"waiting: {why}; what is not committed yet stays in the journal")
        self._trouble = str(why)
        self._pause_secs = min(2 * self._pause_secs or _FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS)
        self._beat(now=True)
        return wait(self._pause_secs)

    def _is_well(self) -> None:
        if self._trouble:
            self._tell("going on: the lake takes rows again")
            self._trouble, self._pause_secs = "", 0.0

    def _beat(self, *, now: bool = False) -> None:
        """Write the notes beside the logs, now and then."""
        monotonic_ns = self._clock.monotonic_ns()
        if not now and monotonic_ns - self._beat_ns < _BEAT_NS:
            return
        self._beat_ns = monotonic_ns
        for source in self._sources:
            if source.claim is not None:
                source.claim.say(
                    ProjectorNote(
                        pid=os.getpid(),
                        lake=self._store.uri,
                        log_id=source.log_id,
                        covered=self._covered(source.log_id),
                        durable=source.reader.durable,
                        commits=self.commits,
                        beat_ns=self._clock.now_ns(),
                        trouble=self._trouble,
                    )
                )


def _may_pass(why: Exception) -> bool:
    """Whether it is worth waiting for: a full disk is emptied, a store comes back."""
    return isinstance(why, LakeUnreachable) or (isinstance(why, OSError) and why.errno in NO_SPACE)
