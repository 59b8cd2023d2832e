"""`audit erase` and `audit reveal`, as a person types them."""

import io
import json

import pytest

from holdfast.audit.query import read_records
from holdfast.cli.main import main

NOTE = '{"type":"NOTE","user":"desk-1","details":{"text":"hello","email":"a@example.org"}}\n'


@pytest.fixture
def log(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holdfast.toml").write_text('[audit]\npersonal_fields = ["email"]\n')
    source = tmp_path / "notes.jsonl"
    source.write_text(NOTE * 2)
    with source.open() as stdin:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stdin.buffer))
        assert main(["audit", "append", "log"]) == 0
    capsys.readouterr()
    return tmp_path / "log"


def notes(log):
    return [record for record in read_records(log) if record.type == "NOTE"]


def test_personal_fields_of_the_configuration_are_hidden_and_revealed(log, capsys):
    """What the configuration names is ciphertext in the log; `reveal` shows it to the owner of the keys."""
    assert b"example.org" not in b"".join(path.read_bytes() for path in log.glob("*.log"))
    assert main(["audit", "reveal", "log", str(notes(log)[0].seq)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["details"] == {"text": "hello", "email": "a@example.org"}


def test_an_erased_person_stays_proven_and_unreadable(log, capsys):
    """`erase` records itself, `verify` stays content, `reveal` says why it shows nothing."""
    first = notes(log)[0].seq
    assert main(["audit", "erase", "log", "--subject", "desk-1", "--reason", "ticket 311"]) == 0
    assert "erased: key" in capsys.readouterr().out
    (record,) = [one for one in read_records(log) if one.type == "ERASURE"]
    assert (record.details["subject"], record.details["reason"]) == ("desk-1", "ticket 311")
    assert main(["audit", "verify", "log"]) == 0
    assert main(["audit", "reveal", "log", str(first)]) == 1
    assert "erased" in capsys.readouterr().err
    assert main(["audit", "erase", "log", "--subject", "desk-1", "--reason", "again"]) == 1
    assert "hint: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["erase", "none", "--subject", "desk-1", "--reason", "x"], ["reveal", "log", "99"]]
)
def test_what_is_not_there_is_named(log, words, capsys):
    """No log, or no such record: exit code 1, and nothing is made."""
    assert main(["audit", *words]) == 1
    assert capsys.readouterr().err.startswith("holdfast: no ")
    assert not (log.parent / "none").exists()
