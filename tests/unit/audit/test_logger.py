from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from decimal import Decimal

import msgspec
import pytest

from holdfast.audit.logger import AuditLogger, default_level
from holdfast.audit.people import PersonalData
from holdfast.audit.redact import REDACTED, Redactor
from holdfast.audit.schemas import JOURNALS_OWN, RecordType
from holdfast.audit.wal import Entry, Level, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput

CANARY = "canary-7f3b9a-secret-value"


@pytest.fixture
def wal(tmp_path):
    with WriteAheadLog(tmp_path / "audit", clock=ManualClock(), seal=False) as log:
        yield log


@pytest.fixture
def audit(wal):
    return AuditLogger(wal, redactor=Redactor([CANARY]))


def last(wal):
    return wal.query()[-1]


@pytest.mark.contract("A10")
@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("log_order", ["user_id", "order_id", "side", "order_type", "quantity", "price"]),
        ("log_trade", ["user_id", "order_id", "side", "quantity", "price", "market"]),
        ("log_risk_violation", ["user_id", "violation_type", "current_value", "limit", "details"]),
        ("log_api_call", ["user_id", "api", "endpoint", "method", "status_code", "latency_ms"]),
    ],
)
def test_the_fixed_signatures_stay(method, parameters):
    """The contract's parameters come first, positional, without defaults; everything else is a keyword."""
    signature = inspect.signature(getattr(AuditLogger, method))
    positional = [
        name
        for name, one in signature.parameters.items()
        if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert positional == ["self", *parameters]
    assert all(signature.parameters[name].default is inspect.Parameter.empty for name in parameters)


@pytest.mark.contract("A12")
def test_the_fixed_signature_of_query_stays():
    """`wal.query` takes the contract's five conditions, all optional."""
    assert list(inspect.signature(WriteAheadLog.query).parameters)[1:6] == [
        "start_time", "end_time", "event_type", "user_id", "max_results",
    ]  # fmt: skip


@pytest.mark.contract("A10")
def test_log_order_writes_an_order(audit, wal):
    """The six facts stand in the record, price and quantity as decimal text."""
    sequence = audit.log_order("ann", "hf-1", "yes", "limit", 10, Decimal("0.56"), ticker="KXA")
    entry = last(wal)
    assert (entry.sequence, entry.event_type, entry.user_id) == (sequence, "ORDER", "ann")
    assert entry.details == {
        "order_id": "hf-1", "side": "yes", "order_type": "limit", "quantity": "10.00", "price": "0.5600", "ticker": "KXA",
    }  # fmt: skip


@pytest.mark.contract("A10")
def test_log_trade_writes_a_trade(audit, wal):
    """An int price is whole cents."""
    audit.log_trade("ann", "v-1", "bid", "2.50", 56, "KXA")
    entry = last(wal)
    assert entry.event_type == "TRADE"
    assert entry.details == {
        "order_id": "v-1",
        "side": "bid",
        "quantity": "2.50",
        "price": "0.5600",
        "market": "KXA",
    }


@pytest.mark.contract("A10")
def test_log_risk_violation_writes_a_violation(audit, wal):
    """Counts stay numbers, money becomes decimal text, a float is read by its shortest text."""
    audit.log_risk_violation("ann", "order_value_exceeded", 620.1, Decimal(500), {"ticker": "KXA"})
    assert last(wal).details == {
        "violation_type": "order_value_exceeded", "current_value": "620.1", "limit": "500", "details": {"ticker": "KXA"},
    }  # fmt: skip
    audit.log_risk_violation("ann", "position_limit_exceeded", 150, 100, {})
    assert last(wal).details["current_value"] == 150


@pytest.mark.contract("A10")
def test_log_api_call_writes_a_call(audit, wal):
    """Status 0 says that no answer came."""
    audit.log_api_call("ann", "kalshi", "markets/KXA", "GET", 0, 30000.0, error="timeout")
    entry = last(wal)
    assert entry.event_type == "API_CALL"
    assert entry.details == {
        "api": "kalshi", "endpoint": "markets/KXA", "method": "GET", "status_code": 0, "latency_ms": 30000.0, "error": "timeout",
    }  # fmt: skip


def test_log_config_writes_the_settings(audit, wal):
    """CONFIG holds the effective settings, secrets removed."""
    audit.log_config("ops", {"limits.max_position_size": 100, "venue.kalshi.api_secret": "x"})
    assert last(wal).details == {"limits.max_position_size": 100, "venue.kalshi.api_secret": REDACTED}


@pytest.mark.parametrize("price", [0.56, float("nan"), True, "0.56001", "1e-2"])
def test_a_price_that_is_not_exact_is_refused(audit, wal, price):
    """No float and no truth value becomes a price, and nothing is written."""
    with pytest.raises(BadInput, match="price"):
        audit.log_trade("ann", "v-1", "bid", 1, price, "KXA")
    assert wal.query() == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN"), True])
def test_a_measure_that_is_no_number_is_refused(audit, value):
    """NaN, infinities and truth values are no current value."""
    with pytest.raises(BadInput, match="current_value"):
        audit.log_risk_violation("ann", "x", value, 1, {})


def test_a_record_without_its_required_fields_is_refused(audit, wal):
    """The logger holds every record against its schema."""
    with pytest.raises(BadInput):
        audit.record(RecordType.STATE, {"to": "HALTED"})
    assert wal.query() == []


@pytest.mark.parametrize("type_", [*RecordType, "NOT_YET_KNOWN"])
def test_every_type_waits_for_the_disk_unless_listed(type_):
    """Only API calls, breaker changes, risk events and stream events are acknowledged before the sync."""
    written = {"API_CALL", "BREAKER", "RISK_EVENT", "STREAM"}
    assert default_level(type_) is (Level.WRITTEN if type_ in written else Level.DURABLE)


def test_a_default_user_stands_in(wal):
    """A record without user carries the logger's; the contract's default is "unknown"."""
    AuditLogger(wal).record("NOTE", {})
    assert last(wal).user_id == "unknown"
    AuditLogger(wal, user="desk").record_many([Entry("NOTE", {}), Entry("NOTE", {}, "ann")])
    assert [entry.user_id for entry in wal.query(event_type="NOTE")] == ["unknown", "desk", "ann"]


def test_the_async_twins_write_the_same(audit, wal):
    """`record_async` and `record_many_async` return sequences of durable records."""

    async def scenario():
        one = await audit.record_async("NOTE", {"n": 1}, user="a")
        return [one, *await audit.record_many_async([Entry("NOTE", {"n": 2}), Entry("NOTE", {"n": 3})])]

    sequences = asyncio.run(scenario())
    assert sequences == [2, 3, 4]
    assert [entry.details["n"] for entry in wal.query(event_type="NOTE")] == [1, 2, 3]


def test_a_batch_is_all_or_nothing(audit, wal):
    """One bad entry, and none of the batch is written."""
    with pytest.raises(BadInput):
        audit.record_many([Entry("NOTE", {}), Entry("NOTE", {"x": float("nan")})])
    assert wal.query() == []


@pytest.mark.invariant("I14")
@pytest.mark.parametrize("type_", [*(one for one in RecordType if one not in JOURNALS_OWN), "OTHER"])
def test_no_secret_reaches_a_record_of_any_type(wal, audit, type_):
    """A registered secret and secrets by name and shape are gone from every string of every record type."""
    shaped = "Authorization: Bearer " + "shapedcanary99"
    details = _filled(type_, shaped)
    audit.record(type_, details, user=CANARY, component=f"x {CANARY}")
    asyncio.run(audit.record_async(type_, details, user=CANARY, component=CANARY))
    audit.record_many([Entry(type_, details, CANARY, CANARY)])
    wal.sync()
    stored = b"".join(path.read_bytes() for path in wal.directory.glob("*.log"))
    assert b"canary" not in stored.replace(b"holdfast", b"")
    assert stored.count(REDACTED.encode()) >= 6


def _filled(type_, shaped):
    """Details of *type_* that fit its schema, a canary in every string, at every depth."""
    import msgspec

    from holdfast.audit import schemas

    details = {
        "error": f"failed: {shaped}",
        "note": f"x{CANARY}y",
        "nested": [{"password": "namedcanary1", CANARY: CANARY}],
    }
    schema = next(
        (
            one
            for name, one in vars(schemas).items()
            if name.lower() == type_.replace("_", "").lower() + "details"
        ),
        None,
    )
    for field in msgspec.structs.fields(schema) if schema is not None else ():
        if field.required:
            kind = str(field.type)
            details[field.encode_name] = (
                {} if "dict" in kind else [] if "list" in kind else True if "bool" in kind else 1 if "int" in kind or "float" in kind
                else CANARY if field.encode_name not in {"quantity", "price", "amount", "cash", "liquidation"} else "1.00"
            )  # fmt: skip
    return details


@pytest.mark.invariant("I14")
def test_no_secret_reaches_the_errors_of_the_fixed_methods(audit, wal):
    """Error text of an API call loses its secrets."""
    audit.log_api_call(
        "ann", "kalshi", "x", "GET", 401, 1.0, error=f"bad key {CANARY}; Authorization: Basic c2VjcmV0Og=="
    )
    assert last(wal).details["error"] == f"bad key {REDACTED}; Authorization: Basic {REDACTED}"


@pytest.mark.parametrize("type_", sorted(JOURNALS_OWN))
def test_only_the_log_writes_about_itself(audit, type_):
    """Record types that recovery and verification believe are refused from everybody else."""
    with pytest.raises(BadInput, match="only the log itself"):
        audit.record(type_, {})


class _Login(msgspec.Struct):
    api_secret: str
    email: str


@dataclass
class _Contact:
    api_secret: str
    email: str


@pytest.mark.invariant("I14")
@pytest.mark.parametrize(
    "details",
    [
        {"who": _Login("hunter2hunter2", "bob@example.org")},
        {"all": [{"who": _Contact("hunter2hunter2", "bob@example.org")}]},
    ],
    ids=["struct", "dataclass"],
)
def test_the_fields_of_an_object_lose_their_secrets_by_name(wal, tmp_path, details):
    """A struct or a dataclass in a record is searched by the names of its fields, for secrets and for people."""
    audit = AuditLogger(wal, redactor=Redactor(), personal=PersonalData(tmp_path / "people", ["email"]))
    audit.record("NOTE", details, user="bob")
    text = repr(last(wal).details)
    assert "hunter2hunter2" not in text
    assert "bob@example.org" not in text
    assert f"'api_secret': '{REDACTED}'" in text
    assert "'subject': 'bob'" in text
