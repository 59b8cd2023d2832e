"""The composition root: the one place where a desk gets its clock, disk, venue and limits.

A desk is everything one venue account needs in one process. Paper and live differ here and nowhere else, and
only in values: whose address, whose key, whose clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.anchors.marks import anchor_marks
from holdfast.anchors.opening import anchor_by
from holdfast.audit.keys import KeyHome
from holdfast.audit.logger import AuditLogger
from holdfast.audit.people import PersonalData
from holdfast.audit.reserve import RESERVE_BYTES
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.registry import BreakerRegistry, standard_registry
from holdfast.config import Config, key_home, people_home
from holdfast.core.clock import Clock, ManualClock, SystemClock
from holdfast.core.money import MoneyE6
from holdfast.execution.strategy import Strategy
from holdfast.execution.trader import Trader
from holdfast.risk.limits import RiskLimits
from holdfast.venues.kalshi.adapter import KalshiVenue
from holdfast.venues.kalshi.client import HOSTS, AsyncKalshiClient
from holdfast.venues.kalshi.transport import PARENT_BREAKER

CREDENTIAL = "venue.kalshi.signer"
"""The CONFIG record's name for the fingerprint of the credential in use."""


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
    reserve = Path(config.paths.reserve) if config.paths.reserve else None
    keys = KeyHome(key_home(), tell=tell)
    log = WriteAheadLog(
        audit_dir,
        clock=clock,
        reserve_bytes=RESERVE_BYTES,
        reserve=reserve,
        keys=keys,
        marks=anchor_marks(keys, config.anchors.sinks),
        anchor=anchor_by(audit_dir, keys, config.anchors.sinks, SystemClock()),
    )
    audit = AuditLogger(log, user=user, personal=PersonalData(people_home(), config.audit.personal_fields))
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
    limits = RiskLimits(
        max_position=config.limits.max_position_size,
        max_order_value=config.limits.max_order_value,
        max_exit_value=MoneyE6(10 * config.limits.max_order_value),
        max_daily_loss=config.limits.max_daily_loss,
        max_mark_age_secs=config.limits.max_mark_age_secs,
    )
    trader = Trader(
        venue,
        log=audit,
        limits=limits,
        clock=clock,
        strategies=strategies,
        user=user,
        on_time=market_clock.set_now_ns if venue_clock else None,
    )
    return Desk(clock=clock, audit=audit, breakers=breakers, client=client, venue=venue, trader=trader)


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
