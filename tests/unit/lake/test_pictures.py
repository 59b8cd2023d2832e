"""What the saved questions draw, and what an order that was filled after all is no longer called."""

from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pytest

from holdfast.core.errors import BadInput
from holdfast.lake.plot import chosen, plot
from holdfast.lake.saved import SAVED, Drawn, saved_sql

MOMENT = datetime(2023, 9, 8, 17, 14, tzinfo=UTC)
LATER = datetime(2023, 9, 8, 17, 55, tzinfo=UTC)


@pytest.mark.contract("B14")
def test_an_order_that_was_filled_after_all_is_not_unknown():
    """Of orders whose answer was lost, those that the venue's fills ended are known; the others are listed."""
    base = duckdb.connect()
    base.execute(
        "CREATE TABLE orders AS SELECT *, TIMESTAMPTZ '2023-09-08 13:31:00+00' AS timestamp, 1 AS ts_ns, 'w' AS writer_id,"
        " 'SPY' AS symbol, 'buy' AS action, 'yes' AS side, 100 AS quantity_e2, 8100 AS price_e4, '' AS reason"
        " FROM (VALUES (1, 'filled', 'intent', NULL), (2, 'filled', 'unknown', 'unknown'), (3, 'filled', 'fill', 'filled'),"
        " (4, 'lost', 'intent', NULL), (5, 'lost', 'unknown', 'unknown'), (6, 'crashed', 'intent', NULL))"
        " AS t(seq, client_order_id, event_type, status)"
    )
    rows = base.sql(saved_sql("orders_unknown").sql).to_arrow_table().to_pylist()
    assert [row["client_order_id"] for row in rows] == ["lost", "crashed"]


def test_every_question_draws_columns_that_it_has():
    """What a saved question says it draws are columns of its answer, and what is to be drawn in its place exists."""
    for query in SAVED.values():
        assert all(name in query.sql for name in query.drawn.columns), query.name
        assert not query.drawn.instead or not SAVED[query.drawn.instead].drawn.instead


def test_a_history_to_read_names_what_draws(tmp_path):
    """A history whose figures share no unit is not drawn: the hint names the question that is."""
    answer = pa.table({"timestamp": [MOMENT], "current_value": [1.0]})
    with pytest.raises(BadInput, match="a list to read") as why:
        plot(answer, tmp_path / "x.png", "t", SAVED["limit_history"].drawn)
    assert "--saved limit_use" in why.value.hint
    assert not list(tmp_path.iterdir())


def test_only_the_columns_of_one_unit_are_drawn(tmp_path):
    """Counts are not drawn on an axis of milliseconds, and the axis and the bound say what they are."""
    answer = pa.table(
        {"hour": [MOMENT, LATER], "calls": [900, 800], "p95_ms": [7.0, 8.0], "p50_ms": [1.0, 2.0]}
    )
    drawn = Drawn(("hour", "p95_ms", "p50_ms"), "milliseconds", bound=5.0)
    picture = plot(answer, tmp_path / "x.svg", "t", drawn)
    assert [one.label for one in picture.series] == ["p95_ms", "p50_ms"]
    plain = plot(answer.select(["hour", "p95_ms", "p50_ms"]), tmp_path / "y.svg", "t")
    assert plain == picture
    assert (tmp_path / "x.svg").read_bytes() != (tmp_path / "y.svg").read_bytes()


def test_rows_of_one_moment_are_bars():
    """What happened to each symbol on one day is compared by bars: a line through one moment says nothing."""
    day = {"event_date": [MOMENT.date()] * 3, "symbol": ["A", "B", "C"], "cash_usd": [3.0, -2.0, 1.0]}
    picture = chosen(pa.table(day))
    assert (picture.kind, list(picture.series[0].across)) == ("bars", ["A", "C", "B"])
    days = {**day, "event_date": [MOMENT.date(), MOMENT.date(), datetime(2023, 9, 9, tzinfo=UTC).date()]}
    assert chosen(pa.table(days)).kind == "time"
