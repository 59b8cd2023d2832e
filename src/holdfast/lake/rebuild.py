"""Making a lake anew from its journals: the same rows, in a new place, then in the old one's.

    journals ──▶ LAKE.rebuilding-…/  ── compacted, ordered, counted, synced ──▶ changes places with LAKE
                                                                              └▶ LAKE.replaced-… is what was there

Promise: the lake that was there is untouched until the new one is whole, and is kept beside it afterwards. On a
disk both change places in one step, so that a reader finds one of them at any moment; what fails before, a full
disk too, leaves the old one and removes what was begun. The rows are those that the projector writes: the same
records give the same rows, `event_id` included.

With `force` the tables are emptied first and filled in place: on S3, where nothing can be renamed, and on a disk
without room for both. What is interrupted then is run again with `force`. Nothing but a lake's own tables is ever
emptied: a directory that holds other things, or a table that holdfast did not make, is refused before.

Limits: no projector may work in a lake that is rebuilt. On this machine that is checked; on a bucket it is the
caller's to know.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from holdfast.audit.pruned import InArchive
from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import BadInput, LakeDamaged
from holdfast.lake.ahead import PIECE_RECORDS, ReadAhead
from holdfast.lake.commit import BATCH_BYTES, TableWriter
from holdfast.lake.due import MaintenancePolicy
from holdfast.lake.durable import sync_folder
from holdfast.lake.joined import JoinedJournal, journals_of
from holdfast.lake.maintenance import Maintainer
from holdfast.lake.repair import Guard
from holdfast.lake.sink import Reached, Sink
from holdfast.lake.store import SELF_TEST, LakeStore
from holdfast.lake.tables import TABLES, LakeTable

BATCH_ROWS = 50_000
"""A table is committed with so many waiting rows."""
TELL_RECORDS = 500_000
"""Progress is told after so many records of a journal."""

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_ALONE = MaintenancePolicy(retention_secs=0)
"""Nobody else has the new lake open: what compaction replaced goes at once."""
_KEY = frozenset({"event_id", "writer_id", "seq"})
"""Columns that every table of a lake has, of whatever version."""
_OWN = "name a directory or prefix of the lake's own"


class Rebuilt(NamedTuple):
    """What was made.

    Attributes:
        lake: Where.
        records: How many journal records were read.
        rows: Of each table.
        secs: How long it took.
        replaced: Where the lake before is kept, or "".
    """

    lake: str
    records: int
    rows: dict[str, int]
    secs: float
    replaced: str

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.secs if self.secs else 0.0


def rebuild(
    store: LakeStore,
    logs: Sequence[Path],
    *,
    clock: Clock,
    random_bytes: Callable[[int], bytes] = os.urandom,
    force: bool = False,
    tell: Callable[[str], object] = lambda _: None,
) -> Rebuilt:
    """Make the lake in *store* from the journals *logs*.

    Args:
        store: Where it lies, or shall lie.
        logs: Every journal it is made of; restored ones where they come from an archive.
        clock: Days that ended by it are ordered; files bear its time.
        random_bytes: Names what is written.
        force: Empty the tables and fill them in place.
        tell: Is told of the progress, one sentence each.

    Raises:
        BadInput: A journal is not there, or is pruned; a projector works in the lake; the directory holds other things
            than a lake's tables; *force* was not said, and on S3 there is a lake, or it was, and a table is another's.
        AuditCorruption: A journal is damaged; the lake is as it was.
        OSError: The disk refused, for instance for want of space; the lake is as it was, unless *force* was said.
        LakeError: The store refused, gave no answer, or holds other rows than were written.
    """
    started_ns = clock.monotonic_ns()
    work = _Rebuild(journals_of(logs), clock, random_bytes, tell)
    guard = _hold(store)
    try:
        _refuse_other_things(store)
        replaced = ""
        if not store.is_local:
            records, rows = work.in_bucket(store, force=force)
        elif force:
            records, rows = work.in_place(store)
        else:
            records, rows, replaced = work.beside(store)
    finally:
        if guard is not None:
            guard.release()
    return Rebuilt(str(store), records, rows, (clock.monotonic_ns() - started_ns) / NANOS, replaced)


def _hold(store: LakeStore) -> Guard | None:
    """The lake that is there, held so that no projector begins to work in it."""
    if not store.is_local or not store.path.is_dir():
        return None
    guard = Guard(store.path)
    if not guard.alone():
        guard.release()
        raise BadInput(
            f"lake {store}: a projector works in it", hint="stop `holdfast lake project`, then rebuild"
        )
    return guard


def _refuse_other_things(store: LakeStore) -> None:
    """A directory that holds more than tables, such as a project or a journal, is no lake to be changed or emptied."""
    known = {SELF_TEST, *(kind.name for kind in TABLES)}
    if store.is_local and store.path.is_dir():
        others = sorted({path.name for path in store.path.iterdir()} - known)
        if others:
            raise BadInput(f"lake {store}: it holds other things, such as {others[0]!r}", hint=_OWN)


def _refuse_strangers(store: LakeStore) -> None:
    """Refuse to empty what holdfast did not fill; a table that cannot be opened is what emptying is for."""
    for kind in TABLES:
        if not store.has(kind.name):
            store.refuse_other_files(kind.name)
            continue
        try:
            columns = {field.name for field in store.open(kind.name).schema().fields}
        except (LakeDamaged, BadInput):
            continue
        if lacking := sorted(_KEY - columns):
            raise BadInput(
                f"lake {store}: the table {kind.name!r} is another's: it has no column {lacking[0]!r}",
                hint=_OWN,
            )


# -- where it grows ---------------------------------------------------------------------------------------------


class _Rebuild(NamedTuple):
    """What a lake is made of and with; each way returns how many records were read, and the rows of each table."""

    readers: Sequence[JoinedJournal]
    clock: Clock
    random_bytes: Callable[[int], bytes]
    tell: Callable[[str], object]

    def in_bucket(self, store: LakeStore, *, force: bool) -> tuple[int, dict[str, int]]:
        """In the prefix itself; where tables are there, *force* must be said."""
        store.prove(self.random_bytes)
        present = [kind.name for kind in TABLES if store.has(kind.name)]
        if present and not force:
            raise BadInput(
                f"lake {store}: it holds {', '.join(present)} already",
                hint="nothing can be renamed there: name a new place, or empty it with --force",
            )
        _refuse_strangers(store)
        for name in present:
            removed = store.empty(name)
            self.tell(f"{name}: {removed} objects removed")
        return self.fill(store)

    def in_place(self, store: LakeStore) -> tuple[int, dict[str, int]]:
        """In the directory itself, once its tables are gone."""
        _refuse_strangers(store)
        for name in (kind.name for kind in TABLES if store.has(kind.name)):
            shutil.rmtree(store.path / name)
        return self.fill(store)

    def beside(self, store: LakeStore) -> tuple[int, dict[str, int], str]:
        """Beside the directory, which then changes places; also where the lake before is kept, or ""."""
        token = self.random_bytes(4).hex()
        stage = store.beside(f".rebuilding-{token}")
        try:
            stage.prove(self.random_bytes)
            records, rows = self.fill(stage)
            sync_folder(stage.path)
            replaced = _put_in_place(stage.path, store.path, token)
        except BaseException:
            shutil.rmtree(stage.path, ignore_errors=True)
            raise
        return records, rows, replaced

    def fill(self, store: LakeStore) -> tuple[int, dict[str, int]]:
        """Write every row into the empty lake *store*, then order, compact and count it."""
        sinks = {
            table: Sink(TableWriter(store, table, clock=self.clock, random_bytes=self.random_bytes))
            for table in TABLES
        }
        for sink in sinks.values():
            sink.writer.open()
        rows = {table.name: 0 for table in TABLES}
        for reader in self.readers:
            _fill_from(reader, sinks, rows, self.tell)
        maintainer = Maintainer(store, clock=self.clock, policy=_ALONE, tell=self.tell)
        for name, written in rows.items():
            maintainer.run(name, everything=True)
            held = store.open(name).count()
            if held != written:
                raise LakeDamaged(
                    f"lake {store}: {name} holds {held} rows, {written} were written",
                    hint="run it again; if it stays so, report it",
                )
        return sum(reader.next_seq - 1 for reader in self.readers), rows


def _put_in_place(stage: Path, lake: Path, token: str) -> str:
    """Let *stage* be *lake*; where the lake before is kept, or "" where there was none."""
    if not lake.exists():
        stage.rename(lake)
        sync_folder(lake.parent)
        return ""
    replaced = lake.with_name(f"{lake.name}.replaced-{token}")
    _exchange(stage, lake)
    stage.rename(replaced)
    sync_folder(lake.parent)
    return str(replaced)


def _exchange(one: Path, other: Path) -> None:
    """Let two directories change places in one step, where the kernel and the volume can."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(one), os.fsencode(other))
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    if number not in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        raise OSError(number, os.strerror(number), str(other))
    between = one.with_name(f"{one.name}.between")
    other.rename(between)
    one.rename(other)
    between.rename(one)


# -- what it is made of ------------------------------------------------------------------------------------------


def _fill_from(
    reader: JoinedJournal,
    sinks: Mapping[type[LakeTable], Sink],
    rows: dict[str, int],
    tell: Callable[[str], object],
) -> None:
    """Bring one journal whole; *rows* counts what each table got."""
    log_id = reader.log_id
    try:
        reader.seek(1)
    except InArchive as why:
        raise BadInput(
            f"rebuild refused: log {log_id}: {why}",
            hint=f"rebuild from the archive: --archive {why.archive}",
        ) from why
    for sink in sinks.values():
        sink.begin(log_id, 0)
    reached, told, weight = Reached(), 0, 0
    with ReadAhead(reader, PIECE_RECORDS) as ahead:
        while (read := ahead.take()) is not None:
            for table, made in read.made.items():
                sinks[table].take(log_id, made, 0)
                rows[table.name] += len(made.seqs)
            reached, weight = Reached(read.last_seq, read.epoch, read.leaf), weight + read.weight
            heavy = weight >= BATCH_BYTES
            for sink in sinks.values():
                if len(sink) >= BATCH_ROWS or (heavy and sink):
                    _commit(sink, log_id, reached)
            weight = 0 if heavy else weight
            if reached.seq - told >= TELL_RECORDS:
                told = reached.seq
                tell(f"log {log_id[:8]}: {told:,} of {reader.durable:,} records")
    for sink in sinks.values():
        _commit(sink, log_id, reached)
    reader.close()


def _commit(sink: Sink, log_id: str, reached: Reached) -> None:
    sink.commit({log_id: reached}, 0)
    sink.writer.tidy()
