"""Venue clients over the fake venue, as the routers see them: one asynchronous, one with a loop thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from support.execution import OTHER, TICKER, MemoryLog, instrument

from holdfast.core.clock import ManualClock
from holdfast.testing.venue import FakeVenue


class FakeClient:
    """An asynchronous client: a venue, a journal, a clock."""

    trader = None

    def __init__(self, log: Any = None) -> None:
        self.clock = ManualClock()
        self.venue = FakeVenue(self.clock, [instrument(), instrument(OTHER)])
        for ticker in (TICKER, OTHER):
            self.venue.set_book(ticker, bids=[(5500, 100_000)], asks=[(5600, 100_000)])
        self.audit_logger = log or MemoryLog()


class BlockingFakeClient(FakeClient):
    """A synchronous client: one daemon thread with a loop."""

    def __init__(self, log: Any = None) -> None:
        super().__init__(log)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
