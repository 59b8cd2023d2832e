"""What the desk is told from outside and cannot read from the venue: IV rank per symbol, and the VIX.

Recordings and broker feeds carry neither, so both are *declared* inputs: from a file with its own time, which grows
old, or given by hand, which is recorded as `assumed`. What is missing, unreadable or too old is no reading, and an
entry that needs it is refused as `reference_unknown`; no default stands in.

The file is TOML, numbers as text so that no float comes in:

    as_of = 2023-08-03T13:30:00Z
    source = "morning sheet"
    vix = "15.92"

    [iv_rank]
    SPY = "22"
    GOOG = "61.5"

Limits: a file is read once, when it is opened; a newer one needs a new start.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, cast

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput
from holdfast.core.files import read_named
from holdfast.core.money import parse_qty
from holdfast.core.reasons import Code, RejectReason

MAX_AGE_SECS = 86_400
"""Both are daily figures: a day old is still today's, older is another market's."""

_KNOWN = frozenset({"as_of", "source", "vix", "iv_rank"})
_HUNDRED_E2 = 10_000
_MOST_BYTES = 1 << 20


class Reading(NamedTuple):
    """What is known of one symbol now.

    Attributes:
        iv_rank_e2: Implied-volatility rank from 0 to 100, in 1/100.
        vix_e2: The VIX in 1/100 point.
        assumed: Given by hand, not read anywhere.
        age_ns: Since the source's own time; 0 for what is assumed.
    """

    iv_rank_e2: int
    vix_e2: int
    assumed: bool
    age_ns: int


class ReferenceInput:
    """IV rank and VIX as declared.

    Args:
        vix_e2: In 1/100 point; None is unknown.
        iv_ranks_e2: By symbol, in 1/100.
        iv_rank_e2: Of every symbol that is not named; None is unknown.
        assumed: Given by hand; such figures do not grow old.
        as_of_ns: The source's own time, UTC ns.
        source: Where they come from, for the record.
        max_age_secs: Older figures are unknown.
    """

    def __init__(
        self,
        *,
        vix_e2: int | None = None,
        iv_ranks_e2: Mapping[str, int] | None = None,
        iv_rank_e2: int | None = None,
        assumed: bool = True,
        as_of_ns: int = 0,
        source: str = "nothing",
        max_age_secs: int = MAX_AGE_SECS,
    ) -> None:
        self.assumed = assumed
        self.source = source
        self._vix_e2 = vix_e2
        self._ranks_e2 = dict(iv_ranks_e2 or {})
        self._rank_e2 = iv_rank_e2
        self._as_of_ns = as_of_ns
        self._max_age_ns = max_age_secs * NANOS

    @classmethod
    def by_hand(cls, *, iv_rank: str | Decimal | int, vix: str | Decimal | int) -> ReferenceInput:
        """The same figures for every symbol, recorded as assumed.

        Raises:
            BadInput: One cannot be read or is out of range.
        """
        return cls(vix_e2=_vix(vix), iv_rank_e2=_rank(iv_rank, "IV rank"), source="given by hand")

    @classmethod
    def read(cls, path: Path, *, max_age_secs: int = MAX_AGE_SECS) -> ReferenceInput:
        """The figures of a reference file.

        Raises:
            BadInput: It cannot be read; the message names the field.
        """
        try:
            words: dict[str, Any] = tomllib.loads(read_named(path, _MOST_BYTES, "reference file").decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadInput(
                f"reference file {str(path)!r} cannot be read: {error}", hint="it is TOML, which is UTF-8"
            ) from error
        unknown = sorted(set(words) - _KNOWN)
        if unknown:
            raise BadInput(
                f"reference file {str(path)!r} has an unknown field {unknown[0]!r}",
                hint=f"known: {', '.join(sorted(_KNOWN))}",
            )
        ranks: object = words.get("iv_rank", {})
        if not isinstance(ranks, dict):
            raise BadInput(
                f"iv_rank of {str(path)!r} is no table", hint='[iv_rank] and then SPY = "22", one a line'
            )
        named = cast("dict[str, object]", ranks)
        return cls(
            vix_e2=_vix(words["vix"]) if "vix" in words else None,
            iv_ranks_e2={symbol: _rank(rank, f"iv_rank of {symbol}") for symbol, rank in named.items()},
            assumed=False,
            as_of_ns=_moment(words.get("as_of"), path),
            source=str(words.get("source", path.name)),
            max_age_secs=max_age_secs,
        )

    def reading(self, symbol: str, now_ns: int) -> Reading | RejectReason:
        """What is known of *symbol* at *now_ns* (UTC), or why nothing is."""
        rank_e2 = self._ranks_e2.get(symbol, self._rank_e2)
        if rank_e2 is None or self._vix_e2 is None:
            lacks = "iv_rank" if rank_e2 is None else "vix"
            return _unknown(symbol, lacks=lacks)
        age_ns = 0 if self.assumed else now_ns - self._as_of_ns
        if age_ns < 0:
            return _unknown(symbol, lacks="a time that is not in the future")
        if age_ns > self._max_age_ns:
            age, bound = age_ns // NANOS, self._max_age_ns // NANOS
            return _unknown(symbol, lacks="freshness", value=str(age), bound=str(bound), unit="s")
        return Reading(rank_e2, self._vix_e2, self.assumed, age_ns)

    def facts(self) -> dict[str, Any]:
        """For the CONFIG record: what was declared, from where, and whether it is assumed."""
        ranks = {symbol: _shown(rank) for symbol, rank in sorted(self._ranks_e2.items())}
        return {
            "source": self.source,
            "assumed": self.assumed,
            "as_of_ns": self._as_of_ns,
            "vix": _shown(self._vix_e2),
            "iv_rank": ranks | ({} if self._rank_e2 is None else {"*": _shown(self._rank_e2)}),
        }


def _unknown(symbol: str, *, lacks: str, value: str = "", bound: str = "", unit: str = "") -> RejectReason:
    return RejectReason(
        code=Code.REFERENCE_UNKNOWN,
        scope=symbol,
        value=value,
        bound=bound,
        unit=unit,
        keys={"symbol": symbol, "lacks": lacks},
    )


def _shown(value_e2: int | None) -> str:
    return "" if value_e2 is None else f"{value_e2 // 100}.{value_e2 % 100:02d}"


def _rank(value: object, what: str) -> int:
    rank_e2 = _number(value, what)
    if not 0 <= rank_e2 <= _HUNDRED_E2:
        raise BadInput(
            f"{what} {value} is outside 0 to 100", hint="a rank is a percentage of the year's range"
        )
    return rank_e2


def _vix(value: object) -> int:
    vix_e2 = _number(value, "VIX")
    if vix_e2 <= 0:
        raise BadInput(f"VIX {value} is not above 0", hint="in points, such as 15.92")
    return vix_e2


def _number(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise BadInput(f"{what} {value!r} is a {type(value).__name__}", hint='write it as text: "15.92"')
    return parse_qty(value, what)


def _moment(value: object, path: Path) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise BadInput(
            f"reference file {str(path)!r} lacks as_of with a time zone", hint="as_of = 2023-08-03T13:30:00Z"
        )
    return int(value.timestamp()) * NANOS
