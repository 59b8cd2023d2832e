"""Forty secrets are planted wherever text can stand; none of them may reach a byte of the log, or a message."""

import gzip
import json
import random
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import quote

import msgspec
import pytest

from holdfast.audit.logger import AuditLogger
from holdfast.audit.redact import REDACTED, Redactor
from holdfast.audit.schemas import JOURNALS_OWN, SCHEMAS, RecordType
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SEED = 20261121


def secret(rng: random.Random, length: int = 24) -> str:
    return "".join(rng.choices(ALPHABET, k=length))


def secrets() -> tuple[list[str], list[tuple[str, str]]]:
    """Those that are registered, and (secret, how it stands in a text) of those known by their shape alone."""
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    registered = [secret(rng, length) for length in (8, 9, 12, 16, 20, 24, 32, 43, 64, 88)]
    registered += [
        f'{secret(rng)}"{secret(rng)}',
        f"{secret(rng)}\\{secret(rng)}",
        f"{secret(rng)} {secret(rng)}/+=",
    ]
    body = "\n".join(secret(rng, 64) for _ in range(6))
    registered.append(f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\n")
    shapes = []
    for form in (
        "Authorization: Bearer {}", "authorization: Basic {}", "KALSHI-ACCESS-SIGNATURE: {}", "api_secret={}",
        "password={}&next=1", '{{"access_token": "{}"}}', "{{'private_key': '{}'}}", "https://user:{}@host/path",
        "Cookie: session={}; a=b", "passphrase: {}", "x-api-key: {}", "secret={}", "refresh_token={}",
        "-----BEGIN EC PRIVATE KEY-----\\n{}\\n-----END EC PRIVATE KEY-----", "auth_token='{}'", "pwd_secret = {}",
    ):  # fmt: skip
        value = secret(rng, 40)
        shapes.append((value, form.format(value)))
    jwt = f"eyJhbGciOi{secret(rng, 8)}.{secret(rng, 30)}.{secret(rng, 20)}"
    shapes.append((jwt.split(".")[1], f"token in the text {jwt}"))
    access_key = "AKIA" + secret(rng, 16).upper()
    shapes.append((access_key, f"aws {access_key} end"))
    while len(registered) + len(shapes) < 40:
        registered.append(secret(rng))
    return registered, shapes


REGISTERED, SHAPED = secrets()
TEXTS = [f"before {one} after" for one in REGISTERED] + [text for _, text in SHAPED]


def variants(one: str) -> set[bytes]:
    """*one* as encoders may have written it."""
    raw = one.encode()
    forms = {raw, raw.hex().encode(), raw.hex().upper().encode(), quote(one, safe="").encode()}
    forms |= {
        b64encode(raw).rstrip(b"="),
        urlsafe_b64encode(raw).rstrip(b"="),
        json.dumps(one)[1:-1].encode(),
    }
    if "\n" in one:
        forms |= {line.encode() for line in one.splitlines() if not line.startswith("-----")}
    return forms


NEEDLES = sorted({form for one in (*REGISTERED, *(value for value, _ in SHAPED)) for form in variants(one)})


def found_in(content: bytes) -> list[bytes]:
    return [needle for needle in NEEDLES if needle in content]


def redactor() -> Redactor:
    return Redactor(REGISTERED)


def sample(kind: Any, text: str) -> Any:  # noqa: PLR0911  one line for each kind of type
    """A value of the annotated type *kind* with *text* wherever text may be."""
    if kind is str or kind is Any:
        return text
    if kind in {int, bool}:
        return kind(1)
    if kind is float:
        return 1.5
    origin, args = get_origin(kind), get_args(kind)
    if origin in {list, tuple} or kind in {list, tuple}:
        return [sample(args[0], text) if args else text]
    if origin is dict or kind is dict:
        return {text: sample(args[1], text) if args else text}
    if origin is not None and type(None) in args:
        return sample(next(one for one in args if one is not type(None)), text)
    if origin is not None and args:  # another union
        return sample(str if str in args else args[0], text)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {
            field.encode_name: sample(get_type_hints(kind)[field.name], text)
            for field in msgspec.structs.fields(kind)
        }
    return text


def details_of(type_: str, text: str) -> dict[str, Any]:
    filled = sample(SCHEMAS[type_], text)
    nested = {"deep": [{"deeper": {"text": text, text: 1}}]}
    return {
        **filled,
        **nested,
        "error": f"HTTP 401 {text}",
        "headers": {"Authorization": text},
        "argv": ["--x", text],
    }


def test_no_secret_reaches_a_record_of_any_type(tmp_path):
    """Planted in every field of every record type, at any depth, in keys, users and components: no byte on disk."""
    assert len(REGISTERED) + len(SHAPED) == 40
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), rotate_bytes=1 << 20) as wal:
        log = AuditLogger(wal, redactor=redactor())
        for type_ in RecordType:
            if type_ in JOURNALS_OWN:
                continue
            for text in TEXTS:
                log.record(type_, details_of(type_, text), user=text, component=text, level=0)
                variant = {
                    "copied": [
                        form.decode()
                        for form in variants(text.removeprefix("before ").removesuffix(" after"))
                    ]
                }
                if text.startswith("before "):
                    log.record("NOTE", variant, level=0)
        log.log_api_call(
            "u", "kalshi", f"markets?{TEXTS[0]}", "GET", 500, 1.0, error=TEXTS[-1], more=TEXTS[1]
        )
        count = wal.last_seq
    assert count > 40 * 10
    for path in (tmp_path / "log").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            assert not found_in(content), path
            assert not found_in(path.name.encode())
    written = b"".join(path.read_bytes() for path in (tmp_path / "log").glob("*.log"))
    assert written.count(REDACTED.encode()) > count


def test_the_canary_would_be_seen(tmp_path):
    """Without a redactor the same search finds what is planted: the test can fail."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock()) as wal:
        wal.append("NOTE", {"text": TEXTS[0]})
    content = b"".join(path.read_bytes() for path in (tmp_path / "log").glob("*.log"))
    assert found_in(content)


FAIL = """
import sys
from holdfast.audit.redact import register_secret
from holdfast.cli import main as cli
for one in {registered!r}:
    register_secret(one)

def fail(words):
    text = {text!r}
    try:
        try:
            raise KeyError(text)
        except KeyError as inner:
            raise ValueError("url " + text) from inner
    except ValueError:
        error = {kind}(text)
        error.add_note(text)
        raise error

cli._dispatch = fail
sys.exit(cli.main(["audit", *{debug!r}]))
"""
KINDS = ("RuntimeError", "OSError", "__import__('holdfast.core.errors').core.errors.BadInput")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_no_secret_reaches_a_message_or_a_traceback(kind, debug):
    """An error, its cause, its context and its notes lose every secret on stderr, with and without --debug."""
    for text in ("; ".join(TEXTS[:14]), *(("\n".join(TEXTS[14:]),) if debug else ())):
        programme = FAIL.format(registered=REGISTERED, text=text, kind=kind, debug=debug)
        done = subprocess.run([sys.executable, "-c", programme], capture_output=True, check=False, timeout=60)
        assert done.returncode == 1, done
        assert not found_in(done.stdout + done.stderr), done.stderr.decode()
        assert REDACTED.encode() in done.stderr
