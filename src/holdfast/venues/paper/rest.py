"""The exchange's REST surface: routes, queries and pages over the engine's books.

One `RestApi` serves both generations of the order path; what an answer looks like is `wire.py`'s business, who may
ask and what goes wrong on purpose is `exchange.py`'s. A path that is not in `RestApi.routes` is answered 404 and a
method that a path does not know 405, both in the venue's error shape: amend, decrease, batches, cancel-all and
order groups are not here.

Pages: `limit` 1 to 1000, by default 100; `cursor` is opaque, an empty one ends the list, and one that cannot be read
is ignored as the venue does. Orders, fills, trades and settlements come newest first.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from aiohttp import web
from multidict import MultiMapping

from holdfast.core.clock import NANOS
from holdfast.core.money import ONE_DOLLAR_E4, MoneyE6
from holdfast.core.signals import BookSide
from holdfast.venues.paper import wire
from holdfast.venues.paper.accounts import OrderRequest, OrderState
from holdfast.venues.paper.engine import Engine, Market, Refusal
from holdfast.venues.paper.limits import Tier
from holdfast.venues.paper.wire import JSON, PREFIX

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Row = TypeVar("_Row")
Query = MultiMapping[str]

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000

PUBLIC: Final = (
    "/exchange/",
    "/series",
    "/events",
    "/markets",
    "/historical/cutoff",
)
"""Beginnings of paths that may be read without a signature."""


class BadQuery(Exception):
    """A query parameter that cannot be accepted; its text is the answer."""


class Route(NamedTuple):
    """One method and path (aiohttp's pattern, under /trade-api/v2) and who answers it."""

    method: str
    path: str
    handler: Handler


def answer(body: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=wire.encode(body), status=status, content_type="application/json")


def refuse(why: Refusal) -> web.Response:
    """A refusal in the venue's shape."""
    return answer(wire.error_body(why), why.status)


class RestApi:
    """Every route over one engine.

    Args:
        publish: Called after a request changed something, before its answer is written.
    """

    def __init__(self, engine: Engine, tier: Tier, publish: Callable[[], None], start_ns: int) -> None:
        self._engine = engine
        self._tier = tier
        self._publish = publish
        self._start_ns = start_ns

    @property
    def routes(self) -> list[Route]:
        """What is served."""
        constant = self._constant
        return [
            Route("GET", "/exchange/status", constant({"exchange_active": True, "trading_active": True})),
            Route("GET", "/exchange/schedule", constant(wire.schedule_json(self._start_ns))),
            Route("GET", "/series", self._series_list),
            Route("GET", "/series/{series}", self._series),
            Route("GET", "/events", self._events),
            Route("GET", "/events/{event}", self._event),
            Route("GET", "/markets", self._markets),
            Route("GET", "/markets/trades", self._trades),
            Route("GET", "/markets/{ticker}", self._market),
            Route("GET", "/markets/{ticker}/orderbook", self._orderbook),
            Route("POST", "/portfolio/events/orders", self._create_v2),
            Route("DELETE", "/portfolio/events/orders/{order_id}", self._cancel_v2),
            Route("POST", "/portfolio/orders", self._create_legacy),
            Route("DELETE", "/portfolio/orders/{order_id}", self._cancel_legacy),
            Route("GET", "/portfolio/orders", self._orders),
            Route("GET", "/portfolio/orders/{order_id}", self._order),
            Route("GET", "/portfolio/balance", self._balance),
            Route("GET", "/portfolio/positions", self._positions),
            Route("GET", "/portfolio/fills", self._fills),
            Route("GET", "/portfolio/settlements", self._settlements),
            Route("GET", "/portfolio/summary/total_resting_order_value", self._resting_value),
            Route("GET", "/account/limits", constant(wire.limits_json(self._tier))),
            Route("GET", "/account/endpoint_costs", constant(wire.costs_json())),
            Route("GET", "/historical/cutoff", constant(wire.cutoff_json(self._start_ns))),
            Route("GET", "/historical/orders", constant({"orders": [], "cursor": ""})),
        ]

    @staticmethod
    def _constant(body: JSON) -> Handler:
        encoded = wire.encode(body)

        async def handler(_: web.Request) -> web.StreamResponse:
            return web.Response(body=encoded, content_type="application/json")

        return handler

    # Orders.

    async def _create_v2(self, request: web.Request) -> web.StreamResponse:
        return self._create(wire.read_order_v2(await request.read()), is_v2=True)

    async def _create_legacy(self, request: web.Request) -> web.StreamResponse:
        return self._create(wire.read_order_legacy(await request.read()), is_v2=False)

    def _create(self, asked: OrderRequest | Refusal | JSON, *, is_v2: bool) -> web.Response:
        if isinstance(asked, Refusal):
            return refuse(asked)
        if isinstance(asked, dict):
            return answer(asked, 400)
        order = self._engine.place(asked)
        self._publish()
        if isinstance(order, Refusal):
            return refuse(order)
        if is_v2:
            return answer(wire.created_v2(order, self._engine.now_ns), 201)
        return answer({"order": wire.order_json(order, self._engine.account.user_id)}, 201)

    async def _cancel_v2(self, request: web.Request) -> web.StreamResponse:
        done = self._engine.cancel(request.match_info["order_id"])
        self._publish()
        if isinstance(done, Refusal):
            return refuse(done)
        return answer(wire.canceled_v2(*done, self._engine.now_ns))

    async def _cancel_legacy(self, request: web.Request) -> web.StreamResponse:
        done = self._engine.cancel(request.match_info["order_id"])
        self._publish()
        if isinstance(done, Refusal):
            return refuse(done)
        return answer(wire.canceled_legacy(*done, self._engine.account.user_id))

    async def _order(self, request: web.Request) -> web.StreamResponse:
        order = self._engine.account.orders.get(request.match_info["order_id"])
        if order is None:
            return refuse(Refusal(status=404, code="not_found"))
        return answer({"order": wire.order_json(order, self._engine.account.user_id)})

    async def _orders(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        state = query.get("status")
        if state is not None and state not in set(OrderState):
            raise BadQuery(f"'status' {state!r} is not one of {', '.join(OrderState)}")
        account = self._engine.account
        rows: Iterable[Any] = (
            account.open_orders() if state == OrderState.RESTING else account.orders.values()
        )
        in_time, is_market = _window(query), self._market_filter(query)
        found = [
            row
            for row in rows
            if (state is None or row.state == state)
            and is_market(row.request.ticker)
            and in_time(row.created_ns)
        ]
        page, cursor = _newest_first(found, query, lambda row: row.number)
        return answer({"orders": [wire.order_json(row, account.user_id) for row in page], "cursor": cursor})

    # The account.

    async def _balance(self, _: web.Request) -> web.StreamResponse:
        account = self._engine.account
        return answer(wire.balance_json(account.available, self._portfolio_value(), self._engine.now_ns))

    def _portfolio_value(self) -> MoneyE6:
        """What closing every position at the touch would pay; nothing where nobody bids."""
        total = 0
        for held in self._engine.account.holdings.values():
            side = BookSide.BID if held.position > 0 else BookSide.ASK
            touch = self._engine.markets[held.ticker].book.best(side) if held.position else None
            if touch is not None:
                price = touch[0] if held.position > 0 else ONE_DOLLAR_E4 - touch[0]
                total += abs(held.position) * price
        return MoneyE6(total)

    async def _positions(self, request: web.Request) -> web.StreamResponse:
        engine, query = self._engine, request.query
        is_market = self._market_filter(query)
        settled_too = query.get("settlement_status") in {"all", "settled"}
        non_zero = "position" in query.get("count_filter", "")
        held = [
            holding
            for holding in engine.account.holdings.values()
            if is_market(holding.ticker)
            and (holding.position or (holding.volume and not non_zero))
            and (settled_too or not engine.markets[holding.ticker].settled_ns)
        ]
        page, cursor = _in_order(held, query)
        by_event: dict[str, list[Any]] = {}
        for holding in page:
            event = engine.markets[holding.ticker].spec.event_ticker
            by_event.setdefault(event, []).append(holding)
        resting = {h.ticker: len(engine.account.open_orders(h.ticker)) for h in page}
        return answer(
            {
                "market_positions": [wire.position_json(h, resting[h.ticker]) for h in page],
                "event_positions": [wire.event_position_json(event, hs) for event, hs in by_event.items()],
                "cursor": cursor,
            }
        )

    async def _fills(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        in_time, is_market, order_id = _window(query), self._market_filter(query), query.get("order_id")
        found = [
            fill
            for fill in self._engine.account.fills
            if is_market(fill.ticker)
            and in_time(fill.ts_ns)
            and (not order_id or fill.order.order_id == order_id)
        ]
        page, cursor = _newest_first(found, query, lambda fill: fill.number)
        return answer({"fills": [wire.fill_json(fill) for fill in page], "cursor": cursor})

    async def _settlements(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        in_time, is_market = _window(query), self._market_filter(query)
        found = [
            row for row in self._engine.account.settlements if is_market(row.ticker) and in_time(row.ts_ns)
        ]
        page, cursor = _newest_first(found, query, lambda row: row.number)
        return answer({"settlements": [wire.settlement_json(row) for row in page], "cursor": cursor})

    async def _resting_value(self, _: web.Request) -> web.StreamResponse:
        return answer({"total_resting_order_value": self._engine.account.reserved() // 10_000})

    # Markets.

    async def _markets(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        status = query.get("status")
        if status and status not in wire.STATUS_FILTERS:
            raise BadQuery(f"'status' {status!r} is not one of {', '.join(wire.STATUS_FILTERS)}")
        wanted = wire.STATUS_FILTERS[status] if status else None
        tickers = set(wire.tickers_of(query.get("tickers", "")))
        event, series = query.get("event_ticker"), query.get("series_ticker")
        found = [
            market
            for market in self._engine.markets.values()
            if (wanted is None or market.status in wanted)
            and (not tickers or market.spec.ticker in tickers)
            and (not event or market.spec.event_ticker == event)
            and (not series or market.spec.series_ticker == series)
        ]
        page, cursor = _in_order(found, query)
        return answer({"markets": [self._market_json(market) for market in page], "cursor": cursor})

    def _market_json(self, market: Market) -> JSON:
        return wire.market_json(market, wire.open_interest(self._engine, market.spec.ticker))

    async def _market(self, request: web.Request) -> web.StreamResponse:
        market = self._engine.markets.get(request.match_info["ticker"])
        if market is None:
            return _not_found()
        return answer({"market": self._market_json(market)})

    async def _orderbook(self, request: web.Request) -> web.StreamResponse:
        market = self._engine.markets.get(request.match_info["ticker"])
        if market is None:
            return _not_found()
        depth = _whole(request.query, "depth", 0)
        if not 0 <= depth <= 100:
            raise BadQuery("'depth' is outside 0 to 100")
        return answer(wire.orderbook_json(market, depth))

    async def _trades(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        ticker, in_time = query.get("ticker"), _window(query)
        found = [
            row
            for row in self._engine.trades
            if (not ticker or row.trade.ticker == ticker) and in_time(row.trade.ts_ns)
        ]
        page, cursor = _newest_first(found, query, lambda row: row.number)
        return answer({"trades": [wire.trade_json(row) for row in page], "cursor": cursor})

    def _by_event(self) -> dict[str, list[Market]]:
        grouped: dict[str, list[Market]] = {}
        for market in self._engine.markets.values():
            grouped.setdefault(market.spec.event_ticker, []).append(market)
        return grouped

    def _event_json(self, markets: Sequence[Market], *, nested: bool) -> JSON:
        event = wire.event_json(markets)
        if nested:
            event["markets"] = [self._market_json(market) for market in markets]
        return event

    async def _events(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        series, nested = query.get("series_ticker"), query.get("with_nested_markets") == "true"
        found = [
            markets
            for markets in self._by_event().values()
            if not series or markets[0].spec.series_ticker == series
        ]
        page, cursor = _in_order(found, query)
        events = [self._event_json(markets, nested=nested) for markets in page]
        return answer({"events": events, "cursor": cursor, "milestones": []})

    async def _event(self, request: web.Request) -> web.StreamResponse:
        markets = self._by_event().get(request.match_info["event"])
        if markets is None:
            return _not_found()
        nested = request.query.get("with_nested_markets") == "true"
        return answer(
            {
                "event": self._event_json(markets, nested=nested),
                "markets": [self._market_json(market) for market in markets],
            }
        )

    async def _series_list(self, _: web.Request) -> web.StreamResponse:
        specs = {market.spec.series_ticker: market.spec for market in self._engine.markets.values()}
        return answer({"series": [wire.series_json(spec) for spec in specs.values()]})

    async def _series(self, request: web.Request) -> web.StreamResponse:
        named = request.match_info["series"]
        for market in self._engine.markets.values():
            if market.spec.series_ticker == named:
                return answer({"series": wire.series_json(market.spec)})
        return _not_found()

    def _market_filter(self, query: Query) -> Callable[[str], bool]:
        ticker, event = query.get("ticker"), query.get("event_ticker")
        events = set(wire.tickers_of(event or ""))
        markets = self._engine.markets
        return lambda name: (
            (not ticker or name == ticker) and (not events or markets[name].spec.event_ticker in events)
        )


def _not_found() -> web.Response:
    return refuse(Refusal(status=404, code="not_found", service=""))


def is_public(path: str) -> bool:
    """Whether *path* (without /trade-api/v2) may be read without a signature."""
    return any(path == start.rstrip("/") or path.startswith(start) for start in PUBLIC)


def below_prefix(path: str) -> str | None:
    """*path* without /trade-api/v2, or None where it is not under it."""
    return path[len(PREFIX) :] if path.startswith(PREFIX + "/") else None


def _whole(query: Query, name: str, default: int) -> int:
    text = query.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise BadQuery(f"{name!r} is not a whole number")
    return int(text)


def _limit(query: Query) -> int:
    limit = _whole(query, "limit", DEFAULT_LIMIT)
    if not 1 <= limit <= MAX_LIMIT:
        tag = "lte" if limit > MAX_LIMIT else "gte"
        raise BadQuery(f"Key: 'Limit' Error:Field validation for 'Limit' failed on the '{tag}' tag")
    return limit


def _window(query: Query) -> Callable[[int], bool]:
    """Whether a time in ns lies between `min_ts` and `max_ts`, in seconds, both inclusive."""
    earliest = _whole(query, "min_ts", 0) * NANOS
    latest = (_whole(query, "max_ts", 10**11) + 1) * NANOS
    return lambda ts_ns: earliest <= ts_ns < latest


def _cursor_of(number: int) -> str:
    return base64.urlsafe_b64encode(f"n{number}".encode()).decode().rstrip("=")


def _read_cursor(query: Query) -> int | None:
    text = query.get("cursor", "")
    if not text:
        return None
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return None
    return int(plain[1:]) if plain[:1] == "n" and plain[1:].isdecimal() else None


def _newest_first(
    rows: Sequence[_Row], query: Query, number: Callable[[_Row], int]
) -> tuple[list[_Row], str]:
    """One page of rows kept oldest first, and the cursor of the next; new rows never shift a page."""
    limit, before = _limit(query), _read_cursor(query)
    page: list[_Row] = []
    for row in reversed(rows):
        if before is not None and number(row) >= before:
            continue
        if len(page) == limit:
            return page, _cursor_of(number(page[-1]))
        page.append(row)
    return page, ""


def _in_order(rows: Sequence[_Row], query: Query) -> tuple[list[_Row], str]:
    """One page of a list that only grows at its end."""
    limit, start = _limit(query), _read_cursor(query) or 0
    end = start + limit
    return list(rows[start:end]), (_cursor_of(end) if end < len(rows) else "")
