"""How an option ends at the fake venue: the two fills of an exercise or assignment, the one of an expiry.

An exercise or assignment closes the option at zero and moves the underlying at the strike; where the contract
settles in cash it closes the option at its intrinsic value. Both carry their cause and no order.
"""

from __future__ import annotations

import msgspec

from holdfast.core.errors import BadInput
from holdfast.core.instruments import Instrument
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.options import Right, SettlementStyle
from holdfast.core.orders import Fill, FillCause
from holdfast.core.signals import BookSide

_NOTHING = PriceE4(0)


def ending_fills(
    instrument: Instrument, position: QtyE2, spot: PriceE4, *, name: str, ts_ns: int
) -> tuple[Fill, ...]:
    """What the end of *position* (signed, 1/100 contract) does with the underlying at *spot*.

    Args:
        instrument: The option.
        position: How much of it ends; a holder's is exercised, a writer's assigned.
        spot: Of the underlying; out of the money it expires.
        name: Of the trade ids.
        ts_ns: Venue's time.

    Raises:
        BadInput: It is no option, or nothing of it is held.
    """
    option = instrument.option
    if option is None or not position:
        raise BadInput(f"{instrument.ticker!r} is no option held")
    worth = option.payoff(spot)
    is_cash = option.settlement is SettlementStyle.CASH
    cause = FillCause.EXPIRATION
    if worth:
        cause = FillCause.EXERCISE if position > 0 else FillCause.ASSIGNMENT
    closing = _fill(instrument.ticker, -position, worth if is_cash else _NOTHING, cause, ts_ns)
    closing = msgspec.structs.replace(closing, trade_id=f"{name}-option", multiplier=instrument.multiplier)
    if is_cash or not worth:
        return (closing,)
    # Who exercises a call buys the underlying, who is assigned one sells it; puts the other way round.
    shares = position * instrument.multiplier * (1 if option.right is Right.CALL else -1)
    stock = _fill(option.underlying, shares, option.strike, cause, ts_ns)
    return closing, msgspec.structs.replace(stock, trade_id=f"{name}-stock")


def _fill(ticker: str, delta: int, price: PriceE4, cause: FillCause, ts_ns: int) -> Fill:
    return Fill(
        trade_id="",
        order_id="",
        ticker=ticker,
        side=BookSide.BID if delta > 0 else BookSide.ASK,
        price=price,
        qty=QtyE2(abs(delta)),
        fee=MoneyE6(0),
        is_taker=False,
        ts_ns=ts_ns,
        cause=cause,
    )
