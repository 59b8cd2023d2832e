"""Money, price and quantity as integers in a named unit.

| type      | unit            | written as | example        |
| --------- | --------------- | ---------- | -------------- |
| `PriceE4` | 1/10,000 dollar | "0.5600"   | 5600           |
| `QtyE2`   | 1/100 contract  | "10.00"    | 1000           |
| `MoneyE6` | 1/1,000,000 dollar | "620.00" | 620_000_000   |

The product of a price and a quantity is money, exactly: 1e-4 x 1e-2 = 1e-6. Text is read without float;
trailing zeros pass, other excess digits are refused, as are exponents, signs where none belong, NaN and
infinities. The types are `NewType` over int: free at run time, told apart by the type checker.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NewType

from holdfast.core.errors import BadInput

PriceE4 = NewType("PriceE4", int)
QtyE2 = NewType("QtyE2", int)
MoneyE6 = NewType("MoneyE6", int)

ONE_DOLLAR_E4 = PriceE4(10_000)
ONE_DOLLAR_E6 = MoneyE6(1_000_000)
ONE_CONTRACT_E2 = QtyE2(100)

_PLAIN = re.compile(r"(-?)(\d{1,15})(?:\.(\d{1,18}))?", re.ASCII)


def _fixed(value: object, places: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, str | Decimal | int):
        raise BadInput(
            f"{what} {value!r} is a {type(value).__name__}, expected text such as '0.56' or a Decimal",
            hint="binary floating point cannot hold cents; pass the number as a string",
        )
    text = format(value, "f") if isinstance(value, Decimal) else str(value)
    match = _PLAIN.fullmatch(text)
    if match is None:
        raise BadInput(
            f"{what} {text[:40]!r} is not a plain decimal number", hint="digits and one point, such as '0.56'"
        )
    sign, whole, fraction = match[1], match[2], (match[3] or "").rstrip("0")
    if len(fraction) > places:
        raise BadInput(
            f"{what} {text[:40]!r} has more than {places} decimal places",
            hint="nothing is rounded here; round it where you know which way",
        )
    magnitude: int = int(whole) * 10**places + int(fraction.ljust(places, "0") or "0")
    return -magnitude if sign else magnitude


def _text(value: int, places: int, shown: int) -> str:
    sign = "-" if value < 0 else ""
    whole, fraction = divmod(abs(value), 10**places)
    digits = str(fraction).rjust(places, "0").rstrip("0").ljust(shown, "0")
    return f"{sign}{whole}.{digits}"


def parse_price(value: str | Decimal, what: str = "price") -> PriceE4:
    """Dollars as text or Decimal, at most four decimal places, of any sign.

    Raises:
        BadInput: Not a plain decimal number, a float, or too many digits.
    """
    return PriceE4(_fixed(value, 4, what))


def parse_qty(value: str | Decimal | int, what: str = "count") -> QtyE2:
    """Contracts as text, Decimal or whole int, at most two decimal places, of any sign.

    Raises:
        BadInput: Not a plain decimal number, a float, or too many digits.
    """
    return QtyE2(_fixed(value, 2, what))


def parse_money(value: str | Decimal | int, what: str = "amount") -> MoneyE6:
    """Dollars as text, Decimal or whole int, at most six decimal places, of any sign.

    Raises:
        BadInput: Not a plain decimal number, a float, or too many digits.
    """
    return MoneyE6(_fixed(value, 6, what))


def format_price(price: PriceE4) -> str:
    """Always four places, as Kalshi writes prices: "0.5600"."""
    return _text(price, 4, 4)


def format_qty(qty: QtyE2) -> str:
    """Always two places, as Kalshi writes counts: "10.00"."""
    return _text(qty, 2, 2)


def format_money(money: MoneyE6) -> str:
    """Two places, more only where they are not zero: "620.00", "0.4375"."""
    return _text(money, 6, 2)


def notional(price: PriceE4, qty: QtyE2) -> MoneyE6:
    """Price x quantity, exactly; the sign is the product's."""
    return MoneyE6(price * qty)


def complement(price: PriceE4) -> PriceE4:
    """The NO price of a YES price and the other way round: one dollar less it."""
    return PriceE4(ONE_DOLLAR_E4 - price)
