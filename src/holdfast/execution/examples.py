"""Four small strategies that show what a strategy offers; `holdfast paper` trades them.

They are examples, not advice: none of them expects to earn anything. Each holds only what it was told by
callbacks, asks for time nowhere, and returns signals; it cannot send, cancel or look at the account. Equal
input gives equal signals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.core.clock import NANOS
from holdfast.core.money import ONE_DOLLAR_E4, PriceE4, QtyE2, complement
from holdfast.core.orders import Fill
from holdfast.core.signals import Action, Side, Signal, TimeInForce
from holdfast.execution.strategy import Strategy
from holdfast.execution.venue import Book, PublicTrade

_CENT = PriceE4(100)


class _Remembering(Strategy):
    """Remembers each market's book and the inventory this strategy built in it."""

    def __init__(self) -> None:
        self._books: dict[str, Book] = {}
        self._held: dict[str, int] = {}

    def on_book(self, book: Book) -> Iterable[Signal]:
        """Remember the book."""
        self._books[book.ticker] = book
        return ()

    def on_fill(self, fill: Fill) -> Iterable[Signal]:
        """Remember the inventory."""
        self._held[fill.ticker] = self._held.get(fill.ticker, 0) + fill.delta
        return ()


class JoinTheBid(_Remembering):
    """Rests a small buy at the best bid of each market, for a minute, and quotes again when it is gone.

    With inventory it rests a sell at the best ask instead.
    """

    name = "join-bid"

    def __init__(self, *, size: QtyE2 = QtyE2(500), rest_secs: int = 60, every_secs: int = 75) -> None:
        super().__init__()
        self._size = size
        self._rest_ns = rest_secs * NANOS
        self._every_ns = every_secs * NANOS
        self._next_ns: dict[str, int] = {}

    def on_tick(self, now_ns: int) -> Iterable[Signal]:
        """Quote each market once a period."""
        signals: list[Signal] = []
        for ticker, book in self._books.items():
            selling = self._held.get(ticker, 0) >= self._size
            price = book.best_ask if selling else book.best_bid
            if now_ns < self._next_ns.get(ticker, 0) or price is None:
                continue
            self._next_ns[ticker] = now_ns + self._every_ns
            signals.append(
                Signal(
                    ticker=ticker,
                    side=Side.YES,
                    action=Action.SELL if selling else Action.BUY,
                    count=self._size,
                    price=price,
                    tif=TimeInForce.GTC,
                    post_only=True,
                    expiration_ns=(now_ns + self._rest_ns) // NANOS * NANOS,
                    strategy=self.name,
                )
            )
        return signals


class FollowTheTape(_Remembering):
    """Takes in the direction of the last prints when enough of them agree, and leaves when they turn."""

    name = "follow-tape"

    def __init__(self, *, size: QtyE2 = QtyE2(300), window: int = 8, rest_secs: int = 20) -> None:
        super().__init__()
        self._size = size
        self._window = window
        self._pause_ns = rest_secs * NANOS
        self._signs: dict[str, list[int]] = {}
        self._next_ns: dict[str, int] = {}

    def on_trade(self, trade: PublicTrade) -> Iterable[Signal]:
        """Act when the window is one-sided."""
        signs = self._signs.setdefault(trade.ticker, [])
        signs.append(trade.taker_side.sign)
        del signs[: -self._window]
        book = self._books.get(trade.ticker)
        lean = sum(signs)
        if book is None or abs(lean) < self._window // 2 or trade.ts_ns < self._next_ns.get(trade.ticker, 0):
            return ()
        self._next_ns[trade.ticker] = trade.ts_ns + self._pause_ns
        held = self._held.get(trade.ticker, 0)
        if lean > 0 and held <= 3 * self._size and book.best_ask is not None:
            return (self._take(trade.ticker, Side.YES, book.best_ask),)
        if lean < 0 and held >= -3 * self._size and book.best_bid is not None:
            return (self._take(trade.ticker, Side.NO, complement(book.best_bid)),)
        return ()

    def _take(self, ticker: str, side: Side, price: PriceE4) -> Signal:
        limit = PriceE4(min(price + _CENT, ONE_DOLLAR_E4 - _CENT))
        return Signal(ticker=ticker, side=side, count=self._size, price=limit, strategy=self.name)


class BuyTheFavorite(_Remembering):
    """Buys a little of whichever outcome the book calls likely, on a fixed rhythm, up to a cap per market."""

    name = "favorite"

    def __init__(self, *, size: QtyE2 = QtyE2(200), most: QtyE2 = QtyE2(2000), every_secs: int = 45) -> None:
        super().__init__()
        self._size = size
        self._most = most
        self._every_ns = every_secs * NANOS
        self._next_ns = 0
        self._turn = 0

    def on_tick(self, now_ns: int) -> Iterable[Signal]:
        """Buy in the next market of the round."""
        if now_ns < self._next_ns or not self._books:
            return ()
        self._next_ns = now_ns + self._every_ns
        book = self._books[sorted(self._books)[self._turn % len(self._books)]]
        self._turn += 1
        bid, ask = book.best_bid, book.best_ask
        if bid is None or ask is None or abs(self._held.get(book.ticker, 0)) >= self._most:
            return ()
        likely_yes = bid + ask >= ONE_DOLLAR_E4
        return (
            Signal(
                ticker=book.ticker,
                side=Side.YES if likely_yes else Side.NO,
                count=self._size,
                price=ask if likely_yes else complement(bid),
                strategy=self.name,
            ),
        )


class Overreach(_Remembering):
    """Asks once, after *after_secs*, for far more than any limit allows: the order that must be refused."""

    name = "overreach"

    def __init__(self, *, size: QtyE2 = QtyE2(500_00), after_secs: int = 200) -> None:
        super().__init__()
        self._size = size
        self._after_ns = after_secs * NANOS
        self._due_ns = 0
        self._asked = False

    def on_tick(self, now_ns: int) -> Iterable[Signal]:
        """Ask once, in the first market that has somebody to buy from."""
        self._due_ns = self._due_ns or now_ns + self._after_ns
        if self._asked or now_ns < self._due_ns:
            return ()
        for ticker, book in sorted(self._books.items()):
            if book.best_ask is not None:
                self._asked = True
                wish = Signal(
                    ticker=ticker, side=Side.YES, count=self._size, price=book.best_ask, strategy=self.name
                )
                return (wish,)
        return ()


def paper_strategies() -> Sequence[Strategy]:
    """What `holdfast paper` trades when no strategy is named."""
    return (JoinTheBid(), FollowTheTape(), BuyTheFavorite(), Overreach())
