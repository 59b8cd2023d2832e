"""`TrailingStopManager`: all trailing stops of a desk, by execution, and their way back from the journal.

Promises: every stop that is added, removed or reset is told as an event beside what the stops tell themselves; a
premium that is missing, or cannot be used, leaves its stop where it is and stops no other one; a stop that triggered
stands in `triggered` until it is removed or reset, so that no exit is forgotten; `restore` rebuilds from the RISK_EVENT
records of the journal the stops whose later actions are those of the lost ones, wherever the crash was.

Limits: it decides and tells, and sends nothing. It is used by one thread at a time, as an event loop does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.audit.format import Record
from holdfast.audit.schemas import RecordType
from holdfast.core.clock import Clock, SystemClock
from holdfast.core.errors import BadInput, ConfigError, DuplicateStop
from holdfast.core.money import PriceE4, format_price, parse_price
from holdfast.risk.events import TRAILING_STOP, RiskEvent, RiskEventSink, RiskEventType, event_of_record
from holdfast.risk.stop_rules import TrailingStopConfig
from holdfast.risk.trailing_stop import (
    ANCHOR,
    Premium,
    StopState,
    StopUpdate,
    TrailingStop,
    TrailingStopAction,
)

_log = logging.getLogger("holdfast.risk.stops")
_HOLD = TrailingStopAction.HOLD


class TrailingStopManager:
    """The stops of all open positions.

    Args:
        event_logger: Gets every event; None is fine.
        config: For stops that are added without one; None is 2 / 1.5 / 0.5.
        clock: By default the machine's.
        is_open: Tells whether the position of an execution is open; a stop on a closed one is refused. None
            (default) asks nobody.

    Attributes:
        stops: By execution id; read only.
        unusable: Why the newest premium of an execution was passed over; empty for those whose newest was taken.
    """

    def __init__(
        self,
        event_logger: RiskEventSink | None = None,
        *,
        config: TrailingStopConfig | None = None,
        clock: Clock | None = None,
        is_open: Callable[[str], bool] | None = None,
    ) -> None:
        self.stops: dict[str, TrailingStop] = {}
        self.unusable: dict[str, str] = {}
        self._event_logger = event_logger
        self._config = config or TrailingStopConfig()
        self._clock = clock or SystemClock()
        self._is_open = is_open
        self._longs: dict[str, list[TrailingStop]] = {}
        self._shorts: dict[str, list[TrailingStop]] = {}

    # Stops come and go

    def add_trailing_stop(
        self,
        execution_id: str,
        entry_premium: Premium,
        config: TrailingStopConfig | None = None,
        *,
        sign: int = 1,
        symbol: str = "",
        spread: PriceE4 | None = None,
        current: PriceE4 | None = None,
    ) -> TrailingStop:
        """Begin to watch a position.

        Args:
            execution_id: Its execution.
            entry_premium: Dollars; see `TrailingStop`.
            config: None is the manager's.
            sign: +1 long, -1 short.
            symbol: What it is on; premiums come under it in `update_ticks`.
            spread: Of its market now, 1/10,000 dollar; a trail that is too narrow for it is warned about.
            current: What leaving it would bring or cost now, 1/10,000 dollar, for the record; None is not known.

        Raises:
            DuplicateStop: The execution has one.
            BadInput: The position is closed, or a value cannot be used.
        """
        if execution_id in self.stops:
            raise DuplicateStop(
                f"stop refused: execution {execution_id!r} has one already",
                hint="remove_stop or reset_stop the one that is there",
            )
        if self._is_open is not None and not self._is_open(execution_id):
            raise BadInput(f"stop refused: the position of execution {execution_id!r} is closed")
        stop = self._make(execution_id, entry_premium, config, sign=sign, symbol=symbol)
        self._take(stop)
        metadata: dict[str, Any] = {
            "sign": sign,
            "since_ns": stop.since_ns,
            "config": stop.config.to_json(),
        }
        if spread is not None and (warning := stop.too_tight_for(spread)):
            metadata["warning"] = warning
            _log.warning("%s", warning)
        stop.tell(stop.event(RiskEventType.TRAILING_STOP_ADD, "ADD", premium=current, metadata=metadata))
        return stop

    def remove_stop(self, execution_id: str) -> TrailingStop | None:
        """Watch a position no longer; the stop that was, or None where there was none."""
        stop = self._drop(execution_id)
        if stop is not None:
            stop.tell(stop.event(RiskEventType.TRAILING_STOP_REMOVE, "REMOVE"))
        return stop

    def reset_stop(self, execution_id: str) -> TrailingStop:
        """Let a stop begin anew at its entry premium; a person's order, which also ends a trigger.

        Raises:
            BadInput: There is none.
        """
        stop = self.stops.get(execution_id)
        if stop is None:
            raise BadInput(f"reset refused: execution {execution_id!r} has no stop")
        was = stop.state
        stop.reset()
        metadata = {"since_ns": stop.since_ns}
        stop.tell(stop.event(RiskEventType.TRAILING_STOP_RESET, "RESET", was=was, metadata=metadata))
        return stop

    def get_stop(self, execution_id: str) -> TrailingStop | None:
        """The stop of an execution."""
        return self.stops.get(execution_id)

    @property
    def triggered(self) -> tuple[str, ...]:
        """The executions whose stops have triggered and whose positions are still to be closed."""
        return tuple(execution_id for execution_id, stop in self.stops.items() if stop.is_triggered)

    # Premiums

    async def update_stops(self, premiums: Mapping[str, Premium | None]) -> dict[str, StopUpdate]:
        """Decide over premiums in dollars; what each stop did, by execution.

        A stop whose premium is missing or None is skipped. One that cannot be read is too, and said in `unusable`:
        an error here would hide that another stop has triggered.
        """
        told: dict[str, StopUpdate] = {}
        for execution_id, premium in premiums.items():
            stop = self.stops.get(execution_id)
            if stop is None or premium is None:
                continue
            try:
                told[execution_id] = stop.update(premium)
            except BadInput as why:
                if execution_id not in self.unusable:
                    _log.warning("%s", why)
                self.unusable[execution_id] = str(why)
            else:
                self.unusable.pop(execution_id, None)
        return told

    def update_prices(
        self, premiums: Mapping[str, PriceE4], spreads: Mapping[str, PriceE4] | None = None
    ) -> dict[str, TrailingStopAction]:
        """`update_stops` for premiums that are integers already; *spreads* too, to warn of trails inside them."""
        told: dict[str, TrailingStopAction] = {}
        for execution_id, premium in premiums.items():
            stop = self.stops.get(execution_id)
            if stop is not None:
                action = told[execution_id] = stop.update_price(premium)
                if action is TrailingStopAction.ACTIVATE and spreads is not None and execution_id in spreads:
                    _warn(stop, spreads[execution_id])
        return told

    def update_ticks(
        self, symbol: str, bid: PriceE4 | None, ask: PriceE4 | None
    ) -> list[tuple[TrailingStop, TrailingStopAction]]:
        """Decide over one quote of *symbol*: longs by the bid, shorts by the ask; the stops that did something.

        A side that is missing leaves its stops where they are.
        """
        told: list[tuple[TrailingStop, TrailingStopAction]] = []
        if bid is not None:
            _update_all(self._longs.get(symbol, ()), bid, told)
        if ask is not None:
            _update_all(self._shorts.get(symbol, ()), ask, told)
        if told and bid is not None and ask is not None:
            for stop, action in told:
                if action is TrailingStopAction.ACTIVATE:
                    _warn(stop, PriceE4(ask - bid))
        return told

    # After a restart

    def restore(self, records: Iterable[Record]) -> int:
        """Rebuild every stop that RISK_EVENT *records* leave open, telling nobody; how many there are.

        Records of other types and of other components are passed over, and so are those of a stop whose ADD is not
        among them.

        Raises:
            BadInput: There are stops already, or a record says what no stop ever said.
        """
        if self.stops:
            raise BadInput(f"restore refused: {len(self.stops)} stops are there already")
        for record in records:
            if record.type == RecordType.RISK_EVENT and record.component == TRAILING_STOP:
                try:
                    self._redo(event_of_record(record))
                except (KeyError, ValueError, ConfigError) as why:
                    raise BadInput(f"record {record.seq} is no event of a trailing stop: {why}") from why
        return len(self.stops)

    def _redo(self, event: RiskEvent) -> None:
        kind, execution_id, metadata = event.event_type, event.execution_id, event.metadata
        if kind is RiskEventType.TRAILING_STOP_ADD:
            config = TrailingStopConfig.from_json(metadata["config"])
            self._drop(execution_id)
            entry = event.entry_premium
            if entry is None:
                raise BadInput("an ADD without entry_premium")
            stop = self._make(
                execution_id, format_price(entry), config, sign=metadata["sign"], symbol=event.symbol
            )
            self._take(stop)
            stop.resume(StopState.WAITING, entry, stop.stop, since_ns=int(metadata["since_ns"]))
            return
        there = self.stops.get(execution_id)
        if there is None:
            return
        if kind is RiskEventType.TRAILING_STOP_REMOVE:
            self._drop(execution_id)
        elif kind is RiskEventType.TRAILING_STOP_RESET:
            there.reset()
            there.resume(StopState.WAITING, there.entry, there.stop, since_ns=int(metadata["since_ns"]))
        elif event.highest_premium is None:
            raise BadInput(f"a {kind} without highest_premium")
        else:
            anchor = parse_price(metadata[ANCHOR], ANCHOR) if ANCHOR in metadata else None
            there.resume(
                StopState(event.new_state),
                event.highest_premium,
                event.stop_premium,
                since_ns=there.since_ns,
                anchor=anchor,
            )

    # Its books

    def _make(
        self, execution_id: str, entry: Premium, config: TrailingStopConfig | None, *, sign: int, symbol: str
    ) -> TrailingStop:
        return TrailingStop(
            execution_id,
            entry,
            config or self._config,
            sign=sign,
            event_logger=self._event_logger,
            symbol=symbol,
            clock=self._clock,
        )

    def _book(self, stop: TrailingStop) -> dict[str, list[TrailingStop]]:
        return self._longs if stop.sign > 0 else self._shorts

    def _take(self, stop: TrailingStop) -> None:
        self.stops[stop.execution_id] = stop
        self._book(stop).setdefault(stop.symbol, []).append(stop)

    def _drop(self, execution_id: str) -> TrailingStop | None:
        stop = self.stops.pop(execution_id, None)
        self.unusable.pop(execution_id, None)
        if stop is not None:
            book = self._book(stop)
            book[stop.symbol].remove(stop)
            if not book[stop.symbol]:
                del book[stop.symbol]
        return stop


def _update_all(
    stops: Iterable[TrailingStop], premium: PriceE4, told: list[tuple[TrailingStop, TrailingStopAction]]
) -> None:
    for stop in stops:
        action = stop.update_price(premium)
        if action is not _HOLD:
            told.append((stop, action))


def _warn(stop: TrailingStop, spread: PriceE4) -> None:
    if warning := stop.too_tight_for(spread):
        _log.warning("%s", warning)
