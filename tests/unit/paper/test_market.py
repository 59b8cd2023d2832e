"""The seeded market: the same every time, two-sided, and inside what the recorded games showed."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from support.data import require
from support.ranges import Samples, measure, percentile

from holdfast.core.errors import BadInput
from holdfast.core.signals import BookSide, Side
from holdfast.venues.paper.events import Delta, FeedKind, Lifecycle, MarketStatus, Print
from holdfast.venues.paper.market import DURATION_NS, RECORDED, START_NS, SeededMarket
from holdfast.venues.paper.matching import MarketBook


def seeded(seed: int = 1) -> SeededMarket:
    return SeededMarket(random.Random(seed))


@pytest.mark.invariant("I12")
def test_equal_seeds_give_equal_events_and_others_do_not():
    """Two feeds of one seed are equal event by event, also when iterated twice, and another seed differs."""
    feed = seeded()
    events = list(feed)
    assert events == list(feed)
    assert events == list(seeded())
    assert events != list(seeded(2))


def test_seeded_market_does_not_advance_the_injected_source():
    """The caller's random source stands where it stood after a feed was played."""
    source = random.Random(7)
    before = source.getstate()
    list(SeededMarket(source))
    assert source.getstate() == before


def test_seeded_market_has_a_pair_that_excludes_each_other_and_a_single():
    """There is at least one event of two exclusive markets and one event of one market."""
    feed = seeded()
    sizes = Counter(spec.event_ticker for spec in feed.markets)
    exclusive = {spec.event_ticker for spec in feed.markets if spec.mutually_exclusive}
    assert {sizes[event] for event in exclusive} == {2}
    assert 1 in sizes.values()
    assert feed.kind is FeedKind.DEPTH
    assert "5 markets" in feed.describe()


@pytest.mark.parametrize("seed", range(4))
def test_seeded_books_stay_two_sided_and_uncrossed_at_every_event(seed):
    """After every single event each open book has both sides and its bid below its ask."""
    feed = seeded(seed)
    books = {spec.ticker: MarketBook(spec) for spec in feed.markets}
    last_ns = feed.start_ns
    for event in feed:
        assert event.ts_ns >= last_ns
        last_ns = event.ts_ns
        book = books[event.ticker]
        book.apply(event)
        if book.is_open:
            bid, ask = book.best(BookSide.BID), book.best(BookSide.ASK)
            assert bid is not None
            assert ask is not None
            assert bid[0] < ask[0], event
            assert book.spec.is_price(bid[0])
            assert book.spec.is_price(ask[0])
        if isinstance(event, Delta | Print):
            assert book.is_open
    assert last_ns < START_NS + DURATION_NS


def test_one_game_is_closed_then_determined_then_finalized_with_one_winner():
    """Both markets of one event close, are determined oppositely and finalized before the feed ends."""
    lifecycles = [event for event in seeded() if isinstance(event, Lifecycle)]
    by_market: dict[str, list[Lifecycle]] = {}
    for event in lifecycles:
        by_market.setdefault(event.ticker, []).append(event)
    assert len(by_market) == 2
    for stages in by_market.values():
        assert [stage.status for stage in stages] == [
            MarketStatus.CLOSED,
            MarketStatus.DETERMINED,
            MarketStatus.FINALIZED,
        ]
        assert stages[0].result is None
        assert stages[1].result is stages[2].result
    assert {stages[1].result for stages in by_market.values()} == {Side.YES, Side.NO}


@pytest.mark.parametrize("seed", range(8))
def test_winner_of_the_game_is_where_the_price_went(seed):
    """The market that is determined yes traded last at 0.90 or above, its opposite at 0.10 or below."""
    last: dict[str, int] = {}
    seen = 0
    for event in seeded(seed):
        if isinstance(event, Print):
            last[event.ticker] = event.yes_price
        elif isinstance(event, Lifecycle) and event.status is MarketStatus.DETERMINED:
            seen += 1
            assert last[event.ticker] >= 9_000 if event.result is Side.YES else last[event.ticker] <= 1_000
    assert seen == 2


@pytest.mark.parametrize("seed", range(4))
def test_seeded_market_stays_inside_the_recorded_ranges(seed):
    """Every sampled spread, depth and minute of prints lies within the recorded 10 to 90 % range."""
    samples = measure([seeded(seed)])
    assert len(samples.spreads_e4) > 300
    for values, bounds in zip(samples, RECORDED, strict=True):
        assert bounds.low <= min(values)
        assert max(values) <= bounds.high


@pytest.mark.data
@pytest.mark.slow
def test_recorded_ranges_are_what_the_recordings_measure():
    """The constants equal the 10 and 90 % points of the six recorded NBA markets."""
    from holdfast.venues.paper.tape import open_feed

    samples = measure([open_feed(require("kalshi", "l2-nba-unlicensed"))])
    assert isinstance(samples, Samples)
    for values, bounds in zip(samples, RECORDED, strict=True):
        assert (percentile(values, 10), percentile(values, 90)) == bounds


def test_seeded_market_refuses_to_be_shorter_than_ten_minutes():
    """A duration in which no game can end is bad input, not a feed without settlement."""
    with pytest.raises(BadInput, match="duration"):
        SeededMarket(random.Random(1), duration_ns=60_000_000_000)


def test_seeded_market_of_ten_minutes_settles_too():
    """The shortest allowed run still ends with a finalized market."""
    feed = SeededMarket(random.Random(3), duration_ns=DURATION_NS // 2)
    assert any(isinstance(e, Lifecycle) and e.status is MarketStatus.FINALIZED for e in feed)
