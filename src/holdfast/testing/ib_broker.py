"""Interactive Brokers' own books, in memory: contracts, quotes, orders, executions, holdings and cash of one account.

It knows everything that happened, always; whoever stands before it (`ib_gateway.py`) hears of each change through
the methods at the end of the class and passes it on, or does not.

Limits: one account in dollars, limit orders, whole contracts. Quotes are the test's; an order takes at most the size
shown, a combination all of its legs at once.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from ib_async.contract import Bag, Contract, ContractDetails, Option, Stock
from ib_async.objects import CommissionReport, Execution, ExecutionFilter, PriceIncrement
from ib_async.order import Order

from holdfast.core.clock import NANOS, Clock
from holdfast.core.options import Right, parse_option_ticker

BAG_NUMBER = 28812380
"""Every combination has this number at the broker."""
_NEW_YORK = ZoneInfo("America/New_York")
LIVE = frozenset({"PendingSubmit", "PreSubmitted", "Submitted", "Inactive"})


@dataclass
class Quote:
    """What is shown of one contract, with its Greeks as the feed writes them."""

    bid: float = -1.0
    ask: float = -1.0
    bid_size: float = 0.0
    ask_size: float = 0.0
    greeks: tuple[float, ...] = ()


@dataclass
class BrokerOrder:
    """One order in the broker's books.

    Attributes:
        permanent: The broker's own number.
        is_hidden: The gateway lists it to nobody.
    """

    permanent: int
    client: int
    number: int
    contract: Contract
    order: Order
    status: str = "Submitted"
    filled: int = 0
    is_hidden: bool = False

    @property
    def total(self) -> int:
        """Units ordered."""
        return int(self.order.totalQuantity)

    @property
    def leaves(self) -> int:
        """Units that may still trade."""
        return self.total - self.filled if self.status in LIVE else 0


@dataclass
class Done:
    """One execution in the broker's books, with what it cost; a correction carries a later revision."""

    contract: Contract
    execution: Execution
    commission: CommissionReport
    is_told: bool = False


class FakeBroker:
    """See the head of this file.

    Args:
        clock: Dates executions and sessions.
        account: The one account's number.
        cash: Dollars in it at first.

    Attributes:
        orders: By permanent number, oldest first.
        executions: Oldest first, combinations' own lines among them.
        holdings: Signed contracts or shares by contract number.
        quotes: What is shown, by contract number.
        numbers: The newest permanent number of each client's number.
        commission: Dollars per contract and leg.
    """

    def __init__(self, clock: Clock, *, account: str, cash: float) -> None:
        self.orders: dict[int, BrokerOrder] = {}
        self.executions: list[Done] = []
        self.holdings: dict[int, int] = {}
        self.quotes: dict[int, Quote] = {}
        self.numbers: dict[tuple[int, int], int] = {}
        self.accounts = [account]
        self.cash = cash
        self.buying_power = 4 * cash
        self.commission = 0.65
        self.clock = clock
        self._details: dict[int, ContractDetails] = {}
        self._untold: list[tuple[int, int, float]] = []
        self._permanent = 1_700_000_000

    # What a test does ---------------------------------------------------------------------------------

    def list_option(
        self,
        ticker: str,
        *,
        underlying: str = "",
        under_type: str = "STK",
        multiplier: str = "100",
        hours: str = "0930-1600",
        last_trading_day: str = "",
    ) -> int:
        """List one option under its OCC symbol; its number at the broker."""
        name = parse_option_ticker(ticker)
        symbol = underlying or name.root
        contract = Option(
            symbol,
            last_trading_day or str(name.expiry),
            name.strike / 10_000,
            "C" if name.right is Right.CALL else "P",
            "SMART",
            multiplier,
            "USD",
            localSymbol=name.root.ljust(6) + ticker[len(name.root) :],
            tradingClass=name.root,
        )
        return self._list(contract, under_type=under_type, under_symbol=symbol, hours=hours)

    def list_stock(self, symbol: str, *, hours: str = "0930-1600") -> int:
        """List one stock; its number at the broker."""
        return self._list(Stock(symbol, "SMART", "USD", localSymbol=symbol), hours=hours)

    def list_index(self, symbol: str, *, hours: str = "0930-1600") -> int:
        """List one index; its number at the broker."""
        index = Contract(secType="IND", symbol=symbol, exchange="CBOE", currency="USD", localSymbol=symbol)
        return self._list(index, hours=hours)

    def quote(
        self, ticker: str, *, bid: float = -1, ask: float = -1, bid_size: float = 50, ask_size: float = 50
    ) -> None:
        """Show prices of a listed contract; -1 takes a side away."""
        number = self.number_of(ticker)
        old = self.quotes.get(number, Quote())
        self.quotes[number] = replace(
            old,
            bid=bid,
            ask=ask,
            bid_size=bid_size if bid >= 0 else 0.0,
            ask_size=ask_size if ask >= 0 else 0.0,
        )
        self.price_changed(number)
        self.match_resting()

    def greeks(
        self,
        ticker: str,
        *,
        iv: float = 0.2,
        delta: float = 0.5,
        gamma: float = 0.01,
        vega: float = 0.3,
        theta: float = -0.05,
        spot: float = 450.0,
    ) -> None:
        """Let the feed's model say these; -1 (iv, spot) and -2 (the others) are its words for no value."""
        number = self.number_of(ticker)
        self.quotes.setdefault(number, Quote()).greeks = (iv, delta, -1.0, -1.0, gamma, vega, theta, spot)
        self.price_changed(number)

    def number_of(self, ticker: str) -> int:
        """The broker's number of a listed contract."""
        for number, details in self._details.items():
            contract = details.contract
            if contract is not None and contract.localSymbol.replace(" ", "") == ticker:
                return number
        raise KeyError(ticker)

    def order_of(self, ref: str) -> BrokerOrder:
        """The newest order of that reference."""
        return [one for one in self.orders.values() if one.order.orderRef == ref][-1]

    def fill(self, ref: str, count: int = 0, *, price: float | None = None) -> None:
        """Somebody trades *count* (0: all that is open) with a resting order."""
        listed = self.order_of(ref)
        self.execute(
            listed, count or listed.leaves, float(listed.order.lmtPrice or 0) if price is None else price
        )

    def cancel_at_broker(self, ref: str) -> None:
        """The broker takes an order off its books."""
        self.end(self.order_of(ref), "Cancelled")

    def end_option(self, ticker: str, shares: int = 0, *, count: int = 0) -> None:
        """An option ends as it does here: overnight, in holdings and cash, without any execution.

        Args:
            ticker: The contract.
            shares: What its delivery adds to the shares of its underlying, at its strike; 0 where it expires worthless.
            count: How many contracts of it; 0 for all.
        """
        number, name = self.number_of(ticker), parse_option_ticker(ticker)
        held = self.holdings[number]
        ends = (1 if held > 0 else -1) * count or held
        self.holdings[number] = held - ends
        strike = name.strike / 10_000
        self._untold.append((number, -ends, 0.0))
        if shares:
            stock = self.number_of(self._symbol(number))
            self.holdings[stock] = self.holdings.get(stock, 0) + shares
            self.cash -= shares * strike
            self._untold.append((stock, shares, strike))
        self.account_changed()

    def _symbol(self, number: int) -> str:
        contract = self._details[number].contract
        return contract.symbol if contract is not None else ""

    def delist(self, ticker: str) -> None:
        """The contract is described to nobody any more, as an expired one."""
        del self._details[self.number_of(ticker)]

    def tell_endings(self) -> None:
        """Tell executions of the endings that were not told, as of a screen's order, free of cost."""
        untold, self._untold = self._untold, []
        for number, signed, price in untold:
            contract = copy.copy(self._details[number].contract or Contract())
            exec_id = f"0000f1f1.{len(self.executions) + 1:08x}.01.01"
            execution = Execution(
                execId=exec_id,
                time=datetime.fromtimestamp(self.clock.now_ns() // NANOS, UTC),
                acctNumber=self.accounts[0],
                exchange="SMART",
                side="BOT" if signed > 0 else "SLD",
                shares=float(abs(signed)),
                price=price,
            )
            report = CommissionReport(execId=exec_id, commission=0.0, currency="USD")
            done = Done(contract, execution, report)
            self.executions.append(done)
            self.executed(done)

    def position(self, ticker: str) -> int:
        """The broker's own count."""
        return self.holdings.get(self.number_of(ticker), 0)

    # Trading ------------------------------------------------------------------------------------------

    def accept(
        self,
        client: int,
        number: int,
        contract: Contract,
        order: Order,
        *,
        status: str = "Submitted",
        is_told: bool = True,
    ) -> BrokerOrder:
        """Take an order into the books and let it trade."""
        self._permanent += 1
        order = copy.copy(order)
        order.permId, order.clientId, order.orderId = self._permanent, client, number
        listed = BrokerOrder(self._permanent, client, number, contract, order)
        self.orders[listed.permanent] = listed
        self.numbers[client, number] = listed.permanent
        listed.status = status
        if is_told:
            self.order_changed(listed)
        self.trade(listed, is_told=is_told)
        return listed

    def trade(self, listed: BrokerOrder, *, is_told: bool = True) -> None:
        """Take what is shown within the limit; end an immediate order's rest."""
        if listed.status != "Submitted":
            return
        price, size = self.opposite(listed)
        limit = float(listed.order.lmtPrice or 0)
        is_buy = listed.order.action == "BUY"
        crosses = size > 0 and (price <= limit if is_buy else price >= limit)
        count = min(listed.leaves, int(size)) if crosses else 0
        if listed.order.tif == "FOK" and count < listed.leaves:
            count = 0
        if count:
            self._take_size(listed, count)
            self.execute(listed, count, price, is_told=is_told)
        if listed.leaves and listed.order.tif in {"IOC", "FOK"}:
            self.end(listed, "Cancelled", is_told=is_told)

    def match_resting(self) -> None:
        """Let every resting order trade with what is shown now."""
        for listed in list(self.orders.values()):
            if listed.leaves:
                self.trade(listed)

    def legs_of(self, contract: Contract) -> list[tuple[int, int]]:
        """Numbers and signed ratios of what buying one unit buys."""
        if contract.secType != "BAG":
            return [(contract.conId, 1)]
        return [(leg.conId, leg.ratio if leg.action == "BUY" else -leg.ratio) for leg in contract.comboLegs]

    def opposite(self, listed: BrokerOrder) -> tuple[float, float]:
        """What the order could trade against: price per unit, units."""
        sign = 1 if listed.order.action == "BUY" else -1
        price, size = 0.0, float("inf")
        for number, ratio in self.legs_of(listed.contract):
            quote = self.quotes.get(number, Quote())
            takes_ask = ratio * sign > 0
            side, shown = (quote.ask, quote.ask_size) if takes_ask else (quote.bid, quote.bid_size)
            price += ratio * side
            size = min(size, shown // abs(ratio))
        return round(price, 4), size

    def _take_size(self, listed: BrokerOrder, count: int) -> None:
        sign = 1 if listed.order.action == "BUY" else -1
        for number, ratio in self.legs_of(listed.contract):
            quote = self.quotes[number]
            if ratio * sign > 0:
                quote.ask_size -= count * abs(ratio)
            else:
                quote.bid_size -= count * abs(ratio)

    def execute(self, listed: BrokerOrder, count: int, price: float, *, is_told: bool = True) -> None:
        """Book one trade: of a combination one line for the bag and one per leg."""
        listed.filled += count
        if listed.filled >= listed.total:
            listed.status = "Filled"
        sign = 1 if listed.order.action == "BUY" else -1
        lines: list[tuple[Contract, int, float]] = []
        if listed.contract.secType == "BAG":
            make: Any = Bag
            bag = make(symbol=listed.contract.symbol, conId=BAG_NUMBER, exchange="SMART", currency="USD")
            lines.append((bag, sign * count, price))
            for number, ratio in self.legs_of(listed.contract):
                leg = self._details[number].contract or Contract()
                quote = self.quotes.get(number, Quote())
                at = quote.ask if ratio * sign > 0 else quote.bid
                lines.append((copy.copy(leg), sign * count * ratio, at))
        else:
            lines.append((listed.contract, sign * count, price))
        if is_told:
            self.order_moved(listed)
        for part, (contract, signed, at) in enumerate(lines, start=1):
            self._book(listed, contract, signed, at, part, is_told=is_told)
        self.account_changed()

    def _book(
        self, listed: BrokerOrder, contract: Contract, signed: int, price: float, part: int, *, is_told: bool
    ) -> None:
        exec_id = f"0000e0d5.{len(self.executions) + 1:08x}.{part:02d}.01"
        execution = Execution(
            execId=exec_id,
            time=datetime.fromtimestamp(self.clock.now_ns() // NANOS, UTC),
            acctNumber=self.accounts[0],
            exchange="SMART",
            side="BOT" if signed > 0 else "SLD",
            shares=float(abs(signed)),
            price=price,
            permId=listed.permanent,
            clientId=listed.client,
            orderId=listed.number,
            cumQty=float(listed.filled),
            avgPrice=price,
            orderRef=listed.order.orderRef,
        )
        cost = self.commission * abs(signed)
        report = CommissionReport(execId=exec_id, commission=cost, currency="USD")
        done = Done(contract, execution, report)
        self.executions.append(done)
        if contract.secType != "BAG":
            self.move(contract, execution)
            self.cash -= cost
        if is_told:
            self.executed(done)

    def move(self, contract: Contract, execution: Execution, *, back: bool = False) -> None:
        """What *execution* does to holdings and cash, its cost apart; *back* undoes it."""
        signed = int(execution.shares) * (1 if (execution.side == "BOT") is not back else -1)
        self.holdings[contract.conId] = self.holdings.get(contract.conId, 0) + signed
        self.cash -= signed * execution.price * int(contract.multiplier or 1)

    def end(self, listed: BrokerOrder, status: str, *, is_told: bool = True) -> None:
        """Take an order off the books."""
        listed.status = status
        if is_told:
            self.order_ended(listed)

    # What is listed -----------------------------------------------------------------------------------

    def details(self, wanted: Contract) -> list[ContractDetails]:
        """What is listed and fits *wanted*."""
        found = [copy.deepcopy(one) for one in self._details.values() if _fits(one.contract, wanted)]
        for one in found:
            one.liquidHours = one.tradingHours = self._session(one.notes)
            one.notes = ""
        return found

    def market_rule(self, number: int) -> list[PriceIncrement]:
        """Price steps by number of the rule: cents, or five cents from three dollars on."""
        cents = [PriceIncrement(0.0, 0.01)]
        return [*cents, PriceIncrement(3.0, 0.05)] if number == 109 else cents

    def matching_executions(self, wanted: ExecutionFilter) -> list[Done]:
        """Every client's executions in the account that fit *wanted*."""
        return [
            done
            for done in self.executions
            if wanted.acctCode in {"", done.execution.acctNumber}
            and wanted.clientId in {0, done.execution.clientId}
        ]

    def classes(self, symbol: str) -> list[tuple[str, str, list[str], list[float]]]:
        """Option classes on *symbol*: name, multiplier, days, strikes."""
        found: dict[str, tuple[str, set[str], set[float]]] = {}
        for details in self._details.values():
            contract = details.contract
            if contract is not None and contract.secType == "OPT" and contract.symbol == symbol:
                _, days, strikes = found.setdefault(
                    contract.tradingClass, (contract.multiplier, set(), set())
                )
                days.add(details.realExpirationDate)
                strikes.add(contract.strike)
        return [(name, one[0], sorted(one[1]), sorted(one[2])) for name, one in found.items()]

    def now_secs(self) -> int:
        """Unix seconds."""
        return self.clock.now_ns() // NANOS

    def _session(self, hours: str) -> str:
        """Today and the four days after it, in New York."""
        today = datetime.fromtimestamp(self.clock.now_ns() // NANOS, _NEW_YORK).date()
        days = [datetime.fromordinal(today.toordinal() + ahead).strftime("%Y%m%d") for ahead in range(5)]
        opens, closes = hours.split("-")
        return ";".join(f"{day}:{opens}-{day}:{closes}" for day in days)

    def _list(self, contract: Contract, *, under_type: str = "", under_symbol: str = "", hours: str) -> int:
        contract.conId = 500_000_001 + len(self._details)
        is_penny = contract.symbol in {"SPY", "QQQ", "IWM"} or contract.secType == "STK"
        self._details[contract.conId] = ContractDetails(
            contract=contract,
            minTick=0.01,
            validExchanges="CBOE,SMART",
            marketRuleIds="109,26" if is_penny else "26,109",
            underSymbol=under_symbol,
            underSecType=under_type,
            timeZoneId="US/Eastern",
            realExpirationDate=contract.lastTradeDateOrContractMonth,
            notes=hours,
        )
        return contract.conId

    # Who hears of it ----------------------------------------------------------------------------------

    def order_changed(self, listed: BrokerOrder) -> None:
        """An order is new, or its terms changed."""

    def order_moved(self, listed: BrokerOrder) -> None:
        """An order's counts or status changed."""

    def order_ended(self, listed: BrokerOrder) -> None:
        """An order was taken off the books."""

    def executed(self, done: Done) -> None:
        """A trade was booked."""

    def price_changed(self, number: int) -> None:
        """Another quote is shown of contract *number*."""

    def account_changed(self) -> None:
        """Cash moved."""


def _fits(contract: Contract | None, wanted: Contract) -> bool:
    if contract is None:
        return False
    if wanted.conId:
        return contract.conId == wanted.conId
    named = {
        "secType": wanted.secType,
        "symbol": wanted.symbol,
        "localSymbol": wanted.localSymbol,
        "tradingClass": wanted.tradingClass,
        "lastTradeDateOrContractMonth": wanted.lastTradeDateOrContractMonth,
        "right": wanted.right,
    }
    return all(not value or getattr(contract, name) == value for name, value in named.items()) and (
        not wanted.strike or contract.strike == wanted.strike
    )
