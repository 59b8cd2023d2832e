"""How much trading is allowed, as a lattice in which the most severe holder wins.

    ACTIVE < THROTTLED < REDUCING < CANCEL_ONLY < HALTED

| state       | cancel | reducing | increasing |
| ----------- | ------ | -------- | ---------- |
| ACTIVE      | yes    | yes      | yes        |
| THROTTLED   | yes    | yes      | paced      |
| REDUCING    | yes    | yes      | no         |
| CANCEL_ONLY | yes    | no       | no         |
| HALTED      | yes    | no       | no         |

Anybody with a reason to restrain trading holds a state under a name of its own: the reconciler until the
venue's books are explained, the journal once it is poisoned, a person. The effective state is the most severe
one held; releasing one hold never lifts another. Every change is one STATE record that carries all holds, so
a restart finds them again: a person's HALTED stays until a person releases it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class TradingState(IntEnum):
    """Ordered by severity."""

    ACTIVE = 0
    THROTTLED = 1
    REDUCING = 2
    CANCEL_ONLY = 3
    HALTED = 4

    @property
    def allows_reducing(self) -> bool:
        """Whether an order that only reduces risk may leave."""
        return self <= TradingState.REDUCING

    @property
    def allows_increasing(self) -> bool:
        """Whether an order that adds risk may leave (paced while THROTTLED)."""
        return self <= TradingState.THROTTLED


class Holds:
    """Who restrains trading, and how much.

    Attributes:
        state: The most severe state held; ACTIVE when nobody holds any.
    """

    def __init__(self) -> None:
        self._held: dict[str, TradingState] = {}
        self.state = TradingState.ACTIVE

    def held_by(self, holder: str) -> TradingState:
        """What *holder* asks for; ACTIVE when it asks for nothing."""
        return self._held.get(holder, TradingState.ACTIVE)

    def without(self, holder: str) -> TradingState:
        """The most severe state that anybody but *holder* asks for."""
        others = (state for name, state in self._held.items() if name != holder)
        return max(others, default=TradingState.ACTIVE)

    def change(
        self, holder: str, state: TradingState, *, reason: str, who: str = ""
    ) -> dict[str, Any] | None:
        """The details of the STATE record by which *holder* comes to ask for *state*; None if it already does.

        Nothing changes until `apply` is given these details.
        """
        if self.held_by(holder) is state:
            return None
        after = {**self._held, holder: state}
        if state is TradingState.ACTIVE:
            del after[holder]
        return {
            "from": self.state.name,
            "to": max(after.values(), default=TradingState.ACTIVE).name,
            "reason": reason,
            "who": who or holder,
            "holders": {name: held.name for name, held in sorted(after.items())},
        }

    def apply(self, details: Mapping[str, Any]) -> None:
        """Take over the holds of a STATE record."""
        self._held = {name: TradingState[held] for name, held in details["holders"].items()}
        self.state = max(self._held.values(), default=TradingState.ACTIVE)

    def snapshot(self) -> dict[str, str]:
        """Every hold by holder."""
        return {name: held.name for name, held in sorted(self._held.items())}
