"""Last words: what a poisoned log still has to say, in room that was taken while the disk was well.

Promise: the reserve's bytes are on the disk before they are needed, behind a descriptor of its own and, where one
is configured, on another volume; words are durable when `append` returns; the next start of the log appends each
of them as a LATE record and only then clears the reserve, so that a crash at any step neither loses nor doubles
one.

The file is JSON Lines, then filler:

    {"crc":"9f3a2b1c","n":1,"ts":1763634000123456789,"type":"ORDER","user":"…","component":"…","details":{…}}

`crc` covers the bytes behind its comma, as in the log; `n` counts 1, 2, 3 ... from one clearing to the next. Words
that a LATE record of the log already carries, with the same n, time and content, are not taken again; that is what
makes every step of a start repeatable.

Limits: a write or sync that fails ends the reserve, as it ends the log. Words that a failing disk damaged
later show as a gap among the n of the LATE records. A copy-on-write file system takes new room for what is
overwritten, and may have none. The reserve is no evidence until a start took it up.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import msgspec

from holdfast.audit.format import CRC_END, FILLER, MAX_RECORD_BYTES, encode_details, line_middle
from holdfast.audit.segment import NO_SPACE, write_filler
from holdfast.audit.storage import PAGE_BYTES, Directory, File
from holdfast.core.errors import AuditWriteError, BadInput, DiskFull

RESERVE = "reserve"
POSITION_BYTES = 8192
"""Room for the exit of one position: its decision, its order, a cancel and what became of them."""
RESERVE_BYTES = 16 * POSITION_BYTES
MAX_WORDS_BYTES = MAX_RECORD_BYTES - 1_000
"""What one line may take, so that the LATE record around it is not too long."""


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the reserve.

    Attributes:
        n: Its number since the reserve was cleared, from 1.
        ts: When it was said, UTC nanoseconds.
        type: The record type that it would have been.
        user: Who caused it.
        component: Which part said it.
        details: As the type's schema says.
    """

    n: int
    ts: int
    type: str
    user: str
    component: str
    details: dict[str, Any]


_decode = msgspec.json.Decoder(Words).decode


class Reserve:
    """The preallocated file; made by `open_reserve`.

    Attributes:
        words: What it holds, in order.
        failure: Why it takes nothing more, or "".
        size: Bytes that the disk has given.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._lock = threading.Lock()
        content = file.pread(file.size(), 0)
        self.words = [words for words in map(_valid, content.split(FILLER)) if words is not None]
        self.failure = ""
        self.size = len(content)
        # Behind a line, whole or torn, stands a newline: its own, or filler.
        used = len(content.rstrip(FILLER))
        self._end = min(used + 1, self.size) if used else 0

    def grow(self, size: int) -> bool:
        """Have room for *size* bytes on the disk; False where the disk has not got it.

        Raises:
            OSError: Anything else went wrong; the reserve takes nothing more.
        """
        with self._lock:
            size = -(-size // PAGE_BYTES) * PAGE_BYTES
            if size <= self.size or self.failure:
                return not self.failure
            try:
                write_filler(self._file, self.size, size - self.size)
                self._file.fsync()
            except OSError as why:
                if why.errno in NO_SPACE:
                    with contextlib.suppress(OSError):
                        self._file.truncate(self.size)
                    return False
                self._fail(why)
                raise
            self.size = size
            return True

    def append(self, ts: int, type_: str, user: str, component: str, details: Mapping[str, Any]) -> int:
        """Make one line durable and return its n.

        Raises:
            BadInput: It cannot be written as a line.
            DiskFull: The reserve has no room for it.
            AuditWriteError: The write or sync failed, now or before.
        """
        middle = line_middle(type_, user, component)
        # Encoded inside an object, as LATE will hold it, so that it is not nested too deep for that; then taken out.
        body = encode_details({"details": details})[len(b'{"details":') : -1]
        if len(middle) + len(body) > MAX_WORDS_BYTES or body[:1] != b"{":
            raise BadInput(
                f"last words refused: {len(middle) + len(body)} bytes > {MAX_WORDS_BYTES} bytes (type={type_})"
            )
        with self._lock:
            if self.failure:
                raise AuditWriteError(f"last words refused: the reserve failed: {self.failure}")
            n = self.words[-1].n + 1 if self.words else 1
            rest = b'"n":%d,"ts":%d%b%b}' % (n, ts, middle, body)
            line = b'{"crc":"%08x",%b' % (crc32(rest), rest)
            if self._end + len(line) + 1 > self.size:
                raise DiskFull(
                    f"last words refused: the reserve is full ({self._end} of {self.size} bytes)",
                    hint="start again on a disk that works: the reserve is taken up and cleared then",
                )
            try:
                self._write(line + FILLER, self._end)
            except OSError as why:
                self._fail(why)
                raise AuditWriteError(f"last words refused: the reserve failed: {self.failure}") from why
            self._end += len(line) + 1
            self.words.append(_decode(line))
        return n

    def clear(self) -> None:
        """Overwrite everything with filler; only once every line is in the log.

        Raises:
            OSError: It could not; the reserve takes nothing more.
        """
        with self._lock:
            try:
                if self._end:
                    self._write(FILLER * self._end, 0)
            except OSError as why:
                self._fail(why)
                raise
            self._end = 0
            self.words = []

    def _write(self, data: bytes, offset: int) -> None:
        if self._file.pwrite(data, offset) != len(data):
            raise OSError(errno.EIO, "short write to the reserve")
        self._file.fdatasync()

    def _fail(self, why: OSError) -> None:
        """Take nothing more: after a failed sync nobody knows what the disk holds."""
        self.failure = f"{type(why).__name__}: {why}"
        self._file.close()

    def close(self) -> None:
        """Give up the descriptor; a second call does nothing."""
        with self._lock:
            self.failure = self.failure or "it was closed"
            self._file.close()


def open_reserve(directory: Directory, name: str, size: int) -> Reserve | None:
    """The reserve *name* in *directory*, made and filled to *size* bytes where it is missing or shorter.

    With *size* 0 only one that is there is opened; None where there is none, or the disk has no room for one.

    Raises:
        OSError: Anything else.
    """
    try:
        file = directory.open(name, writable=True)
    except FileNotFoundError:
        if not size:
            return None
        file = directory.create(name)
        directory.sync()
    reserve = Reserve(file)
    if reserve.size < size and not reserve.grow(size) and not reserve.size:
        reserve.close()
        return None
    return reserve


def _valid(line: bytes) -> Words | None:
    """The words of a line; None for filler and for what a crash or a disk left of one."""
    if not line.startswith(b'{"crc":"%08x",' % crc32(line[CRC_END:])):
        return None
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode(line)
    return None
