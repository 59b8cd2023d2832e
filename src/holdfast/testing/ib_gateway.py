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
    Play.PRESET      error 10349 is the last that is said; the order lives, and the library calls it canceled
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
from enum import StrEnum
from typing import Any

from ib_async.contract import Contract
from ib_async.order import Order, OrderState

from holdfast.core.clock import Clock
from holdfast.testing.ib_broker import LIVE, BrokerOrder, Done, FakeBroker

READ_ONLY = 321, "Error validating request.-'cG' : cause - The API interface is currently in Read-Only mode."


class Play(StrEnum):
    """What becomes of one placement; see the head of this file."""

    NORMAL = "normal"
    LOST = "lost"
    TAKEN = "taken"
    SILENT = "silent"
    REFUSED = "refused"
    WARNED = "warned"
    PRESET = "preset"
    DOUBTED = "doubted"
    READ_ONLY = "read_only"
    OFF_TICK = "off_tick"
    INACTIVE = "inactive"
    STUCK = "stuck"
    MYSTERY = "mystery"


_REFUSED = {
    Play.REFUSED: (201, "Order rejected - reason:We are unable to accept your order. scripted"),
    Play.READ_ONLY: READ_ONLY,
    Play.OFF_TICK: (110, "The price does not conform to the minimum price variation for this contract."),
}
_LAST_WORDS = {
    Play.WARNED: (399, "Order Message: Warning: your order will not be placed at the exchange yet"),
    Play.PRESET: (10349, "Order TIF was set to DAY based on order preset."),
    Play.DOUBTED: (321, "Error validating request.-'bW' : cause - scripted"),
    Play.MYSTERY: (99999, "Something that nobody has documented"),
}


@dataclass
class Line:
    """One client's socket."""

    client: Any
    number: int
    is_up: bool = True
    tickers: dict[int, Contract] = field(default_factory=dict[int, Contract])
    account_updates: bool = False


class FakeGateway(FakeBroker):
    """See the head of this file.

    Args:
        clock: Dates executions and sessions.
        account: The one account's number.
        cash: Dollars in it at first.
        next_number: What `nextValidId` says at first.

    Attributes:
        arrived: Every order that reached the gateway, in order; modifications apart in `modified`.
        heard: Name of every message a client sent, in order.
        commissions: "after" the fill, "late" (when `tell_commissions` is called), or "never".
        no_data: The code with which subscriptions are refused; 0 serves them.
        is_read_only: Orders are neither taken nor told; whoever asks for them is not answered.
        traded_meanwhile: By contract number what was held when a list of positions began that its end tells anew, once.
        uncancelable: How many cancels are refused with 161 from now on.
        is_running, is_linked: Whether the gateway answers at all, and is linked to the broker.
        is_mute: True keeps back every message to the clients; they are delivered when it is False again.
    """

    def __init__(
        self, clock: Clock, *, account: str = "DU1234567", cash: float = 100_000.0, next_number: int = 1
    ) -> None:
        super().__init__(clock, account=account, cash=cash)
        self.arrived: list[Order] = []
        self.modified: list[Order] = []
        self.heard: list[str] = []
        self.commissions = "after"
        self.is_running = True
        self.is_linked = True
        self.is_mute = False
        self.is_read_only = False
        self.traded_meanwhile: dict[int, int] = {}
        self.uncancelable = 0
        self.no_data: int = 0
        self.next_number = next_number
        self._lines: list[Line] = []
        self._plays: deque[Play] = deque()
        self._waiting: list[tuple[Line, str, tuple[Any, ...]]] = []
        self._last_word = ""
        self._at_the_cut: list[Callable[[], None]] = []

    # What a test does ---------------------------------------------------------------------------------

    def script(self, *plays: Play) -> None:
        """Spoil the next placements; after them everything is normal again."""
        self._plays.extend(plays)

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
        return self.accept(client, number, copy.copy(contract or Contract()), order)

    def double(self, ref: str, *, hidden: bool = False) -> BrokerOrder:
        """What a modification during a cut leaves behind: a second live order under the same number and reference.

        *hidden* is the first one then: the gateway lists it to nobody any more.
        """
        first = self.order_of(ref)
        first.is_hidden = hidden
        order = copy.copy(first.order)
        order.totalQuantity = first.leaves
        return self.accept(first.client, first.number, first.contract, order)

    def correct(self, exec_id: str, *, price: float, shares: float | None = None) -> None:
        """The exchange corrects an execution: the same id with a later revision, told as one more execution.

        Its cost is told anew only where `commissions` says so; holdings and cash are as if it had been so at once.
        """
        done = next(one for one in self.executions if one.execution.execId == exec_id)
        base, revision = exec_id.rsplit(".", 1)
        now = replace(
            done.execution,
            execId=f"{base}.{int(revision) + 1:02d}",
            price=price,
            shares=done.execution.shares if shares is None else shares,
        )
        self.move(done.contract, done.execution, back=True)
        self.move(done.contract, now)
        corrected = Done(done.contract, now, replace(done.commission, execId=now.execId), is_told=True)
        self.executions.append(corrected)
        self.executed(corrected)

    def repeat_executions(self) -> None:
        """Tell every execution once more, as the gateway does after some reconnections."""
        for done in list(self.executions):
            self.executed(done)

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
        self.numbers.clear()

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
        return (line.number, number) in self.numbers

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
        if play in _REFUSED:
            self._refuse(line, number, order, play)
            return
        self.next_number = max(self.next_number, number + 1)
        listed = self.accept(
            line.number,
            number,
            contract,
            order,
            status="Inactive" if play is Play.INACTIVE else "Submitted",
            is_told=play in {Play.NORMAL, Play.INACTIVE},
        )
        if play is Play.TAKEN:
            self.hang_up(line)
        if play in _LAST_WORDS:
            self.tell(line, "error", number, *_LAST_WORDS[play], "")
        if play is Play.STUCK:
            self._tell_status(
                line,
                number,
                "PendingSubmit",
                counts=(0, listed.total),
                permanent=listed.permanent,
                client=line.number,
            )

    def _refuse(self, line: Line, number: int, order: Order, play: Play) -> None:
        self.tell(line, "error", number, *_REFUSED[play], "")
        if play is Play.REFUSED:
            counts = (0, int(order.totalQuantity))
            self._tell_status(line, number, "Inactive", counts=counts, permanent=0, client=line.number)

    def _modify(self, line: Line, number: int, order: Order) -> None:
        listed = self.orders[self.numbers[line.number, number]]
        if not self.is_linked:
            changed = copy.copy(order)

            def arrive_late() -> None:
                self.accept(line.number, number, listed.contract, changed)

            self._at_the_cut.append(arrive_late)
            return
        if not listed.leaves:
            self.tell(line, "error", number, 104, "Cannot modify a filled order.", "")
            return
        listed.order.lmtPrice, listed.order.totalQuantity = order.lmtPrice, order.totalQuantity
        self.order_changed(listed)
        self.trade(listed)

    def cancel(self, line: Line, number: int) -> None:
        """A client cancels by its own number of an order."""
        if self.uncancelable:
            self.uncancelable -= 1
            self.tell(
                line, "error", number, 161, "Cancel attempted when order is not in a cancellable state.", ""
            )
            return
        listed = self.orders.get(self.numbers.get((line.number, number), 0))
        if listed is None or (not listed.leaves and listed.status not in LIVE):
            twin = [
                one
                for one in self.orders.values()
                if (one.client, one.number) == (line.number, number) and one.leaves and not one.is_hidden
            ]
            if twin:
                self.end(twin[-1], "Cancelled")
                return
            text = f"OrderId {number} that needs to be cancelled is not found."
            self.tell(line, "error", number, 10147, text, "")
            return
        if not self.is_linked:
            self._at_the_cut.append(lambda: self.end(listed, "Cancelled"))
            return
        self.end(listed, "Cancelled")

    # What the clients are told ------------------------------------------------------------------------

    def _lines_of(self, listed: BrokerOrder) -> Iterable[Line]:
        if not self.is_linked:
            return []
        return [line for line in self._lines if line.number == listed.client]

    def order_changed(self, listed: BrokerOrder) -> None:
        """Tell the client whose order it is."""
        for line in self._lines_of(listed):
            self.show(line, listed)

    def show(self, line: Line, listed: BrokerOrder) -> None:
        """openOrder, then orderStatus, as the gateway sends them."""
        state = OrderState(status=listed.status)
        self.tell(
            line, "openOrder", listed.number, copy.copy(listed.contract), copy.copy(listed.order), state
        )
        self._tell_counts(line, listed)

    def order_ended(self, listed: BrokerOrder) -> None:
        """Tell its end, by the message and by the status."""
        for line in self._lines_of(listed):
            self.tell(line, "error", listed.number, 202, "Order Canceled - reason:", "")
        self.order_moved(listed)

    def order_moved(self, listed: BrokerOrder) -> None:
        """Tell its counts."""
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

    def executed(self, done: Done) -> None:
        """Tell the client whose order it was, if there is a way; and what it cost, as `commissions` says."""
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

    def price_changed(self, number: int) -> None:
        """Tell every subscription that it concerns."""
        for line in self._lines:
            for request, contract in line.tickers.items():
                if contract.conId == number or any(leg.conId == number for leg in contract.comboLegs):
                    self.tell_prices(line, request, contract)

    def tell_prices(self, line: Line, request: int, contract: Contract, *, is_first: bool = False) -> None:
        """Ticks of one subscription; the first ones of it tell the sides that are there."""
        if not self.is_linked:
            return
        bid, bid_size, ask, ask_size = self._shown(contract)
        if bid_size or not is_first:
            self.tell(line, "priceSizeTick", request, 1, bid, bid_size)
        if ask_size or not is_first:
            self.tell(line, "priceSizeTick", request, 2, ask, ask_size)
        quote = self.quotes.get(contract.conId)
        if quote is not None and quote.greeks:
            self.tell(line, "tickOptionComputation", request, 13, 0, *quote.greeks)

    def _shown(self, contract: Contract) -> tuple[float, float, float, float]:
        probe = BrokerOrder(0, 0, 0, contract, Order(action="SELL", totalQuantity=1))
        bid, bid_size = self.opposite(probe)
        probe.order.action = "BUY"
        ask, ask_size = self.opposite(probe)
        return (
            bid if bid_size > 0 else -1.0,
            max(0.0, bid_size),
            ask if ask_size > 0 else -1.0,
            max(0.0, ask_size),
        )

    def account_changed(self) -> None:
        """Tell whoever asked for the account's values."""
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
