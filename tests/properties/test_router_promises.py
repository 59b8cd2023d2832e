"""What the order path promises whatever the venue and the disk do: written first, sent once, never forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.execution import OTHER, TICKER, MemoryLog, drain, instrument, signal, world

from holdfast.core.clock import ManualClock
from holdfast.core.money import QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import Intent
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


def watched_world(log: MemoryLog, seen: list[tuple[Intent, int]], **trader: Any) -> Any:
    """A world whose venue notes, for each order that arrives, how many records were durable at that moment."""
    clock = ManualClock()
    venue = FakeVenue(
        clock,
        [instrument(), instrument(OTHER)],
        dedup=DedupProfile.ALL,
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
            w.trader._stopped = False
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
    for intent, durable in seen:
        before = [line for line in log.lines[:durable] if line.type == "ORDER"]
        assert intent.client_order_id in {line.details["client_order_id"] for line in before}


@pytest.mark.invariant("I2")
@settings(max_examples=150)
@given(steps=STEPS)
def test_no_order_is_sent_twice_and_none_is_forgotten(steps):
    """Each order arrives at most once; what the venue executed is booked or still reserved in full."""
    log, seen = MemoryLog(), []
    found: dict[str, Any] = {}

    async def run() -> None:
        w = watched_world(log, seen)
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
            w.trader._stopped = False
        for ticker in (TICKER, OTHER):
            assert w.account.portfolio.position(ticker) == w.venue.books_position(ticker)

    asyncio.run(run())
    names = [intent.client_order_id for intent, _ in seen]
    assert len(names) == len(set(names))
    replayed = Account()
    for line in log.lines:
        replayed.apply(line.type, line.details)
    assert replayed.snapshot() == found["w"].account.snapshot()


@pytest.mark.invariant("I2")
@settings(max_examples=60)
@given(steps=STEPS, cut=st.integers(0, 60))
def test_a_restart_from_any_record_ends_with_the_venues_positions(steps, cut):
    """A trader restarted from any prefix of the journal that holds every sent order agrees with the venue again."""
    log, seen = MemoryLog(), []

    async def run() -> None:
        w = watched_world(log, seen)
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
        names = [intent.client_order_id for intent in w.venue.arrived]
        assert len(names) == len(set(names))

    asyncio.run(run())


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
