"""`RiskEventLogger`: where stops, limits and breakers say what they did; it appends to the journal and returns.

Promises: when `emit` returns a sequence, the kernel has the event: no death of this process loses it, and the log's own
flusher has it on the disk within 100 ms; `flush` returns when it is there, and the log's own close, at exit too, sees
to the rest. Nothing waits for the lake, nothing of Arrow or Delta is imported, no running loop is needed, and any thread
may call. Each event is handed on at once, so that 100 events or 5 s, the latest moment that is promised, never come.
`initialize` only starts the process that carries the journal into the lake: events are as safe before it, after it
failed, and without it. That process ends by itself, once it has brought the last event, when this one does.

A listener must not cost a stop or a breaker its decision, so `emit` does not raise what the journal refuses. Such an
event is counted in `lost` and told once to the application's log, and `failure` says why; on a poisoned journal the gate
refuses new risk by itself, because nothing is acknowledged there any more. An event whose metadata cannot be written is
written without them, and says so. `flush` raises where the journal failed: whoever asks for the disk is told.

Limits: nothing is kept in memory, neither for the lake nor for later; what the journal refused is counted, not repeated.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import msgspec

from holdfast.audit.commit import Level
from holdfast.audit.projected import is_projected
from holdfast.breaker.events import BreakerEvent
from holdfast.core.errors import AuditError, TradingError
from holdfast.risk.events import RiskEvent, RiskEventType, details_of, of_breaker

if TYPE_CHECKING:
    from subprocess import Popen
    from typing import IO

    from holdfast.audit.logger import AuditLogger

_START_SECS = 20.0
_LOOK_SECS = 0.05
_END_SECS = 60.0
_WRITTEN, _DURABLE = Level.WRITTEN, Level.DURABLE
_REFUSALS = (TradingError, OSError, ValueError, TypeError, AttributeError)
"""What a journal, or an event that is none, may raise."""
_log = logging.getLogger("holdfast.risk.events")


class RiskEventLogger:
    """Writes risk events into the journal.

    Args:
        audit_logger: The journal; None is the process-wide one of `holdfast.toml`.
        lake: Where the projector brings them: a directory or s3://BUCKET/PREFIX; None is the configured one, or
            data/lake where a journal is given.
        project: Whether `initialize` starts a projector; False leaves the lake to others.
        durable: Types for which `emit` waits for the disk, for events that a power cut must not take. Default none:
            it would make a stop wait.

    Attributes:
        lost: How many events the journal did not take, by type.
        failure: Why the newest of them was lost, or "".
    """

    def __init__(
        self,
        audit_logger: AuditLogger | None = None,
        *,
        lake: str | None = None,
        project: bool = True,
        durable: Collection[RiskEventType] = (),
    ) -> None:
        if audit_logger is None:
            # A fixed signature leaves the log out: an upward import, listed in the import contract.
            from holdfast import defaults  # noqa: PLC0415  said above

            audit_logger = defaults.audit_logger
            lake = defaults.default_config().paths.lake if lake is None else lake
        self._audit = audit_logger
        self._lake = "data/lake" if lake is None else lake
        self._project = project
        self._durable = frozenset(durable)
        self._projector: Popen[bytes] | None = None
        self._lock, self._starting = threading.Lock(), threading.Lock()
        self._refusal: AuditError | OSError | None = None
        self.lost: Counter[str] = Counter()
        self.failure = ""

    # Events

    def emit(self, event: RiskEvent | BreakerEvent, /) -> int:
        """Write *event*; its sequence in the journal, or 0 where it was lost."""
        try:
            risk = event if isinstance(event, RiskEvent) else of_breaker(event)
            level = _DURABLE if risk.event_type in self._durable else _WRITTEN
            return self._audit.record_risk_event(details_of(risk), component=risk.component, level=level)
        except _REFUSALS as why:
            return self._without_metadata(event, why) or self._lose(event, why)

    def _without_metadata(self, event: RiskEvent | BreakerEvent, why: Exception) -> int:
        """Write *event* without what could not be written; 0 where that was not all."""
        if not isinstance(event, RiskEvent) or not event.metadata or isinstance(why, AuditError | OSError):
            return 0
        try:
            bare = msgspec.structs.replace(event, metadata={"unwritable": str(why)[:500]})
            return self._audit.record_risk_event(details_of(bare), component=bare.component, level=_WRITTEN)
        except _REFUSALS:
            return 0

    def _lose(self, event: RiskEvent | BreakerEvent, why: Exception) -> int:
        with self._lock:
            is_first = not self.lost
            self.lost[str(getattr(event, "event_type", getattr(event, "kind", type(event).__name__)))] += 1
            self.failure = f"{type(why).__name__}: {why}"
            if isinstance(why, AuditError | OSError):
                self._refusal = why
        if is_first:
            _log.error("risk event lost: %s", self.failure)
        return 0

    async def flush(self) -> None:
        """Return once every event is on the disk, without blocking the event loop.

        Raises:
            AuditError: The journal failed, or refused events since the last flush; what was not on the disk before may
                be lost to a power cut.
            OSError: As above, where the journal could not be begun.
        """
        await _in_a_thread(self._audit.wal.sync)
        with self._lock:
            refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal

    # The projector

    async def initialize(self) -> None:
        """Start the process that brings the journal into the lake, unless one does already or none is wanted.

        Raises:
            TradingError: It did not start; events are written all the same, and a later one finds all of them.
        """
        if self._project:
            await _in_a_thread(self._start_one)

    def _start_one(self) -> None:
        with self._starting:  # callers at once start one together
            if self._projector is None or self._projector.poll() is not None:
                self._start()

    def _start(self) -> None:
        import tempfile  # noqa: PLC0415  with the two below it costs memory that a trader who projects nothing keeps

        log = self._audit.wal.directory
        self._audit.wal.open()
        if is_projected(log, self._lake):
            return
        command = [
            *(sys.executable, "-m", "holdfast", "lake", "project", str(log)),
            *("--lake", self._lake, "--follow", "--exit-with-stdin"),
        ]
        with tempfile.TemporaryFile() as words:
            projector = _popen(command, words)
            never = threading.Event()
            for _ in range(round(_START_SECS / _LOOK_SECS)):
                if is_projected(log, self._lake):
                    self._projector = projector
                    return
                if projector.poll() is not None:
                    break
                never.wait(_LOOK_SECS)
            _end(projector, patience_secs=1.0)
            words.seek(0)
            said = words.read(2000).decode(errors="replace").strip()
        raise TradingError(
            f"the projector into {self._lake!r} did not start: {said or 'it said nothing'}",
            hint="events are in the journal all the same; start `holdfast lake project` by hand",
        )

    async def close(self) -> None:
        """Flush, and let a projector that was started here bring the last events and end.

        The journal stays open: others write it too. Events may be emitted afterwards.

        Raises:
            AuditError: As `flush`.
        """
        try:
            await self.flush()
        finally:
            projector, self._projector = self._projector, None
            if projector is not None:
                await _in_a_thread(lambda: _end(projector, patience_secs=_END_SECS))


def _end(projector: Popen[bytes], *, patience_secs: float) -> None:
    """Tell *projector* that nothing more comes; one that takes longer to bring the rest goes on alone."""
    if projector.stdin is not None:
        projector.stdin.close()
    from subprocess import TimeoutExpired  # noqa: PLC0415  as above

    with contextlib.suppress(TimeoutExpired):
        projector.wait(patience_secs)


def _popen(command: list[str], words: IO[bytes]) -> Popen[bytes]:
    import subprocess  # noqa: PLC0415  as above

    return subprocess.Popen(  # noqa: S603  our own interpreter, and no shell
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=words,
        # A signal to our process group (Ctrl-C) must not end it before our own last events.
        start_new_session=True,
    )


async def _in_a_thread(work: Callable[[], None]) -> None:
    import asyncio  # noqa: PLC0415  as above

    await asyncio.to_thread(work)
