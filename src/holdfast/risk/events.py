"""Risk events: the facts about stops, limits and breakers that people and the lake want to read.

Promise: an event is a value. It becomes one RISK_EVENT record (`details_of`) and is the same event when it is
read back (`event_of_record`); a breaker's own events are taken as they are (`of_breaker`). Premiums are integers of
1/10,000 dollar here and decimal text in the record, measured values and bounds are decimal text in a named unit.

Limits: a record names its component and its time itself, so neither stands in the details; a field that says
nothing ("", None, no metadata, limits version 0) is left out and comes back as that.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from holdfast.audit.schemas import RiskEventDetails
from holdfast.breaker.events import BreakerEvent
from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, format_price, parse_price

CIRCUIT_BREAKER = "circuit_breaker"
TRAILING_STOP = "trailing_stop"
PORTFOLIO_LIMITS = "portfolio_limits"
"""The three components whose events the table was made for; others may have events of their own."""


class RiskEventType(StrEnum):
    """What happened."""

    CIRCUIT_BREAKER_STATE_CHANGE = "circuit_breaker_state_change"
    CIRCUIT_BREAKER_FAILURE = "circuit_breaker_failure"
    CIRCUIT_BREAKER_SUCCESS = "circuit_breaker_success"
    CIRCUIT_BREAKER_MANUAL_RESET = "circuit_breaker_manual_reset"
    TRAILING_STOP_ADD = "trailing_stop_add"
    TRAILING_STOP_ACTIVATE = "trailing_stop_activate"
    TRAILING_STOP_UPDATE = "trailing_stop_update"
    TRAILING_STOP_TRIGGER = "trailing_stop_trigger"
    TRAILING_STOP_REMOVE = "trailing_stop_remove"
    TRAILING_STOP_RESET = "trailing_stop_reset"
    PORTFOLIO_LIMIT_CHECK = "portfolio_limit_check"
    PORTFOLIO_LIMIT_REJECTION = "portfolio_limit_rejection"
    PORTFOLIO_LIMIT_WARNING = "portfolio_limit_warning"


class RiskEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One fact.

    Attributes:
        event_type: What happened.
        component: Which part tells it: "circuit_breaker", "trailing_stop", "portfolio_limits", …
        execution_id: The position's execution it is about, or "".
        old_state: The state before, or "".
        new_state: The state after, or "".
        failure_count: Failures in a row then, or None.
        entry_premium: Premium at entry, 1/10,000 dollar, or None; any sign.
        current_premium: Premium now, likewise.
        highest_premium: The best premium so far, likewise; the lowest one for a short.
        stop_premium: Where the stop stands, likewise.
        action: What a stop did: ADD, ACTIVATE, UPDATE, TRIGGER, REMOVE, RESET; or "".
        limit_type: The limit's code, or "".
        current_value: What was measured, decimal text in `unit`, or "".
        limit_value: The bound, likewise.
        allowed: Whether a check passed; None where nothing was checked.
        rejection_reason: Why not, or "".
        metadata: Whatever else is known; plain JSON values.
        symbol: The underlying or instrument, or "".
        scope: What the value counts over: "portfolio", "symbol:SPY", a breaker's name, …
        unit: Of `current_value` and `limit_value`, or "".
        limits_version: Which set of limits was in force, or 0.
        decision_id: The gate's decision it belongs to, or "".
        intent_id: The intent it belongs to, or "".
    """

    event_type: RiskEventType
    component: str
    execution_id: str = ""
    old_state: str = ""
    new_state: str = ""
    failure_count: int | None = None
    entry_premium: PriceE4 | None = None
    current_premium: PriceE4 | None = None
    highest_premium: PriceE4 | None = None
    stop_premium: PriceE4 | None = None
    action: str = ""
    limit_type: str = ""
    current_value: str = ""
    limit_value: str = ""
    allowed: bool | None = None
    rejection_reason: str = ""
    metadata: dict[str, Any] = {}
    symbol: str = ""
    scope: str = ""
    unit: str = ""
    limits_version: int = 0
    decision_id: str = ""
    intent_id: str = ""


class RiskEventSink(Protocol):
    """What `event_logger` must offer to stops, limits and workflows; it must not block for long, nor raise."""

    def emit(self, event: RiskEvent | BreakerEvent, /) -> object:
        """Take one event."""
        ...


class RiskRecord(Protocol):
    """The part of a RISK_EVENT record, or of a query's entry, that an event is read from."""

    @property
    def component(self) -> str:
        """Which part wrote it."""
        ...

    @property
    def details(self) -> Mapping[str, Any]:
        """As the schema says."""
        ...


_PREMIUMS = ("entry_premium", "current_premium", "highest_premium", "stop_premium")


def of_breaker(event: BreakerEvent) -> RiskEvent:
    """A breaker's *event* as a risk event; `scope` is the breaker's name."""
    metadata: dict[str, Any] = {}
    if event.reason:
        metadata["reason"] = event.reason
    if event.who:
        metadata["who"] = event.who
    if event.retry_after_secs is not None:
        metadata["retry_after_secs"] = event.retry_after_secs
    return RiskEvent(
        event_type=RiskEventType(event.kind.value),
        component=CIRCUIT_BREAKER,
        old_state=event.old_state.value,
        new_state=event.new_state.value,
        failure_count=event.failure_count,
        metadata=metadata,
        scope=event.breaker,
    )


def details_of(event: RiskEvent) -> RiskEventDetails:
    """The details of *event*'s RISK_EVENT record; its component goes into the record's own field.

    Raises:
        TypeError: A premium is no integer.
    """
    current, highest = event.current_premium, event.highest_premium
    current_text = _text(current)
    return RiskEventDetails(
        event.event_type,
        event.execution_id,
        event.old_state,
        event.new_state,
        event.failure_count,
        _entry_text(event.entry_premium),
        current_text,
        current_text if isinstance(highest, int) and highest == current else _text(highest),
        _text(event.stop_premium),
        event.action,
        event.limit_type,
        event.current_value,
        event.limit_value,
        event.allowed,
        event.rejection_reason,
        event.metadata,
        event.symbol,
        event.scope,
        event.unit,
        event.limits_version,
        event.decision_id,
        event.intent_id,
    )


def _text(premium: float | None) -> str:
    """`format_price`, quick for the usual ones; "" for None. Who calls is not always checked for types."""
    if premium is None:
        return ""
    if not isinstance(premium, int):
        raise TypeError(f"premium {premium!r} is no integer of 1/10,000 dollar")
    if premium < 0:
        return format_price(PriceE4(premium))
    return "%d.%04d" % divmod(premium, 10_000)  # noqa: UP031  half the time of an f-string


_entry_text = lru_cache(maxsize=1024, typed=True)(_text)
"""An entry premium comes with every event of its stop."""


def event_of_record(record: RiskRecord) -> RiskEvent:
    """The event that a RISK_EVENT *record* holds; keys of later versions are passed over.

    Raises:
        BadInput: It holds something else.
    """
    fields = {name: value for name, value in record.details.items() if name not in _PREMIUMS}
    try:
        event = msgspec.convert({**fields, "component": record.component}, RiskEvent)
        premiums = {
            name: parse_price(record.details[name], name) for name in _PREMIUMS if name in record.details
        }
    except msgspec.ValidationError as why:
        raise BadInput(f"not a risk event: {why}") from why
    return msgspec.structs.replace(event, **premiums)
