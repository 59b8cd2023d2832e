"""From the files of a log to its lines: what every reader goes through.

Promise: the head is taken first, then the files, so that what the head promises is in them; a segment that became
`.log.gz` in between is looked for again; a line is given only once it is known to be the valid one that belongs
there, and `AuditCorruption` names the place where that ends. No lock is taken, nothing is changed.

Limits: no more of the log is seen than the head says is durable, and nothing is skipped: that is `search`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast.audit.format import (
    FORMAT_VERSION,
    SegmentName,
    decode_facts,
    decode_line,
    facts_in_place,
    parse_segment_name,
)
from holdfast.audit.head import HEAD_NAME, HeadMark, decode_head
from holdfast.audit.seal import MEMBER_BYTES, read_blocks, read_members
from holdfast.audit.storage import PAGE_BYTES, Directory, File, LocalStorage, Storage
from holdfast.core.errors import AuditCorruption, AuditError, BadInput

if TYPE_CHECKING:
    from holdfast.audit.pruned import Pruned


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


class Stretch(NamedTuple):
    """What one segment holds of the log that a reader sees.

    Attributes:
        segment: Its name, as it was listed.
        records: How many, from its first sequence on.
    """

    segment: SegmentName
    records: int


def open_log(path: Path, storage: Storage | None, *, missing_ok: bool) -> Directory | None:
    """The directory *path*, or None where it does not exist and that is allowed.

    Raises:
        BadInput: It does not exist.
    """
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
    for name in {*directory.names(), *directory.names()}:
        segment = parse_segment_name(name)
        if segment is not None and (segment.first_seq not in found or not segment.sealed):
            found[segment.first_seq] = segment
    return [found[first] for first in sorted(found)]


def refuse_newer(directory: Directory) -> None:
    """Refuse a log that a newer program wrote last: what we would read or write of it, nobody could rely on.

    What cannot be read passes: whoever judges it says why.

    Raises:
        BadInput: Its newest segment is of a newer format.
    """
    for segment in list_segments(directory)[-2:]:  # the newest may have no line yet
        try:
            file, sealed = open_segment(directory, segment)
            try:
                first = next(whole_lines(file, sealed=sealed), (0, b""))[1].partition(b"\n")[0]
            finally:
                file.close()
            version = decode_line(first).details.get("format")
        except (AuditError, BadInput, OSError):
            continue
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise BadInput(
                f"{segment.name!r} is of format {version}, this reads {FORMAT_VERSION}",
                hint="use the version that wrote it, or a newer one",
            )


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


def stretches(directory: Directory, mark: HeadMark) -> list[Stretch]:
    """Every segment that is here with records up to *mark*, in order; each holds what lies before the next one.

    Raises:
        AuditCorruption: The first one is missing, and not because it was pruned.
    """
    segments = [segment for segment in list_segments(directory) if segment.first_seq <= mark.sequence]
    first = segments[0].first_seq if segments else mark.sequence + 1
    if first != 1 and first != _pruned(directory).next_seq:
        raise missing(1, segments[0].name if segments else "")
    ends = [segment.first_seq for segment in segments[1:]] + [mark.sequence + 1]
    return [Stretch(segment, end - segment.first_seq) for segment, end in zip(segments, ends, strict=True)]


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


def whole_lines(file: File, *, sealed: bool) -> Iterator[tuple[int, bytes]]:
    """The file's content in pieces that end behind a newline, each with its offset as in `Batch`.

    What follows the last newline is left out.

    Raises:
        AuditCorruption: A compressed file is damaged, or a raw one has no newline for longer than a line may be.
    """
    if sealed:
        yield from read_members(file)
        return
    rest, offset = b"", 0
    for block in read_blocks(file):
        data = rest + block
        cut = data.rfind(b"\n") + 1
        if cut:
            yield offset, data[:cut]
        rest, offset = data[cut:], offset + cut
        if len(rest) > MEMBER_BYTES:
            raise endless_line(file, offset)


def read_batches(directory: Directory, start_seq: int) -> Iterator[Batch]:
    """Every line from *start_seq* up to the head, unchecked, as the files give them.

    Raises:
        InArchive: Some of them were pruned.
        AuditCorruption: A file is missing or cannot be read.
    """
    mark = durable_mark(directory)  # before the files: what it names is in them
    if mark is None or not mark.sequence:
        return
    plan = stretches(directory, mark)
    refuse_pruned(directory, plan, start_seq)
    for segment, count in plan:
        if segment.first_seq + count <= start_seq:
            continue
        for batch in _segment_batches(directory, segment, count):
            skip = start_seq - batch.first_seq
            if skip <= 0:
                yield batch
            elif skip < len(batch.lines):
                before = 0 if batch.sealed else sum(map(len, batch.lines[:skip])) + skip
                yield batch._replace(
                    first_seq=start_seq, lines=batch.lines[skip:], offset=batch.offset + before
                )


def refuse_pruned(directory: Directory, plan: list[Stretch], start_seq: int) -> None:
    """Raise `InArchive` where records from *start_seq* on are not here any more."""
    first = plan[0].segment.first_seq if plan else 1
    if start_seq < first:
        raise _pruned(directory).in_archive()


def _pruned(directory: Directory) -> Pruned:
    from holdfast.audit.pruned import read_pruned  # noqa: PLC0415  most logs are whole, and start sooner without it

    return read_pruned(directory)


def _segment_batches(directory: Directory, segment: SegmentName, count: int) -> Iterator[Batch]:
    """The first *count* lines of one segment."""
    try:
        file, sealed = open_segment(directory, segment)
    except FileNotFoundError:
        raise missing(segment.first_seq, segment.name) from None
    try:
        sequence, end = segment.first_seq, segment.first_seq + count
        for offset, piece in whole_lines(file, sealed=sealed):
            lines = piece[:-1].split(b"\n", end - sequence)[: end - sequence]
            yield Batch(sequence, lines, file.name, offset, sealed)
            sequence += len(lines)
            if sequence == end:
                return
        raise missing(sequence, file.name)
    finally:
        file.close()


def checked_lines(batch: Batch) -> Iterator[tuple[int, bytes]]:
    """The lines of *batch* with their sequences, each once it is known to be valid and in its place.

    Raises:
        AuditCorruption: At the first one that is not.
    """
    for sequence, line in enumerate(batch.lines, batch.first_seq):
        if facts_in_place(line, sequence) is None:
            raise damaged_line(batch, sequence)
        yield sequence, line


def damaged_line(batch: Batch, sequence: int) -> AuditCorruption:
    """What is wrong with the line in the place of *sequence*, or with the first bad one before it.

    A line too many or too few in front of it moves it; then that is what is named.
    """
    offset = batch.offset
    for place, line in enumerate(batch.lines, batch.first_seq):
        why = _why_not(line, place)
        if why or place == sequence:
            return damage(batch.file, offset, place, why or "it is not what the index says")
        if not batch.sealed:
            offset += len(line) + 1
    return missing(sequence, batch.file)


def damage(file: str, offset: int, sequence: int, why: str) -> AuditCorruption:
    """Damage at one place."""
    return AuditCorruption(
        f"audit log damaged: sequence {sequence} in {file!r} at byte {offset}: {why}",
        sequence=sequence,
        file=file,
        offset=offset,
        hint="holdfast audit verify lists everything that is damaged",
    )


def _why_not(line: bytes, sequence: int) -> str:
    try:
        found = decode_facts(line).seq
    except BadInput as why:
        return str(why)
    return "" if found == sequence else f"it says sequence {found}"


def endless_line(file: File, offset: int) -> AuditCorruption:
    """A raw file without a newline for longer than a line may be."""
    return AuditCorruption(
        f"audit log damaged: {file.name!r} at byte {offset}: no line end within {MEMBER_BYTES} bytes",
        file=file.name,
        offset=offset,
    )


def missing(sequence: int, file: str) -> AuditCorruption:
    """A record that the head promises and no file holds."""
    where = f" in {file!r}" if file else ""
    return AuditCorruption(
        f"audit log damaged: sequence {sequence}{where} is missing",
        sequence=sequence,
        file=file,
        hint="holdfast audit verify lists everything that is damaged",
    )
