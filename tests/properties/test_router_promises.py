"""What the order path promises whatever the venue and the disk do: written first, sent once, never forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.execution import OTHER, TICKER, MemoryLog, drain, instrument, signal, world

from holdfast.core.clock import ManualClock
from holdfast.core.money import QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import Intent
from holdfast.execution.reconcile import LATENESS_SECS
from holdfast.execution.strategy import Strategy
from holdfast.execution.venue import DedupProfile, VenueTime
from holdfast.risk.account import Account
from holdfast.risk.limits import RiskLimits
from holdfast.testing.venue import FakeVenue, Play

PLAYS = st.sampled_from([p for p in Play if p is not Play.HANG])
WISHES = st.fixed_dictionaries(
    {
        "count": st.integers(1, 30),
        "price": st.integers(50, 60),
        "side": st.sampled_from(["yes", "no"]),
        "action": st.sampled_from(["buy", "sell"]),
        "tif": st.sampled_from(["ioc", "gtc", "fok"]),
        "ticker": st.sampled_from([TICKER, OTHER]),
    }
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("route"), WISHES, PLAYS),
        st.tuples(st.just("tick"), st.integers(1, 40), st.none()),
        st.tuples(st.just("drain"), st.none(), st.none()),
        st.tuples(st.just("arrive"), st.none(), st.none()),
        st.tuples(st.just("cancel"), st.none(), st.none()),
    ),
    min_size=1,
    max_size=12,
)


def watched_world(
    log: MemoryLog, seen: list[tuple[Intent, int]], dedup: DedupProfile = DedupProfile.ALL, **trader: Any
) -> Any:
    """A world whose venue notes, for each order that arrives, how many records were durable at that moment."""
    clock = ManualClock()
    venue = FakeVenue(
        clock,
        [instrument(), instrument(OTHER)],
        dedup=dedup,
        on_arrival=lambda intent: seen.append((intent, len(log.lines))),
    )
    for ticker in (TICKER, OTHER):
        venue.set_book(ticker, bids=[(5500, 100_000)], asks=[(5600, 100_000)])
    return world(log=log, clock=clock, venue=venue, limits=RiskLimits(max_position=QtyE2(60_00)), **trader)


async def play(w: Any, steps: list[tuple[str, Any, Any]]) -> None:
    for n, (what, how, spoil) in enumerate(steps):
        if what == "route":
            w.venue.script(spoil)
            await w.trader.route(signal(key=f"k{n}", **how))
            w.venue._plays.clear()
        elif what == "tick":
            w.clock.advance(how)
            await w.trader.tick(w.clock.now_ns())
        elif what == "drain":
            await drain(w)
        elif what == "arrive":
            w.venue.arrive()
        else:
            await w.trader.cancel_all_own()


@pytest.mark.invariant("I1")
@settings(max_examples=120)
@given(steps=STEPS, fail_after=st.one_of(st.none(), st.integers(0, 30)))
def test_every_order_that_arrives_was_written_before(steps, fail_after):
    """No byte of an order reaches the venue before its DECISION and ORDER are acknowledged, whatever append fails."""
    log, seen = MemoryLog(), []

    async def run() -> None:
        w = watched_world(log, seen)
        await w.trader.start()
        log.fail_after = fail_after
        await play(w, steps)

    asyncio.run(run())
    arrived: Counter[str] = Counter()
    for intent, durable in seen:
        name = intent.client_order_id
        before = [line for line in log.lines[:durable] if line.details.get("client_order_id") == name]
        assert [line.type for line in before].count("ORDER") == 1
        # A repetition too: each has its own record before it.
        assert [line.details.get("event") for line in before].count("resent") == arrived[name]
        arrived[name] += 1


def one_order_each(venue: FakeVenue) -> None:
    """No name is in the books twice or went with other bytes, nor went twice where that could make two orders."""
    listed = [one.intent.client_order_id for one in venue._orders]
    assert len(listed) == len(set(listed)), "a second order was made"
    sent: dict[str, list[str]] = {}
    for intent in venue.arrived:
        sent.setdefault(intent.client_order_id, []).append(intent.content_digest())
    for name, digests in sent.items():
        assert len(set(digests)) == 1, f"{name} went with other bytes"
        assert len(digests) == 1 or venue.dedup is DedupProfile.ALL, f"{name} was sent twice"
    wishes = [(one.intent.signal.strategy, one.intent.key) for one in venue._orders]
    assert len(wishes) == len(set(wishes)), "a wish became two orders"


@pytest.mark.invariant("I2")
@settings(max_examples=150)
@given(steps=STEPS, dedup=st.sampled_from(DedupProfile))
def test_no_order_is_sent_twice_and_none_is_forgotten(steps, dedup):
    """No wish becomes two orders; what the venue executed is booked or still reserved in full."""
    log, seen = MemoryLog(), []
    found: dict[str, Any] = {}

    async def run() -> None:
        w = watched_world(log, seen, dedup)
        await w.trader.start()
        await play(w, steps)
        found["w"] = w
        # Whatever the venue holds of ours beyond our fills is still reserved on that side.
        for ticker in (TICKER, OTHER):
            buys, sells = w.account.working(ticker)
            ours = w.account.portfolio.position(ticker)
            theirs = w.venue.books_position(ticker)
            assert ours - sells <= theirs <= ours + buys
        for order in w.account.open_orders():
            if order.status is OrderStatus.UNKNOWN:
                assert order.leaves + order.filled == order.quantity
        # The books tell in the end: late orders arrive, the trader looks again, everything agrees.
        w.venue.arrive()
        for _ in range(8):
            w.clock.advance(61)
            await w.trader.tick(w.clock.now_ns())
            await drain(w)
        for ticker in (TICKER, OTHER):
            assert w.account.portfolio.position(ticker) == w.venue.books_position(ticker)

    asyncio.run(run())
    one_order_each(found["w"].venue)
    replayed = Account()
    for line in log.lines:
        replayed.apply(line.type, line.details)
    assert replayed.snapshot() == found["w"].account.snapshot()


@pytest.mark.invariant("I2")
@settings(max_examples=60)
@given(steps=STEPS, cut=st.integers(0, 60), dedup=st.sampled_from(DedupProfile))
def test_a_restart_from_any_record_ends_with_the_venues_positions(steps, cut, dedup):
    """A trader restarted from any prefix of the journal that holds every sent order agrees with the venue again."""
    log, seen = MemoryLog(), []

    async def run() -> None:
        w = watched_world(log, seen, dedup)
        await w.trader.start()
        opened = len(log.lines)
        await play(w, steps)
        kept = max([opened, cut, *(durable for _, durable in seen)])
        w.venue.arrive()
        again = MemoryLog(log.lines[:kept])
        w2 = world(log=again, clock=w.clock, venue=w.venue)
        w.clock.advance(5)
        await w2.trader.start()
        for _ in range(4):
            w.clock.advance(61)
            await w2.trader.tick(w.clock.now_ns())
        for ticker in (TICKER, OTHER):
            assert w2.account.portfolio.position(ticker) == w.venue.books_position(ticker)
        one_order_each(w.venue)

    asyncio.run(run())


LOSSES = st.sampled_from([Play.LOST, Play.LATE, Play.VANISHED, Play.NOT_SENT, Play.REJECT, Play.NORMAL])
HITCHES = st.lists(
    st.one_of(
        st.tuples(st.just("plays"), st.lists(LOSSES, max_size=5)),
        st.tuples(st.just("tick"), st.integers(0, 50)),
        st.tuples(st.just("arrive"), st.none()),
        st.tuples(st.just("hide"), st.integers(1, 3)),
        st.tuples(st.just("blind"), st.booleans()),
        st.tuples(st.just("restart"), st.integers(0, 6)),
    ),
    max_size=14,
)


@pytest.mark.invariant("I2", "I5")
@pytest.mark.contract("A16")
@settings(max_examples=150, deadline=None)
@given(
    dedup=st.sampled_from([DedupProfile.ALL, *DedupProfile]),
    first=LOSSES,
    hitches=HITCHES,
    price=st.sampled_from([50, 55, 70]),
)
def test_an_exit_is_one_order_and_ends_where_the_venue_takes_no_name_twice(dedup, first, hitches, price):
    """Answers lost before or after, late and hidden orders, refusals, kills: at most one order in the books.

    Where the venue takes no name twice it always ends. Nothing arrives later than the bound on lateness; that is what
    the bound says.
    """

    async def run() -> None:
        w = watched_world(MemoryLog(), [], dedup)
        await w.trader.start()
        await w.trader.route(signal(key="in"))
        await drain(w)
        venue, name = w.venue, ""
        venue.script(first)
        name = (
            await w.trader.route(signal(action="sell", price=price, key="out", reduce_only=True))
        ).client_order_id
        waited = 0
        for what, how in hitches:
            if what == "plays":
                venue.script(*how)
            elif what == "tick":
                w.clock.advance(how)
                waited += how
                if waited > LATENESS_SECS:
                    venue._late.clear()
                await w.trader.tick(w.clock.now_ns())
            elif what == "arrive":
                venue.arrive()
            elif what == "hide":
                hide(venue, name, how)
            elif what == "blind":
                venue.is_readable = not how
            else:
                # Killed: what was not synced when it came is gone, what was sent had been.
                kept = max(
                    n
                    for n, line in enumerate(w.log.lines, 1)
                    if line.type == "ORDER" or line.details.get("event") == "resent"
                )
                lines = w.log.lines[: max(kept, len(w.log.lines) - how)]
                venue._queue = None
                w = world(log=MemoryLog(lines), clock=w.clock, venue=venue, limits=w.gate.limits)
                await w.trader.start()
            one_order_each(venue)
            order = w.account.orders[name]
            if order.status is OrderStatus.UNKNOWN:
                assert order.leaves + order.filled == order.quantity
        venue._plays.clear()
        venue.is_readable = True
        for _ in range(12):
            if waited <= LATENESS_SECS:
                venue.arrive()
            venue._late.clear()
            w.clock.advance(61)
            await w.trader.tick(w.clock.now_ns())
            await drain(w)
        order = w.account.orders[name]
        assert order.status.is_closed or (order.status, dedup is DedupProfile.ALL) == (
            OrderStatus.UNKNOWN,
            False,
        )
        assert w.account.portfolio.position(TICKER) == venue.books_position(TICKER)
        one_order_each(venue)
        replayed = Account()
        for line in w.log.lines:
            replayed.apply(line.type, line.details)
        assert replayed.snapshot() == w.account.snapshot()

    asyncio.run(run())


def hide(venue: FakeVenue, name: str, times: int) -> None:
    """The venue's list shows the order of *name* only after *times* more searches."""
    find, left = type(venue).find_order, [times]

    async def find_order(**asked: Any) -> Any:
        if asked["client_order_id"] == name and left[0] > 0:
            left[0] -= 1
            return None
        return await find(venue, **asked)

    venue.find_order = find_order


class Chaser(Strategy):
    """Buys on every book, sells on every fill."""

    name = "chaser"

    def on_book(self, book):
        return [signal(ticker=book.ticker, count=3, price=(book.best_ask or 5000) / 100)]

    def on_fill(self, fill):
        return (
            [signal(ticker=fill.ticker, action="sell", count=1, price=50, tif="gtc")]
            if fill.delta > 0
            else []
        )


@pytest.mark.invariant("I12")
@settings(max_examples=25)
@given(
    prices=st.lists(st.tuples(st.integers(2, 97), st.integers(1, 500)), min_size=1, max_size=15),
    plays=st.lists(PLAYS, max_size=10),
)
def test_equal_events_give_equal_decisions(prices, plays):
    """Two runs over the same events decide the same orders with the same rows at the same market time."""

    def once() -> list[Any]:
        log = MemoryLog()

        async def run() -> None:
            clock = ManualClock()
            venue = FakeVenue(clock, [instrument(), instrument(OTHER)])
            w = world(log=log, clock=clock, venue=venue, strategies=[Chaser()], on_time=clock.set_now_ns)
            venue.script(*plays)
            for n, (bid, qty) in enumerate(prices, 1):
                levels = {"bids": [(bid * 100, qty)], "asks": [(bid * 100 + 200, qty)]}
                venue.set_book(TICKER, **levels)
                venue.put_event(VenueTime(n=n, ts_ns=clock.now_ns() + n * 10**9))
            venue.end_events()
            await w.trader.start()
            await w.trader.run(venue.events(()))

        asyncio.run(run())
        return [
            [line["n"], line["intent"], line["rows"], line["verdict"], line["market_ts_ns"]]
            for line in log.of("DECISION")
        ]

    assert once() == once()
