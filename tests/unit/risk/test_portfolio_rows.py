"""The rows of a portfolio: the published vectors, vectors/controls/portfolio.json, and what holds for all facts."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.core.money import parse_money
from holdfast.core.reasons import HINTS, Code
from holdfast.risk.limits import RiskLimits, RiskLimitsConfig
from holdfast.risk.portfolio_book import Loss, Pressure
from holdfast.risk.portfolio_rows import PortfolioFacts, passes_portfolio, portfolio_rows

VECTORS = json.loads(Path("vectors/controls/portfolio.json").read_text())["vectors"]
ORDER = [
    "portfolio_delta",
    "portfolio_gamma",
    "symbol_delta",
    "concentration",
    "correlated_exposure",
    "total_exposure_cap",
    "max_positions",
]


def e6(text: str | None) -> int | None:
    return None if text is None else parse_money(text)


def pressure(texts: list[str]) -> Pressure:
    return Pressure(*(parse_money(text) for text in texts))


def facts_of(case: dict[str, Any]) -> PortfolioFacts:
    given = dict(case["facts"])
    slopes = [int(slope) for slope in given.pop("slope", ["0", "0"])]
    read: dict[str, Any] = {"symbol": "SPY", "group": "SPY"}
    for name, value in given.items():
        if name in {"delta", "gamma", "symbol_delta"}:
            read[name] = pressure(value)
        elif name in {"position", "exposure"}:
            read[name] = Loss(e6(value[0]), e6(value[1]), *slopes)
        elif name == "stale_secs":
            read["stale_ns"] = int(Decimal(value) * 10**9)
        elif name in {"positions", "positions_after", "missing", "stale"}:
            read[name] = value
        else:
            read[name] = e6(value)
    return PortfolioFacts(**read)


@pytest.mark.contract("X1", "B4", "B5")
@pytest.mark.invariant("I4")
@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
def test_an_order_is_judged_as_its_vector_says(case):
    """The first refusal, or none, is as published; with rows, without, and again from what a record holds."""
    limits, facts = RiskLimitsConfig(**case["limits"]), facts_of(case)
    rows = portfolio_rows(facts, limits, reducing=case["reducing"])
    refused = next((row for row in rows if not row.ok), None)
    assert ("" if refused is None else refused.code.value) == case["reason"]
    assert passes_portfolio(facts, limits, reducing=case["reducing"]) is (refused is None)
    held = msgspec.json.decode(msgspec.json.encode([facts.compact(), RiskLimits(portfolio=limits).compact()]))
    again = RiskLimits.from_compact(held[1], 1).portfolio
    assert again == limits
    assert portfolio_rows(PortfolioFacts.from_compact(held[0]), again, reducing=case["reducing"]) == rows


@pytest.mark.contract("X1")
def test_every_control_has_its_vectors():
    """Each of the seven rows and each thing that can be unknown has vectors, refused ones and passing ones."""
    refused = Counter(case["reason"] for case in VECTORS)
    controls = Counter(case["name"].split(":")[0].split(" of ")[0] for case in VECTORS)
    assert {*ORDER, "greeks_unknown", "greeks_stale", "equity_unknown", "unbounded_loss", ""} == set(refused)
    assert min(controls.values()) >= 8, controls


@pytest.mark.contract("B4")
def test_the_rows_stand_in_the_order_of_the_contract():
    """Seven rows in the fixed order, whatever the facts; what is unknown stands in the place of its row."""
    limits = RiskLimitsConfig(total_exposure_cap=1, max_positions=1)
    rows = portfolio_rows(PortfolioFacts(symbol="SPY", group="us", equity=1), limits, reducing=False)
    assert [row.code.value for row in rows] == ORDER
    assert [row.scope for row in rows] == ["account", "account", "SPY", "SPY", "us", "account", "account"]
    unknown = msgspec.structs.replace(
        facts_of({"facts": {"missing": "SPY231215C00450000"}}), exposure=Loss(0, None), position=Loss(0, None)
    )
    rows = portfolio_rows(unknown, limits, reducing=False)
    assert [row.code for row in rows] == [Code.GREEKS_UNKNOWN] * 3 + [Code.EQUITY_UNKNOWN] * 3 + [
        Code.MAX_POSITIONS
    ]
    assert all(HINTS[row.code] for row in rows)
