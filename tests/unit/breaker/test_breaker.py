"""The shell: permits, time, cancellation, threads and tasks, listeners, figures."""

import asyncio
import contextlib
import copy
import itertools
import pickle
import sys
import threading

import pytest

from holdfast.audit import schemas
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import CircuitBreakerConfig
from holdfast.breaker.events import BreakerEventKind, BreakerSnapshot
from holdfast.breaker.machine import BreakerState, Verdict
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditWriteError, CircuitBreakerOpenError, IllegalTransition


class Desk:
    """A breaker with a manual clock and everything it says."""

    def __init__(self, *args, listeners=(), name="venue", **settings):
        self.clock = ManualClock()
        self.wall = ManualClock()
        self.events = []
        self.breaker = TradingCircuitBreaker(
            CircuitBreakerConfig(*(args or (3, 60, 2, 60, 30)), **settings),
            name=name,
            clock=self.clock,
            timeout_clock=self.wall,
            listeners=[self.events.append, *listeners],
        )

    def trip(self):
        while self.breaker.get_state() != "open":
            self.breaker.record_failure("HTTP 500")

    def half_open(self):
        self.trip()
        self.clock.advance(60)

    @property
    def stats(self):
        return self.breaker.get_stats()

    @property
    def moves(self):
        return [
            (event.old_state.value, event.new_state.value)
            for event in self.events
            if event.kind is BreakerEventKind.STATE_CHANGE
        ]


def test_open_breaker_says_why_and_when_to_come_back():
    """The refusal names the breaker, the failures and the seconds until a probe, as text and as attributes."""
    desk = Desk(name="kalshi_api")
    desk.trip()
    desk.clock.advance(18.8)
    with pytest.raises(CircuitBreakerOpenError) as caught:
        desk.breaker.acquire()
    assert str(caught.value) == "breaker 'kalshi_api' is open: 3 failures in a row, next probe in 41.2 s"
    assert (caught.value.breaker, caught.value.retry_after_secs) == ("kalshi_api", pytest.approx(41.2))
    assert desk.breaker.seconds_to_probe() == pytest.approx(41.2)


def test_forced_open_breaker_says_who_closed_it_off():
    """A forced-open breaker has no time to come back, and names the reason and the person."""
    desk = Desk()
    desk.breaker.force_open("venue maintenance", "ops")
    desk.clock.advance(1e6)
    with pytest.raises(
        CircuitBreakerOpenError, match=r"venue maintenance \(by ops\), until a person resets it"
    ) as caught:
        desk.breaker.acquire()
    assert caught.value.retry_after_secs is None
    assert desk.breaker.seconds_to_probe() is None


def test_order_is_never_the_probe():
    """With probe=False a half-open breaker refuses although its probe slot is free."""
    desk = Desk()
    desk.half_open()
    assert desk.breaker.try_acquire(probe=False) is None
    assert desk.breaker.get_state() == "half_open"
    permit = desk.breaker.try_acquire()
    assert permit is not None
    assert permit.is_probe


def test_permit_settles_once():
    """Only the first report of a permit is heard."""
    desk = Desk()
    permit = desk.breaker.acquire()
    permit.failure("first")
    permit.failure("second")
    permit.success()
    permit.latch("third")
    assert (desk.stats["failed_calls"], desk.stats["successful_calls"], desk.stats["state"]) == (
        1,
        0,
        "closed",
    )


@pytest.mark.parametrize("verdict", list(Verdict))
def test_late_result_changes_nothing_and_is_counted(verdict):
    """A call admitted before the breaker opened cannot close it, extend its wait or latch it."""
    desk = Desk()
    slow = desk.breaker.acquire()
    desk.trip()
    desk.clock.advance(30)
    before = desk.breaker._machine
    slow.settle(verdict, "late")
    assert desk.breaker._machine == before
    assert desk.breaker.seconds_to_probe() == 30
    stats = desk.stats
    late = (stats["late_success"], stats["late_failure"])
    assert late == (verdict is Verdict.SUCCESS, verdict in (Verdict.FAILURE, Verdict.LATCH))


@pytest.mark.parametrize("verdict", [Verdict.IGNORED, Verdict.NOT_REACHED])
def test_probe_that_proves_nothing_gives_its_slot_back(verdict):
    """An ignored or not-reached probe neither closes nor reopens, and the next call may probe at once."""
    desk = Desk()
    desk.half_open()
    desk.breaker.acquire().settle(verdict)
    assert desk.breaker.get_state() == "half_open"
    assert desk.breaker.acquire().is_probe


def test_withdrawn_permit_counts_nothing_and_frees_the_probe():
    """A permit given back unused leaves no trace and no taken slot."""
    desk = Desk()
    desk.half_open()
    before = desk.stats["total_calls"]
    desk.breaker.acquire().withdraw()
    assert desk.stats["total_calls"] == before
    assert desk.breaker.try_acquire() is not None


def test_hung_probe_is_replaced_after_its_lease():
    """A probe that never reports cannot wedge the breaker, and its late answer does not close it."""
    desk = Desk()
    desk.half_open()
    hung = desk.breaker.acquire()
    desk.clock.advance(29.9)
    assert desk.breaker.try_acquire() is None
    desk.clock.advance(0.1)
    second = desk.breaker.acquire()
    hung.success()
    assert desk.stats["late_success"] == 1
    second.success()
    desk.breaker.acquire().success()
    assert desk.breaker.get_state() == "closed"


def test_latch_keeps_its_first_reason_and_yields_to_reset_alone():
    """A latched breaker cannot be forced to less, ignores a second latch, and a person's reset closes it."""
    desk = Desk()
    desk.breaker.acquire().latch("HTTP 401")
    desk.breaker.latch("again")
    desk.clock.advance(1e6)
    assert (desk.stats["state"], desk.stats["reason"]) == ("latched", "HTTP 401")
    with pytest.raises(IllegalTransition):
        desk.breaker.force_open("maintenance")
    desk.breaker.reset("kim", "new key installed")
    assert desk.breaker.acquire() is not None
    last = desk.events[-1]
    assert (last.kind, last.who, last.reason) == (BreakerEventKind.MANUAL_RESET, "kim", "new key installed")


@pytest.mark.parametrize("state", list(BreakerState))
def test_snapshot_carries_only_a_persons_word_over_a_restart(state):
    """A new breaker restored from a snapshot is latched or forced open if the old one was, else closed."""
    old = Desk().breaker
    old.restore(BreakerSnapshot("venue", state, "HTTP 401", "kim"))
    new = Desk().breaker
    new.restore(pickle.loads(pickle.dumps(old.snapshot())))  # noqa: S301  our own bytes
    stays = state in (BreakerState.FORCED_OPEN, BreakerState.LATCHED)
    assert new.get_state() == (state.value if stays else "closed")
    assert (new.try_acquire() is None) == stays
    assert new.get_stats()["reason"] == ("HTTP 401" if stays else "")


def test_breaker_refuses_to_be_pickled():
    """A breaker cannot be copied into another process by accident; the error says what to send."""
    for make in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="snapshot"):
            make(Desk().breaker)


def test_events_travel_by_pickle():
    """An event sent to another process is the same event."""
    desk = Desk()
    desk.trip()
    assert pickle.loads(pickle.dumps(desk.events)) == desk.events  # noqa: S301  our own bytes


def test_refusal_travels_by_pickle():
    """A refusal raised in a worker process arrives with its text and its attributes."""
    desk = Desk()
    desk.trip()
    with pytest.raises(CircuitBreakerOpenError) as caught:
        desk.breaker.acquire()
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  our own bytes
    assert (type(error), str(error)) == (CircuitBreakerOpenError, str(caught.value))
    assert (error.breaker, error.retry_after_secs, error.hint) == ("venue", 60.0, "")


# Cancellation and time limits


def _cancel(task):
    task.cancel()
    return asyncio.gather(task, return_exceptions=True)


def test_cancellation_by_the_caller_is_ignored():
    """A cancelled call neither counts as success nor as failure: two failures, a cancel and a failure trip three."""
    desk = Desk()

    @desk.breaker
    async def call(kind):
        if kind == "fail":
            raise ValueError(kind)
        await asyncio.sleep(3600)

    async def scenario():
        for _ in range(2):
            with pytest.raises(ValueError, match="fail"):
                await call("fail")
        task = asyncio.ensure_future(call("hang"))
        await asyncio.sleep(0)
        await _cancel(task)
        assert desk.breaker.get_state() == "closed"
        with pytest.raises(ValueError, match="fail"):
            await call("fail")

    asyncio.run(scenario())
    assert (desk.stats["state"], desk.stats["ignored_calls"]) == ("open", 1)


@pytest.mark.parametrize("form", ["decorator", "with"])
def test_cancelled_probe_returns_its_slot(form):
    """Cancelling the probe leaves the breaker half open with a free slot."""
    desk = Desk()

    async def hang():
        await asyncio.sleep(3600)

    async def block():
        async with desk.breaker:
            await hang()

    async def scenario():
        desk.half_open()
        task = asyncio.ensure_future(desk.breaker(hang)() if form == "decorator" else block())
        await asyncio.sleep(0)
        assert desk.breaker.try_acquire() is None
        await _cancel(task)
        assert desk.breaker.get_state() == "half_open"
        assert desk.breaker.try_acquire() is not None

    asyncio.run(scenario())


@pytest.mark.parametrize("form", ["decorator", "with"])
def test_hang_counts_as_failure_because_the_breaker_owns_the_time_limit(form):
    """Calls that hang are ended by the breaker with TimeoutError, and three of them open it."""
    desk = Desk(call_timeout_secs=0.001)

    async def hang():
        await asyncio.sleep(3600)

    async def block():
        async with desk.breaker:
            await hang()

    async def scenario():
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await (desk.breaker(hang)() if form == "decorator" else block())

    asyncio.run(scenario())
    assert (desk.stats["state"], desk.stats["last_error"]) == ("open", "no answer within 0.001 s")


def test_call_that_swallows_the_time_limit_still_counts_as_failure():
    """A callee that answers after it was cancelled by the limit hands its result on, and is a failure."""
    desk = Desk(call_timeout_secs=0.001)

    @desk.breaker
    async def stubborn():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "late"

    async def scenario():
        return await stubborn()

    assert asyncio.run(scenario()) == "late"
    assert (desk.stats["failed_calls"], desk.stats["successful_calls"]) == (1, 0)


def test_cancellation_by_the_caller_is_ignored_under_a_time_limit_too():
    """The breaker tells its own deadline from the caller's cancellation."""
    desk = Desk(call_timeout_secs=3600)

    async def scenario():
        task = asyncio.ensure_future(desk.breaker(asyncio.sleep)(3600))
        await asyncio.sleep(0)
        await _cancel(task)

    asyncio.run(scenario())
    assert (desk.stats["ignored_calls"], desk.stats["failed_calls"]) == (1, 0)


@pytest.mark.parametrize("form", ["decorator", "with"])
@pytest.mark.parametrize("raises", [False, True])
def test_synchronous_call_that_returns_too_late_is_a_failure(form, raises):
    """A sync call over its time hands its outcome on when it returns, and is counted as failure; at the limit not."""
    desk = Desk(call_timeout_secs=2, classify_error=lambda error: Verdict.IGNORED)

    def call(secs):
        desk.wall.advance(secs)
        if raises:
            raise ValueError("late")
        return "done"

    def block(secs):
        with desk.breaker:
            return call(secs)

    guarded = desk.breaker(call) if form == "decorator" else block
    for secs in (2, 2.1):
        try:
            assert guarded(secs) == "done"
        except ValueError:
            assert raises
    assert desk.stats["failed_calls"] == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_any_base_exception_returns_the_slot(error):
    """Whatever ends a probe, its slot is free again and nothing is counted against the venue."""
    desk = Desk(classify_error=lambda error: Verdict.FAILURE)
    desk.half_open()

    @desk.breaker
    def probe():
        raise error

    with pytest.raises(error):
        probe()
    with pytest.raises(error), desk.breaker:
        raise error
    assert desk.breaker.try_acquire() is not None
    assert desk.stats["failed_calls"] == 3


# `with`


def test_with_blocks_nest_and_settle_each_its_own_call():
    """Blocks of two breakers, and of one twice, settle inside out."""
    one, two = Desk(), Desk()
    with one.breaker, two.breaker:
        with pytest.raises(ValueError, match="inner"), one.breaker:
            raise ValueError("inner")
        with one.breaker as permit:
            permit.ignored()
    assert (one.stats["successful_calls"], one.stats["failed_calls"], one.stats["ignored_calls"]) == (1, 1, 1)
    assert two.stats["successful_calls"] == 1


def test_async_with_in_many_tasks_settles_each_its_own_call():
    """Blocks of interleaved tasks do not mix up their permits."""
    desk = Desk(100, 60, 1, 60, 30)

    async def one(n):
        async with desk.breaker:
            await asyncio.sleep(0)
            if n % 4 == 0:
                raise ValueError
            await asyncio.sleep(0)

    async def scenario():
        await asyncio.gather(*(one(n) for n in range(100)), return_exceptions=True)

    asyncio.run(scenario())
    assert (desk.stats["successful_calls"], desk.stats["failed_calls"]) == (75, 25)


def test_with_never_swallows_the_exception():
    """The block's own exception reaches the caller, and a refused block is not run."""
    desk = Desk()
    with pytest.raises(ValueError, match="mine"), desk.breaker:
        raise ValueError("mine")
    desk.trip()
    with pytest.raises(CircuitBreakerOpenError), desk.breaker:
        raise AssertionError("not run")


# Threads and tasks


@pytest.mark.parametrize("round_", range(10))
def test_half_open_lends_one_probe_to_eight_threads(round_):
    """Eight threads arriving together at a half-open breaker make exactly one call, ten times over."""
    desk = Desk()
    desk.half_open()
    inside, refused = [], []
    release, barrier = threading.Event(), threading.Barrier(8)

    @desk.breaker
    def probe():
        inside.append(1)
        assert release.wait(30)

    def caller():
        barrier.wait(30)
        try:
            probe()
        except CircuitBreakerOpenError:
            refused.append(1)
            if len(refused) == 7:
                release.set()

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(inside), len(refused)) == (1, 7)


def test_half_open_lends_one_probe_to_a_hundred_tasks():
    """A hundred tasks arriving together at a half-open breaker make exactly one call."""
    desk = Desk()
    inside = []

    @desk.breaker
    async def probe():
        inside.append(1)
        await asyncio.sleep(0)
        raise ValueError

    async def scenario():
        desk.half_open()
        return await asyncio.gather(*(probe() for _ in range(100)), return_exceptions=True)

    answers = asyncio.run(scenario())
    assert len(inside) == 1
    assert sum(isinstance(answer, CircuitBreakerOpenError) for answer in answers) == 99
    assert desk.breaker.get_state() == "open"


def test_no_result_is_lost_under_threads():
    """Eight threads with constant switching lose no success and no failure."""
    desk = Desk(1000, 60, 1, 60, 30)

    @desk.breaker
    def call(n):
        if n % 10 == 0:
            raise ValueError

    def caller():
        for n in range(500):
            with contextlib.suppress(ValueError):
                call(n)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=caller) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    stats = desk.stats
    assert (stats["successful_calls"], stats["failed_calls"], stats["total_calls"]) == (3600, 400, 4000)


def test_no_lock_is_held_during_a_call():
    """While one call is under way, others pass and the breaker can be asked, moved and read."""
    desk = Desk()

    @desk.breaker
    def call():
        desk.breaker.record_failure()
        desk.breaker.get_stats()
        with desk.breaker:
            pass
        return "done"

    assert call() == "done"
    assert call() == "done"


def test_reading_the_figures_does_not_change_them():
    """Figures read twice without a call between are the same."""
    desk = Desk()
    guarded = desk.breaker(lambda: None)
    for _ in range(5):
        guarded()
        assert desk.stats == desk.stats
    assert desk.stats["successful_calls"] == 5


class _NoLock:
    def __enter__(self):
        raise AssertionError("a lock was taken")

    def __exit__(self, *exc):
        raise AssertionError("a lock was held")


def test_closed_and_healthy_calls_take_no_lock():
    """Once its first call has shown what it is, a guarded function passes a healthy breaker without any lock."""
    desk = Desk()
    guarded, aguarded = desk.breaker(lambda: 1), desk.breaker(asyncio.sleep)
    guarded()
    lock, desk.breaker._lock = desk.breaker._lock, _NoLock()
    guarded()
    asyncio.run(aguarded(0))
    desk.breaker._lock = lock
    assert desk.stats["successful_calls"] == 3


def test_shut_breaker_refuses_without_a_lock():
    """An open breaker refuses a stampede without making its callers queue."""
    desk = Desk()
    desk.trip()
    lock, desk.breaker._lock = desk.breaker._lock, _NoLock()
    for _ in range(3):
        assert desk.breaker.try_acquire() is None
    desk.breaker._lock = lock
    assert desk.stats["rejected_calls"] == 3


@pytest.mark.parametrize("kind", ["sync", "async", "sync timed", "async timed"])
def test_guarded_call_that_ends_in_a_later_era_is_late(kind):
    """A guarded call under way while the breaker opens and is reset counts as late, not as proof of health."""
    desk = Desk(call_timeout_secs=30 if "timed" in kind else None)
    acts = []

    def act():
        if acts:
            acts.pop()()

    async def aact():
        act()

    guarded = desk.breaker(aact if "async" in kind else act)

    def call():
        result = guarded()
        if result is not None:
            asyncio.run(result)

    call()
    acts.append(desk.trip)
    call()
    assert (desk.stats["state"], desk.stats["late_success"]) == ("open", 1)
    desk.breaker.reset()
    acts.append(desk.breaker.record_failure)
    call()
    assert (desk.stats["consecutive_failures"], desk.stats["late_success"]) == (0, 1)


# Listeners and sinks


class _Sink:
    def __init__(self, error=None):
        self.error = error
        self.seen = []

    def emit(self, event):
        self.seen.append(event)
        if self.error is not None:
            raise self.error

    def record(self, type, details, *, component=""):  # noqa: A002  the log's own word
        self.seen.append((type, details, component))
        if self.error is not None:
            raise self.error


def test_raising_listener_changes_no_calls_result_and_is_counted():
    """Listener, event logger and audit log may all fail: calls end as they did, others still hear, and it shows."""
    broken_audit, broken_logger, heard = _Sink(AuditWriteError("disk full")), _Sink(ValueError("bad")), []

    def broken(event):
        raise RuntimeError("listener")

    breaker = TradingCircuitBreaker(
        CircuitBreakerConfig(1, 60, 1, 60, 30),
        broken_logger,
        audit=broken_audit,
        listeners=[broken, heard.append],
        clock=ManualClock(),
    )

    @breaker
    def call():
        raise KeyError("the call's own")

    with pytest.raises(KeyError, match="the call's own"):
        call()
    with pytest.raises(CircuitBreakerOpenError):
        call()
    assert [event.kind for event in heard] == [BreakerEventKind.FAILURE, BreakerEventKind.STATE_CHANGE]
    stats = breaker.get_stats()
    assert stats["listener_errors"] == 5
    assert stats["last_listener_error"] == "RuntimeError: listener"


def test_audit_gets_every_state_change_and_nothing_else():
    """State changes become BREAKER records with the published keys; single failures do not."""
    audit = _Sink()
    clock = ManualClock()
    breaker = TradingCircuitBreaker(
        CircuitBreakerConfig(2, 60, 1, 60, 30), name="kalshi_api", audit=audit, clock=clock
    )
    breaker.record_failure()
    breaker.record_failure()
    clock.advance(60)
    breaker.acquire().success()
    breaker.latch("HTTP 401")
    breaker.reset("kim")
    assert [(type_, component) for type_, _, component in audit.seen] == [("BREAKER", "breaker")] * 5
    assert audit.seen[0][1] == {
        "breaker": "kalshi_api",
        "from": "closed",
        "to": "open",
        "reason": "2 failures in a row",
        "failures": 2,
        "retry_after_secs": 60.0,
    }
    moves = [(details["from"], details["to"]) for _, details, _ in audit.seen]
    assert moves == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
        ("closed", "latched"),
        ("latched", "closed"),
    ]
    assert audit.seen[-1][1]["reason"] == "manual reset (by kim)"


def test_records_keep_to_the_published_schema():
    """The details of a BREAKER record pass the log's own schema."""
    audit = _Sink()
    breaker = TradingCircuitBreaker(CircuitBreakerConfig(1), audit=audit, clock=ManualClock())
    breaker.record_failure()
    breaker.latch("x")
    for type_, details, _ in audit.seen:
        schemas.check(type_, details)


def test_listener_that_moves_the_breaker_hears_everything_in_order():
    """A listener may reset the breaker it listens to: no deadlock, no recursion, events in order and once."""
    heard = []

    def healer(event):
        heard.append((event.kind, event.new_state.value))
        if event.new_state is BreakerState.OPEN and event.kind is BreakerEventKind.STATE_CHANGE:
            desk.breaker.reset("healer")
            heard.append("healer done")

    desk = Desk(1, 60, 1, 60, 30, listeners=[healer])
    desk.breaker.record_failure()
    assert heard == [
        (BreakerEventKind.FAILURE, "closed"),
        (BreakerEventKind.STATE_CHANGE, "open"),
        "healer done",
        (BreakerEventKind.STATE_CHANGE, "closed"),
        (BreakerEventKind.MANUAL_RESET, "closed"),
    ]


def test_events_of_many_threads_arrive_once_and_in_order():
    """Whoever delivers, the chain of state changes has no gap, no repetition and no swap."""
    desk = Desk(1, 60, 1, 60, 30)

    def mover():
        for _ in range(200):
            desk.breaker.record_failure()
            desk.breaker.reset()

    threads = [threading.Thread(target=mover) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    moves = desk.moves
    assert moves[0] == ("closed", "open")
    assert all(before[1] == after[0] for before, after in itertools.pairwise(moves))
    assert sum(event.kind is BreakerEventKind.MANUAL_RESET for event in desk.events) == 800


def test_interrupted_listener_does_not_stop_later_events():
    """A KeyboardInterrupt inside a listener leaves the breaker able to deliver what follows."""
    heard = []

    def listener(event):
        heard.append(event.kind)
        if len(heard) == 1:
            raise KeyboardInterrupt

    desk = Desk(listeners=[listener])
    with pytest.raises(KeyboardInterrupt):
        desk.breaker.record_failure()
    desk.breaker.record_failure()
    assert len(heard) == 2


# Classification


def test_classifiers_decide_what_counts():
    """Configured classifiers judge exceptions and results; a result may be a failure, an exception may not."""
    desk = Desk(
        classify_error=lambda error: Verdict.IGNORED if isinstance(error, KeyError) else Verdict.FAILURE,
        classify_result=lambda result: Verdict.FAILURE if result == 500 else Verdict.SUCCESS,
    )

    @desk.breaker
    def call(outcome):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    for outcome in (200, 500, KeyError("x"), ValueError("y")):
        with contextlib.suppress(KeyError, ValueError):
            call(outcome)
    stats = desk.stats
    assert (stats["successful_calls"], stats["failed_calls"], stats["ignored_calls"]) == (1, 2, 1)


@pytest.mark.parametrize("broken", [lambda outcome: 1 / 0, lambda outcome: "ok", lambda outcome: None])
def test_broken_classifier_leaves_a_failure_and_the_calls_own_result(broken):
    """A classifier that raises or answers nonsense proves no health, is counted, and harms no call."""
    desk = Desk(classify_result=broken)
    assert desk.breaker(lambda: "result")() == "result"
    assert (desk.stats["failed_calls"], desk.stats["listener_errors"]) == (1, 1)


def test_latching_classifier_latches():
    """A classifier may say that only a person can mend this."""
    desk = Desk(classify_error=lambda error: Verdict.LATCH)
    with pytest.raises(PermissionError):
        desk.breaker(lambda: (_ for _ in ()).throw(PermissionError("key revoked")))()
    assert (desk.stats["state"], desk.stats["reason"]) == ("latched", "PermissionError: key revoked")


def test_exception_that_cannot_be_printed_is_still_a_failure():
    """An exception whose text raises harms neither the breaker nor the caller."""

    class Unprintable(Exception):
        def __str__(self):
            raise RuntimeError

    desk = Desk()
    with pytest.raises(Unprintable):
        desk.breaker(lambda: (_ for _ in ()).throw(Unprintable()))()
    assert desk.stats["last_error"] == "Unprintable"


# By hand


@pytest.mark.contract("B1")
def test_results_by_hand_settle_the_probe_that_is_out():
    """After an admission in HALF_OPEN record_success counts towards closing and record_failure reopens."""
    desk = Desk()
    desk.half_open()
    desk.breaker.record_success()
    assert desk.breaker.get_state() == "half_open"
    for _ in range(2):
        desk.breaker.acquire()
        desk.breaker.record_success()
    assert desk.breaker.get_state() == "closed"
    desk.half_open()
    desk.breaker.acquire()
    desk.breaker.record_failure()
    assert desk.breaker.get_state() == "open"


def test_observed_results_are_counted_and_close_nothing():
    """Calls that went regardless count while closed; successes of cancels do not close an open breaker."""
    desk = Desk()
    for _ in range(3):
        desk.breaker.observe(Verdict.FAILURE, "cancel timed out")
    assert desk.breaker.get_state() == "open"
    desk.clock.advance(60)
    for _ in range(5):
        desk.breaker.observe(Verdict.SUCCESS)
    assert (desk.breaker.get_state(), desk.stats["successful_calls"]) == ("half_open", 5)
    desk.breaker.observe(Verdict.LATCH, "HTTP 401")
    assert desk.breaker.get_state() == "latched"
    desk.breaker.observe(Verdict.LATCH, "HTTP 403")
    assert desk.stats["reason"] == "HTTP 401"


@pytest.mark.contract("A6")
def test_figures_count_refused_calls_too():
    """One success, ten failures and one refusal are 12 calls and 8.33 %."""
    desk = Desk(10, 60, 3, 30, 30)
    assert desk.stats["success_rate"] == 0.0
    desk.breaker(lambda: None)()
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            desk.breaker(lambda: 1 / 0)()
    assert desk.breaker.try_acquire() is None
    stats = desk.stats
    assert stats["state"] == "open"
    assert (stats["total_calls"], stats["successful_calls"]) == (12, 1)
    assert (stats["failed_calls"], stats["rejected_calls"]) == (10, 1)
    assert f"{stats['success_rate']:.2%}" == "8.33%"
    assert stats["last_error"] == "ZeroDivisionError: division by zero"
    assert stats["next_probe_secs"] == 30


def test_breaker_stands_with_nothing_given():
    """Without configuration, clock, log or name a breaker works with the contract's defaults."""
    breaker = TradingCircuitBreaker()
    with breaker:
        pass
    assert breaker.config == CircuitBreakerConfig()
    assert breaker.get_stats()["successful_calls"] == 1
    assert repr(breaker) == "<TradingCircuitBreaker 'breaker' closed>"
