"""Spread, depth at the touch and trades per minute of a feed: one measurement for recordings and the seeded market.

Every ten seconds of market time each open two-sided book with its middle from 0.10 to 0.90 gives one spread and
two depths; each minute with such a sample gives one count of prints per market.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from holdfast.core.signals import BookSide
from holdfast.venues.paper.events import Feed, Lifecycle, Print
from holdfast.venues.paper.matching import MarketBook

SAMPLE_NS = 10_000_000_000
MINUTE_NS = 60_000_000_000


class Samples(NamedTuple):
    spreads_e4: list[int]
    depths_e2: list[int]
    prints_per_minute: list[int]


def measure(feeds: Iterable[Feed]) -> Samples:
    samples = Samples([], [], [])
    for feed in feeds:
        _measure(feed, samples)
    return samples


def _measure(feed: Feed, samples: Samples) -> None:
    books = {spec.ticker: MarketBook(spec, feed.kind) for spec in feed.markets}
    due_ns = feed.start_ns + SAMPLE_NS
    prints: Counter[tuple[str, int]] = Counter()
    minutes: set[tuple[str, int]] = set()
    for event in feed:
        while event.ts_ns > due_ns:
            # Books as they stood at due_ns: everything up to it has been applied, nothing after.
            for ticker, book in books.items():
                bid, ask = book.best(BookSide.BID), book.best(BookSide.ASK)
                if book.is_open and bid and ask and 2_000 <= bid[0] + ask[0] <= 18_000:
                    samples.spreads_e4.append(ask[0] - bid[0])
                    samples.depths_e2.extend((bid[1], ask[1]))
                    minutes.add((ticker, due_ns // MINUTE_NS))
            due_ns += SAMPLE_NS
            if event.ts_ns - due_ns > 3_600_000_000_000:
                due_ns = event.ts_ns
        if isinstance(event, Print):
            prints[event.ticker, event.ts_ns // MINUTE_NS] += 1
        if not isinstance(event, Lifecycle) or event.ticker in books:
            books[event.ticker].apply(event)
    samples.prints_per_minute.extend(prints[minute] for minute in sorted(minutes))


def percentile(values: Sequence[int], percent: int) -> int:
    """The smallest value with at least *percent* of all at or below it."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
