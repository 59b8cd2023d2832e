"""Every way to say no, as a closed set of codes and a value that explains itself.

A code is the contract's name where the contract has one. `RejectReason` carries the facts of one refusal:
what was measured, against which bound, in which unit, for which keys. It prints as one line.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Code(StrEnum):
    """Why an order was refused by us. The comment says what the trader can do."""

    # limits: the order is too much
    POSITION_LIMIT_EXCEEDED = "position_limit_exceeded"  # reduce, or raise max_position_size
    ORDER_VALUE_EXCEEDED = "order_value_exceeded"  # split the order, or raise max_order_value
    DAILY_LOSS_EXCEEDED = "daily_loss_exceeded"  # stop for today; only reducing orders pass
    OPEN_ORDERS_EXCEEDED = "open_orders_exceeded"  # cancel something first
    # the order itself is wrong
    UNKNOWN_INSTRUMENT = "unknown_instrument"  # check the ticker
    PRICE_OUT_OF_RANGE = "price_out_of_range"  # the price of a contract lies strictly between 0 and 1
    PRICE_OFF_GRID = "price_off_grid"  # move to the tick grid
    BAD_COUNT = "bad_count"  # a count is positive
    COUNT_BELOW_STEP = "count_below_step"  # the market trades in larger steps
    BAD_INPUT = "bad_input"  # a field cannot be read
    INTENT_CONFLICT = "intent_conflict"  # this key was used for another order
    DUPLICATE_INTENT = "duplicate_intent"  # already decided; the recorded outcome stands
    # the world does not allow it now
    MARKET_CLOSED = "market_closed"  # wait, or choose another market
    MARK_UNKNOWN = "mark_unknown"  # a held instrument has no price; wait for its book
    MARK_STALE = "mark_stale"  # its price is too old; wait for its book
    BALANCE_UNKNOWN = "balance_unknown"  # the account could not be read
    INSUFFICIENT_BALANCE = "insufficient_balance"  # deposit or reduce
    SESSION_UNKNOWN = "session_unknown"  # the day's opening value is not recorded yet
    # the state does not allow it
    STATE_CANCEL_ONLY = (
        "state_cancel_only"  # reconcile first; `holdfast audit query --type RECONCILE` says what differs
    )
    STATE_THROTTLED = "state_throttled"  # wait a moment; increasing orders are paced
    STATE_REDUCING = "state_reducing"  # only orders that reduce risk pass
    STATE_HALTED = "state_halted"  # a person releases it
    CIRCUIT_BREAKER_OPEN = "circuit_breaker_open"  # the venue is failing; wait for the probe
    AUDIT_UNAVAILABLE = "audit_unavailable"  # the log cannot take a record; nothing leaves
    NOT_REDUCING = "not_reducing"  # declared reduce_only, but it adds risk or exceeds what can be closed
    DEADLINE_PASSED = "deadline_passed"  # the admission grew too old before it could be sent; ask again
    # the fixed summary of the router
    RISK_CHECK_FAILED = "risk_check_failed"


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
