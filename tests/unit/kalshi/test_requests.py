"""Requests, out of values."""

from __future__ import annotations

import msgspec
import pytest
from support.kalshi import intent

from holdfast.core.errors import BadInput
from holdfast.core.signals import Action, Side, TimeInForce
from holdfast.venues.kalshi import requests


def test_a_resting_order_is_written_exactly():
    """A resting order's body has the documented fields, and no more."""
    wish = intent(
        "hf-1", side=Side.NO, action=Action.BUY, price="0.44", count="10", post_only=True,
        expiration_ns=1_795_190_400_999_999_999, reduce_only=True,
    )  # fmt: skip
    assert msgspec.json.decode(requests.create_body(wish)) == {
        "ticker": wish.ticker,
        "client_order_id": "hf-1",
        "side": "ask",
        "count": "10.00",
        "price": "0.5600",
        "time_in_force": "good_till_canceled",
        "self_trade_prevention_type": "taker_at_cross",
        "expiration_time": 1_795_190_400,
        "post_only": True,
    }


@pytest.mark.parametrize(
    ("tif", "word"), [(TimeInForce.IOC, "immediate_or_cancel"), (TimeInForce.FOK, "fill_or_kill")]
)
def test_an_immediate_order_may_reduce_only_and_never_expires(tif: TimeInForce, word: str):
    """reduce_only goes with immediate orders alone, expiration_time with resting ones alone."""
    written = msgspec.json.decode(
        requests.create_body(intent(tif=tif, reduce_only=True, expiration_ns=1_795_190_400_000_000_000))
    )
    assert written["reduce_only"] is True
    assert written["time_in_force"] == word
    assert "expiration_time" not in written


@pytest.mark.parametrize(("price", "count"), [("0", "1"), ("1", "1"), ("0.5", "0"), ("0.5", "-1")])
def test_an_impossible_order_is_not_written(price: str, count: str):
    """A price outside (0, 1) or a count that is not positive is refused, never sent."""
    with pytest.raises(BadInput):
        requests.create_body(intent(price=price, count=count))
