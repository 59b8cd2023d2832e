"""What is known of contracts: described by the gateway once a day, by our names and by the broker's numbers.

Promise: an instrument comes from the gateway's own description, its tick grid from the market rule that orders by
SMART follow. Whether it is open is computed anew each time it is asked. A description that cannot be read is no
instrument: there is no default for a multiplier, a tick or a way of exercise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import BadInput, VenueAnswerUnknown, VenueRejected
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6
from holdfast.core.options import is_option
from holdfast.venues.ib.calls import Calls
from holdfast.venues.ib.contracts import (
    SMART,
    USD,
    Called,
    Listed,
    asked_contract,
    at,
    bag_called,
    called,
    close_of,
    combo_of,
    legs_of,
    listed_of,
    not_found,
    pick,
    rule_number,
    ticker_of,
)
from holdfast.venues.ib.library import load
from holdfast.venues.permits import Counted

if TYPE_CHECKING:
    from ib_async.contract import Contract, ContractDetails
    from ib_async.objects import PriceIncrement

FRESH_SECS = 43_200
"""A description is read again after half a day: sessions and steps change overnight."""


class Directory:
    """See the head of this file.

    Args:
        calls: How the gateway is asked.
        permit: Gives leave to ask; True asks although the breaker is open.
        clock: When sessions run and descriptions age.
        fee: What one contract costs at most, per side.
    """

    def __init__(
        self, calls: Calls, *, permit: Callable[[bool], Counted], clock: Clock, fee: MoneyE6
    ) -> None:
        self._calls = calls
        self._permit = permit
        self._clock = clock
        self._fee = fee
        self._known: dict[str, tuple[Listed, int]] = {}
        self._called: dict[int, Called] = {}
        self._rules: dict[int, list[PriceIncrement]] = {}

    async def describe(self, ticker: str, *, regardless: bool = False) -> Listed:
        """One contract or combination as it stands now.

        Raises:
            VenueRejected: No such contract (code "not_found"), or one that is not understood.
            VenueError: It could not be read.
            CircuitBreakerOpenError: A breaker is open; never with *regardless*.
        """
        known = self.known(ticker)
        if known is not None:
            return known
        legs = legs_of(ticker)
        now_ns = self._clock.now_ns()
        try:
            if legs:
                parts = [(await self.describe(leg, regardless=regardless), ratio) for leg, ratio in legs]
                made = combo_of(ticker, parts, now_ns=now_ns, fee=self._fee)
            else:
                made = await self._described(ticker, regardless=regardless)
        except BadInput as error:
            raise _not_understood(ticker, error) from error
        self._keep(ticker, made, now_ns)
        return made

    async def _described(self, ticker: str, *, regardless: bool) -> Listed:
        asked = asked_contract(ticker)
        try:
            found = await self._details(asked, regardless=regardless)
        except VenueRejected as rejected:
            if rejected.status == 404:
                raise not_found(ticker) from None
            raise
        details = pick(ticker, found)
        steps = await self._steps(details, regardless=regardless)
        return listed_of(ticker, details, steps, now_ns=self._clock.now_ns(), fee=self._fee)

    def known(self, ticker: str) -> Listed | None:
        """What is known of *ticker* without asking, as it stands now; None when it must be asked."""
        listed, read_ns = self._known.get(ticker, (None, 0))
        now_ns = self._clock.now_ns()
        if listed is None or now_ns - read_ns > FRESH_SECS * NANOS:
            return None
        if listed.hours and not close_of(listed.hours, now_ns):
            return None
        return at(listed, now_ns)

    def everything(self) -> Iterator[Listed]:
        """Whatever was described, as it stands now."""
        now_ns = self._clock.now_ns()
        return (at(listed, now_ns) for listed, _ in list(self._known.values()))

    async def called(self, contract: Contract) -> Called:
        """How we call a contract that the gateway lists; a combination by its legs' numbers.

        Raises:
            VenueError: A leg's number could not be read, or how many units an option is for.
        """
        try:
            for leg in contract.comboLegs:
                if leg.conId not in self._called:
                    wanted = load().Contract(conId=leg.conId)
                    (details, *_) = await self._details(wanted, regardless=True)
                    if details.contract is not None:
                        self._called[leg.conId] = called(details.contract)
            known = self.called_at_once(contract)
        except BadInput as error:
            raise VenueAnswerUnknown(
                f"the gateway lists something that is not understood: {error}"
            ) from error
        if known is None:
            raise VenueAnswerUnknown(f"the legs of a combination on {contract.symbol!r} were not told")
        return known

    def called_at_once(self, contract: Contract) -> Called | None:
        """As `called`, from what is known; None where a leg's number is not.

        Raises:
            BadInput: An option without its multiplier.
        """
        return called(contract) if contract.secType != "BAG" else bag_called(contract, self._called)

    async def expiries(self, underlying: str) -> list[int]:
        """Last days (yyyymmdd) of the options that SMART lists on a stock or index, soonest first.

        Raises:
            VenueError: They could not be read, or there is no such underlying.
        """
        contract = await self._underlying(underlying)
        ib: Any = self._calls.session.ib
        chains = await self._calls.read(
            "reqSecDefOptParams",
            lambda: ib.reqSecDefOptParamsAsync(contract.symbol, "", contract.secType, contract.conId),
            self._permit(False),
            contract=underlying,
        )
        return sorted({int(day) for one in chains if one.exchange == SMART for day in one.expirations})

    async def chain(self, underlying: str, expiry: int) -> list[Instrument]:
        """Every option on *underlying* of one last day, by ticker; one request for all of them.

        Raises:
            VenueError: They could not be read, or none is listed.
        """
        wanted = load().Contract(
            secType="OPT",
            symbol=underlying,
            lastTradeDateOrContractMonth=str(expiry),
            exchange=SMART,
            currency=USD,
        )
        now_ns = self._clock.now_ns()
        found: list[Instrument] = []
        for details in await self._details(wanted, regardless=False):
            ticker = ticker_of(details.contract) if details.contract is not None else ""
            if not is_option(ticker):
                continue
            steps = await self._steps(details, regardless=False)
            try:
                made = listed_of(ticker, details, steps, now_ns=now_ns, fee=self._fee)
            except BadInput as error:
                raise _not_understood(ticker, error) from error
            self._keep(ticker, made, now_ns)
            found.append(made.instrument)
        return sorted(found, key=lambda one: one.ticker)

    async def _underlying(self, symbol: str) -> Contract:
        """The contract of a stock, or of an index where there is no such stock."""
        try:
            contract = (await self.describe(symbol)).contract
        except VenueRejected as rejected:
            if rejected.status != 404:
                raise
            index = load().Contract(secType="IND", symbol=symbol, currency=USD)
            (details, *_) = await self._details(index, regardless=False)
            contract = details.contract
        if contract is None:
            raise not_found(symbol)
        return contract

    def _keep(self, ticker: str, listed: Listed, now_ns: int) -> None:
        self._known[ticker] = listed, now_ns
        if listed.contract is not None and listed.contract.secType != "BAG":
            self._called[listed.contract.conId] = Called(ticker, listed.instrument.multiplier)

    async def _details(self, wanted: Contract, *, regardless: bool) -> list[ContractDetails]:
        ib: Any = self._calls.session.ib
        return await self._calls.read(
            "reqContractDetails",
            lambda: ib.reqContractDetailsAsync(wanted),
            self._permit(regardless),
            contract=wanted.localSymbol or wanted.symbol or str(wanted.conId),
        )

    async def _steps(self, details: ContractDetails, *, regardless: bool) -> list[PriceIncrement]:
        """The market rule's price steps, asked once; empty where the contract has no rule."""
        number = rule_number(details)
        if number is None:
            return []
        if number not in self._rules:
            ib: Any = self._calls.session.ib

            def request() -> Awaitable[list[PriceIncrement] | None]:
                asked: Awaitable[list[PriceIncrement] | None] = ib.reqMarketRuleAsync(number)
                return asked

            steps = await self._calls.read(
                "reqMarketRule", request, self._permit(regardless), name=f"marketRule-{number}"
            )
            if not steps:
                raise VenueAnswerUnknown(f"reqMarketRule: rule {number} was not told")
            self._rules[number] = steps
        return self._rules[number]


def _not_understood(ticker: str, error: BadInput) -> VenueRejected:
    return VenueRejected(f"contract {ticker!r} is not understood: {error}", code="not_understood")
