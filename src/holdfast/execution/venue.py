"""What a venue adapter must promise, and the answers it may give.

Placing has four answers and no exception: `Ack` (the venue took it), `Reject` (the venue said no), `NotSent`
(provably nothing left: the only answer that may be tried again), `Unknown` (a byte may have left and no
trustworthy answer came). Whatever an adapter cannot interpret is `Unknown`.

Reads raise `VenueError`. What reconciliation reads (orders, fills, positions, balance) is asked although a breaker
is open, and counted; `instrument` and `book` fail fast with `CircuitBreakerOpenError`.

An adapter sends an order only with an `Admission`, which only the gate creates and which is spent by the
send. It never repeats a placement, and amends nothing: an order is canceled and another one placed. It normalises to
the YES leg and to integers, counts every call at its breaker, bounds every call in time, and writes one record per call.

A combination is one order under the name of its legs (`core.options.combo_ticker`), its counts are whole units, and
it executes as fills of its legs. On the stream the fills of an order come before the word that it ended. Exercise,
assignment and expiry are fills without an order, each with its cause.

The same contract tests run against every adapter: `tests/contract/venue_contract.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

from holdfast.core.greeks import Greeks
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.orders import Fill, OrderStatus
from holdfast.core.signals import BookSide, Intent

if TYPE_CHECKING:
    from holdfast.risk.gate import Admission


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """The venue took the order. `filled` is a claim: its quantity stays reserved until the fills arrive."""

    order_id: str
    filled: QtyE2
    remaining: QtyE2
    ts_ns: int = 0


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """The venue said no, definitely; nothing will execute. A name already taken is no Reject but `Unknown`, 409."""

    code: str
    message: str = ""
    status: int = 0


class NotSent(msgspec.Struct, frozen=True, kw_only=True):
    """Provably nothing reached the venue's order book; the reservation goes back."""

    reason: str


class Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """It may be live. The reservation stays until the venue's own books tell.

    Status 409 says that the venue knows an order of this name: it is looked up at once.
    """

    reason: str
    status: int = 0


PlaceAnswer = Ack | Reject | NotSent | Unknown


class Canceled(msgspec.Struct, frozen=True, kw_only=True):
    """The venue took *released* contracts off the book."""

    released: QtyE2


class AlreadyClosed(msgspec.Struct, frozen=True, kw_only=True):
    """The venue no longer has it working; read the order to learn how it ended."""


CancelAnswer = Canceled | AlreadyClosed | NotSent | Unknown


class VenueOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One order as the venue's books show it.

    Attributes:
        status: WORKING, FILLED or CANCELED (EXPIRED where the venue tells it apart).
        filled, leaves: Executed and still open; initial = filled + leaves + canceled.
        yes_price: Limit as a YES price; of a combination what one unit costs net.
        multiplier: Units of the underlying per contract.
    """

    order_id: str
    client_order_id: str
    ticker: str
    side: BookSide
    yes_price: PriceE4
    filled: QtyE2
    leaves: QtyE2
    initial: QtyE2
    status: OrderStatus
    created_ns: int = 0
    multiplier: int = 1


class Level(msgspec.Struct, frozen=True):
    """Displayed quantity at one YES price."""

    price: PriceE4
    qty: QtyE2


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """The YES book, best level first on both sides.

    Attributes:
        alive_ns: Clock monotonic ns when the source was last proven alive and gapless.
    """

    ticker: str
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    alive_ns: int

    @property
    def best_bid(self) -> PriceE4 | None:
        """Highest bid, or None when the side is empty."""
        return self.bids[0].price if self.bids else None

    @property
    def best_ask(self) -> PriceE4 | None:
        """Lowest ask, or None when the side is empty."""
        return self.asks[0].price if self.asks else None


class BookChanged(msgspec.Struct, frozen=True):
    """A market's book after a snapshot or delta; `ts_ns` is the venue's time."""

    book: Book
    ts_ns: int


class PublicTrade(msgspec.Struct, frozen=True, kw_only=True):
    """A trade anybody made; price on the YES leg."""

    ticker: str
    trade_id: str
    yes_price: PriceE4
    qty: QtyE2
    taker_side: BookSide
    ts_ns: int


class FillSeen(msgspec.Struct, frozen=True):
    """One of our executions."""

    fill: Fill


class OrderSeen(msgspec.Struct, frozen=True):
    """One of our orders changed in the venue's books."""

    order: VenueOrder


class MarketChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A market opened, closed, was determined or settled; `result` is "yes", "no" or ""."""

    ticker: str
    status: str
    result: str = ""
    ts_ns: int = 0


class StreamGap(msgspec.Struct, frozen=True, kw_only=True):
    """Something was missed.

    Books of *tickers* are stale until their next snapshot; with `private`, read orders and fills again.
    """

    reason: str
    tickers: tuple[str, ...] = ()
    private: bool = False


class VenueTime(msgspec.Struct, frozen=True, kw_only=True):
    """A venue that owns the market's clock says what time it is.

    The venue waits until `Venue.quiescent(n)` is called: everything it caused has been dealt with.
    """

    n: int
    ts_ns: int
    final: bool = False


class GreeksSeen(msgspec.Struct, frozen=True):
    """Greeks of one contract, from the feed or a model; `ts_ns` is the venue's time."""

    ticker: str
    greeks: Greeks
    ts_ns: int


class UnderlyingSeen(msgspec.Struct, frozen=True):
    """The price of an underlying; `ts_ns` is the venue's time."""

    symbol: str
    price: PriceE4
    ts_ns: int


VenueEvent = (
    BookChanged
    | PublicTrade
    | FillSeen
    | OrderSeen
    | MarketChanged
    | StreamGap
    | VenueTime
    | GreeksSeen
    | UnderlyingSeen
)


class DedupProfile(StrEnum):
    """Which orders a repeated client order id is refused against.

    Declare no more than the venue keeps: under ALL, every order it ever had, a lost one is sent again.
    """

    NONE = "none"
    OPEN_ONLY = "open-only"
    ALL = "all"


class PlacementPermit(Protocol):
    """Leave to place one order now; settled by `place`, or given back with `ignored`."""

    def ignored(self) -> None:
        """Give it back: nothing was sent."""
        ...


class Venue(Protocol):
    """One account at one venue."""

    @property
    def name(self) -> str:
        """Short name: "kalshi"."""
        ...

    @property
    def dedup(self) -> DedupProfile:
        """What the venue does with a repeated client order id."""
        ...

    def placement_permit(self, ticker: str, *, reducing: bool) -> PlacementPermit:
        """Ask the breakers for leave to place. A reducing order always gets it; its result still counts.

        Raises:
            CircuitBreakerOpenError: The venue, or this market's own breaker, is failing.
        """
        ...

    async def place(self, intent: Intent, admission: Admission, permit: PlacementPermit) -> PlaceAnswer:
        """Send once. Spends *admission*, settles *permit* or gives it back.

        Whatever the venue does is one of the four answers. Only cancellation and misuse raise: no gate's
        admission, one spent before or another order's, another venue's permit, no key. Misuse sends nothing.
        """
        ...

    async def cancel(self, *, order_id: str, ticker: str) -> CancelAnswer:
        """Cancel one order; always tried, whatever the breakers say."""
        ...

    async def open_orders(self) -> Sequence[VenueOrder]:
        """Every working order of the account, ours or not."""
        ...

    async def find_order(self, *, client_order_id: str, ticker: str, since_ns: int) -> VenueOrder | None:
        """Search working and closed orders for a client order id, matched locally.

        *since_ns* (UTC) bounds the search and may be generous, 0 searches everything. None means not listed, which
        is not yet a proof of absence.
        """
        ...

    async def order(self, order_id: str) -> VenueOrder | None:
        """One order by the venue's id; None if the venue does not know it."""
        ...

    async def fills(self, *, since_ns: int) -> Sequence[Fill]:
        """Our fills since *since_ns* (UTC, inclusive; those without a time too), oldest first."""
        ...

    async def positions(self) -> dict[str, QtyE2]:
        """Signed YES quantity by ticker, without flat ones; of a combination its legs."""
        ...

    async def balance(self) -> MoneyE6:
        """Cash available."""
        ...

    async def instrument(self, ticker: str, *, regardless: bool = False) -> Instrument:
        """One market's rules as they stand now.

        Args:
            ticker: The market.
            regardless: Ask although a breaker is open; the outcome still counts. For the rules of what is held or
                worked in, on which an exit depends.

        Raises:
            VenueRejected: No such market, status 404, code "not_found".
            VenueError: They could not be read.
            CircuitBreakerOpenError: A breaker is open; never with *regardless*.
        """
        ...

    async def book(self, ticker: str) -> Book:
        """A fresh snapshot of one book; `alive_ns` is from before it was asked for.

        Raises:
            VenueError: It could not be read.
            CircuitBreakerOpenError: A breaker is open.
        """
        ...

    async def probe(self) -> None:
        """Ask something idempotent and cheap; its outcome reaches the breaker."""
        ...

    async def tick_probe(self) -> bool:
        """Time moved: send the probe that a breaker waits for, if one is due; True when something was asked.

        Whoever drives time calls this at every tick, so that a breaker closes again where no reads flow. What the
        probe found goes to the breaker alone; only cancellation is raised.
        """
        ...

    def events(self, tickers: Collection[str]) -> AsyncIterator[VenueEvent]:
        """Follow books and trades of *tickers* and everything of ours, reconnecting until closed.

        A stream asked for before ends.

        Raises (while iterated):
            VenueRejected: The venue refuses the key or a channel.
            ConfigError: There is no key.
        """
        ...

    async def follow(self, ticker: str) -> None:
        """Add one market to a running `events`."""
        ...

    async def quiescent(self, n: int) -> None:
        """Tell a venue that owns the clock that everything up to tick *n* is dealt with."""
        ...

    async def close(self) -> None:
        """Let go of connections; resting orders stay."""
        ...
