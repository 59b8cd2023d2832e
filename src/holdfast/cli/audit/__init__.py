"""`holdfast audit VERB`: the log from the command line.

Everything but `append`, `recover` and what is said to write only reads, takes no lock and may run beside a
live writer. Each subcommand imports what it needs when it runs and nothing else, so that it starts in well
under 100 ms.
"""

from __future__ import annotations

import argparse

from holdfast.cli.audit import (
    anchor,
    append,
    archive,
    check,
    checkpoint,
    export,
    keys,
    people,
    prove,
    read,
    replay,
    witness,
)
from holdfast.cli.audit.verbs import Handler, Verbs

_EXAMPLES = """examples:
  holdfast audit verify logs/audit
  holdfast audit query logs/audit --type TRADE --user desk-1 --from 2026-11-19T00:00:00Z --to 2026-11-20T00:00:00Z
  holdfast audit cat logs/audit | jq 'select(.type == "API_CALL" and .details.latency_ms > 1000)'
"""

_FAMILIES = (append, read, replay, check, checkpoint, prove, export, keys, anchor, witness, archive, people)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands."""
    parser.epilog = _EXAMPLES
    verbs = Verbs(parser)
    for family in _FAMILIES:
        family.add(verbs)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; its exit code."""
    handler: Handler = args.handler
    return handler(args)
