"""Endings of options that the venue tells by positions alone: booked once, replaced when it tells them after all.

`note` keeps what will be needed when it is too late to ask: the terms of what is held and the underlying's price at
its expiry. `book` takes a difference of positions apart by underlying, asks `endings.explain` for the one thing that
can have happened, and books it as external fills with their cause, under ids that follow from log, ticker, cause and
the number of such fills before, with an alarm `ended_unseen` each. The quantities are then the venue's. Of the cash:

* shares are booked at the strike, worthless contracts at 0: that is what happened. Where the underlying was not seen at
  the expiry, gone without a share may also mean closed by a person before: booked at 0, and the alarm says `claimed`;
* a contract settled in cash is booked at the payoff of the underlying as seen within `SEEN_SECS` after its expiry, and
  the alarm says `claimed`: the official settlement value may be another;
* where that was not seen nothing is invented: the contract is closed at 0, the alarm says `unknown` beside the
  venue's balance and ours, and the hold `SETTLEMENT` lets exits leave and nothing that increases, through restarts,
  until a person says the value or the venue tells the execution (`claimed.py`).

The venue's balance is shown and not believed: interest, late costs and money on its way are in it too.

A difference is acted on once it has stood for `ENDED_SECS` unchanged, also at a start: positions, shares and cash
need not change in one moment. Nothing is explained while an order of ours in these markets is unknown or its fills
are due, or while the terms of any missing option are unknown.

Limits: shares that come later than `ENDED_SECS` after their option has gone are a difference that nothing explains,
where the price at the expiry was not seen to forbid the wrong explanation. An execution dated after its claim, at a
price and without a word that it is an ending, counts as a trade of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import CircuitBreakerOpenError, VenueError
from holdfast.core.instruments import PREMIUM_CENTS, Instrument, InstrumentKind
from holdfast.core.money import MoneyE6, QtyE2, format_money, format_price, format_qty
from holdfast.core.options import is_option
from holdfast.core.orders import Fill, OrderStatus
from holdfast.core.signals import BookSide
from holdfast.execution.claimed import ClaimedEndings
from holdfast.execution.endings import ENDED_SECS, Lack, Line, explain
from holdfast.execution.ledger import Ledger
from holdfast.execution.reconcile import position_differences
from holdfast.execution.venue import Venue
from holdfast.risk.claims import CLAIM, SPOT, TERMS, KeptTerms
from holdfast.risk.market import Market

SEEN_SECS = 900
"""How long after an expiry a price of the underlying still tells where it stood then."""
_FREE = MoneyE6(0)


class UnseenEndings:
    """See the head of this file.

    Args:
        venue: Whose positions are believed.
        ledger: Where the endings go.
        market: Prices and rules.
        clock: Dates them.
        rules: Reads an instrument; None where it cannot be read now.

    Attributes:
        claimed: What was booked of them.
        unexplained: Why a missing option is not taken for ended, by underlying.
    """

    def __init__(
        self,
        venue: Venue,
        ledger: Ledger,
        market: Market,
        *,
        clock: Clock,
        rules: Callable[[str], Awaitable[Instrument | None]],
    ) -> None:
        self._venue = venue
        self._ledger = ledger
        self._account = ledger.account
        self._claims = ledger.account.claims
        self.claimed = ClaimedEndings(ledger)
        self._market = market
        self._clock = clock
        self._rules = rules
        self._standing: dict[str, tuple[object, int]] = {}
        self.unexplained: dict[str, str] = {}

    # What will be needed ------------------------------------------------------------------------------

    def note(self) -> None:
        """Note terms and prices at expiry of what is held, each once."""
        now_ns = self._clock.now_ns()
        for ticker in self._account.portfolio.positions:
            instrument = self._market.instruments.get(ticker)
            if instrument is None or instrument.option is None:
                continue
            kept = KeptTerms(instrument.option, instrument.multiplier)
            if self._claims.terms.get(ticker) != kept:
                self._note(TERMS, ours=ticker, theirs=kept.details())
            if 0 < kept.option.expires_ns <= now_ns:
                self._note_spot(kept.option.underlying, kept.option.expires_ns, now_ns)

    def _note_spot(self, symbol: str, expires_ns: int, now_ns: int) -> None:
        seen = self._market.underlying(symbol)
        if seen is None or (symbol, expires_ns) in self._claims.spots:
            return
        price, as_of_ns = seen
        seen_ns = now_ns - (self._clock.monotonic_ns() - as_of_ns)
        if expires_ns <= seen_ns <= expires_ns + SEEN_SECS * NANOS:
            told = {"expires_ns": expires_ns, "price": format_price(price), "seen_ns": seen_ns}
            self._note(SPOT, ours=symbol, theirs=told)

    def _note(self, what: str, **more: object) -> None:
        self._ledger.note(
            "RECONCILE",
            {"phase": "periodic", "what": what, "explained": True, "differences": [], **more},
        )

    def kept(self, ticker: str) -> Instrument | None:
        """An expired option, which no venue lists any more, as it was when it was held; None where it is not known."""
        kept = self._claims.terms.get(ticker)
        if kept is None or not 0 < kept.option.expires_ns <= self._clock.now_ns():
            return None
        return Instrument(
            venue=self._venue.name,
            ticker=ticker,
            kind=InstrumentKind.OPTION,
            option=kept.option,
            multiplier=kept.multiplier,
            price_ranges=PREMIUM_CENTS,
            is_open=False,
            close_ns=kept.option.expires_ns,
            status="expired",
        )

    # What is missing ----------------------------------------------------------------------------------

    async def book(self, theirs: Mapping[str, QtyE2]) -> bool:
        """Book every ending that alone explains what *theirs* lack; True where something was booked."""
        differences = position_differences(self._account.portfolio.positions, theirs)
        self.unexplained.clear()
        by_symbol: dict[str, list[Lack]] = {}
        for ticker, ours, there in differences:
            if not is_option(ticker):
                continue
            instrument = self._market.instruments.get(ticker) or await self._rules(ticker)
            if instrument is None or instrument.option is None:
                self.unexplained[ticker] = "its terms are not known"
                return False
            lack = Lack(ticker, instrument.option, instrument.multiplier, ours, there)
            by_symbol.setdefault(lack.terms.underlying, []).append(lack)
        shares = {ticker: QtyE2(there - ours) for ticker, ours, there in differences}
        self._standing = {symbol: one for symbol, one in self._standing.items() if symbol in by_symbol}
        booked = False
        for symbol, lacks in by_symbol.items():
            lines = self._explained(symbol, lacks, shares.get(symbol, QtyE2(0)))
            if isinstance(lines, str):
                self.unexplained[symbol] = lines
                continue
            await self._book(lines, {lack.ticker: lack for lack in lacks})
            booked = True
        return booked

    def _explained(self, symbol: str, lacks: list[Lack], shares: QtyE2) -> list[Line] | str:
        now_ns = self._clock.monotonic_ns()
        facts: object = (lacks, shares)
        known, since_ns = self._standing.get(symbol, (None, 0))
        if known != facts:
            self._standing[symbol] = facts, now_ns
            return "seen just now"
        if now_ns - since_ns < ENDED_SECS * NANOS:
            return "seen just now"
        if self._is_in_doubt({symbol, *(lack.ticker for lack in lacks)}):
            return "an order there is unknown, or its fills are due"
        spots = {expires_ns: price for (of, expires_ns), price in self._claims.spots.items() if of == symbol}
        return explain(lacks, shares, now_ns=self._clock.now_ns(), spots=spots)

    def _is_in_doubt(self, tickers: set[str]) -> bool:
        """Whether an order of ours may have moved these without our knowing."""
        return any(
            order.client_order_id in self._ledger.claims or order.status is not OrderStatus.WORKING
            for order in self._account.open_orders()
            if not order.external and any(ticker in tickers for ticker, _ in order.working)
        )

    async def _book(self, lines: list[Line], lacks: Mapping[str, Lack]) -> None:
        balance = "unread"
        with suppress(
            VenueError, CircuitBreakerOpenError
        ):  # it stands in the alarm only, for the person who reads it
            balance = format_money(await self._venue.balance())
        ours = format_money(self._account.portfolio.cash)
        now_ns = self._clock.now_ns()
        for line in lines:
            terms = lacks[line.option].terms
            name = f"ended/{self._ledger.log.wal.log_id[:8]}/{line.ticker}/{terms.expiry}"
            fill = Fill(
                trade_id=f"{name}/{line.cause.value}/{self._claims.booked + 1}",
                order_id="",
                ticker=line.ticker,
                side=BookSide.BID if line.qty > 0 else BookSide.ASK,
                price=line.price,
                qty=QtyE2(abs(line.qty)),
                fee=_FREE,
                is_taker=False,
                ts_ns=now_ns,
                multiplier=line.multiplier,
                cause=line.cause,
            )
            self.claimed.claim(fill, line.amount, line.option)
            if line.ticker == line.option:
                self._ledger.alarm(
                    CLAIM,
                    format_qty(fill.qty),
                    format_qty(QtyE2(0)),
                    ticker=line.ticker,
                    cause=line.cause.value,
                    price=format_price(line.price),
                    amount=line.amount.value,
                    trade_id=fill.trade_id,
                    venue_balance=balance,
                    our_cash=ours,
                )
        self.claimed.hold()
