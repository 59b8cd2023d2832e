"""`holdfast audit keys` and `holdfast audit checkpoint`, as somebody types them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from support.signed import SignedLog

from holdfast.audit.keys import KeyHome
from holdfast.audit.note import SigningKey
from holdfast.audit.wal import WriteAheadLog
from holdfast.cli.main import main
from holdfast.core.clock import ManualClock


@pytest.fixture
def home(tmp_path):
    return tmp_path / "audit"


@pytest.fixture
def run(capsys):
    def command(*words, code: int = 0):
        assert main(["audit", *map(str, words)]) == code, capsys.readouterr().err
        return capsys.readouterr()

    return command


def shown(run, home) -> dict:
    return json.loads(run("keys", "show", home, "--json").out)


def folder(home_of_keys: dict) -> Path:
    return Path(home_of_keys["keys"])


def append(home: Path, count: int = 1) -> None:
    with WriteAheadLog(
        home, clock=ManualClock(), seal=False, keys=KeyHome(Path(os.environ["HOLDFAST_HOME"]))
    ) as log:
        for n in range(count):
            log.append("NOTE", {"n": n})


def read(home: Path) -> SignedLog:
    return SignedLog({path.name: path.read_bytes() for path in home.iterdir() if path.is_file()})


def test_init_makes_log_key_and_pin_and_says_where(run, home):
    """A new log has an id, a first key that is pinned, and a checkpoint; where they are stands on stderr."""
    said = run("keys", "init", home)
    facts = shown(run, home)
    assert (facts["epoch"], facts["private_key_here"], facts["pins"]) == (1, True, [facts["vkey"]])
    assert facts["vkey"] in said.out
    assert facts["log_id"] in said.err
    assert facts["keys"] == f"{os.environ['HOLDFAST_HOME']}/logs/{facts['log_id']}"
    assert read(home).types() == ["SEGMENT", "KEY"]
    assert run("keys", "init", home).err == ""
    assert read(home).types() == ["SEGMENT", "KEY"], "a log that is signed is left as it is"


def test_rotate_lets_a_new_key_sign(run, home):
    """`rotate` begins a segment under the next epoch's key; with nothing to cover it says so and exits 1."""
    run("keys", "init", home)
    assert "has signed no record yet" in run("keys", "rotate", home, code=1).err
    append(home)
    before = shown(run, home)
    run("keys", "rotate", home)
    after = shown(run, home)
    assert (after["epoch"], after["private_key_here"]) == (2, True)
    assert after["vkey"] != before["vkey"]
    assert after["pins"] == before["pins"] == [before["vkey"]]


def test_show_of_an_unsigned_log_says_so(run, home):
    """A log that was never signed is shown as that; nothing is made."""
    with WriteAheadLog(home, clock=ManualClock(), seal=False) as log:
        log.append("NOTE", {})
    assert "the log is not signed" in run("keys", "show", home).out
    assert not Path(os.environ["HOLDFAST_HOME"]).exists()


def test_lost_key_has_a_way_back(run, home):
    """Without its private key a log is refused by name; `init --replace` begins a new chain, once."""
    append(home)
    facts = shown(run, home)
    (folder(facts) / "key").unlink()
    assert "NOT here" in run("keys", "show", home).out
    refused = run("checkpoint", home, code=4)
    assert "the private key of epoch 1 is not here" in refused.err
    assert "keys init DIR --replace" in refused.err
    run("keys", "init", home, "--replace")
    after = shown(run, home)
    assert (after["epoch"], after["private_key_here"], len(after["pins"])) == (2, True, 2)
    assert "nothing to replace" in run("keys", "init", home, "--replace", code=1).err


def test_pin_adds_a_key_of_this_log_only(run, home):
    """A verifier key of this log is pinned once; nonsense and another log's key are refused."""
    append(home)
    facts = shown(run, home)
    other = SigningKey(f"holdfast/{facts['log_id']}", bytes(32)).vkey
    assert run("keys", "pin", home, other).out.startswith("pinned: ")
    assert run("keys", "pin", home, other).out.startswith("was pinned already")
    assert shown(run, home)["pins"] == [facts["vkey"], str(other)]
    assert "not a verifier key" in run("keys", "pin", home, "nonsense", code=1).err
    foreign = SigningKey("holdfast/" + "0" * 32, bytes(32)).vkey
    assert f"is not one of log {facts['log_id']}" in run("keys", "pin", home, foreign, code=1).err


@pytest.mark.parametrize("words", [["keys", "show"], ["keys", "rotate"], ["checkpoint"]])
def test_missing_log_is_a_user_error_and_is_not_made(run, home, words):
    """A directory that is not there is named and not made."""
    assert "no audit log at" in run(*words, home, code=1).err
    assert not home.exists()


def test_checkpoint_prints_the_note_over_everything(run, home):
    """What is printed is the newest note of the history, over all records; with --json taken apart."""
    append(home, 5)
    note = run("checkpoint", home).out
    found = read(home)
    assert found.note(note.encode()).size == len(found.records) == 7
    assert found.checkpoints()[-1].note.decode() == note
    assert (home / "tile" / "0" / "000.p" / "7").exists()
    said = json.loads(run("checkpoint", home, "--json").out)
    assert (said["size"], said["note"]) == (7, note)


def test_checkpoint_beside_a_writer_prints_its_newest(run, home):
    """While another log object writes, its newest published checkpoint is printed, and that is said."""
    with WriteAheadLog(
        home, clock=ManualClock(), seal=False, keys=KeyHome(Path(os.environ["HOLDFAST_HOME"]))
    ) as log:
        log.append("NOTE", {})
        note = log.checkpoint()
        said = run("checkpoint", home)
        assert said.out.encode() == note
        assert "this is its newest" in said.err


def test_log_that_went_back_ends_commands_with_3(run, home, tmp_path):
    """`recover` and `checkpoint` refuse an older copy of the log with exit 3, and change nothing."""
    append(home)
    shutil.copytree(home, tmp_path / "old")
    append(home)
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "old", home)
    before = read(home).files
    for verb in ("recover", "checkpoint"):
        assert "says the high-water mark" in run(verb, home, code=3).err
    assert read(home).files == before
