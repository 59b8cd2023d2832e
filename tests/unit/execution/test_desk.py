"""The options desk over the fake venue: in, watched, out, and back after a restart."""

import asyncio

import pytest
from support.desk import chain, condor, desk_world, entered, quote, quote_chain, tick
from support.execution import MemoryLog

from holdfast.core.errors import BadInput, DuplicateStop, VenueUnreachable
from holdfast.core.greeks import BOUND, Greeks
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.execution.exits import ExitState
from holdfast.execution.outcomes import Outcome
from holdfast.risk.limits import RiskLimits
from holdfast.risk.stop_rules import PercentTrail, TrailingStopConfig
from holdfast.testing.venue import Play

STOP = TrailingStopConfig(10, 8, 1, rules=(PercentTrail(800, "entry"),), negative_premiums=True)


def go(coroutine):
    return asyncio.run(coroutine)


def flat(w):
    return not w.account.portfolio.positions and not list(w.account.open_orders())


@pytest.mark.contract("B11", "B12", "B13")
def test_a_condor_is_entered_stopped_and_left_as_one_combination():
    """Entry, stop on the net credit, ratchet, trigger, exit, and the stop removed when everything is flat."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        assert one.sign == -1
        assert one.is_balanced
        assert sorted(w.account.portfolio.positions.values()) == [-100, -100, 100, 100]
        assert w.stops.stops[one.execution_id].sign == -1
        entry = one.entry_premium
        for spot in (500, 500, 500.0):
            quote_chain(w, spot)
            await tick(w, 30)
        await decay(w, one, 0.5)
        await decay(w, one, 0.4)
        assert "trailing_stop_activate" in w.events.kinds()
        await decay(w, one, 0.9)
        assert w.stops.stops == {}
        assert flat(w)
        assert one.ladder.state is ExitState.FLAT
        kinds = w.events.kinds("trailing_stop")
        assert kinds[0] == "trailing_stop_add"
        assert kinds[-2:] == ["trailing_stop_trigger", "trailing_stop_remove"]
        (decision,) = w.desk.monitoring.decisions
        assert (decision.action, decision.rule, decision.urgency) == ("CLOSE", "TrailingStop", "IMMEDIATE")
        assert decision.premium < entry
        assert [order["intent"] for order in w.log.of("ORDER")] == [
            "iron_condor-SPY-1/open",
            "iron_condor-SPY-1/exit-1",
        ]

    go(run())


async def decay(w, one, share, times=3):
    """Let every leg be worth *share* of its entry price for a few quotes."""
    for _ in range(times):
        for ticker, _ratio in one.legs:
            mid = int(one.leg_price(ticker) * share) // 100 * 100
            quote(w, ticker, max(100, mid - 200), max(300, mid + 200))
        await tick(w, 30)


@pytest.mark.contract("B3", "B11")
def test_a_stop_follows_its_position_and_is_added_once():
    """A second look adds no second stop, and one on a flat execution is taken away."""

    async def run():
        w = desk_world(stop=STOP)
        await entered(w)
        await tick(w, 30)
        await tick(w, 30)
        assert w.events.kinds("trailing_stop_add") == ["trailing_stop_add"]

    go(run())


@pytest.mark.invariant("I4")
@pytest.mark.contract("B11")
def test_a_missing_short_ask_holds_the_stop_is_counted_and_alarmed():
    """With a short leg that nobody offers the stop does nothing; after five minutes a person is told, once."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        short = next(ticker for ticker, ratio in one.legs if ratio < 0)
        for _ in range(30):
            await decay(w, one, 0.2, times=1)
            quote(w, short, 100, None)
            await tick(w, 15)
        assert w.events.kinds("trailing_stop") == ["trailing_stop_add"]
        assert w.desk.monitoring.holds[one.execution_id] > 10
        assert w.log.violations().count("premium_unknown") == 1

    go(run())


@pytest.mark.contract("B11")
def test_one_bad_tick_does_not_fire():
    """A single absurd ask of a short leg between good quotes triggers nothing."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        await decay(w, one, 0.5)
        await decay(w, one, 0.4)
        short = next(ticker for ticker, ratio in one.legs if ratio < 0)
        quote(w, short, 100, 900_000)
        await tick(w, 30)
        await decay(w, one, 0.4)
        assert "trailing_stop_trigger" not in w.events.kinds()
        assert not one.ladder.is_demanded

    go(run())


@pytest.mark.invariant("I2")
def test_an_exit_whose_answer_is_lost_holds_the_ladder_until_it_is_found():
    """No second exit goes out beside an UNKNOWN one; when the books tell, the position is flat, once."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        w.venue.script(Play.LATE)
        result = await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        assert result.outcome is Outcome.UNKNOWN
        for _ in range(4):
            quote_chain(w)
            await tick(w, 5)
        assert one.ladder.state is ExitState.UNKNOWN
        assert len(w.venue.arrived) == 2
        assert w.log.violations().count("exit_unknown") == 1
        w.venue.arrive()
        for _ in range(8):
            await tick(w, 40)
        assert flat(w)
        assert len(w.venue.arrived) == 2
        assert w.stops.stops == {}

    go(run())


def test_a_rejected_exit_goes_on_to_the_next_rung_under_a_new_name():
    """A proven end with everything left is followed by a wider limit, never by the same name."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        w.venue.script(Play.REJECT, Play.REJECT)
        await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        for _ in range(3):
            quote_chain(w)
            await tick(w)
        exits = [order for order in w.log.of("ORDER") if "/exit-" in order["intent"]]
        assert [order["intent"].rsplit("/", 1)[1] for order in exits] == ["exit-1", "exit-2", "exit-3"]
        prices = [float(order["price"]) for order in exits]
        assert prices == sorted(prices, reverse=True)
        assert len(set(prices)) == 3
        assert flat(w)

    go(run())


def test_a_partial_exit_sends_the_rest_and_never_more():
    """Filled for half, the next rung goes out for the other half alone."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w, units=QtyE2(200))
        for ticker, _ratio in one.legs:
            leg = next(q for q in chain() if q.instrument.ticker == ticker)
            quote(w, ticker, leg.bid, leg.ask, size=100)
        await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        await tick(w)
        assert sorted(one.held.values()) == [-100, -100, 100, 100]
        quote_chain(w)
        await tick(w)
        await tick(w)
        assert flat(w)
        counts = [order["quantity"] for order in w.log.of("ORDER")]
        assert counts[:3] == ["2.00", "2.00", "1.00"]
        assert set(counts[3:]) <= {"1.00"}

    go(run())


def test_an_exit_barred_stays_latched_alarms_and_goes_out_once_allowed():
    """Under a hold that bars exits nothing is sent; the demand stands, and is met when the hold is gone."""
    from holdfast.risk.halt import TradingState

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        w.trader.ledger.hold("test", TradingState.CANCEL_ONLY, reason="barred")
        sent = len(w.venue.arrived)
        await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        for _ in range(6):
            quote_chain(w)
            await tick(w, 30)
        assert one.ladder.is_demanded
        assert len(w.venue.arrived) == sent
        assert w.log.violations().count("exit_barred") == 1
        w.trader.ledger.hold("test", TradingState.ACTIVE, reason="free")
        for _ in range(4):
            quote_chain(w)
            await tick(w, 30)
        assert flat(w)

    go(run())


def again(w, **options):
    """The desk after a crash: a new process over the same journal and venue."""
    w.venue._queue = None
    return desk_world(clock=w.clock, venue=w.venue, log=MemoryLog(w.log.lines), stop=STOP, **options)


async def resumed(w):
    """Start and go on."""
    await w.trader.start()
    for _ in range(4):
        quote_chain(w)
        await tick(w, 30)


@pytest.mark.contract("B12", "B13")
@pytest.mark.parametrize("play", [Play.NORMAL, Play.REJECT, Play.LOST, Play.LATE])
def test_a_restart_in_the_middle_of_an_exit_ends_it_once(play):
    """Whatever became of the exit at the crash, the next process ends flat and never sends the same name again."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        w.venue.script(play)
        await w.engine.exit(one.execution_id, rule="TrailingStop", demanded=True)
        after = again(w)
        if play is Play.LATE:
            after.venue.arrive()
        await resumed(after)
        await resumed(after)
        assert flat(after)
        names = [intent.client_order_id for intent in after.venue.arrived]
        assert len(names) == len(set(names))
        assert not after.venue._positions
        assert after.stops.stops == {}

    go(run())


@pytest.mark.contract("B13")
def test_a_restart_keeps_the_position_its_stop_and_its_premium():
    """A held condor comes back with the same legs, premium and stop, and no second entry."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        await decay(w, one, 0.5)
        before = w.stops.stops[one.execution_id]
        after = again(w)
        await after.trader.start()
        await tick(after)
        back = after.engine.executions.known[one.execution_id]
        assert (back.held, back.entry_premium) == (one.held, one.entry_premium)
        assert sorted(back.legs) == sorted(one.legs)
        assert after.stops.stops[one.execution_id].stop == before.stop
        assert len(after.log.of("ORDER")) == 1

    go(run())


@pytest.mark.contract("B13")
def test_a_stop_latched_before_a_restart_demands_its_exit_again():
    """The trigger stood in the journal, no exit did: the next process leaves."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        stop = w.stops.stops[one.execution_id]
        stop.update_price(PriceE4(one.entry_premium // 2))
        stop.update_price(PriceE4(one.entry_premium))
        assert stop.is_triggered
        after = again(w)
        await resumed(after)
        assert flat(after)

    go(run())


def test_a_combination_that_breaks_in_the_middle_is_whole_or_unwound():
    """A stream cut after the first leg is read back; a leg done alone by the venue is taken out again."""

    async def run(play, orders):
        w = desk_world(stop=STOP)
        await w.trader.start()
        quote_chain(w)
        await tick(w)
        structure = condor(w)
        price = structure.entry_price({t: (q.bid, q.ask) for t, q in w.board.quotes.items()})
        w.venue.script(play)
        await w.engine.open(structure, execution_id="iron_condor-SPY-1", limit=price)
        for _ in range(8):
            quote_chain(w)
            await tick(w, 30)
        one = w.engine.executions.known["iron_condor-SPY-1"]
        assert w.account.portfolio.positions == dict(one.held.items())
        assert dict(w.venue._positions.items()) == dict(one.held)
        assert len(w.venue.arrived) == orders
        return one

    assert sorted(go(run(Play.CUT, 1)).held.values()) == [-100, -100, 100, 100]
    assert go(run(Play.LEG_REJECTED, 2)).held == {}


def test_after_an_assignment_everything_that_reduces_leaves_and_a_person_is_told_of_the_rest():
    """Calls go; shares and the put that protects them stay together until the put's end lets them go."""

    async def run():
        w = desk_world(stop=STOP, limits=RiskLimits(max_exit_value=MoneyE6(10**12)))
        one = await entered(w)
        put, wing = sorted(ticker for ticker, _ in one.legs if "P" in ticker[9:])[::-1]
        w.venue.end_option(put, 4_600_000, qty=100)
        await onwards(w, put)
        assert w.account.portfolio.positions == {wing: 100, "SPY": 100_00}
        assert w.log.violations().count("closed_elsewhere") == 1
        assert w.log.violations().count("exit_barred") == 2
        assert w.stops.stops != {}
        w.venue.end_option(wing, 4_600_000)
        await onwards(w, put, wing)
        assert flat(w)
        assert w.stops.stops == {}

    go(run())


async def onwards(w, *gone, spot=4_600_000):
    """Some minutes with the chain quoted without what is *gone*, and the shares at *spot*."""
    for _ in range(8):
        quote_chain(w, but=gone)
        quote(w, "SPY", spot, spot + 100, size=10**6)
        await tick(w, 60)


def test_shares_left_at_expiry_are_sold_once_and_the_stop_goes():
    """Assigned on the short put while the wing expires worthless: 100 shares, sold by one order."""

    async def run():
        w = desk_world(stop=STOP, limits=RiskLimits(max_exit_value=MoneyE6(10**12)))
        one = await entered(w)
        for ticker, _ in one.legs:
            w.venue.end_option(ticker, 4_720_000)
        await onwards(w, *(ticker for ticker, _ in one.legs), spot=4_720_000)
        assert flat(w)
        assert w.stops.stops == {}
        sold = [order for order in w.log.of("ORDER") if order["ticker"] == "SPY"]
        assert [(order["action"], order["quantity"]) for order in sold] == [("sell", "100.00")]

    go(run())


@pytest.mark.contract("B3")
def test_a_second_stop_and_one_on_a_closed_position_are_refused():
    """A duplicate is named as one; a stop on what is flat would watch nothing."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        with pytest.raises(DuplicateStop, match="has one already"):
            w.stops.add_trailing_stop(one.execution_id, "1.00")
        await w.engine.exit(one.execution_id, rule="Person")
        quote_chain(w)
        await tick(w)
        assert flat(w)
        for name in (one.execution_id, "nobody"):
            with pytest.raises(BadInput, match="is closed"):
                w.stops.add_trailing_stop(name, "1.00")

    go(run())


@pytest.mark.contract("B8")
def test_a_stops_beginning_says_what_leaving_would_have_cost_then():
    """Beside the entry premium stands the executable one, which lies a spread away from it."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        added = next(event for event in w.events.told if event.event_type.value == "trailing_stop_add")
        quotes = w.board.quotes
        leaving = sum(ratio * (quotes[leg].bid if ratio > 0 else quotes[leg].ask) for leg, ratio in one.legs)
        assert added.current_premium == -leaving > added.entry_premium

    go(run())


@pytest.mark.invariant("I4")
def test_stock_taking_names_what_is_only_bounded():
    """Greeks that are a range count at their middle, and the record says of which contract."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        wing = next(ticker for ticker, ratio in one.legs if ratio > 0)
        before = w.desk.greeks()
        known = w.trader.market.greeks(wing)
        now_ns = w.clock.monotonic_ns()
        w.trader.market.saw_greeks(wing, Greeks(0, 0, 0, 0, 0, BOUND, now_ns, 40_000, 0))
        assert w.desk.greeks().delta_e6 == before.delta_e6 + 100 * (20_000 - known.delta_e6)
        await tick(w, 900)
        (taken,) = [event for event in w.events.told[-8:] if event.limit_type == "stock_taking"][-1:]
        assert taken.metadata["bounded"] == [wing]

    go(run())


@pytest.mark.invariant("I4")
def test_a_buying_power_that_nobody_read_is_none():
    """Before the first answer, and after three failures in a row, nothing is opened; one answer opens again."""

    async def run():
        said = [VenueUnreachable("gone")] * 2 + [MoneyE6(10**12)] + [VenueUnreachable("gone")] * 3

        async def read():
            answer = said.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        w = desk_world(buying_power=read)
        await w.trader.start()
        reasons = []
        for number in range(6):
            quote_chain(w)
            await tick(w, 60)
            result = await w.engine.open(
                condor(w), execution_id=f"iron_condor-SPY-{number + 1}", limit=PriceE4(0)
            )
            reasons.append(result.reason)
        assert reasons == ["buying_power"] * 2 + [""] * 3 + ["buying_power"]

    go(run())
