"""The witness as an HTTP server: `POST /add-checkpoint` and `POST /add-key`, and nothing else.

Promise: a request body has a bound in bytes and a deadline; what exceeds them is answered and changes nothing. The
decisions are `anchors.witness`'s, made in a thread so that a slow disk does not keep others from being heard. It
listens on a loopback address unless the caller says that the port is meant for others.

Limits: plain HTTP. Checkpoints and cosignatures carry their own signatures, so nothing secret passes; put a proxy
with TLS in front of it where the network is not yours.

Source: https://c2sp.org/tlog-witness.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Awaitable, Callable

from aiohttp import web

from holdfast.anchors.wire import MAX_REQUEST_BYTES, Answer
from holdfast.anchors.witness import Witness
from holdfast.core.errors import BadInput, TradingError

READ_SECS = 10.0
"""A request that is not whole after this long is given up."""


class WitnessPortTaken(TradingError):
    """The port cannot be listened on; choose another, or 0 for a free one."""


class WitnessServer:
    """A witness behind a port.

    Args:
        witness: What decides; stays the caller's to close.
        read_secs: How long a request may take to arrive.
    """

    def __init__(self, witness: Witness, *, read_secs: float = READ_SECS) -> None:
        self._witness = witness
        self._read_secs = read_secs
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0, host: str = "127.0.0.1", *, expose: bool = False) -> str:
        """Listen; the submission prefix that clients are given.

        Args:
            port: 0 takes a free one.
            host: An address of this machine.
            expose: Whether an address that others reach is meant.

        Raises:
            BadInput: *host* is not a loopback address and *expose* was not said.
            WitnessPortTaken: The port cannot be used.
        """
        if not expose and not _is_loopback(host):
            raise BadInput(
                f"host {host!r} is not a loopback address",
                hint="--expose lets other machines reach the witness",
            )
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_post("/add-checkpoint", self._handler(self._witness.add_checkpoint))
        app.router.add_post("/add-key", self._handler(self._witness.add_key))
        # lingering_time: for how long the rest of a body that was refused is still taken from the wire.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, lingering_time=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as why:
            await runner.cleanup()
            reason = os.strerror(why.errno).lower() if why.errno else str(why)
            raise WitnessPortTaken(
                f"port {port} on {host} cannot be used: {reason}", hint="choose another with --port"
            ) from why
        self._runner = runner
        taken: int = runner.addresses[0][1]
        return f"http://{f'[{host}]' if ':' in host else host}:{taken}"

    async def stop(self) -> None:
        """Answer what was asked, then close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _handler(self, decide: Callable[[bytes], Answer]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                async with asyncio.timeout(self._read_secs):
                    body = await request.read()
            except TimeoutError:
                return _response(Answer(408, b"the request did not arrive in time\n"))
            return _response(await asyncio.to_thread(decide, body))

        return handle


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": answer.content_type})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
