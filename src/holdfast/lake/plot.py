"""An answer as a picture: lines over time, or bars by name, as its columns suggest.

    a time and numbers               one line for each number
    a time, a name and a number      one line for each name (the `MOST_LINES` largest), a legend
    a name and numbers               bars, longest first, at most `MOST_BARS`; also where each row has a name of
                                     its own before its times, or all rows have one time
    two numbers                      points

Promise: axes carry the columns' names and times are UTC; what was left out for want of room is said in the picture.
The file's ending chooses the format. The same answer gives the same picture.

Limits: a column that only counts rows (`seq`, `event_id` and their like) is never drawn. Points that are too many for
the width are thinned to `MOST_POINTS` for each line. What a saved question draws is said there (`Drawn`): only who
asked it knows which of its numbers share a unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.core.errors import BadInput
from holdfast.lake.extras import load
from holdfast.lake.saved import ALL, Drawn

FORMATS = (".png", ".svg")
MOST_LINES = 8
MOST_BARS = 30
MOST_POINTS = 5_000
FEW_POINTS = 60
"""Up to so many points of a line are marked."""

_NEVER = frozenset({"seq", "epoch", "ts_ns", "event_id", "writer_id", "schema_version", "limits_version"})
_STYLE: Mapping[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 120,
    "font.size": 10,
    "grid.alpha": 0.3,
    "svg.hashsalt": "holdfast",
    "timezone": "UTC",
}


class Series(NamedTuple):
    """One line, or one set of bars.

    Attributes:
        label: Its name in the legend.
        across: Times, names or numbers.
        up: Numbers.
    """

    label: str
    across: Sequence[Any]
    up: Sequence[float]


class Picture(NamedTuple):
    """What is drawn.

    Attributes:
        kind: "time", "bars" or "points".
        across: The label below.
        up: The label at the side.
        series: What is drawn.
        note: What was left out, or "".
    """

    kind: str
    across: str
    up: str
    series: tuple[Series, ...]
    note: str


def chosen(answer: Any) -> Picture:
    """How *answer*, a `pyarrow.Table`, is drawn best.

    Raises:
        BadInput: It has no rows, or no number to draw.
    """
    if not answer.num_rows:
        raise BadInput("nothing to plot: the answer has no rows", hint="ask for another time or table")
    columns = {name: answer[name].to_pylist() for name in answer.column_names}
    kinds = {name: _kind(values) for name, values in columns.items()}
    times = [name for name, kind in kinds.items() if kind == "time"]
    names = [name for name, kind in kinds.items() if kind == "name" and name not in _NEVER]
    numbers = [name for name, kind in kinds.items() if kind == "number" and name not in _NEVER]
    if not numbers:
        raise BadInput(
            f"nothing to plot: no number among {', '.join(columns)}",
            hint="select a time or a name, and numbers: SELECT event_date, count(*) AS events …",
        )
    named_rows = bool(names) and _is_unique(columns[names[0]]) and list(columns).index(names[0]) == 0
    # One moment makes no line.
    named_rows |= bool(names and times) and len(set(columns[times[0]])) == 1 and _is_unique(columns[names[0]])
    if times and not named_rows:
        return _over_time(columns, times[0], names, numbers)
    if names:
        return _bars(columns, names[0], numbers)
    if len(numbers) == 1:
        raise BadInput(
            f"nothing to plot: {numbers[0]!r} stands alone", hint="select a time or a name beside it"
        )
    across, up = numbers[:2]
    pairs = [pair for pair in zip(columns[across], columns[up], strict=True) if None not in pair]
    points = Series(up, [one for one, _ in pairs], [float(other) for _, other in pairs])
    return Picture("points", across, up, (_thinned(points),), "")


def plot(answer: Any, path: Path, title: str, drawn: Drawn = ALL) -> Picture:
    """Draw *answer* into *path*, a PNG or an SVG, as *drawn* says; what was drawn.

    Raises:
        BadInput: matplotlib is not installed, the ending is another one, a file is in the way, or there is nothing
            to draw.
    """
    if path.suffix.lower() not in FORMATS:
        raise BadInput(f"{str(path)!r} is no picture", hint=f"name it {path.stem}.png or {path.stem}.svg")
    if path.exists():
        raise BadInput(f"{str(path)!r} is there already", hint="name another file, or move this one away")
    if drawn.instead:
        raise BadInput(
            "this answer is a list to read, not to draw",
            hint=f"ask it without --plot, or draw --saved {drawn.instead}",
        )
    picture = chosen(answer.select(list(drawn.columns)) if drawn.columns else answer)
    matplotlib: Any = load("matplotlib")
    matplotlib.use("agg")
    with matplotlib.rc_context(dict(_STYLE)):
        figure = load("matplotlib.figure").Figure(figsize=(10, _height(picture)), layout="constrained")
        _draw(figure.add_subplot(), picture, title, drawn)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
        try:
            figure.savefig(path, metadata=metadata)
        except OSError:
            path.unlink(missing_ok=True)  # what a full disk cut off is no picture
            raise
    return picture


# -- choosing -------------------------------------------------------------------------------------------------------


def _kind(values: Sequence[Any]) -> str:
    """What a column holds, by its first value: time, number, name; "" where it holds none of them."""
    first = next((value for value in values if value is not None), None)
    if isinstance(first, date):  # datetime too
        return "time"
    if isinstance(first, bool | str):
        return "name"
    return "number" if first is not None and _is_number(first) else ""


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError):
        return False
    return True


def _over_time(
    columns: Mapping[str, Sequence[Any]], time: str, names: Sequence[str], numbers: Sequence[str]
) -> Picture:
    groups = [name for name in names if 1 < len(set(columns[name])) <= len(columns[name]) // 2]
    if not groups:
        series = [_line(number, columns[time], columns[number]) for number in numbers[:MOST_LINES]]
        up = numbers[0] if len(series) == 1 else ""
        return Picture(
            "time", time, up, tuple(filter(_holds, series)), _left_out(numbers, MOST_LINES, "columns")
        )
    group, number = groups[0], numbers[0]
    split: dict[str, tuple[list[Any], list[Any]]] = {}
    for name, moment, value in zip(columns[group], columns[time], columns[number], strict=True):
        moments, values = split.setdefault(str(name), ([], []))
        moments.append(moment)
        values.append(value)
    series = [_line(name, moments, values) for name, (moments, values) in sorted(split.items())]
    largest = sorted(filter(_holds, series), key=lambda one: -max(map(abs, one.up)))[:MOST_LINES]
    kept = tuple(one for one in series if one in largest)
    return Picture("time", time, number, kept, _left_out(list(split), MOST_LINES, group))


def _is_unique(values: Sequence[Any]) -> bool:
    return len(set(values)) == len(values)


def _line(label: str, moments: Sequence[Any], values: Sequence[Any]) -> Series:
    known = sorted(
        (
            (moment, float(value))
            for moment, value in zip(moments, values, strict=True)
            if None not in {moment, value}
        ),
        key=lambda pair: pair[0],
    )
    return _thinned(Series(label, [moment for moment, _ in known], [value for _, value in known]))


def _bars(columns: Mapping[str, Sequence[Any]], name: str, numbers: Sequence[str]) -> Picture:
    number = numbers[0]
    rows = [
        (str(one), float(value))
        for one, value in zip(columns[name], columns[number], strict=True)
        if value is not None
    ]
    rows.sort(key=lambda row: (-row[1], row[0]))
    kept = rows[:MOST_BARS]
    bars = Series(number, [one for one, _ in kept], [value for _, value in kept])
    return Picture("bars", number, name, (bars,), _left_out(rows, MOST_BARS, name))


def _thinned(series: Series) -> Series:
    step = -(-len(series.up) // MOST_POINTS)
    return series if step <= 1 else Series(series.label, series.across[::step], series.up[::step])


def _holds(series: Series) -> bool:
    return bool(series.up)


def _left_out(everything: Sequence[object], most: int, what: str) -> str:
    more = len(everything) - most
    return f"{more} more of {what} are not drawn" if more > 0 else ""


# -- drawing --------------------------------------------------------------------------------------------------------


def _height(picture: Picture) -> float:
    return max(3.0, 1.5 + 0.28 * len(picture.series[0].up)) if picture.kind == "bars" else 5.0


def _draw(axes: Any, picture: Picture, title: str, drawn: Drawn) -> None:
    axes.set_title(title, loc="left", wrap=True)
    axes.set_axisbelow(True)
    marker = "o" if max(len(series.up) for series in picture.series) < FEW_POINTS else ""
    for series in picture.series:
        if picture.kind == "bars":
            bars = axes.barh(list(series.across), list(series.up))
            axes.bar_label(bars, fmt="{:,.4g}", padding=3)
            axes.margins(x=0.08)  # for the figures beyond the bars, to the left too
            axes.invert_yaxis()
        elif picture.kind == "points":
            axes.plot(series.across, series.up, ".", label=series.label)
        else:
            axes.plot(
                series.across, series.up, marker=marker, markersize=3, linewidth=1.3, label=series.label
            )
    across, up = picture.across, drawn.up or picture.up
    if picture.kind == "bars":
        across, up = drawn.up or picture.across, picture.up
    axes.set_xlabel(f"{across} (UTC)" if _has_clock(picture) else across)
    axes.set_ylabel(up)
    if drawn.bound is not None:
        axes.axhline(drawn.bound, color="black", linestyle="--", linewidth=1)
    if picture.kind == "time" and len(picture.series) > 1:
        axes.legend(loc="best", frameon=False)
    if picture.kind == "time":
        dates: Any = load("matplotlib.dates")
        locator = dates.AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
        moments = {moment for series in picture.series for moment in series.across}
        if len(moments) == 1:  # else the axis would be years wide
            axes.set_xlim(*(moment + side * timedelta(days=1) for moment in moments for side in (-1, 1)))
    if picture.note:
        axes.annotate(picture.note, (1, 1), xycoords="axes fraction", ha="right", va="bottom", fontsize=8)


def _has_clock(picture: Picture) -> bool:
    return picture.kind == "time" and isinstance(picture.series[0].across[0], datetime)
