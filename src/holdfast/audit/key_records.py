"""The KEY records of a log, wherever they are: in its segments, and in the markers of those that were pruned.

Promise: `key_records` gives every epoch of the log in order, or raises: one that is not there leaves a gap, and a
gap is damage. It reads the first two lines of each segment and changes nothing.

Limits: the notes are not verified here; `proofs` and `verify` do that, each with the keys that somebody pinned.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from holdfast.audit.format import FILLER, SegmentName, decode_line
from holdfast.audit.logfiles import list_segments, open_segment
from holdfast.audit.note import VerifierKey
from holdfast.audit.pruned import read_pruned
from holdfast.audit.schemas import KeyDetails, RecordType
from holdfast.audit.seal import read_members
from holdfast.audit.storage import Directory, File
from holdfast.core.errors import AuditCorruption, BadInput

_FIRST_BYTES = 1 << 17
"""Two lines of the greatest length fit."""
_VERIFY = "holdfast audit verify lists everything that is damaged"


class KeyRecord(NamedTuple):
    """One epoch of a log.

    Attributes:
        sequence: Of the record; from there on this key signs.
        details: As the record says.
        vkey: The epoch's public key.
    """

    sequence: int
    details: KeyDetails
    vkey: VerifierKey


def key_records(directory: Directory) -> list[KeyRecord]:
    """Every epoch of the log, the first one first; none for a log that is not signed.

    Raises:
        AuditCorruption: A KEY record cannot be read, or an epoch is missing.
    """
    found = {
        record.sequence: record
        for segment in list_segments(directory)
        for record in _in_segment(directory, segment)
    }
    # The markers afterwards: what is pruned meanwhile is in both, never in neither.
    for marker in read_pruned(directory).markers:
        if marker.key is not None:
            sequence = marker.first_seq + 1
            found[sequence] = _key_record(sequence, marker.key, marker.segment)
    records = [found[sequence] for sequence in sorted(found)]
    for epoch, record in enumerate(records, 1):
        if record.details.epoch != epoch:
            raise AuditCorruption(
                f"audit log damaged: sequence {record.sequence} begins epoch {record.details.epoch}, not {epoch}",
                sequence=record.sequence,
                hint=_VERIFY,
            )
    return records


def _in_segment(directory: Directory, segment: SegmentName) -> list[KeyRecord]:
    try:
        file, sealed = open_segment(directory, segment)
    except FileNotFoundError:  # pruned since it was listed
        return []
    try:
        first, *others = _beginning(file, sealed=sealed).split(FILLER, 2)
    finally:
        file.close()
    sequence = segment.first_seq + 1
    if len(others) < 2 or not others[0]:  # one line, or none
        return []
    try:
        decode_line(first)
        record = decode_line(others[0])
    except BadInput as why:
        raise _damaged(sequence, segment.name, str(why)) from why
    if record.seq != sequence:
        raise _damaged(sequence, segment.name, f"it says sequence {record.seq}")
    if record.type != RecordType.KEY:
        return []
    try:
        details = msgspec.convert(record.details, KeyDetails)
    except msgspec.ValidationError as why:
        raise _damaged(sequence, segment.name, str(why)) from why
    return [_key_record(sequence, details, segment.name)]


def _key_record(sequence: int, details: KeyDetails, file: str) -> KeyRecord:
    try:
        return KeyRecord(sequence, details, VerifierKey.parse(details.vkey))
    except BadInput as why:
        raise _damaged(sequence, file, str(why)) from why


def _beginning(file: File, *, sealed: bool) -> bytes:
    if sealed:
        return next((raw for _, raw in read_members(file)), b"")
    return file.pread(_FIRST_BYTES + 2, 0)


def _damaged(sequence: int, file: str, why: str) -> AuditCorruption:
    return AuditCorruption(
        f"audit log damaged: sequence {sequence} in {file!r}: {why}",
        sequence=sequence,
        file=file,
        hint=_VERIFY,
    )
