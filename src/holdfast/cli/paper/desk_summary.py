"""What an options run amounts to: figures from the journal, the Greeks as a small picture, the exit code."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.cli.paper.desk_story import DeskStory
from holdfast.cli.paper.screen import TOGETHER
from holdfast.cli.paper.summary import (
    Outcome,
    books,
    breaker_path,
    counted,
    evidence,
    gain,
    loose_ends,
    print_page,
    verdict,
)
from holdfast.core.clock import utc
from holdfast.core.errors import EXIT_CANNOT_ACT, EXIT_INTEGRITY, EXIT_OK, EXIT_USER_ERROR

_FACT_AT = 15
_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 48
_UNITS = {"delta": "shares", "gamma": "shares", "vega": "dollars", "theta": "dollars", "equity": "dollars"}


class LakeFacts(msgspec.Struct, kw_only=True):
    """What became of the risk events beside the journal.

    Attributes:
        uri: Where the lake is, "" for none.
        rows: By table; None where it was not asked for or could not be counted.
        said: Why there is no lake, or what went wrong; "" otherwise.
        expected: RISK_EVENT records in the journal.
        failed: A lake was wanted, and could not be brought to the journal's end or does not equal it.
    """

    uri: str = ""
    rows: dict[str, int] | None = None
    said: str = ""
    expected: int = 0
    failed: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether every risk event is there exactly once, as far as a lake was wanted."""
        counted = self.rows is None or self.rows.get("risk_events") == self.expected
        return counted and not self.failed


class DeskOutcome(Outcome, kw_only=True):
    """What an options run ended with, beside what every run does."""

    layers: list[str]
    rejections: dict[str, int]
    warnings: dict[str, int]
    stops: dict[str, int]
    contracts_ended: dict[str, int]
    alarms: dict[str, int]
    held: dict[str, str]
    greeks: list[dict[str, Any]]
    lake: LakeFacts


def sum_up_desk(
    run: Outcome, story: DeskStory, *, layers: list[str], held: dict[str, str], lake: LakeFacts
) -> DeskOutcome:
    """What the journal says about a desk, beside *run*."""
    return DeskOutcome(
        **msgspec.structs.asdict(run),
        layers=layers,
        rejections=dict(story.rejections),
        warnings=dict(story.warnings),
        stops=dict(story.stops),
        contracts_ended=dict(story.contracts_ended),
        alarms=dict(story.alarms),
        held=held,
        greeks=[stock._asdict() for stock in story.stocks],
        lake=lake,
    )


def desk_verdict(outcome: DeskOutcome) -> int:
    """The exit code: that of any run, and 1 where the lake is not whole."""
    return verdict(outcome) or (EXIT_OK if outcome.lake.is_whole else EXIT_USER_ERROR)


def print_desk_summary(outcome: DeskOutcome) -> None:
    """The page at the end of a run."""
    # What the gate denies an entry is told as a rejection too, and must not count twice.
    refusals = Counter(outcome.rejections) | Counter(outcome.refusals)
    print_page(
        [
            f"  layers       {', '.join(outcome.layers)}",
            f"  orders       {counted(outcome.orders)}",
            f"  refusals     {counted(refusals)}",
            f"  warnings     {counted(outcome.warnings)}",
            f"  stops        {counted(outcome.stops)}",
            f"  contracts    {counted(outcome.contracts_ended)}",
            f"  breaker      {breaker_path(outcome)}",
            f"  P&L          {gain(outcome.pnl_e6, 'something held has no price')}",
            f"  held         {_held(outcome.held)}",
            *_greeks(outcome.greeks),
            f"  books        {books(outcome, 'broker')}",
            f"  lake         {_lake(outcome.lake)}",
            *evidence(outcome),
            *(f"  alarm        {name} {count}" for name, count in outcome.alarms.items()),
            *loose_ends(outcome),
        ]
    )
    where = shlex.quote(outcome.directory)
    print("\nnext:")
    print(f"  holdfast audit query {where}/audit --type RISK_EVENT")
    if outcome.lake.rows is not None:
        lake = shlex.quote(outcome.lake.uri)
        print(f"  holdfast lake sql --lake {lake} --saved stop_history")
        print(f"  holdfast lake sql --lake {lake} --saved limit_use --plot limits.png")
    print("  docs/options.md    # the structures, the stops, the layers, a strategy of your own")


def worst_of(outcomes: Sequence[DeskOutcome]) -> int:
    """The exit code of several days: a damaged journal before an unknown order before a promise not kept."""
    found = {desk_verdict(outcome) for outcome in outcomes}
    return next(
        (code for code in (EXIT_INTEGRITY, EXIT_CANNOT_ACT, EXIT_USER_ERROR) if code in found), EXIT_OK
    )


def print_days(outcomes: Sequence[DeskOutcome], days: Sequence[int]) -> None:
    """A line for each day of a recording, and for those that were not played any more."""
    print("\nRECORDED DAYS")
    for place, day in enumerate(days):
        if place >= len(outcomes):
            print(f"  {day}   not played: interrupted before")
            continue
        one = outcomes[place]
        print(
            f"  {day}   {one.orders['filled']} orders filled, {one.stops.get('trigger', 0)} stops triggered, "
            f"P&L {gain(one.pnl_e6, 'something held has no price')}   {one.directory}"
        )


def _lake(lake: LakeFacts) -> str:
    if lake.rows is None:
        return lake.said or "none"
    rows = ", ".join(f"{count} {name}" for name, count in lake.rows.items())
    exact = (
        "every event once" if lake.is_whole else f"BUT {lake.expected} events are in the journal {lake.said}"
    )
    return f"{rows} in {lake.uri}, {exact}"


def _held(held: dict[str, str]) -> str:
    """What stays on the books, a contract each: "-1 SPY230915P00438000"."""
    contracts = (f"{qty.removesuffix('.00')}{TOGETHER}{ticker}" for ticker, qty in held.items())
    return ", ".join(contracts) or "nothing"


def _greeks(stocks: list[dict[str, Any]]) -> list[str]:
    """Delta, gamma, vega, theta and equity over the run: a picture, and from where to where."""
    if len(stocks) < 2:
        return ["  Greeks       too short a run: they are taken every 15 minutes of market time"]
    first, last = (utc(stock["ts_ns"]).strftime("%H:%M") for stock in (stocks[0], stocks[-1]))
    lines = [f"  Greeks       {first} to {last} UTC, every 15 minutes of market time"]
    for name, unit in _UNITS.items():
        values = [float(stock[name]) for stock in stocks if stock[name]]
        if values:
            lines.append(
                f"    {name:<10} {sparkline(values)}  {values[0]:,.2f} to {values[-1]:,.2f} {unit}, "
                f"between {min(values):,.2f} and {max(values):,.2f}"
            )
    return lines


def sparkline(values: list[float]) -> str:
    """*values* as one line of bars, at most 48 wide; equal values are a flat line in the middle."""
    if len(values) > _WIDEST:
        values = [values[at * len(values) // _WIDEST] for at in range(_WIDEST)]
    low, high = min(values), max(values)
    if low == high:
        return _BARS[3] * len(values)
    return "".join(_BARS[min(7, int((value - low) / (high - low) * 8))] for value in values)
