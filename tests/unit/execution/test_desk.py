"""The options desk over the fake venue: in, watched, out, and back after a restart."""

import asyncio

import pytest
from support.execution import MemoryLog
from support.desk import chain, condor, desk_world, entered, quote, quote_chain, tick

from holdfast.core.money import PriceE4, QtyE2
from holdfast.execution.engine import Outcome
from holdfast.execution.exits import ExitState
from holdfast.risk.stop_rules import PercentTrail, TrailingStopConfig
from holdfast.testing.venue import Play

STOP = TrailingStopConfig(10, 8, 1, rules=(PercentTrail(800, "entry"),), negative_premiums=True)


def go(coroutine):
    return asyncio.run(coroutine)


def flat(w):
    return not w.account.portfolio.positions and not [o for o in w.account.open_orders()]


@pytest.mark.contract("B11", "B12", "B13")
def test_a_condor_is_entered_stopped_and_left_as_one_combination():
    """Entry, stop on the net credit, ratchet, trigger, exit, and the stop removed when everything is flat."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        assert one.sign == -1
        assert one.is_balanced
        assert sorted(w.account.portfolio.positions.values()) == [-100, -100, 100, 100]
        assert w.stops.stops[one.execution_id].sign == -1
        entry = one.entry_premium
        for spot in (500, 500, 500.0):
            quote_chain(w, spot)
            await tick(w, 30)
        await decay(w, one, 0.5)
        await decay(w, one, 0.4)
        assert "trailing_stop_activate" in w.events.kinds()
        await decay(w, one, 0.9)
        assert w.stops.stops == {}
        assert flat(w)
        assert one.ladder.state is ExitState.FLAT
        kinds = w.events.kinds("trailing_stop")
        assert kinds[0] == "trailing_stop_add"
        assert kinds[-2:] == ["trailing_stop_trigger", "trailing_stop_remove"]
        (decision,) = w.desk.monitoring.decisions
        assert (decision.action, decision.rule, decision.urgency) == ("CLOSE", "TrailingStop", "IMMEDIATE")
        assert decision.premium < entry
        assert [order["intent"] for order in w.log.of("ORDER")] == [
            "iron_condor-SPY-1/open",
            "iron_condor-SPY-1/exit-1",
        ]

    go(run())


async def decay(w, one, share, times=3):
    """Let every leg be worth *share* of its entry price for a few quotes."""
    for _ in range(times):
        for ticker, _ratio in one.legs:
            mid = int(one.leg_price(ticker) * share) // 100 * 100
            quote(w, ticker, max(100, mid - 200), max(300, mid + 200))
        await tick(w, 30)
