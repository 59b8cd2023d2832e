"""Placing: from an admitted intent to the one write of an order, and to what is known of it afterwards.

Promise: whatever can be prepared is prepared before the admission is spent; from there to the write nothing is
awaited. After the write an order is `Ack` or `Reject` by the gateway's own words, else its lists are read, else it
is `Unknown`. The number of an order is above every number that the journal ever reserved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.audit.format import Record
from holdfast.audit.wal import Level
from holdfast.breaker.machine import Verdict
from holdfast.core.clock import Clock
from holdfast.core.errors import AuditError, BadInput, OrderDenied, VenueError
from holdfast.core.money import MoneyE6
from holdfast.core.signals import Intent
from holdfast.execution.venue import Ack, NotSent, PlaceAnswer, Reject, Unknown
from holdfast.risk.gate import Admission
from holdfast.venues.ib.calls import API, Calls, Outcome, Recorder
from holdfast.venues.ib.directory import Directory
from holdfast.venues.ib.errors import Heard
from holdfast.venues.ib.lists import Lists, dollars_of
from holdfast.venues.ib.orders import Next, judge, listed_ack, order_of, standing
from holdfast.venues.ib.pacing import Message, Pace
from holdfast.venues.permits import Counted, PlacePermit

if TYPE_CHECKING:
    from ib_async.contract import Contract
    from ib_async.order import Order, OrderState, Trade

NUMBERS_AHEAD = 10_000


class WhatIf(NamedTuple):
    """What the broker says that an order would do, had it been sent."""

    initial_margin: MoneyE6
    maintenance_margin: MoneyE6


class Placer:
    """See the head of this file.

    Args:
        calls, directory, lists, pace: The account's.
        audit: Takes the reservation of numbers.
        clock: Dates acknowledgements.
        permit: Gives leave to ask; True asks although the breaker is open.
        numbers_from: No order gets a number below.
    """

    def __init__(
        self,
        calls: Calls,
        directory: Directory,
        lists: Lists,
        pace: Pace,
        *,
        audit: Recorder,
        clock: Clock,
        permit: Callable[[bool], Counted],
        numbers_from: int,
    ) -> None:
        self.session = calls.session
        self._ib: Any = calls.session.ib
        self._calls = calls
        self._directory = directory
        self._lists = lists
        self._pace = pace
        self._audit = audit
        self._clock = clock
        self._permit = permit
        self._numbers_below = 0
        self.session.numbers_from = numbers_from

    async def place(self, intent: Intent, admission: Admission, permit: PlacePermit) -> PlaceAnswer:
        """Send once; see the head of this file."""
        if type(admission) is not Admission:
            permit.ignored()
            raise TypeError(
                f"an order leaves only with an admission of the gate, not {type(admission).__name__}"
            )
        try:
            prepared = await self._prepare(intent)
            why = prepared if isinstance(prepared, str) else self._why_not_now()
            if not why:
                admission.consume(intent)
        except OrderDenied as denied:
            why, prepared = str(denied.reason), ""
        except BaseException:
            permit.ignored()
            raise
        if why or isinstance(prepared, str):
            permit.ignored()
            return NotSent(reason=why)
        # The admission is spent: nothing is awaited from here to the first byte.
        return await self._send(intent, *prepared, permit)

    async def _prepare(self, intent: Intent) -> tuple[Contract, Order] | str:
        """The contract and the order to send, or why there is none."""
        try:
            listed = await self._directory.describe(intent.ticker, regardless=True)
            contract = listed.contract
            if contract is None:
                return f"{intent.ticker!r} has no contract"
            if not (why := self._cannot_send()):
                return contract, order_of(intent, account=self.session.account, number=await self._number())
        except (VenueError, BadInput) as error:
            return str(error)
        return why

    def _cannot_send(self) -> str:
        return "this client only reads" if self.session.readonly else self.session.why_not

    def _why_not_now(self) -> str:
        """Why nothing can be written in this moment; takes one message of the pace where it can."""
        return self._cannot_send() or (
            "" if self._pace.take(Message.ORDER) else "message pace: too many messages in a second"
        )

    async def _number(self) -> int:
        """A number for an order that no order of this journal ever had.

        Numbers are reserved in the journal in blocks, before the first of a block is used. Where the journal
        takes nothing any more an exit goes all the same: what identifies an order is its reference.
        """
        client = self._ib.client
        client.updateReqId(self.session.numbers_from)
        number: int = client.getReqId()
        self.session.numbers_from = number + 1
        if number >= self._numbers_below:
            self._numbers_below = number + NUMBERS_AHEAD
            details = {
                "api": API,
                "endpoint": "numbers",
                "method": "RESERVE",
                "status_code": None,
                "latency_ms": None,
                "numbers_below": self._numbers_below,
            }
            try:
                await self._audit.record_async("API_CALL", details, component=API, level=Level.DURABLE)
            except AuditError:
                self._calls.unrecorded += 1
        return number

    async def _send(
        self, intent: Intent, contract: Contract, order: Order, permit: PlacePermit
    ) -> PlaceAnswer:
        """Write *order* to the socket and hear what becomes of it."""
        facts = {"client_order_id": intent.client_order_id, "number": order.orderId}
        outcome = Outcome(facts=facts)
        begun_ns = self._calls.begun_ns()
        heard = self.session.listen(order.orderId)
        connection = self.session.connections
        try:
            trade: Trade = self._ib.placeOrder(contract, order)
            answer = await self._hear(intent, trade, heard, connection)
            self._note(answer, heard, outcome)
        except Exception as error:  # noqa: BLE001  the order may have left: the task of placing ends here, latched
            outcome.lost(f"{type(error).__name__} while placing")
            self._calls.breaker.latch(outcome.error, API)
            answer = Unknown(reason=outcome.error)
        finally:
            self.session.unlisten(order.orderId)
            self._calls.settle(permit, outcome)
            await self._calls.record("placeOrder", "PLACE", outcome, begun_ns)
        return answer

    async def _hear(
        self, intent: Intent, trade: Trade, heard: Sequence[Heard], connection: int
    ) -> PlaceAnswer:
        tif = intent.signal.tif
        try:
            async with asyncio.timeout(self._calls.timeout_secs):
                while True:
                    known = judge(standing(trade), heard, tif, self._clock.now_ns())
                    if not isinstance(known, Next):
                        return known
                    if not self.session.is_same(connection):
                        return Unknown(reason=f"sent, then {self.session.why_not or 'connected anew'}")
                    if known is Next.ASK:
                        break
                    await self.session.moved()
        except TimeoutError:
            return Unknown(reason=f"no answer within {self._calls.timeout_secs:g} s")
        why = "; ".join(str(said) for said in heard) or f"status {trade.orderStatus.status}"
        try:
            listed = await self._lists.find(lambda one: one.client_order_id == intent.client_order_id)
        except VenueError as error:
            return Unknown(reason=f"{why}; {error}")
        ack = listed_ack(listed, tif, self._clock.now_ns()) if listed is not None else None
        return ack or Unknown(reason=f"{why}; {'still working' if listed else 'not in the lists'}")

    @staticmethod
    def _note(answer: PlaceAnswer, heard: Sequence[Heard], outcome: Outcome) -> None:
        if isinstance(answer, Ack):
            outcome.answered()
            outcome.facts["order_id"] = answer.order_id
        elif isinstance(answer, Reject):
            verdict = heard[-1].rule.verdict if heard else Verdict.IGNORED
            outcome.refused(f"{answer.code} {answer.message}", verdict, code=int(answer.code))
        elif isinstance(answer, Unknown):
            outcome.lost(answer.reason)
            outcome.code = heard[-1].code if heard else 0

    async def what_if(self, intent: Intent) -> WhatIf:
        """The margin that *intent* would bind; nothing is placed.

        Raises:
            VenueError: It could not be asked, or the broker refuses such an order.
            BadInput: Something that Interactive Brokers cannot be asked for.
        """
        listed = await self._directory.describe(intent.ticker)
        order = order_of(intent, account=self.session.account, number=0)
        state: OrderState = await self._calls.read(
            "whatIfOrder", lambda: self._ib.whatIfOrderAsync(listed.contract, order), self._permit(False)
        )
        return WhatIf(dollars_of(state.initMarginChange), dollars_of(state.maintMarginChange))


def numbers_reserved(records: Iterable[Record]) -> int:
    """The number from which a new run's orders may be numbered: above everything this journal reserved."""
    below = 1
    for record in records:
        if record.type == "API_CALL" and record.details.get("api") == API:
            below = max(below, record.details.get("numbers_below", 1))
    return below
