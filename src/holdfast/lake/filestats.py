"""What readers skip a data file by: how many rows it holds, and the least and the greatest value of some columns.

Promise: what is written of a file is true of it, and what a file's rows do not bear out is named: by a bound that
leaves rows out a reader passes over them, by a wrong number it counts what is not there.

Limits: said of the columns of `tables.SKIPPED_BY` alone, and of no text longer than `LONGEST_TEXT`. Other writers cut
text and round times to the millisecond, as Delta lets them: that is no fault. What a Parquet file's own footer says of
its row groups is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from holdfast.lake.extras import load
from holdfast.lake.tables import SKIPPED_BY

if TYPE_CHECKING:
    import polars as pl
    from deltalake import DeltaTable

LONGEST_TEXT = 64
"""A column with a longer bound, in characters, is given none."""


def written_stats(rows: Any) -> str:
    """What a Delta commit says of a file that holds *rows*, a `pyarrow.Table` of at least one row: JSON."""
    compute: Any = load("pyarrow.compute")
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for name in SKIPPED_BY:
        if name not in rows.column_names:
            continue
        column = rows[name]
        nulls[name] = column.null_count
        if column.null_count == len(column):
            continue
        bounds: dict[str, Any] = compute.min_max(column).as_py()
        if max(len(str(bounds["min"])), len(str(bounds["max"]))) > LONGEST_TEXT:
            continue
        low[name], high[name] = _plain(bounds["min"]), _plain(bounds["max"])
    return json.dumps({"numRecords": len(rows), "minValues": low, "maxValues": high, "nullCount": nulls})


def _plain(value: Any) -> Any:
    return f"{value:%Y-%m-%dT%H:%M:%S.%fZ}" if isinstance(value, datetime) else value


class Bounds(NamedTuple):
    """One column of one file: what is claimed of it, or what its rows say.

    Attributes:
        nulls: How many rows have no value; None where nothing is claimed.
        low: The least value; None where there is none, or nothing is claimed.
        high: The greatest.
    """

    nulls: int | None
    low: Any
    high: Any


class Claimed(NamedTuple):
    """What the newest version claims of one file.

    Attributes:
        rows: How many it holds; None where nothing is claimed.
        columns: By name.
    """

    rows: int | None
    columns: Mapping[str, Bounds]


def claims_of(table: DeltaTable) -> dict[str, Claimed]:
    """What the open *table* claims of each of its files, by their path inside the table."""
    adds: Any = load("pyarrow").table(table.get_add_actions(flatten=True))
    names = {
        name.partition(".")[2]
        for name in adds.column_names
        if name.startswith(("null_count.", "min.", "max."))
    }
    found: dict[str, Claimed] = {}
    for said in adds.to_pylist():
        columns = {
            name: Bounds(said.get(f"null_count.{name}"), said.get(f"min.{name}"), said.get(f"max.{name}"))
            for name in sorted(names)
        }
        found[unquote(said["path"])] = Claimed(said["num_records"], columns)
    return found


class Counted:
    """What the rows of one file say, batch by batch, of the columns that something is claimed of."""

    def __init__(self, claimed: Claimed) -> None:
        self._claimed = claimed
        self._rows = 0
        self._columns: dict[str, Bounds] = {}

    def take(self, frame: pl.DataFrame) -> None:
        """Count the rows of *frame*, some of the file's."""
        self._rows += frame.height
        for name in self._claimed.columns:
            if name in frame.columns:
                column = frame[name]
                here = Bounds(column.null_count(), column.min(), column.max())
                before = self._columns.get(name)
                self._columns[name] = here if before is None else _together(before, here)

    def untrue(self) -> Iterator[str]:
        """Each claim that the rows do not bear out, half a sentence each."""
        if self._claimed.rows not in {None, self._rows}:
            yield f"claims {self._claimed.rows} rows and holds {self._rows}"
        for name, found in self._columns.items():
            said = self._claimed.columns[name]
            if said.nulls not in {None, found.nulls}:
                yield f"claims {said.nulls} rows without {name} and holds {found.nulls}"
            if said.low is not None and not _is_low(said.low, found.low):
                yield f"claims {name} from {_shown(said.low)} and holds {_shown(found.low)}"
            if said.high is not None and not _is_high(said.high, found.high):
                yield f"claims {name} to {_shown(said.high)} and holds {_shown(found.high)}"


def _together(one: Bounds, other: Bounds) -> Bounds:
    lows = [low for low in (one.low, other.low) if low is not None]
    highs = [high for high in (one.high, other.high) if high is not None]
    return Bounds((one.nulls or 0) + (other.nulls or 0), min(lows, default=None), max(highs, default=None))


def _is_low(said: Any, found: Any) -> bool:
    """Whether *said* is the least value *found*, cut or rounded at most."""
    if isinstance(said, str) and isinstance(found, str):
        return found.startswith(said)
    return _same(said, found)


def _is_high(said: Any, found: Any) -> bool:
    """Whether *said* is the greatest value *found*; text is cut behind a letter that follows the one that stood there."""
    if isinstance(said, str) and isinstance(found, str):
        return said == found or (said > found and found.startswith(said[:-1]))
    return _same(said, found)


def _same(said: Any, found: Any) -> bool:
    if isinstance(said, datetime) and isinstance(found, datetime):
        return _millisecond(said) == _millisecond(found)
    return bool(said == found)


def _millisecond(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)
