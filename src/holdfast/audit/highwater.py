"""The high-water mark: the newest checkpoint of one log, remembered outside the log's directory.

Promise: the mark never says more than the log's own checkpoint history durably holds, because it is written after
it; a start that finds a shorter log, or another one under the same id, is told so and refuses. One page, two slots
written in turn, each with its own CRC, so that a crash leaves the mark before or the mark after.

    offset  bytes  slot at 0 and at 2048, little-endian
    0       8      count: grows by one with every write; the slot is count mod 2
    8       4      n: length of the note
    12      n      the checkpoint, a signed note
    12+n    8      bytes of the segment that hold lines up to the checkpoint's last record
    20+n    32 k   the peaks of the tree at that size, largest first: one for every bit of the size that is set
    …              zero
    2044    4      CRC-32 over bytes 0 to 2044

Offset and peaks are a bookmark: with them a start goes on behind the checkpoint instead of reading the log from its
first record. They count only where the peaks hash to the checkpoint's root.

Limits: it is as far away as the user's configuration directory, no further. Somebody who can write both can take
both back together; that is what anchors are for.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from holdfast.audit.note import Checkpoint, parse_checkpoint, parse_note
from holdfast.audit.storage import PAGE_BYTES, Directory, File
from holdfast.audit.tree import Frontier
from holdfast.core.errors import BadInput

HIGH_WATER_NAME = "high-water"
SLOT_BYTES = 2048

_START = struct.Struct("<QI")
_OFFSET = struct.Struct("<Q")
_CRC = struct.Struct("<I")


class WaterMark(NamedTuple):
    """One reading of the page.

    Attributes:
        writes: How many times it was written.
        note: The signed checkpoint.
        checkpoint: What it says; its signature is not checked here.
        end_offset: Bytes of its segment up to its last record, or 0 where there is no bookmark.
        frontier: The tree at that size, or None where there is no bookmark.
    """

    writes: int
    note: bytes
    checkpoint: Checkpoint
    end_offset: int
    frontier: Frontier | None


def encode_slot(writes: int, note: bytes, end_offset: int, peaks: list[bytes]) -> bytes:
    """The bytes of one slot."""
    body = b"".join([_START.pack(writes, len(note)), note, _OFFSET.pack(end_offset), *peaks])
    if len(body) > SLOT_BYTES - _CRC.size:
        raise BadInput(f"checkpoint of {len(note)} bytes is too long for the high-water mark")
    body = body.ljust(SLOT_BYTES - _CRC.size, b"\0")
    return body + _CRC.pack(crc32(body))


def decode_slot(slot: bytes) -> WaterMark | None:
    """The mark in a slot's bytes, or None where it is not valid."""
    if len(slot) < SLOT_BYTES:
        return None
    body = slot[: SLOT_BYTES - _CRC.size]
    if crc32(body) != _CRC.unpack_from(slot, len(body))[0]:
        return None
    writes, length = _START.unpack_from(body)
    end = _START.size + length
    if not writes or end > len(body):
        return None
    note = body[_START.size : end]
    try:
        checkpoint = parse_checkpoint(parse_note(note).text)
    except BadInput:
        return None
    return WaterMark(writes, note, checkpoint, *_bookmark(body[end:], checkpoint))


def _bookmark(rest: bytes, checkpoint: Checkpoint) -> tuple[int, Frontier | None]:
    """Offset and tree behind the note, where they fit its checkpoint."""
    count = checkpoint.size.bit_count()
    if len(rest) < _OFFSET.size + 32 * count:
        return 0, None
    (offset,) = _OFFSET.unpack_from(rest)
    peaks = [rest[_OFFSET.size + 32 * index :][:32] for index in range(count)]
    frontier = Frontier.of(checkpoint.size, peaks)
    return (offset, frontier) if offset and frontier.root() == checkpoint.root else (0, None)


def decode_page(page: bytes) -> WaterMark | None:
    """The newest valid mark of a page, or None where neither slot is valid."""
    marks = [decode_slot(page[at : at + SLOT_BYTES]) for at in (0, SLOT_BYTES)]
    return max((mark for mark in marks if mark is not None), key=lambda mark: mark.writes, default=None)


def read_high_water(path: Path) -> bytes | None:
    """The newest checkpoint in the page *path*, a signed note, or None where there is none."""
    try:
        mark = decode_page(path.read_bytes())
    except FileNotFoundError:
        return None
    return None if mark is None else mark.note


class HighWater:
    """The writer's hand on the page; made where it is missing.

    Attributes:
        found: The mark that stood there, or None.
    """

    def __init__(self, directory: Directory) -> None:
        try:
            self._file: File = directory.open(HIGH_WATER_NAME, writable=True)
        except FileNotFoundError:
            self._file = directory.create(HIGH_WATER_NAME)
        missing = PAGE_BYTES - self._file.size()
        if missing > 0:
            if self._file.pwrite(bytes(missing), self._file.size()) != missing:
                raise OSError(f"short write to {HIGH_WATER_NAME!r}")
            self._file.fsync()
            directory.sync()
        self.found = decode_page(self._file.pread(PAGE_BYTES, 0))
        self._writes = 0 if self.found is None else self.found.writes

    def write(self, note: bytes, end_offset: int, frontier: Frontier) -> None:
        """Remember the checkpoint *note*; return once that is durable."""
        writes = self._writes + 1
        slot = encode_slot(writes, note, end_offset, frontier.peaks())
        if self._file.pwrite(slot, SLOT_BYTES * (writes & 1)) != SLOT_BYTES:
            raise OSError(f"short write to {HIGH_WATER_NAME!r}")
        self._file.fdatasync()
        self._writes = writes

    def close(self) -> None:
        """Give up the descriptor."""
        self._file.close()
