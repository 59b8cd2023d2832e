"""Trailing stops in columns: one decision over each of many stops at once, for sweeps of a whole book or a backtest.

Promise: a sweep does to every stop exactly what `TrailingStop.update_price` does to it, in 64-bit integers.

Limits: stops with one rule that follows the premium alone (percent, distance, volatility); others are ticked. A sweep
tells nobody: it returns what was done. It needs numpy, which is an extra and is imported with this module only; fewer
than some hundred stops are quicker in lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from holdfast.core.errors import BadInput, TradingError
from holdfast.core.extras import how_to_install
from holdfast.risk.stop_rules import BP, FAR, MAX_PREMIUM_E4, DistanceTrail, PercentTrail, VolatilityTrail
from holdfast.risk.trailing_stop import StopState, TrailingStop, TrailingStopAction

try:
    import numpy as np
except ImportError as why:  # pragma: no cover  the tests' environment has it
    raise TradingError("stops in columns need numpy", hint=how_to_install("stops")) from why

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column = NDArray[np.int64]

ACTIONS = (
    TrailingStopAction.HOLD,
    TrailingStopAction.ACTIVATE,
    TrailingStopAction.UPDATE,
    TrailingStopAction.TRIGGER,
)
"""What the numbers of a sweep's answer mean."""
HOLD, ACTIVATE, UPDATE, TRIGGER = range(4)


class StopSweep:
    """Copies of *stops* in columns.

    Args:
        stops: As they are now; they are not changed.

    Attributes:
        signs: +1 and -1.

    Raises:
        BadInput: A stop trails by a rule that columns do not know.
    """

    def __init__(self, stops: Sequence[TrailingStop]) -> None:
        shapes = [_shape(stop) for stop in stops]
        levels = [stop.levels() for stop in stops]
        self.signs = _column(stop.sign for stop in stops)
        self._all_long = bool((self.signs == 1).all())
        self._extreme = _column(level[1] for level in levels)
        self._stop = _column(-FAR if level[2] is None else level[2] for level in levels)
        self._triggered = np.array([stop.is_triggered for stop in stops], dtype=bool)
        self._trailing = np.array([stop.state is StopState.TRAILING for stop in stops], dtype=bool)
        self._frozen = self._extreme.copy()
        # Of a triggered stop nothing wakes: its two levels are beyond every premium.
        self._low = np.where(self._triggered, -FAR, self._stop)
        self._wake = _column(FAR if stop.is_triggered else stop.wake for stop in stops)
        self._trail_bp = _parameter(shape[0] for shape in shapes)
        self._distance = _parameter(shape[1] for shape in shapes)
        self._move_bp = _parameter(stop.config.min_move_bp for stop in stops)

    def __len__(self) -> int:
        return len(self.signs)

    def sweep(self, premiums: Column) -> NDArray[np.int8]:
        """Decide over one premium for each stop, 1/10,000 dollar; what was done, as indices of `ACTIONS`.

        Raises:
            BadInput: There are more or fewer premiums than stops, they are no 64-bit integers, or too large.
        """
        if premiums.shape != self.signs.shape or premiums.dtype != np.int64:
            raise BadInput(
                f"sweep refused: {premiums.shape} premiums of {premiums.dtype} for {self.signs.shape} stops, int64"
            )
        if len(premiums) and (premiums.max() > MAX_PREMIUM_E4 or premiums.min() < -MAX_PREMIUM_E4):
            raise BadInput("sweep refused: a premium is more than a hundred million dollars")
        level = premiums if self._all_long else premiums * self.signs
        actions = np.zeros(len(level), dtype=np.int8)
        awake = (level <= self._low) | (level >= self._wake)
        np.maximum(self._extreme, level, out=self._extreme)
        rows = np.flatnonzero(awake)
        if len(rows):
            self._decide(rows, level[rows], actions)
        return actions

    def _decide(self, rows: NDArray[np.intp], level: Column, actions: NDArray[np.int8]) -> None:
        """Decide over the stops of *rows*, whose premiums lie outside their two levels."""
        stop = self._stop[rows]
        crossed = level <= stop
        trail_bp, distance = _of(self._trail_bp, rows), _of(self._distance, rows)
        candidate = np.minimum(level - np.abs(level) * trail_bp // BP - distance, level - 1)
        trailing = self._trailing[rows]
        enough = candidate - stop >= _least_move(stop, _of(self._move_bp, rows))
        moves = ~crossed & (~trailing | enough)
        actions[rows[crossed]] = TRIGGER
        self._trigger(rows[crossed])
        moved = rows[moves]
        actions[moved] = np.where(trailing[moves], UPDATE, ACTIVATE)
        self._trailing[moved] = True
        self._move(moved, np.maximum(candidate, stop)[moves])

    def _trigger(self, rows: NDArray[np.intp]) -> None:
        self._frozen[rows] = self._extreme[rows]
        self._triggered[rows] = True
        self._trailing[rows] = False
        self._low[rows] = -FAR
        self._wake[rows] = FAR

    def _move(self, rows: NDArray[np.intp], stop: Column) -> None:
        """Put the stops of *rows* to *stop*, and their wake levels where `TrailingStopConfig.wakes_at` has them."""
        self._stop[rows] = self._low[rows] = stop
        target = stop + _least_move(stop, _of(self._move_bp, rows))
        trail_bp = _of(self._trail_bp, rows)
        far = np.where(target > 0, (target - 1) * BP // (BP - trail_bp) + 1, target + 1)
        self._wake[rows] = np.maximum(target + 1, far)

    # What stands in the columns, as premiums

    @property
    def best(self) -> Column:
        """The best premium of each stop so far, 1/10,000 dollar."""
        return np.where(self._triggered, self._frozen, self._extreme) * self.signs

    @property
    def has_stop(self) -> NDArray[np.bool_]:
        """Whether a stop stands anywhere."""
        return self._stop > -FAR

    @property
    def stop(self) -> Column:
        """Where each stop stands, 1/10,000 dollar; without meaning where `has_stop` is False."""
        return self._stop * self.signs

    @property
    def triggered(self) -> NDArray[np.bool_]:
        """Which have triggered."""
        return self._triggered


def _shape(stop: TrailingStop) -> tuple[int, int]:
    """The trail of *stop* as basis points of the level, and as a distance."""
    rules = stop.config.rules
    if len(rules) == 1:
        rule = rules[0]
        if isinstance(rule, PercentTrail) and rule.base == "extreme":
            return rule.trailing_bp, 0
        if isinstance(rule, PercentTrail | DistanceTrail | VolatilityTrail):
            # Whatever the level, this one lies as far behind as at 0.
            return 0, -(rule.candidate(stop.levels()[0], 0, 0) or 0)
    names = " and ".join(type(rule).__name__ for rule in rules)
    raise BadInput(
        f"sweep refused: {names} is not known in columns (execution_id={stop.execution_id!r})",
        hint="tick it with TrailingStopManager.update_ticks",
    )


def _column(values: Iterable[int]) -> Column:
    return np.fromiter(values, dtype=np.int64)


def _parameter(values: Iterable[int]) -> Column:
    """A column, or one number where all stops have the same: dividing by one number is much quicker."""
    column = _column(values)
    return column[:1].reshape(()) if len(column) and bool((column == column[0]).all()) else column


def _of(parameter: Column, rows: NDArray[np.intp]) -> Column:
    return parameter[rows] if parameter.ndim else parameter


def _least_move(stop: Column, move_bp: Column) -> Column:
    """As `TrailingStopConfig.least_move`; 1 where no stop stands."""
    size = np.where(stop > -FAR, np.abs(stop), 0)
    return np.maximum(1, -(-move_bp * size // BP))
