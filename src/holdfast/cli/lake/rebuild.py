"""`holdfast lake rebuild`: the lake made anew from its journals."""

from __future__ import annotations

import argparse

from holdfast.cli.audit.verbs import Verbs
from holdfast.cli.lake.project import add_lake_argument, lake_of
from holdfast.cli.lake.sources import SOURCES, add_journals, journals, progress
from holdfast.cli.output import print_json, printable
from holdfast.core.errors import EXIT_OK

_EXAMPLES = f"""examples:
  holdfast lake rebuild logs/audit --lake data/lake
  holdfast lake rebuild --archive s3://audit-archive/desk --lake data/lake
  holdfast lake rebuild logs/audit --lake s3://risk/lake --force

Stop the projector first. The new lake grows beside the old one and changes places with it when it is whole; the old
one is kept as LAKE.replaced-…. With --force, and always on S3 where a lake is there already, the tables are emptied
and filled in place. A directory that holds other things than a lake's tables is refused either way.
{SOURCES}
exit code: 0 made; 1 a projector works in it, or it is no place for a lake; 3 a journal is damaged; 4 the disk is full;
5 the store cannot be reached
"""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    rebuild = verbs.add(
        "rebuild", "make a lake anew from its journals, or from their archive", _EXAMPLES, _rebuild
    )
    add_journals(rebuild)
    add_lake_argument(rebuild)
    rebuild.add_argument("--force", action="store_true", help="empty the tables and fill them in place")


def _rebuild(args: argparse.Namespace) -> int:
    from holdfast.core.clock import SystemClock
    from holdfast.lake.rebuild import rebuild

    store = lake_of(args)
    with journals(args) as logs:
        done = rebuild(store, logs, clock=SystemClock(), force=args.force, tell=progress(args))
    if args.json:
        print_json({**done._asdict(), "rate": round(done.rate)})
        return EXIT_OK
    for name, rows in done.rows.items():
        print(f"{name}: {rows} rows")
    print(
        f"{printable(done.lake)}: made from {done.records} records in {done.secs:.1f} s, {done.rate:,.0f} a second"
    )
    if done.replaced:
        print(f"  what was there is kept in {printable(done.replaced)}")
    return EXIT_OK
