"""kill -9 of a trader whose lost exit goes again, before and after the bytes: the exit is one order, and it ends.

Run as a program it is the trader: it takes the journal up, sells what it holds, and kills itself where it is told to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from support.broker import CALL, START_NS, WIDE, WrittenFeed, basic_quotes, desk_at, minute, serving

from holdfast.audit.query import read_records
from holdfast.audit.verify import verify
from holdfast.core.clock import NANOS, ManualClock
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.orders import OrderStatus
from holdfast.core.signals import Action, Side, Signal, TimeInForce
from holdfast.execution.trader import Trader
from holdfast.venues.broker.faults import Faults, read_script
from holdfast.venues.broker.server import Endpoints

LIMIT_SECS = 60
KILLS = ("between record and bytes", "between bytes and answer", "")


def wish(action: Action, cents: int, key: str) -> Signal:
    return Signal(
        ticker=CALL.ticker,
        side=Side.YES,
        action=action,
        count=QtyE2(100),
        price=PriceE4(cents * 100),
        tif=TimeInForce.IOC,
        key=key,
        reduce_only=action is Action.SELL,
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def trade(ws: str, token: str, where: str, run: int, kill: str) -> None:
    clock = ManualClock(START_NS + run * 60 * NANOS)
    async with desk_at(Endpoints(ws, token), Path(where), clock=clock) as desk:
        trader = Trader(desk.venue, log=desk.log, clock=clock, limits=WIDE, user="test")
        assert await trader.start()
        if not run:
            await trader.route(wish(Action.BUY, 325, "in"))
            await trader.books.read_fills_quietly()
            print("held", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            await trader.route(wish(Action.SELL, 305, "out"))
        place = desk.venue.place

        async def dying(*sent):
            if kill == "between record and bytes":
                die()
            answer = await place(*sent)
            if kill == "between bytes and answer":
                die()
            return answer

        desk.venue.place = dying
        for secs in (1, 2, 4, 8, 16):
            clock.advance(secs)
            await trader.tick(clock.now_ns())
        assert await trader.stop() == []


@pytest.mark.slow
@pytest.mark.contract("A16")
@pytest.mark.invariant("I1", "I2", "I7")
def test_a_lost_exit_is_one_order_through_every_kill(tmp_path):
    """Killed at its repetition twice, it stays counted, keeps its name, and closes the position once."""

    async def scenario():
        written = WrittenFeed(minutes=[minute(n, basic_quotes()) for n in range(4)])
        async with serving(written) as (server, at):
            for run, kill in enumerate(KILLS):
                arguments = (at.ws, at.token, str(tmp_path), str(run), kill)
                trader = await asyncio.create_subprocess_exec(
                    sys.executable,
                    __file__,
                    *arguments,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                )
                if not run:
                    assert await trader.stdout.readline() == b"held\n"
                    server.faults = Faults(0, script=read_script("0:orders_500=1", START_NS))
                    trader.stdin.write(b"\n")
                await trader.communicate()
                assert trader.returncode == (-signal.SIGKILL if kill else 0), kill
            names = [row.request.client_order_id for row in server.engine.orders.values()]
            assert len(names) == len(set(names)) == 2
            assert not server.engine.account.positions.get(CALL.ticker)
        assert verify(tmp_path / "audit").ok
        updates = [r.details for r in read_records(tmp_path / "audit") if r.type == "ORDER_UPDATE"]
        again = [one["evidence"] for one in updates if one["event"] == "resent"]
        assert again == [f"absent; time {n} of 100" for n in (1, 2)]
        assert updates[-1]["status"] == OrderStatus.FILLED

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_SECS))


if __name__ == "__main__":
    asyncio.run(trade(*sys.argv[1:4], int(sys.argv[4]), sys.argv[5]))
