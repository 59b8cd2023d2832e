"""`holdfast audit prove | check-proof`: evidence for single records, checked without the log."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.cli.audit.verbs import Verbs, path_argument, require_log
from holdfast.cli.output import print_json, printable, tell
from holdfast.core.errors import EXIT_OK, EXIT_USER_ERROR, BadInput, TradingError

if TYPE_CHECKING:
    from holdfast.audit.proofs import Proven, RecordProof

_PROVE_EXAMPLES = """examples:
  holdfast audit prove logs/audit 48211 > 48211.tlog-proof
  holdfast audit prove logs/audit 48211 48215 --out proofs
  holdfast audit prove logs/audit 48211 --checkpoint cosigned.note --out proofs

A proof holds the record as it is stored, its place in the tree, a checkpoint and the notes of the log's keys. It is
a C2SP tlog-proof and needs nothing else but the log's first public key. The checkpoint is the one given; else the
newest that a witness cosigned, where this machine keeps one that covers the records; else the log's newest.

exit code: 0 proven; 1 no such record, or no checkpoint covers it; 3 the log is damaged there
"""
_CHECK_EXAMPLES = """examples:
  holdfast audit check-proof proofs/*.tlog-proof --key log.vkey
  holdfast audit check-proof 48211.tlog-proof --key 'holdfast/…+1a2b3c4d+A…' --key witness.vkey

--key takes a verifier key, or a file with one a line: of the log (of its first epoch, or a later one), and of
witnesses. Without it the keys count that are pinned on this machine for the log that the proof names.

exit code: 0 every proof holds; 1 one cannot be judged (no proof file, no key of its log); 3 one is false
"""


def add(verbs: Verbs) -> None:
    """Describe the verbs."""
    prove = verbs.add("prove", "write a self-contained proof for single records", _PROVE_EXAMPLES, _prove)
    prove.add_argument("dir", metavar="DIR", type=path_argument)
    prove.add_argument("sequences", metavar="SEQ", type=int, nargs="+")
    prove.add_argument(
        "--out", metavar="FOLDER", type=path_argument, help="one file for each record; else stdout"
    )
    prove.add_argument(
        "--checkpoint",
        metavar="FILE",
        type=path_argument,
        help="prove against this one, a cosigned one for instance",
    )

    check = verbs.add("check-proof", "check proof files, offline", _CHECK_EXAMPLES, _check)
    check.add_argument("files", metavar="FILE", nargs="+", help="proof files; - is stdin")
    check.add_argument(
        "--key",
        metavar="VKEY|FILE",
        action="append",
        default=[],
        help="a public key to trust; may be repeated",
    )


# -- prove -------------------------------------------------------------------------------------------------


def _prove(args: argparse.Namespace) -> int:
    from holdfast.audit.prove import Prover

    require_log(args.dir)
    folder: Path | None = args.out
    wanted = sorted(set(args.sequences))
    if folder is None and len(wanted) > 1 and not args.json:
        raise BadInput(
            f"{len(wanted)} proofs need a folder", hint="--out FOLDER writes one file for each record"
        )
    if args.checkpoint is None:
        with Prover(args.dir) as own:
            checkpoint = _cosigned(own.checkpoint.origin, wanted[-1])
    else:
        checkpoint = _checkpoint(args.checkpoint)
    with Prover(args.dir, checkpoint=checkpoint) as prover:
        proofs = prover.prove(wanted)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        for proof in proofs:
            _give(proof, folder, as_json=args.json)
        if prover.tiles_damaged:
            tell(f"tiles put aside, all hashes taken from the records: {prover.tiles_damaged}")
    return EXIT_OK


def _checkpoint(path: Path) -> bytes:
    """The checkpoint in the file *path*.

    Raises:
        BadInput: It holds none.
    """
    from holdfast.audit.note import MAX_NOTE_BYTES, parse_checkpoint, parse_note

    data = _read(path, MAX_NOTE_BYTES, "checkpoint")
    try:
        parse_checkpoint(parse_note(data).text)
    except BadInput as why:
        raise BadInput(
            f"{str(path)!r} is no checkpoint: {why}", hint="`holdfast audit checkpoint DIR` prints one"
        ) from why
    return data


def _cosigned(origin: str, size: int) -> bytes | None:
    """The newest checkpoint of at least *size* records that a witness of this machine's user cosigned, or None."""
    from holdfast.anchors.receipts import FOLDER
    from holdfast.audit.keys import LOGS
    from holdfast.audit.note import MAX_NOTE_BYTES, parse_checkpoint, parse_note
    from holdfast.config import key_home
    from holdfast.core.errors import ConfigError

    try:
        folder = key_home() / LOGS / origin.rpartition("/")[2] / FOLDER
    except ConfigError:
        return None
    newest: tuple[int, bytes] | None = None
    for path in folder.glob("*/*.note"):
        try:
            data = _read(path, MAX_NOTE_BYTES, "receipt")
            note = parse_note(data)
            checkpoint = parse_checkpoint(note.text)
        except (BadInput, OSError) as why:
            tell(f"receipt passed over: {path}: {why}")
            continue
        cosigned = any(signature.name != origin for signature in note.signatures)
        if (
            cosigned
            and checkpoint.origin == origin
            and checkpoint.size >= max(size, newest[0] if newest else 0)
        ):
            newest = checkpoint.size, data
    return newest[1] if newest else None


def _give(proof: RecordProof, folder: Path | None, *, as_json: bool) -> None:
    from holdfast.audit.proofs import PROOF_SUFFIX

    sequence, data = proof.leaf_index + 1, proof.encode()
    if folder is None:
        if as_json:
            print_json({"sequence": sequence, "proof": data.decode()})
        else:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return
    path = folder / f"{sequence:012d}{PROOF_SUFFIX}"
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)  # whoever finds a proof finds a whole one
    except BaseException as why:
        temporary.unlink(missing_ok=True)
        if isinstance(why, OSError):
            why.filename = str(path)  # a failed write does not say where
        raise
    if as_json:
        print_json({"sequence": sequence, "file": str(path)})
    else:
        print(printable(str(path)))


# -- check-proof -------------------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> int:
    from holdfast.audit.note import ED25519
    from holdfast.audit.proofs import MAX_PROOF_BYTES, ProofChecker, parse_record_proof
    from holdfast.cli.audit.vouching import pins_of, read_keys

    named = read_keys(args.key)
    has_log_key = any(key.algorithm == ED25519 for key in named)
    checkers: dict[str, ProofChecker] = {}
    worst = EXIT_OK
    for file in args.files:
        try:
            proof = parse_record_proof(_read(None if file == "-" else Path(file), MAX_PROOF_BYTES, "proof"))
            log = "" if has_log_key else _log_of(proof)
            if log not in checkers:
                checkers[log] = ProofChecker([*named, *pins_of(log)])
            _say(file, proof, checkers[log].check(proof), as_json=args.json)
        except TradingError as why:
            worst = max(worst, why.exit_code)
            _refuse(file, str(why), why.hint, why.exit_code, as_json=args.json)
        except OSError as why:
            worst = max(worst, EXIT_USER_ERROR)
            _refuse(file, (why.strerror or str(why)).lower(), "", EXIT_USER_ERROR, as_json=args.json)
    return worst


def _log_of(proof: RecordProof) -> str:
    from holdfast.audit.note import parse_checkpoint, parse_note

    return parse_checkpoint(parse_note(proof.checkpoint).text).origin.rpartition("/")[2]


def _moment(unix_secs: int) -> str:
    from holdfast.core.clock import NANOS, iso_utc

    # A cosignature may say any time up to the year 292 billion.
    return iso_utc(unix_secs * NANOS) if unix_secs < 2**32 else f"{unix_secs} s after 1970"


def _say(file: str, proof: RecordProof, proven: Proven, *, as_json: bool) -> None:
    from holdfast.core.clock import iso_utc

    record, checkpoint = proven.record, proven.checkpoint
    cosigned = {f"{key.name}+{key.key_id:08x}": _moment(secs) for key, secs in proven.cosigned_at.items()}
    if as_json:
        print_json(
            {
                "file": file,
                "proven": True,
                "log": checkpoint.origin,
                "sequence": record.seq,
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
                "signed_by": [str(key) for key in proven.signers],
                "cosigned": cosigned,
                "not_named": list(proven.others),
                "record": proof.line.decode(),
            }
        )
        return
    print(
        printable(
            f"{file}: proven: sequence {record.seq} of {checkpoint.origin}, {record.type} of {iso_utc(record.ts)}"
        )
    )
    print(printable(f"  in the tree of {checkpoint.size} records with root {checkpoint.root.hex()}"))
    for key in proven.signers:
        when = f", cosigned {_moment(proven.cosigned_at[key])}" if key in proven.cosigned_at else ""
        print(printable(f"  signed by {key.name} (key id {key.key_id:08x}){when}"))
    for name in proven.others:
        print(printable(f"  also signed by {name}, a key that was not named"))
    print(printable(f"  {proof.line.decode()}"))


def _refuse(file: str, why: str, hint: str, code: int, *, as_json: bool) -> None:
    if as_json:
        facts: dict[str, Any] = {"file": file, "proven": False, "reason": why, "exit_code": code}
        print_json(facts)
        return
    tell(f"{file}: {why}")
    if hint:
        print(f"hint: {printable(hint)}", file=sys.stderr, flush=True)


def _read(path: Path | None, most: int, what: str) -> bytes:
    """The content of a file, or of stdin, of at most *most* bytes.

    Raises:
        BadInput: It is longer, or cannot be read.
    """
    from holdfast.core.files import read_named

    if path is not None:
        return read_named(path, most, what)
    data = sys.stdin.buffer.read(most + 1)
    if len(data) > most:
        raise BadInput(f"stdin refused: more than {most} bytes", hint="give it one proof file")
    return data
