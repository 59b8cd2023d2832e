"""Rows A7 to A9, scenarios 2 and 3 of A14, and A16, through both routers over the fake venue."""

from __future__ import annotations

import asyncio
import inspect
from decimal import Decimal

import pytest
from support.clients import BlockingFakeClient, FakeClient
from support.execution import TICKER, MemoryLog, signal

from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import BadInput
from holdfast.execution.router import AsyncOrderRouter, OrderRouter
from holdfast.risk.manager import RiskManager
from holdfast.testing.venue import Play


def order(**changes):
    return {"ticker": TICKER, "side": "yes", "action": "buy", "count": 10, "price": 56} | changes


@pytest.fixture
def client():
    made = BlockingFakeClient()
    yield made
    made.close()


@pytest.fixture
def router(client):
    made = OrderRouter(client, RiskManager(user_id="u", audit_logger=client.audit_logger))
    yield made
    made.close()


@pytest.mark.contract("A7")
def test_router_answers_submitted_with_the_venues_response(client, router):
    """An accepted order answers `submitted` and what the venue said of it, and its fill is booked."""
    answer = router.route_order(order())
    assert answer["status"] == "submitted"
    assert answer["response"]["order_id"] == "V1"
    client.run(router.trader.wait_settled(answer["response"]["client_order_id"], timeout_secs=5))
    assert [trade["quantity"] for trade in client.audit_logger.of("TRADE")] == ["10.00"]


@pytest.mark.contract("A7")
@pytest.mark.parametrize("follow", [True, False])
def test_router_answers_exactly_as_the_contract_says(client, follow):
    """Refused by us, refused by the venue, breaker open, not sent and unknown each have their one answer."""
    router = OrderRouter(client, follow=follow)
    client.venue.script(Play.REJECT, Play.NOT_SENT, Play.NOT_SENT, Play.NOT_SENT, Play.VANISHED)
    assert router.route_order(order(count=101, price=1)) == {
        "status": "rejected",
        "reason": "risk_check_failed",
    }
    assert router.route_order(order()) == {"status": "rejected", "reason": "rejected_by_script"}
    assert router.route_order(order()) == {"status": "error", "reason": "not_sent"}
    lost = router.route_order(order())
    assert lost["status"] == "unknown"
    assert set(lost) == {"status", "client_order_id"}
    client.venue.is_breaker_open = True
    assert router.route_order(order()) == {"status": "error", "reason": "circuit_breaker_open"}
    router.close()


@pytest.mark.contract("A7")
def test_both_faces_give_the_same_answers():
    """The asynchronous router answers as the synchronous one does."""

    async def run():
        client = FakeClient()
        router = AsyncOrderRouter(client)
        client.venue.script(Play.NORMAL, Play.REJECT, Play.VANISHED)
        answers = [await router.route_order(order()) for _ in range(3)]
        answers.append(await router.route_order(order(count=500)))
        await router.close()
        return answers

    ours, theirs, lost, denied = asyncio.run(run())
    assert ours["status"] == "submitted"
    assert theirs == {"status": "rejected", "reason": "rejected_by_script"}
    assert lost["status"] == "unknown"
    assert denied == {"status": "rejected", "reason": "risk_check_failed"}
    for face in (OrderRouter, AsyncOrderRouter):
        parameters = list(inspect.signature(face).parameters)
        assert parameters[:2] == ["client", "risk_manager"]
        assert list(inspect.signature(face.route_order).parameters) == ["self", "order"]


@pytest.mark.contract("A8")
def test_one_denial_writes_two_violations_and_one_decision(client, router):
    """A denial leaves the first breached limit, the router's line, and every row in one DECISION; no call goes out."""
    router.start()
    calls = len(client.venue.calls)
    router.route_order(order(count=900, price=90))
    log = client.audit_logger
    assert log.violations() == ["position_limit_exceeded", "risk_check_failed"]
    (decision,) = log.of("DECISION")
    failed = [row[0] for row in decision["rows"] if not row[5]]
    assert failed == ["position_limit_exceeded", "order_value_exceeded"]
    assert client.venue.calls[calls:] == ["instrument"]
    assert not log.of("ORDER")


@pytest.mark.contract("A14")
def test_scenario_2_a_position_limit_refuses_without_an_api_call(client, router):
    """Ninety contracts held and twenty wished: rejected, nothing placed, the record says by how much."""
    assert router.route_order(order(count=90))["status"] == "submitted"
    placed = client.venue.calls.count("place")
    assert router.route_order(order(count=20)) == {"status": "rejected", "reason": "risk_check_failed"}
    assert client.venue.calls.count("place") == placed
    violation = client.audit_logger.of("RISK_VIOLATION")[0]
    assert violation["violation_type"] == "position_limit_exceeded"
    assert (violation["current_value"], violation["limit"]) == ("110.00", "100.00")
    assert violation["details"]["requested_count"] == "20.00"
    assert violation["details"]["new_position"] == "110.00"


@pytest.mark.contract("A14")
def test_scenario_3_an_open_breaker_refuses_without_an_api_call(client, router):
    """With the breaker open an increasing order answers so, one violation is written and nothing is placed."""
    router.route_order(order())
    client.venue.is_breaker_open = True
    placed = client.venue.calls.count("place")
    assert router.route_order(order()) == {"status": "error", "reason": "circuit_breaker_open"}
    assert client.venue.calls.count("place") == placed
    assert client.audit_logger.violations() == ["circuit_breaker_open"]
    decision = client.audit_logger.of("DECISION")[-1]
    assert (decision["verdict"], decision["reason"]) == ("deny", "circuit_breaker_open")
    assert all(order.key == "run-1-1" for order in router.trader.account.open_orders())


@pytest.mark.invariant("I5")
def test_a_reducing_order_passes_an_open_breaker_and_a_lost_day(client, router):
    """Selling what is held goes out although the breaker is open."""
    response = router.route_order(order())["response"]
    client.run(router.trader.wait_settled(response["client_order_id"], timeout_secs=5))
    client.venue.is_breaker_open = True
    assert router.route_order(order(action="sell", price=55))["status"] == "submitted"
    assert router.route_order(order(action="sell", price=55, count=11))["status"] == "error"


@pytest.mark.contract("A16")
def test_a_lost_order_is_neither_repeated_nor_forgotten(client, router):
    """An order whose answer is lost stays reserved under its id, is found in the books, and is sent once."""
    client.venue.script(Play.LATE)
    lost = router.route_order(order(intent="mine", count=60))
    assert lost["status"] == "unknown"
    assert router.trader.account.working(TICKER) == (60_00, 0)
    assert router.route_order(order(intent="mine", count=60))["status"] == "unknown"
    assert router.route_order(order(count=50)) == {"status": "rejected", "reason": "risk_check_failed"}

    async def later():
        client.venue.arrive()
        client.clock.advance(5)
        await router.trader.tick(client.clock.now_ns())

    client.run(later())
    client.run(router.trader.wait_settled(lost["client_order_id"], timeout_secs=5))
    assert router.trader.account.portfolio.position(TICKER) == 60_00
    assert [intent.client_order_id for intent in client.venue.arrived] == [lost["client_order_id"]]
    assert router.route_order(order(intent="mine", count=60))["status"] == "submitted"


@pytest.mark.contract("A9")
@pytest.mark.parametrize(
    ("wish", "allowed"),
    [
        ({"count": 100, "price": 1}, True),
        ({"count": 101, "price": 1}, False),
        ({"count": 100, "price": "0.56"}, True),
        ({"count": 100, "price": Decimal("0.56"), "side": "no"}, True),
        ({"count": 101, "price": 50, "side": "no"}, False),
        ({"count": 101, "price": 50, "action": "sell"}, False),
        ({"count": 10, "price": 100}, False),
        ({"count": 0, "price": 50}, False),
    ],
)
def test_check_risk_decides_at_and_beyond_the_position_limit(wish, allowed):
    """At the bound passes, one more is refused, on either side and by either action."""
    manager = RiskManager(100, 1000, "u", audit_logger=MemoryLog(), clock=ManualClock())
    assert manager.check_risk(order(**wish)) is allowed


@pytest.mark.contract("A9")
def test_check_risk_refuses_in_the_contracts_order_with_its_details():
    """Position first, then order value, then daily loss; each violation holds exactly the contract's details."""
    log, clock = MemoryLog(), ManualClock()
    manager = RiskManager(1000, 1000, "u", audit_logger=log, clock=clock)
    assert manager.check_risk(order(count=1000, price="0.50"))
    assert not manager.check_risk(order(count=1000, price="0.51"))
    assert not manager.check_risk(order(count=1001, price="0.90"))
    manager.gate.account.apply("DEPOSIT", {"amount": "1000.00"})
    assert manager.check_risk(order())
    manager.gate.account.portfolio.cash -= 1000_000_000
    assert manager.check_risk(order())
    manager.gate.account.portfolio.cash -= 10_000
    assert not manager.check_risk(order())
    value, position, loss = log.of("RISK_VIOLATION")
    assert [v["violation_type"] for v in (value, position, loss)] == [
        "order_value_exceeded",
        "position_limit_exceeded",
        "daily_loss_exceeded",
    ]
    assert value["details"] == {
        "ticker": TICKER,
        "count": "1000.00",
        "price": "0.5100",
        "notional_value": "510.00",
    }
    assert (value["current_value"], value["limit"]) == ("510.00", "500.00")
    assert position["details"] == {
        "ticker": TICKER,
        "current_position": "0.00",
        "requested_count": "1001.00",
        "new_position": "1001.00",
        "price": "0.9000",
    }
    assert loss["details"] == {"ticker": TICKER, "daily_pnl": "-1000.01", "max_daily_loss": "1000.00"}
    assert (loss["current_value"], loss["limit"]) == ("-1000.01", "-1000.00")
    assert all(decision["question"] for decision in log.of("DECISION"))


@pytest.mark.contract("A9")
def test_check_risk_reserves_nothing_however_often_it_is_asked():
    """A thousand questions of a hundred contracts each leave nothing reserved."""
    log = MemoryLog()
    manager = RiskManager(100, 1000, "u", audit_logger=log, clock=ManualClock())
    assert all(manager.check_risk(order(count=100, price=10)) for _ in range(1000))
    assert manager.gate.account.working(TICKER) == (0, 0)
    assert manager.gate.account.reserved == 0
    assert not manager.gate.account.orders


@pytest.mark.contract("A9")
@pytest.mark.parametrize(
    "wish", [{"price": 0.56}, {"price": float("nan")}, {"count": 1.5}, {"price": "1e-1"}]
)
def test_check_risk_refuses_floats_by_name(wish):
    """A float, NaN or exponent is an error that names the field; nothing is decided."""
    log = MemoryLog()
    manager = RiskManager(audit_logger=log, clock=ManualClock())
    with pytest.raises(BadInput):
        manager.check_risk(order(**wish))
    assert not log.lines


@pytest.mark.contract("B9")
def test_risk_manager_keeps_its_signature():
    """The constructor's positional parameters and the question stay as the contract fixes them."""
    parameters = inspect.signature(RiskManager).parameters
    assert [(p.name, p.default) for p in list(parameters.values())[:3]] == [
        ("max_position_size", 100),
        ("max_daily_loss", 1000),
        ("user_id", "unknown"),
    ]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[3:])
    assert list(inspect.signature(RiskManager.check_risk).parameters) == ["self", "signal"]


@pytest.mark.invariant("I3")
def test_two_routers_of_one_client_share_one_account(client):
    """A second router finds the first one's trader, so that limits count once, and tightens its limits."""
    first = OrderRouter(client)
    second = OrderRouter(client, RiskManager(60, audit_logger=client.audit_logger, clock=client.clock))
    assert second.trader is first.trader is client.trader
    assert first.route_order(order(count=40, price=50, tif="gtc"))["status"] == "submitted"
    assert second.route_order(order(count=21, price=50, tif="gtc"))["reason"] == "risk_check_failed"
    second.close()
    assert first.route_order(order(count=20, price=50, tif="gtc"))["status"] == "submitted"
    first.close()
    assert client.trader is None


@pytest.mark.contract("A8")
def test_the_path_writes_to_a_real_journal(tmp_path):
    """Decision, intent, answer, fill and refusal stand in a journal that verifies and can be asked for them."""
    log = AuditLogger(WriteAheadLog(tmp_path / "audit", clock=ManualClock(), seal=False), user="u")

    async def run():
        client = FakeClient(log)
        manager = RiskManager(user_id="u", audit_logger=log)
        router = AsyncOrderRouter(client, manager, follow=False)
        await router.route_order(signal(key="a"))
        await router.route_order(order(count=500))
        assert not manager.check_risk(order(count=500))
        await router.close()

    asyncio.run(run())
    types = [entry.event_type for entry in log.wal.query()]
    log.wal.close()
    assert {"DECISION", "ORDER", "ORDER_UPDATE", "TRADE", "RISK_VIOLATION", "STATE"} <= set(types)
    assert types.index("DECISION") < types.index("ORDER") < types.index("TRADE")
    assert log.wal.verify_integrity()["integrity_ok"]
