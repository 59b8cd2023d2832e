"""What a paper market was told, line by line in a file, so that a run can be taken up again.

Promise: a line is whole in the file when `keep` returns, and outlives the death of the process, not of the machine:
paper has nothing to lose. A half-written last line never took effect and is cut off. A file that is something else,
or of another market, is refused and left as it is.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from holdfast.core.errors import BadInput

_BEGINNING = b'{"market":'


class MarketLine(Protocol):
    """A line, a `msgspec.Struct`; the first one of a file names its market."""

    market: str | None


L = TypeVar("L", bound=MarketLine)


class LineFile(Generic[L]):
    """One file of lines.

    Args:
        path: Where; its folder is made when it is not there.
        kind: What a line is.
        market: Names everything that the market's books depend on; stands in the first line.

    Attributes:
        lines: What was remembered, the oldest first; empty at first.

    Raises:
        BadInput: The file remembers another market, or is damaged, or none of ours.
    """

    def __init__(self, path: Path, kind: type[L], market: str) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self.lines = _read(path, kind, market)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def keep(self, line: L) -> None:
        """Write one line; it outlives the process when this returns.

        Raises:
            OSError: The disk refused; nothing of the line is left.
        """
        data = msgspec.json.encode(line) + b"\n"
        written = os.write(self._fd, data)
        if written < len(data):  # half a line would swallow the next one
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


def _read(path: Path, kind: type[L], market: str) -> list[L]:
    try:
        whole, _, torn = path.read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return []
    if not whole and not _BEGINNING.startswith(torn[: len(_BEGINNING)]):
        raise BadInput(f"{str(path)!r} is no memory of a market", hint="choose another --dir")
    try:
        lines = [msgspec.json.decode(line, type=kind) for line in whole.splitlines()]
    except msgspec.MsgspecError as error:
        raise BadInput(f"{str(path)!r} cannot be read: {error}", hint="choose another --dir") from error
    if torn:
        os.truncate(path, len(whole) + 1 if whole else 0)
    if lines and lines[0].market != market:
        raise BadInput(
            f"{str(path.parent)!r} remembers another market: {lines[0].market}, not {market}",
            hint="repeat the options it was begun with, or choose another --dir",
        )
    return lines
