"""`holdfast paper`: a minute of trading without keys or money, and what it proves.

The verb starts `holdfast exchange` as a child process, trades on it over real sockets with the same gate,
journal, breaker and client that trade for real, tells the story from the journal, compares its books with
the exchange's own, verifies the journal, and shows that a changed byte is found. It decides nothing: a run
that did not keep its promise ends with exit code 1.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe `holdfast paper`."""
    from holdfast.cli.exchange import read_secs, read_speed
    from holdfast.cli.output import add_json_argument

    def speed(text: str) -> str:
        """As the exchange will read it, checked before anything is started."""
        read_speed(text)
        return text

    parser.epilog = (
        "examples:\n"
        "  holdfast paper                         the seeded market, a minute, the whole story\n"
        "  holdfast paper --seed 7 --speed max    another market, as fast as it goes\n"
        "  holdfast paper --tape DIR              a recording instead of the seeded market\n"
        "  holdfast paper --dir run/paper-1-1     take an earlier run up again\n"
        "  holdfast paper --strategy my_bot:Bot   your own strategy, class Bot of ./my_bot.py (docs/strategy.md)\n"
        "  holdfast paper --exchange URL --key-id ID --pem FILE    on an exchange that runs already\n\n"
        "Ctrl-C leaves resting orders and lists them; --cancel-on-exit cancels them.\n"
        "exit codes: 0 the run kept its promise · 1 it did not, or bad input · 3 the journal is damaged ·\n"
        "4 an order is still unknown · 5 the exchange cannot be reached"
    )
    market = parser.add_argument_group("the market")
    market.add_argument("--seed", type=int, default=1, help="of the seeded market and its faults (default 1)")
    market.add_argument("--tape", metavar="PATH", help="trade a recording: a folder or one file")
    market.add_argument(
        "--speed",
        type=speed,
        default=None,
        metavar="N|max",
        help="market seconds per wall second (default 20; tapes: max)",
    )
    market.add_argument(
        "--seconds",
        type=read_secs,
        default=None,
        help="stop after this much wall time (default 60; tapes: to the end)",
    )
    market.add_argument("--exchange", metavar="URL", help="join a running exchange instead of starting one")
    market.add_argument("--key-id", help="with --exchange: the API key it printed")
    market.add_argument("--pem", metavar="FILE", help="with --exchange: the private key file it printed")
    run_group = parser.add_argument_group("the run")
    run_group.add_argument("--dir", metavar="DIR", help="run directory; an existing one is taken up again")
    run_group.add_argument(
        "--strategy",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="trade this class instead of the four examples (repeatable)",
    )
    run_group.add_argument("--config", metavar="FILE", help="limits from this holdfast.toml")
    run_group.add_argument("--cancel-on-exit", action="store_true", help="cancel resting orders at the end")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run it; the exit code."""
    from holdfast.cli.paper.session import run_session

    return run_session(args)
