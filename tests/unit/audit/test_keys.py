import json
import stat
from random import Random

import pytest

from holdfast.audit.keys import (
    KeyHome,
    check_key_note,
    check_origin,
    parse_key_note,
)
from holdfast.audit.note import SigningKey, VerifierKey
from holdfast.audit.storage import LocalDirectory
from holdfast.core.errors import BadInput, KeyMissing
from holdfast.testing.storage import SimulatedStorage

LOG_ID = "0123456789abcdef" * 2
OTHER_ID = "fedcba9876543210" * 2


@pytest.fixture
def keys(tmp_path):
    return KeyHome(tmp_path / "home", random_bytes=Random(1).randbytes).log(LOG_ID)


def test_asking_makes_nothing(keys):
    """A log without keys has none, and being asked for them leaves no folder behind."""
    assert (keys.current(), keys.upcoming(), keys.pins(), keys.high_water()) == (None, None, [], None)
    assert not keys.path.exists()


def test_keys_are_the_owners_alone(keys):
    """Folders have mode 0700 and files 0600; a file says which log, origin and epoch it is for."""
    keys.prepare("holdfast", 1)
    for folder in (keys.path, keys.path.parent, keys.path.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((keys.path / "key.next").stat().st_mode) == 0o600
    kept = json.loads((keys.path / "key.next").read_bytes())
    assert (kept["log_id"], kept["origin"], kept["epoch"]) == (LOG_ID, "holdfast", 1)


def test_promotion_overwrites_the_old_key_before_its_name_goes(keys, monkeypatch):
    """The old seed is zeros, synced, by the time the new file takes its name; then the new key is in force."""
    first = keys.prepare("holdfast", 1)
    keys.promote()
    second = keys.prepare("holdfast", 2)
    seen: list[bytes] = []
    real = type(keys._folder()).rename

    def rename(folder, old, new):
        seen.append((keys.path / "key").read_bytes())
        real(folder, old, new)

    monkeypatch.setattr(type(keys._folder()), "rename", rename)
    assert keys.current() == first
    keys.promote()
    assert set(seen[0]) == {0}
    assert (keys.current(), keys.upcoming()) == (second, None)


def test_a_change_of_keys_that_a_power_cut_interrupts_leaves_one_of_them():
    """Whichever states the disk may be in while a key changes, the old or the new one is whole."""
    disk, random = SimulatedStorage(), Random(2)
    home = KeyHome("/keys", disk, random_bytes=random.randbytes)
    first = home.log(LOG_ID).prepare("holdfast", 1)
    home.log(LOG_ID).promote()
    second = home.log(LOG_ID).prepare("holdfast", 2)
    states = []
    disk.on_call = lambda *_: states.extend(disk.after_power_cut(random) for _ in range(20))
    home.log(LOG_ID).promote()
    disk.on_call = None
    assert len(states) > 50
    for state in [*states, disk.after_power_cut(random)]:
        found = KeyHome("/keys", state).log(LOG_ID)
        assert found.current() in {first, second, None}
        assert found.current() == second or found.upcoming() == second


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 130, b"{}", b'{"log_id":"x","origin":"o","epoch":1,"seed":"AAAA"}', b"\xff\xfe"],
)
def test_a_key_file_that_is_not_whole_is_no_key(keys, content):
    """A torn, erased or foreign key file counts as none, and making a key anew replaces it."""
    keys.prepare("holdfast", 1)
    (keys.path / "key.next").write_bytes(content)
    assert keys.upcoming() is None
    assert keys.prepare("holdfast", 1) == keys.upcoming()


def test_a_key_that_may_not_be_read_is_not_taken_for_a_lost_one(keys, monkeypatch):
    """Somebody else's key file is refused by name; it is no reason to begin a new chain silently."""
    keys.prepare("holdfast", 1)

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalDirectory, "open", refuse)
    with pytest.raises(KeyMissing, match="'key' may not be read by this user"):
        keys.current()


def test_the_key_of_another_log_is_no_key(keys, tmp_path):
    """A key file that was copied from another log's folder is not taken."""
    other = KeyHome(tmp_path / "home").log(OTHER_ID)
    other.prepare("holdfast", 1)
    other.promote()
    keys.prepare("holdfast", 1)
    keys.promote()
    (keys.path / "key").write_bytes((other.path / "key").read_bytes())
    assert keys.current() is None


def test_pins_are_kept_once_each(keys):
    """A pin is durable, is not doubled, and is refused for another log's key."""
    mine = SigningKey(f"holdfast/{LOG_ID}", bytes(32)).vkey
    assert keys.pin(mine)
    assert not keys.pin(mine)
    assert keys.pins() == [mine]
    with pytest.raises(BadInput, match=f"is not one of log {LOG_ID}"):
        keys.pin(SigningKey(f"holdfast/{OTHER_ID}", bytes(32)).vkey)


def test_a_pin_that_is_no_key_is_named_by_its_line(keys):
    """A line in the pin file that is no verifier key is refused with file and line."""
    keys.pin(SigningKey(f"holdfast/{LOG_ID}", bytes(32)).vkey)
    with (keys.path / "pin").open("a") as file:
        file.write("\nnonsense\n")
    with pytest.raises(BadInput, match=r"pin' line 3: not a verifier key: 'nonsense'"):
        keys.pins()


def test_key_note_says_who_and_is_signed_by_the_key_before(keys):
    """The note of a KEY record names origin, log, epoch and key, and is signed by the previous epoch's key."""
    first = keys.prepare("holdfast", 1)
    keys.promote()
    second = keys.prepare("holdfast", 2)
    said = check_key_note(second.details("rotation", first), first.signer.vkey)
    assert said == (("holdfast", LOG_ID, 2, second.signer.vkey))
    assert check_key_note(first.details("first", None), None).epoch == 1
    with pytest.raises(BadInput, match="signed by unknown keys only"):
        check_key_note(second.details("replacement", None), first.signer.vkey)
    changed = second.details("rotation", first)
    changed.epoch = 3
    with pytest.raises(BadInput, match="disagree"):
        check_key_note(changed, first.signer.vkey)


@pytest.mark.parametrize("epoch", ["0", "01", "-1", "1 ", "٣", "9" * 5000, ""])
def test_key_note_with_a_bad_epoch_is_refused(keys, epoch):
    """An epoch that is not written as a plain number from 1 is refused, however long it is."""
    key = keys.prepare("holdfast", 1)
    note = key.details("first", None).note.replace("\n1\n", f"\n{epoch}\n")
    with pytest.raises(BadInput):
        parse_key_note(note)


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb", "a\u00a0b", "x" * 65])
def test_origin_that_no_key_may_bear_is_refused(origin):
    """The first part of a log's name has no space, plus sign or control character, and is not endless."""
    with pytest.raises(BadInput, match="origin"):
        check_origin(origin)


@pytest.mark.parametrize("log_id", ["", "ABCDEF0123456789" * 2, "../../../etc", "0" * 31])
def test_log_id_that_is_none_opens_no_folder(tmp_path, log_id):
    """Only 32 lower-case hexadecimal digits name a folder of keys."""
    with pytest.raises(BadInput, match="not a log id"):
        KeyHome(tmp_path).log(log_id)


def test_seed_is_never_shown(keys):
    """Neither the key nor its refusal shows the secret."""
    key = keys.prepare("holdfast", 1)
    assert key.signer.seed.hex() not in repr(key)
    assert isinstance(key.signer.vkey, VerifierKey)
