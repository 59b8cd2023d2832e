"""`holdfast exchange`: the paper exchange alone, for any client that speaks Kalshi's protocol.

With `--desk options` it is the paper option broker instead, see `cli/broker.py`.

It prints where it listens and the throw-away key that may trade there, then serves until Ctrl-C, until its time is
over (`--seconds`), or until its stdin closes (`--exit-with-stdin`, so that it never outlives its parent). With both,
the market ends in time and its books can be read until the parent goes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdfast.cli import broker
from holdfast.cli.audit.verbs import path_argument
from holdfast.cli.output import add_json_argument, print_json, quiet_stderr
from holdfast.core.clock import SystemClock
from holdfast.core.errors import EXIT_OK, BadInput

if TYPE_CHECKING:
    from holdfast.venues.paper.events import Feed
    from holdfast.venues.paper.exchange import Endpoints, PaperExchange

_NANOS = 1_000_000_000
_LONGEST_SECS = 366 * 24 * 3600
_ALONE_SECS = 24 * 3600
"""Market time of the seeded market where no --seconds is given."""

_EPILOG = """\
examples:
  holdfast exchange                                the seeded market on a free port
  holdfast exchange --tape game.parquet --speed max
  holdfast exchange --json --faults drop=0.02,gap=0.001 --dedup none
  holdfast exchange --faults-at 120:reads_500=5,240:drop_next_order=1 --seconds 60
  holdfast exchange --desk options --tape data/options --day 20151223 --speed max

faults: 5xx_before 5xx_after drop hang garbage 429 dup gap, each with a rate from 0 to 1; scripted ones by
market second: reads_500 reads_429 reads_hang reads_garbage orders_500 orders_500_after orders_429 cancels_500
drop_next_order drop_next_resting hang_next_order garbage_next_order drop_next_cancel dup_next_fill gap_next_frame

faults of --desk options: 500 500_after drop hang garbage, with rates; by market second: reads_500 reads_hang
reads_garbage orders_500 orders_500_after orders_hang orders_garbage drop_next_order drop_next_cancel cancels_500
disconnect disconnect_mid_combo
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "--desk",
        choices=("kalshi", "options"),
        default="kalshi",
        help="what is traded: event contracts (default), or options on stocks and indices",
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: 127.0.0.1)")
    parser.add_argument(
        "--tape",
        type=path_argument,
        metavar="PATH",
        help="play a recording: a parquet file or a folder, here or in $HOLDFAST_DATA",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the seeded market, ids and faults (default: 0)"
    )
    parser.add_argument(
        "--speed",
        type=read_speed,
        default=20.0,
        metavar="N|max",
        help="market seconds per second (default: 20)",
    )
    parser.add_argument(
        "--seconds", type=read_secs, metavar="S", help="end the market after S seconds, then stop"
    )
    parser.add_argument(
        "--market-seconds", type=read_secs, metavar="S", help="end the market after S seconds of market time"
    )
    parser.add_argument(
        "--start",
        type=_start,
        metavar="TIME",
        help="when the seeded market begins: ISO 8601 or Unix seconds (default: now; tapes keep theirs)",
    )
    parser.add_argument(
        "--hold", action="store_true", help="market time stands still while nobody follows holdfast_clock"
    )
    parser.add_argument("--faults", default="", metavar="NAME=RATE,…", help="random faults, seeded by order")
    parser.add_argument(
        "--faults-at",
        default="",
        metavar="SECS:NAME=N,…",
        help="faults of the next N requests by market second",
    )
    parser.add_argument(
        "--dedup",
        choices=("open-only", "all", "none"),
        default="open-only",
        help="orders a repeated client order id is refused against (default: open-only)",
    )
    parser.add_argument("--tier", default="paper", help="rate limits: basic … prime, or paper (default)")
    parser.add_argument(
        "--dir",
        type=path_argument,
        metavar="DIR",
        help="key file and memory; the same DIR takes a market up again (default: a temporary one)",
    )
    parser.add_argument("--control", action="store_true", help="serve POST /holdfast/faults")
    broker.add_arguments(parser)
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input closes")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    if not 0 <= args.port <= 65_535:
        raise BadInput(f"port {args.port} is outside 0 to 65535", hint="0 takes a free one")
    broker.refuse_others_flags(args)
    if args.desk == "options":
        return broker.run(args, _stop_with_stdin)
    return asyncio.run(_serve(args))


def read_speed(text: str) -> float | None:
    """Market seconds per second, None for "max"."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'max'") from None
    if not 0 < speed <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is outside 0 to 1,000,000")
    return speed


def read_secs(text: str) -> float:
    """A span of time above 0, in seconds."""
    try:
        secs = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < secs <= _LONGEST_SECS:
        raise argparse.ArgumentTypeError(f"{text} is outside 0 to {_LONGEST_SECS:,} seconds")
    return secs


def read_day(text: str) -> int:
    """A day as YYYYMMDD, with or without hyphens."""
    digits = text.replace("-", "")
    if not digits.isdecimal() or len(digits) != len("YYYYMMDD"):
        raise argparse.ArgumentTypeError(f"{text!r} is no day such as 20230803")
    return int(digits)


def _start(text: str) -> int:
    """A moment as UTC ns."""
    try:
        when = datetime.fromtimestamp(int(text), UTC) if text.isdecimal() else datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):  # which of them depends on how far off the number is
        raise argparse.ArgumentTypeError(f"{text!r} is neither ISO 8601 nor Unix seconds") from None
    if when.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} names no time zone; add Z or an offset")
    return int(when.timestamp()) * _NANOS


def _feed(args: argparse.Namespace) -> Feed:
    if args.tape is not None:
        from holdfast.config import find_recording

        with quiet_stderr():
            from holdfast.venues.paper.tape import open_feed

            return open_feed(find_recording(args.tape))
    from holdfast.venues.paper.market import DURATION_NS, SeededMarket
    from holdfast.venues.paper.memory import remembered_start

    secs = _ALONE_SECS if args.seconds is None or args.speed is None else args.seconds * args.speed
    secs = args.market_seconds or secs
    # A client's own clock must agree with the market's, or its expirations and closing times mean nothing.
    start_ns = args.start
    if start_ns is None and args.dir is not None:
        start_ns = remembered_start(args.dir)
    if start_ns is None:
        start_ns = SystemClock().now_ns() // _NANOS * _NANOS
    # Seeded by an explicit number so that a run can be repeated; nothing secret is drawn from it.
    source = random.Random(args.seed)  # noqa: S311  invented prices, not keys
    return SeededMarket(source, start_ns=start_ns, duration_ns=max(DURATION_NS, round(secs * _NANOS)))


async def _serve(args: argparse.Namespace) -> int:
    from holdfast.execution.venue import DedupProfile
    from holdfast.venues.paper.exchange import PaperExchange
    from holdfast.venues.paper.faults import FaultScript, read_rates, read_script
    from holdfast.venues.paper.memory import Memory

    feed = _feed(args)
    memory = None
    if args.dir is not None:
        memory = Memory(args.dir, f"{feed.describe()}, seed {args.seed}, dedup {args.dedup}", feed.start_ns)
    exchange = PaperExchange(
        feed,
        seed=args.seed,
        dedup=DedupProfile(args.dedup),
        faults=read_rates(args.faults),
        script=FaultScript(read_script(args.faults_at, feed.start_ns)),
        speed=args.speed,
        seconds=args.seconds,
        market_secs=args.market_seconds,
        hold=True if args.hold else None,
        tier=args.tier,
        directory=args.dir,
        control=args.control,
        memory=memory,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    endpoints = await exchange.start(args.port, args.host)
    try:
        _announce(args, feed.describe(), endpoints)
        if args.exit_with_stdin:
            _stop_with_stdin(loop, stop)
        await _until_over(args, exchange, stop)
    finally:
        await exchange.stop()
    return EXIT_OK


async def _until_over(args: argparse.Namespace, exchange: PaperExchange, stop: asyncio.Event) -> None:
    """Return when told to stop, or when the market is over and nobody may still want to read its books."""
    stopped = asyncio.create_task(stop.wait())
    over = asyncio.create_task(exchange.over())
    try:
        await asyncio.wait({stopped, over}, return_when=asyncio.FIRST_COMPLETED)
        if over.done():
            over.result()  # a feed that turned out damaged ends the command here, by name
            if args.seconds is None or args.exit_with_stdin:
                await stopped
    finally:
        for task in (stopped, over):
            task.cancel()


def _announce(args: argparse.Namespace, feed: str, endpoints: Endpoints) -> None:
    if args.json:
        print_json(
            {
                "rest": endpoints.rest,
                "ws": endpoints.ws,
                "key_id": endpoints.key_id,
                "pem": str(endpoints.pem_path),
            }
        )
    else:
        pace = "as fast as its followers" if args.speed is None else f"{args.speed:g} times wall time"
        print(f"paper exchange: {feed}, {pace}; Ctrl-C stops it")
        print(f"export KALSHI_BASE_URL={endpoints.rest}")
        print(f"export KALSHI_WS_URL={endpoints.ws}")
        print(f"export KALSHI_API_KEY_ID={endpoints.key_id}")
        print(f"export KALSHI_PRIVATE_KEY_PATH={endpoints.pem_path}")
    # The line is what a parent waits for.
    sys.stdout.flush()


def _stop_with_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set *stop* once standard input is closed; whatever is written to it is ignored."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        # The loop is gone already where something else ended the command first.
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=watch, name="stdin", daemon=True).start()
