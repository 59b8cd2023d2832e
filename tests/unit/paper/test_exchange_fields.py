"""Every field that a published client insists on is in the exchange's answers."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from support.data import require
from support.exchange import TICKER, lifecycle, quiet_feed, serving

from holdfast.core.signals import Side
from holdfast.venues.paper.events import MarketStatus

MODELS = (
    Path(__file__).resolve().parents[2] / "node" / "node_modules" / "kalshi-typescript" / "dist" / "models"
)


@pytest.fixture(scope="module")
def answers():
    """One answer of every kind, by the name of its model in the SDKs."""
    settled = "KXDONE-26DEC31-A"
    events = [
        lifecycle(1, MarketStatus.CLOSED, ticker=settled),
        lifecycle(1, MarketStatus.DETERMINED, Side.YES, ticker=settled),
        lifecycle(1, MarketStatus.FINALIZED, Side.YES, ticker=settled),
    ]

    async def collect():
        async with serving(quiet_feed(TICKER, settled, events=events)) as (_, client):
            created = (await client.order(client_order_id="a")).body
            await client.order(ticker=settled)
            resting = (await client.order(price="0.3000", client_order_id="b")).body
            stream = await client.stream()
            await stream.subscribe("holdfast_clock")
            await stream.follow(4)
            positions = await client.get("/portfolio/positions")
            event = await client.get("/events/KXTEST-26DEC31")
            return {
                "CreateOrderV2Response": created,
                "CancelOrderV2Response": (
                    await client.call("DELETE", f"/portfolio/events/orders/{resting['order_id']}")
                ).body,
                "GetMarketsResponse": await client.get("/markets"),
                "Market": (await client.get(f"/markets/{settled}"))["market"],
                "GetMarketOrderbookResponse": (book := await client.get(f"/markets/{TICKER}/orderbook")),
                "Orderbook": book["orderbook"],
                "OrderbookCountFp": book["orderbook_fp"],
                "GetOrdersResponse": (orders := await client.get("/portfolio/orders")),
                "Order": orders["orders"][0],
                "GetFillsResponse": (fills := await client.get("/portfolio/fills")),
                "Fill": fills["fills"][0],
                "GetTradesResponse": (trades := await client.get("/markets/trades")),
                "Trade": trades["trades"][0],
                "GetPositionsResponse": positions,
                "MarketPosition": positions["market_positions"][0],
                "EventPosition": positions["event_positions"][0],
                "GetSettlementsResponse": (paid := await client.get("/portfolio/settlements")),
                "Settlement": paid["settlements"][0],
                "GetBalanceResponse": await client.get("/portfolio/balance"),
                "ExchangeStatus": await client.get("/exchange/status"),
                "GetEventResponse": event,
                "EventData": event["event"],
                "GetEventsResponse": await client.get("/events"),
                "GetSeriesListResponse": await client.get("/series"),
                "Series": (await client.get("/series/KXTEST"))["series"],
                "GetAccountApiLimitsResponse": (limits := await client.get("/account/limits")),
                "BucketLimit": limits["read"],
                "GetAccountEndpointCostsResponse": await client.get("/account/endpoint_costs"),
                "GetHistoricalCutoffResponse": await client.get("/historical/cutoff"),
                "GetExchangeScheduleResponse": await client.get("/exchange/schedule"),
            }

    return asyncio.run(collect())


@pytest.mark.data
def test_answers_hold_what_the_python_sdk_requires(answers):
    """No model that we serve lacks a field which kalshi-python-sync 3.2.0 would raise for."""
    models = json.loads(require("kalshi-wire", "sdk-3.2.0-required-fields.json").read_text())["models"]
    compared = models.keys() & answers.keys()
    lacking = {
        name: missing
        for name in sorted(compared)
        if (missing := set(models[name]["required"]) - answers[name].keys())
    }
    assert lacking == {}
    assert len(compared) >= 15


def test_answers_hold_what_the_typescript_sdk_declares(answers):
    """No model that we serve lacks a field which kalshi-typescript 3.30.0 declares without a question mark."""
    if not MODELS.exists():
        pytest.skip("tests/node/node_modules is missing: fields were NOT compared; run npm ci in tests/node")
    compared, lacking = 0, {}
    for name, answer in answers.items():
        file = MODELS / (re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower() + ".d.ts")
        if not file.exists():
            continue
        declared = re.search(rf"interface {name} \{{(.*?)\n\}}", file.read_text(), re.DOTALL)
        assert declared is not None, file
        required = set(re.findall(r"^    '(\w+)':", declared[1], re.MULTILINE))
        compared += 1
        if missing := required - answer.keys():
            lacking[name] = missing
    assert lacking == {}
    assert compared >= 25
