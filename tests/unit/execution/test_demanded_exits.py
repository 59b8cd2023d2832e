"""Exits that a stop or a person demands, on a journal whose disk died: through the reserve, and no further."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest
from support.contracts import NOW_NS, condor, option_world, put, wish
from support.execution import move_to

from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import read_records
from holdfast.audit.reserve import RESERVE_BYTES
from holdfast.audit.storage import LocalStorage
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import Intent
from holdfast.execution.replay import replay_log
from holdfast.execution.trader import RouteResult, RouteStatus
from holdfast.risk.halt import TradingState
from holdfast.testing.storage import FaultyStorage
from holdfast.testing.venue import FakeVenue, Play

LEGS = [leg.instrument for leg in condor().legs]


class Desk:
    """A trader that holds a condor, on a real journal whose disk can be made to fail, wholly or but for the reserve."""

    def __init__(self, directory: Path, venue: FakeVenue | None = None) -> None:
        self.directory = directory
        self.broken = ""
        disk = FaultyStorage(LocalStorage(), fail_at=1, error=errno.EIO, forever=True, counts=self._is_broken)
        self.clock = ManualClock(NOW_NS)
        self.wal = WriteAheadLog(
            directory, clock=self.clock, storage=disk, seal=False, reserve_bytes=RESERVE_BYTES
        )
        self.log = AuditLogger(self.wal, user="tester")
        self.world: Any = option_world(*LEGS, log=self.log, clock=self.clock)
        self.trader = self.world.trader
        if venue is not None:
            move_to(self.trader, venue)
        self.venue: FakeVenue = self.trader.venue
        self.account = self.trader.account

    def _is_broken(self, operation: str, name: str) -> bool:
        writes = operation in {"fdatasync", "fsync", "pwrite"}
        return writes and bool(self.broken) and name.startswith(tuple(self.broken.split()))

    async def enter(self) -> None:
        await self.trader.start()
        await self.trader.route(wish(condor(), "buy", 2, 0.2, key="in"))
        await self.trader.books.read_fills_quietly()
        assert len(self.account.portfolio.positions) == 4

    async def exit(self, *, demanded: bool = True, key: str = "out", count: int = 2) -> RouteResult:
        signal = wish(condor(), "sell", count, -0.2, key=key, reduce_only=True)
        result: RouteResult = await self.trader.route(signal, demanded=demanded)
        await self.trader.books.read_fills_quietly()
        return result

    def late(self) -> list[dict[str, Any]]:
        return [dict(record.details) for record in read_records(self.directory) if record.type == "LATE"]


async def poisoned(desk: Desk) -> None:
    """The disk under the segments fails; the reserve's own does not."""
    await desk.enter()
    desk.broken = "audit_"
    refused = await desk.trader.route(wish(condor(), "buy", 1, 0.2, key="more"))
    assert refused.reason == "audit_unavailable"
    assert desk.wal.state == "poisoned"
    assert desk.account.holds.state is TradingState.CANCEL_ONLY


@pytest.mark.invariant("I1")
@pytest.mark.invariant("I5")
@pytest.mark.invariant("I9")
@pytest.mark.contract("A11")
def test_a_demanded_exit_goes_through_the_reserve_of_a_dead_journal(tmp_path):
    """Its intent is durable in the reserve before a byte leaves, it closes the position, and the next start books it."""
    desk = Desk(tmp_path / "log")
    reserve_at_arrival: list[bytes] = []

    def arrives(intent: Intent) -> None:
        if intent.key == "out":
            reserve_at_arrival.append((tmp_path / "log" / "run" / "reserve").read_bytes())

    desk.venue._on_arrival = arrives

    async def run() -> str:
        await poisoned(desk)
        undemanded = await desk.exit(demanded=False, key="politely")
        assert (undemanded.status, undemanded.reason) == (RouteStatus.DENIED, "audit_unavailable")
        result = await desk.exit()
        assert result.status is RouteStatus.SUBMITTED
        assert desk.account.portfolio.positions == {}
        return result.client_order_id

    name = asyncio.run(run())
    assert name.encode() in reserve_at_arrival[0]
    assert b'"type":"ORDER"' in reserve_at_arrival[0]
    desk.broken = ""
    desk.wal.close()

    again = Desk(tmp_path / "log", desk.venue)

    async def restart() -> None:
        assert await again.trader.start()
        order = again.account.orders[name]
        assert (order.status, order.filled, order.legs) == (OrderStatus.FILLED, 200, desk_legs())
        assert again.account.portfolio.positions == {}
        repeated = await again.exit()
        assert (repeated.repeated, repeated.client_order_id) == (True, name)

    asyncio.run(restart())
    again.wal.close()
    assert [intent.key for intent in desk.venue.arrived] == ["in", "out"]
    late = again.late()
    assert [one["type"] for one in late if one["details"].get("client_order_id") == name] == [
        "DECISION",
        "ORDER",
    ]
    done = replay_log(read_records(tmp_path / "log"))
    assert done.holds_together, (done.differing, done.contradictions)


@pytest.mark.invariant("I5")
def test_an_exit_refused_on_a_dead_journal_is_not_held_for_lost_after_the_restart(tmp_path):
    """No book of the venue tells of a refusal: the reserve does, and the next run's exit is not held up by it."""
    desk = Desk(tmp_path / "log")

    async def run() -> str:
        await poisoned(desk)
        desk.venue.script(Play.REJECT)
        result = await desk.exit(key="refused")
        assert result.status is RouteStatus.REJECTED
        return result.client_order_id

    name = asyncio.run(run())
    desk.broken = ""
    desk.wal.close()

    again = Desk(tmp_path / "log", desk.venue)

    async def restart() -> None:
        assert await again.trader.start()
        assert again.account.orders[name].status is OrderStatus.REJECTED
        result = await again.exit(key="again")
        assert result.status is RouteStatus.SUBMITTED
        assert again.account.portfolio.positions == {}

    asyncio.run(restart())
    again.wal.close()
    done = replay_log(read_records(tmp_path / "log"))
    assert done.holds_together, (done.differing, done.contradictions)


def desk_legs() -> tuple[tuple[str, int], ...]:
    return tuple((leg.instrument.ticker, leg.ratio) for leg in condor().legs)


@pytest.mark.invariant("I5")
@pytest.mark.invariant("I9")
def test_the_exit_on_which_the_journal_dies_still_goes(tmp_path):
    """The disk fails under the exit's own record: the reserve takes it in the same call."""
    desk = Desk(tmp_path / "log")

    async def run() -> None:
        await desk.enter()
        desk.broken = "audit_"
        assert (await desk.exit()).status is RouteStatus.SUBMITTED
        assert desk.account.portfolio.positions == {}

    asyncio.run(run())
    desk.broken = ""
    desk.wal.close()


@pytest.mark.invariant("I1")
@pytest.mark.invariant("I9")
def test_without_the_reserve_a_demanded_exit_is_not_sent(tmp_path):
    """Neither journal nor reserve takes the intent: nothing leaves, and what was reserved is given back."""
    desk = Desk(tmp_path / "log")

    async def run() -> None:
        await poisoned(desk)
        desk.broken = "audit_ reserve"
        result = await desk.exit()
        assert (result.status, result.reason) == (RouteStatus.DENIED, "audit_unavailable")
        assert desk.account.reserved == 0
        assert len(desk.account.portfolio.positions) == 4

    asyncio.run(run())
    assert [intent.key for intent in desk.venue.arrived] == ["in"]
    desk.broken = ""
    desk.wal.close()


@pytest.mark.invariant("I3")
@pytest.mark.invariant("I9")
def test_demanding_does_not_let_risk_in(tmp_path):
    """On a dead journal a demanded order that adds risk, sells a wing or closes too much is refused."""
    desk = Desk(tmp_path / "log")

    async def run() -> None:
        await poisoned(desk)
        for signal in (
            wish(condor(), "buy", 1, 0.2, key="adds"),
            wish(put(470), "sell", 1, 1, key="sells a wing"),
            wish(condor(), "sell", 3, -0.2, key="closes too much"),
        ):
            named = await desk.trader.route(signal, demanded=True)
            assert (named.status, named.reason) == (RouteStatus.DENIED, "state_cancel_only")

    asyncio.run(run())
    assert [intent.key for intent in desk.venue.arrived] == ["in"]
    desk.broken = ""
    desk.wal.close()


@pytest.mark.invariant("I6")
@pytest.mark.parametrize("state", [TradingState.CANCEL_ONLY, TradingState.HALTED])
@pytest.mark.parametrize("is_poisoned", [False, True])
def test_no_other_hold_is_passed(tmp_path, state, is_poisoned):
    """A person's halt and a drift of positions bar the demanded exit, whether the journal lives or not."""
    desk = Desk(tmp_path / "log")

    async def run() -> None:
        if is_poisoned:
            await poisoned(desk)
        else:
            await desk.enter()
        desk.trader.ledger.hold("person", state, reason="test")
        result = await desk.exit()
        assert (result.status, result.reason) == (RouteStatus.DENIED, f"state_{state.name.lower()}")

    asyncio.run(run())
    assert [intent.key for intent in desk.venue.arrived] == ["in"]
    desk.broken = ""
    desk.wal.close()


@pytest.mark.invariant("I6")
def test_a_hold_that_comes_before_the_send_voids_a_demanded_exit(tmp_path):
    """Halted between admission and the first byte: the exit is not sent."""
    desk = Desk(tmp_path / "log")

    async def run() -> None:
        await poisoned(desk)
        place = desk.venue.place

        async def halted_meanwhile(*order: Any) -> Any:
            desk.trader.ledger.hold("person", TradingState.HALTED, reason="test")
            return await place(*order)

        desk.venue.place = halted_meanwhile
        result = await desk.exit()
        assert (result.status, result.reason) == (RouteStatus.NOT_SENT, "state_halted")

    asyncio.run(run())
    assert [intent.key for intent in desk.venue.arrived] == ["in"]
    desk.broken = ""
    desk.wal.close()


@pytest.mark.invariant("I2")
def test_a_demanded_exit_whose_answer_is_lost_is_looked_for_after_the_restart(tmp_path):
    """UNKNOWN on a dead journal: the next start takes the intent from the reserve and finds how it ended, sent once."""
    desk = Desk(tmp_path / "log")

    async def run() -> str:
        await poisoned(desk)
        desk.venue.script(Play.LOST)
        result = await desk.trader.route(wish(condor(), "sell", 2, -0.2, key="out"), demanded=True)
        assert result.status is RouteStatus.UNKNOWN
        again = await desk.exit(key="second")
        assert again.reason in {"state_cancel_only", "not_reducing"}  # the first one may have closed it all
        name: str = result.client_order_id
        return name

    name = asyncio.run(run())
    desk.broken = ""
    desk.wal.close()
    after = Desk(tmp_path / "log", desk.venue)

    async def restart() -> None:
        assert await after.trader.start()
        assert after.account.orders[name].status is OrderStatus.FILLED
        assert after.account.portfolio.positions == {}

    asyncio.run(restart())
    after.wal.close()
    assert [intent.key for intent in desk.venue.arrived] == ["in", "out"]
