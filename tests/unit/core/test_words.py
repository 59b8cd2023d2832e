"""Signals, ids, instruments, positions and clocks."""

from decimal import Decimal

import pytest
from support.execution import OTHER, TICKER, instrument

from holdfast.core.clock import NANOS, ManualClock, SystemClock, iso_utc, utc
from holdfast.core.errors import BadInput
from holdfast.core.ids import client_order_id, is_own
from holdfast.core.instruments import PriceRange
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.positions import Mark, Portfolio, liquidation_value
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import (
    Action,
    BookSide,
    Intent,
    Side,
    Signal,
    TimeInForce,
    content_digest,
    read_signal,
)

ORDER = {"ticker": TICKER, "side": "yes", "count": 10, "price": 56}


@pytest.mark.parametrize(
    ("action", "side", "book_side", "yes_price"),
    [
        ("buy", "yes", BookSide.BID, 5600),
        ("sell", "yes", BookSide.ASK, 5600),
        ("buy", "no", BookSide.ASK, 4400),
        ("sell", "no", BookSide.BID, 4400),
    ],
)
@pytest.mark.contract("A9")
def test_signal_normalises_to_the_yes_leg(action, side, book_side, yes_price):
    """Buying NO at q is selling YES at 1 - q."""
    signal = read_signal(ORDER | {"action": action, "side": side})
    assert (signal.book_side, signal.yes_price) == (book_side, yes_price)
    intent = Intent(client_order_id="hf-a", key="a", signal=signal, instrument=instrument())
    assert (intent.book_side, intent.yes_price, intent.count, intent.ticker) == (
        book_side,
        yes_price,
        1000,
        TICKER,
    )
    assert intent.delta == book_side.sign * 1000


@pytest.mark.parametrize(
    ("price", "expected"), [(56, 5600), ("0.56", 5600), (Decimal("0.5650"), 5650), ("0.5650000", 5650)]
)
def test_signal_reads_cents_as_int_and_dollars_as_text(price, expected):
    """An int is cents, text and Decimal are dollars of the named side."""
    assert read_signal(ORDER | {"price": price}).price == expected


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"price": 0.56}, "price"),
        ({"price": True}, "price"),
        ({"price": None}, "price"),
        ({"count": 1.5}, "count"),
        ({"count": "0.001"}, "count"),
        ({"side": "maybe"}, "maybe"),
        ({"action": "hold"}, "hold"),
        ({"tif": "day"}, "day"),
        ({"ticker": ""}, "ticker"),
        ({"ticker": 5}, "ticker"),
        ({"intent": "x" * 201}, "key"),
        ({"prise": 5}, "prise"),
    ],
)
def test_signal_refuses_what_it_cannot_read_and_names_it(changes, named):
    """Each unreadable, unknown or overlong field is an error that names it."""
    with pytest.raises(BadInput, match=named):
        read_signal(ORDER | changes)
    with pytest.raises(BadInput, match="lacks 'side'"):
        read_signal({"ticker": TICKER, "count": 1, "price": 1})


def test_content_tells_wishes_apart_and_names_do_not():
    """Anything that reaches the venue changes the digest; key, strategy and the named side do not."""
    base = read_signal(ORDER)
    same = [read_signal(ORDER | {"intent": "k", "strategy": "s"})]
    same.append(read_signal(ORDER | {"side": "no", "action": "sell", "price": 44}))
    other = [
        read_signal(ORDER | change)
        for change in ({"count": 11}, {"price": 57}, {"tif": "gtc"}, {"post_only": True}, {"ticker": OTHER})
    ]
    assert {content_digest(signal) for signal in same} == {content_digest(base)}
    assert content_digest(base) not in {content_digest(signal) for signal in other}
    assert len({content_digest(signal) for signal in other}) == len(other)


def test_client_order_ids_are_stable_distinct_and_ours():
    """The same intent has the same id for life, another log, strategy or key another one."""
    name = client_order_id("log", "strategy", "key")
    assert name == client_order_id("log", "strategy", "key")
    assert len(name) == 29
    assert is_own(name)
    assert not is_own("somebody-1")
    others = {
        client_order_id("log2", "strategy", "key"),
        client_order_id("log", "strategy2", "key"),
        client_order_id("log", "strategy", "key2"),
        client_order_id("logs", "trategy", "key"),
    }
    assert len(others | {name}) == 5


def test_instrument_takes_only_prices_of_its_grid_and_whole_steps():
    """Tapered grids hold each price on its own stretch; the ends of (0, 1) are never prices."""
    tapered = instrument(
        price_ranges=(
            PriceRange(PriceE4(0), PriceE4(1000), PriceE4(10)),
            PriceRange(PriceE4(1000), PriceE4(9000), PriceE4(100)),
        ),
        qty_step=QtyE2(1),
    )
    assert tapered.check_price(PriceE4(10)) is None
    assert tapered.check_price(PriceE4(1100)) is None
    for price, code in [(1010, "price_off_grid"), (9100, "price_off_grid"), (0, "price_out_of_range")]:
        assert tapered.check_price(PriceE4(price)).code == code
    assert tapered.check_price(PriceE4(10_000)).code is Code.PRICE_OUT_OF_RANGE
    assert tapered.check_count(QtyE2(1)) is None
    assert instrument().check_count(QtyE2(150)).code is Code.COUNT_BELOW_STEP
    assert instrument().check_count(QtyE2(0)).code is Code.BAD_COUNT


def test_settlement_pays_longs_on_yes_and_takes_from_shorts():
    """A long earns a dollar a contract on yes, a short owes it, and both are flat afterwards."""
    book = Portfolio()
    book.positions = {TICKER: QtyE2(1000), OTHER: QtyE2(-500)}
    assert book.payout(TICKER, "yes") == 10_000_000
    assert book.apply_settlement(TICKER, "yes") == 10_000_000
    assert book.apply_settlement(OTHER, "yes") == -5_000_000
    assert book.apply_settlement(OTHER, "yes") == 0
    book.deposit(MoneyE6(1))
    assert (book.cash, book.positions) == (5_000_001, {})


def test_liquidation_names_the_market_that_has_no_price():
    """A missing mark is named, an empty side is bounded."""
    marks = {TICKER: Mark(PriceE4(5500), None, 0)}
    assert liquidation_value({TICKER: QtyE2(100)}, marks) == 550_000
    assert liquidation_value({TICKER: QtyE2(-100)}, marks) == -1_000_000
    assert liquidation_value({OTHER: QtyE2(1)}, marks) == OTHER


def test_reject_reason_reads_as_one_line():
    """A refusal prints code, value, relation, bound and keys."""
    reason = RejectReason(
        code=Code.ORDER_VALUE_EXCEEDED, value="620.00", bound="500.00", unit="USD", keys={"ticker": TICKER}
    )
    assert str(reason) == f"order_value_exceeded 620.00 USD > 500.00 USD (ticker={TICKER})"


@pytest.mark.invariant("I12")
def test_manual_clock_moves_only_forward_and_only_when_told():
    """Both readings advance together; a step of the wall alone leaves the monotonic reading."""
    clock = ManualClock(10 * NANOS)
    clock.advance(1.5)
    assert (clock.now_ns(), clock.monotonic_ns()) == (11_500_000_000, 1_500_000_000)
    clock.set_now_ns(NANOS)
    assert clock.now_ns() == 11_500_000_000
    clock.step_wall_secs(-5)
    assert (clock.now_ns(), clock.monotonic_ns()) == (6_500_000_000, 1_500_000_000)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_times_are_written_in_utc():
    """Nanoseconds print as ISO 8601 with milliseconds and Z, and system time is UTC."""
    assert iso_utc(1_763_634_000_123_456_789) == "2025-11-20T10:20:00.123Z"
    assert utc(1_763_634_000_123_456_789).utcoffset().total_seconds() == 0
    clock = SystemClock()
    assert clock.now_ns() > 1_700_000_000 * NANOS
    assert clock.monotonic_ns() <= clock.monotonic_ns()
    assert clock.source == "system"


def test_signal_defaults_are_the_contracts():
    """A signal buys, immediate or cancel, unless it says otherwise."""
    signal = Signal(ticker=TICKER, side=Side.NO, count=QtyE2(1), price=PriceE4(1))
    assert (signal.action, signal.tif) == (Action.BUY, TimeInForce.IOC)


@pytest.mark.invariant("I11")
@pytest.mark.parametrize("field", ["count", "price", "expiration_ns"])
@pytest.mark.parametrize("value", [5600.0, float("nan"), True, "5600"])
def test_a_signal_holds_integers_only(field: str, value: object):
    """A float, truth value or text never stands where a signal counts in whole units, typed or not."""
    fields = {"ticker": "KX", "side": Side.YES, "count": QtyE2(100), "price": PriceE4(5600), field: value}
    with pytest.raises(BadInput, match=field):
        Signal(**fields)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"post_only": "false"}, "post_only"),
        ({"reduce_only": 1}, "reduce_only"),
        ({"expiration_ns": 1.5}, "expiration_ns"),
        ({"expiration_ns": -5}, "expiration_ns"),
        ({"expiration_ns": 10**30}, "expiration_ns"),
        ({"key": "one", "intent": "two"}, "two names"),
    ],
)
def test_a_signals_fields_are_read_as_they_are_meant_or_refused(changes: dict[str, object], named: str):
    """Text that only looks like a truth value, a time that cannot be, and a second name are refused by name."""
    with pytest.raises(BadInput, match=named):
        read_signal(ORDER | changes)


@pytest.mark.parametrize("field", ["side", "action", "tif"])
def test_a_signal_refuses_words_that_are_only_text(field):
    """The text "yes" is no Side: a comparison by identity would take it for the other one."""
    fields = {
        "ticker": "T",
        "side": Side.YES,
        "count": 100,
        "price": 9900,
        "action": Action.BUY,
        "tif": TimeInForce.IOC,
    }
    Signal(**fields)
    with pytest.raises(BadInput, match=field):
        Signal(**(fields | {field: str(fields[field])}))
