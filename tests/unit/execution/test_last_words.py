"""What a trader still does, and writes down, when its journal's disk fails under it."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from pathlib import Path

import pytest
from support.execution import TICKER, signal, world

from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import read_records
from holdfast.audit.reserve import POSITION_BYTES, RESERVE_BYTES
from holdfast.audit.storage import LocalStorage
from holdfast.audit.wal import Entry, WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import AuditError
from holdfast.execution import ledger as ledger_module
from holdfast.execution.trader import RouteStatus
from holdfast.execution.venue import Canceled
from holdfast.risk.halt import TradingState
from holdfast.testing.storage import FaultyStorage


class Desk:
    """A trader on a real journal whose disk, or only the part with the segments, can be made to fail."""

    def __init__(self, directory: Path, **options) -> None:
        self.directory = directory
        self.broken = ""
        disk = FaultyStorage(LocalStorage(), fail_at=1, error=errno.EIO, forever=True, counts=self._is_broken)
        clock = ManualClock()
        options = {"reserve_bytes": RESERVE_BYTES, **options}
        self.wal = WriteAheadLog(directory, clock=clock, storage=disk, seal=False, **options)
        self.world = world(log=AuditLogger(self.wal, user="tester"), clock=clock)
        self.trader, self.venue = self.world.trader, self.world.venue

    def _is_broken(self, operation: str, name: str) -> bool:
        writes = operation in {"fdatasync", "fsync", "pwrite"}
        return writes and bool(self.broken) and name.startswith(tuple(self.broken.split()))

    async def with_resting_order(self) -> str:
        await self.trader.start()
        resting = await self.trader.route(signal(key="rest", price=50, tif="gtc"))
        assert resting.status is RouteStatus.SUBMITTED
        return resting.client_order_id

    def late(self):
        """What the next start writes down."""
        self.broken = ""
        self.wal.close()
        with WriteAheadLog(self.directory, clock=ManualClock(), seal=False) as log:
            log.open()
        return [record.details for record in read_records(self.directory) if record.type == "LATE"]


@pytest.mark.invariant("I9")
@pytest.mark.invariant("I5")
@pytest.mark.contract("A11")
def test_a_cancel_goes_out_on_a_dead_journal_and_is_written_into_its_reserve(tmp_path):
    """With the journal poisoned a cancel reaches the venue, its intent stands in the reserve, new risk is refused."""
    desk = Desk(tmp_path / "log")

    async def run():
        name = await desk.with_resting_order()
        desk.broken = "audit_"
        refused = await desk.trader.route(signal(key="b"))
        assert (refused.status, refused.reason) == (RouteStatus.DENIED, "audit_unavailable")
        assert isinstance(await desk.trader.cancel(name), Canceled)
        assert await desk.venue.open_orders() == []
        assert desk.trader.ledger.unrecorded == 0
        return name

    name = asyncio.run(run())
    words = [one for one in desk.late() if one["type"] == "CANCEL"]
    assert [one["details"]["client_order_id"] for one in words] == [name]
    assert words[0]["details"]["ticker"] == TICKER


@pytest.mark.invariant("I5")
def test_a_cancel_goes_out_counted_and_told_where_the_reserve_fails_too(tmp_path, caplog):
    """Neither journal nor reserve takes anything: the cancel is sent all the same, and everybody is told."""
    desk = Desk(tmp_path / "log")

    async def run():
        name = await desk.with_resting_order()
        desk.broken = "audit_ reserve"
        await desk.trader.route(signal(key="b"))
        before = desk.trader.ledger.unrecorded
        assert isinstance(await desk.trader.cancel(name), Canceled)
        assert desk.trader.ledger.unrecorded == before + 1

    with caplog.at_level(logging.CRITICAL, logger="holdfast.execution"):
        asyncio.run(run())
    assert "unrecorded type=CANCEL" in caplog.text
    assert not [one for one in desk.late() if one["type"] == "CANCEL"]


def test_a_reserve_that_hangs_holds_up_a_cancel_once_and_briefly(tmp_path, monkeypatch, caplog):
    """A disk that never answers costs the first cancel the time allowed and the next ones nothing."""
    monkeypatch.setattr(ledger_module, "WORDS_WITHIN_SECS", 0.01)
    desk = Desk(tmp_path / "log")
    answers = threading.Event()

    def hang(*_, **__):
        answers.wait()
        return 1

    async def run():
        name = await desk.with_resting_order()
        other = await desk.trader.route(signal(key="other", price=49, tif="gtc"))
        desk.broken = "audit_"
        await desk.trader.route(signal(key="b"))
        monkeypatch.setattr(desk.trader.log, "last_words", hang)
        for order in (name, other.client_order_id):
            assert isinstance(await desk.trader.cancel(order), Canceled)
        answers.set()
        assert desk.trader.ledger.unrecorded == 2

    asyncio.run(run())
    waited, not_asked = (one.getMessage() for one in caplog.records if "unrecorded" in one.getMessage())
    assert "did not answer within" in waited
    assert "the reserve's disk hangs" in not_asked
    desk.late()


def exit_records(order_id: str = "hf-exit") -> list[Entry]:
    return [
        Entry("WISH", {"client_order_id": order_id, "verdict": "allowed"}, "ops", "gate"),
        Entry("EXIT", {"client_order_id": order_id}, "ops", "trader"),
    ]


@pytest.mark.invariant("I1")
def test_a_demanded_exit_is_durable_in_the_reserve_before_it_may_leave(tmp_path):
    """What a person or a stop demands is written into the reserve, whole and in order, and nothing else is."""
    desk = Desk(tmp_path / "log")

    async def run():
        await desk.with_resting_order()
        desk.broken = "audit_"
        with pytest.raises(AuditError):
            await desk.trader.ledger.write_intent(exit_records("hf-wish"))
        await desk.trader.ledger.write_intent(exit_records(), demanded=True)

    asyncio.run(run())
    late = [one for one in desk.late() if one["type"] != "STATE"]
    assert [(one["type"], one["details"]["client_order_id"]) for one in late] == [
        ("WISH", "hf-exit"),
        ("EXIT", "hf-exit"),
    ]
    assert {one["user"] for one in late} == {"ops"}


@pytest.mark.invariant("I1")
def test_a_demanded_exit_that_nothing_can_record_is_refused(tmp_path):
    """Never an unrecorded order: with journal and reserve gone the exit's intent raises."""
    desk = Desk(tmp_path / "log")

    async def run():
        await desk.with_resting_order()
        desk.broken = "audit_ reserve"
        for _ in range(2):
            with pytest.raises(AuditError):
                await desk.trader.ledger.write_intent(exit_records(), demanded=True)

    asyncio.run(run())
    desk.late()


def test_a_halt_on_a_dead_journal_stands_in_its_reserve(tmp_path):
    """A state that the journal cannot take any more is told by the next start's LATE record."""
    desk = Desk(tmp_path / "log")

    async def run():
        await desk.with_resting_order()
        desk.broken = "audit_"
        desk.trader.ledger.hold("ops", TradingState.HALTED, reason="stop", who="ops")
        assert not await desk.trader.ledger.write()

    asyncio.run(run())
    assert [one["details"]["to"] for one in desk.late() if one["type"] == "STATE"] == ["HALTED"]


def test_an_exit_in_the_reserve_is_an_order_of_the_next_start(tmp_path):
    """After a restart an order that only the reserve recorded is known, unknown in outcome, and looked for."""
    desk = Desk(tmp_path / "log")

    async def run():
        name = await desk.with_resting_order()
        order = next(record for record in desk.wal.records() if record.type == "ORDER").details
        late = {**order, "client_order_id": "hf-late", "order_id": "hf-late", "intent": "late"}
        desk.broken = "audit_"
        await desk.trader.ledger.write_intent([Entry("ORDER", late, "", "trader")], demanded=True)
        return name

    asyncio.run(run())
    desk.broken = ""
    desk.wal.close()
    again = Desk(tmp_path / "log")

    async def rerun():
        await again.trader.start()
        assert "hf-late" in again.trader.account.orders
        events = [record.details for record in again.wal.records() if record.type == "ORDER_UPDATE"]
        assert any(one["client_order_id"] == "hf-late" and one["reason"] == "restart" for one in events)

    asyncio.run(rerun())
    again.wal.close()


def test_the_reserve_is_sized_for_everything_held_or_worked_in(tmp_path):
    """Each market with a position or an order has its share of the reserve before the journal needs it."""
    desk = Desk(tmp_path / "log", reserve_bytes=POSITION_BYTES // 2)
    reserve = tmp_path / "log" / "run" / "reserve"

    async def run():
        await desk.with_resting_order()
        await desk.trader.tick(desk.world.clock.now_ns())

    asyncio.run(run())
    assert reserve.stat().st_size >= POSITION_BYTES
    desk.wal.close()


def test_without_room_for_last_words_no_new_risk_is_taken(tmp_path):
    """A reserve that cannot be had holds trading at REDUCING, under its own reason."""
    desk = Desk(tmp_path / "log")
    desk.broken = "reserve"

    async def run():
        await desk.trader.start()
        refused = await desk.trader.route(signal(key="a"))
        assert refused.reason == "state_reducing"
        states = [record.details for record in desk.wal.records() if record.type == "STATE"]
        assert any("last words" in state["reason"] for state in states)

    asyncio.run(run())
    desk.wal.close()
