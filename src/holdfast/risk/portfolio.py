"""`PortfolioLimitsChecker`: would a new position fit into the portfolio, is it healthy, how much is left?

    allowed, reason = await checker.check_entry_allowed(5.0, "SPY", 1_500, new_position_gamma=0.2)

Questions: they are judged by the rows of the gate (`portfolio_rows`) and reserve nothing, however often they are
asked; only the gate reserves, and it asks again. What the portfolio is comes from a `RiskCalculator`; `AccountRisk`
is the one over a gate's own account and market. Every question becomes one risk event, allowed or not.

What is unknown refuses by its own name: Greeks that are missing, not a number or too old (greeks_unknown,
greeks_stale), an equity that nobody knows (equity_unknown), a loss without bound (unbounded_loss). A calculator that
fails, or says what is no `PortfolioRisk`, leaves everything unknown; the refusal says how it failed.

Limits: a question knows the new position by three numbers. Its concentration is that of the position alone, unless
`expiry` says which structure it joins; the gate, which sees the legs, is never kinder. Without its gamma the
present book is judged, and the event says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from decimal import ROUND_UP, Decimal
from typing import Any, NamedTuple, Protocol, TypedDict, cast

import msgspec

from holdfast.core.clock import Clock, SystemClock
from holdfast.core.errors import BadInput
from holdfast.core.money import MoneyE6, format_money
from holdfast.core.reasons import Code, RejectReason
from holdfast.risk.events import PORTFOLIO_LIMITS, RiskEvent, RiskEventSink, RiskEventType
from holdfast.risk.gate import Gate
from holdfast.risk.limits import Number, RiskLimits, RiskLimitsConfig
from holdfast.risk.portfolio_book import Loss, Pressure, SymbolBook, read_book
from holdfast.risk.portfolio_rows import ACCOUNT, PortfolioFacts, portfolio_rows, share_of, total
from holdfast.risk.rows import MILLIS, POSITIONS, SHARES, USD, Row

_ONE_E6 = 1_000_000
_MICRO = Decimal("0.000001")
_log = logging.getLogger("holdfast.risk.limits")


class EntryCheck(NamedTuple):
    """The answer: whether it would be allowed, and why not; the reason begins with its code and is None when allowed."""

    allowed: bool
    reason: str | None


class RemainingCapacity(TypedDict):
    """What still fits; nothing where something is unknown.

    `delta` and `symbol_delta` are share-equivalents towards the side that has less left, `exposure` the dollars that
    one further position may still lose, `position_count` how many more structures; None where they are not limited.
    """

    delta: float
    symbol_delta: float
    exposure: Decimal
    position_count: int | None


class SymbolRisk(msgspec.Struct, frozen=True):
    """One underlying.

    Attributes:
        delta, gamma: Held and working, 1e-6 share-equivalents.
        exposure: What can still be lost, 1e-6 dollar; None when unknown or without bound.
        by_expiry: The same of each structure, by its day as yyyymmdd (0: stock alone); empty where nobody says.
    """

    delta: Pressure = Pressure()
    gamma: Pressure = Pressure()
    exposure: int | None = 0
    by_expiry: Mapping[int, int | None] = {}


class PortfolioRisk(msgspec.Struct, frozen=True, kw_only=True):
    """What a portfolio is at one moment.

    Attributes:
        symbols: By underlying.
        equity: The account's value, 1e-6 dollar; None when unknown.
        as_of_ns: When the oldest of the Greeks were true, clock monotonic.
        missing: Whose Greeks nobody knows; "" when all are known.
        oldest: Whose Greeks are the oldest, for people.
        positions: Structures held or working.
    """

    symbols: Mapping[str, SymbolRisk]
    equity: int | None
    as_of_ns: int
    missing: str = ""
    oldest: str = ""
    positions: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no whole number: a NaN among them would pass for healthy.

        Raises:
            BadInput: It names the number.
        """
        numbers = {"equity": self.equity, "as_of_ns": self.as_of_ns}
        numbers |= {f"exposure of {name}": symbol.exposure for name, symbol in self.symbols.items()}
        for what, number in numbers.items():
            if number is not None and type(number) is not int:
                raise BadInput(
                    f"{what} {number!r} is a {type(number).__name__}, expected whole 1e-6 dollar or ns",
                    hint="PortfolioRisk.of(…) reads numbers as people have them",
                )

    @classmethod
    def of(
        cls,
        *,
        delta: Mapping[str, Number | None],
        gamma: Mapping[str, Number | None],
        exposure: Mapping[str, Number | None],
        equity: Number | None,
        as_of_ns: int,
        positions: int | None = None,
    ) -> PortfolioRisk:
        """From numbers as people have them, per underlying: share-equivalents and dollars.

        None, NaN and infinities are unknown. Nothing is taken to be working.

        Args:
            delta: Of what is held; an underlying that is not named in all three has nothing there.
            gamma: Likewise.
            exposure: What can still be lost.
            equity: The account's value.
            as_of_ns: When all of this was true, clock monotonic.
            positions: How many; by default the number of underlyings.

        Raises:
            BadInput: Something that is no number at all.
        """
        names = sorted({*delta, *gamma, *exposure})
        missing, symbols = "", dict[str, SymbolRisk]()
        for name in names:
            slope, curve = _e6(delta.get(name, 0), "delta"), _e6(gamma.get(name, 0), "gamma")
            if slope is None or curve is None:
                missing = missing or name
            symbols[name] = SymbolRisk(
                Pressure(slope or 0), Pressure(curve or 0), _e6(exposure.get(name, 0), "exposure")
            )
        return cls(
            symbols=symbols,
            equity=_e6(equity, "equity"),
            as_of_ns=as_of_ns,
            missing=missing,
            positions=len(names) if positions is None else positions,
        )

    @property
    def delta(self) -> Pressure:
        """Over all underlyings."""
        return sum((symbol.delta for symbol in self.symbols.values()), Pressure())

    @property
    def gamma(self) -> Pressure:
        """Over all underlyings."""
        return sum((symbol.gamma for symbol in self.symbols.values()), Pressure())

    def of_symbol(self, name: str) -> SymbolRisk:
        """One underlying; nothing where it is not held."""
        return self.symbols.get(name) or SymbolRisk()

    def of_group(self, group: str, limits: RiskLimitsConfig, *, but: str = "") -> int | None:
        """What the underlyings of *group*, *but* one, can still lose."""
        return total(
            symbol.exposure
            for name, symbol in self.symbols.items()
            if name != but and limits.group(name) == group
        )

    def exposure(self, *, but: str = "") -> int | None:
        """What all underlyings, *but* one, can still lose."""
        return total(symbol.exposure for name, symbol in self.symbols.items() if name != but)


class RiskCalculator(Protocol):
    """Where a checker learns what the portfolio is."""

    def portfolio_risk(self) -> PortfolioRisk:
        """All of one moment."""
        ...


class AccountRisk:
    """The portfolio of a gate's account at the prices and Greeks of its market.

    Args:
        gate: Whose account; may be set anew.
        clock: The gate's.
    """

    def __init__(self, gate: Gate, *, clock: Clock | None = None) -> None:
        self.gate = gate
        self._clock = clock or SystemClock()

    def portfolio_risk(self) -> PortfolioRisk:
        """Read under the account's lock; an equity that rests on old prices is unknown."""
        account, market, limits = self.gate.account, self.gate.market, self.gate.limits
        with account.lock:
            book, now_ns = read_book(account, market), self._clock.monotonic_ns()
            holdings = market.holdings(account.portfolio.positions)
            is_fresh = holdings.are_fresh(now_ns, market.alive_ns, limits.max_mark_age_ns)
        return PortfolioRisk(
            symbols={name: _symbol_risk(symbol) for name, symbol in book.symbols.items()},
            equity=book.equity if is_fresh else None,
            as_of_ns=book.seen.oldest_ns if book.seen.oldest else now_ns,
            missing=book.seen.missing,
            oldest=book.seen.oldest,
            positions=len(book.structures),
        )


class PortfolioLimitsChecker:
    """Questions to the limits of a portfolio.

    Args:
        risk_calc: Says what the portfolio is.
        limits: What it may not exceed.
        event_logger: Gets one event per question and per warning; None is fine.
        clock: To know the age of Greeks; by default the machine's.
        in_force: Says the limits of now where these can change, as those of a gate can; they win over *limits*.

    Attributes:
        risk_calc: As given.
    """

    def __init__(
        self,
        risk_calc: RiskCalculator,
        limits: RiskLimitsConfig,
        event_logger: RiskEventSink | None = None,
        *,
        clock: Clock | None = None,
        in_force: Callable[[], RiskLimits] | None = None,
    ) -> None:
        self.risk_calc = risk_calc
        self._limits = limits
        self._events = event_logger
        self._clock = clock or SystemClock()
        self._in_force = in_force

    @property
    def limits(self) -> RiskLimitsConfig:
        """What the portfolio may not exceed now."""
        portfolio = None if self._in_force is None else self._in_force().portfolio
        return portfolio or self._limits

    async def check_entry_allowed(
        self,
        new_position_delta: Number,
        symbol: str,
        position_value: Number | None,
        *,
        new_position_gamma: Number | None = None,
        expiry: int | None = None,
        intent_id: str = "",
    ) -> EntryCheck:
        """Would a new position be allowed now? Reserves nothing.

        Args:
            new_position_delta: Marginal, of all its legs: Greek x contracts x multiplier; signed.
            symbol: Its underlying.
            position_value: What it can lose, dollars, at least 0; None where nothing bounds it.
            new_position_gamma: Like its delta; left out, the present book's gamma is judged.
            expiry: Its day as yyyymmdd: then what that structure can lose already counts as the same position.
            intent_id: Stands in the event.

        Raises:
            BadInput: Something that is no number at all.
        """
        if not isinstance(cast("object", symbol), str) or not symbol:
            raise BadInput(f"symbol {symbol!r} names no underlying", hint="such as 'SPY'")
        given = {
            "new_position_delta": str(new_position_delta),
            "new_position_gamma": "" if new_position_gamma is None else str(new_position_gamma),
            "position_value": str(position_value),
            "gamma": "of the present book" if new_position_gamma is None else "marginal",
        }
        delta, value = _e6(new_position_delta, "new_position_delta"), _e6(position_value, "position_value")
        gamma = None if new_position_gamma is None else _e6(new_position_gamma, "new_position_gamma")
        if position_value is not None and (value is None or value < 0):
            row = Row(Code.BAD_INPUT, "position_value", 0, 0, "", ok=False)
            return self._answer((row,), symbol, intent_id, given)
        risk = self._risk()
        facts = self._facts(risk, symbol, delta or 0, gamma, value=value, expiry=expiry)
        if delta is None or (gamma is None and new_position_gamma is not None):
            facts = msgspec.structs.replace(facts, missing=facts.missing or f"new position on {symbol}")
        return self._answer(portfolio_rows(facts, self.limits, reducing=False), symbol, intent_id, given)

    async def check_portfolio_health(self) -> list[str]:
        """What is beyond its limit, or unknown, as things stand; one line and one event each, empty when healthy."""
        rows = [row for row in self._present(self._risk()) if not row.ok]
        warnings = [str(_reason(row, "")) for row in rows]
        for row, text in zip(rows, warnings, strict=True):
            self._emit(RiskEventType.PORTFOLIO_LIMIT_WARNING, row, rejection_reason=text)
        return warnings

    async def get_remaining_capacity(self, symbol: str) -> RemainingCapacity:
        """How much more fits, for *symbol*."""
        risk, bounds = self._risk(), self.limits.bounds
        facts = self._facts(risk, symbol)
        is_known = not facts.missing and facts.stale_ns <= bounds.greeks_age_ns
        rooms = [
            _room(share_of(facts, bounds, bounds.position_ppm), 0),
            _room(share_of(facts, bounds, bounds.correlated_ppm), facts.group_after),
        ]
        if bounds.exposure_e6 is not None:
            rooms.append(_room(bounds.exposure_e6, facts.total_after))
        return RemainingCapacity(
            delta=_room(bounds.delta_e6, facts.delta.worst) / _ONE_E6 if is_known else 0.0,
            symbol_delta=_room(bounds.symbol_delta_e6, facts.symbol_delta.worst) / _ONE_E6
            if is_known
            else 0.0,
            exposure=Decimal(min(rooms)) * _MICRO,
            position_count=None if bounds.positions is None else max(0, bounds.positions - risk.positions),
        )

    def _risk(self) -> PortfolioRisk:
        """What the portfolio is; nothing is known of it where the calculator fails."""
        try:
            risk = cast("object", self.risk_calc.portfolio_risk())
        except Exception as why:  # noqa: BLE001  somebody else's task ends here, and what is unknown is refused
            failure = f"risk_calc: {type(why).__name__}: {str(why)[:200]}"
        else:
            if isinstance(risk, PortfolioRisk):
                return risk
            failure = f"risk_calc: it said {type(risk).__name__}, no PortfolioRisk"
        _log.error("%s", failure)
        return PortfolioRisk(symbols={}, equity=None, as_of_ns=0, missing=failure)

    def _facts(
        self,
        risk: PortfolioRisk,
        symbol: str,
        delta: int = 0,
        gamma: int | None = 0,
        *,
        value: int | None = 0,
        expiry: int | None = None,
    ) -> PortfolioFacts:
        """What the rows read, for a position that can lose *value*; None is without bound."""
        group = self.limits.group(symbol)
        own = risk.of_symbol(symbol)
        held = 0 if expiry is None else own.by_expiry.get(expiry, 0)
        joins = expiry is not None and expiry in own.by_expiry
        return PortfolioFacts(
            symbol=symbol,
            group=group,
            delta=risk.delta,
            gamma=risk.gamma,
            symbol_delta=own.delta,
            order_delta=delta,
            order_gamma=gamma,
            position=Loss(held, total((held, value))),
            exposure=Loss(own.exposure, total((own.exposure, value))),
            group_rest=risk.of_group(group, self.limits, but=symbol),
            total_rest=risk.exposure(but=symbol),
            equity=risk.equity,
            order_loss=value,
            positions=risk.positions,
            positions_after=risk.positions + (not joins),
            missing=risk.missing,
            stale=risk.oldest,
            stale_ns=max(0, self._clock.monotonic_ns() - risk.as_of_ns) if risk.symbols else 0,
        )

    def _present(self, risk: PortfolioRisk) -> list[Row]:
        """The portfolio as it is against every limit, each underlying, structure and group for itself."""
        limits, bounds = self.limits, self.limits.bounds
        facts = self._facts(risk, "")
        single, shared = (
            share_of(facts, bounds, ppm) for ppm in (bounds.position_ppm, bounds.correlated_ppm)
        )
        rows: list[Row] = []
        if facts.missing:
            rows.append(Row(Code.GREEKS_UNKNOWN, facts.missing, 0, 0, "", ok=False))
        elif facts.stale_ns > bounds.greeks_age_ns:
            rows.append(
                _present(Code.GREEKS_STALE, facts.stale, facts.stale_ns, bounds.greeks_age_ns, MILLIS)
            )
        rows.append(_present(Code.PORTFOLIO_DELTA, ACCOUNT, facts.delta.worst, bounds.delta_e6, SHARES))
        rows.append(_present(Code.PORTFOLIO_GAMMA, ACCOUNT, facts.gamma.worst, bounds.gamma_e6, SHARES))
        rows += [
            _present(Code.SYMBOL_DELTA, name, symbol.delta.worst, bounds.symbol_delta_e6, SHARES)
            for name, symbol in risk.symbols.items()
        ]
        if risk.equity is None and bounds.is_of_equity and risk.symbols:
            rows.append(Row(Code.EQUITY_UNKNOWN, ACCOUNT, 0, 0, "", ok=False))
        # Without a price for all that is held no loss can be told, also one that has an end.
        endless = Code.UNBOUNDED_LOSS if risk.equity is not None else Code.EQUITY_UNKNOWN
        rows += [
            _present(Code.CONCENTRATION, f"{name} {day}", loss, single, USD, endless)
            for name, symbol in risk.symbols.items()
            for day, loss in symbol.by_expiry.items()
        ]
        groups = {limits.group(name) for name in risk.symbols}
        rows += [
            _present(Code.CORRELATED_EXPOSURE, group, risk.of_group(group, limits), shared, USD, endless)
            for group in sorted(groups)
        ]
        if bounds.exposure_e6 is not None:
            rows.append(
                _present(Code.TOTAL_EXPOSURE_CAP, ACCOUNT, risk.exposure(), bounds.exposure_e6, USD, endless)
            )
        if bounds.positions is not None:
            rows.append(_present(Code.MAX_POSITIONS, ACCOUNT, risk.positions, bounds.positions, POSITIONS))
        return rows

    def _answer(
        self, rows: tuple[Row, ...], symbol: str, intent_id: str, given: dict[str, Any]
    ) -> EntryCheck:
        refused = next((row for row in rows if not row.ok), None)
        kind = RiskEventType.PORTFOLIO_LIMIT_CHECK
        reason: str | None = None
        if refused is not None:
            kind = RiskEventType.PORTFOLIO_LIMIT_REJECTION
            reason = str(_reason(refused, symbol))
        metadata = {**given, "rows": [[*_texts(row)] for row in rows]}
        self._emit(kind, refused, symbol, intent_id, metadata, rejection_reason=reason or "")
        return EntryCheck(refused is None, reason)

    def _emit(
        self,
        kind: RiskEventType,
        row: Row | None,
        symbol: str = "",
        intent_id: str = "",
        metadata: dict[str, Any] | None = None,
        *,
        rejection_reason: str = "",
    ) -> None:
        if self._events is None:
            return
        code, scope, value, bound, unit, _ = ("", "", "", "", "", True) if row is None else _texts(row)
        self._events.emit(
            RiskEvent(
                event_type=kind,
                component=PORTFOLIO_LIMITS,
                limit_type=code,
                current_value=value,
                limit_value=bound,
                allowed=None if kind is RiskEventType.PORTFOLIO_LIMIT_WARNING else row is None,
                rejection_reason=rejection_reason,
                metadata=metadata or {},
                symbol=symbol,
                scope=scope,
                unit=unit,
                limits_version=0 if self._in_force is None else self._in_force().version,
                intent_id=intent_id,
            )
        )


def _symbol_risk(book: SymbolBook) -> SymbolRisk:
    days: dict[int, int | None] = {}
    for end in sorted(book.structures, key=lambda end: end or (0, 0)):
        day = 0 if end is None else end[0]
        days[day] = total((days.get(day, 0), book.loss(only={end}).before))
    return SymbolRisk(book.delta, book.gamma, book.loss().before, days)


def _e6(value: object, what: str) -> int | None:
    """A number in 1/1,000,000, rounded away from zero; None where it is none or no finite one."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise BadInput(f"{what} {value!r} is a {type(value).__name__}, expected a number")
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
        if not number.is_finite():
            return None
        return int((number * _ONE_E6).to_integral_value(ROUND_UP))
    except ArithmeticError as error:
        raise BadInput(f"{what} {value!r} is not a number, or beyond all") from error


def _present(  # noqa: PLR0917  a row and what it is called without a value
    code: Code,
    scope: str,
    value: int | None,
    bound: int | None,
    unit: str,
    missing: Code = Code.UNBOUNDED_LOSS,
) -> Row:
    """A row over what is there already; one without a value is named *missing*."""
    if value is None:
        return Row(missing, scope, 0, 0, "", ok=False)
    return Row(code, scope, value, bound or 0, unit, ok=bound is None or value <= bound)


def _room(bound: int | None, taken: int | None) -> int:
    return 0 if bound is None or taken is None else max(0, bound - taken)


def _reason(row: Row, symbol: str) -> RejectReason:
    _, scope, value, bound, unit, _ = _texts(row)
    keys = {"scope": scope} if scope not in {"", symbol} else {}
    return RejectReason(
        code=row.code,
        scope=scope,
        value=value if unit else "",
        bound=bound if unit else "",
        unit=unit,
        keys={"symbol": symbol, **keys} if symbol else keys,
    )


def _texts(row: Row) -> tuple[str, str, str, str, str, bool]:
    """Code, scope, value, bound, unit, whether it passes: as events hold them."""
    value, bound = (_amount(number, row.unit) for number in (row.value, row.bound))
    return row.code.value, row.scope, value, bound, row.unit, row.ok


def _amount(value: int, unit: str) -> str:
    if unit in {USD, SHARES}:
        return format_money(MoneyE6(value))
    if unit == MILLIS:
        return str(value // _ONE_E6)
    return str(value) if unit else ""
