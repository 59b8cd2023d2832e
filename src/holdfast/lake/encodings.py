"""How the lake's columns are laid down in Parquet: small on disk, and cheap to skip.

Promise: one choice for every writer of the lake: the projector's appends, compaction and a rebuild. Numbers and names
that grow with the log (sequences, times, ids) are stored as differences, everything else as dictionaries, all of it
compressed with zstd in row groups of 128 k rows. Measured over a million events of an options desk: 14 bytes each
in the order of the log and 18 sorted by execution, where Parquet's defaults take 25 (benches/bench_lake_query.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from holdfast.lake.extras import load

if TYPE_CHECKING:
    from deltalake import WriterProperties

ROW_GROUP_ROWS = 131_072
COMPRESSION = "ZSTD"
COMPRESSION_LEVEL = 3

_PACKED = "DELTA_BINARY_PACKED"
_PREFIXED = "DELTA_BYTE_ARRAY"
ENCODINGS: Mapping[str, str] = {
    "seq": _PACKED,
    "epoch": _PACKED,
    "n": _PACKED,
    "decision": _PACKED,
    "ts_ns": _PACKED,
    "timestamp": _PACKED,
    "market_ts_ns": _PACKED,
    "expiration_ns": _PACKED,
    "event_id": _PREFIXED,
    "decision_id": _PREFIXED,
    "intent_id": _PREFIXED,
    "order_id": _PREFIXED,
    "client_order_id": _PREFIXED,
    "trade_id": _PREFIXED,
}
"""The columns that are no dictionary, by name: hardly two rows share a value, and neighbours are alike."""


def delta_properties(columns: Collection[str]) -> WriterProperties:
    """What delta-rs writes a table of these *columns* with.

    Raises:
        BadInput: deltalake is not installed.
    """
    delta: Any = load("deltalake")
    properties: WriterProperties = delta.WriterProperties(
        compression=COMPRESSION,
        compression_level=COMPRESSION_LEVEL,
        max_row_group_size=ROW_GROUP_ROWS,
        column_properties={
            name: delta.ColumnProperties(dictionary_enabled=False, encoding=encoding)
            for name, encoding in ENCODINGS.items()
            if name in columns
        },
    )
    return properties


def parquet_options(columns: Collection[str]) -> dict[str, Any]:
    """The same for `pyarrow.parquet.write_table`, as its keyword arguments."""
    return {
        "compression": COMPRESSION.lower(),
        "compression_level": COMPRESSION_LEVEL,
        "row_group_size": ROW_GROUP_ROWS,
        "use_dictionary": [name for name in columns if name not in ENCODINGS],
        "column_encoding": {name: encoding for name, encoding in ENCODINGS.items() if name in columns},
    }
