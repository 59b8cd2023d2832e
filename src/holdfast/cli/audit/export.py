"""`holdfast audit export | check-export`: what a search finds as a file for others, and whether such a file holds."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli.audit.conditions import TIMES, add_conditions, conditions
from holdfast.cli.audit.verbs import Verbs, path_argument, require_log
from holdfast.cli.output import on_terminal, print_json, printable, tell
from holdfast.core.errors import EXIT_INTEGRITY, EXIT_OK, BadInput

if TYPE_CHECKING:
    from holdfast.audit.prove import Prover

_FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}

_EXPORT_EXAMPLES = """examples:
  holdfast audit export logs/audit --type TRADE --user desk-1 --out trades.csv
  holdfast audit export logs/audit --from 2026-11-01T00:00:00Z --out november.parquet --proofs

Beside the file stand FILE.manifest.json (query, rows, hashes, the log's newest checkpoint) and, with --proofs,
FILE.proofs.jsonl, a proof for every row that the checkpoint covers. holdfast audit check-export checks them offline.
Without --proofs the manifest shows changes after the export only: the rows are what the exporter says.

exit code: 0 written; 1 a file is in the way or nothing can be proven; 3 the log is damaged where it was read
"""
_CHECK_EXAMPLES = """examples:
  holdfast audit check-export trades.csv.manifest.json --key log.vkey

Keys count only when they are named with --key; rows without a proof are counted and said on stderr.

exit code: 0 it holds; 1 it cannot be read; 3 it does not hold
"""


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    export = verbs.add(
        "export", "write what a search finds to a file, with a manifest", _EXPORT_EXAMPLES + TIMES, _export
    )
    export.add_argument("dir", metavar="DIR", type=path_argument)
    add_conditions(export)
    export.add_argument(
        "--out", metavar="FILE", type=path_argument, required=True, help="FILE.csv, .jsonl or .parquet"
    )
    export.add_argument("--format", choices=sorted(_FORMATS.values()), help="where the name does not tell")
    export.add_argument("--proofs", action="store_true", help="prove each row, and add its stored line")

    check = verbs.add("check-export", "check an export by its manifest, offline", _CHECK_EXAMPLES, _check)
    check.add_argument("manifest", metavar="MANIFEST", type=path_argument)
    check.add_argument(
        "--key",
        metavar="VKEY|FILE",
        action="append",
        default=[],
        help="a public key to trust; may be repeated; by default those pinned here",
    )


def _export(args: argparse.Namespace) -> int:
    from holdfast.archive.export import FORMATS, Source, export
    from holdfast.audit.query import iter_matching_lines

    require_log(args.dir)
    named = args.format or _FORMATS.get(args.out.suffix)
    if named not in FORMATS:
        raise BadInput(f"{str(args.out)!r} does not tell its format", hint="--format csv, jsonl or parquet")
    asked = conditions(args)
    prover = _prover(args.dir, needed=args.proofs)
    try:
        source = Source(
            iter_matching_lines(args.dir, **asked),
            {name: _plain(value) for name, value in asked.items() if value is not None},
            "" if prover is None else prover.checkpoint.origin.rpartition("/")[2],
            prover,
        )
        manifest = export(source, args.out, named, proofs=args.proofs, progress=_progress())
    finally:
        if prover is not None:
            prover.close()
    if args.json:
        import msgspec

        print_json(msgspec.to_builtins(manifest))
        return EXIT_OK
    print(f"{printable(str(args.out))}: {manifest.rows} rows, sha256 {manifest.sha256}")
    if manifest.proofs:
        print(f"  {manifest.proven_rows} proven under the checkpoint of {manifest.checkpoint_size} records")
    if manifest.rows_beyond_checkpoint:
        print(f"  {manifest.rows_beyond_checkpoint} rows are younger than the newest checkpoint")
    return EXIT_OK


def _prover(directory: Path, *, needed: bool) -> Prover | None:
    """What proves rows; None for a log without signatures, unless proofs are asked for."""
    from holdfast.audit.prove import Prover

    try:
        return Prover(directory)
    except BadInput:
        if needed or not directory.is_dir():
            raise
        return None


def _plain(value: object) -> object:
    """A condition as JSON holds it."""
    from decimal import Decimal

    return str(value) if isinstance(value, Decimal) else value


def _progress() -> Callable[[int], None] | None:
    if not on_terminal():
        return None
    return lambda rows: print(f"\r{rows:,} rows", end="\r", flush=True)


def _check(args: argparse.Namespace) -> int:
    from holdfast.archive.export import check_export, read_manifest
    from holdfast.cli.audit.vouching import pins_of, read_keys

    manifest = read_manifest(args.manifest)
    keys = read_keys(args.key) or (pins_of(manifest.log_id) if manifest.checkpoint else ())
    found = check_export(args.manifest, keys)
    if args.json:
        print_json({"holds": not found.problems, **found._asdict()})
    else:
        mark = "does not hold" if found.problems else "holds"
        print(f"{printable(str(args.manifest))}: {mark}, {found.rows} rows, {found.proven} proven")
        for key in found.signed_by:
            print(f"  signed by {printable(key)}")
        for problem in found.problems:
            print(f"  {printable(problem)}")
    if found.proven < found.rows and not found.problems:
        tell(
            f"{found.rows - found.proven} of {found.rows} rows are not proven: the signature is the checkpoint's, and"
            " they are what the exporter says; audit export --proofs proves each row that a checkpoint covers"
        )
    if not keys and not found.problems:
        tell("whose signature the checkpoint carries was not checked; --key VKEY|FILE names the log's key")
    return EXIT_INTEGRITY if found.problems else EXIT_OK
