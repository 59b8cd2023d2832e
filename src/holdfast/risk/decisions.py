"""A verdict with everything it rests on, its records, and the way back from a record to the verdict.

    Decision            what the gate found: the wish, the limits then in force, what was read, the first refusal
    Decision.details    the DECISION record: every row, and the inputs, compactly
    Decision.violation  the RISK_VIOLATION record of the first breached limit
    replay(details)     decides again from a DECISION record alone; equals what was decided then

Integers stand in a record's inputs in the unit that their key ends in; rows are in text, as people read them.

Limits: a wish that was refused before anything could be judged, an unknown ticker for instance, records no inputs;
there is nothing to decide again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.core.errors import IllegalTransition
from holdfast.core.instruments import Instrument, PriceRange
from holdfast.core.money import (
    MoneyE6,
    PriceE4,
    QtyE2,
    format_money,
    format_price,
    format_qty,
    parse_price,
    parse_qty,
)
from holdfast.core.positions import Mark
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import Action, Intent, Side, Signal
from holdfast.risk.checks import Facts, Judgement, Leg, judge
from holdfast.risk.contract_records import facts_from, instrument_from
from holdfast.risk.contract_records import inputs_of as contract_inputs
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits
from holdfast.risk.market import Held, Holdings
from holdfast.risk.order import Order
from holdfast.risk.rows import CONTRACTS, MILLIS, POSITIONS, SHARES, STATE, USD, Row

if TYPE_CHECKING:
    from holdfast.risk.gate import Admission

_EVENT_BOUNDS: Final = 6
"""So many of `RiskLimits.compact` decide about event contracts; the others are of options, combinations and stocks."""
_NO_PRICES: Final = (None, None)


class Decision(msgspec.Struct, gc=False, eq=False):
    """A verdict with everything it rests on.

    Attributes:
        n: Number among the account's decisions.
        signal: What was wished.
        key: The intent's key.
        client_order_id: The intent's name.
        limits: Then in force.
        market_ns: The newest market time known.
        question: Nothing was reserved.
        keyed: The caller named the wish; a refusal stands for every repetition.
        content: Digest of the wish; "" for a question.
        intent: The normalised wish; None where none could be made.
        facts: What was read; None where the intent was refused before.
        reducing: Whether the order only takes risk away.
        refused: The row of the first refusal; None where the intent was refused before any row could be made.
        reason: The first refusal; None allows.
        demanded: A stop or a person demands it, and it reduces.
        admission: Leave to send, for an admitted order only.
        order: The reservation, for an admitted order only.
    """

    n: int
    signal: Signal
    key: str
    client_order_id: str
    limits: RiskLimits
    market_ns: int
    question: bool
    keyed: bool
    content: str = ""
    intent: Intent | None = None
    facts: Facts | None = None
    reducing: bool = False
    refused: Row | None = None
    reason: RejectReason | None = None
    demanded: bool = False
    admission: Admission | None = None
    order: Order | None = None

    @property
    def allowed(self) -> bool:
        """Whether nothing refused."""
        return self.reason is None

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every check, made anew from what was read; empty where the intent was refused before any.

        Raises:
            IllegalTransition: The rows do not give the verdict; neither may be relied on.
        """
        if self.intent is None or self.facts is None:
            return ()
        rows, refused, _ = judge(self.intent, self.facts, self.limits)
        if (refused is None) is not self.allowed:
            raise IllegalTransition(f"decision {self.n}: the rows and the verdict differ at {refused!r}")
        return rows

    def details(self) -> dict[str, Any]:
        """The DECISION record."""
        signal = self.signal
        return {
            "n": self.n,
            "intent": self.key,
            "client_order_id": self.client_order_id,
            "content": self.content,
            "keyed": self.keyed,
            "strategy": signal.strategy,
            "ticker": signal.ticker,
            "action": signal.action.value,
            "side": signal.side.value,
            "count": format_qty(signal.count),
            "price": format_price(signal.price),
            "reduce_only": signal.reduce_only,
            "verdict": "allow" if self.reason is None else "deny",
            "reason": "" if self.reason is None else self.reason.code.value,
            "rows": [row_text(row) for row in self.rows],
            "inputs": inputs_of(self.facts, self.intent, self.limits),
            "market_ts_ns": self.market_ns,
            "limits_version": self.limits.version,
            "question": self.question,
        }

    def violation(self) -> dict[str, Any]:
        """The RISK_VIOLATION record of the first breached limit.

        Raises:
            IllegalTransition: The decision allows.
        """
        if self.reason is None:
            raise IllegalTransition(f"decision {self.n} allows; it violates nothing")
        row, reason, signal = self.refused, self.reason, self.signal
        value, bound = reason.value, reason.bound
        details: dict[str, str] = {"ticker": signal.ticker, **reason.keys}
        if row is not None and row.code is Code.DAILY_LOSS_EXCEEDED:
            # People count a loss as a negative gain.
            value, bound = format_money(MoneyE6(-row.value)), format_money(MoneyE6(-row.bound))
        if row is not None and self.facts is not None and row.code in _VIOLATIONS:
            details = _VIOLATIONS[row.code](signal, row, self.facts)
        return {
            "violation_type": reason.code.value,
            "current_value": value,
            "limit": bound,
            "details": details,
            "client_order_id": self.client_order_id,
        }


# As people and records read it ---------------------------------------------------------------------------


def explain(row: Row, intent: Intent) -> RejectReason:
    """The refusal that *row* stands for."""
    value, bound = row_text(row)[2:4]
    keys = {"ticker": intent.ticker, "price": format_price(intent.signal.price)}
    measured = row.code in _MEASURED
    return RejectReason(
        code=row.code,
        scope=row.scope,
        value=value if measured else "",
        bound=bound if measured else "",
        unit=row.unit if measured else "",
        keys=keys,
    )


_MEASURED = frozenset(
    {
        Code.POSITION_LIMIT_EXCEEDED,
        Code.ORDER_VALUE_EXCEEDED,
        Code.DAILY_LOSS_EXCEEDED,
        Code.MARK_STALE,
        Code.COUNT_BELOW_STEP,
        Code.STATE_THROTTLED,
        Code.PORTFOLIO_DELTA,
        Code.PORTFOLIO_GAMMA,
        Code.SYMBOL_DELTA,
        Code.CONCENTRATION,
        Code.CORRELATED_EXPOSURE,
        Code.TOTAL_EXPOSURE_CAP,
        Code.MAX_POSITIONS,
        Code.GREEKS_STALE,
        Code.NEAR_EXPIRY,
        Code.BUYING_POWER,
    }
)


def row_text(row: Row) -> list[Any]:
    """A row as the record holds it: code, scope, value, bound, unit, ok."""
    unit = row.unit
    return [_CODES[row.code], row.scope, _amount(row.value, unit), _amount(row.bound, unit), unit, row.ok]


_CODES: Final = {code: code.value for code in Code}  # asking a member for its value costs more


@lru_cache(maxsize=4096)
def _amount(value: int, unit: str) -> str:
    """A value or a bound as the record holds it; bounds, prices and counts come again and again."""
    if unit in {USD, SHARES}:
        return format_money(MoneyE6(value))
    if unit == CONTRACTS:
        return format_qty(QtyE2(value))
    if unit == STATE:
        return TradingState(value).name
    if unit == MILLIS:
        return str(value // 1_000_000)
    if unit == POSITIONS:
        return str(value)
    return ""


def _position_violation(signal: Signal, row: Row, facts: Facts) -> dict[str, str]:
    return {
        "ticker": signal.ticker,
        "current_position": format_qty(facts.position),
        "requested_count": format_qty(signal.count),
        "new_position": format_qty(QtyE2(signal.book_side.sign * row.value)),
        "price": format_price(signal.price),
    }


def _value_violation(signal: Signal, row: Row, _: Facts) -> dict[str, str]:
    return {
        "ticker": signal.ticker,
        "count": format_qty(signal.count),
        "price": format_price(signal.price),
        "notional_value": format_money(MoneyE6(row.value)),
    }


def _loss_violation(signal: Signal, row: Row, _: Facts) -> dict[str, str]:
    return {
        "ticker": signal.ticker,
        "daily_pnl": format_money(MoneyE6(-row.value)),
        "max_daily_loss": format_money(MoneyE6(row.bound)),
    }


_VIOLATIONS: Final[Mapping[Code, Callable[[Signal, Row, Facts], dict[str, str]]]] = {
    Code.POSITION_LIMIT_EXCEEDED: _position_violation,
    Code.ORDER_VALUE_EXCEEDED: _value_violation,
    Code.DAILY_LOSS_EXCEEDED: _loss_violation,
}
"""What a RISK_VIOLATION of the contract's own three limits says besides."""


def inputs_of(facts: Facts | None, intent: Intent | None, limits: RiskLimits) -> dict[str, Any]:
    """What a decision read, compactly; `replay` reads it back. Integers are in the unit the key ends in."""
    if facts is None or intent is None:
        return {}
    instrument = intent.instrument
    inputs: dict[str, Any] = {
        "state": facts.state.name,
        "position_e2": facts.position,
        "buys_e2": facts.buys,
        "sells_e2": facts.sells,
        "open_value_e6": facts.open_value,
        "cash_e6": facts.cash,
        "held": [
            [held.ticker, held.qty, *(held.mark or _NO_PRICES)[:2], age_ns]
            + ([held.multiplier] if held.multiplier else [])
            for held, age_ns in facts.holdings.ages(facts.now_ns, facts.alive_ns)
        ],
        "is_open": facts.is_open,
        "since_last_ns": facts.since_last_ns,
        "legs": [list(leg) for leg in facts.legs],
        "breaker": facts.breaker,
        "grid_e4": [[stretch.start, stretch.end, stretch.step] for stretch in instrument.price_ranges],
        "step_e2": instrument.qty_step,
        "exhaustive": instrument.event_exhaustive,
        "limits": limits.compact(),
    }
    if facts.contract is None:
        inputs["limits"] = inputs["limits"][:_EVENT_BOUNDS]
    else:
        inputs["contract"] = contract_inputs(facts.contract, instrument)
    return inputs


# The way back ---------------------------------------------------------------------------------------------


def replay(details: Mapping[str, Any]) -> Judgement:
    """Decide again from a DECISION record alone; equals what was decided then.

    Raises:
        IllegalTransition: The record was refused before anything was judged, so it holds no inputs.
    """
    inputs = details["inputs"]
    if not inputs:
        raise IllegalTransition(
            f"decision {details['n']} was refused as {details['reason']!r} before any check"
        )
    instrument = Instrument(
        venue="",
        ticker=details["ticker"],
        event_exhaustive=inputs["exhaustive"],
        price_ranges=tuple(PriceRange(*stretch) for stretch in inputs["grid_e4"]),
        qty_step=QtyE2(inputs["step_e2"]),
    )
    contract: dict[str, Any] | None = inputs.get("contract")
    if contract is not None:
        instrument = instrument_from(contract, instrument)
    signal = Signal(
        ticker=details["ticker"],
        side=Side(details["side"]),
        action=Action(details["action"]),
        count=parse_qty(details["count"]),
        price=parse_price(details["price"]),
        reduce_only=details["reduce_only"],
    )
    intent = Intent(
        client_order_id=details["client_order_id"],
        key=details["intent"],
        signal=signal,
        instrument=instrument,
    )
    facts = Facts(
        TradingState[inputs["state"]],
        inputs["position_e2"],
        inputs["buys_e2"],
        inputs["sells_e2"],
        inputs["open_value_e6"],
        inputs["cash_e6"],
        Holdings.of(tuple(_held_at_zero(*held) for held in inputs["held"])),
        0,
        0,
        inputs["is_open"],
        inputs["since_last_ns"],
        tuple(Leg(*leg) for leg in inputs["legs"]),
        inputs["breaker"],
        None if contract is None else facts_from(contract),
    )
    return judge(intent, facts, RiskLimits.from_compact(inputs["limits"], details["limits_version"]))


def _held_at_zero(  # noqa: PLR0917  the order in which a record holds them
    ticker: str,
    qty: QtyE2,
    bid: PriceE4 | None,
    ask: PriceE4 | None,
    age_ns: int | None,
    multiplier: int = 0,
) -> Held:
    """A position of a record, as seen by a clock that reads 0."""
    mark = None if age_ns is None else Mark(bid, ask, -age_ns)
    return Held(ticker, qty, mark, multiplier=multiplier)


def rows_text(judgement: Judgement) -> list[list[Any]]:
    """The rows of a judgement as a DECISION record holds them."""
    return [row_text(row) for row in judgement.rows]
