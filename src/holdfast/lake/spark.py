"""The lake in Apache Spark, without a jar: a Python data source over deltalake.

    from holdfast.lake.spark import register
    register(spark)
    spark.read.format("holdfast").option("lake", "data/lake").option("table", "risk_events").load()

Promise: the rows of the newest version when the frame was made, each file a partition of its own; a directory and a
bucket are read alike, with the AWS variables of the driver. Spark only reads: the journal's projector is the one
writer.

Limits: PySpark 4.0 or newer, with holdfast and deltalake where its Python workers run. Columns are not pushed down;
on large tables select days before anything else by `option("from", "2025-11-01")` and `option("to", "2025-11-30")`,
both included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from holdfast.core.errors import BadInput
from holdfast.lake.extras import load
from holdfast.lake.store import store_of
from holdfast.lake.tables import PARTITION

FORMAT = "holdfast"

_SPARK_TYPES: Mapping[str, str] = {
    "string": "string",
    "int32": "int",
    "int64": "bigint",
    "double": "double",
    "bool": "boolean",
    "timestamp[us, tz=UTC]": "timestamp",
    "date32[day]": "date",
}
_BATCH_ROWS = 65_536


class Piece(NamedTuple):
    """One file of the version that is read.

    Attributes:
        path: Relative to the table.
        day: The value of the partition column.
    """

    path: str
    day: Any


class Snapshot:
    """What the driver sends to its workers: which files, and how to reach them; values that can be sent."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Look at the lake that *options* name.

        Raises:
            BadInput: No lake or table is named, or there is none.
        """
        missing = [name for name in ("lake", "table") if not options.get(name)]
        if missing:
            raise BadInput(
                f"data source {FORMAT!r} needs {' and '.join(missing)}",
                hint='.option("lake", "data/lake").option("table", "risk_events")',
            )
        store = store_of(options["lake"])
        table: Any = store.open(options["table"])
        pyarrow: Any = load("pyarrow")
        schema: Any = pyarrow.schema(table.schema().to_arrow())
        self.table_uri = store.table_uri(options["table"])
        self.storage = dict(store.options)
        self.schema = schema
        first, last = options.get("from", ""), options.get("to", "9999")
        adds: Any = pyarrow.table(table.get_add_actions(flatten=True))
        paths = adds.column("path").to_pylist()
        days = adds.column(f"partition.{PARTITION}").to_pylist()
        self.pieces = [
            Piece(unquote(path), day)
            for path, day in zip(paths, days, strict=True)
            if first <= str(day) <= last
        ]

    def ddl(self) -> str:
        """The schema in Spark's words.

        Raises:
            BadInput: A column has a type that the lake does not know.
        """
        columns = [(field.name, str(field.type)) for field in self.schema]
        unknown = [f"{name} {kind}" for name, kind in columns if kind not in _SPARK_TYPES]
        if unknown:
            raise BadInput(f"table {self.table_uri!r} has columns of other types: {', '.join(unknown)}")
        return ", ".join(f"`{name}` {_SPARK_TYPES[kind]}" for name, kind in columns)

    def read(self, piece: Piece) -> Iterator[Any]:
        """The record batches of one file, with the columns in the table's order; runs in a worker."""
        pyarrow: Any = load("pyarrow")
        filesystem = load("pyarrow.fs").PyFileSystem(
            load("deltalake.fs").DeltaStorageHandler(self.table_uri, self.storage or None)
        )
        file: Any = load("pyarrow.parquet").ParquetFile(filesystem.open_input_file(piece.path))
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            day = pyarrow.array([piece.day], pyarrow.date32())
            found = dict(zip(batch.schema.names, batch.columns, strict=True))
            found[PARTITION] = pyarrow.repeat(day[0], batch.num_rows)
            for field in self.schema:  # a file that is older than a column lacks it
                if field.name not in found:
                    found[field.name] = pyarrow.nulls(batch.num_rows, field.type)
            names = self.schema.names
            yield pyarrow.RecordBatch.from_arrays([found[name] for name in names], names)


class _Reader:
    """Spark's reader; its base comes from PySpark when `data_source` is asked for."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def partitions(self) -> list[Any]:
        """One for each file."""
        kind: Any = load("pyspark.sql.datasource").InputPartition
        return [kind(tuple(piece)) for piece in self.snapshot.pieces]

    def read(self, partition: Any) -> Iterator[Any]:
        """The batches of one partition."""
        return self.snapshot.read(Piece(*partition.value))


class _Source:
    """Spark's source; its base comes from PySpark when `data_source` is asked for."""

    options: Mapping[str, str]

    @classmethod
    def name(cls) -> str:
        """As in `spark.read.format(…)`."""
        return FORMAT

    def schema(self) -> str:
        """The table's columns."""
        return Snapshot(self.options).ddl()

    def reader(self, schema: Any) -> Any:  # noqa: ARG002  Spark's own, equal to ours
        """The reader of the newest version."""
        base: Any = load("pyspark.sql.datasource").DataSourceReader
        kind: Any = type("LakeReader", (_Reader, base), {})
        return kind(Snapshot(self.options))


def data_source() -> Any:
    """The class that `spark.dataSource.register` takes.

    Raises:
        BadInput: PySpark is not installed.
    """
    base: Any = load("pyspark.sql.datasource").DataSource
    return type("LakeSource", (_Source, base), {})


def register(spark: Any) -> None:
    """Let the session *spark* read lakes as `format("holdfast")`."""
    spark.dataSource.register(data_source())
