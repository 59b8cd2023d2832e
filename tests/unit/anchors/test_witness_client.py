"""The sink that asks a witness: what each answer means, and what no answer can make of it."""

from pathlib import Path

import pytest
from support.anchors import MemoryLog

from holdfast.anchors import wire
from holdfast.anchors.sink import Outcome
from holdfast.anchors.wire import Answer
from holdfast.anchors.witness import Witness
from holdfast.anchors.witness_client import WitnessSink
from holdfast.audit.anchor import Mark
from holdfast.audit.note import COSIGNATURE_ED25519, SigningKey, cosign, open_note
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AnchorUnreachable, BadInput
from holdfast.testing.storage import SimulatedStorage

KEY = SigningKey("witness.example/w1", b"w" * 32, COSIGNATURE_ED25519)


def nothing_known(log_id, sink):
    return None


def a_sink(ask, *, key=KEY.vkey, known=nothing_known):
    return WitnessSink("http://witness.example/", key, known, ask)


class Line:
    """A wire to a witness in this process that remembers what passed."""

    def __init__(self, log):
        self.witness = Witness(Path("/w"), clock=ManualClock(), storage=SimulatedStorage())
        self.witness.pin(log.vkey)
        self.asked = []

    def __call__(self, path, body):
        self.asked.append((path, body))
        assert len(body) <= wire.MAX_REQUEST_BYTES
        return {"/add-checkpoint": self.witness.add_checkpoint, "/add-key": self.witness.add_key}[path](body)

    def sink(self, known=nothing_known):
        return a_sink(self, key=self.witness.vkey, known=known)


def test_the_size_confirmed_last_is_told_first():
    """With a receipt the first request carries its size and its proof; nothing else is asked."""
    log = MemoryLog(20)
    line = Line(log)
    line.sink().submit(log.submission())
    line.asked.clear()
    log.grow(5)
    known = Mark(20, log.checkpoint(20).root, "receipt")
    assert line.sink(lambda log_id, sink: known).submit(log.submission()).outcome is Outcome.ANCHORED
    assert line.asked == [("/add-checkpoint", log.request(20))]


@pytest.mark.parametrize("false", [MemoryLog(19), MemoryLog(10).grow(30, b"x")])
def test_a_receipt_that_contradicts_the_log_is_enough(false):
    """Where the receipt remembers what the log does not hold, the sink says so and asks nobody."""
    known = Mark(20, MemoryLog(20).checkpoint().root, "receipt")
    asked = []
    receipt = a_sink(lambda *call: asked.append(call), known=lambda log_id, sink: known).submit(
        false.submission()
    )
    assert (receipt.outcome, receipt.known_size) == (Outcome.WENT_BACK, 20)
    assert not asked


@pytest.mark.parametrize(
    ("status", "outcome"), [(403, Outcome.REFUSED), (404, Outcome.REFUSED), (503, Outcome.UNKNOWN)]
)
def test_keys_that_are_not_taken_are_no_anchor(status, outcome):
    """Where `add-key` is refused the checkpoint is REFUSED; where it fails the sink is UNKNOWN."""
    log = MemoryLog(20)
    for _ in range(3):
        log.rotate()
    for at_first in ([Answer(409, b"1\n", wire.EPOCH_TYPE)], []):
        to_learn = [*at_first, Answer(status, b""), Answer(200, b"1\n", wire.EPOCH_TYPE)]
        answers = {"/add-checkpoint": [Answer(403, b"no\n")], "/add-key": to_learn}
        receipt = a_sink(lambda path, body, a=answers: a[path].pop(0)).submit(log.submission())
        assert receipt.outcome is outcome


def test_an_unknown_size_is_learned_from_the_witness():
    """Without a receipt the witness says which size it knows, and gets the proof from there."""
    log = MemoryLog(20)
    line = Line(log)
    line.sink().submit(log.submission())
    line.asked.clear()
    receipt = line.sink().submit(log.grow(5).submission())
    assert [body.split(b"\n")[0] for _, body in line.asked] == [b"old 0", b"old 20"]
    assert open_note(receipt.note, [log.vkey, line.witness.vkey]).verified == (log.vkey, line.witness.vkey)


@pytest.mark.parametrize("epochs", [1, 2, 400])
def test_a_witness_is_taught_the_keys_it_lacks(epochs):
    """After any number of new keys the checkpoint is cosigned; each request stays within its bound."""
    log = MemoryLog(20)
    line = Line(log)
    line.sink().submit(log.submission())
    for _ in range(epochs):
        log.rotate()
    receipt = line.sink().submit(log.grow(1).submission())
    assert receipt.outcome is Outcome.ANCHORED, receipt.why
    assert line.witness.logs()[log.origin].epoch == epochs + 1


@pytest.mark.parametrize("rotations", [0, 1, 2, 3, 4, 9])
def test_a_log_that_went_back_behind_its_keys_is_named(rotations):
    """Rolled back to an older key, also where other keys followed since, the log WENT_BACK, and the epoch is told."""
    log = MemoryLog(20)
    line = Line(log)
    before = MemoryLog(12)
    for _ in range(2):
        log.rotate()
    assert line.sink().submit(log.submission()).outcome is Outcome.ANCHORED
    for epoch in range(2, 2 + rotations):  # what a writer that was rolled back makes up anew
        key = before._key(epoch + 100)._replace(epoch=epoch)
        before.notes.append(key.details("rotation", before.keys[-1]).note.encode())
        before.keys.append(key)
    receipt = line.sink().submit(before.submission())
    assert receipt.outcome is Outcome.WENT_BACK
    assert "epoch 3" in receipt.why
    assert line.sink().submit(log.grow(1).submission()).outcome is Outcome.ANCHORED


def test_a_replaced_key_is_refused():
    """A log whose lost key was replaced is REFUSED with the witness's words, until the new key is pinned there."""
    log = MemoryLog(20)
    log.rotate()
    line = Line(log)
    line.sink().submit(log.submission())
    key = log._key(33)._replace(epoch=3)
    log.notes.append(key.details("replacement", None).note.encode())
    log.keys.append(key)
    receipt = line.sink().submit(log.submission())
    assert receipt.outcome is Outcome.REFUSED
    assert "403" in receipt.why
    line.witness.pin(key.signer.vkey)
    assert line.sink().submit(log.submission()).outcome is Outcome.ANCHORED
    log.rotate()
    assert line.sink().submit(log.submission()).outcome is Outcome.ANCHORED


def cosignature(log, *, key=KEY, size=None, secs=1_763_634_000):
    return cosign(log.checkpoint(size).text(), key, secs).line()


OTHER = SigningKey("witness.example/w1", b"o" * 32, COSIGNATURE_ED25519)
NAMESAKE = SigningKey("witness.example/w2", b"w" * 32, COSIGNATURE_ED25519)
ANSWERS = {
    "an empty 200": (Outcome.UNKNOWN, lambda log: Answer(200, b"")),
    "rubbish": (Outcome.UNKNOWN, lambda log: Answer(200, b"\xff\x00rubbish")),
    "a cosignature by another key": (Outcome.UNKNOWN, lambda log: Answer(200, cosignature(log, key=OTHER))),
    "a cosignature by another name": (
        Outcome.UNKNOWN,
        lambda log: Answer(200, cosignature(log, key=NAMESAKE)),
    ),
    "a cosignature of an older size": (Outcome.UNKNOWN, lambda log: Answer(200, cosignature(log, size=19))),
    "a cosignature without newline": (Outcome.ANCHORED, lambda log: Answer(200, cosignature(log)[:-1])),
    "a cosignature from beyond all calendars": (
        Outcome.ANCHORED,
        lambda log: Answer(200, cosignature(log, secs=2**63 - 1)),
    ),
    "ours among others": (
        Outcome.ANCHORED,
        lambda log: Answer(200, cosignature(log, key=NAMESAKE) + b"?\n" + cosignature(log)),
    ),
    "409 without a size": (Outcome.UNKNOWN, lambda log: Answer(409, b"what?\n")),
    "409 of another type": (Outcome.UNKNOWN, lambda log: Answer(409, b"12\n", "text/plain")),
    "409 with a negative size": (Outcome.UNKNOWN, lambda log: Answer(409, b"-1\n", wire.SIZE_TYPE)),
    "409 with the size told": (Outcome.WENT_BACK, lambda log: Answer(409, b"0\n", wire.SIZE_TYPE)),
    "409 with a larger size": (Outcome.WENT_BACK, lambda log: Answer(409, b"21\n", wire.SIZE_TYPE)),
    "422": (Outcome.WENT_BACK, lambda log: Answer(422, b"no\n")),
    "404": (Outcome.REFUSED, lambda log: Answer(404, b"who?\n")),
    "403": (Outcome.REFUSED, lambda log: Answer(403, b"no\n")),
    "400": (Outcome.REFUSED, lambda log: Answer(400, b"what?\n")),
    "301": (Outcome.UNKNOWN, lambda log: Answer(301, b"")),
    "429": (Outcome.UNKNOWN, lambda log: Answer(429, b"")),
    "500": (Outcome.UNKNOWN, lambda log: Answer(500, b"")),
}


@pytest.mark.parametrize("given", ANSWERS)
def test_every_answer_has_one_meaning(given):
    """Each answer of a witness leads to its outcome; only a verified cosignature of this checkpoint anchors."""
    outcome, answer = ANSWERS[given]
    log = MemoryLog(20)
    receipt = a_sink(lambda path, body: answer(log)).submit(log.submission())
    assert receipt.outcome is outcome
    if outcome is Outcome.ANCHORED:
        ours = answer(log).body.splitlines()[-1] + b"\n"
        assert receipt.note == log.note() + ours, "of the answer our cosignature alone is kept"
    else:
        assert receipt.note == b""


def test_a_witness_that_never_settles_is_given_up():
    """A witness that names another size every time is UNKNOWN after a few rounds."""
    log, asked = MemoryLog(20), []

    def ask(path, body):
        asked.append(body)
        return Answer(409, b"%d\n" % (1 + len(asked) % 7), wire.SIZE_TYPE)

    assert a_sink(ask).submit(log.submission()).outcome is Outcome.UNKNOWN
    assert len(asked) < 10


def test_no_answer_is_unknown():
    """Where the wire fails, at whatever step, the sink is UNKNOWN."""
    log = MemoryLog(20)
    log.rotate()

    def fail(path, body):
        if path == "/add-key":
            raise AnchorUnreachable("cut off")
        return Answer(403, b"")

    receipt = a_sink(fail).submit(log.submission())
    assert (receipt.outcome, receipt.why) == (Outcome.UNKNOWN, "cut off")


def test_a_witness_is_pinned_by_a_cosigner_s_key():
    """A log's key in the place of the witness's is refused before anything is asked."""
    with pytest.raises(BadInput, match="not a witness's"):
        a_sink(None, key=MemoryLog(1).vkey)


@pytest.mark.parametrize(
    "url",
    ["witness.example", "ftp://w", "http://", "http://u:secret@w/", "http://w?token=secret", "http://w:port"],
)
def test_an_address_that_is_none_is_refused_without_showing_a_secret(url):
    """Another scheme, no host, a password or a query in the URL is refused, and no secret is shown."""
    with pytest.raises(BadInput) as refused:
        WitnessSink(url, KEY.vkey, nothing_known)
    assert "secret" not in str(refused.value)
