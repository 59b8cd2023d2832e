"""Following the log: the records that match, and then each new one as it becomes durable.

Promise: every matching record is given once, in sequence order, through rotation, sealing and restarts of the
writer, and none before the head says that it is durable. A log that is closed is waited on: its next writer goes
on where it ended. A log that went back, or is damaged, ends the following with `AuditCorruption`.

Limits: it polls the head, `POLL_SECS` apart while nothing comes, and sleeps in between as the caller says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.audit.head import HEAD_NAME
from holdfast.audit.index import Conditions
from holdfast.audit.search import Match, Searcher
from holdfast.audit.storage import Storage
from holdfast.core.errors import AuditCorruption

POLL_SECS = 0.05


def follow(
    path: Path | str, wanted: Conditions, wait: Callable[[float], object], *, storage: Storage | None = None
) -> Iterator[Match]:
    """The matching records that are there, then those that come, for ever.

    Args:
        path: The log; it must exist, but need not hold a record yet.
        wanted: What is asked for.
        wait: Called with `POLL_SECS` whenever there is nothing new; what it raises ends the following.
        storage: Where it lies; the machine's disks by default.

    Raises:
        BadInput: There is no such directory.
        AuditCorruption: The log is damaged, or ends before a record that was durable.
    """
    searcher = Searcher(Path(path), storage)
    seen = 0
    while True:
        durable = searcher.durable()
        if durable < seen:
            raise AuditCorruption(
                f"audit log damaged: its head says {durable}, though sequence {seen} was durable",
                sequence=durable + 1,
                file=HEAD_NAME,
                hint="it was cut, or another log was put in its place; compare it with a copy",
            )
        if durable == seen:
            wait(POLL_SECS)
            continue
        yield from searcher.matches(wanted, between=(seen + 1, durable))
        seen = durable
