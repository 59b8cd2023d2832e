"""The desk's positions as executions: which orders made each, what it holds leg by leg, and what was paid.

An execution is one entry into one structure, from its first order until it is flat. It is a fold: over the fills of
its own orders, and over whatever else moved the account (expiry, assignment, a person), which trims it. Its orders
carry its name: the intent key is `<execution id>/<step>`, so that the journal alone rebuilds every execution.

| step            | order                                                    |
| --------------- | -------------------------------------------------------- |
| `open`          | the whole structure as one combination, or a single leg  |
| `leg-2of4-1`    | one leg of a legged entry, and which attempt             |
| `exit-3`        | the third exit                                           |

What assignment or exercise leaves in shares becomes an execution too, `stock-<symbol>-<second>`, which has exits only.

Limits: two executions never hold one contract in opposite directions; the engine refuses such an entry. A fill counts
as it was told first: of a venue's correction only what it takes away is seen, as anything else that trims.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import reduce
from math import gcd
from typing import Any, NamedTuple, Protocol

import msgspec

from holdfast.core.clock import NANOS
from holdfast.core.money import PriceE4, QtyE2, parse_qty
from holdfast.core.options import is_combo, parse_combo_ticker
from holdfast.core.orders import CORRECTED, Fill
from holdfast.core.signals import BookSide
from holdfast.execution.exits import STEP as EXIT_STEP
from holdfast.execution.exits import ExitState, Ladder
from holdfast.execution.ledger import COMPONENT
from holdfast.risk.account import Account
from holdfast.risk.claims import UNDONE
from holdfast.risk.manager import COMPONENT as GATE_COMPONENT
from holdfast.risk.trades import read_trade

OPEN_STEP = "open"
STOCK = "stock"
_LEG_STEP = re.compile(r"leg-(\d+)of(\d+)-(\d+)", re.ASCII)
_EXIT_STEP = re.compile(rf"{EXIT_STEP}-(\d+)", re.ASCII)


class Phase(StrEnum):
    """Where an execution stands."""

    ENTERING = "entering"
    HELD = "held"
    LEAVING = "leaving"
    FLAT = "flat"


class Execution(msgspec.Struct, kw_only=True):
    """One entry into one structure.

    Attributes:
        execution_id: Its name.
        symbol: The underlying.
        legs: (ticker, signed ratio) per unit, as entered.
        units: Wanted, 1/100.
        ladder: The way out.
        leg_count: How many legs a legged entry was to have; 0 where it went as one order.
        held: Signed quantity by ticker, 1/100, without what is flat.
        entered: What entry orders filled: (quantity, price x quantity) by ticker, unsigned.
        entries, exits: Names of its orders, oldest first.
        opened_ns: When its first order was written, UTC ns.
        leg_since_ns: When the leg that is due was first ordered; 0 before.
        demanded: A stop or a person demands the exit, not a mere rule.
        tried_ns: When an exit was barred last, UTC ns.
        in_pieces: Leaving all legs at once would not reduce, so they leave one by one.
        is_guard: Leaving one by one would not either: each leaves where the limits of an entry allow it.
    """

    execution_id: str
    symbol: str
    legs: tuple[tuple[str, int], ...]
    units: QtyE2
    ladder: Ladder
    leg_count: int = 0
    held: dict[str, int] = {}
    entered: dict[str, tuple[int, int]] = {}
    entries: list[str] = []
    exits: list[str] = []
    opened_ns: int = 0
    leg_since_ns: int = 0
    demanded: bool = False
    tried_ns: int = 0
    in_pieces: bool = False
    is_guard: bool = False

    @property
    def is_flat(self) -> bool:
        """Nothing is held."""
        return not self.held

    @property
    def is_balanced(self) -> bool:
        """Whether the legs held make whole units of what was entered."""
        if self.leg_count and self.leg_count != len(self.legs):
            return False
        first, first_ratio = self.legs[0]
        qty = self.held.get(first, 0)
        return all(self.held.get(ticker, 0) * first_ratio == qty * ratio for ticker, ratio in self.legs)

    @property
    def net_debit(self) -> PriceE4 | None:
        """What one unit cost on average, negative for a credit; None while a leg has no fill."""
        total = 0
        for ticker, ratio in self.legs:
            price = self.leg_price(ticker)
            if price is None:
                return None
            total += ratio * price
        return PriceE4(total)

    @property
    def sign(self) -> int:
        """+1 where a premium was paid and a rise is good, -1 for a net credit, where a fall is."""
        debit = self.net_debit
        return -1 if debit is not None and debit < 0 else 1

    @property
    def entry_premium(self) -> PriceE4 | None:
        """The premium of one unit at entry, paid or taken, not negative."""
        debit = self.net_debit
        return None if debit is None else PriceE4(abs(debit))

    def leg_price(self, ticker: str) -> PriceE4 | None:
        """What a leg was entered at on average, to the nearest 1/10,000 dollar; None without a fill."""
        qty, cost = self.entered.get(ticker, (0, 0))
        return PriceE4((2 * cost + qty) // (2 * qty)) if qty else None

    def book(self, fill: Fill) -> None:
        """A fill of one of its own orders."""
        self._move(fill.ticker, fill.delta)
        if fill.client_order_id in self.entries:
            qty, cost = self.entered.get(fill.ticker, (0, 0))
            self.entered[fill.ticker] = (qty + fill.qty, cost + fill.price * fill.qty)

    def trim(self, ticker: str, excess: int) -> int:
        """Give up to *excess* (1/100, unsigned) of a leg back; how much it was."""
        held = self.held.get(ticker, 0)
        gone = min(abs(held), excess)
        self._move(ticker, -gone if held > 0 else gone)
        return gone

    def _move(self, ticker: str, delta: int) -> None:
        after = self.held.get(ticker, 0) + delta
        if after:
            self.held[ticker] = after
        else:
            self.held.pop(ticker, None)


class Trimmed(NamedTuple):
    """Part of a leg that something else than the execution's own orders closed.

    Attributes:
        execution: Whose.
        ticker: Which leg.
        qty: What was held of it and is no more, signed, 1/100.
    """

    execution: Execution
    ticker: str
    qty: int


class JournalRecord(Protocol):
    """The part of a record that a fold reads."""

    @property
    def type(self) -> str:
        """Its type."""
        ...

    @property
    def component(self) -> str:
        """Who wrote it."""
        ...

    @property
    def details(self) -> Mapping[str, Any]:
        """What it says."""
        ...


class Executions:
    """All executions of one desk.

    Attributes:
        known: By name, oldest first; flat ones too.
        by_order: Which execution an order is of.
        strategy: The name under which the desk's orders are written.
        numbered: How many names were given to entries, those that were refused included.
        given_up: What something else closed, until `trim` has told it.
    """

    def __init__(self, strategy: str) -> None:
        self.strategy = strategy
        self.known: dict[str, Execution] = {}
        self.by_order: dict[str, Execution] = {}
        self.numbered = 0
        self.given_up: list[Trimmed] = []
        self._undone: dict[tuple[str, int], int] = {}

    def name(self, kind: str, symbol: str) -> str:
        """A name for a new entry that none had before, in any run on this journal."""
        self.numbered += 1
        return f"{kind}-{symbol}-{self.numbered}"

    def add(self, execution: Execution) -> None:
        """Take a new execution in."""
        self.known[execution.execution_id] = execution

    def live(self) -> list[Execution]:
        """Those that are not over, oldest first."""
        return [one for one in self.known.values() if one.ladder.state is not ExitState.FLAT]

    def is_held(self, execution_id: str) -> bool:
        """Whether an execution of this name holds anything."""
        one = self.known.get(execution_id)
        return one is not None and not one.is_flat

    def phase(self, execution: Execution, account: Account) -> Phase:
        """Where *execution* stands, given how its orders do."""
        if execution.ladder.state is ExitState.FLAT:
            return Phase.FLAT
        if execution.ladder.is_demanded:
            return Phase.LEAVING
        if has_open(execution.entries, account) or (execution.leg_count and not execution.is_balanced):
            return Phase.ENTERING
        return Phase.FLAT if execution.is_flat else Phase.HELD

    def own(self, execution: Execution, order: str, *, is_entry: bool) -> None:
        """*order* is one of its orders, from before its answer is known."""
        (execution.entries if is_entry else execution.exits).append(order)
        self.by_order[order] = execution

    def disown(self, execution: Execution, order: str) -> None:
        """*order* never became one."""
        for names in (execution.entries, execution.exits):
            if order in names:
                names.remove(order)
        self.by_order.pop(order, None)

    def opposing(self, legs: Iterable[tuple[str, int]]) -> str:
        """A contract of *legs* that another execution holds or works in the other direction; "" where none is."""
        for ticker, ratio in legs:
            for one in self.live():
                if any(name == ticker and other * ratio < 0 for name, other in one.legs):
                    return ticker
        return ""

    def trim(self, account: Account) -> list[Trimmed]:
        """Hold all legs against the account's positions; what was given up because something else closed it."""
        trimmed, self.given_up = self.given_up, []
        for ticker in sorted({ticker for one in self.live() for ticker in one.held}):
            holders = [one for one in self.live() if ticker in one.held]
            total = sum(one.held[ticker] for one in holders)
            position = account.portfolio.position(ticker)
            excess = abs(total) - max(0, position if total > 0 else -position)
            for one in holders:
                if excess > 0:
                    gone = one.trim(ticker, excess)
                    excess -= gone
                    trimmed.append(Trimmed(one, ticker, gone if total > 0 else -gone))
        return trimmed

    def adopt_shares(self, symbol: str, qty: int, now_ns: int) -> Execution:
        """Shares that assignment or exercise left, as an execution that can only be left."""
        one = _shares(f"{STOCK}-{symbol}-{now_ns // NANOS}", symbol, qty, now_ns)
        self.add(one)
        return one

    # The fold -----------------------------------------------------------------------------------------

    def restore(self, records: Iterable[JournalRecord]) -> None:
        """Rebuild every execution from the journal; the account must have been replayed before `settle_ladders`."""
        for record in records:
            type_, component, details = record.type, record.component, record.details
            if type_ == "LATE":
                type_, component, details = details["type"], details["component"], details["details"]
            if type_ == "ORDER" and component == COMPONENT and details["strategy"] == self.strategy:
                self._restore_order(details)
            elif type_ == "DECISION" and component == GATE_COMPONENT and details["strategy"] == self.strategy:
                self._restore_attempt(details)
            elif type_ == "TRADE" and component == COMPONENT and CORRECTED not in details["trade_id"]:
                one, fill = self.by_order.get(details.get("client_order_id", "")), read_trade(details)
                if one is not None:
                    one.book(fill)
                else:
                    self.close(fill)

    def close(self, fill: Fill) -> None:
        """What no order of the desk's did closes what was held the other way then; told by the next `trim`.

        Held against the position of now, a leg that ended long ago would come back to life as soon as another
        execution holds the same contract the other way.
        """
        if UNDONE in fill.trade_id:  # the claim closed it already: what is told instead closes nothing more
            key = fill.ticker, -fill.side.sign
            self._undone[key] = self._undone.get(key, 0) + fill.qty
            return
        key = fill.ticker, fill.side.sign
        told = min(int(fill.qty), self._undone.get(key, 0))
        self._undone[key] = self._undone.get(key, 0) - told
        left = int(fill.qty) - told
        for one in self.known.values():
            if one.held.get(fill.ticker, 0) * fill.delta < 0 and left:
                gone = one.trim(fill.ticker, left)
                left -= gone
                self.given_up.append(Trimmed(one, fill.ticker, -gone if fill.delta > 0 else gone))

    def _restore_order(self, details: Mapping[str, Any]) -> None:
        execution_id, step = split_key(details["intent"])
        name, ticker = details["client_order_id"], details["ticker"]
        exit_step, leg_step = _EXIT_STEP.fullmatch(step), _LEG_STEP.fullmatch(step)
        one = self.known.get(execution_id)
        sign = 1 if details["book_side"] == BookSide.BID.value else -1
        if exit_step is not None:
            if one is None and execution_id.startswith(f"{STOCK}-"):
                one = _shares(
                    execution_id, ticker, -sign * parse_qty(details["quantity"]), details["created_ns"]
                )
                self.add(one)
            if one is not None:
                one.ladder.attempts = max(one.ladder.attempts, int(exit_step[1]))
                self.own(one, name, is_entry=False)
            return
        if step != OPEN_STEP and leg_step is None:
            return
        legs = parse_combo_ticker(ticker) if is_combo(ticker) else ((ticker, sign),)
        if one is None:
            one = Execution(
                execution_id=execution_id,
                symbol=symbol_of(execution_id),
                legs=legs,
                units=parse_qty(details["quantity"]),
                ladder=Ladder(),
                opened_ns=details["created_ns"],
            )
            self.add(one)
        if leg_step is not None:
            one.leg_count = int(leg_step[2])
            one.legs = tuple(dict((*one.legs, *legs)).items())
        self.own(one, name, is_entry=True)

    def _restore_attempt(self, details: Mapping[str, Any]) -> None:
        """A refused order has used its name too."""
        execution_id, step = split_key(details["intent"])
        number = execution_id.rpartition("-")[2]
        if number.isdecimal() and not execution_id.startswith(f"{STOCK}-"):
            self.numbered = max(self.numbered, int(number))
        exit_step, one = _EXIT_STEP.fullmatch(step), self.known.get(execution_id)
        if exit_step is not None and one is not None:
            one.ladder.attempts = max(one.ladder.attempts, int(exit_step[1]))

    def settle_ladders(self, account: Account) -> None:
        """After `restore`: put each way out where the account's orders say it stands."""
        for one in self.known.values():
            attempts = one.ladder.attempts
            last = one.exits[-1] if one.exits else ""
            order = account.orders.get(last)
            if attempts == 0:
                continue
            state = ExitState.DUE
            if order is not None and order.is_open:
                state = ExitState.WORKING if order.status.value == "working" else ExitState.UNKNOWN
            one.ladder = Ladder(
                state=state,
                attempts=attempts,
                order=last if state is not ExitState.DUE else "",
                rule="resumed",
            )
            one.demanded = True


def _shares(execution_id: str, symbol: str, qty: int, opened_ns: int) -> Execution:
    return Execution(
        execution_id=execution_id,
        symbol=symbol,
        legs=((symbol, 1 if qty > 0 else -1),),
        units=QtyE2(abs(qty)),
        ladder=Ladder(),
        held={symbol: qty},
        opened_ns=opened_ns,
    )


def has_open(names: Iterable[str], account: Account) -> bool:
    """Whether one of these orders may still execute."""
    return any((order := account.orders.get(name)) is not None and order.is_open for name in names)


def key_of(execution_id: str, step: str) -> str:
    """The intent key of one step."""
    return f"{execution_id}/{step}"


def split_key(key: str) -> tuple[str, str]:
    """The execution and the step of an intent key; no execution where it has another shape."""
    execution_id, _, step = key.rpartition("/")
    return execution_id, step


def symbol_of(execution_id: str) -> str:
    """The underlying in a name of `<kind>-<symbol>-<number>`; "" in any other."""
    parts = execution_id.split("-")
    return parts[1] if len(parts) == 3 else ""


def units_of(held: Mapping[str, int]) -> int:
    """How many units (1/100) of their combination the legs held make: the greatest common divisor."""
    return reduce(gcd, (abs(qty) for qty in held.values()), 0)
