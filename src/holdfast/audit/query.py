"""Reading the log: every line up to the head, or the records that match.

Promise: what is returned was durable when the call began, in sequence order, complete, and checked line by
line; where the log cannot be read that far, `AuditCorruption` names the place and nothing is quietly left out.
Reading takes no lock and works from any process while another one writes, rotates and seals: the head is taken
first, then the files, and a segment that became `.log.gz` in between is looked for again.

Limits: records that are written but not yet durable (at most the last 100 ms of a live log) are not seen. No
segment is skipped by time, since a clock may have been stepped back inside it: a search reads everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from holdfast.audit.format import (
    LineFacts,
    Record,
    SegmentName,
    decode_facts,
    decode_line,
    parse_segment_name,
)
from holdfast.audit.head import HEAD_NAME, HeadMark, decode_head
from holdfast.audit.seal import MEMBER_BYTES, read_blocks, read_members
from holdfast.audit.storage import PAGE_BYTES, Directory, File, LocalStorage, Storage
from holdfast.core.clock import NANOS, utc
from holdfast.core.errors import AuditCorruption, BadInput

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


def query(  # noqa: PLR0917  a fixed signature of the contract
    directory: Path | str,
    start_time: Moment | None = None,
    end_time: Moment | None = None,
    event_type: str | None = None,
    user_id: str | None = None,
    max_results: int | None = None,
    *,
    component: str | None = None,
    order_id: str | None = None,
    newest_first: bool = False,
    storage: Storage | None = None,
    missing_ok: bool = False,
) -> list[AuditEntry]:  # fmt: skip
    """Every durable record that matches all of the conditions given; see `iter_query`."""
    return list(
        iter_query(
            directory, start_time, end_time, event_type, user_id, max_results,
            component=component, order_id=order_id, newest_first=newest_first, storage=storage, missing_ok=missing_ok,
        )
    )  # fmt: skip


def iter_query(  # noqa: PLR0917  a fixed signature of the contract
    directory: Path | str,
    start_time: Moment | None = None,
    end_time: Moment | None = None,
    event_type: str | None = None,
    user_id: str | None = None,
    max_results: int | None = None,
    *,
    component: str | None = None,
    order_id: str | None = None,
    newest_first: bool = False,
    storage: Storage | None = None,
    missing_ok: bool = False,
) -> Iterator[AuditEntry]:
    """Matching records one by one, in sequence order, without holding more than a block of the log.

    Args:
        directory: The log.
        start_time: Not before this: Unix seconds or an aware datetime.
        end_time: Before this.
        event_type: A record type.
        user_id: Who.
        max_results: Stop after so many; None returns all.
        component: Which part wrote it.
        order_id: The venue's order id or our client order id, in the record's details.
        newest_first: Highest sequence first.
        storage: Where the directory lies; the machine's disks by default.
        missing_ok: Whether a directory that does not exist is a log without records.

    Raises:
        BadInput: A condition cannot be read (a datetime without time zone, NaN), or there is no such directory.
        AuditCorruption: The log is damaged somewhere in the part that had to be read.
    """
    start_ns = None if start_time is None else moment_ns(start_time, "start_time")
    end_ns = None if end_time is None else moment_ns(end_time, "end_time")
    if max_results is not None and (isinstance(max_results, bool) or max_results < 0):
        raise BadInput(f"max_results {max_results!r} is not a count")
    wanted = _Wanted(start_ns, end_ns, event_type, user_id, component, order_id)
    opened = _open(Path(directory), storage, missing_ok=missing_ok)
    return iter(()) if opened is None else _search(opened, wanted, max_results, newest_first=newest_first)


def read_lines(
    directory: Path | str,
    *,
    start_seq: int = 1,
    storage: Storage | None = None,
    missing_ok: bool = False,
) -> Iterator[bytes]:
    """The stored lines as they are, without newline, from sequence *start_seq* up to the head.

    Raises:
        BadInput: There is no such directory, unless *missing_ok*.
        AuditCorruption: After the last line before the damage.
    """
    opened = _open(Path(directory), storage, missing_ok=missing_ok)
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
        BadInput: There is no such directory, unless *missing_ok*.
        AuditCorruption: After the last record before the damage.
    """
    return map(
        decode_line, read_lines(directory, start_seq=start_seq, storage=storage, missing_ok=missing_ok)
    )


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
        raise BadInput(f"{what} {moment!r} is not a time in seconds since 1970")
    # A float is read by its shortest decimal text: 1763634000.1 means that, not its binary neighbour.
    seconds = Decimal(repr(moment)) if isinstance(moment, float) else Decimal(moment)
    return int((seconds * NANOS).to_integral_value(ROUND_CEILING))


# -- the search ----------------------------------------------------------------------------------------------


class _Wanted(NamedTuple):
    start_ns: int | None
    end_ns: int | None
    event_type: str | None
    user_id: str | None
    component: str | None
    order_id: str | None

    def accepts(self, facts: LineFacts) -> bool:
        """Whether everything but the order id matches."""
        return (
            (self.event_type is None or facts.type == self.event_type)
            and (self.user_id is None or facts.user == self.user_id)
            and (self.component is None or facts.component == self.component)
            and (self.start_ns is None or facts.ts >= self.start_ns)
            and (self.end_ns is None or facts.ts < self.end_ns)
        )


def _search(
    directory: Directory, wanted: _Wanted, max_results: int | None, *, newest_first: bool
) -> Iterator[AuditEntry]:
    left = max_results
    # The id as it stands in a line; most lines are put aside by one search for it.
    needle = b"" if wanted.order_id is None else msgspec.json.encode(wanted.order_id)
    try:
        if left == 0:
            return
        for batch in _batches(directory, 1, newest_first=newest_first):
            pairs = list(enumerate(batch.lines, batch.first_seq))
            for sequence, line in reversed(pairs) if newest_first else pairs:
                if not wanted.accepts(_facts(line, sequence, batch)) or needle not in line:
                    continue
                record = decode_line(line)
                if wanted.order_id is not None and wanted.order_id not in {
                    record.details.get("order_id"),
                    record.details.get("client_order_id"),
                }:
                    continue
                yield _entry(record)
                if left is not None:
                    left -= 1
                    if left == 0:
                        return
    finally:
        directory.close()


def _lines(directory: Directory, start_seq: int) -> Iterator[bytes]:
    try:
        for batch in _batches(directory, start_seq):
            for sequence, line in enumerate(batch.lines, batch.first_seq):
                _facts(line, sequence, batch)
                yield line
    finally:
        directory.close()


def _entry(record: Record) -> AuditEntry:
    return AuditEntry(record.type, record.user, record.seq, record.ts, record.component, record.details)


# -- from the files to lines ----------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Some consecutive lines of one file.

    Attributes:
        first_seq: The sequence that the first of them must have.
        lines: Without newlines.
        file: The file's name.
        offset: Where the first line begins in the raw file, or its gzip member in a compressed one.
        sealed: Whether the file is compressed.
    """

    first_seq: int
    lines: list[bytes]
    file: str
    offset: int
    sealed: bool


def _open(path: Path, storage: Storage | None, *, missing_ok: bool) -> Directory | None:
    try:
        return (storage or LocalStorage()).directory(path, create=False)
    except FileNotFoundError as why:
        if missing_ok:
            return None
        raise BadInput(
            f"no audit log at {str(path)!r}", hint="name the directory that holds audit_….log"
        ) from why


def list_segments(directory: Directory) -> list[SegmentName]:
    """The log's segments by first sequence, each once, raw rather than compressed where both stand there.

    A listing may miss a file that is renamed meanwhile; it stands in a second one, so both are joined.
    """
    found: dict[int, SegmentName] = {}
    for name in (*directory.names(), *directory.names()):
        segment = parse_segment_name(name)
        if segment is not None and (segment.first_seq not in found or not segment.sealed):
            found[segment.first_seq] = segment
    return [found[first] for first in sorted(found)]


def open_segment(directory: Directory, segment: SegmentName) -> tuple[File, bool]:
    """Segment's file, raw or compressed as it stands there now, and whether it is compressed.

    Raises:
        FileNotFoundError: It is neither here nor there.
    """
    raw = segment.name.removesuffix(".gz")
    if not segment.sealed:
        try:
            return directory.open(raw), False
        except FileNotFoundError:
            pass  # sealed since it was listed
    return directory.open(raw + ".gz"), True


def whole_lines(file: File, *, sealed: bool, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The file's content in pieces that end behind a newline, each with its offset as in `Batch`.

    What follows the last newline is left out.

    Raises:
        AuditCorruption: A compressed file is damaged, or a raw one has no newline for longer than a line may be.
    """
    if sealed:
        yield from read_members(file, start=start)
        return
    rest, offset = b"", start
    for block in _blocks_from(file, start):
        data = rest + block
        cut = data.rfind(b"\n") + 1
        if cut:
            yield offset, data[:cut]
        rest, offset = data[cut:], offset + cut
        if len(rest) > MEMBER_BYTES:
            raise AuditCorruption(
                f"audit log damaged: {file.name!r} at byte {offset}: no line end for {len(rest)} bytes",
                file=file.name,
                offset=offset,
            )


def _blocks_from(file: File, start: int) -> Iterator[bytes]:
    if not start:
        yield from read_blocks(file)
        return
    while block := file.pread(1 << 20, start):
        yield block
        start += len(block)


def durable_mark(directory: Directory) -> HeadMark | None:
    """How far the log is durable; None for a log that never held a durable record.

    Raises:
        AuditCorruption: The head is missing beside segments, or neither of its slots can be read.
    """
    try:
        file = directory.open(HEAD_NAME)
    except FileNotFoundError:
        if not list_segments(directory):
            return None
        raise AuditCorruption(
            "audit log damaged: its head is missing",
            file=HEAD_NAME,
            hint="holdfast audit verify shows what is left",
        ) from None
    try:
        page = file.pread(PAGE_BYTES, 0)
    finally:
        file.close()
    mark = decode_head(page)
    if mark is None and page.strip(b"\0"):
        raise AuditCorruption(
            "audit log damaged: neither slot of its head is valid",
            file=HEAD_NAME,
            hint="holdfast audit verify shows what is left",
        )
    return mark


def _batches(directory: Directory, start_seq: int, *, newest_first: bool = False) -> Iterator[Batch]:
    """Every line from *start_seq* up to the head, unchecked, as the files give them."""
    mark = durable_mark(directory)  # before the files: what it names is in them
    if mark is None or not mark.sequence:
        return
    segments = [segment for segment in list_segments(directory) if segment.first_seq <= mark.sequence]
    # Each segment holds what lies between its first sequence and the next one's.
    plan: list[tuple[SegmentName, int]] = []
    ends = [segment.first_seq for segment in segments[1:]] + [mark.sequence + 1]
    if not segments or segments[0].first_seq != 1:
        raise _missing(1, segments[0].name if segments else "")
    plan.extend(
        (segment, end - segment.first_seq)
        for segment, end in zip(segments, ends, strict=True)
        if end > start_seq
    )
    for segment, count in reversed(plan) if newest_first else plan:
        batches = _segment_batches(directory, segment, count, newest_first=newest_first)
        for batch in batches:
            skip = start_seq - batch.first_seq
            if skip <= 0:
                yield batch
            elif skip < len(batch.lines):
                yield batch._replace(first_seq=start_seq, lines=batch.lines[skip:])


def _segment_batches(
    directory: Directory, segment: SegmentName, count: int, *, newest_first: bool
) -> Iterator[Batch]:
    """The first *count* lines of one segment."""
    try:
        file, sealed = open_segment(directory, segment)
    except FileNotFoundError:
        raise _missing(segment.first_seq, segment.name) from None
    try:
        sequence, end = segment.first_seq, segment.first_seq + count
        places: list[tuple[int, int, int]] = []  # offset, first sequence and number of lines of each piece
        for offset, piece in whole_lines(file, sealed=sealed):
            lines = piece.count(b"\n") if newest_first else 0
            if newest_first:
                lines = min(lines, end - sequence)
                places.append((offset, sequence, lines))
                sequence += lines
            else:
                batch = Batch(
                    sequence, piece.split(b"\n", end - sequence)[: end - sequence], file.name, offset, sealed
                )
                if piece.count(b"\n") < end - sequence:
                    batch.lines.pop()  # what follows the last newline: nothing
                sequence += len(batch.lines)
                yield batch
            if sequence == end:
                break
        for offset, first, lines in reversed(places):
            _, piece = next(whole_lines(file, sealed=sealed, start=offset))
            yield Batch(first, piece.split(b"\n", lines)[:lines], file.name, offset, sealed)
        if sequence < end:
            raise _missing(sequence, file.name)
    finally:
        file.close()


def _facts(line: bytes, sequence: int, batch: Batch) -> LineFacts:
    """What *line* says, once it is known to be the valid line that belongs there."""
    try:
        facts = decode_facts(line)
        if facts.seq == sequence:
            return facts
        why = f"it says sequence {facts.seq}"
    except (BadInput, RecursionError) as error:
        why = str(error)
    offset = batch.offset
    if not batch.sealed:
        offset += sum(len(before) + 1 for before in batch.lines[: sequence - batch.first_seq])
    raise AuditCorruption(
        f"audit log damaged: sequence {sequence} in {batch.file!r} at byte {offset}: {why}",
        sequence=sequence,
        file=batch.file,
        offset=offset,
        hint="holdfast audit verify lists everything that is damaged",
    )


def _missing(sequence: int, file: str) -> AuditCorruption:
    where = f" in {file!r}" if file else ""
    return AuditCorruption(
        f"audit log damaged: sequence {sequence}{where} is missing",
        sequence=sequence,
        file=file,
        hint="holdfast audit verify lists everything that is damaged",
    )
