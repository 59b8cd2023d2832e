import asyncio
import errno
import shutil
import threading
from pathlib import Path
from random import Random
from unittest import mock
from zlib import crc32

import pytest
from support.crash import SteppedLog
from support.signed import SignedLog

from holdfast.audit import segment as segment_module
from holdfast.audit import signing
from holdfast.audit.anchor import Mark
from holdfast.audit.format import CRC_END
from holdfast.audit.head import HeadState, read_head
from holdfast.audit.keys import KeyHome
from holdfast.audit.query import read_records
from holdfast.audit.verify import verify
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, AuditWriteError, BadInput, KeyMissing
from holdfast.testing.storage import SimulatedFile, SimulatedStorage

LOG = Path("/log")
KEYS = Path("/keys")


@pytest.fixture(autouse=True)
def small_pages():
    with (
        mock.patch.multiple(segment_module, FIRST_FILL_BYTES=8192, FILL_STEP_BYTES=65536),
        mock.patch.multiple(signing, HISTORY_FILL_BYTES=4096, HISTORY_STEP_BYTES=8192),
    ):
        yield


def stepped(disk: SimulatedStorage, **options) -> SteppedLog:
    """A signed log on a simulated disk, without threads."""
    random = Random(options.pop("seed", 1))
    options = {
        "clock": ManualClock(),
        "seal": False,
        "keys": KeyHome(KEYS, disk, random_bytes=random.randbytes),
    } | options
    return SteppedLog(LOG, storage=disk, random_bytes=random.randbytes, **options)


def real(tmp_path: Path, **options) -> WriteAheadLog:
    """A signed log on the real disk."""
    options = {"clock": ManualClock(), "seal": False, "keys": KeyHome(tmp_path / "home")} | options
    return WriteAheadLog(tmp_path / "log", **options)


def read(disk: SimulatedStorage) -> SignedLog:
    return SignedLog({name: bytes(content) for name, content in disk.content(LOG).items()})


def check(log: SignedLog) -> None:
    """Every checkpoint names the root of the records, sizes grow, and each is by its epoch's key."""
    sizes = [0]
    first_of = {}
    keys_at = {r["details"]["epoch"]: r["seq"] for r in log.records if r["type"] == "KEY"}
    for one in log.checkpoints():
        assert one.size > sizes[-1]
        assert one.root == log.root(one.size)
        epoch = max(epoch for epoch, seq in keys_at.items() if seq <= one.size)
        reason = log.records[keys_at[epoch] - 1]["details"]["reason"]
        both = epoch not in first_of and reason == "rotation"
        assert one.by == ((epoch, epoch - 1) if both else (epoch,))
        first_of.setdefault(epoch, one.size)
        sizes.append(one.size)


# -- epochs -------------------------------------------------------------------------------------------------


@pytest.mark.contract("A13")
def test_every_segment_begins_with_its_own_key():
    """SEGMENT and KEY are the first two records of each file, the epochs count 1, 2, 3, sequences have no gap."""
    disk = SimulatedStorage()
    with stepped(disk, rotate_bytes=6000) as log:
        for count in range(30):
            log.append("NOTE", {"n": count, "x": "y" * 300})
    found = read(disk)
    check(found)
    assert [record["seq"] for record in found.records] == list(range(1, len(found.records) + 1))
    for name in (name for name in found.files if name.endswith(".log")):
        types = [line.split(b'"type":"')[1].split(b'"')[0] for line in found.files[name].split(b"\n") if line]
        assert types[:2] == [b"SEGMENT", b"KEY"]
        assert not {b"SEGMENT", b"KEY"} & set(types[2:])
    assert list(found.keys) == list(range(1, len(found.keys) + 1))
    assert len(found.keys) > 3


def test_rotation_is_covered_before_the_new_file_has_a_line():
    """The last note beside each finished segment covers all of it, and its file is cut behind that note."""
    disk = SimulatedStorage()
    with stepped(disk, rotate_bytes=6000) as log:
        for count in range(30):
            log.append("NOTE", {"n": count, "x": "y" * 300})
    found = read(disk)
    ends = {}
    for record in found.records:
        if record["type"] == "SEGMENT":
            ends[record["seq"] - 1] = True
    covered = {one.size for one in found.checkpoints()}
    assert set(ends) - {0} <= covered
    for name, content in found.files.items():
        if name.endswith(".checkpoints"):
            assert content.endswith(b"=\n\n")
            assert not content.endswith(b"\n\n\n")


def test_batch_that_fills_several_segments_gets_a_key_for_each():
    """append_many over several rotations returns sequences that leave room for SEGMENT and KEY, twice each time."""
    disk = SimulatedStorage()
    with stepped(disk, rotate_bytes=6000) as log:
        seqs = log.append_many([Entry("NOTE", {"n": n, "x": "y" * 1000}) for n in range(12)])
    found = read(disk)
    check(found)
    assert [found.records[seq - 1]["details"].get("n") for seq in seqs] == list(range(12))
    assert found.types().count("KEY") == found.types().count("SEGMENT") > 2


def test_old_unsigned_log_goes_on_in_a_new_signed_segment():
    """A signing writer begins a new segment in a log that was never signed; the first key covers all of it."""
    disk = SimulatedStorage()
    with stepped(disk, keys=None) as log:
        log.append("NOTE", {"n": 1})
    with stepped(disk) as log:
        log.append("NOTE", {"n": 2})
    found = read(disk)
    assert found.types() == ["SEGMENT", "NOTE", "SEGMENT", "KEY", "NOTE"]
    check(found)
    assert found.checkpoints()[0].size == 4


def test_signed_log_is_refused_without_keys():
    """A writer without keys is refused, and changes nothing."""
    disk = SimulatedStorage()
    with stepped(disk) as log:
        log.append("NOTE", {})
    before = read(disk).files
    with pytest.raises(KeyMissing, match="opened without keys"):
        stepped(disk, keys=None).open()
    assert read(disk).files == before


def test_key_records_are_the_logs_own():
    """Nobody appends a KEY record from outside."""
    log = stepped(SimulatedStorage())
    with pytest.raises(BadInput, match="KEY begins a file"):
        log.append("KEY", {})


def test_rotate_begins_a_new_epoch_but_not_twice_over_nothing():
    """`rotate` changes the key once there is a record to cover, and leaves an empty segment alone."""
    disk = SimulatedStorage()
    with stepped(disk) as log:
        log.rotate()
        assert log.epoch == 1
        log.rotate()
        assert log.epoch == 1
        log.append("NOTE", {})
        before = log.vkey
        log.rotate()
        assert (log.epoch, log.vkey != before) == (2, True)
    check(read(disk))


def test_where_keys_were_made_is_told_once(tmp_path):
    """The first append says where the log's key and pin are, on a line that fits a screen; nothing is said again."""
    said: list[str] = []
    for _ in range(2):
        with real(tmp_path, keys=KeyHome(tmp_path / "home", tell=said.append)) as log:
            log.append("NOTE", {})
            log.rotate()
    assert len(said) == 1
    assert log.log_id in said[0]
    assert str(tmp_path / "home" / "logs" / log.log_id) in said[0]
    assert len(said[0]) < 120 + len(str(tmp_path))
    assert (tmp_path / "home" / "logs" / log.log_id / "pin").is_file()


# -- checkpoints --------------------------------------------------------------------------------------------


@pytest.mark.invariant("I9")
def test_order_of_work_is_sync_checkpoint_head():
    """Past the bound the records are synced, then their checkpoint, and only then the head moves there."""
    disk, clock = SimulatedStorage(), ManualClock()
    log = stepped(disk, clock=clock)
    log.append("NOTE", {})
    order: list[tuple[str, int]] = []
    head = log._head.write

    def write(sequence, *rest):
        order.append(("head", sequence))
        head(sequence, *rest)

    log._head.write = write
    disk.on_call = lambda operation, name: order.append((f"{operation} {name[-11:]}", 0))
    log.append("NOTE", {}, level=Level.WRITTEN)
    clock.advance(3)
    log.append("NOTE", {})
    disk.on_call = None
    steps = [step for step, _ in order if "sync" in step or step == "head"]
    assert steps == ["fdatasync 0000001.log", "fdatasync checkpoints", "head"]
    log.close()


@pytest.mark.parametrize("secs", [2.0, 2.000001])
def test_head_never_runs_two_seconds_ahead_of_a_checkpoint(secs):
    """Up to 2 s the writer need not sign; beyond, it does before it acknowledges, and that covers everything."""
    clock = ManualClock()
    log = stepped(SimulatedStorage(), clock=clock)
    log.append("NOTE", {})
    signed = log._signer.signed
    clock.advance(secs)
    seq = log.append("NOTE", {})
    assert log._signer.signed == (seq if secs > 2 else signed)
    log.close()


@pytest.mark.parametrize("more", [0, 1])
def test_head_never_runs_twenty_thousand_records_ahead_of_a_checkpoint(more):
    """20,000 unsigned records may be acknowledged, not one more."""
    log = stepped(SimulatedStorage())
    log.append("NOTE", {})
    log._signer.cover()
    signed = log._signer.signed
    log.append_many([Entry("NOTE", {})] * (20_000 + more))
    assert log._signer.signed == (signed + 20_001 if more else signed)
    log.close()


def test_time_that_stepped_back_does_not_hide_an_old_record():
    """Records written before a step back, and one stamped behind the step, still bound the head."""
    clock = ManualClock()
    log = stepped(SimulatedStorage(), clock=clock)
    log.append("NOTE", {})
    clock.step_wall_secs(-3600)
    log.append("NOTE", {})
    clock.step_wall_secs(+3700)
    seq = log.append("NOTE", {})
    assert log._signer.signed == seq
    log.close()


def test_keeper_signs_within_a_second_and_publishes():
    """A second after a record was synced the keeper has covered it: in history, `checkpoint` and high-water mark."""
    disk, clock = SimulatedStorage(), ManualClock()
    keys = KeyHome(KEYS, disk)
    log = stepped(disk, clock=clock, keys=keys)
    seq = log.append("NOTE", {})
    log._keep()
    assert log._signer.signed < seq
    clock.advance(1)
    log._keep()
    assert log._signer.signed == seq
    found = read(disk)
    assert found.checkpoints()[-1].size == seq
    assert found.files["checkpoint"] == found.checkpoints()[-1].note
    assert keys.log(log.log_id).high_water().note == found.files["checkpoint"]
    before = disk.calls
    clock.advance(60)
    log._keep()
    assert disk.calls == before, "a log at rest is not signed again"
    log.close()


def test_keeper_runs_beside_the_writer(tmp_path):
    """On a real disk the keeper's own thread covers 10,000 records without anybody asking."""
    with real(tmp_path) as log:
        log.append_many([Entry("NOTE", {})] * 10_000)
        for _ in range(10_000):
            if log._signer.signed >= 10_000:
                break
            threading.Event().wait(0.001)
        assert log._signer.signed >= 10_000


def test_checkpoint_covers_everything_appended_before():
    """`checkpoint` returns a durable note over every record, whatever its level; the same one while nothing changes."""
    disk = SimulatedStorage()
    log = stepped(disk)
    log.append("NOTE", {})
    seq = log.append("NOTE", {}, level=Level.BUFFERED)
    note = log.checkpoint()
    survivor = disk.after_power_cut(Random(1))
    found = SignedLog({name: bytes(content) for name, content in survivor.content(LOG).items()})
    assert found.note(note).size == seq == found.checkpoints()[-1].size
    assert found.note(note).root == found.root(seq)
    assert log.checkpoint() == note
    log.close()


def test_checkpoint_of_an_unsigned_or_empty_log_is_refused():
    """There is nothing to sign with, or nothing to sign."""
    with stepped(SimulatedStorage(), keys=None) as log, pytest.raises(BadInput, match="without keys"):
        log.checkpoint()
    with stepped(SimulatedStorage()) as log, pytest.raises(BadInput, match="no signed record"):
        log.checkpoint()


def test_anchored_record_waits_for_its_anchor(tmp_path):
    """An ANCHORED append returns once a checkpoint over it was given to the anchor; async and in batches too."""
    given: list[bytes] = []
    with real(tmp_path, anchor=given.append) as log:
        first = log.append("NOTE", {}, level=Level.ANCHORED)
        last = log.append_many([Entry("NOTE", {})] * 2, level=Level.ANCHORED)[-1]
        later = asyncio.run(log.append_async("NOTE", {}, level=Level.ANCHORED))
    found = SignedLog(
        {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir() if path.is_file()}
    )
    assert [found.note(note).size for note in given] == [first, last, later]


def test_anchored_record_without_anchor_is_refused(tmp_path):
    """A log without keys or anchor refuses ANCHORED records by name and goes on."""
    with real(tmp_path) as log:
        with pytest.raises(BadInput, match="ANCHORED record refused"):
            log.append("NOTE", {}, level=Level.ANCHORED)
        assert log.append("NOTE", {}) == 3


def test_anchor_that_fails_leaves_the_record_durable(tmp_path):
    """What an anchor raises reaches the caller; the record is durable and the log goes on."""

    def unreachable(_note):
        raise ConnectionError("anchor away")

    with real(tmp_path, anchor=unreachable) as log:
        with pytest.raises(ConnectionError):
            log.append("NOTE", {}, level=Level.ANCHORED)
        assert (log.durable_seq, log.state) == (3, "open")


def test_close_covers_cuts_and_completes_the_tiles(tmp_path):
    """After a close the last checkpoint covers every record, files end behind their last byte, tiles are whole."""
    with real(tmp_path) as log:
        log.append_many([Entry("NOTE", {"n": n}) for n in range(600)])
    home = tmp_path / "log"
    found = SignedLog({path.name: path.read_bytes() for path in home.iterdir() if path.is_file()})
    check(found)
    assert found.checkpoints()[-1].size == 602
    assert found.files["checkpoint"] == found.checkpoints()[-1].note
    assert not [name for name in found.files if name.endswith(".tmp")]
    tiles = {
        str(path.relative_to(home)): path.read_bytes() for path in home.rglob("tile/**/*") if path.is_file()
    }
    assert set(tiles) == {"tile/0/000", "tile/0/001", "tile/0/002.p/90", "tile/1/000.p/2"}
    leaves = b"".join(found.leaves)
    assert tiles["tile/0/000"] + tiles["tile/0/001"] + tiles["tile/0/002.p/90"] == leaves
    with real(tmp_path) as log:
        log.append("NOTE", {})
    assert {path.name for path in (home / "tile" / "0" / "002.p").iterdir()} == {"91"}


@pytest.mark.invariant("I9")
@pytest.mark.parametrize("what", ["checkpoints", "checkpoint.tmp", "high-water"])
@pytest.mark.parametrize("operation", ["pwrite", "fdatasync", "fsync"])
def test_checkpoint_that_cannot_be_written_poisons(what, operation):
    """A failed write or sync of history, `checkpoint` or high-water mark ends the log; nothing is tried again."""
    disk, clock = SimulatedStorage(), ManualClock()
    log = stepped(disk, clock=clock)
    log.append("NOTE", {})
    failures = 0

    def fail(called, name):
        nonlocal failures
        if called == operation and name.endswith(what):
            failures += 1
            raise OSError(errno.EIO, "input/output error")

    disk.on_call = fail
    if (what, operation) in {
        ("checkpoints", "fsync"),
        ("checkpoint.tmp", "fdatasync"),
        ("high-water", "fsync"),
    }:
        log.checkpoint()  # no such call is made
        assert failures == 0
        return
    with pytest.raises(AuditWriteError, match="input/output error"):
        log.checkpoint()
    assert (log.state, failures) == ("poisoned", 1)
    with pytest.raises(AuditWriteError):
        log.append("NOTE", {})
    assert failures == 1
    disk.on_call = None
    log.close()
    assert read_head(disk.directory(LOG, create=False)).state is HeadState.POISONED
    again = stepped(disk.after_kill(), seed=2)
    again.append("NOTE", {})
    again.close()


def test_full_disk_delays_the_file_checkpoint_and_nothing_else():
    """While `checkpoint` cannot be replaced for want of room, records are signed in the history's own room, new
    risk is told, and the file follows once there is room again."""
    disk, clock = SimulatedStorage(), ManualClock()
    log = stepped(disk, clock=clock)
    log.append("NOTE", {})

    def full(called, name):
        if called in {"create", "pwrite"} and name == "checkpoint.tmp":
            raise OSError(errno.ENOSPC, "no space left on device")

    disk.on_call = full
    before = read(disk).files["checkpoint"]
    seq = log.append("NOTE", {})
    clock.advance(1)
    log._keep()
    assert (log.state, log.space_low, log._signer.signed) == ("open", True, seq)
    assert read(disk).files["checkpoint"] == before
    disk.on_call = None
    clock.advance(1)
    log._keep()
    assert not log.space_low
    assert read(disk).note(read(disk).files["checkpoint"]).size == seq
    log.close()


def test_history_has_its_room_before_it_needs_it():
    """A checkpoint is written into filler that the disk has given; a disk that gives no more is known before."""
    disk, clock = SimulatedStorage(), ManualClock()
    log = stepped(disk, clock=clock)
    log.append("NOTE", {})

    def full(called, name):
        if called == "pwrite" and name.endswith(".checkpoints") and wants["size"] > 2000:
            raise OSError(errno.ENOSPC, "no space left on device")

    wants = {"size": 0}
    real_filler = segment_module.write_filler

    def watched(file, start, size):
        wants["size"] = size
        try:
            real_filler(file, start, size)
        finally:
            wants["size"] = 0

    disk.on_call = full
    with mock.patch.object(segment_module, "write_filler", watched):
        for _ in range(40):
            log.append("NOTE", {})
            clock.advance(1)
            log._keep()
            if log.space_low:
                break
    assert log.space_low
    assert log.state == "open"
    log.append("NOTE", {})
    assert log.checkpoint()
    disk.on_call = None
    log.close()


# -- starts -------------------------------------------------------------------------------------------------


def closed_log(tmp_path: Path, count: int = 5, **options) -> str:
    with real(tmp_path, **options) as log:
        for n in range(count):
            log.append("NOTE", {"n": n})
    return log.log_id


@pytest.mark.invariant("I8")
def test_log_that_went_back_is_refused(tmp_path):
    """An older copy of the whole directory is refused at its start, by the high-water mark, and stays as it was."""
    closed_log(tmp_path)
    shutil.copytree(tmp_path / "log", tmp_path / "old")
    closed_log(tmp_path)
    shutil.rmtree(tmp_path / "log")
    shutil.copytree(tmp_path / "old", tmp_path / "log")
    before = {path: path.read_bytes() for path in (tmp_path / "log").rglob("*") if path.is_file()}
    with pytest.raises(AuditCorruption, match="durable up to 12, says the high-water mark") as refused:
        real(tmp_path).open()
    assert (refused.value.sequence, refused.value.exit_code) == (8, 3)
    after = {path: path.read_bytes() for path in (tmp_path / "log").rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.invariant("I8")
def test_tail_cut_from_a_closed_log_is_recognised_without_its_head(tmp_path):
    """With the head zeroed, and the last record and every checkpoint gone, the high-water mark still knows."""
    closed_log(tmp_path)
    home = tmp_path / "log"
    (home / "head").write_bytes(bytes(4096))
    (segment,) = home.glob("*.log")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:-1]))
    (history,) = home.glob("*.checkpoints")
    (home / "checkpoint").unlink()
    history.write_bytes(b"")
    with pytest.raises(AuditCorruption, match=r"sequence 7 .* says the high-water mark"):
        real(tmp_path).open()


def test_records_that_the_newest_checkpoint_does_not_cover_are_refused(tmp_path):
    """A changed record with everything unkeyed recomputed does not have the signed root: refused, unchanged."""
    log_id = closed_log(tmp_path)
    (tmp_path / "home" / "logs" / log_id / "high-water").unlink()
    (segment,) = (tmp_path / "log").glob("*.log")

    lines = segment.read_bytes().split(b"\n")
    lines[4] = lines[4].replace(b'"n":2', b'"n":7')
    lines[4] = b'{"crc":"%08x",' % crc32(lines[4][CRC_END:]) + lines[4][CRC_END:]
    segment.write_bytes(b"\n".join(lines))
    with pytest.raises(AuditCorruption, match="do not have the root that the newest checkpoint"):
        real(tmp_path).open()


@pytest.mark.parametrize("kind", ["beyond", "fork", "behind"])
def test_marks_of_anchors_are_held_against_the_log(tmp_path, kind):
    """A mark beyond the log's end, or of another root, is refused with its source; one of the log's own is fine."""
    closed_log(tmp_path)
    found = SignedLog(
        {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir() if path.is_file()}
    )
    mark = {
        "beyond": Mark(9, bytes(32), "a witness"),
        "fork": Mark(4, bytes(32), "a witness"),
        "behind": Mark(4, found.root(4), "a witness"),
    }[kind]
    asked: list[str] = []

    def source(log_id):
        asked.append(log_id)
        return [mark]

    log = real(tmp_path, marks=[source])
    if kind == "behind":
        log.append("NOTE", {})
        log.close()
    else:
        with pytest.raises(AuditCorruption, match="a witness"):
            log.open()
    assert asked == [found.records[0]["details"]["log_id"]]


def test_missing_private_key_is_named_with_a_way_back(tmp_path):
    """Without the key in force the log is refused by name; `replace_key` begins a new chain, pinned and covered."""
    log_id = closed_log(tmp_path)
    folder = tmp_path / "home" / "logs" / log_id
    (folder / "key").rename(folder / "elsewhere")
    with pytest.raises(KeyMissing, match="the private key of epoch 1 is not here") as refused:
        real(tmp_path).open()
    assert "keys init DIR --replace" in refused.value.hint
    with real(tmp_path, replace_key=True) as log:
        log.append("NOTE", {"n": "after"})
        assert log.epoch == 2
    found = SignedLog(
        {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir() if path.is_file()}
    )
    check(found)
    assert [r["details"]["reason"] for r in found.records if r["type"] == "KEY"] == ["first", "replacement"]
    assert len((folder / "pin").read_text().splitlines()) == 2


def test_another_private_key_is_named(tmp_path):
    """A key that is not the one in force is told from a missing one."""
    log_id = closed_log(tmp_path)
    other = KeyHome(tmp_path / "other").log(log_id)
    other.prepare("holdfast", 1)
    other.promote()
    (tmp_path / "home" / "logs" / log_id / "key").write_bytes((other.path / "key").read_bytes())
    with pytest.raises(KeyMissing, match="another one than that of epoch 1"):
        real(tmp_path).open()


def test_replacing_a_key_that_is_there_changes_nothing(tmp_path):
    """`replace_key` goes on with the key in force where it is not lost."""
    closed_log(tmp_path)
    with real(tmp_path, replace_key=True) as log:
        log.append("NOTE", {})
        assert log.epoch == 1


def test_recovery_is_covered_before_anything_new(tmp_path):
    """After a crash the first thing signed covers all that was kept; the RECOVERY record comes behind it."""
    disk = SimulatedStorage()
    log = stepped(disk)
    for n in range(4):
        log.append("NOTE", {"n": n})
    state = disk.after_kill()
    name = next(name for name in state.content(LOG) if name.endswith(".log"))
    end = log._segment.end
    state.content(LOG)[name][end : end + 9] = b'{"crc":"x'
    again = stepped(state, seed=2)
    again.open()
    found = read(state)
    recovery = found.types().index("RECOVERY") + 1
    assert recovery - 1 in {one.size for one in found.checkpoints()}
    check(found)
    again.close()


def test_torn_last_note_is_made_filler_and_signed_again():
    """A note that a crash cut short is overwritten; the next one stands in its place."""
    disk, clock = SimulatedStorage(), ManualClock()
    log = stepped(disk, clock=clock)
    log.append("NOTE", {})
    state = disk.after_kill()
    name = next(name for name in state.content(LOG) if name.endswith(".checkpoints"))
    end = log._signer._history.end
    state.content(LOG)[name][end : end + 60] = b"holdfast/" + b"0" * 51
    with stepped(state, seed=2) as again:
        again.append("NOTE", {})
    found = read(state)
    check(found)
    assert found.checkpoints()[-1].size == len(found.records)


@pytest.mark.invariant("I7")
def test_note_that_was_only_written_is_made_durable_before_anything_says_it():
    """A note that a killed writer had not synced is not published before the restart has made it durable."""
    disk = SimulatedStorage()
    log = stepped(disk)
    log.append("NOTE", {})
    states = []

    def die(operation, name):
        if operation == "fdatasync" and name.endswith(".checkpoints"):
            states.append(disk.after_kill())

    disk.on_call = die
    log.checkpoint()
    disk.on_call = None
    (killed,) = states
    again = stepped(killed, seed=2)
    again.open()
    assert again._signer.signed == 3
    for seed in range(30):
        after = killed.after_power_cut(Random(seed))
        with stepped(after, seed=seed + 3) as third:
            third.append("NOTE", {})
        check(read(after))


@pytest.mark.parametrize("length", [1, 60, 200])
def test_torn_first_note_of_a_segment_is_made_filler_too(length):
    """The first note beside a new segment may be torn like any other: `checkpoint` holds the one of the segment before."""
    disk = SimulatedStorage()
    log = stepped(disk)
    log.append("NOTE", {})
    log.checkpoint()
    states = []

    def die(operation, name):
        if operation == "fdatasync" and name.endswith("4.checkpoints"):
            states.append(disk.after_kill())

    disk.on_call = die
    log.rotate()
    disk.on_call = None
    (state, *_) = states
    name = next(name for name in state.content(LOG) if name.endswith("4.checkpoints"))
    content = state.content(LOG)[name]
    content[length:] = b"\n" * (len(content) - length)
    with stepped(state, seed=2) as again:
        again.append("NOTE", {})
    check(read(state))


@pytest.mark.parametrize("how", ["closed", "published", "not the last"])
@pytest.mark.invariant("I8")
def test_note_that_no_crash_can_have_torn_is_damage(how):
    """A bad last note of a closed log, one that `checkpoint` has seen whole, or one before the last: refused."""
    disk, clock = SimulatedStorage(), ManualClock()
    log = stepped(disk, clock=clock)
    log.append("NOTE", {})
    log.checkpoint()
    if how == "closed":
        log.close()
    else:
        log.append("NOTE", {})
        clock.advance(1)
        log._keep()
    state = disk.after_kill()
    name = next(name for name in state.content(LOG) if name.endswith(".checkpoints"))
    content = state.content(LOG)[name]
    second = content.index(b"\n\nholdfast/", 10) + 2
    at = second + 40 if how == "not the last" else bytes(content).rstrip(b"\n").rindex(b"\n\nholdfast/") + 40
    content[at] ^= 1
    with pytest.raises(AuditCorruption, match=f"'{name}' at byte"):
        stepped(state, seed=2).open()


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.invariant("I8")
def test_checkpoint_file_that_says_more_than_the_history_is_damage(keep):
    """A history that lost its last note, or all of them, beside a `checkpoint` that has it is refused."""
    disk = SimulatedStorage()
    with stepped(disk) as log:
        log.append("NOTE", {})
    name = next(name for name in disk.content(LOG) if name.endswith(".checkpoints"))
    content = disk.content(LOG)[name]
    del content[bytes(content).rindex(b"\n\nholdfast/") + 2 if keep else 0 :]
    covered = 2 if keep else 0
    with pytest.raises(
        AuditCorruption,
        match=f"'checkpoint' at byte 0: it covers 3 records, the newest in the history {covered}",
    ):
        stepped(disk, seed=2).open()


@pytest.mark.invariant("I8")
def test_closed_log_that_was_stripped_of_its_checkpoints_is_refused():
    """A closed log is never without a checkpoint over its last KEY record; one that is was stripped of it."""
    disk = SimulatedStorage()
    with stepped(disk) as log:
        log.append("NOTE", {})
    home = disk.directory(LOG, create=False)
    for name in home.names():
        if name.startswith("checkpoint") or name.endswith(".checkpoints"):
            home.unlink(name)
    with pytest.raises(AuditCorruption, match="no checkpoint covers sequence 2 of a closed log"):
        stepped(disk, seed=2).open()


def test_start_reads_only_what_follows_the_last_checkpoint(tmp_path):
    """Damage before the bookmark is not looked at by a start, whose reading begins behind it; verify's business."""
    disk = SimulatedStorage()
    log = stepped(disk, rotate_bytes=50_000)
    for n in range(200):
        log.append("NOTE", {"n": n, "x": "y" * 500})
    log.checkpoint()
    last = log.append("NOTE", {"n": "behind"})
    state = disk.after_kill()
    read_at: list[tuple[str, int]] = []

    real_pread = SimulatedFile.pread

    def pread(file, size, offset):
        read_at.append((file.name, len(data := real_pread(file, size, offset))))
        return data

    with mock.patch.object(SimulatedFile, "pread", pread):
        again = stepped(state, seed=2, rotate_bytes=50_000)
        again.open()
    assert again.durable_seq == last
    names = sorted({name for name, _ in read_at if name.endswith(".log")}, key=lambda name: name[-16:])
    total = sum(size for name, size in read_at if name == names[0])
    assert total <= 1 << 17, "of the first segment no more than its beginning is read"
    assert len(names) <= 4
    check(read(state))
    again.close()


def test_bookmark_that_does_not_fit_is_not_used():
    """With a damaged high-water mark, or one whose line is elsewhere, the log is read from its first record."""
    disk = SimulatedStorage()
    with stepped(disk) as log:
        for n in range(20):
            log.append("NOTE", {"n": n})
    state = disk.after_kill()
    folder = state.directory(KEYS, create=False).subdirectory("logs").subdirectory(log.log_id)
    file = folder.open("high-water", writable=True)
    page = bytearray(file.pread(4096, 0))
    for at in (0, 2048):
        length = int.from_bytes(page[at + 8 : at + 12], "little")
        page[at + 12 + length] ^= 7

        page[at + 2044 : at + 2048] = crc32(page[at : at + 2044]).to_bytes(4, "little")
    file.pwrite(bytes(page), 0)
    with stepped(state, seed=2) as again:
        assert again.append("NOTE", {}) == 23
    check(read(state))


def test_start_behind_a_quarantined_tail_does_not_name_it_twice():
    """A tail that an earlier RECOVERY names gets no second one, whether the log is read whole or from a bookmark."""
    disk = SimulatedStorage()
    log = stepped(disk)
    for n in range(4):
        log.append("NOTE", {"n": n})
    state = disk.after_kill()
    name = next(name for name in state.content(LOG) if name.endswith(".log"))
    end = log._segment.end
    state.content(LOG)[name][end : end + 9] = b'{"crc":"x'
    for seed in range(2, 5):
        with stepped(state, seed=seed) as again:
            again.append("NOTE", {})
            again.rotate()
    found = read(state)
    assert found.types().count("RECOVERY") == 1
    check(found)


def test_log_keeps_the_name_it_was_made_with(tmp_path):
    """A writer with another origin goes on under the log's own name."""
    closed_log(tmp_path, origin="desk-7")
    with real(tmp_path, origin="other") as log:
        log.append("NOTE", {})
        log.rotate()
    found = SignedLog(
        {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir() if path.is_file()}
    )
    assert {r["details"]["origin"] for r in found.records if r["type"] == "SEGMENT"} == {"desk-7"}
    check(found)


def test_clock_of_records_bounds_a_followed_market_too(tmp_path):
    """A log that follows a market's clock is bound by its records' own time, and needs no time of the machine."""
    clock = ManualClock(source="venue:test")
    with real(tmp_path, clock=clock) as log:
        for _ in range(5):
            clock.advance(60)
            seq = log.append("NOTE", {})
            assert log._signer.signed == seq or log._signer.signed == seq - 1
    found = SignedLog(
        {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir() if path.is_file()}
    )
    check(found)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_disk_without_room_for_tiles_does_not_stop_a_close(error):
    """Tiles are derived: where none can be written the log still closes, leaves no temporary file, and goes on."""
    disk = SimulatedStorage()
    log = stepped(disk)
    log.append("NOTE", {})

    def full(operation, name):
        if operation == "pwrite" and name == "3.tmp":
            raise OSError(error, "no space left on device")

    disk.on_call = full
    log.close()
    disk.on_call = None
    home = disk.directory(LOG, create=False)
    assert read_head(home).state is HeadState.CLOSED
    left = home.subdirectory("tile").subdirectory("0").subdirectory("000.p").names()
    assert left == []
    with stepped(disk, seed=2) as again:
        again.append("NOTE", {})
    assert home.subdirectory("tile").subdirectory("0").subdirectory("000.p").names() == ["4"]


def test_tiles_of_an_older_segment_are_made_from_its_records():
    """Leaf hashes that the closing writer never saw come from the files: the tiles are those of all records."""
    disk = SimulatedStorage()
    with stepped(disk, rotate_bytes=30_000) as log:
        log.append_many([Entry("NOTE", {"n": n}) for n in range(200)])
    with stepped(disk, seed=2, rotate_bytes=30_000) as log:
        log.append_many([Entry("NOTE", {"n": n}) for n in range(200)])
    leaves = b"".join(read(disk).leaves)
    level = disk.directory(LOG, create=False).subdirectory("tile").subdirectory("0")
    tile = level.open("000").pread(8192, 0)
    width = len(leaves) // 32 - 256
    assert tile == leaves[:8192]
    assert level.subdirectory("001.p").open(str(width)).pread(8192, 0) == leaves[8192:]


def test_a_head_that_was_taken_away_is_on_record(tmp_path):
    """The head is made before the first segment: a start that finds none beside records says so in the log."""
    directory, keys = tmp_path / "log", KeyHome(tmp_path / "keys")
    with WriteAheadLog(directory, clock=ManualClock(), keys=keys) as log:
        log.append("NOTE", {"n": 1})
    (directory / "head").unlink()
    with WriteAheadLog(directory, clock=ManualClock(), keys=keys) as log:
        log.append("NOTE", {"n": 2})
    (record,) = [one for one in read_records(directory) if one.type == "RECOVERY"]
    assert (record.details["head"], record.details["quarantine"]) == ("missing", [])
    assert verify(directory).ok
