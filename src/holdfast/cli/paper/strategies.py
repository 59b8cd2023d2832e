"""A user's own strategies for a paper run: found, made, and watched, so that their mistakes are told as theirs.

What goes wrong in somebody's strategy is named with its file and line, never reported as an error of holdfast.
The watch changes no decision: signals pass through unchanged, one at a time, as the trader asks for them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from holdfast.core.errors import BadInput
from holdfast.core.orders import Fill
from holdfast.core.signals import Signal
from holdfast.execution.strategy import Strategy
from holdfast.execution.venue import Book, PublicTrade

_HOW = "subclass holdfast.Strategy; docs/strategy.md has an example"


def load_strategies(specs: Sequence[str]) -> list[Strategy]:
    """The strategies that *specs* name, each `module:Class`; modules are looked for in the working directory too.

    Raises:
        BadInput: One cannot be found or made, or two have one name.
    """
    strategies: list[Strategy] = []
    for spec in specs:
        strategy = _load(spec)
        if any(strategy.name == other.name for other in strategies):
            raise BadInput(
                f"strategy {spec!r} is the second one named {strategy.name!r}",
                hint="give each class a `name` of its own; its orders and fills are told apart by it",
            )
        strategies.append(_Watched(strategy, spec))
    return strategies


def _load(spec: str) -> Strategy:
    module_name, _, class_name = spec.partition(":")
    if not module_name or not class_name:
        raise BadInput(
            f"strategy {spec!r} is not of the form module:Class",
            hint="for instance my_bot:Bot for the class Bot in my_bot.py",
        )
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
        made: object = getattr(module, class_name)()
    except ModuleNotFoundError as error:
        raise BadInput(
            f"strategy {spec!r} cannot be loaded: {error}",
            hint=f"run where {module_name.partition('.')[0]}.py is, or install what it imports",
        ) from error
    except Exception as error:
        # Whatever the user's own code raises: the run ends before it began.
        raise BadInput(f"strategy {spec!r} cannot be loaded: {_told(error)}", hint=_HOW) from error
    finally:
        sys.path.pop(0)
    if not isinstance(made, Strategy):
        raise BadInput(f"strategy {spec!r} is no holdfast.Strategy", hint=_HOW)
    return made


class _Watched(Strategy):
    """Hands every question on to a user's strategy; a mistake in an answer ends the run by name."""

    def __init__(self, strategy: Strategy, spec: str) -> None:
        self.name = strategy.name
        self._strategy = strategy
        self._spec = spec

    def on_book(self, book: Book) -> Iterable[Signal]:
        return self._asked(self._strategy.on_book, book)

    def on_trade(self, trade: PublicTrade) -> Iterable[Signal]:
        return self._asked(self._strategy.on_trade, trade)

    def on_fill(self, fill: Fill) -> Iterable[Signal]:
        return self._asked(self._strategy.on_fill, fill)

    def on_tick(self, now_ns: int) -> Iterable[Signal]:
        return self._asked(self._strategy.on_tick, now_ns)

    def _asked(self, callback: Callable[[Any], object], fact: object) -> Iterator[Signal]:
        where = f"strategy {self._spec!r} failed in {callback.__name__}"
        try:
            yield from _signals(callback(fact))
        except BadInput as error:
            raise BadInput(f"{where}: {_told(error)}", hint=error.hint) from error
        except Exception as error:
            # A strategy in an unknown condition must not trade on: the run ends here.
            raise BadInput(
                f"{where}: {_told(error)}", hint="mend it and run again; --debug shows the whole traceback"
            ) from error


def _signals(wishes: object) -> Iterator[Signal]:
    """*wishes* one by one, each proven to be a signal."""
    if not isinstance(wishes, Iterable):
        raise BadInput(
            f"it returned {type(wishes).__name__}, expected signals",
            hint="return a list of Signal, or () for none",
        )
    for wish in cast("Iterable[object]", wishes):
        if not isinstance(wish, Signal):
            raise BadInput(
                f"{type(wish).__name__} is no Signal",
                hint="from holdfast import Signal; docs/strategy.md has an example",
            )
        yield wish


def _told(error: Exception) -> str:
    """What *error* says and the line of the user's code it came from."""
    ours = str(Path(__file__).parents[2])
    at, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((ours, "<frozen")):
            at = f" ({Path(file).name} line {trace.tb_lineno})"
        trace = trace.tb_next
    name = "" if isinstance(error, BadInput) else f"{type(error).__name__}: "
    return f"{name}{error}{at}"
