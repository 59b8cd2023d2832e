"""An execution that its venue corrects: booked anew, beside an opposite fill that undoes what was booked before.

Promise: position and cash are those of the newest telling, once, in whatever order the tellings come and however
often; the journal keeps all of them, and says so with the alarm `execution_corrected`.

Limits: the order that executed, and what a desk holds by it, count its first telling: where a correction changes how
much was filled, the alarm shows both quantities, and a person decides about the rest. What a structure was opened at,
and so its stop, stays as first told. What was traded before a journal's first start is in its opening position, and is
not corrected.
"""

from __future__ import annotations

import msgspec

from holdfast.core.money import MoneyE6, format_price, format_qty
from holdfast.core.orders import CORRECTED, Fill
from holdfast.core.signals import BookSide
from holdfast.execution.ledger import Ledger
from holdfast.risk.claims import UNDONE
from holdfast.risk.trades import trade_details


def correct(ledger: Ledger, fill: Fill) -> bool:
    """Book *fill* in the place of an earlier telling of its execution; True where it corrects one."""
    before = ledger.account.telling(fill.trade_id)
    if before is None or fill.revision <= before.revision or _terms(fill) == _terms(before):
        return False
    undone = msgspec.structs.replace(
        before,
        trade_id=f"{fill.trade_id}{CORRECTED}{fill.revision}{UNDONE}{before.revision}",
        order_id="",
        side=BookSide.ASK if before.side is BookSide.BID else BookSide.BID,
        fee=MoneyE6(-before.fee),
        revision=0,
    )
    anew = msgspec.structs.replace(fill, trade_id=f"{fill.trade_id}{CORRECTED}{fill.revision}")
    order = ledger.account.by_venue_id(fill.order_id)
    is_external = order is None or order.external
    name = "" if order is None or order.external else order.client_order_id
    ledger.note("TRADE", trade_details(undone, client_order_id="", external=True))
    ledger.note("TRADE", trade_details(anew, client_order_id=name, external=is_external))
    ledger.alarm(
        "execution_corrected",
        format_price(fill.price),
        format_price(before.price),
        trade_id=fill.trade_id,
        ticker=fill.ticker,
        client_order_id=name,
        quantity=format_qty(fill.qty),
        quantity_before=format_qty(before.qty),
    )
    return True


def _terms(fill: Fill) -> tuple[object, ...]:
    return fill.ticker, fill.side, fill.price, fill.qty, fill.fee, fill.multiplier
