"""Clients that are not ours trade on the exchange: the official SDKs unmodified, and requests captured from them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import uuid
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import kalshi_python_sync as sdk
import pytest
from kalshi_python_sync.exceptions import ApiException, NotFoundException
from support.data import require
from support.exchange import TICKER, headers_for, in_thread, quiet_feed, shared_key

NODE = Path(__file__).resolve().parents[1] / "node"
# The captures were taken against a market of this name.
OTHER = "KXTEST-26DEC31-B"


@pytest.fixture
def running():
    with in_thread(quiet_feed(TICKER, OTHER)) as exchange:
        yield exchange


@pytest.fixture
def client(running):
    configuration = sdk.Configuration(host=running.endpoints.rest)
    configuration.api_key_id = running.endpoints.key_id
    configuration.private_key_pem = running.endpoints.pem_path.read_text()
    return sdk.KalshiClient(configuration)


# kalshi-python-sync 3.2.0: the older order path, and integers it insists on.


def test_the_python_sdk_reads_account_and_markets(client):
    """Balance, status, markets, one market and its book pass the SDK's own validation."""
    assert client.get_balance().balance == 1_000_000
    assert client.get_exchange_status().trading_active is True
    listed = client.get_markets(limit=2, status="open", event_ticker="KXTEST-26DEC31")
    assert [market.ticker for market in listed.markets] == [TICKER, OTHER]
    market = client.get_market(TICKER).market
    assert (market.yes_bid, market.yes_ask_dollars, market.status) == (40, "0.4500", "active")
    book = client.get_market_orderbook(TICKER, depth=1).orderbook
    assert book.yes_dollars == [["0.4000", "100.00"]]
    assert book.no_dollars == [["0.5500", "100.00"]]
    assert client.get_event("KXTEST-26DEC31").event.mutually_exclusive is False
    assert client.get_series("KXTEST").series.fee_type == "quadratic"
    assert client.get_exchange_schedule().schedule.maintenance_windows == []


def test_the_python_sdk_creates_reads_lists_and_cancels(client, running):
    """One order from creation to cancel, each answer an SDK object with the order in it."""
    name = str(uuid.uuid4())
    made = client.create_order(
        ticker=TICKER, side="yes", action="buy", count=10, type="limit", yes_price=30, client_order_id=name
    ).order
    assert (made.client_order_id, made.status.value, made.remaining_count) == (name, "resting", 10)
    assert client.get_order(made.order_id).order.yes_price_dollars == "0.3000"
    (listed,) = client.get_orders(status="resting").orders
    assert listed.order_id == made.order_id
    canceled = client.cancel_order(made.order_id)
    assert (canceled.reduced_by, canceled.order.status.value) == (10, "canceled")
    with pytest.raises(NotFoundException):
        client.cancel_order(made.order_id)
    assert running.call(running.exchange.books).open_orders == ()


def test_the_python_sdk_fills_and_sees_it(client):
    """A taker's fill, trade and position pass the SDK's validation."""
    made = client.create_order(
        ticker=TICKER, side="yes", action="buy", count=10, yes_price_dollars="0.4500"
    ).order
    assert (made.status.value, made.fill_count, made.taker_fees) == ("executed", 10, 18)
    (fill,) = client.get_fills().fills
    assert (fill.order_id, fill.yes_price, fill.is_taker) == (made.order_id, 45, True)
    (position,) = client.get_positions().market_positions
    assert (position.position, position.market_exposure_dollars) == (10, "4.500000")
    assert client.get_trades(ticker=TICKER).trades[0].trade_id == fill.trade_id
    assert client.get_settlements().settlements == []


def test_the_python_sdk_is_told_why_not(client):
    """Refusals reach the SDK's caller as exceptions with status and code."""
    with pytest.raises(ApiException) as refused:
        client.create_order(ticker=TICKER, side="yes", action="buy", count=10, yes_price_dollars="0.4550")
    assert refused.value.status == 400
    assert "invalid_price" in refused.value.body
    with pytest.raises(ApiException) as missing:
        client.get_market("KXNONE")
    assert missing.value.status == 404


def test_the_python_sdk_with_a_wrong_key_is_refused(running):
    """A key id that nobody has ends in 401."""
    configuration = sdk.Configuration(host=running.endpoints.rest)
    configuration.api_key_id = str(uuid.uuid4())
    configuration.private_key_pem = running.endpoints.pem_path.read_text()
    with pytest.raises(ApiException) as refused:
        sdk.KalshiClient(configuration).get_balance()
    assert refused.value.status == 401


# kalshi-typescript 3.30.0: V2.


@pytest.fixture(scope="session")
def node():
    """The node program, with the locked packages installed beside the driver."""
    found = shutil.which("node")
    npm = shutil.which("npm")
    if found is None or npm is None:
        pytest.skip(
            "node is missing: the official TypeScript client was NOT tested; install node >= 18 and npm"
        )
    if not (NODE / "node_modules" / "kalshi-typescript").exists():
        subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True, timeout=180)
    return found


@pytest.mark.slow
def test_the_typescript_sdk_trades(node, running):
    """Balance, markets, market, book, create, get, list, cancel, a fill, and the truth about amend."""
    ends = running.endpoints
    environment = {
        "PATH": os.environ["PATH"],
        "HOLDFAST_REST": ends.rest,
        "HOLDFAST_KEY_ID": ends.key_id,
        "HOLDFAST_PEM": str(ends.pem_path),
        "HOLDFAST_TICKER": TICKER,
    }
    done = subprocess.run(
        [node, "trade.mjs"],
        cwd=NODE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["status"]["trading_active"] is True
    assert got["balance"]["balance_dollars"] == "10000.0000"
    assert [market["ticker"] for market in got["markets"]["markets"]] == [TICKER, OTHER]
    assert got["market"]["market"]["yes_bid_dollars"] == "0.4000"
    assert got["orderbook"]["orderbook_fp"]["yes_dollars"][-1] == ["0.4000", "100.00"]
    assert (got["created"]["status"], got["created"]["remaining_count"]) == (201, "10.00")
    order_id = got["created"]["order_id"]
    assert got["order"]["order"]["status"] == "resting"
    assert [order["order_id"] for order in got["listed"]["orders"]] == [order_id]
    assert got["canceled"]["reduced_by"] == "10.00"
    assert (got["taken"]["fill_count"], got["taken"]["average_fill_price"]) == ("10.00", "0.4500")
    assert got["fills"]["fills"][0]["order_id"] == got["taken"]["order_id"]
    assert got["positions"]["market_positions"][0]["position_fp"] == "10.00"
    assert (got["amend"]["status"], got["amend"]["body"]["error"]["code"]) == (404, "not_found")


# Captured requests.

_NOT_HERE = ("amend", "decrease", "batched", "DELETE /trade-api/v2/portfolio/events/orders")


def _send(ends, capture, order_id, number):
    """One captured request, its placeholders filled in and signed anew; status and body."""
    method = capture["method"]
    path = capture["path"].replace("o-1", order_id)
    body = capture["body_raw"].replace("o-1", order_id)
    # Each capture file repeats the same client order id; a resting order of the last file may hold it.
    body = body.replace("5d2ff2bb-0000", f"{number:08x}-0000")
    put_in = {"host": urlsplit(ends.rest).netloc, "content-length": str(len(body))}
    for name, value in headers_for(shared_key().private_key, ends.key_id, method, path).items():
        put_in[name.lower()] = value
    connection = http.client.HTTPConnection(urlsplit(ends.rest).netloc, timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in capture["headers"]:
        connection.putheader(name, put_in.pop(name.lower(), value))
    assert set(put_in) <= {"content-length"}, f"the capture lacks {sorted(put_in)}"
    connection.endheaders(body.encode())
    answer = connection.getresponse()
    status, text = answer.status, answer.read()
    connection.close()
    return status, json.loads(text)


@pytest.mark.data
def test_captured_requests_are_served_as_sent():
    """Every request captured from four SDKs gets its answer; what is not here yet says so in the venue's shape."""
    folder = require("kalshi-wire")
    counted: Counter[str] = Counter()
    with in_thread(quiet_feed(TICKER)) as running:
        ends = running.endpoints
        number = 0
        for file in sorted(folder.glob("kalshi_*.json")):
            order_id = "none-yet"
            for capture in json.loads(file.read_text())["requests"]:
                number += 1
                status, body = _send(ends, capture, order_id, number)
                named = f"{file.stem}: {capture['call']}"
                request = f"{capture['method']} {capture['path']}"
                if any(word in request for word in _NOT_HERE[:3]) or request == _NOT_HERE[3]:
                    assert status in {404, 405}, named
                    assert body["error"]["code"] in {"not_found", "method_not_allowed"}, named
                    counted["not here"] += 1
                elif capture["method"] == "POST" and "price" not in capture["body_raw"]:
                    # kalshi-python 2.1.4 drops the dollar price on its way out; the exchange must not guess one.
                    assert status == 400, named
                    assert "exactly one of" in body["error"]["details"], named
                    counted["no price"] += 1
                elif capture["method"] == "POST":
                    assert status == 201, (named, body)
                    order_id = body.get("order", body)["order_id"]
                    counted["created"] += 1
                else:
                    assert status == 200, (named, body)
                    counted["canceled" if capture["method"] == "DELETE" else "read"] += 1
        books = running.call(running.exchange.books)
    print(f"captured requests: {dict(counted)}")
    assert counted["not here"] == 5
    assert counted["no price"] == 1
    assert counted["created"] == 5
    assert counted["canceled"] == 4
    assert len(books.orders) == counted["created"]
    assert len(books.open_orders) == counted["created"] - counted["canceled"]
