"""How a trader begins: the journal replayed, a run opened in it, the venue's books explained.

    replay ─▶ begin_run (CANCEL_ONLY, what was PENDING is UNKNOWN) ─▶ reconcile ─▶ explained: ACTIVE, else again later

Promise: until the venue's positions, orders and fills are explained, nothing but cancels leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from holdfast.audit.logger import AuditLogger
from holdfast.core.errors import AuditError, CircuitBreakerOpenError, VenueError
from holdfast.core.orders import OrderEvent, OrderStatus
from holdfast.core.reasons import HINTS, Code
from holdfast.execution.books import DRIFT, Books
from holdfast.execution.claimed import ClaimedEndings
from holdfast.execution.ledger import COMPONENT, Ledger
from holdfast.execution.resend import Resender
from holdfast.execution.room import JournalRoom
from holdfast.risk.halt import TradingState
from holdfast.risk.manager import COMPONENT as GATE_COMPONENT

RUN, ADAPTER = "run", "adapter"
_START = "start"


class Starting:
    """The beginning of one run.

    Args:
        log: The journal.
        ledger: Where its records go.
        books: The venue's books.
        resender: Hears what was sent and not answered.
        room: Of the journal.

    Attributes:
        log_id: Of the journal, once a run of it is open; "" before.
        unread: Why the venue could not be read; None once it could.
    """

    def __init__(
        self, log: AuditLogger, ledger: Ledger, books: Books, resender: Resender, room: JournalRoom
    ) -> None:
        self.log_id = ""
        self.unread: VenueError | CircuitBreakerOpenError | None = None
        self._log = log
        self._ledger = ledger
        self._account = ledger.account
        self._books = books
        self._resender = resender
        self._room = room

    @property
    def is_reconciled(self) -> bool:
        """Whether the venue's books have been explained since this run began."""
        return self._account.holds.held_by(_START) is TradingState.ACTIVE

    async def begin(self) -> None:
        """What is not done yet of: replay, open a run, explain the venue's books.

        Raises:
            AuditError: The journal cannot be read or written.
        """
        if not self.log_id:
            if self._log.wal.state == "closed":
                # Held by another, unwritable, damaged: told as what it is, before anything else happens.
                await asyncio.to_thread(self._log.wal.open)
            self.replay()
            await self._begin_run()
        if not self.is_reconciled:
            await self.reconcile()

    def replay(self) -> None:
        """Fold the journal's records; the account is then what it was."""
        for record in self._log.wal.records():
            if record.type == "LATE":
                self._replay_late(record.details)
            elif record.component in {COMPONENT, GATE_COMPONENT}:
                self._account.apply(record.type, record.details)
                self._resender.replayed(record.type, record.details)
                if record.type == "ORDER_UPDATE":
                    self._hunt_again(record.details)

    def _hunt_again(self, details: Mapping[str, Any]) -> None:
        """What was to be canceled wherever it turns up still is; where it has ended, the first look ends the hunt."""
        name = details["client_order_id"]
        if details["event"] in {OrderEvent.ZOMBIE, OrderEvent.WITHDRAWN}:
            self._ledger.zombies[name] = None
        elif (
            details["event"] == "adopted" and name in self._account.orders
        ):  # a second order under a name of ours
            self._ledger.zombies[details["order_id"]] = None

    def _replay_late(self, words: Mapping[str, Any]) -> None:
        """What the journal's reserve held: an exit counts as the order that it is, nobody knows how far it got."""
        if words["component"] in {COMPONENT, GATE_COMPONENT} and words["type"] != "CANCEL":
            self._account.apply(words["type"], words["details"])
            self._resender.replayed(words["type"], words["details"])

    async def _begin_run(self) -> None:
        self._books.reconciled("start", "run", explained=True, ours=self._account.runs + 1)
        self._ledger.hold(DRIFT, TradingState.ACTIVE, reason="compared anew at start")
        self._ledger.hold("journal", TradingState.ACTIVE, reason="journal reopened")
        for holder in (RUN, ADAPTER):
            self._ledger.hold(holder, TradingState.ACTIVE, reason="started anew")
        ClaimedEndings(self._ledger).hold()  # what was said of an ending may have been cut off before its end
        await self._room.reserve_exits()
        self._room.watch_space()
        self._ledger.hold(_START, TradingState.CANCEL_ONLY, reason="not reconciled with the venue yet")
        for order in self._account.open_orders():
            if order.status is OrderStatus.PENDING:
                self._ledger.happened(
                    order, OrderEvent.ANSWER_LOST, reason="restart", evidence="no answer in the journal"
                )
        if not await self._ledger.write():
            raise AuditError(
                f"journal cannot take the first records of this run: {self._log.wal.failure}",
                hint=HINTS[Code.AUDIT_UNAVAILABLE],
            )
        self.log_id = self._log.wal.log_id

    async def reconcile(self) -> None:
        """Explain the venue's books, or note why they cannot be explained now."""
        try:
            explained = await self._books.explain(phase="start")
            self.unread = None
        except (VenueError, CircuitBreakerOpenError) as error:
            self.unread = error
            self._books.reconciled("start", "venue unreadable", explained=False, differences=[str(error)])
            explained = False
        if explained:
            self._ledger.hold(_START, TradingState.ACTIVE, reason="reconciled with the venue")
        await self._ledger.write()
