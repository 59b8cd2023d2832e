"""What a log does with its reserve: ready while all is well, used once it is poisoned, taken up at the next start.

Promise: `say` makes words durable in the reserve or raises; it never touches the log's own files. `take_up` gives the
log every word that no LATE record carries yet, durably, and then clears the reserve. A reserve that cannot be had
does not stop the log, and `is_ready` says so, because whoever adds risk must know.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.audit.holder import RUN
from holdfast.audit.reserve import POSITION_BYTES, RESERVE, Reserve, Words, open_reserve
from holdfast.audit.storage import Directory, Storage
from holdfast.core.errors import AuditWriteError


class LastWords:
    """The reserve of one log.

    Args:
        storage: Where the own volume's directory is opened.
        size: Bytes to have ready; 0 for a log that needs none, which still takes up what it finds.
        place: A directory on another volume, where the file is named after the log's id; None for `run/reserve`.

    Attributes:
        failure: Why there is no reserve, or "".
        lost: Words that could not be said.
    """

    def __init__(self, storage: Storage, *, size: int, place: Path | None) -> None:
        self._storage = storage
        self._size = size
        self._place = place
        self._reserve: Reserve | None = None
        self._counting = threading.Lock()
        self.failure = ""
        self.lost = 0

    @property
    def is_ready(self) -> bool:
        """Whether the reserve is there, as large as asked; also True where none was asked for."""
        if not self._size:
            return True
        reserve = self._reserve
        return reserve is not None and not reserve.failure and reserve.size >= self._size

    def open(self, home: Directory, log_id: str) -> None:
        """Have the reserve's file open and filled; where that fails, `failure` says why and the log goes on."""
        self.close()
        self._reserve, self.failure = None, ""
        try:
            if self._place is not None:
                directory, name = self._storage.directory(self._place, create=True), f"{log_id}.{RESERVE}"
            elif self._size or RUN in home.names():
                directory, name = home.subdirectory(RUN), RESERVE
            else:
                return
            try:
                self._reserve = open_reserve(directory, name, self._size)
            finally:
                directory.close()
        except OSError as why:
            self.failure = f"{type(why).__name__}: {why}"
        if self._reserve is None and self._size:
            self.failure = self.failure or "no space left for it"

    def grow(self, positions: int) -> bool:
        """Have room for the exits of *positions* open positions; whether it is there now."""
        if not self._size:
            return True
        self._size = max(self._size, positions * POSITION_BYTES)
        if self._reserve is not None and not self.is_ready:
            try:
                self._reserve.grow(self._size)
            except OSError as why:
                self.failure = f"{type(why).__name__}: {why}"
        return self.is_ready

    def say(self, ts: int, type_: str, user: str, component: str, details: Mapping[str, Any]) -> int:
        """Make one line durable; its n.

        Raises:
            BadInput: It cannot be written.
            AuditWriteError: There is no reserve, it is full, or it failed; counted in `lost`.
        """
        reserve = self._reserve
        try:
            if reserve is not None:
                return reserve.append(ts, type_, user, component, details)
        except AuditWriteError:
            self._count_lost()
            raise
        self._count_lost()
        raise AuditWriteError(f"last words refused: there is no reserve: {self.failure or 'none asked for'}")

    def _count_lost(self) -> None:
        with self._counting:
            self.lost += 1

    def take_up(
        self,
        find: Callable[[], Sequence[Mapping[str, Any]]],
        append: Callable[[list[dict[str, Any]]], object],
    ) -> None:
        """Give the log what its last writer left, then clear the reserve.

        Args:
            find: The details of every LATE record of the log; asked only where there is something to take up.
            append: Appends LATE records of these details, durably.

        Raises:
            AuditError: The log could not take it; the reserve still holds it.
        """
        reserve = self._reserve
        if reserve is None:
            return
        if reserve.words:
            known = list(find())
            append([details for details in map(late_details, reserve.words) if details not in known])
        try:
            reserve.clear()
        except OSError as why:
            self.failure = f"{type(why).__name__}: {why}"

    def close(self) -> None:
        """Give up the descriptor."""
        if self._reserve is not None:
            self._reserve.close()


def late_details(words: Words) -> dict[str, Any]:
    """The details of the LATE record that carries *words*."""
    return {
        "n": words.n,
        "ts": words.ts,
        "type": words.type,
        "user": words.user,
        "component": words.component,
        "details": words.details,
    }
