"""Options, combinations and stock for tests of the gate and the order path: SPY at 500, one expiry a month away."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from support.execution import MemoryLog, opened_account, world

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.greeks import MODEL, Greeks
from holdfast.core.instruments import (
    COMBO_CENTS,
    PREMIUM_CENTS,
    ComboLeg,
    Instrument,
    InstrumentKind,
)
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.options import OptionTerms, Right, SettlementStyle, combo_ticker
from holdfast.core.orders import Fill, FillCause
from holdfast.core.signals import Action, BookSide, Intent, Side, Signal, TimeInForce
from holdfast.risk.gate import Gate
from holdfast.risk.limits import RiskLimits
from holdfast.risk.trades import trade_details
from holdfast.testing.venue import FakeVenue

NOW_NS = int(datetime(2026, 11, 20, 15, 0, tzinfo=UTC).timestamp()) * NANOS
EXPIRY = 20261218
EXPIRES_NS = int(datetime(2026, 12, 18, 21, 0, tzinfo=UTC).timestamp()) * NANOS
FEE = MoneyE6(650_000)
WIDE = RiskLimits(
    max_position=QtyE2(1_000_00),
    max_order_value=MoneyE6(10**11),
    max_exit_value=MoneyE6(10**11),
    max_daily_loss=MoneyE6(10**12),
)
SPY = Instrument(venue="fake", ticker="SPY", kind=InstrumentKind.STOCK, price_ranges=PREMIUM_CENTS)


def option(
    right: Right,
    strike: int,
    *,
    expiry: int = EXPIRY,
    expires_ns: int = EXPIRES_NS,
    settlement: SettlementStyle = SettlementStyle.PHYSICAL,
    **changes: Any,
) -> Instrument:
    terms = OptionTerms(
        underlying="SPY",
        root="SPY",
        expiry=expiry,
        right=right,
        strike=PriceE4(strike * 10_000),
        settlement=settlement,
        expires_ns=expires_ns,
    )
    fields: dict[str, Any] = {
        "venue": "fake",
        "ticker": terms.ticker,
        "kind": InstrumentKind.OPTION,
        "option": terms,
        "multiplier": 100,
        "price_ranges": PREMIUM_CENTS,
        "fee_per_contract": FEE,
    }
    return Instrument(**(fields | changes))


def call(strike: int, **changes: Any) -> Instrument:
    return option(Right.CALL, strike, **changes)


def put(strike: int, **changes: Any) -> Instrument:
    return option(Right.PUT, strike, **changes)


def combo(*legs: tuple[Instrument, int], **changes: Any) -> Instrument:
    """Legs as (instrument, ratio), in any order; the ratios must have no common divisor."""
    parts = tuple(
        ComboLeg(instrument, ratio) for instrument, ratio in sorted(legs, key=lambda leg: leg[0].ticker)
    )
    fields: dict[str, Any] = {
        "venue": "fake",
        "ticker": combo_ticker([(part.instrument.ticker, part.ratio) for part in parts]),
        "kind": InstrumentKind.COMBO,
        "legs": parts,
        "multiplier": 100,
        "price_ranges": COMBO_CENTS,
    }
    return Instrument(**(fields | changes))


def condor() -> Instrument:
    """Bought for a credit: short the 480 put and the 520 call, long wings ten dollars beyond."""
    return combo((put(470), 1), (put(480), -1), (call(520), -1), (call(530), 1))


def wish(
    instrument: Instrument, action: str, count: float, price: float, *, tif: str = "ioc", **changes: Any
) -> Signal:
    """Count in contracts or units, price in dollars."""
    return Signal(
        ticker=instrument.ticker,
        side=changes.pop("side", Side.YES),
        action=Action(action),
        count=QtyE2(round(count * 100)),
        price=PriceE4(round(price * 10_000)),
        tif=TimeInForce(tif),
        **changes,
    )


def intent(
    name: str, instrument: Instrument, action: str, count: float, price: float, **changes: Any
) -> Intent:
    signal = wish(instrument, action, count, price, **changes)
    return Intent(client_order_id=name, key=name, signal=signal, instrument=instrument)


def show(gate: Gate, **quotes: tuple[float | None, float | None]) -> None:
    """Quotes in dollars by ticker, streamed."""
    for ticker, (bid, ask) in quotes.items():
        prices = [None if side is None else PriceE4(round(side * 10_000)) for side in (bid, ask)]
        gate.market.saw_book(ticker, *prices, 0, streamed=True)


def greeks(delta: float, gamma: float = 0.0, *, as_of_ns: int = 0) -> Greeks:
    return Greeks(round(delta * 1e6), round(gamma * 1e6), 0, 0, 200_000, MODEL, as_of_ns)


def option_gate(
    *known: Instrument,
    positions: dict[Instrument, float] | None = None,
    limits: RiskLimits = WIDE,
    clock: ManualClock | None = None,
    cash: str = "100000.00",
) -> Gate:
    """A gate that knows the rules of *known* and of *positions* (in contracts), all of them quoted 1.00 / 1.10."""
    positions = positions or {}
    held = {one.ticker: f"{count:.2f}" for one, count in positions.items()}
    account = opened_account(cash=cash, liquidation=cash, positions=held)
    made = Gate(account, limits, clock=clock or ManualClock(NOW_NS))
    for one in (*known, *positions):
        made.market.saw_rules(one)
    for ticker in made.market.instruments:
        show(made, **{ticker: (1.0, 1.1)})
    return made


def fill(
    instrument: Instrument,
    side: BookSide,
    count: float,
    price: float,
    *,
    trade_id: str,
    order: str = "",
    cause: FillCause = FillCause.TRADE,
    order_id: str = "",
) -> Fill:
    """One execution; count in contracts, price in dollars."""
    return Fill(
        trade_id=trade_id,
        order_id=order_id,
        client_order_id=order,
        ticker=instrument.ticker,
        side=side,
        price=PriceE4(round(price * 10_000)),
        qty=QtyE2(round(count * 100)),
        fee=MoneyE6(0),
        is_taker=True,
        ts_ns=1,
        multiplier=instrument.multiplier,
        cause=cause,
    )


def book(gate: Gate, one: Fill) -> None:
    """Let *one* happen to the gate's account."""
    gate.account.apply("TRADE", trade_details(one, client_order_id=one.client_order_id, external=False))


def option_world(
    *listed: Instrument, log: MemoryLog | None = None, clock: ManualClock | None = None, **trader: Any
) -> SimpleNamespace:
    """A trader over a fake venue that lists SPY and *listed*, each quoted 1.00 / 1.10 in any size."""
    clock = clock or ManualClock(NOW_NS)
    venue = FakeVenue(clock, [SPY, *listed], cash=MoneyE6(10**11))
    for one in (SPY, *listed):
        venue.set_book(one.ticker, bids=[(10_000, 1_000_000)], asks=[(11_000, 1_000_000)])
    return world(log=log, clock=clock, venue=venue, limits=trader.pop("limits", WIDE), **trader)
