"""`holdfast audit checkpoint`: the newest checkpoint, over everything the log holds, with its tiles."""

from __future__ import annotations

import argparse
import sys
from base64 import b64encode
from pathlib import Path

from holdfast.cli.audit.verbs import Verbs, path_argument, require_log
from holdfast.cli.output import print_json, tell
from holdfast.core.errors import EXIT_OK, LogHeld

_EXAMPLES = """examples:
  holdfast audit checkpoint logs/audit > checkpoint-of-today
  holdfast audit checkpoint logs/audit --json

Prints a C2SP signed note, over every record that is durable. It is in the log's history before it is printed.
While another process writes the log, what is printed is that writer's newest, at most a second old.

exit code: 0 printed; 1 no such log, or it is not signed; 3 damaged; 4 the key is missing, or the disk refuses
"""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    checkpoint = verbs.add(
        "checkpoint", "sign what the log holds, complete its tiles, print the checkpoint", _EXAMPLES, _run
    )
    checkpoint.add_argument("dir", metavar="DIR", type=path_argument)


def _run(args: argparse.Namespace) -> int:
    from holdfast.audit.note import parse_checkpoint, parse_note
    from holdfast.cli.audit.writing import open_log

    require_log(args.dir)
    try:
        with open_log(args.dir) as log:  # its close completes the tiles
            note = log.checkpoint()
    except LogHeld as held:
        note = _published(args.dir, held)
        tell(f"{held}; this is its newest")
    if not args.json:
        sys.stdout.buffer.write(note)
        sys.stdout.flush()
        return EXIT_OK
    said = parse_checkpoint(parse_note(note).text)
    print_json(
        {
            "origin": said.origin,
            "size": said.size,
            "root": b64encode(said.root).decode(),
            "note": note.decode(),
        }
    )
    return EXIT_OK


def _published(directory: Path, held: LogHeld) -> bytes:
    """What the log's writer signed last.

    Raises:
        LogHeld: It has signed nothing.
    """
    from holdfast.audit.history import CHECKPOINT_NAME

    try:
        return (directory / CHECKPOINT_NAME).read_bytes()
    except FileNotFoundError:
        raise held from None
