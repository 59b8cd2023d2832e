"""The words in which a person asks a paper market for faults; what each fault does is the market's own.

500=0.1,drop=0.02                          rates: faults at random, each with a chance from 0 to 1
120:orders_500=5,240:drop_next_order=1     a script: from a market second on, the next so many of a class
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput

_MILLION: Final = 1_000_000
_RATES: Final = "--faults NAME=0.1,NAME=0.02: rates from 0 to 1"
_SCRIPTED: Final = "--faults-at 120:NAME=5: the next five after two minutes"


class Asked(NamedTuple):
    """One word of a script: from market time *at_ns* (UTC) on, the next *requests* of its class meet *word*."""

    at_ns: int
    word: str
    requests: int


def read_rates(text: str, known: Collection[str]) -> dict[str, int]:
    """Parts per million by fault; empty text is no fault at all.

    Raises:
        BadInput: A fault that is not *known*, or a rate outside 0 to 1.
    """
    rates: dict[str, int] = {}
    for name, value in _pairs(text, "--faults"):
        if name not in known:
            raise BadInput(f"fault {name!r} is unknown, expected one of {', '.join(known)}", hint=_RATES)
        try:
            rate = Decimal(value)
        except InvalidOperation:
            raise BadInput(f"rate {value!r} of fault {name!r} is not a number", hint=_RATES) from None
        if not (rate.is_finite() and 0 <= rate <= 1):
            raise BadInput(f"rate {value} of fault {name!r} is outside 0 to 1", hint=_RATES)
        rates[name] = int(rate * _MILLION)
    return rates


def read_script(text: str, known: Collection[str], start_ns: int) -> list[Asked]:
    """What is asked for, by market seconds after *start_ns*.

    Raises:
        BadInput: A word that is not *known*, a time or a count that cannot be read.
    """
    script: list[Asked] = []
    for left, value in _pairs(text, "--faults-at"):
        when, colon, word = left.partition(":")
        if not colon:
            raise BadInput(f"--faults-at '{left}={value}' is not SECONDS:FAULT=COUNT", hint=_SCRIPTED)
        if word not in known:
            raise BadInput(f"there is no scripted fault {word!r}", hint=f"faults: {', '.join(known)}")
        if not (when.isdecimal() and value.isdecimal() and int(value)):
            raise BadInput(
                f"--faults-at {left}={value}: seconds and count are whole numbers, count above 0",
                hint=_SCRIPTED,
            )
        script.append(Asked(start_ns + int(when) * NANOS, word, int(value)))
    return script


def _pairs(text: str, what: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise BadInput(f"{what} {part!r} is not NAME=VALUE", hint=f"{_RATES}; {_SCRIPTED}")
        yield name.strip(), value.strip()
