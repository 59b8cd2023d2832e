"""`holdfast audit witness`: cosign the checkpoints of pinned logs, and never a log that went back."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli.audit.verbs import Verbs, path_argument
from holdfast.cli.output import print_json, printable
from holdfast.core.errors import EXIT_OK, BadInput

if TYPE_CHECKING:
    from holdfast.anchors.witness import Witness

DEFAULT_PORT = 8720

_EXAMPLES = """examples:
  holdfast audit witness --dir ~/witness --log 'holdfast/0123…+1a2b3c4d+AY…'   # the key: holdfast audit keys show LOG
  holdfast audit anchor logs/audit --sink 'witness:http://127.0.0.1:8720 <the key it prints>'

a log once named with --log stays known; keep --dir on a machine of its own, and its key out of backups
exit code: 0 after Ctrl-C; 1 a record of the witness is damaged; 4 it runs already
"""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    witness = verbs.add(
        "witness", "cosign checkpoints of pinned logs and refuse a log that went back", _EXAMPLES, _witness
    )
    witness.add_argument(
        "--dir",
        type=path_argument,
        required=True,
        metavar="DIR",
        help="its key and its memory; made at the first start",
    )
    witness.add_argument(
        "--log", action="append", default=[], metavar="VKEY", help="a log to cosign; may be repeated"
    )
    witness.add_argument(
        "--name", metavar="NAME", help="of its key, at the first start (default: an invented one)"
    )
    witness.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    witness.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"0 takes a free one (default: {DEFAULT_PORT})"
    )
    witness.add_argument(
        "--expose", action="store_true", help="listen on an address that other machines reach"
    )


def _witness(args: argparse.Namespace) -> int:
    import asyncio

    from holdfast.anchors.witness import Witness
    from holdfast.audit.note import VerifierKey
    from holdfast.core.clock import SystemClock

    if not 0 <= args.port <= 65_535:
        raise BadInput(f"port {args.port} is outside 0 to 65535", hint="0 takes a free one")
    pins = [VerifierKey.parse(text) for text in args.log]
    _refuse_foreign(args.dir)
    witness = Witness(args.dir, clock=SystemClock(), name=args.name)
    try:
        for vkey in pins:
            witness.pin(vkey)
        return asyncio.run(_serve(args, witness))
    finally:
        witness.close()


def _refuse_foreign(directory: Path) -> None:
    """Refuse a directory of other things, such as a log: a witness in it would spoil both."""
    try:
        others = {path.name for path in directory.iterdir()} - {"key", "key.tmp", "logs"}
    except OSError:
        return  # whoever opens it says why
    if others:
        raise BadInput(
            f"no witness can live in {str(directory)!r}: it holds other things, such as {min(others)!r}",
            hint="choose a directory that is empty, or one that does not exist yet",
        )


async def _serve(args: argparse.Namespace, witness: Witness) -> int:
    import asyncio

    from holdfast.serve.witness import WitnessServer

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = WitnessServer(witness)
    url = await server.start(args.port, args.host, expose=args.expose)
    try:
        _announce(args, witness, url)
        await stop.wait()
    finally:
        await server.stop()
    return EXIT_OK


def _announce(args: argparse.Namespace, witness: Witness, url: str) -> None:
    logs = sorted(witness.logs().values(), key=lambda state: state.origin)
    if args.json:
        known = [{"origin": state.origin, "size": state.size, "epoch": state.epoch} for state in logs]
        print_json({"url": url, "vkey": str(witness.vkey), "logs": known})
    else:
        print(f"witness {printable(witness.vkey.name)} at {url}; Ctrl-C stops it")
        print(f"its key: {witness.vkey}")
        for state in logs:
            print(f"  log {printable(state.origin)}: {state.size} records cosigned")
        if not logs:
            print("  no log is known yet: name one with --log VKEY")
    # The line is what a parent waits for.
    sys.stdout.flush()
