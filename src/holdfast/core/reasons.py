"""Every way to say no, as a closed set of codes and a value that explains itself.

A code is the contract's name where the contract has one. `RejectReason` carries the facts of one refusal:
what was measured, against which bound, in which unit, for which keys. It prints as one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Code(StrEnum):
    """Why an order was refused by us; `HINTS` says what the trader can do about each."""

    # limits: the order is too much
    POSITION_LIMIT_EXCEEDED = "position_limit_exceeded"
    ORDER_VALUE_EXCEEDED = "order_value_exceeded"
    DAILY_LOSS_EXCEEDED = "daily_loss_exceeded"
    OPEN_ORDERS_EXCEEDED = "open_orders_exceeded"
    PORTFOLIO_DELTA = "portfolio_delta"
    PORTFOLIO_GAMMA = "portfolio_gamma"
    SYMBOL_DELTA = "symbol_delta"
    CONCENTRATION = "concentration"
    CORRELATED_EXPOSURE = "correlated_exposure"
    TOTAL_EXPOSURE_CAP = "total_exposure_cap"
    UNBOUNDED_LOSS = "unbounded_loss"
    MAX_POSITIONS = "max_positions"
    BUYING_POWER = "buying_power"
    # the order itself is wrong
    UNKNOWN_INSTRUMENT = "unknown_instrument"
    INSTRUMENT_UNREAD = "instrument_unread"
    PRICE_OUT_OF_RANGE = "price_out_of_range"
    PRICE_OFF_GRID = "price_off_grid"
    BAD_COUNT = "bad_count"
    COUNT_BELOW_STEP = "count_below_step"
    BAD_INPUT = "bad_input"
    INTENT_CONFLICT = "intent_conflict"
    DUPLICATE_INTENT = "duplicate_intent"
    # the world does not allow it now
    MARKET_CLOSED = "market_closed"
    MARK_UNKNOWN = "mark_unknown"
    MARK_STALE = "mark_stale"
    BALANCE_UNKNOWN = "balance_unknown"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    SESSION_UNKNOWN = "session_unknown"
    EXPIRED = "expired"
    NEAR_EXPIRY = "near_expiry"
    SHORT_ON_EXPIRY_DAY = "short_on_expiry_day"
    GREEKS_UNKNOWN = "greeks_unknown"
    GREEKS_STALE = "greeks_stale"
    IV_UNSOLVED = "iv_unsolved"
    EQUITY_UNKNOWN = "equity_unknown"
    REFERENCE_UNKNOWN = "reference_unknown"
    QUOTE_CROSSED = "quote_crossed"
    QUOTE_ONE_SIDED = "quote_one_sided"
    # the state does not allow it
    STATE_CANCEL_ONLY = "state_cancel_only"
    STATE_THROTTLED = "state_throttled"
    STATE_REDUCING = "state_reducing"
    STATE_HALTED = "state_halted"
    CIRCUIT_BREAKER_OPEN = "circuit_breaker_open"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    NOT_REDUCING = "not_reducing"
    DEADLINE_PASSED = "deadline_passed"
    # the fixed summary of the router
    RISK_CHECK_FAILED = "risk_check_failed"


HINTS: Mapping[Code, str] = {
    Code.POSITION_LIMIT_EXCEEDED: "reduce, or raise max_position_size",
    Code.ORDER_VALUE_EXCEEDED: "split the order, or raise max_order_value",
    Code.DAILY_LOSS_EXCEEDED: "stop for today; only reducing orders pass",
    Code.OPEN_ORDERS_EXCEEDED: "cancel something first",
    Code.PORTFOLIO_DELTA: "hedge or close something, or raise max_portfolio_delta",
    Code.PORTFOLIO_GAMMA: "close short options near the money, or raise max_portfolio_gamma",
    Code.SYMBOL_DELTA: "hedge or close something on this underlying, or raise max_per_symbol_delta",
    Code.CONCENTRATION: "make the order smaller, or raise max_single_position_pct",
    Code.CORRELATED_EXPOSURE: "close something of the same group, or raise max_correlated_pct",
    Code.TOTAL_EXPOSURE_CAP: "close something, or raise total_exposure_cap",
    Code.UNBOUNDED_LOSS: "buy the protective leg of the same expiry first, or send both as one combination; a leg of another expiry "
    "protects nothing by itself: somebody has to exercise or sell it in time",
    Code.MAX_POSITIONS: "close a position of this symbol first",
    Code.BUYING_POWER: "make the order smaller, or deposit; the broker says what it would still carry",
    Code.UNKNOWN_INSTRUMENT: "check the ticker: the venue lists no such market",
    Code.INSTRUMENT_UNREAD: "the venue did not say the rules of this market; try again when it answers",
    Code.PRICE_OUT_OF_RANGE: "the price of a contract lies strictly between 0 and 1 dollar",
    Code.PRICE_OFF_GRID: "move the price to the market's tick grid",
    Code.BAD_COUNT: "a count is above zero; to sell, say action sell",
    Code.COUNT_BELOW_STEP: "make the count a multiple of the market's step, mostly one whole contract",
    Code.BAD_INPUT: "a field cannot be read",
    Code.INTENT_CONFLICT: "this key was used for another order",
    Code.DUPLICATE_INTENT: "already decided; the recorded outcome stands",
    Code.MARKET_CLOSED: "wait, or choose another market",
    Code.MARK_UNKNOWN: "a held instrument has no price; wait for its book",
    Code.MARK_STALE: "its price is too old; wait for its book",
    Code.BALANCE_UNKNOWN: "the account could not be read",
    Code.INSUFFICIENT_BALANCE: "deposit or reduce",
    Code.SESSION_UNKNOWN: "the day's opening value is not recorded yet",
    Code.EXPIRED: "the contract has expired; choose a later expiry",
    Code.NEAR_EXPIRY: "too close to the end of trading for a new position; choose a later expiry",
    Code.SHORT_ON_EXPIRY_DAY: "nothing is sold short on the day it expires; choose a later expiry",
    Code.GREEKS_UNKNOWN: "a contract held or ordered has no Greeks; wait for its quotes",
    Code.GREEKS_STALE: "its Greeks are too old; wait for its quotes",
    Code.IV_UNSOLVED: "no volatility explains the quote; wait for a better one",
    Code.EQUITY_UNKNOWN: "what the account is worth is not known; wait for the prices of what it holds",
    Code.REFERENCE_UNKNOWN: "give the reference input that the entry rules need (IV rank, VIX)",
    Code.QUOTE_CROSSED: "bid above ask; wait for a quote that can be true",
    Code.QUOTE_ONE_SIDED: "nobody quotes one side; wait for it",
    Code.STATE_CANCEL_ONLY: "reconcile first: the newest RECONCILE and STATE records of the log say what stands in the way",
    Code.STATE_THROTTLED: "wait a moment; increasing orders are paced",
    Code.STATE_REDUCING: "only orders that reduce risk pass",
    Code.STATE_HALTED: "a person releases it",
    Code.CIRCUIT_BREAKER_OPEN: "the venue is failing, or refused the key: the newest BREAKER record of the log says which",
    Code.AUDIT_UNAVAILABLE: "the log cannot take a record, so nothing leaves: free or repair its disk, then start again",
    Code.NOT_REDUCING: "declared reduce_only, but it adds risk or exceeds what can be closed; what protects another "
    "position leaves with it, or after it",
    Code.DEADLINE_PASSED: "the admission grew too old before it could be sent; ask again",
    Code.RISK_CHECK_FAILED: "the first refusal of the same order says why",
}
"""What the trader can do about a refusal, one sentence each."""


class RejectReason(msgspec.Struct, frozen=True, kw_only=True):
    """One refusal.

    Attributes:
        code: What was breached or missing.
        scope: Which instrument, event, strategy, account or venue it concerns.
        value: The measured value as text in *unit*, or "" where nothing was measured.
        bound: The limit it was held against, same unit, or "".
        unit: "contracts", "USD", "orders" ... or "".
        keys: Further facts, for instance ticker and price; already text or plain numbers.
    """

    code: Code
    scope: str = ""
    value: str = ""
    bound: str = ""
    unit: str = ""
    keys: dict[str, str] = {}

    @property
    def hint(self) -> str:
        """What the trader can do about it."""
        return HINTS[self.code]

    def __str__(self) -> str:
        """`order_value_exceeded 620.00 USD > 500.00 USD (ticker=...)`."""
        parts = [str(self.code)]
        if self.value:
            parts.append(f"{self.value} {self.unit}".rstrip())
        if self.bound:
            parts.append(f"> {self.bound} {self.unit}".rstrip())
        if self.keys:
            parts.append("(" + ", ".join(f"{key}={value}" for key, value in self.keys.items()) + ")")
        return " ".join(parts)
