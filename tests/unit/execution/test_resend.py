"""When a lost order goes again, what forbids it, and what the answers to it mean."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.execution import OTHER, TICKER, MemoryLog, drain, instrument, signal, world
from support.execution import intent as make_intent

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.orders import Fill, OrderEvent, OrderStatus
from holdfast.core.signals import BookSide, TimeInForce, content_digest
from holdfast.execution.order_record import order_details, read_wish
from holdfast.execution.reconcile import LATENESS_SECS, Evidence
from holdfast.execution.replay import replay_log
from holdfast.execution.resend import (
    LONGEST_WAIT_SECS,
    MOST_AGAIN,
    Again,
    check_again,
    ends_it,
    wait_secs,
)
from holdfast.execution.results import RouteStatus
from holdfast.execution.venue import Ack, DedupProfile, FillSeen, PlaceAnswer
from holdfast.risk.account import Account
from holdfast.risk.halt import TradingState
from holdfast.risk.order import Order
from holdfast.testing.venue import FakeVenue, Play

ALL = DedupProfile.ALL


def go(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


# The decision -----------------------------------------------------------------------------------------------------


def lost(**changes: Any) -> Order:
    """An exit whose answer was lost."""
    fields: dict[str, Any] = {
        "client_order_id": "hf-a",
        "ticker": TICKER,
        "side": BookSide.ASK,
        "quantity": QtyE2(10_00),
        "yes_price": PriceE4(5500),
        "status": OrderStatus.UNKNOWN,
    }
    return Order(**(fields | changes))


@pytest.mark.invariant("I2")
@pytest.mark.contract("A16")
@pytest.mark.parametrize(
    ("changes", "dedup", "waited", "expected"),
    [
        ({}, ALL, 1, Again.YES),
        ({}, DedupProfile.OPEN_ONLY, 10**6, Again.VENUE_TAKES_NAMES_TWICE),
        ({}, DedupProfile.NONE, 10**6, Again.VENUE_TAKES_NAMES_TWICE),
        ({"order_id": "V1"}, ALL, 10**6, Again.KNOWN_THERE),
        ({"external": True}, ALL, 10**6, Again.KNOWN_THERE),
        ({"filled": QtyE2(1)}, ALL, 10**6, Again.KNOWN_THERE),
        ({"withdrawn": True}, ALL, 10**6, Again.WITHDRAWN),
        ({"tif": TimeInForce.GTC, "expiration_ns": 100}, ALL, 10**6, Again.EXPIRED),
        ({"tif": TimeInForce.GTC, "expiration_ns": 101}, ALL, 10**6, Again.YES),
        ({"resent": MOST_AGAIN}, ALL, 10**6, Again.TOO_OFTEN),
        ({"resent": MOST_AGAIN - 1}, ALL, LONGEST_WAIT_SECS, Again.YES),
        ({"resent": 3}, ALL, 7, Again.NOT_YET),
        ({"resent": 3}, ALL, 8, Again.YES),
        *(
            ({"status": s}, ALL, 10**6, Again.NOT_UNKNOWN)
            for s in OrderStatus
            if s is not OrderStatus.UNKNOWN
        ),
    ],
)
def test_an_order_goes_again_only_where_nothing_is_against_it(changes, dedup, waited, expected):
    """Each reason against it has its own name, and without any the answer is yes."""
    assert check_again(lost(**changes), dedup=dedup, now_ns=100, waited_ns=waited * NANOS) is expected


@pytest.mark.invariant("I2")
@given(
    st.sampled_from(DedupProfile),
    st.sampled_from(OrderStatus),
    st.sampled_from(["", "V1"]),
    st.booleans(),
    st.integers(0, 2 * MOST_AGAIN),
    st.integers(0, 10**13),
)
def test_nothing_goes_again_that_may_become_a_second_order(  # noqa: PLR0917  one for each fact
    dedup, status, order_id, withdrawn, resent, waited
):
    """Whatever the facts, yes is said only of an UNKNOWN order without a trace, where every name is taken once."""
    order = lost(status=status, order_id=order_id, withdrawn=withdrawn, resent=resent)
    if check_again(order, dedup=dedup, now_ns=0, waited_ns=waited) is Again.YES:
        assert dedup is ALL
        assert status is OrderStatus.UNKNOWN
        assert not order_id
        assert not withdrawn
        assert resent < MOST_AGAIN
        assert waited >= wait_secs(resent) * NANOS


def test_the_waits_double_up_to_five_minutes():
    """No wait is shorter than the one before, the first is a second, the last ones are equal."""
    waits = [wait_secs(n) for n in range(MOST_AGAIN)]
    assert waits[:4] == [1, 2, 4, 8]
    assert all(later in {2 * earlier, LONGEST_WAIT_SECS} for earlier, later in pairwise(waits))
    assert 6 * 3600 < sum(waits) < 9 * 3600


@pytest.mark.parametrize("looked", list(Evidence))
def test_a_refusal_ends_the_order_only_when_the_first_bytes_cannot_come_any_more(looked):
    """Early, or while the books show it or cannot be read, it stays UNKNOWN."""
    absent = looked in {Evidence.ABSENT, Evidence.ABSENT_BEYOND_BOUND}
    assert not ends_it(silent_ns=LATENESS_SECS * NANOS, looked=looked)
    assert ends_it(silent_ns=LATENESS_SECS * NANOS + 1, looked=looked) is absent


@given(
    st.integers(1, 10**6),
    st.integers(1, 99),
    st.sampled_from(["yes", "no"]),
    st.sampled_from(["buy", "sell"]),
    st.sampled_from(["ioc", "gtc", "fok"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, NANOS]),
    st.booleans(),
)
def test_what_an_order_record_sent_is_read_back_to_the_byte(  # noqa: PLR0917  one for each field
    count, price, side, action, tif, post_only, reduce_only, expiration_ns, was_bounded
):
    """The wish of the record has the content that went to the venue; a record that gives another one is not believed."""
    wish = signal(
        count=count / 100, price=price, side=side, action=action, tif=tif, key="k",
        post_only=post_only, reduce_only=reduce_only, expiration_ns=expiration_ns,
    )  # fmt: skip
    intent = make_intent()
    intent = msgspec.structs.replace(intent, signal=wish)
    given = msgspec.structs.replace(wish, expiration_ns=0) if was_bounded else wish
    order = lost(
        quantity=wish.count, side=wish.book_side, yes_price=wish.yes_price, content=content_digest(given)
    )
    details = order_details(intent, order)
    read = read_wish(details)
    assert read is not None
    assert content_digest(read) == content_digest(wish)
    assert read_wish(details | {"content": "0" * 16}) is None


# The shell --------------------------------------------------------------------------------------------------------


class Idempotent(FakeVenue):
    """Answers a repeated name with the order of that name as it stands now."""

    def _accept(self, intent: Any, *, legs: int | None = None) -> PlaceAnswer:
        listed = self._find(intent.client_order_id)
        if listed is None:
            return super()._accept(intent, legs=legs)
        return Ack(order_id=listed.order_id, filled=listed.filled, remaining=listed.leaves)


def lossy_world(dedup: DedupProfile = ALL, *, kind: type[FakeVenue] = FakeVenue, **more: Any) -> Any:
    clock = more.pop("clock", None) or ManualClock()
    venue = kind(clock, [instrument(), instrument(OTHER)], dedup=dedup)
    venue.set_book(TICKER, bids=[(5500, 100_000)], asks=[(5600, 100_000)])
    return world(clock=clock, venue=venue, **more)


async def held(w: Any) -> Any:
    """Ten contracts are held, quoted freshly."""
    await w.trader.start()
    await w.trader.route(signal(key="in"))
    await drain(w)
    assert w.account.portfolio.position(TICKER) == 10_00
    return w


async def lost_exit(w: Any, *plays: Play, **changes: Any) -> Order:
    """Held, and an exit of all of it whose placement meets the first of *plays*."""
    await held(w)
    w.venue.script(*(plays or (Play.VANISHED,)))
    wish = {"action": "sell", "price": 55, "key": "out", "reduce_only": True} | changes
    result = await w.trader.route(signal(**wish))
    order = w.account.orders[result.client_order_id]
    assert order.status is OrderStatus.UNKNOWN
    return order


async def pass_time(w: Any, *secs: int) -> None:
    for one in secs:
        w.clock.advance(one)
        await w.trader.tick(w.clock.now_ns())


def times_sent(w: Any, order: Order) -> int:
    return [intent.client_order_id for intent in w.venue.arrived].count(order.client_order_id)


def times_listed(w: Any, order: Order) -> int:
    return [one.intent.client_order_id for one in w.venue._orders].count(order.client_order_id)


def resent_records(log: MemoryLog) -> list[str]:
    return [one["evidence"] for one in log.of("ORDER_UPDATE") if one["event"] == "resent"]


@pytest.mark.invariant("I1", "I2", "I5")
@pytest.mark.contract("A16")
def test_an_exit_that_never_arrived_goes_again_as_the_same_order_and_ends():
    """The same bytes under the same name, after a durable record of it, with the reservation in full until the answer."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w)
        assert w.account.working(TICKER) == (0, 10_00)
        seen = []
        w.venue._on_arrival = lambda _intent: seen.append(
            (len(resent_records(w.log)), w.account.working(TICKER))
        )
        await pass_time(w, 1, 2)
        assert seen == [(1, (0, 10_00))]
        await drain(w)
        assert (order.status, order.resent) == (OrderStatus.FILLED, 1)
        assert w.account.portfolio.position(TICKER) == w.venue.books_position(TICKER) == 0
        first, second = (one for one in w.venue.arrived if one.client_order_id == order.client_order_id)
        assert first == second
        assert (times_sent(w, order), times_listed(w, order)) == (2, 1)
        assert w.account.reserved == 0
        again = Account()
        for line in w.log.lines:
            again.apply(line.type, line.details)
        assert again.snapshot() == w.account.snapshot()
        replayed = replay_log(w.log.lines)
        assert replayed.holds_together, "the second leave does not follow from what it read"
        assert replayed.decisions == len(w.log.of("DECISION")) == 3

    go(run())


@pytest.mark.invariant("I2")
@pytest.mark.parametrize("dedup", [DedupProfile.OPEN_ONLY, DedupProfile.NONE])
@pytest.mark.parametrize("tif", ["ioc", "gtc"])
def test_nothing_goes_again_where_a_name_can_be_taken_twice(dedup, tif):
    """At such a venue a lost order arrives once and stays UNKNOWN; a cancel of it is written down, no more."""

    async def run():
        w = lossy_world(dedup)
        order = await lost_exit(w, tif=tif)
        before = len(w.log.lines)
        await pass_time(w, *[40] * 20)
        assert not [
            one for one in w.log.lines[before:] if one.type in {"ORDER_UPDATE", "DECISION", "RECONCILE"}
        ]
        await w.trader.cancel(order.client_order_id)
        await pass_time(w, *[40] * 20)
        assert times_sent(w, order) == 1
        assert order.status is OrderStatus.UNKNOWN
        assert w.account.working(TICKER) == (0, 10_00)
        assert [one["event"] for one in w.log.of("ORDER_UPDATE")].count("withdrawn") == 1

    go(run())


@pytest.mark.parametrize("play", [Play.LOST, Play.LATE])
def test_an_order_that_is_found_does_not_go_again(play):
    """What the venue carried out, at once or before the next look, is taken over and sent once."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w, play)
        w.venue.arrive()
        await pass_time(w, 1, 2, 4)
        assert (order.status, order.resent, times_sent(w, order)) == (OrderStatus.FILLED, 0, 1)

    go(run())


@pytest.mark.invariant("I2")
def test_first_bytes_that_come_after_the_second_ones_are_refused_by_the_venue():
    """Whichever sending arrives first is the order; there is no other one."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w, Play.LATE)
        await pass_time(w, 1, 2)
        w.venue.arrive()
        await pass_time(w, 61, 61)
        assert (order.status, times_listed(w, order)) == (OrderStatus.FILLED, 1)
        assert w.account.portfolio.position(TICKER) == w.venue.books_position(TICKER) == 0
        assert not w.log.violations()

    go(run())


def hide(w: Any, order: Order, times: int) -> None:
    """The venue's list shows *order* only after it was searched *times* times."""
    find, left = w.venue.find_order, [times]

    async def find_order(**asked: Any) -> Any:
        if asked["client_order_id"] == order.client_order_id and left[0] > 0:
            left[0] -= 1
            return None
        return await find(**asked)

    w.venue.find_order = find_order


@pytest.mark.contract("A16")
@pytest.mark.parametrize("kind", [FakeVenue, Idempotent])
@pytest.mark.parametrize(("price", "ended"), [(55, OrderStatus.FILLED), (70, OrderStatus.CANCELED)])
def test_a_repetition_of_what_arrived_tells_how_that_went(kind, price, ended):
    """A 409 is looked up, an acknowledgement of the ended order is believed: filled or canceled, once."""

    async def run():
        w = lossy_world(kind=kind)
        order = await lost_exit(w, Play.LOST, price=price)
        hide(w, order, 2)
        w.venue.mute = True
        await pass_time(w, 1, 2, 4)
        assert (order.status, order.resent) == (ended, 1)
        assert times_listed(w, order) == 1
        assert w.account.portfolio.position(TICKER) == w.venue.books_position(TICKER)

    go(run())


def test_a_refused_repetition_ends_the_order_once_the_first_bytes_cannot_come():
    """Refused early it stays UNKNOWN and reserved; refused a minute after the silence it is REJECTED with the words."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w, Play.VANISHED, *[Play.REJECT] * 9)
        await pass_time(w, 1, 2, 4)
        assert (order.status, order.resent) == (OrderStatus.UNKNOWN, 2)
        assert w.account.working(TICKER) == (0, 10_00)
        await pass_time(w, 61)
        assert (order.status, order.reason) == (OrderStatus.REJECTED, "rejected_by_script")
        (told,) = [one for one in w.log.of("ORDER_UPDATE") if one["event"] == "reject"]
        assert told["evidence"] == "sent again: 400 scripted; absent from the venue's books"
        assert w.account.working(TICKER) == (0, 0)
        assert w.account.portfolio.position(TICKER) == 10_00

    go(run())


def test_a_repetition_without_an_answer_may_still_arrive_as_well():
    """The minute in which a refusal ends nothing counts from the newest silence, not from the first."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w, Play.VANISHED, Play.VANISHED, *[Play.REJECT] * 9)
        await pass_time(w, 1, 61, 30)
        assert (order.status, order.resent) == (OrderStatus.UNKNOWN, 2)
        await pass_time(w, 31)
        assert (order.status, order.resent) == (OrderStatus.REJECTED, 3)

    go(run())


def test_a_refused_repetition_does_not_end_what_the_books_show():
    """A venue that refuses for another reason before it looks at the name has the first order all the same."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w, Play.LOST, Play.REJECT)
        w.venue.mute = True
        hide(w, order, 2)
        await pass_time(w, 62, 2)
        assert order.status is OrderStatus.FILLED

    go(run())


@pytest.mark.invariant("I2")
def test_an_order_that_never_gets_an_answer_goes_a_bounded_number_of_times():
    """The waits grow, the number ends, one alarm says so, and the reservation stands."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w, *[Play.VANISHED] * 500)
        sent_at = []
        w.venue._on_arrival = lambda _intent: sent_at.append(w.clock.now_ns() // NANOS)
        await pass_time(w, *[20] * 40)
        assert all(later - earlier >= wait_secs(n) for n, (earlier, later) in enumerate(pairwise(sent_at), 1))
        await pass_time(w, *[400] * (MOST_AGAIN + 10))
        assert times_sent(w, order) == 1 + MOST_AGAIN
        assert order.status is OrderStatus.UNKNOWN
        assert w.account.working(TICKER) == (0, 10_00)
        assert w.log.violations().count("resend_given_up") == 1

    go(run())


def restrain(w: Any, state: TradingState) -> None:
    change = w.account.holds.change("person", state, reason="test")
    w.account.apply("STATE", change)


def close_market(w: Any) -> None:
    w.trader.market.saw_rules(instrument(is_open=False))


def sell_elsewhere(w: Any) -> None:
    w.venue.trade_elsewhere(
        Fill(
            trade_id="X1",
            order_id="X",
            ticker=TICKER,
            side=BookSide.ASK,
            price=PriceE4(5500),
            qty=QtyE2(5_00),
            fee=0,
            is_taker=True,
            ts_ns=w.clock.now_ns(),
        )
    )


@pytest.mark.invariant("I2", "I6")
@pytest.mark.parametrize(
    ("forbid", "why"),
    [
        (lambda w: restrain(w, TradingState.HALTED), "state_halted"),
        (lambda w: restrain(w, TradingState.CANCEL_ONLY), "state_cancel_only"),
        (close_market, "market_closed"),
        (sell_elsewhere, "not_reducing"),
    ],
)
def test_what_forbids_a_new_order_forbids_the_old_one_to_go_again(forbid, why):
    """Under a halt, on a closed market, or with less held than it would sell, nothing leaves, and the reason is noted once."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w)
        forbid(w)
        await drain(w)
        await pass_time(w, 1, 2, 4, 61)
        assert times_sent(w, order) == 1
        assert order.status is OrderStatus.UNKNOWN
        assert [one["stays"] for one in w.log.of("RECONCILE") if "stays" in one] == [why]
        assert not resent_records(w.log)

    go(run())


@pytest.mark.invariant("I5")
@pytest.mark.parametrize("state", [TradingState.THROTTLED, TradingState.REDUCING])
def test_an_exit_goes_again_where_exits_may_leave(state):
    """What reduces gets through, the second time as well."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w)
        restrain(w, state)
        await pass_time(w, 1, 2)
        assert (order.status, times_sent(w, order)) == (OrderStatus.FILLED, 2)

    go(run())


@pytest.mark.invariant("I6")
def test_a_halt_while_the_attempt_is_written_stops_it():
    """The state is read again in the moment of sending."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w)
        write = w.log.record_many

        def halting(entries: Any, level: Any = None) -> Any:
            if any(entry.details.get("event") == "resent" for entry in entries):
                restrain(w, TradingState.HALTED)
            return write(entries, level)

        w.log.record_many = halting
        await pass_time(w, 1, 2)
        assert len(resent_records(w.log)) == 1
        assert (order.status, times_sent(w, order)) == (OrderStatus.UNKNOWN, 1)
        assert w.venue.permits.count("ignored") == 1

    go(run())


@pytest.mark.invariant("I1", "I9")
def test_nothing_goes_again_that_could_not_be_written():
    """With a disk that fails at the record of the attempt, the bytes stay here."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w)
        await pass_time(w, 1)
        w.log.fail_after = 0
        await pass_time(w, 2, 4, 8)
        assert (order.status, times_sent(w, order)) == (OrderStatus.UNKNOWN, 1)
        assert "failure" not in w.venue.permits[2:]

    go(run())


@pytest.mark.invariant("I2")
def test_a_refused_repetition_does_not_end_what_the_stream_told_a_fill_of():
    """Its books lag behind its stream: the fill alone proves that the first bytes came."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w, Play.LATE, Play.REJECT)
        await w.trader.tick(w.clock.now_ns())
        hide(w, order, 9)

        async def tells_late(intent: Any) -> None:
            w.venue.set_book(TICKER, bids=[(5500, 4_00)], asks=[])
            w.venue.arrive()
            fill = w.venue._fills[-1]
            assert fill.client_order_id == intent.client_order_id
            await w.trader.handle(FillSeen(fill))

        telling = []
        w.venue._on_arrival = lambda intent: telling.append(asyncio.create_task(tells_late(intent)))
        w.clock.advance(62)
        w.venue.script(Play.REJECT)
        await w.trader.tick(w.clock.now_ns())
        await telling[0]
        assert order.filled == 4_00
        assert order.status is not OrderStatus.REJECTED
        assert "zombie_order" not in w.log.violations()

    go(run())


def test_an_entry_whose_age_a_clock_set_back_hides_goes_nowhere_again():
    """An age that nobody knows is not taken for none."""

    async def run():
        w = lossy_world()
        await w.trader.start()
        w.venue.script(Play.VANISHED)
        order = w.account.orders[(await w.trader.route(signal(key="in"))).client_order_id]
        w.clock.step_wall_secs(-3_600)
        await pass_time(w, 1, 2, 61)
        assert times_sent(w, order) == 1

    go(run())


@pytest.mark.parametrize(("first", "sent"), [(1, 2), (6, 1)])
def test_an_entry_goes_again_only_as_long_as_it_could_have_gone_at_first(first, sent):
    """Beyond the deadline of its admission nobody wishes for an increase any more."""

    async def run():
        w = lossy_world()
        await w.trader.start()
        w.venue.script(Play.VANISHED)
        name = (await w.trader.route(signal(key="in"))).client_order_id
        order = w.account.orders[name]
        await pass_time(w, first, 2, 61)
        assert times_sent(w, order) == sent
        assert order.status is (OrderStatus.FILLED if sent == 2 else OrderStatus.UNKNOWN)
        assert w.account.working(TICKER) == (0 if sent == 2 else 10_00, 0)

    go(run())


def test_an_open_breaker_holds_an_entry_and_lets_an_exit_go_again():
    """Leave to place is asked for again; no leave, no record, no bytes."""

    async def run():
        for what, sent in (("in", 1), ("out", 2)):
            w = lossy_world()
            if what == "out":
                order = await lost_exit(w)
            else:
                await w.trader.start()
                w.venue.script(Play.VANISHED)
                order = w.account.orders[(await w.trader.route(signal(key="in"))).client_order_id]
            w.venue.is_breaker_open = True
            await pass_time(w, 1, 2)
            assert times_sent(w, order) == sent
            assert len(resent_records(w.log)) == sent - 1
            assert w.venue.permits[-1] == ("success" if sent == 2 else "failure")

    go(run())


def test_a_repetition_that_was_not_sent_says_nothing_of_the_first_one():
    """NotSent ends an order that was never sent; one that is UNKNOWN stays so."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w, Play.VANISHED, Play.NOT_SENT)
        await pass_time(w, 1, 2)
        assert (order.status, order.resent) == (OrderStatus.UNKNOWN, 1)
        assert w.account.working(TICKER) == (0, 10_00)
        await pass_time(w, 4)
        assert order.status is OrderStatus.FILLED

    go(run())


@pytest.mark.invariant("I2", "I6")
def test_a_canceled_order_never_goes_again_also_after_a_restart():
    """Who cancels what nobody can find has said that it is not wanted any more."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w)
        await w.trader.cancel(order.client_order_id)
        await w.trader.cancel_all_own()
        assert [one["event"] for one in w.log.of("ORDER_UPDATE")].count("withdrawn") == 1
        await pass_time(w, 1, 2, 61)
        again = world(log=MemoryLog(w.log.lines), clock=w.clock, venue=w.venue)
        await again.trader.start()
        await pass_time(again, 1, 2, 61)
        assert times_sent(w, order) == 1

    go(run())


@pytest.mark.invariant("I2")
@pytest.mark.parametrize("dedup", DedupProfile)
@pytest.mark.parametrize("first", [Play.NORMAL, Play.LOST, Play.LATE, Play.VANISHED])
def test_an_order_canceled_on_its_way_goes_nowhere_again_and_rests_nowhere(dedup, first):
    """A cancel between the first byte and the answer holds whatever the answer is."""

    async def run():
        w = lossy_world(dedup)
        await held(w)
        asked = []
        w.venue._on_arrival = lambda one: asked.append(
            asyncio.create_task(w.trader.cancel(one.client_order_id))
        )
        w.venue.script(first)
        result = await w.trader.route(signal(action="sell", key="out", tif="gtc", price=70))
        order = w.account.orders[result.client_order_id]
        await pass_time(w, 1, 2)
        await w.trader.cancel(order.client_order_id)
        w.venue.arrive()
        await pass_time(w, 61, 61)
        assert [task.exception() for task in asked] == [None]
        assert times_sent(w, order) == 1
        assert not await w.venue.open_orders()
        assert order.status is (OrderStatus.UNKNOWN if first is Play.VANISHED else OrderStatus.CANCELED)
        assert order.withdrawn

    go(run())


@pytest.mark.invariant("I2")
def test_an_order_canceled_while_it_is_written_never_leaves():
    """Who cancels before the first byte has no order at the venue, and nothing stays reserved for it."""

    async def run():
        w = lossy_world()
        await w.trader.start()

        async def writing(entries, level=None):
            numbers = w.log.record_many(entries, level)
            for entry in entries:
                if entry.type == "ORDER":
                    await w.trader.cancel(entry.details["client_order_id"])
            return numbers

        w.log.record_many_async = writing
        result = await w.trader.route(signal(tif="gtc", price=50))
        order = w.account.orders[result.client_order_id]
        assert (result.status, result.reason) == (RouteStatus.NOT_SENT, "canceled")
        assert (order.status, times_sent(w, order)) == (OrderStatus.NOT_SENT, 0)
        assert w.account.working(TICKER) == (0, 0)
        again = replay_log(w.log.lines).account
        assert again.orders[result.client_order_id].status is OrderStatus.NOT_SENT

    go(run())


@pytest.mark.invariant("I2", "I5")
@pytest.mark.parametrize("dedup", DedupProfile)
@pytest.mark.parametrize("is_answered", [True, False])
def test_a_cancel_of_what_nobody_finds_holds_through_a_restart(dedup, is_answered):
    """An order that arrives after its trader died, canceled before its answer or after that was lost, rests nowhere."""

    async def run():
        w = lossy_world(dedup)
        await held(w)
        asked = []
        if not is_answered:
            w.venue._on_arrival = lambda one: asked.append(
                asyncio.create_task(w.trader.cancel(one.client_order_id))
            )
        w.venue.script(Play.LATE)
        result = await w.trader.route(signal(action="sell", key="out", tif="gtc", price=70))
        await asyncio.gather(*asked)
        if is_answered:
            await w.trader.cancel(result.client_order_id)
        events = [line.details.get("event") for line in w.log.lines]
        kept = w.log.lines[: events.index("withdrawn") + 1]  # the kill came right after
        again = world(log=MemoryLog(kept), clock=w.clock, venue=w.venue)
        await again.trader.start()
        assert again.account.orders[result.client_order_id].status is OrderStatus.UNKNOWN
        w.venue.arrive()
        assert await w.venue.open_orders()
        await pass_time(again, 1, 2, 61)
        assert not await w.venue.open_orders()
        assert again.account.orders[result.client_order_id].status is OrderStatus.CANCELED

    go(run())


def test_a_resting_order_canceled_while_it_goes_again_is_canceled_at_the_venue():
    """A cancel that comes between the bytes and their answer is carried out as soon as the order is known."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w, tif="gtc", price=70)

        w.venue._on_arrival = lambda _intent: w.trader.ledger.happened(
            order, OrderEvent.WITHDRAWN, evidence="test"
        )
        await pass_time(w, 1, 2, 4)
        assert order.status is OrderStatus.CANCELED
        assert not await w.venue.open_orders()

    go(run())


@pytest.mark.parametrize("restarted", [False, True])
def test_a_canceled_order_that_turns_up_after_all_is_canceled_then(restarted):
    """Nobody could find it when it was to be canceled; as soon as the books show it, it is, also by the next run."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w, Play.LATE, tif="gtc", price=70)
        await w.trader.cancel(order.client_order_id)
        if restarted:
            w = world(log=MemoryLog(w.log.lines), clock=w.clock, venue=w.venue)
            await w.trader.start()
        w.venue.arrive()
        await pass_time(w, 1, 2, 4)
        assert w.account.orders[order.client_order_id].status is OrderStatus.CANCELED
        assert not await w.venue.open_orders()
        assert w.trader.ledger.zombies == {}

    go(run())


@pytest.mark.invariant("I2", "I7")
@pytest.mark.parametrize("keeps", ["nothing", "the attempt", "all"])
def test_a_restart_goes_on_where_the_journal_ends(keeps):
    """Killed before, at or after an attempt, the next run counts it, waits, and ends the order with one in the books."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w, Play.VANISHED, Play.VANISHED)
        before = len(w.log.lines)
        await pass_time(w, 1, 2)
        at = next(n for n, line in enumerate(w.log.lines) if line.details.get("event") == "resent")
        kept = {"nothing": before, "the attempt": at + 1, "all": len(w.log.lines)}[keeps]
        again = world(log=MemoryLog(w.log.lines[:kept]), clock=w.clock, venue=w.venue)
        assert await again.trader.start()
        known = again.account.orders[order.client_order_id]
        assert (known.status, known.resent) == (OrderStatus.UNKNOWN, 0 if keeps == "nothing" else 1)
        sent = times_sent(w, order)
        await pass_time(again, 0)
        assert times_sent(w, order) == sent, "a start is no reason to hurry"
        await pass_time(again, 2, 4, 61)
        assert (known.status, times_listed(w, order)) == (OrderStatus.FILLED, 1)
        arrived = [one for one in w.venue.arrived if one.client_order_id == order.client_order_id]
        assert len({one.content_digest() for one in arrived}) == 1
        assert again.account.portfolio.position(TICKER) == w.venue.books_position(TICKER) == 0

    go(run())


def test_a_lost_intent_that_never_left_goes_after_a_crash():
    """A kill between the record and the first byte leaves an UNKNOWN exit, which then goes as itself."""

    async def run():
        w = await held(lossy_world())
        w.venue.script(Play.VANISHED)
        await w.trader.route(signal(action="sell", price=55, key="out", reduce_only=True))
        (cut,) = [
            n
            for n, line in enumerate(w.log.lines, 1)
            if line.type == "ORDER" and line.details["intent"] == "out"
        ]
        again = world(log=MemoryLog(w.log.lines[:cut]), clock=w.clock, venue=w.venue)
        await again.trader.start()
        await pass_time(again, 1, 2, 4)
        assert again.account.portfolio.position(TICKER) == w.venue.books_position(TICKER) == 0
        assert not again.account.open_orders()

    go(run())


@pytest.mark.invariant("I3")
def test_leave_to_go_again_reserves_nothing_and_gives_nothing_back():
    """Asked again and again, allowed or refused, the account stays as it was, but for the number of its decisions."""

    async def run():
        w = lossy_world()
        order = await lost_exit(w)
        intent = next(one for one in w.venue.arrived if one.client_order_id == order.client_order_id)
        before = w.account.snapshot() | {"decisions": 0}
        for state in (TradingState.ACTIVE, TradingState.HALTED, TradingState.ACTIVE):
            if state is not w.account.holds.state:
                restrain(w, state)
            w.gate.renew(intent)
            w.gate.retire(order.client_order_id)
        after = w.account.snapshot() | {"decisions": 0}
        assert after == before

    go(run())
