"""The order as every check reads it: the wish of an intent, turned once to the side of the book that it takes."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.core.instruments import Instrument, InstrumentKind
from holdfast.core.money import ONE_DOLLAR_E4, PriceE4, QtyE2, complement
from holdfast.core.signals import Action, Intent, Side, Signal

# Looking a member up on its enum costs more than a comparison.
_BINARY: Final = InstrumentKind.BINARY
_BUY: Final = Action.BUY
_YES: Final = Side.YES


class Terms(msgspec.Struct, frozen=True, gc=False):
    """An intent as the checks read it, on the YES leg, derived once.

    Attributes:
        ticker: The market.
        is_bid: Whether it buys YES.
        yes_price: Limit, 1/10,000 dollar.
        qty: 1/100 contract.
        value: Count times the price paid, 1e-6 dollar: a bid pays the YES price, an ask the NO price. Of every
            other kind: count times the price without its sign times the multiplier.
        reduce_only: As its sender declares.
        instrument: The market's rules.
    """

    ticker: str
    is_bid: bool
    yes_price: PriceE4
    qty: QtyE2
    value: int
    reduce_only: bool
    instrument: Instrument

    @classmethod
    def of(cls, intent: Intent) -> Terms:
        """The terms of *intent*."""
        signal, instrument = intent.signal, intent.instrument
        if instrument.kind is not _BINARY:
            return cls._of_contract(signal, instrument)
        price, qty = signal.price, signal.count
        is_yes, buys = signal.side is _YES, signal.action is _BUY
        # Who buys pays the price of the side named; who sells pays the other one's.
        paid = price if buys else ONE_DOLLAR_E4 - price
        yes_price = price if is_yes else complement(price)
        return cls(
            signal.ticker,
            buys is is_yes,
            yes_price,
            qty,
            paid * qty,
            signal.reduce_only,
            instrument,
        )

    @classmethod
    def _of_contract(cls, signal: Signal, instrument: Instrument) -> Terms:
        value = abs(signal.price) * signal.count * instrument.multiplier
        buys = signal.action is _BUY
        return cls(signal.ticker, buys, signal.price, signal.count, value, signal.reduce_only, instrument)
