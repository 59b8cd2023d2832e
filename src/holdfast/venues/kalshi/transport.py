"""One call to Kalshi over HTTP: signed, bounded in time, counted at its breaker, recorded once.

Promise: every call that is let out ends in exactly one API_CALL record and one verdict at the breakers, whatever
happens to it, cancellation included. Redirects are not followed, proxies of the environment are not used, no
cookie is kept. A placement goes out at most once. A read may be repeated, and so may a cancel (it is idempotent),
inside one time limit and a budget; a repeated call is still one call: one permit, one record.

What an answer means is drawn once, in `Transport.call`:

| what came | raised | breaker |
| --- | --- | --- |
| 2xx that can be read | - | success |
| 2xx that cannot be read; nothing after bytes may have left; 408; 5xx | `VenueAnswerUnknown` | failure |
| no connection (refused, DNS, TLS, time ran out before one was there) | `VenueUnreachable` | failure |
| 425, 429 | `VenueUnreachable`, and this class of call is held for a moment | ignored |
| 401, 403 | `VenueRejected` | latch |
| other 4xx | `VenueRejected` | ignored |
| 1xx, 3xx | `VenueAnswerUnknown` | ignored |

Limits: the last check of an order's admission comes before a connection is taken from the pool; opening one may
take until the call's time limit. A placement that meets an idle connection which the venue has just closed is
Unknown, since nobody can tell; idle connections are dropped after ten seconds to make that rare.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from holdfast import __version__
from holdfast.audit.logger import AuditLogger
from holdfast.breaker.config import KALSHI_API, verdict_for_status
from holdfast.breaker.machine import Verdict
from holdfast.breaker.registry import BreakerRegistry
from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import (
    AuditError,
    ConfigError,
    VenueAnswerUnknown,
    VenueError,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.venues.kalshi import requests, wire
from holdfast.venues.kalshi.signing import Signer
from holdfast.venues.permits import Counted, fails_its_call, settle

API: Final = "kalshi"
COMPONENT: Final = "kalshi"
PARENT_BREAKER: Final = "kalshi_api"
MAX_ANSWER_BYTES: Final = 64 << 20
FIRST_HOLD_SECS: Final = 1.0
LONGEST_HOLD_SECS: Final = 8.0
KEEPALIVE_SECS: Final = 10.0

T = TypeVar("T")

_HELD = frozenset({425, 429})
# A gateway in front of the venue says these; the venue's own 500 would only be repeated.
_REPEATED = frozenset({502, 503, 504})
_BASE_DELAY_SECS = 0.1
_LONGEST_DELAY_SECS = 2.0
_BUDGET_START, _BUDGET_MOST, _BUDGET_PER_CALL = 3.0, 10.0, 0.2


@dataclass(slots=True, kw_only=True)
class Call:
    """One call, before it goes.

    Attributes:
        method: GET, POST or DELETE.
        endpoint: Path below the API's prefix, segments quoted.
        group: Class of call: what a 429 holds and a keyed breaker counts.
        query: Encoded, without "?".
        body: JSON, or b"".
        is_private: Needs a key.
        is_held: Whether a 429 seen before makes it wait (never for cancels and placements: these are told).
        most_attempts: 1 for what may go only once.
        facts: Further fields of its record.
    """

    method: str
    endpoint: str
    group: str
    query: str = ""
    body: bytes = b""
    is_private: bool = True
    is_held: bool = True
    most_attempts: int = 3
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class _Leaving:
    """Whether bytes of a request may have left."""

    began: bool = False


class _Lost(Exception):
    """No answer that can be used; *began* tells whether bytes may have left."""

    def __init__(self, reason: str, *, began: bool, status: int = 0, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.began = began
        self.status = status
        self.timed_out = timed_out


@dataclass(slots=True)
class _Outcome:
    """What is recorded and counted of one call."""

    status: int = 0
    attempts: int = 0
    verdict: Verdict = Verdict.IGNORED
    error: str = "canceled by the caller"


class Transport:
    """The HTTP side of one account; used from one event loop.

    Attributes:
        breaker: `kalshi_api`, the venue's own.
        registry: Where it and its children stand.
        unrecorded: Calls whose record could not be written (the log is poisoned); the answers still count.
    """

    def __init__(
        self,
        *,
        base_url: str,
        signer: Signer | None,
        user_id: str,
        timeout_secs: float,
        audit_logger: AuditLogger,
        registry: BreakerRegistry,
        clock: Clock,
        wall_clock: Clock,
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.signer = signer
        self.user_id = user_id
        self.registry = registry
        self.breaker = registry.get_or_create(PARENT_BREAKER, KALSHI_API)
        self.unrecorded = 0
        self._origin, self._prefix = split_base_url(base_url)
        self._timeout_secs = timeout_secs
        self._audit = audit_logger
        self._clock = clock
        self._wall = wall_clock
        self._rng = rng
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None
        self._held_until_ns: dict[str, int] = {}
        self._hold_secs: dict[str, float] = {}
        self._budget = _BUDGET_START

    # --- what callers use -----------------------------------------------------------------------------------

    async def call(self, call: Call, permit: Counted, parse: Callable[[bytes], T]) -> T:
        """Let *call* out and return what *parse* makes of the answer.

        Raises:
            VenueError: As the table above says; *permit* and the log have heard of it by then.
            AuditError: A read, and the log cannot be opened (another process holds it, or it is damaged).
        """
        outcome = _Outcome()
        begun_ns = self._wall.monotonic_ns()
        try:
            return await self._call(call, outcome, parse, begun_ns)
        except VenueError as error:
            outcome.error = str(error)
            raise
        except _Lost as lost:
            outcome.status, outcome.verdict, outcome.error = lost.status, Verdict.FAILURE, str(lost)
            raise self._lost(call, lost) from None
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            outcome.error = f"{type(error).__name__} in the client"
            raise
        finally:
            settle(permit, self.breaker, outcome.verdict, outcome.error, component=COMPONENT)
            await self._record(call, outcome, (self._wall.monotonic_ns() - begun_ns) / 1_000_000)

    def held_secs(self, group: str) -> float:
        """Seconds for which the venue asked this class of call to wait; 0.0 when it may go."""
        until_ns = self._held_until_ns.get(group, 0)
        return max(0, until_ns - self._clock.monotonic_ns()) / NANOS

    def session(self) -> aiohttp.ClientSession:
        """The session, made on first use inside the running loop."""
        if self._session is None or self._session.closed:
            trace = aiohttp.TraceConfig()
            trace.on_connection_create_end.append(_mark_leaving)
            trace.on_connection_reuseconn.append(_mark_leaving)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(keepalive_timeout=KEEPALIVE_SECS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                headers={"User-Agent": f"holdfast/{__version__}"},
                trust_env=False,
                trace_configs=[trace],
            )
            # aiohttp would repeat a GET or DELETE by itself, unseen and outside every bound; the repeats here are
            # counted. It offers no public switch; a test notices should this one stop working.
            setattr(self._session, "_retry_connection", False)  # noqa: B010  said above
        return self._session

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- inside ---------------------------------------------------------------------------------------------

    async def _call(self, call: Call, outcome: _Outcome, parse: Callable[[bytes], T], begun_ns: int) -> T:
        limit_secs = self.breaker.config.call_timeout_secs
        time_limit = self._timeout_secs if limit_secs is None else min(self._timeout_secs, limit_secs)
        status, body = await self._attempts(call, outcome, begun_ns + round(time_limit * NANOS))
        outcome.status = status
        outcome.verdict = verdict_for_status(status, strict=self.breaker.config.strict_status)
        if not 200 <= status < 300:
            raise self._refusal(call, status, body)
        self._hold_secs.pop(call.group, None)
        try:
            value = parse(body)
        except VenueAnswerUnknown as unknown:
            unknown.status = status
            outcome.verdict = Verdict.FAILURE
            raise
        outcome.error = ""
        return value

    async def _attempts(self, call: Call, outcome: _Outcome, deadline_ns: int) -> tuple[int, bytes]:
        """The first answer worth having, or the last there was."""
        if call.is_held and (held_secs := self.held_secs(call.group)):
            await self._pause(
                held_secs, deadline_ns, f"{call.group} calls are held by the venue's rate limit"
            )
        self._budget = min(_BUDGET_MOST, self._budget + _BUDGET_PER_CALL)
        while True:
            outcome.attempts += 1
            lost: _Lost | None = None
            status, body = 0, b""
            try:
                status, body = await self._send(call, (deadline_ns - self._wall.monotonic_ns()) / NANOS)
            except _Lost as error:
                lost = error
            if status in _HELD:
                self._hold(call.group)
            delay_secs = self._delay_before_repeat(call, outcome.attempts, status, lost)
            remaining_secs = (deadline_ns - self._wall.monotonic_ns()) / NANOS
            if delay_secs is None or delay_secs >= remaining_secs or self._budget < 1:
                if lost is not None:
                    raise lost
                return status, body
            self._budget -= 1
            await self._sleep(delay_secs)

    def _delay_before_repeat(
        self, call: Call, attempts: int, status: int, lost: _Lost | None
    ) -> float | None:
        """Seconds to wait before asking again, full jitter; None when this answer stands."""
        if attempts >= call.most_attempts or (lost is not None and lost.timed_out):
            return None
        if lost is None and status not in _REPEATED and status not in _HELD:
            return None
        # A failing venue is not asked twice by one call: the half-open breaker wants one probe.
        if call.is_held and self.breaker.get_state() != "closed":
            return None
        delay_secs = self._rng.uniform(0, min(_LONGEST_DELAY_SECS, _BASE_DELAY_SECS * 2**attempts))
        return delay_secs + (self.held_secs(call.group) if status in _HELD and call.is_held else 0)

    async def _pause(self, secs: float, deadline_ns: int, why: str) -> None:
        if secs >= (deadline_ns - self._wall.monotonic_ns()) / NANOS:
            raise _Lost(why, began=False)
        await self._sleep(secs)

    def _hold(self, group: str) -> None:
        secs = self._hold_secs.get(group, FIRST_HOLD_SECS)
        self._hold_secs[group] = min(LONGEST_HOLD_SECS, secs * 2)
        self._held_until_ns[group] = self._clock.monotonic_ns() + round(secs * NANOS)

    async def _send(self, call: Call, limit_secs: float) -> tuple[int, bytes]:
        """One request and its whole answer.

        Raises:
            _Lost: No answer, or not all of it.
        """
        path = f"{self._prefix}/{call.endpoint}"
        headers: dict[str, str] = {}
        if self.signer is not None:
            headers = self.signer.headers(call.method, path, self._wall.now_ns() // 1_000_000)
        if call.body:
            headers["Content-Type"] = "application/json"
        url = URL(f"{self._origin}{path}{'?' if call.query else ''}{call.query}", encoded=True)
        leaving = _Leaving()
        status = 0
        try:
            async with (
                asyncio.timeout(max(0, limit_secs)),
                self.session().request(
                    call.method,
                    url,
                    data=call.body or None,
                    headers=headers,
                    allow_redirects=False,
                    trace_request_ctx=leaving,
                ) as response,
            ):
                status = response.status
                return status, await _read_all(response)
        except TimeoutError:
            raise _Lost(
                f"no answer within {self._timeout_secs:g} s",
                began=leaving.began,
                status=status,
                timed_out=True,
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _Lost(_describe(error), began=leaving.began, status=status) from None

    def _lost(self, call: Call, lost: _Lost) -> VenueError:
        what = f"{call.method} {call.endpoint}: {lost}"
        if lost.began:
            return VenueAnswerUnknown(what, status=lost.status)
        return VenueUnreachable(what, hint="is the address right, and the venue up?")

    def _refusal(self, call: Call, status: int, body: bytes) -> VenueError:
        said = wire.parse_error(status, body)
        what = f"{call.method} {call.endpoint}: {status} {said.code}" + (
            f": {said.message}" if said.message and said.message != said.code else ""
        )
        if status in _HELD:
            return VenueUnreachable(what, hint="the venue limits how often it may be asked; it did not act")
        if status == 408 or not 400 <= status < 500:
            return VenueAnswerUnknown(what, status=status)
        hint = ""
        if status in {401, 403}:
            hint = _credential_hint(said.code)
        return VenueRejected(what, code=said.code, status=status, hint=hint)

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
        if outcome.attempts > 1:
            details["attempts"] = outcome.attempts
        try:
            await self._audit.record_async("API_CALL", details, user=self.user_id, component=COMPONENT)
        except AuditError as error:
            self.unrecorded += 1
            if fails_its_call(error, is_read=call.method == "GET"):
                raise


def _credential_hint(code: str) -> str:
    """What a person can do about a 401 or 403."""
    if "timestamp" in code:
        return (
            f"set this machine's clock by a time server (timedatectl); then reset breaker {PARENT_BREAKER!r}"
        )
    return f"check the API key, its private key and its rights; then reset breaker {PARENT_BREAKER!r}"


def split_base_url(base_url: str) -> tuple[str, str]:
    """Origin and path prefix of *base_url*; the prefix is the API's own when none is given.

    Raises:
        ConfigError: Not an http or https address, or one with a query or credentials in it.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
        raise ConfigError(
            "the venue's base_url is not a plain http or https address",
            hint="for example https://external-api.kalshi.com/trade-api/v2",
        )
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/") or requests.REST_PREFIX


async def _mark_leaving(session: aiohttp.ClientSession, context: Any, params: object) -> None:  # noqa: ARG001  the shape aiohttp calls
    leaving = context.trace_request_ctx
    if isinstance(leaving, _Leaving):
        leaving.began = True


async def _read_all(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise ValueError(f"answer is longer than {MAX_ANSWER_BYTES} bytes")
    return b"".join(chunks)


def _describe(error: Exception) -> str:
    """The error's kind and system reason, without addresses or whatever else its text may carry."""
    inner = getattr(error, "os_error", error)
    reason = getattr(inner, "strerror", None)
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
