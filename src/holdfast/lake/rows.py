"""From a journal's record to its row, and from rows to Arrow: pure functions of what the journal says.

Promise: the same line gives the same row for ever, so that a lake that is rebuilt equals the one that was lost. A
value that does not fit its column (no number, too large, not text) leaves the column empty and stays readable in
`metadata`, under its own name; NaN and infinities never enter a column. Keys of later versions go to `metadata` too.
A JSON number beyond a double (1e400, or thousands of digits; only a foreign writer makes one) stays in `metadata` as it
is written, or in the JSON column that it belongs to, so that no record ends a projection and none loses anything.

`event_id` is "writer_id/epoch/seq", the numbers with twelve digits: it is unique over all journals, sorts as the
journal does, and says where the record stands: *epoch* is the first sequence of the record's segment, the number in
that file's name.

Limits: empty text and text that is absent are the same, NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar, cast

import msgspec

from holdfast.audit.schemas import VERSIONS, RecordType
from holdfast.core.errors import BadInput
from holdfast.core.money import parse_money, parse_price, parse_qty
from holdfast.lake.extras import load
from holdfast.lake.tables import (
    LATE,
    RISK_EVENT,
    TABLE_OF,
    ApiCallsTable,
    DecisionsTable,
    FillsTable,
    LakeTable,
    OrdersTable,
    RiskEventsTable,
)

Row = tuple[Any, ...]
"""One row, its values in the order of the table's columns; `event_date` as days, `timestamp` as microseconds."""

DAY_NS = 86_400 * 10**9
_INT32 = 2**31
_INT64 = 2**63
_Int32 = Annotated[int, msgspec.Meta(ge=-_INT32, le=_INT32 - 1)]
_Int64 = Annotated[int, msgspec.Meta(ge=-_INT64, le=_INT64 - 1)]
_N = TypeVar("_N", bound=int)
_T = TypeVar("_T")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Late(msgspec.Struct):
    """`LateDetails` whose own details are not taken apart yet."""

    n: int
    ts: int
    type: str
    user: str
    component: str
    details: msgspec.Raw


_decode_late = msgspec.json.Decoder(_Late).decode


class Facts(Protocol):
    """What a row is made of; `audit.format.LineFacts` is this."""

    @property
    def seq(self) -> int:
        """The record's sequence."""
        ...

    @property
    def ts(self) -> int:
        """UTC nanoseconds."""
        ...

    @property
    def type(self) -> str:
        """The record type."""
        ...

    @property
    def user(self) -> str:
        """Who."""
        ...

    @property
    def component(self) -> str:
        """Which part."""
        ...

    @property
    def details(self) -> msgspec.Raw:
        """The details as they stand in the line."""
        ...


class _Origin(msgspec.Struct, frozen=True):
    """Whose row it is: what every row says besides its record's details."""

    log_id: str
    epoch: int
    seq: int
    ts: int
    type: str
    user: str
    component: str

    @property
    def event_id(self) -> str:
        return event_id(self.log_id, self.epoch, self.seq)

    def tail(self) -> Row:
        """The columns from writer_id to event_date."""
        return (self.log_id, self.epoch, self.seq, self.ts, self.ts // DAY_NS)

    @property
    def version(self) -> int:
        return VERSIONS.get(self.type, 1)


def event_id(log_id: str, epoch: int, seq: int) -> str:
    """The id of the row of record *seq*, which stands in the segment that begins with sequence *epoch*."""
    return f"{log_id}/{epoch:012d}/{seq:012d}"


def row_of(facts: Facts, log_id: str, epoch: int) -> tuple[type[LakeTable], Row] | None:
    """The table and the row of one record, or None where no table takes it.

    Args:
        facts: The record, as `audit.format.decode_facts` or `facts_in_place` give it.
        log_id: Its journal's.
        epoch: The first sequence of its segment.
    """
    type_ = facts.type
    if type_ == RISK_EVENT:
        row = _risk_event(facts, log_id, epoch)
        if row is not None:
            return RiskEventsTable, row
    elif type_ not in TABLE_OF:
        return _late(facts, log_id, epoch) if type_ == LATE else None
    origin = _Origin(log_id, epoch, facts.seq, facts.ts, type_, facts.user, facts.component)
    return _row(origin, _taken_apart(facts.details))


def _late(facts: Facts, log_id: str, epoch: int) -> tuple[type[LakeTable], Row] | None:
    """The row of what a LATE record wraps; its own sequence, the wrapped time."""
    try:
        late = _decode_late(facts.details)
    except msgspec.ValidationError:
        return None
    if late.type not in TABLE_OF or bytes(late.details)[:1] != b"{":
        return None
    ts = late.ts if -_INT64 <= late.ts < _INT64 else facts.ts
    origin = _Origin(log_id, epoch, facts.seq, ts, late.type, late.user, late.component)
    return _row(origin, {**_taken_apart(late.details), "late": late.n})


def _row(origin: _Origin, details: dict[str, Any]) -> tuple[type[LakeTable], Row]:
    table = TABLE_OF[origin.type]
    return table, _MAKERS[table](origin, _Fields(details))


def _taken_apart(text: msgspec.Raw) -> dict[str, Any]:
    """The members of a JSON object; one that holds a number beyond a double stays as it stands."""
    try:
        return _decode_object(text)
    except msgspec.ValidationError:
        return {name: _value(part) for name, part in _decode_parts(text).items()}


def _value(text: msgspec.Raw) -> Any:
    try:
        return _decode(text)
    except msgspec.ValidationError:
        return text


# -- risk events, the many ------------------------------------------------------------------------------------


class RiskFields(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """RISK_EVENT details as nearly all are: known keys, fitting values; one decoding checks all of it."""

    event_type: str
    execution_id: str | None = None
    old_state: str | None = None
    new_state: str | None = None
    failure_count: _Int32 | None = None
    entry_premium: str | None = None
    current_premium: str | None = None
    highest_premium: str | None = None
    stop_premium: str | None = None
    action: str | None = None
    limit_type: str | None = None
    current_value: str | None = None
    limit_value: str | None = None
    allowed: bool | None = None
    rejection_reason: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    symbol: str | None = None
    scope: str | None = None
    unit: str | None = None
    limits_version: _Int64 | None = None
    decision_id: str | None = None
    intent_id: str | None = None


_decode_risk = msgspec.json.Decoder(RiskFields).decode
RISK_VERSION = VERSIONS.get(RISK_EVENT, 1)


def _risk_event(facts: Facts, log_id: str, epoch: int) -> Row | None:
    """The row of an ordinary RISK_EVENT; None where a value needs to be looked at more closely."""
    try:
        say = _decode_risk(facts.details)
        entry = float(say.entry_premium) if say.entry_premium else None
        current = float(say.current_premium) if say.current_premium else None
        highest = float(say.highest_premium) if say.highest_premium else None
        stop = float(say.stop_premium) if say.stop_premium else None
        value = float(say.current_value) if say.current_value else None
        limit = float(say.limit_value) if say.limit_value else None
        metadata = bytes(say.metadata).decode()
    except ValueError:  # msgspec's errors are ValueErrors too
        return None
    # One sum finds a NaN or an infinity among them, and says no to sums that overflow, which is no harm.
    total = (
        (entry or 0.0) + (current or 0.0) + (highest or 0.0) + (stop or 0.0) + (value or 0.0) + (limit or 0.0)
    )
    if total - total != 0.0 or metadata[:1] != "{":
        return None
    seq, ts = facts.seq, facts.ts
    return (
        f"{log_id}/{epoch:012d}/{seq:012d}", say.event_type, facts.component, ts // 1000,
        say.execution_id or None, say.old_state or None, say.new_state or None, say.failure_count,
        entry, current, highest, stop, say.action or None, say.limit_type or None, value, limit, say.allowed,
        say.rejection_reason or None, metadata, log_id, epoch, seq, ts, ts // DAY_NS, say.symbol or None,
        say.scope or None, say.unit or None, say.limits_version, say.decision_id or None, say.intent_id or None,
        RISK_VERSION,
    )  # fmt: skip


# -- any record, value by value -------------------------------------------------------------------------------


class _Fields:
    """The details of one record; what is taken out fits its column, what is left goes to `metadata`."""

    def __init__(self, details: dict[str, Any]) -> None:
        self._left = details

    def _take(self, name: str, fits: Callable[[Any], _T | None]) -> _T | None:
        value = self._left.get(name)
        if value is None or value == "":
            self._left.pop(name, None)
            return None
        found = fits(value)
        if found is not None:
            del self._left[name]
        return found

    def text(self, name: str) -> str | None:
        return self._take(name, _text)

    def flag(self, name: str) -> bool | None:
        return self._take(name, _flag)

    def int32(self, name: str) -> int | None:
        return self._take(name, lambda value: _whole(value, _INT32))

    def int64(self, name: str) -> int | None:
        return self._take(name, lambda value: _whole(value, _INT64))

    def number(self, name: str) -> float | None:
        return self._take(name, _number)

    def price_e4(self, name: str) -> int | None:
        return self._take(name, lambda value: _fixed(parse_price, value, text=True))

    def quantity_e2(self, name: str) -> int | None:
        return self._take(name, lambda value: _fixed(parse_qty, value))

    def money_e6(self, name: str) -> int | None:
        return self._take(name, lambda value: _fixed(parse_money, value, text=True))

    def json(self, name: str) -> str | None:
        return self._take(name, lambda value: _encode(value).decode())

    def text_or_json(self, name: str) -> str | None:
        return self.text(name) or self.json(name)

    def metadata(self) -> str:
        """Everything that is left, the record's own `metadata` merged in; a name that is taken gets a prefix."""
        own = self._left.get("metadata")
        if isinstance(own, msgspec.Raw) and bytes(own)[:1] == b"{":
            own = _taken_apart(own)
        if not isinstance(own, dict):
            return _encode(self._left).decode() if self._left else "{}"
        del self._left["metadata"]
        merged = dict(cast("dict[str, Any]", own))
        for name, value in self._left.items():
            merged[f"details.{name}" if name in merged else name] = value
        return _encode(merged).decode()


def _text(value: object) -> str | None:
    return value if type(value) is str else None


def _flag(value: object) -> bool | None:
    return value if type(value) is bool else None


def _whole(value: object, bound: int) -> int | None:
    return value if type(value) is int and -bound <= value < bound else None


def _number(value: object) -> float | None:
    """A finite float of a number or of decimal text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if number - number == 0.0 else None


def _fixed(parse: Callable[[Any], _N], value: object, *, text: bool = False) -> int | None:
    """An integer in the unit of *parse*; a bare number of dollars could as well be cents, and is left alone."""
    if text and type(value) is not str:
        return None
    try:
        number = parse(value)
    except BadInput:
        return None
    return _whole(int(number), _INT64)


def _general_risk_event(origin: _Origin, fields: _Fields) -> Row:
    event_type = fields.text("event_type") or ""
    first = (
        fields.text("execution_id"), fields.text("old_state"), fields.text("new_state"),
        fields.int32("failure_count"),
        fields.number("entry_premium"), fields.number("current_premium"), fields.number("highest_premium"),
        fields.number("stop_premium"), fields.text("action"), fields.text("limit_type"),
        fields.number("current_value"), fields.number("limit_value"), fields.flag("allowed"),
        fields.text("rejection_reason"),
    )  # fmt: skip
    last = (
        fields.text("symbol"), fields.text("scope"), fields.text("unit"), fields.int64("limits_version"),
        fields.text("decision_id"), fields.text("intent_id"), origin.version,
    )  # fmt: skip
    head = (origin.event_id, event_type, origin.component, origin.ts // 1000)
    return (*head, *first, fields.metadata(), *origin.tail(), *last)


def _order(origin: _Origin, fields: _Fields) -> Row:
    intent = origin.type == RecordType.ORDER
    event_type = "intent" if intent else fields.text("event") or ""
    own = (
        fields.text("client_order_id"), fields.text("order_id"), fields.text("intent"),
        fields.text("strategy"), fields.text("ticker"), fields.text("event") if intent else None,
        fields.text("action"), fields.text("side"), fields.text("book_side"), fields.text("order_type"),
        fields.text("tif"), fields.quantity_e2("quantity"), fields.price_e4("price"),
        fields.price_e4("yes_price"), fields.money_e6("reserved"), fields.money_e6("fee_bound"),
        fields.flag("reduce_only"), fields.flag("post_only"), fields.int64("expiration_ns"),
        fields.int64("multiplier"), fields.json("legs"), fields.int64("decision"), fields.text("status"),
        fields.quantity_e2("filled"), fields.quantity_e2("leaves"), fields.quantity_e2("released"),
        fields.text("reason"),
    )  # fmt: skip
    head = (origin.event_id, event_type, origin.ts // 1000, origin.user, origin.component)
    return (*head, *own, fields.metadata(), *origin.tail(), origin.version)


def _fill(origin: _Origin, fields: _Fields) -> Row:
    ticker, market = fields.text("ticker"), fields.text("market")
    own = (
        fields.text("trade_id"), fields.text("order_id"), fields.text("client_order_id"), ticker or market,
        fields.text("side"), fields.quantity_e2("quantity"), fields.price_e4("price"), fields.money_e6("fee"),
        fields.int64("multiplier"), fields.text("cause"), fields.flag("is_taker"), fields.flag("external"),
    )  # fmt: skip
    return (*_head(origin), *own, fields.metadata(), *origin.tail(), origin.version)


def _api_call(origin: _Origin, fields: _Fields) -> Row:
    own = (
        fields.text("api"), fields.text("endpoint"), fields.text("method"), fields.int32("status_code"),
        fields.number("latency_ms"), fields.text("error"),
    )  # fmt: skip
    return (*_head(origin), *own, fields.metadata(), *origin.tail(), origin.version)


def _decision(origin: _Origin, fields: _Fields) -> Row:
    own = (
        fields.int64("n"), fields.text("intent"), fields.text("strategy"), fields.text("ticker"),
        fields.text("action"), fields.text("side"), fields.quantity_e2("count"), fields.price_e4("price"),
        fields.text("verdict"), fields.text("reason"), fields.flag("question"), fields.int64("market_ts_ns"),
        fields.text_or_json("limits_version"), fields.json("rows"), fields.json("inputs"),
    )  # fmt: skip
    return (*_head(origin), *own, fields.metadata(), *origin.tail(), origin.version)


def _head(origin: _Origin) -> Row:
    return (origin.event_id, origin.ts // 1000, origin.user, origin.component)


_MAKERS: Mapping[type[LakeTable], Callable[[_Origin, _Fields], Row]] = {
    RiskEventsTable: _general_risk_event,
    OrdersTable: _order,
    FillsTable: _fill,
    ApiCallsTable: _api_call,
    DecisionsTable: _decision,
}


# -- Arrow ----------------------------------------------------------------------------------------------------


def arrow_of(table: type[LakeTable], rows: Sequence[Row]) -> Any:
    """*rows* as a `pyarrow.Table` with the table's schema."""
    schema = table.schema()
    if not rows:
        return schema.empty_table()
    arrays = [
        array_of(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    return load("pyarrow").Table.from_arrays(arrays, schema=schema)


def array_of(values: Sequence[Any], type_: Any) -> Any:
    """The `pyarrow.Array` of one column's *values*, at least one; days and microseconds come as numbers."""
    pa = load("pyarrow")
    given = pa.int32() if type_ == pa.date32() else type_
    first = values[0]
    # Most columns of a batch are empty or say one thing: counting is a tenth of what converting costs.
    if (first is values[-1] or first == values[-1]) and values.count(first) == len(values):
        if first is None:
            return pa.nulls(len(values), type_)
        return pa.repeat(pa.array([first], given).cast(type_)[0], len(values))
    array = pa.array(values, given)
    return array if given is type_ else array.cast(type_)
