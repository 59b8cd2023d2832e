"""Whatever somebody put into the directory, verification ends soon, in little memory, with a report."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from support.forge import KeyThief, signed_log

from holdfast.audit.format import encode_line
from holdfast.audit.verify import verify

pytestmark = [pytest.mark.invariant("I8")]

TERABYTE = 1 << 40
MOST_SECS = 20.0
"""Far more than any of these takes, far less than a file of a terabyte would."""
MOST_BYTES = 200 << 20
"""Memory that one verification may add, at most."""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    signed_log(root / "log", KeyThief(root / "keys").home, (3, 3, 3))
    assert verify(root / "log").ok
    return root / "log"


@pytest.fixture
def home(original, tmp_path):
    shutil.copytree(original, tmp_path / "log")
    (tmp_path / "log").chmod(0o700)
    return tmp_path / "log"


def expect_report(home: Path) -> None:
    """The log is not intact, and to say so took neither long nor much memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    report = verify(home)
    assert not report.ok
    assert report.first_bad.reason
    assert report.to_dict()["problem_count"] >= 1
    assert time.monotonic() - start < MOST_SECS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_BYTES


def kinds(home: Path) -> dict[str, Path]:
    """One file of each kind."""
    return {
        "segment": min(home.glob("*.log")),
        "sealed": min(home.glob("*.log.gz")),
        "index": min(home.glob("*.idx")),
        "history": min(home.glob("*.checkpoints")),
        "checkpoint": home / "checkpoint",
        "head": home / "head",
        "tile": next(path for path in sorted((home / "tile").rglob("*")) if path.is_file()),
    }


KINDS = ("segment", "sealed", "index", "history", "checkpoint", "head", "tile")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_claims_a_terabyte_is_given_up(home, kind):
    """A sparse file of any size is no work."""
    os.truncate(kinds(home)[kind], TERABYTE)
    expect_report(home)


@pytest.mark.parametrize("name", ["quarantine/audit_20251120_102000_000000000001.log-0-0123456789abcdef", "run/reserve"])  # fmt: skip
def test_a_side_file_that_claims_a_terabyte_is_given_up(home, name):
    """Nor is one in a folder."""
    (home / name).parent.mkdir(exist_ok=True)
    (home / name).touch()
    os.truncate(home / name, TERABYTE)
    expect_report(home)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["link", "pipe", "folder", "device", "loop"])
def test_what_is_no_file_is_neither_followed_nor_waited_for(home, kind, what, tmp_path):
    """A link, a pipe, a folder, a device or a link to itself under a known name is a problem."""
    path = kinds(home)[kind]
    kept = tmp_path / "kept"
    shutil.move(path, kept)
    if what == "link":
        path.symlink_to(kept)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    elif os.geteuid() == 0:
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero
        except PermissionError:
            pytest.skip("this root may not make devices")
    else:
        pytest.skip("only root makes devices")
    expect_report(home)


@pytest.mark.parametrize("folder", ["tile", "run", "quarantine"])
@pytest.mark.parametrize("what", ["link", "pipe", "file"])
def test_what_is_no_folder_is_a_problem(home, folder, what, tmp_path):
    """A folder of the log that is something else is named."""
    path = home / folder
    if path.exists():
        shutil.move(path, tmp_path / "kept")
    else:
        (tmp_path / "kept").mkdir()
    if what == "link":
        path.symlink_to(tmp_path / "kept")
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"")
    expect_report(home)


def test_a_gzip_bomb_is_cut_off_at_a_member(home):
    """A member that unpacks to 64 MiB, and a thousand members of zeros, cost no memory."""
    packed = kinds(home)["sealed"]
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(pack.compress(bytes(1 << 20)) for _ in range(64)) + pack.flush()
    packed.write_bytes(packed.read_bytes() + bomb)
    expect_report(home)
    packed.write_bytes(zlib.compress(bytes(128 << 10), 9, wbits=31) * 1000)
    expect_report(home)


def test_empty_members_take_no_memory(home):
    """Any number of gzip members without a line in them is damage, and costs its reader nothing."""
    packed = kinds(home)["sealed"]
    member = zlib.compressobj(6, wbits=31).flush()
    with packed.open("ab") as file:
        file.write(member * 8_000)
    tracemalloc.start()
    report = verify(home, jobs=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not report.ok
    assert peak < 2 << 20


def test_starts_of_members_without_end_are_given_up(home):
    """A file full of member headers is not unpacked from each of them."""
    kinds(home)["sealed"].write_bytes((b"\x1f\x8b\x08" + bytes(5)) * 500_000)
    expect_report(home)


@pytest.mark.parametrize(
    "content",
    [b"x" * (3 << 20), b"x\n" * (1 << 20), b"\nx" * (1 << 20), b"[" * (3 << 20), b'{"crc":"' * (1 << 18)],
    ids=["endless", "short lines", "filler and lines", "brackets", "openings"],
)
def test_lines_that_are_none_are_given_up(home, content):
    """No line end, nothing but line ends, or nesting without end: the rest is still verified."""
    path = kinds(home)["segment"]
    path.write_bytes(path.read_bytes() + content)
    expect_report(home)


@pytest.mark.parametrize(
    "content", [b"x\n\n" * 300_000, b"a\nb\nc\n\nd\n\n" * 100_000, b"\xe2\x80\x94 " * 300_000]
)
def test_histories_that_are_none_are_given_up(home, content):
    """A checkpoint history of any rubbish ends."""
    path = kinds(home)["history"]
    path.write_bytes(path.read_bytes() + content)
    expect_report(home)


@pytest.mark.parametrize("details", [b"[" * 30_000 + b"]" * 30_000, b'{"a":' * 9_000 + b"1" + b"}" * 9_000, b'{"a":1e999}', b'{"a":' + b"9" * 60_000 + b"}"])  # fmt: skip
def test_a_record_that_no_reader_can_hold_is_damage(home, details):
    """Nesting, and numbers, beyond what a reader holds are no crash."""
    path = kinds(home)["segment"]
    lines = path.read_bytes().splitlines(keepends=True)
    sequence = int(path.name.split("_")[3][:12]) + 2
    forged = encode_line(sequence, 0, 1, "NOTE", "", "", details)
    path.write_bytes(b"".join([*lines[:2], forged + b"\n", *lines[3:]]))
    expect_report(home)


@pytest.mark.parametrize("type_", ["SEGMENT", "KEY", "SEALED", "RECOVERY", "PRUNED", "LATE"])
@pytest.mark.parametrize("details", [b"{}", b'{"epoch":1e300}', b'{"epoch":-1,"vkey":"","reason":"first","note":""}',
    b'{"epoch":2,"vkey":"a+b","reason":"rotation","note":"holdfast key v1\\na\\nb\\n2\\na\\n\\n"}', b'{"quarantine":["../../etc/passwd"],"segment":"../x"}'])  # fmt: skip
def test_the_logs_own_records_are_believed_in_nothing(home, type_, details):
    """A record by which the log speaks of itself may say anything."""
    path = kinds(home)["segment"]
    lines = path.read_bytes().splitlines(keepends=True)
    first = int(path.name.split("_")[3][:12])
    for at in range(3):
        forged = encode_line(first + at, 0, 1, type_, "", "journal", details)
        path.write_bytes(b"".join([*lines[:at], forged + b"\n", *lines[at + 1 :]]))
        expect_report(home)


def test_a_directory_full_of_strange_files_is_counted(home):
    """A thousand strange names, and as many under tile/, are problems and no quadratic work."""
    for at in range(1000):
        (home / f"strange-{at}").touch()
        (home / "tile" / "0" / f"{at:05}").touch()
    report = verify(home)
    assert report.problem_count == 2000
    assert len(report.problems) == 1000
    expect_report(home)


def test_deep_folders_under_the_log_are_not_entered(home):
    """A folder in a folder in a folder is one problem."""
    path = home / "tile" / "0"
    for _ in range(150):
        path /= "x000"
        path.mkdir()
    (home / "tile" / "0" / "x001" / "x002").mkdir(parents=True)
    (path / "000").touch()
    expect_report(home)
