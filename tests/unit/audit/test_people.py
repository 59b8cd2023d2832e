"""Personal fields: hidden under a person's key, shown again, and gone with it."""

import stat

import pytest

from holdfast.audit.logger import AuditLogger
from holdfast.audit.people import KEY_BYTES, KeyErased, PersonalData
from holdfast.audit.query import read_records
from holdfast.audit.verify import verify
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput

FIELDS = ("email", "address")
DETAILS = {
    "text": "hello",
    "email": "a@example.org",
    "contacts": [{"address": {"city": "Bern"}, "kind": "home"}],
}


@pytest.fixture
def people(tmp_path):
    return PersonalData(tmp_path / "people", FIELDS)


def test_hidden_fields_are_shown_again_and_others_stay_as_they_are(people):
    """Only personal fields are hidden, at any depth, and come back as they were."""
    hidden = people.hide("desk-1", DETAILS)
    assert hidden["text"] == "hello"
    assert hidden["contacts"][0]["kind"] == "home"
    assert "example.org" not in repr(hidden)
    assert "Bern" not in repr(hidden)
    assert people.reveal(hidden) == DETAILS


def test_details_without_personal_fields_are_the_same_object_and_make_no_key(people):
    """Nothing personal: nothing is done."""
    details = {"text": "x"}
    assert people.hide("desk-1", details) is details
    assert not people.folder.exists()


def test_one_value_is_hidden_differently_every_time(people):
    """Equal values are not recognised as equal."""
    first, second = people.hide("desk-1", DETAILS), people.hide("desk-1", DETAILS)
    assert first["email"]["box"] != second["email"]["box"]
    assert first["email"]["key"] == second["email"]["key"]


def test_an_erased_person_cannot_be_shown_and_others_can(people):
    """Destroying a key destroys what it hid, and nothing else."""
    gone, kept = people.hide("desk-1", DETAILS), people.hide("desk-2", DETAILS)
    assert people.erase("desk-1") == gone["email"]["key"]
    with pytest.raises(KeyErased, match="erased"):
        people.reveal(gone)
    assert people.reveal(kept) == DETAILS
    with pytest.raises(KeyErased):
        people.erase("desk-1")


def test_a_person_who_comes_back_gets_a_new_key(people):
    """After an erasure new fields are hidden under another key; the old ones stay lost."""
    gone = people.hide("desk-1", DETAILS)
    people.erase("desk-1")
    again = people.hide("desk-1", DETAILS)
    assert again["email"]["key"] != gone["email"]["key"]
    assert people.reveal(again) == DETAILS
    with pytest.raises(KeyErased):
        people.reveal(gone)


@pytest.mark.parametrize("change", ["box", "nonce", "field", "subject"])
def test_a_changed_hidden_value_is_refused(people, change):
    """A hidden value passes neither changed, nor under another name, nor for another person."""
    people.hide("desk-2", DETAILS)
    box = dict(people.hide("desk-1", {"email": "a@example.org"})["email"])
    field = "address" if change == "field" else "email"
    if change in {"box", "nonce"}:
        box[change] = ("A" if box[change][0] != "A" else "B") + box[change][1:]
    if change == "subject":
        box["subject"] = "desk-2"
    with pytest.raises(BadInput):
        people.reveal({field: box})


def test_a_key_file_is_private_and_a_damaged_one_is_named(people):
    """Keys are 0600 in a folder of 0700; a damaged key is never replaced by a new one."""
    people.hide("desk-1", DETAILS)
    (path,) = people.folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(people.folder.stat().st_mode) == 0o700
    *kept, last = path.read_bytes()
    path.write_bytes(bytes([*kept, last ^ 1]))
    with pytest.raises(BadInput, match="damaged"):
        people.hide("desk-1", DETAILS)


def test_an_erasure_that_was_cut_short_counts_as_one(people):
    """Zeros where a key was: the person is erased, and a new key may be made."""
    gone = people.hide("desk-1", DETAILS)
    (path,) = people.folder.iterdir()
    path.write_bytes(bytes(KEY_BYTES + 8))
    with pytest.raises(KeyErased):
        people.reveal(gone)
    assert people.reveal(people.hide("desk-1", DETAILS)) == DETAILS


def test_two_writers_agree_on_one_key(people, monkeypatch):
    """Whoever makes the key second takes the first one's."""
    first = people.hide("desk-1", DETAILS)["email"]["key"]
    real = PersonalData._read
    calls = iter([None])

    def not_yet(self, path):
        return next(calls, "real") and real(self, path)

    monkeypatch.setattr(PersonalData, "_read", not_yet)
    assert PersonalData(people.folder, FIELDS).hide("desk-1", DETAILS)["email"]["key"] == first
    assert len(list(people.folder.iterdir())) == 1


def test_nothing_is_recorded_in_the_clear_when_no_key_can_be_made(tmp_path):
    """Without a folder for keys the record is refused."""
    (tmp_path / "people").write_text("a file")
    with pytest.raises(BadInput, match="cannot be hidden"):
        PersonalData(tmp_path / "people", FIELDS).hide("desk-1", DETAILS)


def test_the_log_never_holds_a_personal_field_in_the_clear(tmp_path, people):
    """Through the logger the ciphertext is what is recorded and proven, before and after an erasure."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock()) as wal:
        AuditLogger(wal, personal=people).record("NOTE", DETAILS, user="desk-1")
    (record,) = [one for one in read_records(tmp_path / "log") if one.type == "NOTE"]
    written = b"".join(path.read_bytes() for path in (tmp_path / "log").glob("audit_*"))
    assert b"example.org" not in written
    assert people.reveal(record.details) == DETAILS
    root = verify(tmp_path / "log").root
    people.erase("desk-1")
    after = verify(tmp_path / "log")
    assert after.ok
    assert after.root == root


def test_a_link_in_place_of_a_key_is_refused(people, tmp_path):
    """Nobody makes us read a key from elsewhere."""
    people.hide("desk-1", DETAILS)
    (path,) = people.folder.iterdir()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput):
        people.hide("desk-1", DETAILS)
