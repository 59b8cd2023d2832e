"""The exchange's side of Kalshi's wire: requests read, answers and stream frames written. Pure.

Two generations of the protocol come from the same books. Orders arrive as V2 (side bid or ask, fixed-point strings)
or on the older path (action, side, cents or dollars). Answers carry today's fixed-point fields and, beside them,
the integer fields that kalshi-python-sync 3.2.0 insists on. A field without meaning here (a category, a rule text)
is present and empty.

Written from the venue's published pages and from what its demo was seen to answer, never from our client.
Limits: unknown request fields are ignored, as the venue does; subaccounts other than 0 and order groups are refused
by name. Integer fields cut sub-cent prices and fractional counts, as such fields must.

Sources: docs.kalshi.com OpenAPI 3.26 and AsyncAPI 2.0.0; field lists of kalshi-python-sync 3.2.0 and
kalshi-typescript 3.30.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from holdfast.core.clock import NANOS, iso_utc
from holdfast.core.errors import BadInput
from holdfast.core.money import (
    ONE_DOLLAR_E4,
    MoneyE6,
    PriceE4,
    QtyE2,
    complement,
    format_price,
    format_qty,
    parse_price,
    parse_qty,
)
from holdfast.core.signals import Action, BookSide, Side, TimeInForce
from holdfast.venues.paper.accounts import FillRow, Holding, OrderRequest, OrderRow, SettlementRow
from holdfast.venues.paper.engine import Engine, Market, PublicTradeRow, Refusal
from holdfast.venues.paper.events import Levels, MarketSpec, MarketStatus
from holdfast.venues.paper.limits import COSTS, DEFAULT_COST, Tier
from holdfast.venues.paper.matching import BookChange, SelfTrade, StatusChange, TradePrint

PREFIX = "/trade-api/v2"
JSON = dict[str, Any]
_ENCODER = msgspec.json.Encoder()
_MILLION = 1_000_000
_CENT_E6 = 10_000

TIFS: Mapping[str, TimeInForce] = {
    "good_till_canceled": TimeInForce.GTC,
    "immediate_or_cancel": TimeInForce.IOC,
    "fill_or_kill": TimeInForce.FOK,
}
_TifName = Literal["good_till_canceled", "immediate_or_cancel", "fill_or_kill"]
_SelfTradeName = Literal["taker_at_cross", "maker"]

STATUS_FILTERS: Mapping[str, frozenset[MarketStatus]] = {
    "unopened": frozenset({MarketStatus.INITIALIZED}),
    "open": frozenset({MarketStatus.ACTIVE}),
    "paused": frozenset({MarketStatus.INACTIVE}),
    "closed": frozenset({MarketStatus.CLOSED, MarketStatus.DETERMINED}),
    "settled": frozenset({MarketStatus.FINALIZED}),
}
"""The words of the `status` filter of GET /markets and the states they mean."""


def encode(value: object) -> bytes:
    """*value* as compact JSON."""
    return _ENCODER.encode(value)


# Errors.


def error_body(refusal: Refusal) -> JSON:
    """The venue's nested error: code, message in words, and what else is known."""
    error = {"code": refusal.code, "message": refusal.code.replace("_", " ")}
    if refusal.details:
        error["details"] = refusal.details
    if refusal.service:
        error["service"] = refusal.service
    return {"error": error}


def bad_request(details: str) -> JSON:
    """The venue's flat error for a body it cannot decode."""
    return {"code": "bad_request", "message": "bad request", "details": details}


def bad_parameter(details: str) -> JSON:
    """The venue's bare error for a query it cannot accept."""
    return {"msg": f"Parameter validation failed: {details}"}


TOO_MANY_REQUESTS: JSON = {"error": "too many requests"}
"""The body of 429: a string where every other error has an object, and no Retry-After beside it."""


def authentication_error(details: str) -> JSON:
    """A signature that does not verify, or a key nobody has."""
    return {"error": {"code": "authentication_error", "message": "authentication_error", "details": details}}


# Requests.


class _OrderV2(msgspec.Struct):
    ticker: str
    side: Literal["bid", "ask"]
    count: str
    price: str
    time_in_force: _TifName
    self_trade_prevention_type: _SelfTradeName
    client_order_id: str = ""
    expiration_time: int | None = None
    post_only: bool | None = None
    reduce_only: bool | None = None
    cancel_order_on_pause: bool | None = None
    subaccount: int | None = None
    order_group_id: str | None = None
    exchange_index: int | None = None


class _OrderLegacy(msgspec.Struct):
    ticker: str
    side: Literal["yes", "no"]
    action: Literal["buy", "sell"]
    count: int | None = None
    count_fp: str | None = None
    type: Literal["limit"] | None = None
    client_order_id: str = ""
    yes_price: int | None = None
    no_price: int | None = None
    yes_price_dollars: str | None = None
    no_price_dollars: str | None = None
    time_in_force: _TifName | None = None
    expiration_ts: int | None = None
    post_only: bool | None = None
    reduce_only: bool | None = None
    buy_max_cost: int | None = None
    self_trade_prevention_type: _SelfTradeName | None = None
    cancel_order_on_pause: bool | None = None
    order_group_id: str | None = None
    subaccount: int | None = None


def read_order_v2(body: bytes) -> OrderRequest | Refusal | JSON:
    """The order in a V2 body, or why not: a `Refusal`, or the flat error of a body that cannot be decoded."""
    try:
        asked = msgspec.json.decode(body, type=_OrderV2)
    except msgspec.MsgspecError as error:
        return bad_request(str(error))
    absent = _absent(asked.subaccount, asked.order_group_id)
    if absent is not None:
        return absent
    try:
        price = parse_price(asked.price)
    except BadInput:
        return Refusal(status=400, code="invalid_price")
    try:
        count = parse_qty(asked.count)
    except BadInput as error:
        return _invalid(str(error))
    is_bid = asked.side == "bid"
    return OrderRequest(
        ticker=asked.ticker,
        side=BookSide.BID if is_bid else BookSide.ASK,
        named=Side.YES,
        action=Action.BUY if is_bid else Action.SELL,
        yes_price=price,
        qty=count,
        client_order_id=asked.client_order_id,
        tif=TIFS[asked.time_in_force],
        post_only=bool(asked.post_only),
        reduce_only=bool(asked.reduce_only),
        self_trade=SelfTrade(asked.self_trade_prevention_type),
        self_trade_named=True,
        cancel_on_pause=bool(asked.cancel_order_on_pause),
        expiration_ns=(asked.expiration_time or 0) * NANOS,
    )


def read_order_legacy(body: bytes) -> OrderRequest | Refusal | JSON:
    """The order in a body of the older path, or why not, as `read_order_v2`."""
    try:
        asked = msgspec.json.decode(body, type=_OrderLegacy)
    except msgspec.MsgspecError as error:
        return bad_request(str(error))
    absent = _absent(asked.subaccount, asked.order_group_id)
    if absent is not None:
        return absent
    prices = (asked.yes_price, asked.no_price, asked.yes_price_dollars, asked.no_price_dollars)
    if sum(price is not None for price in prices) != 1:
        return _invalid("exactly one of yes_price, no_price, yes_price_dollars, no_price_dollars is required")
    try:
        yes_price = _legacy_yes_price(asked)
    except BadInput:
        return Refusal(status=400, code="invalid_price")
    try:
        count = _legacy_count(asked)
    except BadInput as error:
        return _invalid(str(error))
    named, action = Side(asked.side), Action(asked.action)
    is_bid = (action is Action.BUY) == (named is Side.YES)
    tif = TIFS[asked.time_in_force] if asked.time_in_force else TimeInForce.GTC
    max_cost = None if asked.buy_max_cost is None else MoneyE6(asked.buy_max_cost * _CENT_E6)
    return OrderRequest(
        ticker=asked.ticker,
        side=BookSide.BID if is_bid else BookSide.ASK,
        named=named,
        action=action,
        yes_price=yes_price,
        qty=count,
        client_order_id=asked.client_order_id,
        tif=tif if max_cost is None else TimeInForce.FOK,
        post_only=bool(asked.post_only),
        reduce_only=bool(asked.reduce_only),
        self_trade=SelfTrade(asked.self_trade_prevention_type or "taker_at_cross"),
        self_trade_named=asked.self_trade_prevention_type is not None,
        cancel_on_pause=bool(asked.cancel_order_on_pause),
        expiration_ns=(asked.expiration_ts or 0) * NANOS,
        max_cost=max_cost,
    )


def _legacy_count(asked: _OrderLegacy) -> QtyE2:
    if asked.count_fp is not None:
        return parse_qty(asked.count_fp)
    if asked.count is None:
        raise BadInput("count is required")
    return QtyE2(asked.count * 100)


def _legacy_yes_price(asked: _OrderLegacy) -> PriceE4:
    """The YES price of the one price field that is given."""
    if asked.yes_price is not None:
        return PriceE4(asked.yes_price * 100)
    if asked.no_price is not None:
        return complement(PriceE4(asked.no_price * 100))
    if asked.yes_price_dollars is not None:
        return parse_price(asked.yes_price_dollars)
    return complement(parse_price(asked.no_price_dollars or ""))


def _absent(subaccount: int | None, order_group_id: str | None) -> Refusal | None:
    if subaccount:
        return _invalid(f"subaccount {subaccount} does not exist")
    if order_group_id:
        return Refusal(status=404, code="not_found", details="order groups do not exist here")
    return None


def _invalid(details: str) -> Refusal:
    return Refusal(status=HTTPStatus.BAD_REQUEST, code="invalid_order", details=details)


# Answers.


def money(amount: MoneyE6 | int) -> str:
    """Six places, as the venue writes amounts: "0.017500"."""
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(abs(amount), _MILLION)
    return f"{sign}{whole}.{rest:06d}"


def _dollars4(amount: int) -> str:
    """Four places, cut towards zero."""
    return money(amount)[:-2]


def _cents(amount: int) -> int:
    """Whole cents of an amount in 1e-6 dollar, cut towards zero."""
    return amount // _CENT_E6 if amount >= 0 else -(-amount // _CENT_E6)


def _price_cents(price: PriceE4) -> int:
    return price // 100


def created_v2(order: OrderRow, now_ns: int) -> JSON:
    """The answer to a V2 create; averages only where something filled."""
    answer: JSON = {
        "order_id": order.order_id,
        "fill_count": format_qty(order.filled),
        "remaining_count": format_qty(order.leaves),
        "ts_ms": now_ns // _MILLION,
    }
    if order.request.client_order_id:
        answer["client_order_id"] = order.request.client_order_id
    if order.filled:
        average = PriceE4(round_half_even(order.yes_notional, order.filled))
        fee = round_half_even((order.taker_fees + order.maker_fees) * 100, order.filled)
        answer["average_fill_price"] = format_price(average)
        answer["average_fee_paid"] = _dollars4(fee)
    return answer


def round_half_even(numerator: int, denominator: int) -> int:
    """The nearest integer of a quotient of non-negative integers, halves to even."""
    whole, rest = divmod(numerator, denominator)
    twice = 2 * rest
    return whole + (twice > denominator or (twice == denominator and whole % 2 == 1))


def canceled_v2(order: OrderRow, reduced_by: QtyE2, now_ns: int) -> JSON:
    """The answer to a V2 cancel."""
    answer: JSON = {
        "order_id": order.order_id,
        "reduced_by": format_qty(reduced_by),
        "ts_ms": now_ns // _MILLION,
    }
    if order.request.client_order_id:
        answer["client_order_id"] = order.request.client_order_id
    return answer


def canceled_legacy(order: OrderRow, reduced_by: QtyE2, user_id: str) -> JSON:
    """The answer to a cancel on the older path."""
    return {
        "order": order_json(order, user_id),
        "reduced_by": reduced_by // 100,
        "reduced_by_fp": format_qty(reduced_by),
    }


def _outcome(side: BookSide) -> Side:
    return Side.YES if side is BookSide.BID else Side.NO


def order_json(order: OrderRow, user_id: str) -> JSON:
    """One order, both generations of fields."""
    request = order.request
    yes, no = request.yes_price, complement(request.yes_price)
    answer: JSON = {
        "order_id": order.order_id,
        "user_id": user_id,
        "client_order_id": request.client_order_id,
        "ticker": request.ticker,
        "side": request.named.value,
        "action": request.action.value,
        "outcome_side": _outcome(request.side).value,
        "book_side": request.side.value,
        "type": "limit",
        "status": order.state.value,
        "yes_price": _price_cents(yes),
        "no_price": _price_cents(no),
        "yes_price_dollars": format_price(yes),
        "no_price_dollars": format_price(no),
        "fill_count": order.filled // 100,
        "remaining_count": order.leaves // 100,
        "initial_count": order.initial // 100,
        "fill_count_fp": format_qty(order.filled),
        "remaining_count_fp": format_qty(order.leaves),
        "initial_count_fp": format_qty(order.initial),
        "taker_fees": _cents(order.taker_fees),
        "maker_fees": _cents(order.maker_fees),
        "taker_fees_dollars": money(order.taker_fees),
        "maker_fees_dollars": money(order.maker_fees),
        "taker_fill_cost": _cents(order.taker_cost),
        "maker_fill_cost": _cents(order.maker_cost),
        "taker_fill_cost_dollars": money(order.taker_cost),
        "maker_fill_cost_dollars": money(order.maker_cost),
        "queue_position": 0,
        "created_time": iso_utc(order.created_ns),
        "last_update_time": iso_utc(order.updated_ns),
        "expiration_time": iso_utc(request.expiration_ns) if request.expiration_ns else None,
        "order_group_id": None,
        "cancel_order_on_pause": request.cancel_on_pause,
        "subaccount_number": 0,
        "exchange_index": 0,
    }
    if request.self_trade_named:
        answer["self_trade_prevention_type"] = request.self_trade.value
    return answer


def fill_json(fill: FillRow) -> JSON:
    """One of our executions; like the venue's, without the client order id."""
    request = fill.order.request
    yes, no = fill.yes_price, complement(fill.yes_price)
    return {
        "fill_id": fill.trade_id,
        "trade_id": fill.trade_id,
        "order_id": fill.order.order_id,
        "ticker": fill.ticker,
        "market_ticker": fill.ticker,
        "side": request.named.value,
        "action": request.action.value,
        "outcome_side": _outcome(request.side).value,
        "book_side": request.side.value,
        "count": fill.qty // 100,
        "count_fp": format_qty(fill.qty),
        "price": _price_cents(yes if request.named is Side.YES else no),
        "yes_price": _price_cents(yes),
        "no_price": _price_cents(no),
        "yes_price_fixed": format_price(yes),
        "no_price_fixed": format_price(no),
        "yes_price_dollars": format_price(yes),
        "no_price_dollars": format_price(no),
        "fee_cost": money(fill.fee),
        "is_taker": fill.is_taker,
        "created_time": iso_utc(fill.ts_ns),
        "ts": fill.ts_ns // NANOS,
        "subaccount_number": 0,
        "exchange_index": 0,
    }


def trade_json(row: PublicTradeRow) -> JSON:
    """One public trade."""
    trade = row.trade
    yes, no = trade.yes_price, complement(trade.yes_price)
    return {
        "trade_id": trade.trade_id,
        "ticker": trade.ticker,
        "price": _price_cents(yes),
        "count": trade.qty // 100,
        "count_fp": format_qty(trade.qty),
        "yes_price": _price_cents(yes),
        "no_price": _price_cents(no),
        "yes_price_dollars": format_price(yes),
        "no_price_dollars": format_price(no),
        "taker_side": trade.taker_side.value,
        "taker_outcome_side": trade.taker_side.value,
        "taker_book_side": _book_side(trade.taker_side),
        "is_block_trade": False,
        "created_time": iso_utc(trade.ts_ns),
    }


def _book_side(taker_side: Side) -> str:
    return BookSide.BID.value if taker_side is Side.YES else BookSide.ASK.value


def balance_json(available: MoneyE6, portfolio_value: MoneyE6, now_ns: int) -> JSON:
    """The balance: whole cents, cut, and dollars beside them."""
    return {
        "balance": _cents(available),
        "balance_dollars": _dollars4(available),
        "portfolio_value": _cents(portfolio_value),
        "updated_ts": now_ns // NANOS,
        "balance_breakdown": [{"exchange_index": 0, "balance": _dollars4(available)}],
    }


def position_json(held: Holding, resting_orders: int) -> JSON:
    """Our side of one market."""
    return {
        "ticker": held.ticker,
        "exchange_index": 0,
        "position": held.position // 100 if held.position >= 0 else -(-held.position // 100),
        "position_fp": format_qty(held.position),
        "total_traded": _cents(held.traded),
        "total_traded_dollars": money(held.traded),
        "market_exposure": _cents(held.cost),
        "market_exposure_dollars": money(held.cost),
        "realized_pnl": _cents(held.realized),
        "realized_pnl_dollars": money(held.realized),
        "resting_orders_count": resting_orders,
        "fees_paid": _cents(held.fees),
        "fees_paid_dollars": money(held.fees),
        "last_updated_ts": iso_utc(held.updated_ns),
    }


def event_position_json(event_ticker: str, held: Sequence[Holding]) -> JSON:
    """Our side of one event: the sum over its markets."""
    cost, exposure = sum(h.traded for h in held), sum(h.cost for h in held)
    realized, fees = sum(h.realized for h in held), sum(h.fees for h in held)
    shares = QtyE2(sum(h.volume for h in held))
    return {
        "event_ticker": event_ticker,
        "total_cost": _cents(cost),
        "total_cost_dollars": money(cost),
        "total_cost_shares": shares // 100,
        "total_cost_shares_fp": format_qty(shares),
        "event_exposure": _cents(exposure),
        "event_exposure_dollars": money(exposure),
        "realized_pnl": _cents(realized),
        "realized_pnl_dollars": money(realized),
        "fees_paid": _cents(fees),
        "fees_paid_dollars": money(fees),
    }


def settlement_json(row: SettlementRow) -> JSON:
    """What one market paid."""
    yes = QtyE2(max(row.position, 0))
    no = QtyE2(max(-row.position, 0))
    yes_cost, no_cost = (row.cost, 0) if yes else (0, row.cost)
    return {
        "ticker": row.ticker,
        "event_ticker": row.event_ticker,
        "exchange_index": 0,
        "market_result": row.result.value,
        "yes_count": yes // 100,
        "yes_count_fp": format_qty(yes),
        "yes_total_cost": _cents(yes_cost),
        "yes_total_cost_dollars": money(yes_cost),
        "no_count": no // 100,
        "no_count_fp": format_qty(no),
        "no_total_cost": _cents(no_cost),
        "no_total_cost_dollars": money(no_cost),
        "revenue": _cents(row.revenue),
        "settled_time": iso_utc(row.ts_ns),
        "fee_cost": money(row.fees),
        "value": 100 if row.result is Side.YES else 0,
    }


class _Touch(msgspec.Struct, frozen=True):
    bid: PriceE4
    bid_qty: QtyE2
    ask: PriceE4
    ask_qty: QtyE2


def _touch(market: Market) -> _Touch:
    """Best prices as the venue writes them: an empty side is 0 or 1 dollar with nothing behind it."""
    bid = market.book.best(BookSide.BID) or (PriceE4(0), QtyE2(0))
    ask = market.book.best(BookSide.ASK) or (ONE_DOLLAR_E4, QtyE2(0))
    return _Touch(*bid, *ask)


def market_json(market: Market, open_interest: QtyE2) -> JSON:
    """One market, both generations of fields. Open interest counts our account alone: the feed shows none."""
    spec, touch = market.spec, _touch(market)
    bid, ask = touch.bid, touch.ask
    last = market.last_price if market.last_price is not None else PriceE4(0)
    result = market.book.result
    close = iso_utc(spec.close_ns)
    answer: JSON = {
        "ticker": spec.ticker,
        "event_ticker": spec.event_ticker,
        "market_type": "binary",
        "title": spec.title,
        "subtitle": spec.yes_title,
        "yes_sub_title": spec.yes_title,
        "no_sub_title": spec.yes_title,
        "created_time": iso_utc(spec.open_ns),
        "updated_time": iso_utc(market.updated_ns),
        "open_time": iso_utc(spec.open_ns),
        "close_time": close,
        "expected_expiration_time": close,
        "expiration_time": close,
        "latest_expiration_time": close,
        "settlement_timer_seconds": 0,
        "status": market.status.value,
        "response_price_units": "usd_cent",
        "yes_bid": _price_cents(bid),
        "yes_bid_dollars": format_price(bid),
        "yes_bid_size_fp": format_qty(touch.bid_qty),
        "yes_ask": _price_cents(ask),
        "yes_ask_dollars": format_price(ask),
        "yes_ask_size_fp": format_qty(touch.ask_qty),
        "no_bid": _price_cents(complement(ask)),
        "no_bid_dollars": format_price(complement(ask)),
        "no_ask": _price_cents(complement(bid)),
        "no_ask_dollars": format_price(complement(bid)),
        "last_price": _price_cents(last),
        "last_price_dollars": format_price(last),
        "volume": market.volume // 100,
        "volume_fp": format_qty(market.volume),
        "volume_24h": market.volume // 100,
        "volume_24h_fp": format_qty(market.volume),
        "result": result.value if result is not None else "",
        "can_close_early": True,
        "open_interest": open_interest // 100,
        "open_interest_fp": format_qty(open_interest),
        "notional_value": 100,
        "notional_value_dollars": "1.0000",
        "previous_yes_bid": 0,
        "previous_yes_bid_dollars": "0.0000",
        "previous_yes_ask": 0,
        "previous_yes_ask_dollars": "0.0000",
        "previous_price": 0,
        "previous_price_dollars": "0.0000",
        "liquidity": 0,
        "liquidity_dollars": "0.0000",
        "expiration_value": result.value if result is not None else "",
        "category": "",
        "risk_limit_cents": 0,
        "tick_size": max(spec.price_ranges[0].step // 100, 1),
        "rules_primary": "",
        "rules_secondary": "",
        "price_level_structure": price_level_structure(spec),
        "price_ranges": [
            {
                "start": format_price(stretch.start),
                "end": format_price(stretch.end),
                "step": format_price(stretch.step),
            }
            for stretch in spec.price_ranges
        ],
        "fractional_trading_enabled": spec.qty_step < 100,
        "is_provisional": False,
        "exchange_index": 0,
    }
    if result is not None:
        answer["settlement_value"] = 100 if result is Side.YES else 0
        answer["settlement_value_dollars"] = "1.0000" if result is Side.YES else "0.0000"
    if market.settled_ns:
        answer["settlement_ts"] = iso_utc(market.settled_ns)
    return answer


def price_level_structure(spec: MarketSpec) -> str:
    """The venue's name for the market's tick grid, "" for one it has no name for."""
    steps = tuple(int(stretch.step) for stretch in spec.price_ranges)
    named: dict[tuple[int, ...], str] = {
        (100,): "linear_cent",
        (10,): "deci_cent",
        (10, 100, 10): "tapered_deci_cent",
    }
    return named.get(steps, "")


def _pairs(levels: Levels, depth: int) -> list[list[str]]:
    """Prices and counts from worst to best, the best *depth* of them; 0 for all."""
    best_first = levels[:depth] if depth else levels
    return [[format_price(price), format_qty(qty)] for price, qty in reversed(best_first)]


def orderbook_json(market: Market, depth: int) -> JSON:
    """The book: bids of both outcomes, worst first as the venue lists them."""
    yes, no = market.book.public_levels()
    fixed = {"yes_dollars": _pairs(yes, depth), "no_dollars": _pairs(no, depth)}
    return {
        "orderbook_fp": fixed,
        "orderbook": {
            "yes": [[_price_cents(p), q // 100] for p, q in reversed(yes[:depth] if depth else yes)],
            "no": [[_price_cents(p), q // 100] for p, q in reversed(no[:depth] if depth else no)],
            **fixed,
        },
    }


def event_json(markets: Sequence[Market]) -> JSON:
    """One event, from its markets (at least one)."""
    spec = markets[0].spec
    return {
        "event_ticker": spec.event_ticker,
        "series_ticker": spec.series_ticker,
        "title": spec.title,
        "sub_title": "",
        "collateral_return_type": "",
        "mutually_exclusive": spec.mutually_exclusive,
        "category": "",
        "available_on_brokers": False,
        "product_metadata": {},
        "settlement_sources": [],
        "strike_date": iso_utc(spec.close_ns),
        "exchange_index": 0,
    }


def series_json(spec: MarketSpec) -> JSON:
    """One series, from one of its markets."""
    multiplier, rest = divmod(spec.taker_fee_ppm, 70_000)
    return {
        "ticker": spec.series_ticker,
        "frequency": "custom",
        "title": spec.series_ticker,
        "category": "",
        "categories": [],
        "tags": [],
        "settlement_sources": [],
        "contract_url": "",
        "contract_terms_url": "",
        "product_metadata": {},
        "fee_type": spec.fee_type.value,
        "fee_multiplier": multiplier if not rest else spec.taker_fee_ppm / 70_000,
        "additional_prohibitions": [],
        "exchange_index": 0,
    }


def limits_json(tier: Tier) -> JSON:
    """The account's tier and buckets."""
    return {
        "usage_tier": tier.name,
        "grants": [],
        "read": {"refill_rate": tier.read_per_sec, "bucket_capacity": tier.read_capacity},
        "write": {"refill_rate": tier.write_per_sec, "bucket_capacity": tier.write_capacity},
    }


def costs_json() -> JSON:
    """Every endpoint whose cost is not the default."""
    return {
        "default_cost": DEFAULT_COST,
        "endpoint_costs": [
            {"method": method, "path": path, "cost": cost} for (method, path), cost in COSTS.items()
        ],
    }


def schedule_json(start_ns: int) -> JSON:
    """Always open, from the market's beginning."""
    day = [{"open_time": "00:00", "close_time": "00:00"}]
    names = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    week: JSON = dict.fromkeys(names, day)
    week["start_time"] = iso_utc(start_ns)
    week["end_time"] = iso_utc(start_ns + 366 * 86_400 * NANOS)
    return {"schedule": {"standard_hours": [week], "maintenance_windows": []}}


def cutoff_json(start_ns: int) -> JSON:
    """Nothing has moved to the history: every cutoff is the beginning of market time."""
    start = iso_utc(start_ns)
    names = (
        "market_settled_ts",
        "trades_created_ts",
        "orders_updated_ts",
        "market_positions_last_updated_ts",
    )
    return dict.fromkeys(names, start)


# The stream: what stands in `msg`.


def snapshot_msg(market: Market, market_id: str) -> JSON:
    """A whole book; an empty side is left out."""
    yes, no = market.book.public_levels()
    message: JSON = {"market_ticker": market.spec.ticker, "market_id": market_id}
    if yes:
        message["yes_dollars_fp"] = _pairs(yes, 0)
    if no:
        message["no_dollars_fp"] = _pairs(no, 0)
    return message


def delta_msg(change: BookChange, market_id: str, client_order_id: str) -> JSON:
    """A change of one level, not a level; with our client order id where we caused it."""
    message: JSON = {
        "market_ticker": change.ticker,
        "market_id": market_id,
        "price_dollars": format_price(change.price),
        "delta_fp": format_qty(change.delta),
        "side": change.side.value,
        "ts": iso_utc(change.ts_ns),
        "ts_ms": change.ts_ns // _MILLION,
    }
    if client_order_id:
        message["client_order_id"] = client_order_id
    return message


def trade_msg(trade: TradePrint) -> JSON:
    """A public trade."""
    return {
        "trade_id": trade.trade_id,
        "market_ticker": trade.ticker,
        "yes_price_dollars": format_price(trade.yes_price),
        "no_price_dollars": format_price(complement(trade.yes_price)),
        "count_fp": format_qty(trade.qty),
        "taker_side": trade.taker_side.value,
        "taker_outcome_side": trade.taker_side.value,
        "taker_book_side": _book_side(trade.taker_side),
        "is_block_trade": False,
        "ts": trade.ts_ns // NANOS,
        "ts_ms": trade.ts_ns // _MILLION,
    }


def ticker_msg(market: Market, market_id: str, open_interest: QtyE2, now_ns: int) -> JSON:
    """The touch and the totals of one market."""
    touch = _touch(market)
    last = market.last_price if market.last_price is not None else PriceE4(0)
    return {
        "market_id": market_id,
        "market_ticker": market.spec.ticker,
        "price_dollars": format_price(last),
        "yes_bid_dollars": format_price(touch.bid),
        "yes_ask_dollars": format_price(touch.ask),
        "yes_bid_size_fp": format_qty(touch.bid_qty),
        "yes_ask_size_fp": format_qty(touch.ask_qty),
        "last_trade_size_fp": format_qty(market.last_qty),
        "volume_fp": format_qty(market.volume),
        "open_interest_fp": format_qty(open_interest),
        "dollar_volume": market.volume // 100,
        "dollar_open_interest": open_interest // 100,
        "ts": now_ns // NANOS,
        "ts_ms": now_ns // _MILLION,
        "time": iso_utc(now_ns),
    }


def fill_msg(fill: FillRow) -> JSON:
    """One of our executions, with our position after it."""
    request = fill.order.request
    message: JSON = {
        "trade_id": fill.trade_id,
        "order_id": fill.order.order_id,
        "market_ticker": fill.ticker,
        "exchange_index": 0,
        "is_taker": fill.is_taker,
        "side": request.named.value,
        "action": request.action.value,
        "outcome_side": _outcome(request.side).value,
        "book_side": request.side.value,
        "purchased_side": _outcome(request.side).value,
        "yes_price_dollars": format_price(fill.yes_price),
        "count_fp": format_qty(fill.qty),
        "fee_cost": money(fill.fee),
        "post_position_fp": format_qty(fill.position),
        "ts": fill.ts_ns // NANOS,
        "ts_ms": fill.ts_ns // _MILLION,
        "subaccount": 0,
    }
    if request.client_order_id:
        message["client_order_id"] = request.client_order_id
    return message


def user_order_msg(order: OrderRow, user_id: str) -> JSON:
    """One of our orders as it stands."""
    request = order.request
    message: JSON = {
        "order_id": order.order_id,
        "user_id": user_id,
        "ticker": request.ticker,
        "exchange_index": 0,
        "status": order.state.value,
        "side": request.named.value,
        "is_yes": request.named is Side.YES,
        "outcome_side": _outcome(request.side).value,
        "book_side": request.side.value,
        "yes_price_dollars": format_price(request.yes_price),
        "fill_count_fp": format_qty(order.filled),
        "remaining_count_fp": format_qty(order.leaves),
        "initial_count_fp": format_qty(order.initial),
        "taker_fill_cost_dollars": money(order.taker_cost),
        "maker_fill_cost_dollars": money(order.maker_cost),
        "taker_fees_dollars": money(order.taker_fees),
        "maker_fees_dollars": money(order.maker_fees),
        "client_order_id": request.client_order_id,
        "created_time": iso_utc(order.created_ns),
        "created_ts_ms": order.created_ns // _MILLION,
        "last_update_time": iso_utc(order.updated_ns),
        "last_updated_ts_ms": order.updated_ns // _MILLION,
        "subaccount_number": 0,
    }
    if request.expiration_ns:
        message["expiration_time"] = iso_utc(request.expiration_ns)
        message["expiration_ts_ms"] = request.expiration_ns // _MILLION
    return message


def position_msg(held: Holding, user_id: str) -> JSON:
    """Our side of one market as it stands."""
    return {
        "user_id": user_id,
        "market_ticker": held.ticker,
        "position_fp": format_qty(held.position),
        "position_cost_dollars": money(held.cost),
        "realized_pnl_dollars": money(held.realized),
        "fees_paid_dollars": money(held.fees),
        "position_fee_cost_dollars": money(held.fees),
        "volume_fp": format_qty(held.volume),
        "subaccount": 0,
    }


def lifecycle_msg(change: StatusChange, market: Market) -> JSON:
    """What the venue says when a market changes state."""
    secs = change.ts_ns // NANOS
    told: JSON
    match change.status:
        case MarketStatus.INITIALIZED:
            told = {
                "event_type": "created",
                "open_ts": market.spec.open_ns // NANOS,
                "close_ts": market.spec.close_ns // NANOS,
            }
        case MarketStatus.ACTIVE:
            told = {"event_type": "activated", "is_deactivated": False}
        case MarketStatus.INACTIVE:
            told = {"event_type": "deactivated", "is_deactivated": True}
        case MarketStatus.CLOSED:
            told = {"event_type": "close_date_updated", "close_ts": secs}
        case MarketStatus.DETERMINED:
            told = {
                "event_type": "determined",
                "determination_ts": secs,
                "result": change.result.value if change.result is not None else "",
                "settlement_value": {Side.YES: "1.0000", Side.NO: "0.0000", None: ""}[change.result],
            }
        case MarketStatus.FINALIZED:
            told = {"event_type": "settled", "settled_ts": secs}
    return {"market_ticker": change.ticker, **told}


def frame(kind: str, sid: int, seq: int | None, message: bytes) -> bytes:
    """One stream frame around an encoded `msg`."""
    if seq is None:
        return b'{"type":"%b","sid":%d,"msg":%b}' % (kind.encode(), sid, message)
    return b'{"type":"%b","sid":%d,"seq":%d,"msg":%b}' % (kind.encode(), sid, seq, message)


def open_interest(engine: Engine, ticker: str) -> QtyE2:
    """What is known of a market's open interest: our own position."""
    held = engine.account.holdings.get(ticker)
    return QtyE2(abs(held.position)) if held is not None else QtyE2(0)


def tickers_of(text: str) -> Iterable[str]:
    """The tickers of a comma-separated query value."""
    return [part for part in text.split(",") if part]
