"""The paper exchange: Kalshi's protocol on a loopback port, over a seeded market or a recording.

It is a real server: every signature is verified, orders match against the feed's books, money is kept to the cent,
and what goes wrong goes wrong on purpose (`faults.py`). It owns the market's time: everything it says carries
market time, and only signatures are checked against the wall clock.

Market time moves in ticks of `TICK_NS`. With followers (`ws.py`, "The barrier") the next tick waits until every
follower is done with the last one, so equal seeds, faults and requests lead to equal runs whatever the machine's
load; without followers it runs free at `speed` times wall time. With `hold`, time stands still while nobody
follows; at unlimited speed that is the default, since an unwatched market would be over at once.

Rate limits count by market time while time is driven by the barrier or held, else by the wall clock. A pause in
the feed longer than `PAUSE_NS` is skipped after a second.

Limits: loopback only; one account with one key; plain HTTP. The books live in memory: an exchange that is
started again is a new one.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import web

from holdfast.core.clock import NANOS, Clock, SystemClock
from holdfast.core.errors import BadInput, TradingError
from holdfast.core.fees import BalancePrecision
from holdfast.core.money import MoneyE6
from holdfast.execution.venue import DedupProfile
from holdfast.venues.paper import wire
from holdfast.venues.paper.accounts import OrderRequest
from holdfast.venues.paper.auth import KeyPair, check_signature, is_signed
from holdfast.venues.paper.engine import DEFAULT_CASH, Books, Engine, Refusal
from holdfast.venues.paper.events import Feed, MarketEvent
from holdfast.venues.paper.faults import Fault, Faults, FaultScript, Rates, read_control
from holdfast.venues.paper.limits import COSTS, DEFAULT_COST, RateLimits, RequestClass, tier_named
from holdfast.venues.paper.memory import Line, Memory
from holdfast.venues.paper.rest import BadQuery, RestApi, answer, below_prefix, is_public, refuse
from holdfast.venues.paper.ws import Hub

TICK_NS: Final = NANOS // 2
PAUSE_NS: Final = 10 * NANOS
DEFAULT_SPEED: Final = 20
WS_PATH: Final = "/trade-api/ws/v2"
CONTROL_PATH: Final = "/holdfast/faults"
CLOCK_PATH: Final = "/holdfast/clock"
_MAY_REST: Final = b'"good_till_canceled"'
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Endpoints(NamedTuple):
    """Where to trade and as whom.

    Attributes:
        rest: Base URL, ending in /trade-api/v2.
        ws: URL of the stream.
        key_id: For KALSHI-ACCESS-KEY.
        pem_path: The private key, readable by its owner alone.
    """

    rest: str
    ws: str
    key_id: str
    pem_path: Path


class PortTaken(TradingError):
    """Another process listens on the port that was asked for."""


class PaperExchange:
    """One exchange over one feed.

    Args:
        feed: The market without us.
        seed: Of ids and faults.
        dedup: Which orders a repeated client order id is refused against.
        faults: Rates of random faults, parts per million.
        script: Faults told one by one; may be added to while it runs (`exchange.faults.script`).
        speed: Market seconds per wall second; None is as fast as followers allow.
        seconds: Wall seconds after which the market ends. At a finite speed this is counted in market time
            (seconds x speed), so that equal runs end at the same event; at unlimited speed by the wall clock.
        hold: Whether time stands still while nobody follows; None is only at unlimited speed.
        tier: Rate limits, a name in `limits.TIERS`.
        cash: Opening balance, 1e-6 dollar.
        precision: Of the balance.
        directory: Where the key file goes; None makes a directory that `stop` removes.
        control: Whether POST /holdfast/faults is served.
        clock: Wall time, for signatures and for rate limits while time runs free.
        key: None makes a throw-away key.

    Raises:
        BadInput: An unknown tier, a speed or time that is not positive.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        seed: int = 0,
        dedup: DedupProfile = DedupProfile.OPEN_ONLY,
        faults: Rates | None = None,
        script: FaultScript | None = None,
        speed: float | None = DEFAULT_SPEED,
        seconds: float | None = None,
        market_secs: float | None = None,
        hold: bool | None = None,
        tier: str = "paper",
        cash: MoneyE6 = DEFAULT_CASH,
        precision: BalancePrecision = BalancePrecision.CENT,
        directory: Path | None = None,
        control: bool = False,
        memory: Memory | None = None,
        clock: Clock | None = None,
        key: KeyPair | None = None,
    ) -> None:
        for name, given in (("speed", speed), ("seconds", seconds), ("market seconds", market_secs)):
            if given is not None and not 0 < given < math.inf:
                raise BadInput(f"{name} {given} is not a number above 0", hint="for instance 60")
        self.engine = Engine(feed, seed=seed, dedup=dedup, cash=cash, precision=precision)
        self.faults = Faults(seed, faults, script)
        self.hub = Hub(self.engine, self.faults)
        self._feed = feed
        self._events: Iterator[MarketEvent] = iter(feed)
        self._upcoming: MarketEvent | None = None
        self._speed = speed
        self._seconds = seconds
        self._market_secs = market_secs
        self._hold = speed is None if hold is None else hold
        self._limits = RateLimits(tier_named(tier))
        self._limits_by_market = False
        self._directory = directory
        self._own_directory: Path | None = None
        self._control = control
        self._memory = memory
        self._clock = clock or SystemClock()
        self._key = key or KeyPair()
        self._rest = RestApi(self.engine, self._limits.tier, self._publish, feed.start_ns)
        self._runner: web.AppRunner | None = None
        self._player: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._endpoints: Endpoints | None = None

    # Life.

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> Endpoints:
        """Listen, and let market time begin.

        Args:
            port: 0 takes a free one.
            host: A loopback address.

        Raises:
            BadInput: *host* is not loopback, or the feed cannot be played.
            PortTaken: Another process has the port.
        """
        if host not in _LOOPBACK:
            raise BadInput(
                f"host {host!r} is not a loopback address",
                hint="the exchange hands out its key and speaks plain HTTP; it never leaves this machine",
            )
        # What the feed shows at its first moment is there before the first request.
        self._upcoming = self._release(self._events, next(self._events, None), self.engine.now_ns)
        if self._memory is not None:
            self._remember(self._memory)
        runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise PortTaken(
                f"port {port} on {host} cannot be used: {os.strerror(error.errno or 0).lower()}",
                hint="choose another with --port, or 0 for a free one",
            ) from error
        self._runner = runner
        taken: int = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        self._endpoints = Endpoints(
            rest=f"http://{shown}:{taken}{wire.PREFIX}",
            ws=f"ws://{shown}:{taken}{WS_PATH}",
            key_id=self._key.key_id,
            pem_path=self._key.write_pem(self._key_directory()),
        )
        self._player = asyncio.create_task(self._play())
        return self._endpoints

    def _remember(self, memory: Memory) -> None:
        """Tell the engine what it was told before, and keep what it is told from now on."""

        def release(until_ns: int) -> None:
            self._upcoming = self._release(self._events, self._upcoming, until_ns)

        memory.replay(self.engine, release)
        self.faults.script.skip_until(self.engine.now_ns)

        def keep(told: OrderRequest | str | int) -> None:
            if isinstance(told, int):
                memory.keep(Line(time=told))
            elif isinstance(told, str):
                memory.keep(Line(cancel=told))
            else:
                memory.keep(Line(place=told))

        self.engine.told = keep

    def _key_directory(self) -> Path:
        if self._directory is None:
            self._own_directory = self._directory = Path(tempfile.mkdtemp(prefix="holdfast-exchange-"))
        self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory

    async def stop(self) -> None:
        """Close every connection and the port; the key file goes with a directory of our own."""
        self._stopping.set()
        if self._player is not None:
            self._player.cancel()
            await asyncio.wait({self._player})
            if not self._player.cancelled():
                self._player.exception()  # told by `over` to whoever asked; nobody else is left to hear it
        await self.hub.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._memory is not None:
            self.engine.told = None
            self._memory.close()
        if self._own_directory is not None:
            shutil.rmtree(self._own_directory, ignore_errors=True)

    async def over(self) -> None:
        """Until the market is over: the feed exhausted or its time up. Raises what ended it otherwise."""
        if self._player is not None:
            await asyncio.shield(self._player)

    def books(self) -> Books:
        """What the exchange believes: cash, positions, orders, fills."""
        return self.engine.books()

    @property
    def endpoints(self) -> Endpoints:
        """Where it listens; only after `start`."""
        if self._endpoints is None:
            raise TradingError("the exchange has not been started")
        return self._endpoints

    def _publish(self) -> None:
        self.hub.publish(self.engine.drain())

    # Market time.

    async def _play(self) -> None:
        """Release the feed tick by tick until it, or its time, is over."""
        events, upcoming = self._events, self._upcoming
        end_ns = self._end_ns()
        loop = asyncio.get_running_loop()
        due = loop.time()
        began = due
        is_final = False
        while not is_final:
            target, wait_secs = self._next_tick(upcoming, end_ns)
            due = max(due + wait_secs, loop.time() - 1.0)
            await asyncio.sleep(max(0.0, due - loop.time()))
            # Nothing may be awaited between the last quiescence and the release.
            await self.hub.quiet(followed=self._hold)
            upcoming = self._release(events, upcoming, target)
            self.engine.advance(target)
            self._publish()
            out_of_time = self._speed is None and self._seconds is not None
            is_final = (
                upcoming is None
                or target >= end_ns
                or (out_of_time and loop.time() - began >= (self._seconds or 0))
            )
            self.hub.tick(is_final=is_final)
            if not self.hub.followers:
                await self.hub.flushed()

    def _end_ns(self) -> int:
        ends = [self._market_secs] if self._market_secs is not None else []
        if self._seconds is not None and self._speed is not None:
            ends.append(self._seconds * self._speed)
        return self._feed.start_ns + round(min(ends) * NANOS) if ends else 1 << 63

    def _next_tick(self, upcoming: MarketEvent | None, end_ns: int) -> tuple[int, float]:
        """When the next tick is, and the wall seconds until then; on the grid of ticks from the feed's start."""
        now, start = self.engine.now_ns, self._feed.start_ns
        pause = (upcoming.ts_ns if upcoming is not None else now) - now
        soon = now + NANOS
        if pause > PAUSE_NS and upcoming is not None:
            target, passing = _on_grid(upcoming.ts_ns, start), NANOS
        else:
            event_ns = upcoming.ts_ns if upcoming is not None else now
            target = min(max(_on_grid(event_ns, start), _on_grid(now + 1, start)), _on_grid(soon, start))
            passing = target - now
        target = min(target, max(end_ns, now))
        return target, 0.0 if self._speed is None else passing / NANOS / self._speed

    def _release(
        self, events: Iterator[MarketEvent], upcoming: MarketEvent | None, until_ns: int
    ) -> MarketEvent | None:
        while upcoming is not None and upcoming.ts_ns <= until_ns:
            self.engine.apply(upcoming)
            self._publish()
            upcoming = next(events, None)
        return upcoming

    # Requests.

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._shape_errors, self._serve])
        for route in self._rest.routes:
            app.router.add_route(route.method, wire.PREFIX + route.path, route.handler)
        app.router.add_get(WS_PATH, self._stream)
        app.router.add_get(CLOCK_PATH, self._tell_time)
        if self._control:
            app.router.add_post(CONTROL_PATH, self._add_fault)
        return app

    @web.middleware
    async def _shape_errors(self, request: web.Request, handler: _Next) -> web.StreamResponse:
        """404, 405 and bad queries in the venue's words."""
        try:
            return await handler(request)
        except BadQuery as error:
            return answer(wire.bad_parameter(str(error)), 400)
        except web.HTTPNotFound:
            return refuse(Refusal(status=404, code="not_found", service=""))
        except web.HTTPMethodNotAllowed as error:
            refused = refuse(Refusal(status=405, code="method_not_allowed", service=""))
            refused.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
            return refused
        except web.HTTPRequestEntityTooLarge:
            return answer(wire.bad_request("body is too large"), 413)

    @web.middleware
    async def _serve(self, request: web.Request, handler: _Next) -> web.StreamResponse:
        """Faults, then who asks, then how often, then the answer, then faults again."""
        path = below_prefix(request.path)
        if path is None:
            return await handler(request)
        kind = _class_of(request.method)
        may_rest = kind is RequestClass.CREATE and _MAY_REST in await request.read()
        fault = self.faults.for_request(kind, path, self.engine.now_ns, may_rest=may_rest)
        if fault is Fault.ERROR_BEFORE:
            return _internal_error()
        if fault is Fault.TOO_MANY:
            return answer(wire.TOO_MANY_REQUESTS, 429)
        if is_signed(request.headers) or not (request.method == "GET" and is_public(path)):
            wrong = check_signature(
                self._key, request.headers, request.method, request.rel_url.raw_path, self._clock.now_ns()
            )
            if wrong is not None:
                return answer(wrong, 401)
        if not self._admit(request, kind):
            return answer(wire.TOO_MANY_REQUESTS, 429)
        response = await handler(request)
        return response if fault is None else await self._spoil(request, response, fault)

    def _admit(self, request: web.Request, kind: RequestClass) -> bool:
        by_market = self._hold or bool(self.hub.followers)
        if by_market is not self._limits_by_market:
            self._limits_by_market = by_market
            self._limits.refill()
        now_ns = self.engine.now_ns if by_market else self._clock.monotonic_ns()
        resource = request.match_info.route.resource
        pattern = (resource.canonical if resource is not None else "").replace("{order_id}", ":order_id")
        return self._limits.admit(kind, COSTS.get((request.method, pattern), DEFAULT_COST), now_ns)

    async def _spoil(
        self, request: web.Request, response: web.StreamResponse, fault: Fault
    ) -> web.StreamResponse:
        """The request was carried out; its answer goes wrong."""
        if fault is Fault.ERROR_AFTER:
            return _internal_error()
        if fault is Fault.GARBAGE and isinstance(response, web.Response):
            body = response.body
            whole = body if isinstance(body, bytes) else b"{}"
            return web.Response(
                body=whole[: len(whole) // 2], status=response.status, content_type="application/json"
            )
        if fault is Fault.HANG:
            await self._stopping.wait()
        if request.transport is not None:
            request.transport.abort()
        return response

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        wrong = check_signature(
            self._key, request.headers, request.method, request.rel_url.raw_path, self._clock.now_ns()
        )
        if wrong is not None:
            return answer(wrong, 401)
        socket = web.WebSocketResponse(max_msg_size=1 << 20, compress=False)
        try:
            await socket.prepare(request)
        except ConnectionResetError:  # gone before the handshake ended: a bot that asked and left
            return web.Response()
        await self.hub.serve(socket)
        return socket

    async def _tell_time(self, _request: web.Request) -> web.StreamResponse:
        """Market time, for a follower that wants to set its clock before it begins."""
        return answer({"ts_ns": self.engine.now_ns})

    async def _add_fault(self, request: web.Request) -> web.StreamResponse:
        try:
            scripted = read_control(await request.read())
        except BadInput as error:
            return answer(wire.bad_request(f"{error}; {error.hint}" if error.hint else str(error)), 400)
        self.faults.script.add(scripted)
        return answer({"fault": scripted.fault.value, "count": scripted.count}, 201)


def _on_grid(ts_ns: int, start_ns: int) -> int:
    """The first tick not before *ts_ns*."""
    return start_ns + -(-(ts_ns - start_ns) // TICK_NS) * TICK_NS


def _class_of(method: str) -> RequestClass:
    if method == "GET":
        return RequestClass.READ
    return RequestClass.CANCEL if method == "DELETE" else RequestClass.CREATE


def _internal_error() -> web.Response:
    return refuse(Refusal(status=500, code="internal_server_error", service=""))
