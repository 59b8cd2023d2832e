"""`holdfast audit cat | show | query`: the stored lines as they are, single records, or those that match."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from holdfast.cli.audit.conditions import TIMES, add_conditions, conditions
from holdfast.cli.audit.verbs import Verbs, path_argument, refuse_folder_of_logs, require_log
from holdfast.cli.output import on_terminal, print_csv, print_json, print_records, printable, tell
from holdfast.core.errors import EXIT_OK, AuditCorruption, BadInput

if TYPE_CHECKING:
    from holdfast.audit.query import AuditEntry

_CAT_EXAMPLES = """examples:
  holdfast audit cat logs/audit | wc -l
  holdfast audit cat logs/audit --hash | tail -1
"""
_SHOW_EXAMPLES = """examples:
  holdfast audit show logs/audit 48211
  holdfast audit show logs/audit 48211 48215 --json

exit code: 0 shown; 1 no such record; 3 the log is damaged where it was read
"""
_QUERY_EXAMPLES = f"""examples:
  all trades of a user on one day:
    holdfast audit query logs/audit --type TRADE --user desk-1 --from 2026-11-19T00:00:00Z --to 2026-11-20T00:00:00Z
  all violations since a moment, newest first:
    holdfast audit query logs/audit --type RISK_VIOLATION --from 1763596800 --newest-first
  one order from decision to fill, as JSON Lines:
    holdfast audit query logs/audit --order-id hf-1042 --json
  every halt and refusal from now on:
    holdfast audit query logs/audit --type STATE --type RISK_VIOLATION --follow
  a question that auditors ask, as CSV:
    holdfast audit query logs/audit --saved trades-of-user --param user=desk-1 --param day=2026-11-19 --format csv

A search reads records and checks no signatures: audit verify does, and audit export --proofs proves its rows.

exit code: 0 answered, also where nothing matches; 1 bad input; 3 the log is damaged where it was read;
130 after the Ctrl-C that ends --follow
{TIMES}"""

_FORMATS = ("table", "jsonl", "csv")
_RECORD_COLUMNS = ("sequence", "timestamp", "timestamp_ns", "event_type", "user_id", "component", "details")


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    cat = verbs.add(
        "cat", "print the stored lines as they are, in order, up to the head", _CAT_EXAMPLES, _cat
    )
    cat.add_argument("dir", metavar="DIR", type=path_argument)
    cat.add_argument(
        "--hash", action="store_true", help="put each line's leaf hash (64 hex) and a tab before it"
    )

    show = verbs.add("show", "print single records, by their sequence", _SHOW_EXAMPLES, _show)
    show.add_argument("dir", metavar="DIR", type=path_argument)
    show.add_argument("sequences", metavar="SEQ", type=int, nargs="+")

    query = verbs.add("query", "search the log", _QUERY_EXAMPLES, _query)
    query.add_argument("dir", metavar="DIR", type=path_argument, nargs="?")
    add_conditions(query)
    query.add_argument(
        "--format", choices=_FORMATS, help="table (the default), jsonl (the same as --json), or csv"
    )
    query.add_argument(
        "--follow", action="store_true", help="then print each new match as it becomes durable, until Ctrl-C"
    )
    query.add_argument("--saved", metavar="NAME", help="ask one of the questions of --list-saved")
    query.add_argument(
        "--param", metavar="KEY=VALUE", action="append", default=[], help="with --saved; may be repeated"
    )
    query.add_argument(
        "--list-saved", action="store_true", help="list the saved queries and their parameters"
    )


def _cat(args: argparse.Namespace) -> int:
    from holdfast.audit.format import leaf_hash
    from holdfast.audit.query import read_lines

    require_log(args.dir)
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


def _show(args: argparse.Namespace) -> int:
    from holdfast.audit.query import AuditEntry, read_records

    require_log(args.dir)
    for sequence in args.sequences:
        record = next(read_records(args.dir, start_seq=sequence), None) if sequence > 0 else None
        if record is None:
            raise BadInput(
                f"no record {sequence} in {str(args.dir)!r}",
                hint="sequences begin at 1; holdfast audit query DIR --newest-first --limit 1 shows the last",
            )
        if args.json:
            print_json(AuditEntry.of(record).to_dict())
        else:
            _print_fields(AuditEntry.of(record))
    return EXIT_OK


def _print_fields(entry: AuditEntry) -> None:
    """One record, a line for each of its fields."""
    time, sequence, type_, user, component, _ = _table_row(entry)
    print(printable("  ".join(filter(None, (time, sequence, type_, user, component)))))
    width = max(map(len, entry.details), default=0)
    for name, value in entry.details.items():
        print(printable(f"    {name:<{width}}  {_cell(value, 'table')}"))


def _query(args: argparse.Namespace) -> int:
    _refuse_what_does_not_go_together(args)
    if args.list_saved:
        return _list_saved(_format(args))
    if args.dir is None:
        raise BadInput("no log named", hint="holdfast audit query DIR …; --list-saved needs none")
    if args.follow:
        refuse_folder_of_logs(args.dir)  # one that is still empty may be waited on
        return _follow(args, conditions(args))
    require_log(args.dir)
    if args.saved is not None:
        return _saved(args)
    asked = conditions(args)
    from holdfast.audit.query import iter_query

    _print_entries(_first_noted(iter_query(args.dir, **asked)), _format(args))
    return EXIT_OK


def _refuse_what_does_not_go_together(args: argparse.Namespace) -> None:
    chosen = {
        name: bool(getattr(args, name.replace("-", "_")))
        for name in ("type", "user", "component", "order-id", "newest-first", "follow", "saved", "param")
    }
    chosen |= {"from": args.start is not None, "to": args.end is not None}
    if args.json and args.format not in {None, "jsonl"}:
        raise BadInput(f"--json does not go with --format {args.format}", hint="--json is --format jsonl")
    if args.saved is not None:
        others = [name for name, given in chosen.items() if given and name not in {"saved", "param"}]
        if others:
            raise BadInput(
                f"--saved does not go with --{others[0]}",
                hint="say it as --param; --list-saved shows which a question has",
            )
    elif args.param:
        raise BadInput("--param goes with --saved only", hint="--list-saved lists the questions")
    if args.follow and args.newest_first:
        raise BadInput(
            "--follow does not go with --newest-first", hint="what follows comes in the order of the log"
        )


def _format(args: argparse.Namespace) -> str:
    return "jsonl" if args.json else args.format or "table"


def _first_noted(entries: Iterator[AuditEntry]) -> Iterator[AuditEntry]:
    """*entries*; where there is none, that is said on stderr, so that a program that counts lines is not told."""
    first = next(entries, None)
    if first is None:
        tell("no record matches")
        return entries
    return itertools.chain((first,), entries)


# -- following ------------------------------------------------------------------------------------------------


def _follow(args: argparse.Namespace, asked: dict[str, Any]) -> int:
    import time

    from holdfast.audit import query
    from holdfast.audit.follow import follow

    limit = _limit(args)
    del asked["max_results"]
    del asked["newest_first"]
    wanted = query.conditions(**asked)
    query.LogReader(args.dir).check_types(wanted.types)
    matches = follow(args.dir, wanted, time.sleep)
    entries = (query.AuditEntry.of(match.record) for match in matches)
    _print_entries(itertools.islice(entries, limit), _format(args), flush=True)
    return EXIT_OK


def _limit(args: argparse.Namespace) -> int | None:
    """How many at most, in what the machine can count."""
    limit: int | None = args.limit
    if limit is None:
        return None
    if limit < 0:
        raise BadInput(f"--limit {limit} is not a count", hint="0 or more; without it all are given")
    return min(limit, sys.maxsize)


# -- saved queries --------------------------------------------------------------------------------------------


def _list_saved(format_: str) -> int:
    from holdfast.audit.saved import SAVED

    rows: list[dict[str, Any]] = [
        {
            "name": query.name,
            "question": query.question,
            "parameters": {one.name: one.meaning for one in query.parameters},
            "defaults": {one.name: one.default for one in query.parameters if one.default is not None},
        }
        for query in SAVED.values()
    ]
    if format_ != "table":
        _print_rows(("name", "question", "parameters", "defaults"), rows, format_)
        return EXIT_OK
    for query in SAVED.values():
        print(f"{query.name}\n    {query.question}")
        for one in query.parameters:
            default = (
                "" if one.default is None else f" (default {one.default})" if one.default else " (optional)"
            )
            print(f"    --param {one.name}=…  {one.meaning}{default}")
    return EXIT_OK


def _saved(args: argparse.Namespace) -> int:
    from holdfast.audit.query import LogReader
    from holdfast.audit.saved import answer, saved_query
    from holdfast.core.clock import SystemClock

    query = saved_query(args.saved)
    given: dict[str, str] = {}
    for text in args.param:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadInput(f"--param {text!r} is not KEY=VALUE", hint="for instance --param user=desk-1")
        if name in given:
            raise BadInput(f"--param {name} is said twice", hint="a question takes each parameter once")
        given[name] = value
    limit = _limit(args)
    rows = answer(query, LogReader(args.dir), given, now_ns=SystemClock().now_ns())
    count = _print_rows(query.columns, itertools.islice(rows, limit), _format(args))
    if not count:
        tell("no record answers that question")
    return EXIT_OK


# -- printing -------------------------------------------------------------------------------------------------


def _print_entries(entries: Iterable[AuditEntry], format_: str, *, flush: bool = False) -> None:
    if format_ == "table":
        columns = ("time", "sequence", "type", "user", "component", "details")
        print_records(columns, map(_table_row, entries), flush=flush)
    else:
        _print_rows(_RECORD_COLUMNS, (entry.to_dict() for entry in entries), format_, flush=flush)


def _print_rows(
    columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]], format_: str, *, flush: bool = False
) -> int:
    """Print *rows* and return how many there were."""
    counter = itertools.count()
    counted = (row for row, _ in zip(rows, counter, strict=False))
    if format_ == "jsonl":
        for row in counted:
            print_json(row)
            if flush:
                sys.stdout.flush()
    else:
        cells = (tuple(_cell(row.get(name), format_) for name in columns) for row in counted)
        (print_csv if format_ == "csv" else print_records)(columns, cells, flush=flush)
    return next(counter)


def _cell(value: Any, format_: str) -> str:
    if isinstance(value, str):
        return value
    if format_ == "table" and on_terminal() and isinstance(value, dict | list):
        import json

        return json.dumps(value, ensure_ascii=False)  # with blanks, where a line may break
    import msgspec

    return "" if value is None else msgspec.json.encode(value).decode()


def _table_row(entry: AuditEntry) -> tuple[str, ...]:
    from holdfast.core.clock import iso_utc

    return (
        iso_utc(entry.timestamp_ns),
        str(entry.sequence),
        entry.event_type,
        entry.user_id,
        entry.component,
        _cell(entry.details, "table"),
    )
