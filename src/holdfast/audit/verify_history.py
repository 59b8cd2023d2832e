"""The checkpoint history of one segment, note by note, for whoever compares it with the segment's records.

Promise: notes are given in the order of the file, each only after the one before it was used, so that a history of
any length takes no memory. What is no note, or not the next one, is a fault with its offset; the reading goes on
at the next note, so that damage to one costs no other. What stands behind the last valid note is told apart,
because on a log that was not closed it may be a note that a crash cut short. What looks wrong is read again: a read
that fell into a writer's write sees part of a note, and damage stays.

Limits: roots are not compared here, and of the signatures only those of the one key that is given.
"""

from __future__ import annotations

import re

import msgspec

from holdfast.audit.format import FILLER
from holdfast.audit.note import Note, VerifierKey, parse_checkpoint, parse_note
from holdfast.audit.storage import File
from holdfast.core.errors import BadInput

MAX_FAULTS = 100
MAX_AGAIN = 8
"""So often what looks wrong is read again, in one file."""
MAX_NOTE = 8192
"""A checkpoint of a log has one or two signatures; nothing longer is one."""

_BLOCK = 64 << 10
_FRAME = re.compile(rb"(?:[^\n]+\n){3}\n(?:[^\n]+\n)+(?=\n)")
_MAX_REST = 4 << 20


class HistoryNote(msgspec.Struct, array_like=True, frozen=True):
    """One whole note of a history.

    Attributes:
        offset: Where in its file it begins.
        origin: The log that it names.
        size: How many records it covers.
        root: Their root.
        raw: Its bytes, without the empty line behind it.
    """

    offset: int
    origin: str
    size: int
    root: bytes
    raw: bytes

    @property
    def note(self) -> Note:
        """Text and signatures."""
        return parse_note(self.raw)


class HistoryFault(msgspec.Struct, array_like=True, frozen=True):
    """One thing that is wrong in a history.

    Attributes:
        offset: Where it begins.
        reason: Why it is no valid note.
        named: Whether it begins with the log's name.
        several: Whether that stands in it again: then it is more than the one note that a crash may cut short.
    """

    offset: int
    reason: str
    named: bool = False
    several: bool = False


class HistoryReader:
    """Reads the `.checkpoints` file of one segment; of a segment without one there is nothing to read.

    Attributes:
        exists: Whether there is a file.
        end: Where the last valid note ends, its empty line included.
        faults: What is wrong, each with a valid note behind it.
        torn: What stands behind the last valid note, once `finish` was called; None where only filler does.
        filler: How many bytes of filler stand there, where nothing else does.
        origin: The log's name, once it is known.
    """

    def __init__(self, file: File | None) -> None:
        self.exists = file is not None
        self.end = 0
        self.faults: list[HistoryFault] = []
        self.torn: HistoryFault | None = None
        self.filler = 0
        self.origin = ""
        self._file = file
        self._data = b""  # from `_at` on
        self._at = 0
        self._size = 0  # of the last valid note
        self._again = 0
        self._doubts: list[HistoryFault] = []  # faults with no valid note behind them yet

    def accept(self, note: HistoryNote) -> None:
        """*note* is valid as far as its segment can tell: what is wrong before it is not a torn end."""
        self.faults += self._doubts[: MAX_FAULTS - len(self.faults)]
        self._doubts.clear()
        self._size = note.size
        self.end = note.offset + len(note.raw) + 1

    def doubt(self, note: HistoryNote, reason: str) -> None:
        """*note* is whole and wrong, unless it changed meanwhile: then it comes again."""
        if self._file is not None and self._again < MAX_AGAIN:
            content = note.raw + FILLER
            if self._file.pread(len(content), note.offset) != content:
                self._at, self._data, self._again = note.offset, b"", self._again + 1
                return
        self._doubts.append(HistoryFault(note.offset, reason))
        del self._doubts[MAX_FAULTS:]

    def next(self) -> HistoryNote | None:
        """The next note that can be read; None at the end."""
        while self._file is not None:
            self._fill(MAX_NOTE)
            if not self._data or self._data.startswith(FILLER):
                break
            frame = _FRAME.match(self._data, 0, MAX_NOTE)
            try:
                # A note ends with a newline, so what is no frame is refused too.
                raw = self._data[:MAX_NOTE].rstrip(FILLER) if frame is None else frame[0]
                checkpoint = parse_checkpoint(parse_note(raw).text)
            except BadInput as why:
                if self._has_changed() or self._resume(str(why)):
                    continue
                break
            note = HistoryNote(self._at, checkpoint.origin, checkpoint.size, checkpoint.root, raw)
            self._skip(len(raw) + 1)
            if checkpoint.size <= self._size:
                self.doubt(
                    note, f"checkpoint of size {checkpoint.size} follows one of size {self._size or 0}"
                )
                continue
            return note
        return None

    def _fill(self, size: int) -> None:
        while self._file is not None and len(self._data) < size:
            block = self._file.pread(_BLOCK, self._at + len(self._data))
            if not block:
                return
            self._data += block

    def _has_changed(self) -> bool:
        """Read what is at hand once more; whether it is not what it was."""
        before, self._data = self._data, b""
        self._fill(len(before))
        if self._again == MAX_AGAIN or self._data[: len(before)] == before:
            return False
        self._again += 1
        return True

    def _skip(self, size: int) -> None:
        self._data = self._data[size:]
        self._at += size

    def _resume(self, reason: str) -> bool:
        """What stands here is no note: go on at the next place where one may begin; False where there is none."""
        self._doubts.append(HistoryFault(self._at, reason))
        del self._doubts[MAX_FAULTS:]
        start, searched = 1, 0
        while searched < _MAX_REST:
            self._fill(2 * _BLOCK)
            found = self._data.find(b"\n\n", start)
            while found >= 0:
                if _FRAME.match(self._data, found + 2, found + 2 + MAX_NOTE) is not None:
                    self._skip(found + 2)
                    return True
                found = self._data.find(b"\n\n", found + 1)
            if len(self._data) < 2 * _BLOCK:
                return False
            searched += _BLOCK
            start = 0
            self._skip(_BLOCK)
        return False

    def finish(self) -> None:
        """Judge what stands behind the last valid note: filler, or something that is no note."""
        file, self._file = self._file, None
        if file is None:
            return
        offset, clean, again, named = self.end, True, False, False
        mark, before = FILLER + self.origin.encode() + FILLER, b""
        while (block := file.pread(_BLOCK, offset)) and offset < self.end + _MAX_REST:
            clean = clean and not block.strip(FILLER)
            named = named or (offset == self.end and block.startswith(mark[1:]))
            again = again or mark in before + block
            before = block[-len(mark) :]
            offset += len(block)
        if clean and not block:
            self.filler = offset - self.end
            return
        reason = self._doubts[0].reason if self._doubts else "neither a note nor filler"
        known = bool(self.origin)
        self.torn = HistoryFault(self.end, reason, named and known, again and known)


class SegmentKey:
    """The key that a segment's own KEY record names; whether it counts is not known here."""

    def __init__(self, vkey: VerifierKey) -> None:
        self.vkey = vkey

    def signs_alone(self, note: HistoryNote) -> bool:
        """Whether this key signed *note* and no other did.

        Raises:
            BadInput: A signature that says it is this key's is wrong.
        """
        parsed, key = note.note, self.vkey
        mine = [one for one in parsed.signatures if (one.name, one.key_id) == (key.name, key.key_id)]
        for one in mine:
            if not key.verify(parsed.text, one.value):
                raise BadInput(f"wrong signature of {one.name!r} (key id {one.key_id:08x})")
        return len(mine) == len(parsed.signatures) == 1
