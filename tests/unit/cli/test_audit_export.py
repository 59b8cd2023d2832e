"""`audit export` and `audit check-export`, as a person types them."""

import csv
import io
import json

import pytest

from holdfast.cli.main import main


@pytest.fixture
def log(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    notes = tmp_path / "notes.jsonl"
    notes.write_text(
        "".join(f'{{"type":"NOTE","user":"u{n % 2}","details":{{"n":{n}}}}}\n' for n in range(10))
    )
    with notes.open() as stdin:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stdin.buffer))
        assert main(["audit", "append", "log"]) == 0
    capsys.readouterr()
    return tmp_path


def test_a_search_is_exported_proven_and_checked_with_the_pinned_key(log, capsys):
    """CSV with proofs holds the rows that the search finds, and the check follows the log's own key."""
    words = ["audit", "export", "log", "--type", "NOTE", "--user", "u1", "--out", "out.csv", "--proofs"]
    assert main(words) == 0
    assert "5 rows" in capsys.readouterr().out
    with (log / "out.csv").open(newline="") as text:
        assert [json.loads(row["details"])["n"] for row in csv.DictReader(text)] == [1, 3, 5, 7, 9]
    manifest = json.loads((log / "out.csv.manifest.json").read_text())
    assert manifest["query"]["user_id"] == "u1"
    assert manifest["proven_rows"] == manifest["rows"] == 5
    assert main(["audit", "keys", "show", "log", "--json"]) == 0
    shown = capsys.readouterr().out
    (log / "log.vkey").write_text(next(word for word in shown.split('"') if "+" in word) + "\n")
    assert main(["audit", "check-export", "out.csv.manifest.json", "--key", "log.vkey"]) == 0
    assert "holds, 5 rows, 5 proven" in capsys.readouterr().out
    (log / "out.csv").write_text((log / "out.csv").read_text().replace("u1", "u2", 1))
    assert main(["audit", "check-export", "out.csv.manifest.json"]) == 3
    assert "SHA-256" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["log", "--out", "out.xls"], "does not tell its format"),
        (["none", "--out", "out.csv"], "no audit log"),
        (["log", "--out", "none/out.csv"], "no directory"),
        (["log", "--out", "out.csv", "--from", "yesterday"], "--from"),
    ],
)
def test_what_cannot_be_exported_is_named(log, words, says, capsys):
    """A format nobody knows, no log, no folder, no time: exit code 1, a hint, and no file."""
    assert main(["audit", "export", *words]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert "hint: " in said
    assert not list(log.glob("out*"))


def test_a_manifest_that_is_none_is_named(log, capsys):
    """Whatever lies there, the check says that it is no manifest."""
    (log / "x.manifest.json").write_bytes(b"\xff\x00")
    assert main(["audit", "check-export", "x.manifest.json"]) == 1
    assert "no manifest" in capsys.readouterr().err
    assert main(["audit", "check-export", "gone.manifest.json"]) == 1


def test_a_check_follows_the_keys_that_are_pinned_here(log, capsys):
    """Without --key the pins of this machine count, and the signature is said to be theirs."""
    assert main(["audit", "export", "log", "--type", "NOTE", "--out", "out.csv", "--proofs"]) == 0
    capsys.readouterr()
    assert main(["audit", "check-export", "out.csv.manifest.json"]) == 0
    said = capsys.readouterr()
    assert "signed by holdfast/" in said.out
    assert "was not checked" not in said.err
