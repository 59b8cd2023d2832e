"""The exchange's wire: both order bodies, both generations of answers, and the words of its errors."""

import json

import pytest
from support.exchange import TICKER, at, book, spec

from holdfast.core.clock import NANOS
from holdfast.core.fees import KalshiFees, OrderFees
from holdfast.core.instruments import PriceRange
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.signals import Action, BookSide, Side, TimeInForce
from holdfast.venues.paper import wire
from holdfast.venues.paper.accounts import OrderRequest, OrderRow
from holdfast.venues.paper.engine import Market, Refusal
from holdfast.venues.paper.events import FeedKind, MarketStatus
from holdfast.venues.paper.matching import SelfTrade, StatusChange

V2 = {
    "ticker": TICKER,
    "side": "ask",
    "count": "10.50",
    "price": "0.5600",
    "time_in_force": "immediate_or_cancel",
    "self_trade_prevention_type": "maker",
}
LEGACY = {"ticker": TICKER, "side": "no", "action": "buy", "count": 10, "no_price": 44}


def v2(**changes):
    body = {k: v for k, v in (V2 | changes).items() if v is not ...}
    return wire.read_order_v2(json.dumps(body).encode())


def legacy(**changes):
    body = {k: v for k, v in (LEGACY | changes).items() if v is not ...}
    return wire.read_order_legacy(json.dumps(body).encode())


def test_a_v2_ask_sells_yes():
    """Side, price, count and the rest of a V2 body arrive as integers of the YES leg."""
    assert v2(client_order_id="a", reduce_only=True, expiration_time=3) == OrderRequest(
        ticker=TICKER,
        side=BookSide.ASK,
        named=Side.YES,
        action=Action.SELL,
        yes_price=PriceE4(5_600),
        qty=QtyE2(1_050),
        client_order_id="a",
        tif=TimeInForce.IOC,
        reduce_only=True,
        self_trade=SelfTrade.MAKER,
        self_trade_named=True,
        expiration_ns=3 * NANOS,
    )


@pytest.mark.parametrize(
    ("side", "action", "book_side", "price_field", "yes_price"),
    [
        ("yes", "buy", "bid", {"yes_price": 40}, 4_000),
        ("yes", "sell", "ask", {"yes_price_dollars": "0.4050"}, 4_050),
        ("no", "buy", "ask", {"no_price": 40}, 6_000),
        ("no", "sell", "bid", {"no_price_dollars": "0.4000"}, 6_000),
    ],
)
def test_the_older_body_is_normalised_to_yes(side, action, book_side, price_field, yes_price):
    """Buying NO at q is an ask at 1 - q, whichever of the four price fields carries it."""
    read = legacy(**({"side": side, "action": action, "no_price": ...} | price_field))
    assert (read.side.value, read.yes_price, read.named.value) == (book_side, yes_price, side)
    assert read.tif is TimeInForce.GTC


def test_buy_max_cost_makes_an_order_fill_or_kill():
    """An older order with buy_max_cost takes all or nothing, within that many cents."""
    read = legacy(buy_max_cost=440)
    assert (read.tif, read.max_cost) == (TimeInForce.FOK, 4_400_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 10},
        {"price": 0.56},
        {"side": "buy"},
        {"time_in_force": "day"},
        {"count": ...},
        {"self_trade_prevention_type": ...},
    ],
)
def test_a_v2_body_that_cannot_be_decoded_gets_the_flat_error(changes):
    """Numbers where strings belong, unknown words and missing fields are answered as the venue's decoder does."""
    assert v2(**changes)["code"] == "bad_request"


@pytest.mark.parametrize(
    ("read", "code", "details"),
    [
        (lambda: v2(price="0.56001"), "invalid_price", ""),
        (lambda: v2(price="1e-1"), "invalid_price", ""),
        (lambda: v2(count="1.001"), "invalid_order", "decimal places"),
        (lambda: v2(subaccount=3), "invalid_order", "subaccount 3"),
        (lambda: v2(order_group_id="g"), "not_found", "order groups"),
        (lambda: legacy(yes_price=40), "invalid_order", "exactly one of"),
        (lambda: legacy(no_price=...), "invalid_order", "exactly one of"),
        (lambda: legacy(no_price=..., no_price_dollars="x"), "invalid_price", ""),
        (lambda: legacy(count=...), "invalid_order", "count is required"),
    ],
)
def test_bodies_that_make_no_order_are_refused_by_name(read, code, details):
    """Each unreadable price, count or feature has its own code."""
    refusal = read()
    assert isinstance(refusal, Refusal)
    assert refusal.code == code
    assert details in refusal.details


def test_errors_have_the_shapes_the_venue_was_seen_to_use():
    """Nested for orders, flat for bodies, bare for queries, and a string for 429."""
    assert wire.error_body(Refusal(status=400, code="insufficient_balance")) == {
        "error": {
            "code": "insufficient_balance",
            "message": "insufficient balance",
            "service": "exchange",
        }
    }
    assert wire.error_body(
        Refusal(status=400, code="invalid_order", details="post only cross", service="")
    ) == {"error": {"code": "invalid_order", "message": "invalid order", "details": "post only cross"}}
    assert set(wire.bad_request("x")) == {"code", "message", "details"}
    assert set(wire.bad_parameter("x")) == {"msg"}
    assert wire.TOO_MANY_REQUESTS == {"error": "too many requests"}


def row(**changes):
    request = OrderRequest(
        ticker=TICKER,
        side=BookSide.BID,
        named=Side.YES,
        action=Action.BUY,
        yes_price=PriceE4(5_650),
        qty=QtyE2(1_000),
        client_order_id="c",
    )
    made = OrderRow(1, "o", request, OrderFees(KalshiFees()), at(0))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_creation_tells_averages_only_once_something_filled():
    """Without a fill there is no average price; with one it is the mean to 1/10,000, the fee per contract too."""
    assert "average_fill_price" not in wire.created_v2(row(), at(1))
    filled = row(
        filled=QtyE2(300), leaves=QtyE2(700), yes_notional=300 * 5_600 + 1, taker_fees=MoneyE6(60_000)
    )
    answer = wire.created_v2(filled, at(1))
    assert answer["average_fill_price"] == "0.5600"
    assert answer["average_fee_paid"] == "0.0200"
    assert answer["ts_ms"] == at(1) // 1_000_000


def test_an_order_carries_both_generations_of_fields():
    """Fixed-point strings are exact; the older integers beside them are cut."""
    answer = wire.order_json(row(), "u")
    assert (answer["yes_price_dollars"], answer["no_price_dollars"]) == ("0.5650", "0.4350")
    assert (answer["yes_price"], answer["remaining_count"], answer["remaining_count_fp"]) == (56, 10, "10.00")
    assert (answer["book_side"], answer["outcome_side"], answer["status"]) == ("bid", "yes", "resting")


def test_money_is_written_with_six_places_of_either_sign():
    """17,500 micro-dollars are "0.017500"; cents are cut towards zero."""
    assert wire.money(17_500) == "0.017500"
    assert wire.money(-1_500_000) == "-1.500000"
    assert wire.balance_json(MoneyE6(98_018_600), MoneyE6(0), at(0))["balance"] == 9_801
    assert wire.balance_json(MoneyE6(98_018_600), MoneyE6(0), at(0))["balance_dollars"] == "98.0186"


def market(**changes):
    made = Market(spec(**changes), FeedKind.DEPTH)
    made.book.apply(book())
    return made


def test_the_book_lists_worst_first_and_depth_keeps_the_best():
    """Depth 1 is the touch of both sides, with strings inside the older pairs too."""
    fixed = wire.orderbook_json(market(), 0)["orderbook_fp"]
    assert fixed["yes_dollars"] == [["0.3900", "200.00"], ["0.4000", "100.00"]]
    touch = wire.orderbook_json(market(), 1)
    assert touch["orderbook_fp"] == {
        "yes_dollars": [["0.4000", "100.00"]],
        "no_dollars": [["0.5500", "100.00"]],
    }
    assert touch["orderbook"]["yes"] == [[40, 100]]


def test_a_snapshot_leaves_out_an_empty_side():
    """A closed market's snapshot names neither side."""
    made = market()
    made.book.apply(book(no=(), secs=1))
    assert "no_dollars_fp" not in wire.snapshot_msg(made, "id")
    assert wire.snapshot_msg(made, "id")["yes_dollars_fp"][0] == ["0.3900", "200.00"]


def test_a_market_tells_its_touch_grid_and_state():
    """Both outcomes' prices, the tick grid by the venue's name, and what an empty side looks like."""
    shown = wire.market_json(market(), QtyE2(0))
    assert (shown["yes_bid_dollars"], shown["yes_ask_dollars"]) == ("0.4000", "0.4500")
    assert (shown["no_bid"], shown["no_ask"], shown["yes_ask_size_fp"]) == (55, 60, "100.00")
    assert (shown["status"], shown["price_level_structure"]) == ("active", "linear_cent")
    made = market()
    made.book.apply(book(yes=(), no=(), secs=1))
    empty = wire.market_json(made, QtyE2(0))
    assert (empty["yes_bid_dollars"], empty["yes_ask_dollars"]) == ("0.0000", "1.0000")


def test_sub_cent_grids_have_their_names():
    """A tenth of a cent throughout is deci_cent, only at the edges tapered_deci_cent."""
    deci = (PriceRange(PriceE4(0), PriceE4(10_000), PriceE4(10)),)
    tapered = tuple(
        PriceRange(PriceE4(a), PriceE4(b), PriceE4(step))
        for a, b, step in ((0, 1_000, 10), (1_000, 9_000, 100), (9_000, 10_000, 10))
    )
    assert wire.price_level_structure(spec(price_ranges=deci)) == "deci_cent"
    assert wire.price_level_structure(spec(price_ranges=tapered)) == "tapered_deci_cent"


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (MarketStatus.INITIALIZED, "created"),
        (MarketStatus.ACTIVE, "activated"),
        (MarketStatus.INACTIVE, "deactivated"),
        (MarketStatus.CLOSED, "close_date_updated"),
        (MarketStatus.DETERMINED, "determined"),
        (MarketStatus.FINALIZED, "settled"),
    ],
)
def test_every_market_state_has_its_lifecycle_event(status, word):
    """Each state a market can enter is told in the venue's word for it."""
    told = wire.lifecycle_msg(StatusChange(TICKER, status, Side.YES, at(1)), market())
    assert told["event_type"] == word
    if word == "determined":
        assert (told["result"], told["settlement_value"]) == ("yes", "1.0000")
