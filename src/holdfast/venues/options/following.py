"""One call of `OptionsVenue.events`: a connection kept up, and what it tells, until somebody ends it.

Every connection begins with everything that is followed; a lost one is a gap, and the next one follows again. Whoever
iterates gets what was told in order, or the error that ends the stream. STREAM records say when a connection stood and
when it was gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from holdfast.core.errors import AuditError, VenueAnswerUnknown, VenueRejected
from holdfast.execution.venue import VenueEvent
from holdfast.venues.options.link import Link, Lost
from holdfast.venues.options.stream import StreamMachine
from holdfast.venues.options.wire import Frame

FIRST_BACKOFF_SECS: Final = 0.05
LONGEST_BACKOFF_SECS: Final = 5.0


class Following:
    """See the head of this file.

    Args:
        machine: Makes events of frames.
        link: The socket.
        venue_clock: Follow the market's clock too.
        connect_secs: For opening a connection, wall time.
        note: Writes a STREAM record.
        refused: Hears that the broker refuses us for good.
        rng: Spreads reconnections.
        sleep: Waits in wall time.

    Attributes:
        machine: As given.
    """

    def __init__(
        self,
        machine: StreamMachine,
        link: Link,
        *,
        venue_clock: bool,
        connect_secs: float,
        note: Callable[[dict[str, Any]], Awaitable[object]],
        refused: Callable[[str], None],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.machine = machine
        self._link = link
        self._venue_clock = venue_clock
        self._connect_secs = connect_secs
        self._note = note
        self._refused = refused
        self._rng = rng
        self._sleep = sleep
        self._queue: asyncio.Queue[list[VenueEvent] | Exception | None] = asyncio.Queue()
        self._is_down = asyncio.Event()
        self._is_begun = False
        self._keeper: asyncio.Task[None] | None = None

    async def events(self) -> AsyncGenerator[VenueEvent, None]:
        """What is told, from now on."""
        self._keeper = keeper = asyncio.get_running_loop().create_task(self._keep_up())
        try:
            while (item := await self._queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                for event in item:
                    yield event
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    def end(self) -> None:
        """Keep up no connection; whoever iterates learns of the end after what was said."""
        if self._keeper is not None:
            self._keeper.cancel()
        self._queue.put_nowait(None)

    def greeting(self) -> list[tuple[str, dict[str, Any]]]:
        """What a connection begins with, once somebody iterates."""
        if not self._is_begun:
            return []
        self._queue.put_nowait(self.machine.up())
        return [("follow", {"tickers": self.machine.singles, "clock": self._venue_clock})]

    def heard(self, frame: Frame, generation: int) -> None:
        """Take a frame of connection *generation*.

        Raises:
            VenueAnswerUnknown: It cannot be read: the connection is of no more use.
        """
        try:
            events = self.machine.frame(frame, generation)
        except VenueAnswerUnknown:
            raise
        except Exception as error:  # noqa: BLE001  whoever follows the stream gets it
            self._queue.put_nowait(error)
            return
        if events:
            self._queue.put_nowait(events)

    def down(self, reason: str) -> None:
        """The connection is gone."""
        self._queue.put_nowait(self.machine.down(reason))
        self._is_down.set()

    async def quiescent(self, n: int) -> None:
        """Everything up to tick *n* is dealt with."""
        theirs = self.machine.answer_of(n, self._link.generation)
        if theirs is not None:
            await self._link.post("quiescent", {"n": theirs})

    # --- inside ---------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Have a connection, again and again."""
        failures, self._is_begun = 0, True
        if self._link.is_up:
            for op, params in self.greeting():
                await self._link.post(op, params)
        while True:
            self._is_down.clear()
            if not self._link.is_up:
                try:
                    async with asyncio.timeout(self._connect_secs):
                        await self._link.connect()
                except (Lost, TimeoutError):
                    failures += 1
                except VenueRejected as rejected:
                    self._refused(str(rejected))
                    self._queue.put_nowait(rejected)
                    return
            if self._link.is_up:
                failures = 0
                await self._told("connected")
                await self._is_down.wait()
                await self._told("disconnected")
            longest = min(LONGEST_BACKOFF_SECS, FIRST_BACKOFF_SECS * 2 ** min(failures, 16))
            await self._sleep(self._rng.uniform(0, longest))

    async def _told(self, event: str) -> None:
        with contextlib.suppress(AuditError):
            await self._note({"event": event, "tickers": self.machine.singles})
