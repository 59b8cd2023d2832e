"""`holdfast lake project` over what it cannot work with: each named, with its exit code, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from support.image import image_folder
from support.lake import make_journal
from support.places import small_files
from support.projectors import assert_exact

from holdfast.cli.main import main
from holdfast.core.errors import (
    EXIT_CANNOT_ACT,
    EXIT_INTEGRITY,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    EXIT_USER_ERROR,
)
from holdfast.lake.store import store_of

pytestmark = [pytest.mark.invariant("I10"), pytest.mark.contract("B8")]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A journal of every projected kind of record."""
    return make_journal(tmp_path_factory.mktemp("made") / "log", days=1, events=60)


@pytest.fixture
def log(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "log"))


def project(log: Path, lake: Path | str, *options: str) -> int:
    return main(["lake", "project", str(log), "--lake", str(lake), "--no-maintenance", *options])


def refused(capsys, code: int, expected: int, *words: str) -> None:
    """It ended with *expected*, and stderr holds all *words* and no traceback."""
    said = capsys.readouterr().err
    assert code == expected, said
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert "internal error" not in said


def test_lake_that_is_a_file(log, tmp_path, capsys):
    """A file is no lake."""
    (tmp_path / "lake").write_text("x")
    refused(capsys, project(log, tmp_path / "lake"), EXIT_USER_ERROR, "is not a directory", "hint:")


def test_table_that_is_a_file(log, tmp_path, capsys):
    """A file where a table belongs is left as it is."""
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "risk_events").write_text("x")
    refused(capsys, project(log, tmp_path / "lake"), EXIT_USER_ERROR, "'risk_events' is no directory")
    assert (tmp_path / "lake" / "risk_events").read_text() == "x"


def test_folder_with_other_files(log, tmp_path, capsys):
    """A folder that holds other things is no table, and nothing is written into it."""
    (tmp_path / "lake" / "fills").mkdir(parents=True)
    (tmp_path / "lake" / "fills" / "notes.txt").write_text("x")
    refused(
        capsys, project(log, tmp_path / "lake"), EXIT_USER_ERROR, "is no Delta table: it holds 'notes.txt'"
    )
    assert [path.name for path in (tmp_path / "lake" / "fills").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("columns", "partition", "words"),
    [
        ({"a": [1]}, None, "its column 'a' is"),
        (None, None, "partitioned by nothing, expected event_date"),
        ("narrow", ["event_date"], "its column 'seq'"),
        ("more", ["event_date"], "its column 'more'"),
    ],
)
def test_table_of_another_schema(log, tmp_path, capsys, columns, partition, words):  # noqa: PLR0917  fixtures
    """A table with other columns, types or partitions is refused by the first difference, and not written to."""
    from holdfast.lake.tables import FillsTable

    schema = FillsTable.schema()
    if columns == "narrow":
        schema = schema.set(schema.get_field_index("seq"), pa.field("seq", pa.int32(), nullable=False))
    if columns == "more":
        schema = schema.append(pa.field("more", pa.string()))
    table = pa.table(columns) if isinstance(columns, dict) else schema.empty_table()
    write_deltalake(str(tmp_path / "lake" / "fills"), table, partition_by=partition)
    refused(capsys, project(log, tmp_path / "lake"), EXIT_USER_ERROR, "has another schema", words, "rebuild")
    assert DeltaTable(tmp_path / "lake" / "fills").version() == 0


def test_torn_lake_is_mended_and_told(log, tmp_path, capsys):
    """A commit that a power cut emptied is told on stderr, and the lake is whole afterwards."""
    assert project(log, tmp_path / "lake") == 0
    newest = max((tmp_path / "lake" / "orders" / "_delta_log").glob("*.json"))
    os.truncate(newest, 0)
    assert project(log, tmp_path / "lake") == 0
    assert f"{newest.name} moved aside: its commit is empty" in capsys.readouterr().err
    assert_exact([log], store_of(str(tmp_path / "lake")))


def test_lake_without_its_beginning(log, tmp_path, capsys):
    """A table whose first version is gone cannot be mended: integrity failure, with the way to make it anew."""
    assert project(log, tmp_path / "lake") == 0
    (tmp_path / "lake" / "orders" / "_delta_log" / f"{0:020d}.json").unlink()
    refused(capsys, project(log, tmp_path / "lake"), EXIT_INTEGRITY, "lacks its beginning", "lake rebuild")


def test_log_that_is_missing_or_none(log, tmp_path, capsys):
    """A log that is not there, a folder around one, and a folder of other things are each named."""
    refused(capsys, project(tmp_path / "none", tmp_path / "lake"), EXIT_USER_ERROR, "no audit log at")
    refused(capsys, project(tmp_path, tmp_path / "lake"), EXIT_USER_ERROR, "is not a log itself", str(log))
    (tmp_path / "other").mkdir()
    refused(capsys, project(tmp_path / "other", tmp_path / "lake"), EXIT_USER_ERROR, "it is empty")
    refused(
        capsys, project(tmp_path / "none", tmp_path / "lake", "--follow"), EXIT_USER_ERROR, "no audit log at"
    )
    assert not (tmp_path / "lake").exists()


def test_log_that_is_damaged(log, tmp_path, capsys):
    """A damaged record ends the projection with an integrity failure; what stood before it is in the lake."""
    segment = min(log.glob("audit_*.log"))
    data = bytearray(segment.read_bytes())
    data[data.index(b'"seq":40,') + 30] ^= 1
    segment.write_bytes(data)
    refused(capsys, project(log, tmp_path / "lake"), EXIT_INTEGRITY, "sequence 40", "crc does not match")


def test_log_that_went_back(made, log, tmp_path, capsys):
    """A log that ends before what the lake holds of it is an integrity failure, and the lake stays as it is."""
    assert project(log, tmp_path / "lake") == 0
    shutil.rmtree(log)
    short = make_journal(tmp_path / "short", days=1, events=20)
    assert project(short, tmp_path / "lake") == EXIT_INTEGRITY
    refused(capsys, EXIT_INTEGRITY, EXIT_INTEGRITY, "went", "rebuild")
    assert_exact([made], store_of(str(tmp_path / "lake")))


def test_words_that_cannot_be_meant(log, tmp_path, capsys):
    """Numbers out of range are refused with their bounds; a missing log is a usage error."""
    refused(
        capsys, project(log, tmp_path / "lake", "--rows", "0"), EXIT_USER_ERROR, "rows 0: expected 1 or more"
    )
    refused(capsys, project(log, tmp_path / "lake", "--age", "-1"), EXIT_USER_ERROR, "age_secs -1.0")
    assert main(["lake", "project"]) == EXIT_USAGE


def test_store_that_is_away(log, monkeypatch, capsys):
    """A store that gives no answer ends a single projection with 5."""
    for name, value in (
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    refused(capsys, project(log, "s3://bucket/lake"), EXIT_UNREACHABLE, "lake s3://bucket/lake")


def test_lake_that_may_not_be_written(made, tmp_path, capsys):
    """A lake that this user may only read is named; tried as a user without rights, for root may do anything."""
    if os.geteuid() != 0:
        pytest.skip("NO ROOT: the projector was not run as a user without rights")
    assert project(made, tmp_path / "first") == 0  # everything is imported while it can be
    with tempfile.TemporaryDirectory(prefix="holdfast-lake-") as folder:
        Path(folder).chmod(0o755)
        log, lake = Path(shutil.copytree(made, Path(folder) / "log")), Path(folder) / "lake"
        for path in [log, *log.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        lake.mkdir(mode=0o755)
        os.seteuid(65534)
        try:
            code = project(log, lake)
        finally:
            os.seteuid(0)
    refused(capsys, code, EXIT_USER_ERROR, "permission denied", "hint:")


def _limited(log: Path, lake: Path, most: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Project where no file may grow beyond *most* bytes, as on a disk without room."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast", "lake", "project", str(log), "--lake", str(lake), "--no-maintenance", *options],
        **small_files(most), capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_disk_that_refuses_a_data_file(log, tmp_path):
    """A disk that takes no data file ends with 4; with room again the lake equals the journal."""
    done = _limited(log, tmp_path / "lake", 6_500)
    assert done.returncode == EXIT_CANNOT_ACT, done.stderr
    assert "free space" in done.stderr
    assert not list((tmp_path / "lake").glob("*/event_date=*/*")), "a data file that was cut off was left"
    assert project(log, tmp_path / "lake") == 0
    assert_exact([log], store_of(str(tmp_path / "lake")))


@pytest.mark.slow
@pytest.mark.parametrize("free_kib", [4, 24, 40, 64])
def test_disk_that_fills_up_anywhere(log, free_kib):
    """On a real file system that is full before, in or behind a data file or a commit: 4, and whole with room again."""
    with image_folder() as folder:
        image, mount = folder / "lake.img", folder / "mnt-lake"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(6 << 20)
        subprocess.run(["mkfs.ext4", "-qF", "-m0", "-b", "1024", "-J", "size=1", str(image)], check=True)
        mounted = subprocess.run(
            ["mount", "-o", "loop", str(image), str(mount)], check=False, capture_output=True, text=True
        )
        if mounted.returncode:
            pytest.skip(f"NO LOOP DEVICE: a full disk was not tested ({mounted.stderr.strip()})")
        try:
            store = store_of(str(mount / "lake"))
            _fill_but(mount, free_kib)
            code = project(log, mount / "lake")
            assert code in {EXIT_CANNOT_ACT, EXIT_USER_ERROR}
            (mount / "filler").unlink()
            assert project(log, mount / "lake") == 0
            assert_exact([log], store)
        finally:
            subprocess.run(["umount", "-l", str(mount)], check=True)


def _fill_but(mount: Path, free_kib: int) -> None:
    with (mount / "filler").open("wb") as filler:
        filler.write(bytes((os.statvfs(mount).f_bavail - free_kib) * 1024))
