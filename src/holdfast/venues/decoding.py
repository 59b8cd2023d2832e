"""Recordings are decoded in a process of their own, which may die.

A damaged Parquet file can make the decoder ask for more memory than any machine has; it then aborts, and takes the
process with it. So a child decodes and hands over what it read as Arrow; a trader, an exchange or a broker reads that
alone. If the child dies, the file it was at is refused by name.

    parent                                child: python -P -m holdfast.venues.decoding
    {"file": F}                    ─▶     what are its columns?
                                   ◀─     {"columns": [...], "metadata": {...}}
    {"file": F, "columns": [...]}  ─▶     these columns; null for all
                                   ◀─     {"size": N} and N bytes, an Arrow IPC stream
                                   ◀─     or {"refused": why}, to either

Each message is one line of JSON; a file is named by the bytes of its path, in hexadecimal. The child ends with its
standard input, hears no Ctrl-C of a terminal, and imports nothing from the working directory. Who is interrupted while
he waits for an answer kills it: no later question gets an earlier one's answer.
"""

# The signatures of polars name numpy types, and numpy is not installed.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Self

import msgspec
import polars as pl

from holdfast.core.errors import BadInput

_LONGEST_REASON: Final = 160
_END_SECS: Final = 5


class _Asked(msgspec.Struct, omit_defaults=True):
    file: str
    """`os.fsencode` of its path, hexadecimal."""
    columns: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    """UNSET: which ones are there?"""


class Contents(msgspec.Struct, frozen=True):
    """What a file says of itself: the names of its columns, and its footer's texts by their keys."""

    columns: frozenset[str] = frozenset()
    metadata: dict[str, str] = {}


class _Answer(Contents, frozen=True, omit_defaults=True):
    size: int = 0
    refused: str = ""


class Decoder:
    """A child that decodes Parquet files, one after the other; started by the first one, ended by leaving the block.

    One thread at a time.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  __exit__ closes it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._complaints.close()

    def contents(self, file: Path) -> Contents:
        """Its columns and metadata, without its rows.

        Raises:
            BadInput: The file cannot be read or decoded; named.
        """
        return self._ask(file)[0]

    def frame(self, file: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of *columns*, or of all.

        Raises:
            BadInput: The file cannot be read or decoded, or lacks a column; named.
        """
        _, stream = self._ask(file, None if columns is None else list(columns))
        return pl.read_ipc_stream(stream)

    def _ask(
        self, file: Path, columns: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    ) -> tuple[_Answer, bytes]:
        if not file.is_file():  # opening a pipe would wait for its other end
            raise BadInput(
                f"recording {str(file)!r} is not a file", hint="name a recording, or the folder that holds it"
            )
        try:
            file.open("rb").close()
        except OSError as error:
            raise BadInput(
                f"recording {str(file)!r} cannot be read: {error.strerror}", hint="check the permissions"
            ) from error
        # As it is called without our own working directory and descriptors: /dev/stdin is another file there.
        asked = _Asked(os.fsencode(os.path.realpath(file)).hex(), columns)
        try:
            answer, stream = self._answer(msgspec.json.encode(asked) + b"\n")
        except BaseException:
            self._kill()
            raise
        if answer is None:
            raise BadInput(
                f"recording {str(file)!r} cannot be decoded: {self._why_it_died()}",
                hint="restore the file; if it is whole, the machine has too little memory for it",
            )
        if answer.refused:
            raise BadInput(
                f"recording {str(file)!r} is damaged or no parquet file: {answer.refused}",
                hint="restore the file; a download that stopped half-way looks like this",
            )
        return answer, stream

    def _answer(self, question: bytes) -> tuple[_Answer | None, bytes]:
        """The child's answer; None where it died instead, or said something else."""
        child = self._child = self._child or self._start()
        assert child.stdin is not None  # noqa: S101  PIPE was asked for
        assert child.stdout is not None  # noqa: S101  as above
        # Parent and child share the place in it, and the child is idle: what it says from here on is of this file.
        self._complaints.seek(0)
        self._complaints.truncate()
        with suppress(BrokenPipeError):  # it died: no answer will come
            child.stdin.write(question)
            child.stdin.flush()
        line = child.stdout.readline()
        with suppress(msgspec.DecodeError):
            answer = msgspec.json.decode(line, type=_Answer)
            stream = child.stdout.read(answer.size)
            if len(stream) == answer.size:
                return answer, stream
        return None, b""

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, "RUST_BACKTRACE": "0"},
            start_new_session=True,
        )

    def _kill(self) -> int:
        """End the child, which has nothing to lose, and return how it ended, as Popen's returncode."""
        child, self._child = self._child, None
        if child is None:
            return 0
        child.kill()
        with suppress(BrokenPipeError):  # what it did not read is nothing to it any more
            child.communicate()
        return child.returncode

    def _why_it_died(self) -> str:
        if self._child is not None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(_END_SECS)
        code = self._kill()
        self._complaints.seek(0)
        said = self._complaints.readline(_LONGEST_REASON).decode(errors="replace").strip()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"its decoder died ({how}{': ' if said else ''}{said})"


def _read(asked: _Asked) -> tuple[_Answer, bytes | memoryview]:
    # Opened here: of a path polars takes * and [ for patterns, and what looks like a URL for one.
    with open(bytes.fromhex(asked.file), "rb") as file:  # noqa: PTH123  a path may be no text
        if asked.columns is msgspec.UNSET:
            columns = frozenset(pl.read_parquet_schema(file))
            file.seek(0)
            return _Answer(columns=columns, metadata=pl.read_parquet_metadata(file)), b""
        frame = pl.read_parquet(file, columns=asked.columns)
    stream = io.BytesIO()
    frame.write_ipc_stream(stream)
    return _Answer(size=len(stream.getbuffer())), stream.getbuffer()


def main() -> None:
    """Decode what is asked for on standard input, until it ends."""
    for line in sys.stdin.buffer:
        try:
            answer, stream = _read(msgspec.json.decode(line, type=_Asked))
        # A damaged file surfaces as anything; polars' own panic derives from BaseException.
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001  the task of this line ends here
            reason = str(error).strip().split("\n")[0][:_LONGEST_REASON] or type(error).__name__
            answer, stream = _Answer(refused=reason), b""
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.write(stream)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
