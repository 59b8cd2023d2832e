"""Orders and executions in the broker's books, as values and rows."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import FillCause
from holdfast.core.signals import BookSide, TimeInForce
from holdfast.venues.broker.matching import Legs


class OrderState(StrEnum):
    """Where an order stands in the broker's books."""

    WORKING = "working"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"


class OrderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An order as asked for.

    Attributes:
        ticker: A contract, a stock, or a combination's name.
        side: A bid buys it, an ask sells it.
        price: Limit of one unit; of a combination the net debit of buying it, of any sign.
        qty: Units, 1/100, whole ones.
        expiration_ns: UTC ns, 0 for never.
    """

    client_order_id: str
    ticker: str
    side: BookSide
    price: PriceE4
    qty: QtyE2
    tif: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    expiration_ns: int = 0


class Refusal(msgspec.Struct, frozen=True):
    """The broker said no.

    Attributes:
        status: As HTTP has it: 400 the order is wrong or cannot be carried, 404 no such thing, 409 the name is taken.
        code: One word.
        details: What about it.
    """

    status: int
    code: str
    details: str = ""


class OrderRow:
    """One order in the books; `filled + leaves + canceled = qty` always.

    Attributes:
        number: 1, 2, 3 ... in order of arrival.
        legs: Ticker and signed ratio of each contract.
        multiplier: Units of the underlying per contract.
        reserved: Buying power set aside for what is left of it, 1e-6 dollar.
        reason: Why it ended without being filled, or "".
    """

    __slots__ = (
        "canceled",
        "created_ns",
        "filled",
        "leaves",
        "legs",
        "multiplier",
        "number",
        "order_id",
        "reason",
        "request",
        "reserved",
        "state",
    )

    def __init__(
        self,
        number: int,
        order_id: str,
        request: OrderRequest,
        legs: Legs,
        *,
        multiplier: int,
        now_ns: int,
    ) -> None:
        self.number = number
        self.multiplier = multiplier
        self.order_id = order_id
        self.request = request
        self.legs = legs
        self.state = OrderState.WORKING
        self.filled = QtyE2(0)
        self.leaves = request.qty
        self.canceled = QtyE2(0)
        self.reserved = MoneyE6(0)
        self.reason = ""
        self.created_ns = now_ns

    @property
    def buys(self) -> bool:
        """Whether it buys its legs as their ratios say."""
        return self.request.side is BookSide.BID

    @property
    def is_combo(self) -> bool:
        """Whether it trades several contracts as one."""
        return len(self.legs) > 1

    def fill(self, units: QtyE2) -> None:
        """*units* executed."""
        self.reserved = MoneyE6(self.reserved * (self.leaves - units) // self.leaves)
        self.filled = QtyE2(self.filled + units)
        self.leaves = QtyE2(self.leaves - units)
        if not self.leaves:
            self.state = OrderState.FILLED

    def end(self, state: OrderState, reason: str) -> None:
        """What is left of it will not execute."""
        self.state, self.reason = state, reason
        self.canceled, self.leaves = self.leaves, QtyE2(0)
        self.reserved = MoneyE6(0)

    def shown(self) -> OrderShown:
        """The order as it stands."""
        return OrderShown(
            order_id=self.order_id,
            client_order_id=self.request.client_order_id,
            ticker=self.request.ticker,
            side=self.request.side,
            price=self.request.price,
            qty=self.request.qty,
            filled=self.filled,
            leaves=self.leaves,
            state=self.state,
            reason=self.reason,
            multiplier=self.multiplier,
            created_ns=self.created_ns,
        )


class OrderShown(msgspec.Struct, frozen=True, kw_only=True):
    """One order as it stood at a moment."""

    order_id: str
    client_order_id: str
    ticker: str
    side: BookSide
    price: PriceE4
    qty: QtyE2
    filled: QtyE2
    leaves: QtyE2
    state: OrderState
    reason: str
    multiplier: int
    created_ns: int


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One movement of one position.

    Attributes:
        exec_id: Unique; legs of one combination's execution have ids of their own.
        order_id, client_order_id: "" where no order caused it.
        side: A bid adds to the position, an ask takes from it.
        price: Per unit of the multiplier.
        cause: A trade, or what became of an option contract.
    """

    exec_id: str
    order_id: str
    client_order_id: str
    ticker: str
    side: BookSide
    price: PriceE4
    qty: QtyE2
    fee: MoneyE6
    multiplier: int
    is_taker: bool
    cause: FillCause
    ts_ns: int
