"""`holdfast audit verify`: what it is given, what it says, and with which exit code."""

from __future__ import annotations

import json
import shutil

import pytest
from support.forge import Forger, KeyThief, signed_log

from holdfast.audit.verify import verify
from holdfast.cli.audit.vouching import Progress
from holdfast.cli.main import main


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    thief = KeyThief(root / "keys")
    signed_log(root / "log", thief.home, (3, 3))
    return root


@pytest.fixture
def scene(original, tmp_path, monkeypatch):
    shutil.copytree(original / "log", tmp_path / "log")
    (tmp_path / "log").chmod(0o700)
    shutil.copytree(original / "keys", tmp_path / "keys")
    for folder in (tmp_path / "keys").rglob("*"):
        folder.chmod(0o700 if folder.is_dir() else 0o600)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "keys"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def vkey(scene):
    log_id = verify(scene / "log").log_id
    return (scene / "keys" / "logs" / log_id / "pin").read_text().strip()


def test_pins_and_high_water_mark_of_the_configuration_are_looked_at(scene, capsys):
    """Where the log was written, it is anchored without another word."""
    assert main(["audit", "verify", "log"]) == 0
    out = capsys.readouterr().out
    assert "intact" in out
    assert "anchored: 1 to" in out
    assert "not known" not in out


def test_without_pin_and_anchor_it_says_what_cannot_be_known(scene, capsys, monkeypatch):
    """A log verified by a stranger is intact, and nothing more."""
    monkeypatch.setenv("HOLDFAST_HOME", str(scene / "nowhere"))
    assert main(["audit", "verify", "log"]) == 0
    out = capsys.readouterr().out
    assert "signed by an unknown key: 1 to" in out
    assert out.count("not known: ") == 2


@pytest.mark.parametrize("as_file", [False, True])
def test_a_named_key_counts(scene, capsys, monkeypatch, as_file):
    """A key on the command line, or in a file, is what the log is held against."""
    key = vkey(scene)
    monkeypatch.setenv("HOLDFAST_HOME", str(scene / "nowhere"))
    (scene / "log.pub").write_text(key + "\n")
    assert main(["audit", "verify", "log", "--json", "--key", "log.pub" if as_file else key]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["signed_to"] == report["total_entries"]
    assert report["anchored_to"] == 0


def test_a_key_of_another_log_is_a_mistake(scene, capsys):
    """It says nothing about this one, so it is refused before anything is verified."""
    other = KeyThief(scene / "other")
    signed_log(scene / "second", other.home, (1,))
    key = str(other.home.log(verify(scene / "second").log_id).pins()[0])
    assert main(["audit", "verify", "log", "--key", key]) == 1
    assert "none of these logs" in capsys.readouterr().err


def test_a_saved_checkpoint_is_an_anchor(scene, capsys, monkeypatch):
    """A log that was rewritten, or cut back, disagrees with a checkpoint that was kept."""
    shutil.copy(scene / "log" / "checkpoint", scene / "kept.note")
    monkeypatch.setenv("HOLDFAST_HOME", str(scene / "nowhere"))
    assert main(["audit", "verify", "log", "--anchor", "kept.note"]) == 0
    assert "anchored: 1 to" in capsys.readouterr().out
    forger = Forger(scene / "log")
    forger.edit(4, lambda details: details.update(text="qty 0"))
    forger.write()
    assert main(["audit", "verify", "log", "--anchor", "kept.note"]) == 3
    out = capsys.readouterr().out
    assert "DAMAGED" in out
    assert "first bad: sequence" in out
    assert "the roots differ" in out


def test_several_logs_each_have_their_own_vouchers(scene, capsys, monkeypatch):
    """Keys and anchors go to the log that they are of."""
    other = KeyThief(scene / "other")
    signed_log(scene / "second", other.home, (1,))
    keys = [vkey(scene), str(other.home.log(verify(scene / "second").log_id).pins()[0])]
    monkeypatch.setenv("HOLDFAST_HOME", str(scene / "nowhere"))
    named = [word for key in keys for word in ("--key", key)]
    anchors = ["--anchor", "log/checkpoint", "--anchor", "second/checkpoint"]
    assert main(["audit", "verify", "log", "second", "--json", *named, *anchors]) == 0
    for line in capsys.readouterr().out.splitlines():
        report = json.loads(line)
        assert report["anchored_to"] == report["signed_to"] == report["total_entries"]


def test_progress_is_one_line_on_a_terminal_and_nothing_elsewhere(scene, capsys, monkeypatch):
    """stdout stays what a program expects; stderr tells a person how far it is."""
    moments = iter([0.0, 0.1, 1.0, 2.0, 3.0])
    monkeypatch.setattr("holdfast.cli.audit.vouching.time.monotonic", lambda: next(moments))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(scene / "log")
    progress(100)
    progress(200)
    progress.clear()
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("log: ") == 1
    assert " % of " in told.err
    assert told.err.endswith("\r\x1b[K")
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    silent = Progress(scene / "log")
    silent(100)
    silent.clear()
    assert capsys.readouterr().err == ""
