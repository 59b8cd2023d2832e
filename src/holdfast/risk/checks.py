"""May this order leave? One small pure function per limit, `judge`, which asks them all, and `passes`.

Every check returns a `Row`: what was measured, against which bound, and whether it passes. `value > bound`
refuses, equal passes. All rows are made even after the first refusal; the first row that does not pass, in
this order, is the reason:

    state, price, count, market open, reduce-only kept, position, order value, daily loss, breaker

Unknown is a no: a missing or stale mark of a held market, or an unknown session, refuses under its own
name. An empty side of a book is bounded, not unknown: a long is worth nothing, a short costs a dollar.

Most orders pass, and making rows takes longer than comparing numbers. `passes` tells the same nine checks as
one expression and nothing else; the gate asks `judge` only for what does not pass and for what it writes down.

An order reduces when it takes away from the position no more than can be closed, exits already working or
UNKNOWN counted, and when it leaves the worst outcome of its event no worse. A reducing order is never refused
by an exposure limit (position, daily loss); its size has a wider bound.

Orders of options, combinations and stocks pass the same nine checks and then those of `contracts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from holdfast.core.clock import NANOS
from holdfast.core.instruments import InstrumentKind
from holdfast.core.money import ONE_DOLLAR_E4, ONE_DOLLAR_E6, MoneyE6, PriceE4, QtyE2
from holdfast.core.reasons import Code
from holdfast.core.signals import Intent
from holdfast.risk.contracts import (
    ContractFacts,
    contract_rows,
    is_closing,
    passes_contract,
    worst_position,
)
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits
from holdfast.risk.market import Holdings
from holdfast.risk.rows import CONTRACTS, MILLIS, STATE, USD, Row
from holdfast.risk.terms import Terms

# Looking a member up on its enum costs more than a comparison.
_BINARY: Final = InstrumentKind.BINARY
_ACTIVE: Final = TradingState.ACTIVE
_THROTTLED: Final = TradingState.THROTTLED
_REDUCING: Final = TradingState.REDUCING


class Leg(NamedTuple):
    """One market of an exclusive event: what is held there, or what works there at one limit price."""

    ticker: str
    qty: QtyE2
    bids: QtyE2
    bid_price: PriceE4
    asks: QtyE2
    ask_price: PriceE4


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What a decision reads of the account and the market; with the intent and the limits it decides alone.

    Attributes:
        state: Effective trading state.
        position, buys, sells: Of the order's market; working quantity includes UNKNOWN and external orders.
        open_value: The account's value at the session's open plus deposits since; None when unknown.
        cash: Now.
        holdings: Every position with its price.
        now_ns, alive_ns: Then, and when the stream was last proven alive; clock monotonic.
        is_open: Whether the market takes orders now.
        since_last_ns: Since the last admitted increasing order; None when there was none.
        legs: Everything held and working in an event whose outcomes exclude each other, the order's own market
            among it; empty where the account is in no other market of it.
        breaker: The circuit breaker that gave no leave to place; "" when none stood in the way.
        contract: What an order of an option, a combination or a stock reads besides; None for an event contract.
    """

    state: TradingState
    position: QtyE2
    buys: QtyE2
    sells: QtyE2
    open_value: MoneyE6 | None
    cash: MoneyE6
    holdings: Holdings
    now_ns: int
    alive_ns: int
    is_open: bool
    since_last_ns: int | None = None
    legs: tuple[Leg, ...] = ()
    breaker: str = ""
    contract: ContractFacts | None = None


class Judgement(NamedTuple):
    """Every row, and the first that did not pass; None allows."""

    rows: tuple[Row, ...]
    refused: Row | None
    reducing: bool


def judge(intent: Intent, facts: Facts, limits: RiskLimits) -> Judgement:
    """Decide, from values alone."""
    order = Terms.of(intent)
    reducing = is_reducing(order, facts)
    rows: tuple[Row, ...] = (
        check_state(facts, limits, reducing=reducing),
        check_price(order),
        check_count(order),
        check_market_open(order, facts),
        check_reduce_only(order, reducing=reducing),
        check_position(order, facts, limits),
        check_order_value(order, limits, reducing=reducing),
        check_daily_loss(facts, limits, reducing=reducing),
        check_breaker(facts),
    )
    if facts.contract is not None:
        rows += contract_rows(order, facts.contract, limits, reducing=reducing)
    for row in rows:
        if not row.ok:
            return Judgement(rows, row, reducing)
    return Judgement(rows, None, reducing)


def passes(order: Terms, facts: Facts, limits: RiskLimits, *, reducing: bool) -> bool:
    """Whether no row of `judge` would refuse, told without rows: the same checks in the same order.

    A property test holds the two together, and no decision that passed is written down when its rows refuse.
    """
    qty, instrument = order.qty, order.instrument
    return (
        (facts.state is _ACTIVE or check_state(facts, limits, reducing=reducing).ok)
        and instrument.check_price(order.yes_price) is None
        and qty > 0
        and qty % instrument.qty_step == 0
        and facts.is_open
        and (reducing or not order.reduce_only)
        and order.value <= (limits.max_exit_value if reducing else limits.max_order_value)
        and (reducing or is_loss_bounded(facts, limits))
        and not facts.breaker
        and (
            # Spelt out: a call costs more than what it would return.
            (facts.position + facts.buys + qty if order.is_bid else facts.sells + qty - facts.position)
            <= limits.max_position
            if facts.contract is None
            else passes_contract(order, facts.contract, limits, reducing=reducing)
        )
    )


def check_state(facts: Facts, limits: RiskLimits, *, reducing: bool) -> Row:
    """Refuse what the trading state does not allow; value and bound are ranks of severity."""
    state = facts.state
    if state is _THROTTLED and not reducing:
        wait_ns = limits.throttled_interval_secs * NANOS
        since_ns = wait_ns if facts.since_last_ns is None else facts.since_last_ns
        return Row(Code.STATE_THROTTLED, "account", wait_ns - since_ns, 0, MILLIS, since_ns >= wait_ns)
    bound = _REDUCING if reducing else _THROTTLED
    return Row(_STATE_CODES[state], "account", state, bound, STATE, state <= bound)


_STATE_CODES = (  # by rank; ACTIVE refuses nothing
    Code.STATE_REDUCING,
    Code.STATE_THROTTLED,
    Code.STATE_REDUCING,
    Code.STATE_CANCEL_ONLY,
    Code.STATE_HALTED,
)


def check_price(order: Terms) -> Row:
    """Refuse a price that the kind cannot have, for an event contract outside (0, 1), or off the market's grid."""
    refusal = order.instrument.check_price(order.yes_price)
    code = refusal.code if refusal else Code.PRICE_OFF_GRID
    bound = ONE_DOLLAR_E6 if order.instrument.kind is _BINARY else 0
    return Row(code, order.ticker, order.yes_price * 100, bound, USD, refusal is None)


def check_count(order: Terms) -> Row:
    """Refuse a count that is not positive or not a whole number of the market's steps."""
    refusal = order.instrument.check_count(order.qty)
    code = refusal.code if refusal else Code.COUNT_BELOW_STEP
    return Row(code, order.ticker, order.qty, order.instrument.qty_step, CONTRACTS, refusal is None)


def check_market_open(order: Terms, facts: Facts) -> Row:
    """Refuse an order that the venue would not take now."""
    return Row(Code.MARKET_CLOSED, order.ticker, 0, 0, "", facts.is_open)


def check_reduce_only(order: Terms, *, reducing: bool) -> Row:
    """Refuse an order that its sender declares to only close, and that does more."""
    return Row(Code.NOT_REDUCING, order.ticker, 0, 0, "", reducing or not order.reduce_only)


def check_position(order: Terms, facts: Facts, limits: RiskLimits) -> Row:
    """Refuse when everything working on this side and this order, all filled, would exceed the limit.

    Opposite working orders are never netted: they may not fill. Of a combination the largest leg counts.
    """
    if facts.contract is None:
        ticker, worst = order.ticker, _position_after(order, facts)
    else:
        ticker, worst = worst_position(order, facts.contract)
    return Row(
        Code.POSITION_LIMIT_EXCEEDED,
        ticker,
        worst,
        limits.max_position,
        CONTRACTS,
        worst <= limits.max_position,
    )


def check_order_value(order: Terms, limits: RiskLimits, *, reducing: bool) -> Row:
    """Refuse an order that costs too much: count times the price of the side actually paid, without fees."""
    value = order.value
    bound = limits.max_exit_value if reducing else limits.max_order_value
    return Row(Code.ORDER_VALUE_EXCEEDED, order.ticker, value, bound, USD, value <= bound)


def check_daily_loss(facts: Facts, limits: RiskLimits, *, reducing: bool) -> Row:
    """Refuse what adds risk once the session lost more than the limit, or when the loss cannot be known."""
    if facts.open_value is None:
        return Row(Code.SESSION_UNKNOWN, "account", 0, 0, "", reducing)
    for held, age_ns in facts.holdings.ages(facts.now_ns, facts.alive_ns):
        if age_ns is None:
            return Row(Code.MARK_UNKNOWN, held.ticker, 0, 0, "", reducing)
        if age_ns > limits.max_mark_age_ns:
            return Row(Code.MARK_STALE, held.ticker, age_ns, limits.max_mark_age_ns, MILLIS, reducing)
    worth = facts.holdings.worth
    if worth is None:
        raise AssertionError("holdings without a worth hold a position without a price")
    loss = facts.open_value - facts.cash - worth
    bound = limits.max_daily_loss
    return Row(Code.DAILY_LOSS_EXCEEDED, "account", loss, bound, USD, reducing or loss <= bound)


def check_breaker(facts: Facts) -> Row:
    """Refuse while the venue's circuit breaker is open; the breaker itself is asked last, after all limits."""
    return Row(Code.CIRCUIT_BREAKER_OPEN, facts.breaker, 0, 0, "", not facts.breaker)


def is_loss_bounded(facts: Facts, limits: RiskLimits) -> bool:
    """Whether the session's loss is known and within its limit."""
    opened, holdings = facts.open_value, facts.holdings
    worth = holdings.worth
    return (
        opened is not None
        and worth is not None
        and opened - facts.cash - worth <= limits.max_daily_loss
        and holdings.are_fresh(facts.now_ns, facts.alive_ns, limits.max_mark_age_secs * NANOS)
    )


def _position_after(order: Terms, facts: Facts) -> int:
    """Worst case on the order's side, counted towards that side: long for a bid, short for an ask."""
    if order.is_bid:
        return facts.position + facts.buys + order.qty
    return facts.sells + order.qty - facts.position


def is_reducing(order: Terms, facts: Facts) -> bool:
    """Whether the order closes at most what can be closed and leaves its event's worst outcome no worse."""
    if facts.contract is not None:
        return is_closing(order, facts.contract)
    closable = -facts.position - facts.buys if order.is_bid else facts.position - facts.sells
    if not 0 < order.qty <= closable:
        return False
    if not facts.legs:
        return True
    legs = facts.legs
    outcomes = {leg.ticker for leg in legs} | {order.ticker}
    if order.ticker not in {leg.ticker for leg in legs}:  # a record from before the own market was among them
        price = order.yes_price
        legs = (Leg(order.ticker, facts.position, facts.buys, price, facts.sells, price), *legs)
    if not order.instrument.event_exhaustive:
        outcomes.add("")
    before = min(_outcome(winner, legs) for winner in outcomes)
    after = min(_outcome(winner, legs) + _change(order, winner=winner) for winner in outcomes)
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


def _change(order: Terms, *, winner: str) -> int:
    """What the order, filled at its limit, adds to the event's worth if *winner* pays."""
    worth = ONE_DOLLAR_E4 if order.ticker == winner else 0
    delta = order.qty if order.is_bid else -order.qty
    return delta * (worth - order.yes_price)
