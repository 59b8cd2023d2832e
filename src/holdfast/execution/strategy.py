"""What a strategy must offer: four synchronous callbacks that answer with wishes.

A strategy sees the market and its own fills and returns signals. It holds no client, no account and no
clock; whatever time it needs is in what it is told. Its signals are routed one after the other in the order
returned, each to its end, before the next event is dealt with: equal input gives equal decisions.

An exception in a callback ends the run: a strategy in an unknown condition must not trade on.

A `TraderObserver` is the other kind of caller: a desk that runs on the trader's own loop, awaits what it does and
routes by itself. It hears of time, of its own fills and of orders that ended, each at one fixed place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from holdfast.core.orders import Fill
from holdfast.core.signals import Signal
from holdfast.execution.venue import Book, PublicTrade
from holdfast.risk.order import Order


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


class TraderObserver(Protocol):
    """What hangs on a trader and acts when it is told.

    Everything is called on the trader's loop and awaited to its end before the next event is dealt with. An
    exception ends the run, as a strategy's does.
    """

    async def on_time(self, now_ns: int) -> None:
        """Time moved to *now_ns*, UTC ns: last in a tick, once per time, before the venue is told all is done."""
        ...

    async def on_own_fill(self, fill: Fill, order: Order) -> None:
        """One of the trader's orders executed, wholly or in part; called once per fill, after it was booked."""
        ...

    async def on_order_ended(self, order: Order) -> None:
        """An order of ours ended, however that became known; called once per end, after its record was noted."""
        ...
