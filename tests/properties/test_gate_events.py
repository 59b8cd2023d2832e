"""What reduces in an event of which one market pays, against every way in which its working orders may fill."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.execution import instrument, intent, opened_account

from holdfast.core.clock import ManualClock
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.signals import BookSide
from holdfast.risk.decisions import replay, rows_text
from holdfast.risk.gate import Gate
from holdfast.risk.limits import RiskLimits
from holdfast.risk.order import Order

TICKERS = [f"KXTEST-26NOV20-{name}" for name in "ABC"]
GAME = {"event_exclusive": True}
WIDE = RiskLimits(max_position=QtyE2(10**9), max_order_value=MoneyE6(10**12), max_exit_value=MoneyE6(10**12))
Line = tuple[str, int, int]
"""Ticker, signed contracts, YES price in cents."""
LINES = st.tuples(st.sampled_from(TICKERS), st.integers(-15, 15).filter(bool), st.integers(1, 99))
POSITIONS = st.tuples(*[st.integers(-20, 20)] * len(TICKERS))


def worst(positions: Iterable[int], done: Iterable[Line], working: list[Line]) -> int:
    """Cents in the worst outcome, over each market and none, and over every set of working orders that fills."""
    return min(
        sum(100 * qty for ticker, qty in zip(TICKERS, positions, strict=True) if ticker == winner)
        + sum(qty * (100 * (ticker == winner) - price) for ticker, qty, price in (*done, *filled))
        for winner in (*TICKERS, "")
        for size in range(len(working) + 1)
        for filled in itertools.combinations(working, size)
    )


@pytest.mark.invariant("I5")
@example(
    positions=(-19, 8, -19), working=[(TICKERS[2], -13, 86)], order=(TICKERS[2], 7, 38)
)  # the own market's working order at a price that it does not have
@example(
    positions=(12, -10, -12), working=[(TICKERS[0], 4, 1), (TICKERS[2], 7, 94)], order=(TICKERS[2], 2, 8)
)
@example(
    positions=(20, 10, 0), working=[(TICKERS[0], -5, 1), (TICKERS[0], -5, 99)], order=(TICKERS[0], -5, 90)
)
@given(positions=POSITIONS, working=st.lists(LINES, max_size=3), order=LINES)
def test_what_reduces_makes_no_way_of_the_event_worse(positions, working, order):
    """An order taken for reducing leaves the worst outcome no worse, whichever working orders fill; so says its record."""
    held = {ticker: f"{qty}.00" for ticker, qty in zip(TICKERS, positions, strict=True) if qty}
    gate = Gate(opened_account(positions=held), WIDE, clock=ManualClock())
    for ticker in TICKERS:
        gate.market.saw_rules(instrument(ticker, **GAME))
    for number, (ticker, qty, price) in enumerate(working):
        gate.account.reserve(
            Order(
                client_order_id=f"hf-{number}",
                ticker=ticker,
                side=BookSide.BID if qty > 0 else BookSide.ASK,
                quantity=QtyE2(abs(qty) * 100),
                yes_price=PriceE4(price * 100),
            )
        )
    ticker, qty, price = order
    wish = intent(
        "hf-x",
        of=instrument(ticker, **GAME),
        ticker=ticker,
        action="buy" if qty > 0 else "sell",
        count=abs(qty),
        price=price,
    )
    decision = gate.evaluate(wish)
    if decision.reducing:
        assert worst(positions, [order], working) >= worst(positions, [], working)
    again = replay(decision.details())
    assert again.reducing is decision.reducing
    assert rows_text(again) == decision.details()["rows"]
