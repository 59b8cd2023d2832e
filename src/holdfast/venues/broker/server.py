"""The paper broker as a server: its own wire on a loopback port, over a seeded chain or a recording.

It owns the market's time: everything it says carries market time. Time moves in ticks of `TICK_NS`; a minute's quotes
come with the tick of its close. A connection that follows the clock gets a tick after every step, and market time does
not move on until each of them has answered `quiescent` with the number of its latest tick; if anything was sent to
it since that tick, it gets a new one (same time, next number) and is waited for again. So equal seeds, faults and
requests lead to equal runs whatever the machine's load. Without followers time runs free at `speed` times wall time;
with `hold` it stands still while nobody follows, which is the default at unlimited speed.

A pause in the feed longer than `PAUSE_NS`, a night, is skipped. With a `Memory` a broker that was killed is taken up
again where it was.

Limits: loopback only; one account with one token; no TLS.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import os
import secrets
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from aiohttp import web

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput, TradingError
from holdfast.core.money import MoneyE6
from holdfast.venues.broker import wire
from holdfast.venues.broker.connection import Connection
from holdfast.venues.broker.endings import Assignment
from holdfast.venues.broker.engine import DEFAULT_CASH, Books, Ended, Engine, Executed, OrderMoved, Quoted
from holdfast.venues.broker.faults import Faults
from holdfast.venues.broker.feed import Feed, Minute
from holdfast.venues.broker.memory import Memory

TICK_NS: Final = 15 * NANOS
PAUSE_NS: Final = 3600 * NANOS
DEFAULT_SPEED: Final = 60.0
HEARTBEAT_SECS: Final = 10.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_BEARER: Final = "Bearer "


class Endpoints(NamedTuple):
    """Where to trade and with which token."""

    ws: str
    token: str


class PortTaken(TradingError):
    """Another process listens on the port that was asked for."""


class BrokerServer:
    """One broker over one feed.

    Args:
        feed: The market without us.
        seed: Of ids and assignments by chance.
        cash: Opening balance, 1e-6 dollar.
        assignments: Scripted early ones.
        assign_ppm: See `Engine`.
        faults: What goes wrong on purpose.
        speed: Market seconds per wall second; None is as fast as followers allow.
        market_secs: Market seconds after which the market ends.
        hold: Whether time stands still while nobody follows; None is only at unlimited speed.
        memory: Takes a market up again, and remembers it.

    Attributes:
        engine: The broker's books.
        market: Names the feed, for people.
        is_final: The market is over; the last tick was or will be marked so.

    Raises:
        BadInput: A speed or time that is not positive.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        seed: int = 0,
        cash: MoneyE6 = DEFAULT_CASH,
        assignments: Iterable[Assignment] = (),
        assign_ppm: int = 0,
        faults: Faults | None = None,
        speed: float | None = DEFAULT_SPEED,
        market_secs: float | None = None,
        hold: bool | None = None,
        memory: Memory | None = None,
    ) -> None:
        for name, given in (("speed", speed), ("market seconds", market_secs)):
            if given is not None and not 0 < given < math.inf:
                raise BadInput(f"{name} {given} is not a number above 0", hint="for instance 60")
        self.engine = Engine(feed, seed=seed, cash=cash, assignments=assignments, assign_ppm=assign_ppm)
        self.faults = faults or Faults(seed)
        self.market = feed.describe()
        self.is_final = False
        self._minutes: Iterator[Minute] = iter(feed)
        self._upcoming: Minute | None = None
        self._start_ns = feed.start_ns
        self._end_ns = 1 << 63 if market_secs is None else feed.start_ns + round(market_secs * NANOS)
        self._speed = speed
        self._hold = speed is None if hold is None else hold
        self._memory = memory
        self._token = secrets.token_urlsafe(24) if memory is None else memory.token
        self._connections: list[Connection] = []
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._player: asyncio.Task[None] | None = None

    # Life.

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> Endpoints:
        """Listen, and let market time begin; port 0 takes a free one.

        Raises:
            BadInput: *host* is not loopback, or the feed cannot be played.
            PortTaken: Another process has the port.
        """
        if host not in _LOOPBACK:
            raise BadInput(
                f"host {host!r} is not a loopback address",
                hint="the broker hands out its token and speaks plain WebSocket; it never leaves this machine",
            )
        self._upcoming = next(self._minutes, None)
        self._release(self.engine.now_ns)
        if self._memory is not None:
            self._memory.replay(self.engine, self._release)
            self.faults.skip_until(self.engine.now_ns)
            self.engine.told = self._memory.keep
        # Whoever comes is shown how things stand; what led there is nobody's news.
        self.engine.drain()
        app = web.Application()
        app.router.add_get(wire.PATH, self._serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            raise PortTaken(
                f"port {port} on {host} cannot be used: {os.strerror(error.errno or 0).lower()}",
                hint="choose another with --port, or 0 for a free one",
            ) from error
        self._runner = runner
        taken: int = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        self._player = asyncio.create_task(self._play())
        return Endpoints(f"ws://{shown}:{taken}{wire.PATH}", self._token)

    async def stop(self) -> None:
        """Close every connection and the port."""
        if self._player is not None:
            self._player.cancel()
            await asyncio.wait({self._player})
            if not self._player.cancelled():
                self._player.exception()  # told by `over` to whoever asked; nobody else is left to hear it
        for connection in list(self._connections):
            await connection.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._memory is not None:
            self.engine.told = None
            self._memory.close()

    def finish(self) -> None:
        """End the market with its next tick, which comes once every follower is done with the last one."""
        self._end_ns = min(self._end_ns, self.engine.now_ns)

    async def over(self) -> None:
        """Until the market is over: the feed exhausted or its time up. Raises what ended it otherwise."""
        if self._player is not None:
            await asyncio.shield(self._player)

    def books(self) -> Books:
        """What the broker believes: cash, positions, orders, executions."""
        return self.engine.books()

    # Telling.

    def publish(self, *, cut_after_leg: Connection | None = None) -> None:
        """Tell every connection what happened, in order; *cut_after_leg* hears the first execution and is gone."""
        for what in self.engine.drain():
            if isinstance(what, Quoted):
                for connection in self._connections:
                    told = [quote for quote in what.minute.quotes if quote.ticker in connection.tickers]
                    if told or connection.has_clock:
                        connection.tell(wire.quotes(what.minute.ts_ns, told, what.minute.spots))
                continue
            frame = _frame(what)
            for connection in self._connections:
                connection.tell(frame)
            if cut_after_leg is not None and isinstance(what, Executed):
                cut_after_leg.cut()

    def changed(self) -> None:
        """A follower came, went or became quiescent."""
        self._changed.set()

    # Market time.

    async def _play(self) -> None:
        """Release the feed tick by tick until it, or its time, is over."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.is_final:
            target = self._next_tick()
            if self._speed is not None:
                passing = min(target - self.engine.now_ns, TICK_NS)
                due = max(due + passing / NANOS / self._speed, loop.time() - 1.0)
            await asyncio.sleep(max(0.0, due - loop.time()) if self._speed is not None else 0.0)
            # Nothing may be awaited between the last quiescence and the release.
            await self._quiet()
            self._release(target)
            self.engine.advance(target)
            self.is_final = self._upcoming is None or target >= self._end_ns
            self.publish()
            is_cut = self.faults.is_cut(target)
            for connection in list(self._connections):
                connection.tick(target, is_final=self.is_final)
                if is_cut:
                    connection.cut()

    def _next_tick(self) -> int:
        """When the next tick is: on the grid from the feed's start, a long pause skipped."""
        now_ns = self.engine.now_ns
        target = self._on_grid(now_ns + 1)
        upcoming = self._upcoming
        if upcoming is not None and upcoming.ts_ns - now_ns > PAUSE_NS:
            target = self._on_grid(upcoming.ts_ns - TICK_NS)
        return max(min(target, self._end_ns), now_ns)

    def _on_grid(self, ts_ns: int) -> int:
        """The first tick not before *ts_ns*."""
        return self._start_ns + -(-(ts_ns - self._start_ns) // TICK_NS) * TICK_NS

    def _release(self, until_ns: int) -> None:
        """Let every minute happen that closed by *until_ns*."""
        while self._upcoming is not None and self._upcoming.ts_ns <= until_ns:
            self.engine.apply(self._upcoming)
            self._upcoming = next(self._minutes, None)

    async def _quiet(self) -> None:
        """Until every follower is done with its latest tick; where time is held, until there is one at all."""
        while True:
            followers = [connection for connection in self._connections if connection.has_clock]
            if all(follower.is_quiescent for follower in followers) and (followers or not self._hold):
                return
            self._changed.clear()
            await self._changed.wait()

    # Connections.

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        said = request.headers.get("Authorization", "")
        if not hmac.compare_digest(said.encode(), f"{_BEARER}{self._token}".encode()):
            return web.json_response({"code": "unauthorized"}, status=401)
        socket = web.WebSocketResponse(max_msg_size=1 << 20, compress=False, heartbeat=HEARTBEAT_SECS)
        await socket.prepare(request)
        connection = Connection(self, socket)
        connection.greet(wire.hello(self.engine.now_ns, self.market))
        self._connections.append(connection)
        try:
            await connection.serve()
        finally:
            self._connections.remove(connection)
            self.changed()
        return socket


def _frame(what: OrderMoved | Executed | Ended) -> bytes:
    match what:
        case OrderMoved(order=order):
            return wire.event("order", wire.order(order))
        case Executed(execution=execution):
            return wire.event("execution", wire.execution(execution))
        case Ended(ticker=ticker, status=status, ts_ns=ts_ns):
            return wire.ended(ticker, status, ts_ns)
