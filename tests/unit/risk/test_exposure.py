"""The published vectors of exposure, vectors/controls/exposure.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.money import format_money, parse_money, parse_qty
from holdfast.core.options import OptionTerms, parse_option_ticker
from holdfast.risk.exposure import Part, Work, floor, lowers_floor, worst_loss

VECTORS = json.loads(Path("vectors/controls/exposure.json").read_text())["vectors"]


def part(leg: dict[str, Any]) -> Part:
    qty = parse_qty(leg["count"])
    if leg["what"] == "stock":
        return Part(None, qty, leg["multiplier"])
    name = parse_option_ticker(leg["what"])
    terms = OptionTerms(
        underlying=name.root, root=name.root, expiry=name.expiry, right=name.right, strike=name.strike
    )
    return Part(terms, qty, leg["multiplier"])


def work(order: dict[str, Any]) -> Work:
    return Work(tuple(part(leg) for leg in order["legs"]), parse_money(order["cash"]))


@pytest.mark.contract("X1")
@pytest.mark.invariant("I11")
@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
def test_a_structure_loses_what_its_vector_says(case):
    """The floor of the book, the loss of the order alone, and whether the order lowers the floor are as published."""
    held, working = [part(leg) for leg in case["held"]], [work(order) for order in case["working"]]
    found = floor(held, working)
    assert (None if found is None else format_money(found)) == case["floor"]
    if "order" in case:
        order = work(case["order"])
        loss = worst_loss(order.parts, order.cash)
        assert (None if loss is None else format_money(loss)) == case["order_loss"]
        assert lowers_floor(held, working, order) is case["lowers_floor"]
