"""One paper run, from the exchange's start to the summary.

Order of events: exchange up → desk wired → reconciled → trading, the story told from the journal → books
compared with the exchange's own → journal closed and verified → one byte of a copy changed, the record named →
summary. Ends with 1 when anything the run promises was not seen, 3 when the journal is damaged, 4 when an order is
still unknown.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import importlib
import itertools
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from holdfast.audit.format import Record
from holdfast.audit.query import read_records
from holdfast.audit.verify import verify
from holdfast.cli.output import on_terminal, print_json
from holdfast.cli.paper.exchange_process import Endpoints, running_exchange
from holdfast.cli.paper.screen import Screen, choose_screen
from holdfast.cli.paper.story import CHAPTERS, Story
from holdfast.config import Config, KalshiConfig, load_config
from holdfast.core.errors import (
    EXIT_CANNOT_ACT,
    EXIT_INTEGRITY,
    EXIT_OK,
    EXIT_USER_ERROR,
    BadInput,
    CircuitBreakerOpenError,
    VenueError,
    VenueUnreachable,
)
from holdfast.core.money import MoneyE6, QtyE2, format_money, format_price, format_qty
from holdfast.core.orders import OrderStatus
from holdfast.execution.examples import paper_strategies
from holdfast.execution.strategy import Strategy
from holdfast.execution.venue import VenueEvent, VenueOrder, VenueTime
from holdfast.wiring import Desk, open_desk

DEFAULT_SPEED = "20"
DEFAULT_MARKET_SECS = 1200
SEEDED_START = "2026-11-20T16:00:00Z"
# Market seconds at which the exchange of the full story misbehaves; see `holdfast exchange --faults-at`.
STORY_FAULTS = "400:reads_500=5,760:drop_next_resting=1"
_TELL_EVERY_SECS = 0.5
_READ_ATTEMPTS = 6


class Outcome(msgspec.Struct, kw_only=True):
    """What a run ended with, before it is summed up."""

    seed: int
    directory: str
    orders: dict[str, int]
    refusals: dict[str, int]
    breaker: list[dict[str, Any]]
    pnl_e6: MoneyE6 | None
    journal: dict[str, Any]
    decisions: int
    decisions_sha256: str
    exchange_matches: bool
    differences: list[str]
    chapters_missing: list[str]
    tampered: dict[str, Any]
    resting: list[str]


def run_session(args: argparse.Namespace) -> int:
    """Run it, print the summary, return the exit code."""
    config = load_config(Path(args.config) if args.config else None)
    if (args.exchange is None) != (args.key_id is None and args.pem is None) or (args.key_id is None) != (
        args.pem is None
    ):
        raise BadInput("--exchange, --key-id and --pem go together", hint="the exchange prints all three")
    directory = _run_directory(args, Path(config.paths.state))
    strategies = [_load_strategy(name) for name in args.strategy] or list(paper_strategies())
    screen = choose_screen(json=args.json, terminal=on_terminal())
    screen.heading(f"run directory {directory}")
    full_story = not (args.tape or args.strategy or args.exchange)
    outcome = asyncio.run(_session(args, config, directory, strategies, screen, full_story=full_story))
    if args.json:
        print_json(outcome)
    else:
        _print_summary(outcome)
    return _verdict(outcome)


async def _session(
    args: argparse.Namespace,
    config: Config,
    directory: Path,
    strategies: Sequence[Strategy],
    screen: Screen,
    *,
    full_story: bool,
) -> Outcome:
    async with _exchange(args, directory, full_story=full_story) as endpoints:
        account = KalshiConfig(
            key_id=endpoints.key_id, pem=endpoints.pem, base_url=endpoints.rest, ws_url=endpoints.ws
        )
        desk = open_desk(
            msgspec.structs.replace(config, kalshi=account),
            audit_dir=directory / "audit",
            strategies=strategies,
            market_ns=await _market_time(endpoints.rest),
            seed=args.seed,
        )
        story = Story()
        try:
            with screen:
                await _trade(desk, story, screen)
            resting, differences = await _leave(desk, cancel=args.cancel_on_exit)
            today = desk.trader.gate.daily_pnl()
        finally:
            await desk.close()
    for record in read_records(directory / "audit", start_seq=story.last_seq + 1):
        for line in story.tell(record):
            screen.show(line, story)
    return _sum_up(
        args.seed,
        directory,
        story,
        differences=differences,
        resting=resting,
        today=today,
        full_story=full_story,
    )


@asynccontextmanager
async def _exchange(
    args: argparse.Namespace, directory: Path, *, full_story: bool
) -> AsyncGenerator[Endpoints, None]:
    if args.exchange:
        yield Endpoints(rest=args.exchange, ws="", key_id=args.key_id, pem=args.pem)
        return
    taped = args.tape is not None
    arguments = ["--seed", str(args.seed), "--dir", str(directory / "exchange"), "--port", "0", "--hold"]
    arguments += ["--speed", args.speed or ("max" if taped else DEFAULT_SPEED)]
    if args.seconds is not None:
        arguments += ["--seconds", str(args.seconds)]
    elif not taped:
        # A minute at the default speed; the same market at any other, so that a seed decides the same.
        arguments += ["--market-seconds", str(DEFAULT_MARKET_SECS)]
    arguments += [] if taped else ["--start", SEEDED_START]
    if taped:
        arguments += ["--tape", args.tape]
    if full_story:
        arguments += ["--faults-at", STORY_FAULTS]
    async with running_exchange(arguments) as endpoints:
        yield endpoints


async def _market_time(rest: str) -> int:
    """The exchange's time, UTC ns, so that the journal's first record already carries it."""
    parts = urlsplit(rest)
    url = f"{parts.scheme}://{parts.netloc}/holdfast/clock"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(url) as answer,
        ):
            return msgspec.json.decode(await answer.read(), type=dict[str, int])["ts_ns"]
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError, KeyError) as error:
        raise VenueUnreachable(
            f"no paper exchange answers at {rest!r}: {error}", hint="start one with `holdfast exchange`"
        ) from error


async def _trade(desk: Desk, story: Story, screen: Screen) -> None:
    """Trade until the venue's clock ends or somebody presses Ctrl-C, telling the story meanwhile."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    telling = asyncio.create_task(_tell(desk, story, screen))
    try:
        markets = [market.ticker for market in await desk.client.list_markets()]
        stream = _until(stop, desk.venue.events(markets))
        await desk.trader.start()
        await desk.trader.run(stream)
    finally:
        telling.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _until(stop: asyncio.Event, events: AsyncIterator[VenueEvent]) -> AsyncIterator[VenueEvent]:
    """*events*, ending after the venue's final tick or soon after *stop*."""
    async for event in events:
        yield event
        if stop.is_set() or (isinstance(event, VenueTime) and event.final):
            return


async def _tell(desk: Desk, story: Story, screen: Screen) -> None:
    """Render what the journal gained, twice a second, read back from the disk."""
    directory = desk.audit.wal.directory
    while True:
        await asyncio.sleep(_TELL_EVERY_SECS)
        fresh = await asyncio.to_thread(lambda: list(read_records(directory, start_seq=story.last_seq + 1)))
        for record in fresh:
            for line in story.tell(record):
                screen.show(line, story)


async def _leave(desk: Desk, *, cancel: bool) -> tuple[list[str], list[str]]:
    """Cancel our resting orders if asked; what still rests, and where our books and the exchange's disagree."""
    if cancel:
        await desk.trader.cancel_all_own()
    for attempt in range(_READ_ATTEMPTS):
        try:
            theirs, resting = await desk.venue.positions(), await desk.venue.open_orders()
        except (VenueError, CircuitBreakerOpenError) as error:
            unread = [f"the exchange could not be read: {error}"]
            if attempt + 1 == _READ_ATTEMPTS:
                return [], unread
        else:
            listed = [
                f"{order.client_order_id or order.order_id} {order.side} {order.ticker} "
                f"leaves {format_qty(order.leaves)} at {format_price(order.yes_price)}"
                for order in resting
            ]
            return listed, _differences(desk, theirs, resting)
    raise AssertionError("the loop returns")


def _differences(desk: Desk, theirs: Mapping[str, QtyE2], resting: Sequence[VenueOrder]) -> list[str]:
    """Where our books and the exchange's own disagree; empty is agreement."""
    ours = desk.trader.account.portfolio.positions
    differences = [
        f"position {ticker}: ours {ours.get(ticker, 0)}, the exchange's {theirs.get(ticker, 0)}"
        for ticker in sorted(ours.keys() | theirs.keys())
        if ours.get(ticker, 0) != theirs.get(ticker, 0)
    ]
    rests = {order.client_order_id: order.leaves for order in resting}
    # An UNKNOWN order is no disagreement: we do not claim to know; it is counted apart and ends with exit code 4.
    works = {
        order.client_order_id: order.leaves
        for order in desk.trader.account.open_orders()
        if order.status is not OrderStatus.UNKNOWN
    }
    return differences + [
        f"order {name}: we leave {works.get(name, 0)}, the exchange {rests.get(name, 0)}"
        for name in sorted(rests.keys() | works.keys())
        if rests.get(name, 0) != works.get(name, 0)
    ]


def _sum_up(
    seed: int,
    directory: Path,
    story: Story,
    *,
    differences: list[str],
    resting: list[str],
    today: MoneyE6 | None,
    full_story: bool,
) -> Outcome:
    audit = directory / "audit"
    report = verify(audit)
    return Outcome(
        seed=seed,
        directory=str(directory),
        orders={
            name: story.orders[name]
            for name in ("submitted", "filled", "rejected", "denied", "canceled", "expired", "not_sent")
        }
        | {"unknown": story.unknown_now},
        refusals=dict(story.refusals),
        breaker=story.breaker,
        pnl_e6=story.gain(today),
        journal={
            "records": report.total_entries,
            "bytes": sum(path.stat().st_size for path in audit.glob("audit_*")),
            "verify_ok": report.ok,
        },
        decisions=story.decisions,
        decisions_sha256=_decisions_digest(audit),
        exchange_matches=not differences,
        differences=differences,
        chapters_missing=[CHAPTERS[chapter] for chapter in story.missing] if full_story else [],
        tampered=_tamper(audit, directory / "tampered"),
        resting=resting,
    )


def _decisions_digest(audit: Path) -> str:
    """SHA-256 over the canonical JSON of every decision: number, intent, rows, verdict, market time."""
    digest = hashlib.sha256()
    for record in read_records(audit):
        if record.type == "DECISION" and not record.details.get("question"):
            taken = {
                name: record.details[name] for name in ("n", "intent", "rows", "verdict", "market_ts_ns")
            }
            digest.update(msgspec.json.encode(taken, order="sorted"))
    return digest.hexdigest()


def _tamper(audit: Path, copy: Path) -> dict[str, Any]:
    """Change one digit of one fill in a copy of the log; what verify says of the copy."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(audit, copy, ignore=shutil.ignore_patterns("run"))
    victim: Record | None = next((record for record in read_records(copy) if record.type == "TRADE"), None)
    if victim is None:
        return {"changed": None}
    needle = f'"seq":{victim.seq},'.encode()
    for path in sorted(copy.glob("audit_*")):
        sealed = path.suffix == ".gz"
        data = bytearray(gzip.decompress(path.read_bytes()) if sealed else path.read_bytes())
        line = data.find(needle)
        if line < 0:
            continue
        digit = data.index(b'"quantity":"', line) + len(b'"quantity":"')
        data[digit] = ord("9") if data[digit] != ord("9") else ord("8")
        path.write_bytes(gzip.compress(data) if sealed else data)
        bad = verify(copy).first_bad
        return {
            "changed": victim.seq,
            "named": bad.sequence if bad else 0,
            "file": bad.file if bad else "",
            "offset": bad.offset if bad else 0,
            "reason": bad.reason if bad else "nothing was found",
            "found": bad is not None and bad.sequence == victim.seq,
        }
    return {"changed": None}


def _verdict(outcome: Outcome) -> int:
    if not outcome.journal["verify_ok"]:
        return EXIT_INTEGRITY
    if outcome.orders["unknown"]:
        return EXIT_CANNOT_ACT
    found = outcome.tampered["changed"] is None or outcome.tampered["found"]
    if outcome.differences or outcome.chapters_missing or not found:
        return EXIT_USER_ERROR
    return EXIT_OK


def _print_summary(outcome: Outcome) -> None:
    orders = ", ".join(f"{count} {name}" for name, count in outcome.orders.items() if count) or "none"
    refusals = ", ".join(f"{reason} {count}" for reason, count in outcome.refusals.items()) or "none"
    breaker = (
        " -> ".join([outcome.breaker[0]["from"], *(step["to"] for step in outcome.breaker)])
        if outcome.breaker
        else "stayed closed"
    )
    pnl = (
        "unknown (a held market has no price)"
        if outcome.pnl_e6 is None
        else f"${format_money(outcome.pnl_e6)}"
    )
    books = (
        "equal the exchange's own"
        if outcome.exchange_matches
        else "DIFFER: " + "; ".join(outcome.differences)
    )
    tampered, journal = outcome.tampered, outcome.journal
    lines = [
        "",
        "SUMMARY",
        f"  orders       {orders}",
        f"  refusals     {refusals}",
        f"  breaker      {breaker}",
        f"  P&L          {pnl}, fees included",
        f"  books        {books}",
        f"  journal      {journal['records']} records, {journal['bytes']:,} bytes, {'verified' if journal['verify_ok'] else 'DAMAGED'}",
        f"  decisions    {outcome.decisions}, sha256 {outcome.decisions_sha256[:16]}…",
    ]
    if tampered["changed"] is not None:
        lines.append(
            f"  tampering    one digit of record {tampered['changed']} changed in a copy; verify names record "
            f"{tampered['named']} at byte {tampered['offset']}: {tampered['reason']}"
        )
    lines += [f"  resting      {order}" for order in outcome.resting]
    lines += [f"  NOT SHOWN    {chapter}" for chapter in outcome.chapters_missing]
    lines += [
        "",
        "next:",
        f"  holdfast audit query {outcome.directory}/audit --type RISK_VIOLATION",
        f"  holdfast audit verify {outcome.directory}/tampered",
        "  holdfast exchange          # a bot of your own: README, 'Your bot in ten minutes'",
    ]
    print("\n".join(lines))


def _run_directory(args: argparse.Namespace, state: Path) -> Path:
    if args.dir:
        chosen = Path(args.dir)
        if (chosen / "audit").exists() and not args.exchange:
            raise BadInput(
                f"{str(chosen)!r} holds a run whose exchange is gone",
                hint="join the exchange it traded on with --exchange, or leave out --dir to start a new run",
            )
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
        return chosen
    for number in itertools.count(1):
        chosen = state / f"paper-{args.seed}-{number}"
        try:
            chosen.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            continue
        return chosen
    raise AssertionError("itertools.count does not end")


def _load_strategy(name: str) -> Strategy:
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        raise BadInput(f"strategy {name!r} is not of the form module:Class")
    sys.path.insert(0, str(Path.cwd()))
    try:
        strategy = getattr(importlib.import_module(module_name), class_name)()
    except (ImportError, AttributeError) as error:
        raise BadInput(f"strategy {name!r} cannot be loaded: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(strategy, Strategy):
        raise BadInput(f"strategy {name!r} is no holdfast.Strategy", hint="subclass it; see docs of Strategy")
    return strategy
