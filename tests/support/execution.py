"""A trader over the fake venue with a journal in memory, or in a directory; and how to script both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec

from holdfast.audit.format import Record, encode_details
from holdfast.audit.wal import Entry, Level
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditWriteError
from holdfast.core.instruments import Instrument
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.signals import Action, Intent, Side, Signal, TimeInForce
from holdfast.execution.trader import Trader
from holdfast.risk.account import Account
from holdfast.risk.gate import Gate
from holdfast.risk.limits import RiskLimits
from holdfast.testing.venue import FakeVenue

TICKER = "KXTEST-26NOV20-A"
OTHER = "KXTEST-26NOV20-B"


class MemoryLog:
    """An AuditLogger whose journal is a list; `fail_next` and `fail_at` make appends fail as a disk would."""

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self.lines: list[Record] = list(records)
        self.fail_after: int | None = None
        self.poisoned = False
        self.user = "tester"
        self.wal = SimpleNamespace(
            records=self.records,
            on_poison=self._on_poison,
            log_id="00" * 16,
            state="open",
            failure="scripted",
            space_low=False,
            reserve_for=lambda _positions: True,
        )
        self._callbacks: list[Any] = []

    def _on_poison(self, callback: Any) -> None:
        self._callbacks.append(callback)

    def records(self, start_seq: int = 1) -> Iterator[Record]:
        return iter(self.lines[start_seq - 1 :])

    def of(self, *types: str) -> list[dict[str, Any]]:
        return [dict(line.details) for line in self.lines if line.type in types]

    def violations(self) -> list[str]:
        return [details["violation_type"] for details in self.of("RISK_VIOLATION")]

    def record_many(self, entries: Sequence[Entry], level: Level | None = None) -> list[int]:
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                self.poisoned = True
        if self.poisoned:
            for callback in self._callbacks:
                callback("scripted")
            raise AuditWriteError("scripted: the disk is gone")
        for entry in entries:
            details = msgspec.json.decode(encode_details(entry.details))
            self.lines.append(
                Record(
                    seq=len(self.lines) + 1,
                    synced=len(self.lines),
                    ts=0,
                    type=entry.type,
                    user=entry.user or self.user,
                    component=entry.component,
                    details=details,
                )
            )
        return list(range(len(self.lines) - len(entries) + 1, len(self.lines) + 1))

    def record(
        self,
        type: str,  # noqa: A002  as the real logger names it
        details: Any,
        *,
        user: Any = None,
        component: str = "",
        level: Any = None,
    ) -> int:
        return self.record_many([Entry(type, details, user or "", component)])[0]

    async def record_many_async(self, entries: Sequence[Entry], level: Level | None = None) -> list[int]:
        return self.record_many(entries, level)

    async def record_async(
        self,
        type: str,  # noqa: A002  as the real logger names it
        details: Any,
        **rest: Any,
    ) -> int:
        return self.record(type, details, **rest)

    def last_words(self, type: str, details: Any, **rest: Any) -> int:  # noqa: A002  as the real logger names it
        """No reserve: what comes after the failure is lost."""
        raise AuditWriteError("scripted: there is no reserve")

    def log_risk_violation(
        self, user_id: str, violation_type: str, current_value: Any, limit: Any, details: Any, **rest: Any
    ) -> int:
        facts = {
            "violation_type": violation_type,
            "current_value": current_value,
            "limit": limit,
            "details": dict(details),
        }
        return self.record("RISK_VIOLATION", facts, user=user_id)


def instrument(ticker: str = TICKER, **changes: Any) -> Instrument:
    return Instrument(venue="fake", ticker=ticker, event="KXTEST-26NOV20", **changes)


def signal(**changes: Any) -> Signal:
    """Buy 10 YES at 0.56, immediate or cancel, unless said otherwise; count in contracts, price in cents."""
    fields: dict[str, Any] = {
        "ticker": TICKER,
        "side": "yes",
        "action": "buy",
        "count": 10,
        "price": 56,
        "tif": "ioc",
    }
    fields |= changes
    return Signal(
        ticker=fields.pop("ticker"),
        side=Side(fields.pop("side")),
        action=Action(fields.pop("action")),
        count=QtyE2(round(fields.pop("count") * 100)),
        price=PriceE4(round(fields.pop("price") * 100)),
        tif=TimeInForce(fields.pop("tif")),
        **fields,
    )


def intent(name: str = "hf-a", *, of: Instrument | None = None, **changes: Any) -> Intent:
    wish = signal(**changes)
    return Intent(client_order_id=name, key=name, signal=wish, instrument=of or instrument(wish.ticker))


def opened_account(
    *, cash: str = "0.00", positions: dict[str, str] | None = None, liquidation: str = "0.00"
) -> Account:
    """An account whose session is open."""
    account = Account()
    account.apply(
        "SESSION_OPEN",
        {
            "session": "2026-11-20",
            "opened_ns": 0,
            "cash": cash,
            "liquidation": liquidation,
            "positions": positions or {},
            "marks": {},
        },
    )
    return account


def gate(*, limits: RiskLimits | None = None, clock: ManualClock | None = None, **account: Any) -> Gate:
    return Gate(opened_account(**account), limits or RiskLimits(), clock=clock or ManualClock())


def world(
    *,
    log: MemoryLog | None = None,
    clock: ManualClock | None = None,
    venue: FakeVenue | None = None,
    **trader: Any,
) -> SimpleNamespace:
    """A clock, a fake venue with two open markets quoted 0.55 / 0.56, a journal and a trader over them."""
    clock = clock or ManualClock()
    if venue is None:
        venue = FakeVenue(clock, [instrument(), instrument(OTHER)])
        for ticker in (TICKER, OTHER):
            venue.set_book(ticker, bids=[(5500, 100_000)], asks=[(5600, 100_000)])
    log = log or MemoryLog()

    async def no_sleep(_secs: float) -> None:
        return

    made = Trader(venue, log=log, clock=clock, sleep=no_sleep, **trader)
    return SimpleNamespace(
        clock=clock, venue=venue, log=log, trader=made, account=made.account, gate=made.gate
    )


def move_to(trader: Trader, venue: FakeVenue) -> None:
    """Let *trader* trade at *venue*, whose history is that of an earlier trader."""
    books = trader.books
    trader.venue = venue
    for part in (books, books._reader, books._lost, books._cancelling, books._unseen):
        part._venue = venue


async def drain(w: SimpleNamespace) -> None:
    """Deal with everything the venue has said so far."""
    w.venue.end_events()
    await w.trader.run(w.venue.events(()))
    w.venue._queue = None
