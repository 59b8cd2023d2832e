"""`holdfast lake verify`: does the lake say what its journals say?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from holdfast.cli.audit.verbs import Verbs
from holdfast.cli.lake.project import add_lake_argument, lake_of
from holdfast.cli.lake.sources import SOURCES, add_journals, journals, progress
from holdfast.cli.output import print_json, printable, tell

if TYPE_CHECKING:
    from holdfast.lake.findings import Report

_EXAMPLES = f"""examples:
  holdfast lake verify logs/audit --lake data/lake
  holdfast lake verify logs/desk-1 logs/desk-2 --lake s3://risk/lake
  holdfast lake verify --archive s3://audit-archive/desk --lake data/lake

Every row of the newest version is compared with the record that it was made of, up to the sequence that the table
says it covers, also while a projector runs. Damage is named by table, kind and sequence: missing, duplicate,
changed, foreign rows, unreadable files, commits that claim something else, file statistics (rows, nulls, least and
greatest values) that the rows do not bear out. A journal that the lake knows nothing of is named too.
{SOURCES}
exit code: 0 equal; 1 no lake or journal; 3 the lake lacks a journal, or one of them is damaged; 5 the store cannot be
reached
"""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    verify = verbs.add("verify", "compare every row of a lake with its journals", _EXAMPLES, _verify)
    add_journals(verify)
    add_lake_argument(verify)


def _verify(args: argparse.Namespace) -> int:
    from holdfast.lake.verify import verify_lake

    store = lake_of(args)
    with journals(args) as logs:
        report = verify_lake(store, logs, tell=progress(args))
    if args.json:
        import msgspec

        print_json({"ok": report.ok, **msgspec.to_builtins(report)})
    else:
        _print(report)
    return report.exit_code


def _print(report: Report) -> None:
    for one in report.compared:
        behind = one.journal - one.covered
        print(
            f"{one.table}: {one.rows} rows of log {one.log_id[:8]}, {one.expected} expected,"
            + (f" records {one.first_compared} to {one.covered}" if one.covered else " nothing covered")
            + (f", {behind} behind" if behind > 0 else "")
        )
        print(f"  root {one.root}")
        if one.first_compared > 1:
            tell(
                f"{one.table}: records 1 to {one.first_compared - 1} are pruned and their rows not compared;"
                " --archive compares them"
            )
    for name, count in report.others.items():
        tell(f"{name}: {count} rows are of journals that were not named, and not compared")
    for finding in report.findings:
        print(f"{'MISSING' if finding.kind == 'unknown' else 'DAMAGED'} {printable(str(finding))}")
        if finding.kind == "unknown":
            tell("  name the lake that this log is projected into, or bring it: `holdfast lake project`")
    print(
        f"{printable(report.lake)}: "
        + ("equal to its journals" if report.ok else "NOT equal to its journals")
    )
