"""What the exchange remembers, so that a run can be taken up again: every request and every step of time.

The engine is a function of its feed and of what it was told, so telling it the same again rebuilds the same
books: order ids, queue places, what was taken from each level. The file is JSON Lines:

    {"market": "...", "time": ...}    first line: which market this belongs to and when it began; another is refused
    {"time": 1795190400500000000}     market time stepped to here
    {"place": {...}}                  an order was asked for
    {"cancel": "order id"}            a cancel was asked for

A line is written before its effect, so that whatever a client may have seen is here. It survives the death of the
process, not of the machine: paper has nothing to lose. A half-written last line never took effect.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from holdfast.core.errors import BadInput
from holdfast.venues.paper.accounts import OrderRequest
from holdfast.venues.paper.engine import Engine

FILE_NAME = "requests.jsonl"
_BEGINNING = b'{"market":'


class Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One line of the file; one field is set, in the first line `market` and `time`."""

    market: str | None = None
    time: int | None = None
    place: OrderRequest | None = None
    cancel: str | None = None


def remembered_start(directory: Path) -> int | None:
    """When the market that *directory* remembers began, UTC ns; None where nothing is remembered."""
    try:
        with (directory / FILE_NAME).open("rb") as file:
            return msgspec.json.decode(file.readline(), type=Line).time
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


class Memory:
    """The file of one exchange directory.

    Args:
        directory: Made when it is not there.
        market: Names the feed and everything else that the books depend on.
        start_ns: When the market began, UTC ns.

    Raises:
        BadInput: The directory remembers another market, or is damaged.
    """

    def __init__(self, directory: Path, market: str, start_ns: int) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / FILE_NAME
        self._lines = self._read(market)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if not self._lines:
            self.keep(Line(market=market, time=start_ns))

    def keep(self, line: Line) -> None:
        """Write one line; it outlives the process when this returns."""
        data = msgspec.json.encode(line) + b"\n"
        written = os.write(self._fd, data)
        if written < len(data):  # half a line would swallow the next one
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def replay(self, engine: Engine, release: Callable[[int], None]) -> None:
        """Tell *engine* everything again; *release* hands it the feed's events up to a market time."""
        for line in self._lines[1:]:
            if line.time is not None:
                release(line.time)
                engine.advance(line.time)
            elif line.place is not None:
                engine.place(line.place)
            elif line.cancel is not None:
                engine.cancel(line.cancel)
        engine.drain()

    def _read(self, market: str) -> list[Line]:
        try:
            whole, _, torn = self._path.read_bytes().rpartition(b"\n")
        except FileNotFoundError:
            return []
        if not whole and not _BEGINNING.startswith(torn[: len(_BEGINNING)]):
            raise BadInput(f"{str(self._path)!r} is no memory of a market", hint="choose another --dir")
        try:
            lines = [msgspec.json.decode(line, type=Line) for line in whole.splitlines()]
        except msgspec.MsgspecError as error:
            raise BadInput(
                f"{str(self._path)!r} cannot be read: {error}", hint="choose another --dir"
            ) from error
        if torn:
            os.truncate(self._path, len(whole) + 1 if whole else 0)
        if lines and lines[0].market != market:
            raise BadInput(
                f"{str(self._path.parent)!r} remembers another market: {lines[0].market}, not {market}",
                hint="repeat the options it was begun with, or choose another --dir",
            )
        return lines
