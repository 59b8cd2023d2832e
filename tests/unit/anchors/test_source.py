"""What a log's directory gives to its sinks."""

import shutil

import pytest

from holdfast.anchors.source import LogSource
from holdfast.audit.keys import KeyHome, parse_key_note
from holdfast.audit.note import SigningKey, parse_checkpoint, parse_note, sign_note
from holdfast.audit.tree import check_consistency
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditCorruption, BadInput


@pytest.fixture
def written(tmp_path):
    """A closed log of three epochs with tiles, its source, and the checkpoints it had on the way."""
    home, notes = KeyHome(tmp_path / "home"), []
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), keys=home, seal=False) as log:
        for _ in range(3):
            for number in range(250):
                log.append("NOTE", {"n": number}, level=Level.WRITTEN)
            notes.append(log.checkpoint())
            log.rotate()
    return LogSource(tmp_path / "log", home), notes


def said(note):
    return parse_checkpoint(parse_note(note).text)


def test_every_earlier_checkpoint_leads_to_the_newest(written):
    """The proofs made from tiles and records hold, from each checkpoint the log ever had."""
    source, notes = written
    newest = source.newest()
    assert newest.checkpoint.size > 750
    for old in map(said, notes):
        proof = newest.prove(old.size)
        check_consistency(old.size, old.root, newest.checkpoint.size, newest.checkpoint.root, proof)
    assert newest.prove(0) == newest.prove(newest.checkpoint.size) == []


def test_proofs_do_not_need_the_tiles(written, tmp_path):
    """Without tiles, or with damaged ones, the records give the same proof."""
    source, notes = written
    newest, old = source.newest(), said(notes[0])
    proof = newest.prove(old.size)
    tiles = [path for path in (tmp_path / "log" / "tile").rglob("*") if path.is_file()]
    assert tiles
    for tile in tiles:
        data = bytearray(tile.read_bytes())
        data[5] ^= 1
        tile.write_bytes(data)
    assert newest.prove(old.size) == proof
    shutil.rmtree(tmp_path / "log" / "tile")
    assert newest.prove(old.size) == proof


def test_records_that_do_not_give_the_root_are_corruption(written, tmp_path):
    """A log whose records were exchanged has no proof to give: AuditCorruption, exit 3."""
    source, _ = written
    newest = source.newest()
    shutil.rmtree(tmp_path / "log" / "tile")
    segment = min((tmp_path / "log").glob("audit_*.log"))
    segment.write_bytes(segment.read_bytes().replace(b'{"n":7}', b'{"n":8}'))
    with pytest.raises(AuditCorruption) as refused:
        newest.prove(300)
    assert refused.value.exit_code == 3


def test_the_key_notes_are_the_log_s_chain(written):
    """Every epoch's note is given in order, from the one asked for on."""
    source, _ = written
    epochs = [parse_key_note(note).epoch for note in source.key_notes(0)]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= 3
    assert source.key_notes(2) == source.key_notes(0)[2:]


def test_a_checkpoint_by_a_stranger_is_not_anchored(written, tmp_path):
    """Who can write to the log's directory, but not to its keys, cannot have his own checkpoint anchored."""
    source, _ = written
    checkpoint = source.newest().checkpoint
    thief = SigningKey(checkpoint.origin, b"t" * 32)
    false = checkpoint._replace(size=10**6)
    (tmp_path / "log" / "checkpoint").write_bytes(sign_note(false.text(), thief))
    with pytest.raises(BadInput, match="unknown keys"):
        source.newest()


def test_another_machine_may_anchor_by_the_log_s_own_keys(written, tmp_path):
    """Without the key directory the newest KEY record says who signs."""
    source, notes = written
    elsewhere = LogSource(tmp_path / "log", KeyHome(tmp_path / "empty"))
    assert elsewhere.newest().note == source.newest().note
    (tmp_path / "log" / "checkpoint").write_bytes(notes[0])
    with pytest.raises(BadInput, match="unknown keys"):
        elsewhere.newest()


def test_what_has_no_checkpoint_is_named(tmp_path):
    """A missing directory and an unsigned log are BadInput with a hint."""
    home = KeyHome(tmp_path / "home")
    with pytest.raises(BadInput, match="no audit log"):
        LogSource(tmp_path / "missing", home).newest()
    with WriteAheadLog(tmp_path / "log", clock=ManualClock()) as log:
        log.append("NOTE", {})
    with pytest.raises(BadInput, match="no checkpoint") as refused:
        LogSource(tmp_path / "log", home).newest()
    assert refused.value.hint
