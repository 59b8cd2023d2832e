"""`holdfast lake sql`: questions to a lake; answers as a table, CSV, JSON, Parquet or a picture."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from holdfast.cli.audit.verbs import Verbs, path_argument
from holdfast.cli.lake.project import add_lake_argument, lake_of
from holdfast.cli.output import on_terminal, print_csv, print_json, print_table, printable, tell
from holdfast.core.errors import EXIT_OK, BadInput

_EXAMPLES = """examples:
  holdfast lake sql "SELECT event_type, count(*) FROM risk_events GROUP BY ALL" --lake data/lake
  holdfast lake sql --saved breaker_history --lake data/lake --from 2026-11-20T00:00:00Z --csv
  holdfast lake sql --saved limit_use --lake data/lake --plot limits.png
  holdfast lake sql --list

DuckDB's SQL; every table is a view: risk_events, orders, fills, api_calls, decisions; "DESCRIBE fills"
names its columns. Nothing can be changed, and no other file read. --plot draws lines over time or bars by name, PNG or SVG.

exit code: 0 answered; 1 the question cannot be asked; 3 a table is damaged; 5 the store cannot be reached
"""
_MOST_ROWS = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    sql = verbs.add("sql", "ask a lake in SQL, or a saved question", _EXAMPLES, _sql)
    sql.add_argument("sql", metavar="SQL", nargs="?", help="one statement that reads")
    add_lake_argument(sql)
    sql.add_argument("--saved", metavar="NAME", help="a saved question instead of SQL")
    sql.add_argument("--param", metavar="NAME=VALUE", action="append", default=[], help="of a saved question")
    sql.add_argument("--list", action="store_true", help="print the saved questions")
    sql.add_argument(
        "--from", dest="since", metavar="TIME", help="rows from then on; ISO 8601 or Unix seconds"
    )
    sql.add_argument("--to", dest="until", metavar="TIME", help="rows before then")
    sql.add_argument("--csv", action="store_true", help="print CSV")
    sql.add_argument("--parquet", metavar="FILE", type=path_argument, help="write the answer to a new file")
    sql.add_argument(
        "--plot", metavar="FILE", type=path_argument, help="draw the answer into FILE.png or FILE.svg"
    )
    sql.add_argument(
        "--limit",
        metavar="N",
        type=int,
        default=_MOST_ROWS,
        help=f"print at most N rows; default {_MOST_ROWS}",
    )


def _sql(args: argparse.Namespace) -> int:
    from holdfast.lake.saved import ALL, SAVED, parameters_of, saved_sql
    from holdfast.lake.sql import Lake

    if args.list:
        _print_saved(args, SAVED.values())
        return EXIT_OK
    given = _parameters(args.param)
    if (args.sql is None) == (args.saved is None):
        raise BadInput("ask one question: SQL or --saved NAME", hint="--list prints the saved ones")
    if args.saved is not None:
        query = saved_sql(args.saved)
        text, given, title, drawn = query.sql, parameters_of(query, given), query.question, query.drawn
    else:
        text, title, drawn = args.sql, textwrap.shorten(args.sql, 100, placeholder=" …"), ALL
    since, until = _moment(args.since, "--from"), _moment(args.until, "--to")
    if args.csv and args.json:
        raise BadInput("--csv does not go with --json", hint="ask once for each")
    if args.limit < 0:
        raise BadInput(f"--limit {args.limit} is below 0", hint="0 prints the columns alone")
    with Lake(lake_of(args), since=since, until=until) as lake:
        printed = args.parquet is None and args.plot is None
        answer = lake.ask(text, given, most=args.limit + 1 if printed else None)
    if args.parquet is not None:
        _write_parquet(answer, args.parquet)
    if args.plot is not None:
        from holdfast.lake.plot import plot

        picture = plot(answer, args.plot, title, drawn)
        tell(f"{args.plot}: {picture.kind}, {len(picture.series)} series, {answer.num_rows} rows")
    if printed:
        _print(args, answer)
    return EXIT_OK


def _parameters(words: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise BadInput(f"--param {word!r} has no value", hint="--param NAME=VALUE")
        given[name] = value
    return given


def _moment(text: str | None, what: str) -> datetime | None:
    if text is None:
        return None
    from holdfast.audit.query import moment_ns
    from holdfast.audit.saved import read_moment

    try:
        return _EPOCH + timedelta(microseconds=moment_ns(read_moment(text, what), what) // 1_000)
    except OverflowError:
        raise BadInput(f"{what} {text!r} is no time of the years 1 to 9999", hint="in UTC") from None


def _print_saved(args: argparse.Namespace, queries: Any) -> None:
    for query in queries:
        if args.json:
            print_json(
                {**query._asdict(), "parameters": list(query.parameters), "drawn": query.drawn._asdict()}
            )
        else:
            print(f"{query.name}: {query.question}")
            for name in query.parameters:
                print(f"  --param {name}=…")
            print("\n".join(f"    {line}" for line in query.sql.splitlines()))


def _write_parquet(answer: Any, path: Path) -> None:
    from holdfast.lake.extras import load

    if path.exists():
        raise BadInput(f"{str(path)!r} is there already", hint="name another file, or move this one away")
    load("pyarrow.parquet").write_table(answer, path, compression="zstd")
    tell(f"{path}: {answer.num_rows} rows")


# -- printing -------------------------------------------------------------------------------------------------------


def _print(args: argparse.Namespace, answer: Any) -> None:
    columns: list[str] = answer.column_names
    shown = answer.slice(0, min(args.limit, answer.num_rows))
    if args.json:
        for row in shown.to_pylist():
            print_json({name: _plain(value) for name, value in row.items()})
    elif args.csv:
        print_csv(columns, _rows(shown))
    elif on_terminal():
        _print_table(columns, shown)
    else:
        print("\t".join(map(printable, columns)))
        for row in _rows(shown):
            print("\t".join(map(printable, row)))
    if answer.num_rows > args.limit:
        tell(
            f"there are more than these {args.limit} rows; --limit N prints more, --parquet FILE has them all"
        )


def _print_table(columns: list[str], answer: Any) -> None:
    numbers = ("int", "uint", "float", "double", "decimal")
    right = {at for at, field in enumerate(answer.schema) if str(field.type).startswith(numbers)}
    print_table(columns, _rows(answer), right=right)


def _rows(answer: Any) -> Iterator[list[str]]:
    for batch in answer.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield [_text(value) for value in row.values()]


def _text(value: object) -> str:
    plain = _plain(value)
    if plain is None:
        return ""
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, dict | list):
        import msgspec

        return msgspec.json.encode(plain).decode()
    return str(plain)


def _plain(value: object) -> Any:
    """A value as JSON holds it: times in ISO 8601 with Z, decimals as numbers."""
    from decimal import Decimal

    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        fields = cast("dict[object, object]", value)
        return {str(name): _plain(one) for name, one in fields.items()}
    if isinstance(value, list):
        return [_plain(one) for one in cast("list[object]", value)]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
