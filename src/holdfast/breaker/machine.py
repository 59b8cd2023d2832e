"""The breaker as a pure machine: (machine, event, now) -> (machine, effects). No lock, no clock, no I/O.

    CLOSED ──THRESHOLD_REACHED──▶ OPEN ──WAIT_ELAPSED──▶ HALF_OPEN ──PROBES_SUCCEEDED──▶ CLOSED
                                   ▲                         │
                                   └──────PROBE_FAILED───────┘
    any state ──FORCE──▶ FORCED_OPEN      (not out of LATCHED: a latch is never weakened)
    any state ──LATCH──▶ LATCHED          (stays through restarts, until a person resets it)
    any state ──RESET──▶ CLOSED           (by a person; forgets every count)

`TRANSITIONS` holds exactly these arrows and is what the code follows and the tests read; anything else raises
`IllegalTransition`. Every arrow starts a new *era*. `Machine.word` is era and state in one integer: a permit
keeps the era it was given in, and what it reports in a later era is counted as late and changes nothing.

Promises: THRESHOLD_REACHED comes with `failure_threshold` failures in a row, however slow, or as many inside
the window. HALF_OPEN lends one probe at a time; the loan (lease) expires, so that a probe which never reports
cannot wedge the breaker. The first probe that fails reopens; `half_open_max_tries` that succeed close. WAIT_ELAPSED
happens when somebody asks after the wait is over, not by a timer.
Limits: ignored and not-reached verdicts give the slot back and prove nothing. Times are monotonic nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum, auto
from typing import NamedTuple, assert_never

from holdfast.core.errors import IllegalTransition


class BreakerState(StrEnum):
    """Where a breaker stands; the values are the words of statistics and records."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    LATCHED = "latched"


class Signal(StrEnum):
    """The names of the arrows."""

    THRESHOLD_REACHED = "threshold_reached"
    WAIT_ELAPSED = "wait_elapsed"
    PROBE_FAILED = "probe_failed"
    PROBES_SUCCEEDED = "probes_succeeded"
    FORCE = "force"
    LATCH = "latch"
    RESET = "reset"


class Verdict(IntEnum):
    """What a call proved about its dependency.

    SUCCESS: it works. FAILURE: it does not. IGNORED: the call's own affair (a business reject, a cancellation by
    the caller); proves nothing. NOT_REACHED: the call never got there (local pool, limiter, an inner breaker);
    proves nothing either. LATCH: a failure that only a person can mend (401, 403); counts as failure and latches.
    """

    SUCCESS = auto()
    FAILURE = auto()
    IGNORED = auto()
    NOT_REACHED = auto()
    LATCH = auto()


TRANSITIONS: Mapping[tuple[BreakerState, Signal], BreakerState] = {
    (BreakerState.CLOSED, Signal.THRESHOLD_REACHED): BreakerState.OPEN,
    (BreakerState.CLOSED, Signal.FORCE): BreakerState.FORCED_OPEN,
    (BreakerState.CLOSED, Signal.LATCH): BreakerState.LATCHED,
    (BreakerState.CLOSED, Signal.RESET): BreakerState.CLOSED,
    (BreakerState.OPEN, Signal.WAIT_ELAPSED): BreakerState.HALF_OPEN,
    (BreakerState.OPEN, Signal.FORCE): BreakerState.FORCED_OPEN,
    (BreakerState.OPEN, Signal.LATCH): BreakerState.LATCHED,
    (BreakerState.OPEN, Signal.RESET): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, Signal.PROBE_FAILED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, Signal.PROBES_SUCCEEDED): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, Signal.FORCE): BreakerState.FORCED_OPEN,
    (BreakerState.HALF_OPEN, Signal.LATCH): BreakerState.LATCHED,
    (BreakerState.HALF_OPEN, Signal.RESET): BreakerState.CLOSED,
    (BreakerState.FORCED_OPEN, Signal.FORCE): BreakerState.FORCED_OPEN,
    (BreakerState.FORCED_OPEN, Signal.LATCH): BreakerState.LATCHED,
    (BreakerState.FORCED_OPEN, Signal.RESET): BreakerState.CLOSED,
    (BreakerState.LATCHED, Signal.RESET): BreakerState.CLOSED,
}

LASTING = frozenset({BreakerState.FORCED_OPEN, BreakerState.LATCHED})
"""The states that outlast a restart and that only a person ends."""

_STATE_CODES: Mapping[BreakerState, int] = {state: code for code, state in enumerate(BreakerState, start=1)}


class Rules(NamedTuple):
    """The numbers that the machine follows; times in nanoseconds."""

    failure_threshold: int
    failure_window_ns: int
    half_open_max_tries: int
    open_timeout_ns: int
    half_open_timeout_ns: int


class Machine(NamedTuple):
    """Everything that decides; a value, replaced as a whole.

    Attributes:
        state: Where the breaker stands.
        era: How many arrows led here.
        consecutive: Failures since the last success of this era.
        failure_times: The newest failures of this era, at most `failure_threshold`.
        successes: Probes that succeeded in this HALF_OPEN era.
        since_ns: When this era began; in OPEN the wait runs from here.
        lease: The number of the probe that is out, 0 when none is.
        lease_until_ns: When that probe's slot is free again.
        leases: How many probes were ever lent; numbers the next one.
        reason: Why this era began.
        who: The person behind it, or "".
    """

    state: BreakerState = BreakerState.CLOSED
    era: int = 1
    consecutive: int = 0
    failure_times: tuple[int, ...] = ()
    successes: int = 0
    since_ns: int = 0
    lease: int = 0
    lease_until_ns: int = 0
    leases: int = 0
    reason: str = ""
    who: str = ""

    @property
    def word(self) -> int:
        """Era and state in one integer, never 0."""
        return self.era << 3 | _STATE_CODES[self.state]

    @property
    def is_quiet(self) -> bool:
        """Closed with no failure in a row: a success now changes nothing."""
        return self.state is BreakerState.CLOSED and self.consecutive == 0


# Events: what happens to a breaker.


class Asked(NamedTuple):
    """Somebody wants to call; `may_probe` is False for calls that must never be the probe (orders)."""

    may_probe: bool = True


class Settled(NamedTuple):
    """An admitted call ended; `lease` is 0 unless it was a probe."""

    era: int
    lease: int
    verdict: Verdict
    reason: str = ""


class Reported(NamedTuple):
    """A result without a permit, told by hand; in HALF_OPEN it is the result of the probe that is out."""

    verdict: Verdict
    reason: str = ""


class Observed(NamedTuple):
    """A call went regardless of the breaker (a cancel, a reconciliation): evidence only while CLOSED."""

    verdict: Verdict
    reason: str = ""


class Withdrawn(NamedTuple):
    """An admitted call was not made after all."""

    era: int
    lease: int


class Looked(NamedTuple):
    """Somebody asked for the state."""


class Ordered(NamedTuple):
    """A person, or evidence as good as one, moves the breaker: FORCE, LATCH or RESET."""

    signal: Signal
    reason: str = ""
    who: str = ""


Event = Asked | Settled | Reported | Observed | Withdrawn | Looked | Ordered


# Effects: what the shell must do.


class Granted(NamedTuple):
    """The call may go; `lease` is above 0 when it is the probe."""

    era: int
    lease: int


class Refused(NamedTuple):
    """The call may not go, as `machine` stood; `retry_after_ns` is None when only a person can change that."""

    retry_after_ns: int | None
    machine: Machine


class Counted(NamedTuple):
    """A result entered the statistics; `late` when it belongs to an earlier era or an expired lease."""

    verdict: Verdict
    late: bool
    reason: str = ""


class Moved(NamedTuple):
    """An arrow was taken; `failures` is the count that led to it."""

    origin: BreakerState
    signal: Signal
    target: BreakerState
    failures: int


Effect = Granted | Refused | Counted | Moved


class Step(NamedTuple):
    """The machine after an event, and what the shell must do."""

    machine: Machine
    effects: tuple[Effect, ...]


def next_state(state: BreakerState, signal: Signal) -> BreakerState:
    """Where *signal* leads from *state*.

    Raises:
        IllegalTransition: The table has no such arrow.
    """
    target = TRANSITIONS.get((state, signal))
    if target is None:
        raise IllegalTransition(f"a breaker that is {state} knows no {signal}")
    return target


def step(rules: Rules, machine: Machine, event: Event, now_ns: int) -> Step:
    """The one transition function.

    Raises:
        IllegalTransition: An order (FORCE, LATCH, RESET) that the table does not allow in this state.
    """
    match event:
        case Asked(may_probe):
            result = _ask(rules, machine, now_ns, may_probe=may_probe)
        case Settled(era, lease, verdict, reason):
            is_late = (era, lease) != (machine.era, machine.lease)
            result = _settle(rules, machine, verdict, reason, now_ns, is_late=is_late)
        case Reported(verdict, reason):
            counts = machine.state is BreakerState.CLOSED or machine.lease != 0
            result = _settle(rules, machine, verdict, reason, now_ns, is_late=not counts)
        case Observed(verdict, reason):
            result = _observe(rules, machine, verdict, reason, now_ns)
        case Withdrawn(era, lease):
            is_ours = lease != 0 and (era, lease) == (machine.era, machine.lease)
            result = Step(_without_lease(machine) if is_ours else machine, ())
        case Looked():
            result = _look(rules, machine, now_ns)
        case Ordered(signal, reason, who):
            result = _move(machine, signal, now_ns, reason, who)
        case _:
            assert_never(event)
    return result


def retry_after_ns(rules: Rules, machine: Machine, now_ns: int) -> int | None:
    """Nanoseconds until a probe may go: 0 when one may go now, None when only a person can change that."""
    match machine.state:
        case BreakerState.CLOSED:
            return 0
        case BreakerState.OPEN:
            return max(0, machine.since_ns + rules.open_timeout_ns - now_ns)
        case BreakerState.HALF_OPEN:
            return max(0, machine.lease_until_ns - now_ns) if machine.lease else 0
        case BreakerState.FORCED_OPEN | BreakerState.LATCHED:
            return None
        case _:
            assert_never(machine.state)


def _look(rules: Rules, machine: Machine, now_ns: int) -> Step:
    if machine.state is BreakerState.OPEN and retry_after_ns(rules, machine, now_ns) == 0:
        return _move(machine, Signal.WAIT_ELAPSED, now_ns, machine.reason)
    return Step(machine, ())


def _ask(rules: Rules, machine: Machine, now_ns: int, *, may_probe: bool) -> Step:
    machine, effects = _look(rules, machine, now_ns)
    if machine.state is BreakerState.CLOSED:
        return Step(machine, (*effects, Granted(machine.era, 0)))
    wait_ns = retry_after_ns(rules, machine, now_ns)
    if machine.state is not BreakerState.HALF_OPEN or wait_ns != 0 or not may_probe:
        return Step(machine, (*effects, Refused(wait_ns, machine)))
    number = machine.leases + 1
    machine = machine._replace(
        lease=number, leases=number, lease_until_ns=now_ns + rules.half_open_timeout_ns
    )
    return Step(machine, (*effects, Granted(machine.era, number)))


def _settle(
    rules: Rules, machine: Machine, verdict: Verdict, reason: str, now_ns: int, *, is_late: bool
) -> Step:
    counted = Counted(verdict, is_late, reason)
    if is_late:
        return Step(machine, (counted,))
    if verdict is Verdict.LATCH:
        return _after(counted, _move(machine, Signal.LATCH, now_ns, reason))
    if machine.state is BreakerState.HALF_OPEN:
        return _after(counted, _settle_probe(rules, _without_lease(machine), verdict, reason, now_ns))
    if verdict is Verdict.FAILURE:
        return _after(counted, _fail(rules, machine, now_ns))
    if verdict is Verdict.SUCCESS and machine.consecutive:
        machine = machine._replace(consecutive=0)
    return Step(machine, (counted,))


def _settle_probe(rules: Rules, machine: Machine, verdict: Verdict, reason: str, now_ns: int) -> Step:
    if verdict is Verdict.FAILURE:
        why = f"the probe failed: {reason}" if reason else "the probe failed"
        return _move(machine._replace(consecutive=1), Signal.PROBE_FAILED, now_ns, why)
    if verdict is not Verdict.SUCCESS:
        return Step(machine, ())
    machine = machine._replace(successes=machine.successes + 1)
    if machine.successes < rules.half_open_max_tries:
        return Step(machine, ())
    return _move(machine, Signal.PROBES_SUCCEEDED, now_ns, f"{machine.successes} probes succeeded")


def _fail(rules: Rules, machine: Machine, now_ns: int) -> Step:
    times = (*machine.failure_times, now_ns)[-rules.failure_threshold :]
    machine = machine._replace(consecutive=machine.consecutive + 1, failure_times=times)
    if machine.consecutive >= rules.failure_threshold:
        why = f"{machine.consecutive} failures in a row"
        return _move(machine, Signal.THRESHOLD_REACHED, now_ns, why)
    if len(times) == rules.failure_threshold and now_ns - times[0] <= rules.failure_window_ns:
        why = f"{len(times)} failures in {rules.failure_window_ns / 1e9:g} s"
        return _move(machine._replace(consecutive=len(times)), Signal.THRESHOLD_REACHED, now_ns, why)
    return Step(machine, ())


def _observe(rules: Rules, machine: Machine, verdict: Verdict, reason: str, now_ns: int) -> Step:
    if machine.state is BreakerState.CLOSED:
        return _settle(rules, machine, verdict, reason, now_ns, is_late=False)
    counted = Counted(verdict, late=False, reason=reason)
    if verdict is Verdict.LATCH and machine.state is not BreakerState.LATCHED:
        return _after(counted, _move(machine, Signal.LATCH, now_ns, reason))
    return Step(machine, (counted,))


def _move(machine: Machine, signal: Signal, now_ns: int, reason: str, who: str = "") -> Step:
    target = next_state(machine.state, signal)
    moved = Moved(machine.state, signal, target, machine.consecutive)
    after = Machine(
        state=target, era=machine.era + 1, since_ns=now_ns, leases=machine.leases, reason=reason, who=who
    )
    return Step(after, (moved,))


def _without_lease(machine: Machine) -> Machine:
    return machine._replace(lease=0, lease_until_ns=0)


def _after(first: Effect, rest: Step) -> Step:
    return Step(rest.machine, (first, *rest.effects))
