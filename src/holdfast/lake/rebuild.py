"""Making a lake anew from its journals: the same rows, in a new place, then in the old one's.

    journals ──▶ LAKE.rebuilding-…/  ── compacted, ordered, counted, synced ──▶ changes places with LAKE
                                                                              └▶ LAKE.replaced-… is what was there

Promise: the lake that was there is untouched until the new one is whole, and is kept beside it afterwards. On a
disk both change places in one step, so that a reader finds one of them at any moment; what fails before, a full
disk too, leaves the old one and removes what was begun. The rows are those that the projector writes: the same
records give the same rows, `event_id` included.

With `force` the tables are emptied first and filled in place: on S3, where nothing can be renamed, and on a disk
without room for both. What is interrupted then is run again with `force`.

Limits: no projector may work in a lake that is rebuilt. On this machine that is checked; on a bucket it is the
caller's to know.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from holdfast.audit.pruned import InArchive
from holdfast.core.errors import BadInput, LakeDamaged
from holdfast.lake.ahead import ReadAhead
from holdfast.lake.commit import BATCH_BYTES, TableWriter
from holdfast.lake.due import MaintenancePolicy
from holdfast.lake.durable import sync_folder
from holdfast.lake.joined import JoinedJournal, journals_of
from holdfast.lake.maintenance import Maintainer
from holdfast.lake.repair import Guard
from holdfast.lake.sink import Reached, Sink
from holdfast.lake.store import LakeStore
from holdfast.lake.tables import TABLES, LakeTable

BATCH_ROWS = 50_000
TELL_RECORDS = 500_000

_PIECE = 8192
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_ALONE = MaintenancePolicy(retention_secs=0)
"""Nobody else has the new lake open: what compaction replaced goes at once."""


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
    now_ns: int,
    force: bool = False,
    tell: Callable[[str], object] = lambda _: None,
) -> Rebuilt:
    """Make the lake in *store* from the journals *logs*.

    Args:
        store: Where it lies, or shall lie.
        logs: Every journal it is made of; restored ones where they come from an archive.
        now_ns: The time, UTC nanoseconds; days that ended before are ordered.
        force: Empty the tables and fill them in place.
        tell: Is told of the progress, one sentence each.

    Raises:
        BadInput: A journal is not there, or is pruned; a projector works in the lake; *force* was not said, and on S3
            there is a lake, or on a disk the directory holds other things than tables.
        AuditCorruption: A journal is damaged; the lake is as it was.
        OSError: The disk refused, for instance for want of space; the lake is as it was, unless *force* was said.
        LakeError: The store refused, gave no answer, or holds other rows than were written.
    """
    started = time.monotonic()
    readers = journals_of(logs)
    present = [kind.name for kind in TABLES if store.has(kind.name)]
    guard = _hold(store)
    try:
        if not store.is_local:
            records, rows = _rebuild_in_bucket(store, readers, present, now_ns, force=force, tell=tell)
            replaced = ""
        elif force:
            for name in present:
                shutil.rmtree(store.path / name)
            records, rows = _fill(store, readers, now_ns, tell)
            replaced = ""
        else:
            _refuse_other_things(store)
            records, rows, replaced = _rebuild_beside(store, readers, now_ns, tell)
    finally:
        if guard is not None:
            guard.release()
    return Rebuilt(str(store), records, rows, time.monotonic() - started, replaced)


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
    """A directory that holds more than tables, such as a project or a journal, does not change its place."""
    tables = {kind.name for kind in TABLES}
    others = sorted({path.name for path in store.path.iterdir()} - tables) if store.path.is_dir() else []
    if others:
        raise BadInput(
            f"lake {store}: it holds other things, such as {others[0]!r}",
            hint="name a directory of the lake's own, or fill the tables in place with --force",
        )


# -- where it grows ---------------------------------------------------------------------------------------------


def _rebuild_in_bucket(
    store: LakeStore,
    readers: Sequence[JoinedJournal],
    present: Sequence[str],
    now_ns: int,
    *,
    force: bool,
    tell: Callable[[str], object],
) -> tuple[int, dict[str, int]]:
    store.prove()
    if present and not force:
        raise BadInput(
            f"lake {store}: it holds {', '.join(present)} already",
            hint="nothing can be renamed there: name a new place, or empty it with --force",
        )
    for name in present:
        removed = store.empty(name)
        tell(f"{name}: {removed} objects removed")
    return _fill(store, readers, now_ns, tell)


def _rebuild_beside(
    store: LakeStore, readers: Sequence[JoinedJournal], now_ns: int, tell: Callable[[str], object]
) -> tuple[int, dict[str, int], str]:
    token = secrets.token_hex(4)
    stage = store.beside(f".rebuilding-{token}")
    try:
        stage.prove()
        records, rows = _fill(stage, readers, now_ns, tell)
        sync_folder(stage.path)
        replaced = _put_in_place(stage.path, store.path, token)
    except BaseException:
        shutil.rmtree(stage.path, ignore_errors=True)
        raise
    return records, rows, replaced


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


def _fill(
    store: LakeStore, readers: Sequence[JoinedJournal], now_ns: int, tell: Callable[[str], object]
) -> tuple[int, dict[str, int]]:
    """Write every row of *readers* into the empty lake *store*, then order, compact and count it."""
    sinks = {table: Sink(TableWriter(store, table)) for table in TABLES}
    for sink in sinks.values():
        sink.writer.open()
    rows = {table.name: 0 for table in TABLES}
    for reader in readers:
        _fill_from(reader, sinks, rows, tell)
    maintainer = Maintainer(store, policy=_ALONE, tell=tell)
    for name, written in rows.items():
        maintainer.run(name, now_ns, everything=True)
        held = store.open(name).count()
        if held != written:
            raise LakeDamaged(
                f"lake {store}: {name} holds {held} rows, {written} were written",
                hint="run it again; if it stays so, report it",
            )
    return sum(reader.next_seq - 1 for reader in readers), rows


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
    with ReadAhead(reader, _PIECE) as ahead:
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
