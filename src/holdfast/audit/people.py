"""Personal fields under one key per person, so that a log that forgets nothing can forget a person.

A field named personal is recorded as AES-256-GCM ciphertext under the key of the record's user; the record, its
leaf and every proof cover the ciphertext. Erasing a person destroys the key: the records stay, verify as before,
and nobody reads those fields again. The erasure itself is an ERASURE record, written before the key goes.

In a record a hidden value stands as

    {"personal":1,"subject":"desk-1","key":"9f3a2b1c","nonce":"<base64, 12 bytes>","box":"<base64>"}

where `key` is the first four bytes of SHA-256(key) and the plaintext is the value as JSON. Authenticated with it:
`holdfast personal v1`, the subject and the field's name, NUL between them, so that no value passes for another
field's or another person's.

A key file is `<first 32 hex of SHA-256(subject)>.key` in the people's folder: 32 key bytes and the first 8 bytes
of SHA-256(`check` ‖ key); 0600, durable before a record uses it.

Limits: what a person's id itself says (the record's `user`) is not hidden. Overwriting a file does not reach
copies that an SSD, a snapshot or a backup keeps; keep the folder out of backups that outlive an erasure.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import msgspec

from holdfast.core.errors import BadInput

KEY_BYTES = 32
NONCE_BYTES = 12

_CHECK_BYTES = 8
_CONTEXT = b"holdfast personal v1"
_MARK = {"personal", "subject", "key", "nonce", "box"}


class KeyErased(BadInput):
    """The person's key was destroyed; what it hid is gone for good."""


class PersonalData:
    """Hides and shows the personal fields of records.

    Safe from several threads and processes: a key is made once and never replaced.

    Args:
        folder: Where the keys are; made 0700 where it is missing.
        fields: Names of the personal fields, at any depth of a record's details.
        random_bytes: Where keys and nonces come from.
    """

    def __init__(
        self,
        folder: Path,
        fields: Collection[str] = (),
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.folder = folder
        self.fields = frozenset(fields)
        self._random_bytes = random_bytes

    def hide(self, subject: str, details: Mapping[str, Any]) -> Mapping[str, Any]:
        """*details* with the personal fields hidden under *subject*'s key; the same object where there are none.

        Raises:
            BadInput: The key cannot be made or read; nothing may be recorded in the clear instead.
        """
        if not self.fields or not _names(details) & self.fields:
            return details
        return cast("dict[str, Any]", self._hide(subject, self._key(subject), details))

    def _hide(self, subject: str, key: bytes, value: Any) -> Any:
        if isinstance(value, Mapping):
            fields = cast("Mapping[str, Any]", value)
            return {
                name: self._box(subject, key, name, inner)
                if name in self.fields
                else self._hide(subject, key, inner)
                for name, inner in fields.items()
            }
        if isinstance(value, list | tuple):
            return [self._hide(subject, key, inner) for inner in cast("list[Any]", value)]
        return value

    def _box(self, subject: str, key: bytes, field: str, value: Any) -> dict[str, Any]:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  only where it is used

        nonce = self._random_bytes(NONCE_BYTES)
        box = AESGCM(key).encrypt(nonce, msgspec.json.encode(value), _bound_to(subject, field))
        return {
            "personal": 1,
            "subject": subject,
            "key": key_id(key),
            "nonce": b64encode(nonce).decode(),
            "box": b64encode(box).decode(),
        }

    def reveal(self, details: Mapping[str, Any]) -> dict[str, Any]:
        """*details* with every hidden value shown again.

        Raises:
            KeyErased: A person's key is gone.
            BadInput: A hidden value was changed, or a key file is damaged.
        """
        return cast("dict[str, Any]", self._reveal("", details))

    def _reveal(self, field: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            fields = cast("Mapping[str, Any]", value)
            if set(fields) == _MARK:
                return self._open(field, fields)
            return {name: self._reveal(name, inner) for name, inner in fields.items()}
        if isinstance(value, list | tuple):
            return [self._reveal(field, inner) for inner in cast("list[Any]", value)]
        return value

    def _open(self, field: str, hidden: Mapping[str, Any]) -> Any:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  as above
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  as above

        subject = str(hidden["subject"])
        key = self._read(self._path(subject))
        if key is None or key_id(key) != hidden["key"]:
            raise KeyErased(
                f"{field} of {subject!r} cannot be shown: its key {hidden['key']!r} is not in {str(self.folder)!r}",
                hint="it was erased, or the keys are on another machine; the record itself is still proven",
            )
        try:
            plain = AESGCM(key).decrypt(
                b64decode(hidden["nonce"], validate=True),
                b64decode(hidden["box"], validate=True),
                _bound_to(subject, field),
            )
            return msgspec.json.decode(plain)
        except (InvalidTag, ValueError, TypeError) as why:
            raise BadInput(
                f"{field} of {subject!r} cannot be shown: it was not hidden under this name and key"
            ) from why

    def key_of(self, subject: str) -> str:
        """The id of *subject*'s key.

        Raises:
            KeyErased: There is none.
        """
        key = self._read(self._path(subject))
        if key is None:
            raise KeyErased(
                f"no key of {subject!r} in {str(self.folder)!r}",
                hint="nothing was hidden for that person here, or it was erased before",
            )
        return key_id(key)

    def erase(self, subject: str) -> str:
        """Destroy *subject*'s key; its id. Write the ERASURE record before.

        Raises:
            KeyErased: There is none.
        """
        destroyed, path = self.key_of(subject), self._path(subject)
        with path.open("r+b", buffering=0) as file:
            file.write(bytes(KEY_BYTES + _CHECK_BYTES))
            os.fsync(file.fileno())
        path.unlink()
        _sync_folder(self.folder)
        return destroyed

    def _key(self, subject: str) -> bytes:
        """The key of *subject*, made durably where there is none."""
        path = self._path(subject)
        try:
            known = self._read(path)
            return known if known is not None else self._make(path)
        except OSError as why:
            raise BadInput(
                f"personal fields of {subject!r} cannot be hidden: {(why.strerror or str(why)).lower()}"
                f" (folder={str(self.folder)!r})",
                hint="the keys of persons need a folder that this user may write",
            ) from why

    def _make(self, path: Path) -> bytes:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = self._random_bytes(KEY_BYTES)
        own = path.with_suffix(f".{os.getpid()}.{self._random_bytes(4).hex()}.tmp")
        descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123  a descriptor has no Path
                if file.write(key + _check(key)) != KEY_BYTES + _CHECK_BYTES:
                    raise OSError("short write")
                os.fsync(file.fileno())
            while True:
                try:
                    os.link(own, path)  # unlike a rename, it never takes the place of a key that is in use
                    break
                except FileExistsError:
                    known = self._read(path)
                    if known is not None:
                        return known
                    path.unlink(missing_ok=True)  # what an erasure that a crash cut short left there
            _sync_folder(self.folder)
        finally:
            own.unlink()
        return key

    def _read(self, path: Path) -> bytes | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  as above
            content = file.read(KEY_BYTES + _CHECK_BYTES + 1) or b""
        if content == bytes(KEY_BYTES + _CHECK_BYTES):
            return None  # an erasure that a crash cut short
        key, check = content[:KEY_BYTES], content[KEY_BYTES:]
        if len(content) != KEY_BYTES + _CHECK_BYTES or check != _check(key):
            raise BadInput(
                f"key file {str(path)!r} is damaged", hint="restore it from a copy, or erase that person"
            )
        return key

    def _path(self, subject: str) -> Path:
        return self.folder / f"{sha256(subject.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.key"


def key_id(key: bytes) -> str:
    """How a record names the key: 8 hexadecimal digits that say nothing about it."""
    return sha256(key).hexdigest()[:8]


def _check(key: bytes) -> bytes:
    return sha256(b"check" + key).digest()[:_CHECK_BYTES]


def _bound_to(subject: str, field: str) -> bytes:
    return b"\0".join((_CONTEXT, subject.encode("utf-8", "surrogatepass"), field.encode()))


def _names(value: Any) -> set[str]:
    """Every key at any depth."""
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return set(fields).union(*map(_names, fields.values()))
    if isinstance(value, list | tuple):
        return set[str]().union(*map(_names, cast("list[Any]", value)))
    return set()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
