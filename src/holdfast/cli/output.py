"""What every verb prints with: lines for eyes, plain lines for pipes, JSON Lines for programs.

A terminal gets rows that fit its width; anything else gets tab-separated lines under one header line, never
wrapped or cut. JSON goes out as one compact object per line, CSV so that no spreadsheet computes with it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

_INDENT = "    "
_GAP = "  "
_NARROWEST = 20
_WIDEST_PROSE = 118
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CONTROL = (
    {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
    | {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(128, 256)}  # bytes of a path that are not UTF-8
    # What turns the writing around, and separates lines.
    | {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))}
)


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the `--json` that every verb takes."""
    parser.add_argument("--json", action="store_true", help="print JSON, one object per line")


class HelpText(argparse.RawDescriptionHelpFormatter):
    """`--help` as wide as the terminal: prose is wrapped anew, commands and lists, which are indented, stay as written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        told: list[str] = []
        prose: list[str] = []
        for line in [*text.splitlines(), ""]:
            if prose and (not line.strip() or line[0] == " " or line.startswith("exit code")):
                told += textwrap.wrap(" ".join(prose), min(width, _WIDEST_PROSE), break_on_hyphens=False)
                prose = []
            if line.strip() and line[0] != " ":
                prose.append(line)
            else:
                told.append(line)
        return "\n".join(indent + line if line else "" for line in told[:-1])


def on_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def tell(sentence: str) -> None:
    """Say something beside the output, on stderr."""
    print(f"holdfast: {printable(sentence)}", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One compact JSON object and a newline."""
    import msgspec

    try:
        print(msgspec.json.encode(value).decode())
    except UnicodeEncodeError:
        import json

        # A path that is not UTF-8: its bytes go out as \udc80 to \udcff, which Python turns back into that path.
        print(json.dumps(msgspec.to_builtins(value), separators=(",", ":")))


@contextmanager
def quiet_stderr() -> Generator[None, None, None]:
    """Keep what Rust code prints, besides raising it, off the reader's screen; our own words still get there."""
    ours = sys.stderr
    ours.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with open(kept, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as screen:
            if ours is sys.__stderr__:
                sys.stderr = screen
            yield
    finally:
        sys.stderr = ours
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def printable(text: str) -> str:
    """*text* with what is no character for eyes spelled out: it cannot move the cursor, add a line or turn around."""
    return text.translate(_CONTROL)


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[str]], *, flush: bool = False) -> None:
    """Rows as CSV under a header line; a cell that a spreadsheet would read as a formula begins with an apostrophe."""
    import csv

    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(columns)
    for row in rows:
        out.writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in row])
        if flush:
            sys.stdout.flush()


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[int] = frozenset()
) -> None:
    """Rows for eyes, cells under their names, the columns numbered in *right* flush right.

    Where a row is wider than the terminal it goes on below, indented, and so do the names: no cell is cut into a
    column of letters. Only a cell that is wider than the whole terminal is broken.
    """
    cells = [[printable(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    most = max(_NARROWEST, shutil.get_terminal_size().columns)
    groups: list[list[int]] = [[]]
    taken = 0
    for at, width in enumerate(widths):
        if groups[-1] and taken + width > most:
            groups.append([])
            taken = len(_INDENT)
        groups[-1].append(at)
        taken += width + len(_GAP)
    for row in cells:
        for number, group in enumerate(groups):
            indent = _INDENT if number else ""
            placed = (row[at].rjust(widths[at]) if at in right else row[at].ljust(widths[at]) for at in group)
            line = indent + _GAP.join(placed).rstrip()
            while len(line) > most:
                print(line[:most])
                line = _INDENT + line[most:]
            if line.strip() or not number:
                print(line)


def print_records(columns: Sequence[str], rows: Iterable[Sequence[str]], *, flush: bool = False) -> None:
    """Rows, one at a time: tab-separated lines under *columns*; on a terminal the last cell stands below its row.

    The last cell is the long one. In a column of its own it would be as narrow as the others leave it. With
    *flush* each row is seen at once.
    """
    if not on_terminal():
        print("\t".join(columns), flush=flush)
        for row in rows:
            print("\t".join(printable(cell) for cell in row), flush=flush)
        return
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    for row in rows:
        *facts, text = map(printable, row)
        lines = textwrap.wrap(
            "  ".join(filter(None, facts)), width, subsequent_indent=_INDENT, break_on_hyphens=False
        )
        lines += textwrap.wrap(
            text, width, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False
        )
        print("\n".join(lines), flush=flush)
