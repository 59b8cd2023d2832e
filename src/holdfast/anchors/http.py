"""One bounded POST: to a witness, or to a time-stamping authority.

Promise: it ends. The whole exchange has one deadline, the answer one bound in bytes; no redirect is followed, no
proxy of the environment asked, nothing unpacked. Whatever goes wrong on the way is `AnchorUnreachable`: the sink is
then unknown, never fine.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from holdfast.core.errors import AnchorUnreachable, BadInput

TIMEOUT_SECS = 15.0


class HttpAnswer(NamedTuple):
    """What came back.

    Attributes:
        status: HTTP status.
        content_type: As the server names it.
        body: At most as many bytes as were allowed.
    """

    status: int
    content_type: str
    body: bytes


def check_url(url: str) -> str:
    """*url*, if it is one that `post` takes.

    Raises:
        BadInput: It is not http or https, names no host, or carries a name and password.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as why:
        raise BadInput(f"{url!r} is not a URL: {why}") from why
    if parts.scheme not in {"http", "https"} or not host:
        raise BadInput(
            f"{url!r} is not a URL", hint="for instance http://127.0.0.1:8720 or https://witness.example"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadInput("a sink's URL has neither user and password nor ? nor #")
    return url


def post(
    url: str, body: bytes, content_type: str, *, most: int, timeout_secs: float = TIMEOUT_SECS
) -> HttpAnswer:
    """What the server at *url* answers to *body*, whatever its status.

    Callable from any thread, also from one that runs an event loop, which then waits.

    Args:
        url: Where to.
        body: What.
        content_type: Of the body.
        most: The longest answer taken, in bytes.
        timeout_secs: For all of it.

    Raises:
        AnchorUnreachable: There was no whole answer in time.
    """
    exchange = _post(url, body, content_type, most, timeout_secs)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(exchange)
    with ThreadPoolExecutor(1) as another:
        return another.submit(asyncio.run, exchange).result()


async def _post(url: str, body: bytes, content_type: str, most: int, timeout_secs: float) -> HttpAnswer:
    timeout = aiohttp.ClientTimeout(total=timeout_secs)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            session.post(
                url, data=body, headers={"Content-Type": content_type}, allow_redirects=False
            ) as answer,
        ):
            received = bytearray()
            async for chunk in answer.content.iter_chunked(most + 1):
                received += chunk
                if len(received) > most:
                    raise AnchorUnreachable(f"{url} answers with more than {most} bytes")
            return HttpAnswer(answer.status, answer.headers.get("Content-Type", ""), bytes(received))
    except TimeoutError as why:
        raise AnchorUnreachable(f"{url} gave no whole answer within {timeout_secs:g} s") from why
    except (aiohttp.ClientError, OSError, ValueError) as why:
        raise AnchorUnreachable(f"{url} cannot be asked: {why}") from why
