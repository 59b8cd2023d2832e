"""The engine by itself: outcomes as values, legs one by one, its own breaker, exits on a dead journal."""

import asyncio

import msgspec
import pytest
from support.desk import chain, condor, desk_world, entered, flat_world, quote, quote_chain, tick
from support.execution import MemoryLog

from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import CircuitBreakerConfig
from holdfast.core.errors import BadInput
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import Fill
from holdfast.core.signals import BookSide
from holdfast.execution.engine import OrderExecutionEngine
from holdfast.execution.executions import Execution, Executions, split_key, symbol_of
from holdfast.execution.exits import ExitState, Ladder
from holdfast.execution.legging import LeggingPolicy
from holdfast.execution.outcomes import Outcome
from holdfast.execution.structures import StructureKind, StructurePlan, pick
from holdfast.execution.venue import DedupProfile, FillSeen
from holdfast.risk.limits import RiskLimits, RiskLimitsConfig
from holdfast.testing.venue import Play

LEGS = LeggingPolicy(leg_timeout_secs=60)


def go(coroutine):
    return asyncio.run(coroutine)


async def opened(w, structure=None, name="iron_condor-SPY-1", **options):
    """Ask the engine for a structure at its executable price."""
    await w.trader.start()
    quote_chain(w)
    await tick(w)
    structure = structure or condor(w)
    price = structure.entry_price({t: (q.bid, q.ask) for t, q in w.board.quotes.items()})
    return await w.engine.open(structure, execution_id=name, limit=price, **options)


@pytest.mark.contract("B12")
@pytest.mark.parametrize(
    ("play", "outcome"),
    [
        (Play.NORMAL, Outcome.FILLED),
        (Play.REJECT, Outcome.REJECTED),
        (Play.NOT_SENT, Outcome.NOT_SENT),
        (Play.LATE, Outcome.UNKNOWN),
    ],
)
def test_the_outcome_of_an_entry_is_a_value(play, outcome):
    """Whatever the venue does comes back as an outcome, and the same name is never sent twice."""

    async def run():
        w = desk_world()
        w.venue.script(play, play, play)
        result = await opened(w)
        assert result.outcome is outcome
        sent = len(w.venue.arrived)
        again = await opened(w)
        assert again.outcome is outcome
        assert len(w.venue.arrived) == sent

    go(run())


def test_an_entry_below_the_market_is_canceled_and_leaves_nothing():
    """An immediate order that meets nobody ends, and its execution is over."""

    async def run():
        w = desk_world()
        await w.trader.start()
        quote_chain(w)
        await tick(w)
        result = await w.engine.open(condor(w), execution_id="x", limit=PriceE4(-40_000))
        assert result.outcome is Outcome.CANCELED
        await tick(w)
        assert w.engine.executions.live() == []

    go(run())


@pytest.mark.contract("B12", "B4")
def test_a_refusal_by_the_gate_is_an_outcome_and_an_event():
    """A portfolio limit refuses by name, nothing is sent, and the refusal goes out as an event."""

    async def run():
        limits = RiskLimits(portfolio=RiskLimitsConfig(max_single_position_pct=0.001))
        w = desk_world(limits=limits)
        result = await opened(w)
        assert (result.outcome, result.reason) == (Outcome.DENIED, "concentration")
        assert not w.venue.arrived
        event = next(e for e in w.events.told if e.limit_type == "concentration")
        assert event.event_type == "portfolio_limit_rejection"
        assert (event.allowed, event.symbol, event.execution_id) == (False, "SPY", "iron_condor-SPY-1")
        assert w.engine.executions.known == {}

    go(run())


@pytest.mark.invariant("I4")
def test_a_naked_strangle_is_refused_by_name():
    """A loss without end is no position for this desk."""

    async def run():
        w = desk_world()
        naked = pick(StructurePlan(kind=StructureKind.SHORT_STRANGLE), chain(), today=_today())
        result = await opened(w, naked)
        assert (result.outcome, result.reason) == (Outcome.DENIED, "unbounded_loss")

    go(run())


def _today():
    from support.desk import NOW

    return NOW.date()


def test_a_contract_held_the_other_way_by_another_execution_is_refused():
    """Two executions never hold one contract in opposite directions."""

    async def run():
        w = desk_world()
        one = await entered(w)
        short = next(ticker for ticker, ratio in one.legs if ratio < 0 and "P" in ticker[9:])
        leg = next(q for q in chain() if q.instrument.ticker == short)
        plan = StructurePlan(kind=StructureKind.LONG_PUT, delta_e6=abs(leg.greeks.delta_e6))
        result = await opened(w, pick(plan, chain(), today=_today()), name="long_put-SPY-2")
        assert (result.outcome, result.reason) == (Outcome.DENIED, "opposing_leg")

    go(run())


@pytest.mark.contract("B1", "B12")
def test_an_own_breaker_stops_entries_and_closes_by_the_venues_probe():
    """Lost answers open it, an entry then fails fast and unsent, exits pass, and a probe closes it again."""

    async def run():
        w = desk_world()
        one = await entered(w)
        config = CircuitBreakerConfig(failure_threshold=2, open_timeout_secs=60, half_open_max_tries=1)
        breaker = TradingCircuitBreaker(config, w.events, clock=w.clock)
        w.engine._sender.breaker = breaker
        for number in (2, 3):
            w.venue.script(Play.VANISHED)
            await opened(w, name=f"iron_condor-SPY-{number}")
        sent = len(w.venue.arrived)
        result = await opened(w, name="iron_condor-SPY-4")
        assert result.outcome is Outcome.BREAKER_OPEN
        assert len(w.venue.arrived) == sent
        await w.engine.exit(one.execution_id, rule="test", demanded=True)
        await tick(w)
        assert one.ladder.state is ExitState.FLAT
        await tick(w, 61)
        assert breaker.get_state() == "closed"
        assert "circuit_breaker_state_change" in [e.kind.value for e in w.events.told if hasattr(e, "kind")]

    go(run())


def orders(w):
    return [(o["intent"].rsplit("/", 1)[1], o["action"], o["ticker"][9:10]) for o in w.log.of("ORDER")]


def test_legs_go_in_protected_and_out_shorts_first():
    """Without combinations the longs are bought before the shorts are sold, and the shorts bought back first."""

    async def run():
        w = desk_world(legging=LEGS)
        result = await opened(w)
        assert result.outcome is Outcome.FILLED
        for _ in range(4):
            quote_chain(w)
            await tick(w, 5)
        one = w.engine.executions.known["iron_condor-SPY-1"]
        assert one.is_balanced
        assert [(step[:4], action) for step, action, _ in orders(w)] == [
            ("leg-", "buy"), ("leg-", "buy"), ("leg-", "sell"), ("leg-", "sell"),
        ]  # fmt: skip
        await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        for _ in range(5):
            quote_chain(w)
            await tick(w, 5)
        assert [action for step, action, _ in orders(w)[4:]] == ["buy", "buy", "sell", "sell"]
        assert not w.account.portfolio.positions
        assert one.ladder.state is ExitState.FLAT

    go(run())


def test_every_state_between_two_legs_was_judged_before_the_first_left():
    """The gate's questions over all states stand in the journal before the first leg's own decision."""

    async def run():
        w = desk_world(legging=LEGS)
        await opened(w)
        decisions = w.log.of("DECISION")
        assert [d["question"] for d in decisions] == [True] * 4 + [False]
        assert len(w.log.of("ORDER")) == 1

    go(run())


def test_a_legged_entry_whose_worst_state_the_gate_refuses_sends_nothing():
    """One refused state between the legs, and not even the protective leg leaves."""

    async def run():
        w = desk_world(legging=LEGS, limits=RiskLimits(max_order_value=MoneyE6(100_000_000)))
        result = await opened(w)
        assert (result.outcome, result.reason) == (Outcome.DENIED, "order_value_exceeded")
        assert not w.venue.arrived
        assert w.engine.executions.known == {}

    go(run())


def test_a_leg_that_does_not_come_in_time_unwinds_what_was_filled():
    """A short leg that nobody bids for: after its time the longs are sold again, and nothing is held."""

    async def run():
        w = desk_world(legging=LEGS)
        await opened(w)
        one = w.engine.executions.known["iron_condor-SPY-1"]
        short = next(ticker for ticker, ratio in one.legs if ratio < 0)
        for _ in range(12):
            quote_chain(w, but=(short,))
            quote(w, short, None, 30_000)
            await tick(w, 10)
        assert one.ladder.rule == "LegTimeout"
        assert not w.account.portfolio.positions
        assert one.ladder.state is ExitState.FLAT

    go(run())


def test_a_restart_between_two_legs_unwinds():
    """What was never sent is not guessed: the legs that are there leave again."""

    async def run():
        w = desk_world(legging=LEGS)
        await opened(w)
        assert len(w.account.portfolio.positions) == 1
        w.venue._queue = None
        after = desk_world(clock=w.clock, venue=w.venue, log=MemoryLog(w.log.lines), legging=LEGS)
        await after.trader.start()
        for _ in range(5):
            quote_chain(after)
            await tick(after)
        assert flat_world(after)
        assert after.engine.executions.known["iron_condor-SPY-1"].ladder.state is ExitState.FLAT

    go(run())


def test_a_long_leg_that_nobody_bids_for_stays_until_it_expires():
    """Everything else leaves; the worthless wing obliges to nothing and alarms nobody."""

    async def run():
        w = desk_world()
        one = await entered(w)
        wing = next(ticker for ticker, ratio in one.legs if ratio > 0)
        quote(w, wing, None, 500)
        await tick(w)
        await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        for _ in range(30):
            quote_chain(w, but=(wing,))
            quote(w, wing, None, 500)
            await tick(w, 30)
        assert one.held == {wing: 100}
        assert "exit_waits" not in w.log.violations()
        quote(w, wing, 300, 500)
        await tick(w)
        await tick(w)
        assert flat_world(w)

    go(run())


def test_an_exit_that_nothing_can_be_sent_for_waits_and_is_alarmed():
    """A short leg that nobody offers cannot be bought back: counted, and a person is told after five minutes."""

    async def run():
        w = desk_world()
        one = await entered(w)
        short = next(ticker for ticker, ratio in one.legs if ratio < 0)
        quote(w, short, 100, None)
        await tick(w)
        result = await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        assert result.outcome is Outcome.WAITING
        for _ in range(25):
            quote_chain(w, but=(short,))
            quote(w, short, 100, None)
            await tick(w, 30)
        assert w.log.violations().count("exit_waits") == 1
        assert len(w.venue.arrived) == 1
        (waits,) = [event for event in w.events.told if event.limit_type == "exit_waits"]
        assert (waits.execution_id, waits.rejection_reason) == (one.execution_id, "quote_one_sided")
        assert waits.metadata["rule"] == "TrailingStop"
        assert waits.metadata["held"][short] == "-1.00"

    go(run())


def test_a_second_demand_sends_nothing_more():
    """Two stops, or a stop and a person, ask for one exit."""

    async def run():
        w = desk_world()
        one = await entered(w)
        w.venue.script(Play.LATE)
        await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        await w.engine.exit(one.execution_id, rule="Person", demanded=True)
        assert len(w.venue.arrived) == 2
        assert one.ladder.rule == "TrailingStop"
        with pytest.raises(BadInput, match="no execution"):
            await w.engine.exit("nobody", rule="Person")

    go(run())


@pytest.mark.contract("A16")
@pytest.mark.invariant("I2", "I5")
@pytest.mark.parametrize("dedup", list(DedupProfile))
def test_a_lost_exit_goes_again_where_the_venue_takes_no_name_twice_and_the_ladder_goes_on(dedup):
    """There the position is left while everybody sleeps; anywhere else the ladder waits for the venue's books."""

    async def run():
        w = desk_world()
        w.venue.dedup = dedup
        one = await entered(w)
        w.venue.script(Play.VANISHED)
        await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        assert one.ladder.state is ExitState.UNKNOWN
        for _ in range(4):
            quote_chain(w)
            await tick(w)
        ends = dedup is DedupProfile.ALL
        assert flat_world(w) is ends
        assert one.ladder.state is (ExitState.FLAT if ends else ExitState.UNKNOWN)
        assert len(one.exits) == 1, "no other exit went out"
        assert len(w.venue.arrived) == (3 if ends else 2)

    go(run())


@pytest.mark.invariant("I2")
def test_a_lost_exit_of_what_something_else_closed_does_not_go_again():
    """It would close what another execution holds of the same contracts."""

    async def run():
        w = desk_world()
        w.venue.dedup = DedupProfile.ALL
        one = await entered(w)
        await opened(w, name="iron_condor-SPY-2")
        other = w.engine.executions.known["iron_condor-SPY-2"]
        held = dict(other.held)
        assert held == one.held
        w.venue.script(Play.VANISHED)
        await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        for n, (ticker, qty) in enumerate(one.held.items()):
            side = BookSide.ASK if qty > 0 else BookSide.BID
            w.venue.trade_elsewhere(
                Fill(
                    trade_id=f"X{n}",
                    order_id=f"X{n}",
                    ticker=ticker,
                    side=side,
                    price=PriceE4(10_000),
                    qty=QtyE2(abs(qty)),
                    fee=MoneyE6(0),
                    is_taker=True,
                    ts_ns=w.clock.now_ns(),
                    multiplier=100,
                )
            )
        for _ in range(5):
            quote_chain(w)
            await tick(w)
        flat, whole = sorted((one, other), key=lambda execution: len(execution.held))
        assert (flat.held, whole.held) == ({}, held)
        lost = w.account.orders[one.exits[0]]
        assert [intent.client_order_id for intent in w.venue.arrived].count(lost.client_order_id) == 1
        assert lost.withdrawn is (flat is one)

    go(run())


def test_the_engine_works_without_an_event_logger():
    """Refusals are outcomes all the same."""

    async def run():
        w = desk_world(limits=RiskLimits(max_order_value=MoneyE6(1_000_000)))
        w.engine._sender.events = None
        assert (await opened(w)).outcome is Outcome.DENIED
        assert OrderExecutionEngine(w.trader, w.board, clock=w.clock)._sender.events is None

    go(run())


def test_names_of_steps_and_executions_read_back():
    """The journal's intent key gives execution and step, and the name its underlying."""
    assert split_key("iron_condor-SPY-1/exit-2") == ("iron_condor-SPY-1", "exit-2")
    assert split_key("run-1-7") == ("", "run-1-7")
    assert symbol_of("iron_condor-SPY-1") == "SPY"
    assert symbol_of("my own name") == ""
    assert Executions("x").name("long_call", "SPX") == "long_call-SPX-1"


@pytest.mark.invariant("I11")
def test_an_average_price_is_whole_numbers_however_much_was_filled():
    """The price of a leg is the average of its fills to the nearest unit, exact beyond what a float can hold."""
    qty, price = 10**15, 12_345
    one = Execution(
        execution_id="long_call-SPY-1",
        symbol="SPY",
        legs=(("A", 1), ("B", -2)),
        units=QtyE2(qty),
        ladder=Ladder(),
        entered={"A": (2 * qty, (2 * price + 1) * qty + 1), "B": (3, 20)},
    )
    assert one.leg_price("A") == price + 1  # a little more than half way to the next
    assert one.leg_price("B") == 7
    assert one.net_debit == price + 1 - 2 * 7
    assert one.leg_price("C") is None


@pytest.mark.contract("B15")
@pytest.mark.parametrize("corrected", ["entry", "exit"])
def test_a_corrected_execution_leaves_what_is_held_as_it_was_through_a_restart(corrected):
    """The journal gives the same executions as the desk had, at the price of the first telling, and no exit more."""

    async def run():
        w = desk_world()
        told = w.venue._tell_fill
        w.venue._tell_fill = lambda fill: told(msgspec.structs.replace(fill, revision=1))
        await opened(w)
        await tick(w)
        if corrected == "exit":
            await w.engine.exit("iron_condor-SPY-1", rule="Test")
            await tick(w)
        first = w.venue._fills[-1]
        price = PriceE4(first.price + 100)
        w.venue.put_event(FillSeen(msgspec.structs.replace(first, price=price, revision=2)))
        await tick(w)
        assert w.log.violations() == ["execution_corrected"]
        was = w.engine.executions.known["iron_condor-SPY-1"]
        w.venue._queue = None
        again = desk_world(clock=w.clock, venue=w.venue, log=MemoryLog(w.log.lines))
        await again.trader.start()
        await tick(again)
        one = again.engine.executions.known["iron_condor-SPY-1"]
        assert (one.held, one.entered) == (was.held, was.entered)
        assert again.log.violations() == ["execution_corrected"]

    go(run())


@pytest.mark.invariant("I10")
def test_an_assignment_that_is_told_late_closes_its_leg_once_through_a_restart():
    """Claimed from positions, then told by the venue: what is left of the leg is still held, and can be left."""

    async def run():
        w = desk_world()
        await opened(w, units=QtyE2(300))
        await tick(w)
        short = next(ticker for ticker, qty in w.venue._positions.items() if qty < 0)
        w.venue.end_option(short, 540 * 10_000, 100, told=False)
        w.board.quotes.clear()  # what is left cannot leave now
        for _ in range(5):
            await tick(w, 61)
        assert "ended_unseen" in w.log.violations()
        w.venue.tell_endings()
        await tick(w)
        was = w.engine.executions.known["iron_condor-SPY-1"].held
        assert was[short] == w.venue._positions[short] == -200
        w.venue._queue = None
        again = desk_world(clock=w.clock, venue=w.venue, log=MemoryLog(w.log.lines))
        await again.trader.start()
        await tick(again)
        assert again.engine.executions.known["iron_condor-SPY-1"].held == was

    go(run())


@pytest.mark.invariant("I5")
def test_an_assignment_that_an_exit_crosses_leaves_nothing_that_nobody_manages():
    """Told in one breath, the assigned shares are an execution to leave, as they are after a restart."""

    async def run():
        w = desk_world()
        await opened(w, units=QtyE2(300))
        await tick(w)
        w.venue.script(Play.LATE)
        await w.engine.exit("iron_condor-SPY-1", rule="Test", demanded=True)
        short = next(ticker for ticker, qty in w.venue._positions.items() if qty < 0)
        w.venue.end_option(short, 540 * 10_000, 100)
        w.venue.arrive()
        await tick(w)
        held = [one.held for one in w.engine.executions.known.values()]
        assert held == [{short: 100}, {"SPY": w.venue._positions["SPY"]}]
        assert "closed_elsewhere" in w.log.violations()

    go(run())
