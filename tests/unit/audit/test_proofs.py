"""Proof files: made, read, and refused wherever they say something that nobody signed."""

import json
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.data import require

from holdfast.audit.format import encode_line, leaf_hash
from holdfast.audit.keys import LogKey
from holdfast.audit.note import (
    COSIGNATURE_ED25519,
    Checkpoint,
    SigningKey,
    add_signature,
    cosign,
    sign_note,
)
from holdfast.audit.proofs import (
    MAX_PROOF_BYTES,
    ProofChecker,
    RecordProof,
    TlogProof,
    parse_record_proof,
    parse_tlog_proof,
)
from holdfast.audit.tree import Frontier, inclusion_proof
from holdfast.core.errors import BadInput, ProofRefused

LOG_ID = "0123456789abcdef" * 2
ORIGIN = f"holdfast/{LOG_ID}"
WITNESS = SigningKey("witness.example/w1", b"\x77" * 32, COSIGNATURE_ED25519)
WHEN = 1_763_634_000
SIZE = 21
LINES = [
    encode_line(seq, 0, WHEN * 10**9 + seq, "STATE", "ops", "gate", b'{"n":%d}' % seq)
    for seq in range(1, SIZE + 1)
]


def epoch_key(epoch):
    return LogKey(LOG_ID, "holdfast", epoch, SigningKey(ORIGIN, bytes([epoch]) * 32))


def key_note(epoch, previous=None):
    signer = epoch_key(epoch - 1) if previous is None else previous
    return epoch_key(epoch).details("rotation", signer).note.encode()


def read(level, index):
    frontier = Frontier()
    frontier.extend([leaf_hash(line) for line in LINES[index << level : (index + 1) << level]])
    return frontier.root()


def root():
    frontier = Frontier()
    frontier.extend([leaf_hash(line) for line in LINES])
    return frontier.root()


TEXT = Checkpoint(ORIGIN, SIZE, root()).text()


def proof_of(seq, epoch=1, *others):
    note = sign_note(TEXT, epoch_key(epoch).signer, *others)
    notes = tuple(key_note(number) for number in range(2, epoch + 1))
    path = tuple(inclusion_proof(seq - 1, SIZE, read))
    return RecordProof(LINES[seq - 1], seq - 1, path, note, notes)


def vkey(epoch):
    return epoch_key(epoch).signer.vkey


def check(data, *keys):
    return ProofChecker(keys).check(parse_record_proof(data))


@pytest.mark.data
@pytest.mark.contract("X2")
def test_tlog_proofs_are_written_and_read_as_published():
    """The published tlog-proofs are written byte for byte and read back; the bad ones are refused."""
    given_ = json.loads(require("merkle", "checkpoint_cosig_proof.json").read_text())
    assert (len(given_["tlog_proof_marshal"]), len(given_["tlog_proof_reject"])) == (3, 7)
    for case in given_["tlog_proof_marshal"]:
        proof = TlogProof(
            case["index"],
            tuple(map(b64decode, case["hashes_b64"])),
            case["checkpoint"].encode(),
            None if case["extra_b64"] is None else b64decode(case["extra_b64"]),
        )
        assert proof.encode() == case["want"].encode()
        assert parse_tlog_proof(case["want"].encode()) == proof
    for bad in given_["tlog_proof_reject"]:
        with pytest.raises(BadInput):
            parse_tlog_proof(bad.encode())


@pytest.mark.parametrize("seq", [1, 2, 16, 17, 20, 21])
def test_a_proof_shows_its_record(seq):
    """A proof read from its file shows the record, the checkpoint and who signed it."""
    proof = proof_of(seq)
    assert parse_record_proof(proof.encode()) == proof
    proven = check(proof.encode(), vkey(1))
    assert proven.record.seq == seq
    assert proven.record.details == {"n": seq}
    assert proven.checkpoint == Checkpoint(ORIGIN, SIZE, root())
    assert (proven.signers, proven.cosigned_at, proven.others) == ((vkey(1),), {}, ())


def test_key_notes_lead_from_the_pinned_key_to_the_signer():
    """A key of any earlier epoch, or the signer's own, is enough; the key of a later one is not."""
    data = proof_of(7, 4).encode()
    for epoch in (1, 2, 3, 4):
        assert check(data, vkey(epoch)).signers == (vkey(4),)
    for strangers in ((), (vkey(5),), (WITNESS.vkey,), (SigningKey("holdfast/other", b"\1" * 32).vkey,)):
        with pytest.raises(BadInput, match="none of these") as error:
            check(data, *strangers)
        assert "--key" in error.value.hint


def test_a_break_in_the_keys_is_refused():
    """A missing epoch, one that the key before it did not sign, and one of another log break the chain."""
    proof = proof_of(7, 4)
    second, third, fourth = proof.key_notes
    with pytest.raises(ProofRefused, match="epoch 3 is missing"):
        check(proof._replace(key_notes=(second, fourth)).encode(), vkey(1))
    forged = key_note(3, epoch_key(3))  # signed by itself, as after a lost key
    with pytest.raises(BadInput, match="none of these"):
        check(proof._replace(key_notes=(second, forged, fourth)).encode(), vkey(1))
    assert check(proof._replace(key_notes=(second, forged, fourth)).encode(), vkey(3)).signers == (vkey(4),)
    # The key of epoch 1 is trusted, but it may not name the one of epoch 4.
    late = key_note(4, epoch_key(1))
    with pytest.raises(BadInput, match="none of these"):
        check(proof._replace(key_notes=(second, third, late)).encode(), vkey(1))
    other = LogKey("f" * 32, "holdfast", 2, SigningKey(ORIGIN, b"\2" * 32))
    foreign = other.details("rotation", epoch_key(1)).note.encode()
    with pytest.raises(ProofRefused, match="KEY note is about"):
        check(proof._replace(key_notes=(foreign,)).encode(), vkey(1))


def test_a_note_that_a_trusted_key_did_not_sign_as_it_stands_is_refused():
    """A changed KEY note or checkpoint under a trusted key's signature is called forged."""
    proof = proof_of(7, 2)
    changed = proof.key_notes[0].replace(b"\n2\n", b"\n3\n")
    with pytest.raises(ProofRefused, match="KEY note of epoch 3 is forged"):
        check(proof._replace(key_notes=(changed,)).encode(), vkey(1))
    larger = proof.checkpoint.replace(b"\n21\n", b"\n22\n")
    with pytest.raises(ProofRefused, match="checkpoint is forged"):
        check(proof._replace(checkpoint=larger).encode(), vkey(1))


def test_the_checkpoint_must_be_signed_by_the_last_epoch_told():
    """A checkpoint signed by an older key than the one the KEY notes lead to vouches for nothing."""
    proof = proof_of(7, 3)._replace(checkpoint=sign_note(TEXT, epoch_key(2).signer))
    with pytest.raises(BadInput, match="none of these"):
        check(proof.encode(), vkey(1))


def test_a_pinned_key_does_not_stand_for_a_later_epoch():
    """Where KEY notes lead past a pinned key, a checkpoint that only the pinned key signed is refused."""
    proof = proof_of(7, 3)._replace(checkpoint=sign_note(TEXT, epoch_key(2).signer))
    with pytest.raises(BadInput, match="none of these"):
        check(proof.encode(), vkey(1), vkey(2))


def test_no_signature_of_any_trusted_key_may_be_wrong():
    """A first checkpoint of an epoch shows both its signers; a wrong signature of the older one refuses it."""
    both = proof_of(7, 2, epoch_key(1).signer)
    assert check(both.encode(), vkey(1)).signers == (vkey(2), vkey(1))
    assert check(both.encode(), vkey(2)).others == (ORIGIN,)
    wrong = epoch_key(1).signer.sign(b"another text\n").line()
    false = both._replace(checkpoint=sign_note(TEXT, epoch_key(2).signer) + wrong)
    with pytest.raises(ProofRefused, match="checkpoint is forged"):
        check(false.encode(), vkey(1))


def test_the_key_of_another_log_vouches_for_nothing():
    """A named key counts only for the log that it is named after."""
    other = SigningKey("holdfast/other", b"\1" * 32)
    proof = proof_of(7)._replace(checkpoint=sign_note(TEXT, other))
    with pytest.raises(BadInput, match="0 were named"):
        check(proof.encode(), other.vkey)


def test_a_record_that_stands_in_another_records_place_is_refused():
    """A log that signed a line under the wrong sequence proves nothing with it."""
    line = LINES[4]
    text = Checkpoint(ORIGIN, 1, leaf_hash(line)).text()
    proof = RecordProof(line, 0, (), sign_note(text, epoch_key(1).signer))
    with pytest.raises(ProofRefused, match="sequence 5, its place is 1"):
        check(proof.encode(), vkey(1))


def test_a_witness_alone_vouches_for_nothing():
    """Cosignatures count beside the log's own signature, with their time; without it they do not."""
    note = sign_note(TEXT, epoch_key(1).signer)
    cosigned = add_signature(note, cosign(TEXT, WITNESS, WHEN).line())
    data = proof_of(7)._replace(checkpoint=cosigned).encode()
    proven = check(data, vkey(1), WITNESS.vkey)
    assert proven.signers == (vkey(1), WITNESS.vkey)
    assert proven.cosigned_at == {WITNESS.vkey: WHEN}
    assert check(data, vkey(1)).others == ("witness.example/w1",)
    with pytest.raises(BadInput, match="none of these"):
        check(data, WITNESS.vkey)
    bad = sign_note(TEXT, epoch_key(1).signer) + cosign(TEXT, WITNESS, WHEN)._replace(value=b"\0" * 72).line()
    with pytest.raises(ProofRefused, match="wrong signature of 'witness"):
        check(proof_of(7)._replace(checkpoint=bad).encode(), vkey(1), WITNESS.vkey)


def test_a_record_that_was_not_logged_there_is_refused():
    """Another record, another place and another path are refused, though every signature is right."""
    proof = proof_of(7)
    other = encode_line(7, 0, WHEN, "STATE", "ops", "gate", b'{"n":8}')
    for false in (
        proof._replace(line=other),
        proof._replace(line=LINES[7]),
        proof._replace(line=LINES[7], leaf_index=7),
        proof._replace(leaf_index=7),
        proof._replace(path=proof.path[:-1]),
        proof._replace(path=(*proof.path, proof.path[0])),
        proof._replace(leaf_index=SIZE, line=encode_line(SIZE + 1, 0, 1, "STATE", "", "", b"{}")),
    ):
        with pytest.raises(ProofRefused):
            check(false.encode(), vkey(1))
    with pytest.raises(BadInput, match="crc"):
        check(proof._replace(line=proof.line.replace(b"ops", b"oops")).encode(), vkey(1))


def test_many_proofs_of_one_checkpoint_are_each_checked():
    """A checker that has opened a checkpoint still refuses the false proof that follows, and another checkpoint."""
    checker = ProofChecker([vkey(1)])
    assert checker.check(proof_of(7)).record.seq == 7
    assert checker.check(proof_of(9)).record.seq == 9
    with pytest.raises(ProofRefused):
        checker.check(proof_of(9)._replace(line=proof_of(8).line))
    with pytest.raises(BadInput):
        checker.check(proof_of(9)._replace(checkpoint=sign_note(TEXT, epoch_key(2).signer)))
    with pytest.raises(BadInput):
        checker.check(proof_of(9)._replace(key_notes=(b"nonsense",)))
    assert checker.check(proof_of(9)).record.seq == 9


def test_every_flipped_bit_and_every_cut_of_a_proof_is_refused():
    """No bit of a proof file can change, and no byte at its end be missing, without a refusal in words."""
    data = proof_of(7, 2).encode()
    checker = ProofChecker([vkey(1)])
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((BadInput, ProofRefused)):
            checker.check(parse_record_proof(bytes(changed)))
    for end in range(len(data)):
        with pytest.raises((BadInput, ProofRefused)):
            checker.check(parse_record_proof(data[:end]))


@given(st.binary(max_size=200), st.integers(0, 1100), st.integers(0, 1100))
def test_a_hostile_file_is_refused_in_words(junk, start, end):
    """Any bytes, alone or in the place of a part of a proof, are refused with a reason and nothing else."""
    data = proof_of(7, 2).encode()
    begin, stop = sorted((start, end))
    for hostile in (junk, data[:begin] + junk + data[stop:]):
        if hostile != data:
            with pytest.raises((BadInput, ProofRefused)):
                check(hostile, vkey(1))


def test_a_file_full_of_notes_is_refused_without_delay():
    """The greatest file of the shortest notes is refused at the first of them; numbers of any length are refused."""
    proof = proof_of(7)
    for junk in (b"\n" * 3_000_000, b"a\n\nb\n\n" * 500_000):
        data = TlogProof(6, proof.path, proof.checkpoint, proof.line + b"\n" + junk).encode()
        assert MAX_PROOF_BYTES * 0.9 < len(data) <= MAX_PROOF_BYTES
        with pytest.raises(BadInput):
            check(data, vkey(1))
    note = sign_note(
        f"holdfast key v1\nholdfast\n{LOG_ID}\n{'9' * 5000}\n{vkey(2)}\n".encode(), epoch_key(1).signer
    )
    with pytest.raises(BadInput):
        check(proof._replace(key_notes=(note,)).encode(), vkey(1))


def test_hostile_extras_are_refused():
    """A proof without record, with half a KEY note or with hidden bytes behind the notes is refused."""
    proof = proof_of(7, 2)
    whole = proof.line + b"\n" + proof.key_notes[0] + b"\n"
    for extra in (None, b"", b"\n", proof.line[:-1], whole[:-1], whole + b"x", whole + b"\n", whole + whole):
        with pytest.raises((BadInput, ProofRefused)):
            check(TlogProof(6, proof.path, proof.checkpoint, extra).encode(), vkey(1))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"c2sp.org/tlog-proof@v1",
        b"c2sp.org/tlog-proof@v2\nindex 0\n\nx\n",
        b"c2sp.org/tlog-proof@v1\r\nindex 0\n\nx\n",
        b"c2sp.org/tlog-proof@v1\nindex 01\n\nx\n",
        b"c2sp.org/tlog-proof@v1\nindex 18446744073709551616\n\nx\n",
        b"c2sp.org/tlog-proof@v1\nindex  0\n\nx\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\nx\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nextra AAAA\n\nx\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + (b64encode(bytes(32)) + b"\n") * 65 + b"\nx\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + b"x" * MAX_PROOF_BYTES,
    ],
)
def test_what_is_not_a_tlog_proof_is_refused(text):
    """Other versions and line ends, numbers spelled otherwise, too many hashes and too many bytes are refused."""
    with pytest.raises(BadInput):
        parse_tlog_proof(text)
