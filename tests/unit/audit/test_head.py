from pathlib import Path

import pytest

from holdfast.audit.head import (
    SLOT_BYTES,
    SLOT_OFFSETS,
    Head,
    HeadMark,
    HeadState,
    decode_head,
    decode_slot,
    encode_slot,
    read_head,
)
from holdfast.audit.storage import PAGE_BYTES, LocalStorage

NAME = "audit_20261120_000000_000000000001.log"


@pytest.fixture
def directory(tmp_path: Path):
    handle = LocalStorage().directory(tmp_path / "log", create=True)
    yield handle
    handle.close()


def test_head_reads_back_what_was_written_last(directory):
    """A reader sees the newest mark at once, without a flush."""
    assert read_head(directory) is None
    head = Head(directory)
    for seq in range(1, 6):
        head.write(seq, NAME, seq * 100)
        assert read_head(directory) == HeadMark(seq, NAME, seq * 100, HeadState.OPEN, seq)
    head.write(5, NAME, 500, HeadState.CLOSED)
    head.flush()
    head.close()
    assert read_head(directory).state is HeadState.CLOSED
    again = Head(directory)
    assert again.found.writes == 6
    again.write(6, NAME, 600)
    assert read_head(directory).writes == 7
    again.close()


@pytest.mark.invariant("I8")
def test_torn_slot_leaves_the_mark_before_it(directory):
    """Whatever byte of the newest slot is wrong, a reader sees the mark before it."""
    head = Head(directory)
    head.write(1, NAME, 100)
    head.write(2, NAME, 200)
    head.close()
    page = (directory.path / "head").read_bytes()
    assert len(page) == PAGE_BYTES
    assert not any(page[SLOT_OFFSETS[1] + SLOT_BYTES :])
    newest = SLOT_OFFSETS[0]
    for position in range(SLOT_BYTES):
        torn = bytearray(page)
        torn[newest + position] ^= 0xFF
        assert decode_head(bytes(torn)).sequence == 1


def test_page_without_a_valid_slot_is_no_head():
    """Neither zeros nor noise nor a cut page is taken for a head."""
    assert decode_head(bytes(PAGE_BYTES)) is None
    assert decode_head(b"\xff" * PAGE_BYTES) is None
    assert decode_head(b"") is None
    assert decode_slot(encode_slot(HeadMark(1, NAME, 5, HeadState.OPEN, 9))) == HeadMark(
        1, NAME, 5, HeadState.OPEN, 9
    )
