"""The fake at Interactive Brokers cannot drift from the library: it is the library, without its socket."""

from __future__ import annotations

import inspect

import ib_async
import pytest
from ib_async.client import Client

from holdfast.testing.ib import FakeIB, _FakeClient

OWN = {"lost", "hears"}


@pytest.mark.contract("B15")
def test_the_fake_is_the_librarys_own_class_with_its_own_wrapper():
    """`FakeIB` adds no method to `ib_async.IB` and replaces none."""
    assert issubclass(FakeIB, ib_async.IB)
    assert {name for name in vars(FakeIB) if not name.startswith("__")} == set()


def test_every_message_the_fake_takes_exists_in_the_library_with_the_same_parameters():
    """Each method of the fake client stands in the real one, parameter by parameter."""
    mine = {name for name, one in vars(_FakeClient).items() if inspect.isfunction(one) and name[0] != "_"}
    assert len(mine - OWN) >= 18
    for name in mine - OWN:
        real = list(inspect.signature(getattr(Client, name)).parameters)
        assert list(inspect.signature(getattr(_FakeClient, name)).parameters) == real, name


def test_what_the_adapter_uses_of_the_library_exists():
    """Every attribute of the library that the adapter names is there, requests as coroutines or futures."""
    ib = ib_async.IB()
    for name in (
        *("errorEvent", "disconnectedEvent", "updateEvent", "pendingTickersEvent", "execDetailsEvent"),
        *("commissionReportEvent", "orderStatusEvent", "connectAsync", "disconnect", "isConnected"),
        *("managedAccounts", "placeOrder", "cancelOrder", "reqAllOpenOrdersAsync", "reqCompletedOrdersAsync"),
        *("reqExecutionsAsync", "reqPositionsAsync", "reqContractDetailsAsync", "reqMarketRuleAsync"),
        *(
            "reqSecDefOptParamsAsync",
            "reqCurrentTimeAsync",
            "reqMktData",
            "cancelMktData",
            "whatIfOrderAsync",
        ),
        *("accountValues", "RaiseRequestErrors"),
    ):
        assert hasattr(ib, name), name
    for name in ("getReqId", "updateReqId", "MaxRequests", "cancelMktData", "decoder"):
        assert hasattr(ib.client, name), name
    for name in ("permId2Trade", "fills", "tickers"):
        assert isinstance(getattr(ib.wrapper, name), dict), name


def test_every_message_the_gateway_sends_is_one_the_library_takes():
    """The names that the gateway sends are methods of the library's wrapper."""
    import re
    from pathlib import Path

    from ib_async.wrapper import Wrapper

    from holdfast.testing import ib, ib_gateway

    sources = "".join(Path(module.__file__).read_text() for module in (ib, ib_gateway))
    sent = set(re.findall(r"""tell\(\s*(?:line|self\._line), "(\w+)\"""", sources))
    assert len(sent) >= 15
    assert all(callable(getattr(Wrapper, name, None)) for name in sent), sent
