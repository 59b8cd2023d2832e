"""`holdfast paper`: a minute of trading without keys or money, and what it proves.

With `--desk options` it is an options desk on a paper broker instead, see `desk_session.py`.

The verb starts `holdfast exchange` as a child process, trades on it over real sockets with the same gate,
journal, breaker and client that trade for real, tells the story from the journal, compares its books with
the exchange's own, verifies the journal, and shows that a changed byte is found. It decides nothing: a run
that did not keep its promise ends with exit code 1.
"""

from __future__ import annotations

import argparse

_OF_OPTIONS = ("symbols", "day", "market_seconds", "layers", "reference", "iv_rank", "vix", "lake")
"""Flags that only the options desk has, by their names in the arguments."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `holdfast paper`."""
    from holdfast.cli.output import add_json_argument

    parser.epilog = (
        "examples:\n"
        "  holdfast paper                         the seeded market, a minute, the whole story\n"
        "  holdfast paper --seed 7 --speed max    another market, as fast as it goes\n"
        "  holdfast paper --tape DIR              a recording instead of the seeded market\n"
        "  holdfast paper --dir run/paper-1-1     take an earlier run up again\n"
        "  holdfast paper --strategy my_bot:Bot   your own strategy, class Bot of ./my_bot.py (docs/strategy.md)\n"
        "  holdfast paper --desk options          a day of an options desk on a seeded chain\n"
        "  holdfast paper --desk options --tape options --day 20230803\n"
        "  holdfast paper --exchange URL --key-id ID --pem FILE    on an exchange that runs already\n\n"
        "Ctrl-C leaves resting orders and lists them; --cancel-on-exit cancels them.\n"
        "exit codes: 0 the run kept its promise · 1 it did not, or bad input · 3 the journal is damaged ·\n"
        "4 an order is still unknown · 5 the exchange cannot be reached"
    )
    parser.add_argument(
        "--desk",
        choices=("kalshi", "options"),
        default="kalshi",
        help="what is traded: event contracts (default), or option structures",
    )
    _add_market_arguments(parser)
    run_group = parser.add_argument_group("the run")
    run_group.add_argument(
        "--dir", type=_path, metavar="DIR", help="run directory; an existing one is taken up again"
    )
    run_group.add_argument(
        "--strategy",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="trade this class instead of the four examples (repeatable)",
    )
    run_group.add_argument("--config", type=_path, metavar="FILE", help="limits from this holdfast.toml")
    run_group.add_argument("--cancel-on-exit", action="store_true", help="cancel resting orders at the end")
    _add_desk_arguments(parser)
    add_json_argument(parser)


def _add_market_arguments(parser: argparse.ArgumentParser) -> None:
    """Which market, how fast, how long."""
    from holdfast.cli.exchange import read_secs

    market = parser.add_argument_group("the market")
    market.add_argument("--seed", type=int, default=1, help="of the seeded market and its faults (default 1)")
    market.add_argument("--tape", type=_path, metavar="PATH", help="trade a recording: a folder or one file")
    market.add_argument(
        "--speed",
        type=_speed,
        default=None,
        metavar="N|max",
        help="market seconds per wall second (default 20; tapes and options: max)",
    )
    market.add_argument(
        "--seconds",
        type=read_secs,
        default=None,
        help="stop after this much wall time (default 60; tapes and options: to the end)",
    )
    market.add_argument("--exchange", metavar="URL", help="join a running exchange instead of starting one")
    market.add_argument("--key-id", help="with --exchange: the API key it printed")
    market.add_argument(
        "--pem", type=_path, metavar="FILE", help="with --exchange: the private key file it printed"
    )


def _add_desk_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the options desk."""
    from holdfast.cli.exchange import read_day, read_secs

    desk = parser.add_argument_group("--desk options")
    desk.add_argument(
        "--symbols", metavar="A,B", help="underlyings (default SPY,QQQ,IWM,SPX; of a tape all of it)"
    )
    desk.add_argument(
        "--day",
        type=read_day,
        metavar="YYYYMMDD",
        help="of the tape (default: every one, one after the other)",
    )
    desk.add_argument(
        "--market-seconds", type=read_secs, metavar="S", help="stop when the market has run so long"
    )
    desk.add_argument(
        "--layers",
        metavar="A,B",
        help="roll out step by step: breaker, then stops, then limits (default: all three)",
    )
    desk.add_argument(
        "--reference",
        type=_path,
        metavar="FILE",
        help="IV rank and VIX from this file; none refuses every entry",
    )
    desk.add_argument("--iv-rank", metavar="N", help="the same IV rank for every symbol, recorded as assumed")
    desk.add_argument("--vix", metavar="N", help="the VIX, recorded as assumed")
    desk.add_argument(
        "--lake", metavar="URI", help="where risk events go (default: DIR/lake); none for nowhere"
    )


def _speed(text: str) -> str:
    """As the exchange will read it, checked before anything is started."""
    from holdfast.cli.exchange import read_speed

    read_speed(text)
    return text


def _path(text: str) -> str:
    """One that was named."""
    from holdfast.cli.audit.verbs import path_argument

    path = str(path_argument(text))
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(
            f"{path!r} is no UTF-8 text, and a run writes it down: rename it"
        ) from error
    return path


def run(args: argparse.Namespace) -> int:
    """Run it; the exit code."""
    if args.desk == "options":
        from holdfast.cli.paper.desk_session import run_desk_session

        return run_desk_session(args)
    from holdfast.cli.paper.session import run_session
    from holdfast.core.errors import BadInput

    given = next((name for name in _OF_OPTIONS if getattr(args, name) is not None), None)
    if given is not None:
        flag = "--" + given.replace("_", "-")
        raise BadInput(f"{flag} belongs to --desk options", hint=f"add --desk options, or leave {flag} out")
    return run_session(args)
