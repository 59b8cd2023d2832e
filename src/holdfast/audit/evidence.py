"""What is known of a log besides its lines, when it is opened: its checkpoints, and what others remember.

Promise: `gather` changes nothing. It gives every mark that the log must reach and reproduce (its own newest
checkpoint, the file `checkpoint`, the high-water mark, the marks of anchors), the epoch that was in force, and
what of the newest history a crash may have left. `take` says with which key the log goes on, or refuses.

A note that is not whole, behind all others of the last segment's history, is torn if the log was not closed, if
`checkpoint` says no more than the last whole one, and if no other note begins inside it. Anything else that is not
a valid note is damage.

| KEY record of epoch e in the log | `key`        | `key.next` | the writer                                          |
| -------------------------------- | ------------ | ---------- | --------------------------------------------------- |
| none                             | whole        | anything   | refuses (`AuditCorruption`): it was signed once     |
| none                             | otherwise    | anything   | begins epoch 1                                      |
| yes                              | e            | anything   | goes on with e                                      |
| yes                              | e - 1        | e          | signs with both if nothing covers it yet, then e    |
| yes, and a checkpoint covers it  | not whole    | e          | goes on with e: the old key was just being erased   |
| yes, its reason not "rotation"   | anything     | e          | signs with e alone                                  |
| yes                              | otherwise    | otherwise  | refuses (`KeyMissing`), or replaces it where told to |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from holdfast.audit.anchor import Mark, MarkSource
from holdfast.audit.format import FILLER, Record, SegmentName, decode_line
from holdfast.audit.highwater import WaterMark
from holdfast.audit.history import (
    CHECKPOINT_NAME,
    CHECKPOINT_TEMPORARY,
    NOTE_END,
    History,
    history_name,
    last_start,
    notes_in,
    parse_history_name,
)
from holdfast.audit.keys import ROTATION, KeyHome, LogKey, LogKeys, log_name
from holdfast.audit.note import VerifierKey, parse_checkpoint, parse_note
from holdfast.audit.recovery import read_all
from holdfast.audit.schemas import KeyDetails, RecordType, SegmentDetails
from holdfast.audit.seal import read_members
from holdfast.audit.signing import Taken
from holdfast.audit.storage import Directory, File
from holdfast.core.errors import AuditCorruption, BadInput, KeyMissing

_FIRST_BYTES = 1 << 17  # two lines fit
_NOTE_LIMIT = 1 << 16


class Epoch(NamedTuple):
    """The newest KEY record.

    Attributes:
        sequence: Its own.
        number: Its epoch.
        vkey: Its public key.
        reason: As the record says.
    """

    sequence: int
    number: int
    vkey: VerifierKey
    reason: str


class Evidence(NamedTuple):
    """What `gather` found.

    Attributes:
        log_id: The log's, or "" where its first record cannot be read.
        origin: The first part of its name, or "".
        marks: Sizes and roots that the log must reach and reproduce.
        water: The high-water mark, where there is one.
        epoch: The newest, or None for a log that was never signed.
        signed: Size of the newest checkpoint, or 0.
        note: The newest checkpoint, or b"".
        last_history: The last segment's history and its name, where there is one.
    """

    log_id: str
    origin: str
    marks: list[Mark]
    water: WaterMark | None
    epoch: Epoch | None
    signed: int
    note: bytes
    last_history: tuple[str, History] | None


def gather(
    home: Directory,
    segments: Sequence[SegmentName],
    keys: KeyHome | None,
    sources: Sequence[MarkSource],
    *,
    closed: bool,
) -> Evidence:
    """Everything that a start must hold the log in *home* against.

    Raises:
        AuditCorruption: A history is damaged, or `checkpoint` says more than it.
    """
    log_id, origin = who(home, segments)
    if not log_id:
        return Evidence("", "", [], None, None, 0, b"", None)
    marks = [mark for source in sources for mark in source(log_id)]
    kept = keys.log(log_id) if keys is not None else None
    water = None if kept is None else kept.high_water()
    if kept is not None and water is not None:
        marks.append(
            Mark(water.checkpoint.size, water.checkpoint.root, f"the high-water mark in {str(kept.path)!r}")
        )
    epochs = list(newest_epochs(home, segments))
    if not epochs:
        return Evidence(log_id, origin, marks, water, None, 0, b"", None)
    vkeys = [epoch.vkey for epoch in epochs]
    newest, last = _newest_note(home, segments, log_name(origin, log_id), vkeys, closed=closed)
    signed, note = 0, b""
    if newest is not None:
        file, found = newest
        signed, note = found.notes[-1].checkpoint.size, found.notes[-1].note
        marks.append(Mark(signed, found.notes[-1].checkpoint.root, f"the newest checkpoint, in {file!r}"))
    _check_published(home, signed, note)
    if closed and signed < epochs[0].sequence:
        raise _damaged(
            history_name(segments[-1].name),
            0,
            f"no checkpoint covers sequence {epochs[0].sequence} of a closed log",
        )
    return Evidence(log_id, origin, marks, water, epochs[0], signed, note, last)


def who(home: Directory, segments: Sequence[SegmentName]) -> tuple[str, str]:
    """Log id and origin in the first record that can be read; empty where none can."""
    for name in segments:
        for record in _first_records(home, name)[:1]:
            try:
                details = msgspec.convert(record.details, SegmentDetails)
            except msgspec.ValidationError:
                continue
            if record.type == RecordType.SEGMENT:
                return details.log_id, details.origin
    return "", ""


def newest_epochs(home: Directory, segments: Sequence[SegmentName]) -> Iterator[Epoch]:
    """The newest two epochs, newest first."""
    count = 0
    for name in reversed(segments):
        records = _first_records(home, name)
        if len(records) < 2 or records[1].type != RecordType.KEY:
            continue
        try:
            details = msgspec.convert(records[1].details, KeyDetails)
            yield Epoch(records[1].seq, details.epoch, VerifierKey.parse(details.vkey), details.reason)
        except (msgspec.ValidationError, BadInput) as why:
            raise AuditCorruption(
                f"audit log damaged: sequence {records[1].seq} in {name.name!r}: not a KEY record: {why}",
                sequence=records[1].seq,
                file=name.name,
            ) from why
        count += 1
        if count == 2:
            return


def _first_records(home: Directory, name: SegmentName) -> list[Record]:
    """The first two records of a segment, as far as they are whole and in their place."""
    file = home.open(name.name)
    try:
        content = (
            next((raw for _, raw in read_members(file)), b"") if name.sealed else file.pread(_FIRST_BYTES, 0)
        )
    except AuditCorruption:
        return []
    finally:
        file.close()
    records: list[Record] = []
    for expected, line in enumerate(content.split(FILLER, 2)[:2], name.first_seq):
        try:
            record = decode_line(line)
        except BadInput:
            break
        if record.seq != expected:
            break
        records.append(record)
    return records


# ------------------------------------------------------------------ checkpoints


def _newest_note(
    home: Directory,
    segments: Sequence[SegmentName],
    origin: str,
    keys: Sequence[VerifierKey],
    *,
    closed: bool,
) -> tuple[tuple[str, History] | None, tuple[str, History] | None]:
    """The newest history that holds a note, and that of the last segment; each with its file's name."""
    present = set(home.names())
    newest = last = None
    for place, name in enumerate(reversed(segments)):
        file = history_name(name.name)
        if file not in present:
            continue
        found = _read_history(home, file, origin, keys)
        if found.rest and (place or closed):
            raise _damaged(file, found.end, found.reason)
        if place == 0:
            last = (file, found)
        if found.notes:
            newest = (file, found)
            break
    if last is not None and last[1].rest:
        size = 0 if newest is None else newest[1].notes[-1].checkpoint.size
        if not _is_torn(home, last[1], origin, size):
            raise _damaged(last[0], last[1].end, last[1].reason)
    return newest, last


def _read_history(home: Directory, name: str, origin: str, keys: Sequence[VerifierKey]) -> History:
    file = home.open(name)
    try:
        content = read_all(file)
    finally:
        file.close()
    return notes_in(content, keys, start=last_start(content, origin, 3))


def _is_torn(home: Directory, found: History, origin: str, newest: int) -> bool:
    """Whether a crash may have left what follows the last whole note; *newest* is the size of the newest one."""
    line = origin.encode() + b"\n"
    return _published(home)[0] <= newest and (FILLER + line) not in found.rest


def _check_published(home: Directory, signed: int, note: bytes) -> None:
    """Refuse a file `checkpoint` that says more, or something else, than the newest *note* of the history."""
    size, content = _published(home)
    if size > signed:
        raise _damaged(CHECKPOINT_NAME, 0, f"it covers {size} records, the newest in the history {signed}")
    if size == signed and content != note:
        raise _damaged(CHECKPOINT_NAME, 0, "it is not the newest note of the history")


def _published(home: Directory) -> tuple[int, bytes]:
    """What the file `checkpoint` covers, and its bytes; (0, b"") where it is missing.

    Raises:
        AuditCorruption: It is no checkpoint.
    """
    try:
        file = home.open(CHECKPOINT_NAME)
    except FileNotFoundError:
        return 0, b""
    try:
        content = file.pread(_NOTE_LIMIT, 0)
    finally:
        file.close()
    try:
        return parse_checkpoint(parse_note(content).text).size, content
    except BadInput as why:
        raise _damaged(CHECKPOINT_NAME, 0, str(why)) from why


def _damaged(file: str, offset: int, reason: str) -> AuditCorruption:
    return AuditCorruption(
        f"audit log damaged: {file!r} at byte {offset}: {reason}",
        file=file,
        offset=offset,
        hint="nothing was changed; compare it with a copy",
    )


# ------------------------------------------------------------------ keys


def take(evidence: Evidence, keys: LogKeys | None, *, replace: bool = False) -> Taken:
    """With which key the log goes on: the table above.

    Raises:
        KeyMissing: The private key in force is not here.
        AuditCorruption: The log is not signed any more.
    """
    epoch = evidence.epoch
    if epoch is None:
        kept = None if keys is None else keys.current()
        if keys is not None and kept is not None:
            # A key comes into force only once its KEY record is durable.
            raise AuditCorruption(
                f"audit log damaged: log {evidence.log_id} has no KEY record, and its key of epoch {kept.epoch} is in"
                f" {str(keys.path)!r}: it went back to before it was signed, or was written anew",
                hint="nothing was changed; holdfast audit verify tells more, compare it with a copy",
            )
        return Taken(None, None, 0, 0, b"")
    if keys is None:
        raise KeyMissing(
            f"log {evidence.log_id} is signed and was opened without keys",
            hint="pass keys=KeyHome(…): unsigned records in a signed log are evidence of nothing",
        )
    key, upcoming, lost = keys.current(), keys.upcoming(), 0
    if key is not None and _is(key, epoch):
        upcoming = None
    elif upcoming is not None and _is(upcoming, epoch):
        covered = evidence.signed >= epoch.sequence
        if covered or epoch.reason != ROTATION:
            key = None
        elif key is None or key.epoch != epoch.number - 1:
            raise keys.missing(
                f"epoch {epoch.number} must be countersigned by the key before it, which is not here"
            )
    elif replace:
        key, upcoming, lost = None, None, epoch.number
    elif key is None:
        raise keys.missing(f"the private key of epoch {epoch.number} is not here")
    else:
        raise keys.missing(f"the private key here is another one than that of epoch {epoch.number}")
    return Taken(key, upcoming, lost, evidence.signed, evidence.note)


def _is(key: LogKey, epoch: Epoch) -> bool:
    return key.epoch == epoch.number and key.signer.vkey == epoch.vkey


# ------------------------------------------------------------------ what a crash left


def clear_leftovers(home: Directory, segments: Sequence[SegmentName]) -> None:
    """Remove the half-written `checkpoint`, and histories without notes whose segment is gone."""
    names = set(home.names())
    known = {history_name(name.name) for name in segments}
    stray = [name for name in names - known if parse_history_name(name) is not None and _is_empty(home, name)]
    if CHECKPOINT_TEMPORARY in names:
        stray.append(CHECKPOINT_TEMPORARY)
    for name in stray:
        home.unlink(name)
    if stray:
        home.sync()


def _is_empty(home: Directory, name: str) -> bool:
    file = home.open(name)
    try:
        return not read_all(file).strip(FILLER + b"\0")
    finally:
        file.close()


def open_history(home: Directory, name: str, found: History) -> tuple[File, int]:
    """The history *name*, open for its next note, durable as *found* up to there and filler behind.

    Its last note is written again in its place: what reads back from the page cache may not be on the disk.
    """
    file = home.open(name, writable=True)
    last = found.notes[-1].offset if found.notes else found.end
    kept = b"" if not found.notes else found.notes[-1].note + NOTE_END
    content = kept + FILLER * (0 if found.only_filler else file.size() - found.end)
    if content:
        if file.pwrite(content, last) != len(content):
            raise OSError(f"short write to {name!r}")
        file.fdatasync()
    return file, found.end
