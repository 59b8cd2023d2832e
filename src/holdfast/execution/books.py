"""The venue's books read into ours: what is missed is booked, what is lost is looked for, what differs is said.

`explain` compares everything at a start; `do_due` does, whenever time moves, what cannot wait for the stream:
opening the session, looking for UNKNOWN orders, reading claimed fills, pricing what is held, comparing positions.
Whatever cannot be read now stays unknown, and unknown refuses; it is read again later, at growing intervals.

    MarketReader    rules and prices that are missing          Sessions      the day's opening value
    LostOrders      orders and fills that nobody told of       Cancelling    what a cancel leads to
    UnseenEndings   options that ended without an execution    Books         the comparison itself, and the face of all

Limits: what the venue says of orders and fills is believed; there is no second source to hold it against.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import BadInput, CircuitBreakerOpenError, VenueError
from holdfast.core.instruments import Instrument
from holdfast.core.money import PriceE4, QtyE2, format_money, format_qty
from holdfast.core.orders import Fill, OrderStatus
from holdfast.execution.cancelling import Cancelling
from holdfast.execution.corrections import correct
from holdfast.execution.ledger import Ledger
from holdfast.execution.lost_orders import LostOrders
from holdfast.execution.market_reader import MarketReader
from holdfast.execution.reconcile import Evidence, position_differences, resolve
from holdfast.execution.session import Sessions, quantities
from holdfast.execution.tries import Tries, quietly
from holdfast.execution.unseen import UnseenEndings
from holdfast.execution.venue import Book, CancelAnswer, MarketChanged, Venue
from holdfast.risk.gate import Gate
from holdfast.risk.halt import TradingState
from holdfast.risk.order import Order

_FILLS_MARGIN_NS = 600 * NANOS
_SETTLED_WORDS = frozenset({"settled", "finalized"})
DRIFT = "drift"


class Books:
    """One account's books at the venue, held against ours.

    Args:
        venue: Whose books.
        ledger: Where what they say goes.
        gate: Whose market and limits are kept informed.
        clock: Intervals and sessions.
        on_own_fill: Told of each fill of our own orders, once, after it is booked.
        on_absent: Told of each lost order that the books were just searched for in vain, while it may still arrive.
        is_routing: Whether an order is on its way right now; positions are not compared then.
        reconcile_secs: Between comparisons of positions.
        alarm_secs: An order UNKNOWN for longer is alarmed, once.
    """

    def __init__(
        self,
        venue: Venue,
        ledger: Ledger,
        gate: Gate,
        *,
        clock: Clock,
        on_own_fill: Callable[[Fill, Order], Awaitable[None]],
        on_absent: Callable[[Order], Awaitable[None]],
        is_routing: Callable[[], bool],
        reconcile_secs: int,
        alarm_secs: int,
    ) -> None:
        self._venue = venue
        self._ledger = ledger
        self._account = ledger.account
        self._market = gate.market
        self._clock = clock
        self._on_own_fill = on_own_fill
        self._is_routing = is_routing
        self._reconcile_ns = reconcile_secs * NANOS
        self._tries = Tries(clock)
        self._reader = MarketReader(venue, gate, clock=clock, tries=self._tries, kept=self._kept)
        self._sessions = Sessions(ledger, gate, self._reader, clock=clock, tries=self._tries)
        self._unseen = UnseenEndings(
            venue, ledger, gate.market, clock=clock, rules=self._reader.rules_regardless
        )
        self._lost = LostOrders(
            venue,
            ledger,
            gate.market,
            clock=clock,
            tries=self._tries,
            read_fills=self.read_fills_quietly,
            reconciled=self.reconciled,
            on_absent=on_absent,
            alarm_secs=alarm_secs,
        )
        self._cancelling = Cancelling(venue, ledger, lost=self._lost, tries=self._tries)
        self._unclaimed: dict[str, Fill] = {}
        self._results: dict[str, str] = {}
        self._reconciled_ns = 0
        self._drifted = False

    # Starting, and opening the day --------------------------------------------------------------------

    async def explain(self, *, phase: str) -> bool:
        """Read everything, book what was missed; True when nothing stays unexplained.

        Raises:
            VenueError: Something could not be read.
            CircuitBreakerOpenError: The venue is failing.
        """
        if self._account.session is None:
            return await self._take_over()
        for order in self._account.open_orders():
            if not order.external and order.status is OrderStatus.UNKNOWN:
                await self.look_up(order)
        await self._read_fills()
        await self._read_orders()
        theirs = await self._venue.positions()
        await self._read_fills()
        differences = position_differences(self._account.portfolio.positions, theirs)
        if differences:
            await self._settle_missing(differences)
            theirs = await self._venue.positions()
            await self._unseen.book(theirs)
            differences = position_differences(self._account.portfolio.positions, theirs)
        cash = await self._venue.balance()
        self.reconciled(
            phase,
            "positions",
            explained=not differences,
            ours=quantities(self._account.portfolio.positions),
            theirs=quantities(theirs),
            differences=_texts(differences),
            balance=format_money(cash),
            **(self._why_not() if differences else {}),
        )
        if differences:
            return False
        await self.learn_rules()
        self._unseen.note()
        if self._sessions.is_over:
            await quietly(self._sessions.open())
        return True

    async def _take_over(self) -> bool:
        """A journal's first start: what the venue holds now is the opening position, earlier fills are in it."""
        before = await self._venue.fills(since_ns=0)
        positions = await self._venue.positions()
        cash = await self._venue.balance()
        after = [self._believed(fill) for fill in await self._venue.fills(since_ns=0)]
        if len(after) != len(before):
            return False
        newest_ns = max((fill.ts_ns for fill in after), default=0)
        for listed in await self._venue.open_orders():
            self._ledger.saw_order(listed, evidence="working at the first start")
        self.reconciled(
            "start",
            "opening",
            explained=True,
            theirs=quantities(positions),
            balance=format_money(cash),
        )
        await self._sessions.open(
            positions=positions,
            cash=cash,
            counted=[fill.trade_id for fill in after if fill.ts_ns >= newest_ns - _FILLS_MARGIN_NS],
            newest_fill_ns=newest_ns,
        )
        return True

    # What the stream tells ----------------------------------------------------------------------------

    def saw_book(self, book: Book, *, streamed: bool) -> None:
        """A book, from the stream or read."""
        self._reader.saw_book(book, streamed=streamed)

    async def saw_fill(self, fill: Fill) -> None:
        """Book a fill and tell its strategy; one that may be ours but cannot be placed yet waits.

        One that is booked already changes nothing, unless the venue corrects it.
        """
        if self._account.has_fill(fill.trade_id):
            self._unclaimed.pop(fill.trade_id, None)
            correct(self._ledger, self._believed(fill))
            return
        fill = self._believed(fill)
        order = self._account.by_venue_id(fill.order_id) or self._account.orders.get(fill.client_order_id)
        if order is None and self._may_be_ours(fill):
            try:
                listed = await self._venue.order(fill.order_id)
            except (VenueError, CircuitBreakerOpenError):
                self._unclaimed[fill.trade_id] = fill
                return
            order = self._account.orders.get(listed.client_order_id) if listed else None
        self._unclaimed.pop(fill.trade_id, None)
        if self._account.has_fill(fill.trade_id):  # told another way while the order was read
            return
        was_claimed = self._unseen.claimed.make_room(fill, order)
        is_new = self._ledger.saw_fill(fill, order)
        if was_claimed:
            self._unseen.claimed.hold()
        if is_new and order is not None and not order.external:
            await self._on_own_fill(fill, order)

    def _believed(self, fill: Fill) -> Fill:
        """*fill*, dated now if its time is of the future or missing: the newest one says since when to read."""
        now_ns = self._clock.now_ns()
        is_dated = 0 < fill.ts_ns <= now_ns + _FILLS_MARGIN_NS
        return fill if is_dated else msgspec.structs.replace(fill, ts_ns=now_ns)

    def _may_be_ours(self, fill: Fill) -> bool:
        """A fill without our id, while an order of ours whose venue id is unknown could have made it."""
        if fill.client_order_id:
            return False
        return any(not order.order_id and order.can_own(fill) for order in self._account.open_orders())

    async def market_changed(self, event: MarketChanged) -> None:
        """A market opened, closed, was determined or settled; a settled one pays out here."""
        if event.result in {"yes", "no"}:
            self._results[event.ticker] = event.result
            self._market.saw_result(event.ticker, event.result)
        try:
            await self.instrument(event.ticker, refresh=True)
        except (VenueError, CircuitBreakerOpenError, BadInput):
            # Unknown rules refuse orders: forget the old ones, the next order reads them again.
            self._market.instruments.pop(event.ticker, None)
        if event.status in _SETTLED_WORDS:
            result = self._results.get(event.ticker, "")
            if not result and event.ticker in self._market.instruments:
                result = self._market.instruments[event.ticker].result
            if result in {"yes", "no"}:
                self._market.saw_result(event.ticker, result)
                self._ledger.settle(event.ticker, result, event.ts_ns)
        await self._ledger.write()

    # What is due --------------------------------------------------------------------------------------

    async def do_due(self) -> None:
        """Everything that time alone makes due."""
        await self._sessions.roll()
        self._sessions.value_account()
        await self._lost.search()
        for fill in list(self._unclaimed.values()):
            if self.is_due(f"fill {fill.trade_id}"):
                await self.saw_fill(fill)
        await self._lost.collect()
        self._unseen.note()
        if self._market.lacks_rules(self._account.portfolio.positions):
            await self.learn_rules()
        await self.refresh_marks()
        await self._compare_positions()

    async def _compare_positions(self) -> None:
        """Hold our positions against the venue's; a difference that two comparisons show bars increases."""
        now_ns = self._clock.monotonic_ns()
        if (
            now_ns - self._reconciled_ns < self._reconcile_ns
            or self._is_routing()
            or self._lost.expects_fills()
        ):
            return
        self._reconciled_ns = now_ns
        theirs = await quietly(self._venue.positions())
        if theirs is None:
            return
        differences = position_differences(self._account.portfolio.positions, theirs)
        if differences:
            await self.read_fills_quietly()
            await self._settle_missing(differences)
            await self._unseen.book(theirs)
            differences = position_differences(self._account.portfolio.positions, theirs)
        if not differences:
            self._drifted = False
            if self._account.holds.held_by(DRIFT) is not TradingState.ACTIVE:
                self.reconciled("periodic", "positions", explained=True)
                self._ledger.hold(DRIFT, TradingState.ACTIVE, reason="positions agree")
            return
        if not self._drifted:  # a fill may be on its way; look once more before acting
            self._drifted = True
            return
        self.reconciled(
            "periodic", "positions", explained=False, differences=_texts(differences), **self._why_not()
        )
        self._ledger.hold(DRIFT, TradingState.CANCEL_ONLY, reason="positions differ from the venue's")

    async def _settle_missing(self, differences: Sequence[tuple[str, QtyE2, QtyE2]]) -> None:
        """A position that the venue no longer has was perhaps paid out."""
        for ticker, _ours, theirs in differences:
            if theirs:
                continue
            instrument = await quietly(self.instrument(ticker, refresh=True))
            if instrument is not None and instrument.result in {"yes", "no"}:
                self._market.saw_result(ticker, instrument.result)
                self._ledger.settle(ticker, instrument.result, self._clock.now_ns())

    def _why_not(self) -> dict[str, Any]:
        """Why a missing option is not taken for ended, by underlying; nothing where none is missing."""
        return {"unexplained": dict(self._unseen.unexplained)} if self._unseen.unexplained else {}

    async def settle_option(self, ticker: str, price: PriceE4, *, who: str, why: str) -> None:
        """*who* says what one unit of an option paid whose ending the venue never told; see `ClaimedEndings.settle`.

        Raises:
            BadInput: No ending of it is claimed, or it cannot have paid that.
        """
        self._unseen.claimed.settle(ticker, price, who=who, why=why)
        await self._ledger.write()

    # What others ask for ------------------------------------------------------------------------------

    def is_due(self, what: str) -> bool:
        """See `Tries`."""
        return self._tries.is_due(what)

    async def cancel(self, name: str) -> CancelAnswer:
        """Cancel one of the account's orders by its client order id; see `Cancelling`.

        Raises:
            BadInput: No such order.
        """
        return await self._cancelling.cancel(name)

    async def cancel_all_own(self) -> list[Order]:
        """See `Cancelling`."""
        return await self._cancelling.cancel_all_own()

    async def hunt_zombies(self) -> None:
        """See `Cancelling`."""
        await self._cancelling.hunt_zombies()

    async def look_up(self, order: Order) -> Evidence:
        """See `LostOrders`."""
        return await self._lost.look_up(order)

    async def instrument(self, ticker: str, *, refresh: bool = False, regardless: bool = False) -> Instrument:
        """See `MarketReader`."""
        return await self._reader.instrument(ticker, refresh=refresh, regardless=regardless)

    async def learn_rules(self) -> None:
        """See `MarketReader`."""
        await self._reader.learn_rules()

    def lacks_marks(self) -> bool:
        """See `MarketReader`."""
        return self._reader.lacks_marks()

    async def refresh_marks(self) -> None:
        """See `MarketReader`."""
        await self._reader.refresh_marks()

    async def prepare(self, ticker: str) -> Instrument:
        """Read what a question about *ticker* needs and is not known: its rules, prices of what is held.

        Raises:
            VenueError: The rules could not be read. Prices that cannot be read stay unknown.
            CircuitBreakerOpenError: The venue is failing.
        """
        if self.lacks_marks():
            await self.refresh_marks()
        return await self.instrument(ticker)

    def _kept(self, ticker: str) -> Instrument | None:
        return self._unseen.kept(ticker)

    # Reading the venue --------------------------------------------------------------------------------

    async def _read_fills(self) -> None:
        since_ns = max(0, self._account.last_fill_ns - _FILLS_MARGIN_NS)
        for fill in await self._venue.fills(since_ns=since_ns):
            await self.saw_fill(fill)

    async def _read_orders(self) -> None:
        """Take over the venue's working orders; ours that it no longer lists are read one by one."""
        listed = {order.order_id: order for order in await self._venue.open_orders()}
        for theirs in listed.values():
            self._ledger.saw_order(theirs, evidence="open orders")
        for order in self._account.open_orders():
            if order.status is not OrderStatus.WORKING or order.order_id in listed:
                continue
            found = await self._venue.order(order.order_id)
            if found is not None:
                self._ledger.saw_order(found, evidence="read")
            else:
                event = resolve(order.status, Evidence.ABSENT)
                if event is not None:
                    self._ledger.happened(order, event, reason="absent", evidence="not known to the venue")

    async def read_fills_quietly(self) -> bool:
        """Read fills; False when the venue could not be read, which the next tick tries again."""
        try:
            await self._read_fills()
        except (VenueError, CircuitBreakerOpenError):
            return False
        finally:
            await self._ledger.write()
        return True

    async def read_orders_quietly(self) -> None:
        """Read working orders; where that fails now, a later reading does."""
        try:
            await self._read_orders()
        except (VenueError, CircuitBreakerOpenError):
            return
        finally:
            await self._ledger.write()
        await self.hunt_zombies()

    def reconciled(
        self,
        phase: str,
        what: str,
        *,
        explained: bool,
        ours: Any = None,
        theirs: Any = None,
        differences: Sequence[Any] = (),
        **more: Any,
    ) -> None:
        """Note one comparison of ours with theirs."""
        self._ledger.note(
            "RECONCILE",
            {
                "phase": phase,
                "what": what,
                "explained": explained,
                "ours": ours,
                "theirs": theirs,
                "differences": list(differences),
                **more,
            },
        )


def _texts(differences: Sequence[tuple[str, QtyE2, QtyE2]]) -> list[list[str]]:
    return [[ticker, format_qty(ours), format_qty(theirs)] for ticker, ours, theirs in differences]
