"""The store behind an archive: what is sent, what is believed, and what every failure is called."""

from __future__ import annotations

import secrets
import socket
from functools import partial

import pytest
from support.s3 import Fault, FaultProxy, Store

from holdfast.archive.selftest import prove
from holdfast.archive.signed import Account, authorization
from holdfast.archive.store import COMPLIANCE, AlreadyThere, Bucket, Lock, ObjectMissing, Place
from holdfast.core.errors import ArchiveRefused, ArchiveUnreachable, AuditCorruption, BadInput

from .conftest import NOW

pytestmark = pytest.mark.contract("A19")


@pytest.fixture
def proxy(store):
    with FaultProxy(store) as running:
        yield running


def _through(proxy: FaultProxy, bucket: Bucket, *, retries: int = 0) -> Bucket:
    environ = Store(proxy.endpoint).environ
    return Bucket(str(bucket), environ, retries=retries)


def _prove(bucket: Bucket, mode: str | None = COMPLIANCE):
    return prove(bucket, lock_mode=mode, now=NOW, token=secrets.token_hex(8))


# -- what is sent ----------------------------------------------------------------------------------------------


def test_object_comes_back_with_its_lock(locked):
    """What was put is read back, listed and locked as it was asked for; a second put does not touch it."""
    lock = Lock(COMPLIANCE, NOW)
    locked.put_new("x.log.gz", b"abc" * 1000, lock)
    assert locked.read("x.log.gz", 3000) == b"abc" * 1000
    assert locked.sizes() == {"x.log.gz": 3000}
    assert locked.lock_of("x.log.gz").covers(lock)
    with pytest.raises(AlreadyThere):
        locked.put_new("x.log.gz", b"other", lock)
    assert locked.read("x.log.gz", 3000) == b"abc" * 1000


def test_every_put_carries_its_checksums_its_condition_and_its_lock(locked, proxy):
    """A put goes out with Content-MD5, x-amz-checksum-sha256, If-None-Match and a lock, every one of them signed."""
    _through(proxy, locked).put_new("x", b"abc", Lock(COMPLIANCE, NOW))
    [(_, path, headers)] = [one for one in proxy.requests if one[0] == "PUT"]
    assert path.endswith("/desk/x")
    assert headers["if-none-match"] == "*"
    assert headers["content-md5"] == "kAFQmDzST7DWlj99KOF/cg=="
    assert headers["x-amz-checksum-sha256"] == "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
    assert headers["x-amz-object-lock-mode"] == "COMPLIANCE"
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {name for name in headers if name.startswith("x-amz-")} | {"content-md5", "if-none-match"} <= {
        *signed
    }


def test_legal_hold_is_set_and_released(locked):
    """A hold set by our own signed request is what the store says of the object, until it is released."""
    locked.put_new("x", b"abc", Lock(COMPLIANCE, NOW))
    for hold in (True, False):
        locked.set_legal_hold("x", hold=hold)
        assert locked.lock_of("x").legal_hold is hold


def test_own_signature_is_the_published_one():
    """The example "GET Bucket Lifecycle" of AWS's page on the Authorization header gets the signature given there."""
    account = Account("", "us-east-1", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "")
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "x-amz-date": "20130524T000000Z",
    }
    assert authorization(account, "GET", "/", "lifecycle", headers) == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date,"
        "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    )


def test_own_request_needs_credentials_of_its_own(locked):
    """Without a key in the environment a legal hold is refused with the way to get one."""
    bare = Bucket(str(locked), {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    with pytest.raises(BadInput, match="needs credentials") as refused:
        bare.set_legal_hold("x", hold=True)
    assert "export-credentials" in refused.value.hint


@pytest.mark.parametrize(
    "url",
    ["", "bucket", "s3:/bucket/x", "s3://", "s3://B/x", "s3://ab", "s3://bucket//x", "s3://bucket/../x",
     "s3://bucket/a b", "http://bucket/x", "s3://bucket/ü"],
)  # fmt: skip
def test_senseless_address_is_refused(url):
    """An address that names no bucket and prefix is refused before anything is sent."""
    with pytest.raises(BadInput, match="archive"):
        Place.parse(url)


@pytest.mark.parametrize(
    ("endpoint", "says"), [("ftp://x", "not an address"), ("http://s3.example", "not encrypted")]
)
def test_unsafe_endpoint_is_refused(endpoint, says):
    """Records never cross a network in clear."""
    with pytest.raises(BadInput, match=says):
        Bucket("s3://bucket/x", {}, endpoint=endpoint)


def test_secrets_stand_in_no_text():
    """Neither the account's text nor a bucket's shows the secret key."""
    bucket = Store("http://127.0.0.1:1").bucket("s3://bucket/desk")
    assert "testtest" not in repr(bucket.account) + str(bucket)


# -- what every failure is called ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "GET"])
@pytest.mark.parametrize(
    ("kind", "says", "code"),
    [
        ("500", "no usable answer .*InternalError", 5),
        ("503", "no usable answer .*SlowDown", 5),
        ("cut", "no usable answer .*error sending request", 5),
        ("full", "no usable answer .*InsufficientStorage", 5),
        ("denied", "access denied .*AccessDenied", 1),
        ("no bucket", "there is no such bucket", 1),
        ("key", "does not know this key", 1),
        ("secret", "secret key is wrong", 1),
        ("region", "wrong region", 1),
        ("expired", "session token has expired", 1),
        ("clock", "clock is wrong", 1),
    ],
)
def test_every_error_has_its_name_its_code_and_a_hint(  # noqa: PLR0917  each error, each way
    locked, proxy, kind, method, says, code
):
    """What a store answers becomes a sentence, an exit code that tells to repeat or to change something, and a hint."""
    proxy.faults.append(Fault(kind, method))
    bucket = _through(proxy, locked)
    ask = partial(bucket.put_new, "x", b"abc", None) if method == "PUT" else partial(bucket.read, "x", 10)
    with pytest.raises(ArchiveRefused, match=says) as refused:
        ask()
    assert (refused.value.exit_code, type(refused.value) is ArchiveUnreachable) == (code, code == 5)
    assert refused.value.hint
    assert "testtest" not in str(refused.value)


@pytest.mark.parametrize(("kind", "code"), [("500", 5), ("cut", 5), ("denied", 1)])
def test_lock_that_cannot_be_read_is_an_error(locked, proxy, kind, code):
    """A HEAD without an answer in order never counts as a lock."""
    proxy.faults.append(Fault(kind, "HEAD"))
    with pytest.raises(ArchiveRefused) as refused:
        _through(proxy, locked).lock_of("x")
    assert refused.value.exit_code == code


def test_missing_object_is_named(locked):
    """What is not there is said to be missing, by its name."""
    for ask in (lambda: locked.read("x", 10), lambda: locked.lock_of("x")):
        with pytest.raises(ObjectMissing, match="'x' is missing"):
            ask()


def test_lost_answer_to_a_put_is_found_done(locked, proxy):
    """A put that was carried out and whose answer was lost is found there by the retry, never written twice."""
    proxy.faults.append(Fault("lose", "PUT", times=1))
    with pytest.raises(AlreadyThere):
        _through(proxy, locked, retries=2).put_new("x", b"abc", None)
    assert locked.read("x", 10) == b"abc"


def test_passing_trouble_is_waited_for(locked, proxy):
    """A store that asks to slow down once is asked again."""
    proxy.faults.append(Fault("503", "PUT", times=1))
    _through(proxy, locked, retries=2).put_new("x", b"abc", None)


def test_longer_answer_than_expected_is_not_read_on(locked, proxy):
    """No more is taken of an object than it should have."""
    locked.put_new("x", b"abc", None)
    proxy.faults.append(Fault("long", "GET"))
    with pytest.raises(AuditCorruption, match="longer than the 3 bytes"):
        _through(proxy, locked).read("x", 3)


def test_no_server_is_unreachable():
    """A port where nobody listens is exit 5."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ArchiveUnreachable) as refused:
        Store(f"http://127.0.0.1:{port}").bucket("s3://bucket/desk").read("x", 10)
    assert refused.value.exit_code == 5


def test_missing_bucket_is_named(store):
    """A bucket that does not exist is a user error with its own sentence."""
    with pytest.raises(ArchiveRefused, match="there is no such bucket"):
        store.bucket("s3://no-such-bucket/desk").put_new("x", b"", None)


@pytest.mark.parametrize("name", ["/x", "a/../b", "."])
def test_impossible_names_in_the_bucket_are_named(store, name):
    """An object that somebody else put there under an impossible path is a user error, and leads nowhere."""
    bucket = store.bucket(f"s3://{store.make(lock=False)}/desk")
    store.boto().put_object(Bucket=bucket.place.bucket, Key=f"desk/{name}", Body=b"")
    with pytest.raises(ArchiveRefused, match="a name that no archive gives") as refused:
        bucket.sizes()
    assert refused.value.exit_code == 1


def test_folder_object_of_a_console_is_no_part_of_the_archive(store):
    """The empty object that consoles make for a prefix is passed over."""
    bucket = store.bucket(f"s3://{store.make(lock=False)}/desk")
    store.boto().put_object(Bucket=bucket.place.bucket, Key="desk/", Body=b"")
    assert bucket.sizes() == {}


# -- the self-test ---------------------------------------------------------------------------------------------


def test_good_store_passes(locked):
    """A store that keeps what it promises passes, and what it does not check is said."""
    findings = _prove(locked)
    assert (findings.refuses_second, findings.locked) == (True, True)
    assert bool(findings.checks_checksums) != any("checksum" in note for note in findings.notes())


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("overwrite", "ignores put-if-absent and overwrites"),
        ("unlocked", "accepted an object lock and did not set it"),
        ("flip", "did not return what it was given"),
    ],
)
def test_store_that_lies_is_refused(store, locked, proxy, kind, says):
    """A store that overwrites, does not lock, or does not return what it got, is refused."""
    bucket, mode = (locked, COMPLIANCE)
    if kind == "overwrite":
        bucket, mode = store.bucket(f"s3://{store.make(lock=False)}/desk"), None
    proxy.faults.append(Fault(kind, "GET" if kind == "flip" else "PUT", "selftest"))
    with pytest.raises(ArchiveRefused, match=says) as refused:
        _prove(_through(proxy, bucket), mode)
    assert refused.value.exit_code == 1
    assert refused.value.hint


def test_overwriting_is_no_loss_where_versions_are_locked(locked, proxy):
    """A bucket whose versions are locked keeps the first of two puts: it passes, and that is said."""
    proxy.faults.append(Fault("overwrite"))
    findings = _prove(_through(proxy, locked))
    assert not findings.refuses_second
    assert any("ignores put-if-absent" in note for note in findings.notes())


def test_versions_that_nobody_locks_are_not_enough(locked, proxy):
    """Without a lock, a store that overwrites is refused even where it keeps versions."""
    proxy.faults.append(Fault("overwrite"))
    with pytest.raises(ArchiveRefused, match="overwrites"):
        _prove(_through(proxy, locked), None)


def test_bucket_without_lock_needs_a_word(store):
    """Without object lock the store is refused, unless it was said that none is wanted."""
    bucket = store.bucket(f"s3://{store.make(lock=False)}/desk")
    with pytest.raises(ArchiveRefused, match="no object lock") as refused:
        _prove(bucket)
    assert "--no-lock" in refused.value.hint
    assert any("without object lock" in note for note in _prove(bucket, None).notes())
