"""Keys, checkpoints and what lies beside the segments of a signed log, one rule each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.crash import SMALL_PAGES
from support.forge import Forger, KeyThief, signed_log

from holdfast.audit import segment as segment_module
from holdfast.audit.anchor import Anchor
from holdfast.audit.keys import KeyHome
from holdfast.audit.note import VerifierKey, parse_checkpoint, parse_note
from holdfast.audit.verify import verify
from holdfast.audit.verify_segments import SegmentHelpers
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput

pytestmark = [pytest.mark.invariant("I8")]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("signed")
    thief = KeyThief(root / "keys")
    signed_log(root / "closed", thief.home, (4, 4, 4))
    thief_2 = KeyThief(root / "keys2")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL_PAGES.items():
            patch.setattr(segment_module, name, value)
        log = signed_log(root / "writing", thief_2.home, (4, 4), seal=False, close=False)
        log.checkpoint()
        shutil.copytree(root / "writing", root / "open")
        log.close()
    return root


@pytest.fixture
def closed(originals, tmp_path):
    return copy(originals / "closed", tmp_path)


@pytest.fixture
def left_open(originals, tmp_path):
    return copy(originals / "open", tmp_path)


def copy(source: Path, tmp_path: Path) -> Path:
    home = tmp_path / source.name
    shutil.copytree(source, home)
    home.chmod(0o700)
    return home


def pin(originals: Path, home: Path, keys: str = "keys"):
    return KeyHome(originals / keys).log(verify(home).log_id).pins()


def test_checkpoints_cover_a_closed_log_to_its_end(originals, closed):
    """With its first key pinned every record is signed; without it, by an unknown key."""
    report = verify(closed, keys=pin(originals, closed))
    assert report.ok, report.problems
    assert report.ranges() == [("signed only", 1, report.total_entries)]
    assert report.epoch == 3
    alone = verify(closed)
    assert alone.ok
    assert alone.ranges() == [("signed by an unknown key", 1, report.total_entries)]
    assert alone.signed_to == 0


def test_an_epoch_pinned_later_covers_what_was_before_it(originals, closed):
    """A checkpoint of a pinned key covers every record before it, whoever signed for those."""
    third = Forger(closed).parts[2].records[1].details["vkey"]
    report = verify(closed, keys=[VerifierKey.parse(third)])
    assert report.ok, report.problems
    assert report.signed_to == report.total_entries


@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
def test_a_note_cut_short_by_a_crash_is_a_torn_one(originals, left_open, kept):
    """The last note of an open log may be half written, as long as nothing else has seen it."""
    pins = pin(originals, left_open, "keys2")
    path = max(left_open.glob("*.checkpoints"))
    content = path.read_bytes().rstrip(b"\n") + b"\n\n"
    last = content.rindex(b"\n\nholdfast/") + 2
    cut = content[:last] + content[last : last + round((len(content) - last) * kept)]
    path.write_bytes(cut.ljust(4096, b"\n"))
    report = verify(left_open, keys=pins)
    assert "checkpoint" in {problem.file for problem in report.problems}, "it was published"
    earlier = content[content[: last - 2].rindex(b"\n\nholdfast/") + 2 : last - 1] if content.count(b"\n\nholdfast/") > 1 else content[: last - 1]  # fmt: skip
    (left_open / "checkpoint").write_bytes(earlier)
    report = verify(left_open, keys=pins)
    assert report.ok, report.problems
    assert report.needs_recovery == bool(kept)
    if kept:
        assert f"{path.name!r} at byte {last}" in report.recovery_range
    assert report.signed_to == parse_checkpoint(parse_note(earlier).text).size


def test_two_bad_notes_are_no_torn_end(originals, left_open):
    """A crash leaves one note that is not whole, never two."""
    path = max(left_open.glob("*.checkpoints"))
    content = path.read_bytes().rstrip(b"\n") + b"\n\n"
    notes = content.count(b"holdfast/") // 2
    assert notes >= 2
    (left_open / "checkpoint").unlink()
    path.write_bytes(content.replace(b"=\n\n\xe2", b"=\n\n\xe3").ljust(4096, b"\n"))
    report = verify(left_open, keys=pin(originals, left_open, "keys2"))
    assert path.name in {problem.file for problem in report.problems}


@pytest.mark.parametrize("how", ["changed", "dropped"])
def test_a_bad_record_makes_no_good_checkpoint_behind_it_a_bad_one(originals, closed, how):
    """Where the last record but one is bad, no problem is said to be in the checkpoints that cover it."""
    keys = pin(originals, closed)
    segment = max(closed.glob("audit_*.log"))
    lines = segment.read_bytes().splitlines(keepends=True)
    bad = lines.pop(-2)
    if how == "changed":
        lines.insert(-1, bad.replace(bad[8:9], b"1" if bad[8:9] != b"1" else b"2", 1))
    segment.write_bytes(b"".join(lines))
    report = verify(closed, keys=keys)
    assert report.first_bad.file == segment.name
    assert not [problem for problem in report.problems if problem.file.endswith(".checkpoints")]


@pytest.mark.parametrize("ending", [".checkpoints", ".idx", "checkpoint"])
def test_a_missing_side_file_is_a_problem(closed, ending):
    """What a KEY or SEALED record promises has to be there."""
    victim = min(path for path in closed.iterdir() if path.name.endswith(ending))
    victim.unlink()
    report = verify(closed)
    assert victim.name in {problem.file for problem in report.problems}


def test_missing_tiles_are_no_problem_and_strange_ones_are(closed):
    """A tile can be made anew from the records; one over other records cannot lie there."""
    shutil.rmtree(closed / "tile")
    assert verify(closed).ok
    (closed / "tile/0/000.p").mkdir(parents=True, mode=0o700)
    (closed / "tile/0/000.p/200").write_bytes(bytes(200 * 32))
    report = verify(closed)
    assert [problem.file for problem in report.problems] == ["tile/0/000.p/200"]


@pytest.mark.parametrize("name", ["checkpoint.tmp", "{}.idx.tmp", "{}.log.gz.tmp", "tile/0/001.tmp"])
def test_a_temporary_file_belongs_to_an_open_log_only(closed, left_open, name):
    """What a crash left half done is the next writer's to remove; a clean close leaves none."""
    for home, fine in ((left_open, True), (closed, False)):
        path = home / name.format(min(home.glob("*.log*")).name.split(".")[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
        assert verify(home).ok is fine, name


def test_a_key_record_that_is_left_out_is_a_missing_epoch(closed):
    """A signed log's segment has KEY as its second record."""
    forger = Forger(closed)
    del forger.parts[1].records[1]
    forger.write()
    first = len(forger.parts[0].records) + 1
    assert any(
        problem.sequence == first + 1 and "KEY" in problem.reason for problem in verify(closed).problems
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"epoch": 5}, "epoch 5 follows epoch 1"),
        ({"reason": "first"}, "begins with reason 'first'"),
        ({"reason": "replacement"}, "unknown keys only"),
        ({"note": "nothing"}, "not a signed note"),
        ({"vkey": "holdfast+00000000+AA"}, "verifier key"),
    ],
)
def test_a_forged_key_record_breaks_the_chain(closed, change, what):
    """A KEY record that the epoch before did not sign, or that counts wrongly, is named."""
    forger = Forger(closed)
    sequence = len(forger.parts[0].records) + 2
    forger.edit(sequence, lambda details: details.update(change))
    forger.write()
    named = [problem for problem in verify(closed).problems if problem.sequence == sequence]
    assert any("not the next of the chain" in problem.reason for problem in named), named
    assert any(what in problem.reason for problem in named), named


def test_records_that_waited_too_long_for_a_checkpoint_are_named(tmp_path):
    """No more than two seconds of an open log may be without a checkpoint."""
    clock, home = ManualClock(), KeyHome(tmp_path / "keys")
    log = WriteAheadLog(tmp_path / "log", clock=clock, keys=home)
    for _ in range(60):
        clock.advance(0.1)
        log.append("NOTE", {}, level=Level.DURABLE)
    log.checkpoint()
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    (tmp_path / "copy").chmod(0o700)
    log.close()
    assert verify(tmp_path / "copy").ok
    history = min((tmp_path / "copy").glob("*.checkpoints"))
    notes = Forger(tmp_path / "copy").parts[0].notes
    history.write_bytes((notes[0] + b"\n").ljust(16 << 10, b"\n"))
    (tmp_path / "copy" / "checkpoint").write_bytes(notes[0])
    report = verify(tmp_path / "copy")
    assert [problem.sequence for problem in report.problems] == [
        parse_checkpoint(parse_note(notes[0]).text).size + 1
    ]
    assert "without a checkpoint" in report.problems[0].reason


def test_a_chain_that_began_anew_counts_only_where_its_key_is_pinned(tmp_path):
    """After a lost key, what follows is signed by an unknown key until the new one is pinned too."""
    thief = KeyThief(tmp_path / "keys")
    signed_log(tmp_path / "log", thief.home, (3,))
    kept = thief.home.log(verify(tmp_path / "log").log_id)
    first = kept.pins()
    (kept.path / "key").unlink()
    log = WriteAheadLog(tmp_path / "log", clock=ManualClock(), keys=thief.home, replace_key=True)
    log.append("NOTE", {}, level=Level.DURABLE)
    log.close()
    report = verify(tmp_path / "log", keys=first)
    assert "unknown key from here on" in report.first_bad.reason
    assert 0 < report.signed_to < report.total_entries
    behind = ("signed by an unknown key", report.signed_to + 1, report.total_entries)
    assert report.ranges() == [("signed only", 1, report.signed_to), behind]
    both = verify(tmp_path / "log", keys=kept.pins())
    assert both.ok, both.problems
    assert both.signed_to == both.total_entries


@pytest.mark.parametrize("damage", ["none", "line", "missing", "sealed"])
def test_child_processes_come_to_the_same_report(originals, closed, damage):
    """One process or several: the verdict, the root and the ranges are the same."""
    raw, packed = max(closed.glob("*.log")), sorted(closed.glob("*.gz"))
    if damage == "line":
        content = bytearray(raw.read_bytes())
        content[200] ^= 1
        raw.write_bytes(bytes(content))
    elif damage == "missing":
        packed[1].unlink()
    elif damage == "sealed":
        content = bytearray(packed[0].read_bytes())
        content[100] ^= 1
        packed[0].write_bytes(bytes(content))
    keys = pin(originals, closed)
    seen: list[int] = []
    alone = verify(closed, keys=keys, jobs=1)
    helped = verify(closed, seen.append, keys=keys, jobs=2)
    assert helped == alone
    assert alone.ok is (damage == "none")
    if damage == "none":
        assert seen[-1] == sum(path.stat().st_size for path in closed.glob("audit_*.log*"))


def test_children_that_die_are_done_without(originals, closed, monkeypatch):
    """A child process that is killed costs time and nothing else."""
    start = SegmentHelpers._start

    def dying(directory, mark):
        child = start(directory, mark)
        child.kill()
        return child

    monkeypatch.setattr(SegmentHelpers, "_start", staticmethod(dying))
    report = verify(closed, keys=pin(originals, closed), jobs=2)
    assert report.ok, report.problems
    assert report.signed_to == report.total_entries


def test_an_anchor_of_more_records_than_there_are_says_that_the_log_went_back(closed):
    """The sequence named is the first that is missing."""
    report = verify(closed)
    anchor = Anchor(report.origin, report.total_entries + 5, bytes(32), "a witness")
    held = verify(closed, anchors=[anchor])
    assert held.first_bad[:3] == (report.total_entries + 1, "a witness", 0)
    with pytest.raises(BadInput, match="is of log"):
        verify(closed, anchors=[anchor._replace(origin="other/log")])


def test_verify_reads_a_log_that_only_its_reader_may_read(closed):
    """Nothing under the log is changed, not even a time."""
    before = {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in closed.rglob("*")}

    assert verify(closed).ok
    assert {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in closed.rglob("*")} == before


def test_the_first_checkpoint_of_an_epoch_is_signed_by_the_epoch_before(originals, closed):
    """Who has the new key alone cannot begin its epoch."""
    path = sorted(closed.glob("*.checkpoints"))[1]
    notes = Forger(closed).parts[1].notes
    first = parse_note(notes[0])
    assert len(first.signatures) == 2
    new_key = Forger(closed).parts[1].records[1].details["vkey"].split("+")[1]
    alone = [one for one in first.signatures if f"{one.key_id:08x}" == new_key]
    forged = first.text + b"\n" + alone[0].line()
    path.write_bytes(b"".join(note + b"\n" for note in [forged, *notes[1:]]))
    report = verify(closed, keys=pin(originals, closed))
    assert [(problem.file, problem.offset) for problem in report.problems] == [(path.name, 0)]
    assert "the epoch before did not sign it" in report.problems[0].reason


def test_a_closed_log_is_covered_by_its_last_checkpoint(originals, closed):
    """The checkpoint that a clean close makes cannot be left out with the file that names it."""
    path = max(closed.glob("*.checkpoints"))
    notes = Forger(closed).parts[2].notes
    assert len(notes) >= 2
    path.write_bytes(b"".join(note + b"\n" for note in notes[:-1]))
    (closed / "checkpoint").write_bytes(notes[-2])
    report = verify(closed, keys=pin(originals, closed))
    assert [problem.file for problem in report.problems] == [path.name]
    assert "the closed log ends at" in report.problems[0].reason
