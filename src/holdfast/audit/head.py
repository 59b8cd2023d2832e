"""The head: how far the log is durable, in one page that readers map.

Promise: the head never says more than the disk holds, because it is written after the sync it reports; and a
reader sees either the mark before or the mark after a change, never a mixture. Two slots are written in turn,
each in a sector of its own with its own CRC; the valid slot with the higher count is the head.

    offset  bytes  slot at 0 and at 512, little-endian
    0       8      magic "HFHEAD1" and a NUL
    8       8      count: grows by one with every write; the slot is count mod 2
    16      8      sequence: the highest durable sequence
    24      8      end offset: bytes of its segment that hold lines up to that sequence
    32      4      state: 1 open, 2 closed, 3 poisoned
    36      64     segment: its file name, NUL padded
    100     4      CRC-32 over bytes 0 to 100

The rest of the page is zero. The page is durable at close and when the state changes; in between a power cut
may leave an older mark, which recovery allows for, and a kill leaves the newest, because the page is shared.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

from holdfast.audit.storage import PAGE_BYTES, Directory, Page

HEAD_NAME = "head"
SLOT_OFFSETS = (0, 512)
SLOT_BYTES = 104

_MAGIC = b"HFHEAD1\0"
_BODY = struct.Struct("<8sQQQI64s")
_CRC = struct.Struct("<I")


class HeadState(IntEnum):
    """What the writer last said about itself."""

    OPEN = 1
    CLOSED = 2
    POISONED = 3


class HeadMark(NamedTuple):
    """One reading of the head.

    Attributes:
        sequence: The highest durable sequence; 0 before the first.
        segment: Name of the file that holds it, or "".
        end_offset: Bytes of that file up to the end of its line's newline.
        state: What the writer last said about itself.
        writes: How many times the head was written.
    """

    sequence: int
    segment: str
    end_offset: int
    state: HeadState
    writes: int


def encode_slot(mark: HeadMark) -> bytes:
    """The bytes of a slot that says *mark*."""
    body = _BODY.pack(
        _MAGIC, mark.writes, mark.sequence, mark.end_offset, mark.state, mark.segment.encode("ascii")
    )
    return body + _CRC.pack(crc32(body))


def decode_slot(slot: bytes) -> HeadMark | None:
    """The mark in a slot's bytes, or None where it is not valid."""
    if len(slot) < SLOT_BYTES:
        return None
    body = slot[: _BODY.size]
    if crc32(body) != _CRC.unpack_from(slot, _BODY.size)[0]:
        return None
    magic, count, sequence, end_offset, state, segment = _BODY.unpack(body)
    if magic != _MAGIC or state not in HeadState.__members__.values():
        return None
    try:
        name = segment.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        return None
    return HeadMark(sequence, name, end_offset, HeadState(state), count)


def decode_head(page: bytes) -> HeadMark | None:
    """The newest valid mark of a head page, or None where neither slot is valid."""
    marks = [decode_slot(page[offset : offset + SLOT_BYTES]) for offset in SLOT_OFFSETS]
    return max((mark for mark in marks if mark is not None), key=lambda mark: mark.writes, default=None)


def read_head(directory: Directory) -> HeadMark | None:
    """The head of the log in *directory*, or None where there is none or neither slot is valid."""
    try:
        file = directory.open(HEAD_NAME)
    except FileNotFoundError:
        return None
    try:
        return decode_head(file.pread(PAGE_BYTES, 0))
    finally:
        file.close()


class Head:
    """The writer's hand on the head page.

    The page is created, filled and synced before the log's first segment exists, so a log without head has
    lost it.

    Attributes:
        found: The mark that stood there, or None.
        end_offset: The end offset last written.
    """

    def __init__(self, directory: Directory) -> None:
        try:
            file = directory.open(HEAD_NAME, writable=True)
        except FileNotFoundError:
            file = directory.create(HEAD_NAME)
        try:
            if file.size() < PAGE_BYTES:
                missing = PAGE_BYTES - file.size()
                if file.pwrite(bytes(missing), file.size()) != missing:
                    raise OSError("short write to the head")
                file.fsync()
                directory.sync()
        finally:
            file.close()
        self._page: Page = directory.map_page(HEAD_NAME)
        self.found = mark = decode_head(self._page.read())
        if mark is None:
            self._page.write(bytes(PAGE_BYTES), 0)
        self._count = 0 if mark is None else mark.writes
        self._segment = b""
        self._name: str = ""
        self.end_offset = 0

    def write(self, sequence: int, segment: str, end_offset: int, state: HeadState = HeadState.OPEN) -> None:
        """Say that everything up to *sequence* is durable; only ever after the sync that made it so."""
        count = self._count + 1
        if segment != self._name:
            self._name, self._segment = segment, segment.encode("ascii")
        body = _BODY.pack(_MAGIC, count, sequence, end_offset, state, self._segment)
        self._page.write(body + _CRC.pack(crc32(body)), SLOT_OFFSETS[count & 1])
        self._count = count
        self.end_offset = end_offset

    def flush(self) -> None:
        """Return once the page is on the disk."""
        self._page.flush()

    def close(self) -> None:
        """Unmap the page; a second call does nothing."""
        self._page.close()
