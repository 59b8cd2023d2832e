"""One call to Interactive Brokers: bounded in time, counted at the breaker, recorded once.

| what came | raised | breaker |
| --- | --- | --- |
| an answer | - | success |
| no answer in time | `VenueAnswerUnknown` | failure |
| no connection, or it ended | `VenueUnreachable` | failure |
| a numbered error | as its kind in errors.py says | as its kind says |

An API_CALL record names the request as the library does (`reqExecutions`, `placeOrder`); its method is READ, PLACE or
CANCEL; its status is 200 for an answer, 0 for none, 400 for a no, with IB's own number as `code`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from holdfast.audit.wal import Level
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.machine import Verdict
from holdfast.core.clock import Clock
from holdfast.core.errors import (
    AuditError,
    VenueAnswerUnknown,
    VenueError,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.venues.ib.errors import RULES, Heard, Kind, Rule
from holdfast.venues.ib.library import load
from holdfast.venues.ib.pacing import Message, Pace
from holdfast.venues.ib.session import Session
from holdfast.venues.permits import Counted, fails_its_call, settle

API = "ib"
COMPONENT = "ib"
OK, NONE, NO = 200, 0, 400
T = TypeVar("T")


class Recorder(Protocol):
    """What takes records: an `AuditLogger`, or nothing at all where nothing can be ordered."""

    async def record_async(  # noqa: D102  as the logger's
        self,
        type: str,  # noqa: A002  the name of the field in the record
        details: Mapping[str, Any],
        *,
        user: str | None = None,
        component: str = "",
        level: Level | None = None,
    ) -> int: ...


@dataclass(slots=True)
class Outcome:
    """What is recorded and counted of one call; until told otherwise its caller cancelled it."""

    status: int = NONE
    code: int = 0
    verdict: Verdict = Verdict.IGNORED
    error: str = "canceled by the caller"
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def answered(self) -> None:
        """It worked."""
        self.status, self.verdict, self.error = OK, Verdict.SUCCESS, ""

    def lost(self, reason: str) -> None:
        """Nobody answered."""
        self.status, self.verdict, self.error = NONE, Verdict.FAILURE, reason

    def refused(self, reason: str, verdict: Verdict = Verdict.IGNORED, *, code: int = 0) -> None:
        """The answer was no."""
        self.status, self.verdict, self.error, self.code = NO, verdict, reason, code


class Calls:
    """Every call of one account passes here.

    Args:
        session: The connection.
        pace: Gives each request its turn.
        breaker: Counts the outcomes.
        audit: Takes the records.
        user: Stands in every record.
        wall_clock: Measures latencies.
        timeout_secs: For one call, wall time.

    Attributes:
        unrecorded: Calls whose record could not be written; the answers still count.
    """

    def __init__(
        self,
        session: Session,
        pace: Pace,
        *,
        breaker: TradingCircuitBreaker,
        audit: Recorder,
        user: str,
        wall_clock: Clock,
        timeout_secs: float,
    ) -> None:
        self.session = session
        self.breaker = breaker
        self.timeout_secs = timeout_secs
        self.unrecorded = 0
        self._pace = pace
        self._audit = audit
        self._user = user
        self._wall = wall_clock

    async def read(
        self,
        endpoint: str,
        request: Callable[[], Awaitable[T]],
        permit: Counted,
        *,
        name: str = "",
        **facts: Any,
    ) -> T:
        """Ask something that changes nothing.

        Raises:
            VenueError: As the table above says.
            AuditError: The log cannot be opened.
        """
        outcome = Outcome(facts=facts)
        begun_ns = self._wall.monotonic_ns()
        try:
            value = await self._answer(endpoint, request, outcome, name)
            outcome.answered()
            return value
        finally:
            self.settle(permit, outcome)
            await self.record(endpoint, "READ", outcome, begun_ns)

    async def _answer(
        self, endpoint: str, request: Callable[[], Awaitable[T]], outcome: Outcome, name: str
    ) -> T:
        lib = load()
        try:
            async with asyncio.timeout(self.timeout_secs):
                await self._pace.turn(Message.READ)
                return await self.session.ask(request, name=name)
        except VenueRejected as error:
            # A gateway that refuses this client, before any request: its settings are wrong, not its health.
            outcome.refused(str(error))
            raise
        except VenueError as error:
            outcome.lost(str(error))
            raise
        except TimeoutError:
            said = self.session.said()
            what = f"{endpoint}: no answer within {self.timeout_secs:g} s{'; it said ' if said else ''}{said}"
            outcome.lost(what)
            raise VenueAnswerUnknown(what) from None
        except ConnectionError as error:
            what = f"{endpoint}: the connection ended: {error}"
            outcome.lost(what)
            raise VenueUnreachable(what, hint=RULES[Kind.SESSION].hint) from None
        except lib.RequestError as error:
            raise refusal(endpoint, Heard(error.reqId, error.code, error.message), outcome) from None
        except Exception as error:
            outcome.lost(f"{type(error).__name__} in the client")
            raise

    def settle(self, permit: Counted, outcome: Outcome) -> None:
        """Tell the breaker; what only a person can mend latches it."""
        settle(permit, self.breaker, outcome.verdict, outcome.error, component=COMPONENT)

    def begun_ns(self) -> int:
        """Now, for `record`."""
        return self._wall.monotonic_ns()

    async def record(self, endpoint: str, method: str, outcome: Outcome, begun_ns: int) -> None:
        """Write one API_CALL record.

        Raises:
            AuditError: The log was never opened, for a read; otherwise the answer comes first.
        """
        details: dict[str, Any] = {
            "api": API,
            "endpoint": endpoint,
            "method": method,
            "status_code": outcome.status,
            "latency_ms": round((self._wall.monotonic_ns() - begun_ns) / 1_000_000, 3),
            **outcome.facts,
        }
        if outcome.code:
            details["code"] = outcome.code
        if outcome.error:
            details["error"] = outcome.error
        try:
            await self._audit.record_async("API_CALL", details, user=self._user, component=COMPONENT)
        except AuditError as error:
            self.unrecorded += 1
            if fails_its_call(error, is_read=method == "READ"):
                raise


def refusal(endpoint: str, heard: Heard, outcome: Outcome) -> VenueError:
    """The exception that a numbered error of a request is, noted in *outcome*."""
    rule: Rule = heard.rule
    what = f"{endpoint}: {heard}"
    if rule.verdict is Verdict.FAILURE:
        outcome.lost(what)
        outcome.code = heard.code
        return VenueUnreachable(what, hint=rule.hint)
    outcome.refused(what, rule.verdict, code=heard.code)
    is_absent = heard.kind is Kind.UNKNOWN_CONTRACT
    return VenueRejected(
        what,
        code="not_found" if is_absent else str(heard.code),
        status=404 if is_absent else NO,
        hint=rule.hint,
    )
