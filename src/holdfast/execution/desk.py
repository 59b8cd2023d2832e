"""`OptionsDesk`: the orchestrator. It hangs on the trader and does the desk's work in market time.

    every tick      orders under way, exits due, stops added to what is held and taken from what is flat
    every 30 s      monitoring: stops are fed, triggered ones leave
    every 60 s      exit rules, buying power
    every 900 s     stock-taking: the book's Greeks and value, and what is beyond its limit, as events
    every 3,600 s   entry, per symbol, as soon as its chain is quoted

One logger is made and handed to all three layers. They are switched on one by one, in this order and never without
the one before: `breaker`, then `stops`, then `limits`. With stops off nothing is stopped, with portfolio limits off
nothing is asked of them; the gate's own rows and the breaker stand always.

After a restart everything comes back from the journal: executions from their orders and fills, stops from their
events, exits from where their last order stands; a stop that had triggered triggers its exit again. What assignment
or exercise left in shares is adopted and closed.

Limits: one account, one event loop. It trades the symbols it was given and touches nothing else in the account.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum

import msgspec

from holdfast.audit.wal import Entry
from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import BadInput, CircuitBreakerOpenError, VenueError
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, format_money
from holdfast.core.orders import Fill
from holdfast.execution.engine import OrderExecutionEngine
from holdfast.execution.entry import EntryOutcome, EntryRules, EntryWorkflow, PortfolioQuestion
from holdfast.execution.executions import Phase
from holdfast.execution.legging import LeggingPolicy
from holdfast.execution.monitoring import ExitRules, PositionMonitoringWorkflow
from holdfast.execution.quotes import QuoteBoard, proven_ns
from holdfast.execution.reference import ReferenceInput
from holdfast.execution.schedule import ENTRY_SECS, EXIT_SECS, MONITOR_SECS, Every
from holdfast.execution.structures import Quoted
from holdfast.execution.trader import Trader
from holdfast.risk.events import RiskEvent, RiskEventSink, RiskEventType
from holdfast.risk.order import Order
from holdfast.risk.stop_manager import TrailingStopManager
from holdfast.risk.stop_rules import TrailingStopConfig

COMPONENT = "options_desk"
STOCK_TAKING_SECS = 900
UNREAD_MOST = 3
"""Readings of the buying power that may fail one after the other before it counts as none."""
_MILLION = 1_000_000


class Layer(StrEnum):
    """What can be switched on, in this order."""

    BREAKER = "breaker"
    STOPS = "stops"
    LIMITS = "limits"


def read_layers(text: str) -> frozenset[Layer]:
    """The layers that *text* names, parted by commas.

    Raises:
        BadInput: An unknown one, or one without those before it.
    """
    words = [word.strip() for word in text.split(",")]
    unknown = next((word for word in words if word not in set(Layer)), None)
    if unknown is not None:
        raise BadInput(f"there is no layer {unknown!r}", hint=f"choose from {', '.join(Layer)}")
    named = frozenset(map(Layer, words))
    order = list(Layer)
    for layer in named:
        lacking = [before for before in order[: order.index(layer)] if before not in named]
        if lacking:
            raise BadInput(
                f"layer {layer.value!r} without {lacking[0].value!r}",
                hint="they are switched on one by one: breaker, then stops, then limits",
            )
    return named


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """How often the desk works, in seconds of market time."""

    entry_secs: int = ENTRY_SECS
    monitor_secs: int = MONITOR_SECS
    exit_secs: int = EXIT_SECS
    stock_taking_secs: int = STOCK_TAKING_SECS


class DeskRisk(msgspec.Struct, frozen=True):
    """The layers that are on; None is off. `RiskManager` holds both."""

    trailing_stops: TrailingStopManager | None = None
    portfolio_limits: PortfolioQuestion | None = None


class Greeks4(msgspec.Struct, frozen=True):
    """The book's Greeks in 1e-6 share-equivalents, vega and theta in 1e-6 dollars."""

    delta_e6: int
    gamma_e6: int
    vega_e6: int
    theta_e6: int


class OptionsDesk:
    """Trades option structures on one trader, as its observer.

    Args:
        trader: The account's trader; its `observer` becomes this desk.
        board: A strategy of the trader, which keeps the quotes.
        clock: Ages.
        chains: Contracts by underlying; their rules are believed for this run.
        reference: IV rank and VIX.
        risk: The layers that are on.
        event_logger: Made once by whoever wires the desk; None is fine.
        entry_rules, exit_rules, stop_config, credit_stop_config, schedule, legging: As the workflows take them.
        buying_power: Reads what the broker would still carry, for the gate; None where a venue has none.
        max_quote_age_secs: Of quotes that drive stops.

    Attributes:
        engine, entry, monitoring: What it drives.
        entries: Every look at a symbol, oldest first.
    """

    def __init__(
        self,
        trader: Trader,
        board: QuoteBoard,
        *,
        clock: Clock,
        chains: Mapping[str, Sequence[Instrument]],
        reference: ReferenceInput,
        risk: DeskRisk | None = None,
        event_logger: RiskEventSink | None = None,
        entry_rules: EntryRules | None = None,
        exit_rules: ExitRules | None = None,
        stop_config: TrailingStopConfig | None = None,
        credit_stop_config: TrailingStopConfig | None = None,
        schedule: Schedule | None = None,
        legging: LeggingPolicy | None = None,
        buying_power: Callable[[], Awaitable[MoneyE6]] | None = None,
        max_quote_age_secs: int = 150,
    ) -> None:
        risk, times = risk or DeskRisk(), schedule or Schedule()
        self.engine = OrderExecutionEngine(
            trader, board, clock=clock, legging=legging, event_logger=event_logger
        )
        self.entry = EntryWorkflow(
            self.engine, reference, risk_manager=risk, rules=entry_rules, event_logger=event_logger
        )
        self.monitoring = PositionMonitoringWorkflow(
            self.engine,
            clock=clock,
            risk_manager=risk,
            stop_config=stop_config,
            credit_stop_config=credit_stop_config,
            exit_rules=exit_rules,
            max_quote_age_secs=max_quote_age_secs,
            event_logger=event_logger,
        )
        self.entries: list[EntryOutcome] = []
        self._trader = trader
        self._board = board
        self._clock = clock
        self._max_age_ns = max_quote_age_secs * NANOS
        self._chains = chains
        self._reference = reference
        self._stops = risk.trailing_stops
        self._limits = risk.portfolio_limits
        self._events = event_logger
        self._times = times
        self._buying_power = buying_power
        self._monitor_due = Every(times.monitor_secs)
        self._exit_due = Every(times.exit_secs)
        self._stock_taking_due = Every(times.stock_taking_secs)
        self._entry_due: dict[str, Every] = {}
        self._attended: set[str] = set()
        self._is_restored = False
        self._unread = 0
        if buying_power is not None:
            # Unread is none: nothing is opened before the broker has said what it would carry.
            trader.gate.saw_buying_power(MoneyE6(0))
        trader.observer = self

    # The trader tells ---------------------------------------------------------------------------------

    async def on_time(self, now_ns: int) -> None:
        """See `TraderObserver`."""
        if not self._is_restored:
            await self._restore()
        await self.engine.step(now_ns)
        self._attend()
        if self._monitor_due.is_due(now_ns):
            await self.monitoring.monitor(now_ns)
        if self._exit_due.is_due(now_ns):
            await self._read_buying_power()
            await self.monitoring.review(now_ns)
        if self._stock_taking_due.is_due(now_ns):
            self._take_stock()
            if self._limits is not None:
                # The market moves the book beyond limits that no order ever exceeded: a warning, not a refusal.
                await self._limits.check_portfolio_health()
        await self._look_for_entries(now_ns)
        await self._trader.ledger.write()

    async def on_own_fill(self, fill: Fill, order: Order) -> None:
        """See `TraderObserver`."""
        self.engine.saw_fill(fill, order)

    async def on_order_ended(self, order: Order) -> None:
        """See `TraderObserver`; what follows from it is done at the next tick, which sees every order."""

    # Starting -----------------------------------------------------------------------------------------

    async def _restore(self) -> None:
        """Take up what the journal holds, and declare the reference inputs in it."""
        for chain in self._chains.values():
            for instrument in chain:
                self._trader.market.instruments.setdefault(instrument.ticker, instrument)
        records = list(self._trader.log.wal.records())
        self.engine.restore(records)
        if self._stops is not None:
            self._stops.restore(records)
        opened: dict[str, int] = {}
        for one in self.engine.executions.known.values():
            opened[one.symbol] = max(opened.get(one.symbol, 0), one.opened_ns)
        self._entry_due = {
            symbol: Every(self._times.entry_secs, last_ns=opened.get(symbol)) for symbol in self._chains
        }
        facts = {f"options.reference.{name}": value for name, value in self._reference.facts().items()}
        facts |= {f"options.entry.{name}": value for name, value in self.entry.rules.facts().items()}
        user = self._trader.user or ""
        await self._trader.log.record_many_async([Entry("CONFIG", facts, user, COMPONENT)])
        self._is_restored = True

    # What is held -------------------------------------------------------------------------------------

    def _attend(self) -> None:
        """A stop for everything that is held and has none, none for what is flat."""
        executions, account = self.engine.executions, self._trader.account
        for execution in list(executions.known.values()):
            name, phase = execution.execution_id, executions.phase(execution, account)
            if phase in {Phase.HELD, Phase.LEAVING} and name not in self._attended:
                self._attended.add(name)
                self.monitoring.attend(execution)
            elif phase is Phase.FLAT and (name in self._attended or self._has_stop(name)):
                self._attended.discard(name)
                self.monitoring.dismiss(execution)

    def _has_stop(self, name: str) -> bool:
        return self._stops is not None and name in self._stops.stops

    # Entering -----------------------------------------------------------------------------------------

    async def _look_for_entries(self, now_ns: int) -> None:
        if not self._trader.account.holds.state.allows_increasing:
            return
        for symbol, due in self._entry_due.items():
            chain = [] if due.is_waiting(now_ns) else self.chain(symbol)
            if chain and due.is_due(now_ns):
                self.entries.append(await self.entry.consider(symbol, chain, now_ns))

    def chain(self, symbol: str) -> list[Quoted]:
        """The contracts of *symbol* with a fresh quote; empty until Greeks are known."""
        found: list[Quoted] = []
        has_greeks = False
        since_ns = self._clock.monotonic_ns() - self._max_age_ns
        for instrument in self._chains[symbol]:
            quote = self._board.quotes.get(instrument.ticker)
            mark = self._trader.market.mark(instrument.ticker)
            if instrument.option is None or quote is None or proven_ns(quote, mark) < since_ns:
                continue
            if mark is None or mark.is_crossed:  # the newest word on it is no price
                continue
            greeks = self._trader.market.greeks(instrument.ticker)
            has_greeks = has_greeks or greeks is not None
            found.append(Quoted(instrument, quote.bid, quote.ask, greeks))
        return found if has_greeks else []

    async def _read_buying_power(self) -> None:
        """Tell the gate what the broker would still carry; what could not be read for a while is nothing."""
        if self._buying_power is None:
            return
        try:
            self._trader.gate.saw_buying_power(await self._buying_power())
        except (VenueError, CircuitBreakerOpenError):
            self._unread += 1
            if self._unread >= UNREAD_MOST:
                self._trader.gate.saw_buying_power(MoneyE6(0))
        else:
            self._unread = 0

    # Stock-taking -------------------------------------------------------------------------------------

    def greeks(self) -> Greeks4 | None:
        """Of everything held, the middle of what is a range; None while a contract's are unknown."""
        market, totals = self._trader.market, [0, 0, 0, 0]
        for ticker, qty in self._trader.account.portfolio.positions.items():
            instrument = market.instruments.get(ticker)
            if ticker in self._chains:
                totals[0] += qty * _MILLION // 100
                continue
            greeks = market.greeks(ticker)
            if instrument is None or greeks is None:
                return None
            shares = qty * instrument.multiplier
            delta, gamma = (
                greeks.delta_e6 + greeks.delta_span_e6 // 2,
                greeks.gamma_e6 + greeks.gamma_span_e6 // 2,
            )
            for place, value in enumerate((delta, gamma, greeks.vega_e6, greeks.theta_e6)):
                totals[place] += shares * value // 100
        return Greeks4(*totals)

    def _bounded(self) -> list[str]:
        """What is held whose Greeks are a range, since nobody bids for it."""
        known = {
            ticker: self._trader.market.greeks(ticker) for ticker in self._trader.account.portfolio.positions
        }
        return sorted(
            ticker for ticker, greeks in known.items() if greeks is not None and not greeks.is_known
        )

    def _take_stock(self) -> None:
        """The book as one event: its delta against the bound, everything else beside it."""
        if self._events is None:
            return
        greeks, value = self.greeks(), self._trader.gate.value()
        live = self.engine.executions.live()
        known: dict[str, object] = {
            "positions": len(live),
            "equity": "" if value is None else format_money(value),
        }
        if bounded := self._bounded():
            known["bounded"] = bounded
        if greeks is not None:
            known |= {
                name: format_money(MoneyE6(getattr(greeks, f"{name}_e6")))
                for name in ("delta", "gamma", "vega", "theta")
            }
        self._events.emit(
            RiskEvent(
                event_type=RiskEventType.PORTFOLIO_LIMIT_CHECK,
                component=COMPONENT,
                limit_type="stock_taking",
                current_value="" if greeks is None else format_money(MoneyE6(greeks.delta_e6)),
                allowed=True,
                metadata=known,
                scope="portfolio",
                unit="shares",
            )
        )
