"""The life of an order: every state and event, and the sum that always holds."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.execution import TICKER, intent, opened_account

from holdfast.core.clock import ManualClock
from holdfast.core.errors import IllegalTransition
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import CLOSED_STATUSES, TRANSITIONS, Fill, OrderEvent, OrderStatus, next_status
from holdfast.core.signals import BookSide
from holdfast.risk.gate import Gate
from holdfast.risk.limits import RiskLimits
from holdfast.risk.trades import trade_details

EVENTS = st.sampled_from([event for event in OrderEvent if event is not OrderEvent.SENT])


@given(steps=st.lists(st.one_of(EVENTS, st.integers(1, 700)), max_size=15), count=st.integers(1, 10))
@pytest.mark.invariant("I2")
def test_filled_leaves_and_released_always_make_up_the_quantity(steps, count):
    """Through any events and fills, late ones too, no contract of an order is lost or counted twice."""
    gate = Gate(opened_account(), RiskLimits(), clock=ManualClock())
    account = gate.account
    gate.admit(intent("hf-a", count=count))
    order = account.orders["hf-a"]
    for n, step in enumerate(steps):
        if isinstance(step, OrderEvent):
            try:
                account.apply("ORDER_UPDATE", account.update("hf-a", step))
            except IllegalTransition:
                continue
        else:
            fill = Fill(
                trade_id=str(n),
                order_id="V",
                client_order_id="hf-a",
                ticker=TICKER,
                side=BookSide.BID,
                price=PriceE4(5000),
                qty=QtyE2(step),
                fee=MoneyE6(0),
                is_taker=True,
                ts_ns=0,
            )
            account.apply("TRADE", trade_details(fill, client_order_id="hf-a", external=False))
        assert order.filled + order.leaves + order.released == order.quantity
        assert min(order.filled, order.leaves, order.released, order.overfilled) >= 0
        assert account.working(TICKER) == (0 if order.status.is_closed else order.leaves, 0)
        assert account.portfolio.position(TICKER) == order.filled + order.overfilled
        if order.status is OrderStatus.UNKNOWN:
            assert order.released == 0 or order.leaves + order.filled + order.released == order.quantity


@pytest.mark.parametrize(("status", "event"), list(product(OrderStatus, OrderEvent)))
def test_every_pair_is_in_the_table_or_refused(status, event):
    """A pair outside the table raises and an ended order is left only as a zombie."""
    if (status, event) in TRANSITIONS:
        after = next_status(status, event)
        assert status not in CLOSED_STATUSES or (event, after) == (OrderEvent.ZOMBIE, OrderStatus.WORKING)
    else:
        with pytest.raises(IllegalTransition):
            next_status(status, event)


@pytest.mark.invariant("I2")
def test_unknown_is_left_only_by_evidence_of_the_venue():
    """No event that we make up ourselves ends an UNKNOWN order."""
    ours = {OrderEvent.SENT, OrderEvent.NOT_SENT}
    assert not [event for (status, event) in TRANSITIONS if status is OrderStatus.UNKNOWN and event in ours]
