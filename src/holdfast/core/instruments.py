"""What can be traded: identity, kind, tick grid, step, event, legs, and what it costs.

An `Instrument` is a value read from the venue once and refreshed when the venue says it changed. Its rules
are data: no code branches on the name of a tick structure or a series.

| kind   | its price | a price is |
| ------ | --------- | ---------- |
| BINARY | of YES, pays one dollar or nothing | above 0 and below 1 dollar |
| OPTION | premium per unit of the underlying | above 0 |
| STOCK  | of one share | above 0 |
| COMBO  | what buying one unit costs net, per unit of its multiplier; negative for a credit | any |

For options, combinations and stocks the side YES means the contract itself: buy bids, sell asks.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from holdfast.core.errors import BadInput
from holdfast.core.money import ONE_DOLLAR_E4, MoneyE6, PriceE4, QtyE2
from holdfast.core.options import OptionTerms, combo_ticker
from holdfast.core.reasons import Code, RejectReason


class PriceRange(msgspec.Struct, frozen=True):
    """One stretch of the tick grid: prices start, start + step ... up to and including end."""

    start: PriceE4
    end: PriceE4
    step: PriceE4

    def holds(self, price: PriceE4) -> bool:
        """Whether *price* lies on this stretch."""
        return self.start <= price <= self.end and (price - self.start) % self.step == 0


CENT_GRID = (PriceRange(PriceE4(0), ONE_DOLLAR_E4, PriceE4(100)),)
_FAR = PriceE4(10**9)
PREMIUM_CENTS = (PriceRange(PriceE4(100), _FAR, PriceE4(100)),)
"""Whole cents above zero, for options and stocks."""
COMBO_CENTS = (PriceRange(PriceE4(-_FAR), _FAR, PriceE4(100)),)
"""Whole cents of any sign."""


class InstrumentKind(StrEnum):
    """What a contract is."""

    BINARY = "binary"
    OPTION = "option"
    COMBO = "combo"
    STOCK = "stock"


_BINARY: Final = InstrumentKind.BINARY
_OPTION: Final = InstrumentKind.OPTION
_COMBO: Final = InstrumentKind.COMBO


class ComboLeg(msgspec.Struct, frozen=True):
    """One leg of a combination: *ratio* contracts per unit, bought where positive and sold where negative."""

    instrument: Instrument
    ratio: int


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One market of one venue.

    Attributes:
        venue: Short name, "kalshi".
        ticker: The venue's own name.
        event: The event it belongs to; markets of one event may exclude each other.
        event_exclusive: At most one market of the event pays.
        event_exhaustive: Exactly one market of the event pays (only where the venue says so).
        price_ranges: The tick grid.
        qty_step: Smallest step of a count, in 1/100 contract (100 = whole contracts).
        multiplier: Units of the underlying per contract; 1 for event contracts and shares.
        taker_fee_ppm, maker_fee_ppm: Rate of the quadratic fee, in parts per million (70_000 = 0.07).
        is_open: Whether the venue accepts orders now.
        close_ns: When trading ends, of the day or for ever, UTC ns, or 0 where the venue does not say.
        status: The venue's own word.
        result: "yes", "no", or "" while undetermined.
        kind: What it is.
        option: The terms of an option; None of everything else.
        legs: Of a combination, by ticker; empty of everything else.
        fee_per_contract: Per contract, leg and side; for every kind but BINARY in place of the quadratic fee.
    """

    venue: str
    ticker: str
    event: str = ""
    event_exclusive: bool = False
    event_exhaustive: bool = False
    price_ranges: tuple[PriceRange, ...] = CENT_GRID
    qty_step: QtyE2 = QtyE2(100)
    multiplier: int = 1
    taker_fee_ppm: int = 70_000
    maker_fee_ppm: int = 0
    is_open: bool = True
    close_ns: int = 0
    status: str = "active"
    result: str = ""
    kind: InstrumentKind = _BINARY
    option: OptionTerms | None = None
    legs: tuple[ComboLeg, ...] = ()
    fee_per_contract: MoneyE6 = MoneyE6(0)

    def __post_init__(self) -> None:
        """Refuse what cannot be such a kind.

        Raises:
            BadInput: An option without terms, a combination of nothing, of several underlyings or multipliers or
                under another name than its legs give, or a multiplier below one.
        """
        if self.kind is _BINARY:
            return
        if self.multiplier < 1:
            raise BadInput(f"multiplier {self.multiplier} is below 1 (ticker={self.ticker})")
        if (self.kind is _OPTION) is (self.option is None):
            raise BadInput(
                f"an option has terms and nothing else has (ticker={self.ticker}, kind={self.kind})"
            )
        if (self.kind is _COMBO) is not bool(self.legs):
            raise BadInput(
                f"a combination has legs and nothing else has (ticker={self.ticker}, kind={self.kind})"
            )
        if self.legs:
            name = combo_ticker([(leg.instrument.ticker, leg.ratio) for leg in self.legs])
            if name != self.ticker:
                raise BadInput(f"combination {self.ticker!r} has the legs of {name!r}")
            if len(underlyings := {leg.instrument.underlying for leg in self.legs}) != 1:
                raise BadInput(
                    f"combination {self.ticker!r} has legs on {', '.join(sorted(underlyings))}, expected one underlying"
                )
            if (sizes := {leg.instrument.multiplier for leg in self.legs}) != {self.multiplier}:
                raise BadInput(
                    f"combination {self.ticker!r} of multiplier {self.multiplier} has legs of {sorted(sizes)}"
                )

    @property
    def parts(self) -> tuple[ComboLeg, ...]:
        """What one contract is made of: the legs of a combination, or itself once."""
        return self.legs or (ComboLeg(self, 1),)

    @property
    def underlying(self) -> str:
        """The symbol it depends on: of an option or combination its underlying, a stock itself, "" of an event."""
        if self.option is not None:
            return self.option.underlying
        if self.legs:
            return self.legs[0].instrument.underlying
        return "" if self.kind is _BINARY else self.ticker

    def check_price(self, price: PriceE4) -> RejectReason | None:
        """Refuse a price that this kind cannot have, or that is off the grid."""
        if not (0 < price < ONE_DOLLAR_E4 if self.kind is _BINARY else price > 0 or self.kind is _COMBO):
            return RejectReason(
                code=Code.PRICE_OUT_OF_RANGE, scope=self.ticker, keys={"yes_price_e4": str(price)}
            )
        for stretch in self.price_ranges:
            if stretch.holds(price):
                return None
        return RejectReason(code=Code.PRICE_OFF_GRID, scope=self.ticker, keys={"yes_price_e4": str(price)})

    def check_count(self, qty: QtyE2) -> RejectReason | None:
        """Refuse a count that is not positive or not a whole number of steps."""
        if qty <= 0:
            return RejectReason(code=Code.BAD_COUNT, scope=self.ticker, keys={"count_e2": str(qty)})
        if qty % self.qty_step:
            return RejectReason(
                code=Code.COUNT_BELOW_STEP,
                scope=self.ticker,
                keys={"count_e2": str(qty), "step_e2": str(self.qty_step)},
            )
        return None
