"""The running order path: starting, restarting, losing answers, cancelling, following, halting."""

from __future__ import annotations

import asyncio
import errno
from datetime import UTC, datetime
from unittest import mock

import pytest
from support.execution import (
    OTHER,
    TICKER,
    MemoryLog,
    drain,
    instrument,
    signal,
    world,
)

from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.errors import CircuitBreakerOpenError
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import Fill, OrderStatus
from holdfast.core.signals import BookSide
from holdfast.execution.router import answer_of
from holdfast.execution.session import session_name
from holdfast.execution.strategy import Strategy
from holdfast.execution.trader import RouteStatus, Trader
from holdfast.execution.venue import (
    AlreadyClosed,
    BookChanged,
    Canceled,
    Reject,
    StreamGap,
    Unknown,
    VenueOrder,
    VenueTime,
)
from holdfast.risk.account import Account
from holdfast.risk.halt import TradingState
from holdfast.testing.venue import FakeVenue, Play


def go(coroutine):
    return asyncio.run(coroutine)


async def until_arrived(w):
    """Let the other tasks run until an order is at the venue, and a little on."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert w.venue.arrived


def external_fill(qty: int, *, trade_id: str = "X1", ts_ns: int = 10**18) -> Fill:
    return Fill(
        trade_id=trade_id,
        order_id="elsewhere",
        ticker=TICKER,
        side=BookSide.BID if qty > 0 else BookSide.ASK,
        price=PriceE4(5600),
        qty=QtyE2(abs(qty)),
        fee=MoneyE6(0),
        is_taker=True,
        ts_ns=ts_ns,
    )


def test_trader_stays_cancel_only_while_the_venue_cannot_be_read():
    """Until the venue's books are read every order is refused; reading them later releases it."""

    async def run():
        w = world()
        w.venue.is_readable = False
        assert not await w.trader.start()
        w.venue.is_readable = True
        refused = await w.trader.route(signal())
        assert refused.reason == "state_cancel_only"
        assert not w.venue.arrived
        w.clock.advance(2)
        await w.trader.tick(w.clock.now_ns())
        assert (await w.trader.route(signal())).status is RouteStatus.SUBMITTED
        assert [c["explained"] for c in w.log.of("RECONCILE") if c["what"] == "venue unreadable"] == [False]

    go(run())


def test_trader_takes_over_an_account_that_already_holds_something():
    """The first start books the venue's positions as the opening ones and counts no earlier fill again."""

    async def run():
        w = world()
        w.venue.trade_elsewhere(external_fill(30_00))
        assert await w.trader.start()
        await drain(w)
        assert w.account.portfolio.position(TICKER) == 30_00
        assert not w.log.of("TRADE")
        assert w.gate.daily_pnl() == 0

    go(run())


def test_trader_books_what_was_missed_and_external_fills_at_the_next_start():
    """Fills made while it was down, ours and others', are booked once and counted before trading goes on."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue.script(Play.HANG)
        hanging = asyncio.ensure_future(w.trader.route(signal(key="a", count=5)))
        await until_arrived(w)
        kept = MemoryLog(w.log.lines)
        hanging.cancel()
        w.venue.trade_elsewhere(external_fill(-20_00, ts_ns=w.clock.now_ns()))
        again = world(log=kept, clock=w.clock, venue=w.venue)
        assert await again.trader.start()
        assert again.account.portfolio.position(TICKER) == -15_00 == w.venue.books_position(TICKER)
        assert [trade["external"] for trade in kept.of("TRADE")] == [False, True]
        assert not again.account.open_orders()
        repeated = await again.trader.route(signal(key="a", count=5))
        assert repeated.repeated
        assert len(w.venue.arrived) == 1
        for task in [task for _, task in w.trader._routing.values()]:
            task.cancel()
            await asyncio.wait((task,))

    go(run())


def test_trader_stays_cancel_only_while_positions_differ_unexplained():
    """A position that no fill explains bars every order and is named in the journal."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue._positions[TICKER] = QtyE2(700)
        again = world(log=MemoryLog(w.log.lines), clock=w.clock, venue=w.venue)
        assert not await again.trader.start()
        difference = [r for r in again.log.of("RECONCILE") if not r["explained"]]
        assert difference[0]["differences"] == [[TICKER, "0.00", "7.00"]]
        del w.venue._positions[TICKER]
        w.clock.advance(3)
        await again.trader.tick(w.clock.now_ns())
        assert again.account.holds.state is TradingState.ACTIVE

    go(run())


def test_trader_bars_increases_when_positions_drift_while_it_runs():
    """A difference that two comparisons show bars orders until the positions agree again."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue._positions[OTHER] = QtyE2(700)
        for _ in range(3):
            w.clock.advance(61)
            await w.trader.tick(w.clock.now_ns())
        assert w.account.holds.state is TradingState.CANCEL_ONLY
        del w.venue._positions[OTHER]
        w.clock.advance(61)
        await w.trader.tick(w.clock.now_ns())
        assert w.account.holds.state is TradingState.ACTIVE

    go(run())


def test_a_pending_order_is_unknown_after_a_crash():
    """An intent without an answer in the journal is never taken for unsent."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue.script(Play.VANISHED)
        await w.trader.route(signal(key="a"))
        lines = w.log.lines[: 1 + max(n for n, line in enumerate(w.log.lines) if line.type == "ORDER")]
        again = world(log=MemoryLog(lines), clock=w.clock, venue=w.venue)
        assert await again.trader.start()
        (order,) = again.account.open_orders()
        assert order.status is OrderStatus.UNKNOWN
        assert again.account.working(TICKER) == (10_00, 0)

    go(run())


def test_cancelling_the_caller_does_not_lose_the_order():
    """The order of a cancelled caller goes on to its answer."""

    async def run():
        w = world()
        await w.trader.start()
        caller = asyncio.ensure_future(w.trader.route(signal(key="a")))
        await until_arrived(w)
        caller.cancel()
        await drain(w)
        await w.trader.stop()
        (order,) = w.account.orders.values()
        assert order.status is OrderStatus.FILLED

    go(run())


def test_an_order_cut_off_while_sending_is_unknown_and_written_so():
    """When the loop is torn down during the send, UNKNOWN is in the journal before the task ends."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue.script(Play.HANG)
        caller = asyncio.ensure_future(w.trader.route(signal(key="a")))
        await until_arrived(w)
        (task,) = [task for _, task in w.trader._routing.values()]
        task.cancel()
        await asyncio.wait((task, caller))
        assert w.log.of("ORDER_UPDATE")[-1]["event"] == "unknown"
        assert w.account.working(TICKER) == (10_00, 0)

    go(run())


@pytest.mark.invariant("I9")
def test_a_poisoned_journal_lets_only_cancels_through():
    """Once an append fails nothing more is sent, and a resting order can still be canceled."""

    async def run():
        w = world()
        await w.trader.start()
        resting = await w.trader.route(signal(key="rest", price=50, tif="gtc"))
        assert resting.status is RouteStatus.SUBMITTED
        w.log.fail_after = 0
        refused = await w.trader.route(signal(key="b"))
        assert (refused.status, refused.reason) == (RouteStatus.DENIED, "audit_unavailable")
        assert (await w.trader.route(signal(key="c"))).reason == "state_cancel_only"
        assert [intent.key for intent in w.venue.arrived] == ["rest"]
        assert isinstance(await w.trader.cancel(resting.client_order_id), Canceled)
        assert await w.venue.open_orders() == []
        assert w.account.working(TICKER) == (0, 0)

    go(run())


def test_not_sent_is_tried_again_under_the_same_id_a_bounded_number_of_times():
    """Two failures to send are tried again; a third ends as not_sent with everything given back."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue.script(Play.NOT_SENT, Play.NOT_SENT)
        assert (await w.trader.route(signal())).status is RouteStatus.SUBMITTED
        w.venue.script(*[Play.NOT_SENT] * 3)
        result = await w.trader.route(signal())
        assert (result.status, result.reason) == (RouteStatus.NOT_SENT, "scripted")
        assert len(w.venue.arrived) == 1
        assert w.venue.calls.count("place") == 6
        await drain(w)
        assert w.account.reserved == 0

    go(run())


def test_a_halt_between_admission_and_send_stops_the_order():
    """A state that became stricter while the intent was being written voids the admission."""

    async def run():
        w = world()
        await w.trader.start()
        real = w.log.record_many

        def write_then_halt(entries, level=None):
            seqs = real(entries, level)
            if any(entry.type == "ORDER" for entry in entries):
                change = w.account.holds.change("person", TradingState.HALTED, reason="stop", who="ann")
                w.account.apply("STATE", change)
            return seqs

        w.log.record_many = write_then_halt
        result = await w.trader.route(signal())
        assert (result.status, result.reason) == (RouteStatus.NOT_SENT, "state_halted")
        assert not w.venue.arrived

    go(run())


def test_a_halted_account_stays_halted_after_a_restart():
    """A person's HALTED survives in the journal until a person releases it."""

    async def run():
        w = world()
        await w.trader.start()
        w.trader.ledger.hold("person", TradingState.HALTED, reason="stop", who="ann")
        await w.trader.stop()
        again = world(log=MemoryLog(w.log.lines), clock=w.clock, venue=w.venue)
        assert not await again.trader.start()
        assert again.account.holds.state is TradingState.HALTED

    go(run())


def test_an_immediate_order_is_never_proven_absent_by_time():
    """A lost immediate order stays UNKNOWN and reserved however long it is not found, and is alarmed once."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue.script(Play.VANISHED)
        await w.trader.route(signal())
        for _ in range(10):
            w.clock.advance(3600)
            await w.trader.tick(w.clock.now_ns())
        (order,) = w.account.open_orders()
        assert order.status is OrderStatus.UNKNOWN
        assert w.account.working(TICKER) == (10_00, 0)
        assert w.log.violations().count("order_unknown") == 1

    go(run())


def test_a_resting_order_never_arrived_once_it_is_absent_beyond_its_expiration():
    """A lost resting order ends as NEVER_ARRIVED only after its expiration, the lateness and two looks."""

    async def run():
        w = world(resting_secs=100)
        await w.trader.start()
        w.venue.script(Play.VANISHED)
        lost = await w.trader.route(signal(tif="gtc", price=50))
        seen = []
        for secs in (90, 40, 40, 40):
            w.clock.advance(secs)
            await w.trader.tick(w.clock.now_ns())
            seen.append(w.account.orders[lost.client_order_id].status)
        assert seen == [
            OrderStatus.UNKNOWN,
            OrderStatus.UNKNOWN,
            OrderStatus.UNKNOWN,
            OrderStatus.NEVER_ARRIVED,
        ]
        assert w.account.reserved == 0

    go(run())


def test_a_zombie_is_reserved_again_canceled_and_alarmed():
    """An order declared gone that turns up after all is hunted down and people are told."""

    async def run():
        w = world(resting_secs=1)
        await w.trader.start()
        w.venue.script(Play.LATE)
        lost = await w.trader.route(signal(tif="gtc", price=50))
        for _ in range(3):
            w.clock.advance(62)
            await w.trader.tick(w.clock.now_ns())
        assert w.account.orders[lost.client_order_id].status is OrderStatus.NEVER_ARRIVED
        w.venue.arrive()
        await drain(w)
        assert "zombie_order" in w.log.violations()
        assert await w.venue.open_orders() == []
        assert w.account.orders[lost.client_order_id].status is OrderStatus.CANCELED
        events = [update["event"] for update in w.log.of("ORDER_UPDATE")]
        assert events.index("zombie") > events.index("never_arrived")

    go(run())


def test_a_conflict_on_create_is_looked_up_not_believed():
    """A 409 for an id that the venue holds ends in what the venue's books say of that id."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue.script(Play.LATE)
        lost = await w.trader.route(signal(key="a", tif="gtc", price=50))
        again = world(clock=w.clock, venue=w.venue)  # a journal that lost its memory
        w.venue.arrive()
        await again.trader.start()
        result = await again.trader.route(signal(key="a", tif="gtc", price=50))
        assert result.client_order_id == lost.client_order_id
        assert result.status is RouteStatus.SUBMITTED
        assert len(await w.venue.open_orders()) == 1
        assert again.account.working(TICKER) == (10_00, 0)

    go(run())


def test_cancel_takes_partly_filled_orders_off_and_keeps_the_fills():
    """Four of ten filled, the rest canceled: released six, reserved nothing, outcome partial."""

    async def run():
        w = world()
        await w.trader.start()
        name = (await w.trader.route(signal(tif="gtc", price=50))).client_order_id
        w.venue.fill_resting(name, 400)
        assert isinstance(await w.trader.cancel(name), Canceled)
        assert w.account.working(TICKER) == (400, 0)  # the claimed fill has not come yet
        await drain(w)
        order = w.account.orders[name]
        assert (order.filled, order.released, order.status) == (400, 600, OrderStatus.CANCELED)
        assert w.account.working(TICKER) == (0, 0)
        assert isinstance(await w.trader.cancel(name), AlreadyClosed)

    go(run())


def test_cancel_all_own_leaves_other_peoples_orders_alone():
    """Only orders of this journal are canceled; an adopted one keeps working and keeps counting."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal(tif="gtc", price=50))
        foreign = VenueOrder(
            order_id="F1",
            client_order_id="somebody-1",
            ticker=TICKER,
            side=BookSide.BID,
            yes_price=PriceE4(5000),
            filled=QtyE2(0),
            leaves=QtyE2(80_00),
            initial=QtyE2(80_00),
            status=OrderStatus.WORKING,
        )
        w.trader.ledger.saw_order(foreign, evidence="test")
        assert w.account.working(TICKER) == (90_00, 0)
        assert (await w.trader.route(signal(count=11))).reason == "position_limit_exceeded"
        assert await w.trader.cancel_all_own() == []
        assert w.account.working(TICKER) == (80_00, 0)

    go(run())


def test_a_cancel_without_answer_makes_the_order_unknown_until_it_is_read():
    """A cancel whose outcome nobody saw keeps the reservation."""

    async def run():
        w = world()
        await w.trader.start()
        name = (await w.trader.route(signal(tif="gtc", price=50))).client_order_id

        async def lost(**_):
            return Unknown(reason="timeout")

        w.venue.cancel = lost
        await w.trader.cancel(name)
        assert w.account.orders[name].status is OrderStatus.UNKNOWN
        assert w.account.working(TICKER) == (10_00, 0)
        w.clock.advance(2)
        await w.trader.tick(w.clock.now_ns())
        assert w.account.orders[name].status is OrderStatus.WORKING

    go(run())


def test_a_settled_market_pays_out_and_refuses_further_orders():
    """The payout is booked once, P&L counts it, and the market is closed to orders."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal())
        await drain(w)
        w.venue.settle(TICKER, "yes")
        await drain(w)
        assert w.account.portfolio.position(TICKER) == 0
        assert [s["payout"] for s in w.log.of("SETTLEMENT")] == ["10.00"]
        assert w.gate.daily_pnl() == 4_400_000
        assert (await w.trader.route(signal())).reason == "market_closed"

    go(run())


def test_a_market_settled_while_down_is_found_at_the_start():
    """A position that vanished because its market paid out is explained, not drift."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal())
        await drain(w)
        w.venue.settle(TICKER, "no")
        again = world(log=MemoryLog(w.log.lines), clock=w.clock, venue=w.venue)
        assert await again.trader.start()
        assert [s["payout"] for s in again.log.of("SETTLEMENT")] == ["0.00"]

    go(run())


def test_a_gap_makes_marks_unknown_and_reads_private_facts_again():
    """After a gap a held market has no price until its next book, and missed fills are read."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue.mute = True
        await w.trader.route(signal(key="a"))
        assert w.account.portfolio.position(TICKER) == 10_00  # read after the answer: nothing is followed
        w.venue.mute = False
        w.venue.put_event(StreamGap(reason="test", tickers=(TICKER,), private=True))
        await drain(w)
        assert w.gate.market.mark(TICKER) is None
        await w.trader.instrument(OTHER)
        w.venue.is_readable = False
        assert (await w.trader.route(signal(ticker=OTHER))).reason == "mark_unknown"
        assert (await w.trader.route(signal(action="sell", price=55))).status is RouteStatus.SUBMITTED

    go(run())


def test_the_session_opens_at_midnight_in_new_york():
    """A new SESSION_OPEN is written when the date in New York changes, and daily P&L starts anew."""
    before = int(datetime(2026, 7, 2, 3, 59, 59, tzinfo=UTC).timestamp()) * NANOS
    assert session_name(before) == "2026-07-01"
    assert session_name(before + NANOS) == "2026-07-02"

    async def run():
        w = world(clock=ManualClock(before))
        await w.trader.start()
        await w.trader.route(signal())
        await drain(w)
        assert w.gate.daily_pnl() == -100_000
        w.clock.advance(2)
        await w.trader.tick(w.clock.now_ns())
        sessions = w.log.of("SESSION_OPEN")
        assert [s["session"] for s in sessions] == ["2026-07-01", "2026-07-02"]
        assert sessions[1]["positions"] == {TICKER: "10.00"}
        assert w.gate.daily_pnl() == 0

    go(run())


def test_daily_pnl_is_rebuilt_from_the_journal():
    """After a restart on the same day the loss so far still counts against the limit."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal(count=100))
        await drain(w)
        again = world(log=MemoryLog(w.log.lines), clock=w.clock, venue=w.venue)
        await again.trader.start()
        w.clock.advance(2)
        await again.trader.tick(w.clock.now_ns())
        assert again.gate.daily_pnl() == w.gate.daily_pnl() == -1_000_000
        assert len(again.log.of("SESSION_OPEN")) == 1

    go(run())


class Twice(Strategy):
    name = "twice"

    def __init__(self):
        self.ticks = []
        self.fills = []

    def on_tick(self, now_ns):
        self.ticks.append(now_ns)
        return [signal(count=1), signal(count=2)]

    def on_fill(self, fill):
        self.fills.append(fill.qty)
        return []


def test_run_routes_a_strategys_signals_in_turn_and_keeps_the_barrier():
    """Signals go out in order under the strategy's name, and the venue hears `quiescent` after each tick."""

    async def run():
        strategy, clock = Twice(), ManualClock()
        venue = FakeVenue(clock, [instrument(), instrument(OTHER)])
        venue.set_book(TICKER, bids=[(5500, 100_000)], asks=[(5600, 100_000)])
        w = world(clock=clock, venue=venue, strategies=[strategy], on_time=clock.set_now_ns)
        start = clock.now_ns()
        await w.trader.start()
        venue.put_event(VenueTime(n=1, ts_ns=start + NANOS))
        venue.put_event(VenueTime(n=2, ts_ns=start + 2 * NANOS, final=True))
        await w.trader.run(venue.events(()))
        assert strategy.ticks == [start + NANOS, start + 2 * NANOS]
        assert venue.quiet == [1, 2]
        assert [(o["strategy"], o["quantity"]) for o in w.log.of("ORDER")] == [
            ("twice", "1.00"),
            ("twice", "2.00"),
        ] * 2
        assert [o["intent"] for o in w.log.of("ORDER")] == ["run-1-1", "run-1-2", "run-1-3", "run-1-4"]
        await w.trader.stop()
        assert clock.now_ns() == start + 2 * NANOS

    go(run())


def test_run_ticks_by_the_wall_where_the_venue_owns_no_clock():
    """With and without events, what is due is done although no venue tick comes."""

    async def run():
        strategy = Twice()
        w = world(strategies=[strategy], tick_secs=0.0)
        await w.trader.start()
        w.venue.set_book(TICKER, bids=[(5500, 100_000)], asks=[(5600, 100_000)])
        w.venue.end_events()
        await w.trader.run(w.venue.events(()))
        assert strategy.ticks
        assert w.log.of("ORDER")

    go(run())


def test_an_open_breaker_at_the_start_leaves_cancel_only():
    """Books that the breaker refuses to read count as unread."""

    async def run():
        w = world()

        async def refused(**_):
            raise CircuitBreakerOpenError("open", breaker="b", retry_after_secs=1.0)

        real, w.venue.fills = w.venue.fills, refused
        assert not await w.trader.start()
        w.venue.fills = real
        w.clock.advance(2)
        await w.trader.tick(w.clock.now_ns())
        assert w.account.holds.state is TradingState.ACTIVE

    go(run())


def test_run_stops_trading_when_a_strategy_fails():
    """An exception in a strategy ends the run and leaves CANCEL_ONLY behind."""

    class Broken(Strategy):
        name = "broken"

        def on_tick(self, now_ns):
            raise ZeroDivisionError

    async def run():
        w = world(strategies=[Broken()])
        await w.trader.start()
        w.venue.put_event(VenueTime(n=1, ts_ns=w.clock.now_ns() + NANOS))
        with pytest.raises(ZeroDivisionError):
            await w.trader.run(w.venue.events(()))
        assert w.account.holds.state is TradingState.CANCEL_ONLY

    go(run())


def test_intent_keys_hold_for_life():
    """Same key and content repeats the outcome, a refusal too; other content is a conflict."""

    async def run():
        w = world()
        await w.trader.start()
        first = await w.trader.route(signal(key="a"))
        both = await asyncio.gather(w.trader.route(signal(key="b")), w.trader.route(signal(key="b")))
        assert both[0].client_order_id == both[1].client_order_id
        assert (await w.trader.route(signal(key="a"))).repeated
        assert (await w.trader.route(signal(key="a", count=11))).reason == "intent_conflict"
        denied = await w.trader.route(signal(key="c", count=500))
        again = await w.trader.route(signal(key="c", count=500))
        assert (again.status, again.reason, again.repeated) == (denied.status, denied.reason, True)
        assert (await w.trader.route(signal(key="c", count=1))).reason == "intent_conflict"
        assert first.client_order_id != both[0].client_order_id
        assert len(w.venue.arrived) == 2

    go(run())


def test_unknown_instruments_are_refused_by_name():
    """An order for a market that the venue does not list is denied as unknown_instrument."""

    async def run():
        w = world()
        await w.trader.start()
        assert (await w.trader.route(signal(ticker="NOPE"))).reason == "unknown_instrument"
        assert w.log.violations() == ["unknown_instrument", "risk_check_failed"]

    go(run())


@pytest.mark.parametrize(
    ("play", "changes", "outcome", "filled"),
    [
        (Play.NORMAL, {}, "filled", "10.00"),
        (Play.NORMAL, {"price": 50}, "canceled", "0.00"),
        (Play.NORMAL, {"price": 50, "tif": "gtc"}, "working", "0.00"),
        (Play.REJECT, {}, "rejected", "0.00"),
        (Play.VANISHED, {}, "unknown", "0.00"),
        (Play.NORMAL, {"count": 500}, "denied", "0.00"),
    ],
)
def test_submit_prints_one_outcome_per_signal(play, changes, outcome, filled):
    """A submitted signal ends in one word, its fills counted, and names its reason when nothing executed."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue.script(play)
        line = await w.trader.submit(signal(key="k", **changes), settle_secs=0.01)
        assert (line["intent"], line["outcome"], line["filled"]) == ("k", outcome, filled)
        assert set(line) == {"intent", "client_order_id", "outcome", "reason", "order_id", "filled"}
        assert bool(line["reason"]) == (outcome in {"rejected", "denied", "unknown"})

    go(run())


def test_a_conflicting_signal_is_not_told_the_outcome_of_the_other():
    """A signal refused for its name reports nothing of what the first one of that name did."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.submit(signal(key="a"), settle_secs=0)
        told = await w.trader.submit(signal(key="a", count=11), settle_secs=0)
        assert (told["outcome"], told["order_id"], told["filled"]) == ("denied", "", "0.00")

    go(run())


def test_a_public_trade_record_of_the_user_does_not_move_the_account():
    """Records that other parts write to the same journal are not folded into the account at a restart."""

    async def run():
        w = world()
        await w.trader.start()
        w.log.record(
            "TRADE", {"order_id": "x", "side": "buy", "quantity": "5", "price": "0.5", "market": TICKER}
        )
        again = world(log=MemoryLog(w.log.lines), clock=w.clock, venue=w.venue)
        assert await again.trader.start()
        assert not again.account.portfolio.positions

    go(run())


def test_an_overfill_is_booked_alarmed_and_restricts_trading():
    """A fill beyond an order's quantity moves the position, and only cancels go on."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal())
        await drain(w)
        (order,) = w.account.orders.values()
        more = external_fill(2_00)
        fill = Fill(**{f: getattr(more, f) for f in more.__struct_fields__} | {"order_id": order.order_id})
        w.venue.trade_elsewhere(fill)
        await drain(w)
        assert w.account.portfolio.position(TICKER) == 12_00
        assert "overfill" in w.log.violations()
        assert w.account.holds.state is TradingState.CANCEL_ONLY

    go(run())


def test_wait_settled_gives_up_after_its_time():
    """Waiting for an order that stays UNKNOWN ends after the time given."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue.script(Play.VANISHED)
        name = (await w.trader.route(signal())).client_order_id
        assert not await w.trader.wait_settled(name, timeout_secs=0.01)

    go(run())


def test_replay_of_the_journal_gives_the_same_account():
    """Folding the records from an empty account equals the account that wrote them."""

    async def run():
        w = world()
        await w.trader.start()
        w.venue.script(Play.NORMAL, Play.LOST, Play.REJECT, Play.VANISHED)
        for n in range(6):
            await w.trader.route(
                signal(key=f"k{n}", count=5 + n, tif="gtc" if n % 2 else "ioc", price=50 + n)
            )
        await drain(w)
        replayed = Account()
        for line in w.log.lines:
            replayed.apply(line.type, line.details)
        assert replayed.snapshot() == w.account.snapshot()

    go(run())


def test_trader_is_made_without_touching_the_venue():
    """Constructing a trader calls nothing and writes nothing."""
    w = world()
    assert isinstance(w.trader, Trader)
    assert not w.venue.calls
    assert not w.log.lines


@pytest.mark.invariant("I5")
def test_what_ended_one_run_does_not_bar_the_next():
    """A run that a strategy's mistake ended leaves the next one free to trade, exits first, once reconciled."""

    class Wrong(Strategy):
        def on_book(self, book):
            raise ValueError("wrong")

    async def run():
        w = world(strategies=[Wrong()])
        await w.trader.start()
        with pytest.raises(ValueError, match="wrong"):
            await w.trader.run(w.venue.events((TICKER,)))
        assert w.account.holds.state is TradingState.CANCEL_ONLY
        again = world(log=w.log, clock=w.clock, venue=w.venue)
        assert await again.trader.start()
        assert again.account.holds.state is TradingState.ACTIVE

    go(run())


@pytest.mark.invariant("I4")
def test_an_event_that_waited_proves_no_price_of_now():
    """Hearing now what the stream said long ago makes no price fresh."""

    async def run():
        w = world()
        await w.trader.start()
        for ticker in (TICKER, OTHER):
            await w.trader.handle(BookChanged(w.venue._book(ticker), w.clock.now_ns()))
        waiting = BookChanged(w.venue._book(OTHER), w.clock.now_ns())
        w.clock.advance(1_000)
        await w.trader.handle(waiting)
        assert w.clock.monotonic_ns() - w.trader.market.mark(TICKER).as_of_ns == 1_000 * NANOS

    go(run())


@pytest.mark.invariant("I4")
def test_an_exit_is_judged_with_the_other_markets_of_its_event_after_a_restart():
    """Buying back one of two shorts of an exclusive event is not reducing, though only its own rules were read."""

    async def run():
        clock = ManualClock()
        venue = FakeVenue(clock, [instrument(ticker, event_exclusive=True) for ticker in (TICKER, OTHER)])
        for ticker in (TICKER, OTHER):
            venue.set_book(ticker, bids=[(5500, 100_000)], asks=[(5600, 100_000)])
        w = world(clock=clock, venue=venue)
        await w.trader.start()
        for ticker in (TICKER, OTHER):
            await w.trader.route(signal(ticker=ticker, action="sell", count=50, price=55))
        again = world(log=w.log, clock=clock, venue=venue)
        await again.trader.start()
        await drain(again)
        assert again.account.portfolio.positions == {TICKER: -50_00, OTHER: -50_00}
        result = await again.trader.route(signal(count=50, price=56, reduce_only=True))
        assert result.reason == "not_reducing"

    go(run())


@pytest.mark.invariant("I9")
def test_a_journal_without_room_to_grow_lets_only_exits_through():
    """While the disk is full new risk is refused and a position can be closed; with room again trading goes on."""

    async def run():
        w = world()
        await w.trader.start()
        await w.trader.route(signal(key="a"))
        await drain(w)
        w.log.wal.space_low = True
        assert (await w.trader.route(signal(key="b"))).reason == "audit_unavailable"
        sold = await w.trader.route(signal(key="c", action="sell", price=55))
        assert sold.status is RouteStatus.SUBMITTED
        w.log.wal.space_low = False
        await w.trader.tick(w.clock.now_ns())
        assert w.account.holds.state is TradingState.ACTIVE
        assert (await w.trader.route(signal(key="d"))).status is RouteStatus.SUBMITTED

    go(run())


@pytest.mark.invariant("I9")
def test_the_real_journal_bars_increases_before_it_is_full(tmp_path):
    """A disk that refuses the journal's next step of room leaves REDUCING behind while records are still durable."""

    async def run():
        wal = WriteAheadLog(tmp_path, clock=ManualClock(), seal=False)
        w = world(log=AuditLogger(wal))
        await w.trader.start()
        with mock.patch("holdfast.audit.segment.write_filler", side_effect=OSError(errno.ENOSPC, "full")):
            with wal._segment.filling:
                assert not wal._segment.grow()
            assert (await w.trader.route(signal(key="a"))).reason == "audit_unavailable"
            assert wal.state == "open"
        wal.close()
        states = [
            record.details["to"]
            for record in WriteAheadLog(tmp_path, clock=ManualClock()).records()
            if record.type == "STATE"
        ]
        assert states[-1] == "REDUCING"

    go(run())


@pytest.mark.contract("A7")
@pytest.mark.parametrize("code", ["market_closed", "insufficient_balance", "Some_new Word of the venue's"])
def test_a_venues_reason_reaches_the_user_as_the_venue_wrote_it(code: str):
    """The venue's own word for a refusal is what `submit`, `route_order` and a repetition of the intent say."""

    async def run():
        w = world()
        await w.trader.start()

        async def refuses(play, intent):
            return Reject(code=code, message="in the venue's words", status=400)

        w.venue._play = refuses
        told = await w.trader.submit(signal(key="a"), settle_secs=0)
        assert (told["outcome"], told["reason"]) == ("rejected", code)
        again = answer_of(await w.trader.route(signal(key="a")))
        assert again == {"status": "rejected", "reason": code}
        assert w.log.of("ORDER_UPDATE")[-1]["evidence"] == "400 in the venue's words"

    go(run())


def test_a_killed_fill_or_kill_order_is_refused_not_unknown():
    """A definite no frees the reservation whatever its status; only a taken name is looked up."""

    async def run():
        w = world()
        await w.trader.start()

        async def kill(intent, admission, permit):
            admission.consume(intent)
            permit.ignored()
            return Reject(code="fill_or_kill_insufficient_resting_volume", status=409)

        w.venue.place = kill
        result = await w.trader.route(signal(tif="fok"))
        assert result.status is RouteStatus.REJECTED
        assert w.account.working(TICKER) == (0, 0)

    go(run())


class Restless(Strategy):
    """Notes every tick it is asked at."""

    name = "restless"

    def __init__(self):
        self.ticks = []

    def on_tick(self, now_ns):
        self.ticks.append(now_ns)
        return ()


def test_strategies_are_asked_once_per_moment():
    """A tick that repeats its time does what is due but asks no strategy again."""

    async def run():
        restless = Restless()
        w = world(strategies=(restless,))
        await w.trader.start()
        for ts_ns in (5, 5, 6, 6, 6):
            await w.trader.tick(ts_ns)
        assert restless.ticks == [5, 6]

    go(run())
