"""The outcome of one check, and the units it is written in.

`value > bound` refuses, equal passes, everywhere. A row says what was measured, against which bound, and
whether it passes; the checks of one order are in `checks`, those of a portfolio in `portfolio_rows`.
"""

from __future__ import annotations

import msgspec

from holdfast.core.reasons import Code

CONTRACTS = "contracts"
USD = "USD"
MILLIS = "ms"
STATE = "state"
SHARES = "shares"
POSITIONS = "positions"


class Row(msgspec.Struct, frozen=True, gc=False):
    """One check.

    Attributes:
        code: What it refuses as.
        scope: What it concerns: a ticker, a symbol, "account".
        value: Measured; in 1/100 contract, 1e-6 dollar, 1e-6 share-equivalent, ns, or a state's rank.
        bound: Held against it, same unit.
        unit: "contracts", "USD", "shares", "positions", "ms", "state" or "", as the record writes them.
        ok: Whether it passes.
    """

    code: Code
    scope: str
    value: int
    bound: int
    unit: str
    ok: bool
