import gzip
import os
import shutil
import tracemalloc
import zlib
from itertools import product
from random import Random

import pytest
from support.crash import LOG, SteppedLog, lines_on
from support.journal import HandmadeLog

from holdfast.audit import recovery
from holdfast.audit.format import encode_details, encode_line
from holdfast.audit.head import HeadState, encode_slot, read_head
from holdfast.audit.keys import KeyHome
from holdfast.audit.recovery import Verdict, decide
from holdfast.audit.storage import LocalStorage
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, LogHeld
from holdfast.testing.storage import SimulatedStorage


@pytest.mark.parametrize(
    ("known", "only_filler", "closed"), list(product([3, 7, 8, 9, 10, 15], [True, False], [True, False]))
)
def test_decision_is_the_one_of_the_table(known, only_filler, closed):
    """For s = 10 every combination of m, filler and head gets the verdict of the published table."""
    verdict = decide(10, known, only_filler=only_filler, closed=closed)
    if known >= 10:
        assert verdict is Verdict.CORRUPT
    elif known == 9 and only_filler:
        assert verdict is Verdict.INTACT
    else:
        assert verdict is (Verdict.CORRUPT if closed else Verdict.TORN)


def written(
    durable: int = 3, more: int = 0, *, close: bool = False, rotate_bytes: int = 100_000
) -> SimulatedStorage:
    """A disk with a log of *durable* acknowledged records and *more* that were only written."""
    disk = SimulatedStorage()
    log = SteppedLog(
        LOG,
        clock=ManualClock(),
        storage=disk,
        seal=False,
        rotate_bytes=rotate_bytes,
        random_bytes=Random(1).randbytes,
    )
    for count in range(durable):
        log.append("NOTE", {"tag": f"d{count}"})
    for count in range(more):
        log.append("NOTE", {"tag": f"w{count}"}, level=Level.WRITTEN)
    if close:
        log.close()
    return disk.after_kill()


def segment(disk: SimulatedStorage) -> bytearray:
    return next(content for name, content in sorted(disk.content(LOG).items()) if name.startswith("audit_"))


def end_of(content: bytearray) -> int:
    return len(content.rstrip(b"\n")) + 1


def reopen(disk: SimulatedStorage) -> list[tuple[int, str, dict]]:
    log = SteppedLog(LOG, clock=ManualClock(), storage=disk, seal=False)
    log.open()
    log.close()
    return lines_on(disk)


def test_intact_log_is_left_alone():
    """A log that was killed after its last acknowledgement gets no RECOVERY and no quarantine."""
    disk = written()
    assert [type_ for _, type_, _ in reopen(disk)] == ["SEGMENT", "NOTE", "NOTE", "NOTE"]


def test_torn_tail_is_copied_cleared_and_named():
    """A torn tail is kept in quarantine byte for byte and named by a RECOVERY record."""
    disk = written()
    content = segment(disk)
    end = end_of(content)
    torn = b'{"crc":"00000000","seq":5,"syn'
    content[end : end + len(torn)] = torn
    found = reopen(disk)
    seq, type_, details = found[-1]
    assert (seq, type_) == (5, "RECOVERY")
    assert (details["first_lost"], details["known_durable"], details["tail_bytes"]) == (5, 4, len(torn))
    assert details["offset"] == end
    (name,) = details["quarantine"]
    folder = disk.directory(LOG, create=False).subdirectory(recovery.QUARANTINE)
    assert folder.names() == [name]
    assert folder.open(name).pread(1000, 0) == torn
    assert name.startswith(f"{details['file']}-{end}-")
    assert len(reopen(disk)) == len(found), "a second start repeats nothing"


def test_records_that_were_only_written_survive_a_kill():
    """WRITTEN records behind the acknowledged ones are kept, and made durable by the restart."""
    disk = written(3, 4)
    found = reopen(disk)
    assert [details.get("tag") for _, _, details in found[1:]] == [
        "d0",
        "d1",
        "d2",
        "w0",
        "w1",
        "w2",
        "w3",
        None,
    ]
    assert found[-1][1] == "RECOVERY"
    assert found[-1][2]["quarantine"] == []
    assert lines_on(disk.after_power_cut(Random(0))) == found


def test_quarantine_without_a_recovery_record_gets_one_at_the_next_start():
    """A whole copy that no RECOVERY names is named at the next start, an incomplete one is removed."""
    disk = written()
    folder = disk.directory(LOG, create=False).subdirectory(recovery.QUARANTINE)
    tail = recovery.Tail("audit_20251120_102000_000000000001.log", 700, b"torn", only_filler=False)
    for name, content in ((recovery.quarantine_name(tail), b"torn"), ("x-1-0123456789abcdef", b"cut")):
        file = folder.create(name)
        file.pwrite(content, 0)
        file.fsync()
    found = reopen(disk)
    assert found[-1][1] == "RECOVERY"
    assert found[-1][2]["quarantine"] == [recovery.quarantine_name(tail)]
    assert folder.names() == [recovery.quarantine_name(tail)]
    assert len(reopen(disk)) == len(found)


@pytest.mark.invariant("I8")
@pytest.mark.parametrize("line", range(4))
def test_damaged_acknowledged_line_is_refused_and_named(line):
    """A changed byte in any acknowledged line opens read-only: nothing is changed, the record is named."""
    disk = written(3, 2)
    content = segment(disk)
    starts = [0]
    for _ in range(5):
        starts.append(content.index(b"\n", starts[-1]) + 1)
    content[starts[line] + 60] ^= 0x10
    before = {name: bytes(data) for name, data in disk.content(LOG).items()}
    log = SteppedLog(LOG, clock=ManualClock(), storage=disk, seal=False)
    with pytest.raises(AuditCorruption) as caught:
        log.append("NOTE", {})
    assert (caught.value.sequence, caught.value.offset) == (line + 1, starts[line])
    assert caught.value.file == "audit_20251120_102000_000000000001.log"
    assert f"sequence {line + 1}" in str(caught.value)
    assert {name: bytes(data) for name, data in disk.content(LOG).items()} == before
    assert log.state == "closed"


def test_forged_later_line_makes_us_refuse_and_never_delete():
    """A forged line that claims a high `synced` behind a torn one turns repair into refusal."""
    disk = written()
    content = segment(disk)
    end = end_of(content)
    forged = b"garbage\n" + encode_line(9, 8, 1, "NOTE", "", "", encode_details({}))
    content[end : end + len(forged)] = forged
    before = bytes(content)
    with pytest.raises(AuditCorruption, match="sequence 5"):
        reopen(disk)
    assert bytes(segment(disk)) == before


@pytest.mark.parametrize("damage", ["cut", "garbage", "record"])
def test_everything_unusual_after_a_clean_close_is_corruption(damage):
    """After a clean close a missing line, a bad line and a line beyond the head are all refused."""
    disk = written(3, close=True)
    content = segment(disk)
    if damage == "cut":
        del content[content.rstrip(b"\n").rindex(b"\n") + 1 :]
    elif damage == "garbage":
        content += b"garbage\n"
    else:
        content += encode_line(5, 4, 1, "NOTE", "", "", encode_details({})) + b"\n"
    with pytest.raises(AuditCorruption):
        reopen(disk)


def test_missing_last_segment_is_corruption():
    """A whole segment that is gone is named by the first sequence it held."""
    disk = written(40, rotate_bytes=4096)
    files = disk.content(LOG)
    names = sorted(name for name in files if name.startswith("audit_"))
    assert len(names) > 1
    disk.directory(LOG, create=False).unlink(names[-1])
    with pytest.raises(AuditCorruption) as caught:
        reopen(disk)
    assert caught.value.sequence == int(names[-1][22:34])


def test_swapped_record_with_a_right_crc_is_found_by_the_next_segments_root():
    """A record rewritten with a right CRC is found, because the next segment holds the root over it."""
    disk = written(40, rotate_bytes=4096)
    content = segment(disk)
    lines = bytes(content).split(b"\n")
    record = recovery.decode_line(lines[3])
    changed = encode_line(
        record.seq,
        record.synced,
        record.ts,
        record.type,
        record.user,
        record.component,
        encode_details({"tag": "e2"}),
    )
    assert len(changed) == len(lines[3])
    lines[3] = changed
    content[:] = b"\n".join(lines)
    with pytest.raises(AuditCorruption, match="root"):
        reopen(disk)


def test_lost_head_is_made_anew_and_named():
    """A log without head opens by the `synced` of its lines and says in its RECOVERY record that it was missing."""
    disk = written(3)
    disk.directory(LOG, create=False).unlink("head")
    found = reopen(disk)
    assert found[-1][1] == "RECOVERY"
    assert found[-1][2]["head"] == "missing"
    assert read_head(disk.directory(LOG, create=False)).state is HeadState.CLOSED


def test_head_ahead_of_the_lines_is_corruption():
    """A head that claims more than the lines hold means that acknowledged records are gone."""
    disk = written(3)
    head = disk.content(LOG)["head"]
    mark = read_head(disk.directory(LOG, create=False))
    forged = encode_slot(mark._replace(sequence=9, writes=mark.writes + 1))
    head[512 * ((mark.writes + 1) & 1) :][: len(forged)] = forged
    offset = 512 * ((mark.writes + 1) & 1)
    head[offset : offset + len(forged)] = forged
    with pytest.raises(AuditCorruption, match="durable up to 9"):
        reopen(disk)


def test_empty_last_segment_is_reused():
    """A segment that was created and never written is taken for the next record, not left behind."""
    disk = written(3)
    directory = disk.directory(LOG, create=False)
    directory.create("audit_20251120_110000_000000000005.log")
    log = SteppedLog(LOG, clock=ManualClock(), storage=disk, seal=False)
    assert log.append("NOTE", {"tag": "x"}) == 6
    log.close()
    assert [type_ for _, type_, _ in lines_on(disk)] == ["SEGMENT", "NOTE", "NOTE", "NOTE", "SEGMENT", "NOTE"]


@pytest.mark.parametrize("bomb", [b"\n" * (64 << 20), b"x" * (64 << 20)])
def test_gzip_bomb_is_refused_without_being_unpacked(bomb):
    """A compressed segment that would unpack to far more than a member may hold costs a member's memory, and is
    corruption."""
    disk = written(close=True)
    name = next(name for name in disk.content(LOG) if name.startswith("audit_"))
    packed = disk.directory(LOG, create=False).create(name + ".gz")
    packed.pwrite(gzip.compress(bomb, 1), 0)
    disk.directory(LOG, create=False).unlink(name)
    tracemalloc.start()
    try:
        with pytest.raises(AuditCorruption):
            recovery.scan(disk.directory(LOG, create=False))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("note", [b"9" * 31, b"-1", b"0", b"x", b""])
def test_writer_that_noted_nonsense_about_itself_is_just_another_process(tmp_path, note):
    """Whatever stands in run/pid, a second writer is refused by name or as "another process"."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False) as log:
        log.append("NOTE", {})
        (tmp_path / "log" / "run" / "pid").write_bytes(note)
        second = WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False)
        with pytest.raises(LogHeld, match="another process writes it"):
            second.open()


def test_segment_of_many_pieces_reads_as_one(monkeypatch):
    """Lines are found wherever the pieces of a file are cut, and a torn last line is still copied whole."""
    disk = written(60, 3)
    whole = recovery.scan(disk.directory(LOG, create=False))
    name = whole.segments[0].name.name
    line = encode_line(64, 0, 1, "NOTE", "", "", encode_details({}))
    disk.content(LOG)[name][whole.segments[0].end : whole.segments[0].end + len(line) - 9] = line[:-9]
    expected = recovery.scan(disk.directory(LOG, create=False))
    for chunk in (64, 100, 333, 4096):
        monkeypatch.setattr(recovery, "_CHUNK", chunk)
        found = recovery.scan(disk.directory(LOG, create=False))
        assert (found.first_missing, found.place, found.reason) == (
            expected.first_missing,
            expected.place,
            expected.reason,
        )
        assert found.frontier.root() == expected.frontier.root()
        assert [tail.content for tail in found.tails] == [line[:-9]]


@pytest.mark.parametrize("type_", ["SEGMENT", "RECOVERY"])
def test_record_of_the_log_itself_that_no_reader_takes_apart_is_corruption(tmp_path, type_):
    """A SEGMENT or RECOVERY record with a right checksum over senseless details is named as damage, not a crash."""
    log = HandmadeLog(tmp_path / "log")
    log.segment([("RECOVERY", {"quarantine": []})])
    log.head()
    path = tmp_path / "log" / log.name
    lines = path.read_bytes().splitlines()
    at = 0 if type_ == "SEGMENT" else 1
    body = lines[at][18:].replace(b'"details":{', b'"details":{"z":1e999,')
    lines[at] = b'{"crc":"%08x",%b' % (zlib.crc32(body), body)
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(AuditCorruption, match=f"sequence {at + 1} in"):
        WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False).open()


@pytest.mark.invariant("I7")
def test_tail_that_claims_any_size_is_not_taken_into_memory(tmp_path):
    """A hole behind the last record is passed over piece by piece; one that no crash leaves is damage, by name."""
    WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False).append("NOTE", {"n": 1})
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    (name,) = (path for path in (tmp_path / "copy").glob("audit_*.log"))
    os.truncate(name, 96 << 20)
    directory = LocalStorage().directory(tmp_path / "copy", create=False)
    tracemalloc.start()
    found = recovery.scan(directory)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20
    assert (found.first_missing, found.only_filler, found.tails[0].content) == (3, False, b"")
    os.truncate(name, recovery.MAX_TAIL_BYTES + (1 << 20))
    with pytest.raises(AuditCorruption, match="bytes follow that are no records") as refused:
        recovery.scan(directory)
    assert (refused.value.sequence, refused.value.file) == (3, name.name)
    directory.close()


@pytest.mark.parametrize("begins", [2, 7])
def test_empty_segment_that_is_not_the_next_one_is_refused(tmp_path, begins):
    """An empty file in the place of another record is named, and the head still says "closed"."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False) as log:
        for number in range(3):
            log.append("NOTE", {"n": number})
    stray = tmp_path / "log" / f"audit_20300101_000000_{begins:012d}.log"
    stray.write_bytes(b"")
    head = (tmp_path / "log" / "head").read_bytes()
    with pytest.raises(AuditCorruption, match="an empty segment where only one for sequence 5") as refused:
        WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False).append("NOTE", {})
    assert refused.value.file == stray.name
    assert (tmp_path / "log" / "head").read_bytes() == head


def test_log_that_lost_its_first_segment_is_refused_whatever_was_signed_behind_it(tmp_path):
    """A start that may begin behind the newest checkpoint still misses the segment that the log begins with."""
    with WriteAheadLog(
        tmp_path / "log", clock=ManualClock(), seal=False, keys=KeyHome(tmp_path / "keys")
    ) as log:
        for number in range(3):
            log.append("NOTE", {"n": number})
            log.rotate()
    min((tmp_path / "log").glob("audit_*.log"), key=lambda path: path.name[-16:]).unlink()
    again = WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False, keys=KeyHome(tmp_path / "keys"))
    with pytest.raises(AuditCorruption, match="sequence 1 "):
        again.append("NOTE", {})
