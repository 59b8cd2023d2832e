"""When a table of the lake wants what: decided from the table's own facts, so that a restart forgets nothing.

    day            action      when                                                    what
    any            compact     more than 64 small files, or the oldest is an hour old  few files, rows in their order
    closed         order       an hour after its end, when nothing comes any more      sorted by execution_id, time
    whole table    checkpoint  every 100 commits                                       a start reads one file
    whole table    vacuum      daily, weekly in full                                   files of no version, after 7 days
    whole table    clean up    with each vacuum                                        log entries older than 7 days

Pure: `facts_of` of maintenance.py reads the table, and `Maintainer` does what is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import msgspec

from holdfast.core.clock import NANOS
from holdfast.core.errors import ConfigError

DAY_SECS = 86_400
SHARED_SECS = 3_600
"""Where others work, files of no version are kept at least so long: a commit that is on its way names some of them."""
_SPREAD_SECS = 600


class MaintenancePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When what is done.

    Attributes:
        checkpoint_commits: A checkpoint after so many commits; opening reads at most so many log entries.
        compact_files: An open day with more small files is compacted; readers slow down with their number.
        compact_secs: An open day is compacted when its oldest small file is that old.
        open_file_bytes: What a compacted file of an open day may reach; bounds the pause of one compaction.
        closed_file_bytes: What a file of a closed day may reach.
        settle_secs: A day is ordered so long after its end, and after its last new file.
        vacuum_secs: From one vacuum to the next.
        full_vacuum_secs: From one full vacuum to the next; it lists the whole table.
        retention_secs: Files of no version are kept that long for readers of older ones. 0 is for a lake that
            nobody else has open.
        log_alarm_bytes: `_delta_log` beyond it is told: clean-up does not keep up.
        files_alarm: More live files are told.
        open_alarm_secs: A slower opening is told.
        memory_alarm_bytes: A process beyond it is told; a projector recycles itself.
    """

    checkpoint_commits: int = 100
    compact_files: int = 64
    compact_secs: int = 3600
    open_file_bytes: int = 16 << 20
    closed_file_bytes: int = 128 << 20
    settle_secs: int = 3600
    vacuum_secs: int = DAY_SECS
    full_vacuum_secs: int = 7 * DAY_SECS
    retention_secs: int = 7 * DAY_SECS
    log_alarm_bytes: int = 256 << 20
    files_alarm: int = 5000
    open_alarm_secs: float = 2.0
    memory_alarm_bytes: int = 600 << 20

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; every field at once."""
        wrong = [
            f"{name}={getattr(self, name)!r} is not positive"
            for name in self.__struct_fields__
            if name != "retention_secs" and not getattr(self, name) > 0
        ]
        if self.retention_secs < 0:
            wrong.append(f"retention_secs={self.retention_secs!r} is negative")
        if wrong:
            raise ConfigError("maintenance policy refused: " + "; ".join(wrong))


class Action(StrEnum):
    """What maintenance does."""

    CHECKPOINT = "checkpoint"
    COMPACT = "compact"
    ORDER = "order"
    VACUUM = "vacuum"
    FULL_VACUUM = "full vacuum"


class Step(NamedTuple):
    """One thing that is due.

    Attributes:
        action: What.
        day: Of which day's files; None for the whole table.
    """

    action: Action
    day: date | None = None

    def __str__(self) -> str:
        """For messages."""
        return f"{self.action} {self.day}" if self.day is not None else self.action.value


class LiveFile(NamedTuple):
    """One file of the newest version.

    Attributes:
        size: Bytes.
        written_ns: When it was written, UTC nanoseconds.
        rows: How many it holds.
    """

    size: int
    written_ns: int
    rows: int


class Facts(NamedTuple):
    """What a table says of itself.

    Attributes:
        version: Its newest version.
        checkpoint: The version of its newest checkpoint, -1 for none.
        days: The live files of each day.
        vacuumed_ns: When it was vacuumed last, 0 for never.
        vacuumed_full_ns: When in full, 0 for never.
    """

    version: int
    checkpoint: int
    days: Mapping[date, tuple[LiveFile, ...]]
    vacuumed_ns: int
    vacuumed_full_ns: int

    @property
    def files(self) -> int:
        """How many live files there are."""
        return sum(map(len, self.days.values()))

    @property
    def rows(self) -> int:
        """How many rows they hold."""
        return sum(one.rows for files in self.days.values() for one in files)

    @property
    def size(self) -> int:
        """Their length in bytes."""
        return sum(one.size for files in self.days.values() for one in files)


def due(facts: Facts, policy: MaintenancePolicy, now_ns: int) -> tuple[Step, ...]:
    """What is to be done now, in this order."""
    steps: list[Step] = []
    for day, files in sorted(facts.days.items()):
        if _wants_order(day, files, policy, now_ns):
            steps.append(Step(Action.ORDER, day))
        elif _wants_compaction(day, files, policy, now_ns):
            steps.append(Step(Action.COMPACT, day))
    if facts.version - facts.checkpoint >= policy.checkpoint_commits:
        steps.append(Step(Action.CHECKPOINT))
    if is_older(facts.vacuumed_full_ns, policy.full_vacuum_secs, now_ns):
        steps.append(Step(Action.FULL_VACUUM))
    elif is_older(facts.vacuumed_ns, policy.vacuum_secs, now_ns):
        steps.append(Step(Action.VACUUM))
    return tuple(steps)


def end_ns(day: date) -> int:
    """When the UTC *day* ends, nanoseconds."""
    following = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    return int(following.timestamp()) * NANOS


def _wants_order(day: date, files: tuple[LiveFile, ...], policy: MaintenancePolicy, now_ns: int) -> bool:
    """Whether a closed, settled day holds files that no ordering wrote, or that came after the last one.

    One file that was written after the day closed is taken as ordered: it is, or it is small.
    """
    closed_ns = end_ns(day) + policy.settle_secs * NANOS
    newest, oldest = max(one.written_ns for one in files), min(one.written_ns for one in files)
    if now_ns < closed_ns or not is_older(newest, policy.settle_secs, now_ns):
        return False
    if oldest < closed_ns or newest - oldest > _SPREAD_SECS * NANOS:
        return True
    mean = sum(one.size for one in files) / len(files)
    return len(files) > 1 and mean < policy.closed_file_bytes / 4


def _wants_compaction(day: date, files: tuple[LiveFile, ...], policy: MaintenancePolicy, now_ns: int) -> bool:
    """Whether a day holds too many small files, or an open one small files that are old.

    A closed day is soon ordered; compacting it would let it look as if something had just come.
    """
    small = [one for one in files if one.size < policy.open_file_bytes * 3 // 4]
    if len(small) > policy.compact_files:
        return True
    if now_ns >= end_ns(day) + policy.settle_secs * NANOS:
        return False
    behind_largest = sorted(small)[:-1]
    return any(is_older(one.written_ns, policy.compact_secs, now_ns) for one in behind_largest)


def is_older(then_ns: int, secs: int, now_ns: int) -> bool:
    """Whether *then_ns* was at least *secs* before *now_ns*."""
    return now_ns - then_ns >= secs * NANOS
