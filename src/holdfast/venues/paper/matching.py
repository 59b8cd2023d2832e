"""Who trades with what: our accounts' orders against a recorded or seeded market, never luckier than it was.

One `MarketBook` per market. It is pure: integers only, no clock (every call carries market time), no I/O, no
randomness; equal calls give equal answers. Inside, everything stands on the YES leg: a NO bid at q is an ask at
1 - q. Every method returns what happened, in order, as `BookEvent` values.

Taking. An order takes the best price first, at its limit or better, and pays the level's price: external size
before orders of other accounts at the same price, at most what is on offer (`liquidity.py` says what that is, and
how what we took stays taken). GTC rests what is left, IOC cancels it, FOK takes all or nothing; post-only is
rejected where it would take. An order that meets a resting order of its own account there follows its
self-trade prevention: TAKER_AT_CROSS cancels what is left of the arriving order, MAKER cancels the resting one.

Resting. An order joins behind everything displayed at its price; orders of our accounts keep their own order in
time. With recorded depth it fills in three ways, always at its own price:

* a print *at* its price, whose taker came from the other side, eats the external queue ahead first and then
  our orders in turn; together they get what the print leaves;
* such a print strictly *through* its price fills it whatever the queue, best price first, all of them together
  at most the size of the print;
* external size that arrives at or through its price (a delta or snapshot) trades with it up to the size on
  offer there, which then counts as taken; a recording crossed in itself for a moment serves its own
  earlier ranks first.

A level that shrinks is taken to shrink behind us: ahead = min(ahead, size on offer). A trade arrives twice, as
a shrinking level and as a print, in either order; what the shrinking took off the queue is credited against
prints of the next `PRINT_LAG_NS`, so that one trade never moves us forward twice; and a print announced by a
level change from before the order came is not its trade.

Prints only. A resting order fills only by a later print strictly through its price, of either taker, at most the
print's size. An order that takes gets no future print (that would be lookahead for IOC): it takes at the price
of the latest print whose taker was on its own side, at its limit or better, at most the size printed there
during the last `window_ns`, each contract once, and nothing once a print on the other side disproves the price.
The public book shows exactly this executable size. Limit: a tape row that sums a second under its worst price
overstates the size at that price.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from typing import Final, Self

from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, QtyE2, complement
from holdfast.core.signals import BookSide, Side, TimeInForce
from holdfast.venues.paper.events import (
    Delta,
    FeedKind,
    Levels,
    Lifecycle,
    MarketEvent,
    MarketSpec,
    MarketStatus,
    Print,
    Snapshot,
)
from holdfast.venues.paper.liquidity import Depth, Liquidity, Prints, is_better
from holdfast.venues.paper.outcomes import (
    BookChange,
    BookEvent,
    BookReset,
    Canceled,
    CancelReason,
    Expired,
    Fill,
    NewOrder,
    RejectCode,
    Rejected,
    Rested,
    SelfTrade,
    StatusChange,
    TradePrint,
)

__all__ = [
    "PRINT_LAG_NS",
    "SHOWN_WINDOW_NS",
    "BookChange",
    "BookEvent",
    "BookReset",
    "CancelReason",
    "Canceled",
    "Expired",
    "Fill",
    "MarketBook",
    "NewOrder",
    "RejectCode",
    "Rejected",
    "Rested",
    "RestingOrder",
    "SelfTrade",
    "StatusChange",
    "TradePrint",
    "wire_side",
    "yes_place",
]

PRINT_LAG_NS: Final = 2_000_000_000
"""A recorded print follows its level change within this (measured on the NBA recordings: 99.9 % within 1 s)."""

SHOWN_WINDOW_NS: Final = 10_000_000_000
"""Default of `window_ns`: on print tapes, how long a print proves size to have been on offer."""

_NEVER: Final = 1 << 63


class RestingOrder:
    """One of our orders in the book; read it, do not change it.

    Attributes:
        leaves: Still open.
        ahead: External contracts that trade before it at its price.
    """

    __slots__ = (
        "account",
        "ahead",
        "credit",
        "credit_ns",
        "expiration_ns",
        "key",
        "leaves",
        "order_id",
        "price",
        "shrink_no",
        "side",
    )

    def __init__(self, order: NewOrder, leaves: int, ahead: int, rank: int, shrink_no: int) -> None:
        self.order_id = order.order_id
        self.account = order.account
        self.side = order.side
        self.price = order.price
        self.expiration_ns = order.expiration_ns
        self.leaves = leaves
        self.ahead = ahead
        # Taken off `ahead` by a shrinking level since `credit_ns`, not yet seen as prints.
        self.credit = 0
        self.credit_ns = 0
        # The last level change before it came to rest.
        self.shrink_no = shrink_no
        self.key = (-order.price if order.side is BookSide.BID else order.price, rank)


_BID, _ASK = BookSide.BID, BookSide.ASK
_OTHER: Mapping[BookSide, BookSide] = {_BID: _ASK, _ASK: _BID}
_TAKER_SIDE: Mapping[BookSide, Side] = {_BID: Side.YES, _ASK: Side.NO}
_TAKEN_FROM: Mapping[Side, BookSide] = {Side.YES: _ASK, Side.NO: _BID}
_OVER = frozenset({MarketStatus.CLOSED, MarketStatus.DETERMINED, MarketStatus.FINALIZED})


def _rank(order: RestingOrder) -> tuple[int, int]:
    return order.key


def wire_side(side: BookSide, price: PriceE4) -> tuple[Side, PriceE4]:
    """Whose bids a place in the YES book is on the wire, and the price there."""
    return (Side.YES, price) if side is _BID else (Side.NO, complement(price))


def yes_place(side: Side, price: PriceE4) -> tuple[BookSide, PriceE4]:
    """The place in the YES book of a bid for *side* at *price*: the inverse of `wire_side`."""
    return (_BID, price) if side is Side.YES else (_ASK, complement(price))


class MarketBook:
    """One market's external size and our accounts' resting orders.

    Market time must not decrease from call to call. Every call first expires what is due by its `ts_ns`.

    Args:
        spec: The market; orders off its grid are rejected.
        kind: What the feed shows.
        window_ns: On print tapes only, how long a print proves size to have been on offer.
    """

    def __init__(
        self, spec: MarketSpec, kind: FeedKind = FeedKind.DEPTH, *, window_ns: int = SHOWN_WINDOW_NS
    ) -> None:
        self.spec = spec
        self.kind = kind
        self.status = spec.initial_status
        self.result: Side | None = None
        self.last_price: PriceE4 | None = None
        self._depth = Depth(spec.ticker)
        self._prints = Prints(window_ns)
        self._outside: Liquidity = self._depth if kind is FeedKind.DEPTH else self._prints
        self._orders: dict[str, RestingOrder] = {}
        self._queues: dict[BookSide, list[RestingOrder]] = {_BID: [], _ASK: []}
        self._next_expiration_ns = _NEVER
        self._rank_no = 0
        # Recent shrinkings of recorded levels that no print has explained: (number, time, size), oldest first.
        self._shrinks: dict[tuple[BookSide, PriceE4], list[tuple[int, int, int]]] = {}
        self._shrink_no = 0
        self._trade_no = 0

    # What the book shows.

    @property
    def is_open(self) -> bool:
        """Whether orders are taken."""
        return self.status is MarketStatus.ACTIVE

    def public_size(self, side: BookSide, price: PriceE4) -> QtyE2:
        """External size on offer plus our resting orders at one YES price."""
        own = sum(order.leaves for order in self._queues[side] if order.price == price)
        return QtyE2(self._outside.size(side, price) + own)

    def public_levels(self) -> tuple[Levels, Levels]:
        """YES bids and NO bids as the wire shows them, best first, prices of the named side."""
        yes = self._side_levels(_BID)
        return tuple(yes), tuple((complement(price), size) for price, size in self._side_levels(_ASK))

    def best(self, side: BookSide) -> tuple[PriceE4, QtyE2] | None:
        """YES price and public size at the touch, or None where the side is empty."""
        outside = self._outside.best(side)
        queue = self._queues[side]
        if queue and (outside is None or is_better(side, queue[0].price, outside)):
            outside = queue[0].price
        return None if outside is None else (outside, self.public_size(side, outside))

    def resting(self, order_id: str) -> RestingOrder | None:
        """The order, while it rests."""
        return self._orders.get(order_id)

    def resting_orders(self, account: str | None = None) -> list[RestingOrder]:
        """Orders in the book in the order they came to rest, of one account or of all."""
        return [order for order in self._orders.values() if account is None or order.account == account]

    def queue_position(self, order_id: str) -> QtyE2 | None:
        """Contracts that trade before it at its price, outside and ours; None where it does not rest."""
        order = self._orders.get(order_id)
        if order is None:
            return None
        same = (o for o in self._queues[order.side] if o.price == order.price and o.key < order.key)
        return QtyE2(order.ahead + sum(o.leaves for o in same))

    def _side_levels(self, side: BookSide) -> list[tuple[PriceE4, QtyE2]]:
        levels = self._outside.levels(side)
        if not self._queues[side]:
            return levels
        sizes: dict[PriceE4, int] = dict(levels)
        for order in self._queues[side]:
            sizes[order.price] = sizes.get(order.price, 0) + order.leaves
        return sorted(((p, QtyE2(s)) for p, s in sizes.items()), reverse=side is _BID)

    # What the market does.

    def apply(self, event: MarketEvent) -> list[BookEvent]:
        """Let one event of the feed happen.

        Raises:
            BadInput: The feed is damaged (a level would be negative) or belongs to another market.
        """
        if event.ticker != self.spec.ticker:
            raise BadInput(f"event of market {event.ticker!r} given to the book of {self.spec.ticker!r}")
        out = self.advance(event.ts_ns)
        if isinstance(event, Delta):
            self._apply_delta(event, out)
        elif isinstance(event, Print):
            self._apply_print(event, out)
        elif isinstance(event, Snapshot):
            self._apply_snapshot(event, out)
        else:
            self._apply_lifecycle(event, out)
        return out

    def advance(self, ts_ns: int) -> list[BookEvent]:
        """Let market time pass: expire orders due by *ts_ns*; on print tapes withdraw size grown old."""
        out: list[BookEvent] = []
        if ts_ns >= self._next_expiration_ns:
            for order in [o for o in self._orders.values() if 0 < o.expiration_ns <= ts_ns]:
                with _Watch(self, ts_ns, out) as watch:
                    watch.touch(order.side, order.price)
                    self._remove(order)
                    out.append(Expired(order.order_id, order.account, QtyE2(order.leaves), ts_ns))
            due = [o.expiration_ns for o in self._orders.values() if o.expiration_ns]
            self._next_expiration_ns = min(due, default=_NEVER)
        if self.kind is FeedKind.PRINTS:
            with _Watch(self, ts_ns, out) as watch:
                self._touch_prints(watch)
                self._prints.forget_before(ts_ns)
        return out

    def _apply_delta(self, event: Delta, out: list[BookEvent]) -> None:
        side, price = yes_place(event.side, event.price)
        if event.delta < 0:
            self._note_shrink(side, price, -event.delta, event.ts_ns)
        if not self._orders:
            offered_before = self._depth.size(side, price)
            offered = self._depth.change(side, price, event.delta)
            if offered != offered_before:
                out.append(
                    BookChange(
                        event.ticker,
                        event.side,
                        event.price,
                        QtyE2(offered - offered_before),
                        QtyE2(offered),
                        event.ts_ns,
                    )
                )
            return
        with _Watch(self, event.ts_ns, out) as watch:
            watch.touch(side, price)
            offered = self._depth.change(side, price, event.delta)
            if event.delta < 0:
                self._shrink_queues(side, price, offered, event.ts_ns)
            self._match_resting(watch)

    def _apply_snapshot(self, event: Snapshot, out: list[BookEvent]) -> None:
        self._depth.replace(_BID, event.yes_bids)
        self._depth.replace(_ASK, ((complement(price), size) for price, size in event.no_bids))
        for order in self._orders.values():
            order.ahead = min(order.ahead, self._depth.size(order.side, order.price))
        unseen: list[BookEvent] = []
        with _Watch(self, event.ts_ns, unseen) as watch:
            self._match_resting(watch)
        out.extend(seen for seen in unseen if not isinstance(seen, BookChange))
        out.append(BookReset(event.ticker, event.ts_ns))

    def _apply_print(self, event: Print, out: list[BookEvent]) -> None:
        self.last_price = event.yes_price
        out.append(
            TradePrint(
                event.ticker, event.trade_id, event.taker_side, event.yes_price, event.qty, event.ts_ns
            )
        )
        if self.kind is FeedKind.DEPTH:
            before = self._explain(event)
            if self._orders:
                with _Watch(self, event.ts_ns, out) as watch:
                    self._fill_by_print(event, before, watch)
            return
        with _Watch(self, event.ts_ns, out) as watch:
            self._touch_prints(watch)
            side = _TAKEN_FROM[event.taker_side]
            filled = self._fill_through(event, _BID, event.qty, watch)
            filled += self._fill_through(event, _ASK, event.qty - filled, watch)
            opposite = self._queues[_OTHER[side]]
            # A price that one of our own resting orders already bids is no offer to us.
            met = opposite and not is_better(_OTHER[side], event.yes_price, opposite[0].price)
            watch.touch(side, event.yes_price)
            self._prints.show(side, event.yes_price, 0 if met else event.qty - filled, event.ts_ns)

    def _touch_prints(self, watch: _Watch) -> None:
        for side in (_BID, _ASK):
            price = self._prints.best(side)
            if price is not None:
                watch.touch(side, price)

    def _apply_lifecycle(self, event: Lifecycle, out: list[BookEvent]) -> None:
        self.status = event.status
        self.result = event.result
        if event.status in _OVER:
            had_book = bool(self._orders or self._outside.levels(_BID) or self._outside.levels(_ASK))
            for order in list(self._orders.values()):
                self._remove(order)
                out.append(
                    Canceled(
                        order.order_id,
                        order.account,
                        QtyE2(order.leaves),
                        CancelReason.MARKET_CLOSED,
                        event.ts_ns,
                    )
                )
            self._outside.clear()
            if had_book:
                out.append(BookReset(event.ticker, event.ts_ns))
        out.append(StatusChange(event.ticker, event.status, event.result, event.ts_ns))

    # What our accounts do.

    def place(self, order: NewOrder, ts_ns: int) -> list[BookEvent]:
        """Take what the order may take and rest, cancel or reject the remainder.

        The answer holds exactly one of: `Rejected`; `Rested`; `Canceled` of this order; or fills that leave 0.

        Raises:
            BadInput: The order id is resting already.
        """
        if order.order_id in self._orders:
            raise BadInput(f"order id {order.order_id!r} is in the book already")
        out = self.advance(ts_ns)
        code = self._check(order, ts_ns)
        if code is not None:
            out.append(Rejected(order.order_id, order.account, code, ts_ns))
            return out
        with _Watch(self, ts_ns, out) as watch:
            if order.tif is TimeInForce.FOK and self._takeable(order) < order.qty:
                out.append(
                    Canceled(order.order_id, order.account, order.qty, CancelReason.FOK_UNFILLED, ts_ns)
                )
                return out
            leaves, met_itself = self._take(order, watch)
            if not leaves:
                return out
            if met_itself:
                reason = CancelReason.SELF_TRADE
            elif order.tif is TimeInForce.GTC:
                self._rest(order, leaves, watch)
                return out
            else:
                reason = CancelReason.IOC_REMAINDER
            out.append(Canceled(order.order_id, order.account, QtyE2(leaves), reason, ts_ns))
        return out

    def cancel(self, order_id: str, ts_ns: int) -> list[BookEvent]:
        """Take a resting order off the book; without a `Canceled` in the answer it was not resting."""
        out = self.advance(ts_ns)
        order = self._orders.get(order_id)
        if order is not None:
            with _Watch(self, ts_ns, out) as watch:
                self._cancel_resting(order, CancelReason.REQUESTED, watch)
        return out

    def _check(self, order: NewOrder, ts_ns: int) -> RejectCode | None:
        if not self.is_open:
            return RejectCode.MARKET_NOT_ACTIVE
        if not self.spec.is_price(order.price):
            return RejectCode.PRICE_OFF_GRID
        if not self.spec.is_count(order.qty):
            return RejectCode.BAD_COUNT
        if order.expiration_ns and (order.tif is not TimeInForce.GTC or order.expiration_ns <= ts_ns):
            return RejectCode.BAD_EXPIRATION
        touch = self.best(_OTHER[order.side])
        if order.post_only and touch is not None and _reaches(order.side, order.price, touch[0]):
            return RejectCode.POST_ONLY_WOULD_CROSS
        return None

    def _path(self, order: NewOrder) -> list[tuple[PriceE4, int, RestingOrder | None]]:
        """What the order may meet, in the order it meets it; None stands for the market outside."""
        side = _OTHER[order.side]
        path: list[tuple[PriceE4, int, RestingOrder | None]] = [
            (price, size, None) for price, size in self._outside.levels(side)
        ]
        path += [(maker.price, maker.leaves, maker) for maker in self._queues[side]]
        # The sort is stable: at one price the outside stays first, our orders stay in time.
        path.sort(key=lambda step: step[0], reverse=side is _BID)
        return [step for step in path if _reaches(order.side, order.price, step[0])]

    def _takeable(self, order: NewOrder) -> int:
        total = 0
        for _, size, maker in self._path(order):
            if maker is not None and maker.account == order.account:
                if order.self_trade is SelfTrade.TAKER_AT_CROSS:
                    break
                continue
            total += size
        return total

    def _take(self, order: NewOrder, watch: _Watch) -> tuple[int, bool]:
        """Execute what crosses; what is left of the order, and whether it stopped at its own account."""
        side = _OTHER[order.side]
        leaves = int(order.qty)
        for price, size, maker in self._path(order):
            if not leaves:
                break
            if maker is not None and maker.account == order.account:
                if order.self_trade is SelfTrade.TAKER_AT_CROSS:
                    return leaves, True
                self._cancel_resting(maker, CancelReason.SELF_TRADE, watch)
                continue
            qty = min(size, leaves)
            leaves -= qty
            watch.touch(side, price)
            trade_no = self._trade(order.side, price, qty, watch)
            watch.out.append(
                Fill(
                    order.order_id,
                    order.account,
                    order.side,
                    price,
                    QtyE2(qty),
                    QtyE2(leaves),
                    True,
                    "" if maker is None else maker.order_id,
                    trade_no,
                    watch.ts_ns,
                )
            )
            if maker is None:
                self._outside.take(side, price, qty)
                self._clamp_ahead(side, price)
            else:
                self._fill_resting(maker, qty, order.order_id, trade_no, watch)
        return leaves, False

    def _rest(self, order: NewOrder, leaves: int, watch: _Watch) -> None:
        watch.touch(order.side, order.price)
        self._rank_no += 1
        ahead = self._outside.size(order.side, order.price)
        resting = RestingOrder(order, leaves, ahead, self._rank_no, self._shrink_no)
        self._orders[order.order_id] = resting
        insort(self._queues[order.side], resting, key=_rank)
        if order.expiration_ns:
            self._next_expiration_ns = min(self._next_expiration_ns, order.expiration_ns)
        watch.out.append(Rested(order.order_id, order.account, QtyE2(leaves), QtyE2(ahead), watch.ts_ns))

    # How resting orders fill.

    def _match_resting(self, watch: _Watch) -> None:
        """External size at or through our orders trades with them at their price."""
        for own_side, side in _OTHER.items():
            queue = self._queues[own_side]
            while queue:
                own, price = queue[0], self._outside.best(side)
                if price is None or not _reaches(own_side, own.price, price):
                    break
                better = (n for p, n in self._outside.levels(own_side) if is_better(own_side, p, own.price))
                qty = min(own.leaves, self._outside.size(side, price) - own.ahead - sum(better))
                if qty <= 0:
                    break
                watch.touch(side, price)
                self._outside.take(side, price, qty)
                self._clamp_ahead(side, price)
                trade_no = self._trade(side, own.price, qty, watch)
                self._fill_resting(own, qty, "", trade_no, watch)

    def _fill_by_print(self, event: Print, before: list[tuple[int, int]], watch: _Watch) -> None:
        """A recorded trade meets our orders through its price, then those at its price behind their queue.

        *before* holds the level changes that announced the trade, as (number, size): an order that came to
        rest after such a change came after that part of the trade.
        """
        side = _TAKEN_FROM[event.taker_side]
        given = 0
        for order in list(self._queues[side]):
            if is_better(side, event.yes_price, order.price):
                break
            missed = sum(size for number, size in before if number <= order.shrink_no)
            left = max(0, event.qty - missed - given)
            if order.price == event.yes_price:
                if event.ts_ns - order.credit_ns > PRINT_LAG_NS:
                    order.credit = 0
                queue = order.ahead + order.credit
                eaten = min(queue, left)
                order.ahead = min(order.ahead, queue - eaten)
                order.credit = queue - eaten - order.ahead
                left -= eaten
            if left:
                given += self._fill_outside(order, left, watch)

    def _fill_through(self, event: Print, side: BookSide, budget: int, watch: _Watch) -> int:
        """Fill what the print went strictly through on *side*; how much of *budget* that used."""
        given = 0
        for order in list(self._queues[side]):
            if given == budget or not is_better(side, order.price, event.yes_price):
                break
            given += self._fill_outside(order, budget - given, watch)
        return given

    def _fill_outside(self, order: RestingOrder, most: int, watch: _Watch) -> int:
        """Fill a resting order by a recorded trade, which is public already."""
        qty = min(order.leaves, most)
        self._trade_no += 1
        self._fill_resting(order, qty, "", self._trade_no, watch)
        return qty

    def _fill_resting(
        self, order: RestingOrder, qty: int, counter: str, trade_no: int, watch: _Watch
    ) -> None:
        watch.touch(order.side, order.price)
        order.leaves -= qty
        watch.out.append(
            Fill(
                order.order_id,
                order.account,
                order.side,
                order.price,
                QtyE2(qty),
                QtyE2(order.leaves),
                False,
                counter,
                trade_no,
                watch.ts_ns,
            )
        )
        if not order.leaves:
            self._remove(order)

    def _trade(self, taker: BookSide, price: PriceE4, qty: int, watch: _Watch) -> int:
        """Number and publish a trade that is not in the recording."""
        self._trade_no += 1
        self.last_price = price
        ticker = self.spec.ticker
        trade_id = f"{ticker}:{self._trade_no}"
        watch.out.append(TradePrint(ticker, trade_id, _TAKER_SIDE[taker], price, QtyE2(qty), watch.ts_ns))
        return self._trade_no

    # Queue positions.

    def _note_shrink(self, side: BookSide, price: PriceE4, size: int, ts_ns: int) -> None:
        """Remember that a level shrank: the print that explains it may still come."""
        self._shrink_no += 1
        shrinks = self._shrinks.setdefault((side, price), [])
        while shrinks and ts_ns - shrinks[0][1] > PRINT_LAG_NS:
            del shrinks[0]
        shrinks.append((self._shrink_no, ts_ns, size))

    def _explain(self, event: Print) -> list[tuple[int, int]]:
        """The remembered shrinkings this print accounts for, oldest first, as (number, size); each once."""
        shrinks = self._shrinks.get((_TAKEN_FROM[event.taker_side], event.yes_price))
        explained: list[tuple[int, int]] = []
        left = int(event.qty)
        while shrinks and left:
            number, when, size = shrinks.pop(0)
            if event.ts_ns - when > PRINT_LAG_NS:
                continue
            used = min(size, left)
            left -= used
            explained.append((number, used))
            if used < size:
                shrinks.insert(0, (number, when, size - used))
        return explained

    def _shrink_queues(self, side: BookSide, price: PriceE4, offered: int, ts_ns: int) -> None:
        for order in self._queues[side]:
            if order.price == price and order.ahead > offered:
                if ts_ns - order.credit_ns > PRINT_LAG_NS:
                    order.credit = 0
                order.credit += order.ahead - offered
                order.credit_ns = ts_ns
                order.ahead = offered

    def _clamp_ahead(self, side: BookSide, price: PriceE4) -> None:
        for order in self._queues[side]:
            if order.price == price:
                order.ahead = min(order.ahead, self._outside.size(side, price))

    def _cancel_resting(self, order: RestingOrder, reason: CancelReason, watch: _Watch) -> None:
        watch.touch(order.side, order.price)
        self._remove(order)
        watch.out.append(Canceled(order.order_id, order.account, QtyE2(order.leaves), reason, watch.ts_ns))

    def _remove(self, order: RestingOrder) -> None:
        del self._orders[order.order_id]
        self._queues[order.side].remove(order)


def _reaches(side: BookSide, price: int, opposite: int) -> bool:
    """Whether an order on *side* with limit *price* may trade at *opposite*."""
    return price >= opposite if side is _BID else price <= opposite


class _Watch:
    """Turns what happened to the public book inside a `with` block into `BookChange` events at its end."""

    __slots__ = ("_before", "_book", "out", "ts_ns")

    def __init__(self, book: MarketBook, ts_ns: int, out: list[BookEvent]) -> None:
        self._book = book
        self._before: dict[tuple[BookSide, PriceE4], int] = {}
        self.ts_ns = ts_ns
        self.out = out

    def touch(self, side: BookSide, price: PriceE4) -> None:
        """Call before the public size at a place may change."""
        if (side, price) not in self._before:
            self._before[side, price] = self._book.public_size(side, price)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        book = self._book
        for (side, price), before in self._before.items():
            size = book.public_size(side, price)
            if size != before:
                named, shown = wire_side(side, price)
                self.out.append(
                    BookChange(book.spec.ticker, named, shown, QtyE2(size - before), size, self.ts_ns)
                )
