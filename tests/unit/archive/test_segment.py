"""Reading a sealed segment before it is entrusted to anybody."""

from __future__ import annotations

import gzip
import shutil
import zlib

import pytest

from holdfast.archive.segment import examine
from holdfast.audit.storage import LocalStorage
from holdfast.audit.tree import Frontier
from holdfast.core.errors import AuditCorruption, BadInput

NAME = "audit_20251120_102000_000000000001.log.gz"
SECOND = "audit_20251121_102000_000000000303.log.gz"


def _examine(root, name=NAME, *, before=None, max_raw_bytes=1 << 20):
    home = LocalStorage().directory(root, create=False)
    try:
        return examine(home, name, Frontier() if before is None else before, max_raw_bytes=max_raw_bytes)
    finally:
        home.close()


@pytest.fixture
def root(template, tmp_path):
    shutil.copytree(template / "log", tmp_path / "log")
    return tmp_path / "log"


def test_segments_follow_one_another(root):
    """Examined in order, each segment continues the tree of the one before and says what its records say."""
    frontier = Frontier()
    first = _examine(root, before=frontier)
    second = _examine(root, SECOND, before=frontier)
    assert (first.first_seq, first.last_seq, second.first_seq, second.last_seq) == (1, 302, 303, 604)
    assert frontier.size == 604
    assert first.key is not None
    assert second.key is not None
    assert (first.key.epoch, second.key.epoch) == (1, 2)
    assert first.gzip_bytes == (root / NAME).stat().st_size


def test_segment_after_another_tree_is_refused(root):
    """A segment whose first record names another root than the records before it have is damage."""
    other = Frontier()
    other.extend([bytes(32)] * 302)
    with pytest.raises(AuditCorruption, match="SEGMENT names another root") as damaged:
        _examine(root, SECOND, before=other)
    assert damaged.value.sequence == 303


def test_no_more_is_unpacked_than_was_said(root):
    """A segment of more raw bytes than its manifest says is stopped, although every line of it is right."""
    size = _examine(root).raw_bytes
    assert _examine(root, max_raw_bytes=size).raw_bytes == size
    with pytest.raises(AuditCorruption, match=f"holds more than {size - 1} bytes"):
        _examine(root, max_raw_bytes=size - 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: [*lines[:5], *lines[6:]], "sequence 7 stands where 6 belongs"),
        (lambda lines: [*lines[:5], lines[4], *lines[5:]], "sequence 5 stands where 6 belongs"),
        (lambda lines: [*lines[:5], lines[5].replace(b"NOTE", b"NOTA"), *lines[6:]], "crc does not match"),
        (lambda lines: [*lines[:5], b"\n", *lines[5:]], "not a record line"),
        (lambda lines: lines[2:], "sequence 3 stands where 1 belongs"),
        (lambda lines: [*lines[:-1], lines[-1][:-1]], "the last line has no end"),
        (lambda lines: [], "no record"),
    ],
)
def test_disorder_in_the_lines_is_named(root, change, says):
    """A line that is dropped, doubled, changed, empty or cut is named by the sequence that belongs there."""
    lines = gzip.decompress((root / NAME).read_bytes()).splitlines(keepends=True)
    (root / NAME).write_bytes(zlib.compress(b"".join(change(lines)), 6, wbits=31) if change(lines) else b"")
    with pytest.raises(AuditCorruption, match=says):
        _examine(root)


@pytest.mark.parametrize("name", [NAME.removesuffix(".gz"), "head", "../log/head"])
def test_only_sealed_segments_are_read(root, name):
    """Nothing but a sealed segment's name is opened."""
    with pytest.raises(BadInput, match="not a sealed segment"):
        _examine(root, name)
