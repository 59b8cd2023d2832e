"""The registry: presets, children that may only refuse more, eviction, memory over a restart."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.breaker.config import PRESETS, CircuitBreakerConfig
from holdfast.breaker.events import BreakerSnapshot
from holdfast.breaker.machine import BreakerState, Verdict
from holdfast.breaker.registry import OVERFLOW_KEY, BreakerRegistry, closed_off, standard_registry
from holdfast.core.clock import ManualClock
from holdfast.core.errors import CircuitBreakerOpenError

CONFIG = CircuitBreakerConfig(2, 60, 1, 60, 30)


def _registry(clock=None, **settings):
    registry = BreakerRegistry(clock=clock or ManualClock(), **settings)
    registry.get_or_create("kalshi_api", CONFIG)
    return registry


@pytest.mark.contract("A5")
def test_standard_registry_stands_with_four_breakers_from_its_first_use():
    """The four breakers exist before anything was called, and a plain registry is empty."""
    registry = standard_registry(clock=ManualClock())
    assert list(registry.get_all_stats()) == list(PRESETS)
    assert {name: registry.get(name).config for name in PRESETS} == PRESETS
    assert BreakerRegistry().get_all_stats() == {}


def test_registry_gives_the_same_breaker_to_everybody():
    """One name is one breaker, whoever asks first, from any thread."""
    registry = BreakerRegistry(clock=ManualClock())
    got = []
    barrier = threading.Barrier(8)

    def ask():
        barrier.wait(30)
        got.append(registry.get_or_create("x"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(got)) == 1
    assert registry.get("y") is None


@pytest.mark.contract("A20")
def test_child_counts_on_itself_and_on_its_parent():
    """A child's results stand on both; the parent's figures are the ones shown."""
    registry = _registry()
    child = registry.child("kalshi_api", "KXNBA")
    child.acquire().success()
    child.acquire().failure("HTTP 500")
    child.observe(Verdict.SUCCESS)
    child.record_success()
    every = registry.get_all_stats(children=True)
    assert list(registry.get_all_stats()) == ["kalshi_api"]
    for name in ("kalshi_api", "kalshi_api/KXNBA"):
        assert (every[name]["successful_calls"], every[name]["failed_calls"]) == (3, 1)


@pytest.mark.contract("A20")
def test_tripped_child_refuses_alone():
    """A child that is open refuses its own calls; the parent and other children go on."""
    registry = _registry()
    child, other = registry.child("kalshi_api", "bad"), registry.child("kalshi_api", "good")
    child.acquire().failure()
    other.acquire().success()
    child.latch("order group gone")
    assert child.try_acquire() is None
    assert other.try_acquire() is not None
    assert registry.get("kalshi_api").get_state() == "closed"


@pytest.mark.contract("A20")
def test_open_parent_refuses_every_child_and_no_slot_is_lost():
    """A child never admits what its parent refuses, and its own probe slot stays free for later."""
    clock = ManualClock()
    registry = _registry(clock)
    parent, child = registry.get("kalshi_api"), registry.child("kalshi_api", "k")
    for _ in range(2):
        child.acquire().failure()
    clock.advance(60)
    probe = parent.acquire()
    with pytest.raises(CircuitBreakerOpenError, match="'kalshi_api' is half open"):
        child.acquire()
    probe.success()
    permit = child.acquire()
    assert permit.is_probe
    permit.success()
    assert child.get_state() == "closed"
    assert child.get_stats()["rejected_calls"] == 1


@pytest.mark.contract("A20")
def test_resetting_a_parent_closes_its_children_but_not_what_was_closed_off():
    """After a person's reset no child fails fast for old failures; a child that was latched stays latched."""
    registry = _registry()
    tripped, latched = registry.child("kalshi_api", "tripped"), registry.child("kalshi_api", "latched")
    for _ in range(2):
        tripped.acquire().failure()
    latched.latch("order group gone")
    registry.get("kalshi_api").reset("kim")
    assert tripped.try_acquire() is not None
    assert tripped.get_stats()["who"] == "kim"
    assert latched.try_acquire() is None


@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(["child", "parent", "wait", "latch", "force", "reset child", "reset parent"]),
            st.sampled_from(Verdict),
        ),
        max_size=30,
    )
)
@pytest.mark.contract("A20")
def test_child_admits_a_subset_of_what_its_parent_admits(moves):
    """Whatever happened, a child admits nothing that its parent alone would refuse."""
    clock = ManualClock()
    registry = _registry(clock)
    parent, child = registry.get("kalshi_api"), registry.child("kalshi_api", "k")
    for move, verdict in moves:
        match move:
            case "wait":
                clock.advance(31)
            case "latch":
                child.latch("x")
            case "force" if child.get_state() != "latched":
                child.force_open("x")
            case "reset child":
                child.reset()
            case "reset parent":
                parent.reset()
            case "child":
                alone = parent.try_acquire()
                if alone is not None:
                    alone.withdraw()
                permit = child.try_acquire()
                assert permit is None or alone is not None
                if permit is not None:
                    permit.settle(verdict)
            case "parent":
                permit = parent.try_acquire()
                if permit is not None:
                    permit.settle(verdict)


@pytest.mark.contract("A20")
def test_decorated_child_asks_its_parent_each_time():
    """A decorator of a child counts on both and stops when the parent stops."""
    registry = _registry()
    guarded = registry.child("kalshi_api", "k")(lambda: 1)
    assert [guarded(), guarded(), guarded()] == [1, 1, 1]
    assert registry.get_all_stats()["kalshi_api"]["successful_calls"] == 3
    registry.get("kalshi_api").latch("HTTP 401")
    with pytest.raises(CircuitBreakerOpenError):
        guarded()


@pytest.mark.contract("A20")
def test_idle_healthy_children_are_evicted_and_troubled_ones_kept():
    """After the idle time a healthy child makes room; one with failures or open keeps its memory."""
    clock = ManualClock()
    registry = _registry(clock, child_idle_secs=10)
    registry.child("kalshi_api", "idle")
    registry.child("kalshi_api", "latched").latch("x")
    registry.child("kalshi_api", "failed").acquire().failure()
    clock.advance(9)
    busy = registry.child("kalshi_api", "busy")
    clock.advance(2)
    registry.child("kalshi_api", "new")
    assert registry.child("kalshi_api", "busy") is busy
    names = set(registry.get_all_stats(children=True)) - {"kalshi_api/busy"}
    assert names == {"kalshi_api", "kalshi_api/latched", "kalshi_api/failed", "kalshi_api/new"}
    assert registry.child("kalshi_api", "latched").get_state() == "latched"


@pytest.mark.contract("A20")
def test_children_stay_bounded_and_the_rest_share_one_breaker():
    """However many keys are asked for, children stay within the bound; beyond it keys share one that refuses more."""
    registry = _registry(max_children=4)
    for n in range(3):
        registry.child("kalshi_api", f"bad{n}").latch("x")
    shared = [registry.child("kalshi_api", f"more{n}") for n in range(50)]
    assert {child.name for child in shared} == {f"kalshi_api/{OVERFLOW_KEY}"}
    assert len(registry.get_all_stats(children=True)) == 1 + 4
    registry = _registry(max_children=4)
    for n in range(100):
        registry.child("kalshi_api", f"k{n}")
    assert len(registry.get_all_stats(children=True)) <= 1 + 4
    assert registry.child("kalshi_api", "k99") is registry.child("kalshi_api", "k99")


def test_child_of_an_unknown_parent_is_refused():
    """There is no child without its parent."""
    with pytest.raises(KeyError):
        BreakerRegistry().child("nobody", "k")


def test_latch_survives_a_restart_through_the_journals_records():
    """From the BREAKER records alone, a new registry stands latched where a person has not released it."""
    records = []

    class Audit:
        def record(self, type_, details, *, component=""):
            records.append(details)

    before = standard_registry(clock=ManualClock(), audit=Audit())
    before.get("kalshi_api").acquire().latch("HTTP 401")
    before.get("gemini_api").force_open("quota", "kim")
    before.get("polymarket_api").latch("HTTP 403")
    before.get("polymarket_api").reset("kim")
    for _ in range(3):
        before.get("sportradar_api").record_failure()
    after = standard_registry(clock=ManualClock(), audit=Audit())
    written = len(records)
    after.restore(records)
    assert {name: stats["state"] for name, stats in after.get_all_stats().items()} == {
        "kalshi_api": "latched",
        "polymarket_api": "closed",
        "sportradar_api": "closed",
        "gemini_api": "forced_open",
    }
    assert after.get("kalshi_api").get_stats()["reason"] == "HTTP 401"
    assert len(records) == written


def test_latch_of_a_child_survives_a_restart_too():
    """A child that is made after the log was read stands latched, as the log left it; others do not."""
    records = [
        {"breaker": "kalshi_api/KXNBA", "from": "closed", "to": "latched", "reason": "order group gone"},
        {"breaker": "later", "from": "closed", "to": "forced_open", "reason": "maintenance"},
    ]
    registry = _registry()
    registry.restore(records)
    assert registry.child("kalshi_api", "KXNBA").get_state() == "latched"
    assert registry.child("kalshi_api", "KXNHL").get_state() == "closed"
    assert registry.get_or_create("later").get_state() == "forced_open"


def test_closed_off_ignores_breakers_it_does_not_know():
    """A record of a breaker that no longer exists harms nothing."""
    records = [{"breaker": "gone", "from": "closed", "to": "latched", "reason": "x"}]
    assert closed_off(records) == {"gone": BreakerSnapshot("gone", BreakerState.LATCHED, "x", "")}
    BreakerRegistry().restore(records)
