"""The pruned beginning of a log: its markers, and the order in which a segment goes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest

from holdfast.audit.pruned import (
    MARKER_SUFFIX,
    decode_marker,
    encode_marker,
    marker_name,
    parse_marker_name,
    prune_segment,
    read_pruned,
)
from holdfast.audit.schemas import PrunedDetails
from holdfast.audit.storage import LocalDirectory, LocalStorage
from holdfast.audit.tree import Frontier
from holdfast.core.errors import AuditCorruption

FIRST = "audit_20261101_000000_000000000001.log"
SECOND = "audit_20261102_000000_000000000004.log"
THIRD = "audit_20261103_000000_000000000009.log"


def _details(segment: str, first: int, last: int) -> PrunedDetails:
    frontier = Frontier()
    frontier.extend([bytes([n]) * 32 for n in range(last)])
    return PrunedDetails(
        segment=segment, first_seq=first, last_seq=last, raw_sha256="aa", raw_bytes=5, gzip_sha256="bb",
        gzip_bytes=3, index_sha256="cc", archive="s3://bucket/desk", key=None,
        peaks=[peak.hex() for peak in frontier.peaks()], quarantine=[f"{segment}-0-{'0' * 16}"],
    )  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> LocalDirectory:
    for segment in (FIRST, SECOND, THIRD):
        (tmp_path / (segment + ".gz")).write_bytes(b"packed")
        (tmp_path / segment.replace(".log", ".idx")).write_bytes(b"index")
    return LocalStorage().directory(tmp_path, create=False)


def test_pruned_segment_leaves_its_marker_and_nothing_else(log: LocalDirectory) -> None:
    """After a prune the segment and its index are gone, and the marker says what the record says."""
    said: list[tuple[str, dict[str, object]]] = []

    def append(type_: str, details: dict[str, object]) -> int:
        assert FIRST + ".gz" in log.names(), "the record comes before the file goes"
        said.append((type_, details))
        return 77

    assert prune_segment(log, append, _details(FIRST, 1, 3)) == 77
    assert sorted(name for name in log.names() if name.startswith(FIRST[:-4])) == [marker_name(FIRST)]
    pruned = read_pruned(log)
    assert said == [("PRUNED", msgspec.to_builtins(pruned.markers[0]))]
    assert (pruned.next_seq, pruned.frontier.size, pruned.quarantine) == (4, 3, {f"{FIRST}-0-{'0' * 16}"})
    assert "1 to 3" in str(pruned.in_archive())


@pytest.mark.parametrize("step", ["create", "rename", "sync", "unlink"])
def test_interrupted_prune_is_finished_by_a_repeat(log: LocalDirectory, step: str) -> None:
    """Whatever step of a prune fails, nothing is lost before the marker is durable, and a repeat ends the same."""
    real = getattr(log, step)
    calls: list[str] = []

    def failing(*args: object) -> object:
        raise OSError("the disk")

    setattr(log, step, failing)
    with pytest.raises(OSError, match="the disk"):
        prune_segment(log, lambda *_: calls.append("record") or 1, _details(FIRST, 1, 3))
    assert FIRST + ".gz" in log.names()
    assert read_pruned(log).next_seq == 1
    setattr(log, step, real)
    prune_segment(log, lambda *_: calls.append("record") or 1, _details(FIRST, 1, 3))
    assert read_pruned(log).next_seq == 4
    assert not [name for name in log.names() if name.endswith(".tmp")]
    assert len(calls) == 2


def test_markers_must_be_the_beginning_of_the_log(log: LocalDirectory) -> None:
    """A marker in the middle, or one after a gap, is damage."""
    prune_segment(log, lambda *_: 1, _details(SECOND, 4, 8))
    with pytest.raises(AuditCorruption, match="begins at sequence 4 where 1 belongs"):
        read_pruned(log)
    prune_segment(log, lambda *_: 1, _details(FIRST, 1, 3))
    assert [marker.first_seq for marker in read_pruned(log).markers] == [1, 4]


def test_changed_marker_is_named(log: LocalDirectory) -> None:
    """No byte of a marker can be changed, added or dropped unseen by whoever holds the record, or by its form."""
    good = encode_marker(_details(FIRST, 1, 3))
    name = marker_name(FIRST)
    for at in range(len(good)):
        changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        with contextlib.suppress(AuditCorruption):
            assert decode_marker(name, changed) != _details(FIRST, 1, 3), at
    for cut in (good[:-1], good + b"\n", b" " + good, b"", b"[" * 100_000):
        with pytest.raises(AuditCorruption):
            decode_marker(name, cut)


def test_marker_of_another_place_is_refused(log: LocalDirectory) -> None:
    """A marker counts only under its own segment's name, with as many peaks as its size has."""
    details = _details(FIRST, 1, 3)
    with pytest.raises(AuditCorruption, match="speaks of segment"):
        decode_marker(marker_name(SECOND), encode_marker(details))
    few = msgspec.structs.replace(details, peaks=details.peaks[:1])
    with pytest.raises(AuditCorruption, match="1 peaks for 3 leaves"):
        decode_marker(marker_name(FIRST), encode_marker(few))
    backward = msgspec.structs.replace(details, last_seq=0, peaks=[])
    with pytest.raises(AuditCorruption, match="before it begins"):
        decode_marker(marker_name(FIRST), encode_marker(backward))


def test_marker_names_belong_to_segments_only() -> None:
    """A marker's name is its segment's with another ending; nothing else is one."""
    assert parse_marker_name(marker_name(FIRST + ".gz")) == FIRST
    assert parse_marker_name("notes" + MARKER_SUFFIX) is None
    assert parse_marker_name(FIRST) is None
