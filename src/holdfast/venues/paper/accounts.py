"""The account of the paper exchange: cash, positions, orders, fills and what they are worth, as Kalshi counts.

Cash is what Kalshi calls the balance before resting orders: buying YES at p costs p; selling YES one does not
hold is buying NO and costs 1 - p; closing pays the other leg back. A position is the signed YES quantity, never
both legs at once. The balance answered to clients is cash less what resting orders would need if they filled.

Collateral is checked when an order arrives: what it needs beyond the position it closes, plus the fee of one fill
at its limit, against that balance. Orders that close a position need none; where several compete for the same
position, the oldest closes first. Pure: no clock, no I/O. Limit: an order cut into many fills can pay a few
cents more in rounding fees than was checked, so cash may end that much below zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from holdfast.core.fees import BalancePrecision, KalshiFees, OrderFees
from holdfast.core.money import ONE_DOLLAR_E4, MoneyE6, PriceE4, QtyE2, complement
from holdfast.core.signals import Action, BookSide, Side, TimeInForce
from holdfast.venues.paper.matching import SelfTrade

_ZERO_MONEY = MoneyE6(0)
_ZERO_QTY = QtyE2(0)


class OrderState(StrEnum):
    """Kalshi's order states."""

    RESTING = "resting"
    CANCELED = "canceled"
    EXECUTED = "executed"


class OrderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An order as asked for, on either path, normalised to the YES leg.

    Attributes:
        side: Of the YES book.
        named: The outcome it was put in words of; V2 orders are always in words of YES.
        action: Buy or sell that outcome.
        yes_price: Limit, 1/10,000 dollar of YES.
        qty: 1/100 contract.
        expiration_ns: UTC ns, 0 for never.
        max_cost: The most a buy may cost, fees apart, or None.
        self_trade_named: Whether the request named its self-trade prevention (echoed only then).
    """

    ticker: str
    side: BookSide
    named: Side
    action: Action
    yes_price: PriceE4
    qty: QtyE2
    client_order_id: str = ""
    tif: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    reduce_only: bool = False
    self_trade: SelfTrade = SelfTrade.TAKER_AT_CROSS
    self_trade_named: bool = False
    cancel_on_pause: bool = False
    expiration_ns: int = 0
    max_cost: MoneyE6 | None = None


class OrderRow:
    """One order in the books; `filled + leaves + canceled = initial` always.

    Attributes:
        number: 1, 2, 3 ... in order of arrival.
        canceled: What left unexecuted, 1/100 contract.
        taker_cost, maker_cost: Dollars of its own leg paid for (a YES seller's leg is NO), 1e-6.
        taker_fees, maker_fees: Net fees, 1e-6 dollar.
    """

    __slots__ = (
        "canceled",
        "created_ns",
        "fees",
        "filled",
        "initial",
        "leaves",
        "maker_cost",
        "maker_fees",
        "number",
        "order_id",
        "request",
        "state",
        "taker_cost",
        "taker_fees",
        "updated_ns",
        "yes_notional",
    )

    def __init__(
        self, number: int, order_id: str, request: OrderRequest, fees: OrderFees, now_ns: int
    ) -> None:
        self.number = number
        self.order_id = order_id
        self.request = request
        self.fees = fees
        self.state = OrderState.RESTING
        self.initial = request.qty
        self.filled = _ZERO_QTY
        self.leaves = request.qty
        self.canceled = _ZERO_QTY
        self.taker_cost = _ZERO_MONEY
        self.maker_cost = _ZERO_MONEY
        self.taker_fees = _ZERO_MONEY
        self.maker_fees = _ZERO_MONEY
        self.yes_notional = 0
        self.created_ns = now_ns
        self.updated_ns = now_ns

    @property
    def is_open(self) -> bool:
        """Whether it may still execute."""
        return self.state is OrderState.RESTING

    @property
    def own_price(self) -> PriceE4:
        """Limit of the leg it buys: YES for a bid, NO for an ask."""
        return (
            self.request.yes_price
            if self.request.side is BookSide.BID
            else complement(self.request.yes_price)
        )

    def release(self, qty: QtyE2, now_ns: int) -> None:
        """*qty* left the book unexecuted; with nothing left the order is closed."""
        self.leaves = QtyE2(self.leaves - qty)
        self.canceled = QtyE2(self.canceled + qty)
        self.updated_ns = now_ns
        if not self.leaves:
            self.state = OrderState.CANCELED


class FillRow(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of one of our orders.

    Attributes:
        number: 1, 2, 3 ... in order of execution.
        position: Signed YES position after it.
    """

    number: int
    trade_id: str
    order: OrderRow
    ticker: str
    yes_price: PriceE4
    qty: QtyE2
    fee: MoneyE6
    is_taker: bool
    position: QtyE2
    ts_ns: int


class SettlementRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one market paid; counts and costs are those of the held leg, the other one is zero."""

    number: int
    ticker: str
    event_ticker: str
    result: Side
    position: QtyE2
    cost: MoneyE6
    revenue: MoneyE6
    fees: MoneyE6
    ts_ns: int


class Holding:
    """One market of the account.

    Attributes:
        position: Signed YES, 1/100 contract.
        cost: What the held contracts cost, fees apart.
        realized: Profit of closed contracts, fees apart.
        fees: Net fees paid.
        traded: Dollars of bought legs so far.
        volume: Contracts traded.
    """

    __slots__ = ("cost", "fees", "position", "realized", "ticker", "traded", "updated_ns", "volume")

    def __init__(self, ticker: str) -> None:
        self.ticker = ticker
        self.position = _ZERO_QTY
        self.cost = _ZERO_MONEY
        self.realized = _ZERO_MONEY
        self.fees = _ZERO_MONEY
        self.traded = _ZERO_MONEY
        self.volume = _ZERO_QTY
        self.updated_ns = 0

    def book(self, side: BookSide, yes_price: PriceE4, qty: QtyE2, now_ns: int) -> MoneyE6:
        """Move the position; returns what it adds to cash, fees apart."""
        own_price = yes_price if side is BookSide.BID else complement(yes_price)
        held = -self.position * side.sign
        closing = min(max(held, 0), qty)
        opening = qty - closing
        cash = 0
        if closing:
            # The pair of legs is worth a dollar: closing pays one dollar less the price of the leg bought.
            proceeds = closing * (ONE_DOLLAR_E4 - own_price)
            share = self.cost * closing // held
            self.realized = MoneyE6(self.realized + proceeds - share)
            self.cost = MoneyE6(self.cost - share)
            cash += proceeds
        if opening:
            self.cost = MoneyE6(self.cost + opening * own_price)
            cash -= opening * own_price
        self.position = QtyE2(self.position + side.sign * qty)
        self.traded = MoneyE6(self.traded + qty * own_price)
        self.volume = QtyE2(self.volume + qty)
        self.updated_ns = now_ns
        return MoneyE6(cash)

    def settle(self, result: Side, now_ns: int) -> tuple[QtyE2, MoneyE6, MoneyE6]:
        """Close at *result*; returns the position, its cost and the revenue that goes to cash."""
        position, cost = self.position, self.cost
        won = position > 0 if result is Side.YES else position < 0
        revenue = MoneyE6(abs(position) * ONE_DOLLAR_E4 if won else 0)
        self.realized = MoneyE6(self.realized + revenue - cost)
        self.position, self.cost = _ZERO_QTY, _ZERO_MONEY
        self.updated_ns = now_ns
        return position, cost, revenue


class Account:
    """Everything one member owns and has asked for.

    Args:
        user_id: Its uuid.
        cash: Opening balance, 1e-6 dollar.
        precision: Of the balance; fees round to it.
    """

    def __init__(
        self, user_id: str, cash: MoneyE6, precision: BalancePrecision = BalancePrecision.CENT
    ) -> None:
        self.user_id = user_id
        self.cash = cash
        self.precision = precision
        self.orders: dict[str, OrderRow] = {}
        self.fills: list[FillRow] = []
        self.settlements: list[SettlementRow] = []
        self.holdings: dict[str, Holding] = {}
        # By market, oldest first: orders are admitted in the order of their numbers.
        self._open: dict[str, dict[str, OrderRow]] = {}
        # What the open orders of a market need; absent where something changed since it was worked out.
        self._reserved: dict[str, int] = {}
        self._ever: set[str] = set()

    def holding(self, ticker: str) -> Holding:
        """The account's side of one market, made on first use."""
        held = self.holdings.get(ticker)
        if held is None:
            held = self.holdings[ticker] = Holding(ticker)
        return held

    def open_orders(self, ticker: str | None = None) -> list[OrderRow]:
        """Orders that may still execute, of one market or all, oldest first."""
        if ticker is not None:
            return list(self._open.get(ticker, {}).values())
        every = [order for book in self._open.values() for order in book.values()]
        return sorted(every, key=lambda order: order.number)

    def has_client_id(self, client_order_id: str, *, open_only: bool) -> bool:
        """Whether an order with this id is open, or with *open_only* off was ever accepted."""
        if not open_only:
            return client_order_id in self._ever
        return any(
            order.request.client_order_id == client_order_id
            for book in self._open.values()
            for order in book.values()
        )

    def admit(self, order: OrderRow) -> None:
        """Enter an accepted order."""
        self.orders[order.order_id] = order
        self._reserved.pop(order.request.ticker, None)
        self._open.setdefault(order.request.ticker, {})[order.order_id] = order
        if order.request.client_order_id:
            self._ever.add(order.request.client_order_id)

    def forget(self, order: OrderRow) -> None:
        """Take back an order that the book refused after all; its client id is free again."""
        del self.orders[order.order_id]
        self._close(order)
        self._ever.discard(order.request.client_order_id)

    def fill(
        self, order: OrderRow, trade_id: str, yes_price: PriceE4, qty: QtyE2, *, is_taker: bool, now_ns: int
    ) -> FillRow:
        """Book one execution: order, position, cash and fee."""
        side = order.request.side
        self._reserved.pop(order.request.ticker, None)
        held = self.holding(order.request.ticker)
        own_price = yes_price if side is BookSide.BID else complement(yes_price)
        fee = order.fees.add(own_price, qty, buys=True, is_taker=is_taker).net
        self.cash = MoneyE6(self.cash + held.book(side, yes_price, qty, now_ns) - fee)
        held.fees = MoneyE6(held.fees + fee)
        cost = qty * own_price
        if is_taker:
            order.taker_cost = MoneyE6(order.taker_cost + cost)
            order.taker_fees = MoneyE6(order.taker_fees + fee)
        else:
            order.maker_cost = MoneyE6(order.maker_cost + cost)
            order.maker_fees = MoneyE6(order.maker_fees + fee)
        order.yes_notional += yes_price * qty
        order.filled = QtyE2(order.filled + qty)
        order.leaves = QtyE2(order.leaves - qty)
        order.updated_ns = now_ns
        if not order.leaves:
            order.state = OrderState.CANCELED if order.canceled else OrderState.EXECUTED
            self._close(order)
        row = FillRow(
            number=len(self.fills) + 1,
            trade_id=trade_id,
            order=order,
            ticker=order.request.ticker,
            yes_price=yes_price,
            qty=qty,
            fee=fee,
            is_taker=is_taker,
            position=held.position,
            ts_ns=now_ns,
        )
        self.fills.append(row)
        return row

    def release(self, order: OrderRow, qty: QtyE2, now_ns: int) -> None:
        """*qty* of *order* left the book unexecuted."""
        order.release(qty, now_ns)
        self._reserved.pop(order.request.ticker, None)
        if not order.is_open:
            self._close(order)

    def settle(self, ticker: str, event_ticker: str, result: Side, now_ns: int) -> SettlementRow | None:
        """Pay out one market; None where nothing was held and nothing traded."""
        held = self.holdings.get(ticker)
        if held is None:
            return None
        position, cost, revenue = held.settle(result, now_ns)
        self._reserved.pop(ticker, None)
        self.cash = MoneyE6(self.cash + revenue)
        row = SettlementRow(
            number=len(self.settlements) + 1,
            ticker=ticker,
            event_ticker=event_ticker,
            result=result,
            position=position,
            cost=cost,
            revenue=revenue,
            fees=held.fees,
            ts_ns=now_ns,
        )
        self.settlements.append(row)
        return row

    def reserved(self, ticker: str | None = None) -> MoneyE6:
        """What open orders would need if they filled, of one market or of all."""
        tickers = list(self._open) if ticker is None else [ticker]
        for name in tickers:
            if name not in self._reserved:
                self._reserved[name] = self._needed(name, self.open_orders(name))
        return MoneyE6(sum(self._reserved[name] for name in tickers))

    @property
    def available(self) -> MoneyE6:
        """Cash that open orders do not need."""
        return MoneyE6(self.cash - self.reserved())

    def shortfall(self, order: OrderRow, fees: KalshiFees) -> MoneyE6:
        """How much cash *order*, not yet admitted, lacks; 0 or less where it is covered."""
        ticker = order.request.ticker
        extra = self._needed(ticker, [*self.open_orders(ticker), order]) - self.reserved(ticker)
        fee = fees.trade_fee(order.request.yes_price, order.leaves, is_taker=True)
        return MoneyE6(extra + (fee if extra else 0) - self.available)

    def _needed(self, ticker: str, orders: Iterable[OrderRow]) -> int:
        held = self.holdings.get(ticker)
        position = held.position if held is not None else 0
        # What each side may close: a bid closes a short position, an ask a long one.
        closable = {BookSide.BID: max(-position, 0), BookSide.ASK: max(position, 0)}
        needed = 0
        for order in orders:
            side = order.request.side
            closing = min(closable[side], order.leaves)
            closable[side] -= closing
            needed += (order.leaves - closing) * order.own_price
        return needed

    def _close(self, order: OrderRow) -> None:
        self._reserved.pop(order.request.ticker, None)
        book = self._open.get(order.request.ticker)
        if book is not None:
            book.pop(order.order_id, None)
            if not book:
                del self._open[order.request.ticker]
