"""Anchoring goes on after the oldest segments went to the archive."""

from datetime import UTC, datetime, timedelta

from support.s3 import START_NS, MemoryBucket, make_log

from holdfast.anchors.read import read_anchor
from holdfast.anchors.source import LogSource
from holdfast.archive.policy import Policy
from holdfast.archive.prune import prune
from holdfast.archive.upload import archive
from holdfast.audit.keys import KeyHome, parse_key_note
from holdfast.audit.tree import check_consistency
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import NANOS, ManualClock


def test_a_pruned_log_is_anchored_as_before(tmp_path):
    """From every checkpoint before the prune a proof leads to the newest one, and all KEY notes are there."""
    folder, home = tmp_path / "log", tmp_path / "home"
    make_log(folder, home)
    before = [anchor for path in sorted(folder.glob("*.checkpoints")) for anchor in read_anchor(path)]
    assert [anchor for anchor in before if anchor.size < 605]
    now, bucket = datetime(2025, 12, 20, tzinfo=UTC), MemoryBucket()
    archive(folder, bucket, Policy(), now=now, token="0123456789abcdef")  # noqa: S106  names a test object
    clock = ManualClock(START_NS + 20 * 86_400 * NANOS)
    with WriteAheadLog(folder, clock=clock, keys=KeyHome(home)) as log:
        report = prune(
            folder,
            bucket,
            Policy(),
            lambda type_, details: log.append(type_, details, component="journal"),
            older_than=timedelta(),
            now=now,
        )
    assert report.next_seq == 605
    source = LogSource(folder, KeyHome(home))
    newest = source.newest()
    for old in before:
        path = newest.prove(old.size)
        check_consistency(old.size, old.root, newest.checkpoint.size, newest.checkpoint.root, path)
    epochs = [parse_key_note(note).epoch for note in source.key_notes(0)]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= 4
