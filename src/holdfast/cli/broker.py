"""`holdfast exchange --desk options`: the paper option broker alone, for any client that speaks its wire.

It prints where it listens and the token that may trade there, then serves until Ctrl-C, until its time is over
(`--seconds`), or until its stdin closes (`--exit-with-stdin`). With `--dir` its books survive its death.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli.output import print_json, quiet_stderr
from holdfast.core.errors import EXIT_OK, BadInput
from holdfast.core.money import parse_money

if TYPE_CHECKING:
    from holdfast.venues.broker.feed import Feed
    from holdfast.venues.broker.server import BrokerServer, Endpoints

StopWithStdin = Callable[[asyncio.AbstractEventLoop, asyncio.Event], None]
_MILLION = 1_000_000
_FINAL_TICK_SECS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that only this desk has."""
    group = parser.add_argument_group("--desk options")
    group.add_argument(
        "--symbols", default="SPY,SPX", help="of the seeded chain: SPY QQQ IWM SPX (default: SPY,SPX)"
    )
    group.add_argument("--days", type=int, default=1, help="sessions of the seeded chain (default: 1)")
    group.add_argument(
        "--day", type=_day, default=0, metavar="YYYYMMDD", help="play this day of a tape alone, or the last"
    )
    group.add_argument("--cash", default="100000", help="opening balance in dollars (default: 100000)")
    group.add_argument(
        "--assign-at",
        default="",
        metavar="SECS:TICKER=N,…",
        help="assign N short contracts early at a market second",
    )
    group.add_argument(
        "--assign-rate",
        default="0",
        metavar="RATE",
        help="chance per minute that a short without time value, deep in the money, is assigned (default: 0)",
    )


def _day(text: str) -> int:
    from holdfast.venues.broker.tape import LAST_DAY

    if text != "last" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no day such as 20230803, nor last")
    return LAST_DAY if text == "last" else int(text)


_DEFAULTS = {
    "options": {
        "symbols": "SPY,SPX",
        "days": 1,
        "day": 0,
        "cash": "100000",
        "assign_at": "",
        "assign_rate": "0",
    },
    "kalshi": {"dedup": "open-only", "tier": "paper", "control": False},
}
"""Flags that only one desk has, by their names in the arguments."""


def refuse_others_flags(args: argparse.Namespace) -> None:
    """A flag of the other desk would be ignored without a word.

    Raises:
        BadInput: One was given.
    """
    for desk, defaults in _DEFAULTS.items():
        given = [name for name, default in defaults.items() if getattr(args, name) != default]
        if given and desk != args.desk:
            flag = "--" + given[0].replace("_", "-")
            raise BadInput(f"{flag} belongs to --desk {desk}, not to --desk {args.desk}")


def run(args: argparse.Namespace, stop_with_stdin: StopWithStdin) -> int:
    """Serve until told to stop."""
    return asyncio.run(_serve(args, stop_with_stdin))


def _feed(args: argparse.Namespace) -> Feed:
    unused = ("day",) if args.tape is None else ("symbols", "days")
    given = next((name for name in unused if getattr(args, name) != _DEFAULTS["options"][name]), None)
    if given is not None:
        market = "the seeded chain" if args.tape is None else "a tape"
        raise BadInput(f"--{given} says nothing to {market}", hint=f"leave --{given} out")
    if args.tape is not None:
        from holdfast.venues.broker.tape import OptionTape

        with quiet_stderr():
            return OptionTape(_recording(args.tape), day=args.day)
    from holdfast.venues.broker.chain import DEFAULT_START_NS, SeededChain

    symbols = [name.strip() for name in args.symbols.split(",") if name.strip()]
    start_ns = DEFAULT_START_NS if args.start is None else args.start
    return SeededChain(args.seed, start_ns=start_ns, days=args.days, symbols=symbols)


def _recording(path: Path) -> Path:
    """Where *path* is: as given, or below the folder of recordings, which is itself often called data."""
    from holdfast.config import find_recording

    found = find_recording(path)
    if not found.exists() and path.parts[:1] == ("data",):
        found = find_recording(Path(*path.parts[1:]))
    return found


def _rate(text: str) -> int:
    """Parts per million of a rate from 0 to 1."""
    try:
        rate = Decimal(text)
    except InvalidOperation:
        rate = Decimal(-1)
    if not (rate.is_finite() and 0 <= rate <= 1):
        raise BadInput(f"--assign-rate {text!r} is no rate from 0 to 1", hint="such as 0.01")
    return int(rate * _MILLION)


async def _serve(args: argparse.Namespace, stop_with_stdin: StopWithStdin) -> int:
    from holdfast.venues.broker.endings import read_assignments
    from holdfast.venues.broker.faults import Faults, read_rates, read_script
    from holdfast.venues.broker.memory import Memory
    from holdfast.venues.broker.server import BrokerServer

    feed = _feed(args)
    listings = {listing.ticker: listing for listing in feed.listings}
    assignments = read_assignments(args.assign_at, feed.start_ns, listings)
    faults = Faults(args.seed, read_rates(args.faults), read_script(args.faults_at, feed.start_ns))
    cash, assign_ppm = parse_money(args.cash, "--cash"), _rate(args.assign_rate)
    if cash < 0:
        raise BadInput(f"--cash {args.cash} is below 0", hint="an account begins with what is its own")
    speed = args.speed
    market_secs = args.market_seconds
    if args.seconds is not None and speed is not None:
        market_secs = min(market_secs or args.seconds * speed, args.seconds * speed)
    memory = None
    if args.dir is not None:
        named = f"{feed.describe()}, seed {args.seed}, cash {args.cash}, assignments {args.assign_at!r} {assign_ppm}"
        memory = Memory(args.dir, named, feed.start_ns)
    server = BrokerServer(
        feed,
        seed=args.seed,
        cash=cash,
        assignments=assignments,
        assign_ppm=assign_ppm,
        faults=faults,
        speed=speed,
        market_secs=market_secs,
        hold=True if args.hold else None,
        memory=memory,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    endpoints = await server.start(args.port, args.host)
    try:
        _announce(args, server, endpoints, feed)
        if args.exit_with_stdin:
            stop_with_stdin(loop, stop)
        await _until_over(args, server, stop)
    finally:
        await server.stop()
    return EXIT_OK


async def _until_over(args: argparse.Namespace, server: BrokerServer, stop: asyncio.Event) -> None:
    """Return when told to stop, or when the market is over and nobody may still want to read its books."""
    stopped, over = asyncio.create_task(stop.wait()), asyncio.create_task(server.over())
    try:
        either = {stopped, over}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED, timeout=_wall_limit(args))
        if not stopped.done() and not over.done():
            server.finish()
            # Who follows is told by a last tick; where nobody does, or it hangs, that never comes.
            grace = None if args.exit_with_stdin else _FINAL_TICK_SECS
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED, timeout=grace)
        if over.done():
            over.result()  # a feed that turned out damaged ends the command here, by name
            if args.seconds is None or args.exit_with_stdin:
                await stopped
    finally:
        for task in (stopped, over):
            task.cancel()


def _wall_limit(args: argparse.Namespace) -> float | None:
    """Wall seconds after which an unlimited market ends."""
    return args.seconds if args.speed is None else None


def _announce(args: argparse.Namespace, server: BrokerServer, endpoints: Endpoints, feed: Feed) -> None:
    if args.json:
        print_json(
            {
                "ws": endpoints.ws,
                "token": endpoints.token,
                "clock": server.engine.now_ns,
                "market": server.market,
                "symbols": list(dict.fromkeys(listing.underlying for listing in feed.listings)),
                "days": {str(day): symbols for day, symbols in feed.recorded.items()},
            }
        )
    else:
        pace = "as fast as its followers" if args.speed is None else f"{args.speed:g} times wall time"
        print(f"paper option broker: {server.market}, {pace}; Ctrl-C stops it")
        print(f"ws: {endpoints.ws}")
        print(f"token: {endpoints.token}")
    # The line is what a parent waits for.
    sys.stdout.flush()
