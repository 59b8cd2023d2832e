"""Kalshi as a `Venue`: the port of execution/venue.py over the HTTP client and the stream.

Promise: what the port promises. Whatever reconciliation reads (open orders, one order, fills, positions, balance)
is asked although the breaker is open, and counted; instruments and books fail fast.

Limits: the venue refuses a repeated client order id only while the first order is open, as it documents, so an
answer that was lost is looked up and never sent again. No filter by client order id exists: `find_order` pages
and compares locally, and "not listed" is not yet a proof of absence.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from holdfast.core.clock import NANOS
from holdfast.core.errors import VenueRejected
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, QtyE2
from holdfast.core.orders import Fill
from holdfast.core.signals import Intent
from holdfast.execution.venue import (
    Book,
    CancelAnswer,
    DedupProfile,
    PlaceAnswer,
    PlacementPermit,
    VenueEvent,
    VenueOrder,
)
from holdfast.risk.gate import Admission
from holdfast.venues.kalshi.paging import all_pages, each_item
from holdfast.venues.kalshi.stream import KalshiStream
from holdfast.venues.kalshi.values import DEAREST_FEES, EventFacts, Market, Page, SeriesFees
from holdfast.venues.permits import PlacePermit

if TYPE_CHECKING:
    from holdfast.venues.kalshi.client import AsyncKalshiClient

CLOCK_SLACK_SECS = 600
"""How far the venue's clock may run from ours in a search by time; its signature check allows far less."""


class KalshiVenue:
    """One account at Kalshi.

    Args:
        client: Its HTTP side; closed with this.
        venue_clock: The exchange owns the market's clock (ours does) and waits for `quiescent`.
    """

    name = "kalshi"
    dedup = DedupProfile.OPEN_ONLY

    def __init__(self, client: AsyncKalshiClient, *, venue_clock: bool = False) -> None:
        self.client = client
        self._venue_clock = venue_clock
        self._stream: KalshiStream | None = None
        self._events: dict[str, EventFacts | None] = {}
        self._fees: dict[str, SeriesFees] = {}

    def placement_permit(self, ticker: str, *, reducing: bool) -> PlacementPermit:
        """Leave of the breakers to place one order; see `AsyncKalshiClient.placement_permit`."""
        return self.client.placement_permit(ticker, reducing=reducing)

    async def place(self, intent: Intent, admission: Admission, permit: PlacementPermit) -> PlaceAnswer:
        """Send once; a conflict is `Unknown`, to be looked up."""
        if not isinstance(permit, PlacePermit):
            raise TypeError("a placement needs the permit that this venue's placement_permit gave")
        return await self.client.create_order(intent, admission, permit)

    async def cancel(self, *, order_id: str, ticker: str) -> CancelAnswer:
        """Cancel one order, whatever the breakers say."""
        return await self.client.cancel_order(order_id, ticker=ticker)

    async def open_orders(self) -> Sequence[VenueOrder]:
        """Every working order of the account."""
        return await all_pages(
            lambda cursor: self.client.get_orders(status="resting", cursor=cursor, regardless=True)
        )

    async def find_order(self, *, client_order_id: str, ticker: str, since_ns: int) -> VenueOrder | None:
        """Search today's orders, then the archive."""
        min_ts = max(0, since_ns // NANOS - CLOCK_SLACK_SECS) if since_ns else None
        for is_historical in (False, True):
            orders = each_item(partial(self._orders_page, ticker, min_ts=min_ts, is_historical=is_historical))
            async with contextlib.aclosing(orders):
                async for order in orders:
                    if order.client_order_id == client_order_id:
                        return order
        return None

    async def order(self, order_id: str) -> VenueOrder | None:
        """One order by the venue's id; None if the venue does not know it."""
        try:
            return await self.client.get_order(order_id, regardless=True)
        except VenueRejected as rejected:
            if rejected.status == 404:
                return None
            raise

    async def fills(self, *, since_ns: int) -> Sequence[Fill]:
        """Our fills since *since_ns*, oldest first."""
        found = await all_pages(
            lambda cursor: self.client.get_fills(
                min_ts=since_ns // NANOS or None, cursor=cursor, regardless=True
            )
        )
        # One without a time is within what was asked for, for all that anybody knows.
        recent = (fill for fill in found if fill.ts_ns >= since_ns or not fill.ts_ns)
        return sorted(recent, key=lambda fill: fill.ts_ns)

    async def positions(self) -> dict[str, QtyE2]:
        """Signed YES quantity by ticker, without flat ones."""
        found = await all_pages(lambda cursor: self.client.get_positions(cursor=cursor, regardless=True))
        return {position.ticker: position.quantity for position in found if position.quantity}

    async def balance(self) -> MoneyE6:
        """Cash available."""
        return (await self.client.get_balance(regardless=True)).balance

    async def instrument(self, ticker: str, *, regardless: bool = False) -> Instrument:
        """One market's rules, with what its event and series say.

        Raises:
            VenueRejected: No such market, code "not_found".
        """
        try:
            market = await self.client.get_market(ticker, regardless=regardless)
        except VenueRejected as rejected:
            if rejected.status != 404:
                raise
            raise VenueRejected(str(rejected), code="not_found", status=404) from None
        event = await self._event(market.event_ticker, regardless=regardless)
        fees = DEAREST_FEES
        if event is not None:
            fees = await self._series(event.series_ticker, regardless=regardless)
        return _rules(market, event, fees)

    async def book(self, ticker: str) -> Book:
        """A fresh snapshot of one book."""
        return await self.client.get_orderbook(ticker)

    async def probe(self) -> None:
        """Ask for the exchange's status; its outcome reaches the breaker."""
        await self.client.probe()

    async def tick_probe(self) -> bool:
        """Send the breaker's probe if one is due; whoever drives time calls this. True when something was asked."""
        return await self.client.tick_probe()

    def events(self, tickers: Collection[str]) -> AsyncIterator[VenueEvent]:
        """Follow books and trades of *tickers* and everything of ours, reconnecting until closed.

        Connects when it is first iterated; `follow` works from now on. A stream asked for before ends.

        Raises (while iterated):
            VenueRejected: The venue refuses the key or a channel.
            ConfigError: The client has no key; even public channels need one.
        """
        before, self._stream = (
            self._stream,
            KalshiStream(self.client, tickers, venue_clock=self._venue_clock),
        )
        return _one_after_another(before, self._stream)

    async def follow(self, ticker: str) -> None:
        """Add one market to a running `events`."""
        if self._stream is not None:
            await self._stream.follow(ticker)

    async def quiescent(self, n: int) -> None:
        """Tell an exchange that owns the clock that everything up to tick *n* is dealt with."""
        if self._stream is not None:
            await self._stream.quiescent(n)

    async def close(self) -> None:
        """Let go of connections; resting orders stay."""
        await self.close_stream()
        await self.client.close()

    async def close_stream(self) -> None:
        """End `events`."""
        if self._stream is not None:
            await self._stream.close()

    # --- inside ---------------------------------------------------------------------------------------------

    async def _orders_page(
        self, ticker: str, cursor: str | None, *, min_ts: int | None, is_historical: bool
    ) -> Page[VenueOrder]:
        try:
            return await self.client.get_orders(
                ticker=ticker,
                min_ts=min_ts,
                cursor=cursor,
                is_historical=is_historical,
                regardless=True,
            )
        except VenueRejected as rejected:
            # An account without an archive may have no such page at all.
            if is_historical and rejected.status == 404:
                return Page([], "")
            raise

    async def _event(self, event_ticker: str, *, regardless: bool) -> EventFacts | None:
        """The facts of an event, asked once; None where the venue does not describe it."""
        if not event_ticker:
            return None
        if event_ticker not in self._events:
            try:
                self._events[event_ticker] = await self.client.get_event(event_ticker, regardless=regardless)
            except VenueRejected as rejected:
                if rejected.status != 404:
                    raise
                self._events[event_ticker] = None
        return self._events[event_ticker]

    async def _series(self, series_ticker: str, *, regardless: bool) -> SeriesFees:
        """The fees of a series, asked once; the dearest published ones where the venue does not describe it."""
        if series_ticker not in self._fees:
            try:
                self._fees[series_ticker] = await self.client.get_series_fees(
                    series_ticker, regardless=regardless
                )
            except VenueRejected as rejected:
                if rejected.status != 404:
                    raise
                self._fees[series_ticker] = DEAREST_FEES
        return self._fees[series_ticker]


async def _one_after_another(before: KalshiStream | None, stream: KalshiStream) -> AsyncIterator[VenueEvent]:
    if before is not None:
        await before.close()
    async for event in stream.events():
        yield event


def _rules(market: Market, event: EventFacts | None, fees: SeriesFees) -> Instrument:
    """The rules of *market*; without its event, markets of one event are taken to be independent."""
    return Instrument(
        venue="kalshi",
        ticker=market.ticker,
        event=market.event_ticker,
        event_exclusive=event is not None and event.mutually_exclusive,
        price_ranges=market.price_ranges,
        qty_step=market.qty_step,
        taker_fee_ppm=fees.taker_fee_ppm,
        maker_fee_ppm=fees.maker_fee_ppm,
        is_open=market.status == "active",
        close_ns=market.close_ns,
        status=market.status,
        result=market.result,
    )
