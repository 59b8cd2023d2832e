"""An order that does not leave gives everything back: its reservation, and the breaker's leave to place."""

import asyncio

import pytest
from support.execution import TICKER, MemoryLog, signal, world

from holdfast.execution.trader import RouteStatus
from holdfast.risk.halt import TradingState
from holdfast.testing.venue import Play


@pytest.mark.invariant("I3")
def test_a_breakers_refusal_frees_what_was_reserved():
    """With the breaker open an admitted order reserves nothing, and the same room serves the next one."""
    w = world()

    async def run():
        await w.trader.start()
        w.venue.is_breaker_open = True
        refused = await w.trader.route(signal(key="a"))
        assert refused.status is RouteStatus.BREAKER_OPEN
        assert (w.account.reserved, w.account.working(TICKER)) == (0, (0, 0))
        assert w.account.open_orders() == []
        w.venue.is_breaker_open = False
        assert (await w.trader.route(signal(key="b"))).status is RouteStatus.SUBMITTED

    asyncio.run(run())
    assert [order.key for order in w.venue.arrived] == ["b"]
    assert w.venue.permits == ["success"]


@pytest.mark.invariant("I2")
def test_an_order_that_cannot_be_written_gives_its_permit_back():
    """The journal refuses: nothing is sent, nothing stays reserved, and the breaker's permit is returned unused."""
    w = world(log=MemoryLog())

    async def run():
        await w.trader.start()
        w.log.fail_after = 0
        denied = await w.trader.route(signal(key="a"))
        assert (denied.status, denied.reason) == (RouteStatus.DENIED, "audit_unavailable")

    asyncio.run(run())
    assert w.venue.arrived == []
    assert w.venue.permits == ["ignored"]
    assert (w.account.reserved, w.account.working(TICKER)) == (0, (0, 0))


def test_an_order_that_was_not_sent_is_tried_again_with_a_permit_of_its_own():
    """Each attempt has its own permit, and each permit ends: unused where nothing left, as the answer where it did."""
    w = world()
    w.venue.script(Play.NOT_SENT)

    async def run():
        await w.trader.start()
        assert (await w.trader.route(signal(key="a"))).status is RouteStatus.SUBMITTED

    asyncio.run(run())
    assert w.venue.permits == ["ignored", "success"]
    assert len(w.venue.arrived) == 1


@pytest.mark.invariant("I5")
def test_an_adapter_that_raises_lets_only_cancels_through():
    """Whatever an adapter raises, its order is UNKNOWN and stays reserved, and no further order leaves."""
    w = world()
    place = w.venue.place

    async def breaks(intent, admission, permit):
        await place(intent, admission, permit)
        raise ZeroDivisionError("in the adapter")

    async def run():
        await w.trader.start()
        w.venue.place = breaks
        with pytest.raises(ZeroDivisionError):
            await w.trader.route(signal(key="a"))
        w.venue.place = place
        assert w.account.holds.held_by("adapter") is TradingState.CANCEL_ONLY
        refused = await w.trader.route(signal(key="b"))
        assert (refused.status, refused.reason) == (RouteStatus.DENIED, "state_cancel_only")

    asyncio.run(run())
    (order,) = w.account.open_orders()
    assert (order.key, order.status.name) == ("a", "UNKNOWN")
    assert w.account.working(TICKER)[0] == 1_000
    assert [one["to"] for one in w.log.of("STATE")][-1] == "CANCEL_ONLY"
