"""The keeper: the thread that signs checkpoints, so that nobody who appends waits for one.

Promise: while a signed log is open, whatever is synced is covered by a checkpoint within about a second, or 10,000
records, and that checkpoint is published. A checkpoint costs three syncs on two volumes; they are made here, and
not by the flusher, which has 10 ms for what it serves. Whatever stops this thread poisons the log.
"""

from __future__ import annotations

import threading

from holdfast.audit.commit import IDLE_SECS, Committer
from holdfast.core.clock import NANOS

_LEAST_WAIT_SECS = 0.01


class Keeper(Committer):
    """A log with its keeper; `_stopping` and the `_due` event end it."""

    _stopping = False
    _keeper: threading.Thread | None = None

    def _start_keeper(self) -> None:
        self._keeper = threading.Thread(target=self._run_keeper, name="holdfast-keeper", daemon=True)
        self._keeper.start()

    def _run_keeper(self) -> None:
        try:
            while self._state == "open" and not self._stopping:
                self._due.wait(self._until_due_secs())
                self._due.clear()
                self._keep()
        except BaseException as why:  # noqa: BLE001  a task ends here, and poisons
            self._poison(why)
            self._tell_poisoned()

    def _keep(self) -> None:
        """One round: sign and publish what is due."""
        signer = self._signer
        if signer is not None and self._state == "open":
            signer.keep()

    def _until_due_secs(self) -> float:
        due_ns = None if self._signer is None else self._signer.due_in_ns()
        return IDLE_SECS if due_ns is None else min(IDLE_SECS, max(_LEAST_WAIT_SECS, due_ns / NANOS))
