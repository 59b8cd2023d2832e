"""The fake venue keeps the promises of every venue."""

from __future__ import annotations

from contextlib import asynccontextmanager

from contract.venue_contract import Stage, VenueContract
from support.broker import CALL, HIGH_CALL, START_NS, VERTICAL, WIDE, rules_of
from support.execution import TICKER, instrument

from holdfast.core.clock import ManualClock
from holdfast.core.money import PriceE4
from holdfast.execution.venue import DedupProfile
from holdfast.testing.venue import FakeVenue


class TestFakeVenue(VenueContract):
    """`FakeVenue` under the contract."""

    @asynccontextmanager
    async def venue_factory(self):
        clock = ManualClock()
        venue = FakeVenue(clock, [instrument()])
        venue.set_book(TICKER, bids=[(5500, 100_000)], asks=[(5600, 100_000)])
        yield Stage(venue, clock, TICKER)


class TestFakeVenueThatTakesNoNameTwice(VenueContract):
    """The same, where every client order id ever used is refused."""

    @asynccontextmanager
    async def venue_factory(self):
        clock = ManualClock()
        venue = FakeVenue(clock, [instrument()], dedup=DedupProfile.ALL)
        venue.set_book(TICKER, bids=[(5500, 100_000)], asks=[(5600, 100_000)])
        yield Stage(venue, clock, TICKER)


class TestFakeOption(VenueContract):
    """One option contract at the fake venue."""

    ticker = CALL.ticker
    resting_price = PriceE4(100)

    @asynccontextmanager
    async def venue_factory(self):
        clock = ManualClock(START_NS)
        venue = FakeVenue(clock, [rules_of(CALL), rules_of(HIGH_CALL)])
        venue.set_book(CALL.ticker, bids=[(31_000, 100_000)], asks=[(32_000, 100_000)])
        venue.set_book(HIGH_CALL.ticker, bids=[(10_000, 100_000)], asks=[(11_000, 100_000)])
        # The fake shows of a combination what it was told, and trades it against the legs.
        venue.set_book(VERTICAL, bids=[(20_000, 100_000)], asks=[(22_000, 100_000)])
        yield Stage(venue, clock, self.ticker, resting_price=self.resting_price, dearest=10**9, limits=WIDE)


class TestFakeCombination(TestFakeOption):
    """A vertical at the fake venue."""

    ticker = VERTICAL
    resting_price = PriceE4(-5_000)
