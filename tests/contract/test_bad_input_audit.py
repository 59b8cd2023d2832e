"""Bad input to the audit verbs: each mistake is named, has a hint and its exit code, and costs nothing.

What must hold of every refusal is said once, in `refuses`: the exit code of DESIGN section 11, a message that names
the thing, a hint, no traceback, no secret, no control character. After each the log is what it was, byte for byte.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.places import NOBODY, as_nobody, folder_for_everybody

from holdfast.anchors.spec import parse_sink
from holdfast.archive import export as exporting
from holdfast.audit.format import decode_line, encode_details, encode_line
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import SigningKey
from holdfast.audit.query import read_records
from holdfast.audit.seal import Sealer
from holdfast.audit.storage import LocalStorage
from holdfast.audit.verify import verify
from holdfast.audit.wal import WriteAheadLog
from holdfast.cli.audit.vouching import Progress
from holdfast.cli.main import main
from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.errors import (
    EXIT_CANNOT_ACT,
    EXIT_INTEGRITY,
    EXIT_OK,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    EXIT_USER_ERROR,
    BadInput,
)

NOTE = '{"type":"NOTE","user":"desk","details":{"text":"x"}}\n'
NO_STORE = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "akid",
    "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-prints",
    "AWS_REGION": "us-east-1",
}


class Said(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def run(*words: object, stdin: str = "") -> Said:
    """Run `holdfast audit …` in this process; paths that are not UTF-8 are given as bytes."""
    texts = [os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in words]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as given, contextlib.ExitStack() as streams:
        given.write(stdin)
        given.seek(0)
        os.lseek(given.fileno(), 0, os.SEEK_SET)
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
        streams.enter_context(contextlib.redirect_stdout(out))
        streams.enter_context(contextlib.redirect_stderr(err))
        before, sys.stdin = sys.stdin, given
        try:
            code = main(["audit", *texts])
        finally:
            sys.stdin = before
        printed: list[str] = []
        for stream in (out, err):
            stream.flush()
            stream.seek(0)
            printed.append(stream.read())
    return Said(code, *printed)


def refuses(said: Said, code: int, *words: str) -> None:
    """The command ended with *code* and said what, where and what to do, and nothing that it must not say."""
    assert said.code == code, said
    if code == EXIT_USAGE:
        assert ": error: " in said.err, said
    else:
        assert said.err.startswith("holdfast: "), said
        assert "\nhint: " in said.err, said
    assert "internal error" not in said.err, said
    assert "Traceback" not in said.err, said
    everything = said.out + said.err
    assert not [sign for sign in everything if ord(sign) < 32 and sign not in "\n\t"], said
    assert "a-secret-that-nobody-prints" not in everything
    for word in words:
        assert word in said.err, said


def files(root: Path) -> dict[str, bytes]:
    """Every regular file below *root*."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


class Desk(NamedTuple):
    """A log that was closed, its keys, another log, and what was made of it."""

    root: Path

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def other(self) -> Path:
        return self.root / "other"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def proof(self) -> Path:
        return self.root / "proofs" / "000000000003.tlog-proof"

    @property
    def manifest(self) -> Path:
        return self.root / "notes.csv.manifest.json"

    @property
    def keys(self) -> Path:
        """Where the log's keys are."""
        return self.home / "logs" / self.facts()["log_id"]

    def facts(self, log: Path | None = None) -> dict[str, str]:
        return json.loads(run("keys", "show", log or self.log, "--json").out)

    def segment(self) -> Path:
        return next(self.log.glob("audit_*.log"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """What each test gets a copy of."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLDFAST_HOME", str(desk.home))
        for log in (desk.log, desk.other):
            assert run("append", log, stdin=NOTE * 4).code == EXIT_OK
        for log, name in ((desk.log, "own.note"), (desk.other, "other.note")):
            (desk.root / name).write_text(run("checkpoint", log).out, encoding="utf-8")
        assert run("prove", desk.log, 3, "--out", desk.root / "proofs").code == EXIT_OK
        assert run("export", desk.log, "--out", desk.root / "notes.csv", "--proofs").code == EXIT_OK
        (desk.root / "log.vkey").write_text(desk.facts()["vkey"], encoding="utf-8")
    return desk.root


@pytest.fixture
def desk(made, tmp_path, monkeypatch) -> Desk:
    """The log, its keys and its proofs; the working directory and the environment are this test's own."""
    root = tmp_path / "desk"
    shutil.copytree(made, root)
    for folder in (root / "log", root / "other", root / "home"):
        folder.chmod(0o700)
    monkeypatch.setenv("HOLDFAST_HOME", str(root / "home"))
    for name, value in NO_STORE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return Desk(root)


@pytest.fixture(autouse=True)
def no_hanging():
    """A verb that waits for ever is interrupted; the test then fails with its traceback."""
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _too_long(*_: object) -> None:
    raise AssertionError("a verb waits for something that does not come")


# -- directories ----------------------------------------------------------------------------------------------

READING: dict[str, list[object]] = {
    "cat": ["cat", "LOG"],
    "show": ["show", "LOG", 3],
    "query": ["query", "LOG"],
    "query --saved": ["query", "LOG", "--saved", "violations"],
    "replay": ["replay", "LOG"],
    "verify": ["verify", "LOG"],
    "recover": ["recover", "LOG"],
    "checkpoint": ["checkpoint", "LOG"],
    "prove": ["prove", "LOG", 3],
    "export": ["export", "LOG", "--out", "exported.csv"],
    "keys rotate": ["keys", "rotate", "LOG"],
    "keys show": ["keys", "show", "LOG"],
    "anchor": ["anchor", "LOG", "--sink", "file:sink"],
    "archive": ["archive", "LOG", "s3://bucket/desk"],
    "prune": ["prune", "LOG", "s3://bucket/desk", "--older-than", "1d"],
    "erase": ["erase", "LOG", "--subject", "desk", "--reason", "asked"],
    "reveal": ["reveal", "LOG", 3],
}
"""Every verb that needs a log to be there, with LOG for its directory."""

MAKING: dict[str, list[object]] = {"append": ["append", "LOG"], "keys init": ["keys", "init", "LOG"]}
"""Those that make one."""


def put(words: list[object], log: object) -> list[object]:
    return [log if word == "LOG" else word for word in words]


@pytest.fixture
def odd(tmp_path) -> dict[str, Path]:
    """What is given for a log and is none."""
    places = {
        kind: tmp_path / kind for kind in ("missing", "file", "pipe", "link", "loop", "empty", "project")
    }
    places["file"].write_text("x", encoding="ascii")
    os.mkfifo(places["pipe"])
    places["empty"].mkdir(mode=0o755)
    places["link"].symlink_to(places["empty"])
    places["loop"].symlink_to(places["loop"])
    places["project"].mkdir(mode=0o755)
    (places["project"] / "notes.txt").write_text("mine", encoding="ascii")
    (places["project"] / "run").mkdir()
    places["below a file"] = places["file"] / "log"
    places["a device"] = Path("/dev/null")
    return places


@pytest.mark.parametrize("verb", READING)
def test_what_is_no_log_is_refused_and_left_alone(desk, odd, tmp_path, verb):
    """Every verb that needs a log says that there is none, exits 1, and neither makes nor changes anything."""
    before = files(tmp_path)
    for place in odd.values():
        refuses(
            run(*put(READING[verb], place), stdin=NOTE), EXIT_USER_ERROR, "no audit log at", repr(str(place))
        )
    refuses(run(*put(READING[verb], "")), EXIT_USAGE, "no path is named")
    assert files(tmp_path) == before
    assert not list(odd["empty"].iterdir())
    assert odd["project"].stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("verb", MAKING)
def test_no_log_is_begun_where_other_things_are(desk, odd, verb):
    """A log is not begun in a project, behind a link, in a file, below one, or in a shared directory."""
    for kind in ("file", "pipe", "link", "loop", "project", "below a file", "a device"):
        refuses(run(*put(MAKING[verb], odd[kind]), stdin=NOTE), EXIT_USER_ERROR, str(odd[kind]))
    refuses(run(*put(MAKING[verb], ""), stdin=NOTE), EXIT_USAGE, "no path is named")
    assert sorted(path.name for path in odd["project"].iterdir()) == ["notes.txt", "run"]
    assert odd["project"].stat().st_mode & 0o777 == 0o755, "its readers keep their right"
    odd["empty"].chmod(0o1777)
    refuses(run(*put(MAKING[verb], odd["empty"]), stdin=NOTE), EXIT_USER_ERROR, "shared by all users")
    assert not list(odd["empty"].iterdir())
    assert odd["empty"].stat().st_mode & 0o7777 == 0o1777


def test_a_group_is_not_given_what_is_no_log(desk, odd):
    """`append --group` changes no mode in a directory of other things."""
    group = str(os.getgid())
    import grp

    name = grp.getgrgid(int(group)).gr_name
    refuses(run("append", odd["project"], "--group", name, stdin=NOTE), EXIT_USER_ERROR, "other things")
    assert (odd["project"] / "notes.txt").stat().st_mode & 0o777 == 0o644
    refuses(run("append", desk.root / "new", "--group", "no such group", stdin=NOTE), EXIT_USER_ERROR)
    assert not (desk.root / "new").exists()


def test_no_witness_moves_into_a_log(desk):
    """`witness --dir` refuses a directory that holds other things, and leaves it as it is."""
    before = files(desk.log)
    refuses(run("witness", "--dir", desk.log, "--port", 0), EXIT_USER_ERROR, "other things")
    refuses(run("witness", "--dir", ""), EXIT_USAGE, "no path is named")
    assert files(desk.log) == before


def test_a_sink_inside_the_log_is_refused(desk):
    """A file sink in the log's own directory, also behind a link, is refused: it goes where the log goes."""
    (desk.root / "around").symlink_to(desk.log)
    for place in (desk.log, desk.log / "run", desk.root / "around"):
        refuses(run("anchor", desk.log, "--sink", f"file:{place}"), EXIT_USER_ERROR, "lies in the log itself")
    assert run("verify", desk.log).code == EXIT_OK


@pytest.mark.parametrize("verb", [*READING, *MAKING])
def test_a_log_of_a_newer_format_is_not_touched(desk, verb):
    """Every verb refuses a log that a newer program wrote, names the file and the format, and writes nothing."""
    segment = desk.segment()
    first, _, rest = segment.read_bytes().partition(b"\n")
    record = decode_line(first)
    newer = encode_line(
        record.seq, record.synced, record.ts, record.type, record.user, record.component,
        encode_details(record.details | {"format": 2}),
    )  # fmt: skip
    segment.write_bytes(newer.rstrip(b"\n") + b"\n" + rest)
    before = files(desk.log)
    (Path.cwd() / "sink").mkdir()
    said = run(*put({**READING, **MAKING}[verb], desk.log), stdin=NOTE)
    refuses(said, EXIT_USER_ERROR, segment.name, "format 2")
    assert files(desk.log) == before
    assert not list(Path.cwd().glob("exported*"))


def test_a_foreign_file_in_the_log_is_found_by_verify(desk):
    """A file that is no log's is named by `verify`, its odd name spelled out, and hinders no reader."""
    (desk.log / "a\x1b[31m\nb").write_text("x", encoding="ascii")
    os.mkfifo(desk.log / "audit_pipe.log")
    said = run("verify", desk.log)
    assert said.code == EXIT_INTEGRITY
    assert "an unknown file" in said.out
    assert "\x1b" not in said.out
    assert run("cat", desk.log).code == EXIT_OK


# -- as another user ------------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with folder_for_everybody() as folder:
        yield folder


def test_a_folder_of_keys_that_cannot_be_written_begins_no_log(open_folder):
    """`append` and `keys init` without a place for keys end with exit code 1 that names it; nothing is begun."""
    locked, desk = open_folder / "locked", open_folder / "desk"
    locked.mkdir()
    desk.mkdir()
    before = as_nobody()
    if before:
        os.chown(desk, NOBODY, NOBODY)
    else:
        locked.chmod(0o500)
    for name, words in (("a", ["append"]), ("b", ["keys", "init"])):
        done = subprocess.run(
            [*before, sys.executable, "-m", "holdfast", "audit", *words, str(desk / name)],
            input=NOTE, capture_output=True, text=True, timeout=30, check=False, cwd=open_folder,
            env=os.environ | {"HOLDFAST_HOME": str(locked), "HOME": str(desk)},
        )  # fmt: skip
        refuses(
            Said(done.returncode, done.stdout, done.stderr),
            EXIT_USER_ERROR,
            "no keys can be kept",
            str(locked),
        )
        assert not done.stdout
        assert not list((desk / name).iterdir())


# -- keys -----------------------------------------------------------------------------------------------------


def _rewrite(change: Callable[[dict[str, object]], None]) -> Callable[[Path], None]:
    def spoil(key: Path) -> None:
        kept = json.loads(key.read_text(encoding="utf-8"))
        change(kept)
        key.write_text(json.dumps(kept), encoding="utf-8")

    return spoil


def _in_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.unlink()
        make(path)

    return spoil


SPOILED_KEYS: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "missing": (Path.unlink, EXIT_CANNOT_ACT, "is not here"),
    "empty": (lambda key: key.write_bytes(b""), EXIT_CANNOT_ACT, "is not here"),
    "rubbish": (lambda key: key.write_bytes(b"\xff\x00"), EXIT_CANNOT_ACT, "is not here"),
    "cut": (lambda key: key.write_bytes(key.read_bytes()[:60]), EXIT_CANNOT_ACT, "is not here"),
    "short seed": (_rewrite(lambda kept: kept.update(seed="AAAA")), EXIT_CANNOT_ACT, "is not here"),
    "other epoch": (_rewrite(lambda kept: kept.update(epoch=7)), EXIT_CANNOT_ACT, "another one"),
    "other log": (_rewrite(lambda kept: kept.update(log_id="0" * 32)), EXIT_CANNOT_ACT, "is not here"),
    "gigantic": (lambda key: os.truncate(key, 1 << 40), EXIT_CANNOT_ACT, "is not here"),
    "group-readable": (lambda key: key.chmod(0o640), EXIT_CANNOT_ACT, "others may read it (mode=0640)"),
    "world-readable": (lambda key: key.chmod(0o604), EXIT_CANNOT_ACT, "others may read it (mode=0604)"),
    "a directory": (_in_place(Path.mkdir), EXIT_USER_ERROR, "not a regular file"),
    "a pipe": (_in_place(os.mkfifo), EXIT_USER_ERROR, "not a regular file"),
    "a link": (_in_place(lambda key: key.symlink_to("/etc/passwd")), EXIT_USER_ERROR, "symbolic links"),
}


@pytest.mark.parametrize("spoiled", SPOILED_KEYS)
def test_a_private_key_that_does_not_serve_is_named_and_nothing_is_written(desk, spoiled):
    """Each wrong private key keeps every writing verb from writing; reading and checking go on; no secret is shown."""
    seed = json.loads((desk.keys / "key").read_text(encoding="utf-8"))["seed"]
    kept, before = desk.keys, files(desk.log)
    place = kept / "key"
    spoil, code, word = SPOILED_KEYS[spoiled]
    spoil(place)
    for words in (["append"], ["checkpoint"], ["keys", "rotate"], ["recover"]):
        said = run(*words, desk.log, stdin=NOTE)
        refuses(said, code, word, str(kept))
        assert seed not in said.out + said.err
    assert files(desk.log) == before
    for words in (["cat", desk.log], ["verify", desk.log], ["prove", desk.log, 3]):
        assert run(*words).code == EXIT_OK


def test_a_key_file_given_in_place_of_a_public_key_is_not_repeated(desk):
    """`--key` with a private key's file, a witness's too, ends with exit code 1, names the line, shows none of it."""
    witness = desk.root / "witness-key"
    seed = "c2VjcmV0LXNlZWQtdGhhdC1ub2JvZHktcHJpbnRz"
    witness.write_text(json.dumps({"name": "w", "seed": seed}) + "\n", encoding="utf-8")
    own = json.loads((desk.keys / "key").read_text(encoding="utf-8"))["seed"]
    for words in (["verify", desk.log], ["check-proof", desk.proof], ["check-export", desk.manifest]):
        for key in (witness, desk.keys / "key"):
            said = run(*words, "--key", key)
            refuses(said, EXIT_USER_ERROR, repr(str(key)), "line 1 is not a verifier key")
            assert not [secret for secret in (seed, own) if secret[:8] in said.out + said.err]


HOMES: dict[str, tuple[str | None, str]] = {
    "a file": ("file", "is not a directory"),
    "a link": ("link", "is a link"),
    "a device": ("/dev/null", "is not a directory"),
    "below a file": ("file/home", "not a directory"),
    "too long": ("x" * 300, "file name too long"),
    "shared": ("shared", "shared by all users"),
    "nowhere": (None, "HOME are not set"),
}


@pytest.mark.parametrize("kind", HOMES)
def test_a_folder_of_keys_that_cannot_be_is_named(desk, monkeypatch, tmp_path, kind):
    """HOLDFAST_HOME pointing to nonsense, or none at all: exit code 1 names it, no log is begun, `cat` goes on."""
    (tmp_path / "file").write_text("x", encoding="ascii")
    (tmp_path / "link").symlink_to(desk.home)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    home, word = HOMES[kind]
    for name in ("HOLDFAST_HOME", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / home))
    refuses(run("append", tmp_path / "new", stdin=NOTE), EXIT_USER_ERROR, word)
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())
    assert run("cat", desk.log).code == EXIT_OK


def test_an_empty_home_variable_is_none(desk, monkeypatch, tmp_path):
    """HOLDFAST_HOME="" falls back to the user's configuration, where the key is not: exit code 4 says where it looked."""
    monkeypatch.setenv("HOLDFAST_HOME", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    refuses(run("append", desk.log, stdin=NOTE), EXIT_CANNOT_ACT, str(tmp_path / "config" / "holdfast"))


PINS: dict[str, tuple[bytes, str]] = {
    "words": (b"nonsense\n", "line 1: not a verifier key"),
    "second line": (b"OWN\nnonsense\n", "line 2: not a verifier key"),
    "binary": (b"\xff\xfe\x00\n", "line 1: not a verifier key"),
}


@pytest.mark.parametrize("kind", PINS)
def test_a_malformed_pin_is_named_and_not_passed_over(desk, kind):
    """A line of the pins that is no key ends `verify`, `keys show` and `keys pin` with its file and line."""
    content, word = PINS[kind]
    own = desk.facts()["vkey"]
    place = desk.keys / "pin"
    place.write_bytes(content.replace(b"OWN", own.encode()))
    for words in (["verify", desk.log], ["keys", "show", desk.log], ["keys", "pin", desk.log, own]):
        refuses(run(*words), EXIT_USER_ERROR, str(place), word)


def test_a_pin_of_another_log_is_refused_and_one_that_stands_there_is_not_believed(desk):
    """`keys pin` takes no key of another log; where such a pin was written by hand the log's own is unknown."""
    theirs = desk.facts(desk.other)["vkey"]
    refuses(run("keys", "pin", desk.log, theirs), EXIT_USER_ERROR, "is not one of log")
    for text in ("", "nonsense", "holdfast/x+1a2b3c4d+AAAA", theirs[:-4], theirs.replace("+", "-")):
        refuses(run("keys", "pin", desk.log, text), EXIT_USER_ERROR)
    (desk.keys / "pin").write_text(theirs + "\n", encoding="utf-8")
    said = run("verify", desk.log)
    assert said.code == EXIT_INTEGRITY
    assert "unknown key" in said.out


# -- files that are given -------------------------------------------------------------------------------------

TAKERS: dict[str, tuple[list[object], tuple[str, ...]]] = {
    "verify --key": (["verify", "LOG", "--key", "FILE"], ()),
    "verify --anchor": (
        ["verify", "LOG", "--anchor", "FILE"],
        ("own.note", "proof"),
    ),  # a proof holds a checkpoint
    "check-proof": (["check-proof", "FILE"], ("proof",)),
    "check-proof --key": (["check-proof", "PROOF", "--key", "FILE"], ()),
    "check-export": (["check-export", "FILE"], ("manifest",)),
    "check-export --key": (["check-export", "MANIFEST", "--key", "FILE"], ()),
    "prove --checkpoint": (["prove", "LOG", 3, "--checkpoint", "FILE"], ("own.note",)),
    "anchor --config": (["anchor", "LOG", "--config", "FILE"], ()),
    "anchor rfc3161": (["anchor", "LOG", "--sink", "rfc3161:http://127.0.0.1:9 FILE"], ()),
}
"""Verbs that take a file, and which of the good files serves them."""


@pytest.fixture
def given(desk, tmp_path) -> dict[str, Path]:
    """Files that somebody gives by mistake, or on purpose."""
    found = {
        kind: tmp_path / kind
        for kind in ("missing", "directory", "pipe", "empty", "random", "gigantic", "long", "deep")
    }
    found["directory"].mkdir()
    os.mkfifo(found["pipe"])
    found["empty"].write_bytes(b"")
    found["random"].write_bytes(bytes(range(256)) * 20)
    found["gigantic"].write_bytes(b"")
    os.truncate(found["gigantic"], 1 << 42)
    found["long"].write_bytes(b"x" * 300_000)
    found["deep"].write_bytes(b"[" * 200_000)
    return found | {
        "zeros": Path("/dev/zero"),
        "endless name": tmp_path / ("n" * 300),
        "odd name": tmp_path / "a\nb\x1b[31m",
        "private key": desk.keys / "key",
        "proof": desk.proof,
        "manifest": desk.manifest,
        "own.note": desk.root / "own.note",
        "other.note": desk.root / "other.note",
    }


@pytest.mark.parametrize("taker", TAKERS)
def test_whatever_file_is_given_it_is_read_with_a_bound_and_named(desk, given, taker):
    """A pipe, a device, 4 TiB, nothing or something else given as a file: exit code 1 or 3, at once, by name."""
    words, good = TAKERS[taker]
    seed = json.loads((desk.keys / "key").read_text(encoding="utf-8"))["seed"]
    for kind, path in given.items():
        if kind in good or (kind == "empty" and "--config" in words):
            continue
        places = {"LOG": desk.log, "PROOF": desk.proof, "MANIFEST": desk.manifest, "FILE": path}
        said = run(*(places.get(str(word), str(word).replace("FILE", str(path))) for word in words))
        assert said.code in {EXIT_USER_ERROR, EXIT_INTEGRITY}, (kind, said)
        refuses(said, said.code)
        assert seed not in said.out + said.err


def test_a_note_of_another_log_is_refused_by_name(desk):
    """A checkpoint, key or anchor of another log ends with exit code 1 and says of which log it is."""
    theirs, note = desk.facts(desk.other), desk.root / "other.note"
    name = f"holdfast/{theirs['log_id']}"
    refuses(run("verify", desk.log, "--anchor", note), EXIT_USER_ERROR, name)
    refuses(run("prove", desk.log, 3, "--checkpoint", note), EXIT_USER_ERROR, name)
    refuses(run("verify", desk.log, "--key", theirs["vkey"]), EXIT_USER_ERROR, name)
    refuses(run("check-proof", desk.proof, "--key", theirs["vkey"]), EXIT_USER_ERROR)


def test_a_damaged_receipt_is_named_and_stops_the_writer(desk, tmp_path):
    """A receipt that cannot be read keeps the log from being written, by its path; `prove` passes it over aloud."""
    (tmp_path / "sink").mkdir(mode=0o700)
    assert run("anchor", desk.log, "--sink", f"file:{tmp_path / 'sink'}").code == EXIT_OK
    receipt = next((desk.keys / "anchors").rglob("*.note"))
    receipt.write_bytes(b"not a note")
    before = files(desk.log)
    refuses(run("append", desk.log, stdin=NOTE), EXIT_USER_ERROR, str(receipt))
    assert files(desk.log) == before
    said = run("prove", desk.log, 3)
    assert said.code == EXIT_OK
    assert "receipt passed over" in said.err


def test_a_checkpoint_file_that_is_rubbish_is_damage(desk):
    """`anchor`, `prove`, `append` and `verify` call a spoiled `checkpoint` damage, exit code 3, by its name."""
    (desk.log / "checkpoint").write_bytes(b"\xff" * 100)
    before = files(desk.log)
    for words in (["anchor", desk.log, "--sink", "file:."], ["prove", desk.log, 3], ["append", desk.log]):
        refuses(run(*words, stdin=NOTE), EXIT_INTEGRITY, "'checkpoint'")
    assert run("verify", desk.log).code == EXIT_INTEGRITY
    assert files(desk.log) == before


def test_an_export_that_a_liar_made_does_not_hold(desk):
    """A manifest whose file is not what its format says is answered, exit code 3; it is never a bug of ours."""
    import hashlib

    table = desk.root / "notes.csv"
    manifest = json.loads(desk.manifest.read_text(encoding="utf-8"))
    for content in (b"line\n\xff\xfe\n", b'line\n"' + b"x" * 200_000 + b"\n", b"", b"line\n\n"):
        table.write_bytes(content)
        told = manifest | {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        desk.manifest.write_text(json.dumps(told), encoding="utf-8")
        said = run("check-export", desk.manifest)
        assert said.code == EXIT_INTEGRITY, said
        assert "does not hold" in said.out
        assert "internal error" not in said.err


# -- what is asked --------------------------------------------------------------------------------------------

ASKED: list[tuple[list[str], int, str]] = [
    (["--limit", "-1"], EXIT_USER_ERROR, "-1 is not a count"),
    (["--limit", "ten"], EXIT_USAGE, "ten"),
    (["--limit", "9" * 5000], EXIT_USAGE, "--limit"),
    (["--follow", "--limit", "-1"], EXIT_USER_ERROR, "-1 is not a count"),
    (["--from", "yesterday"], EXIT_USER_ERROR, "yesterday"),
    (["--from", "2026-13-01T00:00:00Z"], EXIT_USER_ERROR, "2026-13-01"),
    (["--from", "2026-11-20T00:00:00"], EXIT_USER_ERROR, "no time zone"),
    (["--from", "nan"], EXIT_USER_ERROR, "not a time"),
    (["--from", "1e400"], EXIT_USER_ERROR, "not a time"),
    (["--from", "9" * 400], EXIT_USER_ERROR, "not a time"),
    (["--from", "200", "--to", "100"], EXIT_USER_ERROR, "before start_time"),
    (["--type", "TRAED"], EXIT_USER_ERROR, "did you mean TRADE?"),
    (["--type", "note"], EXIT_USER_ERROR, "did you mean NOTE?"),
    (["--follow", "--type", "TRAED"], EXIT_USER_ERROR, "did you mean TRADE?"),
    (["--usr", "x"], EXIT_USAGE, "did you mean --user?"),
    (["--format", "xml"], EXIT_USAGE, "xml"),
    (["--json", "--format", "csv"], EXIT_USER_ERROR, "--format csv"),
    (["--follow", "--newest-first"], EXIT_USER_ERROR, "--newest-first"),
    (["--param", "a=b"], EXIT_USER_ERROR, "--saved"),
    (["--saved", "trades-of-usr"], EXIT_USER_ERROR, "did you mean 'trades-of-user'?"),
    (["--saved", ""], EXIT_USER_ERROR, "--list-saved"),
    (["--saved", "violations", "--type", "NOTE"], EXIT_USER_ERROR, "--type"),
    (["--saved", "violations", "--follow"], EXIT_USER_ERROR, "--follow"),
    (["--saved", "violations", "--limit", "-1"], EXIT_USER_ERROR, "-1 is not a count"),
    (["--saved", "violations", "--param", "dayz=3"], EXIT_USER_ERROR, "did you mean 'days'?"),
    (["--saved", "violations", "--param", "days"], EXIT_USER_ERROR, "KEY=VALUE"),
    (["--saved", "violations", "--param", "days=3", "--param", "days=4"], EXIT_USER_ERROR, "said twice"),
    (["--saved", "violations", "--param", "days=-1"], EXIT_USER_ERROR, "days='-1'"),
    (["--saved", "violations", "--param", "days=1e400"], EXIT_USER_ERROR, "days='1e400'"),
    (["--saved", "violations", "--param", "days=99999999999"], EXIT_USER_ERROR, "days="),
    (["--saved", "violations", "--param", "until=soon"], EXIT_USER_ERROR, "until 'soon'"),
    (["--saved", "slow-api-calls", "--param", "over_ms=nan"], EXIT_USER_ERROR, "over_ms='nan'"),
    (["--saved", "order-life"], EXIT_USER_ERROR, "needs order"),
    (
        ["--saved", "trades-of-user", "--param", "user=d", "--param", "day=2026-02-30"],
        EXIT_USER_ERROR,
        "day=",
    ),
    (
        ["--saved", "trades-of-user", "--param", "user=d", "--param", "day=9999-12-31"],
        EXIT_USER_ERROR,
        "day=",
    ),
]


def test_a_question_that_cannot_be_asked_is_told_what_is_wrong(desk):
    """Unknown fields, types, names and parameters, bad numbers and impossible times: named, with what is near."""
    for words, code, word in ASKED:
        said = run("query", desk.log, *words)
        refuses(said, code, word)
        assert not said.out, words


def test_more_than_there_is_may_be_asked_for(desk):
    """A limit beyond what a machine can count gives all there is, of records and of answers."""
    huge = str(10**30)
    assert len(run("query", desk.log, "--json", "--limit", huge).out.splitlines()) == 6
    assert run("query", desk.log, "--saved", "violations", "--limit", huge).code == EXIT_OK
    assert run("query", desk.log, "--follow", "--json", "--limit", "2").out.count("\n") == 2


@pytest.mark.parametrize("sequence", ["0", "-1", "7", str(2**63), "9" * 30])
def test_a_sequence_that_is_not_there_is_told(desk, sequence):
    """`prove` and `reveal` of a record that does not exist exit 1 and make no folder."""
    for words in (["prove", "--out", "nowhere", "--", desk.log], ["reveal", "--", desk.log]):
        refuses(run(*words, sequence), EXIT_USER_ERROR, sequence)
    assert not Path("nowhere").exists()


ARCHIVE: list[tuple[list[str], int, str]] = [
    (["restore", "s3://bucket/desk", "no/where"], EXIT_USER_ERROR, "no directory"),
    (["restore", "s3://bucket/desk", "LOG"], EXIT_USER_ERROR, "exists"),
    (["restore", "http://bucket", "back"], EXIT_USER_ERROR, "http://bucket"),
    (["archive", "LOG", "s3://bucket/../x"], EXIT_USER_ERROR, "s3://bucket/../x"),
    (["archive", "LOG", "s3://bucket/a\nb"], EXIT_USER_ERROR, "s3://bucket/a\\nb"),
    (["archive", "LOG", "s3://bucket/desk", "--retain", "0d"], EXIT_USER_ERROR, "0d"),
    (["archive", "LOG", "s3://bucket/desk", "--endpoint", "ftp://x"], EXIT_USER_ERROR, "ftp://x"),
    (["archive", "LOG", "s3://bucket/desk", "--older-than", "1d"], EXIT_USER_ERROR, "--remove-local"),
    (["prune", "LOG", "s3://bucket/desk", "--older-than", "soon"], EXIT_USER_ERROR, "soon"),
]


def test_an_archive_that_cannot_be_is_told(desk):
    """Addresses, ages and ranges that make no sense are refused before anything is asked of a store."""
    before = files(desk.log)
    for words, code, word in ARCHIVE:
        refuses(run(*(desk.log if text == "LOG" else text for text in words)), code, word)
    assert files(desk.log) == before
    assert not Path("back").exists()


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_unreachable(desk):
    """`archive` and `restore` without a store exit 5, say to repeat, show no secret and leave nothing half made."""
    before = set(Path().iterdir())
    for words in (["archive", desk.log, "s3://bucket/desk"], ["restore", "s3://bucket/desk", "back"]):
        refuses(run(*words), EXIT_UNREACHABLE, "s3://bucket/desk")
    assert set(Path().iterdir()) == before
    assert verify(desk.log).ok


# -- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [b"a\nb", b"x\x1b[31mred", b"\xff\xfe", b"--json", b"-x", b" ", b"%s{}", b"a'b\"c", "ü\u202eñ".encode()],
    ids=repr,
)
def test_a_log_may_have_any_name_and_none_draws_on_the_terminal(desk, tmp_path, name):
    """Newlines, ANSI codes, bytes that are not UTF-8 and option-like names work, and are spelled out when printed."""
    log = os.fsencode(tmp_path) + b"/" + name
    proofs = log + b".proofs"
    assert run("append", "--", log, stdin=NOTE).code == EXIT_OK
    for words in (
        ["cat"], ["query"], ["verify"], ["verify", "--json"], ["recover"], ["recover", "--json"], ["replay"],
        ["checkpoint"], ["keys", "show"], ["keys", "show", "--json"],
    ):  # fmt: skip
        said = run(*words, "--", name)
        assert said.code == EXIT_OK, said
        assert "\x1b" not in said.out + said.err
        assert "\u202e" not in said.out or "--json" in words
        if "--json" in words:
            json.loads(said.out)
    assert run("prove", "--out", proofs, "--", name, 3).code == EXIT_OK
    assert run("check-proof", "--json", proofs + b"/000000000003.tlog-proof").code == EXIT_OK
    refuses(run("keys", "show", "--", b"no-" + name), EXIT_USER_ERROR)


@pytest.mark.parametrize(
    "raised", [BadInput("bad\x1b[31m", hint="do\nholdfast: fine"), OSError(5, "io", "a\x1b\nb")]
)
def test_no_text_in_an_error_draws_on_the_terminal_or_adds_a_hint(monkeypatch, desk, raised):
    """What an error repeats of its input is spelled out, its hint stays one line."""
    monkeypatch.setattr("holdfast.audit.query.read_lines", lambda _: (_ for _ in ()).throw(raised))
    said = run("cat", desk.log)
    refuses(said, EXIT_USER_ERROR, "\\x1b")
    assert len(said.err.splitlines()) == 2, said


def test_what_cannot_be_a_name_in_a_file_is_refused_before_it_is_made(desk, tmp_path):
    """An export or a sink whose name is not UTF-8 is refused, because manifests and receipts name it; nothing is left."""
    place = os.fsencode(tmp_path) + b"/\xff"
    refuses(run("export", desk.log, "--out", place + b".csv"), EXIT_USER_ERROR, "not UTF-8")
    refuses(run("anchor", desk.log, "--sink", b"file:" + place), EXIT_USER_ERROR, "not UTF-8")
    assert not list(tmp_path.glob("*.csv*"))
    with pytest.raises(BadInput, match="no known kind"):
        parse_sink("fil:x")


# -- the clock ------------------------------------------------------------------------------------------------


def test_a_clock_that_steps_is_recorded_and_order_is_kept_by_sequence(tmp_path):
    """A start on a clock that went back, and one far ahead, is a CLOCK_STEP record; the order is that of the sequence."""
    clock, steps = ManualClock(), (0, -7_200, 400 * 86_400)
    for step in steps:
        clock.step_wall_secs(step)
        with WriteAheadLog(tmp_path / "log", clock=clock, keys=KeyHome(tmp_path / "home")) as log:
            log.append("NOTE", {"step": step})
    records = list(read_records(tmp_path / "log"))
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert [record.details["step"] for record in records if record.type == "NOTE"] == [*steps]
    assert any(record.type == "CLOCK_STEP" for record in records)
    report = verify(tmp_path / "log")
    assert report.ok, report.problems


# -- the disk, signals and one another ------------------------------------------------------------------------


def test_a_full_disk_leaves_no_half_made_export_or_proof(desk, monkeypatch):
    """ENOSPC while an export or a proof is written exits 4, names the file, and nothing of it stays."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = set(Path().iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(exporting.os, "fsync", full)
        for name in ("full.csv", "full.jsonl"):
            refuses(
                run("export", desk.log, "--proofs", "--out", name), EXIT_CANNOT_ACT, name, "no space left"
            )
    assert set(Path().iterdir()) == before
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        refuses(
            run("prove", desk.log, 3, "--out", "proofs"), EXIT_CANNOT_ACT, "000000000003", "no space left"
        )
    assert not list(Path("proofs").iterdir())


@pytest.mark.parametrize("raised", [KeyboardInterrupt, BrokenPipeError])
def test_an_export_that_is_interrupted_leaves_nothing(desk, monkeypatch, raised):
    """Ctrl-C or a closed pipe in the middle of an export ends with 130 or 141 and no file."""

    def interrupted(_: object) -> None:
        raise raised

    before = set(Path().iterdir())
    monkeypatch.setattr(exporting, "decode_line", interrupted)
    said = run("export", desk.log, "--proofs", "--out", "cut.csv")
    assert said.code == {KeyboardInterrupt: 130, BrokenPipeError: 141}[raised]
    assert "Traceback" not in said.err
    assert set(Path().iterdir()) == before


def test_two_exports_of_one_name_do_not_overwrite_each_other(desk, monkeypatch):
    """The export that ends second finds the name taken, exits 1, and the first one's files are as they were."""
    first_fsync = os.fsync

    def other_was_faster(descriptor: int) -> None:
        Path("same.csv").write_text("theirs", encoding="ascii")
        first_fsync(descriptor)

    monkeypatch.setattr(exporting.os, "fsync", other_was_faster)
    refuses(run("export", desk.log, "--out", "same.csv"), EXIT_USER_ERROR, "exists")
    assert Path("same.csv").read_text(encoding="ascii") == "theirs"
    assert not list(Path().glob("same.csv.*"))


def test_a_segment_that_goes_while_progress_is_counted_is_no_error(desk, monkeypatch):
    """A writer that seals a segment between listing and asking its size does not end `verify`."""
    monkeypatch.setattr(Path, "glob", lambda *_: iter([desk.log / "audit_gone.log"]))
    Progress(desk.log)(1)


def test_a_close_that_was_interrupted_waits_for_its_sealer_when_tried_again(desk):
    """After a Ctrl-C in the middle of a close the next close returns once the sealing thread has ended, not before."""
    directory = LocalStorage().directory(desk.log, create=False)
    sealer = Sealer(directory, lambda *_: 0)
    gate, ended = threading.Event(), threading.Event()

    def compress(_: list[str]) -> Iterator[object]:
        gate.wait(10)
        ended.set()
        return iter(())

    sealer._compress_in_child = compress

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        sealer.rotated(desk.segment().name)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            sealer.close(10)
        threading.Timer(0.05, gate.set).start()
        sealer.close(10)
        assert ended.is_set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gate.set()
        directory.close()


def test_a_live_writer_keeps_writers_out_and_readers_in(desk):
    """While one process writes, writing verbs exit 4 and name the log; reading verbs answer; the writer goes on."""
    with WriteAheadLog(desk.log, clock=ManualClock(1_795_000_000 * NANOS), keys=KeyHome(desk.home)) as log:
        log.append("NOTE", {"n": 1})
        for words in (["append"], ["recover"], ["keys", "rotate"], ["keys", "init"]):
            refuses(run(*words, desk.log, stdin=NOTE), EXIT_CANNOT_ACT, "is held", repr(str(desk.log)))
        for words in (["cat"], ["query"], ["verify"], ["checkpoint"], ["keys", "show"], ["replay"]):
            assert run(*words, desk.log).code == EXIT_OK, words
        log.append("NOTE", {"n": 2})
    assert verify(desk.log).ok


@pytest.mark.parametrize("verb", ["cat", "query", "verify", "checkpoint", "prove"])
def test_a_stdout_that_is_full_or_gone_ends_quietly(desk, verb):
    """A closed pipe exits 141 without a word, a full device 4 with a hint; the log stays as it was."""
    command = [sys.executable, "-m", "holdfast", "audit", *map(str, put(READING[verb], desk.log))]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone, Path("/dev/full").open("wb") as full:
        for stdout, code in ((gone, 141), (full, EXIT_CANNOT_ACT)):
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=20, check=False)  # fmt: skip
            assert done.returncode == code, done
            assert "Exception ignored" not in done.stderr
            assert bool(done.stderr) == (code == EXIT_CANNOT_ACT)
    assert verify(desk.log).ok


def test_a_key_that_may_be_named_is_still_taken_as_text(desk):
    """`--key` takes the key itself as well as its file, and a stranger's word is refused with what a key looks like."""
    stranger = SigningKey("somebody", b"\1" * 32).vkey
    assert run("check-proof", desk.proof, "--key", desk.root / "log.vkey").code == EXIT_OK
    assert run("check-proof", desk.proof, "--key", desk.facts()["vkey"]).code == EXIT_OK
    refuses(run("check-proof", desk.proof, "--key", str(stranger)), EXIT_USER_ERROR)
    refuses(run("check-proof", desk.proof, "--key", "x" * 5_000), EXIT_USER_ERROR, "verifier key")
