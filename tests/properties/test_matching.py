"""Whatever the market and the orders do, the matching keeps its promises."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.signals import BookSide, Side, TimeInForce
from holdfast.venues.paper.events import Delta, FeedKind, Lifecycle, MarketSpec, MarketStatus, Print, Snapshot
from holdfast.venues.paper.matching import (
    BookChange,
    BookEvent,
    BookReset,
    Canceled,
    Expired,
    Fill,
    MarketBook,
    NewOrder,
    Rejected,
    SelfTrade,
    TradePrint,
    yes_place,
)

SPEC = MarketSpec(ticker="M", event_ticker="E", series_ticker="S", title="t", close_ns=1 << 62)
SECOND = 1_000_000_000
BID, ASK = BookSide.BID, BookSide.ASK

# Few prices, so that orders and levels meet often.
prices = st.integers(3, 6).map(lambda n: 1_000 * n)
sizes = st.integers(1, 30).map(lambda n: 100 * n)
sides = st.sampled_from(list(Side))
steps = st.one_of(
    st.tuples(st.just("delta"), sides, prices, st.integers(-30, 30).map(lambda n: 100 * n)),
    st.tuples(st.just("trade"), sides, sizes, st.booleans()),
    st.tuples(st.just("snapshot"), st.lists(st.tuples(prices, sizes), max_size=4), st.integers(3, 7)),
    st.tuples(
        st.just("place"),
        st.sampled_from([BID, ASK]),
        prices,
        sizes,
        st.sampled_from(list(TimeInForce)),
        st.tuples(
            st.sampled_from(["x", "y"]),
            st.booleans(),
            st.sampled_from(list(SelfTrade)),
            st.integers(0, 4),
        ),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("wait"), st.integers(0, 3)),
)


@dataclass
class World:
    """The real book beside a recording kept by the simplest possible means."""

    kind: FeedKind
    book: MarketBook = field(init=False)
    ts: int = SECOND
    recorded: dict[tuple[BookSide, int], int] = field(default_factory=lambda: defaultdict(int))
    orders: list[NewOrder] = field(default_factory=list)
    log: list[BookEvent] = field(default_factory=list)
    public: dict[tuple[Side, int], int] = field(default_factory=dict)
    number: int = 0

    def __post_init__(self):
        self.book = MarketBook(SPEC, self.kind)

    def best(self, side: BookSide) -> int | None:
        held = [price for (s, price), size in self.recorded.items() if s is side and size > 0]
        return None if not held else max(held) if side is BID else min(held)

    def step(self, step) -> list[BookEvent]:
        kind, *rest = step
        self.ts += SECOND // 10
        self.number += 1
        events = getattr(self, kind)(*rest)
        self.log += events
        self.follow(events)
        return events

    def delta(self, side, price, change):
        place = yes_place(side, PriceE4(price))
        other = self.best(ASK if place[0] is BID else BID)
        crosses = other is not None and (place[1] >= other if place[0] is BID else place[1] <= other)
        if self.kind is FeedKind.PRINTS or not change or self.recorded[place] + change < 0 or crosses:
            return []
        self.recorded[place] += change
        return self.book.apply(Delta("M", self.ts, side, PriceE4(price), QtyE2(change)))

    def trade(self, taker, size, level_first):
        """A recorded trade: it shrinks the touch and is printed, in either order."""
        side = ASK if taker is Side.YES else BID
        if self.kind is FeedKind.PRINTS:
            printed = PriceE4(1_000 * (3 + size // 100 % 4))
            return self.book.apply(Print("M", self.ts, str(self.number), taker, printed, QtyE2(size)))
        price = self.best(side)
        if price is None:
            return []
        size = min(size, self.recorded[side, price])
        self.recorded[side, price] -= size
        wire = (Side.YES, price) if side is BID else (Side.NO, 10_000 - price)
        pair = [
            Delta("M", self.ts, wire[0], PriceE4(wire[1]), QtyE2(-size)),
            Print("M", self.ts, str(self.number), taker, PriceE4(price), QtyE2(size)),
        ]
        events = []
        for event in pair if level_first else reversed(pair):
            events += self.book.apply(event)
        filled = sum(e.qty for e in events if isinstance(e, Fill))
        assert filled <= size
        return events

    def snapshot(self, levels, middle):
        if self.kind is FeedKind.PRINTS:
            return []
        levels = dict(levels)
        self.recorded.clear()
        for price, size in levels.items():
            self.recorded[BID if price < middle * 1_000 else ASK, price] = size
        yes = tuple((PriceE4(p), QtyE2(n)) for (s, p), n in self.recorded.items() if s is BID)
        no = tuple((PriceE4(10_000 - p), QtyE2(n)) for (s, p), n in self.recorded.items() if s is ASK)
        return self.book.apply(Snapshot("M", self.ts, yes, no))

    def place(self, side, price, size, tif, who):
        account, post_only, self_trade, expires = who
        order = NewOrder(
            order_id=f"o{len(self.orders)}",
            account=account,
            side=side,
            price=PriceE4(price),
            qty=QtyE2(size),
            tif=tif,
            post_only=post_only,
            self_trade=self_trade,
            expiration_ns=self.ts + expires * SECOND if expires and tif is TimeInForce.GTC else 0,
        )
        self.orders.append(order)
        events = self.book.place(order, self.ts)
        for fill in events:
            if isinstance(fill, Fill) and fill.order_id == order.order_id:
                assert fill.is_taker
                assert not order.post_only
                assert fill.price <= price if side is BID else fill.price >= price
                if not fill.counter and self.kind is FeedKind.DEPTH:
                    shown = self.recorded[ASK if side is BID else BID, fill.price]
                    assert fill.qty <= shown, "took more than the recording shows"
        if tif is TimeInForce.FOK:
            filled = sum(e.qty for e in events if isinstance(e, Fill) and e.order_id == order.order_id)
            assert filled in (0, size)
        return events

    def cancel(self, number):
        return self.book.cancel(f"o{number}", self.ts)

    def wait(self, seconds):
        self.ts += seconds * SECOND
        return self.book.advance(self.ts)

    def follow(self, events):
        """A follower of the public events holds the public book."""
        for event in events:
            if isinstance(event, BookReset):
                self.public = self.shown()
            elif isinstance(event, BookChange):
                key = (event.side, event.price)
                self.public[key] = self.public.get(key, 0) + event.delta
                assert self.public[key] == event.size >= 0

    def shown(self):
        yes, no = self.book.public_levels()
        return {(Side.YES, p): n for p, n in yes} | {(Side.NO, p): n for p, n in no}


def play(kind, script) -> World:
    world = World(kind)
    for step in script:
        world.step(step)
        check(world)
    return world


def check(world: World) -> None:
    book = world.book
    # What a follower of the published changes holds is what the book shows.
    assert {k: n for k, n in world.public.items() if n} == world.shown()
    bid, ask = book.best(BID), book.best(ASK)
    assert bid is None or ask is None or bid[0] < ask[0], "crossed"
    # Never more on offer outside than the recording shows.
    if world.kind is FeedKind.DEPTH:
        own = defaultdict(int)
        for order in book.resting_orders():
            own[order.side, order.price] += order.leaves
        for side in (BID, ASK):
            for price in range(1_000, 10_000, 1_000):
                offered = book.public_size(side, PriceE4(price)) - own[side, price]
                assert 0 <= offered <= world.recorded[side, price]
                queued = [
                    order for order in book.resting_orders() if (order.side, order.price) == (side, price)
                ]
                assert all(0 <= order.ahead <= offered for order in queued)


def totals(world: World) -> dict[str, int]:
    ended: dict[str, int] = defaultdict(int)
    for event in world.log:
        if isinstance(event, Fill | Canceled | Expired):
            ended[event.order_id] += event.qty
        elif isinstance(event, Rejected):
            ended[event.order_id] += next(o.qty for o in world.orders if o.order_id == event.order_id)
    for order in world.book.resting_orders():
        ended[order.order_id] += order.leaves
    return ended


@pytest.mark.parametrize("kind", list(FeedKind))
@given(script=st.lists(steps, min_size=20, max_size=50))
@settings(max_examples=120, deadline=None)
def test_every_contract_of_every_order_is_accounted_for(kind, script):
    """Filled, leaves and canceled add up to the quantity of every order; books never cross; offers never exceed the recording."""
    world = play(kind, script)
    ended = totals(world)
    assert ended == {order.order_id: order.qty for order in world.orders}


@pytest.mark.parametrize("kind", list(FeedKind))
@given(script=st.lists(steps, min_size=20, max_size=50))
@settings(max_examples=30, deadline=None)
def test_matching_is_deterministic(kind, script):
    """The same market and the same orders give the same events in the same order."""
    assert play(kind, script).log == play(kind, script).log


@given(script=st.lists(steps, min_size=20, max_size=50))
@settings(max_examples=60, deadline=None)
def test_two_sides_of_one_trade_agree(script):
    """Fills that share a trade number are one taker and one maker of equal price and quantity, each other's counter."""
    fills = defaultdict(list)
    for event in play(FeedKind.DEPTH, script).log:
        if isinstance(event, Fill):
            fills[event.trade_no].append(event)
    for pair in fills.values():
        if len(pair) == 1:
            assert pair[0].counter == ""
            continue
        taker, maker = pair
        assert (taker.is_taker, maker.is_taker) == (True, False)
        assert (taker.price, taker.qty) == (maker.price, maker.qty)
        assert (taker.counter, maker.counter) == (maker.order_id, taker.order_id)
        assert taker.account != maker.account


@given(script=st.lists(steps, min_size=20, max_size=50))
@settings(max_examples=60, deadline=None)
def test_what_is_taken_from_a_level_never_exceeds_what_arrived_there(script):
    """Over any run, external contracts taken at a price are at most those ever shown at it."""
    world = World(FeedKind.DEPTH)
    arrived: dict[tuple[BookSide, int], int] = defaultdict(int)
    taken: dict[tuple[BookSide, int], int] = defaultdict(int)
    for step in script:
        before = dict(world.recorded)
        events = world.step(step)
        for place, size in world.recorded.items():
            arrived[place] += max(0, size - before.get(place, 0))
        for event in events:
            if isinstance(event, Fill) and event.is_taker and not event.counter:
                taken[ASK if event.side is BID else BID, event.price] += event.qty
        for place, total in taken.items():
            assert total <= arrived[place]


@given(script=st.lists(steps, min_size=10, max_size=30), kind=st.sampled_from(list(FeedKind)))
@settings(max_examples=60, deadline=None)
def test_close_empties_the_book(script, kind):
    """After the close nothing rests, nothing is shown and nothing is taken any more."""
    world = play(kind, script)
    world.log += world.book.apply(Lifecycle("M", world.ts, MarketStatus.CLOSED))
    assert world.book.public_levels() == ((), ())
    assert totals(world) == {order.order_id: order.qty for order in world.orders}
    late = NewOrder(order_id="late", account="x", side=BID, price=PriceE4(5_000), qty=QtyE2(100))
    (refused,) = world.book.place(late, world.ts)
    assert isinstance(refused, Rejected)


@given(script=st.lists(steps, min_size=20, max_size=50))
@settings(max_examples=60, deadline=None)
def test_print_tape_gives_each_printed_contract_once(script):
    """On prints, everything filled against the outside is at most everything printed, at prices within the limits."""
    world = play(FeedKind.PRINTS, script)
    printed = sum(e.qty for e in world.log if isinstance(e, TradePrint) and not e.trade_id.startswith("M:"))
    filled = sum(e.qty for e in world.log if isinstance(e, Fill) and not e.counter)
    assert filled <= printed
