"""Names and manifests of an archive: what our own parser lets through."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.archive import manifest as kept
from holdfast.archive.manifest import ClosedManifest, FileEntry, LogManifest, SegmentManifest
from holdfast.audit.storage import LocalStorage
from holdfast.audit.tiles import TileStore, write_tiles
from holdfast.audit.tree import Frontier
from holdfast.core.errors import AuditCorruption, BadInput

SEGMENT = "audit_20261101_000000_000000000001.log"
NAME = kept.segment_manifest_name(SEGMENT)
TAIL = "audit_20261101_000000_000000000001.log-77-0123456789abcdef"


def _entry(name: str, size: int = 5) -> FileEntry:
    return FileEntry(name, size, "ab" * 32)


def _manifest(**changes) -> SegmentManifest:
    frontier = Frontier()
    frontier.extend([bytes(32)] * 300)
    values = {
        "version": 1, "log_id": "cd" * 16, "origin": "holdfast", "segment": SEGMENT, "first_seq": 1,
        "last_seq": 300, "last_ts_ns": 1, "raw_sha256": "ab" * 32, "raw_bytes": 900,
        "peaks": [peak.hex() for peak in frontier.peaks()], "key": None, "quarantine": [TAIL], "previous": "",
        "files": [_entry(SEGMENT + ".gz"), _entry(f"quarantine/{TAIL}")],
    } | changes  # fmt: skip
    return SegmentManifest(**values)


def _decode(manifest) -> object:
    return kept.decode(NAME, kept.encode(manifest), type(manifest))


def test_manifest_comes_back_as_it_was():
    """A manifest that this version wrote is read back equal."""
    assert _decode(_manifest()) == _manifest()


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd", "/etc/passwd", "quarantine/../head", "quarantine/" + TAIL.upper(), "head",
        "audit_20261102_000000_000000000002.log.gz", SEGMENT, "tile/0/000", "run/pid", "", ".", "quarantine/x",
        SEGMENT + ".gz\0", SEGMENT + ".GZ",
    ],
)  # fmt: skip
def test_file_that_is_not_the_segments_own_is_refused(name):
    """A manifest cannot name a file outside its segment: no path, no other segment, no other case."""
    with pytest.raises(AuditCorruption, match=r"none of its segment|names a file twice"):
        _decode(_manifest(files=[_entry(SEGMENT + ".gz"), _entry(name)]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"files": [_entry(SEGMENT + ".gz")] * 2}, "twice"),
        ({"files": []}, "does not name the segment's own file"),
        ({"files": [_entry(SEGMENT + ".gz", -1)]}, "-1 bytes"),
        ({"files": [_entry(SEGMENT + ".gz", kept.MAX_FILE_BYTES + 1)]}, "bytes and SHA-256"),
        ({"files": [FileEntry(SEGMENT + ".gz", 1, "AB" * 32)]}, "SHA-256"),
        (
            {"quarantine": ["../x"], "files": [_entry(SEGMENT + ".gz"), _entry("quarantine/../x")]},
            "none of its",
        ),
        ({"first_seq": 2}, "speaks of segment"),
        ({"segment": "audit_20261102_000000_000000000001.log"}, "speaks of segment"),
        ({"last_seq": 0}, "records up to 0"),
        ({"last_seq": 299}, "peaks"),
        ({"peaks": ["zz" * 32] * 4}, "peaks"),
        ({"raw_bytes": kept.MAX_FILE_BYTES + 1}, "bytes"),
        ({"log_id": "x"}, "log id"),
        (
            {"files": [_entry(SEGMENT + ".gz"), _entry(SEGMENT.replace(".log", ".tiles"), 5)]},
            "5 bytes of tiles, expected 8192",
        ),
    ],
)
def test_impossible_manifest_is_damage(changes, says):
    """A manifest whose values cannot be true is refused with what is wrong in it."""
    with pytest.raises(AuditCorruption, match=says):
        _decode(_manifest(**changes))


def test_later_version_is_named():
    """A manifest of a later version is no damage but asks for a newer reader."""
    with pytest.raises(BadInput, match="version 2"):
        _decode(_manifest(version=2))


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 50_000, b"\xff", b'{"version":1}', b"null"])
def test_other_bytes_are_no_manifest(data):
    """Whatever else lies under a manifest's name is damage and nothing worse."""
    for kind in (SegmentManifest, LogManifest, ClosedManifest):
        with pytest.raises(AuditCorruption):
            kept.decode(NAME, data, kind)


def test_manifest_is_written_in_one_way():
    """Blanks, other orders and unknown keys are refused, so a manifest's hash is its content's."""
    data = kept.encode(_manifest())
    for other in (data + b" ", data.replace(b":1,", b": 1,", 1), data.replace(b"{", b'{"more":1,', 1)):
        with pytest.raises(AuditCorruption, match="not written as"):
            kept.decode(NAME, other, SegmentManifest)


@pytest.mark.parametrize(
    "name", ["../head", "audit_20261101_000000_000000000001.log", "tile/0/000", "run/pid"]
)
def test_rest_of_a_closed_log_names_only_its_own_files(name):
    """The manifest of a closed log's rest cannot name archived segments, paths or unknown files."""
    rest = ClosedManifest(
        version=1, log_id="cd" * 16, first_seq=301, last_seq=400, previous="", files=[_entry("head", 4096), _entry(name)]
    )  # fmt: skip
    with pytest.raises(AuditCorruption, match="none of its records"):
        kept.decode(kept.closed_manifest_name(rest), kept.encode(rest), ClosedManifest)


def test_rest_is_named_by_its_content():
    """The name of a closed log's rest carries its hash, so two states of one log never share it."""
    rest = ClosedManifest(
        version=1, log_id="cd" * 16, first_seq=1, last_seq=2, previous="", files=[_entry("head")]
    )
    name = kept.closed_manifest_name(rest)
    assert kept.decode(name, kept.encode(rest), ClosedManifest) == rest
    assert kept.parse_closed_manifest_name(name) == 2
    other = msgspec.structs.replace(rest, previous="00")
    with pytest.raises(AuditCorruption):
        kept.decode(name, kept.encode(other), ClosedManifest)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 300, 65_535, 65_536, 66_000])
def test_tiles_are_those_that_the_log_writes(tmp_path, size):
    """The names of full and unfinished tiles are exactly those that the log has at that size."""
    home = LocalStorage().directory(tmp_path / "log", create=True)
    leaves = [index.to_bytes(32, "big") for index in range(size)]
    with TileStore(home) as tiles:
        write_tiles(tiles, size, lambda start, end: leaves[start:end], partial=True)
        there = set(tiles.names())
        partial = dict(kept.partial_tiles(size))
        cut = size // 2
        assert there == {*kept.full_tiles(1, cut), *kept.full_tiles(cut + 1, size), *partial}
        assert not set(kept.full_tiles(1, cut)) & set(kept.full_tiles(cut + 1, size))
    for name, length in partial.items():
        assert (tmp_path / "log" / name).stat().st_size == length
    home.close()
