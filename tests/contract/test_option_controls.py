"""Orders of options, combinations and shares against an account: the published vectors, vectors/controls/gate.json."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.portfolio import loose, options_gate, rules, wish

from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.money import format_qty
from holdfast.core.options import is_combo, parse_combo_ticker
from holdfast.risk.account import Account
from holdfast.risk.decisions import replay, rows_text
from holdfast.risk.gate import Gate
from holdfast.risk.limits import RiskLimitsConfig

VECTORS = json.loads(Path("vectors/controls/gate.json").read_text())["vectors"]


def legs(ticker: str) -> list[str]:
    return [leg for leg, _ in parse_combo_ticker(ticker)] if is_combo(ticker) else [ticker]


def gate_of(case: dict[str, Any]) -> Gate:
    """The gate of one vector, its working orders admitted while nothing else was a limit."""
    clock = ManualClock(now_ns=int(datetime.fromisoformat(case["at"]).timestamp()) * NANOS)
    concerned = {leg for order in (*case["working"], case["order"]) for leg in legs(order["ticker"])}
    usual = {
        ticker: ("100.00", "100.01") if ticker == "SPY" else ("1.00", "1.10")
        for ticker in concerned | {*case["held"]}
    }
    gate = options_gate(
        held={ticker: int(count) for ticker, count in case["held"].items()},
        quotes=usual | case.get("quotes", {}),
        deltas={
            ticker: (float(delta), float(gamma)) for ticker, (delta, gamma) in case.get("greeks", {}).items()
        },
        cash=case.get("cash", "100000"),
        clock=clock,
    )
    for number, order in enumerate(case["working"]):
        intent = wish(
            order["ticker"],
            order["price"],
            count=int(order["count"]),
            action=order["action"],
            name=f"w{number}",
        )
        admitted = gate.admit(intent)
        assert admitted.allowed, admitted.reason
    portfolio = RiskLimitsConfig(**case["portfolio"]) if "portfolio" in case else None
    gate.set_limits(loose(portfolio=portfolio, **case.get("limits", {})))
    return gate


def asked(case: dict[str, Any]):
    order = case["order"]
    return wish(order["ticker"], order["price"], count=int(order["count"]), action=order["action"])


@pytest.mark.contract("X1", "X3", "B4", "B5")
@pytest.mark.invariant("I3")
@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
def test_an_order_of_options_is_judged_as_its_vector_says(case):
    """The question, the admission and the replay of its record agree with the vector, and only an admission reserves."""
    gate = gate_of(case)
    before = gate.account.reserved
    question = gate.evaluate(asked(case))
    assert gate.account.reserved == before
    decision = gate.admit(asked(case))
    said = "" if decision.reason is None else decision.reason.code.value
    assert (said, decision.reducing) == (case["reason"], case["reducing"])
    assert question.reason == decision.reason
    assert (gate.account.reserved > before or case["order"]["action"] == "sell") or not decision.allowed
    details = msgspec.json.decode(msgspec.json.encode(decision.details()))
    again = replay(details)
    assert rows_text(again) == details["rows"]
    assert (again.refused is None) is decision.allowed


@pytest.mark.contract("X1", "X3")
@pytest.mark.invariant("I3")
@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
def test_an_order_of_options_is_judged_the_same_after_a_restart(case):
    """Over an account rebuilt from what is held and what still works, the verdict is the same."""
    first = gate_of(case)
    account = Account()
    account.apply(
        "SESSION_OPEN",
        {
            "session": "again",
            "opened_ns": 0,
            "cash": case.get("cash", "100000"),
            "liquidation": case.get("cash", "100000"),
            "positions": {
                ticker: format_qty(qty) for ticker, qty in first.account.portfolio.positions.items()
            },
            "marks": {},
        },
    )
    account.open_value = first.account.open_value
    for order in first.account.open_orders():
        account.reserve(msgspec.structs.replace(order))
    second = Gate(account, first.limits, clock=first._clock, market=first.market)
    account.holds = first.account.holds
    assert second.evaluate(asked(case)).reason == first.evaluate(asked(case)).reason


@pytest.mark.contract("X1", "B5")
@pytest.mark.invariant("I3")
@pytest.mark.parametrize(
    ("portfolio", "price", "fit"),
    [
        ({"max_per_symbol_delta": 20}, "0.20", 2),
        ({"max_portfolio_gamma": 3, "max_per_symbol_delta": 1_000}, "0.20", 3),
        ({"max_single_position_pct": "0.001", "max_per_symbol_delta": 1_000}, "0.20", 5),
        ({"total_exposure_cap": 140, "max_per_symbol_delta": 1_000, "max_portfolio_delta": 1_000}, "0.20", 7),
    ],
    ids=["symbol delta", "gamma", "concentration", "cap"],
)
def test_forty_threads_together_are_admitted_no_more_than_fits(portfolio, price, fit):
    """Orders of 10 deltas, 1 gamma and 20 dollars from many threads: exactly as many pass as one after the other."""
    ticker = "SPY231215C00105000"
    gate = options_gate(
        loose(portfolio=RiskLimitsConfig(**portfolio)),
        quotes={ticker: ("0.10", "0.20")},
        deltas={ticker: (0.1, 0.01)},
    )
    with ThreadPoolExecutor(8) as pool:
        decisions = list(pool.map(lambda n: gate.admit(wish(ticker, price, name=f"hf-{n}")), range(40)))
    assert sum(decision.allowed for decision in decisions) == fit
    assert gate.account.reserved == fit * 20_000_000


@pytest.mark.contract("X1")
def test_no_vector_is_told_twice():
    """Names are sentences of their own, and every instrument that a vector names can be read."""
    names = [case["name"] for case in VECTORS]
    assert len(names) == len(set(names))
    assert all(rules(leg) for case in VECTORS for leg in legs(case["order"]["ticker"]))
