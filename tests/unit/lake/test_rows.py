"""From a journal's record to its row."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.format import LineFacts
from holdfast.lake import rows as rows_module
from holdfast.lake.rows import array_of, arrow_of, event_id, row_of
from holdfast.lake.tables import (
    TABLE_OF,
    TABLES,
    ApiCallsTable,
    DecisionsTable,
    FillsTable,
    Kind,
    OrdersTable,
    RiskEventsTable,
)

LOG = "ab" * 16
TS = 1_763_634_000_123_456_789
B8 = (
    "event_id", "event_type", "component", "timestamp", "execution_id", "old_state", "new_state", "failure_count",
    "entry_premium", "current_premium", "highest_premium", "stop_premium", "action", "limit_type", "current_value",
    "limit_value", "allowed", "rejection_reason", "metadata", "writer_id", "epoch", "seq", "ts_ns", "event_date",
    "symbol", "scope", "unit", "limits_version", "decision_id", "intent_id", "schema_version",
)  # fmt: skip


def facts(type_: str, details: object, *, seq: int = 7, ts: int = TS, component: str = "part") -> LineFacts:
    raw = details if isinstance(details, bytes) else msgspec.json.encode(details)
    return LineFacts(seq, 5, ts, type_, "desk", component, msgspec.Raw(raw))


def row(type_: str, details: object, **changed) -> dict:
    """The row as Arrow gives it back."""
    found = row_of(facts(type_, details, **changed), LOG, 3)
    assert found is not None
    (only,) = arrow_of(found[0], [found[1]]).to_pylist()
    return only


@pytest.mark.contract("B8")
def test_risk_events_has_the_columns_of_the_contract_in_order():
    """The columns of risk_events are the nineteen of the contract and ours behind them, with its types."""
    assert RiskEventsTable.column_names() == B8
    schema = RiskEventsTable.schema()
    assert schema.field("failure_count").type == pa.int32()
    assert schema.field("timestamp").type == pa.timestamp("us", tz="UTC")
    assert all(
        schema.field(f"{name}_premium").type == pa.float64()
        for name in ("entry", "current", "highest", "stop")
    )
    assert schema.field("current_value").type == schema.field("limit_value").type == pa.float64()
    assert schema.field("allowed").type == pa.bool_()


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_types_that_never_need_widening(table):
    """No column is narrower than int32 or float64, every table has its key, its place and its partition."""
    assert {column.kind for column in table.columns} <= set(Kind)
    assert {"event_id", "timestamp", "metadata", "writer_id", "epoch", "seq", "ts_ns", "event_date"} <= set(
        table.column_names()
    )
    assert len(set(table.column_names())) == len(table.columns)


@pytest.mark.contract("B8")
def test_risk_event_becomes_its_row():
    """Each value of a risk event stands in its column, dollars as float64, time in UTC microseconds."""
    said = {
        "event_type": "trailing_stop_update", "execution_id": "e-1", "old_state": "a", "new_state": "b",
        "failure_count": 4, "entry_premium": "1.2500", "current_premium": "-0.5000", "highest_premium": "2.0001",
        "stop_premium": "1.7500", "action": "UPDATE", "limit_type": "portfolio_delta", "current_value": "50.5",
        "limit_value": "50", "allowed": False, "rejection_reason": "over", "metadata": {"k": [1, "é"]},
        "symbol": "SPY", "scope": "portfolio", "unit": "shares", "limits_version": 2, "decision_id": "d", "intent_id": "i",
    }  # fmt: skip
    assert row("RISK_EVENT", said, component="trailing_stop") == {
        **said, "event_id": f"{LOG}/000000000003/000000000007", "component": "trailing_stop",
        "timestamp": datetime(2025, 11, 20, 10, 20, 0, 123456, tzinfo=UTC), "entry_premium": 1.25,
        "current_premium": -0.5, "highest_premium": 2.0001, "stop_premium": 1.75, "current_value": 50.5,
        "limit_value": 50.0, "metadata": '{"k":[1,"é"]}', "writer_id": LOG, "epoch": 3, "seq": 7, "ts_ns": TS,
        "event_date": date(2025, 11, 20), "schema_version": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("entry_premium", "nan"),
        ("entry_premium", "NaN"),
        ("stop_premium", "inf"),
        ("limit_value", "1e999"),
        ("current_value", "much"),
        ("current_value", True),
        ("failure_count", 2**31),
        ("failure_count", "3"),
        ("limits_version", 2**63),
        ("allowed", "yes"),
        ("symbol", 5),
        ("execution_id", ["e"]),
        ("colour", "blue"),
        ("failure_count", 1.5),
    ],
)
def test_value_that_does_not_fit_stays_in_metadata(name, value):
    """What no column can hold is readable in metadata under its own name, and its column is empty."""
    found = row("RISK_EVENT", {"event_type": "x", "metadata": {"own": 1}, name: value})
    assert found.get(name) is None
    assert json.loads(found["metadata"]) == {"own": 1, name: value}


def test_key_that_metadata_has_already_gets_a_prefix():
    """A key that does not fit never replaces one of the event's own metadata."""
    found = row("RISK_EVENT", {"event_type": "x", "metadata": {"colour": 1}, "colour": "blue"})
    assert json.loads(found["metadata"]) == {"colour": 1, "details.colour": "blue"}


@pytest.mark.parametrize("metadata", [None, 5, "text", ["list"], False])
def test_metadata_that_is_no_object_is_kept(metadata):
    """The column metadata is a JSON object, whatever a record calls its metadata."""
    found = json.loads(row("RISK_EVENT", {"event_type": "x", "metadata": metadata})["metadata"])
    assert found in ({}, {"metadata": metadata})
    assert metadata is None or found


def test_record_that_the_poisoned_journal_still_had_to_say_is_projected():
    """A LATE record gives the row of what it wraps, at its own sequence and the wrapped time."""
    late = {
        "n": 2, "ts": TS - 5_000, "type": "RISK_EVENT", "user": "u", "component": "circuit_breaker",
        "details": {"event_type": "circuit_breaker_failure"},
    }  # fmt: skip
    found = row("LATE", late, seq=99)
    assert (found["event_type"], found["seq"], found["ts_ns"]) == ("circuit_breaker_failure", 99, TS - 5_000)
    assert found["component"] == "circuit_breaker"
    assert json.loads(found["metadata"]) == {"late": 2}
    assert row_of(facts("LATE", {**late, "type": "STATE"}), LOG, 3) is None
    assert row("LATE", {**late, "ts": 2**70})["ts_ns"] == TS


def test_order_keeps_money_as_integers():
    """Quantity, prices and money of an order stand in the journal's integer units."""
    found = row(
        "ORDER",
        {
            "order_id": "hf-1", "client_order_id": "hf-1", "side": "yes", "order_type": "limit", "quantity": "1.25",
            "price": "0.5600", "yes_price": "0.4400", "reserved": "0.701234", "fee_bound": "0.02", "tif": "ioc",
            "reduce_only": True, "decision": 12, "expiration_ns": None, "event": "E", "ticker": "T", "legs": [["A", 1]],
        },
    )  # fmt: skip
    assert (found["event_type"], found["quantity_e2"], found["price_e4"]) == ("intent", 125, 5600)
    assert (found["yes_price_e4"], found["reserved_e6"], found["fee_bound_e6"]) == (4400, 701_234, 20_000)
    assert (found["market_event"], found["symbol"], found["legs"]) == ("E", "T", '[["A",1]]')
    assert (found["reduce_only"], found["decision"], found["metadata"]) == (True, 12, "{}")


def test_order_update_says_what_became_of_it():
    """An update's event is the row's event, and its evidence stays readable."""
    found = row(
        "ORDER_UPDATE",
        {"client_order_id": "c", "event": "ack", "order_id": "v", "filled": "0.00", "evidence": {"a": 1}},
    )
    assert (found["event_type"], found["order_id"], found["filled_e2"]) == ("ack", "v", 0)
    assert json.loads(found["metadata"]) == {"evidence": {"a": 1}}


@pytest.mark.parametrize("price", [55, 0.55, "0.123456", "12e-1", "9" * 15])
def test_price_that_is_no_plain_text_in_dollars_is_not_guessed(price):
    """A bare number could be cents or dollars, a long one overflows: it stays in metadata, the column is empty."""
    found = row("TRADE", {"order_id": "o", "side": "bid", "quantity": 2, "price": price, "market": "M"})
    assert (found["price_e4"], found["quantity_e2"], found["symbol"]) == (None, 200, "M")
    assert json.loads(found["metadata"]) == {"price": price}


def test_api_call_and_decision_become_rows():
    """Calls carry latency as a float, decisions their rows and inputs as JSON."""
    call = row(
        "API_CALL", {"api": "a", "endpoint": "e", "method": "GET", "status_code": None, "latency_ms": 5}
    )
    assert (call["status_code"], call["latency_ms"], call["user_id"]) == (None, 5.0, "desk")
    said = {
        "n": 1, "intent": "i", "strategy": "s", "ticker": "T", "action": "buy", "side": "yes", "count": "2.00",
        "price": "0.5000", "verdict": "deny", "reason": "r", "rows": [["x", 1]], "inputs": {"q": None},
        "market_ts_ns": TS, "limits_version": {"v": 3}, "question": False,
    }  # fmt: skip
    decision = row("DECISION", said)
    assert (decision["rows"], decision["inputs"], decision["limits_version"]) == (
        '[["x",1]]',
        '{"q":null}',
        '{"v":3}',
    )
    assert (decision["quantity_e2"], decision["question"], decision["metadata"]) == (200, False, "{}")


def test_other_records_have_no_row():
    """What the journal says about itself is not in the lake."""
    assert row_of(facts("SEGMENT", {}), LOG, 1) is None
    assert row_of(facts("BREAKER", {"breaker": "b"}), LOG, 1) is None
    assert set(TABLE_OF.values()) == set(TABLES)
    assert {OrdersTable, FillsTable, ApiCallsTable, DecisionsTable, RiskEventsTable} == set(TABLES)


def test_event_ids_sort_as_the_journal_does():
    """Ids of one journal sort by sequence, over every number of digits."""
    ids = [
        event_id(LOG, epoch, seq)
        for epoch, seq in ((1, 1), (1, 9), (1, 10), (11, 11), (11, 10**6), (10**6, 10**7))
    ]
    assert ids == sorted(ids)


_TEXT = st.text(max_size=8)
_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(allow_nan=False, allow_infinity=False), _TEXT,
    st.sampled_from(["1.5", "nan", "inf", "-2.25", "1e5", " 1", "1_0"]), st.dictionaries(_TEXT, st.integers(), max_size=2),
)  # fmt: skip
_RISK_KEYS = [field.name for field in msgspec.structs.fields(rows_module.RiskFields)]


@given(st.dictionaries(st.sampled_from([*_RISK_KEYS, "other"]), _VALUES), st.integers(-(2**62), 2**62))
def test_quick_way_and_careful_way_agree(details, ts):
    """A risk event that is read in one decoding gives the row that reading it value by value gives."""
    said = facts("RISK_EVENT", details, ts=ts)
    quick = rows_module._risk_event(said, LOG, 3)
    origin = rows_module._Origin(LOG, 3, 7, ts, "RISK_EVENT", "desk", "part")
    table, careful = rows_module._row(origin, json.loads(bytes(said.details)))
    assert table is RiskEventsTable
    made = arrow_of(table, [careful]).to_pylist()[0]
    assert all(value == value for value in made.values())  # noqa: PLR0124  no NaN
    if quick is not None:
        at = RiskEventsTable.column_names().index("metadata")
        assert json.loads(quick[at]) == json.loads(careful[at])
        assert quick[:at] + quick[at + 1 :] == careful[:at] + careful[at + 1 :]


@given(st.lists(st.sampled_from([None, "a", "a", "b"]), min_size=1, max_size=6))
def test_columns_that_say_one_thing_are_made_like_the_others(values):
    """A column of one value, of none, or of several holds just those values."""
    assert array_of(tuple(values), pa.string()).to_pylist() == values
    days = tuple(0 if value is None else len(values) for value in values)
    assert array_of(days, pa.date32()).cast(pa.int32()).to_pylist() == list(days)
