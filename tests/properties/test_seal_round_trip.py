"""Sealing is lossless and keeps its members small and whole, whatever the lines."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.journal import HandmadeLog

from holdfast.audit.query import read_lines
from holdfast.audit.seal import MEMBER_BYTES, compress_segment, read_members, replace_raw
from holdfast.audit.storage import LocalStorage


@pytest.mark.contract("A11")
@given(
    lengths=st.lists(st.sampled_from([0, 1, 500, 20_000, 64_000]), max_size=14),
    letter=st.sampled_from("aü\n\x00"),
)
def test_a_sealed_segment_gives_back_every_line(lengths, letter):
    """What is read from the compressed file is what was written, member by member within bounds."""
    with tempfile.TemporaryDirectory() as root:
        log = HandmadeLog(Path(root) / "audit")
        name = log.segment([("NOTE", {"t": letter * (length // 6)}) for length in lengths])
        log.head()
        raw = (log.directory / name).read_bytes()
        directory = LocalStorage().directory(log.directory, create=False)
        facts = compress_segment(directory, name)
        replace_raw(directory, name)
        packed = (log.directory / f"{name}.gz").read_bytes()
        assert gzip.decompress(packed) == raw
        file = directory.open(f"{name}.gz")
        pieces = [piece for _, piece in read_members(file)]
        file.close()
        directory.close()
        assert len(pieces) == facts.members
        assert all(0 < len(piece) <= MEMBER_BYTES and piece.endswith(b"\n") for piece in pieces)
        assert list(read_lines(log.directory)) == log.lines
