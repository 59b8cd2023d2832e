"""When the desk enters: every rule in its order, each refusal under its own name."""

import asyncio

import msgspec
import pytest
from support.desk import NOW_NS, chain, desk_world, quote_chain, tick

from holdfast.core.money import QtyE2
from holdfast.execution.desk import Layer, read_layers
from holdfast.execution.entry import EntryRules, EntryWorkflow
from holdfast.execution.outcomes import Outcome
from holdfast.execution.reference import ReferenceInput
from holdfast.execution.structures import StructureKind, StructurePlan
from holdfast.risk.limits import RiskLimits, RiskLimitsConfig
from holdfast.risk.manager import RiskManager
from holdfast.risk.portfolio import AccountRisk, PortfolioLimitsChecker

pytestmark = pytest.mark.contract("B10")


def go(coroutine):
    return asyncio.run(coroutine)


def by_hand(rank="60", vix="18"):
    return ReferenceInput.by_hand(iv_rank=rank, vix=vix)


async def considered(w, *, reference=None, rules=None, risk=None, quotes=None, events=True):
    """One look at SPY."""
    await w.trader.start()
    quote_chain(w)
    await tick(w)
    workflow = EntryWorkflow(
        w.engine,
        reference or by_hand(),
        risk_manager=risk,
        rules=rules,
        event_logger=w.events if events else None,
    )
    return await workflow.consider("SPY", chain() if quotes is None else quotes, NOW_NS)


@pytest.mark.parametrize(
    ("rank", "entered"),
    [("24.99", True), ("25", False), ("37", False), ("50", False), ("50.01", True)],
)
def test_an_entry_needs_an_iv_rank_outside_25_to_50(rank, entered):
    """Below 25 and above 50 pass; at the bounds and between, nothing is looked for."""

    async def run():
        rules = EntryRules(when_cheap=(StructurePlan(kind=StructureKind.LONG_STRANGLE),))
        outcome = await considered(desk_world(), reference=by_hand(rank), rules=rules)
        assert outcome.entered is entered
        assert outcome.reason == ("" if entered else "iv_rank")

    go(run())


@pytest.mark.parametrize(("vix", "entered"), [("34.99", True), ("35", False), ("80", False)])
def test_an_entry_needs_a_vix_below_35(vix, entered):
    """At 35 nothing is entered any more."""
    assert go(considered(desk_world(), reference=by_hand(vix=vix))).entered is entered


@pytest.mark.invariant("I4")
def test_an_entry_without_a_reference_input_is_refused_and_told():
    """Nobody declared an IV rank: reference_unknown, and no order."""

    async def run():
        w = desk_world()
        outcome = await considered(w, reference=ReferenceInput())
        assert (outcome.entered, outcome.reason) == (False, "reference_unknown")
        assert not w.venue.arrived
        event = w.events.told[-1]
        assert (event.component, event.limit_type, event.allowed) == (
            "entry_rules",
            "reference_unknown",
            False,
        )

    go(run())


def test_an_assumed_reference_is_said_in_every_refusal():
    """What was given by hand is recorded as assumed."""

    async def run():
        w = desk_world()
        await considered(w, reference=by_hand("30"))
        event = w.events.told[-1]
        assert event.metadata["assumed"] is True
        assert (event.current_value, event.limit_value) == ("30.00", "25.00 to 50.00")

    go(run())


def test_a_structure_with_too_much_delta_is_refused():
    """0.3 and more, of the structure or of a short leg, is no entry."""

    async def run():
        calls = EntryRules(when_dear=(StructurePlan(kind=StructureKind.LONG_CALL, delta_e6=500_000),))
        assert (await considered(desk_world(), rules=calls)).reason == "delta"
        shorts = EntryRules(when_dear=(StructurePlan(kind=StructureKind.IRON_CONDOR, delta_e6=350_000),))
        assert (await considered(desk_world(), rules=shorts)).reason == "delta"

    go(run())


@pytest.mark.contract("B13")
def test_no_more_positions_than_the_rules_allow():
    """The sixth position, and one more on a symbol than allowed, are refused by name."""

    async def run():
        for rules, reason in (
            (EntryRules(positions=1), "max_positions"),
            (EntryRules(per_symbol=1), "max_positions_per_symbol"),
        ):
            w = desk_world()
            assert (await considered(w, rules=rules)).entered
            assert (await considered(w, rules=rules)).reason == reason

    go(run())


def test_a_chain_that_lacks_a_leg_is_no_entry():
    """No Greeks, no structure; the refusal says so."""

    async def run():
        blind = [one._replace(greeks=None) for one in chain()]
        assert (await considered(desk_world(), quotes=blind)).reason == "no_structure"

    go(run())


@pytest.mark.contract("B4", "B9")
def test_the_portfolios_question_is_asked_before_the_gate_and_reserves_nothing():
    """`check_entry_allowed` refuses first, under its name, and the gate was never asked."""

    async def run():
        w = desk_world()
        limits = RiskLimitsConfig(max_single_position_pct=0.0001)
        checker = PortfolioLimitsChecker(
            AccountRisk(w.trader.gate, clock=w.clock), limits, w.events, clock=w.clock
        )
        risk = RiskManager(audit_logger=w.log, limits=RiskLimits(), portfolio_limits=checker, clock=w.clock)
        outcome = await considered(w, risk=risk)
        assert outcome.reason.startswith("concentration")
        assert not w.log.of("DECISION")
        assert w.account.reserved == 0

    go(run())


def test_an_entry_goes_through_the_engine_in_its_size():
    """Two units where the rules say two; every name is new."""

    async def run():
        w = desk_world()
        first = await considered(w, rules=EntryRules(units=QtyE2(200)))
        assert first.result.outcome is Outcome.FILLED
        assert w.log.of("ORDER")[0]["quantity"] == "2.00"
        second = await considered(w)
        assert (first.execution_id, second.execution_id) == ("iron_condor-SPY-1", "iron_condor-SPY-2")

    go(run())


def test_a_refused_entry_uses_its_name_up():
    """A name that was refused once is never used for another wish, after a restart neither."""

    async def run():
        w = desk_world(limits=RiskLimits(portfolio=RiskLimitsConfig(max_single_position_pct=0.0001)))
        names = [(await considered(w)).execution_id for _ in range(2)]
        assert names == ["iron_condor-SPY-1", "iron_condor-SPY-2"]
        assert [d["reason"] for d in w.log.of("DECISION")] == ["concentration"] * 2
        fresh = desk_world(log=w.log)
        fresh.engine.restore(w.log.lines)
        assert fresh.engine.executions.name("x", "SPY") == "x-SPY-3"

    go(run())


def test_the_workflow_works_without_an_event_logger():
    """Refusals are outcomes all the same."""
    assert (
        go(considered(desk_world(), reference=ReferenceInput(), events=False)).reason == "reference_unknown"
    )


@pytest.mark.contract("B13")
def test_layers_are_switched_on_in_their_order():
    """Breaker only, then stops, then limits; a later one without an earlier one is refused."""
    from holdfast.core.errors import BadInput

    assert read_layers("breaker") == {Layer.BREAKER}
    assert read_layers("stops, breaker") == {Layer.BREAKER, Layer.STOPS}
    for wrong, said in (("limits,breaker", "without 'stops'"), ("stops", "without 'breaker'"), ("x", "'x'")):
        with pytest.raises(BadInput, match=said):
            read_layers(wrong)


@pytest.mark.contract("B13")
def test_with_stops_off_nothing_is_stopped_and_the_desk_trades():
    """The breaker alone: entries and no stop."""

    async def run():
        w = desk_world(with_stops=False, reference=by_hand())
        await w.trader.start()
        for _ in range(4):
            quote_chain(w)
            await tick(w, 30)
        assert len(w.account.portfolio.positions) == 4
        assert not w.events.kinds("trailing_stop")
        config = next(details for details in w.log.of("CONFIG"))
        assert config["options.reference.assumed"] is True

    go(run())


def test_rules_are_data():
    """The published bounds are the defaults."""
    rules = msgspec.structs.asdict(EntryRules())
    assert (rules["cheap_below_e2"], rules["dear_above_e2"], rules["vix_below_e2"]) == (2500, 5000, 3500)
    assert (rules["delta_below_e6"], rules["per_symbol"], rules["positions"]) == (300_000, 5, 5)
    assert rules["units"] == 100
