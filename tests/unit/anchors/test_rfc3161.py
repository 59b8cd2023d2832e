"""Time stamps, against `openssl ts` behind a loopback server."""

import random
import subprocess

import pytest
import rfc3161_client as tsp
from support.anchor_servers import Authority, answering
from support.anchors import MemoryLog

from holdfast.anchors.rfc3161 import TimestampSink, check_token, check_unsigned, read_certificates
from holdfast.anchors.sink import Outcome
from holdfast.core.errors import BadInput


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def stamped(authority):
    """A note and the token over it."""
    note = MemoryLog(5).note()
    query = tsp.TimestampRequestBuilder().data(note).hash_algorithm(tsp.HashAlgorithm.SHA256).build()
    return note, authority.stamp(query.as_bytes())


def roots(authority):
    return read_certificates(authority.root.read_bytes(), "root.pem")


def test_a_receipt_can_be_verified_by_openssl(authority, tmp_path):
    """`openssl ts -verify` accepts note, token and certificates as they are kept, and no other note."""
    with answering(authority.respond) as url:
        receipt = TimestampSink(url, authority.root).submit(MemoryLog(5).submission())
    assert receipt.outcome is Outcome.ANCHORED
    assert "stamped at " in receipt.why
    for name, data in (("a.note", receipt.note), ("a.tsr", receipt.token), ("ca.pem", receipt.authority)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "b.note").write_bytes(MemoryLog(6).note())
    for name, good in (("a.note", True), ("b.note", False)):
        verify = ["openssl", "ts", "-verify", "-data", name, "-in", "a.tsr", "-CAfile", "ca.pem"]
        done = subprocess.run(verify, cwd=tmp_path, check=False, capture_output=True)
        assert (done.returncode == 0) is good


def test_a_token_speaks_of_one_note(authority, stamped):
    """The token is accepted for the bytes that were stamped and for no other, with or without certificates."""
    note, token = stamped
    assert check_token(token, note, roots(authority)).time_ns > 0
    check_unsigned(token, note)
    for other in (MemoryLog(6).note(), note + b"\n", note[:-1], b""):
        with pytest.raises(BadInput, match="time stamp refused"):
            check_token(token, other, roots(authority))
        with pytest.raises(BadInput, match="time stamp refused"):
            check_unsigned(token, other)


def test_a_token_of_another_authority_is_refused(stamped, stranger):
    """A token that leads to another root than the one named is refused."""
    note, token = stamped
    with pytest.raises(BadInput, match="time stamp refused"):
        check_token(token, note, roots(stranger))


def test_an_old_answer_is_not_taken_for_a_new_one(authority):
    """A replayed token over the same bytes has another nonce and is REFUSED."""
    log, kept = MemoryLog(5), []

    def replay(path, body):
        kept.append(kept[0] if kept else authority.stamp(body))
        return 200, "application/timestamp-reply", kept[0]

    with answering(replay) as url:
        sink = TimestampSink(url, authority.root)
        assert sink.submit(log.submission()).outcome is Outcome.ANCHORED
        again = sink.submit(log.submission())
    assert again.outcome is Outcome.REFUSED
    assert "Nonce" in again.why


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((200, "application/timestamp-reply", b"rubbish"), Outcome.REFUSED),
        ((200, "text/html", b""), Outcome.REFUSED),
        ((200, "application/timestamp-reply", bytes.fromhex("3005300302010205")), Outcome.REFUSED),
        ((500, "text/html", b""), Outcome.UNKNOWN),
        ((404, "text/html", b""), Outcome.UNKNOWN),
    ],
)
def test_no_other_answer_anchors(authority, answer, outcome):
    """Rubbish, a rejection and an error status are REFUSED or UNKNOWN, never ANCHORED."""
    with answering(lambda path, body: answer) as url:
        assert TimestampSink(url, authority.root).submit(MemoryLog(5).submission()).outcome is outcome


def test_a_damaged_token_is_refused_and_nothing_worse(authority, stamped):
    """Tokens with changed, missing and added bytes raise BadInput or still say the same; seed 3161."""
    note, token = stamped
    random_, certificates, refused = random.Random(3161), roots(authority), 0
    for _ in range(300):
        damaged = bytearray(token)
        for _ in range(random_.randrange(1, 4)):
            kind, at = random_.randrange(3), random_.randrange(len(damaged))
            if kind == 0:
                damaged[at] = random_.randrange(256)
            elif kind == 1:
                del damaged[at : at + random_.randrange(1, 30)]
            else:
                damaged[at:at] = random_.randbytes(random_.randrange(1, 30))
        try:
            assert check_token(bytes(damaged), note, certificates).time_ns > 0
        except BadInput:
            refused += 1
    assert refused > 280


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_certificates_is_named(tmp_path, content):
    """A file that is no PEM of certificates, or is missing, is refused when the sink is opened."""
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(BadInput, match=r"ca\.pem"):
        TimestampSink("http://127.0.0.1/", tmp_path / "ca.pem")
    with pytest.raises(BadInput, match="cannot be read"):
        TimestampSink("http://127.0.0.1/", tmp_path / "missing.pem")
