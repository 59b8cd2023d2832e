"""Reading a journal ahead: a thread decodes the next pieces while what was read before is written and synced.

Promise: what is taken is what reading piece by piece gives, in that order, and where reading fails, what came before
the failure is taken first. At most `PIECES` pieces, of about a megabyte each, are held.

Limits: writing files, compressing and syncing go on beside the thread; decoding shares the interpreter with the rest.
While it works nobody else may use the reader, and once it is stopped the reader stands behind what was read, not
behind what was taken.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, Self

from holdfast.audit.format import leaf_hash
from holdfast.lake.columns import Made, made_of
from holdfast.lake.journal import Piece
from holdfast.lake.tables import LakeTable

PIECES = 24
PIECE_RECORDS = 8_192
"""So many records are read at once where a journal is read as a whole."""


class Read(NamedTuple):
    """What one piece of a journal gave.

    Attributes:
        last_seq: The sequence of its last record.
        epoch: The first sequence of its segment.
        last_line: Its last record's line.
        records: How many records it holds.
        weight: How many bytes.
        made: Their rows, by table.
    """

    last_seq: int
    epoch: int
    last_line: bytes
    records: int
    weight: int
    made: dict[type[LakeTable], Made]

    @property
    def leaf(self) -> bytes:
        """The leaf hash of the last record."""
        return leaf_hash(self.last_line)


class Reads(Protocol):
    """What is read: a `JournalReader` or a `JoinedJournal`."""

    @property
    def log_id(self) -> str:
        """The journal's id."""
        ...

    def read(self, most: int) -> Piece | None:
        """The next lines, at most *most*; None where all are read."""
        ...


def read_from(reader: Reads, most: int) -> Read | None:
    """The rows of the next piece of at most *most* records; None where all are read."""
    piece = reader.read(most)
    if piece is None:
        return None
    weight = sum(map(len, piece.lines))
    made = made_of(piece, reader.log_id)
    return Read(piece.last_seq, piece.epoch, piece.lines[-1], len(piece.lines), weight, made)


class ReadAhead:
    """Reads *reader* in a thread, pieces of at most *most* records."""

    def __init__(self, reader: Reads, most: int) -> None:
        self._reader = reader
        self._most = most
        self._thread = ThreadPoolExecutor(1, "holdfast-read-ahead")
        self._coming: deque[Future[Read | None]] = deque()
        for _ in range(PIECES):
            self._ask()

    def take(self) -> Read | None:
        """What the next piece gives, once it is read; None where all are read.

        Raises:
            TradingError: As reading raises it.
        """
        came = self._coming.popleft().result()
        self._ask()
        return came

    def stop(self) -> None:
        """Forget what was not taken."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        """It reads already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _ask(self) -> None:
        self._coming.append(self._thread.submit(read_from, self._reader, self._most))
