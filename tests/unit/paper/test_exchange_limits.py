"""The exchange's rate limits: tiers, costs and buckets."""

import pytest

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput
from holdfast.venues.paper.limits import Bucket, RateLimits, RequestClass, tier_named


def test_basic_allows_ten_creates_a_second_and_refills_evenly():
    """Ten creates of 10 tokens empty the basic write bucket; a tenth of a second later one more passes."""
    limits = RateLimits(tier_named("basic"))
    assert [limits.admit(RequestClass.CREATE, 10, 0) for _ in range(11)] == [True] * 10 + [False]
    assert not limits.admit(RequestClass.CREATE, 10, NANOS // 10 - 1)
    assert limits.admit(RequestClass.CREATE, 10, NANOS // 10)


def test_reads_and_writes_have_buckets_of_their_own():
    """An empty write bucket does not stop reads, and cancels draw on the write bucket."""
    limits = RateLimits(tier_named("basic"))
    assert limits.admit(RequestClass.CREATE, 100, 0)
    assert not limits.admit(RequestClass.CANCEL, 2, 0)
    assert limits.admit(RequestClass.READ, 200, 0)


def test_write_buckets_above_basic_hold_two_seconds():
    """The advanced tier takes 600 tokens of writes at once, basic 100."""
    assert tier_named("advanced").write_capacity == 600
    assert tier_named("basic").write_capacity == 100


def test_a_refused_request_takes_nothing():
    """After a refusal the tokens that were there are still there."""
    bucket = Bucket(10, 15)
    assert not bucket.take(16, 0)
    assert bucket.take(15, 0)


def test_buckets_never_hold_more_than_their_capacity_nor_run_backwards():
    """A long pause fills up to the capacity; time stepping back refills nothing."""
    bucket = Bucket(10, 20)
    assert bucket.take(20, 100 * NANOS)
    assert not bucket.take(1, 50 * NANOS)
    assert bucket.take(20, 900 * NANOS)
    assert not bucket.take(1, 900 * NANOS)


def test_unknown_tiers_are_refused_by_name():
    """A tier nobody has is not taken for another."""
    with pytest.raises(BadInput, match="'gold' is unknown"):
        tier_named("gold")
