"""Interactive Brokers as a `Venue`: the port of execution/venue.py over `ib_async`.

Promise: what the port promises. An order is written to the socket once, right after its admission was spent, with
nothing awaited in between; before that moment it is `NotSent`, after it the gateway's own words or its lists decide,
and where they do not, it is `Unknown`. Our client order id is the order's reference, the broker's permanent number is the venue's id.

| what fails | here |
| --- | --- |
| not connected, link cut, message pace, library throttled, read-only | `NotSent`: nothing is written |
| connection or link ends before the answer, no answer in time | `Unknown` |
| status Inactive or ValidationError, a code that is no verdict | the gateway's lists are read; still nothing: `Unknown` |
| executions during a cut | read again after every reconnection and after 1101 and 1102 (`StreamGap`, private) |
| a second live order under one reference | listed apart; `cancel` of either cancels all of them |
| numbers of orders after a gateway's restart | above every number that this journal ever reserved |

Limits: the venue refuses no repeated client order id (`DedupProfile.NONE`). The gateway tells executions and completed
orders of the current day. A cost that comes after its execution was booked at the bound is recorded and not booked.
An order of another program is listed but can be canceled by that program alone. Nothing is modified.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.audit.format import Record
from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import Level
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import CircuitBreakerConfig
from holdfast.breaker.machine import Verdict
from holdfast.core.clock import NANOS, Clock, SystemClock
from holdfast.core.errors import (
    AuditError,
    BadInput,
    CircuitBreakerOpenError,
    OrderDenied,
    VenueAnswerUnknown,
    VenueError,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, QtyE2
from holdfast.core.orders import Fill
from holdfast.core.signals import Intent
from holdfast.execution.venue import (
    Ack,
    AlreadyClosed,
    Book,
    CancelAnswer,
    Canceled,
    DedupProfile,
    NotSent,
    PlaceAnswer,
    PlacementPermit,
    Reject,
    Unknown,
    VenueEvent,
    VenueOrder,
)
from holdfast.risk.gate import Admission
from holdfast.venues.ib.calls import API, Calls, Outcome
from holdfast.venues.ib.contracts import Listed, qty_e2, ticker_of
from holdfast.venues.ib.directory import Directory
from holdfast.venues.ib.errors import RULES, Heard, Kind
from holdfast.venues.ib.feed import Feed
from holdfast.venues.ib.library import load, new_ib
from holdfast.venues.ib.orders import (
    ENDED,
    Next,
    fee_of,
    fill_of,
    is_leg,
    judge,
    listed_ack,
    order_of,
    standing,
    trade_id,
    venue_order,
)
from holdfast.venues.ib.pacing import Pace
from holdfast.venues.ib.session import Session
from holdfast.venues.permits import Counted, Observer, PlacePermit

if TYPE_CHECKING:
    from ib_async.contract import Contract
    from ib_async.objects import AccountValue, Position
    from ib_async.objects import Fill as Execution
    from ib_async.order import Order, OrderState, Trade

IB_API = CircuitBreakerConfig(5, 60, 2, 60, 35)
BREAKER = "ib_api"
COMMISSION_BOUND = MoneyE6(2_000_000)
"""Two dollars a contract and side: the smallest order's minimum and the exchanges' fees lie below."""
NUMBERS_AHEAD = 10_000
BEAT_SECS = 5
CANCEL_ROUNDS = 3


class WhatIf(NamedTuple):
    """What the broker says that an order would do, had it been sent."""

    initial_margin: MoneyE6
    maintenance_margin: MoneyE6


class _Listed(NamedTuple):
    """One order in the gateway's lists."""

    order: VenueOrder
    trade: Trade


class IBVenue:
    """One account at Interactive Brokers, through a gateway (IB Gateway or Trader Workstation).

    Args:
        ib: An unconnected `ib_async.IB`; None makes one.
        host, port, client_id: Where the gateway listens, and as whom; one id per program.
        account: The account's number; "" takes the only one there is.
        readonly: Place and cancel nothing, and ask for no orders.
        audit: Takes the API_CALL records.
        breaker: Counts every call; None makes `ib_api`, recorded in *audit*.
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
        audit: AuditLogger,
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
        self._ib: Any = ib if ib is not None else new_ib()
        self.breaker = breaker or TradingCircuitBreaker(IB_API, name=BREAKER, clock=self._clock, audit=audit)
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
        self._client_id = client_id
        self._audit = audit
        self._timeout_secs = timeout_secs
        self._cost_wait_secs = commission_wait_secs
        self._pace = Pace(wall)
        self._calls = Calls(
            self.session,
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
        self.session.numbers_from = numbers_from
        self._numbers_below = 0

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
        """Send once; see the head of this file."""
        if not isinstance(permit, PlacePermit):
            raise TypeError("a placement needs the permit that this venue's placement_permit gave")
        if type(admission) is not Admission:
            permit.ignored()
            raise TypeError(
                f"an order leaves only with an admission of the gate, not {type(admission).__name__}"
            )
        try:
            prepared = await self._prepare(intent)
            why = prepared if isinstance(prepared, str) else self._why_not_now()
            if not why:
                admission.consume(intent)
        except OrderDenied as denied:
            why, prepared = str(denied.reason), ""
        except BaseException:
            permit.ignored()
            raise
        if why or isinstance(prepared, str):
            permit.ignored()
            return NotSent(reason=why)
        # The admission is spent: nothing is awaited from here to the first byte.
        return await self._send(intent, *prepared, permit)

    async def _prepare(self, intent: Intent) -> tuple[Contract, Order] | str:
        """The contract and the order to send, or why there is none."""
        try:
            listed = await self._directory.describe(intent.ticker, regardless=True)
            contract = listed.contract
            if contract is None:
                return f"{intent.ticker!r} has no contract"
            if not (why := self._cannot_send()):
                return contract, order_of(intent, account=self.session.account, number=await self._number())
        except (VenueError, BadInput) as error:
            return str(error)
        return why

    def _cannot_send(self) -> str:
        return "this client only reads" if self.session.readonly else self.session.why_not

    def _why_not_now(self) -> str:
        """Why nothing can be written in this moment; takes one message of the pace where it can."""
        return self._cannot_send() or (
            "" if self._pace.take() else "message pace: too many messages in a second"
        )

    async def _number(self) -> int:
        """A number for an order that no order of this journal ever had.

        Numbers are reserved in the journal in blocks, before the first of a block is used. Where the journal
        takes nothing any more an exit goes all the same: what identifies an order is its reference.
        """
        client = self._ib.client
        client.updateReqId(self.session.numbers_from)
        number: int = client.getReqId()
        self.session.numbers_from = number + 1
        if number >= self._numbers_below:
            self._numbers_below = number + NUMBERS_AHEAD
            facts = {"numbers_below": self._numbers_below}
            details = {
                "api": API,
                "endpoint": "numbers",
                "method": "RESERVE",
                "status_code": None,
                "latency_ms": None,
                **facts,
            }
            try:
                await self._audit.record_async("API_CALL", details, component=API, level=Level.DURABLE)
            except AuditError:
                self._calls.unrecorded += 1
        return number

    async def _send(
        self, intent: Intent, contract: Contract, order: Order, permit: PlacePermit
    ) -> PlaceAnswer:
        """Write *order* to the socket and hear what becomes of it."""
        facts = {"client_order_id": intent.client_order_id, "number": order.orderId}
        outcome = Outcome(facts=facts)
        begun_ns = self._calls.begun_ns()
        heard = self.session.listen(order.orderId)
        connection = self.session.connections
        try:
            trade: Trade = self._ib.placeOrder(contract, order)
            answer = await self._hear(intent, trade, heard, connection)
            self._note(answer, heard, outcome)
        except Exception as error:  # noqa: BLE001  the order may have left: the task of placing ends here, latched
            outcome.lost(f"{type(error).__name__} while placing")
            self.breaker.latch(outcome.error, API)
            answer = Unknown(reason=outcome.error)
        finally:
            self.session.unlisten(order.orderId)
            self._calls.settle(permit, outcome)
            await self._calls.record("placeOrder", "PLACE", outcome, begun_ns)
        return answer

    async def _hear(
        self, intent: Intent, trade: Trade, heard: Sequence[Heard], connection: int
    ) -> PlaceAnswer:
        tif = intent.signal.tif
        try:
            async with asyncio.timeout(self._timeout_secs):
                while True:
                    known = judge(standing(trade), heard, tif, self._clock.now_ns())
                    if not isinstance(known, Next):
                        return known
                    if not self.session.is_same(connection):
                        return Unknown(reason=f"sent, then {self.session.why_not or 'connected anew'}")
                    if known is Next.ASK:
                        break
                    await self.session.moved()
        except TimeoutError:
            return Unknown(reason=f"no answer within {self._timeout_secs:g} s")
        why = "; ".join(str(said) for said in heard) or f"status {trade.orderStatus.status}"
        try:
            listed = await self.find_order(client_order_id=intent.client_order_id, ticker="", since_ns=0)
        except VenueError as error:
            return Unknown(reason=f"{why}; {error}")
        ack = listed_ack(listed, tif, self._clock.now_ns()) if listed is not None else None
        return ack or Unknown(reason=f"{why}; {'still working' if listed else 'not in the lists'}")

    @staticmethod
    def _note(answer: PlaceAnswer, heard: Sequence[Heard], outcome: Outcome) -> None:
        if isinstance(answer, Ack):
            outcome.answered()
            outcome.facts["order_id"] = answer.order_id
        elif isinstance(answer, Reject):
            verdict = heard[-1].rule.verdict if heard else Verdict.IGNORED
            outcome.refused(f"{answer.code} {answer.message}", verdict, code=int(answer.code))
        elif isinstance(answer, Unknown):
            outcome.lost(answer.reason)
            outcome.code = heard[-1].code if heard else 0

    async def what_if(self, intent: Intent) -> WhatIf:
        """The margin that *intent* would bind; nothing is placed.

        Raises:
            VenueError: It could not be asked, or the broker refuses such an order.
            BadInput: Something that Interactive Brokers cannot be asked for.
        """
        listed = await self._directory.describe(intent.ticker)
        order = order_of(intent, account=self.session.account, number=0)
        state: OrderState = await self._calls.read(
            "whatIfOrder", lambda: self._ib.whatIfOrderAsync(listed.contract, order), self._leave(False)
        )
        return WhatIf(_dollars(state.initMarginChange), _dollars(state.maintMarginChange))

    # Cancelling ---------------------------------------------------------------------------------------

    async def cancel(self, *, order_id: str, ticker: str) -> CancelAnswer:
        """Cancel one order and whatever else lives under its reference; always tried."""
        del ticker
        outcome = Outcome(facts={"order_id": order_id})
        begun_ns = self._calls.begun_ns()
        try:
            answer = await self._cancel(order_id, outcome)
        finally:
            self._calls.settle(Observer(self.breaker), outcome)
            await self._calls.record("cancelOrder", "CANCEL", outcome, begun_ns)
        return answer

    async def _cancel(self, order_id: str, outcome: Outcome) -> CancelAnswer:
        if self.session.readonly:
            outcome.refused("this client only reads")
            return NotSent(reason=outcome.error)
        wanted: _Listed | None = None
        sent = False
        for _ in range(CANCEL_ROUNDS):
            try:
                working = await self._working()
            except VenueError as error:
                outcome.lost(str(error))
                return Unknown(reason=outcome.error) if sent else NotSent(reason=outcome.error)
            if wanted is None:
                wanted = next((one for one in working if one.order.order_id == order_id), None)
                if wanted is None:
                    outcome.answered()
                    return AlreadyClosed()
            targets = [one for one in working if _is_same_order(one.order, wanted.order)]
            if not targets:
                break
            for target in _once_each(targets):
                refusal = await self._cancel_one(target.trade, outcome)
                if refusal is not None:
                    return refusal
                sent = True
        else:
            outcome.lost("still working after every cancel")
            return Unknown(reason=outcome.error)
        return await self._ended(wanted, outcome)

    async def _cancel_one(self, trade: Trade, outcome: Outcome) -> CancelAnswer | None:
        """Send one cancel and wait for its end; an answer only where there is nothing more to try."""
        order = trade.order
        if order.clientId != self._client_id or order.orderId <= 0:
            who = f"API client {order.clientId}" if order.orderId > 0 else "a person at the gateway"
            outcome.refused(f"order {order.permId} belongs to {who}, who alone can cancel it")
            return NotSent(reason=outcome.error)
        if not self.session.is_up or not self._pace.take(cancel=True):
            outcome.lost(self.session.why_not or "message pace: too many cancels in a second")
            return NotSent(reason=outcome.error)
        heard = self.session.listen(order.orderId)
        connection = self.session.connections
        self._feed.is_guessing = True
        try:
            self._ib.cancelOrder(order)
        finally:
            self._feed.is_guessing = False
        try:
            async with asyncio.timeout(self._timeout_secs):
                while not _is_cancel_answered(trade, heard):
                    if not self.session.is_same(connection):
                        outcome.lost(f"sent, then {self.session.why_not or 'connected anew'}")
                        return Unknown(reason=outcome.error)
                    await self.session.moved()
        except TimeoutError:
            outcome.lost(f"no answer within {self._timeout_secs:g} s")
            return Unknown(reason=outcome.error)
        finally:
            self.session.unlisten(order.orderId)
        return None

    async def _ended(self, wanted: _Listed | None, outcome: Outcome) -> CancelAnswer:
        """How the order ended that is in no list of working ones any more."""
        if wanted is None:
            return AlreadyClosed()
        try:
            listed = await self._completed(lambda one: one.order_id == wanted.order.order_id)
        except VenueError as error:
            outcome.lost(str(error))
            return Unknown(reason=outcome.error)
        outcome.answered()
        ended = listed or wanted.order
        released = QtyE2(ended.initial - ended.filled)
        return Canceled(released=released) if listed is not None and released else AlreadyClosed()

    # The books ----------------------------------------------------------------------------------------

    async def open_orders(self) -> Sequence[VenueOrder]:
        """Every working order of the account: ours, other programs', and people's."""
        return [one.order for one in await self._working()]

    async def find_order(self, *, client_order_id: str, ticker: str, since_ns: int) -> VenueOrder | None:
        """Working orders first, then the day's completed ones, by our reference; the list knows no other search."""
        del ticker, since_ns
        return await self._find(lambda one: one.client_order_id == client_order_id)

    async def order(self, order_id: str) -> VenueOrder | None:
        """One order by the broker's permanent number; None if neither list has it."""
        return await self._find(lambda one: one.order_id == order_id)

    async def _find(self, fits: Callable[[VenueOrder], bool]) -> VenueOrder | None:
        for one in await self._working():
            if fits(one.order):
                return one.order
        return await self._completed(fits)

    async def _working(self) -> list[_Listed]:
        """Every live order in the gateway's list.

        Orders with one number fall together in the library: the list then holds the same trade several times, and
        only the library's map of permanent numbers still tells them apart.
        """
        trades: list[Trade] = await self._read_orders(
            "reqAllOpenOrders", self._ib.reqAllOpenOrdersAsync, "openOrders"
        )
        times = Counter(id(trade) for trade in trades)
        found: dict[str, _Listed] = {}
        for trade in trades:
            name = await self._directory.name(trade.contract)
            numbers = [trade.order.permId]
            if times[id(trade)] > 1:
                known = self._ib.wrapper.permId2Trade.items()
                numbers = sorted({number for number, one in known if one is trade})[-times[id(trade)] :]
            for number in numbers:
                listed = venue_order(trade, name, permanent=number)
                if listed.leaves and self._is_ours(trade.order.account):
                    found[listed.order_id] = _Listed(listed, trade)
        return list(found.values())

    async def _completed(self, fits: Callable[[VenueOrder], bool]) -> VenueOrder | None:
        """One of the day's ended orders; of several the one that executed most."""
        trades: list[Trade] = await self._read_orders(
            "reqCompletedOrders", lambda: self._ib.reqCompletedOrdersAsync(False), "completedOrders"
        )
        best: VenueOrder | None = None
        for trade in trades:
            if not self._is_ours(trade.order.account) or trade.orderStatus.status not in {*ENDED, "Inactive"}:
                continue
            shown = venue_order(trade, "")
            if not fits(shown):
                continue
            shown = venue_order(_as_ended(trade), await self._directory.name(trade.contract))
            if best is None or shown.filled > best.filled:
                best = shown
        return best

    async def _read_orders(
        self, endpoint: str, request: Callable[[], Awaitable[list[Trade]]], name: str
    ) -> list[Trade]:
        if self.session.readonly:
            raise VenueRejected(f"{endpoint}: this client only reads prices and positions", code="read_only")
        return await self._calls.read(endpoint, request, self._leave(True), name=name)

    def _is_ours(self, account: str) -> bool:
        return account in {"", self.session.account}

    async def fills(self, *, since_ns: int) -> Sequence[Fill]:
        """Today's executions of the account, with what they cost or the bound on it, oldest first."""
        executions = await self._calls.read("reqExecutions", self._executions, self._leave(True))
        newest: dict[str, Execution] = {}
        for execution in sorted(executions, key=lambda one: one.execution.execId):
            if is_leg(execution) and self._is_ours(execution.execution.acctNumber):
                newest[trade_id(execution.execution.execId)] = execution
        await self._costs(newest.values())
        found = [self._filled(execution) for execution in newest.values()]
        return sorted((fill for fill in found if fill.ts_ns >= since_ns), key=lambda fill: fill.ts_ns)

    def _executions(self) -> Awaitable[list[Execution]]:
        wanted = load().ExecutionFilter(acctCode=self.session.account)
        asked: Awaitable[list[Execution]] = self._ib.reqExecutionsAsync(wanted)
        return asked

    async def _costs(self, executions: Iterable[Execution]) -> None:
        """Wait a little for commission reports: they follow the executions, also those of a replay."""
        waiting = [one for one in executions if self._cost(one) is None]
        try:
            async with asyncio.timeout(self._cost_wait_secs):
                while any(self._cost(one) is None for one in waiting) and self.session.is_up:
                    await self.session.moved()
        except TimeoutError:
            return

    def _cost(self, execution: Execution) -> MoneyE6 | None:
        """What is known of its cost: a report reaches only the library's first copy of an execution."""
        known = fee_of(execution)
        if known is None:
            first = self._ib.wrapper.fills.get(execution.execution.execId)
            known = fee_of(first) if first is not None else None
        return known

    def _filled(self, execution: Execution) -> Fill:
        cost = self._cost(execution)
        try:
            if cost is None:
                bounded: Fill = self._feed.at_bound(execution)
                return bounded
            return fill_of(execution, ticker_of(execution.contract), cost)
        except BadInput as error:
            raise VenueAnswerUnknown(f"reqExecutions: {error}") from error

    async def positions(self) -> dict[str, QtyE2]:
        """Signed contracts or shares by ticker, without flat ones."""
        held: list[Position] = await self._calls.read(
            "reqPositions", self._ib.reqPositionsAsync, self._leave(True), name="positions"
        )
        totals: dict[str, QtyE2] = {}
        for one in held:
            if one.account == self.session.account:
                name = ticker_of(one.contract)
                try:
                    totals[name] = QtyE2(totals.get(name, 0) + qty_e2(one.position))
                except BadInput as error:
                    raise VenueAnswerUnknown(f"reqPositions: {error} (ticker={name})") from error
        return {name: qty for name, qty in totals.items() if qty}

    async def balance(self) -> MoneyE6:
        """Cash in the account, as of the gateway's last word on it: it speaks after trades and every three minutes."""
        return await self._value("TotalCashValue")

    async def buying_power(self) -> MoneyE6:
        """What new positions may still bind of the account's equity."""
        return await self._value("AvailableFunds")

    async def _value(self, tag: str) -> MoneyE6:
        async def read() -> list[AccountValue]:
            values: list[AccountValue] = self._ib.accountValues(self.session.account)
            return values

        values = await self._calls.read("accountValues", read, self._leave(True), tag=tag)
        by_currency = {one.currency: one.value for one in values if one.tag == tag}
        if "USD" in by_currency:
            return _dollars(by_currency["USD"])
        if not by_currency:
            raise VenueAnswerUnknown(f"accountValues: the gateway has not told {tag} yet")
        told = ", ".join(sorted(by_currency))
        raise VenueRejected(
            f"accountValues: {tag} is told in {told}",
            code="currency",
            hint="only accounts kept in US dollars are supported",
        )

    # Contracts and prices -----------------------------------------------------------------------------

    async def instrument(self, ticker: str, *, regardless: bool = False) -> Instrument:
        """One contract's rules as they stand now."""
        return (await self._directory.describe(ticker, regardless=regardless)).instrument

    async def chain(self, underlying: str, *, expiry: int = 0) -> list[str]:
        """Tickers of the option contracts on a stock that SMART lists; with *expiry* (yyyymmdd) of that day alone.

        The gateway tells days and strikes apart: not every pair of them is listed.

        Raises:
            VenueError: They could not be read.
        """
        described = await self._directory.describe(underlying)
        return await self._chain(described, expiry)

    async def _chain(self, described: Listed, expiry: int) -> list[str]:
        from holdfast.core.options import Right, option_ticker  # noqa: PLC0415  its only use here
        from holdfast.venues.ib.contracts import price_e4  # noqa: PLC0415

        contract = described.contract
        if contract is None:
            raise VenueRejected("a combination has no chain", code="not_found", status=404)
        chains = await self._calls.read(
            "reqSecDefOptParams",
            lambda: self._ib.reqSecDefOptParamsAsync(contract.symbol, "", contract.secType, contract.conId),
            self._leave(False),
        )
        names: set[str] = set()
        for one in chains:
            days = [int(day) for day in one.expirations if not expiry or int(day) == expiry]
            strikes = [price for strike in one.strikes if (price := price_e4(strike)) is not None]
            if one.exchange == "SMART":
                names |= {
                    option_ticker(one.tradingClass, day, right, strike)
                    for day in days
                    for strike in strikes
                    for right in Right
                }
        return sorted(names)

    async def book(self, ticker: str) -> Book:
        """The best prices of one contract, from its subscription or a short one of its own."""
        permit = self._leave(False)
        since_ns = self._clock.monotonic_ns()

        async def request() -> Book:
            await self.session.ensure()
            await self._feed.line(ticker)
            while (found := self._feed.book(ticker, since_ns)) is None:
                refused = self._feed.refused.get(ticker)
                if refused is not None:
                    raise VenueRejected(
                        f"reqMktData: {refused}", code=str(refused.code), hint=RULES[Kind.NO_DATA].hint
                    )
                if not self.session.is_up:
                    raise VenueUnreachable(f"reqMktData: {self.session.why_not}")
                await self.session.moved()
            return found

        try:
            return await self._calls.read("reqMktData", request, permit, contract=ticker)
        finally:
            if not self._feed.is_wanted(ticker):
                self._feed.unfollow(ticker)

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


def numbers_reserved(records: Iterable[Record]) -> int:
    """The number from which a new run's orders may be numbered: above everything this journal reserved."""
    below = 1
    for record in records:
        if record.type == "API_CALL" and record.details.get("api") == API:
            below = max(below, record.details.get("numbers_below", 1))
    return below


def _is_same_order(one: VenueOrder, wanted: VenueOrder) -> bool:
    """The same order, or another one under its reference."""
    same_name = bool(wanted.client_order_id) and one.client_order_id == wanted.client_order_id
    return same_name or one.order_id == wanted.order_id


def _once_each(listed: Iterable[_Listed]) -> list[_Listed]:
    """One of each number: a cancel names the client's number of an order."""
    return list({(one.trade.order.clientId, one.trade.order.orderId): one for one in listed}.values())


def _is_cancel_answered(trade: Trade, heard: Sequence[Heard]) -> bool:
    return trade.orderStatus.status in ENDED or any(said.kind is Kind.NOT_CANCELABLE for said in heard)


def _as_ended(trade: Trade) -> Trade:
    """A completed order that is told as Inactive has ended: the list of completed ones has nothing else."""
    if trade.orderStatus.status == "Inactive":
        trade.orderStatus.status = "Cancelled"
    return trade


def _dollars(text: str) -> MoneyE6:
    """A number of the gateway's; its word for unset, or no number at all, is none.

    Raises:
        VenueAnswerUnknown: It is none.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or abs(value) > 10**15:
        raise VenueAnswerUnknown(f"the gateway's {text[:40]!r} is no amount of dollars")
    return MoneyE6(int(value * 1_000_000))
