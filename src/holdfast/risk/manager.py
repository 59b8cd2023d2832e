"""`RiskManager`: the risk layers in one hand, and the question "would this be allowed?".

    .circuit_breaker    stops calling what is failing
    .trailing_stops     the stops of open positions
    .portfolio_limits   questions to the limits over the whole book of options and stock

One object to hand to whatever trades: workflows, engine, router. `check_risk` decides against the same state as the gate, writes its records and reserves nothing, however
often it is asked. Only the gate admits. On its own a manager judges against a flat account and the standard
one-cent contract; a router binds it to its trader, and from then on it reads that account's positions,
working orders, prices and instruments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from holdfast.audit.wal import Entry
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.core.clock import Clock, SystemClock
from holdfast.core.errors import CircuitBreakerOpenError, VenueError, VenueRejected
from holdfast.core.ids import client_order_id
from holdfast.core.instruments import Instrument, InstrumentKind
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import Intent, Side, Signal, read_signal
from holdfast.risk.account import Account
from holdfast.risk.decisions import Decision
from holdfast.risk.gate import Gate
from holdfast.risk.limits import RiskLimits, RiskLimitsConfig
from holdfast.risk.portfolio import AccountRisk, PortfolioLimitsChecker
from holdfast.risk.stop_manager import TrailingStopManager

if TYPE_CHECKING:
    from holdfast.audit.logger import AuditLogger
    from holdfast.risk.events import RiskEventSink

COMPONENT = "gate"


class RiskManager:
    """Limits in contracts and dollars, and the questions asked of them.

    Args:
        max_position_size: Contracts on either side of one market, worst case; at it passes.
        max_daily_loss: Dollars below the session's opening value; at it passes.
        user_id: Stands in every record.
        event_logger: Gets the events of the breaker, the stops and the portfolio's limits.
        audit_logger: Where questions are written; by default the process-wide one.
        max_order_value: Dollars per order, fees left out.
        limits: All limits at once; then the three above are not read, and where they hold none over a portfolio,
            that layer is off.
        circuit_breaker: Instead of one of its own.
        trailing_stops: Likewise.
        portfolio_limits: Likewise; its limits come into force in the gate.
        clock: By default the machine's.

    Attributes:
        gate: What decides; the trader's own once bound.
        user_id: As given.
        event_logger: As given.
        trailing_stops: The stops of open positions.
        last_decision: Of the newest question, with its reason and rows; None before any.

    Raises:
        ConfigError: A limit is negative or cannot be read.
    """

    def __init__(
        self,
        max_position_size: int | str | Decimal = 100,
        max_daily_loss: int | str | Decimal = 1000,
        user_id: str = "unknown",
        *,
        event_logger: RiskEventSink | None = None,
        audit_logger: AuditLogger | None = None,
        max_order_value: int | str | Decimal = 500,
        limits: RiskLimits | None = None,
        circuit_breaker: TradingCircuitBreaker | None = None,
        trailing_stops: TrailingStopManager | None = None,
        portfolio_limits: PortfolioLimitsChecker | None = None,
        clock: Clock | None = None,
    ) -> None:
        if audit_logger is None:
            # A fixed signature leaves the log out: the one upward import, listed in the import contract.
            from holdfast import defaults  # noqa: PLC0415  said above

            audit_logger = defaults.audit_logger
        self.user_id = user_id
        self.event_logger = event_logger
        self.last_decision: Decision | None = None
        self._log = audit_logger
        self._clock = clock or SystemClock()
        self._breaker = circuit_breaker
        self._lookup: Callable[[str], Instrument] | None = None
        self._asked = 0
        chosen = limits or RiskLimits.of(
            max_position_size=max_position_size,
            max_daily_loss=max_daily_loss,
            max_order_value=max_order_value,
            portfolio=RiskLimitsConfig(),
        )
        if portfolio_limits is not None:
            chosen = replace(chosen, portfolio=portfolio_limits.limits)
        self.gate = Gate(_flat_account(self._clock.now_ns()), chosen, clock=self._clock)
        self.trailing_stops = trailing_stops or TrailingStopManager(event_logger, clock=self._clock)
        self._account_risk = AccountRisk(self.gate, clock=self._clock)
        self._portfolio_limits = portfolio_limits

    @property
    def limits(self) -> RiskLimits:
        """The limits in force."""
        return self.gate.limits

    @property
    def circuit_breaker(self) -> TradingCircuitBreaker:
        """The breaker of the venue it is bound to, else its own, made when first asked for."""
        if self._breaker is None:
            self._breaker = TradingCircuitBreaker(None, self.event_logger, name="trading", clock=self._clock)
        return self._breaker

    @property
    def portfolio_limits(self) -> PortfolioLimitsChecker | None:
        """Questions to the limits in force over the portfolio; None where there are none."""
        portfolio = self.limits.portfolio
        if self._portfolio_limits is None and portfolio is not None:
            self._portfolio_limits = PortfolioLimitsChecker(
                self._account_risk,
                portfolio,
                self.event_logger,
                clock=self._clock,
                in_force=lambda: self.limits,
            )
        return self._portfolio_limits

    def bind(
        self,
        gate: Gate,
        lookup: Callable[[str], Instrument],
        *,
        circuit_breaker: TradingCircuitBreaker | None = None,
    ) -> None:
        """Judge by *gate* from now on; the tighter of its limits and ours come into force there.

        Args:
            gate: Of a trader.
            lookup: One market's rules; raises VenueError or CircuitBreakerOpenError where they cannot be read.
            circuit_breaker: Of its venue.
        """
        if gate is not self.gate:
            gate.set_limits(gate.limits.tightest(self.gate.limits))
        self.gate = self._account_risk.gate = gate
        self._lookup = lookup
        self._breaker = circuit_breaker or self._breaker

    def check_risk(self, signal: Mapping[str, Any] | Signal) -> bool:
        """Would *signal* be allowed now? Written down, reserves nothing; `last_decision` says why not.

        Args:
            signal: A `Signal`, or a mapping with `ticker`, `count`, `price`, `side` and optionally `action`
                and the other fields; price as int is cents, as text or Decimal dollars of the named side.

        Raises:
            BadInput: The signal cannot be read, for instance a float price.
            AuditError: The question cannot be written down.
        """
        wish = signal if isinstance(signal, Signal) else read_signal(signal)
        decision = self._decide(wish)
        entries = [Entry("DECISION", decision.details(), self.user_id, COMPONENT)]
        if not decision.allowed:
            entries.append(Entry("RISK_VIOLATION", decision.violation(), self.user_id, COMPONENT))
        self._log.record_many(entries)
        self.last_decision = decision
        return decision.allowed

    def _decide(self, wish: Signal) -> Decision:
        self._asked += 1
        key = wish.key or f"question-{self._asked}"
        name = client_order_id("question", wish.strategy, key)
        if self._lookup is None:
            instrument = Instrument(venue="", ticker=wish.ticker)
        else:
            try:
                instrument = self._lookup(wish.ticker)
            except (VenueError, CircuitBreakerOpenError) as error:
                is_absent = isinstance(error, VenueRejected) and error.status in {0, 404}
                code = Code.UNKNOWN_INSTRUMENT if is_absent else Code.INSTRUMENT_UNREAD
                reason = RejectReason(code=code, scope=wish.ticker, keys={"ticker": wish.ticker})
                return self.gate.refuse(wish, key, name, reason, question=True)
        if wish.side is Side.NO and instrument.kind is not InstrumentKind.BINARY:
            reason = RejectReason(code=Code.BAD_INPUT, scope=wish.ticker, keys={"ticker": wish.ticker})
            return self.gate.refuse(wish, key, name, reason, question=True)
        return self.gate.evaluate(Intent(client_order_id=name, key=key, signal=wish, instrument=instrument))


def _flat_account(now_ns: int) -> Account:
    """An account that holds nothing, its session open."""
    account = Account()
    account.apply(
        "SESSION_OPEN",
        {
            "session": "",
            "opened_ns": now_ns,
            "cash": "0.00",
            "liquidation": "0.00",
            "positions": {},
            "marks": {},
        },
    )
    return account
