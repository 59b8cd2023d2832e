"""The story of an options run, told from its journal alone, as `story.py` tells that of an event-contract run.

| chapter  | proven by                                                                                       |
| -------- | ----------------------------------------------------------------------------------------------- |
| entered  | a combination's ORDER, and fills of every leg of it                                             |
| lost     | an order UNKNOWN with its reservation standing, then found or filled, sent once                  |
| stop     | a stop that activated, ratcheted and triggered, and was removed after its exit left nothing     |
| limits   | a refusal by a portfolio limit, by name, whose intent has no ORDER record                       |
| outage   | broker errors, the breaker open, an order refused unsent, half open, closed                     |
| expiry   | a contract that expired, was exercised or assigned, booked from the broker's word               |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from holdfast.cli.paper.story import Line, Story
from holdfast.core.options import is_combo, parse_combo_ticker

DESK_CHAPTERS: Mapping[str, str] = {
    "entered": "a combination was entered through the gate, every leg filled",
    "lost": "a connection cut in mid-combination: found whole in the broker's books, sent once",
    "stop": "a trailing stop activated, ratcheted and triggered, and its exit left the position flat",
    "limits": "a portfolio limit refused an entry by name, and nothing was sent for it",
    "outage": "broker errors opened the breaker, an order failed fast, the probe closed it",
    "expiry": "a contract ended at the broker, and the books followed",
}
_STOP = "trailing_stop_"
_REJECTION = "portfolio_limit_rejection"
_WARNING = "portfolio_limit_warning"
_STOCK_TAKING = "stock_taking"
_EXIT_WAITS = "exit_waits"
_MINUTE_NS = 60 * 10**9


class Stock(NamedTuple):
    """The book at one moment, as the journal holds it; "" is unknown.

    Attributes:
        ts_ns: Market time, UTC ns.
        delta, gamma, vega, theta: Share-equivalents and dollars, decimal text.
        equity: Dollars.
        positions: Executions that were not over.
    """

    ts_ns: int
    delta: str
    gamma: str
    vega: str
    theta: str
    equity: str
    positions: int


class DeskStory(Story):
    """A fold over the records of an options run.

    Attributes:
        stops: Stop events by what they did.
        rejections: Refusals told as events, by limit.
        warnings: Limits that the market moved the book beyond, by limit.
        stocks: The book over time.
        contracts_ended: Exercises, assignments and expiries.
        alarms: What a person should look at, by name.
    """

    chapters = DESK_CHAPTERS

    def __init__(self) -> None:
        super().__init__()
        self.stops: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.stocks: list[Stock] = []
        self.contracts_ended: Counter[str] = Counter()
        self.alarms: Counter[str] = Counter()
        self._legs: dict[str, set[str]] = {}
        self._steps: dict[str, set[str]] = {}
        self._refused_intents: set[str] = set()
        self._waits_since: dict[str, int] = {}
        # All the legs of an order are told, or none.
        self._fills_told: dict[str, bool] = {}

    def _tell_order(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        order, intent, ticker = details["client_order_id"], str(details["intent"]), str(details["ticker"])
        self.orders["submitted"] += 1
        self._sent[order] += 1
        self._strategies[order] = intent
        if is_combo(ticker) and intent.endswith("/open"):
            self._legs[order] = {leg for leg, _ in parse_combo_ticker(ticker)}
        if intent in self._refused_intents:
            self.proven.pop("limits", None)
        since_ns = self._waits_since.pop(intent.partition("/")[0], None)
        waited = "" if since_ns is None else f", after waiting {(self._ts - since_ns) // _MINUTE_NS} min"
        yield Line(
            "",
            "order",
            f"{intent}: {details['action']} {_plain(details['quantity'])} {shape(ticker)} at {_cents(details['price'])}"
            f"{_net(details)}{waited}, record {seq} on disk, then sent",
        )

    def _tell_order_update(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        order = str(details["client_order_id"])
        was_unknown = order in self._unknown
        yield from super()._tell_order_update(seq, details)
        # Fills on the new connection are evidence as good as a listed order.
        if was_unknown and details["event"] in {"found", "fill"} and self._sent[order] == 1:
            self.proven.setdefault("lost", seq)

    def _tell_trade(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        order, ticker = str(details["client_order_id"]), str(details["ticker"])
        cause = str(details.get("cause", "trade"))
        if cause != "trade":
            self.contracts_ended[cause] += 1
            self.proven.setdefault("expiry", seq)
            verb = "bought" if details["side"] == "bid" else "sold"
            yield Line(
                "",
                _ENDED.get(cause, cause),
                f"{ticker}: {verb} {_plain(details['quantity'])} at {_cents(details['price'])}, "
                "as the broker's books say",
                "state",
            )
            return
        waiting = self._legs.get(order)
        if waiting is not None:
            waiting.discard(ticker)
            if not waiting:
                self.proven.setdefault("entered", seq)
        if order not in self._fills_told:
            self._fills_told[order] = self._seldom("fill")
        if self._fills_told[order]:
            verb = "bought" if details["side"] == "bid" else "sold"
            yield Line(
                "",
                "fill",
                f"{self._strategies.get(order, 'external')} {verb} {_plain(details['quantity'])} {ticker} "
                f"at {_cents(details['price'])}, fee ${details['fee']}",
                "good",
            )

    def _tell_decision(self, _seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        if not details.get("question"):
            self.decisions += 1
            if details["verdict"] == "deny":
                self.orders["denied"] += 1
                self.refusals[details["reason"]] += 1
                self._refused_intents.add(details["intent"])
        return iter(())

    def _tell_risk_violation(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        kind = details["violation_type"]
        if kind == "circuit_breaker_open":
            yield Line(
                "", "breaker", "an order failed fast: refused while the breaker is open, unsent", "bad"
            )
            self._outage_step("refused", seq)
        elif kind in _ALARMS:
            self.alarms[kind] += 1
            facts = details["details"]
            yield Line(
                "",
                "ALARM",
                f"{facts.get('execution_id') or facts.get('ticker', '')}: "
                f"{_ALARMS[kind].format(details['current_value'])}{_WHAT_TO_DO.get(details['current_value'], '')}",
                "bad",
            )

    def _tell_api_call(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        status = details["status_code"]
        if status >= 500:
            self._outage_step("failed", seq)
            yield Line("", "broker", f"{details['method']} {details['endpoint']} answered {status}", "bad")

    def _tell_config(self, _seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        for kind in ("cheap", "dear"):
            plans = details.get(f"options.entry.when_{kind}")
            if plans:
                yield Line("", "rules", f"where options are {kind}: {'; else '.join(plans)}", "state")
        name = "options.reference."
        if f"{name}source" in details:
            assumed = "assumed, " if details[f"{name}assumed"] else ""
            ranks = (
                ", ".join(f"{symbol} {rank}" for symbol, rank in details[f"{name}iv_rank"].items()) or "none"
            )
            yield Line(
                "",
                "reference",
                f"IV rank {ranks}; VIX {details[f'{name}vix'] or 'none'} ({assumed}{details[f'{name}source']})",
                "state",
            )

    def _tell_risk_event(self, seq: int, details: Mapping[str, Any]) -> Iterator[Line]:
        kind = str(details["event_type"])
        if kind.startswith(_STOP):
            yield from self._tell_stop(seq, kind.removeprefix(_STOP), details)
        elif details.get("limit_type") == _STOCK_TAKING:
            self._take_stock(details)
        elif kind == _WARNING:
            limit = str(details.get("limit_type", "?"))
            if limit == _EXIT_WAITS:
                yield from self._tell_wait(details)
            # What else an execution is warned of is told as its alarm.
            if details.get("execution_id"):
                return
            self.warnings[limit] += 1
            if self._seldom(f"warned {limit}"):
                yield Line("", "warning", f"the book as it stands: {limit}{_measured(details)}", "bad")
        elif kind == _REJECTION:
            limit = str(details.get("limit_type", "refused"))
            self.rejections[limit] += 1
            if limit in PORTFOLIO_LIMITS_SHOWN:
                self.proven.setdefault("limits", seq)
            if self._seldom(f"rejected {limit}"):
                symbol, why = details.get("symbol", ""), str(details.get("rejection_reason", ""))
                # A rule without figures says in words what it lacked.
                words = why.removeprefix(limit) if limit == "no_structure" else _measured(details)
                yield Line("", "refused", f"{symbol}: {limit}{words}; nothing was sent", "bad")

    def _tell_wait(self, details: Mapping[str, Any]) -> Iterator[Line]:
        """An exit that can go no further now; how long it waited is told with the order that ends the wait."""
        execution_id, known = str(details["execution_id"]), details.get("metadata", {})
        is_first = self._waits_since.setdefault(execution_id, self._ts) == self._ts
        if is_first:
            held = ", ".join(f"{_plain(qty)} {ticker}" for ticker, qty in known.get("held", {}).items())
            why = _WAITS.get(str(details.get("rejection_reason")), "it cannot be executed now")
            yield Line(
                "",
                "waits",
                f"{execution_id}: {why}: {held} stays, and is looked at with every quote",
                "state",
            )

    def _tell_stop(self, seq: int, did: str, details: Mapping[str, Any]) -> Iterator[Line]:
        execution_id = str(details.get("execution_id", ""))
        self.stops[did] += 1
        steps = self._steps.setdefault(execution_id, set())
        steps.add(did)
        if did == "remove" and {"activate", "update", "trigger"} <= steps:
            self.proven.setdefault("stop", seq)
        if did == "update" and not self._seldom(f"update {execution_id}"):
            return
        premium, stop = details.get("current_premium"), details.get("stop_premium")
        said = {
            "add": f"entry premium {_cents(details.get('entry_premium'))}",
            "activate": f"active at {_cents(premium)}, stop {_cents(stop)}",
            "update": f"follows {_cents(premium)}, stop {_cents(stop)}",
            "trigger": f"TRIGGERED at {_cents(premium)}, stop {_cents(stop)}: leave now",
            "remove": "removed, the position is flat",
        }.get(did, did)
        yield Line("", "stop", f"{execution_id}: {said}", "bad" if did == "trigger" else "state")

    def _take_stock(self, details: Mapping[str, Any]) -> None:
        known: Mapping[str, Any] = details.get("metadata", {})
        words = {name: str(known.get(name, "")) for name in ("delta", "gamma", "vega", "theta", "equity")}
        self.stocks.append(Stock(ts_ns=self._ts, positions=int(known.get("positions", 0)), **words))


PORTFOLIO_LIMITS_SHOWN = frozenset(
    {
        "portfolio_delta",
        "portfolio_gamma",
        "symbol_delta",
        "concentration",
        "correlated_exposure",
        "total_exposure_cap",
    }
)
"""The six checks of a portfolio."""

_WHAT_TO_DO = {
    "not_reducing": "; it protects another position: close both at the broker as one order, the other one first, or "
    "let both expire"
}
"""What a person can do about a barred exit, where it is not plain."""

_WAITS = {
    "worthless": "nobody bids for what is left of it",
    "quote_one_sided": "a side of it has no price now",
}
"""What an exit waits for."""

_ENDED = {"expiration": "expired", "assignment": "assigned", "exercise": "exercised"}
_ALARMS = {
    "exit_barred": "its exit is barred ({}), and stays demanded",
    "exit_unknown": "nobody knows whether its exit {} is live; no other one goes out",
    "exit_waits": "nothing of it can be executed ({})",
    "closed_elsewhere": "a leg was closed by something else than its own orders ({})",
    "ended_unseen": "{} of it ended and the venue told no execution; see what was booked",
    "premium_unknown": "its premium has been unknown for {} s, a leg has no fresh quote; its stop waits",
}


def shape(ticker: str) -> str:
    """A ticker for eyes: how many legs a combination has, or the contract."""
    return f"combination of {len(parse_combo_ticker(ticker))} legs" if is_combo(ticker) else ticker


def _net(details: Mapping[str, Any]) -> str:
    """What a combination brings or costs, in words; a single contract's price needs none."""
    price = Decimal(details["price"])
    if not is_combo(str(details["ticker"])) or not price:
        return ""
    takes = (price < 0) == (details["action"] == "buy")
    return f" (a {'credit' if takes else 'debit'} of {_cents(f'{abs(price):f}')})"


def _measured(details: Mapping[str, Any]) -> str:
    """The value, the limit and what it is about, as far as the event says; times in seconds."""
    value, bound = str(details.get("current_value", "")), str(details.get("limit_value", ""))
    unit, scope = str(details.get("unit", "")), str(details.get("scope", ""))
    if unit == "ms":
        value, bound, unit = f"{int(value) // 1000:,}", f"{int(bound) // 1000:,}", "s"
    about = (
        f" ({scope})"
        if scope not in {"", "account", details.get("symbol"), f"symbol:{details.get('symbol')}"}
        else ""
    )
    relation = "within" if " to " in bound else ">"
    return (f" {value} {relation} {bound} {unit}".rstrip() if value else "") + about


def _plain(text: object) -> str:
    return str(text).removesuffix(".00")


def _cents(text: object) -> str:
    """A price with two places, more where it has them."""
    return "?" if text is None else str(text).removesuffix("00")
