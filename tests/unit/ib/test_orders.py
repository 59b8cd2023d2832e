"""What is known of a placement from a status and from what was heard; a pure function."""

from __future__ import annotations

import pytest
from ib_async.contract import Contract
from ib_async.objects import CommissionReport, Execution, Fill
from ib_async.order import Order, OrderStatus, Trade

from holdfast.core.errors import BadInput
from holdfast.core.money import QtyE2
from holdfast.core.orders import OrderStatus as Ours
from holdfast.core.signals import TimeInForce
from holdfast.execution.venue import Ack, Reject
from holdfast.venues.ib.contracts import Called
from holdfast.venues.ib.errors import CODES, Heard
from holdfast.venues.ib.orders import Next, Standing, fee_of, fill_of, judge, revision, trade_id, venue_order

GTC, IOC = TimeInForce.GTC, TimeInForce.IOC


def now(status: str, *, permanent: int = 7, filled: int = 0, code: int = 0) -> Standing:
    return Standing(status, permanent, QtyE2(filled * 100), QtyE2(300), code)


def said(*codes: int) -> list[Heard]:
    return [Heard(1, code, "scripted") for code in codes]


@pytest.mark.contract("B15")
@pytest.mark.parametrize("status", ["PendingSubmit", "ApiPending", "PendingCancel", ""])
def test_a_status_that_says_nothing_is_waited_on(status):
    """Before the gateway's word there is no answer, whatever the order's time in force."""
    for tif in (GTC, IOC):
        assert judge(now(status, permanent=0), [], tif, 1) is Next.WAIT
        assert judge(now(status), [], tif, 1) is Next.WAIT


@pytest.mark.parametrize("status", ["PreSubmitted", "Submitted"])
def test_an_accepted_order_rests_or_is_waited_for(status):
    """A resting order is acknowledged when it is accepted; an immediate one when it has ended."""
    assert judge(now(status, filled=1), [], GTC, 5) == Ack(
        order_id="7", filled=QtyE2(100), remaining=QtyE2(200), ts_ns=5
    )
    assert judge(now(status, filled=1), [], IOC, 5) is Next.WAIT
    assert judge(now(status, permanent=0), [], GTC, 5) is Next.WAIT


@pytest.mark.parametrize("status", ["Cancelled", "ApiCancelled"])
def test_the_gateways_own_end_is_an_end(status):
    """Canceled by the gateway's word is acknowledged with what was filled and nothing left."""
    for heard in ([], said(202)):
        assert judge(now(status, filled=1, code=202 if heard else 0), heard, IOC, 5) == Ack(
            order_id="7", filled=QtyE2(100), remaining=QtyE2(0), ts_ns=5
        )


@pytest.mark.invariant("I2")
def test_an_end_that_the_library_made_up_is_asked_about():
    """The library calls an order canceled when any error names it; without a verdict of ours the lists decide."""
    assert judge(now("Cancelled", code=31337), said(31337), GTC, 1) is Next.ASK
    for code in (104, 161, 10148, 10349):
        assert judge(now("Cancelled", code=code), said(code), GTC, 1) is Next.ASK
    assert judge(now("Cancelled", permanent=0, code=1100), said(1100), IOC, 1) is Next.ASK
    for status in ("Inactive", "ValidationError"):
        assert judge(now(status), [], GTC, 1) is Next.ASK


@pytest.mark.invariant("I2")
def test_no_code_makes_a_no_of_an_order_that_traded_or_works():
    """Whatever is heard, an order with a fill or in the market is never rejected."""
    for code in CODES:
        for standing in (now("Cancelled", filled=1, code=code), now("Submitted"), now("Filled", filled=3)):
            for tif in (GTC, IOC):
                assert not isinstance(judge(standing, said(code), tif, 1), Reject)


def test_a_refusal_is_a_no_however_the_library_shows_it():
    """A refusing code with a status of an end, of doubt or of none is a rejection under its number."""
    for status in ("Cancelled", "Inactive", "ValidationError", "PendingSubmit"):
        answer = judge(now(status, permanent=0, code=201), said(201), GTC, 1)
        assert answer == Reject(code="201", message="scripted", status=400)


def test_a_filled_order_is_acknowledged_whole():
    """All of it filled is an acknowledgement with nothing left, whatever else was said."""
    answer = judge(now("Filled", filled=3), said(399), IOC, 1)
    assert answer == Ack(order_id="7", filled=QtyE2(300), remaining=QtyE2(0), ts_ns=1)


def test_a_listed_order_without_counts_has_everything_open():
    """The library lists an order before its counts: what is not known to be filled is open."""
    order = Order(permId=9, action="SELL", totalQuantity=3, lmtPrice=1.25, orderRef="hf-x", account="DU1")
    trade = Trade(Contract(), order, OrderStatus(status="Submitted"))
    listed = venue_order(trade, Called("SPY", 1))
    assert (listed.order_id, listed.leaves, listed.filled, listed.yes_price) == ("9", 300, 0, 12_500)
    assert listed.status is Ours.WORKING


def test_an_execution_has_one_identity_and_the_worse_price():
    """A fill finer than our price is booked at the price next to it that is worse for us."""
    contract = Contract(secType="OPT", multiplier="100")
    bought = Execution(execId="0001.02.01", side="BOT", shares=2, price=1.00005, permId=4, orderRef="hf-y")
    fill = fill_of(Fill(contract, bought, CommissionReport(), bought.time), "X", 0)
    assert (fill.price, fill.qty, fill.multiplier, fill.trade_id) == (10_001, 200, 100, "0001.02")
    sold = Execution(execId="0001.02.02", side="SLD", shares=2, price=1.00005)
    assert fill_of(Fill(contract, sold, CommissionReport(), sold.time), "X", 0).price == 10_000
    assert trade_id("0001.02.01") == trade_id("0001.02.02")
    assert [revision(one) for one in ("0001.02.01", "0001.02.12", "U+1_F", "")] == [1, 12, 1, 1]


@pytest.mark.invariant("I11")
def test_an_option_execution_without_its_multiplier_is_no_fill():
    """A multiplier that is not told has no default: cash would be off by a factor; a share has 1."""
    bought = Execution(execId="0001.02.01", side="BOT", shares=2, price=1.5)
    for said, kind in (("", "OPT"), ("1e2", "OPT")):
        contract = Contract(secType=kind, multiplier=said, localSymbol="SPY   261218C00500000")
        with pytest.raises(BadInput, match="has the multiplier"):
            fill_of(Fill(contract, bought, CommissionReport(), bought.time), "X", 0)
    share = Fill(Contract(secType="STK"), bought, CommissionReport(), bought.time)
    assert fill_of(share, "SPY", 0).multiplier == 1


def test_a_report_that_has_not_come_is_no_free_trade():
    """The library's empty commission report is no cost of zero."""
    execution = Execution(execId="a.01")
    assert fee_of(Fill(Contract(), execution, CommissionReport(), execution.time)) is None
    told = CommissionReport(execId="a.01", commission=0.0)
    assert fee_of(Fill(Contract(), execution, told, execution.time)) == 0


@pytest.mark.invariant("I11")
@pytest.mark.parametrize(
    "said", [{"commission": 1.7976931348623157e308}, {"commission": float("nan")}, {"currency": "EUR"}]
)
def test_a_cost_that_is_unset_or_no_dollars_is_not_known(said):
    """The gateway's largest float for unset, no number, and another currency are no cost; the bound is booked."""
    execution = Execution(execId="a.01")
    told = CommissionReport(**{"execId": "a.01", "commission": 1.3, "currency": "USD"} | said)
    assert fee_of(Fill(Contract(), execution, told, execution.time)) is None
