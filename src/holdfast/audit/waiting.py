"""Those who wait for the log: one batch of them per sync, woken together.

A batch is joined under the log's mutex. What the first one to finish it says, holds; whoever finishes it again
only repeats that, which is how a wake-up that was interrupted half-way is made good. Threads wait on one
lock that they pass through one after the other; tasks wait on futures of their own, because cancelling one must
not cancel the others. asyncio is not imported here: whoever joins from a loop has it already.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from holdfast.core.errors import AuditWriteError

if TYPE_CHECKING:
    import asyncio


class Batch:
    """Those who wait for the same sync, or the same write.

    Attributes:
        led: Whether somebody is responsible for serving it.
        finished: Whether it was woken.
        error: Why it was not served, or None.
    """

    __slots__ = ("_outcomes", "error", "finished", "led", "loop", "others", "turnstile", "waiting")

    def __init__(self) -> None:
        self.led = False
        self.finished = False
        self._outcomes: list[AuditWriteError | None] = []
        self.error: AuditWriteError | None = None
        self.turnstile: threading.Lock | None = None
        # Nearly always there is one event loop, so only the others need a table.
        self.loop: asyncio.AbstractEventLoop | None = None
        self.waiting: list[asyncio.Future[None]] = []
        self.others: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] | None = None

    def join(self) -> threading.Lock:
        """The lock on which a follower waits; call under the mutex."""
        if self.turnstile is None:
            self.turnstile = threading.Lock()
            self.turnstile.acquire()
        return self.turnstile

    def join_loop(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """The future on which a task of *loop* waits; call under the mutex, on that loop."""
        future: asyncio.Future[None] = loop.create_future()
        if self.loop is loop:
            self.waiting.append(future)
        elif self.loop is None:
            self.loop = loop
            self.waiting.append(future)
        else:
            if self.others is None:
                self.others = {}
            self.others.setdefault(loop, []).append(future)
        return future

    def finish(self, error: AuditWriteError | None) -> None:
        """Wake everybody: one call into each event loop, and a closed loop disturbs nobody."""
        self._outcomes.append(error)
        self.error = error = self._outcomes[0]
        self.finished = True
        turnstile, self.turnstile = self.turnstile, None
        if turnstile is not None:
            turnstile.release()
        if self.loop is not None:
            _wake(self.loop, self.waiting, error)
        for loop, futures in (self.others or {}).items():
            _wake(loop, futures, error)


def _wake(
    loop: asyncio.AbstractEventLoop, futures: list[asyncio.Future[None]], error: AuditWriteError | None
) -> None:
    # RuntimeError: the loop was closed while its tasks waited; they are gone.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_resolve, futures, error)


def _resolve(futures: list[asyncio.Future[None]], error: AuditWriteError | None) -> None:
    for future in futures:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(type(error)(str(error), hint=error.hint))
