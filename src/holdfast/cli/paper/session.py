"""One paper run, from the exchange's start to the summary.

Order of events: exchange up → desk wired → reconciled → trading, the story told from the journal → books
compared with the exchange's own → journal closed and verified → one byte of a copy changed, the record named →
summary. Ends with 1 when anything the run promises was not seen, 3 when the journal is damaged, 4 when an order is
still unknown.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from holdfast.audit.query import read_records
from holdfast.cli.output import on_terminal, print_json, tell
from holdfast.cli.paper.exchange_process import Endpoints, market_time, running_exchange, until_gone
from holdfast.cli.paper.screen import Screen, choose_screen
from holdfast.cli.paper.story import Story
from holdfast.cli.paper.strategies import load_strategies
from holdfast.cli.paper.summary import Outcome, print_summary, sum_up, verdict
from holdfast.config import Config, KalshiConfig, load_config
from holdfast.core.errors import (
    BadInput,
    CircuitBreakerOpenError,
    VenueAnswerUnknown,
    VenueError,
    VenueUnreachable,
)
from holdfast.core.money import QtyE2, format_price, format_qty
from holdfast.core.orders import OrderStatus
from holdfast.execution.examples import paper_strategies
from holdfast.execution.strategy import Strategy
from holdfast.execution.trader import Trader
from holdfast.execution.venue import VenueEvent, VenueOrder, VenueTime
from holdfast.risk.account import Account
from holdfast.venues.kalshi.values import Market
from holdfast.wiring import Desk, open_desk

DEFAULT_SPEED = "20"
DEFAULT_MARKET_SECS = 1200
SEEDED_START = "2026-11-20T16:00:00Z"
# Market seconds at which the exchange of the full story misbehaves; see `holdfast exchange --faults-at`.
STORY_FAULTS = "400:reads_500=5,760:drop_next_resting=1"
_TELL_EVERY_SECS = 0.5
_LEAVE_SECS = 2.0
_READ_ATTEMPTS = 6
_LIST_ATTEMPTS = 4
"""One less than open the breaker."""
_NONE = QtyE2(0)


def run_session(args: argparse.Namespace) -> int:
    """Run it, print the summary, return the exit code."""
    config = load_config(Path(args.config) if args.config else None)
    if (args.exchange is None) != (args.key_id is None and args.pem is None) or (args.key_id is None) != (
        args.pem is None
    ):
        raise BadInput("--exchange, --key-id and --pem go together", hint="the exchange prints all three")
    strategies = load_strategies(args.strategy) or list(paper_strategies())
    directory = run_directory(args, Path(config.paths.state))
    facts = _recall(args, directory)
    screen = choose_screen(json=args.json, terminal=on_terminal(), chapters=facts.full_story)
    try:
        outcome = asyncio.run(_session(Plan(args, facts, config, directory, strategies), screen))
    except VenueUnreachable:
        forget_unbegun(directory)
        raise
    if args.json:
        print_json(outcome)
    else:
        print_summary(outcome)
    return verdict(outcome)


class Facts(msgspec.Struct, frozen=True):
    """What a run was begun with, kept as `run.json` so that `--dir` alone takes it up again."""

    seed: int
    tape: str | None
    full_story: bool


def _recall(args: argparse.Namespace, directory: Path) -> Facts:
    """What the run in *directory* was begun with; written down when it begins now."""
    path = directory / "run.json"
    try:
        begun = path.read_bytes()
        refuse_another_desk(begun, directory, "kalshi")
        return msgspec.json.decode(begun, type=Facts)
    except FileNotFoundError:
        story = not (args.tape or args.strategy or args.exchange)
        facts = Facts(seed=args.seed, tape=args.tape, full_story=story)
        path.write_bytes(msgspec.json.encode(facts))
        return facts
    except msgspec.MsgspecError as error:
        raise BadInput(
            f"{str(path)!r} cannot be read: {error}", hint="start a new run without --dir"
        ) from error


def refuse_another_desk(begun: bytes, directory: Path, desk: str) -> None:
    """Only the desk that began a run takes it up: another one would close in its books what it does not know.

    Raises:
        BadInput: The run was *begun* by another desk.
        msgspec.MsgspecError: It is no JSON object.
    """
    of = "options" if "symbols" in msgspec.json.decode(begun, type=dict[str, object]) else "kalshi"
    if of != desk:
        raise BadInput(
            f"the run in {str(directory)!r} was begun with --desk {of}",
            hint=f"take it up with --desk {of}, or start a new run without --dir",
        )


class Plan(NamedTuple):
    """Everything a session is begun with."""

    args: argparse.Namespace
    facts: Facts
    config: Config
    directory: Path
    strategies: Sequence[Strategy]


async def _session(plan: Plan, screen: Screen) -> Outcome:
    args, facts, config, directory, strategies = plan
    # A run cut short is not held to the whole story.
    full_story = facts.full_story and args.seconds is None
    async with _exchange(args, facts, directory) as endpoints:
        screen.heading(f"run directory {directory}: {_market_named(args, facts)}; Ctrl-C ends it")
        account = KalshiConfig(
            key_id=endpoints.key_id, pem=endpoints.pem, base_url=endpoints.rest, ws_url=endpoints.ws
        )
        desk = open_desk(
            msgspec.structs.replace(config, kalshi=account),
            audit_dir=directory / "audit",
            strategies=strategies,
            market_ns=await market_time(endpoints.rest),
            seed=facts.seed,
            tell=tell,
        )
        story = Story()
        for record in read_records(directory / "audit", missing_ok=True):
            story.recall(record)
        try:
            with screen:
                if await _trade(desk, endpoints.rest, story, screen):
                    full_story = False
                    screen.heading("interrupted; the story ends here")
            resting, differences = await compare_books(desk.trader, cancel=args.cancel_on_exit)
            today = desk.trader.gate.daily_pnl()
        finally:
            await desk.close()
    for record in read_records(directory / "audit", start_seq=story.last_seq + 1):
        for line in story.tell(record):
            screen.show(line, story)
    return sum_up(
        facts.seed,
        directory,
        story,
        differences=differences,
        resting=resting,
        today=today,
        full_story=full_story,
    )


def _market_named(args: argparse.Namespace, facts: Facts) -> str:
    """The market of this run and its pace, in words."""
    if args.exchange:
        return f"the exchange at {args.exchange}"
    speed = args.speed or ("max" if facts.tape else DEFAULT_SPEED)
    pace = "as fast as it goes" if speed == "max" else f"{speed} times wall time"
    if facts.tape:
        return f"recording {Path(facts.tape).name}, {pace}"
    length = f"{args.seconds:g} s" if args.seconds else f"{DEFAULT_MARKET_SECS // 60} minutes of market time"
    return f"seeded market {facts.seed}, {length}, {pace}"


@asynccontextmanager
async def _exchange(
    args: argparse.Namespace, facts: Facts, directory: Path
) -> AsyncGenerator[Endpoints, None]:
    if args.exchange:
        yield Endpoints(rest=args.exchange, ws="", key_id=args.key_id, pem=args.pem)
        return
    taped = facts.tape is not None
    arguments = ["--seed", str(facts.seed), "--dir", str(directory / "exchange"), "--port", "0", "--hold"]
    arguments += ["--speed", args.speed or ("max" if taped else DEFAULT_SPEED)]
    if args.seconds is not None:
        arguments += ["--seconds", str(args.seconds)]
    elif not taped:
        # A minute at the default speed; the same market at any other, so that a seed decides the same.
        arguments += ["--market-seconds", str(DEFAULT_MARKET_SECS)]
    arguments += [] if taped else ["--start", SEEDED_START]
    if facts.tape is not None:
        arguments += [f"--tape={facts.tape}"]
    if facts.full_story:
        arguments += ["--faults-at", STORY_FAULTS]
    async with running_exchange(arguments, Endpoints) as endpoints:
        yield endpoints


async def _trade(desk: Desk, rest: str, story: Story, screen: Screen) -> bool:
    """Trade until the venue's clock ends, telling the story meanwhile; True when somebody pressed Ctrl-C.

    Raises:
        VenueUnreachable: The exchange is gone.
    """
    return await until_told(
        lambda stop: _follow(desk, stop),
        tell_from(desk.audit.wal.directory, story, screen),
        until_gone(lambda: market_time(rest)),
    )


async def until_told(
    trade: Callable[[asyncio.Event], Coroutine[Any, Any, None]], *beside: Coroutine[Any, Any, None]
) -> bool:
    """Run *trade* until it ends, anything of *beside* does, or a signal comes; True for a signal.

    Raises:
        Exception: Whatever one of them raised.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    trading = asyncio.create_task(trade(stop))
    others = {asyncio.create_task(one) for one in (*beside, _waited(stop))}
    try:
        await asyncio.wait({trading, *others}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            # The event in hand is dealt with to its end; a silent stream is not waited for.
            await asyncio.wait({trading}, timeout=_LEAVE_SECS)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        for task in (trading, *others):
            task.cancel()
        ends = await asyncio.gather(trading, *others, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
    return stop.is_set()


async def _waited(stop: asyncio.Event) -> None:
    await stop.wait()


async def _follow(desk: Desk, stop: asyncio.Event) -> None:
    """Reconcile, then deal with the venue's events in order."""
    stream = until_final(stop, desk.venue.events(await open_markets(desk.client.list_markets)))
    async with aclosing(stream):
        await desk.trader.start()
        await desk.trader.run(stream)


async def open_markets(read: Callable[[], Awaitable[Sequence[Market]]]) -> list[str]:
    """The tickers that *read* lists; asked again where the exchange answered badly, a run is not over for that.

    Raises:
        VenueError: It cannot be reached, refuses us, or answers badly every time.
    """
    for attempt in range(_LIST_ATTEMPTS):
        try:
            return [market.ticker for market in await read()]
        except VenueAnswerUnknown:
            if attempt + 1 == _LIST_ATTEMPTS:
                raise
    raise AssertionError("the loop returns")


async def until_final(stop: asyncio.Event, events: AsyncIterator[VenueEvent]) -> AsyncGenerator[VenueEvent]:
    """*events*, ending after the venue's final tick or soon after *stop*; closed together with them."""
    try:
        async for event in events:
            yield event
            if stop.is_set() or (isinstance(event, VenueTime) and event.final):
                return
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


async def tell_from(audit: Path, story: Story, screen: Screen) -> None:
    """Render what the journal gained, twice a second, read back from the disk."""
    while True:
        await asyncio.sleep(_TELL_EVERY_SECS)
        fresh = await asyncio.to_thread(lambda: list(read_records(audit, start_seq=story.last_seq + 1)))
        for record in fresh:
            for line in story.tell(record):
                screen.show(line, story)


async def compare_books(trader: Trader, *, cancel: bool) -> tuple[list[str], list[str]]:
    """Cancel our resting orders if asked; what still rests, and where our books and the venue's disagree."""
    if cancel:
        await trader.cancel_all_own()
    # What the last event led to was executed after the stream was read for the last time.
    await trader.books.read_fills_quietly()
    await trader.books.read_orders_quietly()
    for attempt in range(_READ_ATTEMPTS):
        try:
            theirs, resting = await trader.venue.positions(), await trader.venue.open_orders()
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
            return listed, differences_of(trader.account, theirs, resting)
    raise AssertionError("the loop returns")


def differences_of(account: Account, theirs: Mapping[str, QtyE2], resting: Sequence[VenueOrder]) -> list[str]:
    """Where our books and the exchange's own disagree; empty is agreement."""
    ours = account.portfolio.positions
    differences = [
        f"position {ticker}: ours {format_qty(ours.get(ticker, _NONE))}, "
        f"the exchange's {format_qty(theirs.get(ticker, _NONE))}"
        for ticker in sorted(ours.keys() | theirs.keys())
        if ours.get(ticker, 0) != theirs.get(ticker, 0)
    ]
    rests = {order.client_order_id: order.leaves for order in resting}
    # An UNKNOWN order is no disagreement: we do not claim to know; it is counted apart and ends with exit code 4.
    works = {
        order.client_order_id: order.leaves
        for order in account.open_orders()
        if order.status is not OrderStatus.UNKNOWN
    }
    return differences + [
        f"order {name}: we leave {format_qty(works.get(name, _NONE))}, "
        f"the exchange {format_qty(rests.get(name, _NONE))}"
        for name in sorted(rests.keys() | works.keys())
        if rests.get(name, 0) != works.get(name, 0)
    ]


def forget_unbegun(directory: Path) -> None:
    """Leave no directory behind for a run that never began."""
    if (directory / "audit").exists() or next(directory.glob("*/audit"), None) is not None:
        return
    (directory / "run.json").unlink(missing_ok=True)
    for one in (directory / "exchange", directory):
        try:
            one.rmdir()
        except OSError:  # something is in it, or it was never made
            continue


def run_directory(args: argparse.Namespace, state: Path, kind: str = "paper") -> Path:
    """Where the run keeps everything: `--dir`, else the first free `<kind>-<seed>-<n>` below *state*."""
    if args.dir:
        chosen = Path(args.dir)
        if chosen.exists() and not chosen.is_dir():
            raise BadInput(
                f"{args.dir!r} is no directory", hint="name the run's directory; a new one is made"
            )
        if next(chosen.glob("audit_*.log"), None) is not None:
            raise BadInput(
                f"{args.dir!r} is an audit log", hint="name the run's directory, which holds its log"
            )
        if not (chosen / "run.json").exists() and chosen.is_dir() and any(chosen.iterdir()):
            raise BadInput(
                f"{args.dir!r} holds other things than a run",
                hint="name a new directory, or the one that an earlier run printed",
            )
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
        return chosen
    for number in itertools.count(1):
        chosen = state / f"{kind}-{args.seed}-{number}"
        try:
            chosen.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            continue
        return chosen
    raise AssertionError("itertools.count does not end")
