"""A portfolio of SPY told by names: OCC symbols, combinations, "SPY" for shares; and a gate that holds and works it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from support.contracts import combo, option
from support.execution import opened_account

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.greeks import MODEL, Greeks
from holdfast.core.instruments import PREMIUM_CENTS, Instrument, InstrumentKind
from holdfast.core.money import MoneyE6, PriceE4, QtyE2, format_qty, parse_price
from holdfast.core.options import (
    Right,
    combo_ticker,
    is_combo,
    is_option,
    option_ticker,
    parse_combo_ticker,
    parse_option_ticker,
)
from holdfast.core.signals import Action, Intent, Side, Signal
from holdfast.risk.gate import Gate
from holdfast.risk.limits import RiskLimits

DAY = 20231215
NOON_NS = 1_702_400_400 * NANOS  # 2023-12-12 12:00 in New York, a Tuesday
END_NS = 1_702_674_000 * NANOS  # 2023-12-15 16:00 in New York


def noon() -> ManualClock:
    """A clock that stands at noon three days before the contracts end."""
    return ManualClock(now_ns=NOON_NS)


def call(strike: int, day: int = DAY) -> str:
    return option_ticker("SPY", day, Right.CALL, PriceE4(strike * 10_000))


def put(strike: int, day: int = DAY) -> str:
    return option_ticker("SPY", day, Right.PUT, PriceE4(strike * 10_000))


CONDOR = combo_ticker([(put(90), 1), (put(95), -1), (call(105), -1), (call(110), 1)])


def rules(ticker: str, **changes: Any) -> Instrument:
    """The rules of whatever *ticker* names; each day's contracts end at four in New York, without fees."""
    if is_combo(ticker):
        return combo(*((rules(leg, **changes), ratio) for leg, ratio in parse_combo_ticker(ticker)))
    if not is_option(ticker):
        return Instrument(venue="fake", ticker=ticker, kind=InstrumentKind.STOCK, price_ranges=PREMIUM_CENTS)
    name = parse_option_ticker(ticker)
    ends_ns = END_NS + (name.expiry - DAY) * 86_400 * NANOS
    fields: dict[str, Any] = {"expires_ns": ends_ns, "fee_per_contract": MoneyE6(0)} | changes
    return option(name.right, name.strike // 10_000, expiry=name.expiry, **fields)


def wish(
    of: str, price: str, *, count: int = 1, action: str = "buy", name: str = "hf-1", **changes: Any
) -> Intent:
    """An intent to trade *of* at *price* dollars."""
    signal = Signal(
        ticker=of,
        side=Side.YES,
        action=Action(action),
        count=QtyE2(count * 100),
        price=parse_price(price),
        **changes,
    )
    return Intent(client_order_id=name, key=name, signal=signal, instrument=rules(of))


def options_gate(
    limits: RiskLimits | None = None,
    *,
    held: Mapping[str, int] | None = None,
    quotes: Mapping[str, tuple[str | None, str | None]] | None = None,
    deltas: Mapping[str, tuple[float, float]] | None = None,
    cash: str = "100000.00",
    clock: ManualClock | None = None,
) -> Gate:
    """A gate over an account that holds *held* contracts, with quotes (bid, ask) and Greeks (delta, gamma)."""
    held, quotes, deltas = held or {}, quotes or {}, deltas or {}
    positions = {ticker: format_qty(QtyE2(count * 100)) for ticker, count in held.items()}
    clock = clock or noon()
    account = opened_account(cash=cash, liquidation=cash, positions=positions)
    made = Gate(account, limits or loose(), clock=clock)
    for ticker in sorted({*held, *quotes, *deltas}):
        made.market.saw_rules(rules(ticker))
    now_ns = clock.monotonic_ns()
    for ticker, sides in quotes.items():
        bid, ask = (None if text is None else parse_price(text) for text in sides)
        made.market.saw_book(ticker, bid, ask, now_ns, streamed=True)
    for ticker, (delta, gamma) in deltas.items():
        known = Greeks(round(delta * 1e6), round(gamma * 1e6), 0, 0, 250_000, MODEL, now_ns)
        made.market.saw_greeks(ticker, known)
    return made


def loose(**changes: Any) -> RiskLimits:
    """Limits so wide that only what a test sets can refuse."""
    wide: dict[str, Any] = {
        "max_position": QtyE2(100_000),
        "max_order_value": MoneyE6(10**12),
        "max_exit_value": MoneyE6(10**13),
        "max_daily_loss": MoneyE6(10**12),
    }
    return RiskLimits(**(wide | changes))
