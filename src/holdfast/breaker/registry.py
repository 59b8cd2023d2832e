"""All breakers of a process by name, their keyed children, and what they remember through a restart.

Promises: one breaker per name, whoever asks first; a child admits only what its parent admits too, both count
every result, and no more than `max_children` children of a parent exist. A child that is closed, without failures
and idle may be evicted: asking for its key again gives a new one that decides the same. Keys beyond the bound
share one child, which can only refuse more.
Limits: hold children by asking for them call by call; `get_all_stats()` shows the parents, whose figures
include their children's, and the children only when asked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import PRESETS, CircuitBreakerConfig
from holdfast.breaker.events import (
    BreakerAudit,
    BreakerEvent,
    BreakerEventSink,
    BreakerSnapshot,
    BreakerStats,
)
from holdfast.breaker.machine import LASTING, BreakerState
from holdfast.core.clock import NANOS, Clock, SystemClock

MAX_CHILDREN = 1_024
CHILD_IDLE_SECS = 600.0
OVERFLOW_KEY = "*"


class BreakerRegistry:
    """Breakers by name.

    Args:
        clock: For every breaker made here; None is the machine's clock.
        audit, event_logger, listeners: Given to every breaker made here.
        max_children: Children per parent, at least 2; the last place is the shared child's.
        child_idle_secs: After this long without being asked for, a healthy child may be evicted.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        audit: BreakerAudit | None = None,
        event_logger: BreakerEventSink | None = None,
        listeners: Iterable[Callable[[BreakerEvent], object]] = (),
        max_children: int = MAX_CHILDREN,
        child_idle_secs: float = CHILD_IDLE_SECS,
    ) -> None:
        self._clock = clock or SystemClock()
        self._audit = audit
        self._event_logger = event_logger
        self._listeners = tuple(listeners)
        self._max_children = max(2, max_children)
        self._child_idle_ns = round(child_idle_secs * NANOS)
        self._lock = threading.Lock()
        self._breakers: dict[str, TradingCircuitBreaker] = {}
        self._standing: dict[str, BreakerSnapshot] = {}
        self._children: dict[str, OrderedDict[str, _Child]] = {}

    def get(self, name: str) -> TradingCircuitBreaker | None:
        """The breaker of that name, or None."""
        return self._breakers.get(name)

    def get_or_create(self, name: str, config: CircuitBreakerConfig | None = None) -> TradingCircuitBreaker:
        """The breaker of that name; made with *config* when it is new, else *config* is not looked at."""
        with self._lock:
            breaker = self._breakers.get(name)
            if breaker is None:
                breaker = self._breakers[name] = self._make(name, config or CircuitBreakerConfig(), None)
            return breaker

    def child(
        self, parent: str, key: str, config: CircuitBreakerConfig | None = None
    ) -> TradingCircuitBreaker:
        """The breaker of *key* (a market, a class of calls) under the breaker *parent*.

        Args:
            parent: Name of an existing breaker.
            key: Any text; the child is named `parent/key`.
            config: For a new child; None takes the parent's.

        Raises:
            KeyError: There is no breaker *parent*.
        """
        with self._lock:
            above = self._breakers[parent]
            children = self._children.setdefault(parent, OrderedDict())
            now_ns = self._clock.monotonic_ns()
            if key not in children and not self._has_room(children, now_ns):
                key = OVERFLOW_KEY
            known = children.get(key)
            if known is None:
                made = self._make(f"{parent}/{key}", config or above.config, above)
                known = children[key] = _Child(made)
            known.asked_ns = now_ns
            children.move_to_end(key)
            return known.breaker

    def get_all_stats(self, *, children: bool = False) -> dict[str, BreakerStats]:
        """The figures of every breaker by name; with *children*, theirs too as `parent/key`."""
        with self._lock:
            breakers = list(self._breakers.values())
            if children:
                breakers += [child.breaker for below in self._children.values() for child in below.values()]
        return {breaker.name: breaker.get_stats() for breaker in breakers}

    def restore(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Put back what a person must release; breakers made later, children too, are put back when made.

        Args:
            records: The details of the log's BREAKER records, oldest first.
        """
        standing = closed_off(records)
        with self._lock:
            self._standing.update(standing)
            known = [*self._breakers.values()]
            known += [child.breaker for below in self._children.values() for child in below.values()]
            for breaker in known:
                self._put_back(breaker)

    def _put_back(self, breaker: TradingCircuitBreaker) -> None:
        snapshot = self._standing.pop(breaker.name, None)
        if snapshot is not None:
            breaker.restore(snapshot)

    def _make(
        self, name: str, config: CircuitBreakerConfig, parent: TradingCircuitBreaker | None
    ) -> TradingCircuitBreaker:
        breaker = TradingCircuitBreaker(
            config,
            self._event_logger,
            name=name,
            clock=self._clock,
            audit=self._audit,
            listeners=self._listeners,
            parent=parent,
        )
        self._put_back(breaker)
        return breaker

    def _has_room(self, children: OrderedDict[str, _Child], now_ns: int) -> bool:
        """Whether one more child may stand, after eviction; one place is kept for the shared child."""
        healthy = [key for key, child in children.items() if child.breaker.is_fresh]
        for key in healthy:
            if now_ns - children[key].asked_ns > self._child_idle_ns:
                del children[key]
        if len(children) < self._max_children - 1:
            return True
        longest_idle = next((key for key in healthy if key in children), None)
        if longest_idle is not None:
            del children[longest_idle]
        return len(children) < self._max_children - 1


class _Child:
    __slots__ = ("asked_ns", "breaker")

    def __init__(self, breaker: TradingCircuitBreaker) -> None:
        self.breaker = breaker
        self.asked_ns = 0


def standard_registry(
    *,
    clock: Clock | None = None,
    audit: BreakerAudit | None = None,
    event_logger: BreakerEventSink | None = None,
    listeners: Iterable[Callable[[BreakerEvent], object]] = (),
) -> BreakerRegistry:
    """A registry in which the four known venues' breakers already stand."""
    registry = BreakerRegistry(clock=clock, audit=audit, event_logger=event_logger, listeners=listeners)
    for name, config in PRESETS.items():
        registry.get_or_create(name, config)
    return registry


def closed_off(records: Iterable[Mapping[str, Any]]) -> dict[str, BreakerSnapshot]:
    """The breakers that the log leaves in FORCED_OPEN or LATCHED, by name: a fold over BREAKER details."""
    standing: dict[str, BreakerSnapshot] = {}
    for details in records:
        name, to = str(details["breaker"]), str(details["to"])
        if to in LASTING:
            standing[name] = BreakerSnapshot(name, BreakerState(to), str(details.get("reason", "")), "")
        else:
            standing.pop(name, None)
    return standing
