"""`holdfast lake maintain`: compaction, ordering, checkpoints and vacuum by hand, or for a projector."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Generator
from datetime import date
from typing import TYPE_CHECKING

from holdfast.cli.audit.verbs import Verbs
from holdfast.cli.lake.project import add_lake_argument, lake_of
from holdfast.cli.lake.sources import progress
from holdfast.cli.output import print_json, quiet_stderr, tell
from holdfast.core.errors import EXIT_OK, BadInput

if TYPE_CHECKING:
    from holdfast.lake.maintenance import Done
    from holdfast.lake.store import LakeStore

_EXAMPLES = """examples:
  holdfast lake maintain --lake data/lake
  holdfast lake maintain --lake data/lake --everything
  holdfast lake maintain --lake s3://risk/lake --table risk_events --day 2026-11-20

A projector does this by itself; this is for lakes that none works in, and may run beside one. --day orders one
day's files by execution and time. --everything does every action on every day, due or not. Old files stay for
--retention-days, for readers of older versions; less than an hour is for a lake that no projector works in, which
on a bucket is yours to know.

exit code: 0 done; 1 no lake; 3 a table is damaged; 5 the store cannot be reached
"""
_NICE = 10
_MOST_DAYS = 36_500


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    maintain = verbs.add("maintain", "compact, order and vacuum a lake", _EXAMPLES, _maintain)
    add_lake_argument(maintain)
    maintain.add_argument(
        "--table", metavar="NAME", action="append", default=[], help="one table; may be repeated"
    )
    what = maintain.add_mutually_exclusive_group()
    what.add_argument("--day", metavar="YYYY-MM-DD", help="order the files of one day, and nothing else")
    what.add_argument("--everything", action="store_true", help="do every action on every day, due or not")
    maintain.add_argument("--retention-days", type=float, metavar="N", help="default: [lake], 7")


def _maintain(args: argparse.Namespace) -> int:
    from holdfast.config import load_config
    from holdfast.core.clock import SystemClock
    from holdfast.lake.due import DAY_SECS, SHARED_SECS, MaintenancePolicy
    from holdfast.lake.maintenance import Maintainer

    with contextlib.suppress(OSError):
        os.nice(_NICE)  # whoever trades or commits goes first
    store = lake_of(args)
    days = load_config().lake.retention_days if args.retention_days is None else args.retention_days
    if not 0 <= days <= _MOST_DAYS:
        raise BadInput(f"--retention-days {days:g} is outside 0 to {_MOST_DAYS}", hint="0 keeps no old file")
    policy = MaintenancePolicy(retention_secs=int(days * DAY_SECS))
    maintainer = Maintainer(store, clock=SystemClock(), policy=policy, tell=progress(args))
    day, count = _day(args.day), 0
    alone = day is None and policy.retention_secs < SHARED_SECS
    with _hold(store, alone=alone), quiet_stderr():  # delta-rs panics in its threads where a disk is full
        for name in _tables(args, store):
            done = maintainer.run(name, everything=args.everything, day=day)
            count += len(done)
            for one in done:
                _say(args, one)
            for sentence in maintainer.alarms(name):
                tell(sentence)
    if not args.json:
        print(f"{store}: {count} actions done" if count else f"{store}: nothing is due")
    return EXIT_OK


def _say(args: argparse.Namespace, one: Done) -> None:
    if not args.json:
        print(f"{one.table}: {one.step}: {one.removed} files gone, {one.added} new")
        return
    day = str(one.step.day or "")
    print_json(
        {
            "table": one.table,
            "action": one.step.action,
            "day": day,
            "removed": one.removed,
            "added": one.added,
        }
    )


@contextlib.contextmanager
def _hold(store: LakeStore, *, alone: bool) -> Generator[None]:
    """Wait until nobody repairs or rebuilds the lake, and keep them away meanwhile; and projectors, where *alone*."""
    from holdfast.lake.repair import Guard

    guard = Guard(store.path) if store.is_local and store.path.is_dir() else None
    try:
        if guard is not None and not alone:
            guard.share()
        elif guard is not None and not guard.alone():
            raise BadInput(
                f"lake {store}: a projector works in it, and a vacuum that keeps no file would take its newest",
                hint="stop it first, or keep files an hour: --retention-days 0.05",
            )
        yield
    finally:
        if guard is not None:
            guard.release()


def _tables(args: argparse.Namespace, store: LakeStore) -> list[str]:
    import difflib

    from holdfast.lake.tables import TABLES

    known = [kind.name for kind in TABLES]
    asked: list[str] = args.table
    for name in asked:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]!r}?" if close else f"one of {', '.join(known)}"
            raise BadInput(f"no table {name!r}", hint=hint)
    present = [name for name in asked or known if store.has(name)]
    if not present:
        store.open((asked or known)[0])  # says by name that there is none
    return present


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{text!r} is not a day", hint="for instance 2026-11-20, a day in UTC") from None
