"""What a breaker is told: thresholds, times, and what counts as failure; and the presets of the known venues.

Every field has a unit and a default; one `ConfigError` lists every field that cannot be used. What a failure is
is configuration: `classify_error` and `classify_result` give the verdict of a call, `verdict_for_status` is the
rule for HTTP answers that the venue clients share.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from holdfast.breaker.machine import Rules, Verdict
from holdfast.core.clock import NANOS
from holdfast.core.errors import (
    CircuitBreakerOpenError,
    ConfigError,
    OrderDenied,
    VenueRejected,
)

MAX_SECS = 86_400.0 * 366


@dataclass(frozen=True, slots=True)
class CircuitBreakerConfig:
    """How one breaker behaves.

    Attributes:
        failure_threshold: Failures that open it, in a row or inside the window; 1 to 1,000. Default 5.
        failure_window_secs: Length of that window. Default 60.
        half_open_max_tries: Successful probes that close it; 1 to 1,000. Default 3.
        open_timeout_secs: Wait in OPEN before the first probe. Default 300.
        half_open_timeout_secs: How long a probe may keep the only slot; after that the next call probes.
            Default 30. Shorter than the call's own time limit would let two probes overlap.
        call_timeout_secs: How long a protected call may take, in wall time; None sets no limit (default). An
            asynchronous call is cancelled and counted as failure. A synchronous call cannot be interrupted: it
            keeps its caller waiting, and is counted as failure when it returns too late.
        strict_status: True counts every answer from 400 on as failure. Default False: see `verdict_for_status`.
        classify_error: The verdict of a call that raised; None is `default_error_verdict`. Cancellation and other
            `BaseException`s never get here: they are ignored.
        classify_result: The verdict of a call that returned; None counts every return as success.
    """

    failure_threshold: int = 5
    failure_window_secs: float = 60
    half_open_max_tries: int = 3
    open_timeout_secs: float = 300
    half_open_timeout_secs: float = 30
    _: KW_ONLY
    call_timeout_secs: float | None = None
    strict_status: bool = False
    classify_error: Callable[[Exception], Verdict] | None = None
    classify_result: Callable[[Any], Verdict] | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name} = {value!r} is not a whole number from 1 to 1000"
            for name, value in self._counts().items()
            if type(value) is not int or not 1 <= value <= 1_000
        ]
        problems += [
            f"{name} = {value!r} is not a number of seconds above 0 and at most {MAX_SECS:.0f}"
            for name, value in self._times().items()
            if not _is_secs(value)
        ]
        if problems:
            raise ConfigError("circuit breaker configuration: " + "\n".join(problems))

    def rules(self) -> Rules:
        """The numbers for the machine, in nanoseconds."""
        return Rules(
            failure_threshold=self.failure_threshold,
            failure_window_ns=_ns(self.failure_window_secs),
            half_open_max_tries=self.half_open_max_tries,
            open_timeout_ns=_ns(self.open_timeout_secs),
            half_open_timeout_ns=_ns(self.half_open_timeout_secs),
        )

    def _counts(self) -> dict[str, object]:
        return {
            "failure_threshold": self.failure_threshold,
            "half_open_max_tries": self.half_open_max_tries,
        }

    def _times(self) -> dict[str, object]:
        times: dict[str, object] = {
            "failure_window_secs": self.failure_window_secs,
            "open_timeout_secs": self.open_timeout_secs,
            "half_open_timeout_secs": self.half_open_timeout_secs,
        }
        if self.call_timeout_secs is not None:
            times["call_timeout_secs"] = self.call_timeout_secs
        return times


def verdict_for_status(status: int | None, *, strict: bool = False) -> Verdict:
    """What an HTTP status says about the venue's health.

    | answer | verdict |
    | --- | --- |
    | none (None or 0), 408, 5xx, anything from 600 | failure |
    | 2xx | success |
    | 401, 403 | latch: the key is wrong, only a person can mend it |
    | 425, 429 | ignored: the client holds that class of call |
    | 409, other 4xx, 1xx, 3xx | ignored: the caller's own mistake, or no answer of the service itself |

    *strict* counts every answer from 400 on as failure.
    """
    if status is None or status <= 0 or status >= 500 or status == 408:
        return Verdict.FAILURE
    if strict and status >= 400:
        return Verdict.FAILURE
    if 200 <= status < 300:
        return Verdict.SUCCESS
    return Verdict.LATCH if status in (401, 403) else Verdict.IGNORED


def default_error_verdict(error: BaseException, *, strict: bool = False) -> Verdict:
    """What an exception says about the dependency, where nothing else is configured.

    A refusal of an inner breaker never reached it; our own denial and a cancellation prove nothing; a venue's no
    is judged by its status; every other exception is a failure.
    """
    match error:
        case CircuitBreakerOpenError():
            return Verdict.NOT_REACHED
        case OrderDenied() | asyncio.CancelledError():
            return Verdict.IGNORED
        case VenueRejected(status=status):
            return verdict_for_status(status or 400, strict=strict)
        case Exception():
            return Verdict.FAILURE
        case _:
            return Verdict.IGNORED


def _is_secs(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0 < value <= MAX_SECS


def _ns(secs: float) -> int:
    return round(secs * NANOS)


# Failures, wait in OPEN and successes to close are the contract's; 30 s is the time limit of every call.
KALSHI_API = CircuitBreakerConfig(5, 60, 2, 60, 35, call_timeout_secs=30)
POLYMARKET_API = CircuitBreakerConfig(5, 60, 2, 60, 35, call_timeout_secs=30)
SPORTRADAR_API = CircuitBreakerConfig(3, 60, 2, 120, 35, call_timeout_secs=30)
GEMINI_API = CircuitBreakerConfig(10, 60, 3, 30, 35, call_timeout_secs=30)

PRESETS: dict[str, CircuitBreakerConfig] = {
    "kalshi_api": KALSHI_API,
    "polymarket_api": POLYMARKET_API,
    "sportradar_api": SPORTRADAR_API,
    "gemini_api": GEMINI_API,
}
