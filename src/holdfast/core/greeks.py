"""What one option contract's price does when the world moves, as integers.

Per one unit of the underlying and long one contract; whoever holds n contracts of multiplier m multiplies by both.
A Greek that nobody could compute has no value here: its whole `Greeks` is absent, and absent is unknown.
"""

from __future__ import annotations

import msgspec

FEED = "feed"
MODEL = "model"


class Greeks(msgspec.Struct, frozen=True):
    """Sensitivities of one contract, in 1/1,000,000.

    Attributes:
        delta_e6: Per dollar of the underlying.
        gamma_e6: Change of delta per dollar of the underlying.
        vega_e6: Dollars per point of volatility.
        theta_e6: Dollars per calendar day.
        iv_e6: Implied volatility, 0.25 = 250,000; 0 where it is not known.
        source: "feed" or "model".
        as_of_ns: When the prices they rest on were true, clock monotonic.
    """

    delta_e6: int
    gamma_e6: int
    vega_e6: int
    theta_e6: int
    iv_e6: int
    source: str
    as_of_ns: int
