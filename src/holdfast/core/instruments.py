"""What can be traded: identity, tick grid, step, event, and what it costs.

An `Instrument` is a value read from the venue once and refreshed when the venue says it changed. Its rules
are data: no code branches on the name of a tick structure or a series.
"""

from __future__ import annotations

import msgspec

from holdfast.core.money import ONE_DOLLAR_E4, PriceE4, QtyE2
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
        multiplier: Units of the underlying per contract; 1 for event contracts.
        taker_fee_ppm, maker_fee_ppm: Rate of the quadratic fee, in parts per million (70_000 = 0.07).
        is_open: Whether the venue accepts orders now.
        close_ns: When trading ends, UTC ns, or 0 where the venue does not say.
        status: The venue's own word.
        result: "yes", "no", or "" while undetermined.
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

    def check_price(self, price: PriceE4) -> RejectReason | None:
        """Refuse a YES price outside (0, 1) or off the grid."""
        if not 0 < price < ONE_DOLLAR_E4:
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
