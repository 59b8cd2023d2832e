"""What every venue adapter must pass. Subclass `VenueContract` and give it a `venue_factory`.

`venue_factory` is an asynchronous context manager that yields a `Stage`: a venue with one open market that has
a bid and an ask to trade against, and the clock its gate runs on. Nothing here knows which venue it is, nor whether
the market is one contract or a combination: what a fill is made of, its instrument says.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.execution import opened_account

from holdfast.core.clock import Clock
from holdfast.core.errors import IllegalTransition, VenueRejected
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import Action, BookSide, Intent, Side, Signal, TimeInForce
from holdfast.execution.venue import (
    Ack,
    AlreadyClosed,
    Canceled,
    DedupProfile,
    FillSeen,
    NotSent,
    OrderSeen,
    Unknown,
    Venue,
)
from holdfast.risk.gate import Gate
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits

WAIT_SECS = 10


@dataclass
class Stage:
    """A venue and what the tests need beside it.

    Attributes:
        venue: Under test.
        clock: For the gate.
        ticker: An open market with a bid and an ask.
        prefix: Makes client order ids unique among runs.
        resting_price: A bid there rests.
        through: How far a taking bid goes through the best ask.
        dearest: No bid goes higher.
        nobody: A ticker that the venue does not list.
        limits: Of the gate; wide enough for a few contracts.
    """

    venue: Venue
    clock: Clock
    ticker: str
    prefix: str = "hf-contract"
    resting_price: PriceE4 = PriceE4(100)
    through: int = 200
    dearest: int = 9900
    nobody: str = "KXNOSUCHMARKET-1"
    limits: RiskLimits = field(default_factory=RiskLimits)


class VenueContract:
    """Every promise of `execution/venue.py` that can be seen from outside."""

    def venue_factory(self) -> AbstractAsyncContextManager[Stage]:
        raise NotImplementedError

    def play(self, scenario: Any) -> None:
        """Run *scenario(stage, desk)* on a fresh stage."""

        async def run() -> None:
            async with self.venue_factory() as stage:
                await scenario(stage, Desk(stage))

        asyncio.run(run())

    @pytest.mark.contract("A21")
    def test_an_immediate_order_that_crosses_fills(self):
        """A marketable order is acknowledged with its fill count, its fill is listed once and moves the position."""

        async def scenario(stage, desk):
            before = await stage.venue.positions()
            answer, intent = await desk.take(1)
            assert isinstance(answer, Ack)
            assert (answer.filled, answer.remaining) == (100, 0)
            fills = [f for f in await stage.venue.fills(since_ns=0) if f.order_id == answer.order_id]
            after = await stage.venue.positions()
            assert len({fill.trade_id for fill in fills}) == len(fills)
            assert {fill.ticker for fill in fills} == {
                leg.instrument.ticker for leg in intent.instrument.parts
            }
            assert sum(fill.side.sign * fill.price * fill.qty for fill in fills) <= 100 * intent.yes_price
            for leg in intent.instrument.parts:
                ticker, side = leg.instrument.ticker, BookSide.BID if leg.ratio > 0 else BookSide.ASK
                ours = [fill for fill in fills if fill.ticker == ticker]
                assert sum(fill.qty for fill in ours) == 100 * abs(leg.ratio)
                assert all(fill.side is side for fill in ours)
                assert after.get(ticker, 0) - before.get(ticker, 0) == 100 * leg.ratio
            if not intent.instrument.legs:
                assert all(fill.price <= intent.yes_price for fill in fills)

        self.play(scenario)

    def test_an_immediate_order_that_cannot_trade_leaves_nothing_behind(self):
        """An immediate order away from the market fills nothing and does not rest."""

        async def scenario(stage, desk):
            answer, intent = await desk.place(1, stage.resting_price, TimeInForce.IOC)
            assert isinstance(answer, Ack)
            assert (answer.filled, answer.remaining) == (0, 0)
            working = await stage.venue.open_orders()
            assert intent.client_order_id not in {order.client_order_id for order in working}

        self.play(scenario)

    def test_a_resting_order_is_listed_found_and_canceled(self):
        """A resting order is in every listing under both ids until it is canceled, and then in none as working."""

        async def scenario(stage, desk):
            answer, intent = await desk.place(3, stage.resting_price, TimeInForce.GTC)
            assert isinstance(answer, Ack)
            assert (answer.filled, answer.remaining) == (0, 300)
            name = intent.client_order_id
            (listed,) = [o for o in await stage.venue.open_orders() if o.client_order_id == name]
            assert (listed.order_id, listed.ticker, listed.side) == (
                answer.order_id,
                stage.ticker,
                BookSide.BID,
            )
            assert listed.yes_price == stage.resting_price
            assert (listed.leaves, listed.filled, listed.initial) == (300, 0, 300)
            assert listed.status is OrderStatus.WORKING
            found = await stage.venue.find_order(client_order_id=name, ticker=stage.ticker, since_ns=0)
            assert found is not None
            assert found.order_id == answer.order_id
            canceled = await stage.venue.cancel(order_id=answer.order_id, ticker=stage.ticker)
            assert canceled == Canceled(released=QtyE2(300))
            again = await stage.venue.cancel(order_id=answer.order_id, ticker=stage.ticker)
            assert isinstance(again, AlreadyClosed)
            ended = await stage.venue.order(answer.order_id)
            assert ended is not None
            assert (ended.status, ended.leaves, ended.filled) == (OrderStatus.CANCELED, 0, 0)
            assert name not in {order.client_order_id for order in await stage.venue.open_orders()}
            late = await stage.venue.find_order(client_order_id=name, ticker=stage.ticker, since_ns=0)
            assert late is not None
            assert late.status is OrderStatus.CANCELED

        self.play(scenario)

    def test_what_the_venue_does_not_know_is_said_plainly(self):
        """An unknown order is None, an unknown market is VenueRejected with code not_found."""

        async def scenario(stage, desk):
            del desk
            assert await stage.venue.order("00000000-0000-0000-0000-000000000000") is None
            name = f"{stage.prefix}-nobody"
            assert await stage.venue.find_order(client_order_id=name, ticker=stage.ticker, since_ns=0) is None
            for read in (stage.venue.instrument, stage.venue.book):
                with pytest.raises(VenueRejected) as caught:
                    await read(stage.nobody)
                assert caught.value.code == "not_found"

        self.play(scenario)

    def test_books_are_sorted_and_uncrossed_and_instruments_say_their_rules(self):
        """A book has its best levels first, and the market's rules take its own prices."""

        async def scenario(stage, desk):
            del desk
            book = await stage.venue.book(stage.ticker)
            bids, asks = [lv.price for lv in book.bids], [lv.price for lv in book.asks]
            assert bids == sorted(bids, reverse=True)
            assert asks == sorted(asks)
            assert bids
            assert asks
            assert bids[0] < asks[0]
            assert all(level.qty > 0 for level in (*book.bids, *book.asks))
            rules = await stage.venue.instrument(stage.ticker)
            assert rules.is_open
            assert rules.check_price(asks[0]) is None
            assert await stage.venue.balance() > 0

        self.play(scenario)

    @pytest.mark.invariant("I6")
    def test_an_admission_sends_once(self):
        """A spent admission sends nothing more, and another order's admission never does."""

        async def scenario(stage, desk):
            intent = await desk.intent(1, stage.resting_price, TimeInForce.GTC)
            admission = desk.gate.admit(intent).admission
            permit = stage.venue.placement_permit(stage.ticker, reducing=False)
            answer = await stage.venue.place(intent, admission, permit)
            assert isinstance(answer, Ack)
            with pytest.raises(IllegalTransition):
                await stage.venue.place(
                    intent, admission, stage.venue.placement_permit(stage.ticker, reducing=False)
                )
            other = await desk.intent(1, stage.resting_price, TimeInForce.GTC)
            with pytest.raises(IllegalTransition):
                await stage.venue.place(
                    other,
                    desk.gate.readmit(admission),
                    stage.venue.placement_permit(stage.ticker, reducing=False),
                )
            assert len([o for o in await stage.venue.open_orders() if o.order_id == answer.order_id]) == 1
            await stage.venue.cancel(order_id=answer.order_id, ticker=stage.ticker)

        self.play(scenario)

    @pytest.mark.invariant("I6")
    def test_a_halt_after_the_admission_stops_the_send(self):
        """An admission given before a halt sends nothing after it."""

        async def scenario(stage, desk):
            intent = await desk.intent(1, stage.resting_price, TimeInForce.GTC)
            admission = desk.gate.admit(intent).admission
            change = desk.gate.account.holds.change("person", TradingState.HALTED, reason="test")
            desk.gate.account.apply("STATE", change)
            permit = stage.venue.placement_permit(stage.ticker, reducing=False)
            assert isinstance(await stage.venue.place(intent, admission, permit), NotSent)
            listed = await stage.venue.open_orders()
            assert intent.client_order_id not in {order.client_order_id for order in listed}

        self.play(scenario)

    @pytest.mark.contract("A16")
    def test_a_repeated_client_order_id_is_answered_as_declared(self):
        """While the first order works, its id is answered with 409 unless the venue declares no dedup."""

        async def scenario(stage, desk):
            first, intent = await desk.place(1, stage.resting_price, TimeInForce.GTC)
            again = Desk(stage)  # another gate, which knows nothing of the first order
            admission = again.gate.admit(intent).admission
            permit = stage.venue.placement_permit(stage.ticker, reducing=False)
            second = await stage.venue.place(intent, admission, permit)
            if stage.venue.dedup is DedupProfile.NONE:
                assert isinstance(second, Ack)
            else:
                assert isinstance(second, Unknown)  # left to be looked up
                assert second.status == 409
                found = await stage.venue.find_order(
                    client_order_id=intent.client_order_id, ticker=stage.ticker, since_ns=0
                )
                assert found is not None
                assert found.order_id == first.order_id
            await stage.venue.cancel(order_id=first.order_id, ticker=stage.ticker)

        self.play(scenario)

    @pytest.mark.contract("A16")
    @pytest.mark.invariant("I2")
    @pytest.mark.parametrize("how", ["filled", "canceled"])
    def test_a_name_is_taken_for_ever_where_the_venue_says_so(self, how):
        """Where every order counts, the same bytes of an ended one make no second order and tell which one has the name."""

        async def scenario(stage, desk):
            if stage.venue.dedup is not DedupProfile.ALL:
                return
            if how == "filled":
                first, intent = await desk.take(1)
            else:
                first, intent = await desk.place(1, stage.resting_price, TimeInForce.IOC)
            before = await stage.venue.positions(), await stage.venue.fills(since_ns=0)
            admission = (
                Desk(stage).gate.admit(intent).admission
            )  # of a gate that knows nothing of the first order
            permit = stage.venue.placement_permit(stage.ticker, reducing=False)
            second = await stage.venue.place(intent, admission, permit)
            if isinstance(second, Ack):
                assert second == first
            else:
                assert isinstance(second, Unknown)
                assert second.status == 409
            found = await stage.venue.find_order(
                client_order_id=intent.client_order_id, ticker=stage.ticker, since_ns=0
            )
            assert found is not None
            assert (found.order_id, found.filled, found.leaves) == (first.order_id, first.filled, 0)
            assert (await stage.venue.positions(), await stage.venue.fills(since_ns=0)) == before

        self.play(scenario)

    def test_the_stream_tells_of_our_orders_and_fills(self):
        """An order's fill and its end both come as events while the stream is followed."""

        async def scenario(stage, desk):
            fills: list[Any] = []
            ended: list[Any] = []
            connected = asyncio.Event()

            async def listen() -> None:
                async for event in stage.venue.events((stage.ticker,)):
                    connected.set()
                    if isinstance(event, FillSeen):
                        fills.append(event.fill)
                    if isinstance(event, OrderSeen) and event.order.leaves == 0:
                        ended.append(event.order)
                    if fills and ended:
                        return

            listening = asyncio.create_task(listen())
            await asyncio.wait_for(connected.wait(), WAIT_SECS)
            answer, intent = await desk.take(1)
            await asyncio.wait_for(listening, WAIT_SECS)
            assert fills[0].order_id == answer.order_id
            assert fills[0].client_order_id == intent.client_order_id
            assert ended[0].filled == 100

        self.play(scenario)


class Desk:
    """A gate with wide limits, and orders for it to admit."""

    made = 0

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.gate = Gate(opened_account(), stage.limits, clock=stage.clock)

    async def intent(self, contracts: int, price: PriceE4, tif: TimeInForce) -> Intent:
        Desk.made += 1
        signal = Signal(
            ticker=self.stage.ticker,
            side=Side.YES,
            action=Action.BUY,
            count=QtyE2(contracts * 100),
            price=price,
            tif=tif,
        )
        rules = await self.stage.venue.instrument(self.stage.ticker)
        name = f"{self.stage.prefix}-{Desk.made}"
        return Intent(client_order_id=name, key=name, signal=signal, instrument=rules)

    async def place(self, contracts: int, price: PriceE4, tif: TimeInForce) -> tuple[Any, Intent]:
        intent = await self.intent(contracts, price, tif)
        decision = self.gate.admit(intent)
        assert decision.admission is not None, decision.reason
        permit = self.stage.venue.placement_permit(self.stage.ticker, reducing=False)
        return await self.stage.venue.place(intent, decision.admission, permit), intent

    async def take(self, contracts: int) -> tuple[Any, Intent]:
        """Buy at the best ask, a little through it."""
        ask = (await self.stage.venue.book(self.stage.ticker)).best_ask
        assert ask is not None
        price = min(self.stage.dearest, ask + self.stage.through)
        return await self.place(contracts, PriceE4(price), TimeInForce.IOC)
