"""A small model beside the real breaker: any order of calls, results, waits and orders gives the same answers."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import CircuitBreakerConfig
from holdfast.breaker.events import BreakerEventKind
from holdfast.breaker.machine import Verdict
from holdfast.core.clock import ManualClock

BAD = (Verdict.FAILURE, Verdict.LATCH)


class BreakerBesideModel(RuleBasedStateMachine):
    """The model is written from the contract's words, with lists and seconds, and shares no code with the breaker."""

    @initialize(
        threshold=st.integers(1, 4),
        window=st.integers(1, 20),
        tries=st.integers(1, 3),
        wait=st.integers(1, 20),
        lease=st.integers(1, 10),
    )
    def build(self, threshold, window, tries, wait, lease):
        self.threshold, self.window, self.tries, self.wait, self.lease = threshold, window, tries, wait, lease
        self.clock = ManualClock()
        self.events = []
        self.breaker = TradingCircuitBreaker(
            CircuitBreakerConfig(threshold, window, tries, wait, lease),
            clock=self.clock,
            listeners=[self.events.append],
        )
        self.now = 0
        self.state, self.since, self.life = "closed", 0, 0
        self.history, self.row, self.proved = [], 0, 0
        self.probe = None  # (life, number) of the probe that is out, and when its slot is free
        self.numbers = 0
        self.calls = []  # (permit, life, number) not yet settled
        self.count = dict.fromkeys(Verdict, 0)
        self.refused = self.late_good = self.late_bad = 0
        self.chain = ["closed"]

    # The model's own small steps

    def _go(self, state):
        if state != self.state:
            self.chain.append(state)
        self.state, self.since, self.life = state, self.now, self.life + 1
        self.history, self.row, self.proved, self.probe = [], 0, 0, None

    def _wake(self):
        if self.state == "open" and self.now - self.since >= self.wait:
            self._go("half_open")

    def _result(self, verdict, life, number):
        self.count[verdict] += 1
        if life != self.life or (number and (self.probe is None or self.probe[0] != number)):
            self.late_good += verdict is Verdict.SUCCESS
            self.late_bad += verdict in BAD
            return
        self._evidence(verdict)

    def _evidence(self, verdict):
        if verdict is Verdict.LATCH:
            self._go("latched")
        elif self.state == "half_open":
            self.probe = None
            if verdict is Verdict.FAILURE:
                self._go("open")
            elif verdict is Verdict.SUCCESS:
                self.proved += 1
                if self.proved == self.tries:
                    self._go("closed")
        elif verdict is Verdict.FAILURE:
            self.history.append(self.now)
            self.row += 1
            recent = [when for when in self.history if self.now - when <= self.window]
            if self.row >= self.threshold or len(recent) >= self.threshold:
                self._go("open")
        elif verdict is Verdict.SUCCESS:
            self.row = 0

    # What may happen

    @rule(may_probe=st.booleans())
    def ask(self, may_probe):
        """Somebody asks for admission."""
        permit = self.breaker.try_acquire(probe=may_probe)
        self._wake()
        free = self.probe is None or self.now >= self.probe[1]
        if self.state == "closed":
            assert permit is not None
            assert not permit.is_probe
            self.calls.append((permit, self.life, 0))
        elif self.state == "half_open" and free and may_probe:
            assert permit is not None
            assert permit.is_probe
            self.numbers += 1
            self.probe = (self.numbers, self.now + self.lease)
            self.calls.append((permit, self.life, self.numbers))
        else:
            assert permit is None
            self.refused += 1

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), verdict=st.sampled_from(Verdict), twice=st.booleans())
    def settle(self, data, verdict, twice):
        """A call ends, now or long after."""
        permit, life, number = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        permit.settle(verdict)
        self._result(verdict, life, number)
        if twice:
            permit.settle(Verdict.LATCH)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def withdraw(self, data):
        """A call is not made after all."""
        permit, life, number = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        permit.withdraw()
        if number and life == self.life and self.probe is not None and self.probe[0] == number:
            self.probe = None

    @rule(verdict=st.sampled_from([Verdict.SUCCESS, Verdict.FAILURE]))
    def tell(self, verdict):
        """A result is told by hand."""
        self.breaker.record_success() if verdict is Verdict.SUCCESS else self.breaker.record_failure()
        self.count[verdict] += 1
        if self.state == "closed" or self.probe is not None:
            self._evidence(verdict)
        else:
            self.late_good += verdict is Verdict.SUCCESS
            self.late_bad += verdict in BAD

    @rule(verdict=st.sampled_from(Verdict))
    def observe(self, verdict):
        """A call went regardless."""
        self.breaker.observe(verdict)
        self.count[verdict] += 1
        if self.state == "closed" or (verdict is Verdict.LATCH and self.state != "latched"):
            self._evidence(verdict)

    @rule(secs=st.integers(1, 12))
    def pass_time(self, secs):
        """Time goes by."""
        self.clock.advance(secs)
        self.now += secs

    @rule(order=st.sampled_from(["force", "latch", "reset"]))
    def order(self, order):
        """A person steps in."""
        if order == "reset":
            self.breaker.reset("kim")
            self._go("closed")
        elif self.state != "latched":
            (self.breaker.force_open if order == "force" else self.breaker.latch)("why", "kim")
            self._go("forced_open" if order == "force" else "latched")

    # What must hold after each

    @invariant()
    def agrees(self):
        """State, counts and waits are the model's."""
        if not hasattr(self, "breaker"):
            return
        self._wake()
        stats = self.breaker.get_stats()
        assert stats["state"] == self.state
        assert stats["failed_calls"] == self.count[Verdict.FAILURE] + self.count[Verdict.LATCH]
        assert stats["successful_calls"] == self.count[Verdict.SUCCESS]
        assert stats["ignored_calls"] == self.count[Verdict.IGNORED]
        assert stats["not_reached_calls"] == self.count[Verdict.NOT_REACHED]
        assert stats["rejected_calls"] == self.refused
        assert (stats["late_success"], stats["late_failure"]) == (self.late_good, self.late_bad)
        assert stats["total_calls"] == sum(self.count.values()) + self.refused
        waits = {
            "closed": 0,
            "open": self.since + self.wait - self.now,
            "half_open": max(0, self.probe[1] - self.now) if self.probe else 0,
        }
        assert stats["next_probe_secs"] == waits.get(self.state)
        moves = [event for event in self.events if event.kind is BreakerEventKind.STATE_CHANGE]
        assert ["closed", *(event.new_state.value for event in moves)] == self.chain


TestBreakerBesideModel = pytest.mark.slow(BreakerBesideModel.TestCase)
TestBreakerBesideModel.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
