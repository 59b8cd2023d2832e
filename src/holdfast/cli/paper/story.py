"""The story of a paper run, told from its journal alone.

`Story.tell(record)` turns one journal record into at most a few lines. It reads nothing else: no counter
of the trader, no answer of the exchange, so whatever a line says is on disk. Beside the lines it
keeps the *chapters*: what a full run must have shown, each with the sequence of the record that proved it.
A chapter that was never proven is why a run ends with exit code 1.

| chapter  | proven by                                                                                   |
| -------- | ------------------------------------------------------------------------------------------- |
| trading  | fills of at least two strategies                                                            |
| refused  | a `position_limit_exceeded` whose intent has no ORDER record: nothing was sent               |
| outage   | a read answered with 500, then the breaker open, a call refused unsent, half open, closed    |
| lost     | an order UNKNOWN with its reservation standing, then found in the venue's books, sent once   |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from holdfast.audit.format import Record
from holdfast.core.clock import utc
from holdfast.core.money import MoneyE6, parse_money

CHAPTERS: Mapping[str, str] = {
    "trading": "two strategies traded through the gate",
    "refused": "an order over the position limit was refused before any call",
    "outage": "an outage opened the breaker, calls failed fast, the probe closed it",
    "lost": "an order whose answer was lost was found in the venue's books, not repeated",
}
_UNTOLD_AFTER = 6


class Line(NamedTuple):
    """One line of the story: market time, who speaks, what happened, and how loud it is."""

    time: str
    actor: str
    text: str
    tone: str = ""

    def __str__(self) -> str:
        """Plain, for pipes."""
        return f"{self.time}  {self.actor:<9} {self.text}"


class Story:
    """A fold over journal records: lines to print, chapters proven, figures for the summary.

    Attributes:
        proven: Chapter name to the sequence that proved it.
        orders: Orders by what became of them.
        refusals: Denied orders by reason.
        breaker: Every state change, in order.
        decisions: How many decisions were taken.
        last_seq: The last record told.
        chapters: What a full run must have shown, and how it is said where it was not.
    """

    chapters: Mapping[str, str] = CHAPTERS

    def __init__(self) -> None:
        self.proven: dict[str, int] = {}
        self.orders: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.breaker: list[dict[str, Any]] = []
        self.decisions: int = 0
        self.last_seq = 0
        self._ts = 0
        self._first_value: MoneyE6 | None = None
        self._today_value = self._deposited = self._deposited_before = 0
        self._strategies: dict[str, str] = {}
        self._traded: set[str] = set()
        self._denied: dict[str, str] = {}
        self._told: Counter[str] = Counter()
        self._unknown: dict[str, int] = {}
        self._resent: set[str] = set()
        self._sent: Counter[str] = Counter()
        self._outage: list[str] = []

    def recall(self, record: Record) -> None:
        """Take *record* in without telling it again: it belongs to an earlier part of the run."""
        for _line in self.tell(record):
            pass

    def tell(self, record: Record) -> Iterator[Line]:
        """The lines that *record* is worth; most records are worth none."""
        self.last_seq, self._ts = record.seq, record.ts
        teller = getattr(self, f"_tell_{record.type.lower()}", None)
        if teller is not None:
            at = utc(record.ts).strftime("%H:%M:%S")
            for line in teller(record.seq, record.details):
                yield line._replace(time=at)

    def _tell_deposit(self, _seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        self._deposited += parse_money(details["amount"])
        yield Line("", "deposit", f"{details['amount']} dollars: {details['reason']}")

    def _tell_session_open(self, _seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        value = parse_money(details["liquidation"])
        self._first_value = value if self._first_value is None else self._first_value
        self._today_value, self._deposited_before = value, self._deposited
        yield Line(
            "",
            "session",
            f"opened with ${Decimal(details['cash']):,} and {len(details['positions'])} positions",
        )

    def _tell_state(self, _seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        yield Line("", "state", f"{details['from']} -> {details['to']}: {details['reason']}", "state")

    def _tell_decision(self, _seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        if details.get("question"):
            return
        self.decisions += 1
        if details["verdict"] == "deny":
            self.orders["denied"] += 1
            self.refusals[details["reason"]] += 1
            self._denied[details["intent"]] = details["reason"]
            if self._seldom(f"denied {details['reason']}"):
                yield Line(
                    "",
                    "refused",
                    f"{details['strategy']} {_wish(details)}: {details['reason']}{_measured(details)}",
                    "bad",
                )

    def _tell_risk_violation(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        kind = details["violation_type"]
        if kind == "position_limit_exceeded" and "refused" not in self.proven:
            self.proven["refused"] = seq
            yield Line("", "refused", "nothing was sent: no ORDER record, no API call for it", "bad")
        if kind == "circuit_breaker_open":
            if "circuit_breaker_open" not in self.refusals or self._told["fast"] < 1:
                self._told["fast"] += 1
                yield Line(
                    "", "breaker", "an order failed fast: refused while the breaker is open, unsent", "bad"
                )
            self._outage_step("refused", seq)

    def _tell_order(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        order = details["client_order_id"]
        self.orders["submitted"] += 1
        self._sent[order] += 1
        self._strategies[order] = details["strategy"]
        if self._denied.get(details["intent"]) is not None:
            self.proven.pop("refused", None)
        if self._seldom(f"order {details['strategy']}"):
            is_open = bool(self.breaker) and self.breaker[-1]["to"] == "open"
            why = ": it reduces, and an open breaker lets that through" if is_open else ""
            yield Line(
                "", "order", f"{details['strategy']} {_wish(details)}, record {seq} on disk, then sent{why}"
            )

    def _tell_order_update(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        order, event = str(details["client_order_id"]), str(details["event"])
        if event in {"reject", "not_sent", "unknown"}:
            self.orders[{"reject": "rejected"}.get(event, event)] += 1
        elif details["status"] in {"filled", "canceled", "expired", "never_arrived"}:
            self.orders[details["status"]] += 1
        if event == "resent":
            self._resent.add(order)
            yield Line("", "again", f"{order[:11]}… goes again, the same order: {details['evidence']}")
        elif event == "withdrawn":
            yield Line(
                "",
                "withdrawn",
                f"{order[:11]}… is canceled once the venue's books show it, and never sent again",
            )
        elif event == "unknown":
            self._unknown[order] = seq
            yield Line(
                "",
                "UNKNOWN",
                f"no answer for {self._strategies.get(order, '?')} {order[:11]}…: {details['reason']}; "
                f"{details['leaves']} contracts stay reserved",
                "bad",
            )
        elif order in self._unknown and event == "never_arrived":
            self._unknown.pop(order)
            yield Line("", "settled", f"{order[:11]}… never reached the venue: {details['evidence']}", "good")
        elif order in self._unknown:
            self._unknown.pop(order)
            if event == "found" and self._sent[order] == 1:
                self.proven.setdefault("lost", seq)
            how = "the same order, once" if order in self._resent else "sent once, not repeated"
            where = "refused by the venue" if event == "reject" else "in the venue's books"
            yield Line(
                "",
                "found",
                f"{order[:11]}… is {where} ({details['status']}, filled {details['filled']}): {how}",
                "good",
            )
        elif event == "reject" and self._seldom("reject"):
            yield Line("", "rejected", f"{order[:11]}… by the venue: {details['reason']}", "bad")

    def _tell_trade(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        strategy = self._strategies.get(details["client_order_id"], "external")
        self._traded.add(strategy)
        if len(self._traded) > 1:
            self.proven.setdefault("trading", seq)
        if self._seldom(f"trade {strategy}"):
            verb = "bought" if details["side"] == "bid" else "sold"
            yield Line(
                "",
                "fill",
                f"{strategy} {verb} {details['quantity']} YES {details['ticker']} at ${details['price']}, "
                f"fee ${details['fee']}",
                "good",
            )

    def _tell_api_call(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        status = details["status_code"]
        if status >= 500 and details["method"] == "GET":
            self._outage_step("failed", seq)
            yield Line("", "venue", f"GET {details['endpoint']} answered {status}", "bad")

    def _tell_breaker(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        if "/" in details["breaker"] or ":" in details["breaker"]:
            return
        self.breaker.append(
            {"name": details["breaker"], "from": details["from"], "to": details["to"], "ts": self._ts}
        )
        self._outage_step(details["to"], seq)
        # The record of half open repeats why it opened; what happened now is that the wait is over.
        why = "its wait is over, a read may probe" if details["to"] == "half_open" else details["reason"]
        yield Line(
            "",
            "breaker",
            f"{details['breaker']}: {details['from']} -> {details['to']} ({why})",
            "good" if details["to"] == "closed" else "bad",
        )

    def _tell_settlement(self, _seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        yield Line(
            "",
            "settled",
            f"{details['ticker']} {details['result']}: position {details['position']} paid ${details['payout']}",
        )

    def _tell_recovery(self, seq: int, _details: Mapping[str, Any]) -> Iterator[Line]:
        yield Line("", "recovery", f"the log was taken up again after a crash (record {seq})", "state")

    def _outage_step(self, step: str, seq: int) -> None:
        """Advance through failed, open, refused, half_open, closed; only the expected step counts."""
        order = ("failed", "open", "refused", "half_open", "closed")
        if len(self._outage) < len(order) and order[len(self._outage)] == step:
            self._outage.append(step)
            if len(self._outage) == len(order):
                self.proven["outage"] = seq

    def _seldom(self, what: str) -> bool:
        """Whether *what* may still be told: the first few times, then every doubling."""
        self._told[what] += 1
        count = self._told[what]
        return count <= _UNTOLD_AFTER or count & (count - 1) == 0

    def gain(self, today: MoneyE6 | None) -> MoneyE6 | None:
        """What the whole run gained, given what the last session gained; None where that is unknown."""
        if today is None or self._first_value is None:
            return None
        return MoneyE6(self._today_value + today - self._first_value - self._deposited_before)

    @property
    def unknown_now(self) -> int:
        """Orders whose outcome nobody knows yet."""
        return len(self._unknown)

    @property
    def missing(self) -> list[str]:
        """Chapters not proven yet, in order."""
        return [chapter for chapter in self.chapters if chapter not in self.proven]


def _wish(details: Mapping[str, Any]) -> str:
    return (
        f"{details['action']} {str(details['side']).upper()} "
        f"{details.get('count', details.get('quantity'))} {details['ticker']} @ ${details['price']}"
    )


def _measured(details: Mapping[str, Any]) -> str:
    for code, _scope, value, bound, unit, ok in details.get("rows", ()):
        if not ok and code == details["reason"] and value:
            return f" {value} > {bound} {unit}".rstrip()
    return ""
