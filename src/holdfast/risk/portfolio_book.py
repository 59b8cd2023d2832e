"""What an account holds and works in options and stock, by underlying: Greeks, structures, and what can be lost.

Read from the account and the market under the account's lock, as integers. Greeks are share-equivalents:
Greek x contracts x multiplier, each position and each order rounded away from zero. Working and UNKNOWN orders count
at everything still open, what they add and what they take away apart; a combination counts by what its legs come
to, because it fills as one; of one filled in part what of each leg is still open.

Greeks that are a range, of what nobody bids for, push with the far end of it on either side: no limit passes that the
true ones would break, wherever in the range they lie. What is ordered is counted by figures: a range is missing there.

Exposure is what can still be lost: worth now, at the executable side, less the least worth at expiry
(`exposure.floor`), each working order filled or not, whichever is worse. Fees are left out. A structure is
everything on one underlying that expires together, with the stock beside it.

Limits: event contracts do not belong here and are passed over. A contract whose rules nobody read is missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from holdfast.core.greeks import Greeks
from holdfast.core.instruments import Instrument, InstrumentKind
from holdfast.core.signals import Intent
from holdfast.risk.account import Account
from holdfast.risk.exposure import Expiry, Outlook, Part, Work, expiry_of, outlook
from holdfast.risk.market import Held, Holdings, Market
from holdfast.risk.order import Order
from holdfast.risk.plans import Change

_ONE_E6 = 1_000_000
_CONTRACT_E2 = 100
_BINARY = InstrumentKind.BINARY


class Pressure(msgspec.Struct, frozen=True, gc=False):
    """One Greek, held and working, in 1e-6 share-equivalents.

    Attributes:
        held: Of the positions.
        ups: What working orders would add, those that add.
        downs: What working orders would take away, those that take away; not negative.
    """

    held: int = 0
    ups: int = 0
    downs: int = 0

    @property
    def worst(self) -> int:
        """The larger of both sides as it stands; at least 0."""
        return max(self.held + self.ups, self.downs - self.held)

    def after(self, change: int) -> int:
        """The worst on the side to which *change* pushes; as it stands where it pushes nowhere."""
        if change > 0:
            return self.held + self.ups + change
        if change < 0:
            return self.downs - self.held - change
        return self.worst

    def holding(self, change: int, least: int = 0, most: int = 0) -> Pressure:
        """With a position of *change* more, which may truly be more by anything from *least* to *most*."""
        return Pressure(self.held + change, self.ups + max(0, most), self.downs + max(0, -least))

    def working(self, change: int) -> Pressure:
        """With an order of *change* more."""
        return self.ranging(change, change)

    def ranging(self, least: int, most: int) -> Pressure:
        """With something more that may change it by anything from *least* to *most*, or not at all."""
        return Pressure(self.held, self.ups + max(0, most), self.downs + max(0, -least))

    def __add__(self, other: Pressure) -> Pressure:
        return Pressure(self.held + other.held, self.ups + other.ups, self.downs + other.downs)


class Loss(msgspec.Struct, frozen=True, gc=False):
    """What something can still lose, before an order and with it.

    Attributes:
        before, after: 1e-6 dollar, at least 0; None where nothing bounds it, or where its value is unknown.
        slope_before, slope_after: Units by which it falls with every further rise, in 1/100; 0 where it is bounded.
    """

    before: int | None = 0
    after: int | None = 0
    slope_before: int = 0
    slope_after: int = 0

    @property
    def is_worse(self) -> bool:
        """Whether the order makes it worse; what is unknown is worse."""
        if self.after is None:
            return not self.slope_after or self.slope_after < self.slope_before
        return self.before is not None and self.after > self.before


Line = tuple[Instrument, int]
"""An option or a stock and its signed count, 1/100."""


class Span(NamedTuple):
    """By how much a Greek may lie below and above its figure, 1e-6 share-equivalents: at most 0, at least 0."""

    down: int = 0
    up: int = 0


_NO_SPAN: Final = Span()


class Sensed(NamedTuple):
    """Delta and gamma, 1e-6 share-equivalents, and how far the true ones may lie from these."""

    delta: int
    gamma: int
    delta_span: Span = _NO_SPAN
    gamma_span: Span = _NO_SPAN


class Parcel(NamedTuple):
    """What an order would add: its work, and its marginal Greeks."""

    work: Work
    greeks: Sensed

    @property
    def delta(self) -> int:
        """1e-6 share-equivalents."""
        return self.greeks.delta

    @property
    def gamma(self) -> int:
        """1e-6 share-equivalents."""
        return self.greeks.gamma


class GreeksSeen:
    """Looks Greeks up, and remembers what was missing and what was oldest.

    Attributes:
        missing: The first contract whose Greeks, or whose rules, nobody knows; "" while all are known.
        oldest: The contract with the oldest Greeks; oldest_ns: when these were true, clock monotonic.
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self.missing = ""
        self.oldest = ""
        self.oldest_ns = 0

    def lacks(self, ticker: str) -> None:
        """Nothing is known of *ticker*."""
        self.missing = self.missing or ticker

    def of(self, lines: Sequence[Line], *, as_figures: bool = False) -> Sensed:
        """Delta and gamma of *lines*, together rounded away from zero; *as_figures* a range counts as missing."""
        delta = gamma = 0
        ranges: list[tuple[int, Greeks]] = []
        for instrument, qty in lines:
            units = qty * instrument.multiplier
            if instrument.option is None:  # a share moves with itself
                delta += units * _ONE_E6
                continue
            greeks = self._market.greeks(instrument.ticker)
            if greeks is None:
                self.lacks(instrument.ticker)
                continue
            if not self.oldest or greeks.as_of_ns < self.oldest_ns:
                self.oldest, self.oldest_ns = instrument.ticker, greeks.as_of_ns
            delta += units * greeks.delta_e6
            gamma += units * greeks.gamma_e6
            if not greeks.is_known:
                if as_figures:
                    self.lacks(instrument.ticker)
                ranges.append((units, greeks))
        return Sensed(
            _away_from_zero(delta),
            _away_from_zero(gamma),
            _span((units, greeks.delta_span_e6) for units, greeks in ranges) if ranges else _NO_SPAN,
            _span((units, greeks.gamma_span_e6) for units, greeks in ranges) if ranges else _NO_SPAN,
        )

    def parcel(self, lines: Sequence[Line], cash: int, *, as_figures: bool = False) -> Parcel:
        """An order for *lines* that adds *cash* when it fills."""
        parts = tuple(part_of(instrument, qty) for instrument, qty in lines)
        return Parcel(Work(parts, cash), self.of(lines, as_figures=as_figures))


class SymbolBook:
    """One underlying.

    Attributes:
        parts: Positions.
        works: Working orders.
        delta, gamma: Of both.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.works: list[Work] = []
        self.delta = Pressure()
        self.gamma = Pressure()
        self._worths: list[int | None] = []

    def hold(self, part: Part, worth: int | None, greeks: Sensed) -> None:
        """Add a position."""
        self.parts.append(part)
        self._worths.append(worth)
        self.delta = self.delta.holding(greeks.delta, *greeks.delta_span)
        self.gamma = self.gamma.holding(greeks.gamma, *greeks.gamma_span)

    def work(self, parcel: Parcel) -> None:
        """Add a working order."""
        greeks = parcel.greeks
        self.works.append(parcel.work)
        self.delta = self.delta.working(greeks.delta).ranging(*greeks.delta_span)
        self.gamma = self.gamma.working(greeks.gamma).ranging(*greeks.gamma_span)

    def plan(self, parcels: Sequence[Parcel]) -> None:
        """Add a plan, of which one of *parcels* happens at most."""
        first, *others = (parcel.work for parcel in parcels)
        self.works.append(first._replace(or_else=tuple(others)))
        greeks = [one.greeks for one in parcels]
        deltas = [one.delta + end for one in greeks for end in one.delta_span]
        gammas = [one.gamma + end for one in greeks for end in one.gamma_span]
        self.delta = self.delta.ranging(min(deltas), max(deltas))
        self.gamma = self.gamma.ranging(min(gammas), max(gammas))

    @property
    def structures(self) -> set[Expiry | None]:
        """What expires when, held or working; None stands for stock alone."""
        return structures_of(self.parts, self.works)

    def is_all_of(self, ends: Collection[Expiry | None]) -> bool:
        """Whether everything held and working here belongs to the structures *ends*."""
        return None in ends or self.structures - {None} <= set(ends)

    def loss(self, order: Work | None = None, only: Collection[Expiry | None] | None = None) -> Loss:
        """What can still be lost, before *order* and with it; of the structures *only*, or of all.

        Stock stands beside every structure, and to trade stock concerns all of them.
        """
        keep = None if only is None or None in only else {None, *only}
        parts, works = self._cut(keep)
        worth = self._worth(keep)
        before = outlook(parts, works)
        after = before if order is None else outlook(parts, [*works, order])
        return Loss(_lost(worth, before), _lost(worth, after), before.slope, after.slope)

    def _cut(self, keep: Collection[Expiry | None] | None) -> tuple[list[Part], list[Work]]:
        if keep is None:
            return self.parts, self.works
        parts = [part for part in self.parts if expiry_of(part) in keep]
        works = [work for work in self.works if any(expiry_of(part) in keep for part in work.every_part)]
        return parts, works

    def _worth(self, keep: Collection[Expiry | None] | None) -> int | None:
        total = 0
        for part, worth in zip(self.parts, self._worths, strict=True):
            if keep is None or expiry_of(part) in keep:
                if worth is None:
                    return None
                total += worth
        return total


class PortfolioBook(msgspec.Struct, frozen=True):
    """All of them at one moment.

    Attributes:
        symbols: By underlying.
        equity: Cash and everything held at the executable side, 1e-6 dollar; None when a price is missing.
        seen: Which Greeks were read.
    """

    symbols: Mapping[str, SymbolBook]
    equity: int | None
    seen: GreeksSeen

    @property
    def delta(self) -> Pressure:
        """Over all underlyings."""
        return sum((book.delta for book in self.symbols.values()), Pressure())

    @property
    def gamma(self) -> Pressure:
        """Over all underlyings."""
        return sum((book.gamma for book in self.symbols.values()), Pressure())

    @property
    def structures(self) -> set[tuple[str, Expiry | None]]:
        """Every structure held or working."""
        return {(symbol, end) for symbol, book in self.symbols.items() for end in book.structures}

    def of(self, symbol: str) -> SymbolBook:
        """One underlying; an empty book where nothing is held or working."""
        return self.symbols.get(symbol) or SymbolBook()


def read_book(
    account: Account, market: Market, *, but: str = "", holdings: Holdings | None = None
) -> PortfolioBook:
    """The book of *account* at the prices and Greeks of *market*; the caller holds the account's lock.

    The plan *but* is left out: one of its own steps is being judged. *holdings* are the positions at their prices,
    where the caller has them at hand.
    """
    seen = GreeksSeen(market)
    symbols: defaultdict[str, SymbolBook] = defaultdict(SymbolBook)
    holdings = holdings or market.holdings(account.portfolio.positions)
    for held in holdings.held:
        instrument = market.instruments.get(held.ticker)
        if instrument is None:
            seen.lacks(held.ticker)
        elif instrument.kind is not _BINARY:
            part, greeks = part_of(instrument, held.qty), seen.of([(instrument, held.qty)])
            symbols[instrument.underlying].hold(part, _worth(held), greeks)
    for lines, cash in _working(account, market, seen, but):
        parcel = seen.parcel(lines, cash)
        symbols[lines[0][0].underlying].work(parcel)
    for plan in account.plans.others(but):
        parcels = [_step_of(change, market, seen) for change in plan.ways()]
        known = market.instruments.get(plan.legs[0].ticker)
        if known is not None and parcels:
            symbols[known.underlying].plan(parcels)
    equity = None if holdings.worth is None else account.portfolio.cash + holdings.worth
    return PortfolioBook(symbols, equity, seen)


def parcel_of(intent: Intent, seen: GreeksSeen) -> Parcel:
    """What *intent* would add, by figures."""
    signal, instrument = intent.signal, intent.instrument
    qty = signal.book_side.sign * signal.count
    lines = [(leg.instrument, qty * leg.ratio) for leg in instrument.parts]
    return seen.parcel(lines, -qty * signal.yes_price * instrument.multiplier, as_figures=True)


def part_of(instrument: Instrument, qty: int) -> Part:
    """*qty* (signed, 1/100) of one option or stock, as a line of a book."""
    return Part(instrument.option, qty, instrument.multiplier)


def open_cash(order: Order, multiplier: int) -> int:
    """What the open part of *order* would add to cash at its limit, 1e-6 dollar; *multiplier* as its rules say.

    Of a combination whose legs filled unevenly no credit is counted: part of it was paid already.
    """
    cash = -order.side.sign * order.yes_price * order.leaves * multiplier
    return cash if order.is_even else min(0, cash)


def structures_of(parts: Sequence[Part], works: Sequence[Work] = ()) -> set[Expiry | None]:
    """What expires when; None for stock that has no option beside it."""
    ends = {expiry_of(part) for part in parts if part.qty}
    ends.update(expiry_of(part) for work in works for part in work.every_part)
    return ends - {None} or ends


def _step_of(change: Change, market: Market, seen: GreeksSeen) -> Parcel:
    """One way that a plan may go; Greeks leg by leg, as its orders and its positions will be counted."""
    parts: list[Part] = []
    legs: list[Sensed] = []
    for ticker, qty in change.legs:
        instrument = market.instruments.get(ticker)
        if instrument is None:
            seen.lacks(ticker)
            continue
        parts.append(part_of(instrument, qty))
        legs.append(seen.of([(instrument, qty)]))
    spans = [
        Span(sum(span.down for span in of_legs), sum(span.up for span in of_legs))
        for of_legs in ([one.delta_span for one in legs], [one.gamma_span for one in legs])
    ]
    greeks = Sensed(sum(one.delta for one in legs), sum(one.gamma for one in legs), *spans)
    return Parcel(Work(tuple(parts), change.cash), greeks)


def _working(
    account: Account, market: Market, seen: GreeksSeen, but: str
) -> Iterator[tuple[list[Line], int]]:
    """Every open order of options and stock: what of each leg may still execute, and the cash of that.

    A plan counts its own orders among its ways.
    """
    for order in account.open_orders():
        if order.plan and account.plans.subsumes(order.plan, but=but):
            continue
        known = [(market.instruments.get(ticker), qty) for ticker, qty in order.working]
        lines = [(instrument, qty) for instrument, qty in known if instrument is not None]
        if len(lines) < len(known):
            seen.lacks(order.ticker)
        elif lines[0][0].kind is not _BINARY and (still := [line for line in lines if line[1]]):
            yield still, open_cash(order, lines[0][0].multiplier)


def _worth(held: Held) -> int | None:
    return held.contract_worth if held.multiplier else Holdings.of((held,)).worth


def _span(ranges: Iterable[tuple[int, int]]) -> Span:
    """The ends of what *ranges*, signed units and how far each may lie from its figure, come to together."""
    ends = [0, 0]
    for units, span_e6 in ranges:
        ends[units > 0] += units * span_e6
    return Span(*map(_away_from_zero, ends))


def _lost(worth: int | None, worst: Outlook) -> int | None:
    """Worth now less the least worth at expiry; None where either is not known."""
    return None if worth is None or worst.floor is None else max(0, worth - worst.floor)


def _away_from_zero(product: int) -> int:
    """A Greek in 1e-6 times units in 1/100 as 1e-6 share-equivalents."""
    return -(-product // _CONTRACT_E2) if product > 0 else product // _CONTRACT_E2
