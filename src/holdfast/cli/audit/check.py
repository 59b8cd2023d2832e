"""`holdfast audit verify | recover`: every byte checked; a log left open by a crash made whole."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from holdfast.cli.audit.verbs import Verbs, path_argument, require_log
from holdfast.cli.output import on_terminal, print_json, printable
from holdfast.core.errors import EXIT_INTEGRITY, EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.audit.anchor import Anchor
    from holdfast.audit.verify import VerifyReport

_VERIFY_EXAMPLES = """examples:
  holdfast audit verify logs/audit
  holdfast audit verify run/*/audit --json
  holdfast audit verify copy/audit --key log.pub --anchor /mnt/other/checkpoint

Keys count when they are named here, else those that are pinned on this machine, in $HOLDFAST_HOME or
~/.config/holdfast. The high-water mark and receipts kept there and the file: sinks of holdfast.toml are anchors that
are always looked at; the lines below 'anchored' say which of them hold. A witness and S3 are asked by audit anchor
alone. What was only signed by a key that the log itself names proves nothing, and is said under 'not known'.

exit code: 0 intact, also while a torn tail waits for recovery, and also where nobody vouches for it;
3 damaged: the first bad sequence is named; 1 no log, one of a newer format, or a key or anchor of another log
"""
_RECOVER_EXAMPLES = """examples:
  holdfast audit recover logs/audit

exit code: 0 ready for writing; 3 damaged, nothing was changed; 4 a writer is alive
"""


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    verify = verbs.add("verify", "check every byte of one or more logs", _VERIFY_EXAMPLES, _verify)
    verify.add_argument("dirs", metavar="DIR", type=path_argument, nargs="+")
    verify.add_argument(
        "--key",
        metavar="VKEY|FILE",
        action="append",
        default=[],
        help="a public key that counts, or a file of them; without it those pinned on this machine count",
    )
    verify.add_argument(
        "--anchor",
        metavar="FILE",
        action="append",
        type=path_argument,
        default=[],
        help="a checkpoint that was saved elsewhere, a receipt, or a high-water mark; may be given more than once",
    )
    verify.add_argument(
        "--jobs",
        metavar="N",
        type=_count,
        default=0,
        help="processes to use; without it one for each core where the log is large",
    )

    recover = verbs.add(
        "recover",
        "open the log as a restart does: repair a torn tail, refuse damage",
        _RECOVER_EXAMPLES,
        _recover,
    )
    recover.add_argument("dir", metavar="DIR", type=path_argument)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= 256):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} processes, expected 1 to 256")
    return int(text)


def _verify(args: argparse.Namespace) -> int:
    from holdfast.audit.verify import verify
    from holdfast.cli.audit.vouching import Progress, read_keys, vouchers

    reports: list[VerifyReport] = []
    for directory in args.dirs:
        # Whoever remembers a log is told that it is gone, not that there is none.
        if not ((args.key or args.anchor) and directory.is_dir() and not any(directory.iterdir())):
            require_log(directory)
    for directory, (keys, anchors, unasked) in zip(
        args.dirs, vouchers(args.dirs, read_keys(args.key), args.anchor), strict=True
    ):
        progress = Progress(directory)
        try:
            report = verify(directory, progress, keys=keys, anchors=anchors, jobs=args.jobs)
            report.unknowns = [*report.unknowns, *unasked]
        finally:
            progress.clear()
        reports.append(report)
        if args.json:
            print_json(report.to_dict())
        else:
            _print_report(report, anchors)
        sys.stdout.flush()
    return EXIT_OK if all(report.ok for report in reports) else EXIT_INTEGRITY


def _print_report(report: VerifyReport, anchors: Sequence[Anchor]) -> None:
    mark = "intact" if report.ok else "DAMAGED"
    if on_terminal():
        mark = f"\x1b[{'32' if report.ok else '1;31'}m{mark}\x1b[0m"
    facts = f"{report.total_entries} records in {report.segments} files, state {report.state}"
    if report.corrupted_entries:
        facts += f", {report.corrupted_entries} corrupted"
    print(f"{printable(str(report.directory))}: {mark}, {facts}")
    if report.root:
        print(f"  tree size {report.size}, root {report.root}")
    _print_ranges(report, anchors)
    for sentence in report.unknowns:
        print(f"  not known: {printable(sentence)}")
    if report.needs_recovery:
        print(f"  needs recovery: {printable(report.recovery_range)}")
        print("  hint: the next writer repairs it, or: holdfast audit recover DIR")
    bad = report.first_bad
    if bad is not None:
        print(f"  first bad: {printable(str(bad))}")
    others = [problem for problem in report.problems if problem is not bad]
    for problem in others[:19]:
        print(f"  {printable(str(problem))}")
    if report.problem_count > 20:
        print(f"  … and {report.problem_count - 20} more")


def _print_ranges(report: VerifyReport, anchors: Sequence[Anchor]) -> None:
    """Who vouches for which records, and whose word "anchored" is: those that remember the end of that range."""
    for what, first, last in report.ranges():
        print(f"  {what}: {first} to {last}")
        if what == "anchored":
            doubted = {problem.file for problem in report.problems}
            for source in sorted({one.source for one in anchors if one.size == last} - doubted):
                print(f"    by {printable(source)}")


def _recover(args: argparse.Namespace) -> int:
    from holdfast.audit.verify import verify
    from holdfast.cli.audit.vouching import vouchers
    from holdfast.cli.audit.writing import open_log

    require_log(args.dir)
    before = verify(args.dir)
    log = open_log(args.dir)
    log.open()
    log.close()
    ((keys, anchors, unasked),) = vouchers([args.dir], [], [])
    after = verify(args.dir, keys=keys, anchors=anchors)
    after.unknowns = [*after.unknowns, *unasked]
    if args.json:
        print_json(
            {"needed_recovery": before.needs_recovery, "repaired": before.recovery_range, **after.to_dict()}
        )
        return EXIT_OK if after.ok else EXIT_INTEGRITY
    if before.needs_recovery:
        print(f"recovered: {printable(before.recovery_range)}")
    else:
        print("nothing to repair")
    _print_report(after, anchors)
    return EXIT_OK if after.ok else EXIT_INTEGRITY
