"""The check that every test passes through: no connection is left open."""

import asyncio

import aiohttp
from support.broker import serving
from support.connections import left_open


def test_a_connection_that_nobody_closes_is_named_once():
    """A socket still open when its loop ends is told of; one that was closed is not."""
    kept = []

    async def run():
        async with serving() as (_, endpoints), aiohttp.ClientSession() as session:
            headers = {"Authorization": f"Bearer {endpoints.token}"}
            async with session.ws_connect(endpoints.ws, headers=headers):
                pass
            kept.append(await session.ws_connect(endpoints.ws, headers=headers))
            assert left_open() == [], "its loop still runs"

    asyncio.run(run())
    (left,) = left_open()
    assert "127.0.0.1" in left
    assert left_open() == []
