"""The exchange, or the broker, as a child process: started with its own clock and keys, ended with us for certain.

The child learns that we are gone by its standard input: when this process ends, however it ends, the pipe
closes and the exchange stops.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from holdfast.core.errors import VenueUnreachable

T = TypeVar("T")

_READY_SECS = 30.0
_STOP_SECS = 10.0
_ANSWER_SECS = 10.0
_WATCH_EVERY_SECS = 1.0
_MISSES = 3


class Endpoints(msgspec.Struct, frozen=True):
    """Where an exchange listens and which key it accepts."""

    rest: str
    ws: str
    key_id: str
    pem: str


class BrokerEndpoints(msgspec.Struct, frozen=True):
    """Where the option broker listens, which token it accepts, what time it is there, and what its market is.

    *symbols* are the underlyings of that market, *days* all days of a recording with theirs.
    """

    ws: str
    token: str
    clock: int
    market: str = ""
    symbols: tuple[str, ...] = ()
    days: Mapping[int, tuple[str, ...]] = {}


@asynccontextmanager
async def running_exchange(arguments: Sequence[str], says: type[T]) -> AsyncGenerator[T, None]:
    """`holdfast exchange` with *arguments*, ready; stopped when the block ends.

    Args:
        arguments: Beside those that every child gets.
        says: What it prints when it is ready.

    Raises:
        VenueUnreachable: It did not start; the message is the child's own.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "holdfast",
        "exchange",
        "--json",
        "--exit-with-stdin",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # A signal to our process group (Ctrl-C) must reach us first: we still have to ask for our orders.
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101  PIPE was asked for
    assert process.stdout is not None  # noqa: S101  as above
    assert process.stderr is not None  # noqa: S101  as above
    errors = asyncio.create_task(process.stderr.read())
    try:
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _READY_SECS)
        except TimeoutError:
            line = b""
        if not line.strip():
            # It is ending by itself, mostly. A signal sent meanwhile would reap it behind the loop's back, and its
            # exit code would be lost.
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECS if process.stdout.at_eof() else 0)
            except TimeoutError:
                process.terminate()
                await process.wait()
            said = (await errors).decode(errors="replace").strip()
            raise ExchangeFailed(said or "the exchange did not become ready", process.returncode or 0)
        yield msgspec.json.decode(line, type=says)
    finally:
        if not errors.done() or process.returncode is None:
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECS)
            except TimeoutError:
                process.kill()
                await process.wait()
        await errors


async def market_time(rest: str) -> int:
    """What time it is at the exchange, UTC ns.

    Raises:
        VenueUnreachable: No paper exchange answers there.
    """
    parts = urlsplit(rest)
    url = f"{parts.scheme}://{parts.netloc}/holdfast/clock"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_SECS)) as session,
            session.get(url) as answer,
        ):
            return msgspec.json.decode(await answer.read(), type=dict[str, int])["ts_ns"]
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        refused = isinstance(
            error, aiohttp.ClientConnectorError
        )  # its own words speak of ssl, also where there is none
        raise VenueUnreachable(
            f"no paper exchange answers at {rest!r}: "
            f"{'nothing listens there' if refused else str(error) or type(error).__name__}",
            hint="start one with `holdfast exchange`; the journal of a run whose exchange is gone can still be verified",
        ) from error


async def listens(url: str) -> None:
    """Return when somebody takes connections at *url*.

    Raises:
        VenueUnreachable: Nobody does.
    """
    parts = urlsplit(url)
    try:
        opening = asyncio.open_connection(parts.hostname, parts.port)
        _, writer = await asyncio.wait_for(opening, _ANSWER_SECS)
    except (OSError, TimeoutError) as error:
        raise VenueUnreachable(
            f"the broker at {url!r} is gone: {str(error) or type(error).__name__}",
            hint="the run verifies as it stands; `--dir` takes it up again",
        ) from error
    writer.close()


async def until_gone(asked: Callable[[], Awaitable[object]]) -> None:
    """Return never; raise what *asked* does once it has raised `VenueUnreachable` three times in a row."""
    missed = 0
    while True:
        await asyncio.sleep(_WATCH_EVERY_SECS)
        try:
            await asked()
        except VenueUnreachable:
            missed += 1
            if missed == _MISSES:
                raise
        else:
            missed = 0


class ExchangeFailed(VenueUnreachable):
    """The exchange process ended before it was ready; its own message and exit code."""

    def __init__(self, said: str, code: int) -> None:
        first, _, rest = said.removeprefix("holdfast: ").partition("\nhint: ")
        super().__init__(first, hint=rest)
        if code > 0:
            self.exit_code = code
