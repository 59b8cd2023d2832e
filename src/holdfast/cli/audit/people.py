"""`holdfast audit erase | reveal`: a person's hidden fields, shown to who may see them, or lost for good."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from holdfast.cli.audit.verbs import Verbs, path_argument, require_log
from holdfast.cli.output import print_json, printable
from holdfast.core.errors import EXIT_OK, BadInput

if TYPE_CHECKING:
    from holdfast.audit.people import PersonalData

_ERASE_EXAMPLES = """examples:
  holdfast audit erase logs/audit --subject desk-1 --reason "request of 2026-11-20, ticket 311"

The records stay and verify as before; the fields hidden under that person's key are unreadable from then on.
Copies of the key that a backup, a snapshot or an SSD keeps are out of reach: destroy those too.
exit code: 0 erased; 1 nothing was hidden for that person here; 4 a writer is alive
"""
_REVEAL_EXAMPLES = """examples:
  holdfast audit reveal logs/audit 4711

exit code: 0 shown; 1 no such record, or its person was erased
"""


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    erase = verbs.add("erase", "destroy a person's key, and record that", _ERASE_EXAMPLES, _erase)
    erase.add_argument("dir", metavar="DIR", type=path_argument)
    erase.add_argument("--subject", metavar="ID", required=True, help="the user of the records")
    erase.add_argument("--reason", metavar="TEXT", required=True)

    reveal = verbs.add("reveal", "print records with their personal fields shown", _REVEAL_EXAMPLES, _reveal)
    reveal.add_argument("dir", metavar="DIR", type=path_argument)
    reveal.add_argument("sequences", metavar="SEQ", type=int, nargs="+")


def _people() -> PersonalData:
    from holdfast.audit.people import PersonalData
    from holdfast.config import people_home

    return PersonalData(people_home())


def _erase(args: argparse.Namespace) -> int:
    from holdfast.audit.logger import AuditLogger
    from holdfast.cli.audit.writing import open_log

    require_log(args.dir)
    people = _people()
    key = people.key_of(args.subject)
    with open_log(args.dir) as log:
        seq = AuditLogger(log).record(
            "ERASURE", {"subject": args.subject, "key": key, "reason": args.reason}, user=args.subject
        )
        people.erase(args.subject)
        # Said before the log is closed: whatever happens then, the key is gone.
        if args.json:
            print_json({"subject": args.subject, "key": key, "sequence": seq})
        else:
            print(f"erased: key {key} of {printable(args.subject)}, recorded as sequence {seq}")
        sys.stdout.flush()
    return EXIT_OK


def _reveal(args: argparse.Namespace) -> int:
    from holdfast.audit.query import read_records

    require_log(args.dir)
    people = _people()
    for sequence in args.sequences:
        record = next(read_records(args.dir, start_seq=sequence), None) if sequence > 0 else None
        if record is None:
            raise BadInput(
                f"no record {sequence} in {str(args.dir)!r}",
                hint="sequences begin at 1; holdfast audit query DIR --newest-first --limit 1 shows the last",
            )
        print_json({"sequence": sequence, "type": record.type, "details": people.reveal(record.details)})
    return EXIT_OK
