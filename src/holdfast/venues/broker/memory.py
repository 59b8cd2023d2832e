"""What the broker remembers, so that a run can be taken up again: every request and every step of time.

The engine is a function of its feed and of what it was told, so telling it the same again rebuilds the same books:
ids, positions, what was taken of each quote. The file is JSON Lines:

    {"market": "...", "start": ...}   first line: which market this belongs to and when it began; another is refused
    {"time": 1694181600000000000}     market time stepped to here
    {"place": {...}}                  an order was asked for
    {"cancel": "order id"}            a cancel was asked for

A line is written before its effect, so that whatever a client may have seen is here. It survives the death of the
process, not of the machine: paper has nothing to lose. A half-written last line never took effect. Beside it lies the
token, so that a trader finds the same door again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

from holdfast.core.errors import BadInput
from holdfast.venues.broker.engine import Engine
from holdfast.venues.broker.orders import OrderRequest
from holdfast.venues.remembered import LineFile

FILE_NAME = "broker.jsonl"
TOKEN_NAME = "broker.token"  # noqa: S105  a file's name


class Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One line of the file; one field is set, in the first line `market` and `start`."""

    market: str | None = None
    start: int | None = None
    time: int | None = None
    place: OrderRequest | None = None
    cancel: str | None = None


class Memory:
    """The files of one broker directory.

    Args:
        directory: Made when it is not there.
        market: Names the feed and everything else that the books depend on.
        start_ns: When the market began, UTC ns.

    Raises:
        BadInput: The directory remembers another market, or is damaged.
    """

    def __init__(self, directory: Path, market: str, start_ns: int) -> None:
        self._file = LineFile(directory / FILE_NAME, Line, market)
        if not self._file.lines:
            self._file.keep(Line(market=market, start=start_ns))
        self.token = _token(directory / TOKEN_NAME)

    def keep(self, told: OrderRequest | str | int) -> None:
        """Write one line; it outlives the process when this returns."""
        if isinstance(told, int):
            self._file.keep(Line(time=told))
        elif isinstance(told, str):
            self._file.keep(Line(cancel=told))
        else:
            self._file.keep(Line(place=told))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def replay(self, engine: Engine, release: Callable[[int], None]) -> None:
        """Tell *engine* everything again; *release* hands it the feed's minutes up to a market time."""
        for line in self._file.lines[1:]:
            if line.time is not None:
                release(line.time)
                engine.advance(line.time)
            elif line.place is not None:
                engine.place(line.place)
            elif line.cancel is not None:
                engine.cancel(line.cancel)
        engine.drain()


def _token(path: Path) -> str:
    """The token kept at *path*, made on first use."""
    try:
        kept = path.read_bytes().decode("ascii").strip()
    except FileNotFoundError:
        kept = ""
    except UnicodeDecodeError as error:
        raise BadInput(f"{str(path)!r} is no token", hint="remove it, and a new one is made") from error
    if kept:
        return kept
    token = secrets.token_urlsafe(24)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(token + "\n")
    return token
