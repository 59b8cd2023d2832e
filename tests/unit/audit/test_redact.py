from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.redact import REDACTED, Redactor, names_a_secret
from holdfast.core.errors import BadInput

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END PRIVATE KEY-----\n"


def clean(details, redactor=None):
    return (redactor or Redactor()).details(details, msgspec.json.encode(details))


@pytest.mark.parametrize(
    "key",
    [
        "api_secret",
        "password",
        "Authorization",
        "KALSHI-ACCESS-SIGNATURE",
        "privateKey",
        "apiKey",
        "access_token",
        "PRIVATE_KEY",
    ],
)
def test_a_key_that_names_a_secret_hides_its_value(key):
    """Whatever stands under a secret's name goes, at any depth."""
    assert clean({"a": [{key: "x1"}]}) == {"a": [{key: REDACTED}]}


@pytest.mark.parametrize(
    "key",
    [
        "private_key_path",
        "token_count",
        "order_id",
        "key",
        "ticker",
        "key_id",
        "intent",
        "session",
        "monkey",
        "keyboard",
    ],
)
def test_a_key_that_names_no_secret_keeps_its_value(key):
    """Ordinary keys, and those that say where a secret lies, are left alone."""
    assert not names_a_secret(key)


def test_a_setting_told_as_key_and_value_is_hidden():
    """`{"key": "api_secret", "value": …}` hides the value."""
    assert clean({"key": "venue.api_secret", "value": "s3"}) == {"key": "venue.api_secret", "value": REDACTED}


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"cannot read {PEM}", "MIIEvQ"),
        (PEM.replace("\n", "\\n"), "MIIEvQ"),
        (PEM[:60], "MIIEvQ"),
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("headers={'KALSHI-ACCESS-SIGNATURE': 'c2lnbmF0dXJl'}", "c2lnbmF0dXJl"),
        ("headers=[('authorization', 'Basic dXNlcjpwYXNz')]", "dXNlcjpwYXNz"),
        ("GET /v1/odds?api_key=abc123&x=1", "abc123"),
        ("https://user:hunter2@example.test/", "hunter2"),
        ("token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig", "eyJhbGci"),
        ('{"password": "correct horse"}', "correct horse"),
        ("basic dXNlcjpwYXNzd29yZA==", "dXNlcjpw"),
    ],
)
def test_a_secret_is_seen_by_its_shape(text, hidden):
    """PEM blocks, headers, credentials and tokens are hidden wherever they stand in a text."""
    assert hidden not in Redactor().text(text)
    assert hidden not in str(clean({"error": text}))
    assert hidden not in str(clean({text: 1}))


@pytest.mark.parametrize(
    "text", ["order denied: 620.00 USD > 500.00 USD", "GET markets/KXA", "connect to host port 443"]
)
def test_ordinary_text_is_untouched(text):
    """Text without a secret is returned as it is."""
    assert Redactor().text(text) is text


def test_details_without_suspicion_are_the_same_object():
    """A record with nothing to hide is not copied."""
    details = {"ticker": "KXA", "rows": [["position_limit", "account", "1", "2", "contracts", True]]}
    assert clean(details) is details


def test_a_registered_secret_is_hidden_in_every_form():
    """A registered secret goes as it is, escaped, and line by line."""
    redactor = Redactor()
    redactor.register('sw"ordfish\\42')
    redactor.register(PEM)
    for text in ('x sw"ordfish\\42 y', 'x sw\\"ordfish\\\\42 y', "BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"):
        assert redactor.text(text) != text
        assert "ordfish" not in str(clean({"a": text}, redactor))
        assert "BKcwggSj" not in str(clean({"a": text}, redactor))


def test_a_short_secret_is_refused_without_repeating_it():
    """What would blot out ordinary text is not registered, and the message does not hold it."""
    with pytest.raises(BadInput) as caught:
        Redactor().register("abc")
    assert "abc" not in str(caught.value)


def test_unset_secrets_stay_visible():
    """Null, false and empty say that a secret is not set."""
    details = {"password": None, "use_token": True, "secret": ""}
    assert clean(details) == details


def test_a_long_innocent_text_comes_back_whole():
    """64 KiB that only look suspicious are searched to the end and left alone."""
    text = "secret_" * 9_000
    assert Redactor().text(text) == text


SECRETS = ("hunter2hunter2", "31415926", "0f" * 12, "A1b2C3d4E5", "pa ss/word+1")


@pytest.mark.invariant("I14")
@given(
    parts=st.lists(
        st.sampled_from(
            [
                *SECRETS,
                *(one.encode().hex() for one in SECRETS),
                "token",
                "to9ken",
                "3141",
                "5926",
                "0",
                "1.0000",
                "abc",
                "A9b9C9d9E9",
                *("api_secret", "0f0f", "premium", "://", ":1//", " "),
            ]
        ),
        max_size=6,
    ),
    registered=st.sets(st.sampled_from(SECRETS)),
)
def test_the_quick_look_agrees_with_the_search(parts, registered):
    """What the quick look calls harmless, once or again, is what the search over all letters leaves alone."""
    redactor = Redactor(registered)
    texts = [*parts, *("".join(parts[:n]) for n in range(len(parts) + 1))] * 2
    for text in texts:
        encoded = msgspec.json.encode({"text": text})
        assert redactor.is_harmless(encoded) == (not redactor._suspicious(encoded))


@pytest.mark.invariant("I14")
@pytest.mark.parametrize("secret", ["A1b2C3d4E5", "31415926", "0f" * 12])
def test_a_secret_is_seen_although_all_but_its_digits_passed_before(secret):
    """A text that differs from a known secret in its digits alone is harmless; the secret behind it is not."""
    redactor = Redactor([secret])
    other = secret.translate(str.maketrans("12345", "99999"))
    if other != secret:
        assert redactor.is_harmless(msgspec.json.encode({"text": other}))
    assert not redactor.is_harmless(msgspec.json.encode({"text": secret}))


def test_a_secret_that_is_registered_later_is_hidden_from_then_on():
    """What was harmless before is searched again once another secret is known, names too."""
    redactor = Redactor()
    encoded = b'{"text":"maker-7 alpha"}'
    assert redactor.is_harmless(encoded)
    assert redactor.name("maker-7 alpha") == "maker-7 alpha"
    redactor.register("maker-7 alpha")
    assert not redactor.is_harmless(encoded)
    assert redactor.name("maker-7 alpha") == "[redacted]"
