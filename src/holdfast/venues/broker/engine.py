"""The paper broker without its sockets: quotes, one account, and what every request and every minute leads to.

Pure but for its own state: no I/O, no clock (market time is an argument), no randomness beyond what the seed draws.
Equal feeds and equal requests at equal market times lead to equal answers, ids included. Whoever drives it takes what
happened from `drain()` after each call, in order.

An order trades at once against the quote of the last closed minute, if its limit reaches the executable side; what
rests trades when a later quote reaches its limit, at that quote, oldest order first. Before each execution the
account must still be able to carry it. A combination executes whole units at once and is booked leg by leg.

Limits: one account; whole contracts and shares; no orders of our own trade with each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from holdfast.core.errors import BadInput
from holdfast.core.money import MoneyE6, PriceE4, QtyE2, format_money, format_price
from holdfast.core.options import is_combo, parse_combo_ticker
from holdfast.core.orders import FillCause
from holdfast.core.signals import BookSide, TimeInForce
from holdfast.venues.broker import endings
from holdfast.venues.broker.account import Account, Requirement
from holdfast.venues.broker.endings import Assignment, Move
from holdfast.venues.broker.feed import Feed, Listing, Minute, Spot
from holdfast.venues.broker.matching import (
    Executable,
    Legs,
    Shown,
    crosses,
    executable,
    moves,
    take,
)
from holdfast.venues.broker.orders import (
    Execution,
    OrderRequest,
    OrderRow,
    OrderShown,
    OrderState,
    Refusal,
)

DEFAULT_CASH = MoneyE6(100_000_000_000)
"""A hundred thousand dollars."""
_FAR: Final = 10**9


class Quoted(msgspec.Struct, frozen=True):
    """A minute closed: its quotes and underlyings."""

    minute: Minute


class OrderMoved(msgspec.Struct, frozen=True):
    """One of our orders was created or changed."""

    order: OrderShown


class Executed(msgspec.Struct, frozen=True):
    """One of our positions moved."""

    execution: Execution


class Ended(msgspec.Struct, frozen=True):
    """A contract's trading is over; *status* is "expired", or "unsettled" where no price says what it is worth."""

    ticker: str
    status: str
    ts_ns: int


Happening = Quoted | OrderMoved | Executed | Ended


class Books(NamedTuple):
    """What the broker believes: for a comparison with what a client believes."""

    cash: MoneyE6
    positions: dict[str, QtyE2]
    open_orders: tuple[OrderShown, ...]
    executions: tuple[Execution, ...]


class Engine:
    """All contracts of one feed and the account that trades them.

    Args:
        feed: Asked for its listings; its minutes are handed in with `apply`.
        seed: Of the ids and of assignments by chance.
        cash: Opening balance.
        assignments: Scripted early ones.
        assign_ppm: Chance per minute that a ripe short contract is assigned, parts per million.

    Attributes:
        told: Called with each order request, each cancel (the order id) and each step of time (UTC ns) before it
            takes effect; whoever wants to remember them sets it.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        seed: int = 0,
        cash: MoneyE6 = DEFAULT_CASH,
        assignments: Iterable[Assignment] = (),
        assign_ppm: int = 0,
    ) -> None:
        self.told: Callable[[OrderRequest | str | int], None] | None = None
        self.listings: dict[str, Listing] = {listing.ticker: listing for listing in feed.listings}
        self.account = Account(cash, self.listings)
        self.shown = {
            listing.ticker: Shown(0 if listing.terms is None else listing.terms.expires_ns)
            for listing in feed.listings
        }
        self.spots: dict[str, tuple[Spot, int]] = {}
        self.orders: dict[str, OrderRow] = {}
        self.executions: list[Execution] = []
        self.now_ns = feed.start_ns
        self.status: dict[str, str] = {}
        self._open: dict[str, OrderRow] = {}
        self._names: dict[str, str] = {}
        self._seed = seed
        self._assign_ppm = assign_ppm
        self._assignments = sorted(assignments)
        self._ends = sorted((shown.ends_ns, ticker) for ticker, shown in self.shown.items() if shown.ends_ns)
        self._happened: list[Happening] = []

    def drain(self) -> list[Happening]:
        """What happened since the last call, in order."""
        happened, self._happened = self._happened, []
        return happened

    def books(self) -> Books:
        """What the broker believes now."""
        return Books(
            self.account.cash,
            dict(self.account.positions),
            tuple(order.shown() for order in self._open.values()),
            tuple(self.executions),
        )

    @property
    def open_orders(self) -> list[OrderRow]:
        """Orders that may still execute, oldest first."""
        return list(self._open.values())

    # Market time.

    def apply(self, minute: Minute) -> None:
        """A minute closed.

        Raises:
            BadInput: It quotes a contract that the feed does not list.
        """
        self._pass(minute.ts_ns - 1)
        self.now_ns = max(self.now_ns, minute.ts_ns)
        for quote in minute.quotes:
            shown = self.shown.get(quote.ticker)
            if shown is None:
                raise BadInput(f"the feed quotes {quote.ticker!r}, which it does not list")
            shown.show(quote, minute.ts_ns)
        for spot in minute.spots:
            self.spots[spot.symbol] = (spot, minute.ts_ns)
        self._happened.append(Quoted(minute))
        self._pass(minute.ts_ns)
        for order in self.open_orders:
            self._match(order, is_taker=False)
        if self._assign_ppm:
            self._draw_assignments(minute)

    def advance(self, now_ns: int) -> None:
        """Let market time pass: orders and contracts end."""
        if self.told is not None:
            self.told(now_ns)
        self._pass(now_ns)

    def _pass(self, now_ns: int) -> None:
        self.now_ns = max(self.now_ns, now_ns)
        for order in self.open_orders:
            if 0 < order.request.expiration_ns <= now_ns:
                self._end(order, OrderState.EXPIRED, "expiration")
        while self._assignments and self._assignments[0].at_ns <= now_ns:
            self._assign(self._assignments[0].ticker, self._assignments.pop(0).qty)
        while self._ends and self._ends[0][0] <= now_ns:
            ends_ns, ticker = self._ends.pop(0)
            self._contract_ends(self.listings[ticker], ends_ns)

    def _contract_ends(self, listing: Listing, ends_ns: int) -> None:
        for order in self.open_orders:
            if any(ticker == listing.ticker for ticker, _ in order.legs):
                self._end(order, OrderState.EXPIRED, "contract ended")
        found = self.spots.get(listing.underlying)
        is_settled = found is not None and ends_ns - found[1] <= endings.SETTLEMENT_AGE_NS
        self.status[listing.ticker] = "expired" if is_settled else "unsettled"
        if found is not None and is_settled:
            held = self.account.positions.get(listing.ticker, QtyE2(0))
            self._move(endings.ending(listing, held, found[0].price))
        self._happened.append(Ended(listing.ticker, self.status[listing.ticker], self.now_ns))

    def _draw_assignments(self, minute: Minute) -> None:
        for ticker, held in list(self.account.positions.items()):
            listing, shown = self.listings[ticker], self.shown[ticker]
            terms, found = listing.terms, self.spots.get(listing.underlying)
            if held >= 0 or terms is None or shown.quote is None or found is None:
                continue
            is_ripe = shown.ts_ns == minute.ts_ns and endings.is_ripe(terms, shown.quote, found[0].price)
            if is_ripe and endings.is_drawn(self._seed, ticker, minute.ts_ns, self._assign_ppm):
                self._assign(ticker, QtyE2(-held))

    def _assign(self, ticker: str, qty: QtyE2) -> None:
        """Assign at most what is short; nothing where nothing is."""
        listing = self.listings[ticker]
        short = QtyE2(max(-self.account.positions.get(ticker, 0), 0))
        count = QtyE2(min(short, qty))
        if count and listing.terms is not None and not self.status.get(ticker):
            self._move(endings.delivery(listing, listing.terms, QtyE2(-count)))

    def _move(self, what: Sequence[Move]) -> None:
        for move in what:
            self._execute(None, move.ticker, move.qty, move.price, MoneyE6(0), move.cause)

    # Requests.

    def place(self, request: OrderRequest) -> OrderRow | Refusal:
        """Accept or refuse one order; an accepted one has already traded what it could."""
        if self.told is not None:
            self.told(request)
        legs = self.legs(request.ticker)
        if isinstance(legs, Refusal):
            return legs
        wrong = self._wrong(request, legs)
        if wrong is not None:
            return wrong
        number, multiplier = len(self.orders) + 1, self.listings[legs[0][0]].multiplier
        order = OrderRow(
            number, self._id(f"order {number}"), request, legs, multiplier=multiplier, now_ns=self.now_ns
        )
        refused = self._carry(order, request.price, request.qty)
        if refused is not None:
            return refused
        order.reserved = self._needed(order, request.price, request.qty)
        self.orders[order.order_id] = self._open[order.order_id] = order
        self._names[request.client_order_id] = order.order_id
        self._match(order, is_taker=True)
        if order.state is OrderState.WORKING and request.tif is not TimeInForce.GTC:
            self._end(order, OrderState.CANCELED, "immediate")
        elif not order.filled:
            self._happened.append(OrderMoved(order.shown()))
        return order

    def legs(self, ticker: str) -> Legs | Refusal:
        """The contracts behind a ticker."""
        if not is_combo(ticker):
            return ((ticker, 1),) if ticker in self.listings else _no_such(ticker)
        try:
            legs = parse_combo_ticker(ticker)
        except BadInput as error:
            return Refusal(404, "not_found", str(error))
        for leg, _ in legs:
            if leg not in self.listings or self.listings[leg].terms is None:
                return _no_such(leg)
        first = self.listings[legs[0][0]]
        if any(
            (self.listings[leg].underlying, self.listings[leg].multiplier)
            != (first.underlying, first.multiplier)
            for leg, _ in legs
        ):
            return Refusal(400, "bad_combination", "legs of several underlyings")
        return legs

    def cancel(self, order_id: str) -> tuple[OrderRow, QtyE2] | Refusal:
        """Take a working order back; returns it and what was released."""
        if self.told is not None:
            self.told(order_id)
        order = self._open.get(order_id)
        if order is None:
            return Refusal(404, "not_found", "no such working order")
        released = order.leaves
        self._end(order, OrderState.CANCELED, "canceled")
        return order, released

    def buying_power(self) -> MoneyE6:
        """Cash that neither positions nor working orders need."""
        return MoneyE6(self._free(self.account.cash, self._requirement(self.account.positions)))

    def find(self, client_order_id: str) -> OrderRow | None:
        """An order by its client order id."""
        return self.orders.get(self._names.get(client_order_id, ""))

    def has_ended(self, ticker: str) -> bool:
        """Whether trading in a contract is over."""
        ends_ns = self.shown[ticker].ends_ns
        return ticker in self.status or 0 < ends_ns <= self.now_ns

    # Inside.

    def _wrong(self, request: OrderRequest, legs: Legs) -> Refusal | None:
        """Everything that is wrong with the request whatever the account can carry."""
        if request.client_order_id in self._names:
            return Refusal(409, "order_already_exists", request.client_order_id)
        ended = [ticker for ticker, _ in legs if self.has_ended(ticker)]
        tick = min(self.listings[ticker].tick for ticker, _ in legs)
        least = -_FAR if len(legs) > 1 else 1
        is_late = 0 < request.expiration_ns <= self.now_ns
        found = self._reach(legs, request)
        reached = 0 if found is None else found.units
        checks = (
            (bool(ended), "contract_ended", ", ".join(ended)),
            (
                request.price % tick != 0 or not least <= request.price <= _FAR,
                "invalid_price",
                format_price(request.price),
            ),
            (request.qty <= 0 or request.qty % 100 != 0, "invalid_count", "a whole number above 0"),
            (is_late, "invalid_expiration", "in the past"),
            (
                request.expiration_ns != 0 and request.tif is not TimeInForce.GTC,
                "invalid_expiration",
                "of an immediate order",
            ),
            (request.post_only and found is not None, "post_only_would_cross", ""),
            (
                request.tif is TimeInForce.FOK and reached < request.qty,
                "fill_or_kill",
                "not all of it can trade now",
            ),
        )
        return next((Refusal(400, code, details) for is_so, code, details in checks if is_so), None)

    def _reach(self, legs: Legs, request: OrderRequest) -> Executable | None:
        """What the limit reaches now."""
        buys = request.side is BookSide.BID
        found = executable(legs, self.shown, self.now_ns, buys=buys)
        if isinstance(found, Executable) and crosses(request.price, found.price, buys=buys):
            return found
        return None

    def _match(self, order: OrderRow, *, is_taker: bool) -> None:
        """Trade what the quotes of now give; an order that the account can no longer carry is canceled."""
        found = self._reach(order.legs, order.request)
        if found is None:
            return
        units = QtyE2(min(found.units, order.leaves))
        refused = None if is_taker else self._carry(order, found.price, units)
        if refused is not None:
            self._end(order, OrderState.CANCELED, refused.code)
            return
        take(order.legs, self.shown, units, buys=order.buys)
        order.fill(units)
        for (ticker, qty), price in zip(moves(order.legs, units, buys=order.buys), found.legs, strict=True):
            fee = MoneyE6(self.listings[ticker].fee * abs(qty) // 100)
            self._execute(order, ticker, QtyE2(qty), price, fee, FillCause.TRADE, is_taker=is_taker)
        if not order.leaves:
            del self._open[order.order_id]
        self._happened.append(OrderMoved(order.shown()))

    def _end(self, order: OrderRow, state: OrderState, reason: str) -> None:
        order.end(state, reason)
        del self._open[order.order_id]
        self._happened.append(OrderMoved(order.shown()))

    def _execute(  # noqa: PLR0917  one movement has that many facts
        self,
        order: OrderRow | None,
        ticker: str,
        qty: QtyE2,
        price: PriceE4,
        fee: MoneyE6,
        cause: FillCause,
        *,
        is_taker: bool = False,
    ) -> None:
        self.account.book(ticker, qty, price, fee)
        execution = Execution(
            exec_id=self._id(f"execution {len(self.executions) + 1}"),
            order_id="" if order is None else order.order_id,
            client_order_id="" if order is None else order.request.client_order_id,
            ticker=ticker,
            side=BookSide.BID if qty > 0 else BookSide.ASK,
            price=price,
            qty=QtyE2(abs(qty)),
            fee=fee,
            multiplier=self.listings[ticker].multiplier,
            is_taker=is_taker,
            cause=cause,
            ts_ns=self.now_ns,
        )
        self.executions.append(execution)
        self._happened.append(Executed(execution))

    # What the account can carry.

    def _carry(self, order: OrderRow, price: PriceE4, units: QtyE2) -> Refusal | None:
        """Why the account cannot carry *units* of *order* at *price*; None where it can.

        What only buys shorts back, or leaves no less buying power than before, always passes.
        """
        changes = moves(order.legs, units, buys=order.buys)
        if all(qty > 0 and -self.account.positions.get(ticker, 0) >= qty for ticker, qty in changes):
            return None
        before = self._requirement(self.account.positions)
        after = self._requirement(self.account.after(changes))
        if after.naked > before.naked:
            return Refusal(400, "naked_short", "a short call needs a long one of its expiry, or shares")
        free = self._free(self.account.cash - self._cost(order, price, units), after) + order.reserved
        if free < 0 and free < self._free(self.account.cash, before) + order.reserved:
            return Refusal(400, "buying_power", f"{format_money(MoneyE6(-free))} USD short")
        return None

    def _needed(self, order: OrderRow, price: PriceE4, units: QtyE2) -> MoneyE6:
        """How much buying power filling *units* at *price* takes, at least 0."""
        before = self._requirement(self.account.positions).money
        after = self._requirement(self.account.after(moves(order.legs, units, buys=order.buys))).money
        return MoneyE6(max(0, self._cost(order, price, units) + after - before))

    def _cost(self, order: OrderRow, price: PriceE4, units: QtyE2) -> int:
        """Premium paid (negative where received) and fees."""
        fees = sum(self.listings[ticker].fee * abs(ratio) for ticker, ratio in order.legs) * units // 100
        return order.request.side.sign * price * units * order.multiplier + fees

    def _requirement(self, positions: dict[str, QtyE2]) -> Requirement:
        prices = {symbol: spot.price for symbol, (spot, _) in self.spots.items()}
        return self.account.requirement(positions, prices)

    def _free(self, cash: int, requirement: Requirement) -> int:
        return cash - requirement.money - sum(order.reserved for order in self._open.values())

    def _id(self, name: str) -> str:
        digest = hashlib.sha256(f"holdfast broker {self._seed} {name}".encode()).hexdigest()
        return f"{digest[:8]}-{digest[8:20]}"


def _no_such(ticker: str) -> Refusal:
    return Refusal(404, "not_found", f"no contract {ticker[:60]!r}")
