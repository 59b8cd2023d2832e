"""Answers and messages, read into values."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import VenueAnswerUnknown
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import BookSide
from holdfast.venues.kalshi import wire

ORDER = {
    "order_id": "o-1",
    "client_order_id": "hf-1",
    "ticker": "KXA-1",
    "status": "resting",
    "book_side": "ask",
    "yes_price_dollars": "0.4500",
    "fill_count_fp": "3.00",
    "remaining_count_fp": "7.00",
    "initial_count_fp": "10.00",
    "created_time": "2026-11-20T10:00:00.5Z",
}
FILL = {
    "trade_id": "t-1",
    "order_id": "o-1",
    "ticker": "KXA-1",
    "count_fp": "3.00",
    "yes_price_dollars": "0.4500",
    "fee_cost": "0.0100",
    "is_taker": True,
    "side": "no",
    "action": "buy",
    "created_time": "2026-11-20T10:00:00Z",
}
MARKET = {
    "ticker": "KXA-1",
    "event_ticker": "KXA",
    "status": "active",
    "price_ranges": [{"start": "0.0100", "end": "0.9900", "step": "0.0100"}],
    "yes_bid_dollars": "0.4000",
    "yes_ask_dollars": "1.0000",
}


def body(value: object) -> bytes:
    return msgspec.json.encode(value)


def test_an_order_is_read_whole():
    """An order's side, price, counts, status and time are read from the fixed-point fields."""
    order = wire.parse_order(body({"order": ORDER | {"unknown": 1}}))
    assert (order.side, order.yes_price, order.status) == (BookSide.ASK, 4500, OrderStatus.WORKING)
    assert (order.filled, order.leaves, order.initial) == (300, 700, 1000)
    assert order.created_ns == 1_795_168_800_500_000_000


def test_an_order_the_venue_expired_is_told_from_a_canceled_one():
    """A canceled order whose last update was its expiry is EXPIRED."""
    expired = ORDER | {"status": "canceled", "last_update_reason": "ExpiryCancel"}
    assert wire.parse_order(body({"order": expired})).status is OrderStatus.EXPIRED


@pytest.mark.parametrize(
    ("fields", "side"),
    [
        ({"book_side": "bid", "side": "no", "action": "buy"}, BookSide.BID),
        ({"outcome_side": "no"}, BookSide.ASK),
        ({"side": "yes", "action": "buy"}, BookSide.BID),
        ({"side": "yes", "action": "sell"}, BookSide.ASK),
        ({"side": "no", "action": "buy"}, BookSide.ASK),
        ({"side": "no", "action": "sell"}, BookSide.BID),
    ],
)
def test_todays_fields_decide_the_side_before_the_older_ones(fields: dict[str, str], side: BookSide):
    """book_side wins over outcome_side, and that over the older pair of side and action."""
    bare = {name: value for name, value in FILL.items() if name not in {"side", "action"}}
    assert wire.parse_fills(body({"fills": [bare | fields]})).items[0].side is side


LEGACY = [
    (wire.parse_balance, {"balance": 1250, "portfolio_value": 1}),
    (wire.parse_positions, {"market_positions": [{"ticker": "A", "position": 3}]}),
    (wire.parse_fills, {"fills": [{**FILL, "count_fp": None, "count": 3}]}),
    (wire.parse_orders, {"orders": [{**ORDER, "yes_price_dollars": None, "yes_price": 45}]}),
    (wire.parse_trades, {"trades": [{"trade_id": "t", "ticker": "A", "yes_price": 45, "count": 3}]}),
    (lambda data: wire.parse_book(data, "A", 0), {"orderbook": {"yes": [[45, 3]], "no": []}}),
]


@pytest.mark.parametrize(("parse", "answer"), LEGACY)
def test_the_older_integer_fields_are_never_read(parse, answer):
    """An answer with only integer cents and counts is unknown, not guessed at."""
    with pytest.raises(VenueAnswerUnknown):
        parse(body(answer))


CORRUPT = [
    {"status": "weird"},
    {"book_side": "both"},
    {"yes_price_dollars": "1.5"},
    {"yes_price_dollars": "0.45001"},
    {"fill_count_fp": "-1"},
    {"remaining_count_fp": "NaN"},
    {"order_id": ""},
    {"order_id": None},
    {"created_time": "yesterday"},
]


@pytest.mark.parametrize("change", CORRUPT)
def test_an_order_with_one_impossible_field_is_unknown(change: dict[str, object]):
    """One field that cannot be makes the whole order unknown."""
    with pytest.raises(VenueAnswerUnknown):
        wire.parse_order(body({"order": ORDER | change}))


def test_an_answer_with_an_error_beside_it_is_unknown():
    """An answer that carries an error is no answer, however complete the rest is."""
    with pytest.raises(VenueAnswerUnknown, match="deprecated"):
        wire.parse_created(
            body(
                {"order_id": "o", "fill_count": "0", "remaining_count": "1", "error": {"code": "deprecated"}}
            ),
            "hf-1",
        )


def test_a_market_without_an_ask_has_none():
    """The venue writes an empty side as 0 or 1 dollar; it is read as None."""
    market = wire.parse_market(body({"market": MARKET}))
    assert (market.yes_bid, market.yes_ask) == (4000, None)
    assert market["ticker"] == "KXA-1"
    with pytest.raises(KeyError):
        market["no_such_field"]


def test_a_book_is_put_on_the_yes_leg():
    """NO bids become YES asks at the complement, best first; a level of nothing is left out."""
    answer = {
        "orderbook_fp": {
            "yes_dollars": [["0.1500", "100.00"], ["0.2000", "5.50"]],
            "no_dollars": [["0.7000", "1.00"], ["0.7500", "2.00"], ["0.1000", "0.00"]],
        }
    }
    book = wire.parse_book(body(answer), "KXA-1", 7)
    assert [(level.price, level.qty) for level in book.bids] == [(2000, 550), (1500, 10_000)]
    assert [(level.price, level.qty) for level in book.asks] == [(2500, 200), (3000, 100)]
    assert book.alive_ns == 7


@pytest.mark.parametrize(
    "levels",
    [[["0.0000", "1"]], [["1.0000", "1"]], [["0.5", "-1"]], [["0.5", "1"], ["0.50", "2"]], [["0.5"]]],
)
def test_a_book_with_an_impossible_level_is_unknown(levels):
    """Prices outside (0, 1), negative sizes, a price told twice and half a level are refused."""
    with pytest.raises(VenueAnswerUnknown):
        wire.parse_book(body({"orderbook_fp": {"yes_dollars": levels}}), "KXA-1", 0)


@pytest.mark.parametrize(
    ("fee_type", "multiplier", "taker", "maker"),
    [
        ("quadratic", 1, 70_000, 0),
        ("quadratic", 0.5, 35_000, 0),
        ("quadratic_with_maker_fees", 1, 70_000, 17_500),
        ("quadratic_with_combo_maker_fees", 1, 70_000, 35_000),
    ],
)
def test_a_series_says_what_it_charges(fee_type: str, multiplier: float, taker: int, maker: int):
    """Fee type and multiplier become rates in parts per million."""
    fees = wire.parse_series(body({"series": {"fee_type": fee_type, "fee_multiplier": multiplier}}))
    assert (fees.taker_fee_ppm, fees.maker_fee_ppm) == (taker, maker)


@pytest.mark.parametrize("fee_type", ["flat", "cubic"])
def test_a_fee_without_published_amount_is_unknown(fee_type: str):
    """A fee type that nobody can compute is unknown, never free."""
    with pytest.raises(VenueAnswerUnknown):
        wire.parse_series(body({"series": {"fee_type": fee_type, "fee_multiplier": 1}}))


@pytest.mark.parametrize(
    ("status", "raw", "code", "message"),
    [
        (400, b'{"error":{"code":"invalid_order","message":"no","details":"post only"}}', "invalid_order", "no: post only"),
        (429, b'{"error":"too many requests"}', "too_many_requests", "too many requests"),
        (400, b'{"code":"bad_request","message":"m","details":"d"}', "bad_request", "m: d"),
        (400, b'{"msg":"bad query"}', "http_400", "bad query"),
        (502, b"<html>", "http_502", ""),
        (500, b"", "http_500", ""),
        (500, b"[1]", "http_500", ""),
        (400, b'{"error":{"code":7,"message":["x"]}}', "http_400", ""),
    ],
)  # fmt: skip
def test_an_error_body_is_read_as_far_as_it_goes(status: int, raw: bytes, code: str, message: str):
    """Each known shape of error body gives its code and message; anything else a code from the status."""
    assert wire.parse_error(status, raw) == (code, message)


PARSERS = [
    lambda data: wire.parse_created(data, "hf-1"),
    wire.parse_canceled,
    wire.parse_order,
    wire.parse_orders,
    wire.parse_fills,
    wire.parse_trades,
    wire.parse_balance,
    wire.parse_positions,
    wire.parse_settlements,
    wire.parse_status,
    wire.parse_market,
    wire.parse_markets,
    wire.parse_event,
    wire.parse_series,
    lambda data: wire.parse_book(data, "A", 0),
    wire.parse_stream_order,
    wire.parse_stream_fill,
    wire.parse_stream_trade,
    wire.parse_lifecycle,
]
WORDS = sorted({*ORDER, *FILL, *MARKET, "order", "orders", "fills", "market", "error", "cursor", "reduced_by",
    "balance_dollars", "market_positions", "position_fp", "settlements", "series", "fee_multiplier", "event",
    "orderbook_fp", "yes_dollars", "no_dollars", "event_type", "market_ticker", "ts_ms", "fill_count",
    "remaining_count", "trades", "close_time", "settled_time", "updated_ts", "settled_ts"})  # fmt: skip
TEXTS = st.sampled_from(["0.45", "1", "-1", "", "NaN", "1e5", "0.123456789", "9" * 30, "yes", "bid", "resting",
    "2026-11-20T10:00:00Z", "9999-99-99", "0001-01-01T00:00:00+23:59", "٣"]) | st.text(max_size=8)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | TEXTS, inner, max_size=6)
    ),
    max_leaves=12,
)
GOOD = [{"order": ORDER}, {"orders": [ORDER]}, {"fills": [FILL]}, {"market": MARKET}, ORDER, FILL]


@given(answer=JSON, good=st.sampled_from(GOOD), key=st.sampled_from(WORDS), value=JSON)
def test_a_parser_returns_a_value_or_raises_the_one_named_error(answer, good, key, value):
    """Whatever JSON arrives, a parser returns a value or raises VenueAnswerUnknown, nothing else."""
    outer = next(iter(good.values())) if len(good) == 1 else good
    inner = outer[0] if isinstance(outer, list) else outer
    changed = {**inner, key: value}
    wrapped = (
        {next(iter(good)): [changed] if isinstance(outer, list) else changed} if len(good) == 1 else changed
    )
    for candidate in (answer, wrapped):
        data = body(candidate)
        for parse in PARSERS:
            try:
                assert parse(data) is not None
            except VenueAnswerUnknown:
                continue
        assert wire.parse_error(400, data).code


@given(data=st.binary(max_size=40) | st.just(b"[" * 100_000) | st.just(b'{"x":' * 100_000))
def test_bytes_that_are_no_json_are_the_one_named_error(data: bytes):
    """Garbage, truncated and absurdly nested bytes are VenueAnswerUnknown."""
    for parse in PARSERS:
        try:
            parse(data)
        except VenueAnswerUnknown:
            continue
    assert wire.parse_error(500, data).code
