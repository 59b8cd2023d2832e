"""Bad input to the verbs that read, keep and remake a lake: each mistake is named, and neither lake nor anything else is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path

import pytest
from support.lake import all_rows, make_journal
from support.moto_process import moto_process
from support.places import only_small_files, small_files
from support.s3 import Store

from holdfast.cli.main import main
from holdfast.core.errors import (
    EXIT_CANNOT_ACT,
    EXIT_INTEGRITY,
    EXIT_OK,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    EXIT_USER_ERROR,
)
from holdfast.lake.store import store_of

COUNTS = "SELECT event_date, count(*) AS n FROM orders GROUP BY 1"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A log and its lake."""
    root = tmp_path_factory.mktemp("made")
    make_journal(root / "log", days=2, events=60)
    assert (
        main(["lake", "project", str(root / "log"), "--lake", str(root / "lake"), "--no-maintenance"])
        == EXIT_OK
    )
    return root


@pytest.fixture
def desk(made, tmp_path, monkeypatch) -> Path:
    """The same in the working directory, beside a file, a pipe, an empty folder and one of other things."""
    root = tmp_path / "desk"
    shutil.copytree(made, root, ignore=shutil.ignore_patterns(".*"))
    (root / "file").write_text("x")
    (root / "empty").mkdir()
    (root / "project").mkdir()
    (root / "project" / "notes.txt").write_text("mine")
    os.mkfifo(root / "pipe")
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "nice", lambda _by: 0)
    return root


def files(root: Path) -> dict[str, int]:
    """Every path below *root* and its size."""
    return {str(path.relative_to(root)): path.lstat().st_size for path in sorted(root.rglob("*"))}


@pytest.fixture
def refused(desk, capsys) -> Callable[..., None]:
    """Runs a verb of the lake: it must end with the code, the words and a hint, and leave every file as it was."""

    def run(words: list[str], code: int, *said: str) -> None:
        before = files(desk)
        assert main(["lake", *words]) == code
        err = capsys.readouterr().err
        assert all(word in err for word in said), err
        assert code == EXIT_USAGE or "\nhint: " in err, err
        assert "internal error" not in err
        assert "Traceback" not in err
        assert "testtest" not in err, "a secret"
        assert files(desk) == before

    return run


VERBS: dict[str, list[str]] = {
    "verify": ["verify", "log"],
    "rebuild": ["rebuild", "log"],
    "sql": ["sql", "SELECT 1"],
    "maintain": ["maintain"],
}
NO_LAKE = [
    ("", "no lake is named"),
    ("file", "'file' is not a directory"),
    ("pipe", "'pipe' is not a directory"),
    ("/dev/null", "'/dev/null' is not a directory"),
    ("file/lake", "file/lake"),
    ("s3://", "'s3://' is not an address"),
    ("http://127.0.0.1/lake", "is not an address"),
    ("a\x1b[31mb", r"a\x1b[31mb"),
]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("place", "said"), NO_LAKE, ids=[repr(row[0]) for row in NO_LAKE])
def test_a_place_that_cannot_hold_a_lake_is_named(refused, verb, place, said):
    """A file, a pipe, a device, an unknown scheme and an empty word: exit code 1, and nothing is made there."""
    refused([*VERBS[verb], "--lake", place], EXIT_USER_ERROR, said)


@pytest.mark.parametrize("verb", ["verify", "sql", "maintain"])
@pytest.mark.parametrize("place", ["empty", "project", "nowhere"])
def test_a_folder_without_tables_is_no_lake_for_who_reads(refused, verb, place):
    """Exit code 1 with what would make one; the folder stays as it was."""
    refused([*VERBS[verb], "--lake", place], EXIT_USER_ERROR, "there is no Delta table", place)


@pytest.mark.parametrize("place", ["project", ".", "log"])
def test_a_rebuild_moves_nothing_that_is_no_lake(refused, place):
    """A folder of other things, the journal itself and what lies around it keep their place: a rebuild is refused."""
    refused(["rebuild", "log", "--lake", place], EXIT_USER_ERROR, "it holds other things")


WORDS = [
    (["verify"], 1, "no journal is named"),
    (["verify", "nowhere"], 1, "no audit log at 'nowhere'"),
    (["verify", "lake"], 1, "no audit log at 'lake'"),
    (["rebuild", "pipe"], 1, "no audit log at 'pipe'"),
    (["verify", "--archive", "x"], 1, "archive 'x' is not an address"),
    (["verify", "log", "--force"], 2, "--force"),
    (["maintain", "--table", "ordres"], 1, "did you mean 'orders'"),
    (["maintain", "--table", "../log"], 1, "no table '../log'"),
    (["maintain", "--day", "2026-13-01"], 1, "'2026-13-01' is not a day"),
    (["maintain", "--day", "2026-11-20", "--everything"], 2, "not allowed with"),
    *((["maintain", "--retention-days", days], 1, "outside 0 to 36500") for days in ("-1", "nan", "inf", "1e300")),
    (["maintain", "--retention-days", "x"], 2, "'x'"),
    (["project", "log", "--rows", "0", "--age", "nan", "--memory", "-1"], 1, "rows 0"),
    (["project", "log", "--rows", "1.5"], 2, "'1.5'"),
    (["sql"], 1, "ask one question"),
    (["sql", "SELECT 1", "--saved", "stop_history"], 1, "ask one question"),
    (["sql", "--saved", "stop_histry"], 1, "did you mean 'stop_history'"),
    (["sql", "--saved", "stop_history", "--param", "x"], 1, "'x' has no value"),
    *((["sql", COUNTS, "--from", text], 1, text) for text in ("x", "NaN", "1E+400", "99999999999999999", "-99999999999")),
    (["sql", COUNTS, "--to", "2026-11-20"], 1, "names no time zone"),
    (["sql", COUNTS, "--limit", "-1"], 1, "--limit -1 is below 0"),
    (["sql", COUNTS, "--limit", "x"], 2, "'x'"),
    *((["sql", COUNTS, "--parquet", name], 1, name) for name in ("file", "pipe", "empty", "/dev/null", "none/a.parquet")),
    (["sql", COUNTS, "--parquet", ""], 2, "no path is named"),
    *((["sql", COUNTS, "--plot", name], 1, name) for name in ("a.gif", "empty", "none/a.png")),
    (["sql", "SELECT 1 AS n WHERE false", "--plot", "a.png"], 1, "no rows"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "said"), WORDS, ids=[" ".join(row[0])[-50:] for row in WORDS])
def test_a_word_that_cannot_be_meant_is_named(refused, words, code, said):
    """Wrong types, counts and times out of range, what is not there or in the way: exit code 1 or 2 by name."""
    refused([*words, "--lake", "lake"], code, said)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY orders TO 'stolen.csv'", "COPY (SELECT 1) TO 'stolen.parquet'", "EXPORT DATABASE 'stolen'",
        "ATTACH 'stolen.db'", "INSTALL httpfs", "LOAD httpfs", "SET allowed_paths = ['/']", "PRAGMA database_list",
        "DROP VIEW orders", "UPDATE orders SET seq = 1", "CREATE TABLE t AS SELECT 1", "CHECKPOINT", "CALL pragma_version()",
        "SELECT * FROM read_csv('file')", "SELECT * FROM read_text('file')", "SELECT * FROM read_blob('/etc/hostname')",
        "SELECT * FROM glob('/*')", "SELECT * FROM sniff_csv('file')", "SELECT * FROM 'file.csv'",
        "SELECT * FROM read_parquet('lake/orders/*/*.parquet')", "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
        "SELECT 1; COPY orders TO 'stolen.csv'", "EXPLAIN ANALYZE COPY orders TO 'stolen.csv'",
        "SELECT getenv('HOME')", "", ";", "\x00", "SELECT", "SELECT * FROM orders WHERE seq = $x",
    ],
)  # fmt: skip
def test_a_question_reaches_nothing_but_the_lake(refused, sql):
    """What writes, reads other files, the network or the environment, changes settings or is no question: refused."""
    refused(["sql", sql, "--lake", "lake"], EXIT_USER_ERROR, "sql refused")


def test_a_columns_name_cannot_move_the_cursor(desk, capsys):
    """Names of columns, which data may choose, are printed as their cells are."""
    assert main(["lake", "sql", 'SELECT 1 AS "a\x1b[31m\nb"', "--lake", "lake"]) == EXIT_OK
    assert capsys.readouterr().out == "a\\x1b[31m\\x0ab\n1\n"


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "foreign": lambda path: path.write_bytes(b"PAR1 not really"),
    "gone": Path.unlink,
}


@pytest.mark.invariant("I10")
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("verb", ["verify", "sql"])
def test_a_damaged_data_file_is_an_integrity_failure(desk, capfd, verb, damage):
    """Exit code 3; a rebuild from the journal, which lost nothing, makes every row again."""
    before = all_rows(store_of("lake"))
    DAMAGE[damage](next((desk / "lake" / "orders").glob("event_date=*/*.parquet")))
    words = ["sql", "SELECT sum(seq), count(status) FROM orders"] if verb == "sql" else VERBS["verify"]
    assert main(["lake", *words, "--lake", "lake"]) == EXIT_INTEGRITY
    said = capfd.readouterr()
    assert "orders" in said.out + said.err
    assert "panicked" not in said.err
    if verb == "sql" and damage == "gone":
        assert main(["lake", "rebuild", "log", "--lake", "lake", "--json"]) == EXIT_OK
        assert all_rows(store_of("lake")) == before


# -- a full disk -----------------------------------------------------------------------------------------------------

FULL = [
    ["sql", "SELECT * FROM orders", "--parquet", "a.parquet"],
    ["sql", COUNTS, "--plot", "a.png"],
    ["sql", COUNTS, "--plot", "a.svg"],
    ["rebuild", "log"],
]


@pytest.mark.parametrize("words", FULL, ids=lambda words: words[-1])
def test_a_full_disk_ends_with_4_and_leaves_nothing_half(desk, capsys, words):
    """An answer, a picture or a new lake that finds no room is named, and no half file stays to be taken for whole."""
    before = files(desk)
    with only_small_files(2_000):
        code = main(["lake", *words, "--lake", "lake"])
    err = capsys.readouterr().err
    assert code == EXIT_CANNOT_ACT, err
    assert "hint: free space" in err
    assert files(desk) == before


@pytest.mark.invariant("I10")
def test_maintenance_on_a_full_disk_loses_no_row(desk):
    """Compaction, ordering and checkpoints without room end with 4; every row is there, and with room they are done."""
    before, words = (
        all_rows(store_of("lake")),
        ["maintain", "--everything", "--table", "orders", "--lake", "lake"],
    )
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "lake", *words],
        **small_files(2_000), capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == EXIT_CANNOT_ACT, done.stderr
    assert "hint: free space" in done.stderr
    assert "panicked" not in done.stderr
    assert all_rows(store_of("lake")) == before
    assert main(["lake", *words]) == EXIT_OK
    assert all_rows(store_of("lake")) == before


@pytest.mark.parametrize("style", ["--json", "--csv"])
def test_an_answer_that_cannot_be_written_ends_with_4(desk, capsys, style):
    """Standard output on a full disk is told as such; half an answer does not end with 0."""
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115  its closing fails too
    with redirect_stdout(full):
        code = main(["lake", "sql", "SELECT * FROM orders", "--lake", "lake", style])
    with suppress(OSError):
        full.close()
    assert code == EXIT_CANNOT_ACT
    assert "no space left" in capsys.readouterr().err


# -- S3 --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[Store]:
    with moto_process() as store:
        yield store


BUCKETS = {
    "wrong bucket": ("", EXIT_USER_ERROR, "there is no such bucket"),
    "down": ("http://127.0.0.1:9", EXIT_UNREACHABLE, "no usable answer"),
    "no address": ("nonsense", EXIT_USER_ERROR, "endpoint 'nonsense' is not an address"),
    "in the clear": ("http://s3.example.com", EXIT_USER_ERROR, "is not encrypted"),
}


@pytest.mark.parametrize("kind", BUCKETS)
@pytest.mark.parametrize("verb", ["project", *VERBS])
def test_a_bucket_that_cannot_be_used_is_named(refused, s3, monkeypatch, verb, kind):
    """Whichever verb asks it: what is wrong, what to do, and no secret; what is on the disk is as it was."""
    endpoint, code, said = BUCKETS[kind]
    for name, value in (s3.environ | {"AWS_ENDPOINT_URL": endpoint or s3.endpoint}).items():
        monkeypatch.setenv(name, value)
    words = ["project", "log", "--no-maintenance"] if verb == "project" else VERBS[verb]
    refused([*words, "--lake", "s3://no-such-bucket/lake"], code, said)
