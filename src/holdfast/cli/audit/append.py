"""`holdfast audit append`: JSON Lines from standard input, each acknowledged once durable."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from holdfast.cli.audit.verbs import Verbs, path_argument
from holdfast.cli.output import printable
from holdfast.core.errors import EXIT_OK, EXIT_USER_ERROR, BadInput

if TYPE_CHECKING:
    from holdfast.audit.people import PersonalData
    from holdfast.audit.wal import Entry, WriteAheadLog

BATCH_BYTES = 1 << 20
"""`append` takes at most this much of what stdin already holds into one batch with one sync."""

_EXAMPLES = """examples:
  echo '{"type":"NOTE","user":"desk-1","details":{"text":"limits reviewed"}}' | holdfast audit append logs/audit
  my-bot | holdfast audit append logs/audit    # one "ACK <sequence> <leaf hash>" per line, once on disk
                                               # (of the hash 16 digits; `audit cat --hash` prints all 64)

each line: {"type": …, "user": …, "component": … (optional), "details": {…}}
exit code: 0 every line was written; 1 some line was bad (ERR on stderr); 4 the log cannot be written
"""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    append = verbs.add(
        "append", "write JSON Lines from standard input, acknowledging each once durable", _EXAMPLES, _append
    )
    append.add_argument("dir", metavar="DIR", type=path_argument, help="the log; made when it does not exist")
    append.add_argument("--group", metavar="NAME", help="let this group read the log, from now on")


def _append(args: argparse.Namespace) -> int:
    from holdfast.audit.holder import refuse_foreign
    from holdfast.audit.people import PersonalData
    from holdfast.audit.storage import LocalStorage, share_with_group
    from holdfast.cli.audit.writing import open_log
    from holdfast.config import load_config, people_home

    people = PersonalData(people_home(), load_config().audit.personal_fields)
    if args.group is not None:
        refuse_foreign(LocalStorage(), args.dir)  # before a single mode in it is changed
        share_with_group(args.dir, args.group)
    log = open_log(args.dir)
    bad = 0
    try:
        for first_line, lines in _batches():
            bad += _append_batch(log, people, first_line, lines, as_json=args.json)
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


def _append_batch(
    log: WriteAheadLog, people: PersonalData, first_line: int, lines: list[bytes], *, as_json: bool
) -> int:
    """Write what is good of *lines* as one batch, then acknowledge it; how many were bad."""
    from holdfast.audit.wal import Level

    entries: list[Entry] = []
    numbers: list[int] = []
    errors: list[tuple[int, str]] = []
    for number, line in enumerate(lines, first_line):
        if not line.strip():
            continue
        try:
            entries.append(_parse_entry(line, people))
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


def _parse_entry(line: bytes, people: PersonalData) -> Entry:
    """The record that one input line asks for, without secrets, personal fields hidden; `BadInput` says why not."""
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
    details = people.hide(user, details)
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
