import shutil
from itertools import product

import pytest

from holdfast.audit import evidence as evidence_module
from holdfast.audit.anchor import Mark
from holdfast.audit.evidence import Epoch, Evidence, take
from holdfast.audit.head import HeadMark, HeadState
from holdfast.audit.history import NOTE_END, history_name, last_start, notes_in, parse_history_name
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import Checkpoint, SigningKey, sign_note
from holdfast.audit.recovery import Scan, Verdict, judge
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, KeyMissing

LOG_ID = "ab" * 16
NAME = f"holdfast/{LOG_ID}"
KEY_AT = 12


class FakeKeys:
    """A log's folder of keys, as the table sees it."""

    def __init__(self, real, current, upcoming) -> None:
        self._current, self._upcoming = current, upcoming
        self.missing = real.missing

    def current(self):
        return self._current

    def upcoming(self):
        return self._upcoming


@pytest.fixture
def made(tmp_path):
    """The keys of epochs 4 and 5 of one log, and one of epoch 5 that is another."""
    keys = KeyHome(tmp_path).log(LOG_ID)
    return {"none": None, "before": keys.prepare("holdfast", 4), "e": keys.prepare("holdfast", 5),
            "other": keys.prepare("holdfast", 5)}  # fmt: skip


def expected(current: str, upcoming: str, *, covered: bool, rotation: bool, replace: bool) -> str:
    """The table at the head of evidence.py, row by row."""
    if current == "e":
        return "goes on"
    if upcoming == "e":
        if covered or not rotation:
            return "finishes alone"
        return "signs with both" if current == "before" else "refuses"
    return "replaces" if replace else "refuses"


@pytest.mark.parametrize("current", ["none", "before", "e", "other"])
@pytest.mark.parametrize("upcoming", ["none", "before", "e", "other"])
def test_every_state_of_a_change_of_keys_has_one_answer(made, tmp_path, current, upcoming):
    """For every combination of key files, coverage and reason the writer does what the table says."""
    keys = FakeKeys(KeyHome(tmp_path).log(LOG_ID), made[current], made[upcoming])
    for covered, rotation, replace in product([True, False], repeat=3):
        epoch = Epoch(KEY_AT, 5, made["e"].signer.vkey, "rotation" if rotation else "first")
        signed = KEY_AT if covered else KEY_AT - 1
        found = Evidence(LOG_ID, "holdfast", [], None, epoch, signed, b"note", None)
        wanted = expected(current, upcoming, covered=covered, rotation=rotation, replace=replace)
        if wanted == "refuses":
            with pytest.raises(KeyMissing, match="epoch 5"):
                take(found, keys, replace=replace)
            continue
        taken = take(found, keys, replace=replace)
        assert (taken.key, taken.upcoming, taken.lost_epoch) == {
            "goes on": (made["e"], None, 0),
            "finishes alone": (None, made["e"], 0),
            "signs with both": (made["before"], made["e"], 0),
            "replaces": (None, None, 5),
        }[wanted], (covered, rotation, replace)
        assert (taken.signed, taken.note) == (signed, b"note")


def test_log_that_was_never_signed_needs_no_key():
    """Without a KEY record there is nothing to go on with, with or without keys."""
    found = Evidence(LOG_ID, "holdfast", [], None, None, 0, b"", None)
    assert take(found, None) == (None, None, 0, 0, b"")


def test_table_in_the_docstring_names_every_answer():
    """The table that people read has the answers that the test enumerates."""
    for words in (
        "goes on with e",
        "signs with both",
        "signs with e alone",
        "refuses (`KeyMissing`)",
        "replaces it",
    ):
        assert words in evidence_module.__doc__


@pytest.mark.parametrize("source", ["lines", "head", "mark"])
@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("closed", [True, False])
def test_m_is_the_highest_that_anybody_says(source, over, closed):
    """Whoever says that s was durable makes the log CORRUPT, and is named; s - 1 alone leaves it intact."""
    found = Scan()
    found.first_missing = 8
    known = 7 + over
    found.synced = known if source == "lines" else 2
    state = HeadState.CLOSED if closed else HeadState.OPEN
    head = HeadMark(known if source == "head" else 3, "audit.log", 0, state, 1)
    marks = [Mark(known if source == "mark" else 4, bytes(32), "a witness"), Mark(1, bytes(32), "nobody")]
    if over == 1:
        who = {"lines": "its own lines", "head": "its head", "mark": "a witness"}[source]
        with pytest.raises(AuditCorruption, match=f"durable up to 8, says {who}") as refused:
            judge(found, head, marks)
        assert refused.value.sequence == 8
    elif over == 0:
        assert judge(found, head, marks) == (Verdict.INTACT, 7)
    elif closed:
        with pytest.raises(AuditCorruption):
            judge(found, head, marks)
    else:
        assert judge(found, head, marks) == (Verdict.TORN, 6)


# -- the history --------------------------------------------------------------------------------------------

KEY = SigningKey(NAME, bytes(32))


def note(size: int, *keys: SigningKey) -> bytes:
    return sign_note(Checkpoint(NAME, size, bytes([size % 256]) * 32).text(), *(keys or (KEY,)))


def history(*sizes: int) -> bytes:
    return b"".join(note(size) + NOTE_END for size in sizes)


def test_history_is_named_after_its_segment():
    """The file beside a segment is the same whether that is raw or sealed, and leads back to it."""
    raw = "audit_20261120_000000_000000000001.log"
    assert history_name(raw) == history_name(raw + ".gz") == "audit_20261120_000000_000000000001.checkpoints"
    assert parse_history_name(history_name(raw)).name == raw
    assert parse_history_name("audit_.checkpoints") is None


@pytest.mark.parametrize("filler", [b"", b"\n", b"\n" * 500])
def test_notes_are_read_up_to_the_filler(filler):
    """All notes are given, in order, and filler behind them is nothing."""
    found = notes_in(history(3, 7, 300) + filler, [KEY.vkey])
    assert [one.checkpoint.size for one in found.notes] == [3, 7, 300]
    assert (found.end, found.rest, found.only_filler, found.reason) == (
        len(history(3, 7, 300)),
        b"",
        True,
        "",
    )


def test_every_truncation_of_the_last_note_leaves_the_others():
    """However much of the last note is there, the ones before it are given and the rest is named."""
    whole, last = history(3, 7), note(9)
    for length in range(1, len(last) - 1):  # its own newline is what filler is made of
        found = notes_in(whole + last[:length] + b"\n" * 40, [KEY.vkey])
        assert [one.checkpoint.size for one in found.notes] == [3, 7], length
        assert found.end == len(whole)
        assert found.rest == last[:length].rstrip(b"\n")
        assert found.reason


def test_every_flipped_byte_of_a_note_is_seen():
    """A changed byte anywhere in a note ends what is believed there."""
    whole = history(3, 7)
    start = len(history(3))
    for at in range(start, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        found = notes_in(bytes(damaged), [KEY.vkey])
        assert [one.checkpoint.size for one in found.notes] == [3] or (at == len(whole) - 1 and found.rest), (
            at
        )


def test_sizes_that_do_not_grow_and_keys_that_nobody_knows_end_the_history():
    """A note of the same or a smaller size, or by an unknown key, is named and not believed."""
    assert "follows one of size 7" in notes_in(history(3, 7, 7), [KEY.vkey]).reason
    other = SigningKey(NAME, bytes([1]) * 32)
    found = notes_in(history(3) + note(9, other) + b"\n", [KEY.vkey])
    assert "unknown keys" in found.reason


def test_last_notes_are_found_without_reading_the_first():
    """The place where the last notes begin is a note's own beginning, also in a short or an empty file."""
    content = history(*range(1, 200)) + b"\n" * 100
    for count in (1, 2, 3):
        start = last_start(content, NAME, count)
        found = notes_in(content, [KEY.vkey], start=start)
        assert [one.checkpoint.size for one in found.notes] == list(range(200 - count, 200))
    assert last_start(history(1), NAME, 3) == 0
    assert last_start(b"", NAME, 3) == 0


@pytest.mark.invariant("I8")
def test_log_written_anew_without_signatures_is_refused_even_where_the_high_water_mark_is_lost(tmp_path):
    """The private key that is kept proves that the log was signed: no chain is begun over what a forger left."""
    home = KeyHome(tmp_path / "keys")
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), keys=home, seal=False) as log:
        log.append("NOTE", {"n": 1})
    log_id = bytes.fromhex(log.log_id)
    shutil.rmtree(tmp_path / "log")
    (home.log(log.log_id).path / "high-water").unlink()
    with WriteAheadLog(
        tmp_path / "log", clock=ManualClock(), seal=False, random_bytes=lambda _: log_id
    ) as forged:
        forged.append("NOTE", {"n": "forged"})
    pins = home.log(log.log_id).pins()
    with pytest.raises(AuditCorruption, match="has no KEY record, and its key of epoch 1"):
        WriteAheadLog(tmp_path / "log", clock=ManualClock(), keys=home, seal=False).append("NOTE", {})
    assert home.log(log.log_id).pins() == pins
    assert home.log(log.log_id).current() is not None
