"""What a search is asked on the command line, the same for every verb that searches."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decimal import Decimal

TIMES = "times: Unix seconds, or ISO 8601 with an offset (…Z, …+01:00); --from is included, --to is not\n"


def add_conditions(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the options that `conditions` reads."""
    parser.add_argument("--from", dest="start", metavar="TIME", help="not before this")
    parser.add_argument("--to", dest="end", metavar="TIME", help="before this")
    parser.add_argument(
        "--type",
        metavar="TYPE",
        action="append",
        help="ORDER, TRADE, RISK_VIOLATION, API_CALL, …; may be repeated, then any of them",
    )
    parser.add_argument("--user", metavar="ID")
    parser.add_argument("--component", metavar="NAME")
    parser.add_argument("--order-id", metavar="ID", help="the venue's order id or our client order id")
    parser.add_argument(
        "--limit", metavar="N", type=int, help="stop after N records; by default all are given"
    )
    parser.add_argument("--newest-first", action="store_true")


def conditions(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `iter_query` that *args* stand for."""
    return {
        "start_time": _moment(args.start, "--from"),
        "end_time": _moment(args.end, "--to"),
        "event_type": args.type,
        "user_id": args.user,
        "max_results": args.limit,
        "component": args.component,
        "order_id": args.order_id,
        "newest_first": args.newest_first,
    }


def _moment(text: str | None, option: str) -> Decimal | None:
    if text is None:
        return None
    from holdfast.audit.saved import read_moment

    return read_moment(text, option)
