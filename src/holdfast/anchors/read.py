"""Reading an anchor: whatever file somebody kept of a log, as statements that a verifier can hold the log against.

Promise: takes a checkpoint with or without cosignatures, a file sink's history, a witness's record, a time stamp
(`.tsr`) with the checkpoint it stamps beside it, and a high-water page. Nothing in the file is believed beyond what
it says: signatures of keys that the caller names are verified, and a wrong one refuses the file; a time stamp is
held against the checkpoint's bytes, and against `authority.pem` (or `<name>.pem`) where that lies beside it. Who
confirmed a statement, or that nobody did, stands in its `source`. A file that says nothing is refused by name.

Limits: of a history longer than `MAX_BYTES` the last part is read; the newest statement covers the older records.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from holdfast.anchors.sink import cosigned_ns
from holdfast.anchors.wire import split_notes
from holdfast.audit.anchor import Anchor
from holdfast.audit.highwater import decode_page
from holdfast.audit.note import ED25519, VerifierKey, open_note, parse_checkpoint, parse_note
from holdfast.audit.storage import PAGE_BYTES
from holdfast.audit.tree import HASH_BYTES
from holdfast.core.clock import iso_utc
from holdfast.core.errors import BadInput
from holdfast.core.extras import how_to_install

MAX_BYTES = 16 << 20

_DER_SEQUENCE = b"\x30"


def read_anchor(path: Path, keys: Iterable[VerifierKey] = ()) -> list[Anchor]:
    """What the file *path* says about logs, oldest first; at least one statement.

    Args:
        path: A regular file.
        keys: Of logs and witnesses, whose signatures are to be verified.

    Raises:
        BadInput: It cannot be read, says nothing, or a signature or time stamp in it is false.
    """
    keys = list(keys)
    data = _read(path)
    if path.suffix == ".tsr" or data.startswith(_DER_SEQUENCE):
        return _stamped(path, data, keys)
    if len(data) == PAGE_BYTES and (mark := decode_page(data)) is not None:
        return [_anchor(path, mark.note, keys, "high-water mark")]
    pieces = split_notes(data)
    found = [_anchor(path, piece, keys) for piece in pieces if _is_checkpoint(piece)]
    if not found:
        raise BadInput(
            f"anchor {str(path)!r} holds no checkpoint",
            hint="expected a signed checkpoint, a sink's .notes file, a .tsr beside its checkpoint, or a high-water page",
        )
    return found


def _read(path: Path) -> bytes:
    try:
        # O_NONBLOCK: somebody may have put a pipe there, and opening it must not wait.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as why:
        raise BadInput(
            f"anchor {str(path)!r} cannot be read: {(why.strerror or '').lower()}",
            hint="check the path, and the right of this user to read it",
        ) from why
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise BadInput(
                f"anchor {str(path)!r} is not a file", hint="name one file; --anchor may be repeated"
            )
        start = max(0, facts.st_size - MAX_BYTES)
        data = os.pread(fd, MAX_BYTES, start)
    finally:
        os.close(fd)
    return data if start == 0 else data[data.find(b"\n\n") + 2 :]


def _is_checkpoint(piece: bytes) -> bool:
    """Whether *piece* can be read; what cannot is the trace of a broken write between two notes."""
    try:
        return len(parse_checkpoint(parse_note(piece).text).root) == HASH_BYTES
    except BadInput:
        return False


def _anchor(path: Path, note: bytes, keys: list[VerifierKey], what: str = "checkpoint") -> Anchor:
    text, signatures = parse_note(note)
    checkpoint = parse_checkpoint(text)
    if len(checkpoint.root) != HASH_BYTES:
        raise BadInput(f"anchor {str(path)!r} has a root of {len(checkpoint.root)} bytes, not {HASH_BYTES}")
    known = {(key.name, key.key_id): key for key in keys}
    said: list[str] = []
    seen_ns = 0
    if any((signature.name, signature.key_id) in known for signature in signatures):
        try:
            open_note(note, keys)
        except BadInput as why:
            raise BadInput(f"anchor {str(path)!r} is false: {why}") from why
    for signature in signatures:
        key = known.get((signature.name, signature.key_id))
        if key is not None and key.algorithm != ED25519:
            when = cosigned_ns(signature.value)
            seen_ns = max(seen_ns, when)
            said.append(f"cosigned by {key.name!r} at {iso_utc(when)}")
        elif key is None and signature.name != checkpoint.origin:
            said.append(f"cosignature of {signature.name[:80]!r} not checked: its key is not given")
    source = f"{what} of size {checkpoint.size} in {path.name}"
    if said:
        source += f" ({'; '.join(said[:4])})"
    return Anchor(checkpoint.origin, checkpoint.size, checkpoint.root, source, note, seen_ns)


def _stamped(path: Path, token: bytes, keys: list[VerifierKey]) -> list[Anchor]:
    try:
        from holdfast.anchors.rfc3161 import check_token, check_unsigned, read_certificates  # noqa: PLC0415  an extra
    except ModuleNotFoundError as why:
        raise BadInput(
            f"time stamp {path.name!r} cannot be checked without {why.name}",
            hint=f"{how_to_install('anchors')}, or: openssl ts -verify -data NOTE -in TSR -CAfile PEM",
        ) from why
    note_path = _beside(path, (f"{path.stem}.note", f"{path.stem}.checkpoint", path.stem))
    if note_path is None:
        raise BadInput(
            f"time stamp {str(path)!r} has no checkpoint beside it",
            hint=f"put the checkpoint it stamps there as {path.stem}.note",
        )
    note = _read(note_path)
    anchor = _anchor(note_path, note, keys)
    authority = _beside(path, (f"{path.stem}.pem", "authority.pem"))
    try:
        if authority is None:
            check_unsigned(token, note)
            told = f"time stamp {path.name}, its signature not checked: no authority.pem beside it"
            return [anchor._replace(source=f"{anchor.source} ({told})")]
        stamp = check_token(token, note, read_certificates(_read(authority), str(authority)))
    except BadInput as why:
        raise BadInput(f"anchor {str(path)!r} is false: {why}", hint=why.hint) from why
    told = f"stamped at {iso_utc(stamp.time_ns)}, checked with {authority.name}"
    return [anchor._replace(source=f"{anchor.source} ({told})", seen_ns=stamp.time_ns)]


def _beside(path: Path, names: Iterable[str]) -> Path | None:
    candidates = (path.with_name(name) for name in names if name and name != path.name)
    return next((candidate for candidate in candidates if candidate.is_file()), None)
