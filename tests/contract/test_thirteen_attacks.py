"""The thirteen attacks of the threat table, on real directories of real logs.

Whoever attacks may write every file of the log and computes anew all that needs no key. Signatures find nine of
them; cutting the log back to a state that was signed once, and whatever a stolen key signs, needs an anchor, and
without one the report says what it cannot know.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from support.forge import Forger, KeyThief, signed_log

from holdfast.audit.anchor import Anchor
from holdfast.audit.format import decode_line, encode_line
from holdfast.audit.note import VerifierKey, parse_checkpoint, parse_note
from holdfast.audit.verify import VerifyReport, verify

pytestmark = [pytest.mark.contract("A13"), pytest.mark.invariant("I8")]


class Scene(NamedTuple):
    """A log with three epochs, an earlier copy of it, and what its owner keeps elsewhere."""

    home: Path
    earlier: Path
    thief: KeyThief
    pin: VerifierKey
    anchor: Anchor
    name: str
    victim: int  # a record in a sealed segment; the next one is like it

    def verify(self, *, anchored: bool = False) -> VerifyReport:
        return verify(self.home, keys=[self.pin], anchors=[self.anchor] if anchored else [])


def anchor_of(directory: Path, source: str = "the auditor's copy") -> Anchor:
    note = (directory / "checkpoint").read_bytes()
    said = parse_checkpoint(parse_note(note).text)
    return Anchor(said.origin, said.size, said.root, source, note)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("attacked")
    thief = KeyThief(root / "keys")
    signed_log(root / "log", thief.home, (5, 6))
    shutil.copytree(root / "log", root / "earlier")
    signed_log(root / "log", thief.home, (4, 4))
    report = verify(root / "log")
    assert report.ok, report.problems
    keys = thief.home.log(report.log_id)
    forger = Forger(root / "log")
    assert forger.parts[1].member_lines
    types = [record.type for record in forger.parts[1].records]
    at = next(at for at in range(len(types)) if types[at : at + 2] == ["NOTE", "NOTE"])
    return Scene(
        root / "log", root / "earlier", thief, keys.pins()[0], anchor_of(root / "log"), report.origin,
        len(forger.parts[0].records) + at + 1,
    )  # fmt: skip


@pytest.fixture
def scene(original, tmp_path):
    home = tmp_path / "log"
    shutil.copytree(original.home, home)
    home.chmod(0o700)
    return original._replace(home=home)


def raw_segment(home: Path, index: int) -> Path:
    """A segment as a raw file, which is what most people find when they open a log."""
    return sorted(home.glob("audit_*.log"), key=lambda one: one.name.split("_")[3])[index]


def nth_line(home: Path, index: int = 3) -> tuple[Path, list[bytes]]:
    path = raw_segment(home, -1)
    return path, path.read_bytes().splitlines(keepends=True)


def test_the_log_as_it_is_has_nothing_wrong(scene):
    """Pinned and anchored, the log is intact to its last record, and nothing is unknown."""
    report = scene.verify(anchored=True)
    assert report.ok, report.problems
    assert report.ranges() == [("anchored", 1, report.total_entries)]
    assert report.unknowns == []
    assert report.epoch == 3


def test_attack_1_a_flipped_bit_is_found(scene):
    """One flipped bit is found at the record that it hit."""
    path, lines = nth_line(scene.home)
    content = bytearray(path.read_bytes())
    content[len(b"".join(lines[:3])) + 90] ^= 1
    path.write_bytes(bytes(content))
    report = scene.verify()
    assert report.first_bad.sequence == decode_line(lines[3].strip()).seq
    assert report.first_bad.offset == len(b"".join(lines[:3]))


def test_attack_2_an_edit_with_its_own_checksum_is_found(scene):
    """A record written anew with a correct CRC is found: the checkpoint over it has another root."""
    path, lines = nth_line(scene.home)
    record = decode_line(lines[3].strip())
    forged = encode_line(
        record.seq, record.synced, record.ts, record.type, record.user, record.component, b'{"n":1,"text":"qty 0"}'
    )  # fmt: skip
    path.write_bytes(b"".join([*lines[:3], forged + b"\n", *lines[4:]]))
    report = scene.verify()
    assert any("roots differ" in problem.reason for problem in report.problems), report.problems
    assert report.first_bad.sequence <= record.seq


def test_attack_3_an_edit_with_everything_recomputed_is_found(scene):
    """CRCs, roots, seals, indexes, tiles and head may all fit: the signed root does not."""
    forger = Forger(scene.home)
    forger.edit(scene.victim, lambda details: details.update(text="qty 0"))
    forger.write()
    expect_disagreement(scene, scene.victim)


def expect_disagreement(scene: Scene, sequence: int) -> VerifyReport:
    """All that is wrong is a signed root, and the range that it names holds *sequence*."""
    plain = verify(scene.home)
    report = scene.verify()
    assert not report.ok
    assert {problem.reason.rpartition(": ")[2] for problem in plain.problems} == {"the roots differ"}, (
        plain.problems
    )
    assert report.first_bad.file.endswith(".checkpoints")
    assert report.first_bad.sequence <= sequence
    assert report.signed_to < sequence
    return report


def test_attack_4_a_deleted_record_leaves_a_gap_that_is_found(scene):
    """A record that is gone is named by its sequence."""
    path, lines = nth_line(scene.home)
    path.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    assert scene.verify().first_bad.sequence == decode_line(lines[3].strip()).seq


def test_attack_5_a_deletion_with_everything_renumbered_is_found(scene):
    """A log that was renumbered around a missing record fits itself and not its signatures."""
    forger = Forger(scene.home)
    part, at = forger.place(scene.victim)
    del part.records[at]
    forger.write()
    report = scene.verify()
    assert not report.ok
    assert any("roots differ" in problem.reason for problem in report.problems)
    assert report.signed_to < scene.victim


def test_attack_6_an_insertion_with_everything_renumbered_is_found(scene):
    """A record that was never written does not get under the signatures."""
    forger = Forger(scene.home)
    part, at = forger.place(scene.victim)
    part.records.insert(at, msgspec.structs.replace(part.records[at], details={"n": 9, "text": "forged"}))
    forger.write()
    report = scene.verify()
    assert not report.ok
    assert any("roots differ" in problem.reason for problem in report.problems)
    assert report.signed_to < scene.victim


def test_attack_7_two_records_in_another_order_are_found(scene):
    """Two bodies that changed places are found, though every number fits."""
    forger = Forger(scene.home)
    part, at = forger.place(scene.victim)
    part.records[at], part.records[at + 1] = part.records[at + 1], part.records[at]
    forger.write()
    expect_disagreement(scene, scene.victim + 1)


def test_attack_8_a_tail_cut_off_is_found(scene):
    """Records that the head promises may not be missing."""
    path, lines = nth_line(scene.home)
    path.write_bytes(b"".join(lines[:-2]))
    assert scene.verify().first_bad.sequence == decode_line(lines[-2].strip()).seq


def cut_back(scene: Scene) -> int:
    """Cut the log back to a size that was signed once, with every other file as it was at that size."""
    shutil.rmtree(scene.home)
    shutil.copytree(scene.earlier, scene.home)
    scene.home.chmod(0o700)
    forger = Forger(scene.home)
    sizes = [parse_checkpoint(parse_note(note).text).size for part in forger.parts for note in part.notes]
    size = sorted(sizes)[-2]
    forger.truncate(size)
    forger.write(keep_notes=lambda said: said.size <= size)
    return size


def test_attack_9_cut_back_to_an_old_checkpoint_needs_an_anchor(scene):
    """A log cut back to a checkpoint it once had is found with an anchor, and without one the report says so."""
    size = cut_back(scene)
    alone = scene.verify()
    assert alone.ok, alone.problems
    assert any("cut off" in sentence for sentence in alone.unknowns)
    report = scene.verify(anchored=True)
    assert not report.ok
    assert report.first_bad == (
        size + 1, scene.anchor.source, 0, f"the log went back: it had {scene.anchor.size} records, and now has {size}",
    )  # fmt: skip
    assert report.anchored_to == 0


def test_attack_10_a_swapped_segment_is_found(scene):
    """A whole segment of other records, fitted in with everything recomputed, is found."""
    forger = Forger(scene.home)
    part, _ = forger.place(scene.victim)
    for at, record in enumerate(part.records):
        if record.type == "NOTE":
            part.records[at] = msgspec.structs.replace(record, details={"n": at, "text": "another history"})
    forger.write()
    expect_disagreement(scene, scene.victim)


def test_attack_11_a_genuine_snapshot_put_back_needs_an_anchor(scene):
    """An earlier copy of the log, every byte genuine, is found with an anchor, and without one the report says so."""
    shutil.rmtree(scene.home)
    shutil.copytree(scene.earlier, scene.home)
    scene.home.chmod(0o700)
    alone = scene.verify()
    assert alone.ok
    assert any("taken back to an earlier state" in sentence for sentence in alone.unknowns)
    report = scene.verify(anchored=True)
    assert "went back" in report.first_bad.reason
    assert report.first_bad.sequence == alone.total_entries + 1


def test_attack_12_history_rewritten_with_the_key_in_force_is_found_in_earlier_epochs(scene):
    """Who steals the key in force cannot write anew what the destroyed keys of earlier epochs signed."""
    forger = Forger(scene.home, {3: scene.thief.keys(scene.name)[3]})
    forger.edit(scene.victim, lambda details: details.update(text="qty 0"))
    forger.write()
    report = scene.verify()
    assert not report.ok
    assert "roots differ" in report.first_bad.reason
    assert report.first_bad.sequence <= scene.victim


def test_attack_12_the_epoch_whose_key_was_stolen_needs_an_anchor(scene):
    """Inside the epoch whose key was stolen only an anchor tells the rewritten records from the real ones."""
    victim = scene.anchor.size - 1
    forger = Forger(scene.home, {3: scene.thief.keys(scene.name)[3], 2: scene.thief.keys(scene.name)[2]})
    forger.edit(victim, lambda details: details.update(text="qty 0"))
    forger.write()
    alone = scene.verify()
    assert alone.ok, alone.problems
    assert any("are signed only" in sentence for sentence in alone.unknowns)
    report = scene.verify(anchored=True)
    assert not report.ok
    assert report.first_bad.file == scene.anchor.source
    assert report.first_bad.sequence <= victim


def test_attack_13_two_views_signed_by_the_operator_need_an_anchor(scene):
    """Whoever saw one of two histories that the operator signed tells it from the other."""
    forger = Forger(scene.home, scene.thief.keys(scene.name))
    for sequence in range(2, scene.anchor.size + 1):
        part, at = forger.place(sequence)
        if part.records[at].type == "NOTE":
            forger.edit(sequence, lambda details: details.update(text="view B"))
    forger.write()
    alone = scene.verify()
    assert alone.ok, alone.problems
    assert any("are signed only" in sentence for sentence in alone.unknowns)
    report = scene.verify(anchored=True)
    assert [problem.file for problem in report.problems] == [scene.anchor.source]
    other = anchor_of(scene.home, "the other auditor's copy")
    assert verify(scene.home, keys=[scene.pin], anchors=[other]).ok


def test_a_log_signed_by_a_forger_from_its_first_record_is_found_by_the_pin(scene):
    """A whole log made anew with the forger's own keys is signed by an unknown key."""
    forged = scene.home.parent / "forged"
    thief = KeyThief(scene.home.parent / "other")
    signed_log(forged, thief.home, (3,))
    assert not verify(forged, keys=[scene.pin]).ok
    alone = verify(forged)
    assert alone.ok
    assert alone.signed_to == 0
    assert alone.unknown_key_to == alone.total_entries
    assert any("unknown key" in sentence for sentence in alone.unknowns)


def test_signatures_that_were_stripped_are_missed_by_the_pin(scene):
    """A log without any KEY record and checkpoint is not accepted where a key is pinned."""
    forger = Forger(scene.home)
    for index, part in enumerate(forger.parts):
        kept = [record for record in part.records if record.type != "KEY"]
        forger.parts[index] = part._replace(records=kept, notes=[])
    forger.write()
    assert verify(scene.home).ok, "nothing else shows it"
    assert "not signed" in scene.verify().first_bad.reason


def test_an_anchor_of_another_log_is_refused_by_name(scene):
    """An anchor counts for the log that it names, and is a mistake with any other."""
    from holdfast.core.errors import BadInput

    wrong = scene.anchor._replace(origin="holdfast/" + "0" * 32)
    with pytest.raises(BadInput, match="is of log"):
        verify(scene.home, anchors=[wrong])


def test_the_checkpoint_of_a_rewritten_range_names_no_more_than_that_range(scene):
    """The first bad sequence lies behind the last checkpoint that still agrees."""
    forger = Forger(scene.home)
    sizes = sorted(
        parse_checkpoint(parse_note(note).text).size for part in forger.parts for note in part.notes
    )
    victim = sizes[-1]
    while forger.records[victim - 1].type != "NOTE":
        victim -= 1
    forger.edit(victim, lambda details: details.update(text="qty 0"))
    forger.write()
    report = scene.verify()
    last_good = max(size for size in sizes if size < victim)
    assert report.first_bad.sequence == last_good + 1
    assert report.signed_to == last_good
