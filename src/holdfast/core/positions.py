"""Positions as a fold over fills and settlements.

A position is the signed YES quantity of one market: selling YES below zero is being long NO. Cash counts
what fills, fees and settlements moved, so cash plus liquidation value is what the account is worth. A fill
counts once, by the venue's trade id, however often it is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from holdfast.core.instruments import Instrument, InstrumentKind
from holdfast.core.money import ONE_DOLLAR_E4, MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import Fill

_BINARY: Final = InstrumentKind.BINARY


class Mark(NamedTuple):
    """The executable prices of one market at one moment.

    Attributes:
        bid: Best YES bid, or None for an empty side.
        ask: Best YES ask, or None for an empty side.
        as_of_ns: When the source was last known alive and gapless, clock monotonic ns.
    """

    bid: PriceE4 | None
    ask: PriceE4 | None
    as_of_ns: int

    def liquidation_price(self, position: QtyE2) -> PriceE4:
        """What closing pays per YES contract; an empty side is bounded: a long is worth 0, a short costs $1."""
        if position >= 0:
            return self.bid if self.bid is not None else PriceE4(0)
        return self.ask if self.ask is not None else ONE_DOLLAR_E4

    def closing_price(self, position: QtyE2) -> PriceE4 | None:
        """What closing one option or share pays: a long without a bid is worth 0, a short without an ask is unknown.

        A bid above the ask can not be true of both; then neither is known.
        """
        if self.is_crossed:
            return None
        if position >= 0:
            return self.bid if self.bid is not None else PriceE4(0)
        return self.ask

    @property
    def is_crossed(self) -> bool:
        """Whether somebody would pay more than somebody asks: such prices can not be true of both."""
        return self.bid is not None and self.ask is not None and self.bid > self.ask


class Portfolio:
    """Positions and cash flow of one account, rebuilt by replaying its fills.

    Attributes:
        positions: Signed YES quantity by ticker; absent means flat.
        cash: What fills, fees, settlements and deposits have moved since the fold began.
    """

    def __init__(self) -> None:
        self.positions: dict[str, QtyE2] = {}
        self.cash = MoneyE6(0)
        self._trade_ids: set[str] = set()

    def has_fill(self, trade_id: str) -> bool:
        """Whether this trade already moved the position."""
        return trade_id in self._trade_ids

    def apply_fill(self, fill: Fill) -> bool:
        """Book *fill*; False when its trade id was booked before."""
        if fill.trade_id in self._trade_ids:
            return False
        self._trade_ids.add(fill.trade_id)
        self._move(fill.ticker, fill.delta)
        self.cash = MoneyE6(self.cash + fill.cash)
        return True

    def apply_settlement(self, ticker: str, result: str) -> MoneyE6:
        """Pay out *ticker* at $1 for "yes" and $0 for "no"; returns what the settlement added to cash.

        A short YES position owes a dollar per contract on "yes": its collateral was the other leg.
        """
        payout = self.payout(ticker, result)
        self.positions.pop(ticker, None)
        self.cash = MoneyE6(self.cash + payout)
        return payout

    def payout(self, ticker: str, result: str) -> MoneyE6:
        """What `apply_settlement` would add to cash."""
        return MoneyE6(self.position(ticker) * ONE_DOLLAR_E4) if result == "yes" else MoneyE6(0)

    def deposit(self, amount: MoneyE6) -> None:
        """Money from outside (or to outside, negative)."""
        self.cash = MoneyE6(self.cash + amount)

    def position(self, ticker: str) -> QtyE2:
        """Signed YES quantity; 0 when flat."""
        return self.positions.get(ticker, QtyE2(0))

    def _move(self, ticker: str, delta: QtyE2) -> None:
        after = QtyE2(self.positions.get(ticker, 0) + delta)
        if after:
            self.positions[ticker] = after
        else:
            self.positions.pop(ticker, None)


def liquidation_value(
    positions: Mapping[str, QtyE2], marks: Mapping[str, Mark], instruments: Mapping[str, Instrument] = {}
) -> MoneyE6 | str:
    """The value of closing everything at the executable side, or the ticker whose price is missing.

    A ticker without rules counts as an event contract.
    """
    total = 0
    for ticker, qty in positions.items():
        mark, rules = marks.get(ticker), instruments.get(ticker)
        if mark is None:
            return ticker
        if rules is None or rules.kind is _BINARY:
            total += qty * mark.liquidation_price(qty)
            continue
        price = mark.closing_price(qty)
        if price is None:
            return ticker
        total += qty * price * rules.multiplier
    return MoneyE6(total)
