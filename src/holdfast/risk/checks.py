"""May this order leave? One small pure function per limit, and `judge`, which asks them all.

Every check returns a `Row`: what was measured, against which bound, and whether it passes. `value > bound`
refuses, equal passes. All rows are made even after the first refusal; the first row that does not pass, in
this order, is the reason:

    state, price, count, market open, reduce-only kept, position, order value, daily loss, breaker

Unknown is a no: a missing or stale mark of a held market, or an unknown session, refuses under its own
name. An empty side of a book is bounded, not unknown: a long is worth nothing, a short costs a dollar.

An order reduces when it takes away from the position no more than can be closed, exits already working or
UNKNOWN counted, and when it leaves the worst outcome of its event no worse. A reducing order is never refused
by an exposure limit (position, daily loss); its size has a wider bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from holdfast.core.clock import NANOS
from holdfast.core.money import ONE_DOLLAR_E4, MoneyE6, PriceE4, QtyE2, complement, notional
from holdfast.core.positions import Mark
from holdfast.core.reasons import Code
from holdfast.core.signals import BookSide, Intent
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits

CONTRACTS = "contracts"
USD = "USD"
MILLIS = "ms"
STATE = "state"


class Row(NamedTuple):
    """One check.

    Attributes:
        code: What it refuses as.
        scope: What it concerns: a ticker, "account".
        value: Measured; in 1/100 contract, 1e-6 dollar, ns, or a state's rank.
        bound: Held against it, same unit.
        unit: "contracts", "USD", "ms", "state" or "", as the record writes them.
        ok: Whether it passes.
    """

    code: Code
    scope: str
    value: int
    bound: int
    unit: str
    ok: bool


class Held(NamedTuple):
    """One position and its price: `age_ns` is None when there is no price at all."""

    ticker: str
    qty: QtyE2
    bid: PriceE4 | None
    ask: PriceE4 | None
    age_ns: int | None


class Leg(NamedTuple):
    """Another market of the same event: position, and what works there with its worst limit price."""

    ticker: str
    qty: QtyE2
    bids: QtyE2
    bid_price: PriceE4
    asks: QtyE2
    ask_price: PriceE4


class Facts(NamedTuple):
    """What a decision reads of the account and the market; with the intent and the limits it decides alone.

    Attributes:
        state: Effective trading state.
        position, buys, sells: Of the order's market; working quantity includes UNKNOWN and external orders.
        open_value: The account's value at the session's open plus deposits since; None when unknown.
        cash: Now.
        held: Every position with its price.
        is_open: Whether the market takes orders now.
        since_last_ns: Since the last admitted increasing order; None when there was none.
        legs: The other markets of an event whose outcomes exclude each other; empty otherwise.
        breaker: The circuit breaker that gave no leave to place; "" when none stood in the way.
    """

    state: TradingState
    position: QtyE2
    buys: QtyE2
    sells: QtyE2
    open_value: MoneyE6 | None
    cash: MoneyE6
    held: tuple[Held, ...]
    is_open: bool
    since_last_ns: int | None = None
    legs: tuple[Leg, ...] = ()
    breaker: str = ""


class Judgement(NamedTuple):
    """Every row, and the first that did not pass; None allows."""

    rows: tuple[Row, ...]
    refused: Row | None
    reducing: bool


def judge(intent: Intent, facts: Facts, limits: RiskLimits) -> Judgement:
    """Decide, from values alone."""
    reducing = is_reducing(intent, facts)
    rows = (
        check_state(facts, limits, reducing=reducing),
        check_price(intent),
        check_count(intent),
        check_market_open(intent, facts),
        check_reduce_only(intent, reducing=reducing),
        check_position(intent, facts, limits),
        check_order_value(intent, limits, reducing=reducing),
        check_daily_loss(facts, limits, reducing=reducing),
        check_breaker(facts),
    )
    for row in rows:
        if not row.ok:
            return Judgement(rows, row, reducing)
    return Judgement(rows, None, reducing)


def check_state(facts: Facts, limits: RiskLimits, *, reducing: bool) -> Row:
    """Refuse what the trading state does not allow; value and bound are ranks of severity."""
    state = facts.state
    if state is TradingState.THROTTLED and not reducing:
        wait_ns = limits.throttled_interval_secs * NANOS
        since_ns = wait_ns if facts.since_last_ns is None else facts.since_last_ns
        return Row(Code.STATE_THROTTLED, "account", wait_ns - since_ns, 0, MILLIS, since_ns >= wait_ns)
    bound = TradingState.REDUCING if reducing else TradingState.THROTTLED
    return Row(_STATE_CODES[state], "account", state, bound, STATE, state <= bound)


_STATE_CODES = {
    TradingState.ACTIVE: Code.STATE_REDUCING,
    TradingState.THROTTLED: Code.STATE_THROTTLED,
    TradingState.REDUCING: Code.STATE_REDUCING,
    TradingState.CANCEL_ONLY: Code.STATE_CANCEL_ONLY,
    TradingState.HALTED: Code.STATE_HALTED,
}


def check_price(intent: Intent) -> Row:
    """Refuse a price outside (0, 1) or off the market's grid."""
    refusal = intent.instrument.check_price(intent.yes_price)
    code = refusal.code if refusal else Code.PRICE_OFF_GRID
    return Row(
        code, intent.ticker, notional(intent.yes_price, _ONE), notional(ONE_DOLLAR_E4, _ONE), USD, not refusal
    )


def check_count(intent: Intent) -> Row:
    """Refuse a count that is not positive or not a whole number of the market's steps."""
    refusal = intent.instrument.check_count(intent.count)
    code = refusal.code if refusal else Code.COUNT_BELOW_STEP
    return Row(code, intent.ticker, intent.count, intent.instrument.qty_step, CONTRACTS, not refusal)


def check_market_open(intent: Intent, facts: Facts) -> Row:
    """Refuse an order that the venue would not take now."""
    return Row(Code.MARKET_CLOSED, intent.ticker, 0, 0, "", facts.is_open)


def check_reduce_only(intent: Intent, *, reducing: bool) -> Row:
    """Refuse an order that its sender declares to only close, and that does more."""
    return Row(Code.NOT_REDUCING, intent.ticker, 0, 0, "", reducing or not intent.signal.reduce_only)


def check_position(intent: Intent, facts: Facts, limits: RiskLimits) -> Row:
    """Refuse when everything working on this side and this order, all filled, would exceed the limit.

    Opposite working orders are never netted: they may not fill.
    """
    worst = position_after(intent, facts)
    return Row(
        Code.POSITION_LIMIT_EXCEEDED,
        intent.ticker,
        worst,
        limits.max_position,
        CONTRACTS,
        worst <= limits.max_position,
    )


def check_order_value(intent: Intent, limits: RiskLimits, *, reducing: bool) -> Row:
    """Refuse an order that costs too much: count times the price of the side actually paid, without fees."""
    value = order_value(intent)
    bound = limits.max_exit_value if reducing else limits.max_order_value
    return Row(Code.ORDER_VALUE_EXCEEDED, intent.ticker, value, bound, USD, value <= bound)


def check_daily_loss(facts: Facts, limits: RiskLimits, *, reducing: bool) -> Row:
    """Refuse what adds risk once the session lost more than the limit, or when the loss cannot be known."""
    if facts.open_value is None:
        return Row(Code.SESSION_UNKNOWN, "account", 0, 0, "", reducing)
    total: int = facts.cash
    for ticker, qty, bid, ask, age_ns in facts.held:
        if age_ns is None:
            return Row(Code.MARK_UNKNOWN, ticker, 0, 0, "", reducing)
        if age_ns > limits.max_mark_age_secs * NANOS:
            return Row(Code.MARK_STALE, ticker, age_ns, limits.max_mark_age_ns, MILLIS, reducing)
        total += qty * Mark(bid, ask, 0).liquidation_price(qty)
    loss = facts.open_value - total
    bound = limits.max_daily_loss
    return Row(Code.DAILY_LOSS_EXCEEDED, "account", loss, bound, USD, reducing or loss <= bound)


def check_breaker(facts: Facts) -> Row:
    """Refuse while the venue's circuit breaker is open; the breaker itself is asked last, after all limits."""
    return Row(Code.CIRCUIT_BREAKER_OPEN, facts.breaker, 0, 0, "", not facts.breaker)


def position_after(intent: Intent, facts: Facts) -> QtyE2:
    """Worst case on the order's side, counted towards that side: long for a bid, short for an ask."""
    if intent.book_side is BookSide.BID:
        return QtyE2(facts.position + facts.buys + intent.count)
    return QtyE2(facts.sells + intent.count - facts.position)


def order_value(intent: Intent) -> MoneyE6:
    """Count times the price paid: a bid pays the YES price, an ask the NO price."""
    paid = intent.yes_price if intent.book_side is BookSide.BID else complement(intent.yes_price)
    return notional(paid, intent.count)


def is_reducing(intent: Intent, facts: Facts) -> bool:
    """Whether the order closes at most what can be closed and leaves its event's worst outcome no worse."""
    if intent.book_side is BookSide.BID:
        closable = -facts.position - facts.buys
    else:
        closable = facts.position - facts.sells
    if not 0 < intent.count <= closable:
        return False
    if not facts.legs:
        return True
    own = Leg(intent.ticker, facts.position, facts.buys, intent.yes_price, facts.sells, intent.yes_price)
    outcomes = ["", *(leg.ticker for leg in facts.legs), intent.ticker]
    if intent.instrument.event_exhaustive:
        outcomes.remove("")
    before = min(_outcome(winner, (own, *facts.legs)) for winner in outcomes)
    after = min(_outcome(winner, (own, *facts.legs)) + _change(intent, winner=winner) for winner in outcomes)
    return after >= before


def _outcome(winner: str, legs: Sequence[Leg]) -> int:
    """What the event is worth if *winner* pays, each working order filled or not, whichever is worse."""
    total = 0
    for leg in legs:
        worth = ONE_DOLLAR_E4 if leg.ticker == winner else 0
        total += leg.qty * worth
        total += min(0, leg.bids * (worth - leg.bid_price))
        total += min(0, leg.asks * (leg.ask_price - worth))
    return total


def _change(intent: Intent, *, winner: str) -> int:
    """What the order, filled at its limit, adds to the event's worth if *winner* pays."""
    worth = ONE_DOLLAR_E4 if intent.ticker == winner else 0
    return intent.delta * (worth - intent.yes_price)


_ONE = QtyE2(100)
