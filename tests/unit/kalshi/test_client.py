"""The HTTP client on the real paper exchange."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.exchange import TICKER, quiet_feed
from support.execution import opened_account, signal
from support.kalshi import admission, desk_at, desk_on_exchange, intent, scripted

from holdfast.core.clock import ManualClock
from holdfast.core.errors import CircuitBreakerOpenError, ConfigError, IllegalTransition, VenueRejected
from holdfast.core.money import parse_money, parse_price, parse_qty
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import BookSide, Side, TimeInForce
from holdfast.execution.trader import RouteStatus, Trader
from holdfast.execution.venue import Ack, AlreadyClosed, Canceled, NotSent, Reject, Unknown
from holdfast.risk.gate import Admission, Gate
from holdfast.risk.limits import RiskLimits
from holdfast.venues.paper.faults import FaultScript, read_script


def test_every_public_read_returns_a_whole_value(tmp_path: Path):
    """Status, market, markets, event, series, book and trades can all be read from the exchange."""

    async def run():
        async with desk_on_exchange(tmp_path, signer=None) as desk:
            client = desk.client
            assert (await client.get_exchange_status()).trading_active
            market = await client.get_market_data(TICKER)
            assert (market.ticker, market.status) == (TICKER, "active")
            assert (market.yes_bid, market.yes_ask) == (4000, 4500)
            assert market["yes_bid"] == 4000
            assert [one.ticker for one in await client.list_markets()] == [TICKER]
            page = await client.get_markets(limit=1)
            assert [one.ticker for one in page.items] == [TICKER]
            event = await client.get_event(market.event_ticker)
            assert event.event_ticker == market.event_ticker
            fees = await client.get_series_fees(event.series_ticker)
            assert fees.taker_fee_ppm == 70_000
            book = await client.get_orderbook(TICKER)
            assert [(level.price, level.qty) for level in book.bids] == [(4000, 10_000), (3900, 20_000)]
            assert [(level.price, level.qty) for level in book.asks] == [(4500, 10_000), (4600, 20_000)]
            assert (await client.get_trades(ticker=TICKER)).items == []
            assert len(desk.records()) == 8
            assert {entry.user_id for entry in desk.records()} == {"unknown"}

    asyncio.run(run())


def test_an_order_lives_from_acknowledgement_to_fill_and_cancel(tmp_path: Path):
    """A resting order is acknowledged, listed, found and canceled; a crossing one fills with price and fee."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            client, venue = desk.client, desk.venue
            before = (await client.get_balance()).balance
            assert before > 0
            rests = await desk.place(intent("hf-rests", price="0.41"))
            assert isinstance(rests, Ack)
            assert (rests.filled, rests.remaining) == (0, 1000)
            assert [order.client_order_id for order in await venue.open_orders()] == ["hf-rests"]
            found = await venue.find_order(client_order_id="hf-rests", ticker=TICKER, since_ns=0)
            assert found is not None
            assert (found.side, found.yes_price, found.status) == (BookSide.BID, 4100, OrderStatus.WORKING)
            assert await venue.cancel(order_id=rests.order_id, ticker=TICKER) == Canceled(
                released=parse_qty("10")
            )
            assert await venue.cancel(order_id=rests.order_id, ticker=TICKER) == AlreadyClosed()
            ended = await venue.order(rests.order_id)
            assert ended is not None
            assert ended.status is OrderStatus.CANCELED
            crosses = await desk.place(intent("hf-crosses", price="0.45", tif=TimeInForce.IOC))
            assert isinstance(crosses, Ack)
            assert crosses.filled == parse_qty("10")
            fills = await venue.fills(since_ns=0)
            assert [(fill.side, fill.price, fill.qty) for fill in fills] == [(BookSide.BID, 4500, 1000)]
            assert fills[0].order_id == crosses.order_id
            assert fills[0].fee == parse_money("0.18")
            assert await venue.positions() == {TICKER: parse_qty("10")}
            assert await venue.balance() == before - parse_money("4.68")
            assert await venue.order("nobody") is None

    asyncio.run(run())


def test_selling_no_and_buying_no_arrive_on_the_right_side(tmp_path: Path):
    """Buying NO at 0.60 asks for YES at 0.40 and fills against the YES bid."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            wish = intent("hf-no", side=Side.NO, price="0.60", tif=TimeInForce.IOC)
            answer = await desk.place(wish)
            assert isinstance(answer, Ack)
            assert answer.filled == 1000
            fills = await desk.venue.fills(since_ns=0)
            assert [(fill.side, fill.price) for fill in fills] == [(BookSide.ASK, parse_price("0.40"))]
            assert await desk.venue.positions() == {TICKER: parse_qty("-10")}

    asyncio.run(run())


def test_a_refused_order_is_a_reject_with_the_venues_code(tmp_path: Path):
    """Unknown market, post-only cross, no money and a killed order are definite rejects that trip nothing."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            missing = await desk.place(intent("hf-a", ticker="KXNONE-26DEC31-A"))
            assert isinstance(missing, Reject)
            assert missing.status == 404
            crosses = await desk.place(intent("hf-b", post_only=True, price="0.50"))
            assert isinstance(crosses, Reject)
            dear = await desk.place(intent("hf-c", count="9000000"))
            assert isinstance(dear, Reject)
            assert dear.code == "insufficient_balance"
            killed = await desk.place(intent("hf-d", count="1000", tif=TimeInForce.FOK))
            assert isinstance(killed, Reject)
            assert killed.code == "fill_or_kill_insufficient_resting_volume"
            assert desk.breaker.get_state() == "closed"
            assert desk.breaker.get_stats()["ignored_calls"] == 4

    asyncio.run(run())


@pytest.mark.contract("A16")
def test_a_conflict_is_unknown_and_the_order_is_found(tmp_path: Path):
    """A 409 for a repeated client order id is never a reject: it is Unknown, and the order is looked up."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            first = await desk.place(intent("hf-same", price="0.41"))
            again = await desk.place(intent("hf-same", price="0.41"))
            assert isinstance(first, Ack)
            assert isinstance(again, Unknown)
            assert again.status == 409
            assert again.reason.startswith("conflict")
            found = await desk.venue.find_order(client_order_id="hf-same", ticker=TICKER, since_ns=0)
            assert found is not None
            assert found.order_id == first.order_id

    asyncio.run(run())


def test_a_spent_admission_sends_nothing(tmp_path: Path):
    """An admission sends one order; using it again raises and no request leaves."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            wish = intent("hf-once", price="0.41")
            leave = admission(wish)
            permit = desk.client.placement_permit(TICKER, reducing=False)
            assert isinstance(await desk.client.create_order(wish, leave, permit), Ack)
            permit = desk.client.placement_permit(TICKER, reducing=False)
            with pytest.raises(IllegalTransition):
                await desk.client.create_order(wish, leave, permit)
            assert len(desk.records()) == 1

    asyncio.run(run())


@pytest.mark.invariant("I3")
def test_only_an_admission_of_the_gate_sends_an_order(tmp_path: Path):
    """Something that merely looks like an admission is refused by type, and nothing leaves."""

    class Forged:
        client_order_id = "hf-1"

        def consume(self, wish) -> None:
            pass

    class Derived(Admission):
        def __init__(self):
            pass

        def consume(self, wish) -> None:
            pass

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            for forged in (Forged(), Derived(), None):
                permit = desk.client.placement_permit(TICKER, reducing=False)
                with pytest.raises(TypeError, match="admission of the gate"):
                    await desk.client.create_order(intent(), forged, permit)
            assert desk.records() == []

    asyncio.run(run())


def test_an_admission_whose_time_has_passed_sends_nothing(tmp_path: Path):
    """An order whose admission is void by its deadline is NotSent, with the gate's reason."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            clock = ManualClock()
            wish = intent(price="0.41")
            leave = Gate(opened_account(), RiskLimits(), clock=clock).admit(wish).admission
            clock.advance(6)
            answer = await desk.client.create_order(
                wish, leave, desk.client.placement_permit(TICKER, reducing=False)
            )
            assert isinstance(answer, NotSent)
            assert "deadline" in answer.reason
            assert desk.records() == []
            assert desk.breaker.get_stats()["total_calls"] == 0

    asyncio.run(run())


def test_an_order_that_expired_meanwhile_is_not_sent(tmp_path: Path):
    """A resting order whose expiration has passed never leaves."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            answer = await desk.place(intent("hf-late", expiration_ns=desk.clock.now_ns()))
            assert isinstance(answer, NotSent)
            assert desk.records() == []

    asyncio.run(run())


def test_instruments_carry_the_event_and_the_fees(tmp_path: Path):
    """An instrument has its tick grid, step, event and fee rates; an unknown one is not_found."""

    async def run():
        async with desk_on_exchange(tmp_path, quiet_feed(mutually_exclusive=True)) as desk:
            known = await desk.venue.instrument(TICKER)
            assert known.event_exclusive
            assert (known.taker_fee_ppm, known.maker_fee_ppm) == (70_000, 0)
            assert known.is_open
            assert known.check_price(parse_price("0.45")) is None
            with pytest.raises(VenueRejected) as raised:
                await desk.venue.instrument("KXNONE")
            assert raised.value.code == "not_found"

    asyncio.run(run())


def test_private_reads_without_a_key_are_refused_before_anything_is_sent(tmp_path: Path):
    """A client without a key says so for private reads, cancels and orders, and sends nothing."""

    async def run():
        async with desk_on_exchange(tmp_path, signer=None) as desk:
            with pytest.raises(ConfigError, match="no API key"):
                await desk.client.get_balance()
            with pytest.raises(ConfigError, match="no API key"):
                await desk.client.cancel_order("o-1")
            with pytest.raises(ConfigError, match="no API key"):
                await desk.place(intent())
            assert desk.records() == []

    asyncio.run(run())


@pytest.mark.contract("A4")
def test_a_wrong_key_latches_the_breaker(tmp_path: Path):
    """A 401 latches `kalshi_api` until a person resets it; cancels still try."""

    async def run():
        async with desk_on_exchange(tmp_path) as desk:
            desk.client.signer.key_id = "someone-else"
            with pytest.raises(VenueRejected) as raised:
                await desk.client.get_balance()
            assert raised.value.status == 401
            assert desk.breaker.get_state() == "latched"
            with pytest.raises(CircuitBreakerOpenError):
                await desk.client.get_market(TICKER)
            assert isinstance(await desk.client.cancel_order("o-1"), NotSent)
            assert desk.calls() == [
                ("GET", "portfolio/balance", 401),
                ("DELETE", "portfolio/events/orders/o-1", 401),
            ]

    asyncio.run(run())


@pytest.mark.contract("A16")
def test_an_accepted_order_without_an_answer_is_unknown_and_found(tmp_path: Path):
    """When the exchange accepts an order and drops the connection, the answer is Unknown and the books tell."""

    async def run():
        script = FaultScript(read_script("0:drop_next_order=1", 0))
        async with desk_on_exchange(tmp_path, exchange_options={"script": script}) as desk:
            answer = await desk.place(intent("hf-lost", price="0.41"))
            assert isinstance(answer, Unknown)
            assert answer.status == 0
            found = await desk.venue.find_order(client_order_id="hf-lost", ticker=TICKER, since_ns=0)
            assert found is not None
            assert found.leaves == parse_qty("10")
            assert desk.calls()[0] == ("POST", "portfolio/events/orders", 0)
            assert len(desk.exchange.books().orders) == 1

    asyncio.run(run())


@pytest.mark.contract("A16")
@pytest.mark.parametrize("word", ["orders_500_after", "garbage_next_order"])
def test_an_unusable_answer_to_an_order_is_unknown(tmp_path: Path, word: str):
    """A 500 after the fact, or an answer cut off in the middle, is Unknown; the order stands at the exchange once."""

    async def run():
        script = FaultScript(read_script(f"0:{word}=1", 0))
        async with desk_on_exchange(tmp_path, exchange_options={"script": script}) as desk:
            assert isinstance(await desk.place(intent("hf-lost", price="0.41")), Unknown)
            assert len(await desk.venue.open_orders()) == 1
            assert desk.breaker.get_stats()["failed_calls"] == 1

    asyncio.run(run())


def test_a_lost_cancel_is_asked_again(tmp_path: Path):
    """A cancel whose answer is lost is repeated; the second answer says that the order is gone already."""

    async def run():
        script = FaultScript(read_script("0:drop_next_cancel=1", 0))
        async with desk_on_exchange(tmp_path, exchange_options={"script": script}) as desk:
            rests = await desk.place(intent("hf-rests", price="0.41"))
            assert isinstance(rests, Ack)
            answer = await desk.venue.cancel(order_id=rests.order_id, ticker=TICKER)
            assert answer == AlreadyClosed()
            assert [call[0] for call in desk.calls()] == ["POST", "DELETE"]

    asyncio.run(run())


@pytest.mark.invariant("I2")
def test_a_fill_without_a_time_is_not_left_out(tmp_path: Path):
    """A fill that lacks its time is among the fills since any time, rather than lost."""
    fill = {
        "trade_id": "t1",
        "order_id": "o1",
        "count_fp": "1.00",
        "yes_price_dollars": "0.5600",
        "fee_cost": "0.01",
        "is_taker": True,
        "ticker": TICKER,
        "book_side": "bid",
    }

    async def run():
        async with (
            scripted((200, json.dumps({"fills": [fill]}))) as server,
            desk_at(server.base_url, tmp_path) as desk,
        ):
            assert [one.trade_id for one in await desk.venue.fills(since_ns=10**18)] == ["t1"]

    asyncio.run(run())


@pytest.mark.invariant("I5")
def test_an_exit_leaves_after_a_restart_although_the_breaker_is_open(tmp_path: Path):
    """With the breaker held open from before the start a position can be closed, and nothing can be added."""

    async def run():
        async with desk_on_exchange(tmp_path, quiet_feed(TICKER)) as desk:
            before = Trader(desk.venue, log=desk.log, clock=desk.clock)
            await before.start()
            bought = await before.route(signal(ticker=TICKER, count=5, price=45))
            assert bought.status is RouteStatus.SUBMITTED
            desk.breaker.force_open("maintenance", "a person")
            after = Trader(desk.venue, log=desk.log, clock=desk.clock)
            assert await after.start()
            more = await after.route(signal(ticker=TICKER, count=5, price=45))
            assert more.status is not RouteStatus.SUBMITTED
            sold = await after.route(signal(ticker=TICKER, action="sell", count=5, price=40))
            assert sold.status is RouteStatus.SUBMITTED
            assert await desk.venue.positions() == {}
            assert [method for method, _, _ in desk.calls()].count("POST") == 2

    asyncio.run(run())


def test_a_probe_that_proves_nothing_is_not_repeated_at_once(tmp_path: Path):
    """A venue that answers every probe with 404 is asked a bounded number of times per refused order."""

    async def run():
        async with (
            scripted((404, '{"error": {"code": "not_found"}}')) as server,
            desk_at(server.base_url, tmp_path) as desk,
        ):
            for _ in range(desk.breaker.config.failure_threshold):
                desk.breaker.record_failure("test")
            desk.clock.advance(desk.breaker.config.open_timeout_secs + 1)
            with pytest.raises(CircuitBreakerOpenError):
                desk.client.placement_permit(TICKER, reducing=False)
            await asyncio.wait_for(asyncio.gather(*desk.client._probes), 10)
            assert len(server.requests) == desk.breaker.config.half_open_max_tries

    asyncio.run(run())
