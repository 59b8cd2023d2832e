"""The adapter of Interactive Brokers keeps the promises of every venue, over the library's own client."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from contract.venue_contract import Stage, VenueContract
from support.ib import CALL, SPREAD, WIDE, world

from holdfast.core.money import PriceE4


@pytest.mark.contract("B15")
class _AtTheGateway(VenueContract):
    ticker = ""
    resting_price = PriceE4(100)

    @asynccontextmanager
    async def venue_factory(self):
        w = world()
        try:
            yield Stage(
                w.venue,
                w.clock,
                self.ticker,
                resting_price=self.resting_price,
                dearest=10**9,
                limits=WIDE,
            )
        finally:
            await w.venue.close()


class TestOneOption(_AtTheGateway):
    """One contract."""

    ticker = CALL


class TestCombination(_AtTheGateway):
    """A vertical for a credit: one bag whose legs are booked."""

    ticker = SPREAD
    resting_price = PriceE4(-50_000)


class TestStock(_AtTheGateway):
    """What assignment delivers."""

    ticker = "SPY"
