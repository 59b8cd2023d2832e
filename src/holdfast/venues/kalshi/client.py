"""Kalshi's REST interface as methods: `AsyncKalshiClient`; its synchronous face is `blocking.KalshiClient`.

Promise: every method is one call of `transport.py` (timeout, breaker, one record) or a named number of pages of
them; answers are whole values from `wire.py` or a named error. An order goes out once, only with an admission
and a permit, and its outcome is one of `Ack`, `Reject`, `NotSent`, `Unknown`.

Breakers: `kalshi_api` counts everything. Below it stand `read:<class>` and `place:<ticker>`, which may only refuse
more. Cancels, reducing orders and what reconciliation reads go regardless and are counted. An order is never a
probe: reads are, and where none flow `tick_probe` asks for the exchange's status.

Limits: a client belongs to one event loop. Amending, batches and order groups are not offered.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

from holdfast.audit.logger import AuditLogger
from holdfast.breaker.breaker import Permit, TradingCircuitBreaker
from holdfast.breaker.registry import BreakerRegistry
from holdfast.core.clock import Clock, SystemClock
from holdfast.core.errors import (
    BadInput,
    CircuitBreakerOpenError,
    ConfigError,
    OrderDenied,
    VenueAnswerUnknown,
    VenueError,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.core.orders import Fill
from holdfast.core.signals import Intent, TimeInForce
from holdfast.execution.venue import (
    AlreadyClosed,
    Book,
    CancelAnswer,
    NotSent,
    PlaceAnswer,
    PublicTrade,
    Reject,
    Unknown,
    VenueOrder,
)
from holdfast.risk.gate import Admission
from holdfast.venues.kalshi import requests, wire
from holdfast.venues.kalshi.adapter import KalshiVenue
from holdfast.venues.kalshi.paging import all_pages
from holdfast.venues.kalshi.signing import Signer
from holdfast.venues.kalshi.transport import (
    PARENT_BREAKER,
    Call,
    Transport,
    split_base_url,
)
from holdfast.venues.kalshi.values import (
    Balance,
    EventFacts,
    ExchangeStatus,
    Market,
    Page,
    Position,
    SeriesFees,
    Settlement,
)
from holdfast.venues.permits import Counted, Observer, PlacePermit

HOSTS: Final[Mapping[str, tuple[str, str]]] = {
    "demo": (
        "https://external-api.demo.kalshi.co/trade-api/v2",
        "wss://external-api-ws.demo.kalshi.co/trade-api/ws/v2",
    ),
    "prod": (
        "https://external-api.kalshi.com/trade-api/v2",
        "wss://external-api-ws.kalshi.com/trade-api/ws/v2",
    ),
}
"""REST and WebSocket addresses by environment. Source: docs.kalshi.com, OpenAPI and AsyncAPI `servers`."""
WS_PATH: Final = "/trade-api/ws/v2"
DEFAULT_TIMEOUT_SECS: Final = 30.0
_KILLED_CODES: Final = frozenset({"fill_or_kill_insufficient_resting_volume"})
"""409s that say how a new order ended at once, not that its name is taken (seen on the venue's demo exchange)."""

T = TypeVar("T")


class AsyncKalshiClient:
    """One account at Kalshi, over HTTP.

    Without a key only public reads work; everything else raises `ConfigError`.

    Args:
        api_key: Id of the API key.
        private_key_path: Its PEM file, readable by its owner alone.
        base_url: REST address with or without the `/trade-api/v2` prefix; default the demo exchange.
        ws_url: WebSocket address; None derives it from *base_url*.
        member_id: Who stands in the records; None is the API key's id, else "unknown".
        timeout: Seconds for one whole call in wall time, repeats of a read included; above 0.
        signer: Instead of key id and path.
        audit_logger, registry: None takes the process-wide ones of `holdfast.defaults`.
        clock: For waits that the venue asks for and for ages; None is the machine's.
        wall_clock: For signatures, time limits and latencies, which live in the machine's time; None is that.
        rng: Spreads the repeats of reads.
        sleep: Waits in wall time.

    Attributes:
        trader: The account's order path (`execution.trader.Trader`) once one runs on this client, so that every
            router on it shares one account; None before.

    Raises:
        ConfigError: The key file, an address or a number cannot be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        private_key_path: str | os.PathLike[str] | None = None,
        *,
        base_url: str = HOSTS["demo"][0],
        ws_url: str | None = None,
        member_id: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECS,
        signer: Signer | None = None,
        audit_logger: AuditLogger | None = None,
        registry: BreakerRegistry | None = None,
        clock: Clock | None = None,
        wall_clock: Clock | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if signer is None:
            signer = _signer(api_key, private_key_path)
        if not 0 < timeout < float("inf"):
            raise ConfigError(f"timeout {timeout!r} s is not a number of seconds above 0")
        if audit_logger is None or registry is None:
            from holdfast import defaults  # noqa: PLC0415  the process-wide ones, only where a caller left them out

            audit_logger = audit_logger or defaults.default_audit_logger()
            registry = registry or defaults.default_registry()
        self.signer = signer
        self.user_id = member_id or (signer.key_id if signer is not None else "unknown")
        self.base_url = base_url
        self.ws_url = ws_url or derive_ws_url(base_url)
        self.audit_logger = audit_logger
        self.registry = registry
        self.clock: Clock = clock or SystemClock()
        self.wall_clock: Clock = wall_clock or SystemClock()
        self.timeout_secs = timeout
        self.rng = rng or random.Random()  # noqa: S311  spreads retries, guards nothing
        self.sleep = sleep
        self.transport = Transport(
            base_url=base_url,
            signer=signer,
            user_id=self.user_id,
            timeout_secs=timeout,
            audit_logger=audit_logger,
            registry=registry,
            clock=self.clock,
            wall_clock=self.wall_clock,
            rng=self.rng,
            sleep=sleep,
        )
        self._refused_tickers: dict[str, None] = {}
        self._probes: set[asyncio.Task[bool]] = set()
        self._venue: KalshiVenue | None = None
        self.trader: Any = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Any) -> Self:
        """A client as the environment says; *options* are the constructor's and win.

        Reads KALSHI_API_KEY_ID, KALSHI_PRIVATE_KEY_PATH, KALSHI_ENV ("demo" by default, "prod" must be typed),
        KALSHI_BASE_URL and KALSHI_WS_URL, which win over KALSHI_ENV.

        Raises:
            ConfigError: An unknown environment, or half of a key.
        """
        return cls(**{**env_options(environ), **options})

    @property
    def breaker(self) -> TradingCircuitBreaker:
        """`kalshi_api`."""
        return self.transport.breaker

    @property
    def venue(self) -> KalshiVenue:
        """The account as a `Venue`; made once."""
        if self._venue is None:
            self._venue = KalshiVenue(self)
        return self._venue

    # --- public reads ---------------------------------------------------------------------------------------
    # `regardless`: asked although the breaker is open; the outcome still counts. For reconciliation and exits.

    async def get_exchange_status(self) -> ExchangeStatus:
        """Whether the venue is up and trades."""
        return await self._read("status", "exchange/status", wire.parse_status, is_private=False)

    async def get_market_data(self, ticker: str) -> Market:
        """One market with its best prices and sizes, as one answer of the venue."""
        return await self.get_market(ticker)

    async def get_market(self, ticker: str, *, regardless: bool = False) -> Market:
        """One market.

        Raises:
            VenueRejected: No such market, code "not_found".
        """
        endpoint = f"markets/{requests.segment(ticker, 'ticker')}"
        return await self._read(
            "markets", endpoint, wire.parse_market, is_private=False, regardless=regardless
        )

    async def get_markets(
        self,
        *,
        status: str | None = None,
        event_ticker: str | None = None,
        series_ticker: str | None = None,
        tickers: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Market]:
        """A page of markets.

        Args:
            status: One of unopened, open, closed, settled: the venue's filter words, not its status words.
            event_ticker: Of that event only.
            series_ticker: Of that series only.
            tickers: These only, comma-separated.
            limit: 1 to 1,000.
            cursor: Of the page before.
        """
        query = requests.query(
            limit=limit,
            cursor=cursor or None,
            status=status,
            event_ticker=event_ticker,
            series_ticker=series_ticker,
            tickers=tickers,
        )
        return await self._read("markets", "markets", wire.parse_markets, query=query, is_private=False)

    async def list_markets(self, *, status: str | None = "open") -> list[Market]:
        """Every market, all pages."""
        return await all_pages(
            lambda cursor: self.get_markets(status=status, limit=requests.MAX_PAGE, cursor=cursor)
        )

    async def get_event(self, event_ticker: str, *, regardless: bool = False) -> EventFacts:
        """What an event says about its markets together."""
        endpoint = f"events/{requests.segment(event_ticker, 'event')}"
        return await self._read("events", endpoint, wire.parse_event, is_private=False, regardless=regardless)

    async def get_series_fees(self, series_ticker: str, *, regardless: bool = False) -> SeriesFees:
        """What a series charges."""
        endpoint = f"series/{requests.segment(series_ticker, 'series')}"
        return await self._read(
            "series", endpoint, wire.parse_series, is_private=False, regardless=regardless
        )

    async def get_orderbook(self, ticker: str, *, depth: int | None = None) -> Book:
        """A book on the YES leg; its age counts from before it was asked for."""
        alive_ns = self.clock.monotonic_ns()
        return await self._read(
            "orderbook",
            f"markets/{requests.segment(ticker, 'ticker')}/orderbook",
            lambda body: wire.parse_book(body, ticker, alive_ns),
            query=requests.query(depth=depth),
            is_private=False,
        )

    async def get_trades(
        self,
        *,
        ticker: str | None = None,
        min_ts: int | None = None,
        max_ts: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[PublicTrade]:
        """A page of public trades, newest first; `min_ts` and `max_ts` are Unix seconds."""
        query = requests.query(
            ticker=ticker, min_ts=min_ts, max_ts=max_ts, limit=limit, cursor=cursor or None
        )
        return await self._read("trades", "markets/trades", wire.parse_trades, query=query, is_private=False)

    # --- private reads --------------------------------------------------------------------------------------

    async def get_balance(self, *, regardless: bool = False) -> Balance:
        """Cash available."""
        return await self._read("balance", "portfolio/balance", wire.parse_balance, regardless=regardless)

    async def get_positions(
        self, *, limit: int = requests.MAX_PAGE, cursor: str | None = None, regardless: bool = False
    ) -> Page[Position]:
        """A page of positions."""
        query = requests.query(limit=limit, cursor=cursor or None)
        return await self._read(
            "positions", "portfolio/positions", wire.parse_positions, query=query, regardless=regardless
        )

    async def get_fills(
        self,
        *,
        ticker: str | None = None,
        order_id: str | None = None,
        min_ts: int | None = None,
        max_ts: int | None = None,
        limit: int = requests.MAX_PAGE,
        cursor: str | None = None,
        is_historical: bool = False,
        regardless: bool = False,
    ) -> Page[Fill]:
        """A page of our fills, newest first; `min_ts` and `max_ts` are Unix seconds.

        *is_historical* asks the archive, where fills go after the venue's cutoff.
        """
        query = requests.query(
            ticker=ticker,
            order_id=order_id,
            min_ts=min_ts,
            max_ts=max_ts,
            limit=limit,
            cursor=cursor or None,
        )
        return await self._read(
            "historical" if is_historical else "fills",
            "historical/fills" if is_historical else "portfolio/fills",
            wire.parse_fills,
            query=query,
            regardless=regardless,
        )

    async def get_orders(
        self,
        *,
        ticker: str | None = None,
        status: str | None = None,
        min_ts: int | None = None,
        max_ts: int | None = None,
        limit: int = requests.MAX_PAGE,
        cursor: str | None = None,
        is_historical: bool = False,
        regardless: bool = False,
    ) -> Page[VenueOrder]:
        """A page of our orders, newest first; *status* is resting, canceled or executed.

        *is_historical* asks the archive, where closed orders go after the venue's cutoff; it knows no *status*
        and no *min_ts*.
        """
        query = requests.query(
            ticker=ticker,
            status=None if is_historical else status,
            min_ts=None if is_historical else min_ts,
            max_ts=max_ts,
            limit=limit,
            cursor=cursor or None,
        )
        return await self._read(
            "historical" if is_historical else "orders",
            "historical/orders" if is_historical else "portfolio/orders",
            wire.parse_orders,
            query=query,
            regardless=regardless,
        )

    async def get_order(self, order_id: str, *, regardless: bool = False) -> VenueOrder:
        """One order by the venue's id.

        Raises:
            VenueRejected: The venue does not know it, status 404.
        """
        endpoint = f"portfolio/orders/{requests.segment(order_id, 'order id')}"
        return await self._read("orders", endpoint, wire.parse_order, regardless=regardless)

    async def get_settlements(
        self,
        *,
        ticker: str | None = None,
        min_ts: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
        regardless: bool = False,
    ) -> Page[Settlement]:
        """A page of settlements, newest first; *min_ts* in Unix seconds."""
        query = requests.query(ticker=ticker, min_ts=min_ts, limit=limit, cursor=cursor or None)
        return await self._read(
            "settlements", "portfolio/settlements", wire.parse_settlements, query=query, regardless=regardless
        )

    # --- orders ---------------------------------------------------------------------------------------------

    def placement_permit(self, ticker: str, *, reducing: bool) -> PlacePermit:
        """Leave of the breakers to place one order; a reducing order always gets it, its result counts.

        A refusal starts a probe when one is due.

        Raises:
            CircuitBreakerOpenError: `kalshi_api` or this market's own breaker is not closed.
        """
        key = f"place:{ticker}"
        try:
            return PlacePermit(self._admit(key, probe=False))
        except CircuitBreakerOpenError:
            self._refused_tickers[ticker] = None
            self._start_probe()
            if reducing:
                return PlacePermit(Observer(self._child(key)))
            raise

    async def create_order(self, intent: Intent, admission: Admission, permit: PlacePermit) -> PlaceAnswer:
        """Place *intent*, once. Spends *admission*, settles *permit*.

        Raises:
            TypeError: *admission* is not one that a gate made.
            IllegalTransition: The admission was spent before or is another order's; nothing was sent now.
            ConfigError: This client has no key.
        """
        if type(admission) is not Admission:
            permit.ignored()
            raise TypeError(
                f"an order leaves only with an admission of the gate, not {type(admission).__name__}"
            )
        if self.signer is None:
            permit.ignored()
        self._require_key()
        try:
            body = requests.create_body(intent)
        except BadInput as error:
            permit.ignored()
            return NotSent(reason=str(error))
        if not_now := self._why_not_now(intent):
            permit.ignored()
            return NotSent(reason=not_now)
        try:
            admission.consume(intent)
        except OrderDenied as denied:
            permit.ignored()
            return NotSent(reason=str(denied.reason))
        except BaseException:
            permit.ignored()
            raise
        call = Call(
            method="POST",
            endpoint=requests.ORDERS_PATH,
            group="place",
            body=body,
            is_held=False,
            most_attempts=1,
            facts={"client_order_id": intent.client_order_id},
        )
        return await self._place(call, intent.client_order_id, permit)

    async def cancel_order(self, order_id: str, *, ticker: str = "") -> CancelAnswer:
        """Cancel one order, whatever the breakers say; asked again, in time, when the answer is lost."""
        self._require_key()
        call = Call(
            method="DELETE",
            endpoint=f"{requests.ORDERS_PATH}/{requests.segment(order_id, 'order id')}",
            group="cancel",
            query=requests.query(ticker=ticker or None),
            is_held=False,
            facts={"order_id": order_id},
        )
        try:
            return await self.transport.call(call, Observer(self.breaker), wire.parse_canceled)
        except VenueRejected as rejected:
            if rejected.status == 404:
                return AlreadyClosed()
            if rejected.status in {401, 403}:
                return NotSent(reason=str(rejected))
            return Unknown(reason=str(rejected), status=rejected.status)
        except VenueUnreachable as unreachable:
            return NotSent(reason=str(unreachable))
        except VenueAnswerUnknown as unknown:
            return Unknown(reason=str(unknown), status=unknown.status)

    # --- probes ---------------------------------------------------------------------------------------------

    async def tick_probe(self) -> bool:
        """Send the probe that is due, if one is; whoever drives time calls this. True when something was asked."""
        if self.breaker.get_state() in {"half_open", "open"}:
            return self._is_due(self.breaker) and await self._probe_venue()
        asked = False
        for ticker in list(self._refused_tickers):
            child = self._child(f"place:{ticker}")
            if child.get_state() == "closed":
                del self._refused_tickers[ticker]
            elif self._is_due(child):
                asked = await self._probe_market(ticker, child) or asked
        return asked

    async def probe(self) -> None:
        """Ask for the exchange's status, admitted or not; its outcome reaches the breaker.

        Raises:
            VenueError: As any read.
        """
        permit = self.breaker.try_acquire()
        await self.transport.call(
            _status_call(), permit if permit is not None else Observer(self.breaker), wire.parse_status
        )

    async def close(self) -> None:
        """Let go of connections; resting orders stay."""
        for task in list(self._probes):
            task.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        if self._venue is not None:
            await self._venue.close_stream()
        await self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- inside ---------------------------------------------------------------------------------------------

    async def _read(
        self,
        group: str,
        endpoint: str,
        parse: Callable[[bytes], T],
        *,
        query: str = "",
        is_private: bool = True,
        regardless: bool = False,
    ) -> T:
        if is_private:
            self._require_key()
        call = Call(method="GET", endpoint=endpoint, group=group, query=query)
        key = f"read:{group}"
        permit: Counted
        try:
            permit = self._admit(key, probe=True)
        except CircuitBreakerOpenError:
            if not regardless:
                raise
            permit = Observer(self._child(key))
        return await self.transport.call(call, permit, parse)

    async def _place(self, call: Call, client_order_id: str, permit: PlacePermit) -> PlaceAnswer:
        try:
            return await self.transport.call(
                call, permit, lambda body: wire.parse_created(body, client_order_id)
            )
        except VenueRejected as rejected:
            if rejected.status == 409 and rejected.code not in _KILLED_CODES:
                # An order of this name may stand at the venue: whoever asked looks it up.
                return Unknown(reason=f"conflict: {rejected}", status=409)
            return Reject(code=rejected.code, message=str(rejected), status=rejected.status)
        except VenueUnreachable as unreachable:
            return NotSent(reason=str(unreachable))
        except VenueAnswerUnknown as unknown:
            return Unknown(reason=str(unknown), status=unknown.status)
        except Exception as error:  # noqa: BLE001  the order may have left: the task of placing ends here, latched
            reason = f"{type(error).__name__} while placing"
            self.breaker.latch(reason, "kalshi")
            return Unknown(reason=reason)

    def _why_not_now(self, intent: Intent) -> str:
        if held_secs := self.transport.held_secs("place"):
            return f"rate limited: the venue holds placements for {held_secs:.1f} s more"
        signal = intent.signal
        if signal.tif is TimeInForce.GTC and 0 < signal.expiration_ns <= self.clock.now_ns():
            late_ms = (self.clock.now_ns() - signal.expiration_ns) // 1_000_000
            return f"expired {late_ms} ms before it was sent"
        return ""

    def _require_key(self) -> None:
        if self.signer is None:
            raise ConfigError(
                "this Kalshi client has no API key; only public reads work",
                hint="give api_key and private_key_path, or use from_env() with KALSHI_API_KEY_ID and"
                " KALSHI_PRIVATE_KEY_PATH",
            )

    def _admit(self, key: str, *, probe: bool) -> Permit:
        """A permit of the child *key* and of `kalshi_api`, whose own refusal comes first, by its own name."""
        state = self.breaker.get_state()
        if state not in {"closed", "half_open"} or (state == "half_open" and not probe):
            self.breaker.acquire(probe=False).withdraw()
        return self._child(key).acquire(probe=probe)

    def _child(self, key: str) -> TradingCircuitBreaker:
        return self.registry.child(PARENT_BREAKER, key)

    @staticmethod
    def _is_due(breaker: TradingCircuitBreaker) -> bool:
        return breaker.seconds_to_probe() == 0

    async def _probe_venue(self) -> bool:
        permit = self.breaker.try_acquire()
        if permit is None:
            return False
        await self._asked(_status_call(), permit, wire.parse_status)
        return True

    async def _probe_market(self, ticker: str, child: TradingCircuitBreaker) -> bool:
        permit = child.try_acquire()
        if permit is None:
            return False
        endpoint = f"markets/{requests.segment(ticker, 'ticker')}"
        await self._asked(
            Call(method="GET", endpoint=endpoint, group="probe", most_attempts=1), permit, wire.parse_market
        )
        return True

    async def _asked(self, call: Call, permit: Permit, parse: Callable[[bytes], object]) -> None:
        try:
            await self.transport.call(call, permit, parse)
        except VenueError:
            # The breaker and the log have heard of it; there is nobody else to tell.
            return

    def _start_probe(self) -> None:
        """Probe now, beside whoever was refused, if a probe is due and nobody probes yet."""
        if self._probes or not (self._is_due(self.breaker) or self._refused_tickers):
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        task = loop.create_task(self._probe_until_refused())
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _probe_until_refused(self) -> bool:
        """As many probes as close a breaker, no more: one that proves nothing (a 404) would be due again at once."""
        asked = False
        for _ in range(self.breaker.config.half_open_max_tries):
            if not await self.tick_probe():
                break
            asked = True
        return asked


def derive_ws_url(base_url: str) -> str:
    """The WebSocket address that belongs to *base_url*: the vendor's for its own hosts, else the same host's."""
    for rest, ws in HOSTS.values():
        if base_url.rstrip("/") == rest:
            return ws
    split_base_url(base_url)
    parts = urlsplit(base_url)
    return f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{WS_PATH}"


def env_options(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The constructor's arguments as the environment gives them; see `AsyncKalshiClient.from_env`."""
    env = os.environ if environ is None else environ
    problems: list[str] = []
    name = env.get("KALSHI_ENV") or "demo"
    if name not in HOSTS:
        problems.append(f"KALSHI_ENV is {name[:40]!r}, expected 'demo' or 'prod'")
    key_id, key_path = env.get("KALSHI_API_KEY_ID") or None, env.get("KALSHI_PRIVATE_KEY_PATH") or None
    if (key_id is None) != (key_path is None):
        missing = "KALSHI_PRIVATE_KEY_PATH" if key_path is None else "KALSHI_API_KEY_ID"
        problems.append(f"{missing} is not set, but the other half of the key is")
    if problems:
        raise ConfigError("\n".join(problems), hint="both halves of a key come from the venue's account page")
    base_url = env.get("KALSHI_BASE_URL") or HOSTS[name][0]
    return {
        "api_key": key_id,
        "private_key_path": key_path,
        "base_url": base_url,
        "ws_url": env.get("KALSHI_WS_URL") or derive_ws_url(base_url),
    }


def _signer(api_key: str | None, private_key_path: str | os.PathLike[str] | None) -> Signer | None:
    if not api_key and not private_key_path:
        return None
    if not api_key or not private_key_path:
        raise ConfigError(
            f"{'private_key_path' if api_key else 'api_key'} is missing beside the other half of the key",
            hint="a key is an id and a PEM file; without both, leave both out",
        )
    return Signer.from_pem_file(api_key, private_key_path)


def _status_call() -> Call:
    return Call(method="GET", endpoint="exchange/status", group="probe", is_private=False, most_attempts=1)
