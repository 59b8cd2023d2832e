"""The decision table of reconciliation, every pair of it."""

from itertools import product

import pytest
from support.execution import TICKER

from holdfast.core.clock import NANOS
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.orders import CLOSED_STATUSES, TRANSITIONS, OrderEvent, OrderStatus
from holdfast.core.signals import BookSide, TimeInForce
from holdfast.execution.reconcile import (
    LATENESS_SECS,
    RESOLUTIONS,
    Evidence,
    absence,
    evidence_of,
    position_differences,
    released_by,
    resolve,
)
from holdfast.execution.venue import VenueOrder
from holdfast.risk.order import Order

LISTED = {Evidence.LISTED_WORKING, Evidence.LISTED_CLOSED}


def order(**changes) -> Order:
    fields = {
        "client_order_id": "hf-a",
        "ticker": TICKER,
        "side": BookSide.BID,
        "quantity": QtyE2(1000),
        "yes_price": PriceE4(5000),
    }
    return Order(**(fields | changes))


def listed(filled=0, leaves=0, status=OrderStatus.WORKING) -> VenueOrder:
    return VenueOrder(
        order_id="V1",
        client_order_id="hf-a",
        ticker=TICKER,
        side=BookSide.BID,
        yes_price=PriceE4(5000),
        filled=QtyE2(filled),
        leaves=QtyE2(leaves),
        initial=QtyE2(1000),
        status=status,
    )


@pytest.mark.invariant("I2")
@pytest.mark.parametrize(("status", "evidence"), list(product(OrderStatus, Evidence)))
def test_every_pair_of_status_and_evidence_is_decided(status, evidence):
    """Each status under each evidence resolves as the rules say, and only into events that the order table knows."""
    event = resolve(status, evidence)
    if evidence is Evidence.UNREADABLE:
        assert event is None
    elif status in {OrderStatus.NEVER_ARRIVED, OrderStatus.NOT_SENT, OrderStatus.REJECTED}:
        assert event == (OrderEvent.ZOMBIE if evidence in LISTED else None)
    elif status in CLOSED_STATUSES:
        assert event is None
    elif evidence in LISTED:
        assert event is OrderEvent.FOUND
    elif status is OrderStatus.UNKNOWN:
        assert event == (OrderEvent.NEVER_ARRIVED if evidence is Evidence.ABSENT_BEYOND_BOUND else None)
    elif status is OrderStatus.WORKING:
        assert event is OrderEvent.ANSWER_LOST
    else:
        assert event is None
    if event is not None:
        before = OrderStatus.SENT if status is OrderStatus.PENDING else status
        assert (before, event) in TRANSITIONS


@pytest.mark.invariant("I2")
def test_only_absence_beyond_the_bound_ends_an_unknown_order_as_never_arrived():
    """No other pair of the table gives NEVER_ARRIVED."""
    pairs = [pair for pair, event in RESOLUTIONS.items() if event is OrderEvent.NEVER_ARRIVED]
    assert pairs == [(OrderStatus.UNKNOWN, Evidence.ABSENT_BEYOND_BOUND)]


@pytest.mark.parametrize(
    ("tif", "expiration_secs", "now_secs", "is_settled", "expected"),
    [
        (TimeInForce.GTC, 100, 100 + LATENESS_SECS, False, Evidence.ABSENT),
        (TimeInForce.GTC, 100, 101 + LATENESS_SECS, False, Evidence.ABSENT_BEYOND_BOUND),
        (TimeInForce.GTC, 0, 10**9, False, Evidence.ABSENT),
        (TimeInForce.IOC, 0, 10**9, False, Evidence.ABSENT),
        (TimeInForce.FOK, 100, 10**9, False, Evidence.ABSENT),
        (TimeInForce.IOC, 0, 1, True, Evidence.ABSENT_BEYOND_BOUND),
    ],
)
def test_absence_is_proof_only_beyond_an_expiration_or_a_settlement(
    tif, expiration_secs, now_secs, is_settled, expected
):
    """Time alone proves nothing about an immediate order."""
    lost = order(tif=tif, expiration_ns=expiration_secs * NANOS)
    assert absence(lost, now_ns=now_secs * NANOS, is_settled=is_settled) is expected


@pytest.mark.parametrize(
    ("shown", "ours_filled", "released", "evidence"),
    [
        (listed(filled=0, leaves=1000), 0, 0, Evidence.LISTED_WORKING),
        (listed(filled=400, leaves=600), 0, 0, Evidence.LISTED_WORKING),
        (listed(filled=400, leaves=0, status=OrderStatus.CANCELED), 0, 600, Evidence.LISTED_CLOSED),
        (listed(filled=400, leaves=600, status=OrderStatus.CANCELED), 400, 600, Evidence.LISTED_CLOSED),
        (listed(filled=1000, leaves=0, status=OrderStatus.FILLED), 300, 0, Evidence.LISTED_CLOSED),
        (listed(filled=0, leaves=0, status=OrderStatus.EXPIRED), 0, 1000, Evidence.LISTED_CLOSED),
        (listed(filled=200, leaves=0, status=OrderStatus.CANCELED), 500, 500, Evidence.LISTED_CLOSED),
        (listed(filled=0, leaves=700), 0, 300, Evidence.LISTED_WORKING),
    ],
)
def test_released_is_what_is_neither_filled_nor_open_at_the_venue(shown, ours_filled, released, evidence):
    """A fill that the venue counts and we have not seen is never released."""
    ours = order(status=OrderStatus.WORKING, filled=QtyE2(ours_filled))
    assert released_by(ours, shown) == released
    assert evidence_of(shown) is evidence


def test_position_differences_name_each_market_once():
    """Equal and flat positions are no difference; a missing one counts as flat."""
    ours = {"A": QtyE2(100), "B": QtyE2(5), "C": QtyE2(1)}
    theirs = {"A": QtyE2(100), "B": QtyE2(-5), "D": QtyE2(2), "E": QtyE2(0)}
    assert position_differences(ours, theirs) == [("B", 5, -5), ("C", 1, 0), ("D", 0, 2)]
