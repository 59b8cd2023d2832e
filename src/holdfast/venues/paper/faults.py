"""What goes wrong on purpose: one decision per request or frame, the same for the same seed and order.

| fault        | what the caller sees                              | what happened                        |
| ------------ | ------------------------------------------------- | ------------------------------------ |
| `5xx_before` | HTTP 500                                          | nothing                              |
| `5xx_after`  | HTTP 500                                          | the request was carried out          |
| `drop`       | the connection closes without an answer           | the request was carried out          |
| `hang`       | no answer, the connection stays open              | the request was carried out          |
| `garbage`    | a 2xx answer whose body is cut off in the middle  | the request was carried out          |
| `429`        | HTTP 429                                          | nothing                              |
| `dup`        | the fill arrives twice on the stream              | it happened once                     |
| `gap`        | a sequenced frame is missing, its number skipped  | everything else is sent              |

Random faults have a rate. The n-th request of its class (reads, creates and cancels counted apart, frames of
each kind too) meets a fault or not by SHA-256 of seed, fault, class and n: neither wall time nor the order in which
different classes arrive plays a part. Scripted faults name the next requests that fail, and may wait for a market
second. A scripted fault goes before a random one; at most one fault meets a request.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from holdfast.core.errors import BadInput
from holdfast.venues import fault_words
from holdfast.venues.paper.limits import RequestClass

_MILLION: Final = 1_000_000


class Fault(StrEnum):
    """The faults of the table above."""

    ERROR_BEFORE = "5xx_before"
    ERROR_AFTER = "5xx_after"
    DROP = "drop"
    HANG = "hang"
    GARBAGE = "garbage"
    TOO_MANY = "429"
    DUP = "dup"
    GAP = "gap"


REQUEST_FAULTS: Final = (
    Fault.ERROR_BEFORE,
    Fault.TOO_MANY,
    Fault.ERROR_AFTER,
    Fault.DROP,
    Fault.HANG,
    Fault.GARBAGE,
)
FRAME_FAULTS: Final = (Fault.DUP, Fault.GAP)

Rates = Mapping[Fault, int]
"""Parts per million of the requests (or frames) that meet a fault."""

_READS = (RequestClass.READ,)
_ORDERS = (RequestClass.CREATE,)
_CANCELS = (RequestClass.CANCEL,)
_TARGETS: Mapping[str, tuple[RequestClass, ...]] = {
    "reads": _READS,
    "orders": _ORDERS,
    "cancels": _CANCELS,
    "any": tuple(RequestClass),
}

SCRIPTS: Mapping[str, tuple[Fault, tuple[RequestClass, ...]]] = {
    "reads_500": (Fault.ERROR_BEFORE, _READS),
    "reads_429": (Fault.TOO_MANY, _READS),
    "reads_hang": (Fault.HANG, _READS),
    "reads_garbage": (Fault.GARBAGE, _READS),
    "orders_500": (Fault.ERROR_BEFORE, _ORDERS),
    "orders_500_after": (Fault.ERROR_AFTER, _ORDERS),
    "orders_429": (Fault.TOO_MANY, _ORDERS),
    "cancels_500": (Fault.ERROR_BEFORE, _CANCELS),
    "drop_next_order": (Fault.DROP, _ORDERS),
    "drop_next_resting": (Fault.DROP, _ORDERS),
    "hang_next_order": (Fault.HANG, _ORDERS),
    "garbage_next_order": (Fault.GARBAGE, _ORDERS),
    "drop_next_cancel": (Fault.DROP, _CANCELS),
    "dup_next_fill": (Fault.DUP, ()),
    "gap_next_frame": (Fault.GAP, ()),
}
"""The words of `--faults-at`: which fault meets which requests."""

_RESTING_ONLY: Final = frozenset({"drop_next_resting"})
"""Words that pass over an order that cannot rest."""


class ScriptedFault(msgspec.Struct, frozen=True, kw_only=True):
    """The next *count* requests that match meet *fault*.

    Attributes:
        classes: Which requests; ignored for frame faults.
        path: Only paths under /trade-api/v2 that begin with this, for instance "/markets"; "" for all.
        count: How many, at least 1.
        at_ns: Market time from which it counts, UTC ns; 0 for at once.
        resting: Only orders that may rest (good till canceled) match.
    """

    fault: Fault
    classes: tuple[RequestClass, ...] = tuple(RequestClass)
    path: str = ""
    count: int = 1
    at_ns: int = 0
    resting: bool = False


def read_rates(text: str) -> dict[Fault, int]:
    """Rates from "5xx_before=0.1,drop=0.02"; empty text is no fault at all.

    Raises:
        BadInput: An unknown fault, or a rate outside 0 to 1.
    """
    return {Fault(name): rate for name, rate in fault_words.read_rates(text, list(Fault)).items()}


def read_script(text: str, start_ns: int) -> list[ScriptedFault]:
    """Faults by market seconds after *start_ns*, from "120:reads_500=5,240:drop_next_order=1".

    Raises:
        BadInput: A word that is not in `SCRIPTS`, a time or a count that cannot be read.
    """
    script: list[ScriptedFault] = []
    for asked in fault_words.read_script(text, SCRIPTS, start_ns):
        fault, classes = SCRIPTS[asked.word]
        script.append(
            ScriptedFault(
                fault=fault,
                classes=classes,
                count=asked.requests,
                at_ns=asked.at_ns,
                resting=asked.word in _RESTING_ONLY,
            )
        )
    return script


def read_control(body: bytes) -> ScriptedFault:
    """One scripted fault from {"fault": "5xx_before", "requests": "reads", "path": "/markets", "count": 5}.

    `fault` may also be a word of `SCRIPTS`, which then names the requests too.

    Raises:
        BadInput: The body cannot be read.
    """
    try:
        asked = msgspec.json.decode(body, type=_Control)
    except msgspec.MsgspecError as error:
        raise BadInput(f"fault request cannot be read: {error}") from error
    if asked.count < 1:
        raise BadInput(f"count {asked.count} of fault {asked.fault!r} is below 1")
    if asked.fault in SCRIPTS:
        fault, classes = SCRIPTS[asked.fault]
        resting = asked.fault in _RESTING_ONLY
        return ScriptedFault(
            fault=fault, classes=classes, path=asked.path, count=asked.count, resting=resting
        )
    if asked.fault not in set(Fault) or asked.requests not in _TARGETS:
        raise BadInput(
            f"fault {asked.fault[:40]!r} of requests {asked.requests[:40]!r} is unknown",
            hint=f"faults: {', '.join((*Fault, *SCRIPTS))}; requests: {', '.join(_TARGETS)}",
        )
    return ScriptedFault(
        fault=Fault(asked.fault), classes=_TARGETS[asked.requests], path=asked.path, count=asked.count
    )


class _Control(msgspec.Struct, forbid_unknown_fields=True):
    fault: str
    requests: str = "any"
    path: str = ""
    count: int = 1


class _Pending:
    __slots__ = ("left", "what")

    def __init__(self, what: ScriptedFault) -> None:
        self.what = what
        self.left = what.count


class FaultScript:
    """Faults told one by one: by a test in process, over the control endpoint, or by market time."""

    def __init__(self, script: Iterable[ScriptedFault] = ()) -> None:
        self._pending = [_Pending(what) for what in script]

    def add(self, what: ScriptedFault) -> None:
        """Let *what* happen, after everything told before it."""
        self._pending.append(_Pending(what))

    def skip_until(self, now_ns: int) -> None:
        """Forget what was due by *now_ns*: the run that is taken up again has met it."""
        self._pending = [p for p in self._pending if not 0 < p.what.at_ns <= now_ns]

    def next(
        self,
        faults: Iterable[Fault],
        now_ns: int,
        kind: RequestClass | None = None,
        path: str = "",
        *,
        may_rest: bool = False,
    ) -> Fault | None:
        """The scripted fault that meets this request or frame, used up by the question."""
        wanted = frozenset(faults)
        for pending in self._pending:
            what = pending.what
            if (
                what.fault not in wanted
                or now_ns < what.at_ns
                or (what.resting and not may_rest)
                or (kind is not None and (kind not in what.classes or not path.startswith(what.path)))
            ):
                continue
            pending.left -= 1
            if not pending.left:
                self._pending.remove(pending)
            return what.fault
        return None


class Faults:
    """Decides what meets a request or a frame.

    Attributes:
        script: Add to it at any time.
        met: How often each fault has happened.
    """

    def __init__(self, seed: int, rates: Rates | None = None, script: FaultScript | None = None) -> None:
        self.script = script or FaultScript()
        self.met: Counter[Fault] = Counter()
        self._seed = seed
        self._rates = dict(rates or {})
        self._ordinals: Counter[str] = Counter()

    def for_request(
        self, kind: RequestClass, path: str, now_ns: int, *, may_rest: bool = False
    ) -> Fault | None:
        """The fault of the next request of *kind*; *path* without the /trade-api/v2 before it.

        *may_rest* says that it is an order good till canceled.
        """
        told = self.script.next(REQUEST_FAULTS, now_ns, kind, path, may_rest=may_rest)
        return self._count(told or self._drawn(REQUEST_FAULTS, kind.value), ordinal=kind.value)

    def for_frame(self, fault: Fault, now_ns: int) -> bool:
        """Whether the next frame that can meet *fault* (DUP: a fill; GAP: a sequenced frame) meets it."""
        told = self.script.next((fault,), now_ns)
        return self._count(told or self._drawn((fault,), fault.value), ordinal=fault.value) is not None

    def _drawn(self, faults: Iterable[Fault], ordinal: str) -> Fault | None:
        n = self._ordinals[ordinal]
        for fault in faults:
            rate = self._rates.get(fault, 0)
            if rate and _draw(self._seed, fault, ordinal, n) < rate:
                return fault
        return None

    def _count(self, fault: Fault | None, *, ordinal: str) -> Fault | None:
        self._ordinals[ordinal] += 1
        if fault is not None:
            self.met[fault] += 1
        return fault


def _draw(seed: int, fault: Fault, kind: str, n: int) -> int:
    """A number in 0 .. 999,999, the same for the same four facts."""
    digest = hashlib.sha256(f"{seed}:{fault.value}:{kind}:{n}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _MILLION
