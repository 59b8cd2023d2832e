"""`holdfast audit keys init | rotate | show | pin`: the keys that sign a log."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.cli.audit.verbs import Verbs, path_argument, refuse_folder_of_logs, require_log
from holdfast.cli.output import print_json, printable
from holdfast.core.errors import EXIT_OK, BadInput

if TYPE_CHECKING:
    from holdfast.audit.keys import LogKeys
    from holdfast.audit.wal import WriteAheadLog

_EXAMPLES = """examples:
  holdfast audit keys init logs/audit             # make the log, its id, its first key and its pin
  holdfast audit keys show logs/audit             # what signs it, what is pinned, and where
  holdfast audit keys rotate logs/audit           # begin a new segment with a new key; the old key is destroyed
  holdfast audit keys pin logs/audit 'holdfast/…+1a2b3c4d+A…'
  holdfast audit keys init logs/audit --replace   # the private key is lost: begin a new chain of keys

The keys are in $HOLDFAST_HOME, else in ~/.config/holdfast. A verifier believes the keys that are pinned, and those
that follow from them. A destroyed key is overwritten before it is removed; copies that an SSD, a snapshot or a
backup keeps are not reached.

exit code: 0 done; 1 nothing to do, or bad input; 4 another process writes the log
"""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    actions = Verbs(verbs.add("keys", "make, change, show and pin the keys of a log", _EXAMPLES, _show))
    init = actions.add("init", "begin to sign a log, making it where it is missing", _EXAMPLES, _init)
    init.add_argument("dir", metavar="DIR", type=path_argument)
    init.add_argument(
        "--replace", action="store_true", help="the private key is lost: begin a new chain of keys"
    )
    rotate = actions.add("rotate", "let a new key sign from here on", _EXAMPLES, _rotate)
    rotate.add_argument("dir", metavar="DIR", type=path_argument)
    show = actions.add("show", "print what signs a log and what is pinned", _EXAMPLES, _show)
    show.add_argument("dir", metavar="DIR", type=path_argument)
    pin = actions.add("pin", "let a public key count for a log", _EXAMPLES, _pin)
    pin.add_argument("dir", metavar="DIR", type=path_argument)
    pin.add_argument("key", metavar="KEY", help="a verifier key, name+id+base64, as `keys show` prints it")


def _init(args: argparse.Namespace) -> int:
    from holdfast.cli.audit.writing import open_log

    refuse_folder_of_logs(args.dir)
    with open_log(args.dir, replace_key=args.replace) as log:
        log.open()
        if args.replace and log.vkey:
            raise BadInput(
                f"nothing to replace: the private key of epoch {log.epoch} is here",
                hint=f"for a new key: holdfast audit keys rotate {args.dir}",
            )
        if not log.vkey:
            log.rotate()
    return _show(args)


def _rotate(args: argparse.Namespace) -> int:
    from holdfast.cli.audit.writing import open_log

    _folder(args.dir)
    with open_log(args.dir) as log:
        before = _epoch(log)
        log.rotate()
        if log.epoch == before:
            raise BadInput(
                f"nothing to rotate: the key of epoch {before} has signed no record yet",
                hint="append something first",
            )
    return _show(args)


def _epoch(log: WriteAheadLog) -> int:
    log.open()
    return log.epoch


def _pin(args: argparse.Namespace) -> int:
    from holdfast.audit.note import VerifierKey

    key = VerifierKey.parse(args.key)
    _, keys = _folder(args.dir)
    is_new = keys.pin(key)
    if args.json:
        print_json({"log_id": keys.log_id, "pinned": str(key), "new": is_new})
    else:
        print(f"{'pinned' if is_new else 'was pinned already'}: {key}")
    return EXIT_OK


def _show(args: argparse.Namespace) -> int:
    facts, keys = _folder(args.dir)
    water = keys.high_water()
    current = keys.current()
    facts |= {
        "keys": str(keys.path),
        "private_key_here": current is not None and str(current.signer.vkey) == facts["vkey"],
        "pins": [str(pin) for pin in keys.pins()],
        "high_water": 0 if water is None else water.checkpoint.size,
    }
    if args.json:
        print_json(facts)
        return EXIT_OK
    print(f"log         {facts['log_id']}, origin {printable(facts['origin'])}")
    if not facts["epoch"]:
        print("key         none: the log is not signed; its next record begins to sign it")
    else:
        here = "here" if facts["private_key_here"] else "NOT here; if it is lost: keys init --replace"
        print(f"key         epoch {facts['epoch']}, private key {here}")
        print(f"            {facts['vkey']}")
    print(f"kept in     {printable(facts['keys'])}")
    for pin in facts["pins"] or ["none"]:
        print(f"pinned      {pin}")
    print(f"high-water  {facts['high_water']} records")
    return EXIT_OK


def _folder(directory: Path) -> tuple[dict[str, Any], LogKeys]:
    """What the log in *directory* says of its keys, and where they are kept.

    Raises:
        BadInput: There is no log, or none of its records can be read.
    """
    from holdfast.audit.evidence import newest_epochs, who
    from holdfast.audit.keys import KeyHome
    from holdfast.audit.recovery import log_segments
    from holdfast.audit.storage import LocalStorage
    from holdfast.config import key_home

    require_log(directory)
    home = LocalStorage().directory(directory, create=False)
    try:
        segments = log_segments(home)
        log_id, origin = who(home, segments)
        epoch = next(newest_epochs(home, segments), None)
    finally:
        home.close()
    if not log_id:
        raise BadInput(
            f"{str(directory)!r} holds no record that names a log",
            hint="its next record begins to sign it; holdfast audit verify says what is there",
        )
    facts: dict[str, Any] = {
        "log_id": log_id,
        "origin": origin,
        "epoch": 0 if epoch is None else epoch.number,
        "vkey": "" if epoch is None else str(epoch.vkey),
    }
    return facts, KeyHome(key_home()).log(log_id)
