"""From a piece of a journal to Arrow, many records at once: what the projector, a rebuild and a comparison read with.

Promise: exactly the rows that `rows.row_of` makes of the same records, one after the other. A piece's risk events, the
many, are decoded in one call and become columns without having been rows. Where one of them is not as nearly all are,
halves are tried, and of the last few the rows are made singly.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from holdfast.audit.format import LineFacts, leaf_hash
from holdfast.lake.extras import load
from holdfast.lake.journal import Piece
from holdfast.lake.rows import DAY_NS, RISK_VERSION, RiskFields, Row, array_of, arrow_of, event_id, row_of
from holdfast.lake.tables import LATE, RISK_EVENT, TABLE_OF, LakeTable, RiskEventsTable

_PROJECTED = frozenset({*TABLE_OF, LATE})
_FEW = 32
"""So many risk events are not halved any more where one of them is out of the ordinary."""
_NUMBERS = (
    "entry_premium", "current_premium", "highest_premium", "stop_premium", "current_value", "limit_value",
)  # fmt: skip
_NUMBER_WIDTH = 12

_decode_events = msgspec.json.Decoder(RiskFields).decode_lines


class Made(NamedTuple):
    """Rows of one table from one piece of a journal.

    Attributes:
        seqs: Their sequences, ascending.
        rows: They, as a `pyarrow.Table` in the same order.
        leaves: The leaf hashes of their records.
    """

    seqs: list[int]
    rows: Any
    leaves: list[bytes]

    def behind(self, seq: int) -> Made:
        """Those of records behind *seq*."""
        at = bisect_right(self.seqs, seq)
        return self if not at else Made(self.seqs[at:], self.rows.slice(at), self.leaves[at:])

    def until(self, seq: int) -> Made:
        """Those of records up to *seq*."""
        at = bisect_right(self.seqs, seq)
        return (
            self if at == len(self.seqs) else Made(self.seqs[:at], self.rows.slice(0, at), self.leaves[:at])
        )


def made_of(piece: Piece, log_id: str) -> dict[type[LakeTable], Made]:
    """The rows of each table that the records of *piece*, of journal *log_id*, give."""
    events = [facts for facts in piece.facts if facts.type == RISK_EVENT]
    others = piece.facts if len(events) < len(piece.facts) else []
    found: dict[type[LakeTable], tuple[list[int], list[Row]]] = {}
    if any(facts.type == LATE for facts in others):
        events = []  # one of them may be a late risk event, with its place among the others
    for facts in others:
        if facts.type not in _PROJECTED or (events and facts.type == RISK_EVENT):
            continue
        if (made := row_of(facts, log_id, piece.epoch)) is not None:
            seqs, rows = found.get(made[0]) or found.setdefault(made[0], ([], []))
            seqs.append(facts.seq)
            rows.append(made[1])
    arrows = {table: (seqs, arrow_of(table, rows)) for table, (seqs, rows) in found.items()}
    if events:
        arrows[RiskEventsTable] = [facts.seq for facts in events], _risk_events(events, log_id, piece.epoch)
    first, lines = piece.first_seq, piece.lines
    return {
        table: Made(seqs, rows, [leaf_hash(lines[seq - first]) for seq in seqs])
        for table, (seqs, rows) in arrows.items()
    }


def joined(rows: Iterable[Any], table: type[LakeTable]) -> Any:
    """Several Arrow tables of one lake table as one."""
    parts = list(rows)
    return load("pyarrow").concat_tables(parts).combine_chunks() if parts else arrow_of(table, ())


def _risk_events(events: Sequence[LineFacts], log_id: str, epoch: int) -> Any:
    try:
        return _ordinary(events, log_id, epoch)
    except ValueError:  # msgspec's errors and Arrow's are ValueErrors
        if len(events) > _FEW:
            half = len(events) // 2
            halves = (_risk_events(some, log_id, epoch) for some in (events[:half], events[half:]))
            return load("pyarrow").concat_tables(halves)
    made = (row_of(facts, log_id, epoch) for facts in events)
    return arrow_of(RiskEventsTable, [one[1] for one in made if one is not None])


def _ordinary(events: Sequence[LineFacts], log_id: str, epoch: int) -> Any:
    """The rows of *events*, all of which are ordinary.

    Raises:
        ValueError: One is not.
    """
    pa: Any = load("pyarrow")
    details = _decode_events(b"\n".join([facts.details for facts in events]))
    if len(details) != len(events):
        raise ValueError("details that are not one object each")
    schema = RiskEventsTable.schema()
    times = [facts.ts for facts in events]
    columns: dict[str, Any] = dict(zip(RiskFields.__struct_fields__, _transposed(details), strict=True))
    columns |= _numbers(columns)
    columns["metadata"] = _objects(columns["metadata"])
    columns |= {
        "event_id": _event_ids([facts.seq for facts in events], log_id, epoch),
        "component": [facts.component for facts in events],
        "timestamp": [ts // 1000 for ts in times],
        "writer_id": [log_id] * len(events),
        "epoch": [epoch] * len(events),
        "seq": [facts.seq for facts in events],
        "ts_ns": times,
        "event_date": [ts // DAY_NS for ts in times],
        "schema_version": [RISK_VERSION] * len(events),
    }
    return pa.Table.from_arrays([_array(columns[field.name], field) for field in schema], schema=schema)


def _transposed(details: Sequence[RiskFields]) -> Iterable[tuple[Any, ...]]:
    return zip(*map(msgspec.structs.astuple, details), strict=True)


def _array(values: Any, field: Any) -> Any:
    """The array of a column; empty text is NULL where a column may be empty."""
    pa: Any = load("pyarrow")
    if isinstance(values, pa.Array):
        return values
    if field.nullable and field.type == pa.string() and "" in values:
        values = [value or None for value in values]
    return array_of(values, field.type)


def _numbers(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that are decimal text, as float64.

    Raises:
        ValueError: One says something else, or no finite number.
    """
    pa: Any = load("pyarrow")
    compute: Any = load("pyarrow.compute")
    made: dict[str, Any] = {}
    total: Any = 0.0
    for name in _NUMBERS:
        made[name] = array_of([text or None for text in columns[name]], pa.string()).cast(pa.float64())
        if made[name].null_count < len(made[name]):
            total = compute.add(total, made[name].fill_null(0.0))
    # As for one row: the sum finds a NaN or an infinity, and says no to sums that overflow too.
    if not compute.all(compute.is_finite(total)).as_py():
        raise ValueError("no finite number")
    return made


def _objects(values: Sequence[msgspec.Raw]) -> Any:
    """JSON objects as text.

    Raises:
        ValueError: One is no object.
    """
    pa: Any = load("pyarrow")
    compute: Any = load("pyarrow.compute")
    texts = array_of([bytes(value).decode() for value in values], pa.string())
    if not compute.all(compute.starts_with(texts, "{")).as_py():
        raise ValueError("metadata that is no object")
    return texts


def _event_ids(seqs: Sequence[int], log_id: str, epoch: int) -> Any:
    """What `rows.event_id` makes of each of *seqs*."""
    pa: Any = load("pyarrow")
    compute: Any = load("pyarrow.compute")
    prefix = event_id(log_id, epoch, 0)[:-_NUMBER_WIDTH]
    numbers = compute.utf8_lpad(pa.array(seqs, pa.int64()).cast(pa.string()), _NUMBER_WIDTH, "0")
    return compute.binary_join_element_wise(prefix, numbers, "")
