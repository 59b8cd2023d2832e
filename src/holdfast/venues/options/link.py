"""One socket to the paper broker: numbered requests with their answers, and frames that nobody asked for.

Promise: a request goes out at most once and ends in its answer or in `Lost`, which says whether bytes may have left.
An answer that cannot be read ends the connection: nobody knows what else it said, and everything that waits on it is
lost. Whoever asks while there is no connection opens one. Frames are handed on in the order in which they came.

Limits: used from one event loop; reconnecting without a request is the stream's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any, Final

import aiohttp

from holdfast.core.errors import VenueAnswerUnknown, VenueRejected
from holdfast.venues.options import wire
from holdfast.venues.options.wire import Frame

MAX_FRAME_BYTES: Final = 32 << 20
HEARTBEAT_SECS: Final = 10.0


class Lost(Exception):
    """No answer; *began* says whether bytes may have left."""

    def __init__(self, reason: str, *, began: bool) -> None:
        super().__init__(reason)
        self.began = began


class Link:
    """See the head of this file.

    Args:
        url: ws:// or wss:// address of the broker.
        token: Proves who asks.
        on_frame: Hears every frame that answers nothing, with the number of its connection.
        on_down: Hears why a connection ended.
        greeting: Requests (op, parameters) that every new connection begins with.

    Attributes:
        generation: How many connections there have been.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        on_frame: Callable[[Frame, int], None],
        on_down: Callable[[str], None],
        greeting: Callable[[], list[tuple[str, dict[str, Any]]]],
    ) -> None:
        self.generation = 0
        self._url = url
        self._token = token
        self._on_frame = on_frame
        self._on_down = on_down
        self._greeting = greeting
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Frame]] = {}
        self._numbers = itertools.count(1)
        self._connecting = asyncio.Lock()
        self._is_closed = False

    @property
    def is_up(self) -> bool:
        """Whether a connection stands."""
        return self._socket is not None

    async def connect(self) -> None:
        """Have a connection.

        Raises:
            Lost: There is none to be had; nothing was sent.
            VenueRejected: The broker refuses the token, or speaks another version.
        """
        async with self._connecting:
            if self._is_closed:  # whoever follows might come back for another one
                raise Lost("closed", began=False)
            if self._socket is not None:
                return
            socket = await self._open()
            if self._session is None:  # closed meanwhile
                await socket.close()
                raise Lost("closed", began=False)
            self.generation += 1
            self._socket = socket
            self._reader = asyncio.get_running_loop().create_task(self._read(socket, self.generation))
            for op, params in self._greeting():
                await self.post(op, params)

    async def ask(self, op: str, params: dict[str, Any]) -> Frame:
        """The answer to one request on the connection that stands.

        Raises:
            Lost: There was no connection, or none answered.
        """
        socket = self._socket
        if socket is None:
            raise Lost("not connected", began=False)
        number = next(self._numbers)
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await socket.send_str(wire.request(number, op, params))
            return await answer
        except (aiohttp.ClientError, OSError) as error:
            raise Lost(type(error).__name__, began=True) from None
        finally:
            self._waiting.pop(number, None)

    async def post(self, op: str, params: dict[str, Any]) -> None:
        """Send a request whose answer nobody waits for; without a connection it is left."""
        socket = self._socket
        if socket is not None:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await socket.send_str(wire.request(next(self._numbers), op, params))

    async def close(self) -> None:
        """Let go of the connection, for good."""
        self._is_closed = True
        reader, self._reader = self._reader, None
        if self._socket is not None:
            await self._socket.close()
        if reader is not None:  # it ends with its socket; cancelled, it might leave that half closed
            await asyncio.gather(reader, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- inside ---------------------------------------------------------------------------------------------

    async def _open(self) -> aiohttp.ClientWebSocketResponse:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        try:
            socket = await self._session.ws_connect(
                self._url,
                headers={"Authorization": f"Bearer {self._token}"},
                heartbeat=HEARTBEAT_SECS,
                max_msg_size=MAX_FRAME_BYTES,
            )
        except aiohttp.WSServerHandshakeError as error:
            if error.status in {401, 403}:
                raise VenueRejected(
                    f"the broker refuses the token: {error.status}",
                    code="unauthorized",
                    status=error.status,
                    hint="take the token that the broker printed; then reset the breaker",
                ) from None
            raise Lost(f"handshake answered {error.status}", began=False) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Lost(type(error).__name__, began=False) from None
        try:
            await self._greeted(socket)
        except BaseException:
            await socket.close()
            raise
        return socket

    @staticmethod
    async def _greeted(socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            hello = wire.read_frame(await socket.receive_str())
        except (TypeError, VenueAnswerUnknown, aiohttp.ClientError) as error:
            raise Lost(f"no greeting: {type(error).__name__}", began=False) from None
        if hello.t != "hello" or hello.v != wire.VERSION:
            raise VenueRejected(
                f"the broker speaks version {hello.v} of its wire, expected {wire.VERSION}",
                code="version",
                hint="run both from the same release",
            )

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, generation: int) -> None:
        reason = "closed by the broker"
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._take(wire.read_frame(message.data), generation)
            reason = f"closed by the broker ({socket.close_code})"
        except VenueAnswerUnknown as error:
            reason = str(error)
        except (aiohttp.ClientError, OSError) as error:
            reason = type(error).__name__
        finally:
            self._socket = None
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(Lost(reason, began=True))
            self._on_down(reason)
            await socket.close()

    def _take(self, frame: Frame, generation: int) -> None:
        if frame.t not in {"ok", "no"}:
            self._on_frame(frame, generation)
            return
        answer = self._waiting.get(frame.id)
        if answer is not None and not answer.done():
            answer.set_result(frame)
