"""Reading a file that somebody names: a key, a proof, a manifest, a configuration.

Promise: a pipe, a device or a directory is refused and not waited on, a file longer than the bound is refused and
not read, and the message names the file and never its content, which may be a private key.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from holdfast.core.errors import BadInput


def read_named(path: Path, most: int, what: str) -> bytes:
    """The whole content of the regular file *path*, at most *most* bytes.

    Args:
        path: As it was given.
        most: A longer file is not what was asked for.
        what: How a message calls it, for instance "manifest".

    Raises:
        BadInput: It cannot be read, is no regular file, or is too long.
    """
    try:
        # O_NONBLOCK: opening a pipe must not wait for its other end.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as why:
        raise BadInput(
            f"{what} {str(path)!r} cannot be read: {(why.strerror or str(why)).lower()}",
            hint="check the path, and the right of this user to read it",
        ) from why
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise BadInput(f"{what} {str(path)!r} is not a file", hint="name one regular file")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(most + 1) if facts.st_size <= most else b""
    except OSError as why:
        raise BadInput(
            f"{what} {str(path)!r} cannot be read: {(why.strerror or str(why)).lower()}",
            hint="check the disk",
        ) from why
    finally:
        os.close(fd)
    if max(facts.st_size, len(data)) > most:
        raise BadInput(
            f"{what} {str(path)!r} refused: {max(facts.st_size, len(data))} bytes > {most} bytes",
            hint=f"that is no {what}",
        )
    return data
