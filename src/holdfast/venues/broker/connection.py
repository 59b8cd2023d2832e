"""One socket at the broker: its requests, what it follows, its queue of frames, and the barrier of the clock.

Every frame goes through one queue in the order in which things happened, so that an execution caused by an order
stands before the order's answer. A follower that is told anything after a tick is given another tick.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from aiohttp import WSMsgType, web

from holdfast.core.errors import BadInput
from holdfast.venues.broker import wire
from holdfast.venues.broker.engine import Engine
from holdfast.venues.broker.faults import Fault, Faults, Kind
from holdfast.venues.broker.feed import Quote
from holdfast.venues.broker.orders import Refusal

QUEUE_LIMIT: Final = 100_000
_GARBAGE: Final = b'{"t": "ok", "id": '


class Hub(Protocol):
    """What a connection needs of its server."""

    engine: Engine
    faults: Faults
    is_final: bool
    market: str

    def publish(self, *, cut_after_leg: Connection | None = None) -> None:
        """Tell everybody what happened."""
        ...

    def changed(self) -> None:
        """A follower came, went or became quiescent."""
        ...


class Connection:
    """One socket: what it follows, its queue of frames, its requests."""

    def __init__(self, hub: Hub, socket: web.WebSocketResponse) -> None:
        self.tickers: set[str] = set()
        self.has_clock = False
        self.is_quiescent = False
        self._hub = hub
        self._socket = socket
        self._queue: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._tick = 0
        self._told_since_tick = False
        self._is_cut = False

    # Sending.

    def tell(self, frame: bytes) -> None:
        """Queue an event: the follower has something to deal with."""
        self._told_since_tick = True
        self._post(frame)

    def greet(self, frame: bytes) -> None:
        """Queue the first frame."""
        self._post(frame)

    def _post(self, frame: bytes) -> None:
        if self._is_cut:
            return
        self._queue.append(frame)
        self._wake.set()
        if len(self._queue) > QUEUE_LIMIT:
            self.cut()

    def tick(self, now_ns: int, *, is_final: bool) -> None:
        """Tell a follower what time it is and begin to wait for it."""
        if self.has_clock:
            self._tick += 1
            self._post(wire.tick(self._tick, now_ns, is_final=is_final))
            self._told_since_tick = False
            self.is_quiescent = False

    def cut(self) -> None:
        """Close without a word, after what was queued."""
        self._is_cut = True
        self.has_clock = False
        self._wake.set()
        self._hub.changed()

    async def serve(self) -> None:
        """Read requests until the socket closes, writing beside it."""
        writer = asyncio.create_task(self._write())
        try:
            async for message in self._socket:
                if message.type is WSMsgType.TEXT and not self._is_cut:
                    self._take(message.data)
        finally:
            self.has_clock = False
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writer

    async def _write(self) -> None:
        while True:
            while self._queue:
                await self._socket.send_str(self._queue.popleft().decode())
            if self._is_cut:
                await self._socket.close(code=1011)
                return
            self._wake.clear()
            await self._wake.wait()

    async def close(self) -> None:
        """Say goodbye: the broker stops."""
        await self._socket.close(code=1001, message=b"broker stopped")

    # Requests.

    def _take(self, text: str) -> None:
        try:
            request = wire.read_request(text)
        except BadInput as error:
            self._post(wire.no(0, 400, "bad_request", str(error)))
            return
        if request.op == "quiescent":
            self._quiescent(request)
            return
        found = self.HANDLERS.get(request.op)
        if found is None:
            self._post(wire.no(request.id, 404, "unknown_op", request.op[:40]))
            return
        kind, handler = found
        hub = self._hub
        combo = request.op == "place" and b"*" in bytes(request.p)
        fault = None if kind is Kind.FREE else hub.faults.for_request(kind, hub.engine.now_ns, is_combo=combo)
        if fault is Fault.ERROR:
            self._post(wire.no(request.id, 500, "internal_error", "scripted"))
            return
        answer = self._answer(request, handler)
        hub.publish(cut_after_leg=self if fault is Fault.MID_COMBO else None)
        if fault is None:
            self._post(answer)
        elif fault is Fault.ERROR_AFTER:
            self._post(wire.no(request.id, 500, "internal_error", "scripted"))
        elif fault is Fault.GARBAGE:
            self._post(_GARBAGE)
        elif fault in {Fault.DROP, Fault.MID_COMBO}:
            self.cut()

    def _answer(self, request: wire.Request, handler: Callable[[Connection, wire.Request], Any]) -> bytes:
        try:
            result = handler(self, request)
        except BadInput as error:
            return wire.no(request.id, 400, "bad_request", str(error))
        if isinstance(result, Refusal):
            return wire.no(request.id, result.status, result.code, result.details)
        return wire.ok(request.id, result)

    def _quiescent(self, request: wire.Request) -> None:
        with contextlib.suppress(BadInput):
            if not self.has_clock or wire.read_asked(request).n != self._tick:
                return  # an answer to an older tick: the newer one is still being waited for
            if self._told_since_tick:
                self.tick(self._hub.engine.now_ns, is_final=self._hub.is_final)
            else:
                self.is_quiescent = True
                self._hub.changed()

    def _status(self, _request: wire.Request) -> Any:
        return {"ts_ns": self._hub.engine.now_ns, "market": self._hub.market}

    def _place(self, request: wire.Request) -> Any:
        placed = self._hub.engine.place(wire.read_order(request))
        return placed if isinstance(placed, Refusal) else wire.order(placed.shown())

    def _cancel(self, request: wire.Request) -> Any:
        done = self._hub.engine.cancel(wire.read_asked(request).order_id)
        return done if isinstance(done, Refusal) else {"released_e2": done[1]}

    def _order(self, request: wire.Request) -> Any:
        row = self._hub.engine.orders.get(wire.read_asked(request).order_id)
        return None if row is None else wire.order(row.shown())

    def _find(self, request: wire.Request) -> Any:
        row = self._hub.engine.find(wire.read_asked(request).client_order_id)
        return None if row is None else wire.order(row.shown())

    def _open_orders(self, _request: wire.Request) -> Any:
        return [wire.order(row.shown()) for row in self._hub.engine.open_orders]

    def _executions(self, request: wire.Request) -> Any:
        since_ns = wire.read_asked(request).since_ns
        return [wire.execution(one) for one in self._hub.engine.executions if one.ts_ns >= since_ns]

    def _account(self, _request: wire.Request) -> Any:
        engine = self._hub.engine
        return {
            "cash_e6": engine.account.cash,
            "buying_power_e6": engine.buying_power(),
            "positions": engine.account.positions,
        }

    def _instrument(self, request: wire.Request) -> Any:
        engine = self._hub.engine
        ticker = wire.read_asked(request).ticker
        listing = engine.listings.get(ticker)
        if listing is None:
            return Refusal(404, "not_found", f"no contract {ticker[:60]!r}")
        return wire.listing(listing, engine.status.get(ticker, ""))

    def _chain(self, request: wire.Request) -> Any:
        engine = self._hub.engine
        asked = wire.read_asked(request).underlying
        return [
            wire.listing(listing, engine.status.get(listing.ticker, ""))
            for listing in engine.listings.values()
            if listing.terms is not None
            and asked in {"", listing.underlying}
            and not engine.has_ended(listing.ticker)
        ]

    def _quotes(self, request: wire.Request) -> Any:
        engine = self._hub.engine
        rows: list[Any] = []
        for ticker in wire.read_asked(request).tickers:
            shown = engine.shown.get(ticker)
            if shown is None:
                return Refusal(404, "not_found", f"no contract {ticker[:60]!r}")
            if shown.quote is None:
                rows.append((ticker, None, None, None, None, None, 0))
            else:
                rows.append((*wire.quote_row(shown.quote), shown.ts_ns))
        return rows

    def _follow(self, request: wire.Request) -> Any:
        asked, engine = wire.read_asked(request), self._hub.engine
        unknown = [ticker for ticker in asked.tickers if ticker not in engine.shown]
        if unknown:
            return Refusal(404, "not_found", f"no contract {unknown[0][:60]!r}")
        self.tickers.update(asked.tickers)
        by_time: dict[int, list[Quote]] = {}
        for ticker in asked.tickers:
            shown = engine.shown[ticker]
            if shown.quote is not None and ticker not in engine.status:
                by_time.setdefault(shown.ts_ns, []).append(shown.quote)
        spots = [spot for spot, _ in engine.spots.values()]
        for ts_ns, told in sorted(by_time.items()):
            self.tell(wire.quotes(ts_ns, told, spots))
        if asked.clock:
            self.has_clock = True
            self.tick(engine.now_ns, is_final=self._hub.is_final)
            self._hub.changed()
        return None

    HANDLERS: Final[dict[str, tuple[Kind, Callable[[Connection, wire.Request], Any]]]] = {
        "status": (Kind.READ, _status),
        "place": (Kind.ORDER, _place),
        "cancel": (Kind.CANCEL, _cancel),
        "order": (Kind.READ, _order),
        "find": (Kind.READ, _find),
        "open_orders": (Kind.READ, _open_orders),
        "executions": (Kind.READ, _executions),
        "account": (Kind.READ, _account),
        "instrument": (Kind.READ, _instrument),
        "chain": (Kind.READ, _chain),
        "quotes": (Kind.READ, _quotes),
        "follow": (Kind.FREE, _follow),
    }
    """Every request but `quiescent`: its class, and what answers it."""
