"""What comes by itself: prices, Greeks, our executions and orders, as one stream of events.

Promise: an execution is told once its cost is known, or after a short wait at the bound on its cost; the legs of a
combination are told, the combination's own line is not. Whatever may have been missed is said as a `StreamGap`
before anything newer: the end of a connection, a cut of the gateway's link (nothing of what happened meanwhile is
ever told by itself), a data centre that is down, a subscription that was refused or lost.

An order's change is told only where its status is the gateway's own word; the library's guesses are left out.

A price is as old as the last thing heard from the gateway while its link and the data centres are up; when nothing
comes by itself, `beat` proves that the gateway is there.

Limits: a cost that becomes known after its execution was told is kept in `late_costs`; the books keep the bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from holdfast.core.clock import Clock
from holdfast.core.errors import BadInput, VenueError, VenueRejected, VenueUnreachable
from holdfast.core.instruments import InstrumentKind
from holdfast.core.money import MoneyE6
from holdfast.core.orders import Fill
from holdfast.execution.venue import (
    Book,
    BookChanged,
    FillSeen,
    GreeksSeen,
    MarketChanged,
    OrderSeen,
    StreamGap,
    UnderlyingSeen,
    VenueEvent,
)
from holdfast.venues.ib.contracts import Listed, ticker_of
from holdfast.venues.ib.directory import Directory
from holdfast.venues.ib.errors import Heard, Kind, OrderSays
from holdfast.venues.ib.orders import ENDED, fee_of, fill_of, is_leg, standing, trade_id, venue_order
from holdfast.venues.ib.pacing import Message, Pace
from holdfast.venues.ib.quotes import book_of, greeks_of, middle, spot_of
from holdfast.venues.ib.session import TAKEN, Session

if TYPE_CHECKING:
    from ib_async.objects import Fill as Execution
    from ib_async.order import Trade
    from ib_async.ticker import Ticker

RETRY_SECS = 1.0


class Line(NamedTuple):
    """One subscription, made after so many gaps."""

    name: str
    listed: Listed
    ticker: Ticker
    gaps: int


class LateCost(NamedTuple):
    """A cost that came after its execution was told at the bound."""

    trade_id: str
    booked: MoneyE6
    cost: MoneyE6


class _Mark(NamedTuple):
    """Not an event: what the reader of events has to do."""

    what: str


_END, _AGAIN, _FAILED = _Mark("end"), _Mark("subscribe again"), _Mark("failed")


class Feed:
    """See the head of this file.

    Args:
        session, directory, pace: The account's.
        clock: Dates events; ages of prices are on its monotonic time.
        bound: What one contract costs at most, per side.
        cost_wait_secs: How long an execution waits for its cost, wall time.
        sleep: Waits in wall time.

    Attributes:
        late_costs: See there; whoever records them takes them out.
        refused: Why a subscription has no prices, by name.
    """

    def __init__(
        self,
        session: Session,
        directory: Directory,
        pace: Pace,
        *,
        clock: Clock,
        bound: MoneyE6,
        cost_wait_secs: float,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.session = session
        self.late_costs: list[LateCost] = []
        self.refused: dict[str, Heard] = {}
        self._is_guessing = False
        self._directory = directory
        self._pace = pace
        self._clock = clock
        self._bound = bound
        self._cost_wait_secs = cost_wait_secs
        self._sleep = sleep
        self._queue: asyncio.Queue[VenueEvent | _Mark] | None = None
        self._wanted: dict[str, None] = {}
        self._lines: dict[str, Line] = {}
        self._by_object: dict[int, str] = {}
        self._told: dict[str, int] = {}
        self._shown: dict[str, Book] = {}
        self._was_open: dict[str, bool] = {}
        self._farms_down: set[str] = set()
        self._gaps = 0
        self._costless: dict[str, asyncio.TimerHandle] = {}
        self._at_bound: dict[str, MoneyE6] = {}
        session.on_heard = self._on_heard
        session.on_end = self._on_end
        session.on_failure = lambda: self._put(_FAILED)
        session.watch(session.ib.pendingTickersEvent, self._on_tickers)
        session.watch(session.ib.execDetailsEvent, self._on_execution)
        session.watch(session.ib.commissionReportEvent, self._on_cost)
        session.watch(session.ib.orderStatusEvent, self._on_order)

    # The stream ---------------------------------------------------------------------------------------

    def events(self, tickers: Collection[str]) -> AsyncIterator[VenueEvent]:
        """See `Venue.events`; what was asked for before ends, and what nobody read of it is said to be missed."""
        is_unread = self._queue is not None and not self._queue.empty()
        self._put(_END)
        self._queue = asyncio.Queue()
        self._wanted = dict.fromkeys(tickers)
        if is_unread:
            self._put(self._gap("followed anew", private=True))
        return self._events(self._queue)

    async def _events(self, queue: asyncio.Queue[VenueEvent | _Mark]) -> AsyncIterator[VenueEvent]:
        connection = 0
        while queue is self._queue:
            if queue.empty() and not await self._reached():
                await self._sleep(RETRY_SECS)
                continue
            if self.session.is_up and connection != self.session.connections:
                is_first, connection = not connection, self.session.connections
                await self._renew()
                if not is_first:
                    yield self._gap("connected again", private=True)
            event = await queue.get()
            if not isinstance(event, _Mark):
                yield event
            elif event is _END:
                return
            elif event is _AGAIN:
                await self._renew()
            elif self.session.failure is not None:
                raise self.session.failure

    async def _reached(self) -> bool:
        """Whether there is a connection, made where there was none; its link may be cut."""
        if self.session.is_connected:
            return True
        try:
            await self.session.ensure()
        except VenueUnreachable:
            return self.session.is_connected
        except VenueRejected as refused:
            # Of a connection that just broke the gateway may not have noticed the end: our own id is in use.
            if refused.code != TAKEN or not self.session.connections:
                raise
            return False
        return True

    async def follow(self, ticker: str) -> None:
        """Add one contract to the stream."""
        self._wanted[ticker] = None
        if self._queue is not None and self.session.is_up:
            await self.line(ticker)

    def end(self) -> None:
        """End the stream after what was said."""
        self._put(_END)
        self._queue = None
        for handle in self._costless.values():
            handle.cancel()
        self._costless.clear()

    async def _renew(self) -> None:
        """Ask for every subscription anew: only a fresh one begins with what is true now.

        What cannot be described now is said to be missing; where the connection ends meanwhile, the next one asks.
        """
        for name in list(self._wanted):
            try:
                await self.line(name)
            except VenueUnreachable:
                return
            except VenueError as error:
                self._put(StreamGap(reason=str(error), tickers=(name,)))

    async def line(self, name: str) -> Line:
        """The subscription of *name*, made where there is none since the last gap: only a new one begins with what is true.

        Raises:
            VenueError: The contract cannot be described, or the gateway not reached.
        """
        known = self._current(name)
        if known is not None:
            return known
        listed = await self._directory.describe(name, regardless=True)
        if self._current(name) is None:
            await self.unfollow(name)
        await self._pace.turn(Message.DATA)
        if not self.session.is_up:
            raise VenueUnreachable(f"reqMktData: {self.session.why_not}")
        known = self._current(name)
        if known is not None:
            return known
        ticker: Ticker = self.session.ib.reqMktData(listed.contract, "", False, False)
        made = self._lines[name] = Line(name, listed, ticker, self._gaps)
        self._by_object[id(ticker)] = name
        self.refused.pop(name, None)
        return made

    def _current(self, name: str) -> Line | None:
        line = self._lines.get(name)
        return line if line is not None and line.gaps == self._gaps else None

    def is_wanted(self, name: str) -> bool:
        """Whether the stream follows *name*."""
        return name in self._wanted and self._queue is not None

    async def unfollow(self, name: str) -> None:
        """Let go of a subscription, which counts at the gateway until it hears so.

        The library would give its old prices to the next subscription of the same contract: it forgets them here.
        """
        line = self._lines.pop(name, None)
        self._forget((name,))
        if line is None:
            return
        self._by_object.pop(id(line.ticker), None)
        library = self.session.ib.wrapper
        library.tickers.pop(hash(line.listed.contract), None)
        number, connection = library.endTicker(line.ticker, "mktData"), self.session.connections
        await self._pace.turn(Message.DATA)
        if number and self.session.is_connected and connection == self.session.connections:
            self.session.ib.client.cancelMktData(number)

    def book(self, name: str, since_ns: int) -> Book | None:
        """The book of a subscription that has told something since the last gap; None while it has not."""
        line = self._lines.get(name)
        if line is None or name not in self._told:
            return None
        return book_of(line.ticker, name, min(since_ns, self.session.heard_ns))

    def note_sessions(self) -> None:
        """Tell which contracts opened or closed since the last time."""
        for listed in self._directory.everything():
            name, opened = listed.instrument.ticker, listed.instrument.is_open
            if self._was_open.setdefault(name, opened) is not opened:
                self._was_open[name] = opened
                status = listed.instrument.status
                self._put(MarketChanged(ticker=name, status=status, ts_ns=self._clock.now_ns()))

    def beat(self) -> None:
        """The gateway answered just now: what was shown before is still what is shown."""
        if self._shown and not self._farms_down and self.session.is_up:
            book = next(iter(self._shown.values()))
            line = self._lines.get(book.ticker)
            again = book_of(line.ticker, book.ticker, self._clock.monotonic_ns()) if line else None
            if again is not None:
                self._put(BookChanged(again, self._clock.now_ns()))

    # Gaps ---------------------------------------------------------------------------------------------

    def _gap(self, reason: str, *, private: bool) -> StreamGap:
        return StreamGap(reason=reason, tickers=tuple(self._wanted), private=private)

    def _forget(self, names: Collection[str]) -> None:
        for name in names:
            self._told.pop(name, None)
            self._shown.pop(name, None)

    def _missed(self, reason: str, *, private: bool) -> None:
        self._gaps += 1
        self._forget(list(self._told))
        self._put(self._gap(reason, private=private))

    def _on_heard(self, heard: Heard, contract: Any) -> None:
        match heard.kind:
            case Kind.LINK_LOST:
                self._missed(str(heard), private=False)
            case Kind.LINK_BACK | Kind.LINK_BACK_DATA_LOST:
                self._missed(str(heard), private=True)
                self._put(_AGAIN)
            case Kind.FARM_DOWN:
                self._farms_down.add(heard.farm)
                self._missed(str(heard), private=False)
            case Kind.FARM_UP if heard.farm in self._farms_down:
                self._farms_down.remove(heard.farm)
                self._ask_silent_again()
            case Kind.PACING:
                self._pace.hold()
            case Kind.NO_DATA if contract is not None:
                called = self._directory.called_at_once(contract)
                if called is not None:
                    self.refused[called.ticker] = heard
                    self._forget((called.ticker,))
                    self._put(StreamGap(reason=str(heard), tickers=(called.ticker,)))
            case _:
                return

    def _ask_silent_again(self) -> None:
        """A data centre is back: whatever has shown no prices since it went is asked for anew."""
        for name, line in self._lines.items():
            if name not in self._shown:
                self._lines[name] = line._replace(gaps=-1)
        self._put(_AGAIN)

    def _on_end(self, reason: str) -> None:
        self._lines.clear()
        self._by_object.clear()
        self._farms_down.clear()
        self._missed(reason, private=True)

    # Prices -------------------------------------------------------------------------------------------

    def _on_tickers(self, tickers: set[Ticker]) -> None:
        now_ns, alive_ns = self._clock.now_ns(), self._clock.monotonic_ns()
        for ticker in tickers:
            name = self._by_object.get(id(ticker))
            if name is None:
                continue
            self._told[name] = alive_ns
            if name in self._wanted:
                self._tell(self._lines[name], now_ns, alive_ns)

    def _tell(self, line: Line, now_ns: int, alive_ns: int) -> None:
        book = book_of(line.ticker, line.name, alive_ns)
        if book is not None:
            self._shown[line.name] = book
            self._put(BookChanged(book, now_ns))
        elif self._shown.pop(line.name, None) is not None:
            self._put(StreamGap(reason="no live, uncrossed prices", tickers=(line.name,)))
        greeks = greeks_of(line.ticker, alive_ns)
        if greeks is not None:
            self._put(GreeksSeen(line.name, greeks, now_ns))
        instrument = line.listed.instrument
        if instrument.kind is InstrumentKind.STOCK:
            spot = middle(book) if book is not None else None
        else:
            spot = spot_of(line.ticker)
        if spot is not None:
            self._put(UnderlyingSeen(instrument.underlying, spot, now_ns))

    # Executions and orders ----------------------------------------------------------------------------

    def _is_ours(self, account: str) -> bool:
        return account in {"", self.session.account}

    def _on_execution(self, _trade: Trade, execution: Execution) -> None:
        if not is_leg(execution) or not self._is_ours(execution.execution.acctNumber) or self._queue is None:
            return
        cost = fee_of(execution)
        if cost is not None:
            self._put(FillSeen(fill_of(execution, ticker_of(execution.contract), cost)))
            return
        exec_id = execution.execution.execId
        loop = asyncio.get_running_loop()
        self._costless[exec_id] = loop.call_later(self._cost_wait_secs, self._give_up, execution)

    def _give_up(self, execution: Execution) -> None:
        """No cost came in time: the execution is told at the bound."""
        self._costless.pop(execution.execution.execId, None)
        try:
            self._put(FillSeen(self.at_bound(execution)))
        except BadInput as error:
            self.session.fail(error)

    def at_bound(self, execution: Execution) -> Fill:
        """*execution* as a fill at the most it can cost; a correction at what was told of the execution before."""
        free = fill_of(execution, ticker_of(execution.contract), MoneyE6(0))
        cost = self._told_before(free)
        if cost is None:
            cost = self._at_bound[free.trade_id] = MoneyE6(self._bound * free.qty // 100)
        return msgspec.structs.replace(free, fee=cost)

    def _told_before(self, fill: Fill) -> MoneyE6 | None:
        """What an earlier telling of *fill* cost; corrections come rarely, and seldom with a cost of their own."""
        if fill.revision <= 1:
            return None
        known = self.session.ib.wrapper.fills.items()
        costs = (fee_of(one) for exec_id, one in known if trade_id(exec_id) == fill.trade_id)
        return next((cost for cost in costs if cost is not None), None)

    def _on_cost(self, _trade: Trade, execution: Execution, _report: object) -> None:
        said = execution.execution
        cost = fee_of(execution)
        if cost is None or not is_leg(execution):
            return
        waiting = self._costless.pop(said.execId, None)
        if waiting is not None:
            waiting.cancel()
            self._put(FillSeen(fill_of(execution, ticker_of(execution.contract), cost)))
            return
        booked = self._at_bound.pop(trade_id(said.execId), None)
        if booked is not None:
            self.late_costs.append(LateCost(trade_id(said.execId), booked, cost))

    def _on_order(self, trade: Trade) -> None:
        now = standing(trade)
        if self._is_guessing or not now.permanent or not self._is_ours(trade.order.account):
            return
        is_word = not now.code or Heard(-1, now.code, "").rule.order is OrderSays.ENDED
        if not is_word or now.status not in {*ENDED, "Submitted", "PreSubmitted"}:
            return
        called = self._directory.called_at_once(trade.contract)
        if called is not None:
            self._put(OrderSeen(venue_order(trade, called)))

    @contextmanager
    def guessing(self) -> Generator[None, None, None]:
        """While the library changes statuses by itself: what it tells meanwhile is no evidence."""
        self._is_guessing = True
        try:
            yield
        finally:
            self._is_guessing = False

    def _put(self, event: VenueEvent | _Mark) -> None:
        if self._queue is not None:
            self._queue.put_nowait(event)
