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

from collections.abc import Callable
from pathlib import Path

import msgspec

from holdfast.venues.paper.accounts import OrderRequest
from holdfast.venues.paper.engine import Engine
from holdfast.venues.remembered import LineFile

FILE_NAME = "requests.jsonl"


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
        self._file = LineFile(directory / FILE_NAME, Line, market)
        if not self._file.lines:
            self._file.keep(Line(market=market, time=start_ns))

    def keep(self, line: Line) -> None:
        """Write one line; it outlives the process when this returns."""
        self._file.keep(line)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def replay(self, engine: Engine, release: Callable[[int], None]) -> None:
        """Tell *engine* everything again; *release* hands it the feed's events up to a market time."""
        for line in self._file.lines[1:]:
            if line.time is not None:
                release(line.time)
                engine.advance(line.time)
            elif line.place is not None:
                engine.place(line.place)
            elif line.cancel is not None:
                engine.cancel(line.cancel)
        engine.drain()
