"""What an order of an option, a combination or a stock was judged by, as its DECISION record holds it, there and back.

    inputs_of(facts, instrument)       compactly: lists in a fixed order, integers in the unit that the key ends in
    facts_from, instrument_from        the same facts, and as much of the instrument as they are judged with

Of a contract its name and its end are enough: strike, right and day stand in the name, the settlement decides nothing
here.

Limits: a record from before a key existed has none of it; plans are the only ones that may be missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from holdfast.core.instruments import ComboLeg, Instrument, InstrumentKind
from holdfast.core.money import MoneyE6, PriceE4
from holdfast.core.options import OptionTerms, parse_option_ticker
from holdfast.risk.contracts import ContractFacts, Holding
from holdfast.risk.exposure import Part, Work
from holdfast.risk.portfolio_rows import PortfolioFacts

_NO_PLANS: Final[dict[str, Any]] = {"entering": (), "ways": (), "plan": "", "leaves": False, "way_out_e6": 0}


def inputs_of(facts: ContractFacts, instrument: Instrument) -> dict[str, Any]:
    """What was read, compactly; `facts_from` and `instrument_from` read it back."""
    inputs: dict[str, Any] = {
        "kind": instrument.kind.value,
        "underlying": instrument.underlying,
        "multiplier": instrument.multiplier,
        "fee_e6": instrument.fee_per_contract,
        "parts": [
            [one.ticker, leg.ratio, one.multiplier, _end(one.option), one.fee_per_contract]
            for leg in instrument.parts
            for one in (leg.instrument,)
        ],
        "legs": [list(leg) for leg in facts.legs],
        "held": [_line(part) for part in facts.parts],
        "works": [_ways(work)[0] for work in facts.works],
        "missing": facts.missing,
        "to_close_ns": facts.to_close_ns,
        "to_expiry_ns": facts.to_expiry_ns,
        "day": facts.day,
        "buying_power_e6": facts.buying_power,
        "spoken_for_e6": facts.spoken_for,
        "portfolio": None if facts.portfolio is None else facts.portfolio.compact(),
    }
    if facts.plans or facts.plan or facts.way_out:
        inputs["plans"] = {
            "entering": [_ways(work) for work in facts.entering],
            "ways": [_ways(work) for work in facts.plans],
            "plan": facts.plan,
            "leaves": facts.leaves,
            "way_out_e6": facts.way_out,
        }
    return inputs


def facts_from(inputs: dict[str, Any]) -> ContractFacts:
    """The facts of a record."""
    portfolio, plans = inputs["portfolio"], inputs.get("plans") or _NO_PLANS
    return ContractFacts(
        tuple(Holding(*leg) for leg in inputs["legs"]),
        tuple(_part(*line) for line in inputs["held"]),
        tuple(_work([way]) for way in inputs["works"]),
        inputs["missing"],
        inputs["to_close_ns"],
        inputs["to_expiry_ns"],
        inputs["day"],
        inputs["buying_power_e6"],
        inputs["spoken_for_e6"],
        None if portfolio is None else PortfolioFacts.from_compact(portfolio),
        tuple(_work(ways) for ways in plans["entering"]),
        tuple(_work(ways) for ways in plans["ways"]),
        plans["plan"],
        plans["leaves"],
        plans["way_out_e6"],
    )


def instrument_from(inputs: dict[str, Any], rules: Instrument) -> Instrument:
    """The instrument of a record, whose *rules* (ticker, grid, step) are read already."""
    kind, underlying = InstrumentKind(inputs["kind"]), inputs["underlying"]
    legs = tuple(_leg(rules, underlying, *part) for part in inputs["parts"])
    return msgspec.structs.replace(
        rules,
        kind=kind,
        option=legs[0].instrument.option if kind is InstrumentKind.OPTION else None,
        legs=legs if kind is InstrumentKind.COMBO else (),
        multiplier=inputs["multiplier"],
        fee_per_contract=MoneyE6(inputs["fee_e6"]),
    )


def _leg(  # noqa: PLR0917  the order in which `inputs_of` writes them
    rules: Instrument,
    underlying: str,
    ticker: str,
    ratio: int,
    multiplier: int,
    end: int | None,
    fee: int,
) -> ComboLeg:
    option = None if end is None else _terms(ticker, underlying, end)
    instrument = msgspec.structs.replace(
        rules,
        ticker=ticker,
        kind=InstrumentKind.STOCK if option is None else InstrumentKind.OPTION,
        option=option,
        multiplier=multiplier,
        fee_per_contract=MoneyE6(fee),
    )
    return ComboLeg(instrument, ratio)


def _line(part: Part) -> list[Any]:
    option = part.option
    return ["" if option is None else option.ticker, part.qty, part.multiplier, _end(option)]


def _ways(work: Work) -> list[list[Any]]:
    return [[[_line(part) for part in way.parts], way.cash] for way in work.ways]


def _work(ways: Sequence[Sequence[Any]]) -> Work:
    first, *others = (Work(tuple(_part(*line) for line in lines), cash) for lines, cash in ways)
    return first._replace(or_else=tuple(others))


def _part(ticker: str, qty: int, multiplier: int, end: int | None) -> Part:
    return Part(None if end is None else _terms(ticker, "", end), qty, multiplier)


def _end(option: OptionTerms | None) -> int | None:
    return None if option is None else option.expires_ns


def _terms(ticker: str, underlying: str, end: int) -> OptionTerms:
    """What a contract's name and its end say of it: all that its payoff and its life depend on."""
    name = parse_option_ticker(ticker)
    return OptionTerms(
        underlying=underlying or name.root,
        root=name.root,
        expiry=name.expiry,
        right=name.right,
        strike=PriceE4(name.strike),
        expires_ns=end,
    )
