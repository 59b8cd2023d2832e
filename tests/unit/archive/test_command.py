"""`holdfast audit archive | restore | prune`: what they print and how they end."""

from __future__ import annotations

import json
import sys

import pytest
from support.s3 import Fault, FaultProxy

from holdfast.archive.store import Bucket
from holdfast.audit.keys import KeyHome
from holdfast.audit.query import query
from holdfast.audit.verify import verify
from holdfast.audit.wal import WriteAheadLog
from holdfast.cli.main import main
from holdfast.core.clock import SystemClock

pytestmark = pytest.mark.contract("A19")


@pytest.fixture
def url(store, small, monkeypatch):
    """An address in a bucket with object lock, reached by the variables that every S3 tool reads."""
    for name, value in store.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOLDFAST_HOME", str(small.home))
    return f"s3://{store.make()}/desk"


def _run(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["audit", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_archive_restore_and_prune_say_what_they_did(small, url, tmp_path, capsys):
    """Each verb ends with 0 and prints JSON that a program can read; progress goes beside it."""
    code, out, err = _run(capsys, "archive", small.log, url, "--json")
    said = json.loads(out)
    assert (code, said["closed"], said["segments"]) == (0, True, 1)
    assert "archived and read back" in err
    code, out, _ = _run(capsys, "restore", url, tmp_path / "back", "--json")
    said = json.loads(out)
    assert (code, said["whole"], said["last_seq"]) == (0, True, 26)
    assert said["signed_by"].startswith("holdfast/")
    code, out, _ = _run(capsys, "prune", small.log, url, "--older-than", "1d", "--json")
    assert (code, json.loads(out)["pruned"]) == (0, [])


def test_a_traders_log_is_pruned_only_when_it_is_retired(small, url, capsys):
    """A trader needs its first record at every start, so prune asks whether one will start again."""
    with WriteAheadLog(small.log, clock=SystemClock(), keys=KeyHome(small.home)) as log:
        log.append("SESSION_OPEN", {"session": "2026-11-20"}, component="trader")
    for words in (
        ("prune", small.log, url, "--older-than", "1d"),
        ("archive", small.log, url, "--remove-local"),
    ):
        code, _, err = _run(capsys, *words)
        assert (code, "a trader's log" in err, "--retired" in err) == (1, True, True)
    assert _run(capsys, "prune", small.log, url, "--older-than", "1d", "--retired")[0] == 0


def test_legal_hold_is_set_everywhere_and_recorded(small, url, store, capsys):
    """A legal hold is on every copy afterwards, and a record of the log says why, and when it was released."""
    code, _, _ = _run(capsys, "archive", small.log, url, "--legal-hold", "on", "--reason", "case 4711")
    assert code == 0
    bucket = store.bucket(url)
    names = [name for name in bucket.sizes() if not name.startswith("selftest/")]
    assert all(bucket.lock_of(name).legal_hold for name in names)
    [record] = query(small.log, event_type="LEGAL_HOLD")
    assert record.details == {"archive": url, "hold": True, "objects": len(names), "reason": "case 4711"}
    code, _, err = _run(capsys, "archive", small.log, url, "--legal-hold", "off")
    assert code == 0, err
    assert not any(bucket.lock_of(name).legal_hold for name in names)
    assert [one.details["hold"] for one in query(small.log, event_type="LEGAL_HOLD")] == [True, False]
    assert verify(small.log).ok


def test_legal_hold_beside_a_writer_is_set_and_said_not_to_be_recorded(small, url, capsys):
    """Where another process writes the log, the hold is set all the same, and it is said that no record tells of it."""
    writer = WriteAheadLog(small.log, clock=SystemClock(), keys=KeyHome(small.home))
    writer.append("NOTE", {"n": 1})
    code, out, err = _run(capsys, "archive", small.log, url, "--legal-hold", "on")
    writer.close()
    assert code == 0
    assert "recorded: no" in out
    assert "set but not recorded" in err
    assert not query(small.log, event_type="LEGAL_HOLD")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("archive", "LOG", "s3://no-such-bucket/desk"), 1, "there is no such bucket"),
        (("archive", "LOG", "ftp://x"), 1, "expected s3://BUCKET/PREFIX"),
        (("archive", "NONE", "URL"), 1, "no audit log"),
        (("archive", "LOG", "URL", "--retain", "7"), 1, "retention '7' refused"),
        (("archive", "LOG", "URL", "--older-than", "1d"), 1, "--remove-local"),
        (("archive", "LOG", "URL", "--no-lock", "--governance"), 2, "not allowed with"),
        (("archive", "LOG", "URL", "--endpoint", "http://127.0.0.1:1"), 5, "no usable answer"),
        (("restore", "URL", "NEW"), 1, "there is no archive"),
        (("restore", "URL", "LOG"), 1, "exists"),
        (("restore", "URL", "NEW", "--key", "nonsense"), 1, "nonsense"),
        (("prune", "LOG", "URL"), 2, "--older-than"),
    ],
)  # fmt: skip
def test_refusals_end_with_their_code(small, url, tmp_path, capsys, monkeypatch, arguments, code, says):  # noqa: PLR0917  fixtures
    """A user's error is 1, wrong usage 2, a store out of reach 5, each with a sentence."""
    names = {"LOG": small.log, "NONE": tmp_path / "none", "NEW": tmp_path / "new", "URL": url}
    monkeypatch.setitem(Bucket.__init__.__kwdefaults__, "retries", 0)
    ended, out, err = _run(capsys, *(names.get(one, one) for one in arguments))
    assert (ended, out) == (code, "")
    assert says in err


def test_damage_ends_with_3(small, url, store, tmp_path, capsys):
    """A damaged local segment and a damaged copy end with 3 and name what is damaged."""
    with FaultProxy(store) as proxy:
        code, _, err = _run(capsys, "archive", small.log, url)
        assert code == 0, err
        proxy.faults.append(Fault("flip", "GET", ".idx"))
        code, _, err = _run(capsys, "restore", url, tmp_path / "back", "--endpoint", proxy.endpoint)
    assert code == 3
    assert ".idx' is not what its manifest says" in err
    assert not (tmp_path / "back").exists()


def test_held_log_ends_with_4(desk, store, monkeypatch, capsys):
    """A prune beside a writer ends with 4, names its process, and removes nothing."""
    for name, value in store.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOLDFAST_HOME", str(desk.home))
    url = f"s3://{store.make()}/desk"
    code, _, err = _run(capsys, "archive", desk.log, url)
    assert code == 0, err
    writer = WriteAheadLog(desk.log, clock=SystemClock(), keys=KeyHome(desk.home))
    writer.append("NOTE", {"n": 1})
    code, _, err = _run(capsys, "prune", desk.log, url, "--older-than", "1d")
    writer.close()
    assert code == 4
    assert "held" in err
    assert len(list(desk.log.glob("*.pruned"))) == 0


def test_missing_extra_is_named(small, url, monkeypatch, capsys):
    """Without obstore the command says what to install."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    code, _, err = _run(capsys, "archive", small.log, url)
    assert code == 1
    assert "pip install -e '.[archive]'" in err
