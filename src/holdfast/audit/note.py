"""Signed notes and checkpoints: small texts that carry the signatures of the log and of its witnesses.

Promise: what is written here follows C2SP signed-note, tlog-checkpoint and tlog-cosignature byte for byte, and
what is read is held to them: a note is accepted only if a key that the caller named signed it and no signature
of a named key is wrong; signatures of other keys are carried, never believed. There is one spelling of every
value: base64 with stray bits, numbers with leading zeroes and key ids that are not the hash of their key are
refused, so that no byte of a note can change unseen.

    <text, ending in a newline>
    <an empty line>
    — <key name> <base64 of 4 bytes key id and the signature>

Key id: first four bytes of SHA-256(name, newline, algorithm byte, public key). Algorithms: 0x01 Ed25519 over
the text, 0x04 Ed25519 and 0x06 ML-DSA-44 cosignatures of checkpoints, which carry the time they were made.

Pure: no I/O, no clock. Limits: at most `MAX_NOTE_BYTES` and `MAX_SIGNATURES`, as Go's reader has it. ML-DSA-44
needs a `cryptography` that was built with it; without it such keys are refused, not passed over.
"""

from __future__ import annotations

import re
import struct
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from holdfast.core.errors import BadInput

ED25519 = 0x01
COSIGNATURE_ED25519 = 0x04
COSIGNATURE_ML_DSA_44 = 0x06
MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100

_PUBLIC_BYTES = {ED25519: 32, COSIGNATURE_ED25519: 32, COSIGNATURE_ML_DSA_44: 1312}
_DASH = "— ".encode()
_LAST_SECOND = 2**63 - 1
_FORBIDDEN = re.compile(rb"[\x00-\x09\x0b-\x1f]")
_DECIMAL = re.compile(rb"0|[1-9][0-9]{0,19}")
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)


class Signature(NamedTuple):
    """One signature line.

    Attributes:
        name: Whose key made it.
        key_id: Which key, a uint32.
        value: What the algorithm gave; of a cosignature the 8 bytes of time come first.
    """

    name: str
    key_id: int
    value: bytes

    def line(self) -> bytes:
        """The line as it stands in a note, with its newline."""
        return b"%b%b %b\n" % (
            _DASH,
            self.name.encode(),
            b64encode(self.key_id.to_bytes(4, "big") + self.value),
        )


class Note(NamedTuple):
    """A note taken apart; nothing in it is verified.

    Attributes:
        text: What was signed, its last newline included.
        signatures: Every line, in order.
    """

    text: bytes
    signatures: tuple[Signature, ...]


class Opened(NamedTuple):
    """A note whose text may be believed.

    Attributes:
        text: What was signed.
        verified: The named keys that signed it, at least one, each once.
        unknown: Signatures of other keys, each once.
    """

    text: bytes
    verified: tuple[VerifierKey, ...]
    unknown: tuple[Signature, ...]


class Checkpoint(NamedTuple):
    """How long the log is, and the root over its records.

    Attributes:
        origin: The log's name.
        size: How many records.
        root: Of the tree over them: 32 bytes in the checkpoint of any real log; who hashes it checks that.
        extension: Further lines, each with its newline; ours have none.
    """

    origin: str
    size: int
    root: bytes
    extension: str = ""

    def text(self) -> bytes:
        """The text that is signed."""
        return b"%b\n%d\n%b\n%b" % (
            self.origin.encode(),
            self.size,
            b64encode(self.root),
            self.extension.encode(),
        )


class _PublicKey(Protocol):
    def verify(self, signature: bytes, data: bytes) -> None: ...


class _PrivateKey(Protocol):
    def sign(self, data: bytes) -> bytes: ...


@dataclass(frozen=True)
class VerifierKey:
    """A public key with the name it signs by, written `name+id+base64`.

    Attributes:
        name: Not empty, without spaces and plus signs.
        algorithm: `ED25519`, `COSIGNATURE_ED25519` or `COSIGNATURE_ML_DSA_44`.
        public: The key's own bytes.
    """

    name: str
    algorithm: int
    public: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        expected = _PUBLIC_BYTES.get(self.algorithm)
        if expected is None:
            raise BadInput(
                f"verifier key {self.name!r} refused: unknown algorithm 0x{self.algorithm:02x}", hint=_WHOLE
            )
        if len(self.public) != expected:
            raise BadInput(
                f"verifier key {self.name!r} refused: {len(self.public)} bytes, not {expected}", hint=_WHOLE
            )

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The key that *text* spells.

        Raises:
            BadInput: It spells none, or its id is not the hash of its name and key.
        """
        parts = text.split("+", 2)
        if len(parts) != 3 or not _KEY_ID.fullmatch(parts[1]):
            raise BadInput(f"not a verifier key: {text[:80]!r}", hint="a verifier key reads name+12345678+A…")
        material = decode_base64(parts[2].encode("utf-8", "replace"), "verifier key")
        key = cls(parts[0], material[0] if material else 0, material[1:])
        if f"{key.key_id:08x}" != parts[1]:
            raise BadInput(
                f"verifier key {key.name!r} refused: id {parts[1]}, its key has id {key.key_id:08x}",
                hint=_WHOLE,
            )
        return key

    def __str__(self) -> str:
        material = b64encode(bytes([self.algorithm]) + self.public).decode()
        return f"{self.name}+{self.key_id:08x}+{material}"

    @cached_property
    def key_id(self) -> int:
        """A uint32 that tells this key from others of its name; no proof of anything."""
        return int.from_bytes(
            sha256(b"%b\n%c%b" % (self.name.encode(), self.algorithm, self.public)).digest()[:4], "big"
        )

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether *signature*, a `Signature.value`, is this key's for *text*.

        Raises:
            BadInput: This installation cannot verify signatures of this algorithm.
        """
        message = text
        if self.algorithm != ED25519:
            if len(signature) < 8 or cosigned_at(signature) > _LAST_SECOND:
                return False
            try:
                message = _cosigned_message(text, self.name, self.algorithm, cosigned_at(signature))
            except BadInput:  # only checkpoints are cosigned
                return False
            signature = signature[8:]
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    @cached_property
    def _key(self) -> _PublicKey:
        if self.algorithm != COSIGNATURE_ML_DSA_44:
            return Ed25519PublicKey.from_public_bytes(self.public)
        try:
            from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey  # noqa: PLC0415  newer libraries have it

            return MLDSA44PublicKey.from_public_bytes(self.public)
        except (ImportError, UnsupportedAlgorithm) as why:
            raise BadInput(_NO_ML_DSA, hint=_UPGRADE) from why


@dataclass(frozen=True)
class SigningKey:
    """A private key with the name it signs by.

    Attributes:
        name: As `VerifierKey.name`.
        seed: 32 secret bytes; never shown by `repr`.
        algorithm: `ED25519` for a log; a witness has a key of one of the cosignature algorithms.
    """

    name: str
    seed: bytes = field(repr=False)
    algorithm: int = ED25519

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            raise BadInput(f"signing key {self.name!r} refused: its seed has {len(self.seed)} bytes, not 32")
        _ = self.vkey  # a name or an algorithm that no note may carry is refused here

    @cached_property
    def vkey(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self.algorithm, self._keys[1])

    def sign(self, text: bytes) -> Signature:
        """The signature of *text*.

        Raises:
            BadInput: The key is for cosignatures, which carry a time: see `cosign`.
        """
        if self.algorithm != ED25519:
            raise BadInput(f"key {self.name!r} only cosigns checkpoints")
        return Signature(self.name, self.vkey.key_id, self.bare_signature(text))

    def bare_signature(self, message: bytes) -> bytes:
        """What the algorithm gives for *message*, without time or key id."""
        return self._keys[0].sign(message)

    @cached_property
    def _keys(self) -> tuple[_PrivateKey, bytes]:
        """The private key and the bytes of its public half."""
        if self.algorithm != COSIGNATURE_ML_DSA_44:
            ed25519 = Ed25519PrivateKey.from_private_bytes(self.seed)
            return ed25519, ed25519.public_key().public_bytes_raw()
        try:
            from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey  # noqa: PLC0415  as above

            ml_dsa = MLDSA44PrivateKey.from_seed_bytes(self.seed)
        except (ImportError, UnsupportedAlgorithm) as why:
            raise BadInput(_NO_ML_DSA, hint=_UPGRADE) from why
        return ml_dsa, ml_dsa.public_key().public_bytes_raw()


# -- notes -------------------------------------------------------------------------------------------------


def sign_note(text: bytes, *keys: SigningKey) -> bytes:
    """The note over *text*, signed by *keys* in this order.

    Raises:
        BadInput: The text does not end in a newline, or no note may hold it; or there is no key.
    """
    _check_text(text)
    if text[-1:] != b"\n" or not keys:
        raise BadInput("note refused: a text ending in a newline and at least one key are needed")
    return b"%b\n%b" % (text, b"".join(key.sign(text).line() for key in keys))


def parse_note(data: bytes) -> Note:
    """*data* taken apart, with nothing verified.

    Raises:
        BadInput: It is not a signed note.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise BadInput(f"note refused: {len(data)} bytes > {MAX_NOTE_BYTES} bytes")
    _check_text(data)
    end = data.rfind(b"\n\n")
    if end < 0:
        raise BadInput("not a signed note: no empty line before signatures")
    text, lines = data[: end + 1], data[end + 2 :]
    if not lines.endswith(b"\n"):
        raise BadInput("not a signed note: its signatures do not end in a newline")
    count = lines.count(b"\n")
    if count > MAX_SIGNATURES:
        raise BadInput(f"note refused: {count} signatures > {MAX_SIGNATURES}")
    return Note(text, tuple(parse_signature(line) for line in lines[:-1].split(b"\n")))


def parse_signature(line: bytes) -> Signature:
    """The signature that *line* (without its newline) carries.

    Raises:
        BadInput: It carries none.
    """
    name, separator, encoded = line.removeprefix(_DASH).partition(b" ")
    if not line.startswith(_DASH) or not separator:
        raise BadInput(f"not a signature line: {_shown(line)}")
    try:
        text = name.decode()
    except UnicodeDecodeError as why:
        raise BadInput(f"not a signature line: {_shown(line)}") from why
    _check_name(text)
    value = decode_base64(encoded, "signature")
    if len(value) < 5:
        raise BadInput(f"signature of {text!r} refused: {len(value)} bytes, 4 of them key id")
    return Signature(text, int.from_bytes(value[:4], "big"), value[4:])


def open_note(data: bytes, keys: Iterable[VerifierKey]) -> Opened:
    """The text of the note *data*, if one of *keys* signed it and none of them wrongly.

    Raises:
        BadInput: It is no note, no key of *keys* signed it, or a signature of one of them is wrong.
    """
    known: dict[tuple[str, int], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.key_id), key) != key:
            raise BadInput(f"two verifier keys are called {key.name!r} with id {key.key_id:08x}")
    note = parse_note(data)
    verified: dict[VerifierKey, None] = {}
    unknown: dict[Signature, None] = {}
    for signature in note.signatures:
        signer = known.get((signature.name, signature.key_id))
        if signer is None:
            unknown[signature] = None
        elif signer not in verified:
            if not signer.verify(note.text, signature.value):
                raise BadInput(f"note refused: wrong signature of {signature.name!r} ({_of(signature)})")
            verified[signer] = None
    if not verified:
        signers = ", ".join(f"{signature.name!r} ({_of(signature)})" for signature in [*unknown][:5])
        raise BadInput(f"note refused: signed by unknown keys only: {signers}")
    return Opened(note.text, tuple(verified), tuple(unknown))


def add_signature(note: bytes, line: bytes) -> bytes:
    """*note* with the signature *line* behind the others, unless it stands there already.

    Raises:
        BadInput: One of them cannot be read, or the note is full.
    """
    signature = parse_signature(line.removesuffix(b"\n"))
    signatures = parse_note(note).signatures
    if signature in signatures:
        return note
    if len(signatures) == MAX_SIGNATURES:
        raise BadInput(f"note refused: it has {MAX_SIGNATURES} signatures already")
    return note + signature.line()


# -- checkpoints -------------------------------------------------------------------------------------------


def parse_checkpoint(text: bytes) -> Checkpoint:
    """The checkpoint that the text of a note says.

    Raises:
        BadInput: It says none.
    """
    lines = text.split(b"\n")
    if len(lines) < 4 or lines.pop():
        raise BadInput("not a checkpoint: it needs three lines, each ending in a newline")
    if not all(lines):
        raise BadInput("not a checkpoint: a line is empty")
    _check_text(text)
    size = int(lines[1]) if _DECIMAL.fullmatch(lines[1]) else -1
    if not 0 <= size < 2**64:
        raise BadInput(f"not a checkpoint: size {_shown(lines[1])} is no count of records")
    extension = b"".join(b"%b\n" % line for line in lines[3:]).decode()
    return Checkpoint(lines[0].decode(), size, decode_base64(lines[2], "root"), extension)


def cosign(checkpoint_text: bytes, key: SigningKey, unix_secs: int) -> Signature:
    """The cosignature of *key*, a witness's, over a checkpoint it saw at *unix_secs* UTC.

    Raises:
        BadInput: The key is no cosigner's, the text no checkpoint, or the time outside 0 … 2**63 - 1.
    """
    if key.algorithm == ED25519:
        raise BadInput(f"key {key.name!r} signs notes and cosigns none")
    if not 0 <= unix_secs <= _LAST_SECOND:
        raise BadInput(f"cosignature refused: its time {unix_secs} s is out of range")
    message = _cosigned_message(checkpoint_text, key.name, key.algorithm, unix_secs)
    return Signature(key.name, key.vkey.key_id, unix_secs.to_bytes(8, "big") + key.bare_signature(message))


def cosigned_at(signature: bytes) -> int:
    """When a cosignature (a `Signature.value`) says it was made, in seconds since 1970, UTC."""
    return int.from_bytes(signature[:8], "big")


def _cosigned_message(text: bytes, name: str, algorithm: int, unix_secs: int) -> bytes:
    """What a cosigner signs for the checkpoint *text*.

    Raises:
        BadInput: It is no checkpoint, or names that ML-DSA-44 cosignatures cannot hold.
    """
    checkpoint = parse_checkpoint(text)
    if algorithm == COSIGNATURE_ED25519:
        return b"cosignature/v1\ntime %d\n%b" % (unix_secs, text)
    cosigner, origin = name.encode(), checkpoint.origin.encode()
    if max(len(cosigner), len(origin)) > 255 or len(checkpoint.root) != 32:
        raise BadInput("cosignature refused: a name of more than 255 bytes, or a root that has not 32")
    return b"subtree/v1\n\0%c%b%b%c%b%b%b" % (
        len(cosigner),
        cosigner,
        struct.pack(">Q", unix_secs),
        len(origin),
        origin,
        struct.pack(">QQ", 0, checkpoint.size),
        checkpoint.root,
    )


# -- spelling ----------------------------------------------------------------------------------------------

_NO_ML_DSA = "this installation of the cryptography package has no ML-DSA-44"
_WHOLE = "copy the whole key, as `holdfast audit keys show` prints it"
_UPGRADE = "a newer cryptography package has it; or name an Ed25519 key"


def _check_text(data: bytes) -> None:
    found = _FORBIDDEN.search(data)
    if found is not None:
        raise BadInput(f"note refused: control character 0x{found[0][0]:02x} at byte {found.start()}")
    try:
        data.decode()
    except UnicodeDecodeError as why:
        raise BadInput(f"note refused: not UTF-8 at byte {why.start}") from why


def _check_name(name: str) -> None:
    if not name or "+" in name or any(map(str.isspace, name)) or _FORBIDDEN.search(_utf8(name)):
        raise BadInput(
            f"key name {name[:80]!r} refused: it is empty, or has a space or a plus sign",
            hint="for instance witness.example/w1",
        )


def _utf8(name: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError as why:
        raise BadInput(f"key name {name[:80]!r} refused: it is not Unicode text") from why


def decode_base64(text: bytes, what: str) -> bytes:
    """The bytes that *text* spells, in the one way that is accepted.

    Raises:
        BadInput: It is not base64, or not as it would be written; *what* names it.
    """
    try:
        value = a2b_base64(text)
    except Base64Error as why:
        raise BadInput(f"{what} refused: not base64: {_shown(text)}") from why
    if b64encode(value) != text:
        raise BadInput(f"{what} refused: not base64 as it is written: {_shown(text)}")
    return value


def _shown(line: bytes, most: int = 80) -> str:
    return repr(line[:most].decode("utf-8", "replace")) + ("…" if len(line) > most else "")


def _of(signature: Signature) -> str:
    return f"key id {signature.key_id:08x}"
