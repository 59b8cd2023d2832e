"""The options adapter keeps the promises of every venue, over a real socket on the paper broker."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from contract.venue_contract import Stage, VenueContract
from support.broker import CALL, STOCK, VERTICAL, WIDE, desk_on_broker

from holdfast.core.money import PriceE4


class _OnBroker(VenueContract):
    ticker = ""
    resting_price = PriceE4(100)

    @pytest.fixture(autouse=True)
    def _log_directory(self, tmp_path):
        self.tmp_path = tmp_path

    @asynccontextmanager
    async def venue_factory(self):
        async with desk_on_broker(self.tmp_path) as desk:
            yield Stage(
                desk.venue,
                desk.clock,
                self.ticker,
                resting_price=self.resting_price,
                dearest=10**9,
                limits=WIDE,
            )


class TestOneOption(_OnBroker):
    """One contract."""

    ticker = CALL.ticker


class TestCombination(_OnBroker):
    """A vertical: two legs that fill as a unit; a bid for a credit rests."""

    ticker = VERTICAL
    resting_price = PriceE4(-5_000)


class TestStock(_OnBroker):
    """What assignment delivers."""

    ticker = STOCK.ticker
