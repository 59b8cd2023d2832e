"""Places where a program meets its limits: a volume that is full, a folder that anybody may enter, no rights at all."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

NOBODY = 65_534


class Volume(NamedTuple):
    """A small volume of its own."""

    path: Path

    def fill(self) -> None:
        """Take whatever room is left."""
        with (self.path / "fill").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        (self.path / "fill").unlink()


@contextmanager
def small_volume(place: Path) -> Iterator[Volume]:
    """512 KiB in memory at *place*; needs the right to mount."""
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if not mounted or mounted.returncode:
        why = mounted.stderr.strip() if mounted else "no mount command"
        pytest.skip(f"NO REALLY FULL DISK: tmpfs cannot be mounted ({why})")
    try:
        yield Volume(place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def small_files(most: int) -> dict[str, Any]:
    """Options of a child process none of whose files may grow beyond *most* bytes, as on a disk without room.

    It keeps no module that it compiles: Python would leave a cut off one there, for everybody.
    """
    return {
        "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        "env": os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    }


@contextmanager
def only_small_files(most: int) -> Iterator[None]:
    """The same in this process and the children it starts."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def folder_for_everybody() -> Iterator[Path]:
    """A folder that every user can enter, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-open-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody() -> tuple[str, ...]:
    """What stands before a command so that modes bind it: nothing for a plain user, another user for root."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root ignores modes, and setpriv is missing: no unwritable directory can be made")
    before = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    if subprocess.run([*before, sys.executable, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"root ignores modes, and another user cannot start {sys.executable}")
    return before
