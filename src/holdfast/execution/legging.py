"""Leg by leg, for venues without combinations: in which order, how long, and what if the rest does not come.

Into a structure the protective (long) legs go first, out of it the short legs: at no moment is a short leg held
without the long one that bounds it. A leg that is not filled within its time ends the entry, and what was filled is
unwound by the exit ladder, which goes out short legs first again.

The unwinding is provided for before the first leg leaves: `worst_states` lists what may be held between two legs
and at the end, and the gate judges each of them and reserves the worst as one plan (`risk.plans`), the way out and
its fees included. The unwinding then consists of reducing orders alone, which no exposure limit and no breaker refuses,
and nobody else's order can lean on a leg that is to leave again.

Limits: legs go one at a time, each at no worse than its limit in the plan; a leg whose price ran away beyond that does
not fill, and the entry is unwound when its time is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from holdfast.core.clock import NANOS
from holdfast.core.errors import BadInput
from holdfast.core.signals import Action
from holdfast.execution.structures import StructureLeg


class LeggingPolicy(NamedTuple):
    """How legs are traded one by one.

    Attributes:
        leg_timeout_secs: Market time within which each leg of an entry must be filled, counted from its first order.
        leg_collar_bp: How far beyond the executable side each leg's limit goes, in 1/100 %.
    """

    leg_timeout_secs: int = 30
    leg_collar_bp: int = 100

    def is_late(self, since_ns: int, now_ns: int) -> bool:
        """Whether a leg first ordered at *since_ns* has had its time."""
        return now_ns - since_ns > self.leg_timeout_secs * NANOS


def entry_order(legs: Sequence[StructureLeg]) -> tuple[StructureLeg, ...]:
    """*legs* as they go in: long ones first, and exactly the other way round than `next_leg_out` takes them out."""
    last_out_first = sorted(legs, key=lambda leg: leg.ticker, reverse=True)
    return tuple(sorted(last_out_first, key=lambda leg: leg.ratio < 0))


def worst_states(legs: Sequence[StructureLeg]) -> tuple[tuple[StructureLeg, ...], ...]:
    """What may be held on the way in, after each leg, the whole structure last."""
    ordered = entry_order(legs)
    return tuple(ordered[: count + 1] for count in range(len(ordered)))


def next_leg_out(held: Mapping[str, int]) -> tuple[str, Action]:
    """Which leg of *held* (signed quantities) leaves next, and how: shorts are bought back before longs are sold.

    Raises:
        BadInput: Nothing is held.
    """
    legs = sorted((qty > 0, ticker) for ticker, qty in held.items() if qty)
    if not legs:
        raise BadInput("nothing is held, so no leg leaves")
    is_long, ticker = legs[0]
    return ticker, Action.SELL if is_long else Action.BUY
