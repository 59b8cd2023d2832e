"""Recordings are decoded in a child: what it dies of is told, and nobody dies with it."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
from pathlib import Path

import msgspec
import polars as pl
import pytest
from support.recordings import uncountable

from holdfast.core.errors import EXIT_USER_ERROR, BadInput
from holdfast.venues.decoding import Decoder

FRAME = pl.DataFrame({"a": [1, None, 3] * 10, "b": ["x", "", None] * 10})

PARENT = """
import sys
from pathlib import Path
from holdfast.venues.decoding import Decoder
decoder = Decoder()
decoder.contents(Path(sys.argv[1]))
print(decoder._child.pid, flush=True)
sys.stdin.read()
"""

TIGHT = """
import resource, sys
from pathlib import Path
from holdfast.core.errors import BadInput
from holdfast.venues.decoding import Decoder
resource.setrlimit(resource.RLIMIT_AS, (400_000_000, 400_000_000))
try:
    with Decoder() as decoder:
        decoder.frame(Path(sys.argv[1]))
except BadInput as why:
    print(why, why.hint)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.parquet"
    FRAME.write_parquet(path, metadata={"market_ticker": "KXA"})
    return path


def test_a_frame_arrives_as_it_was_written(file):
    """Columns, rows and metadata are those of the file; columns can be chosen."""
    with Decoder() as decoder:
        assert decoder.contents(file).columns == {"a", "b"}
        assert decoder.contents(file).metadata["market_ticker"] == "KXA"
        assert decoder.frame(file).equals(FRAME)
        assert decoder.frame(file, ["b"]).equals(FRAME.select("b"))


def test_what_kills_the_decoder_is_refused_by_name_and_the_next_file_is_read(file, tmp_path):
    """An abort of polars ends the child alone; the refusal names file, signal and its last words."""
    dead = tmp_path / "dead.parquet"
    FRAME.write_parquet(dead)
    uncountable(dead)
    with Decoder() as decoder:
        for _ in range(2):
            with pytest.raises(
                BadInput, match=r"dead\.parquet.*SIGABRT: memory allocation of \d+ bytes"
            ) as caught:
                decoder.frame(dead)
            assert caught.value.exit_code == EXIT_USER_ERROR
            assert caught.value.hint
            assert decoder.frame(file).equals(FRAME)


def test_the_last_words_are_those_of_the_file_that_is_named(file, tmp_path):
    """What polars complained about an earlier file is not said of a later one."""
    torn, dead = tmp_path / "torn.parquet", tmp_path / "dead.parquet"
    torn.write_bytes(b"PAR1 not really")
    FRAME.write_parquet(dead)
    uncountable(dead)
    with Decoder() as decoder:
        with pytest.raises(BadInput, match=r"torn\.parquet"):
            decoder.contents(torn)
        os.write(decoder._complaints.fileno(), b"an earlier complaint\n")
        with pytest.raises(BadInput) as caught:
            decoder.frame(dead)
    assert "earlier" not in str(caught.value)
    assert "memory allocation" in str(caught.value)


def test_a_killed_decoder_is_told(file):
    """Killed from outside, say for want of memory, it is named with its signal; the next question starts another."""
    with Decoder() as decoder:
        decoder.contents(file)
        decoder._child.kill()
        decoder._child.wait()
        with pytest.raises(BadInput, match=r"a\.parquet.*\(SIGKILL\)"):
            decoder.frame(file)
        assert decoder.frame(file).equals(FRAME)


@pytest.mark.parametrize(
    ("columns", "said"), [(["c"], "c"), (["a", "nothing of the kind"], "nothing of the kind")]
)
def test_a_missing_column_is_refused_by_name(file, columns, said):
    """It is told by the child, which goes on."""
    with Decoder() as decoder:
        with pytest.raises(BadInput, match=rf"a\.parquet.*{said}"):
            decoder.frame(file, columns)
        assert decoder.frame(file).equals(FRAME)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    """A pipe, a folder and nothing at all are refused at once."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with Decoder() as decoder:
        for name in ("pipe", "folder", "nothing"):
            with pytest.raises(BadInput, match=f"{name}' is not a file"):
                decoder.frame(tmp_path / name)
        assert decoder._child is None


def test_a_file_that_may_not_be_read_is_not_called_damaged(file, monkeypatch):
    """What the system says is told."""

    def closed(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", closed)
    with (
        Decoder() as decoder,
        pytest.raises(BadInput, match=r"a\.parquet' cannot be read: Permission denied"),
    ):
        decoder.frame(file)


def test_the_child_ends_with_the_block_and_with_its_parent(file):
    """It is gone when the block is left, and when its parent is killed its input ends and so does it."""
    with Decoder() as decoder:
        decoder.contents(file)
        child = decoder._child
    assert child.returncode is not None
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    orphan = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert select.select([orphan], [], [], 20)[0] == [orphan]
    os.close(orphan)


@pytest.mark.parametrize("name", ["a*.parquet", "a[1].parquet", "a?.parquet", "-a.parquet", "file:a.parquet"])
def test_a_name_is_no_pattern_and_no_address(file, monkeypatch, name):
    """The file of that name is read, and none that a pattern would match or a URL would lead to."""
    monkeypatch.chdir(file.parent)
    (file.parent / "a1.parquet").write_bytes(file.read_bytes())
    other = pl.DataFrame({"a": [7]})
    other.write_parquet(file.parent / "x")
    (file.parent / "x").rename(file.parent / name)
    with Decoder() as decoder:
        assert decoder.contents(Path(name)).columns == {"a"}
        assert decoder.frame(Path(name)).equals(other)


def test_a_name_that_is_no_text_is_read(file):
    """A path is bytes."""
    odd = Path(os.fsdecode(os.fsencode(file.parent) + b"/bad\xff.parquet"))
    file.rename(odd)
    with Decoder() as decoder:
        assert decoder.frame(odd).equals(FRAME)


def test_nothing_is_imported_from_the_working_directory(file, monkeypatch):
    """What lies there under the name of a module stays unread."""
    for name in ("polars", "msgspec", "json"):
        (file.parent / f"{name}.py").write_text("print('mine'); raise SystemExit(3)")
    monkeypatch.chdir(file.parent)
    with Decoder() as decoder:
        assert decoder.frame(file).equals(FRAME)


def test_who_is_interrupted_gets_no_earlier_answer(file, tmp_path, monkeypatch):
    """A question whose answer nobody waited for is not answered to the next one."""

    class Impatient(Exception):
        pass

    def interrupt(*_, **__):
        raise Impatient

    other = tmp_path / "other.parquet"
    pl.DataFrame({"a": [7]}).write_parquet(other)
    with Decoder() as decoder:
        decoder.contents(file)
        with monkeypatch.context() as patch:
            patch.setattr(msgspec.json, "decode", interrupt)  # between the question and its answer
            with pytest.raises(Impatient):
                decoder.frame(file)
        assert decoder.frame(other)["a"].to_list() == [7]


def test_an_interrupt_of_the_terminal_is_not_the_childs(file):
    """Ctrl-C goes to the group of processes in front, which the child is not in."""
    with Decoder() as decoder:
        decoder.contents(file)
        assert os.getpgid(decoder._child.pid) != os.getpgid(0)


def test_too_little_memory_is_told_as_that(file):
    """Where the machine cannot hold a whole file, nobody is told that it is damaged."""
    done = subprocess.run(
        [sys.executable, "-c", TIGHT, str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert "cannot be decoded: its decoder died" in done.stdout, done
    assert "too little memory" in done.stdout
