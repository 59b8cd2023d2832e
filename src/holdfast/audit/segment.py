"""The segment that is being written: its lines, and the filler ahead of them.

Promise: a line is only ever written into space that the disk has already given, so that a full disk is known
before it stops anything; behind the last line stand newlines and nothing else, to the end of the allocation.

Filler grows ahead of need in steps that double from `FIRST_FILL_BYTES` to `FILL_STEP_BYTES`. A step that the
disk refuses for lack of room is halved, down to one page; when not even that can be had, `space_low` says so
until there is room again.

Limits: whoever writes lines holds the log's lock for that; `filling` is the only lock here, and guards the
growth alone, so that the next step can be written while lines are.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

from holdfast.audit.format import FILLER
from holdfast.audit.storage import PAGE_BYTES, File

FILL_STEP_BYTES = 8 << 20
FIRST_FILL_BYTES = 256 << 10
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_WRITE_CHUNK = 1 << 20
_AHEAD_BYTES = 1 << 20


class SegmentFile:
    """The file that lines go to, one after the other over the log's life.

    Args:
        on_filler_wanted: Called when the filler runs low; it must return at once.
        first_bytes: The first step of a new file's filler, at most.

    Attributes:
        file: The segment's file, or None before the first.
        end: Bytes of it that hold lines.
        allocated: Bytes of it that the disk has given.
        filler_wanted: Whether the next step is due.
        space_low: Whether the next step could not be had.
        filling: Held while the file grows or is exchanged.
    """

    def __init__(self, on_filler_wanted: Callable[[], None], first_bytes: int = FIRST_FILL_BYTES) -> None:
        self.file: File | None = None
        self.end = 0
        self.allocated = 0
        self.filler_wanted = False
        self.space_low = False
        self.filling = threading.Lock()
        self._first_bytes = first_bytes
        self._step = min(FIRST_FILL_BYTES, first_bytes)  # the next one, bytes
        self._on_filler_wanted = on_filler_wanted

    def take_up(self, file: File, end: int) -> None:
        """Go on in *file* behind byte *end*."""
        self.file, self.end, self.allocated = file, end, file.size()

    def begin(self, file: File) -> None:
        """Go on in the new *file*, filled and synced; call with `filling` held."""
        self.file, self.end, self.allocated = file, 0, 0
        self._step = min(FIRST_FILL_BYTES, self._first_bytes)
        if not self.grow():
            raise OSError(errno.ENOSPC, f"no space left for a new segment {file.name!r}")
        file.fsync()

    def cut(self) -> None:
        """Cut the file behind its last line and sync it; call with `filling` held."""
        if self.file is not None:
            self.file.truncate(self.end)
            self.file.fsync()

    def put(self, data: bytes) -> None:
        """Write *data*, whole lines, behind the last one."""
        file = self.file
        if file is None:
            raise OSError(errno.EBADF, "no segment to write to")
        end = self.end + len(data)
        if end > self.allocated:
            with self.filling:
                while end > self.allocated:
                    if not self.grow():
                        raise OSError(errno.ENOSPC, f"no space left for {len(data)} bytes in {file.name!r}")
        # One write for one batch; a short one is a failure like any other.
        if file.pwrite(data, self.end) != len(data):
            raise OSError(errno.EIO, f"short write to {file.name!r}")
        self.end = end
        if self.allocated - end < self._step // 4 and not self.filler_wanted:
            self.filler_wanted = True
            self._on_filler_wanted()

    def grow(self, at_most: int = FILL_STEP_BYTES) -> bool:
        """Add the next step of filler behind the allocated part; call with `filling` held.

        Returns:
            False, with `space_low` set, when not even a page can be had.
        """
        step = min(self._step, at_most)
        while step >= PAGE_BYTES and self.file is not None:
            start = self.allocated
            size = step - start % PAGE_BYTES
            try:
                write_filler(self.file, start, size)
            except OSError as why:
                if why.errno not in NO_SPACE:
                    raise
                step //= 2
                continue
            self.allocated = start + size
            self._step = min(2 * step, FILL_STEP_BYTES)
            self.space_low = False
            return True
        self._step = PAGE_BYTES
        self.space_low = True
        return False

    def fill_ahead(self, sync: threading.Lock, goes_on: Callable[[], bool]) -> None:
        """Have filler on the disk before it is needed, in small pieces, as long as *goes_on*.

        It writes only behind the allocated part, so nobody who writes lines has to wait for it; its sync is
        made with the log's *sync* held, because of two syncs of one descriptor only one is told of a failure.
        """
        self.filler_wanted = False
        goal = self._step
        while goes_on() and (self.allocated - self.end < goal or self.space_low):
            with self.filling:
                file = self.file
                if file is None or not self.grow(_AHEAD_BYTES):
                    return
            with sync:
                if self.file is file:
                    file.fdatasync()

    def close(self) -> None:
        """Give up the descriptor."""
        if self.file is not None:
            self.file.close()


def write_filler(file: File, start: int, size: int) -> None:
    """Write *size* bytes of filler from byte *start* of *file* on.

    Raises:
        OSError: The disk took less.
    """
    for offset in range(start, start + size, _WRITE_CHUNK):
        part = FILLER * min(_WRITE_CHUNK, start + size - offset)
        if file.pwrite(part, offset) != len(part):
            raise OSError(errno.ENOSPC, "short write of filler")
