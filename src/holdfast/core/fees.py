"""Kalshi's trading fee: a schedule as data, a fold over the fills of one order, and a bound to reserve.

Every fill pays three parts, all in integer micro-dollars:

    trade fee     rate x multiplier x C x P x (1 - P), rounded up
    rounding fee  what brings the balance back to the account's precision: with
                  balance_change = revenue - trade_fee (revenue is negative for a buyer),
                  rounding_fee = balance_change - floor(balance_change to the precision)
    rebate        rounding fees of an order add up in an accumulator that pays them back in whole steps,
                  never so much that the net fee of a fill falls below zero
    net fee       trade fee + rounding fee - rebate

The venue has published two editions of the rounding, both kept here as data (`FeeRounding`):

    CENTICENT  trade fee up to $0.0001; once the accumulator *exceeds* one cent, a whole cent comes back
    MICRO      trade fee up to $0.000001; whole units of the account's precision come back once reached
               (the page since API 3.29, August 2026)

CENTICENT is the default: its trade fee is never the lower one. Limits: the venue publishes no table for its
fee type `flat`; such a market is refused by name unless its fee per contract is given.

Source: docs.kalshi.com/getting_started/fee_rounding, both editions (their worked examples are tests); the
shares that makers pay: docs.kalshi.com/api-reference/market/get-series, "fee_type".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from holdfast.core.errors import BadInput
from holdfast.core.money import ONE_DOLLAR_E4, MoneyE6, PriceE4, QtyE2, notional

CENT_E6 = MoneyE6(10_000)
CENTICENT_E6 = MoneyE6(100)
TAKER_RATE_E4 = 700
MAKER_RATE_E4 = 175
COMBO_MAKER_RATE_E4 = 350
_NOTHING = MoneyE6(0)
_HALF_DOLLAR = PriceE4(5_000)
# rate E4 x multiplier E4 x quantity E2 x price E4 x price E4, in units of $0.000001
_MICRO_DENOMINATOR = 10 ** (4 + 4 + 2 + 4 + 4 - 6)


class FeeType(StrEnum):
    """The venue's names for its fee models."""

    QUADRATIC = "quadratic"
    QUADRATIC_WITH_MAKER_FEES = "quadratic_with_maker_fees"
    QUADRATIC_WITH_COMBO_MAKER_FEES = "quadratic_with_combo_maker_fees"
    FLAT = "flat"


MAKER_RATES_E4: Mapping[FeeType, int] = {
    FeeType.QUADRATIC: 0,
    FeeType.QUADRATIC_WITH_MAKER_FEES: MAKER_RATE_E4,
    FeeType.QUADRATIC_WITH_COMBO_MAKER_FEES: COMBO_MAKER_RATE_E4,
}


class FeeRounding(StrEnum):
    """The edition of the venue's rounding rules; see the top of this file."""

    CENTICENT = "0.0001"
    MICRO = "0.000001"

    @property
    def unit(self) -> MoneyE6:
        """What a trade fee is rounded up to."""
        return CENTICENT_E6 if self is FeeRounding.CENTICENT else MoneyE6(1)


class BalancePrecision(StrEnum):
    """What an account's balance is a multiple of."""

    CENT = "0.01"
    CENTICENT = "0.0001"

    @property
    def unit(self) -> MoneyE6:
        """The precision as money."""
        return CENT_E6 if self is BalancePrecision.CENT else CENTICENT_E6


class FeeParts(NamedTuple):
    """What one fill cost; `net` = `trade_fee` + `rounding_fee` - `rebate`, never negative."""

    trade_fee: MoneyE6
    rounding_fee: MoneyE6
    rebate: MoneyE6
    net: MoneyE6


def _multiplier_e4(value: str | float | Decimal) -> int:
    """A fee multiplier in 1/10,000, exactly; it is a ratio, so a float is read by its shortest text."""
    try:
        scaled = Decimal(str(value)) * 10_000
        exact = int(scaled)
    except (ArithmeticError, ValueError):
        raise BadInput(f"fee multiplier {str(value)[:40]!r} is not a finite number") from None
    if exact != scaled or not 0 <= exact <= 1_000_000:
        raise BadInput(f"fee multiplier {value} is outside 0 to 100 or has more than 4 decimal places")
    return exact


@dataclass(frozen=True, slots=True)
class KalshiFees:
    """The fee schedule of one market, as data on its instrument.

    Attributes:
        fee_type: The venue's model; default `quadratic`: takers pay, makers do not.
        multiplier_e4: The series' fee multiplier in 1/10,000; default 10,000 (one).
        flat_fee: Dollars per whole contract, both sides, for `flat` alone; there is no default.
        rounding: The edition of the rounding rules; default CENTICENT.
    """

    fee_type: FeeType = FeeType.QUADRATIC
    multiplier_e4: int = 10_000
    flat_fee: MoneyE6 | None = None
    rounding: FeeRounding = FeeRounding.CENTICENT

    def __post_init__(self) -> None:
        if (self.fee_type is FeeType.FLAT) != (self.flat_fee is not None):
            raise BadInput(
                f"fee type {self.fee_type.value!r} with flat fee {self.flat_fee}",
                hint="the venue publishes no table for 'flat'; give the fee per contract, and only there",
            )
        if self.multiplier_e4 < 0 or (self.flat_fee is not None and self.flat_fee < 0):
            raise BadInput(f"fee multiplier {self.multiplier_e4} or flat fee {self.flat_fee} is negative")

    @classmethod
    def of(cls, fee_type: str, multiplier: str | float | Decimal = 1) -> KalshiFees:
        """The schedule the venue's `fee_type` and `fee_multiplier` name.

        Raises:
            BadInput: An unknown type, a multiplier that is not a plain ratio, or `flat` (no published amount).
        """
        try:
            known = FeeType(fee_type)
        except ValueError:
            raise BadInput(
                f"fee type {fee_type[:40]!r} is unknown, expected one of {', '.join(FeeType)}"
            ) from None
        return cls(known, _multiplier_e4(multiplier))

    def trade_fee(self, price: PriceE4, qty: QtyE2, *, is_taker: bool) -> MoneyE6:
        """The fee of the model for one fill, rounded up to the rounding's unit.

        The YES and the NO price give the same fee.

        Raises:
            BadInput: *price* outside 0 to 1 dollar or *qty* negative.
        """
        if not 0 <= price <= ONE_DOLLAR_E4 or qty < 0:
            raise BadInput(f"no fee for price {price} (1/10,000 dollar) and quantity {qty} (1/100 contract)")
        unit = self.rounding.unit
        steps = -(-self._micro_numerator(price, qty, is_taker=is_taker) // (_MICRO_DENOMINATOR * unit))
        return MoneyE6(steps * unit)

    def fee_bound(
        self,
        price: PriceE4,
        qty: QtyE2,
        n_fills: int | None = None,
        *,
        buys: bool | None = None,
        precision: BalancePrecision = BalancePrecision.CENT,
    ) -> MoneyE6:
        """The most that an order can pay in fees: what to reserve.

        A fill may come at a better price than the limit, where P x (1 - P) can be larger: a buy at 0.90 that
        fills at 0.50 pays more fee. The bound takes the dearest price the order can meet.

        Args:
            price: Limit of the YES leg, 0 to 1 dollar.
            qty: Quantity of the order.
            n_fills: The most fills that the order can be cut into; None is one for every 1/100 contract.
            buys: True when it buys YES, False when it sells YES, None for either.
            precision: Of the account.

        Raises:
            BadInput: *price* outside 0 to 1 dollar, *qty* negative, or *n_fills* below 1.
        """
        if n_fills is not None and n_fills < 1:
            raise BadInput(f"an order of {n_fills} fills has no fee bound, expected at least 1")
        if not 0 <= price <= ONE_DOLLAR_E4 or qty < 0:
            raise BadInput(f"no fee for price {price} (1/10,000 dollar) and quantity {qty} (1/100 contract)")
        if qty == 0:
            return MoneyE6(0)
        fills = qty if n_fills is None else min(n_fills, qty)
        dearest = _HALF_DOLLAR
        if buys is not None:
            dearest = min(price, _HALF_DOLLAR) if buys else max(price, _HALF_DOLLAR)
        whole = self.trade_fee(dearest, qty, is_taker=True)
        # Rounding up in n pieces costs at most n - 1 units more than rounding up once; each fill's rounding
        # fee stays below the precision. Rebates are not counted on.
        return MoneyE6(whole + (fills - 1) * self.rounding.unit + fills * (precision.unit - 1))

    def _micro_numerator(self, price: PriceE4, qty: QtyE2, *, is_taker: bool) -> int:
        if self.flat_fee is not None:
            return self.flat_fee * qty * self.multiplier_e4 * 10**6
        rate = TAKER_RATE_E4 if is_taker else MAKER_RATES_E4[self.fee_type]
        return rate * self.multiplier_e4 * qty * price * (ONE_DOLLAR_E4 - price)


@dataclass(slots=True)
class OrderFees:
    """The fees of one order: a fold over its fills, taker and maker alike.

    Attributes:
        schedule: Of the market at the time of the fills.
        precision: Of the account; default one cent, direct members have $0.0001.
        accumulated: Rounding fees not yet given back.
        net: Everything paid so far.
    """

    schedule: KalshiFees
    precision: BalancePrecision = BalancePrecision.CENT
    accumulated: MoneyE6 = _NOTHING
    net: MoneyE6 = _NOTHING

    def add(self, price: PriceE4, qty: QtyE2, *, buys: bool, is_taker: bool) -> FeeParts:
        """Book one fill and return what it cost.

        Args:
            price: Of the leg traded. Selling YES at p and buying NO at 1 - p cost the same.
            qty: Of the fill, above 0.
            buys: True when cash leaves the account for the leg.
            is_taker: Whether the order crossed the book.

        Raises:
            BadInput: *price* outside 0 to 1 dollar or *qty* not positive; nothing is booked.
        """
        if qty <= 0:
            raise BadInput(f"a fill of {qty} (1/100 contract) is not above 0")
        trade_fee = self.schedule.trade_fee(price, qty, is_taker=is_taker)
        revenue = notional(price, qty)
        return self.book(MoneyE6(-revenue if buys else revenue), trade_fee)

    def book(self, revenue: MoneyE6, trade_fee: MoneyE6) -> FeeParts:
        """Book one fill whose trade fee is known; *revenue* is negative for a buyer."""
        rounding_fee = (revenue - trade_fee) % self.precision.unit
        charged = trade_fee + rounding_fee
        accumulated = self.accumulated + rounding_fee
        rebate = self._rebate(accumulated, charged)
        self.accumulated = MoneyE6(accumulated - rebate)
        self.net = MoneyE6(self.net + charged - rebate)
        return FeeParts(trade_fee, MoneyE6(rounding_fee), MoneyE6(rebate), MoneyE6(charged - rebate))

    def _rebate(self, accumulated: int, charged: int) -> int:
        if self.schedule.rounding is FeeRounding.CENTICENT:
            due = max(0, accumulated - 1) // CENT_E6 * CENT_E6
            return min(due, charged // CENT_E6 * CENT_E6)
        step = self.precision.unit
        return min(accumulated, charged) // step * step
