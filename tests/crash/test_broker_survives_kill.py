"""kill -9 of the paper option broker, and of whoever trades at it: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.broker import desk_at

from holdfast.core.clock import ManualClock
from holdfast.core.signals import TimeInForce
from holdfast.execution.venue import Ack, StreamGap, VenueTime
from holdfast.venues.broker.server import Endpoints

BASE = (
    "--desk",
    "options",
    "--json",
    "--symbols",
    "SPY",
    "--seed",
    "5",
    "--speed",
    "max",
    "--exit-with-stdin",
)


async def child(directory: Path, port: int, *more: str):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "holdfast", "exchange", *BASE, "--dir", str(directory), "--port", str(port), *more),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    line = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    return process, Endpoints(line["ws"], line["token"]), line["clock"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
@pytest.mark.contract("A21")
def test_a_killed_broker_comes_back_with_its_books_and_its_follower_finds_it(tmp_path):
    """The stream reconnects, an order whose answer the kill took is found or provably absent, time goes on."""

    async def scenario():
        port = free_port()
        process, endpoints, clock_ns = await child(tmp_path / "dir", port)
        clock = ManualClock(clock_ns)
        async with desk_at(endpoints, tmp_path / "a", clock=clock) as desk:
            chain = await desk.venue.chain("SPY")
            one = next(c for c in chain if c.option.right == "C" and c.option.strike == 4_500_000)
            names, gaps, placed, killed_ns = [], [], [], 0
            async for event in desk.venue.events([one.ticker]):
                if isinstance(event, StreamGap):
                    gaps.append(event.reason.split(":")[0])
                if not isinstance(event, VenueTime):
                    continue
                clock.set_now_ns(event.ts_ns)
                minutes = (event.ts_ns - clock_ns) // (60 * 10**9)
                if minutes >= 2 and len(placed) < 2:
                    book = await desk.venue.book(one.ticker)
                    wish = await desk.intent(
                        f"k{len(placed)}", one.ticker, price=book.best_ask // 100 + 50, tif=TimeInForce.IOC
                    )
                    names.append(wish.client_order_id)
                    if len(placed) == 1:
                        os.kill(process.pid, signal.SIGKILL)
                        killed_ns = event.ts_ns
                    placed.append(await desk.place(wish))
                    if len(placed) == 2:
                        await process.wait()
                        process, again, _ = await child(tmp_path / "dir", port)
                        assert again == endpoints
                await desk.venue.quiescent(event.n)
                if killed_ns and event.ts_ns > killed_ns + 120 * 10**9:
                    break
            assert isinstance(placed[0], Ack)
            assert gaps.count("disconnected") >= 1
            assert gaps[-1] == "connected"
            found = await desk.venue.find_order(client_order_id=names[1], ticker=one.ticker, since_ns=0)
            if isinstance(placed[1], Ack):
                assert found is not None
            fills = await desk.venue.fills(since_ns=0)
            assert len({fill.trade_id for fill in fills}) == len(fills)
            expected = 100 + (0 if found is None else found.filled)
            assert (
                (await desk.venue.positions()).get(one.ticker, 0) == sum(f.delta for f in fills) == expected
            )
        process.stdin.close()
        assert await process.wait() == 0

    asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.slow
def test_a_killed_follower_holds_nobody_and_another_one_takes_over(tmp_path):
    """The market stands still without it, and its successor reads what it had bought."""
    script = (
        "import asyncio,sys;sys.path.insert(0,'tests')\n"
        "from pathlib import Path\n"
        "from support.broker import desk_at\n"
        "from holdfast.core.clock import ManualClock\n"
        "from holdfast.core.signals import TimeInForce\n"
        "from holdfast.venues.broker.server import Endpoints\n"
        "async def main(ws,token,clock,where):\n"
        "    async with desk_at(Endpoints(ws,token),Path(where),clock=ManualClock(int(clock))) as desk:\n"
        "        chain=await desk.venue.chain('SPY')\n"
        "        one=next(c for c in chain if c.option.right=='C' and c.option.strike==4500000)\n"
        "        async for event in desk.venue.events([one.ticker]):\n"
        "            name=type(event).__name__\n"
        "            if name=='VenueTime': await desk.venue.quiescent(event.n)\n"
        "            if name=='BookChanged':\n"
        "                wish=await desk.intent('mine',one.ticker,price=event.book.best_ask//100+50,tif=TimeInForce.IOC)\n"
        "                await desk.place(wish); print('bought',flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main(*sys.argv[1:]))\n"
    )

    async def scenario():
        process, endpoints, clock_ns = await child(tmp_path / "dir", 0)
        trader = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            script,
            endpoints.ws,
            endpoints.token,
            str(clock_ns),
            str(tmp_path / "a"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert await asyncio.wait_for(trader.stdout.readline(), 30) == b"bought\n"
        trader.kill()
        await trader.wait()
        async with desk_at(endpoints, tmp_path / "b", clock=ManualClock(clock_ns)) as desk:
            found = await desk.venue.find_order(client_order_id="mine", ticker="", since_ns=0)
            assert found is not None
            assert await desk.venue.positions() == {found.ticker: 100}
            ticks = 0
            async for event in desk.venue.events([found.ticker]):
                if isinstance(event, VenueTime):
                    await desk.venue.quiescent(event.n)
                    ticks += 1
                    if ticks == 6:
                        break
        process.stdin.close()
        assert await process.wait() == 0

    asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.slow
@pytest.mark.contract("A21")
def test_a_run_whose_broker_is_killed_ends_and_can_be_taken_up(tmp_path):
    """The run does not wait for ever for a broker that is gone: it ends with 5 and says where it can go on."""
    run = ("paper", "--desk", "options", "--lake", "none", "--symbols", "SPY", "--speed", "60")
    with subprocess.Popen(
        [sys.executable, "-m", "holdfast", *run, "--dir", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as trader:
        assert b"run directory" in trader.stdout.readline()  # its broker is up,
        assert trader.stdout.readline()  # and the story began
        broker = Path(f"/proc/{trader.pid}/task/{trader.pid}/children").read_text().split()[0]
        os.kill(int(broker), signal.SIGKILL)
        try:
            _, said = trader.communicate(timeout=20)
        finally:
            trader.kill()
    assert trader.returncode == 5, said
    assert b"--dir" in said
