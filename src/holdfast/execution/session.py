"""The trading day: what the account was worth when it opened, and what it is worth through the day.

The day's P&L counts from the SESSION_OPEN record, the P&L over 24 hours from VALUATION records. A day opens at midnight
New York. Until the value of a new day is known, because something held has no price, the old day stands.

Limits: the value is that of closing everything at the executable side; nobody has to pay it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from holdfast.core.clock import NANOS, Clock, utc
from holdfast.core.errors import VenueRejected
from holdfast.core.instruments import InstrumentKind
from holdfast.core.money import MoneyE6, PriceE4, QtyE2, format_money, format_price, format_qty
from holdfast.core.positions import Mark, liquidation_value
from holdfast.execution.ledger import Ledger
from holdfast.execution.market_reader import MarketReader
from holdfast.execution.tries import Tries, quietly
from holdfast.risk.account import collateral
from holdfast.risk.gate import Gate
from holdfast.risk.rolling import VALUATION_SECS

SESSION_ZONE = ZoneInfo("America/New_York")
_BINARY = InstrumentKind.BINARY


class Sessions:
    """Opens each day's session and notes what the account is worth; see the head of this file.

    Args:
        ledger: Where the records go.
        gate: Says what the account is worth.
        reader: Reads the prices and rules of what is held.
        clock: Says which day it is.
        tries: When a day that could not be opened is tried again.
    """

    def __init__(
        self, ledger: Ledger, gate: Gate, reader: MarketReader, *, clock: Clock, tries: Tries
    ) -> None:
        self._ledger = ledger
        self._account = ledger.account
        self._gate = gate
        self._market = gate.market
        self._reader = reader
        self._clock = clock
        self._tries = tries

    async def open(
        self, *, positions: dict[str, QtyE2] | None = None, cash: MoneyE6 | None = None, **opening: Any
    ) -> None:
        """Record the day's opening value; the first one also says what the account held before.

        Args:
            positions: What the venue says is held, at the first one; None later.
            cash: What the venue says is available, at the first one.
            opening: More for the record.

        Raises:
            VenueError: The price of something held cannot be read.
            CircuitBreakerOpenError: The venue is failing.
        """
        marks = await self._read_marks(self._account.portfolio.positions if positions is None else positions)
        # A fill may have been booked meanwhile: what is held and what it cost are taken from one moment.
        held = self._account.portfolio.positions if positions is None else positions
        money = self._account.portfolio.cash if cash is None else cash
        rules = self._market.instruments
        if positions is not None:
            events = {ticker: qty for ticker, qty in positions.items() if rules[ticker].kind is _BINARY}
            money = MoneyE6(money + collateral(events))
        value = liquidation_value(held, marks, rules)
        if isinstance(value, str):
            raise VenueRejected(f"market {value!r} has no price to open the session with", code="no_price")
        now_ns = self._clock.now_ns()
        self._ledger.note(
            "SESSION_OPEN",
            {
                "session": session_name(now_ns),
                "opened_ns": now_ns,
                "cash": format_money(money),
                "liquidation": format_money(MoneyE6(money + value)),
                "positions": quantities(held),
                "marks": {
                    ticker: {"bid": _text(mark.bid), "ask": _text(mark.ask)} for ticker, mark in marks.items()
                },
                **opening,
            },
        )

    async def _read_marks(self, tickers: Iterable[str]) -> dict[str, Mark]:
        """The price of each that anybody quotes, its rules read too."""
        marks: dict[str, Mark] = {}
        for ticker in sorted(tickers):
            mark = await self._reader.read_mark(ticker)
            await self._reader.instrument(ticker)
            if mark is not None:
                marks[ticker] = mark
        return marks

    async def roll(self) -> None:
        """Open the day's session when midnight has passed; until its value is known the old one stands."""
        if self.is_over and self._tries.is_due("session"):
            await quietly(self.open())

    @property
    def is_over(self) -> bool:
        """Whether a new day has begun, or none ever did."""
        session = self._account.session
        return session is None or session.name < session_name(self._clock.now_ns())

    def value_account(self) -> None:
        """Note what the account is worth, four times an hour, for the P&L over 24 hours."""
        now_ns = self._clock.now_ns()
        if now_ns - self._account.rolling.newest_ns < VALUATION_SECS * NANOS:
            return
        value = self._gate.value()
        if value is not None:
            self._ledger.note("VALUATION", {"valued_ns": now_ns, "liquidation": format_money(value)})


def session_name(now_ns: int) -> str:
    """The trading day of a UTC time: the date in New York, where it begins at midnight."""
    return utc(now_ns).astimezone(SESSION_ZONE).strftime("%Y-%m-%d")


def quantities(positions: Mapping[str, QtyE2]) -> dict[str, str]:
    """As records hold them: contracts by ticker, sorted."""
    return {ticker: format_qty(qty) for ticker, qty in sorted(positions.items())}


def _text(price: PriceE4 | None) -> str | None:
    return None if price is None else format_price(price)
