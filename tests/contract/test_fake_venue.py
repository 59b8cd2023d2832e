"""The fake venue keeps the promises of every venue."""

from __future__ import annotations

from contextlib import asynccontextmanager

from contract.venue_contract import Stage, VenueContract
from support.execution import TICKER, instrument

from holdfast.core.clock import ManualClock
from holdfast.testing.venue import FakeVenue


class TestFakeVenue(VenueContract):
    """`FakeVenue` under the contract."""

    @asynccontextmanager
    async def venue_factory(self):
        clock = ManualClock()
        venue = FakeVenue(clock, [instrument()])
        venue.set_book(TICKER, bids=[(5500, 100_000)], asks=[(5600, 100_000)])
        yield Stage(venue, clock, TICKER)
