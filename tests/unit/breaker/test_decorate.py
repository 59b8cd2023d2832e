"""The decorator: which shapes it protects, which it refuses, and that it changes nothing else."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable

import pytest

from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import CircuitBreakerConfig
from holdfast.core.clock import ManualClock
from holdfast.core.errors import CircuitBreakerOpenError, UnsupportedCallable


def _breaker(**settings):
    return TradingCircuitBreaker(CircuitBreakerConfig(3, **settings), clock=ManualClock(), name="venue")


def _boom(*args, **kwargs):
    raise ValueError("boom")


async def _aboom(*args, **kwargs):
    raise ValueError("boom")


class _Object:
    def __call__(self, x):
        _boom()

    def method(self, x):
        _boom()

    @staticmethod
    def static(x):
        _boom()


class _AsyncObject:
    async def __call__(self, x):
        _boom()

    async def method(self, x):
        _boom()


SHAPES = {
    "function": _boom,
    "lambda": lambda x: _boom(),
    "partial": functools.partial(_boom, 1),
    "object": _Object(),
    "bound method": _Object().method,
    "static method inside": _Object.static,
    "built-in": int.__truediv__,
    "async function": _aboom,
    "async partial": functools.partial(_aboom, 1),
    "partial of partial": functools.partial(functools.partial(_aboom, 1), 2),
    "async object": _AsyncObject(),
    "partial of async object": functools.partial(_AsyncObject()),
    "async bound method": _AsyncObject().method,
}


@pytest.mark.contract("A3")
@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_decorator_protects_every_shape_of_callable(shape, timeout):
    """Three failures of any callable, plain or async, timed or not, open the breaker; the fourth call fails fast."""
    breaker = _breaker(call_timeout_secs=timeout)
    guarded = breaker(SHAPES[shape])

    async def call():
        result = guarded(0) if shape != "built-in" else guarded(1, 0)
        return await result if isinstance(result, Awaitable) else result

    async def scenario():
        for _ in range(3):
            with pytest.raises((ValueError, ZeroDivisionError)):
                await call()
        with pytest.raises(CircuitBreakerOpenError):
            await call()

    asyncio.run(scenario())
    assert breaker.get_state() == "open"
    assert inspect.iscoroutinefunction(guarded) == ("async" in shape or "partial of" in shape)


async def _agen():
    yield 1


def _gen():
    yield 1


class _AgenObject:
    async def __call__(self):
        yield 1


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (_agen, "asynchronous generator"),
        (functools.partial(_agen), "asynchronous generator"),
        (_AgenObject(), "asynchronous generator"),
        (_gen, "a generator"),
        (_Object, "a class"),
        (functools.partial(_Object), "a class"),
        (staticmethod(_boom), "static or class method"),
        (classmethod(_boom), "static or class method"),
        (5, "not callable"),
        (None, "not callable"),
    ],
)
def test_decorator_refuses_what_it_cannot_see_end(fn, words):
    """Generators, classes and the like are refused at decoration, by name."""
    with pytest.raises(UnsupportedCallable, match=words):
        _breaker()(fn)


@pytest.mark.parametrize("timeout", [None, 5])
def test_plain_function_returning_a_coroutine_is_refused_at_its_first_call(timeout):
    """The coroutine is closed without running, the slot is returned and nothing counts as success."""
    ran = []

    async def work():
        ran.append(1)

    made = []

    def plain():
        made.append(work())
        return made[-1]

    breaker = _breaker(call_timeout_secs=timeout)
    guarded = breaker(plain)
    with pytest.raises(UnsupportedCallable, match="returns a coroutine"):
        guarded()
    assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED
    stats = breaker.get_stats()
    assert (ran, stats["ignored_calls"], stats["successful_calls"]) == ([], 1, 0)


def test_plain_function_that_turns_to_coroutines_later_is_refused_too():
    """A function that first returned a value and then a coroutine is refused at that call."""

    async def work():
        raise AssertionError("never run")

    answers = [1, 2]
    guarded = _breaker()(lambda: answers.pop() if answers else work())
    assert (guarded(), guarded()) == (2, 1)
    with pytest.raises(UnsupportedCallable):
        guarded()


def test_plain_function_returning_a_future_or_async_generator_is_refused():
    """Other awaitables are found at the first call too, and a future is cancelled."""

    async def scenario():
        future = asyncio.get_running_loop().create_future()
        with pytest.raises(UnsupportedCallable, match="Future"):
            _breaker()(lambda: future)()
        assert future.cancelled()
        with pytest.raises(UnsupportedCallable, match="async_generator"):
            _breaker()(lambda: _agen())()  # noqa: PLW0108  the wrapped function is plain

    asyncio.run(scenario())


def test_coroutine_is_created_only_after_admission():
    """A refused async call never creates the callee's coroutine, so nothing is left un-awaited."""
    created = []

    async def work():
        created.append(1)

    breaker = _breaker()
    guarded = breaker(work)
    breaker.force_open("maintenance")
    with pytest.raises(CircuitBreakerOpenError):
        asyncio.run(guarded())
    assert created == []


def _signature(a, b, /, c, d=[], *rest, e, f=None, **more):  # noqa: B006  the very object must come through
    return a, b, c, d, rest, e, f, more


def _keywords(a, *, b=2, c):
    return a, b, c


def _positional(a=1, b=2, /):
    return a, b


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (_signature, (1, 2, 3), {"e": 5}),
        (_signature, (1, 2), {"c": 3, "e": 5, "z": 9}),
        (_signature, (1, 2, 3, 4, 5, 6), {"e": 5, "f": 6, "g": 7}),
        (_keywords, (1,), {"c": 3}),
        (_keywords, (), {"a": 1, "b": 5, "c": 3}),
        (_positional, (), {}),
        (_positional, (7,), {}),
        (lambda: 5, (), {}),
        (functools.partial(_keywords, c=1), (2,), {}),
    ],
)
def test_wrapper_passes_arguments_as_the_callable_takes_them(fn, args, kwargs):
    """Positional-only, keyword-only, star and default arguments arrive as without the breaker."""
    guarded = _breaker()(fn)
    assert guarded(*args, **kwargs) == fn(*args, **kwargs) == guarded(*args, **kwargs)
    assert inspect.signature(guarded) == inspect.signature(fn)
    assert guarded.__wrapped__ is fn


def test_wrapper_hands_on_the_very_default_objects():
    """A mutable default is the callable's own object, not a copy."""
    guarded = _breaker()(_signature)
    assert guarded(1, 2, 3, e=1)[3] is _signature.__defaults__[0]


def test_wrapper_refuses_wrong_arguments_before_it_counts():
    """A call with wrong arguments is a TypeError and reaches no breaker."""
    breaker = _breaker()
    with pytest.raises(TypeError):
        breaker(_keywords)(1, 2)
    assert breaker.get_stats()["total_calls"] == 0


def test_wrapper_keeps_name_and_documentation():
    """The wrapper looks like what it wraps."""
    guarded = _breaker()(_keywords)
    assert (guarded.__name__, guarded.__doc__, guarded.__module__) == ("_keywords", None, __name__)


def test_parameters_named_like_the_wrappers_own_are_still_passed():
    """Parameter names that the generated code uses itself do not confuse it."""
    assert _breaker()(lambda _hf_fn, _hf_value=2: (_hf_fn, _hf_value))(1) == (1, 2)


def test_decorated_methods_bind_and_share_one_breaker():
    """A method decorated in its class gets its instance, and all instances count on the same breaker."""
    breaker = _breaker()

    class Client:
        def __init__(self, n):
            self.n = n

        @breaker
        def get(self, by=1):
            return self.n + by

        @breaker
        async def aget(self, by=1):
            return self.n + by

        @staticmethod
        @breaker
        def static(by):
            return by

    assert (Client(1).get(), Client(2).get(by=3), asyncio.run(Client(3).aget()), Client.static(9)) == (
        2,
        5,
        4,
        9,
    )
    assert breaker.get_stats()["successful_calls"] == 4
