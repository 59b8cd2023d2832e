"""What the recorded or seeded market shows and has not yet been taken by us: two kinds, one interface.

Prices are YES prices; a side is a `BookSide` of the YES book. Sizes are in 1/100 contract.

`Depth` knows every level. A level has a recorded size R and a part T of it that our accounts have taken;
R - T is on offer. The recording does not know of our trades, so R still contains what we took:

* a restatement of the level to R' (by a delta or a snapshot) leaves T' = min(T, R'): what we took stays
  taken for as long as the recording shows that much, newly arrived size is on offer, and size that the
  recording removes is taken to be what we had left. A level refreshes only by draining to T or below.

`Prints` knows only trades. The one level on offer per side is the price of the latest print whose taker took
from that side, for as long as it is younger than a window and no print on the other side has since shown that
it is gone: at most the size printed there within the window, each contract once. No touch is invented.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, QtyE2
from holdfast.core.signals import BookSide

_BID, _ASK = BookSide.BID, BookSide.ASK
_UNKNOWN = -1
_EMPTY = 0


class Liquidity(Protocol):
    """Size on offer from outside."""

    def size(self, side: BookSide, price: PriceE4) -> int:
        """On offer at *price*, 0 or more."""
        ...

    def best(self, side: BookSide) -> PriceE4 | None:
        """The best price with something on offer."""
        ...

    def levels(self, side: BookSide) -> list[tuple[PriceE4, QtyE2]]:
        """Everything on offer, best price first."""
        ...

    def take(self, side: BookSide, price: PriceE4, qty: int) -> None:
        """Take *qty*, at most `size`, off the offer."""
        ...

    def clear(self) -> None:
        """Forget everything: the market closed."""
        ...


def is_better(side: BookSide, price: int, than: int) -> bool:
    """Whether *price* ranks strictly before *than* on *side*: higher bids, lower asks."""
    return price > than if side is _BID else price < than


class Depth:
    """Every level of a recorded book, less what we took."""

    def __init__(self, ticker: str) -> None:
        self._ticker = ticker
        self._shown: dict[BookSide, dict[int, int]] = {_BID: {}, _ASK: {}}
        self._taken: dict[BookSide, dict[int, int]] = {_BID: {}, _ASK: {}}
        self._best: dict[BookSide, int] = {_BID: _EMPTY, _ASK: _EMPTY}

    def size(self, side: BookSide, price: PriceE4) -> int:
        """On offer at *price*, 0 or more."""
        shown = self._shown[side].get(price, 0)
        taken = self._taken[side]
        return shown - taken.get(price, 0) if taken else shown

    def best(self, side: BookSide) -> PriceE4 | None:
        """The best price with something on offer."""
        best = self._best[side]
        if best == _UNKNOWN:
            best = self._find_best(side)
            self._best[side] = best
        return None if best == _EMPTY else PriceE4(best)

    def levels(self, side: BookSide) -> list[tuple[PriceE4, QtyE2]]:
        """Everything on offer, best price first."""
        taken = self._taken[side]
        offered = (
            (PriceE4(price), QtyE2(shown - taken.get(price, 0))) for price, shown in self._shown[side].items()
        )
        return sorted((level for level in offered if level[1]), reverse=side is _BID)

    def take(self, side: BookSide, price: PriceE4, qty: int) -> None:
        """Take *qty*, at most `size`, off the offer; it stays taken as the module says."""
        taken = self._taken[side]
        taken[price] = taken.get(price, 0) + qty
        if price == self._best[side] and self.size(side, price) == 0:
            self._best[side] = _UNKNOWN

    def change(self, side: BookSide, price: PriceE4, delta: QtyE2) -> int:
        """Move the recorded size by *delta* and return what is on offer there now.

        Raises:
            BadInput: The level would become negative: the feed has a hole.
        """
        levels = self._shown[side]
        shown = levels.get(price, 0) + delta
        if shown < 0:
            raise BadInput(
                f"feed damaged: level would be {shown} in 1/100 contract < 0 "
                f"(ticker={self._ticker}, side={side.value}, yes_price_e4={price})",
                hint="a message is missing before this one; use an undamaged recording",
            )
        if shown:
            levels[price] = shown
        else:
            levels.pop(price, None)
        offered = shown
        taken = self._taken[side]
        if price in taken:
            taken[price] = min(taken[price], shown)
            offered = shown - taken[price]
            if not taken[price]:
                del taken[price]
        best = self._best[side]
        if best != _UNKNOWN:
            if offered:
                if best == _EMPTY or is_better(side, price, best):
                    self._best[side] = price
            elif price == best:
                self._best[side] = _UNKNOWN
        return offered

    def replace(self, side: BookSide, levels: Iterable[tuple[PriceE4, QtyE2]]) -> None:
        """Restate one whole side."""
        self._shown[side] = {price: size for price, size in levels if size}
        restated = self._shown[side]
        kept = {price: min(taken, restated.get(price, 0)) for price, taken in self._taken[side].items()}
        self._taken[side] = {price: taken for price, taken in kept.items() if taken}
        self._best[side] = _UNKNOWN

    def clear(self) -> None:
        """Forget everything: the market closed."""
        for side in (_BID, _ASK):
            self._shown[side] = {}
            self._taken[side] = {}
            self._best[side] = _EMPTY

    def _find_best(self, side: BookSide) -> int:
        taken = self._taken[side]
        shown = self._shown[side]
        offered = [p for p, size in shown.items() if size > taken.get(p, 0)] if taken else shown
        if not offered:
            return _EMPTY
        return max(offered) if side is _BID else min(offered)


class Prints:
    """What recent trades prove to have been on offer."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._price: dict[BookSide, int] = {_BID: _EMPTY, _ASK: _EMPTY}
        # Time and untaken size of each print at that price, oldest first.
        self._seen: dict[BookSide, list[tuple[int, int]]] = {_BID: [], _ASK: []}

    def size(self, side: BookSide, price: PriceE4) -> int:
        """On offer at *price*, 0 or more."""
        return sum(size for _, size in self._seen[side]) if price == self._price[side] else 0

    def best(self, side: BookSide) -> PriceE4 | None:
        """The one price on offer."""
        return PriceE4(self._price[side]) if self._seen[side] else None

    def levels(self, side: BookSide) -> list[tuple[PriceE4, QtyE2]]:
        """At most one level."""
        price = self.best(side)
        return [] if price is None else [(price, QtyE2(self.size(side, price)))]

    def take(self, side: BookSide, price: PriceE4, qty: int) -> None:
        """Take *qty*, at most `size`, off the offer; the youngest prints first, so that the rest ages soonest."""
        del price
        seen = self._seen[side]
        while qty:
            when, size = seen.pop()
            if size > qty:
                seen.append((when, size - qty))
            qty -= min(qty, size)

    def show(self, side: BookSide, price: PriceE4, qty: int, ts_ns: int) -> None:
        """A taker took *qty* from *side* at *price*; *qty* 0 only moves the price and withdraws what it disproves."""
        if price != self._price[side]:
            self._seen[side] = []
            self._price[side] = price
        if qty:
            self._seen[side].append((ts_ns, qty))
        other = _BID if side is _ASK else _ASK
        # An ask at or below a bid cannot stand: the older of the two is gone.
        if self._seen[other] and not is_better(other, price, self._price[other]):
            self._seen[other] = []

    def forget_before(self, ts_ns: int) -> bool:
        """Withdraw what is older than the window at *ts_ns*; whether anything was."""
        oldest = ts_ns - self._window_ns
        changed = False
        for seen in self._seen.values():
            while seen and seen[0][0] < oldest:
                del seen[0]
                changed = True
        return changed

    def clear(self) -> None:
        """Forget everything: the market closed."""
        self._seen = {_BID: [], _ASK: []}
