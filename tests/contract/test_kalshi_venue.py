"""Kalshi's adapter keeps the promises of every venue, over real HTTP and WebSocket on the paper exchange."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from contract.venue_contract import Stage, VenueContract
from support.exchange import START_NS, TICKER
from support.kalshi import desk_on_exchange

from holdfast.core.clock import ManualClock
from holdfast.execution.venue import DedupProfile


class TestKalshiVenue(VenueContract):
    """`KalshiVenue` under the contract."""

    @pytest.fixture(autouse=True)
    def _log_directory(self, tmp_path):
        self.tmp_path = tmp_path

    @asynccontextmanager
    async def venue_factory(self):
        async with desk_on_exchange(self.tmp_path, clock=ManualClock(START_NS)) as desk:
            yield Stage(desk.venue, desk.clock, TICKER)


class TestKalshiVenueThatTakesNoNameTwice(TestKalshiVenue):
    """The same on an exchange with `--dedup all`, as the venue's demo was once seen to be."""

    @asynccontextmanager
    async def venue_factory(self):
        options = {"dedup": DedupProfile.ALL}
        async with desk_on_exchange(
            self.tmp_path, clock=ManualClock(START_NS), exchange_options=options
        ) as desk:
            desk.venue.dedup = DedupProfile.ALL
            yield Stage(desk.venue, desk.clock, TICKER)
