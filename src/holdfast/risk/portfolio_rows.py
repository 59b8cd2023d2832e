"""May this order enter the portfolio? Greeks and exposure of the whole book, as rows of the gate.

    portfolio_facts(account, market, intent, limits, now_ns)   what is read, under the gate's lock
    portfolio_rows(facts, limits, reducing=…)                  every row, from these facts alone
    passes_portfolio(facts, limits, reducing=…)                the same verdict without rows

The rows, in this order; the first that does not pass is the reason:

    portfolio_delta, portfolio_gamma, symbol_delta, concentration, correlated_exposure, total_exposure_cap,
    max_positions

What a row cannot know, it refuses in its place under the name of what is missing: greeks_unknown, greeks_stale,
equity_unknown, unbounded_loss. `value > bound` refuses, equal passes. A row refuses only what makes its own
measure worse, and never a reducing order.

A Greek is held against its bound on the side to which the order pushes: what is held, every working order that
pushes there, and the order. Exposure counts the order as filled or not, whichever is worse. A share of a base is
multiplied out, rounded down and compared as money, which is the same as to cross-multiply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from holdfast.core.reasons import Code
from holdfast.core.signals import Intent
from holdfast.risk.account import Account
from holdfast.risk.exposure import worst_loss
from holdfast.risk.limits import PPM, PortfolioBounds, RiskLimitsConfig
from holdfast.risk.market import Holdings, Market
from holdfast.risk.portfolio_book import Loss, Pressure, parcel_of, read_book, structures_of
from holdfast.risk.rows import MILLIS, POSITIONS, SHARES, USD, Row

ACCOUNT = "account"


class PortfolioFacts(msgspec.Struct, frozen=True, gc=False):
    """What the rows of a portfolio read; integers, and the names of what they concern.

    Attributes:
        symbol, group: The order's underlying and its group.
        delta, gamma, symbol_delta: Of the portfolio, and of the underlying.
        order_delta: Marginal, of the order, 1e-6 share-equivalents.
        order_gamma: None where a question leaves it out: then the present book is judged.
        position: Of the structures that the order concerns.
        exposure: Of its underlying.
        group_rest, total_rest: What the other underlyings of the group, and all others, can still lose, 1e-6
            dollar; None where nothing bounds it or a value is unknown.
        equity: The account's value, 1e-6 dollar; None when unknown.
        order_loss: What the order alone can lose; None where nothing bounds it.
        positions, positions_after: Structures held or working, before and with the order.
        missing: A contract held, working or ordered whose Greeks nobody knows; "" when all are known.
        stale: The contract with the oldest Greeks, stale_ns: their age.
    """

    symbol: str = ""
    group: str = ""
    delta: Pressure = Pressure()
    gamma: Pressure = Pressure()
    symbol_delta: Pressure = Pressure()
    order_delta: int = 0
    order_gamma: int | None = 0
    position: Loss = Loss()
    exposure: Loss = Loss()
    group_rest: int | None = 0
    total_rest: int | None = 0
    equity: int | None = None
    order_loss: int | None = 0
    positions: int = 0
    positions_after: int = 0
    missing: str = ""
    stale: str = ""
    stale_ns: int = 0

    def compact(self) -> list[Any]:
        """Every value in order, as a decision record holds them."""
        return [
            list(msgspec.structs.astuple(value)) if isinstance(value, Pressure | Loss) else value
            for value in msgspec.structs.astuple(self)
        ]

    @classmethod
    def from_compact(cls, values: Sequence[Any]) -> PortfolioFacts:
        """The facts that a decision record holds."""
        named = dict(zip(cls.__struct_fields__, values, strict=True))
        for name in ("delta", "gamma", "symbol_delta"):
            named[name] = Pressure(*named[name])
        for name in ("position", "exposure"):
            named[name] = Loss(*named[name])
        return cls(**named)

    @property
    def group_after(self) -> int | None:
        """What the group can lose with the order."""
        return total((self.exposure.after, self.group_rest))

    @property
    def total_after(self) -> int | None:
        """What the portfolio can lose with the order."""
        return total((self.exposure.after, self.total_rest))


def portfolio_facts(  # noqa: PLR0917  all of them are read together
    account: Account,
    market: Market,
    intent: Intent,
    limits: RiskLimitsConfig,
    now_ns: int,
    plan: str = "",
    holdings: Holdings | None = None,
) -> PortfolioFacts:
    """What is known now, for *intent*; the caller holds the account's lock.

    Args:
        account: Of the gate.
        market: Of the gate.
        intent: For an option, a combination or a stock.
        limits: They say which underlyings belong together.
        now_ns: Clock monotonic.
        plan: Of which plan *intent* is a step; its share is left out.
        holdings: The positions at their prices, where the caller has them at hand.
    """
    book = read_book(account, market, but=plan, holdings=holdings)
    parcel = parcel_of(intent, book.seen)
    symbol = intent.instrument.underlying
    group, own = limits.group(symbol), book.of(symbol)
    ends = structures_of((), [parcel.work])
    rest = {name: other.loss().before for name, other in book.symbols.items() if name != symbol}
    structures = book.structures
    exposure = own.loss(parcel.work)
    return PortfolioFacts(
        symbol=symbol,
        group=group,
        delta=book.delta,
        gamma=book.gamma,
        symbol_delta=own.delta,
        order_delta=parcel.delta,
        order_gamma=parcel.gamma,
        position=exposure if own.is_all_of(ends) else own.loss(parcel.work, ends),
        exposure=exposure,
        group_rest=total(loss for name, loss in rest.items() if limits.group(name) == group),
        total_rest=total(rest.values()),
        equity=book.equity,
        order_loss=worst_loss(parcel.work.parts, parcel.work.cash),
        positions=len(structures),
        positions_after=len(structures | {(symbol, end) for end in ends}),
        missing=book.seen.missing,
        stale=book.seen.oldest,
        stale_ns=max(0, now_ns - book.seen.oldest_ns) if book.seen.oldest else 0,
    )


# The rows -----------------------------------------------------------------------------------------------


def portfolio_rows(facts: PortfolioFacts, limits: RiskLimitsConfig, *, reducing: bool) -> tuple[Row, ...]:
    """Every row, in the fixed order."""
    bounds, symbol, group = limits.bounds, facts.symbol, facts.group
    delta, gamma, cap = facts.order_delta, facts.order_gamma, bounds.exposure_e6
    greeks = (
        (Code.PORTFOLIO_DELTA, ACCOUNT, facts.delta, delta, bounds.delta_e6),
        (Code.PORTFOLIO_GAMMA, ACCOUNT, facts.gamma, gamma, bounds.gamma_e6),
        (Code.SYMBOL_DELTA, symbol, facts.symbol_delta, delta, bounds.symbol_delta_e6),
    )
    single, shared = (share_of(facts, bounds, ppm) for ppm in (bounds.position_ppm, bounds.correlated_ppm))
    losses = (
        (Code.CONCENTRATION, symbol, facts.position, facts.position.after, single),
        (Code.CORRELATED_EXPOSURE, group, facts.exposure, facts.group_after, shared),
    )
    unknown = _unknown_greeks(facts, bounds, reducing=reducing)
    return (
        *(unknown or _greek_row(*row, reducing=reducing) for row in greeks),
        *(_loss_row(*row, facts, reducing=reducing) for row in losses),
        Row(Code.TOTAL_EXPOSURE_CAP, ACCOUNT, 0, 0, "", ok=True)
        if cap is None
        else _loss_row(
            Code.TOTAL_EXPOSURE_CAP, ACCOUNT, facts.exposure, facts.total_after, cap, facts, reducing=reducing
        ),
        _positions_row(facts, bounds.positions, reducing=reducing),
    )


def passes_portfolio(facts: PortfolioFacts, limits: RiskLimitsConfig, *, reducing: bool) -> bool:
    """Whether no row of `portfolio_rows` would refuse, told without rows."""
    if reducing:
        return True
    bounds, delta, cap = limits.bounds, facts.order_delta, limits.bounds.exposure_e6
    return (
        not facts.missing
        and facts.stale_ns <= bounds.greeks_age_ns
        and _is_greek_ok(facts.delta, delta, bounds.delta_e6)
        and _is_greek_ok(facts.gamma, facts.order_gamma, bounds.gamma_e6)
        and _is_greek_ok(facts.symbol_delta, delta, bounds.symbol_delta_e6)
        and _is_loss_ok(facts.position, facts.position.after, share_of(facts, bounds, bounds.position_ppm))
        and _is_loss_ok(facts.exposure, facts.group_after, share_of(facts, bounds, bounds.correlated_ppm))
        and (cap is None or _is_loss_ok(facts.exposure, facts.total_after, cap))
        and _are_positions_ok(facts, bounds.positions)
    )


def share_of(facts: PortfolioFacts, bounds: PortfolioBounds, ppm: int) -> int | None:
    """The most that *ppm* of the base allows, 1e-6 dollar; None when the base is unknown.

    A whole number is above a ratio of the base exactly when it is above this.
    """
    base = facts.equity if bounds.is_of_equity else facts.total_after
    return None if base is None else base * ppm // PPM


def total(losses: Iterable[int | None]) -> int | None:
    """Their sum; None when one is."""
    result = 0
    for loss in losses:
        if loss is None:
            return None
        result += loss
    return result


def _unknown_greeks(facts: PortfolioFacts, bounds: PortfolioBounds, *, reducing: bool) -> Row | None:
    """What stands in the place of each Greek's row while Greeks are missing or too old."""
    if facts.missing:
        return Row(Code.GREEKS_UNKNOWN, facts.missing, 0, 0, "", reducing)
    if facts.stale_ns > bounds.greeks_age_ns:
        return Row(Code.GREEKS_STALE, facts.stale, facts.stale_ns, bounds.greeks_age_ns, MILLIS, reducing)
    return None


def _greek_row(
    code: Code, scope: str, pressure: Pressure, change: int | None, bound: int, *, reducing: bool
) -> Row:
    value = pressure.after(change or 0)
    return Row(code, scope, value, bound, SHARES, reducing or _is_greek_ok(pressure, change, bound))


def _is_greek_ok(pressure: Pressure, change: int | None, bound: int) -> bool:
    """A question without its gamma is judged by the book as it is."""
    return change == 0 or pressure.after(change or 0) <= bound


def _loss_row(  # noqa: PLR0917  a row of the table above, and what it is read with
    code: Code,
    scope: str,
    own: Loss,
    after: int | None,
    bound: int | None,
    facts: PortfolioFacts,
    *,
    reducing: bool,
) -> Row:
    ok = reducing or _is_loss_ok(own, after, bound)
    if after is None and (own.slope_after or facts.equity is not None):
        return Row(Code.UNBOUNDED_LOSS, scope, 0, 0, "", ok)
    if after is None or bound is None:
        return Row(Code.EQUITY_UNKNOWN, scope, 0, 0, "", ok)
    return Row(code, scope, after, bound, USD, ok)


def _is_loss_ok(own: Loss, after: int | None, bound: int | None) -> bool:
    return (after is not None and bound is not None and after <= bound) or not own.is_worse


def _positions_row(facts: PortfolioFacts, bound: int | None, *, reducing: bool) -> Row:
    ok = reducing or _are_positions_ok(facts, bound)
    unit = "" if bound is None else POSITIONS
    return Row(Code.MAX_POSITIONS, ACCOUNT, facts.positions_after, bound or 0, unit, ok)


def _are_positions_ok(facts: PortfolioFacts, bound: int | None) -> bool:
    return bound is None or facts.positions_after <= bound or facts.positions_after <= facts.positions
