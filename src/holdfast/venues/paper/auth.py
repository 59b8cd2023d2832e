"""Who is asking: Kalshi's request signatures, really verified.

Three headers sign a request: key id, wall time in milliseconds, and RSA-PSS (SHA-256, MGF1-SHA-256, salt of 32
bytes) over time + METHOD + path, the path with its /trade-api prefix and without its query. Neither body nor query is
signed. The time must be within `SKEW_SECS` of ours. Limit: a signature may be used again within that time, as
at the venue.

Source: docs.kalshi.com, "API keys"; the 401 bodies as the venue's demo was seen to answer.
"""

from __future__ import annotations

import base64
import binascii
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from holdfast.venues.paper import wire

SKEW_SECS: Final = 5
KEY_HEADER: Final = "KALSHI-ACCESS-KEY"
SIGNATURE_HEADER: Final = "KALSHI-ACCESS-SIGNATURE"
TIMESTAMP_HEADER: Final = "KALSHI-ACCESS-TIMESTAMP"

_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)


class KeyPair:
    """A throw-away key: its id and the private half, which is handed to the client as a file.

    Args:
        key_id: None makes a new uuid.
        private_key: None makes a new one of 2048 bits (a tenth of a second).
    """

    def __init__(self, key_id: str | None = None, private_key: rsa.RSAPrivateKey | None = None) -> None:
        self.key_id = key_id or str(uuid.uuid4())
        self.private_key = private_key or rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def write_pem(self, directory: Path) -> Path:
        """Write the private key to *directory*, readable by its owner alone; an older file is replaced."""
        path = directory / f"exchange-{self.key_id[:8]}.pem"
        pem = self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        return path


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether the request claims to be somebody's."""
    return any(name in headers for name in (KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER))


def check_signature(
    pair: KeyPair, headers: Mapping[str, str], method: str, path: str, wall_ns: int
) -> dict[str, Any] | None:
    """The body of the 401 that answers this request, or None where its signature holds.

    Args:
        pair: The only key there is.
        headers: Of the request, looked up without regard to case.
        method: In capitals.
        path: As sent, without its query.
        wall_ns: Wall time, UTC ns.
    """
    for name, word in (
        (KEY_HEADER, "key"),
        (SIGNATURE_HEADER, "signature"),
        (TIMESTAMP_HEADER, "timestamp"),
    ):
        if not headers.get(name):
            return _missing(word)
    stamp = headers[TIMESTAMP_HEADER]
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 16):
        return wire.authentication_error("INVALID_TIMESTAMP")
    if abs(wall_ns - int(stamp) * 1_000_000) > SKEW_SECS * 1_000_000_000:
        return {"error": {"code": "header_timestamp_expired", "message": "header timestamp expired"}}
    if headers[KEY_HEADER] != pair.key_id:
        return wire.authentication_error("NOT_FOUND")
    try:
        signature = base64.b64decode(headers[SIGNATURE_HEADER], validate=True)
        message = f"{stamp}{method}{path}".encode()
        pair.private_key.public_key().verify(signature, message, _PSS, hashes.SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return wire.authentication_error("INCORRECT_API_KEY_SIGNATURE")
    return None


def _missing(word: str) -> dict[str, Any]:
    return {
        "error": {
            "code": f"{word}_is_missing_from_headers",
            "message": f"{word} is missing from headers",
        }
    }
