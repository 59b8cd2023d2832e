"""One dependency's circuit breaker: the shell that gives the pure machine a lock, a clock and listeners.

    breaker = TradingCircuitBreaker(CircuitBreakerConfig(), name="kalshi_api")

    @breaker                       sync and async functions, methods, partials
    with breaker: ...              async with breaker: ...
    permit = breaker.acquire()     then permit.success() / .failure() / .ignored() / .not_reached()

Promises: no lock is held while a call or a listener runs; while CLOSED and healthy a call takes no lock at all;
a permit settles once, and one that settles after its era changes nothing but is counted; `BaseException` always
gives the slot back; listeners get immutable events in order, once, after the fact, and what they raise changes
no call's result. With `call_timeout_secs` the breaker ends asynchronous calls itself, so that a hang counts as a
failure while a cancellation by the caller is ignored.
Limits: a synchronous call cannot be interrupted; one that returns after its time is counted as failure when it
returns, and its result is handed on. A `with` block is left by the task that entered it. One breaker guards the
calls of one process.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal, NamedTuple, NoReturn, ParamSpec, TypeVar

from holdfast.breaker.config import CircuitBreakerConfig, default_error_verdict
from holdfast.breaker.decorate import Quiet, protect, refuse_awaitable
from holdfast.breaker.events import (
    BreakerAudit,
    BreakerEvent,
    BreakerEventKind,
    BreakerEventSink,
    BreakerSnapshot,
    BreakerStats,
    recorder,
)
from holdfast.breaker.machine import (
    LASTING,
    Asked,
    BreakerState,
    Counted,
    Effect,
    Event,
    Granted,
    Looked,
    Machine,
    Moved,
    Observed,
    Ordered,
    Refused,
    Reported,
    Settled,
    Signal,
    Verdict,
    Withdrawn,
    retry_after_ns,
    step,
)
from holdfast.core.clock import NANOS, Clock, SystemClock
from holdfast.core.errors import CircuitBreakerOpenError, IllegalTransition, UnsupportedCallable

P = ParamSpec("P")
R = TypeVar("R")

_MAX_TEXT = 200


class Permit:
    """The right to make one call; tell it how the call ended, once.

    Settling twice, late, or never is harmless: the second word is not heard, a late one is only counted, and a
    probe that never reports loses its slot after `half_open_timeout_secs`.

    Attributes:
        is_probe: Whether this call decides if the breaker closes.
    """

    __slots__ = ("_apply", "_claim", "_era", "_lease", "_outer", "is_probe")

    def __init__(self, apply: Callable[[Event], object], granted: Granted, outer: Permit | None) -> None:
        self._apply = apply
        self._era = granted.era
        self._lease = granted.lease
        self._outer = outer
        self._claim = [True]
        self.is_probe: bool = granted.lease > 0 or (outer is not None and outer.is_probe)

    def success(self) -> None:
        """The dependency did its work."""
        self.settle(Verdict.SUCCESS)

    def failure(self, reason: str = "") -> None:
        """The dependency failed, or nobody knows (no answer, timeout, 5xx)."""
        self.settle(Verdict.FAILURE, reason)

    def ignored(self) -> None:
        """The outcome says nothing about the dependency (a business reject, a cancellation by the caller)."""
        self.settle(Verdict.IGNORED)

    def not_reached(self) -> None:
        """The call never got to the dependency (local pool, limiter)."""
        self.settle(Verdict.NOT_REACHED)

    def latch(self, reason: str) -> None:
        """The dependency refuses us for a reason that only a person can mend; counts as failure and latches."""
        self.settle(Verdict.LATCH, reason)

    def settle(self, verdict: Verdict, reason: str = "") -> None:
        """Report *verdict*; only the first report of a permit is heard."""
        self._end(Settled(self._era, self._lease, verdict, reason))
        if self._outer is not None:
            self._outer.settle(verdict, reason)

    def withdraw(self) -> None:
        """The call was not made after all; nothing is counted."""
        self._end(Withdrawn(self._era, self._lease))
        if self._outer is not None:
            self._outer.withdraw()

    def _end(self, event: Event) -> None:
        try:
            self._claim.pop()  # one step of the interpreter: of two threads one finds the list empty
        except IndexError:
            return
        self._apply(event)


class _Entered(NamedTuple):
    """One `with` block under way; blocks of a task or thread are a linked list, innermost first."""

    breaker: TradingCircuitBreaker
    permit: Permit
    start_ns: int
    deadline: asyncio.Timeout | None
    outside: _Entered | None


_entered: ContextVar[_Entered | None] = ContextVar("holdfast_breakers_entered", default=None)


class _QuickCount:
    """A count that grows without a lock: `next(ticks)` is one step of the interpreter."""

    __slots__ = ("_reads", "ticks")

    def __init__(self) -> None:
        self.ticks: Iterator[int] = itertools.count()
        self._reads = 0

    def read(self) -> int:
        """The count; the caller holds the lock. Looking takes a tick, which is taken off again."""
        value = next(self.ticks) - self._reads
        self._reads += 1
        return value


class _Shut(NamedTuple):
    """What every caller is told while the breaker admits nobody; read without a lock."""

    until_ns: int | None
    text: str


class TradingCircuitBreaker:
    """Guards the calls to one dependency.

    Args:
        config: Thresholds, times, classification; None is `CircuitBreakerConfig()`.
        event_logger: Gets every event through `emit`; None is fine.
        name: How records and messages call it.
        clock: Waits, windows and leases run on its monotonic time; None is the machine's clock.
        audit: Gets a BREAKER record for every state change, before the listeners; None is fine.
        listeners: Called with every event.
        timeout_clock: Measures `call_timeout_secs` of synchronous calls, in wall time as sockets live in it.
        parent: A breaker that must admit each call too and gets every result; see `BreakerRegistry.child`.

    Source: state machine and guarantees in machine.py; tests/properties/test_breaker_machine.py.
    """

    def __init__(
        self,
        config: CircuitBreakerConfig | None = None,
        event_logger: BreakerEventSink | None = None,
        *,
        name: str = "breaker",
        clock: Clock | None = None,
        audit: BreakerAudit | None = None,
        listeners: Iterable[Callable[[BreakerEvent], object]] = (),
        timeout_clock: Clock | None = None,
        parent: TradingCircuitBreaker | None = None,
    ) -> None:
        self.name = name
        self.config = config or CircuitBreakerConfig()
        self.parent = parent
        self.quiet = Quiet()
        self._clock = clock or SystemClock()
        self._rules = self.config.rules()
        self._limit_ns = round((self.config.call_timeout_secs or 0) * NANOS)
        self._lock = threading.Lock()
        self._machine = Machine(since_ns=self._clock.monotonic_ns())
        self._tallies = dict.fromkeys(Verdict, 0)
        self._late = dict.fromkeys(Verdict, 0)
        self._rejected = 0
        self._successes_by_ticks = _QuickCount()
        self._refusals_by_ticks = _QuickCount()
        self.quick_successes = self._successes_by_ticks.ticks
        self._shut: _Shut | None = None
        self._last_error = ""
        self._since_wall_ns = self._clock.now_ns()
        self._children: weakref.WeakSet[TradingCircuitBreaker] = weakref.WeakSet()
        self._outbox: deque[BreakerEvent] = deque()
        self._is_delivering = False
        self._listener_errors = 0
        self._last_listener_error = ""
        self._sinks: list[Callable[[BreakerEvent], object]] = []
        if audit is not None:
            self._sinks.append(recorder(audit))
        if event_logger is not None:
            self._sinks.append(event_logger.emit)
        self._sinks.extend(listeners)
        self.now_ns: Callable[[], int] = (timeout_clock or SystemClock()).monotonic_ns
        self._publish()
        if parent is not None:
            parent._adopt(self)  # noqa: SLF001  of the same class

    # Admission

    def acquire(self, *, probe: bool = True) -> Permit:
        """The right to make one call.

        Args:
            probe: False for calls that must never be the probe (orders): admitted only while CLOSED.

        Raises:
            CircuitBreakerOpenError: Not now; it says why and when to ask again.
        """
        shut = self._shut
        if shut is not None:
            self._refuse_if_still(shut)
        answer = self._apply(Asked(probe))
        if isinstance(answer, Refused):
            raise self._refusal(answer)
        if not isinstance(answer, Granted):
            raise IllegalTransition(f"breaker {self.name!r} answered a question with {answer!r}")
        if self.parent is None:
            return Permit(self._apply, answer, None)
        return self._acquire_with(self.parent, answer, probe=probe)

    def try_acquire(self, *, probe: bool = True) -> Permit | None:
        """As `acquire`, with None for a refusal."""
        try:
            return self.acquire(probe=probe)
        except CircuitBreakerOpenError:
            return None

    def admit(self) -> Permit:
        """`acquire()` as generated wrappers call it."""
        return self.acquire()

    def decorate(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """*fn*, sync or async, admitted and settled call by call; its signature and kind are kept.

        Raises:
            UnsupportedCallable: The outcome of *fn* could not be seen; decorate.py lists which.
        """
        judges_results = self.config.classify_result is not None
        return protect(fn, self, limit_secs=self.config.call_timeout_secs, judges_results=judges_results)

    __call__ = decorate

    # Results told by hand

    def record_failure(self, reason: str = "") -> None:
        """A call failed. In HALF_OPEN this is the result of the probe that is out, and reopens."""
        self._apply(Reported(Verdict.FAILURE, reason))
        if self.parent is not None:
            self.parent.record_failure(reason)

    def record_success(self) -> None:
        """A call succeeded. In HALF_OPEN this is the result of the probe that is out."""
        self._apply(Reported(Verdict.SUCCESS))
        if self.parent is not None:
            self.parent.record_success()

    def observe(self, verdict: Verdict, reason: str = "") -> None:
        """Count a call that went regardless of the breaker (a cancel, a reconciliation).

        It is evidence while CLOSED, and for a latch always; an open breaker closes by its probes alone.
        """
        self._apply(Observed(verdict, reason))
        if self.parent is not None:
            self.parent.observe(verdict, reason)

    # A person's orders

    def reset(self, who: str = "", reason: str = "") -> None:
        """Close it and forget every failure, from any state; the only way out of FORCED_OPEN and LATCHED.

        Its children close with it, but for those that a person or a latch closed off for their own reason.
        """
        self._apply(Ordered(Signal.RESET, reason or "manual reset", who))
        with self._lock:
            children = tuple(self._children)
        for child in children:
            if child.snapshot().state not in LASTING:
                child.reset(who, reason)

    def force_open(self, reason: str, who: str = "") -> None:
        """Refuse every call until `reset`.

        Raises:
            IllegalTransition: It is LATCHED, which is stronger.
        """
        self._apply(Ordered(Signal.FORCE, reason, who))

    def latch(self, reason: str, who: str = "") -> None:
        """Refuse every call until a person resets it, through restarts too; a latch keeps its first reason."""
        self._apply(Ordered(Signal.LATCH, reason, who))

    # What it knows

    def get_state(self) -> str:
        """The state in lower case; a wait that is over shows as `half_open`."""
        self._apply(Looked())
        return self._machine.state.value

    def seconds_to_probe(self) -> float | None:
        """Seconds until a probe may go: 0.0 when one may go now, None when only a person can change that."""
        wait_ns = retry_after_ns(self._rules, self._machine, self._clock.monotonic_ns())
        return None if wait_ns is None else wait_ns / NANOS

    def get_stats(self) -> BreakerStats:
        """The figures at this moment, all from one look."""
        self._apply(Looked())
        with self._lock:
            machine = self._machine
            rejected = self._rejected + self._refusals_by_ticks.read()
            succeeded = self._tallies[Verdict.SUCCESS] + self._successes_by_ticks.read()
            failed = self._tallies[Verdict.FAILURE] + self._tallies[Verdict.LATCH]
            ignored, not_reached = self._tallies[Verdict.IGNORED], self._tallies[Verdict.NOT_REACHED]
            total = succeeded + failed + ignored + not_reached + rejected
            wait_ns = retry_after_ns(self._rules, machine, self._clock.monotonic_ns())
            return BreakerStats(
                state=machine.state.value,
                total_calls=total,
                successful_calls=succeeded,
                failed_calls=failed,
                ignored_calls=ignored,
                not_reached_calls=not_reached,
                rejected_calls=rejected,
                success_rate=succeeded / total if total else 0.0,
                late_success=self._late[Verdict.SUCCESS],
                late_failure=self._late[Verdict.FAILURE] + self._late[Verdict.LATCH],
                consecutive_failures=machine.consecutive,
                era=machine.era,
                since_ns=self._since_wall_ns,
                reason=machine.reason,
                who=machine.who,
                last_error=self._last_error,
                next_probe_secs=None if wait_ns is None else wait_ns / NANOS,
                listener_errors=self._listener_errors,
                last_listener_error=self._last_listener_error,
            )

    def snapshot(self) -> BreakerSnapshot:
        """What to keep through a restart."""
        machine = self._machine
        return BreakerSnapshot(self.name, machine.state, machine.reason, machine.who)

    def restore(self, snapshot: BreakerSnapshot) -> None:
        """Stand again where a person had put it; FORCED_OPEN and LATCHED alone survive a restart.

        Writes no record and tells no listener: the log already says it. Any other state changes nothing.
        """
        if snapshot.state not in LASTING:
            return
        with self._lock:
            self._machine = Machine(
                state=snapshot.state,
                era=self._machine.era + 1,
                since_ns=self._clock.monotonic_ns(),
                leases=self._machine.leases,
                reason=snapshot.reason,
                who=snapshot.who,
            )
            self._since_wall_ns = self._clock.now_ns()
            self._publish()

    @property
    def is_fresh(self) -> bool:
        """Closed, with no failure that could still add up: a new breaker would decide the same."""
        machine = self._machine
        newest = machine.failure_times[-1] if machine.failure_times else None
        if not machine.is_quiet:
            return False
        return newest is None or self._clock.monotonic_ns() - newest > self._rules.failure_window_ns

    def __repr__(self) -> str:
        return f"<TradingCircuitBreaker {self.name!r} {self._machine.state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"breaker {self.name!r} guards one process's calls; send its snapshot() instead")

    # `with` and `async with`

    def __enter__(self) -> Permit:
        permit = self.acquire()
        _entered.set(_Entered(self, permit, self.now_ns() if self._limit_ns else 0, None, _entered.get()))
        return permit

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        entered = self._leave()
        is_expired = bool(self._limit_ns) and self.now_ns() - entered.start_ns > self._limit_ns
        self._settle(entered.permit, error, is_expired=is_expired)
        return False

    async def __aenter__(self) -> Permit:
        permit = self.acquire()
        deadline = None
        if self.config.call_timeout_secs is not None:
            deadline = asyncio.timeout(self.config.call_timeout_secs)
            try:
                await deadline.__aenter__()
            except BaseException:
                permit.withdraw()
                raise
        _entered.set(_Entered(self, permit, 0, deadline, _entered.get()))
        return permit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        entered = self._leave()
        if entered.deadline is None:
            self._settle(entered.permit, error, is_expired=False)
            return False
        try:
            await entered.deadline.__aexit__(kind, error, trace)
        finally:
            self._settle(entered.permit, error, is_expired=entered.deadline.expired())
        return False

    # The hooks of generated wrappers

    def settle_error(self, word: int, permit: Permit | None, error: BaseException, expired: bool, /) -> None:
        """A wrapped call raised."""
        verdict, reason = self._judge_error(error, is_expired=expired)
        self._settle_call(word, permit, verdict, reason)

    def settle_result(self, word: int, permit: Permit | None, result: object, expired: bool, /) -> None:
        """A wrapped call returned."""
        if expired:
            self._settle_call(word, permit, Verdict.FAILURE, self._late_text())
            return
        try:
            refuse_awaitable(result, self.name)
        except UnsupportedCallable:
            self._settle_call(word, permit, Verdict.IGNORED, "")
            raise
        if permit is None and word == self.quiet.word:
            next(self.quick_successes)
        else:
            self._settle_call(word, permit, self._judge_result(result), "")

    # Inside

    def _adopt(self, child: TradingCircuitBreaker) -> None:
        with self._lock:
            self._children.add(child)

    def _apply(self, event: Event) -> Effect | None:
        """Take one step under the lock, then tell the listeners; the last effect answers the caller."""
        with self._lock:
            if type(event) is Ordered and self._is_latched_already(event):
                return None
            before = self._machine
            machine, effects = step(self._rules, before, event, self._clock.monotonic_ns())
            try:
                self._machine = machine
                for effect in effects:
                    self._account(before, machine, effect)
            finally:  # an interrupt here must not leave calls with the word of an earlier era
                if machine is not before:
                    self._publish()
            has_news = bool(self._outbox)
        if has_news:
            self._deliver()
        return effects[-1] if effects else None

    def _is_latched_already(self, event: Ordered) -> bool:
        return event.signal is Signal.LATCH and self._machine.state is BreakerState.LATCHED

    def _publish(self) -> None:
        """Set what calls read without the lock: the word of a quiet breaker, the refusal of a shut one.

        A child is never quiet: it always asks its parent too.
        """
        machine = self._machine
        self.quiet.word = machine.word if machine.is_quiet and self.parent is None else 0
        match machine.state:
            case BreakerState.OPEN:
                until_ns = machine.since_ns + self._rules.open_timeout_ns
                self._shut = _Shut(until_ns, f"{self._story(machine)}, next probe in ")
            case BreakerState.FORCED_OPEN | BreakerState.LATCHED:
                self._shut = _Shut(None, f"{self._story(machine)}, until a person resets it")
            case _:
                self._shut = None

    def _refuse_if_still(self, shut: _Shut) -> None:
        """Refuse without the lock; return once the wait is over, when the machine decides."""
        if shut.until_ns is None:
            next(self._refusals_by_ticks.ticks)
            raise CircuitBreakerOpenError(shut.text, breaker=self.name, retry_after_secs=None)
        left_ns = shut.until_ns - self._clock.monotonic_ns()
        if left_ns > 0:
            next(self._refusals_by_ticks.ticks)
            secs = left_ns / NANOS
            raise CircuitBreakerOpenError(
                f"{shut.text}{secs:.1f} s", breaker=self.name, retry_after_secs=secs
            )

    def _account(self, before: Machine, after: Machine, effect: Effect) -> None:
        match effect:
            case Refused():
                self._rejected += 1
            case Counted(verdict, late, reason):
                self._tallies[verdict] += 1
                if late:
                    self._late[verdict] += 1
                if verdict in (Verdict.FAILURE, Verdict.LATCH):
                    self._last_error = reason
                if not late:
                    self._note_result(before, verdict, reason)
            case Moved(origin, signal, target, failures):
                self._since_wall_ns = self._clock.now_ns()
                self._note_move(after, origin, signal, target, failures)
            case Granted():
                pass

    def _note_result(self, before: Machine, verdict: Verdict, reason: str) -> None:
        if verdict in (Verdict.FAILURE, Verdict.LATCH):
            kind = BreakerEventKind.FAILURE
        elif verdict is Verdict.SUCCESS and before.state is BreakerState.HALF_OPEN:
            kind = BreakerEventKind.SUCCESS
        else:
            return
        count = before.consecutive + (kind is BreakerEventKind.FAILURE)
        now_ns = self._clock.now_ns()
        self._outbox.append(
            BreakerEvent(kind, self.name, before.state, before.state, count, now_ns, reason=reason)
        )

    def _note_move(
        self, after: Machine, origin: BreakerState, signal: Signal, target: BreakerState, failures: int
    ) -> None:
        wait_ns = retry_after_ns(self._rules, after, after.since_ns)
        kinds = [] if origin is target else [BreakerEventKind.STATE_CHANGE]
        if signal is Signal.RESET:
            kinds.append(BreakerEventKind.MANUAL_RESET)
        for kind in kinds:
            self._outbox.append(
                BreakerEvent(
                    kind,
                    self.name,
                    origin,
                    target,
                    failures,
                    self._since_wall_ns,
                    reason=after.reason,
                    who=after.who,
                    retry_after_secs=None
                    if wait_ns is None or target is BreakerState.CLOSED
                    else wait_ns / NANOS,
                )
            )

    def _deliver(self) -> None:
        """Empty the outbox, one deliverer at a time, so that every sink sees the order of events.

        A thread that finds another one delivering leaves its events to it, and so does a listener that moves
        the breaker it listens to.
        """
        while True:
            with self._lock:
                if self._is_delivering or not self._outbox:
                    return
                self._is_delivering = True
                event = self._outbox.popleft()
            try:
                for sink in self._sinks:
                    self._tell(sink, event)
            finally:
                with self._lock:
                    self._is_delivering = False

    def _tell(self, sink: Callable[[BreakerEvent], object], event: BreakerEvent) -> None:
        try:
            sink(event)
        except Exception as error:  # noqa: BLE001  a listener must not harm the call that it hears about
            self._note_listener_error(error)

    def _note_listener_error(self, error: Exception) -> None:
        with self._lock:
            self._listener_errors += 1
            self._last_listener_error = _text(error)

    def _acquire_with(self, parent: TradingCircuitBreaker, granted: Granted, *, probe: bool) -> Permit:
        try:
            outer = parent.acquire(probe=probe)
        except BaseException:
            Permit(self._apply, granted, None).withdraw()
            with self._lock:
                self._rejected += 1
            raise
        return Permit(self._apply, granted, outer)

    def _refusal(self, refused: Refused) -> CircuitBreakerOpenError:
        text, secs = self._story(refused.machine), None
        if refused.machine.state is BreakerState.HALF_OPEN:
            text += ", a probe decides"
        if refused.retry_after_ns is not None:
            secs = refused.retry_after_ns / NANOS
            text += f", next probe in {secs:.1f} s"
        return CircuitBreakerOpenError(text, breaker=self.name, retry_after_secs=secs)

    def _story(self, machine: Machine) -> str:
        text = f"breaker {self.name!r} is {machine.state.value.replace('_', ' ')}"
        if machine.reason:
            text += f": {machine.reason}"
        return f"{text} (by {machine.who})" if machine.who else text

    def _leave(self) -> _Entered:
        entered = _entered.get()
        if entered is None or entered.breaker is not self:
            raise RuntimeError(f"breaker {self.name!r} is left by a task that did not enter it last")
        _entered.set(entered.outside)
        return entered

    def _settle(self, permit: Permit, error: BaseException | None, *, is_expired: bool) -> None:
        if error is not None:
            permit.settle(*self._judge_error(error, is_expired=is_expired))
        elif is_expired:
            permit.failure(self._late_text())
        else:
            permit.success()

    def _settle_call(self, word: int, permit: Permit | None, verdict: Verdict, reason: str) -> None:
        if permit is not None:
            permit.settle(verdict, reason)
        else:
            self._apply(Settled(word >> 3, 0, verdict, reason))

    def _late_text(self) -> str:
        return f"no answer within {self.config.call_timeout_secs:g} s"

    def _judge_error(self, error: BaseException, *, is_expired: bool) -> tuple[Verdict, str]:
        if is_expired:
            return Verdict.FAILURE, self._late_text()
        if not isinstance(error, Exception):
            return Verdict.IGNORED, ""
        classify = self.config.classify_error
        if classify is None:
            verdict = default_error_verdict(error, strict=self.config.strict_status)
        else:
            verdict = self._judge(classify, error)
        return verdict, _text(error)

    def _judge_result(self, result: object) -> Verdict:
        classify = self.config.classify_result
        return Verdict.SUCCESS if classify is None else self._judge(classify, result)

    def _judge(self, classify: Callable[[Any], Verdict], outcome: object) -> Verdict:
        """The configured verdict; a classifier that cannot say so leaves a failure, and is counted."""
        try:
            return Verdict(classify(outcome))
        except Exception as error:  # noqa: BLE001  a broken classifier must not harm the call, and proves no health
            self._note_listener_error(error)
            return Verdict.FAILURE


def _text(error: BaseException) -> str:
    try:
        words = str(error)
    except Exception:  # noqa: BLE001  an exception that cannot be printed is still a failure
        words = ""
    return f"{type(error).__name__}: {words}"[:_MAX_TEXT] if words else type(error).__name__
