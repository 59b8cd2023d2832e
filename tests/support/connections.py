"""Connections that nobody closed before their event loop ended; nobody can close them any more.

The collector would tell of one some day, in whichever test it then happens to run. Here it is named at once, in the
test that left it.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from aiohttp.connector import Connection

_MADE: WeakSet[Connection] = WeakSet()
_begin = Connection.__init__


def _remember(self: Connection, *arguments: Any) -> None:
    _begin(self, *arguments)
    _MADE.add(self)


Connection.__init__ = _remember


def left_open() -> list[str]:
    """Connections of loops that have ended, each told once."""
    left = [one for one in _MADE if one._protocol is not None and one._loop.is_closed()]
    for one in left:
        one._protocol = None
    return [repr(one) for one in left]
