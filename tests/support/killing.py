"""A child that is killed at a moment counted in what it said, so that it does not depend on the machine's speed."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence

PIECE_BYTES = 4096


def said_until_killed(command: Sequence[object], wanted: int) -> bytes:
    """Start *command*, kill it once it said *wanted* bytes; everything it said, the rest in the pipe included."""
    process = subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdout is not None
    output = bytearray()
    while len(output) < wanted:
        part = process.stdout.read(min(PIECE_BYTES, wanted - len(output)))
        assert part, "the writer ended by itself"
        output += part
    process.send_signal(signal.SIGKILL)
    output += process.stdout.read()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return bytes(output)
