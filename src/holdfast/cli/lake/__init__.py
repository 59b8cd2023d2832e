"""`holdfast lake VERB`: Delta tables made from the journal, and questions to them.

The lake may be deleted and rebuilt: the journal is the truth. Each subcommand imports what it needs when it runs.
"""

from __future__ import annotations

import argparse

from holdfast.cli.audit.verbs import Handler, Verbs
from holdfast.cli.lake import maintain, project, rebuild, sql, verify

_EXAMPLES = """examples:
  holdfast lake project logs/audit --lake data/lake
  holdfast lake project logs/audit --lake s3://desk/lake --follow
  holdfast lake verify logs/audit --lake data/lake
  holdfast lake sql --saved stop_history --lake data/lake
"""

_FAMILIES = (project, verify, rebuild, sql, maintain)


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
