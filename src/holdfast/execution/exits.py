"""How a position is left: a ladder of limits, one exit at a time, until the position is flat.

    WATCHING ──demanded──▶ DUE ──sent──▶ WORKING ──ended──▶ DUE (next rung, new name)
                            │ ▲             │ ▲
                      barred▼ │allowed  lost▼ │found
                           BARRED          UNKNOWN ──ended──▶ DUE
       flat, with nothing at work: FLAT, for good

A rung goes out only from DUE, so at most one exit works at a time. An exit that ended *provably* with quantity left
is followed by the next rung under a new name; one whose answer was lost holds the ladder until the venue's books
tell, or the same order, sent again as `resend.py` says, ends. Where exits are barred the demand stays latched and is
tried again. The ladder ends when the position is flat and nothing of it is at work, and never before: a partial fill
changes nothing but the quantity of the next rung.

The rungs are limits, each further beyond the executable side than the one before, rounded to the grid away from the
touch. `Signal` knows no market order, so the last rung is a limit at the worst that the position can be worth:
everything executable meets it, and no more than that is ever paid.

Limits: pure; it sends nothing and reads no clock. Where no touch is known, only the last rung has a price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from holdfast.core.errors import IllegalTransition
from holdfast.core.money import PriceE4

STEP = "exit"
"""The step of an exit's intent key: `<execution id>/exit-<attempt>`."""
_BASIS = 10_000


class ExitState(StrEnum):
    """Where the way out stands."""

    WATCHING = "watching"
    DUE = "due"
    WORKING = "working"
    UNKNOWN = "unknown"
    BARRED = "barred"
    FLAT = "flat"


class ExitEvent(StrEnum):
    """What can happen on the way out."""

    DEMANDED = "demanded"
    SENT = "sent"
    BARRED = "barred"
    ALLOWED = "allowed"
    LOST = "lost"
    FOUND = "found"
    ENDED = "ended"
    FLAT = "flat"


_S, _E = ExitState, ExitEvent

TRANSITIONS: Mapping[tuple[ExitState, ExitEvent], ExitState] = {
    (_S.WATCHING, _E.DEMANDED): _S.DUE,
    (_S.WATCHING, _E.FLAT): _S.FLAT,
    (_S.DUE, _E.DEMANDED): _S.DUE,
    (_S.DUE, _E.SENT): _S.WORKING,
    (_S.DUE, _E.BARRED): _S.BARRED,
    (_S.DUE, _E.FLAT): _S.FLAT,
    (_S.BARRED, _E.DEMANDED): _S.BARRED,
    (_S.BARRED, _E.ALLOWED): _S.DUE,
    (_S.BARRED, _E.FLAT): _S.FLAT,
    (_S.WORKING, _E.DEMANDED): _S.WORKING,
    (_S.WORKING, _E.LOST): _S.UNKNOWN,
    (_S.WORKING, _E.ENDED): _S.DUE,
    (_S.UNKNOWN, _E.DEMANDED): _S.UNKNOWN,
    (_S.UNKNOWN, _E.LOST): _S.UNKNOWN,
    (_S.UNKNOWN, _E.FOUND): _S.WORKING,
    (_S.UNKNOWN, _E.ENDED): _S.DUE,
    (_S.FLAT, _E.FLAT): _S.FLAT,
    (_S.FLAT, _E.DEMANDED): _S.FLAT,
}
"""FLAT follows from no state in which an exit may still execute: that one's end comes first."""

AT_WORK = frozenset({ExitState.WORKING, ExitState.UNKNOWN})
DEMANDED = frozenset({ExitState.DUE, ExitState.BARRED, *AT_WORK})


class Rung(NamedTuple):
    """How far beyond the executable side a limit goes: the larger of the two collars.

    Attributes:
        name: Stands in the story.
        collar_bp: Of the touch, in 1/100 %.
        collar_ticks: Steps of the grid.
        to_the_worst: All the way to the worst that the position can be worth.
    """

    name: str
    collar_bp: int = 0
    collar_ticks: int = 0
    to_the_worst: bool = False


RUNGS: Sequence[Rung] = (
    Rung("touch", collar_bp=100, collar_ticks=1),
    Rung("wider", collar_bp=500, collar_ticks=3),
    Rung("widest", collar_bp=2000, collar_ticks=10),
    Rung("worst", to_the_worst=True),
)
"""From gentle to the last resort; the last one is repeated."""


class Ladder:
    """The way out of one execution.

    Args:
        state: Where it stands, for one that is taken up after a restart.
        attempts: How many exits have been named before.

    Attributes:
        state: As the table says.
        attempts: How many exits were named; each name is used once.
        order: Name of the exit at work, "" when there is none.
        rule: What demanded the exit, "" before.
    """

    def __init__(
        self,
        *,
        state: ExitState = ExitState.WATCHING,
        attempts: int = 0,
        order: str = "",
        rule: str = "",
    ) -> None:
        self.state = state
        self.attempts = attempts
        self.order = order
        self.rule = rule
        self._rung = min(attempts, len(RUNGS) - 1)

    @property
    def rung(self) -> Rung:
        """The rung that goes out next, or is at work."""
        return RUNGS[self._rung]

    @property
    def is_demanded(self) -> bool:
        """Whether the position is to be left and is not flat yet."""
        return self.state in DEMANDED

    def on(self, event: ExitEvent) -> ExitState:
        """Take *event*; the state after it.

        Raises:
            IllegalTransition: The table does not know the pair.
        """
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise IllegalTransition(
                f"exit cannot take event {event.value!r} while {self.state.value!r}"
            ) from None
        if event is ExitEvent.ENDED:
            self.order = ""
            self._rung = min(self._rung + 1, len(RUNGS) - 1)
        return self.state

    def name_attempt(self) -> str:
        """The step of the next exit, never used before; only where one is due.

        Raises:
            IllegalTransition: An exit is at work, or none is wanted.
        """
        if self.state is not ExitState.DUE:
            raise IllegalTransition(f"no exit may go out while {self.state.value!r}")
        self.attempts += 1
        return f"{STEP}-{self.attempts}"

    def restart(self) -> None:
        """The last exit filled in full; what is left begins again at the touch."""
        self._rung = 0


def exit_limit(
    rung: Rung, *, sells: bool, touch: PriceE4 | None, worst: PriceE4, tick: PriceE4
) -> PriceE4 | None:
    """The limit of an exit on *rung*; None where it has none because no touch is known.

    Args:
        rung: How far to go.
        sells: Whether the exit sells; a bought-back short goes upwards.
        touch: The executable price now: the bid for a sale, the ask for a purchase. Of a combination it may be
            negative: what selling it costs.
        worst: The least a sale may bring, or the most a purchase may cost.
        tick: Step of the grid.
    """
    if rung.to_the_worst:
        return worst
    if touch is None:
        return None
    collar = max(-(-abs(touch) * rung.collar_bp // _BASIS), rung.collar_ticks * tick)
    if sells:
        return PriceE4(max(worst, (touch - collar) // tick * tick))
    return PriceE4(min(worst, -(-(touch + collar) // tick) * tick))
