"""The exchange without its sockets: markets, one account, and what every request and market event leads to.

Pure but for its own state: no I/O, no clock (market time is an argument), no randomness beyond ids derived from the
seed. Equal feeds and equal requests at equal market times lead to equal answers, ids included. Whoever drives it
takes what happened from `drain()` after each call, in order.

An order is refused before it touches the book: unknown market, market not trading, price, count, expiration,
client order id taken (by the dedup profile), collateral. What passes goes to `matching.MarketBook`.

Limits: one account. A market settles only by its feed's DETERMINED and FINALIZED events; without a result
positions stay open. Orders are never moved to the venue's history.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from holdfast.core.errors import BadInput
from holdfast.core.fees import BalancePrecision, FeeType, KalshiFees, OrderFees
from holdfast.core.money import ONE_DOLLAR_E4, MoneyE6, PriceE4, QtyE2
from holdfast.core.signals import Side, TimeInForce
from holdfast.execution.venue import DedupProfile
from holdfast.venues.paper import matching
from holdfast.venues.paper.accounts import Account, FillRow, Holding, OrderRequest, OrderRow
from holdfast.venues.paper.events import Feed, FeedKind, Lifecycle, MarketEvent, MarketSpec, MarketStatus
from holdfast.venues.paper.matching import SHOWN_WINDOW_NS, MarketBook, RejectCode

DEFAULT_CASH = MoneyE6(10_000_000_000)
"""Ten thousand dollars."""
LATEST_NS = 253_402_300_799 * 1_000_000_000
"""The last second of the year 9999, UTC ns: the last date that can be answered."""

_TAKER_RATE_PPM = 70_000


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The exchange said no.

    Attributes:
        status: HTTP status.
        code: Kalshi's word.
        details: What about it, or "".
        service: Which of the venue's services says so; "" leaves it out.
    """

    status: int
    code: str
    details: str = ""
    service: str = "exchange"


class BookMoved(msgspec.Struct, frozen=True):
    """The public size at one price moved; with the order of ours that caused it, where one did."""

    change: matching.BookChange
    client_order_id: str


class OrderMoved(msgspec.Struct, frozen=True):
    """One of our orders was created or updated; the row as it stood then is *shown*."""

    order: OrderRow
    ts_ns: int


class Filled(msgspec.Struct, frozen=True):
    """One of our executions."""

    fill: FillRow


class PositionMoved(msgspec.Struct, frozen=True):
    """Our side of one market changed."""

    holding: Holding
    ts_ns: int


Happening = (
    BookMoved
    | OrderMoved
    | Filled
    | PositionMoved
    | matching.BookReset
    | matching.TradePrint
    | matching.StatusChange
)


class Market:
    """One market: its book and what was seen of it.

    Attributes:
        volume: Contracts traded in public since the feed began, ours included.
        settled_ns: When it was finalized, 0 before.
    """

    __slots__ = ("book", "fees", "last_price", "last_qty", "settled_ns", "spec", "updated_ns", "volume")

    def __init__(self, spec: MarketSpec, kind: FeedKind) -> None:
        multiplier, rest = divmod(spec.taker_fee_ppm * 10_000, _TAKER_RATE_PPM)
        if rest:
            raise BadInput(
                f"market {spec.ticker!r}: taker fee {spec.taker_fee_ppm} ppm is no multiple of 0.07"
            )
        self.spec = spec
        self.book = MarketBook(spec, kind)
        self.fees = KalshiFees(FeeType(spec.fee_type.value), multiplier)
        self.volume = QtyE2(0)
        self.last_price: PriceE4 | None = None
        self.last_qty = QtyE2(0)
        self.settled_ns = 0
        self.updated_ns = 0

    @property
    def status(self) -> MarketStatus:
        """Where the market stands."""
        return self.book.status


class PublicTradeRow(NamedTuple):
    """A public trade with its number in the exchange, 1, 2, 3 ... over all markets."""

    number: int
    trade: matching.TradePrint


class Books(NamedTuple):
    """What the exchange believes: for a comparison with what a client believes.

    Attributes:
        cash: Before resting orders, 1e-6 dollar.
        available: The balance that clients are told.
        positions: Signed YES by ticker, without flat ones.
        open_orders: Those that may still execute, oldest first.
        orders: Every order ever accepted, oldest first.
        fills: Every execution, oldest first.
    """

    cash: MoneyE6
    available: MoneyE6
    positions: Mapping[str, QtyE2]
    open_orders: tuple[OrderRow, ...]
    orders: tuple[OrderRow, ...]
    fills: tuple[FillRow, ...]


class Engine:
    """All markets of one feed and the account that trades on them.

    Args:
        feed: Asked for its markets and kind; its events are handed in with `apply`.
        seed: Of the ids.
        dedup: Which orders a repeated client order id is refused against.
        cash: Opening balance.
        precision: Of the account's balance.

    Attributes:
        told: Called with each order request, each cancel (the order id) and each step of time (UTC ns) before it
            takes effect; whoever wants to remember them sets it.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        seed: int = 0,
        dedup: DedupProfile = DedupProfile.OPEN_ONLY,
        cash: MoneyE6 = DEFAULT_CASH,
        precision: BalancePrecision = BalancePrecision.CENT,
    ) -> None:
        self.told: Callable[[OrderRequest | str | int], None] | None = None
        self.markets = {spec.ticker: Market(spec, feed.kind) for spec in feed.markets}
        self.dedup = dedup
        self.account = Account(self._uuid(seed, "user"), cash, precision)
        self.now_ns = feed.start_ns
        self.trades: list[PublicTradeRow] = []
        self._seed = seed
        self._orders = 0
        self._account_name = self.account.user_id
        self._happened: list[Happening] = []
        # Markets in which time alone may still change something, and until when at least.
        self._stirring: dict[str, int] = {}

    @staticmethod
    def _uuid(seed: int, name: str) -> str:
        digest = hashlib.sha256(f"holdfast exchange {seed} {name}".encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))

    def market_id(self, ticker: str) -> str:
        """The market's uuid on the stream."""
        return self._uuid(self._seed, f"market {ticker}")

    def drain(self) -> list[Happening]:
        """What happened since the last call, in order."""
        happened, self._happened = self._happened, []
        return happened

    def books(self) -> Books:
        """What the exchange believes now."""
        account = self.account
        return Books(
            cash=account.cash,
            available=account.available,
            positions={h.ticker: h.position for h in account.holdings.values() if h.position},
            open_orders=tuple(account.open_orders()),
            orders=tuple(account.orders.values()),
            fills=tuple(account.fills),
        )

    # Market time.

    def apply(self, event: MarketEvent) -> None:
        """Let one event of the feed happen.

        Raises:
            BadInput: The feed is damaged.
        """
        self.now_ns = max(self.now_ns, event.ts_ns)
        market = self.markets[event.ticker]
        self._stirring[event.ticker] = event.ts_ns + SHOWN_WINDOW_NS
        pausing = isinstance(event, Lifecycle) and event.status is MarketStatus.INACTIVE
        self._take_in(market, market.book.apply(event))
        if pausing:
            for order in self.account.open_orders(event.ticker):
                if order.request.cancel_on_pause:
                    self._take_in(market, market.book.cancel(order.order_id, event.ts_ns))
        if isinstance(event, Lifecycle) and event.status is MarketStatus.FINALIZED:
            self._settle(market, event)

    def advance(self, now_ns: int) -> None:
        """Let market time pass: orders expire, grown-old prints are withdrawn."""
        if self.told is not None:
            self.told(now_ns)
        if now_ns <= self.now_ns:
            return
        self.now_ns = now_ns
        for ticker, until_ns in list(self._stirring.items()):
            market = self.markets[ticker]
            self._take_in(market, market.book.advance(now_ns))
            if now_ns > until_ns and not self.account.open_orders(ticker):
                del self._stirring[ticker]

    def _settle(self, market: Market, event: Lifecycle) -> None:
        market.settled_ns = event.ts_ns
        result = event.result or market.book.result
        if result is None:
            return
        row = self.account.settle(market.spec.ticker, market.spec.event_ticker, result, event.ts_ns)
        if row is not None:
            self._happened.append(PositionMoved(self.account.holding(market.spec.ticker), event.ts_ns))

    # Requests.

    def place(self, request: OrderRequest) -> OrderRow | Refusal:
        """Accept or refuse one order; an accepted one has already traded what it could."""
        if self.told is not None:
            self.told(request)
        market = self.markets.get(request.ticker)
        if market is None:
            return Refusal(status=404, code="market_not_found")
        refusal = self._check(market, request)
        if refusal is not None:
            return refusal
        working = request.qty
        if request.reduce_only:
            closable = -self.account.holding(request.ticker).position * request.side.sign
            working = QtyE2(min(request.qty, max(closable, 0)))
            if not working:
                return Refusal(status=400, code="invalid_order", details="reduce only would not reduce")
        order = self._order(market, request)
        if working < request.qty:
            self.account.release(order, QtyE2(request.qty - working), self.now_ns)
        if (lacking := self.account.shortfall(order, market.fees)) > 0:
            del lacking
            return Refusal(status=400, code="insufficient_balance")
        return self._work(market, order, working)

    def _check(self, market: Market, request: OrderRequest) -> Refusal | None:
        """Everything that is wrong with the request whatever the book holds."""
        if not market.book.is_open:
            early = market.status in {MarketStatus.INITIALIZED, MarketStatus.INACTIVE}
            return Refusal(
                status=400,
                code="market_inactive" if early else "market_closed",
                details=f"market status is {market.status.value}",
            )
        if not market.spec.is_price(request.yes_price):
            return Refusal(status=400, code="invalid_price")
        wrong = self._wrong(market, request)
        if wrong:
            return Refusal(status=400, code="invalid_order", details=wrong)
        taken = (
            request.client_order_id
            and self.dedup is not DedupProfile.NONE
            and self.account.has_client_id(
                request.client_order_id, open_only=self.dedup is DedupProfile.OPEN_ONLY
            )
        )
        return Refusal(status=409, code="order_already_exists") if taken else None

    def _wrong(self, market: Market, request: OrderRequest) -> str:
        """What makes it an invalid order, or ""."""
        immediate = request.tif is not TimeInForce.GTC
        faults = (
            (request.qty <= 0, "count must be positive"),
            (request.qty % market.spec.qty_step != 0, "count is not a multiple of the market's step"),
            (request.expiration_ns and immediate, "expiration_time needs good_till_canceled"),
            (
                request.expiration_ns and request.expiration_ns <= self.now_ns,
                "expiration_time is in the past",
            ),
            (request.expiration_ns > LATEST_NS, "expiration_time is no date before the year 10000"),
            (request.reduce_only and not immediate, "reduce_only needs an immediate time in force"),
            (request.post_only and immediate, "post_only needs good_till_canceled"),
            (
                request.max_cost is not None and self._cost(request) > request.max_cost,
                "buy_max_cost would be exceeded",
            ),
        )
        return next((what for is_so, what in faults if is_so), "")

    @staticmethod
    def _cost(request: OrderRequest) -> int:
        price = request.yes_price if request.named is Side.YES else ONE_DOLLAR_E4 - request.yes_price
        return request.qty * price

    def _order(self, market: Market, request: OrderRequest) -> OrderRow:
        number = self._orders + 1
        return OrderRow(
            number,
            self._uuid(self._seed, f"order {number}"),
            request,
            OrderFees(market.fees, self.account.precision),
            self.now_ns,
        )

    def _work(self, market: Market, order: OrderRow, working: QtyE2) -> OrderRow | Refusal:
        request = order.request
        self._orders += 1
        self.account.admit(order)
        self._stirring.setdefault(request.ticker, self.now_ns)
        events = market.book.place(
            matching.NewOrder(
                order_id=order.order_id,
                account=self._account_name,
                side=request.side,
                price=request.yes_price,
                qty=working,
                tif=request.tif,
                post_only=request.post_only,
                self_trade=request.self_trade,
                expiration_ns=request.expiration_ns,
            ),
            self.now_ns,
        )
        refusal = _refused(order, events)
        if refusal is not None:
            self.account.forget(order)
            self._take_in(market, [e for e in events if getattr(e, "order_id", "") != order.order_id])
            return refusal
        self._take_in(market, events, order)
        return order

    def cancel(self, order_id: str) -> tuple[OrderRow, QtyE2] | Refusal:
        """Take an open order off the book; returns it and what was released."""
        if self.told is not None:
            self.told(order_id)
        order = self.account.orders.get(order_id)
        if order is None or not order.is_open:
            return Refusal(status=404, code="not_found")
        market = self.markets[order.request.ticker]
        before = order.canceled
        self._take_in(market, market.book.cancel(order_id, self.now_ns), order)
        return order, QtyE2(order.canceled - before)

    # What the book says.

    def _take_in(
        self, market: Market, events: Iterable[matching.BookEvent], cause: OrderRow | None = None
    ) -> None:
        """Book what happened and note it for the streams: fills, then orders as they stand, then the book."""
        touched: dict[str, OrderRow] = {} if cause is None else {cause.order_id: cause}
        shown: list[Happening] = []
        for happened in events:
            event = happened
            if isinstance(event, matching.BookChange):
                shown.append(BookMoved(event, "" if cause is None else cause.request.client_order_id))
            elif isinstance(event, matching.Fill):
                self._fill(market, event, touched)
            elif isinstance(event, matching.Canceled | matching.Expired):
                order = self.account.orders[event.order_id]
                self.account.release(order, event.qty, event.ts_ns)
                touched[order.order_id] = order
            elif isinstance(event, matching.TradePrint):
                if event.trade_id.startswith(f"{market.spec.ticker}:"):
                    event = msgspec.structs.replace(event, trade_id=self._trade_id(event.trade_id))
                self._trade(market, event)
                shown.append(event)
            elif isinstance(event, matching.BookReset | matching.StatusChange):
                shown.append(event)
        market.updated_ns = self.now_ns if touched or shown else market.updated_ns
        self._happened.extend(OrderMoved(order, self.now_ns) for order in touched.values())
        self._happened.extend(shown)

    def _fill(self, market: Market, event: matching.Fill, touched: dict[str, OrderRow]) -> None:
        order = self.account.orders[event.order_id]
        row = self.account.fill(
            order,
            self._trade_id(f"{market.spec.ticker}:{event.trade_no}"),
            event.price,
            event.qty,
            is_taker=event.is_taker,
            now_ns=event.ts_ns,
        )
        touched[order.order_id] = order
        self._happened.append(Filled(row))
        self._happened.append(PositionMoved(self.account.holding(row.ticker), event.ts_ns))

    def _trade(self, market: Market, event: matching.TradePrint) -> None:
        market.volume = QtyE2(market.volume + event.qty)
        market.last_price = event.yes_price
        market.last_qty = event.qty
        self.trades.append(PublicTradeRow(len(self.trades) + 1, event))

    def _trade_id(self, name: str) -> str:
        """Our trades carry one id, on the public tape and on the fill."""
        return self._uuid(self._seed, f"trade {name}")


def _refused(order: OrderRow, events: Iterable[matching.BookEvent]) -> Refusal | None:
    """Whether the book refused *order*; a killed fill-or-kill order was never accepted either."""
    for event in events:
        if isinstance(event, matching.Rejected) and event.order_id == order.order_id:
            if event.code is RejectCode.POST_ONLY_WOULD_CROSS:
                return Refusal(status=400, code="invalid_order", details="post only cross", service="")
            return Refusal(status=400, code="invalid_order", details=event.code.value)
        if (
            isinstance(event, matching.Canceled)
            and event.order_id == order.order_id
            and event.reason is matching.CancelReason.FOK_UNFILLED
        ):
            return Refusal(status=409, code="fill_or_kill_insufficient_resting_volume")
    return None
