"""`holdfast audit cat | query`: the stored lines as they are, or the records that match."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli.audit.verbs import Verbs, refuse_folder_of_logs
from holdfast.cli.output import on_terminal, print_json, print_records, printable
from holdfast.core.errors import EXIT_OK, AuditCorruption, BadInput

if TYPE_CHECKING:
    from decimal import Decimal

    from holdfast.audit.query import AuditEntry

_CAT_EXAMPLES = """examples:
  holdfast audit cat logs/audit | wc -l
  holdfast audit cat logs/audit --hash | tail -1
"""
_QUERY_EXAMPLES = """examples:
  all trades of a user on one day:
    holdfast audit query logs/audit --type TRADE --user desk-1 --from 2026-11-19T00:00:00Z --to 2026-11-20T00:00:00Z
  all violations since a moment, newest first:
    holdfast audit query logs/audit --type RISK_VIOLATION --from 1763596800 --newest-first
  one order from decision to fill, as JSON Lines:
    holdfast audit query logs/audit --order-id hf-1042 --json

times: Unix seconds, or ISO 8601 with an offset (…Z, …+01:00); --from is included, --to is not
"""


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    cat = verbs.add(
        "cat", "print the stored lines as they are, in order, up to the head", _CAT_EXAMPLES, _cat
    )
    cat.add_argument("dir", metavar="DIR", type=Path)
    cat.add_argument(
        "--hash", action="store_true", help="put each line's leaf hash (64 hex) and a tab before it"
    )

    query = verbs.add("query", "search the log", _QUERY_EXAMPLES, _query)
    query.add_argument("dir", metavar="DIR", type=Path)
    query.add_argument("--from", dest="start", metavar="TIME", help="not before this")
    query.add_argument("--to", dest="end", metavar="TIME", help="before this")
    query.add_argument("--type", metavar="TYPE", help="ORDER, TRADE, RISK_VIOLATION, API_CALL, …")
    query.add_argument("--user", metavar="ID")
    query.add_argument("--component", metavar="NAME")
    query.add_argument("--order-id", metavar="ID", help="the venue's order id or our client order id")
    query.add_argument(
        "--limit", metavar="N", type=int, help="stop after N records; by default all are printed"
    )
    query.add_argument("--newest-first", action="store_true")


def _cat(args: argparse.Namespace) -> int:
    from holdfast.audit.format import leaf_hash
    from holdfast.audit.query import read_lines

    refuse_folder_of_logs(args.dir)
    out = sys.stdout.buffer
    batch: list[bytes] = []
    try:
        for line in read_lines(args.dir):
            if args.json and args.hash:
                batch.append(b'{"leaf":"%b","record":%b}\n' % (leaf_hash(line).hex().encode(), line))
            elif args.hash:
                batch.append(b"%b\t%b\n" % (leaf_hash(line).hex().encode(), line))
            else:
                batch.append(b"%b\n" % line)
            if len(batch) >= 1024:
                out.write(b"".join(batch))
                batch.clear()
    except AuditCorruption:
        out.write(b"".join(batch))  # everything before the damage is shown
        out.flush()
        raise
    out.write(b"".join(batch))
    out.flush()
    return EXIT_OK


def _query(args: argparse.Namespace) -> int:
    from holdfast.audit.query import iter_query

    refuse_folder_of_logs(args.dir)
    entries = iter_query(
        args.dir,
        start_time=_moment(args.start, "--from"),
        end_time=_moment(args.end, "--to"),
        event_type=args.type,
        user_id=args.user,
        max_results=args.limit,
        component=args.component,
        order_id=args.order_id,
        newest_first=args.newest_first,
    )
    first = next(entries, None)
    if first is None:
        _say_nothing_matched(args.type)
    entries = itertools.chain(() if first is None else (first,), entries)
    if args.json:
        for entry in entries:
            print_json(entry.to_dict())
        return EXIT_OK
    print_records(("time", "sequence", "type", "user", "component", "details"), map(_row, entries))
    return EXIT_OK


def _say_nothing_matched(type_: str | None) -> None:
    """On stderr, so that a program that counts lines is not told."""
    hint = (
        f"; types are written in capitals: --type {type_.upper()}" if type_ and type_ != type_.upper() else ""
    )
    print(f"holdfast: no record matches{printable(hint)}", file=sys.stderr, flush=True)


def _row(entry: AuditEntry) -> tuple[str, ...]:
    from holdfast.audit.format import encode_details
    from holdfast.core.clock import iso_utc

    if on_terminal():
        import json

        details = json.dumps(entry.details, ensure_ascii=False)  # with blanks, where a line may break
    else:
        details = encode_details(entry.details).decode()
    return (
        iso_utc(entry.timestamp_ns),
        str(entry.sequence),
        entry.event_type,
        entry.user_id,
        entry.component,
        details,
    )


def _moment(text: str | None, option: str) -> Decimal | None:
    """Unix seconds, or ISO 8601 with an offset, as exact Unix seconds."""
    if text is None:
        return None
    from datetime import datetime
    from decimal import Decimal, InvalidOperation

    from holdfast.audit.query import moment_ns

    try:
        seconds = Decimal(text)
    except InvalidOperation:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise BadInput(
                f"{option} {text!r} is neither Unix seconds nor an ISO 8601 time",
                hint="for instance 1763596800 or 2026-11-20T00:00:00Z",
            ) from None
        if moment.tzinfo is None:
            raise BadInput(
                f"{option} {text!r} names no time zone",
                hint=f"for UTC: {moment.isoformat()}Z",
            ) from None
        return Decimal(moment_ns(moment, option)).scaleb(-9)
    return seconds
