"""Which journals: the arguments that `holdfast lake verify` and `rebuild` share."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from holdfast.cli.audit.verbs import path_argument, require_log
from holdfast.cli.output import on_terminal, tell
from holdfast.core.errors import BadInput

SOURCES = """
A lake is a directory or s3://BUCKET/PREFIX; S3 is reached as AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY say. --archive takes what `holdfast audit archive` wrote: it is restored and verified first.
"""


def add_journals(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the journals and archives that a lake is made of."""
    parser.add_argument(
        "logs", metavar="LOGDIR", nargs="*", type=path_argument, help="an audit log's directory"
    )
    parser.add_argument(
        "--archive", metavar="URL", action="append", default=[], help="s3://BUCKET/PREFIX; may be repeated"
    )
    parser.add_argument("--endpoint", metavar="URL", help="of the archive's store, where it is not AWS")
    parser.add_argument(
        "--key",
        metavar="VKEY|FILE",
        action="append",
        default=[],
        help="a public key that the archive must be signed by",
    )


@contextmanager
def journals(args: argparse.Namespace) -> Generator[list[Path]]:
    """The journals that were named, those from archives restored into a place that goes when they were read.

    Raises:
        BadInput: None was named, or one is no log.
        AuditCorruption: An archive is damaged.
        ArchiveRefused: Its store refused.
    """
    if not args.logs and not args.archive:
        raise BadInput("no journal is named", hint="name a LOGDIR, or --archive s3://BUCKET/PREFIX")
    for directory in args.logs:
        require_log(directory)
    with ExitStack() as stack:
        found: list[Path] = list(args.logs)
        if args.archive:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-lake-")))
            found += [_restored(args, url, scratch / f"log-{n}") for n, url in enumerate(args.archive)]
        yield found


def _restored(args: argparse.Namespace, url: str, directory: Path) -> Path:
    from holdfast.archive.restore import restore
    from holdfast.archive.store import Bucket
    from holdfast.cli.audit.vouching import pins_of, read_keys

    keys = read_keys(args.key)
    bucket = Bucket(url, os.environ, endpoint=args.endpoint)
    done = restore(bucket, directory, lambda log_id: [*keys, *pins_of(log_id)], tell=progress(args))
    if not done.signed_by:
        tell(f"{url}: no key is pinned for this log: hashes and tree were verified, who signed them was not")
    return directory


def progress(args: argparse.Namespace) -> Callable[[str], None]:
    """What tells of long work: on stderr, one sentence a line, unless JSON is wanted and nobody watches."""
    if args.json and not on_terminal():
        return lambda _: None
    return tell
