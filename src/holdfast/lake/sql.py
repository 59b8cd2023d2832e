"""SQL over a lake: each table is a view, the answer is Arrow.

    SELECT … ─▶ DuckDB ─▶ view risk_events = read_parquet(the files of the newest version)      a directory
                                            = an Arrow dataset of the same files                 a bucket

Promise: a question sees the newest version of each table, from the moment it was asked, and changes nothing: one
statement that reads, no file but the lake's own, no network, no setting changed. Nothing is downloaded: DuckDB's
own `delta` extension would have to be, so that the files of a version come from delta-rs instead. What cannot be
answered is said with the name that is nearest to what was asked for.

Limits: on S3 DuckDB reads through Arrow, which is several times slower than from a disk; `--from` and `--to`, or a
condition on event_date, let whole files be skipped. A file that a vacuum removed meanwhile ends the question.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from holdfast.core.errors import BadInput, LakeDamaged
from holdfast.lake.create import WIDENED
from holdfast.lake.extras import load
from holdfast.lake.store import LakeStore
from holdfast.lake.tables import PARTITION, TABLES

if TYPE_CHECKING:
    from types import TracebackType

    from deltalake import DeltaTable

_READS = frozenset({"SELECT", "EXPLAIN", "MULTI"})  # PIVOT is several statements for DuckDB
_RUNS = re.compile(r"\banaly[sz]e\b", re.IGNORECASE)
"""EXPLAIN with this word runs what it explains, a COPY over the lake's own files too."""
_NO_TABLE = re.compile(r"Table with name \"?([^\s\"]+)\"? does not exist")
_NO_COLUMN = re.compile(r"(?:Referenced (?:column|table)|have a column named) \"([^\"]+)\"")
_NO_FUNCTION = re.compile(r"(?:Scalar|Aggregate|Table) Function with name \"?([^\s\"]+)\"? does not exist")
_NAMED = re.compile(r"(?:Candidate bindings|Did you mean)[^\"]*\"([^\"]+)\"")


class Lake:
    """A lake that is open for questions.

    Attributes:
        versions: Which version of each table is asked.
    """

    def __init__(
        self, store: LakeStore, *, since: datetime | None = None, until: datetime | None = None
    ) -> None:
        """Open the newest version of each table in *store*, its rows from *since* to before *until*.

        Raises:
            BadInput: There is no table, or DuckDB is not installed.
            LakeDamaged: The log of a table cannot be read.
            LakeUnreachable: The store gave no usable answer.
        """
        self._store = store
        self._columns: dict[str, list[str]] = {}
        self._duckdb: Any = load("duckdb")
        load("pytz")  # DuckDB needs it for times with a zone
        self.versions: dict[str, int] = {}
        self._base: Any = self._duckdb.connect(
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        )
        self._base.execute("SET TimeZone = 'UTC'")
        tables = {kind.name: store.open(kind.name) for kind in TABLES if store.has(kind.name)}
        if not tables:
            store.open(TABLES[0].name)  # says by name that there is none
        files = {name: _local_files(table) for name, table in tables.items()} if store.is_local else {}
        allowed = _literals([file for named in files.values() for file in named])
        self._base.execute(f"SET allowed_paths = [{allowed}]")
        self._base.execute("SET enable_external_access = false")
        self._base.execute("SET lock_configuration = true")
        for name, table in tables.items():
            self._view(name, table, files.get(name), _between(since, until))

    def __enter__(self) -> Self:
        """The lake itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._base.close()

    def ask(self, sql: str, parameters: Mapping[str, str] | None = None, *, most: int | None = None) -> Any:
        """The answer to the question *sql* as a `pyarrow.Table`.

        Args:
            sql: One statement that reads.
            parameters: What stands for `$name` in it.
            most: Give at most so many rows of the answer, and compute no more than they need.

        Raises:
            BadInput: It is no such statement, or names what is not there; the hint says what is near.
            LakeDamaged: A file cannot be read.
        """
        try:
            statements: Sequence[Any] = self._base.extract_statements(sql)
            kinds = [str(one.type).rpartition(".")[2] for one in statements]
            if len(kinds) != 1:
                raise BadInput(
                    f"sql refused: {len(kinds)} statements, expected one", hint="ask one question at a time"
                )
            if kinds[0] == "EXPLAIN" and _RUNS.search(sql):
                raise BadInput(
                    "sql refused: EXPLAIN ANALYZE runs what it explains",
                    hint="ask for the plan with EXPLAIN alone",
                )
            if kinds[0] not in _READS:
                raise BadInput(
                    f"sql refused: {kinds[0]} is no question; the lake is only read",
                    hint="the journal is where rows come from; ask with SELECT, --parquet FILE keeps an answer",
                )
            answer = self._base.sql(sql, params=dict(parameters or {}))
            return (answer if most is None else answer.limit(most)).to_arrow_table()
        except self._duckdb.Error as why:
            raise self._told(why) from why
        except (OSError, ValueError) as why:
            if isinstance(why, BadInput):
                raise
            raise self._unreadable(str(why)) from why

    def columns(self, table: str) -> list[str]:
        """The columns of a view, in order."""
        return list(self._columns[table])

    # -- inside -------------------------------------------------------------------------------------------------

    def _view(self, name: str, table: DeltaTable, files: Sequence[str] | None, where: str) -> None:
        untyped: Any = table
        self.versions[name] = table.version()
        columns = self._columns[name] = [field.name for field in table.schema().fields]
        chosen = ", ".join(f'"{column}"' for column in columns)
        if files:
            gone = next((file for file in files if not Path(file).is_file()), None)
            if gone is not None:
                raise self._unreadable(f"{gone}: no such file")
            hive = ", ".join(
                f"'{one}': {_HIVE.get(one, 'VARCHAR')}" for one in table.metadata().partition_columns
            )
            more = f", hive_partitioning = true, hive_types = {{{hive}}}" if hive else ""
            if WIDENED in table.metadata().configuration:
                more += ", union_by_name = true"
            source = f"read_parquet([{_literals(files)}]{more})"
        else:
            with self._store.failures(f"read {name!r}"):
                source = f"{name}_files"
                self._base.register(source, untyped.to_pyarrow_dataset())
        try:
            self._base.execute(f'CREATE VIEW "{name}" AS SELECT {chosen} FROM {source} {where}')  # noqa: S608  our own names, and paths as literals
        except self._duckdb.Error as why:
            raise self._told(why) from why

    def _told(self, why: Exception) -> Exception:
        """DuckDB's error as ours: what is missing, and what is near."""
        text = str(why).strip()
        kind, _, rest = text.partition(": ")
        first = rest.splitlines()[0] if rest else text
        if (found := _NO_TABLE.search(text)) is not None:
            return self._missing("table", found[1], text, list(self._columns))
        if (found := _NO_COLUMN.search(text)) is not None:
            known = sorted({column for columns in self._columns.values() for column in columns})
            return self._missing("column", found[1], text, known)
        if (found := _NO_FUNCTION.search(text)) is not None:
            return self._missing("function", found[1], text, [])
        if "file system operations are disabled" in text or "configuration has been locked" in text:
            return BadInput(
                f"sql refused: {first}", hint="a question reads the lake's tables and nothing else"
            )
        if kind in {"IO Error", "Invalid Input Error", "Serialization Error"} and "parquet" in text.lower():
            return self._unreadable(first)
        where = _marked(text)
        return BadInput(f"sql refused: {kind.lower()}: {first}{where}", hint=self._tables_hint())

    def _missing(self, what: str, name: str, text: str, known: Sequence[str]) -> BadInput:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        near = close[0] if close else (named[1] if (named := _NAMED.search(text)) else "")
        hint = f"did you mean {near!r}?" if near else self._tables_hint()
        return BadInput(f"sql refused: there is no {what} {name!r}", hint=hint)

    def _tables_hint(self) -> str:
        return f"the tables are {', '.join(self._columns)}; DESCRIBE TABLE_NAME lists columns"

    def _unreadable(self, text: str) -> LakeDamaged:
        return LakeDamaged(
            f"lake {self._store}: a file cannot be read: {text.splitlines()[0][:300]}",
            hint="`holdfast lake verify` names what is damaged; if a vacuum removed it, ask again",
        )


_HIVE = {PARTITION: "DATE"}


def _local_files(table: DeltaTable) -> list[str]:
    return [unquote(uri.removeprefix("file://")) for uri in table.file_uris()]


def _literals(texts: Sequence[str]) -> str:
    return ", ".join("'" + text.replace("'", "''") + "'" for text in texts)


def _between(since: datetime | None, until: datetime | None) -> str:
    """A condition on the time, and one on the day that lets whole files be skipped."""
    parts: list[str] = []
    for moment, sign, day_sign in ((since, ">=", ">="), (until, "<", "<=")):
        if moment is not None:
            utc = moment.astimezone(UTC)
            parts.append(f"\"timestamp\" {sign} TIMESTAMPTZ '{utc:%Y-%m-%d %H:%M:%S.%f}+00'")
            parts.append(f"{PARTITION} {day_sign} DATE '{utc:%Y-%m-%d}'")
    return "WHERE " + " AND ".join(parts) if parts else ""


def _marked(text: str) -> str:
    """The place that DuckDB points at, from its `LINE 1: …` and the carets below."""
    lines = text.splitlines()
    for line, below in itertools.pairwise(lines):
        if line.startswith("LINE ") and "^" in below:
            return f" (at {line[below.index('^') :][:40].strip()!r})"
    return ""
