"""Pruning: what remains of a segment whose copy in the archive was proven.

Promise: a segment leaves only in this order, each step of which may be repeated after a crash:

    PRUNED record, DURABLE → `audit_….pruned` (temporary file → fsync → rename → sync directory)
    → `.log.gz` and `.idx` unlinked → sync directory

Only the oldest segments go, one after the other, so what is missing is always the beginning of the log. The
marker holds the record's `details` byte for byte and a newline. It carries the tree's peaks and the segment's key,
so that the records after it, all checkpoints and all proofs stay verifiable; tiles and `.checkpoints` stay.

A marker is evidence, not a licence: it counts only when a PRUNED record of the log says the same, its peaks must
give the root that the next segment's first record and the signed checkpoints claim, and the range is reported as
archived, never as verified. A marker beside its segment is a prune that a crash cut short.

Limits: whether the archive still holds the copy is not asked here; `holdfast audit restore` does.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from holdfast.audit.format import MAX_RECORD_BYTES, encode_details, parse_segment_name
from holdfast.audit.schemas import KeyDetails, PrunedDetails
from holdfast.audit.storage import Directory
from holdfast.audit.tree import Frontier
from holdfast.core.errors import AuditCorruption, BadInput

MARKER_SUFFIX = ".pruned"

_HASH = re.compile("[0-9a-f]{64}")


class InArchive(BadInput):
    """Records that were asked for are not in this directory but in its archive.

    Attributes:
        last_seq: The highest sequence that is not here.
        archive: Where it is.
    """

    def __init__(self, last_seq: int, archive: str) -> None:
        super().__init__(
            f"sequences 1 to {last_seq} are not here: they are in the archive {archive}",
            hint=f"holdfast audit restore {archive} DIR --to {last_seq}, then ask DIR",
        )
        self.last_seq = last_seq
        self.archive = archive


class Pruned(NamedTuple):
    """The pruned beginning of a log.

    Attributes:
        markers: What the markers say, by first sequence; of segments that are really gone.
        frontier: The tree over the records they held.
    """

    markers: tuple[PrunedDetails, ...]
    frontier: Frontier

    @property
    def next_seq(self) -> int:
        """The first sequence that is still here."""
        return self.frontier.size + 1

    @property
    def keys(self) -> list[KeyDetails]:
        """What the KEY records in the pruned range say, in order."""
        return [marker.key for marker in self.markers if marker.key is not None]

    @property
    def quarantine(self) -> set[str]:
        """The quarantine names that RECOVERY records in the pruned range give."""
        return {name for marker in self.markers for name in marker.quarantine}

    def in_archive(self) -> InArchive:
        """The answer to whoever asks for what is not here."""
        return InArchive(self.markers[-1].last_seq, self.markers[-1].archive)


def marker_name(segment: str) -> str:
    """The name of the marker in the place of *segment*, raw or compressed."""
    return segment.removesuffix(".gz").removesuffix(".log") + MARKER_SUFFIX


def parse_marker_name(name: str) -> str | None:
    """The raw segment that a marker named *name* stands for, or None where it is no marker's name."""
    if not name.endswith(MARKER_SUFFIX):
        return None
    segment = name.removesuffix(MARKER_SUFFIX) + ".log"
    return segment if parse_segment_name(segment) is not None else None


def encode_marker(details: PrunedDetails) -> bytes:
    """A marker's bytes."""
    return encode_details(msgspec.to_builtins(details)) + b"\n"


def decode_marker(name: str, data: bytes) -> PrunedDetails:
    """What the marker *name* says.

    Raises:
        AuditCorruption: It is none, or speaks of another segment, or its numbers cannot be true.
    """
    try:
        marker = msgspec.json.decode(data, type=PrunedDetails)
        if encode_marker(marker) != data:
            raise _damaged(name, "not written as a marker is")
        parsed = parse_segment_name(marker.segment)
        if parsed is None or marker_name(marker.segment) != name or parsed.first_seq != marker.first_seq:
            raise _damaged(name, f"speaks of segment {marker.segment!r} from sequence {marker.first_seq}")
        if marker.last_seq < marker.first_seq:
            raise _damaged(name, f"ends at sequence {marker.last_seq}, before it begins")
        frontier_of(marker)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, BadInput) as why:
        raise _damaged(name, f"not a marker: {why}") from why
    return marker


def frontier_of(marker: PrunedDetails) -> Frontier:
    """The tree over all records up to the end of the segment that *marker* stands for.

    Raises:
        BadInput: Its peaks are not those of a tree of that size.
    """
    for peak in marker.peaks:
        if _HASH.fullmatch(peak) is None:
            raise BadInput(f"peak {peak!r} is not a hash")
    return Frontier.of(marker.last_seq, [bytes.fromhex(peak) for peak in marker.peaks])


def read_pruned(directory: Directory) -> Pruned:
    """The pruned beginning of the log in *directory*; empty where every segment is here.

    Raises:
        AuditCorruption: A marker is damaged, or one before it is missing.
    """
    names = {*directory.names(), *directory.names()}
    markers: list[PrunedDetails] = []
    for name in sorted(names, key=lambda name: (parse_marker_name(name) or "")[-16:]):
        segment = parse_marker_name(name)
        if segment is None or segment in names or segment + ".gz" in names:
            continue  # no marker, or one whose segment did not go yet
        marker = read_marker(directory, name)
        expected = markers[-1].last_seq + 1 if markers else 1
        if marker.first_seq != expected:
            raise _damaged(name, f"begins at sequence {marker.first_seq} where {expected} belongs")
        markers.append(marker)
    return Pruned(tuple(markers), frontier_of(markers[-1]) if markers else Frontier())


def read_marker(directory: Directory, name: str) -> PrunedDetails:
    """What the marker *name* in *directory* says.

    Raises:
        AuditCorruption: It cannot be read, or is damaged.
    """
    try:
        file = directory.open(name)
        try:
            data = file.pread(MAX_RECORD_BYTES + 1, 0)
        finally:
            file.close()
    except OSError as why:
        raise _damaged(name, f"cannot be read: {why}") from why
    return decode_marker(name, data)


def prune_segment(
    directory: Directory, append: Callable[[str, dict[str, Any]], int], details: PrunedDetails
) -> int:
    """Let a segment go whose copy was proven just now; the sequence of its PRUNED record.

    *append* writes a record durably before it returns. A repeat after a crash writes the record again: two that
    say the same are one.
    """
    sequence = append("PRUNED", msgspec.to_builtins(details))
    name = marker_name(details.segment)
    temporary = name + ".tmp"
    names = directory.names()
    if temporary in names:
        directory.unlink(temporary)
    if name not in names:
        file = directory.create(temporary)
        try:
            data = encode_marker(details)
            if file.pwrite(data, 0) != len(data):
                raise OSError(f"short write to {temporary!r}")
            file.fsync()
        finally:
            file.close()
        directory.rename(temporary, name)
        directory.sync()
    elif read_marker(directory, name) != details:
        raise _damaged(name, "does not fit its segment")
    directory.unlink(details.segment + ".gz")
    with contextlib.suppress(FileNotFoundError):
        directory.unlink(details.segment.removesuffix(".log") + ".idx")
    directory.sync()
    return sequence


def _damaged(name: str, why: str) -> AuditCorruption:
    return AuditCorruption(f"audit log damaged: {name!r}: {why}", file=name)
