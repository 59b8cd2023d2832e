"""One call to the paper broker: bounded in time, counted at its breaker, recorded once.

Promise: every call that is let out ends in exactly one API_CALL record and one verdict at the breaker, whatever
happens to it, cancellation included. Nothing is ever sent twice.

| what came | raised | breaker |
| --- | --- | --- |
| `ok` that can be read | - | success |
| `ok` that cannot be read; nothing after bytes may have left; status 408 or from 500 | `VenueAnswerUnknown` | failure |
| no connection | `VenueUnreachable` | failure |
| the token or the version refused | `VenueRejected` | latch |
| other refusals | `VenueRejected` | ignored |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from holdfast.audit.logger import AuditLogger
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.config import verdict_for_status
from holdfast.breaker.machine import Verdict
from holdfast.core.clock import Clock
from holdfast.core.errors import (
    AuditError,
    VenueAnswerUnknown,
    VenueError,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.venues.options.link import Link, Lost
from holdfast.venues.permits import Counted, fails_its_call, settle

API: Final = "options"
COMPONENT: Final = "options"
_OK: Final = 200

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Call:
    """One call, before it goes.

    Attributes:
        op: The broker's word.
        method: How it stands in the record: GET, POST or DELETE.
        endpoint: What it is about, for the record.
        params: Of the request.
        connects: Whether it may open a connection; a placement may not, its time to leave is now.
        facts: Further fields of its record.
    """

    op: str
    method: str
    endpoint: str
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    connects: bool = True
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class _Outcome:
    """What is recorded and counted of one call."""

    status: int = 0
    verdict: Verdict = Verdict.IGNORED
    error: str = "canceled by the caller"


class Caller:
    """Lets calls out.

    Args:
        link: The socket.
        breaker: Counts every call.
        audit: Takes the records.
        user: Stands in them.
        timeout_secs: For one whole call, wall time.
        wall_clock: For time limits and latencies.

    Attributes:
        unrecorded: Calls whose record could not be written (the log is poisoned); the answers still count.
    """

    def __init__(
        self,
        link: Link,
        breaker: TradingCircuitBreaker,
        audit: AuditLogger,
        *,
        user: str,
        timeout_secs: float,
        wall_clock: Clock,
    ) -> None:
        self.unrecorded = 0
        self._link = link
        self._breaker = breaker
        self._audit = audit
        self._user = user
        self._timeout_secs = timeout_secs
        self._wall = wall_clock

    @property
    def limit_secs(self) -> float:
        """How long one call may take."""
        own = self._breaker.config.call_timeout_secs
        return self._timeout_secs if own is None else min(own, self._timeout_secs)

    async def ready(self, call: Call, permit: Counted) -> None:
        """Have a connection for *call*, which is about to go; where there is none, the call has failed unsent.

        Raises:
            VenueUnreachable: There is none; *permit* and the log have heard of it.
            VenueRejected: The broker refuses us.
        """
        if self._link.is_up:
            return
        outcome = _Outcome(verdict=Verdict.FAILURE)
        begun_ns = self._wall.monotonic_ns()
        try:
            async with asyncio.timeout(self.limit_secs):
                await self._link.connect()
        except (Lost, TimeoutError) as error:
            failure: VenueError = _no_answer(
                f"{call.method} {call.endpoint}: {str(error) or 'no connection in time'}", began=False
            )
        except VenueRejected as rejected:
            outcome.status, outcome.verdict = rejected.status, Verdict.LATCH
            failure = rejected
        else:
            return
        outcome.error = str(failure)
        settle(permit, self._breaker, outcome.verdict, outcome.error, component=COMPONENT)
        await self._record(call, outcome, (self._wall.monotonic_ns() - begun_ns) / 1_000_000)
        raise failure

    async def call(self, call: Call, permit: Counted, parse: Callable[[msgspec.Raw], T]) -> T:
        """Let *call* out and return what *parse* makes of the answer.

        Raises:
            VenueError: As the table above says; *permit* and the log have heard of it by then.
            AuditError: A read, and the log cannot be opened.
        """
        outcome = _Outcome()
        begun_ns = self._wall.monotonic_ns()
        try:
            return await self._call(call, outcome, parse)
        except VenueError as error:
            outcome.error = str(error)
            raise
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            outcome.error = f"{type(error).__name__} in the client"
            raise
        finally:
            settle(permit, self._breaker, outcome.verdict, outcome.error, component=COMPONENT)
            await self._record(call, outcome, (self._wall.monotonic_ns() - begun_ns) / 1_000_000)

    async def _call(self, call: Call, outcome: _Outcome, parse: Callable[[msgspec.Raw], T]) -> T:
        what, began = f"{call.method} {call.endpoint}", False
        try:
            async with asyncio.timeout(self.limit_secs):
                if call.connects:
                    await self._link.connect()
                began = self._link.is_up
                answer = await self._link.ask(call.op, call.params)
        except TimeoutError:
            outcome.verdict = Verdict.FAILURE
            raise _no_answer(f"{what}: no answer within {self.limit_secs:g} s", began=began) from None
        except Lost as lost:
            outcome.verdict = Verdict.FAILURE
            raise _no_answer(f"{what}: {lost}", began=lost.began) from None
        except VenueRejected as rejected:
            outcome.status, outcome.verdict = rejected.status, Verdict.LATCH
            raise
        if answer.t == "ok":
            outcome.status = _OK
            try:
                value = parse(answer.r)
            except VenueAnswerUnknown as unknown:
                outcome.verdict, unknown.status = Verdict.FAILURE, _OK
                raise
            outcome.verdict, outcome.error = Verdict.SUCCESS, ""
            return value
        status = answer.status if isinstance(answer.status, int) else 0
        outcome.status = status
        outcome.verdict = verdict_for_status(status, strict=self._breaker.config.strict_status)
        said = f"{what}: {status} {answer.code}" + (f": {answer.message}" if answer.message else "")
        if 400 <= status < 500 and status != 408:
            raise VenueRejected(said, code=answer.code, status=status)
        raise VenueAnswerUnknown(said, status=status)

    async def _record(self, call: Call, outcome: _Outcome, latency_ms: float) -> None:
        details: dict[str, Any] = {
            "api": API,
            "endpoint": call.endpoint,
            "method": call.method,
            "status_code": outcome.status,
            "latency_ms": round(latency_ms, 3),
            **call.facts,
        }
        if outcome.error:
            details["error"] = outcome.error
        try:
            await self._audit.record_async("API_CALL", details, user=self._user, component=COMPONENT)
        except AuditError as error:
            self.unrecorded += 1
            if fails_its_call(error, is_read=call.method == "GET"):
                raise


def _no_answer(what: str, *, began: bool) -> VenueError:
    if began:
        return VenueAnswerUnknown(what)
    return VenueUnreachable(what, hint="is the address right, and the broker up?")
