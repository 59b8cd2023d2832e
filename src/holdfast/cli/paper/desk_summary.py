"""What an options run amounts to: figures from the journal, the Greeks as a small picture, the exit code."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdfast.audit.verify import verify
from holdfast.cli.output import on_terminal
from holdfast.cli.paper.desk_story import DeskStory
from holdfast.cli.paper.screen import hanging
from holdfast.cli.paper.summary import decisions_digest, tamper
from holdfast.core.clock import utc
from holdfast.core.errors import EXIT_CANNOT_ACT, EXIT_INTEGRITY, EXIT_OK, EXIT_USER_ERROR
from holdfast.core.money import MoneyE6, format_money

_FACT_AT = 15
_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 48


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


class DeskOutcome(msgspec.Struct, kw_only=True):
    """What an options run ended with."""

    seed: int
    directory: str
    layers: list[str]
    orders: dict[str, int]
    refusals: dict[str, int]
    rejections: dict[str, int]
    warnings: dict[str, int]
    stops: dict[str, int]
    breaker: list[dict[str, Any]]
    contracts_ended: dict[str, int]
    alarms: dict[str, int]
    held: dict[str, str]
    greeks: list[dict[str, Any]]
    pnl_e6: MoneyE6 | None
    lake: LakeFacts
    journal: dict[str, Any]
    decisions: int
    decisions_sha256: str
    exchange_matches: bool
    differences: list[str]
    chapters_missing: list[str]
    tampered: dict[str, Any]
    resting: list[str]


def sum_up(
    seed: int,
    directory: Path,
    story: DeskStory,
    *,
    layers: list[str],
    held: dict[str, str],
    lake: LakeFacts,
    differences: list[str],
    resting: list[str],
    today: MoneyE6 | None,
    full_story: bool,
) -> DeskOutcome:
    """Everything the journal, its verification and the comparison of books say about one run."""
    audit = directory / "audit"
    report = verify(audit)
    names = ("submitted", "filled", "rejected", "denied", "canceled", "expired", "not_sent")
    return DeskOutcome(
        seed=seed,
        directory=str(directory),
        layers=layers,
        orders={name: story.orders[name] for name in names} | {"unknown": story.unknown_now},
        refusals=dict(story.refusals),
        rejections=dict(story.rejections),
        warnings=dict(story.warnings),
        stops=dict(story.stops),
        breaker=story.breaker,
        contracts_ended=dict(story.contracts_ended),
        alarms=dict(story.alarms),
        held=held,
        greeks=[stock._asdict() for stock in story.stocks],
        pnl_e6=story.gain(today),
        lake=lake,
        journal={
            "records": report.total_entries,
            "bytes": sum(path.stat().st_size for path in audit.glob("audit_*")),
            "verify_ok": report.ok,
        },
        decisions=story.decisions,
        decisions_sha256=decisions_digest(audit),
        exchange_matches=not differences,
        differences=differences,
        chapters_missing=[story.chapters[chapter] for chapter in story.missing] if full_story else [],
        tampered=tamper(audit, directory / "tampered"),
        resting=resting,
    )


def verdict(outcome: DeskOutcome) -> int:
    """The exit code: 3 damaged journal, 4 an order still unknown, 1 a promise not kept, else 0."""
    if not outcome.journal["verify_ok"]:
        return EXIT_INTEGRITY
    if outcome.orders["unknown"]:
        return EXIT_CANNOT_ACT
    found = outcome.tampered["changed"] is None or outcome.tampered["found"]
    if outcome.differences or outcome.chapters_missing or not found or not outcome.lake.is_whole:
        return EXIT_USER_ERROR
    return EXIT_OK


def print_summary(outcome: DeskOutcome) -> None:
    """The page at the end of a run."""
    journal, where = outcome.journal, shlex.quote(outcome.directory)
    steps = outcome.breaker
    breaker = " -> ".join([steps[0]["from"], *(step["to"] for step in steps)]) if steps else "stayed closed"
    books = (
        "equal the broker's own" if outcome.exchange_matches else "DIFFER: " + "; ".join(outcome.differences)
    )
    # What the gate denies an entry is told as a rejection too, and must not count twice.
    refusals = dict(Counter(outcome.rejections) | Counter(outcome.refusals))
    health = "verified" if journal["verify_ok"] else "DAMAGED"
    lines = [
        "",
        "SUMMARY",
        f"  layers       {', '.join(outcome.layers)}",
        f"  orders       {_counted(outcome.orders)}",
        f"  refusals     {_counted(refusals)}",
        f"  warnings     {_counted(outcome.warnings)}",
        f"  stops        {_counted(outcome.stops)}",
        f"  contracts    {_counted(outcome.contracts_ended)}",
        f"  breaker      {breaker}",
        f"  P&L          {_money(outcome.pnl_e6)}",
        f"  held         {_held(outcome.held)}",
        *_greeks(outcome.greeks),
        f"  books        {books}",
        f"  lake         {_lake(outcome.lake)}",
        f"  journal      {journal['records']} records, {journal['bytes']:,} bytes, {health}",
        f"  decisions    {outcome.decisions}, sha256 {outcome.decisions_sha256[:16]}…",
    ]
    if outcome.tampered["changed"] is not None:
        lines.append(
            f"  tampering    one digit of record {outcome.tampered['changed']} changed in a copy; verify names "
            f"record {outcome.tampered['named']}: {outcome.tampered['reason']}"
        )
    lines += [f"  alarm        {name} {count}" for name, count in outcome.alarms.items()]
    lines += [f"  resting      {order}" for order in outcome.resting]
    lines += [f"  NOT SHOWN    {chapter}" for chapter in outcome.chapters_missing]
    width = shutil.get_terminal_size().columns if on_terminal() else sys.maxsize
    print("\n".join(hanging(line, _FACT_AT, width) for line in lines))
    print("\nnext:")
    print(f"  holdfast audit query {where}/audit --type RISK_EVENT")
    if outcome.lake.rows is not None:
        lake = shlex.quote(outcome.lake.uri)
        print(f"  holdfast lake sql --lake {lake} --saved stop_history")
    print("  docs/options.md    # the structures, the stops, the layers, a strategy of your own")


def worst_of(outcomes: Sequence[DeskOutcome]) -> int:
    """The exit code of several days: a damaged journal before an unknown order before a promise not kept."""
    found = {verdict(outcome) for outcome in outcomes}
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
            f"P&L {_money(one.pnl_e6)}   {one.directory}"
        )


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def _money(amount: MoneyE6 | None) -> str:
    if amount is None:
        return "unknown (something held has no price)"
    return f"{'-' * (amount < 0)}${format_money(MoneyE6(abs(amount)))}, fees included"


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
    return ", ".join(f"{qty.removesuffix('.00')} {ticker}" for ticker, qty in held.items()) or "nothing"


def _greeks(stocks: list[dict[str, Any]]) -> list[str]:
    """Delta, gamma, vega, theta and equity over the run: a picture, and from where to where."""
    if len(stocks) < 2:
        return ["  Greeks       too short a run: they are taken every 15 minutes of market time"]
    first, last = (utc(stock["ts_ns"]).strftime("%H:%M") for stock in (stocks[0], stocks[-1]))
    lines = [f"  Greeks       {first} to {last} UTC, every 15 minutes of market time"]
    for name in ("delta", "gamma", "vega", "theta", "equity"):
        values = [float(stock[name]) for stock in stocks if stock[name]]
        if values:
            lines.append(
                f"    {name:<10} {sparkline(values)}  {values[0]:,.2f} to {values[-1]:,.2f}, "
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
