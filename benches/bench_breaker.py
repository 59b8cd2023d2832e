"""The breaker beside its peers: what a closed call costs, what a refusal costs, how many probes get through.

Times are CPU time of the calling thread, interleaved rounds in one process, medians: read the ratios. "+ ns" is
over the bare call measured in the same rounds. Probes: callers that arrive together at a half-open breaker.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import statistics
import threading
import time
import warnings

from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import CircuitBreakerConfig

ROUNDS = 21
CALLS = 4_000
PEERS = ("circuitbreaker", "pybreaker", "interlock")
WAIT_SECS = 1.0


def work(x):
    return x


async def awork(x):
    return x


def boom(_x):
    raise ValueError


def ours(fn, threshold, wait_secs, **settings):
    return TradingCircuitBreaker(CircuitBreakerConfig(threshold, 60, 1, wait_secs, 30, **settings))(fn)


def peer(name, fn, threshold, wait_secs):
    """*fn* guarded by a peer set up alike; None where the peer is not installed or has no such form."""
    if name == "pybreaker" and asyncio.iscoroutinefunction(fn):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = importlib.import_module(name)
        except ImportError:
            return None
        if name == "circuitbreaker":
            breaker = module.CircuitBreaker(failure_threshold=threshold, recovery_timeout=wait_secs, name="k")
        elif name == "pybreaker":
            breaker = module.CircuitBreaker(fail_max=threshold, reset_timeout=wait_secs)
        else:
            config = module.Config(
                failure_rate_threshold=1.0,
                minimum_number_of_calls=threshold,
                window_size=threshold,
                permitted_calls_in_half_open=1,
                wait_duration_in_open=wait_secs,
            )
            breaker = module.CircuitBreaker(name="k", config=config)
        return breaker(fn)


def time_sync(fn):
    calls = range(CALLS)
    start = time.thread_time_ns()
    for _ in calls:
        fn(1)
    return (time.thread_time_ns() - start) / CALLS


async def time_async(fn):
    calls = range(CALLS)
    start = time.thread_time_ns()
    for _ in calls:
        await fn(1)
    return (time.thread_time_ns() - start) / CALLS


def time_refused(fn):
    calls = range(CALLS // 4)
    start = time.thread_time_ns()
    for _ in calls:
        try:  # noqa: SIM105  suppress() would cost more than what is measured
            fn(1)
        except Exception:  # noqa: S110  the refusal is the point
            pass
    return (time.thread_time_ns() - start) / (CALLS // 4)


def medians(fns, one):
    times = {name: [] for name in fns}
    for _ in range(ROUNDS):
        for name, fn in fns.items():
            times[name].append(one(fn))
    return {name: statistics.median(values) for name, values in times.items()}


async def medians_async(fns):
    times = {name: [] for name in fns}
    for _ in range(ROUNDS):
        for name, fn in fns.items():
            times[name].append(await time_async(fn))
    return {name: statistics.median(values) for name, values in times.items()}


def row(name, value, unit, beside="", ratio=None, *, bar=""):
    return {"name": name, "value": value, "unit": unit, "beside": beside, "ratio": ratio, "bar": bar}


def missing(what, name):
    return row(f"{what}, {name}", None, "", "not installed or no such form; see requirements-bench.lock")


def overhead_rows(what, measured, names, bar):
    bare = measured["bare"]
    rows = []
    for name in names:
        if name not in measured:
            rows.append(missing(what, name))
            continue
        aim = bar if name == "holdfast" else ""
        rows.append(
            row(
                f"{what}, {name}",
                round(measured[name] - bare, 1),
                "+ns",
                f"bare {bare:.0f} ns",
                measured[name] / bare,
                bar=aim,
            )
        )
    return rows


def probes_of_threads(guarded_of):
    """How many of 8 threads that arrive together at a half-open breaker get through to a failing 50 ms call."""
    inside, is_tripping = [], [True]

    def call(_x):
        if not is_tripping:
            inside.append(1)
            time.sleep(0.05)
        raise ValueError

    guarded = guarded_of(call)
    if guarded is None:
        return None
    trip(lambda: guarded(1))
    is_tripping.clear()
    time.sleep(WAIT_SECS * 1.15)
    barrier = threading.Barrier(8)

    def caller():
        barrier.wait()
        with contextlib.suppress(Exception):
            guarded(1)

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(inside)


def probes_of_tasks(guarded_of):
    """The same for 100 tasks."""
    inside, is_tripping = [], [True]

    async def call(_x):
        if not is_tripping:
            inside.append(1)
            await asyncio.sleep(0.02)
        raise ValueError

    guarded = guarded_of(call)
    if guarded is None:
        return None

    async def scenario():
        for _ in range(5):
            with contextlib.suppress(Exception):
                await guarded(1)
        is_tripping.clear()
        await asyncio.sleep(WAIT_SECS * 1.15)
        await asyncio.gather(*(guarded(1) for _ in range(100)), return_exceptions=True)

    asyncio.run(scenario())
    return len(inside)


def io_rate(guarded):
    """Calls a second of 8 threads, each making 30 blocking calls of 2 ms, by the wall."""
    barrier = threading.Barrier(9)

    def caller():
        barrier.wait()
        for _ in range(30):
            guarded(1)

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return 240 / (time.perf_counter() - start)


def io_rows(names):
    """A breaker that holds its lock during the call shows here."""

    def blocking(_x):
        time.sleep(0.002)

    fns = {"bare": blocking, "holdfast": ours(blocking, 10, 600)}
    fns |= {name: guarded for name in PEERS if (guarded := peer(name, blocking, 10, 600)) is not None}
    rates = {name: [] for name in fns}
    for _ in range(5):
        for name, fn in fns.items():
            rates[name].append(io_rate(fn))
    best = {name: statistics.median(values) for name, values in rates.items()}
    what = "8 threads x 2 ms calls"
    return [
        row(
            f"{what}, {name}",
            round(best[name]),
            "calls/s",
            f"bare {best['bare']:.0f}/s",
            best[name] / best["bare"],
        )
        if name in best
        else missing(what, name)
        for name in names
    ]


def trip(call):
    for _ in range(5):
        with contextlib.suppress(Exception):
            call()


def run():
    """Every figure of the breaker."""
    rows = []
    names = ("holdfast", *PEERS)
    sync = {
        "bare": work,
        "holdfast": ours(work, 10, 600),
        "holdfast, timed": ours(work, 10, 600, call_timeout_secs=30),
    }
    asyn = {
        "bare": awork,
        "holdfast": ours(awork, 10, 600),
        "holdfast, timed": ours(awork, 10, 600, call_timeout_secs=30),
    }
    refused = {"bare": boom, "holdfast": ours(boom, 3, 600)}
    for name in PEERS:
        for table, fn, threshold in ((sync, work, 10), (asyn, awork, 10), (refused, boom, 3)):
            guarded = peer(name, fn, threshold, 600)
            if guarded is not None:
                table[name] = guarded
    for name, fn in refused.items():
        if name != "bare":
            trip(lambda fn=fn: fn(1))
    timed = ("holdfast, timed",)
    rows += overhead_rows("closed call, sync", medians(sync, time_sync), names + timed, "<= +110 ns")
    rows += overhead_rows("closed call, async", asyncio.run(medians_async(asyn)), names + timed, "<= +180 ns")
    rows += overhead_rows("refused call, sync (raised and caught)", medians(refused, time_refused), names, "")
    rows += io_rows(names)
    for what, count in (("probes of 8 threads", probes_of_threads), ("probes of 100 tasks", probes_of_tasks)):
        for name in names:
            if name == "holdfast":
                got = count(lambda fn: ours(fn, 3, WAIT_SECS))
            else:
                got = count(lambda fn, name=name: peer(name, fn, 3, WAIT_SECS))
            bar = "exactly 1" if name == "holdfast" else ""
            rows.append(missing(what, name) if got is None else row(f"{what}, {name}", got, "calls", bar=bar))
    return rows
