"""What goes wrong on purpose at the broker: one decision per request, the same for the same seed and order.

| fault | what the caller sees | what happened |
| --- | --- | --- |
| `500` | answer 500 | nothing |
| `500_after` | answer 500 | the request was carried out |
| `drop` | the socket closes without an answer | the request was carried out |
| `hang` | no answer, the socket stays open | the request was carried out |
| `garbage` | an answer that cannot be read | the request was carried out |
| `disconnect` | the socket closes, nothing was asked | nothing |
| `mid_combo` | a combination's first leg is told, then the socket closes | the combination was carried out |

Random faults have a rate: the n-th request of its class meets one or not by SHA-256 of seed, fault, class and n.
Scripted faults name the next requests that fail, from a market second on; `disconnect` needs no request.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from holdfast.venues import fault_words

_MILLION: Final = 1_000_000


class Kind(StrEnum):
    """Classes of requests."""

    READ = "read"
    ORDER = "order"
    CANCEL = "cancel"
    FREE = "free"


class Fault(StrEnum):
    """The faults of the table above."""

    ERROR = "500"
    ERROR_AFTER = "500_after"
    DROP = "drop"
    HANG = "hang"
    GARBAGE = "garbage"
    DISCONNECT = "disconnect"
    MID_COMBO = "mid_combo"


REQUEST_FAULTS: Final = (Fault.ERROR, Fault.ERROR_AFTER, Fault.DROP, Fault.HANG, Fault.GARBAGE)

SCRIPTS: Final[Mapping[str, tuple[Fault, Kind]]] = {
    "reads_500": (Fault.ERROR, Kind.READ),
    "reads_hang": (Fault.HANG, Kind.READ),
    "reads_garbage": (Fault.GARBAGE, Kind.READ),
    "orders_500": (Fault.ERROR, Kind.ORDER),
    "orders_500_after": (Fault.ERROR_AFTER, Kind.ORDER),
    "orders_hang": (Fault.HANG, Kind.ORDER),
    "orders_garbage": (Fault.GARBAGE, Kind.ORDER),
    "drop_next_order": (Fault.DROP, Kind.ORDER),
    "drop_next_cancel": (Fault.DROP, Kind.CANCEL),
    "cancels_500": (Fault.ERROR, Kind.CANCEL),
    "disconnect": (Fault.DISCONNECT, Kind.FREE),
    "disconnect_mid_combo": (Fault.MID_COMBO, Kind.ORDER),
}
"""The words of `--faults-at`: which fault meets which requests."""


class Scripted(msgspec.Struct, kw_only=True):
    """The next *left* requests of *kind* from market time *at_ns* (UTC) on meet *fault*."""

    fault: Fault
    kind: Kind
    left: int
    at_ns: int


def read_rates(text: str) -> dict[Fault, int]:
    """Parts per million by fault from "500=0.1,drop=0.02"; empty text is no fault at all.

    Raises:
        BadInput: An unknown fault, or a rate outside 0 to 1.
    """
    return {Fault(name): rate for name, rate in fault_words.read_rates(text, REQUEST_FAULTS).items()}


def read_script(text: str, start_ns: int) -> list[Scripted]:
    """Faults by market seconds after *start_ns*, from "120:orders_500=5,240:drop_next_order=1".

    Raises:
        BadInput: A word that is not in `SCRIPTS`, a time or a count that cannot be read.
    """
    script: list[Scripted] = []
    for asked in fault_words.read_script(text, SCRIPTS, start_ns):
        fault, kind = SCRIPTS[asked.word]
        script.append(Scripted(fault=fault, kind=kind, left=asked.requests, at_ns=asked.at_ns))
    return script


class Faults:
    """Decides what meets a request.

    Attributes:
        met: How often each fault has happened.
    """

    def __init__(
        self, seed: int, rates: Mapping[Fault, int] | None = None, script: Iterable[Scripted] = ()
    ) -> None:
        self.met: Counter[Fault] = Counter()
        self._seed = seed
        self._rates = dict(rates or {})
        self._script = list(script)
        self._asked: Counter[Kind] = Counter()

    def add(self, what: Scripted) -> None:
        """Let *what* happen, after everything told before it."""
        self._script.append(what)

    def skip_until(self, now_ns: int) -> None:
        """Forget what was due by *now_ns*: the run that is taken up again has met it."""
        self._script = [what for what in self._script if what.at_ns > now_ns]

    def for_request(self, kind: Kind, now_ns: int, *, is_combo: bool = False) -> Fault | None:
        """The fault of the next request of *kind*."""
        barred = {Fault.DISCONNECT} if is_combo else {Fault.DISCONNECT, Fault.MID_COMBO}
        fault = self._told(kind, now_ns, barred) or self._drawn(kind)
        self._asked[kind] += 1
        if fault is not None:
            self.met[fault] += 1
        return fault

    def is_cut(self, now_ns: int) -> bool:
        """Whether every socket closes now."""
        if self._told(Kind.FREE, now_ns, set()) is None:
            return False
        self.met[Fault.DISCONNECT] += 1
        return True

    def _told(self, kind: Kind, now_ns: int, barred: set[Fault]) -> Fault | None:
        for what in self._script:
            if what.kind is kind and what.at_ns <= now_ns and what.fault not in barred:
                what.left -= 1
                if not what.left:
                    self._script.remove(what)
                return what.fault
        return None

    def _drawn(self, kind: Kind) -> Fault | None:
        n = self._asked[kind]
        for fault in REQUEST_FAULTS:
            rate = self._rates.get(fault, 0)
            if rate and _draw(self._seed, fault, kind, n) < rate:
                return fault
        return None


def _draw(seed: int, fault: Fault, kind: Kind, n: int) -> int:
    """A number in 0 .. 999,999, the same for the same four facts."""
    digest = hashlib.sha256(f"{seed}:{fault}:{kind}:{n}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _MILLION
