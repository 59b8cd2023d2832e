"""`PositionMonitoringWorkflow`: feeds the trailing stops with confirmed premiums, and leaves what must be left.

The premium of a structure is what leaving it is worth now: for one that was bought, the bids of its longs less the
asks of its shorts; for one that brought a net credit, the asks of its shorts less the bids of its longs, and its
stop is a short's. Each leg's price is a confirmed one (see quotes.py), fresh, uncrossed. A long leg that nobody bids
for is worth zero; a short leg that nobody offers is unknown: then the stop HOLDs, it is counted, and alarmed after a
while. No price is made up.

A stop that triggers becomes a decision, CLOSE by rule TrailingStop, IMMEDIATE, and the decision an exit that holds
until the position is flat; a stop latched before a restart decides again. Exit rules beside it (a profit or a loss as
a ratio of the entry premium, time before expiry) are off until they are set, and NORMAL: they wait where a stop does
not. The stop is removed when the position is flat, however that came.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec

from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import BadInput
from holdfast.core.instruments import Instrument
from holdfast.core.money import PriceE4, format_price
from holdfast.execution.engine import OrderExecutionEngine
from holdfast.execution.executions import Execution, Phase
from holdfast.execution.outcomes import EngineResult
from holdfast.execution.quotes import proven_ns
from holdfast.risk.events import RiskEvent, RiskEventSink, RiskEventType
from holdfast.risk.stop_manager import TrailingStopManager
from holdfast.risk.stop_rules import TrailingStopConfig

COMPONENT = "position_monitoring"
TRAILING_STOP_RULE = "TrailingStop"
_PERCENT = 100


class Urgency(StrEnum):
    """How an exit is carried out."""

    IMMEDIATE = "IMMEDIATE"
    NORMAL = "NORMAL"


class CloseDecision(msgspec.Struct, frozen=True, kw_only=True):
    """An execution must be left.

    Attributes:
        execution_id: Which.
        rule: Which rule says so: TrailingStop, ProfitTarget, LossLimit, NearExpiry.
        urgency: IMMEDIATE is demanded by a stop.
        premium: At which premium; None where the rule reads none.
        action: Always CLOSE.
    """

    execution_id: str
    rule: str
    urgency: Urgency
    premium: PriceE4 | None = None
    action: str = "CLOSE"


class HoldsStops(Protocol):
    """The part of `RiskManager` that monitoring needs."""

    @property
    def trailing_stops(self) -> TrailingStopManager | None:
        """Its stops."""
        ...


class ExitRules(msgspec.Struct, frozen=True, kw_only=True):
    """Exits beside the stop; None is off.

    Attributes:
        profit_pct: Of the entry premium gained, percent.
        loss_pct: Of the entry premium lost, percent.
        before_expiry_secs: This long before the first leg expires.
    """

    profit_pct: int | None = None
    loss_pct: int | None = None
    before_expiry_secs: int | None = None


class PositionMonitoringWorkflow:
    """Watches every execution that is held.

    Args:
        engine: Leaves them.
        clock: Ages.
        risk_manager: Its trailing stops are driven; None where that layer is off.
        stop_config: Of new stops; None is the manager's own.
        credit_stop_config: Of new stops of net-credit structures; None is *stop_config*.
        exit_rules: Exits beside the stops.
        max_quote_age_secs: An older quote is unknown.
        hold_alarm_secs: A premium unknown for longer is alarmed, once per execution and spell.
        event_logger: Gets alarms about premiums that stay unknown; None is fine.

    Attributes:
        holds: How often a premium was unknown, by execution.
        decisions: Every decision taken, oldest first.
    """

    def __init__(
        self,
        engine: OrderExecutionEngine,
        *,
        clock: Clock,
        risk_manager: HoldsStops | None = None,
        stop_config: TrailingStopConfig | None = None,
        credit_stop_config: TrailingStopConfig | None = None,
        exit_rules: ExitRules | None = None,
        max_quote_age_secs: int = 150,
        hold_alarm_secs: int = 300,
        event_logger: RiskEventSink | None = None,
    ) -> None:
        self.holds: dict[str, int] = {}
        self.decisions: list[CloseDecision] = []
        self._engine = engine
        self._clock = clock
        self._stops = None if risk_manager is None else risk_manager.trailing_stops
        self._stop_configs = {1: stop_config, -1: credit_stop_config or stop_config}
        self._rules = exit_rules or ExitRules()
        self._max_age_ns = max_quote_age_secs * NANOS
        self._hold_alarm_ns = hold_alarm_secs * NANOS
        self._events = event_logger
        self._unknown_since_ns: dict[str, int] = {}
        self._alarmed: set[str] = set()

    # Stops come and go --------------------------------------------------------------------------------

    def attend(self, execution: Execution) -> None:
        """Follow the quotes of a held execution and give it its stop, once; for a new one and after a restart."""
        for ticker, ratio in execution.legs:
            self._engine.board.follow(ticker, is_long=ratio > 0, seed=execution.leg_price(ticker))
        premium = execution.entry_premium
        if self._stops is None or premium is None or execution.execution_id in self._stops.stops:
            return
        try:
            self._stops.add_trailing_stop(
                execution.execution_id,
                format_price(premium),
                self._stop_configs[execution.sign],
                sign=execution.sign,
                symbol=execution.symbol,
                spread=self._spread(execution),
                current=self._quoted_premium(execution),
            )
        except BadInput as error:
            # It cost nothing, so no percentage of it can trail: it is held without a stop, and a person is told.
            self._engine.trader.ledger.alarm(
                "stop_refused",
                format_price(premium),
                "",
                execution_id=execution.execution_id,
                reason=str(error),
            )

    def dismiss(self, execution: Execution) -> None:
        """A flat execution needs no stop; its legs' quotes are followed on where another one holds them."""
        if self._stops is not None:
            self._stops.remove_stop(execution.execution_id)
        self._unknown_since_ns.pop(execution.execution_id, None)
        self._alarmed.discard(execution.execution_id)
        live = self._engine.executions.live()
        for ticker, ratio in execution.legs:
            if not any((ticker, ratio > 0) in {(leg, r > 0) for leg, r in one.legs} for one in live):
                self._engine.board.forget(ticker, is_long=ratio > 0)

    # Monitoring ---------------------------------------------------------------------------------------

    async def monitor(self, now_ns: int) -> list[CloseDecision]:
        """Feed every stop with what is known, and begin the exit of each that has triggered; these decisions."""
        premiums: dict[str, PriceE4] = {}
        for execution in self._watched():
            premium = self.premium(execution)
            if premium is None:
                self._hold(execution, now_ns)
            else:
                self._unknown_since_ns.pop(execution.execution_id, None)
                self._alarmed.discard(execution.execution_id)
                premiums[execution.execution_id] = premium
        return await self._close_all(self._triggered(premiums))

    async def review(self, now_ns: int) -> list[CloseDecision]:
        """Begin the exits that the exit rules ask for now; these decisions."""
        decided: list[CloseDecision] = []
        for execution in self._held():
            premium = self.premium(execution)
            rule = self._rule_for(execution, premium, now_ns)
            if rule:
                decided.append(
                    CloseDecision(
                        execution_id=execution.execution_id,
                        rule=rule,
                        urgency=Urgency.NORMAL,
                        premium=premium,
                    )
                )
        return await self._close_all(decided)

    def _watched(self) -> list[Execution]:
        """What its stop may still have to leave: also what a mere rule is leaving, which may have to wait."""
        leaving = [
            one for one in self._engine.executions.live() if one.ladder.is_demanded and not one.demanded
        ]
        return self._held() + leaving

    def _held(self) -> list[Execution]:
        executions, account = self._engine.executions, self._engine.trader.account
        return [one for one in executions.live() if executions.phase(one, account) is Phase.HELD]

    async def _close_all(self, decided: list[CloseDecision]) -> list[CloseDecision]:
        self.decisions += decided
        for decision in decided:
            await self.close(decision)
        return decided

    async def close(self, decision: CloseDecision) -> EngineResult:
        """Carry out one decision."""
        return await self._engine.exit(
            decision.execution_id,
            rule=decision.rule,
            demanded=decision.urgency is Urgency.IMMEDIATE,
        )

    def premium(self, execution: Execution) -> PriceE4 | None:
        """What leaving one unit is worth, or costs for a net credit; None while a leg's price is unknown."""
        worth = 0
        now_ns = self._clock.monotonic_ns()
        board = self._engine.board
        for ticker, ratio in execution.legs:
            quote = board.quotes.get(ticker)
            price = board.confirmed(ticker, is_long=ratio > 0)
            if quote is None or price is None:
                return None
            if now_ns - proven_ns(quote, self._engine.trader.market.mark(ticker)) > self._max_age_ns:
                return None
            worth += ratio * price
        return PriceE4(execution.sign * worth)

    def _triggered(self, premiums: dict[str, PriceE4]) -> list[CloseDecision]:
        """Update the stops; a decision for each that has triggered now, or had before and is still held."""
        if self._stops is None:
            return []
        self._stops.update_prices(premiums)
        live = {one.execution_id: one for one in self._engine.executions.live()}
        return [
            CloseDecision(
                execution_id=execution_id,
                rule=TRAILING_STOP_RULE,
                urgency=Urgency.IMMEDIATE,
                premium=premiums.get(execution_id),
            )
            for execution_id in self._stops.triggered
            if execution_id in live and not live[execution_id].demanded
        ]

    def _rule_for(self, execution: Execution, premium: PriceE4 | None, now_ns: int) -> str:
        rules, entry = self._rules, execution.entry_premium
        if rules.before_expiry_secs is not None:
            expires_ns = self._expires_ns(execution)
            if expires_ns and now_ns >= expires_ns - rules.before_expiry_secs * NANOS:
                return "NearExpiry"
        if premium is None or not entry:
            return ""
        gain = execution.sign * (premium - entry) * _PERCENT
        if rules.profit_pct is not None and gain >= rules.profit_pct * entry:
            return "ProfitTarget"
        if rules.loss_pct is not None and -gain >= rules.loss_pct * entry:
            return "LossLimit"
        return ""

    def _expires_ns(self, execution: Execution) -> int:
        instruments = (self._instrument(ticker) for ticker, _ in execution.legs)
        ends = [one.option.expires_ns for one in instruments if one is not None and one.option is not None]
        return min(ends, default=0)

    def _instrument(self, ticker: str) -> Instrument | None:
        return self._engine.trader.market.instruments.get(ticker)

    def _spread(self, execution: Execution) -> PriceE4 | None:
        """How far apart entering and leaving are now; None where a side is missing."""
        spread = 0
        for ticker, ratio in execution.legs:
            quote = self._engine.board.quotes.get(ticker)
            if quote is None or quote.bid is None or quote.ask is None:
                return None
            spread += abs(ratio) * (quote.ask - quote.bid)
        return PriceE4(spread)

    def _quoted_premium(self, execution: Execution) -> PriceE4 | None:
        """What leaving a unit is worth by the newest quotes, agreed on or not: for the record, no stop is fed with it."""
        worth = 0
        for ticker, ratio in execution.legs:
            quote = self._engine.board.quotes.get(ticker)
            side = None if quote is None else (quote.bid or PriceE4(0)) if ratio > 0 else quote.ask
            if side is None:
                return None
            worth += ratio * side
        return PriceE4(execution.sign * worth)

    def _hold(self, execution: Execution, now_ns: int) -> None:
        """Its premium is unknown: HOLD, counted, and alarmed once it lasts."""
        execution_id = execution.execution_id
        self.holds[execution_id] = self.holds.get(execution_id, 0) + 1
        since_ns = self._unknown_since_ns.setdefault(execution_id, now_ns)
        if now_ns - since_ns < self._hold_alarm_ns or execution_id in self._alarmed:
            return
        self._alarmed.add(execution_id)
        secs = (now_ns - since_ns) // NANOS
        self._engine.trader.ledger.alarm(
            "premium_unknown", str(secs), str(self._hold_alarm_ns // NANOS), execution_id=execution_id
        )
        if self._events is not None:
            self._events.emit(
                RiskEvent(
                    event_type=RiskEventType.PORTFOLIO_LIMIT_WARNING,
                    component=COMPONENT,
                    execution_id=execution_id,
                    limit_type="premium_unknown",
                    current_value=str(secs),
                    limit_value=str(self._hold_alarm_ns // NANOS),
                    symbol=execution.symbol,
                    unit="s",
                )
            )
