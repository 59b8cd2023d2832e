"""Every record type and what its `details` hold: one published schema per type.

Each schema is a struct whose fields say what each key means; `VERSIONS` numbers them. Rules that hold for
ever: fields are only added, a meaning never changes, a new meaning is a new type, and readers keep types and
fields that they do not know. A field without default is required; `AuditLogger` refuses a record of a known
type that lacks one, or that carries money, price or quantity as a float. Nothing else is checked on the way in: the
parts that write records are typed, and the log must not be a reason to lose evidence.

Units: money, prices and quantities are decimal strings of dollars, dollars and contracts as `core.money`
formats them; times are UTC nanoseconds and end in `_ns`; floats appear only in ratios and `latency_ms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from holdfast.core.errors import BadInput

SCHEMA_VERSION = 3
"""The version of this whole set; every segment names it in its first record."""


class RecordType(StrEnum):
    """The record types this version writes."""

    SEGMENT = "SEGMENT"
    RECOVERY = "RECOVERY"
    SEALED = "SEALED"
    GAP = "GAP"
    CLOCK_STEP = "CLOCK_STEP"
    LATE = "LATE"
    KEY = "KEY"
    PRUNED = "PRUNED"
    LEGAL_HOLD = "LEGAL_HOLD"
    CONFIG = "CONFIG"
    SESSION_OPEN = "SESSION_OPEN"
    DECISION = "DECISION"
    ORDER = "ORDER"
    ORDER_UPDATE = "ORDER_UPDATE"
    TRADE = "TRADE"
    RISK_VIOLATION = "RISK_VIOLATION"
    RISK_EVENT = "RISK_EVENT"
    API_CALL = "API_CALL"
    BREAKER = "BREAKER"
    STATE = "STATE"
    RECONCILE = "RECONCILE"
    SETTLEMENT = "SETTLEMENT"
    DEPOSIT = "DEPOSIT"
    VALUATION = "VALUATION"
    STREAM = "STREAM"
    CANCEL = "CANCEL"
    PLAN = "PLAN"
    ERASURE = "ERASURE"


class SegmentDetails(msgspec.Struct, kw_only=True, rename={"format_": "format"}):
    """SEGMENT: the first record of every file; durable before any other line of it.

    Attributes:
        format_: Key `format`: the line format's version (`format.FORMAT_VERSION`).
        schema: `SCHEMA_VERSION` of the writer.
        log_id: 16 random bytes as 32 hexadecimal digits, the same in every segment of a log.
        origin: The writer's name for the log.
        first_seq: This record's own sequence.
        root: RFC 9162 root over every record before this one, 64 hexadecimal digits.
        clock: Where `ts` comes from (`Clock.source`).
    """

    format_: int
    schema: int
    log_id: str
    origin: str
    first_seq: int
    root: str
    clock: str


class RecoveryDetails(msgspec.Struct, kw_only=True):
    """RECOVERY: what the start after a crash found and did.

    Attributes:
        first_lost: The lowest sequence that was not there as a valid line.
        known_durable: The highest sequence known to be durable then; every kept byte after it was rewritten.
        file: The segment that held the torn tail.
        offset: Where in it the tail began, bytes.
        tail_bytes: Length of the tail without filler; 0 where there was none.
        quarantine: Names under `quarantine/` where tails were copied, oldest first.
        head: The state of the head: "open", "poisoned", or "missing".
    """

    first_lost: int
    known_durable: int
    file: str
    offset: int
    tail_bytes: int
    quarantine: list[str]
    head: str


class SealedDetails(msgspec.Struct, kw_only=True):
    """SEALED: a segment was compressed and the copy proved equal.

    Attributes:
        segment: The raw file's name; the compressed one adds ".gz".
        first_seq: Its first sequence.
        last_seq: Its last sequence.
        raw_sha256: SHA-256 of the raw file, hexadecimal.
        raw_bytes: Length of the raw file.
        gzip_sha256: SHA-256 of the compressed file, hexadecimal.
        gzip_bytes: Length of the compressed file.
        members: How many gzip members it has.
        index_sha256: SHA-256 of its index, hexadecimal; "" where an older version sealed it without one.
        index_bytes: Length of the index.
    """

    segment: str
    first_seq: int
    last_seq: int
    raw_sha256: str
    raw_bytes: int
    gzip_sha256: str
    gzip_bytes: int
    members: int = 0
    index_sha256: str = ""
    index_bytes: int = 0


class GapDetails(msgspec.Struct, kw_only=True):
    """GAP: BUFFERED records that were dropped because the queue was full; counted, never silent.

    Attributes:
        dropped: How many.
        first_ts_ns: When the first of them was offered.
        last_ts_ns: When the last of them was offered.
        types: How many of each record type.
    """

    dropped: int
    first_ts_ns: int
    last_ts_ns: int
    types: dict[str, int]


class KeyDetails(msgspec.Struct, kw_only=True):
    """KEY: the second record of every signed segment; from here on this key signs the checkpoints.

    Attributes:
        epoch: 1, 2, 3 … without gap over the log's life.
        vkey: The public key, a C2SP verifier key.
        reason: "first", "rotation", or "replacement" where the private key before it was lost.
        note: A signed note that names origin, log id, epoch and key; signed by the epoch before, by this key itself
            where the reason is "first" or "replacement".
    """

    epoch: int
    vkey: str
    reason: str
    note: str


class PrunedDetails(msgspec.Struct, kw_only=True):
    """PRUNED: a sealed segment's copy in the archive was read back and found equal; the segment may go from here.

    The same bytes stand in the segment's place as `<segment without .log>.pruned`. What verification needs of the
    segment is here, so that the records after it can be verified without it.

    Attributes:
        segment: The raw file's name.
        first_seq: Its first sequence.
        last_seq: Its last sequence.
        raw_sha256: SHA-256 of the raw file, hexadecimal.
        raw_bytes: Length of the raw file.
        gzip_sha256: SHA-256 of the compressed file, hexadecimal; the archive holds this file.
        gzip_bytes: Length of the compressed file.
        index_sha256: SHA-256 of its index, or "" where it had none.
        archive: Where the copy is, s3://bucket/prefix.
        peaks: The tree over records 1 to last_seq: the hashes of its perfect subtrees, largest first, hexadecimal.
        key: What the segment's KEY record says, or null where it had none.
        quarantine: Names under `quarantine/` that the segment's RECOVERY records give.
    """

    segment: str
    first_seq: int
    last_seq: int
    raw_sha256: str
    raw_bytes: int
    gzip_sha256: str
    gzip_bytes: int
    index_sha256: str
    archive: str
    peaks: list[str]
    key: KeyDetails | None
    quarantine: list[str]


class LegalHoldDetails(msgspec.Struct, kw_only=True):
    """LEGAL_HOLD: the copies in an archive were put under a legal hold, or released from it.

    Attributes:
        archive: Which, s3://bucket/prefix.
        hold: Whether they are held from now on.
        objects: How many.
        reason: Why, in the words of who asked for it.
    """

    archive: str
    hold: bool
    objects: int
    reason: str = ""


class ClockStepDetails(msgspec.Struct, kw_only=True):
    """CLOCK_STEP: the wall clock was stepped, so from here on `ts` does not tell the order of records; `seq` does.

    Attributes:
        before_ns: What it should have shown by the clock that nobody sets, or by the last record at a start.
        after_ns: What it showed.
        step_ns: The difference; negative for a step back.
    """

    before_ns: int
    after_ns: int
    step_ns: int


class LateDetails(msgspec.Struct, kw_only=True):
    """LATE: what a poisoned log still had to say, taken up from its reserve by the start that wrote this record.

    Attributes:
        n: Its number in the reserve, from 1.
        ts: When it was said, UTC nanoseconds.
        type: The record type that it would have been.
        user: Who caused it.
        component: Which part said it.
        details: As that type's schema says.
    """

    n: int
    ts: int
    type: str
    user: str
    component: str
    details: dict[str, Any]


class ConfigDetails(msgspec.Struct, kw_only=True):
    """CONFIG: the effective configuration at start, secrets redacted before they come here.

    The keys are the settings' dotted names, the values their JSON values; none is required.
    """


class SessionOpenDetails(msgspec.Struct, kw_only=True):
    """SESSION_OPEN: a trading day begins; daily P&L counts from here.

    Attributes:
        session: The day's name, YYYY-MM-DD in the session's zone.
        opened_ns: When it opened.
        cash: Dollars.
        liquidation: Cash plus positions at the marks, dollars.
        positions: Signed contracts of the YES leg per ticker.
        marks: Per ticker: `bid` and `ask`, dollars or null.
    """

    session: str
    opened_ns: int
    cash: str
    liquidation: str
    positions: dict[str, str]
    marks: dict[str, dict[str, str | None]]


class DecisionDetails(msgspec.Struct, kw_only=True):
    """DECISION: the gate's verdict over one intent, with everything it read.

    Attributes:
        n: Number of this decision in the run, from 1.
        intent: The caller's key of the intent.
        strategy: Who wishes it.
        ticker: Market.
        action: "buy" or "sell".
        side: "yes" or "no".
        count: Contracts.
        price: Dollars of the named side.
        verdict: "allow" or "deny".
        reason: The first refusal's code, or "".
        rows: Every check made: code, scope, value, bound, unit, whether it passed.
        inputs: What the checks read.
        market_ts_ns: The market's time.
        limits_version: Which set of limits was in force.
        question: True where nothing was reserved because somebody only asked.
    """

    n: int
    intent: str
    strategy: str
    ticker: str
    action: str
    side: str
    count: str
    price: str
    verdict: str
    reason: str
    rows: list[list[Any]]
    inputs: dict[str, Any]
    market_ts_ns: int
    limits_version: Any
    question: bool = False


class OrderDetails(msgspec.Struct, kw_only=True):
    """ORDER: the durable intent; no order leaves before this is synced.

    Attributes:
        order_id: The client order id again, under the name older readers know.
        side: "buy" or "sell", or "yes" or "no", as its writer says.
        order_type: "limit" or the caller's word.
        quantity: Contracts.
        price: Dollars of the named side.
        client_order_id: What the venue will know it by.
        intent: The caller's key.
        strategy: Who wishes it.
        ticker: Market.
        event: The market's event.
        action: "buy" or "sell".
        book_side: "bid" or "ask" of the YES book.
        yes_price: Dollars of the YES leg.
        tif: Time in force.
        reduce_only: Whether the venue is told to only reduce.
        post_only: Whether it must not take.
        expiration_ns: When the venue ends it, or null.
        reserved: Dollars reserved for its worst case.
        fee_bound: Dollars of fees at most.
        decision: Number of the DECISION that admitted it.
        multiplier: Units of the underlying per contract; 1 where it says nothing.
        legs: Of a combination, [ticker, signed ratio] each.
        plan: Of which PLAN it is a step; "" of none.
    """

    order_id: str
    side: str
    order_type: str
    quantity: Any
    price: Any
    client_order_id: str = ""
    intent: str = ""
    strategy: str = ""
    ticker: str = ""
    event: str = ""
    action: str = ""
    book_side: str = ""
    yes_price: str = ""
    tif: str = ""
    reduce_only: bool = False
    post_only: bool = False
    expiration_ns: int | None = None
    reserved: str = ""
    fee_bound: str = ""
    decision: int | None = None
    multiplier: int = 1
    legs: list[list[Any]] = []
    plan: str = ""


class PlanDetails(msgspec.Struct, kw_only=True):
    """PLAN: what a structure that goes leg by leg may need on its way, reserved before the first leg leaves.

    Attributes:
        plan: Its name.
        event: reserved, unwinding or given_back; a plan holds until it is given back, through any restart.
        reason: Why.
        legs: In the order in which they go in: ticker, signed contracts, worst price, units of the underlying per
            contract, and the fee per contract and side in 1e-6 dollar. Only where it is reserved, as the next.
        reserved: Dollars: the worst loss on the way, and the fees of the way in and of the way out.
    """

    plan: str
    event: str
    reason: str = ""
    legs: list[list[Any]] = []
    reserved: str = ""


class OrderUpdateDetails(msgspec.Struct, kw_only=True):
    """ORDER_UPDATE: what became of an order, and on what evidence.

    Attributes:
        client_order_id: Ours.
        event: ack, reject, not_sent, unknown, found, fill, canceled, expired, never_arrived, zombie,
            resent, withdrawn or adopted.
        order_id: The venue's, or "".
        status: The order's status after it.
        filled: Contracts filled so far.
        leaves: Contracts still open.
        released: Contracts that will never fill.
        reason: Why, in one code or sentence.
        evidence: What the venue said, or where it was found.
    """

    client_order_id: str
    event: str
    order_id: str = ""
    status: str = ""
    filled: str = ""
    leaves: str = ""
    released: str = ""
    reason: str = ""
    evidence: Any = None


class TradeDetails(msgspec.Struct, kw_only=True):
    """TRADE: one fill, as the venue reported it; never written at submission.

    Attributes:
        order_id: The venue's order id.
        side: "bid" or "ask" of the YES book, or the caller's word.
        quantity: Contracts.
        price: Dollars of the YES leg.
        market: The ticker, under the name older readers know.
        trade_id: The venue's; a position moves once per id.
        client_order_id: Ours, or "".
        ticker: Market.
        fee: Dollars.
        is_taker: Whether it took.
        external: Whether the order was not ours.
        multiplier: Units of the underlying per contract; 1 where it says nothing.
        cause: "trade", or "exercise", "assignment" or "expiration" of an option; "trade" where it says nothing.
        revision: Which telling of the execution this is, from 1; 0 where the venue corrects none.
    """

    order_id: str
    side: str
    quantity: Any
    price: Any
    market: str
    trade_id: str = ""
    client_order_id: str = ""
    ticker: str = ""
    fee: str = ""
    is_taker: bool = False
    external: bool = False
    multiplier: int = 1
    cause: str = "trade"
    revision: int = 0


class RiskViolationDetails(msgspec.Struct, kw_only=True):
    """RISK_VIOLATION: a limit refused something, or was found exceeded.

    Attributes:
        violation_type: The limit's code.
        current_value: What was measured, in the limit's unit.
        limit: The bound, in the same unit.
        details: Whatever else was known.
    """

    violation_type: str
    current_value: Any
    limit: Any
    details: dict[str, Any] = {}


class RiskEventDetails(msgspec.Struct, omit_defaults=True):
    """RISK_EVENT: what a breaker, a trailing stop or a portfolio limit did; the record's `component` says which.

    Only `event_type` stands in every record; what does not apply is left out.

    Attributes:
        event_type: `circuit_breaker_…`, `trailing_stop_…`, `portfolio_limit_…`; see `risk.events.RiskEventType`.
        execution_id: The position's execution it is about.
        old_state: The state before.
        new_state: The state after.
        failure_count: Failures in a row then.
        entry_premium: Premium at entry, dollars.
        current_premium: Premium now, dollars.
        highest_premium: The best premium so far, dollars; the lowest one for a short.
        stop_premium: Where the stop stands, dollars.
        action: ADD, ACTIVATE, UPDATE, TRIGGER, REMOVE or RESET of a stop.
        limit_type: The limit's code.
        current_value: What was measured, decimal text in `unit`.
        limit_value: The bound, likewise.
        allowed: Whether a check passed.
        rejection_reason: Why not.
        metadata: Whatever else was known; a stop's ADD holds its sign and configuration here.
        symbol: The underlying or instrument.
        scope: What the value counts over; a breaker's name.
        unit: Of `current_value` and `limit_value`.
        limits_version: Which set of limits was in force.
        decision_id: The gate's decision it belongs to.
        intent_id: The intent it belongs to.
    """

    event_type: str
    execution_id: str = ""
    old_state: str = ""
    new_state: str = ""
    failure_count: int | None = None
    entry_premium: str = ""
    current_premium: str = ""
    highest_premium: str = ""
    stop_premium: str = ""
    action: str = ""
    limit_type: str = ""
    current_value: str = ""
    limit_value: str = ""
    allowed: bool | None = None
    rejection_reason: str = ""
    metadata: dict[str, Any] = {}
    symbol: str = ""
    scope: str = ""
    unit: str = ""
    limits_version: int = 0
    decision_id: str = ""
    intent_id: str = ""


class ApiCallDetails(msgspec.Struct, kw_only=True):
    """API_CALL: one call to a venue or feed.

    Attributes:
        api: Which.
        endpoint: Path or name, without secrets.
        method: GET, POST, ...
        status_code: HTTP status, 0 or null where no answer came.
        latency_ms: Milliseconds until the answer or the failure; a float.
        error: What failed, or "".
    """

    api: str
    endpoint: str
    method: str
    status_code: int | None
    latency_ms: float | None
    error: str = ""


class BreakerDetails(msgspec.Struct, kw_only=True, rename={"from_": "from"}):
    """BREAKER: a circuit breaker changed state.

    Attributes:
        breaker: Its name.
        from_: Key `from`: the state before.
        to: The state after.
        reason: Why.
        failures: Failures in its window then.
        retry_after_secs: Seconds until a probe may go, or null.
    """

    breaker: str
    from_: str
    to: str
    reason: str = ""
    failures: int = 0
    retry_after_secs: float | None = None


class StateDetails(msgspec.Struct, kw_only=True, rename={"from_": "from"}):
    """STATE: the trading state changed.

    Attributes:
        from_: Key `from`: ACTIVE, THROTTLED, REDUCING, CANCEL_ONLY or HALTED.
        to: The state after.
        reason: Why.
        who: A person or a part.
    """

    from_: str
    to: str
    reason: str
    who: str = ""


class ReconcileDetails(msgspec.Struct, kw_only=True):
    """RECONCILE: ours against the venue's.

    Attributes:
        phase: start, unknown or periodic.
        what: What was compared.
        explained: Whether every difference is accounted for.
        ours: Ours.
        theirs: The venue's.
        differences: One entry each.
    """

    phase: str
    what: str
    explained: bool
    ours: Any = None
    theirs: Any = None
    differences: list[Any] = []


class SettlementDetails(msgspec.Struct, kw_only=True):
    """SETTLEMENT: a market paid out.

    Attributes:
        ticker: Market.
        result: "yes", "no" or the venue's word.
        position: Signed contracts of the YES leg that were paid.
        payout: Dollars.
        settled_ns: When.
    """

    ticker: str
    result: str
    position: str
    payout: str
    settled_ns: int


class DepositDetails(msgspec.Struct, kw_only=True):
    """DEPOSIT: cash came in or, negative, went out, not by trading.

    Attributes:
        amount: Dollars, signed.
        reason: Why, or who said so.
    """

    amount: str
    reason: str = ""


class ValuationDetails(msgspec.Struct, kw_only=True):
    """VALUATION: what the account was worth at one moment; the rolling 24 h P&L counts from these.

    Attributes:
        valued_ns: When.
        liquidation: Cash plus every position at the executable side, dollars, deposits included.
    """

    valued_ns: int
    liquidation: str


class StreamDetails(msgspec.Struct, kw_only=True):
    """STREAM: a market data subscription changed.

    Attributes:
        event: connected, gap, resubscribed or disconnected.
        sid: Subscription id, or null.
        expected: The sequence that should have come.
        got: The one that came.
        tickers: Which markets.
    """

    event: str
    sid: int | None = None
    expected: int | None = None
    got: int | None = None
    tickers: list[str] = []


class CancelDetails(msgspec.Struct, kw_only=True):
    """CANCEL: a cancel that is about to be sent while the journal takes nothing; it only stands inside LATE.

    Attributes:
        client_order_id: Ours.
        order_id: The venue's.
        ticker: The market.
        leaves: Contracts still open.
    """

    client_order_id: str
    order_id: str
    ticker: str
    leaves: str


class ErasureDetails(msgspec.Struct, kw_only=True):
    """ERASURE: a person's key was destroyed, so that the fields hidden under it cannot be read again.

    Attributes:
        subject: Whose fields; the `user` of the records that hold them.
        key: The id of the key, 8 hexadecimal digits.
        reason: Why, in the words of whoever asked for it.
    """

    subject: str
    key: str
    reason: str


SCHEMAS: Mapping[str, type[msgspec.Struct]] = {
    RecordType.SEGMENT: SegmentDetails,
    RecordType.RECOVERY: RecoveryDetails,
    RecordType.SEALED: SealedDetails,
    RecordType.GAP: GapDetails,
    RecordType.CLOCK_STEP: ClockStepDetails,
    RecordType.LATE: LateDetails,
    RecordType.KEY: KeyDetails,
    RecordType.PRUNED: PrunedDetails,
    RecordType.LEGAL_HOLD: LegalHoldDetails,
    RecordType.CONFIG: ConfigDetails,
    RecordType.SESSION_OPEN: SessionOpenDetails,
    RecordType.DECISION: DecisionDetails,
    RecordType.ORDER: OrderDetails,
    RecordType.ORDER_UPDATE: OrderUpdateDetails,
    RecordType.TRADE: TradeDetails,
    RecordType.RISK_VIOLATION: RiskViolationDetails,
    RecordType.RISK_EVENT: RiskEventDetails,
    RecordType.API_CALL: ApiCallDetails,
    RecordType.BREAKER: BreakerDetails,
    RecordType.STATE: StateDetails,
    RecordType.RECONCILE: ReconcileDetails,
    RecordType.SETTLEMENT: SettlementDetails,
    RecordType.DEPOSIT: DepositDetails,
    RecordType.VALUATION: ValuationDetails,
    RecordType.STREAM: StreamDetails,
    RecordType.CANCEL: CancelDetails,
    RecordType.PLAN: PlanDetails,
    RecordType.ERASURE: ErasureDetails,
}

VERSIONS: Mapping[str, int] = {
    **dict.fromkeys(SCHEMAS, 1),
    RecordType.SEALED: 2,
    RecordType.ORDER: 2,
    RecordType.TRADE: 2,
}
"""Each schema's own version; it grows with every added field. `vectors/journal/recordings` keeps lines of each."""

_REQUIRED: Mapping[str, frozenset[str]] = {
    name: frozenset(field.encode_name for field in msgspec.structs.fields(schema) if field.required)
    for name, schema in SCHEMAS.items()
}
_MONEY_KEYS = frozenset(
    {"amount", "cash", "count", "fee", "fee_bound", "filled", "leaves", "liquidation", "payout", "position"}
    | {"price", "quantity", "released", "reserved", "yes_price"}
    | {"entry_premium", "current_premium", "highest_premium", "stop_premium", "current_value", "limit_value"}
)
_MONEY: Mapping[str, tuple[str, ...]] = {
    name: tuple(
        field.encode_name for field in msgspec.structs.fields(schema) if field.encode_name in _MONEY_KEYS
    )
    for name, schema in SCHEMAS.items()
}


JOURNALS_OWN = frozenset(
    {RecordType.SEGMENT, RecordType.RECOVERY, RecordType.SEALED, RecordType.GAP, RecordType.KEY}
    | {RecordType.CLOCK_STEP, RecordType.LATE, RecordType.PRUNED}
)
"""Types that the log writes about itself; recovery and verification believe them."""


def check(type_: str, details: Mapping[str, Any]) -> None:
    """Refuse *details* that lack a required key of the known type *type_*, or hold money as a float.

    Types that this version does not know pass.

    Raises:
        BadInput: Names the type and the keys.
    """
    required = _REQUIRED.get(type_)
    if required is None:
        return
    if not required <= details.keys():
        missing = ", ".join(sorted(required - details.keys()))
        raise BadInput(f"{type_} record refused: lacks {missing}")
    for key in _MONEY[type_]:
        if type(details.get(key)) is float:
            raise BadInput(
                f"{type_} record refused: {key} is the float {details[key]!r}, expected a decimal string",
                hint="format it with holdfast.core.money",
            )
