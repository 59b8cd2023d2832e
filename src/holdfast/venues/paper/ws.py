"""The exchange's stream: connections, subscriptions, and the barrier of the market clock.

Every frame of a connection goes through one queue in the order in which things happened, so a fill caused by an
order stands in the queue before the order's HTTP answer is written. `seq` counts per subscription, over all of its
markets; control answers carry it too. A snapshot comes before the first delta of a market.

The barrier. A connection that subscribes to `holdfast_clock` is a follower: it gets `holdfast_tick` after every batch
of market events, and market time does not move on until every follower has answered `holdfast_quiescent` with the
number of its latest tick. If anything was sent to it since that tick, it gets a new one (same time, next number) and
is waited for again.

Source: docs.kalshi.com AsyncAPI 2.0.0. Limits: `market_id` filters and shards are refused as parameters that
cannot be read; a connection whose queue exceeds `QUEUE_LIMIT` frames loses its subscriptions with error 25.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from holdfast.core.signals import BookSide
from holdfast.venues.paper import matching, wire
from holdfast.venues.paper.engine import BookMoved, Engine, Filled, Happening, OrderMoved, PositionMoved
from holdfast.venues.paper.faults import Fault, Faults
from holdfast.venues.paper.limits import WS_COMMANDS_PER_SEC, Bucket

BOOK, TRADE, TICKER, FILL = "orderbook_delta", "trade", "ticker", "fill"
ORDERS, LIFECYCLE, POSITIONS, CLOCK = (
    "user_orders",
    "market_lifecycle_v2",
    "market_positions",
    "holdfast_clock",
)
CHANNELS: Final = frozenset({BOOK, TRADE, TICKER, FILL, ORDERS, LIFECYCLE, POSITIONS, CLOCK})
SEQUENCED: Final = frozenset({BOOK, TRADE, LIFECYCLE})
"""Channels whose data frames carry `seq`."""

QUEUE_LIMIT: Final = 200_000
MARKET_LIMIT: Final = 10_000
HEARTBEAT_SECS: Final = 10

ERRORS: Final = {
    1: "Unable to process message",
    2: "Params required",
    3: "Channels required",
    4: "Subscription IDs required",
    5: "Unknown command",
    7: "Unknown subscription ID",
    8: "Unknown channel name",
    9: "Authentication required",
    11: "Invalid parameter",
    12: "Exactly one subscription ID is required",
    13: "Unsupported action",
    14: "Market Ticker required",
    15: "Action required",
    25: "Subscription buffer overflow",
    26: "Subscription market limit exceeded",
    27: "Too many requests",
}


_ACTIONS: Final = frozenset({"add_markets", "delete_markets", "get_snapshot"})


class CommandError(Exception):
    """A command that cannot be done; ends in an error frame."""

    def __init__(self, code: int) -> None:
        super().__init__(ERRORS[code])
        self.code = code


class _Command(msgspec.Struct):
    cmd: str
    id: int = 0
    params: dict[str, Any] | None = None

    def read(self) -> _Params:
        """Its parameters.

        Raises:
            CommandError: None were given, or one has a type it cannot have.
        """
        if self.params is None:
            raise CommandError(2)
        try:
            return msgspec.convert(self.params, _Params)
        except msgspec.ValidationError:
            raise CommandError(11) from None


class _Params(msgspec.Struct):
    """What the parameters of any command may be."""

    channels: list[str] | None = None
    sid: int | None = None
    sids: list[int] | None = None
    action: str | None = None
    market_ticker: str | None = None
    market_tickers: list[str] | None = None
    market_id: str | None = None
    market_ids: list[str] | None = None
    n: int | None = None


class Subscription:
    """One channel of one connection.

    Attributes:
        tickers: None for every market.
    """

    __slots__ = ("channel", "seq", "sid", "tickers")

    def __init__(self, sid: int, channel: str, tickers: set[str] | None) -> None:
        self.sid = sid
        self.channel = channel
        self.tickers = tickers
        self.seq = 0

    def wants(self, ticker: str) -> bool:
        """Whether it follows this market."""
        return self.tickers is None or ticker in self.tickers

    def next_seq(self) -> int:
        """The number of its next numbered frame."""
        self.seq += 1
        return self.seq


class Connection:
    """One socket, its subscriptions and its queue of frames."""

    def __init__(self, hub: Hub, socket: web.WebSocketResponse) -> None:
        self._hub = hub
        self._socket = socket
        self._queue: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._flushed = asyncio.Event()
        self._flushed.set()
        self._last_sid = 0
        self._commands = Bucket(WS_COMMANDS_PER_SEC, WS_COMMANDS_PER_SEC)
        self.subscriptions: dict[int, Subscription] = {}
        # The barrier: the latest tick, whether a frame went out since, whether the follower is done with it.
        self._tick = 0
        self._sent_since_tick = False
        self.is_quiescent = False

    @property
    def clock(self) -> Subscription | None:
        """Its subscription to the market clock."""
        return next((sub for sub in self.subscriptions.values() if sub.channel == CLOCK), None)

    # Sending.

    def post(self, frame: bytes) -> None:
        """Queue one frame."""
        self._sent_since_tick = True
        self._queue.append(frame)
        self._flushed.clear()
        self._wake.set()
        if len(self._queue) > QUEUE_LIMIT:
            self._overflow()

    def _overflow(self) -> None:
        sids = list(self.subscriptions)
        self.subscriptions.clear()
        self._queue.clear()
        for sid in sids:
            self._queue.append(wire.encode({"type": "error", "sid": sid, "msg": _error(25)}))
        self._hub.changed()

    def send(self, sub: Subscription, kind: str, message: bytes, command_id: int = 0) -> None:
        """Queue one data frame of *sub*; a gap fault loses it and keeps its number."""
        if sub.channel not in SEQUENCED:
            self.post(wire.frame(kind, sub.sid, None, message))
            return
        seq = sub.next_seq()
        if self._hub.faults.for_frame(Fault.GAP, self._hub.engine.now_ns):
            return
        frame = wire.frame(kind, sub.sid, seq, message)
        if command_id:
            frame = b'{"id":%d,%b' % (command_id, frame[1:])
        self.post(frame)

    def tick(self, now_ns: int, *, is_final: bool) -> None:
        """Tell the follower what time it is and begin to wait for it."""
        sub = self.clock
        if sub is None:
            return
        self._tick += 1
        message: dict[str, Any] = {"n": self._tick, "ts_ns": now_ns}
        if is_final:
            message["final"] = True
        self.post(wire.frame("holdfast_tick", sub.sid, None, wire.encode(message)))
        self._sent_since_tick = False
        self.is_quiescent = False

    async def flushed(self) -> None:
        """Wait until everything queued was handed to the socket."""
        await self._flushed.wait()

    async def serve(self) -> None:
        """Read commands until the socket closes, writing beside it."""
        writer = asyncio.create_task(self._write())
        heart = asyncio.create_task(self._beat())
        try:
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    self._command(message.data)
                elif message.type is WSMsgType.BINARY:
                    self.post(wire.encode({"type": "error", "msg": _error(1)}))
        finally:
            self.subscriptions.clear()
            self._flushed.set()
            for task in (writer, heart):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await task

    async def _write(self) -> None:
        while not self._socket.closed:
            while self._queue:
                frame = self._queue.popleft()
                await self._socket.send_str(frame.decode())
            self._flushed.set()
            self._wake.clear()
            await self._wake.wait()

    async def _beat(self) -> None:
        while not self._socket.closed:
            await asyncio.sleep(HEARTBEAT_SECS)
            await self._socket.ping(b"heartbeat")

    async def close(self) -> None:
        """Say goodbye: the exchange stops."""
        await self._socket.close(code=1001, message=b"exchange stopped")

    # Commands.

    def _command(self, text: str) -> None:
        try:
            command = msgspec.json.decode(text, type=_Command)
        except msgspec.MsgspecError:
            self.post(wire.encode({"type": "error", "msg": _error(1)}))
            return
        try:
            self._handle(command)
        except CommandError as error:
            self._answer(command, "error", {"msg": _error(error.code)})

    def _handle(self, command: _Command) -> None:
        if command.cmd == "holdfast_quiescent":
            self._quiescent(command)
            return
        if not self._commands.take(1, time.monotonic_ns()):
            raise CommandError(27)
        handler = self._HANDLERS.get(command.cmd)
        if handler is None:
            raise CommandError(5)
        handler(self, command)

    def _quiescent(self, command: _Command) -> None:
        if self.clock is None:
            raise CommandError(7)
        if command.read().n != self._tick:
            return  # an answer to an older tick: the newer one is still being waited for
        if self._sent_since_tick:
            self.tick(self._hub.engine.now_ns, is_final=self._hub.is_final)
            return
        self.is_quiescent = True
        self._hub.changed()

    def _subscribe(self, command: _Command) -> None:
        params = command.read()
        channels = params.channels
        if not channels:
            raise CommandError(3)
        if not CHANNELS.issuperset(channels):
            raise CommandError(8)
        tickers = self._tickers(params)
        if BOOK in channels and not tickers:
            raise CommandError(14)
        opened: list[Subscription] = []
        for channel in channels:
            self._last_sid += 1
            filtered = None if channel in {LIFECYCLE, CLOCK} or not tickers else set(tickers)
            sub = Subscription(self._last_sid, channel, filtered)
            self.subscriptions[sub.sid] = sub
            opened.append(sub)
            self._answer(command, "subscribed", {"msg": {"channel": channel, "sid": sub.sid}})
        for sub in opened:
            if sub.channel == BOOK:
                self._send_snapshots(sub, tickers)
        if CLOCK in channels:
            self.tick(self._hub.engine.now_ns, is_final=self._hub.is_final)
            self._hub.changed()

    def _unsubscribe(self, command: _Command) -> None:
        params = command.read()
        if not params.sids:
            raise CommandError(4)
        for sub in self._named(params.sids):
            del self.subscriptions[sub.sid]
            self._answer(command, "unsubscribed", {"sid": sub.sid, "seq": sub.next_seq()})
        self._hub.changed()

    def _update(self, command: _Command) -> None:
        params = command.read()
        sids = params.sids if params.sid is None else [params.sid]
        if sids is None or len(sids) != 1:
            raise CommandError(12)
        (sub,) = self._named(sids)
        action = params.action
        if action is None:
            raise CommandError(15)
        if action not in _ACTIONS or (action == "get_snapshot" and sub.channel != BOOK):
            raise CommandError(13)
        tickers = self._tickers(params)
        if not tickers:
            raise CommandError(14)
        if action == "get_snapshot":
            self._send_snapshots(sub, tickers, command.id)
            return
        added = _change(sub, tickers) if action == "add_markets" else []
        if action == "delete_markets" and sub.tickers is not None:
            sub.tickers.difference_update(tickers)
        listed = {"market_tickers": sorted(sub.tickers or ())}
        self._answer(command, "ok", {"sid": sub.sid, "seq": sub.next_seq(), "msg": listed})
        if sub.channel == BOOK:
            self._send_snapshots(sub, added)

    def _list(self, command: _Command) -> None:
        listed = [{"channel": sub.channel, "sid": sub.sid} for sub in self.subscriptions.values()]
        self._answer(command, "ok", {"msg": listed})

    _HANDLERS: Final[dict[str, Callable[[Connection, _Command], None]]] = {
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "update_subscription": _update,
        "list_subscriptions": _list,
    }

    def _answer(self, command: _Command, kind: str, rest: dict[str, Any]) -> None:
        self.post(wire.encode({"id": command.id, "type": kind, **rest}))

    def _named(self, sids: Iterable[int]) -> list[Subscription]:
        named = list(dict.fromkeys(sids))
        if any(sid not in self.subscriptions for sid in named):
            raise CommandError(7)
        return [self.subscriptions[sid] for sid in named]

    def _tickers(self, params: _Params) -> list[str]:
        if params.market_id is not None or params.market_ids is not None:
            raise CommandError(11)
        named = list(dict.fromkeys(params.market_tickers or ()))
        if not named and params.market_ticker is not None:
            named = [params.market_ticker]
        if any(name not in self._hub.engine.markets for name in named):
            raise CommandError(11)
        if len(named) > MARKET_LIMIT:
            raise CommandError(26)
        return named

    def _send_snapshots(self, sub: Subscription, tickers: Iterable[str], command_id: int = 0) -> None:
        for ticker in tickers:
            message = wire.snapshot_msg(self._hub.engine.markets[ticker], self._hub.market_id(ticker))
            self.send(sub, "orderbook_snapshot", wire.encode(message), command_id)


class Hub:
    """All connections: what happened goes to whoever asked for it.

    Attributes:
        is_final: The market is over; the last tick was or will be marked so.
    """

    def __init__(self, engine: Engine, faults: Faults) -> None:
        self.engine = engine
        self.faults = faults
        self.connections: list[Connection] = []
        self.is_final = False
        self._changed = asyncio.Event()
        self._market_ids: dict[str, str] = {}
        self._tickers_told: dict[str, object] = {}

    def market_id(self, ticker: str) -> str:
        """The market's uuid, remembered."""
        found = self._market_ids.get(ticker)
        if found is None:
            found = self._market_ids[ticker] = self.engine.market_id(ticker)
        return found

    @property
    def followers(self) -> list[Connection]:
        """Connections that hold the market clock."""
        return [connection for connection in self.connections if connection.clock is not None]

    def changed(self) -> None:
        """Wake whoever waits for followers to come, go or become quiescent."""
        self._changed.set()

    async def wait_changed(self) -> None:
        """Until a follower comes, goes or becomes quiescent."""
        self._changed.clear()
        await self._changed.wait()

    def tick(self, *, is_final: bool) -> None:
        """Tell every follower what time it is."""
        self.is_final = is_final
        for follower in self.followers:
            follower.tick(self.engine.now_ns, is_final=is_final)

    async def quiet(self, *, followed: bool) -> None:
        """Until every follower is done with its latest tick; with *followed*, until there is one at all."""
        while True:
            followers = self.followers
            if all(follower.is_quiescent for follower in followers) and (followers or not followed):
                return
            await self.wait_changed()

    async def flushed(self) -> None:
        """Until every connection's queue is written."""
        for connection in list(self.connections):
            await connection.flushed()

    async def serve(self, socket: web.WebSocketResponse) -> None:
        """Serve one accepted socket until it closes."""
        connection = Connection(self, socket)
        self.connections.append(connection)
        try:
            await connection.serve()
        finally:
            self.connections.remove(connection)
            self.changed()

    async def close(self) -> None:
        """Close every connection."""
        for connection in list(self.connections):
            await connection.close()

    def publish(self, happened: Iterable[Happening]) -> None:
        """Queue what happened, in order, at every subscription that follows it."""
        if not self.connections:
            return
        moved: dict[str, None] = {}
        for what in happened:
            if isinstance(what, BookMoved):
                moved[what.change.ticker] = None
                self._to(BOOK, what.change.ticker, "orderbook_delta", partial(self._delta, what))
            elif isinstance(what, matching.TradePrint):
                moved[what.ticker] = None
                self._to(TRADE, what.ticker, "trade", partial(wire.trade_msg, what))
            elif isinstance(what, matching.BookReset):
                moved[what.ticker] = None
                self._to(BOOK, what.ticker, "orderbook_snapshot", partial(self._snapshot, what.ticker))
            elif isinstance(what, Filled):
                self._fill(what)
            else:
                self._tell(what)
        for ticker in moved:
            self._tell_ticker(ticker)

    def _tell(self, what: OrderMoved | PositionMoved | matching.StatusChange) -> None:
        user = self.engine.account.user_id
        if isinstance(what, OrderMoved):
            ticker = what.order.request.ticker
            self._to(ORDERS, ticker, "user_order", partial(wire.user_order_msg, what.order, user))
        elif isinstance(what, PositionMoved):
            ticker = what.holding.ticker
            self._to(POSITIONS, ticker, "market_position", partial(wire.position_msg, what.holding, user))
        else:
            message = partial(wire.lifecycle_msg, what, self.engine.markets[what.ticker])
            self._to(LIFECYCLE, what.ticker, "market_lifecycle_v2", message)

    def _fill(self, what: Filled) -> None:
        times = 2 if self.faults.for_frame(Fault.DUP, self.engine.now_ns) else 1
        for _ in range(times):
            self._to(FILL, what.fill.ticker, "fill", partial(wire.fill_msg, what.fill))

    def _to(self, channel: str, ticker: str, kind: str, message: Callable[[], wire.JSON]) -> None:
        """Send to every subscription of *channel* that follows *ticker*; the message is written once."""
        encoded = b""
        for connection in self.connections:
            for sub in list(connection.subscriptions.values()):
                if sub.channel == channel and sub.wants(ticker):
                    encoded = encoded or wire.encode(message())
                    connection.send(sub, kind, encoded)

    def _delta(self, what: BookMoved) -> wire.JSON:
        return wire.delta_msg(what.change, self.market_id(what.change.ticker), what.client_order_id)

    def _snapshot(self, ticker: str) -> wire.JSON:
        return wire.snapshot_msg(self.engine.markets[ticker], self.market_id(ticker))

    def _tell_ticker(self, ticker: str) -> None:
        """Send the ticker where one of its fields has changed since it was last told."""
        if not any(sub.channel == TICKER for c in self.connections for sub in c.subscriptions.values()):
            return
        market = self.engine.markets[ticker]
        interest = wire.open_interest(self.engine, ticker)
        bid, ask = market.book.best(BookSide.BID), market.book.best(BookSide.ASK)
        shown = (bid, ask, market.last_price, market.last_qty, market.volume, interest)
        if self._tickers_told.get(ticker) == shown:
            return
        self._tickers_told[ticker] = shown
        message = wire.ticker_msg(market, self.market_id(ticker), interest, self.engine.now_ns)
        self._to(TICKER, ticker, "ticker", lambda: message)


def _change(sub: Subscription, tickers: list[str]) -> list[str]:
    """Add markets to a filtered subscription; returns those it did not follow before."""
    if sub.tickers is None:
        return []
    added = [ticker for ticker in tickers if ticker not in sub.tickers]
    if len(sub.tickers) + len(added) > MARKET_LIMIT:
        raise CommandError(26)
    sub.tickers.update(added)
    return added


def _error(code: int) -> dict[str, Any]:
    return {"code": code, "msg": ERRORS[code]}
