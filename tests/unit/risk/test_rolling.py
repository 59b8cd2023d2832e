"""The P&L over 24 hours: it does not forget at midnight, and it survives a restart."""

import asyncio

from support.execution import TICKER, drain, signal, world

from holdfast.core.clock import NANOS
from holdfast.core.money import MoneyE6
from holdfast.risk.account import Account
from holdfast.risk.rolling import VALUATION_SECS, WINDOW_NS, RollingValue

HOUR_NS = 3600 * NANOS


def test_the_base_is_the_newest_value_a_day_old_or_the_oldest_known():
    """A young journal counts from its beginning, an older one from 24 hours ago."""
    rolling = RollingValue()
    assert rolling.base(0) is None
    for hour in range(0, 50, 2):
        rolling.note(hour * HOUR_NS, MoneyE6(hour))
        if hour <= 24:
            assert rolling.base(hour * HOUR_NS) == 0
    assert rolling.base(48 * HOUR_NS) == 24
    assert rolling.base(49 * HOUR_NS) == 24
    assert rolling.base(50 * HOUR_NS) == 26
    assert len(rolling.snapshot()) <= WINDOW_NS // (2 * HOUR_NS) + 2


def test_time_that_stepped_back_changes_nothing():
    """An earlier moment than the newest known is ignored."""
    rolling = RollingValue()
    rolling.note(10, MoneyE6(1))
    rolling.note(5, MoneyE6(99))
    assert rolling.snapshot() == ((10, 1),)


def test_a_loss_before_midnight_still_shows_after_it_and_after_a_restart():
    """Daily P&L starts anew with the session; the rolling one remembers, from the journal too."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal())
        await drain(w)
        w.venue.set_book(TICKER, bids=[(3000, 100_000)], asks=[(3100, 100_000)])
        await drain(w)
        lost = w.gate.daily_pnl()
        assert lost is not None
        assert lost < 0
        assert w.gate.rolling_pnl() == lost
        for _ in range(40):
            w.clock.advance(VALUATION_SECS)
            w.venue.set_book(TICKER, bids=[(3000, 100_000)], asks=[(3100, 100_000)])
            await drain(w)
            await w.trader.tick(w.clock.now_ns())
        w.clock.advance(12 * 3600)
        w.venue.set_book(TICKER, bids=[(3000, 100_000)], asks=[(3100, 100_000)])
        await drain(w)
        await w.trader.tick(w.clock.now_ns())
        assert w.gate.daily_pnl() == 0
        assert w.gate.rolling_pnl() == lost

        replayed = Account()
        for entry in w.log.lines:
            replayed.apply(entry.type, entry.details)
        assert replayed.rolling.snapshot() == w.account.rolling.snapshot()

    asyncio.run(run())


def test_a_deposit_is_no_gain():
    """Money from outside moves the value, not the P&L."""
    account = Account()
    account.apply("VALUATION", {"valued_ns": 1, "liquidation": "100.00"})
    account.apply("DEPOSIT", {"amount": "50.00", "reason": "test"})
    assert account.gain_over_a_day(MoneyE6(151_000_000), 2) == 1_000_000
