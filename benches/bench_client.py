"""One GET of a market: our client beside httpx and the vendor's own SDK, on the same local server.

Every client signs (RSA-2048, PSS) and reads the same answer. Ours also asks two breakers, bounds the call in time
and writes one record to a real log on disk; the peers do none of that. The server is a bare protocol in a child
process. Rounds are interleaved, values are medians per call: read the ratios.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import multiprocessing
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from holdfast.audit.logger import AuditLogger
from holdfast.audit.wal import WriteAheadLog
from holdfast.breaker.registry import standard_registry
from holdfast.core.clock import SystemClock
from holdfast.venues.kalshi import wire
from holdfast.venues.kalshi.blocking import KalshiClient
from holdfast.venues.kalshi.client import AsyncKalshiClient
from holdfast.venues.kalshi.signing import Signer

ROUNDS = 9
CALLS = 150
TICKER = "KXTEST-26DEC31-A"
PATH = f"/trade-api/v2/markets/{TICKER}"
PRICE = "0.4000"
TIME = "2026-01-01T00:00:00Z"
TEXTS = (
    "title", "subtitle", "yes_sub_title", "no_sub_title", "expiration_value", "category",
    "rules_primary", "rules_secondary", "result",
)  # fmt: skip
TIMES = ("created_time", "open_time", "close_time", "expiration_time", "latest_expiration_time")
CENTS = (
    "yes_bid", "yes_ask", "no_bid", "no_ask", "last_price", "notional_value", "previous_yes_bid",
    "previous_yes_ask", "previous_price", "liquidity",
)  # fmt: skip
WHOLE = ("volume", "volume_24h", "open_interest", "settlement_timer_seconds", "risk_limit_cents", "tick_size")


def market() -> dict[str, object]:
    """A market with today's fields, and the older ones that the vendor's SDK insists on."""
    return {
        "ticker": TICKER,
        "event_ticker": "KXTEST-26DEC31",
        "market_type": "binary",
        "status": "active",
        "response_price_units": "usd_cent",
        "can_close_early": True,
        "price_level_structure": "linear_cent",
        "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
        **dict.fromkeys(TEXTS, ""),
        **dict.fromkeys(TIMES, TIME),
        **dict.fromkeys(CENTS, 40),
        **{f"{name}_dollars": PRICE for name in CENTS},
        **dict.fromkeys(WHOLE, 10),
    }


def serve(pipe) -> None:
    """Answer every request of every connection with the market."""
    body = json.dumps({"market": market()}).encode()
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            self.pending = b""

        def data_received(self, data):
            *requests, self.pending = (self.pending + data).split(b"\r\n\r\n")
            self.transport.write(answer * len(requests))

    async def main():
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


class Ours:
    """`AsyncKalshiClient`, whole."""

    def __init__(self, base_url, signer, log, registry):
        self.loop = asyncio.new_event_loop()
        self.client = AsyncKalshiClient(base_url=base_url, signer=signer, audit_logger=log, registry=registry)

    def round(self) -> float:
        return self.loop.run_until_complete(self._round())

    async def _round(self):
        begun = time.perf_counter()
        for _ in range(CALLS):
            await self.client.get_market(TICKER)
        return (time.perf_counter() - begun) / CALLS

    def close(self):
        self.loop.run_until_complete(self.client.close())
        self.loop.close()


class Blocking:
    """Something with a `get` that blocks."""

    def __init__(self, get, close):
        self.get, self.close = get, close

    def round(self) -> float:
        begun = time.perf_counter()
        for _ in range(CALLS):
            self.get()
        return (time.perf_counter() - begun) / CALLS


def with_httpx(origin, signer):
    """httpx with the same signature and the same reading; None where it is not installed."""
    try:
        httpx = importlib.import_module("httpx")
    except ImportError:
        return None
    client = httpx.Client(trust_env=False)

    def get():
        headers = signer.headers("GET", PATH, time.time_ns() // 1_000_000)
        return wire.parse_market(client.get(origin + PATH, headers=headers).content)

    return Blocking(get, client.close)


def with_sdk(origin, key_id, pem):
    """kalshi-python-sync; None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sdk = importlib.import_module("kalshi_python_sync")
    except ImportError:
        return None
    settings = sdk.Configuration(host=f"{origin}/trade-api/v2")
    settings.api_key_id, settings.private_key_pem = key_id, pem
    client = sdk.KalshiClient(settings)
    return Blocking(lambda: client.get_market(TICKER), lambda: None)


def run() -> list[dict]:
    """Medians of interleaved rounds, microseconds per call."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=serve, args=(there,), daemon=True)
    child.start()
    try:
        return measure(f"http://127.0.0.1:{here.recv()}")
    finally:
        child.terminate()
        child.join()


def measure(origin: str) -> list[dict]:
    """The rows for a server at *origin*."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signer = Signer("bench", key)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clock = SystemClock()
        log = AuditLogger(stack.enter_context(WriteAheadLog(directory / "audit", clock=clock, seal=False)))
        registry = standard_registry(clock=clock, audit=log)
        sync = KalshiClient(base_url=origin, signer=signer, audit_logger=log, registry=registry)
        cases = {
            "ours": Ours(origin, signer, log, registry),
            "ours, blocking": Blocking(lambda: sync.get_market(TICKER), sync.close),
            "httpx": with_httpx(origin, signer),
            "kalshi-python-sync": with_sdk(origin, "bench", pem),
        }
        runnable = {name: case for name, case in cases.items() if case is not None}
        for case in runnable.values():
            stack.callback(case.close)
            case.round()
        rounds = {name: [] for name in runnable}
        for _ in range(ROUNDS):
            for name, case in runnable.items():
                rounds[name].append(case.round())
        begun = time.perf_counter()
        for _ in range(CALLS):
            signer.headers("GET", PATH, 1)
        signature = (time.perf_counter() - begun) / CALLS * 1e6
    medians = {name: statistics.median(values) * 1e6 for name, values in rounds.items()}
    return rows(medians, signature)


def rows(medians: dict[str, float], signature: float) -> list[dict]:
    """Ours beside each peer that ran."""
    found = []
    for name in ("ours", "ours, blocking"):
        for peer in ("httpx", "kalshi-python-sync"):
            beside = medians.get(peer)
            found.append(
                {
                    "name": f"client GET: {name}",
                    "value": round(medians[name], 1),
                    "unit": "us",
                    "beside": f"{peer} {beside:.0f} us" if beside else f"{peer} is not installed",
                    "ratio": round(medians[name] / beside, 2) if beside else None,
                    "bar": "",
                }
            )
    found.append(
        {
            "name": "client GET: signature alone",
            "value": round(signature, 1),
            "unit": "us",
            "beside": f"ours {medians['ours']:.0f} us",
            "ratio": round(signature / medians["ours"], 2),
            "bar": "",
        }
    )
    return found


if __name__ == "__main__":
    print(msgspec.json.format(msgspec.json.encode(run())).decode())
