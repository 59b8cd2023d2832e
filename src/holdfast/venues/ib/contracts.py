"""Contracts of Interactive Brokers and instruments of ours, both ways, as plain functions.

    SPXW230901C04500000                     Option, localSymbol "SPXW  230901C04500000", trading class SPXW
    SPY                                     Stock
    +1*SPY230901P00430000,-1*…              Bag of the legs' contract numbers (conId), bought as its name reads

An option is asked for by its OCC symbol: it names class, day, right and strike at once, also where the gateway gives
another last trading day than the symbol says (SPX settles on the morning after its last day of trading). What the gateway answers
is held against what was asked; another contract is refused, not traded.

The gateway does not say how a contract is exercised. Options on stocks and funds are American and deliver shares;
options on an index are what `CLASSES` says of their class, and a class that it does not name is refused.

Limits: contracts in US dollars on US exchanges. A payoff is taken to be fixed at 16:00 New York of the last day, or
earlier where the gateway says that the session ends earlier; at 09:30 for the classes that settle on the opening.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from holdfast.core.errors import BadInput, VenueRejected
from holdfast.core.instruments import (
    ComboLeg,
    Instrument,
    InstrumentKind,
    PriceRange,
)
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.options import (
    ExerciseStyle,
    OptionTerms,
    SettlementStyle,
    combo_ticker,
    is_combo,
    is_option,
    parse_combo_ticker,
    parse_option_ticker,
)
from holdfast.venues.ib.library import load

if TYPE_CHECKING:
    from ib_async.contract import Contract, ContractDetails
    from ib_async.objects import PriceIncrement

VENUE = "ib"
SMART, USD = "SMART", "USD"
NEW_YORK = ZoneInfo("America/New_York")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FAR = PriceE4(10**9)
# The gateway's names of zones are of an old generation, which systems of today may lack.
_ZONES = {"US/Eastern": "America/New_York", "US/Central": "America/Chicago", "EST5EDT": "America/New_York"}
_UNSET = 1e300  # the gateway writes the largest float where it has no number


class OptionClass(NamedTuple):
    """How the options of one class on an index are exercised."""

    underlying: str
    style: ExerciseStyle
    at_open: bool


_EUROPEAN, _AMERICAN = ExerciseStyle.EUROPEAN, ExerciseStyle.AMERICAN

# Source: product specifications of Cboe and Nasdaq. All of them settle in cash.
CLASSES = {
    "SPX": OptionClass("SPX", _EUROPEAN, at_open=True),
    "SPXW": OptionClass("SPX", _EUROPEAN, at_open=False),
    "XSP": OptionClass("XSP", _EUROPEAN, at_open=False),
    "NDX": OptionClass("NDX", _EUROPEAN, at_open=True),
    "NDXP": OptionClass("NDX", _EUROPEAN, at_open=False),
    "RUT": OptionClass("RUT", _EUROPEAN, at_open=True),
    "RUTW": OptionClass("RUT", _EUROPEAN, at_open=False),
    "DJX": OptionClass("DJX", _EUROPEAN, at_open=True),
    "VIX": OptionClass("VIX", _EUROPEAN, at_open=True),
    "VIXW": OptionClass("VIX", _EUROPEAN, at_open=True),
    "OEX": OptionClass("OEX", _AMERICAN, at_open=False),
    "XEO": OptionClass("OEX", _EUROPEAN, at_open=False),
}


class Called(NamedTuple):
    """A contract of the gateway's as we call it, and how many units of the underlying it is for."""

    ticker: str
    multiplier: int


class Hours(NamedTuple):
    """One stretch of trading, UTC ns, the end excluded."""

    start_ns: int
    end_ns: int


class Listed(NamedTuple):
    """A contract as the gateway describes it.

    Attributes:
        instrument: Its rules, as of when it was read.
        contract: What orders and subscriptions name; None of a combination.
        hours: Its sessions of the coming days.
    """

    instrument: Instrument
    contract: Contract | None
    hours: tuple[Hours, ...]


# Numbers ----------------------------------------------------------------------------------------------


def price_e4(value: float | Decimal | None) -> PriceE4 | None:
    """A price as the gateway writes it; None where it is none or finer than 1/10,000 dollar."""
    scaled = _scaled(value, 10_000)
    return None if scaled is None else PriceE4(scaled)


def qty_e2(value: float | Decimal) -> QtyE2:
    """A count of contracts or shares.

    Raises:
        BadInput: No number, or finer than 1/100.
    """
    scaled = _scaled(value, 100)
    if scaled is None:
        raise BadInput(f"quantity {value!r} is no number of 1/100 contracts")
    return QtyE2(scaled)


def _scaled(value: float | Decimal | None, units: int) -> int | None:
    """*value* in 1/*units*, read by its shortest decimal text, not by its binary fraction."""
    if value is None or not isfinite(value) or abs(float(value)) > _UNSET:
        return None
    exact = Decimal(str(value)) * units
    whole = int(exact.to_integral_value())
    return whole if whole == exact else None


def dollars(price: PriceE4) -> float:
    """A price as the library takes it: the nearest float, whose shortest text is the decimal number."""
    return float(Decimal(price) / 10_000)


def contracts(qty: QtyE2) -> float:
    """A count as the library takes it."""
    return float(Decimal(qty) / 100)


def utc_ns(moment: datetime) -> int:
    """Nanoseconds since 1970; a time without a zone is UTC, the library's own default."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND * 1_000


# Names ------------------------------------------------------------------------------------------------


def asked_contract(ticker: str) -> Contract:
    """What to ask the gateway about *ticker*; not for combinations.

    Raises:
        VenueRejected: Nothing that Interactive Brokers could list, code "not_found".
    """
    lib = load()
    if is_option(ticker):
        name = parse_option_ticker(ticker)
        padded = name.root.ljust(6) + ticker[len(name.root) :]
        made: Contract = lib.Contract(secType="OPT", localSymbol=padded, exchange=SMART, currency=USD)
        return made
    plain = ticker.replace(" ", "").replace(".", "")
    if not plain.isalnum() or not plain.isupper() or len(ticker) > 8:
        raise not_found(ticker)
    stock: Contract = lib.Stock(ticker, SMART, USD)
    return stock


def ticker_of(contract: Contract) -> str:
    """Our name of an option or stock; of anything else the gateway's, which names no instrument of ours."""
    if contract.secType == "OPT":
        name = contract.localSymbol.replace(" ", "")
        if is_option(name):
            return name
    if contract.secType == "STK" and contract.currency in {USD, ""}:
        return contract.symbol
    return f"{contract.secType}:{contract.localSymbol or contract.symbol or contract.conId}"


def called(contract: Contract) -> Called:
    """How a contract is called that is no combination.

    Raises:
        BadInput: An option without its multiplier.
    """
    return Called(ticker_of(contract), multiplier_of(contract))


def bag_called(contract: Contract, known: Mapping[int, Called]) -> Called | None:
    """How a bag is called; None when a leg's number is not *known*.

    Its price is for one unit of the leg that is for most: shares beside options are counted in hundreds.
    """
    legs: list[tuple[str, int]] = []
    multiplier = 1
    for leg in contract.comboLegs:
        one = known.get(leg.conId)
        if one is None:
            return None
        legs.append((one.ticker, leg.ratio if leg.action == "BUY" else -leg.ratio))
        multiplier = max(multiplier, one.multiplier)
    try:
        return Called(combo_ticker(legs), multiplier)
    except BadInput:
        return Called(f"BAG:{contract.symbol}", multiplier)


def bag_of(underlying: str, legs: Sequence[tuple[int, int]]) -> Contract:
    """A bag on *underlying*: buying it buys the legs of positive ratio (number of the contract, ratio)."""
    lib = load()
    made: Contract = lib.Bag(
        symbol=underlying,
        exchange=SMART,
        currency=USD,
        comboLegs=[
            lib.ComboLeg(
                conId=number, ratio=abs(ratio), action="BUY" if ratio > 0 else "SELL", exchange=SMART
            )
            for number, ratio in legs
        ],
    )
    return made


def not_found(ticker: str) -> VenueRejected:
    """No such market."""
    return VenueRejected(
        f"no contract {ticker!r} at Interactive Brokers",
        code="not_found",
        status=404,
        hint="an OCC symbol such as SPY230901C00430000, a stock's symbol, or a combination of these",
    )


# Rules ------------------------------------------------------------------------------------------------


def pick(ticker: str, answers: Iterable[ContractDetails]) -> ContractDetails:
    """The one answer that is what was asked for.

    Raises:
        VenueRejected: None is, or several are.
    """
    fitting = [
        details
        for details in answers
        if details.contract is not None and ticker_of(details.contract) == ticker and details.contract.conId
    ]
    if not fitting:
        raise not_found(ticker)
    numbers = {details.contract.conId for details in fitting if details.contract is not None}
    if len(numbers) > 1:
        raise VenueRejected(f"{ticker!r} names {len(numbers)} contracts", code="ambiguous", status=404)
    return fitting[0]


def rule_number(details: ContractDetails) -> int | None:
    """Number of the market rule with the price steps that orders routed by SMART follow; None where not said."""
    venues, rules = details.validExchanges.split(","), details.marketRuleIds.split(",")
    by_venue = dict(zip(venues, rules, strict=False))
    text = by_venue.get(SMART, rules[0])
    return int(text) if text.isdigit() else None


def grid_of(steps: Sequence[PriceIncrement], least: float) -> tuple[PriceRange, ...]:
    """The tick grid of a market rule; of *least*, the smallest step, where there is no rule.

    Raises:
        BadInput: A step or an edge that is no price.
    """
    edges = [(step.lowEdge, step.increment) for step in steps] or [(0.0, least)]
    rows: list[tuple[int, int]] = []
    for low, increment in sorted(edges):
        edge, step_e4 = price_e4(low), price_e4(increment)
        if edge is None or step_e4 is None or step_e4 <= 0 or edge < 0:
            raise BadInput(f"price step {increment!r} from {low!r} cannot be read")
        rows.append((edge, step_e4))
    ends = [start for start, _ in rows[1:]] + [int(_FAR)]
    return tuple(
        PriceRange(PriceE4(start or step), PriceE4(end), PriceE4(step))
        for (start, step), end in zip(rows, ends, strict=True)
    )


def hours_of(details: ContractDetails) -> tuple[Hours, ...]:
    """The regular sessions that the gateway tells, in order; empty where it tells none that can be read."""
    try:
        zone = ZoneInfo(_ZONES.get(details.timeZoneId, details.timeZoneId))
        texts = [text for text in details.liquidHours.split(";") if "-" in text]
        return tuple(sorted(Hours(*(_moment_ns(end, zone) for end in text.split("-"))) for text in texts))
    except (ValueError, TypeError, ZoneInfoNotFoundError):
        return ()


def _moment_ns(text: str, zone: ZoneInfo) -> int:
    """`20230901:0930` in *zone*, UTC ns."""
    return utc_ns(datetime.strptime(text, "%Y%m%d:%H%M").replace(tzinfo=zone))


def is_open(hours: Sequence[Hours], now_ns: int) -> bool:
    """Whether a session runs."""
    return any(start <= now_ns < end for start, end in hours)


def close_of(hours: Sequence[Hours], now_ns: int) -> int:
    """When the session that runs or comes next ends, UTC ns; 0 where none is known."""
    return next((end for _, end in hours if now_ns < end), 0)


def terms_of(details: ContractDetails, hours: Sequence[Hours]) -> OptionTerms:
    """What an option promises.

    Raises:
        VenueRejected: An index option of a class whose exercise is not known here, code "unknown_class".
        BadInput: The gateway's strike or right is not the symbol's.
    """
    contract = details.contract
    if contract is None:
        raise BadInput("the gateway described no contract")
    name = parse_option_ticker(ticker_of(contract))
    if price_e4(contract.strike) != name.strike or not contract.right.startswith(name.right.value):
        raise BadInput(
            f"contract {contract.localSymbol!r} has strike {contract.strike} and right {contract.right!r}"
        )
    known = CLASSES.get(name.root)
    if known is None and details.underSecType == "IND":
        raise VenueRejected(
            f"how index options of class {name.root!r} are exercised is not known here",
            code="unknown_class",
            hint=f"known: {', '.join(sorted(CLASSES))}",
        )
    underlying = known.underlying if known else details.underSymbol or contract.symbol
    return OptionTerms(
        underlying=underlying,
        root=name.root,
        expiry=name.expiry,
        right=name.right,
        strike=name.strike,
        style=known.style if known else ExerciseStyle.AMERICAN,
        settlement=SettlementStyle.CASH if known else SettlementStyle.PHYSICAL,
        expires_ns=expires_ns(name.expiry, hours, at_open=known is not None and known.at_open),
    )


def expires_ns(expiry: int, hours: Sequence[Hours], *, at_open: bool) -> int:
    """When the payoff of a contract of *expiry* (yyyymmdd) is fixed, UTC ns; see the head of this file."""
    day = date(expiry // 10_000, expiry // 100 % 100, expiry % 100)
    fixed_ns = utc_ns(datetime.combine(day, time(9, 30) if at_open else time(16), NEW_YORK))
    if at_open:
        return fixed_ns
    begins_ns = utc_ns(datetime.combine(day, time(0), NEW_YORK))
    ends = [end for _, end in hours if begins_ns < end <= fixed_ns]
    return max(ends, default=fixed_ns)


def listed_of(
    ticker: str, details: ContractDetails, steps: Sequence[PriceIncrement], *, now_ns: int, fee: MoneyE6
) -> Listed:
    """One option or stock as the gateway describes it.

    Raises:
        VenueRejected: A class whose exercise is not known here.
        BadInput: Something in the description cannot be read.
    """
    contract = details.contract
    if contract is None:
        raise not_found(ticker)
    hours = hours_of(details)
    terms = terms_of(details, hours) if contract.secType == "OPT" else None
    instrument = Instrument(
        venue=VENUE,
        ticker=ticker,
        kind=InstrumentKind.STOCK if terms is None else InstrumentKind.OPTION,
        option=terms,
        multiplier=1 if terms is None else multiplier_of(contract),
        price_ranges=grid_of(steps, details.minTick),
        fee_per_contract=fee,
    )
    contract.exchange = SMART
    return at(Listed(instrument, contract, hours), now_ns)


def multiplier_of(contract: Contract) -> int:
    """Units of the underlying per contract; 1 of a share.

    Raises:
        BadInput: An option of which the gateway does not say it; there is no default.
    """
    if contract.secType != "STK" and contract.multiplier.isdigit():
        return int(contract.multiplier)
    if contract.secType == "OPT":
        raise BadInput(f"option {contract.localSymbol!r} has the multiplier {contract.multiplier!r}")
    return 1


def combo_of(ticker: str, legs: Sequence[tuple[Listed, int]], *, now_ns: int, fee: MoneyE6) -> Listed:
    """A combination of known contracts.

    Raises:
        BadInput: Legs of several multipliers or underlyings.
    """
    instrument = Instrument(
        venue=VENUE,
        ticker=ticker,
        kind=InstrumentKind.COMBO,
        legs=tuple(ComboLeg(leg.instrument, ratio) for leg, ratio in legs),
        multiplier=legs[0][0].instrument.multiplier,
        price_ranges=_combo_grid(legs),
        fee_per_contract=fee,
    )
    contract = bag_of(
        instrument.underlying, [(leg.contract.conId, ratio) for leg, ratio in legs if leg.contract]
    )
    hours = min((leg.hours for leg, _ in legs), key=lambda stretches: close_of(stretches, now_ns))
    return at(Listed(instrument, contract, hours), now_ns)


def _combo_grid(legs: Iterable[tuple[Listed, int]]) -> tuple[PriceRange, ...]:
    """The finest step of its legs, at any sign: no market rule of a bag is told, and a finer price is refused (110)."""
    step = min(stretch.step for leg, _ in legs for stretch in leg.instrument.price_ranges)
    end = PriceE4(_FAR // step * step)
    return (PriceRange(PriceE4(-end), end, step),)


def at(listed: Listed, now_ns: int) -> Listed:
    """*listed* as it stands at *now_ns*: open or not, and until when."""
    instrument = listed.instrument
    ends = [leg.instrument.option.expires_ns for leg in instrument.parts if leg.instrument.option]
    last_ns = min(ends, default=0)
    is_over = 0 < last_ns <= now_ns
    closes_ns = close_of(listed.hours, now_ns)
    closes_ns = min(closes_ns or last_ns, last_ns or closes_ns)
    opened = is_open(listed.hours, now_ns) and not is_over
    return listed._replace(
        instrument=_replaced(
            instrument,
            is_open=opened,
            close_ns=closes_ns,
            status="expired" if is_over else "open" if opened else "closed",
        )
    )


def legs_of(ticker: str) -> tuple[tuple[str, int], ...]:
    """The legs of a combination's name.

    Raises:
        VenueRejected: It names none, code "not_found".
    """
    try:
        return parse_combo_ticker(ticker) if is_combo(ticker) else ()
    except BadInput:
        raise not_found(ticker) from None


def _replaced(instrument: Instrument, *, is_open: bool, close_ns: int, status: str) -> Instrument:
    return msgspec.structs.replace(instrument, is_open=is_open, close_ns=close_ns, status=status)
