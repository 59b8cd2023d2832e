"""What the gateway lists when it is asked: orders, executions, positions, and the account's values.

Promise: each answer is a whole one or an error. Orders of one number, which fall together in the library, are told
apart by the broker's permanent numbers; a combination's own execution is left out for its legs'; of a corrected
execution the newest revision counts.

Limits: the gateway tells executions and completed orders of the current day.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.core.errors import BadInput, VenueAnswerUnknown, VenueRejected
from holdfast.core.money import MoneyE6, QtyE2
from holdfast.core.orders import Fill
from holdfast.execution.venue import VenueOrder
from holdfast.venues.ib.calls import Calls
from holdfast.venues.ib.contracts import Called, qty_e2, ticker_of
from holdfast.venues.ib.directory import Directory
from holdfast.venues.ib.library import load
from holdfast.venues.ib.orders import ENDED, fee_of, fill_of, is_leg, trade_id, venue_order
from holdfast.venues.permits import Counted

if TYPE_CHECKING:
    from ib_async.objects import AccountValue, Position
    from ib_async.objects import Fill as Execution
    from ib_async.order import Trade


class ListedOrder(NamedTuple):
    """One order in the gateway's lists, and what the library keeps of it."""

    order: VenueOrder
    trade: Trade


class Lists:
    """See the head of this file.

    Args:
        calls, directory: The account's.
        permit: Gives leave to ask; True asks although the breaker is open.
        at_bound: An execution whose cost nobody knows yet, as a fill.
        cost_wait_secs: How long to wait for commission reports, wall time.
    """

    def __init__(
        self,
        calls: Calls,
        directory: Directory,
        *,
        permit: Callable[[bool], Counted],
        at_bound: Callable[[Execution], Fill],
        cost_wait_secs: float,
    ) -> None:
        self.session = calls.session
        self._ib: Any = calls.session.ib
        self._calls = calls
        self._directory = directory
        self._permit = permit
        self._at_bound = at_bound
        self._cost_wait_secs = cost_wait_secs

    async def find(self, fits: Callable[[VenueOrder], bool]) -> VenueOrder | None:
        """The first working order that fits, else the day's completed one."""
        for one in await self.working():
            if fits(one.order):
                return one.order
        return await self.completed(fits)

    async def working(self) -> list[ListedOrder]:
        """Every live order in the gateway's list.

        Orders with one number fall together in the library: the list then holds the same trade several times, and
        only the library's map of permanent numbers still tells them apart.
        """
        trades: list[Trade] = await self._read_orders(
            "reqAllOpenOrders", self._ib.reqAllOpenOrdersAsync, "openOrders"
        )
        times = Counter(id(trade) for trade in trades)
        found: dict[str, ListedOrder] = {}
        for trade in trades:
            called = await self._directory.called(trade.contract)
            numbers = [trade.order.permId]
            if times[id(trade)] > 1:
                known = self._ib.wrapper.permId2Trade.items()
                numbers = sorted({number for number, one in known if one is trade})[-times[id(trade)] :]
            for number in numbers:
                listed = venue_order(trade, called, permanent=number)
                if listed.leaves and self._is_ours(trade.order.account):
                    found[listed.order_id] = ListedOrder(listed, trade)
        return list(found.values())

    async def completed(self, fits: Callable[[VenueOrder], bool]) -> VenueOrder | None:
        """One of the day's ended orders; of several the one that executed most."""
        trades: list[Trade] = await self._read_orders(
            "reqCompletedOrders", lambda: self._ib.reqCompletedOrdersAsync(False), "completedOrders"
        )
        best: VenueOrder | None = None
        for trade in trades:
            if not self._is_ours(trade.order.account) or trade.orderStatus.status not in {*ENDED, "Inactive"}:
                continue
            if not fits(venue_order(trade, Called("", 1))):
                continue
            shown = venue_order(_as_ended(trade), await self._directory.called(trade.contract))
            if best is None or shown.filled > best.filled:
                best = shown
        return best

    async def _read_orders(
        self, endpoint: str, request: Callable[[], Awaitable[list[Trade]]], name: str
    ) -> list[Trade]:
        if self.session.readonly:
            raise VenueRejected(f"{endpoint}: this client only reads prices and positions", code="read_only")
        return await self._calls.read(endpoint, request, self._permit(True), name=name)

    def _is_ours(self, account: str) -> bool:
        return account in {"", self.session.account}

    async def fills(self, since_ns: int) -> list[Fill]:
        """Today's executions of the account, with what they cost or the bound on it, oldest first."""
        executions = await self._calls.read("reqExecutions", self._executions, self._permit(True))
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
                return self._at_bound(execution)
            return fill_of(execution, ticker_of(execution.contract), cost)
        except BadInput as error:
            raise VenueAnswerUnknown(f"reqExecutions: {error}") from error

    async def positions(self) -> dict[str, QtyE2]:
        """Signed contracts or shares by ticker, without flat ones."""
        held: list[Position] = await self._calls.read(
            "reqPositions", self._ib.reqPositionsAsync, self._permit(True), name="positions"
        )
        # A contract that trades while it is listed is told twice: its newest count is its count.
        newest = {one.contract.conId: one for one in held if one.account == self.session.account}
        totals: Counter[str] = Counter()
        for one in newest.values():
            name = ticker_of(one.contract)
            try:
                totals[name] += qty_e2(one.position)
            except BadInput as error:
                raise VenueAnswerUnknown(f"reqPositions: {error} (ticker={name})") from error
        return {name: QtyE2(qty) for name, qty in totals.items() if qty}

    async def value(self, tag: str) -> MoneyE6:
        """One of the account's values in dollars, as of the gateway's last word on it."""

        async def read() -> list[AccountValue]:
            values: list[AccountValue] = self._ib.accountValues(self.session.account)
            return values

        values = await self._calls.read("accountValues", read, self._permit(True), tag=tag)
        by_currency = {one.currency: one.value for one in values if one.tag == tag}
        if "USD" in by_currency:
            return dollars_of(by_currency["USD"])
        if not by_currency:
            raise VenueAnswerUnknown(f"accountValues: the gateway has not told {tag} yet")
        told = ", ".join(sorted(by_currency))
        raise VenueRejected(
            f"accountValues: {tag} is told in {told}",
            code="currency",
            hint="only accounts kept in US dollars are supported",
        )


def _as_ended(trade: Trade) -> Trade:
    """A completed order that is told as Inactive has ended: the list of completed ones has nothing else."""
    if trade.orderStatus.status == "Inactive":
        trade.orderStatus.status = "Cancelled"
    return trade


def dollars_of(text: str) -> MoneyE6:
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
