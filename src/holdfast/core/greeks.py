"""What one option contract's price does when the world moves, as integers.

Per one unit of the underlying and long one contract; whoever holds n contracts of multiplier m multiplies by both.
A Greek that nobody could compute has no value here: its whole `Greeks` is absent, and absent is unknown.

Between the two lies what is bounded: of a contract that somebody offers and nobody bids for, the worth lies between
nothing and the ask, and so delta and gamma lie in a range. Whoever holds them against a limit counts the whole range.
"""

from __future__ import annotations

import msgspec

FEED = "feed"
MODEL = "model"
BOUND = "bound"


class Greeks(msgspec.Struct, frozen=True):
    """Sensitivities of one contract, in 1/1,000,000.

    Attributes:
        delta_e6: Per dollar of the underlying; of a range the least.
        gamma_e6: Change of delta per dollar of the underlying; of a range the least.
        vega_e6: Dollars per point of volatility.
        theta_e6: Dollars per calendar day.
        iv_e6: Implied volatility, 0.25 = 250,000; 0 where it is not known.
        source: "feed", "model", or "bound" where delta and gamma are ranges; vega and theta are those at the ask then.
        as_of_ns: When the prices they rest on were true, clock monotonic.
        delta_span_e6, gamma_span_e6: How far above the least the true one may lie; 0 where it is known.
    """

    delta_e6: int
    gamma_e6: int
    vega_e6: int
    theta_e6: int
    iv_e6: int
    source: str
    as_of_ns: int
    delta_span_e6: int = 0
    gamma_span_e6: int = 0

    @property
    def is_known(self) -> bool:
        """Whether these are figures, not ranges."""
        return not (self.delta_span_e6 or self.gamma_span_e6)
