"""`EntryWorkflow`: when the desk looks for new positions, and everything that must say yes before one is opened.

    reference ─▶ IV rank ─▶ VIX ─▶ positions ─▶ structure ─▶ delta ─▶ price ─▶ check_entry_allowed ─▶ engine (gate)

| rule      | an entry needs                                                               |
| --------- | ---------------------------------------------------------------------------- |
| IV rank   | below 25 (options are cheap: debit structures) or above 50 (dear: credit)      |
| VIX       | below 35                                                                     |
| delta     | of the structure, and of every short leg, below 0.3 in absolute value        |
| positions | fewer than 5 on the symbol, at most 5 in all, this one included              |
| size      | 1 contract                                                                   |

The rules come first, each refusal under its own name; then `check_entry_allowed` is asked, which reserves nothing;
then the engine goes through the gate, which judges again and reserves. What cannot be known refuses: an IV rank that
nobody declared is `reference_unknown`, a chain that lacks a leg is `no_structure`.

Limits: the rules are the published ones of such desks, not a source of profit; IV rank and VIX are as declared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Protocol

import msgspec

from holdfast.core.clock import utc
from holdfast.core.money import MoneyE6, PriceE4, QtyE2, format_money, format_qty
from holdfast.core.reasons import Code, RejectReason
from holdfast.execution.engine import OrderExecutionEngine
from holdfast.execution.executions import Execution
from holdfast.execution.outcomes import EngineResult, Outcome
from holdfast.execution.reference import Reading, ReferenceInput
from holdfast.execution.session import SESSION_ZONE
from holdfast.execution.structures import Missing, Quoted, Structure, StructureKind, StructurePlan, pick
from holdfast.risk.events import RiskEvent, RiskEventSink, RiskEventType

COMPONENT = "entry_rules"
_MILLION = 1_000_000
_HUNDREDTHS = Decimal(100)

CREDIT_PLANS = (StructurePlan(kind=StructureKind.IRON_CONDOR),)
DEBIT_PLANS = (StructurePlan(kind=StructureKind.CALL_DEBIT, delta_e6=290_000),)


class PortfolioQuestion(Protocol):
    """The part of `PortfolioLimitsChecker` that a desk asks."""

    async def check_entry_allowed(
        self,
        new_position_delta: float | Decimal,
        symbol: str,
        position_value: float | Decimal,
        *,
        new_position_gamma: float | Decimal | None = None,
    ) -> tuple[bool, str | None]:
        """Whether it would be allowed, and why not."""
        ...

    async def check_portfolio_health(self) -> Sequence[str]:
        """What is beyond its limit as things stand; each becomes a warning event."""
        ...


class HoldsLimits(Protocol):
    """The part of `RiskManager` that an entry needs."""

    @property
    def portfolio_limits(self) -> PortfolioQuestion | None:
        """Its portfolio limits."""
        ...


class EntryRules(msgspec.Struct, frozen=True, kw_only=True):
    """When a position may be opened; see the table at the head of this file.

    Attributes:
        cheap_below_e2, dear_above_e2: IV rank, 1/100.
        vix_below_e2: 1/100 point.
        delta_below_e6: Per unit of the underlying, absolute, 1/1,000,000.
        per_symbol: Positions on one symbol stay at or below this after the entry.
        positions: Likewise in all.
        units: Size of an entry, 1/100 contract.
        when_cheap, when_dear: What is looked for, in this order; the first that can be had.
    """

    cheap_below_e2: int = 2500
    dear_above_e2: int = 5000
    vix_below_e2: int = 3500
    delta_below_e6: int = 300_000
    per_symbol: int = 5
    positions: int = 5
    units: QtyE2 = QtyE2(100)
    when_cheap: tuple[StructurePlan, ...] = DEBIT_PLANS
    when_dear: tuple[StructurePlan, ...] = CREDIT_PLANS

    def facts(self) -> dict[str, object]:
        """For the record: what is looked for, and within which bounds."""
        return {
            "cheap_below": _e2(self.cheap_below_e2),
            "dear_above": _e2(self.dear_above_e2),
            "vix_below": _e2(self.vix_below_e2),
            "delta_below": f"{self.delta_below_e6 / _MILLION:g}",
            "positions": self.positions,
            "per_symbol": self.per_symbol,
            "contracts": format_qty(self.units),
            "when_cheap": [plan.describe() for plan in self.when_cheap],
            "when_dear": [plan.describe() for plan in self.when_dear],
        }


class EntryOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one look at a symbol.

    Attributes:
        symbol: Which.
        entered: Whether an order went out.
        reason: What stood in the way; "" where nothing did.
        execution_id: Of the entry tried, "" where none was.
        result: What the engine said; None where it was not reached.
    """

    symbol: str
    entered: bool
    reason: str = ""
    execution_id: str = ""
    result: EngineResult | None = None


class _Refusal(msgspec.Struct, frozen=True):
    """A rule that said no."""

    rule: str
    value: str = ""
    bound: str = ""
    unit: str = ""


class EntryWorkflow:
    """Looks for new positions, one symbol at a time.

    Args:
        engine: Sends them.
        reference: IV rank and VIX.
        risk_manager: Its portfolio limits are asked before each entry; None where that layer is off.
        rules: When.
        event_logger: Gets refusals; None is fine.
    """

    def __init__(
        self,
        engine: OrderExecutionEngine,
        reference: ReferenceInput,
        *,
        risk_manager: HoldsLimits | None = None,
        rules: EntryRules | None = None,
        event_logger: RiskEventSink | None = None,
    ) -> None:
        self.rules = rules or EntryRules()
        self._engine = engine
        self._reference = reference
        self._limits = None if risk_manager is None else risk_manager.portfolio_limits
        self._events = event_logger

    async def consider(self, symbol: str, chain: Sequence[Quoted], now_ns: int) -> EntryOutcome:
        """Enter *symbol* if everything says yes; otherwise say, and record, what did not."""
        reading = self._reference.reading(symbol, now_ns)
        if isinstance(reading, RejectReason):
            facts = _Refusal(reading.code.value, reading.value, reading.bound, reading.unit)
            return self._refuse(symbol, facts, metadata=reading.keys)
        live = self._engine.executions.live()
        refusal = self._check_market(reading) or self._check_positions(symbol, live)
        if refusal is not None:
            return self._refuse(symbol, refusal, reading=reading)
        today = utc(now_ns).astimezone(SESSION_ZONE).date()
        structure = self._pick(reading, chain, today)
        if isinstance(structure, Missing):
            return self._refuse(symbol, _Refusal("no_structure", structure.reason), reading=reading)
        quoted = {one.instrument.ticker: one for one in chain}
        refusal = self._check_delta(structure, quoted)
        if refusal is not None:
            return self._refuse(symbol, refusal, reading=reading)
        return await self._enter(structure, quoted, reading)

    # The rules ----------------------------------------------------------------------------------------

    def _check_market(self, reading: Reading) -> _Refusal | None:
        rules = self.rules
        if rules.cheap_below_e2 <= reading.iv_rank_e2 <= rules.dear_above_e2:
            bound = f"{_e2(rules.cheap_below_e2)} to {_e2(rules.dear_above_e2)}"
            return _Refusal("iv_rank", _e2(reading.iv_rank_e2), bound, "rank")
        if reading.vix_e2 >= rules.vix_below_e2:
            return _Refusal("vix", _e2(reading.vix_e2), _e2(rules.vix_below_e2), "points")
        return None

    def _check_positions(self, symbol: str, live: Sequence[Execution]) -> _Refusal | None:
        on_symbol = sum(1 for one in live if one.symbol == symbol) + 1
        if on_symbol > self.rules.per_symbol:
            return _Refusal(
                "max_positions_per_symbol", str(on_symbol), str(self.rules.per_symbol), "positions"
            )
        if len(live) + 1 > self.rules.positions:
            return _Refusal(
                Code.MAX_POSITIONS.value, str(len(live) + 1), str(self.rules.positions), "positions"
            )
        return None

    def _pick(self, reading: Reading, chain: Sequence[Quoted], today: date) -> Structure | Missing:
        is_cheap = reading.iv_rank_e2 < self.rules.cheap_below_e2
        found: Structure | Missing = Missing("nothing is looked for")
        for plan in self.rules.when_cheap if is_cheap else self.rules.when_dear:
            found = pick(plan, chain, today=today)
            if isinstance(found, Structure):
                return found
        return found

    def _check_delta(self, structure: Structure, quoted: Mapping[str, Quoted]) -> _Refusal | None:
        bound = self.rules.delta_below_e6
        deltas = [structure.net_delta_e6(quoted)]
        for leg in structure.legs:
            greeks = quoted[leg.ticker].greeks
            if leg.ratio < 0:
                deltas.append(None if greeks is None else greeks.delta_e6)
        for delta in deltas:
            if delta is None:
                return _Refusal(Code.GREEKS_UNKNOWN.value)
            if abs(delta) >= bound:
                return _Refusal("delta", str(_ratio(abs(delta))), str(_ratio(bound)), "ratio")
        return None

    # Entering -----------------------------------------------------------------------------------------

    async def _enter(
        self, structure: Structure, quoted: Mapping[str, Quoted], reading: Reading
    ) -> EntryOutcome:
        price = structure.entry_price({ticker: (one.bid, one.ask) for ticker, one in quoted.items()})
        if price is None:
            return self._refuse(structure.symbol, _Refusal(Code.QUOTE_ONE_SIDED.value), reading=reading)
        answer = await self._ask(structure, quoted, price)
        if answer:
            # The checker has written its own records of the six checks.
            return EntryOutcome(symbol=structure.symbol, entered=False, reason=answer)
        execution_id = self._engine.executions.name(structure.kind.value, structure.symbol)
        result = await self._engine.open(
            structure, execution_id=execution_id, limit=price, units=self.rules.units
        )
        went_out = result.outcome not in {Outcome.DENIED, Outcome.BREAKER_OPEN, Outcome.NOT_SENT}
        return EntryOutcome(
            symbol=structure.symbol,
            entered=went_out,
            reason="" if went_out else result.reason,
            execution_id=execution_id,
            result=result,
        )

    async def _ask(self, structure: Structure, quoted: Mapping[str, Quoted], price: PriceE4) -> str:
        """What the portfolio's limits have against it; "" for nothing."""
        if self._limits is None:
            return ""
        loss = structure.max_loss(price)
        if loss is None:
            self._refuse(structure.symbol, _Refusal(Code.UNBOUNDED_LOSS.value))
            return Code.UNBOUNDED_LOSS.value
        delta = gamma = 0
        for leg in structure.legs:
            greeks = quoted[leg.ticker].greeks
            if greeks is None:
                return Code.GREEKS_UNKNOWN.value
            shares = leg.ratio * self.rules.units * leg.instrument.multiplier
            delta, gamma = delta + shares * greeks.delta_e6, gamma + shares * greeks.gamma_e6
        size = _HUNDREDTHS * _MILLION
        value = Decimal(format_money(MoneyE6(loss * self.rules.units // 100)))
        allowed, reason = await self._limits.check_entry_allowed(
            Decimal(delta) / size, structure.symbol, value, new_position_gamma=Decimal(gamma) / size
        )
        return "" if allowed else reason or "refused"

    def _refuse(
        self,
        symbol: str,
        refusal: _Refusal,
        *,
        reading: Reading | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> EntryOutcome:
        """No entry, told as an event with what was known of the reference inputs."""
        if self._events is not None:
            known: dict[str, object] = dict(metadata or {})
            if reading is not None:
                known |= {
                    "iv_rank": _e2(reading.iv_rank_e2),
                    "vix": _e2(reading.vix_e2),
                    "assumed": reading.assumed,
                }
            self._events.emit(
                RiskEvent(
                    event_type=RiskEventType.PORTFOLIO_LIMIT_REJECTION,
                    component=COMPONENT,
                    limit_type=refusal.rule,
                    current_value=refusal.value if refusal.unit else "",
                    limit_value=refusal.bound,
                    allowed=False,
                    rejection_reason=refusal.rule
                    if refusal.unit
                    else f"{refusal.rule} {refusal.value}".strip(),
                    metadata=known,
                    symbol=symbol,
                    scope=f"symbol:{symbol}",
                    unit=refusal.unit,
                )
            )
        return EntryOutcome(symbol=symbol, entered=False, reason=refusal.rule)


def _e2(value_e2: int) -> str:
    return f"{value_e2 // 100}.{value_e2 % 100:02d}"


def _ratio(value_e6: int) -> Decimal:
    return Decimal(value_e6) / _MILLION
