"""Keeping the lake's tables small and quick: doing what due.py says is due.

Promise: no row is ever lost, doubled or changed. Compaction and ordering rewrite the same rows into fewer files
beside rivals that append; a commit that meets one of theirs is tried again. What maintenance writes is synced before
anything is removed. A process that is killed anywhere in it leaves the table as before or as after; the files of an
unfinished rewrite belong to no version and fall to the next full vacuum.

Ordering a day takes a gigabyte of memory for seconds: a projector lets a process of its own do it.

Limits: it is the committer's work; two maintainers of one table waste work but harm nothing. What is due is by the
clock that is handed in; what delta-rs removes and notes is by the machine's own. Whoever reads an older version than
the retention finds its files gone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.core.clock import NANOS, Clock
from holdfast.lake.due import Action, Facts, LiveFile, MaintenancePolicy, Step, due, end_ns, is_older
from holdfast.lake.durable import sync_checkpoint, sync_versions
from holdfast.lake.encodings import delta_properties
from holdfast.lake.extras import load
from holdfast.lake.resident import resident_bytes
from holdfast.lake.store import LakeStore
from holdfast.lake.tables import PARTITION

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable

ORDER_COLUMNS = ("execution_id", "timestamp")
OTHER_ORDER = ("symbol", "timestamp")
RETRIES = 100
"""How often a commit that met a rival's is tried again; rivals only add files, so that the first retry goes through."""

_VACUUMED = "holdfast:maintenance:vacuum"
_VACUUMED_FULL = "holdfast:maintenance:full-vacuum"


def vacuums_of(table: DeltaTable) -> tuple[int, int]:
    """When the open *table* was vacuumed last, and when in full; UTC nanoseconds, 0 for never.

    On S3 this reads every commit behind the checkpoint: whoever asks often remembers.
    """
    times = [(table.transaction_version(name) or 0) * NANOS for name in (_VACUUMED, _VACUUMED_FULL)]
    return max(times), times[1]


def facts_of(table: DeltaTable, checkpoint: int, vacuums: tuple[int, int] = (0, 0)) -> Facts:
    """What the open *table* says of itself.

    Args:
        table: Open at its newest version.
        checkpoint: The version of its newest checkpoint, which it does not say.
        vacuums: As `vacuums_of` gave them.
    """
    adds = load("pyarrow").table(table.get_add_actions(flatten=True))
    wanted = (f"partition.{PARTITION}", "size_bytes", "modification_time", "num_records")
    columns: list[list[Any]] = [adds.column(name).to_pylist() for name in wanted]
    days: dict[date, list[LiveFile]] = {}
    for day, size, written_ms, rows in zip(*columns, strict=True):
        days.setdefault(day, []).append(LiveFile(size, written_ms * 1_000_000, rows or 0))
    return Facts(
        table.version(),
        checkpoint,
        {day: tuple(files) for day, files in days.items()},
        *vacuums,
    )


class Done(NamedTuple):
    """What one step did.

    Attributes:
        table: Which table.
        step: What was done.
        removed: Files that left the newest version, or the disk by a vacuum.
        added: Files that came in their place.
        changed: Whether the table has a new version.
    """

    table: str
    step: Step
    removed: int = 0
    added: int = 0
    changed: bool = False


class _Seen:
    """What a maintainer remembers of a table between two looks."""

    def __init__(self, now_ns: int) -> None:
        self.commits = 0
        self.looked_ns = now_ns
        self.alarmed_ns = now_ns
        self.vacuums: tuple[int, int] | None = None
        self.apart: subprocess.Popen[bytes] | None = None


class Maintainer:
    """Does what is due, for the process that commits."""

    LOOK_COMMITS = 16
    LOOK_SECS = 30
    ALARM_SECS = 3600

    def __init__(
        self,
        store: LakeStore,
        *,
        clock: Clock,
        policy: MaintenancePolicy | None = None,
        tell: Callable[[str], object] = lambda _: None,
        order_apart: bool = False,
    ) -> None:
        """Maintain the tables in *store*.

        Args:
            store: Where they lie.
            clock: What is due is decided by it, and how long an opening takes.
            policy: When what is done.
            tell: Is told of each step and alarm, one sentence each.
            order_apart: Whether closed days are ordered by processes of their own, which this one does not await.
        """
        self.store = store
        self.policy = policy or MaintenancePolicy()
        self._clock = clock
        self._tell = tell
        self._order_apart = order_apart
        self._seen: dict[str, _Seen] = {}

    def after_commit(self, name: str, table: DeltaTable) -> bool:
        """Do what is due of the table *name*, open as *table*; whether it has versions that *table* does not know.

        Cheap when called after every commit: it looks every 16 commits or 30 seconds.
        """
        now_ns, seen = self._clock.now_ns(), self._seen.get(name)
        if seen is None:
            seen = self._seen[name] = _Seen(now_ns)
        changed = self._reap(name, seen)
        seen.commits += 1
        if seen.commits < self.LOOK_COMMITS and not is_older(seen.looked_ns, self.LOOK_SECS, now_ns):
            return changed
        seen.commits, seen.looked_ns = 0, now_ns
        facts = self._facts(name, table, seen)
        if is_older(seen.alarmed_ns, self.ALARM_SECS, now_ns):
            seen.alarmed_ns = now_ns
            for sentence in self.alarms(name):
                self._tell(sentence)
        for step in due(facts, self.policy, now_ns):
            if step.action is Action.ORDER and self._order_apart:
                self._start_apart(name, step, seen)
            else:
                changed |= self._do(name, step, now_ns, seen).changed
        return changed

    def run(self, name: str, *, everything: bool = False, day: date | None = None) -> list[Done]:
        """Do all that is due of the table *name*, ordering included, before returning.

        Args:
            name: The table.
            everything: Do every action on every day, due or not; open days are compacted, closed ones ordered.
            day: Only order that day.
        """
        now_ns, table = self._clock.now_ns(), self.store.open(name)
        seen = self._seen.setdefault(name, _Seen(now_ns))
        facts = self._facts(name, table, seen)
        if day is not None:
            steps: tuple[Step, ...] = (Step(Action.ORDER, day),) if day in facts.days else ()
        elif everything:
            steps = (
                *(Step(_rewrite_of(one, now_ns), one) for one in sorted(facts.days)),
                Step(Action.CHECKPOINT),
                Step(Action.FULL_VACUUM),
            )
        else:
            steps = due(facts, self.policy, now_ns)
        return [self._do(name, step, now_ns, seen) for step in steps]

    def alarms(self, name: str) -> list[str]:
        """What is too large or too slow about the table *name*, one sentence each; lists its files."""
        policy = self.policy
        start_ns = self._clock.monotonic_ns()
        table = self.store.open(name)
        took = (self._clock.monotonic_ns() - start_ns) / NANOS
        listed, live = self.store.listed(name), len(table.file_uris())
        memory = resident_bytes()
        measured = (
            (listed.log_bytes, policy.log_alarm_bytes, "bytes of log", "vacuum and clean-up do not keep up"),
            (live, policy.files_alarm, "live files", "compaction does not keep up"),
            (took, policy.open_alarm_secs, "s to open", "take a checkpoint, compact, clean up"),
            (memory, policy.memory_alarm_bytes, "bytes of memory", "start this process anew"),
        )
        return [
            f"lake {self.store}: {name} has {value:,.{1 if isinstance(value, float) else 0}f} > {bound:,} {what}: {advice}"
            for value, bound, what, advice in measured
            if value > bound
        ]

    def close(self) -> None:
        """Wait for the processes that order days; what they began is finished, not broken off."""
        for seen in self._seen.values():
            if seen.apart is not None:
                seen.apart.wait()
                seen.apart = None

    # -- one step ----------------------------------------------------------------------------------------------

    def _facts(self, name: str, table: DeltaTable, seen: _Seen) -> Facts:
        if seen.vacuums is None:
            seen.vacuums = vacuums_of(table)
        return facts_of(table, self.store.last_checkpoint(name), seen.vacuums)

    def _do(self, name: str, step: Step, now_ns: int, seen: _Seen) -> Done:
        table = self.store.open(name)
        before = table.version()
        removed = added = 0
        try:
            with self.store.failures(f"{step} of {name!r}"):
                match step.action:
                    case Action.CHECKPOINT:
                        table.create_checkpoint()
                    case Action.COMPACT | Action.ORDER:
                        removed, added = self._rewrite(table, step)
                    case Action.VACUUM | Action.FULL_VACUUM:
                        full = step.action is Action.FULL_VACUUM
                        removed = self._vacuum(name, table, now_ns, full=full)
                        # A vacuum that finds nothing commits nothing: it is remembered here alone.
                        seen.vacuums = (now_ns, now_ns if full or seen.vacuums is None else seen.vacuums[1])
        except load("deltalake.exceptions").CommitFailedError as why:
            self._tell(f"{name}: {step} met other commits and is left for later: {why}")
            return Done(name, step)
        if step.action is Action.CHECKPOINT:
            self._sync_checkpoint(name)
        after = table.version()
        self._sync(name, before, after)
        if removed or added:
            self._tell(f"{name}: {step}: {removed} files gone, {added} new")
        return Done(name, step, removed, added, after > before)

    def _rewrite(self, table: DeltaTable, step: Step) -> tuple[int, int]:
        columns = {field.name for field in table.schema().fields}
        asked: dict[str, Any] = {
            "partition_filters": [(PARTITION, "=", str(step.day))],
            "writer_properties": delta_properties(columns),
            "commit_properties": _commit_properties({}),
        }
        if step.action is Action.COMPACT:
            metrics = table.optimize.compact(**asked, target_size=self.policy.open_file_bytes)
        else:
            order = ORDER_COLUMNS if set(ORDER_COLUMNS) <= columns else OTHER_ORDER
            metrics = table.optimize.z_order(
                [name for name in order if name in columns],
                **asked,
                target_size=self.policy.closed_file_bytes,
            )
        return metrics["numFilesRemoved"], metrics["numFilesAdded"]

    def _vacuum(self, name: str, table: DeltaTable, now_ns: int, *, full: bool) -> int:
        """Remove files of no version, then the log entries that a checkpoint has made needless."""
        table.create_checkpoint()
        self._sync_checkpoint(name)
        moment = now_ns // NANOS
        applied = {_VACUUMED: moment} | ({_VACUUMED_FULL: moment} if full else {})
        removed = table.vacuum(
            retention_hours=self.policy.retention_secs // 3600,
            dry_run=False,
            enforce_retention_duration=False,
            full=full,
            commit_properties=_commit_properties(applied),
        )
        table.cleanup_metadata()
        return len(removed)

    def _sync(self, name: str, before: int, after: int) -> None:
        if self.store.is_local and after > before:
            sync_versions(self.store.path / name, before + 1, after)

    def _sync_checkpoint(self, name: str) -> None:
        if self.store.is_local:
            sync_checkpoint(self.store.path / name)

    # -- ordering in a process of its own ----------------------------------------------------------------------

    def _start_apart(self, name: str, step: Step, seen: _Seen) -> None:
        if seen.apart is not None:
            return
        words = ["lake", "maintain", "--lake", self.store.uri, "--table", name, "--day", str(step.day)]
        self._tell(f"{name}: {step}: begun by a process of its own")
        seen.apart = subprocess.Popen(  # noqa: S603  our own command
            [sys.executable, "-m", "holdfast", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def _reap(self, name: str, seen: _Seen) -> bool:
        """Whether a process that ordered a day has ended since the last look."""
        if seen.apart is None or (code := seen.apart.poll()) is None:
            return False
        seen.apart = None
        if code:
            self._tell(f"{name}: ordering a day ended with status {code}; it will be tried again")
        return True


def _rewrite_of(day: date, now_ns: int) -> Action:
    return Action.ORDER if now_ns >= end_ns(day) else Action.COMPACT


def _commit_properties(applied: Mapping[str, int]) -> CommitProperties:
    delta: Any = load("deltalake")
    properties: CommitProperties = delta.CommitProperties(
        max_commit_retries=RETRIES,
        app_transactions=[delta.Transaction(name, version) for name, version in applied.items()],
    )
    return properties
