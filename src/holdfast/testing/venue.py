"""A venue in memory: an honest small exchange whose answers a test can spoil, order by order.

Its books are set by the test (`set_book`); an order trades against them at once, rests, or is canceled, as its
time in force says. Everything the exchange did is in its own books, whatever the trader was told: `script`
spoils the next placements' answers, in order:

    Play.NORMAL          answered truly
    Play.LOST            carried out, answer lost
    Play.LATE            answer lost; carried out only when `arrive` is called
    Play.VANISHED        answer lost, never carried out
    Play.NOT_SENT        provably not sent
    Play.REJECT          refused by the venue, code "rejected_by_script"
    Play.HANG            carried out; the answer never comes
    Play.LEG_REJECTED    of a combination the first leg is carried out, the others are refused and it ends
    Play.CUT             the stream breaks after the first leg of a combination; the rest is done and not told

A combination trades against the books of its legs, whole units at a time, where their executable sides add up to its
limit or better; each leg is a fill of its own. `fill_leg` fills one leg alone, `end_option` exercises, assigns or
expires what is held, also without telling an execution of it until `tell_endings`.

Limits: one account, no fees of its own for event contracts (set `fee_per_contract`), no margin, no queue priority.
Events wait in a list until `events` is read; nothing waits for time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from holdfast.core.clock import Clock
from holdfast.core.errors import CircuitBreakerOpenError, OrderDenied, VenueRejected, VenueUnreachable
from holdfast.core.instruments import COMBO_CENTS, ComboLeg, Instrument, InstrumentKind
from holdfast.core.money import ONE_DOLLAR_E4, MoneyE6, PriceE4, QtyE2
from holdfast.core.options import combo_ticker, is_combo, parse_combo_ticker
from holdfast.core.orders import Fill, OrderStatus
from holdfast.core.signals import BookSide, Intent, TimeInForce
from holdfast.execution.venue import (
    Ack,
    AlreadyClosed,
    Book,
    BookChanged,
    CancelAnswer,
    Canceled,
    DedupProfile,
    FillSeen,
    Level,
    MarketChanged,
    NotSent,
    OrderSeen,
    PlaceAnswer,
    PlacementPermit,
    Reject,
    StreamGap,
    Unknown,
    VenueEvent,
    VenueOrder,
)
from holdfast.risk.gate import Admission
from holdfast.testing.endings import ending_fills


class Play(StrEnum):
    """What becomes of one placement; see the head of this file."""

    NORMAL = "normal"
    LOST = "lost"
    LATE = "late"
    VANISHED = "vanished"
    NOT_SENT = "not_sent"
    REJECT = "reject"
    HANG = "hang"
    LEG_REJECTED = "leg_rejected"
    CUT = "cut"


@dataclass
class _Listed:
    """An order in the exchange's own books."""

    intent: Intent
    order_id: str
    created_ns: int
    canceled: QtyE2 = QtyE2(0)
    status: OrderStatus = OrderStatus.WORKING
    by_part: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def filled(self) -> QtyE2:
        """Of a combination the units that every leg covers."""
        parts = self.intent.instrument.parts
        return QtyE2(min(self.by_part.get(part.instrument.ticker, 0) // abs(part.ratio) for part in parts))

    @property
    def leaves(self) -> QtyE2:
        return QtyE2(self.intent.count - self.filled - self.canceled)

    def side_of(self, part: ComboLeg) -> BookSide:
        buys = (self.intent.book_side is BookSide.BID) is (part.ratio > 0)
        return BookSide.BID if buys else BookSide.ASK

    def shown(self) -> VenueOrder:
        return VenueOrder(
            order_id=self.order_id,
            client_order_id=self.intent.client_order_id,
            ticker=self.intent.ticker,
            side=self.intent.book_side,
            yes_price=self.intent.yes_price,
            filled=self.filled,
            leaves=self.leaves,
            initial=self.intent.count,
            status=self.status,
            created_ns=self.created_ns,
            multiplier=self.intent.instrument.multiplier,
        )


@dataclass
class _Permit:
    """Leave to place, which counts how it ended."""

    ended: list[str]
    open: bool = field(default=True)

    def ignored(self) -> None:
        """Give it back."""
        self.settle("ignored")

    def settle(self, how: str) -> None:
        """End it once."""
        if self.open:
            self.open = False
            self.ended.append(how)


class FakeVenue:
    """See the head of this file.

    Args:
        clock: Stamps orders and fills.
        instruments: What it lists.
        dedup: What it does with a repeated client order id.
        on_arrival: Called with each order in the moment its first byte arrives, before anything else.

    Attributes:
        arrived: Every order whose bytes reached the venue, in order, repetitions included.
        calls: Name of every call made, in order.
        permits: How each permit ended.
        fee_per_contract: Charged for event contracts; options, combinations and stocks carry their own.
        is_readable: False makes every read fail as unreachable.
        is_breaker_open: True refuses leave to place anything that does not reduce.
        mute: True keeps fills and order changes off the stream.
    """

    name = "fake"

    def __init__(
        self,
        clock: Clock,
        instruments: Iterable[Instrument],
        *,
        dedup: DedupProfile = DedupProfile.OPEN_ONLY,
        on_arrival: Callable[[Intent], None] | None = None,
        cash: MoneyE6 = MoneyE6(10_000_000_000),
    ) -> None:
        self.dedup = dedup
        self.arrived: list[Intent] = []
        self.calls: list[str] = []
        self.permits: list[str] = []
        self.fee_per_contract = MoneyE6(0)
        self.is_readable = True
        self.is_breaker_open = False
        self.mute = False
        self.quiet: list[int] = []
        self._clock = clock
        self._on_arrival = on_arrival
        self._instruments = {instrument.ticker: instrument for instrument in instruments}
        self._books: dict[str, tuple[list[Level], list[Level]]] = {}
        self._orders: list[_Listed] = []
        self._fills: list[Fill] = []
        self._untold: list[Fill] = []
        self._positions: dict[str, QtyE2] = {}
        self._cash = cash
        self._plays: deque[Play] = deque()
        self._late: list[Intent] = []
        self._queue: asyncio.Queue[VenueEvent | None] | None = None
        self._backlog: list[VenueEvent] = []
        self._tells_until = 0

    # What a test does ---------------------------------------------------------------------------------

    def script(self, *plays: Play) -> None:
        """Spoil the next placements; after them everything is normal again."""
        self._plays.extend(plays)

    def set_book(
        self, ticker: str, *, bids: Sequence[tuple[int, int]] = (), asks: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Put external (price E4, quantity E2) levels on both sides, best first, and say so on the stream."""
        self._books[ticker] = (
            [Level(PriceE4(price), QtyE2(qty)) for price, qty in bids],
            [Level(PriceE4(price), QtyE2(qty)) for price, qty in asks],
        )
        self._emit(BookChanged(self._book(ticker), self._clock.now_ns()))

    def arrive(self) -> None:
        """Carry out every placement that was late until now."""
        late, self._late = self._late, []
        for intent in late:
            self._accept(intent)

    def trade_elsewhere(self, fill: Fill) -> None:
        """An execution of the account that did not come through here."""
        self._book_fill(fill)

    def fill_resting(self, client_order_id: str, qty: int) -> None:
        """Somebody trades *qty* (1/100) with one of our resting orders."""
        listed = self._find(client_order_id)
        if listed is None or not 0 < qty <= listed.leaves:
            raise ValueError(f"cannot fill {qty} of {client_order_id!r}")
        for part, price in zip(listed.intent.instrument.parts, self._prices(listed), strict=True):
            self._execute(listed, price, QtyE2(qty * abs(part.ratio)), is_taker=False, part=part)
        self._show(listed)

    def fill_leg(self, client_order_id: str, ticker: str, qty: int, price: int) -> None:
        """Fill *qty* (1/100) of one leg of a working combination, at *price* (1e-4 dollar), and nothing else."""
        listed = self._find(client_order_id)
        if listed is None:
            raise ValueError(f"cannot fill a leg of {client_order_id!r}")
        part = next(leg for leg in listed.intent.instrument.parts if leg.instrument.ticker == ticker)
        self._execute(listed, PriceE4(price), QtyE2(qty), is_taker=False, part=part)
        self._show(listed)

    def end_option(self, ticker: str, spot: int, qty: int | None = None, *, told: bool = True) -> None:
        """Exercise, assign or expire what is held of *ticker* with the underlying at *spot* (1e-4 dollar).

        *qty* (1/100, without sign) ends only a part of it, as an early assignment does. Where it is not *told*,
        positions and cash alone show it.
        """
        held = self.books_position(ticker)
        ends = held if qty is None else QtyE2(qty if held > 0 else -qty)
        name, now_ns = f"E{len(self._fills) + len(self._untold) + 1}", self._clock.now_ns()
        for fill in ending_fills(self._instruments[ticker], ends, PriceE4(spot), name=name, ts_ns=now_ns):
            if told:
                self._book_fill(fill)
            else:
                self._move(fill)
                self._untold.append(fill)

    def tell_endings(self) -> None:
        """List and stream the executions of every ending that was not told."""
        untold, self._untold = self._untold, []
        for fill in untold:
            self._tell_fill(fill)

    def settle(self, ticker: str, result: str) -> None:
        """Determine and pay out a market."""
        for listed in self._orders:
            if listed.intent.ticker == ticker and listed.status is OrderStatus.WORKING:
                self._close(listed, OrderStatus.CANCELED)
        position = self._positions.pop(ticker, QtyE2(0))
        if result == "yes":
            self._cash = MoneyE6(self._cash + max(0, position) * ONE_DOLLAR_E4)
        else:
            self._cash = MoneyE6(self._cash + max(0, -position) * ONE_DOLLAR_E4)
        old = self._instruments[ticker]
        self._instruments[ticker] = _with_result(old, result)
        now_ns = self._clock.now_ns()
        self._emit(MarketChanged(ticker=ticker, status="settled", result=result, ts_ns=now_ns))

    def put_event(self, event: VenueEvent) -> None:
        """Say anything on the stream."""
        self._emit(event)

    def end_events(self) -> None:
        """End the stream after what was said."""
        if self._queue is not None:
            self._queue.put_nowait(None)
        else:
            self._backlog.append(_END)

    def books_position(self, ticker: str) -> QtyE2:
        """The exchange's own count."""
        return self._positions.get(ticker, QtyE2(0))

    # The port -----------------------------------------------------------------------------------------

    def placement_permit(self, ticker: str, *, reducing: bool) -> PlacementPermit:
        """See `Venue`."""
        if self.is_breaker_open and not reducing:
            raise CircuitBreakerOpenError(
                f"breaker 'fake_api' is open: scripted (ticker={ticker})",
                breaker="fake_api",
                retry_after_secs=60.0,
            )
        return _Permit(self.permits)

    async def place(self, intent: Intent, admission: Admission, permit: PlacementPermit) -> PlaceAnswer:
        """See `Venue`."""
        self.calls.append("place")
        play = self._plays.popleft() if self._plays else Play.NORMAL
        if play is Play.NOT_SENT:
            permit.ignored()
            return NotSent(reason="scripted")
        await asyncio.sleep(0)
        try:
            admission.consume(intent)
        except OrderDenied as error:
            permit.ignored()
            return NotSent(reason=error.reason.code.value)
        self.arrived.append(intent)
        if self._on_arrival is not None:
            self._on_arrival(intent)
        await asyncio.sleep(0)
        answer = await self._play(play, intent)
        if isinstance(permit, _Permit):
            permit.settle("failure" if isinstance(answer, Unknown) else "success")
        return answer

    async def _play(self, play: Play, intent: Intent) -> PlaceAnswer:
        if play is Play.REJECT:
            return Reject(code="rejected_by_script", message="scripted", status=400)
        if play is Play.LATE:
            self._late.append(intent)
        if play in {Play.LATE, Play.VANISHED}:
            return Unknown(reason="timeout")
        if play is Play.CUT:
            return self._cut(intent)
        answer = self._accept(intent, legs=1 if play is Play.LEG_REJECTED else None)
        if play is Play.HANG:
            await asyncio.Event().wait()
        return Unknown(reason="timeout") if play is Play.LOST else answer

    async def cancel(self, *, order_id: str, ticker: str) -> CancelAnswer:
        """See `Venue`."""
        del ticker
        self.calls.append("cancel")
        for listed in self._orders:
            if listed.order_id == order_id and listed.status is OrderStatus.WORKING:
                released = listed.leaves
                self._close(listed, OrderStatus.CANCELED)
                return Canceled(released=released)
        return AlreadyClosed()

    async def open_orders(self) -> Sequence[VenueOrder]:
        """See `Venue`."""
        self._read("open_orders")
        return [listed.shown() for listed in self._orders if listed.status is OrderStatus.WORKING]

    async def find_order(self, *, client_order_id: str, ticker: str, since_ns: int) -> VenueOrder | None:
        """See `Venue`."""
        del ticker, since_ns
        self._read("find_order")
        listed = self._find(client_order_id)
        return listed.shown() if listed else None

    async def order(self, order_id: str) -> VenueOrder | None:
        """See `Venue`."""
        self._read("order")
        return next((listed.shown() for listed in self._orders if listed.order_id == order_id), None)

    async def fills(self, *, since_ns: int) -> Sequence[Fill]:
        """See `Venue`."""
        self._read("fills")
        return [fill for fill in self._fills if fill.ts_ns >= since_ns]

    async def positions(self) -> dict[str, QtyE2]:
        """See `Venue`."""
        self._read("positions")
        return dict(self._positions)

    async def balance(self) -> MoneyE6:
        """See `Venue`."""
        self._read("balance")
        return self._cash

    async def instrument(self, ticker: str, *, regardless: bool = False) -> Instrument:
        """See `Venue`; the breaker here refuses placements alone."""
        del regardless
        self._read("instrument")
        return self._rules(ticker)

    async def book(self, ticker: str) -> Book:
        """See `Venue`."""
        self._read("book")
        self._rules(ticker)
        return self._book(ticker)

    async def probe(self) -> None:
        """See `Venue`."""
        self._read("probe")

    async def tick_probe(self) -> bool:
        """See `Venue`; its breaker waits for nothing."""
        return False

    async def events(self, tickers: Collection[str]) -> AsyncIterator[VenueEvent]:
        """See `Venue`; what happened before is told first."""
        for ticker in tickers:
            self._emit(BookChanged(self._book(ticker), self._clock.now_ns()))
        queue: asyncio.Queue[VenueEvent | None] = asyncio.Queue()
        for waiting in self._backlog:
            queue.put_nowait(None if waiting is _END else waiting)
        self._backlog.clear()
        self._queue = queue
        while (event := await queue.get()) is not None:
            yield event

    async def follow(self, ticker: str) -> None:
        """See `Venue`."""
        self._emit(BookChanged(self._book(ticker), self._clock.now_ns()))

    async def quiescent(self, n: int) -> None:
        """See `Venue`; the ticks dealt with are in `quiet`."""
        self.quiet.append(n)

    async def close(self) -> None:
        """See `Venue`."""
        self.end_events()

    # The exchange -------------------------------------------------------------------------------------

    def _read(self, name: str) -> None:
        self.calls.append(name)
        if not self.is_readable:
            raise VenueUnreachable(f"{name}: scripted to be unreachable")

    def _rules(self, ticker: str) -> Instrument:
        if ticker not in self._instruments and is_combo(ticker):
            legs = tuple(ComboLeg(self._rules(leg), ratio) for leg, ratio in parse_combo_ticker(ticker))
            self._instruments[ticker] = combination(legs)
        if ticker not in self._instruments:
            raise VenueRejected(f"no market {ticker!r}", code="not_found", status=404)
        return self._instruments[ticker]

    def _cut(self, intent: Intent) -> PlaceAnswer:
        """Carry the order out; the stream tells one fill of it and breaks, and no answer comes."""
        told = len(self._fills) + 1
        self._tells_until, self.mute = told, True
        self._accept(intent)
        self._tells_until, self.mute = 0, False
        self._emit(StreamGap(reason="disconnected", private=True))
        return Unknown(reason="disconnected")

    def _accept(self, intent: Intent, *, legs: int | None = None) -> PlaceAnswer:
        same = [listed for listed in self._orders if listed.intent.client_order_id == intent.client_order_id]
        if self.dedup is not DedupProfile.ALL:
            same = [listed for listed in same if listed.status is OrderStatus.WORKING]
        if same and self.dedup is not DedupProfile.NONE:
            return Unknown(reason="conflict: order_already_exists", status=409)
        listed = _Listed(intent, f"V{len(self._orders) + 1}", self._clock.now_ns())
        self._orders.append(listed)
        if intent.instrument.legs:
            self._take_combination(listed, legs)
        else:
            self._take(listed)
        if listed.status is OrderStatus.WORKING and intent.signal.tif is not TimeInForce.GTC:
            self._close(listed, OrderStatus.CANCELED)
        else:
            self._show(listed)
        return Ack(
            order_id=listed.order_id, filled=listed.filled, remaining=listed.leaves, ts_ns=listed.created_ns
        )

    def _take(self, listed: _Listed) -> None:
        """Trade against the external levels that the limit crosses."""
        intent = listed.intent
        is_bid = intent.book_side is BookSide.BID
        levels = self._books.get(intent.ticker, ([], []))[1 if is_bid else 0]
        crossing = [
            level
            for level in levels
            if (level.price <= intent.yes_price) == is_bid or level.price == intent.yes_price
        ]
        if intent.signal.tif is TimeInForce.FOK and sum(level.qty for level in crossing) < listed.leaves:
            return
        for level in crossing:
            qty = QtyE2(min(level.qty, listed.leaves))
            if qty:
                levels[levels.index(level)] = Level(level.price, QtyE2(level.qty - qty))
                self._execute(listed, level.price, qty, is_taker=True)
        levels[:] = [level for level in levels if level.qty]

    def _take_combination(self, listed: _Listed, legs: int | None) -> None:
        """Trade whole units against the books of the legs; only the first *legs* of them where that is said."""
        intent, parts = listed.intent, listed.intent.instrument.parts
        sign = intent.book_side.sign
        while listed.leaves:
            tops = [self._top(listed, part) for part in parts]
            best = [top[0] for top in tops if top]
            if len(best) < len(parts):
                break
            cost = sum(
                sign * part.ratio * level.price * part.instrument.multiplier
                for part, level in zip(parts, best, strict=True)
            )
            room = min(level.qty // abs(part.ratio) for part, level in zip(parts, best, strict=True))
            units = min(room, listed.leaves) // 100 * 100
            is_short = intent.signal.tif is TimeInForce.FOK and units < listed.leaves
            if not units or is_short or cost > sign * intent.yes_price * intent.instrument.multiplier:
                break
            for part, top in list(zip(parts, tops, strict=True))[:legs]:
                qty = QtyE2(units * abs(part.ratio))
                price = top[0].price
                top[0] = Level(price, QtyE2(top[0].qty - qty))
                top[:] = [level for level in top if level.qty]
                self._execute(listed, price, qty, is_taker=True, part=part)
            if legs is not None:
                self._close(listed, OrderStatus.CANCELED)

    def _top(self, listed: _Listed, part: ComboLeg) -> list[Level]:
        """The levels that a leg trades against, best first."""
        bids, asks = self._books.get(part.instrument.ticker, ([], []))
        return asks if listed.side_of(part) is BookSide.BID else bids

    def _prices(self, listed: _Listed) -> list[PriceE4]:
        """At which a resting order fills: its limit, or of a combination what the first leg makes of it."""
        instrument, limit = listed.intent.instrument, listed.intent.yes_price
        if not instrument.legs:
            return [limit]
        prices = [top[0].price if (top := self._top(listed, part)) else _DIME for part in instrument.parts]
        rest = sum(
            part.ratio * price * part.instrument.multiplier
            for part, price in zip(instrument.parts[1:], prices[1:], strict=True)
        )
        first = instrument.parts[0]
        needed = limit * instrument.multiplier - rest
        return [PriceE4(needed // (first.ratio * first.instrument.multiplier)), *prices[1:]]

    def _execute(
        self,
        listed: _Listed,
        price: PriceE4,
        qty: QtyE2,
        *,
        is_taker: bool,
        part: ComboLeg | None = None,
    ) -> None:
        part = part or listed.intent.instrument.parts[0]
        instrument = part.instrument
        ticker = instrument.ticker
        listed.by_part[ticker] = listed.by_part.get(ticker, 0) + qty
        if not listed.leaves:
            listed.status = OrderStatus.FILLED
        is_event = instrument.kind is InstrumentKind.BINARY
        per_contract = self.fee_per_contract if is_event else instrument.fee_per_contract
        self._book_fill(
            Fill(
                trade_id=f"T{len(self._fills) + 1}",
                order_id=listed.order_id,
                client_order_id=listed.intent.client_order_id,
                ticker=ticker,
                side=listed.side_of(part),
                price=price,
                qty=qty,
                fee=MoneyE6(per_contract * qty // 100),
                is_taker=is_taker,
                ts_ns=self._clock.now_ns(),
                multiplier=instrument.multiplier,
            )
        )

    def _book_fill(self, fill: Fill) -> None:
        self._move(fill)
        self._tell_fill(fill)

    def _tell_fill(self, fill: Fill) -> None:
        self._fills.append(fill)
        if not self.mute or len(self._fills) == self._tells_until:
            self._emit(FillSeen(fill))

    def _move(self, fill: Fill) -> None:
        before = self._positions.get(fill.ticker, QtyE2(0))
        after = QtyE2(before + fill.delta)
        self._positions[fill.ticker] = after
        if not after:
            del self._positions[fill.ticker]
        known = self._instruments.get(fill.ticker)
        is_event = known is None or known.kind is InstrumentKind.BINARY
        collateral = (max(0, -after) - max(0, -before)) * ONE_DOLLAR_E4 if is_event else 0
        self._cash = MoneyE6(self._cash + fill.cash - collateral)

    def _close(self, listed: _Listed, status: OrderStatus) -> None:
        listed.canceled = listed.leaves
        listed.status = status
        self._show(listed)

    def _show(self, listed: _Listed) -> None:
        if not self.mute:
            self._emit(OrderSeen(listed.shown()))

    def _find(self, client_order_id: str) -> _Listed | None:
        return next((one for one in self._orders if one.intent.client_order_id == client_order_id), None)

    def _book(self, ticker: str) -> Book:
        bids, asks = self._books.get(ticker, ([], []))
        return Book(ticker=ticker, bids=tuple(bids), asks=tuple(asks), alive_ns=self._clock.monotonic_ns())

    def _emit(self, event: VenueEvent) -> None:
        if self._queue is not None:
            self._queue.put_nowait(event)
        else:
            self._backlog.append(event)


_END = MarketChanged(ticker="", status="end of events")
_DIME = PriceE4(1000)


def combination(legs: tuple[ComboLeg, ...]) -> Instrument:
    """The instrument of *legs*, in whole cents, under the name that they give."""
    first = legs[0].instrument
    return Instrument(
        venue=first.venue,
        ticker=combo_ticker([(leg.instrument.ticker, leg.ratio) for leg in legs]),
        kind=InstrumentKind.COMBO,
        legs=legs,
        multiplier=first.multiplier,
        price_ranges=COMBO_CENTS,
        close_ns=first.close_ns,
        is_open=all(leg.instrument.is_open for leg in legs),
    )


def _with_result(instrument: Instrument, result: str) -> Instrument:

    return msgspec.structs.replace(instrument, is_open=False, status="finalized", result=result)
