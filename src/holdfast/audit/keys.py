"""The keys of signed logs: where they are kept, how one follows another, and the record that says so.

Promise: a log's private keys, its pins and its high-water mark lie outside its directory, readable by their owner
alone, and a private key that others may read signs nothing; every change is durable before anything relies on it,
and a start can tell from the files at which step an
earlier process stopped. A log that changes its key does it in this order:

    key.next durable -> KEY record, DURABLE -> checkpoint signed by both keys, durable -> key.next becomes key

One folder for each log id, under `HOLDFAST_HOME`:

    logs/<log_id>/key          one JSON line {"log_id","origin","epoch","seed"}: the private key in force
    logs/<log_id>/key.next     the next epoch's, while an epoch changes
    logs/<log_id>/pin          verifier keys pinned for this log, one a line
    logs/<log_id>/high-water   how far the log was: see `highwater.py`

Limits: before an old key's name goes, its bytes are overwritten with zeros and synced. On a file system that
writes in place to a magnetic disk that destroys the key. An SSD keeps old flash pages until it erases them, a
copy-on-write file system, a snapshot and a backup keep the old bytes for as long as they live; nobody who reads
those can be kept from signing for that past epoch. A witness or another anchor is what stands against him.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from holdfast.audit.highwater import HIGH_WATER_NAME, HighWater, WaterMark, decode_page
from holdfast.audit.note import SigningKey, VerifierKey, open_note, parse_note, sign_note
from holdfast.audit.schemas import KeyDetails
from holdfast.audit.storage import PAGE_BYTES, Directory, LocalStorage, Storage
from holdfast.core.errors import BadInput, KeyMissing, LogUnwritable

SEED_BYTES = 32
LOGS, KEY, NEXT, PIN = "logs", "key", "key.next", "pin"
FIRST, ROTATION, REPLACEMENT = "first", "rotation", "replacement"

_HEADING = "holdfast key v1"
_EPOCH = re.compile("[1-9][0-9]{0,8}", re.ASCII)
_KEY_LIMIT = 4096
_PIN_LIMIT = 1 << 20


class LogKey(NamedTuple):
    """The private key of one epoch of one log.

    Attributes:
        log_id: The log, 32 hexadecimal digits.
        origin: The first part of the log's name.
        epoch: 1, 2, 3 …
        signer: What signs.
    """

    log_id: str
    origin: str
    epoch: int
    signer: SigningKey

    def details(self, reason: str, previous: LogKey | None) -> KeyDetails:
        """What the KEY record of this epoch says; signed by *previous*, or by itself where there is none."""
        vkey = str(self.signer.vkey)
        text = f"{_HEADING}\n{self.origin}\n{self.log_id}\n{self.epoch}\n{vkey}\n"
        signer = self.signer if previous is None else previous.signer
        note = sign_note(text.encode(), signer)
        return KeyDetails(epoch=self.epoch, vkey=vkey, reason=reason, note=note.decode())


class KeyNote(NamedTuple):
    """What the note of a KEY record says; nothing in it is verified.

    Attributes:
        origin: The first part of the log's name.
        log_id: The log.
        epoch: 1, 2, 3 …
        vkey: The epoch's public key.
    """

    origin: str
    log_id: str
    epoch: int
    vkey: VerifierKey


def parse_key_note(note: bytes | str) -> KeyNote:
    """The note of a KEY record taken apart.

    Raises:
        BadInput: It is none.
    """
    text = parse_note(note.encode() if isinstance(note, str) else note).text
    lines = text.decode().split("\n")
    if len(lines) != 6 or lines[0] != _HEADING or lines[5] or _EPOCH.fullmatch(lines[3]) is None:
        raise BadInput("not the note of a KEY record")
    return KeyNote(lines[1], lines[2], int(lines[3]), VerifierKey.parse(lines[4]))


def log_name(origin: str, log_id: str) -> str:
    """The first line of every checkpoint of a log, and the name of all its keys."""
    return f"{origin}/{log_id}"


def check_origin(origin: str) -> None:
    """Refuse a first part of a log's name that no key may bear.

    Raises:
        BadInput: It is empty, too long, or has a space, a plus sign or a control character.
    """
    bad = not origin or len(origin) > 64 or "+" in origin or not origin.isprintable()
    if bad or any(map(str.isspace, origin)):
        raise BadInput(
            f"origin {origin!r} refused: expected 1 to 64 printable characters without spaces and plus signs"
        )


class _KeyFile(msgspec.Struct):
    log_id: str
    origin: str
    epoch: int
    seed: str


class KeyHome:
    """The folder that holds the keys of this user's logs; made, 0700, when the first key is.

    Args:
        path: `config.key_home()` for a running process.
        storage: The disk; the machine's own by default.
        tell: Is given one sentence when a log's first key was made: where it is, and what to keep.
        random_bytes: Where seeds come from.
    """

    def __init__(
        self,
        path: Path,
        storage: Storage | None = None,
        *,
        tell: Callable[[str], None] | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.path = Path(path)
        self.tell = tell
        self._storage: Storage = LocalStorage() if storage is None else storage
        self._random_bytes = random_bytes

    def log(self, log_id: str) -> LogKeys:
        """The keys of one log; nothing is made before something is written."""
        return LogKeys(self, log_id)

    def open_folder(self, log_id: str, *, create: bool) -> Directory | None:
        """The folder of one log, or None where it is missing and is not to be made."""
        try:
            directory: Directory = self._storage.directory(self.path, create=create)
        except FileNotFoundError:
            return None
        except LogUnwritable as why:
            raise LogUnwritable(
                f"no keys can be kept in {str(self.path)!r}: {why}",
                hint="set HOLDFAST_HOME to a folder of this user's own; `chmod 700` where others may write",
            ) from why
        for name in (LOGS, log_id):
            try:
                if not create and name not in directory.names():
                    return None
                inner = directory.subdirectory(name)
            finally:
                directory.close()
            directory = inner
        return directory

    def new_seed(self) -> bytes:
        """32 secret bytes."""
        return self._random_bytes(SEED_BYTES)


class LogKeys:
    """The keys, pins and high-water mark of one log.

    Attributes:
        log_id: Which log.
    """

    def __init__(self, home: KeyHome, log_id: str) -> None:
        if len(log_id) != 32 or not set(log_id) <= set("0123456789abcdef"):
            raise BadInput(f"not a log id: {log_id!r}")
        self.log_id = log_id
        self._home = home

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._home.path / LOGS / self.log_id

    # ------------------------------------------------------------------ private keys

    def current(self) -> LogKey | None:
        """The key in force, or None where there is none or its file is not whole."""
        return self._key(self._read(KEY, _KEY_LIMIT))

    def upcoming(self) -> LogKey | None:
        """The key of the next epoch, where an epoch was changing; None where there is none or it is not whole."""
        return self._key(self._read(NEXT, _KEY_LIMIT))

    def prepare(self, origin: str, epoch: int) -> LogKey:
        """Make the key of *epoch* and keep it, durably, as the next one."""
        seed = self._home.new_seed()
        content = _KeyFile(self.log_id, origin, epoch, b64encode(seed).decode())
        folder = self._folder()
        try:
            if NEXT in folder.names():
                _erase(folder, NEXT)
                folder.unlink(NEXT)
            _write_new(folder, NEXT, msgspec.json.encode(content) + b"\n")
            folder.sync()
        finally:
            folder.close()
        return LogKey(self.log_id, origin, epoch, SigningKey(log_name(origin, self.log_id), seed))

    def promote(self) -> None:
        """Put the next key in the place of the one in force, whose bytes are overwritten before."""
        folder = self._folder()
        try:
            if KEY in folder.names():
                _erase(folder, KEY)
            folder.rename(NEXT, KEY)
            folder.sync()
        finally:
            folder.close()

    def _key(self, data: bytes | None) -> LogKey | None:
        try:
            kept = msgspec.json.decode(data or b"", type=_KeyFile)
            seed = b64decode(kept.seed, validate=True)
            if kept.log_id != self.log_id or kept.epoch < 1:
                return None
            return LogKey(
                kept.log_id, kept.origin, kept.epoch, SigningKey(log_name(kept.origin, self.log_id), seed)
            )
        except (msgspec.DecodeError, ValueError):
            return None

    # ------------------------------------------------------------------ pins

    def pins(self) -> list[VerifierKey]:
        """The keys that count for this log.

        Raises:
            BadInput: A line of the file is no verifier key; the message names it.
        """
        data = self._read(PIN, _PIN_LIMIT) or b""
        keys: list[VerifierKey] = []
        for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
            if line.strip():
                try:
                    keys.append(VerifierKey.parse(line.strip()))
                except BadInput as why:
                    raise BadInput(f"{str(self.path / PIN)!r} line {number}: {why}", hint=why.hint) from why
        return keys

    def pin(self, key: VerifierKey) -> bool:
        """Let *key* count for this log, durably; False where it did already.

        Raises:
            BadInput: It is the key of something else.
        """
        if key.name.rpartition("/")[2] != self.log_id:
            raise BadInput(
                f"key {key.name!r} is not one of log {self.log_id}",
                hint="pin it for the log whose id it names; holdfast audit keys show DIR prints a log's own",
            )
        keys = self.pins()
        if key in keys:
            return False
        folder = self._folder()
        try:
            content = "".join(f"{one}\n" for one in [*keys, key]).encode()
            if PIN + ".tmp" in folder.names():
                folder.unlink(PIN + ".tmp")
            _write_new(folder, PIN + ".tmp", content)
            folder.rename(PIN + ".tmp", PIN)
            folder.sync()
        finally:
            folder.close()
        return True

    # ------------------------------------------------------------------ high-water mark

    def high_water(self) -> WaterMark | None:
        """How far the log was when this user's processes last signed for it, or None."""
        return decode_page(self._read(HIGH_WATER_NAME, PAGE_BYTES) or b"")

    def open_high_water(self) -> HighWater:
        """The page, to write it."""
        folder = self._folder()
        try:
            return HighWater(folder)
        finally:
            folder.close()

    # ------------------------------------------------------------------ the folder

    def tell(self, sentence: str) -> None:
        """Let the user know what was made."""
        if self._home.tell is not None:
            self._home.tell(sentence)

    def missing(self, why: str) -> KeyMissing:
        """The refusal where the log cannot be signed any more."""
        return KeyMissing(
            f"log {self.log_id} cannot be signed: {why} (keys in {str(self.path)!r})",
            hint="bring the key back there, or set HOLDFAST_HOME to where it is; if it is lost:"
            " holdfast audit keys init DIR --replace",
        )

    def _folder(self) -> Directory:
        folder = self._home.open_folder(self.log_id, create=True)
        if folder is None:
            raise FileNotFoundError(str(self.path))
        return folder

    def _read(self, name: str, limit: int) -> bytes | None:
        try:
            folder = self._home.open_folder(self.log_id, create=False)
            if folder is None:
                return None
            try:
                file = folder.open(name)
            finally:
                folder.close()
        except FileNotFoundError:
            return None
        except PermissionError as why:
            if name in {KEY, NEXT}:
                raise self.missing(f"{name!r} may not be read by this user") from why
            raise
        except OSError as why:
            raise LogUnwritable(
                f"{str(self.path / name)!r} cannot be read: {(why.strerror or str(why)).lower()}",
                hint="move it away and bring back what was there, or set HOLDFAST_HOME to another folder",
            ) from why
        try:
            if name in {KEY, NEXT} and file.mode() & 0o077:
                raise KeyMissing(
                    f"private key {str(self.path / name)!r} refused: others may read it (mode={file.mode():04o})",
                    hint=f"chmod 600 {self.path / name}; if somebody has: holdfast audit keys rotate DIR after it",
                )
            return file.pread(limit, 0)
        finally:
            file.close()


def _write_new(folder: Directory, name: str, content: bytes) -> None:
    file = folder.create(name)
    try:
        if file.pwrite(content, 0) != len(content):
            raise OSError(f"short write to {name!r}")
        file.fsync()
    finally:
        file.close()


def _erase(folder: Directory, name: str) -> None:
    """Overwrite a file with zeros, durably."""
    file = folder.open(name, writable=True)
    try:
        size = file.size()
        if file.pwrite(bytes(size), 0) != size:
            raise OSError(f"short write to {name!r}")
        file.fsync()
    finally:
        file.close()


def check_key_note(details: KeyDetails, previous: VerifierKey | None) -> KeyNote:
    """What a KEY record says, once its note is signed by *previous*, or by its own key where there is none.

    Raises:
        BadInput: It is not, or record and note disagree.
    """
    said = parse_key_note(details.note)
    if said.epoch != details.epoch or str(said.vkey) != details.vkey:
        raise BadInput("KEY record and its note disagree")
    open_note(details.note.encode(), [said.vkey if previous is None else previous])
    return said
