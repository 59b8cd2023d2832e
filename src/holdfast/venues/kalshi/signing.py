"""Signatures of Kalshi requests, and the private key they need.

Promise: the key is read once, from a file only its owner can read, and never appears in a message, a `repr`,
a pickle or the locals of a frame that raises; its text is made known to the redactor, so that no log or message
lets it pass. Limits: RSA keys in PEM without a passphrase.

The signed text is timestamp (Unix milliseconds) + METHOD + path, the path with its `/trade-api/...` prefix and
without query; body and query are *not* covered. RSA-PSS, SHA-256, MGF1 with SHA-256, salt as long as the digest.

Source: docs.kalshi.com, "API keys"; checked against four official clients (research 05, 1.1).
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from holdfast.audit.redact import register_secret
from holdfast.core.errors import ConfigError

KEY_HEADER = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER = "KALSHI-ACCESS-SIGNATURE"
MAX_PEM_BYTES = 65_536

_PADDING = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
_HASH = hashes.SHA256()


class Signer:
    """Signs for one API key.

    Attributes:
        key_id: The API key's id; not secret, it travels in every request.
    """

    __slots__ = ("_key", "key_id")

    def __init__(self, key_id: str, key: RSAPrivateKey) -> None:
        if not key_id or not key_id.isascii() or not key_id.isprintable():
            raise ConfigError(
                "Kalshi API key id is empty or not plain text", hint="copy the id shown with the key"
            )
        self.key_id = key_id
        self._key = key

    @classmethod
    def from_pem_file(cls, key_id: str, path: str | os.PathLike[str]) -> Signer:
        """The signer of *key_id* with the key in *path*.

        Raises:
            ConfigError: The file is missing, unreadable, open to group or others, or holds no usable RSA key.
        """
        loaded = _load(Path(path))
        if isinstance(loaded, _Problem):
            raise ConfigError(loaded.text, hint=loaded.hint)
        return cls(key_id, loaded)

    @property
    def fingerprint(self) -> str:
        """Tells one credential from another: SHA-256 of key id and public key, first 16 hex; not secret."""
        public = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(self.key_id.encode() + b"\0" + public).hexdigest()[:16]

    def headers(self, method: str, path: str, now_ms: int) -> dict[str, str]:
        """The three headers for one request.

        Args:
            method: In capitals.
            path: As sent, with its prefix, without query.
            now_ms: The machine's UTC time; the venue refuses a clock that is off by more than a few seconds.
        """
        text = f"{now_ms}{method}{path}"
        signature = self._key.sign(text.encode(), _PADDING, _HASH)
        return {
            KEY_HEADER: self.key_id,
            TIMESTAMP_HEADER: str(now_ms),
            SIGNATURE_HEADER: base64.b64encode(signature).decode(),
        }

    def __repr__(self) -> str:
        return f"Signer(key_id={self.key_id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Signer holds a private key and is not pickled")


class _Problem:
    """Why a key file cannot be used; returned, so that no frame that raises ever held the file's bytes."""

    __slots__ = ("hint", "text")

    def __init__(self, text: str, hint: str) -> None:
        self.text = text
        self.hint = hint


def _load(path: Path) -> RSAPrivateKey | _Problem:
    pem = _read(path)
    if isinstance(pem, _Problem):
        return pem
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        return _Problem(
            f"private key {str(path)!r} is protected by a passphrase", "Kalshi keys come without one"
        )
    except (ValueError, UnsupportedAlgorithm):
        return _Problem(f"private key {str(path)!r} is not a PEM private key", "it begins with -----BEGIN")
    register_secret(pem.decode("ascii", "replace"))
    if not isinstance(key, RSAPrivateKey):
        return _Problem(f"private key {str(path)!r} is not an RSA key", "Kalshi signs with RSA-PSS")
    return key


def _read(path: Path) -> bytes | _Problem:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                return _Problem(
                    f"private key {str(path)!r} can be read by others: mode {mode:04o}, expected 0600",
                    f"chmod 600 {path}; if others share this machine, make a new key",
                )
            pem = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        return _Problem(
            f"private key {str(path)!r} cannot be read: {error.strerror}",
            "KALSHI_PRIVATE_KEY_PATH names the PEM file downloaded with the API key",
        )
    if len(pem) > MAX_PEM_BYTES:
        return _Problem(
            f"private key {str(path)!r} is larger than {MAX_PEM_BYTES} bytes", "is it a PEM file?"
        )
    return pem
