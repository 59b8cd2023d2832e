"""Parquet exports: typed columns, row groups as they come, zstd; everything here needs pyarrow.

Columns as `export.COLUMNS`, with `timestamp` as nanoseconds UTC, `leaf` as 32 bytes and, with proofs, `line` as
bytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from holdfast.core.errors import BadInput
from holdfast.core.extras import how_to_install

if TYPE_CHECKING:
    from holdfast.archive.export import Row


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as why:
        raise BadInput("Parquet needs pyarrow", hint=how_to_install("lake")) from why


class ParquetSink:
    """Writes rows to an open file."""

    def __init__(self, out: IO[bytes], *, with_lines: bool) -> None:
        self._arrow, parquet = _pyarrow()
        arrow = self._arrow
        text = arrow.string()
        fields = [
            ("sequence", arrow.int64()),
            ("timestamp", arrow.timestamp("ns", tz="UTC")),
            ("timestamp_ns", arrow.int64()),
            ("event_type", text),
            ("user_id", text),
            ("component", text),
            ("details", text),
            ("leaf", arrow.binary(32)),
        ]
        self._with_lines = with_lines
        self._schema = arrow.schema([*fields, ("line", arrow.binary())] if with_lines else fields)
        self._writer = parquet.ParquetWriter(out, self._schema, compression="zstd")

    def put(self, rows: list[Row]) -> None:
        """Write one row group."""
        from holdfast.audit.format import encode_details  # noqa: PLC0415  nothing to import for an empty export

        if not rows:
            return
        records = [row.record for row in rows]
        columns: list[list[Any]] = [
            [record.seq for record in records],
            [record.ts for record in records],
            [record.ts for record in records],
            [record.type for record in records],
            [record.user for record in records],
            [record.component for record in records],
            [encode_details(record.details).decode() for record in records],
            [row.leaf for row in rows],
        ]
        if self._with_lines:
            columns.append([row.line for row in rows])
        arrays = [
            self._arrow.array(column, type=field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


def parquet_lines(path: Path) -> Iterator[bytes]:
    """The column `line` of an export, row by row.

    Raises:
        BadInput: It is no Parquet file with that column.
    """
    arrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=["line"]):
                yield from batch.column(0).to_pylist()
    except (arrow.ArrowException, OSError, IndexError) as why:
        raise BadInput(f"{path.name}: not a Parquet export with lines: {why}") from why
