"""The paper option broker as a `Venue`: the port of execution/venue.py over one WebSocket.

Promise: what the port promises. Whatever reconciliation reads (orders, fills, positions, balance) is asked although
the breaker is open, and counted; instruments, chains and books fail fast. An order is never a probe: when the wait has
elapsed, `tick_probe` asks for the broker's status. A reducing order always gets leave, and its outcome counts.

Combinations are named by their legs and composed here: their rules and books come from the legs', their executions
are fills of the legs. What exercise, assignment and expiry do are fills with their cause. Greeks come with the feed,
else from `venues/pricing.py`.

Limits: the broker remembers every client order id, so that none is ever taken twice; one event loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any, Final, TypeVar

import msgspec

from holdfast.audit.logger import AuditLogger
from holdfast.breaker.breaker import TradingCircuitBreaker
from holdfast.core.clock import Clock, SystemClock
from holdfast.core.errors import (
    AuditError,
    BadInput,
    CircuitBreakerOpenError,
    OrderDenied,
    VenueAnswerUnknown,
    VenueError,
    VenueRejected,
    VenueUnreachable,
)
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, QtyE2
from holdfast.core.options import OptionTerms, combo_ticker, is_combo, parse_combo_ticker
from holdfast.core.orders import Fill
from holdfast.core.signals import Intent, TimeInForce
from holdfast.execution.venue import (
    AlreadyClosed,
    Book,
    CancelAnswer,
    Canceled,
    DedupProfile,
    NotSent,
    PlaceAnswer,
    PlacementPermit,
    Reject,
    Unknown,
    VenueEvent,
    VenueOrder,
)
from holdfast.risk.gate import Admission
from holdfast.venues.options import wire
from holdfast.venues.options.calls import COMPONENT, Call, Caller
from holdfast.venues.options.following import Following
from holdfast.venues.options.link import Link
from holdfast.venues.options.quotes import STALE_NS, BadQuote, QuoteFault, Sides, read_sides
from holdfast.venues.options.stream import StreamMachine, book_of, compose
from holdfast.venues.options.wire import Frame, Holdings
from holdfast.venues.permits import Counted, Observer, PlacePermit
from holdfast.venues.pricing import Carry, Model

DEFAULT_TIMEOUT_SECS: Final = 10.0

T = TypeVar("T")


class OptionsVenue:
    """One account at the paper option broker.

    Args:
        url: Address of its WebSocket.
        token: Its word for who may trade.
        clock: For ages; the market's where the broker owns it.
        breaker: Counts every call and decides about placements.
        audit: Takes one record per call.
        user: Stands in the records.
        timeout_secs: For one whole call in wall time.
        venue_clock: The broker owns the market's clock and waits for `quiescent`.
        carry: Interest and dividend yield of every underlying that *carries* does not name.
        carries: By underlying.
        wall_clock: For time limits and latencies.
        rng: Spreads reconnections.
        sleep: Waits in wall time.

    Attributes:
        breaker: As given.
    """

    name = wire.VENUE
    dedup = DedupProfile.ALL

    def __init__(
        self,
        url: str,
        token: str,
        *,
        clock: Clock,
        breaker: TradingCircuitBreaker,
        audit: AuditLogger,
        user: str = "unknown",
        timeout_secs: float = DEFAULT_TIMEOUT_SECS,
        venue_clock: bool = True,
        carry: Carry = Carry(),  # noqa: B008  a constant
        carries: dict[str, Carry] | None = None,
        wall_clock: Clock | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.breaker = breaker
        self._clock = clock
        self._audit = audit
        self._user = user
        self._venue_clock = venue_clock
        self._carry = carry
        self._carries = carries
        self._rng = rng or random.Random()  # noqa: S311  spreads retries, guards nothing
        self._sleep = sleep
        self._link = Link(url, token, on_frame=self._heard, on_down=self._down, greeting=self._greeting)
        self._caller = Caller(
            self._link,
            breaker,
            audit,
            user=user,
            timeout_secs=timeout_secs,
            wall_clock=wall_clock or SystemClock(),
        )
        self._terms: dict[str, OptionTerms] = {}
        self._model: Model | None = None
        self._following: Following | None = None
        self._probes: set[asyncio.Task[None]] = set()

    # --- orders ---------------------------------------------------------------------------------------------

    def placement_permit(self, ticker: str, *, reducing: bool) -> PlacementPermit:
        """Leave of the breaker to place one order; a refusal starts a probe when one is due."""
        del ticker
        try:
            return PlacePermit(self.breaker.acquire(probe=False))
        except CircuitBreakerOpenError:
            self._start_probe()
            if reducing:
                return PlacePermit(Observer(self.breaker))
            raise

    async def place(self, intent: Intent, admission: Admission, permit: PlacementPermit) -> PlaceAnswer:
        """Send once; a name already taken is `Unknown`, to be looked up."""
        if not isinstance(permit, PlacePermit):
            raise TypeError("a placement needs the permit that this venue's placement_permit gave")
        if type(admission) is not Admission:
            permit.ignored()
            raise TypeError(
                f"an order leaves only with an admission of the gate, not {type(admission).__name__}"
            )
        signal = intent.signal
        if signal.tif is TimeInForce.GTC and 0 < signal.expiration_ns <= self._clock.now_ns():
            permit.ignored()
            return NotSent(reason="expired before it was sent")
        call = Call(
            op="place",
            method="POST",
            endpoint="orders",
            params=wire.place_params(intent),
            connects=False,
            facts={"client_order_id": intent.client_order_id},
        )
        try:
            # A connection first: the admission is spent right before the first byte.
            await self._caller.ready(call, permit)
            admission.consume(intent)
        except VenueError as error:
            return NotSent(reason=str(error))
        except OrderDenied as denied:
            permit.ignored()
            return NotSent(reason=str(denied.reason))
        except BaseException:
            permit.ignored()
            raise
        return await self._place(call, intent.client_order_id, permit)

    async def _place(self, call: Call, name: str, permit: PlacePermit) -> PlaceAnswer:
        try:
            return await self._caller.call(call, permit, lambda raw: wire.read_placed(raw, name))
        except VenueRejected as rejected:
            if rejected.status == 409:
                return Unknown(reason=f"conflict: {rejected}", status=409)
            return Reject(code=rejected.code, message=str(rejected), status=rejected.status)
        except VenueUnreachable as unreachable:
            return NotSent(reason=str(unreachable))
        except VenueAnswerUnknown as unknown:
            return Unknown(reason=str(unknown), status=unknown.status)
        except Exception as error:  # noqa: BLE001  the order may have left: the task of placing ends here, latched
            reason = f"{type(error).__name__} while placing"
            self.breaker.latch(reason, COMPONENT)
            return Unknown(reason=reason)

    async def cancel(self, *, order_id: str, ticker: str) -> CancelAnswer:
        """Cancel one order, whatever the breaker says."""
        del ticker
        call = Call(
            op="cancel",
            method="DELETE",
            endpoint=f"orders/{order_id}",
            params={"order_id": order_id},
            facts={"order_id": order_id},
        )
        try:
            released = await self._caller.call(call, Observer(self.breaker), wire.read_released)
        except VenueRejected as rejected:
            if rejected.status == 404:
                return AlreadyClosed()
            if rejected.code in {"unauthorized", "version"}:
                return NotSent(reason=str(rejected))
            return Unknown(reason=str(rejected), status=rejected.status)
        except VenueUnreachable as unreachable:
            return NotSent(reason=str(unreachable))
        except VenueAnswerUnknown as unknown:
            return Unknown(reason=str(unknown), status=unknown.status)
        return Canceled(released=released)

    # --- what reconciliation reads --------------------------------------------------------------------------

    async def open_orders(self) -> Sequence[VenueOrder]:
        """Every working order of the account."""
        return await self._read(Call(op="open_orders", method="GET", endpoint="orders"), wire.read_orders)

    async def find_order(self, *, client_order_id: str, ticker: str, since_ns: int) -> VenueOrder | None:
        """Search working and closed orders for a client order id; the broker keeps them all."""
        del ticker, since_ns
        params = {"client_order_id": client_order_id}
        return await self._read(
            Call(op="find", method="GET", endpoint="orders", params=params), wire.read_maybe_order
        )

    async def order(self, order_id: str) -> VenueOrder | None:
        """One order by the broker's id; None if it does not know it."""
        call = Call(op="order", method="GET", endpoint=f"orders/{order_id}", params={"order_id": order_id})
        return await self._read(call, wire.read_maybe_order)

    async def fills(self, *, since_ns: int) -> Sequence[Fill]:
        """Our executions since *since_ns*, oldest first: of each leg, and what exercise and expiry did."""
        call = Call(op="executions", method="GET", endpoint="executions", params={"since_ns": since_ns})
        return await self._read(call, wire.read_fills)

    async def positions(self) -> dict[str, QtyE2]:
        """Signed quantity by contract or stock, without flat ones."""
        held = (await self._holdings()).positions
        return {ticker: QtyE2(qty) for ticker, qty in held.items() if qty}

    async def balance(self) -> MoneyE6:
        """Cash."""
        return MoneyE6((await self._holdings()).cash_e6)

    async def buying_power(self) -> MoneyE6:
        """What neither positions nor working orders need of the cash."""
        return MoneyE6((await self._holdings()).buying_power_e6)

    async def _holdings(self) -> Holdings:
        return await self._read(Call(op="account", method="GET", endpoint="account"), wire.read_holdings)

    # --- the market -----------------------------------------------------------------------------------------

    async def instrument(self, ticker: str, *, regardless: bool = False) -> Instrument:
        """The rules of one contract, stock or combination.

        Raises:
            VenueRejected: No such thing, code "not_found".
        """
        if not is_combo(ticker):
            call = Call(
                op="instrument", method="GET", endpoint=f"instruments/{ticker}", params={"ticker": ticker}
            )
            return self._learned(await self._read(call, wire.read_instrument, regardless=regardless))
        try:
            legs = parse_combo_ticker(ticker)
            rules = [(await self.instrument(leg, regardless=regardless), ratio) for leg, ratio in legs]
            return wire.combination(ticker, rules)
        except BadInput as error:
            raise VenueRejected(str(error), code="not_found", status=404, hint=error.hint) from None

    async def chain(self, underlying: str) -> Sequence[Instrument]:
        """Every contract on *underlying* that still trades; "" for all underlyings."""
        call = Call(
            op="chain",
            method="GET",
            endpoint=f"chains/{underlying or '*'}",
            params={"underlying": underlying},
        )
        listed = await self._read(call, wire.read_chain, regardless=False)
        return [self._learned(instrument) for instrument in listed]

    async def combo(self, legs: Sequence[tuple[str, int]]) -> Instrument:
        """The combination of *legs*: (ticker, signed ratio).

        Raises:
            BadInput: Legs that no combination can have.
            VenueRejected: A leg that is not listed.
        """
        return await self.instrument(combo_ticker(legs))

    async def book(self, ticker: str) -> Book:
        """The present quote of a contract, stock or combination as a book of one level a side.

        Raises:
            BadQuote: The quote is no price; the fault is named.
        """
        try:
            legs = parse_combo_ticker(ticker) if is_combo(ticker) else ((ticker, 1),)
        except BadInput as error:
            raise VenueRejected(str(error), code="not_found", status=404, hint=error.hint) from None
        alive_ns, now_ns = self._clock.monotonic_ns(), self._clock.now_ns()
        call = Call(
            op="quotes",
            method="GET",
            endpoint=f"quotes/{ticker}",
            params={"tickers": [leg for leg, _ in legs]},
        )
        rows = {row[0]: row for row in await self._read(call, wire.read_dated, regardless=False)}
        sides = compose([(_believed(rows.get(leg), now_ns), ratio) for leg, ratio in legs])
        if isinstance(sides, QuoteFault):
            raise BadQuote(ticker, sides)
        return book_of(ticker, sides, alive_ns)

    def terms(self, ticker: str) -> OptionTerms | None:
        """The terms of a contract whose rules were read before."""
        return self._terms.get(ticker)

    def _learned(self, instrument: Instrument) -> Instrument:
        if instrument.option is not None:
            self._terms[instrument.ticker] = instrument.option
        return instrument

    def model(self) -> Model:
        """What computes Greeks where the feed has none; made on first use.

        Raises:
            ConfigError: QuantLib is not installed.
        """
        if self._model is None:
            self._model = Model(self._carry, self._carries)
        return self._model

    # --- probes ---------------------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Ask for the broker's status, admitted or not; its outcome reaches the breaker."""
        permit = self.breaker.try_acquire()
        await self._caller.call(_status(), permit or Observer(self.breaker), lambda _: None)

    async def tick_probe(self) -> bool:
        """Send the probe that is due, if one is; True when something was asked."""
        if self.breaker.get_state() not in {"half_open", "open"} or self.breaker.seconds_to_probe() != 0:
            return False
        permit = self.breaker.try_acquire()
        if permit is None:
            return False
        try:
            await self._caller.call(_status(), permit, lambda _: None)
        except VenueError:
            # The breaker and the log have heard of it; there is nobody else to tell.
            return True
        return True

    def _start_probe(self) -> None:
        if self._probes or self.breaker.seconds_to_probe() != 0:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        task = loop.create_task(self._probe_until_refused())
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _probe_until_refused(self) -> None:
        for _ in range(self.breaker.config.half_open_max_tries):
            if not await self.tick_probe():
                return

    # --- the stream -----------------------------------------------------------------------------------------

    def events(self, tickers: Collection[str]) -> AsyncIterator[VenueEvent]:
        """Follow quotes, Greeks and underlyings of *tickers* and everything of ours, reconnecting until closed.

        Connects when it is first iterated; `follow` works from now on. A stream asked for before ends.

        Raises (while iterated):
            VenueRejected: The broker refuses the token, or speaks another version.
            ConfigError: Greeks must be computed and QuantLib is not installed.
        """
        machine = StreamMachine(
            self._clock, venue_clock=self._venue_clock, terms=self.terms, model=self.model
        )
        machine.follow(tickers)
        following = Following(
            machine,
            self._link,
            venue_clock=self._venue_clock,
            connect_secs=self._caller.limit_secs,
            note=self._note,
            refused=lambda reason: self.breaker.latch(reason, COMPONENT),
            rng=self._rng,
            sleep=self._sleep,
        )
        before, self._following = self._following, following
        return self._follow(before, following)

    async def _follow(self, before: Following | None, following: Following) -> AsyncIterator[VenueEvent]:
        if before is not None:
            before.end()
        await self._learn_terms(following.machine.singles)
        events = following.events()
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    def _greeting(self) -> list[tuple[str, dict[str, Any]]]:
        return [] if self._following is None else self._following.greeting()

    async def _note(self, details: dict[str, Any]) -> None:
        await self._audit.record_async("STREAM", details, user=self._user, component=COMPONENT)

    async def _learn_terms(self, tickers: Sequence[str]) -> None:
        """Read the chain where the terms of a followed contract are not known: the model needs them."""
        if any(ticker not in self._terms for ticker in tickers):
            try:
                await self._read(
                    Call(op="chain", method="GET", endpoint="chains/*", params={"underlying": ""}),
                    self._learn_chain,
                )
            except (VenueError, AuditError):
                # Without terms there are no Greeks, and without Greeks nothing is entered; the stream goes on.
                return

    def _learn_chain(self, raw: msgspec.Raw) -> None:
        for instrument in wire.read_chain(raw):
            self._learned(instrument)

    def _heard(self, frame: Frame, generation: int) -> None:
        if self._following is not None:
            self._following.heard(frame, generation)

    def _down(self, reason: str) -> None:
        if self._following is not None:
            self._following.down(reason)

    async def follow(self, ticker: str) -> None:
        """Add one contract or combination to a running `events`."""
        following = self._following
        if following is None or ticker in following.machine.tickers:
            return
        singles = following.machine.follow([ticker])
        await self._learn_terms(singles)
        await self._link.post("follow", {"tickers": singles})

    async def quiescent(self, n: int) -> None:
        """Tell the broker that everything up to tick *n* is dealt with."""
        if self._following is not None:
            await self._following.quiescent(n)

    async def close(self) -> None:
        """Let go of the connection; resting orders stay."""
        following, self._following = self._following, None
        if following is not None:
            following.end()
        for task in list(self._probes):
            task.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        await self._link.close()

    # --- inside ---------------------------------------------------------------------------------------------

    async def _read(self, call: Call, parse: Callable[[msgspec.Raw], T], *, regardless: bool = True) -> T:
        permit: Counted
        try:
            permit = self.breaker.acquire(probe=True)
        except CircuitBreakerOpenError:
            if not regardless:
                raise
            permit = Observer(self.breaker)
        return await self._caller.call(call, permit, parse)


def _believed(row: wire.DatedRow | None, now_ns: int) -> Sides | QuoteFault:
    if row is None:
        return QuoteFault.MISSING
    _, bid, bid_size, ask, ask_size, _, ts_ns = row
    if ts_ns and now_ns - ts_ns > STALE_NS:
        return QuoteFault.STALE
    return read_sides(bid, bid_size, ask, ask_size)


def _status() -> Call:
    return Call(op="status", method="GET", endpoint="status")
