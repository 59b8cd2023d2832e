"""A trailing stop on a premium: one position's stop that follows the best premium and never loosens.

    WAITING ──REACHED: activate──▶ TRAILING ──MOVED: update──▶ TRAILING
       │                              │
       └──CROSSED: trigger──▶ TRIGGERED ◀──CROSSED: trigger──┘
    any state ──RESET──▶ WAITING      (by a person)

`TRANSITIONS` holds exactly these arrows; a premium that draws none of them is a HOLD. A premium is held against them in
this order: a triggered stop holds, for ever; at or beyond the stop it triggers, once; a new best premium may activate or
move it; anything else holds. WAITING is crossed only where a hard floor stands.

Promises: the decision is made at once, in whole numbers, without I/O; a stop only tightens; a stop's later actions
follow from its events alone, so that it can be rebuilt from the journal (`stop_manager`); only the best premium that
it reports is then the one of its last event. What a listener raises changes no decision: it is counted.
Limits: `update` takes a premium that somebody has looked at: the executable side (the bid for a long, the ask for a
short), fresh, uncrossed and confirmed. One stop is used by one thread at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from math import isfinite
from typing import Any, NamedTuple, cast

from holdfast.core.clock import Clock, SystemClock
from holdfast.core.errors import BadInput, IllegalTransition
from holdfast.core.money import PriceE4, format_price, parse_price
from holdfast.risk.events import TRAILING_STOP, RiskEvent, RiskEventSink, RiskEventType
from holdfast.risk.stop_rules import FAR, MAX_PREMIUM_E4, TrailingStopConfig

Premium = float | int | str | Decimal
"""Dollars: a float is read by its shortest decimal text and to the nearest 1/10,000; text and Decimal exactly."""

ANCHOR = "anchor"
"""In an event's metadata: the premium that the stop trails behind, where it is not the best one."""

_DEFAULT = TrailingStopConfig()
_SMALLEST = Decimal("0.0001")
_log = logging.getLogger("holdfast.risk.stops")


class TrailingStopAction(StrEnum):
    """What one premium made a stop do."""

    HOLD = "HOLD"
    ACTIVATE = "ACTIVATE"
    UPDATE = "UPDATE"
    TRIGGER = "TRIGGER"


class StopState(StrEnum):
    """Where a stop is in its life."""

    WAITING = "waiting"
    TRAILING = "trailing"
    TRIGGERED = "triggered"


class StopSignal(StrEnum):
    """The names of the arrows."""

    REACHED = "reached"
    MOVED = "moved"
    CROSSED = "crossed"
    RESET = "reset"


TRANSITIONS: Mapping[tuple[StopState, StopSignal], StopState] = {
    (StopState.WAITING, StopSignal.REACHED): StopState.TRAILING,
    (StopState.WAITING, StopSignal.CROSSED): StopState.TRIGGERED,
    (StopState.WAITING, StopSignal.RESET): StopState.WAITING,
    (StopState.TRAILING, StopSignal.MOVED): StopState.TRAILING,
    (StopState.TRAILING, StopSignal.CROSSED): StopState.TRIGGERED,
    (StopState.TRAILING, StopSignal.RESET): StopState.WAITING,
    (StopState.TRIGGERED, StopSignal.RESET): StopState.WAITING,
}

_TOLD: Mapping[StopSignal, tuple[TrailingStopAction, RiskEventType]] = {
    StopSignal.REACHED: (TrailingStopAction.ACTIVATE, RiskEventType.TRAILING_STOP_ACTIVATE),
    StopSignal.MOVED: (TrailingStopAction.UPDATE, RiskEventType.TRAILING_STOP_UPDATE),
    StopSignal.CROSSED: (TrailingStopAction.TRIGGER, RiskEventType.TRAILING_STOP_TRIGGER),
}
_HOLD = TrailingStopAction.HOLD


class StopUpdate(NamedTuple):
    """What `update` answers.

    Attributes:
        stop_premium: Where the stop stands now, dollars; None while there is none.
        action: What was done.
    """

    stop_premium: float | None
    action: TrailingStopAction


class TrailingStop:
    """The trailing stop of one position.

    A trigger is told once: the published code repeated it with every premium, and exits could be sent twice. A
    premium of 0 triggers, where the published code raised (`TrailingStopConfig.refuse_zero` brings that back).

    Args:
        execution_id: The position's execution.
        entry_premium: What was paid or received, dollars; not 0, and above it unless the configuration says otherwise.
        config: Percentages and rules; None is 2 / 1.5 / 0.5.
        sign: +1 for a position that gains when the premium rises (default), -1 for one that gains when it falls, as
            a structure sold for a credit does.
        event_logger: Gets ACTIVATE, UPDATE and TRIGGER; None is fine.
        symbol: The underlying or instrument, for the events.
        clock: Where a stop that tightens with time takes it from; None is the machine's.

    Attributes:
        execution_id, symbol, sign, config: As given.
        state: WAITING, TRAILING or TRIGGERED.
        low, wake: Levels; a premium strictly between them is a HOLD and needs no further look.
        since_ns: When it was made or reset, UTC nanoseconds.
        listener_errors: How often the event logger raised.

    Raises:
        BadInput: The entry premium or the sign cannot be used.
    """

    __slots__ = (
        *("_anchor", "_clock", "_entry", "_event_logger", "_extreme", "_stop"),
        *("config", "execution_id", "listener_errors", "low", "sign", "since_ns", "state", "symbol", "wake"),
    )

    def __init__(
        self,
        execution_id: str,
        entry_premium: Premium,
        config: TrailingStopConfig | None = None,
        *,
        sign: int = 1,
        event_logger: RiskEventSink | None = None,
        symbol: str = "",
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(cast("object", execution_id), str) or not execution_id:
            raise BadInput(
                f"stop refused: execution id {execution_id!r} is no text",
                hint="a stop is found again by the id of its execution",
            )
        if type(sign) is not int or sign not in {1, -1}:
            raise BadInput(f"sign {sign!r} is neither 1 nor -1 (execution_id={execution_id!r})")
        self.execution_id = execution_id
        self.symbol = symbol
        self.sign = sign
        self.config = config or _DEFAULT
        self.listener_errors = 0
        self._event_logger = event_logger
        self._clock = clock or SystemClock()
        entry = self.read(entry_premium, "entry_premium")
        if not entry:
            raise BadInput(
                f"entry_premium 0.0000 refused: a percentage of nothing is nothing (execution_id={execution_id!r})"
            )
        self._entry = sign * entry
        self._extreme = self._anchor = self._entry
        self._stop: int | None = None
        self.low = self.wake = 0
        self._begin(self._clock.now_ns())

    # What it is asked

    def update(self, premium: Premium) -> StopUpdate:
        """Decide over *premium*, dollars.

        Raises:
            BadInput: It is NaN, infinite, negative (unless the configuration takes that) or no number; nothing
                changed.
        """
        action = self.update_price(self.read(premium))
        return StopUpdate(self.stop_premium, action)

    def update_price(self, premium: PriceE4) -> TrailingStopAction:
        """Decide over *premium*, 1/10,000 dollar, as one whose figures are integers already."""
        level = self.sign * premium
        if self.low < level < self.wake:
            if level > self._extreme:  # noqa: PLR1730  calling max() would cost as much as the rest
                self._extreme = level
            return _HOLD
        return self._decide(level)

    def read(self, premium: Premium, what: str = "premium") -> PriceE4:
        """*premium* in 1/10,000 dollar, if this stop can take it.

        Raises:
            BadInput: It cannot; the message names it.
        """
        whose = f"{what} {premium!r} refused: {{}} (execution_id={self.execution_id!r})"
        if isinstance(premium, bool):
            raise BadInput(whose.format("a truth value is no number"))
        if isinstance(premium, float):
            if not isfinite(premium):
                raise BadInput(whose.format("not a finite number"))
            text = Decimal(float.__repr__(premium))
            price = (
                PriceE4(int(text.quantize(_SMALLEST, ROUND_HALF_EVEN).scaleb(4)))
                if abs(premium) < 1e9
                else None
            )
        else:
            price = parse_price(Decimal(premium) if isinstance(premium, int) else premium, what)
        if price is None or abs(price) > MAX_PREMIUM_E4:
            raise BadInput(whose.format("more than a hundred million dollars"))
        if price < 0 and not self.config.negative_premiums:
            raise BadInput(
                whose.format("negative"),
                hint="a structure whose net price may fall below zero takes negative_premiums=True",
            )
        if not price and self.config.refuse_zero:
            raise BadInput(whose.format("zero, which this configuration refuses"))
        return price

    # What it knows

    @property
    def entry(self) -> PriceE4:
        """The entry premium, 1/10,000 dollar."""
        return PriceE4(self.sign * self._entry)

    @property
    def best(self) -> PriceE4:
        """The best premium so far, 1/10,000 dollar: the highest for a long, the lowest for a short."""
        return PriceE4(self.sign * self._extreme)

    @property
    def stop(self) -> PriceE4 | None:
        """Where it stands, 1/10,000 dollar; None while it stands nowhere."""
        return None if self._stop is None else PriceE4(self.sign * self._stop)

    @property
    def entry_premium(self) -> float:
        """`entry` in dollars."""
        return self.entry / 10_000

    @property
    def highest_premium(self) -> float:
        """`best` in dollars, under the name that the events have."""
        return self.best / 10_000

    @property
    def stop_premium(self) -> float | None:
        """`stop` in dollars."""
        return None if self._stop is None else self.sign * self._stop / 10_000

    @property
    def is_active(self) -> bool:
        """Whether it trails, or has triggered."""
        return self.state is not StopState.WAITING

    @property
    def is_triggered(self) -> bool:
        """Whether the position is to be closed; stays so until somebody resets or removes the stop."""
        return self.state is StopState.TRIGGERED

    def levels(self) -> tuple[int, int, int | None, int]:
        """Entry, best and stop as levels, and the level that it trails behind; for columns and for tests."""
        return self._entry, self._extreme, self._stop, self._anchor

    def too_tight_for(self, spread: PriceE4) -> str:
        """Why the trail is too narrow for a market with this *spread*, 1/10,000 dollar; "" where it is not.

        A trail inside the spread is crossed by quotes alone, without any move of the market.
        """
        age = self._clock.now_ns() - self.since_ns
        candidate = self.config.candidate(self._entry, self._extreme, age)
        if candidate is None or (self._extreme - candidate) * 100 >= self.config.spread_factor_pct * spread:
            return ""
        return (
            f"stop of {self.execution_id!r} trails by {format_price(PriceE4(self._extreme - candidate))} USD"
            f" < {self.config.spread_factor_pct} % of the spread {format_price(spread)} USD"
        )

    def __repr__(self) -> str:
        stop = "none" if self.stop is None else format_price(self.stop)
        return (
            f"TrailingStop({self.execution_id!r}, entry={format_price(self.entry)}, best={format_price(self.best)},"
            f" stop={stop}, state={self.state.value}, sign={self.sign})"
        )

    # What is done to it

    def reset(self) -> None:
        """Begin anew at the entry premium, also after a trigger; a person's order, told by the manager."""
        self._follow(StopSignal.RESET)
        self._begin(self._clock.now_ns())

    def resume(
        self,
        state: StopState,
        best: PriceE4,
        stop: PriceE4 | None,
        *,
        since_ns: int,
        anchor: PriceE4 | None = None,
    ) -> None:
        """Be where an event says that the stop was; *anchor* is the premium that it trails behind, if not *best*."""
        self._begin(since_ns)
        self.state = state
        self._extreme = self.sign * best
        self._anchor = self._extreme if anchor is None else self.sign * anchor
        self._stop = None if stop is None else self.sign * stop
        self._watch()

    def event(
        self,
        type_: RiskEventType,
        action: str,
        *,
        was: StopState | None = None,
        premium: PriceE4 | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> RiskEvent:
        """What there is to tell of this stop as it is now."""
        return RiskEvent(
            event_type=type_,
            component=TRAILING_STOP,
            execution_id=self.execution_id,
            old_state="" if was is None else was.value,
            new_state=self.state.value,
            entry_premium=self.entry,
            current_premium=premium,
            highest_premium=self.best,
            stop_premium=self.stop,
            action=action,
            metadata=metadata or {},
            symbol=self.symbol,
        )

    def tell(self, event: RiskEvent) -> None:
        """Hand *event* to the event logger; what it raises is counted, because the decision is made."""
        if self._event_logger is None:
            return
        try:
            self._event_logger.emit(event)
        except Exception as why:  # noqa: BLE001  a listener's task ends here; the stop's decision stands
            self.listener_errors += 1
            _log.warning("event of the stop of %r was not taken: %s", self.execution_id, why)

    # How it decides

    def _begin(self, since_ns: int) -> None:
        self.state = StopState.WAITING
        self.since_ns = since_ns
        self._extreme = self._anchor = self._entry
        self._stop = self.config.floor(self._entry)
        self._watch()

    def _watch(self) -> None:
        """Set the two levels between which nothing is to be decided."""
        if self.state is StopState.TRIGGERED:
            self.low, self.wake = FAR, -FAR
            return
        self.low = -FAR if self._stop is None else self._stop
        if self.state is StopState.WAITING:
            self.wake = self.config.activates_at(self._entry)
        else:
            self.wake = self.config.wakes_at(self._stop)

    def _decide(self, level: int) -> TrailingStopAction:
        if self.state is StopState.TRIGGERED:
            return _HOLD
        stop = self._stop
        if stop is not None and level <= stop:
            return self._act(StopSignal.CROSSED, level)
        self._extreme = max(self._extreme, level)
        if self.state is StopState.WAITING:
            if level < self.config.activates_at(self._entry):
                return _HOLD
            signal, best = StopSignal.REACHED, level
        else:
            signal, best = StopSignal.MOVED, max(self._anchor, level)
        age_ns = self._clock.now_ns() - self.since_ns if self.config.follows_time else 0
        candidate = self.config.candidate(self._entry, best, age_ns)
        if signal is StopSignal.MOVED and (
            candidate is None or (stop is not None and candidate - stop < self.config.least_move(stop))
        ):
            return _HOLD
        if candidate is not None and (stop is None or candidate > stop):
            self._stop = candidate
        # What happens next depends on nothing that the event does not tell: a best premium that moved nothing is
        # forgotten by a restart, so the stop trails behind the best one of its last event.
        self._anchor = best
        return self._act(signal, level)

    def _act(self, signal: StopSignal, level: int) -> TrailingStopAction:
        was = self.state
        self._follow(signal)
        self._watch()
        action, type_ = _TOLD[signal]
        if self._event_logger is not None:
            metadata = (
                {}
                if self._anchor == self._extreme
                else {ANCHOR: format_price(PriceE4(self.sign * self._anchor))}
            )
            self.tell(
                self.event(type_, action, was=was, premium=PriceE4(self.sign * level), metadata=metadata)
            )
        return action

    def _follow(self, signal: StopSignal) -> None:
        target = TRANSITIONS.get((self.state, signal))
        if target is None:
            raise IllegalTransition(
                f"stop of {self.execution_id!r} is {self.state}: {signal} is not possible"
            )
        self.state = target
