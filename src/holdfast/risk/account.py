"""One venue account as a fold over its journal: orders, positions, cash, the session, the state.

`Account.apply(record_type, details)` is how state changes, live and at replay alike, so that replaying the
journal gives the same account. Beside it the gate alone holds back quantity in memory (`reserve`) in the
moment it admits an order, before the order's own record is durable, and gives it back (`forget`) when
that record could not be written.

What holds at every moment:

    order      filled + leaves + released = quantity, of every leg too: risk/order.py
    market     working buys and sells = the leaves of all orders not closed, UNKNOWN ones in full
    plan       what is reserved for the legs that no order of a legged structure asks for yet, `plans`
    position   the opening position + the sum of fills, each once by trade id, external ones too; one that its venue
               corrects is undone by an opposite fill and booked anew, and its order counts it as at first
    cash       opening cash + what fills, fees, settlements and deposits moved; selling YES earns its price and
               owes a dollar on "yes", so a NO contract's collateral counts as cash

An acknowledgement's fill count is a claim: its quantity stays reserved until the fills themselves arrive.
The opening position comes from the first SESSION_OPEN of a journal: what the venue said before we began.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from holdfast.core.errors import IllegalTransition
from holdfast.core.money import (
    ONE_DOLLAR_E4,
    MoneyE6,
    QtyE2,
    format_qty,
    parse_money,
    parse_price,
    parse_qty,
)
from holdfast.core.options import is_combo, parse_combo_ticker
from holdfast.core.orders import CORRECTED, Fill, OrderEvent, OrderStatus
from holdfast.core.positions import Portfolio
from holdfast.core.signals import BookSide, TimeInForce
from holdfast.risk.claims import Claims
from holdfast.risk.halt import Holds
from holdfast.risk.order import Order, status_after
from holdfast.risk.plans import Plans
from holdfast.risk.rolling import RollingValue
from holdfast.risk.trades import read_trade

_NOTHING = QtyE2(0)
_FREE = MoneyE6(0)
_IDLE = (_NOTHING, _NOTHING)
_BID = BookSide.BID


class Session(msgspec.Struct, frozen=True):
    """The trading day that daily P&L counts from: its name and the account's whole value at its open."""

    name: str
    opened_ns: int
    value: MoneyE6


class Denial(msgspec.Struct, frozen=True):
    """The recorded refusal of a keyed intent."""

    content: str
    reason: str


class Account:
    """The state of one account.

    Attributes:
        lock: Held for every change and by the gate from check to reservation; re-entrant.
        orders: By client order id, oldest first.
        portfolio: Positions and cash.
        holds: The trading state.
        session: None until the day's opening value is recorded.
        deposits: Net, since the session opened.
        rolling: What the account was worth over the last day.
        open_value: What the day's P&L counts from: the session's value plus deposits; None before a session.
        moves: How often positions changed.
        results: Settled markets and what they paid on.
        decisions: Number of the newest decision.
        last_fill_ns: Venue time of the newest fill known; 0 before any.
        runs: How often a trader has started on this journal.
        plans: What is reserved for the steps of legged orders that are still to come.
        reserved: Dollars set aside for all open orders of ours.
        claims: Endings of options that nobody told.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.claims = Claims()
        self.orders: dict[str, Order] = {}
        self.portfolio = Portfolio()
        self.holds = Holds()
        self.session: Session | None = None
        self.deposits = _FREE
        self.open_value: MoneyE6 | None = None
        self.moves = 0
        self.rolling = RollingValue()
        self._deposited = _FREE
        self.results: dict[str, str] = {}
        self.decisions = 0
        self.runs = 0
        self.last_fill_ns = 0
        self.reserved = _FREE
        self.plans = Plans()
        self._open: dict[str, Order] = {}
        self._working: dict[str, tuple[QtyE2, QtyE2]] = {}
        self._by_venue_id: dict[str, str] = {}
        self._denials: dict[str, Denial] = {}
        self._counted: frozenset[str] = frozenset()
        self._tellings: dict[str, Fill] = {}
        self._folds: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "ORDER": self._apply_order,
            "ORDER_UPDATE": self._apply_update,
            "TRADE": self._apply_trade,
            "SETTLEMENT": self._apply_settlement,
            "DEPOSIT": self._apply_deposit,
            "VALUATION": self._apply_valuation,
            "SESSION_OPEN": self._apply_session,
            "STATE": self.holds.apply,
            "DECISION": self._apply_decision,
            "RECONCILE": self._apply_reconcile,
            "PLAN": self._apply_plan,
        }

    # What is known ------------------------------------------------------------------------------------

    def working(self, ticker: str) -> tuple[QtyE2, QtyE2]:
        """Open quantity that buys and that sells *ticker*'s YES leg, UNKNOWN and external orders included."""
        return self._working.get(ticker, _IDLE)

    def committed(self, ticker: str, *, but: str = "") -> tuple[QtyE2, QtyE2]:
        """What works in *ticker*, and what plans other than *but* will still order of it."""
        buys, sells = self.working(ticker)
        more_buys, more_sells = self.plans.planned(ticker, but=but)
        return QtyE2(buys + more_buys), QtyE2(sells + more_sells)

    def open_orders(self) -> list[Order]:
        """Every order not known to have ended, oldest first."""
        return list(self._open.values())

    def by_venue_id(self, order_id: str) -> Order | None:
        """The order that the venue knows under *order_id*."""
        name = self._by_venue_id.get(order_id)
        return self.orders.get(name) if name else None

    def has_fill(self, trade_id: str) -> bool:
        """Whether this trade already counts, as a fill or in the opening position."""
        return trade_id in self._counted or self.portfolio.has_fill(trade_id)

    def telling(self, trade_id: str) -> Fill | None:
        """The newest telling booked of an execution that its venue may correct."""
        return self._tellings.get(trade_id)

    def denial(self, client_order_id: str) -> Denial | None:
        """How a keyed intent was refused earlier."""
        return self._denials.get(client_order_id)

    def snapshot(self) -> dict[str, Any]:
        """All of it as plain values: equal accounts have equal snapshots."""
        with self.lock:
            return {
                "orders": {
                    name: msgspec.structs.asdict(order) for name, order in sorted(self.orders.items())
                },
                "positions": dict(sorted(self.portfolio.positions.items())),
                "cash": self.portfolio.cash,
                "working": {ticker: pair for ticker, pair in sorted(self._working.items()) if any(pair)},
                "reserved": self.reserved,
                "holds": self.holds.snapshot(),
                "session": self.session,
                "deposits": self.deposits,
                "rolling": self.rolling.snapshot(),
                "results": dict(sorted(self.results.items())),
                "decisions": self.decisions,
                "runs": self.runs,
                "claims": self.claims.snapshot(),
                "denials": dict(sorted(self._denials.items())),
                "tellings": {name: fill.revision for name, fill in sorted(self._tellings.items())},
                "plans": {name: plan.snapshot() for name, plan in sorted(self.plans.live.items())},
            }

    def gain_over_a_day(self, worth: MoneyE6, now_ns: int) -> MoneyE6 | None:
        """What an account now worth *worth* gained in 24 hours, deposits taken out; None before any valuation."""
        base = self.rolling.base(now_ns)
        return None if base is None else MoneyE6(worth - self._deposited - base)

    # What changes it ----------------------------------------------------------------------------------

    def apply(self, record_type: str, details: Mapping[str, Any]) -> None:
        """Take over one journal record; types that do not concern the account pass.

        Raises:
            IllegalTransition: The record contradicts the state, for instance an update of an unknown order.
        """
        fold = self._folds.get(record_type)
        if fold is not None:
            with self.lock:
                fold(details)

    def reserve(self, order: Order) -> None:
        """Hold back *order*'s quantity and dollars; only the gate calls this, under `lock`."""
        name = order.client_order_id
        if name in self.orders:
            raise IllegalTransition(f"order {name!r} is already reserved")
        self.orders[name] = self._open[name] = order
        if order.plan and order.plan in self.plans.live:
            self.plans.live[order.plan].orders.append(order)
        if order.legs:
            order.leg_filled = (0,) * len(order.legs)
            self._work_legs(order, 1)
        else:
            # A new order is open and nothing of it is filled or released: its leaves are its quantity.
            self._work(order, order.quantity, order.reserved)

    @contextmanager
    def without(self, order: Order) -> Generator[None]:
        """The account as if *order*, which is open, were not there: for judging it anew, under `lock`."""
        kept, plan = self._open, self.plans.live.get(order.plan)
        own = [] if plan is None else plan.orders
        self._count(order, -1)
        self._open = {name: other for name, other in kept.items() if other is not order}
        if plan is not None:
            plan.orders = [other for other in own if other is not order]
        try:
            yield
        finally:
            if plan is not None:
                plan.orders = own
            self._count(order, 1)
            self._open = kept

    def forget(self, client_order_id: str) -> None:
        """Give back a reservation whose ORDER record could not be written: it never became an order."""
        with self.lock:
            order = self.orders[client_order_id]
            if order.status is not OrderStatus.PENDING:
                raise IllegalTransition(
                    f"order {client_order_id!r} is {order.status.value!r}, not a mere reservation"
                )
            self._count(order, -1)
            del self.orders[client_order_id], self._open[client_order_id]
            if order.plan in self.plans.live:
                self.plans.live[order.plan].orders.remove(order)

    def update(
        self,
        client_order_id: str,
        event: OrderEvent,
        *,
        order_id: str = "",
        released: QtyE2 | None = None,
        reason: str = "",
        evidence: str = "",
    ) -> dict[str, Any]:
        """The details of the ORDER_UPDATE record by which *event* happens; nothing changes until `apply`.

        Args:
            client_order_id: Of an order of this account.
            event: What happened.
            order_id: The venue's id, when it became known.
            released: All that can no longer execute so far; None leaves it, an end releases what is left.
            reason: Why, one code or sentence.
            evidence: Who said so.

        Raises:
            IllegalTransition: The table does not know the pair.
        """
        order = self.orders[client_order_id]
        status = status_after(order.status, event)
        if event is OrderEvent.ZOMBIE:
            gone = _NOTHING
        elif status.is_closed:
            gone = QtyE2(order.quantity - order.filled)
        else:
            gone = order.released if released is None else released
        return {
            "client_order_id": client_order_id,
            "order_id": order_id or order.order_id,
            "event": event.value,
            "status": status.value,
            "filled": format_qty(order.filled),
            "leaves": format_qty(QtyE2(order.quantity - order.filled - gone)),
            "released": format_qty(gone),
            "reason": reason,
            "evidence": evidence,
        }

    # The folds ----------------------------------------------------------------------------------------

    def _apply_order(self, details: Mapping[str, Any]) -> None:
        name = details["client_order_id"]
        if name in self.orders:  # reserved by the gate a moment ago
            return
        order = Order(
            client_order_id=name,
            ticker=details["ticker"],
            side=BookSide(details["book_side"]),
            quantity=parse_qty(details["quantity"]),
            yes_price=parse_price(details["yes_price"]),
            key=details["intent"],
            strategy=details["strategy"],
            content=details["content"],
            tif=TimeInForce(details["tif"]),
            expiration_ns=details["expiration_ns"] or 0,
            reserved=parse_money(details["reserved"]),
            created_ns=details["created_ns"],
            decision=details["decision"],
            legs=tuple((ticker, ratio) for ticker, ratio in details.get("legs", ())),
            multiplier=details.get("multiplier", 1),
            plan=details.get("plan", ""),
        )
        self.reserve(order)

    def _apply_update(self, details: Mapping[str, Any]) -> None:
        name = details["client_order_id"]
        if details["event"] == "adopted":
            self._adopt(details)
            return
        order = self.orders.get(name)
        if order is None:
            raise IllegalTransition(f"record of event {details['event']!r} for an unknown order {name!r}")
        status = status_after(order.status, OrderEvent(details["event"]))
        released = parse_qty(details["released"])
        if released + order.filled > order.quantity:
            raise IllegalTransition(
                f"order {name!r} of {format_qty(order.quantity)} cannot have {details['released']} released "
                f"beside {format_qty(order.filled)} filled"
            )
        self._count(order, -1)
        order.status = status
        order.released = released
        order.reason = details["reason"] or order.reason
        order.resent += details["event"] == OrderEvent.RESENT
        order.withdrawn |= details["event"] == OrderEvent.WITHDRAWN
        if details["order_id"]:
            order.order_id = details["order_id"]
            self._by_venue_id[order.order_id] = name
        self._count(order, 1)

    def _adopt(self, details: Mapping[str, Any]) -> None:
        name = details["order_id"]
        known = self.orders.get(name)
        if known is not None:  # its owner made it larger
            self._count(known, -1)
            known.quantity = QtyE2(known.released + parse_qty(details["leaves"]))
            known.status = OrderStatus.WORKING
            self._count(known, 1)
            return
        order = Order(
            client_order_id=name,
            ticker=details["ticker"],
            side=BookSide(details["side"]),
            quantity=parse_qty(details["leaves"]),
            yes_price=parse_price(details["yes_price"]),
            tif=TimeInForce.GTC,
            order_id=name,
            status=OrderStatus.WORKING,
            external=True,
            legs=parse_combo_ticker(details["ticker"]) if is_combo(details["ticker"]) else (),
            multiplier=details.get("multiplier", 1),
        )
        self._by_venue_id[name] = name
        self.reserve(order)

    def _apply_trade(self, details: Mapping[str, Any]) -> None:
        fill = read_trade(details)
        if self.has_fill(fill.trade_id):
            return
        self.portfolio.apply_fill(fill)
        self.moves += 1
        self.claims.moved(fill)
        if not self.claims.is_claim(fill.trade_id):  # the venue told no fill up to then
            self.last_fill_ns = max(self.last_fill_ns, fill.ts_ns)
        name, corrected, _ = fill.trade_id.partition(CORRECTED)
        if fill.revision:
            self._tellings[name] = fill
        if corrected:  # its order counted the first telling
            return
        order = self.by_venue_id(fill.order_id) or self.orders.get(fill.client_order_id)
        # Of an external order the venue's listing alone says what is still open.
        if order is None or order.external or not order.can_own(fill):
            return
        self._count(order, -1)
        order.take(fill)
        if not order.order_id and fill.order_id:
            order.order_id = fill.order_id
            self._by_venue_id[fill.order_id] = order.client_order_id
        self._count(order, 1)

    def _apply_settlement(self, details: Mapping[str, Any]) -> None:
        self.portfolio.apply_settlement(details["ticker"], details["result"])
        self.moves += 1
        self.results[details["ticker"]] = details["result"]

    def _apply_deposit(self, details: Mapping[str, Any]) -> None:
        amount = parse_money(details["amount"])
        self.portfolio.deposit(amount)
        self.deposits = MoneyE6(self.deposits + amount)
        self._deposited = MoneyE6(self._deposited + amount)
        if self.open_value is not None:
            self.open_value = MoneyE6(self.open_value + amount)

    def _apply_valuation(self, details: Mapping[str, Any]) -> None:
        self.rolling.note(
            details["valued_ns"], MoneyE6(parse_money(details["liquidation"]) - self._deposited)
        )

    def _apply_session(self, details: Mapping[str, Any]) -> None:
        if self.session is None:
            self.portfolio.positions = {
                ticker: parse_qty(qty) for ticker, qty in details["positions"].items() if parse_qty(qty)
            }
            self.portfolio.cash = parse_money(details["cash"])
            self.moves += 1
            self._counted = frozenset(details.get("counted", ()))
            self.last_fill_ns = details.get("newest_fill_ns", 0)
        self.session = Session(details["session"], details["opened_ns"], parse_money(details["liquidation"]))
        self.deposits = _FREE
        self.open_value = self.session.value
        self.rolling.note(self.session.opened_ns, MoneyE6(self.session.value - self._deposited))

    def _apply_decision(self, details: Mapping[str, Any]) -> None:
        self.decisions = max(self.decisions, details["n"])
        name = details["client_order_id"]
        if (
            details["verdict"] == "deny"
            and not details["question"]
            and details["keyed"]
            and name not in self.orders
        ):
            self._denials.setdefault(name, Denial(details["content"], details["reason"]))

    def _apply_reconcile(self, details: Mapping[str, Any]) -> None:
        if details["phase"] == "start" and details["what"] == "run":
            self.runs += 1
        self.claims.noted(details)

    def _apply_plan(self, details: Mapping[str, Any]) -> None:
        self.plans.apply(details)

    def _count(self, order: Order, sign: int) -> None:
        """Add (+1) or take away (-1) an open order's leaves and dollars; called around every change of one."""
        if order.status.is_closed:
            if sign > 0:
                self._open.pop(order.client_order_id, None)
            return
        if order.legs:
            self._work_legs(order, sign)
        else:
            self._work(order, sign * order.leaves, sign * order.worst_case)
        if sign > 0:
            self._open[order.client_order_id] = order

    def _work(self, order: Order, qty: int, dollars: int) -> None:
        """Add to what works on the order's side of its market, 1/100 contract, and to what is reserved, 1e-6 dollar."""
        buys, sells = self._working.get(order.ticker, _IDLE)
        if order.side is _BID:
            self._working[order.ticker] = (QtyE2(buys + qty), sells)
        else:
            self._working[order.ticker] = (buys, QtyE2(sells + qty))
        self.reserved = MoneyE6(self.reserved + dollars)

    def _work_legs(self, order: Order, sign: int) -> None:
        """The same of a combination: each leg works in its own market."""
        for ticker, qty in order.working:
            buys, sells = self._working.get(ticker, _IDLE)
            added = sign * qty
            if qty >= 0:
                self._working[ticker] = (QtyE2(buys + added), sells)
            else:
                self._working[ticker] = (buys, QtyE2(sells - added))
        self.reserved = MoneyE6(self.reserved + sign * order.worst_case)


def collateral(positions: Mapping[str, QtyE2]) -> MoneyE6:
    """What the venue holds for the NO contracts among *positions* and this account counts as cash: a dollar each."""
    return MoneyE6(sum(-qty * ONE_DOLLAR_E4 for qty in positions.values() if qty < 0))
