"""`holdfast audit archive | restore | prune`: a log's copies in an S3 store, locked for years."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from holdfast.cli.audit.verbs import Verbs, path_argument, require_log
from holdfast.cli.output import print_json, printable, tell
from holdfast.core.errors import EXIT_OK, BadInput, LogHeld

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path

    from holdfast.archive.policy import Policy
    from holdfast.archive.prune import PruneReport
    from holdfast.archive.store import Bucket
    from holdfast.audit.note import VerifierKey

_STORE = """
the store: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL, or --endpoint
"""
_ARCHIVE_EXAMPLES = (
    """examples:
  holdfast audit archive logs/audit s3://audit-archive/desk-1
  holdfast audit archive logs/audit s3://audit-archive/desk-1 --retain 10y --remove-local --older-than 90d
  holdfast audit archive logs/audit s3://audit-archive/desk-1 --legal-hold on --reason 'case 4711'

exit code: 0 everything complete is there, read back equal; 1 refused; 3 damaged; 4 the log is held; 5 repeat it
"""
    + _STORE
)
_RESTORE_EXAMPLES = (
    """examples:
  holdfast audit restore s3://audit-archive/desk-1 restored
  holdfast audit restore s3://audit-archive/desk-1 restored --from 88120 --to 90000 --key desk-1.vkey

exit code: 0 restored and verified; 1 refused; 3 something in the archive is damaged, nothing was restored; 5 repeat it
"""
    + _STORE
)
_PRUNE_EXAMPLES = (
    """examples:
  holdfast audit prune logs/audit s3://audit-archive/desk-1 --older-than 90d

exit code: 0 done, also where nothing was to be removed; 1 refused; 3 damaged; 4 a process writes the log; 5 repeat it
"""
    + _STORE
)


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    archive = verbs.add(
        "archive", "copy what is complete of a log to an S3 store, locked", _ARCHIVE_EXAMPLES, _archive
    )
    archive.add_argument("dir", metavar="DIR", type=path_argument)
    archive.add_argument("archive", metavar="s3://BUCKET/PREFIX")
    _add_policy(archive)
    archive.add_argument(
        "--legal-hold", choices=("on", "off"), help="hold or release every copy in the archive"
    )
    archive.add_argument("--reason", default="", metavar="TEXT", help="why, for the record of the legal hold")
    archive.add_argument(
        "--sealed-only", action="store_true", help="leave the last segment of a closed log where it is"
    )
    archive.add_argument(
        "--remove-local", action="store_true", help="then prune: remove segments whose copies are proven"
    )
    archive.add_argument(
        "--older-than", metavar="AGE", help="with --remove-local: as for prune (default: 0d)"
    )
    _add_retired(archive)

    restore = verbs.add("restore", "bring a log back from its archive, verified", _RESTORE_EXAMPLES, _restore)
    restore.add_argument("archive", metavar="s3://BUCKET/PREFIX")
    restore.add_argument("dir", metavar="DIR", type=path_argument, help="must not exist yet")
    restore.add_argument(
        "--from", dest="first", type=int, metavar="SEQ", help="only segments from this record on"
    )
    restore.add_argument("--to", dest="last", type=int, metavar="SEQ", help="only segments up to this record")
    restore.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="VKEY|FILE",
        help="a pinned key, beside those of this user",
    )
    restore.add_argument("--endpoint", metavar="URL", help="a store that is not AWS")

    prune = verbs.add(
        "prune", "remove local segments whose copies in the archive are proven", _PRUNE_EXAMPLES, _prune
    )
    prune.add_argument("dir", metavar="DIR", type=path_argument)
    prune.add_argument("archive", metavar="s3://BUCKET/PREFIX")
    prune.add_argument("--older-than", required=True, metavar="AGE", help="for instance 90d or 1y")
    _add_retired(prune)
    _add_policy(prune)


def _add_retired(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retired",
        action="store_true",
        help="prune a trader's log too: no trader will start on it again",
    )


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--retain", default="7y", metavar="AGE", help="lock copies for so long (default: 7y)")
    weaker = parser.add_mutually_exclusive_group()
    weaker.add_argument(
        "--governance",
        action="store_true",
        help="a lock that privileged users can lift, in place of COMPLIANCE",
    )
    weaker.add_argument("--no-lock", action="store_true", help="accept a bucket without object lock")
    parser.add_argument("--endpoint", metavar="URL", help="a store that is not AWS")


def _archive(args: argparse.Namespace) -> int:
    import secrets
    from datetime import UTC, datetime

    from holdfast.archive.upload import archive

    require_log(args.dir)
    if args.older_than is not None and not args.remove_local:
        raise BadInput("--older-than says what --remove-local may remove", hint="say both, or neither")
    age = _age(args.older_than or "0d")
    policy, bucket, now = _policy(args), _bucket(args), datetime.now(UTC)
    report = archive(
        args.dir, bucket, policy, now=now, token=secrets.token_hex(8), whole=not args.sealed_only, tell=_progress(args)
    )  # fmt: skip
    for note in report.findings.notes():
        tell(note)
    said: dict[str, Any] = {**report._asdict(), "findings": report.findings._asdict()}
    if args.legal_hold is not None:
        said["legal_hold"] = _legal_hold(args, bucket, hold=args.legal_hold == "on")
    if args.remove_local:
        pruned = _run_prune(args, bucket, policy, age, now)
        said["pruned"] = pruned._asdict()
    if args.json:
        print_json(said)
    else:
        _print_archived(args, said, policy.retention.after(now) if policy.mode is not None else None)
    return EXIT_OK


def _print_archived(args: argparse.Namespace, said: dict[str, Any], locked_until: datetime | None) -> None:
    print(f"{printable(str(args.dir))}: archived up to sequence {said['archived_to']} in {said['archive']}")
    print(
        f"  {said['segments']} segments, {said['new_segments']} new;"
        f" {said['new_objects']} objects, {said['new_bytes']} bytes put and read back"
    )
    if locked_until is not None:
        mode = "GOVERNANCE" if args.governance else "COMPLIANCE"
        print(f"  locked: {mode}, new copies until {locked_until:%Y-%m-%d}")
    if said["closed"]:
        print("  the log is closed: its last records are archived too")
    elif said["waiting"]:
        print(f"  not yet: {said['waiting']} segment(s) that are not sealed")
    if args.legal_hold is not None:
        hold = said["legal_hold"]
        print(
            f"  legal hold {args.legal_hold}: {hold['objects']} objects, recorded: {hold['recorded'] or 'no'}"
        )
    if args.remove_local:
        _print_pruned(said["pruned"])


def _legal_hold(args: argparse.Namespace, bucket: Bucket, *, hold: bool) -> dict[str, Any]:
    """Hold or release everything in the archive; how many objects, and the sequence of the record of it."""
    from holdfast.archive.selftest import FOLDER
    from holdfast.audit.schemas import LegalHoldDetails
    from holdfast.cli.audit.writing import open_log

    names = [name for name in sorted(bucket.sizes()) if not name.startswith(f"{FOLDER}/")]
    for name in names:
        bucket.set_legal_hold(name, hold=hold)
    details = LegalHoldDetails(archive=str(bucket), hold=hold, objects=len(names), reason=args.reason)
    sequence = 0
    try:
        log = open_log(args.dir)
        try:
            import msgspec

            sequence = log.append("LEGAL_HOLD", msgspec.to_builtins(details), component="archive")
        finally:
            log.close()
    except LogHeld as why:
        tell(f"the legal hold is set but not recorded: {why}")
    return {"hold": hold, "objects": len(names), "recorded": sequence}


def _prune(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    require_log(args.dir)
    age = _age(args.older_than)
    report = _run_prune(args, _bucket(args), _policy(args), age, datetime.now(UTC))
    if args.json:
        print_json(report._asdict())
    else:
        _print_pruned(report._asdict())
    return EXIT_OK


def _run_prune(
    args: argparse.Namespace, bucket: Bucket, policy: Policy, age: timedelta, now: datetime
) -> PruneReport:
    from holdfast.archive.prune import prune
    from holdfast.cli.audit.writing import open_log

    if not args.retired:
        _refuse_a_traders_log(args.dir)
    log = open_log(args.dir)  # takes the lock with the first record, not before

    def append(type_: str, details: dict[str, Any]) -> int:
        return log.append(type_, details, component="journal")

    try:
        return prune(args.dir, bucket, policy, append, older_than=age, now=now, tell=_progress(args))
    finally:
        log.close()


def _refuse_a_traders_log(directory: Path) -> None:
    """A trader replays its log from the first record at every start; without it, it does not trade.

    Raises:
        BadInput: *directory* holds the log of one.
    """
    from holdfast.audit.pruned import InArchive
    from holdfast.audit.query import iter_matching_lines

    try:
        opened = next(iter_matching_lines(directory, event_type="SESSION_OPEN", max_results=1), None)
    except InArchive:  # its beginning went before, as it was asked to
        return
    if opened is not None:
        raise BadInput(
            f"{str(directory)!r} is a trader's log: it replays positions and orders from the first record at each start",
            hint="give the trader a new log, then prune this one with --retired",
        )


def _print_pruned(report: dict[str, Any]) -> None:
    print(f"removed here, kept in the archive: {len(report['pruned'])} segments, {report['freed']} bytes")
    print(f"  here from sequence {report['next_seq']} on; {report['stopped']}")


def _restore(args: argparse.Namespace) -> int:
    from holdfast.archive.restore import restore
    from holdfast.cli.audit.vouching import read_keys

    keys = read_keys(args.key)
    done = restore(
        _bucket(args), args.dir, _pinned(keys), first=args.first, last=args.last, tell=_progress(args)
    )
    if not done.signed_by:
        tell(
            "no key is pinned for this log: hashes and tree were verified, who signed them was not; say --key"
        )
    if args.json:
        print_json({**done._asdict(), "directory": str(done.directory)})
        return EXIT_OK
    print(f"{printable(str(args.dir))}: restored sequences {done.first_seq} to {done.last_seq}, verified")
    print(f"  log {done.log_id}, {done.segments} segments, {done.bytes} bytes, root {done.root}")
    if done.signed_by:
        print(f"  signed up to {done.signed_to} by {done.signed_by}")
    if done.whole:
        print("  the directory is what the closed log was")
    return EXIT_OK


def _pinned(keys: Sequence[VerifierKey]) -> Callable[[str], Sequence[VerifierKey]]:
    """The keys given, and those that this user pinned for the log."""

    def pinned(log_id: str) -> Sequence[VerifierKey]:
        from holdfast.audit.keys import KeyHome
        from holdfast.config import key_home

        return [*keys, *(one for one in KeyHome(key_home()).log(log_id).pins() if one not in keys)]

    return pinned


def _bucket(args: argparse.Namespace) -> Bucket:
    from holdfast.archive.store import Bucket

    return Bucket(args.archive, os.environ, endpoint=args.endpoint)


def _policy(args: argparse.Namespace) -> Policy:
    from holdfast.archive.policy import Policy, Retention
    from holdfast.archive.store import COMPLIANCE, GOVERNANCE

    mode = None if args.no_lock else GOVERNANCE if args.governance else COMPLIANCE
    return Policy(mode, Retention.parse(args.retain))


def _age(text: str) -> timedelta:
    from datetime import timedelta

    from holdfast.archive.policy import Retention

    if text == "0d":
        return timedelta()
    age = Retention.parse(text)
    return timedelta(days=age.days + 366 * age.years)


def _progress(args: argparse.Namespace) -> Callable[[str], None]:
    """One line for each segment, on stderr where stdout is for a program."""
    if args.json:
        return tell
    return lambda sentence: print(f"  {printable(sentence)}", file=sys.stdout, flush=True)
