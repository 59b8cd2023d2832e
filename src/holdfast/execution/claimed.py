"""Endings of options that nobody told, in the books: claimed, replaced by what is told later, settled by a person.

A *claim* is a fill of ours with an announcement before it (`risk/claims.py`). What the venue tells of it later, or what
a person says that it paid, takes its place: an opposite fill undoes the claim by as much, then what was told is
booked. While the cash of any ending is unknown the hold `SETTLEMENT` lets exits leave and nothing that increases.

Limits: a person can say what an option paid that ended without delivery. What became shares is at its strike.
"""

from __future__ import annotations

import msgspec

from holdfast.core.errors import BadInput
from holdfast.core.money import PriceE4, QtyE2, format_price
from holdfast.core.options import Right, parse_option_ticker
from holdfast.core.orders import Fill
from holdfast.core.signals import BookSide
from holdfast.execution.endings import Amount
from holdfast.execution.ledger import Ledger
from holdfast.risk.claims import CLAIM, UNDONE
from holdfast.risk.halt import TradingState
from holdfast.risk.order import Order

SETTLEMENT = "settlement"


class ClaimedEndings:
    """The claims of one account; see the head of this file.

    Args:
        ledger: Where they go.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._claims = ledger.account.claims

    def claim(self, fill: Fill, amount: Amount, option: str, *, who: str = "", why: str = "") -> None:
        """Book *fill* as an ending of *option* that nobody told."""
        self._ledger.note(
            "RECONCILE",
            {
                "phase": "periodic",
                "what": CLAIM,
                "explained": True,
                "ours": fill.ticker,
                "theirs": fill.trade_id,
                "differences": [],
                "amount": amount.value,
                "option": option,
                "who": who,
                "why": why,
            },
        )
        self._ledger.saw_fill(fill, None)

    def hold(self) -> None:
        """Nothing increases while the cash of an ending is unknown; to be asked for after every change of a claim."""
        lacks = self._claims.lacks_amounts
        self._ledger.hold(
            SETTLEMENT,
            TradingState.REDUCING if lacks else TradingState.ACTIVE,
            reason="what an ended option paid is not known" if lacks else "what ended options paid is known",
        )

    def make_room(self, fill: Fill, order: Order | None) -> bool:
        """Undo what was claimed of the ending that *fill*, not booked yet, tells; True where there was such a claim."""
        is_own = order is not None and not order.external
        left = fill.qty
        for claim in self._claims.matching(fill, is_own=is_own):
            qty = QtyE2(min(left, claim.left))
            if not qty:
                break
            left = QtyE2(left - qty)
            ended = claim.fill
            undone = msgspec.structs.replace(
                ended,
                trade_id=f"{ended.trade_id}{UNDONE}{fill.trade_id}",
                side=BookSide.ASK if ended.side is BookSide.BID else BookSide.BID,
                qty=qty,
            )
            self._ledger.saw_fill(undone, None)
        return left < fill.qty

    def settle(self, ticker: str, price: PriceE4, *, who: str, why: str) -> list[Fill]:
        """*who* says what one unit of the ended option *ticker* paid: it takes the place of what was claimed.

        Returns:
            What is booked now.

        Raises:
            BadInput: No such ending is claimed, nobody says it or for no reason, or no such option can pay that.
        """
        waiting = self._claims.settleable()
        claims = [claim for claim in waiting if claim.fill.ticker == ticker]
        if not claims:
            known = ", ".join(sorted({claim.fill.ticker for claim in waiting})) or "none"
            raise BadInput(
                f"option {ticker!r} has no claimed ending to settle",
                hint=f"those that have: {known}; the alarm 'ended_unseen' names each",
            )
        name = parse_option_ticker(ticker)
        if price < 0 or (name.right is Right.PUT and price > name.strike):
            most = f" to {format_price(name.strike)}" if name.right is Right.PUT else ""
            raise BadInput(
                f"option {ticker!r} cannot have paid {format_price(price)} a unit",
                hint=f"dollars per unit of the underlying, not per contract: from 0{most}",
            )
        if not who.strip() or not why.strip():
            raise BadInput(f"option {ticker!r} is settled by somebody and for a reason", hint="say both")
        booked: list[Fill] = []
        for claim in claims:
            ended = claim.fill
            told = msgspec.structs.replace(
                ended, trade_id=f"{ended.trade_id}/told", price=price, qty=claim.left
            )
            self.make_room(told, None)
            self.claim(told, Amount.CLAIMED, ticker, who=who, why=why)
            booked.append(told)
        self.hold()
        return booked
