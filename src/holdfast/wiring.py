"""The composition root: the one place where a desk gets its clock, disk, venue and limits.

A desk is everything one venue account needs in one process. Paper and live differ here and nowhere else, and
only in values: whose address, whose key, whose clock.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from holdfast.anchors.marks import anchor_marks
from holdfast.anchors.opening import anchor_by
from holdfast.audit.keys import KeyHome
from holdfast.audit.logger import AuditLogger
from holdfast.audit.people import PersonalData
from holdfast.audit.reserve import RESERVE_BYTES
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import CircuitBreakerConfig
from holdfast.breaker.registry import BreakerRegistry, standard_registry
from holdfast.config import Config, key_home, people_home
from holdfast.core.clock import Clock, ManualClock, SystemClock
from holdfast.core.errors import VenueRejected
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, QtyE2
from holdfast.execution.desk import DeskRisk, Layer, OptionsDesk, Schedule
from holdfast.execution.entry import EntryRules
from holdfast.execution.monitoring import ExitRules
from holdfast.execution.quotes import QuoteBoard
from holdfast.execution.reference import ReferenceInput
from holdfast.execution.strategy import Strategy
from holdfast.execution.trader import Trader
from holdfast.risk.event_logger import RiskEventLogger
from holdfast.risk.limits import RiskLimits
from holdfast.risk.manager import RiskManager
from holdfast.risk.stop_manager import TrailingStopManager
from holdfast.risk.stop_rules import TrailingStopConfig
from holdfast.venues.ib.adapter import BREAKER as IB_BREAKER
from holdfast.venues.ib.adapter import IB_API, IBVenue
from holdfast.venues.ib.placing import numbers_reserved
from holdfast.venues.kalshi.adapter import KalshiVenue
from holdfast.venues.kalshi.client import HOSTS, AsyncKalshiClient
from holdfast.venues.kalshi.transport import PARENT_BREAKER
from holdfast.venues.options.adapter import OptionsVenue
from holdfast.venues.pricing import Carry

CREDENTIAL = "venue.kalshi.signer"
"""The CONFIG record's name for the fingerprint of the credential in use."""
MAX_EXIT_VALUE = MoneyE6(1_000_000 * 1_000_000)
"""Of one exit of the options desk: shares that an assignment left must be able to go."""


@dataclass(frozen=True)
class Desk:
    """One venue account, wired.

    Attributes:
        clock: The machine's, or the venue's where the venue owns the market's time.
        audit: The journal.
        breakers: The registry, the venue's breaker in it.
        client: The wire.
        venue: The port the trader trades through.
        trader: The running order path.
    """

    clock: Clock
    audit: AuditLogger
    breakers: BreakerRegistry
    client: AsyncKalshiClient
    venue: KalshiVenue
    trader: Trader

    async def close(self) -> None:
        """Let go of connections and close the journal; resting orders stay."""
        await self.venue.close()
        self.audit.wal.close()


def open_desk(
    config: Config,
    *,
    audit_dir: Path,
    strategies: Sequence[Strategy] = (),
    market_ns: int | None = None,
    seed: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> Desk:
    """Wire a desk for the Kalshi account that *config* names.

    Args:
        config: Account, address and limits.
        audit_dir: The journal's directory; made when it is not there.
        strategies: What trades, in the order in which they are asked.
        market_ns: What time it is at a venue that owns the market's time and goes on to tell it on the stream,
            as the paper exchange does, UTC ns; None for the machine's clock.
        seed: Of the jitter between repeated reads; None takes the machine's.
        tell: Is given a sentence when the journal's first key was made: where it is, and what to keep.
    """
    venue_clock = market_ns is not None
    market_clock = ManualClock(market_ns or 0, source="venue:kalshi")
    clock: Clock = market_clock if venue_clock else SystemClock()
    kalshi = config.kalshi
    user = kalshi.member_id or kalshi.key_id or "unknown"
    audit = _journal(config, audit_dir, clock, user=user, tell=tell)
    breakers = standard_registry(clock=clock, audit=audit)
    client = AsyncKalshiClient(
        kalshi.key_id or None,
        kalshi.pem or None,
        base_url=kalshi.base_url or HOSTS[kalshi.env][0],
        ws_url=kalshi.ws_url or None,
        member_id=kalshi.member_id or None,
        audit_logger=audit,
        registry=breakers,
        clock=clock,
        rng=random.Random(seed),  # noqa: S311  jitter, not a secret
    )
    # Taken before anything is sent: a log held by another, unwritable or damaged is told as what it is.
    audit.wal.open()
    _restore_breakers(audit, breakers, client)
    venue = KalshiVenue(client, venue_clock=venue_clock)
    trader = Trader(
        venue,
        log=audit,
        limits=config.limits.risk_limits(),
        clock=clock,
        strategies=strategies,
        user=user,
        on_time=market_clock.set_now_ns if venue_clock else None,
    )
    return Desk(clock=clock, audit=audit, breakers=breakers, client=client, venue=venue, trader=trader)


BROKER_BREAKER = "options_api"
"""The breaker of the option broker."""


@dataclass(frozen=True)
class WiredOptionsDesk:
    """One account at an option broker, wired.

    Attributes:
        clock: The broker's market time where it owns it, else the machine's.
        audit: The journal.
        events: What hands risk events on; the one logger of all three layers.
        breakers: The registry, the broker's breaker in it.
        venue: The port the trader trades through.
        trader: The running order path.
        risk: The three layers in one hand.
        desk: The orchestrator.
        tickers: What its stream follows: every contract of its chains, and the underlyings that can be owned.
    """

    clock: Clock
    audit: AuditLogger
    events: RiskEventLogger
    breakers: BreakerRegistry
    venue: OptionsVenue
    trader: Trader
    risk: RiskManager
    desk: OptionsDesk
    tickers: Sequence[str]

    async def close(self) -> None:
        """Hand the last events on, let go of the connection and close the journal; resting orders stay."""
        await self.venue.close()
        try:
            await self.events.close()
        finally:
            self.audit.wal.close()


async def open_options_desk(
    config: Config,
    *,
    audit_dir: Path,
    url: str,
    token: str,
    symbols: Sequence[str],
    reference: ReferenceInput,
    market_ns: int | None = None,
    layers: Collection[Layer] = tuple(Layer),
    lake: str | None = None,
    entry_rules: EntryRules | None = None,
    exit_rules: ExitRules | None = None,
    stops: TrailingStopConfig | None = None,
    credit_stops: TrailingStopConfig | None = None,
    seed: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> WiredOptionsDesk:
    """Wire a desk for the account at the option broker that listens at *url*, and read its chains.

    Args:
        config: Where things are kept, and the limits of an order.
        audit_dir: The journal's directory; made when it is not there.
        url: Of the broker's WebSocket.
        token: Its word for who may trade.
        symbols: Underlyings that are traded.
        reference: IV rank and VIX.
        market_ns: What time it is at a broker that owns the market's time, UTC ns; None for the machine's clock.
        layers: Which are on: the breaker always, then stops, then portfolio limits.
        lake: Where a projector puts the risk events; None for nowhere.
        entry_rules: When to enter what; how much and how many is the configuration's.
        exit_rules: Exits beside the stops.
        stops: Of new positions; None is the configuration's.
        credit_stops: Of new net-credit structures; None is as of the others.
        seed: Of the spread of reconnections; None takes the machine's.
        tell: Is given a sentence when the journal's first key was made.

    Raises:
        VenueError: The broker cannot be reached, or knows no such underlying.
        CircuitBreakerOpenError: Its breaker was latched, and no person has released it.
    """
    market_clock = ManualClock(market_ns or 0, source="venue:options")
    clock: Clock = SystemClock() if market_ns is None else market_clock
    own, user = config.options_desk, "options-desk"
    audit = _journal(config, audit_dir, clock, user=user, tell=tell)
    audit.wal.open()
    events = RiskEventLogger(audit, lake=lake, project=lake is not None)
    breakers = standard_registry(clock=clock, audit=audit, event_logger=events)
    breakers.restore([record.details for record in audit.wal.records() if record.type == "BREAKER"])
    venue = _options_venue(
        config,
        audit,
        breakers,
        url=url,
        token=token,
        clock=clock,
        owns_time=market_ns is not None,
        rng=random.Random(seed),  # noqa: S311  spreads retries
    )
    try:
        chains = {symbol: await venue.chain(symbol) for symbol in symbols}
        owned = await _ownable(venue, symbols)
    except BaseException:  # also an open breaker, and Ctrl-C while a chain is read
        await venue.close()
        audit.wal.close()
        raise
    board = QuoteBoard(confirmations=config.stops.confirmations)
    trader = Trader(
        venue,
        log=audit,
        limits=_options_limits(config, layers),
        clock=clock,
        strategies=[board],
        user=user,
        on_time=None if market_ns is None else market_clock.set_now_ns,
    )
    stop_manager = TrailingStopManager(
        events,
        config=stops or config.stops.trailing_stop,
        clock=clock,
        is_open=lambda execution_id: desk.engine.executions.is_held(execution_id),  # noqa: PLW0108  made below
    )
    risk = _options_risk(trader, events, stop_manager, venue.breaker, clock)
    desk = OptionsDesk(
        trader,
        board,
        clock=clock,
        chains=chains,
        reference=reference,
        risk=DeskRisk(
            trailing_stops=risk.trailing_stops if Layer.STOPS in layers else None,
            portfolio_limits=risk.portfolio_limits if Layer.LIMITS in layers else None,
        ),
        event_logger=events,
        entry_rules=msgspec.structs.replace(
            entry_rules or EntryRules(),
            units=QtyE2(own.contracts * 100),
            positions=own.max_positions,
            per_symbol=own.max_per_symbol,
        ),
        exit_rules=exit_rules,
        credit_stop_config=credit_stops,
        schedule=Schedule(entry_secs=own.entry_secs, monitor_secs=own.monitor_secs, exit_secs=own.exit_secs),
        buying_power=venue.buying_power,
        max_quote_age_secs=config.stops.max_quote_age_secs,
    )
    trader.market.instruments.update((instrument.ticker, instrument) for instrument in owned)
    tickers = [one.ticker for one in itertools.chain(*chains.values(), owned)]
    return WiredOptionsDesk(clock, audit, events, breakers, venue, trader, risk, desk, tickers)


def _options_venue(
    config: Config,
    audit: AuditLogger,
    breakers: BreakerRegistry,
    *,
    url: str,
    token: str,
    clock: Clock,
    owns_time: bool,
    rng: random.Random,
) -> OptionsVenue:
    """The broker at *url*, behind its breaker; what carrying costs there is assumed, and recorded as such."""
    own = config.options_desk
    rate = float(own.rate)
    assumed = {"rate": own.rate, "dividends": dict(own.dividends), "assumed": True}
    audit.log_config(audit.user, {"desk.options.carry": assumed}, component="wiring")
    return OptionsVenue(
        url,
        token,
        clock=clock,
        breaker=breakers.get_or_create(BROKER_BREAKER, CircuitBreakerConfig()),
        audit=audit,
        user=audit.user,
        venue_clock=owns_time,
        rng=rng,
        carry=Carry(rate),
        carries={symbol: Carry(rate, float(dividend)) for symbol, dividend in own.dividends.items()},
    )


def _options_limits(config: Config, layers: Collection[Layer]) -> RiskLimits:
    """The gate's limits; a mark may be as old as a quote that drives a stop."""
    limits = config.limits.risk_limits(portfolio=Layer.LIMITS in layers)
    age_secs = max(limits.max_mark_age_secs, config.stops.max_quote_age_secs)
    return replace(limits, max_exit_value=MAX_EXIT_VALUE, max_mark_age_secs=age_secs)


def _options_risk(
    trader: Trader,
    events: RiskEventLogger,
    stop_manager: TrailingStopManager,
    breaker: TradingCircuitBreaker,
    clock: Clock,
) -> RiskManager:
    """All three layers in one hand, asking the gate through which *trader* sends."""
    risk = RiskManager(
        user_id=trader.user or "",
        event_logger=events,
        audit_logger=trader.log,
        limits=trader.gate.limits,
        circuit_breaker=breaker,
        trailing_stops=stop_manager,
        clock=clock,
    )
    risk.bind(trader.gate, _known_in(trader))
    return risk


@dataclass(frozen=True)
class IBDesk:
    """One account at Interactive Brokers, wired.

    Attributes:
        clock: The machine's.
        audit: The journal.
        breakers: The registry, `ib_api` in it.
        venue: The port the trader trades through.
        trader: The running order path.
    """

    clock: Clock
    audit: AuditLogger
    breakers: BreakerRegistry
    venue: IBVenue
    trader: Trader

    async def close(self) -> None:
        """Let go of the connection and close the journal; resting orders stay."""
        await self.venue.close()
        self.audit.wal.close()


def open_ib_desk(
    config: Config,
    *,
    audit_dir: Path,
    strategies: Sequence[Strategy] = (),
    tell: Callable[[str], None] | None = None,
) -> IBDesk:
    """Wire a desk for the account at Interactive Brokers that *config* names; it connects when it is first asked.

    Raises:
        ConfigError: `ib_async` is not installed.
    """
    clock = SystemClock()
    ib = config.ib
    user = ib.account or "ib"
    audit = _journal(config, audit_dir, clock, user=user, tell=tell)
    audit.wal.open()
    breakers = standard_registry(clock=clock, audit=audit)
    breaker = breakers.get_or_create(IB_BREAKER, IB_API)
    breakers.restore([record.details for record in audit.wal.records() if record.type == "BREAKER"])
    venue = IBVenue(
        audit=audit,
        host=ib.host,
        port=ib.port,
        client_id=ib.client_id,
        account=ib.account,
        readonly=ib.readonly,
        breaker=breaker,
        clock=clock,
        timeout_secs=ib.timeout_secs,
        commission_bound=ib.commission_bound,
        numbers_from=numbers_reserved(audit.wal.records()),
        user=user,
    )
    limits = config.limits.risk_limits(portfolio=True)
    trader = Trader(venue, log=audit, limits=limits, clock=clock, strategies=strategies, user=user)
    return IBDesk(clock=clock, audit=audit, breakers=breakers, venue=venue, trader=trader)


async def _ownable(venue: OptionsVenue, symbols: Sequence[str]) -> list[Instrument]:
    """The underlyings that the broker lets one own; an index is none."""
    found: list[Instrument] = []
    for symbol in symbols:
        try:
            found.append(await venue.instrument(symbol))
        except VenueRejected as refused:
            if refused.code != "not_found":
                raise
    return found


def _known_in(trader: Trader) -> Callable[[str], Instrument]:
    def lookup(ticker: str) -> Instrument:
        known = trader.market.instruments.get(ticker)
        if known is None:
            raise VenueRejected(f"contract {ticker!r} was not read yet", code="not_read")
        return known

    return lookup


def _journal(
    config: Config, audit_dir: Path, clock: Clock, *, user: str, tell: Callable[[str], None] | None
) -> AuditLogger:
    """The journal in *audit_dir*, not opened yet, with its keys, its reserve and who remembers it."""
    keys = KeyHome(key_home(), tell=tell)
    log = WriteAheadLog(
        audit_dir,
        clock=clock,
        reserve_bytes=RESERVE_BYTES,
        reserve=Path(config.paths.reserve) if config.paths.reserve else None,
        keys=keys,
        marks=anchor_marks(keys, config.anchors.sinks),
        anchor=anchor_by(audit_dir, keys, config.anchors.sinks, SystemClock()),
    )
    return AuditLogger(log, user=user, personal=PersonalData(people_home(), config.audit.personal_fields))


def _restore_breakers(audit: AuditLogger, breakers: BreakerRegistry, client: AsyncKalshiClient) -> None:
    """Put back what a person must release; what another credential was shut out for concerns this one no more."""
    mine = client.signer.fingerprint if client.signer is not None else ""
    last, standing = "", list[Mapping[str, Any]]()
    for record in audit.wal.records():
        if record.type == "CONFIG" and CREDENTIAL in record.details:
            last, standing = str(record.details[CREDENTIAL]), _but_refusals(standing)
        elif record.type == "BREAKER":
            standing.append(record.details)
    breakers.restore(standing if last == mine else _but_refusals(standing))
    if last != mine:
        audit.log_config(client.user_id, {CREDENTIAL: mine}, component="wiring")


def _but_refusals(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [
        details for details in records if details["breaker"] != PARENT_BREAKER or details["to"] != "latched"
    ]
