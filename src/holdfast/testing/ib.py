"""`FakeIB`: the real `ib_async.IB` over a gateway in memory.

Only the socket is replaced: `FakeIB` is an `ib_async.IB`, its wrapper is the library's own, and so are its events,
its bookkeeping and its traps (warnings that become the status ValidationError, errors that become canceled orders,
executions of a replay that fire no event, commission reports that reach only the first copy of a fill, orders with
one number that fall together, everything forgotten when the socket ends). What happens behind the socket is
`FakeGateway`'s; several clients may connect to one.

A test holds every method of `_FakeClient` against the library's client, so that the two cannot drift apart.
"""

# The library leaves its own methods without types.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ib_async import IB
from ib_async.client import Client
from ib_async.contract import Contract
from ib_async.objects import ExecutionFilter
from ib_async.order import Order, OrderState

from holdfast.testing.ib_gateway import READ_ONLY, FakeGateway, Line

SERVER_VERSION = 178


class FakeIB(IB):
    """A client of *gateway* with the library's whole interface; connect it as a real one."""

    def __init__(self, gateway: FakeGateway) -> None:
        make: Any = super().__init__
        make()
        self.client: Any = _FakeClient(self.wrapper, gateway)
        self.client.apiEnd += self.disconnectedEvent


_Client: Any = Client  # the library leaves its client's methods without types


class _FakeClient(_Client):  # type: ignore[misc]  # a base of type Any, as said above
    """The library's client with the gateway on the other end of every request."""

    def __init__(self, wrapper: Any, gateway: FakeGateway) -> None:
        super().__init__(wrapper)
        self._gateway = gateway
        self._line: Line | None = None

    async def connectAsync(self, host: str, port: int, clientId: int, timeout: float | None = 2.0) -> None:
        """Open a line and shake hands, or be refused; nothing here takes long enough for *timeout*."""
        del timeout
        self.host, self.port, self.clientId = host, int(port), int(clientId)
        self.connState = _Client.CONNECTING
        try:
            line = self._gateway.connect(self, self.clientId)
        except ConnectionRefusedError:
            self.disconnect()
            raise
        if not line.is_up:
            text = "Unable to connect as the client id is already in use."
            self.wrapper.error(-1, 326, text, "")
            self.disconnect()
            raise TimeoutError
        self._line = line
        self.connState = _Client.CONNECTED
        self._serverVersion = SERVER_VERSION
        self.updateReqId(self._gateway.next_number)
        self._accounts = list(self._gateway.accounts)
        self.wrapper.managedAccounts(",".join(self._accounts))
        self._apiReady = True
        self.apiStart.emit()
        if not self._gateway.is_linked:
            self.wrapper.error(-1, 2110, "Connectivity between Trader Workstation and server is broken.", "")

    def disconnect(self) -> None:
        """End the line from this side."""
        line, self._line = self._line, None
        if line is not None:
            self._gateway.leave(line)
        super().disconnect()

    def lost(self) -> None:
        """The gateway ended the line."""
        self._line = None
        self._onSocketDisconnected("")

    def hears(self, method: str, args: Sequence[Any]) -> None:
        """One message of the gateway, dealt with as the library deals with a packet."""
        self.wrapper.tcpDataArrived()
        getattr(self.wrapper, method)(*args)
        self.wrapper.tcpDataProcessed()

    def _sends(self, name: str) -> Line:
        if not self.isConnected() or self._line is None:
            raise ConnectionError("Not connected")
        self._gateway.heard_on(self._line, name)
        return self._line

    def _tell(self, line: Line, method: str, *args: Any) -> None:
        self._gateway.tell(line, method, *args)

    # Orders -------------------------------------------------------------------------------------------

    def placeOrder(self, orderId: int, contract: Contract, order: Order) -> None:
        line = self._sends("placeOrder")
        if order.whatIf:
            state = OrderState(initMarginChange="500.00", maintMarginChange="500.00", commission=1.0)
            shown = copy.copy(order)
            shown.orderId = orderId
            self._tell(line, "openOrder", orderId, contract, shown, state)
            return
        self._gateway.place(line, orderId, contract, order)

    def cancelOrder(self, orderId: int, manualCancelOrderTime: str = "") -> None:
        line = self._sends("cancelOrder")
        self._gateway.cancel(line, orderId)

    def reqOpenOrders(self) -> None:
        self._show_orders(self._sends("reqOpenOrders"), everybodys=False)

    def reqAllOpenOrders(self) -> None:
        self._show_orders(self._sends("reqAllOpenOrders"), everybodys=True)

    def _show_orders(self, line: Line, *, everybodys: bool) -> None:
        if self._gateway.is_read_only:
            self._tell(line, "error", -1, *READ_ONLY, "")
            return
        for listed in self._gateway.orders.values():
            if listed.leaves and not listed.is_hidden and (everybodys or listed.client == line.number):
                self._gateway.show(line, listed)
        self._tell(line, "openOrderEnd")

    def reqAutoOpenOrders(self, bAutoBind: bool) -> None:
        self._sends("reqAutoOpenOrders")

    def reqCompletedOrders(self, apiOnly: bool) -> None:
        line = self._sends("reqCompletedOrders")
        for listed in self._gateway.orders.values():
            if not listed.leaves:
                # The gateway tells completed orders without the client's number of them.
                order = copy.copy(listed.order)
                order.orderId, order.filledQuantity = 0, float(listed.filled)
                state = OrderState(status=listed.status)
                self._tell(line, "completedOrder", copy.copy(listed.contract), order, state)
        self._tell(line, "completedOrdersEnd")

    def reqExecutions(self, reqId: int, execFilter: ExecutionFilter) -> None:
        line = self._sends("reqExecutions")
        matching = self._gateway.matching_executions(execFilter)
        for done in matching:
            self._tell(line, "execDetails", reqId, copy.copy(done.contract), copy.copy(done.execution))
        self._tell(line, "execDetailsEnd", reqId)
        if self._gateway.commissions == "after":
            for done in matching:
                if done.contract.secType != "BAG":
                    self._tell(line, "commissionReport", copy.copy(done.commission))

    # The account --------------------------------------------------------------------------------------

    def reqPositions(self) -> None:
        line = self._sends("reqPositions")
        for number, count in self._gateway.holdings.items():
            for details in self._gateway.details(Contract(conId=number)):
                if count:
                    account = self._gateway.accounts[0]
                    was = self._gateway.traded_meanwhile.pop(number, None)
                    for told in (count,) if was is None else (was, count):
                        self._tell(line, "position", account, details.contract, float(told), 0.0)
        self._tell(line, "positionEnd")

    def reqAccountUpdates(self, subscribe: bool, acctCode: str) -> None:
        line = self._sends("reqAccountUpdates")
        line.account_updates = subscribe
        self._gateway.tell_account(line)
        self._tell(line, "accountDownloadEnd", acctCode)

    def reqAccountUpdatesMulti(
        self,
        reqId: int,
        account: str,
        modelCode: str,
        ledgerAndNLV: bool,
    ) -> None:
        self._tell(self._sends("reqAccountUpdatesMulti"), "accountUpdateMultiEnd", reqId)

    def reqAccountSummary(self, reqId: int, groupName: str, tags: str) -> None:
        self._tell(self._sends("reqAccountSummary"), "accountSummaryEnd", reqId)

    def reqCurrentTime(self) -> None:
        line = self._sends("reqCurrentTime")
        self._tell(line, "currentTime", self._gateway.now_secs())

    # Contracts and prices -----------------------------------------------------------------------------

    def reqContractDetails(self, reqId: int, contract: Contract) -> None:
        line = self._sends("reqContractDetails")
        found = self._gateway.details(contract)
        if not found:
            self._tell(line, "error", reqId, 200, "No security definition has been found for the request", "")
            return
        for details in found:
            self._tell(line, "contractDetails", reqId, details)
        self._tell(line, "contractDetailsEnd", reqId)

    def reqMarketRule(self, marketRuleId: int) -> None:
        line = self._sends("reqMarketRule")
        self._tell(line, "marketRule", marketRuleId, self._gateway.market_rule(marketRuleId))

    def reqSecDefOptParams(
        self,
        reqId: int,
        underlyingSymbol: str,
        futFopExchange: str,
        underlyingSecType: str,
        underlyingConId: int,
    ) -> None:
        line = self._sends("reqSecDefOptParams")
        for name, multiplier, expiries, strikes in self._gateway.classes(underlyingSymbol):
            self._tell(
                line,
                "securityDefinitionOptionParameter",
                reqId,
                "SMART",
                underlyingConId,
                name,
                multiplier,
                expiries,
                strikes,
            )
        self._tell(line, "securityDefinitionOptionParameterEnd", reqId)

    def reqMarketDataType(self, marketDataType: int) -> None:
        self._sends("reqMarketDataType")

    def reqMktData(
        self,
        reqId: int,
        contract: Contract,
        genericTickList: str,
        snapshot: bool,
        regulatorySnapshot: bool,
        mktDataOptions: list[Any],
    ) -> None:
        line = self._sends("reqMktData")
        if self._gateway.no_data:
            self._tell(
                line, "error", reqId, self._gateway.no_data, "Requested market data is not available.", ""
            )
            if self._gateway.no_data == 10167:
                self._tell(line, "marketDataType", reqId, 3)
                self._gateway.tell_prices(line, reqId, contract)
            return
        line.tickers[reqId] = contract
        self._tell(line, "marketDataType", reqId, 1)
        self._gateway.tell_prices(line, reqId, contract, is_first=True)

    def cancelMktData(self, reqId: int) -> None:
        self._sends("cancelMktData").tickers.pop(reqId, None)
