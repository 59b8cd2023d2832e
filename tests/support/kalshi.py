"""A Kalshi client for tests: over the real paper exchange, and over a server that misbehaves as scripted."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.exchange import START_NS, TICKER, ScriptedFeed, serving, shared_key
from support.execution import opened_account

from holdfast.audit.logger import AuditLogger
from holdfast.audit.query import AuditEntry
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.registry import BreakerRegistry, standard_registry
from holdfast.core.clock import ManualClock
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, QtyE2, parse_price, parse_qty
from holdfast.core.signals import Action, Intent, Side, Signal, TimeInForce
from holdfast.execution.venue import PlaceAnswer
from holdfast.risk.gate import Admission, Gate
from holdfast.risk.limits import RiskLimits
from holdfast.venues.kalshi.adapter import KalshiVenue
from holdfast.venues.kalshi.client import AsyncKalshiClient
from holdfast.venues.kalshi.signing import Signer
from holdfast.venues.paper.exchange import PaperExchange


def signer() -> Signer:
    """A signer with the key the test exchange knows."""
    return Signer(shared_key().key_id, shared_key().private_key)


_WIDE = RiskLimits(
    max_position=QtyE2(10**12),
    max_order_value=MoneyE6(10**15),
    max_exit_value=MoneyE6(10**15),
    max_daily_loss=MoneyE6(10**15),
)


def admission(wish: Intent) -> Admission:
    """Leave for *wish* from a gate of its own with very wide limits."""
    decision = Gate(opened_account(), _WIDE, clock=ManualClock()).admit(wish)
    assert decision.admission is not None, decision.reason
    return decision.admission


def intent(
    name: str = "hf-1",
    *,
    ticker: str = TICKER,
    side: Side = Side.YES,
    action: Action = Action.BUY,
    count: str = "10",
    price: str = "0.45",
    tif: TimeInForce = TimeInForce.GTC,
    **more: Any,
) -> Intent:
    wish = Signal(
        ticker=ticker,
        side=side,
        action=action,
        count=parse_qty(count),
        price=parse_price(price),
        tif=tif,
        **more,
    )
    return Intent(
        client_order_id=name, key=name, signal=wish, instrument=Instrument(venue="kalshi", ticker=ticker)
    )


@dataclass
class Desk:
    """One account: client, adapter, log, breakers and clocks.

    Attributes:
        clock: Of the client, its breakers and the log.
        wall: Of signatures, time limits and latencies; real where an exchange checks signatures.
        naps: Every wait the client asked for, none of which took longer than a millisecond.
    """

    client: AsyncKalshiClient
    log: AuditLogger
    registry: BreakerRegistry
    clock: ManualClock
    naps: list[float] = field(default_factory=list)
    exchange: PaperExchange | None = None

    @property
    def breaker(self) -> TradingCircuitBreaker:
        return self.client.breaker

    @property
    def venue(self) -> KalshiVenue:
        return self.client.venue

    def records(self, kind: str = "API_CALL") -> list[AuditEntry]:
        return self.log.wal.query(event_type=kind) if self.log.wal.last_seq else []

    def calls(self) -> list[tuple[str, str, int]]:
        """Method, endpoint and status of every recorded call."""
        return [
            (one.details["method"], one.details["endpoint"], one.details["status_code"])
            for one in self.records()
        ]

    async def place(self, wish: Intent, *, reducing: bool = False) -> PlaceAnswer:
        permit = self.client.placement_permit(wish.ticker, reducing=reducing)
        return await self.client.create_order(wish, admission(wish), permit)


@contextlib.asynccontextmanager
async def desk_at(base_url: str, log_dir: Path, **options: Any) -> AsyncIterator[Desk]:
    """A desk whose client talks to *base_url*."""
    clock = options.pop("clock", None) or ManualClock(START_NS)
    naps: list[float] = []

    async def sleep(secs: float) -> None:
        naps.append(secs)
        await asyncio.sleep(0.001)

    wal = WriteAheadLog(log_dir / "audit", clock=clock, seal=False)
    wal.open()
    log = AuditLogger(wal)
    registry = standard_registry(clock=clock, audit=log)
    settings: dict[str, Any] = {
        "signer": signer(),
        "audit_logger": log,
        "registry": registry,
        "clock": clock,
        "rng": random.Random(1),
        "sleep": sleep,
        "timeout": 20.0,
    }
    client = AsyncKalshiClient(base_url=base_url, **(settings | options))
    try:
        yield Desk(client, log, registry, clock, naps)
    finally:
        await client.close()
        wal.close()


@contextlib.asynccontextmanager
async def desk_on_exchange(
    log_dir: Path,
    feed: ScriptedFeed | None = None,
    *,
    exchange_options: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Desk]:
    """A desk on a paper exchange in this loop."""
    async with serving(feed, **(exchange_options or {})) as (exchange, raw):
        options = {"ws_url": raw.endpoints.ws} | options
        async with desk_at(raw.endpoints.rest, log_dir, **options) as desk:
            desk.exchange = exchange
            yield desk


CLOSE = "close"
"""Close the connection instead of answering."""
HANG = "hang"
"""Say nothing until the server ends."""
CUT = "cut"
"""Announce a long answer, send its beginning, close."""


@dataclass
class Scripted:
    """A server that answers as told.

    Attributes:
        replies: (status, body) or CLOSE, HANG, CUT, in order; the last one repeats.
        requests: Method and path with query of everything that arrived, and its body.
    """

    replies: list[Any]
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    base_url: str = ""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _done: asyncio.Event = field(default_factory=asyncio.Event)

    def next_reply(self) -> Any:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                self.requests.append((method, path, body))
                self.headers.append(fields)
                self.arrived.set()
                reply = self.next_reply()
                if reply == HANG:
                    await self._done.wait()
                if reply in (CLOSE, HANG):
                    return
                if reply == CUT:
                    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n{"order')
                    await writer.drain()
                    return
                status, text = reply
                data = text.encode() if isinstance(text, str) else text
                location = "Location: /elsewhere\r\n" if 300 <= status < 400 else ""
                writer.write(
                    f"HTTP/1.1 {status} X\r\n{location}Content-Length: {len(data)}\r\n\r\n".encode() + data
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def scripted(*replies: Any) -> AsyncIterator[Scripted]:
    """A server in this loop."""
    script = Scripted(list(replies))
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        script._done.set()
        server.close()
        await asyncio.sleep(0)


@contextlib.contextmanager
def scripted_in_thread(*replies: Any) -> Iterator[Scripted]:
    """A server in a thread of its own, for clients that block."""
    import threading

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    stack = contextlib.AsyncExitStack()
    try:
        script = asyncio.run_coroutine_threadsafe(stack.enter_async_context(scripted(*replies)), loop).result(
            20
        )
        yield script
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
