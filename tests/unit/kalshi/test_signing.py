"""Signatures and key files."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from support.exchange import shared_key

from holdfast.audit.logger import AuditLogger
from holdfast.audit.redact import redact_text
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import ConfigError
from holdfast.venues.kalshi.signing import MAX_PEM_BYTES, Signer

PKCS8 = serialization.PrivateFormat.PKCS8
NONE = serialization.NoEncryption()


def pem(key=None, encryption=NONE) -> bytes:
    key = key or shared_key().private_key
    return key.private_bytes(serialization.Encoding.PEM, PKCS8, encryption)


def key_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_signature_is_pss_over_timestamp_method_and_path(tmp_path: Path):
    """The signature verifies as RSA-PSS, SHA-256, salt 32, over timestamp + METHOD + path."""
    signer = Signer.from_pem_file("key-1", key_file(tmp_path / "key.pem", pem()))
    headers = signer.headers("GET", "/trade-api/v2/markets", 1_700_000_000_123)
    assert headers["KALSHI-ACCESS-KEY"] == "key-1"
    assert headers["KALSHI-ACCESS-TIMESTAMP"] == "1700000000123"
    public = shared_key().private_key.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(
        base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"]),
        b"1700000000123GET/trade-api/v2/markets",
        padding.PSS(padding.MGF1(hashes.SHA256()), 32),
        hashes.SHA256(),
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int):
    """A key file with any right for group or others is refused with the command that mends it."""
    path = key_file(tmp_path / "key.pem", pem(), mode)
    with pytest.raises(ConfigError, match="read by others") as raised:
        Signer.from_pem_file("key-1", path)
    assert "chmod 600" in raised.value.hint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a PEM"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", "not a PEM"),
        (b"x" * (MAX_PEM_BYTES + 1), "larger than"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "not an RSA key"),
        (pem(encryption=serialization.BestAvailableEncryption(b"long-secret")), "passphrase"),
    ],
)
def test_a_file_that_holds_no_usable_key_is_refused_by_name(tmp_path: Path, content: bytes, says: str):
    """Garbage, an oversized file, another kind of key and a protected key each have their own refusal."""
    with pytest.raises(ConfigError, match=says):
        Signer.from_pem_file("key-1", key_file(tmp_path / "key.pem", content))


def test_a_missing_key_file_is_refused(tmp_path: Path):
    """A path without a file is a ConfigError that says how the path is given."""
    with pytest.raises(ConfigError, match="cannot be read") as raised:
        Signer.from_pem_file("key-1", tmp_path / "none.pem")
    assert "KALSHI_PRIVATE_KEY_PATH" in raised.value.hint


@pytest.mark.parametrize("key_id", ["", "a\nb", "schlüssel"])
def test_a_key_id_that_cannot_be_a_header_is_refused(key_id: str):
    """A key id must be plain printable text."""
    with pytest.raises(ConfigError):
        Signer(key_id, shared_key().private_key)


@pytest.mark.invariant("I14")
def test_no_key_material_reaches_a_message_a_repr_or_a_frame(tmp_path: Path):
    """Neither repr, pickle nor any local variable of a raising frame shows the key's bytes."""
    secret = pem()[:-40]
    path = key_file(tmp_path / "key.pem", secret)
    with pytest.raises(ConfigError) as raised:
        Signer.from_pem_file("key-1", path)
    frame = raised.tb
    while frame is not None:
        if "signing.py" in frame.tb_frame.f_code.co_filename:
            for value in frame.tb_frame.f_locals.values():
                assert secret[100:160] not in repr(value).encode()
        frame = frame.tb_next
    assert secret[100:160].decode() not in str(raised.value)
    signer = Signer("key-1", shared_key().private_key)
    assert repr(signer) == "Signer(key_id='key-1')"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(signer)


@pytest.mark.invariant("I14")
def test_no_line_of_a_loaded_key_reaches_a_record_or_a_message(tmp_path: Path):
    """Any line of the key, without its frame and under an innocent name, is redacted once the key is loaded."""
    text = pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    lines = [line for line in text.decode().splitlines() if not line.startswith("-----") and len(line) >= 16]
    Signer.from_pem_file("key-1", key_file(tmp_path / "key.pem", text))
    with WriteAheadLog(tmp_path / "audit", clock=ManualClock(), seal=False) as wal:
        log = AuditLogger(wal)
        for line in (*lines, "".join(lines), text.decode()):
            log.record("CONFIG", {"note": f"the server said {line}", line: "as a name"})
            assert line not in redact_text(f"failed at {line}!")
    written = b"".join(path.read_bytes() for path in (tmp_path / "audit").iterdir() if path.is_file())
    assert b"the server said" in written
    assert not [line for line in lines if line.encode() in written]
