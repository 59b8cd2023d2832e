r"""No secret passes: what is about to be recorded or printed is searched, and what is secret is replaced.

Three rules, applied to every string at any depth, to keys as well as values:

* by name: the value under a key that names a secret (`api_secret`, `Authorization`, `private-key`, …) goes,
  whatever it is; a key that names where a secret lies (`private_key_path`, `token_count`) keeps its value;
* by shape: PEM blocks (also cut off or with `\n` spelled out), `Authorization`-like headers and assignments,
  bearer and basic credentials, JSON web tokens, AWS access keys, passwords in URLs;
* by value: every secret that this process was given, registered with `register_secret`, also where it stands
  escaped, percent-encoded, as hex or base64, or line by line.

Limits: a secret that was never registered, under an innocent name and without a known shape, is not seen; a
secret shorter than `MIN_SECRET_LENGTH` is not registered, since it would blot out ordinary text. A record
without any suspicious letters costs one search over its encoded bytes, or a look into what was searched before.
"""

from __future__ import annotations

import re
import threading
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, cast

from holdfast.core.errors import BadInput

REDACTED = "[redacted]"
MIN_SECRET_LENGTH = 8
"""Characters; shorter secrets are refused by `register_secret`."""

_SECRET_WORDS = frozenset(
    {
        *("password", "passwd", "pwd", "passphrase", "secret", "secrets", "secretkey", "apisecret", "bearer"),
        *(
            "token",
            "tokens",
            "authtoken",
            "accesstoken",
            "authorization",
            "cookie",
            "credential",
            "credentials",
        ),
        *("signature", "privatekey", "apikey", "accesskey"),
    }
)
_SECRET_PAIRS = frozenset((word, "key") for word in ("private", "api", "access", "signing", "secret"))
_ABOUT_A_SECRET = frozenset(
    {
        *(
            "path",
            "file",
            "id",
            "ids",
            "name",
            "count",
            "bytes",
            "ns",
            "secs",
            "env",
            "kind",
            "type",
            "version",
        ),
        *("length", "expires"),
    }
)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_NAMED = (
    r"(?:proxy-)?authorization|set-cookie|cookie|[a-z0-9_-]*(?:password|passwd|passphrase|secret)"
    r"|[a-z0-9_-]*(?:private|api|access|secret|signing)[_-]?key|[a-z0-9_-]*(?:access|auth|refresh|session|api)[_-]?token|token"
    r"|kalshi-access-(?:signature|key)|[a-z0-9_-]*signature"
)
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"-----BEGIN [A-Z0-9 ]{1,60}-----.*?(?:-----END [A-Z0-9 ]{1,60}-----|\Z)", re.DOTALL),
        REDACTED,
    ),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"), REDACTED),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), REDACTED),
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), rf"\1:{REDACTED}@"),
    # A header or an assignment, in text, in JSON, in a query string or in the repr of a dict: the value goes.
    (
        re.compile(
            rf"(?<![a-z0-9_-])({_NAMED})(\\?[\"']?\s*(?:[:=]|,\s(?=b?[\"']))\s*)"
            r"(?!(?:bearer|basic)\s+\[redacted\])"
            r"(?:b?\\?\"(?:[^\"\\]|\\.)*\\?\"|b?\\?'(?:[^'\\]|\\.)*\\?'|(?:(?:bearer|basic|digest)\s+)?[^\s\"',;&)}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1\2{REDACTED}",
    ),
)
_DIGITS = b"0123456789"
_MOST_REMEMBERED = 4096
_MARKERS = (
    *(b"-----begin", b"bearer", b"basic ", b"eyj", b"://", b"pass", b"pwd", b"secret", b"token", b"auth"),
    *(b"cookie", b"credential", b"signature", b"key", b"akia", b"asia"),
)


class Redactor:
    """A set of known secrets and the search for those and for everything that looks like one.

    Safe to use from any thread; registering is rare, searching takes no lock.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._needles: frozenset[str] = frozenset()
        self._known: re.Pattern[str] | None = None
        self._known_bytes: tuple[bytes, ...] = ()
        self._harmless: set[bytes] = set()
        self._names: dict[str, str] = {}
        self._of_digits: tuple[bytes, ...] = ()  # known forms with hardly a letter
        for secret in secrets:
            self.register(secret)

    def register(self, secret: str) -> None:
        """Never let *secret* pass again: as it is, escaped, percent-encoded, as hex or base64, or line by line.

        Raises:
            BadInput: It is shorter than `MIN_SECRET_LENGTH`; it is not repeated in the message.
        """
        text = secret.strip()
        if len(text) < MIN_SECRET_LENGTH:
            raise BadInput(f"secret refused: {len(text)} characters < {MIN_SECRET_LENGTH} characters")
        forms = {text, _escaped(text), text.replace("\n", "\\n"), text.replace("\n", ""), *_encodings(text)}
        if "\n" in text:
            lines = (line.strip() for line in text.splitlines())
            forms.update(line for line in lines if len(line) >= 16 and not line.startswith("-----"))
        with self._lock:
            self._needles |= forms
            longest_first = sorted(self._needles, key=len, reverse=True)
            self._known_bytes = tuple({_escaped(form).encode().lower() for form in longest_first})
            self._of_digits = tuple(
                form for form in self._known_bytes if len(form.translate(None, _DIGITS)) < 4
            )
            self._known = re.compile("|".join(map(re.escape, longest_first)))
            self._harmless, self._names = set(), {}

    def text(self, value: str) -> str:
        """*value* with every secret in it replaced by `REDACTED`."""
        if not self._suspicious(value.encode("utf-8", "surrogatepass")) and not self._holds_known(value):
            return value
        return self._clean_text(value)

    def name(self, value: str) -> str:
        """`text` for what comes again and again, a component say."""
        names = self._names
        plain = names.get(value)
        if plain is None:
            plain = self.text(value)
            if len(names) >= _MOST_REMEMBERED:
                names.clear()
            names[value] = plain
        return plain

    def details(self, details: Mapping[str, Any], encoded: bytes) -> Mapping[str, Any]:
        """*details* without secrets; the same object where there is nothing to hide.

        Args:
            details: What is about to be recorded.
            encoded: The same as JSON, which is what is searched first.
        """
        if not self._suspicious(encoded):
            return details
        return cast("dict[str, Any]", self._clean(details))

    def is_harmless(self, encoded: bytes) -> bool:
        """Whether `details` would leave a record alone that is *encoded* so; quick for records like one before.

        Records that repeat differ in their digits. What stands between the digits decides once for all of them: no
        marker holds a digit, and a known secret without its digits is looked for there too, unless it then says
        too little, in which case it is looked for every time.
        """
        harmless = self._harmless
        letters = encoded.translate(None, _DIGITS)
        if letters not in harmless:
            if self._suspicious(encoded):
                return False
            if self._suspicious(letters) or any(
                form.translate(None, _DIGITS) in letters.lower()
                for form in self._known_bytes
                if form not in self._of_digits
            ):
                return True
            if len(harmless) >= _MOST_REMEMBERED:
                harmless.clear()
            harmless.add(letters)
        return not self._of_digits or not any(form in encoded.lower() for form in self._of_digits)

    def _holds_known(self, value: str) -> bool:
        return self._known is not None and self._known.search(value) is not None

    def _suspicious(self, encoded: bytes) -> bool:
        lowered = encoded.lower()
        return any(marker in lowered for marker in _MARKERS) or any(
            known in lowered for known in self._known_bytes
        )

    def _clean_text(self, value: str) -> str:
        if self._known is not None:
            value = self._known.sub(REDACTED, value)
        for shape, replacement in _SHAPES:
            value = shape.sub(replacement, value)
        return value

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._clean_text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return REDACTED  # raw bytes have no business in a record beside something suspicious
        if isinstance(value, Mapping):
            return self._clean_mapping(cast("Mapping[str, Any]", value))
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(item) for item in cast("Iterable[Any]", value)]
        return value

    def _clean_mapping(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        # {"key": "api_secret", "value": …}: a setting told as two fields names its secret in the first.
        named = mapping.get("key", mapping.get("name"))
        named_secret = isinstance(named, str) and names_a_secret(named)
        for key, value in mapping.items():
            secret = names_a_secret(key) or (named_secret and key == "value")
            cleaned[self._clean_text(key)] = _hidden(value) if secret else self._clean(value)
        return cleaned


def _hidden(value: Any) -> Any:
    """Nothing and truth values say whether a secret is set, which is no secret; all else goes."""
    return value if value is None or isinstance(value, bool) or value == "" else REDACTED


def _encodings(text: str) -> Iterator[str]:
    """*text* as encoders write it whole; inside something longer its base64 looks otherwise."""
    from urllib.parse import quote, quote_plus  # noqa: PLC0415  costs more than the rest of this file

    content = text.encode("utf-8", "surrogatepass")
    yield content.hex()
    yield content.hex().upper()
    yield b64encode(content).decode().rstrip("=")
    yield urlsafe_b64encode(content).decode().rstrip("=")
    yield quote(content, safe="")
    yield quote_plus(content)


def _escaped(text: str) -> str:
    """*text* as it stands inside a JSON string."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return "".join(escapes.get(letter, letter) for letter in text)


@lru_cache(maxsize=4096)
def names_a_secret(key: str) -> bool:
    """Whether *key* names a secret itself, not its place, count or name."""
    words = [word.lower() for word in _WORD.findall(key)]
    if not words or words[-1] in _ABOUT_A_SECRET:
        return False
    return not _SECRET_WORDS.isdisjoint(words) or any(pair in _SECRET_PAIRS for pair in pairwise(words))


REDACTOR = Redactor()
"""The process's own: what the composition root registers here is hidden from every log and every message."""


def register_secret(secret: str) -> None:
    """Never let *secret* into a record or a message of this process; see `Redactor.register`."""
    REDACTOR.register(secret)


def redact_text(text: str) -> str:
    """*text*, an error message or a traceback say, without secrets."""
    return REDACTOR.text(text)
