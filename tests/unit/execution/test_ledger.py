"""The ledger: the account and its journal, kept in step."""

from __future__ import annotations

import asyncio

import pytest
from support.execution import world

from holdfast.core.errors import BadInput
from holdfast.risk.halt import TradingState


@pytest.mark.invariant("I9")
def test_a_record_that_cannot_be_written_restricts_trading_to_cancels():
    """A record the journal refuses is not lost in silence: from then on nothing but cancels goes out."""

    async def run():
        w = world()
        await w.trader.start()

        async def too_long(*_, **__):
            raise BadInput("record refused: 92733 bytes > 65000 bytes")

        w.log.record_many_async = too_long
        w.trader.ledger.alarm("test", "1", "0")
        assert not await w.trader.ledger.write()
        assert w.account.holds.state is TradingState.CANCEL_ONLY

    asyncio.run(run())
