"""Notes, keys and checkpoints; published values are in tests/contract/test_merkle_vectors.py."""

import struct
from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.note import (
    COSIGNATURE_ED25519,
    COSIGNATURE_ML_DSA_44,
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Checkpoint,
    Signature,
    SigningKey,
    VerifierKey,
    add_signature,
    cosign,
    cosigned_at,
    open_note,
    parse_checkpoint,
    parse_note,
    sign_note,
)
from holdfast.core.errors import BadInput

LOG = SigningKey("holdfast/log", b"\1" * 32)
OTHER = SigningKey("holdfast/other", b"\2" * 32)
WITNESS = SigningKey("witness.example/w1", b"\3" * 32, COSIGNATURE_ED25519)
TEXT = Checkpoint("holdfast/log", 7, b"\7" * 32).text()
WHEN = 1_763_634_000


def mldsa_witness():
    try:
        return SigningKey("witness.example/pq", b"\4" * 32, COSIGNATURE_ML_DSA_44)
    except BadInput as why:
        pytest.skip(f"ML-DSA-44 left out: {why}")


def test_every_named_signer_is_reported_and_others_are_carried():
    """Opening names the keys that signed, in the order of the note, and hands on the signatures of others."""
    note = sign_note(TEXT, LOG, OTHER)
    assert open_note(note, [OTHER.vkey, LOG.vkey]) == (TEXT, (LOG.vkey, OTHER.vkey), ())
    assert open_note(note, [LOG.vkey]) == (TEXT, (LOG.vkey,), (OTHER.sign(TEXT),))


def test_a_name_alone_is_no_key():
    """A signature of another key under the same name is unknown, not wrong."""
    impostor = SigningKey(LOG.name, b"\5" * 32)
    note = sign_note(TEXT, impostor)
    with pytest.raises(BadInput, match="unknown keys only"):
        open_note(note, [LOG.vkey])
    assert open_note(add_signature(note, LOG.sign(TEXT).line()), [LOG.vkey]).verified == (LOG.vkey,)


def test_one_wrong_signature_of_a_named_key_refuses_the_note():
    """A wrong signature of a named key is not outvoted by a good one of another."""
    wrong = LOG.sign(b"another text\n")
    note = TEXT + b"\n" + OTHER.sign(TEXT).line() + wrong.line()
    with pytest.raises(BadInput, match="wrong signature of 'holdfast/log'"):
        open_note(note, [LOG.vkey, OTHER.vkey])


def test_of_two_signatures_of_one_key_the_first_counts():
    """A second line of a key that has signed is passed over, as Go's reader does; a wrong first one refuses."""
    good, wrong = LOG.sign(TEXT).line(), LOG.sign(b"another text\n").line()
    assert open_note(TEXT + b"\n" + good + wrong, [LOG.vkey]) == (TEXT, (LOG.vkey,), ())
    with pytest.raises(BadInput, match="wrong signature"):
        open_note(TEXT + b"\n" + wrong + good, [LOG.vkey])


def test_the_text_ends_at_the_last_empty_line():
    """A text may hold empty lines, and lines that look like signatures."""
    text = b"one\n\n" + OTHER.sign(b"one\n").line() + b"\n\ntwo\n"
    opened = open_note(sign_note(text, LOG), [LOG.vkey, OTHER.vkey])
    assert opened == (text, (LOG.vkey,), ())


@pytest.mark.parametrize("text", [b"a\x00\n", b"a\x1f\n", b"\ta\n", b"a\r\n", b"\xc3\n", b"\xed\xa0\x80\n"])
def test_a_text_that_no_note_may_hold_is_not_read(text):
    """Control characters and what is not UTF-8 are refused before any signature is looked at."""
    with pytest.raises(BadInput, match="note refused"):
        parse_note(text + b"\n" + LOG.sign(text).line())
    with pytest.raises(BadInput):
        parse_checkpoint(text.replace(b"\n", b"\n1\nAAAA\n"))


def test_two_keys_that_cannot_be_told_apart_are_refused():
    """Named keys with one name and id but different bytes are refused; the same key twice is one."""
    assert open_note(sign_note(TEXT, LOG), [LOG.vkey, VerifierKey.parse(str(LOG.vkey))]).verified
    twin = VerifierKey(LOG.name, 1, b"\6" * 32)
    twin.__dict__["key_id"] = LOG.vkey.key_id
    with pytest.raises(BadInput, match="two verifier keys"):
        open_note(sign_note(TEXT, LOG), [LOG.vkey, twin])


@given(st.data())
def test_no_byte_of_a_note_changes_unseen(data):
    """A note with any byte changed, left out or doubled does not open, or says the same with the same keys."""
    note = sign_note(TEXT, LOG, OTHER)
    at = data.draw(st.integers(0, len(note) - 1))
    byte = data.draw(st.binary(max_size=2))
    changed = note[:at] + byte + note[at + 1 :]
    if changed == note:
        return
    try:
        opened = open_note(changed, [LOG.vkey, OTHER.vkey])
    except BadInput:
        return
    assert opened.text == TEXT  # a changed name or key id makes one of the two a stranger's
    assert len(opened.verified) + len(opened.unknown) == 2
    assert opened.unknown


def test_every_flipped_bit_of_a_note_with_one_signer_is_seen():
    """No single bit of a note with one signature can change, those that base64 ignores included."""
    note = sign_note(TEXT, LOG)
    for bit in range(len(note) * 8):
        changed = bytearray(note)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadInput):
            open_note(bytes(changed), [LOG.vkey])


@given(st.binary(max_size=300) | st.text(alphabet="— a+\n=Zz0\x00", max_size=60).map(str.encode))
def test_whatever_is_read_is_a_note_or_refused(data):
    """Reading any bytes gives what spells the same bytes again, or BadInput."""
    try:
        note = parse_note(data)
    except BadInput:
        return
    assert note.text + b"\n" + b"".join(map(Signature.line, note.signatures)) == data


@given(st.text(max_size=100))
def test_whatever_is_read_is_a_key_or_refused(text):
    """Reading any text gives the key that spells it again, or BadInput."""
    for candidate in (text, f"name+12345678+{text}", text + "+" + str(LOG.vkey).partition("+")[2]):
        with suppress(BadInput):
            assert str(VerifierKey.parse(candidate)) == candidate


@given(
    origin=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    size=st.integers(0, 2**64 - 1),
    root=st.binary(min_size=32, max_size=32),
)
def test_a_checkpoint_reads_as_it_was_written(origin, size, root):
    """Writing a checkpoint and reading it gives the same."""
    checkpoint = Checkpoint(origin, size, root)
    assert parse_checkpoint(checkpoint.text()) == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n\n\n",
        b"a\n1\n",
        b"a\n01\nAAAA\n",
        b"a\n+1\nAAAA\n",
        b"a\n 1\nAAAA\n",
        b"a\n18446744073709551616\nAAAA\n",
        b"a\n\xd9\xa1\nAAAA\n",
        b"a\n1\nAAA\n",
        b"a\n1\nAAB=\n",
        b"a\n1\nAA\rAA\n",
        b"a\n1\nAAAA\n\nmore\n",
        b"\xff\n1\nAAAA\n",
        b"a\n1\nAAAA",
    ],
)
def test_what_is_not_a_checkpoint_is_refused(text):
    """Sizes with signs or zeroes before them, stray base64, empty lines and other bytes are refused."""
    with pytest.raises(BadInput):
        parse_checkpoint(text)


def test_too_much_is_refused_before_it_is_read():
    """A note above the size limit, and one with more signatures than the limit, is refused."""
    with pytest.raises(BadInput, match="1000001 bytes > 1000000 bytes"):
        parse_note(b"a" * (MAX_NOTE_BYTES + 1))
    lines = [Signature("a", n, b"x").line() for n in range(MAX_SIGNATURES + 1)]
    full = TEXT + b"\n" + b"".join(lines[:-1])
    assert len(parse_note(full).signatures) == MAX_SIGNATURES
    with pytest.raises(BadInput, match="101 signatures > 100"):
        parse_note(full + lines[-1])
    with pytest.raises(BadInput, match="100 signatures already"):
        add_signature(full, lines[-1])


def test_a_signature_is_added_once():
    """Adding a signature twice gives the same note as adding it once; a line that is none is refused."""
    note = sign_note(TEXT, LOG)
    line = OTHER.sign(TEXT).line()
    twice = add_signature(add_signature(note, line), line[:-1])
    assert twice == note + line == sign_note(TEXT, LOG, OTHER)
    for bad in (
        b"",
        b"\n",
        b"x" + line,
        "— a b".encode(),
        "— a AAAA".encode(),
        "— a AAAAAA==".encode(),
        "—  AAAAAAA=".encode(),
    ):
        with pytest.raises(BadInput):
            add_signature(note, bad)


@pytest.mark.parametrize("text", [b"", b"no newline", b"bell\a\n", b"\xff\n"])
def test_what_no_note_may_say_is_not_signed(text):
    """A text without final newline, with a control character or that is not UTF-8 is not signed."""
    with pytest.raises(BadInput):
        sign_note(text, LOG)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\n", "a\x01", "\ud800"])
def test_names_that_no_note_may_carry_are_refused(name):
    """An empty name, one with a space of any alphabet, a plus sign or a control character names no key."""
    with pytest.raises(BadInput):
        SigningKey(name, b"\1" * 32)


def test_keys_of_wrong_length_or_kind_are_refused():
    """A seed that has not 32 bytes, a key of another length and an unknown algorithm are refused."""
    for seed in (b"", b"\1" * 31, b"\1" * 64):
        with pytest.raises(BadInput, match="seed has"):
            SigningKey("a", seed)
    with pytest.raises(BadInput, match="unknown algorithm 0x02"):
        VerifierKey("a", 2, b"\1" * 32)
    with pytest.raises(BadInput, match="33 bytes, not 32"):
        VerifierKey("a", 1, b"\1" * 33)


def test_a_private_key_is_not_shown():
    """A signing key's text and repr hold nothing of its seed."""
    secret = SigningKey("holdfast/log", bytes(range(32)))
    for shown in (repr(secret), str(secret)):
        assert repr(secret.seed) not in shown
        assert secret.seed.hex() not in shown
        assert b64encode(secret.seed).decode() not in shown


def test_a_cosignature_binds_checkpoint_and_time():
    """A cosignature verifies for its checkpoint and time, and for no other; it has the published form."""
    cosignature = cosign(TEXT, WITNESS, WHEN)
    note = add_signature(sign_note(TEXT, LOG), cosignature.line())
    assert open_note(note, [LOG.vkey, WITNESS.vkey]).verified == (LOG.vkey, WITNESS.vkey)
    assert cosigned_at(cosignature.value) == WHEN
    signed = b"cosignature/v1\ntime 1763634000\n" + TEXT
    assert cosignature.value == struct.pack(">Q", WHEN) + WITNESS.bare_signature(signed)
    later = struct.pack(">Q", WHEN + 1) + cosignature.value[8:]
    assert not WITNESS.vkey.verify(TEXT, later)
    assert not WITNESS.vkey.verify(Checkpoint("holdfast/log", 8, b"\7" * 32).text(), cosignature.value)
    too_late = WITNESS.bare_signature(b"cosignature/v1\ntime %d\n%b" % (2**63, TEXT))
    assert not WITNESS.vkey.verify(TEXT, struct.pack(">Q", 2**63) + too_late)
    assert not WITNESS.vkey.verify(TEXT, b"")


def test_a_log_key_and_a_witness_key_do_not_do_each_others_work():
    """A log's key cosigns nothing, a witness's key signs no note, and neither verifies for the other."""
    with pytest.raises(BadInput, match="cosigns none"):
        cosign(TEXT, LOG, WHEN)
    with pytest.raises(BadInput, match="only cosigns"):
        sign_note(TEXT, WITNESS)
    with pytest.raises(BadInput, match="out of range"):
        cosign(TEXT, WITNESS, -1)
    with pytest.raises(BadInput, match="not a checkpoint"):
        cosign(b"hello\n", WITNESS, WHEN)
    same_seed = SigningKey(WITNESS.name, WITNESS.seed)
    assert same_seed.vkey.key_id != WITNESS.vkey.key_id
    assert not same_seed.vkey.verify(TEXT, cosign(TEXT, WITNESS, WHEN).value)


def test_an_ml_dsa_cosignature_binds_checkpoint_time_and_name():
    """An ML-DSA-44 cosignature verifies for its checkpoint, its time and its cosigner's name only."""
    witness = mldsa_witness()
    assert VerifierKey.parse(str(witness.vkey)) == witness.vkey
    cosignature = cosign(TEXT, witness, WHEN)
    assert len(cosignature.value) == 8 + 2420
    # The message of tlog-cosignature, laid down by hand.
    message = b"".join(
        (
            b"subtree/v1\n\x00",
            b"\x12witness.example/pq",
            struct.pack(">Q", WHEN),
            b"\x0choldfast/log",
            struct.pack(">QQ", 0, 7),
            b"\7" * 32,
        )
    )
    witness.vkey._key.verify(cosignature.value[8:], message)
    note = add_signature(sign_note(TEXT, LOG), cosignature.line())
    assert open_note(note, [LOG.vkey, witness.vkey]).verified == (LOG.vkey, witness.vkey)
    assert not VerifierKey("another", 6, witness.vkey.public).verify(TEXT, cosignature.value)
    assert not witness.vkey.verify(TEXT, struct.pack(">Q", WHEN + 1) + cosignature.value[8:])
    assert not witness.vkey.verify(Checkpoint("holdfast/log", 7, b"\7" * 31).text(), cosignature.value)
