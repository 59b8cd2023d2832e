"""Small files that are replaced whole: after a crash there is the old content or the new one, never a mixture."""

from __future__ import annotations

from holdfast.audit.storage import Directory
from holdfast.core.errors import BadInput


def replace_file(directory: Directory, name: str, data: bytes, temporary: str = "") -> None:
    """Make *data* the content of *name*, durably: temporary file, fsync, rename, sync of the directory.

    Args:
        directory: Where.
        name: Of the file.
        data: Its new content.
        temporary: A name that nobody else uses meanwhile; by default one that a single writer may use.
    """
    temporary = temporary or f"{name}.tmp"
    if temporary in directory.names():
        directory.unlink(temporary)  # a killed process left it
    file = directory.create(temporary)
    try:
        done = 0
        while done < len(data):
            done += file.pwrite(data[done:], done)
        file.fsync()
    finally:
        file.close()
    directory.rename(temporary, name)
    directory.sync()


def read_file(directory: Directory, name: str, most: int) -> bytes:
    """The content of *name*, of at most *most* bytes.

    Raises:
        BadInput: It is longer, so it is not what is kept here.
    """
    file = directory.open(name)
    try:
        size = file.size()
        if size > most:
            raise BadInput(f"{str(directory.path / name)!r} refused: {size} bytes > {most} bytes")
        return file.pread(size, 0) if size else b""
    finally:
        file.close()
