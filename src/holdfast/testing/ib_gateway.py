"""What stands behind Interactive Brokers' API, in memory: the broker's books, and the gateway program before them.

Two places that fail apart. The *broker* (`orders`, `executions`, `holdings`, `cash`) knows everything that happened, always. The
*gateway* passes it on to its clients, and forgets: what happens while its link to the broker is cut is never told
as an event, a restart loses what it knew of numbers and orders, a socket drops before or after a message.

`script` spoils the next placements, in order:

    Play.NORMAL      answered truly
    Play.LOST        the socket drops before the order arrives
    Play.TAKEN       the order arrives and is carried out; the socket drops before any answer
    Play.SILENT      carried out; nothing is said about it until somebody asks
    Play.REFUSED     error 201, then status Inactive
    Play.WARNED      warning 399 is the last that is said; the order lives
    Play.DOUBTED     error 321 is the last that is said; the order lives
    Play.READ_ONLY   error 321, the API is read-only; no order
    Play.OFF_TICK    error 110; no order
    Play.INACTIVE    status Inactive, held, no reason given
    Play.STUCK       status PendingSubmit with its permanent number, nothing more
    Play.MYSTERY     error 99999 is the last that is said; the order lives

Limits: one account in dollars, limit orders, whole contracts. Quotes are the test's; an order takes at most the size
shown, a combination all of its legs at once. Messages travel through the event loop, one after the other.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from ib_async.contract import Bag, Contract, ContractDetails, Option, Stock
from ib_async.objects import CommissionReport, Execution, ExecutionFilter, PriceIncrement
from ib_async.order import Order, OrderState

from holdfast.core.clock import NANOS, Clock
from holdfast.core.options import Right, parse_option_ticker

BAG_NUMBER = 28812380
"""Every combination has this number at the broker."""
_NEW_YORK = ZoneInfo("America/New_York")
_LIVE = frozenset({"PendingSubmit", "PreSubmitted", "Submitted", "Inactive"})


class Play(StrEnum):
    """What becomes of one placement; see the head of this file."""

    NORMAL = "normal"
    LOST = "lost"
    TAKEN = "taken"
    SILENT = "silent"
    REFUSED = "refused"
    WARNED = "warned"
    DOUBTED = "doubted"
    READ_ONLY = "read_only"
    OFF_TICK = "off_tick"
    INACTIVE = "inactive"
    STUCK = "stuck"
    MYSTERY = "mystery"


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
        return self.total - self.filled if self.status in _LIVE else 0


@dataclass
class Done:
    """One execution in the broker's books, with what it cost; a correction carries a later revision."""

    contract: Contract
    execution: Execution
    commission: CommissionReport
    is_told: bool = False


@dataclass
class Line:
    """One client's socket."""

    client: Any
    number: int
    is_up: bool = True
    tickers: dict[int, Contract] = field(default_factory=dict[int, Contract])
    account_updates: bool = False


class FakeGateway:
    """See the head of this file.

    Args:
        clock: Dates executions and sessions.
        account: The one account's number.
        cash: Dollars in it at first.
        next_number: What `nextValidId` says at first.

    Attributes:
        orders: The broker's, by permanent number, oldest first.
        executions: The broker's, combinations' own lines among them, oldest first.
        arrived: Every order that reached the gateway, in order; modifications apart in `modified`.
        heard: Name of every message a client sent, in order.
        holdings: Signed contracts or shares by contract number.
        commission: Dollars per contract and leg.
        commissions: "after" the fill, "late" (when `tell_commissions` is called), or "never".
        is_running, is_linked: Whether the gateway answers at all, and is linked to the broker.
        is_mute: True keeps back every message to the clients; they are delivered when it is False again.
    """

    def __init__(
        self, clock: Clock, *, account: str = "DU1234567", cash: float = 100_000.0, next_number: int = 1
    ) -> None:
        self.orders: dict[int, BrokerOrder] = {}
        self.executions: list[Done] = []
        self.arrived: list[Order] = []
        self.modified: list[Order] = []
        self.heard: list[str] = []
        self.holdings: dict[int, int] = {}
        self.accounts = [account]
        self.cash = cash
        self.buying_power = 4 * cash
        self.commission = 0.65
        self.commissions = "after"
        self.is_running = True
        self.is_linked = True
        self.is_mute = False
        self.no_data: int = 0
        self.quotes: dict[int, Quote] = {}
        self.next_number = next_number
        self._clock = clock
        self._details: dict[int, ContractDetails] = {}
        self._lines: list[Line] = []
        self._plays: deque[Play] = deque()
        self._waiting: list[tuple[Line, str, tuple[Any, ...]]] = []
        self._permanent = 1_700_000_000
        self._last_word = ""
        self._numbers: dict[tuple[int, int], int] = {}
        self._at_the_cut: list[Callable[[], None]] = []

    # What a test does ---------------------------------------------------------------------------------

    def script(self, *plays: Play) -> None:
        """Spoil the next placements; after them everything is normal again."""
        self._plays.extend(plays)

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
        self._tell_prices(number)
        self._match_resting()

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
        self._tell_prices(number)

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
        self._execute(
            listed, count or listed.leaves, float(listed.order.lmtPrice or 0) if price is None else price
        )

    def cancel_at_broker(self, ref: str) -> None:
        """The broker takes an order off its books."""
        self._end(self.order_of(ref), "Cancelled")

    def place_elsewhere(
        self, ticker: str, action: str, count: int, price: float, *, client: int = 9, ref: str = ""
    ) -> BrokerOrder:
        """Another program (or, as client 0, a person at the gateway) places an order in the same account."""
        contract = self._details[self.number_of(ticker)].contract
        number = 0 if not client else self.next_number
        order = Order(
            orderId=number,
            clientId=client,
            action=action,
            totalQuantity=count,
            orderType="LMT",
            lmtPrice=price,
            tif="GTC",
            orderRef=ref,
            account=self.accounts[0],
        )
        return self._accept(client, number, copy.copy(contract or Contract()), order)

    def double(self, ref: str, *, hidden: bool = False) -> BrokerOrder:
        """What a modification during a cut leaves behind: a second live order under the same number and reference.

        *hidden* is the first one then: the gateway lists it to nobody any more.
        """
        first = self.order_of(ref)
        first.is_hidden = hidden
        order = copy.copy(first.order)
        order.totalQuantity = first.leaves
        return self._accept(first.client, first.number, first.contract, order)

    def correct(self, exec_id: str, *, price: float) -> None:
        """The exchange corrects an execution: the same id with a later revision, told as one more execution."""
        done = next(one for one in self.executions if one.execution.execId == exec_id)
        base, revision = exec_id.rsplit(".", 1)
        execution = replace(done.execution, execId=f"{base}.{int(revision) + 1:02d}", price=price)
        corrected = Done(
            done.contract, execution, replace(done.commission, execId=execution.execId), is_told=True
        )
        self.executions.append(corrected)
        self._tell_execution(corrected)

    def repeat_executions(self) -> None:
        """Tell every execution once more, as the gateway does after some reconnections."""
        for done in list(self.executions):
            self._tell_execution(done)

    def tell_commissions(self) -> None:
        """Deliver every commission report that was kept back."""
        for done in self.executions:
            self._tell_commission(done)

    def cut_link(self) -> None:
        """The gateway loses the broker: 1100. What happens now is never told as an event."""
        self.is_linked = False
        self.say(1100, "Connectivity between IB and Trader Workstation has been lost.")

    def restore_link(self, *, data_lost: bool = False) -> None:
        """The link is back: 1102, or 1101 where the subscriptions were lost with it."""
        self.is_linked = True
        for held in self._at_the_cut:
            held()
        self._at_the_cut.clear()
        if data_lost:
            for line in self._lines:
                line.tickers.clear()
        self.say(
            1101 if data_lost else 1102, "Connectivity between IB and Trader Workstation has been restored."
        )

    def drop_sockets(self) -> None:
        """Every client's connection ends."""
        for line in list(self._lines):
            self.hang_up(line)

    def stop(self) -> None:
        """The gateway program ends; nobody can connect."""
        self.is_running = False
        self.drop_sockets()

    def restart(self, *, next_number: int = 1) -> None:
        """The gateway starts anew with what it remembers of numbers: often less than was given out."""
        self.stop()
        self.is_running = self.is_linked = True
        self.next_number = next_number
        self._numbers.clear()

    def say(self, code: int, text: str, *, about: int = -1) -> None:
        """One message of the error channel, to every client."""
        for line in self._lines:
            self.tell(line, "error", about, code, text, "")

    def release(self) -> None:
        """Deliver what was kept back while `is_mute`."""
        self.is_mute = False
        waiting, self._waiting = self._waiting, []
        for line, method, args in waiting:
            self.tell(line, method, *args)

    def hang_up_after(self, message: str) -> None:
        """Once: drop the socket on which the next such message is sent, after it was taken in."""
        self._last_word = message

    def heard_on(self, line: Line, message: str) -> None:
        """A client sent *message*."""
        self.heard.append(message)
        if message == self._last_word:
            self._last_word = ""
            asyncio.get_running_loop().call_soon(self.hang_up, line)

    def position(self, ticker: str) -> int:
        """The broker's own count."""
        return self.holdings.get(self.number_of(ticker), 0)

    # The wire -----------------------------------------------------------------------------------------

    def connect(self, client: Any, number: int) -> Line:
        """Open a line.

        Raises:
            ConnectionRefusedError: The gateway does not run.
        """
        if not self.is_running:
            raise ConnectionRefusedError(111, "Connect call failed")
        line = Line(client, number)
        if any(one.number == number for one in self._lines):
            line.is_up = False
        else:
            self._lines.append(line)
        return line

    def hang_up(self, line: Line) -> None:
        """End *line* from this side."""
        self.leave(line)
        line.client.lost()

    def leave(self, line: Line) -> None:
        """*line* has ended; nothing more is delivered on it."""
        line.is_up = False
        if line in self._lines:
            self._lines.remove(line)

    def tell(self, line: Line, method: str, *args: Any) -> None:
        """Send one message to the client; it arrives in the loop's next turn, unless the line is down by then."""
        if self.is_mute:
            self._waiting.append((line, method, args))
            return
        asyncio.get_running_loop().call_soon(self._arrive, line, method, args)

    @staticmethod
    def _arrive(line: Line, method: str, args: tuple[Any, ...]) -> None:
        if line.is_up:
            line.client.hears(method, args)

    # Orders -------------------------------------------------------------------------------------------

    def place(self, line: Line, number: int, contract: Contract, order: Order) -> None:
        """An order left the client's socket; it arrives in the loop's next turn."""
        play = self._plays.popleft() if self._plays and not self._is_known(line, number) else Play.NORMAL
        if play is Play.LOST:
            asyncio.get_running_loop().call_soon(self.hang_up, line)
            return
        asyncio.get_running_loop().call_soon(
            self._take, line, number, copy.copy(contract), copy.copy(order), play
        )

    def _is_known(self, line: Line, number: int) -> bool:
        return (line.number, number) in self._numbers

    def _take(self, line: Line, number: int, contract: Contract, order: Order, play: Play) -> None:
        if self._is_known(line, number):
            self.modified.append(order)
            self._modify(line, number, order)
            return
        self.arrived.append(order)
        if not self.is_linked:
            self._at_the_cut.append(lambda: self._carry_out(line, number, contract, order, play))
            return
        self._carry_out(line, number, contract, order, play)

    def _carry_out(self, line: Line, number: int, contract: Contract, order: Order, play: Play) -> None:
        refusals = {
            Play.REFUSED: (201, "Order rejected - reason:We are unable to accept your order. scripted"),
            Play.READ_ONLY: (
                321,
                "Error validating request.-'cG' : cause - The API interface is currently in Read-Only mode.",
            ),
            Play.OFF_TICK: (
                110,
                "The price does not conform to the minimum price variation for this contract.",
            ),
        }
        if play in refusals:
            self.tell(line, "error", number, *refusals[play], "")
            if play is Play.REFUSED:
                self._tell_status(
                    line,
                    number,
                    "Inactive",
                    counts=(0, int(order.totalQuantity)),
                    permanent=0,
                    client=line.number,
                )
            return
        self.next_number = max(self.next_number, number + 1)
        listed = self._accept(line.number, number, contract, order, play=play)
        last_words = {
            Play.WARNED: (399, "Order Message: Warning: your order will not be placed at the exchange yet"),
            Play.DOUBTED: (321, "Error validating request.-'bW' : cause - scripted"),
            Play.MYSTERY: (99999, "Something that nobody has documented"),
        }
        if play is Play.TAKEN:
            self.hang_up(line)
        if play in last_words:
            self.tell(line, "error", number, *last_words[play], "")
        if play is Play.STUCK:
            self._tell_status(
                line,
                number,
                "PendingSubmit",
                counts=(0, listed.total),
                permanent=listed.permanent,
                client=line.number,
            )

    def _accept(
        self, client: int, number: int, contract: Contract, order: Order, *, play: Play = Play.NORMAL
    ) -> BrokerOrder:
        """Take an order into the broker's books and let it trade."""
        self._permanent += 1
        order = copy.copy(order)
        order.permId, order.clientId, order.orderId = self._permanent, client, number
        listed = BrokerOrder(self._permanent, client, number, contract, order)
        self.orders[listed.permanent] = listed
        self._numbers[client, number] = listed.permanent
        if play is Play.INACTIVE:
            listed.status = "Inactive"
        is_told = play in {Play.NORMAL, Play.INACTIVE}
        if is_told:
            self._tell_order(listed)
        self._trade(listed, is_told=is_told)
        return listed

    def _modify(self, line: Line, number: int, order: Order) -> None:
        listed = self.orders[self._numbers[line.number, number]]
        if not self.is_linked:
            changed = copy.copy(order)

            def arrive_late() -> None:
                self._accept(line.number, number, listed.contract, changed)

            self._at_the_cut.append(arrive_late)
            return
        if not listed.leaves:
            self.tell(line, "error", number, 104, "Cannot modify a filled order.", "")
            return
        listed.order.lmtPrice, listed.order.totalQuantity = order.lmtPrice, order.totalQuantity
        self._tell_order(listed)
        self._trade(listed)

    def cancel(self, line: Line, number: int) -> None:
        """A client cancels by its own number of an order."""
        listed = self.orders.get(self._numbers.get((line.number, number), 0))
        if listed is None or (not listed.leaves and listed.status not in _LIVE):
            twin = [
                one
                for one in self.orders.values()
                if (one.client, one.number) == (line.number, number) and one.leaves and not one.is_hidden
            ]
            if twin:
                self._end(twin[-1], "Cancelled")
                return
            text = f"OrderId {number} that needs to be cancelled is not found."
            self.tell(line, "error", number, 10147, text, "")
            return
        if not self.is_linked:
            self._at_the_cut.append(lambda: self._end(listed, "Cancelled"))
            return
        self._end(listed, "Cancelled")

    def _trade(self, listed: BrokerOrder, *, is_told: bool = True) -> None:
        """Take what is shown within the limit; end an immediate order's rest."""
        if listed.status != "Submitted":
            return
        price, size = self._opposite(listed)
        limit = float(listed.order.lmtPrice or 0)
        is_buy = listed.order.action == "BUY"
        crosses = size > 0 and (price <= limit if is_buy else price >= limit)
        count = min(listed.leaves, int(size)) if crosses else 0
        if listed.order.tif == "FOK" and count < listed.leaves:
            count = 0
        if count:
            self._take_size(listed, count)
            self._execute(listed, count, price, is_told=is_told)
        if listed.leaves and listed.order.tif in {"IOC", "FOK"}:
            self._end(listed, "Cancelled", is_told=is_told)

    def _match_resting(self) -> None:
        for listed in list(self.orders.values()):
            if listed.leaves:
                self._trade(listed)

    def _legs(self, contract: Contract) -> list[tuple[int, int]]:
        if contract.secType != "BAG":
            return [(contract.conId, 1)]
        return [(leg.conId, leg.ratio if leg.action == "BUY" else -leg.ratio) for leg in contract.comboLegs]

    def _opposite(self, listed: BrokerOrder) -> tuple[float, float]:
        """What the order could trade against: price per unit, units."""
        sign = 1 if listed.order.action == "BUY" else -1
        price, size = 0.0, float("inf")
        for number, ratio in self._legs(listed.contract):
            quote = self.quotes.get(number, Quote())
            takes_ask = ratio * sign > 0
            side, shown = (quote.ask, quote.ask_size) if takes_ask else (quote.bid, quote.bid_size)
            price += ratio * side
            size = min(size, shown // abs(ratio))
        return round(price, 4), size

    def _take_size(self, listed: BrokerOrder, count: int) -> None:
        sign = 1 if listed.order.action == "BUY" else -1
        for number, ratio in self._legs(listed.contract):
            quote = self.quotes[number]
            if ratio * sign > 0:
                quote.ask_size -= count * abs(ratio)
            else:
                quote.bid_size -= count * abs(ratio)

    def _execute(self, listed: BrokerOrder, count: int, price: float, *, is_told: bool = True) -> None:
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
            for number, ratio in self._legs(listed.contract):
                leg = self._details[number].contract or Contract()
                quote = self.quotes.get(number, Quote())
                at = quote.ask if ratio * sign > 0 else quote.bid
                lines.append((copy.copy(leg), sign * count * ratio, at))
        else:
            lines.append((listed.contract, sign * count, price))
        if is_told:
            self._tell_order_status(listed)
        for part, (contract, signed, at) in enumerate(lines, start=1):
            self._book(listed, contract, signed, at, part, is_told=is_told)
        self._push_account()

    def _book(
        self, listed: BrokerOrder, contract: Contract, signed: int, price: float, part: int, *, is_told: bool
    ) -> None:
        exec_id = f"0000e0d5.{len(self.executions) + 1:08x}.{part:02d}.01"
        execution = Execution(
            execId=exec_id,
            time=datetime.fromtimestamp(self._clock.now_ns() // NANOS, UTC),
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
            self.holdings[contract.conId] = self.holdings.get(contract.conId, 0) + signed
            self.cash -= signed * price * int(contract.multiplier or 1) + cost
        if is_told:
            self._tell_execution(done)

    def _end(self, listed: BrokerOrder, status: str, *, is_told: bool = True) -> None:
        listed.status = status
        if is_told:
            for line in self._lines_of(listed):
                self.tell(line, "error", listed.number, 202, "Order Canceled - reason:", "")
            self._tell_order_status(listed)

    # What the clients are told ------------------------------------------------------------------------

    def _lines_of(self, listed: BrokerOrder) -> Iterable[Line]:
        if not self.is_linked:
            return []
        return [line for line in self._lines if line.number == listed.client]

    def _tell_order(self, listed: BrokerOrder) -> None:
        for line in self._lines_of(listed):
            self.show(line, listed)

    def show(self, line: Line, listed: BrokerOrder) -> None:
        """openOrder, then orderStatus, as the gateway sends them."""
        state = OrderState(status=listed.status)
        self.tell(
            line, "openOrder", listed.number, copy.copy(listed.contract), copy.copy(listed.order), state
        )
        self._tell_counts(line, listed)

    def _tell_order_status(self, listed: BrokerOrder) -> None:
        for line in self._lines_of(listed):
            self._tell_counts(line, listed)

    def _tell_counts(self, line: Line, listed: BrokerOrder) -> None:
        self._tell_status(
            line,
            listed.number,
            listed.status,
            counts=(listed.filled, listed.leaves),
            permanent=listed.permanent,
            client=listed.client,
        )

    def _tell_status(
        self, line: Line, number: int, status: str, *, counts: tuple[int, int], permanent: int, client: int
    ) -> None:
        filled, leaves = (float(count) for count in counts)
        words = (number, status, filled, leaves, 0.0, permanent, 0, 0.0, client, "", 0.0)
        self.tell(line, "orderStatus", *words)

    def _tell_execution(self, done: Done) -> None:
        if not self.is_linked:
            return
        for line in self._lines:
            if line.number == done.execution.clientId:
                done.is_told = True
                self.tell(line, "execDetails", -1, copy.copy(done.contract), copy.copy(done.execution))
        if self.commissions == "after" and done.is_told:
            self._tell_commission(done)

    def _tell_commission(self, done: Done) -> None:
        if done.contract.secType == "BAG":
            return
        for line in self._lines:
            self.tell(line, "commissionReport", copy.copy(done.commission))

    def _tell_prices(self, number: int) -> None:
        for line in self._lines:
            for request, contract in line.tickers.items():
                if contract.conId == number or any(leg.conId == number for leg in contract.comboLegs):
                    self.tell_prices(line, request, contract)

    def tell_prices(self, line: Line, request: int, contract: Contract) -> None:
        """Ticks of one subscription."""
        if not self.is_linked:
            return
        bid, bid_size, ask, ask_size = self._shown(contract)
        self.tell(line, "priceSizeTick", request, 1, bid, bid_size)
        self.tell(line, "priceSizeTick", request, 2, ask, ask_size)
        quote = self.quotes.get(contract.conId)
        if quote is not None and quote.greeks:
            self.tell(line, "tickOptionComputation", request, 13, 0, *quote.greeks)

    def _shown(self, contract: Contract) -> tuple[float, float, float, float]:
        probe = BrokerOrder(0, 0, 0, contract, Order(action="SELL", totalQuantity=1))
        bid, bid_size = self._opposite(probe)
        probe.order.action = "BUY"
        ask, ask_size = self._opposite(probe)
        return (
            bid if bid_size > 0 else -1.0,
            max(0.0, bid_size),
            ask if ask_size > 0 else -1.0,
            max(0.0, ask_size),
        )

    def _push_account(self) -> None:
        for line in self._lines:
            if line.account_updates and self.is_linked:
                self.tell_account(line)

    def tell_account(self, line: Line) -> None:
        """The account's values."""
        values = {
            "TotalCashValue": self.cash,
            "AvailableFunds": self.cash,
            "BuyingPower": self.buying_power,
            "NetLiquidation": self.cash,
        }
        for tag, value in values.items():
            self.tell(line, "updateAccountValue", tag, f"{value:.2f}", "USD", self.accounts[0])

    # What the clients ask -----------------------------------------------------------------------------

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
        return self._clock.now_ns() // NANOS

    def _session(self, hours: str) -> str:
        """Today and the four days after it, in New York."""
        today = datetime.fromtimestamp(self._clock.now_ns() // NANOS, _NEW_YORK).date()
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
