"""Asking the log: the records that match some conditions, or every line up to the head.

Promise: what is returned was durable when the reading began, in sequence order, complete, and checked line by
line; where something that had to be read is damaged, `AuditCorruption` names the place and nothing is quietly left
out. Reading takes no lock and works from any process while another one writes, rotates and seals.

A `LogReader` keeps what it learned of the log between its queries and answers the next one in milliseconds; the
functions of this module make one for a single call. How they find things: `search`.

Limits: records that are written but not yet durable (at most the last 100 ms of a live log) are not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from math import isfinite
from pathlib import Path
from typing import Any, cast

import msgspec

from holdfast.audit.format import Record, decode_line
from holdfast.audit.index import Conditions
from holdfast.audit.logfiles import checked_lines, open_log, read_batches
from holdfast.audit.schemas import SCHEMAS
from holdfast.audit.search import Match, Searcher
from holdfast.audit.storage import Directory, Storage
from holdfast.core.clock import NANOS, utc
from holdfast.core.errors import BadInput

Moment = int | float | Decimal | datetime
"""Unix seconds, or an aware datetime."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = 10**12


class AuditEntry(msgspec.Struct, frozen=True):
    """One record as a search returns it.

    Attributes:
        event_type: The record's type.
        user_id: Who.
        sequence: Its place in the log, from 1.
        timestamp_ns: UTC nanoseconds since 1970.
        component: Which part wrote it, or "".
        details: As written.
    """

    event_type: str
    user_id: str
    sequence: int
    timestamp_ns: int
    component: str
    details: dict[str, Any]

    @classmethod
    def of(cls, record: Record) -> AuditEntry:
        """The entry of a stored record."""
        return cls(record.type, record.user, record.seq, record.ts, record.component, record.details)

    @property
    def timestamp(self) -> datetime:
        """When, as an aware UTC datetime, cut to microseconds."""
        return utc(self.timestamp_ns)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values; `timestamp` as ISO 8601."""
        return {
            "sequence": self.sequence,
            "timestamp": self.timestamp.isoformat(),
            "timestamp_ns": self.timestamp_ns,
            "event_type": self.event_type,
            "user_id": self.user_id,
            "component": self.component,
            "details": self.details,
        }


class LogReader:
    """Answers queries over one log and remembers its indexes in between; safe for many threads.

    Attributes:
        directory: The log.

    Args:
        directory: The log; it need not exist yet.
        storage: Where it lies; the machine's disks by default.
        missing_ok: Whether a directory that does not exist is a log without records.
    """

    def __init__(
        self, directory: Path | str, *, storage: Storage | None = None, missing_ok: bool = False
    ) -> None:
        self.directory = Path(directory)
        self._missing_ok = missing_ok
        self._searcher = Searcher(self.directory, storage)

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
        """Every durable record that matches all of the conditions given; see `iter_query`."""
        return list(
            self.iter_query(
                start_time, end_time, event_type, user_id, max_results,
                component=component, order_id=order_id, newest_first=newest_first,
            )
        )  # fmt: skip

    def iter_query(
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
    ) -> Iterator[AuditEntry]:
        """Matching records one by one, without holding more than a block of the log.

        Args:
            start_time: Not before this: Unix seconds or an aware datetime.
            end_time: Before this.
            event_type: A record type, or several of which one must match.
            user_id: Who.
            max_results: Stop after so many; None returns all.
            component: Which part wrote it.
            order_id: The venue's order id or our client order id, in the record's details.
            newest_first: Highest sequence first, instead of lowest.

        Raises:
            BadInput: A condition cannot be read (a datetime without time zone, NaN), or cannot be met (the end
                before the start, a type that looks misspelt and occurs nowhere); or there is no such directory.
            InArchive: Records that may match were pruned; they are in the archive.
            AuditCorruption: The log is damaged somewhere in the part that had to be read.
        """
        wanted = conditions(start_time, end_time, event_type, user_id, component=component, order_id=order_id)
        matches = self._matches(wanted, max_results, newest_first=newest_first)
        return (AuditEntry.of(match.record) for match in matches)

    def iter_matching_lines(
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
    ) -> Iterator[tuple[int, bytes]]:
        """As `iter_query`: each record's sequence and the line it is stored as, without newline."""
        wanted = conditions(start_time, end_time, event_type, user_id, component=component, order_id=order_id)
        return (
            (match.record.seq, match.line)
            for match in self._matches(wanted, max_results, newest_first=newest_first)
        )

    def _matches(self, wanted: Conditions, max_results: int | None, *, newest_first: bool) -> Iterator[Match]:
        if max_results is not None and (isinstance(max_results, bool) or max_results < 0):
            raise BadInput(
                f"max_results {max_results!r} is not a count", hint="0 or more; without it all are given"
            )
        self.check_types(wanted.types)
        return self._searcher.matches(
            wanted, max_results, newest_first=newest_first, missing_ok=self._missing_ok
        )

    def check_types(self, types: frozenset[str] | None) -> None:
        """Refuse a type that occurs nowhere and resembles one that does or could.

        Raises:
            BadInput: It names the type and what it resembles.
        """
        unknown = (types or frozenset()) - SCHEMAS.keys()
        if not unknown:
            return
        import difflib  # noqa: PLC0415  only a slip needs it

        present = self._searcher.types(missing_ok=self._missing_ok)
        for type_ in sorted(unknown - present):
            close = difflib.get_close_matches(type_.upper(), sorted({*SCHEMAS, *present}), n=1, cutoff=0.7)
            if close:
                raise BadInput(
                    f"no record has the type {type_!r}",
                    hint=f"did you mean {close[0]}? types are in capitals",
                )


def query(  # noqa: PLR0917  a fixed signature of the contract
    directory: Path | str,
    start_time: Moment | None = None,
    end_time: Moment | None = None,
    event_type: str | Sequence[str] | None = None,
    user_id: str | None = None,
    max_results: int | None = None,
    *,
    component: str | None = None,
    order_id: str | None = None,
    newest_first: bool = False,
    storage: Storage | None = None,
    missing_ok: bool = False,
) -> list[AuditEntry]:  # fmt: skip
    """Every durable record that matches all of the conditions given; see `LogReader.iter_query`."""
    return LogReader(directory, storage=storage, missing_ok=missing_ok).query(
        start_time, end_time, event_type, user_id, max_results,
        component=component, order_id=order_id, newest_first=newest_first,
    )  # fmt: skip


def iter_query(  # noqa: PLR0917  a fixed signature of the contract
    directory: Path | str,
    start_time: Moment | None = None,
    end_time: Moment | None = None,
    event_type: str | Sequence[str] | None = None,
    user_id: str | None = None,
    max_results: int | None = None,
    *,
    component: str | None = None,
    order_id: str | None = None,
    newest_first: bool = False,
    storage: Storage | None = None,
    missing_ok: bool = False,
) -> Iterator[AuditEntry]:
    """Matching records one by one; see `LogReader.iter_query`."""
    return LogReader(directory, storage=storage, missing_ok=missing_ok).iter_query(
        start_time, end_time, event_type, user_id, max_results,
        component=component, order_id=order_id, newest_first=newest_first,
    )  # fmt: skip


def iter_matching_lines(  # noqa: PLR0917  as iter_query
    directory: Path | str,
    start_time: Moment | None = None,
    end_time: Moment | None = None,
    event_type: str | Sequence[str] | None = None,
    user_id: str | None = None,
    max_results: int | None = None,
    *,
    component: str | None = None,
    order_id: str | None = None,
    newest_first: bool = False,
    storage: Storage | None = None,
    missing_ok: bool = False,
) -> Iterator[tuple[int, bytes]]:
    """Sequence and stored line of each matching record; see `LogReader.iter_query`."""
    return LogReader(directory, storage=storage, missing_ok=missing_ok).iter_matching_lines(
        start_time, end_time, event_type, user_id, max_results,
        component=component, order_id=order_id, newest_first=newest_first,
    )  # fmt: skip


def read_lines(
    directory: Path | str,
    *,
    start_seq: int = 1,
    storage: Storage | None = None,
    missing_ok: bool = False,
) -> Iterator[bytes]:
    """The stored lines as they are, without newline, from sequence *start_seq* up to the head.

    Raises:
        BadInput: There is no such directory, unless *missing_ok*; or some of them were pruned.
        AuditCorruption: After the last line before the damage.
    """
    opened = open_log(Path(directory), storage, missing_ok=missing_ok)
    return iter(()) if opened is None else _lines(opened, start_seq)


def read_records(
    directory: Path | str,
    *,
    start_seq: int = 1,
    storage: Storage | None = None,
    missing_ok: bool = False,
) -> Iterator[Record]:
    """Every durable record from sequence *start_seq* on, in order.

    Raises:
        BadInput: There is no such directory, unless *missing_ok*; or some of them were pruned.
        AuditCorruption: After the last record before the damage.
    """
    return map(
        decode_line, read_lines(directory, start_seq=start_seq, storage=storage, missing_ok=missing_ok)
    )


def _lines(directory: Directory, start_seq: int) -> Iterator[bytes]:
    try:
        for batch in read_batches(directory, start_seq):
            for _, line in checked_lines(batch):
                yield line
    finally:
        directory.close()


# -- conditions -----------------------------------------------------------------------------------------------


def conditions(
    start_time: Moment | None = None,
    end_time: Moment | None = None,
    event_type: str | Sequence[str] | None = None,
    user_id: str | None = None,
    *,
    component: str | None = None,
    order_id: str | None = None,
) -> Conditions:
    """What is asked for, once it can be read and met; see `LogReader.iter_query`.

    Raises:
        BadInput: It names the condition and says what is wrong with it.
    """
    start_ns = None if start_time is None else moment_ns(start_time, "start_time")
    end_ns = None if end_time is None else moment_ns(end_time, "end_time")
    if start_ns is not None and end_ns is not None and end_ns < start_ns:
        raise BadInput(
            f"end_time {_said(end_time)} is before start_time {_said(start_time)}",
            hint="the start is included, the end is not; exchange them?",
        )
    for name, value in (("user_id", user_id), ("component", component), ("order_id", order_id)):
        if value is not None and not isinstance(cast("object", value), str):
            raise BadInput(f"{name} {value!r} is not text")
    return Conditions(_types(event_type), user_id, component, order_id, start_ns, end_ns)


def _said(moment: Moment | None) -> str:
    return moment.isoformat() if isinstance(moment, datetime) else str(moment)


def _types(event_type: object) -> frozenset[str] | None:
    if event_type is None:
        return None
    if isinstance(event_type, str):
        return frozenset({str(event_type)})
    if isinstance(event_type, Sequence | set | frozenset):
        names = list(cast("Sequence[object]", event_type))
        if names and all(isinstance(name, str) for name in names):
            return frozenset(str(name) for name in names)
    raise BadInput(f"event_type {event_type!r} is neither a record type nor several")


def moment_ns(moment: object, what: str) -> int:
    """*moment* as UTC nanoseconds, rounded up to the next whole one.

    Raises:
        BadInput: A datetime without time zone, NaN, an infinity, or neither number nor datetime; *what* names it.
    """
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise BadInput(
                f"{what} {moment.isoformat()} has no time zone",
                hint="pass an aware datetime, for instance datetime(2026, 11, 20, tzinfo=UTC)",
            )
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    if isinstance(moment, bool) or not isinstance(moment, int | float | Decimal):
        raise BadInput(f"{what} {moment!r} is neither Unix seconds nor a datetime")
    if not isfinite(moment) or not -_LAST_SECOND < moment < _LAST_SECOND:
        raise BadInput(
            f"{what} {str(moment)[:40]} is not a time in seconds since 1970",
            hint=f"seconds between -{_LAST_SECOND} and {_LAST_SECOND}",
        )
    # A float is read by its shortest decimal text: 1763634000.1 means that, not its binary neighbour.
    seconds = Decimal(repr(moment)) if isinstance(moment, float) else Decimal(moment)
    return int((seconds * NANOS).to_integral_value(ROUND_CEILING))
