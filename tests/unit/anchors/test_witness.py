"""The witness: one growing history per log, or no cosignature."""

import base64
import errno
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.anchors import MemoryLog
from support.data import require

from holdfast.anchors import wire
from holdfast.anchors.witness import Witness
from holdfast.audit.note import (
    COSIGNATURE_ED25519,
    SigningKey,
    VerifierKey,
    cosigned_at,
    open_note,
    parse_checkpoint,
    parse_signature,
    sign_note,
)
from holdfast.audit.tree import EMPTY_ROOT
from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.errors import BadInput, LogHeld
from holdfast.testing.storage import SimulatedStorage

HOME = Path("/witness")


def a_witness(log=None, *, storage=None, clock=None):
    witness = Witness(HOME, clock=clock or ManualClock(), storage=storage or SimulatedStorage())
    if log is not None:
        witness.pin(log.vkey)
    return witness


def known(witness, log):
    return witness.logs()[log.origin].size


def test_a_witness_cosigns_a_log_it_sees_for_the_first_time():
    """The first checkpoint of a pinned log is cosigned with the time of the clock, and the cosignature verifies."""
    log, clock = MemoryLog(3), ManualClock()
    witness = a_witness(log, clock=clock)
    answer = witness.add_checkpoint(log.request(0))
    assert answer.status == 200
    opened = open_note(log.note() + answer.body, [log.vkey, witness.vkey])
    assert opened.verified == (log.vkey, witness.vkey)
    assert cosigned_at(parse_signature(answer.body[:-1]).value) == clock.now_ns() // NANOS


@pytest.mark.contract("X2")
@pytest.mark.parametrize(("old", "new"), [(1, 2), (3, 7), (4, 8), (7, 7), (6, 64), (100, 1000)])
def test_a_witness_follows_a_growing_log(old, new):
    """A checkpoint with the proof from the last one is cosigned, also the same one once more."""
    log = MemoryLog(new)
    witness = a_witness(log)
    assert witness.add_checkpoint(log.request(0, old)).status == 200
    assert witness.add_checkpoint(log.request(old)).status == 200
    assert known(witness, log) == new


@pytest.mark.contract("X2")
def test_a_witness_refuses_a_log_that_went_back():
    """An older checkpoint is refused with 409 and the size the witness knows, whatever old size is claimed."""
    log = MemoryLog(9)
    witness = a_witness(log)
    witness.add_checkpoint(log.request(0))
    for old in (0, 3, 5):
        answer = witness.add_checkpoint(log.request(old, 5))
        assert answer == wire.Answer(409, b"9\n", "text/x.tlog.size")
    assert witness.add_checkpoint(wire.encode_add_checkpoint(9, [], log.note(5))).status == 400
    assert known(witness, log) == 9


@pytest.mark.contract("X2")
def test_a_witness_refuses_another_history():
    """A log with another record behind the same beginning is refused: 409 at the same size, 422 at a larger one."""
    log, other = MemoryLog(9), MemoryLog(5).grow(4, b"other")
    storage = SimulatedStorage()
    witness = a_witness(log, storage=storage)
    witness.add_checkpoint(log.request(0))
    assert witness.add_checkpoint(other.request(9)).status == 409
    assert witness.add_checkpoint(other.grow(4).request(9)).status == 422
    assert known(witness, log) == 9
    forks = [data for name, data in storage.content(HOME / "logs").items() if name.endswith(".fork")]
    assert forks == [other.note(9)], "the proof that the log shows two histories is kept"


def _stray_bits(step):
    """A proof line, and the same one with a bit set that base64 does not use."""
    line = base64.b64encode(step)
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return line, line[:-2] + bytes([alphabet[alphabet.index(line[-2]) + 1]]) + b"="


STATUSES = {
    "not a request": (400, lambda log: b"hello\n"),
    "no body": (400, lambda log: b""),
    "a size with a leading zero": (400, lambda log: log.request(3).replace(b"old 3", b"old 03")),
    "a size that no count reaches": (400, lambda log: log.request(3).replace(b"old 3", b"old %d" % 2**64)),
    "64 proof lines": (
        400,
        lambda log: wire.encode_add_checkpoint(3, [b"\0" * 32] * 64, log.note()),
    ),
    "a proof line spelled in another way": (
        400,
        lambda log: log.request(3).replace(*_stray_bits(log.prove(3)[0])),
    ),
    "a proof line of 31 bytes": (400, lambda log: wire.encode_add_checkpoint(3, [b"\0" * 31], log.note())),
    "a checkpoint that is none": (400, lambda log: wire.encode_add_checkpoint(3, [], b"a\nb\n")),
    "a root of 31 bytes": (
        400,
        lambda log: wire.encode_add_checkpoint(
            3, [], sign_note(log.checkpoint()._replace(root=b"\0" * 31).text(), log.keys[0].signer)
        ),
    ),
    "an old size above the checkpoint's": (400, lambda log: wire.encode_add_checkpoint(9, [], log.note())),
    "another key": (403, lambda log: MemoryLog(8, seed=b"z").request(3)),
    "a wrong signature": (
        403,
        lambda log: wire.encode_add_checkpoint(
            3, log.prove(3), log.checkpoint().text() + b"\n" + log.note(5).split(b"\n\n")[1]
        ),
    ),
    "another log": (404, lambda log: MemoryLog(8, log_id="cd" * 16).request(3)),
    "another old size": (409, lambda log: log.request(4)),
    "no old size": (409, lambda log: log.request(0)),
    "no proof": (422, lambda log: wire.encode_add_checkpoint(3, [], log.note())),
    "half a proof": (422, lambda log: wire.encode_add_checkpoint(3, log.prove(3)[:-1], log.note())),
    "a proof with one hash more": (
        422,
        lambda log: wire.encode_add_checkpoint(3, [*log.prove(3), b"\0" * 32], log.note()),
    ),
    "a proof in another order": (
        422,
        lambda log: wire.encode_add_checkpoint(3, log.prove(3)[::-1], log.note()),
    ),
    "the proof of another size": (422, lambda log: wire.encode_add_checkpoint(3, log.prove(4), log.note())),
}


@pytest.mark.parametrize("wrong", STATUSES)
def test_a_witness_answers_what_the_protocol_says(wrong):
    """Every kind of wrong request gets the status that tlog-witness gives it, and changes nothing."""
    status, request = STATUSES[wrong]
    log = MemoryLog(8)
    witness = a_witness(log)
    witness.add_checkpoint(log.request(0, 3))
    assert witness.add_checkpoint(request(log)).status == status
    assert known(witness, log) == 3
    assert witness.add_checkpoint(log.request(3)).status == 200


def test_an_empty_log_has_one_root():
    """Size 0 is cosigned with the root of nothing and with no other, and never with a proof."""
    log = MemoryLog(4)
    witness = a_witness(log)
    signer = log.keys[0].signer
    lie = sign_note(log.checkpoint(0)._replace(root=b"\1" * 32).text(), signer)
    assert witness.add_checkpoint(wire.encode_add_checkpoint(0, [], lie)).status == 409
    assert witness.add_checkpoint(wire.encode_add_checkpoint(0, [EMPTY_ROOT], log.note(0))).status == 422
    assert witness.add_checkpoint(log.request(0, 0)).status == 200
    assert witness.add_checkpoint(log.request(0)).status == 200


def test_no_byte_of_a_request_can_change_unseen():
    """A request with any one byte changed is refused, or leads to the same state as the right one."""
    log = MemoryLog(8)
    right = log.request(3)
    changed = random.Random(3)
    for place in range(len(right)):
        witness = a_witness(log)
        witness.add_checkpoint(log.request(0, 3))
        wrong = bytearray(right)
        wrong[place] ^= 1 << changed.randrange(8)
        answer = witness.add_checkpoint(bytes(wrong))
        state = witness.logs()[log.origin]
        assert (answer.status, state.size) != (200, 3)
        assert answer.status == 200 or state.size == 3, place
        assert answer.status != 200 or state.root == log.checkpoint().root, place


@pytest.mark.data
@pytest.mark.contract("X2")
def test_a_witness_accepts_a_foreign_log_and_refuses_its_damage():
    """Tessera's log of sizes 0 to 15 is followed step by step; a changed byte of a checkpoint is refused."""
    published = json.loads(require("merkle", "tessera_log15.json").read_text())
    files = {name: base64.b64decode(text) for name, text in published["files_b64"].items()}
    vkey = VerifierKey.parse(published["vkey"])
    tile = files["tile/0/000.p/15"]
    log = MemoryLog()
    log.leaves = [tile[at : at + 32] for at in range(0, len(tile), 32)]
    witness = a_witness()
    witness.pin(vkey)
    assert witness.add_checkpoint(wire.encode_add_checkpoint(0, [], files["checkpoint.0"])).status == 200
    for size in range(1, 16):
        for old in range(size):
            request = wire.encode_add_checkpoint(old, log.prove(old, size), files[f"checkpoint.{size}"])
            assert witness.add_checkpoint(request).status == (200 if old == size - 1 else 409)
    again = a_witness()
    again.pin(vkey)
    note = files["checkpoint.15"]
    for place in range(len(note)):
        damaged = note[:place] + bytes([note[place] ^ 1]) + note[place + 1 :]
        request = wire.encode_add_checkpoint(0, [], damaged)
        assert again.add_checkpoint(request).status in {400, 403, 404}, place
    assert again.logs()[vkey.name].size == 0


# Keys.


def test_a_witness_follows_the_keys_of_a_log():
    """After the KEY notes of three epochs the newest key counts and no older one."""
    log = MemoryLog(4)
    witness = a_witness(log)
    witness.add_checkpoint(log.request(0, 2))
    old_key_s = log.request(2)
    log.rotate()
    log.rotate()
    assert witness.add_checkpoint(log.request(2)).status == 403
    answer = witness.add_key(wire.encode_notes(log.notes))
    assert answer == wire.Answer(200, b"3\n", "text/x.holdfast.epoch")
    assert witness.add_checkpoint(old_key_s).status == 403
    assert witness.add_checkpoint(log.request(2)).status == 200
    assert witness.add_key(wire.encode_notes(log.notes)).status == 200, "the same notes again change nothing"


def test_a_witness_says_from_which_epoch_it_wants_the_notes():
    """Notes with a gap are refused with 409 and the epoch known; from the next one on they are taken."""
    log = MemoryLog(4)
    witness = a_witness(log)
    witness.add_key(wire.encode_notes(log.notes))
    for _ in range(4):
        log.rotate()
    assert witness.add_key(log.notes[-1]) == wire.Answer(409, b"1\n", "text/x.holdfast.epoch")
    assert witness.add_key(wire.encode_notes(log.notes[1:3])).body == b"3\n"
    assert witness.add_key(wire.encode_notes(log.notes[3:])).body == b"5\n"


def test_a_key_that_the_log_did_not_sign_is_not_followed():
    """A chain that another key signed, a note of another log and a note that is none teach nothing."""
    log, thief = MemoryLog(4), MemoryLog(4, seed=b"thief")
    thief.rotate()
    log.rotate()
    witness = a_witness(log)
    witness.add_key(log.notes[0])
    assert witness.add_key(thief.notes[1]).status == 403
    assert witness.add_key(MemoryLog(1, log_id="cd" * 16).notes[0]).status == 404
    assert witness.add_key(log.note()).status == 400
    assert witness.add_key(b"").status == 400
    assert witness.add_key(wire.encode_notes([log.notes[1], thief.note()])).status == 400
    assert witness.add_key(log.notes[1]).status == 200


def test_epochs_follow_one_another():
    """A note that the key in force signed for a later epoch than the next one is not followed."""
    log = MemoryLog(4)
    witness = a_witness(log)
    witness.add_key(log.notes[0])
    leap = log._key(7).details("rotation", log.keys[0]).note.encode()
    assert witness.add_key(leap) == wire.Answer(409, b"1\n", "text/x.holdfast.epoch")
    log.rotate()
    assert witness.add_key(log.notes[1]).body == b"2\n"
    rival = MemoryLog(4, seed=b"rival")._key(2).details("rotation", log.keys[0]).note.encode()
    assert witness.add_key(rival) == wire.Answer(409, b"2\n", "text/x.holdfast.epoch"), "the first one counts"
    assert witness.add_checkpoint(log.request(0)).status == 200


@pytest.mark.parametrize(
    "vkey",
    [
        MemoryLog(log_id="cd" * 16).vkey,
        SigningKey(MemoryLog().origin, b"k" * 32, COSIGNATURE_ED25519).vkey,
        "rubbish",
    ],
)
def test_only_a_key_of_the_log_follows_its_key(vkey):
    """A signed note that names another log's key, a cosigner's or none is refused with 400."""
    log = MemoryLog(4)
    witness = a_witness(log)
    text = f"holdfast key v1\ntest\n{log.log_id}\n2\n{vkey}\n".encode()
    assert witness.add_key(sign_note(text, log.keys[0].signer)).status == 400


@pytest.mark.parametrize("epoch", ["0", "01", "-1", "x", "2" * 5000, "²"])
def test_an_epoch_is_a_count(epoch):
    """A signed note whose epoch is no plain number from 1 is refused with 400."""
    log = MemoryLog(4)
    witness = a_witness(log)
    text = f"holdfast key v1\ntest\n{log.log_id}\n{epoch}\n{log._key(2).signer.vkey}\n".encode()
    assert witness.add_key(sign_note(text, log.keys[0].signer)).status == 400


def test_a_bogus_epoch_number_is_not_learned_from_a_stranger():
    """A note that names the pinned key but was signed by nobody trusted cannot set the epoch it belongs to."""
    log, thief = MemoryLog(4), MemoryLog(4, seed=b"thief")
    bogus = sign_note(
        log.notes[0].split(b"\n\n")[0].replace(b"\n1\n", b"\n7\n") + b"\n", thief.keys[0].signer
    )
    witness = a_witness(log)
    assert witness.add_key(bogus).status == 409
    log.rotate()
    assert witness.add_key(wire.encode_notes(log.notes)).body == b"2\n"


def test_a_pinned_later_key_is_a_beginning_too():
    """A witness that was given the key of epoch 2 follows the chain from there, whatever notes come before."""
    log = MemoryLog(4)
    log.rotate()
    witness = a_witness()
    witness.pin(log.keys[1].signer.vkey)
    log.rotate()
    assert witness.add_key(log.notes[2]).status == 200
    assert witness.add_checkpoint(log.request(0)).status == 200


def test_pinning_the_first_key_again_does_not_bring_it_back():
    """A restart with the same --log keeps the key the chain led to; a new pin is a new beginning beside it."""
    log, replaced, storage = MemoryLog(4), MemoryLog(6, seed=b"new"), SimulatedStorage()
    witness = a_witness(log, storage=storage)
    first = log.request(0)
    log.rotate()
    witness.add_key(wire.encode_notes(log.notes))
    witness.close()
    witness = a_witness(log, storage=storage)
    assert witness.add_checkpoint(first).status == 403
    assert witness.add_checkpoint(log.request(0)).status == 200
    witness.pin(replaced.vkey)
    assert witness.add_checkpoint(replaced.request(4)).status == 200


def test_a_cosigner_s_key_is_no_log_s():
    """A key of a cosignature algorithm is refused as a pin."""
    with pytest.raises(BadInput, match="cosigner"):
        a_witness().pin(SigningKey("w", b"s" * 32, COSIGNATURE_ED25519).vkey)


# Memory.


def test_two_submissions_at_once_cannot_both_win():
    """Of many threads that submit different histories of one size from the same old size, one is cosigned."""
    log = MemoryLog(4)
    forks = [MemoryLog(4).grow(3, b"%d" % number) for number in range(8)]
    for _ in range(5):
        witness = a_witness(log)
        witness.add_checkpoint(log.request(0))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda fork, w=witness: w.add_checkpoint(fork.request(4)), forks))
        assert sorted(answer.status for answer in answers) == [200] + [409] * 7


def test_an_older_submission_cannot_overtake_a_newer_one():
    """Whatever the interleaving, the known size only grows and ends at the largest one cosigned."""
    log = MemoryLog(64)
    witness = a_witness(log)

    def climb(step):
        size, cosigned = 0, []
        while size < 64:
            target = min(64, size + step)
            answer = witness.add_checkpoint(log.request(size, target))
            if answer.status == 200:
                cosigned.append(target)
                size = target
            else:
                size = int(answer.body)
                assert answer.status == 409
        return cosigned

    with ThreadPoolExecutor(4) as pool:
        won = [size for sizes in pool.map(climb, (1, 3, 5, 7)) for size in sizes]
    assert len(won) == len(set(won)), "one size cosigned for two who grew from different ones"
    assert known(witness, log) == 64


@pytest.mark.invariant("I8")
@pytest.mark.contract("X2")
def test_a_witness_remembers_what_it_cosigned_through_any_crash():
    """Killed or cut off from power at any call, it starts again and knows at least the last size it answered."""
    log = MemoryLog(12)
    log.rotate()
    storage, states, answered = SimulatedStorage(), [], [0, 0]
    randomly = random.Random(20261121)

    def crash(operation, name):
        del operation, name
        states.append((storage.after_kill(), *answered))
        states.extend((storage.after_power_cut(randomly), *answered) for _ in range(3))

    witness = a_witness(log, storage=storage)
    witness.add_key(log.notes[0])
    storage.on_call = crash
    for old, new in ((0, 3), (3, 4), (4, 12)):
        key = log.keys.pop() if new < 12 else None
        assert witness.add_checkpoint(log.request(old, new)).status == 200
        log.keys += [key] if key else []
        answered[0] = new
        if new == 4:
            assert witness.add_key(log.notes[1]).body == b"2\n"
            answered[1] = 2
    crash("end", "")
    assert len(states) > 60
    for disk, size, epoch in states:
        again = a_witness(storage=disk)
        state = again.logs()[log.origin]
        assert state.size >= size
        assert state.epoch >= epoch
        assert state.root == log.checkpoint(state.size).root
        log.keys, kept = (log.keys if state.epoch == 2 else log.keys[:1]), log.keys
        assert again.add_checkpoint(log.request(state.size)).status == 200
        log.keys = kept


def test_a_witness_whose_disk_fails_answers_nothing_more():
    """After a failed write no cosignature leaves, also where the next write would succeed."""
    log, storage = MemoryLog(9), SimulatedStorage()
    witness = a_witness(log, storage=storage)

    def fail(operation, name):
        if operation == "fsync" and name.endswith(".checkpoint.tmp"):
            raise OSError(errno.EIO, "Input/output error")

    storage.on_call = fail
    assert witness.add_checkpoint(log.request(0, 3)).status == 500
    storage.on_call = None
    assert witness.add_checkpoint(log.request(0, 5)).status == 500
    assert witness.add_key(log.notes[0]).status == 500
    witness.close()
    assert a_witness(storage=storage).add_checkpoint(log.request(0)).status == 200


@pytest.mark.parametrize("kind", ["keys", "checkpoint"])
def test_a_witness_does_not_start_on_a_damaged_record(kind):
    """Any changed byte of its records keeps the witness from starting, by name, or changes nothing."""
    log, storage = MemoryLog(5), SimulatedStorage()
    witness = a_witness(log, storage=storage)
    witness.add_checkpoint(log.request(0))
    witness.close()
    refused = 0
    size = next(len(data) for name, data in storage.content(HOME / "logs").items() if name.endswith(kind))
    for place in range(0, size, 3):
        twin = storage.after_kill()
        record = next(data for name, data in twin.content(HOME / "logs").items() if name.endswith(kind))
        record[place] ^= 1
        try:
            assert a_witness(storage=twin).logs()[log.origin].size == 5
        except BadInput as why:
            refused += "damaged" in str(why)
    assert refused > size // 3 * 0.6


def test_a_witness_keeps_its_key_and_its_name(tmp_path):
    """The key is made once, lies 0600 in a 0700 directory, and another name is refused at the next start."""
    home = tmp_path / "w"
    first = Witness(home, clock=ManualClock(), name="witness.example/w1")
    with pytest.raises(LogHeld):
        Witness(home, clock=ManualClock())
    first.close()
    again = Witness(home, clock=ManualClock())
    assert again.vkey == first.vkey
    assert again.vkey.name == "witness.example/w1"
    again.close()
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(BadInput, match="called"):
        Witness(home, clock=ManualClock(), name="other")
    (home / "key").write_text("{}")
    with pytest.raises(BadInput, match="cannot be read"):
        Witness(home, clock=ManualClock())


def test_what_strangers_signed_is_not_kept():
    """The record of a checkpoint holds the log's signature and the witness's, not what others added."""
    log, storage = MemoryLog(5), SimulatedStorage()
    witness = a_witness(log, storage=storage)
    stranger = SigningKey("stranger", b"x" * 32).sign(log.checkpoint().text()).line()
    answer = witness.add_checkpoint(wire.encode_add_checkpoint(0, [], log.note() + stranger))
    kept = next(data for name, data in storage.content(HOME / "logs").items() if name.endswith(".checkpoint"))
    assert bytes(kept) == log.note() + answer.body
    assert parse_checkpoint(open_note(bytes(kept), [witness.vkey]).text) == log.checkpoint()
