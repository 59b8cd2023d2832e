"""How the command line opens a log that it writes: signed, with the keys of whoever runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli.output import tell

if TYPE_CHECKING:
    from holdfast.audit.wal import WriteAheadLog


def open_log(directory: Path, *, replace_key: bool = False) -> WriteAheadLog:
    """The log in *directory*, not yet opened; where its keys were made, if they were, is said on stderr.

    Args:
        directory: Made where it is missing.
        replace_key: Begin a new chain of keys where the private key in force is lost.
    """
    from holdfast.anchors.marks import anchor_marks
    from holdfast.audit.keys import KeyHome
    from holdfast.audit.wal import WriteAheadLog
    from holdfast.config import key_home, load_config
    from holdfast.core.clock import SystemClock

    keys = KeyHome(key_home(), tell=tell)
    marks = anchor_marks(keys, load_config().anchors.sinks)
    return WriteAheadLog(directory, clock=SystemClock(), keys=keys, marks=marks, replace_key=replace_key)
