"""`holdfast audit anchor` and `audit witness` from the command line."""

import json
import signal
import subprocess
import sys

import pytest
from support.anchor_servers import answering, closed_port
from support.anchors import MemoryLog

from holdfast.audit.keys import KeyHome
from holdfast.audit.wal import WriteAheadLog
from holdfast.cli.main import main
from holdfast.core.clock import ManualClock

COMMAND = [sys.executable, "-m", "holdfast", "audit", "anchor"]


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), keys=KeyHome(tmp_path / "home")) as log:
        log.append("NOTE", {"n": 1})
    (tmp_path / "volume").mkdir(mode=0o700)
    return str(tmp_path / "log")


def witness_sink(url):
    from holdfast.audit.note import COSIGNATURE_ED25519, SigningKey

    return f"witness:{url} {SigningKey('w', b'w' * 32, COSIGNATURE_ED25519).vkey}"


def test_one_line_for_each_sink(log, capsys):
    """Each sink's outcome, size and reason is printed on a line of its own; the worst one is the exit code."""
    nowhere = f"http://127.0.0.1:{closed_port()}"
    code = main(["audit", "anchor", log, "--sink", "file:volume", "--sink", witness_sink(nowhere)])
    first, second = capsys.readouterr().out.splitlines()
    assert code == 5
    assert first.startswith("file:volume: anchored, 3 records (kept in ")
    assert second.startswith(f"witness:{nowhere}: unknown, 3 records (")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((404, "text/plain", b"who?\n"), 4),
        ((500, "text/plain", b""), 5),
        ((409, "text/x.tlog.size", b"99\n"), 3),
        ((200, "text/plain", b""), 5),
    ],
)
def test_the_exit_code_says_what_is_to_be_done(log, capsys, answer, code):
    """A refusal exits 4, no usable answer 5, a log that went back 3; as JSON the outcome has its name."""
    with answering(lambda path, body: answer) as url:
        assert main(["audit", "anchor", log, "--json", "--sink", witness_sink(url)]) == code
    said = json.loads(capsys.readouterr().out)
    assert said["outcome"] == {3: "went back", 4: "refused", 5: "unknown"}[code]
    assert said["known_size"] == (99 if code == 3 else 0)


def test_the_configured_sinks_are_the_default(log, tmp_path, capsys):
    """[anchors] names the sinks; without any the hint shows how."""
    assert main(["audit", "anchor", log]) == 1
    assert "[anchors] sinks" in capsys.readouterr().err
    (tmp_path / "holdfast.toml").write_text('[anchors]\nsinks = ["file:volume"]\n')
    assert main(["audit", "anchor", log]) == 0
    assert list((tmp_path / "volume").iterdir())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--sink", "tape:/mnt"], "no known kind"),
        (["--sink", "witness:http://w"], "not complete"),
        (["--sink", "witness:http://w rubbish"], "not a verifier key"),
    ],
)
def test_a_sink_that_is_none_is_named(log, capsys, words, named):
    """A wrong sink is a user error with a hint, and nothing is submitted to the others."""
    assert main(["audit", "anchor", log, "--sink", "file:volume", *words]) == 1
    said = capsys.readouterr()
    assert named in said.err
    assert "hint: " in said.err
    assert said.out == ""


def test_a_log_that_is_none_is_named(log, capsys, tmp_path):
    """A missing directory and a log without a checkpoint exit 1."""
    assert main(["audit", "anchor", "missing", "--sink", "file:volume"]) == 1
    assert "no audit log" in capsys.readouterr().err
    with WriteAheadLog(tmp_path / "unsigned", clock=ManualClock()) as unsigned:
        unsigned.append("NOTE", {})
    assert main(["audit", "anchor", "unsigned", "--sink", "file:volume"]) == 1
    assert "no checkpoint" in capsys.readouterr().err


def test_following_ends_with_ctrl_c(log, tmp_path):
    """`--follow` submits at once, goes on, and ends with exit 0 and nothing on stderr."""
    child = subprocess.Popen(
        [*COMMAND, log, "--follow", "--every", "0.05", "--sink", "file:volume"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "anchored, 3 records" in child.stdout.readline()
    with WriteAheadLog(log, clock=ManualClock(), keys=KeyHome(tmp_path / "home")) as writer:
        writer.append("NOTE", {"n": 2})
    assert "anchored, " in child.stdout.readline()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (0, "")
    assert all("anchored" in line for line in out.splitlines())


def test_following_ends_when_the_log_went_back(log, capsys):
    """A sink that remembers more than the log holds ends `--follow` with exit 3, by itself."""
    with answering(lambda path, body: (409, "text/x.tlog.size", b"99\n")) as url:
        assert main(["audit", "anchor", log, "--follow", "--sink", witness_sink(url)]) == 3
    assert "went back" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--log", "rubbish"], "not a verifier key"),
        (["--port", "70000"], "outside 0 to 65535"),
        (["--host", "192.0.2.1"], "not a loopback address"),
        (["--name", "a+b"], "a plus sign"),
    ],
)
def test_a_witness_that_cannot_start_says_why(tmp_path, capsys, words, named):
    """A wrong key, port, address or name exits 1 with its reason."""
    assert main(["audit", "witness", "--dir", str(tmp_path / "w"), *words]) == 1
    assert named in capsys.readouterr().err


def test_a_cosigner_is_not_pinned_as_a_log(tmp_path, capsys):
    """A witness's own key after --log exits 1."""
    key = witness_sink("http://w").split(" ")[1]
    assert main(["audit", "witness", "--dir", str(tmp_path / "w"), "--log", key]) == 1
    assert "cosigner" in capsys.readouterr().err
    assert MemoryLog().vkey.name not in key
