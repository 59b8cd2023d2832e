"""The broker's wire as the adapter reads it: whole values, or a named error."""

from __future__ import annotations

import json

import msgspec
import pytest
from support.broker import CALL, HIGH_CALL, STOCK, VERTICAL, engine, option, wish

from holdfast.core.errors import BadInput, VenueAnswerUnknown
from holdfast.core.instruments import Instrument, InstrumentKind
from holdfast.core.money import PriceE4
from holdfast.core.orders import FillCause, OrderStatus
from holdfast.core.signals import BookSide
from holdfast.venues.broker import wire as broker_wire
from holdfast.venues.options import wire

ORDER = {
    "order_id": "o-1",
    "client_order_id": "hf-1",
    "ticker": CALL.ticker,
    "side": "bid",
    "price_e4": 32_000,
    "qty_e2": 300,
    "filled_e2": 100,
    "leaves_e2": 200,
    "state": "working",
    "multiplier": 100,
    "created_ns": 5,
}
EXECUTION = {
    "exec_id": "x-1",
    "order_id": "",
    "client_order_id": "",
    "ticker": CALL.ticker,
    "side": "ask",
    "price_e4": 0,
    "qty_e2": 100,
    "fee_e6": 0,
    "multiplier": 100,
    "is_taker": False,
    "cause": "assignment",
    "ts_ns": 9,
}


def raw(value):
    return msgspec.Raw(json.dumps(value).encode())


def test_an_order_is_read_with_its_counts_and_its_state():
    """Every state has its word."""
    found = wire.read_order(raw(ORDER))
    assert (found.order_id, found.side, found.yes_price, found.multiplier) == (
        "o-1",
        BookSide.BID,
        32_000,
        100,
    )
    assert (found.filled, found.leaves, found.initial, found.status) == (100, 200, 300, OrderStatus.WORKING)
    for state in ("filled", "canceled", "expired"):
        assert wire.read_order(raw(ORDER | {"state": state, "leaves_e2": 0})).status.value == state
    assert wire.read_maybe_order(raw(None)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"state": "thinking"},
        {"leaves_e2": 300},
        {"filled_e2": -1},
        {"qty_e2": "300"},
        {"side": "yes"},
        {"multiplier": 0},
        {"price_e4": 1.5},
    ],
)
def test_an_order_that_cannot_stand_so_is_not_believed(change):
    """Unknown words, counts that do not add up, other types."""
    with pytest.raises(VenueAnswerUnknown):
        wire.read_order(raw(ORDER | change))


def test_an_acknowledgement_of_another_order_is_not_believed():
    """It names ours or it is none."""
    assert wire.read_placed(raw(ORDER), "hf-1").remaining == 200
    with pytest.raises(VenueAnswerUnknown):
        wire.read_placed(raw(ORDER), "hf-2")
    with pytest.raises(VenueAnswerUnknown):
        wire.read_placed(raw(ORDER | {"order_id": ""}), "hf-1")


def test_an_execution_that_no_order_caused_is_named_after_itself():
    """So that it is nobody's, and nobody's twice."""
    found = wire.read_fill(raw(EXECUTION))
    assert (found.trade_id, found.order_id, found.cause) == ("x-1", "x-1", FillCause.ASSIGNMENT)
    assert found.delta == -100


@pytest.mark.parametrize(
    "change", [{"qty_e2": 0}, {"price_e4": -1}, {"multiplier": 0}, {"exec_id": ""}, {"cause": "magic"}]
)
def test_an_execution_that_cannot_be_is_not_believed(change):
    """It is read again rather than booked."""
    with pytest.raises(VenueAnswerUnknown):
        wire.read_fill(raw(EXECUTION | change))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"t": 5}', '{"id": 1}', "nan", '{"t":"quotes","u":[["SPY",NaN,"x"]]}']
)
def test_a_frame_that_cannot_be_read_is_named(text):
    """No guess is made about half of one; JSON knows no NaN."""
    with pytest.raises(VenueAnswerUnknown):
        wire.read_frame(text)


def test_what_the_broker_writes_the_adapter_reads():
    """Listings, orders, executions and quotes of the one wire, through both descriptions of it."""
    book = engine()
    order = book.place(wish(VERTICAL, price=220, qty=2))
    frame = wire.read_frame(broker_wire.ok(3, broker_wire.order(order.shown())))
    assert (frame.t, frame.id) == ("ok", 3)
    assert wire.read_order(frame.r).filled == 200
    told = wire.read_frame(broker_wire.event("execution", broker_wire.execution(book.executions[1])))
    assert wire.read_fill(told.msg).ticker == HIGH_CALL.ticker
    for listing in (CALL, STOCK, option("P", 4500, underlying="SPX", settlement="cash")):
        answer = wire.read_frame(broker_wire.ok(1, broker_wire.listing(listing, "")))
        found = wire.read_instrument(answer.r)
        assert (found.option, found.multiplier, found.fee_per_contract) == (
            listing.terms,
            listing.multiplier,
            listing.fee,
        )
        assert found.check_price(PriceE4(100)) is None
    quotes = wire.read_frame(broker_wire.quotes(7, [book.shown[CALL.ticker].quote], [book.spots["SPY"][0]]))
    ((ticker, bid, _, ask, _, greeks),) = wire.read_quotes(quotes.q)
    assert (ticker, bid, ask, greeks[0]) == (CALL.ticker, 31_000, 32_000, 500_000)
    assert quotes.u == [("SPY", 4_501_000, "trade")]
    no = wire.read_frame(broker_wire.no(4, 409, "order_already_exists", "hf-1"))
    assert (no.t, no.status, no.code) == ("no", 409, "order_already_exists")


def test_a_listing_that_cannot_be_is_not_believed():
    """An option without terms."""
    said = broker_wire.listing(CALL, "")
    del said["terms"]
    with pytest.raises(VenueAnswerUnknown):
        wire.read_instrument(msgspec.Raw(msgspec.json.encode(said)))


def test_a_combination_of_stocks_or_of_other_multipliers_is_refused():
    """Legs are options of one size."""

    def rules(listing):
        return wire.read_instrument(msgspec.Raw(msgspec.json.encode(broker_wire.listing(listing, ""))))

    call, stock = rules(CALL), rules(STOCK)
    with pytest.raises(BadInput):
        wire.combination(f"+1*{CALL.ticker},-1*SPY", [(call, 1), (stock, -1)])
    ended = msgspec.structs.replace(rules(HIGH_CALL), is_open=False, status="expired")
    combo = wire.combination(VERTICAL, [(call, 1), (ended, -1)])
    assert isinstance(combo, Instrument)
    assert (combo.kind, combo.is_open, combo.status) == (InstrumentKind.COMBO, False, "expired")
