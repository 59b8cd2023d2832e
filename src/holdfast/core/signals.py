"""From a strategy's wish to an instruction with a name.

A `Signal` is what a strategy asks for, in the words people use: buy or sell, yes or no, the price of the
named side. It carries no authority. An `Intent` is the same wish normalised to the YES leg (buying NO at q
is selling YES at 1 - q), tied to an instrument, and named for life by its client order id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from holdfast.core.errors import BadInput
from holdfast.core.instruments import Instrument
from holdfast.core.money import PriceE4, QtyE2, complement, parse_price, parse_qty

_LAST_NS = 1 << 63


class Side(StrEnum):
    """The outcome a contract pays on."""

    YES = "yes"
    NO = "no"


class Action(StrEnum):
    """Acquire or give up."""

    BUY = "buy"
    SELL = "sell"


class BookSide(StrEnum):
    """Side of the YES book: a bid buys YES, an ask sells it."""

    BID = "bid"
    ASK = "ask"

    @property
    def sign(self) -> int:
        """+1 for a bid, -1 for an ask: what a fill adds to the position."""
        return 1 if self is BookSide.BID else -1


class TimeInForce(StrEnum):
    """How long an order may work."""

    GTC = "gtc"
    IOC = "ioc"
    FOK = "fok"


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy's wish.

    Attributes:
        ticker: The market.
        side: The named outcome.
        action: Buy or sell that outcome.
        count: Contracts, in 1/100.
        price: Limit price of the named side, in 1/10,000 dollar.
        tif: Time in force.
        key: The caller's own name for this wish; "" lets the run number it.
        strategy: Who wishes.
        post_only: Refuse rather than take.
        expiration_ns: A resting order ends then, UTC ns; 0 for never.
        reduce_only: The caller declares that this only closes.
    """

    ticker: str
    side: Side
    count: QtyE2
    price: PriceE4
    action: Action = Action.BUY
    tif: TimeInForce = TimeInForce.IOC
    key: str = ""
    strategy: str = "default"
    post_only: bool = False
    expiration_ns: int = 0
    reduce_only: bool = False

    def __post_init__(self) -> None:
        """Refuse what is not an integer in its unit: the type alone does not stop a float.

        Raises:
            BadInput: A float, a truth value or text where an integer belongs; an expiration before 1970 or
                after 2262.
        """
        if type(self.count) is not int or type(self.price) is not int or type(self.expiration_ns) is not int:
            for name in ("count", "price", "expiration_ns"):
                if type(value := getattr(self, name)) is not int:
                    raise BadInput(
                        f"signal's {name} {value!r} is a {type(value).__name__}, expected an integer",
                        hint="read_signal reads people's numbers; in a Signal count is in 1/100 contract, price in 1/10,000 dollar",
                    )
        for name, words in (("side", Side), ("action", Action), ("tif", TimeInForce)):
            if type(value := getattr(self, name)) is not words:
                raise BadInput(
                    f"signal's {name} {value!r} is a {type(value).__name__}, expected a {words.__name__}",
                    hint=f"{words.__name__}({str(value)!r}), or read_signal for words as text",
                )
        if not 0 <= self.expiration_ns < _LAST_NS:
            raise BadInput(f"signal's expiration_ns {self.expiration_ns} is no time between 1970 and 2262")

    @property
    def book_side(self) -> BookSide:
        """Buying YES or selling NO bids for YES; the other two ask."""
        return BookSide.BID if (self.action is Action.BUY) == (self.side is Side.YES) else BookSide.ASK

    @property
    def yes_price(self) -> PriceE4:
        """The limit as a YES price."""
        return self.price if self.side is Side.YES else complement(self.price)


def read_price(value: object) -> PriceE4:
    """A price as the public surface takes it: int is cents, str or Decimal is dollars, float is refused.

    Raises:
        BadInput: Anything else, or too many digits.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return PriceE4(value * 100)
    if isinstance(value, str | Decimal):
        return parse_price(value)
    raise BadInput(
        f"price {value!r} is a {type(value).__name__}, expected int cents, or text or Decimal in dollars",
        hint="write 56 or '0.56'; a float cannot hold cents exactly",
    )


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise BadInput(f"{name} {value!r} is a {type(value).__name__}, expected true or false")
    return value


_Word = TypeVar("_Word", bound=StrEnum)


def _one_of(words: type[_Word], name: str, value: object) -> _Word:
    if isinstance(value, str) and value in set(words):
        return words(value)
    raise BadInput(f"{name} {value!r} is none of {', '.join(words)}")


_FIELDS = frozenset(Signal.__struct_fields__) | {"intent"}


def read_signal(fields: Mapping[str, Any]) -> Signal:
    """A signal from a mapping with `ticker`, `count`, `price`, `side`, and optionally the other fields.

    `intent` is another name for `key`. Unknown fields are refused, so that a misspelt limit is never lost.

    Raises:
        BadInput: A field is missing, unknown or unreadable; the message names it.
    """
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        raise BadInput(f"unknown field {unknown[0]!r} in signal", hint=f"known: {', '.join(sorted(_FIELDS))}")
    if fields.get("key") and fields.get("intent") and fields["key"] != fields["intent"]:
        raise BadInput(f"signal has two names, key {fields['key']!r} and intent {fields['intent']!r}")
    for name in ("ticker", "side", "count", "price"):
        if name not in fields:
            raise BadInput(f"signal lacks {name!r}")
    ticker, key, strategy = (
        fields["ticker"],
        fields.get("key") or fields.get("intent") or "",
        fields.get("strategy", "default"),
    )
    for name, value in (("ticker", ticker), ("key", key), ("strategy", strategy)):
        if not isinstance(value, str) or len(value) > 200 or (name == "ticker" and not value):
            raise BadInput(f"{name} {value!r} must be text of at most 200 characters")
    try:
        return Signal(
            ticker=ticker,
            side=_one_of(Side, "side", fields["side"]),
            count=parse_qty(fields["count"]),
            price=read_price(fields["price"]),
            action=_one_of(Action, "action", fields.get("action", "buy")),
            tif=_one_of(TimeInForce, "tif", fields.get("tif", "ioc")),
            key=key,
            strategy=strategy,
            post_only=_flag(fields, "post_only"),
            expiration_ns=fields.get("expiration_ns", 0),
            reduce_only=_flag(fields, "reduce_only"),
        )
    except BadInput:
        raise
    except (TypeError, ValueError) as error:
        raise BadInput(f"signal cannot be read: {error}") from error


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A named, normalised instruction, before anyone allowed it.

    Attributes:
        client_order_id: Its name at the venue, `core.ids`.
        key: What it was derived from, unique per strategy and log.
        signal: The wish as given.
        instrument: What it trades, as read from the venue.
    """

    client_order_id: str
    key: str
    signal: Signal
    instrument: Instrument

    @property
    def ticker(self) -> str:
        """The market."""
        return self.signal.ticker

    @property
    def book_side(self) -> BookSide:
        """Side of the YES book."""
        return self.signal.book_side

    @property
    def yes_price(self) -> PriceE4:
        """Limit as a YES price."""
        return self.signal.yes_price

    @property
    def count(self) -> QtyE2:
        """Contracts, in 1/100."""
        return self.signal.count

    @property
    def delta(self) -> QtyE2:
        """What a full fill adds to the signed YES position."""
        return QtyE2(self.book_side.sign * self.count)

    def content_digest(self) -> str:
        """Tells the same wish from another under the same key: SHA-256 of the canonical signal, 16 hex."""
        return content_digest(self.signal)


def content_digest(signal: Signal) -> str:
    """SHA-256 over everything that reaches the venue, first 16 hex; key and strategy are not content."""
    facts = (
        signal.ticker,
        signal.book_side,
        signal.yes_price,
        signal.count,
        signal.tif,
        signal.post_only,
        signal.expiration_ns,
        signal.reduce_only,
    )
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:16]
