"""Kalshi's WebSocket: books, trades, our fills and orders, market lifecycle, in the order they were sent.

Promise: what arrives is passed on in order, and nothing missing stays unsaid. `seq` counts per *subscription*, over
all its markets and its control answers; where it does not rise by one, a `StreamGap` goes out before anything else
and books are rebuilt from a fresh snapshot. A lost connection is a gap of everything, private news included. Once
the private channels stand, a private gap says: read orders and fills, from now on nothing is missed. `Book.alive_ns`
is when the book was last proven whole: a quiet book is passed on again while pings prove the connection alive.

Limits: fills and order messages carry no `seq`, so that only a lost connection shows that some are missing. A level
that goes below zero, a delta for a book never seen and a frame that cannot be read count as gaps.

The protocol is `StreamMachine`, which does no I/O; `KalshiStream` owns the socket.

Source: research 05, section 2; docs.kalshi.com, AsyncAPI 2.0.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from holdfast.core.clock import NANOS
from holdfast.core.errors import (
    AuditError,
    BadInput,
    ConfigError,
    VenueAnswerUnknown,
    VenueError,
    VenueRejected,
)
from holdfast.core.money import ONE_DOLLAR_E4, PriceE4, QtyE2, complement, parse_price, parse_qty
from holdfast.execution.venue import (
    Book,
    BookChanged,
    FillSeen,
    Level,
    OrderSeen,
    StreamGap,
    VenueEvent,
    VenueTime,
)
from holdfast.venues.kalshi import wire

if TYPE_CHECKING:
    from holdfast.venues.kalshi.client import AsyncKalshiClient

BOOKS: Final = "orderbook_delta"
TRADES: Final = "trade"
FILLS: Final = "fill"
ORDERS: Final = "user_orders"
LIFECYCLE: Final = "market_lifecycle_v2"
CLOCK: Final = "holdfast_clock"

HEARTBEAT_SECS: Final = 5.0
"""After this much silence we ping; after three times as much the connection counts as dead."""
REFRESH_SECS: Final = 5.0
FIRST_BACKOFF_SECS: Final = 0.5
LONGEST_BACKOFF_SECS: Final = 30.0
MAX_FRAME_BYTES: Final = 32 << 20

_PRIVATE = frozenset({FILLS, ORDERS})
_TERMINAL_CODES = frozenset({10, 25})
_LATER_CODES = frozenset({18, 27})
_UNKNOWN_SID = 7
_QUEUED_FRAMES = 65_536
_NANOS_PER_MS = 1_000_000


class _Leg:
    """One side of a book, best level first; the tuple handed out is rebuilt only after a change."""

    __slots__ = ("_keys", "_levels", "_sign", "_tuple")

    def __init__(self, levels: Iterable[tuple[PriceE4, QtyE2]], sign: int) -> None:
        self._sign = sign
        ordered = sorted(levels, key=lambda level: sign * level[0])
        self._keys = [sign * price for price, _ in ordered]
        self._levels = [Level(price, qty) for price, qty in ordered]
        self._tuple: tuple[Level, ...] | None = None

    def levels(self) -> tuple[Level, ...]:
        """The side now."""
        if self._tuple is None:
            self._tuple = tuple(self._levels)
        return self._tuple

    def move(self, price: PriceE4, delta: QtyE2) -> bool:
        """Change the size at *price* by *delta*; False when it would go below zero."""
        key = self._sign * price
        at = bisect.bisect_left(self._keys, key)
        is_known = at < len(self._keys) and self._keys[at] == key
        size = QtyE2((self._levels[at].qty if is_known else 0) + delta)
        if size < 0:
            return False
        self._tuple = None
        if is_known and size:
            self._levels[at] = Level(price, size)
        elif is_known:
            del self._keys[at], self._levels[at]
        elif size:
            self._keys.insert(at, key)
            self._levels.insert(at, Level(price, size))
        return True


class _LiveBook:
    """One market's book as the stream tells it."""

    __slots__ = ("asks", "bids", "shown_ns", "ticker", "ts_ns")

    def __init__(self, ticker: str, message: wire.SnapshotMessage, ts_ns: int) -> None:
        self.ticker = ticker
        self.bids = _Leg(wire.read_pairs(message.yes_dollars_fp), -1)
        no_bids = wire.read_pairs(message.no_dollars_fp)
        self.asks = _Leg(((complement(price), qty) for price, qty in no_bids), 1)
        self.ts_ns = ts_ns
        self.shown_ns = 0

    def show(self, now_ns: int, shown_ns: int) -> BookChanged:
        self.shown_ns = shown_ns
        book = Book(ticker=self.ticker, bids=self.bids.levels(), asks=self.asks.levels(), alive_ns=now_ns)
        return BookChanged(book, self.ts_ns)


class _Subscription:
    __slots__ = ("channel", "last_seq")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.last_seq: int | None = None


class Step(msgspec.Struct):
    """What one frame leads to.

    Attributes:
        events: For whoever follows, in order.
        commands: To be sent.
        notes: STREAM records.
        reconnect: Why the connection must be given up, or "".
        fatal: What ends the stream for good.
    """

    events: list[VenueEvent] = []
    commands: list[bytes] = []
    notes: list[dict[str, Any]] = []
    reconnect: str = ""
    fatal: VenueError | None = None


class StreamMachine:
    """The protocol of one connection after another, without I/O.

    Args:
        tickers: Markets to follow.
        venue_clock: Follow the exchange's market clock too.
    """

    def __init__(self, tickers: Collection[str], *, venue_clock: bool = False) -> None:
        self.tickers: dict[str, None] = dict.fromkeys(tickers)
        self._venue_clock = venue_clock
        self._next_id = 1
        self._asked: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._waiting: dict[str, dict[str, None]] = {}
        self._sids: dict[int, _Subscription] = {}
        self._books: dict[str, _LiveBook] = {}
        self._venue_ns = 0
        self._refreshed_ns = 0
        self._connections = 0
        self._private_due: set[str] = set()
        self._is_resubscribing = False

    # --- what the shell tells it ----------------------------------------------------------------------------

    def connected(self) -> Step:
        """A connection stands: subscribe to everything, private channels first."""
        self._connections += 1
        self._asked.clear()
        self._waiting.clear()
        self._sids.clear()
        self._books.clear()
        self._private_due = set(_PRIVATE)
        step = Step(notes=[{"event": "connected", "tickers": list(self.tickers)}])
        step.commands.append(self._subscribe((FILLS, ORDERS)))
        step.commands.append(self._subscribe((LIFECYCLE,)))
        self._subscribe_markets(step, BOOKS)
        self._subscribe_markets(step, TRADES)
        if self._venue_clock:
            step.commands.append(self._subscribe((CLOCK,)))
        return step

    def disconnected(self, reason: str) -> Step:
        """The connection is gone: every book is stale and private news may be missing."""
        tickers = tuple(self.tickers)
        self._books.clear()
        self._sids.clear()
        return Step(
            events=[StreamGap(reason=f"disconnected: {reason}", tickers=tickers, private=True)],
            notes=[{"event": "disconnected", "tickers": list(tickers)}],
        )

    def follow(self, ticker: str) -> Step:
        """Add a market."""
        step = Step()
        if ticker in self.tickers:
            return step
        self.tickers[ticker] = None
        for channel in (BOOKS, TRADES):
            sid = self._sid_of(channel)
            if sid is not None:
                step.commands.append(self._add_markets(channel, sid, (ticker,)))
            elif any(channel in channels for channels, _ in self._asked.values()):
                self._waiting.setdefault(channel, {})[ticker] = None
            elif self._connections:
                self._subscribe_markets(step, channel)
        return step

    def quiescent(self, n: int) -> bytes:
        """The command that releases the exchange's clock."""
        return self._command("holdfast_quiescent", {"n": n})

    def alive(self, now_ns: int) -> list[VenueEvent]:
        """The connection is proven alive: books that were not shown for a while are shown again."""
        if self._venue_clock or now_ns - self._refreshed_ns < REFRESH_SECS * NANOS:
            return []
        self._refreshed_ns = now_ns
        return self._refresh(now_ns, now_ns)

    def frame(self, raw: bytes | str, now_ns: int) -> Step:
        """Take one frame at clock monotonic *now_ns*."""
        step = Step()
        try:
            envelope = wire.decode(wire.ENVELOPE, raw.encode() if isinstance(raw, str) else raw, "frame")
            self._take(envelope, now_ns, step)
        except (VenueAnswerUnknown, BadInput) as error:
            step.reconnect = str(error)
        return step

    # --- inside ---------------------------------------------------------------------------------------------

    def _take(self, envelope: wire.Envelope, now_ns: int, step: Step) -> None:
        if envelope.type == "subscribed":
            self._subscribed(envelope, step)
            return
        if envelope.type == "error":
            self._error(envelope, step)
            return
        if envelope.sid is None or (subscription := self._sids.get(envelope.sid)) is None:
            return  # of a subscription that was given up
        if not self._is_next(envelope.sid, subscription, envelope.seq, step):
            return
        if envelope.type == "unsubscribed":
            step.reconnect = f"the venue ended subscription {envelope.sid} ({subscription.channel})"
            return
        self._data(envelope, now_ns, step)

    def _data(self, envelope: wire.Envelope, now_ns: int, step: Step) -> None:
        match envelope.type:
            case "orderbook_delta":
                self._delta(envelope, now_ns, step)
            case "orderbook_snapshot":
                message = wire.decode(wire.SNAPSHOT, envelope.msg, "book snapshot")
                book = _LiveBook(message.market_ticker, message, self._venue_ns)
                self._books[message.market_ticker] = book
                step.events.append(book.show(now_ns, self._shown_at(now_ns)))
            case "trade":
                trade = wire.parse_stream_trade(envelope.msg)
                self._venue_ns = max(self._venue_ns, trade.ts_ns)
                step.events.append(trade)
            case "fill":
                step.events.append(FillSeen(wire.parse_stream_fill(envelope.msg)))
            case "user_order":
                step.events.append(OrderSeen(wire.parse_stream_order(envelope.msg)))
            case "market_lifecycle_v2":
                changed = wire.parse_lifecycle(envelope.msg)
                if changed.ticker in self.tickers:
                    step.events.append(changed)
            case "holdfast_tick":
                self._tick(envelope, now_ns, step)
            case _:
                pass  # control answers, and channels' side news that nobody asked for

    def _tick(self, envelope: wire.Envelope, now_ns: int, step: Step) -> None:
        tick = wire.decode(wire.TICK, envelope.msg, "clock tick")
        if not self._refreshed_ns:
            self._refreshed_ns = tick.ts_ns
        elif tick.ts_ns - self._refreshed_ns >= REFRESH_SECS * NANOS:
            self._refreshed_ns = tick.ts_ns
            step.events.extend(self._refresh(now_ns, tick.ts_ns))
        self._venue_ns = max(self._venue_ns, tick.ts_ns)
        step.events.append(VenueTime(n=tick.n, ts_ns=tick.ts_ns, final=tick.final))

    def _delta(self, envelope: wire.Envelope, now_ns: int, step: Step) -> None:
        message = wire.decode(wire.DELTA, envelope.msg, "book delta")
        price, delta = parse_price(message.price_dollars), parse_qty(message.delta_fp)
        book = self._books.get(message.market_ticker)
        if not 0 < price < ONE_DOLLAR_E4 or message.side not in {"yes", "no"}:
            raise BadInput(f"book delta at {message.price_dollars[:20]!r} of {message.side[:20]!r} cannot be")
        sid = envelope.sid or 0
        if book is None:
            self._books_lost(sid, None, envelope.seq, "delta for a book never seen", step)
            return
        is_whole = (
            book.bids.move(price, delta)
            if message.side == "yes"
            else book.asks.move(complement(price), delta)
        )
        if not is_whole:
            self._books_lost(sid, None, envelope.seq, "a level went below zero", step)
            return
        book.ts_ns = max(book.ts_ns, message.ts_ms * _NANOS_PER_MS)
        self._venue_ns = max(self._venue_ns, book.ts_ns)
        step.events.append(book.show(now_ns, self._shown_at(now_ns)))

    def _shown_at(self, now_ns: int) -> int:
        return self._venue_ns if self._venue_clock else now_ns

    def _refresh(self, alive_ns: int, now_ns: int) -> list[VenueEvent]:
        oldest_ns = now_ns - round(REFRESH_SECS * NANOS)
        return [book.show(alive_ns, now_ns) for book in self._books.values() if book.shown_ns <= oldest_ns]

    def _is_next(self, sid: int, subscription: _Subscription, seq: int | None, step: Step) -> bool:
        """Whether a frame may be taken; a gap in books ends their subscription, one elsewhere is told."""
        last, subscription.last_seq = subscription.last_seq, seq if seq is not None else subscription.last_seq
        if seq is None or last is None or seq == last + 1:
            return True
        if subscription.channel == BOOKS:
            self._books_lost(sid, last + 1, seq, f"sequence {seq} where {last + 1} was due", step)
            return False
        channel = subscription.channel
        reason = f"{channel}: sequence {seq} where {last + 1} was due"
        step.events.append(StreamGap(reason=reason, private=channel in _PRIVATE))
        step.notes.append({"event": "gap", "sid": sid, "expected": last + 1, "got": seq})
        return True

    def _books_lost(self, sid: int, expected: int | None, got: int | None, reason: str, step: Step) -> None:
        """Books cannot be trusted: say so, and subscribe anew for fresh snapshots."""
        tickers = tuple(self.tickers)
        self._books.clear()
        self._sids.pop(sid, None)
        self._is_resubscribing = True
        step.events.append(StreamGap(reason=f"{BOOKS}: {reason}", tickers=tickers))
        step.notes.append(
            {"event": "gap", "sid": sid, "expected": expected, "got": got, "tickers": list(tickers)}
        )
        step.commands.append(self._command("unsubscribe", {"sids": [sid]}))
        self._subscribe_markets(step, BOOKS)

    def _subscribed(self, envelope: wire.Envelope, step: Step) -> None:
        message = wire.decode(wire.SUBSCRIBED, envelope.msg, "subscription answer")
        channel, sid = message.channel, message.sid
        if not any(channel in channels for channels, _ in self._asked.values()):
            return
        if (old := self._sid_of(channel)) is not None:
            del self._sids[old]
        self._sids[sid] = _Subscription(channel)
        self._asked = {
            number: (rest, tickers)
            for number, (channels, tickers) in self._asked.items()
            if (rest := tuple(name for name in channels if name != channel))
        }
        if late := self._waiting.pop(channel, None):
            step.commands.append(self._add_markets(channel, sid, tuple(late)))
        if channel == BOOKS and self._is_resubscribing:
            self._is_resubscribing = False
            step.notes.append({"event": "resubscribed", "sid": sid, "tickers": list(self.tickers)})
        if channel in self._private_due:
            self._private_due.discard(channel)
            if not self._private_due:
                step.events.append(StreamGap(reason="connected: read orders and fills", private=True))

    def _error(self, envelope: wire.Envelope, step: Step) -> None:
        error = wire.decode(wire.STREAM_ERROR, envelope.msg, "stream error")
        text = f"stream error {error.code}: {error.msg[:200]}"
        asked = self._asked.get(envelope.id) if envelope.id is not None else None
        if error.code in _TERMINAL_CODES:
            self._ended(envelope.sid, text, step)
        elif error.code == _UNKNOWN_SID and asked is None:
            return  # we gave up what the venue had ended already
        elif error.code in _LATER_CODES or asked is None:
            # A command that answered nothing we wait for (following one more market, releasing the clock) leaves
            # unclear what is subscribed; a new connection makes it clear.
            step.reconnect = text
        else:
            step.fatal = VenueRejected(
                f"subscription to {', '.join(asked[0])} refused: {text}",
                code=f"ws_{error.code}",
                hint="check the tickers, and that the venue offers these channels to this key",
            )

    def _ended(self, sid: int | None, text: str, step: Step) -> None:
        """The venue gave a subscription up (10, 25)."""
        subscription = self._sids.get(sid) if sid is not None else None
        if sid is None or subscription is None:
            step.reconnect = text
        elif subscription.channel == BOOKS:
            self._books_lost(sid, None, None, text, step)
        else:
            del self._sids[sid]
            channel = subscription.channel
            step.events.append(StreamGap(reason=f"{channel}: {text}", private=channel in _PRIVATE))
            step.notes.append({"event": "gap", "sid": sid})
            if channel == TRADES:
                self._subscribe_markets(step, TRADES)
            else:
                self._private_due |= {channel} & _PRIVATE
                step.commands.append(self._subscribe((channel,)))

    def _subscribe_markets(self, step: Step, channel: str) -> None:
        if self.tickers:
            step.commands.append(self._subscribe((channel,), tuple(self.tickers)))

    def _subscribe(self, channels: tuple[str, ...], tickers: tuple[str, ...] = ()) -> bytes:
        params: dict[str, Any] = {"channels": list(channels)}
        if tickers:
            params["market_tickers"] = list(tickers)
        if BOOKS in channels:
            # The venue has announced that prices of NO levels will be told on the YES leg unless this is said.
            params["use_yes_price"] = False
        self._asked[self._next_id] = (channels, tickers)
        return self._command("subscribe", params)

    def _add_markets(self, channel: str, sid: int, tickers: tuple[str, ...]) -> bytes:
        del channel
        return self._command(
            "update_subscription", {"sids": [sid], "action": "add_markets", "market_tickers": list(tickers)}
        )

    def _sid_of(self, channel: str) -> int | None:
        return next((sid for sid, one in self._sids.items() if one.channel == channel), None)

    def _command(self, name: str, params: dict[str, Any]) -> bytes:
        number = self._next_id
        self._next_id += 1
        return msgspec.json.encode({"id": number, "cmd": name, "params": params})


class KalshiStream:
    """One connection at a time, kept up until closed.

    Args:
        client: Whose key, clocks, log and session it uses.
        tickers: Markets to follow from the beginning.
        venue_clock: The exchange owns the market's clock and waits for `quiescent`.
    """

    def __init__(
        self, client: AsyncKalshiClient, tickers: Collection[str], *, venue_clock: bool = False
    ) -> None:
        self._client = client
        self._machine = StreamMachine(tickers, venue_clock=venue_clock)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._task: asyncio.Task[None] | None = None
        self._queue: asyncio.Queue[list[VenueEvent] | Exception | None] = asyncio.Queue(_QUEUED_FRAMES)
        self._last_seen_ns = 0

    async def events(self) -> AsyncIterator[VenueEvent]:
        """Connect, and yield events until `close`; see `Venue.events`.

        Raises:
            VenueRejected: The venue refuses the key or a channel.
            ConfigError: The client has no key.
        """
        if self._client.signer is None:
            raise ConfigError(
                "the stream needs an API key, for public channels too", hint="use from_env() or give a key"
            )
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            while (item := await self._queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                for event in item:
                    yield event
        finally:
            await self._stop()

    async def follow(self, ticker: str) -> None:
        """Add one market; a no-op when it is followed already."""
        await self._send(self._machine.follow(ticker).commands)

    async def quiescent(self, n: int) -> None:
        """Release the exchange's clock beyond tick *n*."""
        await self._send([self._machine.quiescent(n)])

    async def close(self) -> None:
        """End `events`."""
        await self._stop()
        if self._queue.full():
            # Nobody may still be reading, and whoever is must learn of the end rather than of the last frame.
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._keep_up()
        except Exception as error:  # noqa: BLE001  the task ends here; whoever follows the stream gets it
            await self._queue.put(error)

    async def _keep_up(self) -> None:
        failures = 0
        while True:
            begun_ns = self._client.wall_clock.monotonic_ns()
            reason = await self._one_connection()
            lived_ns = self._client.wall_clock.monotonic_ns() - begun_ns
            failures = 0 if lived_ns > LONGEST_BACKOFF_SECS * NANOS else failures + 1
            longest = min(LONGEST_BACKOFF_SECS, FIRST_BACKOFF_SECS * 2 ** min(failures, 16))
            if reason is not None:
                await self._act(self._machine.disconnected(reason))
            await self._client.sleep(self._client.rng.uniform(0, longest))

    async def _one_connection(self) -> str | None:
        """Live through one connection; why it ended, or None when it never stood.

        Raises:
            VenueRejected: There is no use in trying again.
        """
        try:
            self._socket = await self._connect()
        except aiohttp.WSServerHandshakeError as error:
            if error.status in {401, 403}:
                reason = f"stream handshake refused: {error.status}"
                self._client.breaker.latch(reason, "kalshi")
                raise VenueRejected(
                    reason,
                    code="unauthorized",
                    status=error.status,
                    hint="check the API key and the machine's clock; then reset breaker 'kalshi_api'",
                ) from None
            return None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None
        watcher = asyncio.get_running_loop().create_task(self._watch(self._socket))
        try:
            return await self._listen(self._socket)
        finally:
            watcher.cancel()
            socket, self._socket = self._socket, None
            try:
                await asyncio.gather(watcher, return_exceptions=True)
            finally:  # a loop that ends cancels this task, and so does whoever followed it
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    await socket.close()

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        client = self._client
        if client.signer is None:
            raise ConfigError("the stream needs an API key")
        path = urlsplit(client.ws_url).path
        headers = client.signer.headers("GET", path, client.wall_clock.now_ns() // 1_000_000)
        async with asyncio.timeout(client.timeout_secs):
            return await client.transport.session().ws_connect(
                client.ws_url, headers=headers, autoping=False, max_msg_size=MAX_FRAME_BYTES
            )

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> str:
        clock = self._client.clock
        try:
            await self._act(self._machine.connected())
            while True:
                message = await socket.receive()
                self._last_seen_ns = self._client.wall_clock.monotonic_ns()
                kind = message.type
                if kind is aiohttp.WSMsgType.TEXT or kind is aiohttp.WSMsgType.BINARY:
                    step = self._machine.frame(message.data, clock.monotonic_ns())
                    await self._act(step)
                    if step.reconnect:
                        return step.reconnect
                elif kind is aiohttp.WSMsgType.PING:
                    await socket.pong(message.data)
                elif kind is not aiohttp.WSMsgType.PONG:
                    return f"closed by the venue ({socket.close_code})"
                if quiet := self._machine.alive(clock.monotonic_ns()):
                    await self._queue.put(quiet)
        except (aiohttp.ClientError, OSError) as error:
            return type(error).__name__

    async def _watch(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Ping into silence; close what stays silent."""
        wall = self._client.wall_clock
        self._last_seen_ns = wall.monotonic_ns()
        with contextlib.suppress(aiohttp.ClientError, OSError):
            while True:
                await self._client.sleep(HEARTBEAT_SECS)
                silent_ns = wall.monotonic_ns() - self._last_seen_ns
                if silent_ns > 3 * HEARTBEAT_SECS * NANOS:
                    await socket.close()
                    return
                if silent_ns >= HEARTBEAT_SECS * NANOS * 0.9:
                    await socket.ping()

    async def _act(self, step: Step) -> None:
        if step.events:
            await self._queue.put(step.events)
        if step.commands:
            await self._send(step.commands)
        for note in step.notes:
            with contextlib.suppress(AuditError):
                await self._client.audit_logger.record_async(
                    "STREAM", note, user=self._client.user_id, component="kalshi"
                )
        if step.fatal is not None:
            raise step.fatal

    async def _send(self, commands: Iterable[bytes]) -> None:
        """Send, or leave it: without a connection the next one begins with everything."""
        socket = self._socket
        if socket is None:
            return
        with contextlib.suppress(aiohttp.ClientError, OSError):
            for command in commands:
                await socket.send_str(command.decode())
