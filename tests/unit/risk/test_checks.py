"""Each limit at, below and beyond its bound; what reduces; what is unknown."""

import pytest
from support.execution import OTHER, TICKER, gate, instrument, intent, opened_account

from holdfast.core.clock import ManualClock
from holdfast.core.errors import IllegalTransition, OrderDenied
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.reasons import Code
from holdfast.risk.account import Account
from holdfast.risk.decisions import replay, rows_text
from holdfast.risk.gate import Admission, Gate
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits


def with_mark(made, *tickers, bid=5500, ask=5600):
    for ticker in tickers or (TICKER,):
        made.market.saw_book(ticker, PriceE4(bid), PriceE4(ask), 0, streamed=False)
    return made


def hold(made, state):
    made.account.apply("STATE", made.account.holds.change("test", state, reason="test"))


@pytest.mark.parametrize(
    ("side", "action", "count", "allowed"),
    [
        ("yes", "buy", 70, True),
        ("yes", "buy", 71, False),
        ("no", "sell", 70, True),
        ("no", "sell", 71, False),
        ("yes", "sell", 130, True),
        ("yes", "sell", 131, False),
        ("no", "buy", 130, True),
        ("no", "buy", 131, False),
    ],
)
@pytest.mark.contract("A9")
def test_position_limit_counts_by_side(side, action, count, allowed):
    """Long thirty with a limit of a hundred: seventy more one way, a hundred and thirty the other."""
    made = with_mark(gate(positions={TICKER: "30.00"}))
    assert made.evaluate(intent(side=side, action=action, count=count, price=50)).allowed is allowed


def test_opposite_working_orders_are_never_netted():
    """A resting sell makes no room for a buy."""
    made = gate()
    assert made.admit(intent("hf-sell", action="sell", count=50, price=60)).allowed
    assert made.admit(intent("hf-buy", count=100, price=50)).allowed
    refused = made.admit(intent("hf-more", count=1, price=50))
    assert refused.reason.code is Code.POSITION_LIMIT_EXCEEDED


@pytest.mark.parametrize(
    ("side", "action", "price", "count", "value"),
    [
        ("yes", "buy", 90, 10, "9.00"),
        ("no", "buy", 90, 10, "9.00"),
        ("yes", "sell", 90, 10, "1.00"),
        ("no", "sell", 10, 10, "9.00"),
    ],
)
def test_order_value_is_what_the_paid_side_costs(side, action, price, count, value):
    """Selling YES pays the NO price, as it buys NO."""
    decision = gate().evaluate(intent(side=side, action=action, price=price, count=count))
    (row,) = [row for row in decision.details()["rows"] if row[0] == "order_value_exceeded"]
    assert row[2] == value


def test_all_rows_are_recorded_after_the_first_refusal():
    """A decision that breaks three limits shows all three, and names the first."""
    account = opened_account(cash="-2000.00")
    made = Gate(account, RiskLimits(max_order_value=MoneyE6(1)), clock=ManualClock())
    decision = made.evaluate(intent(count=500))
    failed = [row[0] for row in decision.details()["rows"] if not row[5]]
    assert failed == ["position_limit_exceeded", "order_value_exceeded", "daily_loss_exceeded"]
    assert decision.reason.code is Code.POSITION_LIMIT_EXCEEDED
    assert str(decision.reason).startswith("position_limit_exceeded 500.00 contracts > 100.00 contracts (")


@pytest.mark.invariant("I5")
def test_a_reducing_order_passes_a_lost_day_and_unknown_marks():
    """Closing what is held is allowed with the loss over its limit, the mark missing, the session unknown."""
    made = Gate(
        opened_account(cash="-5000.00", positions={TICKER: "10.00"}), RiskLimits(), clock=ManualClock()
    )
    assert made.evaluate(intent(action="sell", count=10, price=50)).allowed
    assert not made.evaluate(intent(action="sell", count=11, price=50)).allowed
    assert made.evaluate(intent(side="no", action="buy", count=10, price=50)).allowed


@pytest.mark.invariant("I5")
def test_exits_already_working_take_away_what_can_be_closed():
    """Of ten held, six working to sell leave four to close; more than that adds risk."""
    made = Gate(
        opened_account(cash="-5000.00", positions={TICKER: "10.00"}), RiskLimits(), clock=ManualClock()
    )
    assert made.admit(intent("hf-1", action="sell", count=6, price=50)).reducing
    assert not made.admit(intent("hf-2", action="sell", count=5, price=50)).allowed
    assert made.admit(intent("hf-3", action="sell", count=4, price=50)).reducing


def test_closing_one_leg_of_an_exclusive_pair_does_not_reduce():
    """With NO of both sides of a game held, selling one raises the worst loss and counts as an increase."""
    game = {"event_exclusive": True, "event_exhaustive": True}
    made = with_mark(gate(positions={TICKER: "-10.00", OTHER: "-10.00"}), TICKER, OTHER)
    made.market.instruments[OTHER] = instrument(OTHER, **game)
    decision = made.evaluate(intent(of=instrument(TICKER, **game), count=10, price=50))
    assert not decision.reducing
    assert replay(decision.details()).reducing is False
    alone = with_mark(gate(positions={TICKER: "-10.00"}))
    assert alone.evaluate(intent(of=instrument(TICKER, **game), count=10, price=50)).reducing


def test_exit_value_has_a_wider_bound():
    """An exit may cost more than an entry, up to its own bound."""
    limits = RiskLimits(
        max_position=QtyE2(10**9), max_order_value=MoneyE6(10_000_000), max_exit_value=MoneyE6(50_000_000)
    )
    made = with_mark(gate(limits=limits, positions={TICKER: "-1000.00"}))
    assert made.evaluate(intent(count=100, price=50)).allowed
    assert made.evaluate(intent(count=101, price=50)).reason.code is Code.ORDER_VALUE_EXCEEDED
    assert made.evaluate(intent(action="sell", count=21, price=50)).reason.code is Code.ORDER_VALUE_EXCEEDED


@pytest.mark.parametrize(
    ("state", "reducing", "increasing"),
    [
        (TradingState.ACTIVE, True, True),
        (TradingState.THROTTLED, True, True),
        (TradingState.REDUCING, True, False),
        (TradingState.CANCEL_ONLY, False, False),
        (TradingState.HALTED, False, False),
    ],
)
def test_states_allow_what_the_table_says(state, reducing, increasing):
    """Reducing orders pass up to REDUCING, increasing ones up to THROTTLED."""
    made = with_mark(gate(positions={TICKER: "10.00"}))
    if state is not TradingState.ACTIVE:
        hold(made, state)
    assert made.evaluate(intent(action="sell", count=5, price=50)).allowed is reducing
    assert made.evaluate(intent(count=5, price=50)).allowed is increasing
    if not increasing:
        code = made.evaluate(intent(count=5, price=50)).reason.code
        assert code == f"state_{state.name.lower()}"


def test_throttled_paces_increasing_orders():
    """While THROTTLED a second increasing order waits out the interval; a reducing one does not."""
    clock = ManualClock()
    made = with_mark(gate(clock=clock, positions={TICKER: "10.00"}))
    hold(made, TradingState.THROTTLED)
    assert made.admit(intent("hf-1", count=1)).allowed
    refused = made.admit(intent("hf-2", count=1))
    assert refused.reason.code is Code.STATE_THROTTLED
    assert rows_text(replay(refused.details())) == refused.details()["rows"]
    assert made.admit(intent("hf-3", action="sell", count=1, price=50)).allowed
    clock.advance(1)
    assert made.admit(intent("hf-4", count=1)).allowed


def test_reduce_only_is_kept():
    """An order declared to only close is refused when it would do more."""
    made = with_mark(gate(positions={TICKER: "10.00"}))
    assert made.evaluate(intent(action="sell", count=10, price=50, reduce_only=True)).allowed
    assert (
        made.evaluate(intent(action="sell", count=11, price=50, reduce_only=True)).reason.code
        is Code.NOT_REDUCING
    )
    assert made.evaluate(intent(count=1, reduce_only=True)).reason.code is Code.NOT_REDUCING


@pytest.mark.invariant("I4")
def test_an_unknown_session_refuses_by_name():
    """Before SESSION_OPEN nothing that adds risk passes."""
    made = Gate(Account(), RiskLimits(), clock=ManualClock())
    assert made.evaluate(intent()).reason.code is Code.SESSION_UNKNOWN


@pytest.mark.invariant("I4")
def test_a_closed_market_refuses_by_name():
    """Not open, past its close, or with its result known: refused as closed."""
    clock = ManualClock()
    made = gate(clock=clock)
    assert made.evaluate(intent(of=instrument(is_open=False))).reason.code is Code.MARKET_CLOSED
    assert made.evaluate(intent(of=instrument(close_ns=clock.now_ns()))).reason.code is Code.MARKET_CLOSED
    assert made.evaluate(intent(of=instrument(close_ns=clock.now_ns() + 1))).allowed
    made.market.saw_result(TICKER, "yes")
    assert made.evaluate(intent()).reason.code is Code.MARKET_CLOSED


def test_daily_loss_counts_fees_and_not_deposits():
    """The limit is on the change of the account's whole value less what came from outside."""
    made = with_mark(
        Gate(opened_account(cash="1000.00", liquidation="1000.00"), RiskLimits(), clock=ManualClock())
    )
    made.account.apply("DEPOSIT", {"amount": "500.00"})
    assert made.daily_pnl() == 0
    made.account.apply(
        "TRADE",
        {
            "trade_id": "T1",
            "order_id": "V1",
            "client_order_id": "",
            "ticker": TICKER,
            "side": "bid",
            "price": "0.56",
            "quantity": "10.00",
            "fee": "0.18",
            "is_taker": True,
        },
    )
    assert made.daily_pnl() == -280_000


def test_only_the_gate_makes_admissions():
    """Nobody can construct an admission."""
    with pytest.raises(TypeError):
        Admission(object(), gate(), "hf-a", 10**18, MoneyE6(0), reducing=False)


@pytest.mark.invariant("I6")
def test_an_admission_is_spent_once_for_its_own_order():
    """A second spend and another order's spend are refused as bugs."""
    made = gate()
    mine, other = intent("hf-1"), intent("hf-2")
    admission = made.admit(mine).admission
    with pytest.raises(IllegalTransition):
        admission.consume(other)
    admission.consume(mine)
    with pytest.raises(IllegalTransition):
        admission.consume(mine)
    with pytest.raises(IllegalTransition):
        made.give_back(admission)
    with pytest.raises(IllegalTransition):
        made.admit(mine)


@pytest.mark.invariant("I6")
def test_an_admission_is_void_after_its_deadline_or_a_stricter_state():
    """State and deadline are read again in the moment of the send."""
    clock = ManualClock()
    made = gate(clock=clock)
    late, stopped = intent("hf-1"), intent("hf-2")
    first, second = made.admit(late).admission, made.admit(stopped).admission
    clock.advance(5)
    hold(made, TradingState.REDUCING)
    with pytest.raises(OrderDenied) as caught:
        second.consume(stopped)
    assert caught.value.reason.code is Code.STATE_REDUCING
    made.account.apply("STATE", made.account.holds.change("test", TradingState.ACTIVE, reason="over"))
    clock.advance(0.001)
    with pytest.raises(OrderDenied) as caught:
        first.consume(late)
    assert caught.value.reason.code is Code.DEADLINE_PASSED


def test_the_reservation_covers_the_worst_fee():
    """What is set aside for an order is its cost and the dearest fee it can meet."""
    made = gate()
    decision = made.admit(intent(count=10, price=56))
    assert decision.admission.reserved > 5_600_000 + 175_000
    assert made.account.reserved == decision.admission.reserved
    made.give_back(decision.admission)
    assert made.account.reserved == 0
    assert made.account.working(TICKER) == (0, 0)
