"""Kalshi's rate limits as token buckets: one for reads, one for writes, refilled evenly.

A request costs 10 tokens, a few cost less; an empty bucket answers 429 at once and takes nothing. Pure: time is
an argument, in nanoseconds of whichever clock the exchange counts by (market time while the barrier drives it,
so that equal runs are limited equally; wall time otherwise). Limits: the venue's own tiers above
`prime` are not modelled, and its separate limit on WebSocket commands is `WS_COMMANDS_PER_SEC`.

Source: docs.kalshi.com/getting_started/rate_limits and /account/endpoint_costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput

DEFAULT_COST = 10
WS_COMMANDS_PER_SEC = 1_000


class RequestClass(StrEnum):
    """What kind of request it is: its bucket, and the name under which faults count it."""

    READ = "read"
    CREATE = "create"
    CANCEL = "cancel"

    @property
    def is_write(self) -> bool:
        """Whether it draws on the write bucket."""
        return self is not RequestClass.READ


class Tier(NamedTuple):
    """Tokens per second and capacity of both buckets."""

    name: str
    read_per_sec: int
    write_per_sec: int
    read_capacity: int
    write_capacity: int


def _tier(name: str, read: int, write: int, *, write_secs: int = 2) -> Tier:
    return Tier(name, read, write, read, write * write_secs)


TIERS: Mapping[str, Tier] = {
    tier.name: tier
    for tier in (
        _tier("basic", 200, 100, write_secs=1),
        _tier("advanced", 300, 300),
        _tier("premier", 1_000, 1_000),
        _tier("paragon", 2_000, 2_000),
        _tier("prime", 4_000, 4_000),
        # Ours: generous enough that only a runaway loop meets it.
        _tier("paper", 200_000, 200_000),
    )
}

COSTS: Mapping[tuple[str, str], int] = {
    ("DELETE", "/trade-api/v2/portfolio/events/orders/:order_id"): 2,
    ("POST", "/trade-api/v2/portfolio/orders"): 20,
    ("DELETE", "/trade-api/v2/portfolio/orders/:order_id"): 4,
    ("GET", "/trade-api/v2/portfolio/orders/:order_id"): 2,
}
"""Every endpoint of ours whose cost is not `DEFAULT_COST`, by method and path pattern."""


def tier_named(name: str) -> Tier:
    """The tier called *name*.

    Raises:
        BadInput: No such tier.
    """
    try:
        return TIERS[name]
    except KeyError:
        raise BadInput(f"tier {name[:40]!r} is unknown, expected one of {', '.join(TIERS)}") from None


class Bucket:
    """Tokens that refill evenly; starts full. Kept in nano-tokens, so that no refill is ever rounded away."""

    def __init__(self, per_sec: int, capacity: int) -> None:
        self._per_sec = per_sec
        self._capacity = capacity * NANOS
        self._tokens = self._capacity
        self._as_of_ns: int | None = None

    def take(self, cost: int, now_ns: int) -> bool:
        """Take *cost* tokens, or take nothing and say False. Time that steps back refills nothing."""
        if self._as_of_ns is not None and now_ns > self._as_of_ns:
            self._tokens = min(self._capacity, self._tokens + (now_ns - self._as_of_ns) * self._per_sec)
        self._as_of_ns = now_ns
        if self._tokens < cost * NANOS:
            return False
        self._tokens -= cost * NANOS
        return True


class RateLimits:
    """The two buckets of one account."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.refill()

    def refill(self) -> None:
        """Start anew with full buckets: the clock they count by was exchanged for another."""
        self._read = Bucket(self.tier.read_per_sec, self.tier.read_capacity)
        self._write = Bucket(self.tier.write_per_sec, self.tier.write_capacity)

    def admit(self, kind: RequestClass, cost: int, now_ns: int) -> bool:
        """Whether a request of *kind* may go on; False is the venue's 429."""
        return (self._write if kind.is_write else self._read).take(cost, now_ns)
