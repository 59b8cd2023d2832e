"""`holdfast audit replay`: positions, cash, open orders and decisions, computed again from the log alone."""

from __future__ import annotations

import argparse
from typing import Any

from holdfast.cli.audit.verbs import Verbs, path_argument, require_log
from holdfast.cli.output import print_json, printable
from holdfast.core.errors import EXIT_INTEGRITY, EXIT_OK

_EXAMPLES = """examples:
  holdfast audit replay logs/audit
  holdfast audit replay logs/audit --json | jq .positions

exit code: 0 everything follows from the records; 3 a decision does not follow from what it read, or records
contradict one another: their sequences are named
"""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    replay = verbs.add(
        "replay", "compute positions, orders and decisions again from the log alone", _EXAMPLES, _replay
    )
    replay.add_argument("dir", metavar="DIR", type=path_argument)


def _replay(args: argparse.Namespace) -> int:
    from holdfast.audit.query import read_records
    from holdfast.execution.replay import replay_log

    require_log(args.dir)
    replayed = replay_log(read_records(args.dir))
    facts = replayed.to_dict()
    if args.json:
        print_json(facts)
    else:
        _print(facts)
    return EXIT_OK if replayed.holds_together else EXIT_INTEGRITY


def _print(facts: dict[str, Any]) -> None:
    print(f"{facts['records']} records replayed: state {facts['state']}, cash {facts['cash']} USD")
    for ticker, held in facts["positions"].items():
        print(f"  position  {printable(ticker)}  {held}")
    for order in facts["open_orders"]:
        print(
            f"  open      {printable(order['client_order_id'])}  {printable(order['ticker'])}"
            f"  {order['status']}, {order['leaves']} left"
        )
    differing = facts["decisions_differing"]
    judged = facts["decisions"] - facts["decisions_unjudged"]
    print(f"  decisions {facts['decisions']}, {judged} made again, {len(differing)} with another outcome")
    for sequence in differing:
        print(f"  sequence {sequence}: the decision does not follow from what it read")
    for one in facts["contradictions"]:
        print(f"  sequence {one['sequence']}: {printable(one['reason'])}")
