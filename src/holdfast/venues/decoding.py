"""Recordings are decoded in a process of their own, which may die.

A damaged Parquet file can make the decoder ask for more memory than any machine has; it then aborts, and takes the
process with it. So a child decodes and hands over what it read as Arrow; a trader, an exchange or a broker reads that
alone. If the child dies, the file it was at is refused by name.

    parent                                child: python -m holdfast.venues.decoding
    {"file": F}                    ─▶     what are its columns?
                                   ◀─     {"columns": [...], "metadata": {...}}
    {"file": F, "columns": [...]}  ─▶     these columns; null for all
                                   ◀─     {"size": N} and N bytes, an Arrow IPC stream
                                   ◀─     or {"refused": why}, to either

Each message is one line of JSON. The child ends with its standard input.
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
        self._end()
        self._complaints.close()

    def contents(self, file: Path) -> Contents:
        """Its columns and metadata, without its rows.

        Raises:
            BadInput: The file cannot be read or decoded; named.
        """
        return self._ask(file, _Asked(str(file)))[0]

    def frame(self, file: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of *columns*, or of all.

        Raises:
            BadInput: The file cannot be read or decoded, or lacks a column; named.
        """
        _, stream = self._ask(file, _Asked(str(file), None if columns is None else list(columns)))
        return pl.read_ipc_stream(io.BytesIO(stream))

    def _ask(self, file: Path, asked: _Asked) -> tuple[_Answer, bytes]:
        if not file.is_file():  # opening a pipe would wait for its other end
            raise BadInput(
                f"recording {str(file)!r} is not a file", hint="name a recording, or the folder that holds it"
            )
        if self._child is None:
            self._child = self._start()
        child = self._child
        assert child.stdin is not None  # noqa: S101  PIPE was asked for
        assert child.stdout is not None  # noqa: S101  as above
        # Parent and child share the place in it, and the child is idle: what it says from here on is of this file.
        self._complaints.seek(0)
        self._complaints.truncate()
        with suppress(BrokenPipeError):  # it died: no answer will come, which is told below
            child.stdin.write(msgspec.json.encode(asked) + b"\n")
            child.stdin.flush()
        line = child.stdout.readline()
        answer = msgspec.json.decode(line, type=_Answer) if line.endswith(b"\n") else None
        stream = child.stdout.read(answer.size) if answer is not None else b""
        if answer is None or len(stream) < answer.size:
            raise self._refusal(file, self._why_it_died())
        if answer.refused:
            raise self._refusal(file, answer.refused)
        return answer, stream

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, "RUST_BACKTRACE": "0"},
        )

    def _end(self) -> int:
        """How the child ended, as Popen's returncode: it has nothing to lose."""
        if self._child is None:
            return 0
        child, self._child = self._child, None
        assert child.stdin is not None  # noqa: S101  PIPE was asked for
        assert child.stdout is not None  # noqa: S101  as above
        child.stdout.close()
        with suppress(BrokenPipeError):  # it died before it read all
            child.stdin.close()
        try:
            return child.wait(_END_SECS)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()

    def _why_it_died(self) -> str:
        code = self._end()
        self._complaints.seek(0)
        said = self._complaints.readline(_LONGEST_REASON).decode(errors="replace").strip()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"its decoder died of it ({how}{': ' if said else ''}{said})"

    @staticmethod
    def _refusal(file: Path, why: str) -> BadInput:
        return BadInput(
            f"recording {str(file)!r} is damaged or no parquet file: {why}",
            hint="restore the file; a download that stopped half-way looks like this",
        )


def _read(asked: _Asked) -> tuple[_Answer, bytes | memoryview]:
    if asked.columns is msgspec.UNSET:
        columns = frozenset(pl.read_parquet_schema(asked.file))
        return _Answer(columns=columns, metadata=pl.read_parquet_metadata(asked.file)), b""
    stream = io.BytesIO()
    pl.read_parquet(asked.file, columns=asked.columns).write_ipc_stream(stream)
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
