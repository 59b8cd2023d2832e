"""The account and every decision, computed again from the log alone.

Promise: `replay_log` folds the records as a restarting trader does, so its account is the one that the trader would
begin with; and it makes every recorded decision again from what the record says was read, so that a verdict which
does not follow from its own inputs is named. It reads records and nothing else: no venue, no clock, no settings.

Limits: it does not check the log; run `holdfast audit verify` first. What the venue did and nobody recorded is not
in it: that is what the comparison with the venue's books finds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.audit.format import Record
from holdfast.core.errors import IllegalTransition
from holdfast.core.money import format_money, format_qty
from holdfast.execution.ledger import COMPONENT as TRADER
from holdfast.risk.account import Account
from holdfast.risk.decisions import replay, rows_text
from holdfast.risk.manager import COMPONENT as GATE


class Replayed:
    """What a log says happened.

    Attributes:
        account: Positions, cash, orders and the trading state at the end.
        records: How many records were read.
        decisions: How many DECISION records.
        unjudged: Those refused before any check, which recorded nothing to judge by.
        differing: Sequences of decisions that do not follow from what they read.
        contradictions: What cannot have happened, each with the sequence that says so.
    """

    def __init__(self) -> None:
        self.account = Account()
        self.records = 0
        self.decisions = 0
        self.unjudged = 0
        self.differing: list[int] = []
        self.contradictions: list[tuple[int, str]] = []

    @property
    def holds_together(self) -> bool:
        """Whether nothing contradicts anything."""
        return not self.differing and not self.contradictions

    def to_dict(self) -> dict[str, Any]:
        """The end as plain JSON values; quantities in contracts, money in dollars."""
        account = self.account
        return {
            "records": self.records,
            "state": account.holds.state.name,
            "positions": {
                ticker: format_qty(held) for ticker, held in sorted(account.portfolio.positions.items())
            },
            "cash": format_money(account.portfolio.cash),
            "open_orders": [
                {
                    "client_order_id": order.client_order_id,
                    "order_id": order.order_id,
                    "ticker": order.ticker,
                    "status": order.status.value,
                    "leaves": format_qty(order.leaves),
                }
                for order in account.open_orders()
            ],
            "decisions": self.decisions,
            "decisions_unjudged": self.unjudged,
            "decisions_differing": self.differing,
            "contradictions": [
                {"sequence": sequence, "reason": why} for sequence, why in self.contradictions
            ],
        }


def replay_log(records: Iterable[Record]) -> Replayed:
    """Fold *records*, which begin with the log's first."""
    done = Replayed()
    for record in records:
        done.records += 1
        type_, component, details = record.type, record.component, record.details
        if type_ == "LATE" and details.get("type") != "CANCEL":
            # An exit from the journal's reserve counts as the order that it is, as at a restart.
            type_, component, details = details["type"], details["component"], details["details"]
        if component not in {TRADER, GATE}:
            continue
        try:
            done.account.apply(type_, details)
            if type_ == "DECISION" and not details.get("question"):
                _judge_again(done, record.seq, details)
        except IllegalTransition as why:
            done.contradictions.append((record.seq, str(why)))
        except (LookupError, TypeError, ValueError) as why:
            done.contradictions.append((record.seq, f"not what a trader writes: {why!r}"))
    return done


def _judge_again(done: Replayed, sequence: int, details: dict[str, Any]) -> None:
    done.decisions += 1
    if not details["inputs"]:
        done.unjudged += 1
        return
    again = replay(details)
    allowed = again.refused is None
    if rows_text(again) != details["rows"] or allowed is not (details["verdict"] == "allow"):
        done.differing.append(sequence)
