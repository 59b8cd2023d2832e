"""What is said of a data file is true of its rows, and what is not true is told."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.lake.filestats import Bounds, Claimed, Counted, written_stats

pytestmark = [pytest.mark.contract("B8"), pytest.mark.invariant("I10")]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENTS = st.integers(0, 4 * 10**15).map(lambda us: EPOCH + timedelta(microseconds=us))
_ROWS = st.lists(
    st.tuples(_MOMENTS, st.integers(-(2**63), 2**63 - 1), st.none() | st.text(max_size=70)),
    min_size=1,
    max_size=20,
)


def _table(rows) -> pa.Table:
    moments, seqs, symbols = zip(*rows, strict=True)
    return pa.table(
        {
            "timestamp": pa.array(moments, pa.timestamp("us", tz="UTC")),
            "seq": pa.array(seqs, pa.int64()),
            "symbol": pa.array(symbols, pa.string()),
        }
    )


def _claimed(table: pa.Table) -> Claimed:
    """What a reader makes of what is written of *table*."""
    said = json.loads(written_stats(table))
    low, high = said["minValues"], said["maxValues"]
    for bounds in (low, high):
        if "timestamp" in bounds:
            bounds["timestamp"] = datetime.fromisoformat(bounds["timestamp"])
    names = said["nullCount"]
    return Claimed(
        said["numRecords"], {name: Bounds(names[name], low.get(name), high.get(name)) for name in names}
    )


def _untrue(claimed: Claimed, table: pa.Table, at: int) -> list[str]:
    counted = Counted(claimed)
    for part in (table.slice(0, at), table.slice(at)):
        counted.take(pl.DataFrame(part))
    return list(counted.untrue())


@given(_ROWS, st.integers(0, 20))
def test_what_is_written_of_a_file_is_borne_out_in_whatever_batches_it_is_read(rows, at):
    """Rows, NULLs, least and greatest values are those of the rows, also where a batch is empty or holds only NULLs."""
    table = _table(rows)
    assert _untrue(_claimed(table), table, at) == []


@given(_MOMENTS)
def test_time_cut_to_the_millisecond_is_borne_out_and_another_millisecond_is_not(moment):
    """The millisecond of a bound is compared without the rounding of floats."""
    table = _table([(moment, 1, "SPY")])
    cut = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    for shift_ms, count in ((0, 0), (1, 2), (-1, 2)):
        bound = cut + timedelta(milliseconds=shift_ms)
        assert len(_untrue(Claimed(1, {"timestamp": Bounds(0, bound, bound)}), table, 0)) == count


@given(_ROWS, st.integers(1, 5))
def test_bound_that_leaves_a_row_out_is_told(rows, by):
    """A least value above a row, or a greatest below one, by however little, is untrue."""
    table = _table(rows)
    seqs = [seq for _, seq, _ in rows]
    for bounds in (Bounds(0, min(seqs) + by, max(seqs)), Bounds(0, min(seqs), max(seqs) - by)):
        assert len(_untrue(Claimed(len(rows), {"seq": bounds}), table, 0)) == 1
