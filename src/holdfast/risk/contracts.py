"""What the gate asks beside its nine checks when the order is of an option, a combination or a stock.

    rules known, expired, near expiry, short on expiry day, unbounded loss, buying power, then the portfolio's rows

A combination is judged by its legs: each may close no more than can be closed of it, each counts against the
position limit, and together they are held against the structure, which is everything held or working on the same
underlying. An order reduces when every leg closes and the structure's worst outcome gets no worse: to buy a
condor's short leg back reduces, to sell its long wing does not.

The loss of an order is its own at the worst spot. Where that has no end, it is what the order takes from the
structure's floor: so a short leg may follow the protective leg that was bought first. Where neither has an end it
is refused by name.

Limits: a combination's legs are counted as filled together, as the venue promises; of one filled in part the legs
still open count at no credit. Interest, dividends and assignment before expiry are left out.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from holdfast.core.clock import NANOS, utc
from holdfast.core.errors import BadInput
from holdfast.core.instruments import Instrument, InstrumentKind
from holdfast.core.money import MoneyE6, QtyE2
from holdfast.core.reasons import Code
from holdfast.core.signals import Intent, Side
from holdfast.risk.account import Account
from holdfast.risk.exposure import Part, Work, floor, lowers_floor, worst_loss
from holdfast.risk.limits import RiskLimits
from holdfast.risk.market import Market
from holdfast.risk.portfolio_book import open_cash, part_of
from holdfast.risk.portfolio_rows import PortfolioFacts, passes_portfolio, portfolio_rows
from holdfast.risk.rows import MILLIS, USD, Row
from holdfast.risk.terms import Terms

TRADING_ZONE: Final = ZoneInfo("America/New_York")
"""An expiry is a day of this zone."""


class Holding(NamedTuple):
    """What the account holds and works in one leg: signed position, working buys and sells, 1/100."""

    position: QtyE2
    buys: QtyE2
    sells: QtyE2


class ContractFacts(msgspec.Struct, frozen=True, gc=False):
    """What a decision reads beside `Facts` for an order that is not of an event contract.

    Attributes:
        legs: Of each leg, in the order of the instrument's parts.
        parts, works: What is held of the same underlying, and what works in it.
        missing: Something held or working whose rules are not known, so that nothing can be said; "" when all are.
        to_close_ns: Until the day's trading ends; None where the venue does not say.
        to_expiry_ns: Until the first leg expires; None for stock, and where it is not known.
        day: Today in the trading zone, yyyymmdd.
        buying_power: What the broker said it would still carry, 1e-6 dollar; None when nobody asked.
        spoken_for: What was reserved when it said so, and since.
        portfolio: What the portfolio's rows read; None where no such limits are set.
        entering, plans: What plans may still bring in, and every way that they may go, in and out again.
        plan: Of which plan the order is a step, whose own share is not among the rest; "" of none.
        leaves: The step takes a leg of the plan out again: what that may come to was reserved with the plan.
        way_out: Fees of leaving again, of a state that a plan may reach, 1e-6 dollar.
    """

    legs: tuple[Holding, ...]
    parts: tuple[Part, ...]
    works: tuple[Work, ...]
    missing: str
    to_close_ns: int | None
    to_expiry_ns: int | None
    day: int
    buying_power: int | None
    spoken_for: int
    portfolio: PortfolioFacts | None
    entering: tuple[Work, ...] = ()
    plans: tuple[Work, ...] = ()
    plan: str = ""
    leaves: bool = False
    way_out: int = 0


# What is read ---------------------------------------------------------------------------------------------


def contract_facts(
    account: Account,
    market: Market,
    intent: Intent,
    now_ns: int,
    *,
    buying_power: int | None,
    spoken_for: int,
    portfolio: PortfolioFacts | None,
    plan: str = "",
    way_out: int = 0,
) -> ContractFacts:
    """What a decision over *intent* reads at *now_ns* (UTC), the account's lock being held.

    Raises:
        BadInput: The intent names the side no, which only an event contract has.
    """
    instrument = intent.instrument
    if intent.signal.side is not Side.YES:
        raise BadInput(
            f"{instrument.kind.value} {instrument.ticker!r} has no side no; to sell it, say action sell"
        )
    parts, works, missing = structure(account, market, instrument.underlying, but=plan)
    entering, plans, unread = planned(account, market, instrument.underlying, but=plan)
    legs = tuple(
        Holding(account.portfolio.position(ticker), *account.committed(ticker, but=plan))
        for ticker in (leg.instrument.ticker for leg in instrument.parts)
    )
    closes = [end for leg in (instrument, *_instruments(instrument)) if (end := leg.close_ns)]
    ends = [leg.option.expires_ns for leg in _instruments(instrument) if leg.option is not None]
    return ContractFacts(
        legs,
        parts,
        works,
        missing or unread,
        min(closes) - now_ns if closes else None,
        min(ends) - now_ns if ends and all(ends) else None,
        trading_day(now_ns),
        buying_power,
        spoken_for,
        portfolio,
        entering,
        plans,
        plan,
        bool(plan) and account.plans.live[plan].is_way_out(intent.ticker, intent.book_side),
        way_out,
    )


def planned(
    account: Account, market: Market, underlying: str, *, but: str = ""
) -> tuple[tuple[Work, ...], tuple[Work, ...], str]:
    """What plans other than *but* may still bring in on *underlying*, every way they may go, and what is unknown."""
    rules, entering, every = market.instruments, list[Work](), list[Work]()
    for plan in account.plans.others(but):
        unread = [leg.ticker for leg in plan.legs if leg.ticker not in rules]
        if unread:
            return (), (), unread[0]
        if rules[plan.legs[0].ticker].underlying != underlying:
            continue
        for changes, works in ((plan.ways_in(), entering), (plan.ways(), every)):
            ways = [
                Work(tuple(part_of(rules[ticker], qty) for ticker, qty in change.legs), change.cash)
                for change in changes
            ]
            if ways:
                works.append(ways[0]._replace(or_else=tuple(ways[1:])))
    return tuple(entering), tuple(every), ""


def structure(
    account: Account, market: Market, underlying: str, *, but: str = ""
) -> tuple[tuple[Part, ...], tuple[Work, ...], str]:
    """Everything held and everything working on *underlying*, and what keeps that from being known.

    Orders of a plan are counted by `planned`, but for those of the plan *but*.
    """
    rules, missing = market.instruments, ""
    parts: list[Part] = []
    for ticker, qty in account.portfolio.positions.items():
        known = rules.get(ticker)
        if known is None:
            missing = ticker
        elif known.underlying == underlying:
            parts.append(part_of(known, qty))
    works: list[Work] = []
    for order in account.open_orders():
        if order.plan and account.plans.subsumes(order.plan, but=but):
            continue
        lines = order.working
        unknown = [ticker for ticker, _ in lines if ticker not in rules]
        if unknown:
            missing = unknown[0]
        elif (first := rules[lines[0][0]]).underlying == underlying:
            open_parts = tuple(part_of(rules[ticker], qty) for ticker, qty in lines if qty)
            works.append(Work(open_parts, open_cash(order, first.multiplier)))
    return tuple(parts), tuple(works), missing


def trading_day(now_ns: int) -> int:
    """The date in the trading zone, yyyymmdd."""
    day = utc(now_ns).astimezone(TRADING_ZONE)
    return day.year * 10_000 + day.month * 100 + day.day


def _instruments(instrument: Instrument) -> tuple[Instrument, ...]:
    return tuple(leg.instrument for leg in instrument.parts)


# What follows ---------------------------------------------------------------------------------------------


def work_of(order: Terms) -> Work:
    """The order as what it would add to the book and to cash at its limit."""
    sign, instrument = (1 if order.is_bid else -1), order.instrument
    parts = tuple(part_of(leg.instrument, sign * leg.ratio * order.qty) for leg in instrument.parts)
    return Work(parts, -sign * order.yes_price * order.qty * instrument.multiplier)


def is_closing(order: Terms, facts: ContractFacts) -> bool:
    """Whether every leg closes at most what can be closed of it, and the structure's floor is not lowered.

    What a plan takes out again lowers nothing that was not reserved with it.
    While something held is not known, that holds of an order alone that is worth something or nothing at every spot.
    """
    if order.qty <= 0:
        return False
    for (_, is_bid, qty), held in zip(_lines(order), facts.legs, strict=True):
        if qty > (-held.position - held.buys if is_bid else held.position - held.sells):
            return False
    if facts.leaves:
        return True
    work = work_of(order)
    if facts.missing:
        least = floor(work.parts)
        return least is not None and least >= 0
    return not lowers_floor(facts.parts, (*facts.works, *facts.entering), work)


def worst_position(order: Terms, facts: ContractFacts) -> tuple[str, int]:
    """The leg whose position, everything working on its side and this order filled, would be the largest."""
    return max(
        (
            (ticker, held.position + held.buys + qty if is_bid else held.sells + qty - held.position)
            for (ticker, is_bid, qty), held in zip(_lines(order), facts.legs, strict=True)
        ),
        key=lambda line: line[1],
    )


def loss_of(order: Terms, facts: ContractFacts) -> int | None:
    """What the order can lose, fees left out; None where that has no end.

    A plan's leg loses no more than what it takes from the floor of what the legs before it left.
    """
    work = work_of(order)
    alone = worst_loss(work.parts, work.cash)
    if alone is not None and not facts.plan:
        return alone
    works = (*facts.works, *facts.plans)
    before = floor(facts.parts, works)
    after = floor((*facts.parts, *work.parts), works)
    if before is None or after is None:
        return alone
    taken = max(0, before - after - work.cash)
    return taken if alone is None else min(alone, taken)


def fees_of(order: Terms) -> int:
    """The most that the order pays in fees: per contract, leg and side."""
    own = order.instrument.fee_per_contract
    per_unit = sum(
        abs(leg.ratio) * max(own, leg.instrument.fee_per_contract) for leg in order.instrument.parts
    )
    return -(-order.qty * per_unit // 100)


def at_risk_of(order: Terms, facts: ContractFacts, *, reducing: bool) -> int | None:
    """What the order can lose, or what an exit pays; None where that has no end."""
    return max(0, -work_of(order).cash) if reducing else loss_of(order, facts)


def reserve_of(order: Terms, facts: ContractFacts, *, reducing: bool) -> MoneyE6:
    """What is set aside for the order: what is at risk, and the fees."""
    return MoneyE6((at_risk_of(order, facts, reducing=reducing) or 0) + fees_of(order))


# The rows -------------------------------------------------------------------------------------------------


def contract_rows(
    order: Terms, facts: ContractFacts, limits: RiskLimits, *, reducing: bool
) -> tuple[Row, ...]:
    """Every row beside the nine."""
    own = _own_rows(order, facts, limits, reducing=reducing)
    if facts.portfolio is None or limits.portfolio is None:
        return own
    return (*own, *portfolio_rows(facts.portfolio, limits.portfolio, reducing=reducing))


def passes_contract(order: Terms, facts: ContractFacts, limits: RiskLimits, *, reducing: bool) -> bool:
    """Whether no row of `contract_rows` would refuse, nor the position of any leg."""
    if worst_position(order, facts)[1] > limits.max_position:
        return False
    return all(row.ok for row in _own_rows(order, facts, limits, reducing=reducing)) and (
        facts.portfolio is None
        or limits.portfolio is None
        or passes_portfolio(facts.portfolio, limits.portfolio, reducing=reducing)
    )


def _own_rows(order: Terms, facts: ContractFacts, limits: RiskLimits, *, reducing: bool) -> tuple[Row, ...]:
    at_risk = at_risk_of(order, facts, reducing=reducing)
    return (
        Row(Code.INSTRUMENT_UNREAD, facts.missing or order.ticker, 0, 0, "", reducing or not facts.missing),
        check_expired(order, facts),
        check_near_expiry(order, facts, limits, reducing=reducing),
        check_short_on_expiry_day(order, facts, limits, reducing=reducing),
        check_loss(order, at_risk),
        check_buying_power(order, facts, at_risk, reducing=reducing),
    )


def check_expired(order: Terms, facts: ContractFacts) -> Row:
    """Refuse what trades no more."""
    is_over = facts.to_expiry_ns is not None and facts.to_expiry_ns <= 0
    return Row(Code.EXPIRED, order.ticker, 0, 0, "", not is_over)


def check_near_expiry(order: Terms, facts: ContractFacts, limits: RiskLimits, *, reducing: bool) -> Row:
    """Refuse to open anything shortly before the day's trading, or a leg's life, ends; value is how much too late.

    An option whose end is not known is refused.
    """
    late_ns = 0
    if facts.to_close_ns is not None:
        late_ns = limits.no_entry_before_close_secs * NANOS - facts.to_close_ns
    if facts.to_expiry_ns is not None:
        late_ns = max(late_ns, limits.no_entry_before_expiry_secs * NANOS - facts.to_expiry_ns)
    has_end = facts.to_expiry_ns is not None or order.instrument.kind is InstrumentKind.STOCK
    ok = reducing or (late_ns <= 0 and has_end)
    return Row(Code.NEAR_EXPIRY, order.ticker, max(0, late_ns), 0, MILLIS, ok)


def check_short_on_expiry_day(
    order: Terms, facts: ContractFacts, limits: RiskLimits, *, reducing: bool
) -> Row:
    """Refuse to sell an option short on the day it expires, unless that is allowed."""
    is_short = any(
        leg.instrument.option is not None
        and leg.instrument.option.expiry <= facts.day
        and not is_bid
        and held.position - held.sells - qty < 0
        for leg, (_, is_bid, qty), held in zip(order.instrument.parts, _lines(order), facts.legs, strict=True)
    )
    ok = reducing or limits.allow_short_on_expiry_day or not is_short
    return Row(Code.SHORT_ON_EXPIRY_DAY, order.ticker, 0, 0, "", ok)


def check_loss(order: Terms, at_risk: int | None) -> Row:
    """Refuse an order whose loss has no end."""
    return Row(Code.UNBOUNDED_LOSS, order.instrument.underlying, 0, 0, "", at_risk is not None)


def check_buying_power(order: Terms, facts: ContractFacts, at_risk: int | None, *, reducing: bool) -> Row:
    """Refuse what the broker would not carry, everything set aside since it was asked counted; unasked passes."""
    value = facts.spoken_for + (at_risk or 0) + fees_of(order) + facts.way_out
    bound = facts.buying_power
    ok = reducing or bound is None or value <= bound
    return Row(Code.BUYING_POWER, "account", value, value if bound is None else bound, USD, ok)


def _lines(order: Terms) -> tuple[tuple[str, bool, int], ...]:
    """Per leg: ticker, whether it is bought, and how many, 1/100."""
    return tuple(
        (leg.instrument.ticker, order.is_bid is (leg.ratio > 0), abs(leg.ratio) * order.qty)
        for leg in order.instrument.parts
    )
