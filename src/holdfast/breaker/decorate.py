"""Wrapping a callable so that every call passes a breaker, at the least cost that Python allows.

The wrapper is generated with the callable's own signature: packing `*args` alone would cost as much as the rest.
While the breaker is quiet (closed, no failure in a row) a call reads one word before and after, and counts; no
lock is taken and no permit is made. Everything else goes through the hooks, which take the lock for a moment.

Promises: the callable runs only once admitted (its coroutine is not even created before), every way out of it
settles, `BaseException` included, and no lock is held while it runs.
Limits: what cannot be seen to end is refused by `UnsupportedCallable`: generators and asynchronous generators,
classes, static and class methods from outside (put the breaker under them), and plain functions that return
something awaitable. The last is found when they are first called; a coroutine is closed, unrun.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from types import CoroutineType, FunctionType
from typing import Any, Protocol

from holdfast.core.errors import UnsupportedCallable


class Quiet:
    """The one word that calls read without a lock.

    Attributes:
        word: Era and state while the breaker is closed with no failure in a row, else 0.
    """

    __slots__ = ("word",)

    def __init__(self) -> None:
        self.word = 0


class Hooks(Protocol):
    """What a generated wrapper calls of its breaker."""

    quiet: Quiet
    quick_successes: Iterator[int]

    def admit(self) -> object:
        """A permit, or the refusal raised."""
        ...

    def settle_error(self, word: int, permit: Any, error: BaseException, expired: bool, /) -> None:
        """The call raised; never raises itself."""
        ...

    def settle_result(self, word: int, permit: Any, result: object, expired: bool, /) -> None:
        """The call returned."""
        ...

    def now_ns(self) -> int:
        """The clock of call time limits, nanoseconds."""
        ...


# Until the first call has shown that the callable returns no coroutine, `_hf_look` is a word of its own that is
# always 0: that call, and every call of a breaker that is not quiet, takes the way through a permit.
_SYNC = """
def make(_hf_fn, _hf_quiet, _hf_admit, _hf_error, _hf_result, _hf_counter, _hf_next, _hf_type, _hf_coroutine, _hf_look):
    def wrapper({params}):
        nonlocal _hf_look
        _hf_word = _hf_look.word
        if _hf_word:
            try:
                _hf_value = _hf_fn({args})
            except BaseException as _hf_caught:
                _hf_error(_hf_word, None, _hf_caught, False)
                raise
            if _hf_word is _hf_look.word and _hf_type(_hf_value) is not _hf_coroutine:
                _hf_next(_hf_counter)
            else:
                _hf_result(_hf_word, None, _hf_value, False)
            return _hf_value
        _hf_permit = _hf_admit()
        try:
            _hf_value = _hf_fn({args})
        except BaseException as _hf_caught:
            _hf_error(0, _hf_permit, _hf_caught, False)
            raise
        _hf_result(0, _hf_permit, _hf_value, False)
        _hf_look = _hf_quiet
        return _hf_value
    return wrapper
"""

_SYNC_TIMED = """
def make(_hf_fn, _hf_quiet, _hf_admit, _hf_error, _hf_result, _hf_now, _hf_limit):
    def wrapper({params}):
        _hf_word = _hf_quiet.word
        _hf_permit = None if _hf_word else _hf_admit()
        _hf_start = _hf_now()
        try:
            _hf_value = _hf_fn({args})
        except BaseException as _hf_caught:
            _hf_error(_hf_word, _hf_permit, _hf_caught, _hf_now() - _hf_start > _hf_limit)
            raise
        _hf_result(_hf_word, _hf_permit, _hf_value, _hf_now() - _hf_start > _hf_limit)
        return _hf_value
    return wrapper
"""

_ASYNC = """
def make(_hf_fn, _hf_quiet, _hf_admit, _hf_error, _hf_result, _hf_counter, _hf_next):
    async def wrapper({params}):
        _hf_word = _hf_quiet.word
        if _hf_word:
            try:
                _hf_value = await _hf_fn({args})
            except BaseException as _hf_caught:
                _hf_error(_hf_word, None, _hf_caught, False)
                raise
            if _hf_word is _hf_quiet.word:
                _hf_next(_hf_counter)
            else:
                _hf_result(_hf_word, None, _hf_value, False)
            return _hf_value
        _hf_permit = _hf_admit()
        try:
            _hf_value = await _hf_fn({args})
        except BaseException as _hf_caught:
            _hf_error(0, _hf_permit, _hf_caught, False)
            raise
        _hf_result(0, _hf_permit, _hf_value, False)
        return _hf_value
    return wrapper
"""

_ASYNC_TIMED = """
def make(_hf_fn, _hf_quiet, _hf_admit, _hf_error, _hf_result, _hf_timeout, _hf_limit):
    async def wrapper({params}):
        _hf_word = _hf_quiet.word
        _hf_permit = None if _hf_word else _hf_admit()
        _hf_deadline = _hf_timeout(_hf_limit)
        try:
            async with _hf_deadline:
                _hf_value = await _hf_fn({args})
        except BaseException as _hf_caught:
            _hf_error(_hf_word, _hf_permit, _hf_caught, _hf_deadline.expired())
            raise
        _hf_result(_hf_word, _hf_permit, _hf_value, _hf_deadline.expired())
        return _hf_value
    return wrapper
"""

_GENERIC = "*_hf_args, **_hf_kwargs"


def protect(
    fn: Callable[..., Any], hooks: Hooks, *, limit_secs: float | None, judges_results: bool
) -> Callable[..., Any]:
    """*fn* behind *hooks*, with the same name, signature and kind (plain or `async`).

    Args:
        fn: A function, method, `functools.partial`, built-in or object with `__call__`.
        hooks: The breaker's side.
        limit_secs: Time limit of a call, or None.
        judges_results: Whether returned values are classified; then every call takes the settling path.

    Raises:
        UnsupportedCallable: The outcome of *fn* could not be seen.
    """
    is_async = _refuse_unseeable(fn)
    shared = (fn, hooks.quiet, hooks.admit, hooks.settle_error, hooks.settle_result)
    params, args = _shape(fn)
    template: str
    rest: tuple[Any, ...]
    if limit_secs is not None:
        template = _ASYNC_TIMED if is_async else _SYNC_TIMED
        rest = (asyncio.timeout, limit_secs) if is_async else (hooks.now_ns, round(limit_secs * 1e9))
    elif is_async:
        template, rest = _ASYNC, (hooks.quick_successes, next)
    else:
        template, rest = _SYNC, (hooks.quick_successes, next, type, CoroutineType, Quiet())
    if judges_results:
        shared = (fn, Quiet(), *shared[2:])
    wrapper = _make(template, params, args)(*shared, *rest)
    wrapper.__defaults__, wrapper.__kwdefaults__ = _own_defaults(fn, params)
    return functools.update_wrapper(wrapper, fn)


def refuse_awaitable(result: Any, breaker_name: str) -> None:
    """Refuse what a plain function returned, if its work has yet to happen.

    Raises:
        UnsupportedCallable: *result* is awaitable or an asynchronous generator; a coroutine is closed first.
    """
    if not _is_unfinished(result):
        return
    stop = getattr(result, "close", None) or getattr(result, "cancel", None)
    if stop is not None:
        stop()
    raise UnsupportedCallable(
        f"breaker {breaker_name!r} cannot protect a plain function that returns a {type(result).__name__}",
        hint="declare it with 'async def', so that the breaker sees how the call ends",
    )


def _is_unfinished(result: Any) -> bool:
    return isinstance(result, Awaitable | AsyncGenerator)


def _call_of(value: object) -> Any:
    return getattr(type(value), "__call__", None)  # noqa: B004  its kind is asked, not whether it is callable


def _refuse_unseeable(fn: Any) -> bool:
    """Whether *fn* is asynchronous; raises `UnsupportedCallable` for what cannot be protected."""
    what = None
    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    call = inner if inspect.isroutine(inner) else _call_of(inner)
    if isinstance(inner, type):
        what, call = "a class", None
    elif isinstance(inner, staticmethod | classmethod):
        what = "a static or class method from outside"
    elif not callable(inner):
        what = "what is not callable"
    elif inspect.isasyncgenfunction(call):
        what = "an asynchronous generator"
    elif inspect.isgeneratorfunction(call):
        what = "a generator"
    if what is not None:
        raise UnsupportedCallable(
            f"a breaker cannot protect {what}: {fn!r}",
            hint="its work happens after the call returned; protect the calls inside it, or use 'with breaker:'",
        )
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(call)


def _shape(fn: Any) -> tuple[str, str]:
    """Parameters and arguments of the generated wrapper, as text; anything unusual is packed."""
    if not isinstance(fn, FunctionType) or hasattr(fn, "__signature__"):
        return _GENERIC, _GENERIC
    params: list[str] = []
    args: list[str] = []
    seen_star = False
    parameters = list(inspect.signature(fn, follow_wrapped=False).parameters.values())
    if any(
        parameter.name.startswith("_hf_") or not parameter.name.isidentifier() for parameter in parameters
    ):
        return _GENERIC, _GENERIC
    for index, parameter in enumerate(parameters):
        name = parameter.name
        default = "" if parameter.default is parameter.empty else "=None"
        match parameter.kind:
            case parameter.VAR_POSITIONAL:
                seen_star = True
                params.append(f"*{name}")
                args.append(f"*{name}")
            case parameter.VAR_KEYWORD:
                params.append(f"**{name}")
                args.append(f"**{name}")
            case parameter.KEYWORD_ONLY:
                if not seen_star:
                    seen_star = True
                    params.append("*")
                params.append(name + default)
                args.append(f"{name}={name}")
            case _:
                params.append(name + default)
                args.append(name)
                following = parameters[index + 1 : index + 2]
                is_last = not following or following[0].kind is not parameter.POSITIONAL_ONLY
                if parameter.kind is parameter.POSITIONAL_ONLY and is_last:
                    params.append("/")
    return ", ".join(params), ", ".join(args)


def _own_defaults(fn: Any, params: str) -> tuple[tuple[Any, ...] | None, dict[str, Any] | None]:
    """The defaults of *fn*, to stand on the wrapper as the very same objects."""
    if params is _GENERIC:
        return None, None
    kwdefaults = fn.__kwdefaults__
    return fn.__defaults__, dict(kwdefaults) if kwdefaults else None


@functools.lru_cache(maxsize=512)
def _make(template: str, params: str, args: str) -> Callable[..., Any]:
    """The factory for one shape; the text holds parameter names and nothing else of the caller's."""
    namespace: dict[str, Any] = {}
    source = template.format(params=params, args=args)
    exec(compile(source, "<holdfast breaker>", "exec"), namespace)  # noqa: S102  identifiers only, checked by _shape
    factory: Callable[..., Any] = namespace["make"]
    return factory
