from __future__ import annotations

import pytest
from support.journal import SECOND, START_NS, HandmadeLog

from holdfast.audit.query import LogReader
from holdfast.audit.saved import SAVED, answer, saved_query
from holdfast.core.errors import BadInput

DAY_NS = 86_400 * SECOND


@pytest.fixture
def log(tmp_path):
    return HandmadeLog(tmp_path / "audit")


def asked(log, name, *, now_ns=START_NS + DAY_NS, **given):
    log.head()
    return list(answer(saved_query(name), LogReader(log.directory), given, now_ns=now_ns))


def found(rows):
    return [row["sequence"] for row in rows]


@pytest.mark.contract("A18")
def test_a_days_trades_of_a_user_are_those_of_that_utc_day(log):
    """The day begins at 00:00 UTC, included, and ends at 24:00, excluded; other users and types are left out."""
    log.segment([])
    midnight = (START_NS // DAY_NS + 1) * DAY_NS
    for at, user in ((-1, "ann"), (0, "ann"), (DAY_NS - 1, "ann"), (DAY_NS, "ann"), (5, "bob")):
        log.now_ns = midnight + at
        line = log.line("TRADE", {"n": at}, user)
        path = log.directory / log.name
        path.write_bytes(path.read_bytes() + line + b"\n")
        log.end = path.stat().st_size
    assert found(asked(log, "trades-of-user", user="ann", day="2025-11-21")) == [3, 4]


@pytest.mark.contract("A18")
def test_violations_go_thirty_days_back(log):
    """The window ends at the time of asking and is 30 days long, or as many as are asked for."""
    log.segment(
        [("RISK_VIOLATION", {"violation_type": "x"}, "ann"), ("TRADE", {}), ("RISK_VIOLATION", {}, "bob")]
    )
    assert found(asked(log, "violations")) == [2, 4]
    at = START_NS + 30 * DAY_NS + 2 * SECOND
    assert found(asked(log, "violations", now_ns=at)) == [4]
    assert found(asked(log, "violations", now_ns=at, days="31")) == [2, 4]
    assert found(asked(log, "violations", until="2025-11-20T10:20:02Z")) == [2]


@pytest.mark.contract("A18")
def test_slow_calls_are_slower_than_the_bound(log):
    """A call of exactly 1000 ms is not slower; one without a latency is not known to be."""
    calls = [1000, 1000.1, 41.0, None, "2000", 5000]
    log.segment([("API_CALL", {"latency_ms": latency}) for latency in calls])
    assert found(asked(log, "slow-api-calls")) == [3, 7]
    assert found(asked(log, "slow-api-calls", over_ms="40")) == [2, 3, 4, 7]


ORDER = {"order_id": "hf-1", "client_order_id": "hf-1", "intent": "i", "decision": 2, "quantity": "5.00"}


@pytest.mark.contract("A18")
def test_an_orders_life_is_the_same_by_either_id(log):
    """Decision, intent, updates, fills and last words of one order, by our id or the venue's; of no other order."""
    log.segment(
        [
            ("DECISION", {"n": 1, "intent": "other"}),
            ("DECISION", {"n": 2, "intent": "i"}),
            ("ORDER", ORDER),
            (
                "ORDER",
                ORDER | {"order_id": "hf-2", "client_order_id": "hf-2", "intent": "other", "decision": 1},
            ),
            ("ORDER_UPDATE", {"client_order_id": "hf-1", "order_id": "", "event": "sent"}),
            ("ORDER_UPDATE", {"client_order_id": "hf-1", "order_id": "v-1", "event": "ack"}),
            ("TRADE", {"order_id": "v-1", "client_order_id": ""}),
            ("TRADE", {"order_id": "v-2", "client_order_id": "hf-2"}),
            ("LATE", {"type": "CANCEL", "details": {"client_order_id": "hf-1"}}),
            ("LATE", {"type": "CANCEL", "details": {"client_order_id": "hf-2"}}),
        ]
    )
    life = [3, 4, 6, 7, 8, 10]
    assert found(asked(log, "order-life", order="hf-1")) == life
    assert found(asked(log, "order-life", order="v-1")) == life
    assert asked(log, "order-life", order="hf-3") == []


@pytest.mark.contract("A18")
def test_changes_of_limits_and_halts_name_who(log):
    """State changes, latched breakers, settings and the first decision under other limits, in order."""
    log.segment(
        [
            ("DECISION", {"limits_version": 1}, "ann"),
            ("DECISION", {"limits_version": 1}, "ann"),
            ("STATE", {"from": "ACTIVE", "to": "HALTED", "reason": "r", "who": "bob"}, "ann"),
            ("BREAKER", {"breaker": "b", "from": "closed", "to": "open"}, "ann"),
            ("BREAKER", {"breaker": "b", "from": "latched", "to": "closed", "reason": "key"}, "ann"),
            ("CONFIG", {"limits.max": "5"}, "cid"),
            ("DECISION", {"limits_version": 2}, "ann"),
        ]
    )
    rows = asked(log, "limits-and-halts")
    assert [(row["sequence"], row["change"], row["who"]) for row in rows] == [
        (2, "limits None -> 1", "ann"),
        (4, "state ACTIVE -> HALTED", "bob"),
        (6, "breaker b: latched -> closed", "ann"),
        (7, "settings: limits.max", "cid"),
        (8, "limits 1 -> 2", "ann"),
    ]


@pytest.mark.contract("A18")
def test_orders_without_outcome_are_those_not_known_to_have_ended(log):
    """Filled, canceled and wholly traded orders have an outcome; working, unknown and partly filled ones have none."""

    def order(n):
        name = f"hf-{n}"
        return ("ORDER", ORDER | {"order_id": name, "client_order_id": name}, "ann")

    def update(n, status):
        return ("ORDER_UPDATE", {"client_order_id": f"hf-{n}", "order_id": f"v-{n}", "status": status})

    log.segment(
        [
            *map(order, range(6)),
            update(0, "filled"), update(1, "working"), update(2, "unknown"), update(3, "canceled"),
            ("TRADE", {"order_id": "v-4", "client_order_id": "hf-4", "quantity": "5.00"}),
            ("TRADE", {"order_id": "v-5", "client_order_id": "hf-5", "quantity": "4.00", "trade_id": "t"}),
            ("TRADE", {"client_order_id": "hf-5", "quantity": "4.00", "trade_id": "t/corrected/2"}),
            update(3, "working"),
        ]
    )  # fmt: skip
    rows = asked(log, "orders-without-outcome")
    assert [(row["client_order_id"], row["status"], row["filled"]) for row in rows] == [
        ("hf-1", "working", "0"), ("hf-2", "unknown", "0"), ("hf-3", "working", "0"), ("hf-5", "pending", "4.00"),
    ]  # fmt: skip
    assert rows[0]["order_id"] == "v-1"
    assert rows[0]["last_sequence"] == 9
    early = asked(log, "orders-without-outcome", to="2025-11-20T10:20:07Z")
    assert [row["client_order_id"] for row in early] == [f"hf-{n}" for n in range(6)]


@pytest.mark.contract("A18")
def test_refusals_are_counted_by_reason(log):
    """Denied decisions and violations, most frequent first; questions and allowed decisions do not count."""
    denied = {"verdict": "deny", "reason": "notional"}
    log.segment(
        [
            ("DECISION", {"verdict": "deny", "reason": "spread"}, "ann"),
            ("DECISION", denied, "ann"),
            ("DECISION", denied, "bob"),
            ("DECISION", denied | {"question": True}, "ann"),
            ("DECISION", {"verdict": "allow", "reason": ""}, "ann"),
            ("RISK_VIOLATION", {"violation_type": "notional"}, "ann"),
        ]
    )
    rows = asked(log, "refusals-by-reason")
    facts = [
        (row["reason"], row["event_type"], row["count"], row["first_sequence"], row["last_sequence"])
        for row in rows
    ]
    assert facts == [
        ("notional", "DECISION", 2, 3, 4), ("notional", "RISK_VIOLATION", 1, 7, 7), ("spread", "DECISION", 1, 2, 2),
    ]  # fmt: skip
    assert [row["count"] for row in asked(log, "refusals-by-reason", user="bob")] == [1]


@pytest.mark.contract("A18")
def test_interruptions_and_comparisons_are_listed(log):
    """Gaps, recoveries, clock steps and late words; and every RECONCILE with its differences."""
    kinds = ["GAP", "NOTE", "RECOVERY", "CLOCK_STEP", "LATE", "RECONCILE"]
    log.segment(
        [
            (kind, {"phase": "start", "what": "positions", "explained": False, "differences": ["KX"]})
            for kind in kinds
        ]
    )
    assert found(asked(log, "gaps-and-recoveries")) == [2, 4, 5, 6]
    (row,) = asked(log, "reconciliations")
    assert (row["sequence"], row["explained"], row["differences"]) == (7, False, ["KX"])


@pytest.mark.parametrize("name", list(SAVED))
def test_a_row_has_the_columns_of_its_question(log, name):
    """Whatever a question finds in a log with everything in it, each row has every column, and no error is raised."""
    details = ORDER | {
        "verdict": "deny",
        "reason": "r",
        "latency_ms": 2000,
        "limits_version": 1,
        "to": "latched",
    }
    types = [
        "ORDER",
        "DECISION",
        "TRADE",
        "RISK_VIOLATION",
        "API_CALL",
        "STATE",
        "BREAKER",
        "GAP",
        "RECONCILE",
    ]
    open_order = ("ORDER", details | {"order_id": "hf-9", "client_order_id": "hf-9"}, "ann")
    log.segment([*((type_, details, "ann") for type_ in types), open_order])
    query = saved_query(name)
    given = {"user": "ann", "day": "2025-11-20", "order": "hf-1"}
    rows = asked(
        log, name, **{key: given[key] for key in given if key in {one.name for one in query.parameters}}
    )
    assert rows
    assert all(set(query.columns) <= row.keys() for row in rows)


def test_unknown_questions_and_parameters_are_refused_with_a_suggestion(log):
    """A misspelt name or parameter names the one it resembles; a missing one says what it means."""
    log.segment([])
    with pytest.raises(BadInput, match="no saved query 'trades'") as caught:
        saved_query("trades")
    assert "trades-of-user" in caught.value.hint
    with pytest.raises(BadInput, match="has no parameter 'usr'") as caught:
        asked(log, "trades-of-user", usr="x")
    assert "'user'" in caught.value.hint
    with pytest.raises(BadInput, match="needs user: the user id"):
        asked(log, "trades-of-user", day="2025-11-20")
