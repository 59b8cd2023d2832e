"""The gate over options, combinations and stock: what an order may lose, what reduces, what is unknown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from support.contracts import (
    EXPIRES_NS,
    EXPIRY,
    NOW_NS,
    SPY,
    WIDE,
    book,
    call,
    combo,
    condor,
    fill,
    greeks,
    intent,
    option_gate,
    put,
    show,
)

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.errors import BadInput
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, QtyE2, format_money
from holdfast.core.orders import OrderEvent
from holdfast.core.reasons import HINTS, Code
from holdfast.core.signals import BookSide, Side
from holdfast.risk.decisions import Decision, replay, rows_text
from holdfast.risk.gate import Gate
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits, RiskLimitsConfig


def ask(gate: Gate, instrument: Instrument, action: str, count: float, price: float, **more: Any) -> Decision:
    """Ask, and hold the recorded decision against its replay."""
    decision = gate.evaluate(intent("hf-ask", instrument, action, count, price, **more))
    details = msgspec.json.decode(msgspec.json.encode(decision.details()))
    again = replay(details)
    assert rows_text(again) == details["rows"]
    assert (again.refused is None) is decision.allowed
    assert again.reducing is decision.reducing
    return decision


def code_of(decision: Decision) -> str:
    return "" if decision.reason is None else decision.reason.code.value


def row_of(decision: Decision, code: Code) -> Any:
    return next(row for row in decision.rows if row.code is code)


@pytest.mark.invariant("I3")
def test_a_leg_of_a_later_expiry_covers_nothing_and_the_refusal_says_so():
    """A calendar of calls has no bound that nobody's act keeps; one of puts may lose the short strike."""
    late = {"expiry": EXPIRY + 7, "expires_ns": EXPIRES_NS + 7 * 86_400 * NANOS}
    calls = combo((call(500), -1), (call(500, **late), 1))
    refused = ask(option_gate(calls), calls, "buy", 1, 1)
    assert code_of(refused) == "unbounded_loss"
    assert "another expiry protects nothing" in HINTS[Code.UNBOUNDED_LOSS]
    puts = combo((put(500), -1), (put(500, **late), 1))
    decision = option_gate(puts).admit(intent("hf-puts", puts, "buy", 1, 1))
    assert decision.admission is not None
    assert decision.order is not None
    assert decision.order.reserved == MoneyE6(50_101_300_000)


CONDOR = {put(470): 2.0, put(480): -2.0, call(520): -2.0, call(530): 2.0}


@pytest.mark.contract("B12")
@pytest.mark.parametrize(
    ("instrument", "action", "count", "price", "reserved"),
    [
        (call(500), "buy", 2, 1.1, "221.30"),
        (put(500), "buy", 1, 2.5, "250.65"),
        (put(500), "sell", 1, 2.5, "49750.65"),
        (combo((put(470), 1), (put(480), -1)), "buy", 1, -2.5, "751.30"),
        (combo((put(470), 1), (put(480), -1)), "sell", 1, -2.5, "251.30"),
        (condor(), "buy", 1, -3, "702.60"),
        (combo((call(500), 1), (call(510), -2), (call(520), 1)), "buy", 1, 0, "2.60"),
        (SPY, "buy", 10, 500, "5000.00"),
    ],
)
def test_an_order_reserves_what_it_can_lose_by_itself_and_its_fees(
    instrument: Instrument, action: str, count: float, price: float, reserved: str
) -> None:
    """What is set aside is the loss at the worst spot with every leg filled at the limit, and all fees of all legs."""
    gate = option_gate(instrument)
    decision = gate.admit(intent("hf-a", instrument, action, count, price))
    assert decision.allowed, decision.reason
    assert decision.order is not None
    assert format_money(decision.order.reserved) == reserved
    assert gate.account.reserved == decision.order.reserved


@pytest.mark.invariant("I3")
@pytest.mark.parametrize(
    ("instrument", "action"),
    [
        (call(500), "sell"),
        (SPY, "sell"),
        (combo((call(500), -2), (call(510), 1)), "buy"),
        (combo((call(500), 2), (call(510), -1)), "sell"),
    ],
)
def test_a_loss_without_end_is_refused_by_name(instrument: Instrument, action: str) -> None:
    """Selling a call or stock short, alone or as part of a ratio, is refused as unbounded_loss."""
    decision = ask(option_gate(instrument), instrument, action, 1, 1)
    assert code_of(decision) == "unbounded_loss"
    assert decision.reason is not None
    assert decision.reason.scope == "SPY"


@pytest.mark.contract("B12")
@pytest.mark.invariant("I3")
def test_a_short_leg_may_follow_its_protective_leg() -> None:
    """With the wing held the short leg has an end and reserves the width; a second one for the same wing has none."""
    gate = option_gate(call(520), positions={call(530): 1.0})
    first = gate.admit(intent("hf-1", call(520), "sell", 1, 2))
    assert first.order is not None
    assert format_money(first.order.reserved) == "800.65"
    assert code_of(ask(gate, call(520), "sell", 1, 2)) == "unbounded_loss"


@pytest.mark.invariant("I5")
@pytest.mark.parametrize(
    ("instrument", "action", "count", "reducing"),
    [
        (condor(), "sell", 1, True),
        (condor(), "sell", 2, True),
        (condor(), "sell", 3, False),
        (condor(), "buy", 1, False),
        (put(480), "buy", 2, True),
        (put(480), "buy", 3, False),
        (call(520), "buy", 1, True),
        (put(470), "sell", 1, False),
        (call(530), "sell", 1, False),
        (combo((put(470), 1), (put(480), -1)), "sell", 2, True),
        (combo((put(480), -1), (call(520), -1)), "sell", 2, True),
        (combo((put(470), 1), (call(530), 1)), "sell", 1, False),
        (put(460), "buy", 1, False),
    ],
)
def test_what_reduces_a_condor(instrument: Instrument, action: str, count: float, reducing: bool) -> None:
    """Closing it whole or by halves and buying shorts back reduces; selling a wing or closing more does not."""
    gate = option_gate(instrument, positions=CONDOR)
    price = 5 if "*" not in instrument.ticker else (5 if action == "buy" else -5)
    assert ask(gate, instrument, action, count, price).reducing is reducing


@pytest.mark.invariant("I5")
def test_exits_that_work_are_taken_off_what_can_be_closed() -> None:
    """While one exit of a leg works or is UNKNOWN, a second one over the same contracts does not reduce."""
    gate = option_gate(condor(), positions=CONDOR)
    first = gate.admit(intent("hf-1", put(480), "buy", 1, 5))
    assert first.reducing
    gate.account.apply("ORDER_UPDATE", gate.account.update("hf-1", OrderEvent.ANSWER_LOST))
    assert not ask(gate, put(480), "buy", 2, 5).reducing
    assert ask(gate, put(480), "buy", 1, 5).reducing
    assert not ask(gate, condor(), "sell", 2, -5).reducing
    assert ask(gate, condor(), "sell", 1, -5).reducing


@pytest.mark.invariant("I5")
def test_an_exit_passes_every_row_that_bounds_exposure() -> None:
    """With all portfolio limits at zero, no Greeks, no marks and a lost day, what reduces is allowed and what adds is not."""
    config = RiskLimitsConfig(0, 0, 0, 0, 0, 0)
    limits = RiskLimits(max_position=QtyE2(0), max_daily_loss=MoneyE6(0), portfolio=config)
    gate = option_gate(condor(), positions=CONDOR, limits=limits, cash="-5000.00")
    gate.market.lost([leg.ticker for leg in CONDOR])
    gate.saw_buying_power(MoneyE6(0))
    assert ask(gate, condor(), "sell", 2, -5).allowed
    assert not ask(gate, condor(), "buy", 1, -5).allowed


def test_an_exit_sets_aside_what_it_pays() -> None:
    """Closing a condor for a debit reserves the debit and fees; closing a long call reserves the fee alone."""
    gate = option_gate(condor(), call(500), positions={**CONDOR, call(500): 1.0})
    closing = gate.admit(intent("hf-1", condor(), "sell", 1, -4))
    selling = gate.admit(intent("hf-2", call(500), "sell", 1, 1))
    assert closing.order is not None
    assert selling.order is not None
    assert (format_money(closing.order.reserved), format_money(selling.order.reserved)) == ("402.60", "0.65")


@pytest.mark.contract("X1")
@pytest.mark.parametrize(
    ("secs", "code"),
    [(3600, ""), (3599, "near_expiry"), (1, "near_expiry"), (0, "expired"), (-1, "expired")],
)
def test_nothing_is_opened_shortly_before_a_contract_ends(secs: int, code: str) -> None:
    """The last hour refuses what adds risk; at the end of the contract nothing trades."""
    clock = ManualClock(EXPIRES_NS - secs * NANOS)
    gate = option_gate(put(500), clock=clock)
    show(gate, **{put(500).ticker: (1.0, 1.1)})
    assert code_of(ask(gate, put(500), "buy", 1, 1)) == code


@pytest.mark.contract("X1")
def test_nothing_is_opened_shortly_before_the_close_and_exits_are() -> None:
    """Five minutes before the day's close an entry is refused and says by how much, and an exit is not."""
    option = put(500, close_ns=NOW_NS + 299 * NANOS)
    gate = option_gate(option, put(510), positions={put(510): 1.0})
    decision = ask(gate, option, "buy", 1, 1)
    assert decision.reason is not None
    assert str(decision.reason).startswith("near_expiry 1000 ms > 0 ms (")
    held = put(510, close_ns=NOW_NS + NANOS)
    assert ask(gate, held, "sell", 1, 1).allowed


@pytest.mark.contract("X1")
@pytest.mark.parametrize("allowed", [False, True])
def test_nothing_is_sold_short_on_the_day_it_expires(allowed: bool) -> None:
    """On its last day a put may be bought and closed, and sold short only where that is allowed."""
    morning = int(datetime(2026, 12, 18, 15, 0, tzinfo=UTC).timestamp()) * NANOS
    limits = RiskLimits(
        max_position=WIDE.max_position,
        max_order_value=WIDE.max_order_value,
        max_exit_value=WIDE.max_exit_value,
        allow_short_on_expiry_day=allowed,
    )
    gate = option_gate(
        put(500), put(480), positions={put(480): 1.0}, clock=ManualClock(morning), limits=limits
    )
    assert code_of(ask(gate, put(500), "sell", 1, 1)) == ("" if allowed else "short_on_expiry_day")
    assert ask(gate, put(500), "buy", 1, 1).allowed
    assert ask(gate, put(480), "sell", 1, 1).allowed
    evening_before = ManualClock(int(datetime(2026, 12, 18, 4, 0, tzinfo=UTC).timestamp()) * NANOS)
    assert ask(option_gate(put(500), clock=evening_before), put(500), "sell", 1, 1).allowed


@pytest.mark.invariant("I4")
def test_an_option_whose_end_is_unknown_is_not_opened() -> None:
    """A contract without an expiry time is refused when it adds risk."""
    endless = put(500, expires_ns=0)
    assert code_of(ask(option_gate(endless), endless, "buy", 1, 1)) == "near_expiry"


@pytest.mark.invariant("I4")
@pytest.mark.parametrize(
    ("qty", "bid", "ask_price", "code"),
    [
        (1.0, 1.0, 1.1, ""),
        (1.0, None, 1.1, ""),
        (1.0, None, None, ""),
        (-1.0, 1.0, 1.1, ""),
        (-1.0, None, 1.1, ""),
        (-1.0, 1.0, None, "mark_unknown"),
        (-1.0, None, None, "mark_unknown"),
        (-1.0, 1.2, 1.1, "mark_unknown"),
        (1.0, 1.2, 1.1, "mark_unknown"),
    ],
)
def test_a_short_without_ask_is_unknown_and_a_long_without_bid_worth_nothing(
    qty: float, bid: float | None, ask_price: float | None, code: str
) -> None:
    """An empty or crossed book makes a short option unknown, never zero and never infinite."""
    gate = option_gate(put(500), positions={put(480): qty})
    show(gate, **{put(480).ticker: (bid, ask_price)})
    decision = ask(gate, put(500), "buy", 1, 1)
    assert code_of(decision) == code
    if not code:
        side = bid if qty > 0 else ask_price
        assert gate.value() == 100_000_000_000 + round((side or 0) * qty * 100) * 1_000_000
    else:
        assert gate.value() is None


@pytest.mark.invariant("I4")
def test_what_is_held_under_unread_rules_is_not_taken_for_an_event_contract() -> None:
    """A held option or share whose rules nobody read has no worth and lets nothing on any underlying pass."""
    gate = option_gate(put(500))
    stranger = call(500)
    book(gate, fill(stranger, BookSide.BID, 1, 2, trade_id="T"))
    show(gate, **{stranger.ticker: (1.0, 1.1)})
    assert gate.value() is None
    decision = ask(gate, put(500), "buy", 1, 1)
    assert code_of(decision) == "mark_unknown"
    assert not row_of(decision, Code.INSTRUMENT_UNREAD).ok
    gate.market.saw_rules(stranger)
    assert ask(gate, put(500), "buy", 1, 1).allowed
    book(gate, fill(SPY, BookSide.BID, 100, 500, trade_id="T2"))
    show(gate, SPY=(500.0, 500.1))
    assert gate.value() is None


@pytest.mark.invariant("I4")
def test_greeks_that_are_missing_or_old_refuse_by_name() -> None:
    """With portfolio limits set, an order without Greeks is greeks_unknown and one with old Greeks greeks_stale."""
    clock = ManualClock(NOW_NS)
    limits = RiskLimits(
        max_order_value=WIDE.max_order_value,
        max_exit_value=WIDE.max_exit_value,
        portfolio=RiskLimitsConfig(1000, 1000, 1, 1000, 1),
    )
    gate = option_gate(put(500), clock=clock, limits=limits)
    assert code_of(ask(gate, put(500), "buy", 1, 1)) == "greeks_unknown"
    gate.market.saw_greeks(put(500).ticker, greeks(-0.5, 0.01))
    assert ask(gate, put(500), "buy", 1, 1).allowed
    clock.advance(301)
    decision = ask(gate, put(500), "buy", 1, 1)
    assert code_of(decision) == "greeks_stale"
    assert decision.reason is not None
    assert decision.reason.value == "301000"


@pytest.mark.contract("B4")
def test_the_portfolio_rows_follow_in_their_fixed_order() -> None:
    """A combination's decision holds the nine rows, the rows of contracts, and the portfolio's, in one order."""
    limits = RiskLimits(portfolio=RiskLimitsConfig(50, 10, 1, 20, 1), max_order_value=MoneyE6(10**9))
    gate = option_gate(condor(), limits=limits)
    for leg in condor().legs:
        gate.market.saw_greeks(leg.instrument.ticker, greeks(0.3, 0.001))
    decision = ask(gate, condor(), "buy", 1, -3)
    assert decision.allowed, decision.reason
    assert [row[0] for row in decision.details()["rows"][9:]] == [
        "instrument_unread",
        "expired",
        "near_expiry",
        "short_on_expiry_day",
        "unbounded_loss",
        "buying_power",
        "portfolio_delta",
        "portfolio_gamma",
        "symbol_delta",
        "concentration",
        "correlated_exposure",
        "total_exposure_cap",
        "max_positions",
    ]
    big = ask(gate, put(500), "buy", 1, 1)
    assert code_of(big) == "greeks_unknown"


@pytest.mark.contract("B12")
def test_the_engines_path_reserves_greeks() -> None:
    """Two orders that fit one by one do not fit together: the first one's Greeks count while it works."""
    limits = RiskLimits(portfolio=RiskLimitsConfig(50, 10, 1, 50, 1), max_order_value=MoneyE6(10**9))
    gate = option_gate(put(500), limits=limits)
    gate.market.saw_greeks(put(500).ticker, greeks(-0.3))
    assert gate.admit(intent("hf-1", put(500), "buy", 1, 1)).allowed
    second = gate.admit(intent("hf-2", put(500), "buy", 1, 1))
    assert code_of(second) == "portfolio_delta"
    assert second.reason is not None
    assert (second.reason.value, second.reason.bound, second.reason.unit) == ("60.00", "50.00", "shares")


def test_buying_power_counts_everything_set_aside_since_it_was_asked() -> None:
    """What the broker would carry is used up by admissions, also by those that have ended, until it is asked again."""
    gate = option_gate(put(500))
    gate.saw_buying_power(MoneyE6(250_000_000))
    assert gate.admit(intent("hf-1", put(500), "buy", 1, 1)).allowed
    gate.account.apply("ORDER_UPDATE", gate.account.update("hf-1", OrderEvent.NOT_SENT))
    assert gate.admit(intent("hf-2", put(500), "buy", 1, 1)).allowed
    third = ask(gate, put(500), "buy", 1, 1)
    assert code_of(third) == "buying_power"
    assert third.reason is not None
    assert (third.reason.value, third.reason.bound) == ("301.95", "250.00")
    gate.saw_buying_power(MoneyE6(250_000_000))
    assert ask(gate, put(500), "buy", 1, 1).allowed


def test_an_admission_that_is_given_back_leaves_buying_power_as_it_was() -> None:
    """What the breaker or the journal kept from leaving uses up nothing, whenever the broker was asked."""
    gate = option_gate(put(500))
    gate.saw_buying_power(MoneyE6(250_000_000))
    for n in range(5):
        admitted = gate.admit(intent(f"hf-{n}", put(500), "buy", 1, 1))
        assert admitted.admission is not None
        if n % 2:
            gate.saw_buying_power(MoneyE6(250_000_000))
        gate.give_back(admitted.admission)
    assert gate.admit(intent("hf-a", put(500), "buy", 1, 1)).allowed
    assert gate.admit(intent("hf-b", put(500), "buy", 1, 1)).allowed
    assert code_of(ask(gate, put(500), "buy", 1, 1)) == "buying_power"


@pytest.mark.parametrize(
    ("instrument", "price", "code"),
    [
        (put(500), 0, "price_out_of_range"),
        (put(500), -1, "price_out_of_range"),
        (put(500), 1.005, "price_off_grid"),
        (put(500), 12.34, ""),
        (condor(), 0, ""),
        (condor(), -3.21, ""),
        (condor(), -3.215, "price_off_grid"),
    ],
)
def test_a_price_is_held_against_its_kind(instrument: Instrument, price: float, code: str) -> None:
    """A premium is above zero and may exceed a dollar; a combination's price has any sign."""
    assert code_of(ask(option_gate(instrument), instrument, "buy", 1, price)) == code


def test_order_value_is_the_price_without_its_sign_times_the_multiplier() -> None:
    """A condor for a credit of 3 is worth 300 dollars a unit, and the position limit counts its largest leg."""
    limits = RiskLimits(max_position=QtyE2(4_00), max_order_value=MoneyE6(600_000_000))
    ratio = combo((put(470), 1), (put(480), -2), (put(490), 1))
    gate = option_gate(condor(), ratio, limits=limits)
    assert ask(gate, condor(), "buy", 2, -3).allowed
    assert code_of(ask(gate, condor(), "buy", 2, -3.01)) == "order_value_exceeded"
    assert ask(gate, ratio, "buy", 2, 1).allowed
    decision = ask(gate, ratio, "buy", 3, 1)
    assert code_of(decision) == "position_limit_exceeded"
    row = row_of(decision, Code.POSITION_LIMIT_EXCEEDED)
    assert (row.scope, row.value) == (put(480).ticker, 600)


def test_the_side_no_belongs_to_event_contracts_alone() -> None:
    """An option named by the side no is refused, never read as its opposite."""
    with pytest.raises(BadInput, match="no side no"):
        option_gate(put(500)).evaluate(intent("hf-a", put(500), "buy", 1, 0.5, side=Side.NO))


def test_a_whole_contract_is_the_smallest_step() -> None:
    """Half an option is refused, and so is nothing."""
    gate = option_gate(put(500))
    assert code_of(ask(gate, put(500), "buy", 0.5, 1)) == "count_below_step"
    assert code_of(ask(gate, put(500), "buy", 0, 1)) == "bad_count"


@pytest.mark.invariant("I6")
def test_a_halt_stops_combinations_too() -> None:
    """HALTED and CANCEL_ONLY let neither an entry nor an exit of a condor pass."""
    for state in (TradingState.CANCEL_ONLY, TradingState.HALTED):
        gate = option_gate(condor(), positions=CONDOR)
        change = gate.account.holds.change("test", state, reason="test")
        assert change is not None
        gate.account.apply("STATE", change)
        for action in ("buy", "sell"):
            assert code_of(ask(gate, condor(), action, 1, -3)) == f"state_{state.name.lower()}"


def test_daily_loss_counts_multipliers() -> None:
    """A short put whose ask rose by one dollar lost a hundred."""
    gate = option_gate(put(500), positions={put(480): -1.0})
    show(gate, **{put(480).ticker: (1.0, 1.5)})
    opened = gate.daily_pnl()
    show(gate, **{put(480).ticker: (2.0, 2.5)})
    after = gate.daily_pnl()
    assert opened is not None
    assert after is not None
    assert after - opened == -100_000_000


def test_a_combination_trades_only_while_all_its_legs_do() -> None:
    """A leg that is closed closes every combination of it, and its new rules replace what was read before."""
    spread = combo((put(470), 1), (put(480), -1))
    gate = option_gate(spread)
    closed = combo((put(470, is_open=False), 1), (put(480), -1))
    assert code_of(ask(gate, closed, "buy", 1, -2)) == "market_closed"
    gate.market.saw_rules(put(470))
    assert spread.ticker in gate.market.instruments
    gate.market.saw_rules(put(470, is_open=False))
    assert spread.ticker not in gate.market.instruments
    assert put(480).ticker in gate.market.instruments
    gate.market.saw_rules(spread)
    assert gate.market.instruments[put(470).ticker].is_open


@pytest.mark.invariant("I4")
@pytest.mark.invariant("I5")
def test_beside_something_unknown_shorts_may_be_bought_back_and_nothing_else() -> None:
    """While a held option's rules are unread, buying back a short or a whole condor reduces; selling a long does not."""
    gate = option_gate(condor(), call(500), positions={**CONDOR, call(500): 1.0})
    book(gate, fill(call(540), BookSide.ASK, 1, 2, trade_id="T"))
    for instrument, action, price in ((put(480), "buy", 5), (condor(), "sell", -5)):
        decision = ask(gate, instrument, action, 1, price)
        assert (decision.reducing, decision.allowed) == (True, True)
    for instrument, action, price in ((call(500), "sell", 1), (call(530), "sell", 1), (put(500), "buy", 1)):
        decision = ask(gate, instrument, action, 1, price)
        assert (decision.reducing, decision.allowed) == (False, False)
