"""Placing at Interactive Brokers: what leaves, what is said of it, and what nobody can tell."""

from __future__ import annotations

import asyncio

import pytest
from support.ib import CALL, LOWER_PUT, PUT, SPREAD, be_quick, place, play

from holdfast.core.signals import TimeInForce
from holdfast.execution.venue import Ack, NotSent, Reject, Unknown
from holdfast.testing.ib_gateway import Play

GTC = TimeInForce.GTC


@pytest.mark.contract("B15")
def test_an_order_carries_our_name_and_is_known_by_the_brokers_number():
    """The order's reference is our client order id, and the venue's id is the broker's permanent number."""

    async def scenario(w):
        answer, intent = await place(w, price=15.1, count=2)
        assert isinstance(answer, Ack)
        assert (answer.filled, answer.remaining) == (200, 0)
        (sent,) = w.at.arrived
        assert sent.orderRef == intent.client_order_id
        assert (sent.action, sent.totalQuantity, sent.lmtPrice, sent.tif) == ("BUY", 2.0, 15.1, "IOC")
        assert sent.account == "DU1234567"
        assert answer.order_id == str(w.at.order_of(intent.client_order_id).permanent)
        assert w.at.position(CALL) == 2

    play(scenario)


def test_a_resting_order_ends_at_its_expiration_in_whole_seconds_of_utc():
    """A resting order with an expiration is good till that second, which bounds how late it can arrive."""

    async def scenario(w):
        ends_ns = w.clock.now_ns() + 90_500_000_000
        answer, _ = await place(w, price=1.0, tif=GTC, expiration_ns=ends_ns)
        assert isinstance(answer, Ack)
        assert (answer.filled, answer.remaining) == (0, 100)
        assert (w.at.arrived[0].tif, w.at.arrived[0].goodTillDate) == ("GTD", "20251120-15:01:30")

    play(scenario)


@pytest.mark.contract("B15")
def test_a_combination_goes_as_one_bag_and_its_legs_are_booked_not_the_bag():
    """A combination is one order of its legs' numbers; its fills are its legs', each once, and nothing of the bag."""

    async def scenario(w):
        # Selling the 650 put and buying the 630: a credit of at least 3.90 is a price of -3.90.
        answer, intent = await place(w, SPREAD, price=-3.9, count=2)
        assert isinstance(answer, Ack)
        assert answer.filled == 200
        (sent,) = w.at.arrived
        assert sent.lmtPrice == -3.9
        bag = w.at.order_of(intent.client_order_id).contract
        assert {(leg.conId, leg.action, leg.ratio) for leg in bag.comboLegs} == {
            (w.at.number_of(PUT), "SELL", 1),
            (w.at.number_of(LOWER_PUT), "BUY", 1),
        }
        fills = await w.venue.fills(since_ns=0)
        assert {(fill.ticker, int(fill.delta), int(fill.price), fill.multiplier) for fill in fills} == {
            (PUT, -200, 100_000, 100),
            (LOWER_PUT, 200, 61_000, 100),
        }
        assert {fill.order_id for fill in fills} == {answer.order_id}
        assert {fill.client_order_id for fill in fills} == {intent.client_order_id}
        assert len(w.at.executions) == 3
        assert await w.venue.positions() == {PUT: -200, LOWER_PUT: 200}

    play(scenario)


@pytest.mark.parametrize(
    ("spoilt", "code"), [(Play.REFUSED, "201"), (Play.OFF_TICK, "110"), (Play.READ_ONLY, "321")]
)
def test_a_definite_no_is_a_rejection_with_its_number(spoilt, code):
    """An order that never reached the market is rejected under the gateway's own number."""

    async def scenario(w):
        w.at.script(spoilt)
        answer, _ = await place(w)
        assert isinstance(answer, Reject)
        assert answer.code == code
        assert not w.at.orders
        (call,) = [one for one in w.log.of("API_CALL") if one["endpoint"] == "placeOrder"]
        assert (call["status_code"], call["code"]) == (400, int(code))

    w = play(scenario)
    assert (w.breaker.get_state() == "latched") is (spoilt is Play.READ_ONLY)


@pytest.mark.contract("B15")
@pytest.mark.parametrize("spoilt", [Play.WARNED, Play.PRESET, Play.DOUBTED, Play.MYSTERY, Play.INACTIVE])
def test_a_doubtful_status_is_settled_by_the_list_of_orders(spoilt):
    """Whatever the library calls it, an order that the gateway lists is working, under the broker's number."""

    async def scenario(w):
        w.at.script(spoilt)
        answer, intent = await place(w, price=1.0, tif=GTC)
        assert isinstance(answer, Ack)
        assert (answer.filled, answer.remaining) == (0, 100)
        assert answer.order_id == str(w.at.order_of(intent.client_order_id).permanent)

    play(scenario)


@pytest.mark.contract("B15")
@pytest.mark.parametrize("spoilt", [Play.LOST, Play.TAKEN, Play.SILENT, Play.STUCK])
def test_an_order_without_an_answer_is_unknown_and_never_sent_again(spoilt):
    """A socket that ends, or silence, after the order left leaves it unknown; the adapter writes it once."""

    async def scenario(w):
        await be_quick(w)
        w.at.script(spoilt)
        answer, _ = await place(w)
        assert isinstance(answer, Unknown)
        assert w.at.heard.count("placeOrder") == 1
        assert len(w.at.arrived) == (0 if spoilt is Play.LOST else 1)

    w = play(scenario)
    assert w.log.of("API_CALL")[-1]["status_code"] == 0


@pytest.mark.invariant("I2")
def test_nothing_is_sent_without_a_connection():
    """Without a connection, with the link cut, and as a client that only reads, an order is not sent."""

    async def scenario(w):
        _ = await place(w, price=1.0, tif=GTC)
        w.at.cut_link()
        await asyncio.sleep(0)
        answer, _ = await place(w, price=1.0, tif=GTC)
        assert isinstance(answer, NotSent)
        w.at.stop()
        answer, _ = await place(w, price=1.0, tif=GTC)
        assert isinstance(answer, NotSent)
        assert w.at.heard.count("placeOrder") == 1

    play(scenario)


def test_a_client_that_only_reads_places_nothing():
    """With readonly nothing is placed or canceled, and positions and prices are read all the same."""

    async def scenario(w):
        answer, _ = await place(w)
        assert answer == NotSent(reason="this client only reads")
        assert isinstance(await w.venue.cancel(order_id="1", ticker=CALL), NotSent)
        assert await w.venue.positions() == {}
        assert w.at.heard.count("reqOpenOrders") == 0

    play(scenario, readonly=True)


def test_what_the_broker_cannot_be_asked_for_is_not_sent():
    """A post-only order is refused here; the gateway has no such thing."""

    async def scenario(w):
        answer, _ = await place(w, price=1.0, tif=GTC, post_only=True)
        assert isinstance(answer, NotSent)
        assert "post_only" in answer.reason
        assert not w.at.arrived

    play(scenario)


def test_orders_keep_to_the_pace_and_leave_room_for_cancels():
    """Beyond the pace an order is not sent, while a cancel still goes."""

    async def scenario(w):
        first, _ = await place(w, price=1.0, tif=GTC)
        answer = first
        while isinstance(answer, Ack):
            answer, _ = await place(w, price=1.0, tif=GTC)
        assert isinstance(answer, NotSent)
        assert "pace" in answer.reason
        assert w.at.heard.count("placeOrder") <= 20
        canceled = await w.venue.cancel(order_id=first.order_id, ticker=CALL)
        assert canceled.released == 100

    play(scenario)
