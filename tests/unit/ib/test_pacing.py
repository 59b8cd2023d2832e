"""Messages to the gateway: fewer than it takes, and the important ones always have room."""

from __future__ import annotations

from holdfast.core.clock import ManualClock
from holdfast.venues.ib.pacing import PER_SECOND, Message, Pace


def taken(pace: Pace, message: Message) -> int:
    count = 0
    while pace.take(message):
        count += 1
    return count


def test_subscriptions_leave_room_for_orders_and_orders_for_cancels():
    """Whatever the lower kinds took, the higher ones have their share at once."""
    pace = Pace(ManualClock())
    assert [taken(pace, kind) for kind in Message] == [20, 10, 10]
    assert not any(pace.take(kind) for kind in Message)


def test_never_more_than_the_pace_in_a_second_and_all_of_it_after_one():
    """A full bucket and a second's refill are the most that go, whatever is asked how often."""
    clock = ManualClock()
    pace = Pace(clock)
    gone = taken(pace, Message.CANCEL)
    for _ in range(1_000):
        clock.advance(0.001)
        gone += taken(pace, Message.CANCEL)
    assert gone == 2 * PER_SECOND
    clock.advance(60)
    assert taken(pace, Message.CANCEL) == PER_SECOND


def test_a_complaint_holds_everything_but_cancels():
    """After the gateway's complaint nothing but cancels goes for a second."""
    clock = ManualClock()
    pace = Pace(clock)
    pace.hold()
    assert not pace.take(Message.ORDER)
    assert not pace.take(Message.DATA)
    assert pace.take(Message.CANCEL)
    clock.advance(1)
    assert pace.take(Message.ORDER)
