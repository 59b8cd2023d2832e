"""Reading a journal forward: every line once, in its place, from any sequence on, or a named refusal."""

from __future__ import annotations

import shutil

import pytest
from support.journal import HandmadeLog, rows

from holdfast.audit.head import HeadState
from holdfast.audit.query import read_lines
from holdfast.core.errors import AuditCorruption, BadInput
from holdfast.lake.journal import JournalReader


def read_all(reader: JournalReader, most: int = 1000) -> list[bytes]:
    lines: list[bytes] = []
    while (piece := reader.read(most)) is not None:
        assert [facts.seq for facts in piece.facts] == list(range(piece.first_seq, piece.last_seq + 1))
        assert len(piece.lines) <= most
        assert piece.epoch <= piece.first_seq
        lines += piece.lines
    return lines


@pytest.fixture
def log(tmp_path) -> HandmadeLog:
    """Three segments: one with filler, a sealed one, one that is written on."""
    log = HandmadeLog(tmp_path / "log")
    log.segment(rows(50), filler=5000)
    second = log.segment(rows(30))
    log.segment([("SEALED", log.seal(second)), *rows(20)], filler=300)
    log.head(HeadState.OPEN)
    return log


@pytest.mark.parametrize("most", [1, 7, 1000])
@pytest.mark.parametrize("start", [1, 2, 51, 52, 60, 82, 83, 104])
def test_reader_gives_each_line_once_from_any_sequence(log, start, most):
    """Whatever the start and the size of the pieces, the lines are those of the log, in order."""
    reader = JournalReader(log.directory)
    assert reader.look() == 104
    assert reader.log_id == "ab" * 16
    reader.seek(start)
    assert read_all(reader, most) == list(read_lines(log.directory))[start - 1 :]
    reader.close()


def test_reader_goes_on_where_the_log_grows(log):
    """Lines that become durable later are given later, through a rotation; none before the head says so."""
    reader = JournalReader(log.directory)
    reader.look()
    seen = read_all(reader)
    log.segment(rows(5))
    assert reader.look() == 104
    assert reader.read(10) is None
    log.head(HeadState.OPEN, sequence=107)
    reader.look()
    seen += read_all(reader)
    assert len(seen) == 107
    log.head(HeadState.OPEN)
    reader.look()
    assert seen + read_all(reader) == log.lines


def test_reader_forgets_what_was_not_durable(tmp_path):
    """A tail that was read with its piece and written anew by a recovery is read anew."""
    log = HandmadeLog(tmp_path / "log")
    log.segment(rows(10))
    log.head(HeadState.OPEN, sequence=5)
    reader = JournalReader(log.directory)
    reader.look()
    first = read_all(reader)
    assert len(first) == 5
    path = log.directory / log.name
    kept = b"".join(line + b"\n" for line in log.lines[:5])
    log.next_seq, log.synced, log.lines = 6, 5, log.lines[:5]
    path.write_bytes(kept + log.line("NOTE", {"n": "rewritten"}) + b"\n")
    log.head(HeadState.OPEN)
    reader.look()
    assert read_all(reader) == [log.lines[5]]


def test_reader_goes_on_in_a_segment_that_was_sealed_meanwhile(log):
    """A segment that becomes `.log.gz` between two readings is read to its end."""
    reader = JournalReader(log.directory)
    reader.look()
    reader.seek(90)
    piece = reader.read(3)
    assert piece is not None
    log.seal(log.name)
    assert piece.lines + read_all(reader) == list(read_lines(log.directory))[89:]
    again = JournalReader(log.directory)
    again.look()
    again.seek(100)
    assert read_all(again) == list(read_lines(log.directory))[99:]


def test_empty_log_is_waited_on(tmp_path):
    """A directory that holds no record yet has nothing to read, and no id."""
    (tmp_path / "log").mkdir()
    reader = JournalReader(tmp_path / "log")
    assert (reader.look(), reader.read(5), reader.log_id) == (0, None, "")


def test_missing_log_is_named(tmp_path):
    """A directory that does not exist is bad input."""
    with pytest.raises(BadInput, match="no audit log at"):
        JournalReader(tmp_path / "none").look()


def test_log_that_went_back_is_named(log):
    """A head that names less than was durable ends the reading."""
    reader = JournalReader(log.directory)
    reader.look()
    log.head(HeadState.OPEN, sequence=90)
    with pytest.raises(AuditCorruption, match=r"says 90, though sequence 104 was durable"):
        reader.look()


def test_other_log_under_the_same_path_is_named(log, tmp_path):
    """A log that was replaced while it was followed ends the reading, and says which logs they are."""
    reader = JournalReader(log.directory)
    reader.look()
    read_all(reader)
    shutil.rmtree(log.directory)
    other = HandmadeLog(tmp_path / "log", log_id="cd" * 16)
    other.segment(rows(120))
    other.segment(rows(5))
    other.head(HeadState.OPEN)
    reader.look()
    with pytest.raises(AuditCorruption, match=f"was log {'ab' * 16}, and is {'cd' * 16} now"):
        read_all(reader)


def test_damage_is_named_with_its_place(log):
    """A changed byte ends the reading behind the last good piece, with file, sequence and offset."""
    first = min(log.directory.glob("audit_*"))
    data = bytearray(first.read_bytes())
    data[len(data) // 4] ^= 1
    first.write_bytes(data)
    reader = JournalReader(log.directory)
    reader.look()
    with pytest.raises(AuditCorruption, match=r"sequence \d+ in 'audit_"):
        read_all(reader, 1)


def test_missing_segment_is_named(log):
    """A segment that is gone is named by the first sequence that is missing."""
    for path in log.directory.glob("audit_*_000000000052*"):
        path.unlink()
    reader = JournalReader(log.directory)
    reader.look()
    with pytest.raises(AuditCorruption, match="sequence 52"):
        read_all(reader)
    assert reader.next_seq == 52


def test_last_line_of_a_sequence_is_read_alone(log):
    """One line can be asked for without moving the reader."""
    reader = JournalReader(log.directory)
    reader.look()
    assert reader.last_line(60) == list(read_lines(log.directory))[59]
    assert reader.next_seq == 1
