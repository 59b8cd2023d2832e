"""Following a venue: each event dealt with to its end, strategies asked in turn, and what time makes due.

    event ─▶ books ─▶ records ─▶ strategies' signals, one by one ─▶ ended orders told ─▶ quiescent
    time  ─▶ what is due: space, probes, the start, lost orders, claims, sessions, positions ─▶ strategies ─▶ observer

Promise: events are dealt with in their order, never two at a time; whatever a strategy or the stream raises restricts
trading to cancels before it goes on to the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

import msgspec

from holdfast.core.clock import Clock
from holdfast.core.orders import Fill
from holdfast.core.signals import Signal
from holdfast.execution.books import Books
from holdfast.execution.ledger import Ledger
from holdfast.execution.results import RouteResult
from holdfast.execution.room import JournalRoom
from holdfast.execution.starting import RUN, Starting
from holdfast.execution.strategy import Strategy, TraderObserver
from holdfast.execution.venue import (
    BookChanged,
    FillSeen,
    GreeksSeen,
    MarketChanged,
    OrderSeen,
    PublicTrade,
    StreamGap,
    UnderlyingSeen,
    Venue,
    VenueEvent,
    VenueTime,
)
from holdfast.risk.halt import TradingState
from holdfast.risk.market import Market
from holdfast.risk.order import Order


class Following:
    """See the head of this file.

    Args:
        venue: Whose events.
        ledger, books, market, starting, room: What they are dealt with by.
        clock: For time where the venue owns none.
        strategies: Asked about every event, in this order.
        observer: Told of time, own fills and ended orders after the strategies.
        route: Takes a strategy's signal through the whole path.
        on_time: Called with a venue's own time (UTC ns) before anything else happens at it.
        tick_secs: Wall time between ticks where the venue does not own the clock.

    Attributes:
        observer: As given; may be set later.
        is_running: Whether the venue is followed now.
        is_stopped: Whether it is to be followed no further.
    """

    def __init__(
        self,
        venue: Venue,
        ledger: Ledger,
        books: Books,
        market: Market,
        *,
        starting: Starting,
        room: JournalRoom,
        clock: Clock,
        strategies: Sequence[Strategy],
        observer: TraderObserver | None,
        route: Callable[[Signal], Awaitable[RouteResult]],
        on_time: Callable[[int], None] | None,
        tick_secs: float,
    ) -> None:
        self.observer = observer
        self.is_running = False
        self.is_stopped = False
        self._venue = venue
        self._ledger = ledger
        self._books = books
        self._market = market
        self._starting = starting
        self._room = room
        self._clock = clock
        self._strategies = {strategy.name: strategy for strategy in strategies}
        self._route = route
        self._on_time = on_time
        self._tick_secs = tick_secs
        self._asked_ns = -1

    async def run(self, events: AsyncIterator[VenueEvent]) -> None:
        """Deal with *events* in order until they end, `stop`, or a venue's final tick.

        A venue that owns the clock drives everything by its ticks; otherwise what is due is done every
        `tick_secs` of wall time.

        Raises:
            Exception: Whatever a strategy or the venue's stream raised; trading is restricted to cancels first.
        """
        self.is_running = True
        next_tick = self._wall() + self._tick_secs
        upcoming: asyncio.Future[VenueEvent] | None = None
        try:
            while not self.is_stopped:
                if upcoming is None:
                    upcoming = asyncio.ensure_future(anext(events))
                await asyncio.wait((upcoming,), timeout=max(0.0, next_tick - self._wall()))
                if self._wall() >= next_tick:  # also when events never pause
                    next_tick = self._wall() + self._tick_secs
                    await self.tick(self._clock.now_ns())
                if not upcoming.done():
                    continue
                try:
                    event = upcoming.result()
                except StopAsyncIteration:
                    break
                upcoming = None
                await self.handle(event)
                if isinstance(event, VenueTime):
                    if not event.final:
                        await self._run_by_its_clock(events)
                    break
        except Exception as error:
            self._ledger.hold(RUN, TradingState.CANCEL_ONLY, reason=f"{type(error).__name__}: {error}"[:200])
            await self._ledger.write()
            raise
        finally:
            self.is_running = False
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.wait((upcoming,))
        await self._ledger.write()

    async def _run_by_its_clock(self, events: AsyncIterator[VenueEvent]) -> None:
        """The venue's ticks drive everything: nothing is due between events, and a task for each would be dear."""
        while not self.is_stopped:
            event = await anext(events, None)
            if event is None:
                return
            await self.handle(event)
            if isinstance(event, VenueTime) and event.final:
                return

    @staticmethod
    def _wall() -> float:
        """Seconds of the loop's own clock: ticks of a venue without a clock are wall time."""
        return asyncio.get_running_loop().time()

    async def handle(self, event: VenueEvent) -> None:
        """Deal with one event to its end: books, records, then the strategies' signals one by one.

        An event may have waited for others: how fresh prices are is what the stream says, not when it is heard.
        """
        await self._deal_with(event)
        await self._tell_ended()
        if isinstance(event, VenueTime):
            await self._venue.quiescent(event.n)

    async def _deal_with(self, event: VenueEvent) -> None:
        match event:
            case BookChanged(book=book, ts_ns=ts_ns):
                self._market.saw_stream(book.alive_ns)
                self._market.saw_time(ts_ns)
                self._books.saw_book(book, streamed=True)
                await self._route_all(lambda strategy: strategy.on_book(book))
            case PublicTrade():
                self._market.saw_time(event.ts_ns)
                await self._route_all(lambda strategy: strategy.on_trade(event))
            case FillSeen(fill=fill):
                self._market.saw_time(fill.ts_ns)
                await self._books.saw_fill(fill)
                await self._ledger.write()
                await self._books.hunt_zombies()
            case OrderSeen(order=listed):
                self._ledger.saw_order(listed, evidence="stream")
                await self._ledger.write()
                await self._books.hunt_zombies()
            case MarketChanged():
                self._market.saw_time(event.ts_ns)
                await self._books.market_changed(event)
            case GreeksSeen() | UnderlyingSeen():
                self._saw_measure(event)
            case StreamGap():
                await self._missed(event)
            case VenueTime():
                if self._on_time is not None:
                    self._on_time(event.ts_ns)
                self._market.saw_time(event.ts_ns)
                self._market.saw_stream(self._clock.monotonic_ns())
                await self.tick(event.ts_ns)

    async def _missed(self, gap: StreamGap) -> None:
        self._market.lost(gap.tickers)
        if gap.private:
            await self._books.read_fills_quietly()
            await self._books.read_orders_quietly()

    def _saw_measure(self, event: GreeksSeen | UnderlyingSeen) -> None:
        self._market.saw_time(event.ts_ns)
        if isinstance(event, GreeksSeen):
            self._market.saw_greeks(event.ticker, event.greeks)
        else:
            self._market.saw_underlying(event.symbol, event.price, self._clock.monotonic_ns())

    async def tick(self, now_ns: int) -> None:
        """Time moved to *now_ns*: do what is due, then ask the strategies."""
        await self._room.reserve_exits()
        self._room.watch_space()
        await self._venue.tick_probe()
        if not self._starting.is_reconciled:
            if self._books.is_due("start"):
                await self._starting.reconcile()
        else:
            await self._books.do_due()
        await self._ledger.write()
        await self._books.hunt_zombies()
        if now_ns > self._asked_ns:
            # A tick may repeat its time; a strategy that answers every tick would then never let time move.
            self._asked_ns = now_ns
            await self._route_all(lambda strategy: strategy.on_tick(now_ns))
            await self._tell_ended()
            if self.observer is not None:
                await self.observer.on_time(now_ns)
        await self._tell_ended()

    async def _route_all(self, ask: Callable[[Strategy], Iterable[Signal]]) -> None:
        for strategy in self._strategies.values():
            await self._route_from(strategy, ask(strategy))

    async def _route_from(self, strategy: Strategy, signals: Iterable[Signal]) -> None:
        for signal in signals:
            named = signal
            if signal.strategy == Strategy.name != strategy.name:
                named = msgspec.structs.replace(signal, strategy=strategy.name)
            await self._route(named)

    async def tell_fill(self, fill: Fill, order: Order) -> None:
        """Tell the order's strategy, then the observer, of a fill that was booked just now."""
        strategy = self._strategies.get(order.strategy)
        if strategy is not None:
            await self._ledger.write()
            await self._route_from(strategy, strategy.on_fill(fill))
        if self.observer is not None:
            await self._ledger.write()
            await self.observer.on_own_fill(fill, order)

    async def _tell_ended(self) -> None:
        """Tell the observer of orders that ended since it was last told, once each."""
        ended = self._ledger.ended
        while ended:
            order = ended.popleft()
            if self.observer is not None:
                await self._ledger.write()
                await self.observer.on_order_ended(order)
