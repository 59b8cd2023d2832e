"""One table's commits: rows and the journals' progress in one step, so that each row is there exactly once.

Protocol, in this order, all of it from one snapshot handle:

    1  the watermark of each journal is read from the handle (app transaction `holdfast:<log id>`, version = the last
       sequence that the table covers)
    2  data files are written under new names; on a disk, synced with their folders
    3  one commit names the files and raises the watermarks; the store refuses it where a version came first that
       raised one of the same watermarks (then a rival was faster: nothing of ours counts)
    4  the handle goes on to that version; on a disk, the commit and its folder are synced

Promise: whatever ends a process between two of these steps, and however many projectors work on one journal, a row
counts if and only if the watermark covers it. An unknown outcome is never guessed: the handle is thrown away, and
the next one says what holds. A file that no version names is left for vacuum; nothing is ever deleted here.

On S3, where an object is there as a whole or not at all, delta-rs itself does steps 2 to 4.

Limits: the fence holds within one handle. Whoever reads the watermark from one handle and commits with another
writes rows twice; that is why both are methods of one object here, and why `commit` compares. Times and names are as
the clock and the random bytes say that were handed in, but for what delta-rs writes by itself: a commit's own time, and
the files on S3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from holdfast.audit.tree import Frontier
from holdfast.core.clock import Clock
from holdfast.lake.create import delta_schema, no_hooks, open_table
from holdfast.lake.durable import forget_versions, sync_checkpoint, sync_folder, sync_versions, write_new
from holdfast.lake.encodings import delta_properties, parquet_options
from holdfast.lake.extras import load
from holdfast.lake.filestats import written_stats
from holdfast.lake.store import LOG_FOLDER, LakeStore
from holdfast.lake.tables import PARTITION, LakeTable

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable
    from deltalake.transaction import AddAction

METADATA_KEY = "holdfast"
"""Under this key of its commitInfo a commit says what it covers, as JSON."""
CHECKPOINT_COMMITS = 50
"""A held handle grows dearer with each commit: after so many it is checkpointed and opened anew."""
KEPT_VERSIONS = 200
"""So many versions behind a checkpoint stay in the log of a table on a disk."""
BATCH_BYTES = 64 << 20
"""Journal of so many bytes is committed whatever the number of its rows: records may be 65,000 bytes long."""
MAX_RETRIES = 200
"""Commits of other journals may come first so often before an attempt is given up, and made again."""

_OUTDATED = "Invalid table version"
"""What delta-rs says where the commits behind its snapshot were cleaned up."""


class Span(NamedTuple):
    """What a commit covers of one journal.

    Attributes:
        log_id: The journal.
        first: The sequence behind the watermark.
        last: The sequence up to which the table is complete after the commit.
        epoch: The first sequence of the segment that holds record *last*.
        leaves: Leaf hashes of the rows' records, in sequence order.
        leaf: Leaf hash of record *last*, so that a journal that went another way is known.
    """

    log_id: str
    first: int
    last: int
    epoch: int
    leaves: Sequence[bytes]
    leaf: bytes


class NotedSpan(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit notes of one span.

    Attributes:
        log_id: The journal.
        first: The sequence behind the watermark before.
        last: The watermark after.
        epoch: The first sequence of the segment that holds record *last*.
        rows: How many rows the commit adds of this journal.
        root: RFC 9162 root over the leaf hashes of their records, in sequence order, hexadecimal.
        leaf: Leaf hash of record *last*, hexadecimal.
    """

    log_id: str
    first: int
    last: int
    epoch: int
    rows: int
    root: str
    leaf: str


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit says of itself: enough to compare it with the journal, and to know that it is whole.

    Attributes:
        v: 1.
        files: How many files it adds.
        logs: The spans that it covers, each with an app transaction in the same commit.
    """

    v: int
    files: int
    logs: list[NotedSpan]


class Lost(Exception):
    """The commit does not count, or nobody knows: open the table anew, read the watermarks, go on from there."""


def app_id(log_id: str) -> str:
    """The name under which a table keeps a journal's watermark."""
    return f"holdfast:{log_id}"


class TableWriter:
    """Writes one table of a lake.

    Args:
        store: Where the lake lies.
        table: Which table.
        clock: Says when a data file was written.
        random_bytes: Names data files; rivals must draw different ones.

    Attributes:
        store: As given.
        table: As given.
        commits: How many commits were made.
    """

    def __init__(
        self,
        store: LakeStore,
        table: type[LakeTable],
        *,
        clock: Clock,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.store = store
        self.table = table
        self.commits = 0
        self._clock = clock
        self._random_bytes = random_bytes
        self._handle: DeltaTable | None = None
        self._age = 0  # commits since the handle was opened
        self._watermarks: dict[str, int] = {}  # in that handle
        columns = table.column_names()
        self._data_columns = [name for name in columns if name != PARTITION]
        self._schema: Any = delta_schema(table)
        self._folders: set[str] = set()

    @property
    def handle(self) -> DeltaTable:
        """The snapshot that watermarks are read from and commits are made with."""
        return self._handle or self.open()

    @property
    def version(self) -> int:
        """The version of that snapshot."""
        return self.handle.version()

    def open(self) -> DeltaTable:
        """Take the newest version, made or widened where it must be; the handle before is forgotten.

        Raises:
            BadInput: Something else stands there: another table, other files.
            LakeError: The store refused, gave no answer, or the table is damaged.
        """
        self._handle = None
        handle = open_table(self.store, self.table)
        self._handle, self._age, self._watermarks = handle, 0, {}
        return handle

    def settle(self) -> None:
        """Sync what a process before may have left unsynced: everything behind the newest checkpoint."""
        if not self.store.is_local:
            return
        table = self.store.path / self.table.name
        log = table / LOG_FOLDER
        newest = max((int(path.name[:20]) for path in log.glob("*.checkpoint*.parquet")), default=-1)
        sync_checkpoint(table)
        sync_versions(table, newest + 1, self.version)
        sync_folder(table)

    def watermark(self, log_id: str) -> int:
        """The sequence up to which the table holds the rows of journal *log_id*, in this snapshot; 0 for none."""
        handle = self.handle
        if log_id not in self._watermarks:
            # Read once for each handle: delta-rs looks through every commit behind the checkpoint for it.
            self._watermarks[log_id] = handle.transaction_version(app_id(log_id)) or 0
        return self._watermarks[log_id]

    def commit(self, rows: Any, spans: Sequence[Span]) -> None:
        """Add *rows* and raise the watermark of each span's journal, both or neither.

        Args:
            rows: Exactly the rows of the spans' records, as a `pyarrow.Table`; anything empty where there is none.
            spans: At most one for each journal, from its watermark on.

        Raises:
            Lost: A rival came first, or the outcome is unknown; the handle is gone.
            OSError: The disk refused, for instance for want of space; likewise.
            LakeError: The store refused or gave no answer; likewise.
        """
        handle = self.handle
        before = handle.version()
        elsewhere = [span.log_id for span in spans if self.watermark(span.log_id) != span.first - 1]
        self._handle = None  # until this commit is known to be the newest: what fails in between leaves none
        if elsewhere:
            raise Lost(f"the table is elsewhere in {', '.join(elsewhere)} than the rows begin")
        if self.store.is_local or not rows:
            with self.store.failures(f"write to {self.table.name!r}"):
                actions = self._write_files(rows)
            self._make_commit(handle, actions, spans)
        else:
            self._write_and_commit(handle, rows, spans)
        self._refuse_jump(handle, before, spans)
        if self.store.is_local:
            # Where a rival's commit came between, its data files are not known to be synced.
            own = (handle.version(),) if handle.version() == before + 1 else ()
            sync_versions(self.store.path / self.table.name, before + 1, handle.version(), own_data=own)
        self._handle = handle
        self._watermarks |= {span.log_id: span.last for span in spans}
        self._age += 1
        self.commits += 1

    def tidy(self) -> None:
        """Checkpoint and open anew where the handle has become dear; call between commits."""
        if self._handle is None or self._age < CHECKPOINT_COMMITS:
            return
        handle = self._handle
        self._handle = None
        with self.store.failures(f"checkpoint {self.table.name!r}"):
            handle.create_checkpoint()
        if self.store.is_local:
            sync_checkpoint(self.store.path / self.table.name)
            forget_versions(self.store.path / self.table.name, KEPT_VERSIONS)
        self.open()

    def last_leaf(self, log_id: str, last: int) -> str:
        """The leaf hash of record *last* of journal *log_id*, as a kept commit noted it; "" where none did.

        On S3 only the newest `CHECKPOINT_COMMITS` are asked: each is a request.
        """
        most = None if self.store.is_local else CHECKPOINT_COMMITS
        with self.store.failures(f"read the history of {self.table.name!r}"):
            history: list[dict[str, Any]] = self.handle.history(most)
        for said in (commit[METADATA_KEY] for commit in history if METADATA_KEY in commit):
            for span in msgspec.json.decode(said, type=Noted).logs:
                if (span.log_id, span.last) == (log_id, last):
                    return span.leaf
        return ""

    # -- writing ------------------------------------------------------------------------------------------------

    def _write_files(self, rows: Any) -> list[AddAction]:
        """A data file for each day of *rows*, on the disk when this returns."""
        return [self._write_file(day, _by_time(some)) for day, some in _days(rows)]

    def _write_file(self, day: date, arrow: Any) -> AddAction:
        transaction: Any = load("deltalake.transaction")
        data = _parquet(arrow.select(self._data_columns))
        value = day.isoformat()
        folder = f"{PARTITION}={value}"
        path = f"{folder}/part-{self._random_bytes(16).hex()}.zstd.parquet"
        self._put(folder, path, data)
        written_ms = self._clock.now_ns() // 1_000_000
        add: AddAction = transaction.AddAction(
            path, data.size, {PARTITION: value}, written_ms, True, written_stats(arrow)
        )
        return add

    def _put(self, folder: str, path: str, data: Any) -> None:
        table = self.store.path / self.table.name
        if folder not in self._folders:
            (table / folder).mkdir(exist_ok=True)
            sync_folder(table)
            self._folders.add(folder)
        write_new(table / path, memoryview(data))
        sync_folder(table / folder)

    def _make_commit(self, handle: DeltaTable, actions: Sequence[AddAction], spans: Sequence[Span]) -> None:
        """Commit files that are there, and let the handle go on to that version."""
        with self._failures():
            handle.create_write_transaction(
                list(actions),
                "append",
                self._schema,
                [PARTITION],
                commit_properties=self._properties(spans, len(actions)),
                post_commithook_properties=no_hooks(),
            )
            handle.update_incremental()

    def _write_and_commit(self, handle: DeltaTable, rows: Any, spans: Sequence[Span]) -> None:
        """The same where delta-rs writes the files too: nothing is to be synced, and it asks the store less often."""
        delta: Any = load("deltalake")
        with self._failures():
            delta.write_deltalake(
                handle,
                _by_time(rows),
                mode="append",
                writer_properties=delta_properties(self.table.column_names()),
                commit_properties=self._properties(spans, len(_days(rows))),
                post_commithook_properties=no_hooks(),
            )

    def _refuse_jump(self, handle: DeltaTable, before: int, spans: Sequence[Span]) -> None:
        """Raise where others committed meanwhile and the newest version does not hold what we committed.

        A handle so old that the log behind it was cleaned up could commit below a checkpoint, where nobody looks.
        """
        if handle.version() == before + 1:
            return
        self._watermarks = {}  # theirs may have raised another journal's, and the store refuses only what comes later
        for span in spans:
            if handle.transaction_version(app_id(span.log_id)) != span.last:
                raise Lost(f"the newest version does not hold the watermark of {span.log_id}")

    @contextmanager
    def _failures(self) -> Generator[None]:
        known: Any = load("deltalake.exceptions")
        with self.store.failures(f"commit to {self.table.name!r}"):
            try:
                yield
            except known.CommitFailedError as why:
                raise Lost(f"a rival's commit came first: {why}") from why
            except known.DeltaError as why:
                if _OUTDATED in str(why):
                    raise Lost(f"rivals went on beyond what their log still tells: {why}") from why
                raise

    def _properties(self, spans: Sequence[Span], files: int) -> CommitProperties:
        delta: Any = load("deltalake")
        properties: CommitProperties = delta.CommitProperties(
            custom_metadata={METADATA_KEY: _noted(spans, files)},
            max_commit_retries=MAX_RETRIES,
            app_transactions=[delta.Transaction(app_id(span.log_id), span.last) for span in spans],
        )
        return properties


def _noted(spans: Sequence[Span], files: int) -> str:
    logs: list[NotedSpan] = []
    for span in spans:
        tree = Frontier()
        tree.extend(span.leaves)
        logs.append(
            NotedSpan(
                log_id=span.log_id,
                first=span.first,
                last=span.last,
                epoch=span.epoch,
                rows=len(span.leaves),
                root=tree.root().hex(),
                leaf=span.leaf.hex(),
            )
        )
    return msgspec.json.encode(Noted(v=1, files=files, logs=logs)).decode()


def _days(rows: Any) -> list[tuple[date, Any]]:
    """The rows of each UTC day, in order; none of no rows."""
    compute: Any = load("pyarrow.compute")
    if not rows:
        return []
    days: list[date] = sorted(compute.unique(rows[PARTITION]).to_pylist())
    if len(days) == 1:
        return [(days[0], rows)]
    return [(day, rows.filter(compute.equal(rows[PARTITION], day))) for day in days]


def _by_time(rows: Any) -> Any:
    """*rows* by time, and as they came where that is the same; mostly they are so already."""
    compute: Any = load("pyarrow.compute")
    times = rows["ts_ns"].combine_chunks()
    if compute.all(compute.less_equal(times[:-1], times[1:])).as_py() is not False:
        return rows
    return rows.take(compute.sort_indices(times))


def _parquet(arrow: Any) -> Any:
    """A Parquet file as a `pyarrow.Buffer`."""
    pyarrow: Any = load("pyarrow")
    parquet: Any = load("pyarrow.parquet")
    out = pyarrow.BufferOutputStream()
    # A checksum on every page: what a power cut zeroed in the middle of a file is known from it.
    parquet.write_table(arrow, out, write_page_checksum=True, **parquet_options(arrow.column_names))
    return out.getvalue()
