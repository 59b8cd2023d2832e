"""What a strategy must offer: four synchronous callbacks that answer with wishes.

A strategy sees the market and its own fills and returns signals. It holds no client, no account and no
clock; whatever time it needs is in what it is told. Its signals are routed one after the other in the order
returned, each to its end, before the next event is dealt with: equal input gives equal decisions.

An exception in a callback ends the run: a strategy in an unknown condition must not trade on.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.core.orders import Fill
from holdfast.core.signals import Signal
from holdfast.execution.venue import Book, PublicTrade


class Strategy:
    """Wishes nothing; override what matters.

    Attributes:
        name: Stands in every record of its orders; signals that name no strategy get this one.
    """

    name = "default"

    def on_book(self, book: Book) -> Iterable[Signal]:
        """A followed market's book changed."""
        del book
        return ()

    def on_trade(self, trade: PublicTrade) -> Iterable[Signal]:
        """Somebody traded in a followed market."""
        del trade
        return ()

    def on_fill(self, fill: Fill) -> Iterable[Signal]:
        """One of this strategy's own orders executed; called once per fill."""
        del fill
        return ()

    def on_tick(self, now_ns: int) -> Iterable[Signal]:
        """Time moved to *now_ns*, UTC ns; at least once a second of market time."""
        del now_ns
        return ()
