"""`holdfast audit append | cat | query | verify | recover`: the log from the command line.

Everything but `append` and `recover` only reads, takes no lock and may run beside a live writer. Each
subcommand imports what it needs and nothing else, so that it starts in well under 100 ms.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from holdfast.cli.output import add_json_argument, on_terminal, print_json, print_records, printable
from holdfast.core.errors import EXIT_INTEGRITY, EXIT_OK, EXIT_USER_ERROR, AuditCorruption, BadInput

if TYPE_CHECKING:
    from decimal import Decimal

    from holdfast.audit.query import AuditEntry
    from holdfast.audit.verify import VerifyReport
    from holdfast.audit.wal import Entry, WriteAheadLog

BATCH_BYTES = 1 << 20
"""`append` takes at most this much of what stdin already holds into one batch with one sync."""

_EXAMPLES = """examples:
  holdfast audit verify logs/audit
  holdfast audit query logs/audit --type TRADE --user desk-1 --from 2026-11-19T00:00:00Z --to 2026-11-20T00:00:00Z
  holdfast audit cat logs/audit | jq 'select(.type == "API_CALL" and .details.latency_ms > 1000)'
"""
_APPEND_EXAMPLES = """examples:
  echo '{"type":"NOTE","user":"desk-1","details":{"text":"limits reviewed"}}' | holdfast audit append logs/audit
  my-bot | holdfast audit append logs/audit    # one "ACK <sequence> <leaf hash>" per line, once on disk

each line: {"type": …, "user": …, "component": … (optional), "details": {…}}
exit code: 0 every line was written; 1 some line was bad (ERR on stderr); 4 the log cannot be written
"""
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
_VERIFY_EXAMPLES = """examples:
  holdfast audit verify logs/audit
  holdfast audit verify run/*/audit --json

exit code: 0 intact, also while a torn tail waits for recovery; 3 damaged: the first bad sequence is named
"""
_RECOVER_EXAMPLES = """examples:
  holdfast audit recover logs/audit

exit code: 0 ready for writing; 3 damaged, nothing was changed; 4 a writer is alive
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The five subcommands."""
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="audit_verb", metavar="append|cat|query|verify|recover", required=True)

    def sub(name: str, line: str, examples: str) -> argparse.ArgumentParser:
        child = verbs.add_parser(
            name,
            help=line,
            description=line[0].upper() + line[1:] + ".",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        child.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        add_json_argument(child)
        return child

    append = sub(
        "append", "write JSON Lines from standard input, acknowledging each once durable", _APPEND_EXAMPLES
    )
    append.add_argument("dir", metavar="DIR", type=Path, help="the log; made when it does not exist")
    append.add_argument("--group", metavar="NAME", help="let this group read the log, from now on")

    cat = sub("cat", "print the stored lines as they are, in order, up to the head", _CAT_EXAMPLES)
    cat.add_argument("dir", metavar="DIR", type=Path)
    cat.add_argument(
        "--hash", action="store_true", help="put each line's leaf hash (64 hex) and a tab before it"
    )

    query = sub("query", "search the log", _QUERY_EXAMPLES)
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

    verify = sub("verify", "check every byte of one or more logs", _VERIFY_EXAMPLES)
    verify.add_argument("dirs", metavar="DIR", type=Path, nargs="+")

    recover = sub(
        "recover", "open the log as a restart does: repair a torn tail, refuse damage", _RECOVER_EXAMPLES
    )
    recover.add_argument("dir", metavar="DIR", type=Path)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; its exit code."""
    verb: str = args.audit_verb
    return {"append": _append, "cat": _cat, "query": _query, "verify": _verify, "recover": _recover}[verb](
        args
    )


# -- append --------------------------------------------------------------------------------------------------


def _append(args: argparse.Namespace) -> int:
    from holdfast.audit.storage import share_with_group
    from holdfast.audit.wal import WriteAheadLog
    from holdfast.core.clock import SystemClock

    if args.group is not None:
        share_with_group(args.dir, args.group)
    log = WriteAheadLog(args.dir, clock=SystemClock())
    bad = 0
    try:
        for first_line, lines in _batches():
            bad += _append_batch(log, first_line, lines, as_json=args.json)
    finally:
        log.close()
    return EXIT_USER_ERROR if bad else EXIT_OK


def _batches() -> Iterator[tuple[int, list[bytes]]]:
    """What stdin holds, whole lines at a time, each batch with the number of its first line.

    One read takes whatever is there: a person's single line at once, a fast pipe in large batches that share
    one sync.
    """
    descriptor = sys.stdin.fileno()
    number, pieces = 1, list[bytes]()
    while block := os.read(descriptor, BATCH_BYTES):
        cut = block.rfind(b"\n")
        if cut < 0:
            # A line that goes on for megabytes is an error already; its rest is not kept.
            if sum(map(len, pieces)) < BATCH_BYTES:
                pieces.append(block)
            continue
        lines = b"".join([*pieces, block[:cut]]).split(b"\n")
        pieces = [block[cut + 1 :]]
        yield number, lines
        number += len(lines)
    if rest := b"".join(pieces):
        yield number, [rest]


def _append_batch(log: WriteAheadLog, first_line: int, lines: list[bytes], *, as_json: bool) -> int:
    """Write what is good of *lines* as one batch, then acknowledge it; how many were bad."""
    from holdfast.audit.wal import Level

    entries: list[Entry] = []
    numbers: list[int] = []
    errors: list[tuple[int, str]] = []
    for number, line in enumerate(lines, first_line):
        if not line.strip():
            continue
        try:
            entries.append(_parse_entry(line))
            numbers.append(number)
        except BadInput as why:
            errors.append((number, str(why)))
    leaves: list[bytes] = []
    sequences = log.append_many(entries, level=Level.DURABLE, leaves=leaves) if entries else []
    out: list[str] = []
    for number, sequence, leaf in zip(numbers, sequences, leaves, strict=True):
        if as_json:
            out.append(f'{{"ack":{sequence},"leaf":"{leaf.hex()}","line":{number}}}\n')
        else:
            out.append(f"ACK {sequence} {leaf.hex()[:16]}\n")
    sys.stdout.write("".join(out))
    sys.stdout.flush()
    for number, reason in errors:
        print(f"ERR {number} {printable(reason)}", file=sys.stderr)
    sys.stderr.flush()
    return len(errors)


def _parse_entry(line: bytes) -> Entry:
    """The record that one input line asks for, secrets removed; `BadInput` says why there is none."""
    import msgspec

    from holdfast.audit.format import MAX_RECORD_BYTES, encode_details, line_bound, line_middle
    from holdfast.audit.redact import REDACTOR
    from holdfast.audit.schemas import JOURNALS_OWN
    from holdfast.audit.wal import Entry

    try:
        given = msgspec.json.decode(line)
    except (ValueError, RecursionError) as why:  # msgspec's own errors and bad UTF-8 are ValueErrors
        raise BadInput(f"not JSON: {why}") from why
    if not isinstance(given, dict):
        raise BadInput("not a JSON object")
    fields = cast("dict[str, Any]", given)
    unknown = fields.keys() - _INPUT_KEYS.keys()
    if unknown:
        raise BadInput(f"unknown key {min(unknown)!r}, expected type, user, component, details")
    for name, (kind, what) in _INPUT_KEYS.items():
        if name not in fields and name != "component":
            raise BadInput(f"{name} is missing")
        if not isinstance(fields.get(name, ""), kind):
            raise BadInput(f"{name} is not {what}")
    type_: str = fields["type"]
    if not type_ or type_ in JOURNALS_OWN:
        raise BadInput(f"type {type_} is written by the log itself" if type_ else "type is empty")
    details = REDACTOR.details(fields["details"], encode_details(fields["details"]))
    user, component = REDACTOR.text(fields["user"]), REDACTOR.text(fields.get("component", ""))
    # The log's own bound, so that no batch can fail because of one line's length.
    bytes_at_most = line_bound(line_middle(type_, user, component), encode_details(details))
    if bytes_at_most > MAX_RECORD_BYTES:
        raise BadInput(f"record refused: up to {bytes_at_most} bytes > {MAX_RECORD_BYTES} bytes")
    return Entry(type_, details, user, component)


_INPUT_KEYS: dict[str, tuple[type, str]] = {
    "type": (str, "text"),
    "user": (str, "text"),
    "component": (str, "text"),
    "details": (dict, "a JSON object"),
}


# -- cat, query ----------------------------------------------------------------------------------------------


def _cat(args: argparse.Namespace) -> int:
    from holdfast.audit.format import leaf_hash
    from holdfast.audit.query import read_lines

    _refuse_folder_of_logs(args.dir)
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

    _refuse_folder_of_logs(args.dir)
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


def _refuse_folder_of_logs(directory: Path) -> None:
    """Name the log where somebody gave the folder around it.

    Raises:
        BadInput: *directory* is no log, but holds one.
    """
    from holdfast.audit.head import HEAD_NAME

    if (directory / HEAD_NAME).exists() or any(directory.glob("audit_*")):
        return
    inside = min((path.parent for path in directory.glob(f"*/{HEAD_NAME}")), default=None)
    if inside is not None:
        raise BadInput(f"{str(directory)!r} is not a log itself", hint=f"it holds one: {inside}")


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


# -- verify, recover -----------------------------------------------------------------------------------------


def _verify(args: argparse.Namespace) -> int:
    from holdfast.audit.verify import verify

    reports: list[VerifyReport] = []
    for directory in args.dirs:
        _refuse_folder_of_logs(directory)
        report = verify(directory)
        reports.append(report)
        if args.json:
            print_json(report.to_dict())
        else:
            _print_report(report)
        sys.stdout.flush()
    return EXIT_OK if all(report.ok for report in reports) else EXIT_INTEGRITY


def _print_report(report: VerifyReport) -> None:
    mark = "intact" if report.ok else "DAMAGED"
    if on_terminal():
        mark = f"\x1b[{'32' if report.ok else '1;31'}m{mark}\x1b[0m"
    facts = f"{report.total_entries} records in {report.segments} files, state {report.state}"
    print(f"{printable(str(report.directory))}: {mark}, {facts}")
    if report.root:
        print(f"  tree size {report.total_entries}, root {report.root}")
    if report.needs_recovery:
        print(f"  needs recovery: {printable(report.recovery_range)}")
        print("  hint: the next writer repairs it, or: holdfast audit recover DIR")
    for problem in report.problems[:20]:
        print(f"  {printable(str(problem))}")
    if len(report.problems) > 20:
        print(f"  … and {len(report.problems) - 20} more")


def _recover(args: argparse.Namespace) -> int:
    from holdfast.audit.verify import verify
    from holdfast.audit.wal import WriteAheadLog
    from holdfast.core.clock import SystemClock

    before = verify(args.dir)  # also: a directory that is not there is not made
    log = WriteAheadLog(args.dir, clock=SystemClock())
    log.open()
    log.close()
    after = verify(args.dir)
    if args.json:
        print_json(
            {"needed_recovery": before.needs_recovery, "repaired": before.recovery_range, **after.to_dict()}
        )
        return EXIT_OK if after.ok else EXIT_INTEGRITY
    if before.needs_recovery:
        print(f"recovered: {printable(before.recovery_range)}")
    else:
        print("nothing to repair")
    _print_report(after)
    return EXIT_OK if after.ok else EXIT_INTEGRITY
