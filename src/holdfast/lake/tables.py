"""The lake's tables as data: names, columns, units, and which records each one is made of.

    risk_events  RISK_EVENT              breakers, stops and portfolio limits; the columns of the contract, in order
    orders       ORDER, ORDER_UPDATE     the intent, and everything that became of it
    fills        TRADE                   one row for each fill that the venue reported
    api_calls    API_CALL                one row for each call to a venue or feed
    decisions    DECISION                the gate's verdicts with the rows and inputs they stand on

Promise: a column's name, meaning and type never change, and new ones are only added at the end; whole numbers are
int32 or int64, others float64, because Delta widens no type later. Every row can be found in its journal by
`writer_id` and `seq`, and every table has the same key, `event_id`.

Units: in `risk_events`, premiums and values are float64 (dollars, or what `unit` says), as the contract fixes it.
Everywhere else money, prices and quantities are the journal's integers: `…_e4` counts 1/10,000 dollar, `…_e6`
1/1,000,000 dollar, `…_e2` 1/100 contract. What a record says beyond the columns is kept as JSON in `metadata`.

Limits: this module knows no Arrow until a schema is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple

from holdfast.audit.schemas import RecordType
from holdfast.lake.extras import load

PARTITION = "event_date"
RISK_EVENT = "RISK_EVENT"
LATE = str(RecordType.LATE)
"""A record that a poisoned journal still had to say: it is projected as what it would have been."""

SKIPPED_BY = ("timestamp", "ts_ns", "seq", "epoch", "event_type", "execution_id", "symbol")
"""Readers skip files by the least and the greatest value of these columns, where a table has them."""
PROPERTIES: Mapping[str, str] = {
    "delta.appendOnly": "true",
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 1 days",
    # Every checkpoint carries the files that were let go so long: a commit a second is 86,400 of them a day.
    "delta.deletedFileRetentionDuration": "interval 1 days",
    "delta.enableDeletionVectors": "false",
    "delta.dataSkippingStatsColumns": ",".join(SKIPPED_BY),
}
"""What a new table is created with."""


class Kind(StrEnum):
    """The types that a column may have."""

    TEXT = "string"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT64 = "float64"
    BOOL = "bool"
    TIME = "timestamp[us, tz=UTC]"
    DATE = "date32[day]"


class Column(NamedTuple):
    """One column.

    Attributes:
        name: Its name.
        kind: Its type.
        meaning: What it says, with its unit.
        required: Whether every row has a value.
    """

    name: str
    kind: Kind
    meaning: str
    required: bool = False


class LakeTable:
    """What the tables have in common; each is a class of its own, never an object.

    Attributes:
        name: Its folder under the lake.
        records: The record types that give it a row each.
        columns: In order.
    """

    name: ClassVar[str]
    records: ClassVar[frozenset[str]]
    columns: ClassVar[tuple[Column, ...]]

    @classmethod
    def column_names(cls) -> tuple[str, ...]:
        """The names of all columns, in order."""
        return tuple(column.name for column in cls.columns)

    @classmethod
    def schema(cls) -> Any:
        """The `pyarrow.Schema`.

        Raises:
            BadInput: pyarrow is not installed.
        """
        pa = load("pyarrow")
        types: Mapping[Kind, Any] = {
            Kind.TEXT: pa.string(),
            Kind.INT32: pa.int32(),
            Kind.INT64: pa.int64(),
            Kind.FLOAT64: pa.float64(),
            Kind.BOOL: pa.bool_(),
            Kind.TIME: pa.timestamp("us", tz="UTC"),
            Kind.DATE: pa.date32(),
        }
        return pa.schema(
            [pa.field(one.name, types[one.kind], nullable=not one.required) for one in cls.columns]
        )


_EVENT_ID = Column(
    "event_id", Kind.TEXT, "writer_id/epoch/seq: the same record gives the same id for ever", required=True
)
_TIMESTAMP = Column("timestamp", Kind.TIME, "when it happened, UTC, cut to microseconds", required=True)
_USER = Column("user_id", Kind.TEXT, "who caused it", required=True)
_COMPONENT = Column("component", Kind.TEXT, "which part wrote it", required=True)
_METADATA = Column("metadata", Kind.TEXT, "JSON object: whatever else the record says", required=True)
_ORIGIN = (
    Column("writer_id", Kind.TEXT, "the journal's log id, 32 hexadecimal digits", required=True),
    Column("epoch", Kind.INT64, "the first sequence of the segment that holds the record", required=True),
    Column("seq", Kind.INT64, "the record's sequence in its journal", required=True),
    Column("ts_ns", Kind.INT64, "when it happened, UTC nanoseconds since 1970", required=True),
    Column(PARTITION, Kind.DATE, "the UTC day of ts_ns; the partition", required=True),
)
_VERSION = Column(
    "schema_version", Kind.INT32, "by which version of its record's schema the row was made", required=True
)


class RiskEventsTable(LakeTable):
    """`risk_events`: every risk event exactly once (contract B8)."""

    name = "risk_events"
    records = frozenset({RISK_EVENT})
    columns = (
        _EVENT_ID,
        Column("event_type", Kind.TEXT, "a RiskEventType, such as trailing_stop_trigger", required=True),
        Column("component", Kind.TEXT, "circuit_breaker, trailing_stop, portfolio_limits, …", required=True),
        _TIMESTAMP,
        Column("execution_id", Kind.TEXT, "the execution that the event is about"),
        Column("old_state", Kind.TEXT, "the state before"),
        Column("new_state", Kind.TEXT, "the state after"),
        Column("failure_count", Kind.INT32, "failures counted then"),
        Column("entry_premium", Kind.FLOAT64, "dollars"),
        Column("current_premium", Kind.FLOAT64, "dollars"),
        Column("highest_premium", Kind.FLOAT64, "dollars; the best premium so far"),
        Column("stop_premium", Kind.FLOAT64, "dollars; where the stop stands"),
        Column("action", Kind.TEXT, "what the stop did"),
        Column("limit_type", Kind.TEXT, "which limit"),
        Column("current_value", Kind.FLOAT64, "what was measured, in unit"),
        Column("limit_value", Kind.FLOAT64, "the bound, in unit"),
        Column("allowed", Kind.BOOL, "whether the check let it pass"),
        Column("rejection_reason", Kind.TEXT, "why not"),
        _METADATA,
        *_ORIGIN,
        Column("symbol", Kind.TEXT, "the instrument or underlying"),
        Column("scope", Kind.TEXT, "whose limit or breaker"),
        Column("unit", Kind.TEXT, "of current_value and limit_value"),
        Column("limits_version", Kind.INT64, "which set of limits was in force"),
        Column("decision_id", Kind.TEXT, "the decision it belongs to"),
        Column("intent_id", Kind.TEXT, "the intent it belongs to"),
        _VERSION,
    )


class OrdersTable(LakeTable):
    """`orders`: each durable intent, and each thing that became of it on the venue's evidence."""

    name = "orders"
    records = frozenset({str(RecordType.ORDER), str(RecordType.ORDER_UPDATE)})
    columns = (
        _EVENT_ID,
        Column(
            "event_type", Kind.TEXT, "intent, or the update: ack, reject, fill, canceled, …", required=True
        ),
        _TIMESTAMP,
        _USER,
        _COMPONENT,
        Column("client_order_id", Kind.TEXT, "what the venue knows it by"),
        Column("order_id", Kind.TEXT, "the venue's; in an intent what its writer says"),
        Column("intent_id", Kind.TEXT, "the caller's key"),
        Column("strategy", Kind.TEXT, "who wishes it"),
        Column("symbol", Kind.TEXT, "the market's ticker"),
        Column("market_event", Kind.TEXT, "the market's event"),
        Column("action", Kind.TEXT, "buy or sell"),
        Column("side", Kind.TEXT, "as its writer says"),
        Column("book_side", Kind.TEXT, "bid or ask of the YES book"),
        Column("order_type", Kind.TEXT, "limit, or its writer's word"),
        Column("tif", Kind.TEXT, "time in force"),
        Column("quantity_e2", Kind.INT64, "1/100 contract"),
        Column("price_e4", Kind.INT64, "1/10,000 dollar of the named side"),
        Column("yes_price_e4", Kind.INT64, "1/10,000 dollar of the YES leg"),
        Column("reserved_e6", Kind.INT64, "1/1,000,000 dollar reserved for the worst case"),
        Column("fee_bound_e6", Kind.INT64, "1/1,000,000 dollar of fees at most"),
        Column("reduce_only", Kind.BOOL, "whether the venue is told to only reduce"),
        Column("post_only", Kind.BOOL, "whether it must not take"),
        Column("expiration_ns", Kind.INT64, "when the venue ends it, UTC nanoseconds"),
        Column("multiplier", Kind.INT64, "units of the underlying in one contract"),
        Column("legs", Kind.TEXT, "JSON list: a combination's legs and ratios"),
        Column("decision", Kind.INT64, "number of the decision that admitted it"),
        Column("status", Kind.TEXT, "the order's status after the update"),
        Column("filled_e2", Kind.INT64, "1/100 contract filled so far"),
        Column("leaves_e2", Kind.INT64, "1/100 contract still open"),
        Column("released_e2", Kind.INT64, "1/100 contract that will never fill"),
        Column("reason", Kind.TEXT, "why"),
        _METADATA,
        *_ORIGIN,
        _VERSION,
    )


class FillsTable(LakeTable):
    """`fills`: one row for each fill, as the venue reported it."""

    name = "fills"
    records = frozenset({str(RecordType.TRADE)})
    columns = (
        _EVENT_ID,
        _TIMESTAMP,
        _USER,
        _COMPONENT,
        Column("trade_id", Kind.TEXT, "the venue's; a position moves once per id"),
        Column("order_id", Kind.TEXT, "the venue's"),
        Column("client_order_id", Kind.TEXT, "ours"),
        Column("symbol", Kind.TEXT, "the market's ticker"),
        Column("side", Kind.TEXT, "bid or ask of the YES book, or its writer's word"),
        Column("quantity_e2", Kind.INT64, "1/100 contract"),
        Column("price_e4", Kind.INT64, "1/10,000 dollar of the YES leg"),
        Column("fee_e6", Kind.INT64, "1/1,000,000 dollar"),
        Column("multiplier", Kind.INT64, "units of the underlying in one contract"),
        Column("cause", Kind.TEXT, "trade, exercise, assignment or expiration"),
        Column("is_taker", Kind.BOOL, "whether it took"),
        Column("external", Kind.BOOL, "whether the order was not ours"),
        _METADATA,
        *_ORIGIN,
        _VERSION,
    )


class ApiCallsTable(LakeTable):
    """`api_calls`: each call to a venue or feed."""

    name = "api_calls"
    records = frozenset({str(RecordType.API_CALL)})
    columns = (
        _EVENT_ID,
        _TIMESTAMP,
        _USER,
        _COMPONENT,
        Column("api", Kind.TEXT, "which"),
        Column("endpoint", Kind.TEXT, "path or name, without secrets"),
        Column("method", Kind.TEXT, "GET, POST, …"),
        Column("status_code", Kind.INT32, "HTTP status, 0 where no answer came"),
        Column("latency_ms", Kind.FLOAT64, "milliseconds until the answer or the failure"),
        Column("error", Kind.TEXT, "what failed"),
        _METADATA,
        *_ORIGIN,
        _VERSION,
    )


class DecisionsTable(LakeTable):
    """`decisions`: the gate's verdict over each intent, with everything it read."""

    name = "decisions"
    records = frozenset({str(RecordType.DECISION)})
    columns = (
        _EVENT_ID,
        _TIMESTAMP,
        _USER,
        _COMPONENT,
        Column("n", Kind.INT64, "number of this decision in its run, from 1"),
        Column("intent_id", Kind.TEXT, "the caller's key"),
        Column("strategy", Kind.TEXT, "who wishes it"),
        Column("symbol", Kind.TEXT, "the market's ticker"),
        Column("action", Kind.TEXT, "buy or sell"),
        Column("side", Kind.TEXT, "yes or no"),
        Column("quantity_e2", Kind.INT64, "1/100 contract"),
        Column("price_e4", Kind.INT64, "1/10,000 dollar of the named side"),
        Column("verdict", Kind.TEXT, "allow or deny"),
        Column("reason", Kind.TEXT, "the first refusal's code"),
        Column("question", Kind.BOOL, "whether somebody only asked"),
        Column("market_ts_ns", Kind.INT64, "the market's time, UTC nanoseconds"),
        Column("limits_version", Kind.TEXT, "which set of limits was in force; JSON where it is no text"),
        Column("rows", Kind.TEXT, "JSON list: every check with scope, value, bound, unit, outcome"),
        Column("inputs", Kind.TEXT, "JSON object: what the checks read"),
        _METADATA,
        *_ORIGIN,
        _VERSION,
    )


TABLES: tuple[type[LakeTable], ...] = (
    RiskEventsTable,
    OrdersTable,
    FillsTable,
    ApiCallsTable,
    DecisionsTable,
)
"""Every table of a lake."""

TABLE_OF: Mapping[str, type[LakeTable]] = {type_: table for table in TABLES for type_ in table.records}
"""The table that takes the records of a type."""
