from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.journal import HandmadeLog, rows, small_log

from holdfast.audit.format import encode_details, encode_line
from holdfast.audit.head import HeadState
from holdfast.audit.verify import verify
from holdfast.core.errors import BadInput


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def test_a_closed_log_is_intact(home):
    """An orderly log has no problem, its count and its root."""
    log = small_log(home)
    report = verify(home)
    assert report.ok
    assert report.problems == []
    assert not report.needs_recovery
    assert report.total_entries == 11
    assert report.state == "closed"
    assert report.root == log.frontier.root().hex()
    assert report.log_id == log.log_id


def test_a_sealed_segment_is_checked_like_a_raw_one(home):
    """Sealing a segment changes neither count nor root."""
    log = small_log(home, seal_first=True)
    report = verify(home)
    assert report.ok, report.problems
    assert report.root == log.frontier.root().hex()


def test_an_empty_directory_is_an_empty_log(home):
    """A log that was never written to has nothing wrong."""
    home.mkdir(mode=0o700)
    report = verify(home)
    assert report.ok
    assert report.state == "empty"


def test_a_missing_directory_is_refused_by_name(home):
    """Verifying what does not exist is the caller's mistake, not an intact log."""
    with pytest.raises(BadInput, match="no audit log"):
        verify(home)


@pytest.mark.invariant("I8")
@pytest.mark.parametrize("index", range(11))
def test_a_dropped_record_is_named(home, index):
    """A record that was taken out is named by its sequence."""
    small_log(home)
    path, line = _nth_line(home, index)
    path.write_bytes(path.read_bytes().replace(line, b""))
    report = verify(home)
    assert report.first_bad.sequence == index + 1
    assert report.corrupted_entries >= 1


@pytest.mark.invariant("I8")
def test_swapped_records_are_named(home):
    """Two neighbours that changed places are found at the first of them."""
    small_log(home)
    path, line = _nth_line(home, 2)
    _, after = _nth_line(home, 3)
    path.write_bytes(path.read_bytes().replace(line + after, after + line))
    assert verify(home).first_bad.sequence == 3


@pytest.mark.invariant("I8")
def test_an_inserted_copy_is_found(home):
    """A record that stands there twice is found."""
    small_log(home)
    path, line = _nth_line(home, 2)
    path.write_bytes(path.read_bytes().replace(line, line + line))
    assert verify(home).first_bad.sequence == 4


def _nth_line(home: Path, index: int) -> tuple[Path, bytes]:
    lines = [
        (path, line)
        for path in sorted(home.glob("*.log"))
        for line in path.read_bytes().splitlines(keepends=True)
    ]
    return lines[index]


def test_a_record_replaced_with_a_correct_crc_breaks_the_next_root(home):
    """A line written anew with its CRC is still found by the root that the next segment names."""
    small_log(home)
    path, line = _nth_line(home, 2)
    forged = encode_line(3, 2, 5, "NOTE", "x", "", encode_details({"n": "forged"}))
    content = path.read_bytes().replace(line, forged + b"\n")
    path.write_bytes(content)
    report = verify(home)
    assert report.first_bad.sequence == 7
    assert "root" in report.first_bad.reason


@pytest.mark.parametrize("name", ["notes.txt", "audit_20251120_102000_000000000002.log.gz.tmp", "index"])
def test_an_unknown_file_is_a_problem(home, name):
    """A file that is neither evidence nor the log's own is named."""
    small_log(home)
    (home / name).write_bytes(b"")
    report = verify(home)
    assert [problem.file for problem in report.problems] == [name]


def test_a_link_in_place_of_a_segment_is_a_problem(home, tmp_path):
    """A segment that is a link to an equal file elsewhere is not accepted."""
    small_log(home)
    path = min(home.glob("*.log"))
    shutil.move(path, tmp_path / "elsewhere.log")
    path.symlink_to(tmp_path / "elsewhere.log")
    assert verify(home).first_bad.sequence == 1


def test_a_directory_or_pipe_in_place_of_a_file_neither_hangs_nor_crashes(home):
    """Verification ends, with a problem, whatever lies under the names it knows."""
    import os

    small_log(home)
    (home / "head").unlink()
    os.mkfifo(home / "head")
    (home / "quarantine").write_bytes(b"")
    first = min(home.glob("*.log"))
    first.unlink()
    first.mkdir()
    report = verify(home)
    assert not report.ok
    assert report.first_bad.reason


@pytest.mark.parametrize("position", [0, 1])
def test_a_missing_segment_is_named(home, position):
    """A file that is gone is found, first or last."""
    small_log(home)
    sorted(home.glob("*.log"))[position].unlink()
    assert verify(home).first_bad.sequence == (1, 7)[position]


def test_a_missing_head_is_a_problem(home):
    """Segments without their head have lost it."""
    small_log(home)
    (home / "head").unlink()
    report = verify(home)
    assert report.problems[0].file == "head"


def test_raw_and_compressed_that_are_equal_count_once(home):
    """The moment between rename and unlink is no damage."""
    log = HandmadeLog(home)
    name = log.segment(rows(5))
    raw = (home / name).read_bytes()
    sealed = log.seal(name)
    (home / name).write_bytes(raw)
    log.segment([("SEALED", sealed)])
    log.head()
    report = verify(home)
    assert report.ok, report.problems
    assert report.total_entries == 8


def test_raw_and_compressed_that_differ_are_corruption(home):
    """Two versions of one segment are never both accepted."""
    log = HandmadeLog(home)
    name = log.segment(rows(5))
    raw = (home / name).read_bytes()
    sealed = log.seal(name)
    (home / name).write_bytes(raw.replace(b'"n":3', b'"n":4'))
    log.segment([("SEALED", sealed)])
    log.head()
    report = verify(home)
    assert any("differs" in problem.reason for problem in report.problems)


def test_a_compressed_segment_without_sealed_is_a_problem(home):
    """Compression alone vouches for nothing."""
    log = HandmadeLog(home)
    log.seal(log.segment(rows(5)))
    log.segment(rows(1))
    log.head()
    assert "no SEALED record" in verify(home).problems[0].reason


def test_a_recompressed_segment_is_a_problem(home):
    """The same lines packed anew are not the file that SEALED vouches for."""
    log = HandmadeLog(home)
    name = log.segment(rows(9))
    sealed = log.seal(name)
    log.segment([("SEALED", sealed)])
    log.head()
    import gzip

    packed = home / (name + ".gz")
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()), mtime=0))
    assert "SEALED (sequence 12)" in verify(home).problems[0].reason


@pytest.mark.parametrize(
    "tail", [b"", b"\n" * 100, b'{"crc":"00', b"\0" * 512, b"\n\n" + b"garbage\n" + b"\n" * 50]
)
def test_a_torn_tail_needs_recovery_and_is_not_damage(home, tail):
    """What a crash may leave behind the head of an open log is named, with exit code 0."""
    log = HandmadeLog(home)
    name = log.segment(rows(5))
    log.head(HeadState.OPEN)
    path = home / name
    path.write_bytes(path.read_bytes() + tail)
    report = verify(home)
    assert report.ok, report.problems
    assert report.needs_recovery == bool(tail.strip(b"\n"))
    if report.needs_recovery:
        assert "from sequence 7" in report.recovery_range
        assert name in report.recovery_range


def test_written_lines_beyond_the_head_need_recovery(home):
    """Lines that were written but never synced are kept, and named as still to be made durable."""
    log = HandmadeLog(home)
    log.segment(rows(5))
    end = (home / log.name).read_bytes().index(b'"seq":5,') - len('{"crc":"00000000",')
    # `synced` in the lines would prove more than this head: make them say only 4.
    lines = (home / log.name).read_bytes().splitlines()
    relined = [encode_line(5, 4, 1, "NOTE", "u", "", b"{}"), encode_line(6, 4, 1, "NOTE", "u", "", b"{}")]
    (home / log.name).write_bytes(b"\n".join([*lines[:4], *relined, b""]))
    log.head(HeadState.OPEN, sequence=4, end=end)
    report = verify(home)
    assert report.ok, report.problems
    assert report.needs_recovery
    assert report.recovery_range == "sequences 5 to 6 are to be made durable"


def test_a_durable_record_missing_from_an_open_log_is_damage(home):
    """A line that a later `synced` proves durable may not be missing, crash or not."""
    log = HandmadeLog(home)
    log.segment(rows(5))
    path = home / log.name
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"x" * (len(lines[2]) - 1) + b"\n", *lines[3:]]))
    log.head(HeadState.OPEN, sequence=2, end=len(lines[0]) + len(lines[1]))
    report = verify(home)
    assert not report.ok
    assert report.first_bad.sequence == 3


def test_lines_beyond_a_closed_head_are_damage(home):
    """Nothing may follow the last record of a log that was closed in order."""
    log = HandmadeLog(home)
    log.segment(rows(5))
    end = (home / log.name).read_bytes().index(b'"seq":6,') - len('{"crc":"00000000",')
    log.head(HeadState.CLOSED, sequence=5, end=end)
    report = verify(home)
    assert report.first_bad.sequence == 6


def test_filler_between_records_is_damage(home):
    """Filler stands only behind the last line."""
    small_log(home)
    path, line = _nth_line(home, 2)
    path.write_bytes(path.read_bytes().replace(line, b"\n" + line))
    assert verify(home).first_bad.sequence == 3


def test_filler_behind_a_segment_that_others_follow_is_damage(home):
    """A rotated segment was cut to size."""
    small_log(home)
    path = min(home.glob("*.log"))
    path.write_bytes(path.read_bytes() + b"\n")
    report = verify(home)
    assert not report.ok
    assert "filler" in report.problems[0].reason


@pytest.mark.invariant("I8")
def test_a_closed_head_has_both_its_slots(home):
    """The older slot, wiped out, is found: before a clean close both had been written."""
    small_log(home)
    page = bytearray((home / "head").read_bytes())
    page[512 : 512 + 104] = bytes(104)
    (home / "head").write_bytes(bytes(page))
    assert not verify(home).ok


def test_the_head_must_end_where_the_record_ends(home):
    """A head that names another end than the record's is found."""
    log = HandmadeLog(home)
    log.segment(rows(5))
    log.head(end=log.end - 1)
    assert verify(home).problems[0].sequence == 6


def test_quarantined_tails_are_checked_against_their_names(home):
    """A kept tail whose content changed, or that nobody named, is a problem."""
    from hashlib import sha256

    log = HandmadeLog(home)
    tail = b"torn"
    name = f"audit_20251120_102000_000000000001.log-99-{sha256(tail).hexdigest()[:16]}"
    recovery = {
        "first_lost": 3, "known_durable": 2, "file": "f", "offset": 99, "tail_bytes": 4, "quarantine": [name], "head": "open",
    }  # fmt: skip
    log.segment([*rows(1), ("RECOVERY", recovery)])
    log.head()
    assert "missing" in verify(home).problems[0].reason
    (home / "quarantine").mkdir(mode=0o700)
    (home / "quarantine" / name).write_bytes(tail)
    assert verify(home).ok
    (home / "quarantine" / name).write_bytes(b"torm")
    assert "SHA-256" in verify(home).problems[0].reason


def test_the_report_as_a_dict_has_the_contracts_keys(home):
    """`to_dict` carries the names that callers index."""
    small_log(home)
    facts = verify(home).to_dict()
    assert facts["total_entries"] == 11
    assert facts["corrupted_entries"] == 0
    assert facts["integrity_ok"] is True
    assert facts["first_bad_sequence"] is None


def test_progress_is_told_every_byte(home):
    """The progress callback ends at the log's raw size."""
    small_log(home, (50, 50))
    seen: list[int] = []
    verify(home, seen.append)
    assert seen[-1] == sum(path.stat().st_size for path in home.glob("*.log"))
