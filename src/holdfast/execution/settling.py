"""Waiting for an order: until it has ended and its fills are booked, or rests acknowledged.

Limits: time-outs are wall time; whoever waits is woken by every note of the ledger.
"""

from __future__ import annotations

import asyncio

from holdfast.core.orders import OrderStatus
from holdfast.core.signals import TimeInForce
from holdfast.execution.ledger import Ledger


async def wait_settled(ledger: Ledger, name: str, *, timeout_secs: float) -> bool:
    """Wait until the order has ended and its fills are booked, or rests acknowledged (GTC); False in vain."""
    try:
        async with asyncio.timeout(timeout_secs):
            while not is_settled(ledger, name):
                await ledger.changed()
    except TimeoutError:
        return is_settled(ledger, name)
    return True


def is_settled(ledger: Ledger, name: str) -> bool:
    """Whether nothing of the order is waited for; an order that nobody knows is none."""
    order = ledger.account.orders.get(name)
    if order is None or order.status.is_closed:
        return True
    rests = order.tif is TimeInForce.GTC and order.status is OrderStatus.WORKING
    return rests and name not in ledger.claims
