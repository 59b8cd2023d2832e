"""What a breaker tells the world: events for listeners, records for the log, figures, and what survives a restart.

All of it is immutable and may travel to other threads and processes. Times are UTC nanoseconds or seconds, as the
names say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypedDict

from holdfast.breaker.machine import BreakerState


class BreakerEventKind(StrEnum):
    """What happened; the values are the risk-event types."""

    STATE_CHANGE = "circuit_breaker_state_change"
    FAILURE = "circuit_breaker_failure"
    SUCCESS = "circuit_breaker_success"
    MANUAL_RESET = "circuit_breaker_manual_reset"


@dataclass(frozen=True, slots=True)
class BreakerEvent:
    """A fact about a breaker, for people and records.

    Attributes:
        kind: STATE_CHANGE; FAILURE of a call that counts; SUCCESS of a probe; MANUAL_RESET beside its change.
        breaker: Its name.
        old_state, new_state: The same for FAILURE and SUCCESS.
        failure_count: Failures in a row then.
        ts_ns: UTC, nanoseconds.
        reason: Why; who: the person behind it, or "".
        retry_after_secs: Seconds until a probe may go, or None.
    """

    kind: BreakerEventKind
    breaker: str
    old_state: BreakerState
    new_state: BreakerState
    failure_count: int
    ts_ns: int
    reason: str = ""
    who: str = ""
    retry_after_secs: float | None = None


class BreakerEventSink(Protocol):
    """What `event_logger` must offer; it must not block for long."""

    def emit(self, event: BreakerEvent, /) -> object:
        """Take one event."""
        ...


class BreakerAudit(Protocol):
    """The part of `AuditLogger` that a breaker uses, for its state changes."""

    def record(self, type: str, details: dict[str, Any], /, *, component: str = "") -> object:  # noqa: A002  the log's own word
        """Append one record."""
        ...


class BreakerStats(TypedDict):
    """A breaker's figures at one moment; calls that are still under way are in none of them.

    `total_calls` = successful + failed + ignored + not reached + rejected; `success_rate` = successful / total, a
    ratio from 0 to 1, 0.0 before the first call. `late_*` say how many of the successes and failures came from an
    earlier era. Times end in their unit; `next_probe_secs` is None where only a person can help.
    """

    state: str
    total_calls: int
    successful_calls: int
    failed_calls: int
    ignored_calls: int
    not_reached_calls: int
    rejected_calls: int
    success_rate: float
    late_success: int
    late_failure: int
    consecutive_failures: int
    era: int
    since_ns: int
    reason: str
    who: str
    last_error: str
    next_probe_secs: float | None
    listener_errors: int
    last_listener_error: str


class BreakerSnapshot(NamedTuple):
    """What must survive a restart: whether a person closed this breaker off, why and who."""

    name: str
    state: BreakerState
    reason: str
    who: str


def recorder(audit: BreakerAudit) -> Callable[[BreakerEvent], object]:
    """A listener that writes state changes to *audit*."""

    def record(event: BreakerEvent) -> None:
        if event.kind is not BreakerEventKind.STATE_CHANGE:
            return
        reason = f"{event.reason} (by {event.who})" if event.who else event.reason
        details: dict[str, Any] = {
            "breaker": event.breaker,
            "from": event.old_state.value,
            "to": event.new_state.value,
            "reason": reason,
            "failures": event.failure_count,
            "retry_after_secs": event.retry_after_secs,
        }
        audit.record("BREAKER", details, component="breaker")

    return record
