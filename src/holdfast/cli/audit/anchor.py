"""`holdfast audit anchor`: give a log's newest checkpoint to those who remember it elsewhere."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli.audit.verbs import Verbs, path_argument, require_log
from holdfast.cli.output import print_json, printable
from holdfast.core.errors import EXIT_CANNOT_ACT, EXIT_INTEGRITY, EXIT_OK, EXIT_UNREACHABLE, BadInput

if TYPE_CHECKING:
    from holdfast.anchors.sink import Outcome, Receipt
    from holdfast.anchors.submit import Anchorer

_EXAMPLES = """examples:
  holdfast audit anchor logs/audit                     # to the sinks of [anchors] in holdfast.toml
  holdfast audit anchor logs/audit --follow            # and again every minute, beside the writer
  holdfast audit anchor logs/audit --sink file:/mnt/second/anchors
  holdfast audit anchor logs/audit --sink 'witness:http://127.0.0.1:8720 witness.example/w1+1a2b3c4d+BA…'
  holdfast audit anchor logs/audit --sink 'rfc3161:https://freetsa.org/tsr cacert.pem' --sink s3://bucket/desk-1

receipts are kept beside the log's keys and are what `audit verify --anchor FILE` takes
exit code: 0 every sink has it; 3 a sink remembers what the log does not hold; 4 a sink refused; 5 one was not reached
"""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    anchor = verbs.add(
        "anchor", "give the newest checkpoint to witnesses and other anchors", _EXAMPLES, _anchor
    )
    anchor.add_argument("dir", metavar="DIR", type=path_argument)
    anchor.add_argument(
        "--sink",
        action="append",
        default=[],
        metavar="SINK",
        help="file:DIR, 'witness:URL VKEY', 'rfc3161:URL PEM' or s3://BUCKET/PREFIX; by default those configured",
    )
    anchor.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    anchor.add_argument("--every", type=_secs, metavar="SECS", help="how often, with --follow (default: 60)")
    anchor.add_argument(
        "--config", type=path_argument, metavar="FILE", help="another configuration than holdfast.toml"
    )


def _secs(text: str) -> float:
    try:
        secs = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < secs <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is outside 0 to 86,400 seconds")
    return secs


def _anchor(args: argparse.Namespace) -> int:
    from holdfast.anchors.opening import open_sink
    from holdfast.anchors.receipts import Receipts
    from holdfast.anchors.source import LogSource
    from holdfast.anchors.spec import parse_sink
    from holdfast.anchors.submit import Anchorer
    from holdfast.audit.keys import KeyHome
    from holdfast.config import key_home, load_config
    from holdfast.core.clock import SystemClock

    require_log(args.dir)
    config = load_config(args.config).anchors
    names = args.sink or list(config.sinks)
    if not names:
        raise BadInput(
            "no sink is named", hint='--sink file:DIR, or in holdfast.toml: [anchors] sinks = ["file:DIR"]'
        )
    specs = [parse_sink(name) for name in names]
    for spec in specs:
        if spec.kind == "file" and _lies_in(Path(spec.address), args.dir):
            raise BadInput(
                f"sink 'file:{spec.address}' lies in the log itself",
                hint="who takes the log takes it too: name a directory on another volume",
            )
    clock = SystemClock()
    home = KeyHome(key_home(os.environ))
    receipts = Receipts(home)
    sinks = [open_sink(spec, receipts, clock) for spec in specs]
    every = args.every or config.every_secs
    anchorer = Anchorer(LogSource(args.dir, home), sinks, receipts, clock=clock, every_secs=every)
    if args.follow:
        return _follow(args, anchorer)
    return _report(args, anchorer.step())


def _lies_in(path: Path, directory: Path) -> bool:
    """Whether *path* is *directory* or below it, whatever links lead there."""
    return path.resolve().is_relative_to(directory.resolve())


def _follow(args: argparse.Namespace, anchorer: Anchorer) -> int:
    """Until Ctrl-C, or until a sink says that the log went back."""
    import signal
    import threading

    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda _number, _frame: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        while not stop.is_set():
            if _report(args, anchorer.step()) == EXIT_INTEGRITY:
                return EXIT_INTEGRITY
            stop.wait(anchorer.wait_secs())
        return EXIT_OK
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(args: argparse.Namespace, receipts: Iterable[Receipt]) -> int:
    """Print one line for each sink; the exit code of the worst."""
    from holdfast.anchors.sink import Outcome

    codes = {
        Outcome.ANCHORED: EXIT_OK,
        Outcome.UNKNOWN: EXIT_UNREACHABLE,
        Outcome.REFUSED: EXIT_CANNOT_ACT,
        Outcome.WENT_BACK: EXIT_INTEGRITY,
    }
    given = list(receipts)
    for receipt in given:
        if args.json:
            print_json(
                {
                    "sink": receipt.sink,
                    "outcome": receipt.outcome.value,
                    "size": receipt.size,
                    "why": receipt.why,
                    "known_size": receipt.known_size,
                }
            )
        else:
            print(
                printable(f"{receipt.sink}: {receipt.outcome.value}, {receipt.size} records ({receipt.why})")
            )
    sys.stdout.flush()
    if any(one.outcome is Outcome.UNKNOWN and one.sink.startswith("file:") for one in given):
        print(
            "hint: a file: sink is a directory on another volume: mount it, or make it (mode 0700)",
            file=sys.stderr,
        )
    worst = max((receipt.outcome for receipt in given), key=_gravity, default=Outcome.ANCHORED)
    return codes[worst]


def _gravity(outcome: Outcome) -> int:
    return ("anchored", "unknown", "refused", "went back").index(outcome.value)
