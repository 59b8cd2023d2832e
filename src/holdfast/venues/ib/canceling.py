"""Cancelling: one order, and whatever else lives under its reference.

Promise: a cancel is always tried, and believed only when the gateway lists the order no more. A modification during a
cut, or a restart of the gateway, may leave two live orders of one reference: all of them are canceled, in rounds,
since the gateway ends one order per number at a time. What the library calls canceled by itself is no evidence.

Limits: an order of another program, or of a person, can be canceled by them alone; it is named and left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import VenueError
from holdfast.core.money import QtyE2
from holdfast.execution.venue import AlreadyClosed, CancelAnswer, Canceled, NotSent, Unknown, VenueOrder
from holdfast.venues.ib.calls import Calls, Outcome
from holdfast.venues.ib.errors import Heard, Kind
from holdfast.venues.ib.lists import ListedOrder, Lists
from holdfast.venues.ib.orders import ENDED
from holdfast.venues.ib.pacing import Message, Pace
from holdfast.venues.permits import Observer

if TYPE_CHECKING:
    from ib_async.order import Trade

CANCEL_ROUNDS = 3


class Canceler:
    """See the head of this file.

    Args:
        calls, lists, pace: The account's.
        guessing: Entered while the library changes statuses by itself.
    """

    def __init__(
        self, calls: Calls, lists: Lists, pace: Pace, *, guessing: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.session = calls.session
        self._ib: Any = calls.session.ib
        self._calls = calls
        self._lists = lists
        self._pace = pace
        self._guessing = guessing

    async def cancel(self, order_id: str) -> CancelAnswer:
        """Cancel one order and whatever else lives under its reference; always tried."""
        outcome = Outcome(facts={"order_id": order_id})
        begun_ns = self._calls.begun_ns()
        try:
            answer = await self._cancel(order_id, outcome)
        finally:
            self._calls.settle(Observer(self._calls.breaker), outcome)
            await self._calls.record("cancelOrder", "CANCEL", outcome, begun_ns)
        return answer

    async def _cancel(self, order_id: str, outcome: Outcome) -> CancelAnswer:
        if self.session.readonly:
            outcome.refused("this client only reads")
            return NotSent(reason=outcome.error)
        wanted: ListedOrder | None = None
        sent = False
        for _ in range(CANCEL_ROUNDS):
            try:
                working = await self._lists.working()
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
        if order.clientId != self.session.client_id or order.orderId <= 0:
            who = f"API client {order.clientId}" if order.orderId > 0 else "a person at the gateway"
            outcome.refused(f"order {order.permId} belongs to {who}, who alone can cancel it")
            return NotSent(reason=outcome.error)
        if not self.session.is_up or not self._pace.take(Message.CANCEL):
            outcome.lost(self.session.why_not or "message pace: too many cancels in a second")
            return NotSent(reason=outcome.error)
        heard = self.session.listen(order.orderId)
        connection = self.session.connections
        with self._guessing():
            self._ib.cancelOrder(order)
        try:
            async with asyncio.timeout(self._calls.timeout_secs):
                while not _is_cancel_answered(trade, heard):
                    if not self.session.is_same(connection):
                        outcome.lost(f"sent, then {self.session.why_not or 'connected anew'}")
                        return Unknown(reason=outcome.error)
                    await self.session.moved()
        except TimeoutError:
            outcome.lost(f"no answer within {self._calls.timeout_secs:g} s")
            return Unknown(reason=outcome.error)
        finally:
            self.session.unlisten(order.orderId)
        return None

    async def _ended(self, wanted: ListedOrder | None, outcome: Outcome) -> CancelAnswer:
        """How the order ended that is in no list of working ones any more."""
        if wanted is None:
            return AlreadyClosed()
        try:
            listed = await self._lists.completed(lambda one: one.order_id == wanted.order.order_id)
        except VenueError as error:
            outcome.lost(str(error))
            return Unknown(reason=outcome.error)
        outcome.answered()
        ended = listed or wanted.order
        released = QtyE2(ended.initial - ended.filled)
        return Canceled(released=released) if listed is not None and released else AlreadyClosed()


def _is_same_order(one: VenueOrder, wanted: VenueOrder) -> bool:
    """The same order, or another one under its reference."""
    same_name = bool(wanted.client_order_id) and one.client_order_id == wanted.client_order_id
    return same_name or one.order_id == wanted.order_id


def _once_each(listed: Iterable[ListedOrder]) -> list[ListedOrder]:
    """One of each number: a cancel names the client's number of an order."""
    return list({(one.trade.order.clientId, one.trade.order.orderId): one for one in listed}.values())


def _is_cancel_answered(trade: Trade, heard: Sequence[Heard]) -> bool:
    return trade.orderStatus.status in ENDED or any(said.kind is Kind.NOT_CANCELABLE for said in heard)
