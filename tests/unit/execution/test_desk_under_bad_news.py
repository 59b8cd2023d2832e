"""What comes late, crossed, free of charge or after midnight must not leave the desk without a hand on its position."""

import asyncio

import pytest
from support.desk import chain, condor, desk_world, entered, flat_world, quote, quote_chain, tick
from support.execution import drain

from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.options import Right
from holdfast.core.orders import Fill, OrderStatus
from holdfast.core.signals import BookSide
from holdfast.execution.executions import Execution, Phase
from holdfast.execution.exits import Ladder
from holdfast.execution.legging import LeggingPolicy
from holdfast.execution.outcomes import Outcome
from holdfast.execution.structures import Structure, StructureKind, StructureLeg
from holdfast.execution.venue import StreamGap
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits
from holdfast.risk.stop_rules import PercentTrail, TrailingStopConfig
from holdfast.testing.venue import Play

STOP = TrailingStopConfig(10, 8, 1, rules=(PercentTrail(800, "entry"),), negative_premiums=True)


def go(coroutine):
    return asyncio.run(coroutine)


def late_fills(w, order):
    """The venue executes every leg of *order* once more, after it said that the order had ended."""
    for n, (ticker, ratio) in enumerate(order.legs):
        side = BookSide.BID if order.buys_leg(ratio) else BookSide.ASK
        shown = w.board.quotes[ticker]
        fill = Fill(
            trade_id=f"late-{n}",
            order_id=order.order_id,
            client_order_id=order.client_order_id,
            ticker=ticker,
            side=side,
            price=shown.ask if side is BookSide.BID else shown.bid,
            qty=QtyE2(100),
            fee=MoneyE6(0),
            is_taker=True,
            ts_ns=w.clock.now_ns(),
            multiplier=100,
        )
        w.venue.trade_elsewhere(fill)


async def minutes(w, count):
    for _ in range(count):
        quote_chain(w)
        await tick(w, 60)


async def canceled_entry(w):
    """A condor asked for far below the market: canceled, flat, over."""
    await w.trader.start()
    await minutes(w, 1)
    structure = condor(w)
    price = structure.entry_price({ticker: (one.bid, one.ask) for ticker, one in w.board.quotes.items()})
    result = await w.engine.open(structure, execution_id="iron_condor-SPY-1", limit=PriceE4(price - 20_000))
    assert result.outcome is Outcome.CANCELED
    await minutes(w, 2)
    return w.engine.executions.known["iron_condor-SPY-1"], w.account.orders[result.client_order_id]


@pytest.mark.invariant("I2")
def test_an_entry_that_fills_after_its_end_is_held_and_stopped():
    """A canceled entry whose fills turn up later is an open position: it gets its stop and can be left."""

    async def run():
        w = desk_world(stop=STOP)
        one, order = await canceled_entry(w)
        assert w.engine.executions.phase(one, w.account) is Phase.FLAT
        late_fills(w, order)
        await minutes(w, 2)
        assert w.engine.executions.phase(one, w.account) is Phase.HELD
        assert list(w.stops.stops) == [one.execution_id]
        await w.engine.exit(one.execution_id, rule="Person", demanded=True)
        await minutes(w, 3)
        assert flat_world(w)
        assert w.stops.stops == {}

    go(run())


@pytest.mark.invariant("I2")
def test_an_exit_that_fills_twice_is_undone_once_a_person_lets_it():
    """The venue executes an exit again after its end: what that opened the other way is left, after the alarm."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        await w.engine.exit(one.execution_id, rule="Person", demanded=True)
        await minutes(w, 3)
        assert flat_world(w)
        late_fills(w, w.account.orders[one.exits[-1]])
        await minutes(w, 1)
        assert {"fill_after_end", "overfill"} <= set(w.log.violations())
        assert w.engine.executions.phase(one, w.account) is Phase.LEAVING
        w.trader.ledger.hold("overfill", TradingState.ACTIVE, reason="a person looked", who="person")
        await minutes(w, 2)
        assert flat_world(w)

    go(run())


def test_a_structure_that_cost_nothing_is_held_without_a_stop_and_told():
    """No percentage of a premium of zero can trail: an alarm, and the desk goes on."""

    async def run():
        w = desk_world(stop=STOP)
        await w.trader.start()
        await minutes(w, 1)
        structure = condor(w)
        for leg in structure.legs:
            quote(w, leg.ticker, 10_000, 10_000)
        await tick(w)
        result = await w.engine.open(structure, execution_id="iron_condor-SPY-1", limit=PriceE4(0))
        assert result.outcome is Outcome.FILLED
        await minutes(w, 2)
        assert w.stops.stops == {}
        assert w.log.violations().count("stop_refused") == 1
        await w.engine.exit("iron_condor-SPY-1", rule="Person", demanded=True)
        await minutes(w, 2)
        assert flat_world(w)

    go(run())


@pytest.mark.invariant("I4")
@pytest.mark.parametrize("bad", ["gap", "crossed"])
def test_a_contract_whose_newest_quote_is_no_price_is_not_offered(bad):
    """A quote from before a crossed or unreadable one is no quote to enter on, however young it is."""

    async def run():
        w = desk_world()
        await w.trader.start()
        await minutes(w, 1)
        ticker = condor(w).legs[0].ticker
        assert ticker in {one.instrument.ticker for one in w.desk.chain("SPY")}
        if bad == "gap":
            w.venue.put_event(StreamGap(reason="quote_nan", tickers=(ticker,)))
        else:
            quote(w, ticker, 50_000, 40_000)
        await drain(w)
        offered = {one.instrument.ticker for one in w.desk.chain("SPY")}
        assert offered
        assert ticker not in offered
        await minutes(w, 1)
        assert ticker in {one.instrument.ticker for one in w.desk.chain("SPY")}

    go(run())


@pytest.mark.invariant("I5")
def test_a_new_day_that_begins_with_a_short_nobody_offers_still_lets_exits_through():
    """The day's opening value waits for a price; what reduces does not, and what increases does."""

    async def run():
        w = desk_world()
        one = await entered(w)
        short = next(ticker for ticker, qty in one.held.items() if qty < 0)
        w.clock.advance(86_400)
        quote_chain(w, but=(short,))
        quote(w, short, 100, None)
        again = desk_world(clock=w.clock, venue=w.venue, log=w.log)
        await again.trader.start()
        assert again.account.holds.state is TradingState.ACTIVE
        quote_chain(again)
        await tick(again)
        await again.engine.exit(one.execution_id, rule="Person", demanded=True)
        await minutes(again, 2)
        assert flat_world(again)

    go(run())


@pytest.mark.invariant("I5")
def test_a_rules_exit_that_must_wait_is_still_watched_by_its_stop():
    """A dead journal holds a mere rule's exit up; the stop of the same position triggers and is not held up."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        await shrink(w, one, 0.5)
        await shrink(w, one, 0.4)
        w.trader.ledger.journal_failed("scripted")
        result = await w.engine.exit(one.execution_id, rule="ProfitTarget")
        assert result.outcome is Outcome.DENIED
        await shrink(w, one, 0.9)
        assert one.demanded
        await shrink(w, one, 0.9)
        assert flat_world(w)

    go(run())


@pytest.mark.invariant("I5")
def test_two_longs_that_guarantee_something_together_can_both_be_left():
    """A put above a call is worth their distance whatever happens: neither reduces alone, and both leave."""

    async def run():
        w = desk_world(limits=RiskLimits(max_order_value=MoneyE6(4_000_000_000)))
        await w.trader.start()
        await minutes(w, 1)
        for n, (right, strike) in enumerate(((Right.CALL, 490), (Right.PUT, 515))):
            quoted = next(
                one
                for one in chain()
                if (one.instrument.option.right, one.instrument.option.strike) == (right, strike * 10_000)
            )
            await w.engine.open(
                Structure(
                    kind=StructureKind.LONG_CALL if right is Right.CALL else StructureKind.LONG_PUT,
                    symbol="SPY",
                    legs=(StructureLeg(quoted.instrument, 1),),
                ),
                execution_id=f"long-SPY-{n + 1}",
                limit=quoted.ask,
            )
            await minutes(w, 1)
        assert sorted(w.account.portfolio.positions.values()) == [100, 100]
        for n in (1, 2):
            await w.engine.exit(f"long-SPY-{n}", rule="Person", demanded=True)
        await minutes(w, 5)
        assert "not_reducing" in w.log.violations()
        assert flat_world(w)

    go(run())


def test_shares_of_a_contract_that_no_chain_lists_any_more_are_adopted_after_a_restart():
    """Assigned and expired while nobody looked, or before the shares were sold: the next run sells them, once."""

    async def run():
        w = desk_world()
        one = await entered(w)
        for ticker, _ in one.legs:
            w.venue.end_option(ticker, 4_720_000)
        gone = {ticker for ticker, _ in one.legs}
        left = [each.instrument for each in chain() if each.instrument.ticker not in gone]
        limits = RiskLimits(max_exit_value=MoneyE6(10**12))
        again = desk_world(clock=w.clock, venue=w.venue, log=w.log, limits=limits, chains={"SPY": left})
        await again.trader.start()
        assert again.account.portfolio.positions == {"SPY": 100_00}
        for ticker in gone:
            again.trader.market.instruments.pop(ticker, None)
        for n in range(6):
            w.venue.is_readable = n > 1
            quote_chain(again, but=tuple(gone))
            quote(again, "SPY", 4_720_000, 4_720_100, size=10**6)
            await tick(again, 60)
        assert flat_world(again)
        sold = [order for order in again.log.of("ORDER") if order["ticker"] == "SPY"]
        assert [(order["action"], order["quantity"]) for order in sold] == [("sell", "100.00")]

    go(run())


@pytest.mark.invariant("I11")
def test_what_was_paid_on_average_is_exact_however_much_was_bought():
    """Beyond the whole numbers that a float can hold the average is still the right one."""
    ticker = "SPY261218P00470000"
    one = Execution(
        execution_id="x-SPY-1", symbol="SPY", legs=((ticker, 1),), units=QtyE2(100), ladder=Ladder()
    )
    price, qty = 900_000_001, 10**10 + 7
    one.entered[ticker] = (qty, price * qty + qty // 2)
    assert (one.leg_price(ticker), one.net_debit) == (price, price)


@pytest.mark.invariant("I5")
def test_an_exit_refused_at_the_worst_price_begins_again_at_the_touch():
    """A venue that will not carry the last rung's price is not asked for it for ever."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        w.venue.script(*[Play.REJECT] * 4)
        await w.engine.exit(one.execution_id, rule="Person", demanded=True)
        await minutes(w, 5)
        assert flat_world(w)
        limits = [order["price"] for order in w.log.of("ORDER") if "/exit-" in order["intent"]]
        assert len(limits) == 5
        assert limits[4] == limits[0] != limits[3]

    go(run())


def test_a_leg_that_ended_stays_ended_when_its_contract_is_held_again():
    """After a restart a short leg that was assigned long ago is not bought back out of another position."""

    async def run():
        w = desk_world()
        one = await entered(w)
        for ticker, _ in one.legs:
            w.venue.end_option(ticker, 5_000_000)
        await minutes(w, 2)
        assert flat_world(w)
        put = next(ticker for ticker, ratio in one.legs if ratio < 0 and "P" in ticker[9:])
        quoted = next(each for each in chain() if each.instrument.ticker == put)
        again = Structure(
            kind=StructureKind.LONG_PUT, symbol="SPY", legs=(StructureLeg(quoted.instrument, 1),)
        )
        await w.engine.open(again, execution_id="long_put-SPY-2", limit=quoted.ask)
        await minutes(w, 2)
        placed = len(w.venue.arrived)
        w = desk_world(clock=w.clock, venue=w.venue, log=w.log)
        await w.trader.start()
        await minutes(w, 4)
        assert w.account.portfolio.positions == {put: 100}
        assert len(w.venue.arrived) == placed
        assert w.engine.executions.known["long_put-SPY-2"].held == {put: 100}

    go(run())


@pytest.mark.invariant("I5")
def test_what_is_held_is_left_beside_an_entry_that_nobody_can_tell_of():
    """The second leg of an entry is lost for good: the first one does not wait for its contract to expire."""

    async def run():
        w = desk_world(legging=LeggingPolicy(leg_timeout_secs=600))
        await w.trader.start()
        await minutes(w, 1)
        structure = condor(w)
        w.venue.script(Play.NORMAL, Play.VANISHED)
        price = structure.entry_price({ticker: (one.bid, one.ask) for ticker, one in w.board.quotes.items()})
        await w.engine.open(structure, execution_id="iron_condor-SPY-1", limit=price)
        await minutes(w, 6)
        (lost,) = w.account.open_orders()
        assert lost.status is OrderStatus.UNKNOWN
        assert w.account.portfolio.positions == {}

    go(run())


def test_a_leg_that_nobody_quotes_anew_keeps_its_price_while_its_stream_lives():
    """Sources that tell changes alone are silent about a quiet wing: its price stands, until a gap takes it."""

    async def run():
        w = desk_world(stop=STOP)
        one = await entered(w)
        await minutes(w, 3)
        wing = next(ticker for ticker, ratio in one.legs if ratio > 0)
        for _ in range(15):  # longer than an exit's quote may be old
            quote_chain(w, but=(wing,))
            await tick(w, 60)
        assert w.desk.monitoring.premium(one) is not None
        assert wing in {each.instrument.ticker for each in w.desk.chain("SPY")}
        w.venue.put_event(StreamGap(reason="disconnected", tickers=(wing,)))
        await drain(w)
        assert w.desk.monitoring.premium(one) is None
        quote(w, wing, 9_000, 9_400)
        for _ in range(15):
            quote_chain(w, but=(wing,))
            await tick(w, 60)
        await w.engine.exit(one.execution_id, rule="Person", demanded=True)
        await tick(w, 60)
        assert flat_world(w)

    go(run())


async def shrink(w, one, share):
    """Three quotes of every leg at *share* of its entry price."""
    for _ in range(3):
        for ticker, _ratio in one.legs:
            mid = int(one.leg_price(ticker) * share) // 100 * 100
            quote(w, ticker, max(100, mid - 200), max(300, mid + 200))
        await tick(w, 30)
