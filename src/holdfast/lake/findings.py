"""What a comparison of a lake with its journals finds: plain values, for eyes, JSON and exit codes."""

from __future__ import annotations

import msgspec

from holdfast.core.errors import EXIT_INTEGRITY, EXIT_OK

MOST_RANGES = 100


class Range(msgspec.Struct, frozen=True, array_like=True):
    """Sequences from *first* to *last*, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        """For messages."""
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of damage in one table.

    Attributes:
        kind: unknown, missing, duplicate, foreign, changed, unreadable, statistics, claim, ahead or schema.
        table: Which table; "" where it concerns all of them.
        log_id: Of which journal's rows; "" where it concerns the whole table.
        count: How many rows, files or commits.
        ranges: Which sequences, the first `MOST_RANGES` ranges of them.
        what: One sentence.
    """

    kind: str
    table: str
    log_id: str = ""
    count: int = 1
    ranges: tuple[Range, ...] = ()
    what: str = ""

    def __str__(self) -> str:
        """For eyes."""
        shown = ", ".join(map(str, self.ranges[:8])) + (", …" if len(self.ranges) > 8 else "")
        where = f" (sequence {shown}; log {self.log_id[:8]})" if self.ranges else ""
        return f"{self.table}: {self.what}{where}" if self.table else f"{self.what}{where}"


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One table against one journal.

    Attributes:
        table: Its name.
        log_id: The journal's.
        rows: Rows of that journal in the newest version.
        expected: Rows that its records give, up to `covered`.
        covered: The last sequence that the table says it covers.
        journal: The last durable sequence of the journal.
        first_compared: Records before it were pruned, and their rows not compared.
        root: RFC 9162 root over the records that gave the expected rows, hexadecimal.
    """

    table: str
    log_id: str
    rows: int
    expected: int
    covered: int
    journal: int
    first_compared: int
    root: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        lake: Where.
        versions: Of each table, which version was compared.
        compared: Each table against each journal.
        others: Rows of journals that were not named, by table.
        findings: All damage; empty where there is none.
    """

    lake: str
    versions: dict[str, int]
    compared: tuple[Compared, ...]
    others: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.findings

    @property
    def exit_code(self) -> int:
        """What a command ends with."""
        return EXIT_OK if self.ok else EXIT_INTEGRITY
