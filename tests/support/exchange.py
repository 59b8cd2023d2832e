"""A paper exchange for tests: in the test's own loop, in a thread of its own, or as a child process.

Each is bounded in time and closed for certain. The clients here sign with the standard recipe and parse nothing:
tests see status and JSON as they are.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from holdfast.core.clock import NANOS
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.signals import Side
from holdfast.venues.paper.auth import KeyPair
from holdfast.venues.paper.events import (
    Delta,
    FeedKind,
    FeeType,
    Lifecycle,
    MarketEvent,
    MarketSpec,
    MarketStatus,
    Print,
    Snapshot,
)
from holdfast.venues.paper.exchange import Endpoints, PaperExchange

START_NS = 1_795_190_400 * NANOS
TICKER = "KXTEST-26DEC31-A"
START_SECS = 20
PREFIX = "/trade-api/v2"


@dataclass
class ScriptedFeed:
    """A feed written down event by event."""

    markets: tuple[MarketSpec, ...]
    events: Sequence[MarketEvent] = ()
    kind: FeedKind = FeedKind.DEPTH
    start_ns: int = START_NS

    def __iter__(self) -> Iterator[MarketEvent]:
        return iter(self.events)

    def describe(self) -> str:
        return f"{len(self.events)} scripted events"


def spec(ticker: str = TICKER, **changes: Any) -> MarketSpec:
    """A market of the captured requests' event."""
    fields: dict[str, Any] = {
        "ticker": ticker,
        "event_ticker": ticker.rsplit("-", 1)[0],
        "series_ticker": ticker.split("-", 1)[0],
        "title": f"Does {ticker} happen?",
        "yes_title": "It does",
        "open_ns": START_NS,
        "close_ns": START_NS + 10 * 365 * 86_400 * NANOS,  # beyond any real clock that a child process reads
        "fee_type": FeeType.QUADRATIC,
    }
    return MarketSpec(**(fields | changes))


def at(secs: float) -> int:
    """Market time *secs* seconds after the start, UTC ns."""
    return START_NS + round(secs * NANOS)


def book(
    yes: Sequence[tuple[int, int]] = ((4000, 10_000), (3900, 20_000)),
    no: Sequence[tuple[int, int]] = ((5500, 10_000), (5400, 20_000)),
    *,
    secs: float = 0,
    ticker: str = TICKER,
) -> Snapshot:
    """A whole book; prices in 1/10,000 dollar of the side, sizes in 1/100 contract."""
    return Snapshot(
        ticker=ticker,
        ts_ns=at(secs),
        yes_bids=tuple((PriceE4(p), QtyE2(q)) for p, q in yes),
        no_bids=tuple((PriceE4(p), QtyE2(q)) for p, q in no),
    )


def delta(secs: float, side: Side, price: int, change: int, ticker: str = TICKER) -> Delta:
    return Delta(ticker=ticker, ts_ns=at(secs), side=side, price=PriceE4(price), delta=QtyE2(change))


def printed(secs: float, taker: Side, price: int, qty: int, *, trade_id: str, ticker: str = TICKER) -> Print:
    return Print(
        ticker=ticker,
        ts_ns=at(secs),
        trade_id=trade_id,
        taker_side=taker,
        yes_price=PriceE4(price),
        qty=QtyE2(qty),
    )


def lifecycle(
    secs: float, status: MarketStatus, result: Side | None = None, ticker: str = TICKER
) -> Lifecycle:
    return Lifecycle(ticker=ticker, ts_ns=at(secs), status=status, result=result)


def quiet_feed(*tickers: str, events: Sequence[MarketEvent] = (), **changes: Any) -> ScriptedFeed:
    """Markets with one book each at the start, then *events*, then an hour's silence before the end."""
    names = tickers or (TICKER,)
    books: list[MarketEvent] = [book(ticker=name) for name in names]
    end: list[MarketEvent] = [delta(3_600, Side.YES, 100, 100, ticker=names[0])]
    return ScriptedFeed(tuple(spec(name, **changes) for name in names), [*books, *events, *end])


@functools.cache
def shared_key() -> KeyPair:
    """One key for the whole run: making one takes a tenth of a second."""
    return KeyPair()


def sign(key: rsa.RSAPrivateKey, method: str, path: str, stamp: str) -> str:
    message = f"{stamp}{method}{path.partition('?')[0]}".encode()
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    return base64.b64encode(key.sign(message, pss, hashes.SHA256())).decode()


def headers_for(
    key: rsa.RSAPrivateKey, key_id: str, method: str, path: str, *, skew_secs: float = 0
) -> dict[str, str]:
    stamp = str(int((time.time() + skew_secs) * 1000))
    return {
        "KALSHI-ACCESS-KEY": key_id,
        "KALSHI-ACCESS-TIMESTAMP": stamp,
        "KALSHI-ACCESS-SIGNATURE": sign(key, method, path, stamp),
    }


def load_key(path: Path) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


class Answer(NamedTuple):
    status: int
    body: Any


class Stream:
    """One WebSocket of a test."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self._id = 0

    async def command(self, cmd: str, **params: Any) -> int:
        self._id += 1
        await self.socket.send_str(json.dumps({"id": self._id, "cmd": cmd, "params": params}))
        return self._id

    async def subscribe(self, *channels: str, **params: Any) -> list[int]:
        """Subscribe and return the sids in the order of *channels*."""
        await self.command("subscribe", channels=list(channels), **params)
        return [(await self.next())["msg"]["sid"] for _ in channels]

    async def next(self) -> Any:
        """The next frame, within the time a loaded machine may need."""
        return json.loads(await self.socket.receive_str(timeout=START_SECS))

    async def until(self, kind: str) -> tuple[Any, list[Any]]:
        """The next frame of *kind* and every frame before it."""
        before: list[Any] = []
        while (frame := await self.next())["type"] != kind:
            before.append(frame)
        return frame, before

    async def quiescent(self, n: int) -> None:
        await self.command("holdfast_quiescent", n=n)

    async def follow(self, ticks: int) -> list[Any]:
        """Answer *ticks* ticks and return every frame but them, in order."""
        seen: list[Any] = []
        for _ in range(ticks):
            tick, before = await self.until("holdfast_tick")
            seen += before
            if tick["msg"].get("final"):
                break
            await self.quiescent(tick["msg"]["n"])
        return seen


@dataclass
class Client:
    """A signing HTTP client of the test's loop."""

    session: aiohttp.ClientSession
    endpoints: Endpoints
    key: rsa.RSAPrivateKey
    sockets: list[aiohttp.ClientWebSocketResponse] = field(default_factory=list)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        signed: bool = True,
        timeout_secs: float = START_SECS,
    ) -> Answer:
        url = urlsplit(self.endpoints.rest)
        full = PREFIX + path if not path.startswith("/holdfast") else path
        headers = headers_for(self.key, self.endpoints.key_id, method, full) if signed else {}
        data = io.BytesIO(json.dumps(body).encode()) if body is not None else None
        async with self.session.request(
            method,
            f"{url.scheme}://{url.netloc}{full}",
            data=data,
            headers=headers | ({"Content-Type": "application/json"} if data else {}),
            timeout=aiohttp.ClientTimeout(total=timeout_secs),
        ) as response:
            text = await response.text()
            return Answer(response.status, json.loads(text) if text else None)

    async def get(self, path: str, **kwargs: Any) -> Any:
        answer = await self.call("GET", path, **kwargs)
        assert answer.status == 200, answer
        return answer.body

    async def order(
        self, side: str = "bid", price: str = "0.4500", count: str = "10.00", **more: Any
    ) -> Answer:
        body = {
            "ticker": TICKER,
            "side": side,
            "price": price,
            "count": count,
            "time_in_force": "good_till_canceled",
            "self_trade_prevention_type": "taker_at_cross",
        }
        return await self.call("POST", "/portfolio/events/orders", body | more)

    async def stream(self) -> Stream:
        headers = headers_for(self.key, self.endpoints.key_id, "GET", "/trade-api/ws/v2")
        socket = await self.session.ws_connect(self.endpoints.ws, headers=headers)
        self.sockets.append(socket)
        return Stream(socket)


@contextlib.asynccontextmanager
async def serving(
    feed: ScriptedFeed | None = None, **options: Any
) -> AsyncIterator[tuple[PaperExchange, Client]]:
    """An exchange in this loop and a client of it; time stands still unless the test follows the clock."""
    options = {"hold": True, "key": shared_key()} | options
    exchange = PaperExchange(feed or quiet_feed(), **options)
    endpoints = await exchange.start()
    async with aiohttp.ClientSession() as session:
        client = Client(session, endpoints, shared_key().private_key)
        try:
            yield exchange, client
        finally:
            for socket in client.sockets:
                await socket.close()
            await exchange.stop()


class ThreadedExchange(NamedTuple):
    """An exchange whose loop runs in a thread: for clients that block."""

    exchange: PaperExchange
    endpoints: Endpoints
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[[], Any]) -> Any:
        """Run *function* in the exchange's loop and return what it returns."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(START_SECS)


@contextlib.contextmanager
def in_thread(feed: Any = None, **options: Any) -> Iterator[ThreadedExchange]:
    """An exchange in a thread of its own; closed, loop and thread too, when the block ends."""
    options = {"hold": True, "key": shared_key()} | options
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="paper-exchange", daemon=True)
    thread.start()

    async def make() -> ThreadedExchange:
        exchange = PaperExchange(feed or quiet_feed(), **options)
        return ThreadedExchange(exchange, await exchange.start(), loop)

    try:
        running = asyncio.run_coroutine_threadsafe(make(), loop).result(START_SECS)
        try:
            yield running
        finally:
            asyncio.run_coroutine_threadsafe(running.exchange.stop(), loop).result(START_SECS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_SECS)
        loop.close()


class ChildExchange(NamedTuple):
    """`holdfast exchange --json` as a child process."""

    process: subprocess.Popen[str]
    endpoints: Endpoints


@contextlib.contextmanager
def as_process(*arguments: str) -> Iterator[ChildExchange]:
    """A child `holdfast exchange`; it ends with the block, at the latest when its stdin closes."""
    words = [sys.executable, "-m", "holdfast.cli.main", "exchange", "--json", "--exit-with-stdin", *arguments]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            assert process.stderr is not None
            raise AssertionError(f"the exchange did not start: {process.stderr.read()}")
        said = json.loads(line)
        yield ChildExchange(process, Endpoints(said["rest"], said["ws"], said["key_id"], Path(said["pem"])))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        watchdog.cancel()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
