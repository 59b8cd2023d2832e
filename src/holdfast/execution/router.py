"""`route_order`: one order, one answer, as plain values.

    {"status": "submitted", "response": {...}}
    {"status": "rejected", "reason": "risk_check_failed"}          ours: a limit, an unknown, a closed market
    {"status": "rejected", "reason": <venue code>}                 the venue's
    {"status": "error", "reason": "circuit_breaker_open"}
    {"status": "error", "reason": "not_sent"}                      provably nothing left
    {"status": "error", "reason": "audit_unavailable"}             the journal cannot take it; nothing left
    {"status": "unknown", "client_order_id": ...}                  it may be live: never send it again

Both faces run the same `Trader`, which writes every record: a denial leaves one DECISION with all rows, one
RISK_VIOLATION for the first breached limit and one `risk_check_failed`; no call reaches the venue.

`OrderRouter` is synchronous and may be called from any thread; the trader lives on the client's own loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from holdfast.audit.logger import AuditLogger
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.registry import BreakerRegistry
from holdfast.core.clock import Clock
from holdfast.core.errors import VenueRejected
from holdfast.core.instruments import Instrument
from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import Signal, read_signal
from holdfast.execution.trader import RouteResult, RouteStatus, Trader
from holdfast.execution.venue import Venue
from holdfast.risk.limits import RiskLimits
from holdfast.risk.manager import RiskManager

_T = TypeVar("_T")


class TradingClient(Protocol):
    """What a router needs of an asynchronous venue client."""

    @property
    def venue(self) -> Venue:
        """Its port."""
        ...

    @property
    def audit_logger(self) -> AuditLogger:
        """Its journal."""
        ...

    @property
    def clock(self) -> Clock:
        """Its clock."""
        ...


class BlockingTradingClient(TradingClient, Protocol):
    """What a router needs of a synchronous venue client."""

    def run(self, coroutine: Coroutine[Any, Any, _T], /) -> _T:
        """Run *coroutine* on the client's loop from any other thread and return its result."""
        ...


class AsyncOrderRouter:
    """Routes orders on the running event loop.

    Args:
        client: An asynchronous venue client.
        risk_manager: Its limits tighten the trader's, and its questions are answered from the trader's state.
        trader: The account's trader where one runs already; by default the client's own, else a new one.
        follow: Keep the venue's stream of fills and order changes open in the background. Without it, fills
            are read after each answer.

    Attributes:
        trader: What does the work.
    """

    def __init__(
        self,
        client: TradingClient,
        risk_manager: RiskManager | None = None,
        *,
        trader: Trader | None = None,
        follow: bool = True,
    ) -> None:
        found = trader or getattr(client, "trader", None)
        self._owns = found is None
        if found is None:
            limits = _limits_of(risk_manager)
            found = Trader(client.venue, log=client.audit_logger, clock=client.clock, limits=limits)
            if hasattr(client, "trader"):
                setattr(client, "trader", found)  # noqa: B010  one account, one trader: others find it there
        self.trader: Trader = found
        self._client = client
        self._follow = follow
        self._following: asyncio.Task[None] | None = None
        if risk_manager is not None:
            risk_manager.bind(self.trader.gate, self.known_instrument, circuit_breaker=breaker_of(client))

    def known_instrument(self, ticker: str) -> Instrument:
        """The rules of a market that was read before; a question cannot wait for the venue on its own loop.

        Raises:
            VenueRejected: Not read yet.
        """
        known = self.trader.market.instruments.get(ticker)
        if known is None:
            raise VenueRejected(f"market {ticker!r} was not read yet", code="not_read")
        return known

    async def start(self) -> bool:
        """Reconcile with the venue and follow it; done by the first order otherwise. See `Trader.start`."""
        if not self.trader.is_started:
            await self.trader.start()
        if self._follow and self._following is None and not self.trader.is_running:
            events = self.trader.venue.events(())
            self._following = asyncio.get_running_loop().create_task(self.trader.run(events))
        return self.trader.account.holds.state.allows_increasing

    async def route_order(self, order: Mapping[str, Any] | Signal) -> dict[str, Any]:
        """Route one order to its answer, one of the dicts at the head of this file.

        Args:
            order: A `Signal` or a mapping as `RiskManager.check_risk` takes; `intent` names it for life.

        Raises:
            BadInput: The order cannot be read.
            AuditError: The journal cannot be opened.
        """
        return answer_of(await self.route(order))

    async def route(self, order: Mapping[str, Any] | Signal) -> RouteResult:
        """As `route_order`, with everything that is known of the outcome."""
        signal = order if isinstance(order, Signal) else read_signal(order)
        await self.start()
        if not self._follow and not self.trader.is_running:
            await self.trader.tick(self._client.clock.now_ns())
        return await self.trader.route(signal)

    async def close(self) -> None:
        """Stop following, and the trader too where this router made it; resting orders stay."""
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            # A stream that failed has left its reason in the journal and CANCEL_ONLY behind.
            await asyncio.gather(following, return_exceptions=True)
        if self._owns:
            await self.trader.stop()
            if getattr(self._client, "trader", None) is self.trader:
                setattr(self._client, "trader", None)  # noqa: B010  only clients that carry a trader


class OrderRouter:
    """Routes orders from any thread; the trader runs on the client's loop.

    Args:
        client: A synchronous venue client, for instance `KalshiClient`.
        risk_manager: As for `AsyncOrderRouter`; its questions may read a market's rules from the venue.
        trader: As for `AsyncOrderRouter`.
        follow: As for `AsyncOrderRouter`.

    Attributes:
        trader: What does the work.
    """

    def __init__(
        self,
        client: BlockingTradingClient,
        risk_manager: RiskManager | None = None,
        *,
        trader: Trader | None = None,
        follow: bool = True,
    ) -> None:
        self._client = client
        self._router = AsyncOrderRouter(client, risk_manager, trader=trader, follow=follow)
        self.trader = self._router.trader
        if risk_manager is not None:
            risk_manager.bind(self.trader.gate, self._instrument, circuit_breaker=breaker_of(client))

    def route_order(self, order: Mapping[str, Any] | Signal) -> dict[str, Any]:
        """Route one order to its answer, one of the dicts at the head of this file.

        Args:
            order: A `Signal` or a mapping as `RiskManager.check_risk` takes; `intent` names it for life.

        Raises:
            BadInput: The order cannot be read.
            AuditError: The journal cannot be opened.
        """
        return answer_of(self.route(order))

    def route(self, order: Mapping[str, Any] | Signal) -> RouteResult:
        """As `route_order`, with everything that is known of the outcome."""
        return self._client.run(self._router.route(order))

    def start(self) -> bool:
        """Reconcile with the venue and follow it; done by the first order otherwise. See `Trader.start`."""
        return self._client.run(self._router.start())

    def close(self) -> None:
        """Stop following; resting orders stay, and the client stays open."""
        self._client.run(self._router.close())

    def _instrument(self, ticker: str) -> Instrument:
        if ticker in self.trader.market.instruments and not self.trader.lacks_marks():
            return self.trader.market.instruments[ticker]
        return self._client.run(self.trader.prepare(ticker))


def answer_of(result: RouteResult) -> dict[str, Any]:  # noqa: PLR0911  one return per answer
    """The plain answer that stands for *result*."""
    match result.status:
        case RouteStatus.SUBMITTED:
            return {"status": "submitted", "response": result.response}
        case RouteStatus.DENIED if result.reason == Code.AUDIT_UNAVAILABLE:
            return {"status": "error", "reason": "audit_unavailable"}
        case RouteStatus.DENIED:
            return {"status": "rejected", "reason": "risk_check_failed"}
        case RouteStatus.REJECTED:
            return {"status": "rejected", "reason": result.reason}
        case RouteStatus.BREAKER_OPEN:
            return {"status": "error", "reason": "circuit_breaker_open"}
        case RouteStatus.NOT_SENT:
            return {"status": "error", "reason": "not_sent"}
        case RouteStatus.UNKNOWN:
            return {"status": "unknown", "client_order_id": result.client_order_id}


def refusal_of(result: RouteResult) -> RejectReason | None:
    """Our own refusal that *result* stands for; of a repetition only the code is known."""
    if result.status is RouteStatus.DENIED:
        return result.refusal or RejectReason(code=Code(result.reason), scope="order")
    return None


def _limits_of(risk_manager: RiskManager | None) -> RiskLimits:
    """The manager's limits, tightened by those of `holdfast.toml` where it sets any."""
    # A fixed signature leaves the limits out: an upward import, listed in the import contract.
    from holdfast import defaults  # noqa: PLC0415  said above

    configured = defaults.configured_limits()
    if risk_manager is None:
        return configured or RiskLimits()
    return risk_manager.limits.tightest(configured) if configured else risk_manager.limits


def breaker_of(client: TradingClient) -> TradingCircuitBreaker | None:
    """The breaker that guards *client*'s venue, where its registry has one of that name."""
    registry = getattr(client, "registry", None)
    name = f"{client.venue.name}_api"
    return registry.get(name) if isinstance(registry, BreakerRegistry) else None
