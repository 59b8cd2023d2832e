"""What every verb prints with: a table for eyes, plain lines for pipes, JSON Lines for programs.

A terminal gets a table (drawn by rich, imported only then); anything else gets tab-separated lines under one
header line, never wrapped or cut. JSON goes out as one compact object per line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the `--json` that every verb takes."""
    parser.add_argument("--json", action="store_true", help="print JSON, one object per line")


def on_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    """One compact JSON object and a newline."""
    import msgspec

    print(msgspec.json.encode(value).decode())


def printable(text: str) -> str:
    """*text* with control characters spelled out: a record cannot move the reader's cursor or add a line."""
    return text.translate(_CONTROL)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Rows under named columns: a table on a terminal, tab-separated lines elsewhere."""
    if not on_terminal():
        print("\t".join(columns))
        for row in rows:
            print("\t".join(printable(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title or None, header_style="bold", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    Console().print(table)
