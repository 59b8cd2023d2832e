"""Kalshi's REST interface for synchronous code: `KalshiClient`, `AsyncKalshiClient` with a loop of its own.

Promise: each method waits for one method of `client.py` and returns or raises what that does; `place_order` takes
the order path of `OrderRouter.route_order` and raises what that reports. A closed client says so, it never hangs.

Limits: a `KalshiClient` belongs to one process: it owns a daemon thread with an event loop, and a forked child must
make its own client. Asynchronous code uses `AsyncKalshiClient`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Coroutine, Mapping
from concurrent.futures import CancelledError as CallCancelled
from concurrent.futures import wait
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from holdfast.audit.logger import AuditLogger
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.breaker.registry import BreakerRegistry
from holdfast.core.clock import Clock
from holdfast.core.errors import (
    CircuitBreakerOpenError,
    OrderDenied,
    TradingError,
    VenueAnswerUnknown,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.core.orders import Fill
from holdfast.core.reasons import Code, RejectReason
from holdfast.execution.venue import Book, CancelAnswer, PublicTrade, VenueOrder
from holdfast.venues.kalshi.adapter import KalshiVenue
from holdfast.venues.kalshi.client import DEFAULT_TIMEOUT_SECS, HOSTS, AsyncKalshiClient, env_options
from holdfast.venues.kalshi.values import Balance, ExchangeStatus, Market, Page, Position, Settlement

CLOSE_SECS: Final = 5.0
"""How long `close` waits for the thread to end."""
_LOOK_SECS: Final = 1.0

T = TypeVar("T")


class KalshiClient:
    """`AsyncKalshiClient` for synchronous code: usable from any thread, and in notebooks.

    One daemon thread runs the event loop. Each method waits for its call; an interrupted wait (Ctrl-C) does not
    interrupt the call. After `fork` the child must make its own client.

    Args:
        api_key, private_key_path, base_url, member_id, timeout: As for `AsyncKalshiClient`, as are the
            further keywords.
        risk_manager: Gates `place_order`; None takes the router's default.
    """

    def __init__(
        self,
        api_key: str | None = None,
        private_key_path: str | os.PathLike[str] | None = None,
        *,
        base_url: str = HOSTS["demo"][0],
        member_id: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECS,
        risk_manager: Any = None,
        **options: Any,
    ) -> None:
        self.client = AsyncKalshiClient(
            api_key, private_key_path, base_url=base_url, member_id=member_id, timeout=timeout, **options
        )
        self._risk_manager = risk_manager
        self._router: Any = None
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._is_closed = False
        self._finalizer: weakref.finalize[..., Any] | None = None
        # With a clock of their own, callers drive the probes too.
        self._probes_by_itself = options.get("clock") is None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Any) -> Self:
        """As `AsyncKalshiClient.from_env`."""
        return cls(**{**env_options(environ), **options})

    @property
    def user_id(self) -> str:
        """Who stands in the records."""
        return self.client.user_id

    @property
    def trader(self) -> Any:
        """The account's order path, None before the first order; shared by every router on this client."""
        return self.client.trader

    @trader.setter
    def trader(self, trader: Any) -> None:
        self.client.trader = trader

    @property
    def audit_logger(self) -> AuditLogger:
        """Where its records go."""
        return self.client.audit_logger

    @property
    def registry(self) -> BreakerRegistry:
        """Where its breakers stand."""
        return self.client.registry

    @property
    def clock(self) -> Clock:
        """Its clock."""
        return self.client.clock

    @property
    def venue(self) -> KalshiVenue:
        """The account as a `Venue`, on this client's loop: use it inside `run`."""
        return self.client.venue

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* on this client's loop and return its result, from any thread but the loop's own."""
        try:
            worker = self._running()
        except BaseException:
            coroutine.close()
            raise
        return worker.run(coroutine)

    # --- the five methods of the contract -------------------------------------------------------------------

    def get_market_data(self, ticker: str) -> Market:
        """One market with its best prices and sizes."""
        return self.run(self.client.get_market_data(ticker))

    def place_order(
        self,
        ticker: str,
        side: str,
        count: Any,
        price: Any,
        *,
        action: str = "buy",
        **options: Any,
    ) -> Any:
        """Place one order through the gate and the log, as `OrderRouter.route_order` does.

        Args:
            ticker: The market.
            side: "yes" or "no".
            count: Contracts, text, Decimal or int.
            price: Of the named side: int is cents, text or Decimal is dollars, float is refused.
            action: "buy" or "sell".
            options: Further fields of a signal: `tif`, `key`, `post_only`, ...

        Returns:
            The router's response for a submitted order.

        Raises:
            OrderDenied: The risk limits refused it; no call was made.
            CircuitBreakerOpenError: The venue is failing; no call was made.
            VenueRejected: The venue said no.
            VenueUnreachable: Nothing was sent.
            VenueAnswerUnknown: It may be live; it is being looked up, never repeat it.
        """
        order = {"ticker": ticker, "side": side, "count": count, "price": price, "action": action, **options}
        from holdfast.execution.router import answer_of, refusal_of  # noqa: PLC0415  as in `_order_router`

        result = self._order_router().route(order)
        outcome = {"client_order_id": result.client_order_id, **answer_of(result)}
        if outcome["status"] == "submitted":
            return result.response
        raise _refusal(outcome, self.client.breaker, refusal_of(result))

    def get_balance(self) -> Balance:
        """Cash available."""
        return self.run(self.client.get_balance())

    def get_markets(
        self,
        *,
        status: str | None = None,
        event_ticker: str | None = None,
        series_ticker: str | None = None,
        tickers: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Market]:
        """A page of markets; filters as `AsyncKalshiClient.get_markets`."""
        return self.run(
            self.client.get_markets(
                status=status,
                event_ticker=event_ticker,
                series_ticker=series_ticker,
                tickers=tickers,
                limit=limit,
                cursor=cursor,
            )
        )

    def get_market(self, ticker: str) -> Market:
        """One market."""
        return self.run(self.client.get_market(ticker))

    # --- the rest -------------------------------------------------------------------------------------------

    def list_markets(self, *, status: str | None = "open") -> list[Market]:
        """Every market, all pages."""
        return self.run(self.client.list_markets(status=status))

    def get_exchange_status(self) -> ExchangeStatus:
        """Whether the venue is up and trades."""
        return self.run(self.client.get_exchange_status())

    def get_orderbook(self, ticker: str, *, depth: int | None = None) -> Book:
        """A book on the YES leg."""
        return self.run(self.client.get_orderbook(ticker, depth=depth))

    def get_trades(self, **filters: Any) -> Page[PublicTrade]:
        """A page of public trades; filters as `AsyncKalshiClient.get_trades`."""
        return self.run(self.client.get_trades(**filters))

    def get_positions(self, **filters: Any) -> Page[Position]:
        """A page of positions."""
        return self.run(self.client.get_positions(**filters))

    def get_fills(self, **filters: Any) -> Page[Fill]:
        """A page of our fills; filters as `AsyncKalshiClient.get_fills`."""
        return self.run(self.client.get_fills(**filters))

    def get_orders(self, **filters: Any) -> Page[VenueOrder]:
        """A page of our orders; filters as `AsyncKalshiClient.get_orders`."""
        return self.run(self.client.get_orders(**filters))

    def get_order(self, order_id: str) -> VenueOrder:
        """One order by the venue's id."""
        return self.run(self.client.get_order(order_id))

    def get_settlements(self, **filters: Any) -> Page[Settlement]:
        """A page of settlements."""
        return self.run(self.client.get_settlements(**filters))

    def cancel_order(self, order_id: str, *, ticker: str = "") -> CancelAnswer:
        """Cancel one order."""
        return self.run(self.client.cancel_order(order_id, ticker=ticker))

    def tick_probe(self) -> bool:
        """Send the breaker's probe if one is due."""
        return self.run(self.client.tick_probe())

    def close(self) -> None:
        """Let go of connections and end the thread; resting orders stay. Harmless when repeated."""
        with self._lock:
            self._is_closed = True
            worker, self._worker = self._worker, None
            finalizer = self._finalizer
        if worker is None or finalizer is None:
            return
        finalizer.detach()
        worker.shut_down()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<KalshiClient {self.client.base_url} user={self.user_id!r}>"

    def _running(self) -> _Worker:
        with self._lock:
            if self._is_closed:
                raise _closed()
            if self._worker is None:
                self._worker = _Worker(self.client, probes_by_itself=self._probes_by_itself)
                self._finalizer = weakref.finalize(self, self._worker.shut_down)
            return self._worker

    def _order_router(self) -> Any:
        from holdfast.execution.router import OrderRouter  # noqa: PLC0415  only placing needs the whole order path

        with self._lock:
            if self._router is None:
                self._router = OrderRouter(self, self._risk_manager)
            return self._router


def _refusal(
    outcome: Mapping[str, Any], breaker: TradingCircuitBreaker, refusal: RejectReason | None = None
) -> TradingError:
    """The exception for a `route_order` outcome that is not "submitted"; *refusal* is ours, with its facts.

    The venue has reasons of the same names as ours ("market_closed"): only `risk_check_failed` is a refusal of ours.
    """
    status, reason = str(outcome.get("status")), str(outcome.get("reason", ""))
    name = str(outcome.get("client_order_id", ""))
    if status == "unknown":
        return VenueAnswerUnknown(
            f"order {name!r} may be live: its answer was lost", hint="never repeat it; it is being looked up"
        )
    if reason == Code.CIRCUIT_BREAKER_OPEN:
        return CircuitBreakerOpenError(
            f"order {name!r} not sent: breaker {breaker.name!r} is {breaker.get_state()}",
            breaker=breaker.name,
            retry_after_secs=breaker.seconds_to_probe(),
        )
    if refusal is not None or reason == Code.RISK_CHECK_FAILED:
        return OrderDenied(name, refusal or RejectReason(code=Code.RISK_CHECK_FAILED, scope="order"))
    if status == "error":
        return VenueUnreachable(f"order {name!r} not sent: {reason}", hint="it may be tried again")
    return VenueRejected(f"order {name!r} rejected by the venue: {reason}", code=reason)


def _closed() -> TradingError:
    return TradingError(
        "this KalshiClient is closed",
        hint="make a new one; an order that was on its way stands in the journal",
    )


class _Worker:
    """A daemon thread with an event loop for one client of one process."""

    def __init__(self, client: AsyncKalshiClient, *, probes_by_itself: bool) -> None:
        self._client = client
        self._probes_by_itself = probes_by_itself
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="holdfast-kalshi", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of *coroutine*, waited for from another thread; a closed client says so, it never hangs."""
        if os.getpid() != self._pid:
            coroutine.close()
            raise TradingError(
                f"this KalshiClient was made in process {self._pid}, before a fork",
                hint="make a new client in the child process",
            )
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise TradingError(
                "a KalshiClient cannot wait on its own loop",
                hint="use AsyncKalshiClient in asynchronous code",
            )
        try:
            call = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise _closed() from None
        while not wait((call,), _LOOK_SECS).done and self._thread.is_alive():
            pass
        if not call.done():
            # It came after the loop's last turn: nothing of it ran.
            coroutine.close()
            raise _closed()
        try:
            return call.result()
        except CallCancelled:
            raise _closed() from None

    def shut_down(self) -> None:
        """Close the client and end the thread; does nothing in a forked child."""
        if os.getpid() != self._pid or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECS)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        prober = self._loop.create_task(self._probe()) if self._probes_by_itself else None
        try:
            self._loop.run_forever()
        finally:
            if prober is not None:
                prober.cancel()
            self._loop.run_until_complete(self._close())
            self._loop.close()

    async def _close(self) -> None:
        this = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not this]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()
        await self._loop.shutdown_asyncgens()

    async def _probe(self) -> None:
        """Probe whenever a probe is due; nobody else drives this client's time."""
        while True:
            wait_secs = self._client.breaker.seconds_to_probe()
            await asyncio.sleep(1.0 if wait_secs is None else min(max(wait_secs, 0.2), 1.0))
            await self._client.tick_probe()
