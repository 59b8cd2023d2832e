"""The exchange over real sockets: who may ask, what orders do, what the stream says, and that runs repeat."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from support.data import require
from support.exchange import (
    START_NS,
    TICKER,
    as_process,
    at,
    book,
    delta,
    headers_for,
    lifecycle,
    load_key,
    printed,
    quiet_feed,
    serving,
    shared_key,
)

from holdfast.core.clock import SystemClock
from holdfast.core.errors import BadInput
from holdfast.core.fees import BalancePrecision
from holdfast.core.money import MoneyE6, PriceE4, QtyE2, parse_qty
from holdfast.core.signals import Action, BookSide, Side
from holdfast.execution.venue import DedupProfile
from holdfast.venues.paper import ws
from holdfast.venues.paper.accounts import OrderRequest
from holdfast.venues.paper.auth import KeyPair
from holdfast.venues.paper.events import FeedKind, FeeType, MarketStatus
from holdfast.venues.paper.exchange import PaperExchange, PortTaken
from holdfast.venues.paper.faults import Fault, FaultScript, ScriptedFault
from holdfast.venues.paper.limits import RequestClass
from holdfast.venues.paper.tape import open_feed

OTHER = "KXTEST-26DEC31-B"


def run(scenario, feed=None, **options):
    """Run *scenario(exchange, client)* against an exchange of its own."""

    async def go():
        async with serving(feed, **options) as (exchange, client):
            return await scenario(exchange, client)

    return asyncio.run(go())


# Who may ask.


def test_the_key_file_is_readable_by_its_owner_alone(tmp_path):
    """The PEM lies in the given directory with mode 0600."""

    async def scenario(exchange, client):
        path = exchange.endpoints.pem_path
        assert path.parent == tmp_path
        assert path.stat().st_mode & 0o777 == 0o600

    run(scenario, directory=tmp_path)


def test_a_key_directory_of_its_own_goes_with_the_exchange():
    """Without a directory the key file is gone after the exchange stopped."""

    async def scenario(exchange, client):
        return exchange.endpoints.pem_path

    path = run(scenario)
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("change", "code", "details"),
    [
        ({"KALSHI-ACCESS-SIGNATURE": None}, "signature_is_missing_from_headers", None),
        ({"KALSHI-ACCESS-KEY": None}, "key_is_missing_from_headers", None),
        ({"KALSHI-ACCESS-TIMESTAMP": None}, "timestamp_is_missing_from_headers", None),
        ({"KALSHI-ACCESS-KEY": "0" * 36}, "authentication_error", "NOT_FOUND"),
        ({"KALSHI-ACCESS-SIGNATURE": "AAAA"}, "authentication_error", "INCORRECT_API_KEY_SIGNATURE"),
        ({"KALSHI-ACCESS-SIGNATURE": "é"}, "authentication_error", "INCORRECT_API_KEY_SIGNATURE"),
        ({"KALSHI-ACCESS-TIMESTAMP": "soon"}, "authentication_error", "INVALID_TIMESTAMP"),
    ],
)
def test_a_request_with_a_wrong_header_is_unauthorized(change, code, details):
    """Each missing or wrong header gets the venue's own 401, on private paths and on the stream."""

    async def scenario(exchange, client):
        for path, url in (
            ("/trade-api/v2/portfolio/balance", exchange.endpoints.rest + "/portfolio/balance"),
            ("/trade-api/ws/v2", exchange.endpoints.ws.replace("ws:", "http:")),
        ):
            headers = headers_for(shared_key().private_key, exchange.endpoints.key_id, "GET", path)
            headers = {k: v for k, v in (headers | change).items() if v is not None}
            async with client.session.get(url, headers=headers) as response:
                assert response.status == 401
                error = (await response.json())["error"]
                assert error["code"] == code
                assert error.get("details") == details

    run(scenario)


def test_a_signature_of_another_key_or_path_does_not_hold():
    """A valid signature by another key, or over another path or method, is refused."""

    async def scenario(exchange, client):
        stranger = KeyPair().private_key
        for key, method, path in (
            (stranger, "GET", "/trade-api/v2/portfolio/balance"),
            (client.key, "GET", "/trade-api/v2/portfolio/orders"),
            (client.key, "POST", "/trade-api/v2/portfolio/balance"),
        ):
            headers = headers_for(key, exchange.endpoints.key_id, method, path)
            url = exchange.endpoints.rest + "/portfolio/balance?x=1"
            async with client.session.get(url, headers=headers) as response:
                assert response.status == 401

    run(scenario)


@pytest.mark.parametrize(("skew_secs", "status"), [(-4, 200), (4, 200), (-6, 401), (6, 401)])
def test_clocks_may_differ_by_five_seconds_of_wall_time(skew_secs, status):
    """Four seconds off pass, six are an expired timestamp, whatever market time says."""

    async def scenario(exchange, client):
        path = "/trade-api/v2/portfolio/balance"
        headers = headers_for(client.key, exchange.endpoints.key_id, "GET", path, skew_secs=skew_secs)
        async with client.session.get(exchange.endpoints.rest + "/portfolio/balance", headers=headers) as got:
            assert got.status == status
            if status == 401:
                assert (await got.json())["error"]["code"] == "header_timestamp_expired"

    run(scenario)


def test_market_data_needs_no_signature_and_the_account_does():
    """Markets are read unsigned; balance, orders and an order are not."""

    async def scenario(exchange, client):
        for path in ("/exchange/status", "/markets", f"/markets/{TICKER}/orderbook", "/events", "/series"):
            assert (await client.call("GET", path, signed=False)).status == 200
        for method, path in (
            ("GET", "/portfolio/balance"),
            ("GET", "/account/limits"),
            ("POST", "/portfolio/events/orders"),
            ("POST", "/markets"),
        ):
            assert (await client.call(method, path, {}, signed=False)).status == 401

    run(scenario)


# Orders.


def test_a_taker_fills_at_the_touch_and_pays_its_fee():
    """10 bought at 0.45 cost 4.50 and a fee of 0.18, told alike by answer, fills, order, position and books."""

    async def scenario(exchange, client):
        made = await client.order(price="0.4600", client_order_id="a")
        assert made.status == 201
        assert made.body["fill_count"] == "10.00"
        assert made.body["average_fill_price"] == "0.4500"
        fill = (await client.get("/portfolio/fills"))["fills"][0]
        assert (fill["yes_price_dollars"], fill["count_fp"], fill["fee_cost"]) == (
            "0.4500",
            "10.00",
            "0.180000",
        )
        assert "client_order_id" not in fill
        order = (await client.get(f"/portfolio/orders/{made.body['order_id']}"))["order"]
        assert (order["status"], order["taker_fees_dollars"]) == ("executed", "0.180000")
        assert order["taker_fill_cost_dollars"] == "4.500000"
        (position,) = (await client.get("/portfolio/positions"))["market_positions"]
        assert (position["position_fp"], position["market_exposure_dollars"]) == ("10.00", "4.500000")
        balance = await client.get("/portfolio/balance")
        assert balance["balance_dollars"] == "9995.3200"
        assert balance["portfolio_value"] == 400
        assert exchange.books().positions == {TICKER: 1_000}
        assert exchange.books().cash == 9_995_320_000

    run(scenario)


def test_fees_follow_the_rounding_and_its_rebates_over_one_order():
    """An order filled in three parts pays three rounded fees; the fold gives a whole cent back where it is due."""
    levels = [(5_500, 300), (5_400, 300), (5_300, 400)]

    async def scenario(exchange, client):
        await client.order(price="0.4700")
        fills = (await client.get("/portfolio/fills"))["fills"][::-1]
        assert [f["yes_price_dollars"] for f in fills] == ["0.4500", "0.4600", "0.4700"]
        # 0.0520 -> 0.06 with 0.0080 rounded; 0.0522 -> 0.06, together 0.0158 > one cent: 0.05; 0.0698 -> 0.07
        assert [f["fee_cost"] for f in fills] == ["0.060000", "0.050000", "0.070000"]
        assert exchange.books().orders[0].taker_fees == 180_000

    run(scenario, quiet_feed(events=[book(no=levels)]))


def test_an_account_of_finer_precision_pays_finer_fees():
    """With a balance kept to 0.0001, one contract at 0.52 costs 0.0175, as the venue's demo was seen to charge."""

    async def scenario(exchange, client):
        made = await client.order(price="0.9900", count="1.00")
        assert made.body["average_fee_paid"] == "0.0175"
        assert (await client.get("/portfolio/fills"))["fills"][0]["fee_cost"] == "0.017500"

    run(scenario, quiet_feed(events=[book(no=[(4_800, 1_000)])]), precision=BalancePrecision.CENTICENT)


def test_an_order_rests_is_listed_and_canceled_once():
    """A resting order reserves its cost until the cancel; a second cancel finds nothing."""

    async def scenario(exchange, client):
        made = (await client.order(price="0.3000", client_order_id="a")).body
        assert made["remaining_count"] == "10.00"
        assert (await client.get("/portfolio/balance"))["balance"] == 999_700
        (listed,) = (await client.get("/portfolio/orders?status=resting"))["orders"]
        assert (listed["order_id"], listed["client_order_id"]) == (made["order_id"], "a")
        path = f"/portfolio/events/orders/{made['order_id']}"
        canceled = await client.call("DELETE", path)
        assert (canceled.status, canceled.body["reduced_by"]) == (200, "10.00")
        again = await client.call("DELETE", path)
        assert (again.status, again.body["error"]["code"]) == (404, "not_found")
        assert (await client.get("/portfolio/balance"))["balance"] == 1_000_000
        order = (await client.get(f"/portfolio/orders/{made['order_id']}"))["order"]
        assert (order["status"], order["remaining_count_fp"]) == ("canceled", "0.00")

    run(scenario)


def test_the_older_path_trades_on_the_same_books():
    """An order of the older path is an order of the books, with its own answer shapes."""

    async def scenario(exchange, client):
        body = {"ticker": TICKER, "side": "no", "action": "buy", "count": 10, "no_price": 50}
        made = await client.call("POST", "/portfolio/orders", body)
        assert made.status == 201
        order = made.body["order"]
        assert (order["book_side"], order["yes_price"], order["side"]) == ("ask", 50, "no")
        gone = await client.call("DELETE", f"/portfolio/orders/{order['order_id']}")
        assert (gone.status, gone.body["reduced_by"], gone.body["order"]["status"]) == (200, 10, "canceled")

    run(scenario)


@pytest.mark.parametrize(
    ("changes", "status", "code", "details"),
    [
        ({"ticker": "KXNONE-1"}, 404, "market_not_found", ""),
        ({"price": "0.4550"}, 400, "invalid_price", ""),
        ({"price": "0.0000"}, 400, "invalid_price", ""),
        ({"price": "1.0000"}, 400, "invalid_price", ""),
        ({"price": "-0.4500"}, 400, "invalid_price", ""),
        ({"count": "0.00"}, 400, "invalid_order", "count must be positive"),
        ({"count": "-1.00"}, 400, "invalid_order", "count must be positive"),
        ({"count": "0.50"}, 400, "invalid_order", "step"),
        ({"count": "100000.00"}, 400, "insufficient_balance", ""),
        ({"post_only": True}, 400, "invalid_order", "post only cross"),
        ({"reduce_only": True}, 400, "invalid_order", "immediate"),
        (
            {"reduce_only": True, "time_in_force": "immediate_or_cancel"},
            400,
            "invalid_order",
            "reduce only would not reduce",
        ),
        ({"expiration_time": 1}, 400, "invalid_order", "past"),
        (
            {"count": "200.00", "time_in_force": "fill_or_kill"},
            409,
            "fill_or_kill_insufficient_resting_volume",
            "",
        ),
    ],
)
def test_what_makes_no_order_is_refused_in_the_venues_words(changes, status, code, details):
    """Every refusal has its code, and leaves neither an order nor a fill."""

    async def scenario(exchange, client):
        refused = await client.order(**changes)
        assert refused.status == status
        assert refused.body["error"]["code"] == code
        assert details in refused.body["error"].get("details", "")
        assert exchange.books().orders == ()
        assert exchange.books().fills == ()

    run(scenario)


def test_floats_and_broken_bodies_get_the_flat_error():
    """A JSON number for a price, no JSON at all, or a body without end is a bad request."""

    async def scenario(exchange, client):
        refused = await client.order(price=0.45)
        assert (refused.status, refused.body["code"]) == (400, "bad_request")
        nothing = await client.call("POST", "/portfolio/events/orders")
        assert (nothing.status, nothing.body["code"]) == (400, "bad_request")
        endless = await client.order(client_order_id="x" * 2_000_000)
        assert (endless.status, endless.body["code"]) == (413, "bad_request")

    run(scenario)


@pytest.mark.parametrize("status", [MarketStatus.CLOSED, MarketStatus.INACTIVE, MarketStatus.INITIALIZED])
def test_a_market_that_does_not_trade_refuses_orders(status):
    """Closed, paused and not yet opened markets each say so."""

    async def scenario(exchange, client):
        refused = await client.order()
        assert refused.status == 400
        word = "market_closed" if status is MarketStatus.CLOSED else "market_inactive"
        assert refused.body["error"]["code"] == word

    run(scenario, quiet_feed(events=[lifecycle(0, status)]))


def test_immediate_orders_leave_nothing_behind():
    """An IOC of 150 takes the 100 on offer and cancels the rest; a FOK of 100 takes all."""

    async def scenario(exchange, client):
        made = (await client.order(count="150.00", time_in_force="immediate_or_cancel")).body
        assert (made["fill_count"], made["remaining_count"]) == ("100.00", "0.00")
        assert exchange.books().open_orders == ()
        assert exchange.books().orders[0].canceled == 5_000
        made = (await client.order("ask", "0.4000", "100.00", time_in_force="fill_or_kill")).body
        assert made["fill_count"] == "100.00"
        assert exchange.books().positions == {}

    run(scenario)


def test_reduce_only_is_capped_by_the_position():
    """With 10 long, a reduce-only IOC sale of 25 sells 10."""

    async def scenario(exchange, client):
        await client.order()
        more = {"reduce_only": True, "time_in_force": "immediate_or_cancel"}
        made = (await client.order("ask", "0.4000", "25.00", **more)).body
        assert (made["fill_count"], made["remaining_count"]) == ("10.00", "0.00")
        assert exchange.books().positions == {}

    run(scenario)


@pytest.mark.parametrize(("kind", "left"), [("taker_at_cross", ["0.4200"]), ("maker", ["0.4200"])])
def test_an_account_never_trades_with_itself(kind, left):
    """Taker-at-cross cancels the arriving order and keeps the resting one; maker the other way round."""

    async def scenario(exchange, client):
        await client.order("ask", "0.4200")
        made = (await client.order("bid", "0.4200", self_trade_prevention_type=kind)).body
        assert made["fill_count"] == "0.00"
        resting = (await client.get("/portfolio/orders?status=resting"))["orders"]
        assert [o["yes_price_dollars"] for o in resting] == left
        assert resting[0]["book_side"] == ("ask" if kind == "taker_at_cross" else "bid")
        assert exchange.books().fills == ()

    run(scenario)


@pytest.mark.parametrize(
    ("dedup", "open_again", "closed_again"),
    [
        (DedupProfile.OPEN_ONLY, 409, 201),
        (DedupProfile.ALL, 409, 409),
        (DedupProfile.NONE, 201, 201),
    ],
)
@pytest.mark.contract("A16")
def test_a_repeated_client_order_id_is_refused_by_the_profile(dedup, open_again, closed_again):
    """Against open orders only, against every order ever accepted, or never; a refusal repeats nothing."""

    async def scenario(exchange, client):
        first = (await client.order(price="0.3000", client_order_id="a")).body
        again = await client.order(price="0.3000", client_order_id="a")
        assert again.status == open_again
        if open_again == 409:
            assert again.body["error"]["code"] == "order_already_exists"
        for order in exchange.books().open_orders:
            await client.call("DELETE", f"/portfolio/events/orders/{order.order_id}")
        assert (await client.order(price="0.3000", client_order_id="a")).status == closed_again
        assert first["order_id"] == exchange.books().orders[0].order_id

    run(scenario, dedup=dedup)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/portfolio/events/orders/o-1/amend", 404),
        ("POST", "/portfolio/events/orders/o-1/decrease", 404),
        ("POST", "/portfolio/events/orders/batched", 405),
        ("DELETE", "/portfolio/events/orders/batched", 404),
        ("DELETE", "/portfolio/events/orders", 405),
        ("GET", "/portfolio/order_groups", 404),
        ("GET", "/nothing", 404),
    ],
)
def test_what_is_not_here_is_answered_in_the_venues_shape(method, path, status):
    """Amend, decrease, batches, cancel-all and order groups answer 404 or 405 with an error object."""

    async def scenario(exchange, client):
        refused = await client.call(method, path, {})
        assert refused.status == status
        assert set(refused.body["error"]) >= {"code", "message"}

    run(scenario)


# Reads.


def test_lists_come_in_pages_newest_first():
    """Seven orders in pages of three are seven different orders, and an empty cursor ends the list."""

    async def scenario(exchange, client):
        for n in range(7):
            await client.order(price="0.1000", client_order_id=str(n))
        seen, cursor, pages = [], "", 0
        while True:
            page = await client.get(f"/portfolio/orders?limit=3&cursor={cursor}")
            seen += [order["client_order_id"] for order in page["orders"]]
            pages += 1
            await client.order(price="0.0500", client_order_id=f"later-{pages}")
            if not (cursor := page["cursor"]):
                break
        assert (seen, pages) == ([str(n) for n in reversed(range(7))], 3)

    run(scenario)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "min_ts=-1", "status=open", "limit=%C2%B2"]
)
def test_bad_queries_get_the_bare_error(query):
    """A limit, time or status that cannot be accepted is a 400 with `msg`."""

    async def scenario(exchange, client):
        refused = await client.call("GET", f"/portfolio/orders?{query}")
        assert refused.status == 400
        assert set(refused.body) == {"msg"}

    run(scenario)


def test_an_unreadable_cursor_is_ignored():
    """As at the venue, a garbage cursor lists from the beginning."""

    async def scenario(exchange, client):
        assert len((await client.get("/markets?cursor=%00garbage"))["markets"]) == 1

    run(scenario)


def test_markets_are_filtered_by_event_series_ticker_and_status():
    """Each filter of the list keeps what it names, and one market of two."""
    other = lifecycle(0, MarketStatus.CLOSED, ticker=OTHER)

    async def scenario(exchange, client):
        async def names(query):
            return [m["ticker"] for m in (await client.get(f"/markets?{query}"))["markets"]]

        assert await names("") == [TICKER, OTHER]
        assert await names("status=open") == [TICKER]
        assert await names("status=closed") == [OTHER]
        assert await names(f"tickers={OTHER}") == [OTHER]
        assert await names("event_ticker=KXTEST-26DEC31") == [TICKER, OTHER]
        assert await names("series_ticker=KXOTHER") == []
        assert await names("limit=1") == [TICKER]
        assert (await client.get(f"/markets/{OTHER}"))["market"]["status"] == "closed"
        event = await client.get("/events/KXTEST-26DEC31?with_nested_markets=true")
        assert len(event["event"]["markets"]) == 2
        assert (await client.call("GET", "/markets/KXNONE")).status == 404

    run(scenario, quiet_feed(TICKER, OTHER, events=[other]))


def test_public_trades_are_listed_ours_with_the_id_of_the_fill():
    """A recorded trade and ours are both public; ours carries the trade id of our fill."""

    async def scenario(exchange, client):
        await client.order()
        ours, recorded = (await client.get(f"/markets/trades?ticker={TICKER}"))["trades"]
        fill = (await client.get("/portfolio/fills"))["fills"][0]
        assert ours["trade_id"] == fill["trade_id"]
        assert (recorded["trade_id"], recorded["taker_side"]) == ("r-1", "no")

    run(scenario, quiet_feed(events=[printed(0, Side.NO, 4_000, 500, trade_id="r-1")]))


def test_the_smaller_reads_answer_truthfully():
    """Schedule, limits, costs, history and its cutoff say what this exchange does."""

    async def scenario(exchange, client):
        assert (await client.get("/account/limits"))["usage_tier"] == "basic"
        costs = await client.get("/account/endpoint_costs")
        assert costs["default_cost"] == 10
        assert (await client.get("/historical/orders"))["orders"] == []
        assert (await client.get("/historical/cutoff"))["orders_updated_ts"] == "2026-11-20T16:00:00.000Z"
        assert (await client.get("/exchange/schedule"))["schedule"]["maintenance_windows"] == []
        await client.order(price="0.3000")
        total = await client.get("/portfolio/summary/total_resting_order_value")
        assert total["total_resting_order_value"] == 300
        assert (await client.get("/series/KXTEST"))["series"]["fee_type"] == "quadratic"

    run(scenario, tier="basic")


def test_over_the_rate_the_answer_is_a_string_and_names_no_time():
    """At the basic tier the 11th create in a frozen moment is a 429 without Retry-After and without effect."""

    async def scenario(exchange, client):
        answers = [await client.order(price="0.1000", count="1.00") for _ in range(11)]
        assert [a.status for a in answers] == [201] * 10 + [429]
        assert answers[-1].body == {"error": "too many requests"}
        assert len(exchange.books().orders) == 10
        # Time is held, so market time governs and the bucket stays empty.
        path = f"/portfolio/events/orders/{answers[0].body['order_id']}"
        assert (await client.call("DELETE", path)).status == 429
        assert (await client.call("GET", "/portfolio/orders")).status == 200

    run(scenario, tier="basic")


def test_while_time_runs_free_the_rate_is_counted_by_the_wall_clock():
    """Ten creates a second of wall time at the basic tier, however fast the market's time runs."""

    class Wall(SystemClock):
        elapsed_ns = 0

        def monotonic_ns(self):
            return self.elapsed_ns

    wall = Wall()

    async def scenario(exchange, client):
        await exchange.over()
        answers = [(await client.order(price="0.1000", count="1.00")).status for _ in range(11)]
        assert answers == [201] * 10 + [429]
        wall.elapsed_ns = 100_000_000
        assert (await client.order(price="0.1000", count="1.00")).status == 201

    run(scenario, tier="basic", hold=False, speed=100_000, clock=wall)


def test_a_damaged_feed_ends_the_market_by_name():
    """A level that would become negative ends the run with the reason, and the exchange still closes."""

    async def scenario(exchange, client):
        with pytest.raises(BadInput, match="feed damaged"):
            await exchange.over()

    run(scenario, quiet_feed(events=[delta(1, Side.YES, 4_000, -99_999)]), hold=False, speed=100_000)


# The stream.


def test_subscriptions_answer_then_snapshot_then_deltas_with_seq():
    """`seq` counts from the snapshot on, over both markets, without a gap."""
    events = [
        delta(1, Side.YES, 4_000, 100),
        delta(1, Side.NO, 5_500, -100, ticker=OTHER),
        delta(1.2, Side.YES, 4_100, 300),
    ]

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("holdfast_clock", "orderbook_delta", market_tickers=[TICKER, OTHER])
        frames = await stream.follow(3)
        assert [f["type"] for f in frames] == ["orderbook_snapshot"] * 2 + ["orderbook_delta"] * 3
        assert [f["seq"] for f in frames] == [1, 2, 3, 4, 5]
        last = frames[-1]["msg"]
        assert (last["side"], last["price_dollars"], last["delta_fp"]) == ("yes", "0.4100", "3.00")
        assert last["ts_ms"] == at(1.2) // 1_000_000

    run(scenario, quiet_feed(TICKER, OTHER, events=events))


def test_a_fill_is_on_the_stream_before_its_order_is_answered():
    """Right after the answer of a create, fill, position, order and book stand in the queue, in that order."""

    async def scenario(exchange, client):
        stream = await client.stream()
        channels = ("fill", "user_orders", "market_positions", "trade", "ticker")
        await stream.subscribe(*channels)
        await stream.subscribe("orderbook_delta", market_ticker=TICKER)
        await stream.next()
        made = (await client.order(client_order_id="mine")).body
        frames = [await stream.next() for _ in range(6)]
        kinds = [f["type"] for f in frames]
        assert kinds[:3] == ["fill", "market_position", "user_order"]
        assert set(kinds[3:]) == {"orderbook_delta", "trade", "ticker"}
        fill = frames[0]["msg"]
        assert (fill["order_id"], fill["client_order_id"]) == (made["order_id"], "mine")
        assert (fill["post_position_fp"], fill["fee_cost"], fill["is_taker"]) == ("10.00", "0.180000", True)
        assert frames[2]["msg"]["status"] == "executed"
        moved = next(f for f in frames if f["type"] == "orderbook_delta")["msg"]
        assert (moved["client_order_id"], moved["delta_fp"]) == ("mine", "-10.00")
        assert "seq" not in frames[0]

    run(scenario)


def test_control_answers_carry_the_numbers_of_their_subscription():
    """Adding, removing and unsubscribing are numbered like data; added markets get their snapshot."""

    async def scenario(exchange, client):
        stream = await client.stream()
        (sid,) = await stream.subscribe("orderbook_delta", market_ticker=TICKER)
        assert (await stream.next())["seq"] == 1
        await stream.command("update_subscription", sid=sid, action="add_markets", market_tickers=[OTHER])
        added = await stream.next()
        assert (added["type"], added["sid"], added["seq"]) == ("ok", sid, 2)
        assert added["msg"]["market_tickers"] == [TICKER, OTHER]
        assert (await stream.next())["msg"]["market_ticker"] == OTHER
        asked = await stream.command(
            "update_subscription", sids=[sid], action="get_snapshot", market_tickers=[TICKER]
        )
        again = await stream.next()
        assert (again["type"], again["id"], again["seq"]) == ("orderbook_snapshot", asked, 4)
        await stream.command("update_subscription", sid=sid, action="delete_markets", market_tickers=[TICKER])
        assert (await stream.next())["msg"]["market_tickers"] == [OTHER]
        listed = await stream.command("list_subscriptions")
        assert await stream.next() == {
            "id": listed,
            "type": "ok",
            "msg": [{"channel": "orderbook_delta", "sid": sid}],
        }
        await stream.command("unsubscribe", sids=[sid])
        gone = await stream.next()
        assert (gone["type"], gone["sid"], gone["seq"]) == ("unsubscribed", sid, 6)

    run(scenario, quiet_feed(TICKER, OTHER))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("nonsense", 1),
        ({"id": 1}, 1),
        ({"id": 1, "cmd": "subscribe"}, 2),
        ({"id": 1, "cmd": "subscribe", "params": {}}, 3),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": ["x"]}}, 8),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": [["x"]]}}, 11),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"]}}, 14),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"], "market_tickers": ["X"]}}, 11),
        ({"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"], "market_ids": []}}, 11),
        ({"id": 1, "cmd": "unsubscribe", "params": {}}, 4),
        ({"id": 1, "cmd": "unsubscribe", "params": {"sids": [9]}}, 7),
        ({"id": 1, "cmd": "unsubscribe", "params": {"sids": [[]]}}, 11),
        ({"id": 1, "cmd": "update_subscription", "params": {}}, 12),
        ({"id": 1, "cmd": "update_subscription", "params": {"sids": [1, 2]}}, 12),
        ({"id": 1, "cmd": "update_subscription", "params": {"sid": 1}}, 15),
        ({"id": 1, "cmd": "update_subscription", "params": {"sid": 1, "action": "x"}}, 13),
        ({"id": 1, "cmd": "update_subscription", "params": {"sid": 1, "action": "add_markets"}}, 14),
        ({"id": 1, "cmd": "holdfast_quiescent", "params": {"n": 1}}, 7),
        ({"id": 1, "cmd": "dance"}, 5),
    ],
)
def test_bad_commands_get_the_venues_error_code(command, code):
    """Each kind of bad command has its number, and the connection goes on."""

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("trade")
        await stream.socket.send_str(command if isinstance(command, str) else json.dumps(command))
        answer = await stream.next()
        assert (answer["type"], answer["msg"]["code"]) == ("error", code)
        await stream.command("list_subscriptions")
        assert (await stream.next())["type"] == "ok"

    run(scenario)


def test_the_server_sends_heartbeats(monkeypatch):
    """A ping whose body is "heartbeat" comes without being asked for."""
    monkeypatch.setattr(ws, "HEARTBEAT_SECS", 0)

    async def scenario(exchange, client):
        headers = headers_for(client.key, exchange.endpoints.key_id, "GET", "/trade-api/ws/v2")
        async with client.session.ws_connect(
            exchange.endpoints.ws, headers=headers, autoping=False
        ) as socket:
            message = await socket.receive(timeout=20)
            assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PING, b"heartbeat")

    run(scenario)


def test_too_many_commands_get_error_27(monkeypatch):
    """The third command within a moment is refused where two are allowed; answers to ticks are not counted."""
    monkeypatch.setattr(ws, "WS_COMMANDS_PER_SEC", 2)

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("holdfast_clock")
        await stream.until("holdfast_tick")
        for _ in range(3):
            await stream.command("list_subscriptions")
        answers = [await stream.next() for _ in range(3)]
        assert [a["type"] for a in answers] == ["ok", "error", "error"]
        assert answers[1]["msg"]["code"] == 27
        await stream.quiescent(1)
        assert (await stream.next())["type"] == "holdfast_tick"

    run(scenario)


def test_a_reader_that_falls_behind_loses_its_subscriptions(monkeypatch):
    """Beyond the queue's limit every subscription ends in error 25, and the connection goes on."""
    monkeypatch.setattr(ws, "QUEUE_LIMIT", 3)

    async def scenario(exchange, client):
        stream = await client.stream()
        (sid,) = await stream.subscribe("user_orders")
        for n in range(5):
            exchange.engine.place(_bid(n))
        exchange._publish()
        overflow = await stream.next()
        assert (overflow["type"], overflow["sid"], overflow["msg"]["code"]) == ("error", sid, 25)
        await stream.command("list_subscriptions")
        assert (await stream.next())["msg"] == []

    run(scenario)


def _bid(n):
    return OrderRequest(
        ticker=TICKER,
        side=BookSide.BID,
        named=Side.YES,
        action=Action.BUY,
        yes_price=PriceE4(1_000 + 100 * n),
        qty=QtyE2(100),
    )


def test_a_market_that_closes_settles_and_pays():
    """Closed sends an empty snapshot and cancels what rests; determined and finalized pay 10 YES 10.00."""
    events = [
        lifecycle(1, MarketStatus.CLOSED),
        lifecycle(2, MarketStatus.DETERMINED, Side.YES),
        lifecycle(3, MarketStatus.FINALIZED, Side.YES),
    ]

    async def scenario(exchange, client):
        stream = await client.stream()
        channels = ("market_lifecycle_v2", "user_orders", "orderbook_delta", "holdfast_clock")
        await stream.subscribe(*channels, market_ticker=TICKER)
        await client.order()
        await client.order(price="0.2000")
        frames = await stream.follow(12)
        told = [f["msg"]["event_type"] for f in frames if f["type"] == "market_lifecycle_v2"]
        assert told == ["close_date_updated", "determined", "settled"]
        assert [f["msg"]["status"] for f in frames if f["type"] == "user_order"][-1] == "canceled"
        emptied = [f for f in frames if f["type"] == "orderbook_snapshot"][-1]
        assert set(emptied["msg"]) == {"market_ticker", "market_id"}
        (paid,) = (await client.get("/portfolio/settlements"))["settlements"]
        assert (paid["revenue"], paid["market_result"], paid["yes_count_fp"]) == (1_000, "yes", "10.00")
        assert (await client.get("/portfolio/positions"))["market_positions"] == []
        assert exchange.books().cash == 10_000_000_000 - 4_500_000 - 180_000 + 10_000_000
        assert (await client.get("/markets?status=settled"))["markets"][0]["result"] == "yes"

    run(scenario, quiet_feed(events=events))


def test_a_pause_cancels_the_orders_that_asked_for_it():
    """`cancel_order_on_pause` orders go when the market becomes inactive, others rest on."""

    async def scenario(exchange, client):
        await client.order(price="0.2000", cancel_order_on_pause=True)
        await client.order(price="0.2100")
        stream = await client.stream()
        await stream.subscribe("holdfast_clock")
        await stream.follow(4)
        assert [o.request.yes_price for o in exchange.books().open_orders] == [2_100]

    run(scenario, quiet_feed(events=[lifecycle(1, MarketStatus.INACTIVE)]))


def test_an_order_expires_at_its_market_time():
    """An order that expires two market seconds after the start is canceled then, untouched before."""

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("holdfast_clock", "user_orders")
        made = await client.order(price="0.2000", expiration_time=START_NS // 10**9 + 2)
        assert made.status == 201
        frames = await stream.follow(8)
        assert [f["msg"]["status"] for f in frames] == ["resting", "canceled"]
        assert frames[-1]["msg"]["last_updated_ts_ms"] <= at(2.5) // 1_000_000
        assert exchange.books().available == exchange.books().cash

    run(scenario, quiet_feed(events=[delta(n / 2, Side.YES, 100, 100) for n in range(1, 9)]))


@pytest.mark.parametrize("secs", [10**18, 253_402_300_800, -5, 1])
def test_an_expiration_that_is_no_coming_date_is_refused(secs):
    """An expiration in the past or beyond every date is 400 before it is booked, and orders can still be listed."""

    async def scenario(exchange, client):
        made = await client.order(price="0.2000", expiration_time=secs)
        assert (made.status, exchange.books().orders) == (400, ())
        assert (await client.order(price="0.2000", expiration_time=253_402_300_799)).status == 201
        (listed,) = (await client.get("/portfolio/orders"))["orders"]
        assert listed["expiration_time"] == "9999-12-31T23:59:59.000Z"

    run(scenario)


def test_a_resting_order_fills_by_a_later_print_and_pays_no_maker_fee():
    """A print through our price fills us at our price; a quadratic series charges makers nothing."""

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("holdfast_clock", "fill")
        await client.order(price="0.4100", count="5.00")
        frames = await stream.follow(4)
        (fill,) = [f["msg"] for f in frames]
        assert (fill["yes_price_dollars"], fill["is_taker"], fill["fee_cost"]) == (
            "0.4100",
            False,
            "0.000000",
        )

    run(scenario, quiet_feed(events=[printed(1, Side.NO, 4_000, 2_000, trade_id="p")]))


def test_makers_pay_where_the_series_says_so():
    """In a series with maker fees the same fill costs its quarter: 5 x 0.41 x 0.59 x 0.0175, rounded."""

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("holdfast_clock", "fill")
        await client.order(price="0.4100", count="5.00")
        (fill,) = [f["msg"] for f in await stream.follow(4)]
        assert fill["fee_cost"] == "0.030000"

    feed = quiet_feed(
        events=[printed(1, Side.NO, 4_000, 2_000, trade_id="p")], fee_type=FeeType.QUADRATIC_WITH_MAKER_FEES
    )
    run(scenario, feed)


def test_a_ticker_is_told_only_when_it_changed():
    """A change below the touch moves no ticker, a change of the touch does."""
    events = [delta(1, Side.YES, 3_900, 100), delta(2, Side.YES, 4_000, 100)]

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("ticker", "holdfast_clock")
        first, second = [f["msg"] for f in await stream.follow(4)]
        assert (first["yes_bid_size_fp"], second["yes_bid_size_fp"]) == ("100.00", "101.00")
        assert "seq" not in first

    run(scenario, quiet_feed(events=events))


# The barrier.


def test_market_time_waits_for_the_follower():
    """Nothing is released until the first tick is answered, and every frame of a tick's time precedes it."""
    events = [delta(0.4, Side.YES, 4_000, 100), delta(0.9, Side.YES, 4_000, 100)]

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("orderbook_delta", "holdfast_clock", market_ticker=TICKER)
        tick, before = await stream.until("holdfast_tick")
        assert tick["msg"] == {"n": 1, "ts_ns": START_NS}
        assert [f["type"] for f in before] == ["orderbook_snapshot"]
        for _ in range(5):
            await client.get("/exchange/status")
        assert exchange.engine.now_ns == START_NS
        await stream.quiescent(1)
        tick, before = await stream.until("holdfast_tick")
        assert tick["msg"] == {"n": 2, "ts_ns": at(0.5)}
        assert [f["seq"] for f in before] == [2]
        await stream.quiescent(2)
        tick, before = await stream.until("holdfast_tick")
        assert (tick["msg"], len(before)) == ({"n": 3, "ts_ns": at(1)}, 1)

    run(scenario, quiet_feed(events=events), speed=None)


def test_held_time_stands_still_when_its_follower_goes():
    """After the only follower closed, nothing is released until another one follows and is done."""
    events = [delta(n, Side.YES, 4_000, 100) for n in range(1, 9)]

    async def scenario(exchange, client):
        first = await client.stream()
        await first.subscribe("holdfast_clock")
        await first.follow(2)
        tick, _ = await first.until("holdfast_tick")
        await first.socket.close()
        second = await client.stream()
        await second.subscribe("holdfast_clock")
        again, _ = await second.until("holdfast_tick")
        assert again["msg"] == {"n": 1, "ts_ns": tick["msg"]["ts_ns"]}
        await second.quiescent(1)
        later, _ = await second.until("holdfast_tick")
        assert later["msg"]["ts_ns"] > tick["msg"]["ts_ns"]

    run(scenario, quiet_feed(events=events), speed=None)


def test_time_waits_for_every_follower():
    """With two followers the slower one sets the pace."""

    async def scenario(exchange, client):
        quick, slow = await client.stream(), await client.stream()
        for stream in (quick, slow):
            await stream.subscribe("holdfast_clock")
            await stream.until("holdfast_tick")
        await quick.quiescent(1)
        await quick.command("list_subscriptions")
        assert (await quick.next())["type"] == "ok"
        assert exchange.engine.now_ns == START_NS
        await slow.quiescent(1)
        assert (await slow.next())["msg"]["ts_ns"] == at(1)

    run(scenario, quiet_feed(events=[delta(3, Side.YES, 4_000, 100)]), speed=None)


def test_a_follower_that_was_told_something_is_asked_again():
    """A fill after the tick makes the next tick repeat its time under the next number; an old answer moves nothing."""

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("fill", "holdfast_clock")
        await stream.until("holdfast_tick")
        await client.order()
        await stream.quiescent(1)
        tick, before = await stream.until("holdfast_tick")
        assert [f["type"] for f in before] == ["fill"]
        assert tick["msg"] == {"n": 2, "ts_ns": START_NS}
        await stream.quiescent(1)
        await client.get("/exchange/status")
        assert exchange.engine.now_ns == START_NS
        await stream.quiescent(2)
        tick, _ = await stream.until("holdfast_tick")
        assert tick["msg"]["ts_ns"] == at(1)

    run(scenario, speed=None, feed=quiet_feed(events=[delta(3, Side.YES, 4_000, 100)]))


def test_ticks_come_every_market_second_and_the_last_says_so():
    """Three silent seconds bring three ticks; the end of the feed brings the final one."""
    feed = quiet_feed()
    feed.events = [*feed.events[:1], delta(3, Side.YES, 4_000, 100)]

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("holdfast_clock")
        ticks = []
        while not ticks or not ticks[-1].get("final"):
            tick, _ = await stream.until("holdfast_tick")
            ticks.append(tick["msg"])
            await stream.quiescent(tick["msg"]["n"])
        assert [t["ts_ns"] for t in ticks] == [at(0), at(1), at(2), at(3)]
        await exchange.over()
        assert (await client.call("GET", "/portfolio/balance")).status == 200

    run(scenario, feed, speed=None)


def test_seconds_end_the_market_at_the_same_market_time():
    """Half a wall second at forty times is twenty market seconds, whatever the machine's load."""

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("holdfast_clock")
        while True:
            tick, _ = await stream.until("holdfast_tick")
            if tick["msg"].get("final"):
                return tick["msg"]["ts_ns"]
            await stream.quiescent(tick["msg"]["n"])

    events = [delta(n, Side.YES, 4_000, 100) for n in range(1, 60)]
    assert run(scenario, quiet_feed(events=events), speed=40, seconds=0.5) == at(20)


def test_without_followers_a_free_market_runs_by_itself():
    """An exchange that does not hold reaches the end of its feed with nobody connected."""

    async def scenario(exchange, client):
        await exchange.over()
        assert exchange.engine.now_ns == at(3_600)

    run(scenario, hold=False, speed=100_000)


def test_equal_seeds_and_requests_give_equal_runs():
    """Two runs with the same seed, faults and requests are the same to the byte; another seed differs in its ids."""
    events = [
        event
        for n in range(1, 30)
        for event in (
            delta(n / 3, Side.YES, 4_000, 100 * (1 if n % 2 else -1)),
            printed(n / 3, Side.NO, 4_000, 200, trade_id=f"p{n}"),
        )
    ]

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe(
            "orderbook_delta", "fill", "user_orders", "holdfast_clock", market_ticker=TICKER
        )
        seen = []
        for n in range(12):
            tick, before = await stream.until("holdfast_tick")
            seen += [*before, tick]
            order = client.order(price="0.4100", count=f"{n + 1}.00", client_order_id=f"c{n}")
            for call in (order, client.call("GET", "/portfolio/orders")):
                try:
                    seen.append(await call)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    seen.append("dropped")
            await stream.quiescent(tick["msg"]["n"])
        return seen

    rates = {Fault.DROP: 200_000, Fault.ERROR_AFTER: 100_000, Fault.GAP: 50_000, Fault.DUP: 300_000}

    def once(seed):
        return run(scenario, quiet_feed(events=events), seed=seed, speed=None, faults=rates)

    first = once(3)
    assert "dropped" in first
    assert first == once(3)
    assert first != once(4)


# Faults.


@pytest.mark.parametrize(
    ("fault", "status", "executed"),
    [(Fault.ERROR_BEFORE, 500, False), (Fault.TOO_MANY, 429, False), (Fault.ERROR_AFTER, 500, True)],
)
def test_faults_that_answer_say_nothing_about_the_effect(fault, status, executed):
    """A 500 before has no effect, a 500 after has; only the books tell."""

    async def scenario(exchange, client):
        made = await client.order(price="0.3000", client_order_id="a")
        assert made.status == status
        assert len(exchange.books().orders) == executed
        assert (await client.order(price="0.3000", client_order_id="b")).status == 201

    run(scenario, script=FaultScript([ScriptedFault(fault=fault, classes=(RequestClass.CREATE,))]))


@pytest.mark.contract("A16")
def test_a_dropped_order_is_in_the_books():
    """The connection closes without an answer and the order rests, to be found by its client order id."""

    async def scenario(exchange, client):
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await client.order(price="0.3000", client_order_id="lost")
        (found,) = (await client.get("/portfolio/orders"))["orders"]
        assert (found["client_order_id"], found["status"]) == ("lost", "resting")

    run(scenario, script=FaultScript([ScriptedFault(fault=Fault.DROP, classes=(RequestClass.CREATE,))]))


def test_a_hanging_request_is_carried_out_and_never_answered():
    """The order is in the books while its caller still waits; stopping the exchange frees the connection."""

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("user_orders")
        waiting = asyncio.create_task(client.order(price="0.3000"))
        assert (await stream.next())["msg"]["status"] == "resting"
        assert (await client.call("GET", "/portfolio/balance")).status == 200
        assert not waiting.done()
        await exchange.stop()
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await waiting

    run(scenario, script=FaultScript([ScriptedFault(fault=Fault.HANG, classes=(RequestClass.CREATE,))]))


def test_a_garbled_answer_is_a_success_nobody_can_read():
    """The order stands, the status is 201, and the body is no JSON."""

    async def scenario(exchange, client):
        with pytest.raises(json.JSONDecodeError):
            await client.order(price="0.3000")
        assert len(exchange.books().open_orders) == 1

    run(scenario, script=FaultScript([ScriptedFault(fault=Fault.GARBAGE, classes=(RequestClass.CREATE,))]))


def test_a_gap_skips_a_number_and_a_duplicate_repeats_a_fill():
    """With one frame lost `seq` jumps by two; the doubled fill has one trade id."""
    events = [delta(n, Side.YES, 4_000, 100) for n in (1, 2, 3)]
    script = FaultScript([ScriptedFault(fault=Fault.GAP, at_ns=at(2)), ScriptedFault(fault=Fault.DUP)])

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("orderbook_delta", "fill", "holdfast_clock", market_ticker=TICKER)
        await client.order(price="0.4500", count="1.00")
        frames = await stream.follow(5)
        assert [f["seq"] for f in frames if "seq" in f] == [1, 2, 3, 5]
        first, second = [f["msg"] for f in frames if f["type"] == "fill"]
        assert first == second
        assert len(exchange.books().fills) == 1

    run(scenario, quiet_feed(events=events), script=script)


@pytest.mark.contract("A14")
def test_faults_can_be_asked_for_over_http():
    """With control on, five reads of /markets fail and the sixth does not; without it there is no such path."""

    async def scenario(exchange, client):
        body = {"fault": "5xx_before", "requests": "reads", "path": "/markets", "count": 5}
        assert (await client.call("POST", "/holdfast/faults", body, signed=False)).status == 201
        answers = [(await client.call("GET", "/markets")).status for _ in range(6)]
        assert answers == [500] * 5 + [200]
        refused = await client.call("POST", "/holdfast/faults", {"fault": "x"}, signed=False)
        assert refused.status == 400

    run(scenario, control=True)

    async def without(exchange, client):
        assert (await client.call("POST", "/holdfast/faults", {}, signed=False)).status == 404

    run(without)


# Life.


def test_a_taken_port_is_named():
    """A second exchange on the same port does not start and says which port."""

    async def scenario(exchange, client):
        port = int(exchange.endpoints.rest.split(":")[2].split("/")[0])
        second = PaperExchange(quiet_feed(), key=shared_key())
        with pytest.raises(PortTaken, match=f"port {port}"):
            await second.start(port)
        await second.stop()

    run(scenario)


@pytest.mark.parametrize(
    "options", [{"speed": 0}, {"seconds": -1}, {"tier": "gold"}, {"cash": MoneyE6(1), "speed": -2}]
)
def test_settings_that_make_no_sense_are_refused(options):
    """A speed or time that is not positive, or an unknown tier, is bad input."""
    with pytest.raises(BadInput):
        PaperExchange(quiet_feed(), key=shared_key(), **options)


def test_only_loopback_is_served():
    """An address that others could reach is refused."""
    exchange = PaperExchange(quiet_feed(), key=shared_key())
    with pytest.raises(BadInput, match="loopback"):
        asyncio.run(exchange.start(host="0.0.0.0"))  # noqa: S104  refused, never bound


def test_prints_alone_make_a_market_too():
    """On a print tape the book shows what the last print proves, and an IOC takes it."""

    async def scenario(exchange, client):
        made = await client.order(price="0.4200", count="5.00", time_in_force="immediate_or_cancel")
        assert made.body["fill_count"] == "5.00"

    feed = quiet_feed(events=[printed(0, Side.YES, 4_200, 1_000, trade_id="p")])
    feed.kind = FeedKind.PRINTS
    feed.events = feed.events[1:]
    run(scenario, feed)


@pytest.mark.data
@pytest.mark.slow
def test_a_recorded_game_arrives_without_gap_and_rebuilds_the_book():
    """Ten minutes of a recorded game at full speed: every `seq` follows, no level is negative, REST shows the same."""
    folder = require("kalshi", "l2-nba-unlicensed")
    file = min(folder.rglob("*.parquet"))
    whole = open_feed(file)
    start_ns = whole.start_ns + 9_000 * 10**9
    feed = open_feed(file, start=start_ns, end=start_ns + 600 * 10**9)
    ticker = feed.markets[0].ticker

    async def scenario(exchange, client):
        stream = await client.stream()
        await stream.subscribe("orderbook_delta", "holdfast_clock", market_ticker=ticker)
        levels: dict[tuple[str, str], int] = {}
        expected, deltas = 1, 0
        while True:
            frame = await stream.next()
            message = frame["msg"]
            if frame["type"] == "holdfast_tick":
                if message.get("final"):
                    break
                await stream.quiescent(message["n"])
                continue
            assert frame["seq"] == expected
            expected += 1
            if frame["type"] == "orderbook_snapshot":
                levels = {
                    (side, price): parse_qty(count)
                    for side in ("yes", "no")
                    for price, count in message.get(f"{side}_dollars_fp", ())
                }
                continue
            deltas += 1
            place = (message["side"], message["price_dollars"])
            levels[place] = levels.get(place, 0) + parse_qty(message["delta_fp"])
            assert levels[place] >= 0
        fixed = (await client.get(f"/markets/{ticker}/orderbook"))["orderbook_fp"]
        shown = {
            (side, price): parse_qty(count)
            for side in ("yes", "no")
            for price, count in fixed[f"{side}_dollars"]
        }
        assert {place: qty for place, qty in levels.items() if qty} == shown
        assert deltas > 1_000

    run(scenario, feed, speed=None)


# The command.


@pytest.mark.slow
def test_the_command_prints_one_line_and_ends_with_its_parents_stdin(tmp_path):
    """`holdfast exchange --json` says where it listens and with which key, and stops when stdin closes."""
    with as_process("--seed", "3", "--dir", str(tmp_path), "--hold") as child:
        assert child.endpoints.pem_path.parent == tmp_path

        async def look():
            async with aiohttp.ClientSession() as session:
                path = "/trade-api/v2/portfolio/balance"
                key = load_key(child.endpoints.pem_path)
                headers = headers_for(key, child.endpoints.key_id, "GET", path)
                async with session.get(child.endpoints.rest + "/portfolio/balance", headers=headers) as got:
                    return got.status

        assert asyncio.run(look()) == 200
        process = child.process
    assert process.returncode == 0
    assert list(Path(tmp_path).glob("*.pem"))


@pytest.mark.slow
def test_the_command_ends_by_its_time_and_by_ctrl_c():
    """`--seconds` ends it with exit code 0, and so does an interrupt."""
    words = [sys.executable, "-m", "holdfast.cli.main", "exchange"]
    timed = subprocess.run(
        [*words, "--seconds", "0.2"], check=False, capture_output=True, text=True, timeout=60
    )
    assert timed.returncode == 0
    assert "KALSHI_BASE_URL=http://127.0.0.1:" in timed.stdout
    with as_process("--hold") as child:
        child.process.send_signal(signal.SIGINT)
        assert child.process.wait(20) == 0
        assert not child.endpoints.pem_path.exists()


@pytest.mark.slow
def test_the_command_names_a_missing_tape_and_a_taken_port():
    """Exit code 1 and a message that names the path, or the port."""
    words = [sys.executable, "-m", "holdfast.cli.main", "exchange"]
    missing = subprocess.run(
        [*words, "--tape", "/nowhere/x.parquet"], check=False, capture_output=True, text=True, timeout=60
    )
    assert missing.returncode == 1
    assert "/nowhere/x.parquet" in missing.stderr
    with as_process("--hold") as child:
        port = child.endpoints.rest.split(":")[2].split("/")[0]
        taken = subprocess.run(
            [*words, "--port", port], check=False, capture_output=True, text=True, timeout=60
        )
    assert taken.returncode == 1
    assert f"port {port}" in taken.stderr


def test_a_client_that_leaves_during_the_handshake_leaves_no_traceback(monkeypatch, caplog):
    """A bot that opens the stream and is gone before the answer is no error of the exchange: nothing is logged."""

    async def gone(_socket, _request):
        raise ConnectionResetError("Cannot write to closing transport")

    async def scenario(exchange, client):
        headers = headers_for(client.key, exchange.endpoints.key_id, "GET", "/trade-api/ws/v2")
        monkeypatch.setattr("holdfast.venues.paper.exchange.web.WebSocketResponse.prepare", gone)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.session.ws_connect(exchange.endpoints.ws, headers=headers)

    run(scenario)
    assert not caplog.records
