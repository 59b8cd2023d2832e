"""The ways in which Interactive Brokers has cost people money, each as one test."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.execution import MemoryLog
from support.ib import CALL, SPREAD, Listener, be_quick, gateway, intent_of, place, play, send, world

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.errors import VenueAnswerUnknown, VenueUnreachable
from holdfast.core.money import MoneyE6, QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import TimeInForce
from holdfast.execution.venue import Ack, AlreadyClosed, Canceled, NotSent, Unknown
from holdfast.testing.ib_gateway import Play
from holdfast.venues.ib.placing import NUMBERS_AHEAD, numbers_reserved

GTC = TimeInForce.GTC


@pytest.mark.contract("B15")
def test_a_gateway_that_hands_numbers_out_again_meets_none_of_ours():
    """After a gateway's restart, and in a new run of ours, no order gets a number that an order had before."""
    log, clock = MemoryLog(), ManualClock(1_763_650_800 * NANOS)
    at = gateway(clock)

    async def run(restarts: int):
        w = world(at=at, clock=clock, log=log)
        try:
            for _ in range(restarts + 1):
                for _ in range(12):  # ended at once: the gateway lists none of them afterwards
                    w.wall.advance(1)
                    answer, _ = await place(w, price=1.0, name=f"hf-{len(at.arrived)}")
                    assert isinstance(answer, Ack)
                at.restart(next_number=1)
                clock.advance(40)
                await w.venue.positions()
        finally:
            await w.venue.close()

    asyncio.run(run(1))
    asyncio.run(run(0))
    numbers = [order.orderId for order in at.arrived]
    assert len(set(numbers)) == len(numbers) == 36
    assert numbers == sorted(numbers)
    assert numbers[-1] >= NUMBERS_AHEAD
    assert numbers_reserved(log.records()) > numbers[-1]


def test_numbers_are_reserved_in_the_journal_before_the_first_of_them_is_used():
    """The record that reserves a block of numbers stands before the order that takes its first one."""

    async def scenario(w):
        await w.venue.connect()
        await place(w, price=1.0, tif=GTC)

    w = play(scenario)
    calls = [one["endpoint"] for one in w.log.of("API_CALL")]
    assert calls.index("numbers") < calls.index("placeOrder")


@pytest.mark.contract("B15")
@pytest.mark.parametrize("data_lost", [False, True])
def test_fills_and_cancels_during_a_cut_are_read_again_after_it(data_lost):
    """What the gateway never tells of a cut is found in its executions and lists once the link is back."""

    async def scenario(w):
        heard = Listener(w, CALL)
        rests, filled = await place(w, price=1.0, tif=GTC, count=3)
        other, gone = await place(w, price=1.1, tif=GTC)
        await heard.settle()
        w.at.cut_link()
        w.at.fill(filled.client_order_id, 2)
        w.at.cancel_at_broker(gone.client_order_id)
        await heard.settle()
        assert heard.fills() == []
        w.at.restore_link(data_lost=data_lost)
        await heard.until(lambda: any(gap.private for gap in heard.gaps()))
        (fill,) = await w.venue.fills(since_ns=0)
        assert (fill.order_id, fill.qty) == (rests.order_id, 200)
        working = await w.venue.open_orders()
        assert [(one.order_id, one.leaves) for one in working] == [(rests.order_id, 100)]
        ended = await w.venue.order(other.order_id)
        assert ended.status is OrderStatus.CANCELED

    play(scenario)


def test_while_the_link_is_cut_nothing_is_read_either():
    """During a cut the gateway answers from memory: its positions are no positions, and reads are unreachable."""

    async def scenario(w):
        await w.venue.connect()
        w.at.cut_link()
        await asyncio.sleep(0)
        for read in (w.venue.positions, w.venue.open_orders, w.venue.balance):
            with pytest.raises(VenueUnreachable):
                await read()
        assert isinstance(await w.venue.cancel(order_id="1", ticker=CALL), NotSent)

    play(scenario)


@pytest.mark.contract("B15")
def test_an_order_placed_when_the_cut_comes_stays_unknown_until_the_books_tell():
    """An order that left before the cut is unknown at once, and found by its name after the link is back."""

    async def scenario(w):
        await w.venue.connect()
        intent = await intent_of(w, price=1.0, tif=GTC)
        w.at.script(Play.SILENT)
        placing = asyncio.create_task(send(w, intent))
        for _ in range(5):
            await asyncio.sleep(0)
        w.at.cut_link()
        answer = await placing
        assert isinstance(answer, Unknown)
        w.at.restore_link()
        await asyncio.sleep(0)
        name = intent.client_order_id
        found = await w.venue.find_order(client_order_id=name, ticker=CALL, since_ns=0)
        assert found.status is OrderStatus.WORKING
        assert found.leaves == 100

    play(scenario)


@pytest.mark.contract("B15")
def test_two_live_orders_of_one_name_are_listed_apart_and_canceled_together():
    """A modification in a cut leaves two orders of one number; both are listed, and cancelling ends both."""

    async def scenario(w):
        first, intent = await place(w, price=1.0, tif=GTC, count=2)
        second = w.at.double(intent.client_order_id)
        await asyncio.sleep(0)
        working = await w.venue.open_orders()
        assert {one.order_id for one in working} == {first.order_id, str(second.permanent)}
        assert {one.client_order_id for one in working} == {intent.client_order_id}
        answer = await w.venue.cancel(order_id=first.order_id, ticker=CALL)
        assert isinstance(answer, Canceled | AlreadyClosed)
        assert not any(order.leaves for order in w.at.orders.values())
        assert await w.venue.open_orders() == []

    play(scenario)


def test_a_fill_of_an_order_that_nobody_lists_still_carries_its_name():
    """The hidden one of two orders trades later: its fill is told under our client order id."""

    async def scenario(w):
        first, intent = await place(w, price=1.0, tif=GTC, count=2)
        hidden = w.at.orders[int(first.order_id)]
        w.at.double(intent.client_order_id, hidden=True)
        for _ in range(5):
            await asyncio.sleep(0)
        working = await w.venue.open_orders()
        assert first.order_id not in {one.order_id for one in working}
        w.at.execute(hidden, 2, 1.0)
        (fill,) = await w.venue.fills(since_ns=0)
        assert (fill.order_id, fill.client_order_id, fill.qty) == (
            first.order_id,
            intent.client_order_id,
            200,
        )

    play(scenario)


def test_a_commission_that_comes_later_is_waited_for_and_then_bounded():
    """A fill without its cost is told at the bound after a short wait; the cost that comes later is recorded."""

    async def scenario(w):
        w.at.commissions = "late"
        heard = Listener(w, CALL)
        await place(w, count=2)
        await heard.until(heard.fills)
        (fill,) = heard.fills()
        assert fill.fee == MoneyE6(4_000_000)
        w.at.tell_commissions()
        await heard.settle()
        await w.venue.tick_probe()
        assert len(heard.fills()) == 1
        (late,) = [one for one in w.log.of("API_CALL") if one["method"] == "LATE"]
        assert (late["trade_id"], late["booked_e6"], late["cost_e6"]) == (fill.trade_id, 4_000_000, 1_300_000)

    play(scenario)


def test_a_commission_that_comes_at_once_is_the_fee():
    """A fill is told with what it cost, once, when the report follows it."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await place(w, count=2)
        await heard.until(heard.fills)
        await heard.settle()
        assert [fill.fee for fill in heard.fills()] == [1_300_000]

    play(scenario)


def test_a_replayed_fill_has_its_cost_although_the_library_tells_it_to_the_first_copy_alone():
    """Executions that are asked for carry their commission, also those the client has seen before."""

    async def scenario(w):
        await place(w, count=2)
        for _ in range(2):
            (fill,) = await w.venue.fills(since_ns=0)
            assert fill.fee == 1_300_000

    play(scenario)


@pytest.mark.parametrize("commissions", ["after", "never"])
def test_a_corrected_execution_is_the_same_fill_told_anew(commissions):
    """A correction keeps the fill's identity, has a later revision, and costs what was told for it or before."""

    async def scenario(w):
        heard = Listener(w, CALL)
        await place(w, count=2)
        await heard.until(heard.fills)
        (before,) = await w.venue.fills(since_ns=0)
        w.at.commissions = commissions
        w.at.correct(w.at.executions[0].execution.execId, price=15.05)
        await heard.until(lambda: len(heard.fills()) == 2)
        (after,) = await w.venue.fills(since_ns=0)
        assert heard.fills() == [before, after]
        assert after.trade_id == before.trade_id
        assert (before.revision, after.revision) == (1, 2)
        assert (int(before.price), int(after.price)) == (151_000, 150_500)
        assert before.fee == after.fee == 1_300_000

    play(scenario)


def test_orders_of_other_programs_are_listed_and_left_to_them():
    """Another program's order is among the open orders, and cancelling it is refused by the program's name."""

    async def scenario(w):
        await w.venue.connect()
        theirs = w.at.place_elsewhere(CALL, "SELL", 2, 99.0, client=9, ref="theirs")
        by_hand = w.at.place_elsewhere(CALL, "SELL", 1, 98.0, client=0)
        listed = {one.order_id: one for one in await w.venue.open_orders()}
        assert set(listed) == {str(theirs.permanent), str(by_hand.permanent)}
        assert listed[str(theirs.permanent)].client_order_id == "theirs"
        answer = await w.venue.cancel(order_id=str(theirs.permanent), ticker=CALL)
        assert isinstance(answer, NotSent)
        assert "API client 9" in answer.reason
        assert theirs.leaves == 2

    play(scenario)


def test_a_cancel_after_the_fill_says_that_the_order_is_closed():
    """An order that filled before its cancel is closed; the caller reads how it ended."""

    async def scenario(w):
        rests, intent = await place(w, price=1.0, tif=GTC)
        w.at.fill(intent.client_order_id)
        assert await w.venue.cancel(order_id=rests.order_id, ticker=CALL) == AlreadyClosed()
        assert (await w.venue.order(rests.order_id)).status is OrderStatus.FILLED

    play(scenario)


def test_a_cancel_without_an_answer_is_unknown():
    """A cancel whose answer is lost with the socket is unknown, and the order is read again later."""

    async def scenario(w):
        rests, _ = await place(w, price=1.0, tif=GTC)
        w.at.hang_up_after("cancelOrder")
        assert isinstance(await w.venue.cancel(order_id=rests.order_id, ticker=CALL), Unknown)
        assert (await w.venue.order(rests.order_id)).leaves == 0

    play(scenario)


def test_a_partial_fill_is_released_in_part():
    """Cancelling what is left of a partly filled order releases exactly the rest."""

    async def scenario(w):
        rests, intent = await place(w, price=1.0, tif=GTC, count=5)
        w.at.fill(intent.client_order_id, 2)
        answer = await w.venue.cancel(order_id=rests.order_id, ticker=CALL)
        assert answer == Canceled(released=QtyE2(300))

    play(scenario)


def test_two_lists_asked_for_at_once_are_both_whole():
    """The library has room for one list of orders at a time; two questions at once get both answers."""

    async def scenario(w):
        for price in (1.0, 1.1, 1.2):
            await place(w, price=price, tif=GTC)
        first, second = await asyncio.gather(w.venue.open_orders(), w.venue.open_orders())
        assert len(first) == len(second) == 3

    play(scenario)


def test_a_list_that_is_never_answered_ends_the_connection():
    """A late answer would be taken for the next question's: the connection is made anew instead."""

    async def scenario(w):
        await place(w, price=1.0, tif=GTC)
        await be_quick(w)
        w.at.is_mute = True
        with pytest.raises(VenueAnswerUnknown):
            await w.venue.open_orders()
        w.at.release()
        w.venue._calls.timeout_secs = 5
        assert len(await w.venue.open_orders()) == 1
        assert w.venue.session.connections == 2

    play(scenario)


@pytest.mark.contract("B15")
@pytest.mark.parametrize(
    "said", ["20251120-15:04:05", "20251120 10:04:05 US/Eastern", "20251120 16:04:05 MET"]
)
@pytest.mark.parametrize("machine", ["America/Chicago", "Asia/Tokyo"])
def test_an_execution_is_dated_right_wherever_this_machine_stands(monkeypatch, machine, said):
    """A time without a zone is UTC, also where the library would take it for this machine's; a named zone is that zone."""
    monkeypatch.setenv("TZ", machine)
    time.tzset()

    async def scenario(w):
        await w.venue.connect()
        told = ["11", "-1", "7", "1", "SPY", "STK", "", "0", "", "", "SMART", "USD", "SPY", "SPY", "0001.01"]
        told += [
            said,
            "DU1234567",
            "SMART",
            "BOT",
            "1",
            "660.0",
            "9",
            "17",
            "0",
            "1",
            "660.0",
            "",
            "",
            "",
            "",
            "2",
        ]
        decoder = w.venue.session.ib.client.decoder
        decoder.serverVersion = 177
        decoder.interpret(told)
        (fill,) = w.venue.session.ib.wrapper.fills.values()
        assert fill.execution.time.timestamp() == 1_763_651_045
        assert not w.venue.session.why_not

    try:
        play(scenario)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.contract("B15")
@pytest.mark.invariant("I4")
def test_an_execution_that_the_library_cannot_read_stops_the_sending():
    """The library only logs a message that it cannot read: an order may have traded, so nothing more leaves."""

    async def scenario(w):
        rests, _ = await place(w, price=1.0, tif=GTC)
        heard = Listener(w, CALL)
        await heard.until(lambda: bool(heard.seen))
        decoder = w.venue.session.ib.client.decoder
        decoder.interpret(["21", "6", "an unknown kind of price"])
        assert not w.venue.session.why_not
        decoder.interpret(["11", "-1", "of another version"])
        answer, _ = await place(w, price=1.0, tif=GTC)
        assert isinstance(answer, NotSent)
        assert "execDetails cannot be read" in answer.reason
        assert isinstance(await w.venue.cancel(order_id=rests.order_id, ticker=CALL), Canceled)
        with pytest.raises(VenueAnswerUnknown) as caught:
            await heard.until(lambda: False)
        assert "tzdata" in caught.value.hint

    play(scenario)


def test_a_contract_that_trades_while_positions_are_listed_counts_once():
    """The list then holds it twice, before and after; the later count is the position."""

    async def scenario(w):
        await w.venue.connect()
        number = w.at.number_of("SPY")
        w.at.holdings[number] = 200
        w.at.traded_meanwhile[number] = 100
        assert await w.venue.positions() == {"SPY": 20_000}

    play(scenario)


@pytest.mark.contract("B15")
@pytest.mark.parametrize("refused", [1, 9])
def test_a_cancel_that_is_refused_is_no_end_although_the_library_calls_it_one(refused):
    """161 makes the library call a live order canceled; it is canceled again, and else unknown while it is listed."""

    async def scenario(w):
        rests, _ = await place(w, price=1.0, tif=GTC)
        w.at.uncancelable = refused
        answer = await w.venue.cancel(order_id=rests.order_id, ticker=CALL)
        assert isinstance(answer, Canceled if refused == 1 else Unknown)
        assert w.at.orders[int(rests.order_id)].leaves == (0 if refused == 1 else 1)

    play(scenario)


def test_a_held_order_is_canceled_at_the_gateway_and_not_in_the_library_alone():
    """The library calls an inactive order canceled when its cancel leaves; the gateway's list says when it is."""

    async def scenario(w):
        w.at.script(Play.INACTIVE)
        rests, _ = await place(w, price=1.0, tif=GTC)
        w.at.uncancelable = 1
        assert isinstance(await w.venue.cancel(order_id=rests.order_id, ticker=CALL), Canceled)
        assert not w.at.orders[int(rests.order_id)].leaves

    play(scenario)


def test_an_order_knows_how_many_units_one_contract_is_for():
    """Orders of options and of combinations of them are for 100 of the underlying, those of shares for one."""

    async def scenario(w):
        await w.venue.connect()
        for ticker in (CALL, SPREAD, "SPY"):
            await place(w, ticker, price=-9.0 if ticker == SPREAD else 1.0, tif=GTC)
        listed = {one.ticker: one.multiplier for one in await w.venue.open_orders()}
        assert listed == {CALL: 100, SPREAD: 100, "SPY": 1}
        other = world(at=w.at, clock=w.clock, client_id=18)
        assert {one.ticker: one.multiplier for one in await other.venue.open_orders()} == listed
        await other.venue.close()

    play(scenario)


def test_an_execution_told_after_the_cut_is_not_dropped():
    """The gateway says that the link is lost between two executions of one order: both are told."""

    async def scenario(w):
        heard = Listener(w, CALL)
        _, order = await place(w, price=1.0, tif=GTC, count=2)
        await heard.settle()
        w.at.fill(order.client_order_id, 1)
        w.at.say(1100, "Connectivity between IB and Trader Workstation has been lost.")
        w.at.fill(order.client_order_id, 1)
        await heard.until(lambda: len(heard.fills()) == 2)

    play(scenario)


def test_what_nobody_read_of_a_stream_is_missed_by_name():
    """Executions wait in a stream that another one replaces: the new one begins with a gap, and ours are read again."""

    async def scenario(w):
        await w.venue.connect()
        w.venue.events([CALL])
        await place(w, count=2)
        for _ in range(20):
            await asyncio.sleep(0)
        heard = Listener(w, CALL)
        await heard.until(heard.gaps)
        assert heard.gaps()[0].private

    play(scenario)
