"""Messages to the gateway: fewer than it takes, and the important ones always have room."""

from __future__ import annotations

import asyncio

import ib_async
from support.ib import play

from holdfast.core.clock import ManualClock
from holdfast.venues.ib.library import prepared
from holdfast.venues.ib.pacing import MOST, PER_SECOND, Message, Pace

TAKEN_BY_THE_GATEWAY = 50


def taken(pace: Pace, message: Message) -> int:
    count = 0
    while pace.take(message):
        count += 1
    return count


def test_each_kind_leaves_room_for_those_that_matter_more():
    """Whatever the lower kinds took, the higher ones have their share at once."""
    pace = Pace(ManualClock())
    assert [taken(pace, kind) for kind in Message] == [8, 4, 4, 4]
    assert not any(pace.take(kind) for kind in Message)


def test_never_more_in_a_second_than_the_gateway_takes():
    """A full bucket and a second's refill are the most that go, whatever is asked how often; a handshake fits beside them."""
    clock = ManualClock()
    pace = Pace(clock)
    gone = taken(pace, Message.CANCEL)
    for _ in range(1_000):
        clock.advance(0.001)
        gone += taken(pace, Message.CANCEL)
    assert gone == MOST + PER_SECOND <= TAKEN_BY_THE_GATEWAY - 5
    clock.advance(60)
    assert taken(pace, Message.CANCEL) == MOST


def test_a_complaint_holds_everything_but_cancels():
    """After the gateway's complaint nothing but cancels goes for a second."""
    clock = ManualClock()
    pace = Pace(clock)
    pace.hold()
    assert not any(pace.take(kind) for kind in (Message.ORDER, Message.DATA, Message.READ))
    assert pace.take(Message.CANCEL)
    clock.advance(1)
    assert pace.take(Message.ORDER)


def test_reads_wait_for_their_turn():
    """However many things are asked at once, they reach the gateway no faster than it takes them, and all are answered."""

    async def scenario(w):
        await w.venue.connect()
        await asyncio.gather(*(w.venue.positions() for _ in range(60)))
        assert w.at.heard.count("reqPositions") == 61
        assert w.wall.monotonic_ns() >= (60 - MOST) * 1_000_000_000 // PER_SECOND

    play(scenario)


def test_the_library_keeps_no_message_for_later():
    """An order that the library held back would leave after every check: what it is given goes in that moment."""
    ib = prepared(ib_async.IB())
    gone: list[bytes] = []
    ib.client.conn.sendMsg = gone.append

    async def send() -> None:
        for number in range(2 * TAKEN_BY_THE_GATEWAY):
            ib.client.sendMsg(f"{number}")
        assert len(gone) == 2 * TAKEN_BY_THE_GATEWAY

    asyncio.run(send())
