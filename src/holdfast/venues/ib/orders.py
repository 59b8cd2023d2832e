"""Orders and executions of Interactive Brokers and ours, both ways, as plain functions.

An order carries our client order id as its reference (`orderRef`) and is known by the broker's permanent number
(`permId`), which is our venue order id. The API's own number of an order (`orderId`) serves to cancel it on the
same connection and for nothing else: the gateway hands numbers out again after a restart.

`judge` says what is known of a placement from the status the library shows and the messages heard. The library's
status is not believed where it made it up: it calls every order canceled that an error names, and every order
invalid that a warning names. What cannot be told is `ASK`: the gateway's own list of orders decides.

Limits: limit orders, immediate, fill-or-kill, or resting until a time. An execution finer than 1/10,000 dollar is booked at the price
next to it that is worse for us.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import Enum
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput
from holdfast.core.instruments import InstrumentKind
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import Fill, OrderStatus
from holdfast.core.signals import BookSide, Intent, TimeInForce
from holdfast.execution.venue import Ack, PlaceAnswer, Reject, VenueOrder
from holdfast.venues.ib.contracts import (
    USD,
    Called,
    contracts,
    dollars,
    multiplier_of,
    price_e4,
    qty_e2,
    utc_ns,
)
from holdfast.venues.ib.errors import Heard, OrderSays, classify
from holdfast.venues.ib.library import load

if TYPE_CHECKING:
    from ib_async.objects import Fill as Execution
    from ib_async.order import Order, Trade

ENDED = frozenset({"Filled", "Cancelled", "ApiCancelled"})
"""Statuses after which nothing executes. Inactive is none of them: it may be held, and released later."""
_ACCEPTED = frozenset({"PreSubmitted", "Submitted"})
_TIF = {TimeInForce.IOC: "IOC", TimeInForce.FOK: "FOK", TimeInForce.GTC: "GTC"}
MOST_REF = 40
MOST_COST = 1e9
"""Dollars: beyond it stands the gateway's word for unset, the largest float."""


class Next(Enum):
    """What to do where a placement is not answered yet."""

    WAIT = "wait"
    ASK = "ask"


class Standing(NamedTuple):
    """What the library shows of one order.

    Attributes:
        status: Its word.
        permanent: The broker's number, 0 before it is known.
        filled, total: Units of the order.
        code: Number of the message that made the status, 0 where the gateway's own word did.
    """

    status: str
    permanent: int
    filled: QtyE2
    total: QtyE2
    code: int = 0


def order_of(intent: Intent, *, account: str, number: int) -> Order:
    """What to send for *intent*.

    Raises:
        BadInput: Something that Interactive Brokers cannot be asked for.
    """
    signal = intent.signal
    if intent.instrument.kind is InstrumentKind.BINARY:
        raise BadInput(f"{intent.ticker!r} is an event contract, not one of Interactive Brokers")
    if signal.post_only:
        raise BadInput("post_only orders are not offered by Interactive Brokers")
    if intent.count % 100:
        raise BadInput(f"count {intent.count} /100 is not a whole number of contracts")
    if len(intent.client_order_id) > MOST_REF:
        raise BadInput(
            f"client order id of {len(intent.client_order_id)} characters is longer than {MOST_REF}"
        )
    ends = signal.tif is TimeInForce.GTC and signal.expiration_ns > 0
    made: Order = load().Order(
        orderId=number,
        action="BUY" if intent.book_side is BookSide.BID else "SELL",
        totalQuantity=contracts(intent.count),
        orderType="LMT",
        lmtPrice=dollars(intent.yes_price),
        tif="GTD" if ends else _TIF[signal.tif],
        goodTillDate=_good_till(signal.expiration_ns) if ends else "",
        orderRef=intent.client_order_id,
        account=account,
        outsideRth=False,
        transmit=True,
    )
    if intent.instrument.kind is InstrumentKind.COMBO:
        # All legs or none: the broker guarantees it where it is not told otherwise; said all the same.
        made.smartComboRoutingParams = [load().TagValue("NonGuaranteed", "0")]
    return made


def _good_till(expiration_ns: int) -> str:
    """The second at which a resting order ends, rounded down, in the gateway's notation for UTC."""
    return datetime.fromtimestamp(expiration_ns // NANOS, UTC).strftime("%Y%m%d-%H:%M:%S")


def standing(trade: Trade) -> Standing:
    """What the library shows of *trade*."""
    status = trade.orderStatus
    return Standing(
        status=status.status,
        permanent=trade.order.permId or status.permId,
        filled=qty_e2(status.filled),
        total=qty_e2(trade.order.totalQuantity),
        code=trade.log[-1].errorCode if trade.log else 0,
    )


def judge(now: Standing, heard: Sequence[Heard], tif: TimeInForce, ts_ns: int) -> PlaceAnswer | Next:
    """What is known of a placement; see the head of this file."""
    refusals = [said for said in heard if said.rule.order is OrderSays.REFUSED]
    if now.permanent and now.total and now.filled >= now.total:
        return _ack(now, QtyE2(0), ts_ns)
    if refusals and not now.filled and now.status not in _ACCEPTED:
        return Reject(code=str(refusals[-1].code), message=refusals[-1].text, status=400)
    if now.status in ENDED:
        made_up = now.code and classify(now.code) and _says(now.code) is not OrderSays.ENDED
        return Next.ASK if made_up or not now.permanent else _ack(now, QtyE2(0), ts_ns)
    if now.status in {"Inactive", "ValidationError"}:
        return Next.ASK
    if now.status in _ACCEPTED and now.permanent:
        return _ack(now, QtyE2(now.total - now.filled), ts_ns) if tif is TimeInForce.GTC else Next.WAIT
    doubts = any(said.rule.order is OrderSays.ASK for said in heard)
    return Next.ASK if doubts else Next.WAIT


def _says(code: int) -> OrderSays:
    return Heard(-1, code, "").rule.order


def _ack(now: Standing, remaining: QtyE2, ts_ns: int) -> Ack:
    return Ack(order_id=str(now.permanent), filled=now.filled, remaining=remaining, ts_ns=ts_ns)


def listed_ack(listed: VenueOrder, tif: TimeInForce, ts_ns: int) -> Ack | None:
    """The acknowledgement that a listed order stands for; None where an immediate order still works."""
    if listed.leaves and tif is not TimeInForce.GTC:
        return None
    return Ack(order_id=listed.order_id, filled=listed.filled, remaining=listed.leaves, ts_ns=ts_ns)


def venue_order(trade: Trade, called: Called, *, permanent: int = 0) -> VenueOrder:
    """One order as the gateway lists it."""
    now = standing(trade)
    done = now.filled
    total = QtyE2(max(now.total, done))
    is_ended = now.status in ENDED
    if is_ended:
        # A completed order is told with what was filled and without what was asked.
        claimed = _completed_qty(trade.order.filledQuantity)
        done = QtyE2(max(done, claimed))
        total = QtyE2(max(total, done))
    status = OrderStatus.WORKING
    if is_ended:
        status = OrderStatus.FILLED if now.status == "Filled" else OrderStatus.CANCELED
    return VenueOrder(
        order_id=str(permanent or now.permanent),
        client_order_id=trade.order.orderRef,
        ticker=called.ticker,
        side=BookSide.BID if trade.order.action == "BUY" else BookSide.ASK,
        yes_price=price_e4(trade.order.lmtPrice) or PriceE4(0),
        filled=QtyE2(done),
        leaves=QtyE2(0) if is_ended else QtyE2(total - done),
        initial=total,
        status=status,
        multiplier=called.multiplier,
    )


def _completed_qty(value: float | Decimal) -> QtyE2:
    try:
        return qty_e2(value)
    except BadInput:
        return QtyE2(0)  # the library's word for unset is the largest float


# Executions -------------------------------------------------------------------------------------------


def trade_id(exec_id: str) -> str:
    """The identity of an execution: its id without the revision that a correction raises."""
    return exec_id.rpartition(".")[0] or exec_id


def revision(exec_id: str) -> int:
    """Which telling of an execution it is: the number after the last point of its id."""
    _, point, number = exec_id.rpartition(".")
    return int(number) if point and number.isdecimal() else 1


def is_leg(execution: Execution) -> bool:
    """Whether it moves a position: a combination's own line repeats what its legs' lines say."""
    return execution.contract.secType != "BAG"


def fee_of(execution: Execution) -> MoneyE6 | None:
    """What it cost; None until a commission report in dollars has come."""
    report = execution.commissionReport
    if not report.execId or not abs(report.commission) < MOST_COST or report.currency not in {"", USD}:
        return None
    return MoneyE6(int((Decimal(str(report.commission)) * 1_000_000).to_integral_value(ROUND_CEILING)))


def fill_of(execution: Execution, ticker: str, fee: MoneyE6) -> Fill:
    """One of our fills.

    Raises:
        BadInput: A price or quantity that is no number, or an option without its multiplier.
    """
    said: Any = execution.execution
    side = BookSide.BID if said.side == "BOT" else BookSide.ASK
    return Fill(
        trade_id=trade_id(said.execId),
        order_id=str(said.permId),
        client_order_id=said.orderRef,
        ticker=ticker,
        side=side,
        price=_worse(said.price, side),
        qty=qty_e2(said.shares),
        fee=fee,
        is_taker=said.lastLiquidity != 1,
        ts_ns=utc_ns(said.time),
        multiplier=multiplier_of(execution.contract),
        revision=revision(said.execId),
    )


def _worse(price: float, side: BookSide) -> PriceE4:
    if not isfinite(price):
        raise BadInput(f"execution at the price {price!r}")
    scaled = Decimal(str(price)) * 10_000
    return PriceE4(int(scaled.to_integral_value(ROUND_CEILING if side is BookSide.BID else ROUND_FLOOR)))
