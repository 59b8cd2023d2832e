import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.logger import AuditLogger
from holdfast.audit.schemas import RiskEventDetails
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.events import BreakerEvent, BreakerEventKind
from holdfast.breaker.machine import BreakerState
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, format_price
from holdfast.risk.events import RiskEvent, RiskEventType, details_of, event_of_record, of_breaker

EVENTS = [
    RiskEvent(
        event_type=RiskEventType.TRAILING_STOP_ADD,
        component="trailing_stop",
        execution_id="ic-7",
        entry_premium=1_000_000,
        stop_premium=-5,
        action="ADD",
        symbol="SPY",
        metadata={"sign": -1, "config": {"activation_pct": "2"}},
    ),
    RiskEvent(
        event_type=RiskEventType.PORTFOLIO_LIMIT_CHECK,
        component="portfolio_limits",
        limit_type="portfolio_delta",
        current_value="50.5",
        limit_value="50",
        allowed=False,
        rejection_reason="portfolio_delta 50.5 > 50",
        scope="portfolio",
        unit="shares",
        limits_version=3,
        decision_id="d-1",
        intent_id="i-1",
    ),
    RiskEvent(
        event_type=RiskEventType.CIRCUIT_BREAKER_SUCCESS,
        component="circuit_breaker",
        failure_count=0,
        current_premium=0,
        highest_premium=10**12,
    ),
    RiskEvent(event_type=RiskEventType.TRAILING_STOP_REMOVE, component="trailing_stop"),
]


@pytest.mark.contract("B8")
def test_the_event_types_are_the_contracts():
    """The thirteen types have the contract's names, and a breaker's kinds are four of them."""
    assert [type_.value for type_ in RiskEventType] == [
        *(f"circuit_breaker_{one}" for one in ("state_change", "failure", "success", "manual_reset")),
        *(f"trailing_stop_{one}" for one in ("add", "activate", "update", "trigger", "remove", "reset")),
        *(f"portfolio_limit_{one}" for one in ("check", "rejection", "warning")),
    ]
    assert {kind.value for kind in BreakerEventKind} < {type_.value for type_ in RiskEventType}


@pytest.mark.contract("B8")
@pytest.mark.invariant("I11")
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event_type.value)
def test_an_event_comes_back_from_the_journal_as_it_was(event, tmp_path):
    """Every field of an event, zero and False too, is in its record and comes back; premiums stand there as text."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock()) as wal:
        AuditLogger(wal).record(
            "RISK_EVENT", msgspec.to_builtins(details_of(event)), component=event.component
        )
        (record,) = [one for one in wal.records() if one.type == "RISK_EVENT"]
        (entry,) = wal.query(event_type="RISK_EVENT")
    assert event_of_record(record) == event == event_of_record(entry)
    assert record.component == event.component
    for key in ("entry_premium", "current_premium", "highest_premium", "stop_premium"):
        assert isinstance(record.details.get(key, ""), str)


def test_the_schema_publishes_exactly_the_fields_of_an_event():
    """The published schema has the fields of an event, but for the component, which the record itself names."""
    fields = [field.name for field in msgspec.structs.fields(RiskEvent) if field.name != "component"]
    assert [field.name for field in msgspec.structs.fields(RiskEventDetails)] == fields


@pytest.mark.contract("B1")
def test_a_breakers_event_is_a_risk_event():
    """A breaker's event keeps its kind, states, count, name, reason and person."""
    event = BreakerEvent(
        BreakerEventKind.STATE_CHANGE,
        "ib",
        BreakerState.CLOSED,
        BreakerState.OPEN,
        5,
        7,
        "5 failures",
        "ann",
        60.0,
    )
    assert of_breaker(event) == RiskEvent(
        event_type=RiskEventType.CIRCUIT_BREAKER_STATE_CHANGE,
        component="circuit_breaker",
        old_state="closed",
        new_state="open",
        failure_count=5,
        scope="ib",
        metadata={"reason": "5 failures", "who": "ann", "retry_after_secs": 60.0},
    )


def test_a_record_that_is_no_risk_event_is_refused():
    """An unknown type and a premium that is no number are refused by name."""

    class Seen(msgspec.Struct):
        details: dict
        component: str = ""

    with pytest.raises(BadInput, match="not a risk event"):
        event_of_record(Seen({"event_type": "weather"}))
    with pytest.raises(BadInput, match="stop_premium 'much'"):
        event_of_record(Seen({"event_type": "trailing_stop_add", "stop_premium": "much"}))


@given(entry=st.integers(-(10**13), 10**13), current=st.integers(-(10**13), 10**13), more=st.integers(0, 1))
@pytest.mark.contract("B8")
def test_premiums_are_written_as_prices(entry, current, more):
    """Each is the exact text of its price, also where the best one is the current one."""
    details = details_of(
        RiskEvent(
            event_type=RiskEventType.TRAILING_STOP_UPDATE,
            component="trailing_stop",
            entry_premium=PriceE4(entry),
            current_premium=PriceE4(current),
            highest_premium=PriceE4(current + more),
        )
    )
    assert details.entry_premium == format_price(PriceE4(entry))
    assert details.current_premium == format_price(PriceE4(current))
    assert details.highest_premium == format_price(PriceE4(current + more))
    assert not details.stop_premium


@pytest.mark.parametrize("name", ["entry_premium", "current_premium", "highest_premium", "stop_premium"])
def test_a_premium_that_is_no_integer_is_refused(name):
    """Neither a float, equal to one that was written before or not, nor a text becomes a price."""
    premiums = {"entry_premium": 12, "current_premium": 12, "highest_premium": 12, "stop_premium": 12}
    event = RiskEvent(event_type=RiskEventType.TRAILING_STOP_UPDATE, component="trailing_stop", **premiums)
    details_of(event)
    for wrong in (12.0, 1.5, "12"):
        with pytest.raises(TypeError, match="no integer"):
            details_of(msgspec.structs.replace(event, **{name: wrong}))
