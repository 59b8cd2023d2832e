"""Interactive Brokers as a `Venue`: the port of execution/venue.py over `ib_async`.

Promise: what the port promises. An order is written to the socket once, right after its admission was spent, with
nothing awaited in between; before that moment it is `NotSent`, after it the gateway's own words or its lists decide,
and where they do not, it is `Unknown`. Our client order id is the order's reference, the broker's permanent number is the venue's id.

| what fails | here |
| --- | --- |
| not connected, link cut, message pace, read-only | `NotSent`: nothing is written |
| connection or link ends before the answer, no answer in time | `Unknown` |
| status Inactive or ValidationError, a code that is no verdict | the gateway's lists are read; still nothing: `Unknown` |
| executions during a cut | read again after every reconnection and after 1101 and 1102 (`StreamGap`, private) |
| an execution is corrected | the same fill with a later `revision`, which the books put in its place |
| a message about orders or executions that the library cannot read | nothing is sent any more; the stream raises |
| a second live order under one reference | listed apart; `cancel` of either cancels all of them |
| numbers of orders after a gateway's restart | above every number that this journal ever reserved |

Limits: the venue refuses no repeated client order id (`DedupProfile.NONE`). The gateway tells executions and completed
orders of the current day. A cost that comes after its execution was booked at the bound is recorded and not booked.
An order of another program is listed but can be canceled by that program alone. Nothing is modified.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any

from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import CircuitBreakerConfig
from holdfast.core.clock import NANOS, Clock, SystemClock
from holdfast.core.errors import (
    CircuitBreakerOpenError,
    VenueError,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, QtyE2
from holdfast.core.orders import Fill
from holdfast.core.signals import Intent
from holdfast.execution.venue import (
    Book,
    CancelAnswer,
    DedupProfile,
    PlaceAnswer,
    PlacementPermit,
    VenueEvent,
    VenueOrder,
)
from holdfast.risk.gate import Admission
from holdfast.venues.ib.calls import Calls, Outcome, Recorder
from holdfast.venues.ib.canceling import Canceler
from holdfast.venues.ib.directory import Directory
from holdfast.venues.ib.errors import RULES, Kind
from holdfast.venues.ib.feed import Feed
from holdfast.venues.ib.library import prepared
from holdfast.venues.ib.lists import Lists
from holdfast.venues.ib.pacing import Pace
from holdfast.venues.ib.placing import Placer, WhatIf
from holdfast.venues.ib.session import Session
from holdfast.venues.permits import Counted, Observer, PlacePermit

IB_API = CircuitBreakerConfig(5, 60, 2, 60, 35)
BREAKER = "ib_api"
COMMISSION_BOUND = MoneyE6(2_000_000)
"""Two dollars a contract and side: the smallest order's minimum and the exchanges' fees lie below."""
BEAT_SECS = 5
QUOTE_SECS = 3.0


class IBVenue:
    """One account at Interactive Brokers, through a gateway (IB Gateway or Trader Workstation).

    Args:
        ib: An unconnected `ib_async.IB`; None makes one.
        host, port, client_id: Where the gateway listens, and as whom; one id per program.
        account: The account's number; "" takes the only one there is, where that is a paper account or is only read.
        readonly: Place and cancel nothing, and ask for no orders.
        audit: Takes the API_CALL records.
        breaker: Counts every call; None makes `ib_api`, whose changes nobody records.
        clock: Ages and sessions.
        wall_clock: Latencies and message pace; None is the machine's.
        timeout_secs: For one call, wall time.
        commission_bound: What one contract costs at most, per side.
        commission_wait_secs: How long an execution waits for its cost, wall time.
        numbers_from: No order gets a number below; `numbers_reserved` of the journal.
        user: Stands in every record.
        sleep: Waits in wall time.

    Attributes:
        session: The connection.
        breaker: As given.
    """

    name = "ib"
    dedup = DedupProfile.NONE

    def __init__(
        self,
        ib: Any = None,
        *,
        audit: Recorder,
        host: str = "127.0.0.1",
        port: int = 7497,
        client_id: int = 17,
        account: str = "",
        readonly: bool = False,
        breaker: TradingCircuitBreaker | None = None,
        clock: Clock | None = None,
        wall_clock: Clock | None = None,
        timeout_secs: float = 10.0,
        commission_bound: MoneyE6 = COMMISSION_BOUND,
        commission_wait_secs: float = 2.0,
        numbers_from: int = 1,
        user: str = "unknown",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        wall: Clock = wall_clock or SystemClock()
        self._ib: Any = prepared(ib)
        self.breaker = breaker or TradingCircuitBreaker(IB_API, name=BREAKER, clock=self._clock)
        self.session = Session(
            self._ib,
            host=host,
            port=port,
            client_id=client_id,
            account=account,
            readonly=readonly,
            clock=self._clock,
            timeout_secs=timeout_secs,
        )
        self._pace = Pace(wall, sleep=sleep)
        self._calls = Calls(
            self.session,
            self._pace,
            breaker=self.breaker,
            audit=audit,
            user=user,
            wall_clock=wall,
            timeout_secs=timeout_secs,
        )
        self._directory = Directory(self._calls, permit=self._leave, clock=self._clock, fee=commission_bound)
        self._feed = Feed(
            self.session,
            self._directory,
            self._pace,
            clock=self._clock,
            bound=commission_bound,
            cost_wait_secs=commission_wait_secs,
            sleep=sleep,
        )
        self._lists = Lists(
            self._calls,
            self._directory,
            permit=self._leave,
            at_bound=self._feed.at_bound,
            cost_wait_secs=commission_wait_secs,
        )
        self._canceler = Canceler(self._calls, self._lists, self._pace, guessing=self._feed.guessing)
        self._placer = Placer(
            self._calls,
            self._directory,
            self._lists,
            self._pace,
            audit=audit,
            clock=self._clock,
            permit=self._leave,
            numbers_from=numbers_from,
        )

    # Placing ------------------------------------------------------------------------------------------

    def placement_permit(self, ticker: str, *, reducing: bool) -> PlacementPermit:
        """Leave of the breaker to place one order; a reducing one always gets it."""
        del ticker
        try:
            return PlacePermit(self.breaker.acquire(probe=False))
        except CircuitBreakerOpenError:
            if reducing:
                return PlacePermit(Observer(self.breaker))
            raise

    async def place(self, intent: Intent, admission: Admission, permit: PlacementPermit) -> PlaceAnswer:
        """Send once; see placing.py."""
        if not isinstance(permit, PlacePermit):
            raise TypeError("a placement needs the permit that this venue's placement_permit gave")
        return await self._placer.place(intent, admission, permit)

    async def what_if(self, intent: Intent) -> WhatIf:
        """The margin that *intent* would bind; nothing is placed.

        Raises:
            VenueError: It could not be asked, or the broker refuses such an order.
            BadInput: Something that Interactive Brokers cannot be asked for.
        """
        return await self._placer.what_if(intent)

    async def cancel(self, *, order_id: str, ticker: str) -> CancelAnswer:
        """Cancel one order and whatever else lives under its reference; always tried."""
        del ticker
        return await self._canceler.cancel(order_id)

    # The books ----------------------------------------------------------------------------------------

    async def open_orders(self) -> Sequence[VenueOrder]:
        """Every working order of the account: ours, other programs', and people's."""
        return [one.order for one in await self._lists.working()]

    async def find_order(self, *, client_order_id: str, ticker: str, since_ns: int) -> VenueOrder | None:
        """Working orders first, then the day's completed ones, by our reference; the list knows no other search."""
        del ticker, since_ns
        return await self._lists.find(lambda one: one.client_order_id == client_order_id)

    async def order(self, order_id: str) -> VenueOrder | None:
        """One order by the broker's permanent number; None if neither list has it."""
        return await self._lists.find(lambda one: one.order_id == order_id)

    async def fills(self, *, since_ns: int) -> Sequence[Fill]:
        """Today's executions of the account, with what they cost or the bound on it, oldest first."""
        return await self._lists.fills(since_ns)

    async def positions(self) -> dict[str, QtyE2]:
        """Signed contracts or shares by ticker, without flat ones."""
        return await self._lists.positions()

    async def balance(self) -> MoneyE6:
        """Cash in the account, as of the gateway's last word on it: it speaks after trades and every three minutes."""
        return await self._lists.value("TotalCashValue")

    async def buying_power(self) -> MoneyE6:
        """What new positions may still bind of the account's equity."""
        return await self._lists.value("AvailableFunds")

    # Contracts and prices -----------------------------------------------------------------------------

    async def instrument(self, ticker: str, *, regardless: bool = False) -> Instrument:
        """One contract's rules as they stand now."""
        return (await self._directory.describe(ticker, regardless=regardless)).instrument

    async def expiries(self, underlying: str) -> list[int]:
        """Last days (yyyymmdd) of the options listed on a stock or index, soonest first."""
        return await self._directory.expiries(underlying)

    async def chain(self, underlying: str, *, expiry: int = 0) -> Sequence[Instrument]:
        """Every option on *underlying* of one last day, the soonest where none is named, by ticker."""
        if not expiry:
            days = await self._directory.expiries(underlying)
            if not days:
                return []
            expiry = days[0]
        return await self._directory.chain(underlying, expiry)

    async def book(self, ticker: str) -> Book:
        """The best prices of one contract, from its subscription or a short one of its own."""
        permit = self._leave(False)
        try:
            return await self._calls.read("reqMktData", lambda: self._quoted(ticker), permit, contract=ticker)
        finally:
            if not self._feed.is_wanted(ticker):
                await self._feed.unfollow(ticker)

    async def _quoted(self, ticker: str) -> Book:
        since_ns = self._clock.monotonic_ns()
        await self._feed.line(ticker)
        try:
            async with asyncio.timeout(QUOTE_SECS):
                while (found := self._feed.book(ticker, since_ns)) is None:
                    refused = self._feed.refused.get(ticker)
                    if refused is not None:
                        raise VenueRejected(
                            f"reqMktData: {refused}", code=str(refused.code), hint=RULES[Kind.NO_DATA].hint
                        )
                    if not self.session.is_up:
                        raise VenueUnreachable(f"reqMktData: {self.session.why_not}")
                    await self.session.moved()
        except TimeoutError:
            # Contracts that nobody quotes say nothing about a gateway that answers everything else.
            await self.session.ask(self._ib.reqCurrentTimeAsync, name="currentTime")
            raise VenueRejected(
                f"reqMktData: no prices of {ticker!r} within {QUOTE_SECS:g} s", code="no_quote"
            ) from None
        return found

    # Being there --------------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Ask for the gateway's time; its outcome reaches the breaker."""
        await self._probe(self._leave(True))

    async def _probe(self, permit: Counted) -> None:
        await self._calls.read("reqCurrentTime", self._ib.reqCurrentTimeAsync, permit, name="currentTime")

    async def tick_probe(self) -> bool:
        """Send the breaker's probe if one is due, else ask for a sign of life where the gateway has been silent."""
        self._feed.note_sessions()
        await self._record_late_costs()
        permit: Counted | None = None
        if self.breaker.get_state() != "closed":
            if self.breaker.seconds_to_probe() == 0:
                permit = self.breaker.try_acquire()
        elif self.session.is_up and self._clock.monotonic_ns() - self.session.heard_ns > BEAT_SECS * NANOS:
            permit = self.breaker.try_acquire()
        if permit is None:
            return False
        try:
            await self._probe(permit)
        except VenueError:
            return True  # the breaker and the log have heard of it; there is nobody else to tell
        self._feed.beat()
        return True

    async def _record_late_costs(self) -> None:
        """Costs that differ from the bound they were booked at; a person may book the difference as a deposit."""
        late, self._feed.late_costs = self._feed.late_costs, []
        for one in late:
            outcome = Outcome(facts={"trade_id": one.trade_id, "booked_e6": one.booked, "cost_e6": one.cost})
            outcome.answered()
            await self._calls.record("commissionReport", "LATE", outcome, self._calls.begun_ns())

    def events(self, tickers: Collection[str]) -> AsyncIterator[VenueEvent]:
        """Follow books and Greeks of *tickers* and everything of ours, reconnecting until closed."""
        return self._feed.events(tickers)

    async def follow(self, ticker: str) -> None:
        """Add one contract to a running `events`."""
        await self._feed.follow(ticker)

    async def quiescent(self, n: int) -> None:
        """Nobody waits: the market's clock is its own."""
        del n

    async def connect(self) -> None:
        """Be connected now; every call does it when it must.

        Raises:
            VenueUnreachable: The gateway cannot be reached.
            VenueRejected: It refuses this client, or has not the account.
        """
        await self.session.ensure()

    async def close(self) -> None:
        """Let go of the connection; resting orders stay."""
        self._feed.end()
        self.session.close()

    def _leave(self, regardless: bool) -> Counted:
        """Leave to read; *regardless* of an open breaker the outcome is counted all the same."""
        try:
            return self.breaker.acquire()
        except CircuitBreakerOpenError:
            if not regardless:
                raise
            return Observer(self.breaker)
