"""Recordings are decoded in a child: what it dies of is told, and nobody dies with it."""

from __future__ import annotations

import os
import select
import subprocess
import sys

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


def test_the_child_ends_with_the_block_and_with_its_parent(file):
    """It is gone when the block is left, and when its parent is killed its input ends and so does it."""
    with Decoder() as decoder:
        decoder.contents(file)
        child = decoder._child
    assert child.returncode == 0
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    orphan = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert select.select([orphan], [], [], 20)[0] == [orphan]
    os.close(orphan)
