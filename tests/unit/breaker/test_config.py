"""Configuration: positional order, one error for every bad field, and what counts as failure."""

import asyncio
import math
import pickle

import pytest

from holdfast.breaker.config import (
    PRESETS,
    CircuitBreakerConfig,
    default_error_verdict,
    verdict_for_status,
)
from holdfast.breaker.machine import Verdict
from holdfast.core.errors import (
    CircuitBreakerOpenError,
    ConfigError,
    VenueAnswerUnknown,
    VenueRejected,
    VenueUnreachable,
)


@pytest.mark.contract("B1")
def test_config_takes_the_contracts_fields_in_order_with_their_defaults():
    """The five positional fields and their defaults are the contract's."""
    assert CircuitBreakerConfig() == CircuitBreakerConfig(5, 60, 3, 300, 30)
    config = CircuitBreakerConfig(1, 2, 3, 4, 5)
    assert (config.failure_threshold, config.failure_window_secs, config.half_open_max_tries) == (1, 2, 3)
    assert (config.open_timeout_secs, config.half_open_timeout_secs) == (4, 5)


def test_config_names_every_bad_field_in_one_error():
    """One ConfigError lists all five fields that cannot be used, with their values."""
    with pytest.raises(ConfigError) as caught:
        CircuitBreakerConfig(0, math.nan, True, -1, math.inf, call_timeout_secs=0)
    text = str(caught.value)
    assert text.count("\n") == 5
    for part in (
        "failure_threshold = 0",
        "failure_window_secs = nan",
        "half_open_max_tries = True",
        "open_timeout_secs = -1",
        "half_open_timeout_secs = inf",
        "call_timeout_secs = 0",
    ):
        assert part in text


@pytest.mark.parametrize("bad", ["5", None, 5.0, 1001])
def test_config_refuses_a_count_that_is_no_whole_number_in_range(bad):
    """Text, None, floats and numbers beyond 1,000 are no threshold."""
    with pytest.raises(ConfigError, match="failure_threshold"):
        CircuitBreakerConfig(bad)


@pytest.mark.contract("A5")
def test_presets_are_the_contracts():
    """The four presets hold the contract's failures, recovery and successes."""
    figures = {
        name: (config.failure_threshold, config.open_timeout_secs, config.half_open_max_tries)
        for name, config in PRESETS.items()
    }
    assert figures == {
        "kalshi_api": (5, 60, 2),
        "polymarket_api": (5, 60, 2),
        "sportradar_api": (3, 120, 2),
        "gemini_api": (10, 30, 3),
    }
    assert PRESETS["kalshi_api"].call_timeout_secs == 30


def test_a_probes_lease_outlasts_the_calls_time_limit_in_every_preset():
    """No preset lets a second probe start while the first may still be answered."""
    for config in PRESETS.values():
        assert config.half_open_timeout_secs > config.call_timeout_secs


@pytest.mark.contract("A4")
@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ((None, 0, -1, 408, 500, 502, 503, 504, 599, 600), Verdict.FAILURE),
        ((200, 201, 204), Verdict.SUCCESS),
        ((401, 403), Verdict.LATCH),
        ((425, 429, 409, 400, 404, 410, 422, 100, 301), Verdict.IGNORED),
    ],
)
def test_verdict_for_status_is_the_contracts_rule(statuses, verdict):
    """No answer, 408 and 5xx fail; 401 and 403 latch; 425, 429 and the caller's own mistakes prove nothing."""
    assert {verdict_for_status(status) for status in statuses} == {verdict}


@pytest.mark.contract("A4")
def test_strict_status_counts_every_answer_from_400_on():
    """With strict status every 4xx and 5xx is a failure, and nothing below is."""
    assert {verdict_for_status(status, strict=True) for status in range(400, 600)} == {Verdict.FAILURE}
    assert {verdict_for_status(status, strict=True) for status in range(200, 300)} == {Verdict.SUCCESS}


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (VenueUnreachable("refused"), Verdict.FAILURE),
        (VenueAnswerUnknown("lost"), Verdict.FAILURE),
        (TimeoutError(), Verdict.FAILURE),
        (VenueRejected("no", code="bad_price", status=400), Verdict.IGNORED),
        (VenueRejected("no", code="no_status"), Verdict.IGNORED),
        (VenueRejected("no", code="bad_key", status=401), Verdict.LATCH),
        (CircuitBreakerOpenError("x", breaker="y", retry_after_secs=1.0), Verdict.NOT_REACHED),
        (asyncio.CancelledError(), Verdict.IGNORED),
        (KeyboardInterrupt(), Verdict.IGNORED),
    ],
)
def test_default_error_verdict_tells_apart_what_proves_what(error, verdict):
    """A venue's no, a refusal of an inner breaker and a cancellation are no failures of the dependency."""
    assert default_error_verdict(error) is verdict


def test_config_travels_by_pickle():
    """A configuration sent to another process is the same configuration."""
    config = CircuitBreakerConfig(4, call_timeout_secs=2)
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301  our own bytes
