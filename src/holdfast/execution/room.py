"""Room in the journal: for the last words about everything held, and while it gets less, only what reduces leaves.

Promise: the reserve holds a last word for each market held or worked in, had before the journal needs it; while the
disk is full, or the reserve is too small, the trading state is REDUCING.
"""

from __future__ import annotations

import asyncio

from holdfast.audit.logger import AuditLogger
from holdfast.execution.ledger import Ledger
from holdfast.risk.halt import TradingState

_SPACE = "journal space"


class JournalRoom:
    """See the head of this file.

    Args:
        log: The journal.
        ledger: Whose account says what is held, and whose trading state is restrained.
    """

    def __init__(self, log: AuditLogger, ledger: Ledger) -> None:
        self._log = log
        self._ledger = ledger
        self._account = ledger.account
        self._fit = False
        self._reserved = 0

    async def reserve_exits(self) -> None:
        """Have room for the last words about everything held or worked in, before the journal needs it."""
        tickers = {
            *self._account.portfolio.positions,
            *(order.ticker for order in self._account.open_orders()),
        }
        if len(tickers) > self._reserved or not self._fit:
            self._fit = await asyncio.to_thread(self._log.wal.reserve_for, len(tickers))
            self._reserved = len(tickers)

    def watch_space(self) -> None:
        """While the journal can get no more room, what it still has is for cancels, fills and exits."""
        is_low = self._log.wal.space_low
        full = "the journal's disk is full" if is_low else "no room for the journal's last words"
        is_low = is_low or not self._fit
        self._ledger.hold(
            _SPACE,
            TradingState.REDUCING if is_low else TradingState.ACTIVE,
            reason=full if is_low else "the journal has room again",
        )
