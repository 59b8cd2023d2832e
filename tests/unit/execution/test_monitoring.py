"""Premiums, exit rules and decisions of the monitoring workflow."""

import asyncio
import errno

import pytest
from support.desk import chain, desk_world, entered, flat_world, quote, quote_chain, tick

from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import read_records
from holdfast.audit.reserve import RESERVE_BYTES
from holdfast.audit.storage import LocalStorage
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.execution.monitoring import ExitRules, PositionMonitoringWorkflow, Urgency
from holdfast.execution.structures import StructureKind, StructurePlan, pick
from holdfast.risk.stop_rules import TrailingStopConfig
from holdfast.testing.storage import FaultyStorage

pytestmark = pytest.mark.contract("B11")
WIDE = TrailingStopConfig(90, 50)


def go(coroutine):
    return asyncio.run(coroutine)


async def long_call(w):
    """One long call, entered and attended; its ticker and execution."""
    await w.trader.start()
    quote_chain(w)
    await tick(w)
    plan = StructurePlan(kind=StructureKind.LONG_CALL, delta_e6=300_000)
    from support.desk import NOW

    structure = pick(plan, chain(), today=NOW.date())
    ticker = structure.ticker
    await w.engine.open(structure, execution_id="long_call-SPY-1", limit=w.board.quotes[ticker].ask)
    quote_chain(w)
    await tick(w)
    return ticker, w.engine.executions.known["long_call-SPY-1"]


async def at(w, ticker, bid, *, ask=None, times=3, secs=60):
    """Some quotes of one contract."""
    for _ in range(times):
        quote(w, ticker, bid, ask or (bid or 0) + 400)
        await tick(w, secs)


def test_the_premium_of_a_credit_is_what_closing_costs_and_of_a_debit_what_it_brings():
    """Asks of shorts less bids of longs; the bid of a long one."""

    async def run():
        w = desk_world(stop=WIDE)
        one = await entered(w)
        for _ in range(2):
            quote_chain(w)
            await tick(w, 60)
        cost = sum(-ratio * (q.ask if ratio < 0 else q.bid) for ratio, q in _quotes(w, one))
        assert w.desk.monitoring.premium(one) == cost
        w = desk_world(stop=WIDE)
        ticker, bought = await long_call(w)
        await at(w, ticker, 40_000)
        assert w.desk.monitoring.premium(bought) == 40_000

    go(run())


def _quotes(w, one):
    return [(ratio, w.board.quotes[ticker]) for ticker, ratio in one.legs]


@pytest.mark.invariant("I4")
def test_an_old_quote_is_no_premium():
    """Two and a half minutes without a quote, and the premium is unknown."""

    async def run():
        w = desk_world(stop=WIDE)
        ticker, one = await long_call(w)
        await at(w, ticker, 40_000)
        w.clock.advance(151)
        assert w.desk.monitoring.premium(one) is None

    go(run())


@pytest.mark.parametrize(
    ("rules", "bid", "rule"),
    [
        (ExitRules(profit_pct=50), 100_000, "ProfitTarget"),
        (ExitRules(loss_pct=40), 10_000, "LossLimit"),
        (ExitRules(before_expiry_secs=40 * 86_400), 50_000, "NearExpiry"),
    ],
)
def test_exit_rules_leave_without_urgency(rules, bid, rule):
    """Profit, loss and time before expiry each close the position under their own name."""

    async def run():
        w = desk_world(stop=WIDE, exit_rules=rules)
        ticker, one = await long_call(w)
        await at(w, ticker, bid, times=5)
        decision = w.desk.monitoring.decisions[0]
        assert (decision.rule, decision.urgency) == (rule, Urgency.NORMAL)
        assert flat_world(w)
        assert w.stops.stops == {}
        assert one.ladder.rule == rule

    go(run())


def test_no_rule_no_exit():
    """Rules are off until they are set."""

    async def run():
        w = desk_world(stop=TrailingStopConfig(500, 50))
        ticker, _one = await long_call(w)
        await at(w, ticker, 100, times=6)
        assert not w.desk.monitoring.decisions

    go(run())


def test_a_long_options_stop_follows_the_bid_and_fires():
    """Bought, risen, fallen below the trail: TrailingStop, IMMEDIATE."""

    async def run():
        w = desk_world(stop=TrailingStopConfig(10, 8, 1))
        ticker, one = await long_call(w)
        entry = one.entry_premium
        await at(w, ticker, entry * 2)
        await at(w, ticker, int(entry * 1.5) // 100 * 100)
        (decision,) = w.desk.monitoring.decisions
        assert (decision.rule, decision.urgency) == ("TrailingStop", Urgency.IMMEDIATE)
        await at(w, ticker, entry)
        assert flat_world(w)
        assert w.events.kinds("trailing_stop")[-1] == "trailing_stop_remove"

    go(run())


def test_the_workflow_works_without_events_and_without_stops():
    """event_logger=None and the stops' layer off: rules still close."""

    async def run():
        w = desk_world(with_stops=False)
        ticker, one = await long_call(w)
        workflow = PositionMonitoringWorkflow(w.engine, clock=w.clock, exit_rules=ExitRules(profit_pct=50))
        workflow.attend(one)
        await at(w, ticker, 200_000)
        assert await workflow.monitor(w.clock.now_ns()) == []
        assert [d.rule for d in await workflow.review(w.clock.now_ns())] == ["ProfitTarget"]

    go(run())


@pytest.mark.invariant("I5")
@pytest.mark.invariant("I1")
def test_a_triggered_stop_leaves_on_a_dead_journal_through_the_reserve(tmp_path):
    """The disk under the journal fails: the stop's exit is written into the reserve and sent; a mere rule's is not."""
    broken = []
    disk = FaultyStorage(
        LocalStorage(),
        fail_at=1,
        error=errno.EIO,
        forever=True,
        counts=lambda operation, name: (
            bool(broken) and operation in {"fdatasync", "fsync", "pwrite"} and name.startswith("audit_")
        ),
    )
    clock = ManualClock(1_795_186_800 * 10**9)
    wal = WriteAheadLog(tmp_path / "log", clock=clock, storage=disk, seal=False, reserve_bytes=RESERVE_BYTES)
    log = AuditLogger(wal, user="tester")

    async def run():
        wal.open()
        w = desk_world(log=log, clock=clock, with_stops=False)
        one = await entered(w)
        broken.append(True)
        rule = await w.engine.exit(one.execution_id, rule="ProfitTarget")
        assert rule.outcome == "denied"
        w.clock.advance(61)
        quote_chain(w)
        await tick(w)
        await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        for _ in range(3):
            quote_chain(w)
            await tick(w, 61)
        assert flat_world(w)
        return [intent.client_order_id for intent in w.venue.arrived]

    sent = asyncio.run(run())
    broken.clear()
    wal.close()
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), seal=False) as again:
        again.open()
    late = [record.details for record in read_records(tmp_path / "log") if record.type == "LATE"]
    orders = [one["details"]["client_order_id"] for one in late if one["type"] == "ORDER"]
    assert orders
    assert set(orders) < set(sent)
