"""Cancelling: always tried, whatever the state, the breaker or the journal.

    cancel(name)        one order; what the cancel answers is advice, the venue's books say how the order ended
    cancel_all_own()    every open order of this journal
    hunt_zombies()      orders that were declared gone and live, again and again until they have ended

An order that the venue's books do not show cannot be cancelled yet: the wish is written down, and holds through a
restart. Until they show it, it stays as it is, with all that it reserves.
"""

from __future__ import annotations

from holdfast.core.errors import BadInput
from holdfast.core.orders import OrderEvent
from holdfast.execution.ledger import Ledger
from holdfast.execution.lost_orders import LostOrders
from holdfast.execution.tries import Tries, quietly
from holdfast.execution.venue import (
    AlreadyClosed,
    CancelAnswer,
    Canceled,
    NotSent,
    Unknown,
    Venue,
)
from holdfast.risk.order import Order


class Cancelling:
    """See the head of this file.

    Args:
        venue: Who is asked.
        ledger: Where what it says goes.
        lost: Finds an order whose id at the venue is not known.
        tries: When a zombie is cancelled again.
    """

    def __init__(self, venue: Venue, ledger: Ledger, *, lost: LostOrders, tries: Tries) -> None:
        self._venue = venue
        self._ledger = ledger
        self._account = ledger.account
        self._lost = lost
        self._tries = tries

    async def cancel(self, name: str) -> CancelAnswer:
        """Cancel one of the account's orders by its client order id; always tried.

        One that is on its way or UNKNOWN, and not found yet, is canceled as soon as it is; it goes nowhere again.

        Raises:
            BadInput: No such order.
        """
        order = self._account.orders.get(name)
        if order is None:
            raise BadInput(f"no order {name!r} in this journal")
        if not order.order_id:
            await self._lost.look_up(order)
            self._withdraw(order)
        answer = await self._cancel(order)
        await self._ledger.write()
        return answer

    def _withdraw(self, order: Order) -> None:
        """Write down that *order* is to be canceled once the venue's books show it."""
        if order.is_open and not order.order_id and not order.withdrawn:
            self._ledger.happened(order, OrderEvent.WITHDRAWN, evidence="canceled before it was found")

    async def _cancel(self, order: Order) -> CancelAnswer:
        if not order.is_open:
            return AlreadyClosed()
        if not order.order_id:
            return Unknown(reason="not found at the venue yet")
        await self._ledger.about_to_cancel(order)
        answer = await self._venue.cancel(order_id=order.order_id, ticker=order.ticker)
        await self._canceled(order, answer)
        return answer

    async def _canceled(self, order: Order, answer: CancelAnswer) -> None:
        if isinstance(answer, NotSent):
            return
        if isinstance(answer, Unknown):
            self._ledger.happened(order, OrderEvent.ANSWER_LOST, reason=answer.reason, evidence="cancel")
            return
        # What a cancel answers is advice; the venue's books say how the order ended.
        listed = await quietly(self._venue.order(order.order_id))
        if listed is not None:
            await self._lost.read_legs(order)
            self._ledger.saw_order(listed, evidence="read after cancel")
        elif isinstance(answer, Canceled) and answer.released >= order.leaves:
            self._ledger.happened(order, OrderEvent.CANCELED, evidence="cancel answer")
        elif order.is_open:
            self._ledger.happened(
                order, OrderEvent.ANSWER_LOST, reason="canceled or closed", evidence="cancel"
            )

    async def cancel_all_own(self) -> list[Order]:
        """Cancel every open order of this journal, oldest first; returns those still open afterwards."""
        for order in self._account.open_orders():
            if not order.external:
                await self.cancel(order.client_order_id)
        return [order for order in self._account.open_orders() if not order.external]

    async def hunt_zombies(self) -> None:
        """Cancel every order that was declared gone and lives, or was not known there when it was canceled."""
        for name in list(self._ledger.zombies):
            order, what = self._account.orders.get(name), f"zombie {name}"
            if order is not None and order.is_open and self._tries.is_due(what):
                await self.cancel(name)
            if order is None or not order.is_open:  # it ended, or could not even be written down
                self._ledger.zombies.pop(name, None)
                self._tries.forget(what)
