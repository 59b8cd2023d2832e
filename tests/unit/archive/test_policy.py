"""How long copies are kept."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from holdfast.archive.policy import Policy, Retention
from holdfast.archive.store import COMPLIANCE, GOVERNANCE, Lock, LockState, lock_headers
from holdfast.core.errors import BadInput

MADE = datetime(2026, 11, 21, 15, 0, 0, 999, tzinfo=UTC)


def test_default_is_seven_years_that_nobody_can_shorten():
    """Without a word, copies are locked in COMPLIANCE mode for seven calendar years."""
    assert Policy().lock(MADE) == Lock(COMPLIANCE, MADE.replace(year=2033), legal_hold=False)


@pytest.mark.parametrize(
    ("text", "made", "until"),
    [
        ("7y", "2026-11-21", "2033-11-21"),
        ("1y", "2028-02-29", "2029-03-01"),
        ("4y", "2028-02-29", "2032-02-29"),
        ("90d", "2026-11-21", "2027-02-19"),
    ],
)
def test_retention_ends_on_the_calendar(text, made, until):
    """Years end on the same day, the leap day's on the 1st of March; days are counted."""
    end = Retention.parse(text).after(datetime.fromisoformat(made).replace(tzinfo=UTC))
    assert f"{end:%Y-%m-%d}" == until


@pytest.mark.parametrize("text", ["", "7", "0y", "-1d", "7 y", "7Y", "101y", "36501d", "1w", "9" * 30 + "d"])
def test_senseless_retention_is_refused(text):
    """What is neither days nor years, or beyond a hundred years, is refused with an example."""
    with pytest.raises(BadInput, match="refused") as refused:
        Retention.parse(text)
    assert "7y" in refused.value.hint


def test_lock_headers_say_mode_and_time_in_utc():
    """The headers of a put say the lock as S3 spells it, the hold only where one is set."""
    assert lock_headers(None) == {}
    headers = lock_headers(Lock(GOVERNANCE, MADE, legal_hold=True))
    assert headers == {
        "x-amz-object-lock-mode": "GOVERNANCE",
        "x-amz-object-lock-retain-until-date": "2026-11-21T15:00:00Z",
        "x-amz-object-lock-legal-hold": "ON",
    }


@pytest.mark.parametrize(
    ("state", "asked", "covers"),
    [
        (LockState(COMPLIANCE, MADE, legal_hold=False), Lock(COMPLIANCE, MADE), True),
        (LockState(COMPLIANCE, MADE.replace(microsecond=0), legal_hold=False), Lock(COMPLIANCE, MADE), True),
        (LockState(COMPLIANCE, MADE, legal_hold=False), Lock(GOVERNANCE, MADE), True),
        (LockState(GOVERNANCE, MADE, legal_hold=False), Lock(COMPLIANCE, MADE), False),
        (LockState(COMPLIANCE, MADE.replace(second=0, minute=0, hour=14), legal_hold=False), Lock(COMPLIANCE, MADE), False),
        (LockState("", None, legal_hold=True), Lock(COMPLIANCE, MADE), False),
    ],
)  # fmt: skip
def test_weaker_lock_does_not_cover(state, asked, covers):
    """A lock covers what is asked when it is at least as firm and at least as long, to the second."""
    assert state.covers(asked) is covers
